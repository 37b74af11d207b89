"""Receipts: what a payer holds as proof. Made once for each payment booked to what it quoted.

Booking puts a payment in line (`receipt_due`); a task signs what is in line, many at a time, so
that neither booking nor the page waits for a signature. A receipt states what was booked, and is
never signed again; that of a bundle states its reference, and its first period to its last. Whether
the money is still there, and what it pays now, is read from the payment each time somebody asks.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlmodel import Session

from gateway.billing.presentment import RETURNED_AT, Person
from gateway.clock import day_of
from gateway.codes import receipts as codes
from gateway.db import execute, insert_all, transaction
from gateway.errors import Unusable
from gateway.models import Channel, PaymentStatus, Receipt
from gateway.money import format_amount
from gateway.receipt_keys import PublishedKey, ReceiptKeys, Signer
from gateway.references import permuted

BATCH: Final = 500
"""Receipts to a transaction."""

UNSTATED: Final = "unstated"
"""Channel in a receipt whose provider named none that we know."""

_NUMBER: Final = re.compile(r"R?([0-9]{2})([0-9]{9})", re.ASCII)


class ReceiptStanding(StrEnum):
    """Whether the money that a receipt is for is still there."""

    STANDS = "stands"
    REDUCED = "reduced"
    """A part was refunded, or taken back in a dispute."""
    REVERSED = "reversed"
    """Nothing of it is left: reversed, or given back in full."""


@dataclass(frozen=True, slots=True)
class PaidShare:
    """What of a payment for several invoices pays one of them now, in centimes."""

    period: str
    person: Person
    amount_minor: int


@dataclass(frozen=True, slots=True)
class ReceiptRecord:
    """A receipt, with how its payment stands now. Amounts in centimes."""

    number: str
    reference: str
    period: str
    amount_minor: int
    """What was received."""
    allocated_minor: int
    """What of it pays now what its payer quoted: the invoice, or any of the bundle."""
    returned_minor: int
    """What was given back of it by refunds and disputes."""
    disputed: bool
    """Whether a dispute is open: it may yet be taken back."""
    refunded: bool
    """Whether what is gone of it went back to the payer by refunds, and not otherwise."""
    paid_at: datetime
    channel: Channel | None
    standing: ReceiptStanding
    signed: bytes
    key_id: str
    issued_at: datetime
    returned_at: datetime | None = None
    """When it was reversed, or last given back in part."""
    elsewhere_minor: int = 0
    """What of it pays other invoices of the same person now: it was credit before."""
    shares: tuple[PaidShare, ...] = ()
    """Of a bundle's: what it pays now, in the order in which it was paid."""

    @property
    def counted_minor(self) -> int:
        """What of it counts now."""
        if self.standing is ReceiptStanding.REVERSED:
            return 0
        return self.amount_minor - self.returned_minor

    @property
    def credit_minor(self) -> int:
        """What of it is the payer's credit."""
        return self.counted_minor - self.allocated_minor - self.elsewhere_minor


