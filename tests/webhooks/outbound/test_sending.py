"""Each endpoint receives each event of its types at least once, in order, verifiable by others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from gateway import process
from gateway.db import alone, execute, transaction
from gateway.events import Happening, tell
from gateway.models import EventType
from gateway.settings import settings
from tests.factories import (
    NOON,
    PATIENCE_SECONDS,
    a_report,
    at_once,
    record,
    rows_of,
    some_invoices,
)
from tests.webhooks.outbound.receiver import Answer, Got, receiving
from webhooks.guarded import Reach
from webhooks.outbound import endpoints, sending, walks
from webhooks.outbound.schedule import DELAYS, GONE
from webhooks.outbound.secrets import sealing_key
from webhooks.outbound.sending import Means, Sender, serve

FEED = (
    "SELECT at_event, attempts, last_error, taken, failed FROM webhook_walk"
    " WHERE kind = 'feed' ORDER BY endpoint_id"
)
ATTEMPTS = "SELECT event_id, status, error FROM webhook_attempt ORDER BY id"
NOTICES = "SELECT code, subject, resolved_at IS NOT NULL FROM coded_exception ORDER BY id"


def means(reach: Reach = Reach.THIS_MACHINE) -> Means:
    return Means(sealing_key(settings().keys_dir), lambda: NOON, reach)


def an_endpoint(url: str, *types: EventType, from_event: int | None = None) -> tuple[int, str]:
    """Add one, committed; return its id and its secret."""
    with transaction() as session:
        return endpoints.add(
            session,
            url=url,
            types=types or [EventType.RECONCILIATION_FINISHED],
            description="ours",
            reach=Reach.THIS_MACHINE,
            key=means().key,
            added_by="a test",
            from_event=from_event,
            now=NOON,
        )


def told(how_many: int, what: EventType = EventType.RECONCILIATION_FINISHED) -> list[int]:
    """Tell of something, committed; return the ids of its events."""
    with transaction() as session:
        tell(session, [Happening(what, {"n": n}) for n in range(how_many)], now=NOON)
        query = "SELECT id FROM event ORDER BY id DESC LIMIT :rows"
        return sorted(execute(session, query, {"rows": how_many}).scalars())


def events_of(got: Sequence[Got]) -> list[int]:
    return [int(each.said["data"]["event_id"]) for each in got]


def due_again() -> None:
    with transaction() as session:
        execute(session, "UPDATE webhook_walk SET retry_at = clock_timestamp()")


def change(do: Any, endpoint: int, **values: Any) -> Any:
    with transaction() as session:
        assert endpoints.lock(session, endpoint) is not None
        return do(session, endpoint, **values)


def test_what_happens_is_told_in_order_and_signed_once_each(database: str) -> None:
    every = [
        EventType.INVOICE_ISSUED,
        EventType.PAYMENT_BOOKED,
        EventType.PAYMENT_REVERSED,
        EventType.EXCEPTION_OPENED,
    ]
    with receiving() as receiver:
        endpoint, secret = an_endpoint(receiver.url, *every)
        (reference,) = some_invoices()
        payment = a_report(reference)
        record(payment, a_report("000000000000"))
        reversed_ = a_report(
            reference,
            provider_payment_id=payment.provider_payment_id,
            statement=type(payment.statement).REVERSED,
            stated_at=NOON + timedelta(minutes=1),
        )
        record(reversed_)
        assert serve(endpoint, means()) == 5
        assert serve(endpoint, means()) == 0
    assert [each.said["type"] for each in receiver.got] == [
        "invoice.issued",
        "payment.booked",
        "payment.booked",
        "exception.opened",
        "payment.reversed",
    ]
    assert receiver.ids == receiver.firsts
    assert receiver.connections == 1
    for each in receiver.got:
        assert each.verifies(secret)
        assert set(each.said) == {"type", "timestamp", "data"}
        assert each.said["timestamp"] == "2026-11-18T12:00:00+00:00"
        assert each.headers["Content-Type"] == "application/json"
    booked = receiver.got[1].said["data"]
    assert booked["reference"] == reference
    assert booked["amount"] == "163.52"
    assert booked["payment_id"] == "1"
    assert receiver.paths[0] == "/hook?of=us"


@pytest.mark.parametrize("hang", [False, True])
def test_one_that_fails_holds_the_later_ones_of_its_endpoint_only(
    database: str, monkeypatch: pytest.MonkeyPatch, hang: bool
) -> None:
    monkeypatch.setattr(sending, "ANSWER_SECONDS_MAX", 0.5)
    sender = Sender()
    with receiving() as bad, receiving() as good:
        (failing, secret), _ = an_endpoint(bad.url), an_endpoint(good.url)
        first, second, third = told(3)
        at = f"evt_{failing}_{second}_"
        bad.answer = lambda got: Answer(500, hang=hang) if got.id.startswith(at) else Answer()
        sender.serve_due(means())
        sender.wait()
        assert events_of(good.got) == [first, second, third]
        assert events_of(bad.got) == [first, second]
        error = "no answer within 0.5 s" if hang else "answered 500"
        assert rows_of(database, FEED)[0] == (second - 1, 1, error, 1, 1)
        assert sender.serve_due(means()) == 0
        bad.answer = lambda _: Answer()
        due_again()
        assert serve(failing, means()) == 2
        assert events_of(bad.got) == [first, second, second, third]
        assert bad.got[1].id == bad.got[2].id
        assert all(each.verifies(secret) for each in bad.got)
    assert rows_of(database, FEED)[0] == (third, 0, None, 3, 1)
    assert [row for row in rows_of(database, ATTEMPTS) if row[2]] == [
        (second, None if hang else 500, error)
    ]


def test_no_answer_sends_us_elsewhere_and_none_is_read_to_its_end(database: str) -> None:
    with receiving() as receiver:
        endpoint, _ = an_endpoint(receiver.url)
        elsewhere = {"Location": f"http://127.0.0.1:{receiver.port}/elsewhere"}
        receiver.answer = lambda _: Answer(307, elsewhere)
        told(1)
        assert serve(endpoint, means()) == 0
        assert receiver.paths == ["/hook?of=us"]
        assert rows_of(database, FEED)[0][2] == "answered 307: we follow nobody elsewhere"
        receiver.answer = lambda _: Answer(200, body=b"x" * 1_000_000)
        due_again()
        told(1)
        assert serve(endpoint, means()) == 2
        # One that says so much is left, and the next message takes another connection.
        assert receiver.connections == 3


def test_410_disables_at_once_with_notice_and_nothing_is_lost(database: str) -> None:
    with receiving() as receiver:
        endpoint, _ = an_endpoint(receiver.url)
        receiver.answer = lambda _: Answer(410)
        (first,) = told(1)
        assert serve(endpoint, means()) == 0
        due_again()
        assert serve(endpoint, means()) == 0
        assert len(receiver.got) == 1
        (listed,) = rows_of(database, "SELECT disabled_because FROM webhook_endpoint")
        assert listed == (GONE,)
        assert rows_of(database, NOTICES) == [("endpoint_disabled", f"endpoint:{endpoint}", False)]
        told_of = rows_of(database, "SELECT data ->> 'code' FROM event ORDER BY id DESC LIMIT 1")
        assert told_of == [("endpoint_disabled",)]
        (second,) = told(1)
        receiver.answer = lambda _: Answer()
        change(endpoints.enable, endpoint, by="a test", now=NOON)
        assert serve(endpoint, means()) == 2
        assert events_of(receiver.got) == [first, first, second]
        assert rows_of(database, NOTICES)[0][2] is True


def test_after_the_table_it_is_disabled_and_goes_on_where_it_stopped(database: str) -> None:
    with receiving() as receiver:
        endpoint, _ = an_endpoint(receiver.url)
        receiver.answer = lambda _: Answer(503, {"Retry-After": "7200"})
        (event,) = told(1)
        left = (
            "SELECT CAST(extract(epoch FROM retry_at - clock_timestamp()) AS float)"
            " FROM webhook_walk"
        )
        for attempt, delay in enumerate((*DELAYS[1:], None), start=1):
            due_again()
            assert serve(endpoint, means()) == 0
            ((seconds,),) = rows_of(database, left)
            if delay is not None:
                asked = max(delay, 7200.0)
                assert asked - PATIENCE_SECONDS < seconds <= asked * 1.2, attempt
        assert events_of(receiver.got) == [event] * len(DELAYS)
        ((because,),) = rows_of(database, "SELECT disabled_because FROM webhook_endpoint")
        assert because == "not taken 10 times: answered 503"
        due_again()
        assert serve(endpoint, means()) == 0
        receiver.answer = lambda _: Answer()
        change(endpoints.enable, endpoint, by="a test", now=NOON)
        assert serve(endpoint, means()) == 1
        assert len(set(receiver.ids)) == 1


def test_a_secret_is_rolled_without_a_gap(database: str) -> None:
    with receiving() as receiver:
        endpoint, old = an_endpoint(receiver.url)
        told(1)
        serve(endpoint, means())
        key = means().key
        rolled = change(
            endpoints.roll, endpoint, overlap_hours=24, key=key, made_by="a test", now=NOON
        )
        told(1)
        serve(endpoint, means())
        with transaction() as session:
            end = "UPDATE webhook_secret SET ends_at = clock_timestamp() WHERE ends_at IS NOT NULL"
            execute(session, end)
        told(1)
        serve(endpoint, means())
    verified = [(each.verifies(old), each.verifies(rolled.secret)) for each in receiver.got]
    assert verified == [(True, False), (True, True), (False, True)]
    kept = rows_of(database, "SELECT sealed FROM webhook_secret")
    assert not any(secret[6:].encode() in bytes(row[0]) for row in kept for secret in (old,))


def test_a_secret_rolled_while_a_block_is_sent_costs_no_delay(database: str) -> None:
    """What the receiver refuses meanwhile is signed by both secrets a moment later."""
    with receiving() as receiver:
        endpoint, _ = an_endpoint(receiver.url)
        told(2)
        new: list[str] = []

        def strict(got: Got) -> Answer:
            if not new:
                options = {"overlap_hours": 24, "key": means().key, "made_by": "a test"}
                new.append(change(endpoints.roll, endpoint, now=NOON, **options).secret)
                return Answer()
            return Answer(204 if got.verifies(new[0]) else 401)

        receiver.answer = strict
        assert serve(endpoint, means()) == 2
    assert rows_of(database, FEED)[0][1] == 0


def test_two_senders_send_one_message_at_a_time_and_each_once(database: str) -> None:
    with receiving() as receiver:
        endpoint, _ = an_endpoint(receiver.url)
        events = told(40)
        taken = at_once(*(lambda: serve(endpoint, means()),) * 3)
        while sum(taken) < len(events):
            taken.append(serve(endpoint, means()))
    assert events_of(receiver.got) == events


def test_a_sender_beside_another_moves_nothing(database: str) -> None:
    """As where one lost the connection that holds its right, and goes on all the same."""
    with receiving() as receiver:
        endpoint, _ = an_endpoint(receiver.url)
        first, second = told(2)
        slow = walks.next_block(endpoint, events_max=1)
        assert slow is not None
        assert serve(endpoint, means()) == 2
        with transaction() as session:
            tried = walks.Tried(slow.messages[0], slow.clock(), 1, 204, None)
            assert walks.keep(session, slow, [tried], None, now=NOON) is False
        with alone(f"webhooks.endpoint {endpoint}") as ours:
            assert ours
            told(1)
            assert serve(endpoint, means()) == 0
    assert events_of(receiver.got) == [first, second]
    assert rows_of(database, FEED)[0][0] == second


SENDER = """
    from webhooks.guarded import Reach
    from webhooks.outbound.secrets import sealing_key
    from webhooks.outbound.sending import Means, Sender
    from gateway import process
    from gateway.settings import settings
    process.connect_database()
    means = Means(sealing_key(settings().keys_dir), process.business_clock(), Reach.THIS_MACHINE)
    sender = Sender()
    while True:
        sender.serve_due(means)
        sender.wait()
