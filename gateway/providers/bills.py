"""Bill hubs: aggregators and counters that ask what a bill says, take the money, and tell.

In the manner of those who pay bills of every kind (GePG, BBPS, Fatourati's canals); the messages
are our own. Four calls, each a POST of a JSON object with `Authorization: Bearer`: `inquiry`,
`confirm`, `cancel`, `status`. Every authentic, readable call is answered by 200, and `result` says
what came of it.

A confirm says whether the money is `held` already. What is held is booked whatever it is for; what
is not is taken only as the bill that was shown allows it, and as the books still ask for it. So the
two are kept apart (`held.…`, `confirm.…`): a hub that was declined and took the money all the same
says so under the same transaction id, and it is booked.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from gateway.collection.reports import (
    NotAboutMoney,
    PaymentReport,
    Refusal,
    Report,
    Unbookable,
)
from gateway.models import ExceptionCode, PaymentStatus
from gateway.providers.bills_wire import (
    INVALID,
    REFUSALS,
    UNBOOKABLE,
    Told,
    Unreadable,
    bill_object,
    declined,
    named,
    offer_of,
    payment_object,
    read_body,
    read_offer,
    reply,
    text,
)
from gateway.providers.calls import (
    AnswerNow,
    Bills,
    Call,
    Found,
    Reply,
    ShowBills,
    Taken,
    TakePayment,
    Trace,
    Traced,
    Verdict,
    Want,
)
from gateway.providers.standard_webhooks import SANDBOX_MARK
from gateway.references import read_reference
from gateway.wirejson import Number, UnreadableJson, read_json

RETRY_SECONDS: Final = 5
KEY_CHARACTERS_MIN: Final = 16
BILLS_MAX: Final = 50
_KEY: Final = re.compile(r"[!-~]{1,256}", re.ASCII)
_CNSS_NUMBER: Final = re.compile(r"[0-9]{9}", re.ASCII)
_OFFSET: Final = re.compile(r"[0-9]{1,6}", re.ASCII)
_CALLS: Final = ("inquiry", "confirm", "cancel", "status")


class BillsSettings(BaseModel):
    """Settings of the kind in the providers file."""

    model_config = ConfigDict(extra="forbid")

    api_keys: list[SecretStr] = Field(min_length=1)
    """What the hub sends as a bearer; several while one is rolled."""
    inquiry_minutes: int = Field(15, ge=1, le=24 * 60)
    """How long a bill that was shown can be paid as it was shown."""
    cancel_hours: int = Field(24, ge=0, le=24 * 45)
    """How long after its booking the hub may take a payment back by itself."""
    part_payments: bool = True
    """Whether its counters take parts of what is due: else every bill is `exact`."""

    @field_validator("api_keys")
    @classmethod
    def _keys(cls, api_keys: list[SecretStr]) -> list[SecretStr]:
        for key in api_keys:
            plain = key.get_secret_value()
            if len(plain) < KEY_CHARACTERS_MIN or not _KEY.fullmatch(plain):
                raise ValueError(
                    f"a key has {KEY_CHARACTERS_MIN} to 256 visible ASCII characters and no space"
                )
        return api_keys


def make(name: str, values: Mapping[str, Any], *, live: bool) -> BillHub:  # noqa: ARG001
    """Return a provider of these settings (see `registry.KINDS`)."""
    return BillHub(name, BillsSettings.model_validate(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry(ShowBills):
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirm(TakePayment):
    named: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(TakePayment):
    named: str | None


class BillHub:
    """An aggregator, or a network of counters: an AnsweringProvider."""

    prefix: Final = "bills"

    def __init__(self, name: str, settings: BillsSettings) -> None:
        self._name = name
        self._keys = [key.get_secret_value() for key in settings.api_keys]
        self._life = timedelta(minutes=settings.inquiry_minutes)
        self._cancel_within = timedelta(hours=settings.cancel_hours)
        self._part_payments = settings.part_payments

    @property
    def name(self) -> str:
        return self._name

    def unsafe_in_production(self) -> Sequence[str]:
        """Return which kinds of keys it holds that are no secrets."""
        found = []
        if any(key.startswith(SANDBOX_MARK.decode()) for key in self._keys):
            found.append("a key was made by a sandbox")
        if any(len(set(key)) < KEY_CHARACTERS_MIN // 2 for key in self._keys):
            found.append("a key can be guessed")
        return found

    # -- what a call wants ------------------------------------------------------------------------

    def read(self, call: Call) -> Want:
        """Return what a call wants (see AnsweringProvider)."""
        if not self._is_authentic(call.headers.get("authorization", "")):
            return AnswerNow(reply(declined("not_authentic"), 400), refused=True)
        if call.path not in _CALLS:
            return AnswerNow(reply(declined("unknown_call"), 404))
        if call.method != "POST":
            return AnswerNow(reply(declined("only_post"), 405))
        try:
            said = read_body(call.body)
        except UnreadableJson:
            return self._unreadable(call)
        except Unreadable as error:
            if call.path in {"confirm", "cancel"}:
                return self._wrong(call, str(error), None)
            return _invalid(str(error))
        match call.path:
            case "inquiry":
                return _inquiry(said, call.received_at)
            case "status":
                return _status(said)
            case "cancel":
                return self._cancel(call, said)
        return self._confirm(call, said)

    def _is_authentic(self, given: str) -> bool:
        scheme, _, key = given.partition(" ")
        shown = key.encode("utf-8", "surrogatepass")
        # Every key is tried, so that the time taken does not tell which one it was.
        found = [hmac.compare_digest(each.encode(), shown) for each in self._keys]
        return any(found) and scheme.lower() == "bearer"

    def _confirm(self, call: Call, said: Mapping[str, Any]) -> Want:
        held = said.get("held")
        payment_id = named(said)
        if not isinstance(held, bool):
            return self._wrong(call, "its held is not true or false", said)
        if payment_id is None:
            return self._wrong(call, "its transaction_id is absent, or not as it must be", said)
        delivery_id = f"{'held' if held else 'confirm'}.{payment_id}"
        report = Told(self._name, delivery_id, call.received_at).confirm(said)
        return Confirm(
            delivery_id=delivery_id,
            report=report,
            declinable=not held,
            path=call.path,
            refusal=None if held else self._refusal(report, said, call.received_at),
            wants_receipt=True,
            named=payment_id,
        )

    def _refusal(self, report: object, said: Mapping[str, Any], now: datetime) -> Refusal | None:
        """Say why what was shown does not allow a payment. What cannot be booked says so itself."""
        if not isinstance(report, PaymentReport):
            return None
        offer = read_offer(text(said, "inquiry_id"), self._name, self._keys)
        if offer is not None:
            return offer.refuses(report.amount_minor, report.reference_given, now)
        # A reference that is nobody's was never shown: the books say so.
        known = read_reference(report.reference_given) is not None
        return Refusal.UNKNOWN_INQUIRY if known else Refusal.UNKNOWN_REFERENCE

    def _cancel(self, call: Call, said: Mapping[str, Any]) -> Want:
        payment_id = named(said)
        if payment_id is None:
            return self._wrong(call, "its transaction_id is absent, or not as it must be", said)
        delivery_id = f"cancel.{payment_id}"
        return Cancel(
            delivery_id=delivery_id,
            report=Told(self._name, delivery_id, call.received_at).cancel(said),
            path=call.path,
            takes_back_within=self._cancel_within,
            named=payment_id,
        )

    def _wrong(self, call: Call, reason: str, said: Mapping[str, Any] | None) -> TakePayment:
        """Have a call kept that cannot be understood: if money may be held, a person looks."""
        delivery_id = f"invalid-{call.path}.{hashlib.sha256(call.body).hexdigest()}"
        told = Told(self._name, delivery_id, call.received_at)
        # Only a plain no says that a confirm holds nothing; a cancel never holds any.
        not_held = said is not None and said.get("held") is False
        return Confirm(
            delivery_id=delivery_id,
            report=told.unbookable(ExceptionCode.UNREADABLE_DELIVERY, reason, None),
            declinable=not_held or call.path != "confirm",
            path=call.path,
            named=None if said is None else named(said),
        )

    def _unreadable(self, call: Call) -> Want:
        """Answer bytes that are no JSON; those that may be about money are kept."""
        if call.path in {"inquiry", "status"}:
            return AnswerNow(reply(declined("unreadable"), 400))
        delivery_id = f"unreadable-{call.path}.{hashlib.sha256(call.body).hexdigest()}"
        told = Told(self._name, delivery_id, call.received_at)
        reason = "the body is not JSON in UTF-8"
        return Unread(
            delivery_id=delivery_id,
            report=told.unbookable(ExceptionCode.UNREADABLE_DELIVERY, reason, None),
            declinable=False,
            path=call.path,
        )

    # -- what came of it --------------------------------------------------------------------------

    def say(self, want: Want, found: Found) -> Reply:
        """Return what the sender is told (see AnsweringProvider)."""
        match want, found:
            case Inquiry(), Bills():
                return self._say_bills(want, found)
            case Confirm(), Taken():
                return reply(_taken(want, found, want.named))
            case Cancel(), Taken():
                return reply(_cancelled(want, found))
            case Unread(), Taken():
                return reply({"result": "quarantined", "code": "unreadable"}, 400)
            case Trace(), Traced():
                return reply(_traced(want, found))
        raise AssertionError("what was found is not what was wanted")

    def _say_bills(self, want: Inquiry, found: Bills) -> Reply:
        if not found.known:
            unknown = "unknown_contributor" if want.cnss_number else "unknown_reference"
            return reply(declined(unknown))
        said = []
        for bill in found.bills:
            offer = offer_of(bill, now=want.at, life=self._life, part_payments=self._part_payments)
            inquiry_id = None if offer is None else offer.id(self._name, self._keys[0])
            said.append(bill_object(bill, offer, inquiry_id))
        return reply({"result": "bills", "available": found.available, "bills": said})

    def say_again(self, first: Reply, *, same: bool) -> Reply:
        """Return the first answer, byte for byte; to other content, that the first stands."""
        if same:
            return first
        said = {"result": "conflicting", "code": "conflicting_transaction"}
        return reply({**said, "first": read_answer(first.body)})

    def say_trouble(self) -> Reply:
        """Return that nothing was taken, and when to come again."""
        busy = reply({"result": "unavailable", "code": "try_again"}, 503)
        return replace(busy, headers={"Retry-After": str(RETRY_SECONDS)})

    def say_unread(self, status: int) -> Reply:
        """Return that the body was not taken."""
        return reply(declined("body_not_taken"), status)

    # -- what is kept -----------------------------------------------------------------------------

    def parse(
        self, body: bytes, *, delivery_id: str, received_at: datetime, path: str = ""
    ) -> Report:
        """Read a kept call again; its address says which one."""
        if path not in {"confirm", "cancel"}:
            return NotAboutMoney("neither a confirm nor a cancel")
        told = Told(self._name, delivery_id, received_at)
        try:
            said = read_body(body)
        except (UnreadableJson, Unreadable) as error:
            return told.unbookable(ExceptionCode.UNREADABLE_DELIVERY, str(error), None)
        if path == "cancel":
            return told.cancel(said)
        if not isinstance(said.get("held"), bool):
            reason = "its held is not true or false"
            return told.unbookable(ExceptionCode.UNREADABLE_DELIVERY, reason, None)
        return told.confirm(said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread(TakePayment):
    """Bytes that are no JSON."""


def _invalid(reason: str) -> AnswerNow:
    return AnswerNow(reply({**declined(INVALID), "reason": reason}))


def _inquiry(said: Mapping[str, Any], at: datetime) -> Want:
    reference, cnss_number = text(said, "reference"), text(said, "cnss_number")
    if (reference is None) == (cnss_number is None):
        return _invalid("it names neither a reference nor a cnss_number, or both")
    if cnss_number is not None and not _CNSS_NUMBER.fullmatch(cnss_number):
        return _invalid("its cnss_number is not nine digits")
    offset = said.get("offset", Number("0"))
    if not isinstance(offset, Number) or not _OFFSET.fullmatch(offset):
        return _invalid("its offset is not a whole number below 1 000 000")
    return Inquiry(
        at=at,
        reference_given=reference or "",
        cnss_number=cnss_number or "",
        limit=BILLS_MAX,
        offset=int(offset),
    )


def _status(said: Mapping[str, Any]) -> Want:
    payment_id = named(said)
    if payment_id is None:
        return _invalid("its transaction_id is absent, or not as it must be")
    return Trace(payment_id, tuple(f"{call}.{payment_id}" for call in _KEPT))


_KEPT: Final = ("confirm", "held", "cancel")


def _taken(want: TakePayment, taken: Taken, transaction_id: str | None) -> dict[str, Any]:
    """Return what came of a confirm. Beside «booked», `code` says what a person will look at."""
    said: dict[str, Any] = {"result": str(taken.verdict), "code": _code(want, taken)}
    payment = taken.payment
    if taken.verdict is Verdict.NOTED:
        # Taken back before it came: it is not in the books, and does not get there.
        gone = payment is not None and payment.status is PaymentStatus.REVERSED
        said = {"result": "cancelled" if gone else "noted", "code": None}
    if payment is not None:
        return said | payment_object(payment)
    return said | {"transaction_id": transaction_id}


def _cancelled(want: Cancel, taken: Taken) -> dict[str, Any]:
    """Return what came of a cancel."""
    if taken.verdict is Verdict.NOTED and taken.payment is not None:
        return {"result": "cancelled", "code": None} | payment_object(taken.payment)
    return _taken(want, taken, want.named)


def _code(want: TakePayment, taken: Taken) -> str | None:
    if taken.refusal is not None:
        return REFUSALS[taken.refusal]
    if taken.verdict is Verdict.CONFLICTING:
        return "conflicting_transaction"
    if taken.verdict is Verdict.BOOKED:
        return taken.asked_about[-1].value if taken.asked_about else None
    if isinstance(want.report, Unbookable):
        return UNBOOKABLE.get(want.report.code, INVALID)
    return None


def _traced(want: Trace, found: Traced) -> dict[str, Any]:
    """Return how a transaction stands, and what was answered to each call about it."""
    answers = {
        call: read_answer(found.answers[at].body) if at in found.answers else None
        for call, at in zip(_KEPT, want.delivery_ids, strict=True)
    }
    last = answers["held"] or answers["confirm"] or answers["cancel"]
    result = "unknown" if last is None else str(last["result"])
    if found.payment is not None:
        result = _STANDS.get(found.payment.status, result)
    return {
        "result": result,
        "transaction_id": want.provider_payment_id,
        "payment": None if found.payment is None else payment_object(found.payment),
        **answers,
    }


_STANDS: Final = {PaymentStatus.BOOKED: "booked", PaymentStatus.REVERSED: "cancelled"}


def read_answer(body: bytes) -> dict[str, Any]:
    """Return an answer of ours."""
    return dict(read_json(body))
