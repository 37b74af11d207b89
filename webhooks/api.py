"""`/v1/deliveries` and `/v1/replays`: what providers sent, what became of it, and acting again.

Bodies are shown with what is personal masked, to whoever may resolve what they are about; nobody
needs a payer's name to operate the hub.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field
from sqlmodel import Session

from gateway.api.access import Asked, Right, ThisRequest
from gateway.api.idempotency import Answer, IdempotencyKey, once
from gateway.api.paging import Page, Paged, first_after, paged
from gateway.api.problems import FieldError, Problem
from gateway.api.route import PREFIX, new_router, operation
from gateway.api.schemas import (
    LINE_PATTERN,
    Because,
    Body,
    Day,
    Id,
    IdInPath,
    Said,
    end_of,
    example,
    found,
    refuse_reversed,
    start_of,
)
from gateway.db import snapshot
from gateway.errors import Unusable
from gateway.reasons import kept_reason
from webhooks.deliveries import UNREADABLE, Choice, list_deliveries, read_delivery
from webhooks.models import CallbackState, DeliveryState
from webhooks.replay import (
    CHOSEN_MAX,
    Ordered,
    TooWide,
    count_chosen,
    order_replay,
    read_replay,
)

router: APIRouter = new_router("deliveries")

_PROVIDER: Final = "^[a-z][a-z0-9-]{0,39}$"
_OUTCOME: Final = "^[a-z][a-z_]{0,63}$"
_ID_MAX: Final = 600

ProviderName = Annotated[str, Field(pattern=_PROVIDER, examples=["cashplus"])]
DeliveryId = Annotated[
    str, Field(max_length=_ID_MAX, pattern=LINE_PATTERN, description="The provider's own.")
]
Outcome = Annotated[
    str, Field(pattern=_OUTCOME, description="As answers have it.", examples=["quarantined"])
]
ProviderInPath = Annotated[
    str, Path(pattern=_PROVIDER, description="As the providers file names it.")
]
DeliveryIdInPath = Annotated[
    str, Path(max_length=_ID_MAX, pattern=LINE_PATTERN, description="The provider's own.")
]

_SUMMARY: Final[dict[str, Any]] = {
    "provider": "cashplus",
    "delivery_id": "msg_2Lh9",
    "state": "parked",
    "outcome": None,
    "received_at": "2026-11-18T11:06:42Z",
    "processed_at": None,
    "attempts": 6,
    "last_error": "KeyError: 'amount'",
    "bytes": 318,
    "masked_at": None,
}
_REPLAYED: Final[dict[str, Any]] = {
    "id": "3",
    "asked_by": "k7f2 (back office)",
    "because": "The adapter was mended",
    "asked_at": "2026-11-18T15:00:00Z",
}


class DeliverySummary(Said):
    """What came under a provider's delivery id: the first body that could be read stands."""

    model_config = example(**_SUMMARY, variants=0)

    provider: str
    delivery_id: str
    state: Literal["waiting", "done", "parked", "unreadable"] = Field(
        description="`waiting`: stored, not acted on yet. `parked`: failed too often, in no book."
        " `unreadable`: nothing came under this id that could be read; lists have none of these."
    )
    outcome: str | None = Field(description="What it came to, once it is done.")
    received_at: datetime
    processed_at: datetime | None
    attempts: int = Field(description="How often it failed.")
    last_error: str | None = Field(description="Why it failed the last time.")
    bytes: int = Field(description="Of its body, as it is kept.")
    masked_at: datetime | None = Field(
        description="When what is personal in its body was taken out, for good."
    )
    variants: int = Field(description="Other bodies that came under its id.")


class Variant(Said):
    """Another body under a delivery's id; it moves no money."""

    received_at: datetime
    readable: bool
    bytes: int
    sha256: str
    processed_at: datetime | None
    masked_at: datetime | None


class Answered(Said):
    """What its sender, who waited, was told: it stands, whatever is replayed."""

    ticket: str | None
    status: int
    media_type: str
    answered_at: datetime


class CalledBack(Said):
    """The word that we owed its sender."""

    state: CallbackState
    attempts: int
    last_error: str | None
    made_at: datetime
    ended_at: datetime | None


class Replayed(Said):
    """An order by which it was acted on again, or will be."""

    id: Id
    asked_by: str
    because: str
    asked_at: datetime
    outcome: str | None = Field(description="What it came to this time; null until then.")
    processed_at: datetime | None


