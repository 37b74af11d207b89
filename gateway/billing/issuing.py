"""Issue what is due, once, in bulk: amounts are decided here, rows are streamed to the database.

An order is a run, cut into spans of people. The command and the workers claim spans, each in a
transaction of its own that writes the invoices and says that the span is done: whoever is killed
leaves nothing half done, and whoever comes next goes on. That nobody has two invoices of a period
is the unique key's to judge; who is billed already is left out before.

Most people are one category for the whole quarter, and cost nothing but their row. Who did several
things in it, or has several files, is assessed one by one (gateway.dues.assessment).

Who cannot be priced (a base is missing or outside every band, a category is gone from the tariff)
is left out and named; all others are billed. Nothing is kept about that: whoever asks is told of
those who lack it now, and the next order tries them again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import starmap
from threading import Event
from typing import Any, Final

import psycopg
import sqlalchemy as sa
import structlog
from psycopg.errors import DeadlockDetected, UniqueViolation
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from gateway.billing.invoice_rows import COPY_EVENTS, COPY_INVOICES, COPY_LINES, Billed, Rows, Terms
from gateway.billing.invoice_seals import Sealer, sealer_of
from gateway.billing.rules import keep_rules, why_of
from gateway.books.seals import BooksKey
from gateway.clock import day_of
from gateway.collection.placing import carry_credit
from gateway.db import copy_blocks, execute, transaction
from gateway.dues.assessment import (
    Assessed,
    Assessor,
    PersonFacts,
    everything_done,
    quarter_of,
)
from gateway.dues.periods import Period, parse_period, period_of
from gateway.dues.principal import DueLine, NotOwed
from gateway.dues.tariff import Tariff, keep_categories
from gateway.errors import Unusable
from gateway.events import Happening, take_the_end_of_the_feed
from gateway.figures import in_force
from gateway.models import Periodicity
from gateway.money import format_amount
from gateway.people.activities import read_people
from gateway.references import format_reference, nth_references

AHEAD_DAYS_MAX: Final = 366
CHUNK: Final = 10_000
"""People to a transaction: enough to be fast, and others wait for the end of the feed only for a
fraction of a second."""

WORKERS: Final = 2
"""Spans that the command has in work at once: one is decided and packed while the other is
written."""

TRIES_MAX: Final = 5
NAMED_MAX: Final = 20
"""Of people who cannot be billed, so many are named; the others are counted."""


Progress = Callable[[int, int], None]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A person of whom cannot be told what they owe, and why."""

    contributor_id: int
    reason: str
    """What to mend, in a sentence without the person's figures."""


@dataclass(frozen=True, slots=True)
class IssueResult:
    """What an order issued since we joined it; one that was cut short is continued by the next."""

    issued: int
    already: int
    """Owed for the period, and its days billed before."""
    total_minor: int
    """Sum of what was issued, in centimes."""
    left_out: int = 0
    """How many may owe the period, are not billed, and cannot be priced."""
    first_left_out: tuple[LeftOut, ...] = ()
    """The first of them, by their ids."""

    def as_json(self) -> dict[str, Any]:
        return {
            "issued": self.issued,
            "already": self.already,
            "total": format_amount(self.total_minor),
        }


@dataclass(frozen=True, slots=True)
class Order:
    """A run that was begun or joined."""

    run_id: int
    owing: int
    """How many people its spans hold that may owe the period."""
    before: IssueResult
    """What had been done of it by others, or in another life."""
    joined: bool
    """Whether some of its spans were done by then."""


# -- the order ------------------------------------------------------------------------------------


