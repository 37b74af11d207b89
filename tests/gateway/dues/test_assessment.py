from __future__ import annotations

from datetime import date, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dues.assessment import Assessor, Did, PersonFacts, quarter_of, quarters_from
from gateway.dues.periods import parse_period
from gateway.dues.principal import NotOwed
from gateway.dues.tariff import tariff
from gateway.errors import Unusable
from gateway.models import Periodicity

ASSESSOR = Assessor(tariff())
LONG_AGO = date(2022, 1, 1)
Q4 = parse_period("2026-Q4")


def a_file(
    category: str = "artisan-untaxed", base: int | None = None, **facts: object
) -> PersonFacts:
    return PersonFacts(
        **{"registered_on": LONG_AGO, "left_on": None, "category": category, **facts},  # type: ignore[arg-type]
        base_minor=base,
    )


def did(category: str, since: str, until: str | None = None, base: int | None = None) -> Did:
    end = date.fromisoformat(until) if until else None
    return Did(category, base, date.fromisoformat(since), end)


def owed(*files: PersonFacts, quarter: str = "2026-Q4") -> dict[str, int]:
    found = ASSESSOR.quarter(files, parse_period(quarter)).owed
    return {f"{period.code} {one.category}": one.line.amount_minor for period, one in found.items()}


MONTHS = {f"2026-{month} artisan-untaxed": 16352 for month in (10, 11, 12)}


def test_one_activity_is_owed_by_its_periods_from_the_first_day_to_the_last() -> None:
    assert owed(a_file()) == MONTHS
    late = a_file(registered_on=date(2026, 11, 30))
    assert owed(late) == {code: MONTHS[code] for code in list(MONTHS)[1:]}
    dead = a_file(left_on=date(2026, 11, 1))
    assert owed(dead) == {code: MONTHS[code] for code in list(MONTHS)[:2]}
    assert owed(a_file("auto-entrepreneur", 0, left_on=date(2026, 10, 1))) == {
        "2026-Q4 auto-entrepreneur": 30000
    }
    assert owed(a_file(left_on=date(2026, 9, 30))) == {}


def test_who_was_registered_before_there_were_periods_is_assessed_like_others() -> None:
    for day in (date(1, 1, 1), date(1998, 3, 2)):
        old = a_file(registered_on=day)
        assert owed(old) == MONTHS
        due = [
            q.code for q in quarters_from([old], date(2021, 12, 31)) if owed(old, quarter=q.code)
        ]
        assert due == ["2021-Q4"]


def test_the_cpu_prevails_over_what_owes_more() -> None:
    doctor = a_file("doctor-general", activities=[did("cpu", "2026-12-31", base=0)])
    assert owed(doctor) == {"2026-Q4 cpu": 30000}
    assert owed(doctor, quarter="2026-Q3").keys() == {
        f"2026-{month} doctor-general" for month in ("07", "08", "09")
    }
    found = ASSESSOR.quarter([doctor], Q4)
    (why,) = found.not_owed
    assert (why.category, why.facts["form"]) == ("doctor-general", "prevails")
    month = ASSESSOR.period([doctor], parse_period("2026-11"))
    assert month == NotOwed("cpu prevails over doctor-general")


def test_of_others_what_owes_most_over_the_quarter_is_owed() -> None:
    # 3 × 163.52 = 490.56 a quarter.
    for base, wins in ((60000, False), (100001, True)):  # 390 and 570 a quarter
        both = a_file(activities=[did("auto-entrepreneur", "2022-01-01", base=base)])
        assert owed(both) == ({"2026-Q4 auto-entrepreneur": 57000} if wins else MONTHS)
    # Two months only are 327.04: less than 390.
    gone = a_file(
        "auto-entrepreneur", 60000, activities=[did("artisan-untaxed", "2022-01-01", "2026-11-30")]
    )
    assert owed(gone) == {"2026-Q4 auto-entrepreneur": 39000}


def test_a_change_between_months_loses_none_and_doubles_none() -> None:
    changed = a_file(
        "accounts-simplified",
        category_since=date(2026, 11, 15),
        activities=[did("artisan-untaxed", "2022-01-01", "2026-11-14")],
    )
    # In November both are owed: only the higher one, 1 × SMIG, is.
    assert owed(changed) == {
        "2026-10 artisan-untaxed": 16352,
        "2026-11 accounts-simplified": 21803,
        "2026-12 accounts-simplified": 21803,
    }


def test_of_equals_the_one_that_began_first_is_owed() -> None:
    boat = did("fishing-boat-owner", "2021-12-15")
    early = a_file(registered_on=date(2021, 12, 1), activities=[boat])
    assert set(owed(early)) == set(MONTHS)
    later = a_file(
        registered_on=date(2021, 12, 1), category_since=date(2021, 12, 16), activities=[boat]
    )
    assert {code.split()[1] for code in owed(later)} == {"fishing-boat-owner"}


def test_before_a_category_existed_nothing_is_owed_and_it_is_said() -> None:
    found = ASSESSOR.quarter([a_file(registered_on=date(2020, 1, 1))], parse_period("2021-Q3"))
    assert found.owed == {}
    assert "2021-12" in found.not_owed[0].reason


def test_files_of_one_person_owe_once() -> None:
    standing = a_file("accounts-simplified", registered_on=date(2026, 11, 1))
    other = a_file(left_on=date(2026, 12, 1))
    assert owed(standing, other) == {
        "2026-10 artisan-untaxed": 16352,
        "2026-11 accounts-simplified": 21803,
        "2026-12 accounts-simplified": 21803,
    }
    # Whoever died owes nothing on any file.
    assert owed(a_file(left_on=date(2026, 10, 31)), a_file()) == {"2026-10 artisan-untaxed": 16352}


DAYS = st.dates(date(2025, 6, 1), date(2027, 3, 1))
DIDS = st.builds(
    lambda what, since, length: Did(
        what[0], what[1], since, since + timedelta(length) if length else None
    ),
    st.sampled_from(
        [
            ("artisan-untaxed", None),
            ("accounts-simplified", None),
            ("cpu", 0),
            ("auto-entrepreneur", 60000),
            ("auto-entrepreneur", 300000),
        ]
    ),
    DAYS,
    st.integers(0, 200),
)


@given(DAYS, st.lists(DIDS, max_size=3), st.sampled_from(["2025-Q4", "2026-Q1", "2026-Q4"]))
def test_months_and_quarters_never_overlap_and_no_order_of_facts_matters(
    registered_on: date, activities: list[Did], code: str
) -> None:
    quarter = parse_period(code)
    found = [
        ASSESSOR.quarter([a_file(registered_on=registered_on, activities=some)], quarter).owed
        for some in permutations(activities)
    ]
    assert all(each == found[0] for each in found)
    kinds = {period.periodicity for period in found[0]}
    assert len(kinds) <= 1
    assert all(quarter_of(period) == quarter for period in found[0])
    if kinds == {Periodicity.QUARTER}:
        assert len(found[0]) == 1
    # What is owed is never less than what any one of them owes alone, but where one prevails.
    if not any(each.category == "cpu" for each in activities):
        total = sum(one.line.amount_minor for one in found[0].values())
        for each in activities:
            alone = PersonFacts(registered_on, each.until, each.category, each.base_minor, None)
            if each.since <= registered_on and (each.until or registered_on) >= registered_on:
                lines = ASSESSOR.quarter([alone], quarter).owed.values()
                assert total >= sum(one.line.amount_minor for one in lines)


def test_a_base_that_is_needed_and_absent_is_not_guessed() -> None:
    with pytest.raises(Unusable, match="needs a base"):
        owed(a_file("cpu"))