class Delivery(Said):
    """A delivery with all that became of it."""

    model_config = example(
        **_SUMMARY,
        variants=[],
        sha256="7d2366045cc7cad68976fc053048d700ffa7ddad3874add71a9b3388c1598121",
        retry_at=None,
        answer=None,
        callback=None,
        replays=[{**_REPLAYED, "outcome": None, "processed_at": None}],
        path=None,
        body='{"type": "payment.completed", "data": {"payer_name": "[masked]"}}',
    )

    provider: str
    delivery_id: str
    state: Literal["waiting", "done", "parked", "unreadable"]
    outcome: str | None
    received_at: datetime
    processed_at: datetime | None
    attempts: int
    last_error: str | None
    bytes: int
    masked_at: datetime | None
    variants: list[Variant]
    sha256: str = Field(description="Of the bytes that came, masked since or not.")
    retry_at: datetime | None = Field(
        description="When it is tried again, by the database's own clock."
    )
    answer: Answered | None = Field(description="Null where nobody waited.")
    callback: CalledBack | None
    replays: list[Replayed]
    path: str | None = Field(description="Of a call: what of its address says something.")
    body: str | None = Field(
        description="With what is personal masked. Null where the role may not see bodies, and"
        " where none could be read."
    )


class DeliveryFilters(Paged):
    """Which deliveries to list."""

    provider: ProviderName | None = None
    delivery_id: DeliveryId | None = None
    state: DeliveryState | None = None
    outcome: Outcome | None = None
    received_from: Day | None = Field(None, description="The first day, in Casablanca.")
    received_to: Day | None = Field(None, description="The last day, in Casablanca.")


class WhichDeliveries(Body):
    """Which deliveries, as they are now: all that is given must fit, and something must be."""

    model_config = example(provider="cashplus", state="parked")

    provider: ProviderName | None = None
    delivery_id: DeliveryId | None = None
    state: DeliveryState | None = None
    outcome: Outcome | None = None
    received_from: Day | None = Field(None, description="The first day, in Casablanca.")
    received_to: Day | None = Field(None, description="The last day, in Casablanca.")


class AskedReplay(Body):
    """Why a delivery is to be acted on again."""

    model_config = example(because="The adapter was mended")

    because: Because


class AskedReplays(AskedReplay):
    """Which deliveries are to be acted on again, and why."""

    model_config = example(
        because="The adapter was mended",
        filter={"provider": "cashplus", "state": "parked"},
        dry_run=True,
    )

    filter: WhichDeliveries
    dry_run: bool = Field(default=False, description="Say how many, and do nothing.")


class Replay(Said):
    """An order to act again on deliveries, and how far it is."""

    model_config = example(
        **_REPLAYED,
        dry_run=False,
        filter={"provider": "cashplus", "state": "parked"},
        chosen=12,
        waiting=1,
        outcomes={"booked": 9, "repeated": 1, "failed": 1},
    )

    id: Id | None = Field(description="Null of a `dry_run`: there is no order.")
    dry_run: bool
    asked_by: str = Field(description="The key, or the account that ran the command.")
    because: str
    asked_at: datetime
    filter: dict[str, str] = Field(description="As it is kept: days have become instants.")
    chosen: int = Field(description="How many deliveries.")
    waiting: int = Field(
        description="How many of them are still to be acted on; those of a provider that is"
        " switched off wait until it is switched on again."
    )
    outcomes: dict[str, int] = Field(
        description="What the others came to: as outcomes of deliveries; `repeated`: nothing new;"
        " `answer_stands`: its sender waited and was told; `masked`: what is left proves nothing"
        " new; `failed`: `last_error` says why."
    )


@router.get("/deliveries", **operation(Right.READ_DELIVERIES, "bad_cursor", "fields_contradict"))
def list_all(
    asked: ThisRequest, filters: Annotated[DeliveryFilters, Query()], response: Response
) -> Page[DeliverySummary]:
    """List what providers delivered, in the order in which it was stored."""
    choice = _choice(filters)
    after = first_after(asked, "deliveries", filters)
    with snapshot() as session:
        rows = list_deliveries(session, choice, after=after, limit=filters.limit + 1)
    return paged(asked, "deliveries", filters, rows, _summary, response)


@router.post(
    "/deliveries/{provider}/{delivery_id:path}/replay",
    status_code=201,
    response_model=Replay,
    **operation(
        Right.REPLAY_DELIVERIES,
        "delivery_not_found",
        "delivery_unreadable",
        "idempotency_key_reused",
        body=True,
    ),
)
def replay_one(
    asked: ThisRequest,
    provider: ProviderInPath,
    delivery_id: DeliveryIdInPath,
    body: AskedReplay,
    key: IdempotencyKey = None,
) -> Response:
    """Have a delivery acted on again. What it did once it does not do twice."""
    choice = Choice(provider=provider, delivery_id=delivery_id)
    why = _reason(body)

    def act(session: Session) -> Answer:
        said = read_delivery(session, provider, delivery_id, with_body=False)
        if found(said, "delivery_not_found")["state"] == UNREADABLE:
            raise Problem("delivery_unreadable")
        return _ordered(session, asked, choice, why)

    return once(asked, key, act)


