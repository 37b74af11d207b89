"""GSMA Mobile Money API 1.2.0, bill payments: a wallet operator asks for bills and pays them.

We are the service provider, and the money is not taken yet: what may not be paid is declined, in
the published error objects. Who gives an `X-Callback-URL` does not wait: 202, and the outcome is
put there; everybody else gets it at once. Authenticity is the operator's key, `X-API-Key`;
`X-Content-Hash` only tells damage.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from gateway.collection.reports import NotAboutMoney, Report
from gateway.providers.calls import (
    AnswerNow,
    Bills,
    Call,
    Callback,
    Found,
    KnownPayment,
    KnownPayments,
    Recall,
    Recalled,
    Reply,
    ShowBills,
    ShowPayments,
    Taken,
    TakePayment,
    Verdict,
    Want,
)
from gateway.providers.gsma_objects import (
    REFUSALS,
    Told,
    bill_object,
    payment_object,
    read_body,
    transaction_named,
)
from gateway.providers.gsma_wire import (
    UUID,
    Address,
    NotAuthentic,
    Place,
    Wrong,
    as_json,
    instant,
    read_address,
    read_callback_url,
    read_page,
    reply,
    reply_list,
    status_of,
    whose_bills,
)
from gateway.providers.standard_webhooks import SANDBOX_MARK
from gateway.references import read_reference
from gateway.wirejson import UnreadableJson, read_json

POLL_LIMIT: Final = 10
RETRY_SECONDS: Final = 5
"""After which a call that we could not decide may come again."""
KEY_CHARACTERS_MIN: Final = 16
_KEY: Final = re.compile(r"[!-~]{1,256}", re.ASCII)


class GsmaSettings(BaseModel):
    """Settings of the kind in the providers file."""

    model_config = ConfigDict(extra="forbid")

    api_keys: list[SecretStr] = Field(min_length=1)
    """What the operator sends as `X-API-Key`; several while one is rolled."""

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


def make(name: str, values: Mapping[str, Any], *, live: bool) -> Gsma:
    """Return a provider of these settings (see `registry.KINDS`)."""
    return Gsma(name, GsmaSettings.model_validate(values), live=live)


# What a call wants, with its time: what is said of it is dated by that.


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedBills(ShowBills):
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedPayments(ShowPayments):
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedAgain(Recall):
    """A request's state, a response, or, of a ticket that nobody has, whether we are there."""

    at: datetime
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Pay(TakePayment):
    at: datetime
    wrong: Wrong | None = None
    """Why it cannot be taken, whatever the books say."""


