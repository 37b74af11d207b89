"""Chari Pay and YouCan Pay: every published construction, whatever strangers send, and pages."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.collection.reports import (
    AttemptLapsed,
    NotAboutMoney,
    PaymentReport,
    Report,
    ReturnReport,
    Unbookable,
)
from gateway.collection.returns import Return, given_back_minor, hear
from gateway.errors import BadSignature, ProviderAway, ProviderRefused, Unusable
from gateway.models import Channel, ExceptionCode, Manner, ReturnKind, ReturnState
from gateway.providers import MadePage, PageProvider, PageState, Provider, WantedPage
from gateway.providers.asking import post_json
from gateway.providers.chari import Chari
from gateway.providers.chari_pages import ChariPages
from gateway.providers.chari_pages import make as make_chari
from gateway.providers.registry import read_providers, unsafe_in_production
from gateway.providers.youcan import YouCan, YouCanPages
from gateway.providers.youcan import make as make_youcan
from gateway.simulators.aggregator import Aggregator, ChariDialect, YouCanDialect
from gateway.simulators.aggregatorpage import Server
from gateway.simulators.faults import Faults
from gateway.simulators.journal import Journal, read_journal
from gateway.simulators.pages import page_tally
from tests.factories import (
    NOON,
    a_delivery,
    a_desk,
    balances,
    broken_promises,
    seal,
    some_invoices,
    the_books,
)
from webhooks.inbox import drain

GOLDEN: Final = json.loads(
    (Path(__file__).parents[2] / "golden" / "moroccan_aggregators.json").read_text("utf-8")
)
CHARI: Final = GOLDEN["chari_pay"]
YOUCAN: Final = GOLDEN["youcan_pay"]
T0: Final = datetime.fromtimestamp(1795000000.123, UTC)
SECRET: Final = "chari_whsec_of_this_test"
PRIVATE: Final = "pri_sandbox_of_this_test"


ATTEMPT: Final = f"wasl_{7:032x}"


def a_chari(*, live: bool = False, has_sibling: bool = False, **values: Any) -> Chari:
    made = {"secrets": [SECRET], **values}
    return make_chari("chari", made, live=live, has_sibling=has_sibling)


def a_youcan(*, live: bool = False, has_sibling: bool = False, **values: Any) -> YouCan:
    made = {"secrets": [PRIVATE], **values}
    return make_youcan("youcan", made, live=live, has_sibling=has_sibling)


def hex_of(secret: str, signed: bytes) -> str:
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def signed_chari(body: bytes, *, at: datetime = T0, secret: str = SECRET) -> dict[str, str]:
    stamp = str(int(at.timestamp() * 1000))
    signature = hex_of(secret, f"{stamp}.".encode() + body)
    return {"chari-webhook-timestamp": stamp, "chari-webhook-signature": signature}


def lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def chari_event(kind: str = "payment.succeeded", *, number: int = 1, **data: Any) -> bytes:
    said = {
        "WebhookEventId": f"event-{number}",
        "eventType": kind,
        "createdAt": "2026-11-18T12:00:00Z",
        "data": {
            "paymentSessionId": "ps_1",
            "merchantReference": "148275036141",
            "amount": 163.52,
            "currency": "MAD",
            **data,
        },
    }
    return json.dumps(said).encode()


def youcan_event(
    kind: str = "transaction.paid", *, number: int = 1, sandbox: object = True, **what: Any
) -> bytes:
    way = what.pop("payment_method", {"id": 1, "name": "credit_card"})
    transaction = {
        "id": "tr_1",
        "order_id": "148275036141",
        "amount": "16352",
        "currency": "MAD",
        "created_at": "2026-11-18T12:00:00.000000Z",
        **what,
    }
    payload = {"transaction": transaction, "payment_method": way, "metadata": {}}
    event = {"id": f"evt_{number}", "event_name": kind, "sandbox": sandbox, "payload": payload}
    return json.dumps(event).encode()


def read(provider: Chari | YouCan, body: bytes) -> Report:
    return provider.parse(body, delivery_id="d", received_at=NOON)


def a_payment(report: Report) -> PaymentReport:
    assert isinstance(report, PaymentReport)
    return report


# -- the golden file ------------------------------------------------------------------------------


def test_the_published_chari_event_is_authentic_and_read_as_written() -> None:
    provider = a_chari(secrets=[CHARI["secret"]])
    headers, body = lower(CHARI["headers"]), CHARI["body"].encode()
    named = provider.authenticate(headers, body, now=T0)
    assert named == CHARI["headers"]["Chari-Event-Id"]
    report = a_payment(provider.parse(body, delivery_id=named, received_at=T0))
    assert (report.provider_payment_id, report.reference_given) == ("ps_TEST1", "148275036141")
    assert (report.amount_minor, report.currency) == (17250, "MAD")
    assert report.paid_at == T0
    # One that also asks knows a payment by our attempt only: this one would be booked twice.
    asks = a_chari(secrets=[CHARI["secret"]], api_key="chari_sk_test_1")
    left = asks.parse(body, delivery_id=named, received_at=T0)
    assert isinstance(left, Unbookable)
    assert left.code is ExceptionCode.UNREADABLE_DELIVERY
    edge = headers | {"chari-webhook-timestamp": CHARI["edge"]["seconds_instead_of_ms"]}
    assert CHARI["edge"]["expected_http"] == 400
    with pytest.raises(BadSignature, match="milliseconds"):
        provider.authenticate(edge, body, now=T0)


def test_the_published_youcan_event_is_authentic_and_read_as_written() -> None:
    provider = a_youcan(secrets=[YOUCAN["private_key"]])
    body = YOUCAN["body"].encode()
    assert provider.authenticate(lower(YOUCAN["header"]), body, now=T0) == "evt_1"
    # Without a time of its own it is authentic for ever: a replay has the same id.
    later = T0 + timedelta(days=900)
    assert provider.authenticate(lower(YOUCAN["header"]), body, now=later) == "evt_1"
    report = a_payment(provider.parse(body, delivery_id="evt_1", received_at=T0))
    assert (report.provider_payment_id, report.reference_given) == ("tr_1", "148275036141")
    assert (report.amount_minor, report.channel) == (17250, Channel.CASH_AGENT)
    of_the_other = a_youcan(secrets=[YOUCAN["private_key"]], live=True)
    told = of_the_other.parse(body, delivery_id="evt_1", received_at=T0)
    assert isinstance(told, Unbookable)
    assert told.code is ExceptionCode.WRONG_MODE


def test_the_constructions_of_payzone_are_as_published() -> None:
    """There is no such kind: what one would have to compute is kept here."""
    request, callback = GOLDEN["payzone"]["request"], GOLDEN["payzone"]["callback"]
    signed = (request["paywallSecretKey"] + request["payload"]).encode()
    assert hashlib.sha256(signed).hexdigest() == request["signature"]
    made = hex_of(callback["notificationKey"], callback["body"].encode())
    assert made == callback["header"]["X-Callback-Signature"].lower()


# -- who signed -----------------------------------------------------------------------------------


def test_five_minutes_by_the_business_clock_both_ways() -> None:
    provider, body = a_chari(), chari_event()
    for off in (-300_000, 0, 300_000):
        at = T0 + timedelta(milliseconds=off)
        assert provider.authenticate(signed_chari(body, at=at), body, now=T0) == "event-1"
    for off in (-300_001, 300_001, 3_600_000):
        headers = signed_chari(body, at=T0 + timedelta(milliseconds=off))
        with pytest.raises(BadSignature, match="five minutes"):
            provider.authenticate(headers, body, now=T0)


def test_a_secret_is_rolled_and_older_headers_are_read() -> None:
    provider = a_chari(secrets=["chari_whsec_old_one", SECRET])
    body = chari_event()
    honest = signed_chari(body)
    stamp, signature = honest["chari-webhook-timestamp"], honest["chari-webhook-signature"]
    old = hex_of("of another endpoint", body)
    for headers in (
        honest,
        {"x-chari-timestamp": stamp, "x-chari-signature": signature},
        {
            "chari-webhook-timestamp": stamp,
            "x-chari-signature": old,
            "x-chari-signature-next": signature,
        },
    ):
        assert provider.authenticate(headers, body, now=T0) == "event-1"
    # A header is not signed: by another id the same delivery must not stand in another one's way.
    assert provider.authenticate(honest | {"chari-event-id": "other"}, body, now=T0) == "event-1"


TEXTS: Final = st.one_of(
    st.text(max_size=30), st.sampled_from(["é" * 64, "0" * 64, "1795000000123", "٣" * 13, "-1"])
)
NAMES: Final = st.sampled_from(
    [
        *("chari-webhook-timestamp", "chari-webhook-signature", "x-chari-signature"),
        *("x-chari-timestamp", "x-chari-signature-next", "x-youcanpay-signature"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(NAMES, TEXTS, max_size=4), st.binary(max_size=40))
def test_no_stranger_is_authentic_and_nothing_else_is_raised(
    headers: dict[str, str], body: bytes
) -> None:
    for provider in (a_chari(), a_youcan()):
        with pytest.raises(BadSignature):
            provider.authenticate(headers, body, now=T0)


@settings(max_examples=60, deadline=None)
@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_one_changed_byte_is_not_authentic(at: int, change: int) -> None:
    cases = (
        (a_chari(), chari_event(), signed_chari(chari_event())),
        (a_youcan(), youcan_event(), {"x-youcanpay-signature": hex_of(PRIVATE, youcan_event())}),
    )
    for provider, body, headers in cases:
        changed = bytearray(body)
        changed[at % len(body)] ^= change
        with pytest.raises(BadSignature):
            provider.authenticate(headers, bytes(changed), now=T0)


# -- what is said ---------------------------------------------------------------------------------

VALUES: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["MAD", "EUR", "16352", "163.52", "163.525", "-5", "1e2", "\x00", "wasl_"]),
    st.lists(st.integers(), max_size=2),
)
FIELDS: Final = (
    *("id", "amount", "currency", "order_id", "created_at", "paid_at", "refunded_amount"),
    *("paymentSessionId", "operationId", "externalId", "refundReference", "metadata", "status"),
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(
        [
            *("payment.succeeded", "payment.failed", "payment.x", "refund.succeeded"),
            *("transaction.paid", "transaction.refunded", "transaction.x", "withdrawal.created"),
        ]
    ),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6),
    st.one_of(st.none(), st.binary(max_size=30)),
)
def test_whatever_a_body_says_is_read_without_an_error(
    kind: str, said: dict[str, Any], raw: bytes | None
) -> None:
    for provider, body in (
        (a_chari(), chari_event(kind, **said)),
        (a_chari(), json.dumps({"type": kind, **said}).encode()),
        (a_youcan(), youcan_event(kind, **said)),
        (a_youcan(), raw or b"[]"),
        (a_chari(), raw or b"{}"),
    ):
        report = read(provider, body)
        if isinstance(report, PaymentReport | ReturnReport):
            assert 0 < report.amount_minor <= 10**12
            assert report.currency == "MAD"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (chari_event(currency="EUR"), ExceptionCode.WRONG_CURRENCY),
        (chari_event(amount=163.525), ExceptionCode.INVALID_AMOUNT),
        (chari_event(amount=-5), ExceptionCode.INVALID_AMOUNT),
        (chari_event(amount=0), ExceptionCode.INVALID_AMOUNT),
        (chari_event(amount=1e22), ExceptionCode.INVALID_AMOUNT),
        (chari_event(amount=[1]), ExceptionCode.INVALID_AMOUNT),
        (chari_event(paymentSessionId=""), ExceptionCode.UNREADABLE_DELIVERY),
        (chari_event("refund.succeeded", paymentSessionId=""), ExceptionCode.UNREADABLE_DELIVERY),
        (b'{"WebhookEventId": "x", "data": {}}', ExceptionCode.UNREADABLE_DELIVERY),
        (b'{"type": "payment.succeeded", "Type": "x"}', ExceptionCode.UNREADABLE_DELIVERY),
        (b"[]", ExceptionCode.UNREADABLE_DELIVERY),
    ],
)
def test_what_of_chari_cannot_be_booked_is_for_a_person(body: bytes, code: ExceptionCode) -> None:
    report = read(a_chari(), body)
    assert isinstance(report, Unbookable)
    assert report.code is code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (youcan_event(currency="USD"), ExceptionCode.WRONG_CURRENCY),
        (youcan_event(amount="163.52"), ExceptionCode.INVALID_AMOUNT),
        (youcan_event(amount="0"), ExceptionCode.INVALID_AMOUNT),
        (youcan_event(amount=1.5), ExceptionCode.INVALID_AMOUNT),
        (youcan_event(sandbox=False), ExceptionCode.WRONG_MODE),
        (youcan_event(sandbox="true"), ExceptionCode.UNREADABLE_DELIVERY),
        (youcan_event(id=""), ExceptionCode.UNREADABLE_DELIVERY),
        (youcan_event("transaction.refunded"), ExceptionCode.INVALID_AMOUNT),
        (b'{"event_name": "transaction.paid"}', ExceptionCode.UNREADABLE_DELIVERY),
        (b"{}", ExceptionCode.UNREADABLE_DELIVERY),
    ],
)
def test_what_of_youcan_cannot_be_booked_is_for_a_person(body: bytes, code: ExceptionCode) -> None:
    report = read(a_youcan(), body)
    assert isinstance(report, Unbookable)
    assert report.code is code


def test_a_flat_body_with_capitals_and_a_mislabelled_time_is_read() -> None:
    said = {
        "WebhookEventId": "w",
        "Event": "payment.succeeded",
        "OperationId": 6671,
        "ExternalId": "1482 7503 6141",
        "Amount": "172.50",
        "currency": "MAD",
        "Method": "CASH",
        # An hour ahead, as a clock in Casablanca shows it, with a Z.
        "ExecutedAt": "2026-11-18T13:00:00Z",
    }
    report = a_payment(read(a_chari(), json.dumps(said).encode()))
    assert (report.provider_payment_id, report.amount_minor) == ("6671", 17250)
    assert (report.paid_at, report.channel) == (NOON, Channel.CASH_AGENT)
    tomorrow = json.dumps({**said, "ExecutedAt": "2026-11-19T13:00:00Z"}).encode()
    assert a_payment(read(a_chari(), tomorrow)).paid_at == NOON + timedelta(days=1, hours=1)


def test_each_refund_of_chari_that_names_none_is_one_of_its_own() -> None:
    told = [
        read(a_chari(), chari_event("refund.succeeded", number=n, reference="ps_1", amount=50))
        for n in (1, 2)
    ]
    assert [r.return_id for r in told if isinstance(r, ReturnReport)] == ["event-1", "event-2"]


NONE, CARD, CASH = None, Channel.CARD, Channel.CASH_AGENT
YOUCAN_WAYS: Final = [
    (youcan_event(payment_method=way), channel)
    for way, channel in (
        ({"name": "cashplus", "token": "123"}, CASH),
        ({"name": "Cash Plus"}, CASH),
        ({"name": "[masked]", "token": "123"}, CASH),
        ({"name": "credit_card"}, CARD),
        # The token of a card is none of Cash Plus.
        ({"name": "credit_card", "token": "tok_1"}, CARD),
        ({}, NONE),
        (None, NONE),
    )
]
CHARI_WAYS: Final = [
    (chari_event(**said), channel)
    for said, channel in (
        ({"paymentMethod": "CASH"}, CASH),
        ({"method": "card"}, CARD),
        ({"metadata": {"method": "cash"}}, CASH),
        ({}, NONE),
    )
]


@pytest.mark.parametrize(
    ("make", "ways", "body", "channel"),
    [(a_youcan, ("card", "cashplus"), *each) for each in YOUCAN_WAYS]
    + [(a_chari, ("card", "cash"), *each) for each in CHARI_WAYS],
)
def test_what_is_paid_the_other_way_is_taken_by_one_entry_and_never_by_none(
    make: Callable[..., Chari | YouCan], ways: tuple[str, str], body: bytes, channel: Channel | None
) -> None:
    # Two entries of one account both hear it: one takes it.
    both = [read(make(method=way, has_sibling=True), body) for way in ways]
    (took,) = [report for report in both if not isinstance(report, NotAboutMoney)]
    assert a_payment(took).channel is (channel or CARD)
    # Alone, an entry takes it whatever it is for, with the channel that the event says.
    for way, usual in ((None, CARD), (ways[0], CARD), (ways[1], CASH)):
        alone = a_payment(read(make(method=way), body))
        assert (alone.channel, alone.amount_minor) == (channel or usual, 16352)


def test_a_link_of_ours_is_booked_by_the_entry_that_asks_about_it() -> None:
    # Whatever the event calls it: by the other entry's name it would be booked a second time.
    kept = {"method": "cash", "attempt_id": ATTEMPT}
    body = chari_event(paymentMethod="CARD", metadata=kept)
    of_both = {
        way: read(a_chari(method=way, has_sibling=True, api_key="chari_sk_test_1"), body)
        for way in ("card", "cash")
    }
    assert isinstance(of_both["card"], NotAboutMoney)
    taken = a_payment(of_both["cash"])
    assert (taken.provider_payment_id, taken.channel) == (ATTEMPT, CARD)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 16352), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_a_sum_of_refunds_of_youcan_never_goes_down(parts: list[int], shuffled: Random) -> None:
    arrivals = list(parts)
    shuffled.shuffle(arrivals)
    known: Return | None = None
    for at, minor in enumerate(arrivals):
        body = youcan_event("transaction.refunded", refunded_amount=minor)
        said = a_youcan().parse(body, delivery_id="d", received_at=NOON + timedelta(hours=at))
        assert isinstance(said, ReturnReport)
        known, contradicts = hear(known, said)
        assert not contradicts
        assert given_back_minor([known]) == max(arrivals[: at + 1])


def test_events_in_any_order_and_number_come_to_the_same_books(database: str) -> None:
    first, second = some_invoices(2)
    chari, youcan = a_chari(), a_youcan()

    def refunded(number: int, minor: int) -> bytes:
        said = {"order_id": second, "refunded_amount": minor}
        return youcan_event("transaction.refunded", number=number, **said)

    told: list[tuple[Chari | YouCan, bytes]] = [
        (chari, chari_event("refund.succeeded", number=3, refundReference="R1", amount=63.52)),
        (chari, chari_event("payment.failed", number=2)),
        (chari, chari_event(number=1, merchantReference=first)),
        (youcan, refunded(2, 16352)),
        (youcan, refunded(5, 6352)),
        (youcan, youcan_event("transaction.failed", number=3, id="tr_0", order_id=second)),
        (youcan, youcan_event(number=1, order_id=second)),
        (youcan, youcan_event(number=4, order_id=second)),
    ]
    for provider, body in told:
        named = json.loads(body).get("id") or json.loads(body)["WebhookEventId"]
        a_delivery(body, provider=provider.name, delivery_id=named)
    drain(a_desk(chari, youcan), batches_max=5)
    assert balances()["clearing:chari"] == 10000
    assert balances().get("clearing:youcan", 0) == 0
    found = {(p[0], p[1]): p[2] for p in the_books().payments}
    assert found == {
        ("chari", "ps_1"): "booked",
        ("youcan", "tr_1"): "booked",
        ("youcan", "tr_0"): "failed",
    }
    assert the_books().exceptions == []
    seal()
    assert broken_promises(deliveries=True) == []


# -- pages and codes, at the stand-ins ------------------------------------------------------------


def wanted(number: int = 1) -> WantedPage:
    return WantedPage(
        attempt_id=f"wasl_{number:032x}",
        reference="148275036141",
        amount_minor=16350,
        language="fr",
        back="http://127.0.0.1:9/148275036141?card=back",
        left="http://127.0.0.1:9/148275036141?card=left",
        expires_at=NOON + timedelta(hours=1),
        notify_url="http://127.0.0.1:9/webhooks/any",
    )


class Taken(ThreadingHTTPServer):
    """Takes deliveries: 202, or what is asked for first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), TakeIn)
        self.address = f"http://127.0.0.1:{self.server_port}/webhooks/any"
        self.statuses: list[int] = []
        self.requests: list[tuple[dict[str, str], bytes]] = []

    @property
    def received(self) -> list[bytes]:
        return [body for _, body in self.requests]


