"""What of the database is kept, as its own catalog lists it, in an order to fill it by."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Final

import psycopg
from psycopg import sql
from sqlmodel import Session

from gateway.backup.format import Sequence
from gateway.db import execute

REVISION_TABLE: Final = "alembic_version"
"""Left out: the manifest says it, and the migrations write it."""

_DRAWN_BY_NAME: Final = frozenset({"invoice_number", "receipt_number"})
"""The sequences of this product that number no table's rows."""

_PLAINLY: Final = (
    "datestyle = 'ISO, YMD'",
    "intervalstyle = 'iso_8601'",
    "timezone = 'UTC'",
    "bytea_output = 'hex'",
    "extra_float_digits = 1",
    "client_encoding = 'UTF8'",
    # A scan that joins another's begins in the middle of the table.
    "synchronize_seqscans = off",
    "statement_timeout = 0",
    "idle_in_transaction_session_timeout = 0",
)


@dataclass(frozen=True, slots=True)
class Table:
    """A table and the columns that are stored, in order; what is computed is left out."""

    name: str
    columns: tuple[str, ...]


def speak_plainly(session: Session) -> None:
    """Make values be written and read alike whatever the server's settings, for a transaction."""
    for setting in _PLAINLY:
        execute(session, f"SET LOCAL {setting}")


def revision(session: Session) -> str:
    """Return the migration that made the schema."""
    return str(execute(session, f"SELECT version_num FROM {REVISION_TABLE}").scalar_one())


def tables(session: Session) -> list[Table]:
    """Return every table of the schema, what is pointed to before what points to it."""
    rows = execute(
        session,
        """
        SELECT c.relname::text, array_agg(a.attname::text ORDER BY a.attnum)
            FILTER (WHERE a.attgenerated = '')
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
            AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> :revision
        GROUP BY 1 ORDER BY 1
        """,
        {"revision": REVISION_TABLE},
    )
    found = {str(name): Table(str(name), tuple(columns)) for name, columns in rows}
    # A table may point to itself: COPY judges its rows when all of them are there.
    pointing = execute(
        session,
        """
        SELECT a.relname::text, b.relname::text FROM pg_constraint f
        JOIN pg_class a ON a.oid = f.conrelid JOIN pg_class b ON b.oid = f.confrelid
        WHERE f.contype = 'f' AND f.connamespace = current_schema()::regnamespace AND a.oid <> b.oid
        ORDER BY 1, 2
        """,
    )
    order: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(found, ()))
    for table, target in pointing:
        order.add(table, target)
    return [found[name] for name in order.static_order() if name in found]


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A key of somebody else's table that points to one of ours."""

    table: str
    """Theirs; with its schema where that is another."""
    target: str


def foreign_keys(session: Session, ours: Collection[str]) -> list[ForeignKey]:
    """Return the keys that other tables, of any schema, have to these: no TRUNCATE with those."""
    rows = execute(
        session,
        """
        SELECT DISTINCT f.conrelid::regclass::text, b.relname::text FROM pg_constraint f
        JOIN pg_class a ON a.oid = f.conrelid JOIN pg_class b ON b.oid = f.confrelid
        WHERE f.contype = 'f' AND b.relnamespace = current_schema()::regnamespace
            AND b.relname = ANY (:ours)
            AND (a.relnamespace <> b.relnamespace OR a.relname <> ALL (:ours))
        ORDER BY 1, 2
        """,
        {"ours": sorted(ours)},
    )
    return [ForeignKey(str(table), str(target)) for table, target in rows]


def sequences(session: Session, tables: Collection[str]) -> dict[str, Sequence]:
    """Return where every sequence of ours stands now: no snapshot holds a sequence back.

    Those that number the rows of these tables, and those that are drawn from by name.
    """
    rows = execute(
        session,
        """
        SELECT s.relname::text, t.relname::text FROM pg_class s
        LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid
            AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
        LEFT JOIN pg_class t ON t.oid = d.refobjid
        WHERE s.relkind = 'S' AND s.relnamespace = current_schema()::regnamespace ORDER BY 1
        """,
    )
    return {
        str(name): sequence(session, str(name))
        for name, table in rows.all()
        if (name in _DRAWN_BY_NAME if table is None else table in tables)
    }


def sequence(session: Session, name: str) -> Sequence:
    """Return where a sequence stands now."""
    quoted = sql.Identifier(name).as_string()
    row = execute(session, f"SELECT last_value, is_called FROM {quoted}").one()
    return Sequence(name=name, last_value=int(row[0]), is_called=bool(row[1]))


def digest(session: Session, table: Table) -> str:
    """Return the SHA-256 of a table's rows as COPY text, in the order in which they lie there."""
    found = hashlib.sha256()
    for row in rows_of(session, table):
        found.update(row)
    return found.hexdigest()


def mark(session: Session, said: str | None) -> None:
    """Leave a word in the database, or take it away: a comment, which is part of a transaction."""
    connection_of(session).execute(
        sql.SQL("COMMENT ON TABLE {} IS {}").format(
            sql.Identifier(REVISION_TABLE), sql.Literal(said)
        )
    )


def marked(session: Session) -> str | None:
    """Return the word that was left."""
    query = f"SELECT obj_description('{REVISION_TABLE}'::regclass, 'pg_class')"
    found = execute(session, query).scalar()
    return None if found is None else str(found)


def filled(session: Session, names: Iterable[str]) -> list[str]:
    """Return which of these tables hold a row."""
    return [
        name
        for name in names
        if execute(
            session, f"SELECT EXISTS (SELECT FROM {sql.Identifier(name).as_string()})"
        ).scalar_one()
    ]


def rows_of(session: Session, table: Table) -> Iterator[bytes]:
    """Yield a table's rows as lines of COPY text; flat in memory."""
    copy = sql.SQL("COPY {} ({}) TO STDOUT").format(*_identifiers(table))
    with connection_of(session).cursor() as cursor, cursor.copy(copy) as stream:
        for row in stream:
            yield bytes(row)


def fill(session: Session, table: Table, pieces: Iterable[bytes]) -> int:
    """Put COPY text into a table; return how many rows."""
    copy = sql.SQL("COPY {} ({}) FROM STDIN").format(*_identifiers(table))
    with connection_of(session).cursor() as cursor:
        with cursor.copy(copy) as stream:
            for piece in pieces:
                stream.write(piece)
        return cursor.rowcount


def connection_of(session: Session) -> psycopg.Connection:
    """Return the driver's connection of a session."""
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    return connection


def listed(names: Iterable[str]) -> str:
    """Return names as SQL has them in a list."""
    return ", ".join(sql.Identifier(name).as_string() for name in names)


def _identifiers(table: Table) -> tuple[sql.Composable, sql.Composable]:
    columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
    return sql.Identifier(table.name), columns
