"""Judge plans and remissions by date: find those whose end is not as it is written, and write it.

What a kind decides, and what follows from it, its own module says (a Judge); here is the one way
in which all of them are gone through: judged, their people locked, judged again, written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Generic, Protocol, TypeVar

from sqlmodel import Session

from gateway.books.seals import BooksKey
from gateway.clock import day_of
from gateway.collection.placing import hold_people
from gateway.db import execute
from gateway.dues.conditions import Because
from gateway.people.activities import lock_people
from gateway.relief.reliefs import AGAIN, BATCH, Reviewed


class State(Protocol):
    """How a plan or a remission stands on a day: `standing` is kept, broken or neither."""

    @property
    def standing(self) -> str: ...
    @property
    def since(self) -> date | None: ...
    @property
    def because(self) -> Because | None: ...


_State = TypeVar("_State", bound=State)


@dataclass(frozen=True, slots=True)
class Change(Generic[_State]):
    """Something whose end is not as it is written down, and how it stands."""

    row: Any
    """With id, person, kept_on, broken_on, and replaced: whether another has taken its place."""
    state: _State

    @property
    def kept_on(self) -> date | None:
        return self.state.since if self.state.standing == "kept" else None

    @property
    def broken_on(self) -> date | None:
        return self.state.since if self.state.standing == "broken" else None

    @property
    def is_news(self) -> bool:
        """Whether it is otherwise than written, and may be: what ended stands again only where
        nothing has taken its place."""
        same = (self.kept_on, self.broken_on) == (self.row["kept_on"], self.row["broken_on"])
        stands = self.kept_on is None and self.broken_on is None
        again = stands or (self.row["broken_on"] is not None and self.broken_on is None)
        return not same and not (again and self.row["replaced"])


@dataclass(frozen=True, slots=True)
class Judge(Generic[_State]):
    """What a kind of relief brings to its review."""

    table: str
    rows: str
    """Selects what `changes` judges by: rows of `table` with what Change wants."""
    judged: str
    """Which of them are judged at all, given `since`."""
    changes: Callable[[Session, Sequence[Any], date], list[Change[_State]]]
    write: Callable[..., None]
    """Writes changes down, with what follows: (session, changes, people, key=…, now=…)."""


def review(
    session: Session, judge: Judge[_State], *, key: BooksKey, now: datetime, after: int
) -> Reviewed:
    """Judge the next of a kind by date, and write down which are kept or broken, and since when.

    Those that ended not long ago are judged again: a payment made in time may come late, and one
    may be taken back. Any number of times; the days do not depend on when this runs.

    Args:
        session: Whose transaction it is; nothing but its commit should follow.
        judge: Of the kind.
        key: Of the books.
        now: The business clock.
        after: `next_after` of the step before.
    """
    on = day_of(now)
    rows = _to_judge(session, judge, "id > :after", {"after": after, "size": BATCH}, on)
    following = rows[-1]["id"] if len(rows) == BATCH else None
    people = sorted({change.row["person"] for change in judge.changes(session, rows, on)})
    if not people:
        return Reviewed(following, len(rows), 0, 0, 0)
    lock_people(session, people)
    hold_people(session, people)
    # Read again, now that nobody else moves their money or judges them.
    ids = [row["id"] for row in rows if row["person"] in set(people)]
    fresh = _to_judge(session, judge, "id = ANY(:ids)", {"ids": ids, "size": len(ids)}, on)
    changes = judge.changes(session, fresh, on)
    if changes:
        judge.write(session, changes, people, key=key, now=now)
    kept = sum(change.kept_on is not None for change in changes)
    broken = sum(change.broken_on is not None for change in changes)
    return Reviewed(following, len(rows), kept, broken, len(changes) - kept - broken)


def _to_judge(
    session: Session,
    judge: Judge[_State],
    where: str,
    parameters: Mapping[str, Any],
    on: date,
) -> Sequence[Any]:
    query = (
        f"{judge.rows} WHERE {judge.table}.{where} AND {judge.judged}"
        f" ORDER BY {judge.table}.id LIMIT :size"
    )
    return execute(session, query, {**parameters, "since": on - AGAIN}).mappings().all()


def changes_of(
    session: Session, judge: Judge[_State], people: str, parameters: Mapping[str, Any], on: date
) -> list[Change[_State]]:
    """Return what a review on a day would write down of some people; changes nothing.

    Args:
        session: Whose transaction it is.
        judge: Of the kind.
        people: A condition on `contributor_id`, with its parameters.
        parameters: These.
        on: The day.
    """
    where, size = f"contributor_id {people}", {"size": BATCH}
    rows = _to_judge(session, judge, where, {**parameters, **size}, on)
    return judge.changes(session, rows, on) if rows else []
