"""Who owes: enrolment, from a file or one by one. What is wrong is named, nothing is guessed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from sqlmodel import Session

from gateway.clock import day_of
from gateway.csvfiles import BadLine, ImportResult, TrailerLine, read_csv, read_day
from gateway.db import copy_rows, execute, transaction
from gateway.dues.periods import period_of
from gateway.dues.tariff import CategoryTariff, Tariff, keep_categories
from gateway.models import Periodicity
from gateway.money import UnreadableAmount, format_amount, parse_amount
from gateway.people.activities import (
    correct_registrations,
    lock_people,
    record_changes,
    unclear_predecessors,
)
from gateway.registers.numbers import cin_is_usual, cnss_number_checks, read_ice
from gateway.registers.phones import phone_is_possible, read_phone
from gateway.registers.places import Place, as_region, read_place

# The person's own columns in the order of the file's description; also the table's order.
COLUMNS: Final = (
    "cnss_number",
    "cin",
    "family_name",
    "given_name",
    "family_name_ar",
    "given_name_ar",
    "phone",
    "language",
    "category",
    "category_base",
    "region",
    "province",
    "chamber",
    "registered_on",
    "left_on",
    "commune",
    "ice",
)
TABLE_COLUMNS: Final = tuple(
    {"category": "category_code", "category_base": "category_base_minor"}.get(column, column)
    for column in COLUMNS
)
REQUIRED: Final = ("cnss_number", "family_name", "given_name", "category", "registered_on")
SINCE: Final = "category_since"
"""Of a file and a change: from when the category and base hold. No column of the person's own."""
TEXT_MAX: Final = 120
PROGRESS_LINES: Final = 5_000
WARNINGS_MAX: Final = 1_000
"""How many an import lists; all are counted."""
AHEAD: Final = timedelta(days=366)
"""How far ahead of today a registration or a change may begin: later is a slip of the pen."""
LONG_AGO_YEARS: Final = 100
"""A registration that is older is warned of."""

_CNSS = re.compile(r"[0-9]{9}", re.ASCII)
# Foreigners' and old papers differ from the usual shape, and a person must not stay without cover
# for the shape of a number that nobody here checks: beyond this, odd ones are warned of.
_CIN = re.compile(r"[A-Z0-9]{2,12}", re.ASCII)

Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong with one column of a person. The reason names no personal value."""

    column: str
    reason: str


@dataclass(slots=True)
class EnrolmentResult(ImportResult):
    """What became of a file's lines, and what is odd about those that were taken."""

    warned: int = 0
    warnings: list[BadLine] = field(default_factory=list)
    """The first WARNINGS_MAX, by line; they name no personal value."""

    def warn(self, line: int, odd: Sequence[Wrong]) -> None:
        """Count what is odd about a line, and keep it while there is room."""
        self.warned += len(odd)
        room = WARNINGS_MAX - len(self.warnings)
        self.warnings.extend(BadLine(line, each.reason) for each in odd[:room])


class WrongPerson(ValueError):
    """A person cannot be enrolled as described; `wrong` has a reason for each column."""

    def __init__(self, wrong: list[Wrong]) -> None:
        super().__init__(wrong[0].reason)
        self.wrong = tuple(wrong)


class Enrolled(StrEnum):
    """What became of an enrolment."""

    NEW = "new"
    SAME = "same"
    """The person is enrolled already, with the same content."""
    OTHER = "other"
    """The number is enrolled already, with other content: nothing was changed."""


def import_contributors(
    path: Path, tariff: Tariff, *, now: datetime, progress: Callable[[int], None] = lambda _: None
) -> EnrolmentResult:
    """Enrol the people of a file, or bring them up to date; the same file again changes nothing.

    A known person's other category or base holds from `category_since` on, else from the first day
    of this quarter; what was before is kept, and the person is put in line for re-assessment. Of a
    new person it holds from the registration on. Opens one transaction: a crash leaves the register
    as it was. Flat in memory.

    Raises:
        Unusable: The file cannot be read, or its header lacks a column.
    """
    result = EnrolmentResult()
    with transaction() as session:
        keep_categories(session, tariff)
        execute(
            session,
            "CREATE TEMPORARY TABLE incoming (line bigint, LIKE contributor) ON COMMIT DROP",
        )
        execute(session, "ALTER TABLE incoming ALTER id DROP NOT NULL")
        copy_rows(
            session,
            f"COPY incoming (line, {', '.join(TABLE_COLUMNS)}, {SINCE}, changed_at) FROM STDIN",
            _rows(path, tariff, result, now, progress),
        )
        _set_repeats_aside(session, result)
        _keep_what_was(session, result, now)
        _merge(session, result)
        _warn_of_others_papers(session, result)
        respell_regions(session)
    return result


