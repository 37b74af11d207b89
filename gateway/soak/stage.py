"""The soak: payments by every simulator while deliveries go wrong and programs are killed.

As the demo it drives the product from outside; only the judge looks inside. What it did lies in
`soak/` of its home.
"""

from __future__ import annotations

import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console

from gateway.clock import day_of
from gateway.demo.crowd import Part, playing
from gateway.demo.driving import Driver
from gateway.demo.parts import part_of
from gateway.demo.programs import Up
from gateway.demo.steps import Steps, claimed, own_home
from gateway.embedded.processes import Process, wait_until
from gateway.errors import Unavailable, Unusable
from gateway.settings import Settings
from gateway.simulators.journal import Line, read_journal
from gateway.simulators.pages import page_tally
from gateway.simulators.tally import Answered, answered, answered_at_page, struck, tally
from gateway.soak import kills
from gateway.soak.files import Files
from gateway.soak.giving_back import Giver, read_given_back
from gateway.soak.judge import Told, as_json, differences, read_held
from gateway.soak.providers import all_stand_ins, make_providers, read_entries
from gateway.soak.result import SoakResult

SHARES: Final = {
    "--double": "0.10",
    "--reorder": "0.10",
    "--lose": "0.05",
    "--wrong-amount": "0.02",
    "--late": "0.05",
    "--tamper": "0.005",
    "--wrong-currency": "0.002",
}
"""Of the payments, what goes wrong with them."""

SPARED: Final = {"mobile-money": ("reorder", "late")}
"""What cannot go wrong: nothing is said before a payment, and each is told of at once."""

THREADS: Final = {"cmi": 12, "mobile-money": 12, "bill-hub": 8}
"""Of those whose payers wait for an answer that is decided, and so wait longer than others'."""
THREADS_ELSEWHERE: Final = 4

PROGRAM_KILLS: Final = 8
"""Of server and worker, where nothing else was asked for."""
LISTENING_SECONDS_MAX: Final = 30.0
STOP_SECONDS_MAX: Final = 10.0


def soak(
    settings: Settings,
    *,
    payments: int,
    seed: int,
    kill_count: int | None,
    home: Path | None,
    progress: Console,
) -> SoakResult:
    """Soak the product in a home of its own and say whether everything is as it must be.

    Args:
        settings: Of the sandbox; services, providers and home are the soak's own.
        payments: How many are made, one to a contributor.
        seed: Of who pays how, of what goes wrong, and of what is killed when.
        kill_count: Kills of server, worker, PostgreSQL and Redis; None: PROGRAM_KILLS, of server
            and worker alone.
        home: Empty, or not there; it is kept. None: a temporary folder, removed at the end.
        progress: Where progress is shown.

    To be called from the main thread: the kernel ends the children with the thread that started
    them.

    Raises:
        Unusable: Production, or the home is in use.
        Unavailable: The product cannot be started, or does not get on with its work.
    """
    if settings.mode == "production":
        raise Unusable("wasl soak invents payments: it runs in the sandbox only.")
    planned = kills.plan_kills(
        seed=seed,
        count=PROGRAM_KILLS if kill_count is None else kill_count,
        payments=payments,
        targets=kills.PROGRAMS if kill_count is None else kills.ALL,
    )
    began = time.monotonic()
    with own_home(home, "soak") as place:
        files = Files(place)
        with claimed(place, "soak", story=files.begun, lock=files.lock, logs=files.logs):
            if files.begun.exists():
                raise Unusable(
                    f"{place} holds a soak: give --home a folder that is empty, or not there."
                )
            files.begun.touch()
            killer = kills.Killer(planned, home=place, journal=files.kills)
            driver = Driver(settings, place, files.logs)
            stage = _Stage(driver, files, killer, payments, seed, Steps(progress))
            return stage.play(began)


