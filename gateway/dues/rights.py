"""Whether a person is up to date, and what that does to rights: pure decisions.

Rights go by contributions: a period is settled on the day its principal is fully paid, remitted or
taken into a plan that stands; penalties and fees that are left do not close them. All is worked out
from the facts as they are known on a day, credits counting from the beginning, so that the same
facts give the same answer whenever somebody asks.

- Cover begins so many months after the first due month (stage).
- A period that is unpaid at the end of its due month, and of the months of grace, closes rights.
- They open again on the day on which nothing late is unpaid; but where more than so many
  consecutive months (gap) were unpaid together, after a wait from the month after that day.
- A campaign may ask for a wait of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Final

from gateway.dues.balances import Bill, Claim, Rates, balance, without_credits
from gateway.dues.periods import Period
from gateway.dues.tariff import RightsTerms
from gateway.models import LineKind, Periodicity

Terms = Callable[[date], RightsTerms]
"""The rights rule as it is on a day."""

_ONE_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class OwedPeriod:
    """A contribution that was charged: by when it was to be paid, and since when it is settled."""

    period: Period
    due_on: date
    settled_on: date | None

    def is_late(self, day: date) -> bool:
        """Say whether it is overdue and unsettled at the end of a day."""
        return self.due_on < day and (self.settled_on is None or day < self.settled_on)

    def was_late(self, day: date) -> bool:
        """Say whether it was so at the beginning of a day."""
        return self.due_on < day and (self.settled_on is None or day <= self.settled_on)


@dataclass(frozen=True, slots=True)
class Hold:
    """Rights that do not open from one day to before another, and who says so."""

    since: date
    until: date
    source: str
    verified: bool


class RightsState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"
    WAITING = "waiting"
    """Nothing is late, and rights open on a day to come."""


class Because(StrEnum):
    """What decides the state of rights."""

    PAID = "paid"
    UNPAID = "unpaid"
    STAGE = "stage"
    """Cover has not begun yet."""
    GAP = "gap"
    """Too many consecutive months were unpaid: a wait runs."""
    CAMPAIGN = "campaign"
    """A campaign's own wait runs."""
    LEFT = "left"
    """The person has left, and cover has ended."""
    NOTHING_BILLED = "nothing_billed"
    """No contribution was charged yet: there is nothing to tell by."""


@dataclass(frozen=True, slots=True)
class Rights:
    """Rights on a day."""

    state: RightsState
    because: Because
    since: date | None
    """When it became so; None where that is not known."""
    until: date | None
    """Of open rights: the last day, if nothing more is paid."""
    reopens_on: date | None
    """When they open: of waiting ones; of closed ones, if all that is late is paid today."""
    source: str
    """Of the rule that decides."""
    verified: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """A person on a day."""

    up_to_date: bool
    since: date | None
    """Since when it is so; None: nothing was ever late."""
    first_unpaid: Period | None
    late: tuple[OwedPeriod, ...]
    """What is overdue, oldest first."""
    settled: Period | None
    """The last period that is settled."""
    rights: Rights


@dataclass(frozen=True, slots=True)
class RightsFacts:
    """All that decides a person's standing."""

    owed: Sequence[OwedPeriod]
    terms: Terms
    first_due_on: date
    """By when the first contribution was to be paid that the person ever owed."""
    next_due_on: date
    """By when the next one is to be paid that is not charged yet; of who has left, the one that
    would have come."""
    left: bool = False
    """Whether the person owes no more."""
    holds: Sequence[Hold] = ()


