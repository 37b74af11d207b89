"""What a provider must be able to do that gives money back when we ask it to.

Optional, beside the protocols of `gateway.providers`: where a provider has no such call, finance
pays refunds out by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from gateway.collection.reports import ReturnReport


@dataclass(frozen=True, slots=True)
class WantedRefund:
    """What is to be given back. Equal wishes make one refund, however often made."""

    token: str
    """Ours, and the idempotency key: kept by the provider beside the refund, if it can, and
    repeated when it tells of it."""
    provider_payment_id: str
    amount_minor: int
    """Centimes: a part of the payment, or all of it."""


@runtime_checkable
class RefundingProvider(Protocol):
    """A provider that can be asked to give back a payment, or a part of it.

    Each call goes over the network, within seconds, and is made inside no transaction. What they
    return bears `asked_as`, our token.
    """

    @property
    def name(self) -> str:
        """The segment of its address, as in `/webhooks/{name}`."""
        ...

    def refund(self, wanted: WantedRefund, *, received_at: datetime) -> ReturnReport:
        """Give money back; return what was made of it.

        Raises:
            ProviderAway: Whether it was made is not known; the same wish may be asked again.
            ProviderRefused: It was not made, and asking the same again is of no use.
        """
        ...

    def find_refund(self, wanted: WantedRefund, *, received_at: datetime) -> ReturnReport | None:
        """Return what was made of an earlier wish, or None if nothing was.

        Asked before a wish is repeated: keys are kept for a day only.

        Raises:
            ProviderAway: It does not say; ask again.
        """
        ...


def refunding(providers: Mapping[str, object]) -> dict[str, RefundingProvider]:
    """Return the providers that give money back when asked to, by name."""
    return {name: p for name, p in providers.items() if isinstance(p, RefundingProvider)}