class Gsma:
    """A wallet operator that speaks the Mobile Money API."""

    prefix: Final = "gsma"

    def __init__(self, name: str, settings: GsmaSettings, *, live: bool) -> None:
        self._name = name
        self._keys = [key.get_secret_value() for key in settings.api_keys]
        self._live = live

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
        try:
            self._authenticate(call)
            return self._read(call)
        except Wrong as wrong:
            refused = isinstance(wrong, NotAuthentic)
            return AnswerNow(wrong.reply(call.received_at), refused=refused)

    def _authenticate(self, call: Call) -> None:
        given = call.headers.get("x-api-key", "").encode("utf-8", "surrogatepass")
        # Every key is tried, so that the time taken does not tell which one it was.
        found = [hmac.compare_digest(key.encode(), given) for key in self._keys]
        if not any(found):
            raise NotAuthentic("clientAuthorisationError", "X-API-Key is absent, or not a key.")
        sent = call.headers.get("x-content-hash")
        if sent and sent.strip().lower() != hashlib.sha256(call.body).hexdigest():
            raise NotAuthentic(
                "formatError", "X-Content-Hash is not the SHA-256 of the body: it was changed."
            )

    def _read(self, call: Call) -> Want:
        if not all(c >= " " and not "\ud800" <= c <= "\udfff" for c in call.path):
            raise Wrong("identifierError", "There is no such resource.")
        address = read_address(call.path)
        if call.method == "POST":
            return self._pay(call, address)
        if call.method not in {"GET", "HEAD"}:
            raise Wrong("identifierError", "This resource is read by GET, and paid by POST.")
        return _asked(call, address)

    def _pay(self, call: Call, address: Address) -> Want:
        if address.place is Place.PAYMENTS_WITHOUT_REFERENCE:
            raise Wrong(
                "mandatoryValueNotSupplied",
                "Every bill has a reference here: pay by /bills/{billReference}/payments.",
            )
        if address.place is not Place.PAYMENTS:
            raise Wrong("identifierError", "This resource is read by GET.")
        # No more of the address is kept: an account may be somebody's telephone number.
        path = f"bills/{address.named}/payments"
        try:
            data = read_body(call.body)
        except UnreadableJson:
            return self._unreadable(call, address, path)
        except Wrong as wrong:
            told = self._told(call, address, self._delivery_id(call, path, {}))
            return Pay(
                at=call.received_at,
                delivery_id=told.delivery_id,
                report=told.unbookable(wrong, None),
                path=path,
                wrong=wrong,
            )
        told = self._told(call, address, self._delivery_id(call, path, data))
        callback_url = read_callback_url(call.headers.get("x-callback-url"), live=self._live)
        try:
            report = told.report(data)
        except Wrong as wrong:
            # The sender hears it now, with or without a callback: nothing had to be decided.
            return Pay(
                at=call.received_at,
                delivery_id=told.delivery_id,
                report=told.unbookable(wrong, data),
                path=path,
                wrong=wrong,
            )
        return Pay(
            at=call.received_at,
            delivery_id=told.delivery_id,
            report=report,
            callback_url=callback_url,
            path=path,
        )

    def _told(self, call: Call, address: Address, delivery_id: str) -> Told:
        return Told(self._name, delivery_id, address.named, call.received_at)

    def _delivery_id(self, call: Call, path: str, data: Mapping[str, Any]) -> str:
        """Return the `X-CorrelationID`; or one made of what was sent, if that names a transaction.

        Raises:
            Wrong: Nothing tells a payment that is sent again from a second one.
        """
        given = call.headers.get("x-correlationid")
        if given:
            if not UUID.fullmatch(given):
                raise Wrong("formatError", "X-CorrelationID is not a UUID.")
            return given.lower()
        if transaction_named(data) is None:
            raise Wrong(
                "mandatoryValueNotSupplied",
                "X-CorrelationID and requestingOrganisationTransactionReference are both absent:"
                " a payment sent again could not be told from a second one.",
            )
        digest = hashlib.sha256(f"{call.method} {path}\n".encode() + call.body).digest()
        return str(uuid.UUID(bytes=digest[:16]))

    def _unreadable(self, call: Call, address: Address, path: str) -> Pay:
        """Have bytes kept that are no JSON. They take no correlation id from what may follow."""
        wrong = Wrong("formatError", "The body is not JSON in UTF-8.")
        told = self._told(call, address, f"unreadable-{hashlib.sha256(call.body).hexdigest()}")
        return Pay(
            at=call.received_at,
            delivery_id=told.delivery_id,
            report=told.unbookable(wrong, None),
            declinable=False,
            path=path,
            wrong=wrong,
        )

    # -- what came of it --------------------------------------------------------------------------

    def say(self, want: Want, found: Found) -> Reply:
        """Return what the sender is told (see AnsweringProvider)."""
        match want, found:
            case AskedBills(), Bills():
                return _say_bills(want, found)
            case AskedPayments(), KnownPayments():
                if not found.known:
                    return Wrong("identifierError", "There is no such bill.").reply(want.at)
                said = [payment_object(each) for each in found.payments]
                return reply_list(said, found.available, want.at)
            case Pay(), Taken():
                return _say_taken(want, found)
            case AskedAgain(), Recalled():
                return _SAID[want.place](want, found)
        raise AssertionError("what was found is not what was wanted")

    def say_later(self, want: TakePayment, taken: Taken, *, now: datetime) -> Callback:
        """Return our PUT: the bill payment, or why there is none (see CallingBackProvider)."""
        outcome = _outcome(taken)
        said = outcome.as_object(now) if isinstance(outcome, Wrong) else payment_object(outcome)
        body = as_json(said)
        headers = {
            "Content-Type": "application/json",
            "X-CorrelationID": want.delivery_id,
            "X-Date": instant(now),
            "X-Content-Hash": hashlib.sha256(body).hexdigest(),
        }
        return Callback("PUT", headers, body)

    def say_again(self, first: Reply, *, same: bool) -> Reply:
        """Return the first answer; or, to something else under the same id, that it is taken."""
        if same:
            return first
        sentence = "Another request was made by this X-CorrelationID."
        return Wrong("duplicateRequest", sentence).reply(None)

    def say_trouble(self) -> Reply:
        """Return that we are unavailable."""
        wrong = Wrong("genericError", "Not available now: nothing was taken. Come again.")
        unavailable = wrong.reply(None)
        return replace(unavailable, headers={"Retry-After": str(RETRY_SECONDS)})

    def say_unread(self, status: int) -> Reply:
        """Return an error object, under the status of HTTP that fits."""
        wrong = _UNREAD.get(status, Wrong("formatError", "The body was cut off."))
        return reply(status, wrong.as_object(None), None)

    # -- what is kept -----------------------------------------------------------------------------

    def parse(
        self, body: bytes, *, delivery_id: str, received_at: datetime, path: str = ""
    ) -> Report:
        """Read a kept call again; its address says which bill."""
        try:
            address = read_address(path)
        except Wrong:
            address = None
        if address is None or address.place is not Place.PAYMENTS:
            return NotAboutMoney("its address is not of payments for a bill")
        told = Told(self._name, delivery_id, address.named, received_at)
        data = None
        try:
            data = read_body(body)
            return told.report(data)
        except UnreadableJson:
            return told.unbookable(Wrong("formatError", "The body is not JSON in UTF-8."), None)
        except Wrong as wrong:
            return told.unbookable(wrong, data)


