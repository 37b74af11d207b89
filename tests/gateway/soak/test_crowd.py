"""The programs that play payers: none holds a soak for ever, none ends while it is needed."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from gateway.demo import crowd
from gateway.demo.parts import part_of
from gateway.embedded.processes import wait_until
from gateway.errors import Unavailable
from gateway.simulators.tally import tally
from tests.gateway.test_simulators import some_notices, write_notices

IN_VAIN = """
import sys, time
for number in range(3000):
    with open(sys.argv[1], "a") as journal:
        print('{"line":"send","step":"%d.0"}' % number, file=journal)
        print('{"line":"answer","as_expected":false,"last":false}', file=journal)
    time.sleep(0.01)
"""


def test_lines_of_those_who_gave_up_are_no_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "STANDSTILL_SECONDS_MAX", 0.5)
    journal = tmp_path / "bank.jsonl"
    argv = [sys.executable, "-c", IN_VAIN, str(journal)]
    part = crowd.Part("bank", argv, os.environ, journal, tmp_path / "bank.log")
    gave_up = pytest.raises(Unavailable, match="payers of bank have got no answer")
    with gave_up, crowd.playing([part], lambda _done, _of: None):
        pass
    assert journal.exists()


# -- who is called back ---------------------------------------------------------------------------


class Product(BaseHTTPRequestHandler):
    """Takes every payment, says later what became of it, and remembers where it said so."""

    put: ClassVar[list[tuple[str, str, bytes]]]
    """Address, correlation id and body of each callback."""
    forgetful: ClassVar[bool]
    """Whether nothing is ever put."""

    def do_GET(self) -> None:
        if "/bills" in self.path:
            self._answer(200, [{"billReference": self.path.split("/")[-2]}])
        else:
            self._answer(200, {"status": "completed"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        named, to = self.headers["X-CorrelationID"], self.headers.get("X-Callback-URL")
        self._answer(202, {"serverCorrelationId": named})
        if to is not None and not self.forgetful:
            said = json.dumps({**json.loads(body), "billPaymentStatus": "completed"}).encode()
            self.put.append((to, named, said))
            assert callback(to, named, said) == 204

    def _answer(self, status: int, said: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def callback(to: str, named: str, said: bytes) -> int:
    return httpx.put(to, content=said, headers={"X-CorrelationID": named}).status_code


@contextmanager
def an_operator(folder: Path, *, forgetful: bool = False) -> Iterator[tuple[crowd.Part, Any]]:
    """Have a product, and the part that plays an operator who pays by it."""
    product = type("Product", (Product,), {"put": [], "forgetful": forgetful})
    server = ThreadingHTTPServer(("127.0.0.1", 0), product)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    notices = write_notices(folder / "notices.csv", some_notices(60))
    words = ["--plain", "--seed", "3"]
    try:
        yield (
            part_of(
                {"name": "mobile-money", "kind": "gsma", "api_keys": ["key"]},
                base_url=f"http://127.0.0.1:{server.server_port}",
                # Any port, so that it can only come back to the same one by its journal.
                words=[*words, "--notices", str(notices), "--callback-port", "0"],
                journal=folder / "mobile-money.jsonl",
                log=folder / "mobile-money.log",
                environment=os.environ,
            ),
            product,
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_callback_that_comes_again_after_the_last_payment_is_answered(tmp_path: Path) -> None:
    with an_operator(tmp_path) as (part, product):
        with crowd.playing([part], lambda _done, _of: None) as keep:
            # As a worker does that was killed before it noted the answer.
            assert [callback(*each) for each in product.put] == [204] * len(product.put) != []
            [pid] = processes_of(part)
            os.kill(pid, signal.SIGKILL)
            assert wait_until(lambda: keep() or processes_of(part) not in ([], [pid]), 20)
            assert wait_until(lambda: is_answered(product.put[0]), 20)
        assert processes_of(part) == []
    told = tally([part.journal])
    assert (len(told.expected) > 3, told.surprises) == (True, 0)


def test_a_callback_that_is_owed_and_never_comes_is_a_surprise(tmp_path: Path) -> None:
    with (
        an_operator(tmp_path, forgetful=True) as (part, _),
        crowd.playing([part], lambda _done, _of: None),
    ):
        pass
    told = tally([part.journal])
    assert told.surprises > 0
    assert "no outcome was put" in told.first_surprises[0]


def is_answered(put: tuple[str, str, bytes]) -> bool:
    try:
        return callback(*put) == 204
    except httpx.TransportError:
        return False


def processes_of(part: crowd.Part) -> list[int]:
    """Return the processes that write the journal of a part."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_text().split("\0")
            except OSError:
                continue
            if str(part.journal) in words:
                found.append(int(entry.name))
    return found
