"""The web process: routes, error answers and the intake put together. Nothing imports it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.telemetry import TelemetryConfig
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import process, tracing, worker
from gateway.api import docs, openapi, problems
from gateway.api import route as api
from gateway.api.routes import router as api_router
from gateway.bodies import AT_ONCE
from gateway.db import transaction
from gateway.errors import Unusable
from gateway.holders import HOLDERS
from gateway.http import health
from gateway.http.metrics import (
    Measured,
    Readings,
    Requests,
    metrics_router,
    new_registry,
    template_of,
)
from gateway.institution import institution
from gateway.pages import routes as pages
from gateway.pages import site
from gateway.receipts import signer_of
from gateway.settings import settings
from webhooks.answering import Answerer
from webhooks.api import router as deliveries_router
from webhooks.intake import Intake
from webhooks.outbound.api import router as endpoints_router
from webhooks.routes import STORED, Deliveries, deliveries, webhook_routes

log = structlog.get_logger(__name__)

STATEMENT_SECONDS_MAX: Final = 5
"""Of one statement for a page. Pages share some threads: a lock must not hold all of them."""

GARBAGE: Final = (20_000, 20, 100)
"""How much is made before the collector looks for rings: requests leave hardly any."""

# FastAPI would send addresses with their queries, and the texts of errors: references, in short.
_NO_TRACES_OF_ITS_OWN: Final[TelemetryConfig] = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}


async def _ring_inbox() -> None:
    await asyncio.to_thread(worker.ring, worker.DRAIN_INBOX)


class Wasl(FastAPI):
    """The application, with addresses that are answered before it: nothing of it is in their way.

    What stands between is as it is elsewhere: counted, traced, and a bug is answered as a bug.
    """

    bare: Mapping[str, ASGIApp] = MappingProxyType({})
    """What answers POST, by path."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            known = self.bare.get(scope["path"])
            if known is not None:
                await known(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


def create_app() -> Wasl:
    """Return the application of this process, by its environment."""
    process.connect_database(statement_seconds_max=STATEMENT_SECONDS_MAX)
    database_url = settings().database_url
    assert database_url is not None
    intake = Intake(database_url.get_secret_value(), _ring_inbox)
    traces = tracing.start("web")

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await intake.start()
        await asyncio.to_thread(_first_receipt_key)
        # What was imported lives as long as the process: the collector need not walk it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GARBAGE)
        yield
        await intake.stop()
        if traces is not None:
            await asyncio.to_thread(traces.stop)

    app = Wasl(
        title="Wasl",
        lifespan=lifespan,
        telemetry=_NO_TRACES_OF_ITS_OWN,
        docs_url=None,
        redoc_url=None,
    )
    registry = new_registry()
    registry.register(Readings(process.providers(), lambda: intake.refused))
    requests = Requests(registry)
    app.add_middleware(Measured, requests=requests)
    if traces is not None:
        app.add_middleware(tracing.Traced, tracing=traces, template_of=template_of)
    # Outermost: its headers also stand on what the others and the router answer.
    app.add_middleware(api.Answers)
    app.include_router(health.router)
    app.include_router(metrics_router(registry))
    answerer = Answerer(
        process.signing_key,
        process.business_clock(),
        institution().validity.months,
        intake.count_refused,
        process.receipt_keys,
    )
    routes = webhook_routes(process.providers(), intake, answerer)
    app.router.routes.extend(routes)
    app.bare = {
        f"/webhooks/{name}": _in_front(taken, routes[0], requests, traces)
        for name, taken in deliveries(process.providers(), intake, answerer.clock).items()
    }
    app.state.holders = HOLDERS
    app.include_router(api_router)
    app.include_router(deliveries_router)
    app.include_router(endpoints_router)
    app.router.routes.extend(api.leftover())
    app.include_router(docs.router)
    # Last: its `/{reference}` takes every address of one part that nothing else has taken.
    app.include_router(pages.router, include_in_schema=False)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(OperationalError, _away)
    app.add_exception_handler(Exception, _bug)
    openapi.describe(app)
    return app


def _in_front(
    taken: Deliveries, route: Route, requests: Requests, traces: tracing.Tracing | None
) -> ASGIApp:
    if traces is None:
        return _InFront(taken, route, requests)
    # What traces must see the answer pass.
    return tracing.Traced(_InFront(taken, route, requests, in_parts=True), traces, template_of)


class _InFront:
    """Deliveries that are taken in before the application, counted as if by a route of it."""

    def __init__(
        self, taken: Deliveries, route: Route, requests: Requests, *, in_parts: bool = False
    ) -> None:
        self._taken = taken
        self._route = route
        self._requests = requests
        self._in_parts = in_parts
        headers = b"".join(b"%s: %s\r\n" % header for header in STORED.raw_headers)
        self._stored = headers + b"\r\n" + bytes(STORED.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one. What the middlewares do for others is done here, without their wrapping."""
        began, status = time.perf_counter(), 500
        scope["route"] = self._route
        try:
            try:
                answer = await self._taken.take(scope, receive)
                status = answer.status_code
            except Exception as error:  # noqa: BLE001 - answered as the application does a bug
                answer = await _bug(Request(scope), error)
            if answer is STORED and not self._in_parts:
                at_once = scope.get("extensions", {}).get(AT_ONCE)
                if at_once is not None and at_once(scope, STORED.status_code, self._stored):
                    return
            await answer(scope, receive, send)
        finally:
            seconds = time.perf_counter() - began
            self._requests.count("POST", self._route.path, status, seconds)


def _first_receipt_key() -> None:
    """Make the first key of receipts, so that it is published before anything is signed.

    Without one deliveries are still taken in: signing receipts waits, and says why in the log.
    """
    try:
        with transaction() as session:
            signer_of(session, process.receipt_keys(), now=process.business_clock()())
    except (Unusable, SQLAlchemyError) as error:
        log.error("receipt_key_unusable", reason=str(error).partition("\n")[0])


async def _refused(request: Request, error: Exception) -> Response:
    """Answer what the router refuses: as a problem at the API, else as pages and webhooks do."""
    assert isinstance(error, HTTPException)
    if api.is_api(request):
        return await api.refused(request, error)
    return await site.http_error(request, error)


async def _away(request: Request, error: Exception) -> Response:
    """Answer while the database is away or too busy: come back, nothing was done."""
    log.error("database_away", reason=type(error).__name__)
    if api.is_api(request):
        return problems.answer(problems.unavailable())
    if site.is_for_machines(request):
        return JSONResponse({"detail": "Try again in a minute."}, 503, {"Retry-After": "60"})
    return site.wait_page(request, 60, "busy", status=503)


async def _bug(request: Request, error: Exception) -> Response:
    """Answer an error that nobody foresaw: no detail to a stranger, all of it to the log."""
    log.error("unforeseen_error", exc_info=error)
    if api.is_api(request):
        return problems.answer(problems.Problem("fault"))
    if not site.is_for_machines(request):
        return site.apology(request)
    return JSONResponse({"detail": "Something went wrong on our side."}, 500)
