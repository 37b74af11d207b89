"""Booking on a real database: many at once, in any order, in batches of any size."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count, pairwise
from threading import Event
from typing import Any, Final

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DataError

from gateway.collection.reports import NotAboutMoney, PaymentReport, Report, Statement
from gateway.models import ExceptionCode
from tests.factories import (
    NOON,
    PATIENCE_SECONDS,
    a_report,
    an_unbookable,
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
THREADS: Final = 8
PROVIDERS: Final = tuple(f"provider-{n}" for n in range(THREADS))
"""One for each thread: a provider's reports take turns, so one alone would not race."""


def seal_and_check() -> None:
    seal()
    assert broken_promises() == []


def posted(database: str) -> list[tuple[str, int]]:
    return rows_of(database, "SELECT name, amount_minor FROM ledger_transfer ORDER BY 1")


# -- races ----------------------------------------------------------------------------------------


def test_eight_parts_at_once_pay_one_invoice_exactly(database: str) -> None:
    (reference,) = some_invoices()
    parts = [a_report(reference, provider=name, amount_minor=DUE // 8) for name in PROVIDERS]
    assert sum(part.amount_minor for part in parts) == DUE
    assert at_once(*(partial(record, part) for part in parts)) == [["booked"]] * THREADS
    assert the_books().invoices == [(reference, DUE, DUE, "paid")]
    assert balances()["payable:institution"] == -DUE
    seal_and_check()


def test_of_eight_full_payments_at_once_one_pays_and_seven_are_the_payers_credit(
    database: str,
) -> None:
    (reference,) = some_invoices()
    payments = [a_report(reference, provider=name) for name in PROVIDERS]
    assert at_once(*(partial(record, each) for each in payments)) == [["booked"]] * THREADS
    assert the_books().invoices == [(reference, DUE, DUE, "paid")]
    held = balances()
    assert held.pop("payable:institution") == -DUE
    assert [held.pop(f"clearing:{name}") for name in PROVIDERS] == [DUE] * THREADS
    assert list(held.values()) == [-7 * DUE]
    assert [code for code, _ in the_books().exceptions] == ["paid_twice"] * 7
    seal_and_check()


def test_one_payment_told_by_eight_deliveries_at_once_is_booked_once(database: str) -> None:
    references = some_invoices(5)
    for reference in references:
        told = [
            a_report(reference, provider_payment_id=f"P-{reference}", source=f"delivery:c/{n}")
            for n in range(THREADS)
        ]
        outcomes = at_once(*(partial(record, each) for each in told))
        assert sorted(outcomes) == [["booked"]] + [["repeated"]] * 7
    assert balances() == {"clearing:cashplus": 5 * DUE, "payable:institution": -5 * DUE}
    assert len(posted(database)) == 5
    seal_and_check()


def test_a_payment_completed_and_given_back_at_once_many_times_is_worth_nothing(
    database: str,
) -> None:
    (reference,) = some_invoices()
    completed = a_report(reference)
    given_back = a_report(
        reference,
        provider_payment_id=completed.provider_payment_id,
        statement=Statement.REVERSED,
        stated_at=NOON + timedelta(minutes=1),
    )
    at_once(*(partial(record, each) for each in [completed, given_back] * 4))
    assert set(balances().values()) <= {0}
    assert the_books().invoices == [(reference, DUE, 0, "open")]
    seal_and_check()


def test_batches_over_the_same_invoices_in_opposite_order_do_not_wait_in_a_ring(
    database: str,
) -> None:
    """All are stopped half-way by an invoice that is held, and go on at the same moment."""
    references = some_invoices(20)
    orders = [references, references[::-1], references[10:] + references[:10]]
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database()"
    )

    def hold() -> list[str]:
        with psycopg.connect(database) as holder:
            held = "SELECT FROM invoice WHERE reference = %s FOR UPDATE"
            holder.execute(held, (references[10],))
            ready.set()
            deadline = time.monotonic() + PATIENCE_SECONDS
            while rows_of(database, waiting) != [(len(orders),)]:
                assert time.monotonic() < deadline
        return []

    def pay(name: str, order: list[str]) -> list[str]:
        assert ready.wait(PATIENCE_SECONDS)
        return record(*(a_report(r, provider=name, amount_minor=100) for r in order))

    for _ in range(3):
        ready = Event()
        at_once(hold, *(partial(pay, *each) for each in zip(PROVIDERS, orders, strict=False)))
    assert {paid for _, _, paid, _ in the_books().invoices} == {3 * 3 * 100}
    seal_and_check()


def test_batches_of_several_providers_in_opposite_order_do_not_wait_in_a_ring(
    database: str,
) -> None:
    (reference,) = some_invoices()

    def batch(names: tuple[str, ...]) -> list[str]:
        return record(*(a_report(reference, provider=name, amount_minor=1) for name in names))

    for _ in range(6):
        at_once(partial(batch, PROVIDERS), partial(batch, PROVIDERS[::-1]))
    assert the_books().invoices == [(reference, DUE, 6 * 2 * THREADS, "part_paid")]
    seal_and_check()


# -- batches --------------------------------------------------------------------------------------


def test_in_a_large_batch_each_transfer_belongs_to_its_own_payment(database: str) -> None:
    references = some_invoices(3)
    # More rows than the driver puts into one statement, each with an amount of its own.
    reports = [a_report(references[n % 3], amount_minor=n + 1) for n in range(2_500)]
    assert set(record(*reports)) == {"booked"}
    told = {r.provider_payment_id: r.amount_minor for r in reports}
    booked = rows_of(
        database,
        "SELECT provider_payment_id, p.amount_minor, sum(t.amount_minor)::bigint, min(t.name)"
        " FROM payment p JOIN ledger_transfer t ON t.payment_id = p.id GROUP BY p.id",
    )
    assert {(named, amount, amount) for named, amount in told.items()} == {
        row[:3] for row in booked
    }
    assert all(row[3].startswith(f"cashplus/{row[0]}/") for row in booked)
    seal_and_check()


def test_all_that_happens_to_a_payment_may_happen_in_one_batch(database: str) -> None:
    (reference,) = some_invoices()

    def said(statement: Statement, minutes: int, amount_minor: int = DUE) -> PaymentReport:
        return a_report(
            reference,
            provider_payment_id="P",
            statement=statement,
            amount_minor=amount_minor,
            stated_at=NOON + timedelta(minutes=minutes),
        )

    outcomes = record(
        said(Statement.PENDING, 0),
        said(Statement.COMPLETED, 1),
        said(Statement.COMPLETED, 1, DUE + 1),
        a_report(reference, amount_minor=5),
        said(Statement.REVERSED, 2),
        a_report(reference, amount_minor=DUE),
    )
    assert outcomes == ["noted", "booked", "conflicting", "booked", "reversed", "booked"]
    # The invoice was full when the 5 came; given back, it takes what is told of next.
    assert the_books().invoices == [(reference, DUE, DUE, "paid")]
    assert balances()["clearing:cashplus"] == DUE + 5
    seal_and_check()


@st.composite
def mixed_reports(draw: st.DrawFn) -> tuple[list[Callable[[str, list[str]], Report]], list[int]]:
    """Makers of reports of a provider about a few payments and invoices, and where to cut."""

    def report(values: dict[str, Any]) -> Callable[[str, list[str]], Report]:
        def make(provider: str, references: list[str]) -> Report:
            named = f"P{values['payment']}"
            if values["kind"] == "unbookable":
                return an_unbookable(
                    named, provider=provider, statement=values["statement"], source="x"
                )
            if values["kind"] == "nothing":
                return NotAboutMoney("no matter")
            at = values["invoice"]
            return a_report(
                references[at] if at < len(references) else "no such thing",
                provider=provider,
                provider_payment_id=named,
                statement=values["statement"],
                amount_minor=values["amount"],
                stated_at=NOON + timedelta(minutes=values["minutes"]),
                # Before the invoice was due, in the month after, or later in that month.
                paid_at=NOON - timedelta(days=values["days"]),
                source=f"delivery:{provider}/x",
            )

        return make

    one = st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["payment"] * 8 + ["unbookable", "nothing"]),
            "payment": st.integers(0, 3),
            "invoice": st.sampled_from([0, 0, 0, 1, 1, 2]),
            "statement": st.sampled_from([*Statement, Statement.COMPLETED]),
            "amount": st.sampled_from([DUE, DUE, 100, DUE + 7]),
            "minutes": st.integers(0, 5),
            "days": st.sampled_from([0, 0, 5, 20]),
        }
    )
    makers = draw(st.lists(one.map(report), min_size=2, max_size=14))
    cuts = draw(st.lists(st.integers(1, len(makers) - 1), max_size=4))
    return makers, sorted({0, *cuts, len(makers)})


