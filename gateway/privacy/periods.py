"""How long what names a person is kept (gateway/retention.toml), and from which day it may go."""

from __future__ import annotations

from datetime import date
from typing import Final

from gateway.figures import Sourced
from gateway.retention import FullYears

KEPT_WITH_BOOKS: Final = (
    "With the books, which are never erased. Once the person's data are erased, nothing in it names"
    " the person."
)


def erasable_on(last: date, period: FullYears) -> date:
    """Return the first day on which a person may be erased, by the day of the last movement."""
    year = last.year + period.years
    try:
        return date(year, last.month, last.day)
    except ValueError:
        return date(year, 3, 1)  # the 29th of February, and that year has none


def kept_persons(period: FullYears) -> str:
    """Return how long what names a person is kept, in a sentence."""
    return (
        f"Until {period.years} years after the last movement of money and the last day of the"
        f" registration; then it is erased{doubt(period)}."
    )


def doubt(period: Sourced) -> str:
    """Return what is to be said beside a period: who says so, and whether that was seen."""
    confirmed = "" if period.verified else "not confirmed; "
    return f" ({confirmed}{period.source})"
