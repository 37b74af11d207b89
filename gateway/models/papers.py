"""What people hold in their hands: receipts, attestations, printed notices."""

from __future__ import annotations

from datetime import date, datetime
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from gateway.db import instant, key, names, points_to


class ReceiptDue(SQLModel, table=True):
    """A payment that was booked to an invoice and has no receipt yet: the queue of the signer."""

    __tablename__: ClassVar[str] = "receipt_due"

    payment_id: int = names("payment", primary_key=True)


class Receipt(SQLModel, table=True):
    """What the payer holds: the signed statement that a payment was booked. Append-only.

    It says what was so when it was signed. Whether the money is still there, the payment says.
    """

    id: int | None = key()
    number: str = Field(unique=True)
    """`R26-` and nine digits that tell nothing of how many there are."""
    payment_id: int = points_to("payment.id", unique=True)
    invoice_id: int | None = points_to("invoice.id", nullable=True)
    """None for a payment of a bundle."""
    signed: bytes
    """COSE_Sign1, as in the code on the paper (gateway.codes.receipts)."""
    key_id: str
    issued_at: datetime = instant()

    __table_args__ = (
        sa.CheckConstraint("number ~ '^R[0-9]{2}-[0-9]{9}$'", name="number"),
        sa.Index(None, "invoice_id"),
    )


class PrintRun(SQLModel, table=True):
    """An order to print many notices, cut into files that workers claim one by one."""

    __tablename__: ClassVar[str] = "print_run"

    id: int | None = key()
    selection: str
    """What was asked for, in full, and where to: the same order again continues an open run."""
    folder: str
    """Where its files go."""
    pages: int
    ordered_at: datetime = instant()
    finished_at: datetime | None = instant(nullable=True)

    __table_args__ = (
        sa.Index(
            "print_run_open_key",
            "selection",
            unique=True,
            postgresql_where=sa.text("finished_at IS NULL"),
        ),
    )


class PrintFile(SQLModel, table=True):
    """One file of a run: the notices of a few invoices."""

    __tablename__: ClassVar[str] = "print_file"

    run_id: int = Field(sa_type=sa.BigInteger, foreign_key="print_run.id", primary_key=True)
    position: int = Field(primary_key=True)
    invoice_ids: list[int] = Field(sa_type=ARRAY(sa.BigInteger))
    printed_at: datetime | None = instant(nullable=True)
    pages: int | None
    """How many came out: an invoice that was paid or cancelled meanwhile is left out."""


class Attestation(SQLModel, table=True):
    """What a person shows to be up to date: what was so on a day, signed. Append-only.

    What has become of it since, the page that its code leads to says.
    """

    id: int | None = key()
    number: str = Field(unique=True)
    """`A26-` and nine digits that tell nothing of how many there are."""
    contributor_id: int = points_to("contributor.id")
    issued_on: date
    valid_until: date
    signed: bytes
    """COSE_Sign1, as in the code on the paper."""
    key_id: str
    issued_at: datetime = instant()

    __table_args__ = (
        sa.CheckConstraint("number ~ '^A[0-9]{2}-[0-9]{9}$'", name="number"),
        sa.CheckConstraint("valid_until >= issued_on", name="valid_until"),
        sa.Index(None, "contributor_id"),
    )
