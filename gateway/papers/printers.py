"""Processes that print a run together, and the one that watches them."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
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
"""Between two looks at how far it is, and before a worker looks again at what others hold."""


@dataclass(frozen=True, slots=True)
class _Printer:
    process: BaseProcess
    says: connection.Connection
    """Where it says why it stopped, if it can."""


def print_all(
    run: PrintRun,
    *,
    workers: int,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> PrintProgress:
    """Print what a run still lacks, with that many processes; return how it ended.

    Args:
        run: An order, committed.
        workers: 1 or more.
        progress: Told now and then how many invoices are done, of how many.

    Raises:
        Unusable: It could not be finished, each reason in a sentence. The same order goes on later.
    """
    assert run.id is not None
    assert workers >= 1
    state = _state(run.id)
    printers = [_start(run.id) for _ in range(min(workers, state.files - state.files_printed))]
    try:
        while alive := [p.process.sentinel for p in printers if p.process.is_alive()]:
            connection.wait(alive, LOOK_SECONDS)
            state = _state(run.id)
            progress(state.done, state.ordered)
    finally:
        for printer in printers:
            printer.process.terminate()
            printer.process.join()
    state = _state(run.id)
    if not state.finished:
        reasons = list(dict.fromkeys(filter(None, map(_why, printers))))
        raise Unusable(" ".join(reasons or ["Printing stopped before its end."]))
    return state


def _state(run_id: int) -> PrintProgress:
    with snapshot() as session:
        return progress_of(session, run_id)


def _start(run_id: int) -> _Printer:
    # Spawned, not forked: a fork would share the connections and the locks of this process.
    context = get_context("spawn")
    listens, says = context.Pipe(duplex=False)
    address = db.engine().url.render_as_string(hide_password=False)
    printer = context.Process(target=_print, args=(address, run_id, says), daemon=True)
    printer.start()
    says.close()
    return _Printer(printer, listens)


def _print(address: str, run_id: int, says: connection.Connection) -> None:
    """Print until the run is finished. The whole life of a printing process."""
    # Ctrl-C goes to all processes of a terminal; the one that watches ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    db.connect(address)
    try:
        while not _state(run_id).finished:
            with transaction() as session:
                printed = print_next(
                    session,
                    settings=settings(),
                    institution=institution(),
                    now=settings().business_clock()(),
                    run_id=run_id,
                )
            if not printed:
                # The rest is in others' hands; should they die, it is this one's turn.
                time.sleep(LOOK_SECONDS)
    except Unusable as error:
        says.send(str(error))
        sys.exit(2)
    except SQLAlchemyError as error:
        says.send(f"The database does not answer a printing process: {type(error).__name__}.")
        sys.exit(2)
    finally:
        db.disconnect()


def _why(printer: _Printer) -> str | None:
    """Return why a process that has ended did not finish, in a sentence; None if it did."""
    try:
        if printer.says.poll():
            return str(printer.says.recv())
    except (EOFError, OSError):
        pass
    code = printer.process.exitcode
    if not code:
        return None
    how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"failed (exit {code})"
    return f"A printing process {how}. Give the same order again to go on where it stopped."
