"""What was matched, as a file: CSV or Parquet, written by DuckDB."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Final

from sqlmodel import Session

from gateway.clock import INSTITUTION_ZONE
from gateway.errors import Unusable
from reconciliation.duckfiles import pull_rows, read_file, workbench

FORMATS: Final = ("csv", "parquet")

_COLUMNS: Final = {
    "group_id": "BIGINT",
    "payment_id": "VARCHAR",
    "record_id": "VARCHAR",
    "rule": "VARCHAR",
    "score": "SMALLINT",
}


def export_matches(session: Session, path: Path, *, from_on: date, to_on: date, form: str) -> int:
    """Write the groups that stand and have a payment paid in these days; return their lines.

    Columns as of `matches.csv`: group_id, payment_id as `provider/its id`, record_id, rule, score;
    in the order of group, payment and record. Nothing of it names a person. Whole groups: where one
    payment of a group is paid in these days, all its lines are there.

    Args:
        session: A snapshot, or whatever sees what is to be exported.
        path: Where to; replaced if it is there.
        from_on: The first day, in Casablanca.
        to_on: The last.
        form: One of FORMATS.

    Raises:
        Unusable: The days are the wrong way round, or the file cannot be written.
    """
    if to_on < from_on:
        raise Unusable(f"{to_on} lies before {from_on}.")
    with workbench() as (con, folder):
        rows = folder.joinpath("rows.csv")
        days = {"since": _midnight(from_on), "until": _end_of(to_on)}
        pull_rows(session, _LINES, _COLUMNS, rows, days)
        con.execute(f"CREATE TABLE line AS SELECT * FROM {read_file(rows, _COLUMNS, texts=True)}")
        written = folder.joinpath("written")
        options = "FORMAT csv, HEADER" if form == "csv" else "FORMAT parquet, COMPRESSION zstd"
        con.execute(f"COPY (SELECT * FROM line ORDER BY ALL) TO '{written}' ({options})")
        count = con.execute("SELECT count(*) FROM line").fetchone()
        assert count is not None
        _place(written, path)
        return int(count[0])


_LINES: Final = """
    WITH paid AS (
        SELECT DISTINCT m.group_id FROM match_line m JOIN payment p ON p.id = m.payment_id
        WHERE p.paid_at >= CAST(:since AS timestamptz)
            AND p.paid_at < CAST(:until AS timestamptz)
    )
    SELECT m.group_id, p.provider || '/' || p.provider_payment_id AS payment_id, r.record_id,
        m.rule, m.score
    FROM match_line m JOIN paid USING (group_id) JOIN payment p ON p.id = m.payment_id
    JOIN institution_record r ON r.id = m.record_id
"""


def _midnight(day: date) -> str:
    return datetime.combine(day, time(), INSTITUTION_ZONE).isoformat()


def _end_of(day: date) -> str:
    return "infinity" if day == date.max else _midnight(day + timedelta(days=1))


def _place(written: Path, path: Path) -> None:
    try:
        with written.open("rb") as source, path.open("wb") as target:
            while block := source.read(1 << 20):
                target.write(block)
    except OSError as error:
        raise Unusable(f"{path} cannot be written: {error.strerror}.") from None
