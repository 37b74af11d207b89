"""One run: compare what is open on both sides, keep what belongs together, ask about the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Session

from gateway.clock import day_of
from gateway.db import copy_rows, execute, transaction
from gateway.dues.periods import parse_period
from gateway.events import Happening, tell
from gateway.exception_queue import Finding, open_exceptions, resolve_exceptions
from gateway.models import EventType, ExceptionCode
from gateway.money import format_amount
from reconciliation.by_reference import (
    Group,
    Matching,
    Open,
    OpenCode,
    Payment,
    Record,
    collector_paused,
    match,
)
from reconciliation.models import ReconciliationRun
from reconciliation.records import lock_records
from reconciliation.taken_back import take_back

ROWS_AT_ONCE: Final = 10_000

# What a run looks at. Money in suspense is not here: it has an exception of its own, and is not
# the institution's before a person says whose it is.
# A payment quoted an invoice or a bundle. Which records of a bundle are its, nobody guesses.
_PAYMENTS = (
    "payment LEFT JOIN invoice ON invoice.id = payment.invoice_id"
    " LEFT JOIN bundle ON bundle.id = payment.bundle_id"
)
_IN_SCOPE = (
    "coalesce(payment.invoice_id, payment.bundle_id) IS NOT NULL"
    " AND (CAST(:period AS text) IS NULL OR invoice.period = :period"
    " OR EXISTS (SELECT FROM bundle_item JOIN invoice i ON i.id = bundle_item.invoice_id"
    " WHERE bundle_item.bundle_id = payment.bundle_id AND i.period = :period))"
)
# A record that states no period is of its invoice's, where its reference is one.
_RECORDS = (
    "(CAST(:period AS text) IS NULL OR coalesce(record.period, (SELECT i.period FROM invoice i"
    " WHERE i.reference = record.reference)) = :period)"
)
_STANDING = "NOT EXISTS (SELECT FROM institution_record n WHERE n.reverses_id = record.id)"


@dataclass(frozen=True, slots=True)
class Sums:
    """Centimes, of what was open when the run began, and of what became of it."""

    payments: int
    records: int
    matched: int
    """The payments' side of the groups that this run made."""
    payments_open: int
    records_open: int

    def as_json(self) -> dict[str, str]:
        return {
            "payments": format_amount(self.payments),
            "records": format_amount(self.records),
            "matched": format_amount(self.matched),
            "payments_open": format_amount(self.payments_open),
            "records_open": format_amount(self.records_open),
            "difference": format_amount(self.payments - self.records),
        }


@dataclass(frozen=True, slots=True)
class RunResult:
    """What one run found."""

    run: int
    matched: int
    """Payments that this run matched."""
    exceptions: dict[str, int]
    """Open after this run and within its scope, by code."""
    sums: Sums

    @property
    def open(self) -> int:
        return sum(self.exceptions.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "matched": self.matched,
            "open": self.open,
            "exceptions": self.exceptions,
            "sums": self.sums.as_json(),
        }