def order_issue(
    session: Session, tariff: Tariff, period: Period, *, category: str | None, now: datetime
) -> Order:
    """Order a period's invoices of one category, or of all that are owed by such periods.

    An order of the same that is not finished is joined, and people enrolled since are added. The
    caller owns the transaction. Workers look for open orders every few seconds.

    Raises:
        Unusable: The tariff has no such category, the period is not of its kind, or it lies more
            than a year ahead.
    """
    refuse_far(period, now)
    if category is not None and tariff.of(category).periodicity is not period.periodicity:
        every = tariff.of(category).periodicity
        raise Unusable(f"{category} is owed by the {every}, which {period.code} is not.")
    keep_categories(session, tariff)
    scope = _Scope.of(session, tariff, period, category)
    run_id = _open_run(session, period, category, now)
    before, done, left = _done(session, run_id)
    if done and not left:
        # It only lacks the word that it is finished.
        execute(session, "UPDATE issue_run SET finished_at = :now WHERE id = :id", _at(run_id, now))
        run_id = _open_run(session, period, category, now)
        before, done = IssueResult(0, 0, 0), 0
    _cut(session, run_id, scope)
    owing = execute(
        session,
        f"WITH {_SPECIAL} SELECT count(*) FROM contributor c WHERE {_PEOPLE}",
        {**scope.parameters, "first": 0, "last": _ID_MAX},
    ).scalar_one()
    return Order(run_id, owing, before, joined=done > 0)


def refuse_far(period: Period, now: datetime) -> None:
    """Stop where a period lies too far ahead.

    Raises:
        Unusable: It lies more than a year ahead.
    """
    if (period.starts_on - day_of(now)).days > AHEAD_DAYS_MAX:
        raise Unusable(f"{period.code} lies more than a year ahead: issue it when it is nearer.")


def _open_run(session: Session, period: Period, category: str | None, now: datetime) -> int:
    """Return the run of this period and category that is not finished, locked; made if need be."""
    asked = {"period": period.code, "category": category, "now": now}
    execute(
        session,
        "INSERT INTO issue_run (period, category_code, ordered_at)"
        " VALUES (:period, :category, :now) ON CONFLICT DO NOTHING",
        asked,
    )
    found: int | None = execute(
        session,
        "SELECT id FROM issue_run WHERE period = :period"
        " AND category_code IS NOT DISTINCT FROM :category AND finished_at IS NULL FOR UPDATE",
        asked,
    ).scalar_one_or_none()
    # Another may have finished it in between: then there is room for ours.
    return _open_run(session, period, category, now) if found is None else found


def _done(session: Session, run_id: int) -> tuple[IssueResult, int, int]:
    """Return what was issued of a run, how many of its spans are done, and how many are left."""
    issued, already, total_minor, done, left = execute(
        session,
        "SELECT coalesce(sum(issued), 0), coalesce(sum(already), 0),"
        " coalesce(sum(total_minor), 0)::bigint, count(done_at),"
        " count(*) FILTER (WHERE done_at IS NULL)"
        " FROM issue_chunk WHERE run_id = :id",
        {"id": run_id},
    ).one()
    return IssueResult(issued, already, total_minor), done, left


def _cut(session: Session, run_id: int, scope: _Scope) -> None:
    """Cut those who may owe, beyond the spans that the run has, into spans of CHUNK people."""
    position, after = execute(
        session,
        "SELECT coalesce(max(position), 0), coalesce(max(last_id), 0) FROM issue_chunk"
        " WHERE run_id = :id",
        {"id": run_id},
    ).one()
    execute(
        session,
        f"""
        WITH {_SPECIAL}, people AS (
            SELECT c.id, row_number() OVER (ORDER BY c.id) AS number FROM contributor c
            WHERE {_PEOPLE}
        ), ends AS (
            SELECT id FROM people WHERE number % :size = 0 UNION SELECT max(id) FROM people
        )
        INSERT INTO issue_chunk (run_id, position, first_id, last_id)
        SELECT :run_id, :position + row_number() OVER (ORDER BY id),
            coalesce(lag(id) OVER (ORDER BY id), :after) + 1, id
        FROM ends WHERE id IS NOT NULL
        """,
        {
            **scope.parameters,
            "first": after + 1,
            "last": _ID_MAX,
            "size": CHUNK,
            "run_id": run_id,
            "position": position,
            "after": after,
        },
    )


_ID_MAX: Final = 2**63 - 1


def _at(run_id: int, now: datetime) -> dict[str, Any]:
    return {"id": run_id, "now": now}


