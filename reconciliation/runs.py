"""Runs: compare what is open on both sides, keep what belongs together, ask about the rest.

A run is a row, and so is each of its shards. It is opened in one transaction, which undoes what no
longer stands; shards match what is certain by its reference, a transaction to each, by whoever
takes one; one last transaction undoes what changed meanwhile, matches all else, asks, and says that
the run is finished. Killed anywhere, a run is gone on with by the next command or by a worker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlmodel import Session

from gateway.db import execute, snapshot, transaction
from gateway.dues.periods import parse_period
from gateway.errors import Unusable
from gateway.events import Happening, tell
from gateway.models import EventType
from gateway.money import format_amount
from gateway.outbox import enqueue
from gateway.worker import RECONCILE
from reconciliation.asking import Asked, ask, changed_since_joined, findings
from reconciliation.comparing import compare
from reconciliation.keeping import added
from reconciliation.matching import Terms
from reconciliation.models import ReconciliationRun, ReconciliationShard
from reconciliation.records import lock_records, lock_records_now
from reconciliation.rivals import read_seen
from reconciliation.scope import Scope
from reconciliation.shards import run_shards
from reconciliation.sources.settling import SettlingResult, settle
from reconciliation.undoing import undo_what_changed

SHARDS_MAX: Final = 1_000

Progress = Callable[[int], None]


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
    *,
    period: str | None,
    now: datetime,
    progress: Progress = lambda _: None,
    shards: int = 1,
    tolerance_minor: int = 0,
) -> RunResult:
    """Match the booked payments and the institution's records that nothing claims yet.

    Opens transactions: one to begin, one a shard, one to finish; imports and other runs wait for
    each. A run that was cut short is finished first. What an earlier run matched is undone where
    the payment was reversed or the record taken back since, or where what was matched on less than
    the reference has got a rival; what a person joined is not, but asked about. Of the exceptions
    that earlier runs opened, those that this one does not find again are resolved. The same again
    matches nothing and opens nothing.

    Args:
        period: Only payments of invoices of this period and records of this period (a record that
            states none is of its invoice's); None for all.
        now: The business clock.
        progress: Told how many payments and records have been read so far.
        shards: In how many parts what is certain is matched, which workers share; the end is the
            same for any number.
        tolerance_minor: Centimes by which the two sides of a group may differ.

    Raises:
        Unusable: The period is none, or a number is out of bounds.
    """
    code = None if period is None else parse_period(period).code
    if not 1 <= shards <= SHARDS_MAX:
        raise Unusable(f"A run is done in 1 to {SHARDS_MAX} shards.")
    if tolerance_minor < 0:
        raise Unusable("The tolerance is an amount of zero or more.")
    while True:
        with transaction() as session:
            run, is_ours = _begin(session, code, shards, tolerance_minor, now)
        finish(run, now=now, progress=progress)
        if is_ours:
            with snapshot() as session:
                return read_result(session, run)


def finish(run: int, *, now: datetime, progress: Progress = lambda _: None) -> None:
    """Do what is left of a run, beside others who may be at it; return when it is finished.

    Opens a transaction for each shard that is free, and one for the rest.
    """
    run_shards(run, now=now, progress=progress)
    while True:
        with transaction() as session:
            lock_records(session)
            if _finish(session, run, now, progress):
                return


def go_on(now: datetime) -> int | None:
    """Do what is free of the run that is not finished, if there is one; return its id.

    For workers: opens transactions as `finish` does, and waits for nobody who is at it.
    """
    with snapshot() as session:
        run: int | None = execute(
            session, "SELECT id FROM reconciliation_run WHERE finished_at IS NULL"
        ).scalar_one_or_none()
    if run is not None and run_shards(run, now=now, progress=lambda _: None, wait=False):
        while True:
            with transaction() as session:
                if not lock_records_now(session) or _finish(session, run, now, lambda _: None):
                    break
    return run


def read_result(session: Session, run: int) -> RunResult:
    """Return what a finished run found."""
    row = session.get_one(ReconciliationRun, run)
    by_rule, by_code = row.outcomes["rules"], row.outcomes["open"]
    return RunResult(
        run, row.summary["matched"], row.summary["exceptions"], _sums(by_rule, by_code)
    )


# -- the beginning --------------------------------------------------------------------------------


def _begin(
    session: Session, period: str | None, shards: int, tolerance_minor: int, now: datetime
) -> tuple[int, bool]:
    """Open a run, or return the one that is not finished; and whether it was opened here."""
    lock_records(session)
    unfinished: int | None = execute(
        session, "SELECT id FROM reconciliation_run WHERE finished_at IS NULL"
    ).scalar_one_or_none()
    if unfinished is not None:
        return unfinished, False
    undo_what_changed(session, Scope(period), Terms(tolerance_minor), now)
    run = ReconciliationRun(
        period=period, tolerance_minor=tolerance_minor, started_at=now, summary={}
    )
    session.add(run)
    session.flush()
    assert run.id is not None
    if shards > 1:
        session.add_all(
            ReconciliationShard(run_id=run.id, shard=shard, shards=shards)
            for shard in range(shards)
        )
        # Workers share them: they hear of it when the outbox is looked into, not at the next bell.
        enqueue(session, RECONCILE, now=now)
    return run.id, True


# -- the end --------------------------------------------------------------------------------------


def _finish(session: Session, run_id: int, now: datetime, progress: Progress) -> bool:
    """Match what the shards left, ask, and say that the run is finished, unless others did.

    Say whether it is: not where something had to be undone before, which is to be committed first,
    since payments are read on another connection.
    """
    run = session.get_one(ReconciliationRun, run_id, with_for_update=True)
    if run.finished_at is not None:
        return True
    shards = execute(
        session,
        "SELECT outcomes, done_at FROM reconciliation_shard WHERE run_id = :run ORDER BY shard",
        {"run": run_id},
    ).all()
    assert all(shard.done_at is not None for shard in shards), "a shard is not done"
    scope, terms = Scope(run.period), Terms(run.tolerance_minor)
    # Imports, reversals and people come between the beginning, the shards and this: days, maybe.
    if undo_what_changed(session, scope, terms, now):
        return False
    seen = read_seen(session)
    undone = _undone_of_shards(session, run_id) if shards else {}
    compared = compare(session, run_id, scope, terms, progress=progress)
    found = [*findings(compared.left), *changed_since_joined(session, scope)]
    asked = ask(session, run_id, found, scope, now)
    # What providers paid out is of days, not of periods.
    settled = settle(session, now=now) if scope.period is None else SettlingResult()
    by_rule = added(*(shard.outcomes for shard in shards), undone, compared.by_rule)
    result = RunResult(
        run=run_id,
        matched=sum(figures["payments"] for figures in by_rule.values()),
        exceptions=_together(asked, settled.exceptions),
        sums=_sums(by_rule, compared.by_code),
    )
    run.summary = result.as_json()
    run.outcomes = {"rules": by_rule, "open": compared.by_code, "seen": seen.as_json()}
    run.finished_at = now
    session.flush()
    # Only how many: a run may open a million, and all booking would wait for the feed.
    counted = {
        **result.as_json(),
        "opened": asked.opened + settled.opened,
        "resolved": asked.resolved + settled.resolved,
    }
    tell(session, [Happening(EventType.RECONCILIATION_FINISHED, counted)], now=now)
    return True


def _undone_of_shards(session: Session, run: int) -> dict[str, Any]:
    """Return what the run's shards matched and has been undone since, to be added: below zero."""
    rows = execute(
        session,
        "SELECT rule, -count(*) AS lines, CAST(-sum(m.amount_minor) AS bigint) AS paid,"
        " CAST(-sum(r.amount_minor) AS bigint) AS recorded"
        " FROM undone_match m JOIN institution_record r ON r.id = m.record_id"
        " WHERE m.run_id = :run GROUP BY rule",
        {"run": run},
    )
    # Shards match one with one: a line is a group.
    return {
        row.rule: {
            "groups": row.lines,
            "payments": row.lines,
            "records": row.lines,
            "paid_minor": row.paid,
            "recorded_minor": row.recorded,
        }
        for row in rows
    }


def _together(asked: Asked, settled: dict[str, int]) -> dict[str, int]:
    codes = sorted(asked.exceptions.keys() | settled.keys())
    return {code: asked.exceptions.get(code, 0) + settled.get(code, 0) for code in codes}


def _sums(by_rule: dict[str, Any], by_code: dict[str, Any]) -> Sums:
    def total(outcomes: dict[str, Any], figure: str) -> int:
        return sum(figures[figure] for figures in outcomes.values())

    return Sums(
        payments=total(by_rule, "paid_minor") + total(by_code, "paid_minor"),
        records=total(by_rule, "recorded_minor") + total(by_code, "recorded_minor"),
        matched=total(by_rule, "paid_minor"),
        payments_open=total(by_code, "paid_minor"),
        records_open=total(by_code, "recorded_minor"),
    )
