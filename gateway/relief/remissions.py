"""Remissions: granted to who meets a campaign's condition, judged by date, kept or broken.

Those that rest on a plan are made and ended with it (see `plans`); here are those of who paid in
full, or pays regularly. The caller owns each transaction; nothing but its commit should follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, Final

import structlog
from sqlmodel import Session

from gateway.billing.bills import Ends
from gateway.books.seals import BooksKey
from gateway.clock import INSTITUTION_ZONE, day_of
from gateway.collection.placing import hold_people
from gateway.db import execute, insert_all
from gateway.dues.campaigns import Campaign, campaigns, code_of
from gateway.dues.conditions import (
    Because,
    Grant,
    RemissionStanding,
    RemissionState,
    earned,
    state_of,
)
from gateway.errors import Unusable
from gateway.events import Happening, tell
from gateway.models import Remission
from gateway.money import format_amount
from gateway.people.activities import lock_people
from gateway.relief.plans import FILES, plan_ends
from gateway.relief.reliefs import (
    BATCH,
    CAME_BACK,
    NewRelief,
    Reviewed,
    adjusted,
    end_reliefs,
    one_of_each,
    read_debts,
    relieved,
    remitted_by_invoice,
    settle,
    surviving_file,
    told_ended,
    told_granted,
    why_remitted,
    write_reliefs,
)
from gateway.relief.review import Change, Judge, changes_of, review

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Granted:
    """What a step of granting did. `next_after` goes on after it; None: that was all."""

    next_after: int | None
    looked_at: int
    granted: int
    remitted_minor: int
    """What these remissions take off now, in centimes."""


@dataclass(frozen=True, slots=True)
class RemissionView:
    """A remission as it is written down."""

    id: int
    campaign: str
    granted_on: date
    standing: RemissionStanding
    since: date | None
    because: Because | None
    plan: str | None
    """Reference of the plan it rests on."""
    invoices: tuple[str, ...]
    offer: str
    """What it remits, as the campaigns file said it."""
    remitted_minor: int
    """What is remitted on its invoices on the day they were asked for; 0 where it is broken."""

    def as_json(self) -> dict[str, Any]:
        """Return it as commands print it."""
        return {
            "remission": str(self.id),
            "campaign": self.campaign,
            "status": self.standing.value,
            "granted_on": self.granted_on.isoformat(),
            "since": self.since.isoformat() if self.since else None,
            "because": self.because.value if self.because else None,
            "plan": self.plan,
            "invoices": list(self.invoices),
            "offer": self.offer,
            "remitted": format_amount(self.remitted_minor),
        }


# -- granted --------------------------------------------------------------------------------------


def grant_remissions(
    session: Session,
    code: str,
    *,
    key: BooksKey,
    now: datetime,
    after: int = 0,
    contributor_id: int | None = None,
) -> Granted:
    """Grant a campaign's remission to the next people who meet its condition without a plan.

    Any number of times: who has it does not get it twice, and the day it counts from is the day
    the condition was met, whenever this runs.

    Args:
        session: Whose transaction it is; nothing but its commit should follow.
        code: The campaign's.
        key: Of the books.
        now: The business clock.
        after: `next_after` of the step before.
        contributor_id: Only this person, by any file.

    Raises:
        Unusable: There is no such campaign of the self-employed or no such contributor, or the
            campaign remits nothing without a plan.
    """
    campaign, on = campaigns().of(code), day_of(now)
    if campaign.plain_offer is None:
        raise Unusable(f"Campaign {code} remits nothing without a plan: make one.")
    following = None
    if contributor_id is not None:
        people = [surviving_file(session, contributor_id)]
        people = _candidates(session, campaign, 0, people)
    else:
        people = _candidates(session, campaign, after, None)
        following = people[-1] if len(people) == BATCH else None
    chosen = sorted(_earned(session, campaign, people, on))
    if not chosen:
        return Granted(following, len(people), 0, 0)
    lock_people(session, chosen)
    hold_people(session, chosen)
    # Read again, now that nobody else moves their money or grants them anything.
    grants = _earned(session, campaign, _candidates(session, campaign, 0, chosen), on)
    remitted_minor = _write_grants(session, campaign, grants, key=key, now=now)
    return Granted(following, len(people), len(grants), remitted_minor)


def _candidates(
    session: Session, campaign: Campaign, after: int, people: Sequence[int] | None
) -> list[int]:
    """Return people who may have met the condition and do not have this campaign's remission."""
    rows = execute(
        session,
        _CANDIDATES,
        {
            "after": after,
            "code": campaign.code,
            "everybody": people is None,
            "people": list(people or ()),
            "size": BATCH,
            **_bounds(campaign),
        },
    )
    return list(rows.scalars())


