"""Periods that contributions are owed for: a month `2026-11` or a quarter `2026-Q4`. Pure."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import date
from typing import Final

from gateway.errors import Unusable
from gateway.models import Periodicity

EARLIEST: Final = date(2000, 1, 1)
"""There is no period before it. People may well have been registered somewhere before."""

_MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])", re.ASCII)
_QUARTER = re.compile(r"([0-9]{4})-Q([1-4])", re.ASCII)


@dataclass(frozen=True, slots=True)
class Period:
    """A month or a quarter, as days in Casablanca."""

    code: str
    periodicity: Periodicity
    starts_on: date
    ends_on: date
    """The last day; also the due day, as shipped."""


def parse_period(text: str) -> Period:
    """Return the period that `2026-11` or `2026-Q4` names.

    Raises:
        Unusable: The text names neither.
    """
    if found := _MONTH.fullmatch(text):
        year, last = int(found[1]), int(found[2])
        first, periodicity = last, Periodicity.MONTH
    elif found := _QUARTER.fullmatch(text):
        year, last = int(found[1]), int(found[2]) * 3
        first, periodicity = last - 2, Periodicity.QUARTER
    else:
        raise Unusable(
            f"{text!r} is not a period: write a month as 2026-11 or a quarter as 2026-Q4."
        )
    if year < EARLIEST.year:
        raise Unusable(f"{text!r} is not a period: no contribution was owed before 2021.")
    ends_on = date(year, last, calendar.monthrange(year, last)[1])
    return Period(text, periodicity, date(year, first, 1), ends_on)


def period_of(day: date, periodicity: Periodicity) -> Period:
    """Return the period of this kind that contains a day."""
    if periodicity is Periodicity.MONTH:
        return parse_period(f"{day:%Y-%m}")
    return parse_period(f"{day.year}-Q{(day.month + 2) // 3}")
