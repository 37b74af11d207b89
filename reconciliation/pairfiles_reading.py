"""Read one side of `wasl match`: each line of a file becomes a row or a finding, or no line does.

Its fields are split by `reconciliation.pairfiles_splitting`. What they mean is judged in SQL where
it is beyond doubt, and by the readers of the product where it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb

from gateway.csvfiles import read_day
from gateway.errors import Unusable
from gateway.money import UnreadableAmount, parse_amount
from gateway.references import read_reference
from reconciliation.pairfiles_splitting import LINES_AT_ONCE, TEXTS, Format, Splitter, split
from reconciliation.reading_tables import Side
from reconciliation.trailers import Totals, check_trailer

_NOT_TO_BE_TOLD: Final = "unreadable_delivery"
_CONFLICT: Final[Mapping[Side, str]] = {
    "payment": "conflicting_payment",
    "record": "conflicting_record",
}


@dataclass(slots=True)
class Given:
    """What a file gave: so many rows to match, lines set aside, and lines given twice."""

    rows: int = 0
    findings: int = 0
    repeated: int = 0


def read_side(con: duckdb.DuckDBPyConnection, path: Path, format_: Format, scratch: Path) -> Given:
    """Read a file into `raw_payment` or `raw_record`, and what is wrong with it into `finding`.

    Makes `finding` (side, n, id, code, detail) where it does not exist yet; n is the line.

    Args:
        con: The caller's own database, nobody else's.
        path: CSV or Parquet.
        format_: Of which side.
        scratch: A directory for files of our own.

    Raises:
        Unusable: The file cannot be read, or is refused whole; the sentence says why and where.
    """
    con.execute(
        "CREATE TABLE IF NOT EXISTS finding"
        " (side VARCHAR, n BIGINT, id VARCHAR, code VARCHAR, detail VARCHAR)"
    )
    given = split(con, path, format_, scratch)
    return _Reader(con, given, given.path, given.format, given.table, given.n, given.unit).read()


@dataclass(slots=True)
class _Reader:
    con: duckdb.DuckDBPyConnection
    given: Splitter
    path: Path
    format: Format
    table: str
    n: str
    unit: str

    def read(self) -> Given:
        self._find([(bad.line, "", _NOT_TO_BE_TOLD, bad.reason) for bad in self.given.bad])
        totals = Totals()
        self._judge(totals)
        self._check_trailer(totals)
        repeated = self._set_twins_aside()
        side = self.format.side
        self.con.execute(
            f"CREATE VIEW raw_{side} AS"
            f" SELECT {self.n} AS n, * FROM {self.table} WHERE a IS NOT NULL"
        )
        return Given(
            rows=self._count(f"SELECT count(*) FROM {self.table} WHERE a IS NOT NULL"),
            findings=self._count(f"SELECT count(*) FROM finding WHERE side = '{side}'"),
            repeated=repeated,
        )

    def _count(self, query: str) -> int:
        return self.given.count(query)

    def _judge(self, totals: Totals) -> None:
        """Read the lines that SQL could not; what cannot be read is a finding."""
        odd = f"SELECT rowid AS place, {self.n} AS n, id, amount_given, day_given FROM {self.table}"
        for some in _rows(self.con, f"{odd} WHERE amount_given IS NOT NULL ORDER BY rowid"):
            good: list[tuple[object, ...]] = []
            findings = []
            for at, n, id_, amount, day in some:
                amount_minor = self._amount(n, amount.strip())
                wrong = _what_is_wrong(self.format, id_.strip(), amount_minor, day.strip())
                if wrong is None:
                    good.append((at, id_.strip(), amount_minor, read_day(day.strip())))
                    continue
                findings.append((n, id_.strip(), *wrong))
                if isinstance(amount_minor, int):
                    totals.amount_minor += amount_minor
            self._find(findings)
            if good:
                self.con.execute(
                    f"UPDATE {self.table} SET id = read.id, a = read.a, d = read.d FROM (SELECT"
                    " unnest($1::BIGINT[]) AS place, unnest($2::VARCHAR[]) AS id,"
                    " unnest($3::BIGINT[]) AS a, unnest($4::DATE[]) AS d) read"
                    f" WHERE {self.table}.rowid = place",
                    [list(of_one) for of_one in zip(*good, strict=True)],
                )

    def _amount(self, n: int, text: str) -> int | str:
        """Return centimes, or why there are none; of a record that is the end of its file."""
        try:
            return parse_amount(text)
        except UnreadableAmount as error:
            if self.format.side == "record":
                why = f"the amount cannot be read ({error})"
                raise Unusable(
                    f"{self.path.name}, {self.unit} {n}: {why}; the whole file is refused."
                ) from None
            return str(error)

    def _find(self, findings: Sequence[tuple[int, str, str, str]]) -> None:
        if findings:
            ns, ids, codes, whys = (list(of_one) for of_one in zip(*findings, strict=True))
            self.con.execute(
                f"INSERT INTO finding SELECT '{self.format.side}', unnest($1::BIGINT[]),"
                " unnest($2::VARCHAR[]), unnest($3::VARCHAR[]), unnest($4::VARCHAR[])",
                [
                    ns,
                    [id_ or f"{self.unit} {n}" for id_, n in zip(ids, ns, strict=True)],
                    codes,
                    [f"{self.unit} {n}: {why}" for n, why in zip(ns, whys, strict=True)],
                ],
            )

    def _check_trailer(self, totals: Totals) -> None:
        if self.given.trailer is None:
            return
        number, fields = self.given.trailer
        totals.lines = self._count(f"SELECT count(*) FROM {self.table}")
        totals.amount_minor += self._count(f"SELECT sum(a) FROM {self.table}")
        totals.cnss_numbers = self._count(
            f"SELECT sum(trim(cnss_number)::HUGEINT) FROM {self.table}"
            " WHERE regexp_full_match(trim(cnss_number), '[0-9]{1,24}')"
        )
        check_trailer(self.path.name, number, fields, totals)

    # -- twins ------------------------------------------------------------------------------------

    def _set_twins_aside(self) -> int:
        """Let the first line of each id stand. Return how many were the same again.

        Another content under a known id is a finding. A reference written in another way is no
        other content.
        """
        self.con.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE twin AS
            SELECT place, min(place) OVER (PARTITION BY id) AS first
            FROM (
                SELECT rowid AS place, id FROM {self.table} SEMI JOIN (
                    SELECT id FROM {self.table} WHERE a IS NOT NULL GROUP BY id HAVING count(*) > 1
                ) USING (id) WHERE a IS NOT NULL
            )
            QUALIFY place <> first
            """
        )
        if not self._count("SELECT count(*) FROM twin"):
            return 0
        conflicts = 0
        columns = ("a", "d", *TEXTS)
        differs = " OR ".join(f"two.{column} <> one.{column}" for column in columns)
        said = ", ".join(f"{{0}}.{column}::VARCHAR" for column in columns)
        for some in _rows(
            self.con,
            f"SELECT two.{self.n}, two.id, one.{self.n},"
            f" [{said.format('one')}], [{said.format('two')}]"
            f" FROM twin JOIN {self.table} two ON two.rowid = place"
            f" JOIN {self.table} one ON one.rowid = first WHERE {differs} ORDER BY place",
        ):
            findings = []
            for n, id_, first, one, two in some:
                other = [
                    self._column(column)
                    for column, mine, its in zip(columns, one, two, strict=True)
                    if _meant(column, mine) != _meant(column, its)
                ]
                if other:
                    why = f"{self.unit} {first} has this {self.format.id_column} with another"
                    why = f"{why} {', '.join(other)}"
                    findings.append((n, id_, _CONFLICT[self.format.side], why))
            self._find(findings)
            conflicts += len(findings)
        twins = self._count("SELECT count(*) FROM twin")
        self.con.execute(
            f"UPDATE {self.table} SET a = NULL FROM twin WHERE {self.table}.rowid = twin.place"
        )
        return twins - conflicts

    def _column(self, column: str) -> str:
        return {"a": "amount", "d": self.format.day_column}.get(column, column)


