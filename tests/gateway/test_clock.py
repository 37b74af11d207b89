from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta

import pytest

from gateway.clock import ANCHOR_VARIABLE, clock_from, day_of
from gateway.errors import Unusable
from gateway.settings import Settings


@pytest.fixture(autouse=True)
def _no_anchor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ANCHOR_VARIABLE, raising=False)


def test_unset_is_real_time() -> None:
    assert abs(clock_from(None)() - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_still_clock_stands() -> None:
    clock = clock_from("=2026-11-18T11:06:40Z")
    assert clock() == clock() == datetime(2026, 11, 18, 11, 6, 40, tzinfo=UTC)


def test_a_running_clock_starts_there_and_runs() -> None:
    clock = clock_from("2026-11-18T12:06:40+01:00")
    first = clock()
    assert first >= datetime(2026, 11, 18, 11, 6, 40, tzinfo=UTC)
    deadline = time.monotonic() + 5
    while clock() == first and time.monotonic() < deadline:
        pass
    assert first < clock() < first + timedelta(minutes=1)


def test_children_share_one_running_clock() -> None:
    clock = clock_from("2020-01-01T00:00:00Z")
    script = "from gateway.clock import clock_from; print(clock_from('2020-01-01T00:00:00Z')())"
    before = clock()
    said = subprocess.run(
        [sys.executable, "-c", script], env=os.environ, capture_output=True, text=True, check=True
    ).stdout
    assert before <= datetime.fromisoformat(said.strip()) <= clock()


@pytest.mark.parametrize("setting", ["tomorrow", "2026-11-18", "=2026-11-18T11:06:40", "="])
def test_a_clock_that_means_nothing_is_refused(setting: str) -> None:
    with pytest.raises(Unusable, match="WASL_CLOCK"):
        clock_from(setting)


def test_production_has_no_test_clock() -> None:
    with pytest.raises(Unusable, match="production"):
        Settings(mode="production", clock="=2026-11-18T11:06:40Z").business_clock()


@pytest.mark.parametrize(
    ("instant", "day"),
    [
        ("2026-11-30T22:59:59Z", date(2026, 11, 30)),
        ("2026-11-30T23:00:00Z", date(2026, 12, 1)),
        # Ramadan: Casablanca is at UTC then.
        ("2026-02-25T23:30:00Z", date(2026, 2, 25)),
    ],
)
def test_a_day_is_a_day_in_casablanca(instant: str, day: date) -> None:
    assert day_of(datetime.fromisoformat(instant)) == day
