"""Refunds and disputes in the books of a real database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import permutations
from threading import Thread
from typing import Final

import pytest
from sqlalchemy.exc import DBAPIError

from gateway import process
from gateway.books import ledger
from gateway.books.accounts import PAYABLE, Posting
from gateway.collection.reports import AttemptLapsed, PaymentReport, Report, ReturnReport, Statement
from gateway.db import execute, snapshot, transaction
from gateway.errors import TransferMismatch
from gateway.events import FEED, Happening, take_the_end_of_the_feed, tell
from gateway.exception_queue import resolve_exceptions, resolved_events
from gateway.models import EventType, ExceptionCode, ReturnKind, ReturnState
from gateway.receipts import ReceiptStanding, issue_all, of_invoice
from reconciliation.runs import reconcile
from tests.factories import (
    NOON,
    a_report,
    a_return,
    at_once,
    balances,
    broken_promises,
    record,
    rows_of,
    seal,
    some_invoices,
    the_books,
)

DUE: Final = 16352
LATER: Final = NOON + timedelta(minutes=5)


def a_refund(amount_minor: int, named: str = "re_1", **values: object) -> ReturnReport:
    return a_return("P1", amount_minor, return_id=named, kind=ReturnKind.REFUND, **values)


def a_dispute(amount_minor: int, **values: object) -> ReturnReport:
    values = {"detail": (("reason", "fraudulent"),), **values}
    return a_return("P1", amount_minor, return_id="dp_1", kind=ReturnKind.DISPUTE, **values)


def paid(amount_minor: int = DUE) -> tuple[str, PaymentReport]:
    """Return an invoice's reference and the report of a payment for it, not booked yet."""
    (reference,) = some_invoices()
    return reference, a_report(reference, provider_payment_id="P1", amount_minor=amount_minor)


def open_codes() -> list[tuple[str, str]]:
    return the_books().exceptions


def seal_and_check() -> None:
    issue_all(process.receipt_keys(), lambda: NOON)
    seal()
    assert broken_promises() == []


def test_a_part_is_given_back_and_the_invoice_is_due_again(database: str) -> None:
    reference, payment = paid()
    assert record(payment, a_return("P1", 5000)) == ["booked", "returned"]
    assert the_books().invoices == [(reference, DUE, DUE - 5000, "part_paid")]
    assert balances() == {"clearing:cashplus": DUE - 5000, "payable:institution": 5000 - DUE}
    assert record(a_return("P1", 5000)) == ["repeated"]
    seal_and_check()


def test_a_refund_told_of_in_two_ways_is_given_back_once(database: str) -> None:
    reference, payment = paid()
    record(payment)
    assert record(a_refund(5000), a_return("P1", 5000)) == ["returned", "noted"]
    assert the_books().invoices == [(reference, DUE, DUE - 5000, "part_paid")]
    seal_and_check()


def test_the_whole_order_of_arrival_does_not_matter(database: str) -> None:
    """Payment, refunds by id and as a sum, one that fails: one end, whichever came first."""
    minute = timedelta(minutes=1)
    ends = []
    for order in permutations(range(4)):
        (reference,) = some_invoices()
        of = f"P{reference}"
        reports: list[Report] = [
            a_report(reference, provider_payment_id=of),
            a_return(of, 5000, kind=ReturnKind.REFUND, return_id=f"re_{of}"),
            a_return(of, 7000, stated_at=NOON + 2 * minute),
            a_return(
                of,
                5000,
                kind=ReturnKind.REFUND,
                return_id=f"re_{of}",
                state=ReturnState.RESTORED,
                made_at=NOON + minute,
                stated_at=NOON + 3 * minute,
            ),
        ]
        for at in order:
            record(reports[at])
        row = rows_of(
            database,
            "SELECT p.returned_minor, p.status, i.paid_minor FROM payment p"
            " JOIN invoice i ON i.id = p.invoice_id WHERE provider_payment_id = %s",
            (of,),
        )
        ends.append(row)
    assert ends == [[(2000, "booked", DUE - 2000)]] * 24
    assert open_codes() == []
    seal_and_check()


