"""All about the few rows that the bulk pass left, out of PostgreSQL into an engine's tables.

First it is fetched into files, by whoever has a connection free; then it is taken in here. Names
and numbers of people are in files of the workbench until they are read, and in this process's
memory; both are gone at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import duckdb
from sqlmodel import Session

from gateway.clock import day_of
from gateway.db import execute, snapshot, transaction
from reconciliation.duckcolumns import Columns, columns_of, pack_rows, send_rows
from reconciliation.duckfiles import (
    count,
    pull_rows,
    read_file,
    with_memory,
    without,
)
from reconciliation.engines.duck_relations import SLIPS_OF_RECORDS
from reconciliation.loading import RAW
from reconciliation.reading import read_text
from reconciliation.reading_tables import Side, read_rows

LOOKED_UP: Final = 10
"""Rows are looked up one by one where there are so many times as many that are not asked for."""


@dataclass(frozen=True, slots=True)
class Free:
    """What is free after the bulk pass: ids `n`, references `k`, and references `sought` outside
    this run; of these two NONE may be said."""

    payments: Columns
    records: Columns
    are_few: bool
    """Of all that are open; so they are looked up one by one."""


@dataclass(frozen=True, slots=True)
class Others:
    """References that free rows name and rows have that are not in this run.

    They are those of earlier groups, or of other periods.
    """

    records: dict[int, bool]
    """And whether such a row is matched."""
    payments: list[int]


@dataclass(frozen=True, slots=True)
class Paid:
    """All about the free payments: a file, and the references of bundles by payment."""

    rows: Path
    bundles: list[tuple[int, list[int]]]


# -- fetching -------------------------------------------------------------------------------------


def name_free(con: duckdb.DuckDBPyConnection) -> Free:
    """Return what `free_payment` and `free_record` name.

    `sought` is a reference that no row of the other side has in this run, or that negative records
    have, which may take all of it away. Where the run has a row of it that stays, rows elsewhere
    would change nothing.
    """
    named = {}
    for side, other in (("payment", "record"), ("record", "payment")):
        con.execute(
            "CREATE OR REPLACE TEMP TABLE free AS"
            f" SELECT n, k FROM free_{side} JOIN {side}_key USING (n)"
        )
        settled = (
            f"SELECT k FROM {other}_key SEMI JOIN free USING (k) GROUP BY k HAVING min(a) >= 0"
        )
        named[side] = columns_of(
            con,
            f"SELECT n, k, CASE WHEN k NOT IN ({settled}) THEN k END AS sought FROM free"
            " ORDER BY n",
        )
    con.execute("DROP TABLE free")
    are_few = len(named["payment"]["n"]) * LOOKED_UP < count(
        con, "SELECT count(*) FROM payment_key"
    )
    return Free(named["payment"], named["record"], are_few)


def pull_records(free: Free, folder: Path) -> Path:
    """Write a file of all about the free records whose reference the server knows.

    Opens a transaction, as `pull_payments` does: on a connection of its own, so that the run's can
    write meanwhile. They read no lines, of which the table may be the run's alone.
    """
    path = folder.joinpath("recorded.csv")
    with transaction() as session:
        with_memory(session)
        with _named(session, free, "record"):
            pull_rows(session, _RECORDS, RAW, path)
    return path


def pull_payments(free: Free, folder: Path) -> Paid:
    """Fetch all about the free payments; see `pull_records`."""
    path = folder.joinpath("paid.csv")
    with transaction() as session:
        with_memory(session)
        with _named(session, free, "payment"):
            pull_rows(session, _PAYMENTS, RAW, path)
            return Paid(path, [(n, ks) for n, ks in execute(session, _BUNDLED)])


def find_others(session: Session, free: Free) -> Others:
    """Find the references that free rows name and rows have that are not in this run."""
    with _named(session, free, "payment", "record", key="PRIMARY KEY"):
        records = {int(k): is_matched for k, is_matched in execute(session, _OTHER_RECORDS)}
        # Records whose file gave a text in which the reference stands among other words.
        for k, given in execute(session, _OTHER_TEXTS):
            if read_text(given).k == int(k):
                records[int(k)] = True
        payments = [int(k) for k in execute(session, _OTHER_PAYMENTS).scalars()]
    return Others(records, payments)


@contextmanager
def _named(session: Session, free: Free, *sides: Side, key: str = "") -> Iterator[None]:
    """Have the free rows in tables of the transaction's own, `free_payment` or `free_record`.

    `key`: of `n`, where it is looked up.
    """
    for side in sides:
        execute(
            session,
            f"CREATE TEMPORARY TABLE free_{side} (n bigint {key}, k bigint, sought bigint)"
            " ON COMMIT DROP",
        )
        rows = free.payments if side == "payment" else free.records
        send_rows(session, f"free_{side}", pack_rows(rows["n"], rows["k"], rows["sought"]))
        if not free.are_few:
            execute(session, f"ANALYZE free_{side}")
    with _looked_up(session, free.are_few):
        yield


@contextmanager
def _looked_up(session: Session, are_few: bool) -> Iterator[None]:
    """Have few rows looked up by their keys, in however large a table."""
    with without(session, *(("hashjoin", "mergejoin") if are_few else ())):
        yield


_RECORDS: Final = """
    SELECT record.id AS n, record_id AS id, reference_given AS reference, cnss_number, cin, name,
        amount_minor AS a, posted_on AS d, provider_reference
    FROM free_record JOIN institution_record record ON record.id = n
    WHERE record.reference IS NOT NULL
