"""Traces by OpenTelemetry, where the standard `OTEL_…` variables name a collector; else nothing.

Spans are requests by route template, tasks by name, and database transactions by how they ended.
No address as it was asked, no query, no parameter and no text of an error is in any of them: all
of these may hold a reference. FastAPI's own traces hold addresses, so they are off (gateway.app).
What sends is imported only where traces are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from celery.signals import task_postrun, task_prerun

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

FLUSH_SECONDS_MAX: Final = 2
"""For how long a process that ends waits for a collector: less than it is given to end."""

CALLERS: Final = ("/v1/", "/webhooks/")
"""Where a caller is a program whose trace ours is linked to. On a page nobody has one."""

_SPAN: Final = "wasl.span"
_STATEMENTS: Final = "wasl.statements"


def asked_for(environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether the standard variables ask for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return False
    return any(
        environment.get(name)
        for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    )


def start(program: str) -> Tracing | None:
    """Begin to trace this process, if that is asked for. To be called after the last fork.

    Args:
        program: `web` or `worker`: the service is `wasl-…` unless OTEL_SERVICE_NAME says else.
    """
    return Tracing(program) if asked_for() else None


class Tracing:
    """What one process traces, until it is stopped."""

    def __init__(self, program: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = os.environ.get("OTEL_SERVICE_NAME") or "service.name" in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        attributes = {"service.version": version("wasl")}
        if not named:
            attributes["service.name"] = f"wasl-{program}"
        self._provider: TracerProvider = TracerProvider(
            resource=Resource.create(attributes), shutdown_on_exit=False
        )
        self._exporter = OTLPSpanExporter()
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self.tracer: Tracer = self._provider.get_tracer("wasl", version("wasl"))
        self._tasks: dict[str, AbstractContextManager[Span]] = {}
        self._listening = (
            (sa.Engine, "begin", self._begun),
            (sa.Engine, "before_cursor_execute", self._executing),
            (sa.Engine, "commit", self._committing),
            (sa.Engine, "rollback", self._rolling_back),
            (sa.Pool, "checkin", self._ended),
        )
        for target, name, listener in self._listening:
            sa.event.listen(target, name, listener)
        task_prerun.connect(self._task_begins, weak=False)
        task_postrun.connect(self._task_ends, weak=False)

    def stop(self) -> None:
        """Send what is left, within FLUSH_SECONDS_MAX, and trace nothing more."""
        for target, name, listener in self._listening:
            sa.event.remove(target, name, listener)
        task_prerun.disconnect(self._task_begins)
        task_postrun.disconnect(self._task_ends)
        # Beside, since trying again for a collector that is away has a patience of its own.
        sending = Thread(target=self._provider.force_flush, daemon=True)
        sending.start()
        sending.join(FLUSH_SECONDS_MAX)
        # First: an exporter that is still trying gives up then.
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        self._provider.shutdown()

    # -- transactions: a span from the first statement until the connection is given back ----------

    def _begun(self, connection: sa.Connection) -> None:
        span = self.tracer.start_span("transaction", attributes={"db.system.name": "postgresql"})
        connection.info[_SPAN], connection.info[_STATEMENTS] = span, 0

    def _executing(self, connection: sa.Connection, *_: Any) -> None:
        connection.info[_STATEMENTS] = connection.info.get(_STATEMENTS, 0) + 1

    def _committing(self, connection: sa.Connection) -> None:
        self._say(connection, "commit")

    def _rolling_back(self, connection: sa.Connection) -> None:
        self._say(connection, "rollback")

    def _say(self, connection: sa.Connection, outcome: str) -> None:
        span = connection.info.get(_SPAN)
        if span is not None:
            span.set_attribute("wasl.outcome", outcome)
            span.set_attribute(_STATEMENTS, connection.info.get(_STATEMENTS, 0))

    def _ended(self, _connection: Any, record: Any) -> None:
        span = record.info.pop(_SPAN, None)
        # A connection that is only looked at, as the first one is, has asked for nothing.
        if span is not None and record.info.get(_STATEMENTS):
            span.end()

    # -- tasks: each a trace of its own, since one bell is for whatever waits ----------------------

    def _task_begins(self, task_id: str, task: Any, **_: Any) -> None:
        from opentelemetry.trace import SpanKind

        current = self.tracer.start_as_current_span(
            task.name, kind=SpanKind.CONSUMER, record_exception=False
        )
        current.__enter__()
        self._tasks[task_id] = current

    def _task_ends(self, task_id: str, state: str | None = None, **_: Any) -> None:
        from opentelemetry.trace import StatusCode, get_current_span

        current = self._tasks.pop(task_id, None)
        if current is not None:
            if state != "SUCCESS":
                get_current_span().set_status(StatusCode.ERROR)
            current.__exit__(None, None, None)


class Traced:
    """The application, with a span for each request."""

    def __init__(self, app: ASGIApp, tracing: Tracing, template_of: Callable[[Scope], str]) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._app = app
        self._tracer = tracing.tracer
        self._template_of = template_of
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on inside a span that is named by its route."""
        from opentelemetry.context import Context
        from opentelemetry.trace import Link, SpanKind, StatusCode, get_current_span

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method, status = scope["method"] if scope["method"].isalpha() else "other", 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        said = get_current_span(self._propagator.extract(_traceparent(scope), Context()))
        named = said.get_span_context()
        with self._tracer.start_as_current_span(
            method,
            # A trace of our own: whoever calls names his, and neither joins another nor stops ours.
            context=Context(),
            links=[Link(named)] if named.is_valid else [],
            kind=SpanKind.SERVER,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                await self._app(scope, receive, noting)
            finally:
                route = self._template_of(scope)
                span.update_name(f"{method} {route}")
                span.set_attribute("http.request.method", method)
                span.set_attribute("http.route", route)
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    span.set_status(StatusCode.ERROR)


def _traceparent(scope: Scope) -> dict[str, str]:
    """Return what a calling program says of its trace. Its `tracestate` is its own text: left."""
    if not scope["path"].startswith(CALLERS):
        return {}
    for name, value in scope["headers"]:
        if name == b"traceparent":
            return {"traceparent": value.decode("latin-1")}
    return {}
