"""Callbacks that anybody could send: each only makes us ask, and the answer alone is booked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from gateway import process
from gateway.billing.presentment import present
from gateway.collection import attempts
from gateway.collection.attempt_rows import (
    NOT_KNOWN,
    UNDECIDED,
    UNDECIDED_MAX,
    Attempt,
    latest_attempt,
)
from gateway.collection.attempts import Begun, Step, begin, give_up
from gateway.collection.inquiries import HINTS_FREE, ask_due, claim
from gateway.collection.reports import AttemptLapsed, NotAboutMoney, PaymentReport, Unbookable
from gateway.db import execute, snapshot, transaction
from gateway.errors import ProviderAway, ProviderRefused, Unusable
from gateway.models import AttemptState, ExceptionCode
from gateway.providers import PageFailed, PageState, WantedPage, asking
from gateway.providers.asking import ANSWER_BYTES_MAX
from gateway.providers.calls import AnswerNow, Call, Heed, Heeded
from gateway.providers.registry import read_providers
from gateway.providers.status_query import Order, StatusQuery, StatusQueryPages, make
from gateway.simulators import walletoperator
from gateway.simulators.faults import Faults
from gateway.simulators.journal import Journal, read_journal
from gateway.simulators.walletoperator import Operator
from gateway.simulators.walletquery import Server
from tests.factories import (
    NOON,
    PATIENCE_SECONDS,
    a_report,
    an_answerer,
    at_once,
    balances,
    broken_promises,
    record,
    rows_of,
    seal,
    some_invoices,
    the_books,
)
from webhooks.answering import answer
from webhooks.intake import Intake
from webhooks.routes import webhook_routes

GOLDEN: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "golden/unsigned_callbacks.json").read_text("utf-8")
)
ORANGE: Final = GOLDEN["orange_money_webpay"]
KEY: Final = "a-key-of-twenty-chars"
NOWHERE: Final = "http://127.0.0.1:9"
LATER: Final = NOON + timedelta(hours=2)


# -- stand-ins ------------------------------------------------------------------------------------


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def an_operator(operator: Operator) -> Iterator[Server]:
    server = Server(0, KEY, operator)
    with serving(server):
        yield server


@pytest.fixture
def server() -> Iterator[Server]:
    """The simulated operator, at noon."""
    with an_operator(Operator(clock=lambda: NOON)) as found:
        yield found


def wallet_at(address: str, name: str = "wallet", **values: Any) -> StatusQueryPages:
    given = {"status_url": f"{address}/transactionstatus", "api_key": KEY}
    made = make(name, {**given, "request_url": f"{address}/webpayment", **values}, live=False)
    assert isinstance(made, StatusQueryPages)
    return made


@contextmanager
def saying(status: int, body: bytes, **headers: str) -> Iterator[tuple[str, list[str]]]:
    """Run a server that says one thing to everybody; yield its address and what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}", asked


# -- acting ---------------------------------------------------------------------------------------


def pay(
    wallet: StatusQueryPages, reference: str, *, base: str = NOWHERE, now: datetime = NOON
) -> Begun:
    """Press the button that leads to the wallet's page."""

    def due_minor(session: Any) -> int:
        found = present(session, reference, now=now, validity_months=12)
        return found.due_minor if found else 0

    return begin(
        {wallet.name: wallet},
        reference,
        due_minor=due_minor,
        language="fr",
        link=f"{base}/{reference}",
        clock=lambda: now,
    )


def hint(
    wallet: StatusQuery, token: str, status: str = "SUCCESS", counted: list[str] | None = None
) -> int:
    """Send a callback, as anybody can; return the status of the answer."""
    body = json.dumps({"status": status, "notif_token": token, "txnid": "MP1"}).encode()
    return told(wallet, body, counted)


def told(wallet: StatusQuery, body: bytes, counted: list[str] | None = None) -> int:
    refused = (lambda _: None) if counted is None else counted.append
    call = Call("POST", "", {}, {}, body, NOON)
    return answer(an_answerer(count_refused=refused), wallet, call).status


def ask(*wallets: StatusQueryPages, now: datetime = NOON, hurry: bool = False) -> int:
    """Do what the worker does; in a hurry, as if time had gone by."""
    if hurry:
        with transaction() as session:
            execute(session, "UPDATE payment_attempt SET ask_at = '-infinity' WHERE ask_at > now()")
    return ask_due(
        {each.name: each for each in wallets},
        key=process.signing_key(),
        clock=lambda: now,
        asks_max=50,
    )


def attempt(reference: str) -> Attempt:
    with snapshot() as session:
        found = latest_attempt(session, reference)
    assert found is not None
    return found


