"""When a restore is refused, and what an interrupted one leaves."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from gateway import db, migrate, process
from gateway.backup import catalog, homefiles, restoring
from gateway.backup.format import Archive, Stream, Written, new_archive, open_archive
from gateway.backup.homefiles import HomeFiles
from gateway.backup.restoring import LEAP, home_alone
from gateway.backup.taking import take
from gateway.db import execute, snapshot, transaction
from gateway.embedded.home import Home, Lock
from gateway.errors import Unusable
from gateway.settings import settings
from gateway.supervisor import up
from tests.conftest import _forget
from tests.factories import (
    NOON,
    a_report,
    as_owner,
    broken_promises,
    record,
    rows_of,
    seal,
    some_invoices,
    the_books,
)
from tests.gateway.backup.conftest import OURS, a_manifest, restored, taken

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
    [aside] = done.asides
    assert aside == home / "replaced-20261118T120000Z"
    assert (aside / "keys/books.key").read_bytes() == key
    assert (aside / "books/heads.jsonl").read_bytes() == heads
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
    [aside] = done.asides
    assert (aside / "providers.toml").read_text() == "# ours\n"
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
    move = migrate.move

    def crash(connection: sa.Connection, revision: str) -> None:
        if len(made) == moves:
            raise KeyboardInterrupt
        made.append(revision)
        move(connection, revision)

    monkeypatch.setattr(migrate, "move", crash)
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
            self._staged(name).rename(home / name)
        raise KeyboardInterrupt

    monkeypatch.setattr(HomeFiles, "place", crash)
    with pytest.raises(KeyboardInterrupt):
        restored(file)
    monkeypatch.setattr(HomeFiles, "place", whole)
    assert the_books() == wanted
    done = restored(file)
    assert (done.loaded, done.asides) == (False, ())
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
    starting = pytest.raises(Unusable, match="this home, or a backup is being put back into it")
    with home_alone(settings()), starting:
        up(settings(), 0)


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


@pytest.fixture
def older(database: str, tmp_path: Path) -> Path:
    """A backup of the version before there were events."""
    with transaction() as session:
        migrate.move(session.connection(), "0003")
        execute(
            session,
            "INSERT INTO category (code, periodicity, needs_base) VALUES ('a', 'month', false)",
        )
        tables = {table.name for table in catalog.tables(session)}
    assert take(tmp_path / "older", settings(), ours=tables, now=NOON).manifest.revision == "0003"
    return tmp_path / "older"


def test_a_backup_of_an_older_version_is_brought_to_this_one(
    older: Path, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere()
    newest = rows_of(address(), "SELECT * FROM alembic_version")
    some_invoices(2)
    [(last,)] = rows_of(address(), "SELECT max(id) FROM event")

    def full(_self: HomeFiles) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(HomeFiles, "place", full)
        with pytest.raises(Unusable, match=r"database holds the backup, but.*No space left"):
            restored(older, replace_books=True)
    assert rows_of(address(), "SELECT * FROM alembic_version") == newest
    assert rows_of(address(), "SELECT code FROM category") == [("a",)]
    # The same again, without the word, in a home without books: what it left in the database is
    # known, though no row is as in the archive.
    for named in ("keys/books.key", "books/heads.jsonl"):
        (settings().home / named).unlink(missing_ok=True)
    assert not restored(older).loaded
    as_owner(address(), "UPDATE category SET needs_base = true")
    with pytest.raises(Unusable, match=r"rows in category"):
        restored(older)
    as_owner(address(), "UPDATE category SET needs_base = false")
    assert broken_promises(deliveries=True) == []
    # Who has read the feed so far would miss what is given a number that he has passed.
    some_invoices(1)
    [(first,)] = rows_of(address(), "SELECT min(id) FROM event")
    assert first >= last + LEAP
    # And what came later is not taken for what was left.
    with pytest.raises(Unusable, match=r"rows in category, contributor"):
        restored(older)
    db.disconnect()


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A folder on another filesystem than the home's."""
    places = ["/dev/shm", tempfile.gettempdir()]  # noqa: S108
    ours = tmp_path.stat().st_dev
    folder = Path(tempfile.mkdtemp(dir=next(p for p in places if Path(p).stat().st_dev != ours)))
    yield folder
    shutil.rmtree(folder)


def test_folders_of_the_home_may_be_links_and_other_filesystems(
    file: Path, elsewhere: Elsewhere, tmp_path: Path, volume: Path
) -> None:
    wanted = the_books()
    home = elsewhere()
    home.mkdir()
    assert volume.stat().st_dev != home.stat().st_dev
    near = tmp_path / "near"
    near.mkdir()
    (home / "keys").symlink_to(volume)
    (home / "books").symlink_to(near)
    (volume / "books.key").write_bytes(bytes(32))
    (volume / "lost+found").mkdir()
    (near / "heads.jsonl").write_text("theirs\n")
    done = restored(file, replace_books=True)
    stamp = "replaced-20261118T120000Z"
    assert set(done.asides) == {home / stamp, home / "keys" / stamp}
    assert (volume / stamp / "books.key").read_bytes() == bytes(32)
    assert (home / stamp / "books/heads.jsonl").read_text() == "theirs\n"
    assert (volume / "lost+found").is_dir()
    assert (home / "keys").readlink() == volume
    assert (home / "books").readlink() == near
    assert {each.name for each in near.iterdir()} == {"heads.jsonl"}
    assert the_books() == wanted
    assert broken_promises() == []
    # What was put aside, or left by a restore that was killed, is no concern of what follows.
    (volume / ".restoring").mkdir()
    (volume / ".restoring/books.key").write_bytes(bytes(32))
    next_one = {each.name for each in taken(tmp_path / "next").manifest.files}
    assert not restored(file).loaded
    with open_archive(file) as archive:
        assert next_one == {each.name for each in archive.manifest.files}
    assert not (volume / ".restoring").exists()


