"""What a report does to a payment: properties of the pure decision, and the ordinary cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.accounts import PAYABLE, SUSPENSE, Posting
from gateway.booking import (
    CLOCK_SKEW_MAX,
    PAID_AT_AGE_MAX,
    Decision,
    InvoiceState,
    PaymentState,
    decide,
    first_state,
)
from gateway.models import ExceptionCode, PaymentStatus
from gateway.references import format_reference, with_check_digits
from gateway.reports import PaymentReport, Statement
from tests.factories import NOON, a_report

REFERENCE = with_check_digits(1_000_000_000)
OTHER_REFERENCE = with_check_digits(2_000_000_000)
REFERENCE_WITH_SPACES = format_reference(REFERENCE)
DUE = 16352


class Till:
    """A payment, its invoice and the postings so far, driven as gateway.payments drives them."""

    def __init__(self, invoice: InvoiceState | None) -> None:
        self.invoice = invoice
        self.payment: PaymentState | None = None
        self.posted: list[Posting] = []
        self.decisions: list[Decision] = []
        self.allocated_minor = 0

    def say(self, report: PaymentReport) -> Decision:
        if self.payment is None:
            self.payment = first_state(report, now=NOON)
        known = self.payment.booked_at is not None
        invoice = self.invoice
        if (known and self.payment.invoice_id is None) or (
            not known and report.reference_given != REFERENCE
        ):
            invoice = None
        decision = decide(self.payment, invoice, report, now=NOON)
        self.posted += decision.postings
        self.allocated_minor += decision.allocated_minor
        self.decisions.append(decision)
        return decision

    @property
    def status(self) -> PaymentStatus:
        assert self.payment is not None
        return self.payment.status

    def net_minor(self, prefix: str = "clearing:cashplus") -> int:
        """Debits less credits of an account."""
        return sum(p.amount_minor for p in self.posted if p.debit == prefix) - sum(
            p.amount_minor for p in self.posted if p.credit == prefix
        )

    def codes(self) -> list[ExceptionCode]:
        return [note.code for decision in self.decisions for note in decision.notes]


def an_invoice(amount_minor: int = DUE, paid_minor: int = 0) -> InvoiceState:
    return InvoiceState(7, REFERENCE, 42, amount_minor, paid_minor)


def said(
    statement: Statement, minutes: int = 0, *, amount_minor: int = DUE, **values: Any
) -> PaymentReport:
    """Return a report about the payment P, stated that many minutes after noon."""
    return a_report(
        values.pop("reference", REFERENCE),
        provider_payment_id="P",
        statement=statement,
        amount_minor=amount_minor,
        stated_at=NOON + timedelta(minutes=minutes),
        **values,
    )


def told(invoice: InvoiceState | None, *reports: PaymentReport) -> Till:
    till = Till(invoice)
    for report in reports:
        till.say(report)
    return till


amounts = st.integers(1, 2 * DUE) | st.sampled_from([1, DUE - 1, DUE, DUE + 1, 10**12])
reports_about_one_payment = st.builds(
    said,
    st.sampled_from(Statement),
    st.integers(0, 6),
    amount_minor=amounts,
    reference=st.sampled_from([REFERENCE, REFERENCE_WITH_SPACES, "no such thing", OTHER_REFERENCE]),
    paid_at=st.none() | st.datetimes(timezones=st.just(NOON.tzinfo)),
)
reports_of_one_money = st.builds(said, st.sampled_from(Statement), st.integers(0, 6))
C, P, F, R = Statement.COMPLETED, Statement.PENDING, Statement.FAILED, Statement.REVERSED


@st.composite
def invoices(draw: st.DrawFn) -> InvoiceState | None:
    amount = draw(amounts)
    paid = draw(st.integers(0, amount) | st.sampled_from([0, amount]))
    return draw(st.sampled_from([None, an_invoice(amount, paid)]))


def copy(invoice: InvoiceState | None) -> InvoiceState | None:
    return None if invoice is None else replace(invoice)


# -- properties -----------------------------------------------------------------------------------


@given(invoices(), st.lists(reports_about_one_payment, min_size=1, max_size=10))
def test_the_net_of_all_postings_is_nothing_or_the_amount_of_the_report_that_stands(
    invoice: InvoiceState | None, reports: list[PaymentReport]
) -> None:
    till = Till(invoice)
    for report in reports:
        till.say(report)
        assert till.payment is not None
        booked = till.status is PaymentStatus.BOOKED
        assert till.net_minor() == (till.payment.report.amount_minor if booked else 0)
        assert till.net_minor() == sum(p.amount_minor for p in till.payment.postings)


@given(invoices(), st.lists(reports_about_one_payment, min_size=1, max_size=10))
def test_an_invoice_never_takes_more_than_is_due_nor_gives_back_more_than_it_took(
    invoice: InvoiceState | None, reports: list[PaymentReport]
) -> None:
    due, paid = (invoice.due_minor, invoice.paid_minor) if invoice else (0, 0)
    till = Till(invoice)
    for report in reports:
        till.say(report)
        assert 0 <= till.allocated_minor <= due
        assert till.net_minor(PAYABLE) == -till.allocated_minor
        if invoice is not None:
            assert invoice.paid_minor == paid + till.allocated_minor
            assert 0 <= invoice.paid_minor <= invoice.amount_minor


@given(invoices(), st.lists(reports_about_one_payment, min_size=1, max_size=10))
def test_no_two_postings_ever_have_one_name_and_each_taking_back_names_what_it_takes_back(
    invoice: InvoiceState | None, reports: list[PaymentReport]
) -> None:
    till = told(invoice, *reports)
    by_name = {p.name: p for p in till.posted}
    assert len(by_name) == len(till.posted)
    for posting in till.posted:
        assert posting.amount_minor > 0
        if posting.reverses is not None:
            assert posting == by_name[posting.reverses].opposite()


# Of several moneys the first that was booked stands; before that a person is asked which.
@given(
    invoices(),
    st.lists(reports_of_one_money, min_size=1, max_size=8)
    | st.lists(reports_about_one_payment, max_size=8).map(lambda rest: [said(C), *rest]),
)
def test_repeating_all_that_was_said_moves_no_money_and_changes_no_state(
    invoice: InvoiceState | None, reports: list[PaymentReport]
) -> None:
    till = told(invoice, *reports)
    assert till.payment is not None
    before = (list(till.posted), copy(till.invoice), replace(till.payment))
    for report in reports:
        till.say(report)
    assert (till.posted, till.invoice, till.payment) == before


@given(invoices(), st.lists(reports_about_one_payment, min_size=1, max_size=8))
@example(an_invoice(), [said(Statement.PENDING, 1), said(Statement.COMPLETED)])
def test_money_that_was_completed_and_never_taken_back_is_in_the_books(
    invoice: InvoiceState | None, reports: list[PaymentReport]
) -> None:
    stated = {report.statement for report in reports}
    till = told(invoice, *reports)
    if Statement.COMPLETED in stated and not stated & {Statement.FAILED, Statement.REVERSED}:
        assert till.status is PaymentStatus.BOOKED
    if Statement.COMPLETED not in stated:
        assert till.posted == []


def _settled(till: Till) -> tuple[PaymentStatus, int, int, int]:
    return till.status, till.net_minor(), till.net_minor(PAYABLE), till.allocated_minor


def _comes_back_to_life(reports: Sequence[PaymentReport]) -> bool:
    """Say whether money is stated to be held after it was stated to be given back."""
    ordered = sorted(reports, key=lambda r: r.stated_at)
    given_back = held = False
    for report in ordered:
        if report.statement is Statement.COMPLETED:
            if given_back:
                return True
            held = True
        if report.statement is Statement.REVERSED:
            given_back = True
        if report.statement is Statement.FAILED and held:
            given_back = True
    return False


@st.composite
def shuffled_histories(draw: st.DrawFn) -> tuple[list[PaymentReport], list[PaymentReport]]:
    """Reports of one money at distinct times, in the order of their times and in another."""
    statements = draw(st.lists(st.sampled_from(Statement), min_size=1, max_size=6))
    ordered = [said(statement, at) for at, statement in enumerate(statements)]
    return ordered, draw(st.permutations(ordered))


def _history(statements: Sequence[Statement], order: Sequence[int]) -> Any:
    ordered = [said(statement, at) for at, statement in enumerate(statements)]
    return ordered, [ordered[at] for at in order]


@given(invoices(), shuffled_histories())
@example(an_invoice(), _history([C, P], [1, 0]))
@example(an_invoice(), _history([C, R, P], [0, 2, 1]))
@example(an_invoice(), _history([C, F], [1, 0]))
def test_the_same_reports_in_any_order_end_in_the_same_status_and_money(
    invoice: InvoiceState | None, histories: tuple[list[PaymentReport], list[PaymentReport]]
) -> None:
    ordered, shuffled = histories
    if _comes_back_to_life(ordered):
        return  # A person decides; see the next test.
    assert _settled(told(copy(invoice), *shuffled)) == _settled(told(copy(invoice), *ordered))


@given(st.integers(1, 3), st.permutations(range(4)))
@example(1, [1, 0])
def test_money_completed_after_it_was_given_back_is_booked_and_a_person_is_told_in_any_order(
    given_back: int, order: list[int]
) -> None:
    ordered = [said(R, at) for at in range(given_back)] + [said(C, given_back)]
    till = told(an_invoice(), *(ordered[at] for at in order if at < len(ordered)))
    assert (till.status, till.net_minor()) == (PaymentStatus.BOOKED, DUE)
    assert ExceptionCode.CONFLICTING_PAYMENT in till.codes()


@given(st.lists(st.integers(0, 6), min_size=1, max_size=3), st.integers(0, 6), st.data())
def test_a_declined_try_keeps_no_money_out_whenever_it_is_dated(
    declined: list[int], completed: int, data: st.DataObject
) -> None:
    reports = [said(Statement.DECLINED, at) for at in declined] + [said(C, completed)]
    till = told(an_invoice(), *data.draw(st.permutations(reports)))
    assert (till.status, till.net_minor()) == (PaymentStatus.BOOKED, DUE)
    assert till.codes() == []


# -- the ordinary cases ---------------------------------------------------------------------------

BOOKED, REVERSED = PaymentStatus.BOOKED, PaymentStatus.REVERSED
PENDING, FAILED = PaymentStatus.PENDING, PaymentStatus.FAILED
OVERPAID, PAID_TWICE = ExceptionCode.OVERPAID, ExceptionCode.PAID_TWICE
CONFLICT = ExceptionCode.CONFLICTING_PAYMENT


@pytest.mark.parametrize(
    ("paid_before", "reports", "status", "paid", "credit", "outcomes", "codes"),
    [
        pytest.param(0, [said(C, amount_minor=100)], BOOKED, 100, 0, "booked", [], id="a part"),
        pytest.param(0, [said(C)], BOOKED, DUE, 0, "booked", [], id="exactly"),
        pytest.param(
            0, [said(C, amount_minor=DUE + 1)], BOOKED, DUE, 1, "booked", [OVERPAID], id="too much"
        ),
        pytest.param(DUE - 5, [said(C)], BOOKED, DUE, DUE - 5, "booked", [OVERPAID], id="the rest"),
        pytest.param(DUE, [said(C)], BOOKED, DUE, DUE, "booked", [PAID_TWICE], id="paid twice"),
        pytest.param(0, [said(P)], PENDING, 0, 0, "noted", [], id="pending"),
        pytest.param(0, [said(F)], FAILED, 0, 0, "noted", [], id="failed"),
        pytest.param(
            0, [said(P), said(C, 1)], BOOKED, DUE, 0, "noted booked", [], id="pending, completed"
        ),
        pytest.param(
            0, [said(F), said(C, 1)], BOOKED, DUE, 0, "noted booked", [], id="failed, completed"
        ),
        pytest.param(
            0, [said(C), said(C, 9)], BOOKED, DUE, 0, "booked repeated", [], id="completed again"
        ),
        pytest.param(
            0, [said(C), said(R, 1)], REVERSED, 0, 0, "booked reversed", [], id="given back"
        ),
        pytest.param(
            0, [said(C), said(F, 1)], REVERSED, 0, 0, "booked reversed", [], id="failed after all"
        ),
        pytest.param(
            5,
            [said(C), said(R, 1), said(R, 2)],
            REVERSED,
            5,
            0,
            "booked reversed repeated",
            [OVERPAID],
            id="given back twice",
        ),
        pytest.param(
            0, [said(R, 1), said(C)], REVERSED, 0, 0, "reversed repeated", [], id="reversed before"
        ),
        pytest.param(
            0,
            [said(C), said(R, 1), said(C, 2)],
            REVERSED,
            0,
            0,
            "booked reversed conflicting",
            [CONFLICT],
            id="completed after reversed",
        ),
        pytest.param(
            0,
            [said(C), said(C, 1, amount_minor=DUE - 1)],
            BOOKED,
            DUE,
            0,
            "booked conflicting",
            [CONFLICT],
            id="another amount",
        ),
        pytest.param(
            0,
            [said(C), said(R, 1, amount_minor=DUE - 1)],
            BOOKED,
            DUE,
            0,
            "booked conflicting",
            [CONFLICT],
            id="a part given back",
        ),
        pytest.param(
            0,
            [said(C), said(C, 1, reference=OTHER_REFERENCE)],
            BOOKED,
            DUE,
            0,
            "booked conflicting",
            [CONFLICT],
            id="another reference",
        ),
        pytest.param(
            0,
            [said(C), said(C, 1, reference=REFERENCE_WITH_SPACES)],
            BOOKED,
            DUE,
            0,
            "booked repeated",
            [],
            id="the same reference, written otherwise",
        ),
        pytest.param(
            0,
            [said(P, amount_minor=1), said(C, 1)],
            BOOKED,
            DUE,
            0,
            "noted booked",
            [],
            id="announced with another amount",
        ),
        pytest.param(
            0,
            [said(C), said(R)],
            REVERSED,
            0,
            0,
            "booked reversed",
            [],
            id="at one instant the further wins",
        ),
    ],
)
def test_the_ordinary_cases_come_out_as_the_rules_say(
    paid_before: int,
    reports: list[PaymentReport],
    status: PaymentStatus,
    paid: int,
    credit: int,
    outcomes: str,
    codes: list[ExceptionCode],
) -> None:
    invoice = an_invoice(paid_minor=paid_before)
    till = told(invoice, *reports)
    assert till.status is status
    assert invoice.paid_minor == paid
    assert -till.net_minor("credit:42") == credit
    assert [d.outcome for d in till.decisions] == outcomes.split()
    assert till.codes() == codes


def test_money_for_an_unknown_reference_waits_in_suspense_and_a_person_is_told() -> None:
    till = told(an_invoice(), said(C, reference="no such thing"))
    assert (till.net_minor(), till.net_minor(SUSPENSE)) == (DUE, -DUE)
    assert till.codes() == [ExceptionCode.UNKNOWN_REFERENCE]
    till.say(said(R, 1, reference="no such thing"))
    assert (till.net_minor(), till.net_minor(SUSPENSE)) == (0, 0)


@pytest.mark.parametrize(
    ("paid_at", "believed"),
    [
        (NOON, True),
        (NOON - timedelta(days=10), True),
        (NOON - PAID_AT_AGE_MAX, True),
        (NOON - PAID_AT_AGE_MAX - timedelta(seconds=1), False),
        (NOON + CLOCK_SKEW_MAX, True),
        (NOON + CLOCK_SKEW_MAX + timedelta(seconds=1), False),
        (None, False),
    ],
)
def test_an_implausible_day_is_replaced_by_ours_and_the_money_is_booked_all_the_same(
    paid_at: datetime | None, believed: bool
) -> None:
    till = told(an_invoice(), said(C, paid_at=paid_at))
    assert till.payment is not None
    assert till.payment.paid_at == (paid_at if believed else NOON)
    assert till.codes() == ([] if believed else [ExceptionCode.IMPLAUSIBLE_DATE])
    assert till.net_minor() == DUE
