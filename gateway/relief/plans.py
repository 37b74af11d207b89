"""Instalment plans: made with a reference and reliefs, judged by date, kept or broken.

Decisions are gateway.dues.instalments'; what is broken is as if it had never been granted. The
caller owns each transaction; nothing but its commit should follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Final

import structlog
from sqlmodel import Session

from gateway.billing.bills import Ends
from gateway.billing.bundles import make_bundle
from gateway.billing.owing import read_owing
from gateway.books.seals import BooksKey
from gateway.clock import day_of
from gateway.collection.placing import hold_people
from gateway.db import execute, insert_all
from gateway.dues.balances import Relief
from gateway.dues.campaigns import Campaigns, PlanPenalty, campaigns, code_of
from gateway.dues.conditions import Because, Debt, Grant, with_plan
from gateway.dues.instalments import (
    Instalment,
    PlanFacts,
    PlanStanding,
    PlanState,
    is_late,
    schedule,
    state_of,
)
from gateway.dues.principal import DueLine
from gateway.errors import Unusable
from gateway.events import Happening, tell
from gateway.models import BundleKind, EventType, LineKind, Plan, PlanInstalment, Remission
from gateway.money import format_amount
from gateway.people.activities import lock_people
from gateway.relief.reliefs import (
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

RULE: Final = "instalments"
"""The rule's name in the campaigns file, kept with the file's version on each plan."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PlanView:
    """A plan as it stands on a day. Amounts in centimes."""

    id: int
    reference: str
    contributor_id: int
    made_on: date
    months: int
    amount_minor: int
    campaign: str | None
    """The code of the campaign whose remission rests on it."""
    invoices: tuple[str, ...]
    """References of what it spreads, oldest first."""
    state: PlanState

    def as_json(self) -> dict[str, Any]:
        """Return it as commands print it."""
        state = self.state
        return {
            "plan": str(self.id),
            "reference": self.reference,
            "status": state.standing.value,
            "since": state.since.isoformat() if state.since else None,
            "because": state.because.value if state.because else None,
            "made_on": self.made_on.isoformat(),
            "months": self.months,
            "amount": format_amount(self.amount_minor),
            "paid": format_amount(state.paid_minor),
            "due": format_amount(state.unpaid_minor),
            "campaign": self.campaign,
            "invoices": list(self.invoices),
            "instalments": [
                {
                    "due_on": each.instalment.due_on.isoformat(),
                    "amount": format_amount(each.instalment.amount_minor),
                    "unpaid": format_amount(each.unpaid_minor),
                    "status": each.state.value,
                }
                for each in state.instalments
            ],
        }


# -- made -----------------------------------------------------------------------------------------


def make_plan(
    session: Session,
    contributor_id: int,
    months: int,
    campaign: str | None,
    *,
    key: BooksKey,
    now: datetime,
) -> PlanView:
    """Spread all that a person is late with over months; with a campaign, after its remission.

    Args:
        session: Whose transaction it is; nothing but its commit should follow.
        contributor_id: Any file of the person.
        months: How many instalments.
        campaign: Code of the campaign whose condition the plan is; None: none.
        key: Of the books.
        now: The business clock.

    Raises:
        Unusable: There is no such person, nothing is late, a plan stands already, or the rule or
            the campaign does not allow it.
    """
    file, on = campaigns(), day_of(now)
    rule = file.plan_rule(on)
    longest = rule.span.months_max
    if not 1 <= months <= longest:
        raise Unusable(f"A plan has 1 to {longest} months, not {months}.")
    named = file.of(campaign) if campaign is not None else None
    person = surviving_file(session, contributor_id)
    lock_people(session, [person])
    hold_people(session, [person])
    _refuse_standing(session, person, campaign)
    debts = read_debts(session, [person])[person]
    covered = [debt for debt in debts if is_late(debt, on)]
    if not covered:
        raise Unusable("Nothing is late: there is nothing to spread.")
    granted = with_plan(named, debts, months, on) if named is not None else None
    amount_minor = sum(debt.on(on, *_granted(granted, debt)).due_minor for debt in covered)
    instalments = schedule(amount_minor, months, on, rule.schedule)
    ids = [debt.invoice_id for debt in covered]
    before = remitted_by_invoice(session, ids, now=now)
    made = _keep_plan(session, file, person, ids, instalments, now)
    reliefs = _plan_reliefs(file.named(RULE), rule.penalty, made, ids, on)
    happenings: list[Happening] = []
    if granted is not None and named is not None:
        code, verified = file.named(named.code), named.debts.verified
        # Of what is late only: that is what the plan spreads.
        spread = {at: relief for at, relief in granted.reliefs.items() if at in set(ids)}
        granted = replace(granted, reliefs=spread)
        kept = _keep_remission(session, code, granted, made, person, verified, now)
        reliefs = [*kept.reliefs, *reliefs]
        happenings.append(kept.told)
    write_reliefs(session, reliefs, now=now)
    settle(session, [person], ids, key=key, now=now)
    view = read_plans(session, "plan.id = :id", {"id": made.plan_id}, on=on)[0]
    after = remitted_by_invoice(session, ids, now=now)
    tell(session, [*adjusted(session, before, after), _told_made(view), *happenings], now=now)
    return view


