"""`wasl up`: services, migrations, web, worker and beat in the foreground, until told to stop.

One loop on the monotonic clock. It looks at every process twenty times a second, starts again what
has died, and asks the web process whether it would answer. Nothing here reads the business clock.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType
from typing import Any, Final

from gateway.embedded.home import Home, Lock
from gateway.embedded.processes import (
    Process,
    Service,
    free_port,
    is_free,
    kill_group,
    started_ticks,
    wait_until,
)
from gateway.errors import Unavailable, Unusable
from gateway.secretfiles import write_privately
from gateway.services import EmbeddedServices, refuse_in_production, require_answers, tell
from gateway.settings import Settings

PAUSE_SECONDS_MIN: Final = 0.2
PAUSE_SECONDS_MAX: Final = 5.0
STEADY_SECONDS: Final = 10.0
"""A process that lived so long and then died starts again after the shortest pause."""

DEATHS_BEFORE_READY_MAX: Final = 5
STOP_SECONDS_MAX: Final = 10.0
CLAIM_SECONDS_MAX: Final = 60.0
USERS_SECONDS_MAX: Final = 10.0
PROBE_SECONDS_MAX: Final = 2.0
PROBE_PAUSE_SECONDS: Final = 0.1
READY_NOTICE_SECONDS: Final = 15.0
LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True)
class Child:
    """A program to keep running."""

    name: str
    argv: Sequence[str]


def up(settings: Settings, port: int) -> int:
    """Run all of Wasl in the foreground until SIGINT or SIGTERM; return the exit code.

    Prints `ready http://127.0.0.1:PORT` on standard output, once, when a request would be answered;
    everything else goes to standard error. Port 0 takes any free one. To be called from the main
    thread: the signals arrive there, and the processes end with the thread that started them.

    Raises:
        Unusable: Another `up` or a long command has this home, or the port is taken.
        Unavailable: A service or a program cannot be started.
    """
    return supervise(settings, port, children=product, prepare=_migrate)


def supervise(
    settings: Settings,
    port: int,
    *,
    children: Callable[[Home, int], Sequence[Child]],
    prepare: Callable[[str], None],
) -> int:
    """Do what `up` promises, for any programs.

    Args:
        settings: Which home, and which services if not embedded ones.
        port: Where one of the programs answers `GET /readyz`.
        children: Says which programs, once the port is known. They are started in this order.
        prepare: Called with the address of the database before the first program starts.
    """
    refuse_in_production(settings)
    home = Home(settings.home)
    home.prepare()
    state = State(home)
    lock = Lock(home.run / "up.lock")
    if not lock.take():
        by = f" (process {number})" if (number := state.former_owner()) else ""
        other = "" if by else ", or a backup is being put back into it"
        raise Unusable(
            f"Wasl is already up on this home{by}{other}: stop that one first, or choose another"
            " WASL_HOME."
        )
    try:
        with _stop_signals() as stop:
            state.bury_former()
            state.write([])
            return _run(settings, port, home, state, stop, children, prepare)
    finally:
        state.forget()
        lock.release()


def product(home: Home, port: int) -> list[Child]:
    """Return the programs that Wasl is made of."""
    celery = (sys.executable, "-m", "celery", "--app", "gateway.worker:app")
    quiet = ("--loglevel", "WARNING")
    return [
        Child("web", [sys.executable, "-m", "gateway.serve", "--port", str(port)]),
        Child(
            "worker",
            [
                *celery,
                "worker",
                "--concurrency",
                "2",
                *quiet,
                "--without-gossip",
                "--without-mingle",
            ],
        ),
        Child(
            "beat",
            [*celery, "beat", *quiet, "--schedule", str(home.run / "beat"), "--pidfile", ""],
        ),
    ]


@dataclass
class Stop:
    """How often we were told to stop. The second time hurries."""

    asked: int = 0

    def hurried(self) -> bool:
        return self.asked > 1


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
            "base_url": _local_url(self.port) if self.port else None,
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

    def bury_former(self) -> None:
        """Wait for the programs of an `up` that was killed; end those that do not end.

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

        if not wait_until(lambda: not remaining(), STOP_SECONDS_MAX):
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


