"""Enrol the people of a file, or bring them up to date: in one transaction, flat in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Final

from sqlmodel import Session

from gateway.clock import day_of
from gateway.csvfiles import BadLine, ImportResult, TrailerLine, read_csv
from gateway.db import copy_rows, execute, transaction
from gateway.dues.tariff import Tariff, keep_categories
from gateway.people.activities import (
    correct_registrations,
    record_changes,
    unclear_predecessors,
)
from gateway.people.contributors import (
    PAPER_OF_ANOTHER,
    SAME_CIN,
    UNCLEAR,
    respell_regions,
    since_of,
    this_quarter,
)
from gateway.people.reading import (
    COLUMNS,
    REQUIRED,
    SINCE,
    TABLE_COLUMNS,
    Row,
    Wrong,
    categories_by_code,
    read_columns,
)

PROGRESS_LINES: Final = 5_000


WARNINGS_MAX: Final = 1_000
"""How many an import lists; all are counted."""


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
    categories, on = categories_by_code(tariff), day_of(now)
    for line in read_csv(path, known=(*COLUMNS, SINCE), required=REQUIRED):
        result.read += 1
        if result.read % PROGRESS_LINES == 0:
            progress(result.read)
        assert not isinstance(line, TrailerLine)
        if isinstance(line, BadLine):
            result.rejected.append(line)
            continue
        try:
            row, odd = read_columns(line.values, categories, on)
            since = since_of(line.values, on)
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
        {"quarter": this_quarter(now), "because": "a contributors file says otherwise"},
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
    result.rejected.extend(BadLine(line, f"{SINCE} {UNCLEAR}") for line in lines)
    correct_registrations(session, f"{whose}, registered_on, left_on FROM changing", {}, now=now)
    record_changes(session, changes, {}, now=now)


def _warn_of_others_papers(session: Session, result: EnrolmentResult) -> None:
    query = (
        "SELECT line FROM incoming JOIN contributor k USING (cnss_number)"
        f" WHERE {PAPER_OF_ANOTHER} ORDER BY line"
    )
    for line in execute(session, query).scalars():
        result.warn(line, [Wrong("cin", SAME_CIN)])
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
