"""`/v1/bundles`: one reference that pays several invoices; and what is due by such a reference."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Final

from fastapi import APIRouter, Response
from pydantic import Field
from sqlmodel import Session

from gateway.api.access import Asked, Right, ThisRequest
from gateway.api.idempotency import Answer, IdempotencyKey, once
from gateway.api.limits import seconds_after_miss, seconds_until_look_up
from gateway.api.problem_kinds import KINDS
from gateway.api.problems import FieldError, Problem
from gateway.api.route import PREFIX, new_router, operation
from gateway.api.schemas import (
    Amount,
    Body,
    Currency,
    Id,
    Reference,
    ReferenceInPath,
    Said,
    example,
    found,
)
from gateway.billing.bundle_presentment import (
    BundlePresentment,
    PresentedInstalment,
    present_bundle,
)
from gateway.billing.bundles import make_selection, owes_one_of
from gateway.billing.presentment import Presentment, Standing
from gateway.db import execute, snapshot
from gateway.dues.instalments import InstalmentState
from gateway.errors import Unusable
from gateway.institution import institution
from gateway.models import BundleKind, Role
from gateway.money import CURRENCY, format_amount
from gateway.papers.notice import PAYABLE
from gateway.references import format_reference, is_reference
from gateway.settings import settings

REFERENCES_MAX: Final = 2_000
"""Invoices that one request bundles."""

router: APIRouter = new_router("bundles")


class Payer(Said):
    """Who it is for: enough for the payer to know, and for nobody else."""

    initials: str
    initials_ar: str | None


class BundledInvoice(Said):
    """One invoice of several that are paid by one reference."""

    reference: Reference
    period: str
    category: str
    status: Standing
    due: Amount = Field(description="What paying today would settle.")
    due_on: date
    payer: Payer


class BundleInstalment(Said):
    """What a plan asks for by a day."""

    due_on: date
    amount: Amount
    unpaid: Amount
    state: InstalmentState


class BundlePlan(Said):
    """An instalment plan. What came due since it was made is paid before its instalments; a broken
    one has none any more."""

    made_on: date
    instalments: list[BundleInstalment]
    kept_on: date | None
    broken_on: date | None


class BundleLinks(Said):
    """Where its payer sees it."""

    page: str
    pdf: str


_ITEM: Final[dict[str, Any]] = {
    "reference": "148275036141",
    "period": "2026-11",
    "category": "artisan-untaxed",
    "status": "open",
    "due": "163.52",
    "due_on": "2026-11-30",
    "payer": {"initials": "F. Z. E. I.", "initials_ar": "ف. ز. إ."},
}


class Bundle(Said):
    """One reference that pays several invoices, in their order."""

    model_config = example(
        reference="927340118625",
        shown="9273 4011 8625",
        kind="selection",
        status="open",
        payable=True,
        due="327.04",
        due_until="2026-11-30",
        due_on="2026-11-30",
        currency="MAD",
        invoices=[_ITEM, {**_ITEM, "reference": "148275036238", "period": "2026-10"}],
        current=[],
        plan=None,
        links={
            "page": "https://pay.example.ma/927340118625",
            "pdf": "https://pay.example.ma/927340118625.pdf",
        },
    )

    reference: Reference
    shown: str = Field(description="As it is printed.")
    kind: BundleKind
    status: Standing = Field(description="As of an invoice; `cancelled`: withdrawn.")
    payable: bool = Field(description="Whether money may be taken for it now.")
    due: Amount = Field(
        description="What to take now. Of a plan: what came due since it was made, the instalments"
        " that are late, and the next one; of a broken one all that is due."
    )
    due_until: date | None = Field(
        description="The last day on which that settles it; null: it does not grow."
    )
    due_on: date = Field(description="By when it was or is to be paid: the first day of all.")
    currency: Currency = CURRENCY
    invoices: list[BundledInvoice] = Field(description="That it pays, in its order.")
    current: list[BundledInvoice] = Field(
        description="Of a plan: what came due since it was made, and is paid first."
    )
    plan: BundlePlan | None
    links: BundleLinks


class NewBundle(Body):
    """Which invoices to pay together, and whose is what goes beyond."""

    model_config = example(references=["148275036141", "148275036238"], contributor_id="1042")

    references: Annotated[list[Reference], Field(min_length=1, max_length=REFERENCES_MAX)] = Field(
        description="Of invoices, in the order in which money pays them."
    )
    contributor_id: Id | None = Field(
        None,
        description="Whose credit is what goes beyond what is due: one of the people whose invoices"
        " these are. Without it: of whom all the invoices are; if they are of several people,"
        " nobody's until a person decides.",
    )


@router.post(
    "/bundles",
    status_code=201,
    response_model=Bundle,
    **operation(
        Right.MAKE_BUNDLES,
        "reference_mistyped",
        "invoice_not_found",
        "contributor_not_found",
        "invoice_cancelled",
        "fields_contradict",
        "idempotency_key_reused",
        "too_many_misses",
        body=True,
    ),
)
def make_bundle(asked: ThisRequest, body: NewBundle, key: IdempotencyKey = None) -> Response:
    """Make a reference that pays several invoices, of one person or of several."""
    refuse_after_misses(seconds_until_look_up(asked.caller.key_id))

    def act(session: Session) -> Answer:
        ids = _ids(session, asked, body.references)
        whose = _whose(session, asked, body.contributor_id, ids)
        try:
            made = make_selection(session, ids, contributor_id=whose, now=asked.now)
        except Unusable as error:
            raise Problem("fields_contradict", str(error)) from None
        said = _read(session, asked, made.reference)
        return Answer(said, 201, {"Location": f"{PREFIX}/bundles/{made.reference}"})

    try:
        return once(asked, key, act)
    except Problem as problem:
        if problem.code == "invoice_not_found":
            # Who bundles must not find out references that look-ups would count as misses.
            for _ in problem.errors:
                refuse_after_misses(seconds_after_miss(asked.caller.key_id))
        raise


@router.get("/bundles/{reference}", **operation(Right.READ_BUNDLES, "bundle_not_found"))
def read_bundle(asked: ThisRequest, reference: ReferenceInPath) -> Bundle:
    """Read what is due by a reference that pays several invoices. Of payers, initials only."""
    refuse_after_misses(seconds_until_look_up(asked.caller.key_id))
    try:
        with snapshot() as session:
            return _read(session, asked, reference)
    except Problem:
        refuse_after_misses(seconds_after_miss(asked.caller.key_id))
        raise


def refuse_after_misses(seconds: int) -> None:
    """Refuse who asked for too many references that do not exist.

    Raises:
        Problem: There is time to wait.
    """
    if seconds:
        raise Problem("too_many_misses", headers={"Retry-After": str(seconds)})


ALL_SEEN: Final = """
    NOT EXISTS (SELECT FROM bundle_item JOIN invoice ON invoice.id = invoice_id
        JOIN contributor ON contributor.id = invoice.contributor_id
        WHERE bundle_id = b.id AND region IS DISTINCT FROM :scope)