def paid_once(reference: str) -> None:
    books = the_books()
    assert [p[2:] for p in books.payments] == [("booked", 16352, reference)]
    assert books.exceptions == []
    assert balances() == {"clearing:wallet": 16352, "payable:institution": -16352}
    assert attempt(reference).state is AttemptState.PAID
    seal()
    assert broken_promises(deliveries=True) == []


# -- from the button to the books -----------------------------------------------------------------


@contextmanager
def the_web(database_url: str, wallet: StatusQueryPages) -> Iterator[str]:
    """Serve the real routes on a real port; yield their address."""

    async def nobody_rings() -> None:
        raise AssertionError("a hint rings nobody")

    routes = webhook_routes({"wallet": wallet}, Intake(database_url, nobody_rings), an_answerer())
    config = uvicorn.Config(Starlette(routes=routes), port=0, log_level="error", lifespan="off")
    web = uvicorn.Server(config)
    thread = threading.Thread(target=web.run)
    thread.start()
    try:
        done = threading.Event()
        for _ in range(PATIENCE_SECONDS * 50):
            if web.started or done.wait(0.02):
                break
        port = web.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        web.should_exit = True
        thread.join()


def test_from_the_button_over_the_operators_page_and_its_callback_to_the_books(
    database: str, tmp_path: Path
) -> None:
    reference = some_invoices()[0]
    path = tmp_path / "operator.jsonl"
    with Journal(path) as journal:
        faults = Faults(double=1, tamper=1, reorder=1)
        operator = Operator(clock=lambda: NOON, journal=journal, faults=faults)
        with an_operator(operator) as server:
            wallet = wallet_at(server.address)
            with the_web(database, wallet) as base:
                begun = pay(wallet, reference, base=base)
                assert begun.step is Step.PAGE
                assert pay(wallet, reference, base=base) == begun, "a second click, the same page"
                page = httpx.get(begun.url)
                assert "163.52" in page.text
                # Four callbacks: of a stranger, the true one twice, and a refusal of before.
                gone = httpx.post(begun.url, data={"do": "pay"})
                assert gone.headers["location"] == f"{base}/{reference}?card=back&lang=fr"
                assert ask(wallet) == 1, "the hint made it due"
                assert ask(wallet) == 0
    paid_once(reference)
    lines = read_journal(path)
    [(payment_id, net)] = walletoperator.net_minor(lines).items()
    assert rows_of(database, "SELECT provider_payment_id, amount_minor FROM payment") == [
        (payment_id, net)
    ]
    answers = [(line["status"], line["as_expected"]) for line in lines if line["line"] == "answer"]
    assert answers == [(400, True), (202, True), (202, True), (202, True)]
    kept = rows_of(database, "SELECT outcome, state FROM webhook_delivery")
    assert kept == [("heeded", "done")] * 2, "one of each word, however often it was sent"


def test_a_lost_callback_is_found_by_asking(server: Server, database: str) -> None:
    reference = some_invoices()[0]
    wallet = wallet_at(server.address)
    pay(wallet, reference)
    order = server.operator.find(reference)
    assert server.operator.settle(order, paid=True) == [None], "nobody was told"
    assert ask(wallet) == 0, "nobody is in a hurry yet"
    assert ask(wallet, hurry=True) == 1
    paid_once(reference)
    # Its callback, late: heard, and nothing is left to ask.
    assert hint(wallet, order.notif_token) == 202
    assert ask(wallet, hurry=True) == 0
    paid_once(reference)


def test_a_guessed_token_leaves_nothing_but_a_count(server: Server, database: str) -> None:
    reference = some_invoices()[0]
    wallet, counted = wallet_at(server.address), list[str]()
    pay(wallet, reference)
    server.operator.settle(server.operator.find(reference), paid=True)
    guessed = json.loads(ORANGE["callbacks"][1]["body"])["notif_token"]
    assert hint(wallet, guessed, counted=counted) == 400
    token = server.operator.find(reference).notif_token
    assert hint(wallet_at(server.address, "other"), token, counted=counted) == 400
    for body in (json.dumps(GOLDEN["mtn_momo"]["callback"]), *map(json.dumps, mpesa())):
        assert told(wallet, body.encode(), counted) == 400
        parsed = wallet.parse(body.encode(), delivery_id="1", received_at=NOON)
        assert isinstance(parsed, NotAboutMoney), "never booked from the callback alone"
    assert counted == ["wallet", "other", "wallet", "wallet", "wallet"]
    assert rows_of(database, "SELECT count(*) FROM webhook_delivery") == [(0,)]
    assert ask(wallet) == 0
    assert the_books().payments == []