def _bounds(campaign: Campaign) -> dict[str, Any]:
    """Return what leaves out at once most of those who cannot have met the condition.

    Who pays regularly paid within the window; who paid in full has no debt that nothing was paid
    of. Both are loose: the decision is gateway.dues.campaigns'.
    """
    offer = campaign.plain_offer
    regular = offer is not None and offer.first_period is not None
    return {
        "paid_from": _start_of(campaign.since) if regular else None,
        "paid_until": _start_of(campaign.until + timedelta(days=1)) if regular else None,
        "paid_before": None if regular else campaign.debts.due_before,
    }


def _start_of(day: date) -> datetime:
    return datetime.combine(day, time(), INSTITUTION_ZONE)


def _earned(
    session: Session, campaign: Campaign, people: Sequence[int], on: date
) -> dict[int, Grant]:
    debts = read_debts(session, people)
    found = {}
    for person, theirs in debts.items():
        try:
            grant = earned(campaign, theirs, on)
        except Unusable as error:
            log.warning("not_judged", contributor=person, reason=str(error))
            continue
        if grant is not None:
            found[person] = grant
    return found


def _write_grants(
    session: Session,
    campaign: Campaign,
    grants: Mapping[int, Grant],
    *,
    key: BooksKey,
    now: datetime,
) -> int:
    """Write remissions with their reliefs; return what they take off now, in centimes."""
    if not grants:
        return 0
    named = campaigns().named(campaign.code)
    invoices = [at for grant in grants.values() for at in grant.reliefs]
    before = remitted_by_invoice(session, invoices, now=now)
    rows = [
        {
            "contributor_id": person,
            "campaign": named,
            "granted_on": grant.granted_on,
            "granted_at": now,
            "kept_on": grant.state.since,
        }
        for person, grant in sorted(grants.items())
    ]
    made: dict[int, int] = {
        person: at for at, person in insert_all(session, Remission, rows, "id, contributor_id")
    }
    reliefs = [
        NewRelief(
            at,
            relief,
            why_remitted(named, grant.offer, grant.offer.verified and campaign.debts.verified),
            remission_id=made[person],
        )
        for person, grant in sorted(grants.items())
        for at, relief in grant.reliefs.items()
    ]
    write_reliefs(session, reliefs, now=now)
    settle(session, sorted(grants), invoices, key=key, now=now)
    after = remitted_by_invoice(session, invoices, now=now)
    happenings = adjusted(session, before, after)
    for person, grant in sorted(grants.items()):
        happenings.append(told_granted(made[person], named, grant.granted_on, None))
        if grant.state.since is not None:
            kept = grant.state.since
            happenings.append(told_ended(made[person], named, RemissionStanding.KEPT, kept, None))
    tell(session, happenings, now=now)
    return sum(after.values()) - sum(before.values())


# -- read -----------------------------------------------------------------------------------------


def remissions_of(
    session: Session, contributor_id: int, *, on: date | None = None
) -> list[RemissionView]:
    """Return a person's remissions, ended ones too, oldest first.

    Args:
        session: Whose transaction it is.
        contributor_id: Any file of the person.
        on: The day that they are judged by; None: as they were when they were last reviewed.

    Raises:
        Unusable: There is no such contributor.
    """
    person = surviving_file(session, contributor_id)
    rows = execute(session, _VIEWS, {"person": person}).mappings().all()
    states = {} if on is None else _states(session, person, on)
    ids = sorted({at for row in rows for at in row["invoice_ids"]})
    remitted = remitted_by_invoice(session, ids, now=_start_of(on)) if on else {}
    return [_view(row, states.get(row["id"]), remitted) for row in rows]


def relief_ends(session: Session, person: int, *, on: date) -> Ends:
    """Return what reviews on a day would write down of a person's plans and remissions.

    Changes nothing. What rests on either is judged so before anybody has reviewed it.

    Args:
        session: Whose transaction it is.
        person: The surviving file.
        on: The day.
    """
    of_plans = plan_ends(session, person, on=on)
    own = {change.row["id"]: change.broken_on for change in _changes_of(session, person, on)}
    return Ends(of_plans.plans, {**of_plans.remissions, **own})


