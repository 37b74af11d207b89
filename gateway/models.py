"""The gateway's tables. The database is the last judge: what must hold is a constraint here.

Amounts are centimes (`_minor`), instants are aware UTC (`_at`), days are days in Casablanca
(`_on`). Rows are built by the module that owns them; `table=True` validates nothing.
Triggers (append-only tables, immutable columns) are in the first migration.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Any, ClassVar, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from gateway.db import choice, instant, key, minor, one_of, points_to
from gateway.money import AMOUNT_MINOR_MAX


class Periodicity(StrEnum):
    """How often a category owes."""

    MONTH = "month"
    QUARTER = "quarter"


class InvoiceStatus(StrEnum):
    """What has been paid of an invoice; always the one that its two amounts imply."""

    OPEN = "open"
    PART_PAID = "part_paid"
    PAID = "paid"


class LineKind(StrEnum):
    PRINCIPAL = "principal"
    PENALTY = "penalty"
    FEE = "fee"
    REMISSION = "remission"
    ADJUSTMENT = "adjustment"


class PaymentStatus(StrEnum):
    """What the provider last said of a payment, by the provider's own time."""

    PENDING = "pending"
    """Announced; no money yet. Nothing is booked."""
    FAILED = "failed"
    """No money came. Nothing is booked."""
    BOOKED = "booked"
    """The provider holds the money; it is in the books."""
    REVERSED = "reversed"
    """The provider gave the money back; the books hold both ways."""


class Channel(StrEnum):
    CASH_AGENT = "cash_agent"
    KIOSK = "kiosk"
    WALLET = "wallet"
    CARD = "card"
    TRANSFER = "transfer"


class AccountKind(StrEnum):
    """The chart of accounts. An account is a kind and its owner, written `kind:owner`."""

    CLEARING = "clearing"
    """Owner: a provider. What it collected and has not yet paid out to us."""
    SUSPENSE = "suspense"
    """Owner: `unidentified`. Money whose debt we do not know."""
    CREDIT = "credit"
    """Owner: a contributor's id. Money beyond what was due: the payer's own."""
    PAYABLE = "payable"
    """Owner: `institution`. Contributions collected, owed to the CNSS."""
    FEES = "fees"
    """Owner: a provider. What it keeps for collecting."""
    FLOAT = "float"
    """Owner: an agent. What it deposited and may still collect against."""
    TILL = "till"
    """Owner: an agent. Cash in its drawer."""
    COMMISSION = "commission"
    """Owner: an agent. What it has earned."""


class ExceptionCode(StrEnum):
    """What a person must decide."""

    UNKNOWN_REFERENCE = "unknown_reference"
    OVERPAID = "overpaid"
    PAID_TWICE = "paid_twice"
    PAID_CANCELLED = "paid_cancelled"
    WRONG_CURRENCY = "wrong_currency"
    INVALID_AMOUNT = "invalid_amount"
    CONFLICTING_DELIVERY = "conflicting_delivery"
    CONFLICTING_PAYMENT = "conflicting_payment"
    CONFLICTING_RECORD = "conflicting_record"
    UNREADABLE_DELIVERY = "unreadable_delivery"
    PARKED_DELIVERY = "parked_delivery"
    IMPLAUSIBLE_DATE = "implausible_date"
    PAYMENT_WITHOUT_RECORD = "payment_without_record"
    RECORD_WITHOUT_PAYMENT = "record_without_payment"
    AMOUNT_DIFFERS = "amount_differs"
    AMBIGUOUS_MATCH = "ambiguous_match"
    WRONG_MODE = "wrong_mode"
    """A test event in production, or real money in a sandbox."""
    PAYMENT_DISPUTED = "payment_disputed"
    OVER_RETURNED = "over_returned"
    """Refunds and disputes together give back more than the payment brought."""
    RETURN_WITHOUT_PAYMENT = "return_without_payment"


class ReturnKind(StrEnum):
    """How a provider speaks of money that it gives back to the payer."""

    REFUND = "refund"
    """One refund, by its own id."""
    REFUND_TOTAL = "refund_total"
    """All refunds of a payment so far, as one sum."""
    DISPUTE = "dispute"
    """The payer's bank takes the money back, or threatens to (chargeback)."""


class ReturnState(StrEnum):
    """Where the money of a return is."""

    ANNOUNCED = "announced"
    """Nothing has moved yet."""
    GIVEN = "given"
    """It has left the provider's account with us."""
    RESTORED = "restored"
    """It came back: the refund failed, or the dispute was won."""


