"""Book what providers say they collected or gave back: once, however often and in whatever order.

Works in batches: lock, read the state, decide (see `booking`), write what follows. A batch of one
is the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlmodel import Session

from gateway.books import ledger
from gateway.books.accounts import Posting
from gateway.books.seals import BooksKey
from gateway.collection.booking import (
    Decision,
    Note,
    decide,
    first_state,
    made_room,
    refusal,
)
from gateway.collection.giving_back import settle_returns
from gateway.collection.moves import (
    GIVEN_BACK,
    LOOSE_CODES,
    moved_happening,
    resolve_used_up,
    why_used_up,
)
from gateway.collection.payment_batch import Batch, lock_providers, read, read_once, write
from gateway.collection.placements import InvoiceState, Key, Moved, PaymentState, Quoted
from gateway.collection.refund_rows import Heard, hear_refunds
from gateway.collection.refund_stops import stop_not_covered
from gateway.collection.reports import (
    AttemptLapsed,
    NotAboutMoney,
    PaymentReport,
    Refusal,
    Report,
    ReturnReport,
    Statement,
    Terms,
    Unbookable,
)
from gateway.collection.returns import Return, given_back_minor, hear
from gateway.events import Happening, tell
from gateway.exception_queue import (
    Finding,
    open_exceptions,
    opened_events,
    resolve_exceptions,
    resolved_events,
)
from gateway.models import EventType, ExceptionCode, PaymentStatus, ReturnKind
from gateway.money import format_amount


def record_reports(
    session: Session,
    reports: Sequence[Report],
    *,
    key: BooksKey,
    now: datetime,
    decided: Callable[[Sequence[str]], None] | None = None,
) -> list[str]:
    """Book reports in the order given; return what each came to, one word each.

    booked, reversed, returned, noted, repeated, conflicting, quarantined (the code says why),
    ignored; or declined_ and the Refusal, of money that was not taken yet: nothing is kept of it.
    Money without a known reference goes to suspense, money beyond what is needed to the payer's
    credit, each with an exception: nothing that a provider holds stays out of the books. What other
    payments pay may change by it: who paid earlier comes first, whenever we hear of it.

    The caller owns the transaction. All reports of a provider are booked one after the other,
    whichever process they come to.

    Args:
        session: Whose transaction it is.
        reports: What is booked.
        key: Signs the books.
        now: The business clock.
        decided: Told what each came to before the end of the books is taken: from there to the
            commit nobody else can post, so what else is to be written is written here.
    """
    lock_providers(session, {r.provider for r in reports if not isinstance(r, NotAboutMoney)})
    batch = read(session, reports)
    outcomes = [_apply(batch, report, now=now) for report in reports]
    ids = write(session, batch, now=now)
    refunds = _bring_refunds(session, batch, ids, now=now)
    findings = [_about(f, at, ids) for at, f in batch.findings]
    opened = open_exceptions(session, [*findings, *refunds.findings], now=now)
    closed = [
        each
        for code, subject, because in (*batch.resolved, *refunds.resolved)
        for each in resolve_exceptions(session, code, [subject], because=because, now=now)
    ]
    closed += resolve_used_up(session, batch.used_up, now=now)
    if decided is not None:
        decided(outcomes)
    # Written out: `_replace` takes five times as long, and there is one for each payment.
    postings = [
        Posting(name, debit, credit, minor, ids[at], invoice_id, reverses)
        for at, (name, debit, credit, minor, _, invoice_id, reverses) in batch.postings
    ]
    unheard = {ids[at] for at, payment in batch.changed.items() if payment.id is None}
    ledger.post(session, postings, key=key, now=now, unheard=unheard)
    told = [Happening(h.type, h.data, h.invoice_id, ids[at]) for at, h in batch.told] + refunds.told
    tell(session, [*told, *opened_events(opened), *resolved_events(closed)], now=now)
    return outcomes


def _bring_refunds(
    session: Session, batch: Batch, ids: Mapping[Key, int], *, now: datetime
) -> Heard:
    """Bring refunds of ours to what their providers say, and stop what is not covered any more."""
    heard = Heard()
    if batch.refunds:
        said = [
            (each, batch.returns[each.key][each.provider, each.kind, each.return_id].state)
            for each in batch.refunds
        ]
        heard.add(hear_refunds(session, said, now=now))
    less = {report.key for report in batch.heard.values()}
    less |= {at for at, p in batch.changed.items() if p.status is PaymentStatus.REVERSED}
    less &= ids.keys()
    if less:
        heard.add(stop_not_covered(session, [ids[at] for at in less], now=now))
    return heard


def _apply(batch: Batch, report: Report, *, now: datetime) -> str:
    match report:
        case PaymentReport():
            return _record(batch, report, now=now)
        case NotAboutMoney():
            return "ignored"
        case Unbookable():
            return _quarantine(batch, report)
        case ReturnReport():
            return _return(batch, report, now=now)
        case AttemptLapsed():
            batch.attempts_lapsed.append((report.provider, report.session_id))
            return "noted"


def _record(batch: Batch, report: PaymentReport, *, now: datetime) -> str:
    at = report.key
    payment = batch.payments.get(at)
    if payment is None:
        payment = batch.payments[at] = first_state(report, now=now)
    quoted: Quoted | None
    if payment.booked_at is not None:
        quoted = batch.quoted_by(payment)
    else:
        # What an earlier report said of the reference holds where this one says nothing.
        given = report.reference_given or payment.report.reference_given
        quoted = batch.by_reference.get(read_once(given) or "")
        if quoted is None and not report.reference_given:
            quoted = batch.quoted_by(payment)
        payment.arrival = batch.debts.arrivals
    held = report.terms is Terms.HELD
    if not held and payment.booked_at is None and report.statement is Statement.COMPLETED:
        # Who takes a payment back before making it may not make it afterwards.
        gone = payment.status is PaymentStatus.REVERSED
        why = Refusal.TAKEN_BACK if gone else refusal(quoted, report, now=now)
        if why is not None:
            return f"declined_{why}"
    before = (payment.status, payment.stated_at)
    decision = decide(payment, quoted, report, invoices=batch.debts.invoices, now=now)
    if (payment.status, payment.stated_at) != before:
        batch.changed[at] = payment
    if decision.outcome == "booked":
        batch.debts.arrivals += 1
    _keep(batch, at, quoted, decision)
    conflicts = decision.outcome == "conflicting"
    if report.attempt_id and report.statement is Statement.COMPLETED and not conflicts:
        batch.attempts_paid[report.attempt_id] = at
    if decision.outcome == "booked" and at in batch.returns:
        because = "the payment was booked since"
        code = ExceptionCode.RETURN_WITHOUT_PAYMENT
        batch.resolved.append(
            (code, f"payment:{report.provider}/{report.provider_payment_id}", because)
        )
        _settle(batch, at, now=now)
    if decision.outcome == "reversed" and at in batch.returns:
        # What was paid out by hand does not come back with it.
        _settle(batch, at, now=now)
    return decision.outcome


def _return(batch: Batch, report: ReturnReport, *, now: datetime) -> str:
    """Keep what a provider says of a return, and bring the payment's books to it."""
    at = (report.provider, report.kind, report.return_id)
    owner = batch.return_owners.setdefault(at, report.key)
    if owner != report.key:
        return _of_another_payment(batch, report, owner)
    known = batch.returns.setdefault(report.key, {})
    before = known.get(at)
    heard, contradicts = hear(before, report)
    if heard != before:
        known[at] = heard
        batch.heard[at] = report
    if report.kind is ReturnKind.REFUND:
        batch.refunds.append(report)
    if report.kind is ReturnKind.DISPUTE and (before is None or before.is_open_dispute):
        _ask_about_dispute(batch, report, heard)
    subject = f"payment:{report.provider}/{report.provider_payment_id}"
    payment = batch.payments.get(report.key)
    if contradicts:
        detail = {
            "differs": ["amount"],
            "return": report.return_id,
            "stands": format_amount(heard.amount_minor),
            "reported": format_amount(report.amount_minor),
            "source": report.source,
        }
        finding = Finding(ExceptionCode.CONFLICTING_PAYMENT, subject, detail)
        batch.findings.append((None if payment is None else report.key, finding))
    if payment is None or payment.booked_at is None:
        if given_back_minor(known.values()):
            detail = {"return": report.return_id, "amount": format_amount(report.amount_minor)}
            finding = Finding(ExceptionCode.RETURN_WITHOUT_PAYMENT, subject, detail)
            batch.findings.append((None if payment is None else report.key, finding))
        outcome = "repeated" if heard == before else "noted"
    else:
        outcome = _settle(batch, report.key, now=now)
        outcome = "repeated" if outcome == "noted" and heard == before else outcome
    return "conflicting" if contradicts else outcome