def test_what_cannot_be_placed_is_known_before_the_database_is_touched(
    file: Path, elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = elsewhere()
    home.mkdir()
    before = state()
    (home / "keys").write_text("")
    with pytest.raises(Unusable, match=r"keys is not a folder"):
        restored(file)
    (home / "keys").unlink()
    # A place that nobody can write to, the superuser neither.
    (home / "keys").symlink_to("/proc/sys/kernel/random")
    with pytest.raises(Unusable, match=r"cannot be written .*; the database is as it was"):
        restored(file, replace_books=True)
    (home / "keys").unlink()
    # A key that is mounted as a single file, as the kernel tells it.
    told = tmp_path / "mountinfo"
    told.write_text(
        "".join(
            f"36 35 98:0 / {home}/{each} rw - ext4 /dev/x rw\n" for each in ("keys", r"keys/a\040b")
        )
    )
    with monkeypatch.context() as patch:
        patch.setattr(homefiles, "MOUNTS", told)
        with pytest.raises(Unusable, match=r"keys/a b is a mount of its own"):
            restored(file)
    assert state() == before
    # Something else than a file has the name of one.
    (home / "keys/books.key").mkdir(parents=True)
    (home / "keys/books.key/x").write_text("theirs")
    with pytest.raises(Unusable, match=r"keys/books\.key/x in the home"):
        restored(file)
    (home / "keys/books.key/x").unlink()
    assert state() == before
    [aside] = restored(file).asides
    assert (aside / "keys/books.key").is_dir()
    assert broken_promises() == []


@pytest.mark.parametrize(
    "names",
    [
        ["keys"],
        ["books"],
        ["run/up.json"],
        ["providers.toml/x"],
        ["keys/.restoring/x"],
        ["keys/a.lock"],
        ["books/replaced-1/x"],
        ["keys/a", "keys/a/b"],
    ],
)
def test_a_file_that_a_home_has_no_place_for_is_refused(tmp_path: Path, names: list[str]) -> None:
    streams = tuple(Stream(name=name, size=0, sha256="", parts=()) for name in names)
    manifest = a_manifest(files=streams)
    with (tmp_path / "file").open("w+b") as nothing:
        archive = Archive(tmp_path / "file", manifest, Written(0, ""), nothing, {})
        with pytest.raises(Unusable, match=r"which is no file of a home"):
            HomeFiles(tmp_path, archive)


def test_sequences_that_are_not_the_schemas_are_refused(
    file: Path, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    elsewhere()
    before = state()
    with open_archive(file) as archive:
        [number] = [s for s in archive.manifest.sequences if s.name == "invoice_number"]
        others = tuple(s for s in archive.manifest.sequences if s != number)
    for said, wrong in {
        r"sequences of revision \d+ \(invoice_number\)": others,
        r"sequences of revision \d+ \(theirs\)": (
            *others,
            number,
            number.model_copy(update={"name": "theirs"}),
        ),
        r"stands at -1, and it goes from 0 to 8999999999": (
            *others,
            number.model_copy(update={"last_value": -1}),
        ),
        r"stands at 1180591620717411303424": (
            *others,
            number.model_copy(update={"last_value": 2**70}),
        ),
    }.items():
        with pytest.raises(Unusable, match=said):
            restored(forged(file, tmp_path / "forged", sequences=wrong))
        (tmp_path / "forged").unlink()
    assert state() == before
    # The last number of all is given out, and is not given again.
    last = number.model_copy(update={"last_value": 8_999_999_999})
    restored(forged(file, tmp_path / "forged", sequences=(*others, last)))
    with pytest.raises(sa.exc.DBAPIError, match="reached maximum value"), transaction() as session:
        execute(session, "SELECT nextval('invoice_number')")


def test_an_archive_of_no_tables_is_not_what_any_database_holds(
    file: Path, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    elsewhere()
    some_invoices(1)
    with pytest.raises(Unusable, match=r"rows in category"):
        restored(forged(file, tmp_path / "forged", tables=(), files=()))


def forged(file: Path, path: Path, **said: object) -> Path:
    """Write an archive like another, whose manifest says something else."""
    with open_archive(file) as archive, new_archive(path, now=NOON) as writer:
        manifest = archive.manifest
        forgery = manifest.model_copy(update=said)
        for table in forgery.tables:
            writer.table(table.name, table.columns, archive.table(table))
        for each in forgery.files:
            writer.file(each.name, archive.file(each))
        writer.finish(forgery)
    return path
