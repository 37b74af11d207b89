"""Who owes: enrolment, from a file or one by one. What is wrong is named, nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final

from sqlmodel import Session

from gateway.clock import day_of
from gateway.db import execute
from gateway.dues.periods import period_of
from gateway.dues.tariff import Tariff, keep_categories
from gateway.models import Periodicity
from gateway.people.activities import (
    correct_registrations,
    lock_people,
    record_changes,
    unclear_predecessors,
)
from gateway.people.reading import (
    SINCE,
    TABLE_COLUMNS,
    Wrong,
    WrongPerson,
    as_values,
    categories_by_code,
    not_too_far,
    read_columns,
    read_day,
    read_person,
)
from gateway.registers.places import as_region


class Enrolled(StrEnum):
    """What became of an enrolment."""

    NEW = "new"
    SAME = "same"
    """The person is enrolled already, with the same content."""
    OTHER = "other"
    """The number is enrolled already, with other content: nothing was changed."""


def respell_regions(session: Session) -> None:
    """Write the regions of people who were enrolled by an older version as all others are.

    What a chamber sees goes by them. The caller owns the transaction.
    """
    written = execute(session, "SELECT DISTINCT region FROM contributor WHERE region IS NOT NULL")
    for region in sorted(written.scalars()):
        if (kept := as_region(region)) != region:
            execute(
                session,
                "UPDATE contributor SET region = :kept WHERE region = :region",
                {"kept": kept, "region": region},
            )


def enrol(
    session: Session, values: Mapping[str, str], tariff: Tariff, *, now: datetime
) -> tuple[Enrolled, int]:
    """Enrol one person unless the number is taken; return what became of it, and whose id it is.

    The caller owns the transaction.

    Args:
        session: Whose transaction it is.
        values: By COLUMNS, as a line of a file has them.
        tariff: Whose categories there are.
        now: When.

    Raises:
        WrongPerson: Something is wrong with the values.
    """
    row = read_person(values, tariff, on=day_of(now))
    keep_categories(session, tariff)
    given = dict(zip(TABLE_COLUMNS, row, strict=True))
    fresh = execute(
        session,
        f"INSERT INTO contributor ({', '.join(TABLE_COLUMNS)}, changed_at)"
        f" VALUES ({', '.join(f':{column}' for column in TABLE_COLUMNS)}, :now)"
        " ON CONFLICT (cnss_number) DO NOTHING RETURNING id",
        {**given, "now": now},
    ).scalar_one_or_none()
    if fresh is not None:
        return Enrolled.NEW, fresh
    known = (
        execute(
            session,
            "SELECT * FROM contributor WHERE cnss_number = :cnss_number",
            {"cnss_number": given["cnss_number"]},
        )
        .mappings()
        .one()
    )
    same = all(known[column] == value for column, value in given.items())
    return (Enrolled.SAME if same else Enrolled.OTHER), known["id"]


def change(
    session: Session,
    contributor_id: int,
    values: Mapping[str, str],
    tariff: Tariff,
    *,
    now: datetime,
) -> bool:
    """Change what is given of a person, all else staying; return False if there is none.

    The number that says who it is never changes. Invoices that were issued stay as they are. Where
    what is owed changes, what was before is kept, and the person is put in line for re-assessment.
    The caller owns the transaction.

    Args:
        session: Whose transaction it is.
        contributor_id: Whose.
        values: By COLUMNS, and SINCE: from when another category or base holds. Without it that is
            the first day of this quarter; what was wrong from the beginning is corrected since the
            registration.
        tariff: Whose categories there are.
        now: When.

    Raises:
        WrongPerson: Something is wrong with what would result.
    """
    # First, as an import does: whoever takes two locks takes them in the same order.
    keep_categories(session, tariff)
    lock_people(session, [contributor_id])
    row = execute(session, "SELECT * FROM contributor WHERE id = :id", {"id": contributor_id})
    known = row.mappings().one_or_none()
    if known is None:
        return False
    if known["erased_at"] is not None:
        raise WrongPerson([Wrong("cnss_number", "the data of this person were erased")])
    person = read_person({**as_values(known), **values}, tariff, on=day_of(now))
    given = dict(zip(TABLE_COLUMNS, person, strict=True))
    try:
        since = since_of(values, day_of(now))
    except ValueError as error:
        raise WrongPerson([Wrong(SINCE, str(error))]) from None
    _change_dues(session, known, given, since, now)
    columns = [column for column in TABLE_COLUMNS if column not in _OF_DUES]
    if any(known[column] != given[column] for column in columns):
        execute(
            session,
            f"UPDATE contributor SET {', '.join(f'{c} = :{c}' for c in columns)},"
            " changed_at = :now WHERE id = :id",
            {**given, "now": now, "id": contributor_id},
        )
    return True


_OF_DUES: Final = (
    "cnss_number",  # never changes
    "category_code",
    "category_base_minor",
    "registered_on",
    "left_on",
)
_BECAUSE: Final = "the register was changed"


def _change_dues(
    session: Session,
    known: Mapping[Any, Any],
    given: Mapping[str, Any],
    since: date | None,
    now: datetime,
) -> None:
    """Change what a person's dues go by. The person is locked."""
    days = ("registered_on", "left_on")
    parameters = {"id": known["id"], "because": _BECAUSE, **{day: given[day] for day in days}}
    whose = "SELECT CAST(:id AS bigint) AS contributor_id, CAST(:because AS text) AS because"
    if any(known[day] != given[day] for day in days):
        source = (
            f"{whose}, CAST(:registered_on AS date) AS registered_on,"
            " CAST(:left_on AS date) AS left_on"
        )
        correct_registrations(session, source, parameters, now=now)
    holds = ("category_code", "category_base_minor")
    other = any(known[column] != given[column] for column in holds)
    held_since = max(known["category_since"] or known["registered_on"], given["registered_on"])
    if not other and since is not None and since > held_since:
        reason = f"the same category and base hold since {held_since} already"
        raise WrongPerson([Wrong(SINCE, f"{SINCE} changes nothing: {reason}")])
    earlier = since is not None and max(since, given["registered_on"]) < held_since
    if not other and not earlier:
        return
    source = (
        f"{whose}, CAST(:category AS text) AS category_code, CAST(:base AS bigint) AS base_minor,"
        " CAST(:since AS date) AS since"
    )
    parameters |= {
        "category": given["category_code"],
        "base": given["category_base_minor"],
        "since": since or this_quarter(now),
    }
    if unclear_predecessors(session, source, parameters):
        raise WrongPerson([Wrong(SINCE, f"{SINCE} {UNCLEAR}")])
    record_changes(session, source, parameters, now=now)