class _Stage:
    """One soak: its files, its children, and the steps in their order."""

    def __init__(
        self,
        driver: Driver,
        files: Files,
        killer: kills.Killer,
        payments: int,
        seed: int,
        steps: Steps,
    ) -> None:
        self._driver = driver
        self._files = files
        self._killer = killer
        self._payments = payments
        self._seed = seed
        self._steps = steps
        self._private = make_providers(files.providers)
        driver.use_providers(files.providers)

    def play(self, began: float) -> SoakResult:
        """Do all the steps, and judge."""
        driver, step, files = self._driver, self._steps.step, self._files
        on = day_of(driver.settings.business_clock()())
        up = Up(files.logs, driver.environment, continued=False)
        try:
            with self._steps.shown():
                step("Starting the product", up.keep)
                driver.make_register(
                    files.contributors, contributors=self._payments, seed=self._seed, on=on
                )
                step("Enrolling contributors", lambda: driver.enrol(up, files.contributors))
                step("Issuing invoices", lambda: driver.issue(up, on))
                driver.write_notices(up, files.notices)
                collecting = time.monotonic()
                with self._stand_ins(up), self._collecting(up) as keep:
                    collected = time.monotonic()
                    step("Acting on what came in", lambda: driver.drain(up, keep))
                    step("Giving money back", lambda: self._give_back(up))
                    step("Acting on what went back", lambda: driver.drain(up, keep))
                # What a page's program sent of its own meanwhile; nobody sends any more.
                step("Acting on what came last", lambda: driver.drain(up))
                verdict = step(
                    "Verifying the books", lambda: driver.wasl(up, "verify", accepted=(0, 1))
                )
                told = self._told()
                broken = [] if verdict["ok"] else verdict["broken"]
                held = step(
                    "Comparing with the journals",
                    lambda: driver.surely_read_books(
                        up, lambda session: read_held(session, told.answered, broken)
                    ),
                )
        finally:
            up.stop()
        paid = Counter(provider for (provider, _), minor in told.tally.expected.items() if minor)
        return SoakResult(
            seed=self._seed,
            figures=as_json(told, held),
            struck=told.struck,
            channels=paid,
            kills=self._killer.done,
            kills_left=self._killer.left,
            differences=differences(told, held),
            seconds=time.monotonic() - began,
            collecting_seconds=collected - collecting,
        )

    # -- the steps -------------------------------------------------------------------------------

    @contextmanager
    def _stand_ins(self, up: Up) -> Iterator[None]:
        """Run the programs behind the providers' pages for as long as this lasts."""
        files = self._files
        made = all_stand_ins(
            files.providers,
            files.page_journals,
            base_url=_address(up),
            seed=self._seed,
            shares=SHARES,
        )
        running = [
            Process(
                each.name,
                each.argv,
                log=self._driver.log(each.name),
                death_signal=signal.SIGKILL,
                environment=self._driver.environment,
            )
            for each in made.values()
        ]
        try:
            for process in running:
                process.start()
            ports = [each.port for each in made.values()]
            if not wait_until(lambda: all(map(_listens, ports)), LISTENING_SECONDS_MAX):
                raise Unavailable(f"A provider's page does not come up: see {files.logs}.")
            yield
        finally:
            for process in running:
                process.stop(STOP_SECONDS_MAX)

    @contextmanager
    def _collecting(self, up: Up) -> Iterator[Callable[[], None]]:
        """Have everybody pay; who is called back lives on while this lasts, if kept."""
        task = self._steps.begin("Collecting payments", total=self._payments)

        def tick(done: int, _: int) -> None:
            up.keep()
            self._killer.strike(done, self._steps.say)
            self._steps.show(task, done, self._payments)

        with playing(self._parts(up), tick) as keep:
            yield keep

    def _parts(self, up: Up) -> list[Part]:
        files = self._files
        words = [
            *("--notices", str(files.notices), "--seed", str(self._seed), "--plain"),
            *(word for pair in SHARES.items() for word in pair),
        ]
        return [
            part_of(
                entry,
                base_url=_address(up),
                words=[*words, "--threads", str(THREADS.get(entry["name"], THREADS_ELSEWHERE))],
                journal=files.payers[entry["name"]],
                log=self._driver.log(entry["name"]),
                environment=self._driver.environment,
                secret=self._private.get(entry["name"]),
            )
            for entry in read_entries(files.providers)
        ]

    def _give_back(self, up: Up) -> None:
        """Refund, dispute and reverse a share of the payments, as finance and banks do."""
        finance, approver = (
            self._driver.wasl(up, "keys", "create", "--role", role, "--label", role)["key"]
            for role in ("finance", "approver")
        )
        clock = self._driver.settings.business_clock()
        Giver(
            _address(up),
            finance=finance,
            approver=approver,
            entries=read_entries(self._files.providers),
            journal=self._files.given_back,
            seed=self._seed,
            now=lambda: clock().timestamp(),
        ).play(tick=up.keep)

    def _told(self) -> Told:
        """Read all journals, before the books are read: what comes later is in these."""
        files = self._files
        found: set[Answered] = set()
        struck_by: Counter[str] = Counter()
        for name, path in files.payers.items():
            lines: list[Line] = read_journal(path)
            found |= answered(lines, name)
            if name not in files.pages:
                struck_by += struck(lines, spared=SPARED.get(name, ()))
        for name, path in files.pages.items():
            lines = read_journal(path)
            found |= answered_at_page(name, lines)
            struck_by += page_tally(name, lines).struck
        told = tally(files.payers.values(), files.pages)
        back = read_given_back(read_journal(files.given_back))
        told.expected.update(back.net)
        told.planted.update(back.planted)
        return Told(
            told,
            frozenset(found),
            planned=self._payments,
            struck=struck_by,
            given_back=frozenset(back.net),
        )


def _address(up: Up) -> str:
    return f"http://127.0.0.1:{up.port}"


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        connection.settimeout(1)
        return connection.connect_ex(("127.0.0.1", port)) == 0
