"""What a report does to a payment and to the books: pure decisions.

The rules, in the order they are asked:
- The first money stands: a report of other money for a booked payment is `conflicting_payment`.
- States follow the provider's own time, never arrival: an older statement changes nothing. At one
  instant the further one wins (failed, completed, reversed).
- `pending`, and every word we do not know, says nothing: whatever is said beside it counts,
  so that a late «pending» cannot keep completed money out of the books.
- A reversal dated before the completion it would take back contradicts it, whichever came first:
  the money stays booked, and a person looks.
- Money that the provider holds is always booked: to the invoice, or the bundle of invoices, whose
  reference it quotes as far as it is needed there on the payer's day (see `placements`), beyond
  that to the payer's credit, without a known reference to suspense.
- A declined try ends an announcement and nothing else: it never takes back money, nor keeps it out.
- A failure stated after completion means the money is not held: it is taken back like a reversal,
  or never booked if the failure was heard first.
- Refunds and disputes give back a part, or all, and may come back again: the payment stays booked,
  and the books follow what all of them together come to (gateway.collection.giving_back).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from gateway.books.accounts import Posting
from gateway.clock import day_of
from gateway.collection.placements import (
    Allocated,
    BundleState,
    Entered,
    InvoiceState,
    Moved,
    PaymentState,
    Quoted,
    due_minor,
    enter,
    take_back,
    where_it_lies,
)
from gateway.collection.reports import PaymentReport, Refusal, Statement, Terms
from gateway.models import ExceptionCode, PaymentStatus
from gateway.money import format_amount
from gateway.references import normalise_reference, read_reference

# Cash may be reported days after it was taken; a payment dated further back would only serve to
# erase penalties. Wafacash and its like keep a transfer for 45 days.
PAID_AT_AGE_MAX: Final = timedelta(days=60)
CLOCK_SKEW_MAX: Final = timedelta(minutes=5)
_AHEAD_MAX: Final = -CLOCK_SKEW_MAX
BEFORE_ALL_ELSE: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER: Final = datetime.min.replace(tzinfo=UTC)

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
    """Of the payment itself."""
    allocations: list[Allocated] = field(default_factory=list)
    """Of the payment itself."""
    others: list[Moved] = field(default_factory=list)
    """What of other payments made room, or took the place of what was given back."""
    invoices: list[InvoiceState] = field(default_factory=list)
    """Those whose sums may have changed."""
    notes: list[Note] = field(default_factory=list)

    @property
    def allocated_minor(self) -> int:
        """Signed centimes of the payment to invoices; negative gives back."""
        return sum(each.amount_minor for each in self.allocations)

    def add(self, payment: PaymentState, moved: Iterable[Moved]) -> None:
        """Take in what became of payments' money on invoices."""
        for each in moved:
            self.invoices.append(each.invoice)
            if each.payment is payment:
                self.postings += each.postings
                self.allocations += each.allocations
                if each.off_minor:
                    self.notes.append(made_room(each))
            else:
                self.others.append(each)


def first_state(report: PaymentReport, *, now: datetime) -> PaymentState:
    """Return the state of a payment that is heard of for the first time: nothing stated yet."""
    return PaymentState(
        report=report,
        status=PaymentStatus.PENDING,
        stated_at=_NEVER,
        paid_at=_credible_day(report)[0],
        recorded_at=now,
    )


def refusal(quoted: Quoted | None, report: PaymentReport, *, now: datetime) -> Refusal | None:
    """Say why money that a provider has not taken yet is declined, or None: it is welcome.

    Args:
        quoted: What the report's reference asks to be paid, as it stands; None if it is nobody's.
        report: What the provider would take. Held money is never declined.
        now: The business clock. What was due on the payer's day counts, as far as it is due today:
            what was paid since by somebody else, of a later day, is not taken a second time.
    """
    if report.terms is Terms.HELD:
        return None
    if quoted is None:
        return Refusal.UNKNOWN_REFERENCE
    due = due_minor(quoted, day_of(_credible_day(report)[0]))
    most = min(due, due_minor(quoted, _today(now)))
    if most == 0:
        return Refusal.CANCELLED if _is_gone(quoted) else Refusal.NOTHING_DUE
    if report.amount_minor > most:
        return Refusal.MORE_THAN_DUE
    if report.amount_minor < due and report.terms is Terms.ALL_DUE:
        return Refusal.LESS_THAN_DUE
    return None


