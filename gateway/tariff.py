"""The tariff file as typed values: what the law asks, since when, and who says so.

No figure of the law is in code. The file is validated when it is loaded; a figure that would have
to be guessed (a gap in the bands, a category without a first period) is refused there.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from sqlmodel import Session

from gateway.db import execute
from gateway.errors import Unusable
from gateway.figures import Exact, Minor, Sourced, Strict, read_toml
from gateway.models import Periodicity
from gateway.periods import Period, parse_period

NamedPeriod = Annotated[Period, BeforeValidator(parse_period)]


class Figure(Sourced):
    value: Exact


class DatedFigure(Figure):
    since: date = Field(alias="from")


class Smig(Sourced):
    """The hourly minimum wage of non-agricultural work, in dirhams, from a day on."""

    since: date = Field(alias="from")
    hourly: Exact


class Penalty(Sourced):
    """The share of the unpaid principal that each month adds from the month after the due one."""

    since: date = Field(alias="from")
    rate: Exact


class Indexation(Sourced):
    follows_smig: bool


class Band(Sourced):
    """One step of a scale, in centimes: bases up to `up_to` included (or below `below`)."""

    up_to: Minor | None = None
    below: Minor | None = None
    amount: Minor

    def holds(self, base_minor: int) -> bool:
        """Say whether a base is not above this band."""
        if self.below is not None:
            return base_minor < self.below
        return self.up_to is None or base_minor <= self.up_to


class Scale(Strict):
    """Fixed amounts by bands of a base; bands rise and leave no gap."""

    since: date = Field(alias="from")
    base: str
    band: tuple[Band, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _rises_to_the_top(self) -> Self:
        *closed, top = self.band
        edges = [band.below if band.below is not None else band.up_to for band in closed]
        if top.up_to is not None or top.below is not None:
            raise ValueError("the last band of a scale has no upper edge")
        if any(edge is None for edge in edges) or edges != sorted(set(filter(None, edges))):
            raise ValueError("the upper edges of a scale must rise")
        return self


class CategoryTariff(Strict):
    """How one category is charged: a coefficient of the SMIG, or a scale."""

    code: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    title: str
    periodicity: Periodicity
    first_period: NamedPeriod
    first_period_verified: bool
    collector: Literal["cnss", "dgi"]
    collector_verified: bool
    coefficient: tuple[DatedFigure, ...] = ()
    scale: Scale | None = None

    @property
    def needs_base(self) -> bool:
        return self.scale is not None

    @model_validator(mode="after")
    def _one_way_to_charge(self) -> Self:
        if bool(self.coefficient) == (self.scale is not None):
            raise ValueError(f"{self.code}: give either coefficients or a scale")
        if self.first_period.periodicity is not self.periodicity:
            raise ValueError(f"{self.code}: its first period is not of its periodicity")
        return self


class Tariff(Strict):
    """The whole file."""

    version: str
    indexation: Indexation
    hours_per_month: Figure
    rounding: Sourced
    rate: Figure
    penalty: tuple[Penalty, ...] = Field(min_length=1)
    smig: tuple[Smig, ...] = Field(min_length=1)
    category: tuple[CategoryTariff, ...] = Field(min_length=1)

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

    def penalty_rates(self, code: str) -> Callable[[date], Decimal]:
        """Return the penalty rule of a category, as gateway.balances takes it.

        Raises:
            Unusable: The tariff has no such category.
        """
        self.of(code)

        def rate(month: date) -> Decimal:
            in_force = [each for each in self.penalty if each.since <= month]
            return max(in_force, key=lambda each: each.since).rate if in_force else Decimal(0)

        return rate


def read_tariff(text: str) -> Tariff:
    """Return the tariff that a TOML text describes.

    Raises:
        Unusable: The text is not a tariff; the sentence says where.
    """
    return read_toml(Tariff, text, "The tariff file")


@cache
def tariff() -> Tariff:
    """Return the tariff that this version ships."""
    return read_tariff(resources.files("gateway").joinpath("tariff.toml").read_text("utf-8"))


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