class TakeIn(BaseHTTPRequestHandler):
    server: Taken

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((dict(self.headers.items()), body))
        status = self.server.statuses.pop(0) if self.server.statuses else 202
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serving() -> Iterator[Taken]:
    server = Taken()
    with running(server):
        yield server


@contextmanager
def a_stand_in(kind: str, orders: Aggregator, key: str) -> Iterator[Server]:
    server = Server(0, kind, key, "any", orders)
    with running(server):
        yield server


def test_a_link_of_chari_is_made_once_paid_and_asked_about(tmp_path: Path) -> None:
    orders = Aggregator(ChariDialect(SECRET), clock=lambda: NOON)
    with a_stand_in("chari", orders, "chari_sk_test_1") as server:
        provider = a_chari(api_key="chari_sk_test_1", api_base=server.address)
        assert isinstance(provider, ChariPages)
        assert (provider.manner, provider.channel) == (Manner.PAGE, Channel.CARD)
        made = provider.make_page(wanted())
        assert provider.make_page(wanted()) == made
        assert made.url.startswith(f"{server.address}/pay/")
        assert provider.ask(made.session_id, received_at=NOON).state is PageState.OPEN
        order = orders.find(made.session_id.partition("/")[0])
        assert (order.amount_minor, order.reference) == (16350, "148275036141")
        with serving() as taken:
            order.notify_url = taken.address
            assert orders.settle(order, paid=True) == [202]
            assert orders.settle(order, paid=True) == []
        (report,) = provider.ask(made.session_id, received_at=NOON).reports
        event = taken.received[0]
        said = a_payment(read(provider, event))
        with serving() as taken:
            paid = {"oid": "148275036141", "amount": "163.52", "callbackUrl": taken.address}
            post_json(f"{server.address}/_control/pay", paid, {})
            # A link of nobody's page bears a name like ours, as one that asks wants it.
            outside = a_payment(read(provider, taken.received[0]))
            assert outside.provider_payment_id == outside.attempt_id != wanted().attempt_id
        # By whichever way it is heard of, it is one payment of one attempt.
        assert isinstance(report, PaymentReport)
        for each in (report, said):
            assert (each.provider_payment_id, each.attempt_id) == (wanted().attempt_id,) * 2
            assert (each.amount_minor, each.reference_given) == (16350, "148275036141")
        assert provider.close_page(made.session_id) is PageState.USED
        other = provider.make_page(wanted(2))
        assert provider.close_page(other.session_id) is PageState.CLOSED
        (lapsed,) = provider.ask(other.session_id, received_at=NOON).reports
        assert isinstance(lapsed, AttemptLapsed)
        with pytest.raises(ProviderRefused):
            provider.ask("PL-none/x/148275036141", received_at=NOON)
        stranger = a_chari(api_key="chari_sk_test_2", api_base=server.address)
        assert isinstance(stranger, ChariPages)
        with pytest.raises(ProviderAway):
            stranger.make_page(wanted(3))


