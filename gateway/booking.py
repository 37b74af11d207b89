"""What a report does to a payment and to the books: pure decisions.

The rules, in the order they are asked:
- The first money stands: a report of other money for a booked payment is `conflicting_payment`.
- States follow the provider's own time, never arrival: an older statement changes nothing. At one
  instant the further one wins (failed, completed, reversed).
- `pending`, and every word we do not know, says nothing: whatever is said beside it counts,
  so that a late «pending» cannot keep completed money out of the books.
- A reversal dated before the completion it would take back contradicts it, whichever came first:
  the money stays booked, and a person looks.
- Money that the provider holds is always booked: to its invoice as far as it is due, beyond that
  to the payer's credit, without a known invoice to suspense.
- A declined try ends an announcement and nothing else: it never takes back money, nor keeps it out.
- A failure stated after completion means the money is not held: it is taken back like a reversal,
  or never booked if the failure was heard first.
- Refunds and disputes give back a part, or all, and may come back again: the payment stays booked,
  and the books follow what all of them together come to (gateway.returns).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from gateway.accounts import PAYABLE, SUSPENSE, Posting, account
from gateway.allocation import to_quoted_invoice
from gateway.models import AccountKind, ExceptionCode, PaymentStatus
from gateway.money import format_amount
from gateway.references import normalise_reference, read_reference
from gateway.reports import PaymentReport, Statement
from gateway.returns import Return, credit_of, give_back, given_back_minor, restore, where_it_lies

# Cash may be reported days after it was taken; a payment dated further back would only serve to
# erase penalties. Wafacash and its like keep a transfer for 45 days.
PAID_AT_AGE_MAX: Final = timedelta(days=60)
CLOCK_SKEW_MAX: Final = timedelta(minutes=5)
BEFORE_ALL_ELSE: Final = datetime(1970, 1, 1, tzinfo=UTC)

_RANK: Final = {
    Statement.PENDING: 0,
    Statement.FAILED: 1,
    Statement.COMPLETED: 2,
    Statement.REVERSED: 3,
}
STATED_BY: Final = {
    PaymentStatus.PENDING: Statement.PENDING,
    PaymentStatus.FAILED: Statement.FAILED,
    PaymentStatus.BOOKED: Statement.COMPLETED,
    PaymentStatus.REVERSED: Statement.REVERSED,
}


@dataclass(slots=True)
class InvoiceState:
    """An invoice as the batch has it so far. What is cancelled takes no money: it is credit."""

    id: int
    reference: str
    contributor_id: int
    amount_minor: int
    paid_minor: int
    cancelled: bool = False

    @property
    def due_minor(self) -> int:
        return 0 if self.cancelled else self.amount_minor - self.paid_minor


@dataclass(slots=True)
class PaymentState:
    """A payment as the batch has it so far."""

    report: PaymentReport
    """What the row says of the money: the first booked report, or the latest before booking."""
    status: PaymentStatus
    stated_at: datetime
    paid_at: datetime
    recorded_at: datetime
    invoice_id: int | None = None
    booked_at: datetime | None = None
    returned_minor: int = 0
    """What of it refunds and disputes gave back so far."""
    id: int | None = None
    postings: list[Posting] = field(default_factory=list)
    """Its transfers that stand."""


@dataclass(frozen=True, slots=True)
class Note:
    """A finding about a payment that is not yet known by its row's id."""

    code: ExceptionCode
    detail: dict[str, Any]


@dataclass(slots=True)
class Decision:
    """What one report comes to."""

    outcome: str
    """booked, reversed, returned, noted (a state without money), repeated, conflicting."""
    postings: list[Posting] = field(default_factory=list)
    allocated_minor: int = 0
    """Signed centimes to the invoice; negative gives back."""
    notes: list[Note] = field(default_factory=list)


def first_state(report: PaymentReport, *, now: datetime) -> PaymentState:
    """Return the state of a payment that is heard of for the first time: nothing stated yet."""
    return PaymentState(
        report=report,
        status=PaymentStatus.PENDING,
        stated_at=datetime.min.replace(tzinfo=now.tzinfo),
        paid_at=_credible_day(report)[0],
        recorded_at=now,
    )


