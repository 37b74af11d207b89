"""What people do and did, since when. A change keeps what was before, and asks for re-assessment.

The register's row says what a person does now; what was before, or goes on beside, is a row of
`activity`. What the register said before `category_since` is the row that ends on the day before,
and so on back to the registration: one line of succession, cut by a change from an earlier day on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from sqlmodel import Session

from gateway.db import execute
from gateway.dues.assessment import Did, PersonFacts
from gateway.dues.tariff import Tariff, keep_categories
from gateway.errors import Unusable
from gateway.money import format_amount

BECAUSE_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Person:
    """All files of one person, the standing one first, by their ids."""

    id: int
    """Of the file that stands."""
    files: Mapping[int, PersonFacts]
    is_erased: bool = False
    """Whether what names the person was taken out: what was billed stands as it is."""


# All files of the people that these are of, by the indexes: of many people some are asked for.
_FILES: Final = """
    SELECT coalesce(merged_into_id, id) FROM contributor WHERE id = ANY(:ids)
    UNION
    SELECT other.id FROM contributor given
    JOIN contributor other ON other.merged_into_id = coalesce(given.merged_into_id, given.id)
    WHERE given.id = ANY(:ids)
"""


def read_people(session: Session, contributor_ids: Iterable[int]) -> dict[int, Person]:
    """Return the people that these files are of, by the ids of the files that stand."""
    files = execute(
        session,
        f"""
        SELECT c.*, coalesce(c.merged_into_id, c.id) AS standing FROM contributor c
        WHERE c.id IN ({_FILES}) ORDER BY c.merged_into_id IS NOT NULL, c.id
        """,
        {"ids": sorted(set(contributor_ids))},
    )
    rows = list(files.mappings())
    did: dict[int, list[Did]] = {}
    activities = execute(
        session,
        "SELECT contributor_id, category_code, base_minor, since, until FROM activity"
        " WHERE contributor_id = ANY(:ids) AND withdrawn_at IS NULL ORDER BY id",
        {"ids": [row["id"] for row in rows]},
    )
    for contributor_id, *activity in activities:
        did.setdefault(contributor_id, []).append(Did(*activity))
    found: dict[int, dict[int, PersonFacts]] = {}
    for row in rows:
        facts = PersonFacts(
            registered_on=row["registered_on"],
            left_on=row["left_on"],
            category=row["category_code"],
            base_minor=row["category_base_minor"],
            category_since=row["category_since"],
            activities=tuple(did.get(row["id"], ())),
        )
        found.setdefault(row["standing"], {})[row["id"]] = facts
    erased = {row["standing"] for row in rows if row["erased_at"] is not None}
    return {at: Person(at, by_id, at in erased) for at, by_id in found.items()}


def lock_people(session: Session, contributor_ids: Iterable[int]) -> None:
    """Let nobody else change these people, or note on their invoices, until the transaction ends.

    All files of each, in the order of their ids, before any other lock.
    """
    execute(
        session,
        f"""
        SELECT FROM contributor WHERE id IN ({_FILES}) ORDER BY id FOR NO KEY UPDATE
        """,
        {"ids": sorted(set(contributor_ids))},
    )


def ask_for_reassessment(session: Session, contributor_ids: Iterable[int], because: str) -> None:
    """Put people in line for re-assessment. The caller owns the transaction and has locked them."""
    execute(
        session,
        f"INSERT INTO reassessment_due (contributor_id, because)"
        f" SELECT id, :because FROM unnest(CAST(:ids AS bigint[])) AS id {_IN_LINE}",
        {"ids": sorted(set(contributor_ids)), "because": because},
    )


# All reasons since the last time, so that what comes of it is explained.
_IN_LINE: Final = f"""
    ON CONFLICT (contributor_id) DO UPDATE SET because = CASE
        WHEN position(excluded.because IN reassessment_due.because) > 0
        THEN reassessment_due.because
        ELSE left(reassessment_due.because || '; ' || excluded.because, {BECAUSE_MAX}) END
