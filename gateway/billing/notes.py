"""Credits, charges and recovery fees on invoices after their issue. The invoice itself stands."""

from __future__ import annotations

import calendar
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from sqlmodel import Session

from gateway.billing.rules import keep_rules, why_of
from gateway.books.seals import BooksKey
from gateway.clock import day_of
from gateway.collection.placing import carry_credit, hold_people, settle_invoices
from gateway.db import execute
from gateway.dues.principal import DueLine
from gateway.dues.tariff import Tariff
from gateway.errors import Unusable
from gateway.events import Happening, tell
from gateway.figures import in_force
from gateway.models import EventType, LineKind
from gateway.money import AMOUNT_MINOR_MAX, format_amount
from gateway.people.activities import lock_people
from gateway.references import format_reference


@dataclass(frozen=True, slots=True)
class NewNote:
    """A note to be written. `line` says its kind (ADJUSTMENT, FEE), its signed centimes and why."""

    invoice_id: int
    line: DueLine
    because: str
    """What made it necessary. No names."""
    due_on: date | None = None
    """Of a charge or a fee; None for a credit."""


def regularisation_due_on(tariff: Tariff, noted_on: date) -> date:
    """Return by when what is charged after the issue is to be paid: the end of a later month."""
    month = noted_on.month - 1 + in_force(tariff.regularisation, noted_on).due_months
    year, month = noted_on.year + month // 12, month % 12 + 1
    return date(year, month, calendar.monthrange(year, month)[1])


def write_notes(session: Session, notes: Sequence[NewNote], *, now: datetime) -> list[Happening]:
    """Write notes, each with its rule; return what is to be told of them, last in the transaction.

    The caller owns the transaction, has locked whose invoices they are (`lock_people`), and settles
    the invoices afterwards. Nobody else notes on them meanwhile, so a credit is held against all
    that is charged.

    Raises:
        Unusable: There is no such invoice, it is cancelled, or a credit is more than what is
            charged on it.
    """
    if not notes:
        return []
    references = _refuse_impossible(session, notes)
    rules = keep_rules(session, [note.line for note in notes])
    rows = [
        {
            "invoice_id": note.invoice_id,
            "kind": note.line.kind.value,
            "amount_minor": note.line.amount_minor,
            "due_on": note.due_on.isoformat() if note.due_on else None,
            "rule_id": rules[why_of(note.line)],
            "because": note.because,
        }
        for note in notes
    ]
    execute(
        session,
        """
        INSERT INTO invoice_note (invoice_id, kind, amount_minor, due_on, noted_on, rule_id,
            because, noted_at)
        SELECT invoice_id, kind, amount_minor, due_on, :today, rule_id, because, :now
        FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS given (invoice_id bigint, kind text,
            amount_minor bigint, due_on date, rule_id bigint, because text)
        """,
        {"rows": json.dumps(rows), "today": day_of(now), "now": now},
    )
    return [_told(note, references[note.invoice_id]) for note in notes]


def charge_fee(
    session: Session,
    reference: str,
    amount_minor: int,
    tariff: Tariff,
    *,
    source: str,
    because: str,
    key: BooksKey,
    now: datetime,
) -> None:
    """Charge a recovery fee on an invoice, due as other charges after the issue are; or take back
    what was charged by mistake.

    The caller owns the transaction. Nothing but its commit should follow.

    Args:
        session: Whose transaction it is.
        reference: Of the invoice, its twelve digits.
        amount_minor: Centimes; negative to take back so much.
        tariff: Says by when such a charge is to be paid.
        source: The document that orders it.
        because: What made it necessary. No names.
        key: Of the books.
        now: The business clock.

    Raises:
        Unusable: There is no such invoice, it is cancelled, the amount is no amount to charge or
            more than the fees to be taken back, or source or reason are empty.
    """
    source, because = source.strip(), because.strip()
    if not 0 < abs(amount_minor) <= AMOUNT_MINOR_MAX:
        raise Unusable(f"A fee of {format_amount(amount_minor)} MAD cannot be charged.")
    if not source or not because:
        raise Unusable("Say which document orders the fee, and why.")
    invoice = execute(
        session,
        "SELECT id, contributor_id FROM invoice WHERE reference = :reference",
        {"reference": reference},
    ).one_or_none()
    if invoice is None:
        raise Unusable(f"No invoice has the reference {format_reference(reference)}.")
    line = DueLine(
        LineKind.FEE,
        amount_minor,
        "recovery fee",
        source,
        verified=True,
        facts={"form": "recovery-fee"},
    )
    due_on = regularisation_due_on(tariff, day_of(now)) if amount_minor > 0 else None
    lock_people(session, [invoice.contributor_id])
    hold_people(session, [invoice.contributor_id])
    told = write_notes(session, [NewNote(invoice.id, line, because, due_on)], now=now)
    settle_invoices(session, [invoice.id], key=key, now=now)
    carry_credit(session, [invoice.contributor_id], key=key, now=now)
    tell(session, told, now=now)


def as_note(line: DueLine, amount_minor: int) -> DueLine:
    """Return a line's reason as that of an adjustment by so many signed centimes."""
    return replace(line, kind=LineKind.ADJUSTMENT, amount_minor=amount_minor)


def _refuse_impossible(session: Session, notes: Sequence[NewNote]) -> dict[int, str]:
    """Return the references of the invoices, unless a note on one of them cannot be."""
    ids = sorted({note.invoice_id for note in notes})
    rows = execute(
        session,
        """
        SELECT id, reference, cancelled_at IS NOT NULL AS cancelled, amount_minor + coalesce((
                SELECT sum(n.amount_minor) FROM invoice_note n
                WHERE n.invoice_id = i.id AND n.kind = 'adjustment'), 0)::bigint AS charged,
            coalesce((SELECT sum(n.amount_minor) FROM invoice_note n
                WHERE n.invoice_id = i.id AND n.kind = 'fee'), 0)::bigint AS fees
        FROM invoice i WHERE id = ANY(:ids)
        """,
        {"ids": ids},
    ).mappings()
    known = {row["id"]: dict(row) for row in rows}
    for note in notes:
        row = known.get(note.invoice_id)
        if row is None:
            raise Unusable(f"There is no invoice {note.invoice_id}.")
        shown = format_reference(row["reference"])
        if row["cancelled"]:
            raise Unusable(f"Invoice {shown} is cancelled: nothing is added to it.")
        part = "fees" if note.line.kind is LineKind.FEE else "charged"
        row[part] += note.line.amount_minor
        if row[part] < 0:
            raise Unusable(f"A credit on invoice {shown} is more than what is charged on it.")
    return {at: row["reference"] for at, row in known.items()}


def _told(note: NewNote, reference: str) -> Happening:
    data = {
        "reference": reference,
        "amount": format_amount(note.line.amount_minor),
        "kind": note.line.kind.value,
    }
    return Happening(EventType.INVOICE_ADJUSTED, data, invoice_id=note.invoice_id)