def decide(
    payment: PaymentState, invoice: InvoiceState | None, report: PaymentReport, *, now: datetime
) -> Decision:
    """Decide what a report does, and bring the two states to what follows from it.

    Args:
        payment: The payment that the report is about, as it stands.
        invoice: For a payment in the books, the invoice it went to; else the one whose reference
            the report quotes; None if there is none.
        report: What the provider says.
        now: The business clock.
    """
    report = _with_what_is_known(payment, report)
    if report.statement is Statement.DECLINED:
        return _decline(payment, report)
    newer = _outranks(report, payment)
    if newer and payment.booked_at is None and payment.status is PaymentStatus.REVERSED:
        return _after_early_reversal(payment, invoice, report, now=now)
    heard = payment.booked_at is not None or payment.status is PaymentStatus.REVERSED
    if heard and (other := _other_money(payment, report)):
        return Decision("conflicting", notes=[_conflict(payment.report, report, other)])
    if not newer:
        if report.statement is Statement.REVERSED and payment.status is PaymentStatus.BOOKED:
            return Decision("conflicting", notes=[_contradiction(payment, report)])
        if payment.status is PaymentStatus.FAILED:
            return _before_a_failure(payment, report)
        return Decision("repeated")
    if payment.status is PaymentStatus.REVERSED:
        return _after_reversal(payment, report)
    match report.statement:
        case Statement.COMPLETED:
            return _book(payment, invoice, report, now=now)
        case Statement.REVERSED:
            return _take_back(payment, invoice, report)
        case Statement.FAILED if payment.status is PaymentStatus.BOOKED:
            return _take_back(payment, invoice, report)
        case statement:
            payment.report = report
            payment.stated_at = report.stated_at
            payment.paid_at = _credible_day(report)[0]
            payment.status = PaymentStatus(statement.value)
            # So that the payer who looks is told that money is on its way.
            payment.invoice_id = invoice.id if invoice else None
    return Decision("noted")


def _decline(payment: PaymentState, report: PaymentReport) -> Decision:
    """End an announcement. Dated before all else, so that no statement is too old to follow it."""
    if payment.status is not PaymentStatus.PENDING:
        return Decision("repeated")
    payment.report = report
    payment.status = PaymentStatus.FAILED
    payment.stated_at = BEFORE_ALL_ELSE
    return Decision("noted")


def _with_what_is_known(payment: PaymentState, report: PaymentReport) -> PaymentReport:
    """Return a report with the reference that another one gave, if it gives none itself."""
    if report.reference_given or not payment.report.reference_given:
        return report
    return replace(report, reference_given=payment.report.reference_given)


def _outranks(report: PaymentReport, payment: PaymentState) -> bool:
    """Say whether a report overrides what the payment's state rests on."""
    if payment.status is PaymentStatus.PENDING and report.statement is not Statement.PENDING:
        return True
    if report.statement is Statement.PENDING and payment.status is not PaymentStatus.PENDING:
        return False
    stands = (payment.stated_at, _RANK[STATED_BY[payment.status]])
    return (report.stated_at, _RANK[report.statement]) > stands


