"""What others are told, and a person need no longer decide, when a payment's money moves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from sqlmodel import Session

from gateway.collection.placements import Key, Moved
from gateway.events import Happening
from gateway.exception_queue import Handled, resolve_exceptions
from gateway.models import EventType, ExceptionCode
from gateway.money import format_amount

CREDIT_CODES: Final = (
    ExceptionCode.OVERPAID,
    ExceptionCode.PAID_TWICE,
    ExceptionCode.PAID_CANCELLED,
)
"""Those that ask what is to become of money that is the payer's credit."""
LOOSE_CODES: Final = (*CREDIT_CODES, ExceptionCode.UNKNOWN_REFERENCE)
"""Those that ask what is to become of money that no invoice needs."""


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


GIVEN_BACK: Final = "its money was given back"


def why_used_up(moved: Moved) -> str:
    """Return why nothing is to be decided any more about a payment whose last credit was used."""
    return f"its money paid the invoice of {moved.invoice.period}"


def resolve_used_up(
    session: Session, used_up: Mapping[Key, str], *, now: datetime
) -> list[Handled]:
    """Close what was asked about money of payments beyond what was due, of which none is left.

    Args:
        session: Whose transaction it is.
        used_up: Of each payment, why there is none.
        now: The business clock.
    """
    by_reason: dict[str, list[str]] = {}
    for (provider, named), because in used_up.items():
        by_reason.setdefault(because, []).append(f"payment:{provider}/{named}")
    return [
        each
        for because, subjects in by_reason.items()
        for code in LOOSE_CODES
        for each in resolve_exceptions(session, code, subjects, because=because, now=now)
    ]