def owed_periods(
    period: Period,
    bill: Bill,
    claims: Sequence[Claim],
    rates: Rates,
    on: date,
    *,
    in_plan_since: date | None = None,
) -> list[OwedPeriod]:
    """Return what an invoice charged, and since when each part is settled, as known on a day.

    Args:
        period: What it is for.
        bill: The invoice.
        claims: What paid it.
        rates: The penalty rule of its category.
        on: The day.
        in_plan_since: Since when a standing plan spreads what it came to by then.
    """
    reliefs = [r for r in bill.reliefs if r.ended_on is None or on < r.ended_on]
    known = replace(without_credits(bill, on), reliefs=reliefs)
    days = {
        date.min,
        *(claim.paid_on for claim in claims),
        *(relief.granted_on for relief in reliefs),
        *(note.noted_on for note in known.notes if note.kind is LineKind.ADJUSTMENT),
    }
    steps: list[tuple[date, date | None]] = []
    for day in sorted(each for each in days if each <= on):
        payable_by = balance(known, claims, rates, day).payable_by
        if not steps or payable_by != steps[-1][1]:
            steps.append((day, payable_by))
    ends = [day for day, _ in steps[1:]]
    found = []
    for (_, due_on), settled_on in zip(steps, [*ends, None], strict=True):
        if due_on is None:
            continue
        ways = [settled_on]
        if in_plan_since is not None and due_on <= in_plan_since:
            ways.append(in_plan_since)
        first = min((day for day in ways if day is not None), default=None)
        found.append(OwedPeriod(period, due_on, first))
    return found


def standing_on(facts: RightsFacts, on: date) -> Standing:
    """Return how a person stands on a day. Payments of the day itself count."""
    late = sorted(
        (each for each in facts.owed if each.is_late(on)),
        key=lambda each: (each.due_on, each.period.code),
    )
    settled = [each for each in facts.owed if each.settled_on is not None and each.settled_on <= on]
    last = max(settled, key=lambda each: each.period.ends_on, default=None)
    return Standing(
        up_to_date=not late,
        since=late[0].due_on + _ONE_DAY if late else _last_caught_up(facts.owed, on),
        first_unpaid=late[0].period if late else None,
        late=tuple(late),
        settled=last.period if last else None,
        rights=_rights(facts, on),
    )


def _last_caught_up(owed: Iterable[OwedPeriod], on: date) -> date | None:
    """Return the last day until when something late was settled, or None."""
    ends = (e.settled_on for e in owed if e.settled_on and e.due_on < e.settled_on <= on)
    return max(ends, default=None)


# -- rights ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wait:
    """Days on which rights wait, the last not included."""

    since: date
    until: date
    because: Because
    source: str
    verified: bool


@dataclass(frozen=True, slots=True)
class _Course:
    """How rights go over time."""

    closings: Sequence[tuple[date, date | None]]
    """From the day that closes to the day that settles."""
    waits: Sequence[_Wait]
    ends_on: date | None
    """From when on cover has ended for who has left."""

    def on(self, day: date) -> tuple[RightsState, _Wait | None]:
        if any(start <= day and (end is None or day < end) for start, end in self.closings):
            return RightsState.CLOSED, None
        if self.ends_on is not None and self.ends_on <= day:
            return RightsState.CLOSED, None
        running = [wait for wait in self.waits if wait.since <= day < wait.until]
        if running:
            return RightsState.WAITING, max(running, key=lambda wait: wait.until)
        return RightsState.OPEN, None

    def since(self, day: date) -> date | None:
        """Return since when it is as it is on a day; None: from the beginning."""
        days = {
            *(start for start, _ in self.closings),
            *(end for _, end in self.closings if end is not None),
            *(each for wait in self.waits for each in (wait.since, wait.until)),
            *([] if self.ends_on is None else [self.ends_on]),
        }
        turns = sorted(each for each in days if date.min < each <= day)
        now = self.on(day)[0]
        for before, turn in pairwise(reversed([date.min, *turns, day])):
            assert turn <= before
            if self.on(turn)[0] is not now:
                return before
        return None


def _rights(facts: RightsFacts, on: date) -> Rights:
    terms = facts.terms(on)
    if not facts.owed:
        nothing = Because.NOTHING_BILLED
        return Rights(RightsState.WAITING, nothing, None, None, None, terms.source, terms.verified)
    course = _course(facts)
    state, wait = course.on(on)
    left = course.ends_on is not None and course.ends_on <= on
    if state is RightsState.OPEN:
        because = Because.PAID
    elif wait is not None:
        because = wait.because
    else:
        because = Because.LEFT if left else Because.UNPAID
    return Rights(
        state=state,
        because=because,
        since=course.since(on),
        until=_until(facts, on) if state is RightsState.OPEN else None,
        reopens_on=None if state is RightsState.OPEN or left else _reopens_on(facts, on),
        source=wait.source if wait else terms.source,
        verified=wait.verified if wait else terms.verified,
    )


