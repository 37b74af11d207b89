"""The database: one engine a process, one way to open a transaction, the shared column types.

No other module commits, rolls back or opens a session.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from psycopg.adapt import Dumper
from psycopg.pq import Format
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Engine, make_url
from sqlmodel import Field, Session, SQLModel

from gateway.packing import BigInts, Texts

SQLModel.metadata.naming_convention = {
    "pk": "%(table_name)s_pkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "ck": "%(table_name)s_%(constraint_name)s_check",
}

# Sync routes run in at most 40 threads; a pool as large never makes one wait for a connection that
# a waiting one holds.
POOL_SIZE: Final = 20
POOL_OVERFLOW: Final = 20
CONNECT_SECONDS_MAX: Final = 5

# A machine or a network that vanishes says nothing: a connection to it must not be waited on for
# the two hours of the system's own. An address may say other figures.
_PATIENCE: Final = {
    "connect_timeout": CONNECT_SECONDS_MAX,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}

_engine: Engine | None = None


class _BigIntsDumper(Dumper):
    format = Format.BINARY
    oid = psycopg.adapters.types["int8"].array_oid

    def dump(self, obj: BigInts) -> bytes:
        return obj.packed


class _TextsDumper(Dumper):
    format = Format.BINARY
    oid = psycopg.adapters.types["text"].array_oid

    def dump(self, obj: Texts) -> bytes:
        return obj.packed


psycopg.adapters.register_dumper(BigInts, _BigIntsDumper)
psycopg.adapters.register_dumper(Texts, _TextsDumper)


def sqlalchemy_url(database_url: str) -> sa.URL:
    """Return a `postgresql://…` address as SQLAlchemy wants it, on psycopg 3."""
    return make_url(database_url).set(drivername="postgresql+psycopg")


# What libpq takes from an address and asyncpg would send to the server as a setting of its own.
_LIBPQ_ONLY: Final = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "hostaddr",
    "channel_binding",
    "gssencmode",
    "fallback_application_name",
    "client_encoding",
    "load_balance_hosts",
    "require_auth",
    "requirepeer",
    "sslcompression",
)


def asyncpg_address(database_url: str) -> str:
    """Return a `postgresql://…` address as asyncpg wants it: the one that psycopg takes, too."""
    plain = make_url(database_url).set(drivername="postgresql")
    return plain.difference_update_query(_LIBPQ_ONLY).render_as_string(hide_password=False)


def connect(database_url: str, *, statement_seconds_max: int | None = None) -> Engine:
    """Bind this process to a database. Connections are opened when first needed.

    Called by each process at its start, and by tests; a second call replaces the engine.

    Args:
        database_url: As libpq takes it.
        statement_seconds_max: A statement that takes longer, waiting for locks included, is given
            up by the server. For processes that answer strangers.
    """
    global _engine  # noqa: PLW0603 - one database a process is the point
    disconnect()
    url = sqlalchemy_url(database_url)
    given = url.query.get("options", "")
    given = given if isinstance(given, str) else " ".join(given)
    # Compiling a statement takes a second or two, and ours seldom run as long.
    options = f"{given} -c timezone=UTC -c jit=off".strip()
    if statement_seconds_max is not None:
        options += f" -c statement_timeout={statement_seconds_max}s"
    _engine = sa.create_engine(
        url,
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        # What a statement was given may be a person's; an error must not quote it.
        hide_parameters=True,
        # A connection that died with a restarted server is found before work is put on it.
        pool_pre_ping=True,
        connect_args={
            **{name: value for name, value in _PATIENCE.items() if name not in url.query},
            "options": options,
        },
    )
    return _engine


def disconnect() -> None:
    """Close all connections of this process."""
    global _engine  # noqa: PLW0603
    if _engine is not None:
        _engine.dispose()
        _engine = None


def engine() -> Engine:
    """Return the engine of this process."""
    assert _engine is not None, "connect() was not called in this process"
    return _engine


@contextmanager
def transaction() -> Iterator[Session]:
    """Open a session and one transaction: commit on a clean exit, roll back on any exception.

    Used as `with transaction() as session:` in the body of a route, a task or a command, never as
    a FastAPI dependency: a dependency commits after the response is decided, and keeps its
    connection while it waits for a thread, which deadlocks the pool under load.
    """
    with Session(engine(), expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def alone(what: str) -> Iterator[bool]:
    """Hold a right that one process at a time can have, and say whether it is ours.

    It is bound to a connection of its own, outside of transactions: it ends with the block, and
    with the process that is killed in it. Nobody waits for it.
    """
    with engine().execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        named = {"what": what}
        query = "SELECT pg_try_advisory_lock(hashtextextended(:what, 0))"
        ours = bool(connection.execute(sa.text(query), named).scalar_one())
        try:
            yield ours
        finally:
            if ours:
                query = "SELECT pg_advisory_unlock(hashtextextended(:what, 0))"
                connection.execute(sa.text(query), named)


@contextmanager
def snapshot() -> Iterator[Session]:
    """Open a read-only session that sees one instant of the database."""
    options = engine().execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )
    with Session(options, expire_on_commit=False) as session, session.begin():
        yield session


def renew_figures() -> None:
    """Have the database renew what its planner knows of all tables; a second or two, in itself.

    It does so by itself within minutes. For who reads whole tables right after a restore or a bulk
    of payments that is too late: by the figures of before they are next to empty. Tables of
    another owner are left out. Opens its own transaction.
    """
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


def execute(
    session: Session, statement: str, parameters: Mapping[str, Any] | None = None
) -> sa.CursorResult[*tuple[Any, ...]]:
    """Run one SQL statement with named parameters (`:name`) in the session's transaction."""
    return session.connection().execute(sa.text(statement), dict(parameters or {}))


