"""The card page's stand-in against the product: what it captured is what is booked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from gateway.providers import WantedPage
from gateway.providers.calls import Call
from gateway.providers.cmi import Cmi, CmiSettings
from gateway.simulators.cardbank import CAPTURE, Bank, captures, signature
from gateway.simulators.cardpage import Server
from gateway.simulators.faults import Faults
from gateway.simulators.journal import Journal, Line, read_journal
from tests.factories import (
    NOON,
    a_desk,
    an_answerer,
    broken_promises,
    seal,
    some_invoices,
    the_books,
)
from webhooks.answering import answer
from webhooks.inbox import drain

KEY: Final = "sandbox-kW4tR9pXz2LmQ7vB"
CLIENT: Final = "600000000"
DOUBTED: Final = Faults(7, lose=1, double=1, reorder=1, late=1, wrong_amount=1, tamper=1, fail=1)


def a_cmi(base: str = "http://127.0.0.1:9") -> Cmi:
    settings = {"client_id": CLIENT, "store_key": KEY, "api_base": base}
    return Cmi("cmi", CmiSettings.model_validate(settings))


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[ThreadingHTTPServer]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Merchant(BaseHTTPRequestHandler):
    """The product's answers, behind the standard library's server."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        reply = answer(an_answerer(), a_cmi(), Call("POST", "", {}, {}, body, NOON))
        self.send_response(reply.status)
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def callback(database: str) -> Iterator[str]:
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Merchant)) as merchant:
        yield f"http://127.0.0.1:{merchant.server_port}/webhooks/cmi"


def ask(bank: Server, oid: str, callback: str, **values: str) -> httpx.Response:
    asked = {"oid": oid, "amount": "163.52", "callbackUrl": callback, **values}
    return httpx.post(f"{bank.address}/_control/pay", json=asked)


def the_books_are_those_of(lines: list[Line]) -> None:
    booked = {p[1]: p[3] if p[2] == "booked" else 0 for p in the_books().payments}
    told = captures(lines)
    assert {named: minor for named, minor in told.items() if minor} == {
        named: minor for named, minor in booked.items() if minor
    }
    seal()
    assert broken_promises(deliveries=True) == []


def test_whatever_goes_wrong_the_books_are_what_the_bank_captured(
    callback: str, tmp_path: Path
) -> None:
    paid, refused = some_invoices(2)
    path = tmp_path / "bank.jsonl"
    with Journal(path) as journal, ExitStack() as stack:
        bank = Bank(KEY, CLIENT, clock=lambda: NOON, journal=journal, faults=DOUBTED)
        server = Server(0, bank)
        stack.enter_context(serving(server))
        assert ask(server, paid, callback).status_code == 500, "the first call about it fails"
        said = ask(server, paid, callback).json()
        assert (said["answer"], said["captured"]) == (CAPTURE, "163.52")
        assert ask(server, paid, callback).json() == said, "an order is captured once"
        ask(server, refused, callback)
        assert ask(server, refused, callback, deed="decline").json()["captured"] == "0.00"
        wrong = ask(server, refused, callback, amount="1.00").json()
        assert (wrong["answer"], wrong["captured"]) == ("APPROVED", "0.00")
        shown = httpx.get(f"{server.address}/_control/payments").json()
    lines = read_journal(path)
    assert shown == captures(lines)
    assert [line for line in lines if line["line"] == "answer" and not line["as_expected"]] == []
    kinds = [line["kind"] for line in lines if line["line"] == "send"]
    assert kinds[:5] == ["tampered", "accepted", "again", "other_amount", "declined"]
    drain(a_desk(a_cmi()), batches_max=5)
    planted = sorted(line["planted"] for line in lines if line.get("planted"))
    assert sorted(code for code, _ in the_books().exceptions) == planted
    the_books_are_those_of(lines)


def test_a_bank_that_was_killed_asks_again_and_captures_what_was_booked(
    callback: str, tmp_path: Path
) -> None:
    [reference] = some_invoices()
    path = tmp_path / "bank.jsonl"
    form = {"clientid": CLIENT, "oid": reference, "amount": "163.52", "currency": "504"}
    with Journal(path) as journal:
        bank = Bank(KEY, CLIENT, clock=lambda: NOON, journal=journal, faults=Faults(1, double=1))
        done = bank.pay({**form, "callbackUrl": callback}, accepted=True)
    # Killed before the first answer: the announcements are in the file, and nothing else.
    lines = [line for line in read_journal(path) if line["line"] == "send"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "ascii")
    with Journal(path) as journal:
        again = Bank(KEY, CLIENT, clock=lambda: NOON, journal=journal, past=read_journal(path))
        assert again.captured == {}
        again.resume()
        assert again.captured == {done.payment_id: 16352}
        assert again.pay({**form, "callbackUrl": callback}, accepted=True) == done
    the_books_are_those_of(read_journal(path))


def test_a_browser_is_led_through_the_page_and_back(callback: str) -> None:
    [reference] = some_invoices()
    bank = Bank(KEY, CLIENT, clock=lambda: NOON)
    with serving(Server(0, bank)) as server:
        assert isinstance(server, Server)
        wanted = WantedPage(
            attempt_id="wasl_1",
            reference=reference,
            amount_minor=16352,
            language="ar",
            back="https://amo.example.ma/?card=back&lang=ar",
            left="https://amo.example.ma/?card=left",
            expires_at=NOON,
            notify_url=callback,
        )
        made = a_cmi(server.address).make_page(wanted)
        form = dict(made.fields)
        page = httpx.post(made.url, data=form)
        assert page.status_code == 200
        assert 'lang="ar" dir="rtl"' in page.text
        assert "163.52" in page.text
        assert httpx.post(made.url, data={**form, "amount": "1.00"}).status_code == 400
        refused = httpx.post(f"{server.address}/fim/pay", data={**form, "_deed": "decline"})
        assert 'action="https://amo.example.ma/?card=left"' in refused.text
        done = httpx.post(f"{server.address}/fim/pay", data={**form, "_deed": "pay"})
    assert 'action="https://amo.example.ma/?card=back&amp;lang=ar"' in done.text
    assert [p[2:] for p in the_books().payments if p[2] == "booked"] == [
        ("booked", 16352, reference)
    ]
    brought_back = bank.pay(form, accepted=True).fields
    assert brought_back["oid"] == made.session_id
    assert brought_back["HASH"] == signature(brought_back, KEY)