"""
"""Whether a bundle, called `b`, is for people of one region only."""


def _ids(session: Session, asked: Asked, references: Sequence[str]) -> list[int]:
    """Return the invoices of these references, in their order.

    Raises:
        Problem: One is given twice, does not verify, is not there, not seen by the key, or
            cancelled; `errors` names which.
    """
    if len(set(references)) != len(references):
        repeated = next(n for n, each in enumerate(references) if each in references[:n])
        sentence = "It is given twice: an invoice is paid once."
        error = FieldError(f"references[{repeated}]", "repeated", sentence)
        raise Problem("fields_contradict", sentence, errors=[error])
    mistyped = [not is_reference(each) for each in references]
    _refuse(mistyped, "reference_mistyped", "malformed", "It does not verify: read it again.")
    rows = execute(
        session,
        "SELECT reference, i.id, cancelled_at, region FROM invoice i"
        " JOIN contributor ON contributor.id = contributor_id WHERE reference = ANY(:references)",
        {"references": list(references)},
    ).mappings()
    known = {row["reference"]: row for row in rows if _sees(asked, row["region"])}
    sentence = "No invoice that the key may see has it."
    _refuse([each not in known for each in references], "invoice_not_found", "not_one_of", sentence)
    cancelled = [known[each]["cancelled_at"] is not None for each in references]
    _refuse(cancelled, "invoice_cancelled", "contradicts", "It is cancelled: nothing is due on it.")
    return [known[each]["id"] for each in references]


def _refuse(wrong: Sequence[bool], code: str, field_code: str, sentence: str) -> None:
    errors = [
        FieldError(f"references[{at}]", field_code, sentence)
        for at, is_wrong in enumerate(wrong)
        if is_wrong
    ]
    if errors:
        # How many there are in all is not told: only what is named is counted as missed.
        raise Problem(code, f"`errors` names which. {KINDS[code].todo}", errors=errors)


def _whose(session: Session, asked: Asked, given: str | None, ids: Sequence[int]) -> int | None:
    """Return whose credit is what goes beyond; who sees no people names nobody by a number.

    Raises:
        Problem: There is no such contributor that the key sees, or none of the invoices is theirs.
    """
    if given is None:
        query = (
            "SELECT DISTINCT coalesce(merged_into_id, c.id) FROM invoice"
            " JOIN contributor c ON c.id = contributor_id WHERE invoice.id = ANY(:ids) LIMIT 2"
        )
        people = list(execute(session, query, {"ids": list(ids)}).scalars())
        return people[0] if len(people) == 1 else None
    query = "SELECT region FROM contributor WHERE id = :id"
    row = execute(session, query, {"id": int(given)}).one_or_none()
    region = found(row, "contributor_not_found").region
    if not asked.caller.may(Right.READ_CONTRIBUTORS) or not _sees(asked, region):
        raise Problem("contributor_not_found")
    if not owes_one_of(session, int(given), ids):
        sentence = "None of the invoices is theirs: what goes beyond would be a stranger's credit."
        error = FieldError("contributor_id", "contradicts", sentence)
        raise Problem("fields_contradict", sentence, errors=[error])
    return int(given)


def _sees(asked: Asked, region: str | None) -> bool:
    caller = asked.caller
    return not caller.is_chamber or (region is not None and region == caller.scope)


def _read(session: Session, asked: Asked, reference: str) -> Bundle:
    if asked.caller.role is Role.CHAMBER:
        seen = f"SELECT EXISTS (SELECT FROM bundle b WHERE reference = :reference AND {ALL_SEEN})"
        asks = {"reference": reference, "scope": asked.caller.scope}
        if not execute(session, seen, asks).scalar_one():
            raise Problem("bundle_not_found")
    months = institution().validity.months
    presented = present_bundle(session, reference, now=asked.now, validity_months=months)
    return said(found(presented, "bundle_not_found"))


def said(presented: BundlePresentment) -> Bundle:
    """Return a bundle as it is answered."""
    link = settings().payer_link(presented.reference)
    return Bundle(
        reference=presented.reference,
        shown=format_reference(presented.reference),
        kind=presented.kind,
        status=presented.standing,
        payable=presented.standing in PAYABLE,
        due=format_amount(presented.due_minor),
        due_until=presented.valid_until,
        due_on=presented.due_on,
        invoices=[bundled(each) for each in presented.items],
        current=[bundled(each) for each in presented.current],
        plan=plan_of(presented),
        links=BundleLinks(page=link, pdf=f"{link}.pdf"),
    )


def bundled(presented: Presentment) -> BundledInvoice:
    """Return an invoice as one of several."""
    return BundledInvoice(
        reference=presented.reference,
        period=presented.period,
        category=presented.category,
        status=presented.standing,
        due=format_amount(presented.due_minor),
        due_on=presented.due_on,
        payer=Payer(initials=presented.person.initials, initials_ar=presented.person.initials_ar),
    )


def plan_of(presented: BundlePresentment) -> BundlePlan | None:
    """Return how the plan of a bundle stands; None for one that is no plan's."""
    plan = presented.plan
    if plan is None:
        return None
    return BundlePlan(
        made_on=plan.made_on,
        instalments=[_instalment(each) for each in plan.instalments],
        kept_on=plan.kept_on,
        broken_on=plan.broken_on,
    )


def _instalment(each: PresentedInstalment) -> BundleInstalment:
    return BundleInstalment(
        due_on=each.due_on,
        amount=format_amount(each.amount_minor),
        unpaid=format_amount(each.unpaid_minor),
        state=each.state,
    )
