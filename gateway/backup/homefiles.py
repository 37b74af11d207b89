"""What of the home is kept: keys, the signed heads, the providers file. And how it is put back.

Left out: the embedded services' own files, `run/` and `log/`, which are of one machine; and locks
and drafts, which are nobody's content.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Final

from gateway.backup.format import PIECE_BYTES, Archive
from gateway.errors import Unusable
from gateway.seals import SignedHead, UnreadableHead, read_head
from gateway.secretfiles import sync_folder
from gateway.settings import Settings

KEYS: Final = "keys"
BOOKS: Final = "books"
PROVIDERS: Final = "providers.toml"
_KEPT: Final = (KEYS, BOOKS, PROVIDERS)
_STAGE: Final = ".restoring"
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
            if path.is_file() and not _is_passing(path):
                try:
                    found[path.relative_to(folder).as_posix()] = path.read_bytes()
                except FileNotFoundError:
                    continue
    except OSError as error:
        raise Unusable(f"The keys folder {folder} cannot be read: {error.strerror}.") from None
    return found


def _is_passing(path: Path) -> bool:
    return path.name.startswith(".") or path.suffix == ".lock"


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
    """The kept files of a home, about to be replaced by those of an archive."""

    def __init__(self, home: Path, archive: Archive) -> None:
        self._home = home
        self._archive = archive
        self._stage = home / _STAGE
        self._wanted = {stream.name: stream.sha256 for stream in archive.manifest.files}
        for name in self._wanted:
            if PurePosixPath(name).parts[0] not in _KEPT:
                raise Unusable(f"{archive.path} holds {name}, which is no file of a home.")

    def others(self) -> list[str]:
        """Return the keys and heads in the home that are not the archive's own."""
        found: list[str] = []
        for folder in (KEYS, BOOKS):
            for path in sorted((self._home / folder).rglob("*")):
                name = path.relative_to(self._home).as_posix()
                if path.is_file() and not _is_passing(path) and not self._is_wanted(path, name):
                    found.append(name)
        return found

    def stage(self) -> None:
        """Write the archive's files beside their places, on the disk, for their owner only.

        Raises what the system raises, and Unusable as Archive.file.
        """
        shutil.rmtree(self._stage, ignore_errors=True)
        self._stage.mkdir(mode=0o700)
        for stream in self._archive.manifest.files:
            path = self._stage / stream.name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.writelines(self._archive.file(stream))
                file.flush()
                os.fsync(file.fileno())
        sync_folder(self._stage)

    def unstage(self) -> None:
        """Remove what was staged."""
        shutil.rmtree(self._stage, ignore_errors=True)

    def place(self, *, now: datetime) -> Path | None:
        """Move what was staged to its places; return where what stood there was put aside.

        Nothing is deleted. A crash in between leaves files of the archive and of before; the same
        restore again brings it to its end.
        """
        aside = self._put_aside(now)
        for name in self._wanted:
            target = self._home / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._stage / name).replace(target)
            sync_folder(target.parent)
        self.unstage()
        sync_folder(self._home)
        return aside

    def _put_aside(self, now: datetime) -> Path | None:
        moving = {PurePosixPath(name).parts[0] for name in self.others()}
        providers = self._home / PROVIDERS
        if (
            PROVIDERS in self._wanted
            and providers.exists()
            and not self._is_wanted(providers, PROVIDERS)
        ):
            moving.add(PROVIDERS)
        if not moving:
            return None
        stamp = f"replaced-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
        aside, number = self._home / stamp, 1
        while aside.exists():
            number += 1
            aside = self._home / f"{stamp}-{number}"
        aside.mkdir(mode=0o700)
        for name in sorted(moving):
            (self._home / name).rename(aside / name)
        sync_folder(aside)
        sync_folder(self._home)
        return aside

    def _is_wanted(self, path: Path, name: str) -> bool:
        wanted = self._wanted.get(name)
        if wanted is None:
            return False
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
        return digest.hexdigest() == wanted