class AttemptState(StrEnum):
    """How far a payer got who was sent to a provider's page."""

    MADE = "made"
    """Kept before the provider was asked: a crash or a timeout may hide what it answered."""
    SENT = "sent"
    """The provider has a page for it; what became of it is not known yet."""
    PAID = "paid"
    """The provider says that it holds the money; a payment says the rest."""
    CLOSED = "closed"
    """It lapsed, was given up or refused: no money came by it."""


class EventType(StrEnum):
    """What others are told of. A name is never given another meaning."""

    INVOICE_ISSUED = "invoice.issued"
    INVOICE_CANCELLED = "invoice.cancelled"
    PAYMENT_BOOKED = "payment.booked"
    PAYMENT_RETURNED = "payment.returned"
    """A part of it, or all, was refunded or taken back in a dispute, or came back from there."""
    PAYMENT_REVERSED = "payment.reversed"
    EXCEPTION_OPENED = "exception.opened"
    EXCEPTION_RESOLVED = "exception.resolved"
    RECONCILIATION_FINISHED = "reconciliation.finished"


class Role(StrEnum):
    ADMIN = "admin"
    FINANCE = "finance"
    APPROVER = "approver"
    AGENT = "agent"
    SUPERVISOR = "supervisor"
    CHAMBER = "chamber"
    PROVIDER = "provider"


_POSITIVE: Final = f"amount_minor BETWEEN 1 AND {AMOUNT_MINOR_MAX}"


class Category(SQLModel, table=True):
    """A group of contributors that the tariff treats alike; kept equal to the tariff file."""

    code: str = Field(primary_key=True)
    periodicity: Periodicity = choice(Periodicity)
    needs_base: bool

    __table_args__ = (one_of("periodicity", Periodicity),)


class Contributor(SQLModel, table=True):
    """A self-employed person who owes contributions. The only table with names and numbers."""

    id: int | None = key()
    cnss_number: str = Field(unique=True)
    cin: str | None
    family_name: str
    given_name: str
    family_name_ar: str | None
    given_name_ar: str | None
    phone: str | None
    language: str | None
    category_code: str = Field(foreign_key="category.code")
    category_base_minor: int | None = minor()
    region: str | None
    province: str | None
    chamber: str | None
    registered_on: date
    left_on: date | None
    changed_at: datetime = instant()

    __table_args__ = (
        sa.CheckConstraint("cnss_number ~ '^[0-9]{9}$'", name="cnss_number"),
        sa.CheckConstraint("language IN ('fr', 'ar')", name="language"),
        sa.CheckConstraint("category_base_minor >= 0", name="category_base"),
        sa.CheckConstraint("left_on >= registered_on", name="left_on"),
        sa.Index(None, "category_code", "id"),
        sa.Index(None, "region", "id"),
    )


class Rule(SQLModel, table=True):
    """Why a line of an invoice has its amount, as the tariff said it on the day of issue."""

    id: int | None = key()
    rule: str
    source: str
    verified: bool
    facts: dict[str, str] = Field(sa_type=JSONB, sa_column_kwargs={"server_default": "{}"})
    """The figures of the rule by name, so that it can be said in any language."""

    __table_args__ = (sa.UniqueConstraint("rule", "source", "verified"),)


class ReferenceKey(SQLModel, table=True):
    """The one key of this installation's permutation of references (gateway.references)."""

    __tablename__: ClassVar[str] = "reference_key"

    id: int = Field(default=1, primary_key=True)
    key: bytes

    __table_args__ = (
        sa.CheckConstraint("id = 1", name="only_one"),
        sa.CheckConstraint("length(key) = 32", name="key"),
    )


