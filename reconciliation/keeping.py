"""The lines of groups: written by the million, moved away when they no longer stand.

The database judges that a payment and a record are in one group at most, by two unique keys. Where
a run writes more than the table holds, these are taken off and made anew at its end, in the same
transaction: half the time, and the same judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import duckdb
from psycopg.errors import LockNotAvailable
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from gateway.db import execute
from reconciliation.duckfiles import count, send_file, write_file
from reconciliation.matching import OpenCode, Rule

PAIRS: Final = "payment_id, record_id, group_id, run_id, amount_minor, score, rule"
"""Of a line that is a group by itself: both its lines are 0, and its rule says why."""
LINES: Final = f"{PAIRS}, payment_line, record_line, why"

MANY: Final = 100_000
"""From so many new lines on it is asked whether the keys are better made anew."""
_LINE_BYTES: Final = 100
"""Of a line in the table, more or less."""

PARTED: Final = "a person parted it from what it would be matched with"

_KEYS: Final = {
    "match_line_pkey": "PRIMARY KEY (payment_id, payment_line)",
    "match_line_record_id_record_line_key": "UNIQUE (record_id, record_line)",
}


def write_lines_of_one(con: duckdb.DuckDBPyConnection, run: int, path: Path) -> None:
    """Write what `matched` holds now, pairs of one and one, to a file; `added_up` is to follow."""
    order = "" if count(con, "SELECT count(*) FROM matched") >= MANY else "ORDER BY pn"
    write_file(con, f"SELECT pn, rn, pn, {run}, a, score, rule FROM matched {order}", path)


def added_up(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Return by rule what `write_lines_of_one` wrote, before the other passes."""
    # Only within the tolerance are the two sides not the same.
    return _by_rule(
        con,
        f"""
        SELECT rule, count(*), count(*), count(*), sum(line.a), sum(coalesce(r.a, line.a))
        FROM matched line LEFT JOIN (
            SELECT n, a FROM record_key
            WHERE n IN (SELECT rn FROM matched WHERE rule = '{Rule.WITHIN_TOLERANCE}')
        ) r ON n = rn
        WHERE pn IS NOT NULL GROUP BY rule
        """,
    )


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
    return {
        rule: {
            "groups": groups,
            "payments": payments,
            "records": records,
            "paid_minor": int(paid),
            "recorded_minor": int(recorded),
        }
        for rule, groups, payments, records, paid, recorded in con.execute(query).fetchall()
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


def write(session: Session, columns: str, path: Path, lines: int) -> None:
    """Append a file of so many lines; the keys are in force afterwards.

    Args:
        session: Whose transaction it is.
        columns: PAIRS or LINES, as the file has them.
        path: Of the file.
        lines: Where they are many, and more than the table has, the keys are made anew.
    """
    anew = lines >= MANY and _outnumbers(session, lines) and _locked(session)
    if anew:
        for name in _KEYS:
            execute(session, f"ALTER TABLE match_line DROP CONSTRAINT {name}")
    send_file(session, f"match_line ({columns})", path)
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