"""


def record_change(
    session: Session,
    contributor_id: int,
    tariff: Tariff,
    *,
    category: str,
    base_minor: int | None,
    since: date,
    because: str,
    now: datetime,
) -> None:
    """Make a category and base hold from a day on; what held before is kept until the day before.

    What the register said for later days is withdrawn: this holds for all of them. A day before the
    registration means from the beginning. The caller owns the transaction.

    Raises:
        Unusable: There is no such person or category, a base is needed and absent, or it cannot be
            told which activity went before.
    """
    because = reason_given(because)
    _refuse_wrong(tariff, category, base_minor)
    keep_categories(session, tariff)
    _known(session, contributor_id)
    parameters = {
        "id": contributor_id,
        "category": category,
        "base": base_minor,
        "since": since,
        "because": because,
    }
    source = (
        "SELECT CAST(:id AS bigint) AS contributor_id, CAST(:category AS text) AS category_code,"
        " CAST(:base AS bigint) AS base_minor, CAST(:since AS date) AS since,"
        " CAST(:because AS text) AS because"
    )
    if unclear_predecessors(session, source, parameters):
        raise Unusable(
            "Two activities ended on one day, and it cannot be told which the register's followed:"
            " withdraw one of them first."
        )
    record_changes(session, source, parameters, now=now)


_CHANGE: Final = """
    change AS (
        SELECT s.contributor_id, s.category_code, s.base_minor, s.because,
            greatest(s.since, k.registered_on) AS since, k.registered_on,
            k.category_code AS was_category, k.category_base_minor AS was_base,
            coalesce(k.category_since, k.registered_on) AS own_since
        FROM ({source}) s JOIN contributor k ON k.id = s.contributor_id
    ), line AS (
        SELECT a.*, 1 AS back FROM change c JOIN activity a
            ON a.contributor_id = c.contributor_id AND a.until = c.own_since - 1
            AND a.withdrawn_at IS NULL
        UNION ALL
        SELECT a.*, back + 1 FROM line l JOIN activity a
            ON a.contributor_id = l.contributor_id AND a.until = l.since - 1
            AND a.withdrawn_at IS NULL
    )
