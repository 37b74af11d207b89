"""Bring a database to the schema of this code. The schema is made by migrations only."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from gateway.db import CONNECT_SECONDS_MAX, sqlalchemy_url
from gateway.errors import Unusable

# Alembic takes half a second to import, and most commands find the schema as it should be.
if TYPE_CHECKING:
    from alembic.config import Config

# Two processes that start at once migrate one after the other.
_ADVISORY_LOCK: Final = 0x7761736C


_FOLDER: Final = Path(__file__).parent / "migrations"


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.set_main_option("path_separator", "os")
    return config


def revisions() -> list[str]:
    """Return the revisions of this code, oldest first: the numbers that files begin with."""
    return sorted(path.name[:4] for path in (_FOLDER / "versions").glob("[0-9]*.py"))


def _engine(database_url: str) -> sa.Engine:
    return sa.create_engine(
        sqlalchemy_url(database_url),
        poolclass=sa.NullPool,
        connect_args={"connect_timeout": CONNECT_SECONDS_MAX},
    )


def newest() -> str:
    """Return the revision that this code needs."""
    return revisions()[-1]


@dataclass(frozen=True, slots=True)
class Judges:
    """What in the database refuses what must not happen: fewer, or others, is tampering."""

    triggers: frozenset[tuple[str, str, str]]
    """Table, trigger, function."""
    functions_md5: str
    """Of the functions' bodies, by name (`FUNCTIONS_QUERY`)."""
    constraints_md5: str
    """Of the names of constraints, of columns' types too, and unique indexes in force
    (`CONSTRAINTS_QUERY`)."""


FUNCTIONS_QUERY: Final = (
    "SELECT md5(string_agg(proname || ':' || prosrc, ',' ORDER BY proname)) FROM pg_proc"
    " WHERE starts_with(proname, 'wasl_') AND pronamespace = current_schema()::regnamespace"
)

# Names only: how a definition is written differs between versions of PostgreSQL, as does whether
# NOT NULL is a constraint with a name.
CONSTRAINTS_QUERY: Final = """
    SELECT md5(string_agg(name, ',' ORDER BY name COLLATE "C")) FROM (
        SELECT conrelid::regclass || '.' || conname FROM pg_constraint
        WHERE connamespace = current_schema()::regnamespace AND conrelid <> 0
            AND contype <> 'n' AND convalidated
        UNION
        SELECT attrelid::regclass || '.' || attname || '.' || conname FROM pg_constraint
        JOIN pg_attribute ON atttypid = contypid JOIN pg_class ON pg_class.oid = attrelid
        WHERE contypid <> 0 AND contype <> 'n' AND convalidated AND relkind = 'r'
            AND relnamespace = current_schema()::regnamespace
        UNION
        SELECT indrelid::regclass || '.' || indexrelid::regclass FROM pg_index
        JOIN pg_class ON pg_class.oid = indexrelid
        WHERE relnamespace = current_schema()::regnamespace AND indisunique AND indisvalid
    ) AS in_force (name)
"""


_JUDGING: Final = (
    "0002_the_database_is_the_last_judge",
    "0003_papers_and_receipts",
    "0004_cards_returns_and_the_api",
    "0005_dues_in_full",
    "0006_the_hub_in_full",
    "0007_cheaper_posting",
    "0008_settlements",
    "0009_matches",
    "0011_refunds",
    "0015_posting",
    "0016_sending_hold",
    "0017_posting_again",
    "0018_references_by_bytes",
)
"""The migrations that made triggers, and the newest, which knows what is in force after it."""


def judges() -> Judges:
    """Return the triggers and functions that the migrations made."""
    made = [importlib.import_module(f"gateway.migrations.versions.{name}") for name in _JUDGING]
    triggers: set[tuple[str, str, str]] = set()
    for each in made:
        refusing = (
            *((table, "append_only", "wasl_refuse") for table in getattr(each, "APPEND_ONLY", ())),
            *((t, "never_deleted", "wasl_refuse") for t in getattr(each, "NEVER_DELETED", ())),
            *((t, "facts_stand", "wasl_refuse_other_facts") for t in getattr(each, "FACTS", ())),
        )
        others = ((table, trigger, name) for trigger, table, name in each.OTHER_TRIGGERS)
        triggers.update(refusing, others)
    return Judges(frozenset(triggers), made[-1].FUNCTIONS_MD5, made[-1].CONSTRAINTS_MD5)


def upgrade(database_url: str) -> None:
    """Run the migrations that are missing, all in one transaction, under a lock.

    Raises:
        Unusable: The database is ahead of this code: it was migrated by a newer version.
    """
    with _engine(database_url).begin() as connection:
        if _revision_of(connection) == newest():
            return
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        current = _revision_of(connection)
        if current is not None and current not in revisions():
            raise Unusable(
                f"The database is at revision {current}, which this version of Wasl does not know:"
                " start the version that made it, or a newer one."
            )
        move(connection, newest())


def _revision_of(connection: sa.Connection) -> str | None:
    table = connection.execute(sa.text("SELECT to_regclass('alembic_version')")).scalar()
    if table is None:
        return None
    held = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return None if held is None else str(held)


def move(connection: sa.Connection, revision: str) -> None:
    """Take the schema up or down to a revision of this code, in the connection's transaction."""
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    current = _revision_of(connection)
    if current is not None and revision < current:
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)


def check(database_url: str) -> None:
    """Compare the migrated schema with the tables in the code.

    Raises:
        alembic.util.AutogenerateDiffsDetected: They differ.
    """
    from alembic import command

    config = _config()
    with _engine(database_url).begin() as connection:
        config.attributes["connection"] = connection
        command.check(config)
