"""Whom an order to issue is about: its categories and days, as SQL is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlmodel import Session

from gateway.db import execute
from gateway.dues.assessment import (
    quarter_of,
)
from gateway.dues.periods import Period, period_of
from gateway.dues.tariff import Tariff
from gateway.models import Periodicity


@dataclass(frozen=True, slots=True)
class Scope:
    """What a run asks for, and how SQL is told."""

    period: Period
    quarter: Period
    codes: tuple[str, ...]
    """Categories that the tariff has; of an order of one that is gone, none."""
    gone: tuple[str, ...]
    """Categories of this kind that the tariff has no more. Whoever is in one cannot be priced."""
    billing: tuple[str, ...]
    """Periods whose invoices bar one of this period."""

    @classmethod
    def of(cls, session: Session, tariff: Tariff, period: Period, category: str | None) -> Scope:
        """Return what a run of a category, or of all, asks for.

        An order may be older than the tariff: of a category that is gone, or is owed by other
        periods now, it is worked off all the same.
        """
        known = {c.code: c.periodicity for c in tariff.category}
        rows = execute(
            session,
            "SELECT code FROM category WHERE periodicity = :every ORDER BY code",
            {"every": period.periodicity},
        )
        codes = [code for code, every in known.items() if every is period.periodicity]
        gone = [code for code in rows.scalars() if code not in known]
        if category is not None:
            codes = [code for code in codes if code == category]
            gone = [code for code in gone if code == category]
        billing = (period.code, *overlapping(period))
        return cls(period, quarter_of(period), tuple(codes), tuple(gone), billing)

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "categories": [*self.codes, *self.gone],
            "period": self.period.code,
            "starts_on": self.period.starts_on,
            "ends_on": self.period.ends_on,
            "quarter_starts_on": self.quarter.starts_on,
            "quarter_ends_on": self.quarter.ends_on,
            "billing": list(self.billing),
        }


def overlapping(period: Period) -> list[str]:
    """Return the periods of the other kind that hold days of this one."""
    if period.periodicity is Periodicity.MONTH:
        return [period_of(period.starts_on, Periodicity.QUARTER).code]
    year, first = period.starts_on.year, period.starts_on.month
    return [f"{year}-{month:02}" for month in range(first, first + 3)]


# Who did something else in the quarter, or has more than one file.
SPECIAL: Final = """special AS MATERIALIZED (
    SELECT contributor_id AS id FROM activity
    WHERE contributor_id BETWEEN :first AND :last AND withdrawn_at IS NULL
        AND since <= :quarter_ends_on AND (until IS NULL OR until >= :quarter_starts_on)
    UNION
    SELECT merged_into_id FROM contributor WHERE merged_into_id BETWEEN :first AND :last
)"""


PEOPLE: Final = """c.id BETWEEN :first AND :last AND c.merged_into_id IS NULL
    AND c.erased_at IS NULL AND (
    c.category_code = ANY(:categories) AND c.registered_on <= :ends_on
        AND (c.left_on IS NULL OR c.left_on >= :starts_on)
    OR c.id IN (SELECT id FROM special)
)"""


IS_SPECIAL: Final = """(coalesce(c.category_since > :quarter_starts_on, false)
    OR c.id IN (SELECT id FROM special))"""


# One of the period itself bars another for ever, cancelled or not; one of the other kind as long as
# anything is charged on it: a re-assessment may have credited all of it.
BILLED: Final = """period = ANY(:billing) AND (period = :period OR cancelled_at IS NULL
    AND amount_minor + coalesce((SELECT sum(n.amount_minor) FROM invoice_note n
        WHERE n.invoice_id = invoice.id AND n.kind = 'adjustment'), 0) > 0)"""


def take_turns(session: Session, period: Period) -> None:
    """Let months and quarters be issued one after the other, each kind by as many as like.

    A person who changes from one kind to the other at this moment could else be billed by both:
    neither would see the other's invoice. The two modes bar each other and not themselves; the
    table is one that nobody writes.
    """
    mode = "ROW EXCLUSIVE" if period.periodicity is Periodicity.MONTH else "SHARE"
    execute(session, f"LOCK TABLE reference_key IN {mode} MODE")


CHUNK: Final = 10_000
"""People to a transaction: enough to be fast, and others wait for the end of the feed only for a
fraction of a second."""


ID_MAX: Final = 2**63 - 1
