"""Law 09-08: what is held about a person, given to the person; and erased after a set time.

Whoever keeps tables in which people can be found is a `Holder` of them. The gateway's own tables
are `gateway.privacy.own`; the inbox and reconciliation bring theirs where processes are put
together (gateway.holders), since the gateway does not know them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, Protocol

from sqlmodel import Session

from gateway.clock import INSTITUTION_ZONE
from gateway.money import format_amount


@dataclass(frozen=True, slots=True)
class Subject:
    """The person concerned, in all files, and what the person's data are found by."""

    contributor_id: int
    """Of the file that stands."""
    file_ids: tuple[int, ...]
    cnss_numbers: tuple[str, ...]
    cins: tuple[str, ...]
    phones: tuple[str, ...]
    names: tuple[str, ...]
    """In both scripts, as they are written."""
    invoice_ids: tuple[int, ...]
    bundle_ids: tuple[int, ...]
    """Bundles and plans of the person's own."""
    references: tuple[str, ...]
    """Of the invoices, and of the bundles of the person's own."""
    payment_ids: tuple[int, ...]
    """Payments that quoted one of these references: other people's are not among them."""
    payments: tuple[tuple[str, str], ...]
    """The same, by provider and the provider's id."""
    sources: tuple[str, ...]
    """What told of them, as `payment.source` has it."""

    def names_in(self, text: str) -> bool:
        """Say whether a text has the person's number, card, telephone or name in it."""
        return self._pattern(*self._words()).search(text) is not None

    def numbers_in(self, text: str) -> bool:
        """Say whether a text has the person's number, card or telephone in it."""
        return self._pattern().search(text) is not None

    def without(self, text: str) -> str:
        """Return a text with the person's number, card, telephone and names taken out."""
        return self._pattern(*self._words()).sub(TAKEN_OUT, text)

    def _words(self) -> set[str]:
        # Shorter ones are particles, which are everybody's.
        return {word for name in self.names for word in name.split() if len(word) > 2}

    def _pattern(self, *words: str) -> re.Pattern[str]:
        known = sorted({*self.cnss_numbers, *self.cins, *words}, key=len, reverse=True)
        exact = [rf"(?<!\w){re.escape(each)}(?!\w)" for each in known]
        return re.compile("|".join([*exact, *map(telephone_pattern, self.phones)]) or "(?!)", re.I)


TAKEN_OUT: Final = "[erased]"
LEFT: Final = "left:"
"""Before the name of a place, in what an erasure found: it names the person and never changes."""

_MOROCCAN: Final = re.compile(r"\+212([5-8][0-9]{8})", re.ASCII)


def telephone_pattern(phone: str) -> str:
    """Return a pattern of the ways in which a telephone number is written in one piece."""
    if found := _MOROCCAN.fullmatch(phone):
        return rf"(?<![0-9+])(?:\+?212|00212|0)?{found[1]}(?![0-9])"
    return rf"(?<![0-9+])\+?{re.escape(phone.removeprefix('+'))}(?![0-9])"


def national(phone: str) -> str:
    """Return the part of a telephone number that every way of writing it in one piece has."""
    found = _MOROCCAN.fullmatch(phone)
    return found[1] if found else phone.removeprefix("+")


@dataclass(frozen=True, slots=True)
class Section:
    """Some of what is held, with what it is for and how long it is kept."""

    name: str
    title: str
    """As the catalogs have it (gateway.words)."""
    purpose: str
    """As the catalogs have it."""
    kept: str
    """A sentence, with who says so."""
    rows: Sequence[Mapping[str, Any]]
    """Ready for JSON (see `said`)."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What a holder would empty, locked against change until the transaction ends."""

    hindrances: tuple[str, ...]
    """Why nothing may be erased yet, a sentence each."""
    erase: Callable[[datetime], Mapping[str, int]]
    """Empty it, and say how many rows of each kind that were. Once, in the same transaction."""
    subjects: tuple[str, ...] = ()
    """What exceptions about it are about, as their `subject` has it: texts that people wrote there
    are emptied, too."""


class Holder(Protocol):
    """Whoever keeps tables in which people can be found."""

    @property
    def tables(self) -> frozenset[str]:
        """The tables it answers for, with all that they hold of a person."""
        ...

    def held(self, session: Session, subject: Subject) -> list[Section]:
        """Return what it holds of a person, and of nobody else. Reads only."""
        ...

    def hold(self, session: Session, subject: Subject) -> Hold:
        """Lock what is to be emptied, and say what hinders it. The caller owns the transaction."""
        ...


def said(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row as JSON has it: amounts as decimal strings, instants with their offset."""
    return {str(name).removesuffix("_minor"): _said(str(name), row[name]) for name in row}


def _said(name: str, value: Any) -> Any:
    match value:
        case datetime():
            return value.astimezone(INSTITUTION_ZONE).isoformat()
        case date():
            return value.isoformat()
        case Decimal():
            return str(value)
        case int() if name.endswith("_minor"):
            return format_amount(value)
        case bytes() | memoryview():
            return bytes(value).decode("utf-8", "backslashreplace")
        case _:
            return value
