"""What an invoice looks like to the person who pays it: one reading for pages, papers and answers.

A page, a notice and an agent's screen must never tell three stories, so they all show a
`Presentment`, read here in one query each and judged by one pure function.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final

from sqlmodel import Session

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
    EXPIRED = "expired"
    """Its reference is too old to pay by: a new notice says what is due now."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class PresentedLine:
    """One reason for a part of the amount."""

    kind: LineKind
    amount_minor: int
    """Signed centimes."""
    rule: str
    """As the tariff said it, in one language."""
    facts: Mapping[str, str]
    """The figures of the rule by name; `form` says which sentence they fill (gateway.dues)."""
    source: str
    verified: bool


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
class Presentment:
    """An invoice as its payer sees it. Amounts in centimes, days in Casablanca."""

    invoice_id: int
    reference: str
    category: str
    period: str
    standing: Standing
    amount_minor: int
    paid_minor: int
    due_minor: int
    """What paying now would settle; 0 for an invoice that is paid or cancelled."""
    due_on: date
    expires_on: date
    """The last day on which the reference can be paid by."""
    issued_at: datetime
    cancelled_at: datetime | None
    lines: tuple[PresentedLine, ...]
    person: Person
    payments: tuple[PresentedPayment, ...]
    """Oldest first; announced, booked and reversed ones. Failed ones are left out."""

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


def standing_of(
    *,
    amount_minor: int,
    paid_minor: int,
    due_on: date,
    expires_on: date,
    cancelled: bool,
    today: date,
) -> Standing:
    """Return where an invoice stands on a day. Pure."""
    if cancelled:
        return Standing.CANCELLED
    if paid_minor >= amount_minor:
        return Standing.PAID
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
    session: Session, ids: Sequence[int], *, now: datetime, validity_months: int
) -> list[Presentment]:
    """Return what the payers of these invoices see, in the order of the ids."""
    found = present_many(session, "id = ANY(:which)", {"which": list(ids)}, now, validity_months)
    by_id = {p.invoice_id: p for p in found}
    return [by_id[each] for each in ids if each in by_id]


def present_many(
    session: Session,
    which: str,
    parameters: Mapping[str, Any],
    now: datetime,
    validity_months: int,
) -> list[Presentment]:
    """Return the invoices that a condition on `invoice` selects; three queries for any number."""
    rows = execute(session, _INVOICES.format(which=which), parameters).mappings().all()
    ids = [row["id"] for row in rows]
    lines = _by_invoice(session, _LINES, ids)
    payments = _by_invoice(session, _PAYMENTS, ids)
    today = day_of(now)
    presented = []
    for row in rows:
        expires_on = expiry_of(row["due_on"], validity_months)
        standing = standing_of(
            amount_minor=row["amount_minor"],
            paid_minor=row["paid_minor"],
            due_on=row["due_on"],
            expires_on=expires_on,
            cancelled=row["cancelled_at"] is not None,
            today=today,
        )
        settled = standing in {Standing.PAID, Standing.CANCELLED}
        presented.append(
            Presentment(
                invoice_id=row["id"],
                reference=row["reference"],
                category=row["category_code"],
                period=row["period"],
                standing=standing,
                amount_minor=row["amount_minor"],
                paid_minor=row["paid_minor"],
                due_minor=0 if settled else row["amount_minor"] - row["paid_minor"],
                due_on=row["due_on"],
                expires_on=expires_on,
                issued_at=row["issued_at"],
                cancelled_at=row["cancelled_at"],
                lines=tuple(_line(line) for line in lines.get(row["id"], ())),
                person=_person(row),
                payments=tuple(_payment(payment) for payment in payments.get(row["id"], ())),
            )
        )
    return presented


_INVOICES: Final = """
    SELECT i.id, reference, i.category_code, period, amount_minor, paid_minor, due_on, issued_at,
        cancelled_at, family_name, given_name, family_name_ar, given_name_ar, cnss_number, region
    FROM (SELECT * FROM invoice WHERE {which}) AS i
    JOIN contributor ON contributor.id = i.contributor_id ORDER BY i.id
"""

_LINES: Final = """
    SELECT invoice_id, kind, amount_minor, rule, facts, source, verified
    FROM invoice_line JOIN rule ON rule.id = rule_id
    WHERE invoice_id = ANY(:ids) ORDER BY invoice_id, position
"""

_PAYMENTS: Final = """
    SELECT payment.invoice_id, payment.id, status, amount_minor, returned_minor, channel, paid_at,
        number, signed,
        coalesce((SELECT sum(a.amount_minor) FROM allocation a
            WHERE a.payment_id = payment.id AND a.invoice_id = payment.invoice_id), 0)::bigint
            AS allocated_minor,
        returned_minor > 0 AND EXISTS (SELECT FROM payment_return r
            WHERE r.provider = payment.provider
                AND r.provider_payment_id = payment.provider_payment_id
                AND r.kind = 'dispute' AND r.state = 'given') AS charged_back
    FROM payment LEFT JOIN receipt ON receipt.payment_id = payment.id
    WHERE payment.invoice_id = ANY(:ids) AND status <> 'failed'
    ORDER BY payment.invoice_id, paid_at, payment.id
"""


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
    )


def _initials(name: str) -> str:
    words = [word for word in name.replace("-", " ").split() if word[0].isalpha()]
    # Most Arabic family names begin with the article: it would be everybody's initial.
    told = [w.removeprefix(_ARTICLE) if len(w) > len(_ARTICLE) else w for w in words]
    return " ".join(f"{word[0].upper()}." for word in told)


_ARTICLE: Final = "ال"
