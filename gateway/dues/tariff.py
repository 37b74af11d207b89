"""The tariff file as typed values: what the law asks, since when, and who says so.

No figure of the law is in code. The file is validated when it is loaded; a figure that would have
to be guessed (a day without a rate, a category without a first period) is refused there, with its
line. A period is charged by what is in force on its first day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Annotated, Final, Literal, Protocol, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from sqlmodel import Session

from gateway.db import execute
from gateway.dues.periods import Period, parse_period
from gateway.errors import Unusable
from gateway.figures import (
    Dated,
    Exact,
    MaybeSeries,
    Minor,
    Misplaced,
    Place,
    Series,
    Some,
    Sourced,
    Spell,
    Strict,
    in_force,
    read_toml,
)
from gateway.models import Periodicity
from gateway.money import format_amount
from gateway.settings import readable_settings


def _above_zero(value: Decimal) -> Decimal:
    if value <= 0:
        raise ValueError("it must be above 0")
    return value


def _not_negative(value: Decimal) -> Decimal:
    if value < 0:
        raise ValueError("it must not be negative")
    return value


def _period(value: object) -> Period:
    try:
        return parse_period(str(value))
    except Unusable as error:
        raise ValueError(str(error).rstrip(".")) from None


NamedPeriod = Annotated[Period, BeforeValidator(_period)]
Positive = Annotated[Exact, AfterValidator(_above_zero)]
Code = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]


class Figure(Dated):
    """A rate, a coefficient or a number of hours, from a day on."""

    value: Positive


class Smig(Dated):
    """The minimum wage of non-agricultural work, in dirhams an hour."""

    hourly: Positive


class Smag(Dated):
    """The minimum wage of agricultural work, in dirhams a day."""

    daily: Positive


class Indexation(Dated):
    """Whether dues follow each rise of the SMIG; else they stay on that of the first period."""

    follows_smig: bool


class Rounding(Dated):
    """How the exact contribution becomes an amount, once, at the end of its line."""

    to: Minor = Field(gt=0)
    """In centimes."""
    mode: Literal["half-up", "down"]

    def round(self, dirhams: Decimal) -> int:
        """Return exact dirhams, not negative, as centimes."""
        units, rest = divmod(dirhams * 100, self.to)
        up = self.mode == "half-up" and rest * 2 >= self.to
        return (int(units) + up) * self.to


class DueDay(Dated):
    value: Literal["first-day-of-period", "last-day-of-period"]


class DueRule(Strict):
    """By when a period is to be paid."""

    code: Code
    day: Series[DueDay]


class PenaltyRate(Dated):
    value: Annotated[Exact, AfterValidator(_not_negative)]


class PenaltyMethod(Dated):
    value: Literal["simple-begun-months"]
    """Without compounding; each calendar month after the due month counts once it has begun."""


class PenaltyRule(Strict):
    """The share of the unpaid principal that each month adds from the month after the due one."""

    code: Code
    method: Series[PenaltyMethod]
    rate: Series[PenaltyRate]


class Months(Dated):
    value: int = Field(ge=0, le=120, strict=True)


class RightsRule(Strict):
    """When cover opens, and what unpaid periods do to it."""

    code: Code
    gap_months: Series[Months]
    """After more than so many consecutive unpaid months, paying up opens rights after a wait."""
    wait_months: Series[Months]
    """The wait, from the month after everything was paid up."""
    stage_months: Series[Months]
    """From the first due month to the first month of cover."""
    grace_months: Series[Months]
    """For how long an unpaid period does not close rights yet."""


@dataclass(frozen=True, slots=True)
class RightsTerms:
    """A rights rule on one day, in months."""

    gap_months: int
    wait_months: int
    stage_months: int
    grace_months: int
    source: str
    verified: bool
    """Whether a source for each of the four was seen."""


class SeveralActivities(Dated):
    """What a person owes who does several things."""

    value: Literal["highest-only"]


class Regularisation(Dated):
    """By when what is charged after the issue is to be paid: the end of a month, so many later."""

    due_months: int = Field(ge=0, le=120, strict=True)


class Band(Sourced):
    """One step of a scale: bases up to `up_to` included (or below `below`), in centimes.

    Those in it owe an amount, or a coefficient of the SMIG.
    """

    up_to: Minor | None = Field(default=None, gt=0)
    below: Minor | None = Field(default=None, gt=0)
    amount: Minor | None = Field(default=None, gt=0)
    coefficient: Positive | None = None

    @model_validator(mode="after")
    def _one_edge_one_price(self) -> Self:
        if self.up_to is not None and self.below is not None:
            raise ValueError("a band has one upper edge: `up_to` (included) or `below`")
        if (self.amount is None) == (self.coefficient is None):
            raise ValueError("a band asks either an `amount` or a `coefficient` of the SMIG")
        return self

    @property
    def edge(self) -> int | None:
        return self.up_to if self.below is None else self.below

    def holds(self, base_minor: int) -> bool:
        """Say whether a base is not above this band."""
        if self.below is not None:
            return base_minor < self.below
        return self.up_to is None or base_minor <= self.up_to


def _rise(bands: tuple[Band, ...]) -> tuple[Band, ...]:
    edges = [band.edge for band in bands]
    if edges == [None]:
        raise Misplaced((0,), "a single band without an upper edge is no scale")
    for at, edge in enumerate(edges):
        if edge is None and at < len(edges) - 1:
            raise Misplaced((at,), "the upper edge is missing: only the last band may lack it")
        before = edges[at - 1] if at else None
        if edge is not None and before is not None and edge <= before:
            raise Misplaced((at,), "the upper edges of a scale must rise")
        if (bands[at].amount is None) != (bands[0].amount is None):
            raise Misplaced((at,), "the bands of a scale ask either amounts or coefficients")
    return bands


class Scale(Spell):
    """What is owed by bands of a base. Bands rise and leave no gap; the first holds a base of 0."""

    base: str
    band: Annotated[Some[Band], AfterValidator(_rise)]

    def band_of(self, base_minor: int) -> Band | None:
        """Return the band that holds a base, None where it is outside every band."""
        if base_minor < 0:
            return None
        return next((band for band in self.band if band.holds(base_minor)), None)

    def refuse(self, base_minor: int) -> str | None:
        """Return why no band holds a base, in centimes; None where one does. Not the base: it is
        a person's."""
        if base_minor < 0:
            return f"the {self.base} is negative"
        if self.band_of(base_minor) is None:
            highest = format_amount(self.band[-1].edge or 0)
            return f"the {self.base} is outside every band, of which the last ends at {highest}"
        return None


