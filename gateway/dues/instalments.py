"""Instalment plans: what falls due when, and how a plan stands on a day. Pure.

A plan spreads what is late over months. What has been paid on the invoices it covers since it was
made decides, by the payers' days, whatever reference they quoted and in whatever order we heard of
it. What is charged on these invoices later is not the plan's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum

from gateway.dues.balances import Relief, without_credits
from gateway.dues.campaigns import PlanRule, PlanSchedule
from gateway.dues.conditions import Because, Debt, day_in_month, missed_on
from gateway.errors import Unusable
from gateway.models import Component
from gateway.money import format_amount


class InstalmentState(StrEnum):
    """How an instalment stands on a day."""

    KEPT = "kept"
    DUE = "due"
    LATE = "late"
    """Its day has passed and something of it is unpaid; the plan may stand all the same."""


class PlanStanding(StrEnum):
    """How a plan stands on a day."""

    RUNNING = "running"
    LATE = "late"
    """An instalment or a current due is late, and it can still be made good."""
    KEPT = "kept"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Instalment:
    """What a plan asks for by a day, in centimes."""

    position: int
    due_on: date
    amount_minor: int


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """A plan and what bears on it."""

    made_on: date
    instalments: Sequence[Instalment]
    """By their days."""
    covered: Sequence[Debt]
    """What it spreads, with its reliefs as if none of them had ended."""
    others: Sequence[Debt]
    """The person's other invoices: those due from its making on are to be kept up."""

    @property
    def amount_minor(self) -> int:
        """What it spreads."""
        return sum(each.amount_minor for each in self.instalments)


@dataclass(frozen=True, slots=True)
class InstalmentNow:
    """An instalment on a day."""

    instalment: Instalment
    state: InstalmentState
    unpaid_minor: int


@dataclass(frozen=True, slots=True)
class PlanState:
    """How a plan stands on a day, in centimes."""

    standing: PlanStanding
    since: date | None
    """The day it was kept or broken; None while it stands."""
    because: Because | None
    paid_minor: int
    unpaid_minor: int
    instalments: tuple[InstalmentNow, ...]


def schedule(
    amount_minor: int, months: int, made_on: date, rule: PlanSchedule
) -> tuple[Instalment, ...]:
    """Return equal monthly instalments from the month after the making; one takes the remainder.

    Args:
        amount_minor: What is spread, in centimes.
        months: How many instalments.
        made_on: The day of the making.
        rule: On which day they fall due, and which one takes the remainder.

    Raises:
        Unusable: An instalment would come to nothing.
    """
    each, remainder = divmod(amount_minor, months)
    if each == 0:
        raise Unusable(f"{format_amount(amount_minor)} cannot be spread over {months} months.")
    takes = 1 if rule.remainder == "first" else months
    return tuple(
        Instalment(
            position,
            day_in_month(made_on, position, rule.due_day),
            each + (remainder if position == takes else 0),
        )
        for position in range(1, months + 1)
    )


def state_of(plan: PlanFacts, rule: PlanRule, on: date) -> PlanState:
    """Return how a plan stands on a day, as known by then."""
    paid_by = _payments_of(plan)
    paid_minor = paid_by(on)
    kept_on = _kept_on(plan, paid_by, on)
    broken_on, because = _broken(plan, rule, paid_by, on)
    instalments = _now(plan.instalments, paid_minor, on)
    since: date | None = None
    if broken_on is not None and (kept_on is None or broken_on <= kept_on):
        standing, since = PlanStanding.BROKEN, broken_on
    elif kept_on is not None:
        standing, since, because = PlanStanding.KEPT, kept_on, None
    else:
        late = _is_late(plan, instalments, on)
        standing = PlanStanding.LATE if late else PlanStanding.RUNNING
    unpaid_minor = plan.amount_minor - paid_minor
    return PlanState(standing, since, because, paid_minor, unpaid_minor, instalments)


def paid_by(plan: PlanFacts, day: date) -> int:
    """Return what of a plan is paid by the end of a day, in centimes."""
    return _payments_of(plan)(day)


PaidBy = Callable[[date], int]
"""What of a plan is paid by the end of a day, in centimes."""


