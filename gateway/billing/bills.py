"""Read the facts about invoices that gateway.dues.balances decides by. Decide and lock nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from sqlmodel import Session

from gateway.clock import day_of
from gateway.db import execute
from gateway.dues.balances import Balance, Bill, Claim, Note, Relief
from gateway.models import Component, LineKind


@dataclass(frozen=True, slots=True)
class Ends:
    """How plans and remissions end by date where it is not written down so yet: by their ids, the
    day they were broken, or None where they stand."""

    plans: Mapping[int, date | None] = field(default_factory=dict)
    remissions: Mapping[int, date | None] = field(default_factory=dict)

    def of(self, relief: Any) -> date | None:
        """Return when a row of `invoice_relief` ends."""
        if relief["plan_id"] in self.plans:
            return self.plans[relief["plan_id"]]
        if relief["remission_id"] in self.remissions:
            return self.remissions[relief["remission_id"]]
        ended_on: date | None = relief["ended_on"]
        return ended_on


AS_WRITTEN: Final = Ends()
"""All end as it is written down."""


def read_bills(
    session: Session, invoice_ids: Sequence[int], *, ends: Ends = AS_WRITTEN
) -> dict[int, Bill]:
    """Return the bills of these invoices, with all notes and reliefs, ended ones too."""
    ids = {"ids": list(invoice_ids)}
    notes: dict[int, list[Note]] = {}
    for row in execute(session, _NOTES, ids).mappings():
        kind, due_on = LineKind(row["kind"]), row["due_on"]
        note = Note(kind, row["amount_minor"], row["noted_on"], due_on)
        notes.setdefault(row["invoice_id"], []).append(note)
    reliefs: dict[int, list[Relief]] = {}
    for row in execute(session, _RELIEFS, ids).mappings():
        reliefs.setdefault(row["invoice_id"], []).append(_relief(row, ends.of(row)))
    rows = execute(
        session,
        "SELECT id, amount_minor, due_on, cancelled_at IS NOT NULL FROM invoice"
        " WHERE id = ANY(:ids)",
        ids,
    )
    return {
        at: Bill(amount_minor, due_on, notes.get(at, ()), reliefs.get(at, ()), cancelled)
        for at, amount_minor, due_on, cancelled in rows
    }


def read_claims(session: Session, invoice_ids: Sequence[int]) -> dict[int, list[Claim]]:
    """Return what of which payment pays these invoices now, by the payments' ids and days.

    Those of one day in the order of their instants: no sum depends on it. What lies in the payers'
    credit is no claim here: gateway.collection.placing moves it.
    """
    found: dict[int, list[Claim]] = {}
    for row in execute(session, _CLAIMS, {"ids": list(invoice_ids)}).mappings():
        claim = Claim(row["payment_id"], day_of(row["paid_at"]), row["amount_minor"])
        found.setdefault(row["invoice_id"], []).append(claim)
    return found


def read_parts(session: Session, invoice_ids: Sequence[int]) -> dict[int, dict[Component, int]]:
    """Return what is paid of each part of these invoices, in centimes; what is nought, left out."""
    found: dict[int, dict[Component, int]] = {}
    for at, component, minor in execute(session, _PARTS, {"ids": list(invoice_ids)}):
        found.setdefault(at, {})[Component(component)] = minor
    return found


def placed_parts(balance: Balance) -> dict[Component, int]:
    """Return what a balance says is paid of each part, as `read_parts` does."""
    found: dict[Component, int] = {}
    for placed in balance.placed:
        found[placed.component] = found.get(placed.component, 0) + placed.amount_minor
    return found


def last_day(bill: Bill, claims: Sequence[Claim]) -> date:
    """Return the day by which all that is known of an invoice has happened.

    What it comes to without more time going by is the same on this day and on any later one.
    """
    ends = [relief.ended_on for relief in bill.reliefs if relief.ended_on is not None]
    return max(
        bill.due_on,
        *ends,
        *(relief.granted_on for relief in bill.reliefs),
        *(note.noted_on for note in bill.notes),
        *(claim.paid_on for claim in claims),
        date.min,
    )


def _relief(row: Any, ended_on: date | None) -> Relief:
    return Relief(
        granted_on=row["granted_on"],
        principal_rate=row["principal_rate"],
        penalty_rate=row["penalty_rate"],
        fee_rate=row["fee_rate"],
        stops_penalty=row["stops_penalty"],
        ended_on=ended_on,
    )


_NOTES: Final = (
    "SELECT invoice_id, kind, amount_minor, due_on, noted_on FROM invoice_note"
    " WHERE invoice_id = ANY(:ids) ORDER BY id"
)
_RELIEFS: Final = "SELECT * FROM invoice_relief WHERE invoice_id = ANY(:ids) ORDER BY id"
_CLAIMS: Final = """
    SELECT a.invoice_id, a.payment_id, p.paid_at, sum(a.amount_minor)::bigint AS amount_minor
    FROM allocation a JOIN payment p ON p.id = a.payment_id
    WHERE a.invoice_id = ANY(:ids)
    GROUP BY a.invoice_id, a.payment_id, p.paid_at HAVING sum(a.amount_minor) > 0
    ORDER BY a.invoice_id, p.paid_at, a.payment_id
"""
_PARTS: Final = """
    SELECT invoice_id, component, sum(amount_minor)::bigint FROM allocation
    WHERE invoice_id = ANY(:ids) GROUP BY invoice_id, component HAVING sum(amount_minor) <> 0
"""
