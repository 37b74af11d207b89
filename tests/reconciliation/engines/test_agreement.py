"""Both engines say the same of small, dirty worlds, lose nothing, and mind no order or shards."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlmodel import Session

from reconciliation.matching import Rule, Terms
from tests.reconciliation.engines.facts import Outcome, Row, by_duck, by_postgres
from tests.reconciliation.engines.worlds import a_world

WORLDS: Final = 700
TOLERANCE: Final = Terms().tolerance_minor


def differences(one: Outcome, other: Outcome) -> list[str]:
    """Return what the first says and the second does not, and the reverse."""
    some, others = one.lines(), other.lines()
    return [f"first: {line}" for line in some if line not in others] + [
        f"second: {line}" for line in others if line not in some
    ]


@settings(
    max_examples=4,
    deadline=None,
    # What is found is small already, and to make it smaller takes minutes of matching.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(rng=st.randoms(use_true_random=False))
def test_engines_agree_about_a_world(server: Session, rng: Random) -> None:
    payments, records = a_world(rng)
    with server.begin():
        plain = by_postgres(server, payments, records)
        server.rollback()
    fast = by_duck(payments, records)
    assert differences(plain, fast) == []
    assert plain == fast


@pytest.fixture(scope="module")
def many() -> tuple[list[Row], list[Row]]:
    """Many worlds beside each other: what is rare in one of them is among them."""
    payments: list[Row] = []
    records: list[Row] = []
    for n in range(WORLDS):
        some, others = a_world(Random(n), f"{n}/")  # noqa: S311 - the same in every run
        payments += some
        records += others
    return payments, records


@pytest.fixture(scope="module")
def outcome(many: tuple[list[Row], list[Row]]) -> Outcome:
    return by_duck(*many)


def test_engines_agree_about_many_worlds(
    server: Session, many: tuple[list[Row], list[Row]], outcome: Outcome
) -> None:
    plain = by_postgres(server, *many)
    server.rollback()
    assert differences(plain, outcome) == []
    assert plain == outcome
    # The worlds are worth it: every rule and every code occurs in them.
    assert {rule for _, _, _, rule, _, _ in outcome.matched} == set(Rule)
    codes = Counter(code for code, _, _ in outcome.payments.values())
    codes += Counter(code for code, _, _ in outcome.records.values())
    assert len(codes) == 6


def test_a_reference_that_everybody_quotes_is_no_product_of_both_sides(server: Session) -> None:
    """So often on both sides that it is taken out of the join, beside pairs that are not."""
    payments = [Row(f"p{n}", k=148275036141, a=10_000 + n % 7) for n in range(60)]
    records = [Row(f"r{n}", k=148275036141, a=10_000 + n % 5) for n in range(60)]
    payments += [Row(f"q{n}", k=300_000_000_000 + n) for n in range(5)]
    records += [Row(f"s{n}", k=300_000_000_000 + n) for n in range(5)]
    plain = by_postgres(server, payments, records)
    server.rollback()
    fast = by_duck(payments, records)
    assert differences(plain, fast) == []
    assert {(p, r) for _, p, r, *_ in fast.matched} >= {(f"q{n}", f"s{n}") for n in range(5)}


def test_every_row_is_in_one_outcome(many: tuple[list[Row], list[Row]], outcome: Outcome) -> None:
    payments, records = many
    grouped_payments = {payment for _, payment, *_ in outcome.matched}
    grouped_records = {record for _, _, record, *_ in outcome.matched}
    assert sorted([*grouped_payments, *outcome.payments]) == sorted(row.id for row in payments)
    assert sorted([*grouped_records, *outcome.records]) == sorted(row.id for row in records)


def test_groups_are_of_one_shape_and_one_sum(
    many: tuple[list[Row], list[Row]], outcome: Outcome
) -> None:
    amounts = {row.id: row.a for rows in many for row in rows}
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for g, payment, record, *_ in outcome.matched:
        groups[g].append((payment, record))
    assert max(outcome.matched.values()) == 1
    seen: Counter[str] = Counter()
    for g, pairs in groups.items():
        payments = {payment for payment, _ in pairs}
        records = {record for _, record in pairs}
        seen.update(payments | records)
        assert len(pairs) == max(len(payments), len(records))
        assert min(len(payments), len(records)) == 1
        assert g == min(payments)
        difference = sum(amounts[p] for p in payments) - sum(amounts[r] for r in records)
        assert abs(difference) <= TOLERANCE
        assert all(amounts[r] >= 0 for r in records)
    assert max(seen.values()) == 1


def shuffled(rows: Sequence[Row], seed: int) -> list[Row]:
    rng = Random(seed)  # noqa: S311 - the same in every run
    return rng.sample(rows, len(rows))


@pytest.mark.parametrize("shards", [2, 7])
def test_order_and_shards_do_not_matter(
    server: Session, many: tuple[list[Row], list[Row]], outcome: Outcome, shards: int
) -> None:
    payments, records = (shuffled(rows, shards) for rows in many)
    terms = Terms(shards=shards)
    assert differences(by_duck(payments, records, terms), outcome) == []
    plain = by_postgres(server, payments, records, terms)
    server.rollback()
    assert differences(plain, outcome) == []


@pytest.mark.parametrize("tolerance", [0, 100])
def test_engines_agree_at_another_tolerance(
    server: Session, many: tuple[list[Row], list[Row]], outcome: Outcome, tolerance: int
) -> None:
    terms = Terms(tolerance_minor=tolerance)
    plain = by_postgres(server, *many, terms)
    server.rollback()
    fast = by_duck(*many, terms)
    assert differences(plain, fast) == []
    assert differences(fast, outcome) != []
