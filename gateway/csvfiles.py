"""Read the CSV files people give us: strictly, line by line, keeping the good neighbours.

UTF-8 with or without a byte-order mark, comma or semicolon, a header line, fields by name in any
order, unknown columns ignored. One record is one line: a quote left open spoils its own line and
not the rest of the file, which is why a line break inside a field is not accepted.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO, Final

from gateway.errors import Unusable

LINE_BYTES_MAX: Final = 65_536
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class GoodLine:
    """A line whose fields could be told apart; what they mean is the caller's to judge."""

    number: int
    values: Mapping[str, str]
    """Stripped of spaces around; `""` for an empty or absent field."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is set aside, and why. The reason names no personal value."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class TrailerLine:
    """The closing line of a file that has control totals."""

    number: int
    fields: Sequence[str]


def read_day(text: str) -> date | None:
    """Return the day that `2026-01-31` is; None for any other way to write one."""
    if not _DAY.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


@dataclass(slots=True)
class ImportResult:
    """What became of a file's lines. A line is loaded, unchanged or rejected, never two of them."""

    read: int = 0
    loaded: int = 0
    unchanged: int = 0
    rejected: list[BadLine] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        rejected = sorted(self.rejected, key=lambda bad: bad.line)
        return {
            "read": self.read,
            "loaded": self.loaded,
            "unchanged": self.unchanged,
            "rejected": [{"line": bad.line, "reason": bad.reason} for bad in rejected],
        }


def read_csv(
    path: Path, *, known: Sequence[str], required: Sequence[str], trailer: str | None = None
) -> Iterator[GoodLine | BadLine | TrailerLine]:
    """Read a file; flat in memory.

    Args:
        path: The file.
        known: The columns we read; others are ignored.
        required: The columns that the header must have.
        trailer: First field of a closing line that is not data, if the format has one.

    Raises:
        Unusable: There is no such file, or its header cannot be used; the sentence says where.
    """
    try:
        with path.open("rb") as file:
            yield from _read(file, path.name, known, required, trailer)
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}.") from None


def _read(
    file: BinaryIO,
    name: str,
    known: Sequence[str],
    required: Sequence[str],
    trailer: str | None,
) -> Iterator[GoodLine | BadLine | TrailerLine]:
    delimiter, header = read_header(file.readline(LINE_BYTES_MAX), name, required=required)
    columns = {column: header.index(column) for column in known if column in header}
    number = 1
    while raw := file.readline(LINE_BYTES_MAX):
        number += 1
        if len(raw) == LINE_BYTES_MAX and not raw.endswith(b"\n"):
            while (rest := file.readline(LINE_BYTES_MAX)) and not rest.endswith(b"\n"):
                pass
            yield BadLine(number, f"longer than {LINE_BYTES_MAX} bytes")
            continue
        if not raw.strip():
            continue
        fields = fields_of(raw, delimiter)
        if isinstance(fields, str):
            yield BadLine(number, fields)
        elif trailer is not None and fields[0] == trailer:
            yield TrailerLine(number, fields)
        elif len(fields) != len(header):
            yield BadLine(number, f"{len(fields)} fields where the header has {len(header)}")
        else:
            values = {c: fields[at] for c, at in columns.items()}
            yield GoodLine(number, {c: values.get(c, "") for c in known})


def read_header(first: bytes, name: str, *, required: Sequence[str]) -> tuple[str, list[str]]:
    """Return what separates the fields of a file, and the columns that its first line names.

    Raises:
        Unusable: The line cannot be read, names a column twice, or lacks one of the required.
    """
    first = first.removeprefix(b"\xef\xbb\xbf")
    delimiter = ";" if first.count(b";") > first.count(b",") else ","
    header = fields_of(first, delimiter) if first.strip() else "it is empty"
    if isinstance(header, str):
        raise Unusable(f"{name}, line 1: no header line can be read: {header}.")
    repeated = [column for column in header if column and header.count(column) > 1]
    if repeated:
        raise Unusable(f"{name}, line 1: the column {repeated[0]} stands there twice.")
    missing = [column for column in required if column not in header]
    if missing:
        raise Unusable(f"{name}, line 1: the header lacks the column {missing[0]}.")
    return delimiter, header


def fields_of(raw: bytes, delimiter: str) -> list[str] | str:
    """Return the fields of one line, or the reason why they cannot be told."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return "not UTF-8"
    if "\x00" in text:
        return "a NUL character"
    try:
        rows = list(csv.reader([text.rstrip("\r\n")], delimiter=delimiter, strict=True))
    except csv.Error as error:
        return f"its quotes or separators cannot be read ({error})"
    return [field.strip() for field in rows[0]]