"""


def test_a_killed_sender_loses_none_and_the_order_holds(database: str) -> None:
    killed: list[int] = []
    with receiving() as receiver:
        endpoint, secret = an_endpoint(receiver.url)
        events = told(1_000)

        def kill_some(got: Got) -> Answer:
            at = len(receiver.got)
            if at in {150, 400}:
                os.kill(running[-1].pid, signal.SIGKILL)
                killed.append(at)
            return Answer()

        receiver.answer = kill_some
        running: list[subprocess.Popen[bytes]] = []
        for _ in range(2):
            running.append(subprocess.Popen([sys.executable, "-c", textwrap.dedent(SENDER)]))
            assert running[-1].wait(PATIENCE_SECONDS) == -signal.SIGKILL
        receiver.answer = lambda _: Answer()
        while rows_of(database, FEED)[0][0] < events[-1]:
            serve(endpoint, means())
        assert len(killed) == 2
        assert all(each.verifies(secret) for each in receiver.got)
    assert len(receiver.got) > len(events)
    first_seen = [int(each.split("_")[2]) for each in receiver.firsts]
    assert first_seen == events


def test_an_endpoint_gets_its_types_only_and_looks_at_nothing_twice(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "RANGE_EVENTS", 7)
    with receiving() as receiver:
        told(10)
        early, _ = an_endpoint(receiver.url, EventType.PLAN_MADE, from_event=1)
        late, _ = an_endpoint(receiver.url, EventType.RECONCILIATION_FINISHED)
        told(20)
        (wanted,) = told(1, EventType.PLAN_MADE)
        last = told(5)[-1]
        assert serve(early, means()) == 1
        assert events_of(receiver.got) == [wanted]
        assert serve(late, means()) == 25
        assert [row[0] for row in rows_of(database, FEED)] == [last, last]


def test_a_span_is_sent_again_in_order_under_the_same_ids(database: str) -> None:
    with receiving() as receiver:
        endpoint, secret = an_endpoint(receiver.url)
        events = told(6)
        serve(endpoint, means())
        before = {each.id: each.body for each in receiver.got}
        receiver.got.clear()
        span = {"first": events[1], "last": events[3], "by": "a test", "now": NOON}
        assert change(endpoints.resend, endpoint, **span) is not None
        told(1)
        assert serve(endpoint, means()) == 4
        again = [each for each in receiver.got if each.id in before]
        assert events_of(again) == events[1:4]
        assert all(each.body == before[each.id] and each.verifies(secret) for each in again)
        beyond = {"first": events[-1] + 9, "last": events[-1] + 99, "by": "a test", "now": NOON}
        assert change(endpoints.resend, endpoint, **beyond) is None
        # A resend that fails waits by itself: what happens meanwhile is told.
        assert change(endpoints.resend, endpoint, **span) is not None
        receiver.answer = lambda got: Answer(500 if got.id in before else 204)
        told(2)
        assert serve(endpoint, means()) == 2
    orders = "SELECT ended_at IS NOT NULL FROM webhook_walk WHERE kind = 'resend' ORDER BY id"
    assert rows_of(database, orders) == [(True,), (False,)]


def test_a_test_is_sent_once_even_to_one_that_is_disabled(database: str) -> None:
    with receiving() as receiver:
        endpoint, secret = an_endpoint(receiver.url)
        because = {"because": "on demand", "now": NOON, "noticed": False}
        assert change(endpoints.disable, endpoint, **because)
        told(1)
        change(endpoints.order_test, endpoint, by="a test", now=NOON)
        receiver.answer = lambda _: Answer(500)
        serve(endpoint, means())
        due_again()
        serve(endpoint, means())
        (got,) = receiver.got
    assert got.said["type"] == "endpoint.test"
    assert got.verifies(secret)
    assert rows_of(database, ATTEMPTS) == [(None, 500, "answered 500")]
    assert rows_of(database, NOTICES) == []


def test_in_production_nothing_goes_to_our_own_network(database: str) -> None:
    with receiving() as receiver:
        endpoint, _ = an_endpoint(receiver.url)
        with transaction() as session:
            local = {"url": f"https://localhost:{receiver.port}/"}
            execute(session, "UPDATE webhook_endpoint SET url = :url", local)
        told(1)
        assert serve(endpoint, means(Reach.INTERNET)) == 0
        assert receiver.connections == 0
    assert rows_of(database, FEED)[0][2] == "the address is not of the open internet"


def test_attempts_are_forgotten_by_age_and_by_number(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "ATTEMPTS_KEPT", 4)
    with receiving() as receiver:
        for _ in range(2):
            endpoint, _secret = an_endpoint(receiver.url)
            told(6)
            serve(endpoint, means())
    with transaction() as session:
        old = "UPDATE webhook_attempt SET attempted_at = clock_timestamp() - interval '40 days'"
        execute(session, f"{old} WHERE id = (SELECT max(id) FROM webhook_attempt)")
        assert walks.forget_attempts(session, days=30) == 5
    kept = "SELECT endpoint_id, count(*) FROM webhook_attempt GROUP BY 1 ORDER BY 1"
    assert [count for _, count in rows_of(database, kept)] == [4, 3]


def test_the_worker_sends_by_the_schedule(database: str) -> None:
    # Its worker reads the broker's address when it is imported.
    from gateway.worker import FORGET_ATTEMPTS, SEND_EVENTS, app
    from webhooks import tasks

    with receiving() as receiver:
        an_endpoint(receiver.url)
        told(1)
        tasks.send_events()
        tasks.sender.wait()
        tasks.forget_attempts()
    assert len(receiver.got) == 1
    scheduled = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert {SEND_EVENTS, FORGET_ATTEMPTS} <= scheduled
    assert process.business_clock()() is not None