class Keeper:
    """Keeps processes running: what dies is started again, after a pause that grows."""

    def __init__(self, changed: Callable[[Sequence[Service]], None]) -> None:
        """Begin with none. `changed` is called with all of them whenever one starts or dies."""
        self.ready = False
        self._kept: list[_Kept] = []
        self._changed = changed

    @property
    def services(self) -> list[Service]:
        return [kept.service for kept in self._kept]

    def adopt(self, services: Sequence[Service]) -> None:
        """Keep processes that run already."""
        self._kept += [_Kept(service, time.monotonic()) for service in services]
        self._changed(self.services)

    def start(self, services: Sequence[Service]) -> None:
        """Start processes, and keep them.

        Raises:
            Unavailable: One is not a program that can be run.
        """
        for service in services:
            try:
                service.start()
            except OSError as error:
                raise Unavailable(f"{service.name} cannot be started: {error}.") from None
            self.adopt([service])

    def look(self) -> None:
        """Note who died, and start again those whose pause is over.

        Raises:
            Unavailable: One keeps dying and we have never been ready: better to stop than to try
                for ever what was never seen to work.
        """
        now = time.monotonic()
        for kept in self._kept:
            if kept.due_at is None and not kept.service.is_alive():
                self._note_death(kept, now)
            elif kept.due_at is not None and now >= kept.due_at:
                self._start_again(kept, now)

    def _note_death(self, kept: _Kept, now: float) -> None:
        kept.deaths += 1
        if not self.ready and kept.deaths >= DEATHS_BEFORE_READY_MAX:
            raise Unavailable(
                f"{kept.service.name} ended {kept.deaths} times before Wasl was ready: see"
                f" {kept.service.log}."
            )
        if now - kept.started_at >= STEADY_SECONDS:
            kept.pause = PAUSE_SECONDS_MIN
        tell(
            f"{kept.service.name} ended; starting it again in {kept.pause:g} s"
            f" (see {kept.service.log})."
        )
        kept.due_at = now + kept.pause
        kept.pause = min(kept.pause * 2, PAUSE_SECONDS_MAX)
        self._changed(self.services)

    def _start_again(self, kept: _Kept, now: float) -> None:
        kept.started_at = now
        kept.due_at = None
        try:
            kept.service.start()
        except (Unavailable, OSError, subprocess.SubprocessError) as error:
            # Not alive, so the next look counts it as one more death and pauses longer.
            tell(f"{kept.service.name} cannot be started: {error}")
        self._changed(self.services)


@dataclass
class _Kept:
    service: Service
    started_at: float
    pause: float = PAUSE_SECONDS_MIN
    due_at: float | None = None
    deaths: int = 0


def _run(
    settings: Settings,
    port: int,
    home: Home,
    state: State,
    stop: Stop,
    children: Callable[[Home, int], Sequence[Child]],
    prepare: Callable[[str], None],
) -> int:
    if port and not is_free(port):
        raise Unusable(f"Port {port} is taken on this machine: give another with --port.")
    state.port = port or free_port()
    keeper = Keeper(state.write)
    programs: list[Service] = []
    with _embedded(settings, home, stop) as embedded:
        if stop.asked:
            return 0
        require_answers(settings)
        tell(f"Starting; the logs are in {home.log}.")
        keeper.adopt(embedded.members if embedded else [])
        environment = _environment(settings, state.port, embedded)
        prepare(environment["WASL_DATABASE_URL"])
        programs += [
            Process(
                child.name,
                child.argv,
                log=home.log / f"{child.name}.log",
                death_signal=signal.SIGTERM,
                environment=environment,
            )
            for child in children(home, state.port)
        ]
        try:
            keeper.start(programs)
            _keep(keeper, state.port, stop)
        finally:
            _end(programs, stop)
    return 0


