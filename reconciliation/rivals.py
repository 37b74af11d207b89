"""Rivals that came since the last run: rows that would have been candidates beside what was matched
without the row's own reference.

Whoever matches in turn sees less at a time than whoever matches at once, so such a line is to be
thought over when a rival comes. Which rows are rivals is asked of the engine's own queries, between
the lines' rows and the new ones only. More are found than would make a tie: what holds all the same
is matched again by the run, and that run has then seen the rival.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import duckdb
from sqlmodel import Session

from gateway.db import execute
from reconciliation.duckcolumns import NONE, columns_of, take_in
from reconciliation.duckfiles import (
    count,
    pull_rows,
    read_file,
    with_memory,
    workbench,
)
from reconciliation.engines.duck_pairs import (
    MACROS,
    one_slip_of_a_person,
    plausible_relations,
    same_person,
)
from reconciliation.engines.duck_relations import SLIPS_OF_RECORDS, relations
from reconciliation.engines.duck_sharing import sharing
from reconciliation.evidence import LOOKED_UP, Free, pull_payments, take_in_payments
from reconciliation.loading import RAW
from reconciliation.matching import NAME_IN_PART, Relation, Rule, Terms
from reconciliation.reading import read_text
from reconciliation.reading_tables import read_keys, read_rows
from reconciliation.scope import RECORD_IN_SCOPE, RECORD_STANDS, Scope, open_payments

_SUMS: Final = (Rule.SEVERAL_DUES, Rule.INSTALMENTS_BY_IDENTITY)
"""Rules for which any row of the person's counts, of whatever amount."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The last ids that a run looked at. Of records and of what was undone they are all: whoever
    writes those holds the lock on records, as a run does. Payments are booked meanwhile: what is
    written by transaction `unfinished`, or by a later one, the run may not have seen."""

    payment: int = 0
    record: int = 0
    undone: int = 0
    unfinished: int | None = None

    def as_json(self) -> dict[str, int | None]:
        return asdict(self)


def read_seen(session: Session) -> Seen:
    """Return what a run sees that is about to compare what is open."""
    row = execute(
        session,
        "SELECT coalesce((SELECT max(id) FROM payment), 0) AS payment,"
        " coalesce((SELECT max(id) FROM institution_record), 0) AS record,"
        " coalesce((SELECT max(id) FROM undone_match), 0) AS undone,"
        " CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) AS unfinished",
    ).one()
    return Seen(row.payment, row.record, row.undone, row.unfinished)


def find_rivalled(session: Session, scope: Scope, terms: Terms) -> Sequence[int]:
    """Return the payments of the lines for which, or for whose records, a rival has come.

    Came: recorded, booked, or set free since the last run over this scope, or over all. Lines that
    a run over less has made since are of no run that looked at everything: any row is new to them.
    The caller owns the transaction, holds the lock on records, and has the lines in a table
    `unsure` (payment_id, record_id, run_id, rule) of the transaction's own. Opens a transaction to
    read the payments' evidence.
    """
    with_memory(session)
    if not _find_new(session, scope):
        return []
    with workbench() as (con, folder):
        _take_in_records(con, session, folder)
        _take_in_payments(con, session, folder)
        _find_near(con, terms.tolerance_minor)
        return [payment for (payment,) in con.execute(_RIVALLED).fetchall()]


def find_shared_anew(session: Session, scope: Scope) -> Sequence[int]:
    """Return the payments of the lines of a reference of which another payment or record has come.

    Rows of one reference are paired off by amount, day and id, and what is left is added up: who
    came later may be the other's pair; and who was matched without his own reference may have found
    it. Came, and who owns the transaction: as for `find_rivalled`.
    """
    lines = "SELECT EXISTS (SELECT FROM match_line WHERE decided_by IS NULL)"
    if not execute(session, lines).scalar_one():
        return []
    last = execute(session, _LAST_RUN, scope.parameters).one()
    named = {
        **scope.parameters,
        **Seen(**(last.seen or {})).as_json(),
        "started_at": last.started_at,
    }
    texts = execute(session, _TEXTS_OF_NEW_RECORDS, named).scalars()
    named["read"] = [str(k) for k in {read_text(text).k for text in texts} if k is not None]
    return execute(session, _SHARED_ANEW, named).scalars().all()


# Of an open payment `n`: the last run may not have seen it, or saw it pending. Ids and times are
# given before a transaction is finished, so its number is asked as well: ages are counted from one
# number, and one that is below zero is of another server (a restored database), which says nothing.
_CAME_LATE: Final = """
    (n > :payment OR coalesce(booked_at > CAST(:started_at AS timestamptz), true)
        OR age(payment.xmin) <= age(CAST(CAST(CAST(:unfinished AS text) AS xid8) AS xid)))
