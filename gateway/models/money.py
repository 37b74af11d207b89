"""What providers report: payments, what they give back, payers sent out, allocations."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from gateway.db import choice, instant, key, minor, names, one_of, points_to
from gateway.models.words import (
    AttemptState,
    Channel,
    Component,
    Manner,
    PaymentStatus,
    ReturnKind,
    ReturnState,
)
from gateway.money import AMOUNT_MINOR_MAX

_POSITIVE: Final = f"amount_minor BETWEEN 1 AND {AMOUNT_MINOR_MAX}"


class Payment(SQLModel, table=True):
    """Money that a provider reports, once however often it is reported."""

    id: int | None = key()
    provider: str
    provider_payment_id: str
    status: PaymentStatus = choice(PaymentStatus)
    reference_given: str
    """The reference as the provider wrote it."""
    invoice_id: int | None = names("invoice", default=None)
    """The invoice whose reference it quoted; its money may lie elsewhere (allocations)."""
    bundle_id: int | None = names("bundle", default=None)
    """The bundle whose reference it quoted, in place of one invoice's."""
    amount_minor: int = minor()
    currency: str
    channel: Channel | None = choice(Channel, nullable=True)
    """None: not stated, or a word we do not know."""
    agent_id: str | None
    terminal_id: str | None
    fee_minor: int | None = minor()
    """What the payer paid the provider on top, as the provider says; never part of the amount."""
    paid_at: datetime = instant()
    """The provider's word. Decides penalties and rights."""
    stated_at: datetime = instant()
    """The provider's own time of the status we hold; an older report never overwrites it."""
    recorded_at: datetime = instant()
    """Ours: when we first heard of it."""
    booked_at: datetime | None = instant(nullable=True)
    returned_minor: int = minor(default=0, sa_column_kwargs={"server_default": "0"})
    """What of it refunds and disputes gave back, while it stands booked."""
    source: str
    """What told us: `delivery:provider/delivery id`, or `inquiry:provider/its id`."""

    __table_args__ = (
        sa.UniqueConstraint("provider", "provider_payment_id"),
        one_of("status", PaymentStatus),
        one_of("channel", Channel),
        sa.CheckConstraint(_POSITIVE, name="amount"),
        sa.CheckConstraint("currency = 'MAD'", name="currency"),
        sa.CheckConstraint(f"fee_minor BETWEEN 0 AND {AMOUNT_MINOR_MAX}", name="fee"),
        sa.CheckConstraint("status <> 'booked' OR booked_at IS NOT NULL", name="booked_at"),
        sa.CheckConstraint("returned_minor BETWEEN 0 AND amount_minor", name="returned"),
        sa.CheckConstraint("invoice_id IS NULL OR bundle_id IS NULL", name="quoted"),
        sa.Index(None, "invoice_id"),
        sa.Index(
            "payment_given_back_idx",
            "id",
            postgresql_where=sa.text("status = 'reversed' OR returned_minor > 0"),
        ),
        sa.Index(None, "bundle_id", postgresql_where=sa.text("bundle_id IS NOT NULL")),
    )


class PaymentReturn(SQLModel, table=True):
    """What a provider says it gives back of a payment, by its own id. May come before the payment.

    What follows for the books is decided from all returns of a payment together, by
    gateway.collection.returns.
    """

    __tablename__: ClassVar[str] = "payment_return"

    id: int | None = key()
    provider: str
    provider_payment_id: str
    return_id: str
    """The provider's id of the refund or dispute; of the payment for a sum of refunds."""
    kind: ReturnKind = choice(ReturnKind)
    state: ReturnState = choice(ReturnState)
    amount_minor: int = minor()
    made_at: datetime = instant()
    """The provider's time of the refund or dispute itself."""
    stated_at: datetime = instant()
    """The provider's time of the state we hold; an older report never overwrites it."""
    restored_at: datetime | None = instant(nullable=True)
    """The earliest instant at which it was said to have come back."""
    outcome: str | None
    """How a dispute ended, in the provider's word; None while it is open."""
    source: str
    recorded_at: datetime = instant()

    __table_args__ = (
        sa.UniqueConstraint("provider", "kind", "return_id"),
        one_of("kind", ReturnKind),
        one_of("state", ReturnState),
        sa.CheckConstraint(f"amount_minor BETWEEN 0 AND {AMOUNT_MINOR_MAX}", name="amount"),
        sa.CheckConstraint("outcome IS NULL OR kind = 'dispute'", name="outcome"),
        sa.Index(None, "provider", "provider_payment_id"),
    )