def mpesa() -> list[Any]:
    return [GOLDEN["mpesa_stk"][each] for each in ("success", "cancelled")]


def test_what_the_callback_says_is_not_believed(server: Server, database: str) -> None:
    """Golden: SUCCESS said and not so; FAILED said, then SUCCESS by the same token."""
    reference = some_invoices()[0]
    wallet = wallet_at(server.address)
    pay(wallet, reference)
    order = server.operator.find(reference)
    assert hint(wallet, order.notif_token, "SUCCESS") == 202
    assert ask(wallet) == 1
    assert the_books().payments == []
    assert attempt(reference).state is AttemptState.SENT
    server.operator.settle(order, paid=False)
    assert hint(wallet, order.notif_token, "FAILED") == 202
    assert ask(wallet) == 1
    assert (attempt(reference).state, attempt(reference).closed_because) == (
        AttemptState.CLOSED,
        "lapsed",
    )
    # Refused, and paid after all: asked again, not ignored.
    server.operator.settle(order, paid=True)
    assert hint(wallet, order.notif_token, "SUCCESS") == 202
    assert ask(wallet) == 1
    paid_once(reference)


def refused(server: Server, wallet: StatusQueryPages, reference: str) -> walletoperator.Order:
    """Have a payer refuse in the wallet, and the worker hear of it; return the order."""
    pay(wallet, reference)
    order = server.operator.find(reference)
    server.operator.settle(order, paid=False)
    ask(wallet, hurry=True)
    assert attempt(reference).closed_because == "lapsed"
    return order


@pytest.mark.parametrize("status", ["SUCCESS", "PENDING"])
def test_who_refused_and_paid_after_all_is_sent_to_no_second_page(
    server: Server, database: str, status: str
) -> None:
    reference = some_invoices()[0]
    wallet = wallet_at(server.address)
    order = refused(server, wallet, reference)
    if status == "SUCCESS":
        server.operator.settle(order, paid=True)
    else:
        order.status = status
    asked = server.operator.asked
    before = asked[order.order_id]
    for _ in range(3):
        assert pay(wallet, reference) == Begun(Step.UNKNOWN), "the callback of it was lost"
    assert asked[order.order_id] == before + 1, "who presses again has us ask no more often"
    assert len(server.operator.orders) == 1
    assert attempt(reference).awaited
    assert not give_up({"wallet": wallet}, reference, clock=lambda: NOON, anyway=True)
    assert ask(wallet) == 1, "it is asked about at once"
    if status == "PENDING":
        query = "SELECT ask_at <= clock_timestamp() + interval '2 minutes' FROM payment_attempt"
        assert rows_of(database, query) == [(True,)]
        order.status = "INITIATED"
        server.operator.settle(order, paid=True)
        assert ask(wallet, hurry=True) == 1
    paid_once(reference)
    assert pay(wallet, reference) == Begun(Step.NOTHING_DUE)


def test_who_refused_for_good_is_sent_to_another_page(server: Server, database: str) -> None:
    reference = some_invoices()[0]
    wallet = wallet_at(server.address)
    first = refused(server, wallet, reference)
    first.status = "PENDING"
    assert pay(wallet, reference).step is Step.UNKNOWN
    first.status = "FAILED"
    assert ask(wallet, hurry=True) == 1
    assert not attempt(reference).awaited
    assert give_up({"wallet": wallet}, reference, clock=lambda: NOON)
    assert pay(wallet, reference).step is Step.PAGE
    second = server.operator.find(reference)
    assert second is not first
    # Of two that were refused it is the older one that is paid: found all the same.
    server.operator.settle(second, paid=False)
    ask(wallet, hurry=True)
    server.operator.settle(first, paid=True)
    assert pay(wallet, reference).step is Step.UNKNOWN
    assert attempt(reference).awaited, "it is shown, and not the newest"
    assert ask(wallet) == 1
    assert [p[2:] for p in the_books().payments] == [("booked", 16352, reference)]
    assert the_books().exceptions == []


def test_a_refused_page_that_nobody_can_be_asked_about_is_waited_for_while_it_lives(
    server: Server, database: str
) -> None:
    reference = some_invoices()[0]
    wallet, silent = wallet_at(server.address), wallet_at(NOWHERE)
    refused(server, wallet, reference)
    with pytest.raises(ProviderAway, match="no answer"):
        pay(silent, reference)
    with pytest.raises(ProviderAway, match="switched off"):
        pay(wallet_at(server.address, "other"), reference)
    assert rows_of(database, "SELECT count(*) FROM payment_attempt") == [(1,)]
    ended = attempt(reference).expires_at
    assert pay(wallet_at(server.address, "other"), reference, now=ended).step is Step.PAGE


