"""What each message in line says now, read from the facts; or that it has become pointless."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Final

from sqlmodel import Session

from gateway.billing.owing import Owing, read_owing
from gateway.billing.presentment import Person
from gateway.clock import day_of
from gateway.db import execute
from gateway.institution import institution
from gateway.messages import texts
from gateway.messages.rules import message_rules
from gateway.messages.texts import Facts, period_told
from gateway.models import MessageKind
from gateway.settings import settings
from gateway.words.catalogs import Language

NOTHING_DUE: Final = "nothing is due any more"
NOT_WANTED: Final = "the person wants no messages"
NO_PHONE: Final = "no telephone is known"
NO_RECEIPT: Final = "there is no receipt"
GIVEN_BACK: Final = "it was given back meanwhile"
NOT_HIS: Final = "nothing of it pays, or paid, what this person owes"


@dataclass(frozen=True, slots=True)
class Worded:
    """A message as it is to be sent; or why it is not."""

    message_id: int
    phone: str = ""
    language: Language = "fr"
    text: str = ""
    """Empty and not pointless: it cannot be said yet."""
    pointless: str = ""


def word(session: Session, messages: Sequence[Any], *, now: datetime) -> list[Worded]:
    """Return what each of these messages says. The caller owns the transaction.

    Args:
        session: Whose snapshot it is.
        messages: Rows of `message`: id, kind, contributor_id (of the file that stands), invoice_id,
            payment_id.
        now: The business clock.
    """
    if not messages:
        return []
    reader = _Reader(session, messages, day_of(now))
    return [reader.worded(message) for message in messages]


@dataclass(frozen=True, slots=True)
class _Invoice:
    id: int
    person: int
    reference: str
    period: str
    owing: Owing


@dataclass(frozen=True, slots=True)
class _Share:
    """What of a payment is one person's. Amounts in centimes."""

    paid_minor: int
    """What of it pays the person's invoices now."""
    gone_minor: int
    """What was given back of what it paid there: at most what was given back of it at all."""
    invoices: tuple[int, ...]
    """Those of the person that its reference is for, paid or not."""


class _Reader:
    """The facts of a batch of messages, read in a few queries."""

    def __init__(self, session: Session, messages: Sequence[Any], today: date) -> None:
        self._today = today
        people = sorted({message.contributor_id for message in messages})
        self._people = _people(session, people)
        self._paid = _paid(session, [m.payment_id for m in messages if m.payment_id])
        named = {m.invoice_id for m in messages if m.invoice_id}
        shares = (share for paid in self._paid.values() for share in paid["shares"].values())
        named.update(each for share in shares for each in share.invoices)
        self._invoices = _invoices(session, people, sorted(named), today)

    def worded(self, message: Any) -> Worded:
        person = self._people[message.contributor_id]
        at = message.id
        if person["stopped"]:
            return Worded(at, pointless=NOT_WANTED)
        if person["phone"] is None:
            return Worded(at, pointless=NO_PHONE)
        language: Language = "ar" if person["language"] == "ar" else "fr"
        said = self._said(message, language)
        return replace(said, message_id=at, phone=person["phone"], language=language)

    def _said(self, message: Any, language: Language) -> Worded:
        at, kind = message.id, MessageKind(message.kind)
        facts = Facts(
            language=language,
            house=institution().name,
            who=self._who(message.contributor_id, language),
            reference="",
            amount_minor=0,
        )
        if kind in {MessageKind.PAID, MessageKind.GIVEN_BACK}:
            return self._of_payment(message, kind, facts)
        due = self._due(message, kind)
        if not due:
            return Worded(at, pointless=NOTHING_DUE)
        first = due[0]
        facts = replace(
            facts,
            reference=first.reference,
            amount_minor=sum(each.owing.due_minor for each in due),
            link=settings().payer_link(first.reference),
            day=first.owing.payable_by,
            period=period_told(first.period, language),
            count=len(due),
        )
        by_kind = {
            MessageKind.NOTICE: texts.notice,
            MessageKind.DUE_SOON: texts.due_soon,
            MessageKind.LATE: texts.late,
        }
        return Worded(at, text=by_kind[kind](facts))

    def _due(self, message: Any, kind: MessageKind) -> list[_Invoice]:
        """Return what a message is about and still due, the oldest first."""
        if kind is MessageKind.NOTICE:
            one = self._invoices.get(message.invoice_id)
            return [one] if one and one.owing.due_minor > 0 else []
        last = self._today.toordinal() + message_rules().due_soon.days
        found = [
            each
            for each in sorted(
                self._invoices.values(), key=lambda one: (one.owing.payable_by, one.id)
            )
            if each.person == message.contributor_id
            and each.owing.due_minor > 0
            and not each.owing.in_plan
            and (
                each.owing.payable_by < self._today
                if kind is MessageKind.LATE
                else self._today.toordinal() <= each.owing.payable_by.toordinal() <= last
            )
        ]
        if kind is MessageKind.LATE:
            return found
        # One day, one sum: what is to be paid by a later one is reminded of by itself.
        return [each for each in found if each.owing.payable_by == found[0].owing.payable_by]

    def _of_payment(self, message: Any, kind: MessageKind, facts: Facts) -> Worded:
        paid = self._paid[message.payment_id]
        if kind is MessageKind.PAID and paid["gone"]:
            return Worded(message.id, pointless=GIVEN_BACK)
        if paid["number"] is None:
            # A receipt is signed within seconds, where the money was booked to what it quoted.
            return Worded(message.id, pointless="" if paid["awaited"] else NO_RECEIPT)
        share = paid["shares"].get(message.contributor_id)
        gone = kind is MessageKind.GIVEN_BACK
        amount_minor = 0 if share is None else share.gone_minor if gone else share.paid_minor
        if share is None or amount_minor <= 0:
            # All of it is somebody else's, or pays nothing of the person's any more.
            return Worded(message.id, pointless=NOT_HIS)
        facts = replace(
            facts,
            code=paid["number"],
            reference=paid["reference"],
            amount_minor=amount_minor,
            paid_at=paid["paid_at"],
            rest_minor=sum(
                self._invoices[each].owing.due_minor
                for each in share.invoices
                if each in self._invoices
            ),
            link=settings().payer_link(paid["reference"]),
        )
        return Worded(message.id, text=(texts.given_back if gone else texts.paid)(facts))

    def _who(self, person_id: int, language: Language) -> str:
        row = self._people[person_id]
        person = Person(
            row["family_name"],
            row["given_name"],
            row["family_name_ar"],
            row["given_name_ar"],
            row["cnss_number"],
            row["region"],
        )
        return (person.initials_ar if language == "ar" else None) or person.initials


