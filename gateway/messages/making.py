"""Who is to be told what: messages are put in line here, from what happened and by the calendar.

Set by set, a transaction to each; what was put in line before is not again, by a unique key. What a
message says is found out when it is sent.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlmodel import Session

from gateway.clock import day_of
from gateway.db import execute
from gateway.messages.rules import MessageRules
from gateway.models import MessageKind

EVENTS: Final = 5_000
"""Of the feed, to a transaction."""
PEOPLE: Final = 20_000
"""Of a day's reminders, to a transaction."""

_FEED: Final = "feed"
_NO_DAY: Final = date(1970, 1, 1)


def make_some(session: Session, rules: MessageRules, *, now: datetime) -> bool:
    """Put the next messages in line, and say whether more may follow at once.

    The caller owns the transaction. One at a time makes messages: another waits for its end.

    Args:
        session: Whose transaction it is.
        rules: When people are written to.
        now: The business clock.
    """
    execute(session, "SELECT pg_advisory_xact_lock(hashtext('wasl messages'))")
    if _from_the_feed(session, rules, now):
        return True
    return any(_walk(session, rules, kind, now) for kind in _REMINDERS)


# -- what happened --------------------------------------------------------------------------------


def _from_the_feed(session: Session, rules: MessageRules, now: datetime) -> bool:
    """Tell of the next events, and say whether there were as many as one look takes."""
    after = _after(session, _FEED, _NO_DAY)
    told = execute(
        session,
        _TOLD,
        {
            "after": after,
            "size": EVENTS,
            "since": now - timedelta(days=rules.told_within.days),
            "today": day_of(now),
            "now": now,
            "send_at": rules.quiet_hours.after(now),
        },
    ).one()
    if told.looked:
        _keep(session, _FEED, _NO_DAY, told.last, done=False)
    return bool(told.looked == EVENTS)


_WRITABLE: Final = """
    p.phone IS NOT NULL AND p.erased_at IS NULL
        AND p.id NOT IN (SELECT coalesce(o.merged_into_id, o.id) FROM message_stop s
            JOIN contributor o ON o.id = s.contributor_id)
"""
# A payment of several people's invoices is told to each, of what it paid of his own. What is given
# back of it in parts is told once, when it begins.
_TOLD: Final = f"""
    WITH looked AS MATERIALIZED (
        SELECT id, type, invoice_id, payment_id, happened_at FROM event WHERE id > :after
        ORDER BY id LIMIT :size
    ), happened AS (
        SELECT e.id, 'notice' AS kind, i.id AS invoice_id, CAST(NULL AS bigint) AS payment_id,
            i.contributor_id
        FROM looked e JOIN invoice i ON i.id = e.invoice_id
        WHERE e.type = 'invoice.issued' AND e.happened_at >= :since
            AND i.due_on >= :today AND i.cancelled_at IS NULL
        UNION ALL
        SELECT e.id, CASE e.type WHEN 'payment.booked' THEN 'paid' ELSE 'given_back' END, i.id,
            e.payment_id, i.contributor_id
        FROM looked e JOIN allocation a ON a.payment_id = e.payment_id
        JOIN invoice i ON i.id = a.invoice_id
        WHERE e.type IN ('payment.booked', 'payment.returned', 'payment.reversed')
            AND e.happened_at >= :since
    ), made AS (
        INSERT INTO message (kind, contributor_id, about, invoice_id, payment_id, made_at, send_at)
        SELECT h.kind, p.id,
            coalesce('payment/' || h.payment_id, 'invoice/' || min(h.invoice_id)),
            min(h.invoice_id), h.payment_id, :now, :send_at
        FROM happened h JOIN contributor f ON f.id = h.contributor_id
        JOIN contributor p ON p.id = coalesce(f.merged_into_id, f.id)
        WHERE {_WRITABLE}
        GROUP BY h.kind, p.id, h.payment_id, CASE WHEN h.payment_id IS NULL THEN h.invoice_id END
        ORDER BY min(h.id)
        ON CONFLICT DO NOTHING
    )
    SELECT count(*) AS looked, max(id) AS last FROM looked
"""


# -- by the calendar ------------------------------------------------------------------------------


def _remind(
    session: Session, rules: MessageRules, kind: str, after: int, now: datetime
) -> tuple[int, int | None]:
    """Remind the next people of a kind; return how many were looked at, and the last of them."""
    today = day_of(now)
    first, last, about = _window(rules, kind, today)
    found = execute(
        session,
        _REMINDED,
        {
            "kind": kind,
            "after": after,
            "size": PEOPLE,
            "first": first,
            "last": last,
            "about": about,
            "now": now,
            "send_at": rules.quiet_hours.after(now),
        },
    ).one()
    return int(found.looked), found.last


def _window(rules: MessageRules, kind: str, today: date) -> tuple[date, date, str | None]:
    """Return the first and the last due day of what is reminded of today, and what it is about.

    None: about the due day itself.
    """
    if kind == _DUE_SOON:
        return today, today + timedelta(days=rules.due_soon.days), None
    first = today - timedelta(days=rules.late.until_days)
    return first, today - timedelta(days=rules.late.days), f"month/{today:%Y-%m}"


_DUE_SOON: Final = MessageKind.DUE_SOON.value
_REMINDERS: Final = (_DUE_SOON, MessageKind.LATE.value)

# Whether something is due in the end, plans and remissions included, is asked when it is sent.
_REMINDED: Final = f"""
    WITH looked AS (
        SELECT p.id, p.phone, p.erased_at FROM contributor p
        WHERE p.id > :after AND p.merged_into_id IS NULL ORDER BY p.id LIMIT :size
    ), made AS (
        INSERT INTO message (kind, contributor_id, about, made_at, send_at)
        SELECT :kind, p.id, coalesce(:about, 'day/' || min(i.due_on)), :now, :send_at
        FROM looked p JOIN LATERAL (
            SELECT p.id UNION ALL SELECT id FROM contributor WHERE merged_into_id = p.id
        ) AS f ON true
        JOIN invoice i ON i.contributor_id = f.id
        WHERE {_WRITABLE} AND i.cancelled_at IS NULL AND i.status IN ('open', 'part_paid')
            AND i.due_on BETWEEN :first AND :last
        GROUP BY p.id ON CONFLICT DO NOTHING
    )
    SELECT count(*) AS looked, max(id) AS last FROM looked
"""


# -- how far it came ------------------------------------------------------------------------------


def _walk(session: Session, rules: MessageRules, kind: str, now: datetime) -> bool:
    """Go on with a day's reminders, and say whether there was something to go on with."""
    today = day_of(now)
    walk = _state(session, kind, today)
    if walk is not None and walk.done:
        return False
    after = 0 if walk is None else walk.after_id
    looked, last = _remind(session, rules, kind, after, now)
    _keep(session, kind, today, last or after, done=looked < PEOPLE)
    return True


def _after(session: Session, what: str, day: date) -> int:
    walk = _state(session, what, day)
    return 0 if walk is None else int(walk.after_id)


def _state(session: Session, what: str, day: date) -> Any:
    return execute(
        session,
        "SELECT after_id, done FROM message_walk WHERE what = :what AND day = :day",
        {"what": what, "day": day},
    ).one_or_none()


def _keep(session: Session, what: str, day: date, after_id: int, *, done: bool) -> None:
    execute(
        session,
        "INSERT INTO message_walk (what, day, after_id, done) VALUES (:what, :day, :after, :done)"
        " ON CONFLICT (what, day) DO UPDATE SET after_id = excluded.after_id, done = excluded.done",
        {"what": what, "day": day, "after": after_id, "done": done},
    )
