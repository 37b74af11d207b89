"""Match two files, payments and records, without a database of the product: `wasl match`.

The files are read into a DuckDB of this process, the engine decides, and three files are written:
`matches.csv`, `payments_open.csv` and `records_open.csv`. They are written aside and take their
names at the end, `matches.csv` last: where it stands, the other two are of the same run.
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb

from gateway.errors import Unusable
from reconciliation.engines.duck import DuckEngine
from reconciliation.matching import Engine, OpenCode, Terms
from reconciliation.pairfiles_reading import Given, read_side
from reconciliation.pairfiles_splitting import PAYMENTS, RECORDS
from reconciliation.reading_tables import read_keys, read_rows

MATCHES: Final = "matches.csv"
PAYMENTS_OPEN: Final = "payments_open.csv"
RECORDS_OPEN: Final = "records_open.csv"

MEMORY: Final = "640MB"
"""What DuckDB may take; beyond it tables go to disk. The process needs 200 MB or so besides."""
THREADS: Final = 2
NAMED_MAX: Final = 12
"""How many candidates a detail names."""

_SCRATCH: Final = ".wasl-match-"


@dataclass(frozen=True, slots=True)
class Matched:
    """What came of two files."""

    answer: dict[str, Any]
    """As `wasl match --json` prints it."""
    set_aside: int
    """Lines of both files that could not be read, or contradict one before."""


def match_files(
    payments: Path,
    records: Path,
    out: Path,
    terms: Terms,
    *,
    step: Callable[[str], None] = lambda _: None,
) -> Matched:
    """Match the payments of a file with the records of another, and write what came of it.

    The same files and terms give the same bytes. Needs about 700 bytes of memory or disk (in `out`)
    for each line.

    Args:
        payments: CSV or Parquet, as `docs/formats.md` says.
        records: Likewise.
        out: A directory, made if it is not there; what an earlier run wrote is replaced.
        terms: Tolerance and shards.
        step: Told what is being done.

    Raises:
        Unusable: A file cannot be read or is refused whole, or `out` cannot be written to.
    """
    began = time.monotonic()
    # Of a relative path the beginning might be read as that of an address.
    out = out.absolute()
    try:
        with _scratch(out) as scratch, duckdb.connect(config=_settings(scratch)) as con:
            step("reading the payments")
            paid = read_side(con, payments, PAYMENTS, scratch)
            step("reading the records")
            recorded = read_side(con, records, RECORDS, scratch)
            _decide(con, DuckEngine(con, terms), step)
            step("writing")
            _write(con, scratch)
            answer = _counts(con, paid, recorded)
            _publish(scratch, out)
    except OSError as error:
        raise Unusable(f"{error.filename or out}: {error.strerror}.") from None
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        first = str(error).partition("\n")[0].rstrip(".")
        raise Unusable(f"There is not enough room for matching: {first}.") from None
    except RuntimeError as error:
        if str(error) != "Query interrupted":
            raise
        raise KeyboardInterrupt from None  # as DuckDB calls it
    answer["seconds"] = round(time.monotonic() - began, 3)
    answer["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return Matched(answer, paid.findings + recorded.findings)


def _settings(scratch: Path) -> dict[str, Any]:
    return {
        "threads": THREADS,
        "memory_limit": MEMORY,
        "temp_directory": str(scratch.joinpath("spilled")),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A directory of this run in `out`; those of runs that were killed are removed."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob(f"{_SCRATCH}*"):
        if not _is_alive(old.name.removeprefix(_SCRATCH)):
            shutil.rmtree(old, ignore_errors=True)
    scratch = out.joinpath(f"{_SCRATCH}{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _decide(con: duckdb.DuckDBPyConnection, engine: Engine, step: Callable[[str], None]) -> None:
    step("reading the references")
    read_keys(con, "payment")
    read_keys(con, "record")
    step("matching by reference")
    engine.within_references()
    step("reading the rest")
    read_rows(con, "payment")
    read_rows(con, "record")
    step("matching the rest")
    engine.rest()


# -- what is written ------------------------------------------------------------------------------


def _write(con: duckdb.DuckDBPyConnection, scratch: Path) -> None:
    _copy(
        con,
        """
        SELECT coalesce(least.id, p.id) AS group_id, p.id AS payment_id, r.id AS record_id,
            rule, score
        FROM matched
        JOIN raw_payment p ON p.n = pn
        JOIN raw_record r ON r.n = rn
        LEFT JOIN (
            SELECT n, id FROM raw_payment SEMI JOIN (SELECT g AS n FROM matched WHERE g <> pn)
            USING (n)
        ) least ON least.n = g
        ORDER BY ALL
        """,
        scratch.joinpath(MATCHES),
    )
    _copy(con, _open("payment", "record", _PAYMENT_WHY), scratch.joinpath(PAYMENTS_OPEN))
    _copy(con, _open("record", "payment", _RECORD_WHY), scratch.joinpath(RECORDS_OPEN))


def _copy(con: duckdb.DuckDBPyConnection, query: str, to: Path) -> None:
    path = str(to).replace("'", "''")
    con.execute(f"COPY ({query}) TO '{path}' (FORMAT csv, HEADER)")


def _dirhams(minor: str) -> str:
    return f"format('{{:d}}.{{:02d}}', {minor} // 100, {minor} % 100)"


_PAYMENT_WHY: Final = f"""
    CASE code
    WHEN '{OpenCode.AMOUNT_DIFFERS}' THEN
        'paid ' || {_dirhams("a")} || ', recorded ' || {_dirhams("other_a")} || ' in ' || named
    WHEN '{OpenCode.AMBIGUOUS_MATCH}' THEN named || ' may be meant, and nothing tells which'
    WHEN '{OpenCode.PAID_TWICE}' THEN 'the records of its reference are matched with other payments'
    ELSE CASE WHEN named IS NULL
        THEN 'no record has its reference, and nothing else tells which it paid'
        ELSE 'perhaps ' || named || ': the same name and amount and a near day, which prove nothing'
        END
    END
    """
_RECORD_WHY: Final = f"""
    CASE code
    WHEN '{OpenCode.AMOUNT_DIFFERS}' THEN
        'recorded ' || {_dirhams("a")} || ', paid ' || {_dirhams("other_a")} || ' by ' || named
    WHEN '{OpenCode.AMBIGUOUS_MATCH}' THEN named || ' may have paid it, and nothing tells which'
    WHEN '{OpenCode.TAKEN_BACK}' THEN
        CASE WHEN a < 0 THEN 'takes back ' || named ELSE 'taken back by ' || named END
    ELSE CASE WHEN a < 0 THEN 'takes back no record that is here'
        ELSE 'no payment has its reference, and nothing else tells which paid it' END
    END
    """


def _open(side: str, other: str, why: str) -> str:
    """Return a query for what is open of a side, with the reason in words.

    The words name ids and amounts, never a person.
    """
    return f"""
        SELECT id AS {side}_id, code, detail FROM (
            SELECT n, id, code, {why} || coalesce(' (' || why || ')', '') AS detail
            FROM {side}_open JOIN raw_{side} USING (n) LEFT JOIN (
                SELECT n,
                    string_agg(id, ', ' ORDER BY place) FILTER (place <= {NAMED_MAX})
                        || CASE WHEN count(*) > {NAMED_MAX}
                            THEN ' and ' || (count(*) - {NAMED_MAX}) || ' more' ELSE '' END
                        AS named,
                    sum(a) AS other_a
                FROM (
                    SELECT n, unnest(candidates) AS candidate,
                        generate_subscripts(candidates, 1) AS place,
                        CASE code WHEN '{OpenCode.TAKEN_BACK}' THEN '{side}' ELSE '{other}' END
                            AS side
                    FROM {side}_open
                ) JOIN (
                    SELECT 'payment' AS side, n AS candidate, id, a FROM raw_payment
                    UNION ALL SELECT 'record', n, id, a FROM raw_record
                ) USING (side, candidate)
                GROUP BY n
            ) USING (n)
            UNION ALL SELECT n, id, code, detail FROM finding WHERE side = '{side}'
        ) ORDER BY id, n
        """


def _counts(con: duckdb.DuckDBPyConnection, paid: Given, recorded: Given) -> dict[str, Any]:
    # Every row is matched or open, and what is open is quickly counted.
    counts = con.execute(
        "SELECT (SELECT count(*) FROM payment_open), (SELECT count(*) FROM record_open),"
        " (SELECT count(*) FROM matched)"
    ).fetchone()
    assert counts is not None
    open_payments, open_records, lines = counts
    matched_payments, matched_records = paid.rows - open_payments, recorded.rows - open_records
    codes = con.execute(
        "SELECT code, count(*) FROM (SELECT code FROM payment_open UNION ALL SELECT code"
        " FROM record_open UNION ALL SELECT code FROM finding) GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    payments, records = paid.rows + paid.findings, recorded.rows + recorded.findings
    return {
        "payments": payments,
        "records": records,
        "matched_payments": matched_payments,
        "matched_records": matched_records,
        # A group is one with one or several, so it has a line less than it has rows.
        "groups": matched_payments + matched_records - lines,
        "open_payments": open_payments + paid.findings,
        "open_records": open_records + recorded.findings,
        "codes": dict(codes),
        "repeated": paid.repeated + recorded.repeated,
    }


def _publish(scratch: Path, out: Path) -> None:
    (out.joinpath(MATCHES)).unlink(missing_ok=True)
    for name in (PAYMENTS_OPEN, RECORDS_OPEN, MATCHES):
        scratch.joinpath(name).replace(out.joinpath(name))
