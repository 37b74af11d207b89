"""What is left open at the end of a run, as exceptions: one question each, asked once.

A rerun trusts no old failure: what it does not find again is closed, what it finds in another way
is asked anew. `paid_twice` is also what booking says of a payment: that is not asked again, nor
what a person has closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

import duckdb
import sqlalchemy as sa
from sqlmodel import Session

from gateway.db import execute
from gateway.exception_queue import Finding, open_exceptions, resolve_exceptions
from gateway.models import ExceptionCode
from gateway.money import format_amount
from reconciliation.duckfiles import without
from reconciliation.keeping import PARTED
from reconciliation.matching import OpenCode
from reconciliation.scope import PAYMENT_IN_SCOPE, RECORD_IN_SCOPE, Scope

ROWS_AT_ONCE: Final = 10_000
BY_RUN: Final = "found_by"
"""In the detail of what booking says by the same word, to tell the two apart."""

_DIFFERENT: Final = (OpenCode.AMOUNT_DIFFERS, OpenCode.AMBIGUOUS_MATCH)
_CODES: Final = tuple(code.value for code in OpenCode if code is not OpenCode.TAKEN_BACK)
_CLOSED_BY_RUN: Final = "run {run} does not find it again"


@dataclass(frozen=True, slots=True)
class Row:
    """An open payment or record."""

    n: int
    id: str
    k: int | None
    a: int
    d: date
    code: OpenCode
    candidates: tuple[int, ...]
    why: str | None


@dataclass(frozen=True, slots=True)
class Left:
    """What an engine left open, by `n`, in the order of the ids."""

    payments: dict[int, Row]
    records: dict[int, Row]


@dataclass(slots=True)
class Asked:
    """What asking came to."""

    exceptions: dict[str, int] = field(default_factory=dict)
    """Open afterwards, by code."""
    opened: int = 0
    resolved: int = 0


def read_left(con: duckdb.DuckDBPyConnection) -> Left:
    """Read the open rows out of an engine's tables."""
    return Left(_rows(con, "payment"), _rows(con, "record"))


def _rows(con: duckdb.DuckDBPyConnection, side: str) -> dict[int, Row]:
    found = con.execute(
        "SELECT o.n, row.id, row.k, row.a, row.d, o.code, o.candidates, o.why"
        f" FROM {side}_open o JOIN {side}_row AS row ON row.n = o.n ORDER BY row.id"
    ).fetchall()
    return {
        n: Row(n, id_, k, a, d, OpenCode(code), tuple(candidates or ()), why)
        for n, id_, k, a, d, code, candidates, why in found
    }


# -- the questions --------------------------------------------------------------------------------


def findings(left: Left) -> list[Finding]:
    """Return a finding for each question: about a reference, a payment, or a record. Pure."""
    found: list[Finding] = []
    together: dict[int, list[Row]] = {}
    answered: set[int] = set()
    for row in left.payments.values():
        if row.code in _DIFFERENT:
            answered.update(row.candidates)
        if row.code is OpenCode.AMBIGUOUS_MATCH and row.k is not None:
            together.setdefault(row.k, []).append(row)
        else:
            found.append(_of_payment(row, left))
    of_reference: dict[int, list[int]] = {}
    for row in left.records.values():
        if row.code is OpenCode.AMBIGUOUS_MATCH and row.k in together:
            of_reference.setdefault(row.k, []).append(row.n)
            answered.add(row.n)
    for k, rows in together.items():
        named = {n for row in rows for n in row.candidates}.union(of_reference.get(k, ()))
        found.append(_of_reference(k, rows, [left.records[n] for n in named if n in left.records]))
    found += [
        _of_record(row, left)
        for row in left.records.values()
        if row.code not in _DIFFERENT or row.n not in answered
    ]
    return found


def _of_payment(row: Row, left: Left) -> Finding:
    detail: dict[str, Any] = {} if row.k is None else {"reference": str(row.k)}
    candidates = [left.records[n] for n in row.candidates if n in left.records]
    records = [each.id for each in candidates]
    if row.code in _DIFFERENT:
        detail |= _compared([row.id], records, row.a, sum(each.a for each in candidates))
    else:
        detail |= {"amount": format_amount(row.a), "paid_on": row.d.isoformat()}
        if records:
            detail["perhaps"] = ", ".join(records)
    if row.code is OpenCode.PAID_TWICE:
        detail[BY_RUN] = "reconciliation"
    if row.why is not None:
        detail["why"] = row.why
    return Finding(ExceptionCode(row.code.value), f"payment:{row.id}", detail, row.n)