def _book(
    payment: PaymentState, invoice: InvoiceState | None, report: PaymentReport, *, now: datetime
) -> Decision:
    if payment.status is PaymentStatus.BOOKED:
        # Said again, later: the first time stands, so that a reversal dated between is not lost.
        return Decision("repeated")
    day, implausible = _credible_day(report)
    payment.report = report
    payment.status = PaymentStatus.BOOKED
    payment.stated_at = report.stated_at
    payment.paid_at = day
    payment.booked_at = now
    decision = Decision("booked", notes=[implausible] if implausible else [])
    name = f"{report.provider}/{report.provider_payment_id}"
    clearing = account(AccountKind.CLEARING, report.provider)
    if invoice is None:
        payment.invoice_id = None
        decision.postings = [Posting(f"{name}/suspense", clearing, SUSPENSE, report.amount_minor)]
        decision.notes.append(_unknown_reference(report))
    else:
        taken, beyond = to_quoted_invoice(invoice.due_minor, report.amount_minor)
        if taken:
            decision.postings.append(
                Posting(f"{name}/invoice", clearing, PAYABLE, taken, invoice_id=invoice.id)
            )
        if beyond:
            credit = credit_of(invoice.contributor_id)
            decision.postings.append(
                Posting(f"{name}/credit", clearing, credit, beyond, invoice_id=invoice.id)
            )
            decision.notes.append(
                Note(
                    _why_beyond(invoice, taken),
                    {"reference": invoice.reference, "beyond": format_amount(beyond)},
                )
            )
        payment.invoice_id = invoice.id
        invoice.paid_minor += taken
        decision.allocated_minor = taken
    payment.postings = list(decision.postings)
    return decision


def _why_beyond(invoice: InvoiceState, taken_minor: int) -> ExceptionCode:
    if invoice.cancelled:
        return ExceptionCode.PAID_CANCELLED
    return ExceptionCode.OVERPAID if taken_minor else ExceptionCode.PAID_TWICE


def _take_back(
    payment: PaymentState, invoice: InvoiceState | None, report: PaymentReport
) -> Decision:
    decision = Decision("reversed")
    decision.postings = [posting.opposite() for posting in payment.postings]
    allocated = where_it_lies(payment.postings).payable_minor
    if allocated:
        assert invoice is not None
        assert invoice.id == payment.invoice_id
        invoice.paid_minor -= allocated
        decision.allocated_minor = -allocated
    if payment.booked_at is None:
        payment.report = report
    payment.postings = []
    payment.status = PaymentStatus.REVERSED
    payment.stated_at = report.stated_at
    return decision


def settle_returns(
    payment: PaymentState, invoice: InvoiceState | None, returns: Iterable[Return]
) -> Decision:
    """Bring a payment to what refunds and disputes give back of it, all of them taken together.

    What nobody owes is given back first (credit, suspense), then what was paid on the invoice. What
    comes back pays the invoice as far as it is due then. Before a payment is booked, and after it
    was reversed as a whole, nothing moves.

    Args:
        payment: As it stands; `returned_minor` says what is settled already.
        invoice: The one it went to; None for money in suspense.
        returns: All that is known, each in its latest state.
    """
    if payment.status is not PaymentStatus.BOOKED:
        return Decision("noted")
    report, wanted = payment.report, given_back_minor(returns)
    bounded = min(wanted, report.amount_minor)
    decision = Decision("noted")
    if wanted > bounded:
        detail = {"brought": format_amount(report.amount_minor), "returned": format_amount(wanted)}
        decision.notes.append(Note(ExceptionCode.OVER_RETURNED, detail))
    moving = bounded - payment.returned_minor
    if moving == 0:
        return decision
    name = f"{report.provider}/{report.provider_payment_id}"
    clearing = account(AccountKind.CLEARING, report.provider)
    credit = credit_of(invoice.contributor_id) if invoice else None
    if moving > 0:
        moved = give_back(name, clearing, payment.postings, moving, credit)
    else:
        due_minor = invoice.due_minor if invoice else 0
        moved = restore(name, clearing, payment.postings, -moving, due_minor, credit)
    decision.outcome = "returned"
    decision.postings = moved.postings
    decision.allocated_minor = moved.allocated_minor
    payment.postings = [*payment.postings, *moved.postings]
    payment.returned_minor = bounded
    if invoice is not None:
        invoice.paid_minor += moved.allocated_minor
        if moved.beyond_minor:
            detail = {
                "reference": invoice.reference,
                "beyond": format_amount(moved.beyond_minor),
            }
            decision.notes.append(Note(_why_beyond(invoice, moved.allocated_minor), detail))
    return decision


