"""Asking Stripe, over the wire: the official client, and a stand-in that answers as Stripe does."""

from __future__ import annotations

import http.client
import json
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
import stripe

from gateway.collection.reports import (
    AttemptLapsed,
    PaymentReport,
    Report,
    ReturnReport,
    Statement,
    Unbookable,
)
from gateway.errors import ProviderAway, ProviderRefused
from gateway.models import ReturnKind, ReturnState
from gateway.providers import PageFailed, PageState, WantedPage, stripe_pages
from gateway.providers.stripe import Stripe, StripeSettings
from gateway.providers.stripe_pages import StripePages
from gateway.simulators.stripe import Server, World
from tests.factories import NOON, PATIENCE_SECONDS, at_once
from tests.stand_in import SECRET, pages_of, standing_in


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.01)
    with standing_in() as server:
        yield server.world


def wanted(**values: Any) -> WantedPage:
    return WantedPage(
        **{
            "attempt_id": "wasl_1",
            "reference": "148275036141",
            "amount_minor": 16352,
            "language": "fr",
            "back": "https://amo.example.ma/148275036141?card=back",
            "left": "https://amo.example.ma/148275036141?card=left",
            "expires_at": NOON + timedelta(hours=1),
            **values,
        }
    )


def a_client(world: World) -> Any:
    return stripe.StripeClient("sk_test_1", base_addresses={"api": world.address})


def test_a_page_asks_for_what_is_due_and_says_what_it_is_for(world: World) -> None:
    made = pages_of(world).make_page(wanted())
    session = world.things[made.session_id]
    assert made.url == f"{world.address}/c/{made.session_id}"
    assert (session["amount_total"], session["currency"]) == (16352, "mad")
    assert session["client_reference_id"] == "148275036141"
    kept = {"invoice_ref": "148275036141", "attempt_id": "wasl_1"}
    assert session["metadata"] == session["_intent_metadata"] == kept
    assert session["locale"] == "fr"
    assert session["expires_at"] == int((NOON + timedelta(hours=1)).timestamp())
    arabic = pages_of(world).make_page(wanted(attempt_id="wasl_2", language="ar"))
    assert world.things[arabic.session_id]["locale"] == "auto"


def test_the_same_wish_makes_one_page_and_another_wish_under_its_name_none(world: World) -> None:
    pages = pages_of(world)
    made = pages.make_page(wanted())
    assert pages.make_page(wanted()) == made
    with pytest.raises(ProviderRefused, match="Idempotency"):
        pages.make_page(wanted(amount_minor=1))
    assert len(world.all("checkout.session")) == 1


def test_an_answer_that_is_lost_is_found_again(world: World) -> None:
    world.faults.lost_answers = 2  # the client itself tries once more
    with pytest.raises(ProviderAway) as raised:
        pages_of(world).make_page(wanted())
    assert not isinstance(raised.value, ProviderRefused)
    made = pages_of(world).make_page(wanted())
    assert [made.session_id] == [s["id"] for s in world.all("checkout.session")]


def test_two_who_ask_the_same_at_once_get_one_page(world: World) -> None:
    world.faults.slow = 0.3
    pages = [pages_of(world) for _ in range(2)]
    made = at_once(*[lambda each=each: each.make_page(wanted()) for each in pages])
    assert made[0] == made[1]
    assert len(world.all("checkout.session")) == 1


def test_an_error_that_is_kept_under_a_key_is_told_apart(world: World) -> None:
    pages = pages_of(world)
    world.faults.failures = 1
    for _ in range(2):
        with pytest.raises(PageFailed):
            pages.make_page(wanted())
    assert pages.make_page(wanted(attempt_id="wasl_2")).session_id


def test_an_answer_that_comes_byte_by_byte_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_pages, "CALL_SECONDS_MAX", 0.2)
    monkeypatch.setattr(stripe_pages, "SLOW_SECONDS", 0.1)
    pages = pages_of(world)
    world.faults.slow = 1.0
    with pytest.raises(ProviderAway, match="TimeoutError"):
        pages.make_page(wanted())
    # Nobody else waits for it, for a while.
    world.faults.slow = 0.0
    with pytest.raises(ProviderAway, match="left alone"):
        pages.ask("cs_1", received_at=NOON)


def test_the_stand_in_takes_a_key_as_curl_gives_it(world: World) -> None:
    for user, status in (("sk_test_1234", 404), ("nobody", 401)):
        answer = httpx.get(f"{world.address}/v1/refunds/re_1", auth=(user, ""))
        assert answer.status_code == status


