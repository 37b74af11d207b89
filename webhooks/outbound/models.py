"""The tables of what is sent out: endpoints, their secrets, their walks along the feed, attempts.

Instants by which something is looked for (`retry_at`, `ends_at`, `attempted_at`) are by the
database's clock: the business clock may stand still.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from gateway.db import choice, instant, key, one_of


class WalkKind(StrEnum):
    FEED = "feed"
    """All that happens, for ever."""
    RESEND = "resend"
    """A span of the past once more."""
    TEST = "test"
    """One message that tells of nothing."""


class WebhookEndpoint(SQLModel, table=True):
    """Somebody's address that is told of what happens. Never deleted: attempts name it."""

    __tablename__: ClassVar[str] = "webhook_endpoint"

    id: int | None = key()
    url: str
    types: list[str] = Field(sa_type=ARRAY(sa.Text))
    """What it is told of, as `EventType` has it."""
    description: str
    """Whose it is. No name of a person."""
    added_by: str
    added_at: datetime = instant()
    disabled_at: datetime | None = instant(nullable=True)
    disabled_because: str | None
    removed_at: datetime | None = instant(nullable=True)

    __table_args__ = (
        sa.CheckConstraint("cardinality(types) > 0", name="types"),
        sa.CheckConstraint(
            "(disabled_at IS NULL) = (disabled_because IS NULL)", name="disabled_because"
        ),
    )


class WebhookSecret(SQLModel, table=True):
    """A secret that what is sent to an endpoint is signed with; sealed with a key outside of the
    database. Deleted with its endpoint's removal."""

    __tablename__: ClassVar[str] = "webhook_secret"

    id: int | None = key()
    endpoint_id: int = Field(sa_type=sa.BigInteger, foreign_key="webhook_endpoint.id")
    sealed: bytes
    made_by: str
    made_at: datetime = instant()
    ends_at: datetime | None = instant(nullable=True)
    """When it signs no more; None: not until it is rolled."""

    __table_args__ = (
        sa.Index(
            "webhook_secret_standing_key",
            "endpoint_id",
            unique=True,
            postgresql_where=sa.text("ends_at IS NULL"),
        ),
        sa.Index(None, "endpoint_id"),
    )


class WebhookWalk(SQLModel, table=True):
    """A walk of an endpoint along the feed: where it stands, and how it fares there."""

    __tablename__: ClassVar[str] = "webhook_walk"

    id: int | None = key()
    endpoint_id: int = Field(sa_type=sa.BigInteger, foreign_key="webhook_endpoint.id")
    kind: WalkKind = choice(WalkKind)
    at_event: int = Field(sa_type=sa.BigInteger)
    """The last event of the feed that it is done with; it need not be of the endpoint's types."""
    upto_event: int | None = Field(default=None, sa_type=sa.BigInteger)
    """The last one that it is for; None: it goes on for ever."""
    attempts: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """That failed, of the event in line."""
    retry_at: datetime = instant()
    last_error: str | None
    taken: int = Field(default=0, sa_type=sa.BigInteger, sa_column_kwargs={"server_default": "0"})
    """Messages that were taken, ever."""
    failed: int = Field(default=0, sa_type=sa.BigInteger, sa_column_kwargs={"server_default": "0"})
    """Attempts that failed, ever."""
    asked_by: str
    asked_at: datetime = instant()
    ended_at: datetime | None = instant(nullable=True)

    __table_args__ = (
        one_of("kind", WalkKind),
        sa.CheckConstraint("(kind = 'feed') = (upto_event IS NULL)", name="upto_event"),
        sa.CheckConstraint("attempts >= 0 AND taken >= 0 AND failed >= 0", name="counts"),
        sa.Index(
            "webhook_walk_feed_key",
            "endpoint_id",
            unique=True,
            postgresql_where=sa.text("kind = 'feed'"),
        ),
        sa.Index(None, "endpoint_id", "id"),
    )


class WebhookAttempt(SQLModel, table=True):
    """One sending of one message, and what came of it. Kept for a while only."""

    __tablename__: ClassVar[str] = "webhook_attempt"

    id: int | None = key()
    endpoint_id: int = Field(sa_type=sa.BigInteger, foreign_key="webhook_endpoint.id")
    walk_id: int = Field(sa_type=sa.BigInteger, foreign_key="webhook_walk.id")
    event_id: int | None = Field(default=None, sa_type=sa.BigInteger)
    """None: of a test."""
    message_id: str
    """The `webhook-id` that it bore."""
    attempted_at: datetime = instant()
    ms: int
    """From the look-up of the address to the head of the answer, in milliseconds."""
    status: int | None = Field(default=None, sa_type=sa.SmallInteger)
    """Of the answer; None: there was none."""
    error: str | None
    """Why it was not taken; None: it was."""

    __table_args__ = (sa.Index(None, "endpoint_id", "id"),)
