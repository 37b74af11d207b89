"""The bill hub's messages: what is read of a call, and how it is said what came of it. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

from gateway.clock import INSTITUTION_ZONE
from gateway.collection.reports import PaymentReport, Refusal, Statement, Terms, Unbookable
from gateway.models import Channel, ExceptionCode
from gateway.money import CURRENCY, UnreadableAmount, format_amount, parse_amount
from gateway.providers.calls import Bill, BillKind, KnownPayment, Reply
from gateway.references import read_reference
from gateway.wirejson import UnreadableJson, is_text, read_json

TEXT_MAX: Final = 256
_NAME: Final = re.compile(r"[!-~]{1,64}", re.ASCII)
_INQUIRY: Final = re.compile(
    r"([0-9]{12})-([0-9]{10})-([0-9]{1,13})-([0-9]{1,13})-([0-9a-f]{32})", re.ASCII
)
_LIKE_AN_INSTANT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[0-9T :.+Z-]{0,25}", re.ASCII)

REFUSALS: Final[Mapping[Refusal, str]] = {
    Refusal.UNKNOWN_REFERENCE: "unknown_reference",
    Refusal.NOTHING_DUE: "nothing_due",
    Refusal.MORE_THAN_DUE: "amount_too_high",
    Refusal.LESS_THAN_DUE: "amount_too_low",
    Refusal.CANCELLED: "cancelled_invoice",
    Refusal.TAKEN_BACK: "cancelled_before",
    Refusal.TOO_LATE: "too_late",
    Refusal.GIVEN_BACK: "refunded",
    Refusal.UNKNOWN_INQUIRY: "unknown_inquiry",
    Refusal.EXPIRED_INQUIRY: "expired_inquiry",
}
"""What an aggregator acts on, by why we decline."""

UNBOOKABLE: Final[Mapping[ExceptionCode, str]] = {
    ExceptionCode.WRONG_CURRENCY: "wrong_currency",
    ExceptionCode.INVALID_AMOUNT: "invalid_amount",
}
INVALID: Final = "invalid_request"


class Unreadable(Exception):
    """A call lacks what it must say. The text says what, and holds nothing of a person."""


class NotBookable(Exception):
    def __init__(self, code: ExceptionCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


# -- reading --------------------------------------------------------------------------------------


def read_body(body: bytes) -> dict[str, Any]:
    """Return the object of a call.

    Raises:
        UnreadableJson: It is not JSON in UTF-8.
        Unreadable: It is JSON and no object, or says something twice.
    """
    read = read_json(body)
    if not isinstance(read, dict):
        raise Unreadable("the body is not an object")
    try:
        return dict(read_json(body, keys_once=True))
    except UnreadableJson:
        raise Unreadable("a field stands twice") from None


def text(said: Mapping[str, Any], name: str) -> str | None:
    """Return a text that the database can hold, or None."""
    value = said.get(name)
    return value if is_text(value) and 1 <= len(value) <= TEXT_MAX else None


def named(said: Mapping[str, Any]) -> str | None:
    """Return the hub's own id of a transaction, or None if it is none."""
    found = text(said, "transaction_id")
    return found if found is not None and _NAME.fullmatch(found) else None


def amount_minor(said: Mapping[str, Any]) -> int:
    """Return the centimes of an amount in dirhams.

    Raises:
        NotBookable: Another currency, or no positive amount with at most two decimals.
    """
    if said.get("currency") != CURRENCY:
        raise NotBookable(ExceptionCode.WRONG_CURRENCY, "the currency is not MAD")
    try:
        minor = parse_amount(text(said, "amount") or "")
    except UnreadableAmount as error:
        raise NotBookable(ExceptionCode.INVALID_AMOUNT, str(error)) from None
    if minor <= 0:
        raise NotBookable(ExceptionCode.INVALID_AMOUNT, "the amount is not positive")
    return minor


