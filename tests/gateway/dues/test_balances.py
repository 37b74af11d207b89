"""What an invoice comes to on a day: worked out by hand, and what must hold for any facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dues.balances import Bill, Claim, Note, Relief, balance
from gateway.models import Component, LineKind

DUE_ON = date(2026, 1, 31)
AMOUNT = 16_352
BILL = Bill(AMOUNT, DUE_ON)
TODAY = date(2026, 9, 15)
PRINCIPAL, PENALTY, FEE = Component.PRINCIPAL, Component.PENALTY, Component.FEE
ADJUSTMENT = LineKind.ADJUSTMENT


def one_percent(_: date) -> Decimal:
    return Decimal("0.01")


def due(bill: Bill, on: date, *claims: Claim) -> tuple[int, int, int]:
    """Return what is due of principal, penalty and fees."""
    found = balance(bill, claims, one_percent, on)
    return found.due[PRINCIPAL], found.due[PENALTY], found.due[FEE]


@pytest.mark.parametrize(
    ("on", "penalty", "months"),
    [
        (date(2026, 1, 1), 0, 0),
        (date(2026, 1, 31), 0, 0),
        (date(2026, 2, 1), 164, 1),  # 163.52
        (date(2026, 2, 28), 164, 1),
        (date(2026, 3, 1), 327, 2),  # 327.04: one rounding, not twice 164
        (date(2026, 8, 31), 1_145, 7),  # 1 144.64
    ],
)
def test_each_month_begun_after_the_due_month_adds_one_percent(
    on: date, penalty: int, months: int
) -> None:
    assert due(BILL, on) == (AMOUNT, penalty, 0)
    assert balance(BILL, (), one_percent, on).penalty_months == months


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        # All in time; all a day late; the principal alone, late: the penalty stays and grows not.
        ([Claim("a", DUE_ON, AMOUNT)], (0, 0, 0)),
        ([Claim("a", date(2026, 2, 1), AMOUNT + 164)], (0, 0, 0)),
        ([Claim("a", date(2026, 2, 1), AMOUNT)], (0, 164, 0)),
        # Half in time: 81.76 a month from then, 8 months, 654.08.
        ([Claim("a", DUE_ON, 8_176)], (8_176, 654, 0)),
        # Half in time, half in March: two months of 81.76.
        ([Claim("a", DUE_ON, 8_176), Claim("b", date(2026, 3, 2), 8_176)], (0, 164, 0)),
    ],
)
def test_payments_stop_the_penalty_on_what_they_pay(
    claims: list[Claim], expected: tuple[int, int, int]
) -> None:
    assert due(BILL, TODAY, *claims) == expected
    assert due(BILL, TODAY, *reversed(claims)) == expected


MARCH = date(2026, 3, 10)


@pytest.mark.parametrize(
    ("bill", "expected"),
    [
        # A credit counts from the beginning: 8 months of 1 % of 100.00.
        (replace(BILL, notes=[Note(ADJUSTMENT, -6_352, MARCH)]), (10_000, 800, 0)),
        # There and back: as if nothing had been.
        (
            replace(
                BILL, notes=[Note(ADJUSTMENT, -6_352, MARCH), Note(ADJUSTMENT, 6_352, MARCH, MARCH)]
            ),
            (AMOUNT, 1_308, 0),
        ),
        # A charge has a due day of its own: 1 308.16 and 5 months (May to September) of 10.00.
        (
            replace(BILL, notes=[Note(ADJUSTMENT, 1_000, MARCH, date(2026, 4, 30))]),
            (17_352, 1_358, 0),
        ),
        (replace(BILL, notes=[Note(LineKind.FEE, 2_500, MARCH, MARCH)]), (AMOUNT, 1_308, 2_500)),
        # All remitted of the penalty of February and March; it grows on, 6 months more.
        (replace(BILL, reliefs=[Relief(MARCH, penalty_rate=Decimal(1))]), (AMOUNT, 981, 0)),
        (
            replace(BILL, reliefs=[Relief(MARCH, penalty_rate=Decimal(1), stops_penalty=True)]),
            (AMOUNT, 0, 0),
        ),
        # What is charged after the stop grows as ever: 4 months (June to September) of 10.00.
        (
            replace(
                BILL,
                notes=[Note(ADJUSTMENT, 1_000, date(2026, 4, 1), date(2026, 5, 31))],
                reliefs=[Relief(MARCH, penalty_rate=Decimal(1), stops_penalty=True)],
            ),
            (17_352, 40, 0),
        ),
        # Half of it, and half of the principal, too: 163.5 remitted, half up.
        (
            replace(
                BILL,
                reliefs=[Relief(MARCH, Decimal("0.5"), Decimal("0.5"), stops_penalty=True)],
            ),
            (8_176, 163, 0),
        ),
        # Broken: as if it had never been granted.
        (
            replace(
                BILL,
                reliefs=[Relief(MARCH, Decimal(1), Decimal(1), stops_penalty=True, ended_on=TODAY)],
            ),
            (AMOUNT, 1_308, 0),
        ),
        (replace(BILL, cancelled=True), (0, 0, 0)),
    ],
)
def test_what_was_changed_since_counts_from_its_day(
    bill: Bill, expected: tuple[int, int, int]
) -> None:
    assert due(bill, TODAY) == expected


def test_a_breach_counts_from_its_day_and_not_before() -> None:
    relief = Relief(MARCH, penalty_rate=Decimal(1), stops_penalty=True, ended_on=TODAY)
    bill = replace(BILL, reliefs=[relief])
    assert due(bill, TODAY - timedelta(days=1)) == (AMOUNT, 0, 0)
    assert due(bill, TODAY) == (AMOUNT, 1_308, 0)


days = st.dates(date(2025, 12, 1), TODAY)
shares = st.integers(0, 4).map(lambda n: Decimal(n) / 4)


@st.composite
def bills(draw: st.DrawFn) -> Bill:
    """Invoices with notes that never take off more than is charged, and with reliefs."""
    charged, notes = AMOUNT, []
    for on in sorted(draw(st.lists(days, max_size=4))):
        minor = draw(st.integers(-charged, AMOUNT).filter(bool))
        charged += minor
        due_on = on + timedelta(days=20) if minor > 0 else None
        notes.append(Note(ADJUSTMENT, minor, on, due_on))
        if draw(st.booleans()):
            notes.append(Note(LineKind.FEE, draw(st.integers(1, 999)), on, on))
        if not charged:
            break
    reliefs = [
        Relief(granted, draw(shares), draw(shares), draw(shares), draw(st.booleans()), ended)
        for granted, ended in draw(st.lists(st.tuples(days, st.none() | days), max_size=2))
    ]
    return Bill(AMOUNT, DUE_ON, notes, reliefs)


@st.composite
def claims(draw: st.DrawFn) -> Sequence[Claim]:
    drawn = draw(st.lists(st.tuples(days, st.integers(1, 2 * AMOUNT)), max_size=5))
    return [Claim(n, day, minor) for n, (day, minor) in enumerate(drawn)]


@given(bills(), claims(), st.data())
def test_no_centime_appears_or_vanishes_and_the_order_given_matters_to_no_sum(
    bill: Bill, given_claims: Sequence[Claim], data: st.DataObject
) -> None:
    found = balance(bill, given_claims, one_percent, TODAY)
    assert found.paid_minor == sum(placed.amount_minor for placed in found.placed)
    assert found.paid_minor + sum(found.left.values()) == sum(
        claim.amount_minor for claim in given_claims
    )
    assert all(minor >= 0 for minor in (*found.due.values(), *found.left.values()))
    assert found.paid_minor <= found.owed_minor
    other = balance(bill, data.draw(st.permutations(given_claims)), one_percent, TODAY)
    assert (other.due, other.paid_minor, other.owed_minor) == (
        found.due,
        found.paid_minor,
        found.owed_minor,
    )


@given(bills(), claims())
def test_without_more_time_going_by_it_comes_to_what_is_kept_with_the_invoice(
    bill: Bill, given_claims: Sequence[Claim]
) -> None:
    """So that the sums can be kept, and worked out again on any later day."""
    now, later = (
        balance(bill, given_claims, one_percent, on) for on in (TODAY, TODAY + timedelta(days=500))
    )
    assert (later.paid_minor, later.owed_minor, later.placed) == (
        now.paid_minor,
        now.owed_minor,
        now.placed,
    )


@given(bills(), claims())
def test_who_pays_what_is_due_owes_nothing_ever_after(
    bill: Bill, given_claims: Sequence[Claim]
) -> None:
    minor = balance(bill, given_claims, one_percent, TODAY).due_minor
    paid = [*given_claims, Claim("last", TODAY, minor)] if minor else given_claims
    assert balance(bill, paid, one_percent, TODAY + timedelta(days=500)).due_minor == 0