class FirstPeriod(Sourced):
    value: NamedPeriod


class Periodic(Sourced):
    """How often a category owes. A law that changes it makes a new category."""

    since: date = Field(alias="from")
    value: Periodicity


class Collector(Dated):
    value: Literal["cnss", "dgi"]


class Prevails(Dated):
    value: bool


class CategoryTariff(Strict):
    """How one category is charged: a coefficient of the SMIG, or a scale."""

    code: Code
    title: str
    first: FirstPeriod = Field(alias="first_period")
    periodic: Periodic = Field(alias="periodicity")
    collector: Series[Collector]
    due_rule: str | None = None
    """These three name a rule of the file; None: the one of `defaults`."""
    penalty_rule: str | None = None
    rights_rule: str | None = None
    prevailing: MaybeSeries[Prevails] = Field(default=(), alias="prevails")
    coefficient: MaybeSeries[Figure] = ()
    scale: MaybeSeries[Scale] = ()

    @property
    def first_period(self) -> Period:
        return self.first.value

    @property
    def periodicity(self) -> Periodicity:
        return self.periodic.value

    @property
    def needs_base(self) -> bool:
        return bool(self.scale)

    @property
    def base(self) -> str:
        """What the base is, in the tariff's words; of the scale in force last."""
        return self.scale[-1].base if self.scale else ""

    @property
    def prevails(self) -> bool:
        """Whether it is owed in place of all else that the same person does."""
        return bool(self.prevailing) and self.prevailing[-1].value

    def refuse_base(self, base_minor: int) -> str | None:
        """Return why a base, in centimes, cannot be one of this category today; None: it can."""
        return self.scale[-1].refuse(base_minor) if self.scale else None

    @model_validator(mode="after")
    def _one_way_to_charge(self) -> Self:
        if bool(self.coefficient) == bool(self.scale):
            raise ValueError(f"{self.code}: give either coefficients or a scale")
        if self.first_period.periodicity is not self.periodicity:
            raise Misplaced(
                ("first_period", "value"),
                f"{self.code}: its first period is not a {self.periodicity}",
            )
        return self


