"""Calls whose sender waits for what we decide.

An adapter is two translations and nothing else: `read` says what a call wants, `say` puts what came
of it into the provider's words. Between the two, webhooks.answering does it, in one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Protocol, runtime_checkable

from gateway.collection.reports import PaymentReport, Refusal, Unbookable
from gateway.models import Channel, ExceptionCode, PaymentStatus
from gateway.providers import Provider


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it came, within bounds on its size."""

    method: str
    path: str
    """What follows the provider's name in the address, decoded, without slashes at its ends."""
    query: Mapping[str, str]
    """Of a name that is given twice, the last."""
    headers: Mapping[str, str]
    """By lower-case names."""
    body: bytes
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Reply:
    """What the sender is told."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


# -- what a call wants ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AnswerNow:
    """Nothing of the books: it is answered as it is."""

    reply: Reply
    refused: bool = False
    """Whether it is not authentic: then a counter is all that is kept."""


@dataclass(frozen=True, slots=True)
class ShowBills:
    """To see what is due."""

    reference_given: str = ""
    """One bill, of an invoice or of several together; or else all bills of a person:"""
    cnss_number: str = ""
    limit: int = 50
    offset: int = 0
    since: datetime | None = None
    """Of a person's bills, those issued at this instant or later."""
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ShowPayments:
    """To see what this provider told us of payments for a reference."""

    reference_given: str
    limit: int = 50
    offset: int = 0
    since: datetime | None = None
    """Those that we heard of at this instant or later."""
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class TakePayment:
    """To tell of a payment, done or about to be done, and to know what we make of it."""

    delivery_id: str
    report: PaymentReport | Unbookable
    page_id: str | None = None
    """The attempt's `session_id`, if the payment may come from a page of ours: what that page
    asked for is then what counts as the amount due."""
    declinable: bool = True
    """Whether the money is not taken yet, so that what cannot be booked is declined; what is held
    already is quarantined instead."""
    callback_url: str | None = None
    """Where the sender, who does not wait then, wants the outcome put. Only a CallingBackProvider
    may read one."""
    path: str | None = None
    """What of the call's path is kept, where the path itself may name a person; None: all of it."""
    refusal: Refusal | None = None
    """Why it is declined whatever the books say, if the money is not taken yet."""
    takes_back_within: timedelta | None = None
    """Of a payment that its sender takes back: how long after its booking he may. None: always."""
    wants_receipt: bool = False
    """Whether the answer bears the receipt's number, for a counter that prints at once."""


@dataclass(frozen=True, slots=True)
class Recall:
    """To hear again what was answered: by our ticket, or by the sender's own delivery id."""

    ticket: str = ""
    delivery_id: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """To know how a payment stands: what the books hold, and what was answered about it."""

    provider_payment_id: str
    delivery_ids: tuple[str, ...]
    """Of all calls that may have been about it."""


@dataclass(frozen=True, slots=True)
class Heed:
    """To have us ask the provider about an attempt. The word by itself proves nothing else."""

    delivery_id: str
    token: str
    """What the attempt was given to be known by."""


Want = AnswerNow | ShowBills | ShowPayments | TakePayment | Recall | Trace | Heed


# -- what came of it ------------------------------------------------------------------------------


class BillKind(StrEnum):
    """What a reference stands for."""

    INVOICE = "invoice"
    SELECTION = "selection"
    """Several invoices that are paid together."""
    PLAN = "plan"
    """An instalment plan."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What a reference asks for. No name: whoever calls has the reference or the number."""

    reference: str
    period: str
    """`2026-11`, `2026-Q4`, or empty for a reference of several invoices."""
    total_minor: int
    paid_minor: int
    due_minor: int
    """What paying today would settle; 0 where nothing is due."""
    due_on: date
    issued_at: datetime
    cancelled: bool
    kind: BillKind
    most_minor: int
    """The most that may be paid by it now; of a plan, all that it spreads."""
    initials: str = ""
    """Of who owes; empty where several do."""
    valid_until: date | None = None
    """The last day on which paying `due_minor` settles it; None where it does not grow."""