def test_of_many_pages_only_the_last_are_asked_about(server: Server, database: str) -> None:
    reference = some_invoices()[0]
    wallet = wallet_at(server.address)
    order = refused(server, wallet, reference)
    with transaction() as session:
        execute(
            session,
            "INSERT INTO payment_attempt (id, invoice_id, provider, amount_minor, language, state,"
            " session_id, token_sha256, made_at, expires_at, closed_because)"
            " SELECT id || n, invoice_id, provider, amount_minor, language, state,"
            " replace(session_id, '/', '/' || n), sha256(convert_to(id || n, 'UTF8')),"
            " made_at - make_interval(mins => n), expires_at, closed_because"
            " FROM payment_attempt, generate_series(1, 60) AS n",
        )
    asked = server.operator.asked
    before = asked[order.order_id]
    assert pay(wallet, reference, now=LATER).step is Step.PAGE
    assert asked[order.order_id] == before + 1


def test_a_page_that_is_long_over_is_not_asked_about(server: Server, database: str) -> None:
    reference = some_invoices()[0]
    wallet = wallet_at(server.address)
    order = refused(server, wallet, reference)
    order.status = "PENDING"
    over = attempt(reference).expires_at + UNDECIDED_MAX
    assert pay(wallet, reference, now=over).step is Step.PAGE


def test_who_knows_a_token_cannot_have_us_ask_for_ever(server: Server, database: str) -> None:
    reference = some_invoices()[0]
    wallet = wallet_at(server.address)
    pay(wallet, reference)
    order = server.operator.find(reference)
    asked = 0
    for _ in range(10):
        assert hint(wallet, order.notif_token) == 202
        asked += ask(wallet)
    assert asked == HINTS_FREE
    waits = rows_of(database, "SELECT ask_at > clock_timestamp() FROM payment_attempt")
    assert waits == [(True,)]
    # Of a closed one just the same, and it comes to rest when it was answered.
    server.operator.settle(order, paid=False)
    assert ask(wallet, hurry=True) == 1
    assert hint(wallet, order.notif_token) == 202
    assert ask(wallet) == 0
    assert ask(wallet, hurry=True) == 1
    assert rows_of(database, "SELECT ask_at FROM payment_attempt") == [(None,)]


def test_workers_keep_the_budget_of_each_provider_together(server: Server, database: str) -> None:
    references = some_invoices(8)
    wallet = wallet_at(server.address, asks_per_minute=3)
    other = wallet_at(server.address, "other")
    for each in references[:6]:
        pay(wallet, each)
    for each in references[6:]:
        pay(other, each)
    with transaction() as session:
        execute(session, "UPDATE payment_attempt SET ask_at = '2000-01-01'")

    def take() -> str | None:
        with transaction() as session:
            taken = claim(session, [wallet], NOON)
        return None if taken is None else taken.attempt.id

    taken = [each for _ in range(2) for each in at_once(take, take, take) if each]
    assert len(taken) == len(set(taken)) == 3
    assert ask(wallet, other) == 2, "the other has a budget of its own"
    assert rows_of(database, "SELECT provider, asked FROM inquiry_budget ORDER BY 1") == [
        ("other", 2),
        ("wallet", 3),
    ]
    with transaction() as session:
        execute(session, "UPDATE inquiry_budget SET since = since - interval '61 seconds'")
    assert ask(wallet, other) == 3, "a minute later it goes on"
    assert rows_of(database, "SELECT asked FROM inquiry_budget WHERE provider = 'wallet'") == [(3,)]


def test_an_attempt_that_ran_out_is_asked_about_a_last_time(database: str, server: Server) -> None:
    first, second, third = some_invoices(3)
    wallet = wallet_at(server.address)
    for each in (first, second, third):
        pay(wallet, each)
    # The operator's clock stands still, so its pages stay open: nobody has paid the first by its
    # end, the second's payer is still at it, and of the third nobody knows.
    server.operator.find(second).status = "WHATEVER"
    server.operator.orders.pop(server.operator.find(third).order_id)
    assert ask(wallet, now=LATER, hurry=True) == 3
    assert attempt(first).closed_because == UNDECIDED
    assert attempt(second).state is AttemptState.SENT, "an unknown word is a payment on its way"
    assert attempt(third).closed_because == NOT_KNOWN
    assert not give_up({"wallet": wallet}, second, clock=lambda: LATER)
    assert pay(wallet, second, now=LATER) == Begun(Step.UNKNOWN)
    assert ask(wallet, now=LATER + UNDECIDED_MAX, hurry=True) == 1
    assert attempt(second).closed_because == UNDECIDED
    # Paid even later, and told of: found all the same.
    order = server.operator.find(second)
    order.status = "INITIATED"
    server.operator.settle(order, paid=True)
    assert hint(wallet, order.notif_token) == 202
    assert ask(wallet, now=LATER + UNDECIDED_MAX, hurry=True) == 1
    paid_once(second)