class Finding(StrEnum):
    """What became of a code or a number that somebody wants to check."""

    GENUINE = "genuine"
    NOT_IN_BOOKS = "not_in_books"
    """Signed by us, and our books do not say the same: for the institution to look into."""
    CHANGED = "changed"
    CUT = "cut"
    FOREIGN_KEY = "foreign_key"
    NOT_A_RECEIPT = "not_a_receipt"
    UNKNOWN_NUMBER = "unknown_number"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a code: what it claims, what the books hold, which key signed it."""

    finding: Finding
    claims: codes.Claims | None = None
    record: ReceiptRecord | None = None
    key: PublishedKey | None = None

    @property
    def stands(self) -> bool:
        """Whether it is genuine, and all of the money still there."""
        return self.record is not None and self.record.standing is ReceiptStanding.STANDS

    def as_json(self) -> dict[str, Any]:
        """Return it for programs: amounts as decimal strings, instants with their offset."""
        said: dict[str, Any] = {"finding": self.finding, "stands": self.stands}
        if record := self.record:
            said |= {
                "number": record.number,
                "reference": record.reference,
                "period": record.period,
                "amount": format_amount(record.amount_minor),
                "paid_at": record.paid_at.isoformat(),
                "channel": record.channel or UNSTATED,
                "standing": record.standing,
                "returned": format_amount(record.amount_minor - record.counted_minor),
                "disputed": record.disputed,
                "refunded": record.refunded,
                "returned_at": record.returned_at and record.returned_at.isoformat(),
            }
        if key := self.key:
            said |= {"key": key.key_id, "key_retired_at": key.until and key.until.isoformat()}
        return said


def issue_all(keys: ReceiptKeys, clock: Callable[[], datetime]) -> int:
    """Make every receipt that is in line, a transaction to BATCH of them; return how many.

    Raises:
        Unusable: The key in force is gone, or all keys are while there are receipts.
    """
    done = 0
    while True:
        with transaction() as session:
            left = issue_due(session, signer_of(session, keys, now=clock()), now=clock())
        done += left
        if not left:
            return done


def line_up_missing(session: Session) -> int:
    """Put in line every booked payment that has no receipt and is in no line; return how many.

    Booking does so itself. This is for what an older version booked beside the migration that
    brought receipts. Reads all payments. The caller owns the transaction.
    """
    return execute(
        session,
        "INSERT INTO receipt_due SELECT id FROM payment"
        " WHERE status = 'booked' AND (invoice_id IS NOT NULL OR bundle_id IS NOT NULL)"
        " AND NOT EXISTS (SELECT FROM receipt WHERE payment_id = payment.id)"
        " ON CONFLICT DO NOTHING",
    ).rowcount


def rotate_key(session: Session, keys: ReceiptKeys, *, now: datetime) -> Signer:
    """Replace the key in force; what it signed stays genuine. The caller owns the transaction.

    Raises:
        Unusable: The list of keys is gone while there are receipts: restore it first.
    """
    _refuse_lost(session, keys)
    return keys.rotate(now=now)


def signer_of(session: Session, keys: ReceiptKeys, *, now: datetime) -> Signer:
    """Return the key in force; the very first one is made here. The caller owns the transaction.

    Raises:
        Unusable: The key in force is gone, or all keys are while there are receipts: a new one
            would make every receipt look foreign.
    """
    _refuse_lost(session, keys)
    return keys.signer(now=now)


def _refuse_lost(session: Session, keys: ReceiptKeys) -> None:
    if keys.published():
        return
    if execute(session, "SELECT EXISTS (SELECT FROM receipt)").scalar_one():
        raise Unusable(
            "There are receipts, and the keys that signed them are missing: restore the keys"
            " folder of the home."
        )


def issue_due(session: Session, signer: Signer, *, now: datetime, limit: int = BATCH) -> int:
    """Make the receipts of up to `limit` payments that are in line; return how many left the line.

    The caller owns the transaction. Any number of processes may do this at once: each takes rows
    that no other has. A payment that was taken back before its receipt was made gets none.
    """
    taken = execute(
        session,
        "DELETE FROM receipt_due WHERE payment_id IN (SELECT payment_id FROM receipt_due"
        " ORDER BY payment_id LIMIT :limit FOR UPDATE SKIP LOCKED) RETURNING payment_id",
        {"limit": limit},
    )
    ids = sorted(taken.scalars())
    _issue(session, ids, signer, now)
    return len(ids)


def issue_at_once(
    session: Session, keys: ReceiptKeys, provider: str, named: str, *, now: datetime
) -> None:
    """Make the receipt of one payment if it is in line: its payer waits for the number.

    Without a usable key it stays in line, as all receipts do then. The caller owns the transaction,
    most often the one that booked it.
    """
    try:
        signer = signer_of(session, keys, now=now)
    except Unusable:
        return
    taken = execute(
        session,
        "DELETE FROM receipt_due USING payment p WHERE p.id = receipt_due.payment_id"
        " AND p.provider = :provider AND p.provider_payment_id = :named RETURNING p.id",
        {"provider": provider, "named": named},
    ).scalars()
    if ids := list(taken):
        _issue(session, ids, signer, now)


def _issue(session: Session, ids: Sequence[int], signer: Signer, now: datetime) -> None:
    rows = execute(session, _BOOKED, {"ids": list(ids)}).mappings().all() if ids else []
    if rows:
        numbers = _next_numbers(session, len(rows), now)
        insert_all(
            session,
            Receipt,
            [_receipt(row, number, signer, now) for row, number in zip(rows, numbers, strict=True)],
        )


SAID: Final = """
    coalesce(invoice.reference, bundle.reference) AS reference,
    coalesce(invoice.period, (
        SELECT CASE WHEN first = last THEN first ELSE first || '/' || last END FROM (
            SELECT (array_agg(i.period ORDER BY i.due_on, i.id))[1] AS first,
                (array_agg(i.period ORDER BY i.due_on DESC, i.id DESC))[1] AS last
            FROM bundle_item JOIN invoice i ON i.id = bundle_item.invoice_id
            WHERE bundle_item.bundle_id = bundle.id
        ) AS periods
    )) AS period,
    payment.amount_minor, paid_at, channel
"""
"""What a receipt says, of a payment with its invoice or its bundle: facts that never change."""
QUOTED: Final = """
    LEFT JOIN invoice ON invoice.id = payment.invoice_id
    LEFT JOIN bundle ON bundle.id = payment.bundle_id
