"""Issue what is due, once, in bulk: amounts are decided here, rows are streamed to the database.

An order is a run, cut into spans of people. The command and the workers claim spans, each in a
transaction of its own that writes the invoices and says that the span is done: whoever is killed
leaves nothing half done, and whoever comes next goes on. That nobody has two invoices of a period
is the unique key's to judge; who is billed already is left out before.

Most people are one category for the whole quarter, and cost nothing but their row. Who did several
things in it, or has several files, is assessed one by one (gateway.dues.assessment).

Who cannot be priced (a base is missing or outside every band, a category is gone from the tariff)
is left out and named; all others are billed. Nothing is kept about that: whoever asks is told of
those who lack it now, and the next order tries them again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import starmap
from threading import Event
from typing import Final

import structlog
from psycopg.errors import DeadlockDetected, UniqueViolation
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import Session

from gateway.billing.invoice_rows import COPY_EVENTS, COPY_INVOICES, COPY_LINES, Billed, Rows, Terms
from gateway.billing.invoice_seals import Sealer, sealer_of
from gateway.billing.orders import IssueResult, Order, order_issue, progress_of, refuse_far
from gateway.billing.owed import NAMED_MAX, LeftOut, Owed, find_left_out, find_owed
from gateway.billing.rules import keep_rules, why_of
from gateway.billing.scope import BILLED, Scope, overlapping, take_turns
from gateway.books.seals import BooksKey
from gateway.collection.placing import carry_credit
from gateway.db import copy_blocks, execute, transaction
from gateway.dues.assessment import (
    Assessed,
)
from gateway.dues.periods import Period, parse_period
from gateway.dues.tariff import Tariff
from gateway.errors import Unusable
from gateway.events import Happening, take_the_end_of_the_feed
from gateway.references import format_reference, nth_references

WORKERS: Final = 2
"""Spans that the command has in work at once: one is decided and packed while the other is
written."""

TRIES_MAX: Final = 5


Progress = Callable[[int, int], None]

log = structlog.get_logger(__name__)


# -- the order ------------------------------------------------------------------------------------


# -- whom it is about -----------------------------------------------------------------------------


# -- the work -------------------------------------------------------------------------------------


def issue_invoices(
    tariff: Tariff,
    period: Period,
    *,
    category: str | None,
    key: BooksKey,
    clock: Callable[[], datetime],
    progress: Progress = lambda _done, _of: None,
    workers: int = WORKERS,
) -> IssueResult:
    """Issue the period's invoices of one category, or of all that are owed by such periods.

    Opens a transaction per span of people. Killed between or inside spans and run again, it issues
    what is missing and nothing twice. Several may run at once, and workers beside them: they share
    the spans, and each returns what was issued since it joined. A period is owed from the one that
    contains `registered_on` to the one that contains `left_on`. Nobody is billed twice for a day:
    who changed from months to quarters, or back, is left out while an invoice of the other kind
    that holds days of the period stands.

    Args:
        tariff: The one in force.
        period: What is to be issued.
        category: Only this one; None for all.
        key: The books' key: it seals each invoice, and signs what is paid out of credit.
        clock: The business clock.
        progress: Told after each span of how many, of how many that may owe; by any thread.
        workers: How many spans are in work at once.

    Raises:
        Unusable: The tariff has no such category, the period is not of its kind, it lies more
            than a year ahead, or invoices are sealed with another key.
    """
    issuer = Issuer(tariff, key, clock)
    issued, total_minor, joined = 0, 0, True
    # Of an order that is joined, spans were done on what was known then: it is followed by another,
    # which bills who was enrolled late, or could not be priced before.
    while joined:
        with transaction() as session:
            sealer_of(session, key)
            order = order_issue(session, tariff, period, category=category, now=clock())
        work_off(order, issuer, progress=progress, workers=workers)
        with transaction() as session:
            finish(session, order.run_id, now=clock())
            done, _, _ = progress_of(session, order.run_id)
        already = done.already + order.before.issued - issued
        issued += done.issued - order.before.issued
        total_minor += done.total_minor - order.before.total_minor
        joined = order.joined
    with transaction() as session:
        count, first = find_left_out(session, tariff, period, category=category)
    return IssueResult(issued, already, total_minor, count, first)


def work_off(order: Order, issuer: Issuer, *, progress: Progress, workers: int) -> None:
    """Return when all spans of an order are done, by these threads or by others.

    Opens a transaction per span. What one thread raises ends the others after their span.
    """
    stop = Event()

    def work() -> None:
        while not stop.is_set():
            ran = issuer.run_next(order.run_id, wait=True)
            if ran is None:
                return
            progress(ran.done, order.owing)

    with ThreadPoolExecutor(workers) as pool:
        try:
            for each in [pool.submit(work) for _ in range(workers)]:
                each.result()
        finally:
            stop.set()


def issue_some(
    tariff: Tariff, *, key: BooksKey, clock: Callable[[], datetime], seconds: float
) -> int:
    """Do spans of open runs for some seconds; return how many. For workers: any number at once.

    Opens a transaction per span. Who is left out of one is logged.

    Raises:
        Unusable: Invoices are sealed with another key.
    """
    open_runs = "SELECT id FROM issue_run WHERE finished_at IS NULL ORDER BY id"
    with transaction() as session:
        runs = execute(session, open_runs).scalars().all()
        if runs:
            sealer_of(session, key)
    issuer, until, count = Issuer(tariff, key, clock), time.monotonic() + seconds, 0
    while runs and time.monotonic() < until and (ran := issuer.run_next()) is not None:
        count += 1
        if ran.left_out:
            log.warning(
                "not_billed",
                run=ran.run_id,
                people=len(ran.left_out),
                first=[each.contributor_id for each in ran.left_out[:NAMED_MAX]],
                reason=ran.left_out[0].reason,
            )
    for run_id in runs:
        with transaction() as session:
            finish(session, run_id, now=clock())
    return count


def finish(session: Session, run_id: int, *, now: datetime) -> None:
    """Say that a run is finished, if all its spans are done. The caller owns the transaction."""
    # Locked first: whoever joins the run adds spans under this lock, and the next statement sees.
    execute(session, "SELECT FROM issue_run WHERE id = :id FOR UPDATE", {"id": run_id})
    execute(
        session,
        "UPDATE issue_run SET finished_at = :now WHERE id = :id AND finished_at IS NULL AND NOT"
        " EXISTS (SELECT FROM issue_chunk WHERE run_id = :id AND done_at IS NULL)",
        {"id": run_id, "now": now},
    )


@dataclass(frozen=True, slots=True)
class Ran:
    """A span that was done."""

    run_id: int
    issued: int
    done: int
    """People of the run who were found billed, or were billed, so far."""
    left_out: tuple[LeftOut, ...]
    """Those of the span who cannot be priced."""


class Issuer:
    """Does spans of ordered runs, one in a transaction. Threads may share one."""

    def __init__(
        self,
        tariff: Tariff,
        key: BooksKey,
        clock: Callable[[], datetime],
        *,
        sealed: bool = True,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            tariff: The one in force.
            key: The books' key.
            clock: The business clock.
            sealed: False only to measure what seals cost.
        """
        self._tariff = tariff
        self._key = key
        self._clock = clock
        self._sealed = sealed
        self._sealer: Sealer | None = None

    def run_next(self, run_id: int | None = None, *, wait: bool = False) -> Ran | None:
        """Do the next span of a run, or of any; None if all are done or in others' hands.

        Opens a transaction, and another where the span's people were billed meanwhile by somebody
        else.

        Args:
            run_id: The run; None for any that is open.
            wait: Wait for a span that another has in hand, and do it if they did not.
        """
        for tries_left in reversed(range(TRIES_MAX)):
            try:
                with transaction() as session:
                    claimed = _claim(session, run_id, skip=True)
                    if claimed is None and wait:
                        claimed = _claim(session, run_id, skip=False)
                    return None if claimed is None else self._run(session, claimed)
            except DBAPIError as error:
                # Somebody else billed one of these people in the same moment: who is left is
                # found anew.
                met = isinstance(error.orig, (UniqueViolation, DeadlockDetected))
                if not tries_left or not met:
                    raise
        raise AssertionError

    def _run(self, session: Session, claimed: _Claimed) -> Ran:
        now = self._clock()
        period = parse_period(claimed.period)
        take_turns(session, period)
        scope = Scope.of(session, self._tariff, period, claimed.category)
        owed = find_owed(session, self._tariff, scope, claimed.first_id, claimed.last_id)
        if owed.people:
            if self._sealed and self._sealer is None:
                self._sealer = sealer_of(session, self._key)
            rows = Rows(*_bill(session, self._tariff, scope.period, owed, now), self._sealer)
            _write(session, rows)
            carry(session, [person for person, _ in owed.people], key=self._key, now=now)
            _tell(session, rows)
        done = execute(
            session,
            "WITH ran AS (UPDATE issue_chunk SET done_at = :now, issued = :issued,"
            " already = :already, total_minor = :total"
            " WHERE run_id = :run AND position = :position)"
            " SELECT coalesce(sum(issued + already), 0) FROM issue_chunk WHERE run_id = :run",
            {
                "now": now,
                "issued": len(owed.people),
                "already": owed.already,
                "total": sum(owed.lines[place][1].amount_minor for _, place in owed.people),
                "run": claimed.run_id,
                "position": claimed.position,
            },
        ).scalar_one()
        finished = done + len(owed.people) + owed.already
        return Ran(claimed.run_id, len(owed.people), finished, tuple(owed.left_out))


