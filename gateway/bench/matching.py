"""`wasl bench match`: the matching engine, beside one hash join of the two text references.

Three times ours: in memory (reading the references, then all passes, on tables that are loaded),
from CSV to CSV (`wasl match` as a process of its own), and from and to PostgreSQL (a whole run over
a database of its own). The limit is the least that a matcher must do: DuckDB joins the same two
columns of text by hash and counts, right before and right after each of the three, since a machine
that others use changes its pace within a minute. Figures are seconds, of the round whose ratio is
the median; a smaller ratio is better. What is right is judged by the tests; here every row must be
in one outcome.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import duckdb
import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from gateway import db, migrate
from gateway.bench.ledgers import make_dues, write_ledgers, write_rows
from gateway.bench.measure import Measured, Progress
from gateway.db import transaction
from gateway.dues.tariff import keep_categories, tariff
from gateway.errors import Unusable
from gateway.services import Services, running_services
from gateway.settings import settings

_FULL: Final = "match_full"
_FRESH: Final = "match_round"
_NOW: Final = "2026-12-01T12:00:00+00:00"
_THREADS: Final = 2
_MEMORY: Final = "700MB"
_JOIN: Final = "SELECT count(*) FROM raw_payment p JOIN raw_record r ON p.reference = r.reference"
_JOINS: Final = 5
"""The limit is short: one figure of it is the median of several."""
_MEGABYTES_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class _Turn:
    """One of the three, run once: seconds, those of the limit beside it, and its peak memory."""

    seconds: float
    limit: float
    megabytes: float

    @property
    def ratio(self) -> float:
        return self.seconds / self.limit


def _measured(turns: Mapping[str, Sequence[_Turn]], size: str, rounds: int) -> list[Measured]:
    middle = {
        name: sorted(of, key=lambda turn: turn.ratio)[(len(of) - 1) // 2]
        for name, of in turns.items()
    }
    return [
        *(
            Measured(f"match {name}, {size}", turn.seconds, turn.limit, "s", rounds)
            for name, turn in middle.items()
        ),
        *(
            Measured(
                f"peak memory, match {name}, {size}",
                max(turn.megabytes for turn in of),
                _MEGABYTES_MAX,
                "MB",
                rounds,
            )
            for name, of in turns.items()
        ),
    ]


def bench_match(
    records: int,
    *,
    rounds: int,
    flat: bool = False,
    database: bool = True,
    progress: Progress = lambda _done, _of: None,
) -> list[Measured]:
    """Measure how long matching takes, in scratch homes of its own.

    Args:
        records: How many records; as many payments, within a few in a thousand.
        rounds: How often each is run, in turns.
        flat: Everybody owes the same amount.
        database: Whether a run from and to PostgreSQL is measured too.
        progress: Told after each turn.

    Raises:
        Unavailable: The services cannot be started.
        Unusable: A row is in no outcome, or in two.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wasl-bench-")))
        _in_child(_make_files, scratch, records, flat)
        works: dict[str, Callable[[], tuple[float, float]]] = {
            "in memory": lambda: _in_child(_match_in_memory, scratch),
            "from CSV to CSV": lambda: _files(scratch),
        }
        if database:
            services = stack.enter_context(
                running_services(settings().model_copy(update={"home": scratch / "home"}))
            )
            _fill(services, scratch)
            works["from and to PostgreSQL"] = lambda: _database(services, scratch / "home")
        limit = stack.enter_context(_limit(scratch))
        turns: dict[str, list[_Turn]] = {name: [] for name in works}
        for done in range(rounds * len(works)):
            name = list(works)[done % len(works)]
            before = limit()
            seconds, megabytes = works[name]()
            turns[name].append(_Turn(seconds, (before + limit()) / 2, megabytes))
            progress(done + 1, rounds * len(works))
    return _measured(turns, f"{records} records{', flat' if flat else ''}", rounds)


def _in_child(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a fresh process, so that its peak memory is its own."""
    context = get_context("spawn")
    answers = context.Queue()
    child = context.Process(target=_answer, args=(answers, work, arguments))
    child.start()
    child.join()
    if child.exitcode != 0:
        raise Unusable(f"{work.__name__} ended with {child.exitcode}.")
    return answers.get()


def _answer(answers: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    answers.put(work(*arguments))


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _connected() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute(f"SET threads = {_THREADS}")
    con.execute(f"SET memory_limit = '{_MEMORY}'")
    con.execute("SET preserve_insertion_order = false")
    return con


def _make_files(scratch: Path, records: int, flat: bool) -> None:
    con = _connected()
    make_dues(con, records, flat=flat)
    write_ledgers(con, scratch)
    rows = [(table, columns, str(path)) for table, columns, path in write_rows(con, scratch)]
    (scratch / "rows.json").write_text(json.dumps(rows))


# -- the limit ------------------------------------------------------------------------------------


@contextmanager
def _limit(scratch: Path) -> Iterator[Callable[[], float]]:
    """Have the two columns in the memory of a process of their own, which joins them when called.

    What is called returns the seconds of a join: the median of several, for they are short.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_join, args=(theirs, scratch))
    child.start()
    # Else a child that ended would be waited for.
    theirs.close()

    def joined() -> float:
        try:
            ours.send(True)
            seconds: float = ours.recv()
        except (EOFError, BrokenPipeError):
            raise Unusable("The join that is the limit did not end.") from None
        return seconds

    try:
        yield joined
    finally:
        ours.close()
        child.join()


