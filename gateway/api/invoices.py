"""`/v1/invoices`: what is owed and why, what was paid of it; issue one, take one back."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic import Field
from sqlmodel import Session

from gateway.api.access import Asked, Right, ThisRequest
from gateway.api.idempotency import Answer, IdempotencyKey, once
from gateway.api.paging import Page, Paged, first_after, paged
from gateway.api.problems import Problem
from gateway.api.route import PREFIX, new_router, operation
from gateway.api.schemas import (
    Amount,
    Because,
    Body,
    Conditions,
    Currency,
    Day,
    Id,
    Line,
    PeriodCode,
    Reference,
    ReferenceInPath,
    Said,
    example,
    found,
    refuse_reversed,
)
from gateway.clock import day_of
from gateway.db import execute, snapshot
from gateway.dues import DueLine, principal
from gateway.errors import Unusable
from gateway.institution import institution
from gateway.invoices import cancel_invoice, issue_one
from gateway.models import Channel, LineKind, PaymentStatus
from gateway.money import CURRENCY, format_amount
from gateway.periods import parse_period
from gateway.presentment import Presentment, Standing, expiry_of, present, standing_of
from gateway.settings import settings
from gateway.tariff import keep_categories, tariff

router: APIRouter = new_router("invoices")

_STATUS: Final = (
    "`open`: nothing paid, in time. `part_paid`: something paid, in time. `late`: the due day has"
    " passed and something is due. `expired`: late for so long that its reference takes no money"
    " on pages and papers. `paid`. `cancelled`."
)

_EXAMPLE: Final[dict[str, Any]] = {
    "reference": "148275036141",
    "contributor_id": "1042",
    "category": "artisan-untaxed",
    "period": "2026-11",
    "status": "open",
    "amount": "163.52",
    "paid": "0.00",
    "due": "163.52",
    "currency": "MAD",
    "due_on": "2026-11-30",
    "expires_on": "2027-11-30",
    "issued_at": "2026-11-01T08:00:00Z",
    "cancelled_at": None,
    "cancelled_because": None,
}


class InvoiceSummary(Said):
    """What one person owes for one period."""

    model_config = example(**_EXAMPLE)

    reference: Reference
    contributor_id: Id
    category: str
    period: str
    status: Standing = Field(description=_STATUS)
    amount: Amount
    paid: Amount
    due: Amount = Field(description="What paying now would settle.")
    currency: Currency = CURRENCY
    due_on: date
    expires_on: date
    issued_at: datetime
    cancelled_at: datetime | None
    cancelled_because: str | None


class InvoiceLine(Said):
    """One reason for a part of the amount."""

    kind: LineKind
    amount: Amount
    rule: str
    facts: dict[str, str] = Field(description="The figures of the rule, by name.")
    source: str
    verified: bool = Field(description="Whether the source of every figure was seen.")


class InvoicePayment(Said):
    """Money that was reported for the invoice."""

    id: Id
    status: PaymentStatus
    amount: Amount
    allocated: Amount = Field(description="What of it went to this invoice and stands.")
    channel: Channel | None
    paid_at: datetime
    receipt_number: str | None


class InvoiceLinks(Said):
    """Where its payer sees it."""

    page: str
    pdf: str


class Invoice(InvoiceSummary):
    """An invoice with its lines and payments."""

    model_config = example(
        **_EXAMPLE,
        tariff="2026-09",
        lines=[
            {
                "kind": "principal",
                "amount": "163.52",
                "rule": "artisan-untaxed: 0.75 × SMIG 17.92/h × 191 h × 6.37 %",
                "facts": {"form": "share-of-smig", "coefficient": "0.75"},
                "source": "décret 2.22.222",
                "verified": False,
            }
        ],
        payments=[],
        links={
            "page": "https://pay.example.ma/148275036141",
            "pdf": "https://pay.example.ma/148275036141.pdf",
        },
    )

    tariff: str = Field(description="The version that priced it.")
    lines: list[InvoiceLine]
    payments: list[InvoicePayment]
    links: InvoiceLinks


class NewInvoice(Body):
    """Whose invoice to issue, and for when."""

    model_config = example(contributor_id="1042", period="2026-11")

    contributor_id: Id
    period: PeriodCode


class Cancellation(Body):
    """Why an invoice is taken back."""

    model_config = example(because="Enrolled twice by mistake")

    because: Because


class InvoiceFilters(Paged):
    """Which invoices to list."""

    contributor: Id | None = None
    period: PeriodCode | None = None
    status: Standing | None = Field(None, description=_STATUS)
    region: Line | None = Field(None, description="Of the contributor.")
    due_from: Day | None = Field(None, description="The first due day.")
    due_to: Day | None = Field(None, description="The last due day.")


@router.get("/invoices", **operation(Right.READ_INVOICES, "bad_cursor", "fields_contradict"))
def list_invoices(
    asked: ThisRequest, filters: Annotated[InvoiceFilters, Query()], response: Response
) -> Page[InvoiceSummary]:
    """List what is owed."""
    refuse_reversed(filters.due_from, filters.due_to, "due_from", "due_to")
    where = _seen_by(asked)
    where.add("i.id > :after", after=first_after(asked, "invoices", filters))
    where.equal(period=filters.period, region=filters.region)
    if filters.contributor:
        where.equal(contributor_id=int(filters.contributor))
    if filters.due_from:
        where.add("due_on >= :due_from", due_from=filters.due_from)
    if filters.due_to:
        where.add("due_on <= :due_to", due_to=filters.due_to)
    if filters.status:
        months = institution().validity.months
        where.add(_HAS_STATUS[filters.status], today=day_of(asked.now), months=months)
    with snapshot() as session:
        rows = execute(
            session,
            f"{_SUMMARIES} WHERE {where} ORDER BY i.id LIMIT :rows",
            {**where.parameters, "rows": filters.limit + 1},
        ).mappings()
        return paged(
            asked, "invoices", filters, list(rows), lambda row: _summary(row, asked), response
        )


@router.get("/invoices/{reference}", **operation(Right.READ_INVOICES, "invoice_not_found"))
def read_invoice(asked: ThisRequest, reference: ReferenceInPath) -> Invoice:
    """Read one invoice, with why it has its amount and what was paid of it."""
    with snapshot() as session:
        return _read(session, asked, reference)


@router.post(
    "/invoices",
    status_code=201,
    response_model=Invoice,
    **operation(
        Right.WRITE_INVOICES,
        "contributor_not_found",
        "nothing_owed",
        "invoice_cancelled",
        "idempotency_key_reused",
        body=True,
    ),
)
def issue_invoice(asked: ThisRequest, body: NewInvoice, key: IdempotencyKey = None) -> Response:
    """Issue one contributor's invoice of a period. One that is issued already: 200, as it is."""

    def act(session: Session) -> Answer:
        reference, fresh = _issue(session, int(body.contributor_id), body.period, asked.now)
        address = f"{PREFIX}/invoices/{reference}"
        said = _read(session, asked, reference)
        return Answer(said, 201 if fresh else 200, {"Location": address})

    return once(asked, key, act)


