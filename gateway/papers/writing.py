"""What notices and receipts have in common: both languages at once, people, codes. Pure.

A pair is what one thing is called in French and in Arabic, in this order, on every paper.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from gateway.billing.presentment import Person
from gateway.codes.qr import QUIET_MODULES, Symbol
from gateway.institution import Institution
from gateway.settings import Settings
from gateway.words.speech import Speech, speech

Pair = tuple[str, str]
NOTHING: Final[Pair] = ("", "")

# Modules are whole hundredths of an inch wide, on which the dots of printers fall: two at least,
# half a millimetre, or not every phone reads the code.
_STEP_MM: Final = 0.254
_STEPS_MIN: Final = 2
_CODE_MM_MAX: Final = 40.0

NAME_MAX: Final = 250
"""Twice what an import takes, and a space; what is longer is cut, or it would not fit any page."""

# Longer runs without a space may be broken, or they would run into the neighbouring column.
WORD_MAX: Final = 16
MARKS_MAX: Final = 3
"""Accents and vowel signs on one letter; more would be drawn over the lines above."""

UNCONFIRMED: Final = "*"
"""Behind a figure that no official text was seen for; a footnote says so."""

_BREAK: Final = "\u200b"
_FIRST_STRONG, _LEFT_TO_RIGHT, _END = "\u2068", "\u2066", "\u2069"
_JOINERS: Final = frozenset("\u200c\u200d")
_LONG_WORD: Final = re.compile(rf"\S{{{WORD_MAX}}}(?=\S)")
_NO_BREAK: Final = "\u00a0"


@dataclass(frozen=True, slots=True)
class Occasion:
    """For whom and when a paper is made."""

    settings: Settings
    institution: Institution
    masked: bool
    """For anybody who has the reference: initials instead of the name, no CNSS number."""
    now: datetime


def both(write: Callable[[Speech], str]) -> Pair:
    """Return what this writes in each language."""
    return write(speech("fr")), write(speech("ar"))


def say(text: str, /, **values: str) -> Pair:
    """Return a text of the code in both languages, its `{names}` filled alike."""
    return both(lambda s: s.say(text, **values))


def alone(text: str) -> str:
    """Return a text as one unit whose direction is its own, for use inside a sentence."""
    return f"{_FIRST_STRONG}{text}{_END}"


def figures(text: str) -> str:
    """Return a number of several groups as one unit that is read from left to right."""
    return f"{_LEFT_TO_RIGHT}{text.replace(' ', _NO_BREAK)}{_END}"


def plain(name: str) -> str:
    """Return a name as it can be printed: whole, on one line, without what steers the text.

    Direction overrides and other invisible characters are left out; runs of white space become one
    space; piled up accents are cut to three, and the whole to NAME_MAX.
    """
    kept, marks = [], 0
    for character in unicodedata.normalize("NFC", name):
        category = unicodedata.category(character)
        marks = marks + 1 if category == "Mn" else 0
        if marks > MARKS_MAX or (category == "Cf" and character not in _JOINERS):
            continue
        kept.append(" " if category in _SPACES else character)
    whole = " ".join("".join(kept).split())
    cut = whole if len(whole) <= NAME_MAX else f"{whole[:NAME_MAX].rstrip()}…"
    return _LONG_WORD.sub(rf"\g<0>{_BREAK}", cut)


_SPACES: Final = frozenset({"Cc", "Zl", "Zp", "Zs"})


def name_of(person: Person, *, masked: bool) -> Pair:
    """Return who it is in each language's letters, or in the letters that are known."""
    if masked:
        latin, arabic = person.initials, person.initials_ar
    else:
        latin = f"{person.given_name} {person.family_name}"
        arabic = None
        if person.given_name_ar and person.family_name_ar:
            arabic = f"{person.given_name_ar} {person.family_name_ar}"
    return alone(plain(latin)), alone(plain(arabic or latin))


