"""What refunds and disputes give back of a payment, taken together: pure decisions.

A provider speaks of refunds in two ways: each by its own id, and all of a payment's as one sum.
Either may be lost, late or out of order, so neither is added to the books as it comes. What is kept
is the latest of each; from all of them follows how much is given back, and the books are brought to
that. A payment never gives back more than it brought.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from gateway.accounts import PAYABLE, SUSPENSE, Posting, account
from gateway.allocation import to_quoted_invoice
from gateway.models import AccountKind, ReturnKind, ReturnState
from gateway.reports import ReturnReport

_RANK: Final = {ReturnState.ANNOUNCED: 0, ReturnState.GIVEN: 1, ReturnState.RESTORED: 2}


@dataclass(frozen=True, slots=True)
class Return:
    """The latest that is known of a refund, of a payment's sum of refunds, or of a dispute."""

    kind: ReturnKind
    return_id: str
    state: ReturnState
    amount_minor: int
    made_at: datetime
    stated_at: datetime
    outcome: str | None = None
    restored_at: datetime | None = None
    """The earliest instant at which it was said to have come back."""

    @property
    def is_open_dispute(self) -> bool:
        return self.kind is ReturnKind.DISPUTE and self.outcome is None


def hear(known: Return | None, report: ReturnReport) -> tuple[Return, bool]:
    """Return what is known after a report, and whether it contradicts what was known.

    A state follows the provider's own time, never arrival; at one instant the further one wins. An
    announcement says nothing against a movement. The amount of one refund or dispute is a fact:
    another amount under its id contradicts it, and the first stands. A dispute that has ended stays
    so.
    """
    said = Return(
        kind=report.kind,
        return_id=report.return_id,
        state=report.state,
        amount_minor=report.amount_minor,
        made_at=report.made_at,
        stated_at=report.stated_at,
        outcome=report.outcome,
        restored_at=report.stated_at if report.state is ReturnState.RESTORED else None,
    )
    if known is None:
        return said, False
    if report.kind is ReturnKind.REFUND_TOTAL:
        newer = (said.stated_at, said.amount_minor) > (known.stated_at, known.amount_minor)
        return (said if newer else known), False
    outcome = known.outcome or said.outcome
    newer = (said.stated_at, _RANK[said.state]) > (known.stated_at, _RANK[known.state])
    silent = said.state is ReturnState.ANNOUNCED
    if known.state is ReturnState.ANNOUNCED:
        newer, silent = not silent, False
    restored = [at for at in (known.restored_at, said.restored_at) if at is not None]
    heard = replace(known, outcome=outcome, restored_at=min(restored, default=None))
    if newer and not silent:
        heard = replace(heard, state=said.state, stated_at=said.stated_at)
    return heard, said.amount_minor != known.amount_minor


def given_back_minor(returns: Iterable[Return]) -> int:
    """Return how much is given back, in centimes: by refunds and by disputes, not yet bounded.

    A sum of refunds holds what was refunded before it was stated. Refunds made after it are added,
    those that failed after it, or at its very instant, are taken off. What is known by id is given
    back in any case.
    """
    found = list(returns)
    refunds = [r for r in found if r.kind is ReturnKind.REFUND]
    refunded = sum(r.amount_minor for r in refunds if r.state is ReturnState.GIVEN)
    for total in (r for r in found if r.kind is ReturnKind.REFUND_TOTAL):
        at = total.stated_at
        since = sum(
            r.amount_minor for r in refunds if r.state is ReturnState.GIVEN and r.made_at > at
        )
        failed = sum(
            r.amount_minor
            for r in refunds
            if r.state is ReturnState.RESTORED and r.made_at <= at <= (r.restored_at or at)
        )
        refunded = max(refunded, total.amount_minor + since - failed)
    disputed = sum(
        r.amount_minor
        for r in found
        if r.kind is ReturnKind.DISPUTE and r.state is ReturnState.GIVEN
    )
    return refunded + disputed


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the money of a booked payment lies, in centimes."""

    credit_minor: int
    payable_minor: int
    suspense_minor: int

    @property
    def total_minor(self) -> int:
        return self.credit_minor + self.payable_minor + self.suspense_minor


def where_it_lies(postings: Iterable[Posting]) -> Standing:
    """Return where the transfers of a payment that stand have left its money."""
    held = dict.fromkeys((AccountKind.CREDIT, AccountKind.PAYABLE, AccountKind.SUSPENSE), 0)
    for posting in postings:
        for code, sign in ((posting.credit, 1), (posting.debit, -1)):
            kind = AccountKind(code.partition(":")[0])
            if kind in held:
                held[kind] += sign * posting.amount_minor
    return Standing(*held.values())


@dataclass(frozen=True, slots=True)
class Moved:
    """What brings the books to what is given back."""

    postings: list[Posting]
    allocated_minor: int
    """Signed centimes to the invoice; negative gives back."""
    beyond_minor: int = 0
    """What came back and was not due any more: it is the payer's credit."""


def give_back(
    name: str, clearing: str, postings: list[Posting], amount_minor: int, credit: str | None
) -> Moved:
    """Return the transfers that give back a part of a payment: first of what nobody owes.

    Args:
        name: Of the payment's transfers: `provider/its id`.
        clearing: The provider's clearing account.
        postings: The payment's transfers that stand.
        amount_minor: How much, at most what is still there.
        credit: The payer's credit account; None for money in suspense.
    """
    held = where_it_lies(postings)
    assert 0 < amount_minor <= held.total_minor
    invoice_id = postings[0].invoice_id
    moved: list[Posting] = []
    left = amount_minor
    from_payable = 0
    for part, code, there in (
        ("suspense", SUSPENSE, held.suspense_minor),
        ("credit", credit, held.credit_minor),
        ("invoice", PAYABLE, held.payable_minor),
    ):
        taken = min(left, there)
        if taken:
            assert code is not None
            at = f"{name}/{part}/returned/{len(postings) + len(moved)}"
            moved.append(Posting(at, code, clearing, taken, invoice_id=invoice_id))
            left -= taken
            from_payable += taken if part == "invoice" else 0
    return Moved(moved, -from_payable)


def restore(
    name: str,
    clearing: str,
    postings: list[Posting],
    amount_minor: int,
    due_minor: int,
    credit: str | None,
) -> Moved:
    """Return the transfers that book what came back: to the invoice as far as it is due.

    Args:
        name: Of the payment's transfers.
        clearing: The provider's clearing account.
        postings: The payment's transfers that stand.
        amount_minor: How much came back.
        due_minor: What is due on its invoice.
        credit: The payer's credit account; None for money in suspense.
    """
    invoice_id = postings[0].invoice_id
    moved: list[Posting] = []

    def put(part: str, code: str, minor: int) -> None:
        if minor:
            at = f"{name}/{part}/restored/{len(postings) + len(moved)}"
            moved.append(Posting(at, clearing, code, minor, invoice_id=invoice_id))

    if credit is None:
        put("suspense", SUSPENSE, amount_minor)
        return Moved(moved, 0)
    taken, beyond = to_quoted_invoice(due_minor, amount_minor)
    put("invoice", PAYABLE, taken)
    put("credit", credit, beyond)
    return Moved(moved, taken, beyond)


def credit_of(contributor_id: int) -> str:
    """Return the account of a contributor's own money."""
    return account(AccountKind.CREDIT, contributor_id)
