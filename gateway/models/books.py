"""The ledger: accounts, transfers, and the chain of batches."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from gateway.db import choice, instant, key, minor, names, one_of
from gateway.models.words import AccountKind
from gateway.money import AMOUNT_MINOR_MAX

_POSITIVE: Final = f"amount_minor BETWEEN 1 AND {AMOUNT_MINOR_MAX}"


class LedgerAccount(SQLModel, table=True):
    """One account of the chart: `code` is `kind:owner`."""

    __tablename__: ClassVar[str] = "ledger_account"

    id: int | None = key()
    code: str = Field(unique=True)
    kind: AccountKind = choice(AccountKind)
    owner: str

    __table_args__ = (
        one_of("kind", AccountKind),
        sa.CheckConstraint("code = kind || ':' || owner", name="code"),
        sa.CheckConstraint("owner <> ''", name="owner"),
    )


class LedgerBatch(SQLModel, table=True):
    """A link of the chain: the transfers of one posting transaction. Append-only."""

    __tablename__: ClassVar[str] = "ledger_batch"

    id: int = Field(sa_type=sa.BigInteger, primary_key=True)
    """Counts from 1 without gaps."""
    first_transfer_id: int = Field(sa_type=sa.BigInteger)
    last_transfer_id: int = Field(sa_type=sa.BigInteger)
    total_count: int = Field(sa_type=sa.BigInteger)
    """Transfers in the books up to and with this batch."""
    total_minor: int = minor()
    """Sum of all transfers' amounts up to and with this batch."""
    posted_at: datetime = instant()
    previous_hash: bytes
    hash: bytes
    key_id: str
    signature: bytes
    """Ed25519 over the head, by a key that is not in the database."""

    __table_args__ = (
        sa.CheckConstraint("last_transfer_id >= first_transfer_id", name="transfers"),
        sa.CheckConstraint("total_count = last_transfer_id", name="total_count"),
        sa.CheckConstraint("length(hash) = 32 AND length(previous_hash) = 32", name="hash"),
    )


class LedgerTransfer(SQLModel, table=True):
    """One debit and one credit in one row: unbalanced books cannot be written. Append-only."""

    __tablename__: ClassVar[str] = "ledger_transfer"

    id: int = Field(sa_type=sa.BigInteger, primary_key=True)
    """Counts from 1 without gaps."""
    batch_id: int = names("ledger_batch")
    name: str = Field(unique=True)
    """What it is for: `provider/provider's payment id/part`. One fact is posted once."""
    debit_account_id: int = names("ledger_account")
    credit_account_id: int = names("ledger_account")
    amount_minor: int = minor()
    payment_id: int | None = names("payment", default=None)
    invoice_id: int | None = names("invoice", default=None)
    reverses_id: int | None = names("ledger_transfer", default=None)
    """The transfer that this one takes back, in full, the other way (a trigger compares them)."""
    posted_at: datetime = instant()

    __table_args__ = (
        sa.CheckConstraint("debit_account_id <> credit_account_id", name="accounts"),
        sa.CheckConstraint(_POSITIVE, name="amount"),
        sa.Index(
            "ledger_transfer_reverses_id_key",
            "reverses_id",
            unique=True,
            postgresql_where=sa.text("reverses_id IS NOT NULL"),
        ),
        sa.Index(None, "payment_id"),
        sa.Index(None, "debit_account_id"),
        sa.Index(None, "credit_account_id"),
    )
