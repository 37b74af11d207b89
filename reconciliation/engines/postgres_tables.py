"""The tables that the engine in PostgreSQL works on, and how rows are claimed.

All are temporary and end with the transaction.

- `left_payment`: free payments; `names` is the reference that each names alone, from pass 6 on the
  attached one; `unknown` says that its own reference is no record's; `in_doubt`, that it is one
  slip from a reference and could not be taken for it.
- `naming`: the references that free payments name, alone or among several.
- `left_record`: free records. Negative ones and those taken back are not among them.
- `claim`: what one pass matches, until `take` moves it to `matched`.
- `payment_tie`, `record_tie`: who was tied between which rows of the other side.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Session

from gateway.db import execute

_KEY: Final = "n bigint PRIMARY KEY, k bigint, how smallint, a bigint NOT NULL"
_ROW: Final = (
    "n bigint PRIMARY KEY, id text NOT NULL UNIQUE, k bigint, how smallint, ks bigint[],"
    " digits text, a bigint NOT NULL, d date NOT NULL, provref text, cnss text, cin text,"
    " tokens text[]"
)
_OPEN: Final = "n bigint PRIMARY KEY, code text NOT NULL, candidates bigint[], why text"
_LINE: Final = "pn bigint NOT NULL, rn bigint NOT NULL, rule text NOT NULL, score smallint NOT NULL"

GIVEN: Final = {
    "payment_key": _KEY,
    "record_key": _KEY,
    "payment_row": _ROW,
    "record_row": _ROW,
}
"""The tables that the caller makes and fills, with their columns."""


class Tables:
    """The temporary tables of one matching, in the session's transaction."""

    def __init__(self, session: Session, tolerance_minor: int) -> None:
        self._session = session
        self.tol = tolerance_minor
        """Centimes, to be written into statements: those that make a table take no parameters."""

    def run(self, statement: str) -> sa.CursorResult[*tuple[Any, ...]]:
        """Run one statement."""
        return execute(self._session, statement)

    def make(self, name: str, select: str) -> None:
        """Make a table of what a query says, in place of one of that name."""
        self.run(f"DROP TABLE IF EXISTS pg_temp.{name}")
        self.run(f"CREATE TEMP TABLE {name} ON COMMIT DROP AS {select}")
        self.run(f"ANALYZE pg_temp.{name}")

    def make_empty(self, name: str, columns: str) -> None:
        """Make an empty table, in place of one of that name."""
        self.run(f"DROP TABLE IF EXISTS pg_temp.{name}")
        self.run(f"CREATE TEMP TABLE {name} ({columns}) ON COMMIT DROP")

    def make_results(self) -> None:
        """Make the table of groups. How the server goes about it is set for this transaction."""
        self.run("SET LOCAL jit = off")
        self.run("SET LOCAL work_mem = '64MB'")
        self.make_empty("matched", f"g bigint NOT NULL, {_LINE}, why text, a bigint")

    def make_left(self) -> None:
        """Make the tables of what is free, from the rows that the caller has filled in."""
        for given in GIVEN:
            self.run(f"ANALYZE pg_temp.{given}")
        self.make(
            "left_payment",
            """
            SELECT p.*, p.k AS names,
                p.k IS NOT NULL AND NOT EXISTS (SELECT FROM record_key r WHERE r.k = p.k)
                    AS unknown,
                false AS in_doubt
            FROM payment_row p
            """,
        )
        self.make(
            "naming",
            """
            SELECT n AS pn, k FROM left_payment WHERE k IS NOT NULL
            UNION SELECT n, unnest(ks) FROM left_payment
            """,
        )
        self.make("left_record", "SELECT *, false AS in_doubt FROM record_row WHERE a >= 0")
        self.make_empty("claim", f"{_LINE}, why text")
        self.make_empty("payment_tie", "n bigint NOT NULL, candidate bigint NOT NULL")
        self.make_empty("record_tie", "n bigint NOT NULL, candidate bigint NOT NULL")
        self.make_empty("taken_back", "rn bigint PRIMARY KEY, by_rn bigint NOT NULL UNIQUE")
        self.make_empty("payment_open", _OPEN)
        self.make_empty("record_open", _OPEN)

    def take(self) -> bool:
        """Make groups of what a pass claims; say whether there was anything."""
        found = self.run(
            """
            INSERT INTO matched
            SELECT first_value(pn) OVER (PARTITION BY rn ORDER BY p.id COLLATE "C"),
                pn, rn, rule, score, why, a
            FROM claim JOIN left_payment p ON p.n = pn
            """
        ).rowcount
        self.run("DELETE FROM left_payment USING claim WHERE n = pn")
        self.run("DELETE FROM naming USING claim WHERE naming.pn = claim.pn")
        self.run("DELETE FROM left_record USING claim WHERE n = rn")
        self.run("TRUNCATE claim")
        return found > 0

    def meet(self) -> None:
        """Make `meeting`: the references that free payments name and free records have.

        Of both sides the number of rows, their sum, and one of them (the only one, if it is one).
        """
        self.make(
            "meeting",
            """
            SELECT * FROM (
                SELECT names AS k, count(*) AS payments, sum(a) AS paid, min(n) AS pn
                FROM left_payment WHERE names IS NOT NULL GROUP BY names
            ) p JOIN (
                SELECT k, count(*) AS records, sum(a) AS posted, min(n) AS rn
                FROM left_record WHERE k IS NOT NULL GROUP BY k
            ) r USING (k)
            """,
        )


def make_given_tables(session: Session) -> None:
    """Make the four tables that an engine finds, empty, in the session's transaction."""
    for name, columns in GIVEN.items():
        execute(session, f"CREATE TEMP TABLE {name} ({columns}) ON COMMIT DROP")


UNNAMED: Final = "NOT EXISTS (SELECT FROM naming WHERE naming.k = r.k)"
"""Of a free record `r`: no free payment names its reference, if it has one."""

NAMES_NO_RECORD: Final = "(p.ks IS NULL AND (p.names IS NULL OR p.unknown) AND NOT p.in_doubt)"
"""Of a free payment `p`, and there is no doubt about that."""

NOT_AGAINST: Final = "(p.k IS NULL OR r.k IS NULL AND r.ks IS NULL)"
"""Of a payment that names no record and a record: not both have a reference that verifies."""
