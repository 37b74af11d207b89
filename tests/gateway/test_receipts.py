from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import process
from gateway.checks import Broken, run_checks
from gateway.codes import receipts as codes
from gateway.collection.reports import Statement
from gateway.db import execute, snapshot, transaction
from gateway.errors import Unusable
from gateway.models import Channel
from gateway.receipt_checks import receipt_checks
from gateway.receipts import (
    Finding,
    ReceiptRecord,
    ReceiptStanding,
    Verdict,
    find,
    issue_all,
    issue_due,
    line_up_missing,
    look_into,
    of_invoice,
    read_number,
    rotate_key,
    verdict_on,
)
from tests.factories import NOON, a_report, at_once, record, rows_of, some_invoices

LATER = NOON + timedelta(hours=1)


def issue() -> int:
    return issue_all(process.receipt_keys(), lambda: NOON)


def a_receipt(**payment: object) -> ReceiptRecord:
    """Return the receipt of a payment of an invoice of its own."""
    [reference] = some_invoices()
    record(a_report(reference, **payment))
    issue()
    with snapshot() as session:
        [receipt] = of_invoice(session, reference)
    return receipt


def verdict(text: str) -> Verdict:
    with snapshot() as session:
        return verdict_on(session, text, process.receipt_keys().published())


def broken() -> list[Broken]:
    with snapshot() as session:
        return run_checks(session, receipt_checks(process.receipt_keys().published()))


def test_a_booked_payment_gets_one_receipt_that_says_what_was_booked(database: str) -> None:
    receipt = a_receipt()
    assert receipt.amount_minor == receipt.allocated_minor == 16352
    assert receipt.channel is Channel.CASH_AGENT
    assert receipt.standing is ReceiptStanding.STANDS
    assert receipt.number.startswith("R26-")
    assert issue() == 0
    found = verdict(codes.as_text(receipt.signed))
    assert found.finding is Finding.GENUINE
    assert found.record == receipt
    assert found.claims is not None
    assert found.claims.amount_minor == 16352
    assert found.stands
    assert broken() == []


def test_each_of_two_payments_for_one_invoice_has_its_receipt(database: str) -> None:
    [reference] = some_invoices()
    record(a_report(reference, amount_minor=10000), a_report(reference, amount_minor=10000))
    issue()
    with snapshot() as session:
        first, second = of_invoice(session, reference)
    assert (first.allocated_minor, second.allocated_minor) == (10000, 6352)
    assert first.number != second.number


def test_money_that_belongs_to_nobody_yet_has_no_receipt(database: str) -> None:
    some_invoices()
    record(a_report("148275036141"))
    assert issue() == 0
    assert broken() == []


def test_a_payment_taken_back_before_its_receipt_was_made_gets_none(database: str) -> None:
    [reference] = some_invoices()
    record(a_report(reference, provider_payment_id="P1"))
    back = a_report(
        reference, provider_payment_id="P1", statement=Statement.REVERSED, stated_at=LATER
    )
    record(back)
    assert issue() == 1
    assert rows_of(database, "SELECT count(*) FROM receipt") == [(0,)]
    assert broken() == []


def test_a_receipt_of_money_that_was_taken_back_stays_genuine_and_says_so(database: str) -> None:
    receipt = a_receipt(provider_payment_id="P1")
    record(
        a_report(
            receipt.reference,
            provider_payment_id="P1",
            statement=Statement.REVERSED,
            stated_at=LATER,
        )
    )
    found = verdict(codes.as_text(receipt.signed))
    assert found.finding is Finding.GENUINE
    assert not found.stands
    assert found.record is not None
    assert (found.record.standing, found.record.allocated_minor) == (ReceiptStanding.REVERSED, 0)
    assert broken() == []


def test_what_a_replaced_key_signed_stays_genuine(database: str) -> None:
    receipt = a_receipt()
    process.receipt_keys().rotate(now=LATER)
    found = verdict(codes.as_text(receipt.signed))
    assert found.finding is Finding.GENUINE
    assert found.key is not None
    assert found.key.until == LATER
    assert a_receipt().key_id != receipt.key_id
    assert broken() == []


def test_a_receipt_that_our_key_signed_and_our_books_do_not_hold_is_told_apart(
    database: str,
) -> None:
    receipt = a_receipt()
    signer = process.receipt_keys().signer(now=NOON)
    claims = codes.Claims(
        receipt_number=receipt.number,
        reference=receipt.reference,
        amount_minor=receipt.amount_minor * 10,
        paid_at=receipt.paid_at.replace(microsecond=0),
        period=receipt.period,
        channel="cash_agent",
    )
    for other in (claims, replace(claims, amount_minor=16352, receipt_number="R26-000000000")):
        signed = codes.sign(other, key_id=signer.key_id, private_key=signer.private)
        found = verdict(codes.as_text(signed))
        assert found.finding is Finding.NOT_IN_BOOKS
        assert found.record is None


def test_two_workers_make_each_receipt_once(database: str) -> None:
    record(*[a_report(reference) for reference in some_invoices(40)])
    signer = process.receipt_keys().signer(now=NOON)

    def work() -> int:
        done = 0
        while True:
            with transaction() as session:
                left = issue_due(session, signer, now=NOON, limit=3)
            done += left
            if not left:
                return done

    assert sum(at_once(work, work, work)) == 40
    assert rows_of(database, "SELECT count(*), count(DISTINCT payment_id) FROM receipt") == [
        (40, 40)
    ]
    assert broken() == []