def _states(session: Session, person: int, on: date) -> dict[int, RemissionState]:
    """Return how remissions stand on a day where it is not written down so."""
    broken = plan_ends(session, person, on=on).remissions.items()
    states = {
        at: RemissionState(RemissionStanding.BROKEN, day, Because.PLAN_BROKEN)
        for at, day in broken
        if day is not None
    }
    states.update({each.row["id"]: each.state for each in _changes_of(session, person, on)})
    return states


def _changes_of(session: Session, person: int, on: date) -> list[Change[RemissionState]]:
    return changes_of(session, _JUDGE, f"IN {FILES}", {"person": person}, on)


def _view(row: Any, state: RemissionState | None, remitted: Mapping[int, int]) -> RemissionView:
    standing = RemissionStanding.RUNNING
    if row["kept_on"] is not None:
        standing = RemissionStanding.KEPT
    if row["broken_on"] is not None:
        standing = RemissionStanding.BROKEN
    if state is None:
        because = Because(row["broken_because"]) if row["broken_because"] else None
        state = RemissionState(standing, row["kept_on"] or row["broken_on"], because)
    return RemissionView(
        id=row["id"],
        campaign=code_of(row["campaign"]),
        granted_on=row["granted_on"],
        standing=state.standing,
        since=state.since,
        because=state.because if state.standing is RemissionStanding.BROKEN else None,
        plan=row["plan"],
        invoices=tuple(row["invoices"]),
        offer=row["offer"] or "",
        remitted_minor=0
        if state.standing is RemissionStanding.BROKEN
        else sum(remitted.get(at, 0) for at in row["invoice_ids"]),
    )


# -- judged ---------------------------------------------------------------------------------------


def review_remissions(
    session: Session, *, key: BooksKey, now: datetime, after: int = 0
) -> Reviewed:
    """Judge the next remissions without a plan by date (see gateway.relief.review).

    Kept ones with something due on what they relieved are judged too: they may be lost again.
    """
    return review(session, _JUDGE, key=key, now=now, after=after)


def _changes(session: Session, rows: Sequence[Any], on: date) -> list[Change[RemissionState]]:
    """Return the remissions whose end is not as it is written down.

    One of a campaign that the file does not have any more is left as it is.
    """
    known = {each.code: each for each in campaigns().campaign}
    found = []
    for group in one_of_each(rows):
        people, revived = {row["person"] for row in group}, [row["id"] for row in group]
        debts = read_debts(session, people, revived_remissions=revived)
        for row in group:
            campaign = known.get(code_of(row["campaign"]))
            if campaign is None:
                continue
            try:
                state = state_of(campaign, row["granted_on"], debts[row["person"]], on)
            except Unusable as error:
                log.warning("not_judged", remission=row["id"], reason=str(error))
                continue
            change = Change(row, state)
            if change.is_news:
                found.append(change)
    return found


def _write(
    session: Session,
    changes: Sequence[Change[RemissionState]],
    people: Sequence[int],
    *,
    key: BooksKey,
    now: datetime,
) -> None:
    """Write down how remissions ended, and what follows for invoices and money."""
    ids = [change.row["id"] for change in changes]
    invoices = relieved(session, plans=(), remissions=ids)
    before = remitted_by_invoice(session, invoices, now=now)
    execute(
        session,
        """
        UPDATE remission SET kept_on = given.kept_on, broken_on = given.broken_on,
            broken_because = given.because
        FROM unnest(CAST(:ids AS bigint[]), CAST(:kept AS date[]), CAST(:broken AS date[]),
            CAST(:because AS text[])) AS given (id, kept_on, broken_on, because)
        WHERE remission.id = given.id
        """,
        {
            "ids": ids,
            "kept": [change.kept_on for change in changes],
            "broken": [change.broken_on for change in changes],
            "because": [change.state.because for change in changes],
        },
    )
    end_reliefs(session, {c.row["id"]: c.broken_on for c in changes}, by="remission_id")
    settle(session, people, invoices, key=key, now=now)
    after = remitted_by_invoice(session, invoices, now=now)
    tell(session, [*adjusted(session, before, after), *_told(changes)], now=now)


