"""The Mobile Money API: bills shown and paid, by the published file and on the real database."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_core.exceptions import OpenAPIError
from starlette.applications import Starlette

from gateway import db
from gateway.collection.reports import PaymentReport
from gateway.embedded.processes import free_port
from gateway.errors import Unusable
from gateway.models import ExceptionCode
from gateway.providers.calls import AnswerNow, Call, Reply, TakePayment
from gateway.providers.gsma import Gsma, make
from gateway.providers.gsma_objects import amount_minor, canonical_amount
from gateway.providers.gsma_wire import Wrong
from gateway.providers.registry import read_providers, unsafe_in_production
from gateway.simulators import mobilemoney
from gateway.simulators.journal import read_journal
from gateway.simulators.tally import payments_told
from tests.factories import (
    NOON,
    a_contributor,
    a_desk,
    an_answerer,
    at_once,
    balances,
    broken_promises,
    issue,
    rows_of,
    seal,
    some_invoices,
    the_books,
)
from tests.gateway.providers.gsma_spec import judge_object, judge_reply, judge_request
from webhooks.answering import answer
from webhooks.callbacks import send_due
from webhooks.inbox import drain
from webhooks.intake import Intake
from webhooks.routes import webhook_routes

KEY: Final = "operator-key-0123456789"
VECTORS: Final = json.loads((Path(__file__).parents[2] / "golden" / "gsma.json").read_text("utf-8"))
CORRELATION: Final = "6f0f8d0e-8b0c-4f0e-9a66-1c2d3e4f5a6b"
ELSEWHERE: Final = "http://127.0.0.1:9/callbacks"
DELIVERIES: Final = "SELECT delivery_id, outcome FROM webhook_delivery ORDER BY id"


def a_wallet(*, live: bool = False) -> Gsma:
    return make("walletx", {"api_keys": [KEY]}, live=live)


def a_call(
    method: str,
    path: str,
    body: bytes = b"",
    query: Mapping[str, str] | None = None,
    **headers: str,
) -> Call:
    """Return a call with our key, as the routes give it: header names in lower case."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Call(method, path, query or {}, {"x-api-key": KEY, **named}, body, NOON)


def a_payment(reference: str, number: int = 1, amount: str = "163.52", **fields: Any) -> Call:
    """Return a POST that pays a bill, under the correlation id of this number."""
    headers = fields.pop("headers", {"x_correlationid": correlation(number)})
    said = {
        "currency": "MAD",
        "amountPaid": amount,
        "requestingOrganisationTransactionReference": f"WX-{number}",
        **fields,
    }
    body = json.dumps({name: value for name, value in said.items() if value is not None}).encode()
    return a_call("POST", f"bills/{reference}/payments", body, **headers)


def correlation(number: int) -> str:
    return f"{CORRELATION[:-4]}{number:04x}"


def told(call: Call, *, honest: bool = True) -> Reply:
    """Return what the hub answers; call and answer are held against the published file."""
    if honest:
        judge_request(call)
    else:
        with pytest.raises(OpenAPIError):
            judge_request(call)
    reply = answer(an_answerer(), a_wallet(), call)
    judge_reply(call, reply)
    return reply


def said(reply: Reply) -> Any:
    return json.loads(reply.body)


def error(reply: Reply) -> tuple[int, str, str]:
    found = said(reply)
    return reply.status, found["errorCategory"], found["errorCode"]


# -- the vectors ----------------------------------------------------------------------------------


def test_amounts_are_written_as_published_and_read_leniently() -> None:
    pattern = re.compile(VECTORS["amount_pattern"])
    ours = {"172.5": 17250, "172": 17200, "0.50": 50}
    for case in VECTORS["amount_conformance"]:
        text = case["amount"]
        assert bool(pattern.fullmatch(text)) is case["matches_spec_pattern"]
        try:
            assert amount_minor(text) == ours[text]
        except Wrong:
            assert text not in ours
    for case in VECTORS["canonical_out"]:
        assert canonical_amount(amount_minor(case["in"])) == case["out"]


@given(st.integers(min_value=0, max_value=10**12))
def test_every_amount_that_goes_out_is_as_published(minor: int) -> None:
    written = canonical_amount(minor)
    assert re.fullmatch(VECTORS["amount_pattern"], written)
    assert minor == 0 or amount_minor(written) == minor


