"""Bill hubs: every pair of the golden file, and what no pair can say, on the real database."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import process
from gateway.billing.bundles import make_selection
from gateway.billing.invoices import cancel_invoice
from gateway.collection.reports import PaymentReport, Unbookable
from gateway.db import execute, transaction
from gateway.errors import Unusable
from gateway.providers.bills import BillHub, make
from gateway.providers.calls import AnswerNow, Call, Reply, TakePayment
from gateway.providers.registry import read_providers, unsafe_in_production
from gateway.relief.plans import make_plan
from tests.factories import (
    NOON,
    a_contributor,
    a_desk,
    a_return,
    an_answerer,
    at_once,
    balances,
    broken_promises,
    issue,
    record,
    rows_of,
    seal,
    some_invoices,
    the_books,
)
from webhooks.answering import answer
from webhooks.inbox import drain

KEY: Final = "hub-key-0123456789"
OLD_KEY: Final = "hub-key-9876543210"
GOLDEN: Final = json.loads((Path(__file__).parents[2] / "golden" / "bills.json").read_text("utf-8"))


def a_hub(**values: Any) -> BillHub:
    return make("hub", {"api_keys": [KEY, OLD_KEY], **values}, live=False)


def a_call(
    path: str, said: object, *, at: datetime = NOON, method: str = "POST", key: str = KEY
) -> Call:
    body = said if isinstance(said, bytes) else json.dumps(said, ensure_ascii=False).encode()
    return Call(method, path, {}, {"authorization": f"Bearer {key}"}, body, at)


def told(path: str, said: object, *, hub: BillHub | None = None, at: datetime = NOON) -> Any:
    return json.loads(replied(path, said, hub=hub, at=at).body)


def replied(path: str, said: object, *, hub: BillHub | None = None, at: datetime = NOON) -> Reply:
    return answer(an_answerer(lambda: at), hub or a_hub(), a_call(path, said, at=at))


def a_confirm(
    reference: str, number: int = 1, amount: str = "163.52", **said: Any
) -> dict[str, Any]:
    """Return a confirm of money that is held, unless it names an inquiry."""
    return {
        "transaction_id": f"T-{number}",
        "reference": reference,
        "amount": amount,
        "currency": "MAD",
        "channel": "kiosk",
        "paid_at": NOON.isoformat(),
        "held": "inquiry_id" not in said,
        **said,
    }


def shown(reference: str, hub: BillHub | None = None) -> dict[str, Any]:
    (bill,) = told("inquiry", {"reference": reference}, hub=hub)["bills"]
    return dict(bill)


# -- the golden file ------------------------------------------------------------------------------


def filled(value: object, bound: Mapping[str, str]) -> object:
    if isinstance(value, dict):
        return {name: filled(each, bound) for name, each in value.items()}
    return bound.get(value, value) if isinstance(value, str) else value


def bind(expected: object, said: object, bound: dict[str, str]) -> None:
    """Take from an answer what the golden file leaves open."""
    if isinstance(expected, dict) and isinstance(said, dict):
        for name in expected.keys() & said.keys():
            bind(expected[name], said[name], bound)
    elif isinstance(expected, list) and isinstance(said, list):
        for one, other in zip(expected, said, strict=False):
            bind(one, other, bound)
    elif isinstance(expected, str) and expected.startswith("<") and isinstance(said, str):
        bound.setdefault(expected, said)


def listed(value: object, bound: Mapping[str, str]) -> object:
    if isinstance(value, list):
        return [listed(each, bound) for each in value]
    if isinstance(value, dict):
        return {name: listed(each, bound) for name, each in value.items()}
    return filled(value, bound)


def test_every_pair_of_the_golden_file_in_its_order(database: str) -> None:
    references = some_invoices(3)
    numbers = rows_of(database, "SELECT cnss_number FROM contributor ORDER BY id")
    bound = {f"<R{at}>": reference for at, reference in enumerate(references, start=1)}
    bound["<R1 spaced>"] = f"{references[0][:4]} {references[0][4:8]}-{references[0][8:]}"
    bound["<N1>"] = numbers[0][0]
    bound["<I3>"] = shown(references[2])["inquiry_id"]
    with transaction() as session:
        cancel_invoice(session, references[2], because="issued twice", now=NOON)
    answers: dict[str, bytes] = {}
    for pair in GOLDEN["pairs"]:
        at = NOON + timedelta(minutes=pair["minute"])
        body = filled(pair["body"], bound)
        reply = replied(pair["call"], body, at=at)
        said = json.loads(reply.body)
        bound.pop("<any>", None)
        bind(pair["answer"], said, bound)
        assert (reply.status, said) == (pair["status"], listed(pair["answer"], bound)), pair["name"]
        if pair["call"] in {"confirm", "cancel"} and said["result"] != "conflicting":
            # The same again gets the same bytes, whatever happened since.
            asked = json.dumps([pair["call"], body])
            assert answers.setdefault(asked, reply.body) == reply.body
            assert replied(pair["call"], body, at=at).body == reply.body
    assert {each["call"] for each in GOLDEN["pairs"]} == {"inquiry", "confirm", "cancel", "status"}
    drain(a_desk(a_hub()), batches_max=5)
    assert Counter(code for code, _ in the_books().exceptions) == Counter(
        conflicting_delivery=1,
        conflicting_payment=1,
        paid_twice=1,
        paid_cancelled=1,
        unknown_reference=1,
        wrong_currency=1,
        unreadable_delivery=2,
    )
    held = {named: status for _, named, status, _, _ in the_books().payments}
    assert held == {
        **dict.fromkeys(("HUB-1", "HUB-6", "HUB-7", "HUB-8", "HUB-14"), "booked"),
        **dict.fromkeys(("HUB-20", "HUB-21"), "reversed"),
    }
    assert balances()["clearing:hub"] == 10000 + 6352 + 6352 + 16352 + 16352
    seal()
    assert broken_promises(deliveries=True) == []


# -- which amounts a bill takes -------------------------------------------------------------------


def test_what_is_shown_is_what_the_books_take(database: str) -> None:
    with transaction() as session:
        person = a_contributor(session).id
    assert person is not None
    for period in ("2026-08", "2026-09", "2026-10"):
        issue(period)
    with transaction() as session:
        ids = list(execute(session, "SELECT id FROM invoice ORDER BY id").scalars())
        chosen = make_selection(session, ids[:2], contributor_id=person, now=NOON).reference
    together = shown(chosen)
    assert (together["kind"], together["for"], together["amount_rule"]) == (
        "selection",
        "A. A.",
        "up_to",
    )
    assert together["amount_max"] == together["amount_due"]
    part = a_confirm(chosen, 1, "100.00", held=False, inquiry_id=together["inquiry_id"])
    assert told("confirm", part)["result"] == "booked"
    with transaction() as session:
        made = make_plan(session, person, 3, None, key=process.signing_key(), now=NOON)
    plan = shown(made.reference)
    assert (plan["kind"], plan["amount_rule"], plan["amount_min"]) == (
        "plan",
        "at_least",
        plan["amount_due"],
    )
    assert float(plan["amount_max"]) > float(plan["amount_due"])
    offer = {"held": False, "inquiry_id": plan["inquiry_id"]}
    less = a_confirm(made.reference, 2, "1.00", **offer)
    assert told("confirm", less)["code"] == "amount_too_low"
    more = a_confirm(made.reference, 3, plan["amount_max"], **offer)
    assert told("confirm", more)["result"] == "booked"
    assert shown(made.reference)["status"] == "paid"
    seal()
    assert broken_promises(deliveries=True) == []


def test_a_hub_without_part_payments_takes_what_is_due_and_nothing_else(database: str) -> None:
    hub = a_hub(part_payments=False)
    (reference,) = some_invoices()
    bill = shown(reference, hub)
    assert (bill["amount_rule"], bill["amount_min"], bill["amount_max"]) == (
        "exact",
        "163.52",
        "163.52",
    )
    offer = {"held": False, "inquiry_id": bill["inquiry_id"]}
    less = a_confirm(reference, 1, "163.51", **offer)
    assert told("confirm", less, hub=hub)["code"] == "amount_too_low"
    # What is held is booked, whatever the rule says.
    assert told("confirm", {**less, "held": True}, hub=hub)["result"] == "booked"


def test_what_is_shown_late_ends_when_what_is_due_grows(database: str) -> None:
    (reference,) = some_invoices(period="2026-10")
    night = datetime.fromisoformat("2026-11-30T23:55:00+01:00")
    (bill,) = told("inquiry", {"reference": reference}, at=night)["bills"]
    assert bill["expires_at"] == "2026-11-30T23:00:00Z"


def test_one_of_many_confirms_at_once_is_booked_and_all_hear_the_same(database: str) -> None:
    (reference,) = some_invoices()
    said = a_confirm(reference, held=False, inquiry_id=shown(reference)["inquiry_id"])
    replies = at_once(*[lambda: replied("confirm", said)] * 6)
    assert len({reply.body for reply in replies}) == 1
    others = at_once(
        *(lambda n=n: told("confirm", {**said, "transaction_id": f"O-{n}"}) for n in range(4))
    )
    assert {each["code"] for each in others} == {"nothing_due"}
    assert [p[1:4] for p in the_books().payments] == [("T-1", "booked", 16352)]


def test_what_was_refunded_is_not_taken_back_besides(database: str) -> None:
    (reference,) = some_invoices()
    said = a_confirm(reference)
    assert told("confirm", said)["result"] == "booked"
    record(a_return("T-1", 100, provider="hub"))
    cancelled = told("cancel", {**said, "reason": "customer_left"})
    assert (cancelled["result"], cancelled["code"]) == ("declined", "refunded")
    assert (cancelled["returned"], balances()["clearing:hub"]) == ("1.00", 16252)
    assert told("status", {"transaction_id": "T-1"})["result"] == "booked"


# -- strangers ------------------------------------------------------------------------------------


def test_who_has_no_key_is_told_nothing_and_counted() -> None:
    counted: list[str] = []
    for key in ("", "wrong-key-0123456789", KEY + "x", KEY[:-1], "é" * 20):
        call = a_call("inquiry", {"reference": "148275036141"}, key=key)
        reply = answer(an_answerer(count_refused=counted.append), a_hub(), call)
        assert (reply.status, json.loads(reply.body)["code"]) == (400, "not_authentic")
    assert counted == ["hub"] * 5
    both = [
        isinstance(a_hub().read(a_call("status", {}, key=k)), AnswerNow) for k in (KEY, OLD_KEY)
    ]
    assert both == [True, True]


def test_bytes_that_are_no_json_are_kept_where_they_may_be_about_money(database: str) -> None:
    for path in ("confirm", "cancel"):
        assert replied(path, b'{"amount": ').status == 400
        assert replied(path, "Payé".encode("latin-1")).status == 400
    assert replied("inquiry", b"{").status == 400
    codes = [code for code, _ in the_books().exceptions]
    assert codes == ["unreadable_delivery"] * 4


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"[]", True),
        (b'{"held": "true", "transaction_id": "T-1"}', True),
        (b'{"transaction_id": "T-1"}', True),
        (b'{"held": false, "held": true, "transaction_id": "T-1"}', True),
        (b'{"held": false, "held": false, "transaction_id": "T-1"}', True),
        (b'{"held": true, "transaction_id": 7}', True),
        (b'{"held": false, "transaction_id": 7}', False),
    ],
)
def test_a_confirm_that_cannot_be_read_is_declined_only_if_it_plainly_holds_nothing(
    database: str, body: bytes, kept: bool
) -> None:
    for _ in range(2):
        said = told("confirm", body)
        assert said["result"] == ("quarantined" if kept else "declined")
        assert said["code"] == "invalid_request"
    assert [c for c, _ in the_books().exceptions] == ["unreadable_delivery"] * kept


WORDS: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=12),
    st.sampled_from(["MAD", "163.52", "148275036141", "1e3", "-1", "\x00", NOON.isoformat()]),
    st.lists(st.text(max_size=3), max_size=2),
)
FIELDS: Final = (
    *("transaction_id", "reference", "amount", "currency", "channel", "paid_at", "held"),
    *("inquiry_id", "agent_id", "fee", "cnss_number", "offset"),
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["inquiry", "confirm", "cancel", "status", "", "confirm/x"]),
    st.one_of(
        st.binary(max_size=40),
        st.dictionaries(st.sampled_from(FIELDS), WORDS).map(
            lambda said: json.dumps(said, ensure_ascii=True).encode()
        ),
        st.sampled_from([b"[]", b'{"held":true,"held":true}', b'{"a":' * 3000]),
    ),
)
def test_whatever_is_sent_is_read_and_read_again_the_same(path: str, body: bytes) -> None:
    hub = a_hub()
    want = hub.read(a_call(path, body))
    if isinstance(want, AnswerNow):
        assert want.reply.status < 500
    elif isinstance(want, TakePayment):
        again = hub.parse(body, delivery_id=want.delivery_id, received_at=NOON, path=path)
        assert type(again) is type(want.report)
        if isinstance(want.report, PaymentReport):
            assert again == want.report
            assert want.report.amount_minor > 0
        else:
            assert isinstance(want.report, Unbookable)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"api_keys": []}, "api_keys"),
        ({"api_keys": ["short"]}, "16 to 256"),
        ({"api_keys": [KEY], "cancel_hours": -1}, "cancel_hours"),
        ({"api_keys": [KEY], "secrets": ["x"]}, "secrets"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values: dict[str, Any], words: str) -> None:
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
    with pytest.raises(Unusable, match=words):
        read_providers(f'[[provider]]\nname = "hub"\nkind = "bills"\n{lines}\n', "file")


def test_keys_of_trials_are_named() -> None:
    keys = ["wasl-sandbox-0123456789abcdef", "aaaaaaaaaaaaaaaaaaaaa"]
    found = unsafe_in_production({"hub": a_hub(api_keys=keys)})
    assert len(found) == 2
