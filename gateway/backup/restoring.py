"""Put a backup back: the database in one transaction, then the files of the home.

The order, and what a crash leaves:

1. The archive was read from end to end before anything here begins (gateway.backup.format).
2. `wasl up` is kept out by its own lock, and nobody else may be connected to the database.
3. One transaction empties the tables, takes the schema to the archive's revision, fills it, and
   brings it to the newest. Until its commit the database is as it was, sequences included.
4. Before that commit the files lie in the home beside their places, on the disk; after it they are
   moved there. A crash between leaves a database that holds just what the archive does: the same
   command again sees that, leaves the database alone and places the files.

Rules of the schema that judge changes (triggers) are switched off while rows come back, as they
would judge history as if it were made now; constraints and foreign keys stay in force, so tables
are filled in the order in which they point to each other. Both want only the owner of the tables.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlmodel import Session

from gateway.backup import catalog
from gateway.backup.format import Archive, Manifest
from gateway.backup.homefiles import PROVIDERS, HomeFiles
from gateway.db import execute, transaction
from gateway.embedded.home import Home, Lock
from gateway.errors import Unusable
from gateway.settings import Settings

SEEDED: Final = frozenset({"ledger_account", "reference_key"})
"""Tables that the migrations themselves put rows into: rows there are no books yet."""

LEAP: Final = 10_000_000
LEAP_SHARE: Final = 100
"""How many numbers a sequence leaves out: so many, and at most one part in so many of its range.

What was given out after the backup is not in it. Without a leap the next invoice would be given a
reference that somebody else holds on paper, and his money would go to a stranger's debt; and who
reads events by their number would miss those that are given a number he has passed."""

ALONE_SECONDS_MAX: Final = 3.0
"""How long a connection that is being closed may be seen."""

_NAMED_MAX: Final = 4
WORD: Final = "--replace-books"


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did."""

    archive: Archive
    loaded: bool
    """False: the database held just this already."""
    aside: Path | None
    """Where the files of the home that were in the way lie now."""
    unused_providers: Path | None
    """The providers file that WASL_PROVIDERS names and that was left as it is."""

    def as_json(self) -> dict[str, Any]:
        manifest = self.archive.manifest
        return {
            "file": str(self.archive.path),
            "bytes": self.archive.written.size,
            "sha256": self.archive.written.sha256,
            "tables": len(manifest.tables),
            "rows": manifest.rows,
            "batches": manifest.batches,
            "revision": manifest.revision,
            "loaded": self.loaded,
            "put_aside": str(self.aside) if self.aside else None,
        }


def refuse_unfit(manifest: Manifest, settings: Settings) -> None:
    """Stop where an archive does not belong here; touches nothing.

    Raises:
        Unusable: It is of the other mode, or of a newer version of Wasl.
    """
    if manifest.mode != settings.mode:
        raise Unusable(
            f"The backup is of {manifest.mode} and this is {settings.mode}: invented and real money"
            " are never mixed."
        )
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if manifest.revision not in known:
        raise Unusable(
            f"The backup is at revision {manifest.revision}, which this version of Wasl does not"
            " know: restore it with the version that made it, or a newer one."
        )


@contextmanager
def home_alone(settings: Settings) -> Iterator[None]:
    """Keep `wasl up` off this home meanwhile.

    Raises:
        Unusable: It is up.
    """
    home = Home(settings.home)
    home.prepare()
    lock = Lock(home.run / "up.lock")
    if not lock.take():
        raise Unusable(f"Wasl is up on {settings.home}: stop it first, then restore.")
    try:
        yield
    finally:
        lock.release()


def restore(
    archive: Archive,
    settings: Settings,
    *,
    ours: Collection[str],
    replace_books: bool,
    now: datetime,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Restored:
    """Put an archive's state in the place of what is here. Opens its own transaction.

    To be called in `home_alone`, on a database at the newest revision.

    Args:
        archive: Found whole, and fit (`refuse_unfit`).
        settings: Which home.
        ours: The tables of this product at the newest revision. Others are not touched.
        replace_books: The explicit word: what is here may go.
        now: By the business clock; names the folder of what is put aside.
        progress: Called with rows put back, and of how many.

    Raises:
        Unusable: Somebody else uses the database, there are books here and no word, or the
            archive's rows are refused by the schema. Nothing is changed then.
    """
    home = HomeFiles(settings.home, archive)
    try:
        with transaction() as session:
            catalog.speak_plainly(session)
            _refuse_company(session)
            # Whoever comes now waits: what is seen here is what is replaced.
            execute(session, f"LOCK TABLE {catalog.listed(sorted(ours))} IN ACCESS EXCLUSIVE MODE")
            loaded = _must_load(session, archive, home, ours, replace_books=replace_books)
            home.stage()
            if loaded:
                _load(session, archive, ours, progress)
        aside = home.place(now=now)
    except OSError as error:
        raise Unusable(f"The home {settings.home} cannot be written: {error.strerror}.") from None
    finally:
        home.unstage()
    brought = any(file.name == PROVIDERS for file in archive.manifest.files)
    return Restored(archive, loaded, aside, settings.providers if brought else None)


def _refuse_company(session: Session) -> None:
    """Stop where anybody else is connected to the database: what they hold in mind would be old."""
    began = time.monotonic()
    while True:
        execute(session, "SELECT pg_stat_clear_snapshot()")
        others = execute(
            session,
            # What others do is hidden from a plain owner; that they are there is not.
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND usesysid IS NOT NULL"
            " AND coalesce(backend_type, 'client backend') = 'client backend'",
        ).scalar_one()
        if not others:
            return
        if time.monotonic() - began > ALONE_SECONDS_MAX:
            raise Unusable(
                "The database is in use by others"
                f" ({others} connection{'s' if others > 1 else ''}): stop the web process, the"
                " worker and whatever else reads it, then restore."
            )
        time.sleep(0.1)


def _must_load(
    session: Session,
    archive: Archive,
    home: HomeFiles,
    ours: Collection[str],
    *,
    replace_books: bool,
) -> bool:
    """Say whether the database must be filled: not where it holds just the archive already.

    Raises:
        Unusable: There is something else here, and no word that it may go.
    """
    held = catalog.filled(session, sorted(set(ours) - SEEDED))
    others = home.others()
    if held and not others and _is_the_same(session, archive):
        return False
    if (held or others) and not replace_books:
        here = [f"rows in {_some(held)}"] if held else []
        here += [f"{_some(others)} in the home"] if others else []
        raise Unusable(
            f"There are books here already: {' and '.join(here)}. Restore into an empty home and"
            f" database, or say {WORD} to put the backup in their place."
        )
    return True


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED_MAX])
    return shown if len(names) <= _NAMED_MAX else f"{shown} and {len(names) - _NAMED_MAX} more"


