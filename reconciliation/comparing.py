"""One comparison: load what is open, let the engine match it, write the groups."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
from sqlmodel import Session

from reconciliation.asking import Left, read_left
from reconciliation.duckfiles import count, workbench
from reconciliation.engines.duck import DuckEngine
from reconciliation.evidence import (
    find_others,
    know,
    name_free,
    pull_payments,
    pull_records,
    take_in_payments,
    take_in_records,
)
from reconciliation.keeping import (
    added,
    added_up,
    free_parted,
    leave_parted,
    lines_of_others,
    load_parted,
    pairs_of_one,
    write_lines,
    write_pairs,
)
from reconciliation.loading import load_keys
from reconciliation.matching import Terms
from reconciliation.scope import Scope

Progress = Callable[[int], None]
_ROWS_OF_MATCHED: Final = "SELECT coalesce(max(rowid), -1) + 1 FROM matched"


@dataclass(frozen=True, slots=True)
class Compared:
    """What a comparison came to; its groups are written in the caller's transaction."""

    by_rule: dict[str, Any]
    """Groups, payments and records, and the sums of both sides in centimes."""
    by_code: dict[str, Any]
    """The same of what is open; nothing for a shard."""
    left: Left


def compare_shard(
    session: Session, run: int, scope: Scope, terms: Terms, *, progress: Progress
) -> dict[str, Any]:
    """Do the bulk pass on one shard; return its groups by rule.

    The caller owns the transaction and shares the lock on records.
    """
    with workbench() as (con, folder):
        engine = _loaded(con, session, scope, terms, folder, progress)
        engine.within_references()
        if load_parted(con, session):
            free_parted(con)
        pairs = pairs_of_one(con)
        write_pairs(session, run, pairs, beside_others=True)
        return added_up(con, pairs)


def compare(
    session: Session, run: int, scope: Scope, terms: Terms, *, progress: Progress
) -> Compared:
    """Do all passes on all that is open in the scope.

    The caller owns the transaction and holds the lock on records alone.
    """
    with workbench() as (con, folder):
        engine = _loaded(con, session, scope, terms, folder, progress)
        engine.within_references()
        if is_parted := load_parted(con, session):
            free_parted(con)
        free = name_free(con)
        # Threads have to do with the server only; DuckDB is this one's. The run's session does one
        # thing after the other.
        with ThreadPoolExecutor(1) as ours, ThreadPoolExecutor(2) as others:
            finding = ours.submit(find_others, session, free)
            records = others.submit(pull_records, free, folder)
            payments = others.submit(pull_payments, free, folder)
            # The server takes in what is certain, while the rest is thought about here.
            pairs = pairs_of_one(con)
            written = [ours.submit(write_pairs, session, run, pairs)]
            of_one = added_up(con, pairs)
            know(con, finding.result())
            take_in_records(con, records.result())
            take_in_payments(con, payments.result())
            first = count(con, _ROWS_OF_MATCHED)
            engine.rest()
            if is_parted:
                leave_parted(con, first)
            rest = folder.joinpath("rest.csv")
            of_others = lines_of_others(con, run, first, rest)
            more = count(con, _ROWS_OF_MATCHED) - first
            written.append(ours.submit(write_lines, session, rest, more))
            compared = Compared(added(of_one, of_others), _by_code(con), read_left(con))
            for each in written:
                each.result()
        return compared


def _loaded(
    con: duckdb.DuckDBPyConnection,
    session: Session,
    scope: Scope,
    terms: Terms,
    folder: Path,
    progress: Progress,
) -> DuckEngine:
    loaded = load_keys(con, session, scope, folder)
    progress(loaded.payments)
    progress(loaded.payments + loaded.records)
    return DuckEngine(con, terms)


def _by_code(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    both = []
    for side, amount in (("payment", "paid_minor"), ("record", "recorded_minor")):
        rows = con.execute(
            f"SELECT code, count(*), sum(a) FROM {side}_open JOIN {side}_row USING (n) GROUP BY 1"
        ).fetchall()
        nothing = {"payments": 0, "records": 0, "paid_minor": 0, "recorded_minor": 0}
        both.append(
            {code: {**nothing, f"{side}s": rows_, amount: int(a)} for code, rows_, a in rows}
        )
    return added(*both)