@dataclass(frozen=True, slots=True)
class _Claimed:
    run_id: int
    position: int
    first_id: int
    last_id: int
    period: str
    category: str | None


def _claim(session: Session, run_id: int | None, *, skip: bool) -> _Claimed | None:
    """Lock the first span that is not done, of a run or of any."""
    row = execute(
        session,
        "SELECT c.run_id, c.position, c.first_id, c.last_id, r.period, r.category_code"
        " FROM issue_chunk c JOIN issue_run r ON r.id = c.run_id"
        " WHERE c.done_at IS NULL AND c.run_id = coalesce(:run_id, c.run_id)"
        f" ORDER BY c.run_id, c.position LIMIT 1 FOR UPDATE OF c {'SKIP LOCKED' if skip else ''}",
        {"run_id": run_id},
    ).one_or_none()
    return None if row is None else _Claimed(*row)


# -- who owes what --------------------------------------------------------------------------------


# -- what is written ------------------------------------------------------------------------------


def issue_one(
    session: Session,
    tariff: Tariff,
    period: Period,
    contributor_id: int,
    assessed: Assessed,
    *,
    key: BooksKey,
    now: datetime,
) -> Happening | None:
    """Write one person's invoice of a period unless there is one; None if there is.

    The caller owns the transaction, has asked what is owed (`assess_person`), carries credit to
    what was issued (`carry`, or gateway.collection.placing), and tells the event that is
    returned, last.
    Nothing is issued over a cancelled invoice.

    Raises:
        Unusable: The period lies more than a year ahead, days of it are billed already, or
            invoices are sealed with another key.
    """
    refuse_far(period, now)
    sealer = sealer_of(session, key)
    take_turns(session, period)
    billing = [period.code, *overlapping(period)]
    other = execute(
        session,
        "SELECT period, reference FROM invoice WHERE contributor_id IN ("
        f"SELECT id FROM contributor WHERE id = :id OR merged_into_id = :id) AND {BILLED}"
        " ORDER BY period = :period DESC, due_on LIMIT 1",
        {"id": contributor_id, "billing": billing, "period": period.code},
    ).one_or_none()
    if other is not None and other.period == period.code:
        return None
    if other is not None:
        raise Unusable(
            f"Days of {period.code} are billed already by the invoice of {other.period}"
            f" ({format_reference(other.reference)}): nobody is billed twice for a day."
        )
    owed = Owed()
    owed.people.append((contributor_id, owed.place(assessed.category, assessed.line)))
    try:
        with session.begin_nested():
            billed, terms = _bill(session, tariff, period, owed, now)
            rows = Rows(list(billed), terms, sealer)
            _write(session, rows)
            return rows.happenings()[0]
    except IntegrityError as error:
        if not isinstance(error.orig, UniqueViolation):
            raise
        return None


