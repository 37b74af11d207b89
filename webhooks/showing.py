"""What senders who wait are shown: bills by reference or person, and their own payments."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlmodel import Session

from gateway.billing.bundle_presentment import BundlePresentment, present_bundle
from gateway.billing.presentment import Presentment, Standing, present, present_many
from gateway.db import execute, snapshot
from gateway.models import BundleKind, Channel, PaymentStatus
from gateway.providers.calls import (
    Bill,
    BillKind,
    Bills,
    KnownPayment,
    KnownPayments,
    ShowBills,
    ShowPayments,
)
from gateway.references import read_reference


def bills(want: ShowBills, *, now: datetime, validity_months: int) -> Bills:
    """Return what is due by a reference, or of a person: what is unpaid, the newest first."""
    months = validity_months
    with snapshot() as session:
        if not want.cnss_number:
            reference = read_reference(want.reference_given)
            found = reference and (
                present(session, reference, now=now, validity_months=months)
                or present_bundle(session, reference, now=now, validity_months=months)
            )
            return Bills((_bill(found),), 1) if found else Bills((), 0, known=False)
        person = execute(session, _PERSON, {"number": want.cnss_number}).scalar_one_or_none()
        if person is None:
            return Bills((), 0, known=False)
        of_person = (
            "contributor_id = :person AND cancelled_at IS NULL AND paid_minor < owed_minor"
            " AND issued_at >= coalesce(:since, CAST('-infinity' AS timestamptz))"
            " AND issued_at <= coalesce(:until, CAST('infinity' AS timestamptz))"
        )
        asked = {"person": person, "since": want.since, "until": want.until}
        which = {**asked, "limit": want.limit, "offset": want.offset}
        chosen = f"SELECT id FROM invoice WHERE {of_person} ORDER BY due_on DESC, id DESC"
        ids = f"id IN ({chosen} LIMIT :limit OFFSET :offset)"
        found_bills = [_bill(each) for each in present_many(session, ids, which, now, months)]
        count = f"SELECT count(*) FROM invoice WHERE {of_person}"
        available = execute(session, count, asked).scalar_one()
    ordered = sorted(found_bills, key=lambda bill: (bill.due_on, bill.reference), reverse=True)
    return Bills(tuple(ordered), int(available))


_PERSON: Final = "SELECT coalesce(merged_into_id, id) FROM contributor WHERE cnss_number = :number"


def _bill(found: Presentment | BundlePresentment) -> Bill:
    cancelled = found.standing is Standing.CANCELLED
    if isinstance(found, Presentment):
        return Bill(
            reference=found.reference,
            period=found.period,
            total_minor=found.total_minor,
            paid_minor=found.paid_minor,
            due_minor=found.due_minor,
            due_on=found.due_on,
            issued_at=found.issued_at,
            cancelled=cancelled,
            kind=BillKind.INVOICE,
            most_minor=found.due_minor,
            initials=found.person.initials,
            valid_until=found.valid_until,
        )
    initials = {each.person.initials for each in (*found.current, *found.items)}
    together = sum(each.due_minor for each in (*found.current, *found.items))
    return Bill(
        reference=found.reference,
        period="",
        total_minor=found.paid_minor + found.due_minor,
        paid_minor=found.paid_minor,
        due_minor=found.due_minor,
        due_on=found.due_on,
        issued_at=found.made_at,
        cancelled=cancelled,
        kind=BillKind.PLAN if found.kind is BundleKind.PLAN else BillKind.SELECTION,
        most_minor=0 if cancelled else together,
        initials=initials.pop() if len(initials) == 1 else "",
        valid_until=found.valid_until,
    )


_PAYMENTS: Final = """
    SELECT p.provider_payment_id, coalesce(i.reference, b.reference) AS reference, p.status,
        p.amount_minor, p.channel, p.paid_at, p.recorded_at, p.booked_at, p.returned_minor,
        r.number
    FROM payment p LEFT JOIN invoice i ON i.id = p.invoice_id
    LEFT JOIN bundle b ON b.id = p.bundle_id
    LEFT JOIN receipt r ON r.payment_id = p.id
    WHERE p.provider = :provider
"""


def payment(session: Session, provider: str, named: str) -> KnownPayment | None:
    """Return a provider's payment as it stands. The caller owns the transaction."""
    query = f"{_PAYMENTS} AND p.provider_payment_id = :named"
    row = execute(session, query, {"provider": provider, "named": named}).mappings().first()
    return None if row is None else _known(row)


def payments(provider: str, want: ShowPayments) -> KnownPayments:
    """Return what a provider told us of payments for a reference, the last it told us first."""
    reference = read_reference(want.reference_given)
    if reference is None:
        return KnownPayments((), 0, known=False)
    with snapshot() as session:
        named = execute(session, _NAMED, {"reference": reference}).one()
        if named.invoice is None and named.bundle is None:
            return KnownPayments((), 0, known=False)
        asked: dict[str, Any] = {
            "provider": provider,
            "invoice": named.invoice,
            "bundle": named.bundle,
            "since": want.since,
            "until": want.until,
        }
        rows = execute(
            session,
            f"{_PAYMENTS} {_ABOUT} ORDER BY p.id DESC LIMIT :limit OFFSET :offset",
            {**asked, "limit": want.limit, "offset": want.offset},
        ).mappings()
        known = tuple(_known(row) for row in rows)
        count = f"SELECT count(*) FROM payment p WHERE p.provider = :provider {_ABOUT}"
        available = execute(session, count, asked).scalar_one()
    return KnownPayments(known, int(available))


_NAMED: Final = (
    "SELECT (SELECT id FROM invoice WHERE reference = :reference) AS invoice,"
    " (SELECT id FROM bundle WHERE reference = :reference) AS bundle"
)
# By the keys, which have an index each; by the references joined to them, every payment is read.
_ABOUT: Final = """
    AND (p.invoice_id = CAST(:invoice AS bigint) OR p.bundle_id = CAST(:bundle AS bigint))
    AND p.recorded_at >= coalesce(:since, CAST('-infinity' AS timestamptz))
    AND p.recorded_at <= coalesce(:until, CAST('infinity' AS timestamptz))
"""


def _known(row: Any) -> KnownPayment:
    return KnownPayment(
        provider_payment_id=row["provider_payment_id"],
        reference=row["reference"],
        status=PaymentStatus(row["status"]),
        amount_minor=row["amount_minor"],
        channel=None if row["channel"] is None else Channel(row["channel"]),
        paid_at=row["paid_at"],
        recorded_at=row["recorded_at"],
        booked_at=row["booked_at"],
        receipt_number=row["number"],
        returned_minor=row["returned_minor"],
    )
