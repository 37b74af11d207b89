"""Issue what is due, once, in bulk: amounts are decided here, rows are streamed to the database.

An order is a run, cut into spans of people. The command and the workers claim spans, each in a
transaction of its own that writes the invoices and says that the span is done: whoever is killed
leaves nothing half done, and whoever comes next goes on. That nobody has two invoices of a period
is the unique key's to judge; who is billed already is left out before.

Most people are one category for the whole quarter, and cost nothing but their row. Who did several
things in it, or has several files, is assessed one by one (gateway.assessment).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import starmap
from threading import Event
from typing import Any, Final

import psycopg
from psycopg.errors import DeadlockDetected, UniqueViolation
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from gateway import outbox
from gateway.activities import read_people
from gateway.assessment import Assessed, Assessor, quarter_of
from gateway.clock import day_of
from gateway.db import copy_blocks, execute, transaction
from gateway.dues import DueLine, NotOwed
from gateway.errors import Unusable
from gateway.events import Happening, take_the_end_of_the_feed
from gateway.figures import in_force
from gateway.invoice_rows import COPY_EVENTS, COPY_INVOICES, COPY_LINES, Billed, Rows, Terms
from gateway.invoice_seals import Sealer, refuse_another_home
from gateway.models import Periodicity
from gateway.money import format_amount
from gateway.periods import Period, parse_period, period_of
from gateway.placing import carry_credit
from gateway.references import format_reference, nth_references
from gateway.rules import keep_rules, why_of
from gateway.seals import BooksKey
from gateway.tariff import Tariff, keep_categories

AHEAD_DAYS_MAX: Final = 366
CHUNK: Final = 10_000
"""People to a transaction: enough to be fast, and others wait for the end of the feed only for a
fraction of a second."""

WORKERS: Final = 2
"""Spans that the command has in work at once: one is decided and packed while the other is
written."""

TRIES_MAX: Final = 5
ISSUE_TASK: Final = "gateway.issue_chunks"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class IssueResult:
    """What an order issued since we joined it; one that was cut short is continued by the next."""

    issued: int
    already: int
    """Owed for the period, and its days billed before."""
    total_minor: int
    """Sum of what was issued, in centimes."""

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


# -- the order ------------------------------------------------------------------------------------


def order_issue(
    session: Session, tariff: Tariff, period: Period, *, category: str | None, now: datetime
) -> Order:
    """Order a period's invoices of one category, or of all that are owed by such periods.

    An order of the same that is not finished is joined, and people enrolled since are added. The
    caller owns the transaction. A worker is told of it.

    Raises:
        Unusable: The tariff has no such category, the period is not of its kind, or it lies more
            than a year ahead.
    """
    refuse_far(period, now)
    scope = _Scope.of(tariff, period, category)
    keep_categories(session, tariff)
    run_id = _open_run(session, period, category, now)
    before = _done(session, run_id)
    if before is None:
        execute(session, "UPDATE issue_run SET finished_at = :now WHERE id = :id", _at(run_id, now))
        run_id = _open_run(session, period, category, now)
        before = IssueResult(0, 0, 0)
    _cut(session, run_id, scope)
    owing = execute(
        session,
        f"WITH {_SPECIAL} SELECT count(*) FROM contributor c WHERE {_PEOPLE}",
        {**scope.parameters, "first": 0, "last": _ID_MAX},
    ).scalar_one()
    outbox.enqueue(session, ISSUE_TASK, now=now)
    return Order(run_id, owing, before)


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


def _done(session: Session, run_id: int) -> IssueResult | None:
    """Return what was done of a run that is open; None if it only lacks the word that it is."""
    issued, already, total_minor, chunks, left = execute(
        session,
        "SELECT coalesce(sum(issued), 0), coalesce(sum(already), 0),"
        " coalesce(sum(total_minor), 0)::bigint, count(*), count(*) FILTER (WHERE done_at IS NULL)"
        " FROM issue_chunk WHERE run_id = :id",
        {"id": run_id},
    ).one()
    return None if chunks and not left else IssueResult(issued, already, total_minor)


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
    """Categories."""
    billing: tuple[str, ...]
    """Periods whose invoices bar one of this period."""

    @classmethod
    def of(cls, tariff: Tariff, period: Period, category: str | None) -> _Scope:
        """Return what a run of a category, or of all, asks for.

        Raises:
            Unusable: The tariff has no such category, or the period is not of its kind.
        """
        if category is None:
            found = [c for c in tariff.category if c.periodicity is period.periodicity]
        else:
            found = [tariff.of(category)]
            if found[0].periodicity is not period.periodicity:
                raise Unusable(
                    f"{category} is owed by the {found[0].periodicity}, which {period.code} is not."
                )
        return cls(
            period,
            quarter_of(period),
            tuple(each.code for each in found),
            (period.code, *_overlapping(period)),
        )

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "categories": list(self.codes),
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
            than a year ahead, or a base cannot be priced.
    """
    with transaction() as session:
        refuse_another_home(session, Sealer(key))
        order = order_issue(session, tariff, period, category=category, now=clock())
    issuer = Issuer(tariff, key, clock)
    work_off(order, issuer, progress=progress, workers=workers)
    with transaction() as session:
        finish(session, order.run_id, now=clock())
        issued, already, total_minor = execute(
            session,
            "SELECT coalesce(sum(issued), 0), coalesce(sum(already), 0),"
            " coalesce(sum(total_minor), 0)::bigint FROM issue_chunk WHERE run_id = :id",
            {"id": order.run_id},
        ).one()
    before = order.before
    return IssueResult(
        issued - before.issued, already + before.issued, total_minor - before.total_minor
    )


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

    Opens a transaction per span.

    Raises:
        Unusable: Invoices are sealed with another key, or a base cannot be priced.
    """
    open_runs = "SELECT id FROM issue_run WHERE finished_at IS NULL ORDER BY id"
    with transaction() as session:
        runs = execute(session, open_runs).scalars().all()
        if runs:
            refuse_another_home(session, Sealer(key))
    issuer, until, count = Issuer(tariff, key, clock), time.monotonic() + seconds, 0
    while runs and time.monotonic() < until and issuer.run_next() is not None:
        count += 1
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
        self._sealer = Sealer(key) if sealed else None

    def run_next(self, run_id: int | None = None, *, wait: bool = False) -> Ran | None:
        """Do the next span of a run, or of any; None if all are done or in others' hands.

        Opens a transaction, and another where the span's people were billed meanwhile by somebody
        else.

        Args:
            run_id: The run; None for any that is open.
            wait: Wait for a span that another has in hand, and do it if they did not.

        Raises:
            Unusable: A base cannot be priced.
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
        scope = _Scope.of(self._tariff, parse_period(claimed.period), claimed.category)
        _take_turns(session, scope.period)
        owed = _owed(session, self._tariff, scope, claimed.first_id, claimed.last_id)
        if owed.people:
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
        return Ran(claimed.run_id, len(owed.people), done + len(owed.people) + owed.already)


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
    _places: dict[tuple[str, str, str, int], int] = field(default_factory=dict)

    def place(self, category: str, line: DueLine) -> int:
        """Return the place of what is owed, which is kept if it is new."""
        key = (category, line.rule, line.source, line.amount_minor)
        if key not in self._places:
            self._places[key] = len(self.lines)
            self.lines.append((category, line))
        return self._places[key]