"""

_BOOKED: Final = f"""
    SELECT payment.id, payment.invoice_id, {SAID}
    FROM payment {QUOTED}
    WHERE payment.id = ANY(:ids) AND payment.status = 'booked'
        AND (payment.invoice_id IS NOT NULL OR payment.bundle_id IS NOT NULL)
        AND NOT EXISTS (SELECT FROM receipt WHERE payment_id = payment.id)
    ORDER BY payment.id
"""


def _receipt(row: Any, number: str, signer: Signer, now: datetime) -> dict[str, Any]:
    signed = codes.sign(claims_of(row, number), key_id=signer.key_id, private_key=signer.private)
    return {
        "number": number,
        "payment_id": row["id"],
        "invoice_id": row["invoice_id"],
        "signed": signed,
        "key_id": signer.key_id,
        "issued_at": now,
    }


def claims_of(row: Mapping[str, Any], number: str) -> codes.Claims:
    """Return what the receipt of a payment states: the money, its day, what for; no person."""
    return codes.Claims(
        receipt_number=number,
        reference=row["reference"],
        amount_minor=row["amount_minor"],
        paid_at=row["paid_at"].replace(microsecond=0),
        period=row["period"],
        channel=row["channel"] or UNSTATED,
    )


def _next_numbers(session: Session, count: int, now: datetime) -> list[str]:
    """Draw receipt numbers that do not tell how many there are, and never the same one twice."""
    drawn = execute(
        session,
        "SELECT nextval('receipt_number'), (SELECT key FROM reference_key)"
        " FROM generate_series(1, :count)",
        {"count": count},
    ).all()
    year = day_of(now).year % 100
    return [f"R{year:02d}-{permuted(n, _number_key(bytes(key))):09d}" for n, key in drawn]


def _number_key(reference_key: bytes) -> bytes:
    # Another permutation than the references': a receipt's number must not lead to an invoice's.
    return hashlib.sha256(b"receipt numbers" + reference_key).digest()


# -- looking up -----------------------------------------------------------------------------------


def read_number(text: str) -> str | None:
    """Return the receipt number that somebody typed, as it is printed; None if it is none.

    Spaces, hyphens, case, a missing R and Arabic-Indic digits are understood, and so is the
    address that the paper prints.
    """
    text = text.strip()
    if "/verify/" in text:
        text = text.partition("/verify/")[2].partition("?")[0]
    kept = [c for c in text[:64].upper() if not (c.isspace() or unicodedata.category(c) in _SKIP)]
    plain = "".join(str(unicodedata.decimal(c, c)) for c in kept)
    found = _NUMBER.fullmatch(plain)
    return f"R{found[1]}-{found[2]}" if found else None


_SKIP: Final = frozenset({"Cf", "Pd"})
"""Direction marks and dashes of all kinds."""


def find(session: Session, text: str) -> ReceiptRecord | None:
    """Return the receipt that a number, however typed, names; None if there is none."""
    number = read_number(text)
    if number is None:
        return None
    row = execute(session, _RECORD.format(which="number = :number"), {"number": number})
    found = row.mappings().one_or_none()
    return None if found is None else _record(found)


def of_invoice(session: Session, reference: str) -> list[ReceiptRecord]:
    """Return the receipts of an invoice or of a bundle, oldest payment first."""
    rows = execute(session, _RECORD.format(which=_QUOTING), {"which": reference})
    return [_record(row) for row in rows.mappings()]


_RECORD: Final = f"""
    SELECT number, {SAID}, payment.status,
        signed, key_id, receipt.issued_at, payment.returned_minor,
        EXISTS (SELECT FROM payment_return r WHERE r.provider = payment.provider
            AND r.provider_payment_id = payment.provider_payment_id
            AND r.kind = 'dispute' AND r.outcome IS NULL) AS disputed,
        payment.status = 'booked' AND payment.returned_minor > 0
            AND NOT EXISTS (SELECT FROM payment_return r WHERE r.provider = payment.provider
                AND r.provider_payment_id = payment.provider_payment_id
                AND r.kind = 'dispute' AND r.state = 'given') AS refunded,
        {RETURNED_AT} AS returned_at,
        coalesce((SELECT sum(a.amount_minor) FROM allocation a WHERE a.payment_id = payment.id
            AND (bundle.id IS NOT NULL OR a.invoice_id = payment.invoice_id)), 0)::bigint
            AS allocated_minor,
        coalesce((SELECT sum(a.amount_minor) FROM allocation a WHERE a.payment_id = payment.id
            AND bundle.id IS NULL AND a.invoice_id <> payment.invoice_id), 0)::bigint
            AS elsewhere_minor,
        (SELECT json_agg(share ORDER BY share.first) FROM (
            SELECT min(a.id) AS first, i.period, c.family_name, c.given_name, c.family_name_ar,
                c.given_name_ar, sum(a.amount_minor)::bigint AS amount_minor
            FROM allocation a JOIN invoice i ON i.id = a.invoice_id
            JOIN contributor c ON c.id = i.contributor_id
            WHERE a.payment_id = payment.id AND bundle.id IS NOT NULL
            GROUP BY i.id, c.id HAVING sum(a.amount_minor) > 0
        ) share) AS shares
    FROM receipt JOIN payment ON payment.id = receipt.payment_id {QUOTED}
    WHERE {{which}} ORDER BY paid_at, receipt.id