_turns = count()


@given(mixed_reports())
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_batches_of_any_size_come_to_the_same_books_as_one_report_after_the_other(
    database: str, mixed: tuple[list[Callable[[str, list[str]], Report]], list[int]]
) -> None:
    makers, cuts = mixed
    turn = next(_turns)
    worlds = []
    for way, bounds in (("single", list(range(len(makers) + 1))), ("batches", cuts)):
        provider, references = f"{way}-{turn}", some_invoices(2, "2026-10")
        reports = [make(provider, references) for make in makers]
        outcomes = [
            outcome for first, last in pairwise(bounds) for outcome in record(*reports[first:last])
        ]
        worlds.append((outcomes, *_what_became_of(database, provider, references)))
    assert worlds[0] == worlds[1]
    seal_and_check()


def _what_became_of(database: str, provider: str, references: list[str]) -> tuple[Any, ...]:
    """Return a world's rows without what only names the world."""
    mine = (f"{provider}/%",)
    return (
        rows_of(
            database,
            "SELECT regexp_replace(substr(t.name, strpos(t.name, '/')), 'moved/[0-9]+', 'moved'),"
            " d.kind, c.kind, t.amount_minor, t.reverses_id IS NULL FROM ledger_transfer t"
            " JOIN ledger_account d ON d.id = t.debit_account_id"
            " JOIN ledger_account c ON c.id = t.credit_account_id WHERE t.name LIKE %s"
            " ORDER BY t.name",
            mine,
        ),
        rows_of(
            database,
            "SELECT paid_minor, owed_minor, status FROM invoice WHERE reference = ANY(%s)"
            " ORDER BY id",
            (references,),
        ),
        rows_of(
            database,
            "SELECT provider_payment_id, status, amount_minor, stated_at, paid_at,"
            " invoice_id IS NULL, booked_at FROM payment WHERE provider || '/' LIKE %s ORDER BY 1",
            mine,
        ),
        rows_of(
            database,
            "SELECT code, substr(subject, strpos(subject, '/')), payment_id IS NULL"
            " FROM coded_exception WHERE subject LIKE %s ORDER BY 1, 2",
            (f"%:{provider}/%",),
        ),
    )