class Invoice(SQLModel, table=True):
    """One period's contribution of one person. Amount, period and reference never change."""

    id: int | None = key()
    reference: str = Field(unique=True)
    contributor_id: int = points_to("contributor.id")
    category_code: str = Field(foreign_key="category.code")
    period: str
    """`2026-11` or `2026-Q4`."""
    due_on: date
    amount_minor: int = minor()
    paid_minor: int = minor(default=0, sa_column_kwargs={"server_default": "0"})
    status: InvoiceStatus = choice(
        InvoiceStatus,
        default=InvoiceStatus.OPEN,
        sa_column_kwargs={"server_default": "open"},
    )
    tariff: str
    """Version of the tariff file that priced it."""
    issued_at: datetime = instant()
    cancelled_at: datetime | None = instant(nullable=True)
    """Taken back before anything was paid: nothing is due, and it never comes to life again."""
    cancelled_because: str | None = None

    __table_args__ = (
        sa.UniqueConstraint("contributor_id", "period"),
        sa.CheckConstraint(
            "reference ~ '^[1-9][0-9]{11}$' AND mod(reference::bigint, 97) = 1"
            " AND mod(reference::bigint, 100) BETWEEN 2 AND 98",
            name="reference",
        ),
        sa.CheckConstraint("period ~ '^[0-9]{4}-(0[1-9]|1[0-2]|Q[1-4])$'", name="period"),
        sa.CheckConstraint(_POSITIVE, name="amount"),
        sa.CheckConstraint("paid_minor BETWEEN 0 AND amount_minor", name="paid"),
        # The state machine as an identity: no sequence of updates can leave status and money apart.
        sa.CheckConstraint(
            "status = CASE WHEN paid_minor = 0 THEN 'open'"
            " WHEN paid_minor < amount_minor THEN 'part_paid' ELSE 'paid' END",
            name="status",
        ),
        sa.CheckConstraint(
            "(cancelled_at IS NULL) = (cancelled_because IS NULL)", name="cancelled_because"
        ),
        sa.CheckConstraint("cancelled_at IS NULL OR paid_minor = 0", name="cancelled"),
        sa.Index(None, "period"),
    )


class InvoiceLine(SQLModel, table=True):
    """One reason for a part of an invoice's amount. Append-only; lines sum to the invoice."""

    __tablename__: ClassVar[str] = "invoice_line"

    invoice_id: int = Field(sa_type=sa.BigInteger, foreign_key="invoice.id", primary_key=True)
    position: int = Field(sa_type=sa.SmallInteger, primary_key=True)
    kind: LineKind = choice(LineKind)
    amount_minor: int = minor()
    """Signed: remissions and credits are negative."""
    rule_id: int = points_to("rule.id")

    __table_args__ = (
        one_of("kind", LineKind),
        sa.CheckConstraint("amount_minor <> 0", name="amount"),
    )


class Payment(SQLModel, table=True):
    """Money that a provider reports, once however often it is reported."""

    id: int | None = key()
    provider: str
    provider_payment_id: str
    status: PaymentStatus = choice(PaymentStatus)
    reference_given: str
    """The reference as the provider wrote it."""
    invoice_id: int | None = points_to("invoice.id", nullable=True)
    amount_minor: int = minor()
    currency: str
    channel: Channel | None = choice(Channel, nullable=True)
    """None: not stated, or a word we do not know."""
    agent_id: str | None
    terminal_id: str | None
    fee_minor: int | None = minor()
    """What the payer paid the provider on top, as the provider says; never part of the amount."""
    paid_at: datetime = instant()
    """The provider's word. Decides penalties and rights."""
    stated_at: datetime = instant()
    """The provider's own time of the status we hold; an older report never overwrites it."""
    recorded_at: datetime = instant()
    """Ours: when we first heard of it."""
    booked_at: datetime | None = instant(nullable=True)
    returned_minor: int = minor(default=0, sa_column_kwargs={"server_default": "0"})
    """What of it refunds and disputes gave back, while it stands booked."""
    source: str
    """What told us: `delivery:provider/delivery id`, or `inquiry:provider/its id`."""

    __table_args__ = (
        sa.UniqueConstraint("provider", "provider_payment_id"),
        one_of("status", PaymentStatus),
        one_of("channel", Channel),
        sa.CheckConstraint(_POSITIVE, name="amount"),
        sa.CheckConstraint("currency = 'MAD'", name="currency"),
        sa.CheckConstraint(f"fee_minor BETWEEN 0 AND {AMOUNT_MINOR_MAX}", name="fee"),
        sa.CheckConstraint("status <> 'booked' OR booked_at IS NOT NULL", name="booked_at"),
        sa.CheckConstraint("returned_minor BETWEEN 0 AND amount_minor", name="returned"),
        sa.Index(None, "invoice_id"),
    )


