"""Celery's entry points of the gateway. Each opens, calls, and is done."""

from __future__ import annotations

from collections.abc import Mapping

from gateway import ledger, outbox, process
from gateway.db import transaction
from gateway.worker import DRAIN_OUTBOX, SEAL_BOOKS, app, ring


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
    seal()


def seal() -> int:
    """Append to the heads file what was posted since; return how many heads. Opens a transaction.

    Only heads that our key vouches for: what somebody else put into the database is not sealed,
    and the check of the books says so.
    """
    file, key = process.heads_file(), process.signing_key()
    with transaction() as session:
        fresh = ledger.heads_after(session, file.last_batch())
        return file.append(signed for signed in fresh if key.vouches_for(signed))
