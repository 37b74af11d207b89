"""Split one file of `wasl match` into fields, in a table of DuckDB.

DuckDB splits a clean CSV file many times faster than Python. As soon as a file is not quite clean
(broken quotes, lines of another width, blank lines) the careful reader of `gateway.csvfiles` splits
it instead, so that every sentence about a bad line has one origin. What the fields mean is for
`reconciliation.pairfiles_reading`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import duckdb

from gateway.csvfiles import LINE_BYTES_MAX, BadLine, TrailerLine, fields_of, read_csv, read_header
from gateway.errors import Unusable
from reconciliation.reading_tables import Side
from reconciliation.trailers import TRAILER, refused

T = TypeVar("T")

LINES_AT_ONCE: Final = 20_000
TEXTS: Final = (
    "reference",
    "cnss_number",
    "cin",
    "name",
    "provider_reference",
    "channel",
    "period",
)

_CHUNK: Final = 1 << 21
_WIDTH_MAX: Final = 100
"""Our files have ten columns; an expression of a thousand terms is more than DuckDB takes."""
_PRINTABLE: Final = "[!-~]([ -~]*[!-~])?"
"""An id that has no space around it, and nothing that cannot be seen."""
_SPACE_AT_A_QUOTE: Final = re.compile(rb'[,;\n] +"|" +[,;\r\n]')
_LONE_RETURN: Final = re.compile(rb"\r[^\n]")
_EARLY_TRAILER: Final = re.compile(rb"\n[^,;\n]*" + TRAILER.encode() + rb"[^\n]*\n.")
_WHOLE: Final = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
)


@dataclass(frozen=True, slots=True)
class Format:
    """How the file of a side is written."""

    side: Side
    id_column: str
    day_column: str
    trailer: str | None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.id_column, "amount", self.day_column, *TEXTS)

    @property
    def required(self) -> tuple[str, ...]:
        return (self.id_column, "amount", self.day_column, "reference")


PAYMENTS: Final = Format("payment", "payment_id", "paid_on", None)
RECORDS: Final = Format("record", "record_id", "posted_on", TRAILER)


def split(con: duckdb.DuckDBPyConnection, path: Path, format_: Format, scratch: Path) -> Splitter:
    """Split a file into the table `given_payment` or `given_record`, one row for each good line.

    Its columns: id, `TEXTS`, a (centimes), d; and where these two are not certain they are NULL and
    `amount_given` and `day_given` hold the texts.

    Raises:
        Unusable: The file cannot be read, or is refused whole.
    """
    splitter = Splitter(con, path, format_, scratch)
    splitter.split()
    return splitter


@dataclass(slots=True)
class Splitter:
    """What became of a file, and how its lines are numbered."""

    con: duckdb.DuckDBPyConnection
    path: Path
    format: Format
    scratch: Path
    unit: str = "line"
    n: str = "rowid + 2"
    """SQL for the number of a line among the rows of the table."""
    trailer: tuple[int, Sequence[str]] | None = None
    bad: list[BadLine] = field(default_factory=list)
    """Lines of which the fields cannot be told apart."""

    @property
    def table(self) -> str:
        return f"given_{self.format.side}"

    def count(self, query: str) -> int:
        row = self.con.execute(query).fetchone()
        assert row is not None
        return int(row[0] or 0)

    def split(self) -> None:
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise Unusable(f"{self.path} is no regular file, which is read more than once.")
            with self.path.open("rb") as file:
                is_parquet = file.read(4) == b"PAR1"
        except OSError as error:
            raise Unusable(f"{self.path} cannot be read: {error.strerror}.") from None
        if is_parquet:
            self._split_parquet()
        elif not self._split_fast():
            self._split_carefully()

    def _split_fast(self) -> bool:
        """Let DuckDB split a CSV file; False, with nothing done, where it may not do it rightly.

        First as if quotes meant nothing but that a field is empty, as some programs write it; then,
        where they do, by quotes.
        """
        with self.path.open("rb") as file:
            first = file.readline(LINE_BYTES_MAX)
            some = file.read(LINE_BYTES_MAX)
        delimiter, header = read_header(first, self.path.name, required=self.format.required)
        if len(header) > _WIDTH_MAX:
            return False
        path, last, trailer = self.path, b"", None
        if self.format.trailer:
            last = _last_line(self.path)
            fields = fields_of(last, delimiter)
            if not isinstance(fields, str) and fields[:1] == [self.format.trailer]:
                path, trailer = self._without_last(last), fields
        ends = (first, b"" if trailer is None else last)
        plain, quoted = (self._source(path, delimiter, len(header), q) for q in ("", '"'))
        # DuckDB reads without Python's lock, and the bytes are looked at meanwhile.
        with ThreadPoolExecutor(1) as beside:
            may_end = self.format.trailer is not None
            scanning = beside.submit(_scan, self.path, delimiter.encode(), ends, may_end=may_end)
            is_read = not _quotes_text(some[: some.rfind(b"\n")]) and self._read(plain, header)
            scan = scanning.result()
        is_split = scan.is_clean and (
            (is_read and self._is_whole(scan, header) and self._has_quotes(scan.quotes))
            or (scan.quotes > 0 and self._read_by_quotes(quoted, delimiter, header, scan))
        )
        if not is_split:
            self.con.execute(f"DROP TABLE IF EXISTS {self.table}")
        elif trailer is not None:
            self.trailer = (scan.lines + 2, trailer)
        return is_split

    def _read_by_quotes(
        self, source: str, delimiter: str, header: Sequence[str], scan: _Scan
    ) -> bool:
        if any(_has_space_at_a_quote(some) for both in _chunks(self.path) for some in both):
            return False
        if not self._read(source, header):
            return False
        inside = self._inside_fields(source, delimiter, len(header))
        return self._is_whole(scan, header, inside) and not self._holds_quotes()

    def _is_whole(self, scan: _Scan, header: Sequence[str], inside: int = 0) -> bool:
        """Say whether the table has every line, and every delimiter that is not inside a field.

        DuckDB takes a line with one more field than the header, if that is empty.
        """
        return (
            self.count(f"SELECT count(*) FROM {self.table}") == scan.lines
            and scan.lines * (len(header) - 1) + inside == scan.delimiters
        )

    def _has_quotes(self, quotes: int) -> bool:
        """Say whether there are no quotes but those of empty fields."""
        return self.count(f"SELECT sum(quotes) FROM {self.table}") == quotes

    def _read(self, source: str, header: Sequence[str]) -> bool:
        """Make the table of a CSV file; say whether DuckDB could read it all."""
        at = {column: f"c{header.index(column)}" for column in header}
        # Every column is asked for, or of some no byte would be looked at. NULL stands for `""`.
        quotes = " + ".join(f"(c{at} IS NULL)::INTEGER" for at in range(len(header)))
        self.con.execute(f"DROP TABLE IF EXISTS {self.table}")
        try:
            self._keep(
                {column: at.get(column, "''") for column in self.format.columns},
                source,
                also=f"2 * ({quotes}) AS quotes",
            )
        except (duckdb.InvalidInputException, duckdb.ConversionException):
            return False
        return True

    def _source(self, path: Path, delimiter: str, width: int, quote: str) -> str:
        """Return SQL that reads a CSV file as the columns c0, c1 and so on.

        Without a quote, what is NULL is two quotes; else it is empty.
        """
        columns = ", ".join(f"'c{at}': 'VARCHAR'" for at in range(width))
        empty = "" if quote else '""'
        return (
            f"read_csv({_quoted(self._linked(path))}, auto_detect = false, header = false,"
            f" skip = 1, delim = '{delimiter}', quote = '{quote}', escape = '{quote}',"
            f" nullstr = '{empty}', comment = '',"
            f" columns = {{{columns}}}, strict_mode = true, compression = 'none',"
            f" hive_partitioning = false, max_line_size = {LINE_BYTES_MAX})"
        )

    def _inside_fields(self, source: str, delimiter: str, width: int) -> int:
        """Return how many delimiters are letters of a field."""
        inside = " + ".join(
            f"coalesce(strlen(c{at}) - strlen(replace(c{at}, '{delimiter}', '')), 0)"
            for at in range(width)
        )
        return self.count(f"SELECT sum({inside}) FROM {source}")

    def _holds_quotes(self) -> bool:
        """Say whether a quote is a letter of a field: DuckDB may take it for the field's end."""
        quotes = " OR ".join(f"contains({column}, '\"')" for column in ("id", *TEXTS))
        return self.count(f"SELECT count(*) FROM {self.table} WHERE {quotes}") > 0

    def _linked(self, path: Path) -> Path:
        """Return another path of a file, which DuckDB cannot take for a pattern of several."""
        link = self.scratch.joinpath(f"{self.format.side}.csv")
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())
        return link

    def _without_last(self, last: bytes) -> Path:
        copy = self.scratch.joinpath(f"{self.format.side}.data")
        with self.path.open("rb") as file, copy.open("wb") as shorter:
            left = os.fstat(file.fileno()).st_size - len(last)
            while left and (chunk := file.read(min(left, _CHUNK))):
                shorter.write(chunk)
                left -= len(chunk)
        return copy

    def _split_carefully(self) -> None:
        """Split a CSV file line by line, and name the lines that cannot be."""
        self.n = "line"
        columns = self.format.columns
        source = ", ".join(
            f"unnest(${at}::VARCHAR[]) AS {column}" for at, column in enumerate(columns, start=2)
        )
        empty = ", ".join(f"'' AS {column}" for column in columns)
        same = {column: column for column in columns}
        self._keep(same, f"(SELECT 0::BIGINT AS line, {empty} LIMIT 0)", also="line")
        for some in some_of(self._good_lines()):
            texts = [list(of_one) for of_one in zip(*some, strict=True)]
            given = f"(SELECT unnest($1::BIGINT[]) AS line, {source})"
            kept = self._kept(same, given, also="line")
            self.con.execute(f"INSERT INTO {self.table} {kept}", texts)

    def _good_lines(self) -> Iterator[tuple[object, ...]]:
        name = self.path.name
        columns, required = self.format.columns, self.format.required
        for line in read_csv(
            self.path, known=columns, required=required, trailer=self.format.trailer
        ):
            number = line.line if isinstance(line, BadLine) else line.number
            if self.trailer is not None:
                why = f"there is more after the trailer of line {self.trailer[0]}"
                raise refused(name, number, why)
            if isinstance(line, TrailerLine):
                self.trailer = (number, line.fields)
            elif isinstance(line, BadLine):
                if self.format.trailer:
                    # Fields that cannot be told apart hold an amount that cannot be read.
                    raise refused(name, number, f"no amount can be read ({line.reason})")
                self.bad.append(line)
            else:
                yield (number, *(line.values[column] for column in columns))

    def _split_parquet(self) -> None:
        self.unit, self.n = "row", "rowid + 1"
        link = _quoted(self._linked(self.path))
        # Directories named `amount=5` are no columns.
        source = f"read_parquet({link}, hive_partitioning = false)"
        try:
            types = dict(
                self.con.execute(
                    f"SELECT column_name, column_type FROM (DESCRIBE FROM {source})"
                ).fetchall()
            )
            columns = {column: self._parquet_text(column, types) for column in self.format.columns}
            self._keep(columns, source)
        except duckdb.Error as error:
            why = str(error).partition("\n")[0].replace(link.strip("'"), self.path.name)
            raise Unusable(f"{self.path.name} cannot be read as Parquet: {why}") from None

    def _parquet_text(self, column: str, types: Mapping[str, str]) -> str:
        """Return SQL for a column as it would stand in a CSV file."""
        if column not in types:
            if column in self.format.required:
                raise Unusable(f"{self.path.name} lacks the column {column}.")
            return "''"
        type_ = types[column]
        text = f"coalesce({column}::VARCHAR, '')"
        if type_ == "VARCHAR" or (type_ == "DATE" and column == self.format.day_column):
            return text
        if column != self.format.day_column and type_ in _WHOLE:
            return text
        if column == "amount" and type_.startswith("DECIMAL"):
            exact = f"TRY_CAST({column} AS DECIMAL(38, 2))"
            is_exact = f"TRY_CAST({exact} AS {type_}) = {column}"
            return f"CASE WHEN {is_exact} THEN {exact}::VARCHAR ELSE {text} END"
        money = " Money is no floating-point number." if type_ in ("DOUBLE", "FLOAT") else ""
        wanted = {"amount": "DECIMAL or text", self.format.day_column: "DATE or text"}
        raise Unusable(
            f"{self.path.name}: the column {column} is {type_}, and must be"
            f" {wanted.get(column, 'text')}.{money}"
        )

    def _keep(self, columns: Mapping[str, str], source: str, *, also: str = "") -> None:
        kept = self._kept(columns, source, also=also)
        self.con.execute(f"CREATE TABLE {self.table} AS {kept}")

    def _kept(self, columns: Mapping[str, str], source: str, *, also: str = "") -> str:
        """Return what is kept of a line: its texts, and centimes and day where they are certain.

        Where they are not, `a` is NULL, and the texts of both are kept for `_judge`. `also` is
        another column, of the source.
        """
        id_, amount, day = (columns[column] for column in self.format.columns[:3])
        texts = ", ".join(f"coalesce({columns[column]}, '') AS {column}" for column in TEXTS)
        more = f"{also}, " if also else ""
        # As they are mostly written both are the text of what they mean, the quickest test of all.
        plain = "-?[0-9]{1,10}([.][0-9]{1,2})?"
        good = (
            f"(m::VARCHAR = amount OR regexp_full_match(amount, '{plain}'))"
            f" AND m {'<>' if self.format.side == 'record' else '>'} 0"
            " AND strlen(day) = 10 AND t::VARCHAR = day AND id <> ''"
            f" AND regexp_full_match(id, '{_PRINTABLE}')"
        )
        return f"""
            SELECT * EXCLUDE (amount, day, m, t), CASE WHEN a IS NOT NULL THEN t END AS d,
                CASE WHEN a IS NULL THEN amount END AS amount_given,
                CASE WHEN a IS NULL THEN day END AS day_given
            FROM (
                SELECT *, CASE WHEN {good} THEN (m * 100)::BIGINT END AS a
                FROM (
                    SELECT *, TRY_CAST(amount AS DECIMAL(12, 2)) AS m, TRY_CAST(day AS DATE) AS t
                    FROM (
                        SELECT {more}coalesce({id_}, '') AS id, {texts},
                            coalesce({amount}, '') AS amount, coalesce({day}, '') AS day
                        FROM {source}
                    )
                )
            )
            """


