"""Money that we give back ourselves: who asked, who approved, what became of it."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from gateway.db import choice, instant, key, minor, one_of, points_to
from gateway.models.words import RefundState, RefundWay
from gateway.money import AMOUNT_MINOR_MAX


class Refund(SQLModel, table=True):
    """An amount of a payment that somebody asked to be given back, and another must approve.

    What was asked never changes. A trigger keeps all refunds that are under way, all that was given
    back and all that is disputed within what the payment brought (`wasl_refund_room`).
    """

    id: int | None = key()
    token: str = Field(unique=True)
    """Our own name of it: the provider's idempotency key, and kept there beside the refund."""
    payment_id: int = points_to("payment.id")
    provider: str
    """The payment's: with `return_id` it names the refund as the provider does."""
    amount_minor: int = minor()
    way: RefundWay = choice(RefundWay)
    state: RefundState = choice(
        RefundState, default=RefundState.ASKED, sa_column_kwargs={"server_default": "asked"}
    )
    asked_by: str
    """`key 1f0c…` or `staff Amina`: by its label or the name two people are told apart."""
    because: str
    asked_at: datetime = instant()
    decided_by: str | None
    """Who approved it, or said no; never who asked, save to withdraw it."""
    decided_at: datetime | None = instant(nullable=True)
    return_id: str | None
    """The provider's id of the refund; of one by hand its own token."""
    bank_reference: str | None
    """Of one by hand: what the bank calls the transfer."""
    tries: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """How often the provider was asked. After the first it may have been made."""
    act_at: datetime | None = instant(nullable=True)
    """When the worker acts next, by the database's clock; None: not."""
    ended_at: datetime | None = instant(nullable=True)

    __table_args__ = (
        sa.UniqueConstraint("provider", "return_id"),
        one_of("way", RefundWay),
        one_of("state", RefundState),
        sa.CheckConstraint(f"amount_minor BETWEEN 1 AND {AMOUNT_MINOR_MAX}", name="amount"),
        sa.CheckConstraint("btrim(because) <> ''", name="because"),
        sa.CheckConstraint("(decided_by IS NULL) = (decided_at IS NULL)", name="decided"),
        sa.CheckConstraint("(state = 'asked') = (decided_by IS NULL)", name="approval"),
        # Two pairs of eyes: whoever asked can only withdraw it.
        sa.CheckConstraint("decided_by <> asked_by OR state = 'refused'", name="eyes"),
        sa.CheckConstraint("state NOT IN ('sent', 'done') OR return_id IS NOT NULL", name="named"),
        sa.CheckConstraint(
            "(ended_at IS NOT NULL) = (state IN ('refused', 'dropped', 'done', 'failed'))",
            name="ended",
        ),
        sa.CheckConstraint("bank_reference IS NULL OR way = 'by_hand'", name="bank_reference"),
        sa.Index(None, "payment_id"),
        sa.Index("refund_act_idx", "act_at", postgresql_where=sa.text("act_at IS NOT NULL")),
    )


class RefundStep(SQLModel, table=True):
    """Who took a refund to which state, when, and why. Append-only."""

    __tablename__: ClassVar[str] = "refund_step"

    id: int | None = key()
    refund_id: int = points_to("refund.id")
    state: RefundState = choice(RefundState)
    taken_by: str
    """`key 1f0c…`, `staff Amina`; `provider` where its word decided, `worker` where ours did."""
    because: str
    taken_at: datetime = instant()

    __table_args__ = (
        one_of("state", RefundState),
        sa.CheckConstraint("btrim(because) <> ''", name="because"),
        sa.Index(None, "refund_id"),
    )