def _bill(
    session: Session, tariff: Tariff, period: Period, owed: Owed, now: datetime
) -> tuple[Iterator[Billed], list[Terms]]:
    """Return the invoices of those who owe, drawn as they are taken, and the terms they are on."""
    rules = keep_rules(session, [line for _, line in owed.lines])
    terms = [
        Terms(
            category=category,
            period=period.code,
            due_on=tariff.due_on(category, period),
            amount_minor=line.amount_minor,
            rule_id=rules[why_of(line)],
            tariff=tariff.version,
            issued_at=now,
        )
        for category, line in owed.lines
    ]
    ids, references = _draw(session, len(owed.people))
    people = (person for person, _ in owed.people)
    places = (place for _, place in owed.people)
    return starmap(Billed, zip(ids, references, people, places, strict=True)), terms


def _write(session: Session, rows: Rows) -> None:
    """Write the invoices and their lines; the events are packed, to be written last."""
    copy_blocks(session, COPY_INVOICES, rows.invoices())
    copy_blocks(session, COPY_LINES, rows.lines)


def _tell(session: Session, rows: Rows) -> None:
    """Append the events to the feed, as gateway.events.tell would."""
    take_the_end_of_the_feed(session)
    copy_blocks(session, COPY_EVENTS, rows.events)


def _draw(session: Session, how_many: int) -> tuple[list[int], Iterator[bytes]]:
    """Draw so many ids and references. What a failed transaction drew is not drawn again."""
    key, ids, numbers = execute(
        session,
        "SELECT (SELECT key FROM reference_key), array_agg(nextval(ids)),"
        " array_agg(nextval('invoice_number')) FROM generate_series(1, :many),"
        " CAST(pg_get_serial_sequence('invoice', 'id') AS regclass) AS ids",
        {"many": how_many},
    ).one()
    return ids, nth_references(numbers, bytes(key))


def carry(session: Session, people: Sequence[int], *, key: BooksKey, now: datetime) -> None:
    """Pay what was issued to these people out of the credit of those who have some.

    The caller owns the transaction.
    """
    credited = execute(
        session,
        """
        WITH file (id, person) AS (
            SELECT id, id FROM unnest(CAST(:people AS bigint[])) AS p (id)
            UNION ALL
            SELECT id, merged_into_id FROM contributor WHERE merged_into_id = ANY(:people)
        )
        SELECT DISTINCT person FROM file JOIN ledger_account a ON a.code = 'credit:' || file.id
        WHERE (SELECT coalesce(sum(amount_minor), 0) FROM ledger_transfer
                WHERE credit_account_id = a.id)
            > (SELECT coalesce(sum(amount_minor), 0) FROM ledger_transfer
                WHERE debit_account_id = a.id)
        ORDER BY person
        """,
        {"people": list(people)},
    ).scalars()
    found = list(credited)
    if found:
        carry_credit(session, found, key=key, now=now)
