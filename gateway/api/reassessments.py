"""What people do and did, files of one person, and what follows for what was billed to them."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Final

from fastapi import APIRouter, Response
from pydantic import Field
from sqlmodel import Session

from gateway.api.access import Asked, Right, ThisRequest
from gateway.api.idempotency import Answer, IdempotencyKey, once
from gateway.api.problems import Problem
from gateway.api.route import new_router, operation
from gateway.api.schemas import (
    Amount,
    AmountGiven,
    Because,
    Body,
    CategoryCode,
    Conditions,
    Day,
    Id,
    IdInPath,
    Reference,
    Said,
    example,
    found,
)
from gateway.billing import reassessment
from gateway.billing.reassessment import Adjusted, Missing, Reassessed
from gateway.db import execute, snapshot
from gateway.dues.tariff import tariff
from gateway.errors import Unusable
from gateway.money import format_amount, parse_amount
from gateway.people.activities import add_activity
from gateway.process import signing_key

router: APIRouter = new_router("contributors")

_ACTIVITY: Final[dict[str, Any]] = {
    "category": "cpu",
    "base": "420.00",
    "since": "2026-01-01",
    "until": None,
    "because": "Data of the tax office, January 2026",
}


class Activity(Said):
    """What a person does or did, beside or before what the register says."""

    model_config = example(
        id="7", **_ACTIVITY, recorded_at="2026-11-18T11:06:40Z", withdrawn_at=None
    )

    id: Id
    category: str
    base: Amount | None
    since: date
    until: date | None = Field(description="The last day; null while it goes on.")
    because: str
    recorded_at: datetime
    withdrawn_at: datetime | None = Field(description="Since when it counts as never having been.")


class Activities(Said):
    """All activities of a person, the oldest record first."""

    data: list[Activity]


class NewActivity(Body):
    """An activity beside what the register says."""

    model_config = example(**_ACTIVITY)

    category: CategoryCode
    base: AmountGiven | None = Field(
        None, description="Where the category is charged by it, as its tariff says."
    )
    since: Day
    until: Day | None = None
    because: Because


class AskedReassessment(Body):
    """Why what was billed is to be held against what is owed."""

    model_config = example(because="Income return of 2025", dry_run=True)

    because: Because
    dry_run: bool = Field(default=False, description="Say what would be done, and do nothing.")


class AskedMerge(Body):
    """Which other file is of the same person."""

    model_config = example(other="2077", because="Same identity card")

    other: Id
    because: Because


class NoteMade(Said):
    """A credit or a charge on an invoice."""

    reference: Reference
    period: str
    amount: Amount = Field(description="Signed: a credit is negative.")
    due_on: date | None = Field(description="By when a charge is to be paid.")
    rule: str
    source: str
    verified: bool = Field(description="Whether the source of every figure was seen.")


class InvoiceMade(Said):
    """An invoice of a period that others were billed for."""

    period: str
    category: str
    amount: Amount
    due_on: date


class Reassessment(Said):
    """What a re-assessment of one person came to, or would."""

    model_config = example(
        contributor_id="1042",
        dry_run=False,
        notes=[
            {
                "reference": "148275036141",
                "period": "2026-Q1",
                "amount": "90.00",
                "due_on": "2026-12-31",
                "rule": "auto-entrepreneur: fixed amount, annual principal duty up to 1000.00",
                "source": "CGI art. 73-II-B-6°",
                "verified": False,
            }
        ],
        issued=[],
    )

    contributor_id: Id = Field(description="Of the file that stands.")
    dry_run: bool
    notes: list[NoteMade]
    issued: list[InvoiceMade]


@router.get(
    "/contributors/{id}/activities",
    **operation(Right.READ_CONTRIBUTORS, "contributor_not_found"),
)
def list_activities(asked: ThisRequest, contributor_id: IdInPath) -> Activities:
    """List what a person does or did beside or before what the register says."""
    with snapshot() as session:
        _refuse_unseen(session, asked, int(contributor_id))
        rows = execute(
            session,
            "SELECT * FROM activity WHERE contributor_id = :id ORDER BY id",
            {"id": int(contributor_id)},
        ).mappings()
        return Activities(data=[_activity(row) for row in rows])


@router.post(
    "/contributors/{id}/activities",
    status_code=201,
    response_model=Activity,
    **operation(
        Right.WRITE_CONTRIBUTORS,
        "contributor_not_found",
        "fields_contradict",
        "idempotency_key_reused",
        body=True,
    ),
)
def record_activity(
    asked: ThisRequest, contributor_id: IdInPath, body: NewActivity, key: IdempotencyKey = None
) -> Response:
    """Record an activity beside what the register says; the person is re-assessed soon after."""

    def act(session: Session) -> Answer:
        _refuse_unseen(session, asked, int(contributor_id))
        try:
            added = add_activity(
                session,
                int(contributor_id),
                tariff(),
                category=body.category,
                base_minor=None if body.base is None else parse_amount(body.base),
                since=body.since,
                until=body.until,
                because=body.because,
                now=asked.now,
            )
        except Unusable as error:
            raise Problem("fields_contradict", str(error)) from None
        row = execute(session, "SELECT * FROM activity WHERE id = :id", {"id": added})
        return Answer(_activity(row.mappings().one()), 201)

    return once(asked, key, act)


@router.post(
    "/contributors/{id}/reassessments",
    response_model=Reassessment,
    **operation(
        Right.WRITE_INVOICES,
        "contributor_not_found",
        "fields_contradict",
        "idempotency_key_reused",
        body=True,
    ),
)
def reassess(
    asked: ThisRequest,
    contributor_id: IdInPath,
    body: AskedReassessment,
    key: IdempotencyKey = None,
) -> Response:
    """Hold what was billed to a person against what is owed; credit, charge or issue the rest."""

    def act(session: Session) -> Answer:
        number = int(contributor_id)
        _refuse_unseen(session, asked, number)
        if body.dry_run:
            done = list(reassessment.preview(session, [number], tariff(), now=asked.now))
        else:
            done = reassessment.reassess(
                session,
                [number],
                tariff(),
                key=signing_key(),
                now=asked.now,
                because=_written(body.because),
            )
        return Answer(_reassessed(session, number, done, dry_run=body.dry_run))

    return once(asked, key, act)


@router.post(
    "/contributors/{id}/merge",
    response_model=Reassessment,
    **operation(
        Right.WRITE_CONTRIBUTORS,
        "contributor_not_found",
        "fields_contradict",
        "idempotency_key_reused",
        body=True,
    ),
)
def merge(
    asked: ThisRequest, contributor_id: IdInPath, body: AskedMerge, key: IdempotencyKey = None
) -> Response:
    """Make another file of the same person part of this one. What was billed twice is credited."""

    def act(session: Session) -> Answer:
        keep, other = int(contributor_id), int(body.other)
        _refuse_unseen(session, asked, keep)
        _refuse_unseen(session, asked, other)
        try:
            done = reassessment.merge_files(
                session,
                keep,
                other,
                tariff(),
                because=_written(body.because),
                key=signing_key(),
                now=asked.now,
            )
        except Unusable as error:
            raise Problem("fields_contradict", str(error)) from None
        return Answer(_reassessed(session, keep, done, dry_run=False))

    return once(asked, key, act)


def _written(because: str) -> str:
    """Return a reason that says something.

    Raises:
        Problem: It is nothing but spaces.
    """
    if not because.strip():
        raise Problem("fields_contradict", "Mend because: it says nothing.")
    return because.strip()


def _refuse_unseen(session: Session, asked: Asked, contributor_id: int) -> None:
    where = Conditions("id = :id", id=contributor_id)
    if asked.caller.is_chamber:
        where.add("region = :scope", scope=asked.caller.scope)
    row = execute(session, f"SELECT id FROM contributor WHERE {where}", where.parameters)
    found(row.one_or_none(), "contributor_not_found")


def _activity(row: Any) -> Activity:
    base = row["base_minor"]
    return Activity(
        id=str(row["id"]),
        category=row["category_code"],
        base=None if base is None else format_amount(base),
        since=row["since"],
        until=row["until"],
        because=row["because"],
        recorded_at=row["recorded_at"],
        withdrawn_at=row["withdrawn_at"],
    )


def _reassessed(
    session: Session, contributor_id: int, done: list[Reassessed], *, dry_run: bool
) -> Reassessment:
    """Return what a re-assessment of one person came to.

    Raises:
        Problem: The person cannot be assessed.
    """
    one = done[0] if done else None
    if one is not None and one.refused:
        raise Problem("fields_contradict", one.refused)
    standing = execute(
        session,
        "SELECT coalesce(merged_into_id, id) FROM contributor WHERE id = :id",
        {"id": contributor_id},
    ).scalar_one()
    return Reassessment(
        contributor_id=str(standing),
        dry_run=dry_run,
        notes=[_note(each) for each in one.adjusted] if one else [],
        issued=[_invoice(each) for each in one.missing] if one else [],
    )


def _note(made: Adjusted) -> NoteMade:
    return NoteMade(
        reference=made.reference,
        period=made.period,
        amount=format_amount(made.line.amount_minor),
        due_on=made.due_on,
        rule=made.line.rule,
        source=made.line.source,
        verified=made.line.verified,
    )


def _invoice(made: Missing) -> InvoiceMade:
    return InvoiceMade(
        period=made.period.code,
        category=made.category,
        amount=format_amount(made.line.amount_minor),
        due_on=made.due_on,
    )