def test_the_published_request_is_read_by_either_address() -> None:
    vector = VECTORS["bill_payment_request"]
    headers = {name.lower(): value for name, value in vector["headers"].items()}
    body = vector["body"].encode()
    assert headers["x-content-hash"] == hashlib.sha256(body).hexdigest()
    wants = []
    for path in (vector["path"], vector["alt_path"]):
        call = Call("POST", path.strip("/"), {}, {**headers, "x-api-key": KEY}, body, NOON)
        judge_request(call)
        wants.append(a_wallet().read(call))
    want = wants[0]
    assert want == wants[1]
    assert isinstance(want, TakePayment)
    assert isinstance(want.report, PaymentReport)
    assert want.delivery_id == headers["x-correlationid"]
    assert want.callback_url == headers["x-callback-url"]
    assert want.report.provider_payment_id == "WX-000001"
    assert (want.report.reference_given, want.report.amount_minor) == ("148275036141", 17250)
    parsed = a_wallet().parse(
        body, delivery_id=want.delivery_id, received_at=NOON, path=want.path or ""
    )
    assert parsed == want.report


def test_the_published_objects_are_as_published() -> None:
    judge_object(VECTORS["bill_object"], "responseBills")
    judge_object(VECTORS["callback_put"]["body"], "responseBillPayment")
    judge_object(VECTORS["accepted_async"]["body"], "requestStateObject")
    for case in VECTORS["errors"]:
        judge_object(case["body"], "errorObject")


def test_errors_are_those_of_the_vectors(database: str) -> None:
    (reference,) = some_invoices()
    asked = {
        "unknown bill": a_payment("148275036141", 1),
        "amount above due": a_payment(reference, 2, "163.53"),
        "currency EUR": a_payment(reference, 3, currency="EUR"),
        "malformed amount": a_payment(reference, 4, "163,52"),
    }
    assert asked.keys() == {case["case"] for case in VECTORS["errors"]}
    for case in VECTORS["errors"]:
        call = asked[case["case"]]
        reply = told(call, honest=case["case"] != "malformed amount")
        expected = case["body"]["errorCategory"], case["body"]["errorCode"]
        assert error(reply) == (case["http"], *expected)
    assert the_books().payments == []


REFUSED: Final[list[tuple[dict[str, Any], str, bool]]] = [
    ({"amount": "-5"}, "negativeValue", False),
    ({"amount": "0"}, "lessThanTransactionMinValue", True),
    ({"amount": "10000000000.01"}, "greaterThanTransactionMaxValue", True),
    ({"amount": "163.525"}, "formatError", True),
    ({"amountPaid": 163}, "formatError", False),
    ({"amountPaid": None}, "mandatoryValueNotSupplied", False),
    ({"currency": None}, "mandatoryValueNotSupplied", False),
    ({"currency": "dirham"}, "formatError", False),
    ({"requestingOrganisationTransactionReference": "W" * 257}, "lengthError", False),
    ({"requestingOrganisationTransactionReference": 7}, "formatError", False),
    ({"headers": {"x_correlationid": "7"}}, "formatError", False),
    (
        {"headers": {}, "requestingOrganisationTransactionReference": None},
        "mandatoryValueNotSupplied",
        True,
    ),
]


def test_what_cannot_be_taken_is_said_by_its_code(database: str) -> None:
    (reference,) = some_invoices()
    for number, (fields, code, honest) in enumerate(REFUSED):
        reply = told(a_payment(reference, number, **fields), honest=honest)
        assert (reply.status, said(reply)["errorCode"]) == (400, code)
    assert the_books().payments == []


# -- bills and payments ---------------------------------------------------------------------------


