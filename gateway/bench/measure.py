"""Measure two things side by side: interleaved rounds, medians, the ratio of the two.

A machine that others use is never equally fast twice, so a figure alone says little. What is
measured here is ours and a limit, in turns, so that whatever slows one slows the other.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """One benchmark: how many units a second ours did, and the limit, by their medians."""

    name: str
    ours: float
    limit: float
    unit: str
    rounds: int

    @property
    def ratio(self) -> float:
        return self.ours / self.limit

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ours": _shown(self.ours),
            "limit": _shown(self.limit),
            "ratio": round(self.ratio, 3),
            "unit": self.unit,
            "rounds": self.rounds,
        }


def _shown(figure: float) -> float:
    return round(figure, 1 if figure >= 100 else 4)


def per_second(work: Callable[[], int]) -> float:
    """Run some work and return how many of what it did it did in a second."""
    began = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - began)


def interleaved(
    name: str,
    *,
    ours: Callable[[], float],
    limit: Callable[[], float],
    unit: str,
    rounds: int,
    progress: Progress = lambda _done, _of: None,
) -> Measured:
    """Run ours and the limit in turns and return their medians.

    Args:
        name: What is measured.
        ours: Does the work as the product does it; returns how many units it did in a second
            (see `per_second`).
        limit: Does the least that the work can be; returns the same.
        unit: What is counted, a second: `pages/s`.
        rounds: How often each is run. The turns alternate in who goes first.
        progress: Told after each turn.
    """
    rates: dict[str, list[float]] = {"ours": [], "limit": []}
    turns = {"ours": ours, "limit": limit}
    for turn in range(rounds):
        order = ("ours", "limit") if turn % 2 == 0 else ("limit", "ours")
        for place, who in enumerate(order):
            rates[who].append(turns[who]())
            progress(turn * 2 + place + 1, rounds * 2)
    medians = {who: statistics.median(found) for who, found in rates.items()}
    return Measured(name, medians["ours"], medians["limit"], unit, rounds)