def test_a_crash_while_receipts_are_made_loses_none(database: str) -> None:
    record(*[a_report(reference) for reference in some_invoices(4)])
    signer = process.receipt_keys().signer(now=NOON)

    def crash() -> None:
        with transaction() as session:
            assert issue_due(session, signer, now=NOON) == 4
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert broken() == []
    assert issue() == 4


def test_numbers_do_not_tell_how_many_there_are(database: str) -> None:
    record(*[a_report(reference) for reference in some_invoices(20)])
    issue()
    numbers = [int(n[4:]) for (n,) in rows_of(database, "SELECT number FROM receipt ORDER BY id")]
    assert len(set(numbers)) == 20
    assert numbers != sorted(numbers)
    assert max(numbers) - min(numbers) > 10**7
    references = [r for (r,) in rows_of(database, "SELECT reference FROM invoice ORDER BY id")]
    assert not {f"{n:09d}" for n in numbers} & {reference[1:10] for reference in references}


@pytest.mark.parametrize(
    "typed",
    [
        "R26-000000123",
        "https://pay.example.ma/verify/R26-000000123?lang=ar",
        "r26 000 000 123",
        "26000000123",
        "R٢٦-٠٠٠٠٠٠١٢٣",
        "\u200eR26\u2011000000123",
    ],
)
def test_a_number_is_understood_however_it_is_typed(typed: str) -> None:
    assert read_number(typed) == "R26-000000123"


@pytest.mark.parametrize("typed", ["", "R26-00000012", "R26-0000001234", "AMO1:BB8", "Rxx-1"])
def test_what_is_no_number_is_none(typed: str) -> None:
    assert read_number(typed) is None


def test_a_number_finds_its_receipt_and_no_other_does(database: str) -> None:
    receipt = a_receipt()
    with snapshot() as session:
        keys = process.receipt_keys().published()
        found = look_into(session, receipt.number.lower(), keys)
        assert (found.finding, found.record) == (Finding.GENUINE, receipt)
        assert found.as_json()["amount"] == "163.52"
        assert look_into(session, "R26-000000000", keys).finding is Finding.UNKNOWN_NUMBER
        assert find(session, "nothing") is None


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    text=st.text()
    | st.text(alphabet="0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:").map(
        lambda tail: "AMO1:" + tail
    )
)
def test_any_text_has_an_answer(database: str, text: str) -> None:
    with snapshot() as session:
        found = look_into(session, text, process.receipt_keys().published())
    assert not found.stands


# -- what the checks see --------------------------------------------------------------------------


def tamper(database: str, statement: str) -> None:
    """Change rows as the owner of the database can."""
    with psycopg.connect(database) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(statement.encode())


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE payment SET channel = 'card'", "says other than its payment"),
        ("UPDATE payment SET paid_at = paid_at - interval '1 day'", "says other"),
        (
            "UPDATE receipt SET signed = set_byte(signed, 80, get_byte(signed, 80) # 1)",
            "signature does not hold",
        ),
        ("UPDATE receipt SET key_id = 'deadbeef'", "key that is not ours"),
        ("DELETE FROM receipt", "has no receipt"),
    ],
)
def test_what_was_changed_behind_our_back_is_found(
    database: str, statement: str, finding: str
) -> None:
    a_receipt()
    tamper(database, statement)
    [found] = broken()
    assert finding in found.what


def test_lost_keys_are_not_replaced_in_silence(database: str) -> None:
    [one, other] = some_invoices(2)
    record(a_report(one))
    issue()
    for file in process.receipt_keys()._folder.iterdir():
        file.unlink()
    record(a_report(other))
    with pytest.raises(Unusable, match="restore the"):
        issue()


def test_a_receipt_is_never_changed(database: str) -> None:
    a_receipt()
    with pytest.raises(Exception, match="append-only"), transaction() as session:
        execute(session, "UPDATE receipt SET number = 'R26-000000000'")


def test_a_payment_that_was_never_put_in_line_gets_its_receipt_when_asked(database: str) -> None:
    """As one that a worker of the version before booked beside the migration."""
    [reference] = some_invoices()
    record(a_report(reference))
    tamper(database, "DELETE FROM receipt_due")
    assert [b.what for b in broken()] == ["a booked payment has no receipt"]
    with transaction() as session:
        assert line_up_missing(session) == 1
    assert issue() == 1
    assert broken() == []


def test_a_number_of_a_receipt_that_does_not_fit_its_payment_is_not_called_genuine(
    database: str,
) -> None:
    receipt = a_receipt()
    tamper(database, "UPDATE payment SET channel = 'card'")
    with snapshot() as session:
        found = look_into(session, receipt.number, process.receipt_keys().published())
    assert (found.finding, found.stands) == (Finding.NOT_IN_BOOKS, False)


def test_the_key_is_not_replaced_where_the_list_of_keys_is_gone(database: str) -> None:
    a_receipt()
    (process.receipt_keys()._folder / "receipts.json").unlink()
    with pytest.raises(Unusable, match="restore the"), transaction() as session:
        rotate_key(session, process.receipt_keys(), now=NOON)
