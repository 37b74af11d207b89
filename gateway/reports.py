"""What a provider's delivery says about money, in our own words. Pure.

Adapters (gateway.providers) translate their dialect into one of the three; booking decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from gateway.models import Channel, ExceptionCode


class Statement(StrEnum):
    """What the provider says of a payment; an unknown word is `pending`."""

    PENDING = "pending"
    FAILED = "failed"
    COMPLETED = "completed"
    REVERSED = "reversed"


@dataclass(frozen=True, slots=True)
class PaymentReport:
    """A payment as a provider states it, with an amount that can be booked."""

    provider: str
    provider_payment_id: str
    statement: Statement
    reference_given: str
    amount_minor: int
    """Centimes, positive, at most AMOUNT_MINOR_MAX."""
    currency: str
    channel: Channel | None
    paid_at: datetime | None
    """The provider's word; None if it gave none that can be read."""
    paid_at_given: str | None
    """The same as written, if it looks like an instant at all: for the person who decides."""
    stated_at: datetime
    """The provider's own time of this statement."""
    received_at: datetime
    source: str
    agent_id: str | None = None
    terminal_id: str | None = None
    fee_minor: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        return (self.provider, self.provider_payment_id)


@dataclass(frozen=True, slots=True)
class Unbookable:
    """A statement about money that cannot be booked as it stands; a person must look."""

    provider: str
    provider_payment_id: str | None
    statement: Statement
    code: ExceptionCode
    reason: str
    source: str
    stated: tuple[str, ...] = ()
    """Its money as written, to tell two of them apart; never shown."""

    @property
    def key(self) -> tuple[str, str] | None:
        if self.provider_payment_id is None:
            return None
        return (self.provider, self.provider_payment_id)


@dataclass(frozen=True, slots=True)
class NotAboutMoney:
    """An event that moves nothing: kept, and otherwise ignored."""

    why: str


Report = PaymentReport | Unbookable | NotAboutMoney
