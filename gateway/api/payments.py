"""`/v1/payments`: money that providers reported, and what became of it in the books."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic import Field
from sqlmodel import Session

from gateway.api.access import Asked, Right, ThisRequest
from gateway.api.bundles import ALL_SEEN
from gateway.api.paging import Page, Paged, first_after, paged
from gateway.api.refunds import RefundRecord, said
from gateway.api.route import new_router, operation
from gateway.api.schemas import (
    Amount,
    Conditions,
    Currency,
    Day,
    Id,
    IdInPath,
    Reference,
    Said,
    end_of,
    example,
    found,
    refuse_reversed,
    start_of,
)
from gateway.books.kinds import TransferKind, kind_of
from gateway.collection.refunds import read_shown
from gateway.db import execute, snapshot
from gateway.models import Channel, Component, PaymentStatus, ReturnKind, ReturnState
from gateway.money import format_amount

router: APIRouter = new_router("payments")

_EXAMPLE: Final[dict[str, Any]] = {
    "id": "7",
    "provider": "cashplus",
    "provider_payment_id": "CP-1",
    "status": "booked",
    "reference": "148275036141",
    "bundle": None,
    "reference_given": "1482 7503 6141",
    "contributor_id": "1042",
    "amount": "163.52",
    "returned": "0.00",
    "fee": None,
    "currency": "MAD",
    "channel": "cash_agent",
    "agent_id": "A-17",
    "terminal_id": None,
    "paid_at": "2026-11-18T11:06:40Z",
    "recorded_at": "2026-11-18T11:06:42Z",
    "booked_at": "2026-11-18T11:06:42Z",
    "receipt_number": "R26-104729551",
}


class PaymentSummary(Said):
    """Money that a provider reports: once, however often it is reported."""

    model_config = example(**_EXAMPLE)

    id: Id
    provider: str
    provider_payment_id: str
    status: PaymentStatus = Field(
        description="`pending`: announced, not booked. `booked`: the provider holds it, and it is"
        " in the books. `reversed`: all of it was given back. `failed`: no money came."
    )
    reference: Reference | None = Field(
        description="Of the invoice that it quoted; null: none known, or a bundle."
    )
    bundle: Reference | None = Field(description="Of several invoices, where it quoted that.")
    reference_given: str = Field(description="As the provider wrote it.")
    contributor_id: Id | None = Field(description="Null too where the role may not know it.")
    amount: Amount
    returned: Amount = Field(description="What refunds and disputes gave back of it.")
    fee: Amount | None = Field(description="What the payer paid the provider on top.")
    currency: Currency
    channel: Channel | None
    agent_id: str | None
    terminal_id: str | None
    paid_at: datetime = Field(description="The provider's word.")
    recorded_at: datetime = Field(description="When we first heard of it.")
    booked_at: datetime | None
    receipt_number: str | None


class PaymentAllocation(Said):
    """What part of it went to which part of which invoice; a negative one took it back."""

    reference: Reference
    component: Component
    amount: Amount
    policy: str
    allocated_at: datetime


class PaymentTransfer(Said):
    """A transfer of the books that explains where the money lies."""

    id: Id
    name: str
    kind: TransferKind = Field(
        description="`received`, `moved`; `reversal`; `refund`, `refund_by_hand` and `chargeback`,"
        " each with what came back of it: `refund_failed`, `refund_by_hand_failed`,"
        " `chargeback_won`. `returned`, `restored`: of before these were told apart."
    )
    debit: str
    credit: str
    amount: Amount
    reverses: Id | None
    posted_at: datetime


class PaymentReturned(Said):
    """A refund or a dispute, as the provider states it."""

    kind: ReturnKind = Field(
        description="`refund`: one refund. `by_hand`: one that the institution paid out itself."
        " `refund_total`: the sum of all refunds so far as the"
        " provider states it; single refunds are in it, so never add it to them. `dispute`: the"
        " payer's bank takes the money back, or threatens to."
    )
    return_id: str
    state: ReturnState
    amount: Amount
    made_at: datetime = Field(
        description="When the return was made; of a `refund_total`, when the sum was stated."
    )
    outcome: str | None


class Payment(PaymentSummary):
    """A payment with all that explains it."""

    model_config = example(
        **_EXAMPLE,
        source="delivery:cashplus/msg_2Lh9",
        allocations=[
            {
                "reference": "148275036141",
                "component": "principal",
                "amount": "163.52",
                "policy": "quoted-invoice-v1",
                "allocated_at": "2026-11-18T11:06:42Z",
            }
        ],
        credit="0.00",
        returns=[],
        refunds=[],
        transfers=[
            {
                "id": "12",
                "name": "cashplus/CP-1/invoice",
                "kind": "received",
                "debit": "clearing:cashplus",
                "credit": "payable:institution",
                "amount": "163.52",
                "reverses": None,
                "posted_at": "2026-11-18T11:06:42Z",
            }
        ],
    )

    source: str = Field(description="What told us: a delivery, or an inquiry of ours.")
    allocations: list[PaymentAllocation]
    credit: Amount = Field(description="What of it lies in a payer's credit now.")
    returns: list[PaymentReturned]
    refunds: list[RefundRecord] | None = Field(
        description="Those that we began; null where the role may not see them. One that was made"
        " is among the `returns` too."
    )
    transfers: list[PaymentTransfer] | None = Field(
        description="Null where the role may not see the books."
    )


class PaymentFilters(Paged):
    """Which payments to list."""

    provider: Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,39}$")] | None = None
    status: PaymentStatus | None = None
    channel: Channel | None = None
    paid_from: Day | None = Field(None, description="The first day, in Casablanca.")
    paid_to: Day | None = Field(None, description="The last day, in Casablanca.")
    reference: Reference | None = Field(None, description="Of the invoice or bundle it quoted.")
    contributor: Id | None = None


@router.get("/payments", **operation(Right.READ_PAYMENTS, "bad_cursor", "fields_contradict"))
def list_payments(
    asked: ThisRequest, filters: Annotated[PaymentFilters, Query()], response: Response
) -> Page[PaymentSummary]:
    """List money that was reported."""
    refuse_reversed(filters.paid_from, filters.paid_to, "paid_from", "paid_to")
    where = _seen_by(asked)
    where.add("p.id > :after", after=first_after(asked, "payments", filters))
    where.equal(provider=filters.provider, channel=filters.channel)
    if filters.reference:
        quoted = "i.reference = :reference OR b.reference = :reference"
        where.add(quoted, reference=filters.reference)
    if filters.status:
        where.add("p.status = :status", status=filters.status)
    if filters.paid_from:
        where.add("paid_at >= :paid_from", paid_from=start_of(filters.paid_from))
    if filters.paid_to:
        where.add("paid_at < :paid_until", paid_until=end_of(filters.paid_to))
    if filters.contributor:
        # Who may not know whose a payment is must not find out by asking for it either.
        whose = "coalesce(i.contributor_id, b.contributor_id) = :contributor"
        known = whose if asked.caller.may(_WHOSE) else "FALSE"
        where.add(known, contributor=int(filters.contributor))
    with snapshot() as session:
        rows = _rows(session, where, filters.limit + 1)
    return paged(asked, "payments", filters, rows, lambda row: _summary(row, asked), response)


@router.get("/payments/{id}", **operation(Right.READ_PAYMENTS, "payment_not_found"))
def read_payment(asked: ThisRequest, payment_id: IdInPath) -> Payment:
    """Read one payment: where its money went, and what explains it."""
    number = int(payment_id)
    where = _seen_by(asked)
    where.add("p.id = :id", id=number)
    with snapshot() as session:
        row = found(next(iter(_rows(session, where, 1)), None), "payment_not_found")
        return Payment(
            **_summary(row, asked).model_dump(),
            source=row["source"],
            allocations=_allocations(session, number),
            credit=format_amount(execute(session, _CREDIT, {"id": number}).scalar_one()),
            returns=_returns(session, row["provider"], row["provider_payment_id"]),
            refunds=_refunds(session, number) if asked.caller.may(Right.READ_REFUNDS) else None,
            transfers=_transfers(session, row) if asked.caller.may(Right.READ_BOOKS) else None,
        )


_WHOSE: Final = Right.READ_CONTRIBUTORS

_PAYMENTS: Final = """
    SELECT p.*, i.reference, b.reference AS bundle, receipt.number AS receipt_number,
        coalesce(i.contributor_id, b.contributor_id) AS contributor_id
    FROM payment p LEFT JOIN invoice i ON i.id = p.invoice_id
    LEFT JOIN bundle b ON b.id = p.bundle_id
    LEFT JOIN contributor ON contributor.id = i.contributor_id
    LEFT JOIN receipt ON receipt.payment_id = p.id
