"""Put a backup back: the database in one transaction, then the files of the home.

The order, and what a crash leaves:

1. The archive was read from end to end before anything here begins (gateway.backup.format).
2. `wasl up` is kept out by its own lock, and nobody else may be connected to the database.
3. One transaction empties the tables, takes the schema to the archive's revision, fills it, and
   brings it to the newest. Until its commit the database is as it was, sequences included.
4. Before that commit the files lie in the home beside their places, on the disk; after it they are
   moved there. A crash between leaves a database that holds just what the archive does: the same
   command again sees that, leaves the database alone and places the files. Where the archive is of
   an older revision, the migrations have changed its rows since: then the transaction leaves a
   comment that names the archive and the digest of the rows as they came to be.

Rules of the schema that judge changes (triggers) are switched off while rows come back, as they
would judge history as if it were made now; constraints and foreign keys stay in force, so tables
are filled in the order in which they point to each other. Both want only the owner of the tables.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from psycopg import sql
from sqlmodel import Session

from gateway import migrate
from gateway.backup import catalog
from gateway.backup.format import Archive, Manifest, Sequence
from gateway.backup.homefiles import PROVIDERS, HomeFiles
from gateway.db import execute, transaction
from gateway.embedded.home import Home, Lock
from gateway.errors import Unusable
from gateway.sending import RESTORED, hold
from gateway.settings import Settings

SEEDED: Final = frozenset({"ledger_account", "reference_key"})
"""Tables that the migrations themselves put rows into: rows there are no books yet."""
BESIDE: Final = frozenset({"sending_hold"})
"""What a restore itself writes into, and an operator afterwards: it is no part of the books."""

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
    asides: tuple[Path, ...]
    """The folders where the files of the home that were in the way lie now."""
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
            "put_aside": [str(each) for each in self.asides] or None,
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
    if manifest.revision not in migrate.revisions():
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
        Unusable: Somebody else uses the database or points to its tables, there are books here and
            no word, the home cannot take the files, or the archive's rows are refused by the
            schema. Nothing is changed then, unless the sentence says so.
    """
    home = HomeFiles(settings.home, archive)
    committed = False
    try:
        with transaction() as session:
            catalog.speak_plainly(session)
            _refuse_company(session)
            # Whoever comes now waits: what is seen here is what is replaced.
            execute(session, f"LOCK TABLE {catalog.listed(sorted(ours))} IN ACCESS EXCLUSIVE MODE")
            loaded = _must_load(session, archive, home, ours, replace_books=replace_books)
            if loaded:
                _refuse_foreign_keys(session, ours)
            home.stage(now=now)
            if loaded:
                _load(session, archive, ours, progress)
                # Here may be a rehearsal: nobody is told or paid again before a person says so.
                hold(session, because=RESTORED, who="wasl restore", now=now)
        committed = True
        asides = home.place()
    except OSError as error:
        where = f"{error.filename or settings.home}: {error.strerror}"
        raise Unusable(
            f"The database holds the backup, but the home is not complete ({where}): mend that, and"
            " give the same command again."
            if committed
            else f"The home {settings.home} cannot be written ({where}); the database is as it was."
        ) from None
    finally:
        home.unstage()
    brought = any(file.name == PROVIDERS for file in archive.manifest.files)
    return Restored(archive, loaded, asides, settings.providers if brought else None)


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


def _refuse_foreign_keys(session: Session, ours: Collection[str]) -> None:
    for key in catalog.foreign_keys(session, ours):
        raise Unusable(
            f"The table {key.table}, which is not Wasl's, has a foreign key to {key.target}: drop"
            " that key before the restore; its rows may point to nothing afterwards."
        )


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
    held = catalog.filled(session, sorted(set(ours) - SEEDED - BESIDE))
    others = home.others()
    if held and not others and _is_the_same(session, archive, ours):
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


def _is_the_same(session: Session, archive: Archive, ours: Collection[str]) -> bool:
    """Say whether every table holds just what this archive's restore left there.

    Rows are compared in the order in which they lie: nothing was written since then.
    """
    if archive.manifest.revision != migrate.newest():
        said = catalog.marked(session)
        # The digest takes as long as a backup: not for a comment that cannot be ours.
        return (
            said is not None
            and archive.written.sha256 in said
            and said == _mark(session, archive, ours)
        )
    if {kept.name for kept in archive.manifest.tables} != set(ours):
        return False
    here = {table.name: table for table in catalog.tables(session)}
    for kept in archive.manifest.tables:
        if kept.name in BESIDE:
            continue
        table = here.get(kept.name)
        if table is None or set(table.columns) != set(kept.columns):
            return False
        if catalog.digest(session, catalog.Table(kept.name, kept.columns)) != kept.sha256:
            return False
    return True


