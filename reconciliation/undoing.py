"""What no longer stands of what earlier runs matched: moved away, with the reason, to be matched
again by the run that finds it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final

from sqlmodel import Session

from gateway.db import execute
from reconciliation.keeping import undo
from reconciliation.matching import Rule, Terms
from reconciliation.reading import read_text
from reconciliation.rivals import find_rivalled, find_shared_anew
from reconciliation.scope import PAYMENT_IN_SCOPE, RECORD_IN_SCOPE, RECORD_STANDS, Scope
from reconciliation.taken_back import Record, take_back

_UNSURE: Final = tuple(
    rule.value
    for rule in (
        Rule.REPAIRED_REFERENCE,
        Rule.PART_OF_REFERENCE,
        Rule.SEVERAL_DUES,
        Rule.IDENTITY,
        Rule.IDENTITY_SLIP,
        Rule.INSTALMENTS_BY_IDENTITY,
    )
)
"""Rules that match a row with one whose reference is another, or none."""


def undo_what_changed(session: Session, scope: Scope, terms: Terms, now: datetime) -> int:
    """Undo what no longer stands; return how many lines those were.

    What is undone sets rows free, which may be rivals of others: whoever asks again until nothing
    is undone has the same end, in whatever order files were imported and runs were made. The
    caller owns the transaction and holds the lock on records.
    """
    undone = _undo_reversed_payments(session, scope, now) + _take_back_records(session, scope, now)
    is_unsure = _find_unsure(session, scope)
    if is_unsure:
        undone += _undo_what_is_surer_now(session, now)
    undone += undo(
        session,
        find_shared_anew(session, scope),
        "another payment or record of its reference has come since",
        now,
    )
    if is_unsure:
        undone += undo(
            session,
            find_rivalled(session, scope, terms),
            "what it may be mistaken for has come since",
            now,
        )
    return undone


# -- what is unsure -------------------------------------------------------------------------------


def _find_unsure(session: Session, scope: Scope) -> bool:
    """Have the lines that were matched without the row's own reference in a table of the
    transaction's own, `unsure`; say if there are any."""
    execute(
        session,
        f"""
        CREATE TEMPORARY TABLE unsure ON COMMIT DROP AS
        SELECT m.payment_id, m.record_id, m.run_id, m.rule, {RECORD_IN_SCOPE} AS is_in_scope
        FROM match_line m JOIN payment ON payment.id = m.payment_id
        JOIN institution_record record ON record.id = m.record_id
        WHERE m.decided_by IS NULL AND m.rule = ANY(:rules) AND {PAYMENT_IN_SCOPE}
        """,
        {**scope.parameters, "rules": list(_UNSURE)},
    )
    return bool(execute(session, "SELECT EXISTS (SELECT FROM unsure)").scalar_one())


def _undo_what_is_surer_now(session: Session, now: datetime) -> int:
    """Undo what was matched without the row's own reference, where that has come since."""
    payments = execute(
        session,
        f"""
        SELECT DISTINCT unsure.payment_id FROM unsure
        JOIN payment ON payment.id = unsure.payment_id
        JOIN institution_record own ON own.id = unsure.record_id
        WHERE EXISTS (
            SELECT FROM invoice i JOIN institution_record record ON record.reference = i.reference
            WHERE i.id = payment.invoice_id AND record.amount_minor > 0 AND {RECORD_STANDS}
                AND NOT EXISTS (SELECT FROM match_line m WHERE m.record_id = record.id)
        ) OR EXISTS (
            SELECT FROM invoice i JOIN payment other ON other.invoice_id = i.id
            WHERE i.reference = own.reference AND other.status = 'booked'
                AND other.returned_minor < other.amount_minor
                AND NOT EXISTS (SELECT FROM match_line m WHERE m.payment_id = other.id)
        )
        """,
    )
    return undo(session, payments.scalars().all(), "its own reference has come since", now)


# -- what was given back, or taken back -----------------------------------------------------------


def _undo_reversed_payments(session: Session, scope: Scope, now: datetime) -> int:
    payments = execute(
        session,
        f"""
        -- Of millions of lines those are found by the few payments of which some was given back.
        WITH touched AS MATERIALIZED (
            SELECT id FROM payment WHERE status = 'reversed' OR returned_minor > 0
            UNION
            SELECT p.id FROM payment_return r JOIN payment p USING (provider, provider_payment_id)
        )
        SELECT DISTINCT m.payment_id FROM touched JOIN match_line m ON m.payment_id = touched.id
        JOIN payment ON payment.id = m.payment_id
        WHERE m.decided_by IS NULL AND {PAYMENT_IN_SCOPE} AND (payment.status <> 'booked'
            OR m.amount_minor <> payment.amount_minor - payment.returned_minor)
        """,
        scope.parameters,
    )
    return undo(
        session,
        payments.scalars().all(),
        "its payment was reversed, or given back in part",
        now,
    )


def _take_back_records(session: Session, scope: Scope, now: datetime) -> int:
    """Let the new negative records take back what they reverse, matched or not, of any period."""
    negatives = _readable(session, scope, "record.amount_minor < 0", {})
    if not negatives:
        return 0
    references = {record.reference for record in negatives.values()}
    standing = _readable(
        session,
        Scope(),
        "record.amount_minor = ANY(:amounts)"
        " AND (record.reference = ANY(:references) OR record.reference IS NULL)",
        {
            "amounts": list({-record.amount_minor for record in negatives.values()}),
            "references": list(references),
        },
    )
    ids = {record.record_id: n for n, record in (negatives | standing).items()}
    pairs = take_back(
        [*negatives.values(), *(r for r in standing.values() if r.reference in references)]
    )
    if not pairs:
        return 0
    taken = [ids[pair.record.record_id] for pair in pairs]
    execute(
        session,
        "UPDATE institution_record record SET reverses_id = pair.taken"
        " FROM unnest(CAST(:negatives AS bigint[]), CAST(:taken AS bigint[]))"
        " AS pair (negative, taken) WHERE record.id = pair.negative",
        {"negatives": [ids[pair.negative.record_id] for pair in pairs], "taken": taken},
    )
    payments = execute(
        session,
        "SELECT DISTINCT payment_id FROM match_line"
        " WHERE record_id = ANY(:taken) AND decided_by IS NULL",
        {"taken": taken},
    )
    return undo(
        session, payments.scalars().all(), "its record was taken back by a negative one", now
    )


def _readable(
    session: Session, scope: Scope, where: str, parameters: dict[str, Any]
) -> dict[int, Record]:
    """Return the records that stand and in which one reference can be read, by their ids."""
    rows: Sequence[tuple[int, str, str | None, str, int, date, str | None]] = execute(
        session,
        f"""
        SELECT record.id, record_id, reference, reference_given, amount_minor, posted_on,
            provider_reference
        FROM institution_record record
        WHERE {where} AND reverses_id IS NULL AND {RECORD_STANDS} AND {RECORD_IN_SCOPE}
        """,
        {**scope.parameters, **parameters},
    ).all()
    found: dict[int, Record] = {}
    for n, record_id, reference, given, amount_minor, posted_on, provider_reference in rows:
        read = reference or _read(given)
        if read is not None:
            found[n] = Record(record_id, read, amount_minor, posted_on, provider_reference)
    return found


def _read(text: str) -> str | None:
    k = read_text(text).k
    return None if k is None else str(k)
