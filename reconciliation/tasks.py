"""Celery's entry point of reconciliation."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Final

from gateway import process
from gateway.clock import INSTITUTION_ZONE
from gateway.db import alone, execute, transaction
from gateway.settings import settings
from gateway.worker import RECONCILE, RUN_SECONDS_MAX, app
from reconciliation.runs import go_on, reconcile

BEGINNING: Final = "the day's run of reconciliation"


@app.task(name=RECONCILE, time_limit=RUN_SECONDS_MAX)
def reconcile_due() -> None:
    """Go on with a run that was cut short; begin the day's when its time has come. Any number of
    times, at once: one begins, and the others wait neither for it nor for an import."""
    process.connect_database()
    now = process.business_clock()()
    if go_on(now) is not None:
        return
    with alone(BEGINNING) as ours:
        if ours and is_due(now, settings().daily_run_at):
            reconcile(period=None, now=now)


def is_due(now: datetime, at: time | None) -> bool:
    """Say whether the day's run has not been begun: none over all periods in the day from its time.

    Opens a transaction. Where the institution has recorded nothing yet, there is nothing to compare
    with, and nothing is due.

    Args:
        now: The business clock.
        at: When, in Casablanca; None: never.
    """
    if at is None:
        return False
    today = now.astimezone(INSTITUTION_ZONE).date()
    due_at = datetime.combine(today, at, INSTITUTION_ZONE)
    if now < due_at:
        return False
    with transaction() as session:
        query = (
            "SELECT EXISTS (SELECT FROM institution_record) AND NOT EXISTS ("
            "SELECT FROM reconciliation_run WHERE period IS NULL"
            # A clock that was ahead and was set right leaves runs of days to come.
            " AND started_at >= :due_at AND started_at < :until)"
        )
        named = {"due_at": due_at, "until": due_at + timedelta(days=1)}
        return bool(execute(session, query, named).scalar_one())
