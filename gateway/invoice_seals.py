"""A seal on each invoice, by a key that is not in the database: who changes a row cannot seal it.

The seal is HMAC-SHA256 over the facts of an invoice, under a key derived from the books' key. It
keeps 16 of the 32 bytes: nobody guesses one of 2¹²⁸, and a year of 1.6 million people's invoices
is 300 MB smaller. The lines are not in it: another check says that they sum to the amount, which
is. A trigger keeps seals as they are; it binds whoever is not the owner of the database.

Invoices from before there were seals have none, and none can be given to them. So an invoice
without a seal is a finding only where one with a lower number has one. Whoever owns the database
and takes away every seal there is makes all invoices look like those old ones.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlmodel import Session

from gateway.db import execute
from gateway.errors import Unusable
from gateway.seals import BooksKey

SEAL_BYTES: Final = 16
_PURPOSE: Final = b"wasl invoice seals v1"
_BLOCK_BYTES: Final = 64
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Sealer:
    """Seals invoices with the key derived from a books' key."""

    def __init__(self, key: BooksKey) -> None:
        padded = key.derived(_PURPOSE).ljust(_BLOCK_BYTES, b"\0")
        self._inner: Final = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer: Final = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def seal(self, facts: bytes) -> bytes:
        """Return the seal over these facts (see `facts_of`).

        HMAC as its definition has it, from two states that hold the key already: for so short a
        text that is almost three times as fast as `hmac.digest`.
        """
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(facts)
        outer.update(inner.digest())
        return outer.digest()[:SEAL_BYTES]


def facts_of(invoice_id: int, reference: bytes, contributor_id: int, terms: bytes) -> bytes:
    """Return what a seal covers: a line for each fact, none ambiguous."""
    return b"wasl invoice v1\n%d\n%b\n%d\n%b" % (invoice_id, reference, contributor_id, terms)


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


def refuse_another_home(session: Session, sealer: Sealer) -> None:
    """Stop where invoices are sealed with another key: two keys could never be told right.

    Raises:
        Unusable: The newest invoice is sealed with another key.
    """
    # Of those from before there were seals, the newest has none: not searched through.
    newest = execute(
        session, f"SELECT {_SEALED} FROM invoice ORDER BY id DESC LIMIT 1"
    ).one_or_none()
    if newest is not None and newest.seal is not None and not _holds(sealer, *newest):
        raise Unusable(
            "The newest invoice is not sealed by this home's key: start Wasl with the WASL_HOME"
            " that has its books.key. If it is the right one, run wasl verify."
        )


def broken_seals(session: Session, key: BooksKey) -> Iterator[str]:
    """Yield each invoice that our key did not write as it stands. Flat in memory."""
    sealer = Sealer(key)
    first_sealed = None
    rows = session.connection().execute(
        sa.text(f"SELECT {_SEALED} FROM invoice ORDER BY id"), execution_options=_STREAMED
    )
    for row in rows:
        if row[-1] is None:
            # The database numbers from 1: what is below was put there by hand.
            if first_sealed is not None or row[0] < 1:
                yield f"invoice {row[0]} ({row[1]})"
            continue
        first_sealed = first_sealed or row[0]
        if not _holds(sealer, *row):
            yield f"invoice {row[0]} ({row[1]})"


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