"""


def _payer(column: str) -> str:
    # Few files were merged: the others need not be looked up a second time.
    return f"CASE WHEN other.id IS NULL THEN file.{column} ELSE other.{column} END"


# Whose the money is: of the invoice, of a bundle of one person's. What a delivery said of the payer
# is no evidence beside that: it may be anybody who paid for another. A file that was merged into
# another speaks by that one.
_PAYMENTS: Final = f"""
    SELECT payment.id AS n, provider || '/' || provider_payment_id AS id,
        CAST(NULL AS text) AS reference,
        {_payer("cnss_number")} AS cnss_number, {_payer("cin")} AS cin,
        nullif(concat_ws(' ', nullif({_payer("given_name")}, ''),
            nullif({_payer("family_name")}, '')), '') AS name,
        payment.amount_minor - payment.returned_minor AS a,
        CAST(floor(extract(epoch FROM paid_at) / 3600) AS bigint) AS d,
        provider_payment_id AS provider_reference
    FROM free_payment JOIN payment ON payment.id = n
    LEFT JOIN invoice ON invoice.id = payment.invoice_id
    LEFT JOIN bundle ON bundle.id = payment.bundle_id
    LEFT JOIN contributor file ON file.id = coalesce(invoice.contributor_id,
        bundle.contributor_id, (
            SELECT min(i.contributor_id) FROM bundle_item b JOIN invoice i ON i.id = b.invoice_id
            WHERE b.bundle_id = payment.bundle_id
            HAVING count(DISTINCT i.contributor_id) = 1
        ))
    LEFT JOIN contributor other ON other.id = file.merged_into_id
"""

_BUNDLED: Final = """
    SELECT n, ARRAY(
        SELECT CAST(i.reference AS bigint) FROM bundle_item b JOIN invoice i ON i.id = b.invoice_id
        WHERE b.bundle_id = payment.bundle_id ORDER BY 1
    ) FROM free_payment JOIN payment ON payment.id = n WHERE bundle_id IS NOT NULL AND k = 0
"""

# References are looked up in their order, which is the indexes': neighbours are on one page.
_OTHER_RECORDS: Final = """
    SELECT f.k, bool_or(m.record_id IS NOT NULL)
    FROM (SELECT CAST(sought AS text) AS k FROM free_payment
        WHERE sought <> 0 GROUP BY sought ORDER BY sought) f
    JOIN institution_record r ON r.reference = f.k
    LEFT JOIN match_line m ON m.record_id = r.id
    WHERE NOT EXISTS (SELECT FROM free_record o WHERE o.n = r.id) GROUP BY f.k
