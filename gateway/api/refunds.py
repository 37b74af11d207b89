"""`/v1/refunds`: money that we give back, asked by one and approved by another."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
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
    LINE_PATTERN,
    Amount,
    AmountGiven,
    Because,
    Body,
    Conditions,
    Currency,
    Id,
    IdInPath,
    Said,
    example,
)
from gateway.collection import refunds
from gateway.collection.refunds import BANK_REFERENCE_MAX, Shown
from gateway.db import snapshot
from gateway.errors import Unusable
from gateway.models import RefundState, RefundWay
from gateway.money import parse_amount
from gateway.process import providers, signing_key
from gateway.providers.refunding import RefundingProvider

router: APIRouter = new_router("refunds")

_EXAMPLE: Final[dict[str, Any]] = {
    "id": "3",
    "payment_id": "7",
    "provider": "stripe",
    "provider_payment_id": "pi_3Q",
    "amount": "36.48",
    "currency": "MAD",
    "left": "163.52",
    "way": "provider",
    "state": "done",
    "asked_by": "key 5c1d0e9a7b3f2468",
    "because": "Paid twice",
    "asked_at": "2026-11-18T11:06:42Z",
    "decided_by": "key 9a0b1c2d3e4f5061",
    "decided_at": "2026-11-18T12:30:00Z",
    "return_id": "re_3Q",
    "bank_reference": None,
    "ended_at": "2026-11-18T12:30:04Z",
    "steps": [
        {
            "state": "asked",
            "taken_by": "key 5c1d0e9a7b3f2468",
            "because": "Paid twice",
            "taken_at": "2026-11-18T11:06:42Z",
        }
    ],
}


class RefundStep(Said):
    """Who took a refund to a state, when, and why."""

    state: RefundState
    taken_by: str = Field(
        description="`key ID`, `staff NAME`; `provider` or `worker` where no person decided."
    )
    because: str
    taken_at: datetime


class RefundRecord(Said):
    """An amount of a payment that somebody asked to be given back."""

    model_config = example(**_EXAMPLE)

    id: Id
    payment_id: Id
    provider: str
    provider_payment_id: str
    amount: Amount
    currency: Currency
    left: Amount = Field(description="What of the payment is neither given back nor disputed now.")
    way: RefundWay = Field(
        description="`provider`: it is asked to give the money back. `by_hand`: finance pays it out"
        " and says so."
    )
    state: RefundState = Field(
        description="`asked`; `refused`: not approved, or withdrawn; `approved`: being carried out,"
        " and not known yet, or, by hand, to be paid out; `dropped`: stopped, since the money was"
        " disputed, given back or taken back meanwhile; `sent`: the provider has made it; `done`:"
        " it is with the payer's bank; `failed`: refused by the provider, or come back."
    )
    asked_by: str
    because: str
    asked_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    return_id: str | None = Field(description="What the provider calls it.")
    bank_reference: str | None = Field(description="What the bank calls a transfer by hand.")
    ended_at: datetime | None
    steps: list[RefundStep] = Field(description="All that was decided and heard, oldest first.")


class NewRefund(Body):
    """What of a payment to give back, and why."""

    model_config = example(amount="36.48", way=None, because="Paid twice")

    amount: AmountGiven | None = Field(
        None, description="Null: all of it that may still be given back."
    )
    way: RefundWay | None = Field(
        None, description="Null: by the provider if it can, else by hand."
    )
    because: Because


class RefundDecision(Body):
    """Why it is approved, refused or taken back."""

    model_config = example(because="Seen with the payer's statement")

    because: Because


class PaidOut(Body):
    """That finance has paid a refund out."""

    model_config = example(bank_reference="VIR-20261118-0042", transferred_already=False)

    bank_reference: Annotated[
        str, Field(min_length=1, max_length=BANK_REFERENCE_MAX, pattern=LINE_PATTERN)
    ]
    transferred_already: bool = Field(
        False,
        description="That the transfer had left the bank before the refund was `dropped`: only then"
        " is it booked.",
    )


class RefundFilters(Paged):
    """Which refunds to list."""

    payment: Id | None = None
    state: RefundState | None = None


@router.get("/refunds", **operation(Right.READ_REFUNDS, "bad_cursor"))
def list_refunds(
    asked: ThisRequest, filters: Annotated[RefundFilters, Query()], response: Response
) -> Page[RefundRecord]:
    """List refunds that were asked for."""
    where = Conditions("TRUE")
    where.add("refund.id > :after", after=first_after(asked, "refunds", filters))
    if filters.payment:
        where.add("refund.payment_id = :payment", payment=int(filters.payment))
    if filters.state:
        where.add("refund.state = :state", state=filters.state.value)
    with snapshot() as session:
        found = refunds.read_shown(
            session,
            f"{where} ORDER BY refund.id LIMIT :rows",
            {**where.parameters, "rows": filters.limit + 1},
        )
    rows = [{"id": each.row.id, "shown": each} for each in found]
    return paged(asked, "refunds", filters, rows, lambda row: said(row["shown"]), response)


@router.get("/refunds/{id}", **operation(Right.READ_REFUNDS, "refund_not_found"))
def read_refund(refund_id: IdInPath) -> RefundRecord:
    """Read one refund: who asked, who approved, what became of it."""
    with snapshot() as session:
        return said(_tried(lambda: refunds.show(session, int(refund_id))))


@router.post(
    "/payments/{id}/refunds",
    status_code=201,
    response_model=RefundRecord,
    **operation(
        Right.ASK_REFUNDS,
        "payment_not_found",
        "refund_refused",
        "idempotency_key_reused",
        body=True,
    ),
)
def ask(
    asked: ThisRequest, payment_id: IdInPath, body: NewRefund, key: IdempotencyKey = None
) -> Response:
    """Ask that a payment, or a part of it, be given back; another person must approve it."""

    def act(session: Session) -> Answer:
        made = _tried(
            lambda: refunds.ask(
                session,
                int(payment_id),
                None if body.amount is None else parse_amount(body.amount),
                way=body.way,
                can_refund=can_refund,
                who=_named(asked),
                why=body.because,
                now=asked.now,
            )
        )
        return Answer(said(made), 201, {"Location": f"{PREFIX}/refunds/{made.row.id}"})

    return once(asked, key, act)


_DECIDING: Final[dict[str, Any]] = {"response_model": RefundRecord}


def _may(right: Right) -> dict[str, Any]:
    codes = ("refund_not_found", "refund_refused", "idempotency_key_reused")
    return {**_DECIDING, **operation(right, *codes, body=True)}


@router.post("/refunds/{id}/approve", **_may(Right.APPROVE_REFUNDS))
def approve(
    asked: ThisRequest, refund_id: IdInPath, body: RefundDecision, key: IdempotencyKey = None
) -> Response:
    """Approve a refund that another person asked for: it is carried out from here."""
    return _decided(
        asked,
        key,
        lambda session: refunds.approve(
            session, int(refund_id), who=_named(asked), why=body.because, now=asked.now
        ),
    )


@router.post("/refunds/{id}/refuse", **_may(Right.REFUSE_REFUNDS))
def refuse(
    asked: ThisRequest, refund_id: IdInPath, body: RefundDecision, key: IdempotencyKey = None
) -> Response:
    """Say no to a refund, or withdraw it, as long as nothing is done."""
    return _decided(
        asked,
        key,
        lambda session: refunds.refuse(
            session, int(refund_id), who=_named(asked), why=body.because, now=asked.now
        ),
    )


@router.post("/refunds/{id}/paid-out", **_may(Right.ASK_REFUNDS))
def paid_out(
    asked: ThisRequest, refund_id: IdInPath, body: PaidOut, key: IdempotencyKey = None
) -> Response:
    """Say that an approved refund by hand was paid out, and by which transfer."""
    return _decided(
        asked,
        key,
        lambda session: refunds.paid_out(
            session,
            int(refund_id),
            who=_named(asked),
            bank_reference=body.bank_reference,
            transferred_already=body.transferred_already,
            key=signing_key(),
            now=asked.now,
        ),
    )


@router.post("/refunds/{id}/bounced", **_may(Right.ASK_REFUNDS))
def bounced(
    asked: ThisRequest, refund_id: IdInPath, body: RefundDecision, key: IdempotencyKey = None
) -> Response:
    """Say that what was paid out by hand came back."""
    return _decided(
        asked,
        key,
        lambda session: refunds.bounced(
            session,
            int(refund_id),
            who=_named(asked),
            why=body.because,
            key=signing_key(),
            now=asked.now,
        ),
    )


def _decided(asked: Asked, key: str | None, act: Callable[[Session], Shown]) -> Response:
    return once(asked, key, lambda session: Answer(said(_tried(lambda: act(session)))))


def _tried(act: Callable[[], Shown]) -> Shown:
    """Do it, or refuse as the API does.

    Raises:
        Problem: It cannot be done.
    """
    try:
        return act()
    except refunds.NoSuchRefund:
        raise Problem("refund_not_found") from None
    except refunds.NoSuchPayment:
        raise Problem("payment_not_found") from None
    except Unusable as error:
        raise Problem("refund_refused", str(error)) from None


def _named(asked: Asked) -> str:
    # By the key and not by its label: two keys may bear one.
    return f"key {asked.caller.key_id}"


def can_refund(provider: str) -> bool:
    """Say whether a provider gives money back when it is asked to."""
    return isinstance(providers().get(provider), RefundingProvider)


def said(shown: Shown) -> RefundRecord:
    """Return a refund as the API says it."""
    return RefundRecord.model_validate(shown.as_json())
