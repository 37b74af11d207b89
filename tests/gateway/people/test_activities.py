from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from gateway.db import execute, transaction
from gateway.dues.assessment import Assessor, quarters_from
from gateway.dues.tariff import tariff
from gateway.errors import Unusable
from gateway.people.activities import (
    add_activity,
    correct_registration,
    read_people,
    record_change,
    withdraw_activity,
)
from gateway.people.contributors import change
from gateway.people.reading import WrongPerson
from tests.factories import NOON, a_contributor
from tests.gateway.people.test_contributors import GOOD, HEADER, load

WHY = "income return of 2025"


def a_person(**values: Any) -> int:
    with transaction() as session:
        made = a_contributor(session, **values).id
        assert made is not None
        return made


def changes(person: int, category: str, since: str, base: int | None = None) -> None:
    with transaction() as session:
        record_change(
            session,
            person,
            tariff(),
            category=category,
            base_minor=base,
            since=date.fromisoformat(since),
            because=WHY,
            now=NOON,
        )


def history(person: int) -> list[tuple[str, int | None, str, str | None]]:
    """Return what the register and the activities say, by day."""
    with transaction() as session:
        (facts,) = read_people(session, [person])[person].files.values()
    return sorted(
        (did.category, did.base_minor, str(did.since), str(did.until) if did.until else None)
        for did in facts.did()
    )


def dues(person: int) -> dict[str, int]:
    with transaction() as session:
        files = list(read_people(session, [person])[person].files.values())
    assessor = Assessor(tariff())
    return {
        period.code: one.line.amount_minor
        for quarter in quarters_from(files, date(2027, 12, 31))
        for period, one in assessor.quarter(files, quarter).owed.items()
    }


def in_line() -> list[int]:
    with transaction() as session:
        rows = execute(session, "SELECT contributor_id FROM reassessment_due ORDER BY 1")
        return list(rows.scalars())


def test_a_change_keeps_what_was_and_a_backdated_one_cuts_it(database: str) -> None:
    person = a_person()
    changes(person, "accounts-simplified", "2026-07-01")
    changes(person, "cpu", "2026-10-01", base=0)
    assert history(person) == [
        ("accounts-simplified", None, "2026-07-01", "2026-09-30"),
        ("artisan-untaxed", None, "2022-01-01", "2026-06-30"),
        ("cpu", 0, "2026-10-01", None),
    ]
    changes(person, "auto-entrepreneur", "2026-08-01", base=60000)
    assert history(person) == [
        ("accounts-simplified", None, "2026-07-01", "2026-07-31"),
        ("artisan-untaxed", None, "2022-01-01", "2026-06-30"),
        ("auto-entrepreneur", 60000, "2026-08-01", None),
    ]
    # Wrong from the beginning: nothing of it stays.
    changes(person, "artisan-untaxed", "2020-01-01")
    assert history(person) == [("artisan-untaxed", None, "2022-01-01", None)]
    assert in_line() == [person]


def test_there_and_back_owes_the_same(database: str) -> None:
    person = a_person()
    before = dues(person)
    changes(person, "cpu", "2024-05-20", base=700000)
    assert dues(person) != before
    changes(person, "artisan-untaxed", "2024-05-20")
    assert dues(person) == before
    for day in (date(2021, 12, 5), date(2025, 3, 2), date(2022, 1, 1)):
        with transaction() as session:
            correct_registration(session, person, registered_on=day, because=WHY, now=NOON)
    assert dues(person) == before


def test_what_goes_on_beside_is_added_and_withdrawn(database: str) -> None:
    person = a_person()
    with transaction() as session:
        beside = add_activity(
            session,
            person,
            tariff(),
            category="cpu",
            base_minor=0,
            since=date(2026, 1, 1),
            until=None,
            because=WHY,
            now=NOON,
        )
    assert dues(person)["2026-Q1"] == 30000
    # What the register says is changed beside it, and does not touch it.
    changes(person, "accounts-simplified", "2024-01-01")
    assert ("cpu", 0, "2026-01-01", None) in history(person)
    with transaction() as session:
        withdraw_activity(session, person, beside, because=WHY, now=NOON)
    assert "2026-Q1" not in dues(person)
    with pytest.raises(Unusable, match="no activity"), transaction() as session:
        withdraw_activity(session, person, beside, because=WHY, now=NOON)