class Defaults(Strict):
    """The rules of categories that name none."""

    due_rule: str
    penalty_rule: str
    rights_rule: str


class _Coded(Protocol):
    @property
    def code(self) -> str: ...


class Tariff(Strict):
    """The whole file."""

    version: str = Field(min_length=1)
    defaults: Defaults
    rate: Series[Figure]
    hours_per_month: Series[Figure]
    indexation: Series[Indexation]
    rounding: Series[Rounding]
    smig: Series[Smig]
    smag: MaybeSeries[Smag] = ()
    several_activities: Series[SeveralActivities]
    regularisation: Series[Regularisation]
    due_rule: tuple[DueRule, ...]
    penalty_rule: tuple[PenaltyRule, ...]
    rights: tuple[RightsRule, ...] = Field(alias="rights_rule")
    category: Some[CategoryTariff]

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        _no_code_twice("category", self.category)
        for name, rules in self._rules().items():
            self._names_known(name, _no_code_twice(name, rules))
        for at, category in enumerate(self.category):
            self._covers(at, category)
        return self

    def _rules(self) -> dict[str, Sequence[_Coded]]:
        return {
            "due_rule": self.due_rule,
            "penalty_rule": self.penalty_rule,
            "rights_rule": self.rights,
        }

    def _names_known(self, name: str, codes: Sequence[str]) -> None:
        asked: list[tuple[Place, str | None]] = [
            (("defaults", name), getattr(self.defaults, name)),
            *((("category", at, name), getattr(c, name)) for at, c in enumerate(self.category)),
        ]
        for place, code in asked:
            if code is not None and code not in codes:
                known = ", ".join(codes) or "none"
                raise Misplaced(place, f"there is no {name} {code!r}: the file has {known}")

    def _covers(self, at: int, category: CategoryTariff) -> None:
        """Refuse a series that begins only after the first day that a category is owed for."""
        first = category.first_period
        for place, series in self._relied_on(at, category):
            if series and series[0].since > first.starts_on:
                raise Misplaced(
                    (*place, 0, "from"),
                    f"{category.code} is owed from {first.code} on, and this says nothing of the"
                    f" days before {series[0].since}",
                )

    def _relied_on(
        self, at: int, category: CategoryTariff
    ) -> Iterator[tuple[Place, Sequence[Spell]]]:
        for name in ("coefficient", "scale", "collector"):
            yield ("category", at, name), getattr(category, name)
        if category.coefficient or any(s.band[0].amount is None for s in category.scale):
            for name in ("rate", "hours_per_month", "indexation", "rounding", "smig"):
                yield (name,), getattr(self, name)
        for kind, rules in self._rules().items():
            code = getattr(category, kind) or getattr(self.defaults, kind)
            found = next(i for i, rule in enumerate(rules) if rule.code == code)
            for name in _SERIES[kind]:
                yield (kind, found, name), getattr(rules[found], name)

    def of(self, code: str) -> CategoryTariff:
        """Return how a category is charged.

        Raises:
            Unusable: The tariff has no such category; the sentence lists those it has.
        """
        for category in self.category:
            if category.code == code:
                return category
        known = ", ".join(category.code for category in self.category)
        raise Unusable(f"The tariff has no category {code!r}: it has {known}.")

    def due_on(self, code: str, period: Period) -> date:
        """Return by when a category's contribution for a period is to be paid.

        Raises:
            Unusable: The tariff has no such category.
        """
        day = self.due_day(code, period).value
        return period.starts_on if day == "first-day-of-period" else period.ends_on

    def due_day(self, code: str, period: Period) -> DueDay:
        """Return the rule that says by when a period is to be paid, with its source.

        Raises:
            Unusable: The tariff has no such category.
        """
        rule = _by_code(self.due_rule, self.of(code).due_rule or self.defaults.due_rule)
        return in_force(rule.day, max(period.starts_on, rule.day[0].since))

    def penalty_rule_of(self, code: str) -> PenaltyRule:
        """Return the penalty rule of a category.

        Raises:
            Unusable: The tariff has no such category.
        """
        return _by_code(self.penalty_rule, self.of(code).penalty_rule or self.defaults.penalty_rule)

    def penalty_rates(self, code: str) -> Callable[[date], Decimal]:
        """Return the penalty rule of a category, as gateway.dues.balances takes it.

        Raises:
            Unusable: The tariff has no such category.
        """
        series = self.penalty_rule_of(code).rate

        def rate(month: date) -> Decimal:
            return in_force(series, month).value if series[0].since <= month else Decimal(0)

        return rate

    def rights_rule(self, code: str, day: date) -> RightsTerms:
        """Return the rights rule of a category as it is on a day.

        Raises:
            Unusable: The tariff has no such category.
        """
        rule = _by_code(self.rights, self.of(code).rights_rule or self.defaults.rights_rule)
        gap, wait, stage, grace = (
            in_force(series, max(day, series[0].since))
            for series in (rule.gap_months, rule.wait_months, rule.stage_months, rule.grace_months)
        )
        return RightsTerms(
            gap.value,
            wait.value,
            stage.value,
            grace.value,
            joined(each.source for each in (gap, wait, stage, grace)),
            all(each.verified for each in (gap, wait, stage, grace)),
        )


