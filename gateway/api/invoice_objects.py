"""An invoice as the API shows it: its objects, and how they are made of what pages show."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final

from pydantic import Field

from gateway.api.schemas import Amount, Currency, Id, Reference, Said, example
from gateway.billing.presentment import Presentment, Standing
from gateway.models import Channel, LineKind, PaymentStatus
from gateway.money import CURRENCY, format_amount
from gateway.settings import settings

STATUS: Final = (
    "`open`: nothing paid, in time. `part_paid`: something paid, in time. `late`: the due day has"
    " passed and something is due. `expired`: late for so long that its reference takes no money"
    " on pages and papers. `paid`. `cleared`: nothing is owed any more and nothing was paid, as all"
    " of it was credited or remitted. `cancelled`."
)

_EXAMPLE: Final[dict[str, Any]] = {
    "reference": "148275036141",
    "contributor_id": "1042",
    "category": "artisan-untaxed",
    "period": "2026-11",
    "status": "open",
    "amount": "163.52",
    "owed": "163.52",
    "paid": "0.00",
    "due": "163.52",
    "due_until": "2026-11-30",
    "currency": "MAD",
    "due_on": "2026-11-30",
    "expires_on": "2027-11-30",
    "issued_at": "2026-11-01T08:00:00Z",
    "cancelled_at": None,
    "cancelled_because": None,
}

_LATE: Final[dict[str, Any]] = {
    **_EXAMPLE,
    "status": "late",
    "owed": "219.67",
    "due": "219.67",
    "due_until": "2026-12-31",
}


class InvoiceSummary(Said):
    """What one person owes for one period."""

    model_config = example(**_EXAMPLE)

    reference: Reference
    contributor_id: Id
    category: str
    period: str
    status: Standing = Field(description=STATUS)
    amount: Amount = Field(description="As it was issued.")
    owed: Amount = Field(
        description="What it comes to today, with what was credited, charged and remitted since,"
        " and with the penalty so far: `paid` and `due` together, and the sum of the lines."
    )
    paid: Amount
    due: Amount = Field(description="What paying today would settle.")
    due_until: date | None = Field(
        description="The last day on which that settles it: the next day a penalty is added. Null:"
        " it does not grow."
    )
    currency: Currency = CURRENCY
    due_on: date = Field(
        description="By when what is unpaid was or is to be paid; of a settled one, as issued."
    )
    expires_on: date
    issued_at: datetime
    cancelled_at: datetime | None
    cancelled_because: str | None


class InvoiceLine(Said):
    """One reason for a part of what is owed."""

    kind: LineKind = Field(
        description="`principal`: as issued. `adjustment`, `fee`: noted since. `penalty`: so far."
        " `remission`: what was remitted of it."
    )
    amount: Amount
    rule: str
    facts: dict[str, str] = Field(description="The figures of the rule, by name.")
    source: str
    verified: bool = Field(description="Whether the source of every figure was seen.")
    noted_on: date | None = Field(
        description="When it was added to the invoice; null for what was issued, and the penalty."
    )
    because: str | None = Field(description="What made a note necessary; null for other lines.")
    due_on: date | None = Field(
        description="By when a charge that was added is to be paid, and from when its penalty"
        " counts; null for other lines."
    )


class InvoicePayment(Said):
    """Money that was reported for the invoice."""

    id: Id
    status: PaymentStatus
    amount: Amount
    allocated: Amount = Field(description="What of it went to this invoice and stands.")
    channel: Channel | None
    paid_at: datetime
    receipt_number: str | None


class InvoiceCarried(Said):
    """What of a payment for another reference pays it: from the payer's credit, or together."""

    amount: Amount
    channel: Channel | None
    paid_at: datetime
    together: bool = Field(description="Whether a reference for several invoices was quoted.")


class InvoiceLinks(Said):
    """Where its payer sees it."""

    page: str
    pdf: str


