"""What a provider's delivery says about money, in our own words. Pure.

Adapters (gateway.providers) translate their dialect into one of these; booking decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from gateway.models import Channel, ExceptionCode, ReturnKind, ReturnState


class Statement(StrEnum):
    """What the provider says of a payment; an unknown word is `pending`."""

    PENDING = "pending"
    DECLINED = "declined"
    """One try failed, and what was announced with it. Money that came or comes stays untouched."""
    FAILED = "failed"
    """No money came, or what came is not held any more."""
    COMPLETED = "completed"
    REVERSED = "reversed"


class Terms(StrEnum):
    """Whether the money is held already, or is taken only if we say so: then it may be declined."""

    HELD = "held"
    """The provider has it, so it is booked whatever it is for."""
    UP_TO_DUE = "up_to_due"
    """Not taken yet: declined unless the reference is known and asks for at least so much."""
    ALL_DUE = "all_due"
    """Not taken yet: declined unless it is what the reference asks for, to the centime."""


class Refusal(StrEnum):
    """Why money that is not taken yet is declined."""

    UNKNOWN_REFERENCE = "unknown_reference"
    NOTHING_DUE = "nothing_due"
    MORE_THAN_DUE = "more_than_due"
    LESS_THAN_DUE = "less_than_due"
    CANCELLED = "cancelled"
    """The invoice was cancelled, or the reference for several withdrawn."""
    TAKEN_BACK = "taken_back"
    """The provider took the payment back before it made it."""
    TOO_LATE = "too_late"
    """It is too late for the provider to take a payment back by itself."""
    GIVEN_BACK = "given_back"
    """Some of it is refunded or disputed, or about to be: it cannot be taken back besides."""
    UNKNOWN_INQUIRY = "unknown_inquiry"
    """It names no bill that we showed, or another one than it pays."""
    EXPIRED_INQUIRY = "expired_inquiry"
    """It is about a bill that was shown too long ago."""


@dataclass(slots=True)
class PaymentReport:
    """A payment as a provider states it, with an amount that can be booked.

    Never changed once it is made. Not frozen, though: making one would take four times as long.
    """

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
    terms: Terms = Terms.HELD
    attempt_id: str | None = None
    """Our own id of the attempt by which the payer was sent to the provider, if it says one."""

    @property
    def key(self) -> tuple[str, str]:
        return (self.provider, self.provider_payment_id)


@dataclass(frozen=True, slots=True)
class ReturnReport:
    """Money of a payment that a provider gives back, has given back, or got back again."""

    provider: str
    provider_payment_id: str
    return_id: str
    """The provider's id of the refund or dispute; of the payment for a sum of refunds."""
    kind: ReturnKind
    state: ReturnState
    amount_minor: int
    """Centimes, at least 0: of this refund or dispute, or of all refunds so far."""
    currency: str
    made_at: datetime
    """The provider's time of the refund or dispute itself."""
    stated_at: datetime
    """The provider's own time of this statement."""
    received_at: datetime
    source: str
    outcome: str | None = None
    """How a dispute ended, in the provider's word; None while it is open."""
    detail: tuple[tuple[str, str], ...] = ()
    """What the person who decides about a dispute must know: reason, day to answer by. No name."""
    asked_as: str | None = None
    """Our own name of the refund, if we asked for it and the provider repeats it."""
    arrived: bool = False
    """Whether the provider says that a refund is with the payer's bank, and not only on its way."""
    timed_by_arrival: bool = False
    """Whether `stated_at` is only when it came: of two refund sums the larger one then holds."""

    @property
    def key(self) -> tuple[str, str]:
        return (self.provider, self.provider_payment_id)


@dataclass(frozen=True, slots=True)
class AttemptLapsed:
    """A page of the provider takes no payment any more, and none came by it."""

    provider: str
    session_id: str
    source: str


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


Report = PaymentReport | ReturnReport | AttemptLapsed | Unbookable | NotAboutMoney
