from __future__ import annotations

from pathlib import Path

import pytest

from gateway.bench.issue import SEALED, bench_issue
from gateway.bench.measure import interleaved, per_second
from gateway.bench.pages import bench_pages


def test_ours_and_the_limit_take_turns_and_their_medians_are_compared() -> None:
    turns: list[str] = []
    ours = iter([1.0, 30.0, 2.0])
    limit = iter([10.0, 4.0, 5.0])
    told: list[tuple[int, int]] = []

    def rate(who: str, rates: object) -> float:
        turns.append(who)
        return next(rates)  # type: ignore[call-overload,no-any-return]

    measured = interleaved(
        "x",
        ours=lambda: rate("ours", ours),
        limit=lambda: rate("limit", limit),
        unit="things/s",
        rounds=3,
        progress=lambda done, of: told.append((done, of)),
    )
    assert turns == ["ours", "limit", "limit", "ours", "ours", "limit"]
    assert told[-1] == (6, 6)
    assert measured.as_json() == {
        "name": "x",
        "ours": 2.0,
        "limit": 5.0,
        "ratio": 0.4,
        "unit": "things/s",
        "rounds": 3,
    }


def test_a_rate_is_what_was_done_in_a_second() -> None:
    assert per_second(lambda: 0) == 0
    assert per_second(lambda: 10**9) > 10**9


def test_notices_are_printed_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    measured = bench_pages(3, rounds=1, progress=lambda _done, _of: None)
    assert (measured.unit, measured.rounds) == ("pages/s", 1)
    assert measured.ours > 0
    assert measured.limit > 0


def test_invoices_are_issued_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    told: list[tuple[int, int]] = []
    measured, memory = bench_issue(
        [50], rounds=1, progress=lambda done, of: told.append((done, of)), ways=[SEALED]
    )
    assert (measured.name, measured.unit) == ("issue sealed, 50 people", "invoices/s")
    assert measured.ours > 0
    assert measured.limit > 0
    assert 10 < memory.ours < memory.limit == 150
    assert told == [(1, 2), (2, 2)]
