"""What lines stand for: the decision alone, without a database."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from itertools import count
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciliation.sources.pairing import pair
from reconciliation.sources.sides import Covered, Line, Paid, Pairing, Rule, Terms

DAY: Final = date(2026, 11, 18)
_numbers = count(1)


def on(days: int) -> date:
    return DAY + timedelta(days=days)


def a_line(name: str, amount_minor: int = 100_00, day: int = 0, **other: object) -> Line:
    return replace(Line(next(_numbers), name, amount_minor, on(day)), **other)  # type: ignore[arg-type]


def paid(
    name: str,
    reference: str | None = None,
    amount_minor: int = 100_00,
    day: int = 0,
    **other: object,
) -> Paid:
    payment = Paid(
        next(_numbers), "bank", name, reference, amount_minor, amount_minor, on(day), "booked", True
    )
    return replace(payment, **other)  # type: ignore[arg-type]


def terms(*spans: tuple[int, int], chained: bool = True) -> Terms:
    covered = [Covered([(on(a), on(b)) for a, b in spans], chained)] if spans else []
    return Terms("bank", covered, timedelta(days=3), timedelta(days=7))


Outcome = tuple[list[tuple[Rule, str, str]], list[tuple[str, str]]]


def outcome(lines: Iterable[Line], payments: Iterable[Paid], under: Terms | None = None) -> Outcome:
    """Return the groups as rule, lines and payments, and what was found as code and subject."""
    pairing = pair(lines, payments, under or terms())
    groups = [
        (g.rule, " ".join(x.subject for x in g.lines), " ".join(p.payment_id for p in g.payments))
        for g in pairing.groups
    ]
    return sorted(groups), sorted((f.code.value, f.subject) for f in pairing.found)


def test_the_providers_id_is_the_surest() -> None:
    lines = [a_line("L", payment_ids=("X", "P2"), quoted=("R1",))]
    payments = [paid("P1", "R1"), paid("P2", "R2")]
    assert outcome(lines, payments) == ([(Rule.PAYMENT_ID, "L", "P2")], [])


def test_one_line_stands_for_one_payment() -> None:
    lines = [a_line("L1", payment_ids=("P",)), a_line("L2", payment_ids=("P",))]
    assert outcome(lines, [paid("P")]) == (
        [(Rule.PAYMENT_ID, "L1", "P")],
        [("record_without_payment", "L2")],
    )


def test_reference_amount_and_day_then_within_the_window() -> None:
    lines = [a_line("L1", quoted=("R",), day=2), a_line("L2", quoted=("R",), day=3)]
    payments = [paid("P1", "R", day=2), paid("P2", "R", day=0)]
    assert outcome(lines, payments) == (
        [
            (Rule.REFERENCE_IN_THE_WINDOW, "L2", "P2"),
            (Rule.REFERENCE_ON_THE_DAY, "L1", "P1"),
        ],
        [],
    )
    late = [a_line("L", quoted=("R",), day=8)]
    assert outcome(late, [paid("P", "R")]) == ([], [("record_without_payment", "L")])


def test_of_several_choices_none_is_taken() -> None:
    two = [paid("P1", "R"), paid("P2", "R")]
    assert outcome([a_line("L", quoted=("R",))], two, terms((0, 9))) == (
        [],
        [("ambiguous_match", "L")],
    )
    pairing = pair([a_line("L", quoted=("R",))], two, terms())
    assert pairing.found[0].detail["payments"] == ["bank/P1", "bank/P2"]
    # The same id at two providers that this sender pays for.
    same = [paid("P"), paid("P", provider="card")]
    assert outcome([a_line("L", payment_ids=("P",))], same) == ([], [("ambiguous_match", "L")])
    other = [same[0], replace(same[1], amount_minor=1, worth_minor=1)]
    assert outcome([a_line("L", payment_ids=("P",))], other)[0] == [(Rule.PAYMENT_ID, "L", "P")]


def test_what_takes_a_payment_back_goes_with_it() -> None:
    lines = [a_line("L", payment_ids=("P",)), a_line("B", -100_00, 1, payment_ids=("P",))]
    reversed_ = paid("P", worth_minor=0, status="reversed")
    assert outcome(lines, [reversed_]) == ([(Rule.PAYMENT_ID, "L B", "P")], [])
    # Taken back and ours still stands: the money is gone.
    assert outcome(lines, [paid("P")]) == ([], [("amount_differs", "L")])
    # By reference, if no id says it; the pair goes with its payment where there is one.
    lines = [a_line("L", quoted=("R",)), a_line("B", -100_00, 1, quoted=("R",))]
    assert outcome(lines, [paid("P", "R")]) == ([], [("amount_differs", "L")])
    assert outcome(lines, []) == ([(Rule.TAKEN_BACK, "L B", "")], [])
    # Sent again after it came back: the second one is the payment.
    again = [*lines, a_line("L2", day=2, quoted=("R",))]
    assert outcome(again, [paid("P", "R")], terms())[0] == [
        (Rule.REFERENCE_IN_THE_WINDOW, "L2", "P"),
        (Rule.TAKEN_BACK, "L B", ""),
    ]
    assert outcome([a_line("B", -5, payment_ids=("X",))], []) == (
        [],
        [("record_without_payment", "B")],
    )


def test_given_back_since_may_still_be_on_its_way() -> None:
    line = a_line("L", payment_ids=("P",))
    payment = paid("P", worth_minor=0, status="reversed", given_back_on=on(4))
    assert outcome([line], [payment], terms((0, 6))) == ([], [])
    assert outcome([line], [payment], terms((0, 7))) == ([], [("amount_differs", "L")])
    part = replace(payment, worth_minor=40_00, status="booked")
    assert outcome([line, a_line("B", -60_00, 5, payment_ids=("P",))], [part]) == (
        [(Rule.PAYMENT_ID, "L B", "P")],
        [],
    )


def test_other_amounts_and_other_states_are_asked_about() -> None:
    assert outcome([a_line("L", 90_00, payment_ids=("P",))], [paid("P")]) == (
        [],
        [("amount_differs", "L")],
    )
    # By the reference alone, where one line and one payment are left of it: one question, not two.
    assert outcome([a_line("L", 90_00, quoted=("R",))], [paid("P", "R")], terms((0, 9))) == (
        [],
        [("amount_differs", "L")],
    )
    failed = paid("P", was_booked=False, worth_minor=0, status="failed")
    assert outcome([a_line("L", payment_ids=("P",))], [failed]) == (
        [],
        [("record_without_payment", "L")],
    )


def test_a_batch_is_the_payments_of_a_day_if_only_one_day_comes_to_it() -> None:
    batch = a_line("L", 300_00, 2, is_whole=True)
    two = [paid("P1"), paid("P2", amount_minor=200_00)]
    assert outcome([batch], two) == ([(Rule.BATCH_OF_A_DAY, "L", "P1 P2")], [])
    assert outcome([replace(batch, batch_of=2, details_minor=5)], two)[1] == []
    none: Outcome = ([], [("record_without_payment", "L")])
    assert outcome([replace(batch, batch_of=3)], two) == none
    assert outcome([replace(batch, amount_minor=300_01)], two) == none
    assert outcome([replace(batch, is_whole=False)], two) == none
    # A single payment of the amount is no evidence where all owe the same.
    assert outcome([batch], [paid("P", amount_minor=300_00)]) == none
    other_day = [paid("P3", day=1), paid("P4", amount_minor=200_00, day=1)]
    assert outcome([batch], [*two, *other_day], terms((0, 9))) == ([], [("ambiguous_match", "L")])
    assert outcome([batch, replace(batch, key=0, subject="L0")], two)[1] == [
        ("ambiguous_match", "L"),
        ("ambiguous_match", "L0"),
    ]
    assert outcome([replace(batch, details_minor=299_00)], []) == ([], [("amount_differs", "L")])


def test_a_payment_is_missed_once_its_day_and_the_grace_are_covered() -> None:
    missed: Outcome = ([], [("payment_without_record", "settlement:payment:bank/P")])
    assert outcome([], [paid("P")], terms((0, 3))) == missed
    for under in (terms((0, 2)), terms((1, 9)), terms((0, 1), (3, 9)), terms()):
        assert outcome([], [paid("P")], under) == ([], [])
    # Files that do not follow on from one another: of this day, and others long enough after.
    assert outcome([], [paid("P")], terms((0, 0), (3, 3), chained=False)) == missed
    assert outcome([], [paid("P")], terms((1, 1), (9, 9), chained=False)) == ([], [])
    # Of two accounts either could show it.
    both = Terms("bank", [*terms((0, 9)).covered, *terms((5, 9)).covered], *_PATIENCE)
    assert outcome([], [paid("P")], both) == ([], [])
    other = paid("P", provider="card")
    assert outcome([], [other], terms((0, 3)))[1] == [
        ("payment_without_record", "settlement:payment:bank:card/P")
    ]
    assert outcome([], [paid("P", worth_minor=0, status="reversed")], terms((0, 9))) == ([], [])


def test_many_lines_and_payments_alike_do_not_cost_their_product() -> None:
    """Thousands may pay one reference the same: what is remembered of them grows as they do."""
    many = 2_000
    lines = [a_line(f"L{n}", quoted=("R",)) for n in range(many)]
    payments = [paid(f"P{n}", "R") for n in range(many)]
    tracemalloc.start()
    pairing = pair(lines, payments, terms())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {found.code.value for found in pairing.found} == {"ambiguous_match"}
    assert len(pairing.found) == many
    assert peak < 12_000_000


_PATIENCE: Final = (timedelta(days=3), timedelta(days=7))

_IDS: Final = st.sampled_from(["P1", "P2", "P3", "P4"])
_REFERENCES: Final = st.lists(st.sampled_from(["R1", "R2"]), max_size=2, unique=True).map(tuple)
_AMOUNTS: Final = st.sampled_from([100, 200, 300])


@st.composite
def sides(draw: st.DrawFn) -> tuple[list[Line], list[Paid]]:
    lines = [
        Line(
            key,
            f"L{key}",
            draw(_AMOUNTS) * draw(st.sampled_from([1, 1, 1, -1])),
            on(draw(st.integers(0, 3))),
            tuple(draw(st.lists(_IDS, max_size=1))),
            draw(_REFERENCES),
            draw(st.booleans()),
        )
        for key in range(draw(st.integers(0, 6)))
    ]
    payments = []
    for key, name in enumerate(draw(st.lists(_IDS, max_size=4, unique=True))):
        amount = draw(_AMOUNTS)
        worth = draw(st.sampled_from([amount, amount, 0]))
        reference = draw(st.sampled_from(["R1", "R2", None]))
        day = on(draw(st.integers(0, 2)))
        payments.append(Paid(key, "bank", name, reference, amount, worth, day, "booked", True))
    return lines, payments


def said(pairing: Pairing) -> tuple[object, object]:
    groups = [
        (g.rule, sorted(line.key for line in g.lines), sorted(p.key for p in g.payments))
        for g in pairing.groups
    ]
    return sorted(groups), sorted((f.code, f.subject, str(f.detail)) for f in pairing.found)


@given(given=sides(), seed=st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_no_money_counts_twice_and_order_does_not_matter(
    given: tuple[list[Line], list[Paid]], seed: object
) -> None:
    lines, payments = given
    pairing = pair(lines, payments, terms((0, 9)))
    grouped = [line.key for g in pairing.groups for line in g.lines]
    settled = [p.key for g in pairing.groups for p in g.payments]
    assert len(grouped) == len(set(grouped))
    assert len(settled) == len(set(settled))
    for group in pairing.groups:
        assert sum(x.amount_minor for x in group.lines) == sum(
            p.worth_minor for p in group.payments
        )
    # What stands is settled or asked about, by a finding of its own or by one that names it.
    named = " ".join(f"{found.detail} {found.subject}" for found in pairing.found)
    for payment in payments:
        if payment.worth_minor and payment.key not in settled:
            assert f"bank/{payment.payment_id}" in named or f"bank on {payment.paid_on}" in named
    asked = {found.subject for found in pairing.found}
    for line in lines:
        if line.key not in grouped and not line.payment_ids:
            assert line.subject in asked or _goes_with_another(line, asked, lines)
    shuffled: tuple[Sequence[Line], Sequence[Paid]] = (lines[:], payments[:])
    seed.shuffle(shuffled[0])  # type: ignore[attr-defined]
    seed.shuffle(shuffled[1])  # type: ignore[attr-defined]
    assert said(pair(*shuffled, terms((0, 9)))) == said(pairing)


def _goes_with_another(line: Line, asked: set[str], lines: Sequence[Line]) -> bool:
    """Say whether it takes a line back, or is taken back by one, that is asked about for both.

    Of several lines of one payment the first is asked about, for all of them.
    """
    of_asked = {name for each in lines if each.subject in asked for name in each.payment_ids}
    return any(
        (other.subject in asked or of_asked & set(other.payment_ids))
        and set(other.quoted) & set(line.quoted)
        for other in lines
        if other.amount_minor == -line.amount_minor
    )
