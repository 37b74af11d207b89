"""The embedded PostgreSQL: one cluster in the home, durable, reachable from this machine only."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from gateway.embedded.binaries import PostgresBinaries, choose_postgres, major_version_of
from gateway.embedded.home import Home
from gateway.embedded.processes import (
    AS_WE_ARE,
    NOBODY,
    POLL_SECONDS,
    Account,
    Process,
    can_run,
    free_port,
    kill_group,
    open_log,
    processes_in,
    service_environment,
    signal_if_there,
    spawn,
    started_ticks,
    wait_until,
)
from gateway.errors import Unavailable
from gateway.secretfiles import write_privately

SUPERUSER: Final = "wasl"
DATABASE: Final = "wasl"

INITDB_SECONDS_MAX: Final = 180
PROBE_SECONDS_MAX: Final = 10
CONNECT_SECONDS_MAX: Final = 5
STOP_SECONDS_MAX: Final = 60
FORMER_SECONDS_MAX: Final = 60
FORMER_PATIENCE_SECONDS: Final = 3
"""How long a PostgreSQL that lost its parent may take before it is told again to stop."""

SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    # A socket's path has 107 bytes at most, and a home may lie deeper.
    "unix_socket_directories": "",
    "fsync": "on",
    "shared_buffers": "256MB",
    "max_connections": "100",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    # The detail of a refused row quotes its values, and they may be a person's.
    "log_error_verbosity": "terse",
}


class Postgres:
    """One PostgreSQL in a home. Start it, wait until it is ready, stop it, start it again.

    The port stays the same from start to start, so that clients find it again.
    """

    name = "postgres"

    def __init__(self, home: Home, *, binaries: PostgresBinaries | None = None) -> None:
        """Prepare one; nothing runs yet.

        Args:
            home: A prepared home whose services we own.
            binaries: Which PostgreSQL; by default the one that fits the data, else the newest of
                the machine, else the wheel's.

        Raises:
            Unavailable: No PostgreSQL fits, or none can run here; says what to do.
        """
        self.port = free_port()
        self.log = home.log / "postgres.log"
        self._home = home
        self._data = home.postgres.resolve()
        self._binaries = binaries or choose_postgres(self._data)
        self._account = _account_for(self._binaries, home.path, self._data)
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return self._url(DATABASE)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it on its port, making the cluster where there is none yet.

        A former PostgreSQL of this directory, left by a killed command, is waited for. `wait_ready`
        says when this one answers.

        Raises:
            Unavailable: The cluster cannot be made, or the former one does not end.
        """
        assert not self.is_alive(), "it is running"
        if major_version_of(self._data) is None:
            self._create_cluster()
        self._outlast_former()
        if not (self._home.run / "postgres.password").exists():
            self._renew_password()
        settings = SETTINGS | {"port": str(self.port)}
        self._process = Process(
            self.name,
            [
                self._binaries.postgres,
                *("-D", self._data),
                *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
            ],
            log=self.log,
            death_signal=signal.SIGINT,  # the fast shutdown: clients are cut off, data is flushed
            environment=service_environment(),
            directory=self._data,
            account=self._account,
        )
        self._process.start()

    def wait_ready(self, seconds: float) -> None:
        """Wait until it answers us and has our database.

        Raises:
            Unavailable: It ended, or does not answer in time.
        """
        answered = wait_until(lambda: not self.is_alive() or self._answers(), seconds)
        if not self.is_alive():
            raise Unavailable(f"PostgreSQL ended while starting: see {self.log}.")
        if not answered:
            raise Unavailable(f"PostgreSQL did not answer within {seconds:g} s: see {self.log}.")

    def is_alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def ask_to_stop(self) -> None:
        if self._process:
            self._process.ask_to_stop()

    def stop(self, seconds: float = STOP_SECONDS_MAX) -> None:
        """Stop it: cleanly within so many seconds, else at once, to recover at the next start."""
        if self._process is None:
            return
        self._process.ask_to_stop()
        if not self._process.wait(seconds):
            self._process.ask_to_stop(with_signal=signal.SIGQUIT)
            self._process.stop(FORMER_PATIENCE_SECONDS)

    def _url(self, database: str) -> str:
        password = self._home.password(self.name)
        return f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{self.port}/{database}"

    def _answers(self) -> bool:
        # Imported here, so that it loads while the server starts.
        import psycopg

        try:
            with psycopg.connect(
                self._url("postgres"), connect_timeout=CONNECT_SECONDS_MAX, autocommit=True
            ) as connection:
                exists = "SELECT 1 FROM pg_database WHERE datname = %s"
                if connection.execute(exists, (DATABASE,)).fetchone() is None:
                    connection.execute(f"CREATE DATABASE {DATABASE}".encode())
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise Unavailable(
                    f"PostgreSQL does not accept the password in {self._home.run}: remove the file"
                    " postgres.password there, and a new one is made at the next start."
                ) from None
            return False
        return True

    def _create_cluster(self) -> None:
        """Make a cluster beside its place and move it there whole.

        A command killed in the middle leaves a directory that no one mistakes for a cluster.
        """
        for leftover in self._data.parent.glob(f"{self._data.name}.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        staging = self._data.with_name(f"{self._data.name}.new-{secrets.token_hex(4)}")
        staging.mkdir(mode=0o700)
        try:
            # Kept first: a cluster must never stand there with a password that nobody knows.
            password = self._home.password(self.name)
            write_privately(staging / "password", password + "\n")
            if self._account.uid is not None and self._account.gid is not None:
                for made in (staging, staging / "password"):
                    os.chown(made, self._account.uid, self._account.gid)
            self._run_to_end(
                [
                    self._binaries.initdb,
                    *("--pgdata", staging / "data", "--username", SUPERUSER),
                    *("--auth", "scram-sha-256", "--pwfile", staging / "password"),
                    *("--encoding", "UTF8", "--locale", "C.UTF-8", "--data-checksums"),
                    "--no-instructions",
                ],
                staging,
            )
            (staging / "data").rename(self._data)
            _make_durable(self._data.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _renew_password(self) -> None:
        """Give the superuser a new password, in the single-user mode that asks for none."""
        command = f"ALTER ROLE {SUPERUSER} PASSWORD '{self._home.password(self.name)}'\n"
        reading, writing = os.pipe()
        os.write(writing, command.encode())
        os.close(writing)
        try:
            self._run_to_end(
                [self._binaries.postgres, "--single", "-D", self._data, "postgres"],
                self._data,
                stdin=reading,
            )
        finally:
            os.close(reading)

    def _run_to_end(
        self, argv: list[str | Path], directory: Path, *, stdin: int = subprocess.DEVNULL
    ) -> None:
        with open_log(self.log) as output:
            child = spawn(
                argv,
                output=output.fileno(),
                stdin=stdin,
                death_signal=signal.SIGKILL,
                environment=service_environment(),
                directory=directory,
                account=self._account,
            )
        try:
            code = child.wait(INITDB_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if child.returncode is None:
                kill_group(child.pid)
                child.wait()
        if code != 0:
            raise Unavailable(f"{Path(argv[0]).name} failed: see the end of {self.log}.")

    def _outlast_former(self) -> None:
        """Wait for what a killed command, or a killed PostgreSQL, left on our directory.

        We own the home's services, so nothing there is anybody else's. A postmaster that lost its
        parent is shutting down; processes that lost their postmaster end when they notice, which a
        long query may never do.
        """
        lock_file = self._data / "postmaster.pid"
        began = time.monotonic()
        told: set[int] = set()
        while running := processes_in(self._data, "postgres"):
            waited = time.monotonic() - began
            if waited > FORMER_SECONDS_MAX:
                raise Unavailable(
                    f"A PostgreSQL (process {running[0]}) still runs on {self._data} and does not"
                    " end: stop it, then try again."
                )
            if waited > FORMER_PATIENCE_SECONDS:
                postmaster = _first_number(lock_file)
                kind = signal.SIGINT if postmaster in running else signal.SIGQUIT
                for pid in [postmaster] if postmaster in running else running:
                    if pid is not None and pid not in told:
                        signal_if_there(pid, kind)
                        told.add(pid)
            time.sleep(POLL_SECONDS)
        # PostgreSQL sees itself when the process is no more. It refuses to start when the number
        # has gone to another process, and when a power cut has left the file empty.
        former = _first_number(lock_file)
        if former is None or started_ticks(former) is not None:
            lock_file.unlink(missing_ok=True)


def _account_for(binaries: PostgresBinaries, home: Path, data: Path) -> Account:
    """Decide whom PostgreSQL runs as. It refuses to run as root.

    The owner of an existing directory decides; nothing that exists is given to anybody else.
    """
    we = os.geteuid()
    owner = data.stat() if major_version_of(data) is not None else None
    if we != 0:
        if owner is not None and owner.st_uid != we:
            raise Unavailable(
                f"{data} belongs to another user: run as that user, or choose another WASL_HOME."
            )
        if _is_named(we):
            return AS_WE_ARE
        as_nobody = Account(namespace=True)
        if can_run([binaries.postgres, "--version"], as_nobody, home, PROBE_SECONDS_MAX):
            return as_nobody
        raise Unavailable(
            f"No account of this machine is user {we}, and PostgreSQL's initdb wants one: run as"
            " a user that has one, or set WASL_DATABASE_URL."
        )
    nobody, namespace = Account(NOBODY, NOBODY), Account(namespace=True)
    if owner is None:
        choice = [nobody, namespace]
    else:
        choice = [Account(owner.st_uid, owner.st_gid) if owner.st_uid else namespace]
    for account in choice:
        if can_run([binaries.postgres, "--version"], account, home, PROBE_SECONDS_MAX):
            return account
    raise Unavailable(
        f"PostgreSQL does not run as root, and nobody else may enter both {home} and"
        f" {binaries.directory}: run as a plain user, or choose a WASL_HOME that everybody may"
        " enter, or set WASL_DATABASE_URL."
    )


def _is_named(uid: int) -> bool:
    """Say whether the machine has an account for us; a container's made-up user has none."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _first_number(path: Path) -> int | None:
    try:
        return int(path.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _make_durable(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