def reconcile(
    *, period: str | None, now: datetime, progress: Callable[[int], None] = lambda _: None
) -> RunResult:
    """Match the booked payments and the institution's records that nothing claims yet.

    Opens one transaction; a second run, or an import, waits for its end. What an earlier run
    matched is undone where the payment was reversed or the record taken back since. Of the
    exceptions that earlier runs opened, those that this one does not find again are resolved. The
    same again matches nothing and opens nothing.

    Args:
        period: Only payments of invoices of this period and records of this period (a record that
            states none is of its invoice's); None for all.
        now: The business clock.
        progress: Told how many payments and records have been read so far.

    Raises:
        Unusable: The period is none.
    """
    scope = {"period": None if period is None else parse_period(period).code}
    with transaction() as session:
        lock_records(session)
        _undo_reversed_payments(session, scope, now)
        _take_back_records(session, scope, now)
        with collector_paused():
            payments, payment_keys = _open_payments(session, scope, progress)
            records, record_keys = _open_records(session, scope, progress, read=len(payments))
            matching = match(payments, records)
        assert not matching.taken_back, "taken back in the store before"
        run = ReconciliationRun(period=scope["period"], started_at=now, summary={})
        session.add(run)
        session.flush()
        assert run.id is not None
        _keep(session, run.id, matching.groups, payment_keys, record_keys)
        opened, resolved = _ask(session, run.id, matching.open, payment_keys, scope, now)
        result = RunResult(
            run=run.id,
            matched=sum(len(group.payments) for group in matching.groups),
            exceptions=dict(sorted(Counter(found.code.value for found in matching.open).items())),
            sums=_sums(payments, records, matching),
        )
        run.summary = result.as_json()
        # Only how many: a run may open a million, and all booking would wait for the feed.
        counted = {**result.as_json(), "opened": opened, "resolved": resolved}
        tell(session, [Happening(EventType.RECONCILIATION_FINISHED, counted)], now=now)
    return result


# -- what earlier runs matched and no longer stands -----------------------------------------------


def _undo_reversed_payments(session: Session, scope: dict[str, str | None], now: datetime) -> None:
    groups = execute(
        session,
        f"""
        SELECT DISTINCT matched.group_id
        FROM matched_payment matched, {_PAYMENTS}
        WHERE payment.id = matched.payment_id AND (payment.status <> 'booked'
                OR matched.amount_minor <> payment.amount_minor - payment.returned_minor)
            AND {_IN_SCOPE}
        """,
        scope,
    )
    _undo(session, groups.scalars().all(), "its payment was reversed, or given back in part", now)


def _take_back_records(session: Session, scope: dict[str, str | None], now: datetime) -> None:
    """Let the new negative records take back what they reverse, matched or not, of any period."""
    columns = "record.id, record_id, reference, amount_minor, posted_on, provider_reference"
    rows = execute(
        session,
        f"""
        WITH negative AS MATERIALIZED (
            SELECT {columns} FROM institution_record record
            WHERE amount_minor < 0 AND reverses_id IS NULL AND reference IS NOT NULL AND {_RECORDS}
        )
        SELECT * FROM negative
        UNION ALL
        SELECT {columns} FROM institution_record record
        WHERE (reference, amount_minor) IN (SELECT reference, -amount_minor FROM negative)
            AND {_STANDING}
        """,
        scope,
    )
    ids: dict[str, int] = {}
    records: list[Record] = []
    for id_, record_id, reference, amount_minor, posted_on, provider_reference in rows:
        ids[record_id] = id_
        records.append(
            Record(
                record_id,
                reference,
                amount_minor,
                posted_on,
                provider_reference=provider_reference,
            )
        )
    pairs = take_back(records)
    taken = [ids[pair.record.record_id] for pair in pairs]
    negatives = [ids[pair.negative.record_id] for pair in pairs]
    execute(
        session,
        "UPDATE institution_record record SET reverses_id = pair.taken"
        " FROM unnest(CAST(:negatives AS bigint[]), CAST(:taken AS bigint[]))"
        " AS pair (negative, taken) WHERE record.id = pair.negative",
        {"negatives": negatives, "taken": taken},
    )
    groups = execute(
        session,
        "SELECT DISTINCT group_id FROM matched_record WHERE record_id = ANY(:taken)",
        {"taken": taken},
    )
    _undo(session, groups.scalars().all(), "its record was taken back by a negative one", now)


def _undo(session: Session, groups: Sequence[int], because: str, now: datetime) -> None:
    for statement in (
        "DELETE FROM matched_payment WHERE group_id = ANY(:groups)",
        "DELETE FROM matched_record WHERE group_id = ANY(:groups)",
        "UPDATE match_group SET undone_at = :now, undone_because = :because"
        " WHERE id = ANY(:groups)",
    ):
        execute(session, statement, {"groups": list(groups), "because": because, "now": now})


