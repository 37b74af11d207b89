"""Every operation of the API goes through here: key, bounds, role, parameters, body, then the rest.

In this order, so that a stranger learns nothing but that a key is needed, and that nothing is read
for who may not ask. Whatever is refused, here or below, is answered as a problem.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api import problems
from gateway.api.access import Asked, Caller, Right, now, recognise, refuse_without, roles_with
from gateway.api.body import has_wrong_characters, read_body, replayed
from gateway.api.limits import Rate, count_request
from gateway.api.problem_kinds import FIELD_CODES
from gateway.api.problems import FieldError, Problem

PREFIX: Final = "/v1"
REQUEST_ID: Final = "X-Request-Id"
RIGHT: Final = "x-right"
"""The right an operation asks for, in the OpenAPI description and for the guard alike."""

_ALWAYS: Final = (
    "invalid_parameter",
    "unknown_parameter",
    "no_key",
    "unknown_key",
    "role_may_not",
    "method_not_allowed",
    "too_many_requests",
    "too_many_unknown_keys",
    "fault",
    "unavailable",
)
_WITH_BODY: Final = (
    "unreadable_body",
    "body_too_slow",
    "body_too_large",
    "not_json",
    "invalid_body",
)

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY")

log = structlog.get_logger(__name__)


def operation(right: Right, *codes: str, body: bool = False) -> dict[str, Any]:
    """Return what a route's decorator needs besides its path: its right, and all it may refuse.

    Args:
        right: Whoever lacks it is refused.
        *codes: Problems of its own; those that any operation may answer are added.
        body: Whether it takes one.
    """
    names_one = any(code.endswith("_not_found") for code in codes)
    address = ["no_such_address"] if names_one else []
    listed = dict.fromkeys([*_ALWAYS, *address, *(_WITH_BODY if body else ()), *codes])
    return {
        "responses": problems.documented(listed),
        "openapi_extra": {RIGHT: right.value, "x-roles": roles_with(right)},
    }


class ApiRoute(APIRoute):
    """A route of the API, guarded. One that names no right cannot be made."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler behind the guard."""
        inner = super().get_route_handler()
        right = Right((self.openapi_extra or {})[RIGHT])
        known = _query_names(self)
        takes_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            request.state.rate = None
            try:
                caller = await run_in_threadpool(_admit, request, right)
                if request.path_params and request.method not in problems.methods_of(request):
                    # `…/search` is an operation of its own, and nobody's id.
                    raise HTTPException(405)
                _refuse_parameters(request, known)
                body = await read_body(request) if takes_body else b""
                request = replayed(request, body)
                request.state.asked = _as_asked(request, caller, body)
                made = await inner(request)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is answered as a problem
                made = problems.answer(_problem(request, error), request_id_of(request))
            rate = request.state.rate
            made.headers.update(rate.headers() if isinstance(rate, Rate) else {})
            return made

        return handle


def new_router(tag: str) -> APIRouter:
    """Return a router below the API's prefix whose routes are guarded."""
    return APIRouter(prefix=PREFIX, route_class=ApiRoute, tags=[tag])


def request_id_of(request: Request) -> str:
    """Return the name of a request, which its answer bears."""
    return str(request.scope.get("state", {}).get("request_id", ""))


def is_api(request: Request) -> bool:
    """Say whether an address is the API's."""
    return _is_below(request.scope["path"])


def leftover() -> list[Route]:
    """Return the routes behind all others of the API: what is left there is no page of a payer."""

    async def nothing(request: Request) -> Response:
        status = 405 if problems.methods_of(request) else 404
        raise HTTPException(status)

    paths = (PREFIX, PREFIX + "/{rest:path}")
    return [Route(path, nothing, methods=_METHODS, name=problems.LEFTOVER) for path in paths]


async def refused(request: Request, error: HTTPException) -> Response:
    """Answer what the router refuses at an address of the API."""
    return problems.answer(problems.of_router(request, error), request_id_of(request))


class Answers:
    """The application, with what all answers of the API bear; HEAD is answered as GET, bodiless.

    Pure ASGI, since it also stands before what the router refuses.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and complete its answer."""
        if scope["type"] != "http" or not _is_below(scope["path"]):
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        # A copy: the server must go on knowing that it was HEAD, to send no body.
        inner = {**scope, "state": {**scope.get("state", {}), "request_id": request_id}}
        headless = scope["method"] == "HEAD"
        if headless:
            inner["method"] = "GET"

        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
                headers["Referrer-Policy"] = "no-referrer"
                headers.setdefault("Cache-Control", "no-store")
            elif message["type"] == "http.response.body" and headless:
                message = {**message, "body": b""}
            await send(message)

        await self._app(inner, receive, completed)


def _is_below(path: str) -> bool:
    return path == PREFIX or path.startswith(PREFIX + "/")


def _admit(request: Request, right: Right) -> Caller:
    caller = recognise(request)
    rate = request.state.rate = count_request(caller.key_id)
    if not rate.within:
        raise Problem("too_many_requests", headers={"Retry-After": str(rate.reset_seconds)})
    refuse_without(caller, right)
    return caller


def _as_asked(request: Request, caller: Caller, body: bytes) -> Asked:
    path = request.scope["path"]
    bound = f"{request.method}\n{path}\n".encode("utf-8", "surrogatepass") + body
    query = tuple(request.query_params.multi_items())
    return Asked(caller, now(), hashlib.sha256(bound).digest(), path, query)


def _query_names(route: APIRoute) -> frozenset[str]:
    names: set[str] = set()
    for parameter in route.dependant.query_params:
        annotation = parameter.field_info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            names |= {f.alias or name for name, f in annotation.model_fields.items()}
        else:
            names.add(parameter.alias)
    return frozenset(names)


def _refuse_parameters(request: Request, known: frozenset[str]) -> None:
    seen: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            wrong[name] = "unknown"
        elif name in seen:
            wrong[name] = "repeated"
        elif has_wrong_characters(value):
            wrong[name] = "malformed"
        seen[name] = value
    path = {n: "malformed" for n, v in request.path_params.items() if has_wrong_characters(str(v))}
    unknown = [name for name, code in wrong.items() if code == "unknown"]
    if unknown:
        raise Problem("unknown_parameter", errors=_errors(dict.fromkeys(unknown, "unknown")))
    if path:
        raise Problem("no_such_address", errors=_errors(path))
    if wrong:
        raise Problem("invalid_parameter", errors=_errors(wrong))


def _errors(wrong: Mapping[str, str]) -> list[FieldError]:
    return [
        FieldError(problems.path_of([name]), code, FIELD_CODES[code])
        for name, code in wrong.items()
    ]


def _problem(request: Request, error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return problems.of_validation(error)
        case HTTPException():
            return problems.of_router(request, error)
        case OperationalError():
            log.error("database_away", reason=type(error).__name__, request=request_id_of(request))
            return problems.unavailable()
        case _:
            log.error("unforeseen_error", exc_info=error, request=request_id_of(request))
            return Problem("fault")
