"""What a campaign asks of whoever owes, and how a remission stands that was granted. Pure.

Decisions go by days: when a condition was met and when it was broken follows from what was paid
when, not from the day somebody looks.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum
from typing import Final

from gateway.dues.balances import Balance, Bill, Claim, Rates, Relief, balance
from gateway.dues.campaigns import Campaign, Condition, Offer
from gateway.dues.periods import Period
from gateway.errors import Unusable
from gateway.models import Component, LineKind, Periodicity


@dataclass(frozen=True, slots=True)
class Debt:
    """One invoice of a person that is not cancelled, with what was paid of it."""

    invoice_id: int
    period: Period
    bill: Bill
    claims: tuple[Claim, ...]
    rates: Rates

    def on(self, day: date, *more: Relief) -> Balance:
        """Return what it comes to at the end of a day, with reliefs that are not granted yet."""
        return balance(self._with(more), self.claims, self.rates, day)

    def before(self, day: date) -> Balance:
        """Return what it comes to on a day, before the payments of that day."""
        earlier = [claim for claim in self.claims if claim.paid_on < day]
        return balance(self.bill, earlier, self.rates, day)

    def _with(self, more: Sequence[Relief]) -> Bill:
        return replace(self.bill, reliefs=(*self.bill.reliefs, *more)) if more else self.bill

    def charges(self) -> list[date]:
        """Return by when the invoice, and each later charge on it, was or is to be paid."""
        later = [
            note.due_on
            for note in self.bill.notes
            if note.kind is LineKind.ADJUSTMENT and note.due_on is not None
        ]
        return [self.bill.due_on, *later]

    def is_overdue(self, due_on: date, day: date) -> bool:
        """Say whether at the end of a day principal is unpaid that was due by another."""
        payable_by = self.on(day).payable_by
        return payable_by is not None and payable_by <= due_on

    def days(self) -> set[date]:
        """Return the days on which something but time changed what is due."""
        return {
            *(claim.paid_on for claim in self.claims),
            *(note.noted_on for note in self.bill.notes),
            *(relief.granted_on for relief in self.bill.reliefs),
        }

    def months(self) -> int:
        """Return how many months it is for."""
        return 1 if self.period.periodicity is Periodicity.MONTH else 3


def about(campaign: Campaign, debts: Iterable[Debt]) -> list[Debt]:
    """Return those debts that a campaign is about."""
    return [debt for debt in debts if campaign.debts.hold(debt.period, debt.bill.due_on)]


def month_end(day: date, months: int = 0) -> date:
    """Return the last day of the month so many months after a day's."""
    return day_in_month(day, months, 31)