def _payments_of(plan: PlanFacts) -> PaidBy:
    """Return `paid_by` of one plan for many days: what is due changes on few of them."""
    parts = []
    for debt in plan.covered:
        ends = (each.ended_on for each in debt.bill.reliefs if each.ended_on is not None)
        parts.append((debt, sorted({*debt.days(), *ends}), dict[int, int]()))

    def due_by(day: date) -> int:
        due_minor = 0
        for debt, changes, known in parts:
            at = bisect_right(changes, day)
            if at not in known:
                known[at] = _due_of_plan(debt, plan.made_on, day)
            due_minor += known[at]
        return due_minor

    # What was charged on the day of the making after it, or came back of what had been paid or
    # remitted before it, is due and not the plan's.
    spread_minor = max(plan.amount_minor, due_by(plan.made_on))

    def paid_by(day: date) -> int:
        return min(max(spread_minor - due_by(day), 0), plan.amount_minor)

    return paid_by


def _due_of_plan(debt: Debt, made_on: date, day: date) -> int:
    """Return what is due of an invoice, without what was charged on it after the making.

    Nor is a penalty that comes up since the plan's, where its rule lets one: it pays no less. What
    lies on the invoice and is not needed there while the plan stands pays its others: it was placed
    when the plan seemed broken. So this may be negative.
    """
    bill = without_credits(debt.bill, day)
    known = [note for note in bill.notes if note.noted_on <= made_on]
    spread = replace(debt, bill=replace(bill, notes=known))
    due_minor = spread.on(day, Relief(made_on, stops_penalty=True)).due_minor
    return due_minor - sum(debt.on(day).left.values())


def _kept_on(plan: PlanFacts, paid_by: PaidBy, on: date) -> date | None:
    """Return the first day by whose end all of a plan was paid."""
    days = {plan.made_on, *(day for debt in plan.covered for day in debt.days())}
    for day in sorted(day for day in days if plan.made_on <= day <= on):
        if paid_by(day) >= plan.amount_minor:
            return day
    return None


def _broken(
    plan: PlanFacts, rule: PlanRule, paid_by: PaidBy, on: date
) -> tuple[date | None, Because | None]:
    """Return the first day on which something had been unpaid for too long, and what."""
    instalment = _instalment_missed_on(plan, rule, paid_by, on)
    months = rule.breach.current_due_months
    current = missed_on(plan.others, plan.made_on, on, months, on)
    if current is not None and (instalment is None or current < instalment):
        return current, Because.CURRENT_DUE_UNPAID
    return instalment, Because.INSTALMENT_UNPAID if instalment else None


def _instalment_missed_on(
    plan: PlanFacts, rule: PlanRule, paid_by: PaidBy, on: date
) -> date | None:
    asked_minor = 0
    for each in plan.instalments:
        asked_minor += each.amount_minor
        last = day_in_month(each.due_on, rule.breach.instalment_months, rule.schedule.due_day)
        if last < on and paid_by(last) < asked_minor:
            return last + timedelta(days=1)
    return None


def _now(instalments: Sequence[Instalment], paid_minor: int, on: date) -> tuple[InstalmentNow, ...]:
    """Return each instalment on a day: money pays the first of them first."""
    found = []
    for each in instalments:
        unpaid_minor = each.amount_minor - min(paid_minor, each.amount_minor)
        paid_minor -= each.amount_minor - unpaid_minor
        if not unpaid_minor:
            state = InstalmentState.KEPT
        else:
            state = InstalmentState.LATE if each.due_on < on else InstalmentState.DUE
        found.append(InstalmentNow(each, state, unpaid_minor))
    return tuple(found)


def _is_late(plan: PlanFacts, instalments: Sequence[InstalmentNow], on: date) -> bool:
    if any(each.state is InstalmentState.LATE for each in instalments):
        return True
    return any(
        plan.made_on <= due_on < on and debt.is_overdue(due_on, on)
        for debt in plan.others
        for due_on in debt.charges()
    )


def is_late(debt: Debt, on: date) -> bool:
    """Say whether a plan that is made on a day spreads an invoice: it is late, and not paid."""
    found = debt.on(on)
    if not found.due_minor:
        return False
    overdue = found.payable_by is not None and found.payable_by < on
    return overdue or (found.due[Component.PRINCIPAL] == 0 and debt.bill.due_on < on)