@dataclass(frozen=True, slots=True)
class _Made:
    plan_id: int
    reference: str


def _granted(granted: Grant | None, debt: Debt) -> list[Relief]:
    if granted is None or debt.invoice_id not in granted.reliefs:
        return []
    return [granted.reliefs[debt.invoice_id]]


def _refuse_standing(session: Session, person: int, campaign: str | None) -> None:
    """Refuse a second plan beside one that stands, and a campaign's remission twice."""
    standing = execute(
        session,
        f"SELECT EXISTS (SELECT FROM plan WHERE contributor_id IN {FILES} AND {_OPEN})",
        {"person": person},
    ).scalar_one()
    if standing:
        raise Unusable("A plan of this contributor stands: one at a time.")
    if campaign is not None and has_remission(session, person, campaign):
        raise Unusable(f"This contributor has the remission of campaign {campaign} already.")


def has_remission(session: Session, person: int, campaign: str) -> bool:
    """Say whether a campaign's remission stands for a person, whichever version granted it."""
    return bool(
        execute(
            session,
            "SELECT EXISTS (SELECT FROM remission WHERE broken_on IS NULL"
            f" AND split_part(campaign, '@', 1) = :code AND contributor_id IN {FILES})",
            {"person": person, "code": campaign},
        ).scalar_one()
    )


def _keep_plan(
    session: Session,
    file: Campaigns,
    person: int,
    invoice_ids: Sequence[int],
    instalments: Sequence[Instalment],
    now: datetime,
) -> _Made:
    """Write a plan with its bundle and its instalments."""
    bundle = make_bundle(session, BundleKind.PLAN, invoice_ids, contributor_id=person, now=now)
    assert bundle.id is not None
    plan = Plan(
        contributor_id=person,
        bundle_id=bundle.id,
        rule=file.named(RULE),
        made_on=day_of(now),
        months=len(instalments),
        amount_minor=sum(each.amount_minor for each in instalments),
        made_at=now,
    )
    session.add(plan)
    session.flush()
    assert plan.id is not None
    rows = [
        {
            "plan_id": plan.id,
            "position": each.position,
            "due_on": each.due_on,
            "amount_minor": each.amount_minor,
        }
        for each in instalments
    ]
    insert_all(session, PlanInstalment, rows)
    return _Made(plan.id, bundle.reference)


@dataclass(frozen=True, slots=True)
class _KeptRemission:
    reliefs: list[NewRelief]
    told: Happening


def _keep_remission(
    session: Session,
    named: str,
    granted: Grant,
    made: _Made,
    person: int,
    verified: bool,
    now: datetime,
) -> _KeptRemission:
    """Write the remission that rests on a plan; return its reliefs, and what is to be told."""
    kept = Remission(
        contributor_id=person,
        campaign=named,
        granted_on=granted.granted_on,
        plan_id=made.plan_id,
        granted_at=now,
    )
    session.add(kept)
    session.flush()
    why = why_remitted(named, granted.offer, granted.offer.verified and verified)
    reliefs = [
        NewRelief(at, relief, why, remission_id=kept.id) for at, relief in granted.reliefs.items()
    ]
    told = told_granted(kept.id, named, granted.granted_on, made.reference)
    return _KeptRemission(reliefs, told)


