"""Processes that print a run together: this one, and others beside it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from gateway import db
from gateway.db import snapshot, transaction
from gateway.errors import Unusable
from gateway.institution import institution
from gateway.models import PrintRun
from gateway.papers.printing import PrintProgress, print_next, progress_of
from gateway.settings import settings

LOOK_SECONDS: Final = 0.5
"""Before a process looks again at what others hold."""


def print_all(
    run: PrintRun,
    *,
    workers: int,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> PrintProgress:
    """Print what a run still lacks, with that many processes; return how it ended.

    This process is one of them: it prints while the others still start, and whatever one that dies
    leaves behind.

    Args:
        run: An order, committed.
        workers: 1 or more.
        progress: Told after each file of this process how many invoices are done, of how many.

    Raises:
        Unusable: It could not be finished, in a sentence. The same order goes on later.
    """
    assert run.id is not None
    assert workers >= 1
    state = _state(run.id)
    others = [_start(run.id) for _ in range(min(workers, state.files - state.files_printed) - 1)]
    try:
        while not state.finished:
            if not _print_one(run.id):
                # The rest is in others' hands; should they die, it is this one's turn.
                connection.wait([o.sentinel for o in others if o.is_alive()], LOOK_SECONDS)
                time.sleep(0 if any(o.is_alive() for o in others) else LOOK_SECONDS)
            state = _state(run.id)
            progress(state.done, state.ordered)
    finally:
        for other in others:
            other.terminate()
            other.join()
    return state


def _state(run_id: int) -> PrintProgress:
    with snapshot() as session:
        return progress_of(session, run_id)


def _print_one(run_id: int) -> bool:
    with transaction() as session:
        return print_next(
            session,
            settings=settings(),
            institution=institution(),
            now=settings().business_clock()(),
            run_id=run_id,
        )


def _start(run_id: int) -> BaseProcess:
    # Spawned, not forked: a fork would share the connections and the locks of this process.
    address = db.engine().url.render_as_string(hide_password=False)
    process = get_context("spawn").Process(target=_print, args=(address, run_id), daemon=True)
    process.start()
    return process


def _print(address: str, run_id: int) -> None:
    """Print while there is a file that nobody prints. The whole life of a process beside."""
    # Ctrl-C goes to all processes of a terminal; the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    db.connect(address)
    try:
        while _print_one(run_id):
            pass
    except (Unusable, SQLAlchemyError):
        # What stops this one stops the one that started it, and that one says so.
        sys.exit(2)
    finally:
        db.disconnect()