class PaymentAttempt(SQLModel, table=True):
    """A payer who was sent to a provider's page, was given a code, or is asked on his phone. Kept
    before the provider is asked; its id is the provider's idempotency key, so that asking again
    after a crash finds what was made before. The number of his phone is kept nowhere."""

    __tablename__: ClassVar[str] = "payment_attempt"

    id: str = Field(primary_key=True)
    invoice_id: int | None = points_to("invoice.id", nullable=True)
    bundle_id: int | None = points_to("bundle.id", nullable=True)
    """What it is to pay: one invoice, or several by one reference."""
    provider: str
    manner: Manner = choice(
        Manner, default=Manner.PAGE, sa_column_kwargs={"server_default": "page"}
    )
    amount_minor: int = minor()
    language: str
    """Of the payer, and so of the provider's page: the same call must say the same."""
    state: AttemptState = choice(
        AttemptState, default=AttemptState.MADE, sa_column_kwargs={"server_default": "made"}
    )
    session_id: str | None
    """The provider's id of its page."""
    page_url: str | None
    code: str | None
    """What the payer says at an agency."""
    provider_payment_id: str | None
    made_at: datetime = instant()
    expires_at: datetime = instant()
    """After this instant the provider takes no payment by it."""
    tries: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """How often we asked what became of it."""
    ask_at: datetime | None = instant(nullable=True)
    """When to ask next, by the database's clock; None: not any more."""
    closed_because: str | None
    token_sha256: bytes | None
    """Of the word by which an unsigned callback shows that it is about this attempt."""

    __table_args__ = (
        one_of("state", AttemptState),
        one_of("manner", Manner),
        sa.CheckConstraint("num_nonnulls(invoice_id, bundle_id) = 1", name="whose"),
        sa.UniqueConstraint("provider", "session_id"),
        sa.UniqueConstraint("provider", "token_sha256"),
        sa.CheckConstraint("length(token_sha256) = 32", name="token"),
        sa.CheckConstraint(_POSITIVE, name="amount"),
        sa.CheckConstraint("language IN ('fr', 'ar')", name="language"),
        sa.CheckConstraint("(state = 'closed') = (closed_because IS NOT NULL)", name="closed"),
        sa.CheckConstraint("state <> 'sent' OR session_id IS NOT NULL", name="sent"),
        # One at a time for a reference: two would take the money twice.
        sa.Index(
            "payment_attempt_open_key",
            "invoice_id",
            unique=True,
            postgresql_where=sa.text("state IN ('made', 'sent')"),
        ),
        sa.Index(
            "payment_attempt_open_bundle_key",
            "bundle_id",
            unique=True,
            postgresql_where=sa.text("state IN ('made', 'sent')"),
        ),
        sa.Index(
            "payment_attempt_ask_idx", "ask_at", postgresql_where=sa.text("ask_at IS NOT NULL")
        ),
        # Each view of a payer's page looks for the last one.
        sa.Index(None, "invoice_id", "made_at"),
        sa.Index(None, "bundle_id", "made_at"),
    )


class InquiryBudget(SQLModel, table=True):
    """How often a provider was asked in the minute that began then, by the database's clock."""

    __tablename__: ClassVar[str] = "inquiry_budget"

    provider: str = Field(primary_key=True)
    since: datetime = instant()
    asked: int

    __table_args__ = (sa.CheckConstraint("asked >= 0", name="asked"),)


class Allocation(SQLModel, table=True):
    """What part of a payment went to which part of which debt, by which policy. Append-only: what
    is taken back or moved is a negative allocation."""

    id: int | None = key()
    payment_id: int = names("payment", primary_key=True)
    invoice_id: int = names("invoice")
    component: Component = choice(
        Component,
        default=Component.PRINCIPAL,
        sa_column_kwargs={"server_default": "principal"},
    )
    amount_minor: int = minor()
    policy: str
    allocated_at: datetime = instant()

    __table_args__ = (
        one_of("component", Component),
        sa.CheckConstraint("amount_minor <> 0", name="amount"),
        # Of a payment's rows in their order: one index for what two would be written for.
        sa.PrimaryKeyConstraint("payment_id", "id"),
        sa.Index(None, "invoice_id"),
    )
