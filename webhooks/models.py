"""The inbox's tables: deliveries as they came, byte for byte. The inbox is the queue.

With those of webhooks.outbound, which share its metadata.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

import webhooks.outbound.models  # noqa: F401 - registers its tables
from gateway.db import choice, instant, key, one_of


class DeliveryState(StrEnum):
    WAITING = "waiting"
    """Stored and acknowledged; not yet acted on."""
    DONE = "done"
    """Acted on; `outcome` says how."""
    PARKED = "parked"
    """Failed too often; `last_error` says why, and an exception is open."""


class WebhookDelivery(SQLModel, table=True):
    """The first readable body under a provider's delivery id. It stands, whatever comes later."""

    __tablename__: ClassVar[str] = "webhook_delivery"

    id: int | None = key()
    provider: str
    delivery_id: str
    body: bytes
    body_sha256: bytes
    received_at: datetime = instant()
    state: DeliveryState = choice(
        DeliveryState,
        default=DeliveryState.WAITING,
        sa_column_kwargs={"server_default": "waiting"},
    )
    outcome: str | None
    processed_at: datetime | None = instant(nullable=True)
    attempts: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    retry_at: datetime | None = instant(nullable=True)
    """By the database's clock, not the business clock, which may stand still."""
    last_error: str | None
    path: str | None
    """Of a call whose sender waits: what of its address says something; None where nothing does."""
    masked_at: datetime | None = instant(nullable=True)
    """When what is personal in the body was taken out; the hash is of the bytes that came."""

    __table_args__ = (
        sa.UniqueConstraint("provider", "delivery_id"),
        one_of("state", DeliveryState),
        sa.CheckConstraint("length(body_sha256) = 32", name="body_sha256"),
        sa.CheckConstraint("(state = 'done') = (outcome IS NOT NULL)", name="outcome"),
        sa.CheckConstraint("state <> 'parked' OR last_error IS NOT NULL", name="last_error"),
        sa.Index(
            "webhook_delivery_waiting_idx",
            "provider",
            "id",
            postgresql_where=sa.text("state = 'waiting'"),
        ),
    )


class WebhookVariant(SQLModel, table=True):
    """Another body under a delivery id: one that differs from the first, or could not be read."""

    __tablename__: ClassVar[str] = "webhook_variant"

    id: int | None = key()
    provider: str
    delivery_id: str
    body: bytes
    body_sha256: bytes
    readable: bool
    received_at: datetime = instant()
    processed_at: datetime | None = instant(nullable=True)
    path: str | None
    """As of a delivery."""
    masked_at: datetime | None = instant(nullable=True)
    """As of a delivery."""

    __table_args__ = (
        sa.UniqueConstraint("provider", "delivery_id", "body_sha256"),
        sa.CheckConstraint("length(body_sha256) = 32", name="body_sha256"),
        sa.Index(
            "webhook_variant_waiting_idx",
            "id",
            postgresql_where=sa.text("processed_at IS NULL"),
        ),
    )


class WebhookAnswer(SQLModel, table=True):
    """What a sender who waits was told: written with what it says in one transaction, repeated
    whenever the same comes again."""

    __tablename__: ClassVar[str] = "webhook_answer"

    delivery_pk: int = Field(
        sa_type=sa.BigInteger, foreign_key="webhook_delivery.id", primary_key=True
    )
    ticket: str | None = Field(unique=True)
    """By which the sender may ask for it; drawn by us."""
    status: int = Field(sa_type=sa.SmallInteger)
    media_type: str
    body: bytes
    answered_at: datetime = instant()


class CallbackState(StrEnum):
    WAITING = "waiting"
    DONE = "done"
    GIVEN_UP = "given_up"


class ProviderCallback(SQLModel, table=True):
    """A word that we owe a sender who did not wait: sent at least once, or given up with a reason.

    It holds what is to be said and where; whoever asks later gets the same from the answer.
    """

    __tablename__: ClassVar[str] = "provider_callback"

    id: int | None = key()
    provider: str
    delivery_pk: int = Field(sa_type=sa.BigInteger, foreign_key="webhook_delivery.id", unique=True)
    url: str
    headers: dict[str, str] = Field(sa_type=JSONB)
    body: bytes
    state: CallbackState = choice(
        CallbackState,
        default=CallbackState.WAITING,
        sa_column_kwargs={"server_default": "waiting"},
    )
    attempts: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    retry_at: datetime = instant()
    """By the database's clock."""
    last_error: str | None
    made_at: datetime = instant()
    ended_at: datetime | None = instant(nullable=True)

    __table_args__ = (
        one_of("state", CallbackState),
        sa.CheckConstraint("(state = 'waiting') = (ended_at IS NULL)", name="ended_at"),
        sa.Index(
            "provider_callback_waiting_idx",
            "retry_at",
            postgresql_where=sa.text("state = 'waiting'"),
        ),
    )


class WebhookReplay(SQLModel, table=True):
    """Somebody's order to act again on deliveries that we hold. Append-only."""

    __tablename__: ClassVar[str] = "webhook_replay"

    id: int | None = key()
    asked_by: str
    """Who: the label of an API key, or the account that ran the command."""
    why: str
    chosen_by: dict[str, Any] = Field(sa_type=JSONB)
    """The filter, as it was given."""
    asked_at: datetime = instant()

    __table_args__ = (sa.CheckConstraint("btrim(why) <> ''", name="why"),)


class ReplayedDelivery(SQLModel, table=True):
    """A delivery chosen by a replay: waiting until it was acted on again."""

    __tablename__: ClassVar[str] = "replayed_delivery"

    replay_id: int = Field(sa_type=sa.BigInteger, foreign_key="webhook_replay.id", primary_key=True)
    delivery_pk: int = Field(
        sa_type=sa.BigInteger, foreign_key="webhook_delivery.id", primary_key=True
    )
    outcome: str | None
    """What it came to this time; None until then."""
    processed_at: datetime | None = instant(nullable=True)

    __table_args__ = (
        sa.CheckConstraint("(outcome IS NULL) = (processed_at IS NULL)", name="outcome"),
        sa.Index(None, "delivery_pk"),
        sa.Index(
            "replayed_delivery_waiting_idx",
            "replay_id",
            "delivery_pk",
            postgresql_where=sa.text("processed_at IS NULL"),
        ),
    )
