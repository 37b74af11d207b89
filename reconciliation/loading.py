"""What is open, out of PostgreSQL into an engine's tables in DuckDB: id, reference, amount.

Of what the bulk pass leaves, `evidence` fetches all else.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb
from sqlmodel import Session

from gateway.db import execute, snapshot
from reconciliation import scope as sql
from reconciliation.duckcolumns import NONE, take_in
from reconciliation.duckfiles import count, pull_rows, read_file, with_memory
from reconciliation.reading_tables import read_keys
from reconciliation.scope import Scope

RAW: Final = {
    "n": "BIGINT",
    "id": "VARCHAR",
    "reference": "VARCHAR",
    "cnss_number": "VARCHAR",
    "cin": "VARCHAR",
    "name": "VARCHAR",
    "a": "BIGINT",
    "d": "DATE",
    "provider_reference": "VARCHAR",
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """How many rows of each side were loaded."""

    payments: int
    records: int


def load_keys(
    con: duckdb.DuckDBPyConnection, session: Session, scope: Scope, folder: Path
) -> Loaded:
    """Fill `payment_key` and `record_key` with what is open.

    Payments are read on other connections, at the same time: booking goes on beside a run, so no
    instant is more right than another. The caller holds the lock on records.
    """
    for side in ("payment", "record"):
        declared = ", ".join(f"{name} {type_}" for name, type_ in RAW.items())
        con.execute(f"CREATE TABLE raw_{side} ({declared})")
    read_keys(con, "payment")
    unread = folder.joinpath("raw.csv")
    with ThreadPoolExecutor(1) as other:
        # Nobody but who has the lock writes lines, or else of other references.
        some = bool(execute(session, "SELECT EXISTS (SELECT FROM match_line)").scalar_one())
        loading = other.submit(_load_payments, con.cursor(), scope, some_matched=some)
        with_memory(session)
        query = sql.open_records_unread(some_matched=some)
        pull_rows(session, query, RAW, unread, {"period": scope.period})
        con.execute(f"INSERT INTO raw_record SELECT * FROM {read_file(unread, RAW, texts=True)}")
        read_keys(con, "record")
        _only_of_the_shard(con, scope)
        query = sql.open_records(some_matched=some)
        insert = "INSERT INTO record_key SELECT n, k, how, a FROM block"
        take_in(con.cursor(), insert, session, query, scope.parameters, ("n", "k", "how", "a"))
        loading.result()
    return Loaded(count(con, "SELECT count(*) FROM payment_key"), _records(con))


def _records(con: duckdb.DuckDBPyConnection) -> int:
    return count(con, "SELECT count(*) FROM record_key")


def _load_payments(con: duckdb.DuckDBPyConnection, scope: Scope, *, some_matched: bool) -> None:
    with snapshot() as session:
        with_memory(session)
        query = sql.open_payments(some_matched=some_matched)
        insert = f"INSERT INTO payment_key SELECT n, nullif(k, {NONE}), 0, a FROM block"
        take_in(con, insert, session, query, scope.parameters, ("n", "k", "a"))


def _only_of_the_shard(con: duckdb.DuckDBPyConnection, scope: Scope) -> None:
    if scope.shards > 1:
        con.execute(
            f"DELETE FROM record_key WHERE k IS NULL OR k // 100 % {scope.shards} <> {scope.shard}"
        )
