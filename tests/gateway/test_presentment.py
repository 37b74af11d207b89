from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import Session

from gateway.db import execute, snapshot, transaction
from gateway.errors import Unusable
from gateway.invoices import cancel_invoice
from gateway.models import PaymentStatus
from gateway.presentment import (
    Person,
    Presentment,
    Standing,
    expiry_of,
    present,
    present_ids,
    standing_of,
)
from gateway.reports import Statement
from tests.factories import (
    NOON,
    a_report,
    balances,
    broken_promises,
    record,
    rows_of,
    seal,
    some_invoices,
)

DUE = date(2026, 11, 30)


def shown(reference: str, now: datetime = NOON) -> Presentment:
    with snapshot() as session:
        found = present(session, reference, now=now, validity_months=12)
    assert found is not None
    return found


def on(
    day: date, *, owed_minor: int = 16352, paid_minor: int = 0, cancelled: bool = False
) -> Standing:
    return standing_of(
        due_minor=owed_minor - paid_minor,
        paid_minor=paid_minor,
        due_on=DUE,
        expires_on=expiry_of(DUE, 12),
        cancelled=cancelled,
        today=day,
    )


def test_an_invoice_is_late_the_day_after_it_was_due() -> None:
    assert on(DUE) is Standing.OPEN
    assert on(DUE + timedelta(days=1)) is Standing.LATE


def test_a_part_paid_invoice_that_is_late_is_late() -> None:
    assert on(DUE, paid_minor=1) is Standing.PART_PAID
    assert on(DUE + timedelta(days=1), paid_minor=1) is Standing.LATE


def test_a_reference_can_be_paid_by_until_the_day_it_expires() -> None:
    assert on(date(2027, 11, 30)) is Standing.LATE
    assert on(date(2027, 12, 1)) is Standing.EXPIRED


def test_paid_and_cancelled_stay_so_for_ever() -> None:
    assert on(date(2040, 1, 1), paid_minor=16352) is Standing.PAID
    assert on(date(2040, 1, 1), owed_minor=0) is Standing.CLEARED
    assert on(date(2040, 1, 1), cancelled=True) is Standing.CANCELLED


@given(day=st.dates(date(2021, 1, 1), date(2060, 1, 1)), months=st.integers(0, 120))
def test_an_expiry_is_a_day_of_the_month_it_should_be(day: date, months: int) -> None:
    expires = expiry_of(day, months)
    assert (expires.year * 12 + expires.month) - (day.year * 12 + day.month) == months
    assert expires.day == day.day or (expires + timedelta(days=1)).day == 1


def test_a_payer_sees_what_is_due_and_why(database: str) -> None:
    [reference] = some_invoices()
    invoice = shown(reference)
    assert (invoice.standing, invoice.due_minor, invoice.due_on) == (Standing.OPEN, 16352, DUE)
    [line] = invoice.lines
    assert line.amount_minor == 16352
    assert line.facts == {
        "form": "share-of-smig",
        "coefficient": "0.75",
        "smig": "17.92",
        "hours": "191",
        "rate": "6.37",
    }
    assert not line.verified


def test_an_announced_payment_is_shown_before_it_is_money(database: str) -> None:
    [reference] = some_invoices()
    record(a_report(reference, statement=Statement.PENDING, provider_payment_id="P1"))
    invoice = shown(reference)
    assert [p.status for p in invoice.announced] == [PaymentStatus.PENDING]
    assert (invoice.due_minor, invoice.booked) == (16352, ())
    record(a_report(reference, provider_payment_id="P1", stated_at=NOON + timedelta(minutes=1)))
    invoice = shown(reference)
    assert invoice.announced == ()
    assert [p.allocated_minor for p in invoice.booked] == [16352]
    seal()
    assert broken_promises() == []


def test_an_announcement_for_nobodys_reference_that_becomes_money_is_in_suspense(
    database: str,
) -> None:
    [reference] = some_invoices()
    early = a_report(reference, statement=Statement.PENDING, provider_payment_id="P1")
    record(early)
    record(
        a_report("148275036141", provider_payment_id="P1", stated_at=NOON + timedelta(minutes=1))
    )
    assert rows_of(database, "SELECT invoice_id FROM payment") == [(None,)]
    assert balances()["suspense:unidentified"] == -16352
    assert shown(reference).payments == ()


def test_many_are_read_in_the_order_asked_for(database: str) -> None:
    references = some_invoices(3)
    with transaction() as session:
        ids = list(
            execute(
                session,
                "SELECT id FROM invoice WHERE reference = ANY(:all) ORDER BY reference DESC",
                {"all": references},
            ).scalars()
        )
    with snapshot() as session:
        found = present_ids(session, ids, now=NOON, validity_months=12)
    assert [p.invoice_id for p in found] == ids
    assert [p.reference for p in found] == sorted(references, reverse=True)


def test_initials_say_no_name() -> None:
    person = Person("El Idrissi", "Fatima-Zahra", "الإدريسي", "فاطمة الزهراء", "1", None)
    assert person.initials == "F. Z. E. I."
    assert person.initials_ar == "ف. ز. إ."
    assert Person("Alaoui", "Amina", None, "أمينة", "1", None).initials_ar is None


# -- cancelled ------------------------------------------------------------------------------------


def cancel(session: Session, reference: str) -> None:
    cancel_invoice(session, reference, because="issued in error", now=NOON)


def test_money_for_a_cancelled_invoice_is_the_payers_credit(database: str) -> None:
    [reference] = some_invoices()
    with transaction() as session:
        cancel(session, reference)
    assert record(a_report(reference)) == ["booked"]
    assert rows_of(database, "SELECT code FROM coded_exception") == [("paid_cancelled",)]
    assert rows_of(database, "SELECT paid_minor, status FROM invoice") == [(0, "open")]
    [credit] = [code for code in balances() if code.startswith("credit:")]
    assert balances()[credit] == -16352
    invoice = shown(reference)
    assert (invoice.standing, invoice.due_minor) == (Standing.CANCELLED, 0)
    seal()
    assert broken_promises() == []


def test_an_invoice_with_money_on_it_is_not_cancelled(database: str) -> None:
    [reference] = some_invoices()
    record(a_report(reference, amount_minor=100))
    with pytest.raises(Unusable, match=r"1\.00 MAD paid"), transaction() as session:
        cancel(session, reference)


def test_it_is_cancelled_once_and_for_ever(database: str) -> None:
    [reference] = some_invoices()
    with transaction() as session:
        cancel(session, reference)
    with pytest.raises(Unusable, match="2026-11-18"), transaction() as session:
        cancel(session, reference)
    with (
        pytest.raises(Exception, match="a fact was to change"),
        transaction() as session,
    ):
        execute(session, "UPDATE invoice SET cancelled_at = NULL, cancelled_because = NULL")


def test_an_unknown_reference_is_not_cancelled(database: str) -> None:
    with pytest.raises(Unusable, match="1482 7503 6141"), transaction() as session:
        cancel(session, "148275036141")
