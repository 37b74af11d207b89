"""`/v1/invoices`: what is owed and why, what was paid of it; issue one, take one back."""

from __future__ import annotations

from collections.abc import Sequence
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
from gateway.billing.invoices import cancel_invoice
from gateway.billing.issuing import carry, issue_one
from gateway.billing.owed import assess_person
from gateway.billing.presentment import Presentment, Standing, present_ids
from gateway.clock import day_of
from gateway.db import execute, snapshot
from gateway.dues.periods import parse_period
from gateway.dues.principal import NotOwed
from gateway.dues.tariff import keep_categories, tariff
from gateway.errors import Unusable
from gateway.events import tell
from gateway.institution import institution
from gateway.models import Channel, LineKind, PaymentStatus
from gateway.money import CURRENCY, format_amount
from gateway.process import signing_key
from gateway.registers.places import as_region
from gateway.settings import settings

router: APIRouter = new_router("invoices")

_STATUS: Final = (
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
    status: Standing = Field(description=_STATUS)
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
    where.equal(period=filters.period, region=filters.region and as_region(filters.region))
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
        )
        read = list(rows.mappings())
        shown = {each.invoice_id: each for each in _present(session, asked, read)}
    page = paged(
        asked, "invoices", filters, read, lambda row: _summary(row, shown[row["id"]]), response
    )
    if filters.status:
        # The database lets through a few more than have the status (_HAS_STATUS): such a page is
        # shorter, and the list goes on all the same.
        page.data = [each for each in page.data if each.status is filters.status]
    return page


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


# What `standing_of` says, as the database can select by it; a test holds the two together. Which
# day an invoice is late after follows from its notes too, and there the database lets through more.
_UNSETTLED: Final = "cancelled_at IS NULL AND i.status IN ('open', 'part_paid')"
_CHARGED: Final = (
    "EXISTS (SELECT FROM invoice_note n WHERE n.invoice_id = i.id AND n.due_on IS NOT NULL)"
)
_EXPIRY: Final = "CAST(due_on + make_interval(months => :months) AS date)"
_HAS_STATUS: Final = {
    Standing.CANCELLED: "cancelled_at IS NOT NULL",
    Standing.PAID: "cancelled_at IS NULL AND i.status = 'paid'",
    Standing.CLEARED: "cancelled_at IS NULL AND i.status = 'cleared'",
    Standing.EXPIRED: f"{_UNSETTLED} AND ({_EXPIRY} < :today OR {_CHARGED})",
    Standing.LATE: f"{_UNSETTLED} AND (due_on < :today AND {_EXPIRY} >= :today OR {_CHARGED})",
    Standing.PART_PAID: f"{_UNSETTLED} AND paid_minor > 0 AND (due_on >= :today OR {_CHARGED})",
    Standing.OPEN: f"{_UNSETTLED} AND paid_minor = 0 AND (due_on >= :today OR {_CHARGED})",
}

_SUMMARIES: Final = """
    SELECT i.id, reference, contributor_id, cancelled_because, tariff
    FROM invoice i JOIN contributor ON contributor.id = contributor_id
"""


def _seen_by(asked: Asked) -> Conditions:
    where = Conditions("TRUE")
    if asked.caller.is_chamber:
        where.add("region = :scope", scope=asked.caller.scope)
    return where


def _present(session: Session, asked: Asked, rows: Sequence[Any]) -> list[Presentment]:
    months = institution().validity.months
    ids = [row["id"] for row in rows]
    return present_ids(session, ids, now=asked.now, validity_months=months)


def _summary(row: Any, presented: Presentment) -> InvoiceSummary:
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


def _read(session: Session, asked: Asked, reference: str) -> Invoice:
    where = _seen_by(asked)
    where.equal(reference=reference)
    rows = execute(session, f"{_SUMMARIES} WHERE {where}", where.parameters).mappings()
    row = found(rows.one_or_none(), "invoice_not_found")
    [presented] = _present(session, asked, [row])
    link = settings().payer_link(reference)
    return Invoice(
        **_summary(row, presented).model_dump(),
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


def _issue(session: Session, contributor_id: int, code: str, now: datetime) -> tuple[str, bool]:
    """Issue one person's invoice unless it is; return its reference, and whether it is new.

    The caller owns the transaction.

    Raises:
        Problem: There is no such person, nothing is owed, or the invoice is cancelled.
    """
    found(
        execute(
            session, "SELECT id FROM contributor WHERE id = :id", {"id": contributor_id}
        ).one_or_none(),
        "contributor_not_found",
    )
    asked_for = {"id": contributor_id, "period": code}
    known = _standing(session, asked_for)
    if known is not None:
        return known, False
    keep_categories(session, tariff())
    key = signing_key()
    try:
        period = parse_period(code)
        owed = assess_person(session, tariff(), contributor_id, period)
        if isinstance(owed, NotOwed):
            raise Problem("nothing_owed", f"{owed.reason}.")
        told = issue_one(session, tariff(), period, contributor_id, owed, key=key, now=now)
    except Unusable as error:
        raise Problem("nothing_owed", str(error)) from None
    if told is not None:
        carry(session, [contributor_id], key=key, now=now)
        tell(session, [told], now=now)
    issued = _standing(session, asked_for)
    if issued is None:
        raise Problem(
            "nothing_owed", "The contributor was not registered then, or had left before."
        )
    return issued, told is not None


def _standing(session: Session, asked_for: dict[str, Any]) -> str | None:
    """Return the reference of a person's invoice of a period, on whichever of their files.

    Raises:
        Problem: It is cancelled.
    """
    row = execute(
        session,
        "SELECT reference, cancelled_at FROM invoice WHERE period = :period AND contributor_id IN"
        " (SELECT id FROM contributor WHERE id = :id OR merged_into_id = :id)"
        " ORDER BY cancelled_at IS NOT NULL, owed_minor = 0, contributor_id <> :id LIMIT 1",
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