def _plan_reliefs(
    named: str, rule: PlanPenalty, made: _Made, invoice_ids: Iterable[int], on: date
) -> list[NewRelief]:
    """Return what marks the invoices as spread, and stops their penalty if the rule says so."""
    stops = "no penalty while it stands" if rule.stops else "the penalty goes on"
    why = DueLine(
        LineKind.REMISSION,
        0,
        f"{named}: {stops}",
        rule.source,
        rule.verified,
        {"form": "plan", "stops_penalty": "yes" if rule.stops else "no"},
    )
    relief = Relief(on, stops_penalty=rule.stops)
    return [NewRelief(at, relief, why, plan_id=made.plan_id) for at in invoice_ids]


# -- read -----------------------------------------------------------------------------------------


def plans_of(session: Session, contributor_id: int, *, on: date) -> list[PlanView]:
    """Return a person's plans as they stand on a day, ended ones too, oldest first.

    Raises:
        Unusable: There is no such contributor.
    """
    person = surviving_file(session, contributor_id)
    return read_plans(session, f"plan.contributor_id IN {FILES}", {"person": person}, on=on)


def read_plan(session: Session, plan_id: int, *, on: date) -> PlanView | None:
    """Return a plan as it stands on a day, or None if there is none."""
    return next(iter(read_plans(session, "plan.id = :id", {"id": plan_id}, on=on)), None)


def read_plans(
    session: Session, where: str, parameters: Mapping[str, Any], *, on: date
) -> list[PlanView]:
    """Return the plans that fit a condition of this code's own, as they stand on a day."""
    rows = execute(session, f"{_PLANS} WHERE {where} ORDER BY plan.id", parameters).mappings().all()
    facts = _facts(session, rows)
    file = campaigns()
    views = [
        PlanView(
            id=row["id"],
            reference=row["reference"],
            contributor_id=row["person"],
            made_on=row["made_on"],
            months=row["months"],
            amount_minor=row["amount_minor"],
            campaign=code_of(row["campaign"]) if row["campaign"] else None,
            invoices=tuple(row["invoices"]),
            state=_as_ended(row, state_of(facts[row["id"]], file.plan_rule(row["made_on"]), on)),
        )
        for row in rows
    ]
    return [
        _owed_at_once(session, row, view, on)
        if view.state.standing is PlanStanding.BROKEN
        else view
        for row, view in zip(rows, views, strict=True)
    ]


def _owed_at_once(session: Session, row: Any, view: PlanView, on: date) -> PlanView:
    """Return a broken plan with what its invoices come to, as if it had never been granted."""
    since = view.state.since
    remission = {} if row["remission_id"] is None else {row["remission_id"]: since}
    owing = read_owing(session, row["invoice_ids"], on, ends=Ends({view.id: since}, remission))
    due_minor = sum(each.due_minor for each in owing.values())
    return replace(view, state=replace(view.state, unpaid_minor=due_minor))


def _as_ended(row: Any, state: PlanState) -> PlanState:
    """Return a state with the end that is written down, if one is."""
    if row["kept_on"] is None and row["broken_on"] is None:
        return state
    kept = row["kept_on"] is not None
    return PlanState(
        PlanStanding.KEPT if kept else PlanStanding.BROKEN,
        row["kept_on"] if kept else row["broken_on"],
        None if kept else Because(row["broken_because"]),
        state.paid_minor,
        state.unpaid_minor,
        state.instalments,
    )