def test_an_open_page_of_what_was_paid_otherwise_is_asked_about_in_turn(
    server: Server, database: str
) -> None:
    reference = some_invoices()[0]
    wallet = wallet_at(server.address)
    pay(wallet, reference)
    record(a_report(reference))
    asked = server.operator.asked
    assert [ask(wallet) for _ in range(3)] == [1, 0, 0], "nobody can close it, so it is no hurry"
    assert asked[server.operator.find(reference).order_id] == 2, "asked, and asked to close it"
    assert attempt(reference).state is AttemptState.SENT
    server.operator.settle(server.operator.find(reference), paid=True)
    assert ask(wallet, hurry=True) == 1
    assert [code for code, _ in the_books().exceptions] == ["paid_twice"]


def test_a_status_of_other_money_is_for_a_person(database: str) -> None:
    reference = some_invoices()[0]
    faults = Faults(wrong_amount=1)
    with an_operator(Operator(clock=lambda: NOON, faults=faults)) as server:
        wallet = wallet_at(server.address)
        pay(wallet, reference)
        server.operator.settle(server.operator.find(reference), paid=True)
        assert ask(wallet, hurry=True) == 1
        assert the_books().payments == []
        assert [code for code, _ in the_books().exceptions] == ["invalid_amount"]
        assert attempt(reference).state is AttemptState.SENT
        assert ask(wallet, hurry=True) == 1
    assert [p[2:] for p in the_books().payments] == [("booked", 16352, reference)]


# -- what the operator answers --------------------------------------------------------------------

SESSION: Final = Order(
    ORANGE["stored"]["order_id"], 17250, ORANGE["stored"]["pay_token"]
).session_id
SAME: Final = {"status": "SUCCESS", "order_id": ORANGE["stored"]["order_id"]}


class Told(StatusQueryPages):
    """A provider whose operator says what a test wants."""

    said: Mapping[str, Any] = {}

    def _post(self, url: str, said: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        return dict(self.said)


def telling(said: Mapping[str, Any]) -> Told:
    found = wallet_at(NOWHERE)
    made = Told(found.name, found._settings)
    made.said = said
    return made


def test_a_success_of_the_very_order_and_amount_is_a_payment() -> None:
    for amount in ({"amount": "172.50"}, {"amount": "172.5"}, {}):
        answered = telling({**SAME, **amount}).ask(SESSION, received_at=NOON)
        assert answered.state is PageState.USED
        [report] = answered.reports
        assert isinstance(report, PaymentReport)
        assert (report.reference_given, report.amount_minor) == ("148275036141", 17250)
        assert (report.provider_payment_id, report.paid_at) == ("148275036141-1", NOON)
    dated = {**SAME, "paid_at": "2026-11-10T09:00:00+01:00"}
    [report] = telling(dated).ask(SESSION, received_at=NOON).reports
    assert isinstance(report, PaymentReport)
    assert str(report.paid_at) == "2026-11-10 08:00:00+00:00"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"amount": "172.51"}, ExceptionCode.INVALID_AMOUNT),
        ({"amount": "17250"}, ExceptionCode.INVALID_AMOUNT),
        ({"amount": ["172.50"]}, ExceptionCode.INVALID_AMOUNT),
        ({"amount": "172.50", "currency": "EUR"}, ExceptionCode.WRONG_CURRENCY),
    ],
)
def test_a_success_of_other_money_is_no_payment(said: Mapping[str, Any], code: str) -> None:
    [report] = telling({**SAME, **said}).ask(SESSION, received_at=NOON).reports
    assert isinstance(report, Unbookable)
    assert report.code == code


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("INITIATED", PageState.OPEN),
        ("PENDING", PageState.USED),
        ("success", PageState.USED),
        ("SETTLED", PageState.USED),
        (None, PageState.USED),
        ("FAILED", PageState.CLOSED),
        ("EXPIRED", PageState.CLOSED),
    ],
)
def test_any_other_word_is_no_payment(status: str | None, state: PageState) -> None:
    wallet = telling({**SAME, "status": status})
    answered = wallet.ask(SESSION, received_at=NOON)
    assert answered.state is wallet.close_page(SESSION) is state
    lapsed = AttemptLapsed("wallet", SESSION, "inquiry:wallet/148275036141-1")
    assert answered.reports == ((lapsed,) if state is PageState.CLOSED else ())


