"""Remission campaigns and the rule of instalment plans: the file as typed values, and decisions.

Who is late may be let off a part of what is owed, on a condition, within a window; a breach brings
everything back. All of it is data. Decisions here are pure and go by days: when a condition was met
and when it was broken follows from what was paid when, not from the day somebody looks.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.dues.balances import Balance, Bill, Claim, Rates, Relief, balance
from gateway.dues.periods import Period, parse_period
from gateway.errors import Unusable
from gateway.figures import Exact, Misplaced, Series, Sourced, Spell, Strict, in_force, read_toml
from gateway.models import Component, LineKind, Periodicity
from gateway.settings import readable_settings

# -- the file -------------------------------------------------------------------------------------

PLACES_MAX: Final = 4
"""Of a share, as the database keeps it."""


def _as_share(value: Decimal) -> Decimal:
    exponent = value.as_tuple().exponent
    if not 0 <= value <= 1 or not isinstance(exponent, int) or exponent < -PLACES_MAX:
        raise ValueError(f"a share lies from 0 to 1 and has at most {PLACES_MAX} decimals")
    return value


Share = Annotated[Exact, AfterValidator(_as_share)]
NamedPeriod = Annotated[Period, BeforeValidator(parse_period)]
Code = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
MONTHS_MAX: Final = 120
Months = Annotated[int, Field(ge=1, le=MONTHS_MAX)]


class Breach(Sourced):
    """What a breach brings back."""

    comes_back: Literal["everything"]


class PlanSpan(Sourced):
    months_max: Months


class PlanSchedule(Sourced):
    """When instalments fall due; `due_day` 31 is the last day of every month."""

    due_day: int = Field(ge=1, le=31)
    remainder: Literal["first", "last"]


class PlanPenalty(Sourced):
    """Whether the penalty on what a plan spreads stops while it stands."""

    stops: bool


class PlanBreach(Breach):
    """How late an instalment or a current due may be before the plan is broken, in months."""

    instalment_months: int = Field(ge=0, le=12)
    current_due_months: int = Field(ge=0, le=12)


class PlanRule(Spell):
    """The rule of instalment plans that are made while it is in force."""

    span: PlanSpan
    schedule: PlanSchedule
    penalty: PlanPenalty
    breach: PlanBreach


class Debts(Sourced):
    """Which debts a campaign is about: of periods up to a month, or due before a day."""

    periods_until: NamedPeriod | None = None
    due_before: date | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.periods_until is None) == (self.due_before is None):
            raise ValueError("give either periods_until or due_before")
        return self

    def hold(self, period: Period, due_on: date) -> bool:
        """Say whether a debt is one of them. A quarter counts by its last month."""
        if self.periods_until is not None:
            return period.ends_on <= self.periods_until.ends_on
        assert self.due_before is not None
        return due_on < self.due_before


class Condition(StrEnum):
    """What is asked for a remission."""

    PAID_IN_FULL = "paid-in-full"
    """The principal, and what the remission leaves of the rest, are paid within the window."""
    PLAN = "plan"
    """An instalment plan is made within the window, and kept."""
    REGULAR_PAYMENT = "regular-payment"
    """A first payment of new periods within the window, then so many months paid in time."""


class Offer(Sourced):
    """What a campaign remits on one condition: shares of what is unpaid of each component."""

    condition: Condition
    principal: Share = Decimal(0)
    penalty: Share = Decimal(0)
    fee: Share = Decimal(0)
    surcharge: Share = Decimal(0)
    """Of astreintes, which employers owe and no debt here has."""
    months_over: int = Field(0, ge=0, le=MONTHS_MAX)
    months_max: Months | None = None
    """Of a plan: more than the one, at most the other; None: no bound of its own."""
    first_period: NamedPeriod | None = None
    """Of regular payment: the period from which on payments count."""
    regular_months: Months | None = None
    """How many months after that of the first payment must be paid in time."""
    grace_months: int | None = Field(None, ge=0, le=12)
    """How many months after its own a month may be paid and still be in time."""

    @model_validator(mode="after")
    def _has_what_its_condition_needs(self) -> Self:
        regular = (self.first_period, self.regular_months, self.grace_months)
        needed = self.condition is Condition.REGULAR_PAYMENT
        if any((each is not None) != needed for each in regular):
            raise ValueError(
                "first_period, regular_months and grace_months belong to regular-payment: all of"
                " them, and only there"
            )
        if self.condition is not Condition.PLAN and (self.months_over or self.months_max):
            raise ValueError("months_over and months_max belong to plan")
        if not any((self.principal, self.penalty, self.fee, self.surcharge)):
            raise ValueError("it remits nothing")
        return self

    def fits(self, months: int) -> bool:
        """Say whether a plan of so many months has this offer."""
        return self.months_over < months and (self.months_max is None or months <= self.months_max)

    def relief(self, granted_on: date) -> Relief:
        """Return what it does to an invoice from a day on."""
        return Relief(granted_on, self.principal, self.penalty, self.fee)

    def remitted(
        self, *, principal: int = 0, penalty: int = 0, fee: int = 0, surcharge: int = 0
    ) -> dict[str, int]:
        """Return what it remits of unpaid amounts, in centimes: each rounded once, half up."""
        unpaid = {"principal": principal, "penalty": penalty, "fee": fee, "surcharge": surcharge}
        return {
            name: int((getattr(self, name) * amount).quantize(Decimal(1), rounding=ROUND_HALF_UP))
            for name, amount in unpaid.items()
        }


class RightsRule(Sourced):
    """What a campaign says of rights (see `rights`): months to wait after the first payment."""

    wait_months: int = Field(ge=0, le=24)


class Campaign(Sourced):
    """One campaign."""

    code: Code
    title: str = Field(min_length=1)
    whose: Literal["self-employed", "employers"] = Field(alias="for")
    since: date = Field(alias="from")
    until: date
    """The last day of the window."""
    minimum_unpaid_months: int = Field(0, ge=0)
    debts: Debts
    breach: Breach
    offer: tuple[Offer, ...] = Field(min_length=1)
    rights: RightsRule | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.until < self.since:
            raise Misplaced(("until",), "the window ends before it begins")
        plain = [offer for offer in self.offer if offer.condition is not Condition.PLAN]
        if len(plain) > 1:
            raise Misplaced(("offer",), "at most one offer is without a plan")
        for months in range(1, MONTHS_MAX + 1):
            fitting = [o for o in self.offer if o.condition is Condition.PLAN and o.fits(months)]
            if len(fitting) > 1:
                raise Misplaced(("offer",), f"two offers are for a plan of {months} months")
        return self

    def about(self, debts: Iterable[Debt]) -> list[Debt]:
        """Return those debts that the campaign is about."""
        return [debt for debt in debts if self.debts.hold(debt.period, debt.bill.due_on)]

    def plan_offer(self, months: int) -> Offer:
        """Return what it remits where so many months are agreed on.

        Raises:
            Unusable: It has no offer for such a plan.
        """
        for offer in self.offer:
            if offer.condition is Condition.PLAN and offer.fits(months):
                return offer
        raise Unusable(f"Campaign {self.code} has no offer for a plan of {months} months.")

    @property
    def plain_offer(self) -> Offer | None:
        """What it remits without a plan."""
        return next((o for o in self.offer if o.condition is not Condition.PLAN), None)


class Campaigns(Strict):
    """The whole file."""

    version: str = Field(min_length=1)
    plan: Series[PlanRule]
    campaign: tuple[Campaign, ...] = ()

    @model_validator(mode="after")
    def _codes_differ(self) -> Self:
        codes = [campaign.code for campaign in self.campaign]
        for at, code in enumerate(codes):
            if code in codes[:at]:
                raise Misplaced(("campaign", at, "code"), f"{code} is there already")
        return self

    def of(self, code: str) -> Campaign:
        """Return a campaign of the self-employed.

        Raises:
            Unusable: There is none, or it is for others; the sentence lists those there are.
        """
        ours = {each.code: each for each in self.campaign if each.whose == "self-employed"}
        if code in ours:
            return ours[code]
        if any(each.code == code for each in self.campaign):
            raise Unusable(f"Campaign {code} is for employers: nobody in this register is one.")
        known = ", ".join(ours) or "none"
        raise Unusable(f"There is no campaign {code!r}: the campaigns file has {known}.")

    def plan_rule(self, made_on: date) -> PlanRule:
        """Return the rule of plans that are made on a day.

        Raises:
            Unusable: There was none yet.
        """
        if made_on < self.plan[0].since:
            raise Unusable(f"The campaigns file has no rule for plans made on {made_on}.")
        return in_force(self.plan, made_on)

    def named(self, code: str) -> str:
        """Return a code with the file's version, as it is kept beside what was granted."""
        return f"{code}@{self.version}"


