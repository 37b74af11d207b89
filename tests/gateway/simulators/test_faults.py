"""Faults are drawn from seed and key alone, as often as their shares say."""

from __future__ import annotations

import argparse
from dataclasses import asdict

import pytest

from gateway.simulators.faults import LATE_DAYS_MAX, SHARES, Fate, Faults, add_options, from_options

KEYS = [f"payment {number}" for number in range(4_000)]


def test_a_seed_replays_in_any_order_and_another_draws_otherwise() -> None:
    faults = Faults(7, double=0.1, late=0.2)
    told = {key: faults.of(key) for key in KEYS}
    assert {key: Faults(7, double=0.1, late=0.2).of(key) for key in reversed(KEYS)} == told
    assert {key: Faults(8, double=0.1, late=0.2).of(key) for key in KEYS} != told
    # These fates are part of the file: a seed that somebody noted must still mean the same.
    assert [key for key in KEYS[:60] if told[key].double] == [
        key for key in KEYS[:60] if Faults(7, double=0.1).of(key).double
    ]


@pytest.mark.parametrize("name", SHARES)
def test_each_fault_strikes_its_share_and_nothing_else(name: str) -> None:
    faults = Faults(1, **{name: 0.1})
    fates = [faults.of(key) for key in KEYS]
    struck = [fate for fate in fates if getattr(fate, name)]
    # Four standard deviations of the binomial, and the seed stands still.
    assert abs(len(struck) - 400) < 76
    others = {other for fate in fates for other, value in asdict(fate).items() if value} - {name}
    assert others == set()


def test_all_or_nothing() -> None:
    assert Faults(3).of("x") == Fate()
    everything = Faults(3, **dict.fromkeys(SHARES, 1.0)).of("x")
    assert all(asdict(everything).values())
    assert 1 <= everything.late <= LATE_DAYS_MAX


def test_the_command_line_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    given = parser.parse_args(["--seed", "4", "--lose", "0.05", "--wrong-amount", "0.02"])
    assert from_options(given) == Faults(4, lose=0.05, wrong_amount=0.02)
    with pytest.raises(SystemExit):
        parser.parse_args(["--lose", "1.5"])
    assert "between 0 and 1" in capsys.readouterr().err
    with pytest.raises(ValueError, match="tamper"):
        Faults(tamper=-0.1)
