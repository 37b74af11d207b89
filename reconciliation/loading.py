"""What is open, out of PostgreSQL into an engine's tables in DuckDB.

First the keys of all rows: id, reference, amount. Then, of what the bulk pass left, all that is
evidence. Names and numbers of people are in files of the workbench until they are read, and in this
process's memory; both are gone at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import duckdb
from sqlmodel import Session

from gateway.clock import day_of
from gateway.db import copy_rows, execute, snapshot
from reconciliation import scope as sql
from reconciliation.duckfiles import count, pull_numbers, pull_rows, read_file, with_memory, without
from reconciliation.engines.duck_relations import SLIPS_OF_RECORDS
from reconciliation.reading import read_text
from reconciliation.reading_tables import read_keys, read_rows
from reconciliation.scope import Scope

_RAW: Final = {
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
LOOKED_UP: Final = 10
"""Rows are looked up one by one where there are so many times as many that are not asked for."""

_KEY: Final = {"n": "BIGINT", "k": "BIGINT", "how": "TINYINT", "a": "BIGINT"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """How many rows of each side were loaded."""

    payments: int
    records: int


def load_keys(
    con: duckdb.DuckDBPyConnection, session: Session, scope: Scope, folder: Path
) -> Loaded:
    """Fill `payment_key` and `record_key` with what is open.

    Payments are read on another connection, at the same time: booking goes on beside a run, so no
    instant is more right than another. The caller holds the lock on records.
    """
    for side in ("payment", "record"):
        declared = ", ".join(f"{name} {type_}" for name, type_ in _RAW.items())
        con.execute(f"CREATE TABLE raw_{side} ({declared})")
    payments, records, unread = (
        folder.joinpath(f"{name}.csv") for name in ("payments", "records", "raw")
    )
    with ThreadPoolExecutor(1) as other:
        reading = other.submit(_pull_payments, scope, payments)
        with_memory(session)
        _pull_unread(session, scope, unread)
        pull_numbers(session, sql.OPEN_RECORDS, scope.parameters, "n, k, how, a", records)
        con.execute(f"INSERT INTO raw_record SELECT * FROM {read_file(unread, _RAW, texts=True)}")
        read_keys(con, "record")
        _only_of_the_shard(con, scope)
        con.execute(f"INSERT INTO record_key SELECT * FROM {read_file(records, _KEY)}")
        reading.result()
    read_keys(con, "payment")
    columns = {name: type_ for name, type_ in _KEY.items() if name != "how"}
    con.execute(f"INSERT INTO payment_key SELECT n, k, 0, a FROM {read_file(payments, columns)}")
    return Loaded(count(con, "SELECT count(*) FROM payment_key"), _records(con))


def _records(con: duckdb.DuckDBPyConnection) -> int:
    return count(con, "SELECT count(*) FROM record_key")


def _pull_payments(scope: Scope, path: Path) -> None:
    with snapshot() as session:
        with_memory(session)
        pull_numbers(session, sql.OPEN_PAYMENTS, scope.parameters, "n, k, a", path)


def _pull_unread(session: Session, scope: Scope, path: Path) -> None:
    # COPY takes no parameters; a table of the transaction's own does.
    execute(
        session,
        f"CREATE TEMPORARY TABLE unread ON COMMIT DROP AS {sql.OPEN_RECORDS_UNREAD}",
        {"period": scope.period},
    )
    pull_rows(session, "SELECT * FROM unread", path)


def _only_of_the_shard(con: duckdb.DuckDBPyConnection, scope: Scope) -> None:
    if scope.shards > 1:
        con.execute(
            f"DELETE FROM record_key WHERE k IS NULL OR k // 100 % {scope.shards} <> {scope.shard}"
        )


# -- the evidence of what is left -----------------------------------------------------------------


def load_rows(con: duckdb.DuckDBPyConnection, session: Session, folder: Path) -> None:
    """Fetch all about what `free_payment` and `free_record` name; `read_loaded` is to follow.

    References that rows of earlier groups have, or of other periods, are made known as an engine
    knows those that it has matched itself.
    """
    _name_free(con, session)
    free, of = (
        count(con, f"SELECT count(*) FROM {side}") for side in ("free_payment", "payment_key")
    )
    # Few rows are looked up by their keys, in however large a table.
    few = ("hashjoin", "mergejoin") if free * LOOKED_UP < of else ()
    with without(session, *few):
        path = folder.joinpath("record_rows.csv")
        pull_rows(session, _RECORDS, path)
        con.execute(f"INSERT INTO raw_record SELECT * FROM {read_file(path, _RAW, texts=True)}")
        _pull_payment_rows(con, session, folder)
        _know_the_others(con, session)
        bundles = execute(session, _BUNDLED).all()
    con.execute("CREATE TEMP TABLE bundled (n BIGINT, ks BIGINT[])")
    if bundles:
        con.execute(
            "INSERT INTO bundled SELECT unnest($1::BIGINT[]), unnest($2::BIGINT[][])",
            [[n for n, _ in bundles], [ks for _, ks in bundles]],
        )


def read_loaded(con: duckdb.DuckDBPyConnection) -> None:
    """Fill `payment_row` and `record_row`.

    Opens a snapshot: the caller's session may be busy.
    """
    read_rows(con, "payment")
    read_rows(con, "record")
    con.execute(
        "UPDATE payment_row SET ks = bundled.ks FROM bundled"
        " WHERE payment_row.n = bundled.n AND payment_row.k IS NULL"
    )
    con.execute("DROP TABLE raw_payment; DROP TABLE raw_record; DROP TABLE bundled")
    _know_the_settled(con)


def _name_free(con: duckdb.DuckDBPyConnection, session: Session) -> None:
    for side in ("payment", "record"):
        execute(
            session,
            f"CREATE TEMPORARY TABLE free_{side} (n bigint PRIMARY KEY, k text) ON COMMIT DROP",
        )
        free = con.execute(f"SELECT n, k::VARCHAR FROM free_{side} JOIN {side}_key USING (n)")
        copy_rows(session, f"COPY free_{side} (n, k) FROM STDIN", _each(free))
        execute(session, f"ANALYZE free_{side}")


def _each(result: duckdb.DuckDBPyConnection) -> Iterable[tuple[object, ...]]:
    while rows := result.fetchmany(10_000):
        yield from rows


# Those whose text was read again before are there already.
_RECORDS: Final = """
    SELECT record.id, record_id, reference_given, cnss_number, cin, name, amount_minor, posted_on,
        provider_reference
    FROM free_record JOIN institution_record record ON record.id = n
    WHERE record.reference IS NOT NULL
