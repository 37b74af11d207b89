"""What is owed for a period, and why: pure functions of the tariff.

Rates are exact decimals; there is one rounding, half up to the centime, at the end of a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TypeVar

from gateway.errors import Unusable
from gateway.models import LineKind
from gateway.money import format_amount, round_to_minor
from gateway.periods import Period
from gateway.tariff import Band, CategoryTariff, DatedFigure, Smig, Tariff

_Dated = TypeVar("_Dated", DatedFigure, Smig)


@dataclass(frozen=True, slots=True)
class DueLine:
    """A part of what is owed, with its reason. `amount_minor` is in centimes."""

    kind: LineKind
    amount_minor: int
    rule: str
    source: str
    verified: bool
    facts: Mapping[str, str] = field(default_factory=dict)
    """The rule's figures by name, dirhams and percent as decimal strings; `form` says which rule
    it is. They let the rule be said in the payer's language (gateway.words.speech)."""


@dataclass(frozen=True, slots=True)
class NotOwed:
    """Nothing is owed for this period, and why."""

    reason: str


def principal(
    tariff: Tariff, category: CategoryTariff, *, base_minor: int | None, period: Period
) -> DueLine | NotOwed:
    """Return one person's contribution for a period, before anything that lateness adds.

    Args:
        tariff: The tariff in force.
        category: The person's category.
        base_minor: What the category's scale is read at, in centimes (for `cpu` the annual
            principal duty); None where the category has no scale.
        period: A period of the category's periodicity.

    Raises:
        Unusable: The period is of the wrong kind, or a base is needed and absent.
    """
    if period.periodicity is not category.periodicity:
        raise Unusable(
            f"{category.code} is owed by the {category.periodicity}, which {period.code} is not."
        )
    if period.starts_on < category.first_period.starts_on:
        return NotOwed(f"{category.code} is owed from {category.first_period.code} on")
    if category.scale is None:
        return _share_of_smig(tariff, category, period.starts_on)
    if base_minor is None:
        raise Unusable(f"{category.code} needs a base: the {category.scale.base}.")
    band = next(band for band in category.scale.band if band.holds(base_minor))
    return DueLine(
        LineKind.PRINCIPAL,
        band.amount,
        f"{category.code}: fixed amount, {category.scale.base} {_range(category, band)}",
        band.source,
        band.verified,
        _edge(category, band),
    )


def _share_of_smig(tariff: Tariff, category: CategoryTariff, day: date) -> DueLine:
    coefficient = _in_force(category.coefficient, day)
    wage_day = day if tariff.indexation.follows_smig else category.first_period.starts_on
    smig = _in_force(tariff.smig, wage_day)
    exact = coefficient.value * smig.hourly * tariff.hours_per_month.value * tariff.rate.value
    figures = (coefficient, smig, tariff.rate, tariff.hours_per_month, tariff.indexation)
    percent = f"{(tariff.rate.value * 100).normalize():f}"
    return DueLine(
        LineKind.PRINCIPAL,
        round_to_minor(exact),
        f"{category.code}: {coefficient.value} × SMIG {smig.hourly}/h"
        f" × {tariff.hours_per_month.value} h × {percent} %",
        "; ".join(figure.source for figure in figures),
        all(figure.verified for figure in (*figures, tariff.rounding)),
        {
            "form": "share-of-smig",
            "coefficient": str(coefficient.value),
            "smig": str(smig.hourly),
            "hours": str(tariff.hours_per_month.value),
            "rate": percent,
        },
    )


def _in_force(figures: tuple[_Dated, ...], day: date) -> _Dated:
    return max((f for f in figures if f.since <= day), key=lambda f: f.since)


def _range(category: CategoryTariff, band: Band) -> str:
    edge = _edge(category, band)
    words = {"band-below": "below", "band-up-to": "up to", "band-above": "above"}
    return f"{words[edge['form']]} {edge['edge']}"


def _edge(category: CategoryTariff, band: Band) -> dict[str, str]:
    scale = category.scale
    assert scale is not None
    if band.below is not None:
        form, edge = "band-below", band.below
    elif band.up_to is not None:
        form, edge = "band-up-to", band.up_to
    else:
        form, edge = "band-above", scale.band[-2].up_to or 0
    return {"form": form, "base": scale.base, "edge": format_amount(edge)}
