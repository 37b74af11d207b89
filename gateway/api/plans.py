"""Instalment plans: `/v1/contributors/{id}/plans` and `/v1/plans/{id}`."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Final

from fastapi import APIRouter, Response
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from sqlmodel import Session

from gateway.api.access import Right, ThisRequest
from gateway.api.idempotency import Answer, IdempotencyKey, once
from gateway.api.problems import Problem
from gateway.api.route import PREFIX, new_router, operation
from gateway.api.schemas import (
    Amount,
    Body,
    Currency,
    Id,
    IdInPath,
    Reference,
    Said,
    example,
    found,
)
from gateway.clock import day_of
from gateway.db import execute, snapshot
from gateway.dues.campaigns import MONTHS_MAX, campaigns
from gateway.dues.conditions import Because
from gateway.dues.instalments import InstalmentState, PlanStanding
from gateway.errors import Unusable
from gateway.money import CURRENCY, format_amount
from gateway.process import signing_key
from gateway.relief.plans import PlanView, make_plan, plans_of, read_plan

router: APIRouter = new_router("plans")


def campaign_codes() -> list[str]:
    """Return the campaigns of the self-employed that this installation's file has."""
    return [each.code for each in campaigns().campaign if each.whose == "self-employed"]


def _as_campaign(value: object) -> str:
    if isinstance(value, str) and value in campaign_codes():
        return value
    raise PydanticCustomError("enum", "no campaign", {"expected": ", ".join(campaign_codes())})


def _as_whole(value: object) -> object:
    """Return a JSON number without a fraction as a whole one: to JSON, 12.0 is 12."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise PydanticCustomError("int_type", "no whole number")


_LONGEST: Final = max(rule.span.months_max for rule in campaigns().plan)

Months = Annotated[
    int,
    Field(
        ge=1,
        le=MONTHS_MAX,
        description="How many instalments. `maximum` is what the rules of the campaigns file allow;"
        " beyond what the one in force allows: 409 `plan_refused`.",
        json_schema_extra={"maximum": _LONGEST},
    ),
    BeforeValidator(_as_whole),
]

CampaignCode = Annotated[
    str,
    BeforeValidator(_as_campaign),
    Field(
        description="One of the campaigns file's campaigns.",
        json_schema_extra={"enum": campaign_codes()},
    ),
]

_EXAMPLE: Final[dict[str, Any]] = {
    "id": "12",
    "reference": "148275036141",
    "contributor_id": "1042",
    "status": "running",
    "since": None,
    "because": None,
    "made_on": "2026-11-18",
    "months": 2,
    "amount": "327.06",
    "paid": "0.00",
    "due": "327.06",
    "currency": "MAD",
    "campaign": None,
    "invoices": ["148275036238", "148275036335"],
    "instalments": [
        {"due_on": "2026-12-31", "amount": "163.53", "due": "163.53", "status": "due"},
        {"due_on": "2027-01-31", "amount": "163.53", "due": "163.53", "status": "due"},
    ],
}


class PlanInstalment(Said):
    """What a plan asks for by a day."""

    due_on: date
    amount: Amount
    due: Amount = Field(description="What of it is unpaid.")
    status: InstalmentState = Field(
        description="`kept`: paid. `due`: its day has not passed. `late`: it has, and something is"
        " unpaid."
    )


class Plan(Said):
    """What a person was late with, spread over months."""

    model_config = example(**_EXAMPLE)

    id: Id
    reference: Reference = Field(
        description="To pay by: what came due since goes first, then what the plan spreads."
    )
    contributor_id: Id
    status: PlanStanding = Field(
        description="`running`. `late`: an instalment or a current due is late and can be made"
        " good. `kept`: all is paid. `broken`: all is owed as if it had never been."
    )
    since: date | None = Field(description="The day it was kept or broken.")
    because: Because | None = Field(description="Why it was broken.")
    made_on: date
    months: int
    amount: Amount = Field(description="What it spreads: the sum of its instalments.")
    paid: Amount
    due: Amount
    currency: Currency = CURRENCY
    campaign: str | None = Field(description="The campaign whose remission rests on it.")
    invoices: list[Reference] = Field(description="What it spreads, oldest first.")
    instalments: list[PlanInstalment]


class Plans(Said):
    """All plans of a person, the oldest first."""

    data: list[Plan]


class NewPlan(Body):
    """Over how many months to spread what is late."""

    model_config = example(months=12, campaign=None)

    months: Months
    campaign: CampaignCode | None = Field(
        None, description="The campaign whose condition the plan is to be."
    )


@router.get("/contributors/{id}/plans", **operation(Right.READ_PLANS, "contributor_not_found"))
def list_plans(asked: ThisRequest, contributor_id: IdInPath) -> Plans:
    """List a person's plans as they stand today, ended ones too."""
    with snapshot() as session:
        _refuse_unknown(session, int(contributor_id))
        views = plans_of(session, int(contributor_id), on=day_of(asked.now))
    return Plans(data=[_said(view) for view in views])


@router.post(
    "/contributors/{id}/plans",
    status_code=201,
    response_model=Plan,
    **operation(
        Right.WRITE_PLANS,
        "contributor_not_found",
        "plan_refused",
        "idempotency_key_reused",
        body=True,
    ),
)
def make(
    asked: ThisRequest, contributor_id: IdInPath, body: NewPlan, key: IdempotencyKey = None
) -> Response:
    """Spread all that a person is late with over months; one plan at a time."""

    def act(session: Session) -> Answer:
        person = int(contributor_id)
        _refuse_unknown(session, person)
        try:
            view = make_plan(
                session, person, body.months, body.campaign, key=signing_key(), now=asked.now
            )
        except Unusable as error:
            raise Problem("plan_refused", str(error)) from None
        return Answer(_said(view), 201, {"Location": f"{PREFIX}/plans/{view.id}"})

    return once(asked, key, act)


@router.get("/plans/{id}", **operation(Right.READ_PLANS, "plan_not_found"))
def read(asked: ThisRequest, plan_id: IdInPath) -> Plan:
    """Read one plan as it stands today."""
    with snapshot() as session:
        view = read_plan(session, int(plan_id), on=day_of(asked.now))
    return _said(found(view, "plan_not_found"))


def _refuse_unknown(session: Session, contributor_id: int) -> None:
    query = "SELECT id FROM contributor WHERE id = :id"
    found(execute(session, query, {"id": contributor_id}).one_or_none(), "contributor_not_found")


def _said(view: PlanView) -> Plan:
    state = view.state
    return Plan(
        id=str(view.id),
        reference=view.reference,
        contributor_id=str(view.contributor_id),
        status=state.standing,
        since=state.since,
        because=state.because,
        made_on=view.made_on,
        months=view.months,
        amount=format_amount(view.amount_minor),
        paid=format_amount(state.paid_minor),
        due=format_amount(state.unpaid_minor),
        campaign=view.campaign,
        invoices=list(view.invoices),
        instalments=[
            PlanInstalment(
                due_on=each.instalment.due_on,
                amount=format_amount(each.instalment.amount_minor),
                due=format_amount(each.unpaid_minor),
                status=each.state,
            )
            for each in state.instalments
        ],
    )