@dataclass(frozen=True, slots=True)
class _Scan:
    """What a file's lines hold, but for the header and the trailer."""

    is_clean: bool
    lines: int = 0
    delimiters: int = 0
    quotes: int = 0


def _scan(path: Path, delimiter: bytes, ends: tuple[bytes, bytes], *, may_end: bool) -> _Scan:
    """Look at a file's bytes for what DuckDB splits in another way than we do.

    Args:
        path: Of the file.
        delimiter: Of its fields.
        ends: The header, and the trailer or nothing.
        may_end: Whether a trailer ends such a file, and nothing may follow it.
    """
    lines = -sum(1 for end in ends if end)
    delimiters, quotes = (-sum(end.count(byte) for end in ends) for byte in (delimiter, b'"'))
    chunk = b"\n"
    for chunk, joint in _chunks(path):
        lines += chunk.count(b"\n")
        delimiters += chunk.count(delimiter)
        quotes += chunk.count(b'"')
        if b"\x00" in chunk or any(
            _has_lone_return(text) or (may_end and _has_early_trailer(text))
            for text in (chunk, joint)
        ):
            return _Scan(is_clean=False)
    return _Scan(True, lines + (not chunk.endswith(b"\n")), delimiters, quotes)


def _chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield the bytes of a file, some at a time, and again those around where they begin."""
    end = b"\n"
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk, end + chunk[:LINE_BYTES_MAX]
            end = (chunk if len(chunk) >= LINE_BYTES_MAX else end + chunk)[-LINE_BYTES_MAX:]


def _last_line(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - LINE_BYTES_MAX))
        end = file.read(LINE_BYTES_MAX)
    return end[end.rfind(b"\n", 0, len(end) - 1) + 1 :]


def _quotes_text(some: bytes) -> bool:
    """Say whether quotes do more than stand for empty fields, as some programs write these."""
    return some.count(b'"') != 2 * some.count(b'""') or b'"""' in some


# One byte is quickly looked for, and most files have none of these.


def _has_lone_return(text: bytes) -> bool:
    return b"\r" in text and _LONE_RETURN.search(text) is not None


def _has_space_at_a_quote(text: bytes) -> bool:
    return b'"' in text and _SPACE_AT_A_QUOTE.search(text) is not None


def _has_early_trailer(text: bytes) -> bool:
    return b"TRAILER" in text and _EARLY_TRAILER.search(text) is not None


def some_of(all_: Iterable[T]) -> Iterator[list[T]]:
    every = iter(all_)
    while some := list(islice(every, LINES_AT_ONCE)):
        yield some


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
