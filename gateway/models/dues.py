"""What is owed: invoices, their lines, what changed them later, and what relieves them."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import ClassVar, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import DOMAIN, JSONB
from sqlmodel import Field, SQLModel

from gateway.db import choice, instant, key, minor, one_of, points_to, share
from gateway.models.words import BundleKind, InvoiceStatus, LineKind
from gateway.money import AMOUNT_MINOR_MAX

_POSITIVE: Final = f"amount_minor BETWEEN 1 AND {AMOUNT_MINOR_MAX}"

# A type judges a value when it comes, a check whenever its row is written: by each payment.
# The driver knows no arrays of them: what gathers several casts them to text.
_REFERENCE: Final = DOMAIN(
    "invoice_reference",
    sa.String(),
    collation="C",
    constraint_name="invoice_reference_check",
    check="VALUE ~ '^[1-9][0-9]{11}$' AND mod(VALUE::bigint, 97) = 1"
    " AND mod(VALUE::bigint, 100) BETWEEN 2 AND 98",
)
_PERIOD: Final = DOMAIN(
    "invoice_period",
    sa.String(),
    constraint_name="invoice_period_check",
    check="VALUE ~ '^[0-9]{4}-(0[1-9]|1[0-2]|Q[1-4])$'",
)


class Rule(SQLModel, table=True):
    """Why a line of an invoice has its amount, as the tariff said it on the day of issue."""

    id: int | None = key()
    rule: str
    source: str
    verified: bool
    facts: dict[str, str] = Field(sa_type=JSONB, sa_column_kwargs={"server_default": "{}"})
    """The figures of the rule by name, so that it can be said in any language."""

    __table_args__ = (sa.UniqueConstraint("rule", "source", "verified"),)


class ReferenceKey(SQLModel, table=True):
    """The one key of this installation's permutation of references (gateway.references)."""

    __tablename__: ClassVar[str] = "reference_key"

    id: int = Field(default=1, primary_key=True)
    key: bytes

    __table_args__ = (
        sa.CheckConstraint("id = 1", name="only_one"),
        sa.CheckConstraint("length(key) = 32", name="key"),
    )


class Invoice(SQLModel, table=True):
    """One period's contribution of one person. Amount, period and reference never change."""

    id: int | None = key()
    reference: str = Field(sa_type=_REFERENCE, unique=True)
    contributor_id: int = points_to("contributor.id")
    category_code: str = Field(foreign_key="category.code")
    period: str = Field(sa_type=_PERIOD)
    """`2026-11` or `2026-Q4`."""
    due_on: date
    amount_minor: int = minor()
    paid_minor: int = minor(default=0, sa_column_kwargs={"server_default": "0"})
    owed_minor: int = minor()
    """What it comes to without more time going by: the amount with what was credited, charged and
    remitted since, and with the late penalty once the principal is paid (until then the penalty
    grows by date and is not in here: gateway.dues.balances). At issue, the amount."""
    status: InvoiceStatus = choice(
        InvoiceStatus,
        default=InvoiceStatus.OPEN,
        sa_column_kwargs={"server_default": "open"},
    )
    tariff: str
    """Version of the tariff file that priced it."""
    issued_at: datetime = instant()
    cancelled_at: datetime | None = instant(nullable=True)
    """Taken back before anything was paid: nothing is due, and it never comes to life again."""
    cancelled_because: str | None = None
    seal: bytes | None = None
    """What only our key can have written over the facts above (gateway.billing.invoice_seals)."""

    __table_args__ = (
        sa.UniqueConstraint("contributor_id", "period"),
        sa.CheckConstraint(_POSITIVE, name="amount"),
        sa.CheckConstraint("paid_minor BETWEEN 0 AND owed_minor", name="paid"),
        # The state machine as an identity: no sequence of updates can leave status and money apart.
        sa.CheckConstraint(
            "status = CASE WHEN owed_minor = 0 THEN 'cleared' WHEN paid_minor = 0 THEN 'open'"
            " WHEN paid_minor < owed_minor THEN 'part_paid' ELSE 'paid' END",
            name="status",
        ),
        sa.CheckConstraint(
            "(cancelled_at IS NULL) = (cancelled_because IS NULL)", name="cancelled_because"
        ),
        sa.CheckConstraint("cancelled_at IS NULL OR paid_minor = 0", name="cancelled"),
        sa.Index(None, "period"),
        # Room for the next version of a row beside it: no index is told of a payment.
        {"postgresql_with": {"fillfactor": 85}},
    )


