"""The campaigns file, and who has earned what by when: amounts worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dues.balances import Bill, Claim, Note, Relief
from gateway.dues.campaigns import Campaign, Condition, campaigns, read_campaigns
from gateway.dues.conditions import (
    Because,
    Debt,
    RemissionStanding,
    RemissionState,
    about,
    earned,
    month_end,
    state_of,
    unpaid_months,
    with_plan,
)
from gateway.dues.periods import parse_period
from gateway.errors import Unusable
from gateway.models import Component, LineKind

SHIPPED = Path("gateway/campaigns.toml")
FIVE_PERCENT = Decimal("0.05")


def one_percent(_month: date) -> Decimal:
    return Decimal("0.01")


def no_penalty(_month: date) -> Decimal:
    return Decimal(0)


def a_debt(period: str, *paid: tuple[str, int], amount: int = 10_000, **values: object) -> Debt:
    """Return 100.00 owed for a period, at 1 % a month, and what was paid of it on which days."""
    named = parse_period(period)
    claims = [
        Claim(f"{period}/{at}", date.fromisoformat(day), minor)
        for at, (day, minor) in enumerate(paid)
    ]
    fields = {
        "invoice_id": named.ends_on.toordinal(),
        "period": named,
        "bill": Bill(amount, named.ends_on),
        "claims": tuple(claims),
        "rates": one_percent,
        **values,
    }
    return Debt(**fields)  # type: ignore[arg-type]


def decision_03() -> Campaign:
    return campaigns().of("decision-03-2023")


def loi_41() -> Campaign:
    return campaigns().of("loi-41-23")


def after_grant(debts: list[Debt], reliefs: dict[int, Relief]) -> list[Debt]:
    return [
        replace(d, bill=replace(d.bill, reliefs=(*d.bill.reliefs, reliefs[d.invoice_id])))
        if d.invoice_id in reliefs
        else d
        for d in debts
    ]


# -- ministerial decision 03/2023 ------------------------------------------------------------------


def test_principal_in_full_within_the_window_remits_penalty_and_fees() -> None:
    fee = Note(LineKind.FEE, 5_000, date(2023, 1, 5), date(2023, 1, 31))
    october = a_debt("2022-10", ("2023-03-10", 10_000))
    december = a_debt("2022-12", ("2023-04-05", 10_000))
    october = replace(october, bill=replace(october.bill, notes=(fee,)))
    debts = [october, december]
    # October: five months begun by 10 March, 5 %; the fee. Without the campaign 55.00 stay due.
    assert october.on(date(2023, 4, 5)).due == {
        Component.PRINCIPAL: 0,
        Component.PENALTY: 500,
        Component.FEE: 5_000,
    }
    assert earned(decision_03(), debts, date(2023, 4, 4)) is None
    grant = earned(decision_03(), debts, date(2026, 1, 1))
    assert grant is not None
    assert (grant.granted_on, grant.offer.condition) == (date(2023, 4, 5), Condition.PAID_IN_FULL)
    assert grant.state == RemissionState(RemissionStanding.KEPT, date(2023, 4, 5))
    granted = after_grant(debts, grant.reliefs)
    assert [debt.on(date(2026, 1, 1)).due_minor for debt in granted] == [0, 0]
    assert granted[0].on(date(2026, 1, 1)).remitted_minor == {
        Component.PENALTY: 500,
        Component.FEE: 5_000,
    }
    # December: four months begun by 5 April.
    assert granted[1].on(date(2026, 1, 1)).remitted_minor == {Component.PENALTY: 400}


@pytest.mark.parametrize(
    ("paid", "granted_on"),
    [
        ([("2023-02-20", 10_000)], date(2023, 2, 21)),  # before: the window's first day finds it so
        ([("2023-02-21", 10_000)], date(2023, 2, 21)),
        ([("2023-06-30", 10_000)], date(2023, 6, 30)),
        ([("2023-03-01", 4_000), ("2023-05-02", 6_000)], date(2023, 5, 2)),
        ([("2023-06-30", 9_999), ("2023-07-01", 1_000)], None),
        ([("2023-07-01", 10_000)], None),
    ],
)
def test_the_window_and_the_whole_principal_decide(
    paid: list[tuple[str, int]], granted_on: date | None
) -> None:
    debts = [a_debt("2022-10", *paid), a_debt("2023-02")]
    grant = earned(decision_03(), debts, date(2024, 1, 1))
    assert (grant and grant.granted_on) == granted_on


def test_what_fell_due_since_the_campaign_began_is_not_remitted() -> None:
    debts = [a_debt("2022-10", ("2023-05-02", 10_000)), a_debt("2023-02", ("2023-05-02", 10_000))]
    grant = earned(decision_03(), debts, date(2024, 1, 1))
    assert grant is not None
    assert list(grant.reliefs) == [debts[0].invoice_id]


def test_a_payment_taken_back_is_as_if_nothing_had_been_granted() -> None:
    debts = [a_debt("2022-10", ("2023-05-02", 10_000))]
    grant = earned(decision_03(), debts, date(2024, 1, 1))
    assert grant is not None
    granted = after_grant(debts, grant.reliefs)
    on = date(2024, 1, 1)
    assert state_of(decision_03(), grant.granted_on, granted, on).standing is RemissionStanding.KEPT
    taken_back = [replace(granted[0], claims=())]
    assert state_of(decision_03(), grant.granted_on, taken_back, on) == RemissionState(
        RemissionStanding.BROKEN, date(2023, 5, 2), Because.PAYMENT_TAKEN_BACK
    )


def test_an_arrangement_of_at_most_24_months_within_the_window() -> None:
    debts = [a_debt("2022-10")]
    grant = with_plan(decision_03(), debts, 24, date(2023, 6, 30))
    [debt] = after_grant(debts, grant.reliefs)
    # Eight months begun by 30 June: 8.00 of penalty, remitted.
    assert debt.on(date(2023, 6, 30)).remitted_minor == {Component.PENALTY: 800}
    assert debt.on(date(2023, 6, 30)).due_minor == 10_000
    with pytest.raises(Unusable, match="no offer for a plan of 25 months"):
        with_plan(decision_03(), debts, 25, date(2023, 6, 30))
    with pytest.raises(Unusable, match="runs from 2023-02-21 to 2023-06-30"):
        with_plan(decision_03(), debts, 24, date(2023, 7, 1))
    with pytest.raises(Unusable, match="nothing to remit"):
        with_plan(decision_03(), [a_debt("2023-05")], 24, date(2023, 6, 30))


# -- loi 41-23 -------------------------------------------------------------------------------------


OLD = ["2023-08", "2023-09", "2023-10", "2023-11"]
MONTHS = [f"2024-{month:02d}" for month in range(2, 13)] + ["2025-01", "2025-02", "2025-03"]


def regular(first: str = "2024-02-10", *, missed: str | None = None, late: str = "") -> list[Debt]:
    """Return four old unpaid months, December 2023 paid first, and all months since February."""
    paid = [a_debt("2023-12", (first, 10_000)), a_debt("2024-01")]
    for month in MONTHS:
        day = late if month == missed else f"{month}-20"
        paid.append(a_debt(month, *([(day, 10_000)] if day else [])))
    return [*map(a_debt, OLD), *paid]


def test_twelve_regular_months_cancel_the_old_debts_for_good() -> None:
    debts = regular()
    assert unpaid_months(about(loi_41(), debts), date(2024, 1, 1)) == 4
    assert earned(loi_41(), debts, date(2024, 2, 9)) is None
    grant = earned(loi_41(), debts, date(2024, 2, 10))
    assert grant is not None
    assert (grant.granted_on, grant.state.standing) == (
        date(2024, 2, 10),
        RemissionStanding.RUNNING,
    )
    assert len(grant.reliefs) == 4
    granted = after_grant(debts, grant.reliefs)
    assert sum(debt.on(date(2024, 2, 10)).due_minor for debt in granted[:4]) == 0
    # March 2024 to February 2025 are the twelve months.
    assert state_of(loi_41(), grant.granted_on, granted, date(2025, 2, 28)).standing is (
        RemissionStanding.RUNNING
    )
    assert state_of(loi_41(), grant.granted_on, granted, date(2025, 3, 1)) == RemissionState(
        RemissionStanding.KEPT, date(2025, 3, 1)
    )
    # Who was not billed for all twelve has not paid them.
    billed_late = [debt for debt in granted if debt.period.code < "2025-02"]
    assert state_of(loi_41(), grant.granted_on, billed_late, date(2025, 3, 1)).standing is (
        RemissionStanding.RUNNING
    )
    kept = regular(missed="2025-02", late="2025-03-31")
    assert state_of(loi_41(), date(2024, 2, 10), kept, date(2026, 1, 1)) == RemissionState(
        RemissionStanding.KEPT, date(2025, 3, 31)
    )


@pytest.mark.parametrize(
    ("month", "late", "broken_on"),
    [
        ("2024-03", "", date(2024, 5, 1)),
        ("2024-03", "2024-05-01", date(2024, 5, 1)),
        ("2024-03", "2024-04-30", None),
        ("2025-02", "", date(2025, 4, 1)),
        ("2024-02", "", None),  # the month of the first payment itself is not one of the twelve
        ("2025-03", "", None),  # nor is the thirteenth
    ],
)
def test_a_month_that_stays_unpaid_brings_everything_back(
    month: str, late: str, broken_on: date | None
) -> None:
    debts = regular(missed=month, late=late)
    state = state_of(loi_41(), date(2024, 2, 10), debts, date(2026, 1, 1))
    assert (state.since if state.standing is RemissionStanding.BROKEN else None) == broken_on
    if broken_on is not None:
        assert state.because is Because.CURRENT_DUE_UNPAID
        before = state_of(loi_41(), date(2024, 2, 10), debts, broken_on - timedelta(days=1))
        assert before.standing is RemissionStanding.RUNNING
        # Who has broken it does not have it granted when somebody looks later.
        assert earned(loi_41(), debts, date(2026, 1, 1)) is None


def test_a_first_payment_taken_back_is_no_beginning() -> None:
    debts = [
        replace(debt, claims=()) if debt.period.code == "2023-12" else debt for debt in regular()
    ]
    # February's own, on the 20th, is the first now: what counted from the 10th has never been.
    state = state_of(loi_41(), date(2024, 2, 10), debts, date(2024, 4, 1))
    assert state == RemissionState(
        RemissionStanding.BROKEN, date(2024, 2, 10), Because.PAYMENT_TAKEN_BACK
    )
    grant = earned(loi_41(), debts, date(2024, 4, 1))
    assert grant is not None
    assert grant.granted_on == date(2024, 2, 20)


@pytest.mark.parametrize("first", ["2023-12-31", "2024-05-01"])
def test_the_first_payment_lies_within_the_window(first: str) -> None:
    debts = [debt for debt in regular(first) if debt.period.code <= "2023-12"]
    assert earned(loi_41(), debts, date(2024, 6, 1)) is None


def test_fewer_than_three_unpaid_months_are_not_enough_and_a_quarter_is_three() -> None:
    december = a_debt("2023-12", ("2024-01-15", 10_000))
    on = date(2024, 1, 20)
    two = [a_debt("2023-10"), a_debt("2023-11"), december]
    assert earned(loi_41(), two, on) is None
    quarter = [a_debt("2023-Q3"), a_debt("2023-Q4", ("2024-01-15", 10_000))]
    grant = earned(loi_41(), quarter, on)
    assert grant is not None
    # The fourth quarter ends after November 2023: its debt stays, and its payment counts.
    assert list(grant.reliefs) == [quarter[0].invoice_id]
    # One paid on New Year's day was still unpaid when the window opened.
    three = [a_debt("2023-09", ("2024-01-01", 10_000)), *two]
    assert earned(loi_41(), three, on) is not None


# -- decision 005/2023 -----------------------------------------------------------------------------


def test_the_employers_pattern_in_figures() -> None:
    [pattern] = [each for each in campaigns().campaign if each.whose == "employers"]
    unpaid = {"principal": 10_000_000, "penalty": 1_234_567, "fee": 33_335, "surcharge": 99_999}
    plain = pattern.plain_offer
    assert plain is not None
    assert plain.remitted(**unpaid) == {
        "principal": 0,
        "penalty": 740_740,  # 12 345.67 × 0.6 = 7 407.402
        "fee": 20_001,  # 333.35 × 0.6 = 200.01
        "surcharge": 89_999,  # 999.99 × 0.9 = 899.991
    }
    assert pattern.plan_offer(24).remitted(**unpaid) == {
        "principal": 0,
        "penalty": 617_284,  # 6 172.835: half up
        "fee": 16_668,  # 166.675: half up
        "surcharge": 79_999,  # 799.992
    }
    assert pattern.plan_offer(25).remitted(**unpaid) == {
        "principal": 0,
        "penalty": 493_827,  # 4 938.268
        "fee": 13_334,  # 133.34
        "surcharge": 69_999,  # 699.993
    }
    assert (pattern.since, pattern.until) == (date(2023, 11, 7), date(2025, 1, 15))
    with pytest.raises(Unusable, match="for employers"):
        campaigns().of(pattern.code)


def test_sixty_per_cent_leave_the_rest_to_be_paid_in_full() -> None:
    """The same decision on invoices: 100 000.00 due in 2023-09 with 13 months' penalty, 13 %."""
    [pattern] = [each for each in campaigns().campaign if each.whose == "employers"]
    owed = a_debt("2023-09", amount=10_000_000)
    on = date(2024, 10, 15)
    assert owed.on(on).due[Component.PENALTY] == 1_300_000
    short = a_debt("2023-09", ("2024-10-15", 10_519_999), amount=10_000_000)
    full = a_debt("2023-09", ("2024-10-15", 10_520_000), amount=10_000_000)
    assert earned(pattern, [short], date(2025, 1, 15)) is None
    grant = earned(pattern, [full], on)
    assert grant is not None
    [debt] = after_grant([full], grant.reliefs)
    assert debt.on(on).remitted_minor == {Component.PENALTY: 780_000}
    assert (debt.on(on).due_minor, debt.on(on).paid_minor) == (0, 10_520_000)


