"""Law 09-08: `/v1/contributors/{id}/extract` and `/v1/contributors/{id}/erasure`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field
from sqlmodel import Session

from gateway.api.access import Right, ThisRequest
from gateway.api.idempotency import Answer, IdempotencyKey, once
from gateway.api.problems import Problem
from gateway.api.route import new_router, operation
from gateway.api.schemas import Because, Body, Currency, Id, IdInPath, Said, example, found
from gateway.db import execute, snapshot
from gateway.errors import Unusable
from gateway.money import CURRENCY
from gateway.privacy import Holder, erasure
from gateway.privacy.erasure import NotErasable
from gateway.privacy.extract import extract

router: APIRouter = new_router("privacy")

# All bodies in the inbox are looked through: longer than any page may take.
_PATIENCE: Final = "SET LOCAL statement_timeout = '120s'"

_SECTION: Final[dict[str, Any]] = {
    "name": "invoices",
    "title": {"fr": "Factures", "ar": "الفواتير"},
    "purpose": {
        "fr": "Savoir qui doit des cotisations, et combien",
        "ar": "معرفة من تجب عليه الاشتراكات وكم تبلغ",
    },
    "kept": "With the books, which are never erased.",
    "rows": [{"reference": "148275036141", "period": "2026-11", "amount": "163.52"}],
}


class InLanguages(Said):
    """A text in both languages."""

    model_config = example(fr="Factures", ar="الفواتير")

    fr: str
    ar: str


class ExtractSection(Said):
    """Some of what is held, with what it is for and how long it is kept."""

    model_config = example(**_SECTION)

    name: str
    title: InLanguages
    purpose: InLanguages
    kept: str
    rows: list[dict[str, Any]] = Field(
        description="Amounts as decimal texts, instants with their offset. Fields as they are kept."
    )


class Extract(Said):
    """All that is held about a person, in a form that can be handed to the person."""

    model_config = example(
        contributor_id="1042",
        made_at="2026-11-18T12:06:40+01:00",
        law="09-08",
        currency="MAD",
        sections=[_SECTION],
        left_out=["Other people's parts of what is shared."],
    )

    contributor_id: Id = Field(description="Of the file that stands.")
    made_at: datetime
    law: str
    currency: Currency = CURRENCY
    sections: list[ExtractSection] = Field(description="Those that hold nothing, too.")
    left_out: list[str] = Field(description="What is not listed, and why.")


class AskedErasure(Body):
    """Why a person's data are to be erased."""

    model_config = example(why="Request of 18 November 2026, by letter")

    why: Because


class ErasureDone(Said):
    """What an erasure emptied."""

    model_config = example(
        contributor_id="1042",
        erased_at="2026-11-18T11:06:40Z",
        found={"contributor": 1, "institution_record": 12, "webhook_delivery": 12},
    )

    contributor_id: Id = Field(description="Of the file that stood.")
    erased_at: datetime
    found: dict[str, int] = Field(
        description="How many rows of each kind were emptied; under `left:`, how many still name"
        " the person in what never changes."
    )


@router.get("/contributors/{id}/extract", **operation(Right.READ_EXTRACTS, "contributor_not_found"))
def read_extract(asked: ThisRequest, contributor_id: IdInPath, request: Request) -> Extract:
    """Read all that is held about a person, to be handed to the person (law 09-08)."""
    with snapshot() as session:
        execute(session, _PATIENCE)
        made = extract(session, int(contributor_id), _holders(request), now=asked.now)
    return Extract.model_validate(found(made, "contributor_not_found").as_json())


@router.post(
    "/contributors/{id}/erasure",
    response_model=ErasureDone,
    **operation(
        Right.ERASE,
        "contributor_not_found",
        "not_erasable",
        "fields_contradict",
        "idempotency_key_reused",
        body=True,
    ),
)
def erase_contributor(
    asked: ThisRequest,
    contributor_id: IdInPath,
    body: AskedErasure,
    request: Request,
    key: IdempotencyKey = None,
) -> Response:
    """Erase what names a person who has left, once the set time has passed; the books stand.

    There is no way back.
    """

    def act(session: Session) -> Answer:
        execute(session, _PATIENCE)
        try:
            done = erasure.erase(
                session,
                int(contributor_id),
                _holders(request),
                asked_by=asked.caller.named,
                why=body.why,
                now=asked.now,
            )
        except NotErasable as error:
            raise Problem("not_erasable", str(error)) from None
        except Unusable as error:
            raise Problem("fields_contradict", str(error)) from None
        return Answer(ErasureDone(**found(done, "contributor_not_found").as_json()))

    return once(asked, key, act)


def _holders(request: Request) -> Sequence[Holder]:
    """Return who else holds data of people, as the application was put together with them."""
    holders: Sequence[Holder] = request.app.state.holders
    return holders
