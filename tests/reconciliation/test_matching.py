"""Matching: every row in one outcome, by the evidence, whatever the order of the rows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciliation.by_reference import Matching, Payment, Record, match
from tests.reconciliation.factories import payment, record

# Few values, so that references, amounts, days and providers' references meet often.
REFERENCES = st.sampled_from([None, "A", "B", "C"])
AMOUNTS = st.sampled_from([100, 200, 300])
EVIDENCE = st.sampled_from([None, None, "x", "y"])
FIRST = date(2026, 11, 1)
DAYS = st.integers(0, 3).map(lambda days: FIRST + timedelta(days=days))


@st.composite
def some_payments(draw: st.DrawFn) -> list[Payment]:
    number = draw(st.integers(0, 9))
    return [
        payment(f"{n}", draw(REFERENCES), draw(AMOUNTS), draw(DAYS), draw(EVIDENCE))
        for n in range(number)
    ]


@st.composite
def some_records(draw: st.DrawFn) -> list[Record]:
    number = draw(st.integers(0, 9))
    sign = st.sampled_from([1, 1, 1, -1])
    return [
        record(f"{n}", draw(REFERENCES), draw(sign) * draw(AMOUNTS), draw(DAYS), draw(EVIDENCE))
        for n in range(number)
    ]


def payments_of(matching: Matching) -> list[Payment]:
    grouped = [p for group in matching.groups for p in group.payments]
    return grouped + [p for found in matching.open for p in found.payments]


def records_of(matching: Matching) -> list[Record]:
    grouped = [r for group in matching.groups for r in group.records]
    both = [r for pair in matching.taken_back for r in (pair.record, pair.negative)]
    return grouped + both + [r for found in matching.open for r in found.records]


@given(some_payments(), some_records())
def test_every_row_is_in_exactly_one_outcome(
    payments: list[Payment], records: list[Record]
) -> None:
    matching = match(payments, records)
    assert Counter(payments_of(matching)) == Counter(payments)
    assert Counter(records_of(matching)) == Counter(records)


@given(some_payments(), some_records(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_decides_nothing(
    payments: list[Payment], records: list[Record], shuffle: random.Random
) -> None:
    expected = match(payments, records)
    shuffle.shuffle(payments)
    shuffle.shuffle(records)
    assert match(payments, records) == expected


@given(some_payments(), some_records())
def test_a_group_is_the_same_money_to_the_same_debt(
    payments: list[Payment], records: list[Record]
) -> None:
    for group in match(payments, records).groups:
        (ours,), (theirs,) = group.payments, group.records
        assert ours.reference == theirs.reference is not None
        assert ours.amount_minor == theirs.amount_minor > 0


@given(some_payments(), some_records())
def test_as_many_are_matched_as_can_be(payments: list[Payment], records: list[Record]) -> None:
    matching = match(payments, records)
    taken_back = {r for pair in matching.taken_back for r in (pair.record, pair.negative)}
    standing = [r for r in records if r not in taken_back]
    ours = Counter((p.reference, p.amount_minor) for p in payments if p.reference)
    theirs = Counter((r.reference, r.amount_minor) for r in standing if r.reference)
    assert len(matching.groups) == (ours & theirs).total()


@given(some_payments(), some_records())
def test_a_record_is_taken_back_by_its_opposite(
    payments: list[Payment], records: list[Record]
) -> None:
    matching = match(payments, records)
    for pair in matching.taken_back:
        assert pair.record.reference == pair.negative.reference is not None
        assert pair.record.amount_minor == -pair.negative.amount_minor > 0
    # Nothing that could take something back is left beside it.
    standing = {(r.reference, r.amount_minor) for g in matching.groups for r in g.records}
    standing |= {(r.reference, r.amount_minor) for o in matching.open for r in o.records}
    for found in matching.open:
        for r in found.records:
            if r.amount_minor < 0 and r.reference:
                assert (r.reference, -r.amount_minor) not in standing


@given(some_payments(), some_records())
def test_a_finding_is_what_its_code_says(payments: list[Payment], records: list[Record]) -> None:
    for found in match(payments, records).open:
        ours, theirs = found.payments, found.records
        match_of_code = {
            "payment_without_record": len(ours) == 1 and not theirs,
            "record_without_payment": len(theirs) == 1 and not ours,
            "amount_differs": len(ours) == len(theirs) == 1
            and ours[0].amount_minor != theirs[0].amount_minor,
            "ambiguous_match": len(ours) + len(theirs) > 2 and bool(ours) and bool(theirs),
        }
        assert match_of_code[found.code]
        assert len({p.reference for p in ours} | {r.reference for r in theirs}) == 1
        assert all(isinstance(value, str) for value in found.detail.values())


@given(some_payments(), some_records(), st.data())
def test_without_a_matched_pair_all_else_stays(
    payments: list[Payment], records: list[Record], data: st.DataObject
) -> None:
    matching = match(payments, records)
    if not matching.groups:
        return
    group = data.draw(st.sampled_from(matching.groups))

    without = match(
        [p for p in payments if p not in group.payments],
        [r for r in records if r not in group.records],
    )

    assert without.open == matching.open
    assert without.taken_back == matching.taken_back
    assert without.groups == [other for other in matching.groups if other != group]


@given(some_payments(), some_records())
def test_another_reference_changes_nothing(payments: list[Payment], records: list[Record]) -> None:
    alone = match(payments, records)
    beside = match([*payments, payment("z", "Z")], [*records, record("z", "Z")])
    assert [g for g in beside.groups if g.payments[0].reference != "Z"] == alone.groups
    assert beside.open == alone.open


Outcome = tuple[str, str, str]


def outcomes(payments: Sequence[Payment], records: Sequence[Record]) -> set[Outcome]:
    matching = match(payments, records)
    found = {(g.rule, _ids(g.payments), _ids(g.records)) for g in matching.groups}
    found |= {(o.code.value, _ids(o.payments), _ids(o.records)) for o in matching.open}
    return found | {
        ("taken_back", pair.negative.record_id, pair.record.record_id)
        for pair in matching.taken_back
    }


def _ids(rows: tuple[Payment, ...] | tuple[Record, ...]) -> str:
    return " ".join(row.payment_id if isinstance(row, Payment) else row.record_id for row in rows)


def day(number: int) -> date:
    return date(2026, 11, number)


CASES: dict[str, tuple[list[Payment], list[Record], set[Outcome]]] = {
    "nothing": ([], [], set()),
    "exact": ([payment("p")], [record("r")], {("exact", "p", "r")}),
    "no record": ([payment("p")], [], {("payment_without_record", "p", "")}),
    "no payment": ([], [record("r")], {("record_without_payment", "", "r")}),
    "other references": (
        [payment("p", "A")],
        [record("r", "B")],
        {("payment_without_record", "p", ""), ("record_without_payment", "", "r")},
    ),
    "no reference on either side is no evidence": (
        [payment("p", None)],
        [record("r", None)],
        {("payment_without_record", "p", ""), ("record_without_payment", "", "r")},
    ),
    "another amount": (
        [payment("p")],
        [record("r", amount_minor=1)],
        {("amount_differs", "p", "r")},
    ),
    "part payments": (
        [payment("p1", amount_minor=1), payment("p2", amount_minor=2)],
        [record("r2", amount_minor=2), record("r1", amount_minor=1)],
        {("exact", "p1", "r1"), ("exact", "p2", "r2")},
    ),
    "recorded twice": (
        [payment("p")],
        [record("r1", posted_on=day(20)), record("r2", posted_on=day(19))],
        {("exact", "p", "r2"), ("record_without_payment", "", "r1")},
    ),
    "paid twice, recorded once": (
        [payment("p1"), payment("p2", paid_on=day(17))],
        [record("r")],
        {("exact", "p2", "r"), ("payment_without_record", "p1", "")},
    ),
    "the provider's reference decides before the day": (
        [payment("p1", provider_reference="x"), payment("p2", paid_on=day(1))],
        [record("r", provider_reference="x")],
        {("exact", "p1", "r"), ("payment_without_record", "p2", "")},
    ),
    "another provider's reference is no objection": (
        [payment("p", provider_reference="x")],
        [record("r", provider_reference="y")],
        {("exact", "p", "r")},
    ),
    "which amount differs, by the provider's reference": (
        [
            payment("p1", amount_minor=10, provider_reference="x"),
            payment("p2", amount_minor=20, provider_reference="y"),
        ],
        [
            record("r1", amount_minor=15, provider_reference="y"),
            record("r2", amount_minor=16, provider_reference="x"),
        ],
        {("amount_differs", "p1", "r2"), ("amount_differs", "p2", "r1")},
    ),
    "which amount differs, as the last that are left": (
        [payment("p1", amount_minor=10), payment("p2", amount_minor=20)],
        [record("r1", amount_minor=10), record("r2", amount_minor=21)],
        {("exact", "p1", "r1"), ("amount_differs", "p2", "r2")},
    ),
    "which amount differs cannot be told": (
        [payment("p1", amount_minor=10), payment("p2", amount_minor=20)],
        [record("r", amount_minor=15)],
        {("ambiguous_match", "p1 p2", "r")},
    ),
    "a record taken back": (
        [payment("p")],
        [record("r"), record("n", amount_minor=-16_352, posted_on=day(20))],
        {("payment_without_record", "p", ""), ("taken_back", "n", "r")},
    ),
    "taken back and posted again": (
        [payment("p")],
        [
            record("r1", posted_on=day(18)),
            record("n", amount_minor=-16_352, posted_on=day(19)),
            record("r2", posted_on=day(20)),
        ],
        {("exact", "p", "r2"), ("taken_back", "n", "r1")},
    ),
    "the latest of two is taken back": (
        [payment("p")],
        [
            record("r1", posted_on=day(17)),
            record("r2", posted_on=day(18)),
            record("n", amount_minor=-16_352, posted_on=day(19)),
        ],
        {("exact", "p", "r1"), ("taken_back", "n", "r2")},
    ),
    "the one with the provider's reference is taken back": (
        [payment("p")],
        [
            record("r1", posted_on=day(17), provider_reference="x"),
            record("r2", posted_on=day(18), provider_reference="y"),
            record("n", amount_minor=-16_352, posted_on=day(19), provider_reference="x"),
        ],
        {("exact", "p", "r2"), ("taken_back", "n", "r1")},
    ),
    "a negative before its record takes it back too": (
        [],
        [record("n", amount_minor=-16_352, posted_on=day(18)), record("r", posted_on=day(19))],
        {("taken_back", "n", "r")},
    ),
    "a negative of the same day comes after": (
        [],
        [record("q", posted_on=day(18)), record("a", amount_minor=-16_352), record("r")],
        {("taken_back", "a", "r"), ("record_without_payment", "", "q")},
    ),
    "nothing to take back": (
        [payment("p")],
        [record("r"), record("n", amount_minor=-5)],
        {("exact", "p", "r"), ("record_without_payment", "", "n")},
    ),
    "a negative is no other amount": (
        [payment("p")],
        [record("n", amount_minor=-5)],
        {("payment_without_record", "p", ""), ("record_without_payment", "", "n")},
    ),
    "a record is taken back once": (
        [],
        [
            record("r"),
            record("n1", amount_minor=-16_352, posted_on=day(20)),
            record("n2", amount_minor=-16_352, posted_on=day(21)),
        ],
        {("taken_back", "n1", "r"), ("record_without_payment", "", "n2")},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_outcome_is_the_one_of_the_table(case: str) -> None:
    payments, records, expected = CASES[case]
    assert outcomes(payments, records) == expected
    assert outcomes(payments[::-1], records[::-1]) == expected


def test_what_was_found_is_said_in_decimal_strings() -> None:
    matching = match(
        [payment("cashplus/1"), payment("cashplus/2", "B")],
        [record("r", amount_minor=16_300), record("s", None)],
    )
    assert [found.detail for found in matching.open] == [
        {
            "reference": "A",
            "payments": "cashplus/1",
            "records": "r",
            "paid": "163.52",
            "recorded": "163.00",
            "difference": "0.52",
        },
        {"reference": "B", "amount": "163.52", "paid_on": "2026-11-18"},
        {"amount": "163.52", "posted_on": "2026-11-19", "why": "its reference cannot be read"},
    ]


def test_two_rows_with_one_id_are_a_bug_of_the_caller() -> None:
    with pytest.raises(AssertionError, match="two payments have one id"):
        match([payment("p"), payment("p", "B")], [])