def instant(said: Mapping[str, Any], name: str) -> datetime | None:
    """Return an instant of this century in UTC; without an offset it would be a guess: None."""
    try:
        at = datetime.fromisoformat(text(said, name) or "")
    except ValueError:
        return None
    if at.tzinfo is None or not 2000 <= at.year < 2100:
        return None
    return at.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Told:
    """A confirm or a cancel of a provider, as it is kept."""

    provider: str
    delivery_id: str
    received_at: datetime

    def confirm(self, said: Mapping[str, Any]) -> PaymentReport | Unbookable:
        """Return the payment that a confirm tells of.

        Not taken yet, it is paid as we decide it; held, on the hub's own word.
        """
        held = said.get("held") is True
        given = text(said, "paid_at") or ""
        paid_at = instant(said, "paid_at") if held else self.received_at
        return self._report(
            said,
            statement=Statement.COMPLETED,
            paid_at=paid_at,
            paid_at_given=given if _LIKE_AN_INSTANT.fullmatch(given) else None,
            stated_at=min(paid_at or self.received_at, self.received_at),
            terms=Terms.HELD if held else Terms.UP_TO_DUE,
        )

    def cancel(self, said: Mapping[str, Any]) -> PaymentReport | Unbookable:
        """Return what takes a payment back. It is said when it arrives: a hub's clock that runs
        behind must not make it older than what it takes back."""
        return self._report(
            said,
            statement=Statement.REVERSED,
            paid_at=self.received_at,
            paid_at_given=None,
            stated_at=self.received_at,
            terms=Terms.HELD,
        )

    def unbookable(
        self, code: ExceptionCode, reason: str, said: Mapping[str, Any] | None
    ) -> Unbookable:
        """Return what is left of a call that cannot be booked as it stands."""
        return Unbookable(
            provider=self.provider,
            provider_payment_id=None if said is None else named(said),
            statement=Statement.COMPLETED,
            code=code,
            reason=reason,
            source=self.source,
            stated=tuple(
                repr((said or {}).get(name)) for name in ("amount", "currency", "reference")
            ),
        )

    @property
    def source(self) -> str:
        """Where the report comes from."""
        return f"delivery:{self.provider}/{self.delivery_id}"

    def _report(
        self,
        said: Mapping[str, Any],
        *,
        statement: Statement,
        paid_at: datetime | None,
        paid_at_given: str | None,
        stated_at: datetime,
        terms: Terms,
    ) -> PaymentReport | Unbookable:
        payment_id, reference = named(said), text(said, "reference")
        if payment_id is None or reference is None:
            what = "transaction_id" if payment_id is None else "reference"
            reason = f"its {what} is absent, or not as it must be"
            return self.unbookable(ExceptionCode.UNREADABLE_DELIVERY, reason, said)
        channel = text(said, "channel")
        try:
            return PaymentReport(
                provider=self.provider,
                provider_payment_id=payment_id,
                statement=statement,
                reference_given=reference,
                amount_minor=amount_minor(said),
                currency=CURRENCY,
                channel=Channel(channel) if channel in set(Channel) else None,
                paid_at=paid_at,
                paid_at_given=paid_at_given,
                stated_at=stated_at,
                received_at=self.received_at,
                source=self.source,
                agent_id=text(said, "agent_id"),
                terminal_id=text(said, "terminal_id"),
                fee_minor=_fee(said),
                terms=terms,
            )
        except NotBookable as error:
            return self.unbookable(error.code, str(error), said)


def _fee(said: Mapping[str, Any]) -> int | None:
    """Return a fee that can be read: it is the hub's own affair, and stops no booking."""
    try:
        fee = parse_amount(text(said, "fee") or "")
    except UnreadableAmount:
        return None
    return fee if fee > 0 else None


# -- inquiries ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Offer:
    """What a bill asked for when it was shown. Its id says all of it, so that nothing is stored."""

    reference: str
    expires_at: datetime
    least_minor: int
    most_minor: int

    @property
    def rule(self) -> str:
        """Which amounts it takes: `exact`, `at_least` or `up_to`."""
        if self.least_minor == self.most_minor:
            return "exact"
        return "up_to" if self.least_minor == 1 else "at_least"

    def id(self, provider: str, key: str) -> str:
        """Return the id by which a confirm names it."""
        plain = (
            f"{self.reference}-{int(self.expires_at.timestamp()):010d}"
            f"-{self.least_minor}-{self.most_minor}"
        )
        return f"{plain}-{_seal(plain, provider, key)}"

    def refuses(self, amount: int, reference: str, now: datetime) -> Refusal | None:
        """Say why an amount that is not taken yet does not fit what was shown, or None."""
        if read_reference(reference) != self.reference:
            return Refusal.UNKNOWN_INQUIRY
        if now > self.expires_at:
            return Refusal.EXPIRED_INQUIRY
        if amount > self.most_minor:
            return Refusal.MORE_THAN_DUE
        return Refusal.LESS_THAN_DUE if amount < self.least_minor else None


