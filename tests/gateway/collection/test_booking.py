"""What a report does to a payment: properties of the pure decision, and the ordinary cases."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.books.accounts import PAYABLE, SUSPENSE, Posting
from gateway.collection.booking import (
    CLOCK_SKEW_MAX,
    PAID_AT_AGE_MAX,
    Decision,
    decide,
    first_state,
)
from gateway.collection.placements import BundleState, InvoiceState, PaymentState, Quoted
from gateway.collection.reports import PaymentReport, Statement
from gateway.dues.balances import Bill
from gateway.models import Component, ExceptionCode, PaymentStatus
from gateway.references import format_reference, with_check_digits
from tests.factories import NOON, a_report

REFERENCE = with_check_digits(1_000_000_000)
OTHER_REFERENCE = with_check_digits(2_000_000_000)
REFERENCE_WITH_SPACES = format_reference(REFERENCE)
DUE = 16352


class Till:
    """A payment, what it quotes and the postings so far, driven as booking payments drives them."""

    def __init__(self, invoice: Quoted | None) -> None:
        self.invoice = invoice
        self.invoices = {i.id: i for i in _invoices_of(invoice)}
        self.payment: PaymentState | None = None
        self.posted: list[Posting] = []
        self.decisions: list[Decision] = []
        self.allocated_minor = 0

    def say(self, report: PaymentReport) -> Decision:
        if self.payment is None:
            self.payment = first_state(report, now=NOON)
        known = self.payment.booked_at is not None
        invoice = self.invoice
        if (known and self.payment.invoice_id is None and self.payment.bundle_id is None) or (
            not known and report.reference_given != REFERENCE
        ):
            invoice = None
        decision = decide(self.payment, invoice, report, invoices=self.invoices, now=NOON)
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


def _invoices_of(quoted: Quoted | None) -> list[InvoiceState]:
    match quoted:
        case InvoiceState():
            return [quoted]
        case BundleState():
            return quoted.invoices
        case None:
            return []


def one_percent(_: date) -> Decimal:
    return Decimal("0.01")


def an_invoice(
    amount_minor: int = DUE, paid_minor: int = 0, *, at: int = 7, cancelled: bool = False
) -> InvoiceState:
    """Return an invoice of November that another payment paid before, as far as is said."""
    invoice = InvoiceState(
        id=at,
        reference=REFERENCE,
        contributor_id=42,
        period="2026-11",
        bill=Bill(amount_minor, date(2026, 11, 30), cancelled=cancelled),
        paid_minor=paid_minor,
        owed_minor=amount_minor,
        rates=one_percent,
    )
    if paid_minor:
        before = first_state(a_report(REFERENCE, amount_minor=paid_minor), now=NOON)
        before.status, before.arrival, before.invoice_id = PaymentStatus.BOOKED, -1, at
        name = f"{before.name}/invoice"
        before.postings = [Posting(name, before.clearing, PAYABLE, paid_minor, invoice_id=at)]
        invoice.join(before)
        invoice.held[before.key] = {Component.PRINCIPAL: paid_minor}
    return invoice


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


def told(invoice: Quoted | None, *reports: PaymentReport) -> Till:
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
    return deepcopy(invoice)


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
    till = Till(invoice)
    for report in reports:
        till.say(report)
        assert till.allocated_minor >= 0
        assert till.net_minor(PAYABLE) == -till.allocated_minor
        if invoice is not None:
            held = {at: sum(parts.values()) for at, parts in invoice.held.items()}
            assert held.get(("cashplus", "P"), 0) == till.allocated_minor
            assert invoice.paid_minor == sum(held.values())
            assert 0 <= invoice.paid_minor <= invoice.owed_minor == invoice.bill.amount_minor


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
    before = deepcopy((till.posted, till.invoice, till.payment))
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


def a_bundle(contributor_id: int | None, *, withdrawn: bool = False) -> BundleState:
    return BundleState(
        id=3,
        reference=REFERENCE,
        policy="bundle-order-v1",
        contributor_id=contributor_id,
        withdrawn=withdrawn,
        invoices=[an_invoice(at=8), an_invoice(at=7, paid_minor=352)],
    )


@pytest.mark.parametrize(
    ("brings", "contributor_id", "withdrawn", "paid", "beyond", "codes"),
    [
        (100, 5, False, (100, 352), {}, []),
        (DUE + 100, 5, False, (DUE, 452), {}, []),
        (2 * DUE, 5, False, (DUE, DUE), {"credit:5": 352}, [OVERPAID]),
        (2 * DUE, None, False, (DUE, DUE), {SUSPENSE: 352}, [OVERPAID]),
        (DUE, 5, True, (0, 352), {"credit:5": DUE}, [ExceptionCode.PAID_CANCELLED]),
        (DUE, None, True, (0, 352), {SUSPENSE: DUE}, [ExceptionCode.PAID_CANCELLED]),
    ],
)
def test_a_bundle_is_paid_in_its_order_and_given_back_as_a_whole(
    brings: int,
    contributor_id: int | None,
    withdrawn: bool,
    paid: tuple[int, int],
    beyond: dict[str, int],
    codes: list[ExceptionCode],
) -> None:
    bundle = a_bundle(contributor_id, withdrawn=withdrawn)
    till = told(bundle, said(C, amount_minor=brings))
    assert tuple(each.paid_minor for each in bundle.invoices) == paid
    assert {code: -till.net_minor(code) for code in beyond} == beyond
    assert till.codes() == codes
    assert till.net_minor() == brings
    till.say(said(R, 1, amount_minor=brings))
    assert [each.paid_minor for each in bundle.invoices] == [0, 352]
    assert {till.net_minor(code) for code in ("clearing:cashplus", PAYABLE, *beyond)} == {0}


def test_money_for_a_cancelled_invoice_is_credit_for_a_person_to_decide() -> None:
    till = told(an_invoice(cancelled=True), said(C))
    assert till.net_minor("credit:42") == -DUE
    assert till.codes() == [ExceptionCode.PAID_CANCELLED]


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
        (NOON - timedelta(days=60), True),
        (NOON - timedelta(days=61), False),
        (NOON + timedelta(minutes=6), False),
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


def test_a_day_before_the_span_erases_no_penalty() -> None:
    """Our arrival decides, since a back-dated payment would serve for nothing else."""
    now = NOON + timedelta(days=90)
    for paid_at, penalty in ((now - PAID_AT_AGE_MAX, 164), (NOON, 491)):
        invoice = an_invoice()
        report = said(C, paid_at=paid_at, received_at=now, amount_minor=DUE + 500)
        payment = first_state(report, now=now)
        decide(payment, invoice, report, invoices={invoice.id: invoice}, now=now)
        assert invoice.paid_minor == DUE + penalty
