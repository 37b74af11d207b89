from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from datetime import date, timedelta
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dues.balances import Bill, Claim, balance
from gateway.dues.periods import parse_period, period_of
from gateway.dues.quotes import Quote, penalty_line, quote
from gateway.dues.tariff import Tariff, read_tariff, tariff
from gateway.errors import Unusable
from gateway.models import LineKind, Periodicity
from gateway.money import format_amount, parse_amount

GOLDEN = Path(__file__).parents[2] / "golden" / "dues.toml"
SHIPPED = resources.files("gateway").joinpath("tariff.toml").read_text("utf-8")
CASES: list[dict[str, Any]] = tomllib.loads(GOLDEN.read_text("utf-8"))["row"]


def quoted(
    code: str, period: str, on: date, base: str | None = None, law: Tariff | None = None
) -> Quote:
    law = law or tariff()
    base_minor = None if base is None else parse_amount(base)
    return quote(law, law.of(code), parse_period(period), base_minor, on)


# -- the golden table -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(list(rows), id=code)
        for code, rows in groupby(
            sorted(CASES, key=lambda case: case["category"]), key=lambda case: case["category"]
        )
    ],
)
def test_dues_are_those_worked_out_by_hand(cases: list[dict[str, Any]]) -> None:
    for case in cases:
        for on, total in case["owed"]:
            found = quoted(case["category"], case["period"], on, case.get("base"))
            where = (case["period"], case.get("base"), on)
            assert (found.due_on, format_amount(found.total_minor)) == (case["due"], total), where
            principal = sum(
                line.amount_minor for line in found.lines if line.kind is LineKind.PRINCIPAL
            )
            assert format_amount(principal) == case["principal"], where
            assert bool(found.reason) == (case["principal"] == "0.00"), where


def test_the_golden_table_holds_every_category_and_each_change() -> None:
    periods: dict[str, set[str]] = {}
    for case in CASES:
        periods.setdefault(case["category"], set()).add(case["period"])
    assert periods.keys() == {category.code for category in tariff().category}
    for category in tariff().category:
        first = category.first_period
        before = period_of(first.starts_on - timedelta(days=1), first.periodicity)
        changes = {first.code, before.code}
        if category.periodicity is Periodicity.MONTH:
            days = [wage.since for wage in tariff().smig if wage.since > first.starts_on]
            for day in days:
                changes |= {f"{day:%Y-%m}", f"{day - timedelta(days=1):%Y-%m}"}
        assert changes <= periods[category.code]


# -- properties -----------------------------------------------------------------------------------

DAYS = st.dates(date(2021, 1, 1), date(2028, 12, 31))
CATEGORIES = st.sampled_from(tariff().category)
BASES = st.integers(0, 6_000_000)

NEXT_LAW = date(2029, 1, 1)


def with_later_figures(text: str) -> Tariff:
    """Return the law with a new figure at the end of each series that decides an amount."""
    end, begin = NEXT_LAW - timedelta(days=1), NEXT_LAW
    why = 'source = "a law to come"\nverified = true\n'
    for last, more in (
        ('from = 2026-01-01\nhourly = "17.92"\n', ("smig", 'hourly = "19.00"\n')),
        ('from = 2021-01-01\nvalue = "0.0637"\n', ("rate", 'value = "0.08"\n')),
        ('from = 2021-01-01\nvalue = "191"\n', ("hours_per_month", 'value = "180"\n')),
        ("from = 2021-01-01\nfollows_smig = true\n", ("indexation", "follows_smig = false\n")),
        ('from = 2021-01-01\nvalue = "0.01"\n', ("penalty_rule.rate", 'value = "0.05"\n')),
        ('from = 2021-12-01\nvalue = "0.75"\n', ("category.coefficient", 'value = "2"\n')),
    ):
        name, figure = more
        assert text.count(last) == 1
        at = text.index(last)
        stop = text.index("\n", text.index("verified", at)) + 1
        entry = text[at:stop].replace("\n", f"\nuntil = {end}\n", 1)
        added = f"\n[[{name}]]\nfrom = {begin}\n{figure}{why}"
        text = text[:at] + entry + added + text[stop:]
    return read_tariff(text)


LATER = with_later_figures(SHIPPED)


@given(CATEGORIES, DAYS, DAYS, BASES)
def test_a_past_day_is_quoted_alike_whatever_comes_later(
    category: Any, day: date, on: date, base_minor: int
) -> None:
    period = period_of(day, category.periodicity)
    now = quote(tariff(), category, period, base_minor, on)
    later = quote(LATER, LATER.of(category.code), period, base_minor, on)
    assert now == later


def test_what_comes_later_does_count_then() -> None:
    found = quoted("artisan-untaxed", "2029-01", date(2029, 2, 1), law=LATER)
    # 2 × 14.81 (dues follow the SMIG no more) × 180 × 8 %, and 5 % of it.
    assert [line.amount_minor for line in found.lines] == [42_653, 2_133]
    late = quoted("artisan-untaxed", "2028-11", date(2029, 1, 31), law=LATER)
    assert late.lines[1].facts == {"form": "late-months-by-date", "months": "2"}
    assert late.lines[1].amount_minor == 981  # 6 % of 163.52