@router.get(
    "/deliveries/{provider}/{delivery_id:path}",
    **operation(Right.READ_DELIVERIES, "delivery_not_found"),
)
def read_one(
    asked: ThisRequest, provider: ProviderInPath, delivery_id: DeliveryIdInPath
) -> Delivery:
    """Read one delivery: what it came to, what its sender was told, who had it replayed."""
    with snapshot() as session:
        with_body = asked.caller.may(Right.READ_BODIES)
        row = read_delivery(session, provider, delivery_id, with_body=with_body)
    return _said(found(row, "delivery_not_found"))


@router.post(
    "/replays",
    status_code=201,
    response_model=Replay,
    **operation(
        Right.REPLAY_DELIVERIES,
        "replay_too_wide",
        "fields_contradict",
        "idempotency_key_reused",
        body=True,
    ),
)
def replay_some(asked: ThisRequest, body: AskedReplays, key: IdempotencyKey = None) -> Response:
    """Have all deliveries that a filter chooses acted on again; `dry_run` only counts them."""
    choice = _choice(body.filter)
    why = _reason(body)

    def act(session: Session) -> Answer:
        try:
            if not body.dry_run:
                return _ordered(session, asked, choice, why)
            counted = Ordered(0, count_chosen(session, choice))
        except TooWide:
            sentence = f"The filter is empty, or chooses more than {CHOSEN_MAX} deliveries."
            raise Problem("replay_too_wide", sentence) from None
        return Answer(_new(counted, asked, choice, why, dry_run=True))

    return once(asked, key, act)


@router.get("/replays/{id}", **operation(Right.READ_DELIVERIES, "replay_not_found"))
def read_order(replay_id: IdInPath) -> Replay:
    """Read an order to act again: who asked and why, and what the deliveries came to so far."""
    with snapshot() as session:
        row = found(read_replay(session, int(replay_id)), "replay_not_found")
    return Replay(
        id=str(row["id"]),
        dry_run=False,
        asked_by=row["asked_by"],
        because=row["why"],
        asked_at=row["asked_at"],
        filter=row["chosen_by"],
        chosen=row["chosen"],
        waiting=row["waiting"],
        outcomes=row["outcomes"],
    )


def _choice(given: DeliveryFilters | WhichDeliveries) -> Choice:
    first, last = given.received_from, given.received_to
    refuse_reversed(first, last, "received_from", "received_to")
    return Choice(
        provider=given.provider,
        delivery_id=given.delivery_id,
        state=given.state,
        outcome=given.outcome,
        received_from=None if first is None else start_of(first),
        received_before=None if last is None else end_of(last),
    )


def _reason(body: AskedReplay) -> str:
    try:
        return kept_reason(body.because)
    except Unusable as error:
        wrong = [FieldError("because", "malformed", str(error))]
        raise Problem("invalid_body", f"Mend because: {error}", errors=wrong) from None


def _ordered(session: Session, asked: Asked, choice: Choice, why: str) -> Answer:
    ordered = order_replay(session, choice, asked_by=asked.caller.named, why=why, now=asked.now)
    said = _new(ordered, asked, choice, why)
    return Answer(said, 201, {"Location": f"{PREFIX}/replays/{ordered.id}"})


def _new(
    ordered: Ordered, asked: Asked, choice: Choice, why: str, *, dry_run: bool = False
) -> Replay:
    return Replay(
        id=None if dry_run else str(ordered.id),
        dry_run=dry_run,
        asked_by=asked.caller.named,
        because=why,
        asked_at=asked.now,
        filter=choice.as_json(),
        chosen=ordered.chosen,
        waiting=0 if dry_run else ordered.chosen,
        outcomes={},
    )


def _summary(row: Any) -> DeliverySummary:
    return DeliverySummary(**{name: row[name] for name in DeliverySummary.model_fields})


def _said(row: dict[str, Any]) -> Delivery:
    return Delivery(
        **{
            **{name: row[name] for name in Delivery.model_fields if name in row},
            "sha256": bytes(row["body_sha256"]).hex(),
            "variants": [
                Variant(**{**each, "sha256": bytes(each["body_sha256"]).hex()})
                for each in row["variants"]
            ],
            "answer": row["answer"] and Answered(**row["answer"]),
            "callback": row["callback"] and CalledBack(**row["callback"]),
            "replays": [
                Replayed(**{**each, "id": str(each["id"]), "because": each["why"]})
                for each in row["replays"]
            ],
        }
    )
