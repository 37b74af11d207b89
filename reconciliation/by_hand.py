"""What a person decides about matches: that rows belong together, or that they do not.

No run undoes it. Both may be taken back by the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlmodel import Session

from gateway.db import execute
from gateway.errors import Unusable
from gateway.money import format_amount
from gateway.reasons import kept_reason
from reconciliation.keeping import undo
from reconciliation.records import lock_records

RULE: Final = "by_hand"
RULE_DIFFERING: Final = "by_hand_differing"
"""Joined by who knows by how much the two sides differ, and said so."""
SCORE: Final = 100
TOLERANCE_MINOR: Final = 5
"""Centimes by which the two sides of what a person joins may differ."""


def join_by_hand(
    session: Session,
    payments: Sequence[str],
    records: Sequence[str],
    *,
    who: str,
    why: str,
    now: datetime,
    difference_minor: int = 0,
) -> int:
    """Match payments with records by a person's word; what a run made of these rows is undone.

    The caller owns the transaction; runs and imports wait for its end. What was parted before is
    parted no more.

    Args:
        session: Whose transaction it is.
        payments: As `provider/its id`.
        records: Their ids.
        who: Who decided.
        why: The reason. No names.
        now: The business clock.
        difference_minor: Centimes that were paid beyond what was recorded, or less if negative, by
            who says that they belong together all the same: what somebody overpaid, say.

    Returns:
        The group's number.

    Raises:
        Unusable: Several are to be matched with several; one is not known, does not stand, was
            joined by a person before, or is matched with another row; the sums differ otherwise.
    """
    lock_records(session)
    if not payments or not records or min(len(payments), len(records)) > 1:
        raise Unusable("A group is one payment with records, or one record with payments.")
    paid, recorded = _payments(session, payments), _records(session, records)
    ours, theirs = sum(row.worth for row in paid), sum(row.amount_minor for row in recorded)
    is_equal = difference_minor == 0 and abs(ours - theirs) <= TOLERANCE_MINOR
    if not is_equal and ours - theirs != difference_minor:
        raise Unusable(
            f"What was paid comes to {format_amount(ours)}, what was recorded to"
            f" {format_amount(theirs)}: who knows that they belong together all the same says so"
            f" by --difference {format_amount(ours - theirs)}."
        )
    both = {"payments": [row.id for row in paid], "records": [row.id for row in recorded]}
    held = execute(
        session,
        "SELECT DISTINCT payment_id, decided_by FROM match_line"
        " WHERE payment_id = ANY(:payments) OR record_id = ANY(:records)",
        both,
    ).all()
    if any(row.decided_by is not None for row in held):
        raise Unusable("One of them was joined with something by a person: part these first.")
    others = execute(session, _WITH_OTHERS, both).first()
    if others is not None:
        raise Unusable(
            f"{others.payment} is matched with {others.record} ({others.rule}, {others.score}):"
            " part these first."
        )
    undo(session, [row.payment_id for row in held], f"{who} joined it otherwise", now)
    execute(session, _NO_LONGER_PARTED, {**both, "now": now})
    rule = RULE if is_equal else RULE_DIFFERING
    said = {"rule": rule, "score": SCORE, "why": kept_reason(why), "who": who}
    execute(session, _JOIN, {**both, **said})
    group: int = min(row.id for row in paid)
    return group


_WITH_OTHERS: Final = """
    SELECT p.provider || '/' || p.provider_payment_id AS payment, r.record_id AS record, m.rule,
        m.score
    FROM match_line m JOIN payment p ON p.id = m.payment_id
    JOIN institution_record r ON r.id = m.record_id
    WHERE m.group_id IN (SELECT group_id FROM match_line
            WHERE payment_id = ANY(:payments) OR record_id = ANY(:records))
        AND NOT (m.payment_id = ANY(:payments) AND m.record_id = ANY(:records))
    ORDER BY m.payment_id, m.record_id LIMIT 1
"""
_NO_LONGER_PARTED: Final = """
    UPDATE parted_pair SET joined_at = :now WHERE joined_at IS NULL
        AND payment_id = ANY(:payments) AND record_id = ANY(:records)
