"""The programs that a demo runs beside itself: the product, and how far the payers are."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gateway.demo.files import last_line
from gateway.embedded.processes import Process, free_port
from gateway.errors import Unavailable

POLL_SECONDS: Final = 0.1
UP_STARTS_MAX: Final = 10
UP_FIRST_STARTS_MAX: Final = 3
"""Where nothing has run yet, what fails will fail again."""

UP_READY_SECONDS_MAX: Final = 180
UP_STOP_SECONDS_MAX: Final = 60


class Up:
    """`wasl up`, on one port all the time, started again whenever it ends."""

    def __init__(self, logs: Path, environment: Mapping[str, str], *, continued: bool) -> None:
        """Choose a port. A continued demo is patient with the remains of the one before it.

        What the environment holds when it is started, now or later, is what it gets.
        """
        self.port = free_port()
        self._starts_max = UP_STARTS_MAX if continued else UP_FIRST_STARTS_MAX
        self._log = logs / "up.log"
        self._process = Process(
            "wasl up",
            [sys.executable, "-m", "gateway.cli", "up", "--port", str(self.port)],
            log=self._log,
            death_signal=signal.SIGTERM,
            environment=environment,
        )

    def keep(self) -> None:
        """Return when it runs and has said that it is ready.

        Raises:
            Unavailable: It ended several times in a row before it was ready.
        """
        if self._process.is_alive():
            return
        for start in range(self._starts_max):
            if start:
                time.sleep(min(2**start, 8))
            if self._log.exists():
                self._log.replace(self._log.with_name("up-before.log"))
            self._process.start()
            if self._ready():
                self._starts_max = UP_STARTS_MAX
                return
        raise Unavailable(f"wasl up does not come up: {last_line(self._log)}")

    def stop(self) -> None:
        self._process.stop(UP_STOP_SECONDS_MAX)

    def _ready(self) -> bool:
        until = time.monotonic() + UP_READY_SECONDS_MAX
        while self._process.is_alive():
            lines = self._log.read_bytes().split(b"\n")[:-1]
            if any(line.startswith(b"ready http://") for line in lines):
                return True
            if time.monotonic() > until:
                self.stop()
                return False
            time.sleep(POLL_SECONDS)
        return False


class Watched:
    """How far a payers' journal has got, reading only what is new."""

    def __init__(self, path: Path) -> None:
        self.cases = 0
        """How many there are."""
        self.done = 0
        """How many of them are over."""
        self.ended = False
        """Whether the last line is that of a program that came to its end."""
        self.answered = 0
        """How many answers were as they must be."""
        self._read = 0
        """How many bytes of it."""
        self._path = path

    def look(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                self.done += b'"last":true' in line
                self.answered += b'"as_expected":true' in line
                self.ended = line.startswith(b'{"line":"end"')
                if line.startswith(b'{"line":"start"'):
                    self.cases = json.loads(line)["cases"]
