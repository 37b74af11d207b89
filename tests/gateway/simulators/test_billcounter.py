"""The counters of a bill hub: what they plan, and what they do when answers are lost."""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gateway.simulators.billcounter import Hub, expected, plan
from gateway.simulators.dealing import Case, deal_plainly
from gateway.simulators.deliveries import Step
from gateway.simulators.faults import Fate
from tests.gateway.test_simulators import NOON, some_notices


def cases(count: int = 400) -> list[Case]:
    return [c for c in deal_plainly(some_notices(count), seed=3) if c.provider == "bill-hub"]


def told(case: Case, **fate: Any) -> list[tuple[str, int | None]]:
    return [(expected(step), step.booked_minor) for step in plan(case, NOON, Fate(**fate))]


def test_every_story_ends_with_the_bill_paid_once() -> None:
    stories: Counter[str] = Counter()
    for case in cases():
        due = case.notice.amount_minor
        for fate in ({}, {"reorder": True}, {"double": True, "wrong_amount": True}, {"late": 3}):
            steps = plan(case, NOON, Fate(**fate))
            last = {step.payment_id: step.booked_minor for step in steps}
            assert sum(minor or 0 for minor in last.values()) == due
            stories.update(expected(step) for step in steps)
            assert steps == [Step.of_line(step.as_line()) for step in steps]
    assert set(stories) == {"booked", "cancelled", "declined", "conflicting"}
    assert told(cases()[0], wrong_currency=True) == [("quarantined", 0)]


class Product(BaseHTTPRequestHandler):
    """Books a confirm, and loses the answer to the first one."""

    calls: list[tuple[str, Any]]
    booked: dict[str, int]

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        call = self.path.rpartition("/")[2]
        self.calls.append((call, said))
        if call == "inquiry":
            self._answer({"bills": [{"inquiry_id": "i-1"}]})
        elif call == "status":
            self._answer({"result": "booked" if self.booked else "unknown"})
        else:
            self.booked[said["transaction_id"]] = 1
            if len(self.booked) == 1 and sum(c == "confirm" for c, _ in self.calls) == 1:
                self.close_connection = True
                return
            self._answer({"result": "booked"})

    def _answer(self, said: object) -> None:
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def test_an_answer_that_was_lost_is_asked_for() -> None:
    product = type("Product", (Product,), {"calls": [], "booked": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), product)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    case = next(c for c in cases() if told(c)[0][0] == "booked")
    (step,) = plan(case, NOON, Fate())
    hub = Hub(f"http://127.0.0.1:{server.server_port}/bills/hub", api_key="key")
    try:
        outcome = hub.deliver(step, stop=threading.Event())
    finally:
        hub.close()
        server.shutdown()
        thread.join()
        server.server_close()
    assert outcome.as_expected(step)
    made = [call for call, _ in product.calls if call != "inquiry"]  # type: ignore[attr-defined]
    assert made == ["confirm", "status"]


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not an http address"):
        Hub("nowhere", api_key="key")