"""


def unclear_predecessors(session: Session, source: str, parameters: Mapping[str, Any]) -> list[int]:
    """Return the people of whom a change would cut the past, and it is not clear which.

    Args:
        session: Whose transaction it is.
        source: As of `record_changes`.
        parameters: Of the source.
    """
    found = execute(
        session,
        f"WITH RECURSIVE {_CHANGE.format(source=source)}"
        " SELECT DISTINCT contributor_id FROM line JOIN change USING (contributor_id)"
        " WHERE change.since < own_since GROUP BY contributor_id, until HAVING count(*) > 1",
        parameters,
    )
    return list(found.scalars())


def record_changes(
    session: Session, source: str, parameters: Mapping[str, Any], *, now: datetime
) -> None:
    """Do what `record_change` does for all people of a query at once. Whoever calls locked them.

    Args:
        session: Whose transaction it is.
        source: A query of ours: `contributor_id` (each once), `category_code`, `base_minor`,
            `since`, `because`.
        parameters: Of the source.
        now: When.
    """
    execute(
        session,
        f"""
        WITH RECURSIVE {_CHANGE.format(source=source)}, withdrawn AS (
            UPDATE activity a SET withdrawn_at = :now FROM line l JOIN change c
                USING (contributor_id) WHERE a.id = l.id AND l.until >= c.since
        ), before AS (
            INSERT INTO activity (contributor_id, category_code, base_minor, since, until, because,
                recorded_at)
            SELECT contributor_id, l.category_code, l.base_minor, l.since, c.since - 1, c.because,
                CAST(:now AS timestamptz)
            FROM line l JOIN change c USING (contributor_id)
            WHERE l.since < c.since AND l.until >= c.since
            UNION ALL
            SELECT contributor_id, was_category, was_base, own_since, since - 1, because, :now
            FROM change WHERE own_since < since
        ), changed AS (
            UPDATE contributor k SET category_code = c.category_code, changed_at = :now,
                category_base_minor = c.base_minor,
                category_since = CASE WHEN c.since > k.registered_on THEN c.since END
            FROM change c WHERE k.id = c.contributor_id RETURNING k.id, c.because
        )
        INSERT INTO reassessment_due (contributor_id, because) SELECT id, because FROM changed
        {_IN_LINE}
        """,
        {**parameters, "now": now},
    )


def correct_registration(
    session: Session,
    contributor_id: int,
    *,
    registered_on: date | None = None,
    left_on: date | None = None,
    stays: bool = False,
    because: str,
    now: datetime,
) -> None:
    """Correct the days of a registration. The caller owns the transaction.

    Args:
        session: Whose transaction it is.
        contributor_id: Whose.
        registered_on: The first day; None leaves it.
        left_on: The last day, of a departure or a death; None leaves it.
        stays: Empty the last day instead.
        because: Who said so, and why. No names.
        now: When.

    Raises:
        Unusable: There is no such person, or the last day would lie before the first.
    """
    because = reason_given(because)
    known = _known(session, contributor_id)
    first = registered_on or known["registered_on"]
    last = None if stays else left_on or known["left_on"]
    if last is not None and last < first:
        raise Unusable(f"The last day, {last}, lies before the first, {first}: compare them.")
    source = (
        "SELECT CAST(:id AS bigint) AS contributor_id, CAST(:first AS date) AS registered_on,"
        " CAST(:last AS date) AS left_on, CAST(:because AS text) AS because"
    )
    parameters = {"id": contributor_id, "first": first, "last": last, "because": because}
    correct_registrations(session, source, parameters, now=now)


def correct_registrations(
    session: Session, source: str, parameters: Mapping[str, Any], *, now: datetime
) -> None:
    """Correct the days of many registrations at once. Whoever calls locked the people.

    Who is registered earlier did before what the first activity says; who is registered later than
    the register's category began has no past.

    Args:
        session: Whose transaction it is.
        source: A query of ours: `contributor_id` (each once), `registered_on`, `left_on`,
            `because`.
        parameters: Of the source.
        now: When.
    """
    execute(
        session,
        f"""
        WITH RECURSIVE change AS (
            SELECT s.*, k.category_since AS own_since FROM ({source}) s
            JOIN contributor k ON k.id = s.contributor_id
            WHERE (k.registered_on, k.left_on) IS DISTINCT FROM (s.registered_on, s.left_on)
        ), line AS (
            SELECT a.* FROM change c JOIN activity a
                ON a.contributor_id = c.contributor_id AND a.until = c.own_since - 1
                AND a.withdrawn_at IS NULL
            UNION ALL
            SELECT a.* FROM line l JOIN activity a
                ON a.contributor_id = l.contributor_id AND a.until = l.since - 1
                AND a.withdrawn_at IS NULL
        ), first AS (
            SELECT DISTINCT ON (contributor_id) * FROM line ORDER BY contributor_id, since, id
        ), past AS (
            SELECT l.id FROM line l JOIN change c USING (contributor_id)
                WHERE c.own_since <= c.registered_on
            UNION SELECT f.id FROM first f JOIN change c USING (contributor_id)
                WHERE f.since > c.registered_on
        ), withdrawn AS (
            UPDATE activity SET withdrawn_at = :now WHERE id IN (SELECT id FROM past)
        ), longer AS (
            INSERT INTO activity (contributor_id, category_code, base_minor, since, until, because,
                recorded_at)
            SELECT contributor_id, f.category_code, f.base_minor, c.registered_on, f.until,
                c.because, :now
            FROM first f JOIN change c USING (contributor_id)
            WHERE f.since > c.registered_on AND c.own_since > c.registered_on
        ), changed AS (
            UPDATE contributor k SET registered_on = c.registered_on, left_on = c.left_on,
                category_since = CASE WHEN k.category_since > c.registered_on
                    THEN k.category_since END, changed_at = :now
            FROM change c WHERE k.id = c.contributor_id RETURNING k.id, c.because
        )
        INSERT INTO reassessment_due (contributor_id, because) SELECT id, because FROM changed
        {_IN_LINE}
        """,
        {**parameters, "now": now},
    )


def add_activity(
    session: Session,
    contributor_id: int,
    tariff: Tariff,
    *,
    category: str,
    base_minor: int | None,
    since: date,
    until: date | None,
    because: str,
    now: datetime,
) -> int:
    """Record an activity beside what the register says; return its id.

    The caller owns the transaction.

    Raises:
        Unusable: There is no such person or category, a base is needed and absent, or its days
            cannot be.
    """
    because = reason_given(because)
    _refuse_wrong(tariff, category, base_minor)
    if until is not None and until < since:
        raise Unusable(f"The last day, {until}, lies before the first, {since}: compare them.")
    keep_categories(session, tariff)
    known = _known(session, contributor_id)
    if since < known["registered_on"]:
        raise Unusable(
            f"The registration began on {known['registered_on']}, after {since}: correct it first."
        )
    added: int = execute(
        session,
        "INSERT INTO activity (contributor_id, category_code, base_minor, since, until, because,"
        " recorded_at) VALUES (:id, :category, :base, :since, :until, :because, :now) RETURNING id",
        {
            "id": contributor_id,
            "category": category,
            "base": base_minor,
            "since": since,
            "until": until,
            "because": because,
            "now": now,
        },
    ).scalar_one()
    ask_for_reassessment(session, [contributor_id], because)
    return added


def withdraw_activity(
    session: Session, contributor_id: int, activity_id: int, *, because: str, now: datetime
) -> None:
    """Say of an activity that it has never been. The caller owns the transaction.

    Raises:
        Unusable: The person has no such activity, or it is withdrawn already.
    """
    because = reason_given(because)
    _known(session, contributor_id)
    found = execute(
        session,
        "UPDATE activity SET withdrawn_at = :now"
        " WHERE id = :id AND contributor_id = :whose AND withdrawn_at IS NULL RETURNING id",
        {"id": activity_id, "whose": contributor_id, "now": now},
    ).one_or_none()
    if found is None:
        raise Unusable(f"The person has no activity {activity_id} that stands: list them.")
    ask_for_reassessment(session, [contributor_id], because)


def recorded(session: Session, contributor_id: int) -> list[dict[str, Any]]:
    """Return what was ever recorded of a person's activities, as commands say it."""
    rows = execute(
        session,
        "SELECT * FROM activity WHERE contributor_id = :id ORDER BY id",
        {"id": contributor_id},
    ).mappings()
    return [
        {
            "id": str(row["id"]),
            "category": row["category_code"],
            "base": None if row["base_minor"] is None else format_amount(row["base_minor"]),
            "since": row["since"].isoformat(),
            "until": row["until"].isoformat() if row["until"] else None,
            "because": row["because"],
            "withdrawn": row["withdrawn_at"] is not None,
        }
        for row in rows
    ]