_SERIES: Final = {
    "due_rule": ("day",),
    "penalty_rule": ("method", "rate"),
    "rights_rule": ("gap_months", "wait_months", "stage_months", "grace_months"),
}


def joined(sources: Iterable[str]) -> str:
    """Return several sources as one text, each once."""
    return "; ".join(dict.fromkeys(sources))


def _no_code_twice(name: str, rows: Sequence[_Coded]) -> list[str]:
    codes: list[str] = []
    for at, row in enumerate(rows):
        if row.code in codes:
            raise Misplaced((name, at, "code"), f"there is a {name} {row.code!r} already")
        codes.append(row.code)
    return codes


_Rule = TypeVar("_Rule", bound=_Coded)


def _by_code(rules: Sequence[_Rule], code: str) -> _Rule:
    return next(rule for rule in rules if rule.code == code)


def read_tariff(text: str, what: str = "The tariff file") -> Tariff:
    """Return the tariff that a TOML text describes.

    Raises:
        Unusable: The text is not a tariff; the sentence names `what`, and the line.
    """
    return read_toml(Tariff, text, what)


@cache
def tariff() -> Tariff:
    """Return the tariff in force: the one shipped, or the one that WASL_TARIFF points to.

    Raises:
        Unusable: The file cannot be read, or is not a tariff; the sentence says which and where.
    """
    # Not gateway.settings.settings(): that other settings are wrong is said by those who need them.
    chosen = readable_settings()[0].tariff
    if chosen is None:
        return read_tariff(resources.files("gateway").joinpath("tariff.toml").read_text("utf-8"))
    try:
        text = chosen.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Unusable(f"WASL_TARIFF: {chosen} cannot be read: {reason}.") from None
    return read_tariff(text, str(chosen))


def keep_categories(session: Session, current: Tariff) -> None:
    """Make the category table say what the tariff says. The caller owns the transaction.

    Categories are added and changed, never removed: contributors and invoices point to them. What
    says so already is only read, so that a long import holds nobody up by it.
    """
    rows = execute(session, "SELECT code, periodicity, needs_base FROM category")
    known = {code: (periodicity, needs_base) for code, periodicity, needs_base in rows}
    for category in current.category:
        if known.get(category.code) == (category.periodicity.value, category.needs_base):
            continue
        execute(
            session,
            "INSERT INTO category (code, periodicity, needs_base) VALUES (:code, :every, :base)"
            " ON CONFLICT (code) DO UPDATE SET periodicity = :every, needs_base = :base"
            " WHERE (category.periodicity, category.needs_base) IS DISTINCT FROM (:every, :base)",
            {"code": category.code, "every": category.periodicity, "base": category.needs_base},
        )