def _before_a_failure(payment: PaymentState, report: PaymentReport) -> Decision:
    """Decide on what is dated before a failure that we heard of first."""
    if report.statement not in {Statement.COMPLETED, Statement.REVERSED}:
        return Decision("repeated")
    # Completed and then failed is taken back, whichever of the two was heard first.
    payment.status = PaymentStatus.REVERSED
    if other := _other_money(payment, report):
        return Decision("conflicting", notes=[_conflict(payment.report, report, other)])
    return Decision("noted")


def _after_early_reversal(
    payment: PaymentState, invoice: InvoiceState | None, report: PaymentReport, *, now: datetime
) -> Decision:
    """Decide on what is dated after a reversal of money that we have not heard of before."""
    other = _other_money(payment, report)
    note = _conflict(payment.report, report, other) if other else _contradiction(payment, report)
    if report.statement is Statement.COMPLETED:
        # The provider holds it, so it is booked; what was reversed before is for a person to ask.
        decision = _book(payment, invoice, report, now=now)
        decision.notes.append(note)
        return decision
    payment.report = report
    payment.stated_at = report.stated_at
    return Decision("conflicting", notes=[note]) if other else Decision("repeated")


def _after_reversal(payment: PaymentState, report: PaymentReport) -> Decision:
    """Decide on what is dated after a reversal of money that was booked.

    It does not come to life again by itself: it may only have been sent again with a new date.
    """
    if report.statement is not Statement.COMPLETED:
        return Decision("repeated")
    return Decision("conflicting", notes=[_contradiction(payment, report)])


def _contradiction(payment: PaymentState, report: PaymentReport) -> Note:
    detail = {
        "stands": {"status": payment.status.value, "stated_at": payment.stated_at.isoformat()},
        "reported": {
            "status": report.statement.value,
            "stated_at": report.stated_at.isoformat(),
            "source": report.source,
        },
    }
    return Note(ExceptionCode.CONFLICTING_PAYMENT, detail)


def _other_money(payment: PaymentState, theirs: PaymentReport) -> list[str]:
    """Return which facts about the money differ, however they are written.

    What is not said is no other reference: a provider tells of one payment by several events, and
    not each of them bears everything. Money that is booked to no reference is another matter: whose
    it is a person decides.
    """
    ours, booked = payment.report, payment.booked_at is not None
    pairs = {
        "amount": (ours.amount_minor, theirs.amount_minor),
        "currency": (ours.currency, theirs.currency),
        "reference": (_meant(ours), _meant(theirs)),
    }
    if not theirs.reference_given or not (ours.reference_given or booked):
        del pairs["reference"]
    return [what for what, (mine, other) in pairs.items() if mine != other]


def _meant(report: PaymentReport) -> str:
    return read_reference(report.reference_given) or report.reference_given


def _conflict(ours: PaymentReport, theirs: PaymentReport, what: list[str]) -> Note:
    def money(report: PaymentReport) -> dict[str, str | None]:
        return {
            "amount": format_amount(report.amount_minor),
            "reference": normalise_reference(report.reference_given),
            "source": report.source,
        }

    return Note(
        ExceptionCode.CONFLICTING_PAYMENT,
        {"differs": what, "stands": money(ours), "reported": money(theirs)},
    )


def _unknown_reference(report: PaymentReport) -> Note:
    # Twelve digits or nothing: what else stands where a reference should may be a person's name.
    detail = {
        "reference": normalise_reference(report.reference_given),
        "amount": format_amount(report.amount_minor),
        "verifies": read_reference(report.reference_given) is not None,
    }
    return Note(ExceptionCode.UNKNOWN_REFERENCE, detail)


def _credible_day(report: PaymentReport) -> tuple[datetime, Note | None]:
    """Return the instant to decide by: the provider's word, or our arrival if it is implausible."""
    earliest = report.received_at - PAID_AT_AGE_MAX
    latest = report.received_at + CLOCK_SKEW_MAX
    if report.paid_at is not None and earliest <= report.paid_at <= latest:
        return report.paid_at, None
    detail = {"paid_at": report.paid_at_given, "received_at": report.received_at.isoformat()}
    return report.received_at, Note(ExceptionCode.IMPLAUSIBLE_DATE, detail)