def _facts(session: Session, rows: Sequence[Any]) -> dict[int, PlanFacts]:
    """Return what bears on plans, by their ids."""
    ids = [row["id"] for row in rows]
    instalments: dict[int, list[Instalment]] = {}
    for plan_id, position, due_on, amount_minor in execute(
        session,
        "SELECT plan_id, position, due_on, amount_minor FROM plan_instalment"
        " WHERE plan_id = ANY(:ids) ORDER BY plan_id, position",
        {"ids": ids},
    ):
        known = instalments.setdefault(plan_id, [])
        known.append(Instalment(position, due_on, amount_minor))
    found = {}
    for group in one_of_each(rows):
        people, revived = {row["person"] for row in group}, [row["id"] for row in group]
        debts = read_debts(session, people, revived_plans=revived)
        for row in group:
            spread = set(row["invoice_ids"])
            theirs = debts[row["person"]]
            found[row["id"]] = PlanFacts(
                row["made_on"],
                instalments[row["id"]],
                [debt for debt in theirs if debt.invoice_id in spread],
                [debt for debt in theirs if debt.invoice_id not in spread],
            )
    return found


# -- judged ---------------------------------------------------------------------------------------


def plan_ends(session: Session, person: int, *, on: date) -> Ends:
    """Return what a review on a day would write down of a person's plans; changes nothing.

    Args:
        session: Whose transaction it is.
        person: The surviving file.
        on: The day.
    """
    changes = changes_of(session, _JUDGE, f"IN {FILES}", {"person": person}, on)
    return Ends(
        {change.row["id"]: change.broken_on for change in changes},
        {
            change.row["remission_id"]: change.broken_on
            for change in changes
            if change.row["remission_id"] is not None
        },
    )


def review_plans(session: Session, *, key: BooksKey, now: datetime, after: int = 0) -> Reviewed:
    """Judge the next plans by date (see gateway.relief.review)."""
    return review(session, _JUDGE, key=key, now=now, after=after)


def _changes(session: Session, rows: Sequence[Any], on: date) -> list[Change[PlanState]]:
    """Return the plans whose end is not as it is written down."""
    facts = _facts(session, rows)
    found = []
    for row in rows:
        try:
            rule = campaigns().plan_rule(row["made_on"])
            change = Change(row, state_of(facts[row["id"]], rule, on))
        except Unusable as error:
            log.warning("not_judged", plan=row["id"], reason=str(error))
            continue
        if change.is_news:
            found.append(change)
    return found


def _write(
    session: Session,
    changes: Sequence[Change[PlanState]],
    people: Sequence[int],
    *,
    key: BooksKey,
    now: datetime,
) -> None:
    """Write down how plans and the remissions that rest on them ended, and what follows."""
    ids = [change.row["id"] for change in changes]
    invoices = relieved(session, plans=ids, remissions=())
    before = remitted_by_invoice(session, invoices, now=now)
    values = {
        "ids": ids,
        "kept": [change.kept_on for change in changes],
        "broken": [change.broken_on for change in changes],
        "because": [change.state.because for change in changes],
    }
    execute(session, f"UPDATE plan SET {_ENDS} FROM {_GIVEN} WHERE plan.id = given.id", values)
    values["because"] = [Because.PLAN_BROKEN if c.broken_on else None for c in changes]
    execute(
        session,
        f"UPDATE remission SET {_ENDS} FROM {_GIVEN} WHERE remission.plan_id = given.id",
        values,
    )
    ended_on = {change.row["id"]: change.broken_on for change in changes}
    end_reliefs(session, ended_on, by="plan_id")
    remissions = {
        change.row["remission_id"]: change.broken_on
        for change in changes
        if change.row["remission_id"] is not None
    }
    end_reliefs(session, remissions, by="remission_id")
    settle(session, people, invoices, key=key, now=now)
    after = remitted_by_invoice(session, invoices, now=now)
    happenings = adjusted(session, before, after)
    for change in changes:
        happenings += _told_ended(change)
    tell(session, happenings, now=now)


# -- told -----------------------------------------------------------------------------------------


def _told_made(view: PlanView, *, again: bool = False) -> Happening:
    return _told_standing(view.reference, view.months, view.amount_minor, again=again)


