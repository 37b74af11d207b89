"""Celery's entry point of the inbox: few, large, idempotent drains."""

from __future__ import annotations

from functools import cache
from typing import Final

from gateway import process
from gateway.tasks import drain_outbox
from gateway.worker import DRAIN_INBOX, app
from webhooks.inbox import Desk, drain

BATCHES_MAX: Final = 20


@cache
def desk() -> Desk:
    """Return what acting on deliveries needs, made once a process."""
    process.connect_database()
    return Desk(process.providers(), process.signing_key(), process.business_clock())


@app.task(name=DRAIN_INBOX)
def drain_inbox() -> None:
    """Act on what waits in the inbox, then send what that asked for."""
    if drain(desk(), batches_max=BATCHES_MAX):
        drain_outbox()
