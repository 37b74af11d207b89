"""Read and write invoices with what pays them: for whoever moves money. Decides nothing.

Who moves money on an invoice holds its row. Who spends a payment's credit elsewhere, or takes any
of it back, holds the payment's row and the rows of all invoices where its money lies, and of the
one that it quoted. Payments are locked before invoices, invoices in the order of their ids, so that
nobody waits in a ring; and what pays an invoice is read after it is locked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Session

from gateway.billing.bills import read_bills
from gateway.books import ledger
from gateway.books.accounts import SUSPENSE
from gateway.collection.booking import STATED_BY
from gateway.collection.placements import Allocated, InvoiceState, Key, PaymentState, credit_of
from gateway.collection.reports import PaymentReport
from gateway.db import copy_blocks, execute, fetch
from gateway.dues.balances import Bill, Rates
from gateway.dues.tariff import tariff
from gateway.models import Channel, Component, PaymentStatus
from gateway.packing import bigint, bigints, blocks, columns, instant, texts, word


@dataclass(slots=True)
class Debts:
    """Invoices that are locked, and the payments that pay them or may."""

    invoices: dict[int, InvoiceState]
    payments: dict[Key, PaymentState] = field(default_factory=dict)
    arrivals: int = 0
    """How many payments have come into the books, as far as these matter."""


def surviving_files(session: Session, contributor_ids: Iterable[int]) -> dict[int, int]:
    """Return for each file the one of the same person that stands: itself, if it was not merged."""
    ids = sorted(set(contributor_ids))
    if not ids:
        return {}
    rows = execute(
        session,
        """
        WITH RECURSIVE path (asked, id, merged_into_id) AS (
            SELECT id, id, merged_into_id FROM contributor WHERE id = ANY(:ids)
            UNION ALL
            SELECT asked, c.id, c.merged_into_id
            FROM path JOIN contributor c ON c.id = path.merged_into_id
        )
        SELECT asked, id FROM path WHERE merged_into_id IS NULL
        """,
        {"ids": ids},
    )
    return {row.asked: row.id for row in rows}


def lock_payments(
    session: Session, which: str, parameters: Mapping[str, Any]
) -> dict[Key, PaymentState]:
    """Lock and return the payments (`p`) that a WHERE or a JOIN selects, without their transfers.

    Against change, not against being pointed to: whoever tells of one must not wait.
    """
    return _payments(session, f"{which} ORDER BY p.id FOR NO KEY UPDATE OF p", parameters)


def _payments(
    session: Session, which: str, parameters: Mapping[str, Any]
) -> dict[Key, PaymentState]:
    rows = execute(
        session,
        "SELECT p.*, b.contributor_id AS bundle_owner_id FROM payment p"
        f" LEFT JOIN bundle b ON b.id = p.bundle_id {which}",
        parameters,
    ).mappings()
    found = [(_payment(row), row["bundle_owner_id"]) for row in rows]
    survivors = surviving_files(session, {owner for _, owner in found if owner is not None})
    for state, owner in found:
        if state.bundle_id is not None:
            state.beyond = SUSPENSE if owner is None else credit_of(survivors[owner])
    return {state.key: state for state, _ in found}


def _payment(row: Mapping[str, Any] | sa.RowMapping) -> PaymentState:
    status = PaymentStatus(row["status"])
    report = PaymentReport(
        provider=row["provider"],
        provider_payment_id=row["provider_payment_id"],
        statement=STATED_BY[status],
        reference_given=row["reference_given"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        channel=Channel(row["channel"]) if row["channel"] else None,
        paid_at=row["paid_at"],
        paid_at_given=None,
        stated_at=row["stated_at"],
        received_at=row["recorded_at"],
        source=row["source"],
        agent_id=row["agent_id"],
        terminal_id=row["terminal_id"],
        fee_minor=row["fee_minor"],
    )
    return PaymentState(
        report=report,
        status=status,
        stated_at=row["stated_at"],
        paid_at=row["paid_at"],
        recorded_at=row["recorded_at"],
        invoice_id=row["invoice_id"],
        bundle_id=row["bundle_id"],
        booked_at=row["booked_at"],
        returned_minor=row["returned_minor"],
        id=row["id"],
    )


def invoices_of(session: Session, payments: Iterable[PaymentState]) -> set[int]:
    """Return where the money of locked payments lies, and what they quoted: to be locked, too."""
    found = {each.invoice_id for each in payments if each.invoice_id is not None}
    booked = [each.id for each in payments if each.status is PaymentStatus.BOOKED]
    if booked:
        rows = execute(
            session,
            "SELECT invoice_id FROM allocation WHERE payment_id = ANY(:ids)"
            " GROUP BY payment_id, invoice_id HAVING sum(amount_minor) <> 0",
            {"ids": booked},
        )
        found.update(rows.scalars())
    return found


def lock_debts(
    session: Session,
    invoice_ids: Iterable[int],
    references: Sequence[str] = (),
    *,
    payments: dict[Key, PaymentState] | None = None,
    whole: bool = False,
) -> Debts:
    """Lock invoices, and return them with all that pays them or may.

    Args:
        session: Whose transaction it is.
        invoice_ids: Which ones.
        references: Which others.
        payments: Those that are locked already; all are brought to where their money lies.
        whole: Whether to read also what quoted an invoice that nothing pays now.
    """
    asked = {"references": texts(references), "ids": bigints(sorted(set(invoice_ids)))}
    rows = fetch(session, _LOCKED, asked)
    owners = {"ids": bigints(sorted({row[2] for row in rows}))}
    survivors = surviving_files(session, execute(session, _MERGED, owners).scalars())
    # Many are alike, and one that nothing changed never changes.
    bills: dict[tuple[int, date, bool], Bill] = {}
    invoices: dict[int, InvoiceState] = {}
    for at, reference, owner, category, period, due_on, minor, paid, owed, cancelled in rows:
        alike = (minor, due_on, cancelled)
        bill = bills.get(alike) or bills.setdefault(alike, Bill(minor, due_on, (), (), cancelled))
        person = survivors.get(owner, owner)
        invoices[at] = InvoiceState(
            at, reference, person, period, bill, paid, owed, _rates(category)
        )
    changed = set(execute(session, _CHANGED, {"ids": bigints(list(invoices))}).scalars())
    if changed:
        for at, bill in read_bills(session, sorted(changed)).items():
            invoices[at].bill = bill
    debts = Debts(invoices, {} if payments is None else payments)
    read = [at for at, invoice in invoices.items() if whole or _has_history(invoice)]
    _read_what_pays(session, debts, read)
    return debts


def _has_history(invoice: InvoiceState) -> bool:
    """Say whether anything can pay an invoice by now: most were never heard of before."""
    return bool(invoice.paid_minor) or not invoice.is_plain


_LOCKED: Final = """
    SELECT id, reference, contributor_id, category_code, period, due_on,
        amount_minor, paid_minor, owed_minor, cancelled_at IS NOT NULL AS cancelled
    FROM invoice WHERE reference = ANY(%(references)s) OR id = ANY(%(ids)s)
    ORDER BY id FOR NO KEY UPDATE
