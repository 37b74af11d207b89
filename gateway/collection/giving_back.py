"""What refunds and disputes do to a payment and to the books: a pure decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from gateway.books.accounts import PAID_OUT, SUSPENSE, Posting
from gateway.books.kinds import GIVES_BACK, TransferKind
from gateway.clock import day_of
from gateway.collection.booking import Decision, over_returned, take_in
from gateway.collection.placements import InvoiceState, PaymentState, Quoted, enter, give_back
from gateway.collection.returns import Return, booked_parts, given_parts, within
from gateway.models import PaymentStatus


def settle_returns(
    payment: PaymentState,
    quoted: Quoted | None,
    returns: Iterable[Return],
    *,
    invoices: Mapping[int, InvoiceState],
    now: datetime,
) -> Decision:
    """Bring a payment to what refunds and disputes give back of it, all of them taken together.

    What nobody owes is given back first (suspense, credit), then what pays the newest debt. What
    comes back pays what the payment quoted as far as it is needed then. Refunds, those by hand and
    disputes move by transfers of their own kinds; what comes back moves first, so that what goes
    is there. Before a payment is booked nothing moves. After it was reversed as a whole only what
    the institution paid out by hand does: the transfer is gone all the same, and as nothing of the
    payment is left to cover it, it stands in suspense as a claim, a debit.

    Args:
        payment: As it stands; `returned_minor` says what is settled already.
        quoted: The invoice or bundle that it quoted; None for money in suspense.
        returns: All that is known, each in its latest state.
        invoices: By id: at least those where its money lies, and the one that it quoted.
        now: The business clock.
    """
    decision, said = Decision("noted"), given_parts(returns)
    brought = payment.report.amount_minor
    if payment.status is not PaymentStatus.BOOKED:
        by_hand = said[TransferKind.REFUND_BY_HAND]
        if payment.status is PaymentStatus.REVERSED:
            if by_hand:
                decision.notes.append(over_returned(payment, brought + by_hand))
            decision.postings += _claim(payment, by_hand)
        return decision
    wanted = within(said, brought)
    if said != wanted:
        decision.notes.append(over_returned(payment, sum(said.values())))
    stands = booked_parts(payment.postings, payment.name, wanted)
    changes = {kind: wanted[kind] - stands[kind] for kind in GIVES_BACK if wanted != stands}
    for kind, change in changes.items():
        if change < 0:
            how, outside = GIVES_BACK[kind].value, _outside(kind)
            entered = enter(payment, quoted, -change, day_of(now), how=how, outside=outside)
            decision.outcome = "returned"
            take_in(decision, payment, quoted, entered)
    for kind, change in changes.items():
        if change > 0:
            how, outside = kind.value, _outside(kind)
            given = give_back(payment, invoices, change, day_of(now), how=how, outside=outside)
            decision.outcome = "returned"
            decision.postings += given.postings
            decision.add(payment, given.moved)
    payment.returned_minor = sum(wanted.values())
    return decision


def _claim(payment: PaymentState, by_hand_minor: int) -> list[Posting]:
    """Bring a reversed payment's claim in suspense to what was paid out by hand, and return how."""
    kind = TransferKind.REFUND_BY_HAND
    stands = booked_parts(payment.postings, payment.name, dict.fromkeys(GIVES_BACK, 0))[kind]
    change = by_hand_minor - stands
    if not change:
        return []
    how, debit, credit = kind, SUSPENSE, PAID_OUT
    if change < 0:
        how, debit, credit = GIVES_BACK[kind], PAID_OUT, SUSPENSE
    # Not named as what lay in suspense before: those names are taken, and taken back.
    name = f"{payment.name}/claim/{how.value}/{len(payment.postings)}"
    posting = Posting(name, debit, credit, abs(change), invoice_id=payment.invoice_id)
    payment.postings.append(posting)
    return [posting]


def _outside(kind: TransferKind) -> str | None:
    """Return the account that money given back goes to, if it is not the provider's."""
    return PAID_OUT if kind is TransferKind.REFUND_BY_HAND else None