def test_credit_is_given_back_before_what_was_owed(database: str) -> None:
    reference, payment = paid(20_000)
    record(payment, a_return("P1", 3648))
    assert the_books().invoices == [(reference, DUE, DUE, "paid")]
    record(a_return("P1", 4648, stated_at=LATER))
    assert the_books().invoices == [(reference, DUE, DUE - 1000, "part_paid")]
    seal_and_check()


def test_nobody_is_asked_about_credit_that_was_given_back(database: str) -> None:
    """And somebody is again once it comes back, in one batch too."""
    overpaid = [("overpaid", "payment:cashplus/P1")]
    reference, payment = paid(20_000)
    record(payment, a_return("P1", 1_000))
    assert open_codes() == overpaid
    record(a_return("P1", 3_648, stated_at=LATER))
    assert open_codes() == []
    restored = a_return("P1", 3_000, stated_at=LATER + timedelta(minutes=1))
    record(a_return("P1", 5_000, stated_at=LATER + timedelta(seconds=1)), restored)
    assert open_codes() == overpaid
    gone = a_report(
        reference,
        provider_payment_id="P1",
        amount_minor=20_000,
        statement=Statement.REVERSED,
        stated_at=LATER + timedelta(minutes=2),
    )
    record(gone)
    assert open_codes() == []
    why = rows_of(database, "SELECT resolution FROM coded_exception")
    assert why == [("its money was given back",)] * 2
    seal_and_check()


def test_never_more_than_was_brought(database: str) -> None:
    reference, payment = paid()
    record(payment, a_refund(10_000), a_dispute(DUE))
    assert the_books().invoices == [(reference, DUE, 0, "open")]
    assert {code for code, _ in open_codes()} == {"over_returned", "payment_disputed"}
    assert set(balances().values()) == {0}
    seal_and_check()


def test_a_return_that_comes_first_waits_for_its_payment(database: str) -> None:
    reference, payment = paid()
    assert record(a_return("P1", 5000)) == ["noted"]
    assert open_codes() == [("return_without_payment", "payment:cashplus/P1")]
    assert record(payment) == ["booked"]
    assert open_codes() == []
    assert the_books().invoices == [(reference, DUE, DUE - 5000, "part_paid")]
    seal_and_check()


def test_a_dispute_is_a_persons_matter_until_it_ends(database: str) -> None:
    reference, payment = paid()
    record(payment, a_dispute(DUE, state=ReturnState.ANNOUNCED))
    assert open_codes() == [("payment_disputed", "dispute:cashplus/dp_1")]
    assert the_books().invoices == [(reference, DUE, DUE, "paid")]
    issue_all(process.receipt_keys(), lambda: NOON)
    with snapshot() as session:
        (receipt,) = of_invoice(session, reference)
    assert (receipt.standing, receipt.disputed) == (ReceiptStanding.STANDS, True)
    assert record(a_dispute(DUE, stated_at=LATER)) == ["returned"]
    assert the_books().invoices == [(reference, DUE, 0, "open")]
    won = a_dispute(
        DUE, state=ReturnState.RESTORED, outcome="won", stated_at=LATER + timedelta(minutes=1)
    )
    assert record(won) == ["returned"]
    assert open_codes() == []
    assert the_books().invoices == [(reference, DUE, DUE, "paid")]
    assert record(won) == ["repeated"]
    assert open_codes() == []
    seal_and_check()


def test_money_that_comes_back_to_a_paid_invoice_is_credit(database: str) -> None:
    reference, payment = paid()
    record(payment, a_refund(DUE))
    record(a_report(reference, provider_payment_id="P2"))
    failed = a_refund(DUE, state=ReturnState.RESTORED, made_at=NOON, stated_at=LATER)
    assert record(failed) == ["returned"]
    assert the_books().invoices == [(reference, DUE, DUE, "paid")]
    assert [code for code, _ in open_codes()] == ["paid_twice"]
    seal_and_check()