# -- there and back --------------------------------------------------------------------------------

_days = st.dates(date(2023, 1, 1), date(2024, 12, 31))


@settings(max_examples=200, deadline=None)
@given(
    paid=st.lists(st.tuples(_days, st.integers(1, 12_000)), max_size=5),
    share=st.sampled_from(["0.4", "0.5", "0.6", "1"]),
    granted_on=_days,
    span=st.integers(0, 400),
    on=_days,
    stops=st.booleans(),
)
def test_what_is_broken_is_as_if_it_had_never_been_granted(
    paid: list[tuple[date, int]],
    share: str,
    granted_on: date,
    span: int,
    on: date,
    stops: bool,
) -> None:
    never = a_debt("2022-12", *((day.isoformat(), minor) for day, minor in paid))
    ended_on = granted_on + timedelta(days=span)
    relief = Relief(granted_on, Decimal(share), Decimal(share), Decimal(share), stops, ended_on)
    broken = replace(never, bill=replace(never.bill, reliefs=(relief,)))
    assert broken.on(max(on, ended_on)) == never.on(max(on, ended_on))
    while_it_stood = broken.on(min(on, ended_on - timedelta(days=1)))
    assert sum(while_it_stood.left.values()) + while_it_stood.paid_minor == sum(
        minor for day, minor in paid if day <= min(on, ended_on - timedelta(days=1))
    )


