"""What a row's texts say: references, numbers of a person. Pure.

People and banks write a reference in many ways, and write other things beside it. What is read here
is certain: a reference verifies by its check digits, and letters are never taken for digits they
resemble. What does not verify is kept as digits, for `reconciliation.slips` to think about.

`reconciliation.reading_tables` says the same for a million rows at once.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gateway.references import BIDI, SEPARATORS, is_reference, normalise_reference
from gateway.registers.numbers import cnss_number_checks

ALONE: Final = 0
"""How a reference stands in its text: the twelve digits and nothing else."""
WRITTEN_OTHERWISE: Final = 1
"""With spaces, in groups, behind `RF74`, in other digits than 0-9."""
IN_FREE_TEXT: Final = 2

DIGITS_MIN: Final = 6
DIGITS_MAX: Final = 14
CNSS_DIGITS: Final = (5, 12)
CIN_CHARACTERS: Final = (4, 12)
PROVIDER_REFERENCE_MIN: Final = 6
COUNTED: Final = "01234567890123456789 98765432109876543210"


@dataclass(frozen=True, slots=True)
class Text:
    """What a reference text says. Of `k`, `ks` and `digits` at most one is known."""

    k: int | None = None
    """The reference, where there is exactly one that verifies."""
    how: int = ALONE
    """How `k` is written; `ALONE` where there is none."""
    ks: tuple[int, ...] = ()
    """The references, ascending, where there are several that verify."""
    digits: str | None = None
    """6 to 14 digits, where nothing verifies."""


def read_text(text: str) -> Text:
    """Return what a reference text says; spaces around it are no part of it."""
    text = text.strip()
    whole = normalise_reference(text)
    if whole is not None and is_reference(whole):
        return Text(k=int(whole), how=ALONE if whole == text else WRITTEN_OTHERWISE)
    ks = references_in(text)
    if len(ks) == 1:
        return Text(k=ks[0], how=IN_FREE_TEXT)
    if ks:
        return Text(ks=ks)
    return Text(digits=digits_in(text))


# -- digits in a text -----------------------------------------------------------------------------


class _Folding(dict[int, str | None]):
    """How a text is simplified before it is searched; a character is looked up once."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        digit = unicodedata.decimal(character, None)
        folded: str | None = character if digit is None else str(digit)
        if character in BIDI:
            folded = None
        elif character in SEPARATORS:
            folded = "-"
        elif character.isspace() and character not in "\r\n":
            folded = " "
        self[code] = folded
        return folded


_FOLDING: Final = _Folding()

# Digits with spaces and hyphens between them are one stretch; letters, other signs and line breaks
# end it. Only where no stretch says anything may other signs (a point, a slash) stand between the
# digits too; letters and line breaks never.
_RF: Final = r"(?:(?<![^\W\d_])([Rr][Ff])[ -]{0,3})?"
_STRETCH: Final = re.compile(_RF + r"([0-9]+(?:[ -]{1,3}[0-9]+)*)")
_WIDE_STRETCH: Final = re.compile(_RF + r"([0-9]+(?:(?:[^\w\r\n]|_){1,3}[0-9]+)*)")
_GROUP: Final = re.compile("[0-9]+")
_OURS: Final = re.compile(r"7[^0-9]*4[^0-9]*")
_PERIOD_OR_DAY: Final = re.compile(
    r"(?<![0-9])(?<![0-9][-/.])"
    r"(?:(?:19|20)[0-9]{2}[-/.](?:0?[1-9]|1[0-2])(?:[-/.](?:0?[1-9]|[12][0-9]|3[01]))?"
    r"|(?:0?[1-9]|[12][0-9]|3[01])[-/.](?:0?[1-9]|1[0-2])[-/.](?:19|20)[0-9]{2}"
    r"|(?:0?[1-9]|1[0-2])[-/.](?:19|20)[0-9]{2})"
    r"(?![0-9]|[-/.][0-9])"
)


def references_in(text: str) -> tuple[int, ...]:
    """Return every reference that stands in a text and verifies, ascending.

    Twelve digits together, in whole groups: a reference never begins or ends inside a longer
    number. Numbers behind `RF` with other check digits than 74 are somebody else's. Of twelve
    digits that overlap, those are left out without which more references fit into the text.
    """
    folded = text.translate(_FOLDING)
    return _references(folded, _STRETCH) or _references(folded, _WIDE_STRETCH)


def _references(folded: str, stretch: re.Pattern[str]) -> tuple[int, ...]:
    found: set[int] = set()
    for groups in _stretches(folded, stretch):
        if sum(map(len, groups)) >= 12:
            found.update(_fitting(groups))
    return tuple(sorted(found))


def _stretches(folded: str, stretch: re.Pattern[str]) -> Iterator[list[str]]:
    """Yield the groups of digits of each stretch; without `RF74`, and not those of another `RF`."""
    for rf, written in stretch.findall(folded):
        if rf:
            ours = _OURS.match(written)
            if ours is None:
                continue
            yield _GROUP.findall(written, ours.end())
        else:
            yield _GROUP.findall(written)


def _fitting(groups: list[str]) -> Iterator[int]:
    windows = []
    for start in range(len(groups)):
        length = 0
        for end in range(start, len(groups)):
            length += len(groups[end])
            if length >= 12:
                break
        if length == 12 and is_reference(joined := "".join(groups[start : end + 1])):
            windows.append((start, end, int(joined)))
    if len(windows) == 1:
        yield windows[0][2]
        return
    # How many fit before and after each, none overlapping another.
    before = [0] * (len(groups) + 1)
    after = [0] * (len(groups) + 2)
    ends = {end: start for start, end, _ in windows}
    starts = {start: end for start, end, _ in windows}
    for at in range(len(groups)):
        before[at + 1] = max(before[at], before[ends[at]] + 1 if at in ends else 0)
    for at in reversed(range(len(groups))):
        after[at] = max(after[at + 1], after[starts[at] + 1] + 1 if at in starts else 0)
    for start, end, reference in windows:
        if before[start] + 1 + after[end + 1] == after[0]:
            yield reference