def offer_of(bill: Bill, *, now: datetime, life: timedelta, part_payments: bool) -> Offer | None:
    """Return what a bill asks for, or None where nothing is due.

    An invoice, and several that are paid together, take every part of what is due, and no more:
    `up_to`. A plan asks for the instalments that are due, and takes what comes after them too:
    `at_least`, since less keeps no instalment. Without part payments it is `exact` always.
    """
    if bill.cancelled or bill.due_minor == 0:
        return None
    expires_at = now + life
    if bill.valid_until is not None:
        # What is due grows at midnight: what was shown before does not settle it any more.
        midnight = datetime.combine(bill.valid_until + timedelta(days=1), time(), INSTITUTION_ZONE)
        expires_at = min(expires_at, midnight.astimezone(UTC))
    least = most = bill.due_minor
    if part_payments and bill.kind is BillKind.PLAN:
        most = max(bill.most_minor, bill.due_minor)
    elif part_payments:
        least = 1
    return Offer(bill.reference, expires_at, least, most)


def read_offer(given: str | None, provider: str, keys: Iterable[str]) -> Offer | None:
    """Return what an id of ours says, or None if it is none of ours."""
    found = _INQUIRY.fullmatch(given or "")
    if found is None:
        return None
    plain = found[0].rpartition("-")[0]
    seals = [hmac.compare_digest(_seal(plain, provider, key), found[5]) for key in keys]
    if not any(seals):
        return None
    expires_at = datetime.fromtimestamp(int(found[2]), UTC)
    return Offer(found[1], expires_at, int(found[3]), int(found[4]))


def _seal(plain: str, provider: str, key: str) -> str:
    said = f"inquiry|{provider}|{plain}".encode()
    return hmac.new(key.encode(), said, hashlib.sha256).hexdigest()[:32]


# -- what we say ----------------------------------------------------------------------------------


def reply(said: Mapping[str, Any], status: int = 200) -> Reply:
    """Return an answer."""
    return Reply(status, json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode())


def declined(code: str) -> dict[str, Any]:
    """Return that nothing was taken, and what the aggregator can act on."""
    return {"result": "declined", "code": code}


def written(at: datetime | None) -> str | None:
    """Return an instant in UTC, to the second."""
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def bill_object(bill: Bill, offer: Offer | None, inquiry_id: str | None) -> dict[str, Any]:
    """Return a bill: what it asks for, and of the person no more than initials."""
    status = "unpaid"
    if bill.cancelled:
        status = "cancelled"
    elif bill.due_minor == 0:
        status = "paid"
    elif bill.paid_minor:
        status = "part_paid"
    return {
        "inquiry_id": inquiry_id,
        "reference": bill.reference,
        "kind": bill.kind.value,
        "period": bill.period or None,
        "for": bill.initials or None,
        "status": status,
        "currency": CURRENCY,
        "amount_due": format_amount(bill.due_minor),
        "amount_rule": None if offer is None else offer.rule,
        "amount_min": None if offer is None else format_amount(offer.least_minor),
        "amount_max": None if offer is None else format_amount(offer.most_minor),
        "due_on": bill.due_on.isoformat(),
        "expires_at": None if offer is None else written(offer.expires_at),
    }


def payment_object(payment: KnownPayment) -> dict[str, Any]:
    """Return a payment as our books have it."""
    return {
        "transaction_id": payment.provider_payment_id,
        "reference": payment.reference,
        "amount": format_amount(payment.amount_minor),
        "currency": CURRENCY,
        "booked_at": written(payment.booked_at),
        "receipt_number": payment.receipt_number,
        "returned": format_amount(payment.returned_minor),
    }
