"""The archive: a tar of small compressed parts, a manifest of them, and a digest over all of it.

Tables are kept as PostgreSQL's COPY text, which depends neither on the server's version nor on a
program beside it. A long stream is cut into parts that fit into memory, each a gzip file of its
own; `tar -xOf FILE state/tables/payment | zcat` gives the table back without Wasl.

The last bytes are a line with the SHA-256 of all bytes before it. So whatever was changed, cut off
or added is noticed before anything is read. A digest finds damage and not a forger: who can write
the file can also write the line. `wasl backup` therefore says the digest of the whole file, which
can be kept elsewhere, and the signatures inside are checked by `wasl verify`.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from gateway.errors import Unusable
from gateway.secretfiles import sync_folder

FORMAT: Final = 1
PART_BYTES: Final = 4 * 1024 * 1024
"""Of a stream, before compression: what is held in memory at a time."""

PACKED_BYTES_MAX: Final = 16 * PART_BYTES
"""Of a part in the archive: far above what is written, and little enough to be read whole."""

PIECE_BYTES: Final = 256 * 1024
LEVEL: Final = 3
"""Of gzip: three times as fast as the strongest, and a tenth larger."""

MANIFEST: Final = "manifest.json"
_TITLE: Final = "wasl-backup.txt"
_TITLE_TEXT: Final = (
    b"A backup of Wasl. It holds private keys and names: keep it as you keep those.\n"
    b"Put it back with: wasl restore FILE\n"
)
_MANIFEST_BYTES_MAX: Final = 256 * 1024 * 1024
_NAME_RECORD_BYTES_MAX: Final = 16 * 1024
_TRAILER: Final = b"wasl backup, sha256 of all before this line: "
_TRAILER_BYTES: Final = len(_TRAILER) + 64 + 1


def _inside(name: str) -> str:
    """Let no name lead out of the place it belongs to."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\x00" in name or str(path) != name:
        raise ValueError("it leads elsewhere")
    return name


Name = Annotated[str, Field(min_length=1), AfterValidator(_inside)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Part(_Entry):
    """A compressed piece of a stream: one member of the tar."""

    size: int = Field(gt=0, le=PACKED_BYTES_MAX)
    sha256: str


class Stream(_Entry):
    """A table's rows or a file's bytes. Size and digest are of what comes out again."""

    name: Name
    size: int = Field(ge=0)
    sha256: str
    parts: tuple[Part, ...] = Field(strict=False)


class TableStream(Stream):
    """A table as COPY text, with the columns in the order that it has them."""

    columns: tuple[str, ...] = Field(strict=False)
    rows: int = Field(ge=0)


class Sequence(_Entry):
    """Where a sequence stands."""

    name: str
    last_value: int
    is_called: bool


class Manifest(_Entry):
    """What the archive holds."""

    format: Literal[1]
    product: str
    revision: str
    mode: Literal["sandbox", "production"]
    taken_at: str
    """By the business clock."""
    batches: int = Field(ge=0)
    """Of the books, by the snapshot."""
    tables: tuple[TableStream, ...] = Field(strict=False)
    """In an order in which they can be filled: what is pointed to comes first."""
    sequences: tuple[Sequence, ...] = Field(strict=False)
    files: tuple[Stream, ...] = Field(strict=False)
    """Of the home, by their path in it."""

    @model_validator(mode="after")
    def _each_name_once(self) -> Self:
        for entries in (self.tables, self.sequences, self.files):
            if len({entry.name for entry in entries}) != len(entries):
                raise ValueError("a name stands there twice")
        return self

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)


@dataclass(frozen=True, slots=True)
class Written:
    """A finished archive: its size and the digest of the whole file."""

    size: int
    sha256: str


# -- writing --------------------------------------------------------------------------------------


