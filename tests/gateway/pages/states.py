"""An invoice in each state that a payer can meet."""

from __future__ import annotations

import html
import json
import re
from datetime import date, datetime, timedelta
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pytest
from httpx2 import Response
from PIL import Image

from gateway import process
from gateway.billing.bundles import make_selection
from gateway.billing.invoices import cancel_invoice
from gateway.billing.notes import NewNote, write_notes
from gateway.codes import qr
from gateway.collection.placing import settle_invoices
from gateway.collection.reports import Statement
from gateway.db import execute, snapshot, transaction
from gateway.dues.principal import DueLine
from gateway.institution import institution
from gateway.models import Channel, LineKind, ReturnKind, ReturnState
from gateway.receipts import ReceiptRecord, issue_all, of_invoice
from gateway.references import nth_reference
from gateway.relief.plans import make_plan
from gateway.settings import settings
from tests.factories import NOON, a_contributor, a_report, a_return, issue, record

FULL_NAME: Final = {
    "family_name": "El Idrissi",
    "given_name": "Fatima Zahra",
    "family_name_ar": "الإدريسي",
    "given_name_ar": "فاطمة الزهراء",
}
SECRETS: Final = ("Idrissi", "Fatima", "Zahra", "الإدريسي", "فاطمة", "الزهراء")
"""Parts of the name that no stranger may read."""


def an_invoice(period: str = "2026-11", **person: Any) -> str:
    """Issue what a new person owes for a period; return its reference."""
    with transaction() as session:
        who = a_contributor(session, **{**FULL_NAME, **person}).id
    issue(period)
    with snapshot() as session:
        found = execute(
            session,
            "SELECT reference FROM invoice WHERE contributor_id = :who AND period = :period",
            {"who": who, "period": period},
        )
        return str(found.scalar_one())


def wallets_hold(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *ceilings: str, verified: bool
) -> None:
    """Have the institution's file say what a wallet may hold, by level."""
    text = resources.files("gateway").joinpath("institution.toml").read_text("utf-8")
    told = f"ceilings = {json.dumps(ceilings)}"
    text = text.replace('ceilings = ["200.00", "5000.00", "20000.00"]', told)
    text = text.replace("ceilings_verified = true", f"ceilings_verified = {str(verified).lower()}")
    assert told in text
    file = folder / "institution.toml"
    file.write_text(text, "utf-8")
    monkeypatch.setenv("WASL_INSTITUTION", str(file))
    settings.cache_clear()
    institution.cache_clear()


def noted(
    reference: str,
    amount_minor: int,
    *,
    due_on: date | None = None,
    now: datetime = NOON,
    kind: LineKind = LineKind.ADJUSTMENT,
) -> str:
    """Note a credit, a charge or a fee on an invoice as re-assessment does; return its reference.

    What it needs no more stays the payer's credit, and is not carried.
    """
    with transaction() as session:
        found = execute(
            session, "SELECT id FROM invoice WHERE reference = :which", {"which": reference}
        )
        invoice_id = found.scalar_one()
        line = DueLine(kind, amount_minor, "the income return of the year", "a decree", False)
        note = NewNote(invoice_id, line, "The return came in", due_on)
        write_notes(session, [note], now=now)
        settle_invoices(session, [invoice_id], key=process.signing_key(), now=now)
    return reference


def cleared() -> str:
    """Return an invoice that was credited in full before anything was paid."""
    return noted(an_invoice("2026-10"), -16352)


def several(*references: str) -> str:
    """Bundle invoices; return the reference that pays them together."""
    with transaction() as session:
        rows = execute(
            session,
            "SELECT reference, id FROM invoice WHERE reference = ANY(:all)",
            {"all": list(references)},
        )
        ids = {row.reference: row.id for row in rows}
        wanted = [ids[reference] for reference in references]
        return make_selection(session, wanted, contributor_id=None, now=NOON).reference


