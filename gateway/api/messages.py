"""`/v1/contributors/{id}/messages`: whether a person wants to be told by telephone."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import Field
from sqlmodel import Session

from gateway.api.access import Right, ThisRequest
from gateway.api.idempotency import Answer, IdempotencyKey, once
from gateway.api.problems import Problem
from gateway.api.route import new_router, operation
from gateway.api.schemas import Because, Body, Id, IdInPath, Said, example, found
from gateway.db import execute
from gateway.errors import Unusable
from gateway.messages.stops import allow_messages, stop_messages

router: APIRouter = new_router("contributors")


class MessageWish(Body):
    """Whether a person wants messages, and whose word that is."""

    model_config = example(wanted=False, why="Asked at the agency on 18 November 2026")

    wanted: bool
    why: Because


class MessagesWanted(Said):
    """What holds from now on. No import of people changes it."""

    model_config = example(contributor_id="1042", wanted=False)

    contributor_id: Id = Field(description="Of the file that stands.")
    wanted: bool


@router.post(
    "/contributors/{id}/messages",
    response_model=MessagesWanted,
    **operation(
        Right.WRITE_CONTRIBUTORS,
        "contributor_not_found",
        "fields_contradict",
        "idempotency_key_reused",
        body=True,
    ),
)
def wish_messages(
    asked: ThisRequest, contributor_id: IdInPath, body: MessageWish, key: IdempotencyKey = None
) -> Response:
    """Say whether a person wants messages; those in line are dropped if not."""

    def act(session: Session) -> Answer:
        query = "SELECT coalesce(merged_into_id, id) FROM contributor WHERE id = :id"
        standing = execute(session, query, {"id": int(contributor_id)}).scalar_one_or_none()
        person = found(standing, "contributor_not_found")
        if body.wanted:
            allow_messages(session, person)
            return Answer(MessagesWanted(contributor_id=str(person), wanted=True))
        try:
            stop_messages(session, person, asked_by=asked.caller.named, why=body.why, now=asked.now)
        except Unusable as error:
            raise Problem("fields_contradict", str(error)) from None
        return Answer(MessagesWanted(contributor_id=str(person), wanted=False))

    return once(asked, key, act)
