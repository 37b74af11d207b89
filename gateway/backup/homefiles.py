"""What of the home is kept: keys, the signed heads, the providers file. And how it is put back.

Left out: the embedded services' own files, `run/` and `log/`, which are of one machine; and locks,
drafts and what was put aside, which are nobody's content.

`keys/` and `books/` may be links or mounts, as in containers. They stay where they are: what comes
and what goes is moved inside of them, since no file moves from one filesystem to another at once.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath, PurePosixPath
from typing import Final

from gateway.backup.format import PIECE_BYTES, Archive
from gateway.books.seals import SignedHead, UnreadableHead, read_head
from gateway.errors import Unusable
from gateway.secretfiles import sync_folder
from gateway.settings import Settings

KEYS: Final = "keys"
BOOKS: Final = "books"
PROVIDERS: Final = "providers.toml"
_FOLDERS: Final = (KEYS, BOOKS)
MOUNTS: Final = Path("/proc/self/mountinfo")
"""Where the kernel tells: one of the same filesystem shows nowhere else."""

_STAGE: Final = ".restoring"
_ASIDE: Final = "replaced-"
_READINGS_MAX: Final = 20
_TAIL_BYTES: Final = 4096


# -- reading --------------------------------------------------------------------------------------


def read_keys(settings: Settings) -> dict[str, bytes]:
    """Return every file of the keys folder by its path in the home, as of one moment.

    Replacing a key touches several files. So the folder is read until two readings in a row are
    equal: between them it was just so, as no key ever comes back.

    Raises:
        Unusable: A file cannot be read, or the folder does not come to rest.
    """
    before = _read_folder(settings.keys_dir)
    for _ in range(_READINGS_MAX):
        now = _read_folder(settings.keys_dir)
        if now == before:
            return {f"{KEYS}/{name}": content for name, content in now.items()}
        before = now
    raise Unusable(f"The keys in {settings.keys_dir} change all the time: try again.")


def _read_folder(folder: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if path.is_file() and not _is_passing(name):
                try:
                    found[name.as_posix()] = path.read_bytes()
                except FileNotFoundError:
                    continue
    except OSError as error:
        raise Unusable(f"The keys folder {folder} cannot be read: {error.strerror}.") from None
    return found


def _is_passing(name: PurePath) -> bool:
    """Say whether a file of a folder, by its path in it, is a lock, a draft, or put aside."""
    return (
        any(part.startswith(".") for part in name.parts)
        or name.parts[0].startswith(_ASIDE)
        or name.suffix == ".lock"
    )


def read_providers(settings: Settings) -> bytes | None:
    """Return the providers file in use, wherever it lies; None where there is none yet.

    Raises:
        Unusable: It is named by WASL_PROVIDERS and cannot be read.
    """
    path = settings.providers_file
    try:
        return path.read_bytes()
    except OSError as error:
        if settings.providers is None and isinstance(error, FileNotFoundError):
            return None
        raise Unusable(f"The providers file {path} cannot be read: {error.strerror}.") from None


@dataclass(frozen=True, slots=True)
class HeadsSoFar:
    """The heads file as it was at one moment: its complete lines. It only ever grows."""

    path: Path
    size: int
    last: int | None
    """The batch of the last line; None where that line cannot be read."""

    def pieces(self, more: Iterable[SignedHead]) -> Iterator[bytes]:
        """Yield its bytes, then the heads that follow it."""
        with self.path.open("rb") as file:
            left = self.size
            while left and (piece := file.read(min(left, PIECE_BYTES))):
                left -= len(piece)
                yield piece
        at = self.last
        for signed in more:
            # As HeadsFile.append does: what does not follow is not appended.
            if at is None or signed.head.batch_id != at + 1:
                return
            at += 1
            yield signed.as_line()


def heads_so_far(settings: Settings) -> HeadsSoFar | None:
    """Return the heads file as it is now; None where there is none."""
    path = settings.heads_file
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - _TAIL_BYTES)
            file.seek(start)
            tail = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unusable(f"The heads file {path} cannot be read: {error.strerror}.") from None
    end = tail.rfind(b"\n") + 1
    if end == 0:
        return HeadsSoFar(path, 0, 0 if start == 0 else None)
    line = tail[:end].splitlines(keepends=True)[-1]
    try:
        return HeadsSoFar(path, start + end, read_head(line).head.batch_id)
    except UnreadableHead:
        return HeadsSoFar(path, start + end, None)


# -- putting back ---------------------------------------------------------------------------------


class HomeFiles:
    """The kept files of a home, about to be replaced by those of an archive.

    First `stage`, which finds out all that can go wrong; then `place`, which only renames.
    """

    def __init__(self, home: Path, archive: Archive) -> None:
        """Take note of what belongs where; touches nothing.

        Raises:
            Unusable: The archive holds a file that a home has no place for.
        """
        self._home = home
        self._archive = archive
        self._wanted = {stream.name: stream.sha256 for stream in archive.manifest.files}
        self._moves: dict[Path, Path] = {}
        for name in self._wanted:
            path = PurePosixPath(name)
            if not _has_a_place(path) or any(str(each) in self._wanted for each in path.parents):
                raise Unusable(f"{archive.path} holds {name}, which is no file of a home.")

    def others(self) -> list[str]:
        """Return the keys and heads in the home that are not the archive's own."""
        found: list[str] = []
        for each in _FOLDERS:
            folder = self._home / each
            for path in sorted(folder.rglob("*")):
                name = path.relative_to(self._home).as_posix()
                if (
                    path.is_file()
                    and not _is_passing(path.relative_to(folder))
                    and not self._is_wanted(path, name)
                ):
                    found.append(name)
        return found

    def stage(self, *, now: datetime) -> None:
        """Write the archive's files beside their places, on the disk, for their owner only.

        And find out what must be put aside, and whither. `now` names the folder.

        Raises what the system raises; Unusable as Archive.file, and where a place cannot take what
        belongs there.
        """
        self.unstage()
        (self._home / _STAGE).mkdir(mode=0o700)
        for each in _FOLDERS:
            folder = self._home / each
            if os.path.lexists(folder) and not folder.is_dir():
                raise Unusable(f"{folder} is not a folder, or a link to none: make it one.")
            if any(PurePosixPath(name).parts[0] == each for name in self._wanted):
                folder.mkdir(mode=0o700, exist_ok=True)
            if folder.is_dir():
                (folder / _STAGE).mkdir(mode=0o700)
        self._refuse_mounts()
        for stream in self._archive.manifest.files:
            path = self._staged(stream.name)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.writelines(self._archive.file(stream))
                file.flush()
                os.fsync(file.fileno())
            sync_folder(path.parent)
        self._moves = self._to_be_moved(now)

    def unstage(self) -> None:
        """Remove what was staged."""
        for folder in (self._home, *(self._home / each for each in _FOLDERS)):
            shutil.rmtree(folder / _STAGE, ignore_errors=True)

    def place(self) -> tuple[Path, ...]:
        """Move what was staged to its places; return where what was in the way was put aside.

        Nothing is deleted. A crash in between leaves files of the archive and of before; the same
        restore again brings it to its end.
        """
        for path, aside in self._moves.items():
            aside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.rename(aside)
        for path, aside in self._moves.items():
            for folder in {path.parent, aside.parent, aside.parent.parent}:
                sync_folder(folder)
        for name in self._wanted:
            target = self._home / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._staged(name).replace(target)
            sync_folder(target.parent)
        self.unstage()
        sync_folder(self._home)
        return tuple(dict.fromkeys(map(_aside_of, self._moves.values())))

    def _staged(self, name: str) -> Path:
        """Return where a file waits: on the filesystem that it goes to."""
        first, *rest = PurePosixPath(name).parts
        folder = self._home / first / _STAGE if rest else self._home / _STAGE
        return folder.joinpath(*(rest or [first]))

    def _to_be_moved(self, now: datetime) -> dict[Path, Path]:
        """Return what is in the way, and where to it moves: all files of a folder, or none.

        A folder inside moves only with what is in the way: a volume's `lost+found` is nobody's.
        """
        names = {*self.others(), *(name for name in self._wanted if not self._is_free(name))}
        in_the_way = {PurePosixPath(*PurePosixPath(name).parts[:2]) for name in names}
        homes = [self._home, *(self._home / each for each in _FOLDERS)]
        first = stamp = f"{_ASIDE}{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
        number = 1
        while any(os.path.lexists(home / stamp) for home in homes):
            number += 1
            stamp = f"{first}-{number}"
        moves: dict[Path, Path] = {}
        for each in sorted({name.parts[0] for name in in_the_way}):
            path = self._home / each
            if each == PROVIDERS:
                moves[path] = self._home / stamp / each
                continue
            aside = self._home / stamp / each if self._leads_home(path) else path / stamp
            for entry in sorted(path.iterdir()):
                if entry.name == _STAGE or entry.name.startswith(_ASIDE):
                    continue
                is_file = entry.is_symlink() or not entry.is_dir()
                if is_file or PurePosixPath(each, entry.name) in in_the_way:
                    moves[entry] = aside / entry.name
        return moves

    def _leads_home(self, folder: Path) -> bool:
        """Try whether a file can move from the home into a folder of it."""
        probe = self._home / _STAGE / ".probe"
        probe.touch(mode=0o600)
        try:
            probe.rename(folder / _STAGE / probe.name)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return False
        return True

    def _is_free(self, name: str) -> bool:
        """Say whether a file can be placed by replacing at most one that is its equal."""
        path = self._home / name
        if name == PROVIDERS:
            return not os.path.lexists(path) or (path.is_file() and self._is_wanted(path, name))
        between = [self._home / each for each in list(PurePosixPath(name).parents)[:-2]]
        if any(
            os.path.lexists(each) and (each.is_symlink() or not each.is_dir()) for each in between
        ):
            return False
        return not os.path.lexists(path) or path.is_file() or path.is_symlink()

    def _refuse_mounts(self) -> None:
        """Stop where a single file or a folder inside is a mount: it would not be moved."""
        inside = [(self._home / each).resolve() for each in _FOLDERS]
        wanted = [self._home.resolve() / PROVIDERS] if PROVIDERS in self._wanted else []
        for mount in _mounts():
            if mount in wanted or any(folder in mount.parents for folder in inside):
                raise Unusable(
                    f"{mount} is a mount of its own, which no restore can replace: mount the folder"
                    " that it is in, or unmount it."
                )

    def _is_wanted(self, path: Path, name: str) -> bool:
        wanted = self._wanted.get(name)
        if wanted is None:
            return False
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
        return digest.hexdigest() == wanted


def _has_a_place(name: PurePosixPath) -> bool:
    first, *rest = name.parts
    if not rest:
        return first == PROVIDERS
    return first in _FOLDERS and not _is_passing(PurePosixPath(*rest))


def _aside_of(path: Path) -> Path:
    """Return the folder of what is put aside that a path lies in."""
    return next(each for each in path.parents if each.name.startswith(_ASIDE))


def _mounts() -> list[Path]:
    """Return what is mounted, where the system tells."""
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    # The kernel writes blanks and the like as three octal digits.
    return [
        Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split(" ")[4]))
        for line in lines
    ]