def test_codes_for_agencies_are_made_by_both() -> None:
    chari = Aggregator(ChariDialect(SECRET), clock=lambda: NOON)
    youcan = Aggregator(YouCanDialect(PRIVATE), clock=lambda: NOON)
    with (
        a_stand_in("chari", chari, "chari_sk_test_1") as links,
        a_stand_in("youcan-cash", youcan, PRIVATE) as tokens,
    ):
        for provider in (
            a_chari(api_key="chari_sk_test_1", api_base=links.address, method="cash"),
            a_youcan(
                api_key=PRIVATE,
                api_base=f"{tokens.address}/api",
                method="cashplus",
                public_key="pub_sandbox_1",
            ),
        ):
            assert isinstance(provider, PageProvider)
            assert (provider.manner, provider.channel) == (Manner.TOKEN, Channel.CASH_AGENT)
            assert provider.life > timedelta(days=1)
            made = provider.make_page(wanted())
            assert (len(made.code), made.url) == (10, "")
            assert provider.ask(made.session_id, received_at=NOON).state is PageState.OPEN


def test_a_card_page_of_youcan_leads_to_its_payment_form() -> None:
    orders = Aggregator(YouCanDialect(PRIVATE), clock=lambda: NOON)
    with a_stand_in("youcan", orders, PRIVATE) as server:
        provider = a_youcan(api_key=PRIVATE, api_base=f"{server.address}/api")
        assert isinstance(provider, YouCanPages)
        made = provider.make_page(wanted())
        assert made == MadePage(
            made.session_id, f"{server.address}/payment-form/{made.session_id}?lang=fr"
        )
        assert provider.close_page(made.session_id) is PageState.OPEN
        order = orders.find(made.session_id)
        with serving() as taken:
            order.notify_url = taken.address
            orders.settle(order, paid=True)
            orders.refund(order, 6350)
        paid, refunded = (read(provider, body) for body in taken.received)
        assert a_payment(paid).attempt_id == wanted().attempt_id
        assert isinstance(refunded, ReturnReport)
        assert (refunded.amount_minor, refunded.kind) == (6350, ReturnKind.REFUND_TOTAL)
        assert refunded.state is ReturnState.GIVEN