@dataclass(frozen=True, slots=True)
class Bills:
    bills: tuple[Bill, ...]
    available: int
    """How many there are in all."""
    known: bool = True
    """Whether the reference or the person is known at all."""


@dataclass(frozen=True, slots=True)
class KnownPayment:
    """A payment of this provider as our books have it."""

    provider_payment_id: str
    reference: str | None
    status: PaymentStatus
    amount_minor: int
    channel: Channel | None
    paid_at: datetime
    recorded_at: datetime
    booked_at: datetime | None
    receipt_number: str | None
    returned_minor: int = 0
    """What refunds and disputes gave back of it."""


@dataclass(frozen=True, slots=True)
class KnownPayments:
    payments: tuple[KnownPayment, ...]
    available: int
    known: bool = True


class Verdict(StrEnum):
    """What we make of a payment that we were told of."""

    BOOKED = "booked"
    """It is in the books, by this call or by an earlier one."""
    NOTED = "noted"
    """It is known, and is not money: announced, failed, declined by the payer's bank."""
    DECLINED = "declined"
    """It was not taken yet, and must not be: `refusal` or `unbookable` says why."""
    CONFLICTING = "conflicting"
    """It contradicts what the books hold under its name; a person looks."""
    QUARANTINED = "quarantined"
    """It is held and cannot be booked as it stands; a person looks."""


@dataclass(frozen=True, slots=True)
class Taken:
    verdict: Verdict
    ticket: str
    """By which the sender may ask for this answer again."""
    refusal: Refusal | None = None
    payment: KnownPayment | None = None
    asked_about: tuple[ExceptionCode, ...] = ()
    """What a person is asked about a payment that was held already."""


@dataclass(frozen=True, slots=True)
class Recalled:
    reply: Reply | None
    """As it was given; None if we gave none."""
    later: bytes | None = None
    """What we owed afterwards, sent or not, to a sender who did not wait for the outcome."""
    path: str = ""
    """Of the call that was answered."""


@dataclass(frozen=True, slots=True)
class Traced:
    payment: KnownPayment | None
    answers: Mapping[str, Reply]
    """By delivery id, of the calls that were answered."""


@dataclass(frozen=True, slots=True)
class Heeded:
    known: bool


Found = Bills | KnownPayments | Taken | Recalled | Traced | Heeded


@dataclass(frozen=True, slots=True)
class Callback:
    """What a sender who did not wait is told later."""

    method: str
    headers: Mapping[str, str]
    body: bytes


@runtime_checkable
class AnsweringProvider(Provider, Protocol):
    """What a provider whose sender waits must be able to do. Nothing optional."""

    @property
    def prefix(self) -> str:
        """How its addresses begin: `webhooks` for `POST /webhooks/{name}` and no other, or its own
        for all of `/{prefix}/{name}/…`."""
        ...

    def read(self, call: Call) -> Want:
        """Return what a call wants. Judges the raw bytes first, by the call's time.

        Raises nothing, whatever a stranger sends: what cannot be read is answered by AnswerNow.
        """
        ...

    def say(self, want: Want, found: Found) -> Reply:
        """Return what the sender is told of what came of it."""
        ...

    def say_again(self, first: Reply, *, same: bool) -> Reply:
        """Return what a sender is told who sends a delivery again.

        Args:
            first: What was answered to the first.
            same: Whether it is the first byte for byte, or `parse` reads the same money in both.
        """
        ...

    def say_trouble(self) -> Reply:
        """Return what the sender is told when we cannot decide now: nothing is taken or kept."""
        ...

    def say_unread(self, status: int) -> Reply:
        """Return what the sender is told whose body was not taken: nobody knows what it wanted.

        Args:
            status: 413 it is too large, 408 it did not come in time, 400 it was cut off.
        """
        ...


@runtime_checkable
class CallingBackProvider(AnsweringProvider, Protocol):
    """What a provider must be able to do besides whose calls may name where the outcome is put."""

    def say_later(self, want: TakePayment, taken: Taken, *, now: datetime) -> Callback:
        """Return what is put to the `callback_url` of a call that wanted it so."""
        ...
