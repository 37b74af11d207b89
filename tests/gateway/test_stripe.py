"""Stripe's events: who signed them, and what they say, for anything that a stranger can send."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import stripe
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from gateway import process
from gateway.collection.reports import (
    AttemptLapsed,
    NotAboutMoney,
    PaymentReport,
    Report,
    ReturnReport,
    Statement,
    Unbookable,
)
from gateway.errors import BadSignature, Unusable
from gateway.models import Channel, ExceptionCode, ReturnKind, ReturnState
from gateway.money import AMOUNT_MINOR_MAX, format_amount
from gateway.providers import PageProvider
from gateway.providers.registry import read_providers
from gateway.providers.stripe import Stripe, StripeSettings
from gateway.settings import settings as settings_of_process
from tests.factories import (
    NOON,
    a_delivery,
    a_desk,
    an_answerer,
    balances,
    broken_promises,
    record,
    seal,
    some_invoices,
    the_books,
)
from webhooks.inbox import drain
from webhooks.intake import Intake
from webhooks.routes import webhook_routes

GOLDEN: Final = json.loads(
    (Path(__file__).parent.parent / "golden" / "stripe.json").read_text("utf-8")
)
T0: Final = datetime.fromtimestamp(1_795_000_000, UTC)
SECRET: Final = "whsec_test_0123456789abcdef"
OTHER: Final = "whsec_anotherOneThatIsBeingRolled"
CREATED: Final = int(NOON.timestamp())
_numbers = count(1)


def a_stripe(*secrets: str, live: bool = False) -> Stripe:
    return Stripe(
        "stripe", StripeSettings.model_validate({"secrets": secrets or [SECRET]}), live=live
    )


def an_event(kind: str, what: dict[str, Any], **envelope: Any) -> bytes:
    """Return an event about an object, at noon."""
    event = {
        "id": f"evt_{next(_numbers)}",
        "object": "event",
        "created": CREATED,
        "livemode": False,
        "type": kind,
        "data": {"object": {"currency": "mad", "created": CREATED - 60, **what}},
    }
    return json.dumps(event | envelope).encode()


def an_intent(reference: str = "148275036141", **values: Any) -> dict[str, Any]:
    return {
        "object": "payment_intent",
        "id": "pi_1",
        "amount": 16352,
        "amount_received": 16352,
        "status": "succeeded",
        "metadata": {"invoice_ref": reference, "attempt_id": "wasl_1"},
        **values,
    }


def a_session(reference: str = "148275036141", **values: Any) -> dict[str, Any]:
    return {
        "object": "checkout.session",
        "id": "cs_1",
        "amount_total": 16352,
        "client_reference_id": reference,
        "payment_intent": "pi_1",
        "payment_status": "paid",
        "metadata": {},
        **values,
    }


def a_refund(**values: Any) -> dict[str, Any]:
    return {
        "object": "refund",
        "id": "re_1",
        "amount": 5000,
        "charge": "ch_1",
        "payment_intent": "pi_1",
        "status": "succeeded",
        **values,
    }


def a_dispute(**values: Any) -> dict[str, Any]:
    return {
        "object": "dispute",
        "id": "dp_1",
        "amount": 16352,
        "charge": "ch_1",
        "payment_intent": "pi_1",
        "reason": "fraudulent",
        "status": "needs_response",
        "evidence_details": {"due_by": CREATED + 604_800},
        **values,
    }


def header(body: bytes, *, at: datetime = NOON, secret: str = SECRET) -> dict[str, str]:
    """Return what Stripe's own library signs a body with."""
    written = stripe.WebhookSignature.generate_signature_header(
        body.decode(), secret, int(at.timestamp())
    )
    return {"stripe-signature": str(written)}


def parse(body: bytes, *, received_at: datetime = NOON, live: bool = False) -> Report:
    return a_stripe(live=live).parse(body, delivery_id="evt_x", received_at=received_at)


def paid(body: bytes, **options: Any) -> PaymentReport:
    report = parse(body, **options)
    assert isinstance(report, PaymentReport)
    return report


def returned(body: bytes, **options: Any) -> ReturnReport:
    report = parse(body, **options)
    assert isinstance(report, ReturnReport)
    return report