def test_a_registration_is_corrected_with_what_was_before(database: str) -> None:
    person = a_person()
    changes(person, "cpu", "2026-10-01", base=0)
    with transaction() as session:
        correct_registration(
            session,
            person,
            registered_on=date(2021, 12, 20),
            left_on=date(2026, 11, 3),
            because=WHY,
            now=NOON,
        )
    assert history(person) == [
        ("artisan-untaxed", None, "2021-12-20", "2026-09-30"),
        ("cpu", 0, "2026-10-01", "2026-11-03"),
    ]
    with transaction() as session:
        correct_registration(
            session, person, registered_on=date(2026, 10, 2), stays=True, because=WHY, now=NOON
        )
    assert history(person) == [("cpu", 0, "2026-10-02", None)]
    with pytest.raises(Unusable, match="before the first"), transaction() as session:
        correct_registration(session, person, left_on=date(2026, 1, 1), because=WHY, now=NOON)


def test_which_of_two_pasts_is_cut_is_not_guessed(database: str) -> None:
    person = a_person()
    changes(person, "cpu", "2026-10-01", base=0)
    with transaction() as session:
        add_activity(
            session,
            person,
            tariff(),
            category="notary",
            base_minor=None,
            since=date(2026, 1, 1),
            until=date(2026, 9, 30),
            because=WHY,
            now=NOON,
        )
    with pytest.raises(Unusable, match="cannot be told"):
        changes(person, "adoul", "2026-05-01")
    values = {"category": "adoul", "category_base": "", "category_since": "2026-05-01"}
    with pytest.raises(WrongPerson, match="withdraw one"), transaction() as session:
        change(session, person, values, tariff(), now=NOON)
    changes(person, "adoul", "2026-11-01")


@pytest.mark.parametrize(
    ("category", "base", "said"),
    [("baker", None, "no category"), ("cpu", None, "needs a base"), ("cpu", -1, "negative")],
)
def test_what_cannot_be_is_refused(
    database: str, category: str, base: int | None, said: str
) -> None:
    person = a_person()
    with pytest.raises(Unusable, match=said):
        changes(person, category, "2026-10-01", base)
    assert in_line() == []


SINCE = f"{HEADER},category_since"


def test_an_import_keeps_what_was_since_the_day_it_says(database: str, tmp_path: Path) -> None:
    others = [f"{n}{GOOD[1:]}" for n in (2, 3, 4)]
    load(tmp_path, [GOOD, *others])
    lines = [
        GOOD.replace("artisan-untaxed,", "cpu,420.00") + ",2026-01-01",
        others[0].replace("artisan-untaxed,", "cpu,420.00") + ",",
        others[1].replace("2022-01-01,", "2022-01-01,2026-11-02") + ",2026-05-05",
        others[2] + ",2021-01-01",
    ]
    assert load(tmp_path, lines, SINCE)["loaded"] == 3
    with transaction() as session:
        first, second, third, fourth = execute(
            session, "SELECT id FROM contributor ORDER BY id"
        ).scalars()
    assert history(first) == [
        ("artisan-untaxed", None, "2022-01-01", "2025-12-31"),
        ("cpu", 42000, "2026-01-01", None),
    ]
    assert history(second)[1] == ("cpu", 42000, "2026-10-01", None)
    assert history(third) == [("artisan-untaxed", None, "2022-01-01", "2026-11-02")]
    assert in_line() == [first, second, third]
    assert load(tmp_path, lines, SINCE)["unchanged"] == 4
    # The same category, but since earlier: the return of another year has come.
    earlier = [lines[0].replace("2026-01-01", "2025-01-01")]
    assert load(tmp_path, earlier, SINCE)["loaded"] == 1
    assert history(first)[1] == ("cpu", 42000, "2025-01-01", None)
    assert load(tmp_path, earlier, SINCE)["unchanged"] == 1
    assert fourth not in in_line()


def test_a_change_through_the_register_keeps_what_was(database: str) -> None:
    person = a_person()
    with transaction() as session:
        values = {"category": "cpu", "category_base": "0.00", "phone": "0612345678"}
        change(session, person, values, tariff(), now=NOON)
    assert history(person)[1] == ("cpu", 0, "2026-10-01", None)
    with transaction() as session:
        change(session, person, {"category_since": "2022-01-01"}, tariff(), now=NOON)
    assert history(person) == [("cpu", 0, "2022-01-01", None)]
    with pytest.raises(WrongPerson, match="changes nothing"), transaction() as session:
        change(session, person, {"category_since": "2026-11-01"}, tariff(), now=NOON)
    with pytest.raises(WrongPerson, match="not a day"), transaction() as session:
        change(session, person, {"category_since": "soon"}, tariff(), now=NOON)
