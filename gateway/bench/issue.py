"""`wasl bench issue`: invoices issued as the product issues them, beside a bare COPY of their rows.

Ours is all of `wasl invoices issue`: the order, finding who owes and is not billed, deciding,
references, seals, and writing invoices, lines and events in transactions of some thousand people.
The limit is one COPY for each of the three tables, in one transaction, of the same rows in binary
form from files that lie ready. Each run has a database of its own, cloned from one that holds the
people; indexes, triggers and constraints are those of the product on both sides.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from gateway import db, migrate
from gateway.bench.measure import Measured, Progress, interleaved, per_second
from gateway.billing.issuing import WORKERS, Issuer, work_off
from gateway.billing.orders import order_issue
from gateway.books.seals import books_key
from gateway.clock import INSTITUTION_ZONE
from gateway.db import execute, transaction
from gateway.dues.periods import parse_period
from gateway.dues.tariff import keep_categories, tariff
from gateway.services import running_services
from gateway.settings import settings

MEMORY_MB_MAX: Final = 150
_PERIOD: Final = "2026-11"
_NOW: Final = datetime(2026, 11, 18, 12, tzinfo=INSTITUTION_ZONE)
_BLOCK_BYTES: Final = 131_072
_ANSWER_SECONDS_MAX: Final = 3_600

_INVOICE: Final = (
    "id, reference, contributor_id, category_code, period, due_on, amount_minor, owed_minor,"
    " tariff, issued_at"
)
_LINE: Final = "invoice_id, position, kind, amount_minor, rule_id"
_EVENT: Final = "type, invoice_id, data, happened_at"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Way:
    """A way to issue that is measured."""

    name: str
    sealed: bool
    workers: int = WORKERS


PLAIN: Final = Way("issue", sealed=False)
SEALED: Final = Way("issue sealed", sealed=True)
WAYS: Final = (PLAIN, SEALED, Way("issue sealed by one thread", sealed=True, workers=1))


def bench_issue(
    sizes: Sequence[int], *, rounds: int, progress: Progress, ways: Sequence[Way] = WAYS
) -> list[Measured]:
    """Measure how many invoices a second are issued, in a scratch home of its own.

    Args:
        sizes: For how many people; each on its own.
        rounds: How often ours and the limit are measured, in turns.
        progress: Told after each turn.
        ways: What is measured.

    Returns:
        For each size and way what it did; then the client's memory, against what it may have; and
        of several sizes the rate at the last beside that at the first.

    Raises:
        Unavailable: The services of the scratch home cannot be started.
    """
    memory = _Memory()
    found: list[Measured] = []
    turns = len(sizes) * len(ways) * rounds * 2

    def told(done: int, _of: int) -> None:
        progress(len(found) * rounds * 2 + done, turns)

    with tempfile.TemporaryDirectory(prefix="wasl-bench-") as scratch:
        for people in sizes:
            with _stage(Path(scratch) / f"{people}", people) as stage:
                for way in ways:
                    measured = interleaved(
                        f"{way.name}, {people} people",
                        ours=partial(_issued, memory, stage, way),
                        limit=partial(stage.copy, way),
                        unit="invoices/s",
                        rounds=rounds,
                        progress=told,
                    )
                    found.append(measured)
    answers = [*found, Measured("issue: memory", memory.peak_mb, MEMORY_MB_MAX, "MB", rounds)]
    if len(sizes) > 1:
        for way, one, other in zip(ways, found, found[-len(ways) :], strict=False):
            name = f"{way.name}: {sizes[-1]} people beside {sizes[0]}"
            answers.append(Measured(name, other.ours, one.ours, "invoices/s", rounds))
    return answers


def _issued(memory: _Memory, stage: _Stage, way: Way) -> float:
    rate, peak_mb = stage.issue(way)
    memory.peak_mb = max(memory.peak_mb, peak_mb)
    return rate


@dataclass(slots=True)
class _Memory:
    """The most that a client process had."""

    peak_mb: float = 0


@dataclass(frozen=True, slots=True)
class _Stage:
    """A server with a database of people to clone, and the rows of their invoices in files."""

    url: str
    home: Path
    people: int

    def issue(self, way: Way) -> tuple[float, float]:
        """Issue in a process of its own; return invoices a second, and its peak in megabytes."""
        with self.clone() as url:
            return _alone(_issue, url, self.home / "keys", way, self.people)

    def copy(self, way: Way) -> float:
        """Copy the same rows; return invoices a second."""
        with self.clone() as url:
            return _copy(url, self.home, way.sealed)

    @contextmanager
    def clone(self) -> Iterator[str]:
        """Give a database that holds the people and nothing is issued in."""
        with psycopg.connect(_database(self.url, "postgres"), autocommit=True) as admin:
            admin.execute("DROP DATABASE IF EXISTS wasl_bench")
            source = sql.Identifier(str(make_url(self.url).database))
            admin.execute(sql.SQL("CREATE DATABASE wasl_bench TEMPLATE {}").format(source))
            admin.execute("CHECKPOINT")
            yield _database(self.url, "wasl_bench")
            admin.execute("DROP DATABASE wasl_bench WITH (FORCE)")


def _database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def _alone(work: Callable[..., _T], *arguments: Any) -> _T:
    """Run something in a process of its own: fresh memory, nothing remembered."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply_async(work, arguments).get(_ANSWER_SECONDS_MAX)


