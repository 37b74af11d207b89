from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum.iso7064 import mod_97_10

from gateway.db import execute, transaction
from gateway.references import (
    BLOCK,
    CAPACITY,
    ReferenceTables,
    format_reference,
    is_reference,
    normalise_reference,
    nth_reference,
    nth_references,
    read_reference,
    with_check_digits,
)

CASES = json.loads((Path(__file__).parents[1] / "golden/references.json").read_text("utf-8"))
references = st.integers(10**9, 10**10 - 1).map(with_check_digits)
numbers = st.integers(0, CAPACITY - 1)
keys = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize("case", CASES["valid"], ids=lambda c: c["ref"])
def test_golden_references_are_made_shown_and_read(case: dict[str, str]) -> None:
    assert with_check_digits(int(case["payload"])) == case["ref"]
    assert format_reference(case["ref"]) == case["display"]
    for written in (case["ref"], case["display"], case["rf_creditor_reference"], case["rf_print"]):
        assert read_reference(written) == case["ref"]


@pytest.mark.parametrize("case", CASES["invalid"], ids=lambda c: c["why"])
def test_golden_errors_are_caught(case: dict[str, str]) -> None:
    assert read_reference(case["input"]) is None


@pytest.mark.parametrize("case", CASES["normalise"], ids=lambda c: ascii(c["input"]))
def test_what_a_person_writes_is_understood(case: dict[str, str]) -> None:
    assert normalise_reference(case["input"]) == case["expected"]


@pytest.mark.parametrize("case", CASES["do_not_normalise"], ids=lambda c: c["why"])
def test_what_would_be_a_guess_is_refused(case: dict[str, str]) -> None:
    assert normalise_reference(case["input"]) is None


@pytest.mark.parametrize(
    "text", ["RF75148275036141", "RF74", "RF7414827503614", "RF", "", "9" * 70]
)
def test_a_bank_reference_of_somebody_else_is_refused(text: str) -> None:
    assert normalise_reference(text) is None


@given(references)
def test_every_reference_verifies_by_a_second_opinion(reference: str) -> None:
    assert is_reference(reference)
    assert mod_97_10.is_valid(reference)


@given(references, st.integers(0, 11), st.integers(1, 9))
def test_one_wrong_digit_never_verifies(reference: str, place: int, shift: int) -> None:
    wrong = str((int(reference[place]) + shift) % 10)
    assert not is_reference(reference[:place] + wrong + reference[place + 1 :])


@given(references, st.integers(0, 10))
def test_two_neighbours_swapped_never_verify(reference: str, place: int) -> None:
    a, b = reference[place], reference[place + 1]
    swapped = reference[:place] + b + a + reference[place + 2 :]
    assert swapped == reference or not is_reference(swapped)


@given(st.text(max_size=80))
def test_any_text_is_a_reference_or_none(text: str) -> None:
    reference = read_reference(text)
    assert reference is None or is_reference(reference)


@given(keys, st.sets(numbers, min_size=2, max_size=50))
def test_no_two_invoices_share_a_reference(key: bytes, some: set[int]) -> None:
    drawn = {nth_reference(n, key) for n in some}
    assert len(drawn) == len(some)
    assert all(is_reference(reference) for reference in drawn)


def test_a_leading_digit_is_used_up_before_the_next() -> None:
    key = bytes(32)
    assert nth_reference(BLOCK - 1, key).startswith("1")
    assert nth_reference(BLOCK, key).startswith("2")
    assert nth_reference(CAPACITY - 1, key).startswith("9")


def test_neighbours_in_time_are_far_apart() -> None:
    """A payer's reference tells nothing of the next one: differences do not repeat."""
    drawn = [int(nth_reference(n, bytes(32))) for n in range(1_000)]
    steps = {b - a for a, b in pairwise(drawn)}
    assert len(steps) == 999


SOME = [0, 1, 2, 9_999, 10_000, BLOCK - 1, BLOCK, CAPACITY - 1, *range(7, CAPACITY, 61_234_567)]


def test_tables_hold_the_same_references() -> None:
    key = bytes(range(32))
    plain = [nth_reference(n, key).encode() for n in SOME]
    assert list(ReferenceTables(key).references(SOME)) == plain
    assert list(nth_references(SOME, key)) == plain
    assert list(nth_references(SOME * 10, key)) == plain * 10


def test_the_database_draws_the_same_references(database: str) -> None:
    with transaction() as session:
        key = bytes(execute(session, "SELECT key FROM reference_key").scalar_one())
        rows = execute(
            session,
            "SELECT n, wasl_reference(n, :key) FROM unnest(CAST(:some AS bigint[])) AS n",
            {"key": key, "some": SOME},
        )
        assert {int(n): r for n, r in rows} == {n: nth_reference(n, key) for n in SOME}