class PaymentReturn(SQLModel, table=True):
    """What a provider says it gives back of a payment, by its own id. May come before the payment.

    What follows for the books is decided from all returns of a payment together (gateway.returns).
    """

    __tablename__: ClassVar[str] = "payment_return"

    id: int | None = key()
    provider: str
    provider_payment_id: str
    return_id: str
    """The provider's id of the refund or dispute; of the payment for a sum of refunds."""
    kind: ReturnKind = choice(ReturnKind)
    state: ReturnState = choice(ReturnState)
    amount_minor: int = minor()
    made_at: datetime = instant()
    """The provider's time of the refund or dispute itself."""
    stated_at: datetime = instant()
    """The provider's time of the state we hold; an older report never overwrites it."""
    restored_at: datetime | None = instant(nullable=True)
    """The earliest instant at which it was said to have come back."""
    outcome: str | None
    """How a dispute ended, in the provider's word; None while it is open."""
    source: str
    recorded_at: datetime = instant()

    __table_args__ = (
        sa.UniqueConstraint("provider", "kind", "return_id"),
        one_of("kind", ReturnKind),
        one_of("state", ReturnState),
        sa.CheckConstraint(f"amount_minor BETWEEN 0 AND {AMOUNT_MINOR_MAX}", name="amount"),
        sa.CheckConstraint("outcome IS NULL OR kind = 'dispute'", name="outcome"),
        sa.Index(None, "provider", "provider_payment_id"),
    )


class PaymentAttempt(SQLModel, table=True):
    """A payer who was sent to a provider's page. Kept before the provider is asked; its id is the
    provider's idempotency key, so that asking again after a crash finds the page made before."""

    __tablename__: ClassVar[str] = "payment_attempt"

    id: str = Field(primary_key=True)
    invoice_id: int = points_to("invoice.id")
    provider: str
    amount_minor: int = minor()
    language: str
    """Of the payer, and so of the provider's page: the same call must say the same."""
    state: AttemptState = choice(
        AttemptState, default=AttemptState.MADE, sa_column_kwargs={"server_default": "made"}
    )
    session_id: str | None
    """The provider's id of its page."""
    page_url: str | None
    provider_payment_id: str | None
    made_at: datetime = instant()
    expires_at: datetime = instant()
    """After this instant the provider's page takes no payment."""
    tries: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """How often we asked what became of it."""
    ask_at: datetime | None = instant(nullable=True)
    """When to ask next, by the database's clock; None: not any more."""
    closed_because: str | None

    __table_args__ = (
        one_of("state", AttemptState),
        sa.UniqueConstraint("provider", "session_id"),
        sa.CheckConstraint(_POSITIVE, name="amount"),
        sa.CheckConstraint("language IN ('fr', 'ar')", name="language"),
        sa.CheckConstraint("(state = 'closed') = (closed_because IS NOT NULL)", name="closed"),
        sa.CheckConstraint("state <> 'sent' OR session_id IS NOT NULL", name="sent"),
        # One page at a time for an invoice: two would take the money twice.
        sa.Index(
            "payment_attempt_open_key",
            "invoice_id",
            unique=True,
            postgresql_where=sa.text("state IN ('made', 'sent')"),
        ),
        sa.Index(
            "payment_attempt_ask_idx", "ask_at", postgresql_where=sa.text("ask_at IS NOT NULL")
        ),
    )


class Allocation(SQLModel, table=True):
    """What part of a payment went to which invoice, by which policy. Append-only: a reversal is a
    negative allocation."""

    id: int | None = key()
    payment_id: int = points_to("payment.id")
    invoice_id: int = points_to("invoice.id")
    amount_minor: int = minor()
    policy: str
    allocated_at: datetime = instant()

    __table_args__ = (
        sa.CheckConstraint("amount_minor <> 0", name="amount"),
        sa.Index(None, "payment_id"),
        sa.Index(None, "invoice_id"),
    )


class ReceiptDue(SQLModel, table=True):
    """A payment that was booked to an invoice and has no receipt yet: the queue of the signer."""

    __tablename__: ClassVar[str] = "receipt_due"

    payment_id: int = Field(sa_type=sa.BigInteger, foreign_key="payment.id", primary_key=True)


class Receipt(SQLModel, table=True):
    """What the payer holds: the signed statement that a payment was booked. Append-only.

    It says what was so when it was signed. Whether the money is still there, the payment says.
    """

    id: int | None = key()
    number: str = Field(unique=True)
    """`R26-` and nine digits that tell nothing of how many there are."""
    payment_id: int = points_to("payment.id", unique=True)
    invoice_id: int = points_to("invoice.id")
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
    batch_id: int = points_to("ledger_batch.id")
    name: str = Field(unique=True)
    """What it is for: `provider/provider's payment id/part`. One fact is posted once."""
    debit_account_id: int = points_to("ledger_account.id")
    credit_account_id: int = points_to("ledger_account.id")
    amount_minor: int = minor()
    payment_id: int | None = points_to("payment.id", nullable=True)
    invoice_id: int | None = points_to("invoice.id", nullable=True)
    reverses_id: int | None = points_to("ledger_transfer.id", nullable=True, unique=True)
    """The transfer that this one takes back, in full, the other way (a trigger compares them)."""
    posted_at: datetime = instant()

    __table_args__ = (
        sa.CheckConstraint("debit_account_id <> credit_account_id", name="accounts"),
        sa.CheckConstraint(_POSITIVE, name="amount"),
        sa.Index(None, "batch_id"),
        sa.Index(None, "payment_id"),
        sa.Index(None, "debit_account_id"),
        sa.Index(None, "credit_account_id"),
    )


