"""The archive as a file: whole or refused, whatever happened to it."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backup import format as archives
from gateway.backup.format import (
    MANIFEST,
    Part,
    Sequence,
    Stream,
    TableStream,
    new_archive,
    open_archive,
)
from gateway.errors import Unusable
from tests.factories import NOON
from tests.gateway.backup.conftest import a_manifest

KEY = bytes(range(32))
ROWS = [f"{n}\tname {n}\n".encode() for n in range(300)]


def an_archive(path: Path, rows: list[bytes], key: bytes = KEY) -> str:
    with new_archive(path, now=NOON) as writer:
        table = writer.table("payment", ("id", "name"), rows)
        file = writer.file("keys/books.key", [key])
        written = writer.finish(a_manifest(tables=(table,), files=(file,)))
    return written.sha256


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


@pytest.mark.parametrize("name", ["keys/" + "k" * 150, "keys/clé\u0301 = 1\n2"])
def test_a_file_may_be_called_anything(tmp_path: Path, name: str) -> None:
    with new_archive(tmp_path / "file", now=NOON) as writer:
        table = writer.table("payment", ("id",), ROWS)
        writer.finish(a_manifest(tables=(table,), files=(writer.file(name, [KEY]),)))
    assert read(tmp_path / "file") == (b"".join(ROWS), KEY)
    with tarfile.open(tmp_path / "file") as tar:
        assert f"state/home/{name}/000000.gz" in tar.getnames()


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, said: bytes = b"") -> bytes:
    """Return a tar header that says what no writer would; with content, if any is given."""
    info = tarfile.TarInfo(name)
    info.type = kind
    raw = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    raw[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)  # type: ignore[attr-defined]
    if kind == tarfile.GNUTYPE_SPARSE:
        raw[257:265] = b"ustar  \0"
        raw[386:410] = b"00000000000\0" * 2
        raw[483:495] = b"77777777777\0"
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw) + said + bytes(-len(said) % 512)


def pax(said: bytes) -> bytes:
    return header("record", len(said), tarfile.XHDTYPE, said)


@pytest.mark.parametrize(
    "odd",
    [
        header("a", -512),
        header("a", -(2**40)),
        header("a", 2**60),
        header("a", 10**6),
        header("a", kind=tarfile.GNUTYPE_SPARSE),
        header("a", kind=tarfile.SYMTYPE),
        header("a", -512, tarfile.GNUTYPE_LONGNAME),
        header("a", 4, tarfile.GNUTYPE_LONGNAME, b"long") * 2000,
        header("a", 11, tarfile.XGLTYPE, b"11 path=aa\n"),
        pax(b"11 path=aa\n") * 2000,
        pax(b"11 path=aa\n"),
        pax(b"17 size=99999999\n") + header("a"),
        pax(b"22 GNU.sparse.major=1\n19 GNU.sparse.minor=0\n") + header("a"),
        pax(b"9" * 6 + b" path=aa\n") + header("a"),
        header("a") * 2,
        header(MANIFEST),
    ],
)
def test_what_is_built_to_mislead_the_reader_is_refused(
    whole: Path, tmp_path: Path, odd: bytes
) -> None:
    """With a right checksum: a forger can write one."""
    content = whole.read_bytes()
    end = content.index(bytes(1024), content.rindex(b'"files"'))
    for at in (0, end + -end % 512):
        forged = content[:at] + odd + content[at : content.rindex(b"wasl backup, sha256")]
        digest = hashlib.sha256(forged).hexdigest().encode()
        path = tmp_path / "forged"
        path.write_bytes(forged + b"wasl backup, sha256 of all before this line: " + digest + b"\n")
        with pytest.raises(Unusable, match="not a whole backup"), open_archive(path):
            pass


def test_no_more_is_unpacked_than_is_said(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with new_archive(path, now=NOON) as writer:
        packed = gzip.compress(bytes(64 * archives.PIECE_BYTES))
        writer._member("state/home/keys/k/000000.gz", packed)
        part = Part(size=len(packed), sha256=hashlib.sha256(packed).hexdigest())
        said = Stream(name="keys/k", size=archives.PIECE_BYTES, sha256="", parts=(part,))
        writer.finish(a_manifest(files=(said,)))
    given: list[bytes] = []
    with open_archive(path) as archive, pytest.raises(Unusable, match="not a whole backup"):
        given.extend(archive.file(said))
    assert sum(map(len, given)) == said.size


def test_a_manifest_says_each_thing_once_and_no_impossible_size(tmp_path: Path) -> None:
    table = TableStream(name="a", size=0, sha256="", parts=(), columns=("id",), rows=0)
    part = Part(size=1, sha256="")
    number = Sequence(name="a", last_value=1, is_called=True)
    for wrong in (
        {"tables": (table, table)},
        {"sequences": (number, number)},
        {"files": (Stream(name="keys/a", size=0, sha256="", parts=()),) * 2},
        {"tables": (table.model_copy(update={"size": -1}),)},
        {
            "tables": (
                table.model_copy(update={"parts": (part.model_copy(update={"size": 2**40}),)}),
            )
        },
    ):
        path = tmp_path / "file"
        with new_archive(path, now=NOON) as writer:
            writer.finish(a_manifest().model_copy(update=wrong))
        with pytest.raises(Unusable, match="not a whole backup"), open_archive(path):
            pass
        path.unlink()