def test_what_a_stand_in_tells_is_in_its_journal_and_sent_until_it_is_taken(
    tmp_path: Path,
) -> None:
    every = Faults(1, lose=1, double=1, reorder=1, wrong_amount=1, tamper=1)
    path = tmp_path / "chari.jsonl"
    with Journal(path) as journal, serving() as taken:
        orders = Aggregator(ChariDialect(SECRET), clock=lambda: T0, journal=journal, faults=every)
        order = orders.begin(
            order_id="PL-1",
            payment_id="ps_1",
            reference="148275036141",
            amount_minor=16352,
            notify_url=taken.address,
        )
        taken.statuses.append(400)
        assert orders.settle(order, paid=True) == [400, 202, 202, 202, 202]
    tampered, *honest = taken.requests
    provider = a_chari()
    for headers, body in honest:
        provider.authenticate(lower(headers), body, now=T0)
    with pytest.raises(BadSignature):
        provider.authenticate(lower(tampered[0]), tampered[1], now=T0)
    lines = read_journal(path)
    told = page_tally("chari", lines)
    assert [(p.payment_id, p.minor) for p in told.paid] == [("ps_1", 16352)]
    assert (dict(told.planted), told.surprises) == ({"conflicting_delivery": 1}, [])
    assert set(told.struck) >= {"lose", "double", "reorder", "wrong_amount", "tamper"}
    # One that was killed before it heard the answer sends again what it had begun.
    begun = [line for line in lines if line["line"] != "answer"]
    with serving() as taken:
        again = Aggregator(ChariDialect(SECRET), clock=lambda: T0, past=begun)
        again.orders["PL-1"].notify_url = taken.address
        taken.statuses.append(400)
        again.resume()
    assert len(taken.received) == 5


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("chari", {}, "no secrets"),
        ("chari", {"secrets": ["a b"]}, "visible ASCII"),
        ("chari", {"secrets": ["s"], "api_key": "chari_sk_live_1"}, "live key"),
        ("chari", {"secrets": ["s"], "api_base": "http://chari.ma"}, "api_base"),
        ("chari", {"secrets": ["s"], "method": "cheque"}, "method"),
        ("youcan", {}, "no secrets"),
        ("youcan", {"api_key": "pri_1", "method": "cashplus"}, "public_key"),
        ("youcan", {"api_key": "pri_1", "api_base": "ftp://x"}, "api_base"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    kind: str, values: dict[str, Any], words: str
) -> None:
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
    with pytest.raises(Unusable, match=words):
        read_providers(f'[[provider]]\nname = "x"\nkind = "{kind}"\n{lines}\n', "file")