# -- whom it is about -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scope:
    """What a run asks for, and how SQL is told."""

    period: Period
    quarter: Period
    codes: tuple[str, ...]
    """Categories that the tariff has; of an order of one that is gone, none."""
    gone: tuple[str, ...]
    """Categories of this kind that the tariff has no more. Whoever is in one cannot be priced."""
    billing: tuple[str, ...]
    """Periods whose invoices bar one of this period."""

    @classmethod
    def of(cls, session: Session, tariff: Tariff, period: Period, category: str | None) -> _Scope:
        """Return what a run of a category, or of all, asks for.

        An order may be older than the tariff: of a category that is gone, or is owed by other
        periods now, it is worked off all the same.
        """
        known = {c.code: c.periodicity for c in tariff.category}
        rows = execute(
            session,
            "SELECT code FROM category WHERE periodicity = :every ORDER BY code",
            {"every": period.periodicity},
        )
        codes = [code for code, every in known.items() if every is period.periodicity]
        gone = [code for code in rows.scalars() if code not in known]
        if category is not None:
            codes = [code for code in codes if code == category]
            gone = [code for code in gone if code == category]
        billing = (period.code, *_overlapping(period))
        return cls(period, quarter_of(period), tuple(codes), tuple(gone), billing)

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "categories": [*self.codes, *self.gone],
            "period": self.period.code,
            "starts_on": self.period.starts_on,
            "ends_on": self.period.ends_on,
            "quarter_starts_on": self.quarter.starts_on,
            "quarter_ends_on": self.quarter.ends_on,
            "billing": list(self.billing),
        }


def _overlapping(period: Period) -> list[str]:
    """Return the periods of the other kind that hold days of this one."""
    if period.periodicity is Periodicity.MONTH:
        return [period_of(period.starts_on, Periodicity.QUARTER).code]
    year, first = period.starts_on.year, period.starts_on.month
    return [f"{year}-{month:02}" for month in range(first, first + 3)]


# Who did something else in the quarter, or has more than one file.
_SPECIAL: Final = """special AS MATERIALIZED (
    SELECT contributor_id AS id FROM activity
    WHERE contributor_id BETWEEN :first AND :last AND withdrawn_at IS NULL
        AND since <= :quarter_ends_on AND (until IS NULL OR until >= :quarter_starts_on)
    UNION
    SELECT merged_into_id FROM contributor WHERE merged_into_id BETWEEN :first AND :last
)"""

_PEOPLE: Final = """c.id BETWEEN :first AND :last AND c.merged_into_id IS NULL AND (
    c.category_code = ANY(:categories) AND c.registered_on <= :ends_on
        AND (c.left_on IS NULL OR c.left_on >= :starts_on)
    OR c.id IN (SELECT id FROM special)
)"""

_IS_SPECIAL: Final = """(coalesce(c.category_since > :quarter_starts_on, false)
    OR c.id IN (SELECT id FROM special))"""

# One of the period itself bars another for ever, cancelled or not; one of the other kind as long as
# anything is charged on it: a re-assessment may have credited all of it.
_BILLED: Final = """period = ANY(:billing) AND (period = :period OR cancelled_at IS NULL
    AND amount_minor + coalesce((SELECT sum(n.amount_minor) FROM invoice_note n
        WHERE n.invoice_id = invoice.id AND n.kind = 'adjustment'), 0) > 0)"""


# -- the work -------------------------------------------------------------------------------------


def issue_invoices(
    tariff: Tariff,
    period: Period,
    *,
    category: str | None,
    key: BooksKey,
    clock: Callable[[], datetime],
    progress: Progress = lambda _done, _of: None,
    workers: int = WORKERS,
) -> IssueResult:
    """Issue the period's invoices of one category, or of all that are owed by such periods.

    Opens a transaction per span of people. Killed between or inside spans and run again, it issues
    what is missing and nothing twice. Several may run at once, and workers beside them: they share
    the spans, and each returns what was issued since it joined. A period is owed from the one that
    contains `registered_on` to the one that contains `left_on`. Nobody is billed twice for a day:
    who changed from months to quarters, or back, is left out while an invoice of the other kind
    that holds days of the period stands.

    Args:
        tariff: The one in force.
        period: What is to be issued.
        category: Only this one; None for all.
        key: The books' key: it seals each invoice, and signs what is paid out of credit.
        clock: The business clock.
        progress: Told after each span of how many, of how many that may owe; by any thread.
        workers: How many spans are in work at once.

    Raises:
        Unusable: The tariff has no such category, the period is not of its kind, it lies more
            than a year ahead, or invoices are sealed with another key.
    """
    issuer = Issuer(tariff, key, clock)
    issued, total_minor, joined = 0, 0, True
    # Of an order that is joined, spans were done on what was known then: it is followed by another,
    # which bills who was enrolled late, or could not be priced before.
    while joined:
        with transaction() as session:
            sealer_of(session, key)
            order = order_issue(session, tariff, period, category=category, now=clock())
        work_off(order, issuer, progress=progress, workers=workers)
        with transaction() as session:
            finish(session, order.run_id, now=clock())
            done, _, _ = _done(session, order.run_id)
        already = done.already + order.before.issued - issued
        issued += done.issued - order.before.issued
        total_minor += done.total_minor - order.before.total_minor
        joined = order.joined
    with transaction() as session:
        count, first = find_left_out(session, tariff, period, category=category)
    return IssueResult(issued, already, total_minor, count, first)


