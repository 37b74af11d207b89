"""Celery's entry point of reconciliation."""

from __future__ import annotations

from datetime import datetime, time

from gateway import process
from gateway.clock import INSTITUTION_ZONE
from gateway.db import execute, transaction
from gateway.settings import settings
from gateway.worker import RECONCILE, app
from reconciliation.runs import go_on, reconcile


@app.task(name=RECONCILE)
def reconcile_due() -> None:
    """Go on with a run that was cut short; begin the day's when its time has come. Any number of
    times, at once."""
    process.connect_database()
    now = process.business_clock()()
    if go_on(now) is None and is_due(now, settings().daily_run_at):
        reconcile(period=None, now=now)


def is_due(now: datetime, at: time | None) -> bool:
    """Say whether the day's run has not been begun: none over all periods since its time.

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
            "SELECT FROM reconciliation_run WHERE period IS NULL AND started_at >= :due_at)"
        )
        return bool(execute(session, query, {"due_at": due_at}).scalar_one())
