"""Whole numbers between PostgreSQL and DuckDB, by the million: as columns, some rows at a time.

Nothing here makes an object or a text of a row. The server packs a column of thousands of rows into
one value, and takes rows packed as it keeps them; DuckDB takes and gives arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray
from sqlmodel import Session

from gateway.db import copy_blocks, stream
from gateway.packing import HEADER, TRAILER, bigint, columns
from reconciliation.duckfiles import without

Column = NDArray[np.int64]
Columns = Mapping[str, Column]
"""By name, all of one length."""

NONE: Final = 0
"""What stands for NULL: no id and no reference is 0."""

_PACKED: Final = 12
"""2 to the power of: ids that lie together are packed into one value."""
_TAKEN_IN: Final = 1 << 17
"""How many rows are given to DuckDB at least at a time."""
_SENT: Final = 1 << 14
"""How many rows are sent to the server at a time."""
_BIGINT_BYTES: Final = len(bigint(0))


def take_in(
    con: duckdb.DuckDBPyConnection,
    insert: str,
    session: Session,
    query: str,
    parameters: Mapping[str, Any],
    names: Sequence[str],
) -> None:
    """Have DuckDB insert the rows of a query of the server's: whole numbers only, in no order.

    Args:
        con: A connection of this call's alone; it is closed at the end.
        insert: The DuckDB statement, which reads `FROM block`: some of the rows at a time.
        session: Whose transaction the query is run in.
        query: Has a column `n`, an id. What is NULL in another one comes as `NONE`.
        parameters: Of the query.
        names: Of the columns that are wanted.
    """
    packed = ", ".join(
        f"string_agg(int8send(coalesce(CAST({name} AS bigint), {NONE})), '')" for name in names
    )
    blocks = f"SELECT {packed} FROM ({query}) AS each GROUP BY n >> {_PACKED}"
    # There are far fewer blocks than the server thinks, and their order is nobody's matter. A
    # session is busy until its last row is taken, whatever happens here.
    with (
        con,
        without(session, "sort", "mergejoin"),
        closing(stream(session, blocks, parameters)) as rows,
    ):
        for some in _gathered(rows):
            whole = map(np.concatenate, zip(*some, strict=True))
            con.register("block", dict(zip(names, whole, strict=True)))
            con.execute(insert)


def _gathered(rows: Iterable[tuple[bytes, ...]]) -> Iterator[list[list[Column]]]:
    """Yield blocks as columns, so many that their rows are worth a statement."""
    some: list[list[Column]] = []
    count = 0
    for row in rows:
        some.append([np.frombuffer(each, ">i8").astype(np.int64) for each in row])
        count += len(some[-1][0])
        if count >= _TAKEN_IN:
            yield some
            some, count = [], 0
    if some:
        yield some


def columns_of(con: duckdb.DuckDBPyConnection, query: str) -> Columns:
    """Return the rows of a DuckDB query of BIGINT columns; what is NULL is `NONE`."""
    found = con.execute(query).fetchnumpy()
    return {name: np.ma.filled(column, NONE) for name, column in found.items()}


def send_rows(session: Session, table: str, rows: Iterable[bytes]) -> None:
    """Append rows, packed by `pack_rows`, to a table of PostgreSQL: `table (columns)`."""
    blocks = chain((HEADER,), rows, (TRAILER,))
    copy_blocks(session, f"COPY {table} FROM STDIN (FORMAT binary)", blocks)


def pack_rows(*fields: Column | bytes) -> Iterator[bytes]:
    """Yield rows as the server keeps them, some at a time.

    Args:
        fields: Of a row, in their order: a column, which is BIGINT there, or what `gateway.packing`
            made of a value that is the same in all rows. At least one is a column.
    """
    count = max(len(each) for each in fields if not isinstance(each, bytes))
    width = [len(each) if isinstance(each, bytes) else _BIGINT_BYTES for each in fields]
    # The length of a number goes before it, as that of a text does.
    kinds = [
        ("columns", "V2"),
        *(
            (
                f"{place}",
                f"V{width[place]}" if isinstance(each, bytes) else [("l", ">i4"), ("v", ">i8")],
            )
            for place, each in enumerate(fields)
        ),
    ]
    rows = np.zeros(min(count, _SENT), np.dtype(kinds))
    rows["columns"] = np.void(columns(len(fields)))
    for place, each in enumerate(fields):
        if isinstance(each, bytes):
            rows[f"{place}"] = np.void(each)
        else:
            rows[f"{place}"]["l"] = 8
    for first in range(0, count, _SENT):
        some = rows[: min(_SENT, count - first)]
        for place, each in enumerate(fields):
            if not isinstance(each, bytes):
                some[f"{place}"]["v"] = each[first : first + _SENT]
        yield some.tobytes()