"""

# Few files ever were: they have an index of their own.
_MERGED: Final = """
    SELECT id FROM contributor WHERE merged_into_id IS NOT NULL AND id = ANY(:ids)
"""

# Asked once the rows are locked: what stood beside them when we began to wait is no matter.
_CHANGED: Final = """
    SELECT invoice_id FROM invoice_note WHERE invoice_id = ANY(:ids)
    UNION SELECT invoice_id FROM invoice_relief WHERE invoice_id = ANY(:ids)
"""


@cache
def _rates(category_code: str) -> Rates:
    def rate(month: date) -> Decimal:
        return _rates_in_force(category_code)(month)

    return rate


@cache
def _rates_in_force(category_code: str) -> Rates:
    # Asked only for what is late: money that is not must not fail over a tariff.
    return tariff().penalty_rates(category_code)


def _read_what_pays(session: Session, debts: Debts, invoice_ids: Sequence[int]) -> None:
    placed: dict[int, list[Any]] = {}
    if invoice_ids:
        for row in execute(session, _PLACED, {"ids": list(invoice_ids)}):
            placed.setdefault(row.payment_id, []).append(row)
        found = _payments(
            session,
            "WHERE p.status = 'booked' AND (p.id = ANY(:ids) OR p.invoice_id = ANY(:invoices))",
            {"ids": list(placed), "invoices": list(invoice_ids)},
        )
        debts.payments.update({at: p for at, p in found.items() if at not in debts.payments})
    booked = {
        each.id: each
        for each in debts.payments.values()
        if each.id is not None and each.status in {PaymentStatus.BOOKED, PaymentStatus.REVERSED}
    }
    if not booked:
        return
    # In the order of the books, so that of each payment the first transfer says when it came.
    for payment_id, postings in ledger.unreversed(session, list(booked)).items():
        payment = booked[payment_id]
        payment.postings = postings
        if payment.status is PaymentStatus.REVERSED:
            # A claim for what was paid out by hand: it pays nothing.
            continue
        payment.arrival, debts.arrivals = debts.arrivals, debts.arrivals + 1
        if payment.invoice_id in debts.invoices:
            debts.invoices[payment.invoice_id].join(payment)
        for row in placed.get(payment_id, ()):
            invoice = debts.invoices[row.invoice_id]
            held = invoice.held.setdefault(payment.key, {})
            part = Component(row.component)
            held[part] = held.get(part, 0) + row.amount_minor
            if not held[part]:
                del held[part]
            invoice.policies[payment.key] = row.policy
    for invoice in debts.invoices.values():
        invoice.held = {at: parts for at, parts in invoice.held.items() if parts}
        for at in invoice.held:
            invoice.join(debts.payments[at])


_PLACED: Final = """
    SELECT payment_id, invoice_id, component, amount_minor, policy FROM allocation
    WHERE invoice_id = ANY(:ids) ORDER BY id
