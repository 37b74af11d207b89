"""`/v1/attempts`: send a payer out to pay: to a page, to an agency with a code, or to his phone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field
from sqlmodel import Session

from gateway import process
from gateway.api.access import Asked, Right, ThisRequest
from gateway.api.bundles import refuse_after_misses
from gateway.api.idempotency import Answer, IdempotencyKey, once_beside
from gateway.api.limits import seconds_after_miss, seconds_until_look_up
from gateway.api.problem_kinds import FIELD_CODES
from gateway.api.problems import FieldError, Problem
from gateway.api.route import PREFIX, new_router, operation
from gateway.api.schemas import Amount, Body, Currency, Reference, Said, example, found
from gateway.billing.bundle_presentment import present_bundle
from gateway.billing.presentment import present
from gateway.collection.attempt_rows import Attempt, find_attempt, latest_attempt
from gateway.collection.attempts import Begun, Step, begin, page_providers
from gateway.db import snapshot
from gateway.errors import ProviderAway, ProviderRefused
from gateway.institution import institution
from gateway.models import AttemptState, Channel, Manner
from gateway.money import CURRENCY, format_amount
from gateway.papers.notice import PAYABLE
from gateway.providers import PageProvider
from gateway.references import is_reference
from gateway.registers.phones import read_mobile
from gateway.settings import settings
from gateway.words.catalogs import Language

AWAY_SECONDS: Final = 60

router: APIRouter = new_router("attempts")


class NextStep(StrEnum):
    """What the payer does next."""

    PAGE = "page"
    FORM = "form"
    CODE = "code"
    WAIT = "wait"
    NOTHING = "nothing"


class AttemptStatus(StrEnum):
    """How an attempt stands."""

    OPEN = "open"
    PAID = "paid"
    CLOSED = "closed"
    IN_DOUBT = "in_doubt"


class FormField(Said):
    """A field that the payer's browser posts."""

    name: str
    value: str


class AttemptLinks(Said):
    """Where its payer sees it."""

    page: str
    code: str | None = Field(description="What to do with the code, to show and to print.")


class AttemptRecord(Said):
    """A payer who was sent out to pay."""

    model_config = example(
        id="wasl_5f0c2f1e6f0e4b529c1d6a1f0f3f2a11",
        reference="148275036141",
        provider="orange",
        channel="wallet",
        amount="163.52",
        currency="MAD",
        status="open",
        step="page",
        url="https://pay.example.ma/p/7f3a",
        fields=[],
        code=None,
        made_at="2026-11-18T11:06:40Z",
        expires_at="2026-11-18T12:06:40Z",
        links={"page": "https://pay.example.ma/148275036141", "code": None},
    )

    id: str
    reference: Reference
    provider: str
    channel: Channel | None = Field(description="Null: the provider is switched off since.")
    amount: Amount
    currency: Currency = CURRENCY
    status: AttemptStatus = Field(
        description="`in_doubt`: it was closed, and its provider says that it is paid or being paid"
        " after all. `closed` is no promise that no money comes: what comes is booked."
    )
    step: NextStep = Field(
        description="`page`: the payer's browser goes to `url`. `form`: it posts `fields` there."
        " `code`: the payer says `code` at an agency. `wait`: the payer confirms on the phone, or"
        " what comes is awaited: ask again. `nothing`: it is over."
    )
    url: str | None
    fields: list[FormField] = Field(description="Told by the POST that begins, and never kept.")
    code: str | None
    made_at: datetime
    expires_at: datetime = Field(description="After this it takes no payment.")
    links: AttemptLinks


class NewAttempt(Body):
    """What to pay, and how."""

    model_config = example(reference="148275036141", channel="wallet", language="fr")

    reference: Reference = Field(description="Of an invoice, or of several together.")
    provider: Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,39}$")] | None = Field(
        None, description="By whom, by its name in the providers file.", examples=["orange"]
    )
    channel: Channel | None = Field(
        None, description="Or by what: then the first provider of it. Without either, the first."
    )
    language: Language = Field("fr", description="Of the payer: `fr` or `ar`.")
    phone: Annotated[str, Field(min_length=1, max_length=40)] | None = Field(
        None,
        description="The payer's Moroccan mobile number, where the provider asks on the phone."
        " It is passed on and kept nowhere: nor is an `Idempotency-Key` bound to it.",
        examples=["0612345678"],
    )