"""
_NEW_FREE_RECORD: Final = f"""
    (record.id > :record OR record.id IN (SELECT record_id FROM undone_match WHERE id > :undone))
    AND record.amount_minor > 0 AND {RECORD_STANDS} AND {RECORD_IN_SCOPE}
    AND NOT EXISTS (SELECT FROM match_line m WHERE m.record_id = record.id)
"""
# In which the import saw no reference: one may stand in the text.
_TEXTS_OF_NEW_RECORDS: Final = f"""
    SELECT DISTINCT reference_given FROM institution_record record
    WHERE record.reference IS NULL AND {_NEW_FREE_RECORD}
"""
_SHARED_ANEW: Final = f"""
    WITH came AS MATERIALIZED (
        SELECT k FROM ({open_payments(some_matched=True)}) AS still
        JOIN payment ON payment.id = n
        WHERE n IN (SELECT payment_id FROM undone_match WHERE id > :undone) OR {_CAME_LATE}
        UNION SELECT record.reference FROM institution_record record WHERE {_NEW_FREE_RECORD}
        UNION SELECT unnest(CAST(:read AS text[]))
    ), line AS (
        SELECT m.* FROM came JOIN institution_record own ON own.reference = came.k
        JOIN match_line m ON m.record_id = own.id
        UNION ALL
        SELECT m.* FROM came JOIN invoice i ON i.reference = came.k
        JOIN payment own ON own.invoice_id = i.id JOIN match_line m ON m.payment_id = own.id
    )
    SELECT DISTINCT payment_id FROM line
    WHERE decided_by IS NULL ORDER BY 1
"""


# -- what is new ----------------------------------------------------------------------------------


def _find_new(session: Session, scope: Scope) -> bool:
    """Make tables of the lines and of what is new to them, `doubted`, `paid_since`, `new_record`.

    Say if there is anything new.
    """
    last = execute(session, _LAST_RUN, scope.parameters).one()
    seen = Seen(**(last.seen or {}))
    named = {
        **scope.parameters,
        **seen.as_json(),
        "last": last.id,
        "started_at": last.started_at,
        "sums": [rule.value for rule in _SUMS],
    }
    execute(session, _DOUBTED, named)
    named["all"] = execute(session, "SELECT bool_or(is_new) FROM doubted").scalar_one() or False
    execute(session, _NEW_RECORDS, named)
    execute(session, _PAID_SINCE, named)
    query = "SELECT EXISTS (SELECT FROM paid_since) OR EXISTS (SELECT FROM new_record)"
    return bool(execute(session, query).scalar_one())


_LAST_RUN: Final = """
    SELECT coalesce(max(id), 0) AS id, max(started_at) AS started_at,
        (array_agg(outcomes -> 'seen'))[1] AS seen
    FROM (
        SELECT id, started_at, outcomes FROM reconciliation_run
        WHERE finished_at IS NOT NULL AND (period IS NULL OR period = :period)
        ORDER BY id DESC LIMIT 1
    ) AS last
"""

_DOUBTED: Final = """
    CREATE TEMPORARY TABLE doubted ON COMMIT DROP AS
    SELECT payment_id AS pn, record_id AS rn, rule = ANY(:sums) AS is_sum, run_id > :last AS is_new
    FROM unsure WHERE is_in_scope