def test_a_bill_is_shown_paid_in_two_parts_and_shown_again(database: str) -> None:
    (reference,) = some_invoices()
    ((number,),) = rows_of(database, "SELECT cnss_number FROM contributor")
    by_person = a_call("GET", f"accounts/consumerno/{number}/bills")
    by_bill = a_call("GET", f"accounts/serviceprovider@wasl$accountid@{reference}/bills")
    shown = told(by_person)
    assert said(shown) == said(told(by_bill))
    assert shown.headers["X-Records-Available-Count"] == "1"
    (bill,) = said(shown)
    assert bill == {
        "billReference": reference,
        "billStatus": "unpaid",
        "amountDue": "163.52",
        "minimumAmountDue": "163.52",
        "currency": "MAD",
        "billdescription": "AMO 2026-11",
        "dueDate": "2026-11-30",
        "creationDate": "2026-11-18T12:00:00.000Z",
    }

    first = told(a_payment(reference, 1, "100.50"), honest=False)
    assert first.status == 201
    assert said(first) == {
        "billPaymentStatus": "completed",
        "currency": "MAD",
        "amountPaid": "100.5",
        "requestingOrganisationTransactionReference": "WX-1",
        "creationDate": "2026-11-18T12:00:00.000Z",
        "modificationDate": "2026-11-18T12:00:00.000Z",
    }
    assert said(told(by_bill))[0] | {"billStatus": "", "amountDue": ""} == bill | {
        "billStatus": "",
        "amountDue": "",
        "minimumAmountDue": "63.02",
    }
    assert said(told(by_bill))[0]["billStatus"] == "partialpaid"
    assert error(told(a_payment(reference, 2, "63.03")))[2] == "overPaymentNotAllowed"
    assert told(a_payment(reference, 3, "63.02")).status == 201
    assert said(told(by_person)) == []
    assert said(told(by_bill))[0]["billStatus"] == "paid"
    assert error(told(a_payment(reference, 4, "0.01")))[2] == "overPaymentNotAllowed"

    paid = told(a_call("GET", f"bills/{reference}/payments"))
    assert [each["amountPaid"] for each in said(paid)] == ["63.02", "100.5"]
    page = {"limit": "1", "offset": "1"}
    second = told(a_call("GET", f"accounts/msisdn/+2126/bills/{reference}/payments", query=page))
    assert said(second) == said(paid)[1:]
    assert second.headers["X-Records-Available-Count"] == "2"
    later = {"fromDateTime": "2026-11-18T12:00:01Z"}
    assert said(told(a_call("GET", f"bills/{reference}/payments", query=later))) == []
    seal()
    assert broken_promises(deliveries=True) == []


def test_a_persons_bills_come_in_pages(database: str) -> None:
    with db.transaction() as session:
        number = a_contributor(session).cnss_number
    issue("2026-10")
    issue("2026-11")
    path = f"accounts/accountid/{number}/bills"
    assert [b["billdescription"] for b in said(told(a_call("GET", path)))] == [
        "AMO 2026-11",
        "AMO 2026-10",
    ]
    second = told(a_call("GET", path, query={"limit": "5", "offset": "1"}))
    assert [b["billdescription"] for b in said(second)] == ["AMO 2026-10"]
    assert second.headers["X-Records-Returned-Count"] == "1"
    assert second.headers["X-Records-Available-Count"] == "2"
    later = {"fromDateTime": "2026-11-18T13:00:01+01:00"}
    assert said(told(a_call("GET", path, query=later))) == []


NOT_THERE: Final[list[tuple[str, dict[str, str], tuple[int, str, str]]]] = [
    ("accounts/msisdn/+212600000000/bills", {}, (404, "identification", "identifierError")),
    ("accounts/accountid/1482750361/bills", {}, (404, "identification", "identifierError")),
    ("accounts/accountid/148275036141/bills", {}, (404, "identification", "identifierError")),
    ("accounts/accountid/999999999/bills", {}, (404, "identification", "identifierError")),
    ("bills/148275036141/payments", {}, (404, "identification", "identifierError")),
    ("accounts/telephone/1/bills", {}, (400, "validation", "formatError")),
    ("accounts/a@1$b@2$c@3$d@4/bills", {}, (400, "validation", "formatError")),
    ("bills/148275036141/payments", {"limit": "0"}, (400, "validation", "formatError")),
    ("bills/148275036141/payments", {"offset": "-1"}, (400, "validation", "invalidOffset")),
    ("bills/1/payments", {"fromDateTime": "today"}, (400, "validation", "formatError")),
    (f"requeststates/{CORRELATION}", {}, (404, "identification", "identifierError")),
    (f"responses/{CORRELATION}", {}, (404, "identification", "identifierError")),
    ("requeststates/1", {}, (400, "validation", "formatError")),
    ("", {}, (404, "identification", "identifierError")),
    ("bills//payments", {}, (404, "identification", "identifierError")),
    ("transactions/type/billpay", {}, (404, "identification", "identifierError")),
]


def test_what_is_not_there_is_said_so(database: str) -> None:
    for path, query, expected in NOT_THERE:
        reply = answer(an_answerer(), a_wallet(), a_call("GET", path, query=query))
        assert error(reply) == expected
        judge_object(said(reply), "errorObject")


def test_a_payment_without_a_bill_is_refused_and_never_listed(database: str) -> None:
    path = "accounts/accountid@100000001/bills/payments"
    call = a_payment("", 1)
    reply = told(a_call("POST", path, call.body, x_correlationid=CORRELATION))
    assert error(reply) == (400, "validation", "mandatoryValueNotSupplied")
    assert said(told(a_call("GET", path))) == []
    assert rows_of(database, DELIVERIES) == []


