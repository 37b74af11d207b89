"""The main job from nothing, and the same after everything in it was killed once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.simulators.journal import read_journal
from gateway.simulators.pages import page_tally
from gateway.simulators.tally import tally

CONTRIBUTORS = 50
SEED = 31
"""Among so few, a seed with which every kind of provider has payers."""
CLOCK = "2026-11-18T11:06:40Z"
WAIT_SECONDS_MAX = 240

pytestmark = pytest.mark.timeout(900)


def command(home: Path, *, seed: int = SEED) -> list[str]:
    return [
        *(sys.executable, "-m", "gateway.cli", "demo", "--json"),
        *("--contributors", str(CONTRIBUTORS), "--seed", str(seed), "--home", str(home)),
    ]


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("WASL_")} | {
        "WASL_CLOCK": CLOCK
    }


def run(home: Path, *, seed: int = SEED) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(home, seed=seed),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def without_seconds(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "seconds"}


@contextmanager
def running(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a demo that a test will interrupt; its answer, if it comes to one, can be read."""
    with subprocess.Popen(
        command(home),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def wait_for(condition: Callable[[], bool], child: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + WAIT_SECONDS_MAX
    while not condition() and child.poll() is None:
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.02)


def answers(home: Path) -> int:
    journals = (home / "demo" / "journals").glob("*.jsonl")
    return sum(journal.read_bytes().count(b'"line":"answer"') for journal in journals)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A home with a demo that nobody interrupted, and its result."""
    home = tmp_path_factory.mktemp("undisturbed")
    return home, result(run(home))


def test_every_centime_is_accounted_for(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    _, answer = undisturbed
    assert list(answer) == [
        "contributors",
        "invoices",
        "deliveries",
        "payments",
        "collected",
        "records",
        "matched",
        "planted",
        "exceptions",
        "unaccounted",
        "seconds",
    ]
    assert answer["contributors"] == answer["invoices"] == CONTRIBUTORS
    assert answer["unaccounted"] == "0.00"
    assert answer["exceptions"] == answer["planted"]
    assert len(answer["planted"]) == 13
    assert answer["matched"] > 0
    assert float(answer["collected"]) > 0


def test_it_collects_through_pages_and_calls_too(
    undisturbed: tuple[Path, dict[str, Any]],
) -> None:
    home, _ = undisturbed
    operator = tally([home / "demo" / "journals" / "mobile-money.jsonl"])
    assert [minor > 0 for minor in operator.expected.values()] == [True]
    for provider in ("cmi", "wallet-query"):
        lines = read_journal(home / "stand-ins" / f"{provider}.jsonl")
        assert any(paid.minor for paid in page_tally(provider, lines).paid), provider


def test_another_demo_in_the_same_home_is_refused(
    undisturbed: tuple[Path, dict[str, Any]],
) -> None:
    home, _ = undisturbed
    done = run(home, seed=SEED + 1)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"seed {SEED}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_home_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    done = run(tmp_path)
    assert done.returncode == 2
    assert "not the home of a demo" in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys"]


def test_errors_cannot_cancel_in_what_is_unaccounted() -> None:
    from gateway.demo.result import unaccounted
    from gateway.simulators.tally import Tally

    told = Tally(expected={("bank", "1"): 100, ("bank", "2"): 100, ("card", "1"): 0})
    assert unaccounted(told, {("bank", "1"): 100, ("bank", "2"): 100}) == 0
    assert unaccounted(told, {("bank", "1"): 99, ("bank", "2"): 101}) == 2
    assert unaccounted(told, {("bank", "1"): 100}) == 100
    assert unaccounted(told, {**told.expected, ("card", "9"): 5}) == 5


def test_whatever_is_killed_and_however_often_it_ends_the_same(
    undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    home = tmp_path / "home"

    def pids() -> dict[str, int]:
        try:
            said: dict[str, int] = json.loads((home / "run" / "up.json").read_text())["pids"]
        except (FileNotFoundError, ValueError):
            return {}
        return said

    # The whole demo as it begins, each of its product's processes, and it once more near the end.
    with running(home) as child:
        wait_for((home / "demo" / "contributors.csv").exists, child)
        assert child.poll() is None, "it ended before it could be killed"
    with running(home) as child:
        wait_for(lambda: answers(home) > 5, child)
        killed = set()
        for name, pid in pids().items():
            killed.add(name)
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.3)
        assert killed >= {"postgres", "valkey", "web", "worker", "card-page", "wallet-page"}
        wait_for((home / "demo" / "records.csv").exists, child)
        assert child.poll() is None, "it ended before it could be killed"
    assert without_seconds(result(run(home))) == without_seconds(undisturbed[1])