def test_a_reversal_after_a_refund_takes_back_the_rest_only(database: str) -> None:
    reference, payment = paid()
    record(payment, a_return("P1", 5000))
    gone = a_report(
        reference,
        provider_payment_id="P1",
        statement=Statement.REVERSED,
        stated_at=LATER,
    )
    assert record(gone) == ["reversed"]
    assert the_books().invoices == [(reference, DUE, 0, "open")]
    assert set(balances().values()) <= {0}
    assert record(a_return("P1", 9000, stated_at=LATER)) == ["noted"]
    assert set(balances().values()) <= {0}
    seal_and_check()


def test_money_in_suspense_is_given_back_from_there(database: str) -> None:
    record(a_report("148275036142", provider_payment_id="P1"), a_return("P1", 5000))
    assert balances() == {"clearing:cashplus": DUE - 5000, "suspense:unidentified": 5000 - DUE}
    seal_and_check()


def test_the_receipt_says_what_is_left(database: str) -> None:
    reference, payment = paid()
    record(payment)
    issue_all(process.receipt_keys(), lambda: NOON)
    seen = []
    for minute, amount in enumerate((0, 5000, DUE), start=1):
        record(a_return("P1", amount, stated_at=NOON + timedelta(minutes=minute)))
        with snapshot() as session:
            (receipt,) = of_invoice(session, reference)
        seen.append((receipt.standing, receipt.counted_minor, receipt.credit_minor))
    assert seen == [
        (ReceiptStanding.STANDS, DUE, 0),
        (ReceiptStanding.REDUCED, DUE - 5000, 0),
        (ReceiptStanding.REVERSED, 0, 0),
    ]
    seal_and_check()


def test_eight_refunds_at_once_are_all_given_back(database: str) -> None:
    reference, payment = paid()
    record(payment)
    refunds = [a_refund(1000, f"re_{n}") for n in range(8)]
    assert at_once(*(partial(record, each) for each in refunds)) == [["returned"]] * 8
    assert the_books().invoices == [(reference, DUE, DUE - 8000, "part_paid")]
    seal_and_check()


def test_the_check_of_the_books_sees_returns_that_were_changed(database: str) -> None:
    _, payment = paid()
    record(payment, a_return("P1", 5000))
    seal_and_check()
    with transaction() as session:
        execute(session, "UPDATE payment_return SET amount_minor = 4000")
    assert [b.what for b in broken_promises()] == [
        "a payment gives back other than its returns say"
    ]


def test_the_same_refund_with_another_amount_is_a_conflict(database: str) -> None:
    _, payment = paid()
    record(payment, a_refund(5000))
    assert record(a_refund(6000)) == ["conflicting"]
    assert open_codes() == [("conflicting_payment", "payment:cashplus/P1")]
    assert balances()["payable:institution"] == 5000 - DUE
    seal_and_check()


def test_a_return_is_of_the_payment_it_was_first_told_of(database: str) -> None:
    """Under another payment it moves nothing, on neither side, in one batch or in two."""
    reference, payment = paid()
    record(payment, a_report(reference, provider_payment_id="P2"))
    foreign = a_return("P2", 7000, return_id="re_1", kind=ReturnKind.REFUND)
    assert record(a_refund(5000), foreign) == ["returned", "conflicting"]
    assert record(foreign, a_refund(5000)) == ["conflicting", "repeated"]
    assert ("conflicting_payment", "payment:cashplus/P2") in open_codes()
    record(a_dispute(1000))
    record(a_return("P2", 1000, return_id="dp_1", kind=ReturnKind.DISPUTE, outcome="won"))
    assert ("payment_disputed", "dispute:cashplus/dp_1") in open_codes()
    rows = rows_of(database, "SELECT provider_payment_id, returned_minor FROM payment ORDER BY 1")
    assert rows == [("P1", 6000), ("P2", 0)]
    seal_and_check()


