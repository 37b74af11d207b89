"""Where a person stands: what is late, whether rights are open, what is held as credit. Reads only.

All files of the person count. What the day decides is decided by gateway.dues.rights; here the
facts are read, with as many queries for one invoice as for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from sqlmodel import Session

from gateway.billing.bills import Ends, read_bills, read_claims
from gateway.db import execute
from gateway.dues.assessment import ONE_DAY, Assessor, everything_done, quarters_from
from gateway.dues.balances import balance
from gateway.dues.campaigns import campaigns, code_of
from gateway.dues.periods import Period, parse_period, period_of
from gateway.dues.rights import (
    Hold,
    OwedPeriod,
    RightsFacts,
    Standing,
    first_of_month,
    owed_periods,
    standing_on,
)
from gateway.dues.tariff import Tariff
from gateway.errors import Unusable
from gateway.models import AccountKind, Component, Periodicity
from gateway.money import format_amount
from gateway.people.activities import Person, read_people
from gateway.relief.remissions import relief_ends

FIRST_DAY: Final = date(2021, 1, 1)
DAYS_AHEAD_MAX: Final = 366


@dataclass(frozen=True, slots=True)
class Arrear:
    """An invoice of which something is overdue. Amounts in centimes, penalty as of the day."""

    period: str
    reference: str
    due_on: date
    """By when what is unpaid of the principal was to be paid; else as the invoice was issued."""
    principal_minor: int
    penalty_minor: int
    fee_minor: int

    @property
    def due_minor(self) -> int:
        """What paying on that day would settle."""
        return self.principal_minor + self.penalty_minor + self.fee_minor


@dataclass(frozen=True, slots=True)
class StandingPlan:
    """An instalment plan that is neither kept to its end nor broken."""

    reference: str
    """To pay it by."""
    made_on: date
    months: int
    amount_minor: int


@dataclass(frozen=True, slots=True)
class PersonStanding:
    """A person on a day."""

    contributor_id: int
    """Of the file that stands."""
    on: date
    standing: Standing
    arrears: tuple[Arrear, ...]
    """Oldest first."""
    credit_minor: int
    """What is held as the person's own, as the books have it now."""
    plan: StandingPlan | None
    unbilled: tuple[str, ...] = ()
    """Periods that are owed and past due, and were never billed: nothing can be said of them."""
    is_erased: bool = False
    """Whether what names the person was taken out."""

    @property
    def total_minor(self) -> int:
        """What paying all arrears on that day would take, in centimes."""
        return sum(arrear.due_minor for arrear in self.arrears)

    def as_json(self) -> dict[str, Any]:
        """Return it for programs: amounts as decimal strings, days as 2026-01-31."""
        said, rights = self.standing, self.standing.rights
        return {
            "contributor_id": str(self.contributor_id),
            "on": self.on.isoformat(),
            "up_to_date": said.up_to_date,
            "since": _written(said.since),
            "arrears": [
                {
                    "period": each.period,
                    "reference": each.reference,
                    "due_on": each.due_on.isoformat(),
                    "principal": format_amount(each.principal_minor),
                    "penalty": format_amount(each.penalty_minor),
                    "fee": format_amount(each.fee_minor),
                    "due": format_amount(each.due_minor),
                }
                for each in self.arrears
            ],
            "total_due": format_amount(self.total_minor),
            "rights": {
                "state": rights.state.value,
                "because": rights.because.value,
                "since": _written(rights.since),
                "until": _written(rights.until),
                "reopens_on": _written(rights.reopens_on),
                "source": rights.source,
                "verified": rights.verified,
            },
            "unbilled": list(self.unbilled),
            "credit": format_amount(self.credit_minor),
            "plan": self.plan
            and {
                "reference": self.plan.reference,
                "made_on": self.plan.made_on.isoformat(),
                "months": self.plan.months,
                "amount": format_amount(self.plan.amount_minor),
            },
        }


