"""The main job from nothing: enrol, issue, collect, record, reconcile, and account for it all.

The demo drives the product as people and providers do: `wasl` commands as child processes, signed
deliveries over HTTP from programs that import nothing of the product. Only the reading of the books
at the end looks inside. What it did lies in `demo/` of its home. Each step can be repeated, so a
demo killed anywhere is continued by running it again on the same home.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from gateway import db
from gateway.clock import ANCHOR_VARIABLE, day_of
from gateway.demo import books
from gateway.demo.files import Files, last_line
from gateway.demo.programs import POLL_SECONDS, Up, Watched
from gateway.demo.result import DemoResult, unaccounted
from gateway.embedded.home import Lock
from gateway.embedded.processes import spawn
from gateway.errors import Unavailable, Unusable
from gateway.secretfiles import write_privately
from gateway.services import running_services
from gateway.settings import Settings
from gateway.simulators.dealing import CHANNELS
from gateway.simulators.notices import read_notices
from gateway.simulators.tally import tally

_T = TypeVar("_T")

COMMAND_TRIES_MAX: Final = 8
COMMAND_SECONDS_MAX: Final = 3600
PAYER_STARTS_MAX: Final = 20
STANDSTILL_SECONDS_MAX: Final = 180
"""How long the inbox may hold as much as before until we give up on the worker."""

_SIGNING_VARIABLE: Final = "WASL_DEMO_SECRET"

# The demo invents people and money. It never does so in services that somebody else set up, nor
# with their secrets.
_NOT_INHERITED: Final = ("WASL_DATABASE_URL", "WASL_REDIS_URL", "WASL_PROVIDERS")


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
    with _home(home) as place:
        stage = _Stage(settings, place, contributors=contributors, seed=seed, console=progress)
        with stage.claimed():
            return stage.play(began)


@contextmanager
def _home(home: Path | None) -> Iterator[Path]:
    if home is not None:
        yield home.expanduser().absolute()
        return
    scratch = Path(tempfile.mkdtemp(prefix="wasl-demo-"))
    try:
        yield scratch
    except Unavailable:
        # The sentence points to a log: it must be there to be read.
        raise
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    shutil.rmtree(scratch, ignore_errors=True)


class _Stage:
    """One demo: its files, its children, and the steps in their order."""

    def __init__(
        self, settings: Settings, home: Path, *, contributors: int, seed: int, console: Console
    ) -> None:
        self._settings = settings.model_copy(
            update={"home": home, "database_url": None, "redis_url": None, "providers": None}
        )
        self._contributors = contributors
        self._seed = seed
        self._files = Files(home)
        self._environment = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
        self._environment["WASL_HOME"] = str(home)
        self._console = console
        # Refreshed by hand: no thread of ours runs while children are forked.
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=console,
            auto_refresh=False,
            disable=not console.is_terminal,
        )

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the home for this demo alone."""
        files = self._files
        try:
            files.home.mkdir(parents=True, exist_ok=True)
            strangers = {entry.name for entry in files.home.iterdir()} - {"demo"}
            if strangers and not files.story.exists():
                raise Unusable(
                    f"{files.home} is not the home of a demo: give --home an empty directory, or"
                    " one where a demo was interrupted."
                )
            files.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unusable(f"{files.home} cannot be a demo's home: {error.strerror}.") from None
        lock = Lock(files.lock)
        if not lock.take():
            raise Unusable(f"Another demo is running in {files.home}.")
        try:
            yield
        finally:
            lock.release()

    def play(self, began: float) -> DemoResult:
        """Do all the steps, those already done quickly, and compare."""
        continued = self._files.story.exists()
        on = self._day()
        up = Up(self._files, self._environment, continued=continued)
        try:
            with self._progress:
                self._step("Starting the product", up.keep)
                self._step("Enrolling contributors", lambda: self._enrol(up, on))
                invoices = self._step("Issuing invoices", lambda: self._issue(up, on))
                self._collect(up)
                self._step("Acting on what came in", lambda: self._drain(up))
                records = self._step("Importing records", lambda: self._import_records(up))
                self._step("Reconciling", lambda: self._wasl(up, "reconcile", accepted=(0, 1)))
                verdict = self._step(
                    "Verifying the books", lambda: self._wasl(up, "verify", accepted=(0, 1))
                )
                return self._result(up, invoices, records, verdict, began)
        finally:
            up.stop()

    def _day(self) -> date:
        """Return the business day on which this demo was begun, and take up its clock again.

        Raises:
            Unusable: The home is of a demo with another seed or number.
        """
        now = self._settings.business_clock()()
        anchor = os.environ.get(ANCHOR_VARIABLE)
        story = {
            "contributors": self._contributors,
            "seed": self._seed,
            "on": day_of(now).isoformat(),
            "clock": self._settings.clock,
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
        if began["clock"] == self._settings.clock:
            # A test clock that began again would put what was already paid into the future.
            anchor = began["anchor"]
        if anchor:
            self._environment[ANCHOR_VARIABLE] = anchor
        return date.fromisoformat(began["on"])

    # -- the steps -------------------------------------------------------------------------------

    def _enrol(self, up: Up, on: date) -> None:
        people = self._files.contributors
        if not people.exists():
            self._simulate(
                "register",
                "--contributors",
                str(self._contributors),
                "--seed",
                str(self._seed),
                "--on",
                on.isoformat(),
                "--out",
                str(people),
            )
        done = self._wasl(up, "contributors", "import", str(people), accepted=(0, 1))
        if done["rejected"]:
            first = done["rejected"][0]
            raise Unusable(f"{people}, line {first['line']}: {first['reason']}")

    def _issue(self, up: Up, on: date) -> int:
        invoices = 0
        for period in (f"{on:%Y-%m}", f"{on.year}-Q{(on.month + 2) // 3}"):
            issued = self._wasl(up, "invoices", "issue", "--period", period)
            invoices += issued["issued"] + issued["already"]
        # Once: what is asked for must not change when a part of it has been paid. The name bears
        # our process id, since a command whose demo was killed may still be writing.
        notices = self._files.notices
        if not notices.exists():
            draft = notices.with_name(f"notices.{os.getpid()}.part")
            self._command(
                up, ["-m", "gateway.cli", "invoices", "notices", "--out", str(draft)], read=_nothing
            )
            draft.replace(notices)
        return invoices

    def _collect(self, up: Up) -> None:
        secrets = self._secrets()
        task = self._begin("Collecting payments", total=0)
        running: dict[str, subprocess.Popen[bytes]] = {}
        starts: Counter[str] = Counter()
        waiting = set(CHANNELS)
        watched = {name: Watched(path) for name, path in self._files.payers.items()}
        try:
            while waiting:
                up.keep()
                for name in waiting - set(running):
                    starts[name] += 1
                    running[name] = self._payer(name, up.port, secrets[name])
                for name in list(running):
                    code = running[name].poll()
                    if code is not None:
                        del running[name]
                        watched[name].look()
                        if self._payer_is_done(name, code, starts[name], watched[name]):
                            waiting.discard(name)
                for journal in watched.values():
                    journal.look()
                self._progress.update(
                    task,
                    total=sum(journal.cases for journal in watched.values()),
                    completed=sum(journal.done for journal in watched.values()),
                    refresh=True,
                )
                time.sleep(POLL_SECONDS)
        finally:
            for child in running.values():
                child.kill()
                child.wait()

    def _payer(self, name: str, port: int, secret: str) -> subprocess.Popen[bytes]:
        arguments = {
            "--provider": name,
            "--channel": CHANNELS[name],
            "--secret-env": _SIGNING_VARIABLE,
            "--url": f"http://127.0.0.1:{port}/webhooks/{name}",
            "--notices": str(self._files.notices),
            "--journal": str(self._files.payers[name]),
            "--seed": str(self._seed),
        }
        flat = [word for pair in arguments.items() for word in pair]
        with self._log(name).open("ab") as log:
            return spawn(
                [sys.executable, "-m", "gateway.simulators.payers", *flat],
                output=log.fileno(),
                death_signal=signal.SIGKILL,
                environment=self._environment | {_SIGNING_VARIABLE: secret},
            )

    def _payer_is_done(self, name: str, code: int, starts: int, journal: Watched) -> bool:
        """Say whether a payers' program that ended is done; one that was killed is not."""
        # Surprises make it 1, and the result reports them; but so does a bug of the program.
        if code in {0, 1} and journal.ended:
            return True
        if code > 0 or starts >= PAYER_STARTS_MAX:
            raise Unavailable(f"The payers of {name} ended: {last_line(self._log(name))}")
        return False

    def _drain(self, up: Up) -> None:
        """Wait until every delivery was acted on."""
        least: int | None = None
        since = time.monotonic()
        while True:
            up.keep()
            left = self._read_books(books.undone)
            if left == 0:
                return
            if left is not None and (least is None or left < least):
                least, since = left, time.monotonic()
            if time.monotonic() - since > STANDSTILL_SECONDS_MAX:
                what = "The books cannot be read" if left is None else f"{left} deliveries wait"
                raise Unavailable(
                    f"{what}, and nothing has moved for {STANDSTILL_SECONDS_MAX} seconds: see"
                    f" {self._files.home / 'log'}."
                )
            time.sleep(POLL_SECONDS)

    def _import_records(self, up: Up) -> int:
        files = self._files
        self._simulate(
            "institution",
            "--notices",
            str(files.notices),
            "--contributors",
            str(files.contributors),
            "--journals",
            *map(str, files.payers.values()),
            "--seed",
            str(self._seed),
            "--out",
            str(files.records),
            "--journal",
            str(files.institution),
        )
        # A line set aside is no failure yet: what it leads to shows in the exceptions.
        done = self._wasl(up, "records", "import", str(files.records), accepted=(0, 1))
        read = done["read"]
        assert isinstance(read, int)
        return read

    def _result(
        self, up: Up, invoices: int, records: int, verdict: dict[str, Any], began: float
    ) -> DemoResult:
        told = tally([*self._files.payers.values(), self._files.institution])
        booked, exceptions, totals = self._final_books(up)
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

    def _final_books(
        self, up: Up
    ) -> tuple[dict[tuple[str, str], int], dict[str, int], dict[str, Any]]:
        def read(
            session: Session,
        ) -> tuple[dict[tuple[str, str], int], dict[str, int], dict[str, Any]]:
            return (
                books.booked_amounts(session),
                books.open_exceptions(session),
                books.totals(session),
            )

        for _ in range(COMMAND_TRIES_MAX):
            up.keep()
            found = self._read_books(read)
            if found is not None:
                return found
            time.sleep(2)
        raise Unavailable(f"The books cannot be read: see {self._files.home / 'log'}.")

    # -- helpers ---------------------------------------------------------------------------------

    def _secrets(self) -> dict[str, str]:
        """Return the providers' signing secrets, which `wasl up` made."""
        path = self._settings.providers_file
        try:
            with path.open("rb") as file:
                said = tomllib.load(file)
        except FileNotFoundError:
            said = {}
        providers = {p["name"]: p["secrets"][0] for p in said.get("provider", []) if "secrets" in p}
        missing = sorted(set(CHANNELS) - set(providers))
        if missing:
            raise Unusable(f"{path} names no secret of {', '.join(missing)}.")
        return providers

    def _wasl(self, up: Up, *words: str, accepted: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """Run a `wasl` command and return its JSON answer."""
        return self._command(
            up, ["-m", "gateway.cli", *words, "--json"], accepted=accepted, read=_json_object
        )

    def _simulate(self, name: str, *words: str) -> None:
        self._command(None, ["-m", f"gateway.simulators.{name}", *words], read=_nothing)

    def _command(
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
        log = self._log(words[2] if words[1] == "gateway.cli" else words[1].rpartition(".")[2])
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
                        env=self._environment,
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

    def _read_books(self, read: Callable[[Session], _T]) -> _T | None:
        """Read the books in one transaction; None when they cannot be reached just now."""
        try:
            with running_services(self._settings) as services:
                db.connect(services.database_url)
                try:
                    with db.transaction() as session:
                        return read(session)
                finally:
                    db.disconnect()
        except (DBAPIError, Unavailable):
            return None

    def _begin(self, title: str, *, total: int | None) -> TaskID:
        if not self._console.is_terminal:
            self._console.print(title)
        task = self._progress.add_task(title, total=total)
        self._progress.refresh()
        return task

    def _step(self, title: str, work: Callable[[], _T]) -> _T:
        task = self._begin(title, total=1)
        done = work()
        self._progress.update(task, completed=1, refresh=True)
        return done

    def _log(self, name: str) -> Path:
        return self._files.logs / f"{name}.log"


def _without_zeros(counts: Mapping[str, int]) -> dict[str, int]:
    return {str(code): count for code, count in counts.items() if count}


def _json_object(output: bytes) -> dict[str, Any] | None:
    """Return a command's answer; None if it printed none, as one that broke off."""
    try:
        answer = json.loads(output)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _nothing(_output: bytes) -> bool:
    return True