def who(person: Person, occasion: Occasion) -> list[dict[str, Any]]:
    """Return the rows that say whom a paper is for."""
    name = name_of(person, masked=occasion.masked)
    if occasion.masked:
        return [row(say("Initials"), name)]
    number = figures(person.cnss_number)
    return [row(say("Name"), name), row(say("CNSS number"), (number, number))]


# -- what papers are put together from ------------------------------------------------------------


def row(label: Pair, value: Pair) -> dict[str, Any]:
    """Return a fact."""
    return {"label": label, "value": value}


def glanced(label: Pair, value: tuple[str, ...], *, warns: bool = False) -> dict[str, Any]:
    """Return what stands out; `value` is one figure for both languages, or one for each."""
    return {"label": label, "value": value, "warns": warns}


def band(text: Pair, *, warns: bool = False, large: bool = False) -> dict[str, Any]:
    """Return a sentence that decides what the holder does."""
    return {"text": text, "warns": warns, "large": large}


def entry(
    label: Pair, amount_minor: int, *, rule: Pair = NOTHING, doubtful: bool = False
) -> dict[str, Any]:
    """Return a line of a table of amounts; centimes, signed."""
    return {
        "label": label,
        "rule": rule,
        "mark": UNCONFIRMED if doubtful else "",
        "amount": speech("fr").amount(amount_minor),
    }


def total(label: Pair, amount_minor: int) -> dict[str, Any]:
    """Return what the lines of a table add up to."""
    return {"label": label, "amount": speech("fr").amount(amount_minor)}


def joined(*parts: str) -> str:
    """Return the parts that are there, a dot between them."""
    return " · ".join(part for part in parts if part)


def card(
    drawn: Symbol, label: Pair, says: Pair, *, alt: Pair, link: str | None = None
) -> dict[str, Any]:
    """Return a code with what it is for; `link` is printed too, for those who cannot scan."""
    return {
        # A pixel for each module, drawn without smoothing: sharp as lines, in a third of the room.
        "png": list(drawn.png()),
        "side_mm": _side_mm(drawn),
        "label": label,
        "says": says,
        "alt": " / ".join(alt),
        "link": link,
        "address": None if link is None else _breakable(link),
    }


def _side_mm(drawn: Symbol) -> float:
    """Return how wide a code is printed, margins and all."""
    modules = drawn.size + 2 * QUIET_MODULES
    steps = max(_STEPS_MIN, int(_CODE_MM_MAX / (modules * _STEP_MM)))
    return modules * steps * _STEP_MM


def _breakable(link: str) -> str:
    """Return an address that may go on in the next line after a slash or a full stop."""
    return re.sub(r"(?<=[/.])(?=[^/.])", _BREAK, link)


def shared(title: str, occasion: Occasion) -> dict[str, Any]:
    """Return what all pages of a file have in common."""
    institution = occasion.institution
    return {
        "title": title,
        "house": {
            "name": institution.name,
            "name_ar": institution.name_ar,
            "full_name": institution.full_name,
            "scheme": say("Mandatory health insurance (AMO)"),
        },
        "specimen": None if occasion.settings.mode == "production" else _specimen(),
    }


def _specimen() -> Mapping[str, Pair]:
    return {
        "word": say("SPECIMEN"),
        "note": say("SPECIMEN: a trial document without value; nothing is to be paid."),
    }


def as_of(occasion: Occasion) -> Pair:
    """Return the day whose situation a paper shows."""
    return both(lambda s: s.say("Situation on {day}", day=s.day_of(occasion.now)))


def questions(institution: Institution) -> Pair:
    """Return whom to ask."""
    if institution.phone:
        return say("Questions: {phone}", phone=figures(institution.phone))
    names = (institution.name, institution.name_ar)
    fr, ar = (
        speech(language).say("Questions: agencies of {institution}", institution=name)
        for language, name in zip(("fr", "ar"), names, strict=True)
    )
    return fr, ar
