"""Stopping refunds by hand that a payment does not cover any more, before finance pays them out.

Money leaves the bank where we cannot hold it. So a refund is stopped in the very transaction that
hears that its payment was disputed, given back or reversed, and does not look payable afterwards.
Those by a provider are judged before the call (gateway.collection.refund_sending).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Final

from sqlmodel import Session

from gateway.collection.refund_rows import (
    GONE,
    WORKER,
    Heard,
    RefundRow,
    Step,
    failed,
    keep_steps,
    read_refunds,
)
from gateway.db import execute
from gateway.models import EventType, RefundState, RefundWay
from gateway.packing import bigints

_APPROVED: Final = (
    "refund.payment_id = ANY(:payments) AND refund.state = 'approved'"
    " AND (way = 'by_hand' OR tries > 0) ORDER BY refund.payment_id, refund.id FOR UPDATE OF refund"
)


_UNNAMED: Final = """
    SELECT p.id, max(r.amount_minor) FILTER (WHERE r.kind = 'refund_total')
        - coalesce(sum(r.amount_minor) FILTER (WHERE r.kind = 'refund' AND r.state = 'given'), 0)
    FROM payment p JOIN payment_return r USING (provider, provider_payment_id)
    WHERE p.id = ANY(:payments) GROUP BY p.id
    HAVING bool_or(r.kind = 'refund_total')
"""


def not_covered(approved: Iterable[RefundRow], unnamed_minor: int = 0) -> list[RefundRow]:
    """Return which refunds by hand are to be stopped: the newest, until the rest fit. Pure.

    Args:
        approved: Of one payment: those by hand, and those that its provider was asked for, which it
            may have made.
        unnamed_minor: What its provider has refunded by its sum, and not told of by id yet: that
            may be what it was asked for, which is not taken off twice.
    """
    found = sorted(approved, key=lambda row: row.id)
    left = min((row.left_minor for row in found), default=0)
    by_hand = sum(row.amount_minor for row in found if row.way is RefundWay.BY_HAND)
    asked = sum(row.amount_minor for row in found) - by_hand
    over = by_hand + max(0, asked - max(0, unnamed_minor)) - left
    stopped = []
    for row in reversed(found):
        if over > 0 and row.way is RefundWay.BY_HAND:
            over -= row.amount_minor
            stopped.append(row)
    return stopped


def is_covered(session: Session, row: RefundRow) -> bool:
    """Say whether an approved refund by hand may still be paid out; locks those that count."""
    approved = read_refunds(session, _APPROVED, {"payments": bigints([row.payment_id])})
    unnamed = _unnamed(session, [row.payment_id]).get(row.payment_id, 0)
    return row.id not in {each.id for each in not_covered(approved, unnamed)}


def stop_not_covered(session: Session, payments: Sequence[int], *, now: datetime) -> Heard:
    """Stop refunds by hand of payments of which less is left than before; return what follows.

    The caller owns the transaction, holds the lock on the payments' providers, and has written what
    was returned.
    """
    approved = read_refunds(session, _APPROVED, {"payments": bigints(sorted(payments))})
    if not approved:
        return Heard()
    unnamed = _unnamed(session, payments)
    by_payment = groupby(approved, key=lambda row: row.payment_id)
    stopped = [row for at, of_one in by_payment for row in not_covered(of_one, unnamed.get(at, 0))]
    if not stopped:
        return Heard()
    execute(
        session,
        "UPDATE refund SET state = 'dropped', ended_at = :now WHERE id = ANY(:ids)",
        {"now": now, "ids": bigints([row.id for row in stopped])},
    )
    state = RefundState.DROPPED
    keep_steps(session, [Step(row.id, state, WORKER, GONE) for row in stopped], now=now)
    return Heard(
        findings=[failed(row, GONE) for row in stopped],
        told=[row.told(EventType.REFUND_ENDED, state) for row in stopped],
    )


def _unnamed(session: Session, payments: Sequence[int]) -> dict[int, int]:
    """Return what providers have refunded of payments by sums beyond what they told of by id."""
    rows = execute(session, _UNNAMED, {"payments": bigints(sorted(payments))})
    return {int(at): int(minor) for at, minor in rows}