def _course(facts: RightsFacts) -> _Course:
    closings = []
    for each in facts.owed:
        start = _closes_on(facts.terms, each.due_on)
        if each.settled_on is None or start < each.settled_on:
            closings.append((start, each.settled_on))
    first = facts.terms(facts.first_due_on)
    opens = first_of_month(facts.first_due_on, first.stage_months)
    waits = [_Wait(date.min, opens, Because.STAGE, first.source, first.verified)]
    for start, end in _episodes(closings):
        terms = facts.terms(end)
        if _longest_gap(facts.owed, start, end) > terms.gap_months:
            until = first_of_month(end, 1 + terms.wait_months) if terms.wait_months else end
            waits.append(_Wait(end, until, Because.GAP, terms.source, terms.verified))
    waits += [
        _Wait(hold.since, hold.until, Because.CAMPAIGN, hold.source, hold.verified)
        for hold in facts.holds
    ]
    ends_on = _closes_on(facts.terms, facts.next_due_on) if facts.left else None
    return _Course(closings, waits, ends_on)


def _until(facts: RightsFacts, on: date) -> date | None:
    """Return the last day of open rights if nothing more is paid."""
    dues = [each.due_on for each in facts.owed if each.settled_on is None or each.settled_on > on]
    starts = [_closes_on(facts.terms, due_on) for due_on in (*dues, facts.next_due_on)]
    return min((start - _ONE_DAY for start in starts if start > on), default=None)


def _reopens_on(facts: RightsFacts, on: date) -> date:
    """Return when rights open if all that is late is settled today, and the rest in time."""
    caught_up = [
        replace(each, settled_on=on)
        if each.is_late(on)
        else replace(each, settled_on=min(each.settled_on or each.due_on, each.due_on))
        if each.settled_on is None or each.settled_on > on
        else each
        for each in facts.owed
    ]
    course = _course(replace(facts, owed=caught_up))
    day = on
    while (wait := course.on(day)[1]) is not None:
        day = wait.until
    return day


def _episodes(closings: Iterable[tuple[date, date | None]]) -> list[tuple[date, date]]:
    """Return the times without rights that have ended, each whole."""
    found: list[tuple[date, date | None]] = []
    for start, end in sorted(closings, key=lambda each: each[0]):
        if found and (found[-1][1] is None or start <= found[-1][1]):
            first, before = found[-1]
            found[-1] = (first, None if before is None or end is None else max(before, end))
        else:
            found.append((start, end))
    return [(start, end) for start, end in found if end is not None]


def _longest_gap(owed: Sequence[OwedPeriod], start: date, end: date) -> int:
    """Return how many consecutive months at most were unpaid together until a day."""
    days = {max(each.due_on + _ONE_DAY, start) for each in owed if each.due_on < end}
    return max((_longest_run(owed, day) for day in days), default=0)


def _longest_run(owed: Iterable[OwedPeriod], day: date) -> int:
    months: set[int] = set()
    for each in owed:
        if each.was_late(day):
            first = _months(each.period.starts_on)
            count = 1 if each.period.periodicity is Periodicity.MONTH else 3
            months.update(range(first, first + count))
    longest = run = 0
    for month in sorted(months):
        run = run + 1 if month - 1 in months else 1
        longest = max(longest, run)
    return longest


def _closes_on(terms: Terms, due_on: date) -> date:
    """Return from when on a period that is unpaid closes rights."""
    return first_of_month(due_on, 1 + terms(due_on).grace_months)


def first_of_month(day: date, months: int) -> date:
    """Return the first day of the month so many months after a day's; at the end of time, that."""
    year, month = divmod(_months(day) + months, 12)
    return date(year, month + 1, 1) if year <= date.max.year else date.max


def _months(day: date) -> int:
    return day.year * 12 + day.month - 1