def _meant(column: str, text: str) -> str:
    """Return what a field says, however it is written."""
    text = text.strip()
    return (read_reference(text) or text) if column == "reference" else text


def _what_is_wrong(
    format_: Format, id_: str, amount: int | str, day: str
) -> tuple[str, str] | None:
    """Return the code and the reason for which a line is no row, or None."""
    if isinstance(amount, str):
        return "invalid_amount", f"the amount cannot be read ({amount})"
    if amount == 0:
        return "invalid_amount", "the amount is zero"
    if amount < 0 and format_.side == "payment":
        return "invalid_amount", "the amount is negative"
    if not id_:
        return _NOT_TO_BE_TOLD, f"{format_.id_column} is empty"
    if not id_.isprintable():
        return _NOT_TO_BE_TOLD, f"{format_.id_column} holds a character that cannot be seen"
    if read_day(day) is None:
        return "implausible_date", f"{format_.day_column} is not a day written as 2026-01-31"
    return None


def _rows(con: duckdb.DuckDBPyConnection, query: str) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the rows of a query, some at a time; the connection may be used in between."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE batch AS {query}")
    count = con.execute("SELECT count(*) FROM batch").fetchone()
    assert count is not None
    for first in range(0, count[0], LINES_AT_ONCE):
        yield con.execute(
            "SELECT * FROM batch WHERE rowid BETWEEN $1 AND $2", [first, first + LINES_AT_ONCE - 1]
        ).fetchall()
    con.execute("DROP TABLE batch")
