"""Whether Wasl sends anything of its own accord."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from gateway.db import instant, key


class SendingHold(SQLModel, table=True):
    """A time in which nothing is sent outward (gateway.sending). At most one is open."""

    __tablename__: ClassVar[str] = "sending_hold"

    id: int | None = key()
    because: str
    held_by: str
    held_at: datetime = instant()
    released_by: str | None = Field(default=None)
    released_at: datetime | None = instant(nullable=True)

    __table_args__ = (
        sa.CheckConstraint("(released_by IS NULL) = (released_at IS NULL)", name="released"),
        sa.Index(
            "sending_hold_open_key",
            sa.text("(released_at IS NULL)"),
            unique=True,
            postgresql_where=sa.text("released_at IS NULL"),
        ),
    )
