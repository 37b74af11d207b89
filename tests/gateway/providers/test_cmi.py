"""CMI's callbacks and forms: every golden case, what is answered and booked, and what is not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from gateway import process
from gateway.billing.presentment import present
from gateway.collection.attempt_rows import latest_attempt
from gateway.collection.attempts import begin, give_up
from gateway.collection.inquiries import ask_due
from gateway.collection.reports import PaymentReport, Statement, Terms, Unbookable
from gateway.db import execute, snapshot, transaction
from gateway.errors import ProviderRefused
from gateway.models import AttemptState
from gateway.providers import PAGE_LIFE, Answer, PageProvider, PageState, WantedPage, cmi
from gateway.providers.calls import (
    AnsweringProvider,
    AnswerNow,
    Call,
    Found,
    Reply,
    TakePayment,
    Want,
)
from gateway.providers.cmi import Cmi, CmiSettings
from gateway.providers.nestpay import as_hashed, hashed_text, ver3
from gateway.providers.registry import read_providers, unsafe_in_production
from gateway.simulators.cardbank import signature
from tests.factories import (
    NOON,
    a_desk,
    a_report,
    a_return,
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
from webhooks.inbox import drain

GOLDEN: Final = json.loads((Path(__file__).parents[2] / "golden/cmi.json").read_text("utf-8"))
CASES: Final = {case["name"]: case for case in GOLDEN["own_cases"]}
KEY: Final = CASES["callback_approved"]["store_key"]
CLIENT: Final = "600000000"
APPROVED, CAPTURED, FAILED = b"APPROVED", b"ACTION=POSTAUTH", b"FAILURE"


def a_cmi(key: str = KEY, **values: Any) -> Cmi:
    settings = {"client_id": CLIENT, "store_key": key, **values}
    return Cmi("cmi", CmiSettings.model_validate(settings))


def a_call(body: bytes, *, at: datetime = NOON) -> Call:
    return Call("POST", "", {}, {}, body, at)


def a_form(oid: str, *, key: str = KEY, **values: str | None) -> bytes:
    """Return a callback of 163.52 at half past noon, signed; None leaves a field out."""
    told = {
        **CASES["callback_approved"]["params"],
        "oid": oid,
        "ReturnOid": oid,
        "amount": "163.52",
        "EXTRA.TRXDATE": "20261118 12:30:00",
        **values,
    }
    fields = {name: value for name, value in told.items() if value is not None}
    return urlencode({**fields, "HASH": bank_hash(fields, key)}).encode()


def bank_hash(fields: dict[str, str], key: str = KEY) -> str:
    """Return what the bank signs by: it writes entities after it has hashed."""
    return signature({name: as_hashed(value) for name, value in fields.items()}, key)


def declined(oid: str, **values: str | None) -> bytes:
    refused: dict[str, Any] = {"ProcReturnCode": "51", "Response": "Declined", **values}
    return a_form(oid, **refused)


def tell(body: bytes, *, provider: AnsweringProvider | None = None, now: datetime = NOON) -> bytes:
    """Return the word that a callback is answered by; the rest of the answer never differs."""
    reply = answer(an_answerer(lambda: now), provider or a_cmi(), a_call(body, at=now))
    assert (reply.status, reply.media_type) == (200, "text/plain")
    return reply.body


def booked_once(reference: str) -> None:
    books = the_books()
    assert [p[2:] for p in books.payments if p[2] == "booked"] == [("booked", 16352, reference)]
    assert balances() == {"clearing:cmi": 16352, "payable:institution": -16352}
    seal()
    assert broken_promises(deliveries=True) == []


# -- the hash -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_every_golden_hash_is_made_again(name: str) -> None:
    case = CASES[name]
    how = str.strip if case["mode"] == "request" else as_hashed
    fields = [(field, how(value)) for field, value in case["params"].items()]
    values = dict(fields)
    text = hashed_text(fields, case["store_key"])
    assert text == case["plaintext"]
    in_order = [(field, values[field]) for field in case["param_order"]]
    # Sorted before, it stays so: the order is that of the names, and not only of these values.
    assert (
        hashed_text([(f"n{at:03}", v) for at, (_, v) in enumerate(in_order)], case["store_key"])
        == text
    )
    assert ver3(fields, case["store_key"]) == case["expected_hash"]
    # The bank of the sandbox is another program, by another hand's rule for everyday names.
    if name != "callback_natural_sort":
        assert signature(values, case["store_key"]) == case["expected_hash"]


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c["mode"] == "callback"])
def test_golden_callbacks_are_authentic_as_they_stand(name: str) -> None:
    case = CASES[name]
    body = urlencode({**case["params"], "HASH": case["expected_hash"]}).encode()
    want = a_cmi(case["store_key"]).read(a_call(body))
    assert isinstance(want, TakePayment)
    assert want.report == a_cmi().parse(body, delivery_id=want.delivery_id, received_at=NOON), (
        "what is read again later is what was decided on"
    )
    if case["expected_effect"] == "ordering test only":
        assert isinstance(want.report, Unbookable)
        return
    assert isinstance(want.report, PaymentReport)
    accepted = case["expected_effect"] == "booked"
    assert want.report.statement is (Statement.COMPLETED if accepted else Statement.DECLINED)
    assert (want.report.reference_given, want.report.amount_minor) == ("148275036141", 17250)
    assert want.report.provider_payment_id == "26324RqiC11252"
    assert want.report.paid_at == datetime(2026, 11, 20, 16, 42, 33, tzinfo=UTC)
    assert want.report.terms is Terms.ALL_DUE
    assert want.page_id == "148275036141"
    code = "00" if accepted else "51"
    assert want.delivery_id == f"148275036141.26324RqiC11252.{code}"


def test_golden_forgeries_are_refused_and_a_resigned_decline_is_one() -> None:
    base = CASES["callback_approved"]
    good = {**base["params"], "HASH": base["expected_hash"]}
    negative = {case["name"]: case for case in GOLDEN["negative"]}
    changed = {**good, **negative["amount changed"]["set"]}
    unsigned = {n: v for n, v in good.items() if n not in negative["HASH missing"]["unset"]}
    twice = [*good.items(), ("HASH", good["HASH"])]
    two_hashes = [*good.items(), ("hash", "")]
    # Signed, with one name for two values: which of them would be meant?
    amounts = [*base["params"].items(), ("amount", "1.00")]
    decoded = [(name, as_hashed(value)) for name, value in amounts]
    two_amounts = [*amounts, ("HASH", ver3(decoded, KEY))]
    long = {**base["params"], "n" * 65: ""}
    long_name = {**long, "HASH": bank_hash(long)}
    for forged in (changed, unsigned, twice, two_hashes, two_amounts, long_name):
        want = a_cmi().read(a_call(urlencode(forged).encode()))
        assert want == AnswerNow(Reply(200, FAILED, "text/plain"), refused=True)
    case = negative["Response=Approved but ProcReturnCode=51"]
    resigned = {**base["params"], **case["resign_with"]}
    assert bank_hash(resigned) == case["params_hash_after_resigning"]
    body = urlencode({**resigned, "HASH": case["params_hash_after_resigning"]}).encode()
    want = a_cmi().read(a_call(body))
    assert isinstance(want, TakePayment)
    assert isinstance(want.report, PaymentReport)
    assert want.report.statement is Statement.DECLINED


# -- what is answered and booked ------------------------------------------------------------------


@pytest.fixture
def reference(database: str) -> str:
    return some_invoices()[0]


def test_declines_and_then_an_acceptance_are_booked_once(reference: str) -> None:
    assert tell(declined(reference, TransId="T1")) == APPROVED
    assert the_books().payments == [("cmi", "T1", "failed", 16352, None)]
    accepted = a_form(reference, TransId="T2")
    for _ in range(2):
        assert tell(accepted) == CAPTURED
    # Sent again with a fresh nonce and a later time: the same money, and the same answer.
    assert tell(a_form(reference, TransId="T2", rnd="other", encoding=None)) == CAPTURED
    # Told late of a card that was refused before, and of the taken one as if it were refused.
    for late in ("T0", "T2"):
        assert tell(declined(reference, TransId=late)) == APPROVED
    drain(a_desk(a_cmi()), batches_max=3)
    assert the_books().exceptions == []
    # The same delivery with other money: the first stands, a person looks, nothing is captured.
    assert tell(a_form(reference, TransId="T2", amount="1.00")) == APPROVED
    assert tell(accepted) == CAPTURED
    drain(a_desk(a_cmi()), batches_max=3)
    subject = f"delivery:cmi/{reference}.T2.00"
    assert the_books().exceptions == [("conflicting_delivery", subject)]
    booked_once(reference)


@pytest.mark.parametrize("captured_before", [False, True])
def test_what_does_not_fit_is_not_captured(reference: str, captured_before: bool) -> None:
    if captured_before:
        assert tell(a_form(reference, TransId="T0")) == CAPTURED
    before = the_books()
    unknown = "271828182898"
    forms = [
        a_form(reference, amount="163.51"),
        a_form(reference, amount="163.53", TransId="T1"),
        a_form(reference, currency="978", TransId="T2"),
        a_form(reference, currency=None, TransId="T3"),
        a_form(unknown, TransId="T4"),
        a_form(reference[::-1], TransId="T5"),
        a_form("", TransId="T6"),
        a_form(f"{reference}\x00", TransId="T7"),
        a_form(reference, TransId=None),
        a_form(reference, TransId="\u0663\u0663"),
        a_form(reference, clientid="1", TransId="T8"),
        declined(reference, TransId=None),
        declined(reference, TransId="", amount=None),
    ]
    amounts = ("0.00", "-163.52", "163.520", "163,52", "1e3", "10000000000.01", "١٦٣", "")
    forms += [a_form(reference, amount=a, TransId=f"A{i}") for i, a in enumerate(amounts)]
    if captured_before:
        forms.append(a_form(reference, TransId="T9"))
    assert {tell(body) for body in forms} == {APPROVED}
    drain(a_desk(a_cmi()), batches_max=3)
    assert the_books() == before
    if captured_before:
        booked_once(reference)


def a_page(reference: str, *, at: datetime = NOON) -> dict[str, str]:
    """Press the button; return the form that leads to the card page."""

    def due_minor(session: Any) -> int:
        found = present(session, reference, now=at, validity_months=12)
        return found.due_minor if found else 0

    begun = begin(
        {"cmi": a_cmi(api_base="https://pay.example.ma")},
        reference,
        due_minor=due_minor,
        language="ar",
        link=f"https://amo.example.ma/{reference}",
        clock=lambda: at,
    )
    assert begun.url == "https://pay.example.ma/fim/est3Dgate"
    return dict(begun.fields)


def attempts_of(database: str) -> list[tuple[Any, ...]]:
    query = "SELECT state, closed_because, provider_payment_id FROM payment_attempt"
    return rows_of(database, f"{query} ORDER BY made_at, session_id")


def test_a_page_asks_for_an_amount_and_takes_that(reference: str) -> None:
    form = a_page(reference)
    assert (form["amount"], form["lang"]) == ("163.52", "ar")
    assert form["callbackUrl"] == "https://amo.example.ma/webhooks/cmi"
    # A month of penalty later: what the page asked for is welcome, other amounts are not.
    later = NOON + timedelta(days=20)
    local = {"EXTRA.TRXDATE": "20261208 12:00:00"}
    more = a_form(form["oid"], amount="165.16", TransId="T1", **local)
    assert tell(more, now=later) == APPROVED
    assert tell(a_form(form["oid"], TransId="T2", **local), now=later) == CAPTURED
    with snapshot() as session:
        attempt = latest_attempt(session, reference)
    assert attempt is not None
    assert (attempt.state, attempt.session_id) == (AttemptState.PAID, form["oid"])
    booked_once(reference)
    # Given back, it is due again, and not by this page: whoever saw the callback may post its
    # values by other names, and so another of them as the TransId.
    assert record(a_return("T2", 16352, provider="cmi"), now=later) == ["returned"]
    assert tell(a_form(form["oid"], TransId="T3", **local), now=later) == APPROVED


def test_a_page_that_was_left_takes_what_is_due_and_nothing_else(database: str) -> None:
    elsewhere, alone = some_invoices(2)
    left = [a_page(each)["oid"] for each in (elsewhere, alone)]
    for each in (elsewhere, alone):
        assert give_up({"cmi": a_cmi()}, each, clock=lambda: NOON)
    assert attempts_of(database) == [("closed", "given up", None)] * 2
    assert record(a_report(elsewhere)) == ["booked"]
    assert tell(a_form(left[0], TransId="T1")) == APPROVED
    accepted = a_form(left[1], TransId="T2")
    assert [tell(accepted), tell(accepted)] == [CAPTURED, CAPTURED]
    assert tell(a_form(left[1], TransId="T3")) == APPROVED
    assert balances() == {
        "clearing:cashplus": 16352,
        "clearing:cmi": 16352,
        "payable:institution": -2 * 16352,
    }
    assert sorted(attempts_of(database)) == [("closed", "declined", None), ("paid", None, "T2")]
    seal()
    assert broken_promises() == []


def test_money_that_was_declined_is_not_taken_by_the_same_page_once_more_is_due(
    reference: str, database: str
) -> None:
    # The payer's browser holds the bank's acceptance, signed, of money that was never captured.
    # Posted by him with another value as the TransId, it would be an acceptance of its own.
    oid = a_page(reference)["oid"]
    elsewhere = a_report(reference)
    assert record(elsewhere) == ["booked"]
    assert tell(a_form(oid, TransId="T1")) == APPROVED
    assert attempts_of(database) == [("closed", "declined", None)]
    back = a_return(elsewhere.provider_payment_id, 16352)
    assert record(back) == ["returned"]
    assert tell(a_form(oid, TransId="T2")) == APPROVED
    # Who wants to pay gets another page.
    assert tell(a_form(a_page(reference)["oid"], TransId="T3")) == CAPTURED
    assert balances()["clearing:cmi"] == 16352


def test_a_page_that_nothing_was_heard_of_ends_without_a_word(
    reference: str, database: str
) -> None:
    oid = a_page(reference)["oid"]
    with capture_logs() as logs:
        for now, expected in ((NOON, "sent"), (NOON + PAGE_LIFE + timedelta(minutes=1), "closed")):
            with transaction() as session:
                execute(session, "UPDATE payment_attempt SET ask_at = '-infinity'")
            clock = partial(lambda now: now, now)
            asked = ask_due({"cmi": a_cmi()}, key=process.signing_key(), clock=clock, asks_max=5)
            assert (asked, attempts_of(database)[0][0]) == (1, expected)
    assert logs == []
    # Paid after all: nothing was captured without us, so nothing else was paid by it.
    assert tell(a_form(oid), now=NOON + PAGE_LIFE * 2) == CAPTURED
    booked_once(reference)


def test_a_day_that_is_not_stated_is_that_of_the_callback_and_a_false_one_is_shown(
    database: str,
) -> None:
    unstated, tomorrow, none = some_invoices(3)
    days = {unstated: None, tomorrow: "20261119 12:30:00", none: "20261332 25:00:00"}
    for reference, day in days.items():
        stated: dict[str, Any] = {"TransId": f"T{reference}", "EXTRA.TRXDATE": day}
        assert tell(a_form(reference, **stated)) == CAPTURED
    assert sorted(the_books().exceptions) == sorted(
        ("implausible_date", f"payment:cmi/T{each}") for each in (tomorrow, none)
    )
    at = NOON - timedelta(hours=1)
    want = a_cmi().read(a_call(a_form(none, **{"EXTRA.TRXDATE": "20260301 11:00:00"})))
    # In Ramadan the clocks of Casablanca show UTC, and an hour more in November.
    assert isinstance(want, TakePayment)
    assert isinstance(want.report, PaymentReport)
    assert want.report.paid_at == datetime(2026, 3, 1, 11, tzinfo=UTC)
    want = a_cmi().read(a_call(a_form(none, **{"EXTRA.TRXDATE": "20261118 12:00:00"})))
    assert isinstance(want, TakePayment)
    assert isinstance(want.report, PaymentReport)
    assert want.report.paid_at == want.report.stated_at == at


def test_what_was_paid_meanwhile_is_not_taken_by_an_earlier_day(database: str) -> None:
    whole, part, page = some_invoices(3)
    oid = a_page(page)["oid"]
    for reference, paid in ((whole, 16352), (part, 1), (page, 16352)):
        assert record(a_report(reference, amount_minor=paid)) == ["booked"]
    before = the_books()
    for at, named in enumerate((whole, part, oid)):
        late = a_form(named, TransId=f"T{at}", **{"EXTRA.TRXDATE": "20261117 12:30:00"})
        assert tell(late) == APPROVED
    assert the_books() == before


def test_a_card_that_was_refused_before_is_taken_at_what_is_due_on_its_new_day(
    reference: str,
) -> None:
    now = NOON + timedelta(days=20)
    day: dict[str, Any] = {"EXTRA.TRXDATE": "20261208 12:30:00"}
    assert tell(declined(reference, TransId="T1")) == APPROVED
    assert tell(a_form(reference, TransId="T1", **day), now=now) == APPROVED
    with_penalty = a_form(reference, TransId="T1", amount="165.16", rnd="2", **day)
    assert tell(a_form(reference, TransId="T2", amount="165.16", **day), now=now) == CAPTURED
    # Under the id of a delivery that was declined the first word stands.
    assert tell(with_penalty, now=now) == APPROVED


def test_callbacks_at_one_moment_capture_once(reference: str) -> None:
    same, other = a_form(reference, TransId="T1"), a_form(reference, TransId="T2")
    words = at_once(*[lambda body=body: tell(body) for body in (same, other, same, other)])
    assert sorted(words) == [CAPTURED, CAPTURED, APPROVED, APPROVED]
    assert words[0] == words[2]
    booked_once(reference)


class Breaking(Cmi):
    """Breaks off before the commit."""

    def say(self, want: Want, found: Found) -> Reply:
        super().say(want, found)
        raise MemoryError


def test_what_breaks_off_leaves_nothing_and_is_taken_the_next_time(reference: str) -> None:
    before = the_books()
    body = a_form(reference)
    breaking = Breaking("cmi", CmiSettings.model_validate({"client_id": CLIENT, "store_key": KEY}))
    assert tell(body, provider=breaking) == FAILED
    assert the_books() == before
    assert tell(body) == CAPTURED
    booked_once(reference)


class Clumsy(Cmi):
    """Makes the database complain, and quote a row."""

    def say(self, want: Want, found: Found) -> Reply:
        super().say(want, found)
        quoted = Exception("new row violates a check\nDETAIL:  Failing row contains (AMRANI).")
        raise IntegrityError("INSERT", None, quoted)


def test_what_the_database_quotes_is_not_logged(reference: str) -> None:
    clumsy = Clumsy("cmi", CmiSettings.model_validate({"client_id": CLIENT, "store_key": KEY}))
    with capture_logs() as logs:
        assert tell(a_form(reference), provider=clumsy) == FAILED
    (line,) = logs
    assert "violates a check" in line["reason"]
    assert "AMRANI" not in str({**line, "exc_info": str(line.get("exc_info"))})


# -- whatever is sent -----------------------------------------------------------------------------

NAMES: Final = st.sampled_from([*CASES["callback_approved"]["params"], "hash", "Encoding", "x01"])
VALUES: Final = st.one_of(
    st.sampled_from(["00", "51", "504", "163.52", "&#0;", "&#xD800;", "&#1114112;", "a|b\\", "\n"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
BODIES: Final = st.one_of(
    st.binary(max_size=200),
    st.lists(st.tuples(NAMES, VALUES), max_size=20).map(lambda pairs: urlencode(pairs).encode()),
    st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), max_size=9).map(
        lambda pairs: urlencode(pairs, errors="replace").encode()
    ),
)


@given(BODIES)
@example(b"&".join(b"f%d=" % at for at in range(201)))
@example(b"HASH=%FF")
@example(b"n" * 65 + b"=&HASH=")
@settings(max_examples=300, deadline=None)
def test_strangers_are_told_failure_whatever_they_send(body: bytes) -> None:
    want = a_cmi().read(a_call(body))
    assert want == AnswerNow(Reply(200, FAILED, "text/plain"), refused=True)
    a_cmi().parse(body, delivery_id="d", received_at=NOON)


@given(st.dictionaries(NAMES.filter(lambda name: name != "hash"), VALUES, max_size=12))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_who_has_the_key_is_answered_whatever_it_says(
    reference: str, values: dict[str, str]
) -> None:
    told = {**CASES["callback_approved"]["params"], "oid": reference, **values}
    signed = [(name, as_hashed(value)) for name, value in told.items()]
    body = urlencode({**told, "HASH": ver3(signed, KEY)}).encode()
    captured = tell(body) == CAPTURED
    assert not captured or the_books().invoices == [(reference, 16352, 16352, "paid")]


@given(st.text(max_size=30))
@example("&amp;amp; &#39; &apos; &copy &lang=fr &hearts;")
def test_entities_are_decoded_once_and_never_fail(text: str) -> None:
    decoded = as_hashed(text)
    assert "&" in text or decoded == text.removesuffix("\n")
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&#34;")
    assert as_hashed(escaped + "\n") == text


# -- pages and settings ---------------------------------------------------------------------------

WANTED: Final = WantedPage(
    attempt_id="wasl_00112233445566778899aabbccddeeff",
    reference="148275036141",
    amount_minor=16352,
    language="fr",
    back="https://amo.example.ma/148275036141?card=back&lang=fr",
    left="https://amo.example.ma/148275036141?card=left&lang=fr",
    expires_at=NOON + timedelta(hours=1),
    notify_url="https://amo.example.ma/webhooks/cmi",
)


def test_the_form_is_signed_and_no_value_of_it_reads_as_an_acceptance() -> None:
    provider = a_cmi()
    assert isinstance(provider, AnsweringProvider)
    assert isinstance(provider, PageProvider)
    made = provider.make_page(WANTED)
    assert made == a_cmi().make_page(WANTED), "equal wishes make equal forms"
    form = dict(made.fields)
    assert len(form) == len(made.fields)
    assert form.pop("HASH") == signature(form, KEY)
    assert made.session_id == form["oid"] == "148275036141-8899aabbccddeeff"
    assert (form["amount"], form["currency"], form["TranType"]) == ("163.52", "504", "PreAuth")
    assert not form.keys() & {"email", "tel", "BillToName"}
    # Whoever holds the form may post its values by other names: none of them may capture anything.
    assert "00" not in map(as_hashed, form.values())
    want = provider.read(a_call(urlencode(dict(made.fields)).encode()))
    assert isinstance(want, TakePayment)
    assert want.report.statement is Statement.DECLINED
    other = provider.make_page(replace(WANTED, attempt_id="wasl_1", amount_minor=1))
    assert other.session_id != made.session_id
    with pytest.raises(ProviderRefused, match="address"):
        provider.make_page(replace(WANTED, notify_url=""))


def test_nobody_is_asked_about_a_page() -> None:
    assert a_cmi().ask("x", received_at=NOON) == Answer(PageState.OPEN, ())
    assert a_cmi(api_base="http://127.0.0.1:8430/").pages_origin == "http://127.0.0.1:8430"


def entry(**values: str) -> str:
    settings = {"client_id": CLIENT, "store_key": "kW4tR9pXz2LmQ7vB", **values}
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    return "\n".join(['[[provider]]\nname = "cards"\nkind = "cmi"', *lines])


REAL: Final = "https://pay.example.ma"


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"api_base": REAL}, []),
        ({}, ["test gateway"]),
        ({"api_base": "https://testpay.example.ma"}, ["test gateway"]),
        (
            {"api_base": "http://localhost:8430", "store_key": "TEST1234567890"},
            ["stand-in", "trial"],
        ),
        ({"api_base": REAL, "store_key": f"{cmi.SANDBOX_MARK}kW4tR9pXz2LmQ7vB"}, ["trial"]),
        ({"api_base": REAL, "store_key": "kW4tR9p"}, ["12 characters"]),
    ],
)
def test_production_refuses_what_is_for_trials(values: dict[str, str], what: list[str]) -> None:
    said = unsafe_in_production(read_providers(entry(**values), "providers.toml", live=True))
    assert len(said) == len(what)
    for sentence, word in zip(said, what, strict=True):
        assert word in sentence
        assert values.get("store_key", "kW4") not in sentence


@pytest.mark.parametrize(
    "values",
    [
        {"client_id": ""},
        {"client_id": "6 0"},
        {"store_key": ""},
        {"store_key": " x "},
        {"api_base": "http://pay.example.ma"},
        {"api_base": "https://pay.example.ma/fim"},
        {"api_base": "https://a@pay.example.ma"},
        {"secret": "x"},
    ],
)
def test_settings_that_mean_nothing_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(Exception, match=r"providers.toml, provider cards"):
        read_providers(entry(**values), "providers.toml")