AttemptId = Annotated[
    str,
    Path(
        alias="id",
        pattern="^wasl_[0-9a-f]{32}$",
        description="As it was told.",
        examples=["wasl_5f0c2f1e6f0e4b529c1d6a1f0f3f2a11"],
    ),
]


@router.post(
    "/attempts",
    status_code=201,
    response_model=AttemptRecord,
    **operation(
        Right.BEGIN_ATTEMPTS,
        "reference_mistyped",
        "reference_not_found",
        "way_not_found",
        "nothing_due",
        "amount_above_ceiling",
        "attempt_undecided",
        "too_many_attempts",
        "provider_refused",
        "provider_away",
        "idempotency_key_reused",
        "too_many_misses",
        body=True,
    ),
)
def begin_attempt(asked: ThisRequest, body: NewAttempt, key: IdempotencyKey = None) -> Response:
    """Begin to pay what is due by a reference now. What is open already is answered again.

    The same request under its `Idempotency-Key` is answered how that attempt stands by then.
    """
    if not is_reference(body.reference):
        raise Problem("reference_mistyped")
    refuse_after_misses(seconds_until_look_up(asked.caller.key_id))
    provider = _way(body)
    phone = _phone(body, provider)
    with snapshot() as session:
        due_minor = _due(session, body.reference, asked.now)
    if due_minor is None:
        refuse_after_misses(seconds_after_miss(asked.caller.key_id))
        raise Problem("reference_not_found")

    def act() -> Answer:
        _refuse_above_ceiling(provider, due_minor)
        begun = _begun(asked, body, provider, phone)
        return _answer(begun.attempt_id, begun)

    def again(kept: bytes) -> Answer:
        return _answer(_Named.model_validate_json(kept).id)

    return once_beside(_without_phone(asked, body), key, act, again)


class _Named(BaseModel):
    """What is kept under an `Idempotency-Key`: codes and pages may be dead when it comes again."""

    id: str


def _answer(attempt_id: str, begun: Begun | None = None) -> Answer:
    """Return the answer to who began an attempt, as it stands now."""
    with snapshot() as session:
        attempt = find_attempt(session, attempt_id)
    made = said(found(attempt, "attempt_not_found"), begun)
    location = {"Location": f"{PREFIX}/attempts/{made.id}"}
    # A form is made again for who asks again.
    return Answer(made, 201, location, kept=_Named(id=made.id), stored=not made.fields)


@router.get("/attempts/{id}", **operation(Right.READ_ATTEMPTS, "attempt_not_found"))
def read_attempt(asked: ThisRequest, attempt_id: AttemptId) -> AttemptRecord:  # noqa: ARG001
    """Say how an attempt stands."""
    with snapshot() as session:
        return said(found(find_attempt(session, attempt_id), "attempt_not_found"))


def said(attempt: Attempt, begun: Begun | None = None) -> AttemptRecord:
    """Return an attempt as it is answered.

    Args:
        attempt: As it stands.
        begun: What beginning it has just told: forms are kept nowhere.
    """
    status = _status(attempt)
    fields = [FormField(name=n, value=v) for n, v in (begun.fields if begun else ())]
    url = (begun.url if begun else "") or attempt.page_url or None
    provider = next((p for p in _providers() if p.name == attempt.provider), None)
    is_open = status is AttemptStatus.OPEN
    page = settings().payer_link(attempt.reference)
    code = attempt.code if is_open else None
    return AttemptRecord(
        id=attempt.id,
        reference=attempt.reference,
        provider=attempt.provider,
        channel=provider.channel if provider else None,
        amount=format_amount(attempt.amount_minor),
        status=status,
        step=_step(attempt, status, form=bool(fields)),
        url=url if is_open and attempt.manner is not Manner.PUSH else None,
        fields=fields,
        code=code,
        made_at=attempt.made_at,
        expires_at=attempt.expires_at,
        links=AttemptLinks(page=page, code=f"{page}/code" if code else None),
    )


