"""`/v1/references`: what a reference is for, as agents and kiosks show it; and is it one at all."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

from fastapi import APIRouter
from pydantic import Field

from gateway.api.access import Right, ThisRequest
from gateway.api.bundles import (
    BundledInvoice,
    BundlePlan,
    Payer,
    bundled,
    plan_of,
    refuse_after_misses,
)
from gateway.api.limits import seconds_after_miss, seconds_until_look_up
from gateway.api.problems import Problem
from gateway.api.route import new_router, operation
from gateway.api.schemas import Amount, Body, Currency, Reference, ReferenceInPath, Said, example
from gateway.billing.bundle_presentment import BundlePresentment, present_bundle
from gateway.billing.presentment import Presentment, Standing, present
from gateway.db import snapshot
from gateway.institution import institution
from gateway.money import CURRENCY, format_amount
from gateway.pages.typed import TEXT_MAX, Slip, Typed, read_typed
from gateway.papers.notice import PAYABLE
from gateway.references import format_reference, is_reference

router: APIRouter = new_router("references")


class DueReference(Said):
    """What is due by a reference: of one invoice, or of several that are paid together."""

    model_config = example(
        reference="148275036141",
        shown="1482 7503 6141",
        status="open",
        payable=True,
        due="163.52",
        due_until="2026-11-30",
        amount="163.52",
        paid="0.00",
        currency="MAD",
        category="artisan-untaxed",
        period="2026-11",
        due_on="2026-11-30",
        expires_on="2027-11-30",
        announced=False,
        payer={"initials": "F. Z. E. I.", "initials_ar": "ف. ز. إ."},
        invoices=None,
        plan=None,
    )

    reference: Reference
    shown: str = Field(description="As it is printed.")
    status: Standing
    payable: bool = Field(description="Whether money may be taken for it now.")
    due: Amount = Field(description="What to take now, penalty and fees included.")
    due_until: date | None = Field(
        description="The last day on which that settles it: the next day a penalty is added. Null:"
        " it does not grow."
    )
    amount: Amount = Field(description="As it was issued.")
    paid: Amount
    currency: Currency = CURRENCY
    category: str | None = Field(description="Null where it pays several invoices.")
    period: str | None = Field(description="Null where it pays several invoices.")
    due_on: date
    expires_on: date | None = Field(description="Null where it pays several: it does not expire.")
    announced: bool = Field(description="A payment is announced and not confirmed: ask the payer.")
    payer: Payer | None = Field(description="Null where it pays several invoices.")
    invoices: list[BundledInvoice] | None = Field(
        description="What a reference for several pays, in the order in which money pays it and"
        " without what is settled; null for one invoice."
    )
    plan: BundlePlan | None = Field(description="Where it is the reference of an instalment plan.")


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
    refuse_after_misses(seconds_until_look_up(asked.caller.key_id))
    months = institution().validity.months
    with snapshot() as session:
        presented = present(session, reference, now=asked.now, validity_months=months)
        if presented is not None:
            return _said(presented)
        together = present_bundle(session, reference, now=asked.now, validity_months=months)
    if together is None:
        refuse_after_misses(seconds_after_miss(asked.caller.key_id))
        raise Problem("reference_not_found")
    return _said_together(together)


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
        payable=status in PAYABLE,
        due=format_amount(presented.due_minor),
        due_until=presented.valid_until,
        amount=format_amount(presented.amount_minor),
        paid=format_amount(presented.paid_minor),
        announced=bool(presented.announced),
        payer=Payer(initials=presented.person.initials, initials_ar=presented.person.initials_ar),
        invoices=None,
        plan=None,
    )


def _said_together(presented: BundlePresentment) -> DueReference:
    return DueReference(
        reference=presented.reference,
        shown=format_reference(presented.reference),
        status=presented.standing,
        payable=presented.standing in PAYABLE,
        due=format_amount(presented.due_minor),
        due_until=presented.valid_until,
        amount=format_amount(sum(each.amount_minor for each in presented.items)),
        paid=format_amount(presented.paid_minor),
        category=None,
        period=None,
        due_on=presented.due_on,
        expires_on=None,
        announced=bool(presented.announced),
        payer=None,
        invoices=[bundled(each) for each in presented.shown],
        plan=plan_of(presented),
    )
