"""Journals: what a simulated party did, as JSON lines that survive a kill at any byte.

A line is in the file before the deed it announces. The last line may be cut, by a kill in the
middle of a write; a line without its line feed was never announced, so nothing was done about it.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

LOCK_SECONDS_MAX: Final = 20.0

Line = dict[str, Any]


class JournalInUse(RuntimeError):
    """Another live process writes this journal: two would send the same deliveries."""


class JournalDamaged(ValueError):
    """A line that is not the last cannot be read. The text names the file and the line."""


def read_journal(path: Path) -> list[Line]:
    """Return the whole lines of a journal, oldest first; a missing file has none.

    Raises:
        JournalDamaged: A whole line is not a JSON object.
    """
    if not path.exists():
        return []
    lines: list[Line] = []
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.endswith(b"\n"):
                break
            try:
                line = json.loads(raw)
            except ValueError:
                line = None
            if not isinstance(line, dict):
                raise JournalDamaged(f"{path.name}, line {number}, is not a JSON object")
            lines.append(line)
    return lines


class Journal:
    """A journal open for appending, by any number of threads of one process."""

    def __init__(self, path: Path) -> None:
        """Open or create the journal and drop a cut last line, to which the next would be glued.

        Raises:
            JournalInUse: Another process still holds it after LOCK_SECONDS_MAX.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._write = threading.Lock()
        self._sync = threading.Lock()
        self._written = 0
        self._synced = 0
        _lock(self._fd, path)
        _drop_cut_line(self._fd)

    def append(self, line: Line, *, durable: bool) -> None:
        """Write a line; with `durable`, return only when it would survive a power cut.

        Threads that wait for the disk together are served by one fsync: whoever gets to it first
        covers everything written by then.
        """
        raw = json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
        with self._write:
            while raw:
                raw = raw[os.write(self._fd, raw) :]
            self._written += 1
            mine = self._written
        if not durable:
            return
        with self._sync:
            if self._synced < mine:
                covered = self._written
                os.fsync(self._fd)
                self._synced = covered

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def replace_file(path: Path, content: str) -> None:
    """Write a file whole or not at all, so that a kill leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    with draft.open("w", encoding="utf-8", newline="") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _lock(fd: int, path: Path) -> None:
    # The previous holder may be dying with its parent, hence the patience.
    until = time.monotonic() + LOCK_SECONDS_MAX
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(fd)
                raise JournalInUse(f"{path.name} is written by another process") from None
            time.sleep(0.1)
        else:
            return


def _drop_cut_line(fd: int) -> None:
    end = os.fstat(fd).st_size
    tail = b""
    at = end
    while at > 0 and b"\n" not in tail:
        start = max(0, at - 65_536)
        tail = os.pread(fd, at - start, start) + tail
        at = start
    kept = at + tail.rfind(b"\n") + 1
    if kept != end:
        os.ftruncate(fd, kept)