# -- what is open ---------------------------------------------------------------------------------


def _open_payments(
    session: Session, scope: dict[str, str | None], progress: Callable[[int], None]
) -> tuple[list[Payment], dict[str, int]]:
    """Return the payments that no group claims, and their keys by their ids."""
    # Only what a rule asks for: names and personal numbers stay where they are.
    rows = _stream(
        session,
        f"""
        SELECT payment.id, provider || '/' || provider_payment_id,
            coalesce(invoice.reference, bundle.reference),
            payment.amount_minor - returned_minor, paid_at, provider_payment_id
        FROM {_PAYMENTS}
        WHERE payment.status = 'booked' AND returned_minor < payment.amount_minor AND {_IN_SCOPE}
            AND NOT EXISTS (SELECT FROM matched_payment m WHERE m.payment_id = payment.id)
        """,
        scope,
    )
    payments: list[Payment] = []
    keys: dict[str, int] = {}
    for some in rows:
        for key, payment_id, reference, amount_minor, paid_at, provider_reference in some:
            keys[payment_id] = key
            payments.append(
                Payment(
                    payment_id, reference, amount_minor, _same(day_of(paid_at)), provider_reference
                )
            )
        progress(len(payments))
    return payments, keys


def _open_records(
    session: Session, scope: dict[str, str | None], progress: Callable[[int], None], *, read: int
) -> tuple[list[Record], dict[str, int]]:
    """Return the records that no group claims and none takes back, and their keys by their ids."""
    rows = _stream(
        session,
        f"""
        SELECT record.id, record_id, reference, amount_minor, posted_on, provider_reference
        FROM institution_record record
        WHERE reverses_id IS NULL AND {_STANDING} AND {_RECORDS}
            AND NOT EXISTS (SELECT FROM matched_record m WHERE m.record_id = record.id)
        """,
        scope,
    )
    records: list[Record] = []
    keys: dict[str, int] = {}
    for some in rows:
        for key, record_id, reference, amount_minor, posted_on, provider_reference in some:
            keys[record_id] = key
            records.append(
                Record(
                    record_id,
                    reference,
                    amount_minor,
                    _same(posted_on),
                    provider_reference=provider_reference,
                )
            )
        progress(read + len(records))
    return records, keys


@lru_cache(maxsize=4096)
def _same(day: date) -> date:
    """Return one object for equal days: a million rows fall on a few."""
    return day


def _stream(
    session: Session, statement: str, scope: dict[str, str | None]
) -> Iterable[Sequence[Sequence[Any]]]:
    """Read by a server-side cursor, some rows at a time."""
    rows = session.connection().execute(
        sa.text(statement), scope, execution_options={"yield_per": ROWS_AT_ONCE}
    )
    return rows.partitions()


# -- what was found -------------------------------------------------------------------------------


def _keep(
    session: Session,
    run: int,
    groups: Sequence[Group],
    payment_keys: dict[str, int],
    record_keys: dict[str, int],
) -> None:
    """Store the groups. The database refuses a payment or a record that a group claims already."""
    if not groups:
        return
    # Keys for all at once: nobody else makes groups while we hold the lock.
    first: int = execute(
        session,
        "SELECT setval(keys, nextval(keys) + :count - 1) - :count + 1"
        " FROM CAST(pg_get_serial_sequence('match_group', 'id') AS regclass) AS keys",
        {"count": len(groups)},
    ).scalar_one()
    copy_rows(
        session,
        "COPY match_group (id, run_id, rule, score) FROM STDIN",
        ((key, run, group.rule, group.score) for key, group in enumerate(groups, first)),
    )
    # In the order of the tables that they point to: the checks then find their pages in memory.
    copy_rows(
        session,
        "COPY matched_payment (payment_id, group_id, amount_minor) FROM STDIN",
        sorted(
            (payment_keys[payment.payment_id], key, payment.amount_minor)
            for key, group in enumerate(groups, first)
            for payment in group.payments
        ),
    )
    copy_rows(
        session,
        "COPY matched_record (record_id, group_id) FROM STDIN",
        sorted(
            (record_keys[record.record_id], key)
            for key, group in enumerate(groups, first)
            for record in group.records
        ),
    )