def _rows(
    path: Path,
    tariff: Tariff,
    result: EnrolmentResult,
    now: datetime,
    progress: Callable[[int], None],
) -> Iterator[Row]:
    categories, on = _categories(tariff), day_of(now)
    for line in read_csv(path, known=(*COLUMNS, SINCE), required=REQUIRED):
        result.read += 1
        if result.read % PROGRESS_LINES == 0:
            progress(result.read)
        assert not isinstance(line, TrailerLine)
        if isinstance(line, BadLine):
            result.rejected.append(line)
            continue
        try:
            row, odd = _person(line.values, categories, on)
            since = _since(line.values, on)
        except ValueError as error:
            result.rejected.append(BadLine(line.number, str(error)))
            continue
        registered_on = row[TABLE_COLUMNS.index("registered_on")]
        assert isinstance(registered_on, date)
        if since is not None and since < registered_on:
            reason = f"{SINCE} is before registered_on, and counts from there"
            odd = [*odd, Wrong(SINCE, reason)]
        if odd:
            result.warn(line.number, odd)
        yield (line.number, *row, since, now)
    progress(result.read)


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
    person = read_person({**_as_values(known), **values}, tariff, on=day_of(now))
    given = dict(zip(TABLE_COLUMNS, person, strict=True))
    try:
        since = _since(values, day_of(now))
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
        "since": since or _this_quarter(now),
    }
    if unclear_predecessors(session, source, parameters):
        raise WrongPerson([Wrong(SINCE, f"{SINCE} {_UNCLEAR}")])
    record_changes(session, source, parameters, now=now)


_UNCLEAR: Final = (
    "lies before the end of two activities that ended on one day: withdraw one of them first"
)


def _this_quarter(now: datetime) -> date:
    return period_of(day_of(now), Periodicity.QUARTER).starts_on


def _since(values: Mapping[str, str], on: date) -> date | None:
    """Return from when a category and base hold, if that is said."""
    text = values.get(SINCE, "")
    return _soon(SINCE, _day(SINCE, text), on) if text else None


def _soon(column: str, day: date, on: date) -> date:
    if day - on > AHEAD:
        raise ValueError(f"{column} is more than a year ahead: compare its year")
    return day


def read_person(values: Mapping[str, str], tariff: Tariff, *, on: date) -> Row:
    """Return a person's values by COLUMNS as the table's, by TABLE_COLUMNS. `on` is today.

    Raises:
        WrongPerson: Something is wrong, with all of it.
    """
    return _person(values, _categories(tariff), on)[0]


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
        odd = _person(_as_values(known), _categories(tariff), on)[1]
    except WrongPerson as error:
        odd = list(error.wrong)  # enrolled by an older version's rules
    query = f"SELECT EXISTS (SELECT FROM contributor k WHERE k.id = :id AND {_PAPER_OF_ANOTHER})"
    if execute(session, query, {"id": known["id"]}).scalar_one():
        odd.append(Wrong("cin", _SAME_CIN))
    return odd


def _categories(tariff: Tariff) -> dict[str, CategoryTariff]:
    return {category.code: category for category in tariff.category}