class InvoiceLine(SQLModel, table=True):
    """One reason for a part of an invoice's amount. Append-only; lines sum to the invoice."""

    __tablename__: ClassVar[str] = "invoice_line"

    invoice_id: int = Field(sa_type=sa.BigInteger, foreign_key="invoice.id", primary_key=True)
    position: int = Field(sa_type=sa.SmallInteger, primary_key=True)
    kind: LineKind = choice(LineKind)
    amount_minor: int = minor()
    """Signed: remissions and credits are negative."""
    rule_id: int = points_to("rule.id")

    __table_args__ = (
        one_of("kind", LineKind),
        sa.CheckConstraint("amount_minor <> 0", name="amount"),
    )


class InvoiceNote(SQLModel, table=True):
    """A credit, a charge or a recovery fee on an invoice after its issue. Append-only: the invoice
    itself is never edited, and a note is taken back by another one."""

    __tablename__: ClassVar[str] = "invoice_note"

    id: int | None = key()
    invoice_id: int = points_to("invoice.id")
    kind: LineKind = choice(LineKind)
    amount_minor: int = minor()
    """Signed: a credit is negative."""
    due_on: date | None
    """By when a charge is to be paid; None for a credit, which counts from the beginning."""
    noted_on: date
    rule_id: int = points_to("rule.id")
    because: str
    """What made it necessary. No names."""
    noted_at: datetime = instant()

    __table_args__ = (
        sa.CheckConstraint("kind IN ('adjustment', 'fee')", name="kind"),
        sa.CheckConstraint("amount_minor <> 0", name="amount"),
        sa.CheckConstraint("(amount_minor > 0) = (due_on IS NOT NULL)", name="due_on"),
        sa.Index(None, "invoice_id"),
    )


class Bundle(SQLModel, table=True):
    """One reference that pays several invoices, of one person or of several."""

    id: int | None = key()
    reference: str = Field(unique=True)
    kind: BundleKind = choice(BundleKind)
    contributor_id: int | None = points_to("contributor.id", nullable=True)
    """Whose credit is what goes beyond; None: nobody's, so it is for a person to decide."""
    made_at: datetime = instant()
    withdrawn_at: datetime | None = instant(nullable=True)
    """From then on its money is nobody's until a person decides."""

    __table_args__ = (
        one_of("kind", BundleKind),
        sa.CheckConstraint(
            "reference ~ '^[1-9][0-9]{11}$' AND mod(reference::bigint, 97) = 1"
            " AND mod(reference::bigint, 100) BETWEEN 2 AND 98",
            name="reference",
        ),
        sa.CheckConstraint("kind = 'selection' OR contributor_id IS NOT NULL", name="whose"),
    )


class BundleItem(SQLModel, table=True):
    """An invoice that a bundle pays, in this order. Append-only."""

    __tablename__: ClassVar[str] = "bundle_item"

    bundle_id: int = Field(sa_type=sa.BigInteger, foreign_key="bundle.id", primary_key=True)
    position: int = Field(primary_key=True)
    invoice_id: int = points_to("invoice.id")

    __table_args__ = (
        sa.UniqueConstraint("bundle_id", "invoice_id"),
        sa.Index(None, "invoice_id"),
    )


class Plan(SQLModel, table=True):
    """An instalment plan: old debts by monthly parts, current dues kept up beside it."""

    id: int | None = key()
    contributor_id: int = points_to("contributor.id")
    bundle_id: int = points_to("bundle.id", unique=True)
    """What it spreads, and the reference to pay it by."""
    rule: str
    """Name of the rule in the campaigns file, with the file's version."""
    made_on: date
    months: int
    amount_minor: int = minor()
    """What it spreads: the sum of its instalments."""
    made_at: datetime = instant()
    kept_on: date | None = None
    broken_on: date | None = None
    broken_because: str | None = None

    __table_args__ = (
        sa.CheckConstraint("months BETWEEN 1 AND 120", name="months"),
        sa.CheckConstraint(_POSITIVE, name="amount"),
        sa.CheckConstraint("kept_on IS NULL OR broken_on IS NULL", name="ended"),
        sa.CheckConstraint("(broken_on IS NULL) = (broken_because IS NULL)", name="broken"),
        sa.Index(
            "plan_open_key",
            "contributor_id",
            unique=True,
            postgresql_where=sa.text("kept_on IS NULL AND broken_on IS NULL"),
        ),
    )


