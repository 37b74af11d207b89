"""Promises of the books, checked one by one: findings, never exceptions.

Each check reads the database (and the home) and yields what is broken and where. Every package
brings checks of its own tables; the command puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from gateway.db import execute

FINDINGS_MAX: Final = 20
"""Findings shown for one check: enough to see what happened, whatever the size of the books."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that does not hold, and the row or line where it does not."""

    what: str
    where: str


@dataclass(frozen=True, slots=True)
class Check:
    """One promise. `find` yields where it is broken; nothing if it holds."""

    promise: str
    find: Callable[[Session], Iterable[Broken]]


def run_checks(
    session: Session, checks: Sequence[Check], progress: Callable[[str], None] = lambda _: None
) -> list[Broken]:
    """Run all checks on one snapshot of the database. The caller owns the transaction.

    A check that cannot read what it must is itself a finding: somebody who writes what no reader
    understands must not keep the other checks from running. Have the planner's figures renewed
    before (`db.renew_figures`): by those of before a bulk of payments it takes hours for seconds.
    """
    found: list[Broken] = []
    for check in checks:
        progress(check.promise)
        try:
            with session.begin_nested():
                found.extend(islice(check.find(session), FINDINGS_MAX))
        except (SQLAlchemyError, psycopg.Error, ValueError, OverflowError) as error:
            found.append(Broken(f"{check.promise}: cannot be read", type(error).__name__))
    return found


def sql_check(promise: str, where: str, **parameters: Any) -> Check:
    """Make a check of a statement that returns one text for each place where it is broken."""

    def find(session: Session) -> Iterator[Broken]:
        limited = f"SELECT * FROM ({where}) AS broken (place) LIMIT {FINDINGS_MAX}"
        for place in execute(session, limited, parameters).scalars():
            yield Broken(f"{promise}: it does not hold", str(place))

    return Check(promise, find)


def stream(session: Session, statement: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a statement that may return many; flat in memory."""
    # For this statement alone: the option on the connection would stay there.
    rows = session.connection().execute(sa.text(statement), execution_options={"yield_per": 2_000})
    for row in rows.mappings():
        yield dict(row)
