"""What plans and remissions have in common: read what a person owes, write reliefs and end them.

Each service locks the people first (gateway.people.activities), then what their money lies on
(gateway.collection.placing), reads again what it decided by, writes, settles, and tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, Final

from sqlmodel import Session

from gateway.billing.bills import read_bills, read_claims
from gateway.billing.rules import keep_rules, why_of
from gateway.books.seals import BooksKey
from gateway.clock import day_of
from gateway.collection.booking import PAID_AT_AGE_MAX
from gateway.collection.placing import carry_credit, settle_invoices
from gateway.db import execute, insert_all
from gateway.dues.balances import Bill, Rates, Relief, without_credits
from gateway.dues.campaigns import Offer, code_of
from gateway.dues.conditions import Because, Debt
from gateway.dues.periods import parse_period
from gateway.dues.principal import DueLine
from gateway.dues.tariff import tariff
from gateway.errors import Unusable
from gateway.events import Happening
from gateway.models import EventType, InvoiceRelief, LineKind
from gateway.money import format_amount

BATCH: Final = 500
"""People, plans or remissions to a transaction."""

AGAIN: Final = PAID_AT_AGE_MAX + timedelta(days=1)
"""For how long after its end a plan or a remission is judged again: a payment made in time may be
heard of that late."""


@dataclass(frozen=True, slots=True)
class NewRelief:
    """A relief to be written, of a plan or of a remission."""

    invoice_id: int
    relief: Relief
    why: DueLine
    plan_id: int | None = None
    remission_id: int | None = None


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What a step of a review found. `next_after` goes on after it; None: that was all."""

    next_after: int | None
    judged: int
    kept: int
    broken: int
    restored: int
    """Had been ended, and stand again: something that bears on them was heard of late."""


def surviving_file(session: Session, contributor_id: int) -> int:
    """Return the file of a person that stands.

    Raises:
        Unusable: There is no such contributor.
    """
    found: int | None = execute(
        session,
        "SELECT coalesce(merged_into_id, id) FROM contributor WHERE id = :id",
        {"id": contributor_id},
    ).scalar_one_or_none()
    if found is None:
        raise Unusable(f"There is no contributor {contributor_id}.")
    return found


def person_of(session: Session, cnss_number: str) -> int:
    """Return the surviving file of who has a CNSS number.

    Raises:
        Unusable: Nobody here has it.
    """
    found: int | None = execute(
        session,
        "SELECT coalesce(merged_into_id, id) FROM contributor WHERE cnss_number = :number",
        {"number": cnss_number},
    ).scalar_one_or_none()
    if found is None:
        raise Unusable("No contributor has this CNSS number: compare its nine digits.")
    return found


def read_debts(
    session: Session,
    people: Iterable[int],
    *,
    revived_plans: Sequence[int] = (),
    revived_remissions: Sequence[int] = (),
) -> dict[int, list[Debt]]:
    """Return all that people were billed and that is not cancelled, oldest first; locks nothing.

    Less what was credited since: a credit counts from the beginning, and money that it set free has
    gone elsewhere. What was paid in time stays so.

    Args:
        session: Whose transaction it is.
        people: Surviving files; invoices of files that were merged into them are theirs.
        revived_plans: Their reliefs, and those of their remissions, are as if they had not ended.
        revived_remissions: Theirs too.
    """
    wanted = sorted(set(people))
    rows = execute(session, _INVOICES, {"people": wanted}).all()
    ids = [row.id for row in rows]
    bills = read_bills(session, ids)
    bills.update(_revived(session, bills, revived_plans, revived_remissions))
    claims = read_claims(session, ids)
    found: dict[int, list[Debt]] = {person: [] for person in wanted}
    for row in rows:
        debt = Debt(
            row.id,
            parse_period(row.period),
            without_credits(bills[row.id], date.max),
            tuple(claims.get(row.id, ())),
            _rates(row.category_code),
        )
        found[row.person].append(debt)
    return found


