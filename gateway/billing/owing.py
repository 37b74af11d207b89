"""What invoices come to on a day, with the lines that explain it: read here, decided by balances.

Most invoices are as they were issued, unpaid or paid in time: these cost no query of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

from sqlmodel import Session

from gateway.billing.bills import AS_WRITTEN, Ends, read_bills, read_claims
from gateway.db import execute
from gateway.dues.balances import Balance, Bill, Claim, Rates, Relief, balance
from gateway.dues.quotes import penalty_line
from gateway.dues.tariff import tariff
from gateway.models import Component, InvoiceStatus, LineKind


@dataclass(frozen=True, slots=True)
class PresentedLine:
    """One reason for a part of the amount."""

    kind: LineKind
    amount_minor: int
    """Signed centimes."""
    rule: str
    """As the tariff said it, in one language."""
    facts: Mapping[str, str]
    """The figures of the rule by name; `form` says which sentence they fill."""
    source: str
    verified: bool
    noted_on: date | None = None
    """When it was added to the invoice; None for what was issued, and for the penalty."""
    because: str | None = None
    """What made an adjustment or a fee necessary, as somebody wrote it."""
    due_on: date | None = None
    """By when a charge that was added is to be paid: its penalty counts from there. None for what
    was issued, which has the invoice's day, and for what asks for nothing."""


@dataclass(frozen=True, slots=True)
class Owing:
    """What a day and later facts make of an invoice. Amounts in centimes."""

    due_minor: int
    """What paying on that day would settle."""
    payable_by: date
    """By when what is unpaid was or is to be paid; of a settled one, as it was issued."""
    penalty_minor: int = 0
    """What lateness has added so far, before remissions."""
    lines: tuple[PresentedLine, ...] = ()
    """The penalty so far, and what was remitted; what was issued or noted is not in here."""
    valid_until: date | None = None
    """The last day on which paying `due_minor` settles it; None where it does not grow."""
    in_plan: bool = False
    """Whether a standing plan spreads it."""


def read_owing(
    session: Session,
    invoice_ids: Sequence[int],
    on: date,
    *,
    grown_by: date | None = None,
    ends: Ends = AS_WRITTEN,
) -> dict[int, Owing]:
    """Return what each of these invoices comes to on a day; some queries for any number.

    With `grown_by`, as if no month after that day had added a penalty.
    """
    rows = execute(session, _ROWS, {"ids": list(invoice_ids)}).mappings().all()
    return owing_of(session, rows, on, grown_by=grown_by, ends=ends)


def owing_of(
    session: Session,
    rows: Sequence[Any],
    on: date,
    *,
    grown_by: date | None = None,
    ends: Ends = AS_WRITTEN,
) -> dict[int, Owing]:
    """Return what each invoice comes to on a day, by its id.

    Args:
        session: Whose snapshot it is.
        rows: Columns of `invoice`, with `changed`: whether it has notes or reliefs (CHANGED).
        on: The day.
        grown_by: Months that begin after this day add no penalty; None: all do.
        ends: How plans and remissions end where it is not written down yet.
    """
    found = {row["id"]: _plain(row, on) for row in rows}
    moved = {row["id"]: row for row in rows if not _is_plain(row, on)}
    if not moved:
        return found
    bills = read_bills(session, list(moved), ends=ends)
    claims = read_claims(session, list(moved))
    reliefs: dict[int, list[Any]] = {}
    for relief in execute(session, _RELIEFS, {"ids": list(moved)}).mappings():
        reliefs.setdefault(relief["invoice_id"], []).append(relief)
    for at, row in moved.items():
        bill = bills[at]
        explained = list(zip(bill.reliefs, reliefs.get(at, ()), strict=True))
        rates = _until(tariff().penalty_rates(row["category_code"]), grown_by)
        facts = _Facts(bill, claims.get(at, ()), explained, rates, row["category_code"])
        # Money that a payer's clock dates a little later counts, as where it is placed.
        found[at] = _owing(facts, max([on, *(claim.paid_on for claim in facts.claims)]))
    return found


CHANGED: Final = (
    "(EXISTS (SELECT FROM invoice_note WHERE invoice_id = i.id)"
    " OR EXISTS (SELECT FROM invoice_relief WHERE invoice_id = i.id))"
)
"""Whether an invoice, called `i`, has notes or reliefs."""

