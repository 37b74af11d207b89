"""Mask what is personal in the bodies of deliveries that were kept long enough.

Only what was acted on is touched: what waits or is parked is still to be read. The hash stays that
of the bytes that came, so the same delivery again is still known for the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlmodel import Session

from gateway.db import execute, snapshot, transaction
from webhooks.masking import BodyKind, kind_of, mask

BATCH_SIZE: Final = 200
"""Bodies held in memory at once: 50 MiB at the very most."""
RANGE_ROWS: Final = 20_000
"""Rows that one statement looks at."""


class Bodies(StrEnum):
    """The tables that hold bodies."""

    DELIVERIES = "webhook_delivery"
    VARIANTS = "webhook_variant"


_FINISHED: Final = {
    Bodies.DELIVERIES: "state = 'done'",
    Bodies.VARIANTS: "processed_at IS NOT NULL",
}
_READABLE: Final = {Bodies.DELIVERIES: "true", Bodies.VARIANTS: "readable"}


@dataclass(frozen=True, slots=True)
class Masked:
    """How many bodies were masked, or would be."""

    deliveries: int = 0
    variants: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of a walk through a table came to."""

    masked: int
    next_after: int | None
    """Where the walk goes on; None: all that follows is too young."""
    clean: bool
    """Whether everything up to there is masked."""


def _mask(session: Session, table: Bodies, ids: Sequence[int], *, now: datetime) -> int:
    rows = execute(
        session,
        f"SELECT id, body, {_READABLE[table]} FROM {table} WHERE id = ANY(:ids)"
        f" AND masked_at IS NULL AND {_FINISHED[table]} ORDER BY id FOR UPDATE",
        {"ids": list(ids)},
    ).all()
    if not rows:
        return 0
    execute(
        session,
        f"UPDATE {table} SET body = m.body, masked_at = :now"
        " FROM unnest(CAST(:ids AS bigint[]), CAST(:bodies AS bytea[])) AS m (id, body)"
        f" WHERE {table}.id = m.id",
        {
            "now": now,
            "ids": [row[0] for row in rows],
            "bodies": [_masked(bytes(body), readable) for _, body, readable in rows],
        },
    )
    return len(rows)


def _masked(body: bytes, readable: bool) -> bytes:
    return mask(body, kind_of(body) if readable else BodyKind.UNREADABLE)


def mask_next(
    session: Session, table: Bodies, before: datetime, *, now: datetime, after: int
) -> Step:
    """Mask the next bodies of a table that came before an instant, BATCH_SIZE of them at most.

    The caller owns the transaction. In the order of keys, which is nearly that of arrival: the walk
    ends where all of a range is younger, and the few that came out of order are found by the next.
    """
    seen = _look(session, table, before, after)
    if seen["last"] is None or seen["oldest"] >= before:
        return Step(0, None, clean=False)
    due = (seen["due"] or [])[:BATCH_SIZE]
    masked = _mask(session, table, due, now=now)
    if len(due) == BATCH_SIZE:
        return Step(masked, due[-1], clean=False)
    return Step(masked, seen["last"], clean=seen["bare"] == masked)


def count_due(before: datetime) -> Masked:
    """Return how many bodies there are to mask. Opens its own transactions, a range to each."""
    counted = dict.fromkeys(Bodies, 0)
    for table in Bodies:
        after: int | None = 0
        while after is not None:
            with snapshot() as session:
                seen = _look(session, table, before, after)
            counted[table] += len(seen["due"] or [])
            young = seen["last"] is None or seen["oldest"] >= before
            after = None if young else seen["last"]
    return Masked(counted[Bodies.DELIVERIES], counted[Bodies.VARIANTS])


def _look(session: Session, table: Bodies, before: datetime, after: int) -> dict[str, Any]:
    due = f"masked_at IS NULL AND {_FINISHED[table]} AND received_at < :before"
    rows = execute(
        session,
        f"""
        SELECT max(id) AS last, min(received_at) AS oldest,
            count(*) FILTER (WHERE masked_at IS NULL) AS bare,
            array_agg(id ORDER BY id) FILTER (WHERE {due}) AS due
        FROM (SELECT * FROM {table} WHERE id > :after ORDER BY id LIMIT :rows) AS seen
        """,
        {"before": before, "after": after, "rows": RANGE_ROWS},
    )
    return dict(rows.mappings().one())


class Sweeps:
    """Walks again and again through both tables, past what it knows to be masked."""

    def __init__(self) -> None:
        self._masked_to = dict.fromkeys(Bodies, 0)

    def mask_old(
        self,
        before: datetime,
        *,
        now: datetime,
        seconds: float,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Masked:
        """Mask what came before an instant and is done. Opens its own transactions, small ones.

        Args:
            before: By the business clock, as arrivals are.
            now: Kept beside what is masked.
            seconds: After so many no other batch is begun; the next walk goes on.
            progress: Told how many were masked so far.
        """
        until = time.monotonic() + seconds
        masked = dict.fromkeys(Bodies, 0)
        for table in Bodies:
            after: int | None = self._masked_to[table]
            clean = True
            while after is not None and time.monotonic() < until:
                with transaction() as session:
                    step = mask_next(session, table, before, now=now, after=after)
                masked[table] += step.masked
                clean = clean and step.clean
                if clean and step.next_after is not None:
                    self._masked_to[table] = step.next_after
                after = step.next_after
                progress(sum(masked.values()))
        return Masked(masked[Bodies.DELIVERIES], masked[Bodies.VARIANTS])
