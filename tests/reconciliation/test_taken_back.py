"""Which negative records take back which: by the evidence, as brackets close, in any order."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import permutations

from reconciliation.taken_back import Record, take_back


def record(record_id: str, amount: int, day: int, evidence: str | None = None) -> Record:
    return Record(record_id, "A", amount, date(2026, 11, 1) + timedelta(days=day), evidence)


def pairs_of(*records: Record) -> set[tuple[str, str]]:
    """Return record and negative of each pair, after asking in every order."""
    said = {
        frozenset((pair.record.record_id, pair.negative.record_id) for pair in take_back(order))
        for order in permutations(records)
    }
    (pairs,) = said
    return set(pairs)


def test_the_latest_that_stands_by_its_day_is_taken_back() -> None:
    rows = [record("1", 5, 0), record("2", 5, 1), record("-", -5, 2), record("3", 5, 3)]
    assert pairs_of(*rows) == {("2", "-")}


def test_one_of_the_same_day_stands_before_the_negative() -> None:
    assert pairs_of(record("z", 5, 0), record("-", -5, 0)) == {("z", "-")}


def test_the_providers_reference_goes_before_the_day() -> None:
    rows = [record("1", 5, 0, "x"), record("2", 5, 1), record("-", -5, 2, "x")]
    assert pairs_of(*rows) == {("1", "-")}


def test_one_posted_later_is_taken_back_if_there_is_no_other() -> None:
    assert pairs_of(record("-", -5, 0), record("1", 5, 1), record("2", 5, 2)) == {("2", "-")}


def test_another_amount_or_reference_or_none_is_not_taken_back() -> None:
    other = Record("2", "B", 5, date(2026, 11, 1))
    nameless = [Record("3", None, 5, date(2026, 11, 1)), Record("4", None, -5, date(2026, 11, 1))]
    assert pairs_of(record("-", -5, 2), record("1", 6, 0), other, *nameless) == set()
