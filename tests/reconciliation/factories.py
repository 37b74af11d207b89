"""Rows and files that are valid unless a test says otherwise."""

from __future__ import annotations

import csv
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path
from typing import Final

from sqlmodel import Session, select

from gateway.db import execute, transaction
from gateway.models import (
    Category,
    Channel,
    Contributor,
    Invoice,
    Payment,
    PaymentStatus,
    Periodicity,
)
from gateway.references import nth_reference
from reconciliation.records import COLUMNS

KEY: Final = bytes(range(32))
DUE_MINOR: Final = 16_352
PERIOD: Final = "2026-11"
NOW: Final = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)

# Nine zeros are no number of anybody.
_numbers = count(1)


def a_reference(n: int | None = None) -> str:
    return nth_reference(next(_numbers) if n is None else n, KEY)


def an_invoice(
    session: Session, *, period: str = PERIOD, amount_minor: int = 10 * DUE_MINOR
) -> Invoice:
    """Insert a contributor and their invoice; several payments fit its amount."""
    n = next(_numbers)
    category = session.get(Category, "artisan-untaxed")
    if category is None:
        category = Category(code="artisan-untaxed", periodicity=Periodicity.MONTH, needs_base=False)
        session.add(category)
        session.flush()
    contributor = Contributor(
        cnss_number=f"{n:09d}",
        cin=None,
        family_name="El Amrani",
        given_name="Fatima",
        family_name_ar=None,
        given_name_ar=None,
        phone=None,
        language=None,
        category_code=category.code,
        region=None,
        province=None,
        chamber=None,
        registered_on=date(2022, 1, 1),
        left_on=None,
        changed_at=NOW,
    )
    session.add(contributor)
    session.flush()
    assert contributor.id is not None
    invoice = Invoice(
        reference=a_reference(n),
        contributor_id=contributor.id,
        category_code=category.code,
        period=period,
        due_on=date(2026, 11, 30),
        amount_minor=amount_minor,
        owed_minor=amount_minor,
        tariff="test",
        issued_at=NOW,
    )
    session.add(invoice)
    session.flush()
    return invoice


def a_payment(
    session: Session,
    invoice: Invoice | None = None,
    *,
    provider_payment_id: str | None = None,
    amount_minor: int = DUE_MINOR,
    paid_at: datetime = datetime(2026, 11, 18, 11, 6, 40, tzinfo=UTC),
    status: PaymentStatus = PaymentStatus.BOOKED,
    provider: str = "cashplus",
    bundle_id: int | None = None,
) -> Payment:
    """Insert a payment of an invoice or a bundle; without one it is in suspense."""
    payment = Payment(
        provider=provider,
        provider_payment_id=provider_payment_id or f"CP-{next(_numbers)}",
        status=status,
        reference_given=invoice.reference if invoice else "nothing",
        invoice_id=invoice.id if invoice else None,
        bundle_id=bundle_id,
        amount_minor=amount_minor,
        currency="MAD",
        channel=Channel.CASH_AGENT,
        agent_id=None,
        terminal_id=None,
        paid_at=paid_at,
        stated_at=paid_at,
        recorded_at=paid_at,
        booked_at=paid_at if status is PaymentStatus.BOOKED else None,
        source="test",
    )
    session.add(payment)
    session.flush()
    return payment


def an_invoice_paid(
    *, provider_payment_id: str | None = None, period: str = PERIOD, amount_minor: int = DUE_MINOR
) -> tuple[str, str]:
    """Commit an invoice with one payment; return its reference and the provider's payment id."""
    with transaction() as session:
        invoice = an_invoice(session, period=period)
        payment = a_payment(
            session, invoice, provider_payment_id=provider_payment_id, amount_minor=amount_minor
        )
        return invoice.reference, payment.provider_payment_id


def reverse(provider_payment_id: str) -> None:
    """The provider gave the money of a payment back."""
    with transaction() as session:
        payment = session.exec(
            select(Payment).where(Payment.provider_payment_id == provider_payment_id)
        ).one()
        payment.status = PaymentStatus.REVERSED
        session.add(payment)


def give_back(provider_payment_id: str, returned_minor: int) -> None:
    """The provider gave a part of a payment back, or all: so much by now."""
    with transaction() as session:
        payment = session.exec(
            select(Payment).where(Payment.provider_payment_id == provider_payment_id)
        ).one()
        payment.returned_minor = returned_minor
        session.add(payment)


def a_line(reference: str | None = None, **other: str) -> dict[str, str]:
    """Return the fields of a line of the institution's file."""
    line = {
        "record_id": f"R-{next(_numbers)}",
        "reference": a_reference() if reference is None else reference,
        "cnss_number": "123456789",
        "cin": "AB123456",
        "name": "EL AMRANI FATIMA",
        "period": PERIOD,
        "amount": "163.52",
        "posted_on": "2026-11-19",
        "channel": "cash_agent",
        "provider_reference": "",
    }
    assert not other.keys() - line.keys()
    return line | other


def a_file(
    path: Path,
    *lines: dict[str, str],
    trailer: tuple[object, ...] | None = None,
    delimiter: str = ",",
    columns: tuple[str, ...] = COLUMNS,
    mark: bool = False,
) -> Path:
    """Write a file of records; with `trailer` the fields behind the word."""
    encoding = "utf-8-sig" if mark else "utf-8"
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows([line[column] for column in columns] for line in lines)
        if trailer is not None:
            writer.writerow(("TRAILER", *trailer))
    return path


def how_many(table: str, where: str = "true") -> int:
    """Count committed rows."""
    with transaction() as session:
        number: int = execute(session, f"SELECT count(*) FROM {table} WHERE {where}").scalar_one()
    return number


def asked() -> list[tuple[str, str]]:
    """Return code and subject of the exceptions that are open."""
    with transaction() as session:
        rows = execute(
            session,
            "SELECT code, subject FROM coded_exception WHERE resolved_at IS NULL ORDER BY 1, 2",
        )
        return [(code, subject) for code, subject in rows]
