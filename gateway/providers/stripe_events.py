"""What Stripe's snapshot events and objects say about money.

One payment is told of by several events, so its name here is its payment intent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from gateway.collection.reports import (
    AttemptLapsed,
    NotAboutMoney,
    PaymentReport,
    Report,
    ReturnReport,
    Statement,
    Unbookable,
)
from gateway.models import Channel, ExceptionCode, ReturnKind, ReturnState
from gateway.money import AMOUNT_MINOR_MAX, CURRENCY
from gateway.wirejson import Number, UnreadableJson, is_text, read_json

WINDOW: Final = timedelta(seconds=300)
REFUND_TOKEN: Final = "refund_token"  # noqa: S105 - no password
"""In what Stripe keeps beside a refund: our name of it."""
TEXT_MAX: Final = 256
_WORD = re.compile(r"[a-z_]{1,64}", re.ASCII)
_WHOLE = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


class Unreadable(Exception):
    """It is no event that can be understood. The text says why and holds nothing of a person."""


class _Unbookable(Exception):
    def __init__(self, code: ExceptionCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Told:
    """An object of Stripe's, told of by an event or in answer to a question."""

    provider: str
    kind: str
    what: Mapping[str, Any]
    stated_at: datetime
    received_at: datetime
    source: str

    def report(self) -> Report:
        """Return what it says. Raises nothing for any content."""
        try:
            return READERS[self.kind](self)
        except Unreadable as error:
            return unreadable(self.provider, self.source, str(error), self._statement())
        except _Unbookable as error:
            return self._unbookable(error.code, str(error))

    def of_other_mode(self, *, live: bool) -> Unbookable:
        """Return the same as what a person must look at: it is of the other mode."""
        told = "real money in a sandbox" if live else "a test event in production"
        return self._unbookable(
            ExceptionCode.WRONG_MODE, f"{told}: the webhook endpoint or its secret is of that mode"
        )

    def _unbookable(self, code: ExceptionCode, reason: str) -> Unbookable:
        names = ("amount", "amount_received", "amount_total", "amount_refunded", "currency")
        return Unbookable(
            provider=self.provider,
            provider_payment_id=self.payment_id(),
            statement=self._statement(),
            code=code,
            reason=reason,
            source=self.source,
            stated=tuple(str(self.what.get(name)) for name in names),
        )

    def _statement(self) -> Statement:
        return _STATEMENTS.get(self.kind, Statement.COMPLETED)

    def payment_id(self) -> str | None:
        """Return the payment's name: its intent, or its charge where it has no intent."""
        own = self.what.get("object")
        names = {"payment_intent": ("id",), "charge": ("payment_intent", "id")}
        for name in names.get(str(own), ("payment_intent", "charge")):
            value = self.what.get(name)
            # Asked to expand, Stripe gives the whole object in place of its id.
            named = text(value, "id") if isinstance(value, dict) else text(self.what, name)
            if named:
                return named
        return None

    def named(self) -> str:
        """Return the payment's name.

        Raises:
            Unreadable: It has none.
        """
        payment_id = self.payment_id()
        if payment_id is None:
            raise Unreadable("it names no payment_intent and no charge")
        return payment_id

    def metadata(self, name: str) -> str:
        """Return a text that we gave the object to keep, or an empty one."""
        kept = self.what.get("metadata")
        return (text(kept, name) if isinstance(kept, dict) else None) or ""

    def payment(self, statement: Statement, amount: object) -> PaymentReport:
        """Return what it says of a payment.

        Raises:
            Unreadable: It names no payment.
        """
        self._in_dirhams()
        reference = self.metadata("invoice_ref") or text(self.what, "client_reference_id") or ""
        return PaymentReport(
            provider=self.provider,
            provider_payment_id=self.named(),
            statement=statement,
            reference_given=reference,
            amount_minor=_centimes(amount, least=1),
            currency=CURRENCY,
            channel=Channel.CARD,
            paid_at=self.stated_at,
            paid_at_given=self.stated_at.isoformat(),
            stated_at=self.stated_at,
            received_at=self.received_at,
            source=self.source,
            attempt_id=self.metadata("attempt_id") or None,
        )

    def returned(
        self,
        kind: ReturnKind,
        state: ReturnState,
        *,
        amount: object,
        return_id: str | None,
        outcome: str | None = None,
        detail: tuple[tuple[str, str], ...] = (),
        arrived: bool = False,
    ) -> ReturnReport:
        """Return what it says of money that goes back.

        Raises:
            Unreadable: It names no payment, or not itself.
        """
        self._in_dirhams()
        if return_id is None:
            raise Unreadable("it has no id of its own")
        return ReturnReport(
            provider=self.provider,
            provider_payment_id=self.named(),
            return_id=return_id,
            kind=kind,
            state=state,
            amount_minor=_centimes(amount, least=0),
            currency=CURRENCY,
            made_at=min(stated(self.what.get("created"), self.stated_at), self.stated_at),
            stated_at=self.stated_at,
            received_at=self.received_at,
            source=self.source,
            outcome=outcome,
            detail=detail,
            asked_as=self.metadata(REFUND_TOKEN) or None,
            arrived=arrived,
        )

    def _in_dirhams(self) -> None:
        if self.what.get("currency") != CURRENCY.lower():
            raise _Unbookable(ExceptionCode.WRONG_CURRENCY, "the currency is not mad")


