"""Who owes: enrolment from a file. Good lines load, bad lines are named, nothing is guessed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Final

from sqlmodel import Session

from gateway.csvfiles import BadLine, GoodLine, ImportResult, TrailerLine, read_csv, read_day
from gateway.db import copy_rows, execute, transaction
from gateway.money import UnreadableAmount, parse_amount
from gateway.tariff import Tariff, keep_categories

# The person's own columns in the order of the file's description; also the table's.
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
            "COPY incoming (line, cnss_number, cin, family_name, given_name, family_name_ar,"
            " given_name_ar, phone, language, category_code, category_base_minor, region,"
            " province, chamber, registered_on, left_on, changed_at) FROM STDIN",
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
            yield (line.number, *_person(line, categories), now)
        except ValueError as error:
            result.rejected.append(BadLine(line.number, str(error)))
    progress(result.read)


def _person(line: GoodLine, categories: dict[str, bool]) -> Row:
    """Return a line as a contributor's columns, or raise ValueError with the reason."""
    value = line.values
    for column in REQUIRED:
        if not value[column]:
            raise ValueError(f"{column} is empty")
    for column in COLUMNS:
        if len(value[column]) > TEXT_MAX:
            raise ValueError(f"{column} is longer than {TEXT_MAX} characters")
    if not _CNSS.fullmatch(value["cnss_number"]):
        raise ValueError("cnss_number is not nine digits")
    cin = value["cin"].replace(" ", "").upper()
    if cin and not _CIN.fullmatch(cin):
        raise ValueError("cin is not two to twelve letters and digits")
    language = value["language"].lower()
    if language not in {"", "fr", "ar"}:
        raise ValueError("language is neither fr nor ar")
    category = value["category"]
    if category not in categories:
        raise ValueError(f"category is none of the tariff's ({', '.join(categories)})")
    registered_on = _day("registered_on", value["registered_on"])
    left_on = _day("left_on", value["left_on"]) if value["left_on"] else None
    if left_on is not None and left_on < registered_on:
        raise ValueError("left_on is before registered_on")
    return (
        value["cnss_number"],
        cin or None,
        value["family_name"],
        value["given_name"],
        value["family_name_ar"] or None,
        value["given_name_ar"] or None,
        _phone(value["phone"]),
        language or None,
        category,
        _base(value["category_base"], category, needed=categories[category]),
        value["region"] or None,
        value["province"] or None,
        value["chamber"] or None,
        registered_on,
        left_on,
    )


def _day(column: str, text: str) -> date:
    day = read_day(text)
    if day is None:
        raise ValueError(f"{column} is not a day written as 2026-01-31")
    return day


def _phone(text: str) -> str | None:
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
