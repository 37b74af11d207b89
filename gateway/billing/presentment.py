"""What an invoice looks like to the person who pays it: one reading for pages, papers and answers.

A page, a notice and an agent's screen must never tell three stories, so they all show a
`Presentment`, read here in a few queries for any number of invoices. What is due on a day is
decided by gateway.dues.balances; where an invoice stands, by one pure function.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final, Literal

from sqlmodel import Session

from gateway.billing.bills import AS_WRITTEN, Ends
from gateway.billing.owing import CHANGED, Owing, PresentedLine, owing_of
from gateway.clock import day_of
from gateway.db import execute
from gateway.models import Channel, LineKind, PaymentStatus


class Standing(StrEnum):
    """Where an invoice stands for the one who pays it."""

    OPEN = "open"
    """Nothing paid, and the due day has not passed."""
    LATE = "late"
    """The due day has passed and something is still due, part paid or not."""
    PART_PAID = "part_paid"
    """Something is paid, something still due, in time."""
    PAID = "paid"
    CLEARED = "cleared"
    """Nothing is owed any more and nothing was paid: all of it was credited or remitted."""
    EXPIRED = "expired"
    """Its reference is too old to pay by: a new notice says what is due now."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Person:
    """Who owes. Whole on papers that are posted; as initials wherever a stranger may look."""

    family_name: str
    given_name: str
    family_name_ar: str | None
    given_name_ar: str | None
    cnss_number: str
    region: str | None

    @property
    def initials(self) -> str:
        """Latin initials, given name first: `F. Z. E. I.`"""
        return _initials(f"{self.given_name} {self.family_name}")

    @property
    def initials_ar(self) -> str | None:
        """Arabic initials, or None where the Arabic name is not known."""
        if not (self.family_name_ar and self.given_name_ar):
            return None
        return _initials(f"{self.given_name_ar} {self.family_name_ar}")


@dataclass(frozen=True, slots=True)
class PresentedPayment:
    """Money that was reported for the invoice. `allocated_minor` is what went to it and stands,
    `returned_minor` what refunds and disputes gave back."""

    id: int
    status: PaymentStatus
    amount_minor: int
    allocated_minor: int
    channel: Channel | None
    paid_at: datetime
    receipt_number: str | None
    receipt_signed: bytes | None
    """The signed receipt (COSE_Sign1); None while it is being made, or where there is none."""
    returned_minor: int = 0
    charged_back: bool = False
    """Whether a dispute took money: what was given back otherwise was refunded."""
    returned_at: datetime | None = None
    """When it was reversed, or last given back in part."""

    @property
    def is_refunded(self) -> bool:
        """Whether what is gone of it went back to the payer by a refund."""
        booked = self.status is PaymentStatus.BOOKED
        return booked and self.returned_minor > 0 and not self.charged_back

    @property
    def is_gone(self) -> bool:
        """Whether nothing of it is left: reversed, or given back in full."""
        if self.status is PaymentStatus.REVERSED:
            return True
        return self.status is PaymentStatus.BOOKED and self.returned_minor >= self.amount_minor


@dataclass(frozen=True, slots=True)
class CarriedPayment:
    """What of a payment for another reference pays this invoice: from the payer's credit, or paid
    together with other invoices. Neither its reference nor its receipt is told: whoever has this
    reference need not have that one."""

    amount_minor: int
    paid_at: datetime
    channel: Channel | None
    together: bool
    """Whether a reference for several invoices was quoted."""


class Paid:
    """What its payments say of an invoice, or of several that are paid together."""

    __slots__ = ()

    payments: tuple[PresentedPayment, ...]

    @property
    def announced(self) -> tuple[PresentedPayment, ...]:
        """Payments that a provider announced and has neither confirmed nor given up."""
        return tuple(p for p in self.payments if p.status is PaymentStatus.PENDING)

    @property
    def booked(self) -> tuple[PresentedPayment, ...]:
        """Payments of which something stands in the books."""
        return tuple(p for p in self.payments if p.status is PaymentStatus.BOOKED and not p.is_gone)

    @property
    def taken_back(self) -> tuple[PresentedPayment, ...]:
        """Payments that were in the books, and of which nothing is left."""
        return tuple(p for p in self.payments if p.is_gone)


