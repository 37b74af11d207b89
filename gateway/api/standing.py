"""`/v1/contributors/{id}/standing`: who is up to date; and the attestation of it."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field
from sqlmodel import Session

from gateway.api.access import Asked, Right, ThisRequest
from gateway.api.idempotency import Answer, IdempotencyKey, once
from gateway.api.problems import FieldError, Problem
from gateway.api.route import PREFIX, new_router, operation
from gateway.api.schemas import (
    Amount,
    Body,
    Currency,
    Day,
    Id,
    IdInPath,
    Reference,
    Said,
    example,
    found,
)
from gateway.clock import day_of
from gateway.db import execute, snapshot
from gateway.dues.rights import Because, RightsState
from gateway.dues.tariff import tariff
from gateway.errors import Unusable
from gateway.institution import institution
from gateway.money import CURRENCY
from gateway.papers.attestation import attestation_pdf
from gateway.people import attestations
from gateway.people.attestations import Attestation, AttestationStanding, NotUpToDate
from gateway.people.standing import read_standing, refuse_far
from gateway.process import receipt_keys
from gateway.settings import settings

router: APIRouter = new_router("standing")

_RIGHTS_EXAMPLE: Final[dict[str, Any]] = {
    "state": "closed",
    "because": "unpaid",
    "since": "2026-11-01",
    "until": None,
    "reopens_on": "2026-11-18",
    "source": "law 98-15 as amended",
    "verified": False,
}
_ARREAR_EXAMPLE: Final[dict[str, Any]] = {
    "period": "2026-10",
    "reference": "148275036141",
    "due_on": "2026-10-31",
    "principal": "163.52",
    "penalty": "1.64",
    "fee": "0.00",
    "due": "165.16",
}


class Arrear(Said):
    """An invoice of which something is overdue."""

    model_config = example(**_ARREAR_EXAMPLE)

    period: str
    reference: Reference
    due_on: date
    principal: Amount
    penalty: Amount
    fee: Amount
    due: Amount


class Rights(Said):
    """Rights on the day."""

    model_config = example(**_RIGHTS_EXAMPLE)

    state: RightsState = Field(description="`waiting`: nothing is late, and they open later.")
    because: Because
    since: date | None
    until: date | None = Field(description="Of open rights: the last day, if nothing more is paid.")
    reopens_on: date | None = Field(
        description="When they open: of closed ones, if all that is late is paid on the day."
    )
    source: str = Field(description="Of the rule that decides.")
    verified: bool = Field(description="Whether a source for each figure of the rule was seen.")


class PlanInForce(Said):
    """An instalment plan that is neither at its end nor broken."""

    reference: Reference = Field(description="To pay it by.")
    made_on: date
    months: int
    amount: Amount


class Standing(Said):
    """Whether a person is up to date on a day, by all files of the person."""

    model_config = example(
        contributor_id="1042",
        on="2026-11-18",
        up_to_date=False,
        since="2026-11-01",
        arrears=[_ARREAR_EXAMPLE],
        total_due="165.16",
        currency="MAD",
        rights=_RIGHTS_EXAMPLE,
        unbilled=[],
        credit="0.00",
        plan=None,
    )

    contributor_id: Id = Field(description="Of the file that stands.")
    on: date
    up_to_date: bool = Field(
        description="Whether every contribution that was due before the day is paid, remitted, or"
        " in a plan that is kept. A penalty that is left is an arrear, and no more."
    )
    since: date | None = Field(description="Null: nothing was ever late.")
    arrears: list[Arrear] = Field(description="Oldest first.")
    total_due: Amount = Field(description="What paying the arrears on the day takes.")
    currency: Currency = CURRENCY
    rights: Rights
    unbilled: list[str] = Field(
        description="Periods that are owed and past due, and were never billed. While there is one"
        " nothing is attested."
    )
    credit: Amount = Field(description="What is held as the person's own now.")
    plan: PlanInForce | None


_ATTESTATION_EXAMPLE: Final[dict[str, Any]] = {
    "number": "A26-123456789",
    "contributor_id": "1042",
    "issued_on": "2026-11-18",
    "valid_until": "2026-12-31",
    "last_period": "2026-10",
    "standing": "stands",
    "links": {
        "pdf": "https://pay.example.ma/v1/attestations/A26-123456789.pdf",
        "verify": "https://pay.example.ma/verify/A26-123456789",
    },
}


class AttestationLinks(Said):
    """Where it is."""

    pdf: str = Field(description="The paper, with a key.")
    verify: str = Field(description="For everybody: is it genuine, and does it still stand.")


class AttestationSaid(Said):
    """The signed statement that a person was up to date on a day."""

    model_config = example(**_ATTESTATION_EXAMPLE)

    number: str
    contributor_id: Id
    issued_on: date
    valid_until: date
    last_period: str = Field(description="The last one that is settled.")
    standing: AttestationStanding
    links: AttestationLinks


class _StandingOn(Body):
    on: Day | None = Field(None, description="A day up to a year ahead; today if left out.")


_Number = Annotated[
    str, Path(pattern="^A[0-9]{2}-[0-9]{9}$", examples=["A26-123456789"], description="As printed.")
]


@router.get(
    "/contributors/{id}/standing",
    **operation(Right.READ_STANDING, "contributor_not_found", "fields_contradict"),
)
def read_contributor_standing(
    asked: ThisRequest, contributor_id: IdInPath, query: Annotated[_StandingOn, Query()]
) -> Standing:
    """Say whether a person is up to date, what is late, and whether rights are open."""
    today = day_of(asked.now)
    on = query.on or today
    try:
        refuse_far(on, today=today)
    except Unusable as error:
        errors = [FieldError("on", "out_of_range", str(error))]
        raise Problem("fields_contradict", errors=errors) from None
    with snapshot() as session:
        number = _seen(session, asked, contributor_id)
        standing = found(read_standing(session, number, tariff(), on=on), "contributor_not_found")
    return Standing.model_validate(standing.as_json())


@router.post(
    "/contributors/{id}/attestations",
    status_code=201,
    response_model=AttestationSaid,
    **operation(Right.ATTEST, "contributor_not_found", "not_up_to_date", "idempotency_key_reused"),
)
def attest_contributor(
    asked: ThisRequest, contributor_id: IdInPath, key: IdempotencyKey = None
) -> Response:
    """Attest that a person is up to date. Asked again on the same day: 200, the same one."""

    def act(session: Session) -> Answer:
        number = _seen(session, asked, contributor_id)
        try:
            made = attestations.attest(session, number, receipt_keys(), tariff(), now=asked.now)
        except NotUpToDate as error:
            raise Problem("not_up_to_date", str(error)) from None
        attestation, fresh = found(made, "contributor_not_found")
        address = f"{PREFIX}/attestations/{attestation.number}.pdf"
        return Answer(_said(attestation), 201 if fresh else 200, {"Location": address})

    return once(asked, key, act)


_PDF: Final = {"type": "string", "format": "binary"}
_reading: Final = operation(Right.READ_CONTRIBUTORS, "attestation_not_found")
_reading["responses"][200] = {
    "description": "The paper, as it stands now.",
    "content": {"application/pdf": {"schema": _PDF}},
}


@router.get("/attestations/{number}.pdf", response_class=Response, **_reading)
def read_attestation_paper(asked: ThisRequest, number: _Number) -> Response:
    """Return the paper, the name in full. One that stands no more says so."""
    with snapshot() as session:
        known = found(
            attestations.find(session, number, tariff(), now=asked.now), "attestation_not_found"
        )
        if not _may_see(session, asked, known.contributor_id):
            raise Problem("attestation_not_found")
    paper = attestation_pdf(known, settings=settings(), institution=institution(), now=asked.now)
    headers = {"Content-Disposition": f'inline; filename="{number}.pdf"'}
    return Response(paper, 200, headers, "application/pdf")


def _seen(session: Session, asked: Asked, contributor_id: str) -> int:
    """Return the number of a contributor whom the key may see.

    Raises:
        Problem: There is none.
    """
    if not _may_see(session, asked, int(contributor_id)):
        raise Problem("contributor_not_found")
    return int(contributor_id)


def _may_see(session: Session, asked: Asked, contributor_id: int) -> bool:
    seen: bool = execute(
        session,
        "SELECT EXISTS (SELECT FROM contributor WHERE id = :id"
        " AND (NOT :is_chamber OR region = :scope))",
        {
            "id": contributor_id,
            "is_chamber": asked.caller.is_chamber,
            "scope": asked.caller.scope,
        },
    ).scalar_one()
    return seen


def _said(known: Attestation) -> AttestationSaid:
    base = settings().base_url
    return AttestationSaid(
        number=known.number,
        contributor_id=str(known.contributor_id),
        issued_on=known.issued_on,
        valid_until=known.valid_until,
        last_period=known.period,
        standing=known.standing,
        links=AttestationLinks(
            pdf=f"{base}{PREFIX}/attestations/{known.number}.pdf",
            verify=settings().receipt_link(known.number),
        ),
    )
