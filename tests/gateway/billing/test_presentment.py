from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import Session

from gateway.billing.invoices import cancel_invoice
from gateway.billing.presentment import (
    Person,
    Presentment,
    Standing,
    expiry_of,
    present,
    present_ids,
    standing_of,
)
from gateway.collection.reports import Statement
from gateway.db import execute, snapshot, transaction
from gateway.errors import Unusable
from gateway.models import LineKind, PaymentStatus
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
from tests.gateway.pages import states

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


# -- what a day and later facts make of it --------------------------------------------------------

NEXT: Final = datetime(2026, 12, 1, 9, tzinfo=UTC)
"""The day after the due day, when the first month of penalty has begun."""


def sums_up(invoice: Presentment) -> Presentment:
    """Return an invoice after a look at its sums."""
    assert sum(line.amount_minor for line in invoice.lines) == invoice.total_minor
    assert invoice.total_minor == invoice.paid_minor + invoice.due_minor
    return invoice


def test_what_is_late_is_due_with_its_penalty_and_says_until_when(database: str) -> None:
    [reference] = some_invoices()
    before, after = sums_up(shown(reference)), sums_up(shown(reference, NEXT))
    assert (before.due_minor, before.valid_until) == (16352, DUE)
    # 163.52 × 1 % = 1.6352
    assert (after.due_minor, after.valid_until) == (16516, date(2026, 12, 31))
    assert after.standing is Standing.LATE
    [_, penalty] = after.lines
    assert (penalty.kind, penalty.amount_minor, penalty.verified) == (LineKind.PENALTY, 164, False)
    assert penalty.facts == {"form": "late-months", "rate": "1", "months": "1"}


def test_who_pays_the_principal_late_still_owes_a_penalty_that_grows_no_more(
    database: str,
) -> None:
    [reference] = some_invoices()
    record(a_report(reference, paid_at=NEXT, stated_at=NEXT, received_at=NEXT), now=NEXT)
    later = sums_up(shown(reference, NEXT + timedelta(days=60)))
    assert (later.standing, later.due_minor, later.valid_until) == (Standing.LATE, 164, None)


def test_what_was_credited_and_charged_since_stands_among_the_lines(database: str) -> None:
    paid, charged = states.paid(), states.an_invoice()
    states.noted(paid, -5000)
    states.noted(charged, 5000, due_on=date(2027, 1, 31))
    less, more = sums_up(shown(paid)), sums_up(shown(charged))
    assert (less.standing, less.due_minor, less.paid_minor) == (Standing.PAID, 0, 11352)
    assert [(each.kind, each.noted_on) for each in more.lines] == [
        (LineKind.PRINCIPAL, None),
        (LineKind.ADJUSTMENT, NOON.date()),
    ]
    # What is unpaid is the charge alone, and it is to be paid by its own day.
    record(a_report(charged))
    rest = sums_up(shown(charged, NEXT))
    assert (rest.standing, rest.due_minor, rest.due_on) == (
        Standing.PART_PAID,
        5000,
        date(2027, 1, 31),
    )


def test_what_was_credited_in_full_is_cleared_and_not_paid(database: str) -> None:
    invoice = sums_up(shown(states.cleared()))
    assert (invoice.standing, invoice.total_minor) == (Standing.CLEARED, 0)


def test_a_remission_stands_among_the_lines_until_it_is_broken(database: str) -> None:
    [reference] = some_invoices()
    with transaction() as session:
        execute(
            session,
            """
            WITH r AS (INSERT INTO rule (rule, source, verified) VALUES ('all of it', 'x', true)
                RETURNING id),
            given AS (INSERT INTO remission (contributor_id, campaign, granted_on, granted_at)
                SELECT contributor_id, 'tns', '2027-01-05', :now FROM invoice RETURNING id)
            INSERT INTO invoice_relief (invoice_id, remission_id, granted_on, principal_rate,
                penalty_rate, fee_rate, stops_penalty, rule_id, ended_on, granted_at)
            SELECT invoice.id, given.id, '2027-01-05', 0, 0.5, 0, false, r.id, '2027-02-10', :now
            FROM invoice, r, given
            """,
            {"now": NOON},
        )

    def on_day(month: int, day: int) -> Presentment:
        return sums_up(shown(reference, datetime(2027, month, day, 12, tzinfo=UTC)))

    # Two months: 3.27; half of it is 1.635, and is rounded once.
    assert [line.amount_minor for line in on_day(1, 5).lines] == [16352, 327, -164]
    assert [line.amount_minor for line in on_day(2, 9).lines] == [16352, 491, -164]
    assert [line.amount_minor for line in on_day(2, 10).lines] == [16352, 491]


def test_money_that_quoted_another_reference_is_told_of_without_it(database: str) -> None:
    mine, other = states.an_invoice(), states.an_invoice("2026-10")
    record(a_report(states.several(mine, other), amount_minor=20000))
    invoice = sums_up(shown(mine))
    assert invoice.payments == ()
    [carried] = invoice.carried
    assert (carried.amount_minor, carried.together) == (16352, True)


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
