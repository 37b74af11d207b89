"""Presentments and receipts that are valid unless told otherwise, and papers made of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.billing.owing import PresentedLine
from gateway.billing.presentment import (
    Person,
    PresentedPayment,
    Presentment,
    standing_of,
)
from gateway.codes import receipts as codes
from gateway.figures import read_toml
from gateway.institution import Institution
from gateway.models import Channel, LineKind, PaymentStatus
from gateway.papers.notice import notice_pdf
from gateway.papers.receipt import receipt_pdf
from gateway.receipts import ReceiptRecord, ReceiptStanding
from gateway.settings import Settings

NOW: Final = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)
SHIPPED: Final = read_toml(
    Institution,
    (Path(__file__).parents[3] / "gateway" / "institution.toml").read_text("utf-8"),
    "The institution file",
)
SANDBOX: Final = Settings(mode="sandbox", base_url="https://amo.example.ma")
PRODUCTION: Final = Settings(mode="production", base_url="https://amo.example.ma")
KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))

SHARE_OF_SMIG: Final = {
    "form": "share-of-smig",
    "coefficient": "0.75",
    "smig": "17.92",
    "hours": "191",
    "rate": "6.37",
}


def a_person(**values: Any) -> Person:
    return Person(
        **{
            "family_name": "El Idrissi",
            "given_name": "Fatima Zahra",
            "family_name_ar": "الإدريسي",
            "given_name_ar": "فاطمة الزهراء",
            "cnss_number": "190314577",
            "region": "Fès-Meknès",
            **values,
        }
    )


def a_line(kind: LineKind = LineKind.PRINCIPAL, amount_minor: int = 16352, **values: Any) -> Any:
    return PresentedLine(
        **{
            "kind": kind,
            "amount_minor": amount_minor,
            "rule": "0.75 × SMIG",
            "facts": SHARE_OF_SMIG,
            "source": "a decree",
            "verified": True,
            **values,
        }
    )


def a_payment(amount_minor: int = 10000, **values: Any) -> PresentedPayment:
    status = values.get("status", PaymentStatus.BOOKED)
    return PresentedPayment(
        **{
            "id": 1,
            "status": status,
            "amount_minor": amount_minor,
            "allocated_minor": amount_minor if status is PaymentStatus.BOOKED else 0,
            "channel": Channel.CASH_AGENT,
            "paid_at": datetime(2026, 11, 5, 13, 5, tzinfo=UTC),
            "receipt_number": "R26-104882913",
            "receipt_signed": None,
            **values,
        }
    )


def a_presentment(**values: Any) -> Presentment:
    """Return an invoice of 163.52, open; where it stands follows from the rest."""
    paid_minor = sum(p.allocated_minor for p in values.get("payments", ()))
    known = {
        "invoice_id": 1,
        "reference": "148275036141",
        "category": "artisan-untaxed",
        "period": "2026-11",
        "amount_minor": sum(line.amount_minor for line in values.get("lines", (a_line(),))),
        "paid_minor": paid_minor,
        "due_on": date(2026, 11, 30),
        "expires_on": date(2027, 11, 30),
        "issued_at": NOW,
        "cancelled_at": None,
        "lines": (a_line(),),
        "valid_until": None,
        "person": a_person(),
        "payments": (),
        **values,
    }
    cancelled = known["cancelled_at"] is not None
    total = 0 if cancelled else sum(line.amount_minor for line in known["lines"])
    due = 0 if cancelled else total - known["paid_minor"]
    standing = standing_of(
        due_minor=due,
        paid_minor=known["paid_minor"],
        due_on=known["due_on"],
        expires_on=known["expires_on"],
        cancelled=cancelled,
        today=NOW.date(),
    )
    return Presentment(**known, standing=standing, total_minor=total, due_minor=due)


OPEN: Final = a_presentment()
PENALTY: Final = {"form": "late-months", "rate": "1", "months": "1"}
LATE: Final = a_presentment(
    period="2026-10",
    due_on=date(2026, 10, 31),
    lines=(a_line(), a_line(LineKind.PENALTY, 164, facts=PENALTY, verified=False)),
    valid_until=date(2026, 11, 30),
)
CLEARED: Final = a_presentment(
    lines=(a_line(), a_line(LineKind.ADJUSTMENT, -16352, facts={}, rule="left in October")),
)
PART_PAID: Final = a_presentment(payments=(a_payment(),))
PAID: Final = a_presentment(
    payments=(
        a_payment(),
        a_payment(6352, id=2, channel=Channel.WALLET, receipt_number="R26-556610021"),
    )
)
CANCELLED: Final = a_presentment(cancelled_at=NOW)
EXPIRED: Final = a_presentment(
    period="2025-09", due_on=date(2025, 9, 30), expires_on=date(2026, 9, 30)
)
CROWDED: Final = a_presentment(
    period="2026-Q4",
    category="cpu",
    due_on=date(2026, 10, 31),
    lines=(
        a_line(amount_minor=105_000, facts={}, rule="fixed", verified=False),
        a_line(LineKind.PENALTY, 5_000, facts={}, rule="1 %", verified=False),
        a_line(LineKind.FEE, 2_000, facts={}, rule="fee"),
        a_line(LineKind.REMISSION, -1_000, facts={}, rule="remission"),
        a_line(LineKind.ADJUSTMENT, 321, facts={}, rule="adjustment"),
    ),
    person=a_person(
        family_name="Ait Ben Haddou El Mansouri Al Alaoui El Idrissi Bencherki Tazi El Fassi",
        given_name="Mohammed Abdelilah Moulay Abderrahmane Sidi Yahya Abdelmoughit",
        family_name_ar="آيت بن حدو المنصوري العلوي الإدريسي بنشرقي التازي الفاسي الفهري",
        given_name_ar="محمد عبد الإله مولاي عبد الرحمان سيدي يحيى عبد المغيث",
    ),
    payments=(
        a_payment(),
        a_payment(6352, id=2, receipt_number="R26-556610021"),
        a_payment(5000, id=3, status=PaymentStatus.PENDING, receipt_number=None),
    ),
)
ALL: Final = {
    "open": OPEN,
    "late": LATE,
    "part paid": PART_PAID,
    "paid": PAID,
    "cancelled": CANCELLED,
    "cleared": CLEARED,
    "expired": EXPIRED,
    "crowded": CROWDED,
}


def a_record(presented: Presentment = PAID, **values: Any) -> ReceiptRecord:
    """Return the receipt of 163.52 in cash for an invoice, signed."""
    known = {
        "number": "R26-104882913",
        "reference": presented.reference,
        "period": presented.period,
        "amount_minor": 16352,
        "allocated_minor": 16352,
        "returned_minor": 0,
        "disputed": False,
        "refunded": False,
        "paid_at": datetime(2026, 11, 18, 11, 6, 40, tzinfo=UTC),
        "channel": Channel.CASH_AGENT,
        "standing": ReceiptStanding.STANDS,
        "key_id": "k2026a",
        "issued_at": NOW,
        **values,
    }
    claims = codes.Claims(
        known["number"],
        known["reference"],
        known["amount_minor"],
        known["paid_at"],
        known["period"],
        known["channel"] or "unstated",
    )
    return ReceiptRecord(
        **known, signed=codes.sign(claims, key_id=known["key_id"], private_key=KEY)
    )


def a_notice(
    *presented: Presentment,
    masked: bool = True,
    settings: Settings = SANDBOX,
    institution: Institution = SHIPPED,
) -> bytes:
    return notice_pdf(presented, settings=settings, institution=institution, masked=masked, now=NOW)


def a_receipt(
    record: ReceiptRecord,
    presented: Presentment = PAID,
    *,
    masked: bool = True,
    settings: Settings = SANDBOX,
) -> bytes:
    return receipt_pdf(
        record, presented, settings=settings, institution=SHIPPED, masked=masked, now=NOW
    )


def whose(presented: Presentment, **names: Any) -> Presentment:
    """Return the same invoice of another person."""
    return replace(presented, person=a_person(**names))