# -- the same again -------------------------------------------------------------------------------


def test_the_same_again_gets_the_first_answer_and_is_booked_once(database: str) -> None:
    (reference,) = some_invoices()
    call = a_payment(reference)
    replies = at_once(*[lambda: answer(an_answerer(), a_wallet(), call)] * 4)
    assert {(reply.status, reply.body) for reply in replies} == {(201, replies[0].body)}
    by_account = Call(
        "POST", f"accounts/msisdn/+2126/{call.path}", {}, call.headers, call.body, NOON
    )
    assert told(by_account).body == replies[0].body
    # The same transaction under another correlation id, and under none.
    other = a_payment(reference, headers={"x_correlationid": correlation(2)})
    assert told(other).status == 201
    without = a_payment(reference, headers={})
    assert told(without).status == told(without).status == 201
    assert balances()["clearing:walletx"] == 16352
    assert len(the_books().payments) == 1
    # A UUID is the same in capitals.
    capitals = a_payment(reference, headers={"x_correlationid": correlation(2).upper()})
    assert told(capitals).status == 201
    assert said(told(a_call("GET", f"responses/{correlation(2).upper()}")))["link"]
    assert len(rows_of(database, DELIVERIES)) == 3
    stored = rows_of(database, "SELECT DISTINCT path FROM webhook_delivery")
    assert stored == [(f"bills/{reference}/payments",)]


def test_something_else_under_the_same_id_is_a_conflict(database: str) -> None:
    first, second = some_invoices(2)
    assert told(a_payment(first)).status == 201
    duplicate = (400, "businessRule", "duplicateRequest")
    assert error(told(a_payment(first, amount="99"))) == duplicate
    # The same transaction for another bill, under a correlation id of its own.
    moved = a_payment(second, headers={"x_correlationid": correlation(2)})
    assert error(told(moved)) == duplicate
    drain(a_desk(a_wallet()), batches_max=5)
    books = the_books()
    assert [code for code, _ in books.exceptions] == ["conflicting_delivery", "conflicting_payment"]
    assert books.payments == [("walletx", "WX-1", "booked", 16352, first)]
    assert rows_of(database, "SELECT count(*) FROM webhook_variant") == [(1,)]


# -- who does not wait ----------------------------------------------------------------------------


def test_who_gives_an_address_hears_later_how_it_ended(database: str) -> None:
    (reference,) = some_invoices()
    declined, declined_put, state, response = _later(database, reference, 1, "163.53")
    judge_object(declined_put, "errorObject")
    assert declined_put["errorCode"] == "overPaymentNotAllowed"
    assert said(state) == declined | {"status": "failed", "error": declined_put}
    assert error(response) == (400, "businessRule", "overPaymentNotAllowed")

    completed, put, state, response = _later(database, reference, 2, "163.52")
    judge_object(put, "responseBillPayment")
    # Ours gives its own reference once a receipt is issued, which is after this.
    vector = VECTORS["callback_put"]["body"]
    assert put.keys() == vector.keys() - {"serviceProviderPaymentReference"}
    assert said(state) == completed | {"status": "completed", "objectReference": "WX-2"}
    assert said(response) == {"link": f"/bills/{reference}/payments"}


def _later(
    database: str, reference: str, number: int, amount: str
) -> tuple[dict[str, str], dict[str, str], Reply, Reply]:
    """Pay with a callback; return how each state begins, what is put, the state, the response."""
    headers = {"x_correlationid": correlation(number), "x_callback_url": ELSEWHERE}
    accepted = told(a_payment(reference, number, amount, headers=headers))
    assert accepted.status == 202
    ticket = said(accepted)["serverCorrelationId"]
    published = VECTORS["accepted_async"]["body"]
    assert said(accepted) == published | {"serverCorrelationId": ticket}
    assert told(a_payment(reference, number, amount, headers=headers)).body == accepted.body
    query = "SELECT body, url, headers FROM provider_callback ORDER BY id DESC"
    body, url, kept = rows_of(database, query)[0]
    assert url == ELSEWHERE
    assert kept[":method"] == "PUT"
    assert kept["X-CorrelationID"] == correlation(number)
    assert kept["X-Content-Hash"] == hashlib.sha256(body).hexdigest()
    state = told(a_call("GET", f"requeststates/{ticket.upper()}"))
    response = told(a_call("GET", f"responses/{correlation(number)}"))
    begins = {"serverCorrelationId": ticket, "notificationMethod": "callback"}
    return begins, json.loads(body), state, response


