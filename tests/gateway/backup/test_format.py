"""The archive as a file: whole or refused, whatever happened to it."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backup import format as archives
from gateway.backup.format import Manifest, Stream, TableStream, new_archive, open_archive
from gateway.errors import Unusable
from tests.factories import NOON

KEY = bytes(range(32))
ROWS = [f"{n}\tname {n}\n".encode() for n in range(300)]


def an_archive(path: Path, rows: list[bytes], key: bytes = KEY) -> str:
    with new_archive(path, now=NOON) as writer:
        table = writer.table("payment", ("id", "name"), rows)
        file = writer.file("keys/books.key", [key])
        written = writer.finish(a_manifest(tables=(table,), files=(file,)))
    return written.sha256


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


def read(path: Path) -> tuple[bytes, bytes]:
    with open_archive(path) as archive:
        (table,), (file,) = archive.manifest.tables, archive.manifest.files
        return b"".join(archive.table(table)), b"".join(archive.file(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "whole"
    an_archive(path, ROWS)
    return path


@settings(max_examples=30)
@given(rows=st.lists(st.binary(max_size=90)), key=st.binary(max_size=90), part=st.integers(1, 99))
def test_what_went_in_comes_out(
    tmp_path_factory: pytest.TempPathFactory, rows: list[bytes], key: bytes, part: int
) -> None:
    path = tmp_path_factory.mktemp("archive") / "file"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archives, "PART_BYTES", part)
        digest = an_archive(path, rows, key)
    assert read(path) == (b"".join(rows), key)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, float, int]:
    kind = draw(st.sampled_from(["flip", "cut", "add", "drop", "double"]))
    return kind, draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(0, 7))


@settings(max_examples=300)
@given(damages())
def test_any_damage_anywhere_is_noticed(whole: Path, damage: tuple[str, float, int]) -> None:
    kind, where, bit = damage
    content = bytearray(whole.read_bytes())
    at = int(where * len(content))
    match kind:
        case "flip":
            content[at] ^= 1 << bit
        case "cut":
            del content[at:]
        case "add":
            content += bytes([bit])
        case "drop":
            del content[at]
        case "double":
            content[at:at] = content
    damaged = whole.with_name("damaged")
    damaged.write_bytes(content)
    with pytest.raises(Unusable, match="not a whole backup"), open_archive(damaged):
        pass


def test_a_file_that_changes_after_it_was_found_whole_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    an_archive(path, ROWS)
    with open_archive(path) as archive:
        (table,) = archive.manifest.tables
        content = path.read_bytes()
        at = content.index(b"\x1f\x8b") + 40
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([content[at] ^ 1]))
        with pytest.raises(Unusable, match="not a whole backup"):
            list(archive.table(table))


def test_only_the_archive_that_is_asked_for_is_taken(tmp_path: Path, whole: Path) -> None:
    digest = an_archive(tmp_path / "other", ROWS[:5])
    with open_archive(tmp_path / "other", sha256=digest.upper()):
        pass
    asked = pytest.raises(Unusable, match=r"not the archive that is asked for")
    with asked, open_archive(whole, sha256=digest):
        pass


def test_an_archive_is_private_and_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    an_archive(path, ROWS)
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    with pytest.raises(Unusable, match="there already"):
        an_archive(path, [])
    (tmp_path / "next.part").touch()
    with pytest.raises(Unusable, match=r"next\.part is there"):
        an_archive(tmp_path / "next", [])
    with pytest.raises(Unusable, match="No such file"):
        an_archive(tmp_path / "no" / "place", [])
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "next.part"]


def test_a_backup_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def rows() -> Iterator[bytes]:
        yield ROWS[0]
        raise OSError(28, os.strerror(28))

    with (
        pytest.raises(Unusable, match="No space left"),
        new_archive(tmp_path / "file", now=NOON) as writer,
    ):
        writer.table("payment", ("id",), rows())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "keys/../../x", "", "keys//x", "a\x00b"])
def test_no_name_leads_out_of_the_home(name: str) -> None:
    with pytest.raises(ValueError, match=r"leads elsewhere|at least 1"):
        Stream(name=name, size=0, sha256="", parts=())


def test_an_archive_of_a_later_format_says_so(tmp_path: Path) -> None:
    with new_archive(tmp_path / "file", now=NOON) as writer:
        writer.finish(a_manifest().model_copy(update={"format": 2}))
    with pytest.raises(Unusable, match="format 2"), open_archive(tmp_path / "file"):
        pass


def test_other_programs_can_take_it_apart(whole: Path) -> None:
    parts = subprocess.run(
        ["tar", "-xOf", whole, "state/tables/payment"], capture_output=True, check=True
    )
    rows = subprocess.run(["zcat"], input=parts.stdout, capture_output=True, check=True)
    assert rows.stdout == b"".join(ROWS)
