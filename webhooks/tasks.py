"""Celery's entry point of the inbox: few, large, idempotent drains."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from celery.signals import worker_process_shutdown

from gateway import process
from gateway.db import transaction
from gateway.retention import retention
from gateway.sending import may_send
from gateway.settings import settings
from gateway.tasks import drain_outbox
from gateway.worker import (
    DRAIN_INBOX,
    FORGET_ATTEMPTS,
    MASK_BODIES,
    SEND_CALLBACKS,
    SEND_EVENTS,
    app,
)
from webhooks.callbacks import send_due
from webhooks.inbox import Desk, drain
from webhooks.outbound.sending import Sender, means
from webhooks.outbound.walks import forget_attempts as forget
from webhooks.replay import drain_replays
from webhooks.retention import Sweeps

BATCHES_MAX: Final = 20
DRAIN_SECONDS: Final = 20
"""After which no other batch is begun: the schedule rings again, and other work comes between."""
REPLAYED_BATCHES_MAX: Final = 5
"""Of a provider: what just came is acted on in between."""
MASK_SECONDS: Final = 20
"""After which no other bodies are masked in one run."""


@cache
def desk() -> Desk:
    """Return what acting on deliveries needs, made once a process."""
    process.connect_database()
    return Desk(process.providers(), process.signing_key(), process.business_clock())


@app.task(name=DRAIN_INBOX)
def drain_inbox() -> None:
    """Act on what waits in the inbox, on what is to be replayed; then send what that asked for."""
    did = drain(desk(), batches_max=BATCHES_MAX, seconds=DRAIN_SECONDS)
    did += drain_replays(desk(), batches_max=REPLAYED_BATCHES_MAX)
    if did:
        drain_outbox()


_sweeps: Final = Sweeps()


@app.task(name=MASK_BODIES)
def mask_bodies() -> None:
    """Mask what is personal in bodies that were kept long enough. Any number of times."""
    process.connect_database()
    now = process.business_clock()()
    _sweeps.mask_old(retention().bodies.before(now), now=now, seconds=MASK_SECONDS)


@app.task(name=SEND_CALLBACKS)
def send_callbacks() -> None:
    """Send what we owe senders who did not wait. Any number of times: one run at a time sends."""
    process.connect_database()
    if may_send(SEND_CALLBACKS):
        send_due(clock=process.business_clock(), sandbox=settings().mode == "sandbox")


sender: Final = Sender()


@app.task(name=SEND_EVENTS)
def send_events() -> None:
    """Begin to send what happened to those who follow, in threads that outlive this call."""
    process.connect_database()
    if may_send(SEND_EVENTS):
        sender.serve_due(means())


@worker_process_shutdown.connect
def _send_no_more(**_: Any) -> None:
    sender.stop()


@app.task(name=FORGET_ATTEMPTS)
def forget_attempts() -> None:
    """Delete notes of attempts that were kept long enough, or are too many."""
    process.connect_database()
    with transaction() as session:
        forget(session, days=retention().attempts.days)
