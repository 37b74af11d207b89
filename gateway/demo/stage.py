"""The main job from nothing: enrol, issue, collect, record, reconcile, and account for it all.

The demo drives the product as people and providers do: `wasl` commands as child processes, signed
deliveries and calls over HTTP from programs that import nothing of the product. Only the reading of
the books at the end looks inside. What it did lies in `demo/` of its home. Each step can be
repeated, so a demo killed anywhere is continued by running it again on the same home.
"""

from __future__ import annotations

import json
import os
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from sqlmodel import Session

from gateway.clock import ANCHOR_VARIABLE, day_of
from gateway.demo import books
from gateway.demo.crowd import playing
from gateway.demo.driving import Driver
from gateway.demo.files import PLAYED, Files
from gateway.demo.parts import part_of
from gateway.demo.programs import Up
from gateway.demo.result import DemoResult, unaccounted
from gateway.demo.steps import Steps, claimed, own_home
from gateway.errors import Unusable
from gateway.secretfiles import write_privately
from gateway.settings import Settings
from gateway.simulators.dealing import CHANNELS, SIGNED
from gateway.simulators.notices import read_notices
from gateway.simulators.tally import tally


def demo(
    settings: Settings, *, contributors: int, seed: int, home: Path | None, progress: Console
) -> DemoResult:
    """Do the main job on a home of its own and say whether every centime is accounted for.

    Without `home` it is a temporary directory, removed at the end. With it the files stay, and a
    demo interrupted there is continued. To be called from the main thread: the kernel ends the
    children with the thread that started them.

    Raises:
        Unusable: Production, or the home is of another demo or of something else.
        Unavailable: The product cannot be started, or does not get on with its work.
    """
    if settings.mode == "production":
        raise Unusable("wasl demo invents payments: it runs in the sandbox only.")
    if contributors < 1:
        raise Unusable("A demo needs at least one contributor.")
    began = time.monotonic()
    with own_home(home, "demo") as place:
        files = Files(place)
        with claimed(place, "demo", story=files.story, lock=files.lock, logs=files.logs):
            driver = Driver(settings, place, files.logs)
            stage = _Stage(driver, files, contributors, seed, Steps(progress))
            return stage.play(began)


