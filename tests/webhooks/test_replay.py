"""Acting again on what we hold: the same effect once, whoever asks for it and however often."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import pytest

from gateway.collection.reports import NotAboutMoney
from gateway.db import execute, snapshot, transaction
from gateway.errors import Unusable
from gateway.exception_queue import resolve_exceptions
from gateway.models import ExceptionCode
from tests.factories import (
    NOON,
    a_delivery,
    a_desk,
    a_provider,
    a_report,
    an_event,
    at_once,
    broken_promises,
    rows_of,
    seal,
    some_invoices,
    the_books,
)
from tests.webhooks.test_inbox import Faulty, deliver_each, make_due, raises
from webhooks import replay
from webhooks.deliveries import Choice
from webhooks.inbox import ATTEMPTS_MAX, Desk, drain
from webhooks.models import DeliveryState
from webhooks.replay import TooWide, count_chosen, drain_replays, order_replay, read_replay

LATER: Final = NOON + timedelta(hours=3)
PARKED: Final = Choice(state=DeliveryState.PARKED)
ALL: Final = Choice(provider="cashplus")
STATES: Final = "SELECT delivery_id, state, outcome FROM webhook_delivery ORDER BY id"


def an_order(choice: Choice, *, why: str = "The adapter was mended") -> int:
    with transaction() as session:
        return order_replay(session, choice, asked_by="k1 (ours)", why=why, now=LATER).id


def replayed(choice: Choice, *, desk: Desk | None = None) -> dict[str, int]:
    """Order a replay and do all of it; return what the deliveries came to."""
    at = an_order(choice)
    drain_replays(desk or a_desk(clock=lambda: LATER), batches_max=99)
    return the_order(at)["outcomes"]  # type: ignore[no-any-return]


def the_order(at: int) -> dict[str, Any]:
    with snapshot() as session:
        found = read_replay(session, at)
    assert found is not None
    return found


def park(database: str, desk: Desk) -> None:
    """Have what fails at a desk fail until it is parked."""
    for _ in range(ATTEMPTS_MAX):
        drain(desk, batches_max=9)
        make_due(database)


def seal_and_check() -> None:
    seal()
    assert broken_promises(deliveries=True) == []


def test_what_is_booked_stays_booked_however_often_it_is_replayed(database: str) -> None:
    references = some_invoices(3)
    deliver_each(references)
    deliver_each(references[:1], amount="1.00")
    drain(a_desk(), batches_max=9)
    before, states = the_books(), rows_of(database, STATES)
    events = rows_of(database, "SELECT count(*) FROM event")
    for _ in range(2):
        assert replayed(ALL) == {"repeated": 4}
        assert (the_books(), rows_of(database, STATES)) == (before, states)
        assert rows_of(database, "SELECT count(*) FROM event") == events
    seal_and_check()


def test_what_is_parked_is_released_and_poison_holds_up_none_of_its_neighbours(
    database: str,
) -> None:
    references = some_invoices(4)
    deliver_each(references[:2])
    a_delivery(b'{"poison": 1}', delivery_id="msg_poison")
    deliver_each(references[2:])
    deliver_each(references[:1], "kiosk", amount="1.00")
    park(database, a_desk(Faulty(b"{", raises(RuntimeError("a fault"))), a_provider("kiosk")))
    assert len(the_books().exceptions) == 5
    seal_and_check()
    at = an_order(PARKED)
    still = a_desk(Faulty(b"poison", raises(KeyError("123456782"))), clock=lambda: LATER)
    assert drain_replays(still, batches_max=99) == 5
    order = the_order(at)
    assert (order["asked_by"], order["why"]) == ("k1 (ours)", "The adapter was mended")
    assert order["chosen_by"] == {"state": "parked"}
    assert (order["chosen"], order["waiting"]) == (5, 0)
    assert order["outcomes"] == {"booked": 4, "failed": 1}
    assert [paid for _, _, paid, _ in the_books().invoices] == [16352] * 4
    assert ("parked_delivery", "delivery:cashplus/msg_poison") in the_books().exceptions
    assert len(the_books().exceptions) == 2
    assert rows_of(
        database,
        "SELECT state, attempts, last_error FROM webhook_delivery WHERE delivery_id = 'msg_poison'",
    ) == [("parked", ATTEMPTS_MAX + 1, "KeyError: '[masked]'")]
    ((reason, more),) = rows_of(
        database,
        "SELECT detail ->> 'reason', detail -> 'more' -> 0 ->> 'reason' FROM coded_exception"
        " WHERE subject = 'delivery:cashplus/msg_poison'",
    )
    assert (reason, more) == ("RuntimeError: a fault", "KeyError: '[masked]'")
    closed = "SELECT DISTINCT resolution, resolved_at FROM coded_exception WHERE resolved_at > %s"
    assert rows_of(database, closed, [NOON]) == [("the delivery was replayed, and acted on", LATER)]
    seal_and_check()
    # Mended at last.
    assert replayed(Choice(delivery_id="msg_poison")) == {"quarantined": 1}
    assert ("unreadable_delivery", "delivery:cashplus/msg_poison") in the_books().exceptions
    assert "parked_delivery" not in {code for code, _ in the_books().exceptions}
    seal_and_check()


def test_a_replay_that_is_cut_off_goes_on_where_it_was(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "BATCH_SIZE", 2)
    deliver_each(some_invoices(5))
    park(database, a_desk(Faulty(b"{", raises(RuntimeError("a fault")))))
    at = an_order(PARKED)
    calls = 0

    def clock() -> datetime:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise SystemExit
        return LATER

    with pytest.raises(SystemExit):
        drain_replays(a_desk(clock=clock), batches_max=99)
    assert the_order(at)["outcomes"] == {"booked": 2}
    seal_and_check()
    assert drain_replays(a_desk(), batches_max=99) == 3
    assert the_order(at)["outcomes"] == {"booked": 5}
    assert len(the_books().transfers) == 5
    seal_and_check()


def test_however_many_replay_the_same_it_is_booked_once(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "BATCH_SIZE", 3)
    references = some_invoices(10)
    deliver_each(references)
    park(database, a_desk(Faulty(b"{", raises(RuntimeError("a fault")))))
    deliver_each(references, amount="1.00")
    orders = [an_order(PARKED), an_order(ALL), an_order(PARKED)]
    work = partial(drain_replays, a_desk(), batches_max=99, wait=True)
    at_once(work, work, work, partial(drain, a_desk(), batches_max=9))
    assert [the_order(at)["waiting"] for at in orders] == [0, 0, 0]
    assert {paid for _, _, paid, _ in the_books().invoices} == {16352}
    assert rows_of(database, "SELECT count(*) FROM payment WHERE status = 'booked'") == [(20,)]
    seal_and_check()


def test_who_fails_at_what_another_has_done_meanwhile_says_nothing(database: str) -> None:
    deliver_each(some_invoices())
    park(database, a_desk(Faulty(b"{", raises(RuntimeError("a fault")))))
    at, calls = an_order(PARKED), 0

    def clock() -> datetime:
        nonlocal calls
        calls += 1
        # In the batch, by itself, and before the failure is noted.
        if calls == 3:
            assert drain_replays(a_desk(), batches_max=9) == 1
        return LATER

    drain_replays(a_desk(Faulty(b"{", raises(RuntimeError("a fault"))), clock=clock), batches_max=9)
    assert calls == 3
    assert the_order(at)["outcomes"] == {"booked": 1}
    assert the_books().exceptions == []
    seal_and_check()


def test_what_a_person_decided_is_not_asked_again(database: str) -> None:
    (reference,) = some_invoices()
    a_delivery(an_event(reference, provider_payment_id="P"))
    a_delivery(an_event(reference, provider_payment_id="P", amount="2.00"))
    a_delivery(an_event(reference, provider_payment_id="Q", currency="EUR"))
    drain(a_desk(), batches_max=9)
    found = the_books().exceptions
    assert {code for code, _ in found} == {"conflicting_payment", "wrong_currency"}
    with transaction() as session:
        for code, subject in found:
            resolve_exceptions(session, ExceptionCode(code), [subject], because="Seen", now=NOON)
    before = the_books()
    assert replayed(ALL) == {"conflicting": 1, "quarantined": 1, "repeated": 1}
    assert the_books() == before
    seal_and_check()


def test_what_could_not_be_booked_is_not_asked_again_after_the_payment_came(database: str) -> None:
    (reference,) = some_invoices()
    a_delivery(an_event(reference, provider_payment_id="Q", currency="EUR"))
    drain(a_desk(), batches_max=9)
    a_delivery(an_event(reference, provider_payment_id="Q"))
    drain(a_desk(), batches_max=9)
    ((code, subject),) = the_books().exceptions
    with transaction() as session:
        resolve_exceptions(session, ExceptionCode(code), [subject], because="Sent anew", now=NOON)
    before = the_books()
    assert replayed(ALL) == {"conflicting": 1, "repeated": 1}
    assert the_books() == before
    seal_and_check()


@pytest.mark.parametrize("why", [" ", "a\nb", "x" * 501, "Asked by 123456782", "call 0612345678"])
def test_a_reason_that_cannot_be_kept_is_refused(database: str, why: str) -> None:
    with pytest.raises(Unusable, match="kept"):
        an_order(ALL, why=why)
    assert rows_of(database, "SELECT count(*) FROM webhook_replay") == [(0,)]


def test_what_an_adapter_did_not_understand_is_booked_once_it_does(database: str) -> None:
    (reference,) = some_invoices()
    a_delivery(an_event(reference))
    drain(a_desk(Faulty(b"{", lambda: NotAboutMoney("a fault"))), batches_max=9)
    assert the_books().payments == []
    assert replayed(Choice(outcome="ignored")) == {"booked": 1}
    assert replayed(Choice(outcome="booked")) == {"repeated": 1}
    assert rows_of(database, "SELECT outcome, processed_at FROM webhook_delivery") == [
        ("booked", LATER)
    ]
    seal_and_check()


def test_a_delivery_that_booked_a_payment_never_books_another(database: str) -> None:
    first, second = some_invoices(2)
    a_delivery(an_event(first))
    drain(a_desk(), batches_max=9)
    before, states = the_books(), rows_of(database, STATES)
    otherwise = a_desk(Faulty(b"{", lambda: a_report(second, provider_payment_id="Q")))
    assert replayed(ALL, desk=otherwise) == {"conflicting": 1}
    assert (the_books(), rows_of(database, STATES)) == (before, states)


def test_what_its_sender_was_told_stands(database: str) -> None:
    for outcome in ("booked", "declined_nothing_due"):
        a_delivery(b"{}", delivery_id=outcome)
    with transaction() as session:
        execute(
            session,
            "UPDATE webhook_delivery SET state = 'done', processed_at = received_at,"
            " outcome = delivery_id",
        )
        execute(
            session,
            "INSERT INTO webhook_answer (delivery_pk, status, media_type, body, answered_at)"
            " SELECT id, 200, 'text/plain', '', received_at FROM webhook_delivery",
        )
    before = rows_of(database, STATES)
    # Its dialect is not even asked.
    desk = a_desk(Faulty(b"{", raises(AssertionError("decided anew"))))
    assert replayed(ALL, desk=desk) == {"answer_stands": 1, "repeated": 1}
    assert rows_of(database, STATES) == before


def test_what_waits_is_acted_on_at_once_and_stays_in_line_if_it_fails(database: str) -> None:
    (reference,) = some_invoices()
    deliver_each([reference])
    faulty = a_desk(Faulty(b"{", raises(RuntimeError("a fault"))))
    drain(faulty, batches_max=1)
    waiting = Choice(state=DeliveryState.WAITING)
    assert replayed(waiting, desk=faulty) == {"failed": 1}
    assert rows_of(database, "SELECT state, attempts FROM webhook_delivery") == [("waiting", 1)]
    assert replayed(waiting) == {"booked": 1}
    seal_and_check()


def test_deliveries_of_a_provider_that_is_switched_off_wait(database: str) -> None:
    deliver_each(some_invoices(), "cashplus", "gone", amount="1.00")
    drain(a_desk(a_provider(), a_provider("gone")), batches_max=9)
    at = an_order(Choice(received_from=NOON))
    assert drain_replays(a_desk(), batches_max=9) == 1
    assert the_order(at)["waiting"] == 1
    assert drain_replays(a_desk(a_provider("gone")), batches_max=9) == 1


def test_a_filter_chooses_what_fits_all_of_it(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_delivery(b"{}", delivery_id="a")
    a_delivery(b"{}", delivery_id="b/c", received_at=LATER)
    a_delivery(b"{}", delivery_id="a", provider="kiosk")
    park(database, a_desk(Faulty(b"{", raises(RuntimeError("a fault")))))

    def count(**chosen: Any) -> int:
        with snapshot() as session:
            return count_chosen(session, Choice(**chosen))

    assert count(provider="cashplus") == count(state=DeliveryState.PARKED) == 2
    assert count(delivery_id="a") == count(received_before=LATER) == 2
    assert count(delivery_id="b/c", received_from=LATER, state=DeliveryState.PARKED) == 1
    assert count(state=DeliveryState.WAITING) == 1
    assert count(outcome="booked") == 0
    monkeypatch.setattr(replay, "CHOSEN_MAX", 1)
    for wide in ({}, {"provider": "cashplus"}):
        with pytest.raises(TooWide):
            count(**wide)


def test_what_was_done_meanwhile_is_not_parked(database: str) -> None:
    """A replay has it between the failure and the parking."""
    deliver_each(some_invoices())
    faulty = a_desk(Faulty(b"{", raises(RuntimeError("a fault"))))
    for _ in range(ATTEMPTS_MAX - 1):
        drain(faulty, batches_max=1)
        make_due(database)

    class Slow(RuntimeError):
        def __str__(self) -> str:
            assert replayed(Choice(state=DeliveryState.WAITING)) == {"booked": 1}
            return "a fault"

    drain(a_desk(Faulty(b"{", raises(Slow()))), batches_max=1)
    assert the_books().exceptions == []
    seal_and_check()
