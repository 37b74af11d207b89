"""HASH ver3 of NestPay, by which a form and its answer are signed. Pure.

A hash of the values in the natural order of their names, and of a key that both sides hold. The
names themselves are not in it: whoever holds a signed form may post its values by other names that
keep their order.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Container, Sequence
from functools import cmp_to_key
from html.entities import name2codepoint
from typing import Any, Final

Fields = Sequence[tuple[str, str]]
"""Names and values, in the order in which they are posted."""

_ENTITY = re.compile(
    r"&(?:#([0-9]{1,32})|#[xX]([0-9A-Fa-f]{1,32})|([A-Za-z][0-9A-Za-z]{0,31}));", re.ASCII
)


def ver3(fields: Fields, store_key: str) -> str:
    """Return the HASH of fields whose values are as they are hashed (see `as_hashed`)."""
    return base64.b64encode(
        hashlib.sha512(hashed_text(fields, store_key).encode()).digest()
    ).decode()


def hashed_text(fields: Fields, store_key: str) -> str:
    """Return the text that HASH is made of: values by the natural order of their names, the key."""
    counted = [each for each in fields if each[0].lower() not in {"hash", "encoding"}]
    counted.sort(key=lambda each: _natural(each[0]))
    return "|".join([*(_escaped(value) for _, value in counted), _escaped(store_key)])


def as_hashed(value: str) -> str:
    """Return a received value as it was when the bank hashed it: without the entities of HTML 4.

    As PHP decodes: once, only what ends in a semicolon, no `&apos;`, and no number of a character
    that HTML 4 does not allow. The standard library's decoder follows HTML 5 and browsers instead.
    """
    return _ENTITY.sub(_character, value.removesuffix("\n"))


def _character(entity: re.Match[str]) -> str:
    decimal, hexadecimal, named = entity.groups()
    if named:
        return chr(name2codepoint[named]) if named in name2codepoint else entity[0]
    point = int(decimal) if decimal else int(hexadecimal, 16)
    allowed = (
        point in {0x09, 0x0A, 0x0D}
        or 0x20 <= point <= 0x7E
        or 0xA0 <= point <= 0xD7FF
        or 0xE000 <= point <= 0x10FFFF
    )
    return chr(point) if allowed else entity[0]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("|", "\\|")


_DIGITS: Final = frozenset(b"0123456789")
_SPACES: Final = frozenset(b" \t\n\v\f\r")
_ZERO: Final = ord("0")


def _compared(one: bytes, other: bytes) -> int:
    """Compare names as PHP's natcasesort does, upper-cased: below, at or above 0.

    A run of digits is a number, unless it begins with a zero: then it is compared like a fraction.
    Zeros before all else and spaces count for nothing. (The library natsort orders `x01`, `x1` and
    `x-1` otherwise.)
    """
    if not one or not other:
        return len(one) - len(other)
    at, to = _first(one), _first(other)
    while True:
        at, to = _past(one, at, _SPACES), _past(other, to, _SPACES)
        if at < len(one) and to < len(other) and one[at] in _DIGITS and other[to] in _DIGITS:
            mine, theirs = one[at : _past(one, at, _DIGITS)], other[to : _past(other, to, _DIGITS)]
            if _ZERO not in (mine[0], theirs[0]) and len(mine) != len(theirs):
                return len(mine) - len(theirs)
            if mine != theirs:
                return -1 if mine < theirs else 1
            at, to = at + len(mine), to + len(theirs)
            if at == len(one) or to == len(other):
                break
        left = one[at] if at < len(one) else 0
        right = other[to] if to < len(other) else 0
        if left != right:
            return left - right
        at, to = at + 1, to + 1
        if at >= len(one) or to >= len(other):
            break
    return (at < len(one)) - (to < len(other))


def _first(name: bytes) -> int:
    """Return where a name begins behind zeros that a digit follows."""
    at = 0
    while at + 1 < len(name) and name[at] == _ZERO and name[at + 1] in _DIGITS:
        at += 1
    return at


def _past(name: bytes, at: int, these: Container[int]) -> int:
    while at < len(name) and name[at] in these:
        at += 1
    return at


_BY_COMPARISON: Final = cmp_to_key(_compared)


def _natural(name: str) -> Any:
    return _BY_COMPARISON(name.encode().upper())
