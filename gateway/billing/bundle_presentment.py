"""What a reference for several invoices looks like to the person who pays by it.

A selection is paid in its order. A plan's reference pays what came due since the plan was made, and
then the debts that it spreads, so both are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from sqlmodel import Session

from gateway.billing.bills import AS_WRITTEN
from gateway.billing.presentment import (
    Paid,
    PresentedPayment,
    Presentment,
    Standing,
    payments_of,
    present_ids,
    standing_of,
)
from gateway.clock import day_of
from gateway.collection.allocation import CURRENT_OF_PLAN
from gateway.db import execute
from gateway.dues.instalments import InstalmentState, PlanStanding
from gateway.models import BundleKind
from gateway.relief.plans import read_plan
from gateway.relief.remissions import relief_ends


@dataclass(frozen=True, slots=True)
class PresentedInstalment:
    """What a plan asks for by a day, and what of it is unpaid. Amounts in centimes."""

    due_on: date
    amount_minor: int
    unpaid_minor: int
    state: InstalmentState


@dataclass(frozen=True, slots=True)
class PresentedPlan:
    """How an instalment plan stands. A broken one has no instalments: all is owed at once."""

    made_on: date
    instalments: tuple[PresentedInstalment, ...]
    kept_on: date | None
    broken_on: date | None

    @property
    def unpaid(self) -> tuple[PresentedInstalment, ...]:
        """Instalments of which something is unpaid, by their days."""
        return tuple(each for each in self.instalments if each.unpaid_minor)

    @property
    def asked(self) -> tuple[PresentedInstalment, ...]:
        """What is to be paid next: the instalments that are late, and the one after them."""
        late = [each for each in self.unpaid if each.state is InstalmentState.LATE]
        coming = [each for each in self.unpaid if each.state is not InstalmentState.LATE]
        return (*late, *coming[:1])


@dataclass(frozen=True, slots=True)
class BundlePresentment(Paid):
    """A reference for several invoices as its payer sees it. Amounts in centimes."""

    bundle_id: int
    reference: str
    kind: BundleKind
    contributor_id: int | None
    made_at: datetime
    withdrawn_at: datetime | None
    standing: Standing
    """OPEN, LATE, PART_PAID, PAID or CLEARED; CANCELLED is one that was withdrawn."""
    items: tuple[Presentment, ...]
    """The invoices it pays, in its order."""
    current: tuple[Presentment, ...]
    """Of a plan: what came due since it was made, is not of it, and is paid before it."""
    plan: PresentedPlan | None
    payments: tuple[PresentedPayment, ...]
    """That quoted its reference, as of an invoice."""
    due_minor: int
    """What to pay now: of a selection, all that is due today; of a plan, what came due since, the
    instalments that are late, and the next one; of a broken plan all that is due."""
    due_on: date
    """By when that was or is to be paid: the first day of all."""
    paid_minor: int
    """What is paid of its invoices, by whatever reference."""
    valid_until: date | None
    """The last day on which paying `due_minor` settles it; None where it does not grow."""

    @property
    def shown(self) -> tuple[Presentment, ...]:
        """The invoices of which something is due, in the order in which they are paid."""
        return tuple(each for each in (*self.current, *self.items) if each.due_minor)


def present_bundle(
    session: Session, reference: str, *, now: datetime, validity_months: int
) -> BundlePresentment | None:
    """Return what the payer of a reference for several invoices sees, or None if there is none.

    The caller owns the transaction; a snapshot makes the parts agree. Some queries, however many
    invoices there are.
    """
    row = execute(session, _BUNDLE, {"reference": reference}).mappings().one_or_none()
    if row is None:
        return None
    ids = list(execute(session, _ITEMS, {"id": row["id"]}).scalars())
    plan, current, ends = None, list[Presentment](), AS_WRITTEN
    if row["plan_id"] is not None:
        ends = relief_ends(session, row["person"], on=day_of(now))
        plan = _plan(session, row["plan_id"], day_of(now))
        query = CURRENT_OF_PLAN.format(bundle=":id")
        others = list(execute(session, query, {"id": row["id"]}).scalars())
        current = present_ids(session, others, now=now, validity_months=validity_months, ends=ends)
    items = present_ids(session, ids, now=now, validity_months=validity_months, ends=ends)
    payments = payments_of(session, "bundle_id", [row["id"]]).get(row["id"], ())
    return _presented(row, items, current, plan, payments, day_of(now))


def _presented(
    row: Any,
    items: Sequence[Presentment],
    current: Sequence[Presentment],
    plan: PresentedPlan | None,
    payments: Sequence[PresentedPayment],
    today: date,
) -> BundlePresentment:
    asked = plan.asked if plan else ()
    spread = plan is not None and plan.broken_on is None
    due = [each for each in (*current, *(() if spread else items)) if each.due_minor]
    due_minor = sum(e.due_minor for e in due) + sum(e.unpaid_minor for e in asked)
    days = [each.due_on for each in due] + [each.due_on for each in asked]
    due_on = min(days, default=max(each.due_on for each in items))
    paid_minor = sum(each.paid_minor for each in items)
    return BundlePresentment(
        bundle_id=row["id"],
        reference=row["reference"],
        kind=BundleKind(row["kind"]),
        contributor_id=row["contributor_id"],
        made_at=row["made_at"],
        withdrawn_at=row["withdrawn_at"],
        standing=standing_of(
            due_minor=due_minor,
            paid_minor=paid_minor,
            due_on=due_on,
            expires_on=date.max,
            cancelled=row["withdrawn_at"] is not None,
            today=today,
        ),
        items=tuple(items),
        current=tuple(current),
        plan=plan,
        payments=tuple(payments),
        due_minor=0 if row["withdrawn_at"] else due_minor,
        due_on=due_on,
        paid_minor=paid_minor,
        valid_until=min((e.valid_until for e in due if e.valid_until), default=None),
    )


def _plan(session: Session, plan_id: int, today: date) -> PresentedPlan:
    view = read_plan(session, plan_id, on=today)
    assert view is not None
    state = view.state
    broken = state.standing is PlanStanding.BROKEN
    return PresentedPlan(
        made_on=view.made_on,
        instalments=tuple(
            PresentedInstalment(
                due_on=each.instalment.due_on,
                amount_minor=each.instalment.amount_minor,
                unpaid_minor=each.unpaid_minor,
                state=each.state,
            )
            for each in (() if broken else state.instalments)
        ),
        kept_on=state.since if state.standing is PlanStanding.KEPT else None,
        broken_on=state.since if broken else None,
    )


_BUNDLE: Final = """
    SELECT b.id, b.reference, b.kind, b.contributor_id, b.made_at, b.withdrawn_at,
        plan.id AS plan_id, coalesce(file.merged_into_id, file.id) AS person
    FROM bundle b LEFT JOIN plan ON plan.bundle_id = b.id
    LEFT JOIN contributor file ON file.id = plan.contributor_id WHERE b.reference = :reference
"""

_ITEMS: Final = "SELECT invoice_id FROM bundle_item WHERE bundle_id = :id ORDER BY position"
