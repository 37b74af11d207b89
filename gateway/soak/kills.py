"""Kills (-9) of the product's programs, at moments that a seed draws, while payments come in.

A moment is a number of payments that are over, not a time: so that kills are spread over the load
on any machine, and a seed says what was killed between which payments.
"""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.embedded.processes import signal_if_there, started_ticks
from gateway.simulators.journal import Journal

PROGRAMS: Final = ("web", "worker")
ALL: Final = ("web", "worker", "postgres", "valkey")
"""By the names that the supervisor gives them."""

FIRST: Final = 0.03
LAST: Final = 0.92
"""Between which shares of the payments the moments lie: all under load."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One that is to be done once so many payments are over."""

    after: int
    target: str


def plan_kills(*, seed: int, count: int, payments: int, targets: Sequence[str]) -> list[Kill]:
    """Return kills in their order, each target as often as the others or once more."""
    chance = random.Random(f"{seed}|kills")  # noqa: S311 - it must replay
    moments = sorted(chance.uniform(FIRST, LAST) * payments for _ in range(count))
    chosen = [targets[number % len(targets)] for number in range(count)]
    chance.shuffle(chosen)
    return [Kill(int(at), target) for at, target in zip(moments, chosen, strict=True)]


class Killer:
    """Does planned kills as the load goes on."""

    def __init__(self, kills: Sequence[Kill], *, home: Path, journal: Path) -> None:
        self._state = home / "run" / "up.json"
        self._journal = journal
        self._left = list(kills)
        self.done: Counter[str] = Counter()
        """How often each program was killed."""
        self._killed: dict[str, int] = {}

    @property
    def left(self) -> int:
        """How many are still to be done."""
        return len(self._left)

    def strike(self, over: int, say: Callable[[str], None]) -> None:
        """Kill what is due. One that is being started again is waited for: its turn stays.

        Args:
            over: How many payments are over.
            say: Told of each kill, in a sentence.
        """
        while self._left and self._left[0].after <= over:
            kill = self._left[0]
            pid = self._pid(kill.target)
            if pid is None or pid == self._killed.get(kill.target):
                return
            with Journal(self._journal) as journal:
                journal.append(
                    {"line": "kill", "target": kill.target, "pid": pid, "over": over}, durable=False
                )
            signal_if_there(pid, signal.SIGKILL)
            self._killed[kill.target] = pid
            self.done[kill.target] += 1
            del self._left[0]
            say(f"Killed {kill.target} (process {pid}) after {over} payments.")

    def _pid(self, target: str) -> int | None:
        """Return the process that the supervisor says is the target, if it lives."""
        try:
            said: Mapping[str, Any] = json.loads(self._state.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        pid, started = said["pids"].get(target), said["started"].get(target)
        # The number alone may have gone to a stranger.
        return pid if pid is not None and started_ticks(pid) == started else None