@dataclass(frozen=True, slots=True)
class Presentment(Paid):
    """An invoice as its payer sees it. Amounts in centimes, days in Casablanca."""

    invoice_id: int
    reference: str
    category: str
    period: str
    standing: Standing
    amount_minor: int
    """As it was issued."""
    total_minor: int
    """What it comes to today, paid or not: the sum of its lines; 0 if it is cancelled."""
    paid_minor: int
    due_minor: int
    """What paying today would settle, penalty and fees included; 0 where nothing is due."""
    due_on: date
    """By when what is unpaid was or is to be paid; of a settled one, as it was issued."""
    expires_on: date
    """The last day on which the reference can be paid by."""
    issued_at: datetime
    cancelled_at: datetime | None
    lines: tuple[PresentedLine, ...]
    person: Person
    payments: tuple[PresentedPayment, ...]
    """That quoted its reference, oldest first; announced, booked and reversed ones. Failed ones
    are left out."""
    carried: tuple[CarriedPayment, ...] = ()
    """What else pays it, oldest first."""
    penalty_minor: int = 0
    """What lateness has added so far, before remissions."""
    valid_until: date | None = None
    """The last day on which paying `due_minor` settles it: the next day it grows. None where it
    does not grow."""
    in_plan: bool = False
    """Whether an instalment plan spreads it, which stops the penalty while it is kept."""


def standing_of(
    *,
    due_minor: int,
    paid_minor: int,
    due_on: date,
    expires_on: date,
    cancelled: bool,
    today: date,
) -> Standing:
    """Return where an invoice stands on a day. Pure. Amounts in centimes, due as of that day."""
    if cancelled:
        return Standing.CANCELLED
    if due_minor == 0:
        return Standing.PAID if paid_minor else Standing.CLEARED
    if today > expires_on:
        return Standing.EXPIRED
    if today > due_on:
        return Standing.LATE
    return Standing.PART_PAID if paid_minor else Standing.OPEN


def expiry_of(due_on: date, validity_months: int) -> date:
    """Return the last day on which a reference is payable: the due day, that many months later."""
    month = due_on.month - 1 + validity_months
    year, month = due_on.year + month // 12, month % 12 + 1
    return date(year, month, min(due_on.day, calendar.monthrange(year, month)[1]))


def present(
    session: Session, reference: str, *, now: datetime, validity_months: int
) -> Presentment | None:
    """Return what the payer of a reference sees, or None if no invoice bears it.

    The caller owns the transaction; a snapshot makes the parts agree.
    """
    found = present_many(session, "reference = :which", {"which": reference}, now, validity_months)
    return found[0] if found else None


def present_ids(
    session: Session,
    ids: Sequence[int],
    *,
    now: datetime,
    validity_months: int,
    ends: Ends = AS_WRITTEN,
) -> list[Presentment]:
    """Return what the payers of these invoices see, in the order of the ids."""
    which = {"which": list(ids)}
    found = present_many(session, "id = ANY(:which)", which, now, validity_months, ends=ends)
    by_id = {p.invoice_id: p for p in found}
    return [by_id[each] for each in ids if each in by_id]


def present_many(
    session: Session,
    which: str,
    parameters: Mapping[str, Any],
    now: datetime,
    validity_months: int,
    *,
    ends: Ends = AS_WRITTEN,
) -> list[Presentment]:
    """Return the invoices that a condition on `invoice` selects.

    Three queries for any number of them, and as many again where some were paid late, changed
    since they were issued, or paid by what came for another reference.
    """
    rows = execute(session, _INVOICES.format(which=which), parameters).mappings().all()
    ids = [row["id"] for row in rows]
    lines = _by_invoice(session, _LINES, ids)
    payments = payments_of(session, "invoice_id", ids)
    today = day_of(now)
    owing = owing_of(session, rows, today, ends=ends)
    elsewhere = [row["id"] for row in rows if _paid_elsewhere(row, payments)]
    carried = _by_invoice(session, _CARRIED, elsewhere) if elsewhere else {}
    return [
        _presentment(
            row,
            owing[row["id"]],
            issued=[_line(each) for each in lines.get(row["id"], ()) if _is_known(each, today)],
            payments=tuple(payments.get(row["id"], ())),
            carried=tuple(_carried(each) for each in carried.get(row["id"], ())),
            today=today,
            validity_months=validity_months,
        )
        for row in rows
    ]


