"""What one person owes for one period on a day, line by line: pure functions of the tariff.

A quote is reproducible: figures that come into force later change nothing that is said of an
earlier day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from gateway.balances import Balance, Bill, balance
from gateway.dues import DueLine, NotOwed, principal
from gateway.figures import in_force
from gateway.models import LineKind
from gateway.money import format_amount
from gateway.periods import Period
from gateway.tariff import CategoryTariff, Tariff, joined

_ONE_DAY: Final = timedelta(days=1)


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
        Unusable: As gateway.dues.principal.
    """
    due_on = tariff.due_on(category.code, period)
    owed = principal(tariff, category, base_minor=base_minor, period=period)
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
    begins = max(due_on + _ONE_DAY, rule.rate[0].since)
    rates = [
        rate
        for rate in rule.rate
        if rate.since <= on and (rate.until is None or rate.until >= begins)
    ]
    method = in_force(rule.method, max(begins, rule.method[0].since))
    percents = ", ".join(f"{(rate.value * 100).normalize():f} %" for rate in rates)
    return DueLine(
        LineKind.PENALTY,
        stands.penalty_minor,
        f"{percents} of the principal unpaid in each calendar month begun after the due month,"
        f" without compounding; months: {stands.penalty_months}",
        joined(figure.source for figure in (*rates, method)),
        all(figure.verified for figure in (*rates, method)),
        {
            "form": "late-months" if len(rates) == 1 else "late-months-by-date",
            "rate": percents.removesuffix(" %") if len(rates) == 1 else percents,
            "months": str(stands.penalty_months),
        },
    )