# -- a type of event each -------------------------------------------------------------------------

Reader = Callable[[Told], Report]


def _intent(statement: Statement) -> Reader:
    def read(told: Told) -> Report:
        what = told.what
        if statement is not Statement.COMPLETED:
            return told.payment(statement, what.get("amount"))
        if "amount_received" in what:
            return told.payment(statement, what["amount_received"])
        # Only stand-ins leave out what was received: all, if it succeeded.
        whole = what.get("amount") if what.get("status") == "succeeded" else None
        return told.payment(statement, whole)

    return read


def _session_completed(told: Told) -> Report:
    paid = told.what.get("payment_status")
    if told.payment_id() is None or paid == "no_payment_required":
        return NotAboutMoney("the page was finished without a payment")
    statement = Statement.COMPLETED if paid == "paid" else Statement.PENDING
    return told.payment(statement, told.what.get("amount_total"))


def _session(statement: Statement) -> Reader:
    return lambda told: told.payment(statement, told.what.get("amount_total"))


def _session_expired(told: Told) -> Report:
    session_id = text(told.what, "id")
    if session_id is None:
        raise Unreadable("the page that expired has no id")
    return AttemptLapsed(told.provider, session_id, told.source)


def _charge_refunded(told: Told) -> Report:
    return told.returned(
        ReturnKind.REFUND_TOTAL,
        ReturnState.GIVEN,
        amount=told.what.get("amount_refunded"),
        return_id=told.named(),
    )


def _refund(told: Told) -> Report:
    # None where it is no text: an older version says none.
    status = text(told.what, "status")
    if status in {"failed", "canceled"}:
        state = ReturnState.RESTORED
    elif status in {"succeeded", "pending", "requires_action", None}:
        # Stripe takes the money for a refund when it is made, not when it arrives.
        state = ReturnState.GIVEN
    else:
        state = ReturnState.ANNOUNCED
    return told.returned(
        ReturnKind.REFUND,
        state,
        amount=told.what.get("amount"),
        return_id=text(told.what, "id"),
        arrived=status == "succeeded",
    )


def _dispute(state: ReturnState) -> Reader:
    def read(told: Told) -> Report:
        reason = _word(told.what.get("reason"))
        evidence = told.what.get("evidence_details")
        due = seconds(evidence.get("due_by")) if isinstance(evidence, dict) else None
        outcome = None
        reached = state
        if told.kind.endswith(".closed"):
            outcome = _word(told.what.get("status")) or "closed"
            if outcome == "lost":
                reached = ReturnState.GIVEN
        return told.returned(
            ReturnKind.DISPUTE,
            reached,
            amount=told.what.get("amount"),
            return_id=text(told.what, "id"),
            outcome=outcome,
            detail=(
                *((("reason", reason),) if reason else ()),
                *((("answer_by", due.isoformat()),) if due else ()),
            ),
        )

    return read