def _people(session: Session, people: Sequence[int]) -> dict[int, Mapping[str, Any]]:
    rows = execute(
        session,
        "SELECT p.*, p.id IN (SELECT coalesce(o.merged_into_id, o.id) FROM message_stop s"
        " JOIN contributor o ON o.id = s.contributor_id) AS stopped"
        " FROM contributor p WHERE id = ANY(:people)",
        {"people": list(people)},
    )
    return {row["id"]: dict(row) for row in rows.mappings()}


def _invoices(
    session: Session, people: Sequence[int], named: Sequence[int], today: date
) -> dict[int, _Invoice]:
    """Return these people's unpaid invoices, and those that are named, with what is due today."""
    rows = execute(
        session,
        """
        SELECT i.id, coalesce(f.merged_into_id, f.id) AS person, i.reference, i.period
        FROM contributor f JOIN invoice i ON i.contributor_id = f.id
        WHERE (f.id = ANY(:people) OR f.merged_into_id = ANY(:people)) AND (i.id = ANY(:named)
            OR i.cancelled_at IS NULL AND i.status IN ('open', 'part_paid') AND i.due_on <= :soon)
        """,
        {
            "people": list(people),
            "named": list(named),
            "soon": date.fromordinal(today.toordinal() + message_rules().due_soon.days),
        },
    ).all()
    owing = read_owing(session, [row.id for row in rows], today)
    return {r.id: _Invoice(r.id, r.person, r.reference, r.period, owing[r.id]) for r in rows}


def _paid(session: Session, payments: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return of each payment what its messages say, with what it brought and what of that is gone,
    by person."""
    rows = execute(
        session,
        """
        SELECT p.id, p.paid_at, coalesce(i.reference, b.reference, '') AS reference, r.number,
            p.status = 'reversed' OR p.returned_minor >= p.amount_minor AS gone,
            CASE WHEN p.status = 'reversed' THEN p.amount_minor ELSE p.returned_minor END
                AS returned,
            EXISTS (SELECT FROM receipt_due WHERE payment_id = p.id) AS awaited
        FROM payment p LEFT JOIN invoice i ON i.id = p.invoice_id
        LEFT JOIN bundle b ON b.id = p.bundle_id LEFT JOIN receipt r ON r.payment_id = p.id
        WHERE p.id = ANY(:payments)
        """,
        {"payments": list(payments)},
    )
    found = {row["id"]: {**row, "shares": {}} for row in rows.mappings()}
    shares = execute(
        session,
        """
        SELECT payment_id, person, greatest(sum(net_minor), 0) AS paid_minor,
            sum(greatest(most_minor - greatest(net_minor, 0), 0)) AS gone_minor
        FROM (
            SELECT a.payment_id, coalesce(f.merged_into_id, f.id) AS person, a.invoice_id,
                sum(a.amount_minor) AS net_minor,
                sum(a.amount_minor) FILTER (WHERE a.amount_minor > 0) AS most_minor
            FROM allocation a JOIN invoice i ON i.id = a.invoice_id
            JOIN contributor f ON f.id = i.contributor_id
            WHERE a.payment_id = ANY(:payments) GROUP BY 1, 2, 3
        ) AS by_invoice GROUP BY 1, 2
        """,
        {"payments": list(payments)},
    )
    quoted = execute(
        session,
        """
        SELECT q.payment_id, coalesce(f.merged_into_id, f.id) AS person, array_agg(i.id) AS invoices
        FROM (
            SELECT id AS payment_id, invoice_id FROM payment WHERE id = ANY(:payments)
            UNION ALL
            SELECT p.id, b.invoice_id FROM payment p JOIN bundle_item b USING (bundle_id)
            WHERE p.id = ANY(:payments)
        ) AS q JOIN invoice i ON i.id = q.invoice_id JOIN contributor f ON f.id = i.contributor_id
        GROUP BY 1, 2
        """,
        {"payments": list(payments)},
    )
    own = {(row.payment_id, row.person): tuple(row.invoices) for row in quoted}
    for row in shares:
        gone = min(int(row.gone_minor), found[row.payment_id]["returned"])
        found[row.payment_id]["shares"][row.person] = _Share(
            int(row.paid_minor), gone, own.get((row.payment_id, row.person), ())
        )
    return found
