"""Remission campaigns and the rule of instalment plans: the file as typed values.

Who is late may be let off a part of what is owed, on a condition, within a window; a breach brings
everything back. All of it is data; gateway.dues.conditions decides by it.
"""

from __future__ import annotations

from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.dues.balances import Relief
from gateway.dues.periods import Period, parse_period
from gateway.errors import Unusable
from gateway.figures import Exact, Misplaced, Series, Sourced, Spell, Strict, in_force, read_toml
from gateway.settings import readable_settings

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
