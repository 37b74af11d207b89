"""Small tables of facts, given to either engine, and what it says of them in terms of ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from datetime import date
from typing import Any, Final

import duckdb
from sqlmodel import Session

from gateway.db import copy_rows, execute
from reconciliation.engines.duck import DuckEngine
from reconciliation.engines.postgres import PostgresEngine
from reconciliation.engines.postgres_tables import make_given_tables
from reconciliation.matching import Terms

A_DAY: Final = date(2026, 11, 10)


@dataclass(frozen=True)
class Row:
    """A payment or a record as an engine is given it; NULL is None."""

    id: str
    k: int | None = None
    how: int | None = 0
    ks: list[int] | None = None
    digits: str | None = None
    a: int = 10_000
    d: date = A_DAY
    provref: str | None = None
    cnss: str | None = None
    cin: str | None = None
    tokens: list[str] | None = None

    def with_(self, **changes: Any) -> Row:
        return replace(self, **changes)


@dataclass
class Outcome:
    """What an engine left, n replaced by ids: comparable row for row."""

    matched: Counter[tuple[str, str, str, str, int, str | None]] = field(default_factory=Counter)
    """The payment that g is, payment, record, rule, score, why."""
    payments: dict[str, tuple[str, tuple[str, ...] | None, str | None]] = field(
        default_factory=dict
    )
    records: dict[str, tuple[str, tuple[str, ...] | None, str | None]] = field(default_factory=dict)
    """Code, candidates in their order, why."""

    def lines(self) -> list[str]:
        """Render it for a person: a line a group and a line an open row, sorted."""
        groups: dict[str, list[tuple[str, str, str, int, str | None]]] = {}
        for g, *rest in self.matched:
            groups.setdefault(g, []).append(tuple(rest))  # type: ignore[arg-type]
        lines = []
        for pairs in groups.values():
            payments = "+".join(sorted({pair[0] for pair in pairs}))
            records = "+".join(sorted({pair[1] for pair in pairs}))
            ((rule, score, why),) = {pair[2:] for pair in pairs}
            lines.append(f"{payments} = {records}: {rule} {score} {why or ''}".rstrip())
        for open_ in (self.payments, self.records):
            for id_, (code, candidates, why) in open_.items():
                assert why is None
                lines.append(" ".join((f"{id_}: {code}", *(candidates or ()))))
        return sorted(lines)


_COLUMNS: Final = ", ".join(["n", *(f.name for f in fields(Row))])
_READ: Final = (
    "SELECT g, pn, rn, rule, score, why, a FROM matched",
    "SELECT n, code, candidates, why FROM payment_open",
    "SELECT n, code, candidates, why FROM record_open",
)


def by_postgres(
    session: Session, payments: Sequence[Row], records: Sequence[Row], terms: Terms | None = None
) -> Outcome:
    """Let the engine on PostgreSQL match these, in the session's transaction: roll it back."""
    make_given_tables(session)
    for side, rows in (("payment", payments), ("record", records)):
        copy_rows(
            session,
            f"COPY {side}_key FROM STDIN",
            ((n, row.k, row.how, row.a) for n, row in enumerate(rows)),
        )
    engine = PostgresEngine(session, terms or Terms())
    engine.within_references()
    for side, rows in (("payment", payments), ("record", records)):
        free = execute(session, f"SELECT n FROM free_{side}").scalars().all()
        copy_rows(
            session,
            f"COPY {side}_row ({_COLUMNS}) FROM STDIN",
            ((n, *astuple(rows[n])) for n in free),
        )
    engine.rest()
    return _outcome([execute(session, query).all() for query in _READ], payments, records)


_DUCK_KEY: Final = "n BIGINT, k BIGINT, how TINYINT, a BIGINT"
_DUCK_ROW: Final = (
    "n BIGINT, id VARCHAR, k BIGINT, how TINYINT, ks BIGINT[], digits VARCHAR, a BIGINT, d DATE,"
    " provref VARCHAR, cnss VARCHAR, cin VARCHAR, tokens VARCHAR[]"
)


def by_duck(payments: Sequence[Row], records: Sequence[Row], terms: Terms | None = None) -> Outcome:
    """Let the engine in DuckDB match these."""
    with duckdb.connect() as con:
        for side, rows in (("payment", payments), ("record", records)):
            con.execute(f"CREATE TEMP TABLE {side}_key ({_DUCK_KEY})")
            con.execute(f"CREATE TEMP TABLE {side}_row ({_DUCK_ROW})")
            _fill(con, f"{side}_key", [(n, row.k, row.how, row.a) for n, row in enumerate(rows)])
        engine = DuckEngine(con, terms or Terms())
        engine.within_references()
        for side, rows in (("payment", payments), ("record", records)):
            free = [n for (n,) in con.execute(f"SELECT n FROM free_{side}").fetchall()]
            _fill(con, f"{side}_row", [(n, *astuple(rows[n])) for n in free])
        engine.rest()
        return _outcome([con.execute(query).fetchall() for query in _READ], payments, records)


def _fill(con: duckdb.DuckDBPyConnection, table: str, rows: list[tuple[object, ...]]) -> None:
    types = con.execute(f"SELECT column_name, column_type FROM (DESCRIBE {table})").fetchall()
    arrays = ", ".join(f"unnest(CAST(? AS {type_}[]))" for _, type_ in types)
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        con.execute(f"INSERT INTO {table} SELECT {arrays}", columns)


def _outcome(
    read: Sequence[Sequence[Any]], payments: Sequence[Row], records: Sequence[Row]
) -> Outcome:
    matched, payment_open, record_open = read
    outcome = Outcome()
    for g, pn, rn, rule, score, why, a in matched:
        assert a == payments[pn].a
        line = (payments[g].id, payments[pn].id, records[rn].id, rule, score, why)
        outcome.matched[line] += 1
    for n, code, candidates, why in payment_open:
        named = None if candidates is None else tuple(records[c].id for c in candidates)
        assert payments[n].id not in outcome.payments
        outcome.payments[payments[n].id] = (code, named, why)
    for n, code, candidates, why in record_open:
        others = records if code == "taken_back" else payments
        named = None if candidates is None else tuple(others[c].id for c in candidates)
        assert records[n].id not in outcome.records
        outcome.records[records[n].id] = (code, named, why)
    return outcome