def _presentment(
    row: Any,
    owing: Owing,
    *,
    issued: list[PresentedLine],
    payments: tuple[PresentedPayment, ...],
    carried: tuple[CarriedPayment, ...],
    today: date,
    validity_months: int,
) -> Presentment:
    cancelled = row["cancelled_at"] is not None
    lines = (*issued, *owing.lines)
    due_on = owing.payable_by
    expires_on = expiry_of(due_on, validity_months)
    return Presentment(
        invoice_id=row["id"],
        reference=row["reference"],
        category=row["category_code"],
        period=row["period"],
        standing=standing_of(
            due_minor=owing.due_minor,
            paid_minor=row["paid_minor"],
            due_on=due_on,
            expires_on=expires_on,
            cancelled=cancelled,
            today=today,
        ),
        amount_minor=row["amount_minor"],
        total_minor=0 if cancelled else sum(line.amount_minor for line in lines),
        paid_minor=row["paid_minor"],
        due_minor=owing.due_minor,
        due_on=due_on,
        expires_on=expires_on,
        issued_at=row["issued_at"],
        cancelled_at=row["cancelled_at"],
        lines=lines,
        person=_person(row),
        payments=payments,
        carried=carried,
        penalty_minor=owing.penalty_minor,
        valid_until=owing.valid_until,
        in_plan=owing.in_plan,
    )


_INVOICES: Final = f"""
    SELECT i.id, reference, i.category_code, period, amount_minor, owed_minor, paid_minor, status,
        due_on, issued_at, cancelled_at, family_name, given_name, family_name_ar, given_name_ar,
        cnss_number, region,
        {CHANGED} AS changed
    FROM (SELECT * FROM invoice WHERE {{which}}) AS i
    JOIN contributor ON contributor.id = i.contributor_id ORDER BY i.id
"""

_LINES: Final = """
    SELECT invoice_id, 1 AS part, position AS place, kind, amount_minor, rule, facts, source,
        verified, NULL::date AS noted_on, NULL AS because, NULL::date AS payable_by
    FROM invoice_line JOIN rule ON rule.id = rule_id WHERE invoice_id = ANY(:ids)
    UNION ALL
    SELECT invoice_id, 2, invoice_note.id, kind, amount_minor, rule, facts, source,
        verified, noted_on, because, due_on
    FROM invoice_note JOIN rule ON rule.id = rule_id WHERE invoice_id = ANY(:ids)
    ORDER BY invoice_id, part, place
"""

RETURNED_AT: Final = """
    CASE WHEN payment.status = 'reversed' THEN payment.stated_at
    WHEN payment.returned_minor > 0 THEN coalesce((
        SELECT max(CASE r.kind WHEN 'refund_total' THEN r.stated_at ELSE r.made_at END)
        FROM payment_return r WHERE r.provider = payment.provider AND r.state = 'given'
            AND r.provider_payment_id = payment.provider_payment_id
    ), payment.stated_at) END
"""
"""When a payment was reversed, or last given back in part, by its provider's own time."""