@router.post(
    "/invoices/{reference}/cancel",
    response_model=Invoice,
    **operation(
        Right.WRITE_INVOICES,
        "invoice_not_found",
        "invoice_cancelled",
        "invoice_paid_on",
        "idempotency_key_reused",
        body=True,
    ),
)
def cancel(
    asked: ThisRequest, reference: ReferenceInPath, body: Cancellation, key: IdempotencyKey = None
) -> Response:
    """Take an invoice back that nothing was paid on: for ever, and with the reason."""

    def act(session: Session) -> Answer:
        row = execute(
            session,
            "SELECT paid_minor, cancelled_at FROM invoice"
            " WHERE reference = :reference FOR NO KEY UPDATE",
            {"reference": reference},
        ).one_or_none()
        paid_minor, cancelled_at = found(row, "invoice_not_found")
        if cancelled_at is not None:
            raise Problem("invoice_cancelled")
        if paid_minor:
            raise Problem("invoice_paid_on")
        cancel_invoice(session, reference, because=body.because.strip(), now=asked.now)
        return Answer(_read(session, asked, reference))

    return once(asked, key, act)


# What `standing_of` says, as the database can select by it; a test holds the two together.
_UNSETTLED: Final = "cancelled_at IS NULL AND i.status <> 'paid'"
_EXPIRY: Final = "CAST(due_on + make_interval(months => :months) AS date)"
_HAS_STATUS: Final = {
    Standing.CANCELLED: "cancelled_at IS NOT NULL",
    Standing.PAID: "cancelled_at IS NULL AND i.status = 'paid'",
    Standing.EXPIRED: f"{_UNSETTLED} AND {_EXPIRY} < :today",
    Standing.LATE: f"{_UNSETTLED} AND due_on < :today AND {_EXPIRY} >= :today",
    Standing.PART_PAID: "cancelled_at IS NULL AND i.status = 'part_paid' AND due_on >= :today"
    f" AND {_EXPIRY} >= :today",
    Standing.OPEN: "cancelled_at IS NULL AND i.status = 'open' AND due_on >= :today"
    f" AND {_EXPIRY} >= :today",
}

