"""The reference a payer quotes: twelve digits that catch typing errors. Pure.

Nine random digits behind a leading digit, and two check digits by ISO 7064 MOD 97-10, so that
`int(reference) % 97 == 1`. Every single wrong digit, adjacent swap, twin and jump is caught.

References are drawn without collisions, not by chance and retry: the n-th invoice ever issued gets
the n-th value of a permutation of the ten-digit payloads, made by a Feistel network with a key of
this installation. It is written three times, and tests hold the three against each other: plainly
here, as tables for a million at once (`ReferenceTables`), and in the database (`wasl_reference`).
"""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from threading import Lock
from typing import Final

_LEFT: Final = 100_000
_RIGHT: Final = 10_000
BLOCK: Final = _LEFT * _RIGHT
"""How many references share a leading digit. References with 1 are used up before 2 begins."""

CAPACITY: Final = 9 * BLOCK
_ROUNDS: Final = 6
_TABLES_PAY_FROM: Final = 1_000

# Invisible characters that copying from a phone, a PDF or a right-to-left page leaves behind.
BIDI: Final = frozenset(
    "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
)
SEPARATORS: Final = frozenset("-\u2010\u2011\u2012\u2013")


def normalise_reference(text: str) -> str | None:
    """Return the twelve ASCII digits that a person or a file meant, or None.

    Understands spaces (also no-break ones), hyphens, direction marks, the bank's form `RF74…`, and
    Arabic-Indic, Persian and full-width digits. Letters are refused, never read as the digit they
    resemble, and so are superscripts and line breaks: two numbers are not one. The result has the
    right shape; `is_reference` says whether it verifies.
    """
    if len(text) == 12 and text.isascii() and text.isdecimal():
        return text
    if len(text) > 64 or "\n" in text or "\r" in text:
        return None
    kept = [c for c in text if not (c.isspace() or c in BIDI or c in SEPARATORS)]
    if [c.upper() for c in kept[:2]] == ["R", "F"]:
        kept = kept[2:]
        prefix = "".join(str(unicodedata.decimal(c, "x")) for c in kept[:2])
        if prefix != "74":
            return None
        kept = kept[2:]
    digits = [unicodedata.decimal(c, None) for c in kept]
    if len(digits) != 12 or None in digits:
        return None
    return "".join(str(d) for d in digits)


def is_reference(digits: str) -> bool:
    """Say whether twelve ASCII digits verify; the check pairs 00, 01 and 99 are never issued."""
    return (
        len(digits) == 12
        and digits.isascii()
        and digits.isdecimal()
        and digits[0] != "0"
        and 2 <= int(digits[10:]) <= 98
        and int(digits) % 97 == 1
    )


def read_reference(text: str) -> str | None:
    """Return the reference in this text if it is well formed and verifies, else None."""
    digits = normalise_reference(text)
    return digits if digits is not None and is_reference(digits) else None


def with_check_digits(payload: int) -> str:
    """Return the reference of a ten-digit payload."""
    assert 10**9 <= payload < 10**10
    return f"{payload}{98 - payload * 100 % 97:02d}"


def format_reference(reference: str) -> str:
    """Return a reference as it is printed: `1482 7503 6141`."""
    return f"{reference[:4]} {reference[4:8]} {reference[8:]}"


def nth_reference(n: int, key: bytes) -> str:
    """Return the reference of the n-th invoice (from 0) of the installation with this key.

    A permutation within each leading digit: different n never share a reference.
    """
    assert 0 <= n < CAPACITY
    leading, index = divmod(n, BLOCK)
    return with_check_digits((leading + 1) * BLOCK + permuted(index, key))


def permuted(index: int, key: bytes) -> int:
    """Return where a key's permutation of the nine-digit numbers takes one of them."""
    assert 0 <= index < BLOCK
    left, right = divmod(index, _RIGHT)
    for turn in range(_ROUNDS):
        if turn % 2 == 0:
            left = (left + _scramble(key, turn, right)) % _LEFT
        else:
            right = (right + _scramble(key, turn, left)) % _RIGHT
    return left * _RIGHT + right


def _scramble(key: bytes, turn: int, value: int) -> int:
    digest = hashlib.sha256(key + turn.to_bytes(1, "big") + value.to_bytes(4, "big")).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF


class ReferenceTables:
    """The permutation of one key as tables: a reference is six look-ups instead of six hashes.

    There are only 10 000 right and 100 000 left halves to scramble in a round, so all of them are
    scrambled beforehand: a third of a second and a megabyte.
    """

    def __init__(self, key: bytes) -> None:
        self._rounds: Final = tuple(
            _scrambles(key, turn, *((_RIGHT, _LEFT) if turn % 2 == 0 else (_LEFT, _RIGHT)))
            for turn in range(_ROUNDS)
        )

    def references(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """Yield the references of these invoices (from 0) in ASCII, as `nth_reference` does."""
        zero, one, two, three, four, five = self._rounds
        for n in numbers:
            leading, index = divmod(n, BLOCK)
            left, right = divmod(index, _RIGHT)
            left = (left + zero[right]) % _LEFT
            right = (right + one[left]) % _RIGHT
            left = (left + two[right]) % _LEFT
            right = (right + three[left]) % _RIGHT
            left = (left + four[right]) % _LEFT
            right = (right + five[left]) % _RIGHT
            shifted = ((leading + 1) * BLOCK + left * _RIGHT + right) * 100
            yield b"%d" % (shifted + 98 - shifted % 97)


def nth_references(numbers: Sequence[int], key: bytes) -> Iterator[bytes]:
    """Return the references of these invoices in ASCII, each as `nth_reference` does."""
    if len(numbers) < _TABLES_PAY_FROM:
        return (nth_reference(n, key).encode() for n in numbers)
    return _tables(key).references(numbers)


def _tables(key: bytes) -> ReferenceTables:
    """Return the tables of a key, made once in a process that issues many."""
    with _making:
        return _made(key)


_made: Final = lru_cache(maxsize=1)(ReferenceTables)
_making: Final = Lock()


def _scrambles(key: bytes, turn: int, values: int, modulus: int) -> array[int]:
    """Return `_scramble` of each value below `values`, as far as the round needs it."""
    prefix, sha256, as_number = key + turn.to_bytes(1, "big"), hashlib.sha256, int.from_bytes
    return array(
        "I",
        (
            (as_number(sha256(prefix + value.to_bytes(4, "big")).digest()[:4], "big") & 0x7FFFFFFF)
            % modulus
            for value in range(values)
        ),
    )
