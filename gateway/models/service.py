"""What the service keeps of its own: exceptions, people and keys, events, messages."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from gateway.db import choice, instant, key, names, one_of, points_to
from gateway.models.words import EventType, ExceptionCode, Role


class OutboxMessage(SQLModel, table=True):
    """A task asked for inside a transaction, to be sent after it."""

    __tablename__: ClassVar[str] = "outbox_message"

    id: int | None = key()
    task: str
    arguments: dict[str, str] = Field(sa_type=JSONB)
    created_at: datetime = instant()


class CodedException(SQLModel, table=True):
    """Something that a person must decide; at most one open for a code and a subject."""

    __tablename__: ClassVar[str] = "coded_exception"

    id: int | None = key()
    code: ExceptionCode = choice(ExceptionCode)
    subject: str
    """What it is about: `payment:provider/id`, `delivery:provider/id`, `record:id`."""
    detail: dict[str, Any] = Field(sa_type=JSONB)
    """What was found, for the person who decides. Never a name or a personal number."""
    payment_id: int | None = points_to("payment.id", nullable=True)
    opened_at: datetime = instant()
    resolved_at: datetime | None = instant(nullable=True)
    resolution: str | None

    __table_args__ = (
        one_of("code", ExceptionCode),
        sa.CheckConstraint("(resolved_at IS NULL) = (resolution IS NULL)", name="resolution"),
        sa.Index(
            "coded_exception_open_key",
            "code",
            "subject",
            unique=True,
            postgresql_where=sa.text("resolved_at IS NULL"),
        ),
        sa.Index(None, "payment_id"),
    )


class Staff(SQLModel, table=True):
    """A person who can sign in."""

    id: int | None = key()
    name: str = Field(unique=True)
    role: Role = choice(Role)
    password_hash: str
    totp_sealed: bytes
    """The second factor's secret, encrypted with a key that is not in the database."""
    created_at: datetime = instant()

    __table_args__ = (
        one_of("role", Role),
        sa.CheckConstraint("name = btrim(name) AND name <> ''", name="name"),
    )


class ApiKey(SQLModel, table=True):
    """A bearer key. Its secret half is known to the holder only."""

    __tablename__: ClassVar[str] = "api_key"

    id: str = Field(primary_key=True)
    role: Role = choice(Role)
    label: str = Field(default="", sa_column_kwargs={"server_default": ""})
    """Whose it is, for whoever revokes it. No secret."""
    scope: str | None
    """What of the whole its holder sees: a chamber's region, a provider's name."""
    secret_sha256: bytes
    """A hash without stretching: the secret is 256 random bits, not a password."""
    created_at: datetime = instant()
    revoked_at: datetime | None = instant(nullable=True)

    __table_args__ = (
        one_of("role", Role),
        sa.CheckConstraint("length(secret_sha256) = 32", name="secret"),
        sa.CheckConstraint("scope IS NULL OR role IN ('chamber', 'provider')", name="scope"),
    )


class IdempotentAnswer(SQLModel, table=True):
    """The answer to a request of the API that bore an `Idempotency-Key`, written with its effect in
    one transaction: the same request again gets it, another one under the key a conflict."""

    __tablename__: ClassVar[str] = "idempotent_answer"

    api_key_id: str = Field(foreign_key="api_key.id", primary_key=True)
    idempotency_key: str = Field(primary_key=True)
    request_sha256: bytes
    """Of method, path and body."""
    status: int = Field(sa_type=sa.SmallInteger)
    headers: dict[str, str] = Field(sa_type=JSONB)
    body: bytes
    answered_at: datetime = instant()

    __table_args__ = (
        sa.CheckConstraint("length(request_sha256) = 32", name="request"),
        sa.Index(None, "answered_at"),
    )


class Event(SQLModel, table=True):
    """What happened, for those who follow along: in the order of commits. Append-only.

    Written under a lock that lasts to the commit (gateway.events), so whoever has read up to an id
    has missed nothing before it.
    """

    id: int | None = key()
    type: EventType = choice(EventType)
    invoice_id: int | None = names("invoice", default=None)
    payment_id: int | None = names("payment", default=None)
    data: dict[str, Any] | None = Field(sa_type=JSONB)
    """The facts as they were then. Never a name or a personal number. None: what the payment's row
    says of its booking (gateway.events.FEED)."""
    happened_at: datetime = instant()

    __table_args__ = (
        one_of("type", EventType),
        sa.CheckConstraint(
            "data IS NOT NULL OR type = 'payment.booked' AND payment_id IS NOT NULL", name="data"
        ),
    )
