"""Both engines do what `docs/matching.md` says, line by line."""

from __future__ import annotations

import pytest
from sqlmodel import Session

import tests.reconciliation.engines.cases_of_people
import tests.reconciliation.engines.cases_of_slips  # noqa: F401
from tests.reconciliation.engines.cases import CASES
from tests.reconciliation.engines.facts import by_duck, by_postgres


@pytest.fixture(scope="module", params=["postgres", "duck"])
def lines(request: pytest.FixtureRequest, server: Session) -> dict[str, list[str]]:
    """What an engine says of the rows of each case, all of them matched together."""
    payments = [row for case in CASES.values() for row in case.world.payments]
    records = [row for case in CASES.values() for row in case.world.records]
    if request.param == "postgres":
        outcome = by_postgres(server, payments, records)
        server.rollback()
    else:
        outcome = by_duck(payments, records)
    of_case: dict[str, list[str]] = {name: [] for name in CASES}
    for line in outcome.lines():
        name = line.split("/", 1)[0]
        # Another case's name would stay, and be seen.
        of_case[name].append(line.replace(f"{name}/", ""))
    return of_case


@pytest.mark.parametrize("name", CASES)
def test_case(lines: dict[str, list[str]], name: str) -> None:
    assert sorted(lines[name]) == CASES[name].lines
