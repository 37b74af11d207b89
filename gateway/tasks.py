"""Celery's entry points of the gateway. Each opens, calls, and is done."""

from __future__ import annotations

from collections.abc import Mapping

from gateway import ledger, outbox, process, receipts
from gateway.db import transaction
from gateway.worker import DRAIN_OUTBOX, ISSUE_RECEIPTS, SEAL_BOOKS, app, ring


@app.task(name=DRAIN_OUTBOX)
def drain_outbox() -> None:
    """Send the tasks that committed transactions asked for."""
    process.connect_database()
    with transaction() as session:
        outbox.drain(session, _send)


def _send(task: str, arguments: Mapping[str, str]) -> None:
    if arguments:
        app.send_task(task, kwargs=dict(arguments), retry=False)
    else:
        ring(task)


@app.task(name=SEAL_BOOKS)
def seal_books() -> None:
    """Append the signed heads that the file does not have yet. Any number of times."""
    process.connect_database()
    with transaction() as session:
        ledger.seal(session, process.heads_file(), process.signing_key())


@app.task(name=ISSUE_RECEIPTS)
def issue_receipts() -> None:
    """Sign the receipts of payments that are in line. Any number of times, at once."""
    process.connect_database()
    receipts.issue_all(process.receipt_keys(), process.business_clock())
