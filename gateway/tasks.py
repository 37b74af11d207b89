"""Celery's entry points of the gateway. Each opens, calls, and is done."""

from __future__ import annotations

from collections.abc import Mapping

from gateway import card_payments, issuing, ledger, outbox, process, receipts
from gateway.db import transaction
from gateway.institution import institution
from gateway.papers.printing import print_next
from gateway.settings import settings
from gateway.tariff import tariff
from gateway.worker import (
    ASK_PROVIDERS,
    DRAIN_OUTBOX,
    ISSUE_CHUNKS,
    ISSUE_RECEIPTS,
    PRINT_NOTICES,
    SEAL_BOOKS,
    app,
    ring,
)

ASKS_MAX = 20
"""To providers about their pages, in one run."""

ISSUE_SECONDS = 3
"""After which no other span is begun: the schedule rings again."""


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


@app.task(name=PRINT_NOTICES)
def print_notices() -> None:
    """Print one file of an order that is not finished. One to a bell: booking comes in between."""
    process.connect_database()
    with transaction() as session:
        print_next(
            session,
            settings=settings(),
            institution=institution(),
            now=process.business_clock()(),
        )


@app.task(name=ISSUE_CHUNKS)
def issue_chunks() -> None:
    """Issue some spans of orders that are not finished, with booking in between."""
    process.connect_database()
    issuing.issue_some(
        tariff(),
        key=process.signing_key(),
        clock=process.business_clock(),
        seconds=ISSUE_SECONDS,
    )


@app.task(name=ASK_PROVIDERS)
def ask_providers() -> None:
    """Ask what became of payers who were sent to pay, where no delivery has told."""
    process.connect_database()
    card_payments.ask_due(
        process.providers(),
        key=process.signing_key(),
        clock=process.business_clock(),
        asks_max=ASKS_MAX,
    )