_TIERS: Final = ((12,), (11, 13), (10, 14), (6, 7, 8, 9))


def digits_in(text: str) -> str | None:
    """Return the digits that a text with no reference in it has in place of one, or None.

    One stretch of 6 to 14 digits, periods and days apart. If there are several, the only one whose
    length is nearest to twelve.
    """
    folded = _PERIOD_OR_DAY.sub("\n", text.translate(_FOLDING))
    found = _long_enough(folded, _STRETCH) or _long_enough(folded, _WIDE_STRETCH)
    for lengths in _TIERS:
        of_tier = {digits for digits in found if len(digits) in lengths}
        if of_tier:
            digits = of_tier.pop()
            # One digit over and over, or counted up: what a form is given that wants a number.
            return None if of_tier or _is_filler(digits) or digits in COUNTED else digits
    return None


def _long_enough(folded: str, stretch: re.Pattern[str]) -> set[str]:
    found: set[str] = set()
    for groups in _stretches(folded, stretch):
        joined = "".join(groups)
        # Of a longer stretch a whole group may be the reference; a piece of it is anybody's guess.
        found.update([joined] if len(joined) <= DIGITS_MAX else groups)
    return {digits for digits in found if DIGITS_MIN <= len(digits) <= DIGITS_MAX}


# -- numbers of a person --------------------------------------------------------------------------

_JOINTS: Final = re.compile(r"[ ./_-]+")
_DECIMAL: Final = re.compile(r"\s*([0-9]+)[.,]00?\s*")
_NINE_DIGITS: Final = re.compile(r"(?<![0-9])(?<![0-9][ -])[0-9](?:[ -]?[0-9]){8}(?![ -]?[0-9])")
_NAMED_CNSS: Final = re.compile(
    r"\b(?:cnss|immatriculation|affiliation|immat|affil|الضمان الاجتماعي|ض ?ا ?ج)"
    r"(?:\W{0,3}(?:n|no|num|numero|numéro|رقم))?[\W_]{0,4}([0-9]{9})(?![0-9])",
    re.IGNORECASE,
)
_CIN_ALONE: Final = re.compile(r"\s*([A-Za-z]{1,2})[ -]?([0-9]{5,6})\s*", re.ASCII)
_CIN_IN_TEXT: Final = re.compile(r"(?<!\w)([A-Za-z]{1,2})([0-9]{5,6})(?!\w)")
_NAMED_CIN: Final = re.compile(
    r"\b(?:cine?|cnie?|carte|ب ?ط ?و)(?:\W{0,3}(?:n|no|num|رقم))?[\W_]{0,4}"
    r"([A-Za-z]{1,2})[ -]?([0-9]{4,6})(?!\w)",
    re.IGNORECASE,
)


def read_cnss_number(text: str) -> str | None:
    """Return the digits of a CNSS number as given, or None if this is none.

    It need not be right, since a slip is evidence too: 5 to 12 digits. One digit over and over
    stands for «not known» in many a form. A spreadsheet may have made a decimal of it: `….0`.
    """
    folded = text.translate(_FOLDING)
    decimal = _DECIMAL.fullmatch(folded)
    number = decimal[1] if decimal else _JOINTS.sub("", folded)
    if not (number.isascii() and number.isdecimal()):
        return None
    low, high = CNSS_DIGITS
    return number if low <= len(number) <= high and not _is_filler(number) else None


def read_cin(text: str) -> str | None:
    """Return the number of an identity card as capital letters and digits, or None.

    4 to 12 of them, at least one a digit. It need not be right, since a slip is evidence too.
    """
    number = _JOINTS.sub("", unicodedata.normalize("NFKC", text).translate(_FOLDING)).upper()
    low, high = CIN_CHARACTERS
    if not (low <= len(number) <= high and number.isascii() and number.isalnum()):
        return None
    digits = number.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return number if digits and not _is_filler(digits) else None


def cnss_number_in(text: str) -> str | None:
    """Return the one CNSS number that stands in a text: nine digits that verify or are named so.

    Other nine digits may be the rest of a reference.
    """
    folded = text.translate(_FOLDING)
    found = set(_NAMED_CNSS.findall(folded))
    for written in _NINE_DIGITS.findall(folded):
        number = "".join(_GROUP.findall(written))
        if number[0] == "1" and cnss_number_checks(number):
            found.add(number)
    found = {number for number in found if not _is_filler(number)}
    return found.pop() if len(found) == 1 else None


def cin_in(text: str) -> str | None:
    """Return the one card number that stands in a text: one or two letters and its digits.

    `RF` begins a reference, not a card's number.
    """
    folded = text.translate(_FOLDING)
    alone = _CIN_ALONE.fullmatch(folded)
    pairs = [alone.groups()] if alone else _CIN_IN_TEXT.findall(folded)
    pairs += _NAMED_CIN.findall(folded)
    found = {letters.upper() + digits for letters, digits in pairs if not _is_filler(digits)}
    found = {number for number in found if not number.startswith("RF")}
    return found.pop() if len(found) == 1 else None


def read_provider_reference(text: str) -> str | None:
    """Return the provider's reference, or None where it is too short to tell payments apart."""
    text = text.strip()
    return text if len(text) >= PROVIDER_REFERENCE_MIN else None


def _is_filler(digits: str) -> bool:
    return digits == digits[0] * len(digits)
