"""Orders to issue: begun or joined, cut into spans of people, counted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlmodel import Session

from gateway.billing.owed import LeftOut
from gateway.billing.scope import CHUNK, ID_MAX, PEOPLE, SPECIAL, Scope
from gateway.clock import day_of
from gateway.db import execute
from gateway.dues.periods import Period
from gateway.dues.tariff import Tariff, keep_categories
from gateway.errors import Unusable
from gateway.money import format_amount

AHEAD_DAYS_MAX: Final = 366


@dataclass(frozen=True, slots=True)
class IssueResult:
    """What an order issued since we joined it; one that was cut short is continued by the next."""

    issued: int
    already: int
    """Owed for the period, and its days billed before."""
    total_minor: int
    """Sum of what was issued, in centimes."""
    left_out: int = 0
    """How many may owe the period, are not billed, and cannot be priced."""
    first_left_out: tuple[LeftOut, ...] = ()
    """The first of them, by their ids."""

    def as_json(self) -> dict[str, Any]:
        return {
            "issued": self.issued,
            "already": self.already,
            "total": format_amount(self.total_minor),
        }


@dataclass(frozen=True, slots=True)
class Order:
    """A run that was begun or joined."""

    run_id: int
    owing: int
    """How many people its spans hold that may owe the period."""
    before: IssueResult
    """What had been done of it by others, or in another life."""
    joined: bool
    """Whether some of its spans were done by then."""


def order_issue(
    session: Session, tariff: Tariff, period: Period, *, category: str | None, now: datetime
) -> Order:
    """Order a period's invoices of one category, or of all that are owed by such periods.

    An order of the same that is not finished is joined, and people enrolled since are added. The
    caller owns the transaction. Workers look for open orders every few seconds.

    Raises:
        Unusable: The tariff has no such category, the period is not of its kind, or it lies more
            than a year ahead.
    """
    refuse_far(period, now)
    if category is not None and tariff.of(category).periodicity is not period.periodicity:
        every = tariff.of(category).periodicity
        raise Unusable(f"{category} is owed by the {every}, which {period.code} is not.")
    keep_categories(session, tariff)
    scope = Scope.of(session, tariff, period, category)
    run_id = _open_run(session, period, category, now)
    before, done, left = progress_of(session, run_id)
    if done and not left:
        # It only lacks the word that it is finished.
        finished = "UPDATE issue_run SET finished_at = :now WHERE id = :id"
        execute(session, finished, {"id": run_id, "now": now})
        run_id = _open_run(session, period, category, now)
        before, done = IssueResult(0, 0, 0), 0
    _cut(session, run_id, scope)
    owing = execute(
        session,
        f"WITH {SPECIAL} SELECT count(*) FROM contributor c WHERE {PEOPLE}",
        {**scope.parameters, "first": 0, "last": ID_MAX},
    ).scalar_one()
    return Order(run_id, owing, before, joined=done > 0)


def refuse_far(period: Period, now: datetime) -> None:
    """Stop where a period lies too far ahead.

    Raises:
        Unusable: It lies more than a year ahead.
    """
    if (period.starts_on - day_of(now)).days > AHEAD_DAYS_MAX:
        raise Unusable(f"{period.code} lies more than a year ahead: issue it when it is nearer.")


def _open_run(session: Session, period: Period, category: str | None, now: datetime) -> int:
    """Return the run of this period and category that is not finished, locked; made if need be."""
    asked = {"period": period.code, "category": category, "now": now}
    execute(
        session,
        "INSERT INTO issue_run (period, category_code, ordered_at)"
        " VALUES (:period, :category, :now) ON CONFLICT DO NOTHING",
        asked,
    )
    found: int | None = execute(
        session,
        "SELECT id FROM issue_run WHERE period = :period"
        " AND category_code IS NOT DISTINCT FROM :category AND finished_at IS NULL FOR UPDATE",
        asked,
    ).scalar_one_or_none()
    # Another may have finished it in between: then there is room for ours.
    return _open_run(session, period, category, now) if found is None else found


def progress_of(session: Session, run_id: int) -> tuple[IssueResult, int, int]:
    """Return what was issued of a run, how many of its spans are done, and how many are left."""
    issued, already, total_minor, done, left = execute(
        session,
        "SELECT coalesce(sum(issued), 0), coalesce(sum(already), 0),"
        " coalesce(sum(total_minor), 0)::bigint, count(done_at),"
        " count(*) FILTER (WHERE done_at IS NULL)"
        " FROM issue_chunk WHERE run_id = :id",
        {"id": run_id},
    ).one()
    return IssueResult(issued, already, total_minor), done, left


def _cut(session: Session, run_id: int, scope: Scope) -> None:
    """Cut those who may owe, beyond the spans that the run has, into spans of CHUNK people."""
    position, after = execute(
        session,
        "SELECT coalesce(max(position), 0), coalesce(max(last_id), 0) FROM issue_chunk"
        " WHERE run_id = :id",
        {"id": run_id},
    ).one()
    execute(
        session,
        f"""
        WITH {SPECIAL}, people AS (
            SELECT c.id, row_number() OVER (ORDER BY c.id) AS number FROM contributor c
            WHERE {PEOPLE}
        ), ends AS (
            SELECT id FROM people WHERE number % :size = 0 UNION SELECT max(id) FROM people
        )
        INSERT INTO issue_chunk (run_id, position, first_id, last_id)
        SELECT :run_id, :position + row_number() OVER (ORDER BY id),
            coalesce(lag(id) OVER (ORDER BY id), :after) + 1, id
        FROM ends WHERE id IS NOT NULL
        """,
        {
            **scope.parameters,
            "first": after + 1,
            "last": ID_MAX,
            "size": CHUNK,
            "run_id": run_id,
            "position": position,
            "after": after,
        },
    )