def test_the_answer_for_another_order_is_none() -> None:
    for said in ({"status": "SUCCESS"}, {**SAME, "order_id": "148275036141-2"}):
        with pytest.raises(ProviderRefused):
            telling(said).ask(SESSION, received_at=NOON)


@pytest.mark.parametrize(
    ("status", "body", "headers", "error"),
    [
        (200, b"no json", {}, ProviderAway),
        (200, b"[]", {}, ProviderAway),
        (200, b'{"status": "FAILED", "status": "SUCCESS"}', {}, ProviderAway),
        (200, b" " * (ANSWER_BYTES_MAX + 1), {}, ProviderAway),
        (200, b"{}", {"Content-Length": "10"}, ProviderAway),
        (302, b"", {"Location": "/elsewhere"}, ProviderAway),
        (307, b"", {"Location": "/elsewhere"}, ProviderAway),
        (401, b"", {}, ProviderAway),
        (429, b"", {}, ProviderAway),
        (503, b"", {}, ProviderAway),
        (404, b"", {}, ProviderRefused),
    ],
)
def test_an_answer_that_cannot_be_used_is_none(
    status: int, body: bytes, headers: dict[str, str], error: type[Exception]
) -> None:
    with saying(status, body, **headers) as (address, asked), pytest.raises(error) as raised:
        wallet_at(address).ask(SESSION, received_at=NOON)
    assert type(raised.value) is error
    assert asked == ["/transactionstatus"], "no redirect is followed, and nothing is asked twice"


def test_an_answer_that_does_not_end_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "SILENCE_SECONDS_MAX", PATIENCE_SECONDS)
    monkeypatch.setattr(asking, "CALL_SECONDS_MAX", 0.05)
    given_up = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            self.wfile.flush()
            assert given_up.wait(PATIENCE_SECONDS)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        with pytest.raises(ProviderAway):
            wallet_at(f"http://127.0.0.1:{server.server_port}").ask(SESSION, received_at=NOON)
        given_up.set()


def a_wish(**values: Any) -> WantedPage:
    given = {
        "attempt_id": "wasl_" + "0123456789abcdef" * 2,
        "reference": "148275036141",
        "amount_minor": 17250,
        "language": "ar",
        "back": "https://amo.example.ma/148275036141?card=back",
        "left": "https://amo.example.ma/148275036141?card=left",
        "expires_at": NOON,
        "notify_url": "https://amo.example.ma/webhooks/wallet",
    }
    return WantedPage(**{**given, **values})


