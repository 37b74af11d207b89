"""`wasl bench webhooks`: deliveries taken in as the product takes them in, beside bare commits.

Ours is the web process as it is run, over HTTP: signature, clock, store, commit, and only then the
answer. The limit is pgbench, whose 32 clients insert one row a commit into the same table. Both use
one PostgreSQL in a scratch home, with fsync on, in turns. In the end every delivery that was
answered must be in the inbox, once.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, Final

import psycopg
from sqlalchemy.engine import make_url

from gateway import migrate
from gateway.bench.load import PROVIDER, Shot, shoot
from gateway.bench.measure import Measured, Progress, interleaved
from gateway.embedded.binaries import choose_postgres
from gateway.embedded.home import Home
from gateway.embedded.processes import Process, free_port, wait_until
from gateway.errors import Unavailable, Unusable
from gateway.services import Services, running_services
from gateway.settings import settings

CONNECTIONS: Final = 128
FEW_CONNECTIONS: Final = 4
P99_MS_MAX: Final = 50
FEW_P99_MS_MAX: Final = 10
FEW_SHARE: Final = 0.4
"""Few connections are measured for this share of the time that many are."""
AGAIN: Final = 100
"""So many deliveries are sent once more in the end, and must leave no row."""
WARM_UP_SECONDS: Final = 1.0
_PGBENCH_SECONDS_MIN: Final = 2
"""On a busy machine its 32 connections are not there within one."""
START_SECONDS_MAX: Final = 60
STOP_SECONDS_MAX: Final = 20
_ALL: Final = 10**9

# A row as large as a delivery's is, with constants in place of what is computed from bytes: the
# least that a committed delivery can be. docs/operations.md says how to run it by hand.
PGBENCH_SCRIPT: Final = """\
\\set n :n + 1
INSERT INTO webhook_delivery (provider, delivery_id, body, body_sha256, received_at)
VALUES (
    'pgbench',
    'msg_' || :run::text || '-' || :client_id::text || '-' || :n::text,
    repeat('b', 350)::bytea,
    sha256(repeat('b', 350)::bytea),
    now()
);
"""


def bench_webhooks(*, rounds: int, seconds: float, progress: Progress) -> list[Measured]:
    """Measure how many deliveries a second are taken in, in a scratch home of its own.

    Args:
        rounds: How often ours and the limit are measured, in turns.
        seconds: How long each is, many connections and the limit.
        progress: Told after each turn.

    Returns:
        The rate at CONNECTIONS beside the limit's; the 99th percentiles of the time to an answer
        there and at FEW_CONNECTIONS, in milliseconds, beside what they may be; the processor time
        of a delivery beside that of a bare commit (server and PostgreSQL, without either client),
        in microseconds; and the sender's share of the machine's processors, in percent.

    Raises:
        Unavailable: The services, the server or pgbench cannot be started.
        Unusable: A delivery that was answered is not in the inbox, or is there twice.
    """
    with tempfile.TemporaryDirectory(prefix="wasl-bench-") as scratch, _stage(scratch) as stage:
        stage.many(min(seconds, WARM_UP_SECONDS))
        stage.limit(min(seconds, WARM_UP_SECONDS))
        stage.forget()
        rate = interleaved(
            f"webhooks at {CONNECTIONS} connections",
            ours=lambda: stage.ours(seconds),
            limit=lambda: stage.limit(seconds),
            unit="deliveries/s",
            rounds=rounds,
            progress=progress,
        )
        stage.prove()
    many, few = stage.shots[CONNECTIONS], stage.shots[FEW_CONNECTIONS]
    share = median(100 * s.cpu_seconds / s.seconds / (os.cpu_count() or 1) for s in many)
    cpu = {who: median(found) for who, found in stage.cpu_us.items()}
    p99, few_p99 = median(s.p99_ms for s in many), median(s.p99_ms for s in few)
    return [
        rate,
        Measured(f"webhooks: p99 at {CONNECTIONS} connections", p99, P99_MS_MAX, "ms", rounds),
        Measured(
            f"webhooks: p99 at {FEW_CONNECTIONS} connections", few_p99, FEW_P99_MS_MAX, "ms", rounds
        ),
        Measured("webhooks: processor time, server", cpu["server"], cpu["limit"], "us", rounds),
        Measured("webhooks: processor time, store", cpu["postgres"], cpu["limit"], "us", rounds),
        Measured("webhooks: the load generator's share of the CPU", share, 100, "%", rounds),
    ]


@contextmanager
def taking(scratch: str) -> Iterator[tuple[Services, Callable[[float], float]]]:
    """Give services, and what takes in for some seconds and returns how many a second they were.

    Raises:
        Unavailable: The services or the server cannot be started in the scratch home.
    """
    with _stage(scratch) as stage:
        stage.many(WARM_UP_SECONDS)
        yield stage.services, stage.many


@dataclass(slots=True)
class _Stage:
    """A server that takes deliveries, and what was measured of it."""

    services: Services
    port: int
    secret: bytes
    server: int
    """Process ids, this one and the next."""
    postgres: int
    pgbench: Path
    """The program, of the PostgreSQL that runs."""
    sent: int = 0
    runs: int = 0
    shots: dict[int, list[Shot]] = field(default_factory=dict)
    cpu_us: dict[str, list[float]] = field(default_factory=dict)

    def ours(self, seconds: float) -> float:
        """Send by many connections, then by few; return deliveries a second of the former."""
        rate = self.many(seconds)
        self._shoot(FEW_CONNECTIONS, seconds * FEW_SHARE)
        return rate

    def many(self, seconds: float) -> float:
        """Send by many connections; return deliveries a second."""
        server, postgres = cpu_seconds(self.server), cpu_seconds(self.postgres)
        shot = self._shoot(CONNECTIONS, seconds)
        self._used("server", cpu_seconds(self.server) - server, shot.answered)
        self._used("postgres", cpu_seconds(self.postgres) - postgres, shot.answered)
        return shot.rate

    def limit(self, seconds: float) -> float:
        """Run pgbench; return commits a second."""
        self._checkpoint()
        self.runs += 1
        before = cpu_seconds(self.postgres)
        rate, done = pgbench(self.pgbench, self.services.database_url, seconds, self.runs)
        self._used("limit", cpu_seconds(self.postgres) - before, done)
        return rate

    def forget(self) -> None:
        """Forget what was measured so far, which was to warm up."""
        self.shots.clear()
        self.cpu_us.clear()

    def prove(self) -> None:
        """Compare the inbox with what was answered, and send some again.

        Raises:
            Unusable: They differ.
        """
        self._fire(1, min(AGAIN, self.sent), FEW_CONNECTIONS, 60)
        with psycopg.connect(self.services.database_url) as connection:
            rows, variants, missing = connection.execute(
                "SELECT (SELECT count(*) FROM webhook_delivery WHERE provider = %(provider)s),"
                " (SELECT count(*) FROM webhook_variant),"
                " (SELECT count(*) FROM generate_series(1, %(sent)s) AS n WHERE NOT EXISTS ("
                "  SELECT FROM webhook_delivery WHERE provider = %(provider)s"
                "  AND delivery_id = 'msg_' || lpad(n::text, 12, '0')"
                "  AND body_sha256 = sha256(body)))",
                {"provider": PROVIDER, "sent": self.sent},
            ).fetchone() or (0, 0, 0)
        if (rows, variants, missing) != (self.sent, 0, 0):
            raise Unusable(
                f"Of {self.sent} deliveries answered 202, {missing} are missing; there are {rows}"
                f" rows, and {variants} variants where none was sent."
            )

    def _shoot(self, connections: int, seconds: float) -> Shot:
        self._checkpoint()
        shot = self._fire(self.sent + 1, _ALL, connections, seconds)
        self.sent += shot.answered
        self.shots.setdefault(connections, []).append(shot)
        return shot

    def _fire(self, first: int, most: int, connections: int, seconds: float) -> Shot:
        """Send from a process of its own, whose processor time is its own."""
        call: Mapping[str, Any] = {
            "first": first,
            "most": most,
            "connections": connections,
            "seconds": seconds,
        }
        with get_context("spawn").Pool(1) as pool:
            return pool.apply_async(shoot, (self.port, self.secret), call).get(600 + seconds)

    def _used(self, who: str, seconds: float, units: int) -> None:
        self.cpu_us.setdefault(who, []).append(1e6 * seconds / units)

    def _checkpoint(self) -> None:
        """Leave nothing of the former turn to be written in this one."""
        with psycopg.connect(self.services.database_url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")


def pgbench(program: Path, database_url: str, seconds: float, run: int) -> tuple[float, int]:
    """Insert one row a commit by 32 clients; return commits a second and how many they were.

    Raises:
        Unavailable: There is no pgbench beside the PostgreSQL that runs, or it failed.
    """
    url = make_url(database_url)
    # An address on the command line would show its password to the machine.
    address = {
        "PGHOST": url.host,
        "PGPORT": str(url.port or 5432),
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
    }
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(PGBENCH_SCRIPT)
        script.flush()
        length = max(_PGBENCH_SECONDS_MIN, round(seconds))
        options = f"-n -M prepared -c 32 -j 2 -T {length} -D n=0 -D run={run}"
        try:
            done = subprocess.run(  # noqa: S603  # a program of PostgreSQL's, no shell
                [program, *options.split(), "-f", script.name],
                env=os.environ | {name: str(value) for name, value in address.items() if value},
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            raise Unavailable(f"{program} cannot be run ({error.strerror}).") from None
    rate = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
    count = re.search(r"actually processed: ([0-9]+)", done.stdout)
    if done.returncode != 0 or rate is None or count is None:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise Unavailable(f"pgbench failed ({done.returncode}): {last}")
    return float(rate[1]), int(count[1])


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and of its children, ended ones too."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text("utf-8", "replace")
        except OSError:
            continue  # It ended meanwhile: its time is its parent's.
        # The name before may hold anything; what follows its bracket are numbers.
        fields = text.rpartition(")")[2].split()
        if int(stat.parent.name) == pid:
            ticks += sum(int(each) for each in fields[11:15])
        elif int(fields[1]) == pid:
            ticks += sum(int(each) for each in fields[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def _stage(scratch: str) -> Iterator[_Stage]:
    """Run services and the web process in a scratch home, with one provider."""
    home = Path(scratch)
    unnamed = {"home": home, "database_url": None, "redis_url": None}
    with running_services(settings().model_copy(update=unnamed)) as services:
        migrate.upgrade(services.database_url)
        secret = secrets.token_bytes(32)
        encoded = base64.b64encode(secret).decode()
        (home / "providers.toml").write_text(
            f'[[provider]]\nname = "{PROVIDER}"\nkind = "standard-webhooks"\n'
            f'secrets = ["whsec_{encoded}"]\n'
        )
        with psycopg.connect(services.database_url) as connection:
            postgres = _parent(connection.info.backend_pid)
        program = choose_postgres(Home(home).postgres.resolve()).directory / "pgbench"
        with _server(home, services) as (port, server):
            yield _Stage(services, port, secret, server, postgres, program)


@contextmanager
def _server(home: Path, services: Services) -> Iterator[tuple[int, int]]:
    """Run the web process as the product does; give its port and its process id."""
    port = free_port()
    ours = ("WASL_", "OTEL_")
    web = Process(
        "web",
        [sys.executable, "-m", "gateway.serve", "--port", str(port)],
        log=home / "web.log",
        death_signal=signal.SIGTERM,
        environment={
            **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
            "WASL_HOME": str(home),
            "WASL_DATABASE_URL": services.database_url,
            "WASL_REDIS_URL": services.redis_url,
        },
        directory=Path.cwd(),
    )
    web.start()
    try:
        if not wait_until(lambda: not web.is_alive() or _is_ready(port), START_SECONDS_MAX):
            raise Unavailable(f"The web process is not ready within {START_SECONDS_MAX} s.")
        if web.pid is None:
            last = web.log.read_text("utf-8", "replace").splitlines()[-1:]
            raise Unavailable(f"The web process ended: {last}")
        yield port, web.pid
    finally:
        web.stop(STOP_SECONDS_MAX)


def _is_ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _parent(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    return int(stat.rpartition(")")[2].split()[1])