def _is_the_same(session: Session, archive: Archive) -> bool:
    """Say whether every table holds just the archive's rows, in the order they were put back."""
    here = {table.name: table for table in catalog.tables(session)}
    for kept in archive.manifest.tables:
        table = here.get(kept.name)
        if table is None or set(table.columns) != set(kept.columns):
            return False
        digest = hashlib.sha256()
        for row in catalog.rows_of(session, catalog.Table(kept.name, kept.columns)):
            digest.update(row)
        if digest.hexdigest() != kept.sha256:
            return False
    return True


# -- the database ---------------------------------------------------------------------------------


def _load(
    session: Session,
    archive: Archive,
    ours: Collection[str],
    progress: Callable[[int, int], None],
) -> None:
    manifest = archive.manifest
    present = {table.name for table in catalog.tables(session)}
    strangers = present - set(ours)
    _empty(session, present - strangers)
    _move_schema(session, command.downgrade, manifest.revision)
    # As sets: columns stand in another order where the schema came to its revision another way.
    tables = {t.name: set(t.columns) for t in catalog.tables(session) if t.name not in strangers}
    if {t.name: set(t.columns) for t in manifest.tables} != tables:
        raise Unusable(
            f"{archive.path} does not have the tables of revision {manifest.revision}: it was not"
            " made by this product."
        )
    _empty(session, tables)
    done = 0
    for kept in manifest.tables:
        pieces = _watched(archive.table(kept), partial(_add, progress, done, manifest.rows))
        rows = catalog.fill(session, catalog.Table(kept.name, kept.columns), pieces)
        if rows != kept.rows:
            raise Unusable(f"{archive.path}: {kept.name} came back with {rows} rows.")
        done += rows
    _set_sequences(session, manifest)
    for name in tables:
        execute(session, f"ALTER TABLE {catalog.listed([name])} ENABLE TRIGGER USER")
    _move_schema(session, command.upgrade, "head")
    execute(session, f"ANALYZE {catalog.listed(tables)}")


def _add(progress: Callable[[int, int], None], before: int, of: int, rows: int) -> None:
    progress(before + rows, of)


def _watched(pieces: Iterable[bytes], progress: Callable[[int], None]) -> Iterator[bytes]:
    """Pass COPY text on and say how many rows it was so far: a row is a line."""
    rows = 0
    for piece in pieces:
        yield piece
        rows += piece.count(b"\n")
        progress(rows)


def _empty(session: Session, tables: Iterable[str]) -> None:
    """Switch the tables' triggers off and take all rows out."""
    names = sorted(tables)
    for name in names:
        execute(session, f"ALTER TABLE {catalog.listed([name])} DISABLE TRIGGER USER")
    execute(session, f"TRUNCATE {catalog.listed(names)}")


def _set_sequences(session: Session, manifest: Manifest) -> None:
    """Let every sequence go on, well after the archive's last number; see LEAP.

    By ALTER, which a rollback undoes; setval() would stay.
    """
    here_too = catalog.sequence_owners(session)
    for kept in manifest.sequences:
        if kept.name not in here_too:
            continue
        minimum, maximum, step = execute(
            session,
            "SELECT min_value, max_value, increment_by FROM pg_sequences"
            " WHERE schemaname = current_schema() AND sequencename = :name",
            {"name": kept.name},
        ).one()
        # What was given out later in this very database is known.
        here = catalog.sequence(session, kept.name)
        after = max(each.last_value + (step if each.is_called else 0) for each in (kept, here))
        after += min(LEAP, (maximum - minimum) // LEAP_SHARE, (maximum - after) // 2)
        quoted = sql.Identifier(kept.name).as_string()
        execute(session, f"ALTER SEQUENCE {quoted} RESTART WITH {int(after)}")


def _move_schema(session: Session, move: Callable[[Config, str], None], revision: str) -> None:
    """Run the migrations between here and a revision in the session's transaction."""
    config = _config()
    config.attributes["connection"] = session.connection()
    move(config, revision)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "gateway:migrations")
    config.set_main_option("path_separator", "os")
    return config
