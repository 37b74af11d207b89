"""Rights by hand, and what must hold for any payments."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dues.balances import Bill, Claim, Note, Relief
from gateway.dues.periods import parse_period
from gateway.dues.rights import (
    Because,
    Hold,
    OwedPeriod,
    RightsFacts,
    RightsState,
    Standing,
    owed_periods,
    standing_on,
)
from gateway.dues.tariff import RightsTerms
from gateway.models import LineKind

TERMS = RightsTerms(
    gap_months=6, wait_months=3, stage_months=1, grace_months=0, source="a law", verified=False
)
OPEN, CLOSED, WAITING = RightsState.OPEN, RightsState.CLOSED, RightsState.WAITING


def day(text: str) -> date:
    return date.fromisoformat(text)


def owed(period: str, settled_on: str | None = None) -> OwedPeriod:
    named = parse_period(period)
    return OwedPeriod(named, named.ends_on, day(settled_on) if settled_on else None)


def facts(*periods: OwedPeriod, **values: Any) -> RightsFacts:
    """Return the facts of one who owes from the first of these on, and goes on owing."""
    after = max(p.due_on for p in periods) + timedelta(days=1)
    next_due_on = (after + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    return RightsFacts(
        **{
            "owed": periods,
            "terms": lambda _: TERMS,
            "first_due_on": min(p.due_on for p in periods),
            "next_due_on": next_due_on,
            **values,
        }
    )


def at(known: RightsFacts, on: str) -> Standing:
    return standing_on(known, day(on))


def paid(first: int, last: int) -> list[OwedPeriod]:
    """Return months of 2025, each paid on its 20th."""
    return [owed(f"2025-{m:02d}", f"2025-{m:02d}-20") for m in range(first, last + 1)]


def unpaid(first: int, last: int, settled_on: str | None = None) -> list[OwedPeriod]:
    return [owed(f"2025-{m:02d}", settled_on) for m in range(first, last + 1)]


def test_cover_begins_the_month_after_the_first_due_month() -> None:
    # CPU: first due December 2021, cover from 1 January 2022.
    known = facts(owed("2021-Q4", "2021-12-10"))
    rights = at(known, "2021-12-31").rights
    assert (rights.state, rights.because, rights.reopens_on) == (
        WAITING,
        Because.STAGE,
        day("2022-01-01"),
    )
    rights = at(known, "2022-01-01").rights
    assert (rights.state, rights.since) == (OPEN, day("2022-01-01"))


def test_who_pays_in_time_has_rights_until_the_next_due_month_ends() -> None:
    said = at(facts(*paid(1, 5)), "2025-06-10")
    assert (said.up_to_date, said.since, said.late) == (True, None, ())
    assert said.settled == parse_period("2025-05")
    assert said.rights.state is OPEN
    assert said.rights.since == day("2025-02-01")
    assert said.rights.until == day("2025-06-30")
    assert (said.rights.source, said.rights.verified) == ("a law", False)


def test_an_unpaid_period_closes_with_its_due_month() -> None:
    known = facts(*paid(1, 3), owed("2025-04"))
    last = at(known, "2025-04-30")
    assert (last.up_to_date, last.rights.state, last.rights.until) == (
        True,
        OPEN,
        day("2025-04-30"),
    )
    said = at(known, "2025-05-01")
    assert (said.up_to_date, said.since) == (False, day("2025-05-01"))
    assert said.first_unpaid == parse_period("2025-04")
    assert (said.rights.state, said.rights.because, said.rights.since) == (
        CLOSED,
        Because.UNPAID,
        day("2025-05-01"),
    )
    # Paid today it would be open today.
    assert said.rights.reopens_on == day("2025-05-01")


def test_paid_again_is_open_again() -> None:
    said = at(facts(*paid(1, 3), owed("2025-04", "2025-05-12")), "2025-05-12")
    assert (said.up_to_date, said.since) == (True, day("2025-05-12"))
    assert (said.rights.state, said.rights.since) == (OPEN, day("2025-05-12"))


@pytest.mark.parametrize(
    ("last_unpaid", "settled_on", "opens_on"),
    [
        (8, "2025-09-10", "2025-09-10"),  # March to August: six months, no wait
        (9, "2025-10-10", "2026-02-01"),  # seven: November, December, January are waited
        (9, "2025-09-30", "2025-09-30"),  # the seventh in its own month
    ],
)
def test_more_than_six_months_unpaid_have_a_wait(
    last_unpaid: int, settled_on: str, opens_on: str
) -> None:
    known = facts(*paid(1, 2), *unpaid(3, last_unpaid, settled_on), next_due_on=day("2026-12-31"))
    opens = day(opens_on)
    assert at(known, settled_on).up_to_date
    assert at(known, settled_on).rights.state is (OPEN if opens == day(settled_on) else WAITING)
    if opens > day(settled_on):
        rights = standing_on(known, opens - timedelta(days=1)).rights
        assert (rights.state, rights.because, rights.reopens_on) == (WAITING, Because.GAP, opens)
    assert standing_on(known, opens).rights.since == opens


def test_six_months_behind_all_the_time_is_no_gap() -> None:
    """The oldest is paid each time before a seventh is late."""
    months = [owed(f"2025-{m:02d}", f"2025-{m + 6:02d}-15") for m in range(1, 7)]
    known = facts(*months, *paid(7, 12))
    assert at(known, "2025-12-15").rights.state is OPEN


def test_a_quarter_counts_as_three_months() -> None:
    two = [owed(q, "2025-11-03") for q in ("2025-Q1", "2025-Q2")]
    three = [*two, owed("2025-Q3", "2025-11-03")]
    assert at(facts(*two, owed("2025-Q3", "2025-09-01")), "2025-11-03").rights.state is OPEN
    assert at(facts(*three), "2025-11-03").rights.reopens_on == day("2026-03-01")


def test_what_closed_rights_would_wait_for_is_said_beforehand() -> None:
    rights = at(facts(*paid(1, 2), *unpaid(3, 9)), "2025-10-10").rights
    assert (rights.state, rights.reopens_on) == (CLOSED, day("2026-02-01"))


def test_grace_keeps_rights_open_and_nobody_up_to_date() -> None:
    known = facts(*paid(1, 3), owed("2025-04"), terms=lambda _: replace(TERMS, grace_months=1))
    said = at(known, "2025-05-31")
    assert (said.up_to_date, said.rights.state, said.rights.until) == (
        False,
        OPEN,
        day("2025-05-31"),
    )
    assert at(known, "2025-06-01").rights.state is CLOSED


def test_a_campaign_may_have_a_wait_of_its_own() -> None:
    """Loi 41-23: first payment in January, three months from the month after."""
    hold = Hold(day("2024-01-15"), day("2024-05-01"), "loi 41-23", verified=True)
    known = facts(owed("2023-12", "2024-01-15"), holds=[hold], next_due_on=day("2024-06-30"))
    rights = at(known, "2024-04-30").rights
    assert (rights.state, rights.because, rights.source, rights.verified) == (
        WAITING,
        Because.CAMPAIGN,
        "loi 41-23",
        True,
    )
    assert at(known, "2024-05-01").rights.state is OPEN


def test_who_has_left_keeps_what_was_paid_for() -> None:
    known = facts(*paid(1, 5), left=True)
    assert at(known, "2025-06-30").rights.until == day("2025-06-30")
    rights = at(known, "2025-07-01").rights
    assert (rights.state, rights.because, rights.reopens_on) == (CLOSED, Because.LEFT, None)


def test_without_a_bill_there_is_nothing_to_tell() -> None:
    known = RightsFacts([], lambda _: TERMS, day("2025-01-31"), day("2025-06-30"))
    said = at(known, "2025-06-10")
    assert said.up_to_date
    assert (said.rights.state, said.rights.because) == (WAITING, Because.NOTHING_BILLED)


# -- from the facts of an invoice -----------------------------------------------------------------

MAY = parse_period("2025-05")
RATES = lambda _: Decimal("0.01")  # noqa: E731


def periods_of(bill: Bill, *claims: Claim, on: str = "2025-12-31", **values: Any) -> list[Any]:
    found = owed_periods(MAY, bill, claims, RATES, day(on), **values)
    return [(str(p.due_on), p.settled_on and str(p.settled_on)) for p in found]


def test_a_period_is_settled_with_its_principal() -> None:
    bill = Bill(16352, MAY.ends_on)
    assert periods_of(bill) == [("2025-05-31", None)]
    half, rest = Claim(1, day("2025-05-20"), 8000), Claim(2, day("2025-06-02"), 8352)
    # The penalty of June is left, and closes nothing.
    assert periods_of(bill, half, rest) == [("2025-05-31", "2025-06-02")]
    assert periods_of(bill, half, rest, on="2025-06-01") == [("2025-05-31", None)]


def test_what_was_credited_was_never_owed() -> None:
    credited = Bill(16352, MAY.ends_on, [Note(LineKind.ADJUSTMENT, -16352, day("2025-09-09"))])
    assert periods_of(credited) == []
    assert periods_of(credited, on="2025-09-08") == [("2025-05-31", None)]
    back = replace(
        credited,
        notes=[
            *credited.notes,
            Note(LineKind.ADJUSTMENT, 16352, day("2025-10-10"), day("2025-10-31")),
        ],
    )
    assert periods_of(back) == [("2025-05-31", None)]


def test_a_later_charge_is_late_by_its_own_day() -> None:
    charge = Note(LineKind.ADJUSTMENT, 1000, day("2025-09-09"), day("2025-09-30"))
    bill = Bill(16352, MAY.ends_on, [charge])
    claim = Claim(1, day("2025-05-20"), 16352)
    assert periods_of(bill, claim) == [("2025-05-31", "2025-05-20"), ("2025-09-30", None)]


def test_a_remission_settles_and_its_breach_undoes_it() -> None:
    relief = Relief(day("2025-08-01"), principal_rate=Decimal(1))
    assert periods_of(Bill(16352, MAY.ends_on, reliefs=[relief])) == [("2025-05-31", "2025-08-01")]
    broken = replace(relief, ended_on=day("2025-10-01"))
    bill = Bill(16352, MAY.ends_on, reliefs=[broken])
    assert periods_of(bill) == [("2025-05-31", None)]
    assert periods_of(bill, on="2025-09-30") == [("2025-05-31", "2025-08-01")]


def test_a_plan_settles_what_it_spreads_while_it_stands() -> None:
    assert periods_of(Bill(16352, MAY.ends_on), in_plan_since=day("2025-07-10")) == [
        ("2025-05-31", "2025-07-10")
    ]


# -- what must hold -------------------------------------------------------------------------------

_START = date(2025, 1, 1)
_DELAYS = st.lists(st.none() | st.integers(-40, 500), min_size=1, max_size=16)


def _periods(delays: list[int | None]) -> list[OwedPeriod]:
    found = []
    for n, delay in enumerate(delays):
        period = parse_period(f"{2025 + n // 12}-{n % 12 + 1:02d}")
        settled = None if delay is None else period.ends_on + timedelta(days=delay)
        found.append(OwedPeriod(period, period.ends_on, settled))
    return found


_RANK = {CLOSED: 0, WAITING: 1, OPEN: 2}


@given(_DELAYS, st.integers(0, 16), st.integers(0, 400), st.integers(0, 700))
def test_paying_earlier_never_takes_rights_away(
    delays: list[int | None], which: int, earlier: int, later: int
) -> None:
    which %= len(delays)
    before = _periods(delays)
    delay = delays[which]
    delays[which] = earlier - 40 if delay is None else delay - earlier
    on = _START + timedelta(days=later)
    one, other = facts(*before), facts(*_periods(delays))
    assert _RANK[standing_on(other, on).rights.state] >= _RANK[standing_on(one, on).rights.state]


@given(_DELAYS, st.integers(0, 700), st.randoms(use_true_random=False))
def test_the_order_of_facts_does_not_matter_and_days_fit_together(
    delays: list[int | None], later: int, random: Random
) -> None:
    periods = _periods(delays)
    on = _START + timedelta(days=later)
    said = standing_on(facts(*periods), on)
    random.shuffle(periods)
    known = facts(*periods)
    assert standing_on(known, on) == said
    rights = said.rights
    if rights.since is not None:
        assert standing_on(known, rights.since).rights.state is rights.state
        assert standing_on(known, rights.since - timedelta(days=1)).rights.state is not rights.state
    if rights.state is WAITING:
        assert rights.reopens_on is not None
        assert rights.reopens_on > on
    # A day that is past says what it said, whatever is paid afterwards.
    more = [
        replace(p, settled_on=on + timedelta(days=1))
        if p.settled_on is None or p.settled_on > on
        else p
        for p in periods
    ]
    assert standing_on(facts(*more), on).rights.state is rights.state


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9000)), max_size=6),
    st.randoms(use_true_random=False),
)
def test_the_order_of_payments_on_a_day_does_not_matter(
    payments: list[tuple[int, int]], random: Random
) -> None:
    bill = Bill(
        16352, MAY.ends_on, [Note(LineKind.ADJUSTMENT, 900, day("2025-06-15"), day("2025-07-31"))]
    )
    claims = [
        Claim(n, day("2025-05-30") + timedelta(days=each), amount)
        for n, (each, amount) in enumerate(payments)
    ]
    said = periods_of(bill, *claims)
    random.shuffle(claims)
    assert periods_of(bill, *claims) == said
