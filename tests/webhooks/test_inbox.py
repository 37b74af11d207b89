"""The inbox is the queue: each delivery acted on once, by whoever comes, in the order they came."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from threading import Event
from typing import Any, Final

import psycopg
import pytest

from gateway import process
from gateway.collection.payments import record_reports
from gateway.collection.reports import NotAboutMoney, Report
from gateway.db import execute, transaction
from gateway.money import format_amount
from gateway.providers import WebhookProvider
from gateway.worker import COLLECT_AFTER
from tests.factories import (
    NOON,
    PATIENCE_SECONDS,
    a_delivery,
    a_desk,
    a_provider,
    a_report,
    an_event,
    at_once,
    balances,
    broken_promises,
    record,
    rows_of,
    seal,
    some_invoices,
    the_books,
)
from webhooks import inbox
from webhooks.inbox import ATTEMPTS_MAX, BATCH_SIZE, drain

DUE: Final = 16352
WAITING: Final = "SELECT count(*) FROM webhook_delivery WHERE state = 'waiting'"


class Faulty:
    """A provider whose parser has a fault: it fails, or returns what no database can hold."""

    name = "cashplus"

    def __init__(self, poison: bytes, fault: Callable[[], Report]) -> None:
        self._poison = poison
        self._fault = fault
        self._honest = a_provider()

    def authenticate(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> str:
        return self._honest.authenticate(headers, body, now=now)

    def parse(
        self,
        body: bytes,
        *,
        delivery_id: str,
        received_at: datetime,
        path: str = "",  # noqa: ARG002
    ) -> Report:
        if self._poison in body:
            return self._fault()
        return self._honest.parse(body, delivery_id=delivery_id, received_at=received_at)

    def unsafe_in_production(self) -> list[str]:
        return []


def raises(error: Exception) -> Callable[[], Report]:
    def fail() -> Report:
        raise error

    return fail


def deliver_each(references: list[str], *providers: str, **values: Any) -> list[str]:
    """Store a delivery of each provider for each invoice, mixed; return their ids."""
    return [
        a_delivery(an_event(reference, **values), provider=provider)
        for reference in references
        for provider in providers or ("cashplus",)
    ]


def make_due(database: str) -> None:
    """Let the time pass until all that was put off is due."""
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE webhook_delivery SET retry_at = clock_timestamp()")


def seal_and_check() -> None:
    seal()
    assert broken_promises(deliveries=True) == []


def attempts_of(database: str) -> list[tuple[Any, ...]]:
    return rows_of(
        database,
        "SELECT state, attempts FROM webhook_delivery WHERE attempts > 0 ORDER BY id",
    )


# -- many who drain -------------------------------------------------------------------------------


@pytest.mark.parametrize("drainers", [2, 4])
def test_however_many_drain_each_delivery_is_acted_on_once(
    database: str, monkeypatch: pytest.MonkeyPatch, drainers: int
) -> None:
    monkeypatch.setattr(inbox, "BATCH_SIZE", 25)
    names = ("bank", "card", "cashplus", "kiosk")
    deliver_each(some_invoices(75), *names, amount="40.88")
    desk = a_desk(*map(a_provider, names))

    def drain_until_done() -> int:
        done = 0
        while rows_of(database, WAITING) != [(0,)]:
            done += drain(desk, batches_max=50)
        return done

    # Nothing is done twice: what all say they did together is what there was.
    assert sum(at_once(*[drain_until_done] * drainers)) == 300
    books = the_books()
    assert {invoice[2:] for invoice in books.invoices} == {(DUE, "paid")}
    assert len(books.transfers) == 300
    assert balances()["payable:institution"] == -75 * DUE
    assert rows_of(database, "SELECT DISTINCT outcome, attempts FROM webhook_delivery") == [
        ("booked", 0)
    ]
    seal_and_check()


def test_one_payment_told_by_hundreds_of_deliveries_is_booked_once(database: str) -> None:
    (reference,) = some_invoices()
    deliver_each([reference] * 300, provider_payment_id="P")
    assert sum(at_once(*[partial(drain, a_desk(), batches_max=9)] * 3)) == 300
    assert balances() == {"clearing:cashplus": DUE, "payable:institution": -DUE}
    assert rows_of(
        database, "SELECT outcome, count(*) FROM webhook_delivery GROUP BY 1 ORDER BY 1"
    ) == [("booked", 1), ("repeated", 299)]
    seal_and_check()


def test_deliveries_of_a_provider_are_acted_on_in_the_order_they_were_stored(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "BATCH_SIZE", 3)
    (reference,) = some_invoices()
    amounts = [100 + n for n in range(10)]
    for minor in amounts:
        # Of one payment told ten times with other money, only the first is booked.
        a_delivery(an_event(reference, provider_payment_id="P", amount=format_amount(minor)))
    for minor in amounts:
        a_delivery(an_event(reference, amount=format_amount(minor)))
    assert drain(a_desk(), batches_max=99) == 20
    ordered = rows_of(database, "SELECT amount_minor FROM ledger_transfer ORDER BY id")
    assert [minor for (minor,) in ordered] == [100, *amounts]
    seal_and_check()


def test_a_batch_reads_no_more_of_a_rush_than_it_takes(database: str) -> None:
    """Though the planner's figures are of a quiet hour: it would read all that waits, and sort."""
    with psycopg.connect(database, autocommit=True) as connection:

        def store(name: str, many: int, *, done: bool) -> None:
            connection.execute(
                "INSERT INTO webhook_delivery (provider, delivery_id, body, body_sha256,"
                " received_at, state, outcome)"
                " SELECT (ARRAY['bank', 'cashplus', 'kiosk'])[mod(n, 3) + 1],"
                " %s || n, repeat('x', 200)::bytea, sha256(''), now(), %s, %s"
                " FROM generate_series(1, %s) AS n",
                [name, *(("done", "ignored") if done else ("waiting", None)), many],
            )

        store("old", 9_000, done=True)
        store("quiet", 600, done=False)
        connection.execute("ANALYZE webhook_delivery")
        store("rush", 9_000, done=False)
    with transaction() as session:
        assert len(inbox._claim(session, "cashplus", 300)) == 300
        read = execute(
            session,
            "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_xact_user_tables"
            " WHERE relname = 'webhook_delivery'",
        ).scalar_one()
    assert read < 1_000


