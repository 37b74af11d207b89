"""Instalment plans on their own: what falls due when, and how a plan stands on a day."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dues.balances import Note, Relief
from gateway.dues.campaigns import campaigns
from gateway.dues.conditions import Because, Debt
from gateway.dues.instalments import (
    Instalment,
    InstalmentState,
    PlanFacts,
    PlanStanding,
    is_late,
    paid_by,
    schedule,
    state_of,
)
from gateway.errors import Unusable
from gateway.models import LineKind
from tests.gateway.dues.test_campaigns import a_debt

MADE_ON = date(2026, 1, 15)
RULE = campaigns().plan_rule(MADE_ON)
KEPT, DUE, LATE = InstalmentState.KEPT, InstalmentState.DUE, InstalmentState.LATE


def a_plan(
    *paid: tuple[str, int], months: int = 3, others: tuple[Debt, ...] = (), late: str = "2025-10"
) -> PlanFacts:
    """Return a plan over 100.00 with 3.00 of penalty, and what was paid on which days.

    Due 31 October: three months have begun by 15 January.
    """
    owed = a_debt(late, *paid)
    relieved = replace(
        owed, bill=replace(owed.bill, reliefs=(Relief(MADE_ON, stops_penalty=True),))
    )
    parts = schedule(10_300, months, MADE_ON, RULE.schedule)
    return PlanFacts(MADE_ON, parts, [relieved], others)


def test_instalments_are_equal_and_the_last_takes_the_remainder() -> None:
    parts = schedule(10_300, 3, MADE_ON, RULE.schedule)
    assert parts == (
        Instalment(1, date(2026, 2, 28), 3_433),
        Instalment(2, date(2026, 3, 31), 3_433),
        Instalment(3, date(2026, 4, 30), 3_434),
    )
    first = schedule(
        10_300, 3, MADE_ON, RULE.schedule.model_copy(update={"remainder": "first", "due_day": 5})
    )
    assert [(each.due_on.day, each.amount_minor) for each in first] == [
        (5, 3_434),
        (5, 3_433),
        (5, 3_433),
    ]
    with pytest.raises(Unusable, match="cannot be spread over 24"):
        schedule(23, 24, MADE_ON, RULE.schedule)


def test_a_rule_that_lets_the_penalty_go_on_asks_for_no_more_than_its_instalments() -> None:
    plan = a_plan(("2026-02-28", 3_433), ("2026-03-31", 3_433), ("2026-04-30", 3_434))
    bill = replace(plan.covered[0].bill, reliefs=())
    plan = replace(plan, covered=[replace(plan.covered[0], bill=bill)])
    assert plan.covered[0].on(date(2026, 5, 1)).due_minor > 0
    assert state_of(plan, RULE, date(2026, 5, 1)).standing is PlanStanding.KEPT


def test_a_plan_that_is_kept() -> None:
    plan = a_plan(("2026-02-28", 3_433), ("2026-03-10", 3_433), ("2026-04-30", 3_434))
    state = state_of(plan, RULE, date(2026, 3, 1))
    assert state.standing is PlanStanding.RUNNING
    assert (state.paid_minor, state.unpaid_minor) == (3_433, 6_867)
    assert [each.state for each in state.instalments] == [KEPT, DUE, DUE]
    for on in (date(2026, 4, 30), date(2027, 1, 1)):
        state = state_of(plan, RULE, on)
        assert (state.standing, state.since) == (PlanStanding.KEPT, date(2026, 4, 30))
        assert state.unpaid_minor == 0
    # All at once is as good.
    whole = a_plan(("2026-02-02", 10_300))
    assert state_of(whole, RULE, date(2026, 2, 2)).since == date(2026, 2, 2)


def test_late_until_the_next_falls_due_and_broken_the_day_after() -> None:
    plan = a_plan(("2026-03-31", 3_432), ("2026-04-01", 6_868))
    late = state_of(plan, RULE, date(2026, 3, 1))
    assert (late.standing, late.since) == (PlanStanding.LATE, None)
    assert [each.state for each in late.instalments] == [LATE, DUE, DUE]
    last = state_of(plan, RULE, date(2026, 3, 31))
    assert last.standing is PlanStanding.LATE
    assert last.instalments[0].unpaid_minor == 1
    for on in (date(2026, 4, 1), date(2027, 1, 1)):
        broken = state_of(plan, RULE, on)
        assert (broken.standing, broken.since, broken.because) == (
            PlanStanding.BROKEN,
            date(2026, 4, 1),
            Because.INSTALMENT_UNPAID,
        )
    in_time = a_plan(("2026-03-31", 3_433), ("2026-04-01", 6_867))
    assert state_of(in_time, RULE, date(2026, 4, 1)).standing is PlanStanding.KEPT


def test_current_dues_are_to_be_kept_up() -> None:
    february = a_debt("2026-02")
    paid = [("2026-02-28", 3_433), ("2026-03-10", 3_433)]
    plan = a_plan(*paid, others=(february, a_debt("2025-12")))
    assert state_of(plan, RULE, date(2026, 2, 28)).standing is PlanStanding.RUNNING
    assert state_of(plan, RULE, date(2026, 3, 31)).standing is PlanStanding.LATE
    broken = state_of(plan, RULE, date(2026, 5, 1))
    assert (broken.since, broken.because) == (date(2026, 4, 1), Because.CURRENT_DUE_UNPAID)
    # December was late before and is not in this plan: it breaks nothing; nor does a kept plan.
    old = a_plan(*paid, others=(a_debt("2025-12"),))
    assert state_of(old, RULE, date(2026, 4, 30)).standing is PlanStanding.RUNNING
    kept = a_plan(("2026-03-31", 10_300), others=(february,))
    assert state_of(kept, RULE, date(2026, 9, 1)).standing is PlanStanding.KEPT


def test_what_is_charged_later_on_a_covered_invoice_is_not_the_plans() -> None:
    plan = a_plan(("2026-02-28", 3_433), ("2026-03-31", 3_433), ("2026-04-30", 3_434))
    fee = Note(LineKind.FEE, 2_500, date(2026, 2, 10), date(2026, 3, 31))
    charge = Note(LineKind.ADJUSTMENT, 4_000, date(2026, 2, 10), date(2026, 3, 31))
    for note in (fee, charge):
        [debt] = plan.covered
        charged = replace(plan, covered=[replace(debt, bill=replace(debt.bill, notes=(note,)))])
        assert state_of(charged, RULE, date(2026, 4, 30)).standing is PlanStanding.KEPT
    # Nor what was charged on the very day, after the plan was made.
    [debt] = plan.covered
    fee = Note(LineKind.FEE, 2_500, MADE_ON, date(2026, 3, 31))
    charged = replace(plan, covered=[replace(debt, bill=replace(debt.bill, notes=(fee,)))])
    assert state_of(charged, RULE, date(2026, 4, 30)).standing is PlanStanding.KEPT
    credit = Note(LineKind.ADJUSTMENT, -5_000, date(2026, 2, 10))
    [debt] = a_plan(("2026-02-28", 3_433)).covered
    less = replace(plan, covered=[replace(debt, bill=replace(debt.bill, notes=(credit,)))])
    # A credit counts from the beginning: half of the principal, and half of the penalty.
    assert paid_by(less, date(2026, 2, 28)) == 5_000 + 150 + 3_433


def test_only_what_is_late_is_spread() -> None:
    assert is_late(a_debt("2025-12"), MADE_ON)
    assert not is_late(a_debt("2026-01"), MADE_ON)
    assert not is_late(a_debt("2025-12", ("2025-12-31", 10_000)), MADE_ON)
    assert is_late(a_debt("2025-12", ("2026-01-02", 10_000)), MADE_ON)  # its penalty is unpaid
    assert not is_late(a_debt("2026-01"), date(2026, 1, 31))
    assert is_late(a_debt("2026-01"), date(2026, 2, 1))


@settings(max_examples=150, deadline=None)
@given(
    amount=st.integers(1, 10**9),
    months=st.integers(1, 24),
    made_on=st.dates(date(2023, 1, 1), date(2027, 12, 31)),
)
def test_instalments_sum_to_what_is_spread(amount: int, months: int, made_on: date) -> None:
    if amount < months:
        return
    parts = schedule(amount, months, made_on, RULE.schedule)
    assert sum(each.amount_minor for each in parts) == amount
    assert len(parts) == months
    assert all((each.due_on + timedelta(days=1)).day == 1 for each in parts)
    assert parts[0].due_on > made_on


@settings(max_examples=150, deadline=None)
@given(
    paid=st.lists(
        st.tuples(st.dates(date(2026, 1, 1), date(2026, 8, 1)), st.integers(1, 6_000)), max_size=6
    ),
    shuffled=st.randoms(use_true_random=False),
    on=st.dates(MADE_ON, date(2026, 9, 1)),
    later=st.integers(0, 300),
)
def test_the_day_of_the_end_does_not_depend_on_arrival_or_on_who_looks_when(
    paid: list[tuple[date, int]], shuffled: object, on: date, later: int
) -> None:
    days = [(day.isoformat(), minor) for day, minor in paid]
    plan = a_plan(*days)
    state = state_of(plan, RULE, on)
    if state.since is not None:
        again = state_of(plan, RULE, on + timedelta(days=later))
        assert (again.standing, again.since) == (state.standing, state.since)
        assert state.since <= on
    shuffled.shuffle(days)  # type: ignore[attr-defined]
    assert state_of(a_plan(*days), RULE, on) == state
    assert sum(each.unpaid_minor for each in state.instalments) == state.unpaid_minor
