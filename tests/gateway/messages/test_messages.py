"""Who is told what, once, when it may be said; and what is not said any more."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gateway import process, receipts
from gateway.billing.bundles import make_selection
from gateway.db import execute, snapshot, transaction
from gateway.errors import Unusable
from gateway.messages import Sender, SenderAway, SenderRefuses, Sent
from gateway.messages.making import make_some
from gateway.messages.rules import message_rules
from gateway.messages.senders import HttpSms, Sandbox, sender_of
from gateway.messages.sending import send_due
from gateway.messages.stops import allow_messages, stop_messages
from gateway.models import Message
from gateway.settings import Settings
from tests.factories import NOON, a_contributor, a_report, a_return, at_once, issue, record

PHONE = "+212600000001"
LATER = NOON + timedelta(days=20)
"""Past the due day and the days that are waited, in the month after: 8 December."""


def somebody(**values: Any) -> int:
    with transaction() as session:
        row = a_contributor(session, **{"phone": PHONE, "language": "fr", **values})
        session.flush()
        assert row.id is not None
        return row.id


def make(now: datetime = NOON) -> None:
    more = True
    while more:
        with transaction() as session:
            more = make_some(session, message_rules(), now=now)


def send(sender: Sender | None = None, now: datetime = NOON) -> int:
    return send_due(sender or Sandbox(), message_rules(), clock=lambda: now)


def tell(now: datetime = NOON, sender: Sender | None = None) -> None:
    receipts.issue_all(process.receipt_keys(), lambda: now)
    make(now)
    send(sender, now)


def told() -> list[tuple[str, str, str | None]]:
    """Return kind, state and what was said or why it was not, in order."""
    with snapshot() as session:
        rows = execute(
            session, "SELECT kind, state, coalesce(text, because) FROM message ORDER BY id"
        )
        return [tuple(row) for row in rows]


def kinds() -> list[tuple[str, str]]:
    return [(kind, state) for kind, state, _ in told()]


def again_at_once() -> None:
    with transaction() as session:
        execute(session, "UPDATE message SET retry_at = NULL")


def references() -> list[str]:
    with snapshot() as session:
        return list(execute(session, "SELECT reference FROM invoice ORDER BY id").scalars())


class Failing:
    """A sender that is away, or refuses."""

    name = "failing"

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.handed: list[str] = []

    def send(self, phone: str, text: str, *, message_id: str) -> Sent:  # noqa: ARG002
        self.handed.append(message_id)
        raise self.error


def test_a_year_of_messages_each_said_once(database: str) -> None:
    """Issued, due soon, paid in part, late, and paid: nothing twice, however often it is looked."""
    somebody()
    issue("2026-11")
    [reference] = references()
    for _ in range(2):
        tell()
    [(kind, state, text)] = told()
    assert (kind, state) == ("notice", "sent")
    assert text is not None
    assert "163,52 DH" in text
    assert "30/11/2026" in text
    assert text.endswith(f"/{reference}")
    for _ in range(2):
        tell(NOON + timedelta(days=10))
    record(a_report(reference, amount_minor=100_00), now=NOON + timedelta(days=10, hours=1))
    for _ in range(2):
        tell(NOON + timedelta(days=10, hours=2))
        tell(LATER)
        tell(LATER + timedelta(days=1))
    assert kinds() == [(k, "sent") for k in ("notice", "due_soon", "paid", "late")]
    said = [text or "" for _, _, text in told()]
    assert said[2].startswith("R26-")
    assert "100,00 DH" in said[2]
    assert "Reste à payer: 63,52 DH." in said[2]
    # With the penalty of December on what was unpaid.
    assert "64,16 DH" in said[3]
    # The month after, once more; and nothing about what was settled before it was said.
    make(LATER + timedelta(days=28))
    record(a_report(reference, amount_minor=64_80, provider_payment_id="CP-2"), now=LATER)
    send(now=LATER + timedelta(days=28))
    assert told()[4][:3] == ("late", "dropped", "nothing is due any more")


def test_it_is_said_in_the_persons_language_and_names_initials_only(database: str) -> None:
    somebody(
        language="ar",
        family_name="Zerhouni",
        given_name="Fatima",
        family_name_ar="الزرهوني",
        given_name_ar="فاطمة",
    )
    issue("2026-11")
    tell()
    [(_, _, text)] = told()
    assert text is not None
    assert "163,52 درهم" in text
    assert "ف. ز." in text
    for name in ("Zerhouni", "Fatima", "الزرهوني", "فاطمة"):
        assert name not in text


def test_quiet_hours_hold_a_message_until_their_end(database: str) -> None:
    somebody()
    issue("2026-11")
    night = NOON.replace(hour=21)
    make(night)
    assert send(now=night) == 0
    assert send(now=night + timedelta(hours=9)) == 0, "six in the morning"
    assert send(now=night + timedelta(hours=12)) == 1


def test_who_wants_none_gets_none_and_an_import_changes_nothing(database: str) -> None:
    at = somebody()
    issue("2026-11")
    make()
    with transaction() as session:
        assert stop_messages(session, at, asked_by="test", why="asked", now=NOON)
        assert not stop_messages(session, at, asked_by="test", why="asked", now=NOON)
        with pytest.raises(Unusable, match="Say why"):
            stop_messages(session, at, asked_by="test", why=" ", now=NOON)
    send()
    record(a_report(references()[0]))
    tell(NOON + timedelta(hours=1))
    assert told() == [("notice", "dropped", "the person wants no messages")]
    # A merge with another file of the same person, which stands from now on.
    with transaction() as session:
        other = a_contributor(session, phone=PHONE)
        session.flush()
        execute(
            session,
            "UPDATE contributor SET merged_into_id = :other WHERE id = :at",
            {"other": other.id, "at": at},
        )
    issue("2026-10")
    tell(NOON + timedelta(hours=2))
    assert len(told()) == 1
    with transaction() as session:
        assert allow_messages(session, at)
        assert not allow_messages(session, at)
    make(NOON + timedelta(hours=3))
    tell(LATER)
    assert kinds()[1:] == [("late", "sent")]


def test_nobody_without_a_telephone_and_nothing_old_is_told(database: str) -> None:
    somebody(phone=None)
    somebody()
    issue("2026-11")
    make(NOON + timedelta(days=4))
    assert told() == [], "what was issued four days ago is no news"


def test_money_that_is_gone_again_is_told_and_a_payment_never_confirmed_late(
    database: str,
) -> None:
    somebody()
    somebody(phone="+212600000002")
    issue("2026-11")
    first, second = references()
    make()
    send()
    record(
        a_report(first, provider_payment_id="CP-1"), a_report(second, provider_payment_id="CP-2")
    )
    tell(NOON + timedelta(minutes=1))
    record(a_return("CP-1", 163_52))
    make(NOON + timedelta(minutes=2))
    send(now=NOON + timedelta(minutes=2))
    assert [k for k, _ in kinds()] == ["notice", "notice", "paid", "paid", "given_back"]
    said = told()[-1][2] or ""
    assert "163,52 DH" in said
    assert "Reste à payer: 163,52 DH" in said
    # Given back before it was ever confirmed: the confirmation is not sent any more.
    record(a_report(first, provider_payment_id="CP-3"))
    receipts.issue_all(process.receipt_keys(), lambda: NOON)
    make(NOON + timedelta(minutes=3))
    record(a_return("CP-3", 163_52))
    send(now=NOON + timedelta(minutes=4))
    assert told()[-1] == ("paid", "dropped", "it was given back meanwhile")


def test_money_that_moved_on_is_said_once_and_what_is_left_of_all_that_was_quoted(
    database: str,
) -> None:
    """In quiet hours a payment of three months is moved: what it pays now is said, no more."""
    person = somebody()
    for period in ("2026-09", "2026-10", "2026-11"):
        issue(period)
    with transaction() as session:
        ids = list(execute(session, "SELECT id FROM invoice ORDER BY id").scalars())
        bundle = make_selection(session, ids, contributor_id=person, now=NOON)
        session.flush()
    record(a_report(bundle.reference, amount_minor=200_00, provider_payment_id="CP-9"))
    # It is moved from one invoice to another and back, as re-assessments do.
    with transaction() as session:
        execute(
            session,
            "INSERT INTO allocation (payment_id, invoice_id, component, amount_minor, policy,"
            " allocated_at) SELECT payment_id, invoice_id, component, sign * amount_minor, 'moved',"
            " allocated_at FROM allocation CROSS JOIN (VALUES (-1), (1)) AS v (sign)",
        )
    tell()
    [text] = [said or "" for kind, _, said in told() if kind == "paid"]
    assert "200,00 DH" in text
    assert bundle.reference[:4] in text
    # Three times 163.52 with the penalties of two months on one and of one on another, less 200.
    assert text.endswith("Reste à payer: 295,47 DH.")


def test_a_payment_is_confirmed_once_its_receipt_is_signed(database: str) -> None:
    somebody()
    issue("2026-11")
    record(a_report(references()[0]))
    make()
    send()
    assert ("paid", "waiting") in kinds()
    receipts.issue_all(process.receipt_keys(), lambda: NOON)
    again_at_once()
    send()
    assert ("paid", "sent") in kinds()


def test_a_sender_that_is_away_is_asked_again_and_one_that_refuses_is_not(database: str) -> None:
    somebody()
    issue("2026-11")
    make()
    away = Failing(SenderAway("there is no answer"))
    assert send(away) == 0
    assert send(away) == 0, "it is left alone for a while"
    again_at_once()
    send(away)
    assert len(away.handed) == 2
    assert len(set(away.handed)) == 1
    assert [(state, why) for _, state, why in told()] == [("waiting", "there is no answer")]
    again_at_once()
    send(Failing(SenderRefuses("it says no: 422")))
    assert [(state, why) for _, state, why in told()] == [("dropped", "it says no: 422")]


def test_two_who_make_and_send_at_once_say_nothing_twice(database: str) -> None:
    for at in range(40):
        somebody(phone=f"+2126000001{at:02}")
    issue("2026-11")
    lock, handed = threading.Lock(), []

    class Counting(Sandbox):
        def send(self, phone: str, text: str, *, message_id: str) -> Sent:
            with lock:
                handed.append(message_id)
            return super().send(phone, text, message_id=message_id)

    at_once(make, make)
    at_once(lambda: send(Counting()), lambda: send(Counting()))
    assert len(handed) == len(set(handed)) == 40
    assert set(kinds()) == {("notice", "sent")}


def test_one_who_dies_before_he_marks_has_it_handed_over_under_the_same_id(database: str) -> None:
    somebody()
    issue("2026-11")
    make()
    dying = Failing(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        send(dying)
    assert send() == 0, "it is claimed for a while"
    again_at_once()
    assert send() == 1
    with snapshot() as session:
        kept = session.get(Message, execute(session, "SELECT id FROM message").scalar_one())
    assert kept is not None
    assert dying.handed == [kept.sender_id]


# -- the gateway over HTTP ------------------------------------------------------------------------


@contextmanager
def a_gateway(status: int, body: bytes) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    got: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            read = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.headers["Authorization"], json.loads(read)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/sms", got
        server.shutdown()


def test_what_an_sms_gateway_is_posted() -> None:
    with a_gateway(200, b'{"id": "SM\\u00001"}') as (url, got):
        sent = HttpSms(url, "secret", "CNSS").send(PHONE, "réf. 1", message_id="wasl-7")
    assert sent == Sent("SM1")
    said = {"id": "wasl-7", "to": PHONE, "from": "CNSS", "text": "réf. 1"}
    assert got == [("Bearer secret", said)]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (422, b"{}", SenderRefuses),
        # Our credit is used up, or the address is wrong: no fault of this message's.
        (402, b"{}", SenderAway),
        (404, b"{}", SenderAway),
        (503, b"{}", SenderAway),
        (200, b"<ok>", SenderAway),
    ],
)
def test_what_an_sms_gateway_may_answer(status: int, body: bytes, error: type[Exception]) -> None:
    with a_gateway(status, body) as (url, _), pytest.raises(error):
        HttpSms(url, "secret", "CNSS").send(PHONE, "text", message_id="wasl-7")


def test_the_same_again_is_sent_already() -> None:
    with a_gateway(409, b"{}") as (url, _):
        assert HttpSms(url, "secret", "CNSS").send(PHONE, "x", message_id="wasl-7") == Sent("")


def test_who_takes_the_messages_of_an_installation() -> None:
    assert isinstance(sender_of(Settings(mode="sandbox")), Sandbox)
    assert sender_of(Settings(mode="production")) is None
    for values in (
        {"sms_url": "http://sms.example.ma", "sms_key": "k"},
        {"sms_url": "https://sms.example.ma"},
        {"sms_url": "https://sms.example.ma", "sms_key": "k", "sms_sender": "a name too long"},
    ):
        with pytest.raises(Unusable, match="WASL_SMS_"):
            sender_of(Settings.model_validate({"mode": "production", **values}))