"""

_CREDIT: Final = """
    SELECT coalesce(sum(CASE WHEN c.code LIKE 'credit:%' THEN t.amount_minor ELSE 0 END
        - CASE WHEN d.code LIKE 'credit:%' THEN t.amount_minor ELSE 0 END), 0)::bigint
    FROM ledger_transfer t JOIN ledger_account d ON d.id = t.debit_account_id
    JOIN ledger_account c ON c.id = t.credit_account_id WHERE payment_id = :id
"""


def _seen_by(asked: Asked) -> Conditions:
    where = Conditions("TRUE")
    if asked.caller.is_chamber:
        seen = f"region = :scope OR p.bundle_id IS NOT NULL AND {ALL_SEEN}"
        where.add(seen, scope=asked.caller.scope)
    if asked.caller.is_provider:
        where.add("provider = :scope", scope=asked.caller.scope)
    return where


def _rows(session: Session, where: Conditions, limit: int) -> list[Any]:
    rows = execute(
        session,
        f"{_PAYMENTS} WHERE {where} ORDER BY p.id LIMIT :rows",
        {**where.parameters, "rows": limit},
    )
    return list(rows.mappings())


def _summary(row: Any, asked: Asked) -> PaymentSummary:
    whose = row["contributor_id"] if asked.caller.may(_WHOSE) else None
    fee = row["fee_minor"]
    return PaymentSummary(
        id=str(row["id"]),
        provider=row["provider"],
        provider_payment_id=row["provider_payment_id"],
        status=row["status"],
        reference=row["reference"],
        bundle=row["bundle"],
        reference_given=row["reference_given"],
        contributor_id=None if whose is None else str(whose),
        amount=format_amount(row["amount_minor"]),
        returned=format_amount(row["returned_minor"]),
        fee=None if fee is None else format_amount(fee),
        currency=row["currency"],
        channel=row["channel"],
        agent_id=row["agent_id"],
        terminal_id=row["terminal_id"],
        paid_at=row["paid_at"],
        recorded_at=row["recorded_at"],
        booked_at=row["booked_at"],
        receipt_number=row["receipt_number"],
    )


def _allocations(session: Session, payment_id: int) -> list[PaymentAllocation]:
    rows = execute(
        session,
        "SELECT reference, component, a.amount_minor, policy, allocated_at FROM allocation a"
        " JOIN invoice ON invoice.id = a.invoice_id WHERE payment_id = :id ORDER BY a.id",
        {"id": payment_id},
    )
    return [
        PaymentAllocation(
            reference=reference,
            component=component,
            amount=format_amount(minor),
            policy=policy,
            allocated_at=at,
        )
        for reference, component, minor, policy, at in rows
    ]


def _returns(session: Session, provider: str, payment_id: str) -> list[PaymentReturned]:
    rows = execute(
        session,
        "SELECT kind, return_id, state, amount_minor, made_at, outcome FROM payment_return"
        " WHERE provider = :provider AND provider_payment_id = :id ORDER BY made_at, id",
        {"provider": provider, "id": payment_id},
    )
    return [
        PaymentReturned(
            kind=kind,
            return_id=return_id,
            state=state,
            amount=format_amount(minor),
            made_at=made_at,
            outcome=outcome,
        )
        for kind, return_id, state, minor, made_at, outcome in rows
    ]


def _refunds(session: Session, payment_id: int) -> list[RefundRecord]:
    where = "refund.payment_id = :id ORDER BY refund.id"
    return [said(each) for each in read_shown(session, where, {"id": payment_id})]


def _transfers(session: Session, payment: Any) -> list[PaymentTransfer]:
    named = f"{payment['provider']}/{payment['provider_payment_id']}"
    rows = execute(
        session,
        "SELECT t.id, name, d.code, c.code, amount_minor, reverses_id, posted_at"
        " FROM ledger_transfer t JOIN ledger_account d ON d.id = t.debit_account_id"
        " JOIN ledger_account c ON c.id = t.credit_account_id"
        " WHERE payment_id = :id ORDER BY t.id",
        {"id": payment["id"]},
    )
    return [
        PaymentTransfer(
            id=str(number),
            name=name,
            kind=kind_of(name, named),
            debit=debit,
            credit=credit,
            amount=format_amount(minor),
            reverses=None if reverses is None else str(reverses),
            posted_at=posted_at,
        )
        for number, name, debit, credit, minor, reverses, posted_at in rows
    ]