def _of_another_payment(batch: Batch, report: ReturnReport, owner: Key) -> str:
    """Ask about a return whose id is of another payment: it moves nothing, on neither side."""
    detail = {
        "differs": ["payment"],
        "return": report.return_id,
        "stands": owner[1],
        "amount": format_amount(report.amount_minor),
        "source": report.source,
    }
    subject = f"payment:{report.provider}/{report.provider_payment_id}"
    at = report.key if report.key in batch.payments else None
    batch.findings.append((at, Finding(ExceptionCode.CONFLICTING_PAYMENT, subject, detail)))
    return "conflicting"


def _ask_about_dispute(batch: Batch, report: ReturnReport, heard: Return) -> None:
    """Have a person see a dispute while it is open, and no longer."""
    subject = f"dispute:{report.provider}/{report.return_id}"
    if heard.outcome is not None:
        because = f"the dispute ended: {heard.outcome}"
        batch.resolved.append((ExceptionCode.PAYMENT_DISPUTED, subject, because))
        return
    detail = {"amount": format_amount(heard.amount_minor), **dict(report.detail)}
    at = report.key if report.key in batch.payments else None
    batch.findings.append((at, Finding(ExceptionCode.PAYMENT_DISPUTED, subject, detail)))


def _settle(batch: Batch, at: Key, *, now: datetime) -> str:
    payment = batch.payments[at]
    quoted = batch.quoted_by(payment)
    returns = batch.returns[at].values()
    decision = settle_returns(payment, quoted, returns, invoices=batch.debts.invoices, now=now)
    if decision.outcome == "returned":
        batch.changed[at] = payment
    _keep(batch, at, quoted, decision)
    return decision.outcome


