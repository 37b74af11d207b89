"""Which payment pays which part of an invoice: properties of the pure decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from gateway.books.accounts import PAYABLE
from gateway.collection.placements import (
    Holding,
    InvoiceState,
    Move,
    PaymentState,
    enter,
    give_back,
    place,
    settle,
    take_back,
    where_it_lies,
)
from gateway.dues.balances import Bill, Claim, Note, balance
from gateway.models import Component, LineKind, PaymentStatus
from tests.factories import a_report

DUE_ON = date(2026, 1, 31)
TODAY = date(2026, 6, 15)
PRINCIPAL, PENALTY, FEE = Component.PRINCIPAL, Component.PENALTY, Component.FEE
OWED = 10_000


def one_percent(_: date) -> Decimal:
    return Decimal("0.01")


def an_invoice(at: int = 1, bill: Bill | None = None) -> InvoiceState:
    return InvoiceState(
        id=at,
        reference=f"ref-{at}",
        contributor_id=42,
        period="2026-01",
        bill=bill or Bill(OWED, DUE_ON),
        paid_minor=0,
        owed_minor=OWED,
        rates=one_percent,
    )


class Till:
    """An invoice and its payments, as payments come in, in any order."""

    def __init__(self, invoice: InvoiceState | None = None) -> None:
        self.invoice = invoice or an_invoice()
        self.payments: dict[str, PaymentState] = {}

    def pay(self, named: str, day: date, amount_minor: int) -> PaymentState:
        at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        report = a_report(
            "", provider="p", provider_payment_id=named, amount_minor=amount_minor, paid_at=at
        )
        payment = PaymentState(
            report, PaymentStatus.BOOKED, at, at, at, self.invoice.id, arrival=len(self.payments)
        )
        self.payments[named] = payment
        enter(payment, self.invoice, amount_minor, TODAY)
        return payment

    def held(self) -> dict[tuple[str, Component], int]:
        return {
            (named, component): minor
            for (_, named), parts in self.invoice.held.items()
            for component, minor in parts.items()
        }

    def credit_minor(self) -> int:
        return sum(each.credit_minor for each in self.payments.values())

    def check(self) -> None:
        """What the transfers say is what the invoice holds, and nothing is lost."""
        payable = Counter[str]()
        for named, payment in self.payments.items():
            lies = where_it_lies(payment.postings)
            assert lies.suspense_minor == 0
            assert all(minor > 0 for minor in (*lies.credits.values(), *lies.payable.values()))
            payable[named] = lies.payable_minor
            names = [posting.name for posting in payment.postings]
            assert len(set(names)) == len(names)
        assert (
            +payable
            == Counter(
                {
                    named: sum(m for (n, _), m in self.held().items() if n == named)
                    for named in payable
                }
            )
            - Counter()
        )
        assert self.invoice.paid_minor == sum(payable.values()) <= self.invoice.owed_minor


days = st.dates(date(2025, 12, 1), TODAY)
amounts = st.integers(1, 2 * OWED) | st.sampled_from([OWED // 2, OWED, OWED + 100])
moneys = st.lists(st.tuples(days, amounts), min_size=1, max_size=6)


@given(moneys, st.data())
def test_the_order_of_arrival_matters_to_no_sum(
    money: list[tuple[date, int]], data: st.DataObject
) -> None:
    """Nor does it matter who among those of one day, and nothing is lost on the way."""
    ends = []
    for order in (range(len(money)), data.draw(st.permutations(range(len(money))))):
        till = Till()
        for at in order:
            till.pay(f"P{at}", *money[at])
            till.check()
        by_day = Counter[tuple[date, Component]]()
        for (named, component), minor in till.held().items():
            by_day[till.payments[named].paid_on, component] += minor
        brought = sum(amount for _, amount in money)
        assert till.invoice.paid_minor + till.credit_minor() == brought
        ends.append((till.invoice.paid_minor, till.invoice.owed_minor, by_day))
    assert ends[0] == ends[1]


def test_who_paid_in_time_comes_first_though_we_hear_of_it_late() -> None:
    till = Till()
    late = till.pay("B", date(2026, 2, 5), 10_100)
    assert till.held() == {("B", PRINCIPAL): OWED, ("B", PENALTY): 100}
    till.pay("A", date(2026, 1, 30), OWED)
    assert till.held() == {("A", PRINCIPAL): OWED}
    assert (late.credit_minor, till.invoice.owed_minor) == (10_100, OWED)
    assert [p.name for p in late.postings] == ["p/B/invoice", "p/B/moved/1/1"]
    till.check()


def test_those_of_one_day_keep_their_places() -> None:
    till = Till()
    till.pay("A", DUE_ON, OWED)
    other = till.pay("B", DUE_ON, OWED)
    assert till.held() == {("A", PRINCIPAL): OWED}
    assert [p.name for p in other.postings] == ["p/B/credit"]


@given(moneys, st.data())
def test_what_is_given_back_leaves_what_the_rest_would_have_come_to(
    money: list[tuple[date, int]], data: st.DataObject
) -> None:
    """A payment taken back, or a part of it, is as if it had never been so large."""
    till = Till()
    for at, (day, amount) in enumerate(money):
        till.pay(f"P{at}", day, amount)
    at = data.draw(st.integers(0, len(money) - 1))
    whole, payment = data.draw(st.booleans()), till.payments[f"P{at}"]
    day, amount = money[at]
    invoices = {till.invoice.id: till.invoice}
    if whole:
        take_back(payment, invoices, TODAY)
        left = 0
    else:
        back = data.draw(st.integers(1, amount))
        give_back(payment, invoices, back, TODAY, how="refund")
        left = amount - back
    till.check()
    claims = [
        Claim(n, *each) for n, each in enumerate([*money[:at], (day, left), *money[at + 1 :]])
    ]
    wanted = balance(till.invoice.bill, claims, one_percent, TODAY)
    assert (till.invoice.paid_minor, till.invoice.owed_minor) == (
        wanted.paid_minor,
        wanted.owed_minor,
    )


@given(moneys, st.integers(1, OWED))
def test_a_note_there_and_back_is_neutral(money: list[tuple[date, int]], credit: int) -> None:
    till = Till()
    for at, (day, amount) in enumerate(money):
        till.pay(f"P{at}", day, amount)
    before = (till.held(), till.invoice.paid_minor, till.invoice.owed_minor)
    there = Note(LineKind.ADJUSTMENT, -credit, TODAY)
    back = Note(LineKind.ADJUSTMENT, credit, TODAY, TODAY)
    for notes in ([there], [there, back]):
        till.invoice.bill = Bill(OWED, DUE_ON, notes)
        settle(till.invoice, TODAY)
        till.check()
        assert settle(till.invoice, TODAY) == []
    assert (till.held(), till.invoice.paid_minor, till.invoice.owed_minor) == before


@given(days, st.integers(0, 3), st.integers(0, OWED))
def test_who_pays_exactly_the_quote_owes_nothing(day: date, fees: int, before: int) -> None:
    notes = [Note(LineKind.FEE, 55, date(2026, 2, 1 + n), date(2026, 3, 1)) for n in range(fees)]
    # Fees that are noted later are no part of what was quoted.
    known = [note for note in notes if note.noted_on <= day]
    till = Till(an_invoice(bill=Bill(OWED, DUE_ON, known)))
    if before:
        till.pay("A", date(2025, 12, 1), before)
    claims = [Claim("A", date(2025, 12, 1), before)] if before else []
    quote = balance(till.invoice.bill, claims, one_percent, day).due_minor
    if quote:
        payment = till.pay("B", day, quote)
        assert payment.credit_minor == 0
        assert till.invoice.paid_minor == till.invoice.owed_minor
    found = balance(till.invoice.bill, [*claims, Claim("B", day, quote)], one_percent, TODAY)
    assert found.due_minor == 0


@st.composite
def _holdings(draw: st.DrawFn) -> list[Holding]:
    return [
        Holding(("p", str(n)), day, {PRINCIPAL: placed} if placed else {}, free)
        for n, (day, placed, free) in enumerate(
            draw(st.lists(st.tuples(days, st.integers(0, 99), st.integers(0, OWED)), max_size=5))
        )
    ]


@given(_holdings())
def test_moves_lead_to_what_the_balance_says_and_no_further(holdings: Sequence[Holding]) -> None:
    bill = Bill(OWED, DUE_ON)
    first = place(bill, holdings, one_percent, TODAY)
    parts = {each.key: Counter(each.placed) for each in holdings}
    for move in first.moves:
        parts[move.key][move.component] += move.amount_minor
    assert all(minor >= 0 for each in parts.values() for minor in each.values())
    settled = [
        Holding(
            each.key,
            each.paid_on,
            dict(parts[each.key]),
            each.free_minor + sum(each.placed.values()) - parts[each.key].total(),
        )
        for each in holdings
    ]
    assert all(each.free_minor >= 0 for each in settled)
    again = place(bill, settled, one_percent, TODAY)
    assert again.moves == []
    assert again.balance.paid_minor == sum(each.total() for each in parts.values())


def test_money_that_a_payers_clock_dates_tomorrow_counts_today() -> None:
    tomorrow = TODAY + timedelta(days=1)
    found = place(Bill(OWED, TODAY), [Holding(("p", "1"), tomorrow, {}, OWED)], one_percent, TODAY)
    assert found.moves == [Move(("p", "1"), PRINCIPAL, OWED)]


def test_transfers_say_where_the_money_went() -> None:
    till = Till()
    till.pay("A", DUE_ON, 4_000)
    payment = till.pay("B", DUE_ON, OWED)
    assert [(p.name, p.debit, p.credit, p.amount_minor) for p in payment.postings] == [
        ("p/B/invoice", "clearing:p", PAYABLE, 6_000),
        ("p/B/credit", "clearing:p", "credit:42", 4_000),
    ]
