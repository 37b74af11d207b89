"""What happened, for those who follow along: a feed in the order of commits.

Written last in a transaction, under a lock that lasts to its end. So ids become visible in their
order, and whoever has read up to one has missed nothing before it. Gaps mean nothing.

Read by `FEED`: of a payment that was booked an event says only which one, since there is one for
each, and what it would say stands in the payment's own row for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from pydantic_core import to_json
from sqlmodel import Session

from gateway.db import copy_blocks, execute
from gateway.models import EventType
from gateway.packing import NULL, bigint, blocks, columns, instant, jsonb, word

FEED: Final = """(
    SELECT e.id, e.type, coalesce(e.invoice_id, p.invoice_id) AS invoice_id, e.payment_id,
        coalesce(e.data, jsonb_build_object(
            'provider', p.provider, 'provider_payment_id', p.provider_payment_id,
            'reference', coalesce(i.reference, b.reference),
            'amount',
            p.amount_minor / 100 || '.' || lpad(CAST(mod(p.amount_minor, 100) AS text), 2, '0'),
            'returned', '0.00', 'currency', p.currency, 'channel', p.channel,
            'paid_at', to_char(p.paid_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
                || CASE WHEN p.paid_at = date_trunc('second', p.paid_at) THEN ''
                    ELSE to_char(p.paid_at, '.US') END || '+00:00',
            'status', 'booked'
        )) AS data, e.happened_at
    FROM event e LEFT JOIN payment p ON p.id = e.payment_id AND e.data IS NULL
    LEFT JOIN invoice i ON i.id = p.invoice_id LEFT JOIN bundle b ON b.id = p.bundle_id
)"""
"""The events with what each says, for a FROM: (…) AS event."""


class Happening(NamedTuple):
    """Something to tell. `data` holds no name and no personal number; amounts as on the wire."""

    type: EventType
    data: Mapping[str, Any] | None
    """None for a payment that was booked: what its own row says (`FEED`)."""
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
                NULL if each.data is None else jsonb(to_json(dict(each.data))),
                happened_at,
            )
        )


def take_the_end_of_the_feed(session: Session) -> None:
    """Let no other transaction append before this one ends."""
    execute(session, "SELECT pg_advisory_xact_lock(hashtext('wasl events'))")