# -- golden ---------------------------------------------------------------------------------------


def _bodies() -> dict[str, bytes]:
    return {case["id"]: case["body"].encode() for case in GOLDEN["positive"]}


@pytest.mark.parametrize("case", GOLDEN["positive"], ids=lambda case: str(case["id"]))
def test_golden_deliveries_are_authentic(case: dict[str, Any]) -> None:
    body = case["body"].encode()
    headers = {name.lower(): value for name, value in case["header"].items()}
    now = datetime.fromtimestamp(case["timestamp"], UTC)
    named = a_stripe(OTHER, case["secret"]).authenticate(headers, body, now=now)
    assert named == json.loads(body)["id"]
    with pytest.raises(BadSignature):
        a_stripe(OTHER).authenticate(headers, body, now=now)


def test_golden_deliveries_mean_what_they_should(database: str) -> None:
    desk = a_desk(a_stripe(), clock=lambda: T0)
    for name, body in _bodies().items():
        a_delivery(body, provider="stripe", delivery_id=name, received_at=T0)
    assert drain(desk, batches_max=5) == 4
    books = the_books()
    # No invoice of this installation has those references: the money is in suspense, once each.
    assert [(p[1], p[2], p[3]) for p in books.payments] == [
        ("pi_3TESTamo0001", "booked", 17250),
        ("pi_3TESTamo0008", "booked", 17250),
    ]
    assert balances() == {"clearing:stripe": 34500, "suspense:unidentified": -34500}
    assert [code for code, _ in books.exceptions] == [
        "payment_disputed",
        "unknown_reference",
        "unknown_reference",
    ]
    seal()
    assert broken_promises() == []


@pytest.mark.parametrize("case", GOLDEN["negative_and_edge"], ids=lambda case: str(case["name"]))
def test_golden_edges(case: dict[str, Any]) -> None:
    named = case["body"].removeprefix("@")
    body = _bodies().get(named, case["body"].encode())
    now = datetime.fromtimestamp(case["now"], UTC)

    def judge() -> str:
        return a_stripe().authenticate({"stripe-signature": case["header"]}, body, now=now)

    if case["our_expected_http"] == 200:
        assert judge() == "evt_3TESTamo0001"
    else:
        with pytest.raises(BadSignature):
            judge()


def test_golden_deliveries_are_answered_as_they_should(database: str) -> None:
    """Over the address of deliveries: bad ones leave nothing, what is signed is kept."""
    moment = [T0]

    async def nobody_rings() -> None:
        raise ConnectionError

    async def answers() -> dict[str, int]:
        intake = Intake(database, nobody_rings)
        answerer = an_answerer(lambda: moment[0])
        routes = webhook_routes({"stripe": a_stripe()}, intake, answerer)
        transport = httpx.ASGITransport(Starlette(routes=routes))
        await intake.start()
        found = {}
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            for case in GOLDEN["negative_and_edge"]:
                moment[0] = datetime.fromtimestamp(case["now"], UTC)
                body = _bodies().get(case["body"].removeprefix("@"), case["body"].encode())
                headers = {"stripe-signature": case["header"].encode()}
                answer = await client.post("/webhooks/stripe", content=body, headers=headers)
                found[case["name"]] = answer.status_code
            moment[0] = NOON
            for name, body in (
                ("not JSON", b'{"id": "evt_9",'),
                (
                    "the other mode",
                    an_event("payment_intent.succeeded", an_intent(), livemode=True),
                ),
                ("thin", b'{"id":"evt_8","object":"v2.core.event"}'),
            ):
                answer = await client.post("/webhooks/stripe", content=body, headers=header(body))
                found[name] = answer.status_code
        await intake.stop()
        return found

    wanted = {
        c["name"]: 202 if c["our_expected_http"] == 200 else 400
        for c in GOLDEN["negative_and_edge"]
    }
    assert asyncio.run(answers()) == wanted | {"not JSON": 400, "the other mode": 202, "thin": 202}
    drain(a_desk(a_stripe(), clock=lambda: NOON), batches_max=5)
    books = the_books()
    assert [p[1] for p in books.payments] == ["pi_3TESTamo0001"]
    assert sorted(code for code, _ in books.exceptions) == [
        "unknown_reference",
        "unreadable_delivery",
        "unreadable_delivery",
        "wrong_mode",
    ]


