"""What somebody typed where a reference belongs, and what to tell him if it is none. Pure.

Typing errors are found here, before anything is looked up: a number that does not verify was never
issued, so saying so tells a guesser nothing, and it is no miss.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.codes.scanned import reference_in
from gateway.references import is_reference

DIGITS: Final = 12
TEXT_MAX: Final = 2_048
"""Longer than any code that holds a reference."""

_SHOWN_MAX: Final = 3


class Slip(StrEnum):
    """What is wrong with it."""

    EMPTY = "empty"
    LETTERS = "letters"
    """It holds something that is no digit."""
    LENGTH = "length"
    CHECK = "check"
    """Twelve digits that do not verify: one is wrong, or two changed places."""
    OTHER_RF = "other_rf"
    """A bank's reference with other digits than 74: somebody else's bill."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A reference that verifies, or what is wrong."""

    reference: str | None = None
    slip: Slip | None = None
    digits: int = 0
    """How many digits there are, where LENGTH is what is wrong."""
    strangers: str = ""
    """The first signs that are no digits, where LETTERS is."""


def read_typed(text: str) -> Typed:
    """Return the reference that was typed, pasted or scanned, or the first thing wrong with it."""
    plain = "".join(c for c in text[:TEXT_MAX] if unicodedata.category(c) not in _INVISIBLE)
    if not plain.strip():
        return Typed(slip=Slip.EMPTY)
    meant = reference_in(plain)
    if meant is not None:
        return Typed(meant) if is_reference(meant) else Typed(slip=Slip.CHECK)
    return _slip(plain)


def looks_like_a_reference(text: str) -> bool:
    """Say whether a piece of an address was meant as a reference, and not as some page's name."""
    digits = sum(unicodedata.decimal(c, None) is not None for c in text)
    return digits >= 4 and digits > sum(c.isalpha() for c in text)


def _slip(plain: str) -> Typed:
    kept = [c for c in plain if not c.isspace() and unicodedata.category(c) != "Pd"]
    if "".join(kept[:2]).upper() == "RF":
        kept = kept[2:]
        if [unicodedata.decimal(c, None) for c in kept[:2]] != [7, 4]:
            return Typed(slip=Slip.OTHER_RF)
        kept = kept[2:]
    strangers = [c for c in kept if unicodedata.decimal(c, None) is None]
    if strangers or len(kept) == DIGITS:
        shown = dict.fromkeys(c for c in strangers if c.isprintable())
        return Typed(slip=Slip.LETTERS, strangers=" ".join(list(shown)[:_SHOWN_MAX]))
    return Typed(slip=Slip.LENGTH, digits=len(kept)) if kept else Typed(slip=Slip.EMPTY)


_INVISIBLE: Final = frozenset({"Cf", "Cs", "Cn"})
"""Direction marks and the like. Line breaks stay: two numbers are not one."""