def one_of_each(rows: Sequence[Any]) -> list[list[Any]]:
    """Return rows in groups, in each at most one of a `person`.

    Whoever judges something revives its reliefs, and those of nothing else of the same person.
    """
    groups: list[list[Any]] = []
    seen: dict[int, int] = {}
    for row in rows:
        at = seen.get(row["person"], 0)
        seen[row["person"]] = at + 1
        if at == len(groups):
            groups.append([])
        groups[at].append(row)
    return groups


def _rates(category_code: str) -> Rates:
    # Asked only for what is late: one whose category the tariff lost must not hold up all others.
    found = cache(lambda: tariff().penalty_rates(category_code))

    def rate(month: date) -> Decimal:
        return found()(month)

    return rate


def _revived(
    session: Session,
    bills: Mapping[int, Bill],
    plans: Sequence[int],
    remissions: Sequence[int],
) -> dict[int, Bill]:
    reliefs: dict[int, list[Relief]] = {}
    for row in execute(
        session, _REVIVED, {"plans": list(plans), "remissions": list(remissions)}
    ).mappings():
        relief = Relief(
            row["granted_on"],
            row["principal_rate"],
            row["penalty_rate"],
            row["fee_rate"],
            row["stops_penalty"],
            None if row["revived"] else row["ended_on"],
        )
        reliefs.setdefault(row["invoice_id"], []).append(relief)
    return {
        at: replace(bills[at], reliefs=tuple(known)) for at, known in reliefs.items() if at in bills
    }


def why_remitted(named: str, offer: Offer, verified: bool) -> DueLine:
    """Return the rule of a remission: what it remits, by whose word."""
    shares = {
        name: f"{(getattr(offer, name) * 100).normalize():f}"
        for name in ("principal", "penalty", "fee")
    }
    rule = f"{named}: " + ", ".join(f"{share} % of {name}" for name, share in shares.items())
    facts = {"form": "remission", "campaign": code_of(named), **shares}
    return DueLine(LineKind.REMISSION, 0, rule, offer.source, verified, facts)


def write_reliefs(session: Session, reliefs: Sequence[NewRelief], *, now: datetime) -> None:
    """Write reliefs with their rules. The caller owns the transaction, has locked and settles."""
    if not reliefs:
        return
    rules = keep_rules(session, [each.why for each in reliefs])
    rows = [
        {
            "invoice_id": each.invoice_id,
            "remission_id": each.remission_id,
            "plan_id": each.plan_id,
            "granted_on": each.relief.granted_on,
            "principal_rate": each.relief.principal_rate,
            "penalty_rate": each.relief.penalty_rate,
            "fee_rate": each.relief.fee_rate,
            "stops_penalty": each.relief.stops_penalty,
            "rule_id": rules[why_of(each.why)],
            "granted_at": now,
        }
        for each in reliefs
    ]
    insert_all(session, InvoiceRelief, rows)


def relieved(session: Session, *, plans: Sequence[int], remissions: Sequence[int]) -> list[int]:
    """Return the invoices that plans, their remissions, or remissions relieve or did."""
    rows = execute(
        session,
        f"SELECT DISTINCT r.invoice_id FROM {_OF_THESE} ORDER BY 1",
        {"plans": list(plans), "remissions": list(remissions)},
    )
    return list(rows.scalars())


def end_reliefs(session: Session, ended_on: Mapping[int, date | None], *, by: str) -> None:
    """End the reliefs of plans or remissions on their days, or let them stand again (None).

    Args:
        session: Whose transaction it is.
        ended_on: By the id of the plan or the remission.
        by: `plan_id` or `remission_id`.
    """
    execute(
        session,
        f"""
        UPDATE invoice_relief SET ended_on = given.ended_on
        FROM unnest(CAST(:ids AS bigint[]), CAST(:days AS date[])) AS given (id, ended_on)
        WHERE invoice_relief.{by} = given.id
        """,
        {"ids": list(ended_on), "days": list(ended_on.values())},
    )


def settle(
    session: Session,
    people: Sequence[int],
    invoice_ids: Sequence[int],
    *,
    key: BooksKey,
    now: datetime,
) -> None:
    """Bring the money of these people to where reliefs that changed leave it due."""
    if invoice_ids:
        settle_invoices(session, invoice_ids, key=key, now=now)
        carry_credit(session, people, key=key, now=now)


