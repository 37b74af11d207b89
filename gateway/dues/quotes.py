"""What one person owes for one period on a day, line by line: pure functions of the tariff.

A quote is reproducible: figures that come into force later change nothing that is said of an
earlier day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from gateway.dues.balances import Balance, Bill, balance
from gateway.dues.periods import Period
from gateway.dues.principal import DueLine, NotOwed, principal
from gateway.dues.tariff import CategoryTariff, Tariff, joined
from gateway.errors import Unusable
from gateway.figures import in_force
from gateway.models import LineKind
from gateway.money import format_amount

_LAST_YEAR: Final = 2999


@dataclass(frozen=True, slots=True)
class Quote:
    """What is owed for a period. Without lines nothing is, and `reason` says why."""

    period: Period
    due_on: date
    lines: tuple[DueLine, ...]
    reason: str = ""

    @property
    def total_minor(self) -> int:
        """The sum of the lines, in centimes."""
        return sum(line.amount_minor for line in self.lines)

    def as_json(self) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "period": self.period.code,
            "due_on": self.due_on.isoformat(),
            "lines": [
                {
                    "kind": line.kind.value,
                    "amount": format_amount(line.amount_minor),
                    "rule": line.rule,
                    "source": line.source,
                    "verified": line.verified,
                }
                for line in self.lines
            ],
            "total": format_amount(self.total_minor),
        }
        return answer | ({"reason": self.reason} if self.reason else {})


def quote(
    tariff: Tariff, category: CategoryTariff, period: Period, base_minor: int | None, on: date
) -> Quote:
    """Return what a person owes on a day who was registered in time and has paid nothing.

    Args:
        tariff: The tariff in force.
        category: One of its categories.
        period: Of the category's periodicity.
        base_minor: In centimes, where the category has a scale; else it is not looked at.
        on: The day: penalties are counted up to it.

    Raises:
        Unusable: As `principal`; or the period or the day lies beyond the year 2999.
    """
    if max(period.ends_on, on).year > _LAST_YEAR:
        raise Unusable(f"A quote is for days up to the year {_LAST_YEAR}.")
    due_on = tariff.due_on(category.code, period)
    owed = principal(tariff, category, base_minor=base_minor, period=period)
    if category.needs_base and base_minor is None:
        raise Unusable(f"{category.code} needs a base: the {category.base}.")
    if isinstance(owed, NotOwed):
        return Quote(period, due_on, (), owed.reason)
    bill = Bill(owed.amount_minor, due_on)
    stands = balance(bill, (), tariff.penalty_rates(category.code), on)
    penalty = penalty_line(tariff, category.code, stands, due_on=due_on, on=on)
    return Quote(period, due_on, (owed, penalty) if penalty else (owed,))


def penalty_line(
    tariff: Tariff, category_code: str, stands: Balance, *, due_on: date, on: date
) -> DueLine | None:
    """Return the penalty that has come up on an invoice, and why; None where none has.

    Args:
        tariff: The tariff in force.
        category_code: The invoice's category.
        stands: What the invoice comes to on the day.
        due_on: When its principal was due.
        on: The day.

    Raises:
        Unusable: The tariff has no such category.
    """
    if not stands.penalty_minor:
        return None
    rule = tariff.penalty_rule_of(category_code)
    first, last = _month_after(due_on), on.replace(day=1)
    rates = [
        rate
        for rate in rule.rate
        if rate.since <= last and (rate.until is None or rate.until >= first)
    ]
    method = in_force(rule.method, max(first, rule.method[0].since))
    percents = [f"{(rate.value * 100).normalize():f}" for rate in rates]
    facts = {"form": "late-months-by-date", "months": str(stands.penalty_months)}
    if len(percents) == 1:
        facts |= {"form": "late-months", "rate": percents[0]}
    return DueLine(
        LineKind.PENALTY,
        stands.penalty_minor,
        f"{', '.join(f'{percent} %' for percent in percents)} of the principal unpaid in each"
        f" calendar month begun after the due month, not compounded: {stands.penalty_months}",
        joined(figure.source for figure in (*rates, method)),
        all(figure.verified for figure in (*rates, method)),
        facts,
    )


def _month_after(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)
