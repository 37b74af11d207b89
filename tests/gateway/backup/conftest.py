from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from gateway import db
from gateway.backup.format import Manifest, Stream, TableStream, open_archive
from gateway.backup.restoring import Restored, home_alone, refuse_unfit, restore
from gateway.backup.taking import Taken, take
from gateway.cli.backups import our_tables
from gateway.services import Services
from gateway.settings import settings
from tests.conftest import TEMPLATE, _forget, address_of
from tests.factories import NOON

OURS = our_tables()


@pytest.fixture
def elsewhere(
    services: Services, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Path]]:
    """Go to an empty installation, for the rest of the test: another home, another database."""
    name = sql.Identifier(f"elsewhere_{os.getpid()}")
    with psycopg.connect(services.database_url, autocommit=True) as server:
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        server.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, sql.Identifier(TEMPLATE))
        )

        def go() -> Path:
            address = address_of(services, f"elsewhere_{os.getpid()}")
            home = tmp_path / "elsewhere"
            monkeypatch.setenv("WASL_HOME", str(home))
            monkeypatch.setenv("WASL_DATABASE_URL", address)
            _forget()
            db.connect(address)
            return home

        yield go
        db.disconnect()
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def taken(file: Path) -> Taken:
    """Take a backup of the installation that this process is in."""
    return take(file, settings(), ours=OURS, now=NOON)


def restored(file: Path, *, replace_books: bool = False) -> Restored:
    """Put a backup into the installation that this process is in, as the command does."""
    with open_archive(file) as archive:
        refuse_unfit(archive.manifest, settings())
        with home_alone(settings()):
            done = restore(archive, settings(), ours=OURS, replace_books=replace_books, now=NOON)
    _forget()
    return done


def a_manifest(
    tables: tuple[TableStream, ...] = (), files: tuple[Stream, ...] = (), **more: object
) -> Manifest:
    return Manifest.model_validate(
        {
            "format": 1,
            "product": "0",
            "revision": "0003",
            "mode": "sandbox",
            "taken_at": NOON.isoformat(),
            "batches": 0,
            "sequences": (),
            "tables": tables,
            "files": files,
        }
        | more
    )
