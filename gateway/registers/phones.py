"""Telephone numbers in their one form (E.164). Pure. Who the operator is, no number tells."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import phonenumbers

_MOROCCO: Final = re.compile(r"(?:\+212|00212|0)([5-8][0-9]{8})", re.ASCII)
_ELSEWHERE: Final = re.compile(r"\+[1-9][0-9]{7,14}", re.ASCII)
_MOROCCO_CODE: Final = 212
_MOBILE: Final = re.compile(r"(?:\+?212|00212|0)([67][0-9]{8})", re.ASCII)
_BETWEEN: Final = frozenset(" \u00a0\u202f.-()/")


def read_phone(text: str) -> str | None:
    """Return a telephone number with its country code, `+212612345678`; None for an empty text.

    Moroccan numbers are ten digits that begin with 05 to 08, with or without the country code; all
    others are written with theirs.

    Raises:
        ValueError: It is neither Moroccan nor international.
    """
    compact = re.sub(r"[ .()-]", "", text)
    if not compact:
        return None
    # Nearly all are of this form: they need no look into the tables of the world.
    if found := _MOROCCO.fullmatch(compact):
        return f"+212{found[1]}"
    number = _parsed(text)
    if number is not None and phonenumbers.is_possible_number(number):
        written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
        if number.country_code != _MOROCCO_CODE or _MOROCCO.fullmatch(written):
            return written
    elif _ELSEWHERE.fullmatch(compact):
        return compact
    raise ValueError("phone is neither a Moroccan number nor one with its country code")


def read_mobile(text: str) -> str | None:
    """Return a Moroccan mobile number as networks write it, `212612345678`; None: it is none.

    Spaces and signs between the digits do not matter, and any script's digits will do.
    """
    digits = "".join(
        str(unicodedata.decimal(c)) if unicodedata.decimal(c, None) is not None else c
        for c in text
        if c not in _BETWEEN and unicodedata.category(c) != "Cf"
    )
    found = _MOBILE.fullmatch(digits)
    return f"212{found[1]}" if found else None


def phone_is_possible(phone: str) -> bool:
    """Say whether there can be a number of this length in its country; `phone` as it is kept."""
    if _MOROCCO.fullmatch(phone):
        return True
    number = _parsed(phone)
    return number is not None and phonenumbers.is_possible_number(number)


def _parsed(text: str) -> phonenumbers.PhoneNumber | None:
    if any(character.isalpha() for character in text):
        return None  # words for digits, extensions
    try:
        return phonenumbers.parse(text, "MA")
    except phonenumbers.NumberParseException:
        return None
