"""Which process of `wasl up` is what: for people, for tests, and for the next `wasl up`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.embedded.home import Home
from gateway.embedded.processes import Service, kill_group, started_ticks, wait_until
from gateway.secretfiles import write_privately


@dataclass
class State:
    """`run/up.json`: which process is what, for people, tests and the next `up`."""

    home: Home
    port: int | None = None
    processes: dict[str, int] = field(default_factory=dict)

    def write(self, services: Sequence[Service]) -> None:
        """Replace the file by what runs now."""
        pids = {service.name: service.pid for service in services if service.pid is not None}
        started = {name: ticks for name, pid in pids.items() if (ticks := started_ticks(pid))}
        said = {
            "pid": os.getpid(),
            "port": self.port,
            "base_url": local_url(self.port) if self.port else None,
            "pids": pids,
            # With the process id it names one process and no later one.
            "started": started,
        }
        write_privately(self._path, json.dumps(said, indent=2) + "\n")

    def former_owner(self) -> int | None:
        """Return the process that wrote the file, while it lives."""
        pid = self._read().get("pid")
        # One that was killed wrote it, where the present one has not come to write yet.
        return pid if isinstance(pid, int) and started_ticks(pid) else None

    def bury_former(self, seconds: float) -> None:
        """Wait so long for the programs of an `up` that was killed; end those that do not end.

        The kernel asked them to stop when it died. One that still runs holds the port.
        """
        said = self._read()
        former = {
            pid: ticks
            for name, pid in said.get("pids", {}).items()
            if (ticks := said.get("started", {}).get(name))
        }

        def remaining() -> list[int]:
            return [pid for pid, ticks in former.items() if started_ticks(pid) == ticks]

        if not wait_until(lambda: not remaining(), seconds):
            for pid in remaining():
                kill_group(pid)

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return self.home.run / "up.json"

    def _read(self) -> dict[str, Any]:
        try:
            said: dict[str, Any] = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return said


def local_url(port: int) -> str:
    """Return the address of a port of this machine."""
    return f"http://127.0.0.1:{port}"