def test_what_stripe_refuses_is_told_apart_from_its_being_away(world: World) -> None:
    pages = pages_of(world)
    for wish in (wanted(expires_at=NOON + timedelta(minutes=5)), wanted(amount_minor=0)):
        with pytest.raises(ProviderRefused):
            pages.make_page(wish)
    with pytest.raises(ProviderRefused):
        pages.ask("cs_of_nobody", received_at=NOON)
    world.faults.away = True
    for call in (
        lambda: pages.make_page(wanted()),
        lambda: pages.ask("cs_1", received_at=NOON),
        lambda: pages.close_page("cs_1"),
    ):
        with pytest.raises(ProviderAway) as raised:
            call()
        assert not isinstance(raised.value, ProviderRefused)


def test_what_becomes_of_a_page(world: World) -> None:
    pages = pages_of(world)
    made = pages.make_page(wanted())
    answer = pages.ask(made.session_id, received_at=NOON)
    assert (answer.state, answer.reports) == (PageState.OPEN, ())
    session = world.things[made.session_id]
    world.decline(session)
    assert pages.ask(made.session_id, received_at=NOON).state is PageState.OPEN
    world.pay(session)
    answer = pages.ask(made.session_id, received_at=NOON)
    assert answer.state is PageState.USED
    [report] = answer.reports
    assert isinstance(report, PaymentReport)
    assert report.statement is Statement.COMPLETED
    assert report.provider_payment_id == session["payment_intent"]
    assert report.attempt_id == "wasl_1"
    assert report.source == f"inquiry:stripe/{made.session_id}"
    assert pages.close_page(made.session_id) is PageState.USED


def test_a_page_is_closed_or_runs_out(world: World) -> None:
    pages = pages_of(world)
    made = pages.make_page(wanted())
    assert pages.close_page(made.session_id) is PageState.CLOSED
    assert pages.close_page(made.session_id) is PageState.CLOSED
    later = pages.make_page(wanted(attempt_id="wasl_2"))
    world.clock = lambda: NOON + timedelta(hours=2)
    answer = pages.ask(later.session_id, received_at=NOON)
    assert answer.state is PageState.CLOSED
    assert answer.reports == (
        AttemptLapsed("stripe", later.session_id, f"inquiry:stripe/{later.session_id}"),
    )


def test_a_payment_that_failed_after_its_page_was_finished_ends_the_attempt(world: World) -> None:
    pages = pages_of(world)
    made = pages.make_page(wanted())
    session = world.things[made.session_id]
    world.decline(session)
    session |= {"status": "complete"}
    answer = pages.ask(made.session_id, received_at=NOON)
    assert answer.state is PageState.CLOSED
    failed, lapsed = answer.reports
    assert isinstance(failed, PaymentReport)
    assert failed.statement is Statement.DECLINED
    assert isinstance(lapsed, AttemptLapsed)


def test_refunds_are_learned_by_asking_too(world: World) -> None:
    pages = pages_of(world)
    made = pages.make_page(wanted())
    session = world.things[made.session_id]
    world.pay(session)
    client = a_client(world)
    named = session["payment_intent"]
    for amount in (5000, 1000):
        client.v1.refunds.create({"payment_intent": named, "amount": amount})
    first = min(world.all("refund"), key=lambda refund: -int(refund["amount"]))
    world.fail_refund(first)
    reports = pages.ask(made.session_id, received_at=NOON).reports
    returns = [r for r in reports if isinstance(r, ReturnReport)]
    assert {(r.kind, r.state, r.amount_minor) for r in returns} == {
        (ReturnKind.REFUND, ReturnState.RESTORED, 5000),
        (ReturnKind.REFUND, ReturnState.GIVEN, 1000),
    }
    assert {r.provider_payment_id for r in returns} == {named}


def test_a_page_where_no_form_of_ours_may_lead_is_none(world: World) -> None:
    pages = pages_of(world)
    world.address = world.address.replace("127.0.0.1", "localhost")
    with pytest.raises(ProviderAway, match="pages_origin"):
        pages.make_page(wanted())


def test_nothing_of_a_payer_and_no_key_is_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    pages = pages_of(world)
    made = pages.make_page(wanted())
    world.pay(world.things[made.session_id])
    pages.ask(made.session_id, received_at=NOON)
    assert caplog.records, "something is logged, or this says nothing"
    assert not any(text in caplog.text for text in ("sk_test_1234", "148275036141", "16352"))


def test_an_answer_of_the_other_mode_is_never_booked(world: World) -> None:
    pages = pages_of(world)
    made = pages.make_page(wanted())
    session = world.things[made.session_id]
    world.pay(session)
    world.things[session["payment_intent"]]["livemode"] = True
    [report] = pages.ask(made.session_id, received_at=NOON).reports
    assert isinstance(report, Unbookable)