class PlanInstalment(SQLModel, table=True):
    """What a plan asks for by a day. Append-only."""

    __tablename__: ClassVar[str] = "plan_instalment"

    plan_id: int = Field(sa_type=sa.BigInteger, foreign_key="plan.id", primary_key=True)
    position: int = Field(primary_key=True)
    due_on: date
    amount_minor: int = minor()

    __table_args__ = (sa.CheckConstraint(_POSITIVE, name="amount"),)


class Remission(SQLModel, table=True):
    """What a campaign remits to a person, while its conditions are kept."""

    id: int | None = key()
    contributor_id: int = points_to("contributor.id")
    campaign: str
    """Its code in the campaigns file, with the file's version."""
    granted_on: date
    plan_id: int | None = points_to("plan.id", nullable=True)
    """The plan that is its condition; None where it was paid at once, or by regular payment."""
    granted_at: datetime = instant()
    kept_on: date | None = None
    """Since when it can be lost no more."""
    broken_on: date | None = None
    broken_because: str | None = None

    __table_args__ = (
        sa.CheckConstraint("kept_on IS NULL OR broken_on IS NULL", name="ended"),
        sa.CheckConstraint("(broken_on IS NULL) = (broken_because IS NULL)", name="broken"),
        sa.Index(
            "remission_standing_key",
            "contributor_id",
            "campaign",
            unique=True,
            postgresql_where=sa.text("broken_on IS NULL"),
        ),
    )


class InvoiceRelief(SQLModel, table=True):
    """What a remission or a plan does to one invoice, from a day on. When it is broken it ends as
    if it had never been: what was remitted is owed again, with nothing to be rewritten."""

    __tablename__: ClassVar[str] = "invoice_relief"

    id: int | None = key()
    invoice_id: int = points_to("invoice.id")
    remission_id: int | None = points_to("remission.id", nullable=True)
    plan_id: int | None = points_to("plan.id", nullable=True)
    granted_on: date
    principal_rate: Decimal = share()
    """Share of what is unpaid of the component on `granted_on` that is remitted, 0 to 1."""
    penalty_rate: Decimal = share()
    fee_rate: Decimal = share()
    stops_penalty: bool
    """Whether no more penalty comes up from `granted_on` on."""
    rule_id: int = points_to("rule.id")
    ended_on: date | None = None
    """The day of the breach."""
    granted_at: datetime = instant()

    __table_args__ = (
        sa.CheckConstraint("(remission_id IS NULL) <> (plan_id IS NULL)", name="by"),
        sa.CheckConstraint(
            "principal_rate BETWEEN 0 AND 1 AND penalty_rate BETWEEN 0 AND 1"
            " AND fee_rate BETWEEN 0 AND 1",
            name="rates",
        ),
        sa.Index(None, "invoice_id"),
        sa.Index(None, "remission_id"),
        sa.Index(None, "plan_id"),
    )


class IssueRun(SQLModel, table=True):
    """An order to issue a period's invoices, cut into spans of people that workers claim."""

    __tablename__: ClassVar[str] = "issue_run"

    id: int | None = key()
    period: str
    category_code: str | None = Field(default=None, foreign_key="category.code")
    """None: all categories that are owed by such periods."""
    ordered_at: datetime = instant()
    finished_at: datetime | None = instant(nullable=True)

    __table_args__ = (
        sa.Index(
            "issue_run_open_key",
            "period",
            sa.text("coalesce(category_code, '')"),
            unique=True,
            postgresql_where=sa.text("finished_at IS NULL"),
        ),
    )


class IssueChunk(SQLModel, table=True):
    """A span of people of a run: who is done is said in the transaction that issued."""

    __tablename__: ClassVar[str] = "issue_chunk"

    run_id: int = Field(sa_type=sa.BigInteger, foreign_key="issue_run.id", primary_key=True)
    position: int = Field(primary_key=True)
    first_id: int = Field(sa_type=sa.BigInteger)
    last_id: int = Field(sa_type=sa.BigInteger)
    done_at: datetime | None = instant(nullable=True)
    issued: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    already: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    total_minor: int = minor(default=0, sa_column_kwargs={"server_default": "0"})

    __table_args__ = (sa.CheckConstraint("last_id >= first_id", name="span"),)