def _ask(
    session: Session,
    run: int,
    found: Sequence[Open],
    payment_keys: dict[str, int],
    scope: dict[str, str | None],
    now: datetime,
) -> tuple[int, int]:
    """Open what is new, and resolve what earlier runs opened and this one does not find again.

    Return how many were opened and how many resolved.
    """
    by_subject = {(_exception_code(each), _subject(each)): each for each in found}
    gone: dict[ExceptionCode, list[str]] = {}
    for some in _open_exceptions_of_runs(session, scope):
        for code, subject, detail in some:
            again = by_subject.get((ExceptionCode(code), subject))
            # Found again in another way is another finding: the old detail would mislead.
            if again is None or again.detail != detail:
                gone.setdefault(ExceptionCode(code), []).append(subject)
    opened = resolved = 0
    for code, subjects in gone.items():
        because = f"run {run} does not find it again"
        resolved += len(resolve_exceptions(session, code, subjects, because=because, now=now))
    for start in range(0, len(found), ROWS_AT_ONCE):
        findings = [_finding(o, payment_keys) for o in found[start : start + ROWS_AT_ONCE]]
        opened += len(open_exceptions(session, findings, now=now))
    return opened, resolved


def _open_exceptions_of_runs(
    session: Session, scope: dict[str, str | None]
) -> Iterable[Sequence[Sequence[Any]]]:
    codes = ", ".join(f"'{code.value}'" for code in OpenCode)
    return _stream(
        session,
        f"""
        SELECT code, subject, detail FROM coded_exception asked
        WHERE resolved_at IS NULL AND code IN ({codes}) AND (
            CAST(:period AS text) IS NULL
            OR EXISTS (
                SELECT FROM {_PAYMENTS}
                WHERE payment.id = asked.payment_id AND {_IN_SCOPE}
            )
            OR EXISTS (
                SELECT FROM institution_record record
                WHERE asked.subject LIKE 'record:%' AND record.period = :period
                    AND record.record_id = substr(asked.subject, length('record:') + 1)
            )
            OR EXISTS (
                SELECT FROM invoice
                WHERE asked.subject LIKE 'invoice:%' AND invoice.period = :period
                    AND invoice.reference = substr(asked.subject, length('invoice:') + 1)
            )
        )
        """,
        scope,
    )


def _finding(found: Open, payment_keys: dict[str, int]) -> Finding:
    # Of several payments none is *the* payment.
    payment_id = payment_keys[found.payments[0].payment_id] if len(found.payments) == 1 else None
    return Finding(_exception_code(found), _subject(found), found.detail, payment_id)


def _exception_code(found: Open) -> ExceptionCode:
    return ExceptionCode(found.code.value)


def _subject(found: Open) -> str:
    match found.code:
        case OpenCode.AMBIGUOUS_MATCH:
            return f"invoice:{found.payments[0].reference}"
        case OpenCode.RECORD_WITHOUT_PAYMENT:
            return f"record:{found.records[0].record_id}"
        case OpenCode.PAYMENT_WITHOUT_RECORD | OpenCode.AMOUNT_DIFFERS:
            return f"payment:{found.payments[0].payment_id}"


def _sums(payments: Sequence[Payment], records: Sequence[Record], matching: Matching) -> Sums:
    open_payments = (p.amount_minor for found in matching.open for p in found.payments)
    open_records = (r.amount_minor for found in matching.open for r in found.records)
    return Sums(
        payments=sum(p.amount_minor for p in payments),
        records=sum(r.amount_minor for r in records),
        matched=sum(p.amount_minor for group in matching.groups for p in group.payments),
        payments_open=sum(open_payments),
        records_open=sum(open_records),
    )