def _keep(keeper: Keeper, port: int, stop: Stop) -> None:
    """Keep everything running until told to stop; say when it is ready, once."""
    began = time.monotonic()
    next_probe, next_notice = began, began + READY_NOTICE_SECONDS
    while not stop.asked:
        keeper.look()
        now = time.monotonic()
        if not keeper.ready and now >= next_probe:
            keeper.ready = _would_answer(port)
            next_probe = now + PROBE_PAUSE_SECONDS
            if keeper.ready:
                sys.stdout.write(f"ready {_local_url(port)}\n")
                sys.stdout.flush()
            elif now >= next_notice:
                tell(
                    f"Not ready after {now - began:.0f} s; still trying {_local_url(port)}/readyz."
                )
                next_notice = now + READY_NOTICE_SECONDS
        time.sleep(LOOK_SECONDS)


def _end(programs: Sequence[Service], stop: Stop) -> None:
    """Stop the programs together: gently, then not."""
    for program in programs:
        program.ask_to_stop()
    wait_until(
        lambda: stop.hurried() or not any(program.is_alive() for program in programs),
        STOP_SECONDS_MAX,
    )
    for program in programs:
        program.stop(0)


@contextmanager
def _embedded(settings: Settings, home: Home, stop: Stop) -> Iterator[EmbeddedServices | None]:
    """Own the embedded services that are wanted for as long as this lasts.

    Gives none where none is wanted, or where we were told to stop before they were ours.
    """
    if settings.database_url and settings.redis_url:
        yield None
        return
    services = EmbeddedServices(
        home, postgres=settings.database_url is None, valkey=settings.redis_url is None
    )
    if not _claim(services, home, stop):
        yield None
        return
    try:
        if not stop.asked:
            services.start()
        try:
            yield services
        finally:
            services.wait_for_users(
                lambda waited: stop.hurried() or waited > USERS_SECONDS_MAX,
            )
    finally:
        services.stop(stop.hurried)


def _claim(services: EmbeddedServices, home: Home, stop: Stop) -> bool:
    """Wait for a short command that runs the services, then own them; not if told to stop."""
    if services.claim():
        return True
    tell(f"Another command uses the services of {home.path}; waiting for it to finish.")
    if not wait_until(lambda: bool(stop.asked) or services.claim(), CLAIM_SECONDS_MAX):
        raise Unusable(
            f"Another command still uses the services of {home.path} after"
            f" {CLAIM_SECONDS_MAX:.0f} s: wait until it is done, or choose another WASL_HOME."
        )
    return services.is_ours


def _environment(
    settings: Settings, port: int, embedded: EmbeddedServices | None
) -> Mapping[str, str]:
    """Return the environment of the programs: ours, with what is in force."""
    # A running test clock is one clock: reading it once here sets its anchor for all programs.
    settings.business_clock()
    environment = dict(os.environ, WASL_HOME=str(settings.home))
    postgres = embedded.postgres if embedded else None
    valkey = embedded.valkey if embedded else None
    if "base_url" not in settings.model_fields_set:
        environment["WASL_BASE_URL"] = _local_url(port)
    for variable, given, service in (
        ("WASL_DATABASE_URL", settings.database_url, postgres),
        ("WASL_REDIS_URL", settings.redis_url, valkey),
    ):
        if given:
            environment[variable] = given.get_secret_value()
        else:
            assert service is not None
            environment[variable] = service.url
    return environment


def _migrate(database_url: str) -> None:
    from gateway.migrate import upgrade

    upgrade(database_url)


def _local_url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _would_answer(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=PROBE_SECONDS_MAX)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def _stop_signals() -> Iterator[Stop]:
    """Count SIGINT and SIGTERM instead of dying of them."""
    stop = Stop()

    def count(_number: int, _frame: FrameType | None) -> None:
        stop.asked += 1

    former = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