def adjusted(
    session: Session,
    before: Mapping[int, int],
    after: Mapping[int, int],
) -> list[Happening]:
    """Return what is to be told of invoices whose remitted amounts changed."""
    changed = {at: before[at] - minor for at, minor in after.items() if before[at] != minor}
    rows = execute(
        session,
        "SELECT id, reference FROM invoice WHERE id = ANY(:ids) ORDER BY id",
        {"ids": list(changed)},
    )
    return [
        Happening(
            EventType.INVOICE_ADJUSTED,
            {
                "reference": reference,
                "amount": format_amount(changed[at]),
                "kind": LineKind.REMISSION.value,
            },
            invoice_id=at,
        )
        for at, reference in rows
    ]


def remitted_by_invoice(
    session: Session, invoice_ids: Sequence[int], *, now: datetime
) -> dict[int, int]:
    """Return what is remitted on these invoices now, in centimes."""
    bills, claims = read_bills(session, invoice_ids), read_claims(session, invoice_ids)
    rows = execute(session, _OF_IDS, {"ids": list(invoice_ids)}).all()
    found = {}
    for row in rows:
        rates = tariff().penalty_rates(row.category_code)
        debt = Debt(
            row.id, parse_period(row.period), bills[row.id], tuple(claims.get(row.id, ())), rates
        )
        found[row.id] = sum(debt.on(day_of(now)).remitted_minor.values())
    return found


def told_granted(
    remission_id: int | None,
    campaign: str,
    granted_on: date,
    plan: str | None,
    *,
    again: bool = False,
) -> Happening:
    """Return what is told of a remission that is granted, or that stands again."""
    data = {
        "remission": str(remission_id),
        "campaign": code_of(campaign),
        "granted_on": granted_on.isoformat(),
        "plan": plan,
        "again": again,
    }
    return Happening(EventType.REMISSION_GRANTED, data)


def told_ended(
    remission_id: int, campaign: str, outcome: str, day: date, because: Because | None
) -> Happening:
    """Return what is told of a remission that is kept for good, or broken."""
    data = {
        "remission": str(remission_id),
        "campaign": code_of(campaign),
        "outcome": outcome,
        "on": day.isoformat(),
        "because": because.value if because else None,
    }
    return Happening(EventType.REMISSION_ENDED, data)


CAME_BACK: Final = """
    (SELECT coalesce(k.merged_into_id, k.id) FROM payment_return x
    JOIN payment p ON (p.provider, p.provider_payment_id) = (x.provider, x.provider_payment_id)
    JOIN allocation a ON a.payment_id = p.id
    JOIN invoice i ON i.id = a.invoice_id JOIN contributor k ON k.id = i.contributor_id
    WHERE x.restored_at >= :since)
"""
"""People of whom money that had been given back came again since a day: a breach by what was
missing meanwhile, however long ago, may be none."""

_OF_IDS: Final = "SELECT id, period, category_code FROM invoice WHERE id = ANY(:ids)"
_INVOICES: Final = """
    SELECT i.id, coalesce(c.merged_into_id, c.id) AS person, i.period, i.category_code
    FROM invoice i JOIN contributor c ON c.id = i.contributor_id
    WHERE (c.id = ANY(:people) OR c.merged_into_id = ANY(:people)) AND i.cancelled_at IS NULL
    ORDER BY i.due_on, i.id
"""
_OF_THESE: Final = """
    invoice_relief r LEFT JOIN remission m ON m.id = r.remission_id
    WHERE r.plan_id = ANY(:plans) OR m.plan_id = ANY(:plans) OR r.remission_id = ANY(:remissions)
"""
_REVIVED: Final = f"""
    WITH these AS (SELECT r.id, r.invoice_id FROM {_OF_THESE})
    SELECT relief.*, relief.id IN (SELECT id FROM these) AS revived
    FROM invoice_relief relief
    WHERE relief.invoice_id IN (SELECT invoice_id FROM these)
    ORDER BY relief.id
"""