class _Stage:
    """One demo: its files, its children, and the steps in their order."""

    def __init__(
        self, driver: Driver, files: Files, contributors: int, seed: int, steps: Steps
    ) -> None:
        self._driver = driver
        self._files = files
        self._contributors = contributors
        self._seed = seed
        self._steps = steps

    def play(self, began: float) -> DemoResult:
        """Do all the steps, those already done quickly, and compare."""
        continued = self._files.story.exists()
        on = self._day()
        driver, step = self._driver, self._steps.step
        up = Up(self._files.logs, driver.environment, continued=continued)
        try:
            with self._steps.shown():
                step("Starting the product", up.keep)
                step("Enrolling contributors", lambda: self._enrol(up, on))
                invoices = step("Issuing invoices", lambda: self._issue(up, on))
                with self._collecting(up) as keep:
                    step("Acting on what came in", lambda: driver.drain(up, keep))
                records = step("Importing records", lambda: self._import_records(up))
                step("Reconciling", lambda: driver.wasl(up, "reconcile", accepted=(0, 1)))
                verdict = step(
                    "Verifying the books", lambda: driver.wasl(up, "verify", accepted=(0, 1))
                )
                return self._result(up, invoices, records, verdict, began)
        finally:
            up.stop()

    def _day(self) -> date:
        """Return the business day on which this demo was begun, and take up its clock again.

        Raises:
            Unusable: The home is of a demo with another seed or number.
        """
        settings = self._driver.settings
        now = settings.business_clock()()
        anchor = os.environ.get(ANCHOR_VARIABLE)
        story = {
            "contributors": self._contributors,
            "seed": self._seed,
            "on": day_of(now).isoformat(),
            "clock": settings.clock,
            "anchor": anchor,
        }
        path = self._files.story
        if not path.exists():
            write_privately(path, json.dumps(story) + "\n")
        began = json.loads(path.read_text(encoding="utf-8"))
        if (began["contributors"], began["seed"]) != (self._contributors, self._seed):
            raise Unusable(
                f"{self._files.home} holds a demo of {began['contributors']} contributors with"
                f" seed {began['seed']}: continue that one, or give another --home."
            )
        if began["clock"] == settings.clock:
            # A test clock that began again would put what was already paid into the future.
            anchor = began["anchor"]
        if anchor:
            self._driver.environment[ANCHOR_VARIABLE] = anchor
        return date.fromisoformat(began["on"])

    # -- the steps -------------------------------------------------------------------------------

    def _enrol(self, up: Up, on: date) -> None:
        people = self._files.contributors
        self._driver.make_register(people, contributors=self._contributors, seed=self._seed, on=on)
        self._driver.enrol(up, people)

    def _issue(self, up: Up, on: date) -> int:
        invoices = self._driver.issue(up, on)
        self._driver.write_notices(up, self._files.notices)
        return invoices

    @contextmanager
    def _collecting(self, up: Up) -> Iterator[Callable[[], None]]:
        """Have everybody pay; who is called back lives on while this lasts, if kept."""
        words = [
            *("--notices", str(self._files.notices)),
            *("--seed", str(self._seed)),
        ]
        parts = [
            part_of(
                entry,
                base_url=f"http://127.0.0.1:{up.port}",
                words=words,
                journal=self._files.payers[name],
                log=self._driver.log(name),
                environment=self._driver.environment,
            )
            for name, entry in self._providers().items()
        ]
        task = self._steps.begin("Collecting payments", total=0)

        def tick(done: int, total: int) -> None:
            up.keep()
            self._steps.show(task, done, total)

        with playing(parts, tick) as keep:
            yield keep

    def _import_records(self, up: Up) -> int:
        files = self._files
        self._driver.simulate(
            "institution",
            *("--notices", str(files.notices)),
            *("--contributors", str(files.contributors)),
            *("--journals", *map(str, files.payers.values())),
            *(word for name, path in files.pages.items() for word in (f"--{name}-page", str(path))),
            *("--seed", str(self._seed)),
            *("--out", str(files.records)),
            *("--journal", str(files.institution)),
        )
        # A line set aside is no failure yet: what it leads to shows in the exceptions.
        done = self._driver.wasl(up, "records", "import", str(files.records), accepted=(0, 1))
        read = done["read"]
        assert isinstance(read, int)
        return read

    def _result(
        self, up: Up, invoices: int, records: int, verdict: dict[str, Any], began: float
    ) -> DemoResult:
        files = self._files
        told = tally([*files.payers.values(), files.institution], files.pages)
        booked, exceptions, totals = self._driver.surely_read_books(up, _final_books)
        collected = dict.fromkeys(CHANNELS.values(), 0)
        for (provider, _), minor in booked.items():
            channel = CHANNELS.get(provider, provider)
            collected[channel] = collected.get(channel, 0) + minor
        return DemoResult(
            contributors=self._contributors,
            invoices=invoices,
            billed_minor=sum(n.amount_minor for n in read_notices(self._files.notices)),
            deliveries=told.deliveries,
            payments=len(booked),
            collected=collected,
            held=totals["held"],
            records=records,
            matched=totals["matched"],
            planted=_without_zeros(told.planted),
            exceptions=_without_zeros(exceptions),
            unaccounted_minor=unaccounted(told, booked),
            broken=[] if verdict["ok"] else verdict["broken"],
            surprises=told.surprises,
            first_surprises=told.first_surprises,
            seconds=time.monotonic() - began,
        )

    def _providers(self) -> dict[str, dict[str, Any]]:
        """Return the entries of the providers file, which `wasl up` made, of those we can play.

        A home that an earlier version made may name none but those that sign.
        """
        path = self._driver.settings.providers_file
        try:
            with path.open("rb") as file:
                said = tomllib.load(file)
        except FileNotFoundError:
            said = {}
        found = {p["name"]: p for p in said.get("provider", []) if p["name"] in PLAYED}
        missing = sorted(set(SIGNED) - set(found))
        if missing:
            raise Unusable(f"{path} does not name {', '.join(missing)}.")
        return found


def _final_books(
    session: Session,
) -> tuple[dict[tuple[str, str], int], dict[str, int], dict[str, Any]]:
    return books.booked_amounts(session), books.open_exceptions(session), books.totals(session)


def _without_zeros(counts: Mapping[str, int]) -> dict[str, int]:
    return {str(code): count for code, count in counts.items() if count}
