"""A small soak: every simulator, everything that can go wrong with a delivery, and kills."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PAYMENTS = 150
SEED = 3
KILLS = 3
CLOCK = "=2026-11-18T11:06:40Z"

pytestmark = pytest.mark.timeout(600)


def command(home: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "gateway.cli", "soak", "--json", "--home", str(home)),
        *("--payments", str(PAYMENTS), "--seed", str(SEED), "--kills", str(KILLS)),
    ]


def soak(home: Path) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WASL_")}
    return subprocess.run(
        command(home),
        env=kept | {"WASL_CLOCK": CLOCK},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def test_nothing_is_lost_and_nothing_is_booked_twice(tmp_path: Path) -> None:
    done = soak(tmp_path / "home")
    assert done.stderr.startswith(f"seed {SEED}\n")
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["differences"] == []
    assert said["unaccounted"] == "0.00"
    assert said["planted"] == said["exceptions"]
    # Nothing is booked of what came in another currency.
    assert said["payments"] == PAYMENTS - said["struck"].get("wrong_currency", 0)
    assert said["given_back"] > 0
    assert set(said["providers"]) == {
        *("bank", "cashplus", "cmi", "kiosk"),
        *("mobile-money", "stripe", "wallet", "wallet-query", "wallet-push"),
        *("bill-hub", "chari", "youcan"),
    }
    assert set(said["struck"]) >= {"double", "reorder", "lose", "late"}
    assert sum(said["kills"].values()) == KILLS
    again = soak(tmp_path / "home")
    assert (again.returncode, again.stdout) == (2, "")
    assert "holds a soak" in again.stderr