def _keep(batch: Batch, at: Key, quoted: Quoted | None, decision: Decision) -> None:
    for posting in decision.postings:
        batch.postings.append((at, posting))
    batch.allocations += decision.allocations
    for invoice in decision.invoices:
        batch.settled[invoice.id] = invoice
    if quoted is not None and decision.outcome == "booked":
        batch.receipts.append(at)
    for note in decision.notes:
        _find(batch, at, note)
    if decision.outcome in _GIVES_BACK and batch.payments[at].loose_minor <= 0:
        batch.used_up[at] = GIVEN_BACK
    if decision.outcome in _TOLD and decision.postings:
        batch.told.append((at, _happening(_TOLD[decision.outcome], batch.payments[at], quoted)))
    for moved in decision.others:
        _keep_moved(batch, moved)


def _keep_moved(batch: Batch, moved: Moved) -> None:
    """Keep what another payment's money had to make room for, or came back to."""
    at = moved.payment.key
    batch.postings.extend((at, posting) for posting in moved.postings)
    batch.allocations += moved.allocations
    if moved.off_minor:
        _find(batch, at, made_room(moved))
    elif moved.used_up:
        batch.used_up[at] = why_used_up(moved)
    if moved.postings:
        batch.told.append((at, moved_happening(moved)))


def _find(batch: Batch, at: Key, note: Note) -> None:
    batch.findings.append((at, Finding(note.code, f"payment:{at[0]}/{at[1]}", note.detail)))
    if note.code in LOOSE_CODES:
        # It has credit again, so that the person is still to decide.
        batch.used_up.pop(at, None)


_GIVES_BACK: Final = {"returned", "reversed"}
_TOLD: Final = {
    "booked": EventType.PAYMENT_BOOKED,
    "returned": EventType.PAYMENT_RETURNED,
    "reversed": EventType.PAYMENT_REVERSED,
}

_BOOKED: Final = Happening(EventType.PAYMENT_BOOKED, None)


def _happening(what: EventType, payment: PaymentState, quoted: Quoted | None) -> Happening:
    if what is EventType.PAYMENT_BOOKED:
        return _BOOKED
    report = payment.report
    data = {
        "provider": report.provider,
        "provider_payment_id": report.provider_payment_id,
        "reference": quoted.reference if quoted else None,
        "amount": format_amount(report.amount_minor),
        "returned": format_amount(payment.returned_minor),
        "currency": report.currency,
        "channel": report.channel.value if report.channel else None,
        "paid_at": payment.paid_at.isoformat(),
        "status": payment.status.value,
    }
    invoice_id = quoted.id if isinstance(quoted, InvoiceState) else None
    return Happening(what, data, invoice_id)


def _quarantine(batch: Batch, report: Unbookable) -> str:
    detail = {"reason": report.reason, "source": report.source}
    code, subject, at = report.code, report.source, None
    known = batch.payments.get(report.key) if report.key else None
    if report.key is not None:
        subject = f"payment:{report.key[0]}/{report.key[1]}"
    if known is not None and known.booked_at is not None:
        # The payment is in the books: what does not fit it is a conflict, whatever it is.
        code, at = ExceptionCode.CONFLICTING_PAYMENT, report.key
    elif report.statement in {Statement.PENDING, Statement.DECLINED, Statement.FAILED}:
        return "ignored"
    batch.findings.append((at, Finding(code, subject, detail)))
    return "conflicting" if code is ExceptionCode.CONFLICTING_PAYMENT else "quarantined"


def _about(finding: Finding, at: Key | None, ids: dict[Key, int]) -> Finding:
    return finding if at is None else replace(finding, payment_id=ids[at])
