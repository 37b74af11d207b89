"""Workers as they are started by hand, each with a home of its own, on one database and Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Final

import psycopg
import pytest
from celery import Celery
from redis import Redis

from gateway.db import execute, snapshot
from gateway.services import Services
from gateway.worker import RECONCILE
from reconciliation.exports import export_matches
from reconciliation.runs import reconcile
from tests.reconciliation.factories import NOW, asked, how_many
from tests.reconciliation.test_shards import ASKED, a_world, broken, forget_matches, imported, run

PATIENCE_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.05
SHARDS: Final = 3

# Whoever is in a shard: it holds the shard's row and waits for us, who hold the table of matches.
HELD: Final = """
    SELECT DISTINCT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE relation = CAST('match_line' AS regclass) AND NOT granted
        AND datname = current_database() ORDER BY 1
"""


def until(reached: Callable[[], bool], *, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Wait for a state; the deadline only ends a test that will never reach it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        assert time.monotonic() < deadline, "the state was never reached"
        meanwhile()
        time.sleep(LOOK_SECONDS)


@pytest.fixture
def redis(services: Services, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    """Bells of this test alone: a database of Redis that no other test uses."""
    url = services.redis_url.rpartition("/")[0] + "/7"
    monkeypatch.setenv("WASL_REDIS_URL", url)
    with Redis.from_url(url) as client:
        yield client
        client.flushdb()


@pytest.fixture
def workers(redis: Redis, tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Two workers that hear bells; each with its pool is a group of processes, as on a machine."""
    started = {}
    command = [sys.executable, "-m", "celery", "--app", "gateway.worker:app", "worker"]
    quiet = ["--concurrency", "1", "--loglevel", "WARNING", "--without-gossip", "--without-mingle"]
    try:
        for name in ("first", "second"):
            environment = {
                **os.environ,
                "WASL_HOME": str(tmp_path / name),
                "WASL_CLOCK": f"={NOW.isoformat()}",
                "PGAPPNAME": name,
            }
            started[name] = subprocess.Popen(
                [*command, *quiet, "--hostname", f"{name}@%h"],
                env=environment,
                start_new_session=True,
            )
        hear = {"cmd": "brpop", "db": "7"}
        until(lambda: sum(hear.items() <= each.items() for each in redis.client_list()) == 2)
        yield started
    finally:
        for worker in started.values():
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()


def exported(path: Path) -> bytes:
    with snapshot() as session:
        export_matches(session, path, from_on=date.min, to_on=date.max, form="csv")
    return path.read_bytes()


def begin() -> None:
    """Open a run and break off in its first shard, as a command that is killed there."""

    def fail(_read: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reconcile(period=None, now=NOW, shards=SHARDS, tolerance_minor=5, progress=fail)
    assert how_many("reconciliation_shard", "done_at IS NULL") == SHARDS


def held() -> list[str]:
    # A transaction of its own each time: within one, who is there does not change.
    with snapshot() as session:
        return list(execute(session, HELD).scalars())


def test_two_workers_end_where_one_process_does_though_one_is_killed_in_its_shard(
    tmp_path: Path, database: str, workers: dict[str, subprocess.Popen[bytes]]
) -> None:
    imported(tmp_path, a_world())
    run()
    alone = exported(tmp_path / "alone.csv")
    assert alone.count(b"\n") > SHARDS

    with Celery(broker=os.environ["WASL_REDIS_URL"]) as schedule:

        def ring() -> None:
            for _ in workers:
                schedule.send_task(RECONCILE)

        for killed in (None, "second"):
            forget_matches()
            begin()
            with psycopg.connect(database) as ours:
                ours.execute("LOCK TABLE match_line IN SHARE MODE")
                ring()
                until(lambda: held() == sorted(workers))
                if killed is not None:
                    os.killpg(workers[killed].pid, signal.SIGKILL)
                    workers[killed].wait()
            # A worker waits for nobody: what another had in hand may be left to a later bell.
            until(
                lambda: how_many("reconciliation_run", "finished_at IS NULL") == 0, meanwhile=ring
            )
            assert exported(tmp_path / "shared.csv") == alone
            assert asked() == ASKED
            assert broken() == []
