"""References that a payer may have meant who wrote digits that do not verify. Pure.

The check digits catch every slip below, so whoever looks for the reference that was meant only has
to try those that verify. A slip leaves very few: 97 texts in a hundred are nobody's reference. This
is the plain version of `docs/matching.md` "Relations"; the engines do the same on whole tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from itertools import permutations
from typing import Final

from gateway.references import is_reference

_DIGITS: Final = "0123456789"


class Slip(StrEnum):
    """What happened to a reference on its way, from the likeliest to the least."""

    WRONG = "wrong"
    """One digit is another."""
    SWAPPED = "swapped"
    """Two neighbours changed places."""
    MISSING = "missing"
    EXTRA = "extra"
    JUMP = "jump"
    """`abc` for `cba`."""
    TWIN = "twin"
    """`aa` for `bb`."""
    GROUPS = "groups"
    """The three printed groups of four stand in another order."""


def repairs(digits: str) -> dict[int, Slip]:
    """Return every reference that is one slip away from these digits, and by which slip.

    Of several slips that lead to one reference the first in the order of `Slip` is named. Digits
    that verify themselves are only ever one slip of groups away from another reference. Anything
    but 11 to 13 ASCII digits has no repairs.
    """
    if not (digits.isascii() and digits.isdecimal()):
        return {}
    found: Iterator[tuple[Slip, str]]
    match len(digits):
        case 11:
            found = ((Slip.MISSING, text) for text in _with_one_more(digits))
        case 12:
            found = _of_twelve(digits)
        case 13:
            found = ((Slip.EXTRA, digits[:i] + digits[i + 1 :]) for i in range(13))
        case _:
            return {}
    meant: dict[int, Slip] = {}
    for slip, text in found:
        if text != digits and is_reference(text):
            meant.setdefault(int(text), slip)
    return meant


def _with_one_more(digits: str) -> Iterator[str]:
    for at in range(len(digits) + 1):
        for digit in _DIGITS:
            yield digits[:at] + digit + digits[at:]


def _of_twelve(digits: str) -> Iterator[tuple[Slip, str]]:
    for at in range(12):
        for digit in _DIGITS:
            yield Slip.WRONG, digits[:at] + digit + digits[at + 1 :]
    for at in range(11):
        yield Slip.SWAPPED, digits[:at] + digits[at : at + 2][::-1] + digits[at + 2 :]
    for at in range(10):
        yield Slip.JUMP, digits[:at] + digits[at : at + 3][::-1] + digits[at + 3 :]
    for at in range(11):
        if digits[at] == digits[at + 1]:
            for digit in _DIGITS:
                yield Slip.TWIN, digits[:at] + digit * 2 + digits[at + 2 :]
    for order in permutations((digits[:4], digits[4:8], digits[8:])):
        yield Slip.GROUPS, "".join(order)