READERS: Final[Mapping[str, Reader]] = {
    "payment_intent.succeeded": _intent(Statement.COMPLETED),
    "payment_intent.processing": _intent(Statement.PENDING),
    # Not the end of an intent: the payer may take another card on the same page, and what succeeds
    # later is later in Stripe's own time. It ends what was announced, and nothing more.
    "payment_intent.payment_failed": _intent(Statement.DECLINED),
    "payment_intent.canceled": _intent(Statement.DECLINED),
    "checkout.session.completed": _session_completed,
    "checkout.session.async_payment_succeeded": _session(Statement.COMPLETED),
    "checkout.session.async_payment_failed": _session(Statement.DECLINED),
    "checkout.session.expired": _session_expired,
    "charge.refunded": _charge_refunded,
    "charge.refund.updated": _refund,
    "refund.created": _refund,
    "refund.updated": _refund,
    "refund.failed": _refund,
    "charge.dispute.created": _dispute(ReturnState.ANNOUNCED),
    "charge.dispute.updated": _dispute(ReturnState.ANNOUNCED),
    "charge.dispute.funds_withdrawn": _dispute(ReturnState.GIVEN),
    "charge.dispute.funds_reinstated": _dispute(ReturnState.RESTORED),
    "charge.dispute.closed": _dispute(ReturnState.ANNOUNCED),
}

_STATEMENTS: Final = {
    "payment_intent.processing": Statement.PENDING,
    "payment_intent.payment_failed": Statement.DECLINED,
    "payment_intent.canceled": Statement.DECLINED,
    "checkout.session.async_payment_failed": Statement.DECLINED,
}
"""Of what cannot be booked; all else is about money that moved."""


def unreadable(
    provider: str, source: str, reason: str, statement: Statement = Statement.COMPLETED
) -> Unbookable:
    """Return what a person must look at because nothing of it can be understood."""
    return Unbookable(
        provider=provider,
        provider_payment_id=None,
        statement=statement,
        code=ExceptionCode.UNREADABLE_DELIVERY,
        reason=reason,
        source=source,
    )


# -- reading --------------------------------------------------------------------------------------


def read_event(body: bytes) -> dict[str, Any]:
    """Return a snapshot event.

    Raises:
        Unreadable: It is none.
    """
    try:
        event = object_of(read_json(body, keys_once=True), "the body")
    except UnreadableJson as error:
        raise Unreadable(str(error)) from None
    if event.get("object") == "v2.core.event":
        raise Unreadable(
            "it is a thin event (v2.core.event), which bears no amounts: set the payload style of"
            " the event destination to snapshot"
        )
    if event.get("object") != "event":
        raise Unreadable("its object is not event")
    if text(event, "type") is None:
        raise Unreadable("its type is absent or no text")
    return event


def object_of(value: object, what: str) -> dict[str, Any]:
    """Return a value that is an object.

    Raises:
        Unreadable: It is none.
    """
    if not isinstance(value, dict):
        raise Unreadable(f"{what} is not an object")
    return value


def text(values: Mapping[str, Any], name: str) -> str | None:
    """Return a text that the database can hold and that says something, or None."""
    value = values.get(name)
    return value if is_text(value) and 1 <= len(value) <= TEXT_MAX else None


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None


def _centimes(value: object, *, least: int) -> int:
    if not isinstance(value, Number) or not _WHOLE.fullmatch(value):
        raise _Unbookable(ExceptionCode.INVALID_AMOUNT, "the amount is not a whole number")
    if not least <= int(value) <= AMOUNT_MINOR_MAX:
        raise _Unbookable(ExceptionCode.INVALID_AMOUNT, "the amount is out of bounds")
    return int(value)


def seconds(value: object) -> datetime | None:
    """Return an instant of this century from whole Unix seconds, or None."""
    if not isinstance(value, Number) or not _WHOLE.fullmatch(value):
        return None
    since_1970 = int(value)
    if not 946_684_800 <= since_1970 < 4_102_444_800:
        return None
    return datetime.fromtimestamp(since_1970, UTC)


def stated(value: object, received_at: datetime) -> datetime:
    """Return Stripe's time of a statement; our own where it says none, or one far ahead.

    Within the window it is taken as it is, even if our clock is behind: all of Stripe's times are
    by one clock, and cut off at ours they would lose their order.
    """
    instant = seconds(value)
    if instant is None or instant > received_at + WINDOW:
        return received_at
    return instant