def test_names_of_transfers_never_meet_those_of_other_payments(database: str) -> None:
    """A provider's ids may hold anything, also what looks like the end of a name."""
    reference, payment = paid()
    other = "P1/invoice/refund/1"
    record(a_report(reference, provider_payment_id=other, amount_minor=100))
    assert record(payment, a_refund(5000)) == ["booked", "returned"]
    failed = a_refund(5000, state=ReturnState.RESTORED, made_at=NOON, stated_at=LATER)
    assert record(failed) == ["returned"]
    ends = ("refund/1", "refund_failed/2", "invoice/refund_failed/2", "invoice/reversed", "credit")
    for end in ends:
        assert record(a_report(reference, provider_payment_id=f"P1/{end}", amount_minor=50)) == [
            "booked"
        ]
    seal_and_check()


def test_a_transfer_of_another_payment_is_never_taken_for_posted(database: str) -> None:
    """Should two names meet all the same, it is an alarm and not a payment that is not booked."""
    _, payment = paid()
    record(payment)
    ((name, other_id),) = rows_of(database, "SELECT name, payment_id + 1 FROM ledger_transfer")
    again = Posting(name, "clearing:cashplus", PAYABLE, DUE, payment_id=other_id)
    with pytest.raises(TransferMismatch), transaction() as session:
        ledger.post(session, [again], key=process.signing_key(), now=NOON)


@pytest.mark.parametrize("what", ["clerk", "reconcile"])
def test_booking_and_those_who_tell_of_payments_do_not_wait_in_a_ring(
    database: str, what: str
) -> None:
    """Whoever tells of a payment points to its row, which a batch may have locked."""
    reference, payment = paid()
    unknown = a_report("148275036142", provider_payment_id="P2")
    record(payment, unknown)
    subject = "payment:cashplus/P2"

    def clerk() -> None:
        with transaction() as session:
            code = ExceptionCode.UNKNOWN_REFERENCE
            closed = resolve_exceptions(session, code, [subject], because="seen", now=NOON)
            tell(session, resolved_events(closed), now=NOON)

    def reconciles() -> None:
        reconcile(period=None, now=NOON)

    found: list[DBAPIError] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except DBAPIError as error:
            found.append(error)

    telling = clerk if what == "clerk" else reconciles
    moved = a_return("P2", 1000)
    booking = partial(record, unknown, moved, a_report(reference, provider_payment_id="P3"))
    threads = [Thread(target=run, args=(each,)) for each in (telling, booking)]
    with transaction() as session:
        take_the_end_of_the_feed(session)
        for thread in threads:
            thread.start()
            thread.join(timeout=0.5)
    for thread in threads:
        thread.join()
    assert found == []
    seal_and_check()


def test_a_reference_that_was_announced_is_not_forgotten(database: str) -> None:
    reference, payment = paid()
    record(replace(payment, statement=Statement.PENDING))
    silent = replace(payment, reference_given="", stated_at=LATER)
    assert record(silent) == ["booked"]
    assert the_books().invoices == [(reference, DUE, DUE, "paid")]
    assert record(replace(silent, stated_at=LATER)) == ["repeated"]
    assert open_codes() == []
    seal_and_check()


def test_a_silent_reversal_that_is_heard_first_contradicts_nothing(database: str) -> None:
    _, payment = paid()
    gone = replace(payment, statement=Statement.REVERSED, reference_given="", stated_at=LATER)
    record(gone)
    record(payment)
    assert open_codes() == []
    seal_and_check()


# -- what others are told -------------------------------------------------------------------------


def test_what_happens_is_told_in_its_order(database: str) -> None:
    _, payment = paid()
    record(payment)
    record(a_return("P1", 5000))
    told = rows_of(database, f"SELECT type, data FROM {FEED} AS event ORDER BY id")
    assert [kind for kind, _ in told] == ["invoice.issued", "payment.booked", "payment.returned"]
    assert told[0][1]["amount"] == "163.52"
    assert [data["returned"] for _, data in told[1:]] == ["0.00", "50.00"]
    assert not {"name", "cnss_number"} & {key for _, data in told for key in data}


