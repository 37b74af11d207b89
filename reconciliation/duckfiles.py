"""Rows with texts between PostgreSQL and DuckDB: as CSV files in a folder of the caller's.

Nothing here makes an object of a row: the server packs thousands of rows into one text, or reads
its own format, and DuckDB reads and writes the files by itself. What is numbers only goes by
`duckcolumns`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import duckdb
from sqlmodel import Session

from gateway.db import copy_blocks, execute, stream

MEMORY: Final = "600MB"
"""What DuckDB holds at most before it uses the disk."""
THREADS_MAX: Final = 4

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

_BLOCK_BYTES: Final = 262_144
_PACKED: Final = 12
"""2 to the power of: so many rows are packed into one value."""

_FOLDERS: Final = "wasl-match-"


@contextmanager
def workbench() -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Open a DuckDB in memory and a folder for its files, which only this user can read.

    Both are gone afterwards. The files hold names and numbers of people, and a process that is
    killed leaves its own: the next one to come here removes them.
    """
    _remove_left()
    with _folder() as folder:
        con = duckdb.connect(
            ":memory:",
            config={
                "threads": min(os.cpu_count() or 1, THREADS_MAX),
                "memory_limit": MEMORY,
                "temp_directory": str(folder),
                "preserve_insertion_order": True,
                # Nothing of it outlives us: to put its tables in order takes longer than they live.
                "checkpoint_threshold": "1TB",
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        try:
            yield con, folder
        finally:
            con.close()


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=_FOLDERS))
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Ends with the process, however that ends.
        fcntl.flock(held, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _remove_left() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}*"):
        try:
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # An empty one may be about to be held.
            if os.fstat(held).st_uid == os.geteuid() and any(folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
        finally:
            os.close(held)


def pull_rows(
    session: Session,
    query: str,
    columns: Mapping[str, str],
    path: Path,
    parameters: Mapping[str, Any] = NOTHING,
) -> None:
    """Write the rows of a query as CSV, for `read_file`, to which an empty text is NULL.

    Args:
        session: Whose transaction it is.
        query: Its columns have names.
        columns: Those that are wanted, with their types in DuckDB.
        path: Of the file.
        parameters: Of the query.
    """
    line = " || ',' || ".join(
        f"""coalesce('"' || replace({name}, '"', '""') || '"', '')"""
        if type_ == "VARCHAR"
        else f"coalesce(CAST({name} AS text), '')"
        for name, type_ in columns.items()
    )
    # One by one, rows would take longer here than all that is done with them.
    packed = f"""
        SELECT convert_to(string_agg(line, E'\\n'), 'UTF8') FROM (
            SELECT {line} AS line, row_number() OVER () >> {_PACKED} AS part FROM ({query}) AS each
        ) AS each GROUP BY part
    """
    with path.open("wb") as file, closing(stream(session, packed, parameters)) as parts:
        for (lines,) in parts:
            file.write(lines)
            file.write(b"\n")


def write_file(con: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """Write the rows of a DuckDB query, for `send_file`.

    Their values are numbers and words of our own, in which nothing is quoted or escaped.
    """
    con.execute(
        f"COPY ({query}) TO '{path}' (FORMAT csv, HEADER false, DELIMITER '\t', NULLSTR '\\N')"
    )


def send_file(session: Session, table: str, path: Path) -> None:
    """Append a file of `write_file` to a table of PostgreSQL: `table (columns)`."""
    if path.stat().st_size:
        # The server reads its own format in four fifths of the time of CSV.
        copy_blocks(session, f"COPY {table} FROM STDIN", _blocks(path))


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def read_file(path: Path, columns: Mapping[str, str], *, texts: bool = False) -> str:
    """Return what DuckDB selects from to read a CSV file without a header.

    Args:
        path: Of the file.
        columns: Types by names, in their order.
        texts: Whether a value may have line breaks in it.
    """
    types = ", ".join(f"'{name}': '{type_}'" for name, type_ in columns.items())
    return (
        f"read_csv('{path}', header = false, auto_detect = false, delim = ',', quote = '\"',"
        f" escape = '\"', nullstr = '', columns = {{{types}}}, parallel = {not texts},"
        " hive_partitioning = false, max_line_size = 16777216)"
    )


@contextmanager
def without(session: Session, *plans: str) -> Iterator[None]:
    """Have the server plan without some ways, of which we know better that they do not pay."""
    for plan in plans:
        execute(session, f"SET LOCAL enable_{plan} = off")
    yield
    for plan in plans:
        execute(session, f"SET LOCAL enable_{plan} = on")


def with_memory(session: Session) -> None:
    """Let the transaction's large sorts and joins stay in memory, and few rows be looked up."""
    for setting in (
        "work_mem = '128MB'",
        "maintenance_work_mem = '256MB'",
        "random_page_cost = 1.1",
        # This process is at work beside: a key is made in less time of all, and in its own.
        "max_parallel_maintenance_workers = 0",
    ):
        execute(session, f"SET LOCAL {setting}")


def count(con: duckdb.DuckDBPyConnection, query: str) -> int:
    """Return the one number of a query."""
    row = con.execute(query).fetchone()
    assert row is not None
    return int(row[0])