class Invoice(InvoiceSummary):
    """An invoice with its lines and payments. Its lines sum to `owed`, unless it is cancelled."""

    model_config = example(
        **_LATE,
        tariff="2026-09",
        lines=[
            {
                "kind": "principal",
                "amount": "163.52",
                "rule": "artisan-untaxed: 0.75 × SMIG 17.92/h × 191 h × 6.37 %",
                "facts": {"form": "share-of-smig", "coefficient": "0.75"},
                "source": "décret 2.22.222",
                "verified": False,
                "noted_on": None,
                "because": None,
                "due_on": None,
            },
            {
                "kind": "adjustment",
                "amount": "54.51",
                "rule": "accounts-simplified: 1 × SMIG 17.92/h × 191 h × 6.37 %",
                "facts": {"form": "share-of-smig", "coefficient": "1"},
                "source": "décret 2.22.222",
                "verified": False,
                "noted_on": "2026-12-03",
                "because": "Keeps accounts since 1 November",
                "due_on": "2026-12-31",
            },
            {
                "kind": "penalty",
                "amount": "1.64",
                "rule": "1 % of the unpaid principal for each month that has begun",
                "facts": {"form": "late-months", "rate": "1", "months": "1"},
                "source": "AMO: 1 % per month overdue",
                "verified": False,
                "noted_on": None,
                "because": None,
                "due_on": None,
            },
        ],
        payments=[],
        carried=[],
        links={
            "page": "https://pay.example.ma/148275036141",
            "pdf": "https://pay.example.ma/148275036141.pdf",
        },
    )

    tariff: str = Field(description="The version that priced it.")
    lines: list[InvoiceLine]
    payments: list[InvoicePayment] = Field(description="That quoted its reference.")
    carried: list[InvoiceCarried]
    links: InvoiceLinks


def summary_of(row: Mapping[str, Any], presented: Presentment) -> InvoiceSummary:
    """Return an invoice as lists show it.

    Args:
        row: What is not presented: `contributor_id`, `cancelled_because`.
        presented: How it stands.
    """
    return InvoiceSummary(
        reference=presented.reference,
        contributor_id=str(row["contributor_id"]),
        category=presented.category,
        period=presented.period,
        status=presented.standing,
        amount=format_amount(presented.amount_minor),
        owed=format_amount(presented.total_minor),
        paid=format_amount(presented.paid_minor),
        due=format_amount(presented.due_minor),
        due_until=presented.valid_until,
        due_on=presented.due_on,
        expires_on=presented.expires_on,
        issued_at=presented.issued_at,
        cancelled_at=presented.cancelled_at,
        cancelled_because=row["cancelled_because"],
    )


def invoice_of(row: Mapping[str, Any], presented: Presentment) -> Invoice:
    """Return an invoice with its lines and payments; of the row, as `summary_of`, and `tariff`."""
    link = settings().payer_link(presented.reference)
    return Invoice(
        **summary_of(row, presented).model_dump(),
        tariff=row["tariff"],
        lines=_lines(presented),
        payments=_payments(presented),
        carried=[
            InvoiceCarried(
                amount=format_amount(each.amount_minor),
                channel=each.channel,
                paid_at=each.paid_at,
                together=each.together,
            )
            for each in presented.carried
        ],
        links=InvoiceLinks(page=link, pdf=f"{link}.pdf"),
    )


def _lines(presented: Presentment) -> list[InvoiceLine]:
    return [
        InvoiceLine(
            kind=line.kind,
            amount=format_amount(line.amount_minor),
            rule=line.rule,
            facts=dict(line.facts),
            source=line.source,
            verified=line.verified,
            noted_on=line.noted_on,
            because=line.because,
            due_on=line.due_on,
        )
        for line in presented.lines
    ]


def _payments(presented: Presentment) -> list[InvoicePayment]:
    return [
        InvoicePayment(
            id=str(payment.id),
            status=payment.status,
            amount=format_amount(payment.amount_minor),
            allocated=format_amount(payment.allocated_minor),
            channel=payment.channel,
            paid_at=payment.paid_at,
            receipt_number=payment.receipt_number,
        )
        for payment in presented.payments
    ]