_SUMMARIES: Final = """
    SELECT i.id, reference, contributor_id, i.category_code, period, amount_minor, paid_minor,
        due_on, issued_at, cancelled_at, cancelled_because, tariff
    FROM invoice i JOIN contributor ON contributor.id = contributor_id
"""


def _seen_by(asked: Asked) -> Conditions:
    where = Conditions("TRUE")
    if asked.caller.is_chamber:
        where.add("region = :scope", scope=asked.caller.scope)
    return where


def _summary(row: Any, asked: Asked) -> InvoiceSummary:
    expires_on = expiry_of(row["due_on"], institution().validity.months)
    status = standing_of(
        amount_minor=row["amount_minor"],
        paid_minor=row["paid_minor"],
        due_on=row["due_on"],
        expires_on=expires_on,
        cancelled=row["cancelled_at"] is not None,
        today=day_of(asked.now),
    )
    settled = status in {Standing.PAID, Standing.CANCELLED}
    due_minor = 0 if settled else row["amount_minor"] - row["paid_minor"]
    return InvoiceSummary(
        reference=row["reference"],
        contributor_id=str(row["contributor_id"]),
        category=row["category_code"],
        period=row["period"],
        status=status,
        amount=format_amount(row["amount_minor"]),
        paid=format_amount(row["paid_minor"]),
        due=format_amount(due_minor),
        due_on=row["due_on"],
        expires_on=expires_on,
        issued_at=row["issued_at"],
        cancelled_at=row["cancelled_at"],
        cancelled_because=row["cancelled_because"],
    )


def _read(session: Session, asked: Asked, reference: str) -> Invoice:
    where = _seen_by(asked)
    where.equal(reference=reference)
    rows = execute(session, f"{_SUMMARIES} WHERE {where}", where.parameters).mappings()
    row = found(rows.one_or_none(), "invoice_not_found")
    months = institution().validity.months
    presented = present(session, reference, now=asked.now, validity_months=months)
    assert presented is not None
    link = settings().payer_link(reference)
    return Invoice(
        **_summary(row, asked).model_dump(),
        tariff=row["tariff"],
        lines=_lines(presented),
        payments=_payments(presented),
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


def _issue(session: Session, contributor_id: int, code: str, now: datetime) -> tuple[str, bool]:
    """Issue one person's invoice unless it is; return its reference, and whether it is new.

    The caller owns the transaction.

    Raises:
        Problem: There is no such person, nothing is owed, or the invoice is cancelled.
    """
    person = found(
        execute(
            session,
            "SELECT category_code, category_base_minor FROM contributor WHERE id = :id",
            {"id": contributor_id},
        ).one_or_none(),
        "contributor_not_found",
    )
    asked_for = {"id": contributor_id, "period": code}
    known = _standing(session, asked_for)
    if known is not None:
        return known, False
    keep_categories(session, tariff())
    try:
        period, category = parse_period(code), tariff().of(person[0])
        line = principal(tariff(), category, base_minor=person[1], period=period)
        if not isinstance(line, DueLine):
            raise Problem("nothing_owed", f"{line.reason}.")
        is_new = issue_one(
            session,
            tariff(),
            category,
            period,
            contributor_id,
            base_minor=person[1],
            line=line,
            now=now,
        )
    except Unusable as error:
        raise Problem("nothing_owed", str(error)) from None
    issued = _standing(session, asked_for)
    if issued is None:
        raise Problem(
            "nothing_owed", "The contributor was not registered then, or had left before."
        )
    return issued, is_new


def _standing(session: Session, asked_for: dict[str, Any]) -> str | None:
    """Return the reference of a person's invoice of a period.

    Raises:
        Problem: It is cancelled.
    """
    row = execute(
        session,
        "SELECT reference, cancelled_at FROM invoice"
        " WHERE contributor_id = :id AND period = :period",
        asked_for,
    ).one_or_none()
    if row is None:
        return None
    if row.cancelled_at is not None:
        raise Problem(
            "invoice_cancelled",
            f"The invoice of this period, {row.reference}, was cancelled: it stays so, and its"
            " contributor is not billed again for the period.",
        )
    return str(row.reference)
