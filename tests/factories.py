"""Rows and reports that are valid unless told otherwise. A test names only what it is about."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, date, datetime
from itertools import count
from typing import Any

from sqlmodel import Session

from gateway.db import execute, transaction
from gateway.invoices import issue_invoices
from gateway.models import Channel, Contributor
from gateway.periods import parse_period
from gateway.reports import PaymentReport, Statement
from gateway.tariff import keep_categories, tariff

NOON = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
_numbers = count(100_000_001)


def a_contributor(session: Session, **values: Any) -> Contributor:
    """Add a person who owes 163.52 a month since 2022."""
    keep_categories(session, tariff())
    row = Contributor(
        **{
            "cnss_number": str(next(_numbers)),
            "family_name": "Alaoui",
            "given_name": "Amina",
            "category_code": "artisan-untaxed",
            "registered_on": date(2022, 1, 1),
            "changed_at": NOON,
            **values,
        }
    )
    session.add(row)
    session.flush()
    return row


def some_invoices(how_many: int = 1, period: str = "2026-11") -> list[str]:
    """Issue that many invoices of 163.52 for new people; return their references, committed."""
    with transaction() as session:
        people = [a_contributor(session).id for _ in range(how_many)]
    issue_invoices(tariff(), parse_period(period), category=None, clock=lambda: NOON)
    with transaction() as session:
        rows = execute(
            session,
            "SELECT reference FROM invoice WHERE contributor_id = ANY(:people)"
            " ORDER BY contributor_id",
            {"people": people},
        )
        return list(rows.scalars())


def a_report(reference: str, **values: Any) -> PaymentReport:
    """Return a completed payment of 163.52 in cash at noon."""
    number = next(_numbers)
    return PaymentReport(
        **{
            "provider": "cashplus",
            "provider_payment_id": f"P{number}",
            "statement": Statement.COMPLETED,
            "reference_given": reference,
            "amount_minor": 16352,
            "currency": "MAD",
            "channel": Channel.CASH_AGENT,
            "paid_at": NOON,
            "paid_at_given": NOON.isoformat(),
            "stated_at": NOON,
            "received_at": NOON,
            "source": f"delivery:cashplus/msg_{number}",
            **values,
        }
    )


def an_event(reference: str, *, kind: str = "payment.completed", **data: Any) -> bytes:
    """Return the body of our own event: a payment of 163.52 in cash at noon."""
    return json.dumps(
        {
            "type": kind,
            "timestamp": data.pop("timestamp", NOON.isoformat()),
            "data": {
                "provider_payment_id": f"P{next(_numbers)}",
                "reference": reference,
                "amount": "163.52",
                "currency": "MAD",
                "channel": "cash_agent",
                "paid_at": NOON.isoformat(),
                **data,
            },
        }
    ).encode()


def signed(
    body: bytes, *, delivery_id: str | None = None, at: datetime = NOON, secret: str = SECRET
) -> dict[str, str]:
    """Return the headers of an honest Standard Webhooks delivery."""
    delivery_id = delivery_id or f"msg_{next(_numbers)}"
    timestamp = str(int(at.timestamp()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.digest(key, f"{delivery_id}.{timestamp}.".encode() + body, "sha256")
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": "v1," + base64.b64encode(mac).decode(),
        "content-type": "application/json",
    }