@pytest.mark.parametrize(
    "url", ["ftp://a.example/", "//a.example", "http://", "http://a@b.example/", "http://[", "x y"]
)
def test_an_address_to_call_back_must_be_one(url: str) -> None:
    headers = {"x_correlationid": CORRELATION, "x_callback_url": url}
    want = a_wallet().read(a_payment("1", headers=headers))
    assert isinstance(want, AnswerNow)
    assert want.reply.status == 400


def test_in_production_a_callback_is_https() -> None:
    headers = {"x_correlationid": CORRELATION, "x_callback_url": ELSEWHERE}
    assert isinstance(a_wallet(live=True).read(a_payment("1", headers=headers)), AnswerNow)
    headers["x_callback_url"] = "https://wallet.example/mm?a=1"
    assert isinstance(a_wallet(live=True).read(a_payment("1", headers=headers)), TakePayment)


# -- who may, and what cannot be read -------------------------------------------------------------


NOT_AUTHENTIC: Final[list[tuple[dict[str, str], tuple[int, str, str]]]] = [
    ({"x-api-key": KEY[:-1]}, (401, "authorisation", "clientAuthorisationError")),
    ({}, (401, "authorisation", "clientAuthorisationError")),
    ({"x-api-key": KEY, "x-content-hash": "0" * 64}, (400, "validation", "formatError")),
]


def test_what_is_not_authentic_is_counted_and_not_kept(database: str) -> None:
    honest = a_payment("148275036141")
    refused: Counter[str] = Counter()
    answerer = an_answerer(count_refused=lambda name: refused.update([name]))
    for headers, expected in NOT_AUTHENTIC:
        call = Call("POST", honest.path, {}, headers, honest.body, NOON)
        reply = answer(answerer, a_wallet(), call)
        assert error(reply) == expected
        judge_reply(call, reply)
    assert refused == {"walletx": len(NOT_AUTHENTIC)}
    assert rows_of(database, DELIVERIES) == []


def test_bytes_that_are_no_json_are_kept_and_take_no_id(database: str) -> None:
    (reference,) = some_invoices()
    honest = a_payment(reference)
    cut = Call("POST", honest.path, {}, honest.headers, honest.body[:-9], NOON)
    assert error(told(cut, honest=False)) == (400, "validation", "formatError")
    assert told(cut, honest=False).status == 400
    assert [code for code, _ in the_books().exceptions] == [ExceptionCode.UNREADABLE_DELIVERY]
    assert told(honest).status == 201


def test_while_the_database_is_away_the_sender_comes_again(home: Path) -> None:
    db.connect("postgresql://nobody@127.0.0.1:9/nowhere")
    try:
        for call in (a_payment("148275036141"), a_call("GET", "heartbeat")):
            reply = told(call)
            assert error(reply) == (503, "serviceUnavailable", "genericError")
            assert int(reply.headers["Retry-After"]) > 0
    finally:
        db.disconnect()


def test_a_heartbeat_says_that_we_are_there(database: str) -> None:
    assert said(told(a_call("GET", "heartbeat"))) == {"serviceStatus": "available"}


def test_keys_are_secrets() -> None:
    def reasons(*keys: str) -> list[str]:
        listed = json.dumps(list(keys))
        text = f'[[provider]]\nname = "w"\nkind = "gsma"\napi_keys = {listed}\n'
        return unsafe_in_production(read_providers(text, "providers.toml"))

    assert reasons(KEY, "another-operator-key-42") == []
    assert reasons("wasl-sandbox-0123456789") == ["Provider w: a key was made by a sandbox."]
    assert reasons("aaaabbbbaaaabbbb") == ["Provider w: a key can be guessed."]
    for unusable in ([], ["too-short"], ["with spaces in it 0123"]):
        with pytest.raises(Unusable, match="provider w, api_keys"):
            reasons(*unusable)


# -- whatever comes -------------------------------------------------------------------------------