def _of_reference(k: int, payments: Sequence[Row], records: Sequence[Row]) -> Finding:
    ours, theirs = (sorted(rows, key=lambda row: (row.d, row.id)) for rows in (payments, records))
    detail = {
        "reference": str(k),
        **_compared(
            [row.id for row in ours],
            [row.id for row in theirs],
            sum(row.a for row in ours),
            sum(row.a for row in theirs),
        ),
    }
    # Of several payments none is *the* payment.
    payment_id = ours[0].n if len(ours) == 1 else None
    return Finding(ExceptionCode.AMBIGUOUS_MATCH, f"invoice:{k}", detail, payment_id)


def _of_record(row: Row, left: Left) -> Finding:
    detail: dict[str, Any] = {} if row.k is None else {"reference": str(row.k)}
    detail |= {"amount": format_amount(row.a), "posted_on": row.d.isoformat()}
    if row.code is OpenCode.RECORD_WITHOUT_PAYMENT:
        detail["why"] = _why_alone(row)
    else:
        ours = [left.payments[n].id for n in row.candidates if n in left.payments]
        detail["payments"] = ", ".join(ours)
    return Finding(ExceptionCode(row.code.value), f"record:{row.id}", detail)


def _compared(
    payments: Sequence[str], records: Sequence[str], paid: int, recorded: int
) -> dict[str, str]:
    return {
        "payments": ", ".join(payments),
        "records": ", ".join(records),
        "paid": format_amount(paid),
        "recorded": format_amount(recorded),
        "difference": format_amount(paid - recorded),
    }


def _why_alone(row: Row) -> str:
    if row.why == PARTED:
        return PARTED
    if row.k is None:
        return "its reference cannot be read"
    if row.a < 0:
        return "there is nothing that it could take back"
    return "no payment is left that has its reference"


# -- what a person joined and is so no more -------------------------------------------------------


def changed_since_joined(session: Session, scope: Scope) -> list[Finding]:
    """Return the groups that a person made and of which a payment or a record does not stand."""
    # They are few and looked up, whatever the server thinks of a table that was just filled.
    with without(session, "seqscan", "hashjoin", "mergejoin"):
        rows = execute(session, _CHANGED, scope.parameters).all()
    return [
        Finding(
            ExceptionCode.AMOUNT_DIFFERS,
            f"payment:{row.first}",
            {
                **_compared(row.payments, row.records, row.paid, row.recorded),
                "why": "a person joined them, and what they are has changed since",
            },
            row.group_id if len(row.payments) == 1 else None,
        )
        for row in rows
    ]


_CHANGED: Final = f"""
    WITH joined AS MATERIALIZED (
        SELECT * FROM match_line WHERE decided_by IS NOT NULL
    ), changed AS (
        SELECT DISTINCT m.group_id FROM joined m JOIN payment ON payment.id = m.payment_id
        JOIN institution_record r ON r.id = m.record_id
        -- Money in suspense too: no run matches that, but a person may.
        WHERE (CAST(:period AS text) IS NULL OR {PAYMENT_IN_SCOPE})
            AND (payment.status <> 'booked'
            OR m.amount_minor <> payment.amount_minor - payment.returned_minor
            OR EXISTS (SELECT FROM institution_record n WHERE n.reverses_id = r.id))
    )
    SELECT m.group_id, min(p.provider || '/' || p.provider_payment_id) FILTER (
            WHERE p.id = m.group_id) AS first,
        array_agg(DISTINCT p.provider || '/' || p.provider_payment_id) AS payments,
        array_agg(DISTINCT r.record_id) AS records,
        CAST(coalesce(sum(p.amount_minor - p.returned_minor)
            FILTER (WHERE payment_line = 0 AND p.status = 'booked'), 0) AS bigint) AS paid,
        CAST(coalesce(sum(r.amount_minor) FILTER (WHERE record_line = 0 AND NOT EXISTS (
            SELECT FROM institution_record n WHERE n.reverses_id = r.id)), 0) AS bigint)
            AS recorded
    FROM joined m JOIN changed USING (group_id) JOIN payment p ON p.id = m.payment_id
    JOIN institution_record r ON r.id = m.record_id GROUP BY m.group_id ORDER BY m.group_id
"""