"""

# A record whose reference can be read is nobody's but its own, save where a person's dues are added
# up, or a reference's groups may have changed places, for which the person has to be the same. What
# a free payment names will be that one's.
_NEW_RECORDS: Final = f"""
    CREATE TEMPORARY TABLE new_record ON COMMIT DROP AS
    WITH freed AS MATERIALIZED (
        SELECT DISTINCT record_id AS id FROM undone_match WHERE id > :undone
    ), came AS MATERIALIZED (
        SELECT id FROM institution_record
        WHERE id > CASE WHEN :all THEN 0 ELSE CAST(:record AS bigint) END
        UNION SELECT id FROM freed
    ), person AS MATERIALIZED (
        SELECT DISTINCT number FROM doubted JOIN institution_record r ON r.id = rn
        JOIN payment p ON p.id = pn LEFT JOIN invoice i ON i.id = p.invoice_id
        LEFT JOIN contributor c ON c.id = i.contributor_id
        CROSS JOIN unnest(ARRAY[r.cnss_number, r.cin, c.cnss_number, c.cin]) AS number
        WHERE number IS NOT NULL
    )
    SELECT record.id AS n, record.id > :record OR record.id IN (SELECT id FROM freed) AS is_new
    FROM came JOIN institution_record record USING (id)
    WHERE record.amount_minor > 0 AND {RECORD_STANDS} AND {RECORD_IN_SCOPE}
        AND NOT EXISTS (SELECT FROM match_line m WHERE m.record_id = record.id)
        AND (record.reference IS NULL OR (
            (record.cnss_number IN (SELECT number FROM person)
                OR record.cin IN (SELECT number FROM person))
            AND NOT EXISTS (
                SELECT FROM invoice i JOIN payment p ON p.invoice_id = i.id
                WHERE i.reference = record.reference AND p.status = 'booked'
                    AND p.returned_minor < p.amount_minor
                    AND NOT EXISTS (SELECT FROM match_line m WHERE m.payment_id = p.id))))
"""

# What was pending when the last run looked has an id that it saw.
_PAID_SINCE: Final = f"""
    CREATE TEMPORARY TABLE paid_since ON COMMIT DROP AS
    WITH freed AS MATERIALIZED (
        SELECT DISTINCT payment_id AS id FROM undone_match WHERE id > :undone
    )
    SELECT * FROM (
        SELECT n, k, a, n IN (SELECT id FROM freed) OR {_CAME_LATE} AS is_new
        FROM ({open_payments(some_matched=True)}) AS still JOIN payment ON payment.id = n
    ) AS each WHERE is_new OR :all
"""


# -- their evidence -------------------------------------------------------------------------------


def _take_in(
    con: duckdb.DuckDBPyConnection, session: Session, table: str, columns: str, path: Path
) -> None:
    """Have a table of the transaction in DuckDB too; its columns with their types, by commas."""
    types = dict(column.split() for column in columns.split(","))
    pull_rows(session, f"TABLE {table}", types, path)
    con.execute(f"CREATE TABLE {table} AS FROM {read_file(path, types)}")


def _take_in_records(con: duckdb.DuckDBPyConnection, session: Session, folder: Path) -> None:
    """Make `record_row` of the lines' records and of the new ones."""
    columns = "pn BIGINT, rn BIGINT, is_sum BOOLEAN, is_new BOOLEAN"
    _take_in(con, session, "doubted", columns, folder.joinpath("doubted.csv"))
    _take_in(con, session, "new_record", "n BIGINT, is_new BOOLEAN", folder.joinpath("new_r.csv"))
    path = folder.joinpath("records.csv")
    pull_rows(session, _RECORDS, RAW, path)
    con.execute(f"CREATE TABLE raw_record AS FROM {read_file(path, RAW, texts=True)}")
    read_keys(con, "record")
    con.execute("CREATE TABLE free_record AS SELECT n FROM record_key")
    read_rows(con, "record")


_RECORDS: Final = """
    SELECT record.id AS n, record_id AS id, reference_given AS reference, cnss_number, cin, name,
        amount_minor AS a, posted_on AS d, provider_reference
    FROM institution_record record
    JOIN (SELECT rn AS id FROM doubted UNION SELECT n FROM new_record) AS each USING (id)
"""


def _take_in_payments(con: duckdb.DuckDBPyConnection, session: Session, folder: Path) -> None:
    """Make `payment_row` of the lines' payments, and `new_payment` of those that may be rivals:
    whose reference no record has, or a text nearly says."""
    meant = [str(y) for (y,) in con.execute(SLIPS_OF_RECORDS).fetchall()]
    execute(session, _NEW_PAYMENTS, {"meant": meant})
    _take_in(con, session, "new_payment", "n BIGINT, is_new BOOLEAN", folder.joinpath("new_p.csv"))
    con.execute("CREATE TABLE raw_payment AS FROM raw_record LIMIT 0")
    read_keys(con, "payment")
    insert = f"INSERT INTO payment_key SELECT n, nullif(k, {NONE}), 0, a FROM block"
    take_in(con.cursor(), insert, session, _PAYMENTS, {}, ("n", "k", "a"))
    con.execute("CREATE TABLE free_payment AS SELECT n FROM payment_key")
    rows = columns_of(con, "SELECT n, k, NULL::BIGINT AS sought FROM payment_key")
    of = execute(session, "SELECT max(id) FROM payment").scalar_one()
    free = Free(rows, rows, len(rows["n"]) * LOOKED_UP < of)
    take_in_payments(con, pull_payments(free, folder))