SEGMENTS: Final = st.sampled_from(
    ["accounts", "bills", "payments", "accountid", "accountid@1", "heartbeat", "responses", "@", ""]
)
HEADERS: Final = st.dictionaries(
    st.sampled_from(["x-correlationid", "x-callback-url", "x-content-hash", "x-date"]),
    st.text(max_size=40) | st.just(CORRELATION) | st.just("https://a.example/b"),
)
VALUES: Final = st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just("MAD")
BODIES: Final = st.binary(max_size=60) | st.dictionaries(
    st.sampled_from(["currency", "amountPaid", "requestingOrganisationTransactionReference", "x"]),
    VALUES | st.lists(VALUES, max_size=2) | st.decimals().map(str),
).map(lambda said: json.dumps(said).encode())


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"]),
    st.lists(SEGMENTS | st.text(max_size=12), max_size=7).map("/".join),
    st.dictionaries(
        st.sampled_from(["limit", "offset", "fromDateTime", "toDateTime"]), st.text(max_size=20)
    ),
    HEADERS,
    BODIES,
)
def test_whatever_comes_is_read(
    method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes
) -> None:
    call = Call(method, path.strip("/"), query, {"x-api-key": KEY, **headers}, body, NOON)
    want = a_wallet().read(call)
    if isinstance(want, AnswerNow):
        assert want.reply.status in {200, 400, 401, 404}
    if isinstance(want, TakePayment):
        kept = want.path
        assert kept is not None
        again = a_wallet().parse(body, delivery_id=want.delivery_id, received_at=NOON, path=kept)
        assert again == want.report
    a_wallet().parse(body, delivery_id="x", received_at=NOON, path=path)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.text(min_size=1, max_size=14) | st.just("148275036141"), HEADERS, BODIES)
def test_whatever_comes_is_answered(
    database: str, reference: str, headers: dict[str, str], body: bytes
) -> None:
    given = {"x-api-key": KEY, "x-correlationid": CORRELATION, **headers}
    call = Call("POST", f"bills/{reference}/payments".strip("/"), {}, given, body, NOON)
    reply = answer(an_answerer(), a_wallet(), call)
    assert reply.status in {202, 400, 404}
    if reply.status != 202:
        judge_object(said(reply), "errorObject")


# -- a whole round --------------------------------------------------------------------------------


@contextmanager
def serving(database: str) -> Iterator[str]:
    """Serve the wallet's addresses over HTTP, as the product does."""

    async def nobody_rings() -> None:
        raise ConnectionError

    intake = Intake(database, nobody_rings)
    routes = webhook_routes({"mobile-money": _mobile_money()}, intake, an_answerer())
    port = free_port()
    config = uvicorn.Config(Starlette(routes=routes), port=port, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/gsma/mobile-money"
    finally:
        server.should_exit = True
        thread.join()


def _mobile_money() -> Gsma:
    return make("mobile-money", {"api_keys": [KEY]}, live=False)


@contextmanager
def sending() -> Iterator[None]:
    """Send what is owed for as long as the block runs, as the schedule does."""
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.05):
            send_due(clock=lambda: NOON, sandbox=True)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_an_operator_and_our_books_agree_after_everything_went_wrong(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    references = some_invoices(60)
    notices = tmp_path / "notices.csv"
    lines = [f"{r},163.52,{100 + n:09d},2026-11,2026-11-30" for n, r in enumerate(references)]
    notices.write_text("\n".join(["reference,amount,cnss_number,period,due_on", *lines]))
    monkeypatch.setenv("GSMA_KEY", KEY)
    monkeypatch.setenv("WASL_CLOCK", f"={NOON.isoformat()}")
    journal = tmp_path / "mobile-money.jsonl"
    shares = [f"--{name}=0.3" for name in ("lose", "double", "wrong-amount", "tamper")]
    options = ["--provider=mobile-money", "--channel=wallet", f"--notices={notices}", "--plain"]
    options += [f"--journal={journal}", "--seed=7", "--wrong-currency=0.1", *shares]
    with serving(database) as url, sending():
        assert mobilemoney.main([*options, f"--url={url}", "--key-env=GSMA_KEY"]) == 0
        again = mobilemoney.main([*options, f"--url={url}", "--key-env=GSMA_KEY"])
    assert again == 0
    drain(a_desk(_mobile_money()), batches_max=5)
    lines_kept = read_journal(journal)
    moved = {name: each.net_minor for name, each in payments_told(lines_kept).items()}
    assert moved == {name: minor for _, name, _, minor, _ in the_books().payments}
    assert balances()["clearing:mobile-money"] == sum(moved.values()) > 0
    planted = {line["reference"] for line in lines_kept if line.get("planted")}
    assert len(the_books().exceptions) == len(planted) > 0
    assert rows_of(database, "SELECT DISTINCT state FROM provider_callback") == [("done",)]
    seal()
    assert broken_promises(deliveries=True) == []
