"""`POST /webhooks/{provider}`: authenticate the raw bytes, store, answer, act later.

And the calls of those whose sender waits, wherever theirs are: each is answered in a thread.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.bodies import BodyCutOff, BodyTooLarge, BodyTooSlow, take_body
from gateway.errors import BadSignature
from gateway.providers import WebhookProvider
from gateway.providers.calls import AnsweringProvider, Call
from gateway.providers.registry import Providers
from gateway.wirejson import UnreadableJson, read_json
from webhooks.answering import Answerer, answer
from webhooks.intake import Arrival, Intake, StoreUnavailable

BODY_BYTES_MAX: Final = 256 * 1024
BODY_SECONDS_MAX: Final = 20.0


def _answer(status: int, sentence: str, **headers: str) -> Response:
    return JSONResponse({"detail": sentence}, status, headers=headers)


def webhook_routes(providers: Providers, intake: Intake, answerer: Answerer) -> list[Route]:
    """Return the routes. What a delivery gets that nobody waits for:

    404 unknown provider; 413 over BODY_BYTES_MAX; 408 a body that does not come; 400 not authentic
    (nothing kept but a counter), or authentic and not JSON in UTF-8 (kept); 503 not known to be
    stored, come again; 202 stored, whatever it says.
    """
    stored = {name: p for name, p in providers.items() if isinstance(p, WebhookProvider)}
    waiting = {name: p for name, p in providers.items() if isinstance(p, AnsweringProvider)}

    async def receive(request: Request) -> Response:
        name = request.path_params["provider"]
        if name in waiting and waiting[name].prefix == "webhooks":
            return await _answered(request, waiting[name], answerer)
        provider = stored.get(name)
        if provider is None:
            return _answer(404, "There is no such provider.")
        body = await _body(request)
        if isinstance(body, Response):
            return body
        return await _store(provider, request, body, intake, answerer.clock())

    def call(provider: AnsweringProvider) -> Route:
        async def answered(request: Request) -> Response:
            return await _answered(request, provider, answerer)

        address = f"/{provider.prefix}/{provider.name}/{{path:path}}"
        return Route(address, answered, methods=["GET", "POST", "PUT", "DELETE"])

    return [
        Route("/webhooks/{provider}", receive, methods=["POST"]),
        *(call(p) for p in waiting.values() if p.prefix != "webhooks"),
    ]


async def _store(
    provider: WebhookProvider, request: Request, body: bytes, intake: Intake, now: datetime
) -> Response:
    try:
        delivery_id = provider.authenticate(request.headers, body, now=now)
    except BadSignature as error:
        intake.count_refused(provider.name)
        return _answer(400, f"The delivery is not authentic: {error}.")
    readable = True
    try:
        read_json(body)
    except UnreadableJson:
        readable = False
    try:
        await intake.store(Arrival(provider.name, delivery_id, body, readable, now))
    except StoreUnavailable:
        return _answer(503, "The delivery is not stored; send it again.", **{"Retry-After": "5"})
    if not readable:
        return _answer(400, "The delivery is authentic, but its body is not JSON in UTF-8.")
    return _answer(202, "Stored.")


async def _answered(request: Request, provider: AnsweringProvider, answerer: Answerer) -> Response:
    body = await _body(request)
    if isinstance(body, Response):
        return body
    call = Call(
        method=request.method,
        path=request.path_params.get("path", "").strip("/"),
        query=dict(request.query_params),
        headers=dict(request.headers),
        body=body,
        received_at=answerer.clock(),
    )
    reply = await run_in_threadpool(answer, answerer, provider, call)
    return Response(reply.body, reply.status, reply.headers, reply.media_type)


async def _body(request: Request) -> bytes | Response:
    """Return the body, or the answer to one that is too large or does not come."""
    try:
        return await take_body(request, bytes_max=BODY_BYTES_MAX, seconds_max=BODY_SECONDS_MAX)
    except BodyTooLarge:
        return _answer(413, f"A body has at most {BODY_BYTES_MAX} bytes.", Connection="close")
    except BodyTooSlow:
        return _answer(408, "The body did not come in time.", Connection="close")
    except BodyCutOff:
        return _answer(400, "The body was cut off.")
