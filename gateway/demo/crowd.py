"""The programs that play the outside world, started together and started again when killed."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
LEAVE_SECONDS_MAX: Final = 10.0
"""For one that stayed to end."""


@dataclass(frozen=True)
class Part:
    """One program that plays the payers of one provider, to its end."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    """All of it, the secret that it signs by among the rest."""
    journal: Path
    log: Path
    stays: bool = False
    """Whether it is called back, and so answers on when its payers are done, until SIGTERM."""


@contextmanager
def playing(
    parts: Sequence[Part], tick: Callable[[int, int], None]
) -> Iterator[Callable[[], None]]:
    """Run all parts until nothing is left to pay, and those that stay until this ends.

    To be called from the main thread.

    Args:
        parts: What to run.
        tick: Called several times a second with how many cases are over, and of how many.

    Yields:
        What must be called now and then: it starts those again that stay and were killed.

    Raises:
        Unavailable: A program failed, or was killed more than STARTS_MAX times; or nothing has
            moved for STANDSTILL_SECONDS_MAX.
    """
    crowd = _Crowd(parts)
    try:
        crowd.play(tick)
        yield crowd.keep
        crowd.leave()
    finally:
        crowd.kill()


class _Crowd:
    """The parts, which of them run, and how far they are."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._wanted = {part.name: part for part in parts}
        self._watched = {part.name: Watched(part.journal) for part in parts}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._starts: Counter[str] = Counter()

    def play(self, tick: Callable[[int, int], None]) -> None:
        """Return when nobody has anything left to pay."""
        watched = self._watched.values()
        answered, since = 0, time.monotonic()
        while True:
            self.keep()
            for journal in watched:
                journal.look()
            tick(sum(w.done for w in watched), sum(w.cases for w in watched))
            waiting = sorted(name for name in self._wanted if not self._only_stays(name))
            if not waiting:
                return
            if (now := sum(journal.answered for journal in watched)) != answered:
                answered, since = now, time.monotonic()
            if time.monotonic() - since > STANDSTILL_SECONDS_MAX:
                raise Unavailable(
                    f"The payers of {', '.join(waiting)} have got no answer for"
                    f" {STANDSTILL_SECONDS_MAX} seconds: see"
                    f" {self._wanted[waiting[0]].log.parent}."
                )
            time.sleep(POLL_SECONDS)

    def keep(self) -> None:
        """Start what does not run and is not done."""
        for name in self._wanted.keys() - self._running.keys():
            self._starts[name] += 1
            # Of the end that it comes to, not of one before it.
            self._watched[name].look()
            self._watched[name].ended = False
            self._running[name] = _start(self._wanted[name])
        for name in list(self._running):
            code = self._running[name].poll()
            if code is not None:
                del self._running[name]
                self._watched[name].look()
                if _is_done(self._wanted[name], code, self._starts[name], self._watched[name]):
                    del self._wanted[name]

    def leave(self) -> None:
        """Have those that stayed end by themselves, for LEAVE_SECONDS_MAX at most."""
        for child in self._running.values():
            child.terminate()
        until = time.monotonic() + LEAVE_SECONDS_MAX
        for child in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(until - time.monotonic(), 0))

    def kill(self) -> None:
        """End whatever still runs."""
        for child in self._running.values():
            child.kill()
            child.wait()

    def _only_stays(self, name: str) -> bool:
        """Say whether all that a part still does is to answer."""
        return self._wanted[name].stays and name in self._running and self._watched[name].ended


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
