"""The words that tables and answers use: one list of values for each column that has one."""

from __future__ import annotations

from enum import StrEnum


class Periodicity(StrEnum):
    """How often a category owes."""

    MONTH = "month"
    QUARTER = "quarter"


class InvoiceStatus(StrEnum):
    """What has been paid of an invoice; always the one that its two amounts imply."""

    OPEN = "open"
    PART_PAID = "part_paid"
    PAID = "paid"
    CLEARED = "cleared"
    """Nothing is owed, and nothing was paid: credits or remissions took all of it."""


class LineKind(StrEnum):
    PRINCIPAL = "principal"
    PENALTY = "penalty"
    FEE = "fee"
    REMISSION = "remission"
    ADJUSTMENT = "adjustment"


class Component(StrEnum):
    """Which part of a debt money pays. In this order, within one invoice."""

    PRINCIPAL = "principal"
    PENALTY = "penalty"
    FEE = "fee"


class BundleKind(StrEnum):
    """What a reference that pays several invoices is for."""

    SELECTION = "selection"
    """Invoices that somebody pays together: a family, an employer, a chamber."""
    PLAN = "plan"
    """An instalment plan: the current period first, then the debts that the plan spreads."""


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
    PAID_OUT = "paid_out"
    """Owner: `institution`. What it gave back to payers out of its own bank account."""


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
    REFUND_FAILED = "refund_failed"
    """A refund that was approved did not reach the payer: refused, not sent, or come back."""
    MISSING_STATEMENT = "missing_statement"
    """A bank's statement does not open with what the one before it closed with."""
    ENDPOINT_DISABLED = "endpoint_disabled"
    """Somebody who follows the events took none for days, or wants no more; it gets none now."""


class ReturnKind(StrEnum):
    """How a provider speaks of money that it gives back to the payer."""

    REFUND = "refund"
    """One refund, by its own id."""
    REFUND_TOTAL = "refund_total"
    """All refunds of a payment so far, as one sum."""
    DISPUTE = "dispute"
    """The payer's bank takes the money back, or threatens to (chargeback)."""
    BY_HAND = "by_hand"
    """One refund that the institution paid out itself: no provider speaks of it."""


class ReturnState(StrEnum):
    """Where the money of a return is."""

    ANNOUNCED = "announced"
    """Nothing has moved yet."""
    GIVEN = "given"
    """It has left the provider's account with us."""
    RESTORED = "restored"
    """It came back: the refund failed, or the dispute was won."""


class RefundWay(StrEnum):
    """How a refund of ours reaches the payer."""

    PROVIDER = "provider"
    """The provider that has the money is asked to give it back."""
    BY_HAND = "by_hand"
    """Finance transfers it, or pays it out, and says so."""


class RefundState(StrEnum):
    """How far a refund of ours is."""

    ASKED = "asked"
    REFUSED = "refused"
    """Not approved, or withdrawn before anything was done."""
    APPROVED = "approved"
    """To be carried out; by a provider: what it has made of it is not known yet."""
    DROPPED = "dropped"
    """Approved, and never carried out: the money was disputed or taken back meanwhile."""
    SENT = "sent"
    """The provider has made it, and the money has left us; it has not said that it arrived."""
    DONE = "done"
    """The provider, or finance, says that it is with the payer's bank."""
    FAILED = "failed"
    """The provider refused it, or it came back: the payer has nothing, and the books say so."""


class AttemptState(StrEnum):
    """How far a payer got who was sent to a provider's page, or paid by a code or on his phone."""

    MADE = "made"
    """Kept before the provider was asked: a crash or a timeout may hide what it answered."""
    SENT = "sent"
    """The provider has a page for it; what became of it is not known yet."""
    PAID = "paid"
    """The provider says that it holds the money; a payment says the rest."""
    CLOSED = "closed"
    """It lapsed, was given up or refused: no money came by it."""


class MessageKind(StrEnum):
    """What a person is written to about."""

    NOTICE = "notice"
    """An invoice was issued."""
    DUE_SOON = "due_soon"
    LATE = "late"
    PAID = "paid"
    GIVEN_BACK = "given_back"
    """Money of a payment that was confirmed is gone: reversed, refunded or taken back."""


class MessageState(StrEnum):
    """How far a message is."""

    WAITING = "waiting"
    SENT = "sent"
    """A sender took it; whether a telephone showed it is not known."""
    DROPPED = "dropped"
    """It was not sent, and will not be: `because` says why."""


class Manner(StrEnum):
    """How a payer is brought to pay by what a provider makes for him."""

    PAGE = "page"
    """His browser goes to the provider's page."""
    TOKEN = "token"  # noqa: S105 - no password
    """He says a code at an agency."""
    PUSH = "push"
    """The provider asks him on his phone, and he confirms there."""


class EventType(StrEnum):
    """What others are told of. A name is never given another meaning."""

    INVOICE_ISSUED = "invoice.issued"
    INVOICE_CANCELLED = "invoice.cancelled"
    INVOICE_ADJUSTED = "invoice.adjusted"
    """A credit, a charge or a relief changed what is owed on it; the invoice itself stands."""
    PAYMENT_BOOKED = "payment.booked"
    PAYMENT_RETURNED = "payment.returned"
    """A part of it, or all, was refunded or taken back in a dispute, or came back from there."""
    PAYMENT_REVERSED = "payment.reversed"
    PAYMENT_MOVED = "payment.moved"
    """A part of it pays another debt than before, or became the payer's credit."""
    PLAN_MADE = "plan.made"
    PLAN_ENDED = "plan.ended"
    """Kept or broken."""
    REMISSION_GRANTED = "remission.granted"
    REMISSION_ENDED = "remission.ended"
    """Kept for good, or broken: what was remitted is owed again."""
    EXCEPTION_OPENED = "exception.opened"
    EXCEPTION_RESOLVED = "exception.resolved"
    RECONCILIATION_FINISHED = "reconciliation.finished"
    REFUND_ASKED = "refund.asked"
    REFUND_DECIDED = "refund.decided"
    """Approved or refused, by another person than who asked."""
    REFUND_ENDED = "refund.ended"
    """Done, failed or dropped. One that was done may fail later."""


class Role(StrEnum):
    ADMIN = "admin"
    FINANCE = "finance"
    APPROVER = "approver"
    AGENT = "agent"
    SUPERVISOR = "supervisor"
    CHAMBER = "chamber"
    PROVIDER = "provider"
