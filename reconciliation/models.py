"""Reconciliation's tables: what the institution recorded, and what was found to belong together."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from gateway.db import instant, key, minor, points_to
from gateway.money import AMOUNT_MINOR_MAX


class RecordFile(SQLModel, table=True):
    """A file of records that was applied, known by its content."""

    __tablename__: ClassVar[str] = "record_file"

    id: int | None = key()
    sha256: bytes = Field(unique=True)
    lines: int
    imported_at: datetime = instant()


class InstitutionRecord(SQLModel, table=True):
    """A line of the institution's books, as its file says it. The first under an id stands."""

    __tablename__: ClassVar[str] = "institution_record"

    id: int | None = key()
    record_id: str = Field(unique=True)
    reference_given: str
    reference: str | None = Field(index=True)
    """The reference that was meant, if one can be read; else None, never a guess."""
    cnss_number: str | None
    cin: str | None
    name: str | None
    period: str | None
    amount_minor: int = minor()
    """Signed: a negative amount reverses the record with the same reference."""
    posted_on: date
    channel: str | None
    provider_reference: str | None
    content_sha256: bytes
    file_id: int = points_to("record_file.id")
    reverses_id: int | None = points_to("institution_record.id", nullable=True, unique=True)
    """The record that this negative one takes back."""
    erased_at: datetime | None = instant(nullable=True)
    """When what names a person was taken out of it."""

    __table_args__ = (
        sa.CheckConstraint(
            f"amount_minor <> 0 AND abs(amount_minor) <= {AMOUNT_MINOR_MAX}", name="amount"
        ),
        sa.CheckConstraint("reverses_id IS NULL OR amount_minor < 0", name="reverses"),
        sa.CheckConstraint(
            "erased_at IS NULL OR num_nonnulls(cnss_number, cin, name) = 0", name="erased"
        ),
    )


class ReconciliationRun(SQLModel, table=True):
    """One comparison of what was open on both sides."""

    __tablename__: ClassVar[str] = "reconciliation_run"

    id: int | None = key()
    period: str | None
    """None: all periods."""
    started_at: datetime = instant()
    summary: dict[str, Any] = Field(sa_type=JSONB)
    """What the command printed: counts by outcome and sums as decimal strings."""


class MatchGroup(SQLModel, table=True):
    """Payments and records that belong together, and why."""

    __tablename__: ClassVar[str] = "match_group"

    id: int | None = key()
    run_id: int = points_to("reconciliation_run.id")
    rule: str
    score: int = Field(sa_type=sa.SmallInteger)
    """0 to 100; 100 is exact."""
    undone_at: datetime | None = instant(nullable=True)
    undone_because: str | None

    __table_args__ = (
        sa.CheckConstraint("score BETWEEN 0 AND 100", name="score"),
        sa.CheckConstraint("(undone_at IS NULL) = (undone_because IS NULL)", name="undone"),
    )


class MatchedPayment(SQLModel, table=True):
    """A payment claimed by a group; the primary key lets no second group claim it."""

    __tablename__: ClassVar[str] = "matched_payment"

    payment_id: int = Field(sa_type=sa.BigInteger, foreign_key="payment.id", primary_key=True)
    group_id: int = points_to("match_group.id")
    amount_minor: int = minor()
    """What it came to when it was matched: less what was given back until then."""

    __table_args__ = (sa.Index(None, "group_id"),)


class MatchedRecord(SQLModel, table=True):
    """A record claimed by a group; the primary key lets no second group claim it."""

    __tablename__: ClassVar[str] = "matched_record"

    record_id: int = Field(
        sa_type=sa.BigInteger, foreign_key="institution_record.id", primary_key=True
    )
    group_id: int = points_to("match_group.id")

    __table_args__ = (sa.Index(None, "group_id"),)