_ROWS: Final = f"""
    SELECT id, category_code, amount_minor, owed_minor, paid_minor, status, due_on, cancelled_at,
        {CHANGED} AS changed
    FROM invoice i WHERE id = ANY(:ids)
"""

_RELIEFS: Final = """
    SELECT invoice_id, granted_on, CASE WHEN kept_on IS NULL THEN plan_id END AS plan_id, rule.rule,
        facts, source, verified
    FROM invoice_relief JOIN rule ON rule.id = rule_id LEFT JOIN plan ON plan.id = plan_id
    WHERE invoice_id = ANY(:ids) ORDER BY invoice_relief.id
"""


def _is_plain(row: Any, on: date) -> bool:
    """Say whether an invoice is as it was issued, save for what was paid of it in time."""
    if row["cancelled_at"] is not None:
        return True
    if row["changed"] or row["owed_minor"] != row["amount_minor"]:
        return False
    return bool(row["status"] == InvoiceStatus.PAID or on < _month_after(row["due_on"]))


def _plain(row: Any, on: date) -> Owing:
    due_minor = 0 if row["cancelled_at"] else row["amount_minor"] - row["paid_minor"]
    until = None
    if due_minor:
        rates = tariff().penalty_rates(row["category_code"])
        until = _valid_until(row["due_on"], rates, on)
    return Owing(due_minor, row["due_on"], valid_until=until)


@dataclass(frozen=True, slots=True)
class _Facts:
    """All that decides what an invoice comes to."""

    bill: Bill
    claims: Sequence[Claim]
    reliefs: Sequence[tuple[Relief, Any]]
    """Each with its row, which holds its rule."""
    rates: Rates
    category: str


def _until(rates: Rates, last: date | None) -> Rates:
    if last is None:
        return rates
    return lambda month: rates(month) if month <= last else Decimal(0)


def _owing(facts: _Facts, on: date) -> Owing:
    """Return what an invoice comes to on a day. Pure, but for the tariff."""
    bill = facts.bill
    found = balance(bill, facts.claims, facts.rates, on)
    standing = [each for each in facts.reliefs if _stands(each[0], on)]
    # What was charged after a stop grows all the same.
    newest = max((note.noted_on for note in bill.notes), default=date.min)
    stopped = any(r.stops_penalty and newest <= r.granted_on for r, _ in standing)
    payable_by = found.payable_by or bill.due_on
    grows = found.due[Component.PRINCIPAL] > 0 and not stopped
    return Owing(
        due_minor=found.due_minor,
        payable_by=payable_by,
        penalty_minor=found.penalty_minor,
        lines=(*_penalty(facts, on, found), *_remissions(facts, on, found, standing)),
        valid_until=_valid_until(payable_by, facts.rates, on) if grows else None,
        in_plan=any(row["plan_id"] is not None for _, row in standing),
    )


def _stands(relief: Relief, on: date) -> bool:
    return relief.granted_on <= on and (relief.ended_on is None or on < relief.ended_on)


def _valid_until(payable_by: date, rates: Rates, on: date) -> date | None:
    """Return the last day before the next month that adds a penalty; None where none does."""
    next_month = _month_after(max(payable_by, on))
    return next_month - timedelta(days=1) if rates(next_month) else None


def _penalty(facts: _Facts, on: date, found: Balance) -> list[PresentedLine]:
    line = penalty_line(tariff(), facts.category, found, due_on=facts.bill.due_on, on=on)
    if line is None:
        return []
    return [
        PresentedLine(
            line.kind, line.amount_minor, line.rule, line.facts, line.source, line.verified
        )
    ]


def _remissions(
    facts: _Facts, on: date, found: Balance, standing: Sequence[tuple[Relief, Any]]
) -> list[PresentedLine]:
    """Return what each relief remits. None changes what those before it remitted."""
    in_order = sorted(standing, key=lambda each: each[0].granted_on)
    lines, before = [], 0
    for count, (_, row) in enumerate(in_order, 1):
        until_here = found
        if count < len(in_order):
            some = replace(facts.bill, reliefs=[relief for relief, _ in in_order[:count]])
            until_here = balance(some, facts.claims, facts.rates, on)
        remitted = sum(until_here.remitted_minor.values())
        if remitted != before:
            line = PresentedLine(
                LineKind.REMISSION,
                before - remitted,
                row["rule"],
                row["facts"],
                row["source"],
                row["verified"],
                noted_on=row["granted_on"],
            )
            lines.append(line)
        before = remitted
    return lines


def _month_after(day: date) -> date:
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)
