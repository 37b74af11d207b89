"""The tables of what providers and banks say they paid out, and of what it was found to stand for.

What a file said is only added to; what was found to agree is undone with a reason where the facts
have changed since. Free texts of a file are not kept: people write their names there.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import ClassVar, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from gateway.db import choice, instant, key, minor, one_of, points_to
from gateway.money import AMOUNT_MINOR_MAX
from reconciliation.sources.statements import Form, Kind

_AMOUNT: Final = f"amount_minor <> 0 AND abs(amount_minor) <= {AMOUNT_MINOR_MAX}"


class SettlementFile(SQLModel, table=True):
    """A file that was applied, known by whose it is and by its content. Append-only."""

    __tablename__: ClassVar[str] = "settlement_file"

    id: int | None = key()
    provider: str
    sha256: bytes
    lines: int
    """Readable or not."""
    imported_at: datetime = instant()

    __table_args__ = (sa.UniqueConstraint("provider", "sha256"),)


class SettlementStatement(SQLModel, table=True):
    """What a file says about one account over some days. Append-only."""

    __tablename__: ClassVar[str] = "settlement_statement"

    id: int | None = key()
    file_id: int = points_to("settlement_file.id")
    provider: str
    form: Form = choice(Form)
    account: str
    """Of the institution; empty for a CSV."""
    number: str
    opening_minor: int | None = minor()
    closing_minor: int | None = minor()
    from_on: date | None
    """The first day that it is complete for; None: for none."""
    to_on: date | None
    content_sha256: bytes

    __table_args__ = (
        one_of("form", Form),
        sa.CheckConstraint("(from_on IS NULL) = (to_on IS NULL)", name="days"),
        sa.CheckConstraint("(opening_minor IS NULL) = (closing_minor IS NULL)", name="balances"),
        sa.UniqueConstraint("provider", "content_sha256"),
        sa.Index(None, "provider", "account"),
    )


class SettlementLine(SQLModel, table=True):
    """One movement, or one payment of a movement, that a provider or bank states. Append-only.

    A movement that is known as a whole (transaction 0) and later with its details is both: the
    whole counts no more then.
    """

    __tablename__: ClassVar[str] = "settlement_line"

    id: int | None = key()
    statement_id: int = points_to("settlement_statement.id")
    provider: str
    entry_key: str
    """What names the movement among all of the provider's (statements.entry_keys)."""
    transaction: int
    line: int
    """Where it stood in its file."""
    kind: Kind = choice(Kind)
    amount_minor: int = minor()
    """Signed: what moved the balance down is negative."""
    entry_minor: int = minor()
    """The whole movement."""
    booked_on: date | None
    value_on: date | None
    happened_at: datetime | None = instant(nullable=True)
    payment_ids: list[str] = Field(sa_type=ARRAY(sa.Text))
    """What may be the provider's payment id, the likeliest first."""
    quoted: list[str] = Field(sa_type=ARRAY(sa.Text))
    """The references that verify, of what the line says."""
    bank_reference: str | None
    is_reversal: bool
    return_reason: str | None
    fee_minor: int | None = minor()
    batch_of: int | None
    details_minor: int | None = minor()

    __table_args__ = (
        one_of("kind", Kind),
        sa.CheckConstraint(_AMOUNT, name="amount"),
        sa.CheckConstraint("transaction >= 0", name="transaction"),
        sa.CheckConstraint("transaction > 0 OR amount_minor = entry_minor", name="entry"),
        sa.UniqueConstraint("provider", "entry_key", "transaction"),
        sa.Index(None, "statement_id"),
    )


class SettlementGroup(SQLModel, table=True):
    """Lines and payments that come to the same, and by which rule they were put together."""

    __tablename__: ClassVar[str] = "settlement_group"

    id: int | None = key()
    provider: str
    """Whose lines they are."""
    by_bank: bool
    """Of a bank's statements; else of a provider's own files. Each tells of all payments once."""
    rule: str
    settled_at: datetime = instant()
    undone_at: datetime | None = instant(nullable=True)
    undone_because: str | None

    __table_args__ = (
        sa.CheckConstraint("(undone_at IS NULL) = (undone_because IS NULL)", name="undone"),
    )


class SettledLine(SQLModel, table=True):
    """A line of a group that stands; the primary key lets no second group have it."""

    __tablename__: ClassVar[str] = "settled_line"

    line_id: int = Field(sa_type=sa.BigInteger, foreign_key="settlement_line.id", primary_key=True)
    group_id: int = points_to("settlement_group.id")

    __table_args__ = (sa.Index(None, "group_id"),)


class SettledPayment(SQLModel, table=True):
    """A payment of a group that stands: once for each who tells that it was paid out."""

    __tablename__: ClassVar[str] = "settled_payment"

    payment_id: int = Field(sa_type=sa.BigInteger, foreign_key="payment.id", primary_key=True)
    provider: str = Field(primary_key=True)
    by_bank: bool = Field(primary_key=True)
    group_id: int = points_to("settlement_group.id")
    amount_minor: int = minor()
    """What it came to then: less what was given back, nothing if it was reversed."""

    __table_args__ = (sa.Index(None, "group_id"),)
