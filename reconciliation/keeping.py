"""The lines of groups: written by the million, moved away when they no longer stand.

The database judges that a payment and a record are in one group at most, by two unique keys. Where
a run writes more than the table holds, these are taken off and made anew at its end, in the same
transaction: half the time, and the same judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, Final

import duckdb
from psycopg.errors import LockNotAvailable
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from gateway.db import execute
from gateway.packing import bigint, smallint, text
from reconciliation.duckcolumns import Columns, columns_of, pack_rows, send_rows
from reconciliation.duckfiles import count, send_file, write_file
from reconciliation.matching import OpenCode, Rule

_PAIRS: Final = "payment_id, record_id, group_id, run_id, amount_minor, score, rule"
_LINES: Final = f"{_PAIRS}, payment_line, record_line, why"

MANY: Final = 100_000
"""From so many new lines on it is asked whether the keys are better made anew."""
_LINE_BYTES: Final = 100
"""Of a line in the table, more or less."""

PARTED: Final = "a person parted it from what it would be matched with"

_KEYS: Final = {
    "match_line_pkey": "PRIMARY KEY (payment_id, payment_line)",
    "match_line_record_id_record_line_key": "UNIQUE (record_id, record_line)",
}


@dataclass(frozen=True, slots=True)
class Pairs:
    """Lines that are groups by themselves, all by one rule, which says why."""

    rule: str
    score: int
    lines: Columns
    """`pn`, `rn`, and the payment's centimes `a`."""

    def __len__(self) -> int:
        return len(self.lines["pn"])


def pairs_of_one(con: duckdb.DuckDBPyConnection) -> list[Pairs]:
    """Return what `matched` holds before the other passes."""
    rules = con.execute("SELECT DISTINCT rule, score FROM matched ORDER BY ALL").fetchall()
    # Many need not be in order, of which the keys are made anew.
    order = "" if count(con, "SELECT count(*) FROM matched") >= MANY else "ORDER BY pn"
    query = "SELECT pn, rn, a FROM matched WHERE rule = '{}' AND score = {} {}"
    return [
        Pairs(rule, score, columns_of(con, query.format(rule, score, order)))
        for rule, score in rules
    ]


def added_up(con: duckdb.DuckDBPyConnection, pairs: Sequence[Pairs]) -> dict[str, Any]:
    """Return by rule what `pairs_of_one` returned: groups, rows, and centimes of both sides."""
    by_rule = []
    for each in pairs:
        paid = recorded = int(each.lines["a"].sum())
        # Only within the tolerance are the two sides not the same.
        if each.rule == Rule.WITHIN_TOLERANCE:
            recorded = count(
                con,
                "SELECT sum(a) FROM record_key WHERE n IN"
                f" (SELECT rn FROM matched WHERE rule = '{each.rule}')",
            )
        by_rule.append(_outcome(each.rule, len(each), len(each), len(each), paid, recorded))
    return added(*by_rule)


def lines_of_others(
    con: duckdb.DuckDBPyConnection, run: int, first: int, path: Path
) -> dict[str, Any]:
    """Write the groups that `matched` holds from its row `first` on; return them by rule."""
    con.execute(
        f"""
        CREATE TEMP TABLE line AS
        SELECT pn, rn, min(pn) OVER (PARTITION BY g) AS g, line.a AS pa, r.a AS ra, score,
            row_number() OVER (PARTITION BY pn ORDER BY rn) - 1 AS pl,
            row_number() OVER (PARTITION BY rn ORDER BY pn) - 1 AS rl, rule, why
        FROM (SELECT * FROM matched WHERE rowid >= {first} AND pn IS NOT NULL) line
        JOIN record_key r ON r.n = rn
        """
    )
    write_file(
        con,
        f"SELECT pn, rn, g, {run}, pa, score, rule, pl, rl, why FROM line ORDER BY pn, pl",
        path,
    )
    by_rule = _by_rule(
        con,
        """
        SELECT rule, count(DISTINCT g), count(*) FILTER (pl = 0), count(*) FILTER (rl = 0),
            sum(pa) FILTER (pl = 0), sum(ra) FILTER (rl = 0)
        FROM line GROUP BY rule
        """,
    )
    con.execute("DROP TABLE line")
    return by_rule


def _by_rule(con: duckdb.DuckDBPyConnection, query: str) -> dict[str, Any]:
    return added(*(_outcome(*row) for row in con.execute(query).fetchall()))


def _outcome(
    rule: str, groups: int, payments: int, records: int, paid: int, recorded: int
) -> dict[str, Any]:
    return {
        rule: {
            "groups": groups,
            "payments": payments,
            "records": records,
            "paid_minor": int(paid),
            "recorded_minor": int(recorded),
        }
    }


def added(*outcomes: dict[str, Any]) -> dict[str, Any]:
    """Return outcomes by rule or code, added up."""
    total: dict[str, Any] = {}
    for each in outcomes:
        for name, figures in each.items():
            known = total.setdefault(name, dict.fromkeys(figures, 0))
            for what, figure in figures.items():
                known[what] += figure
    return dict(sorted(total.items()))