def code_of(named: str) -> str:
    """Return the code in what `Campaigns.named` made."""
    return named.partition("@")[0]


def read_campaigns(text: str, what: str = "The campaigns file") -> Campaigns:
    """Return the campaigns that a TOML text describes.

    Raises:
        Unusable: It is no such file; the sentence names `what`, and where it is wrong.
    """
    return read_toml(Campaigns, text, what)


@cache
def campaigns() -> Campaigns:
    """Return the campaigns in force: the file shipped, or the one WASL_CAMPAIGNS points to.

    Raises:
        Unusable: The file cannot be read or is wrong; the sentence says which and where.
    """
    chosen = readable_settings()[0].campaigns
    if chosen is None:
        shipped = resources.files("gateway").joinpath("campaigns.toml")
        return read_campaigns(shipped.read_text("utf-8"))
    try:
        text = chosen.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Unusable(f"WASL_CAMPAIGNS: {chosen} cannot be read: {reason}.") from None
    return read_campaigns(text, str(chosen))


# -- what people owe ------------------------------------------------------------------------------


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


# -- decisions ------------------------------------------------------------------------------------


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
    about = campaign.about(debts)
    return bool(about) and (unpaid_months(about, campaign.since) >= campaign.minimum_unpaid_months)


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
        return _paid_in_full(campaign, offer, campaign.about(debts), on)
    started_on = first_payment_on(campaign, debts, on)
    if started_on is None:
        return None
    state = state_of(campaign, started_on, debts, on)
    granted = _grant(offer, campaign.about(debts), started_on)
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
    granted = _grant(offer, campaign.about(debts), on) if is_for(campaign, debts) else None
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
            for debt in campaign.about(debts)
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
