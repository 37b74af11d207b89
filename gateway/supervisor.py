"""`wasl up`: services, migrations, web, worker and beat in the foreground, until told to stop.

One loop on the monotonic clock. It looks at every process twenty times a second, starts again what
has died, and asks the web process whether it would answer. Nothing here reads the business clock.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from types import FrameType
from typing import Final

from gateway.embedded.home import Home, Lock
from gateway.embedded.processes import (
    Process,
    Service,
    free_port,
    is_free,
    wait_until,
)
from gateway.embedded.upstate import State, local_url
from gateway.errors import Unavailable, Unusable
from gateway.providers.sandbox import STAND_INS, stand_ins
from gateway.services import EmbeddedServices, refuse_in_production, require_answers, tell
from gateway.settings import Settings

WORKER_PROCESSES: Final = 2
"""That do the worker's tasks: two drain the inbox at once, each the deliveries of a provider."""
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
    needed: bool = True
    """Whether there is no Wasl without it: one that is not needed is left out where it fails."""


def up(settings: Settings, port: int) -> int:
    """Run all of Wasl in the foreground until SIGINT or SIGTERM; return the exit code.

    Prints `ready http://127.0.0.1:PORT` on standard output, once, when a request would be answered;
    everything else goes to standard error. Port 0 takes any free one. To be called from the main
    thread: the signals arrive there, and the processes end with the thread that started them.

    Raises:
        Unusable: Another `up` or a long command has this home, or the port is taken.
        Unavailable: A service or a program cannot be started.
    """

    def children(home: Home, port: int) -> list[Child]:
        return [*product(home, port), *played(settings)]

    return supervise(settings, port, children=children, prepare=_migrate)


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
            state.bury_former(STOP_SECONDS_MAX)
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
                str(WORKER_PROCESSES),
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


def played(settings: Settings) -> list[Child]:
    """Return the programs that play providers in a sandbox: what a payer's page there leads to.

    Only those of the sandbox's own providers file, which says where they are. One whose port is
    taken is left out: all else works without it.
    """
    if settings.mode == "production" or settings.providers is not None:
        return []
    found = []
    journals = settings.home / STAND_INS
    for stand_in in stand_ins(settings.providers_file, journals).values():
        if is_free(stand_in.port):
            found.append(Child(stand_in.name, stand_in.argv, needed=False))
        else:
            tell(
                f"Port {stand_in.port} is taken, so {stand_in.name} is left out: nobody can pay by"
                " its pages."
            )
    return found


@dataclass
class Stop:
    """How often we were told to stop. The second time hurries."""

    asked: int = 0

    def hurried(self) -> bool:
        return self.asked > 1


class Keeper:
    """Keeps processes running: what dies is started again, after a pause that grows."""

    def __init__(
        self,
        changed: Callable[[Sequence[Service]], None],
        dispensable: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """Begin with none.

        Args:
            changed: Called with all of them whenever one starts or dies.
            dispensable: Returns the names of those that are given up where they keep dying.
        """
        self.ready = False
        self._dispensable = dispensable
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
        for kept in list(self._kept):
            if kept.due_at is None and not kept.service.is_alive():
                self._note_death(kept, now)
            elif kept.due_at is not None and now >= kept.due_at:
                self._start_again(kept, now)

    def _note_death(self, kept: _Kept, now: float) -> None:
        kept.deaths += 1
        if not self.ready and kept.deaths >= DEATHS_BEFORE_READY_MAX:
            if kept.service.name in self._dispensable():
                tell(f"{kept.service.name} keeps ending and is left out (see {kept.service.log}).")
                self._kept.remove(kept)
                self._changed(self.services)
                return
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
    dispensable: set[str] = set()
    keeper = Keeper(state.write, lambda: dispensable)
    programs: list[Service] = []
    with _embedded(settings, home, stop) as embedded:
        if stop.asked:
            return 0
        require_answers(settings)
        tell(f"Starting; the logs are in {home.log}.")
        keeper.adopt(embedded.members if embedded else [])
        environment = _environment(settings, state.port, embedded)
        prepare(environment["WASL_DATABASE_URL"])
        chosen = children(home, state.port)
        dispensable |= {child.name for child in chosen if not child.needed}
        programs += [
            Process(
                child.name,
                child.argv,
                log=home.log / f"{child.name}.log",
                death_signal=signal.SIGTERM,
                environment=environment,
            )
            for child in chosen
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
                sys.stdout.write(f"ready {local_url(port)}\n")
                sys.stdout.flush()
            elif now >= next_notice:
                tell(f"Not ready after {now - began:.0f} s; still trying {local_url(port)}/readyz.")
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
        environment["WASL_BASE_URL"] = local_url(port)
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