def fetch(session: Session, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Run one SELECT with parameters as psycopg names them (`%(name)s`), and return its rows.

    They come in binary and are made by the driver alone, for what is read by thousands: a third of
    what `execute` takes for them.
    """
    with _driver(session, statement) as connection:
        return connection.execute(statement, parameters, binary=True).fetchall()


def stream(
    session: Session, statement: str, parameters: Mapping[str, Any]
) -> Generator[tuple[Any, ...]]:
    """Yield the rows of one SELECT with named parameters (`:name`) as they come, in binary.

    Each is held alone, so they may be large. The session is busy until the last is taken, or this
    is closed.
    """
    compiled = sa.text(statement).compile(dialect=session.connection().dialect)
    with _driver(session, statement) as connection, connection.cursor() as cursor:
        yield from cursor.stream(compiled.string, parameters, binary=True)


def copy_rows(session: Session, copy: str, rows: Iterable[tuple[object, ...]]) -> None:
    """Stream rows into a table by a `COPY … FROM STDIN`, in the session's transaction.

    Rows are taken one by one, so a million of them are flat in memory.
    """
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    with connection.cursor() as cursor, cursor.copy(copy) as stream:
        for row in rows:
            stream.write_row(row)


def copy_blocks(session: Session, copy: str, blocks: Iterable[bytes]) -> None:
    """Stream blocks of rows, packed already, by a `COPY … FROM STDIN`, in the transaction.

    The server takes in one block while the next is being made.
    """
    with (
        _driver(session, copy) as connection,
        connection.cursor() as cursor,
        cursor.copy(copy) as stream,
    ):
        for block in blocks:
            stream.write(block)


@contextmanager
def _driver(session: Session, statement: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Give the driver's connection of the session's transaction, for one statement."""
    within = session.connection()
    connection = within.connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    try:
        yield connection
    except psycopg.Error as error:
        # Whoever asks what went wrong asks it the same way of any statement.
        raise sa.exc.DBAPIError.instance(
            statement, None, error, psycopg.Error, hide_parameters=True, dialect=within.dialect
        ) from error


def insert_all(
    session: Session,
    table: type[SQLModel],
    rows: Sequence[Mapping[str, Any]],
    returning: str = "",
    *,
    conflict: str = "",
) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Insert rows of equal columns in one statement, an array a column: twice as fast as VALUES.

    Args:
        session: Whose transaction it is.
        table: Where they go.
        rows: At least one; values by column.
        returning: Columns to return of each row, in no promised order.
        conflict: What to do about rows that are there already, after `ON CONFLICT`.
    """
    columns = sa.inspect(table).columns
    names = list(rows[0])
    dialect = session.connection().dialect
    arrays = ", ".join(
        f"CAST(:{name} AS {columns[name].type.compile(dialect=dialect)}[])" for name in names
    )
    statement = f"INSERT INTO {sa.inspect(table).local_table} ({', '.join(names)})"
    statement += f" SELECT * FROM unnest({arrays})"
    if conflict:
        statement += f" ON CONFLICT {conflict}"
    if returning:
        statement += f" RETURNING {returning}"
    values = {name: [row[name] for row in rows] for name in names}
    result = execute(session, statement, values)
    return result.all() if returning else []


def insert_once(session: Session, row: SQLModel, *, unique: Sequence[str]) -> bool:
    """Insert a row unless its unique key is taken, and say whether it was inserted.

    One statement, so two callers cannot both be told yes. RETURNING rather than `rowcount`, which
    a session reports as -1 for inserts.
    """
    values = row.model_dump(exclude_none=True)
    statement = insert(type(row)).values(values).on_conflict_do_nothing(index_elements=unique)
    return session.scalar(statement.returning(sa.literal(1))) is not None


# -- column types ---------------------------------------------------------------------------------


def key() -> Any:
    """A surrogate key that the database numbers."""
    return Field(
        default=None,
        sa_type=sa.BigInteger,
        primary_key=True,
        sa_column_kwargs={"server_default": sa.Identity(always=False)},
    )


def points_to(column: str, *, nullable: bool = False, unique: bool = False) -> Any:
    """A BIGINT foreign key. What is pointed to cannot be deleted: nothing here ever is."""
    if nullable:
        return Field(default=None, sa_type=sa.BigInteger, foreign_key=column, unique=unique)
    return Field(sa_type=sa.BigInteger, foreign_key=column, unique=unique)


def names(table: str, **options: Any) -> Any:
    """A BIGINT that names a row of a table by its id, where rows are written by thousands.

    Checked for all rows of a statement at once, by a trigger (migration 0006): a foreign key asks
    for each row, which was two fifths of what posting costs. What is named can neither be deleted
    nor get another id, and `wasl verify` looks that all of it is there.
    """
    return Field(sa_type=sa.BigInteger, sa_column_kwargs={"info": {NAMES: table}}, **options)


NAMES: Final = "names"
"""Where a column's `info` says which table it names."""


def minor(**options: Any) -> Any:
    """An amount in centimes: BIGINT, since INTEGER ends at 21 474 836.47."""
    return Field(sa_type=sa.BigInteger, **options)


def share(**options: Any) -> Any:
    """An exact share from 0 to 1, to four places."""
    return Field(sa_type=sa.Numeric(5, 4), **options)


def instant(**options: Any) -> Any:
    """An aware instant, kept in UTC."""
    return Field(sa_type=sa.DateTime(timezone=True), **options)


def choice(enum: type[StrEnum], **options: Any) -> Any:
    """A text column that holds an enum's values; `one_of` makes the database check them."""
    return Field(
        sa_type=sa.Enum(
            enum,
            native_enum=False,
            create_constraint=False,
            length=32,
            values_callable=lambda members: [m.value for m in members],
        ),
        **options,
    )


def one_of(column: str, enum: type[StrEnum]) -> sa.CheckConstraint:
    """The check that a column holds one of the enum's values."""
    values = ", ".join(f"'{member.value}'" for member in enum)
    return sa.CheckConstraint(f"{column} IN ({values})", name=column)
