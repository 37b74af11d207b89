"""Celery's entry points of the gateway. Each opens, calls, and is done."""

from __future__ import annotations

import time
from collections.abc import Mapping

from gateway import outbox, process, receipts
from gateway.billing import issuing, reassessment
from gateway.books import ledger
from gateway.collection import inquiries, refund_sending
from gateway.db import alone, transaction
from gateway.dues.tariff import tariff
from gateway.institution import institution
from gateway.messages.making import make_some
from gateway.messages.rules import message_rules
from gateway.messages.senders import sender_of
from gateway.messages.sending import send_due
from gateway.papers.printing import print_next
from gateway.providers.refunding import refunding
from gateway.relief import plans, remissions
from gateway.sending import may_send
from gateway.settings import settings
from gateway.worker import (
    ASK_PROVIDERS,
    CARRY_OUT_REFUNDS,
    DRAIN_OUTBOX,
    ISSUE_CHUNKS,
    ISSUE_RECEIPTS,
    PRINT_NOTICES,
    REASSESS,
    REVIEW_RELIEFS,
    SEAL_BOOKS,
    TELL_PEOPLE,
    app,
    ring,
)

ASKS_MAX = 20
"""To providers about their pages, in one run."""

REFUNDS_MAX = 20
"""Carried out, or asked about, in one run."""

REVIEW_SECONDS = 20
"""After which a review goes on in another run."""

MAKE_SECONDS = 10
"""After which no more messages are put in line before some are sent."""

REASSESS_SECONDS = 8
"""After which no other batch is begun: the schedule rings again."""

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
    if not may_send(ASK_PROVIDERS):
        return
    inquiries.ask_due(
        process.providers(),
        key=process.signing_key(),
        clock=process.business_clock(),
        asks_max=ASKS_MAX,
    )


@app.task(name=CARRY_OUT_REFUNDS)
def carry_out_refunds() -> None:
    """Ask providers for approved refunds, and about those on their way. Any number of times."""
    process.connect_database()
    if not may_send(CARRY_OUT_REFUNDS):
        return
    refund_sending.carry_out(
        refunding(process.providers()),
        key=process.signing_key(),
        clock=process.business_clock(),
        most=REFUNDS_MAX,
    )


@app.task(name=TELL_PEOPLE)
def tell_people() -> None:
    """Put messages to people in line, and send what is due. One at a time; any number of times."""
    sender = sender_of(settings())
    if sender is None:
        return
    process.connect_database()
    if not may_send(TELL_PEOPLE):
        return
    clock = process.business_clock()
    until = time.monotonic() + MAKE_SECONDS
    with alone(TELL_PEOPLE) as ours:
        more = ours
        while more and time.monotonic() < until:
            with transaction() as session:
                more = make_some(session, message_rules(), now=clock())
        if ours:
            send_due(sender, message_rules(), clock=clock)


@app.task(name=REVIEW_RELIEFS)
def review_reliefs(what: str = "plans", after: int = 0) -> None:
    """Judge plans, then remissions, by date. What one run does not reach, the next goes on with."""
    process.connect_database()
    until = time.monotonic() + REVIEW_SECONDS
    reviews = {"plans": plans.review_plans, "remissions": remissions.review_remissions}
    for name in list(reviews)[list(reviews).index(what) :]:
        following: int | None = after if name == what else 0
        while following is not None:
            if time.monotonic() > until:
                rest = {"what": name, "after": following}
                app.send_task(REVIEW_RELIEFS, kwargs=rest, retry=False)
                return
            with transaction() as session:
                now = process.business_clock()()
                key = process.signing_key()
                following = reviews[name](session, key=key, now=now, after=following).next_after


@app.task(name=REASSESS)
def reassess() -> None:
    """Re-assess people who are in line, a batch to a transaction, for a few seconds."""
    process.connect_database()
    until = time.monotonic() + REASSESS_SECONDS
    taken = 1
    while taken and time.monotonic() < until:
        with transaction() as session:
            now = process.business_clock()()
            taken, _ = reassessment.reassess_next(
                session, tariff(), key=process.signing_key(), now=now
            )