# -- the file --------------------------------------------------------------------------------------


def test_the_shipped_file_says_whose_word_each_figure_is() -> None:
    file = campaigns()
    assert [each.code for each in file.campaign] == [
        "decision-03-2023",
        "loi-41-23",
        "decision-005-2023",
    ]
    assert not file.plan_rule(date(2026, 11, 22)).span.verified
    with pytest.raises(Unusable, match="no rule for plans made on 2020-12-31"):
        file.plan_rule(date(2020, 12, 31))
    assert not loi_41().breach.verified
    rights = loi_41().rights
    assert rights is not None
    assert rights.wait_months == 3
    assert month_end(date(2024, 1, 31), 1) == date(2024, 2, 29)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('fee = "0.6"', 'fee = "1.6"', "a share lies from 0 to 1"),
        ('fee = "0.6"', 'fee = "0.60001"', "at most 4 decimals"),
        ('fee = "0.6"', "fee = 0.6", "between quotes"),
        ("until = 2023-06-30", "until = 2023-01-30", "the window ends before it begins"),
        ("months_over = 24", "months_over = 23", "two offers are for a plan of 24 months"),
        ("grace_months = 1\nprincipal", "principal", "belong to regular-payment"),
        ('code = "loi-41-23"', 'code = "decision-03-2023"', "is there already"),
        ("due_before = 2023-02-21", "", "give either periods_until or due_before"),
        ("wait_months = 3", "wait_month = 3", "line 94.*rights"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(old: str, new: str, sentence: str) -> None:
    text = SHIPPED.read_text("utf-8")
    assert text.count(old) >= 1
    with pytest.raises(Unusable, match=sentence):
        read_campaigns(text.replace(old, new, 1))


def test_another_file_takes_the_place_of_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = tmp_path / "campaigns.toml"
    chosen.write_text(SHIPPED.read_text("utf-8").replace("2026-11-22", "ours"), "utf-8")
    monkeypatch.setenv("WASL_CAMPAIGNS", str(chosen))
    campaigns.cache_clear()
    try:
        assert campaigns().version == "ours"
        chosen.unlink()
        campaigns.cache_clear()
        with pytest.raises(Unusable, match="WASL_CAMPAIGNS"):
            campaigns()
    finally:
        monkeypatch.undo()
        campaigns.cache_clear()