@pytest.mark.parametrize("case", GOLDEN["money"], ids=lambda case: str(case["mad"]))
def test_golden_amounts(case: dict[str, Any]) -> None:
    what = an_intent(amount_received=case["stripe_amount"], currency=case["currency"])
    report = paid(an_event("payment_intent.succeeded", what))
    assert format_amount(report.amount_minor) == case["mad"]


# -- who signed it --------------------------------------------------------------------------------


def test_a_secret_is_rolled_without_a_gap() -> None:
    body = an_event("payment_intent.succeeded", an_intent())
    both = a_stripe(SECRET, OTHER)
    for secret in (SECRET, OTHER):
        both.authenticate(header(body, secret=secret), body, now=NOON)
    rolled = [header(body, secret=s)["stripe-signature"].partition(",")[2] for s in (OTHER, SECRET)]
    signed_twice = f"t={CREATED},{','.join(rolled)}"
    a_stripe(SECRET).authenticate({"stripe-signature": signed_twice}, body, now=NOON)
    # A scheme that is yet to come says nothing, whatever it is written in.
    newer = header(body)["stripe-signature"] + ",v2=a+b/c=="
    a_stripe(SECRET).authenticate({"stripe-signature": newer}, body, now=NOON)


@pytest.mark.parametrize("seconds", [-301, -300, 300, 301])
def test_the_window_is_five_minutes_both_ways(seconds: int) -> None:
    body = an_event("payment_intent.succeeded", an_intent())
    headers = header(body, at=NOON + timedelta(seconds=seconds))
    if abs(seconds) <= 300:
        a_stripe().authenticate(headers, body, now=NOON)
    else:
        with pytest.raises(BadSignature, match="five minutes"):
            a_stripe().authenticate(headers, body, now=NOON)


GOOD: Final = b'{"id":"evt_1"}'


def _mangled() -> list[str]:
    whole = header(GOOD)["stripe-signature"]
    signature = whole.partition("v1=")[2]
    return [
        "",
        " ",
        "=",
        ",",
        whole.replace(",", ", "),
        f" {whole}",
        f"t={CREATED},{whole}",
        f"{whole},t={CREATED}",
        f"t=0{CREATED},v1={signature}",
        f"t=+{CREATED},v1={signature}",
        f"t={CREATED}.0,v1={signature}",
        f"t=1_795_003_200,v1={signature}",
        f"t=,v1={signature}",
        f"t,v1={signature}",
        f"v1={signature}",
        f"t={'9' * 400},v1={signature}",
        f"t={CREATED}",
        f"t={CREATED},v1",
        f"t={CREATED},v1=",
        f"t={CREATED},v1={signature.upper()}",
        f"t={CREATED},v1={signature[:-1]}",
        f"t={CREATED},v1={signature}=1",
        f"t={CREATED}=1,v1={signature}",
        f"t={CREATED},v0={signature}",
        f"t={CREATED},v1={'é' * 64}",
        f"t={CREATED},v1=\udcff",
        f"t=١٧٩٥٠٠٠٠٠٠,v1={signature}",
        whole + ",v1=" + "0" * 4_000,
    ]


@pytest.mark.parametrize("written", _mangled(), ids=lambda text: repr(text)[:30])
def test_a_header_is_written_in_one_way(written: str) -> None:
    with pytest.raises(BadSignature):
        a_stripe().authenticate({"stripe-signature": written}, GOOD, now=NOON)


def test_a_body_that_is_no_text_is_not_authentic() -> None:
    with pytest.raises(BadSignature, match="UTF-8"):
        a_stripe().authenticate(header(GOOD), b"\xff\xfe", now=NOON)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"null",
        b"[]",
        b'{"id": 7}',
        b'{"id": ""}',
        b'{"id": "a b"}',
        b'{"id": "\\ud800"}',
    ],
)
def test_what_is_signed_and_has_no_id_gets_one_from_its_bytes(body: bytes) -> None:
    first = a_stripe().authenticate(header(body), body, now=NOON)
    assert first.startswith("sha256_")
    assert a_stripe().authenticate(header(body), body, now=NOON) == first