"""

# Whose the money is: of the invoice, of a bundle of one person's. What a delivery said of the payer
# is no evidence beside that: it may be anybody who paid for another. A file that was merged into
# another speaks by that one.
_PAYMENTS: Final = """
    SELECT payment.id, provider || '/' || provider_payment_id, NULL, c.cnss_number, c.cin,
        nullif(concat_ws(' ', nullif(c.given_name, ''), nullif(c.family_name, '')), ''),
        payment.amount_minor - payment.returned_minor,
        CAST(floor(extract(epoch FROM paid_at) / 3600) AS bigint), provider_payment_id
    FROM free_payment JOIN payment ON payment.id = n
    LEFT JOIN invoice ON invoice.id = payment.invoice_id
    LEFT JOIN bundle ON bundle.id = payment.bundle_id
    LEFT JOIN contributor file ON file.id = coalesce(invoice.contributor_id,
        bundle.contributor_id, (
            SELECT min(i.contributor_id) FROM bundle_item b JOIN invoice i ON i.id = b.invoice_id
            WHERE b.bundle_id = payment.bundle_id
            HAVING count(DISTINCT i.contributor_id) = 1
        ))
    LEFT JOIN contributor c ON c.id = coalesce(file.merged_into_id, file.id)
"""

_BUNDLED: Final = """
    SELECT n, ARRAY(
        SELECT CAST(i.reference AS bigint) FROM bundle_item b JOIN invoice i ON i.id = b.invoice_id
        WHERE b.bundle_id = payment.bundle_id ORDER BY 1
    ) FROM free_payment JOIN payment ON payment.id = n WHERE bundle_id IS NOT NULL AND k IS NULL