def _join(asked: Connection, scratch: Path) -> None:
    con = _connected()
    for side in ("payment", "record"):
        con.execute(
            f"CREATE TABLE raw_{side} AS SELECT reference"
            f" FROM read_csv('{scratch / side}s.csv', all_varchar = true, header = true)"
        )
    with suppress(EOFError):
        while asked.recv():
            asked.send(
                statistics.median(
                    _seconds(lambda: con.execute(_JOIN).fetchall()) for _ in range(_JOINS)
                )
            )


# -- in memory ------------------------------------------------------------------------------------


def _match_in_memory(scratch: Path) -> tuple[float, float]:
    from reconciliation.engines.duck import DuckEngine
    from reconciliation.matching import Terms
    from reconciliation.reading_tables import read_keys, read_rows

    con = _connected()
    for side, day in (("payment", "paid_on"), ("record", "posted_on")):
        con.execute(
            f"CREATE TABLE raw_{side} AS SELECT row_number() OVER () AS n, {side}_id AS id,"
            " reference, cnss_number, cin, name, CAST(replace(amount, '.', '') AS BIGINT) AS a,"
            f" CAST({day} AS DATE) AS d, provider_reference"
            f" FROM read_csv('{scratch / side}s.csv', all_varchar = true, header = true)"
        )
    engine = DuckEngine(con, Terms())

    def match() -> None:
        read_keys(con, "payment")
        read_keys(con, "record")
        engine.within_references()
        read_rows(con, "payment")
        read_rows(con, "record")
        engine.rest()

    took = _seconds(match)
    for side in ("payment", "record"):
        counted = con.execute(
            f"SELECT (SELECT count(*) FROM raw_{side}),"
            f" (SELECT count(DISTINCT {side[0]}n) FROM matched)"
            f" + (SELECT count(*) FROM {side}_open)"
        ).fetchone()
        assert counted is not None
        if counted[0] != counted[1]:
            raise Unusable(f"Of {counted[0]} {side}s {counted[1]} are in an outcome.")
    return took, _peak_megabytes()


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# -- from CSV to CSV ------------------------------------------------------------------------------


def _files(scratch: Path) -> tuple[float, float]:
    began = time.perf_counter()
    command = [sys.executable, "-m", "gateway.cli", "match", "--json"]
    for option, path in (
        ("--payments", scratch / "payments.csv"),
        ("--records", scratch / "records.csv"),
        ("--out", scratch / "matched"),
    ):
        command += [option, str(path)]
    ended = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own
    took = time.perf_counter() - began
    if ended.returncode != 0:
        raise Unusable(f"wasl match ended with {ended.returncode}: {ended.stderr.decode()}")
    answer = json.loads(ended.stdout)
    for side in ("payments", "records"):
        if answer[side] != answer[f"matched_{side}"] + answer[f"open_{side}"]:
            raise Unusable(f"wasl match left {side} in no outcome: {answer}.")
    return took, answer["peak_mb"]


# -- from and to PostgreSQL -----------------------------------------------------------------------


def _named(services: Services, database: str) -> str:
    url = make_url(services.database_url).set(database=database)
    return url.render_as_string(hide_password=False)


def _fill(services: Services, scratch: Path) -> None:
    """Make a database of booked payments and records, to be cloned."""
    with psycopg.connect(_named(services, "postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_FULL)))
    url = _named(services, _FULL)
    migrate.upgrade(url)
    db.connect(url)
    try:
        with transaction() as session:
            keep_categories(session, tariff())
    finally:
        db.disconnect()
    rows = json.loads((scratch / "rows.json").read_text())
    with psycopg.connect(url, autocommit=True) as connection:
        # What triggers would write beside these rows, matching does not read.
        connection.execute("SET session_replication_role = replica")
        connection.execute(
            "INSERT INTO record_file (id, sha256, lines, imported_at) VALUES (1, 'bench', 1, now())"
        )
        for table, columns, path in rows:
            copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
                sql.Identifier(table), sql.SQL(columns)
            )
            with (
                connection.cursor() as cursor,
                cursor.copy(copy) as to,
                Path(path).open("rb") as file,
            ):
                while block := file.read(1 << 20):
                    to.write(block)
            connection.execute(
                sql.SQL(
                    "SELECT setval(pg_get_serial_sequence({}, 'id'), (SELECT max(id) FROM {}))"
                ).format(table, sql.Identifier(table))
            )
        connection.execute("VACUUM ANALYZE")


def _database(services: Services, home: Path) -> tuple[float, float]:
    with psycopg.connect(_named(services, "postgres"), autocommit=True) as admin:
        fresh, full = sql.Identifier(_FRESH), sql.Identifier(_FULL)
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(fresh))
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(fresh, full))
        admin.execute("CHECKPOINT")
    environment = {
        "WASL_HOME": str(home),
        "WASL_DATABASE_URL": _named(services, _FRESH),
        "WASL_REDIS_URL": services.redis_url,
    }
    took, megabytes = _in_child(_reconcile, environment)
    return took, megabytes


def _reconcile(environment: Mapping[str, str]) -> tuple[float, float]:
    os.environ.update(environment)
    from reconciliation.runs import reconcile

    db.connect(environment["WASL_DATABASE_URL"])
    took = _seconds(lambda: reconcile(period=None, now=datetime.fromisoformat(_NOW)))
    db.disconnect()
    return took, _peak_megabytes()