@given(st.text() | st.sampled_from(_mangled()), st.binary())
@example("t=1,v1=a=b", b"{}")
def test_no_header_and_no_body_raises_anything_else(written: str, body: bytes) -> None:
    with pytest.raises(BadSignature):
        a_stripe().authenticate({"stripe-signature": written}, body, now=NOON)


# -- what it says ---------------------------------------------------------------------------------


def test_a_payment_is_read_as_it_is_written() -> None:
    assert parse(an_event("payment_intent.succeeded", an_intent())) == PaymentReport(
        provider="stripe",
        provider_payment_id="pi_1",
        statement=Statement.COMPLETED,
        reference_given="148275036141",
        amount_minor=16352,
        currency="MAD",
        channel=Channel.CARD,
        paid_at=NOON,
        paid_at_given=NOON.isoformat(),
        stated_at=NOON,
        received_at=NOON,
        source="delivery:stripe/evt_x",
        attempt_id="wasl_1",
    )


@pytest.mark.parametrize(
    ("kind", "what", "statement"),
    [
        ("payment_intent.succeeded", an_intent(), Statement.COMPLETED),
        ("payment_intent.processing", an_intent(), Statement.PENDING),
        ("payment_intent.payment_failed", an_intent(), Statement.DECLINED),
        ("payment_intent.canceled", an_intent(), Statement.DECLINED),
        ("checkout.session.completed", a_session(), Statement.COMPLETED),
        ("checkout.session.completed", a_session(payment_status="unpaid"), Statement.PENDING),
        ("checkout.session.async_payment_succeeded", a_session(), Statement.COMPLETED),
        ("checkout.session.async_payment_failed", a_session(), Statement.DECLINED),
    ],
)
def test_all_events_of_a_payment_name_it_alike(
    kind: str, what: dict[str, Any], statement: Statement
) -> None:
    report = paid(an_event(kind, what))
    assert report.statement is statement
    assert (report.provider_payment_id, report.amount_minor) == ("pi_1", 16352)
    assert report.reference_given == "148275036141"


def test_only_what_was_received_is_booked() -> None:
    part = an_intent(amount_received=10_000)
    assert paid(an_event("payment_intent.succeeded", part)).amount_minor == 10_000
    silent = an_intent()
    del silent["amount_received"]
    assert paid(an_event("payment_intent.succeeded", silent)).amount_minor == 16352
    silent["status"] = "requires_capture"
    assert isinstance(parse(an_event("payment_intent.succeeded", silent)), Unbookable)


def test_a_payment_without_an_intent_goes_by_its_charge() -> None:
    refund = a_refund(payment_intent=None)
    assert returned(an_event("refund.created", refund)).provider_payment_id == "ch_1"
    charge = {"object": "charge", "id": "ch_1", "payment_intent": None, "amount_refunded": 500}
    assert returned(an_event("charge.refunded", charge)).provider_payment_id == "ch_1"
    expanded = a_refund(payment_intent={"id": "pi_9", "object": "payment_intent"})
    assert returned(an_event("refund.created", expanded)).provider_payment_id == "pi_9"


@pytest.mark.parametrize(
    ("kind", "status", "state"),
    [
        ("refund.created", "succeeded", ReturnState.GIVEN),
        ("refund.created", "pending", ReturnState.GIVEN),
        ("refund.created", "requires_action", ReturnState.GIVEN),
        ("refund.updated", "canceled", ReturnState.RESTORED),
        ("refund.failed", "failed", ReturnState.RESTORED),
        ("charge.refund.updated", "failed", ReturnState.RESTORED),
        ("refund.updated", "a word to come", ReturnState.ANNOUNCED),
    ],
)
def test_a_refund_goes_by_its_own_id(kind: str, status: str, state: ReturnState) -> None:
    report = returned(an_event(kind, a_refund(status=status)))
    assert (report.kind, report.state) == (ReturnKind.REFUND, state)
    assert (report.return_id, report.amount_minor) == ("re_1", 5000)
    assert report.made_at == NOON - timedelta(seconds=60)
    assert report.stated_at == NOON