def _issue(url: str, keys: Path, way: Way, people: int) -> tuple[float, float]:
    db.connect(url)
    issuer = Issuer(tariff(), books_key(keys), lambda: _NOW, sealed=way.sealed)

    def ours() -> int:
        with transaction() as session:
            order = order_issue(session, tariff(), parse_period(_PERIOD), category=None, now=_NOW)
        work_off(order, issuer, progress=lambda _done, _of: None, workers=way.workers)
        return people

    rate = per_second(ours)
    with transaction() as session:
        assert execute(session, "SELECT count(*) FROM invoice").scalar_one() == people
    db.disconnect()
    return rate, _peak_mb()


def _peak_mb() -> float:
    """Return the most that this process ever had in memory."""
    status = Path("/proc/self/status").read_text("utf-8")
    found = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(found.split()[1]) / 1024


def _copy(url: str, files: Path, sealed: bool) -> float:
    tables = {
        "invoice": f"{_INVOICE}, seal" if sealed else _INVOICE,
        "invoice_line": _LINE,
        "event": _EVENT,
    }
    with psycopg.connect(url) as connection:

        def limit() -> int:
            copied = 0
            with connection.transaction():
                for table, columns in tables.items():
                    name = "invoice-sealed" if sealed and table == "invoice" else table
                    copy = f"COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)".encode()
                    cursor = connection.cursor()
                    with (files / name).open("rb") as file, cursor.copy(copy) as to:
                        while block := file.read(_BLOCK_BYTES):
                            to.write(block)
                    copied = cursor.rowcount
            return copied

        return per_second(limit)


# -- what is prepared -----------------------------------------------------------------------------


@contextmanager
def _stage(home: Path, people: int) -> Iterator[_Stage]:
    """Run services in a scratch home, with people to bill and the rows that billing them makes."""
    home.mkdir()
    unnamed = {"home": home, "database_url": None, "redis_url": None}
    with running_services(settings().model_copy(update=unnamed)) as services:
        url = services.database_url
        migrate.upgrade(url)
        with psycopg.connect(url, autocommit=True) as connection:
            _enrol(url, connection, people)
        stage = _Stage(url, home, people)
        with stage.clone() as once:
            _alone(_issue, once, home / "keys", SEALED, people)
            _keep_rows(once, home)
            _keep_rules(once, url)
        yield stage


def _enrol(url: str, connection: psycopg.Connection[Any], people: int) -> None:
    """Enrol people who owe by the month: four in five a flat amount, the others by their profit."""
    db.connect(url)
    with transaction() as session:
        keep_categories(session, tariff())
    db.disconnect()
    connection.execute(
        "INSERT INTO contributor (cnss_number, family_name, given_name, category_code,"
        " category_base_minor, registered_on, changed_at)"
        " SELECT lpad(n::text, 9, '0'), 'Alaoui', 'Amina',"
        " CASE WHEN n %% 5 > 0 THEN 'artisan-untaxed' ELSE 'accounts-real' END,"
        " CASE WHEN n %% 5 = 0 THEN n::bigint * 7919 %% 30000000 END, '2022-01-01', now()"
        " FROM generate_series(1, %s) AS n",
        [people],
    )
    connection.execute("VACUUM ANALYZE")


def _keep_rows(url: str, files: Path) -> None:
    """Write the rows of what was issued as COPY takes them."""
    queries = {
        "invoice": f"SELECT {_INVOICE} FROM invoice ORDER BY id",
        "invoice-sealed": f"SELECT {_INVOICE}, seal FROM invoice ORDER BY id",
        "invoice_line": f"SELECT {_LINE} FROM invoice_line ORDER BY invoice_id",
        "event": f"SELECT {_EVENT} FROM event ORDER BY id",
    }
    with psycopg.connect(url) as connection:
        for name, query in queries.items():
            copy = f"COPY ({query}) TO STDOUT (FORMAT BINARY)".encode()
            with (files / name).open("wb") as file, connection.cursor().copy(copy) as rows:
                for block in rows:
                    file.write(block)


def _keep_rules(source: str, target: str) -> None:
    """Put the rules that lines point to into the database of people, under the same ids."""
    columns = "id, rule, source, verified, facts"
    with psycopg.connect(source) as one, psycopg.connect(target) as other:
        for row in one.execute(f"SELECT {columns.replace('facts', 'facts::text')} FROM rule"):
            other.execute(f"INSERT INTO rule ({columns}) VALUES (%s, %s, %s, %s, %s)", row)
        other.execute("SELECT setval(pg_get_serial_sequence('rule', 'id'), 1000)")
