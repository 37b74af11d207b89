"""Driving the product as people do: `wasl` commands as child processes, beside a `wasl up`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from gateway import db
from gateway.demo import books
from gateway.demo.files import last_line
from gateway.demo.programs import POLL_SECONDS, Up
from gateway.errors import Unavailable, Unusable
from gateway.services import running_services
from gateway.settings import Settings

_T = TypeVar("_T")

COMMAND_TRIES_MAX: Final = 8
COMMAND_SECONDS_MAX: Final = 3600
STANDSTILL_SECONDS_MAX: Final = 180
"""How long there may be as much to do as before until we give up on the worker."""

# What is driven here invents people and money. It never does so in services that somebody else set
# up, nor with their secrets.
_NOT_INHERITED: Final = ("WASL_DATABASE_URL", "WASL_REDIS_URL", "WASL_PROVIDERS")


class Driver:
    """The product in a home of its own, and how its commands are run there."""

    def __init__(self, settings: Settings, home: Path, logs: Path) -> None:
        """Take the home and the folder where each command leaves a log."""
        self.home = home
        self.logs = logs
        self.settings = settings.model_copy(
            update={"home": home, "database_url": None, "redis_url": None, "providers": None}
        )
        self.environment = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
        self.environment["WASL_HOME"] = str(home)

    def use_providers(self, file: Path) -> None:
        """Have everything that is driven read this providers file, not the sandbox's own."""
        self.settings = self.settings.model_copy(update={"providers": file})
        self.environment["WASL_PROVIDERS"] = str(file)

    def log(self, name: str) -> Path:
        """Return where a command or a program of this name leaves its words."""
        return self.logs / f"{name}.log"

    def wasl(self, up: Up, *words: str, accepted: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """Run a `wasl` command and return its JSON answer. Raises as `command` does."""
        return self.command(
            up, ["-m", "gateway.cli", *words, "--json"], accepted=accepted, read=_json_object
        )

    def simulate(self, name: str, *words: str) -> None:
        """Run a simulator that needs no product beside it. Raises as `command` does."""
        self.command(None, ["-m", f"gateway.simulators.{name}", *words], read=nothing)

    def command(
        self,
        up: Up | None,
        words: list[str],
        *,
        read: Callable[[bytes], _T | None],
        accepted: tuple[int, ...] = (0,),
    ) -> _T:
        """Run a command to its end and return what `read` makes of its standard output.

        Tried again when it fails, since PostgreSQL may be down for a moment: everything that is
        run here changes nothing the second time. `up` is brought up before it and never beside
        it, lest a command that started the services itself then wait for `up` to let go of them.

        Raises:
            Unavailable: It failed COMMAND_TRIES_MAX times in a row; with its last words.
        """
        log = self.log(words[2] if words[1] == "gateway.cli" else words[1].rpartition(".")[2])
        for tries in range(COMMAND_TRIES_MAX):
            if tries:
                time.sleep(min(2**tries / 2, 5))
            if up is not None:
                up.keep()
            with tempfile.TemporaryFile() as output, log.open("ab") as errors:
                try:
                    code = subprocess.run(  # noqa: S603 - our own interpreter and modules
                        [sys.executable, *words],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=errors,
                        env=self.environment,
                        check=False,
                        timeout=COMMAND_SECONDS_MAX,
                    ).returncode
                except subprocess.TimeoutExpired:
                    continue
                output.seek(0)
                answer = read(output.read()) if code in accepted else None
            if answer is not None:
                return answer
        raise Unavailable(f"`{' '.join(words)}` does not succeed: {last_line(log)}")

    def read_books(self, read: Callable[[Session], _T]) -> _T | None:
        """Read the books in one transaction; None when they cannot be reached just now."""
        try:
            with running_services(self.settings) as services:
                db.connect(services.database_url)
                try:
                    with db.transaction() as session:
                        return read(session)
                finally:
                    db.disconnect()
        except (DBAPIError, Unavailable):
            return None

    def surely_read_books(self, up: Up, read: Callable[[Session], _T]) -> _T:
        """Read the books as `read_books` does, with patience.

        Raises:
            Unavailable: They cannot be reached for COMMAND_TRIES_MAX times in a row.
        """
        for _ in range(COMMAND_TRIES_MAX):
            up.keep()
            found = self.read_books(read)
            if found is not None:
                return found
            time.sleep(2)
        raise Unavailable(f"The books cannot be read: see {self.home / 'log'}.")

    def drain(self, up: Up, tick: Callable[[], None] = lambda: None) -> None:
        """Wait until the worker has done all that it has to do.

        Raises:
            Unavailable: Nothing has moved for STANDSTILL_SECONDS_MAX.
        """
        least: int | None = None
        since = time.monotonic()
        while True:
            up.keep()
            tick()
            left = self.read_books(books.undone)
            if left == {}:
                return
            count = None if left is None else sum(left.values())
            if count is not None and (least is None or count < least):
                least, since = count, time.monotonic()
            if time.monotonic() - since > STANDSTILL_SECONDS_MAX:
                what = "The books cannot be read"
                if left:
                    what = f"There are {', '.join(f'{n} {each}' for each, n in left.items())}"
                raise Unavailable(
                    f"{what}, and nothing has moved for {STANDSTILL_SECONDS_MAX} seconds: see"
                    f" {self.home / 'log'}."
                )
            time.sleep(POLL_SECONDS)

    def make_register(self, file: Path, *, contributors: int, seed: int, on: date) -> None:
        """Write a file of invented contributors, once."""
        if not file.exists():
            self.simulate(
                "register",
                *("--contributors", str(contributors)),
                *("--seed", str(seed)),
                *("--on", on.isoformat()),
                *("--out", str(file)),
            )

    def enrol(self, up: Up, contributors: Path) -> None:
        """Import a file of contributors.

        Raises:
            Unusable: A line of it was set aside.
        """
        done = self.wasl(up, "contributors", "import", str(contributors), accepted=(0, 1))
        if done["rejected"]:
            first = done["rejected"][0]
            raise Unusable(f"{contributors}, line {first['line']}: {first['reason']}")

    def issue(self, up: Up, on: date) -> int:
        """Issue the month and the quarter of a day; return how many invoices there are."""
        invoices = 0
        for period in (f"{on:%Y-%m}", f"{on.year}-Q{(on.month + 2) // 3}"):
            issued = self.wasl(up, "invoices", "issue", "--period", period)
            invoices += issued["issued"] + issued["already"]
        return invoices

    def write_notices(self, up: Up, notices: Path) -> None:
        """Write what is to be paid, once: it must not change when a part of it has been paid."""
        if notices.exists():
            return
        # The name bears our process id: a command whose parent was killed may still be writing.
        draft = notices.with_name(f"notices.{os.getpid()}.part")
        words = ["-m", "gateway.cli", "invoices", "notices", "--out", str(draft)]
        self.command(up, words, read=nothing)
        draft.replace(notices)


def _json_object(output: bytes) -> dict[str, Any] | None:
    """Return a command's answer; None if it printed none, as one that broke off."""
    try:
        answer = json.loads(output)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def nothing(_output: bytes) -> bool:
    """Read nothing of a command's output."""
    return True