def registered(session: Session, contributor_id: int) -> dict[str, Any]:
    """Return what a person does by the register, as commands say it."""
    row = execute(
        session,
        "SELECT category_code, category_base_minor, coalesce(category_since, registered_on)"
        " AS since, left_on FROM contributor WHERE id = :id",
        {"id": contributor_id},
    ).one()
    base = row.category_base_minor
    return {
        "category": row.category_code,
        "base": None if base is None else format_amount(base),
        "since": row.since.isoformat(),
        "until": row.left_on.isoformat() if row.left_on else None,
    }


def contributor_of(session: Session, cnss_number: str) -> int:
    """Return whose a CNSS number is.

    Raises:
        Unusable: Nobody's.
    """
    found: int | None = execute(
        session, "SELECT id FROM contributor WHERE cnss_number = :number", {"number": cnss_number}
    ).scalar_one_or_none()
    if found is None:
        raise Unusable("Nobody is enrolled with this CNSS number: compare its nine digits.")
    return found


def _known(session: Session, contributor_id: int) -> Mapping[Any, Any]:
    """Lock a person and return the row."""
    lock_people(session, [contributor_id])
    row = execute(session, "SELECT * FROM contributor WHERE id = :id", {"id": contributor_id})
    known = row.mappings().one_or_none()
    if known is None:
        raise Unusable(f"There is no contributor {contributor_id}.")
    if known["erased_at"] is not None:
        raise Unusable("The data of this person were erased: nothing can be noted any more.")
    return known


def _refuse_wrong(tariff: Tariff, category: str, base_minor: int | None) -> None:
    if tariff.of(category).needs_base and base_minor is None:
        raise Unusable(f"{category} needs a base: give it.")
    if base_minor is not None and base_minor < 0:
        raise Unusable("A base is not negative.")


def reason_given(because: str) -> str:
    """Return a reason without spaces around it.

    Raises:
        Unusable: It is empty, or too long.
    """
    because = because.strip()
    if not because:
        raise Unusable("Say why: who said so, without names.")
    if len(because) > BECAUSE_MAX:
        raise Unusable(f"The reason has more than {BECAUSE_MAX} characters: shorten it.")
    return because