def test_a_sum_of_refunds_goes_by_the_payment() -> None:
    charge = {"object": "charge", "id": "ch_1", "payment_intent": "pi_1", "amount_refunded": 7000}
    report = returned(an_event("charge.refunded", charge))
    assert (report.kind, report.state) == (ReturnKind.REFUND_TOTAL, ReturnState.GIVEN)
    assert (report.return_id, report.amount_minor) == ("pi_1", 7000)


@pytest.mark.parametrize(
    ("step", "status", "state", "outcome"),
    [
        ("created", "needs_response", ReturnState.ANNOUNCED, None),
        ("updated", "under_review", ReturnState.ANNOUNCED, None),
        ("funds_withdrawn", "needs_response", ReturnState.GIVEN, None),
        ("funds_reinstated", "won", ReturnState.RESTORED, None),
        ("closed", "won", ReturnState.ANNOUNCED, "won"),
        ("closed", "lost", ReturnState.GIVEN, "lost"),
        ("closed", "warning_closed", ReturnState.ANNOUNCED, "warning_closed"),
        ("closed", None, ReturnState.ANNOUNCED, "closed"),
    ],
)
def test_a_dispute_moves_money_only_where_it_moves(
    step: str, status: str | None, state: ReturnState, outcome: str | None
) -> None:
    report = returned(an_event(f"charge.dispute.{step}", a_dispute(status=status)))
    assert (report.kind, report.state, report.outcome) == (ReturnKind.DISPUTE, state, outcome)
    assert report.return_id == "dp_1"
    answer_by = (NOON + timedelta(days=7)).isoformat()
    assert report.detail == (("reason", "fraudulent"), ("answer_by", answer_by))


def test_what_somebody_wrote_is_no_reason() -> None:
    report = returned(an_event("charge.dispute.created", a_dispute(reason="Amina Alaoui")))
    assert "Amina" not in repr(report.detail)


def test_a_page_that_ran_out() -> None:
    assert parse(an_event("checkout.session.expired", a_session())) == AttemptLapsed(
        "stripe", "cs_1", "delivery:stripe/evt_x"
    )


@pytest.mark.parametrize("kind", ["payout.paid", "charge.succeeded", "customer.created", "x"])
def test_everything_else_moves_nothing(kind: str) -> None:
    assert isinstance(parse(an_event(kind, {})), NotAboutMoney)
    assert isinstance(parse(an_event(kind, {}, livemode=True)), NotAboutMoney)


def test_a_page_finished_without_a_payment_moves_nothing() -> None:
    free = a_session(payment_status="no_payment_required", payment_intent=None)
    assert isinstance(parse(an_event("checkout.session.completed", free)), NotAboutMoney)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("payment_intent.succeeded", an_intent()),
        ("charge.dispute.created", a_dispute()),
        ("refund.created", a_refund()),
        ("checkout.session.expired", a_session()),
    ],
)
@pytest.mark.parametrize("live", [True, False])
def test_the_other_mode_is_never_booked(kind: str, what: dict[str, Any], live: bool) -> None:
    report = parse(an_event(kind, what, livemode=not live), live=live)
    assert isinstance(report, Unbookable)
    assert report.code is ExceptionCode.WRONG_MODE
    assert ("production" in report.reason) is live
    assert not isinstance(parse(an_event(kind, what, livemode=live), live=live), Unbookable)


BAD_AMOUNTS: Final = [
    0, -1, True, 163.52, 1e5, "16352", None, [], {}, AMOUNT_MINOR_MAX + 1, 10**400, "NaN", False,
]  # fmt: skip


@pytest.mark.parametrize("amount", BAD_AMOUNTS, ids=repr)
def test_an_amount_that_would_be_a_guess_is_never_booked(amount: object) -> None:
    for body in (
        an_event("payment_intent.succeeded", an_intent(amount_received=amount)),
        an_event("checkout.session.completed", a_session(amount_total=amount)),
    ):
        report = parse(body)
        assert isinstance(report, Unbookable)
        assert report.code is ExceptionCode.INVALID_AMOUNT
        assert report.key == ("stripe", "pi_1")