_NEW_PAYMENTS: Final = """
    CREATE TEMPORARY TABLE new_payment ON COMMIT DROP AS
    SELECT * FROM paid_since
    WHERE NOT EXISTS (SELECT FROM institution_record r WHERE r.reference = k)
    UNION
    SELECT * FROM paid_since WHERE k IN (SELECT unnest(CAST(:meant AS text[])))
"""

_PAYMENTS: Final = """
    SELECT payment.id AS n, i.reference AS k, payment.amount_minor - payment.returned_minor AS a
    FROM (SELECT pn AS id FROM doubted UNION SELECT n FROM new_payment) AS each
    JOIN payment USING (id) LEFT JOIN invoice i ON i.id = payment.invoice_id
"""


# -- who is near whom -----------------------------------------------------------------------------


def _find_near(con: duckdb.DuckDBPyConnection, tolerance: int) -> None:
    """Make `near` (pn, rn): a line's row and a new row that an engine would think about."""
    con.execute("CREATE TABLE near (pn BIGINT, rn BIGINT)")
    for macro in MACROS:
        con.execute(macro)
    lines, new = "SELECT {} FROM doubted", "SELECT n FROM new_{}"
    _add_candidates(con, lines.format("pn"), new.format("record"), tolerance)
    _add_candidates(con, new.format("payment"), lines.format("rn"), tolerance)
    # A text that nearly says a payment's reference is doubted, whatever it says of the person.
    con.execute(
        "INSERT INTO near SELECT pn, rn FROM relation JOIN r ON r.n = rn"
        f" WHERE relation = '{Relation.SLIP}' AND r.k IS NULL"
    )
    if count(con, "SELECT count(*) FROM doubted WHERE is_sum"):
        _add_the_persons(con)


def _add_candidates(
    con: duckdb.DuckDBPyConnection, payments: str, records: str, tolerance: int
) -> None:
    """Add the candidates of passes 5, 8 and 9 among these (n)."""
    for side, rows, names in (
        ("payment", payments, ("nameless",)),
        ("record", records, ("certain", "unnamed")),
    ):
        short = side[0]
        con.execute(
            f"CREATE OR REPLACE TEMP VIEW {short} AS SELECT *, FALSE AS known FROM {side}_row"
            f" WHERE n IN ({rows})"
        )
        for name in names:
            con.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS FROM {short}")
    for statement in relations(of_payments=False, of_records=True):
        con.execute(statement)
    for candidates in (
        plausible_relations(tolerance),
        same_person(tolerance),
        one_slip_of_a_person(tolerance, name=NAME_IN_PART),
    ):
        con.execute(f"INSERT INTO near SELECT pn, rn FROM ({candidates})")


def _add_the_persons(con: duckdb.DuckDBPyConnection) -> None:
    """Add the new rows of the person whose rows were added up."""

    def numbers(*rows: str) -> str:
        return " UNION ".join(
            f"SELECT n, '{mark}' || {number} AS shared FROM ({each}) WHERE {number} IS NOT NULL"
            for each in rows
            for mark, number in (("n", "cnss"), ("c", "cin"))
        )

    of_line = "SELECT {} AS n, cnss, cin FROM doubted JOIN {}_row AS row ON row.n = {} WHERE is_sum"
    new = "SELECT n, cnss, cin FROM {0}_row SEMI JOIN new_{0} USING (n)"
    persons = numbers(of_line.format("pn", "payment", "pn"), of_line.format("pn", "record", "rn"))
    records = numbers(of_line.format("rn", "record", "rn"))
    for pairs in (
        sharing(persons, numbers(new.format("record"))),
        sharing(numbers(new.format("payment")), records),
    ):
        con.execute(f"INSERT INTO near {pairs}")


_RIVALLED: Final = """
    SELECT doubted.pn FROM near JOIN doubted USING (pn) JOIN new_record new ON new.n = near.rn
    WHERE new.is_new OR doubted.is_new
    UNION
    SELECT doubted.pn FROM near JOIN doubted USING (rn) JOIN new_payment new ON new.n = near.pn
    WHERE new.is_new OR doubted.is_new
    ORDER BY 1
"""
