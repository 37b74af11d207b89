from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dues.periods import parse_period, period_of
from gateway.dues.principal import DueLine, NotOwed, principal
from gateway.dues.tariff import tariff
from gateway.errors import Unusable
from gateway.models import Periodicity


def owed(category: str, period: str, base_minor: int | None = None) -> DueLine | NotOwed:
    current = tariff()
    return principal(
        current, current.of(category), base_minor=base_minor, period=parse_period(period)
    )


@pytest.mark.parametrize(
    ("period", "minor"),
    [
        # 0.75 × hourly SMIG × 191 h × 6.37 %, by hand, rounded half up once.
        ("2021-12", 13514),  # 135.1422…
        ("2022-08", 13514),
        ("2022-09", 14189),  # 141.8948…
        ("2023-09", 14865),  # 148.6472…
        ("2025-01", 15604),  # 156.0377…
        ("2026-01", 16352),  # 163.5204…
        ("2026-11", 16352),
    ],
)
def test_an_artisan_owes_the_coefficient_of_the_smig_in_force(period: str, minor: int) -> None:
    line = owed("artisan-untaxed", period)
    assert isinstance(line, DueLine)
    assert line.amount_minor == minor
    assert not line.verified  # whether dues follow the SMIG is not confirmed by any source
    assert "décret" in line.source


@pytest.mark.parametrize(
    ("base_minor", "minor", "verified"),
    [
        (0, 30000, True),
        (49_999, 30000, True),
        (50_000, 39000, False),
        (100_000, 39000, False),
        (100_001, 57000, False),
        (250_000, 57000, False),
        (500_000, 72000, False),
        (1_000_000, 105_000, False),
        (2_500_000, 150_000, False),
        (5_000_000, 225_000, False),
        (5_000_001, 360_000, False),
    ],
)
def test_cpu_owes_the_amount_of_its_band(base_minor: int, minor: int, verified: bool) -> None:
    line = owed("cpu", "2026-Q4", base_minor)
    assert isinstance(line, DueLine)
    assert (line.amount_minor, line.verified) == (minor, verified)


@pytest.mark.parametrize(
    ("period", "base_minor", "minor"),
    [
        # Two coefficients to November 2022, then five; the first day of the month decides.
        ("2022-11", 5_000_000, 60_541),  # 3.2 × 15.55 × 191 × 6.37 %: 605.4149…
        ("2022-11", 10_000_001, 113_515),  # 6 ×: 1 135.1531…
        ("2022-12", 5_000_000, 37_838),  # 2 ×: 378.3843…
        ("2022-12", 5_000_001, 56_758),  # 3 ×: 567.5765…
        ("2022-12", 20_000_001, 113_515),
    ],
)
def test_who_keeps_accounts_owes_the_coefficient_of_the_profit(
    period: str, base_minor: int, minor: int
) -> None:
    line = owed("accounts-real", period, base_minor)
    assert isinstance(line, DueLine)
    assert line.amount_minor == minor
    assert "annual profit" in line.rule


@given(st.integers(0, 10**10), st.integers(0, 10**10))
def test_who_has_the_higher_base_never_owes_less(a: int, b: int) -> None:
    low, high = owed("cpu", "2026-Q4", min(a, b)), owed("cpu", "2026-Q4", max(a, b))
    assert isinstance(low, DueLine)
    assert isinstance(high, DueLine)
    assert 0 < low.amount_minor <= high.amount_minor


def test_nothing_is_owed_before_the_first_period() -> None:
    assert isinstance(owed("artisan-untaxed", "2021-11"), NotOwed)
    assert isinstance(owed("cpu", "2021-Q3", 0), NotOwed)
    assert isinstance(owed("cpu", "2021-Q4", 0), DueLine)


@pytest.mark.parametrize(
    ("category", "period", "base_minor", "word"),
    [
        ("artisan-untaxed", "2026-Q4", None, "2026-Q4"),
        ("cpu", "2026-11", 0, "2026-11"),
        ("cpu", "2026-Q4", None, "annual principal duty"),
        ("baker", "2026-11", None, "artisan-untaxed"),
    ],
)
def test_a_wrong_question_gets_a_sentence(
    category: str, period: str, base_minor: int | None, word: str
) -> None:
    with pytest.raises(Unusable, match=word):
        owed(category, period, base_minor)


@pytest.mark.parametrize(
    ("code", "starts_on", "ends_on"),
    [
        ("2026-11", date(2026, 11, 1), date(2026, 11, 30)),
        ("2024-02", date(2024, 2, 1), date(2024, 2, 29)),
        ("2026-Q1", date(2026, 1, 1), date(2026, 3, 31)),
        ("2026-Q4", date(2026, 10, 1), date(2026, 12, 31)),
    ],
)
def test_a_period_is_its_days(code: str, starts_on: date, ends_on: date) -> None:
    period = parse_period(code)
    assert (period.starts_on, period.ends_on) == (starts_on, ends_on)


@pytest.mark.parametrize("text", ["2026", "2026-13", "2026-00", "2026-Q5", "26-11", "2026-11 ", ""])
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(Unusable, match="not a period"):
        parse_period(text)


@given(st.dates(date(2021, 1, 1), date(2099, 12, 31)), st.sampled_from(Periodicity))
def test_a_day_lies_in_its_period(day: date, periodicity: Periodicity) -> None:
    period = period_of(day, periodicity)
    assert period.starts_on <= day <= period.ends_on
