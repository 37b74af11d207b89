"""A payer who is asked on his phone: once, and booked by the operator's answer alone."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from gateway import process
from gateway.billing.presentment import present
from gateway.collection.attempt_rows import NOT_KNOWN, Attempt, latest_attempt
from gateway.collection.attempts import Begun, Step, begin, end_open, give_up
from gateway.collection.inquiries import ask_due
from gateway.collection.reports import AttemptLapsed, PaymentReport, Unbookable
from gateway.db import execute, snapshot, transaction
from gateway.errors import ProviderAway, ProviderRefused, Unusable
from gateway.models import AttemptState, ExceptionCode, Manner
from gateway.providers import MadePage, PageProvider, PageState, WantedPage
from gateway.providers.calls import AnswerNow, Call, Heed
from gateway.providers.registry import read_providers
from gateway.providers.status_query import Order, make
from gateway.providers.status_query_push import StatusQueryPush, request_id
from gateway.simulators.journal import Journal, read_journal
from gateway.simulators.walletpush import Operator, Server
from tests.factories import (
    NOON,
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
from tests.stand_in import PUSH_KEY, a_push_standing_in
from webhooks.answering import answer

GOLDEN: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "golden/unsigned_callbacks.json").read_text("utf-8")
)["mtn_momo"]
PHONE: Final = "212612345678"


@pytest.fixture
def server() -> Iterator[Server]:
    """The simulated operator, at noon."""
    with a_push_standing_in() as found:
        yield found


@pytest.fixture
def reference(database: str) -> str:
    return some_invoices()[0]


def wallet_at(address: str, **values: Any) -> StatusQueryPush:
    at = f"{address}/requesttopay"
    given = {"style": "push", "status_url": at, "request_url": at, "api_key": PUSH_KEY}
    made = make("momo", {**given, **values}, live=False)
    assert isinstance(made, StatusQueryPush)
    assert isinstance(made, PageProvider)
    return made


def pay(
    wallet: StatusQueryPush,
    reference: str,
    *,
    phone: str = PHONE,
    now: datetime = NOON,
) -> Begun:
    def due_minor(session: Any) -> int:
        found = present(session, reference, now=now, validity_months=12)
        return found.due_minor if found else 0

    return begin(
        {wallet.name: wallet},
        reference,
        due_minor=due_minor,
        language="fr",
        link=f"http://127.0.0.1:9/{reference}",
        clock=lambda: now,
        phone=phone,
    )


def ask(wallet: StatusQueryPush, *, now: datetime = NOON) -> int:
    with transaction() as session:
        execute(session, "UPDATE payment_attempt SET ask_at = '-infinity' WHERE ask_at > now()")
    return ask_due({"momo": wallet}, key=process.signing_key(), clock=lambda: now, asks_max=9)


def attempt(reference: str) -> Attempt:
    with snapshot() as session:
        found = latest_attempt(session, reference)
    assert found is not None
    return found


def paid_once(reference: str) -> None:
    books = the_books()
    assert [p[2:] for p in books.payments] == [("booked", 16352, reference)]
    assert books.exceptions == []
    assert balances() == {"clearing:momo": 16352, "payable:institution": -16352}
    seal()
    assert broken_promises(deliveries=True) == []


def told(wallet: StatusQueryPush, said: Any) -> int:
    """Send a callback, as anybody can; return the status of the answer."""
    call = Call("PUT", "", {}, {}, json.dumps(said).encode(), NOON)
    return answer(an_answerer(), wallet, call).status


def test_from_the_number_over_the_phone_to_the_books(
    server: Server, reference: str, database: str
) -> None:
    wallet = wallet_at(server.address)
    assert pay(wallet, reference, phone="") == Begun(Step.PHONE)
    assert rows_of(database, "SELECT count(*) FROM payment_attempt") == [(0,)]
    begun = at_once(*[lambda: pay(wallet, reference) for _ in range(4)])
    assert {each.step for each in begun} == {Step.ASKED}
    assert pay(wallet, reference, phone="").step is Step.ASKED, "who comes back is not asked again"
    [asked] = server.operator.requests.values()
    kept = attempt(reference)
    assert (kept.manner, kept.page_url) == (Manner.PUSH, None)
    assert asked.reference_id == request_id(kept.id)
    assert server.operator.phones == {asked.reference_id: PHONE}
    assert told(wallet, asked.told) == 202
    assert ask(wallet) == 1
    assert the_books().payments == [], "he has not confirmed yet"
    assert server.operator.decide(asked, "confirm") is None, "its callback is lost"
    assert ask(wallet) == 1
    assert attempt(reference).state is AttemptState.PAID
    paid_once(reference)
    assert pay(wallet, reference) == Begun(Step.NOTHING_DUE)
    dump = rows_of(database, "SELECT a::text FROM payment_attempt a UNION SELECT d::text FROM"
        " webhook_delivery d UNION SELECT p::text FROM payment p")  # fmt: skip
    assert PHONE[3:] not in str(dump)


def test_a_lost_answer_asks_nobody_twice(server: Server, reference: str) -> None:
    wallet = wallet_at(server.address)
    server.operator.lost_answers = 1
    with pytest.raises(ProviderAway):
        pay(wallet, reference)
    assert attempt(reference).is_open, "his phone rings, whoever heard of it"
    assert pay(wallet, reference, phone="").step is Step.ASKED
    assert pay(wallet, reference, phone="212700000000").step is Step.ASKED
    [asked] = server.operator.requests.values()
    assert server.operator.phones[asked.reference_id] == PHONE
    server.operator.decide(asked, "confirm")
    ask(wallet)
    paid_once(reference)


def test_a_wish_that_never_came_is_wished_again_or_ends(server: Server, reference: str) -> None:
    wallet = wallet_at(server.address)
    server.operator.away = True
    with pytest.raises(ProviderAway):
        pay(wallet, reference)
    server.operator.away = False
    assert ask(wallet) == 1
    assert attempt(reference).is_open, "what the operator does not know may be on its way"
    assert pay(wallet, reference).step is Step.ASKED
    assert len(server.operator.requests) == 1
    server.operator.requests.clear()
    ask(wallet, now=NOON + timedelta(minutes=11))
    assert attempt(reference).closed_because == NOT_KNOWN


class Watched(StatusQueryPush):
    """One of which something happens between the word of ours that is kept and the call."""

    during: Callable[[], None]

    def make_page(self, wanted: WantedPage) -> MadePage:
        self.during()
        return super().make_page(wanted)


def watched_at(server: Server, during: Callable[[], None]) -> Watched:
    wallet = wallet_at(server.address)
    wallet.__class__ = Watched
    assert isinstance(wallet, Watched)
    wallet.during = during
    return wallet


def test_a_second_tab_ends_no_push_in_flight(server: Server, reference: str) -> None:
    left: list[PageState] = []

    def second_tab() -> None:
        wallet = wallet_at(server.address)
        left.append(end_open({"momo": wallet}, reference, clock=lambda: NOON))

    assert pay(watched_at(server, second_tab), reference).step is Step.ASKED
    assert left == [PageState.OPEN], "his to leave, and not ours to close"
    assert attempt(reference).is_open
    [asked] = server.operator.requests.values()
    server.operator.decide(asked, "confirm")
    ask(wallet_at(server.address))
    paid_once(reference)


def test_a_number_that_is_refused_ends_only_what_nobody_is_asked_by(
    server: Server, reference: str
) -> None:
    wallet = wallet_at(server.address)
    with pytest.raises(ProviderRefused):
        pay(wallet, reference, phone="nobody")
    assert attempt(reference).closed_because == "refused"
    second = watched_at(server, lambda: None)

    def second_tab() -> None:
        assert pay(wallet, reference).step is Step.ASKED

    second.during = second_tab
    with pytest.raises(ProviderRefused):
        pay(second, reference, phone="nobody")
    assert attempt(reference).is_open, "the other tab's is taken"


def test_what_is_undecided_at_our_end_is_asked_about_and_hinders(
    server: Server, reference: str
) -> None:
    wallet = wallet_at(server.address)
    pay(wallet, reference)
    late = NOON + timedelta(minutes=11)
    ask(wallet, now=late)
    assert attempt(reference).is_open
    assert pay(wallet, reference, now=late).step is Step.UNKNOWN
    [asked] = server.operator.requests.values()
    server.operator.decide(asked, "confirm")
    ask(wallet, now=late)
    paid_once(reference)


def test_what_is_asked_after_all_hinders_though_it_was_closed(
    server: Server, reference: str
) -> None:
    wallet = wallet_at(server.address)
    pay(wallet, reference)
    [asked] = server.operator.requests.values()
    asked.status = "FAILED"
    ask(wallet)
    assert attempt(reference).closed_because == "lapsed"
    asked.status = "PENDING"
    assert pay(wallet, reference).step is Step.UNKNOWN
    assert len(server.operator.requests) == 1


def test_of_a_hint_its_hash_is_kept_and_no_number(
    server: Server, reference: str, database: str
) -> None:
    wallet = wallet_at(server.address)
    pay(wallet, reference)
    [asked] = server.operator.requests.values()
    said = {**asked.told, "payer": {"partyIdType": "MSISDN", "partyId": PHONE}}
    assert [told(wallet, said) for _ in range(2)] == [202, 202]
    [(body, sha256)] = rows_of(database, "SELECT body, body_sha256 FROM webhook_delivery")
    assert bytes(body) == b"{}"
    assert bytes(sha256) == hashlib.sha256(json.dumps(said).encode()).digest()
    assert broken_promises(deliveries=True) == []


@pytest.mark.parametrize("deed", ["refuse", "lapse"])
def test_who_refuses_or_lets_it_lapse_may_choose_again(
    server: Server, reference: str, deed: str
) -> None:
    wallet = wallet_at(server.address)
    pay(wallet, reference)
    assert not give_up({"momo": wallet}, reference, clock=lambda: NOON), "only he can close it"
    [first] = server.operator.requests.values()
    server.operator.decide(first, deed)
    ask(wallet)
    assert attempt(reference).closed_because == "lapsed"
    assert pay(wallet, reference).step is Step.ASKED
    assert len(server.operator.requests) == 2
    assert the_books().payments == []


def test_who_pays_otherwise_knowing_it_and_confirms_after_all_has_paid_twice(
    server: Server, reference: str
) -> None:
    wallet = wallet_at(server.address)
    pay(wallet, reference)
    assert give_up({"momo": wallet}, reference, clock=lambda: NOON, anyway=True)
    record(a_report(reference))
    [asked] = server.operator.requests.values()
    server.operator.decide(asked, "confirm")
    ask(wallet)
    books = the_books()
    assert sorted(p[2:4] for p in books.payments) == [("booked", 16352)] * 2
    assert [e[0] for e in books.exceptions] == ["paid_twice"]
    seal()
    assert broken_promises() == []


@contextmanager
def saying(said: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Run an operator that answers the same to every question; yield what it is asked, too."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    operator = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=operator.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{operator.server_port}", asked
    finally:
        operator.shutdown()
        thread.join()
        operator.server_close()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "booked"),
        ({"amount": "172.51"}, ExceptionCode.INVALID_AMOUNT),
        ({"currency": "EUR"}, ExceptionCode.WRONG_CURRENCY),
        ({"externalId": "148275036238"}, "refused"),
        ({"status": "FAILED", "reason": "APPROVAL_REJECTED"}, PageState.CLOSED),
        ({"status": "PENDING"}, PageState.OPEN),
        ({"status": "A_WORD_OF_NEXT_YEAR"}, PageState.USED),
    ],
)
def test_the_published_case_is_asked_about_and_compared(
    changed: dict[str, str], expected: str
) -> None:
    stored = Order(GOLDEN["callback"]["externalId"], 17250, GOLDEN["stored_reference_id"])
    with saying({**GOLDEN["callback"], **changed}) as (address, asked):
        wallet = wallet_at(address)
        want = wallet.read(Call("POST", "", {}, {}, json.dumps(GOLDEN["callback"]).encode(), NOON))
        assert isinstance(want, Heed), "a hint, and nothing that could be booked"
        assert want.token == stored.order_id
        if expected == "refused":
            with pytest.raises(ProviderRefused):
                wallet.ask(stored.session_id, received_at=NOON)
        else:
            found = wallet.ask(stored.session_id, received_at=NOON)
            said = found.reports[0] if found.reports else None
            if expected == "booked":
                assert isinstance(said, PaymentReport)
                assert (said.amount_minor, said.reference_given) == (17250, "148275036141")
            elif isinstance(expected, ExceptionCode):
                assert isinstance(said, Unbookable)
                assert said.code is expected
            else:
                assert found.state is expected
                assert (said is None) is (expected is not PageState.CLOSED)
                assert said is None or isinstance(said, AttemptLapsed)
        assert asked == [f"/requesttopay/{GOLDEN['stored_reference_id']}"]
    assert GOLDEN["callback"]["payer"]["partyId"] not in repr(want)


def test_what_names_no_order_is_refused() -> None:
    wallet = wallet_at("http://127.0.0.1:9")
    for body in (b"", b"[]", b"{}", b'{"externalId": 1}', b'{"notif_token": "x"}', b"\xff"):
        want = wallet.read(Call("PUT", "", {}, {}, body, NOON))
        assert isinstance(want, AnswerNow), body
        assert want.reply.status == 400


def test_its_settings_are_checked() -> None:
    entry = '[[provider]]\nname = "momo"\nkind = "status-query"\nstyle = "push"\napi_key = "k"\n'
    at = 'status_url = "https://momo.example/r"\n'
    for more in ("", 'request_url = "http://momo.example/r"\n', "push_minutes = 1\n"):
        with pytest.raises(Unusable, match="momo"):
            read_providers(entry + at + more, "providers.toml")
    with pytest.raises(Unusable, match="push_minutes"):
        read_providers(entry.replace('style = "push"\n', "push_minutes = 5\n") + at, "p.toml")
    found = read_providers(entry + at + 'request_url = "https://momo.example/r"\n', "p.toml")
    provider = found["momo"]
    assert isinstance(provider, PageProvider)
    assert (provider.manner, provider.pages_origin) == (Manner.PUSH, "")
    assert provider.life == timedelta(minutes=10)


def test_an_operator_goes_on_where_its_journal_ends(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    said = {"amount": "163.52", "currency": "MAD", "externalId": "148275036141-1"}
    said = {**said, "payer": {"partyId": PHONE}}  # type: ignore[dict-item]
    names = [request_id(f"wasl_{n:032x}") for n in (1, 2)]
    with Journal(path) as journal:
        operator = Operator(clock=lambda: NOON, journal=journal)
        for name in names:
            operator.ask(name, "http://127.0.0.1:9/", said)
        operator.decide(operator.find(names[0]), "confirm")
    assert PHONE not in path.read_text()
    again = Operator(clock=lambda: NOON)
    again.restore(read_journal(path))
    assert [again.find(name).status for name in names] == ["SUCCESSFUL", "PENDING"]
