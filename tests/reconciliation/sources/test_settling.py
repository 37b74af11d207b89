"""Files held against the books: what agrees is kept, the rest is decided anew each time."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.checks import run_checks
from gateway.db import execute, transaction
from gateway.models import PaymentStatus, RefundWay
from reconciliation.records import lock_records
from reconciliation.sources.checks import CHECKS
from reconciliation.sources.settlements import import_settlements
from reconciliation.sources.settling import SettlingResult, settle
from tests.gateway.collection.test_refunds import approve, ask, number_of, pay_out
from tests.gateway.collection.test_refunds import paid as booked
from tests.reconciliation.factories import (
    NOW,
    a_payment,
    an_invoice,
    asked,
    give_back,
    reverse,
)
from tests.reconciliation.sources.factories import (
    a_detail,
    a_notification,
    a_statement,
    agents,
    an_entry,
    camt,
)


@pytest.fixture
def of(database: str, tmp_path: Path) -> Any:
    """Take in some bytes as a file of a sender's."""

    def take(data: bytes, provider: str) -> None:
        path = tmp_path / "file"
        path.write_bytes(data)
        import_settlements(path, provider=provider, now=NOW)

    return take


def paid(name: str, amount_minor: int = 100_00, *, day: int = 18, **more: Any) -> str:
    """Commit a payment of an invoice, and return the invoice's reference."""
    with transaction() as session:
        invoice = an_invoice(session)
        a_payment(
            session,
            invoice,
            provider_payment_id=name,
            amount_minor=amount_minor,
            paid_at=datetime(2026, 11, day, 10, tzinfo=UTC),
            **more,
        )
        return invoice.reference


def run() -> SettlingResult:
    with transaction() as session:
        lock_records(session)
        result = settle(session, now=NOW)
        assert run_checks(session, CHECKS) == []
        return result


def settled() -> list[tuple[str, str]]:
    """Return the payments that are settled, each with the rule."""
    with transaction() as session:
        rows = execute(
            session,
            "SELECT p.provider_payment_id, g.rule FROM settled_payment s JOIN payment p"
            " ON p.id = s.payment_id JOIN settlement_group g ON g.id = s.group_id ORDER BY 1, 2",
        )
        return [(name, rule) for name, rule in rows]


def line(name: str, amount: str = "100,00", day: int = 18, kind: str = "PAIEMENT") -> str:
    return f"{day}/11/2026;;{amount};{name};{kind};2,00"


def test_an_agents_file_is_held_against_the_books(of: Any) -> None:
    for name in ("T-1", "T-2", "T-3", "missed"):
        paid(name)
    paid("other", provider="kiosk")
    paid("pending", status=PaymentStatus.PENDING)
    lines = [line("T-1"), line("T-2", "90,00"), line("T-3"), line("unknown"), line("pending")]
    lines += [line("T-3", "-100,00", 21, "ANNULATION").replace("2,00", "-2,00")]
    of(agents(*lines, total="390,00", fees="8,00"), "cashplus")

    result = run()
    assert (result.payments, result.settled_minor) == (1, 100_00)
    assert settled() == [("T-1", "payment-id")]
    found = [
        ("amount_differs", "settlement:cashplus/T-2"),
        ("amount_differs", "settlement:cashplus/T-3"),
        ("payment_without_record", "settlement:payment:cashplus/missed"),
        ("record_without_payment", "settlement:cashplus/pending"),
        ("record_without_payment", "settlement:cashplus/unknown"),
    ]
    assert asked() == found
    assert result.exceptions == {
        "amount_differs": 2,
        "payment_without_record": 1,
        "record_without_payment": 2,
    }
    # The same again: nothing.
    again = run()
    assert (again.payments, again.undone, again.opened, again.resolved) == (0, 0, 0, 0)
    assert asked() == found

    # What was missing comes, and what was taken back there is taken back here.
    reverse("T-3")
    paid("unknown")
    of(agents(line("missed"), total="100,00", fees="2,00"), "cashplus")
    mended = run()
    assert (mended.payments, mended.resolved) == (3, 3)
    assert settled() == [(name, "payment-id") for name in ("T-1", "T-3", "missed", "unknown")]
    assert asked() == [found[0], found[3]]


