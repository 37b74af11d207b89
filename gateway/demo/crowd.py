"""The programs that play the outside world, started together and started again when killed."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.demo.files import last_line
from gateway.demo.programs import POLL_SECONDS, Watched
from gateway.embedded.processes import spawn
from gateway.errors import Unavailable

STARTS_MAX: Final = 20
STANDSTILL_SECONDS_MAX: Final = 240
"""How long nobody may get an answer as it must be until we give up: longer than any of them tries
again. Lines alone prove nothing: who gives up writes one too, and begins with the next case."""


@dataclass(frozen=True)
class Part:
    """One program that plays the payers of one provider, to its end."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    """All of it, the secret that it signs by among the rest."""
    journal: Path
    log: Path


def play(parts: Sequence[Part], tick: Callable[[int, int], None]) -> None:
    """Run all parts to their end, at once. To be called from the main thread.

    Args:
        parts: What to run.
        tick: Called several times a second with how many cases are over, and of how many.

    Raises:
        Unavailable: A program failed, or was killed more than STARTS_MAX times; or nothing has
            moved for STANDSTILL_SECONDS_MAX.
    """
    running: dict[str, subprocess.Popen[bytes]] = {}
    starts: Counter[str] = Counter()
    waiting = {part.name: part for part in parts}
    watched = {part.name: Watched(part.journal) for part in parts}
    answered, since = 0, time.monotonic()
    try:
        while waiting:
            for name in waiting.keys() - running.keys():
                starts[name] += 1
                running[name] = _start(waiting[name])
            for name in list(running):
                code = running[name].poll()
                if code is not None:
                    del running[name]
                    watched[name].look()
                    if _is_done(waiting[name], code, starts[name], watched[name]):
                        del waiting[name]
            for journal in watched.values():
                journal.look()
            if (now := sum(journal.answered for journal in watched.values())) != answered:
                answered, since = now, time.monotonic()
            if time.monotonic() - since > STANDSTILL_SECONDS_MAX:
                raise Unavailable(
                    f"The payers of {', '.join(sorted(waiting))} have got no answer for"
                    f" {STANDSTILL_SECONDS_MAX} seconds: see {parts[0].log.parent}."
                )
            tick(sum(w.done for w in watched.values()), sum(w.cases for w in watched.values()))
            time.sleep(POLL_SECONDS)
    finally:
        for child in running.values():
            child.kill()
            child.wait()


def _start(part: Part) -> subprocess.Popen[bytes]:
    with part.log.open("ab") as log:
        return spawn(
            part.argv,
            output=log.fileno(),
            death_signal=signal.SIGKILL,
            environment=part.environment,
        )


def _is_done(part: Part, code: int, starts: int, journal: Watched) -> bool:
    """Say whether a program that ended is done; one that was killed is not."""
    # Surprises make it 1, and the result reports them; but so does a bug of the program.
    if code in {0, 1} and journal.ended:
        return True
    if code > 0 or starts >= STARTS_MAX:
        raise Unavailable(f"The payers of {part.name} ended: {last_line(part.log)}")
    return False