def _status(attempt: Attempt) -> AttemptStatus:
    if attempt.awaited:
        return AttemptStatus.IN_DOUBT
    by_state = {AttemptState.PAID: AttemptStatus.PAID, AttemptState.CLOSED: AttemptStatus.CLOSED}
    return by_state.get(attempt.state, AttemptStatus.OPEN)


def _step(attempt: Attempt, status: AttemptStatus, *, form: bool) -> NextStep:
    if status is AttemptStatus.IN_DOUBT:
        return NextStep.WAIT
    if status is not AttemptStatus.OPEN:
        return NextStep.NOTHING
    if attempt.manner is Manner.PAGE:
        return NextStep.FORM if form else NextStep.PAGE if attempt.page_url else NextStep.WAIT
    return NextStep.CODE if attempt.manner is Manner.TOKEN else NextStep.WAIT


def _providers() -> list[PageProvider]:
    return page_providers(process.providers())


def _way(body: NewAttempt) -> PageProvider:
    """Return the provider that a body asks for.

    Raises:
        Problem: There is none, or its channel is not the one asked for.
    """
    able = [p for p in _providers() if body.provider in (None, p.name)]
    able = [p for p in able if body.channel in (None, p.channel)]
    if not able:
        raise Problem("way_not_found")
    return able[0]


def _phone(body: NewAttempt, provider: PageProvider) -> str:
    if provider.manner is not Manner.PUSH:
        return ""
    phone = read_mobile(body.phone or "")
    if phone is None:
        code = "missing" if body.phone is None else "malformed"
        sentence = FIELD_CODES["missing"] if body.phone is None else "It is no Moroccan mobile."
        raise Problem("invalid_body", "Mend phone.", errors=[FieldError("phone", code, sentence)])
    return phone


def _refuse_above_ceiling(provider: PageProvider, due_minor: int) -> None:
    """Raise a Problem where no account that a provider takes may hold what is due."""
    ceiling = institution().exceeded(provider.channel, due_minor)
    if ceiling is not None:
        due, most = format_amount(due_minor), format_amount(ceiling)
        raise Problem("amount_above_ceiling", f"{due} {CURRENCY} is due, and {most} the most.")


def _begun(asked: Asked, body: NewAttempt, provider: PageProvider, phone: str) -> Begun:
    try:
        begun = begin(
            process.providers(),
            body.reference,
            due_minor=lambda session: _due(session, body.reference, asked.now) or 0,
            language=body.language,
            link=settings().payer_link(body.reference),
            clock=process.business_clock(),
            way=provider.name,
            phone=phone,
        )
    except ProviderRefused:
        raise Problem("provider_refused") from None
    except ProviderAway:
        raise Problem("provider_away", headers={"Retry-After": str(AWAY_SECONDS)}) from None
    match begun.step:
        case Step.NOTHING_DUE:
            raise Problem("nothing_due")
        case Step.TOO_OFTEN:
            raise Problem("too_many_attempts", headers={"Retry-After": "3600"})
        case Step.UNKNOWN:
            raise Problem("attempt_undecided", headers=_hindrance(body.reference))
    return begun


def _hindrance(reference: str) -> Mapping[str, str]:
    """Name the attempt that stands in the way, if it is of the reference that was asked for."""
    with snapshot() as session:
        known = latest_attempt(session, reference)
    if known is None or known.reference != reference:
        return {}
    return {"Location": f"{PREFIX}/attempts/{known.id}"}


def _due(session: Session, reference: str, now: datetime) -> int | None:
    """Return what is to be paid by a reference now, in centimes; None: nobody bears it."""
    months = institution().validity.months
    fresh = present(session, reference, now=now, validity_months=months) or present_bundle(
        session, reference, now=now, validity_months=months
    )
    if fresh is None:
        return None
    return fresh.due_minor if fresh.standing in PAYABLE else 0


def _without_phone(asked: Asked, body: NewAttempt) -> Asked:
    """Return the request bound to all that it says but the number, of which nothing is kept."""
    kept: dict[str, Any] = body.model_dump(mode="json", exclude={"phone"})
    bound = f"{asked.path}\n{json.dumps(kept, sort_keys=True)}".encode()
    return replace(asked, request_sha256=sha256(bound).digest())