@given(CATEGORIES, DAYS, DAYS, DAYS, BASES)
def test_lines_are_the_total_and_lateness_never_lowers_it(
    category: Any, day: date, one: date, other: date, base_minor: int
) -> None:
    period = period_of(day, category.periodicity)
    early, late = (quote(tariff(), category, period, base_minor, on) for on in sorted((one, other)))
    assert early.total_minor <= late.total_minor
    answer = late.as_json()
    assert sum(parse_amount(line["amount"]) for line in answer["lines"]) == late.total_minor
    assert parse_amount(answer["total"]) == late.total_minor
    penalties = [line for line in early.lines if line.kind is LineKind.PENALTY]
    if min(one, other) <= early.due_on:
        assert not penalties
    if not early.lines:
        assert early.reason
        assert period.starts_on < category.first_period.starts_on


# -- words and edges ------------------------------------------------------------------------------


def test_each_line_says_its_rule_its_source_and_whether_that_is_confirmed() -> None:
    artisan = quoted("artisan-untaxed", "2026-11", date(2026, 12, 1)).as_json()
    assert artisan["due_on"] == "2026-11-30"
    principal, penalty = artisan["lines"]
    assert principal["rule"] == "artisan-untaxed: 0.75 × SMIG 17.92/h × 191 h × 6.37 %"
    assert "décret 2-25-983" in principal["source"]
    assert penalty["rule"].startswith("1 % of the principal unpaid")
    assert penalty["amount"] == "1.64"
    assert (principal["verified"], penalty["verified"]) == (False, False)
    (exempt,) = quoted("cpu", "2026-Q4", date(2026, 11, 18), "0").as_json()["lines"]
    assert (exempt["amount"], exempt["verified"]) == ("300.00", True)
    (trader,) = quoted("accounts-real", "2026-11", date(2026, 11, 18), "50000.01").lines
    assert trader.rule.endswith("annual profit up to 100000.00")
    assert trader.facts["form"] == "share-up-to"


def test_the_penalty_line_says_what_has_come_up_whatever_was_paid() -> None:
    bill = Bill(16_352, date(2026, 1, 31))
    paid = Claim(1, date(2026, 3, 15), 16_352)
    on = date(2026, 11, 18)
    stands = balance(bill, [paid], tariff().penalty_rates("artisan-untaxed"), on)
    line = penalty_line(tariff(), "artisan-untaxed", stands, due_on=bill.due_on, on=on)
    assert line is not None
    assert line.amount_minor == 327  # February and March
    assert line.facts == {"form": "late-months", "rate": "1", "months": "2"}


@pytest.mark.parametrize(
    ("code", "period", "base", "word"),
    [
        ("cpu", "2026-11", None, "owed by the quarter"),
        ("artisan-untaxed", "2026-Q4", None, "owed by the month"),
        ("cpu", "2026-Q4", None, "annual principal duty"),
        ("accounts-real", "2021-12", None, "annual profit"),
        ("accounts-real", "2026-11", "-0.01", "negative"),
        ("baker", "2026-11", None, "artisan-untaxed"),
        ("artisan-untaxed", "9999-12", None, "2999"),
    ],
)
def test_a_wrong_question_gets_a_sentence(
    code: str, period: str, base: str | None, word: str
) -> None:
    with pytest.raises(Unusable, match=word):
        quoted(code, period, date(2026, 11, 18), base)


# -- the command ----------------------------------------------------------------------------------


def wasl(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `wasl quote` on its own; the addresses of its services would be refused if it asked."""
    nowhere = {"WASL_DATABASE_URL": "postgresql://127.0.0.1:1/none", "WASL_HOME": "/nonexistent"}
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", "quote", *words],
        env=os.environ | nowhere | more,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_quotes_without_a_database() -> None:
    done = wasl(
        *("--category", "cpu", "--base", "1000", "--period", "2026-Q3", "--on", "2026-11-18"),
        "--json",
    )
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert [(line["kind"], line["amount"]) for line in answer.pop("lines")] == [
        ("principal", "390.00"),
        ("penalty", "7.80"),
    ]
    assert answer == {"period": "2026-Q3", "due_on": "2026-09-30", "total": "397.80"}
    early = wasl("--category", "cpu", "--base", "0", "--period", "2021-Q3", "--on", "2026-11-18")
    assert early.returncode == 0
    assert "Nothing is owed: cpu is owed from 2021-Q4 on." in early.stdout


def test_a_law_of_its_own_needs_no_release(tmp_path: Path) -> None:
    law = tmp_path / "law.toml"
    law.write_text(
        SHIPPED.replace('version = "2026-11-22"', 'version = "mine"').replace("17.92", "20.00")
    )
    asked = ("--category", "artisan-untaxed", "--period", "2026-11", "--on", "2026-11-18")
    done = wasl(*asked, WASL_TARIFF=str(law))
    assert done.returncode == 0
    assert "tariff mine" in done.stdout
    assert "182.50 MAD" in done.stdout  # 0.75 × 20 × 191 × 6.37 %: 182.5005
    assert "[not confirmed]" in done.stdout
    law.write_text(SHIPPED.replace("until = 2023-08-31\nhourly", "until = 2023-08-30\nhourly"))
    wrong = wasl(*asked, WASL_TARIFF=str(law))
    assert (wrong.returncode, wrong.stdout) == (2, "")
    line = SHIPPED.splitlines().index('hourly = "16.29"') - 1
    assert f"{law} is wrong in line {line}, at smig.from: 2023-08-31 is missing" in wrong.stderr
    missing = wasl(*asked, WASL_TARIFF=str(tmp_path / "gone.toml"))
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    assert "gone.toml cannot be read" in missing.stderr
