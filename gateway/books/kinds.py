"""What kinds of transfers a payment has, and how the name of one says its kind. Pure.

A name is `provider/provider's payment id/` and what the transfer is for. One that gives money back,
or takes in again what was given back, ends with its kind and a number; one that takes back another
bears that one's name and `reversed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class TransferKind(StrEnum):
    """Why money moved."""

    RECEIVED = "received"
    """A provider reported it."""
    MOVED = "moved"
    """It pays another debt than before, or became credit."""
    REVERSAL = "reversal"
    """The provider took back the payment as a whole: the opposite of one transfer."""
    REFUND = "refund"
    """The provider gave it back to the payer."""
    REFUND_FAILED = "refund_failed"
    """And it came back."""
    REFUND_BY_HAND = "refund_by_hand"
    """The institution gave it back out of its own bank account."""
    REFUND_BY_HAND_FAILED = "refund_by_hand_failed"
    CHARGEBACK = "chargeback"
    """The payer's bank took it back."""
    CHARGEBACK_WON = "chargeback_won"
    """And it came back."""
    RETURNED = "returned"
    """Refunded or taken back in a dispute, posted before the books told these apart."""
    RESTORED = "restored"
    """The same that came back."""


GIVES_BACK: Final[Mapping[TransferKind, TransferKind]] = {
    TransferKind.REFUND: TransferKind.REFUND_FAILED,
    TransferKind.REFUND_BY_HAND: TransferKind.REFUND_BY_HAND_FAILED,
    TransferKind.CHARGEBACK: TransferKind.CHARGEBACK_WON,
}
"""The kinds that give money back, each with the one that takes it in again. In this order, where a
payment does not bring enough for all."""

_ENDS: Final = frozenset(
    [*GIVES_BACK, *GIVES_BACK.values(), TransferKind.RETURNED, TransferKind.RESTORED]
)
_REVERSED: Final = "reversed"


def kind_of(name: str, payment: str) -> TransferKind:
    """Return the kind of a payment's transfer.

    Args:
        name: The transfer's.
        payment: `provider/provider's payment id`, which its name begins with.
    """
    parts = name.removeprefix(f"{payment}/").split("/")
    if parts[-1] == _REVERSED:
        return TransferKind.REVERSAL
    if parts[0] == TransferKind.MOVED:
        return TransferKind.MOVED
    if len(parts) > 2 and parts[-2] in _ENDS:
        return TransferKind(parts[-2])
    return TransferKind.RECEIVED