# -- one transaction ------------------------------------------------------------------------------


def test_a_batch_that_fails_leaves_nothing_behind(database: str) -> None:
    (reference,) = some_invoices()
    before = the_books()
    with pytest.raises(DataError, match="0x00"):
        record(a_report(reference), a_report(reference, terminal_id="\x00"))
    assert the_books() == before
    assert record(a_report(reference)) == ["booked"]
    seal_and_check()


def test_what_does_not_fit_a_booked_payment_is_a_conflict_and_changes_nothing(
    database: str,
) -> None:
    (reference,) = some_invoices()
    report = a_report(reference, provider_payment_id="P")
    assert record(report) == ["booked"]
    before = the_books()
    wrong = an_unbookable("P", code=ExceptionCode.WRONG_CURRENCY)
    assert record(wrong, a_report(reference, provider_payment_id="P", amount_minor=1)) == [
        "conflicting",
        "conflicting",
    ]
    after = the_books()
    assert (after.transfers, after.invoices, after.payments) == (
        before.transfers,
        before.invoices,
        before.payments,
    )
    assert after.exceptions == [("conflicting_payment", "payment:cashplus/P")]
    seal_and_check()


def test_other_details_are_kept_however_the_batches_are_cut(database: str) -> None:
    """What a batch begins with may be known already; what comes after it is kept all the same."""
    (reference,) = some_invoices()
    payment = a_report(reference, provider_payment_id="P1")
    others = [replace(payment, amount_minor=minor) for minor in (111, 222, 333)]
    record(payment, others[0])
    record(others[0], others[1], others[0], others[2])
    record(others[2], others[1])
    ((detail,),) = rows_of(database, "SELECT detail FROM coded_exception")
    said = [d["reported"]["amount"] for d in (detail, *detail["more"])]
    assert said == ["1.11", "2.22", "3.33"]
    assert "more" not in detail["more"][0]
