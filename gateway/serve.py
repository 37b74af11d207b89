"""Run the web process: `python -m gateway.serve --port 8000`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Final

import uvicorn
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway import startup
from gateway.bodies import AT_ONCE
from gateway.errors import Unusable
from gateway.logs import configure_logs
from gateway.services import tell

HEAD_BYTES_MAX: Final = 32 * 1024
HEAD_SECONDS_MAX: Final = 20.0
"""Until a head is whole, from the connection or from its first byte: silence takes a place too."""
CONNECTIONS_MAX: Final = 1_000
"""A bound on memory: each may be in the middle of one body. More are told to come back."""
QUEUED_MAX: Final = 32
"""Requests of one connection that came before those ahead of them were answered."""

_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class _TooManyQueued(Exception):
    """Ends the reading of what came; uvicorn takes it for a request that cannot be read."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol with bounds on a request's head, in bytes and in time: it has none.

    What follows a body in parts (its trailers) is bounded as a head is, and not read. Requests that
    are sent without waiting for answers are bounded in number.

    And with less to do for each of many small requests: no timer for what has come already or for
    a connection that is busy, and a small answer in one piece.
    """

    _head_bytes = 0
    """That came and are no part of a body, since the last that were, or that ended a request."""
    _in_head = True
    _has_begun = False
    """Whether a part of a head is there."""
    _deadline: asyncio.TimerHandle | None = None
    _idle_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._wait_for_a_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._wait_no_more()
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def _wait_for_a_head(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS_MAX, self._too_late)

    def _wait_no_more(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the wire; end the connection whose head does not end."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > HEAD_BYTES_MAX:
            if not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()
        elif self._in_head and (self._has_begun or self._head_bytes) and self._deadline is None:
            # Most heads come whole; only for the others is there a deadline to be kept.
            self._wait_for_a_head()

    def on_message_begin(self) -> None:
        """Begin to count a head."""
        self._head_bytes, self._in_head, self._has_begun = 0, True, True
        self._wait_no_more()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop counting: a body has its own bounds."""
        self._in_head = self._has_begun = False
        self._wait_no_more()
        super().on_headers_complete()
        # Trailers would be put beside the headers: after a proxy looked at these, and without end.
        self.headers = []
        if len(self.pipeline) > QUEUED_MAX:
            self.transport.close()
            raise _TooManyQueued

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Whatever comes next is the next head."""
        self._head_bytes, self._in_head = 0, True
        self.scope["extensions"] = {AT_ONCE: self._answer_at_once}  # type: ignore[dict-item]
        super().on_message_complete()

    def _answer_at_once(self, scope: Scope, status: int, rest: bytes) -> bool:
        """Send a whole answer as `RequestResponseCycle.send` would in two; say whether it was."""
        cycle = self.cycle
        if (
            cycle.scope is not scope  # another request came in behind it
            or cycle.disconnected
            or cycle.response_started
            or not cycle.keep_alive
            or self.flow.write_paused
        ):
            return False
        cycle.response_started = cycle.response_complete = True
        head = b"".join(b"%s: %s\r\n" % header for header in cycle.default_headers)
        self.transport.write(STATUS_LINE[status] + head + rest)
        cycle.message_event.set()
        cycle.on_response()
        return True

    # -- silence between requests: one timer that looks now and then, not one for each request ----

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        if not self._in_head and self._deadline is None:
            # Its body is still to come, and nobody waits for it any more.
            self._wait_for_a_head()
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_later(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def _look_later(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that was silent for so long; one that is busy is looked at later."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_later(left)
        else:
            super().timeout_keep_alive_handler()


def main() -> None:
    """Serve until told to stop. The environment says what; see gateway.settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="the port to listen at (8000)")
    arguments = parser.parse_args()
    configure_logs()
    try:
        proxies = startup.require("web").proxies()
    except Unusable as error:
        tell(str(error))
        sys.exit(2)
    uvicorn.run(
        "gateway.app:create_app",
        factory=True,
        host=arguments.host,
        port=arguments.port,
        loop="uvloop",
        http=BoundedHttp,
        limit_concurrency=CONNECTIONS_MAX,
        # Addresses hold references: the access log would be a list of who looked at what.
        access_log=False,
        log_config=None,
        server_header=False,
        # Who guesses references is counted by address: nobody may choose his own.
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies or "",
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