def test_a_group_that_holds_no_more_is_decided_anew(of: Any) -> None:
    paid("T-1")
    of(agents(line("T-1"), line("x", "1,00", 25), total="101,00", fees="4,00"), "cashplus")
    paid("x", 1_00, day=25)
    assert run().payments == 2
    give_back("T-1", 40_00)
    result = run()
    assert (result.undone, settled()) == (1, [("x", "payment-id")])
    assert asked() == [("amount_differs", "settlement:cashplus/T-1")]
    back = line("T-1", "-40,00", 26, "ANNULATION")
    of(agents(back, total="-40,00", fees="2,00"), "cashplus")
    result = run()
    assert (result.payments, settled()) == (1, [("T-1", "payment-id"), ("x", "payment-id")])
    assert asked() == []


def test_what_was_given_back_by_hand_is_no_matter_of_the_provider(of: Any) -> None:
    """It pays out all that it collected: the institution gave that back out of its own account."""
    _, payment = booked("T-1", amount_minor=163_52)
    of(agents(line("T-1", "163,52"), total="163,52", fees="2,00"), "cashplus")
    assert run().payments == 1
    pay_out(approve(ask(payment, way=RefundWay.BY_HAND)))
    result = run()
    assert (result.undone, result.payments, asked()) == (0, 0, [])
    booked("T-2", amount_minor=163_52)
    later = ask(number_of("T-2"), 100_00, RefundWay.BY_HAND)
    pay_out(approve(later))
    of(agents(line("T-2", "163,52", 26), total="163,52", fees="2,00"), "cashplus")
    assert (run().payments, asked()) == (1, [])


def test_details_that_come_later_take_the_place_of_their_batch(of: Any) -> None:
    for name, amount_minor in (("P-1", 60_00), ("P-2", 40_00)):
        paid(name, amount_minor, day=19, provider="bank")
    of(camt(a_statement(an_entry("100.00", batch_of=2), closing="100.00")), "bank")
    assert run().payments == 2
    assert settled() == [("P-1", "batch-of-a-day"), ("P-2", "batch-of-a-day")]
    details = (a_detail("60.00", "P-1"), a_detail("40.00", "P-2"))
    of(camt(a_notification(an_entry(details=details))), "bank")
    result = run()
    assert (result.payments, result.undone, result.exceptions) == (0, 1, {})
    assert settled() == [("P-1", "payment-id"), ("P-2", "payment-id")]


def test_a_surer_line_takes_a_payment_from_a_less_sure_one(of: Any) -> None:
    reference = paid("P-1", provider="bank", day=19)
    of(camt(a_notification(an_entry(text=f"AMO {reference}"))), "bank")
    run()
    assert settled() == [("P-1", "reference-in-the-window")]
    detail = [a_detail("100.00", "P-1")]
    of(camt(a_notification(an_entry(reference="BR-2", details=detail), number="2")), "bank")
    assert (run().undone, settled()) == (1, [("P-1", "payment-id")])
    assert [code for code, _ in asked()] == ["record_without_payment"]
    # Such a line stays open; deciding anew does not move anything.
    assert (run().undone, run().opened) == (0, 0)


def test_an_agents_file_and_the_banks_statement_each_tell_of_a_payment(of: Any) -> None:
    paid("T-1", day=20)
    of(agents(line("T-1", day=20), total="100,00", fees="2,00"), "cashplus")
    of(
        camt(a_statement(an_entry(details=[a_detail("100.00", "T-1")]), closing="100.00")),
        "cashplus",
    )
    result = run()
    assert (result.exceptions, settled()) == ({}, [("T-1", "payment-id")] * 2)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_first_the_end_is_the_same(of: Any, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - an order, no secret
    batch = an_entry("100.00", batch_of=2, day="2026-11-23")
    details = [a_detail("60.00", "B-1"), a_detail("40.00", "B-2")]
    steps: list[Callable[[], Any]] = [
        lambda: [paid("T-1"), paid("T-2"), paid("T-9")],
        lambda: [paid("B-1", 60_00, provider="bank"), paid("B-2", 40_00, provider="bank")],
        lambda: of(agents(line("T-1"), line("T-3"), total="200,00", fees="4,00"), "cashplus"),
        lambda: of(agents(line("T-2", day=22), total="100,00", fees="2,00"), "cashplus"),
        lambda: of(camt(a_statement(batch, closing="100.00", day="2026-11-23")), "bank"),
        lambda: of(camt(a_notification(an_entry(details=details, day="2026-11-23"))), "bank"),
    ]
    chance.shuffle(steps)
    for step in steps:
        step()
        if chance.random() < 0.5:
            run()
    run()
    assert settled() == [(name, "payment-id") for name in ("B-1", "B-2", "T-1", "T-2")]
    assert asked() == [
        ("payment_without_record", "settlement:payment:cashplus/T-9"),
        ("record_without_payment", "settlement:cashplus/T-3"),
    ]