def _owed(session: Session, tariff: Tariff, scope: _Scope, first_id: int, last_id: int) -> _Owed:
    """Return who of a span of ids owes the period and is not billed for any day of it.

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
        SELECT c.id, c.category_code, c.category_base_minor,
            coalesce(c.category_since > :quarter_starts_on, false)
                OR c.id IN (SELECT id FROM special),
            EXISTS (SELECT FROM invoice WHERE contributor_id = c.id AND {_BILLED} OFFSET 0)
        FROM contributor c WHERE {_PEOPLE} ORDER BY c.id
        """,
        {**scope.parameters, "first": first_id, "last": last_id},
    ).all()
    owed, assessor, special = _Owed(), Assessor(tariff), []
    prices = _Prices(tariff, assessor, scope, owed)
    flat = prices.flat
    for person, category, base, is_special, is_billed in rows:
        if is_special:
            special.append(person)
            continue
        try:
            place = flat[category]
        except KeyError:
            place = prices.place_for(person, category, base)
        if place is None:
            continue
        if is_billed:
            owed.already += 1
        else:
            owed.people.append((person, place))
    if special:
        _add_special(session, assessor, scope, special, owed)
    return owed


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
        self._places: dict[tuple[str, int], int | None] = {}
        self.flat: dict[str, int | None] = {}
        """The places of categories that owe the same whatever the base, once they were asked."""

    def place_for(self, person: int, category: str, base_minor: int | None) -> int | None:
        """Return the place of what a person owes; None if it is nothing.

        Raises:
            Unusable: A base is needed and absent, or outside every band.
        """
        try:
            place = self._place(category, base_minor)
        except Unusable as error:
            raise Unusable(f"Contributor {person} cannot be billed: {error}") from None
        if category not in self._scales:
            self.flat[category] = place
        return place

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
    for person in people:
        assessed = assessor.period(list(found[person].files.values()), scope.period)
        if not isinstance(assessed, Assessed) or assessed.category not in scope.codes:
            continue
        if person in barred:
            owed.already += 1
        else:
            owed.people.append((person, owed.place(assessed.category, assessed.line)))


def assess_person(
    session: Session, tariff: Tariff, contributor_id: int, period: Period
) -> Assessed | NotOwed:
    """Return what a person owes for a period by all that is known of them, or why nothing.

    Raises:
        Unusable: There is no such person, or a base cannot be priced.
    """
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
    what was issued (`carry`, or gateway.placing), and tells the event that is returned, last.
    Nothing is issued over a cancelled invoice.

    Raises:
        Unusable: The period lies more than a year ahead, days of it are billed already, or
            invoices are sealed with another key.
    """
    refuse_far(period, now)
    sealer = Sealer(key)
    refuse_another_home(session, sealer)
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
