"""Our own event: who signed it, and what it says, for anything that a stranger can send."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
import standardwebhooks
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.collection.reports import NotAboutMoney, PaymentReport, Report, Statement, Unbookable
from gateway.errors import BadSignature
from gateway.models import Channel, ExceptionCode
from gateway.money import AMOUNT_MINOR_MAX
from gateway.providers.standard_webhooks import (
    SIGNATURES_MAX,
    StandardWebhooks,
    StandardWebhooksSettings,
)
from gateway.simulators import signing
from tests.factories import (
    NOON,
    SECRET,
    a_provider,
    an_event,
    broken_promises,
    record,
    rows_of,
    seal,
    signed,
    some_invoices,
)

GOLDEN: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "golden/standard_webhooks.json").read_text("utf-8")
)
AGENT_PAYMENT: Final = next(case for case in GOLDEN["v1"] if case["id"] == "sw-agent-payment")
_turns = count()


def provider_with(*, secrets: list[str] = [], public_keys: list[str] = []) -> StandardWebhooks:  # noqa: B006
    return StandardWebhooks(
        "cashplus",
        StandardWebhooksSettings.model_validate({"secrets": secrets, "public_keys": public_keys}),
    )


def at(timestamp: int) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)


def parse(body: bytes, received_at: datetime = NOON) -> Report:
    return a_provider().parse(body, delivery_id="msg_1", received_at=received_at)


def parsed(body: bytes) -> PaymentReport:
    report = parse(body)
    assert isinstance(report, PaymentReport)
    return report


# -- golden cases ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN["v1"], ids=lambda case: case["id"])
def test_a_published_hmac_signature_is_accepted(case: dict[str, Any]) -> None:
    now = at(int(case["headers"]["webhook-timestamp"]))
    provider = provider_with(secrets=[case["secret"]])
    accepted = provider.authenticate(case["headers"], case["body"].encode(), now=now)
    assert accepted == case["headers"]["webhook-id"]


def test_a_published_ed25519_signature_is_accepted() -> None:
    case = GOLDEN["v1a"]
    now = at(int(case["headers"]["webhook-timestamp"]))
    provider = provider_with(public_keys=[case["whpk"]])
    accepted = provider.authenticate(case["headers"], case["body"].encode(), now=now)
    assert accepted == case["headers"]["webhook-id"]
    with pytest.raises(BadSignature):
        provider.authenticate(case["headers"], case["body"].encode() + b" ", now=now)


@pytest.mark.parametrize("case", GOLDEN["negative_and_edge"], ids=lambda case: case["name"])
def test_an_edge_case_is_answered_as_agreed(case: dict[str, Any]) -> None:
    body = AGENT_PAYMENT["body"] if case["body"] == "@sw-agent-payment" else case["body"]
    provider = provider_with(secrets=[AGENT_PAYMENT["secret"]])
    try:
        provider.authenticate(case["headers"], body.encode(), now=at(case["now"]))
        answered = 200
    except BadSignature:
        answered = 400
    assert answered == case["our_expected_http"]


def test_while_a_secret_is_rolled_both_are_accepted() -> None:
    old, new = GOLDEN["v1"][1], GOLDEN["v1"][2]
    assert old["headers"]["webhook-id"] == new["headers"]["webhook-id"]
    both = provider_with(secrets=[old["secret"], new["secret"]])
    for case in (old, new):
        now = at(int(case["headers"]["webhook-timestamp"]))
        assert both.authenticate(case["headers"], case["body"].encode(), now=now)


@pytest.mark.parametrize(
    ("seconds", "accepted"), [(0, 1), (300, 1), (301, 0), (-300, 1), (-301, 0)]
)
def test_the_window_is_five_minutes_either_way(seconds: int, accepted: int) -> None:
    body = an_event("1")
    headers = signed(body, at=NOON + timedelta(seconds=seconds))
    try:
        a_provider().authenticate(headers, body, now=NOON)
        found = 1
    except BadSignature:
        found = 0
    assert found == accepted


# -- a second opinion -----------------------------------------------------------------------------

readable_texts = st.text(st.characters(codec="utf-8"))
secret_keys = st.binary(min_size=24, max_size=64)
delivery_ids = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64)


@given(secret_keys, delivery_ids, readable_texts)
def test_what_the_published_library_signs_we_accept(
    key: bytes, delivery_id: str, body: str
) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    signature = standardwebhooks.Webhook(secret).sign(delivery_id, NOON, body)
    headers = {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(NOON.timestamp())),
        "webhook-signature": signature,
    }
    provider = provider_with(secrets=[secret])
    assert provider.authenticate(headers, body.encode(), now=NOON) == delivery_id
    with pytest.raises(BadSignature):
        provider.authenticate(headers, body.encode() + b"\n", now=NOON)


@given(
    secret_keys, delivery_ids, st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers())
)
def test_what_we_sign_the_published_library_and_we_accept(
    key: bytes, delivery_id: str, event: dict[str, int]
) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    body = json.dumps(event).encode()
    now = datetime.now(UTC)  # The library reads the real clock.
    timestamp = int(now.timestamp())
    headers = {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signing.signature(key, delivery_id, timestamp, body),
    }
    assert standardwebhooks.Webhook(secret).verify(body, headers) == event
    assert provider_with(secrets=[secret]).authenticate(headers, body, now=now) == delivery_id


# -- anything a stranger can send -----------------------------------------------------------------

header_texts = st.text(st.characters(max_codepoint=255), max_size=80)
almost_signatures = st.builds(
    "{}{}{}".format,
    st.sampled_from(["v1", "v1a", "v2", "", "v1,v1"]),
    st.sampled_from([",", "", ",,"]),
    st.binary(max_size=80).map(lambda raw: base64.b64encode(raw).decode()) | header_texts,
)
any_headers = st.fixed_dictionaries(
    {},
    optional={
        "webhook-id": delivery_ids | header_texts,
        "webhook-timestamp": st.just(str(int(NOON.timestamp())))
        | header_texts
        | st.sampled_from(["²", "١٧٩٥٠٠٠٠٠٠", "1_795_000_000", "-1", "1e9", "9" * 12, "9" * 5000]),
        "webhook-signature": header_texts
        | almost_signatures
        | st.lists(almost_signatures, max_size=2 * SIGNATURES_MAX).map(" ".join),
    },
)
both_kinds_of_key = provider_with(secrets=[SECRET], public_keys=[GOLDEN["v1a"]["whpk"]])


@given(any_headers, st.binary(max_size=200))
@settings(max_examples=400)
def test_what_is_not_signed_by_our_key_is_refused_and_nothing_else_is_raised(
    headers: dict[str, str], body: bytes
) -> None:
    with pytest.raises(BadSignature):
        both_kinds_of_key.authenticate(headers, body, now=NOON)


def test_a_signature_is_written_in_one_way_only() -> None:
    """Two bits of the last letter of base64 say nothing here: another letter is another text."""
    headers = signed(b"{}", delivery_id="msg_1")
    written = headers["webhook-signature"]
    value = base64.b64decode(written.removeprefix("v1,"))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    alike = [
        f"{written[:-2]}{letter}="
        for letter in letters
        if base64.b64decode(f"{written[3:-2]}{letter}=") == value
    ]
    assert len(alike) == 4
    for other in alike:
        changed = {**headers, "webhook-signature": other}
        if other == written:
            a_provider().authenticate(changed, b"{}", now=NOON)
        else:
            with pytest.raises(BadSignature):
                a_provider().authenticate(changed, b"{}", now=NOON)


@given(st.data(), st.binary(min_size=1, max_size=200))
def test_one_other_character_of_an_honest_delivery_is_refused(
    data: st.DataObject, body: bytes
) -> None:
    headers = signed(body)
    name = data.draw(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]))
    place = data.draw(st.integers(0, len(headers[name]) - 1))
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126))
    changed = headers[name][:place] + other + headers[name][place + 1 :]
    if changed == headers[name]:
        return
    with pytest.raises(BadSignature):
        a_provider().authenticate({**headers, name: changed}, body, now=NOON)


surprising_texts = st.sampled_from(
    ["", "\x00", "a\x00b", "\ud800", "x" * 257, "é" * 256, "\U0001f4b0" * 256, "'; --", "%s", ":x"]
)
texts = st.text(max_size=30) | surprising_texts
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | texts
    | st.just(10**400)
    | st.just(-0.0)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
readable_amounts = ("163.52", "0.01", "10000000000.00")
amount_texts = st.sampled_from(
    [*readable_amounts, "10000000000.01", "0", "-1", "1,5", "1e3", "١٦٣", " 1", "1.005"]
)
instants = st.sampled_from(
    [
        "2026-11-18T12:00:00Z",
        "2026-11-18T12:00:00",
        "2026-11-18",
        "2026-11-18T12:00:00+00:00:00.000001",
        "2026-11-18T12:00:00.123456789Z",
        "2026-11-18T12:00:00+23:59:59.999999",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2000-01-01T00:00:00+23:59",
        "2099-12-31T23:59:59-23:59",
        "20261118T120000Z",
        "2026-W47-3T12:00:00Z",
        "now",
        "infinity",
    ]
)
events = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(
            ["payment.completed", "payment.reversed", "payment.failed", "payment.new", "payment."]
        )
        | values,
        "timestamp": instants | values,
        "data": values
        | st.fixed_dictionaries(
            {},
            optional={
                "provider_payment_id": st.sampled_from(["P1", "P2", "P/3"]) | texts | values,
                "reference": texts | values,
                "amount": amount_texts | values,
                "currency": st.sampled_from(["MAD", "EUR"]) | values,
                "channel": st.sampled_from(list(Channel)) | values,
                "paid_at": instants | values,
                "fee": amount_texts | values,
                "agent_id": texts | values,
                "terminal_id": texts | values,
                "payer_note": values,
            },
        ),
    },
)
honest_events = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["payment.completed", "payment.reversed", "payment.failed"]),
        "data": st.fixed_dictionaries(
            {
                "provider_payment_id": st.sampled_from(["P1", "P2", "P/3"]) | texts,
                "amount": st.sampled_from(readable_amounts),
                "currency": st.just("MAD"),
            },
            optional={
                "reference": texts,
                "channel": st.sampled_from(list(Channel)) | values,
                "paid_at": instants,
                "fee": amount_texts,
                "agent_id": texts,
                "terminal_id": texts,
            },
        ),
    },
    optional={"timestamp": instants},
)


def as_body(event: Any) -> bytes:
    return json.dumps(event).encode()


def unescaped(event: Any) -> bytes:
    """Return JSON that is no UTF-8 where a text holds half a character."""
    return json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogatepass")


bodies = (
    st.binary(max_size=100)
    | values.map(as_body)
    | events.map(as_body)
    | honest_events.map(as_body)
    | events.map(
        lambda event: json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogatepass")
    )
)
AND_MONEY: Final = b',"amount":"1","currency":"MAD"}}'
DEEP: Final = b'{"type":"payment.completed","data":{"provider_payment_id":"P","channel":'


def _is_sound(report: Report) -> None:
    """Assert what booking relies on."""
    if isinstance(report, PaymentReport):
        assert 1 <= report.amount_minor <= AMOUNT_MINOR_MAX
        assert report.currency == "MAD"
        assert report.stated_at.tzinfo is not None
        assert report.stated_at <= report.received_at
        assert report.paid_at is None or report.paid_at.tzinfo is not None
        assert report.fee_minor is None or 1 <= report.fee_minor <= AMOUNT_MINOR_MAX


@given(bodies)
@example(b"")
@example(b"\xff\xfe")
@example(b"\xef\xbb\xbf{}")
@example(b"NaN")
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"9" * 100_000)
@example(b'{"type":"payment.completed","data":{"amount":1' + b"0" * 9_999 + b"}}")
@example(b'{"type":"payment.completed","type":"payment.failed"}')
@example(b'{"type":"payment.completed","data":{"provider_payment_id":"\\ud800"}}')
@settings(max_examples=500)
def test_whatever_an_authentic_body_holds_it_is_read_without_an_exception(body: bytes) -> None:
    _is_sound(parse(body))


def test_nesting_as_deep_as_it_can_be_read_is_read_without_an_exception() -> None:
    kinds = set()
    for depth in range(880, 1_010):
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            body = (
                DEEP
                + opening * depth
                + b"1"
                + closing * depth
                + b',"amount":"1","currency":"MAD"}}'
            )
            report = parse(body)
            _is_sound(report)
            kinds.add(type(report))
    # Otherwise the edge was not among the depths that were tried.
    assert kinds == {PaymentReport, Unbookable}


@given(st.lists(bodies | honest_events.map(as_body), min_size=20, max_size=40))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_read_can_be_booked_and_the_books_hold(
    database: str, received: list[bytes]
) -> None:
    (reference,) = some_invoices()
    turn = next(_turns)
    reports = [
        a_provider().parse(
            body.replace(b'"P1"', json.dumps(reference).encode()),
            delivery_id=f"msg_{turn}_{number}",
            received_at=NOON,
        )
        for number, body in enumerate(received)
    ]
    outcomes = record(*reports)
    for report, outcome in zip(reports, outcomes, strict=True):
        if isinstance(report, NotAboutMoney):
            assert outcome == "ignored"
        elif isinstance(report, Unbookable):
            held = report.statement in {Statement.COMPLETED, Statement.REVERSED}
            assert outcome in {"conflicting", "quarantined" if held else "ignored"}
        else:
            assert outcome not in {"ignored", "quarantined"}
    seal()
    assert broken_promises() == []
    known = {named for (named,) in rows_of(database, "SELECT provider_payment_id FROM payment")}
    assert {r.provider_payment_id for r in reports if isinstance(r, PaymentReport)} <= known


# -- what an event means --------------------------------------------------------------------------


def test_an_ordinary_event_is_read_as_it_is_written() -> None:
    body = an_event(
        "1482 7503 6141",
        provider_payment_id="CP-1",
        agent_id="77",
        terminal_id="K-12",
        fee="2.50",
        payer_note="دفع نقدا",
        something="else",
    )
    assert parse(body) == PaymentReport(
        provider="cashplus",
        provider_payment_id="CP-1",
        statement=Statement.COMPLETED,
        reference_given="1482 7503 6141",
        amount_minor=16352,
        currency="MAD",
        channel=Channel.CASH_AGENT,
        paid_at=NOON,
        paid_at_given=NOON.isoformat(),
        stated_at=NOON,
        received_at=NOON,
        source="delivery:cashplus/msg_1",
        agent_id="77",
        terminal_id="K-12",
        fee_minor=250,
    )


@pytest.mark.parametrize(
    ("amount", "minor"),
    [
        ("163.52", 16352),
        ("163.5", 16350),
        ("163", 16300),
        ("0.01", 1),
        ("007.00", 700),
        ("10000000000.00", 10**12),
    ],
)
def test_an_amount_is_exact(amount: str, minor: int) -> None:
    assert parsed(an_event("1", amount=amount)).amount_minor == minor


@pytest.mark.parametrize(
    "amount",
    [
        "163.525",
        "163.520",
        "-163.52",
        "0",
        "0.00",
        "-0.00",
        "163,52",
        "1 000.00",
        "1e3",
        "1.5e1",
        "+1",
        ".5",
        "1.",
        "١٦٣.٥٢",
        "１６３",
        "NaN",
        "Infinity",
        "0x10",
        "1_000",
        "",
        " 1",
        "1\n",
        "10000000000.01",
        "9" * 400,
        163.52,
        163,
        10**400,
        None,
        True,
        ["163.52"],
        {"value": "163.52"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", ["payment.completed", "payment.reversed"])
def test_an_amount_that_would_be_a_guess_is_never_booked(amount: object, kind: str) -> None:
    report = parse(an_event("1", kind=kind, amount=amount, provider_payment_id="P"))
    assert isinstance(report, Unbookable)
    assert report.code is ExceptionCode.INVALID_AMOUNT
    assert report.key == ("cashplus", "P")


def test_an_absent_amount_is_never_booked() -> None:
    body = b'{"type":"payment.completed","data":{"provider_payment_id":"P","currency":"MAD"}}'
    assert isinstance(parse(body), Unbookable)


@pytest.mark.parametrize("currency", ["EUR", "mad", "", None, 504, "MAD "])
def test_another_currency_is_quarantined_as_such(currency: object) -> None:
    report = parse(an_event("1", currency=currency))
    assert isinstance(report, Unbookable)
    assert report.code is ExceptionCode.WRONG_CURRENCY


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b'"text"',
        b"12",
        b"{",
        b'{"type":"payment.completed","data":{"provider_payment_id":"P","amount":NaN}}',
        b'{"type":"payment.completed"}',
        b'{"type":"payment.completed","data":[]}',
        b'{"type":"payment.completed","data":{}}',
        b'{"type":"payment.completed","data":{"provider_payment_id":[7]}}',
        b'{"type":"payment.completed","data":{"provider_payment_id":""}}',
        b'{"type":"payment.completed","data":{"provider_payment_id":"a\\u0000"}}',
        b'{"type":"payment.completed","data":{"provider_payment_id":"\\ud800"}}',
        b'{"type":"payment.completed","data":{"provider_payment_id":"P","amount":"1","amount":"2"}}',
    ],
)
def test_what_cannot_be_read_about_money_is_for_a_person(body: bytes) -> None:
    report = parse(body)
    assert isinstance(report, Unbookable)
    assert report.code is ExceptionCode.UNREADABLE_DELIVERY


@pytest.mark.parametrize("kind", ["payments.completed", "", "PAYMENT.completed", "Payment"])
def test_a_mistyped_type_does_not_make_money_vanish(kind: str) -> None:
    report = parse(an_event("1", kind=kind))
    assert isinstance(report, Unbookable)
    assert report.code is ExceptionCode.UNREADABLE_DELIVERY


@pytest.mark.parametrize("kind", ["customer.created", "invoice.seen"])
def test_an_event_of_another_kind_moves_nothing(kind: str) -> None:
    assert isinstance(parse(an_event("1", kind=kind)), NotAboutMoney)


def test_a_payment_id_that_is_a_number_is_taken_digit_by_digit() -> None:
    body = an_event("1", provider_payment_id="900719925474099312345")
    number = body.replace(b'"900719925474099312345"', b"900719925474099312345")
    assert parsed(number) == parsed(body)


@pytest.mark.parametrize(
    "instant",
    [
        "2026-11-18T12:00:00+00:00:00.000001",
        "2026-11-18T10:00:00-01:02:03",
        "2026-11-18T23:00:00.5+23:59:59.999999",
        "2026-11-17T11:00:00-23:59:59",
    ],
)
def test_an_instant_with_an_odd_offset_is_booked_like_any_other(
    database: str, instant: str
) -> None:
    (reference,) = some_invoices()
    report = parsed(an_event(reference, paid_at=instant, timestamp=instant))
    assert report.paid_at == datetime.fromisoformat(instant)
    assert record(report) == ["booked"]
    assert rows_of(database, "SELECT paid_at, stated_at FROM payment") == [
        (report.paid_at, report.stated_at)
    ]


@pytest.mark.parametrize(
    ("kind", "statement"),
    [
        ("payment.completed", Statement.COMPLETED),
        ("payment.pending", Statement.PENDING),
        ("payment.failed", Statement.FAILED),
        ("payment.reversed", Statement.REVERSED),
        ("payment.settled_maybe", Statement.PENDING),
    ],
)
def test_a_type_is_what_the_provider_states(kind: str, statement: Statement) -> None:
    assert parsed(an_event("1", kind=kind)).statement is statement


def test_a_clock_that_runs_ahead_does_not_outrank_what_follows() -> None:
    ahead = NOON + timedelta(days=400)
    assert parsed(an_event("1", timestamp=ahead.isoformat())).stated_at == NOON


@pytest.mark.parametrize(
    "paid_at", ["2026-11-18T12:00:00", "2026-11-18", "yesterday", "", 1795000000, None]
)
def test_an_instant_without_its_offset_is_not_guessed(paid_at: object) -> None:
    assert parsed(an_event("1", paid_at=paid_at)).paid_at is None
