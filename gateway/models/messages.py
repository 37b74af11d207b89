"""What people are written to: messages in line, who wants none, how far was looked."""

from __future__ import annotations

from datetime import date, datetime
from typing import ClassVar

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from gateway.db import choice, instant, key, one_of, points_to
from gateway.models.words import MessageKind, MessageState


class Message(SQLModel, table=True):
    """Something that a person is told, once. Worded when it is sent, from the facts of then."""

    id: int | None = key()
    kind: MessageKind = choice(MessageKind)
    contributor_id: int = points_to("contributor.id")
    """The person's file that stands."""
    about: str
    """What it is told about, so that it is told once: an invoice, a payment, a month."""
    invoice_id: int | None = points_to("invoice.id", nullable=True)
    payment_id: int | None = points_to("payment.id", nullable=True)
    state: MessageState = choice(
        MessageState,
        default=MessageState.WAITING,
        sa_column_kwargs={"server_default": "waiting"},
    )
    because: str | None
    """Why it was dropped, or was not taken so far."""
    made_at: datetime = instant()
    send_at: datetime = instant()
    """Not before this instant, by the business clock: quiet hours."""
    retry_at: datetime | None = instant(nullable=True)
    """Nor before this one, by the database's clock, which never stands still."""
    tries: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    sent_at: datetime | None = instant(nullable=True)
    language: str | None
    text: str | None
    """As it was sent; emptied when the person's data are erased."""
    parts: int | None
    """In how many parts it went over the air."""
    sender: str | None
    sender_id: str | None
    """The sender's own name of it."""

    __table_args__ = (
        one_of("kind", MessageKind),
        one_of("state", MessageState),
        sa.UniqueConstraint("contributor_id", "kind", "about"),
        sa.CheckConstraint("language IN ('fr', 'ar')", name="language"),
        sa.CheckConstraint(
            "(state = 'sent') = (sent_at IS NOT NULL) AND (state <> 'sent' OR"
            " num_nonnulls(language, text, parts, sender, sender_id) = 5)",
            name="sent",
        ),
        sa.CheckConstraint("state <> 'dropped' OR because IS NOT NULL", name="dropped"),
        sa.Index(
            "message_waiting_idx", "send_at", "id", postgresql_where=sa.text("state = 'waiting'")
        ),
    )


class MessageStop(SQLModel, table=True):
    """A person who wants no messages. Kept whatever file of people is imported afterwards."""

    __tablename__: ClassVar[str] = "message_stop"

    contributor_id: int = Field(
        sa_type=sa.BigInteger, foreign_key="contributor.id", primary_key=True
    )
    asked_by: str
    why: str
    stopped_at: datetime = instant()


class MessageWalk(SQLModel, table=True):
    """How far something was looked through for messages: the feed, or a day's reminders."""

    __tablename__: ClassVar[str] = "message_walk"

    what: str = Field(primary_key=True)
    """`feed`, or a kind of message."""
    day: date = Field(primary_key=True)
    """Of the reminders; for the feed, which has none, the first of all days."""
    after_id: int = Field(sa_type=sa.BigInteger)
    """The last event, or the last person, that was looked at."""
    done: bool