def write_pairs(
    session: Session, run: int, pairs: Sequence[Pairs], *, beside_others: bool = False
) -> None:
    """Append what `pairs_of_one` returned; the keys are in force afterwards.

    `beside_others`: other sessions write lines too, so the table is not taken from them.
    """
    lines = 0 if beside_others else sum(map(len, pairs))
    with _with_keys(session, lines):
        send_rows(
            session,
            f"match_line ({_PAIRS})",
            chain.from_iterable(
                pack_rows(
                    each.lines["pn"],
                    each.lines["rn"],
                    each.lines["pn"],
                    bigint(run),
                    each.lines["a"],
                    smallint(each.score),
                    text(each.rule),
                )
                for each in pairs
            ),
        )


def write_lines(session: Session, path: Path, lines: int) -> None:
    """Append so many lines, a file of `lines_of_others`; the keys are in force afterwards."""
    with _with_keys(session, lines):
        send_file(session, f"match_line ({_LINES})", path)


@contextmanager
def _with_keys(session: Session, lines: int) -> Iterator[None]:
    """Have so many lines written; where they are many, and more than the table has, the keys are
    made anew."""
    anew = lines >= MANY and _outnumbers(session, lines) and _locked(session)
    if anew:
        for name in _KEYS:
            execute(session, f"ALTER TABLE match_line DROP CONSTRAINT {name}")
    yield
    if anew:
        for name, kind in _KEYS.items():
            execute(session, f"ALTER TABLE match_line ADD CONSTRAINT {name} {kind}")


def _outnumbers(session: Session, lines: int) -> bool:
    # Only whose table it is can make its keys anew.
    query = (
        "SELECT pg_relation_size(oid), pg_has_role(relowner, 'USAGE') FROM pg_class"
        " WHERE oid = CAST('match_line' AS regclass)"
    )
    size, is_mine = execute(session, query).one()
    return bool(is_mine) and lines * _LINE_BYTES > size


def _locked(session: Session) -> bool:
    """Take the table for us alone, if nobody is reading it: nobody is waited for."""
    try:
        with session.begin_nested():
            execute(session, "LOCK TABLE match_line IN ACCESS EXCLUSIVE MODE NOWAIT")
    except DBAPIError as error:
        if isinstance(error.orig, LockNotAvailable):
            return False
        raise
    return True


# -- what a person parted -------------------------------------------------------------------------


def load_parted(con: duckdb.DuckDBPyConnection, session: Session) -> bool:
    """Make a table `parted` (pn, rn) of the pairs that a person parted; say if there are any."""
    pairs = execute(
        session, "SELECT payment_id, record_id FROM parted_pair WHERE joined_at IS NULL"
    ).all()
    con.execute(
        "CREATE TEMP TABLE parted AS SELECT unnest($1::BIGINT[]) AS pn, unnest($2::BIGINT[]) AS rn",
        [[payment for payment, _ in pairs], [record for _, record in pairs]],
    )
    return bool(pairs)


def free_parted(con: duckdb.DuckDBPyConnection) -> None:
    """After the bulk pass: its pairs that a person parted are free for the other passes."""
    _find_unwanted(con, 0)
    for side, n in (("payment", "pn"), ("record", "rn")):
        con.execute(f"INSERT INTO free_{side} SELECT {n} FROM matched SEMI JOIN unwanted USING (g)")
    con.execute("DELETE FROM matched WHERE g IN (SELECT g FROM unwanted)")


def leave_parted(con: duckdb.DuckDBPyConnection, first: int) -> None:
    """After all passes: the groups from row `first` on that hold such a pair are open, all rows.

    What else they could have been matched with is not tried: a person is at work here.
    """
    _find_unwanted(con, first)
    for side, n, code in (
        ("payment", "pn", OpenCode.PAYMENT_WITHOUT_RECORD),
        ("record", "rn", OpenCode.RECORD_WITHOUT_PAYMENT),
    ):
        con.execute(
            f"INSERT INTO {side}_open SELECT DISTINCT {n}, '{code}', NULL::BIGINT[], '{PARTED}'"
            " FROM matched SEMI JOIN unwanted USING (g)"
        )
    con.execute("DELETE FROM matched WHERE g IN (SELECT g FROM unwanted)")


def _find_unwanted(con: duckdb.DuckDBPyConnection, first: int) -> None:
    con.execute(
        "CREATE OR REPLACE TEMP TABLE unwanted AS SELECT DISTINCT g FROM"
        f" (SELECT * FROM matched WHERE rowid >= {first}) JOIN parted USING (pn, rn)"
    )


# -- what no longer stands ------------------------------------------------------------------------


def undo(session: Session, payments: Sequence[int], because: str, now: datetime) -> int:
    """Move the groups of these payments to what is undone; return how many lines those were.

    The caller owns the transaction and holds the lock on records.
    """
    if not payments:
        return 0
    moved: int = execute(
        session,
        """
        WITH named AS (
            SELECT DISTINCT record_id FROM match_line WHERE payment_id = ANY(:payments)
        ), gone AS (
            DELETE FROM match_line
            WHERE payment_id = ANY(:payments) OR record_id IN (SELECT record_id FROM named)
            RETURNING *
        ), kept AS (
            INSERT INTO undone_match (payment_id, record_id, group_id, run_id, amount_minor, score,
                rule, why, decided_by, undone_at, undone_because)
            SELECT payment_id, record_id, group_id, run_id, amount_minor, score, rule, why,
                decided_by, :now, :because FROM gone ORDER BY payment_id, record_id
            RETURNING 1
        )
        SELECT count(*) FROM kept
        """,
        {"payments": list(payments), "now": now, "because": because},
    ).scalar_one()
    return moved
