"""What refunds and disputes give back of a payment, taken together: pure decisions.

A provider speaks of refunds in two ways: each by its own id, and all of a payment's as one sum.
Either may be lost, late or out of order, so neither is added to the books as it comes. What is kept
is the latest of each; from all of them follows how much is given back, and the books are brought to
that (gateway.collection.giving_back). Of what the institution paid back by hand no provider speaks:
it counts beside all that they say. A payment never gives back more than it brought.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from gateway.books.accounts import Posting
from gateway.books.kinds import GIVES_BACK, TransferKind, kind_of
from gateway.collection.reports import ReturnReport
from gateway.models import ReturnKind, ReturnState

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

    A state follows the provider's own time, never arrival; at one instant the further one wins. A
    sum of refunds without such a time never goes down: the smaller one is older, and came late. An
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
        if report.timed_by_arrival:
            newer = said.amount_minor > known.amount_minor
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


Parts = dict[TransferKind, int]
"""What is given back of a payment, in centimes, by the kind of transfer that gives it."""


def given_back_minor(returns: Iterable[Return]) -> int:
    """Return how much is given back, in centimes, all together and not yet bounded."""
    return sum(given_parts(returns).values())


def given_parts(returns: Iterable[Return]) -> Parts:
    """Return how much is given back by refunds, by hand and by disputes, not yet bounded.

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

    def given(kind: ReturnKind) -> int:
        return sum(r.amount_minor for r in found if r.kind is kind and r.state is ReturnState.GIVEN)

    return {
        TransferKind.REFUND: refunded,
        TransferKind.REFUND_BY_HAND: given(ReturnKind.BY_HAND),
        TransferKind.CHARGEBACK: given(ReturnKind.DISPUTE),
    }


def within(parts: Parts, most_minor: int) -> Parts:
    """Return what of the parts fits into what a payment brought: the later ones are cut off."""
    bounded = {}
    for kind in GIVES_BACK:
        bounded[kind] = min(parts[kind], most_minor)
        most_minor -= bounded[kind]
    return bounded


def booked_parts(postings: Iterable[Posting], payment: str, wanted: Parts) -> Parts:
    """Return what the transfers of a payment that stand have given back so far.

    Args:
        postings: All that stand.
        payment: `provider/provider's payment id`, which their names begin with.
        wanted: What is to be given back: decides what older transfers are taken for.
    """
    sums: dict[TransferKind, int] = {}
    for posting in postings:
        kind = kind_of(posting.name, payment)
        sums[kind] = sums.get(kind, 0) + posting.amount_minor
    return parts_of(sums, wanted)


def parts_of(sums: Mapping[TransferKind, int], wanted: Parts) -> Parts:
    """Return what transfers have given back, from their sums by kind.

    Older books did not tell refunds and disputes apart. Such a sum is taken for what moves least.
    """
    stands = {out: sums.get(out, 0) - sums.get(back, 0) for out, back in GIVES_BACK.items()}
    older = sums.get(TransferKind.RETURNED, 0) - sums.get(TransferKind.RESTORED, 0)
    disputed = max(0, wanted[TransferKind.CHARGEBACK] - stands[TransferKind.CHARGEBACK])
    stands[TransferKind.CHARGEBACK] += min(disputed, older)
    stands[TransferKind.REFUND] += older - min(disputed, older)
    return stands