UNCLEAR: Final = (
    "lies before the end of two activities that ended on one day: withdraw one of them first"
)


def this_quarter(now: datetime) -> date:
    return period_of(day_of(now), Periodicity.QUARTER).starts_on


def since_of(values: Mapping[str, str], on: date) -> date | None:
    """Return from when a category and base hold, if that is said."""
    text = values.get(SINCE, "")
    return not_too_far(SINCE, read_day(SINCE, text), on) if text else None


def warnings_of(
    session: Session, known: Mapping[Any, Any], tariff: Tariff, *, on: date
) -> list[Wrong]:
    """Return what is odd about an enrolled person, as an import would say it.

    Args:
        session: Whose transaction it is.
        known: The person's row of the table.
        tariff: Whose categories there are.
        on: Today.
    """
    try:
        odd = read_columns(as_values(known), categories_by_code(tariff), on)[1]
    except WrongPerson as error:
        odd = list(error.wrong)  # enrolled by an older version's rules
    query = f"SELECT EXISTS (SELECT FROM contributor k WHERE k.id = :id AND {PAPER_OF_ANOTHER})"
    if execute(session, query, {"id": known["id"]}).scalar_one():
        odd.append(Wrong("cin", SAME_CIN))
    return odd


SAME_CIN: Final = "cin is in another person's file too: is it one person? Then merge the files"
PAPER_OF_ANOTHER: Final = """
    k.merged_into_id IS NULL AND k.cin IS NOT NULL AND EXISTS (
        SELECT FROM contributor other
        WHERE other.cin = k.cin AND other.id <> k.id AND other.merged_into_id IS NULL
    )
"""
"""Whether another file that stands has the CIN of the contributor `k`."""