def work_off(order: Order, issuer: Issuer, *, progress: Progress, workers: int) -> None:
    """Return when all spans of an order are done, by these threads or by others.

    Opens a transaction per span. What one thread raises ends the others after their span.
    """
    stop = Event()

    def work() -> None:
        while not stop.is_set():
            ran = issuer.run_next(order.run_id, wait=True)
            if ran is None:
                return
            progress(ran.done, order.owing)

    with ThreadPoolExecutor(workers) as pool:
        try:
            for each in [pool.submit(work) for _ in range(workers)]:
                each.result()
        finally:
            stop.set()


def issue_some(
    tariff: Tariff, *, key: BooksKey, clock: Callable[[], datetime], seconds: float
) -> int:
    """Do spans of open runs for some seconds; return how many. For workers: any number at once.

    Opens a transaction per span. Who is left out of one is logged.

    Raises:
        Unusable: Invoices are sealed with another key.
    """
    open_runs = "SELECT id FROM issue_run WHERE finished_at IS NULL ORDER BY id"
    with transaction() as session:
        runs = execute(session, open_runs).scalars().all()
        if runs:
            sealer_of(session, key)
    issuer, until, count = Issuer(tariff, key, clock), time.monotonic() + seconds, 0
    while runs and time.monotonic() < until and (ran := issuer.run_next()) is not None:
        count += 1
        if ran.left_out:
            log.warning(
                "not_billed",
                run=ran.run_id,
                people=len(ran.left_out),
                first=[each.contributor_id for each in ran.left_out[:NAMED_MAX]],
                reason=ran.left_out[0].reason,
            )
    for run_id in runs:
        with transaction() as session:
            finish(session, run_id, now=clock())
    return count


def finish(session: Session, run_id: int, *, now: datetime) -> None:
    """Say that a run is finished, if all its spans are done. The caller owns the transaction."""
    # Locked first: whoever joins the run adds spans under this lock, and the next statement sees.
    execute(session, "SELECT FROM issue_run WHERE id = :id FOR UPDATE", {"id": run_id})
    execute(
        session,
        "UPDATE issue_run SET finished_at = :now WHERE id = :id AND finished_at IS NULL AND NOT"
        " EXISTS (SELECT FROM issue_chunk WHERE run_id = :id AND done_at IS NULL)",
        _at(run_id, now),
    )


@dataclass(frozen=True, slots=True)
class Ran:
    """A span that was done."""

    run_id: int
    issued: int
    done: int
    """People of the run who were found billed, or were billed, so far."""
    left_out: tuple[LeftOut, ...]
    """Those of the span who cannot be priced."""