class _SlowFirst(Operator):
    """Keeps back the answer to who was first, until another has asked for the same."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: NOON)
        self.asked_again = threading.Event()

    def begin(self, said: dict[str, Any]) -> dict[str, Any]:
        try:
            begun = super().begin(said)
        except walletoperator.Wrong:
            self.asked_again.set()
            raise
        assert self.asked_again.wait(PATIENCE_SECONDS)
        return begun


def test_who_loses_the_race_for_a_page_is_led_to_the_winners(database: str) -> None:
    reference = some_invoices()[0]
    with an_operator(_SlowFirst()) as server:
        wallet = wallet_at(server.address)
        begun = at_once(*[lambda: pay(wallet, reference)] * 3)
        assert [each.step for each in begun] == [Step.PAGE] * 3
        assert len({each.url for each in begun}) == 1
        assert len(server.operator.orders) == 1
    assert rows_of(database, "SELECT state FROM payment_attempt") == [("sent",)]


def test_a_page_whose_answer_was_lost_is_replaced_at_the_same_press(
    server: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "MADE_ELSEWHERE_SECONDS", 0.0)
    reference = some_invoices()[0]
    wallet = wallet_at(server.address)
    pay(wallet, reference)
    with transaction() as session:
        # As it is left by a process that dies before it keeps the answer.
        execute(
            session,
            "UPDATE payment_attempt SET state = 'made', session_id = NULL, page_url = NULL,"
            " token_sha256 = NULL, ask_at = NULL",
        )
    assert pay(wallet, reference).step is Step.PAGE
    query = "SELECT state, closed_because FROM payment_attempt ORDER BY state"
    assert rows_of(database, query) == [("closed", "failed"), ("sent", None)]


def test_a_hint_that_repeats_makes_the_asking_due_soon(server: Server, database: str) -> None:
    reference = some_invoices()[0]
    wallet = wallet_at(server.address)
    pay(wallet, reference)
    order = server.operator.find(reference)
    for _ in range(9):
        # It came early: nothing was decided yet, and the questions became few.
        assert hint(wallet, order.notif_token) == 202
        ask(wallet, hurry=True)
    soon = "SELECT ask_at < clock_timestamp() + interval '15 seconds' FROM payment_attempt"
    assert rows_of(database, soon) == [(False,)]
    server.operator.settle(order, paid=True)
    assert hint(wallet, order.notif_token) == 202
    assert rows_of(database, soon) == [(True,)]
    assert ask(wallet) == 0, "not more than one question in a few seconds"
    assert ask(wallet, hurry=True) == 1
    paid_once(reference)


@pytest.mark.parametrize("word", ["INITIATED", "PENDING"])
def test_an_open_page_is_never_left_unasked_for_long(
    server: Server, database: str, word: str
) -> None:
    reference = some_invoices()[0]
    wallet = wallet_at(server.address)
    pay(wallet, reference)
    server.operator.find(reference).status = word
    with transaction() as session:
        execute(session, "UPDATE payment_attempt SET tries = 15")
    assert ask(wallet, hurry=True) == 1
    query = (
        "SELECT ask_at BETWEEN clock_timestamp() + interval '30 seconds'"
        " AND clock_timestamp() + make_interval(secs => 120) FROM payment_attempt"
    )
    assert rows_of(database, query) == [(True,)]


def test_an_order_that_is_known_already_takes_another_attempt(server: Server) -> None:
    wallet = wallet_at(server.address)
    made = wallet.make_page(a_wish())
    order = server.operator.find("148275036141")
    assert len(order.order_id) <= 30
    assert made.token == order.notif_token
    with pytest.raises(PageFailed):
        wallet.make_page(a_wish())
    with pytest.raises(ProviderAway):
        wallet_at(server.address, api_key="another-key-altogether").make_page(
            a_wish(attempt_id="2")
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"payment_url": "https://elsewhere.example/pay"},
        {"payment_url": "javascript:alert(1)"},
        {"payment_url": f"{NOWHERE}/pay/p1\r\nSet-Cookie: a=b"},
        {"payment_url": f"{NOWHERE}/pay/\x00"},
        {"notif_token": ""},
        {"notif_token": 12},
        {"pay_token": "with spaces"},
    ],
)
def test_a_page_that_is_not_one_is_none(wrong: Mapping[str, Any]) -> None:
    good = {"pay_token": "p1", "notif_token": "n1", "payment_url": f"{NOWHERE}/pay/p1"}
    assert telling(good).make_page(a_wish()).url == f"{NOWHERE}/pay/p1"
    with pytest.raises(ProviderAway):
        telling({**good, **wrong}).make_page(a_wish())


# -- what strangers send --------------------------------------------------------------------------


def test_the_golden_callbacks_are_hints_and_nothing_else() -> None:
    wallet = wallet_at(NOWHERE)
    wants = [
        wallet.read(Call("POST", "", {}, {}, case["body"].encode(), NOON))
        for case in ORANGE["callbacks"]
    ]
    tokens = [want.token for want in wants if isinstance(want, Heed)]
    stored = ORANGE["stored"]["notif_token"]
    assert [token == stored for token in tokens] == [True, False, True]
    assert len({want.delivery_id for want in wants if isinstance(want, Heed)}) == 3
    assert wallet.say(wants[0], Heeded(known=True)).status == 202
    assert wallet.say(wants[1], Heeded(known=False)).status == 400


_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
_HINTS: Final = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("status", "notif_token", "txnid"), _JSON)
)


@given(
    body=st.binary() | st.builds(lambda said: json.dumps(said).encode(), _JSON | _HINTS),
    headers=st.dictionaries(st.text(), st.text()),
)
@hypothesis_settings(max_examples=150, deadline=None)
def test_whatever_is_sent_is_a_hint_or_refused(body: bytes, headers: dict[str, str]) -> None:
    want = wallet_at(NOWHERE).read(Call("POST", "", headers, headers, body, NOON))
    if isinstance(want, AnswerNow):
        assert (want.reply.status, want.refused) == (400, True)
    else:
        assert isinstance(want, Heed)
        assert want.delivery_id.isprintable()
        assert len(want.delivery_id) < 64


@given(said=st.dictionaries(st.sampled_from([*SAME, "amount", "currency", "paid_at"]), _JSON))
@hypothesis_settings(max_examples=100, deadline=None)
def test_whatever_the_operator_says_raises_nothing_else(said: dict[str, Any]) -> None:
    for whole in (said, {**said, **SAME}):
        try:
            answered = telling(whole).ask(SESSION, received_at=NOON)
        except ProviderRefused:
            continue
        for report in answered.reports:
            if isinstance(report, PaymentReport):
                assert whole["status"] == "SUCCESS"
                assert report.amount_minor == 17250


def test_a_hint_of_any_text_is_answered(server: Server, database: str) -> None:
    wallet = wallet_at(server.address)
    for token in ("é", "\x00", "\ud800", "a b", "x" * 257, "' OR 1=1 --", "{}"):
        assert hint(wallet, token) == 400
    assert rows_of(database, "SELECT count(*) FROM webhook_delivery") == [(0,)]


# -- the providers file ---------------------------------------------------------------------------

ENTRY: Final = """
[[provider]]
name = "wallet"
kind = "status-query"
status_url = "https://pay.example.ma/transactionstatus"
api_key = "0123456789abcdef"
"""


def test_without_a_request_url_hints_are_taken_and_no_page_is_made() -> None:
    provider = read_providers(ENTRY, "file", live=True)["wallet"]
    assert type(provider) is StatusQuery
    assert provider.unsafe_in_production() == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (("https://pay", "http://pay"), "status_url"),
        (("https://pay.example.ma/transactionstatus", ""), "status_url"),
        (("0123456789abcdef", "a key"), "api_key"),
        (("0123456789abcdef", "a\\r\\nX: 1"), "api_key"),
        (("status_url", "statusurl"), "statusurl|status_url"),
    ],
)
def test_a_setting_that_means_nothing_is_said(change: tuple[str, str], word: str) -> None:
    with pytest.raises(Unusable, match=word):
        read_providers(ENTRY.replace(*change), "file")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("https://pay.example.ma", "http://127.0.0.1:8430"), "stand-in"),
        (("0123456789abcdef", "sandbox-0123456789"), "sandbox"),
        (("0123456789abcdef", "short"), "characters"),
    ],
)
def test_a_trials_setting_is_no_good_in_production(change: tuple[str, str], reason: str) -> None:
    [said] = read_providers(ENTRY.replace(*change), "file")["wallet"].unsafe_in_production()
    assert reason in said


# -- the simulated operator -----------------------------------------------------------------------


def test_an_operator_that_was_killed_goes_on_where_its_journal_ends(tmp_path: Path) -> None:
    path = tmp_path / "operator.jsonl"
    wish = {"order_id": "1-1", "reference": "1", "amount": "10.00", "notif_url": f"{NOWHERE}/x"}
    with Journal(path) as journal:
        operator = Operator(clock=lambda: NOON, journal=journal, faults=Faults(lose=1))
        made = operator.begin(wish)
        operator.settle(operator.find("1"), paid=True)
    again = Operator(clock=lambda: NOON + timedelta(hours=1), past=read_journal(path))
    asked = {"order_id": "1-1", "amount": "10.00", "pay_token": made["pay_token"]}
    assert again.status(asked)["status"] == "SUCCESS"
    with pytest.raises(walletoperator.Wrong):
        again.settle(again.find("1"), paid=True)
    again.begin({**wish, "order_id": "1-2"})
    assert walletoperator.net_minor(read_journal(path)) == {"1-1": 1000}


def test_an_operator_that_fails_once_and_dates_back() -> None:
    with an_operator(Operator(clock=lambda: NOON, faults=Faults(fail=1, late=1))) as server:
        wallet = wallet_at(server.address)
        with pytest.raises(ProviderAway):
            wallet.make_page(a_wish())
        made = wallet.make_page(a_wish())
        server.operator.settle(server.operator.find("148275036141"), paid=True)
        [report] = wallet.ask(made.session_id, received_at=NOON).reports
    assert isinstance(report, PaymentReport)
    assert report.paid_at is not None
    assert report.paid_at <= NOON - timedelta(days=1)


def test_a_program_pays_by_the_control_address(server: Server) -> None:
    httpx.post(
        f"{server.address}/webpayment",
        json={"order_id": "1-1", "reference": "1", "amount": "10.00", "lang": "ar"},
        headers={"Authorization": f"Bearer {KEY}"},
    )

    def page() -> str:
        token = server.operator.find("1").pay_token
        return httpx.get(f"{server.address}/pay/{token}").text

    assert 'dir="rtl"' in page()
    said = httpx.post(f"{server.address}/_control/refuse", json={"reference": "1"}).json()
    assert said["status"] == "FAILED"
    assert 'value="pay"' in page(), "refused, it may still be paid"
    said = httpx.post(f"{server.address}/_control/pay", json={"order_id": "1-1"}).json()
    assert (said["status"], said["told"]) == ("SUCCESS", [None])
    assert 'value="pay"' not in page()
    again = httpx.post(f"{server.address}/_control/pay", json={"order_id": "1-1"})
    assert again.status_code == 409