@pytest.mark.parametrize("currency", ["MAD", "eur", "", None, 504])
def test_another_currency_is_quarantined_as_such(currency: object) -> None:
    for kind, what in (
        ("payment_intent.succeeded", an_intent(currency=currency)),
        ("refund.created", a_refund(currency=currency)),
    ):
        report = parse(an_event(kind, what))
        assert isinstance(report, Unbookable)
        assert report.code is ExceptionCode.WRONG_CURRENCY


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b"{}",
        b'{"object":"event"}',
        b'{"object":"event","type":7}',
        an_event("payment_intent.succeeded", an_intent(), livemode=None),
        an_event("payment_intent.succeeded", an_intent(), livemode="false"),
        an_event("payment_intent.succeeded", an_intent(), data=[]),
        an_event("payment_intent.succeeded", an_intent(), data={"object": "pi_1"}),
        an_event("payment_intent.succeeded", an_intent(id=None)),
        an_event("payment_intent.succeeded", an_intent(id="a\x00")),
        an_event("payment_intent.succeeded", an_intent(id="\ud800")),
        an_event("refund.created", a_refund(id=None)),
        an_event("checkout.session.expired", a_session(id="")),
        an_event("payment_intent.succeeded", an_intent()).replace(
            b'"amount":', b'"currency": "mad", "amount":', 1
        ),
    ],
    ids=range(15),
)
def test_what_cannot_be_read_about_money_is_for_a_person(body: bytes) -> None:
    report = parse(body)
    assert isinstance(report, Unbookable)
    assert report.code is ExceptionCode.UNREADABLE_DELIVERY


def test_a_thin_event_says_what_to_switch() -> None:
    report = parse(b'{"id":"evt_1","object":"v2.core.event","type":"v1.billing.meter.no_meter"}')
    assert isinstance(report, Unbookable)
    assert report.code is ExceptionCode.UNREADABLE_DELIVERY
    assert "snapshot" in report.reason


def test_times_keep_their_order_though_our_clock_is_behind() -> None:
    """Cut off at our clock, a refund would seem to come after the sum that holds it."""
    behind = NOON - timedelta(seconds=30)
    refund = an_event("refund.created", a_refund(created=CREATED))
    charge = {"object": "charge", "id": "ch_1", "payment_intent": "pi_1", "amount_refunded": 5000}
    total = an_event("charge.refunded", charge)
    assert returned(refund, received_at=behind + timedelta(seconds=1)).made_at <= (
        returned(total, received_at=behind).stated_at
    )
    far_ahead = an_event("payment_intent.succeeded", an_intent(), created=CREATED + 9_000)
    assert paid(far_ahead).stated_at == NOON


# -- fuzz -----------------------------------------------------------------------------------------

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "object", "amount", "created"]), inner, max_size=3)
    ),
    max_leaves=6,
)
_kinds = st.sampled_from(
    [
        "payment_intent.succeeded",
        "payment_intent.payment_failed",
        "checkout.session.completed",
        "checkout.session.expired",
        "charge.refunded",
        "refund.failed",
        "charge.dispute.closed",
        "charge.dispute.funds_withdrawn",
        "payout.paid",
    ]
)
_objects = st.sampled_from([an_intent(), a_session(), a_refund(), a_dispute()]).flatmap(
    lambda what: st.dictionaries(
        st.sampled_from([*what, "amount_refunded", "currency"]), _values, max_size=4
    ).map(lambda changes: {**what, **changes})
)
_events = st.builds(
    an_event, _kinds, _objects, created=_values | st.just(CREATED), livemode=st.booleans()
)


@given(st.binary(max_size=64) | _events)
def test_any_signed_body_is_a_report(body: bytes) -> None:
    report = parse(body)
    assert isinstance(report, Report)
    if isinstance(report, PaymentReport):
        assert 1 <= report.amount_minor <= AMOUNT_MINOR_MAX
    if isinstance(report, ReturnReport):
        assert 0 <= report.amount_minor <= AMOUNT_MINOR_MAX
        assert report.made_at <= report.stated_at


