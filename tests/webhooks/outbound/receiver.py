"""A receiver of what we send: a real server that verifies by the official library."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

from tests.factories import PATIENCE_SECONDS


@dataclass(frozen=True)
class Got:
    """One message that came."""

    id: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.body)
        return read

    def verifies(self, secret: str) -> bool:
        try:
            Webhook(secret).verify(self.body, dict(self.headers))
        except Exception:  # noqa: BLE001 - the library lets many kinds through
            return False
        return True


@dataclass(frozen=True)
class Answer:
    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    hang: bool = False


class Receiver(ThreadingHTTPServer):
    """Keeps what comes, and answers each as it is told."""

    daemon_threads = True
    request_queue_size = 50

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[Got] = []
        self.paths: list[str] = []
        self.connections = 0
        self.answer: Callable[[Got], Answer] = lambda _: Answer()
        self.release = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: what a test cuts off is no news."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?of=us"

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.got]

    @property
    def firsts(self) -> list[str]:
        """What came, each the first time."""
        return list(dict.fromkeys(self.ids))


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        got = Got(self.headers["webhook-id"], dict(self.headers), body)
        answer = self.server.answer(got)
        self.server.paths.append(self.path)
        self.server.got.append(got)
        if answer.hang:
            self.server.release.wait(PATIENCE_SECONDS)
            self.close_connection = True
            return
        # At once: two small writes would wait for one another.
        head = {"Content-Length": str(len(answer.body)), **answer.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        self.wfile.write(f"HTTP/1.1 {answer.status} .\r\n{lines}\r\n".encode() + answer.body)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *args: Any) -> None: ...


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.release.set()
        receiver.shutdown()
        thread.join()
        receiver.server_close()