@dataclass(slots=True)
class _Reader:
    """Reads one person's columns, and remembers what is wrong with which."""

    wrong: list[Wrong] = field(default_factory=list)

    def note(self, column: str, reason: str) -> None:
        self.wrong.append(Wrong(column, reason))

    def read(self, column: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except ValueError as error:
            self.note(column, str(error))
            return None


def _person(
    value: Mapping[str, str], categories: dict[str, CategoryTariff], on: date
) -> tuple[Row, list[Wrong]]:
    """Return a person's columns and what is odd about them on a day, or raise WrongPerson."""
    reader = _Reader()
    # One text for what is written alike: a chamber finds its region however that was typed.
    value = {column: unicodedata.normalize("NFC", text) for column, text in value.items()}
    for column in REQUIRED:
        if not value[column]:
            reader.note(column, f"{column} is empty")
    for column in COLUMNS:
        if len(value[column]) > TEXT_MAX:
            reader.note(column, f"{column} is longer than {TEXT_MAX} characters")
    if value["cnss_number"] and not _CNSS.fullmatch(value["cnss_number"]):
        reader.note("cnss_number", "cnss_number is not nine digits")
    cin = value["cin"].replace(" ", "").upper()
    if cin and not _CIN.fullmatch(cin):
        reader.note("cin", "cin is not two to twelve letters and digits")
    language = value["language"].lower()
    if language not in {"", "fr", "ar"}:
        reader.note("language", "language is neither fr nor ar")
    category = value["category"]
    if category and category not in categories:
        reader.note("category", f"category is none of the tariff's ({', '.join(categories)})")
    registered_on = left_on = None
    if text := value["registered_on"]:
        registered_on = reader.read(
            "registered_on", lambda: _soon("registered_on", _day("registered_on", text), on)
        )
    if value["left_on"]:
        left_on = reader.read("left_on", lambda: _day("left_on", value["left_on"]))
    if left_on is not None and registered_on is not None and left_on < registered_on:
        reader.note("left_on", "left_on is before registered_on")
    phone = reader.read("phone", lambda: read_phone(value["phone"]))
    ice = reader.read("ice", lambda: read_ice(value["ice"])) if value["ice"] else None
    base = reader.read(
        "category_base", lambda: _base(value["category_base"], categories.get(category))
    )
    if reader.wrong:
        raise WrongPerson(reader.wrong)
    place = read_place(value["region"], value["province"], value["commune"], value["chamber"])
    row = (
        value["cnss_number"],
        cin or None,
        value["family_name"],
        value["given_name"],
        value["family_name_ar"] or None,
        value["given_name_ar"] or None,
        phone,
        language or None,
        category,
        base,
        place.region,
        place.province,
        place.chamber,
        registered_on,
        left_on,
        place.commune,
        ice,
    )
    assert registered_on is not None
    odd = _odd_dues(registered_on, base, categories[category], on)
    return row, [*_odd(value["cnss_number"], cin, phone, place), *odd]


def _odd(cnss_number: str, cin: str, phone: str | None, place: Place) -> list[Wrong]:
    """Return what may be a mistake, and is no reason to leave anybody without cover."""
    odd = [Wrong(column, reason) for column, reason in place.warnings]
    if not cnss_number_checks(cnss_number):
        odd.append(Wrong("cnss_number", "cnss_number does not verify by the rule of 2006"))
    if cin and not cin_is_usual(cin):
        odd.append(Wrong("cin", "cin is not one or two letters and up to six digits"))
    if phone is not None and not phone_is_possible(phone):
        odd.append(Wrong("phone", "phone has no length that its country uses"))
    return odd


def _odd_dues(
    registered_on: date, base: int | None, category: CategoryTariff, on: date
) -> list[Wrong]:
    """Return what may be a mistake in what a person's dues go by."""
    odd = []
    if on.year - registered_on.year > LONG_AGO_YEARS:
        reason = f"registered_on is more than {LONG_AGO_YEARS} years ago"
        odd.append(Wrong("registered_on", reason))
    if base is not None and not category.needs_base:
        reason = f"category_base is not used: {category.code} has no bands"
        odd.append(Wrong("category_base", reason))
    return odd


def _as_values(known: Mapping[Any, Any]) -> dict[str, str]:
    """Return a row of the table as a line of a file would have it."""
    base = known["category_base_minor"]
    values = {column: known[at] for column, at in zip(COLUMNS, TABLE_COLUMNS, strict=True)}
    values["category_base"] = None if base is None else format_amount(base)
    return {column: "" if value is None else str(value) for column, value in values.items()}


def _day(column: str, text: str) -> date:
    day = read_day(text)
    if day is None:
        raise ValueError(f"{column} is not a day written as 2026-01-31")
    return day


def _base(text: str, category: CategoryTariff | None) -> int | None:
    if not text:
        if category is not None and category.needs_base:
            raise ValueError(f"category_base is empty, and {category.code} needs one")
        return None
    try:
        base = parse_amount(text)
    except UnreadableAmount as error:
        raise ValueError(f"category_base: {error}") from None
    if base < 0:
        raise ValueError("category_base is negative")
    if category is not None and (why := category.refuse_base(base)):
        raise ValueError(f"category_base: {why}")
    return base


def _set_repeats_aside(session: Session, result: ImportResult) -> None:
    """Keep the first line of each number; a later equal one is unchanged, another is rejected."""
    repeats = execute(
        session,
        """
        DELETE FROM incoming USING (
            SELECT line AS again, first_value(line) OVER of_person AS first
            FROM incoming WINDOW of_person AS (PARTITION BY cnss_number ORDER BY line)
        ) seen
        WHERE line = again AND again <> first
        RETURNING line, first,
            (SELECT to_jsonb(f) - 'line' FROM incoming f WHERE f.line = first)
                = to_jsonb(incoming) - 'line' AS same
        """,
    )
    for line, first, same in repeats:
        if same:
            result.unchanged += 1
        else:
            result.rejected.append(
                BadLine(line, f"the cnss_number of line {first} again, with other content")
            )


def _keep_what_was(session: Session, result: ImportResult, now: datetime) -> None:
    """Change what the dues of known people go by, keeping what was, for all of them at once."""
    execute(
        session,
        f"""
        CREATE TEMPORARY TABLE changing ON COMMIT DROP AS
        SELECT k.id AS contributor_id, i.line, i.category_code, i.category_base_minor AS base_minor,
            i.registered_on, i.left_on, coalesce(i.{SINCE}, :quarter) AS since,
            CAST(:because AS text) AS because,
            (k.category_code, k.category_base_minor)
                IS DISTINCT FROM (i.category_code, i.category_base_minor) OR {_EARLIER} AS otherwise
        FROM incoming i JOIN contributor k USING (cnss_number)
        WHERE (k.category_code, k.category_base_minor, k.registered_on, k.left_on)
            IS DISTINCT FROM
                (i.category_code, i.category_base_minor, i.registered_on, i.left_on)
            OR {_EARLIER}
        """,
        {"quarter": _this_quarter(now), "because": "a contributors file says otherwise"},
    )
    execute(
        session,
        "SELECT FROM contributor WHERE id IN (SELECT contributor_id FROM changing)"
        " ORDER BY id FOR NO KEY UPDATE",
    )
    whose = "SELECT contributor_id, because"
    changes = f"{whose}, category_code, base_minor, since FROM changing WHERE otherwise"
    unclear = execute(
        session,
        "DELETE FROM changing WHERE contributor_id = ANY(:ids) RETURNING line",
        {"ids": unclear_predecessors(session, changes, {})},
    )
    lines = list(unclear.scalars())
    execute(session, "DELETE FROM incoming WHERE line = ANY(:lines)", {"lines": lines})
    result.rejected.extend(BadLine(line, f"{SINCE} {_UNCLEAR}") for line in lines)
    correct_registrations(session, f"{whose}, registered_on, left_on FROM changing", {}, now=now)
    record_changes(session, changes, {}, now=now)


_SAME_CIN: Final = "cin is in another person's file too: is it one person? Then merge the files"
_PAPER_OF_ANOTHER: Final = """
    k.merged_into_id IS NULL AND k.cin IS NOT NULL AND EXISTS (
        SELECT FROM contributor other
        WHERE other.cin = k.cin AND other.id <> k.id AND other.merged_into_id IS NULL
    )
"""
"""Whether another file that stands has the CIN of the contributor `k`."""


def _warn_of_others_papers(session: Session, result: EnrolmentResult) -> None:
    query = (
        "SELECT line FROM incoming JOIN contributor k USING (cnss_number)"
        f" WHERE {_PAPER_OF_ANOTHER} ORDER BY line"
    )
    for line in execute(session, query).scalars():
        result.warn(line, [Wrong("cin", _SAME_CIN)])
    result.warnings.sort(key=lambda each: each.line)


_EARLIER: Final = (
    f"coalesce(greatest(i.{SINCE}, i.registered_on) < coalesce(k.{SINCE}, k.registered_on)"
    f" AND i.{SINCE} IS NOT NULL, false)"
)


def _merge(session: Session, result: ImportResult) -> None:
    columns = (
        "cin, family_name, given_name, family_name_ar, given_name_ar, phone, language,"
        " category_code, category_base_minor, region, province, chamber, registered_on, left_on,"
        " commune, ice"
    )
    given, known = _of("excluded", columns), _of("known", columns)
    total: int = execute(session, "SELECT count(*) FROM incoming").scalar_one()
    loaded: int = execute(
        session,
        f"""
        WITH merged AS (
            INSERT INTO contributor AS known (cnss_number, {columns}, changed_at)
            SELECT cnss_number, {columns}, changed_at FROM incoming ORDER BY line
            ON CONFLICT (cnss_number) DO UPDATE
                SET ({columns}, changed_at) = (SELECT {given}, excluded.changed_at)
                WHERE ({known}) IS DISTINCT FROM ({given})
            RETURNING id
        )
        SELECT count(*) FROM (SELECT id FROM merged UNION SELECT contributor_id FROM changing) known
        """,
    ).scalar_one()
    result.loaded = loaded
    result.unchanged += total - loaded


def _of(table: str, columns: str) -> str:
    return ", ".join(f"{table}.{column.strip()}" for column in columns.split(","))