class _Hashing:
    """Counts and digests what is written through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)


class Writer:
    """Writes an archive from its beginning to its end; never looks back."""

    def __init__(self, file: BinaryIO, *, now: datetime) -> None:
        self._out = _Hashing(file)
        self._at = int(now.timestamp())
        self._member(_TITLE, _TITLE_TEXT)

    def table(self, name: str, columns: tuple[str, ...], rows: Iterable[bytes]) -> TableStream:
        """Write a table, a line of COPY text to a row."""
        counted = 0

        def counting() -> Iterator[bytes]:
            nonlocal counted
            for row in rows:
                counted += 1
                yield row

        stream = self._stream(f"tables/{name}", counting())
        return TableStream(
            name=name,
            columns=columns,
            rows=counted,
            **stream.model_dump(exclude={"name"}),
        )

    def file(self, name: str, pieces: Iterable[bytes]) -> Stream:
        """Write a file of the home."""
        stream = self._stream(f"home/{name}", pieces)
        return stream.model_copy(update={"name": name})

    def finish(self, manifest: Manifest) -> Written:
        """Write the manifest and the digest, and say what came of it."""
        self._member(MANIFEST, manifest.model_dump_json(indent=1).encode())
        self._out.write(bytes(2 * tarfile.BLOCKSIZE))
        self._out.write(_TRAILER + self._out.digest.hexdigest().encode() + b"\n")
        return Written(self._out.size, self._out.digest.hexdigest())

    def _stream(self, folder: str, pieces: Iterable[bytes]) -> Stream:
        parts: list[Part] = []
        digest, size = hashlib.sha256(), 0
        held = bytearray()

        def put() -> None:
            nonlocal size
            content = bytes(held[:PART_BYTES])
            del held[:PART_BYTES]
            digest.update(content)
            size += len(content)
            packed = gzip.compress(content, LEVEL, mtime=0)
            self._member(_part_name(folder, len(parts)), packed)
            parts.append(Part(size=len(packed), sha256=hashlib.sha256(packed).hexdigest()))

        for piece in pieces:
            held += piece
            while len(held) >= PART_BYTES:
                put()
        if held:
            put()
        return Stream(name=folder, size=size, sha256=digest.hexdigest(), parts=tuple(parts))

    def _member(self, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(content), 0o600, self._at
        self._out.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        self._out.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))


def _part_name(folder: str, number: int) -> str:
    return f"state/{folder}/{number:06d}.gz"


@contextmanager
def new_archive(path: Path, *, now: datetime) -> Iterator[Writer]:
    """Write an archive that appears under its name only when it is whole and on the disk.

    Until then it is called FILE.part, readable by its owner only; it is removed where writing
    fails, and only a killed process leaves one.

    Raises:
        Unusable: FILE or FILE.part is there, or the place does not let us.
    """
    part = path.with_name(path.name + ".part")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Unusable(
            f"{part} is there: another backup is being written, or one was killed; remove the file"
            " in the latter case."
        ) from None
    except OSError as error:
        raise Unusable(f"{path} cannot be written: {error.strerror}.") from None
    try:
        with os.fdopen(handle, "wb") as file:
            # Looked for while the draft is ours, so that no other backup comes in between.
            if path.exists():
                raise Unusable(f"{path} is there already: a backup never replaces another file.")
            yield Writer(file, now=now)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise Unusable(f"{path} cannot be written: {error.strerror or error}.") from None
    finally:
        part.unlink(missing_ok=True)


# -- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Member:
    """Where a member's content lies in the file."""

    offset: int
    size: int