@given(st.lists(_events, min_size=10, max_size=20))
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_read_can_be_booked_and_the_books_hold(
    database: str, received: list[bytes]
) -> None:
    (reference,) = some_invoices()
    named = f"pi_{next(_numbers)}"
    reports = [
        a_stripe().parse(
            body.replace(b"148275036141", reference.encode()).replace(b"pi_1", named.encode()),
            delivery_id=f"evt_{next(_numbers)}",
            received_at=NOON,
        )
        for body in received
    ]
    assert len(record(*reports)) == len(reports)
    seal()
    assert broken_promises() == []


def test_one_payment_told_by_several_events_is_booked_once(database: str) -> None:
    (reference,) = some_invoices()
    bodies = [
        an_event("payment_intent.payment_failed", an_intent(reference), created=CREATED - 9),
        an_event("checkout.session.completed", a_session(reference)),
        an_event("payment_intent.succeeded", an_intent(reference)),
        an_event("payment_intent.payment_failed", an_intent(reference), created=CREATED - 5),
    ]
    for order in (bodies, bodies[::-1]):
        for body in order:
            a_delivery(body, provider="stripe", delivery_id=f"evt_{next(_numbers)}")
    drain(a_desk(a_stripe()), batches_max=5)
    assert [p[2:] for p in the_books().payments] == [("booked", 16352, reference)]
    assert the_books().exceptions == []


# -- settings -------------------------------------------------------------------------------------


def _file(**settings: str) -> str:
    lines = [f'{name} = "{value}"' for name, value in settings.items()]
    return "\n".join(["[[provider]]", 'name = "stripe"', 'kind = "stripe"', *lines])


def test_a_key_makes_it_a_maker_of_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", f"{SECRET} {OTHER}")
    monkeypatch.setenv("KEY", "rk_live_0123")
    plain = read_providers(_file(secrets_env="HOOK"), "x")["stripe"]
    assert not isinstance(plain, PageProvider)
    keyed = read_providers(_file(secrets_env="HOOK", api_key_env="KEY"), "x", live=True)["stripe"]
    assert isinstance(keyed, PageProvider)
    assert keyed.pages_origin == "https://checkout.stripe.com"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "no secrets"),
        ({"secrets_env": "BAD"}, "whsec_"),
        ({"secrets_env": "HOOK", "api_key": "pk_test_1234"}, "api_key"),
        ({"secrets_env": "HOOK", "api_key": "sk_live_1234"}, "live key"),
        ({"secrets_env": "HOOK", "api_base": "http://stripe.example"}, "https"),
        ({"secrets_env": "HOOK", "api_base": "https://x.example/v1"}, "https"),
        ({"secrets_env": "HOOK", "colour": "blue"}, "colour"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_the_secret(
    settings: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", SECRET)
    monkeypatch.setenv("BAD", "hunter2-hunter2")
    with pytest.raises(Unusable, match=says) as raised:
        read_providers(_file(**settings), "x")
    assert not any(secret in str(raised.value) for secret in (SECRET, "hunter2", "1234"))


def test_what_is_for_trials_is_said_before_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", SECRET)
    trial = _file(secrets_env="HOOK", api_key="sk_test_1234", api_base="http://127.0.0.1:8420")
    said = read_providers(trial, "x", live=True)["stripe"].unsafe_in_production()
    assert [reason.split()[0] for reason in said] == ["api_key", "api_base", "a"]
    assert not any(SECRET in reason or "1234" in reason for reason in said)
    monkeypatch.setenv("HOOK", "whsec_" + "k3J9" * 8)
    real = _file(secrets_env="HOOK", api_key="sk_live_1234")
    assert read_providers(real, "x", live=True)["stripe"].unsafe_in_production() == []


def test_the_mode_of_the_installation_is_that_of_its_events(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home.parent / "providers.toml"
    path.write_text(f'{_file()}\nsecrets = ["{SECRET}"]')
    monkeypatch.setenv("WASL_PROVIDERS", str(path))
    body = an_event("payment_intent.succeeded", an_intent())
    for mode, kind in (("sandbox", PaymentReport), ("production", Unbookable)):
        monkeypatch.setenv("WASL_MODE", mode)
        settings_of_process.cache_clear()
        process.providers.cache_clear()
        report = process.providers()["stripe"].parse(body, delivery_id="evt_x", received_at=NOON)
        assert isinstance(report, kind)
