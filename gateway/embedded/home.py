"""The home: where things lie in it, who owns its services, and how to reach them.

Two locks make many commands share one home. `services.lock` is held exclusively by the command
that runs the services, for as long as they run. `users.lock` is held shared by every command that
uses services it does not own; the owner takes it exclusively before it stops them. Both are flocks:
the kernel lets go of them when a process dies, however it dies.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from gateway.embedded.processes import started_ticks
from gateway.errors import Unavailable
from gateway.secretfiles import write_privately


class Lock:
    """An flock on a file, which this process holds or not. Never waits."""

    _held: ClassVar[set[Lock]] = set()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def take(self, *, shared: bool = False) -> bool:
        """Take the lock unless somebody else holds it in a way that excludes us; say which."""
        assert self._descriptor is None, f"{self.path.name} is taken twice"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        Lock._held.add(self)
        return True

    @property
    def is_held(self) -> bool:
        return self._descriptor is not None

    def release(self) -> None:
        """Let go. Nothing happens where the lock is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        Lock._held.discard(self)

    @classmethod
    def forget_after_fork(cls) -> None:
        """Close the copies that a forked child has.

        An flock lasts until its last copy is closed: a pool's worker that outlives its killed
        parent would hold the home for ever.
        """
        for lock in list(cls._held):
            lock.release()


os.register_at_fork(after_in_child=Lock.forget_after_fork)


@dataclass(frozen=True)
class Announcement:
    """Where the services of a home are, and which process runs them."""

    owner: int
    owner_started: int
    """In clock ticks after boot: with the process id it names one process and no later one."""
    database_url: str | None
    redis_url: str | None


@dataclass(frozen=True)
class Home:
    """The paths of a home. `prepare` makes the directories; no other directory is touched."""

    path: Path

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def postgres(self) -> Path:
        return self.path / "postgres"

    @property
    def services_lock(self) -> Path:
        return self.run / "services.lock"

    @property
    def users_lock(self) -> Path:
        return self.run / "users.lock"

    @property
    def announcement(self) -> Path:
        return self.run / "services.json"

    def prepare(self) -> None:
        """Make the home and its directories where they are missing.

        What exists keeps its owner and permissions.

        Raises:
            Unavailable: The place does not let us.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for directory in (self.path, self.run, self.log):
                directory.mkdir(mode=0o700, exist_ok=True)
                if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
                    raise PermissionError(
                        errno.EACCES, "it belongs to somebody else", str(directory)
                    )
        except OSError as error:
            raise Unavailable(
                f"The home {self.path} cannot be used ({error.filename}: {error.strerror}):"
                " choose a WASL_HOME that you may write to."
            ) from None

    def password(self, service: str) -> str:
        """Return the password of an embedded service, made when first asked for."""
        path = self.run / f"{service}.password"
        try:
            kept = path.read_text().strip()
        except FileNotFoundError:
            kept = ""
        if not kept:
            kept = secrets.token_urlsafe(24)
            write_privately(path, kept + "\n")
        return kept

    def announce(self, *, database_url: str | None, redis_url: str | None) -> Announcement:
        """Tell other commands where the services are. Only their owner says so."""
        owner = os.getpid()
        started = started_ticks(owner)
        assert started is not None
        announcement = Announcement(owner, started, database_url, redis_url)
        write_privately(self.announcement, json.dumps(asdict(announcement)) + "\n")
        return announcement

    def announced(self) -> Announcement | None:
        """Return where the services are, or nothing if the one who said so is no more.

        To be read while somebody else holds `services.lock`. The lock alone is not enough: its new
        holder may not have removed what a killed one said.
        """
        try:
            said: dict[str, Any] = json.loads(self.announcement.read_text())
        except FileNotFoundError:
            return None
        except PermissionError:
            raise Unavailable(
                f"The services of {self.path} are run by another user: run as that user, or choose"
                " another WASL_HOME."
            ) from None
        announcement = Announcement(**said)
        if started_ticks(announcement.owner) != announcement.owner_started:
            return None
        return announcement

    def withdraw_announcement(self) -> None:
        self.announcement.unlink(missing_ok=True)