def _told(changes: Iterable[Change[RemissionState]]) -> Iterable[Happening]:
    for change in changes:
        row, state = change.row, change.state
        if state.since is None:
            yield told_granted(row["id"], row["campaign"], row["granted_on"], None, again=True)
        else:
            because = state.because if change.broken_on else None
            standing = state.standing.value
            yield told_ended(row["id"], row["campaign"], standing, state.since, because)


# All files of a person as an array: each look-up then goes by an index, however many people.
_CANDIDATES: Final = """
    SELECT person.id FROM contributor person
    CROSS JOIN LATERAL (
        SELECT person.id || ARRAY(
            SELECT other.id FROM contributor other WHERE other.merged_into_id = person.id
        ) AS ids
    ) files
    WHERE person.id > :after AND person.merged_into_id IS NULL
        AND (:everybody OR person.id = ANY(CAST(:people AS bigint[])))
        AND EXISTS (
            SELECT FROM invoice i WHERE i.contributor_id = ANY(files.ids)
                AND i.status IN ('open', 'part_paid') AND i.cancelled_at IS NULL
        )
        AND NOT EXISTS (
            SELECT FROM remission m WHERE m.contributor_id = ANY(files.ids)
                AND m.broken_on IS NULL AND split_part(m.campaign, '@', 1) = :code
        )
        AND (CAST(:paid_from AS timestamptz) IS NULL OR EXISTS (
            SELECT FROM invoice i JOIN allocation a ON a.invoice_id = i.id
                JOIN payment p ON p.id = a.payment_id
            WHERE i.contributor_id = ANY(files.ids)
                AND p.paid_at >= :paid_from AND p.paid_at < :paid_until
        ))
        AND (CAST(:paid_before AS date) IS NULL OR NOT EXISTS (
            SELECT FROM invoice i WHERE i.contributor_id = ANY(files.ids)
                AND i.status = 'open' AND i.cancelled_at IS NULL AND i.due_on < :paid_before
        ))
    ORDER BY person.id LIMIT :size
"""
_JUDGED: Final = f"""
    remission.plan_id IS NULL AND (
        remission.kept_on IS NULL AND remission.broken_on IS NULL
        OR remission.kept_on >= :since OR remission.broken_on >= :since
        OR remission.kept_on IS NOT NULL AND EXISTS (
            SELECT FROM invoice_relief r JOIN invoice i ON i.id = r.invoice_id
            WHERE r.remission_id = remission.id AND i.status IN ('open', 'part_paid')
        )
        OR remission.broken_on IS NOT NULL AND coalesce(c.merged_into_id, c.id) IN {CAME_BACK}
    )
"""
_REMISSIONS: Final = """
    SELECT remission.id, remission.campaign, remission.granted_on, remission.kept_on,
        remission.broken_on, coalesce(c.merged_into_id, c.id) AS person,
        EXISTS (SELECT FROM remission other JOIN contributor o ON o.id = other.contributor_id
            WHERE coalesce(o.merged_into_id, o.id) = coalesce(c.merged_into_id, c.id)
            AND other.id > remission.id
            AND split_part(other.campaign, '@', 1) = split_part(remission.campaign, '@', 1)
        ) AS replaced
    FROM remission JOIN contributor c ON c.id = remission.contributor_id
"""
_VIEWS: Final = f"""
    SELECT remission.id, remission.campaign, remission.granted_on, remission.kept_on,
        remission.broken_on, remission.broken_because, bundle.reference AS plan,
        ARRAY(SELECT CAST(invoice.reference AS text) FROM invoice_relief r
            JOIN invoice ON invoice.id = r.invoice_id WHERE r.remission_id = remission.id
            ORDER BY invoice.due_on, invoice.id) AS invoices,
        ARRAY(SELECT invoice_id FROM invoice_relief WHERE remission_id = remission.id)
            AS invoice_ids,
        (SELECT string_agg(DISTINCT rule.rule, '; ') FROM invoice_relief r
            JOIN rule ON rule.id = r.rule_id WHERE r.remission_id = remission.id) AS offer
    FROM remission
    LEFT JOIN plan ON plan.id = remission.plan_id
    LEFT JOIN bundle ON bundle.id = plan.bundle_id
    WHERE remission.contributor_id IN {FILES}
    ORDER BY remission.id
"""


_JUDGE: Final = Judge("remission", _REMISSIONS, _JUDGED, _changes, _write)
