"""Who owes: enrolment, from a file or one by one. What is wrong is named, nothing is guessed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from sqlmodel import Session

from gateway.csvfiles import BadLine, ImportResult, TrailerLine, read_csv, read_day
from gateway.db import copy_rows, execute, transaction
from gateway.money import UnreadableAmount, format_amount, parse_amount
from gateway.tariff import Tariff, keep_categories

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
)
TABLE_COLUMNS: Final = tuple(
    {"category": "category_code", "category_base": "category_base_minor"}.get(column, column)
    for column in COLUMNS
)
REQUIRED: Final = ("cnss_number", "family_name", "given_name", "category", "registered_on")
TEXT_MAX: Final = 120
PROGRESS_LINES: Final = 5_000

_CNSS = re.compile(r"[0-9]{9}", re.ASCII)
# One or two letters and up to six digits by habit; foreigners' and old papers differ, and a person
# must not stay without cover for the shape of a number that nobody here checks.
_CIN = re.compile(r"[A-Z0-9]{2,12}", re.ASCII)
_PHONE_MOROCCO = re.compile(r"(?:\+212|00212|0)([5-8][0-9]{8})", re.ASCII)
_PHONE_ELSEWHERE = re.compile(r"\+[1-9][0-9]{7,14}", re.ASCII)


Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong with one column of a person. The reason names no personal value."""

    column: str
    reason: str


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
) -> ImportResult:
    """Enrol the people of a file, or bring them up to date; the same file again changes nothing.

    Opens one transaction: a crash leaves the register as it was. Flat in memory.

    Raises:
        Unusable: The file cannot be read, or its header lacks a column.
    """
    result = ImportResult()
    with transaction() as session:
        keep_categories(session, tariff)
        execute(
            session,
            "CREATE TEMPORARY TABLE incoming (line bigint, LIKE contributor) ON COMMIT DROP",
        )
        execute(session, "ALTER TABLE incoming ALTER id DROP NOT NULL")
        copy_rows(
            session,
            f"COPY incoming (line, {', '.join(TABLE_COLUMNS)}, changed_at) FROM STDIN",
            _rows(path, tariff, result, now, progress),
        )
        _set_repeats_aside(session, result)
        _merge(session, result)
    return result


def _rows(
    path: Path,
    tariff: Tariff,
    result: ImportResult,
    now: datetime,
    progress: Callable[[int], None],
) -> Iterator[Row]:
    categories = {category.code: category.needs_base for category in tariff.category}
    for line in read_csv(path, known=COLUMNS, required=REQUIRED):
        result.read += 1
        if result.read % PROGRESS_LINES == 0:
            progress(result.read)
        assert not isinstance(line, TrailerLine)
        if isinstance(line, BadLine):
            result.rejected.append(line)
            continue
        try:
            yield (line.number, *_person(line.values, categories), now)
        except ValueError as error:
            result.rejected.append(BadLine(line.number, str(error)))
    progress(result.read)


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
    row = read_person(values, tariff)
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

    The number that says who it is never changes. Invoices that were issued stay as they are. The
    caller owns the transaction.

    Raises:
        WrongPerson: Something is wrong with what would result.
    """
    # First, as an import does: whoever takes two locks takes them in the same order.
    keep_categories(session, tariff)
    known = (
        execute(
            session,
            "SELECT * FROM contributor WHERE id = :id FOR NO KEY UPDATE",
            {"id": contributor_id},
        )
        .mappings()
        .one_or_none()
    )
    if known is None:
        return False
    row = read_person({**_as_values(known), **values}, tariff)
    given = dict(zip(TABLE_COLUMNS, row, strict=True))
    if any(known[column] != value for column, value in given.items()):
        columns = [column for column in TABLE_COLUMNS if column != "cnss_number"]
        execute(
            session,
            f"UPDATE contributor SET {', '.join(f'{c} = :{c}' for c in columns)},"
            " changed_at = :now WHERE id = :id",
            {**given, "now": now, "id": contributor_id},
        )
    return True


def read_person(values: Mapping[str, str], tariff: Tariff) -> Row:
    """Return a person's values by COLUMNS as the table's, by TABLE_COLUMNS.

    Raises:
        WrongPerson: Something is wrong, with all of it.
    """
    return _person(values, {category.code: category.needs_base for category in tariff.category})


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


def _person(value: Mapping[str, str], categories: dict[str, bool]) -> Row:
    """Return a person's columns, or raise WrongPerson with the reasons."""
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
        registered_on = reader.read("registered_on", lambda: _day("registered_on", text))
    if value["left_on"]:
        left_on = reader.read("left_on", lambda: _day("left_on", value["left_on"]))
    if left_on is not None and registered_on is not None and left_on < registered_on:
        reader.note("left_on", "left_on is before registered_on")
    phone = reader.read("phone", lambda: as_phone(value["phone"]))
    needed = categories.get(category, False)
    base = reader.read(
        "category_base", lambda: _base(value["category_base"], category, needed=needed)
    )
    if reader.wrong:
        raise WrongPerson(reader.wrong)
    return (
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
        value["region"] or None,
        value["province"] or None,
        value["chamber"] or None,
        registered_on,
        left_on,
    )


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


def as_phone(text: str) -> str | None:
    """Return a telephone number as it is kept, with its country code; None for an empty text.

    Raises:
        ValueError: It is neither Moroccan nor international.
    """
    compact = re.sub(r"[ .()-]", "", text)
    if not compact:
        return None
    if found := _PHONE_MOROCCO.fullmatch(compact):
        return f"+212{found[1]}"
    if _PHONE_ELSEWHERE.fullmatch(compact):
        return compact
    raise ValueError("phone is neither a Moroccan number nor one with its country code")


def _base(text: str, category: str, *, needed: bool) -> int | None:
    if not text:
        if needed:
            raise ValueError(f"category_base is empty, and {category} needs one")
        return None
    try:
        base = parse_amount(text)
    except UnreadableAmount as error:
        raise ValueError(f"category_base: {error}") from None
    if base < 0:
        raise ValueError("category_base is negative")
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


def _merge(session: Session, result: ImportResult) -> None:
    columns = (
        "cin, family_name, given_name, family_name_ar, given_name_ar, phone, language,"
        " category_code, category_base_minor, region, province, chamber, registered_on, left_on"
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
            RETURNING 1
        )
        SELECT count(*) FROM merged
        """,
    ).scalar_one()
    result.loaded = loaded
    result.unchanged += total - loaded


def _of(table: str, columns: str) -> str:
    return ", ".join(f"{table}.{column.strip()}" for column in columns.split(","))
