"""Kills are drawn from the seed, spread over the load, and strike only what is named."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from gateway.embedded.processes import started_ticks
from gateway.providers.registry import read_providers
from gateway.simulators.journal import read_journal
from gateway.soak.kills import ALL, FIRST, LAST, Kill, Killer, plan_kills
from gateway.soak.providers import all_stand_ins, make_providers
from gateway.soak.stage import SHARES


def test_a_seed_says_what_is_killed_after_which_payment() -> None:
    kills = plan_kills(seed=4, count=50, payments=20_000, targets=ALL)
    assert kills == plan_kills(seed=4, count=50, payments=20_000, targets=ALL)
    assert kills != plan_kills(seed=5, count=50, payments=20_000, targets=ALL)
    counts = Counter(kill.target for kill in kills)
    assert set(counts) == set(ALL)
    assert max(counts.values()) - min(counts.values()) <= 1
    moments = [kill.after for kill in kills]
    assert moments == sorted(moments)
    assert FIRST * 20_000 - 1 <= moments[0] <= moments[-1] <= LAST * 20_000
    assert plan_kills(seed=4, count=0, payments=9, targets=ALL) == []


def test_what_is_being_started_again_is_waited_for_and_strangers_are_spared(
    tmp_path: Path,
) -> None:
    state = tmp_path / "run" / "up.json"
    state.parent.mkdir()
    journal = tmp_path / "kills.jsonl"
    said: list[str] = []
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]

    def is_up(pid: int, started: int | None) -> None:
        state.write_text(json.dumps({"pids": {"web": pid}, "started": {"web": started}}))

    kills = [Kill(10, "web"), Kill(10, "web"), Kill(20, "web")]
    killer = Killer(kills, home=tmp_path, journal=journal)
    killer.strike(10, said.append)
    assert killer.left == 3
    with subprocess.Popen(sleeping) as first, subprocess.Popen(sleeping) as second:
        try:
            is_up(first.pid, started_ticks(first.pid))
            killer.strike(9, said.append)
            assert first.poll() is None
            killer.strike(10, said.append)
            assert first.wait(20) == -signal.SIGKILL
            killer.strike(10, said.append)
            is_up(second.pid, 1)
            killer.strike(10, said.append)
            assert (second.poll(), killer.left) == (None, 2)
            is_up(second.pid, started_ticks(second.pid))
            killer.strike(15, said.append)
            assert second.wait(20) == -signal.SIGKILL
        finally:
            first.kill()
            second.kill()
    assert killer.left == 1
    assert killer.done == Counter(web=2)
    assert [line["over"] for line in read_journal(journal)] == [10, 15]
    assert len(said) == 2


def test_the_soak_has_every_kind_and_its_stand_ins(tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    private = make_providers(file)
    assert list(private) == ["bank"]
    assert private["bank"] not in file.read_text()
    providers = read_providers(file.read_text(), file.name)
    made = all_stand_ins(
        file, tmp_path / "pages", base_url="http://127.0.0.1:1", seed=3, shares=SHARES
    )
    pages = {"cmi", "wallet-query", "wallet-push", "stripe", "chari", "youcan"}
    assert set(made) == pages < set(providers)
    assert len({each.port for each in made.values()}) == len(pages)
    for each in made.values():
        words = list(each.argv)
        assert words[words.index("--port") + 1] == str(each.port)
        assert words[words.index("--seed") + 1] == "3"
        assert words[words.index("--lose") + 1] == SHARES["--lose"]
    assert "gateway.simulators.walletpush" in made["wallet-push"].argv
    assert "--wrong-amount" not in made["wallet-query"].argv
