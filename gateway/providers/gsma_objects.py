"""GSMA Mobile Money API 1.2.0, bill payments: what is read of a payment, and what is said. Pure.

Names are the published ones, odd spellings included (`billdescription`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from gateway.collection.reports import PaymentReport, Refusal, Statement, Terms, Unbookable
from gateway.models import Channel, ExceptionCode, PaymentStatus
from gateway.money import AMOUNT_MINOR_MAX, CURRENCY
from gateway.providers.calls import Bill, KnownPayment
from gateway.providers.gsma_wire import TEXT_MAX, Wrong, instant
from gateway.wirejson import Number, UnreadableJson, is_text, read_json

_CURRENCY_CODE: Final = re.compile(r"[A-Z]{3}", re.ASCII)
_AMOUNT: Final = re.compile(r"(-?)(0|[1-9][0-9]{0,17})(?:\.([0-9]{1,2}))?", re.ASCII)
"""The published pattern forbids trailing zeros and allows four decimals. Here «172.50» is welcome,
as the published examples write it, and a third decimal is not."""

REFUSALS: Final[Mapping[Refusal | None, tuple[str, str]]] = {
    Refusal.UNKNOWN_REFERENCE: ("identifierError", "There is no such bill."),
    Refusal.NOTHING_DUE: ("overPaymentNotAllowed", "Nothing is due on this bill."),
    Refusal.MORE_THAN_DUE: ("overPaymentNotAllowed", "The amount is more than what is due."),
    Refusal.LESS_THAN_DUE: ("underPaymentNotAllowed", "The amount is less than what is due."),
    Refusal.CANCELLED: ("overPaymentNotAllowed", "Nothing is due on this bill."),
    Refusal.TAKEN_BACK: ("duplicateRequest", "This payment was taken back before."),
}


# -- payments told to us --------------------------------------------------------------------------


def read_body(body: bytes) -> dict[str, Any]:
    """Return the object of a request.

    Raises:
        UnreadableJson: It is not JSON in UTF-8.
        Wrong: It is JSON and no object, or says something twice.
    """
    read = read_json(body)
    if not isinstance(read, dict):
        raise Wrong("formatError", "The body is not an object.")
    try:
        return dict(read_json(body, keys_once=True))
    except UnreadableJson:
        raise Wrong("formatError", "A field stands twice in the body.") from None


def transaction_named(data: Mapping[str, Any]) -> str | None:
    """Return the sender's own reference of a transaction; None if it gives none.

    Raises:
        Wrong: It is no text, or too long.
    """
    given = data.get("requestingOrganisationTransactionReference")
    if given is None or given == "":
        return None
    what = "requestingOrganisationTransactionReference"
    if not is_text(given):
        raise Wrong("formatError", f"{what} is not a text.")
    if len(given) > TEXT_MAX:
        raise Wrong("lengthError", f"{what} has at most {TEXT_MAX} characters.")
    return str(given)


def amount_minor(given: object) -> int:
    """Return the centimes of an amount: positive, at most AMOUNT_MINOR_MAX.

    Raises:
        Wrong: It is absent, no decimal string, negative, nothing, or too much.
    """
    about = ExceptionCode.INVALID_AMOUNT
    if given is None:
        raise Wrong("mandatoryValueNotSupplied", "amountPaid is absent.", about)
    found = None
    if isinstance(given, str) and not isinstance(given, Number):
        found = _AMOUNT.fullmatch(given)
    if found is None:
        sentence = "amountPaid is not a decimal string with at most two decimals, as 172.5."
        raise Wrong("formatError", sentence, about)
    sign, whole, cents = found.groups()
    minor = int(whole) * 100 + int((cents or "0").ljust(2, "0"))
    if sign:
        raise Wrong("negativeValue", "amountPaid is negative.", about)
    if minor == 0:
        raise Wrong("lessThanTransactionMinValue", "amountPaid is zero.", about)
    if minor > AMOUNT_MINOR_MAX:
        raise Wrong("greaterThanTransactionMaxValue", "amountPaid is too large.", about)
    return minor


def _check_currency(given: object) -> None:
    about = ExceptionCode.WRONG_CURRENCY
    if given is None:
        raise Wrong("mandatoryValueNotSupplied", "currency is absent.", about)
    code = isinstance(given, str) and not isinstance(given, Number) and given
    if not code or not _CURRENCY_CODE.fullmatch(code):
        raise Wrong("formatError", "currency is not a code of three letters.", about)
    if code != CURRENCY:
        raise Wrong("currencyNotSupported", f"The currency is not {CURRENCY}.", about)


@dataclass(frozen=True, slots=True)
class Told:
    """A payment as a request tells of it: about to be done, if we say so."""

    provider: str
    delivery_id: str
    reference: str
    received_at: datetime

    def report(self, data: Mapping[str, Any]) -> PaymentReport:
        """Return the payment.

        It is paid when we take it: the money has not moved yet, so no day before counts.

        Raises:
            Wrong: It cannot be taken, whatever the books say.
        """
        named = transaction_named(data) or self.delivery_id
        _check_currency(data.get("currency"))
        return PaymentReport(
            provider=self.provider,
            provider_payment_id=named,
            statement=Statement.COMPLETED,
            reference_given=self.reference,
            amount_minor=amount_minor(data.get("amountPaid")),
            currency=CURRENCY,
            channel=Channel.WALLET,
            paid_at=self.received_at,
            paid_at_given=self.received_at.isoformat(),
            stated_at=self.received_at,
            received_at=self.received_at,
            source=self.source,
            terms=Terms.UP_TO_DUE,
        )

    def unbookable(self, wrong: Wrong, data: Mapping[str, Any] | None) -> Unbookable:
        """Return what is left of a request that cannot be taken."""
        given = data or {}
        try:
            named = transaction_named(given) or self.delivery_id
        except Wrong:
            named = None
        return Unbookable(
            provider=self.provider,
            provider_payment_id=named if data is not None else None,
            statement=Statement.COMPLETED,
            code=wrong.about,
            reason=str(wrong),
            source=self.source,
            stated=(
                *(repr(given.get(name)) for name in ("amountPaid", "currency")),
                self.reference,
            ),
        )

    @property
    def source(self) -> str:
        """Where the report comes from."""
        return f"delivery:{self.provider}/{self.delivery_id}"


# -- what we say ----------------------------------------------------------------------------------


def canonical_amount(minor: int) -> str:
    """Return centimes as the published pattern has it, without trailing zeros: `172.5`, `172`."""
    whole, cents = divmod(minor, 100)
    return f"{whole}.{cents:02d}".rstrip("0").rstrip(".")


def bill_object(bill: Bill) -> dict[str, Any]:
    """Return a bill. No name: whoever asks has the reference or the number.

    What it asks for is all that is due. Less is taken too: a bill may be paid in parts.
    """
    settled = bill.due_minor == 0
    partly = bill.paid_minor > 0
    return {
        "billReference": bill.reference,
        "billStatus": "paid" if settled else "partialpaid" if partly else "unpaid",
        "amountDue": canonical_amount(bill.due_minor),
        "minimumAmountDue": canonical_amount(bill.due_minor),
        "currency": CURRENCY,
        "billdescription": f"AMO {bill.period}".rstrip(),
        "dueDate": bill.due_on.isoformat(),
        "creationDate": instant(bill.issued_at),
    }


_WORDS: Final = {
    PaymentStatus.PENDING: "pending",
    PaymentStatus.FAILED: "failed",
    PaymentStatus.BOOKED: "completed",
    PaymentStatus.REVERSED: "reversed",
}


def payment_object(payment: KnownPayment) -> dict[str, Any]:
    """Return a bill payment as our books have it; with our reference once a receipt is issued.

    Nothing that the payer wrote is said back.
    """
    reference = payment.receipt_number
    return {
        "billPaymentStatus": _WORDS[payment.status],
        "currency": CURRENCY,
        "amountPaid": canonical_amount(payment.amount_minor),
        **({} if reference is None else {"serviceProviderPaymentReference": reference}),
        "requestingOrganisationTransactionReference": payment.provider_payment_id,
        "creationDate": instant(payment.recorded_at),
        "modificationDate": instant(payment.booked_at or payment.recorded_at),
    }