def _told_standing(reference: str, months: int, amount_minor: int, *, again: bool) -> Happening:
    data = {
        "reference": reference,
        "months": months,
        "amount": format_amount(amount_minor),
        "again": again,
    }
    return Happening(EventType.PLAN_MADE, data)


def _told_ended(change: Change[PlanState]) -> list[Happening]:
    """Return what is told of a plan that ended or stands again, and of its remission."""
    row, state = change.row, change.state
    reference, remission = row["reference"], row["remission_id"]
    if state.since is None:
        told = [_told_standing(reference, row["months"], row["amount_minor"], again=True)]
        if remission is not None:
            told.append(
                told_granted(remission, row["campaign"], row["made_on"], reference, again=True)
            )
        return told
    data = {
        "reference": reference,
        "outcome": state.standing.value,
        "on": state.since.isoformat(),
        "because": state.because.value if state.because else None,
    }
    told = [Happening(EventType.PLAN_ENDED, data)]
    if remission is not None:
        because = Because.PLAN_BROKEN if change.broken_on else None
        outcome = state.standing.value
        told.append(told_ended(remission, row["campaign"], outcome, state.since, because))
    return told


FILES: Final = (
    "(SELECT id FROM contributor"
    " WHERE id = CAST(:person AS bigint) OR merged_into_id = CAST(:person AS bigint))"
)
"""All files of the person whose surviving one is `:person`."""

_OPEN: Final = "kept_on IS NULL AND broken_on IS NULL"
_JUDGED: Final = (
    "(plan.kept_on IS NULL AND plan.broken_on IS NULL"
    " OR plan.kept_on >= :since OR plan.broken_on >= :since"
    " OR plan.kept_on IS NOT NULL AND EXISTS (SELECT FROM bundle_item item"
    " JOIN invoice i ON i.id = item.invoice_id WHERE item.bundle_id = plan.bundle_id"
    " AND i.status IN ('open', 'part_paid') AND i.cancelled_at IS NULL)"
    f" OR plan.broken_on IS NOT NULL AND coalesce(c.merged_into_id, c.id) IN {CAME_BACK})"
)
_ENDS: Final = (
    "kept_on = given.kept_on, broken_on = given.broken_on, broken_because = given.because"
)
_GIVEN: Final = (
    "unnest(CAST(:ids AS bigint[]), CAST(:kept AS date[]), CAST(:broken AS date[]),"
    " CAST(:because AS text[])) AS given (id, kept_on, broken_on, because)"
)
_PLANS: Final = """
    SELECT plan.id, plan.made_on, plan.months, plan.amount_minor, plan.kept_on, plan.broken_on,
        plan.broken_because, bundle.reference, coalesce(c.merged_into_id, c.id) AS person,
        remission.id AS remission_id, remission.campaign, spread.invoice_ids, spread.invoices,
        EXISTS (SELECT FROM plan newer JOIN contributor n ON n.id = newer.contributor_id
            WHERE coalesce(n.merged_into_id, n.id) = coalesce(c.merged_into_id, c.id)
            AND newer.id > plan.id)
        OR EXISTS (SELECT FROM remission other JOIN contributor o ON o.id = other.contributor_id
            WHERE coalesce(o.merged_into_id, o.id) = coalesce(c.merged_into_id, c.id)
            AND other.id > remission.id
            AND split_part(other.campaign, '@', 1) = split_part(remission.campaign, '@', 1)
        ) AS replaced
    FROM plan
    JOIN bundle ON bundle.id = plan.bundle_id
    JOIN contributor c ON c.id = plan.contributor_id
    LEFT JOIN remission ON remission.plan_id = plan.id
    CROSS JOIN LATERAL (
        SELECT array_agg(invoice.id ORDER BY item.position) AS invoice_ids,
            array_agg(CAST(invoice.reference AS text) ORDER BY item.position) AS invoices
        FROM bundle_item item JOIN invoice ON invoice.id = item.invoice_id
        WHERE item.bundle_id = plan.bundle_id
    ) spread
"""


_JUDGE: Final = Judge("plan", _PLANS, _JUDGED, _changes, _write)
