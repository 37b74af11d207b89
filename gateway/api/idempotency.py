"""`Idempotency-Key`: a request that is sent again gets the answer of the first, and does nothing.

The answer is stored in the transaction of its effect, so there is never the one without the other.
A request that was refused had no effect and is not stored: mended, it may use its key again.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import Header, Response
from pydantic import BaseModel
from sqlmodel import Session

from gateway.api.access import Asked
from gateway.api.problems import Problem
from gateway.db import execute, transaction
from gateway.models import IdempotentAnswer

REPLAYED: Final = "Idempotency-Replayed"

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern="^[!-~]{1,255}$",
        description="Yours, a UUID for instance: the same request again under it does nothing and"
        " gets the first answer, for seven days.",
        examples=["5f0c2f1e-6f0e-4b52-9c1d-6a1f0f3f2a11"],
    ),
]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation answers."""

    said: BaseModel
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    kept: BaseModel | None = None
    """What the same request again is answered, where that is not the same: without a secret. By
    `once_beside`: what that answer is made of."""
    stored: bool = True
    """Whether any of it may be stored; asked by `once_beside` only."""


def once(asked: Asked, key: str | None, act: Callable[[Session], Answer]) -> Response:
    """Do something and answer; under a key that was used for this very request, answer only.

    Opens the one transaction that the effect and its stored answer are in. Of two at once under
    one key, one waits for the other.

    Raises:
        Problem: The key was used for another request; or what the action raises.
    """
    with transaction() as session:
        if key is not None:
            _take_turns(session, asked, key)
            kept = session.get(IdempotentAnswer, (asked.caller.key_id, key))
            if kept is not None:
                return _again(kept, asked)
        answer = act(session)
        body = _as_sent(answer.said)
        if key is not None:
            session.add(
                IdempotentAnswer(
                    api_key_id=asked.caller.key_id,
                    idempotency_key=key,
                    request_sha256=asked.request_sha256,
                    status=answer.status,
                    headers=dict(answer.headers),
                    body=_as_sent(answer.kept or answer.said),
                    answered_at=asked.now,
                )
            )
    return Response(body, answer.status, dict(answer.headers), "application/json")


def _as_sent(said: BaseModel) -> bytes:
    return said.model_dump_json(by_alias=True).encode()


def once_beside(
    asked: Asked, key: str | None, act: Callable[[], Answer], again: Callable[[bytes], Answer]
) -> Response:
    """As `once`, for what asks others over the network, and so is done in no transaction.

    The key is bound to its request before anything is done, and let go where that is refused. What
    is done must come to the same however often it is done: of two at once, both may do it, and so
    does the next where the first was killed, or did not learn what came of it.

    Args:
        asked: The request.
        key: Its `Idempotency-Key`.
        act: Does it. Of its answer only `kept` is kept, and nothing if it is not to be `stored`.
        again: Makes the answer of a request that comes again, as things stand then, from that.

    Raises:
        Problem: As `once`.
    """
    if key is None:
        return _sent(act())
    with transaction() as session:
        kept = _bound(session, asked, key)
    if kept:
        return _sent(again(kept), {REPLAYED: "true"})
    try:
        answer = act()
    except Problem as problem:
        if problem.kind.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            with transaction() as session:
                execute(session, f"DELETE FROM idempotent_answer {_UNANSWERED}", _own(asked, key))
        raise
    if answer.stored:
        with transaction() as session:
            _keep(session, asked, key, answer)
    return _sent(answer)


def _bound(session: Session, asked: Asked, key: str) -> bytes:
    """Bind a key to its request; return what is kept of its answer, empty if it has none yet."""
    _take_turns(session, asked, key)
    kept = session.get(IdempotentAnswer, (asked.caller.key_id, key))
    if kept is None:
        _keep(session, asked, key, None)
        return b""
    if not hmac.compare_digest(kept.request_sha256, asked.request_sha256):
        raise Problem("idempotency_key_reused")
    return kept.body


def _keep(session: Session, asked: Asked, key: str, answer: Answer | None) -> None:
    """Keep what an answer is made of again; None: there is none yet, and the key is bound only."""
    execute(
        session,
        "INSERT INTO idempotent_answer AS a (api_key_id, idempotency_key, request_sha256, status,"
        " headers, body, answered_at) VALUES (:holder, :key, :request, :status, '{}', :body, :now)"
        " ON CONFLICT (api_key_id, idempotency_key) DO UPDATE SET status = excluded.status,"
        " body = excluded.body WHERE a.request_sha256 = excluded.request_sha256 AND a.body = ''",
        {
            **_own(asked, key),
            "status": answer.status if answer else 0,
            "body": _as_sent(answer.kept or answer.said) if answer else b"",
            "now": asked.now,
        },
    )


_UNANSWERED: Final = (
    "WHERE api_key_id = :holder AND idempotency_key = :key AND request_sha256 = :request"
    " AND body = ''"
)


def _own(asked: Asked, key: str) -> dict[str, Any]:
    return {"holder": asked.caller.key_id, "key": key, "request": asked.request_sha256}


def _sent(answer: Answer, more: Mapping[str, str] | None = None) -> Response:
    headers = {**answer.headers, **(more or {})}
    return Response(_as_sent(answer.said), answer.status, headers, "application/json")


def _take_turns(session: Session, asked: Asked, key: str) -> None:
    execute(
        session,
        "SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))",
        {"name": f"wasl answer {asked.caller.key_id} {key}"},
    )


def _again(kept: IdempotentAnswer, asked: Asked) -> Response:
    if not hmac.compare_digest(kept.request_sha256, asked.request_sha256):
        raise Problem("idempotency_key_reused")
    headers = {**kept.headers, REPLAYED: "true"}
    return Response(kept.body, kept.status, headers, "application/json")
