"""A seal on each invoice, by a key that is not in the database: who changes a row cannot seal it.

The seal is HMAC-SHA256 over the facts of an invoice, under a key derived from the books' key. It
keeps 16 of the 32 bytes: nobody guesses one of 2¹²⁸, and a year of 1.6 million people's invoices
is 300 MB smaller. The lines are not in it: another check says that they sum to the amount, which
is. A trigger keeps seals as they are; it binds whoever is not the owner of the database.

Invoices from before there were seals have none, and none can be given to them. Up to which number
that is so, each seal says too: else whoever owns the database could take the seals of the oldest
invoices, and they would look like those from before. Only who takes away every seal there is makes
all invoices look so.
"""

from __future__ import annotations

import hashlib
import hmac
from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlmodel import Session

from gateway.books.seals import BooksKey
from gateway.db import execute
from gateway.errors import Unusable

SEAL_BYTES: Final = 16
_PURPOSE: Final = b"wasl invoice seals v1"
_BLOCK_BYTES: Final = 64
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Sealer:
    """Seals invoices with the key derived from a books' key (see `sealer_of`)."""

    def __init__(self, key: BooksKey, unsealed_to: int) -> None:
        """Prepare.

        Args:
            key: The books' key.
            unsealed_to: The number of the last invoice from before there were seals, or 0.
        """
        padded = key.derived(_PURPOSE).ljust(_BLOCK_BYTES, b"\0")
        self._inner: Final = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._inner.update(b"wasl invoice v1\n%d\n" % unsealed_to)
        self._outer: Final = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def seal(self, facts: bytes) -> bytes:
        """Return the seal over these facts (see `facts_of`), under what all seals begin with.

        HMAC as its definition has it, from two states that hold the key already: for so short a
        text that is almost three times as fast as `hmac.digest`.
        """
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(facts)
        outer.update(inner.digest())
        return outer.digest()[:SEAL_BYTES]


def facts_of(invoice_id: int, reference: bytes, contributor_id: int, terms: bytes) -> bytes:
    """Return what a seal covers of one invoice: a line for each fact, none ambiguous."""
    return b"%d\n%b\n%d\n%b" % (invoice_id, reference, contributor_id, terms)


def terms_of(
    *,
    category: str,
    period: str,
    due_on: date,
    amount_minor: int,
    issued_at: datetime,
    tariff: str,
) -> bytes:
    """Return the facts that many invoices of one issue share. The free text comes last."""
    micros = (issued_at - _EPOCH) // _MICROSECOND
    return f"{category}\n{period}\n{due_on}\n{amount_minor}\n{micros}\n{tariff}\n".encode()


_SEALED: Final = (
    "id, reference, contributor_id, category_code, period, due_on, amount_minor, issued_at,"
    " tariff, seal"
)


_STREAMED: Final = {"yield_per": 5_000}


def sealer_of(session: Session, key: BooksKey) -> Sealer:
    """Return what seals the invoices of this database.

    Raises:
        Unusable: The newest invoice is sealed with another key, or the oldest lost their seals: two
            ways of sealing could never be told right.
    """
    sealer = Sealer(key, _unsealed_to(session))
    # Of those from before there were seals, the newest has none: not searched through.
    newest = execute(
        session, f"SELECT {_SEALED} FROM invoice ORDER BY id DESC LIMIT 1"
    ).one_or_none()
    if newest is not None and newest.seal is not None and not _holds(sealer, *newest):
        raise Unusable(
            "The newest invoice is not sealed by this home's key: start Wasl with the WASL_HOME"
            " that has its books.key. If it is the right one, run wasl verify."
        )
    return sealer


def _unsealed_to(session: Session) -> int:
    """Return the number of the last of the oldest invoices that have no seal; 0: the first has one.

    Looked for by halves: there may be many millions of them.
    """

    def sealed_from(number: int) -> bool:
        found = execute(
            session,
            "SELECT seal IS NOT NULL FROM invoice WHERE id >= :number ORDER BY id LIMIT 1",
            {"number": number},
        ).scalar_one_or_none()
        return found is not False

    if sealed_from(1):
        return 0
    last = execute(session, "SELECT max(id) FROM invoice").scalar_one()
    return bisect_left(range(1, last + 2), True, key=sealed_from)


def broken_seals(session: Session, key: BooksKey) -> Iterator[str]:
    """Yield each invoice that our key did not write as it stands. Flat in memory."""
    unsealed_to = _told_by_seals(session, key)
    sealer = Sealer(key, unsealed_to)
    rows = session.connection().execute(
        sa.text(f"SELECT {_SEALED} FROM invoice ORDER BY id"), execution_options=_STREAMED
    )
    for row in rows:
        # The database numbers from 1: what is below was put there by hand.
        stands = 1 <= row.id <= unsealed_to if row.seal is None else _holds(sealer, *row)
        if not stands:
            yield f"invoice {row.id} ({row.reference})"


def _told_by_seals(session: Session, key: BooksKey) -> int:
    """Return up to which number invoices have no seal, as the newest seals say, not the rows."""
    seen = _unsealed_to(session)
    newest = execute(
        session,
        f"SELECT {_SEALED} FROM invoice WHERE seal IS NOT NULL ORDER BY id DESC LIMIT {_ASKED}",
    ).all()
    for unsealed_to in (seen, 0):
        sealer = Sealer(key, unsealed_to)
        if any(_holds(sealer, *row) for row in newest):
            return unsealed_to
    # No seal is left, or none of these is ours: then all are broken.
    return seen


_ASKED: Final = 100


def _holds(
    sealer: Sealer,
    invoice_id: int,
    reference: str,
    contributor_id: int,
    category: str,
    period: str,
    due_on: date,
    amount_minor: int,
    issued_at: datetime,
    tariff: str,
    seal: bytes,
) -> bool:
    terms = terms_of(
        category=category,
        period=period,
        due_on=due_on,
        amount_minor=amount_minor,
        issued_at=issued_at,
        tariff=tariff,
    )
    facts = facts_of(invoice_id, reference.encode(), contributor_id, terms)
    return hmac.compare_digest(sealer.seal(facts), bytes(seal))
