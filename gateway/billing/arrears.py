"""All that a person owes, by one reference: for who has one of his references and his number.

A reference alone shows what it is for and no more: notices are handed to neighbours, agents and
employers, and that somebody is months behind is his affair. Whoever knows the CNSS number too is
told the rest, as at any counter that looks bills up by the number.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session

from gateway.billing.bundles import make_selection
from gateway.billing.presentment import Presentment, present_many
from gateway.clock import day_of
from gateway.collection.attempt_rows import stand_alone
from gateway.db import execute


@dataclass(frozen=True, slots=True)
class Owner:
    """A person who owes, by all files."""

    contributor_id: int
    """The file that stands."""
    file_ids: tuple[int, ...]


def owner_of(session: Session, reference: str, cnss_number: str) -> Owner | None:
    """Return whose an invoice is, if it is this number's; None if there is none, or another's."""
    rows = execute(session, _FILES, {"reference": reference}).all()
    if cnss_number not in {row.cnss_number for row in rows}:
        return None
    return Owner(rows[0].person, tuple(row.id for row in rows))


def reference_of_all(
    session: Session, owner: Owner, reference: str, *, late_only: bool, now: datetime, months: int
) -> str | None:
    """Return the reference that pays all that a person owes today: found, or made.

    Without what a plan spreads, which is paid by the plan's. The caller owns the transaction.

    Args:
        session: Whose transaction it is.
        owner: Who owes.
        reference: Of one of the invoices, by which the person came.
        late_only: Only those whose due day has passed.
        now: The business clock.
        months: How long after its due day a reference can be paid by.

    Returns:
        That of the one invoice where only one is due; None where nothing is but `reference`.
    """
    # Whoever asks at the same moment finds what the first makes.
    stand_alone(session, reference)
    which = "contributor_id = ANY(:files) AND status IN ('open', 'part_paid')"
    asked = {"files": list(owner.file_ids)}
    found = present_many(session, f"{which} AND cancelled_at IS NULL", asked, now, months)
    today = day_of(now)
    due = [p for p in found if p.due_minor > 0 and not p.in_plan]
    due = [p for p in due if p.due_on < today or not late_only]
    due.sort(key=lambda p: (p.due_on, p.invoice_id))
    if not due or [p.reference for p in due] == [reference]:
        return None
    return due[0].reference if len(due) == 1 else _together(session, owner, due, now)


def _together(session: Session, owner: Owner, due: list[Presentment], now: datetime) -> str:
    ids = [each.invoice_id for each in due]
    asked = {"files": list(owner.file_ids), "first": ids[0], "ids": ids}
    known = execute(session, _SAME, asked).scalar_one_or_none()
    if known is not None:
        return str(known)
    made = make_selection(session, ids, contributor_id=owner.contributor_id, now=now)
    return made.reference


_FILES = """
    SELECT file.id, file.cnss_number, coalesce(c.merged_into_id, c.id) AS person
    FROM invoice JOIN contributor c ON c.id = invoice.contributor_id
    JOIN contributor file ON file.id = coalesce(c.merged_into_id, c.id)
        OR file.merged_into_id = coalesce(c.merged_into_id, c.id)
    WHERE reference = :reference
"""

_SAME = """
    SELECT b.reference FROM bundle_item item JOIN bundle b ON b.id = item.bundle_id
    WHERE item.invoice_id = :first AND b.kind = 'selection' AND b.withdrawn_at IS NULL
        AND b.contributor_id = ANY(:files) AND CAST(:ids AS bigint[]) = (
            SELECT array_agg(invoice_id ORDER BY position) FROM bundle_item
            WHERE bundle_id = b.id)
    ORDER BY b.id LIMIT 1
"""
