"""When a restore is refused, and what an interrupted one leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from sqlmodel import Session

from gateway import db, process
from gateway.backup import catalog, restoring
from gateway.backup.homefiles import HomeFiles
from gateway.backup.taking import take
from gateway.db import execute, snapshot, transaction
from gateway.embedded.home import Home, Lock
from gateway.errors import Unusable
from gateway.settings import settings
from tests.conftest import _forget
from tests.factories import (
    NOON,
    a_report,
    broken_promises,
    record,
    rows_of,
    seal,
    some_invoices,
    the_books,
)
from tests.gateway.backup.conftest import OURS, restored, taken

Elsewhere = Callable[[], Path]


@pytest.fixture
def file(database: str, tmp_path: Path) -> Path:
    """A backup of books with one payment."""
    [reference] = some_invoices(1)
    record(a_report(reference))
    seal()
    taken(tmp_path / "file")
    return tmp_path / "file"


def address() -> str:
    url = settings().database_url
    assert url is not None
    return url.get_secret_value()


def state() -> tuple[object, ...]:
    """Return what a refused restore must not change: rows, numbers, files."""
    with snapshot() as session:
        sequences = catalog.sequences(session, OURS)
    home = settings().home
    files = {
        path.relative_to(home): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and "run" not in path.parts
    }
    return the_books(), sequences, files, rows_of(address(), "SELECT * FROM alembic_version")


def test_books_that_are_here_are_named_and_stay(file: Path, elsewhere: Elsewhere) -> None:
    elsewhere()
    some_invoices(2)
    before = state()
    with pytest.raises(Unusable, match=r"rows in category, contributor.*--replace-books"):
        restored(file)
    assert state() == before


def test_keys_that_are_here_are_named_and_stay(file: Path, elsewhere: Elsewhere) -> None:
    home = elsewhere()
    process.signing_key()
    (home / "providers.toml").write_text("# ours\n")
    before = state()
    with pytest.raises(Unusable, match=r"keys/books\.key, books/heads\.jsonl in the home"):
        restored(file)
    assert state() == before


def test_with_the_word_books_are_replaced_and_their_keys_put_aside(
    file: Path, elsewhere: Elsewhere
) -> None:
    wanted = the_books()
    home = elsewhere()
    for reference in some_invoices(3):
        record(a_report(reference))
    seal()
    key, heads = (home / "keys/books.key").read_bytes(), (home / "books/heads.jsonl").read_bytes()
    done = restored(file, replace_books=True)
    assert done.aside == home / "replaced-20261118T120000Z"
    assert (done.aside / "keys/books.key").read_bytes() == key
    assert (done.aside / "books/heads.jsonl").read_bytes() == heads
    assert the_books() == wanted
    assert broken_promises() == []


def test_a_providers_file_that_is_here_is_put_aside(
    file: Path, elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "elsewhere.toml"
    theirs.write_text("# in use\n")
    monkeypatch.setenv("WASL_HOME", str(settings().home))
    monkeypatch.setenv("WASL_PROVIDERS", str(theirs))
    _forget()
    taken(tmp_path / "second")
    home = elsewhere()
    home.mkdir()
    (home / "providers.toml").write_text("# ours\n")
    done = restored(tmp_path / "second")
    assert (home / "providers.toml").read_text() == "# in use\n"
    assert done.aside is not None
    assert (done.aside / "providers.toml").read_text() == "# ours\n"
    assert done.unused_providers == theirs


@pytest.mark.parametrize("moves", [0, 1], ids=["emptied", "filled"])
def test_a_crash_before_the_commit_leaves_all_as_it_was(
    file: Path, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    elsewhere()
    for reference in some_invoices(2):
        record(a_report(reference))
    seal()
    before = state()

    made: list[str] = []
    move = restoring._move_schema

    def crash(session: Session, by: Callable[[Config, str], None], revision: str) -> None:
        if len(made) == moves:
            raise KeyboardInterrupt
        made.append(revision)
        move(session, by, revision)

    monkeypatch.setattr(restoring, "_move_schema", crash)
    with pytest.raises(KeyboardInterrupt):
        restored(file, replace_books=True)
    assert state() == before
    monkeypatch.undo()
    assert broken_promises() == []


@pytest.mark.parametrize("placed", [0, 1, 2])
def test_a_crash_between_database_and_home_is_mended_by_the_same_command(
    file: Path, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch, placed: int
) -> None:
    wanted = the_books()
    home = elsewhere()
    whole = HomeFiles.place

    def crash(self: HomeFiles, **_: object) -> None:
        for name in sorted(self._wanted)[:placed]:
            (home / name).parent.mkdir(exist_ok=True)
            (self._stage / name).rename(home / name)
        raise KeyboardInterrupt

    monkeypatch.setattr(HomeFiles, "place", crash)
    with pytest.raises(KeyboardInterrupt):
        restored(file)
    monkeypatch.setattr(HomeFiles, "place", whole)
    assert the_books() == wanted
    done = restored(file)
    assert (done.loaded, done.aside) == (False, None)
    assert the_books() == wanted
    assert broken_promises() == []


def test_nobody_else_may_be_connected(
    file: Path, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "ALONE_SECONDS_MAX", 0.2)
    elsewhere()
    before = state()
    refused = pytest.raises(Unusable, match=r"in use by others \(1 connection\)")
    with psycopg.connect(address()), refused:
        restored(file)
    assert state() == before
    restored(file)


def test_a_home_that_is_up_is_left_alone(file: Path, elsewhere: Elsewhere) -> None:
    home = Home(elsewhere())
    home.prepare()
    lock = Lock(home.run / "up.lock")
    assert lock.take()
    try:
        with pytest.raises(Unusable, match="Wasl is up on"):
            restored(file)
    finally:
        lock.release()


def test_invented_and_real_money_are_not_mixed(
    file: Path, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere()
    monkeypatch.setenv("WASL_MODE", "production")
    _forget()
    with pytest.raises(Unusable, match="of sandbox and this is production"):
        restored(file)


def test_a_backup_of_a_newer_version_is_refused(
    file: Path, elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "revision", lambda _: "9999")
    taken(tmp_path / "newer")
    elsewhere()
    with pytest.raises(Unusable, match="revision 9999"):
        restored(tmp_path / "newer")


def test_a_backup_of_an_older_version_is_brought_to_this_one(
    database: str, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    with transaction() as session:
        restoring._move_schema(session, command.downgrade, "0003")
        execute(
            session,
            "INSERT INTO category (code, periodicity, needs_base) VALUES ('a', 'month', false)",
        )
        older = {table.name for table in catalog.tables(session)}
    done = take(tmp_path / "file", settings(), ours=older, now=NOON)
    assert done.manifest.revision == "0003"
    elsewhere()
    newest = rows_of(address(), "SELECT * FROM alembic_version")
    restored(tmp_path / "file")
    assert rows_of(address(), "SELECT * FROM alembic_version") == newest
    assert rows_of(address(), "SELECT code FROM category") == [("a",)]
    assert broken_promises(deliveries=True) == []
    db.disconnect()
