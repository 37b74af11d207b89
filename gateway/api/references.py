"""`/v1/references`: what a reference is for, as agents and kiosks show it; and is it one at all."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

from fastapi import APIRouter
from pydantic import Field

from gateway.api.access import Right, ThisRequest
from gateway.api.limits import seconds_after_miss, seconds_until_look_up
from gateway.api.problems import Problem
from gateway.api.route import new_router, operation
from gateway.api.schemas import Amount, Body, Currency, Reference, ReferenceInPath, Said, example
from gateway.db import snapshot
from gateway.institution import institution
from gateway.money import CURRENCY, format_amount
from gateway.pages.typed import TEXT_MAX, Slip, Typed, read_typed
from gateway.presentment import Presentment, Standing, present
from gateway.references import format_reference, is_reference

router: APIRouter = new_router("references")


class Payer(Said):
    """Who it is for: enough for the payer to know, and for nobody else."""

    initials: str
    initials_ar: str | None


class DueReference(Said):
    """What is due by a reference."""

    model_config = example(
        reference="148275036141",
        shown="1482 7503 6141",
        status="open",
        payable=True,
        due="163.52",
        amount="163.52",
        paid="0.00",
        currency="MAD",
        category="artisan-untaxed",
        period="2026-11",
        due_on="2026-11-30",
        expires_on="2027-11-30",
        announced=False,
        payer={"initials": "F. Z. E. I.", "initials_ar": "ف. ز. إ."},
    )

    reference: Reference
    shown: str = Field(description="As it is printed.")
    status: Standing
    payable: bool = Field(description="Whether money may be taken for it now.")
    due: Amount = Field(description="What to take now.")
    amount: Amount
    paid: Amount
    currency: Currency = CURRENCY
    category: str
    period: str
    due_on: date
    expires_on: date
    announced: bool = Field(description="A payment is announced and not confirmed: ask the payer.")
    payer: Payer


class TypedText(Body):
    """What somebody typed, pasted or scanned where a reference belongs."""

    model_config = example(text="1482 7503 6141")

    text: str = Field(max_length=TEXT_MAX)


class ReadText(Said):
    """The reference in a text, or the first thing that is wrong with it."""

    model_config = example(
        reference="148275036141", shown="1482 7503 6141", slip=None, detail="It verifies."
    )

    reference: Reference | None
    shown: str | None = Field(description="As it is printed.")
    slip: Slip | None = Field(description="What is wrong with it.")
    detail: str


@router.get(
    "/references/{reference}",
    **operation(
        Right.LOOK_UP_REFERENCES, "reference_mistyped", "reference_not_found", "too_many_misses"
    ),
)
def look_up_reference(asked: ThisRequest, reference: ReferenceInPath) -> DueReference:
    """Say what is due by a reference, and how it stands. Of the payer, initials only."""
    if not is_reference(reference):
        raise Problem("reference_mistyped")
    _refuse_after_misses(seconds_until_look_up(asked.caller.key_id))
    months = institution().validity.months
    with snapshot() as session:
        presented = present(session, reference, now=asked.now, validity_months=months)
    if presented is None:
        _refuse_after_misses(seconds_after_miss(asked.caller.key_id))
        raise Problem("reference_not_found")
    return _said(presented)


@router.post("/references/check", **operation(Right.LOOK_UP_REFERENCES, body=True))
def check_text(body: TypedText) -> ReadText:
    """Read a text as every form of ours does: is there a reference in it. Looks nothing up."""
    typed = read_typed(body.text)
    reference = typed.reference
    return ReadText(
        reference=reference,
        shown=format_reference(reference) if reference else None,
        slip=typed.slip,
        detail=_detail(typed),
    )


def _refuse_after_misses(seconds: int) -> None:
    if seconds:
        raise Problem("too_many_misses", headers={"Retry-After": str(seconds)})


_DETAILS: Final = {
    None: "It verifies.",
    Slip.EMPTY: "It is empty.",
    Slip.LETTERS: "It holds signs that are no digits.",
    Slip.CHECK: "It does not verify: a digit is wrong, or two changed places.",
    Slip.OTHER_RF: "It is a bank's reference of somebody else: ours begin with RF74.",
}


def _detail(typed: Typed) -> str:
    if typed.slip is Slip.LENGTH:
        return f"It has {typed.digits} digits, and a reference has 12."
    return _DETAILS[typed.slip]


def _said(presented: Presentment) -> DueReference:
    values: dict[str, Any] = {
        name: getattr(presented, name)
        for name in ("reference", "category", "period", "due_on", "expires_on")
    }
    status = presented.standing
    return DueReference(
        **values,
        shown=format_reference(presented.reference),
        status=status,
        payable=status in {Standing.OPEN, Standing.PART_PAID, Standing.LATE},
        due=format_amount(presented.due_minor),
        amount=format_amount(presented.amount_minor),
        paid=format_amount(presented.paid_minor),
        announced=bool(presented.announced),
        payer=Payer(initials=presented.person.initials, initials_ar=presented.person.initials_ar),
    )