"""


# -- writing --------------------------------------------------------------------------------------


def write_debts(
    session: Session,
    invoices: Iterable[InvoiceState],
    allocations: Sequence[Allocated],
    payment_ids: Mapping[Key, int],
    *,
    now: datetime,
) -> None:
    """Write what was allocated, and what the invoices come to then."""
    if allocations:
        copy_blocks(session, _COPY, blocks(_rows(allocations, payment_ids, now)))
    changed = {each.id: each for each in invoices if not each.bill.cancelled}
    if changed:
        execute(
            session,
            """
            UPDATE invoice SET paid_minor = p.paid_minor, owed_minor = p.owed_minor,
                status = CASE WHEN p.owed_minor = 0 THEN 'cleared'
                    WHEN p.paid_minor = 0 THEN 'open'
                    WHEN p.paid_minor < p.owed_minor THEN 'part_paid' ELSE 'paid' END
            FROM unnest(CAST(:ids AS bigint[]), CAST(:paid AS bigint[]), CAST(:owed AS bigint[]))
                AS p (id, paid_minor, owed_minor)
            WHERE invoice.id = p.id AND (invoice.paid_minor, invoice.owed_minor)
                IS DISTINCT FROM (p.paid_minor, p.owed_minor)
            """,
            {
                "ids": bigints(list(changed)),
                "paid": bigints([each.paid_minor for each in changed.values()]),
                "owed": bigints([each.owed_minor for each in changed.values()]),
            },
        )


_COPY: Final = (
    "COPY allocation (payment_id, invoice_id, component, amount_minor, policy, allocated_at)"
    " FROM STDIN (FORMAT BINARY)"
)


def _rows(
    allocations: Sequence[Allocated], payment_ids: Mapping[Key, int], now: datetime
) -> Iterator[bytes]:
    start, allocated_at = columns(6), instant(now)
    for each in allocations:
        yield b"".join(
            (
                start,
                bigint(payment_ids[each.key]),
                bigint(each.invoice_id),
                word(each.component.value),
                bigint(each.amount_minor),
                word(each.policy),
                allocated_at,
            )
        )
