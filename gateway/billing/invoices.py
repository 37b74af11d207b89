"""Invoices that are there: take one back, list what is unpaid."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path

from sqlmodel import Session

from gateway.billing.owing import CHANGED, owing_of
from gateway.clock import day_of
from gateway.db import execute, snapshot
from gateway.errors import Unusable
from gateway.events import Happening, tell
from gateway.models import EventType
from gateway.money import format_amount
from gateway.references import format_reference


def cancel_invoice(session: Session, reference: str, *, because: str, now: datetime) -> None:
    """Take back an invoice that nothing was paid on; for ever. The caller owns the transaction.

    Money that arrives for it afterwards is booked to its contributor's credit, for a person to
    decide on. The person is not billed again for the period.

    Raises:
        Unusable: There is no such invoice, something was paid on it, or it is cancelled already.
    """
    found = execute(
        session,
        "SELECT id, paid_minor, cancelled_at FROM invoice"
        " WHERE reference = :reference FOR NO KEY UPDATE",
        {"reference": reference},
    ).one_or_none()
    shown = format_reference(reference)
    if found is None:
        raise Unusable(f"No invoice has the reference {shown}.")
    invoice_id, paid_minor, cancelled_at = found
    if cancelled_at is not None:
        raise Unusable(f"Invoice {shown} was cancelled on {day_of(cancelled_at)} already.")
    if paid_minor:
        raise Unusable(
            f"Invoice {shown} has {format_amount(paid_minor)} MAD paid on it: it can be cancelled"
            " only after its payments are taken back."
        )
    execute(
        session,
        "UPDATE invoice SET cancelled_at = :now, cancelled_because = :because WHERE id = :id",
        {"now": now, "because": because, "id": invoice_id},
    )
    told = Happening(EventType.INVOICE_CANCELLED, {"reference": reference}, invoice_id=invoice_id)
    tell(session, [told], now=now)


def write_notices(path: Path, *, now: datetime) -> int:
    """Write what a payer must know to pay each unpaid invoice as CSV; return how many there are.

    Opens one snapshot. The amount is what paying on the day of `now` settles, penalty and fees
    included. The CNSS number tells the payer's own software whose notice it is.
    """
    with snapshot() as session, path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["reference", "amount", "cnss_number", "period", "due_on"])
        rows = execute(
            session,
            "SELECT i.id, reference, i.category_code, period, amount_minor, owed_minor, paid_minor,"
            f" i.status, due_on, cancelled_at, cnss_number, {CHANGED} AS changed"
            " FROM invoice i JOIN contributor ON contributor.id = contributor_id"
            " WHERE i.status IN ('open', 'part_paid') AND cancelled_at IS NULL"
            " AND erased_at IS NULL"
            " ORDER BY cnss_number, period",
        )
        count = 0
        for some in rows.mappings().partitions(5_000):
            owing = owing_of(session, some, day_of(now))
            for row in some:
                due = owing[row["id"]]
                amount = format_amount(due.due_minor)
                day = due.payable_by
                out.writerow([row["reference"], amount, row["cnss_number"], row["period"], day])
            count += len(some)
    return count
