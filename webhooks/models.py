"""The inbox's tables: deliveries as they came, byte for byte. The inbox is the queue."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

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

    __table_args__ = (
        sa.UniqueConstraint("provider", "delivery_id", "body_sha256"),
        sa.CheckConstraint("length(body_sha256) = 32", name="body_sha256"),
        sa.Index(
            "webhook_variant_waiting_idx",
            "id",
            postgresql_where=sa.text("processed_at IS NULL"),
        ),
    )