_PAYMENTS: Final = f"""
    SELECT payment.{{by}} AS whose, payment.id, status, amount_minor, returned_minor, channel,
        paid_at, number, signed,
        coalesce((SELECT sum(a.amount_minor) FROM allocation a
            WHERE a.payment_id = payment.id
                AND a.invoice_id = coalesce(payment.invoice_id, a.invoice_id)), 0)::bigint
            AS allocated_minor,
        returned_minor > 0 AND EXISTS (SELECT FROM payment_return r
            WHERE r.provider = payment.provider
                AND r.provider_payment_id = payment.provider_payment_id
                AND r.kind = 'dispute' AND r.state = 'given') AS charged_back,
        {RETURNED_AT} AS returned_at
    FROM payment LEFT JOIN receipt ON receipt.payment_id = payment.id
    WHERE payment.{{by}} = ANY(:ids) AND status <> 'failed'
    ORDER BY payment.{{by}}, paid_at, payment.id
"""

_CARRIED: Final = """
    SELECT a.invoice_id, p.id, p.paid_at, p.channel, p.bundle_id IS NOT NULL AS together,
        sum(a.amount_minor)::bigint AS amount_minor
    FROM allocation a JOIN payment p ON p.id = a.payment_id
    WHERE a.invoice_id = ANY(:ids) AND p.invoice_id IS DISTINCT FROM a.invoice_id
    GROUP BY a.invoice_id, p.id HAVING sum(a.amount_minor) > 0
    ORDER BY a.invoice_id, p.paid_at, p.id
"""


def payments_of(
    session: Session, by: Literal["invoice_id", "bundle_id"], ids: Sequence[int]
) -> dict[int, list[PresentedPayment]]:
    """Return the payments that quoted these invoices or bundles, oldest first. Of a bundle's,
    `allocated_minor` is what went to any invoice."""
    found: dict[int, list[PresentedPayment]] = {}
    for row in execute(session, _PAYMENTS.format(by=by), {"ids": list(ids)}).mappings():
        found.setdefault(row["whose"], []).append(_payment(row))
    return found


def _paid_elsewhere(row: Any, payments: Mapping[int, Sequence[PresentedPayment]]) -> bool:
    own = sum(payment.allocated_minor for payment in payments.get(row["id"], ()))
    return bool(row["paid_minor"] != own)


def _is_known(line: Any, today: date) -> bool:
    return line["noted_on"] is None or line["noted_on"] <= today


def _by_invoice(session: Session, query: str, ids: Sequence[int]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for row in execute(session, query, {"ids": list(ids)}).mappings():
        found.setdefault(row["invoice_id"], []).append(row)
    return found


def _line(row: Any) -> PresentedLine:
    return PresentedLine(
        kind=LineKind(row["kind"]),
        amount_minor=row["amount_minor"],
        rule=row["rule"],
        facts=row["facts"],
        source=row["source"],
        verified=row["verified"],
        noted_on=row["noted_on"],
        because=row["because"],
        due_on=row["payable_by"],
    )


def _person(row: Any) -> Person:
    return Person(
        family_name=row["family_name"],
        given_name=row["given_name"],
        family_name_ar=row["family_name_ar"],
        given_name_ar=row["given_name_ar"],
        cnss_number=row["cnss_number"],
        region=row["region"],
    )


def _payment(row: Any) -> PresentedPayment:
    return PresentedPayment(
        id=row["id"],
        status=PaymentStatus(row["status"]),
        amount_minor=row["amount_minor"],
        allocated_minor=row["allocated_minor"],
        channel=Channel(row["channel"]) if row["channel"] else None,
        paid_at=row["paid_at"],
        receipt_number=row["number"],
        receipt_signed=row["signed"],
        returned_minor=row["returned_minor"],
        charged_back=row["charged_back"],
        returned_at=row["returned_at"],
    )


def _carried(row: Any) -> CarriedPayment:
    return CarriedPayment(
        amount_minor=row["amount_minor"],
        paid_at=row["paid_at"],
        channel=Channel(row["channel"]) if row["channel"] else None,
        together=row["together"],
    )


def _initials(name: str) -> str:
    words = [word for word in name.replace("-", " ").split() if word[0].isalpha()]
    # Most Arabic family names begin with the article: it would be everybody's initial.
    told = [w.removeprefix(_ARTICLE) if len(w) > len(_ARTICLE) else w for w in words]
    return " ".join(f"{word[0].upper()}." for word in told)


_ARTICLE: Final = "ال"
