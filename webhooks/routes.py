"""`POST /webhooks/{provider}`: authenticate the raw bytes, store, answer, act later.

And the calls of those whose sender waits, wherever theirs are: each is answered in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.bodies import BodyCutOff, BodyTooLarge, BodyTooSlow, read_body
from gateway.clock import Clock
from gateway.errors import BadSignature
from gateway.providers import WebhookProvider
from gateway.providers.calls import AnsweringProvider, Call
from gateway.providers.registry import Providers
from gateway.wirejson import is_json
from webhooks.answering import Answerer, answer
from webhooks.intake import Arrival, Intake, StoreUnavailable

BODY_BYTES_MAX: Final = 256 * 1024
BODY_SECONDS_MAX: Final = 20.0
_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
"""What a sender who waits may try: it is answered in its own words."""


def _answer(status: int, sentence: str, **headers: str) -> Response:
    return JSONResponse({"detail": sentence}, status, headers=headers)


STORED: Final = _answer(202, "Stored.")


def webhook_routes(providers: Providers, intake: Intake, answerer: Answerer) -> list[Route]:
    """Return the routes: that of deliveries first, then those of calls whose sender waits."""
    stored = deliveries(providers, intake, answerer.clock)
    waiting = {name: p for name, p in providers.items() if isinstance(p, AnsweringProvider)}

    async def receive(request: Request) -> ASGIApp:
        name = request.path_params["provider"]
        if name in waiting and waiting[name].prefix == "webhooks":
            return await _answered(request, waiting[name], answerer)
        if request.method != "POST":
            return _answer(405, "Deliveries are posted.", Allow="POST")
        return stored.get(name) or _answer(404, "There is no such provider.")

    def call(provider: AnsweringProvider) -> Route:
        async def answered(request: Request) -> Response:
            return await _answered(request, provider, answerer)

        address = f"/{provider.prefix}/{provider.name}/{{path:path}}"
        return Route(address, answered, methods=_METHODS)

    return [
        # Some operators put their callbacks.
        Route("/webhooks/{provider}", receive, methods=["POST", "PUT"]),
        *(call(p) for p in waiting.values() if p.prefix != "webhooks"),
    ]


def deliveries(providers: Providers, intake: Intake, clock: Clock) -> dict[str, Deliveries]:
    """Return what takes in the deliveries that nobody waits for, by provider."""
    return {
        name: Deliveries(provider, intake, clock)
        for name, provider in providers.items()
        if isinstance(provider, WebhookProvider)
    }


class Deliveries:
    """Takes in the deliveries of one provider. Bare ASGI: there may be thousands a second.

    413 over BODY_BYTES_MAX; 408 a body that does not come; 400 not authentic (nothing kept but a
    counter), or authentic and not JSON in UTF-8 (kept); 503 not known to be stored, come again;
    202 stored, whatever it says.
    """

    def __init__(self, provider: WebhookProvider, intake: Intake, clock: Clock) -> None:
        self._provider = provider
        self._intake = intake
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one in, and answer."""
        answer = await self.take(scope, receive)
        await answer(scope, receive, send)

    async def take(self, scope: Scope, receive: Receive) -> Response:
        """Take one in; return the answer."""
        # Of a header that stands twice the first counts.
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in reversed(scope["headers"])
        }
        body = await _body(scope, headers.get("content-length", "0"), receive)
        return body if isinstance(body, Response) else await self._store(headers, body)

    async def _store(self, headers: Mapping[str, str], body: bytes) -> Response:
        name, now = self._provider.name, self._clock()
        try:
            delivery_id = self._provider.authenticate(headers, body, now=now)
        except BadSignature as error:
            self._intake.count_refused(name)
            return _answer(400, f"The delivery is not authentic: {error}.")
        readable = is_json(body)
        try:
            await self._intake.store(Arrival(name, delivery_id, body, readable, now))
        except StoreUnavailable:
            sentence = "The delivery is not stored; send it again."
            return _answer(503, sentence, **{"Retry-After": "5"})
        if not readable:
            return _answer(400, "The delivery is authentic, but its body is not JSON in UTF-8.")
        return STORED


async def _answered(request: Request, provider: AnsweringProvider, answerer: Answerer) -> Response:
    length = request.headers.get("content-length", "0")
    body = await _body(request.scope, length, request.receive)
    if isinstance(body, Response):
        said = provider.say_unread(body.status_code)
        return Response(said.body, said.status, {"Connection": "close"}, said.media_type)
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


async def _body(scope: Scope, length: str, receive: Receive) -> bytes | Response:
    """Return the body, or the answer to one that is too large or does not come."""
    try:
        return await read_body(
            scope, length, receive, bytes_max=BODY_BYTES_MAX, seconds_max=BODY_SECONDS_MAX
        )
    except BodyTooLarge:
        return _answer(413, f"A body has at most {BODY_BYTES_MAX} bytes.", Connection="close")
    except BodyTooSlow:
        return _answer(408, "The body did not come in time.", Connection="close")
    except BodyCutOff:
        return _answer(400, "The body was cut off.")
