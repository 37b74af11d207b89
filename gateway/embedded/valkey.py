"""The embedded Valkey. It only rings the bell: the database is the queue of record.

So it writes nothing to disk, and losing it loses nothing.
"""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import Final

from gateway.embedded.binaries import choose_valkey
from gateway.embedded.home import Home
from gateway.embedded.processes import (
    Process,
    free_port,
    service_environment,
    wait_until,
)
from gateway.errors import Unavailable
from gateway.secretfiles import write_privately

PING_SECONDS_MAX: Final = 2
STOP_SECONDS_MAX: Final = 10
MEMORY_MAX: Final = "256mb"


class Valkey:
    """One Valkey in a home. Start it, wait until it is ready, stop it, start it again."""

    name = "valkey"

    def __init__(self, home: Home, *, server: Path | None = None) -> None:
        """Prepare one; nothing runs yet.

        Args:
            home: A prepared home whose services we own.
            server: The program; by default the machine's own, else the wheel's.
        """
        self.port = free_port()
        self.log = home.log / "valkey.log"
        self._configuration = home.run / "valkey.conf"
        self._password = home.password("valkey")
        self._process = Process(
            self.name,
            [server or choose_valkey(), self._configuration],
            log=self.log,
            death_signal=signal.SIGTERM,
            environment=service_environment(),
            directory=home.run,
        )

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def start(self) -> None:
        """Start it on its port. `wait_ready` says when it answers."""
        # In a file, since anybody on the machine can read the arguments of a program.
        write_privately(
            self._configuration,
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self._password}\n"
            'daemonize no\nlogfile ""\nappendonly no\nsave ""\n'
            f"maxmemory {MEMORY_MAX}\nmaxmemory-policy noeviction\n",
        )
        self._process.start()

    def wait_ready(self, seconds: float) -> None:
        """Wait until it answers us.

        Raises:
            Unavailable: It ended, or does not answer in time.
        """
        answered = wait_until(lambda: not self._process.is_alive() or self._answers(), seconds)
        if not self._process.is_alive():
            raise Unavailable(f"Valkey ended while starting: see {self.log}.")
        if not answered:
            raise Unavailable(f"Valkey did not answer within {seconds:g} s: see {self.log}.")

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def ask_to_stop(self) -> None:
        self._process.ask_to_stop()

    def stop(self, seconds: float = STOP_SECONDS_MAX) -> None:
        """Stop it; what it holds is gone."""
        self._process.stop(seconds)

    def _answers(self) -> bool:
        # By hand: two commands of the protocol are shorter than the import of a client.
        try:
            with socket.create_connection(("127.0.0.1", self.port), PING_SECONDS_MAX) as link:
                link.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                with link.makefile("rb") as answer:
                    return [answer.readline(64), answer.readline(64)] == [b"+OK\r\n", b"+PONG\r\n"]
        except OSError:
            return False