def day_in_month(day: date, months: int, number: int) -> date:
    """Return a day of the month so many months after a day's; its last, where it is shorter."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(number, last))


def missed_on(
    debts: Iterable[Debt], since: date, until: date, grace_months: int, on: date
) -> date | None:
    """Return the first day on which a due of these days had been unpaid for too long.

    Args:
        debts: Of one person.
        since: The first due day that counts.
        until: The last one.
        grace_months: A due may be paid until the end of so many months after its own.
        on: What is known on this day; it itself is still in time.
    """
    found: date | None = None
    for debt in debts:
        for due_on in debt.charges():
            last = month_end(due_on, grace_months)
            late = since <= due_on <= until and last < on and (found is None or last < found)
            if late and debt.is_overdue(due_on, last):
                found = last + timedelta(days=1)
    return found


def settled_on(debts: Iterable[Debt], since: date, until: date, on: date) -> date | None:
    """Return since when all dues of these days are paid; None while one is not."""
    latest = since
    for debt in debts:
        for due_on in debt.charges():
            if not since <= due_on <= until:
                continue
            days = sorted({due_on, *debt.days()})
            paid = (day for day in days if day <= on and not debt.is_overdue(due_on, day))
            first = next(paid, None)
            if first is None:
                return None
            latest = max(latest, first)
    return latest


class RemissionStanding(StrEnum):
    """Where a granted remission is."""

    RUNNING = "running"
    KEPT = "kept"
    BROKEN = "broken"


class Because(StrEnum):
    """Why a remission or a plan was broken."""

    INSTALMENT_UNPAID = "instalment-unpaid"
    CURRENT_DUE_UNPAID = "current-due-unpaid"
    PAYMENT_TAKEN_BACK = "payment-taken-back"
    """What was paid in full, or the first payment of regular ones, was refunded or reversed."""
    PLAN_BROKEN = "plan-broken"


@dataclass(frozen=True, slots=True)
class RemissionState:
    """How a remission stands, and since when; running ones have no day."""

    standing: RemissionStanding
    since: date | None = None
    because: Because | None = None


RUNNING: Final = RemissionState(RemissionStanding.RUNNING)


@dataclass(frozen=True, slots=True)
class Grant:
    """A remission that a person has earned, or has the use of while the condition runs."""

    offer: Offer
    granted_on: date
    reliefs: dict[int, Relief]
    """By invoice: those on which it remits something."""
    state: RemissionState = RUNNING
    """How it stands on the day of the decision; never broken."""


def unpaid_months(debts: Iterable[Debt], on: date) -> int:
    """Return how many months had unpaid principal at the beginning of a day."""
    return sum(d.months() for d in debts if d.before(on).due[Component.PRINCIPAL] > 0)


def is_for(campaign: Campaign, debts: Sequence[Debt]) -> bool:
    """Say whether a person had debts enough when the campaign began."""
    its_debts = about(campaign, debts)
    months = unpaid_months(its_debts, campaign.since)
    return bool(its_debts) and months >= campaign.minimum_unpaid_months


def earned(campaign: Campaign, debts: Sequence[Debt], on: date) -> Grant | None:
    """Return the remission without a plan that a person has on a day; None: none, or none any more.

    Args:
        campaign: One of the self-employed.
        debts: All of the person's.
        on: The day.
    """
    offer = campaign.plain_offer
    if offer is None or on < campaign.since or not is_for(campaign, debts):
        return None
    if offer.condition is Condition.PAID_IN_FULL:
        return _paid_in_full(campaign, offer, about(campaign, debts), on)
    started_on = first_payment_on(campaign, debts, on)
    if started_on is None:
        return None
    state = state_of(campaign, started_on, debts, on)
    granted = _grant(offer, about(campaign, debts), started_on)
    if granted is None or state.standing is RemissionStanding.BROKEN:
        return None
    return replace(granted, state=state)


def with_plan(campaign: Campaign, debts: Sequence[Debt], months: int, on: date) -> Grant:
    """Return what a plan of so many months that is made on a day remits.

    Raises:
        Unusable: It is not made within the window, the person had too few unpaid months, or the
            campaign has no such offer or nothing to remit.
    """
    offer = campaign.plan_offer(months)
    if not campaign.since <= on <= campaign.until:
        raise Unusable(
            f"Campaign {campaign.code} runs from {campaign.since} to {campaign.until}, and not on"
            f" {on}."
        )
    granted = _grant(offer, about(campaign, debts), on) if is_for(campaign, debts) else None
    if granted is None:
        raise Unusable(f"Campaign {campaign.code} has nothing to remit to this contributor.")
    return granted


def first_payment_on(campaign: Campaign, debts: Iterable[Debt], on: date) -> date | None:
    """Return when regular payment began: the first payment of a new period in the window."""
    offer = campaign.plain_offer
    if offer is None or offer.first_period is None:
        return None
    until = min(on, campaign.until)
    return min(
        (
            claim.paid_on
            for debt in _new_periods(offer, debts)
            for claim in debt.claims
            if campaign.since <= claim.paid_on <= until
        ),
        default=None,
    )


def state_of(
    campaign: Campaign, granted_on: date, debts: Sequence[Debt], on: date
) -> RemissionState:
    """Return how a remission without a plan stands on a day, from what was paid until then.

    Args:
        campaign: Its campaign.
        granted_on: Since when it has been granted.
        debts: All of the person's, with its reliefs, as if none of them had ended.
        on: The day.
    """
    offer = campaign.plain_offer
    if offer is None:
        return RUNNING
    if offer.condition is Condition.PAID_IN_FULL:
        # Only what it relieved: what was charged for other periods since is no matter of it, nor
        # what a plan of the same day spreads.
        relieved = [
            debt
            for debt in about(campaign, debts)
            if any(relief.granted_on == granted_on for relief in debt.bill.reliefs)
        ]
        if any(debt.on(granted_on).due_minor for debt in relieved):
            return RemissionState(RemissionStanding.BROKEN, granted_on, Because.PAYMENT_TAKEN_BACK)
        return RemissionState(RemissionStanding.KEPT, granted_on)
    assert offer.regular_months is not None
    assert offer.grace_months is not None
    # Not at once: money that a credit set free for a while has no invoice to show it.
    if month_end(granted_on, offer.grace_months) < on:
        first = first_payment_on(campaign, debts, on)
        if first is None or first > granted_on:
            return RemissionState(RemissionStanding.BROKEN, granted_on, Because.PAYMENT_TAKEN_BACK)
    since = month_end(granted_on) + timedelta(days=1)
    until = month_end(granted_on, offer.regular_months)
    dues = _new_periods(offer, debts)
    broken_on = missed_on(dues, since, until, offer.grace_months, on)
    if broken_on is not None:
        return RemissionState(RemissionStanding.BROKEN, broken_on, Because.CURRENT_DUE_UNPAID)
    settled = settled_on(dues, since, until, on)
    # What was not billed yet was not paid: all of these months must have been asked for.
    billed = any(debt.period.ends_on >= until for debt in dues)
    if on <= until or settled is None or not billed:
        return RUNNING
    return RemissionState(RemissionStanding.KEPT, max(settled, until + timedelta(days=1)))


def _new_periods(offer: Offer, debts: Iterable[Debt]) -> list[Debt]:
    """Return the debts of periods that hold the first one or come after it."""
    assert offer.first_period is not None
    return [debt for debt in debts if debt.period.ends_on >= offer.first_period.starts_on]


def _paid_in_full(
    campaign: Campaign, offer: Offer, about: Sequence[Debt], on: date
) -> Grant | None:
    """Return the remission of the first day on which it leaves nothing due.

    What was paid before that day stays paid: the shares are of what is unpaid then.
    """
    last = min(on, campaign.until)
    days = {campaign.since, *(c.paid_on for debt in about for c in debt.claims)}
    for day in sorted(day for day in days if campaign.since <= day <= last):
        if not any(debt.on(day, offer.relief(day)).due_minor for debt in about):
            granted = _grant(offer, about, day)
            return (
                replace(granted, state=RemissionState(RemissionStanding.KEPT, day))
                if granted
                else None
            )
    return None


def _grant(offer: Offer, about: Iterable[Debt], day: date) -> Grant | None:
    """Return what an offer remits from a day on; None if that is nothing."""
    relief = offer.relief(day)
    reliefs = {}
    for debt in about:
        due = debt.before(day).due
        remitted = offer.remitted(
            principal=due[Component.PRINCIPAL],
            penalty=due[Component.PENALTY],
            fee=due[Component.FEE],
        )
        if any(remitted.values()):
            reliefs[debt.invoice_id] = relief
    return Grant(offer, day, reliefs) if reliefs else None