class OutboxMessage(SQLModel, table=True):
    """A task asked for inside a transaction, to be sent after it."""

    __tablename__: ClassVar[str] = "outbox_message"

    id: int | None = key()
    task: str
    arguments: dict[str, str] = Field(sa_type=JSONB)
    created_at: datetime = instant()


class CodedException(SQLModel, table=True):
    """Something that a person must decide; at most one open for a code and a subject."""

    __tablename__: ClassVar[str] = "coded_exception"

    id: int | None = key()
    code: ExceptionCode = choice(ExceptionCode)
    subject: str
    """What it is about: `payment:provider/id`, `delivery:provider/id`, `record:id`."""
    detail: dict[str, Any] = Field(sa_type=JSONB)
    """What was found, for the person who decides. Never a name or a personal number."""
    payment_id: int | None = points_to("payment.id", nullable=True)
    opened_at: datetime = instant()
    resolved_at: datetime | None = instant(nullable=True)
    resolution: str | None

    __table_args__ = (
        one_of("code", ExceptionCode),
        sa.CheckConstraint("(resolved_at IS NULL) = (resolution IS NULL)", name="resolution"),
        sa.Index(
            "coded_exception_open_key",
            "code",
            "subject",
            unique=True,
            postgresql_where=sa.text("resolved_at IS NULL"),
        ),
        sa.Index(None, "payment_id"),
    )


class Staff(SQLModel, table=True):
    """A person who can sign in."""

    id: int | None = key()
    name: str = Field(unique=True)
    role: Role = choice(Role)
    password_hash: str
    totp_sealed: bytes
    """The second factor's secret, encrypted with a key that is not in the database."""
    created_at: datetime = instant()

    __table_args__ = (
        one_of("role", Role),
        sa.CheckConstraint("name = btrim(name) AND name <> ''", name="name"),
    )


class ApiKey(SQLModel, table=True):
    """A bearer key. Its secret half is known to the holder only."""

    __tablename__: ClassVar[str] = "api_key"

    id: str = Field(primary_key=True)
    role: Role = choice(Role)
    label: str = Field(default="", sa_column_kwargs={"server_default": ""})
    """Whose it is, for whoever revokes it. No secret."""
    scope: str | None
    """What of the whole its holder sees: a chamber's region, a provider's name."""
    secret_sha256: bytes
    """A hash without stretching: the secret is 256 random bits, not a password."""
    created_at: datetime = instant()
    revoked_at: datetime | None = instant(nullable=True)

    __table_args__ = (
        one_of("role", Role),
        sa.CheckConstraint("length(secret_sha256) = 32", name="secret"),
        sa.CheckConstraint("scope IS NULL OR role IN ('chamber', 'provider')", name="scope"),
    )


class IdempotentAnswer(SQLModel, table=True):
    """The answer to a request of the API that bore an `Idempotency-Key`, written with its effect in
    one transaction: the same request again gets it, another one under the key a conflict."""

    __tablename__: ClassVar[str] = "idempotent_answer"

    api_key_id: str = Field(foreign_key="api_key.id", primary_key=True)
    idempotency_key: str = Field(primary_key=True)
    request_sha256: bytes
    """Of method, path and body."""
    status: int = Field(sa_type=sa.SmallInteger)
    headers: dict[str, str] = Field(sa_type=JSONB)
    body: bytes
    answered_at: datetime = instant()

    __table_args__ = (
        sa.CheckConstraint("length(request_sha256) = 32", name="request"),
        sa.Index(None, "answered_at"),
    )


class Event(SQLModel, table=True):
    """What happened, for those who follow along: in the order of commits. Append-only.

    Written under a lock that lasts to the commit (gateway.events), so whoever has read up to an id
    has missed nothing before it.
    """

    id: int | None = key()
    type: EventType = choice(EventType)
    invoice_id: int | None = points_to("invoice.id", nullable=True)
    payment_id: int | None = points_to("payment.id", nullable=True)
    data: dict[str, Any] = Field(sa_type=JSONB)
    """The facts as they were then. Never a name or a personal number."""
    happened_at: datetime = instant()

    __table_args__ = (one_of("type", EventType),)