class Archive:
    """An archive that was found whole. Its parts are held against the manifest as they are read."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        written: Written,
        file: BinaryIO,
        members: dict[str, _Member],
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.written = written
        self._file = file
        self._members = members

    def table(self, stream: TableStream) -> Iterator[bytes]:
        """Yield a table's COPY text, in pieces that end anywhere.

        Raises:
            Unusable: It is not what the manifest says.
        """
        return self._read(f"tables/{stream.name}", stream)

    def file(self, stream: Stream) -> Iterator[bytes]:
        """Yield the content of a file of the home. Raises as `table`."""
        return self._read(f"home/{stream.name}", stream)

    def _read(self, folder: str, stream: Stream) -> Iterator[bytes]:
        digest, size = hashlib.sha256(), 0
        for number, part in enumerate(stream.parts):
            # Held against its digest before it is used: the file may have changed since it was
            # found whole.
            with _reading(self.path):
                packed = _content(self._file, self._members[_part_name(folder, number)])
            if hashlib.sha256(packed).hexdigest() != part.sha256:
                raise _not_whole(self.path)
            for piece in _unpacked(packed, self.path):
                digest.update(piece)
                size += len(piece)
                # A little that is packed well may unpack to more than any disk holds.
                if size > stream.size:
                    raise _not_whole(self.path)
                yield piece
        if (size, digest.hexdigest()) != (stream.size, stream.sha256):
            raise _not_whole(self.path)


@contextmanager
def open_archive(path: Path, *, sha256: str | None = None) -> Iterator[Archive]:
    """Find an archive whole, from the first byte to the last, and open it.

    Args:
        path: The file.
        sha256: The digest that the whole file must have, where somebody kept it.

    Raises:
        Unusable: It cannot be read, is not whole, is not the one, or is of a newer version.
    """
    with ExitStack() as opened, _reading(path):
        file = opened.enter_context(path.open("rb"))
        written = _digest(file, path)
        if sha256 is not None and written.sha256 != sha256.strip().lower():
            raise Unusable(
                f"{path} is not the archive that is asked for: its SHA-256 is {written.sha256}."
            )
        members = _members(file, path)
        archive = Archive(path, _manifest(file, members, path), written, file, members)
        kept_open = opened.pop_all()
    with kept_open:
        yield archive


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except tarfile.TarError:
        raise _not_whole(path) from None
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror or error}.") from None


def _digest(file: BinaryIO, path: Path) -> Written:
    """Read the whole file once and hold it against its last line."""
    size = file.seek(0, os.SEEK_END)
    left = size - _TRAILER_BYTES
    if left < 0:
        raise _not_whole(path)
    file.seek(0)
    digest = hashlib.sha256()
    while left:
        piece = file.read(min(left, PIECE_BYTES))
        if not piece:
            raise _not_whole(path)
        digest.update(piece)
        left -= len(piece)
    trailer = file.read()
    if trailer != _TRAILER + digest.hexdigest().encode() + b"\n":
        raise _not_whole(path)
    digest.update(trailer)
    return Written(size, digest.hexdigest())


def _members(file: BinaryIO, path: Path) -> dict[str, _Member]:
    """Return the members by name: plain files, one after the other, to the very end.

    Headers are taken one by one and nothing is accepted that is not written here. The standard
    library's reader believes a header: one that goes backwards it follows for ever, and a file
    with holes it makes as large as it is said to be.
    """
    end = file.seek(0, os.SEEK_END) - _TRAILER_BYTES
    found: dict[str, _Member] = {}
    at, long_name = 0, None
    while True:
        file.seek(at)
        block = file.read(tarfile.BLOCKSIZE)
        if not any(block):
            break
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        start = at + tarfile.BLOCKSIZE
        at = start + info.size + -info.size % tarfile.BLOCKSIZE
        if info.size < 0 or at > end:
            raise _not_whole(path)
        if info.type == tarfile.XHDTYPE and long_name is None:
            long_name = _long_name(file.read(min(info.size, _NAME_RECORD_BYTES_MAX)), path)
            continue
        name, long_name = long_name or info.name, None
        if info.type != tarfile.REGTYPE or name in found:
            raise _not_whole(path)
        found[name] = _Member(start, info.size)
    ending = 2 * tarfile.BLOCKSIZE
    file.seek(at)
    if long_name is not None or at + ending != end or any(file.read(ending)):
        raise _not_whole(path)
    return found


def _long_name(record: bytes, path: Path) -> str:
    """Return the name in a record that stands before a header which has no room for it."""
    said = re.fullmatch(rb"([1-9][0-9]{0,5}) path=([^\0]+)\n", record, re.DOTALL)
    if said is None or int(said[1]) != len(record):
        raise _not_whole(path)
    return said[2].decode("utf-8", "surrogateescape")


def _manifest(file: BinaryIO, members: dict[str, _Member], path: Path) -> Manifest:
    member = members.get(MANIFEST)
    if member is None or _TITLE not in members or member.size > _MANIFEST_BYTES_MAX:
        raise _not_whole(path)
    content = _content(file, member)
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("format",) and isinstance(first["input"], int):
            raise Unusable(
                f"{path} has format {first['input']}, which this version of Wasl does not know:"
                " restore it with the version that made it, or a newer one."
            ) from None
        raise _not_whole(path) from None
    expected = {
        _part_name(folder, number): part.size
        for folder, stream in (
            *((f"tables/{table.name}", table) for table in manifest.tables),
            *((f"home/{file.name}", file) for file in manifest.files),
        )
        for number, part in enumerate(stream.parts)
    }
    held = {name: each.size for name, each in members.items() if name not in (_TITLE, MANIFEST)}
    if held != expected:
        raise _not_whole(path)
    return manifest


def _content(file: BinaryIO, member: _Member) -> bytes:
    file.seek(member.offset)
    return file.read(member.size)


def _unpacked(packed: bytes, path: Path) -> Iterator[bytes]:
    """Yield what a part holds, piece by piece, however small it was packed."""
    unpacking = zlib.decompressobj(wbits=31)
    try:
        while not unpacking.eof:
            piece = unpacking.decompress(packed, PIECE_BYTES)
            packed = unpacking.unconsumed_tail
            if piece:
                yield piece
            elif not packed and not unpacking.eof:
                raise _not_whole(path)
    except zlib.error:
        raise _not_whole(path) from None
    if unpacking.unused_data:
        raise _not_whole(path)


def _not_whole(path: Path) -> Unusable:
    return Unusable(
        f"{path} is not a whole backup of Wasl: it was cut or changed, or is another kind of file."
    )