_UNREAD: Final[Mapping[int, Wrong]] = {
    HTTPStatus.REQUEST_TIMEOUT: Wrong("genericError", "The body did not come in time."),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: Wrong("lengthError", "The body is too large."),
}


# -- questions ------------------------------------------------------------------------------------


def _asked(call: Call, address: Address) -> Want:
    at = call.received_at
    match address.place:
        case Place.HEARTBEAT:
            # Asking the database for a ticket that nobody has tells whether it is there.
            return AskedAgain(at=at, place=address.place, ticket=address.place.value)
        case Place.STATE:
            return AskedAgain(at=at, place=address.place, ticket=address.named.lower())
        case Place.RESPONSE:
            return AskedAgain(at=at, place=address.place, delivery_id=address.named.lower())
    page = read_page(call.query)
    if address.place is Place.BILLS:
        reference, cnss_number = whose_bills(address.account)
        return AskedBills(
            at=at,
            reference_given=reference,
            cnss_number=cnss_number,
            limit=page.limit,
            offset=page.offset,
            since=page.since,
            until=page.until,
        )
    if address.place is Place.PAYMENTS_WITHOUT_REFERENCE:
        # There is none, and never was: each is for a bill.
        return AnswerNow(reply_list([], 0, at))
    return AskedPayments(
        at=at,
        reference_given=address.named,
        limit=page.limit,
        offset=page.offset,
        since=page.since,
        until=page.until,
    )


def _say_bills(want: AskedBills, found: Bills) -> Reply:
    bills = [bill for bill in found.bills if not bill.cancelled]
    if not found.known or (want.reference_given and not bills):
        return Wrong("identifierError", "There is no such account or bill.").reply(want.at)
    if not want.reference_given:
        return reply_list([bill_object(bill) for bill in bills], found.available, want.at)
    wanted = [bill for bill in bills if _between(bill.issued_at, want.since, want.until)]
    said = [bill_object(bill) for bill in wanted[want.offset :][: want.limit]]
    return reply_list(said, len(wanted), want.at)


def _between(at: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or since <= at) and (until is None or at <= until)


# -- payments -------------------------------------------------------------------------------------


def _say_taken(want: Pay, taken: Taken) -> Reply:
    if want.wrong is not None:
        return want.wrong.reply(want.at)
    if want.callback_url is not None:
        state = {
            "serverCorrelationId": taken.ticket,
            "status": "pending",
            "notificationMethod": "callback",
            "objectReference": "",
            "pollLimit": POLL_LIMIT,
        }
        return reply(HTTPStatus.ACCEPTED, state, want.at)
    outcome = _outcome(taken)
    if isinstance(outcome, Wrong):
        return outcome.reply(want.at)
    return reply(HTTPStatus.CREATED, payment_object(outcome), want.at)


def _outcome(taken: Taken) -> KnownPayment | Wrong:
    """Return the payment as it was booked, or why the operator must not take the money."""
    if taken.verdict is Verdict.BOOKED and taken.payment is not None:
        return taken.payment
    if taken.refusal is not None:
        return Wrong(*REFUSALS[taken.refusal])
    sentence = "Another payment was made by this requestingOrganisationTransactionReference."
    return Wrong("duplicateRequest", sentence)


# -- what was answered before ---------------------------------------------------------------------


def _say_heartbeat(want: AskedAgain, _found: Recalled) -> Reply:
    return reply(HTTPStatus.OK, {"serviceStatus": "available"}, want.at)


def _say_state(want: AskedAgain, found: Recalled) -> Reply:
    """Return how a request ended. It is decided before its sender first hears of it."""
    outcome = _recalled(found)
    if outcome is None:
        return Wrong("identifierError", "There is no such request.").reply(want.at)
    state: dict[str, Any] = {
        "serverCorrelationId": want.ticket,
        "status": "completed",
        "notificationMethod": "polling" if found.later is None else "callback",
    }
    if "errorCode" in outcome:
        state |= {"status": "failed", "error": outcome}
    else:
        state["objectReference"] = outcome["requestingOrganisationTransactionReference"]
    return reply(HTTPStatus.OK, state, want.at)


def _say_response(want: AskedAgain, found: Recalled) -> Reply:
    """Return where what a request made can be seen; or the error, if it made nothing."""
    outcome = _recalled(found)
    if outcome is None:
        return Wrong("identifierError", "There is no such request.").reply(want.at)
    if "errorCode" in outcome:
        return reply(status_of(outcome["errorCategory"]), outcome, want.at)
    reference = read_reference(read_address(found.path).named)
    return reply(HTTPStatus.OK, {"link": f"/bills/{reference}/payments"}, want.at)


_SAID: Final = {
    Place.HEARTBEAT: _say_heartbeat,
    Place.STATE: _say_state,
    Place.RESPONSE: _say_response,
}


def _recalled(found: Recalled) -> dict[str, Any] | None:
    """Return what came of a request: what we put later, if it was answered before its outcome."""
    if found.reply is None:
        return None
    read = read_json(found.reply.body if found.later is None else found.later)
    return dict(read)