def _mark(session: Session, archive: Archive, ours: Collection[str]) -> str:
    """Return the comment for a database that holds this archive at a newer revision."""
    state = hashlib.sha256(catalog.revision(session).encode())
    for table in sorted(catalog.tables(session), key=lambda table: table.name):
        if table.name in ours and table.name not in BESIDE:
            said = f"\n{table.name} {','.join(table.columns)} {catalog.digest(session, table)}"
            state.update(said.encode())
    return f"wasl restore: archive {archive.written.sha256}, rows {state.hexdigest()}"


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
    # Before the schema moves: an older one may lack some of them, and they would begin anew.
    before = catalog.sequences(session, ours)
    _empty(session, present - strangers)
    migrate.move(session.connection(), manifest.revision)
    # Sorted: columns stand in another order where the schema came to its revision another way.
    tables = {t.name: sorted(t.columns) for t in catalog.tables(session) if t.name not in strangers}
    if {t.name: sorted(t.columns) for t in manifest.tables} != tables:
        raise Unusable(
            f"{archive.path} does not have the tables of revision {manifest.revision}: it was not"
            " made by this product."
        )
    _refuse_odd_sequences(session, archive, tables)
    _empty(session, tables)
    done = 0
    for kept in manifest.tables:
        pieces = _watched(archive.table(kept), partial(_add, progress, done, manifest.rows))
        rows = catalog.fill(session, catalog.Table(kept.name, kept.columns), pieces)
        if rows != kept.rows:
            raise Unusable(f"{archive.path}: {kept.name} came back with {rows} rows.")
        done += rows
    _let_go_on(session, catalog.sequences(session, tables), manifest.sequences, before)
    for name in tables:
        execute(session, f"ALTER TABLE {catalog.listed([name])} ENABLE TRIGGER USER")
    migrate.move(session.connection(), migrate.newest())
    # The backup's installation may have gone to this revision too before it was lost.
    named = {kept.name for kept in manifest.sequences}
    came = {n: here for n, here in catalog.sequences(session, ours).items() if n not in named}
    _let_go_on(session, came, (), before)
    # Of an older backup some are tables no more.
    stayed = [name for name in tables if name in ours]
    execute(session, f"ANALYZE {catalog.listed(stayed)}")
    older = manifest.revision != migrate.newest()
    catalog.mark(session, _mark(session, archive, ours) if older else None)


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


def _refuse_odd_sequences(session: Session, archive: Archive, tables: Collection[str]) -> None:
    """Stop where numbers would be given again: a sequence is not named, or stands nowhere."""
    named = {kept.name for kept in archive.manifest.sequences}
    here = set(catalog.sequences(session, tables))
    if odd := sorted(named ^ here):
        raise Unusable(
            f"{archive.path} does not have the sequences of revision {archive.manifest.revision}"
            f" ({odd[0]}): it was not made by this product."
        )
    for kept in archive.manifest.sequences:
        minimum, maximum, _ = _range(session, kept.name)
        if not minimum <= kept.last_value <= maximum:
            raise Unusable(
                f"{archive.path} says that the sequence {kept.name} stands at {kept.last_value},"
                f" and it goes from {minimum} to {maximum}: it was not made by this product."
            )


def _range(session: Session, name: str) -> tuple[int, int, int]:
    """Return the least and the greatest number of a sequence, and its step."""
    minimum, maximum, step = execute(
        session,
        "SELECT min_value, max_value, increment_by FROM pg_sequences"
        " WHERE schemaname = current_schema() AND sequencename = :name",
        {"name": name},
    ).one()
    return int(minimum), int(maximum), int(step)


def _let_go_on(
    session: Session,
    sequences: Mapping[str, Sequence],
    kept: Iterable[Sequence],
    before: Mapping[str, Sequence],
) -> None:
    """Let sequences go on well after the last number that is known of each; see LEAP.

    Known are where it stands, where the archive says, and where it stood before in this very
    database. By ALTER, which a rollback undoes; setval() would stay.
    """
    in_archive = {each.name: each for each in kept}
    for name, here in sequences.items():
        minimum, maximum, step = _range(session, name)
        after = max(
            each.last_value + (step if each.is_called else 0)
            for each in (here, in_archive.get(name, here), before.get(name, here))
        )
        quoted = sql.Identifier(name).as_string()
        if after > maximum:
            # Its last number is given: the ALTER makes it a new one, so this too is undone.
            execute(session, f"ALTER SEQUENCE {quoted} RESTART WITH {maximum}")
            execute(session, "SELECT nextval(CAST(:name AS regclass))", {"name": quoted})
            continue
        after += min(LEAP, (maximum - minimum) // LEAP_SHARE, (maximum - after) // 2)
        execute(session, f"ALTER SEQUENCE {quoted} RESTART WITH {after}")
