"""What happened, for those who follow along: a feed in the order of commits.

Written last in a transaction, under a lock that lasts to its end. So ids become visible in their
order, and whoever has read up to one has missed nothing before it. Gaps mean nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlmodel import Session

from gateway.db import execute
from gateway.models import EventType


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
    rows = [
        {
            "type": each.type.value,
            "invoice_id": each.invoice_id,
            "payment_id": each.payment_id,
            "data": dict(each.data),
        }
        for each in happenings
    ]
    # One text for all rows: an array for each column took three times as long.
    execute(
        session,
        """
        INSERT INTO event (type, invoice_id, payment_id, data, happened_at)
        SELECT type, invoice_id, payment_id, data, :now
        FROM jsonb_to_recordset(CAST(:rows AS jsonb))
            AS told (type text, invoice_id bigint, payment_id bigint, data jsonb)
        """,
        {"rows": json.dumps(rows), "now": now},
    )


def take_the_end_of_the_feed(session: Session) -> None:
    """Let no other transaction append before this one ends."""
    execute(session, "SELECT pg_advisory_xact_lock(hashtext('wasl events'))")
