"""`/metrics`: how it goes, for Prometheus and the people behind it.

Labels are route templates, provider names of the providers file, codes, channels and states: few,
and nothing in them is about a person or an invoice. The database is read by one thread at a time,
however many ask; while it is away the answer is still 200 and says so (`wasl_database_up 0`).
"""

from __future__ import annotations

import asyncio
import hmac
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from ipaddress import ip_address
from itertools import accumulate
from typing import Final, Generic, TypeVar

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import (
    CollectorRegistry,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import (
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import migrate, process
from gateway.books.accounts import SUSPENSE, account
from gateway.db import snapshot
from gateway.errors import Unusable
from gateway.http.endpoints import EndpointStanding, of_endpoints, read_endpoints
from gateway.http.families import counter as _counter
from gateway.http.families import gauge as _gauge
from gateway.http.readings import (
    OTHER,
    Balances,
    Standing,
    Totals,
    count_totals,
    read_standing,
)
from gateway.models import AccountKind
from gateway.settings import Settings, settings

STANDING_SECONDS: Final = 5.0
"""What waits is read anew when it is asked for and older than this."""
TOTALS_SECONDS: Final = 30.0
TOTALS_SHARE: Final = 50
"""Counting everything rests this many times as long as it took: two percent of the time, always."""
ANSWER_SECONDS_MAX: Final = 2.0
"""For how long an answer waits for the database. What comes later is in the next answer."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BY_A_PROXY: Final = ("x-forwarded-for", "forwarded", "x-real-ip", "via")

_Read = TypeVar("_Read")

log = structlog.get_logger(__name__)


class Refreshed(Generic[_Read]):
    """Something that is read anew, by one thread at a time, when it is asked for and too old."""

    def __init__(
        self, name: str, read: Callable[[], _Read], rest: Callable[[float], float]
    ) -> None:
        """Begin with nothing read.

        Args:
            name: For the log.
            read: Reads it; whatever it raises is logged, and the value is gone.
            rest: For how many seconds a value is new enough, by how many it took.
        """
        self.value: _Read | None = None
        self.took = 0.0
        self._name = name
        self._read = read
        self._rest = rest
        self._turn = threading.Lock()
        self._reading: threading.Event | None = None
        self._read_at = self._due_at = 0.0

    def get(self, seconds_max: float) -> _Read | None:
        """Return it, or None if the last attempt failed or lasts too long. Blocks so long."""
        with self._turn:
            if self._reading is None and time.monotonic() >= self._due_at:
                self._reading = threading.Event()
                # A database that is frozen holds this thread, and nothing else, until it ends.
                threading.Thread(target=self._refresh, name=self._name, daemon=True).start()
            reading = self._reading
        if reading is not None and not reading.wait(seconds_max):
            return None
        return self.value

    def age(self) -> float:
        """Return how many seconds ago the value was read."""
        return time.monotonic() - self._read_at

    def _refresh(self) -> None:
        began, value = time.monotonic(), None
        try:
            value = self._read()
        except Exception as error:  # noqa: BLE001 - whatever ails it, the rest is still told
            log.warning("not_read", what=self._name, reason=type(error).__name__)
        with self._turn:
            self.value, self._read_at = value, time.monotonic()
            self.took = self._read_at - began
            self._due_at = self._read_at + self._rest(self.took)
            reading, self._reading = self._reading, None
        assert reading is not None
        reading.set()


@dataclass(slots=True)
class _Tally:
    """Requests of one kind: how many, and how many took at most each of _BUCKETS, and longer."""

    count: int = 0
    seconds: float = 0.0
    within: list[int] = field(default_factory=lambda: [0] * (len(_BUCKETS) + 1))


class Requests(Collector):
    """Requests by route and status, and how long they took. Never by path: it holds references.

    They are counted by the one thread of the event loop, without the locks of the library's own
    counters: thousands a second come through here.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._of: dict[tuple[str, str, int], _Tally] = {}
        registry.register(self)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        tally = self._of.get((method, route, status))
        if tally is None:
            by = method if method in _METHODS else OTHER
            tally = self._of.setdefault((by, route, status), _Tally())
        tally.count += 1
        tally.seconds += seconds
        tally.within[bisect_left(_BUCKETS, seconds)] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield what was counted so far."""
        tallies = dict(self._of)
        yield _counter(
            "wasl_http_requests",
            "Requests answered, by route template.",
            ["method", "route", "status"],
            {(by, route, str(status)): t.count for (by, route, status), t in tallies.items()},
        )
        told = HistogramMetricFamily(
            "wasl_http_request_seconds",
            "From the head of a request to the end of its answer.",
            labels=["route"],
        )
        for route in dict.fromkeys(route for _, route, _ in tallies):
            of_route = [t for (_, its, _), t in tallies.items() if its == route]
            within = accumulate(map(sum, zip(*(t.within for t in of_route), strict=True)))
            ends = [*map(str, _BUCKETS), "+Inf"]
            buckets = [(end, float(count)) for end, count in zip(ends, within, strict=True)]
            told.add_metric([route], buckets, sum(t.seconds for t in of_route))
        yield told

    def describe(self) -> list[Metric]:
        """Name nothing in advance."""
        return []


class Measured:
    """The application, with its requests counted. Pure ASGI: intake takes thousands a second."""

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it when it is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            seconds = time.perf_counter() - began
            self._requests.count(scope["method"], template_of(scope), status, seconds)


def template_of(scope: Scope) -> str:
    """Return the route that took a request, as `/{reference}`; `none` if there was no such."""
    # A router that is included under a prefix keeps its own paths: the whole one is here.
    whole = scope.get("fastapi", {}).get("effective_route_context")
    if whole is not None:
        return str(whole.path_format)
    if "route" in scope:
        return str(scope["route"].path)
    # A plain route leaves its endpoint only.
    endpoint = scope.get("endpoint")
    if endpoint is not None:
        for route in scope["router"].routes:
            if getattr(route, "endpoint", None) is endpoint:
                return str(route.path)
    return "none"


class Readings(Collector):
    """What the database and this process say when somebody asks."""

    def __init__(self, known: Collection[str], refused: Callable[[], Mapping[str, int]]) -> None:
        """Begin with nothing read.

        Args:
            known: The providers that are switched on.
            refused: Says how many deliveries of each this process refused.
        """
        self._known = known
        self._refused = refused
        self._balances = Balances()
        self._standing = Refreshed("standing", self._read_standing, lambda _: STANDING_SECONDS)
        self._totals = Refreshed(
            "totals",
            lambda: count_totals(known),
            lambda took: max(TOTALS_SECONDS, took * TOTALS_SHARE),
        )

    def _read_standing(
        self,
    ) -> tuple[Standing, Mapping[str, int], Mapping[str, EndpointStanding]]:
        with snapshot() as session:
            now = process.business_clock()()
            standing = read_standing(session, self._known, now=now)
            endpoints = read_endpoints(session, now=now)
            return standing, self._balances.follow(session), endpoints

    def collect(self) -> Iterator[Metric]:
        """Yield everything, waiting for the database no longer than ANSWER_SECONDS_MAX."""
        yield _info()
        yield _counter(
            "wasl_deliveries_refused",
            "Deliveries that were not authentic, since this process started.",
            ["provider"],
            {(name,): count for name, count in self._refused().items()},
        )
        began = time.monotonic()
        read = self._standing.get(ANSWER_SECONDS_MAX)
        up = "Whether the database could be read for this answer."
        yield _gauge("wasl_database_up", up, [], {(): int(read is not None)})
        sealed = _sealed_batch()
        if sealed is not None:
            what = "The last batch in the file of signed heads."
            yield _gauge("wasl_books_sealed_batch", what, [], {(): sealed})
        if read is None:
            return
        yield from _of_standing(read[0])
        yield from _of_balances(read[1], self._known)
        yield from of_endpoints(read[2])
        # Only the first count is waited for: later ones leave the one before in its place.
        rest = ANSWER_SECONDS_MAX - (time.monotonic() - began)
        former = self._totals.value
        totals = self._totals.get(max(0.0, rest) if former is None else 0.0) or former
        if totals is not None:
            yield from _of_totals(totals)
            age = "How long ago the totals were counted."
            yield _gauge("wasl_totals_age_seconds", age, [], {(): self._totals.age()})
            took = "How long counting the totals took."
            yield _gauge("wasl_totals_took_seconds", took, [], {(): self._totals.took})

    def describe(self) -> list[Metric]:
        """Name nothing in advance, so that making this reads nothing."""
        return []


def _info() -> Metric:
    labels = {
        "version": version("wasl"),
        "schema": migrate.newest(),
        "mode": settings().mode,
    }
    return _gauge("wasl_build_info", "What runs.", list(labels), {tuple(labels.values()): 1})


def _sealed_batch() -> int | None:
    """Return what the heads file of this home says, if this process has it before it."""
    try:
        file = process.heads_file()
        return file.last_batch() if file.exists() else None
    except (Unusable, OSError):
        return None


def _of_standing(standing: Standing) -> Iterator[Metric]:
    yield _gauge(
        "wasl_deliveries_waiting",
        "Deliveries stored and not yet acted on; counting stops at 20000.",
        ["provider"],
        {(name,): count for name, count in standing.waiting.items()},
    )
    yield _gauge(
        "wasl_undone",
        "Other things in line; counting stops at 20000.",
        ["what"],
        {(what,): count for what, count in standing.undone.items()},
    )
    oldest = standing.oldest_seconds
    yield _gauge(
        "wasl_oldest_seconds",
        "Age of the oldest thing in line, by what it is; `any` is the oldest of all.",
        ["what"],
        {(what,): seconds for what, seconds in oldest.items()}
        | {("any",): max(oldest.values(), default=0.0)},
    )
    yield _gauge(
        "wasl_exceptions_open",
        "Exceptions that wait for a person; counting stops at 20000 for each code.",
        ["code"],
        {(code,): count for code, count in standing.exceptions.items()},
    )
    if standing.reconciled_seconds_ago is not None:
        yield _gauge(
            "wasl_reconciled_seconds_ago",
            "Since the last reconciliation began.",
            [],
            {(): standing.reconciled_seconds_ago},
        )
    yield _gauge(
        "wasl_books_posted_batch",
        "The last batch in the books.",
        [],
        {(): standing.posted_batch},
    )
    what = "Whether nothing is sent until an operator says so, as after a restore."
    yield _gauge("wasl_sending_held", what, [], {(): int(standing.sending_held)})


def _of_balances(minor: Mapping[str, int], known: Collection[str]) -> Iterator[Metric]:
    clearing = dict.fromkeys([(name,) for name in known], 0)
    names = {account(AccountKind.CLEARING, name): name for name in known}
    for code, balance in minor.items():
        if code != SUSPENSE:
            by = (names.get(code, OTHER),)
            clearing[by] = clearing.get(by, 0) + balance
    yield _gauge(
        "wasl_clearing_centimes",
        "What a provider collected and has not paid out to us.",
        ["provider"],
        clearing,
    )
    yield _gauge(
        "wasl_suspense_centimes",
        "Money whose debt is not known.",
        [],
        {(): -minor.get(SUSPENSE, 0)},
    )


def _of_totals(totals: Totals) -> Iterator[Metric]:
    done = {(p, o): count for (p, s, o), count in totals.deliveries.items() if s == "done"}
    parked = {(p,): count for (p, s, _), count in totals.deliveries.items() if s == "parked"}
    what = "Deliveries acted on, by what they came to."
    yield _counter("wasl_deliveries_done", what, ["provider", "outcome"], done)
    what = "Deliveries that failed too often and wait for a person."
    yield _gauge("wasl_deliveries_parked", what, ["provider"], parked)
    by = ["channel", "status"]
    yield _gauge("wasl_payments", "Payments reported.", by, totals.payments)
    yield _gauge("wasl_payments_centimes", "Their amounts.", by, totals.payments_minor)
    what = "What refunds and disputes gave back of payments that stand booked."
    returned = {(channel,): minor for channel, minor in totals.returned_minor.items()}
    yield _gauge("wasl_payments_returned_centimes", what, ["channel"], returned)
    invoices = {(status,): count for status, count in totals.invoices.items()}
    yield _gauge("wasl_invoices", "Invoices issued.", ["status"], invoices)
    what = "Amounts of the invoices that stand, as they were issued."
    yield _gauge("wasl_invoices_centimes", what, [], {(): totals.invoiced_minor})
    what = "What these come to since: notes and remissions in, the penalty that still grows not."
    yield _gauge("wasl_invoices_owed_centimes", what, [], {(): totals.owed_minor})
    what = "What was paid of them."
    yield _gauge("wasl_invoices_paid_centimes", what, [], {(): totals.paid_minor})


def metrics_router(registry: CollectorRegistry) -> APIRouter:
    """Return the route. Who may read: whoever bears the token; in a sandbox without one, this
    machine.

    Plain answers: 403 for a token that is absent or wrong; 404 where no token is set and it is
    production, or the caller is not this machine, or comes through a proxy.
    """
    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        refusal = _refusal(request, settings())
        if refusal is not None:
            return refusal
        text = await asyncio.to_thread(generate_latest, registry)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router


def new_registry() -> CollectorRegistry:
    """Return a registry with what the process itself says: memory, time, open files."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    return registry


def _refusal(request: Request, chosen: Settings) -> Response | None:
    if chosen.metrics_token is not None:
        token = chosen.metrics_token.get_secret_value().encode()
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), token):
            return None
        return PlainTextResponse("Give the token of WASL_METRICS_TOKEN as a bearer.\n", 403)
    host = request.client.host if request.client else ""
    # Not every proxy says that it is one: production asks for the token, whoever calls.
    if chosen.mode == "production":
        return PlainTextResponse("Not found.\n", 404)
    # A proxy on this machine would lend strangers its address: what came through one is not ours.
    if _is_loopback(host) and not any(name in request.headers for name in _BY_A_PROXY):
        return None
    return PlainTextResponse("Not found.\n", 404)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
