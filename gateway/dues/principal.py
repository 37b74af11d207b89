"""What is owed for a period, and why: pure functions of the tariff.

A period is charged by what is in force on its first day. Rates are exact decimals; there is one
rounding, as the tariff says, at the end of a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from gateway.dues.periods import Period
from gateway.dues.tariff import Band, CategoryTariff, Scale, Tariff, joined
from gateway.errors import Unusable
from gateway.figures import Sourced, in_force
from gateway.models import LineKind
from gateway.money import format_amount


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
        Unusable: The period is of the wrong kind, a base is needed and absent, or it is
            negative or outside every band of the scale in force.
    """
    if period.periodicity is not category.periodicity:
        raise Unusable(
            f"{category.code} is owed by the {category.periodicity}, which {period.code} is not."
        )
    if category.scale and base_minor is not None and base_minor < 0:
        raise Unusable(f"{category.code}: the {category.base} is negative.")
    if period.starts_on < category.first_period.starts_on:
        return NotOwed(f"{category.code} is owed from {category.first_period.code} on")
    if not category.scale:
        coefficient = in_force(category.coefficient, period.starts_on)
        return _share_of_smig(tariff, category, period.starts_on, coefficient.value, coefficient)
    scale = in_force(category.scale, period.starts_on)
    if base_minor is None:
        raise Unusable(f"{category.code} needs a base: the {scale.base}.")
    if why := scale.refuse(base_minor):
        raise Unusable(f"{category.code}, {period.code}: {why}.")
    band = scale.band_of(base_minor)
    assert band is not None, "a base that is not refused has a band"
    if band.coefficient is not None:
        return _share_of_smig(
            tariff, category, period.starts_on, band.coefficient, band, _Step.of(scale, band)
        )
    assert band.amount is not None, "a band without a price"
    step = _Step.of(scale, band)
    return DueLine(
        LineKind.PRINCIPAL,
        band.amount,
        f"{category.code}: fixed amount, {step.words}",
        band.source,
        band.verified,
        {"form": f"band-{step.form}", "base": step.base, "edge": step.edge},
    )


@dataclass(frozen=True, slots=True)
class _Step:
    """A band in words. `form` is below, up-to, above or from; `edge` is in dirhams."""

    form: str
    base: str
    edge: str

    @staticmethod
    def of(scale: Scale, band: Band) -> _Step:
        if band.below is not None:
            form, edge = "below", band.below
        elif band.up_to is not None:
            form, edge = "up-to", band.up_to
        else:
            before = scale.band[-2]
            form, edge = ("above" if before.below is None else "from"), before.edge or 0
        return _Step(form, scale.base, format_amount(edge))

    @property
    def words(self) -> str:
        return f"{self.base} {self.form.replace('-', ' ')} {self.edge}"


def _share_of_smig(
    tariff: Tariff,
    category: CategoryTariff,
    day: date,
    coefficient: Decimal,
    by: Sourced,
    step: _Step | None = None,
) -> DueLine:
    indexation = in_force(tariff.indexation, day)
    smig = in_force(
        tariff.smig, day if indexation.follows_smig else category.first_period.starts_on
    )
    rate, hours = in_force(tariff.rate, day), in_force(tariff.hours_per_month, day)
    rounding = in_force(tariff.rounding, day)
    exact = coefficient * smig.hourly * hours.value * rate.value
    figures = (by, smig, rate, hours, indexation)
    percent = f"{(rate.value * 100).normalize():f}"
    facts = {
        "form": f"share-{step.form}" if step else "share-of-smig",
        "coefficient": str(coefficient),
        "smig": str(smig.hourly),
        "hours": str(hours.value),
        "rate": percent,
    }
    return DueLine(
        LineKind.PRINCIPAL,
        rounding.round(exact),
        f"{category.code}: {coefficient} × SMIG {smig.hourly}/h × {hours.value} h × {percent} %"
        + (f", {step.words}" if step else ""),
        joined(figure.source for figure in figures),
        all(figure.verified for figure in (*figures, rounding)),
        facts | ({"base": step.base, "edge": step.edge} if step else {}),
    )
