"""Take a backup, beside a running Wasl: one instant of the database, and the home that fits it.

What is read when, and why it fits together:

1. The heads file is measured before the snapshot. What is sealed by then was committed before, so
   an honest snapshot holds it; and where the database has lost batches that the file knows of, the
   archive keeps the evidence. What is posted later is beyond the measured end and is left out.
   Batches of the snapshot that the file lacked are added from the snapshot, as sealing would.
2. Then the snapshot is fixed. All tables are read from it, however long that takes.
3. Keys are read after the snapshot. A key lies on the disk before a row that it signed or sealed
   is committed, so every row of the snapshot finds its key. One that came later does no harm.
4. Sequences are read after the snapshot, since they are in none: each stands at least where the
   rows of the snapshot need it, so no number is given twice.
5. The providers file is read last; nothing in the database depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from sqlmodel import Session

from gateway.backup import catalog
from gateway.backup.format import FORMAT, Manifest, Stream, TableStream, Writer, new_archive
from gateway.backup.homefiles import (
    BOOKS,
    PROVIDERS,
    HeadsSoFar,
    heads_so_far,
    read_keys,
    read_providers,
)
from gateway.books import ledger
from gateway.books.seals import BooksKey, as_signed_head, books_key, has_books_key
from gateway.db import execute, snapshot
from gateway.errors import Unusable
from gateway.settings import Settings

HEADS: Final = f"{BOOKS}/heads.jsonl"
_PROGRESS_ROWS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Taken:
    """A backup that is on the disk."""

    file: Path
    size: int
    sha256: str
    """Of the whole file, as `sha256sum` says it."""
    manifest: Manifest
    strangers: tuple[str, ...]
    """Tables of the schema that are not Wasl's, and so not in the archive."""
    foreign_keys: tuple[catalog.ForeignKey, ...]
    """Keys of such tables to ours: no restore into this database while they are there."""

    def as_json(self) -> dict[str, Any]:
        manifest = self.manifest
        return {
            "file": str(self.file),
            "bytes": self.size,
            "sha256": self.sha256,
            "tables": len(manifest.tables),
            "rows": manifest.rows,
            "batches": manifest.batches,
            "revision": manifest.revision,
        }


def take(
    path: Path,
    settings: Settings,
    *,
    ours: Collection[str],
    now: datetime,
    progress: Callable[[int], None] = lambda _: None,
) -> Taken:
    """Write the whole state to a new file. Opens its own transaction, which only reads.

    Args:
        path: The file; must not be there.
        settings: Which home, and which providers file.
        ours: The tables of this product. Another one in the schema is left out and named.
        now: By the business clock; stands in the archive.
        progress: Called with the rows written so far.

    Raises:
        Unusable: The file is there or cannot be written; a table is missing; or the books are
            signed by another key than this home's, so that a backup of both would be of no use.
    """
    sealed = heads_so_far(settings)
    with new_archive(path, now=now) as writer, snapshot() as session:
        catalog.speak_plainly(session)
        found = catalog.tables(session)
        if missing := sorted(set(ours) - {table.name for table in found}):
            raise Unusable(f"The database lacks the table {missing[0]}: run wasl verify.")
        tables = [table for table in found if table.name in ours]
        # No migration rewrites a table that is still to be read.
        execute(
            session,
            f"LOCK TABLE {catalog.listed(table.name for table in tables)} IN ACCESS SHARE MODE",
        )
        foreign_keys = tuple(catalog.foreign_keys(session, ours))
        keys = read_keys(settings)
        batches, key = _books(session, settings)
        files = [writer.file(name, [content]) for name, content in keys.items()]
        if sealed is not None:
            files.append(_heads(writer, session, sealed, key))
        if (providers := read_providers(settings)) is not None:
            files.append(writer.file(PROVIDERS, [providers]))
        manifest = Manifest(
            format=FORMAT,
            product=version("wasl"),
            revision=catalog.revision(session),
            mode=settings.mode,
            taken_at=now.isoformat(),
            batches=batches,
            sequences=tuple(catalog.sequences(session, ours).values()),
            tables=tuple(_tables(writer, session, tables, progress)),
            files=tuple(files),
        )
        written = writer.finish(manifest)
    strangers = tuple(sorted({table.name for table in found} - set(ours)))
    return Taken(path, written.size, written.sha256, manifest, strangers, foreign_keys)


def _books(session: Session, settings: Settings) -> tuple[int, BooksKey | None]:
    """Return how many batches the snapshot holds, and the key that signed the last."""
    last = execute(
        session,
        "SELECT id, total_count, total_minor, hash, key_id, signature FROM ledger_batch"
        " ORDER BY id DESC LIMIT 1",
    ).one_or_none()
    key = books_key(settings.keys_dir) if has_books_key(settings.keys_dir) else None
    if last is None:
        return 0, key
    if key is None or not key.vouches_for(as_signed_head(last._asdict())):
        raise Unusable(
            f"The key of these books is not in {settings.keys_dir}: run the backup with the"
            " WASL_HOME that has their books.key."
        )
    return int(last.id), key


def _heads(writer: Writer, session: Session, sealed: HeadsSoFar, key: BooksKey | None) -> Stream:
    fresh = ledger.heads_after(session, sealed.last) if sealed.last is not None else iter(())
    return writer.file(
        HEADS, sealed.pieces(each for each in fresh if key is not None and key.vouches_for(each))
    )


def _tables(
    writer: Writer,
    session: Session,
    tables: Iterable[catalog.Table],
    progress: Callable[[int], None],
) -> Iterator[TableStream]:
    done = 0

    def counted(rows: Iterable[bytes]) -> Iterator[bytes]:
        nonlocal done
        for row in rows:
            done += 1
            if done % _PROGRESS_ROWS == 0:
                progress(done)
            yield row

    for table in tables:
        yield writer.table(table.name, table.columns, counted(catalog.rows_of(session, table)))
    progress(done)
