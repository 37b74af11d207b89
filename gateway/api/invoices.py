"""`/v1/invoices`: what is owed and why, what was paid of it; issue one, take one back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic import Field
from sqlmodel import Session

from gateway.api.access import Asked, Right, ThisRequest
from gateway.api.idempotency import Answer, IdempotencyKey, once
from gateway.api.invoice_objects import STATUS, Invoice, InvoiceSummary, invoice_of, summary_of
from gateway.api.paging import Page, Paged, first_after, paged
from gateway.api.problems import Problem
from gateway.api.route import PREFIX, new_router, operation
from gateway.api.schemas import (
    Because,
    Body,
    Conditions,
    Day,
    Id,
    Line,
    PeriodCode,
    ReferenceInPath,
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
from gateway.process import signing_key
from gateway.registers.places import as_region

router: APIRouter = new_router("invoices")


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
    status: Standing | None = Field(None, description=STATUS)
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
        asked, "invoices", filters, read, lambda row: summary_of(row, shown[row["id"]]), response
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


def _read(session: Session, asked: Asked, reference: str) -> Invoice:
    where = _seen_by(asked)
    where.equal(reference=reference)
    rows = execute(session, f"{_SUMMARIES} WHERE {where}", where.parameters).mappings()
    row = found(rows.one_or_none(), "invoice_not_found")
    [presented] = _present(session, asked, [row])
    return invoice_of(row, presented)


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