# -- opening and closing --------------------------------------------------------------------------


def ask(session: Session, run: int, found: Sequence[Finding], scope: Scope, now: datetime) -> Asked:
    """Open what is new, and resolve what earlier runs opened and this one does not find again."""
    asked = Asked()
    decided = _decided_elsewhere(session, found)
    mine: dict[tuple[str, str], Finding] = {}
    for each in found:
        at = (each.code.value, each.subject)
        is_open_elsewhere = decided.get(each.subject)
        if each.code is not ExceptionCode.PAID_TWICE or is_open_elsewhere is None:
            mine.setdefault(at, each)
        if each.code is not ExceptionCode.PAID_TWICE or is_open_elsewhere is not False:
            asked.exceptions[at[0]] = asked.exceptions.get(at[0], 0) + 1
    asked.exceptions = dict(sorted(asked.exceptions.items()))
    gone: dict[str, list[str]] = {}
    for some in _open_of_runs(session, scope):
        for code, subject, detail in some:
            again = mine.get((code, subject))
            # Found again in another way is another finding: the old detail would mislead.
            if again is None or again.detail != detail:
                gone.setdefault(code, []).append(subject)
    because = _CLOSED_BY_RUN.format(run=run)
    for code, subjects in sorted(gone.items()):
        closed = resolve_exceptions(
            session, ExceptionCode(code), subjects, because=because, now=now
        )
        asked.resolved += len(closed)
    opening = list(mine.values())
    for start in range(0, len(opening), ROWS_AT_ONCE):
        some_found = opening[start : start + ROWS_AT_ONCE]
        asked.opened += len(open_exceptions(session, some_found, now=now))
    return asked


def _decided_elsewhere(session: Session, found: Sequence[Finding]) -> dict[str, bool]:
    """Return the subjects of which booking, or a person, has said `paid_twice`: is it open?"""
    twice = [each.subject for each in found if each.code is ExceptionCode.PAID_TWICE]
    if not twice:
        return {}
    rows = execute(
        session,
        f"""
        SELECT subject, bool_or(resolved_at IS NULL) AS is_open FROM coded_exception
        WHERE code = 'paid_twice' AND subject = ANY(:subjects) AND (
            NOT jsonb_exists(detail, '{BY_RUN}')
            OR resolution NOT LIKE '{_CLOSED_BY_RUN.format(run="%")}')
        GROUP BY subject
        """,
        {"subjects": twice},
    )
    return {row.subject: row.is_open for row in rows}


def _open_of_runs(session: Session, scope: Scope) -> Iterator[Iterable[Any]]:
    codes = ", ".join(f"'{code}'" for code in _CODES)
    rows = session.connection().execute(
        sa.text(
            f"""
            SELECT code, subject, detail FROM coded_exception asked
            WHERE resolved_at IS NULL AND code IN ({codes})
                AND NOT starts_with(subject, 'settlement:')
                AND (code <> 'paid_twice' OR jsonb_exists(detail, '{BY_RUN}'))
                AND (
                CAST(:period AS text) IS NULL
                OR EXISTS (
                    SELECT FROM payment WHERE payment.id = asked.payment_id AND {PAYMENT_IN_SCOPE}
                )
                OR EXISTS (
                    SELECT FROM institution_record record
                    WHERE asked.subject LIKE 'record:%' AND {RECORD_IN_SCOPE}
                        AND record.record_id = substr(asked.subject, length('record:') + 1)
                )
                OR EXISTS (
                    SELECT FROM invoice
                    WHERE asked.subject LIKE 'invoice:%' AND invoice.period = :period
                        AND invoice.reference = substr(asked.subject, length('invoice:') + 1)
                )
            )
            """
        ),
        {"period": scope.period},
        execution_options={"yield_per": ROWS_AT_ONCE},
    )
    yield from rows.partitions()
