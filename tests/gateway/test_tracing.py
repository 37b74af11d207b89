"""Traces as a collector receives them: a small one of our own, on a port, that reads the bytes."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.requests import Request
from starlette.routing import Route
from starlette.testclient import TestClient

from gateway import tracing
from gateway.db import execute, transaction
from gateway.settings import settings
from gateway.tracing import Tracing, asked_for
from tests.factories import NOON, a_delivery, an_event, signed, some_invoices

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    """What an OTLP collector is to us: it takes posts, and keeps what was in them."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: set[str] = set()
        keep = self

        class Take(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                keep.paths.add(self.path)
                keep.bodies.append(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Take)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def requests(self) -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(body) for body in self.bodies]

    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def services(self) -> set[str]:
        return {
            attribute.value.string_value
            for request in self.requests
            for resource in request.resource_spans
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
        }


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    made = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.address)
    # FastAPI would begin to send by itself what we never send.
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _no_senders_in_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what was traced here from starting a thread in each later fork of this process.

    A process with a second thread cannot enter a namespace, as PostgreSQL of other tests must.
    """
    monkeypatch.setattr(os, "register_at_fork", lambda **_hooks: None)


@pytest.fixture
def traced(collector: Collector) -> Iterator[Tracing]:
    """Trace this process as a worker is traced."""
    begun = tracing.start("worker")
    assert begun is not None
    yield begun
    begun.stop()


@pytest.fixture
def web(
    database: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], TestClient]:
    """Return the web process; leaving it sends what it traced."""
    monkeypatch.setenv("WASL_CLOCK", f"={NOON.isoformat()}")
    settings.cache_clear()

    def made() -> TestClient:
        from gateway.app import create_app

        return TestClient(create_app(), raise_server_exceptions=False)

    return made


def attributes(span: Span) -> dict[str, object]:
    return {
        a.key: a.value.string_value or a.value.int_value or a.value.bool_value
        for a in span.attributes
    }


def test_requests_arrive_by_their_route_and_without_a_reference(
    web: Callable[[], TestClient], collector: Collector
) -> None:
    reference = some_invoices(1)[0]
    body = an_event(reference)
    with web() as client:
        assert client.get(f"/{reference}?lang=ar&code={reference}").status_code == 200
        client.get(f"/{reference}.pdf")
        client.get(f"/no/such/{reference}")
        client.post(f"/webhooks/{reference}", content=body, headers=signed(body))
        client.post("/", data={"reference": reference})
        client.get("/", headers={"x-note": reference, "traceparent": CALLER})
    names = {span.name for span in collector.spans()}
    assert names >= {
        "GET /{reference}",
        "GET /{reference}.pdf",
        "GET none",
        "POST /webhooks/{provider}",
        "transaction",
    }
    assert collector.paths == {"/v1/traces"}
    assert collector.services() == {"wasl-web"}
    for sent in collector.requests:
        assert reference not in str(sent)
        assert not re.search(r"(?<![0-9a-f.])[1-9][0-9]{11}(?![0-9])", texts_of(sent))
    page = next(s for s in collector.spans() if s.name == "GET /{reference}")
    assert attributes(page) == {
        "http.request.method": "GET",
        "http.route": "/{reference}",
        "http.response.status_code": 200,
    }
    inside = [s for s in collector.spans() if s.parent_span_id == page.span_id]
    assert {s.name for s in inside} == {"transaction"}
    # What a stranger says of his trace on a page is not believed.
    assert bytes.fromhex(CALLER.split("-")[1]) not in {s.trace_id for s in collector.spans()}


def texts_of(sent: ExportTraceServiceRequest) -> str:
    """Return every text in it; ids and instants are no texts."""
    found = [
        text
        for resource in sent.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        for text in (
            span.name,
            span.trace_state,
            span.status.message,
            *(f"{a.key} {a.value}" for a in span.attributes),
            *(f"{e.name} {e.attributes}" for e in span.events),
        )
    ]
    return "\n".join(found)


def test_the_trace_of_a_program_that_calls_is_linked_and_never_joined(
    web: Callable[[], TestClient], collector: Collector
) -> None:
    reference = some_invoices(1)[0]
    with web() as client:
        client.post(
            "/webhooks/cashplus",
            content=b"{}",
            # His «do not sample» is about his own.
            headers={"traceparent": f"{CALLER[:-2]}00", "tracestate": f"his={reference}"},
        )
        client.post("/webhooks/cashplus", content=b"{}", headers={"traceparent": "nonsense"})
    spans = [s for s in collector.spans() if s.name == "POST /webhooks/{provider}"]
    _, trace, parent, _ = CALLER.split("-")
    links = [(link.trace_id.hex(), link.span_id.hex()) for s in spans for link in s.links]
    assert links == [(trace, parent)]
    assert not any(link.trace_state for s in spans for link in s.links)
    assert [(s.parent_span_id, s.trace_state) for s in spans] == [(b"", ""), (b"", "")]
    assert trace not in {s.trace_id.hex() for s in spans}
    assert len(spans) == 2


def test_an_error_is_marked_and_its_text_stays_here(
    web: Callable[[], TestClient], collector: Collector
) -> None:
    reference = some_invoices(1)[0]
    with web() as client:

        def broken(_request: Request) -> None:
            raise RuntimeError(f"it was {reference}")

        # First: the pages' last route would take it.
        routes = client.app.router.routes  # type: ignore[attr-defined]
        routes.insert(0, Route("/v1/broken", broken))
        assert client.get("/v1/broken").status_code == 500
    span = next(s for s in collector.spans() if s.name == "GET /v1/broken")
    assert span.status.code == span.status.STATUS_CODE_ERROR
    assert reference not in str(collector.requests)


def test_tasks_and_their_transactions_arrive(
    traced: Tracing, database: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.worker import app
    from webhooks.tasks import desk, drain_inbox

    # The application reads its broker when it is first imported: by which test, nobody knows.
    monkeypatch.setattr(app.conf, "broker_url", os.environ["WASL_REDIS_URL"])
    desk.cache_clear()
    a_delivery(an_event(some_invoices(1)[0]))
    assert drain_inbox.apply().successful()
    desk.cache_clear()
    traced._provider.force_flush()
    task = next(s for s in collector.spans() if s.name == "webhooks.drain_inbox")
    assert task.parent_span_id == b""
    inside = [s for s in collector.spans() if s.parent_span_id == task.span_id]
    assert {s.name for s in inside} >= {"transaction"}
    assert {attributes(s)["wasl.outcome"] for s in inside} == {"commit"}
    assert max(int(str(attributes(s)["wasl.statements"])) for s in inside) > 5
    assert collector.services() == {"wasl-worker"}


def test_a_task_that_fails_is_marked_and_the_next_is_not_inside_it(
    traced: Tracing, database: str, collector: Collector
) -> None:
    from gateway.worker import app

    @app.task(name="tests.fails")
    def fails(reference: str) -> None:
        with transaction() as session:
            execute(session, "SELECT 1")
            raise ValueError(reference)

    reference = some_invoices(1)[0]
    for _ in range(2):
        assert fails.apply(args=(reference,)).failed()
    app.tasks.pop("tests.fails")
    traced._provider.force_flush()
    spans = collector.spans()
    tasks = [s for s in spans if s.name == "tests.fails"]
    assert [s.status.code for s in tasks] == [Span().status.STATUS_CODE_ERROR] * 2
    assert len({s.trace_id for s in tasks}) == 2
    outcomes = {attributes(s)["wasl.outcome"] for s in spans if s.parent_span_id}
    assert outcomes == {"rollback"}
    assert reference not in str(collector.requests)


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "wasl"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://there:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://there:4318/v1/traces"}, True),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://there:4318", "OTEL_SDK_DISABLED": "true"},
            False,
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://there:4318", "OTEL_TRACES_EXPORTER": "none"},
            False,
        ),
    ],
)
def test_who_asks_for_traces_gets_them(variables: dict[str, str], asked: bool) -> None:
    assert asked_for(variables) is asked


def test_the_service_may_be_named(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "amo-collection")
    begun = tracing.start("worker")
    assert begun is not None
    with transaction() as session:
        execute(session, "SELECT 1")
    begun.stop()
    assert collector.services() == {"amo-collection"}


def test_who_does_not_ask_imports_nothing_of_it(database: str) -> None:
    """In a process of its own: libraries import more or less of it, but none what sends."""
    program = (
        "import sys\n"
        "from gateway.app import create_app\n"
        "create_app()\n"
        "names = [n for n in sys.modules if n.startswith(('opentelemetry.sdk.trace',"
        " 'opentelemetry.exporter', 'google.protobuf'))]\n"
        "assert names == [], names\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_collector_that_is_away_holds_no_process_up(
    monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    begun = tracing.start("worker")
    assert begun is not None
    with transaction() as session:
        execute(session, "SELECT 1")
    stopping = threading.Thread(target=begun.stop)
    stopping.start()
    stopping.join(9)
    assert not stopping.is_alive()