"""


def _pull_payment_rows(con: duckdb.DuckDBPyConnection, session: Session, folder: Path) -> None:
    path = folder.joinpath("payment_rows.csv")
    pull_rows(session, _PAYMENTS, path)
    columns = {**_RAW, "d": "BIGINT"}
    con.execute(f"CREATE TEMP TABLE paid AS SELECT * FROM {read_file(path, columns, texts=True)}")
    hours = [hour for (hour,) in con.execute("SELECT DISTINCT d FROM paid").fetchall()]
    # Days are Casablanca's by our own table of its offsets, which change at full hours.
    days = [day_of(datetime.fromtimestamp(hour * 3_600, UTC)) for hour in hours]
    con.execute(
        "INSERT INTO raw_payment SELECT paid.* REPLACE (said.d AS d) FROM paid JOIN"
        " (SELECT unnest($1::BIGINT[]) AS hour, unnest($2::DATE[]) AS d) said ON hour = paid.d",
        [hours, days],
    )
    con.execute("DROP TABLE paid")


def _know_the_others(con: duckdb.DuckDBPyConnection, session: Session) -> None:
    """Add the references that free rows name and rows have that are not in this run.

    They take part in nothing: they are there as rows that were matched, or are open elsewhere.
    """
    claimed: dict[int, bool] = {}
    for k, is_matched in execute(session, _OTHER_RECORDS):
        claimed[int(k)] = is_matched
    # Records whose file gave a text in which the reference stands among other words.
    for k, given in execute(session, _OTHER_TEXTS):
        if read_text(given).k == int(k):
            claimed[int(k)] = True
    paid = [int(k) for k in execute(session, _OTHER_PAYMENTS).scalars()]
    # Ids of rows are above zero.
    con.execute(
        "INSERT INTO record_key SELECT -row_number() OVER (), k, 0, 0"
        " FROM (SELECT unnest($1::BIGINT[]) AS k)",
        [list(claimed)],
    )
    con.execute(
        "INSERT INTO payment_key SELECT -row_number() OVER (), k, 0, 0"
        " FROM (SELECT unnest($1::BIGINT[]) AS k)",
        [paid],
    )
    con.execute(
        "INSERT INTO matched (rn) SELECT n FROM record_key"
        " JOIN (SELECT unnest($1::BIGINT[]) AS k) USING (k) WHERE n < 0",
        [[k for k, is_matched in claimed.items() if is_matched]],
    )


def _know_the_settled(con: duckdb.DuckDBPyConnection) -> None:
    """Add the references of payments that are not in this run and that a text nearly says.

    Such a text is doubted, whoever matched the payment and when. No payment is a text: each was
    found to be of an invoice or a bundle when it was booked.
    """
    meant = con.execute(f"SELECT y FROM ({SLIPS_OF_RECORDS}) ANTI JOIN payment_key ON k = y")
    references = [str(y) for (y,) in meant.fetchall()]
    if not references:
        return
    with snapshot() as session:
        paid = [
            int(reference)
            for reference in execute(session, _PAID_OF, {"references": references}).scalars()
        ]
    con.execute(
        "INSERT INTO payment_key SELECT least((SELECT min(n) FROM payment_key), 0)"
        " - row_number() OVER (), k, 0, 0 FROM (SELECT unnest($1::BIGINT[]) AS k)",
        [paid],
    )


_PAID_OF: Final = """
    SELECT DISTINCT i.reference FROM unnest(CAST(:references AS text[])) AS meant (reference)
    JOIN invoice i USING (reference) JOIN payment p ON p.invoice_id = i.id
    WHERE p.status = 'booked'
"""
_OTHER_RECORDS: Final = """
    SELECT f.k, bool_or(m.record_id IS NOT NULL) FROM (SELECT DISTINCT k FROM free_payment) f
    JOIN institution_record r ON r.reference = f.k
    LEFT JOIN match_line m ON m.record_id = r.id
    WHERE NOT EXISTS (SELECT FROM free_record o WHERE o.n = r.id) GROUP BY f.k
"""
_OTHER_TEXTS: Final = """
    SELECT DISTINCT f.k, r.reference_given FROM free_payment f JOIN payment p ON p.id = f.n
    JOIN payment q ON q.invoice_id = p.invoice_id JOIN match_line m ON m.payment_id = q.id
    JOIN institution_record r ON r.id = m.record_id WHERE r.reference IS NULL
"""
_OTHER_PAYMENTS: Final = """
    SELECT DISTINCT f.k FROM free_record f JOIN invoice i ON i.reference = f.k
    JOIN payment p ON p.invoice_id = i.id
    WHERE p.status = 'booked' AND NOT EXISTS (SELECT FROM free_payment o WHERE o.n = p.id)
"""