def _said(call: Callable[[], object]) -> str:
    try:
        return repr(call())
    except ProviderAway as error:
        return str(error)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"not json"),
        (200, b"[]"),
        (200, b"null"),
        (200, b'{"id": 7, "url": 8, "status": 9, "object": 10}'),
        (200, b'{"id": "cs_1", "status": "open", "url": "http://elsewhere.example/"}'),
        (200, b'{"id": "cs_1", "status": "a word to come"}'),
        (200, b"\xff\xfe"),
        (400, b"<html>"),
        (401, b'{"error": {"message": "no"}}'),
        (402, b'{"error": {"type": "card_error", "code": "card_declined"}}'),
        (500, b""),
    ],
)
def test_no_answer_lets_an_exception_of_the_library_out(status: int, body: bytes) -> None:
    class Odd(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Stripe-Should-Retry", "false")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Odd)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        values = {
            "secrets": [SECRET],
            "api_key": "sk_test_1234",
            "api_base": f"http://127.0.0.1:{server.server_port}",
        }
        pages = StripePages("stripe", StripeSettings.model_validate(values), live=False)
        for call in (
            lambda: pages.make_page(wanted()),
            lambda: pages.ask("cs_1", received_at=NOON),
            lambda: pages.close_page("cs_1"),
        ):
            assert "sk_test" not in _said(call)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# -- what the stand-in tells ----------------------------------------------------------------------


class Hook(BaseHTTPRequestHandler):
    """Takes what is delivered, and judges it as the product does."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hearing: Hearing = self.server  # type: ignore[assignment]
        named = hearing.provider.authenticate(
            {"stripe-signature": self.headers["Stripe-Signature"]}, body, now=NOON
        )
        hearing.heard.append(
            hearing.provider.parse(body, delivery_id=named, received_at=NOON),
        )
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Hearing(HTTPServer):
    """A webhook endpoint."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hook)
        values = {"secrets": [SECRET]}
        self.provider = Stripe("stripe", StripeSettings.model_validate(values), live=False)
        self.heard: list[Report] = []

    def wait_for(self, how_many: int) -> list[Report]:
        self.timeout = PATIENCE_SECONDS
        while len(self.heard) < how_many:
            self.handle_request()
        return self.heard


@pytest.fixture
def hearing() -> Iterator[Hearing]:
    server = Hearing()
    yield server
    server.server_close()


def control(server: Server, path: str, **given: Any) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    try:
        body = json.dumps(given)
        connection.request("POST", f"/_control/{path}", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        return json.loads(answer.read())
    finally:
        connection.close()


def test_the_stand_in_tells_what_the_product_understands(hearing: Hearing) -> None:
    with standing_in(f"http://127.0.0.1:{hearing.server_port}/x") as server:
        made = pages_of(server.world).make_page(wanted())
        control(server, f"sessions/{made.session_id}/decline")
        control(server, f"sessions/{made.session_id}/pay")
        intent = server.world.things[made.session_id]["payment_intent"]
        refund = a_client(server.world).v1.refunds.create(
            {"payment_intent": intent, "amount": 5000}
        )
        control(server, f"refunds/{refund.id}/fail")
        dispute = control(server, "disputes", payment_intent=intent)
        control(server, f"disputes/{dispute['id']}/funds_withdrawn")
        control(server, f"disputes/{dispute['id']}/closed", status="won")
        control(server, f"disputes/{dispute['id']}/funds_reinstated")
        told = len(server.world.events)
        heard = hearing.wait_for(told)
    payments = [r for r in heard if isinstance(r, PaymentReport)]
    assert sorted(r.statement for r in payments) == ["completed", "completed", "declined"]
    assert {r.key for r in payments} == {("stripe", intent)}
    returns = [r for r in heard if isinstance(r, ReturnReport)]
    assert sorted((r.kind.value, r.state.value, r.outcome) for r in returns if r.outcome) == [
        ("dispute", "announced", "won")
    ]
    assert len(returns) == 7
    assert not any(isinstance(r, Unbookable) for r in heard)


def test_the_stand_in_doubles_and_loses(hearing: Hearing) -> None:
    with standing_in(f"http://127.0.0.1:{hearing.server_port}/x") as server:
        control(server, "faults", lose=1.0)
        made = pages_of(server.world).make_page(wanted())
        control(server, f"sessions/{made.session_id}/pay")
        control(server, "faults", lose=0.0, double=1.0, reorder=True)
        last = server.world.events[-1]["id"]
        control(server, f"events/{last}/resend")
        heard = hearing.wait_for(2)
        assert len(server.world.events) == 4
    assert heard[0] == heard[1]
    assert isinstance(heard[0], PaymentReport)