def test_what_is_told_of_a_booking_is_what_was_so_when_it_was_booked(database: str) -> None:
    """It stands in the payment's row, whatever becomes of the money."""
    reference, payment = paid(5)
    at = NOON - timedelta(microseconds=500_000)
    whole = replace(payment, paid_at=at, channel=None)
    nobodys = replace(a_report("148275036142"), provider_payment_id="P2", amount_minor=123_456)
    assert record(whole, nobodys) == ["booked", "booked"]
    feed = f"SELECT invoice_id, data FROM {FEED} AS event WHERE type = 'payment.booked' ORDER BY id"
    told = rows_of(database, feed)
    record(replace(whole, statement=Statement.REVERSED, stated_at=LATER), a_return("P2", 50))
    assert rows_of(database, feed) == told
    common = {"provider": "cashplus", "returned": "0.00", "currency": "MAD", "status": "booked"}
    known = {"provider_payment_id": "P1", "reference": reference, "amount": "0.05"}
    unknown = {"provider_payment_id": "P2", "reference": None, "amount": "1234.56"}
    (invoice_id,) = rows_of(database, "SELECT id FROM invoice")
    assert told == [
        (*invoice_id, common | known | {"channel": None, "paid_at": at.isoformat()}),
        (None, common | unknown | {"channel": "cash_agent", "paid_at": NOON.isoformat()}),
    ]


def test_readers_of_the_feed_miss_nothing_that_commits_late(database: str) -> None:
    """Who tells later waits for the one before, so numbers become visible in their order."""
    happening = Happening(EventType.INVOICE_CANCELLED, {"reference": "first"})
    other = Thread(target=record, args=(a_report("148275036142"),))
    with transaction() as session:
        tell(session, [happening], now=NOON)
        other.start()
        other.join(timeout=0.5)
        assert other.is_alive()
        assert rows_of(database, "SELECT id FROM event") == []
    other.join()
    told = [kind for (kind,) in rows_of(database, "SELECT type FROM event ORDER BY id")]
    assert told == ["invoice.cancelled", "payment.booked", "exception.opened"]


# -- attempts -------------------------------------------------------------------------------------


@pytest.fixture
def attempt(database: str) -> str:
    """An attempt that was sent to a page, for an invoice of its own; its id."""
    (reference,) = some_invoices()
    with transaction() as session:
        execute(
            session,
            "INSERT INTO payment_attempt (id, invoice_id, provider, amount_minor, language, state,"
            " session_id, made_at, expires_at, ask_at) SELECT 'a1', id, 'cashplus', amount_minor,"
            " 'fr', 'sent', 'cs_1', :now, :now, :now FROM invoice WHERE reference = :reference",
            {"now": NOON, "reference": reference},
        )
    return reference


def test_money_marks_the_attempt_by_which_it_came(database: str, attempt: str) -> None:
    record(a_report(attempt, provider_payment_id="P1", attempt_id="a1"))
    rows = rows_of(database, "SELECT state, provider_payment_id, ask_at FROM payment_attempt")
    assert rows == [("paid", "P1", None)]


def test_another_provider_cannot_mark_it(database: str, attempt: str) -> None:
    record(a_report(attempt, provider="kiosk", attempt_id="a1"))
    assert rows_of(database, "SELECT state FROM payment_attempt") == [("sent",)]


def test_other_money_for_a_booked_payment_marks_no_attempt(database: str, attempt: str) -> None:
    first = a_report(attempt, provider_payment_id="P1")
    other = replace(first, amount_minor=first.amount_minor + 1, attempt_id="a1")
    assert record(first, other) == ["booked", "conflicting"]
    assert rows_of(database, "SELECT state FROM payment_attempt") == [("sent",)]


def test_a_page_that_lapsed_may_still_turn_out_to_be_paid(database: str, attempt: str) -> None:
    lapsed = AttemptLapsed("cashplus", "cs_1", "delivery:cashplus/e1")
    assert record(lapsed, lapsed) == ["noted", "noted"]
    rows = rows_of(database, "SELECT state, closed_because FROM payment_attempt")
    assert rows == [("closed", "lapsed")]
    record(a_report(attempt, attempt_id="a1"))
    rows = rows_of(database, "SELECT state, closed_because FROM payment_attempt")
    assert rows == [("paid", None)]
