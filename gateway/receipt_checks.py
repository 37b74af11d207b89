"""What receipts and attestations promise: every payment that is booked has a receipt, and each
paper says what the books hold.

A receipt is signed with a key that is not in the database, so these checks also show a payment
whose amount, day or channel was changed after its receipt was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from sqlmodel import Session

from gateway.checks import Broken, Check
from gateway.codes import attestations as attestation_codes
from gateway.codes import receipts as codes
from gateway.db import execute
from gateway.people.attestations import says_the_same
from gateway.receipt_keys import PublishedKey
from gateway.receipts import QUOTED, SAID, claims_of


def receipt_checks(keys: Sequence[PublishedKey]) -> list[Check]:
    """Return the checks of receipts, against the keys that the home publishes."""
    return [
        Check("every receipt says what is booked", partial(_says_what_is_booked, keys=keys)),
        Check("every payment booked to an invoice has its receipt or is in line", _has_one),
        Check("every attestation is signed as it stands", partial(_is_signed, keys=keys)),
    ]


def _says_what_is_booked(session: Session, *, keys: Sequence[PublishedKey]) -> Iterable[Broken]:
    public = {key.key_id: key.public for key in keys}
    rows = execute(
        session,
        f"SELECT number, signed, receipt.key_id, {SAID},"
        " payment.invoice_id IS NOT DISTINCT FROM receipt.invoice_id AS same_invoice,"
        " payment.booked_at IS NOT NULL AS booked"
        f" FROM receipt JOIN payment ON payment.id = payment_id {QUOTED}",
    )
    for row in rows.mappings().yield_per(5_000):
        where = f"receipt:{row['number']}"
        if row["key_id"] not in public:
            yield Broken("a receipt is signed by a key that is not ours", where)
            continue
        read = codes.read_signed(bytes(row["signed"]), public)
        if not isinstance(read, codes.Genuine) or read.key_id != row["key_id"]:
            yield Broken("a receipt's signature does not hold", where)
        elif read.claims != claims_of(dict(row), row["number"]):
            yield Broken("a receipt says other than its payment", where)
        elif not (row["same_invoice"] and row["booked"]):
            yield Broken("a receipt is for a payment that was not booked to its invoice", where)


def _has_one(session: Session) -> Iterable[Broken]:
    rows = execute(
        session,
        "SELECT provider, provider_payment_id FROM payment"
        " WHERE status = 'booked' AND (invoice_id IS NOT NULL OR bundle_id IS NOT NULL)"
        " AND NOT EXISTS (SELECT FROM receipt WHERE payment_id = payment.id)"
        " AND NOT EXISTS (SELECT FROM receipt_due WHERE payment_id = payment.id)",
    )
    for provider, named in rows:
        yield Broken("a booked payment has no receipt", f"payment:{provider}/{named}")


def _is_signed(session: Session, *, keys: Sequence[PublishedKey]) -> Iterable[Broken]:
    public = {key.key_id: key.public for key in keys}
    rows = execute(session, "SELECT number, valid_until, issued_at, signed FROM attestation")
    for row in rows.mappings().yield_per(5_000):
        where = f"attestation:{row['number']}"
        read = attestation_codes.read_signed(bytes(row["signed"]), public)
        if not isinstance(read, attestation_codes.Genuine):
            yield Broken("an attestation's signature does not hold", where)
        elif not says_the_same(read.claims, row["number"], row["issued_at"], row["valid_until"]):
            yield Broken("an attestation says other than its row", where)
