"""What pairing puts together, lines and payments, and what may come of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """Why something is left over; the exception's code."""

    PAYMENT_WITHOUT_RECORD = "payment_without_record"
    RECORD_WITHOUT_PAYMENT = "record_without_payment"
    AMOUNT_DIFFERS = "amount_differs"
    AMBIGUOUS_MATCH = "ambiguous_match"


class Rule(StrEnum):
    """Why lines and payments belong together, the surest first."""

    PAYMENT_ID = "payment-id"
    REFERENCE_ON_THE_DAY = "reference-on-the-day"
    REFERENCE_IN_THE_WINDOW = "reference-in-the-window"
    BATCH_OF_A_DAY = "batch-of-a-day"
    TAKEN_BACK = "taken-back"
    """Lines that take one another back, of a payment we never heard of."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a sender, neither a fee nor money that the institution moved."""

    key: int
    subject: str
    """What an exception about it is about."""
    amount_minor: int
    """Signed: what takes a payment back is negative."""
    day: date | None
    payment_ids: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()
    is_whole: bool = False
    """A movement without details, or whose details do not come to it."""
    batch_of: int | None = None
    details_minor: int | None = None


@dataclass(frozen=True, slots=True)
class Paid:
    """A payment as our books have it."""

    key: int
    provider: str
    payment_id: str
    reference: str | None
    amount_minor: int
    worth_minor: int
    """What of it stands: less what was given back, nothing if it was reversed or never booked."""
    paid_on: date
    status: str
    was_booked: bool
    given_back_on: date | None = None

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.payment_id}"


@dataclass(frozen=True, slots=True)
class Covered:
    """The days that the statements of one account are complete for."""

    spans: Sequence[tuple[date, date]]
    is_chained: bool
    """They follow on from one another by their balances; else a span is one file's."""

    def show_by(self, day: date, grace: timedelta) -> bool:
        """Say whether what was paid on a day must have been shown by now."""
        by = day + grace
        if self.is_chained:
            return any(began <= day and by <= ended for began, ended in self.spans)
        latest = max((ended for _, ended in self.spans), default=date.min)
        return by <= latest and any(began <= day <= ended for began, ended in self.spans)


@dataclass(frozen=True, slots=True)
class Terms:
    """Whose files they are, and how long money may take."""

    sender: str
    covered: Sequence[Covered]
    grace: timedelta
    window: timedelta

    def must_show(self, day: date) -> bool:
        """Say whether what was paid on a day must stand in the files by now: in any account's."""
        return bool(self.covered) and all(each.show_by(day, self.grace) for each in self.covered)


@dataclass(frozen=True, slots=True)
class Group:
    """Lines and payments that come to the same."""

    rule: Rule
    lines: tuple[Line, ...]
    payments: tuple[Paid, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """Something that a person must decide. No names and no personal numbers in it."""

    code: Code
    subject: str
    detail: dict[str, Any]
    payment: int | None = None


@dataclass(slots=True)
class Pairing:
    """What became of the lines and payments."""

    groups: list[Group] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