def test_while_one_acts_on_a_provider_another_leaves_it_alone_and_takes_the_next(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the second half of a provider's deliveries could be booked before the first."""
    monkeypatch.setattr(inbox, "BATCH_SIZE", 2)
    references = some_invoices(6)
    deliver_each(references, "cashplus", amount="1.00")
    deliver_each(references, "kiosk", amount="2.00")
    begun, go_on = Event(), Event()

    def slowly() -> Report:
        begun.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return NotAboutMoney("it took long")

    def another() -> int:
        assert begun.wait(PATIENCE_SECONDS)
        try:
            return drain(a_desk(a_provider(), a_provider("kiosk")), batches_max=9)
        finally:
            go_on.set()

    slow = a_desk(Faulty(references[0].encode(), slowly))
    assert at_once(partial(drain, slow, batches_max=9), another) == [6, 6]
    seal_and_check()


def test_draining_an_empty_inbox_does_nothing(database: str) -> None:
    before = the_books()
    assert drain(a_desk(), batches_max=9) == 0
    assert the_books() == before


def test_draining_again_does_nothing_again(database: str) -> None:
    deliver_each(some_invoices(3))
    assert drain(a_desk(), batches_max=9) == 3
    before = the_books()
    assert drain(a_desk(), batches_max=9) == 0
    assert the_books() == before


# -- poison ---------------------------------------------------------------------------------------

FAULTS: Final = [
    pytest.param(raises(RuntimeError("a fault")), id="the parser raises"),
    pytest.param(raises(ValueError("NUL \x00 in a text")), id="it raises with a NUL"),
    pytest.param(raises(ValueError("\ud800")), id="it raises with half a character"),
    pytest.param(raises(KeyError()), id="it raises without a word"),
    pytest.param(lambda: a_report("1", terminal_id="\x00"), id="a NUL in a text"),
    pytest.param(lambda: a_report("1", terminal_id="\ud800"), id="half a character in a text"),
    pytest.param(lambda: a_report("1", amount_minor=10**13), id="an amount beyond the limit"),
    pytest.param(lambda: a_report("1", amount_minor=10**30), id="an amount beyond all limits"),
    pytest.param(lambda: a_report("1", amount_minor=0), id="no amount"),
    pytest.param(lambda: a_report("1", currency="EUR"), id="another currency"),
    pytest.param(lambda: a_report("1", fee_minor=-1), id="a negative fee"),
    pytest.param(lambda: a_report("x\x00"), id="a NUL in what a person is told"),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_poisoned_delivery_holds_up_none_of_its_neighbours(
    database: str, fault: Callable[[], Report]
) -> None:
    references = some_invoices(6)
    deliver_each(references[:3])
    a_delivery(b'{"poison": 1}', delivery_id="msg_poison")
    deliver_each(references[3:])
    deliver_each(references, "kiosk", amount="1.00")
    desk = a_desk(Faulty(b"poison", fault), a_provider("kiosk"))
    assert drain(desk, batches_max=9) == 12
    assert {invoice[2:] for invoice in the_books().invoices} == {(DUE, "paid")}
    assert attempts_of(database) == [("waiting", 1)]
    seal_and_check()


def test_a_poisoned_delivery_among_many_is_found_in_a_few_steps(database: str) -> None:
    (reference,) = some_invoices()
    deliver_each([reference] * 47, amount="1.00")
    a_delivery(b'{"poison": 1}', delivery_id="msg_poison")
    deliver_each([reference] * 52, amount="1.00")
    desk = a_desk(Faulty(b"poison", raises(RuntimeError("a fault"))))
    assert drain(desk, batches_max=1) == 99
    assert attempts_of(database) == [("waiting", 1)]
    # Nine parts of ten, and the nine beside it in the tenth: each a batch of the books.
    assert rows_of(database, "SELECT count(*) FROM ledger_batch") == [(18,)]
    ordered = rows_of(database, "SELECT source FROM payment ORDER BY id")
    assert ordered == rows_of(
        database,
        "SELECT 'delivery:' || provider || '/' || delivery_id FROM webhook_delivery"
        " WHERE state = 'done' ORDER BY id",
    )
    seal_and_check()


def test_when_the_time_is_over_no_other_batch_is_begun(database: str) -> None:
    deliver_each(some_invoices(3))
    assert drain(a_desk(), batches_max=9, seconds=0) == 0
    assert rows_of(database, WAITING) == [(3,)]


def test_a_poisoned_delivery_is_tried_again_at_growing_distance_and_parked_in_the_end(
    database: str,
) -> None:
    a_delivery(b'{"poison": 1}', delivery_id="msg_poison")
    desk = a_desk(Faulty(b"poison", raises(RuntimeError("a fault"))))
    distances = []
    for attempt in range(1, ATTEMPTS_MAX + 1):
        assert drain(desk, batches_max=9) == 0
        # Not due yet: whoever comes meanwhile leaves it alone.
        assert drain(desk, batches_max=9) == 0
        ((state, attempts, seconds, said),) = rows_of(
            database,
            "SELECT state, attempts, extract(epoch FROM retry_at - clock_timestamp())::float8,"
            " last_error FROM webhook_delivery",
        )
        assert (attempts, said) == (attempt, "RuntimeError: a fault")
        assert state == ("waiting" if attempt < ATTEMPTS_MAX else "parked")
        distances.append(seconds)
        make_due(database)
    assert all(later > 1.5 * sooner for sooner, later in pairwise(distances))
    assert drain(desk, batches_max=9) == 0
    assert attempts_of(database) == [("parked", ATTEMPTS_MAX)]
    assert the_books().exceptions == [("parked_delivery", "delivery:cashplus/msg_poison")]
    seal_and_check()


def test_a_fault_that_is_mended_in_time_is_made_good(database: str) -> None:
    (reference,) = some_invoices()
    deliver_each([reference])
    faulty = a_desk(Faulty(b"completed", raises(RuntimeError("a fault"))))
    assert drain(faulty, batches_max=9) == 0
    make_due(database)
    assert drain(a_desk(), batches_max=9) == 1
    assert the_books().invoices == [(reference, DUE, DUE, "paid")]
    assert attempts_of(database) == [("done", 1)]
    seal_and_check()


def test_deliveries_of_a_provider_that_is_switched_off_wait_and_hold_up_nobody(
    database: str,
) -> None:
    first, second = some_invoices(2)
    deliver_each([first], "gone")
    deliver_each([second], "cashplus")
    for _ in range(ATTEMPTS_MAX + 1):
        drain(a_desk(), batches_max=9)
        make_due(database)
    assert [row[2] for row in the_books().invoices if row[0] == second] == [DUE]
    assert drain(a_desk(a_provider("gone")), batches_max=9) == 1
    assert {row[2] for row in the_books().invoices} == {DUE}
    seal_and_check()


def test_a_delivery_that_another_did_meanwhile_is_not_put_off(database: str) -> None:
    """Whoever failed must not take a delivery back that succeeded in other hands."""
    (reference,) = some_invoices()
    deliver_each([reference])

    class AnotherComesMeanwhile(Exception):
        def __str__(self) -> str:
            # Asked for when the failed try is over and what becomes of it is written down.
            drain(a_desk(), batches_max=9)
            return "too late"

    drain(a_desk(Faulty(b"completed", raises(AnotherComesMeanwhile()))), batches_max=9)
    assert rows_of(database, "SELECT state, outcome FROM webhook_delivery") == [("done", "booked")]
    assert the_books().invoices == [(reference, DUE, DUE, "paid")]
    seal_and_check()


def test_a_drain_that_fails_in_the_middle_of_a_batch_leaves_no_half_of_it(database: str) -> None:
    references = some_invoices(4)
    deliver_each(references)
    before = the_books()
    calls = 0

    def clock() -> datetime:
        nonlocal calls
        calls += 1
        raise SystemExit  # As a signal would: not an Exception that the inbox may catch.

    with pytest.raises(SystemExit):
        drain(a_desk(clock=clock), batches_max=9)
    assert (calls, the_books()) == (1, before)
    assert drain(a_desk(), batches_max=9) == 4
    seal_and_check()


# -- variants -------------------------------------------------------------------------------------


def a_variant(body: bytes, delivery_id: str, *, readable: bool = True) -> None:
    """Store another body under a delivery's id, as the intake does."""
    with transaction() as session:
        execute(
            session,
            "INSERT INTO webhook_variant (provider, delivery_id, body, body_sha256, readable,"
            " received_at) VALUES ('cashplus', :id, :body, :sha256, :readable, :at)",
            {
                "id": delivery_id,
                "body": body,
                "sha256": hashlib.sha256(body).digest(),
                "readable": readable,
                "at": NOON,
            },
        )


def test_a_variant_moves_no_money_whatever_it_says(database: str) -> None:
    (reference,) = some_invoices()
    delivery = a_delivery(an_event(reference, provider_payment_id="P", amount="1.00"))
    assert drain(a_desk(), batches_max=9) == 1
    before = the_books()
    a_variant(an_event(reference, provider_payment_id="P", amount="2.00"), delivery)
    a_variant(an_event(reference, provider_payment_id="Q", amount="3.00"), delivery)
    a_variant(b"no json", delivery, readable=False)
    at_once(*[partial(drain, a_desk(), batches_max=9)] * 3)
    after = the_books()
    assert (after.transfers, after.payments, after.invoices) == (
        before.transfers,
        before.payments,
        before.invoices,
    )
    assert after.exceptions == [
        ("conflicting_delivery", f"delivery:cashplus/{delivery}"),
        ("unreadable_delivery", f"delivery:cashplus/{delivery}"),
    ]
    assert rows_of(database, "SELECT count(*) FROM webhook_variant WHERE processed_at IS NULL") == [
        (0,)
    ]


@pytest.mark.parametrize("fault", FAULTS[:4])
def test_a_variant_that_the_parser_fails_on_holds_up_neither_money_nor_its_neighbours(
    database: str, fault: Callable[[], Report]
) -> None:
    references = some_invoices(3)
    provider: WebhookProvider = Faulty(b"poison", fault)
    first, second = deliver_each(references[:2])
    a_variant(b'{"poison": 1}', first)
    a_variant(an_event(references[1], amount="9.00"), second)
    assert drain(a_desk(provider), batches_max=9) >= 3
    deliver_each(references[2:])
    drain(a_desk(provider), batches_max=9)
    assert {row[2] for row in the_books().invoices} == {DUE}
    assert ("conflicting_delivery", f"delivery:cashplus/{second}") in the_books().exceptions
    seal_and_check()


@pytest.mark.parametrize("written", ["\ud800", "\x00", "1" * 300])
def test_a_variant_whose_money_is_no_text_holds_up_none_of_its_neighbours(
    database: str, written: str
) -> None:
    references = some_invoices(2)
    first, second = deliver_each(references)
    a_variant(an_event(references[0], amount=written), first)
    a_variant(an_event(references[1], amount="9.00"), second)
    drain(a_desk(), batches_max=9)
    assert {at for code, at in the_books().exceptions if code == "conflicting_delivery"} == {
        f"delivery:cashplus/{first}",
        f"delivery:cashplus/{second}",
    }
    seal_and_check()


def test_why_a_delivery_failed_names_nobody(database: str) -> None:
    def fault() -> Report:
        raise ValueError("no person 123456782")

    a_delivery(b'{"poison": 1}')
    drain(a_desk(Faulty(b"poison", fault)), batches_max=1)
    assert rows_of(database, "SELECT last_error FROM webhook_delivery") == [
        ("ValueError: no person [masked]",)
    ]


def test_deliveries_that_came_late_are_booked_by_the_day_the_provider_says(database: str) -> None:
    (reference,) = some_invoices()
    late = NOON + timedelta(days=20)
    a_delivery(an_event(reference), received_at=late)
    assert drain(a_desk(clock=lambda: late), batches_max=9) == 1
    assert rows_of(database, "SELECT paid_at, recorded_at FROM payment") == [(NOON, late)]
    assert the_books().exceptions == []
    seal_and_check()


def test_a_whole_batch_is_less_than_the_worker_looks_for_garbage_after(database: str) -> None:
    references = some_invoices(200)
    record(*map(a_report, references[:100]))
    reports = [a_report(reference) for reference in references[100:]]
    held: list[int] = []
    gc.collect()
    gc.disable()
    try:
        with transaction() as session:
            record_reports(
                session,
                reports,
                key=process.signing_key(),
                now=NOON,
                decided=lambda _: held.append(gc.get_count()[0]),
            )
    finally:
        gc.enable()
    assert BATCH_SIZE * held[0] / len(reports) < COLLECT_AFTER