def _written(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def refuse_far(on: date, *, today: date) -> None:
    """Refuse a day that nobody can be judged on.

    Raises:
        Unusable: It is before there was a contribution, or more than a year ahead.
    """
    if not FIRST_DAY <= on <= today + timedelta(days=DAYS_AHEAD_MAX):
        raise Unusable(f"The day {on} is before {FIRST_DAY}, or more than a year ahead.")


def read_standing(
    session: Session, contributor_id: int, tariff: Tariff, *, on: date
) -> PersonStanding | None:
    """Return how a person stands on a day, by any of the person's files; None if there is none.

    A day that is past is judged by what is known of it now: by payments of until then.
    """
    people = read_people(session, [contributor_id])
    if not people:
        return None
    (person,) = people.values()
    files = {"ids": list(person.files)}
    invoices = execute(session, _INVOICES, files).mappings().all()
    ids = [row["id"] for row in invoices]
    # What is broken by date is so before anybody has reviewed it.
    ends = relief_ends(session, person.id, on=on)
    bills, claims = read_bills(session, ids, ends=ends), read_claims(session, ids)
    in_plan = _in_plan(session, ids, ends, on)
    owed: list[OwedPeriod] = []
    arrears = []
    for row in invoices:
        bill, paid = bills[row["id"]], claims.get(row["id"], [])
        rates = tariff.penalty_rates(row["category_code"])
        parts = owed_periods(
            parse_period(row["period"]), bill, paid, rates, on, in_plan_since=in_plan.get(row["id"])
        )
        owed += parts
        due = balance(bill, paid, rates, on)
        due_on = due.payable_by or bill.due_on
        if due.due_minor and due_on < on:
            arrears.append(
                Arrear(
                    period=row["period"],
                    reference=row["reference"],
                    due_on=due_on,
                    principal_minor=due.due[Component.PRINCIPAL],
                    penalty_minor=due.due[Component.PENALTY],
                    fee_minor=due.due[Component.FEE],
                )
            )
    billed = [parse_period(row["period"]) for row in invoices]
    if on < min(file.registered_on for file in person.files.values()):
        owed = []
    facts = _facts(person, owed, billed, _holds(session, files, ends, on), tariff, on)
    return PersonStanding(
        contributor_id=person.id,
        on=on,
        standing=standing_on(facts, on),
        arrears=tuple(sorted(arrears, key=lambda each: (each.due_on, each.period))),
        credit_minor=_credit(session, person),
        plan=_plan(session, files, ends, on),
        unbilled=_unbilled(session, person, tariff, on),
        is_erased=person.is_erased,
    )


_INVOICES: Final = """
    SELECT id, reference, period, category_code FROM invoice
    WHERE contributor_id = ANY(:ids) AND cancelled_at IS NULL ORDER BY due_on, id
"""


def _in_plan(session: Session, ids: Sequence[int], ends: Ends, on: date) -> dict[int, date]:
    """Return since when invoices are in a plan that stands on a day."""
    rows = execute(
        session,
        "SELECT invoice_id, plan_id, remission_id, granted_on, ended_on FROM invoice_relief"
        " WHERE invoice_id = ANY(:ids) AND plan_id IS NOT NULL AND granted_on <= :on",
        {"ids": list(ids), "on": on},
    )
    found: dict[int, date] = {}
    for row in rows.mappings():
        ended_on, at = ends.of(row), row["invoice_id"]
        if ended_on is None or ended_on > on:
            found[at] = min(row["granted_on"], found.get(at, row["granted_on"]))
    return found


def _unbilled(session: Session, person: Person, tariff: Tariff, on: date) -> tuple[str, ...]:
    """Return the periods due before a day that the person owed and nobody billed, oldest first.

    Since periods of the kind were first issued here; what was billed and cancelled, a person has
    decided on.
    """
    began: dict[Periodicity, date] = {}
    for code in execute(session, "SELECT DISTINCT period FROM issue_run").scalars():
        period = parse_period(code)
        earliest = began.get(period.periodicity, period.starts_on)
        began[period.periodicity] = min(earliest, period.starts_on)
    if not began:
        return ()
    billed = set(
        execute(
            session,
            "SELECT period FROM invoice WHERE contributor_id = ANY(:ids)",
            {"ids": list(person.files)},
        ).scalars()
    )
    files, assessor, found = list(person.files.values()), Assessor(tariff), list[Period]()
    for quarter in quarters_from(files, on):
        if quarter.ends_on < min(began.values()):
            continue
        try:
            owed = assessor.quarter(files, quarter).owed
        except Unusable:
            continue  # What cannot be assessed is told where invoices are issued.
        found += [
            period
            for period, one in owed.items()
            if period.code not in billed
            and began.get(period.periodicity, date.max) <= period.starts_on
            and tariff.due_on(one.category, period) < on
        ]
    return tuple(each.code for each in sorted(found, key=lambda each: each.starts_on))


def _facts(
    person: Person,
    owed: Sequence[OwedPeriod],
    billed: Iterable[Period],
    holds: Sequence[Hold],
    tariff: Tariff,
    on: date,
) -> RightsFacts:
    """Return what decides rights. Pure."""
    files = list(person.files.values())
    standing = files[0]
    firsts = [each.due_on for each in owed]
    for did in everything_done(files):
        done = tariff.of(did.category)
        since = max(did.since, done.first_period.starts_on)
        if did.until is None or since <= did.until:
            firsts.append(tariff.due_on(done.code, period_of(since, done.periodicity)))
    category = tariff.of(standing.category)
    billed_until = max((period.ends_on for period in billed), default=None)
    following = max(
        billed_until + ONE_DAY if billed_until else standing.registered_on,
        category.first_period.starts_on,
    )
    periodicity = category.periodicity
    upcoming = period_of(following, periodicity)
    left = standing.left_on is not None and standing.left_on < upcoming.starts_on
    if not left and tariff.due_on(standing.category, upcoming) < on:
        # The institution bills late: nobody loses rights by what was not billed.
        upcoming = period_of(on, periodicity)
        if tariff.due_on(standing.category, upcoming) < on:
            upcoming = period_of(upcoming.ends_on + ONE_DAY, periodicity)
    next_due_on = tariff.due_on(standing.category, upcoming)
    return RightsFacts(
        owed=owed,
        terms=lambda day: tariff.rights_rule(standing.category, day),
        first_due_on=min(firsts, default=next_due_on),
        next_due_on=next_due_on,
        left=left,
        holds=holds,
    )


def _holds(session: Session, files: dict[str, Any], ends: Ends, on: date) -> list[Hold]:
    """Return the waits that remissions in force ask for."""
    rows = execute(
        session,
        "SELECT id, campaign, granted_on, broken_on FROM remission"
        " WHERE contributor_id = ANY(:ids) AND granted_on <= :on ORDER BY id",
        {**files, "on": on},
    ).all()
    known = {each.code: each.rights for each in campaigns().campaign} if rows else {}
    holds = []
    for at, campaign, granted_on, written in rows:
        rule = known.get(code_of(campaign))
        broken_on = ends.remissions.get(at, written)
        if rule is not None and (broken_on is None or broken_on > on):
            until = first_of_month(granted_on, 1 + rule.wait_months)
            holds.append(Hold(granted_on, until, rule.source, rule.verified))
    return holds


def _credit(session: Session, person: Person) -> int:
    """Return what stands on the credit accounts of a person's files, in centimes."""
    codes = [f"{AccountKind.CREDIT}:{file_id}" for file_id in person.files]
    found: int = execute(session, _CREDIT, {"codes": codes}).scalar_one()
    return found


_CREDIT: Final = """
    SELECT coalesce(sum(
        coalesce((SELECT sum(amount_minor) FROM ledger_transfer WHERE credit_account_id = a.id), 0)
        - coalesce((SELECT sum(amount_minor) FROM ledger_transfer WHERE debit_account_id = a.id), 0)
    ), 0)::bigint
    FROM ledger_account a WHERE code = ANY(:codes)
"""


def _plan(session: Session, files: dict[str, Any], ends: Ends, on: date) -> StandingPlan | None:
    broken = [at for at, day in ends.plans.items() if day is not None]
    row = (
        execute(
            session,
            "SELECT reference, made_on, months, amount_minor FROM plan"
            " JOIN bundle ON bundle.id = bundle_id"
            " WHERE plan.contributor_id = ANY(:ids) AND made_on <= :on"
            " AND coalesce(kept_on, broken_on, 'infinity') > :on AND plan.id <> ALL(:broken)"
            " ORDER BY plan.id DESC LIMIT 1",
            {**files, "on": on, "broken": broken},
        )
        .mappings()
        .one_or_none()
    )
    return None if row is None else StandingPlan(**row)


def why_not(standing: PersonStanding) -> str | None:
    """Return in a sentence why somebody is not up to date; None for who is. Names nobody."""
    said = standing.standing
    if said.late:
        oldest = said.late[0]
        count = len({each.period.code for each in said.late})
        others = f"; {count} periods are unpaid" if count > 1 else ""
        return (
            f"Not up to date since {said.since}: the contribution for {oldest.period.code}, due on"
            f" {oldest.due_on}, is unpaid{others}."
        )
    if said.settled is None:
        return "No contribution has been paid yet: there is nothing to attest."
    if standing.unbilled:
        return (
            f"Nobody billed {', '.join(standing.unbilled)} yet, and it is past due: what is not"
            " billed cannot be attested. Issue it first."
        )
    return None