"""


_QUOTING: Final = """
    payment.id IN (
        SELECT p.id FROM payment p JOIN invoice i ON i.id = p.invoice_id WHERE i.reference = :which
        UNION ALL
        SELECT p.id FROM payment p JOIN bundle b ON b.id = p.bundle_id WHERE b.reference = :which
    )
"""


def _record(row: Any) -> ReceiptRecord:
    return ReceiptRecord(
        number=row["number"],
        reference=row["reference"],
        period=row["period"],
        amount_minor=row["amount_minor"],
        allocated_minor=row["allocated_minor"],
        elsewhere_minor=row["elsewhere_minor"],
        paid_at=row["paid_at"],
        channel=Channel(row["channel"]) if row["channel"] else None,
        standing=standing_of(row["status"], row["amount_minor"], row["returned_minor"]),
        returned_minor=row["returned_minor"],
        disputed=row["disputed"],
        refunded=row["refunded"],
        returned_at=row["returned_at"],
        signed=bytes(row["signed"]),
        key_id=row["key_id"],
        issued_at=row["issued_at"],
        shares=tuple(_share(each) for each in row["shares"] or ()),
    )


def _share(share: Mapping[str, Any]) -> PaidShare:
    person = Person(
        family_name=share["family_name"],
        given_name=share["given_name"],
        family_name_ar=share["family_name_ar"],
        given_name_ar=share["given_name_ar"],
        # Nobody is told more than initials by a receipt for several.
        cnss_number="",
        region=None,
    )
    return PaidShare(share["period"], person, share["amount_minor"])


def standing_of(status: str, amount_minor: int, returned_minor: int) -> ReceiptStanding:
    """Return what is left of the money of a receipt. Pure."""
    if status != PaymentStatus.BOOKED or returned_minor >= amount_minor:
        return ReceiptStanding.REVERSED
    return ReceiptStanding.REDUCED if returned_minor else ReceiptStanding.STANDS


def look_into(session: Session, text: str, keys: Sequence[PublishedKey]) -> Verdict:
    """Answer somebody who has a receipt's number or its code, whichever the text is.

    The caller owns the transaction. Never raises for any text.
    """
    if read_number(text) is None:
        return verdict_on(session, text, keys)
    record = find(session, text)
    if record is None:
        return Verdict(Finding.UNKNOWN_NUMBER)
    verdict = verdict_on(session, codes.as_text(record.signed), keys)
    # A receipt of our own books that does not verify is a matter of ours, not a stranger's work.
    return verdict if verdict.finding is Finding.GENUINE else Verdict(Finding.NOT_IN_BOOKS)


def verdict_on(session: Session, text: str, keys: Sequence[PublishedKey]) -> Verdict:
    """Say what a receipt code is worth: who signed it, and whether the books say the same.

    The caller owns the transaction. Never raises for any text.
    """
    by_id = {key.key_id: key for key in keys}
    match codes.read(text, {key.key_id: key.public for key in keys}):
        case codes.NotAReceipt():
            return Verdict(Finding.NOT_A_RECEIPT)
        case codes.Cut():
            return Verdict(Finding.CUT)
        case codes.Changed(key_id=key_id):
            return Verdict(Finding.CHANGED, key=by_id[key_id])
        case codes.ForeignKey():
            return Verdict(Finding.FOREIGN_KEY)
        case codes.Genuine(claims=claims, key_id=key_id):
            record = find(session, claims.receipt_number)
            same = record is not None and _says_the_same(record, claims)
            finding = Finding.GENUINE if same else Finding.NOT_IN_BOOKS
            return Verdict(finding, claims, record if same else None, by_id[key_id])


def _says_the_same(record: ReceiptRecord, claims: codes.Claims) -> bool:
    return claims == codes.Claims(
        receipt_number=record.number,
        reference=record.reference,
        amount_minor=record.amount_minor,
        paid_at=record.paid_at.replace(microsecond=0),
        period=record.period,
        channel=record.channel or UNSTATED,
    )