"""
_JOIN: Final = """
    INSERT INTO match_line (payment_id, record_id, group_id, amount_minor, score, payment_line,
        record_line, rule, why, decided_by)
    SELECT p.id, r.id, (SELECT min(id) FROM unnest(CAST(:payments AS bigint[])) AS o (id)),
        payment.amount_minor - payment.returned_minor, :score, r.place - 1, p.place - 1,
        :rule, :why, :who
    FROM unnest(CAST(:payments AS bigint[])) WITH ORDINALITY AS p (id, place)
    CROSS JOIN unnest(CAST(:records AS bigint[])) WITH ORDINALITY AS r (id, place)
    JOIN payment ON payment.id = p.id
"""


def part_by_hand(
    session: Session, payment: str, record: str, *, who: str, why: str, now: datetime
) -> None:
    """Say that a payment and a record do not belong together; no run matches them again.

    A group that has both is undone, whoever made it. The caller owns the transaction.

    Args:
        session: Whose transaction it is.
        payment: As `provider/its id`.
        record: Its id.
        who: Who decided.
        why: The reason. No names.
        now: The business clock.

    Raises:
        Unusable: One of them is not known.
    """
    lock_records(session)
    (paid,) = _keys(session, "payment", _PAYMENTS_NAMED, [payment])
    (recorded,) = _keys(session, "record", _RECORDS_NAMED, [record])
    together = execute(
        session,
        "SELECT payment_id FROM match_line WHERE payment_id = :payment AND record_id = :record",
        {"payment": paid, "record": recorded},
    ).scalar()
    if together is not None:
        undo(session, [paid], f"{who} parted it", now)
    execute(
        session,
        "INSERT INTO parted_pair (payment_id, record_id, decided_by, why, decided_at)"
        " VALUES (:payment, :record, :who, :why, :now)"
        " ON CONFLICT (payment_id, record_id) WHERE joined_at IS NULL DO NOTHING",
        {"payment": paid, "record": recorded, "who": who, "why": kept_reason(why), "now": now},
    )


# By the unique keys; a provider's name has no slash.
_PAYMENTS_NAMED: Final = """
    SELECT id, provider || '/' || provider_payment_id AS name FROM payment
    WHERE (provider, provider_payment_id) IN (
        SELECT split_part(given, '/', 1), substr(given, strpos(given, '/') + 1)
        FROM unnest(CAST(:given AS text[])) AS given
    )
"""
_RECORDS_NAMED: Final = (
    "SELECT id, record_id AS name FROM institution_record WHERE record_id = ANY(:given)"
)


def _keys(session: Session, what: str, query: str, given: Sequence[str]) -> list[int]:
    """Return the keys of rows by the names that people use, in the order given."""
    if len(set(given)) < len(given):
        raise Unusable(f"A {what} is named twice.")
    found = {row.name: row.id for row in execute(session, query, {"given": list(given)})}
    for each in given:
        if each not in found:
            raise Unusable(f"There is no {what} {each}.")
    return [found[each] for each in given]


def _payments(session: Session, given: Sequence[str]) -> list[Any]:
    keys = _keys(session, "payment", _PAYMENTS_NAMED, given)
    rows = execute(
        session,
        "SELECT id, status, amount_minor - returned_minor AS worth FROM payment"
        " WHERE id = ANY(:keys) AND status = 'booked' AND returned_minor < amount_minor"
        " ORDER BY id",
        {"keys": keys},
    ).all()
    if len(rows) < len(keys):
        raise Unusable("One of the payments is not booked, or was given back.")
    return list(rows)


def _records(session: Session, given: Sequence[str]) -> list[Any]:
    keys = _keys(session, "record", _RECORDS_NAMED, given)
    rows = execute(
        session,
        "SELECT id, amount_minor FROM institution_record record WHERE id = ANY(:keys)"
        " AND amount_minor > 0 AND NOT EXISTS ("
        "SELECT FROM institution_record n WHERE n.reverses_id = record.id) ORDER BY id",
        {"keys": keys},
    ).all()
    if len(rows) < len(keys):
        raise Unusable("One of the records was taken back, or takes another back.")
    return list(rows)
