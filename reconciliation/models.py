"""Reconciliation's tables: what the institution recorded, and what was found to belong together."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from gateway.db import instant, key, minor, names, points_to
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
    reference: str | None = Field(index=True, sa_type=sa.String(collation="C"))
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
        sa.Index(
            "institution_record_taking_back_idx",
            "id",
            postgresql_where=sa.text("amount_minor < 0 AND reverses_id IS NULL"),
        ),
    )


class ReconciliationRun(SQLModel, table=True):
    """One comparison of what was open on both sides. At most one is not finished."""

    __tablename__: ClassVar[str] = "reconciliation_run"

    id: int | None = key()
    period: str | None
    """None: all periods."""
    tolerance_minor: int = minor(default=0, sa_column_kwargs={"server_default": "0"})
    """By how much the two sides of a group of this run may differ."""
    started_at: datetime = instant()
    finished_at: datetime | None = instant(nullable=True)
    summary: dict[str, Any] = Field(sa_type=JSONB)
    """What the command printed: counts by outcome and sums as decimal strings; empty until it is
    finished."""
    outcomes: dict[str, Any] = Field(
        default_factory=dict, sa_type=JSONB, sa_column_kwargs={"server_default": "{}"}
    )
    """By rule: groups, payments and records, and the sums of both sides; and what is open by code:
    payments and records, and their sums; and the last ids that the run looked at, and what was
    being written meanwhile (`seen`)."""

    __table_args__ = (
        sa.CheckConstraint("tolerance_minor >= 0", name="tolerance"),
        sa.Index(
            "reconciliation_run_open_key",
            sa.text("(finished_at IS NULL)"),
            unique=True,
            postgresql_where=sa.text("finished_at IS NULL"),
        ),
    )


class ReconciliationShard(SQLModel, table=True):
    """A part of a run, by its references: that it is done is said where its groups are written."""

    __tablename__: ClassVar[str] = "reconciliation_shard"

    run_id: int = Field(
        sa_type=sa.BigInteger, foreign_key="reconciliation_run.id", primary_key=True
    )
    shard: int = Field(primary_key=True)
    shards: int
    """In how many parts the run is done."""
    done_at: datetime | None = instant(nullable=True)
    outcomes: dict[str, Any] = Field(
        default_factory=dict, sa_type=JSONB, sa_column_kwargs={"server_default": "{}"}
    )
    """By rule, as a run has them."""

    __table_args__ = (sa.CheckConstraint("shard BETWEEN 0 AND shards - 1", name="shard"),)


class MatchLine(SQLModel, table=True):
    """A payment and a record that belong together: a line of a group, which is one payment and one
    record, one payment and several records, or several payments and one record.

    Written by the million, so nothing asks for each row; a line is never changed. What no longer
    stands is moved to `undone_match`.
    """

    __tablename__: ClassVar[str] = "match_line"

    payment_id: int = names("payment", primary_key=True)
    record_id: int = names("institution_record")
    group_id: int = Field(sa_type=sa.BigInteger)
    """The least payment of the group."""
    run_id: int | None = names("reconciliation_run", default=None)
    """None: a person's word."""
    amount_minor: int = minor()
    """What the payment came to when it was matched: less what was given back until then."""
    score: int = Field(sa_type=sa.SmallInteger)
    """0 to 100; 100 is exact."""
    payment_line: int = Field(
        default=0,
        sa_type=sa.SmallInteger,
        primary_key=True,
        sa_column_kwargs={"server_default": "0", "autoincrement": False},
    )
    """The lines of a payment in its group, from 0: whatever group has it must hold its line 0, so
    the key lets no second group claim it."""
    record_line: int = Field(
        default=0, sa_type=sa.SmallInteger, sa_column_kwargs={"server_default": "0"}
    )
    """The same for the record."""
    rule: str
    why: str | None
    """The evidence, of what is not certain by its rule; a person's reason. No names."""
    decided_by: str | None
    """Who decided, where it was a person."""

    __table_args__ = (
        sa.UniqueConstraint("record_id", "record_line"),
        sa.CheckConstraint("score BETWEEN 0 AND 100", name="score"),
        sa.CheckConstraint("least(payment_line, record_line) = 0", name="lines"),
        sa.CheckConstraint("run_id IS NOT NULL OR decided_by IS NOT NULL", name="by"),
        # Of people's groups all lines are, of runs' none: they are few, and each run looks at them.
        sa.Index(
            "match_line_by_people_idx",
            "group_id",
            postgresql_where=sa.text("decided_by IS NOT NULL"),
        ),
    )


class UndoneMatch(SQLModel, table=True):
    """A line of a group that no longer stands, as it was, and why. Append-only."""

    __tablename__: ClassVar[str] = "undone_match"

    id: int | None = key()
    payment_id: int = points_to("payment.id")
    record_id: int = points_to("institution_record.id")
    group_id: int = Field(sa_type=sa.BigInteger)
    run_id: int | None = points_to("reconciliation_run.id", nullable=True)
    amount_minor: int = minor()
    score: int = Field(sa_type=sa.SmallInteger)
    rule: str
    why: str | None
    decided_by: str | None
    undone_at: datetime = instant()
    undone_because: str

    __table_args__ = (sa.Index(None, "payment_id"), sa.Index(None, "record_id"))


class PartedPair(SQLModel, table=True):
    """That a payment and a record do not belong together, by a person's word. It stands until a
    person joins the two after all."""

    __tablename__: ClassVar[str] = "parted_pair"

    id: int | None = key()
    payment_id: int = points_to("payment.id")
    record_id: int = points_to("institution_record.id")
    decided_by: str
    why: str
    decided_at: datetime = instant()
    joined_at: datetime | None = instant(nullable=True)
    """When a person joined them after all."""

    __table_args__ = (
        sa.CheckConstraint("btrim(why) <> ''", name="why"),
        sa.Index(
            "parted_pair_standing_key",
            "payment_id",
            "record_id",
            unique=True,
            postgresql_where=sa.text("joined_at IS NULL"),
        ),
        sa.Index(None, "record_id"),
    )