def test_an_entry_leaves_the_other_way_only_to_a_sibling_of_the_same_account() -> None:
    def entry(name: str, kind: str, method: str, *lines: str) -> str:
        said = (f'name = "{name}"', f'kind = "{kind}"', f'method = "{method}"', *lines)
        return "[[provider]]\n" + "\n".join(said) + "\n"

    ours, others = 'secrets = ["pri_1"]', 'secrets = ["pri_2"]'
    key = ['api_key = "pri_1"', 'public_key = "pub_1"', 'api_base = "http://127.0.0.1:9"']
    card, body = entry("card", "youcan", "card", ours), YOUCAN_WAYS[0][0]
    for beside, left in (
        ("", False),
        (entry("cash", "youcan", "cashplus", others), False),
        (entry("cash", "chari", "cash", others), False),
        (entry("cash", "youcan", "cashplus", ours), True),
        (entry("cash", "youcan", "cashplus", *key), True),
    ):
        for text in (card + beside, beside + card):
            report = read_providers(text, "file")["card"].parse(
                body, delivery_id="d", received_at=NOON
            )
            assert isinstance(report, NotAboutMoney) is left


def test_one_account_stands_twice_only_for_two_ways_to_pay() -> None:
    def entries(*methods: str) -> str:
        return "\n".join(
            f'[[provider]]\nname = "y{n}"\nkind = "youcan"\nsecrets = ["pri_1"]\n{method}'
            for n, method in enumerate(methods)
        )

    two = entries('method = "card"', 'method = "cashplus"')
    assert sorted(read_providers(two, "file")) == ["y0", "y1"]
    for twice in (("", 'method = "card"'), ('method = "card"',) * 2, ("", "")):
        with pytest.raises(Unusable, match="same secrets"):
            read_providers(entries(*twice), "file")


def test_settings_for_trials_are_named() -> None:
    made: dict[str, Provider] = {
        "chari": a_chari(api_key="chari_sk_test_1", api_base="http://127.0.0.1:9", live=True),
        "youcan": a_youcan(api_key="pri_sandbox_1", live=True),
    }
    assert len(unsafe_in_production(made)) >= 4
    safe = a_chari(secrets=["whsec_0123456789ab"], api_key="chari_sk_live_1", live=True)
    assert unsafe_in_production({"chari": safe}) == []