"""
_OTHER_TEXTS: Final = """
    SELECT DISTINCT f.sought, r.reference_given FROM free_payment f JOIN payment p ON p.id = f.n
    JOIN payment q ON q.invoice_id = p.invoice_id JOIN match_line m ON m.payment_id = q.id
    JOIN institution_record r ON r.id = m.record_id
    WHERE r.reference IS NULL AND f.sought <> 0
"""
_OTHER_PAYMENTS: Final = """
    SELECT f.k FROM (SELECT CAST(sought AS text) AS k FROM free_record
        WHERE sought <> 0 GROUP BY sought ORDER BY sought) f
    JOIN invoice i ON i.reference = f.k JOIN payment p ON p.invoice_id = i.id
    WHERE p.status = 'booked' AND NOT EXISTS (SELECT FROM free_payment o WHERE o.n = p.id)
    GROUP BY f.k
"""


# -- taking in ------------------------------------------------------------------------------------


def know(con: duckdb.DuckDBPyConnection, others: Others) -> None:
    """Add the references that are not in this run, as an engine knows those that it has matched.

    They take part in nothing: they are there as rows that were matched, or are open elsewhere.
    """
    # Ids of rows are above zero.
    con.execute(
        "INSERT INTO record_key SELECT -row_number() OVER (), k, 0, 0"
        " FROM (SELECT unnest($1::BIGINT[]) AS k)",
        [list(others.records)],
    )
    con.execute(
        "INSERT INTO payment_key SELECT -row_number() OVER (), k, 0, 0"
        " FROM (SELECT unnest($1::BIGINT[]) AS k)",
        [others.payments],
    )
    con.execute(
        "INSERT INTO matched (rn) SELECT n FROM record_key"
        " JOIN (SELECT unnest($1::BIGINT[]) AS k) USING (k) WHERE n < 0",
        [[k for k, is_matched in others.records.items() if is_matched]],
    )


def take_in_records(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Fill `record_row`; `know` was called. Opens a snapshot: the run's session may be busy."""
    # Those whose text was read again before are there already.
    con.execute(f"INSERT INTO raw_record SELECT * FROM {read_file(path, RAW, texts=True)}")
    read_rows(con, "record")
    con.execute("DROP TABLE raw_record")
    _know_the_settled(con)


def take_in_payments(con: duckdb.DuckDBPyConnection, paid: Paid) -> None:
    """Fill `payment_row`."""
    _load_payments(con, paid.rows)
    read_rows(con, "payment")
    con.execute("DROP TABLE raw_payment")
    if paid.bundles:
        con.execute(
            "UPDATE payment_row SET ks = bundled.ks FROM"
            " (SELECT unnest($1::BIGINT[]) AS n, unnest($2::BIGINT[][]) AS ks) bundled"
            " WHERE payment_row.n = bundled.n AND payment_row.k IS NULL",
            [[n for n, _ in paid.bundles], [ks for _, ks in paid.bundles]],
        )


def _load_payments(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    columns = {**RAW, "d": "BIGINT"}
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


def _know_the_settled(con: duckdb.DuckDBPyConnection) -> None:
    """Add the references of payments that are not in this run and that a text nearly says.

    Such a text is doubted, whoever matched the payment and when. No payment is a text: each was
    found to be of an invoice or a bundle when it was booked.
    """
    meant = con.execute(
        f"SELECT y FROM ({SLIPS_OF_RECORDS}) ANTI JOIN payment_key ON k = y ORDER BY y"
    )
    references = [str(y) for (y,) in meant.fetchall()]
    if not references:
        return
    are_few = len(references) * LOOKED_UP < count(con, "SELECT count(*) FROM payment_key")
    with snapshot() as session:
        with_memory(session)
        with _looked_up(session, are_few):
            rows = execute(session, _PAID_OF, {"references": references}).scalars()
            paid = [int(reference) for reference in rows]
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
