"""What others are told, and a person need no longer decide, when a payment's money moves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from sqlmodel import Session

from gateway.events import Happening
from gateway.exception_queue import Handled, resolve_exceptions
from gateway.models import EventType, ExceptionCode
from gateway.money import format_amount
from gateway.placements import Key, Moved

CREDIT_CODES: Final = (
    ExceptionCode.OVERPAID,
    ExceptionCode.PAID_TWICE,
    ExceptionCode.PAID_CANCELLED,
)
"""Those that ask what is to become of money that is the payer's credit."""


def moved_happening(moved: Moved) -> Happening:
    """Return what is told of money that pays another debt than before, or is credit now."""
    report = moved.payment.report
    data = {
        "provider": report.provider,
        "provider_payment_id": report.provider_payment_id,
        "reference": moved.invoice.reference,
        "paid_before": format_amount(moved.before_minor),
        "pays": format_amount(moved.after_minor),
        "currency": report.currency,
    }
    return Happening(
        EventType.PAYMENT_MOVED, data, invoice_id=moved.invoice.id, payment_id=moved.payment.id
    )


def resolve_used_up(
    session: Session, used_up: Mapping[Key, str], *, now: datetime
) -> list[Handled]:
    """Close what was asked about the credit of payments that pays invoices now, all of it.

    Args:
        session: Whose transaction it is.
        used_up: Of each payment, the period of the invoice that its last credit pays.
        now: The business clock.
    """
    by_period: dict[str, list[str]] = {}
    for (provider, named), period in used_up.items():
        by_period.setdefault(period, []).append(f"payment:{provider}/{named}")
    return [
        each
        for period, subjects in by_period.items()
        for code in CREDIT_CODES
        for each in resolve_exceptions(
            session, code, subjects, because=f"its money paid the invoice of {period}", now=now
        )
    ]
