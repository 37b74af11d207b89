"""What a settlement file says, whatever its format: statements and their lines. Pure.

A reader returns statements, or raises Unusable for a file that cannot be trusted as a whole. Within
a file that can, a line is one of `lines` or one of `set_aside`, never both and never neither.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Final

from gateway.errors import Unusable
from gateway.money import AMOUNT_MINOR_MAX, format_amount

TEXT_MAX: Final = 140
BALANCE_MINOR_MAX: Final = 1_000 * AMOUNT_MINOR_MAX
"""An account may hold far more than any one movement."""

SET_ASIDE_MAX: Final = 100_000
"""What has more of such lines is another file than it is taken for."""
DAY_MIN: Final = date(1980, 1, 1)
DAY_MAX: Final = date(2199, 12, 31)
"""Other days are slips, which must not stand for what a statement covers."""


class Form(StrEnum):
    """What a statement was written in."""

    CAMT_053 = "camt.053"
    CAMT_054 = "camt.054"
    MT940 = "mt940"
    CSV = "csv"


class Kind(StrEnum):
    """What a line is about."""

    PAYMENT = "payment"
    """Money in."""
    REVERSAL = "reversal"
    """Money of an earlier payment, going back: a cancellation, a return, a rejected transfer."""
    FEE = "fee"
    """A fee or commission, taken or given back. Kept apart from what was collected."""
    OTHER = "other"
    """Any other movement, such as money that the institution itself moved on."""


class Why(StrEnum):
    """Why a line was set aside."""

    AMOUNT = "amount"
    """Its amount cannot be read, or is nothing."""
    CURRENCY = "currency"
    NOT_BOOKED = "not_booked"
    """Announced or informed of: it comes again when it is booked, or never happens."""
    UNREADABLE = "unreadable"
    """Something else of it cannot be read, so that nobody could say what it stands for."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """A line that is no row. The reason holds no personal value."""

    line: int
    why: Why
    reason: str


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One movement, or one payment of a movement that has several."""

    line: int
    """Where it stands in the file, from 1."""
    kind: Kind
    amount_minor: int
    """Centimes, signed as it moved the balance: a reversal of a credit is negative."""
    booked_on: date | None
    value_on: date | None = None
    happened_at: datetime | None = None
    """When the payer paid, where the file says so."""
    payment_ids: tuple[str, ...] = ()
    """What may be the provider's payment id, the likeliest first."""
    texts: tuple[str, ...] = ()
    """Where a reference may stand. Not kept: people write their names there."""
    bank_reference: str | None = None
    entry: int = 0
    """Which movement of the statement this is (part of), from 1."""
    transaction: int = 0
    """Which payment of that movement; 0: the movement as a whole."""
    entry_minor: int = 0
    """The whole movement, signed."""
    is_reversal: bool = False
    return_reason: str | None = None
    fee_minor: int | None = None
    """What the provider keeps of it, as it says; not part of the amount."""
    batch_of: int | None = None
    """Of a movement without details: how many payments it is said to hold."""
    details_minor: int | None = None
    """Of a movement whose details do not come to it: what they come to. They are not used."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What one file says about one account (of a CSV: about its provider) over some days."""

    form: Form
    account: str
    """As the bank names it, without spaces; empty for a CSV."""
    number: str
    """The sender's own id or number of it; empty for a CSV."""
    currency: str
    lines: tuple[StatementLine, ...]
    set_aside: tuple[SetAside, ...] = ()
    opening_minor: int | None = None
    closing_minor: int | None = None
    from_on: date | None = None
    """The first day it covers; None: it does not say that it is complete for any day."""
    to_on: date | None = None

    def content_sha256(self) -> bytes:
        """Return the hash of what it says, however it is wrapped."""
        said = [
            *(self.form, self.account, self.number, self.currency),
            *(self.opening_minor, self.closing_minor, self.from_on, self.to_on),
            *(_said(line) for line in self.lines),
            *((each.why, each.reason) for each in self.set_aside),
        ]
        return hashlib.sha256(repr([str(each) for each in said]).encode()).digest()


def _said(line: StatementLine) -> tuple[str, ...]:
    # Without its place: the same statement may stand elsewhere in another file.
    values = (line.kind, line.amount_minor, line.booked_on, line.value_on, line.happened_at)
    names = (*line.payment_ids, line.bank_reference, line.entry, line.transaction)
    return tuple(str(each) for each in (*values, *names, *line.texts, line.return_reason))


def entry_keys(statement: Statement) -> Iterator[str]:
    """Yield what names the movement of each line among all movements of its provider.

    A bank's movement is known by its account and the bank's own reference, by whichever message it
    comes; one without a reference by its place in its statement. Where a bank uses a reference
    twice within one statement, both moved money: the second is another movement. A line of a CSV
    is known by the provider's payment id and its kind.
    """
    seen: Counter[str] = Counter()
    last: tuple[int, str] | None = None
    for line in statement.lines:
        if statement.form is Form.CSV:
            suffix = "" if line.kind is Kind.PAYMENT else f"/{line.kind}"
            yield f"{line.payment_ids[0]}{suffix}"
            continue
        if last is None or last[0] != line.entry:
            last = (line.entry, _movement(statement, line, seen))
        yield last[1]


def _movement(statement: Statement, line: StatementLine, seen: Counter[str]) -> str:
    if line.bank_reference is None:
        return f"{statement.account}/{statement.number}/{statement.to_on}/{line.entry}"
    key = f"{statement.account}/{line.bank_reference}"
    seen[key] += 1
    return key if seen[key] == 1 else f"{key}#{seen[key]}"


@dataclass(slots=True)
class Draft:
    """What a reader has found of a statement so far."""

    name: str
    """Of the file, for what is said of it."""
    lines: list[StatementLine] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    moved_minor: int = 0
    """The sum of what is booked, rows and set aside."""
    unread: tuple[int, str] | None = None
    """The first booked movement whose amount is not known: nothing can add up then."""

    def put_aside(self, line: int, why: Why, reason: str) -> None:
        if len(self.set_aside) >= SET_ASIDE_MAX:
            raise self.refused(line, f"more than {SET_ASIDE_MAX} lines cannot be read or booked")
        self.set_aside.append(SetAside(line, why, reason))

    def refused(self, line: int, why: str) -> Unusable:
        return refused(self.name, line, why)

    def require_balance(self, what: str, line: int, opening_minor: int, closing_minor: int) -> None:
        """Refuse a statement whose movements do not lead from its opening to its closing."""
        if self.unread is not None:
            at, reason = self.unread
            raise self.refused(at, f"{reason}, so that {what} cannot be added up")
        if opening_minor + self.moved_minor != closing_minor:
            opening, moved, closing = map(
                format_amount, (opening_minor, self.moved_minor, closing_minor)
            )
            raise self.refused(
                line,
                f"{what} opens with {opening}, moves {moved} and closes with {closing}, which do"
                " not add up",
            )


def refused(name: str, line: int, why: str) -> Unusable:
    """Return the error that refuses a whole file, with the line that is at fault."""
    return Unusable(f"{name}, line {line}: {why}; the whole file is refused.")


def plain_account(given: str) -> str:
    """Return an account as it is compared: a Moroccan IBAN is the RIB that it holds."""
    account = "".join(given.split()).upper()
    if len(account) == 28 and account.startswith("MA") and account[2:].isdecimal():
        return account[4:]
    return account


def days_covered(days: Sequence[date | None]) -> tuple[date | None, date | None]:
    """Return the first and the last of some days, those that are known."""
    known = [day for day in days if day is not None]
    return (min(known), max(known)) if known else (None, None)
