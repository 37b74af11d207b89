"""Check digits and shapes of Moroccan identification numbers. Pure.

Where a rule is not confirmed for all numbers that are in use, breaking it is for a warning only:
nobody stays without cover for a number that was issued otherwise.
"""

from __future__ import annotations

import re
from typing import Final

_CIN: Final = re.compile(r"[A-Z]{1,2}[0-9]{1,6}", re.ASCII)
_ICE: Final = re.compile(r"[0-9]{15}", re.ASCII)
_RIB: Final = re.compile(r"[0-9]{24}", re.ASCII)
_NOBODYS: Final = "100000000"


def cnss_number_checks(number: str) -> bool:
    """Say whether the last of nine digits is the check digit that the CNSS describes.

    The rule is of 2006 and of employees' numbers, which begin with 1: no number that does not
    agree may be refused for it.
    """
    assert len(number) == 9
    one, two, three, four, five, six, seven, eight, check = map(int, number)
    total = 2 * (two + four + six + eight) + three + five + seven
    return one == 1 and number != _NOBODYS and check == -total % 10


def cin_is_usual(cin: str) -> bool:
    """Say whether an identity card's number is one or two letters and up to six digits."""
    return _CIN.fullmatch(cin) is not None


def read_ice(text: str) -> str:
    """Return the fifteen digits of a business's common identifier (ICE).

    Raises:
        ValueError: They are not fifteen, or the last two do not check (the whole modulo 97 is 0).
    """
    compact = "".join(text.split())
    if not _ICE.fullmatch(compact):
        raise ValueError("ice is not fifteen digits")
    if int(compact) % 97:
        raise ValueError("ice does not verify: a digit is wrong, or two changed places")
    return compact


def read_rib(text: str) -> str:
    """Return the twenty-four digits of a bank account's identity (RIB).

    Raises:
        ValueError: They are not twenty-four, or the key (the last two) is not that of the others.
    """
    compact = "".join(text.split())
    if not _RIB.fullmatch(compact):
        raise ValueError("rib is not twenty-four digits")
    if int(compact[22:]) != 97 - int(compact[:22]) * 100 % 97:
        raise ValueError("rib does not verify: a digit is wrong, or two changed places")
    return compact