class Issuer:
    """Does spans of ordered runs, one in a transaction. Threads may share one."""

    def __init__(
        self,
        tariff: Tariff,
        key: BooksKey,
        clock: Callable[[], datetime],
        *,
        sealed: bool = True,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            tariff: The one in force.
            key: The books' key.
            clock: The business clock.
            sealed: False only to measure what seals cost.
        """
        self._tariff = tariff
        self._key = key
        self._clock = clock
        self._sealed = sealed
        self._sealer: Sealer | None = None

    def run_next(self, run_id: int | None = None, *, wait: bool = False) -> Ran | None:
        """Do the next span of a run, or of any; None if all are done or in others' hands.

        Opens a transaction, and another where the span's people were billed meanwhile by somebody
        else.

        Args:
            run_id: The run; None for any that is open.
            wait: Wait for a span that another has in hand, and do it if they did not.
        """
        for tries_left in reversed(range(TRIES_MAX)):
            try:
                with transaction() as session:
                    claimed = _claim(session, run_id, skip=True)
                    if claimed is None and wait:
                        claimed = _claim(session, run_id, skip=False)
                    return None if claimed is None else self._run(session, claimed)
            except (DBAPIError, psycopg.Error) as error:
                cause = error.orig if isinstance(error, DBAPIError) else error
                # Somebody else billed one of these people in the same moment: who is left is
                # found anew.
                if not tries_left or not isinstance(cause, (UniqueViolation, DeadlockDetected)):
                    raise
        raise AssertionError

    def _run(self, session: Session, claimed: _Claimed) -> Ran:
        now = self._clock()
        period = parse_period(claimed.period)
        _take_turns(session, period)
        scope = _Scope.of(session, self._tariff, period, claimed.category)
        owed = _owed(session, self._tariff, scope, claimed.first_id, claimed.last_id)
        if owed.people:
            if self._sealed and self._sealer is None:
                self._sealer = sealer_of(session, self._key)
            rows = Rows(*_bill(session, self._tariff, scope.period, owed, now), self._sealer)
            _write(session, rows)
            carry(session, [person for person, _ in owed.people], key=self._key, now=now)
            _tell(session, rows)
        done = execute(
            session,
            "WITH ran AS (UPDATE issue_chunk SET done_at = :now, issued = :issued,"
            " already = :already, total_minor = :total"
            " WHERE run_id = :run AND position = :position)"
            " SELECT coalesce(sum(issued + already), 0) FROM issue_chunk WHERE run_id = :run",
            {
                "now": now,
                "issued": len(owed.people),
                "already": owed.already,
                "total": sum(owed.lines[place][1].amount_minor for _, place in owed.people),
                "run": claimed.run_id,
                "position": claimed.position,
            },
        ).scalar_one()
        finished = done + len(owed.people) + owed.already
        return Ran(claimed.run_id, len(owed.people), finished, tuple(owed.left_out))


@dataclass(frozen=True, slots=True)
class _Claimed:
    run_id: int
    position: int
    first_id: int
    last_id: int
    period: str
    category: str | None


def _claim(session: Session, run_id: int | None, *, skip: bool) -> _Claimed | None:
    """Lock the first span that is not done, of a run or of any."""
    row = execute(
        session,
        "SELECT c.run_id, c.position, c.first_id, c.last_id, r.period, r.category_code"
        " FROM issue_chunk c JOIN issue_run r ON r.id = c.run_id"
        " WHERE c.done_at IS NULL AND c.run_id = coalesce(:run_id, c.run_id)"
        f" ORDER BY c.run_id, c.position LIMIT 1 FOR UPDATE OF c {'SKIP LOCKED' if skip else ''}",
        {"run_id": run_id},
    ).one_or_none()
    return None if row is None else _Claimed(*row)


def _take_turns(session: Session, period: Period) -> None:
    """Let months and quarters be issued one after the other, each kind by as many as like.

    A person who changes from one kind to the other at this moment could else be billed by both:
    neither would see the other's invoice. The two modes bar each other and not themselves; the
    table is one that nobody writes.
    """
    mode = "ROW EXCLUSIVE" if period.periodicity is Periodicity.MONTH else "SHARE"
    execute(session, f"LOCK TABLE reference_key IN {mode} MODE")


# -- who owes what --------------------------------------------------------------------------------


@dataclass(slots=True)
class _Owed:
    """Those of a span who are to be billed."""

    people: list[tuple[int, int]] = field(default_factory=list)
    """Contributor, and the place of what is owed in `lines`."""
    lines: list[tuple[str, DueLine]] = field(default_factory=list)
    """By category; each once, though many bases owe it."""
    already: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    _places: dict[tuple[str, str, str, int], int] = field(default_factory=dict)

    def place(self, category: str, line: DueLine) -> int:
        """Return the place of what is owed, which is kept if it is new."""
        key = (category, line.rule, line.source, line.amount_minor)
        if key not in self._places:
            self._places[key] = len(self.lines)
            self.lines.append((category, line))
        return self._places[key]


def _owed(
    session: Session,
    tariff: Tariff,
    scope: _Scope,
    first_id: int,
    last_id: int,
    only: Sequence[int] | None = None,
) -> _Owed:
    """Return who of a span of ids, or only of these in it, owes the period and is not billed for
    any day of it, and who cannot be priced.

    The decision is the pure functions', once for each base, so that the issue and a quote can
    never disagree.
    """
    # A compiled plan takes longer to make than the whole query to run.
    execute(session, "SET LOCAL jit = off")
    rows = execute(
        session,
        # OFFSET keeps the search for an invoice what it is written as, one look into the index for
        # each person: a join of the two would read all invoices there are for each span.
        f"""
        WITH {_SPECIAL}
        SELECT c.id, c.category_code, c.category_base_minor, {_IS_SPECIAL},
            EXISTS (SELECT FROM invoice WHERE contributor_id = c.id AND {_BILLED} OFFSET 0)
        FROM contributor c WHERE {_PEOPLE} {"" if only is None else "AND c.id = ANY(:only)"}
        ORDER BY c.id
        """,
        {**scope.parameters, "first": first_id, "last": last_id, "only": only},
    ).all()
    owed, assessor, special = _Owed(), Assessor(tariff), []
    prices = _Prices(tariff, assessor, scope, owed)
    flat = prices.flat
    for person, category, base, is_special, is_billed in rows:
        if is_special:
            special.append(person)
            continue
        try:
            place = flat[category] if category in flat else prices.place_for(category, base)
        except Unusable as error:
            if is_billed:
                owed.already += 1
            else:
                owed.left_out.append(LeftOut(person, str(error)))
            continue
        if place is None:
            continue
        if is_billed:
            owed.already += 1
        else:
            owed.people.append((person, place))
    if special:
        _add_special(session, assessor, scope, special, owed)
    return owed


def find_left_out(
    session: Session, tariff: Tariff, period: Period, *, category: str | None
) -> tuple[int, tuple[LeftOut, ...]]:
    """Return how many may owe a period, are not billed and cannot be priced, and the first of them.

    Asked of all as they are now, whoever did the spans. Each base is priced once; only people with
    one that cannot be, and who did several things, are looked at one by one. Changes nothing.
    """
    scope = _Scope.of(session, tariff, period, category)
    execute(session, "SET LOCAL jit = off")
    everybody = {**scope.parameters, "first": 0, "last": _ID_MAX}
    bases = session.connection().execute(
        sa.text(
            f"WITH {_SPECIAL} SELECT DISTINCT category_code, category_base_minor"
            f" FROM contributor c WHERE {_PEOPLE} AND category_code = ANY(:categories)"
        ),
        everybody,
        execution_options={"yield_per": CHUNK},
    )
    prices = _Prices(tariff, Assessor(tariff), scope, _Owed())
    refused = [(code, base) for code, base in bases if not prices.can_be_told(code, base)]
    asked = {
        "codes": [code for code, _ in refused],
        "bases": [-1 if base is None else base for _, base in refused],
        "size": CHUNK,
    }
    left_out: list[LeftOut] = []
    count, after = 0, 0
    while True:
        ids = execute(
            session,
            f"""
            WITH {_SPECIAL} SELECT c.id FROM contributor c WHERE {_PEOPLE} AND ({_IS_SPECIAL}
                OR (c.category_code, coalesce(c.category_base_minor, -1)) IN (SELECT code, base
                    FROM unnest(CAST(:codes AS text[]), CAST(:bases AS bigint[])) AS r (code, base))
            ) AND NOT EXISTS (
                SELECT FROM invoice WHERE contributor_id = c.id AND {_BILLED} OFFSET 0)
            ORDER BY c.id LIMIT :size
            """,
            {**everybody, **asked, "first": after + 1},
        ).scalars()
        found = list(ids)
        if not found:
            return count, tuple(left_out)
        owed = _owed(session, tariff, scope, found[0], found[-1], found)
        count += len(owed.left_out)
        owed.left_out.sort(key=lambda each: each.contributor_id)
        left_out += owed.left_out[: NAMED_MAX - len(left_out)]
        after = found[-1]


class _Prices:
    """What each category and base owes for the period, asked once for each band.

    People have as many bases as there are people, and all of a band owe the same.
    """

    def __init__(self, tariff: Tariff, assessor: Assessor, scope: _Scope, owed: _Owed) -> None:
        self._assessor = assessor
        self._period = scope.period
        self._owed = owed
        self._scales = {
            category.code: in_force(category.scale, scope.period.starts_on)
            for category in map(tariff.of, scope.codes)
            if category.scale and category.first_period.starts_on <= scope.period.starts_on
        }
        self._gone = frozenset(scope.gone)
        self._places: dict[tuple[str, int], int | None] = {}
        self.flat: dict[str, int | None] = {}
        """The places of categories that owe the same whatever the base, once they were asked."""

    def place_for(self, category: str, base_minor: int | None) -> int | None:
        """Return the place of what is owed; None if it is nothing.

        Raises:
            Unusable: A base is needed and absent, or outside every band, or the tariff has no such
                category.
        """
        if category in self._gone:
            raise Unusable(f"The tariff has no category {category!r} any more.")
        place = self._place(category, base_minor)
        if category not in self._scales:
            self.flat[category] = place
        return place

    def can_be_told(self, category: str, base_minor: int | None) -> bool:
        """Say whether a category and base can be priced, if only at nothing."""
        try:
            self.place_for(category, base_minor)
        except Unusable:
            return False
        return True

    def _place(self, category: str, base_minor: int | None) -> int | None:
        scale = self._scales.get(category)
        band = scale.band_of(base_minor) if scale and base_minor is not None else None
        # The last band has no edge, others one above 0; what has no band must not be taken for it.
        key = (category, -1 if band is None else band.edge or 0)
        if key in self._places:
            return self._places[key]
        line = self._assessor.price(category, base_minor, self._period)
        place = self._owed.place(category, line) if isinstance(line, DueLine) else None
        self._places[key] = place
        return place


def _add_special(
    session: Session, assessor: Assessor, scope: _Scope, people: Sequence[int], owed: _Owed
) -> None:
    """Assess people one by one, and add those who owe the period in the scope's categories."""
    found = read_people(session, people)
    owners = {file: person for person, one in found.items() for file in one.files}
    billed = execute(
        session,
        f"SELECT contributor_id FROM invoice WHERE contributor_id = ANY(:files) AND {_BILLED}",
        {**scope.parameters, "files": list(owners)},
    )
    barred = {owners[file] for file in billed.scalars()}
    asked = {*scope.codes, *scope.gone}
    for person in people:
        files = list(found[person].files.values())
        try:
            assessed = assessor.period(files, scope.period)
        except Unusable as error:
            if _did_any(files, asked, scope.period):
                if person in barred:
                    owed.already += 1
                else:
                    owed.left_out.append(LeftOut(person, str(error)))
            continue
        if not isinstance(assessed, Assessed) or assessed.category not in scope.codes:
            continue
        if person in barred:
            owed.already += 1
        else:
            owed.people.append((person, owed.place(assessed.category, assessed.line)))


def _did_any(files: Sequence[PersonFacts], categories: Set[str], period: Period) -> bool:
    """Say whether a person did something of these categories in a period."""
    return any(
        did.category in categories
        and did.since <= period.ends_on
        and (did.until is None or did.until >= period.starts_on)
        for did in everything_done(files)
    )


def assess_person(
    session: Session, tariff: Tariff, contributor_id: int, period: Period
) -> Assessed | NotOwed:
    """Return what a person owes for a period by all that is known of them, or why nothing.

    Keeps re-assessments and merges of files waiting until the caller's transaction ends: one in
    between would see no invoice to put right, and `issue_one` would bill what was true before.

    Raises:
        Unusable: There is no such person, or a base cannot be priced.
    """
    _take_turns(session, period)
    person = read_people(session, [contributor_id]).get(contributor_id)
    if person is None:
        raise Unusable("No such contributor, or the file of one who has another that stands.")
    return Assessor(tariff).period(list(person.files.values()), period)


# -- what is written ------------------------------------------------------------------------------


def issue_one(
    session: Session,
    tariff: Tariff,
    period: Period,
    contributor_id: int,
    assessed: Assessed,
    *,
    key: BooksKey,
    now: datetime,
) -> Happening | None:
    """Write one person's invoice of a period unless there is one; None if there is.

    The caller owns the transaction, has asked what is owed (`assess_person`), carries credit to
    what was issued (`carry`, or gateway.collection.placing), and tells the event that is
    returned, last.
    Nothing is issued over a cancelled invoice.

    Raises:
        Unusable: The period lies more than a year ahead, days of it are billed already, or
            invoices are sealed with another key.
    """
    refuse_far(period, now)
    sealer = sealer_of(session, key)
    _take_turns(session, period)
    billing = [period.code, *_overlapping(period)]
    other = execute(
        session,
        "SELECT period, reference FROM invoice WHERE contributor_id IN ("
        f"SELECT id FROM contributor WHERE id = :id OR merged_into_id = :id) AND {_BILLED}"
        " ORDER BY period = :period DESC, due_on LIMIT 1",
        {"id": contributor_id, "billing": billing, "period": period.code},
    ).one_or_none()
    if other is not None and other.period == period.code:
        return None
    if other is not None:
        raise Unusable(
            f"Days of {period.code} are billed already by the invoice of {other.period}"
            f" ({format_reference(other.reference)}): nobody is billed twice for a day."
        )
    owed = _Owed()
    owed.people.append((contributor_id, owed.place(assessed.category, assessed.line)))
    try:
        with session.begin_nested():
            billed, terms = _bill(session, tariff, period, owed, now)
            rows = Rows(list(billed), terms, sealer)
            _write(session, rows)
            return rows.happenings()[0]
    except UniqueViolation:
        return None


def _bill(
    session: Session, tariff: Tariff, period: Period, owed: _Owed, now: datetime
) -> tuple[Iterator[Billed], list[Terms]]:
    """Return the invoices of those who owe, drawn as they are taken, and the terms they are on."""
    rules = keep_rules(session, [line for _, line in owed.lines])
    terms = [
        Terms(
            category=category,
            period=period.code,
            due_on=tariff.due_on(category, period),
            amount_minor=line.amount_minor,
            rule_id=rules[why_of(line)],
            tariff=tariff.version,
            issued_at=now,
        )
        for category, line in owed.lines
    ]
    ids, references = _draw(session, len(owed.people))
    people = (person for person, _ in owed.people)
    places = (place for _, place in owed.people)
    return starmap(Billed, zip(ids, references, people, places, strict=True)), terms


def _write(session: Session, rows: Rows) -> None:
    """Write the invoices and their lines; the events are packed, to be written last."""
    copy_blocks(session, COPY_INVOICES, rows.invoices())
    copy_blocks(session, COPY_LINES, rows.lines)


def _tell(session: Session, rows: Rows) -> None:
    """Append the events to the feed, as gateway.events.tell would."""
    take_the_end_of_the_feed(session)
    copy_blocks(session, COPY_EVENTS, rows.events)


def _draw(session: Session, how_many: int) -> tuple[list[int], Iterator[bytes]]:
    """Draw so many ids and references. What a failed transaction drew is not drawn again."""
    key, ids, numbers = execute(
        session,
        "SELECT (SELECT key FROM reference_key), array_agg(nextval(ids)),"
        " array_agg(nextval('invoice_number')) FROM generate_series(1, :many),"
        " CAST(pg_get_serial_sequence('invoice', 'id') AS regclass) AS ids",
        {"many": how_many},
    ).one()
    return ids, nth_references(numbers, bytes(key))


def carry(session: Session, people: Sequence[int], *, key: BooksKey, now: datetime) -> None:
    """Pay what was issued to these people out of the credit of those who have some.

    The caller owns the transaction.
    """
    credited = execute(
        session,
        """
        WITH file (id, person) AS (
            SELECT id, id FROM unnest(CAST(:people AS bigint[])) AS p (id)
            UNION ALL
            SELECT id, merged_into_id FROM contributor WHERE merged_into_id = ANY(:people)
        )
        SELECT DISTINCT person FROM file JOIN ledger_account a ON a.code = 'credit:' || file.id
        WHERE (SELECT coalesce(sum(amount_minor), 0) FROM ledger_transfer
                WHERE credit_account_id = a.id)
            > (SELECT coalesce(sum(amount_minor), 0) FROM ledger_transfer
                WHERE debit_account_id = a.id)
        ORDER BY person
        """,
        {"people": list(people)},
    ).scalars()
    found = list(credited)
    if found:
        carry_credit(session, found, key=key, now=now)