def decide(
    payment: PaymentState,
    quoted: Quoted | None,
    report: PaymentReport,
    *,
    invoices: Mapping[int, InvoiceState],
    now: datetime,
) -> Decision:
    """Decide what a report does, and bring the two states to what follows from it.

    Args:
        payment: The payment that the report is about, as it stands.
        quoted: For a payment in the books, the invoice or bundle that it quoted; else the one whose
            reference the report quotes; None if there is none.
        report: What the provider says.
        invoices: By id: at least those where the payment's money lies, and the one that it quoted.
        now: The business clock.
    """
    report = _with_what_is_known(payment, report)
    if report.statement is Statement.DECLINED:
        return _decline(payment, report)
    newer = _outranks(report, payment)
    if newer and payment.booked_at is None and payment.status is PaymentStatus.REVERSED:
        return _after_early_reversal(payment, quoted, report, now=now)
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
            return _book(payment, quoted, report, now=now)
        case Statement.REVERSED:
            return _take_back(payment, report, invoices, now=now)
        case Statement.FAILED if payment.status is PaymentStatus.BOOKED:
            return _take_back(payment, report, invoices, now=now)
        case statement:
            payment.report = report
            payment.stated_at = report.stated_at
            payment.paid_at = _credible_day(report)[0]
            payment.status = PaymentStatus(statement.value)
            # So that the payer who looks is told that money is on its way.
            _quote(payment, quoted)
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


def _quote(payment: PaymentState, quoted: Quoted | None) -> None:
    """Keep what a payment is for."""
    payment.invoice_id = quoted.id if isinstance(quoted, InvoiceState) else None
    payment.bundle_id = quoted.id if isinstance(quoted, BundleState) else None
    payment.beyond = quoted.beyond if isinstance(quoted, BundleState) else None


def _book(
    payment: PaymentState, quoted: Quoted | None, report: PaymentReport, *, now: datetime
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
    _quote(payment, quoted)
    decision = Decision("booked", notes=[implausible] if implausible else [])
    entered = enter(payment, quoted, report.amount_minor, _today(now))
    take_in(decision, payment, quoted, entered)
    return decision


_today: Final = lru_cache(maxsize=8)(day_of)
"""The business clock's day: of a batch, always the same."""


def take_in(
    decision: Decision, payment: PaymentState, quoted: Quoted | None, entered: Entered
) -> None:
    """Say what follows from money that came in."""
    decision.add(payment, entered.own)
    decision.add(payment, entered.others)
    decision.postings += entered.beyond
    if quoted is None:
        # Asked again, too, where it comes back: what was asked is closed once all is given back.
        decision.notes.append(_unknown_reference(payment.report))
    elif entered.beyond_minor:
        detail = {"reference": quoted.reference, "beyond": format_amount(entered.beyond_minor)}
        pays = bool(entered.taken_minor or where_it_lies(payment.postings).payable)
        decision.notes.append(Note(_why_beyond(quoted, pays=pays), detail))


def _why_beyond(quoted: Quoted, *, pays: bool) -> ExceptionCode:
    if _is_gone(quoted):
        return ExceptionCode.PAID_CANCELLED
    return ExceptionCode.OVERPAID if pays else ExceptionCode.PAID_TWICE


def _is_gone(quoted: Quoted) -> bool:
    return quoted.withdrawn if isinstance(quoted, BundleState) else quoted.bill.cancelled


def made_room(moved: Moved) -> Note:
    """Return what a person must know of money that another payment of an earlier day replaced."""
    code = ExceptionCode.OVERPAID if moved.after_minor else ExceptionCode.PAID_TWICE
    detail = {"reference": moved.invoice.reference, "beyond": format_amount(moved.off_minor)}
    return Note(code, detail)


def _take_back(
    payment: PaymentState,
    report: PaymentReport,
    invoices: Mapping[int, InvoiceState],
    *,
    now: datetime,
) -> Decision:
    decision = Decision("reversed")
    taken = take_back(payment, invoices, day_of(now))
    decision.postings += taken.postings
    decision.add(payment, taken.moved)
    if payment.booked_at is None:
        payment.report = report
    payment.status = PaymentStatus.REVERSED
    payment.stated_at = report.stated_at
    return decision


def over_returned(payment: PaymentState, returned_minor: int) -> Note:
    """Return what a person must know of a payment of which more goes back than it brought."""
    brought = format_amount(payment.report.amount_minor)
    detail = {"brought": brought, "returned": format_amount(returned_minor)}
    return Note(ExceptionCode.OVER_RETURNED, detail)


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
    payment: PaymentState, quoted: Quoted | None, report: PaymentReport, *, now: datetime
) -> Decision:
    """Decide on what is dated after a reversal of money that we have not heard of before."""
    other = _other_money(payment, report)
    note = _conflict(payment.report, report, other) if other else _contradiction(payment, report)
    if report.statement is Statement.COMPLETED:
        # The provider holds it, so it is booked; what was reversed before is for a person to ask.
        decision = _book(payment, quoted, report, now=now)
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
    paid_at = report.paid_at
    if paid_at is not None and _AHEAD_MAX <= report.received_at - paid_at <= PAID_AT_AGE_MAX:
        return paid_at, None
    detail = {"paid_at": report.paid_at_given, "received_at": report.received_at.isoformat()}
    return report.received_at, Note(ExceptionCode.IMPLAUSIBLE_DATE, detail)
