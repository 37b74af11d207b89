"""The shards of a run: taken by whoever is free, one in a transaction, by a lock on its row.

A lock is the lease: whoever is killed in a shard lets go of it at once, and has written nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pydantic_core import to_json
from sqlmodel import Session

from gateway.db import execute, snapshot, transaction
from reconciliation.comparing import compare_shard
from reconciliation.matching import Terms
from reconciliation.records import share_records, share_records_now
from reconciliation.scope import Scope


def run_shards(
    run: int, *, now: datetime, progress: Callable[[int], None], wait: bool = True
) -> bool:
    """Do the shards of a run that are free; say whether all are done.

    Opens a transaction for each. An import may come between two of them: what it brings is looked
    at when the run is finished.

    Args:
        run: Its id.
        now: The business clock.
        progress: Told after each how many rows it had.
        wait: Return when all are done, by this process or by others; else when none is free.
    """
    while _run_next(run, now, progress, wait=wait) or (wait and _is_left(run)):
        pass
    return not _is_left(run)


def _run_next(run: int, now: datetime, progress: Callable[[int], None], *, wait: bool) -> bool:
    """Do a shard that is free, or else one that another has in hand and does not do; say if so."""
    with transaction() as session:
        if wait:
            share_records(session)
        elif not share_records_now(session):
            # An import, or the end of a run: a worker has other things to do meanwhile.
            return False
        taken = _take(session, run, skip=True)
        if taken is None and wait:
            taken = _take(session, run, skip=False)
        if taken is None:
            return False
        by_rule = compare_shard(
            session,
            run,
            taken.scope,
            taken.terms,
            progress=progress,
        )
        execute(
            session,
            "UPDATE reconciliation_shard SET done_at = :now,"
            " outcomes = CAST(:outcomes AS jsonb) WHERE run_id = :run AND shard = :shard",
            {
                "now": now,
                "outcomes": to_json(by_rule).decode(),
                "run": run,
                "shard": taken.scope.shard,
            },
        )
    return True


def _is_left(run: int) -> bool:
    with snapshot() as session:
        query = (
            "SELECT EXISTS (SELECT FROM reconciliation_shard"
            " WHERE run_id = :run AND done_at IS NULL)"
        )
        return bool(execute(session, query, {"run": run}).scalar_one())


@dataclass(frozen=True, slots=True)
class _Taken:
    scope: Scope
    terms: Terms


def _take(session: Session, run: int, *, skip: bool) -> _Taken | None:
    row = execute(
        session,
        "SELECT r.period, s.shard, s.shards, r.tolerance_minor FROM reconciliation_shard s"
        " JOIN reconciliation_run r ON r.id = s.run_id"
        " WHERE s.run_id = :run AND s.done_at IS NULL"
        f" ORDER BY s.shard LIMIT 1 FOR UPDATE OF s {'SKIP LOCKED' if skip else ''}",
        {"run": run},
    ).one_or_none()
    if row is None:
        return None
    return _Taken(Scope(row.period, row.shard, row.shards), Terms(row.tolerance_minor))
