"""What happened, for those who follow along: a feed in the order of commits.

Written last in a transaction, under a lock that lasts to its end. So ids become visible in their
order, and whoever has read up to one has missed nothing before it. Gaps mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pydantic_core import to_json
from sqlmodel import Session

from gateway.db import copy_blocks, execute
from gateway.models import EventType
from gateway.packing import bigint, blocks, columns, instant, jsonb, word


@dataclass(frozen=True, slots=True)
class Happening:
    """Something to tell. `data` holds no name and no personal number; amounts as on the wire."""

    type: EventType
    data: Mapping[str, Any] = field(default_factory=dict)
    invoice_id: int | None = None
    payment_id: int | None = None


def tell(session: Session, happenings: Sequence[Happening], *, now: datetime) -> None:
    """Append to the feed. The caller owns the transaction; nothing but the commit should follow."""
    if not happenings:
        return
    take_the_end_of_the_feed(session)
    copy_blocks(session, _COPY, blocks(_rows(happenings, now)))


_COPY: Final = (
    "COPY event (type, invoice_id, payment_id, data, happened_at) FROM STDIN (FORMAT BINARY)"
)


def _rows(happenings: Sequence[Happening], now: datetime) -> Iterator[bytes]:
    start, happened_at = columns(5), instant(now)
    for each in happenings:
        yield b"".join(
            (
                start,
                word(each.type.value),
                bigint(each.invoice_id),
                bigint(each.payment_id),
                jsonb(to_json(dict(each.data))),
                happened_at,
            )
        )


def take_the_end_of_the_feed(session: Session) -> None:
    """Let no other transaction append before this one ends."""
    execute(session, "SELECT pg_advisory_xact_lock(hashtext('wasl events'))")