def a_plan(months: int = 6) -> tuple[str, list[str]]:
    """Spread what a person is late with since July; return the plan's reference and the invoices'.

    The last of these is November's, which is not of the plan.
    """
    first = an_invoice("2026-07")
    for period in ("2026-08", "2026-09", "2026-10", "2026-11"):
        issue(period)
    with transaction() as session:
        found = execute(
            session,
            "SELECT contributor_id, array_agg(CAST(reference AS text) ORDER BY period) FROM invoice"
            " WHERE contributor_id = (SELECT contributor_id FROM invoice WHERE reference = :first)"
            " GROUP BY 1",
            {"first": first},
        )
        who, references = found.one()
        made = make_plan(session, who, months, None, key=process.signing_key(), now=NOON)
    return made.reference, references


def cancelled() -> str:
    reference = an_invoice()
    with transaction() as session:
        cancel_invoice(session, reference, because="issued twice", now=NOON)
    return reference


def announced(amount_minor: int = 16352) -> str:
    reference = an_invoice()
    record(
        a_report(
            reference,
            statement=Statement.PENDING,
            amount_minor=amount_minor,
            channel=Channel.TRANSFER,
        )
    )
    return reference


def paid(*amounts_minor: int, signed: bool = True) -> str:
    """Return an invoice that was paid in these parts, by default whole."""
    reference = an_invoice()
    for hours, amount_minor in enumerate(amounts_minor or [16352]):
        moment = NOON - timedelta(hours=5 - hours)
        record(a_report(reference, amount_minor=amount_minor, paid_at=moment))
    if signed:
        sign()
    return reference


def taken_back() -> str:
    """Return an invoice whose payment was reversed after its receipt was made."""
    reference = an_invoice()
    reversed_again(reference)
    return reference


def given_back(amount_minor: int) -> str:
    """Return an invoice whose payment was refunded in part after its receipt was made."""
    reference = an_invoice()
    payment = f"P {reference}"
    record(a_report(reference, provider_payment_id=payment))
    sign()
    record(a_return(payment, amount_minor))
    return reference


def disputed() -> str:
    """Return an invoice whose payment the payer's bank disputes; no money has moved yet."""
    reference = an_invoice()
    payment = f"P {reference}"
    record(a_report(reference, provider_payment_id=payment))
    sign()
    kind, state = ReturnKind.DISPUTE, ReturnState.ANNOUNCED
    record(a_return(payment, 16352, return_id=f"dp {reference}", kind=kind, state=state))
    return reference


def reversed_again(reference: str, amount_minor: int = 16352, *, signed: bool = True) -> None:
    """Have a payment booked, its receipt made, and the payment reversed."""
    payment = f"BACK {reference}"
    record(a_report(reference, provider_payment_id=payment, amount_minor=amount_minor))
    if signed:
        sign()
    later = NOON + timedelta(hours=1)
    record(
        a_report(
            reference,
            provider_payment_id=payment,
            amount_minor=amount_minor,
            statement=Statement.REVERSED,
            stated_at=later,
            received_at=later,
        )
    )


def sign() -> None:
    """Make every receipt that is in line."""
    issue_all(process.receipt_keys(), lambda: NOON)


def receipts_of(reference: str) -> list[ReceiptRecord]:
    with snapshot() as session:
        return of_invoice(session, reference)


def nobodys(n: int = 0) -> str:
    """Return a reference that verifies and that nobody was given."""
    return nth_reference(n, b"another installation")


def text_of(answer: Response) -> str:
    """Return what a page says, in one line, as it is read."""
    body = re.sub(r"<(style|title)>.*?</\1>", " ", answer.text, flags=re.DOTALL)
    words = html.unescape(re.sub(r"<[^>]+>", " ", body))
    return " ".join(re.sub("[\u2066-\u2069]", "", words).split())


def title_of(answer: Response) -> str:
    found = re.search(r"<title>(.*?)</title>", answer.text, re.DOTALL)
    assert found is not None
    return html.unescape(found[1])


def photo_of(payload: str) -> bytes:
    """Return a picture of a code."""
    drawn = Image.open(BytesIO(qr.symbol(payload).png()))
    file = BytesIO()
    drawn.resize((drawn.width * 6, drawn.height * 6), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()
