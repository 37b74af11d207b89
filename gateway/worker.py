"""The Celery app: settings and the one schedule. Tasks import it; it imports no feature.

Celery is the bell, not the queue: its messages say «look», and the rows they are about are claimed
in the database. Losing Redis loses nothing; the schedule rings again.
"""

from __future__ import annotations

import gc
import logging
import sys
from typing import Any, Final

from celery import Celery
from celery.signals import (
    beat_init,
    celeryd_init,
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
)

from gateway import startup, tracing
from gateway.errors import Unusable
from gateway.logs import configure_logs
from gateway.services import tell
from gateway.settings import settings

COLLECT_AFTER: Final = 200_000
"""So many objects made more than let go. A batch of the inbox has fewer: to look through them in
its midst found nothing, and was a fifteenth of the time that Python takes for it."""
TASK_SECONDS_MAX: Final = 120
RUN_SECONDS_MAX: Final = 540
"""Of a run of reconciliation: its last part is one transaction, and killed it begins anew."""
VISIBILITY_SECONDS: Final = 600
BELL_EXPIRES_SECONDS: Final = 60
SOCKET_SECONDS: Final = 5

DRAIN_INBOX: Final = "webhooks.drain_inbox"
MASK_BODIES: Final = "webhooks.mask_bodies"
DRAIN_OUTBOX: Final = "gateway.drain_outbox"
SEAL_BOOKS: Final = "gateway.seal_books"
ISSUE_RECEIPTS: Final = "gateway.issue_receipts"
PRINT_NOTICES: Final = "gateway.print_notices"
ISSUE_CHUNKS: Final = "gateway.issue_chunks"
ASK_PROVIDERS: Final = "gateway.ask_providers"
FORGET_ANSWERS: Final = "gateway.forget_answers"
REASSESS: Final = "gateway.reassess"
REVIEW_RELIEFS: Final = "gateway.review_reliefs"
TELL_PEOPLE: Final = "gateway.tell_people"
CARRY_OUT_REFUNDS: Final = "gateway.carry_out_refunds"
SEND_CALLBACKS: Final = "webhooks.send_callbacks"
SEND_EVENTS: Final = "webhooks.send_events"
FORGET_ATTEMPTS: Final = "webhooks.forget_attempts"
ERASE_DUE: Final = "gateway.erase_due"
RECONCILE: Final = "reconciliation.reconcile_due"


def _broker() -> str | None:
    """Return where the bells ring, if that is set: what is wrong is said at a program's start."""
    try:
        url = settings().redis_url
    except Unusable:
        return None
    return None if url is None else url.get_secret_value()


app = Celery("wasl", broker=_broker())
app.conf.update(
    include=[
        "gateway.tasks",
        "gateway.api.tasks",
        "gateway.holders",
        "webhooks.tasks",
        "reconciliation.tasks",
    ],
    # No task's return value is read, so there is no result backend to fill, expire or lose.
    task_ignore_result=True,
    # Acknowledge after the work: a task that dies with its worker is rung again by the schedule,
    # and one that outlives the visibility timeout runs twice at once. Both are safe here because
    # every task claims its rows in the database before it acts.
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    # Only the hard limit: a soft one is an exception in the middle of somebody's transaction.
    task_time_limit=TASK_SECONDS_MAX,
    # Redis hands out again whatever is not acknowledged in time.
    broker_transport_options={
        "visibility_timeout": VISIBILITY_SECONDS,
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": SOCKET_SECONDS,
    },
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # Bells that nobody heard for a minute are stale; a new one rings every few seconds.
    task_default_expires=BELL_EXPIRES_SECONDS,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    task_serializer="json",
    accept_content=["json"],
    timezone="UTC",
    # Two beats by accident only make these run more often; each run takes rows it can lock.
    beat_schedule={
        "drain-inbox": {"task": DRAIN_INBOX, "schedule": 1.0},
        "drain-outbox": {"task": DRAIN_OUTBOX, "schedule": 2.0},
        "seal-books": {"task": SEAL_BOOKS, "schedule": 30.0},
        "issue-receipts": {"task": ISSUE_RECEIPTS, "schedule": 5.0},
        "print-notices": {"task": PRINT_NOTICES, "schedule": 5.0},
        "issue-chunks": {"task": ISSUE_CHUNKS, "schedule": 5.0},
        "forget-answers": {"task": FORGET_ANSWERS, "schedule": 3600.0},
        "reassess": {"task": REASSESS, "schedule": 10.0},
        "ask-providers": {"task": ASK_PROVIDERS, "schedule": 3.0},
        "mask-bodies": {"task": MASK_BODIES, "schedule": 3600.0},
        "review-reliefs": {"task": REVIEW_RELIEFS, "schedule": 600.0},
        "tell-people": {"task": TELL_PEOPLE, "schedule": 5.0},
        "carry-out-refunds": {"task": CARRY_OUT_REFUNDS, "schedule": 5.0},
        "send-callbacks": {"task": SEND_CALLBACKS, "schedule": 2.0},
        "send-events": {"task": SEND_EVENTS, "schedule": 1.0},
        "forget-attempts": {"task": FORGET_ATTEMPTS, "schedule": 3600.0},
        "erase-due": {"task": ERASE_DUE, "schedule": 6 * 3600.0},
        "reconcile": {"task": RECONCILE, "schedule": 10.0},
    },
    beat_max_loop_interval=1.0,
)
assert max(TASK_SECONDS_MAX, RUN_SECONDS_MAX) < VISIBILITY_SECONDS


def ring(task: str) -> None:
    """Ask for a task now. Raises what the broker raises; the schedule asks again anyway."""
    if app.conf.broker_url is None:
        raise Unusable("WASL_REDIS_URL is not set: start this through wasl up, or set it.")
    app.send_task(task, expires=BELL_EXPIRES_SECONDS, retry=False)


@setup_logging.connect
def _our_logs(**_: Any) -> None:
    configure_logs(logging.WARNING)


@celeryd_init.connect
def _check_worker(instance: Any = None, **_: Any) -> None:
    _require("worker")
    if instance is not None:
        # Its banner is no line of a log that is JSON by lines.
        instance.quiet = True


@beat_init.connect
def _check_beat(**_: Any) -> None:
    _require("beat")


def _require(program: startup.Program) -> None:
    """Stop the program before it does anything, unless its settings are as they must be."""
    try:
        startup.require(program)
    except Unusable as error:
        tell(str(error))
        sys.exit(2)


def collect_seldom() -> None:
    """Have this process look for garbage less often: what a batch makes, it lets go by itself."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 50, 1_000)


_traced: list[tracing.Tracing] = []


@worker_process_init.connect
def _trace(**_: Any) -> None:
    """Begin to trace a process of the pool: after the fork, which no sending thread survives."""
    begun = tracing.start("worker")
    if begun is not None:
        _traced.append(begun)


@worker_process_init.connect
def _collect_seldom(**_: Any) -> None:
    collect_seldom()


@worker_process_shutdown.connect
def _trace_no_more(**_: Any) -> None:
    while _traced:
        _traced.pop().stop()
