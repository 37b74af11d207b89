"""Chari Pay: signed events (its payment links: gateway.providers.chari_pages).

Who signed is judged over `timestamp.body`, with the timestamp in milliseconds. Duplicates and
disorder are announced by Chari.

Known from the public OpenAPI file and a public library. Unverified: the fields of an event's body
(so they are read by several names, flat or under `data`, whatever their case), any recorded
signature.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, SecretStr

from gateway.collection.reports import (
    NotAboutMoney,
    PaymentReport,
    Report,
    ReturnReport,
    Statement,
)
from gateway.errors import BadSignature, Unusable
from gateway.models import Channel, ReturnKind, ReturnState
from gateway.money import CURRENCY
from gateway.providers.asking import is_trusted_address, origin_of
from gateway.providers.signed_events import (
    NotBookable,
    Unreadable,
    attempt_id,
    check_secrets,
    dirhams,
    event_id,
    in_dirhams,
    instant,
    is_signed,
    read_object,
    shown_instant,
    text,
    unbookable,
    unsafe_secrets,
)

API_BASE: Final = "https://api-psp.charipay.ma"
WINDOW: Final = timedelta(minutes=5)
MISLABELLED: Final = timedelta(hours=1) + WINDOW
"""A published sample writes the time of Casablanca with a Z. So much ahead, it is meant as now."""

SIGNATURES: Final = (
    "chari-webhook-signature",
    "x-chari-signature",
    "x-chari-signature-next",
)
"""The last two are there while a secret is rolled, or from an older contract."""
TIMESTAMPS: Final = ("chari-webhook-timestamp", "x-chari-timestamp")
_MILLISECONDS = re.compile(r"[0-9]{12,14}", re.ASCII)
_KEY = re.compile(r"[!-~]{1,250}", re.ASCII)

_PAYMENTS: Final = {
    "payment.succeeded": Statement.COMPLETED,
    # The payer may try again by the same link, and what succeeds later is later.
    "payment.failed": Statement.DECLINED,
}
_REFUNDS: Final = {"refund.succeeded": ReturnState.GIVEN, "refund.failed": ReturnState.RESTORED}

Fields = Mapping[str, Any]


class ChariSettings(BaseModel):
    """Settings of the kind in the providers file."""

    model_config = ConfigDict(extra="forbid")

    secrets: list[SecretStr] = []
    """Of the webhook endpoint, used whole; several while one is rolled."""
    api_key: SecretStr | None = None
    """`chari_sk_…`; without it deliveries are taken and no links are made."""
    api_base: str = API_BASE
    """Another server, for trials: a stand-in on this machine."""
    pages_origin: str = ""
    """Where its pages are, if elsewhere than Chari's."""
    method: Literal["card", "cash"] | None = None
    """What links are for. Where another entry of the same account has the other one, events of
    links for that are left to it."""


class Chari:
    """A provider that speaks Chari Pay's webhooks."""

    asks: ClassVar[bool] = False
    """Whether we ask about links as well."""

    def __init__(
        self, name: str, settings: ChariSettings, *, live: bool, has_sibling: bool = False
    ) -> None:
        """Take the settings. `live`: whether real money is meant, and not a trial.

        Args:
            name: Of the provider.
            settings: From the providers file.
            live: As above.
            has_sibling: Whether another entry of the same account books what is paid the other way.

        Raises:
            Unusable: A setting means nothing, or is a live key in a sandbox.
        """
        self._name = name
        self._settings = settings
        self._has_sibling = has_sibling
        self._secrets = [secret.get_secret_value() for secret in settings.secrets]
        check_secrets(self._secrets)
        for what in ("api_base", "pages_origin"):
            address = getattr(settings, what)
            if address and (not is_trusted_address(address) or origin_of(address) != address):
                raise Unusable(f"{what} is not https://host (http only on this machine itself)")
        self._key = settings.api_key.get_secret_value() if settings.api_key else ""
        if self._key and not _KEY.fullmatch(self._key):
            raise Unusable("api_key is not 1 to 250 visible ASCII characters")
        if self._key.startswith("chari_sk_live_") and not live:
            raise Unusable("api_key is a live key, which would take real money in a sandbox")

    @property
    def name(self) -> str:
        return self._name

    def unsafe_in_production(self) -> Sequence[str]:
        """Return what of the settings is good for trials only."""
        found = unsafe_secrets(self._secrets)
        if self._key and not self._key.startswith("chari_sk_live_"):
            found.append("api_key is not a live key, and takes no real money")
        if self._settings.api_base != API_BASE:
            found.append(f"api_base is not {API_BASE} but a stand-in")
        return found

    def authenticate(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> str:
        """Check signature and window, and return the event's id as the signed body says it.

        Raises:
            BadSignature: A header is absent or malformed, the time is not in milliseconds or more
                than WINDOW off, or no signature is by a secret we hold.
        """
        given = [headers.get(name, "") for name in SIGNATURES]
        timestamp = next((headers[name] for name in TIMESTAMPS if name in headers), "")
        if not any(given):
            raise BadSignature("Chari-Webhook-Signature is absent")
        if not _MILLISECONDS.fullmatch(timestamp):
            raise BadSignature("Chari-Webhook-Timestamp is absent or not in milliseconds")
        if abs(int(timestamp) - now.timestamp() * 1000) > WINDOW.total_seconds() * 1000:
            raise BadSignature("Chari-Webhook-Timestamp is more than five minutes off")
        if not is_signed(timestamp.encode() + b"." + body, given, self._secrets):
            raise BadSignature("no signature is by a secret we hold")
        return event_id(body, "WebhookEventId")

    def parse(
        self,
        body: bytes,
        *,
        delivery_id: str,
        received_at: datetime,
        path: str = "",  # noqa: ARG002
    ) -> Report:
        """Read an event (docs/formats.md lists the types)."""
        source = f"delivery:{self._name}/{delivery_id}"
        try:
            kind, fields = _event(body)
        except Unreadable as error:
            return unbookable(self._name, source, error)
        if not kind.startswith(("payment.", "refund.")):
            return NotAboutMoney("its type is neither payment.… nor refund.…")
        told = _Told(self._name, kind, fields, received_at, source, asks=self.asks)
        own = self._settings.method or "card"
        # Of two entries that hear the same event, exactly one must take it.
        if self._has_sibling and (method := told.method or "card") != own:
            return NotAboutMoney(f"it is of a link for {method}: another entry takes it")
        return told.report(CHANNELS[told.paid_by or told.method or own])


CHANNELS: Final = {"card": Channel.CARD, "cash": Channel.CASH_AGENT}


@dataclass(frozen=True, slots=True)
class _Told:
    """An event, its fields by lower-case names."""

    provider: str
    kind: str
    fields: Fields
    received_at: datetime
    source: str
    asks: bool
    """Whether we ask about links as well, which name a payment by our attempt and nothing else."""

    @property
    def metadata(self) -> Fields:
        """What we gave the link to keep."""
        kept = self.fields.get("metadata")
        return kept if isinstance(kept, dict) else {}

    @property
    def method(self) -> str | None:
        """What the link is for, or of one that is not ours what the event says; None if neither.

        A link of ours is asked about by the entry that made it, which must be the one to book it.
        """
        made_for = text(self.metadata, "method")
        return made_for if made_for in CHANNELS else self.paid_by

    @property
    def paid_by(self) -> str | None:
        """What the event itself says that it was paid by."""
        said = (text(self.fields, "paymentmethod", "method") or "").lower()
        return next((word for word in ("cash", "card") if word in said), None)

    def report(self, channel: Channel) -> Report:
        """Return what it says of money. Raises nothing for any content."""
        payment_id = self._payment_id()
        statement = _PAYMENTS.get(self.kind, Statement.PENDING)
        if self.kind in _REFUNDS:
            statement = Statement.COMPLETED
        try:
            if payment_id is None:
                raise Unreadable("it names no payment")
            if self.asks and self._attempt_id() is None:
                # Under another name than the one we ask by, the same money would be booked twice.
                raise Unreadable("it names no attempt of ours: of a link that we made we ask")
            if self.kind.startswith("refund."):
                return self._refund(payment_id)
            in_dirhams(self.fields)
            return PaymentReport(
                provider=self.provider,
                provider_payment_id=payment_id,
                statement=statement,
                reference_given=self._reference(),
                amount_minor=dirhams(self.fields.get("amount")),
                currency=CURRENCY,
                channel=channel,
                paid_at=self._paid_at(),
                paid_at_given=shown_instant(text(self.fields, *_PAID_AT)),
                stated_at=self._stated_at(),
                received_at=self.received_at,
                source=self.source,
                attempt_id=self._attempt_id(),
            )
        except (Unreadable, NotBookable) as error:
            return unbookable(
                self.provider,
                self.source,
                error,
                payment_id=payment_id,
                statement=statement,
                stated=tuple(
                    str(self.fields.get(name))
                    for name in ("amount", "currency", "merchantreference")
                ),
            )

    def _refund(self, payment_id: str) -> ReturnReport:
        # Its `reference` may be the payment's: two refunds would be one. Better each event its own.
        return_id = text(self.fields, "refundreference", "refundid", "webhookeventid")
        if return_id is None:
            raise Unreadable("it names no refund")
        in_dirhams(self.fields)
        stated_at = self._stated_at()
        amount = self.fields.get("refundamount", self.fields.get("amount"))
        return ReturnReport(
            provider=self.provider,
            provider_payment_id=payment_id,
            return_id=return_id,
            kind=ReturnKind.REFUND,
            state=_REFUNDS.get(self.kind, ReturnState.ANNOUNCED),
            amount_minor=dirhams(amount),
            currency=CURRENCY,
            made_at=stated_at,
            stated_at=stated_at,
            received_at=self.received_at,
            source=self.source,
        )

    def _attempt_id(self) -> str | None:
        return attempt_id(self.metadata, "attempt_id") or attempt_id(self.fields, "externalid")

    def _payment_id(self) -> str | None:
        """Return the payment's name: of a link of ours its attempt, by which we ask as well."""
        own = self._attempt_id()
        if own is not None:
            return own
        names = ["operationid", "paymentsessionid", "transactionreference"]
        if self.kind.startswith("payment."):
            names.append("reference")
        return text(self.fields, *names)

    def _reference(self) -> str:
        own = text(self.metadata, "invoice_ref")
        names = ("merchantreference", "orderid", "externalreference", "externalid")
        return own or text(self.fields, *names) or ""

    def _stated_at(self) -> datetime:
        at = instant(text(self.fields, "occurredat", "createdat", "executedat"))
        # A clock that runs ahead must not make this statement outrank those that follow it.
        return min(at or self.received_at, self.received_at)

    def _paid_at(self) -> datetime:
        at = instant(text(self.fields, *_PAID_AT))
        if at is None or self.received_at < at <= self.received_at + MISLABELLED:
            return self.received_at
        return at


_PAID_AT: Final = ("paidat", "executedat", "occurredat", "createdat")


def _event(body: bytes) -> tuple[str, Fields]:
    """Return an event's type, and its fields by lower-case names, flat or from under `data`.

    Raises:
        Unreadable: It is none, or of no type that it says.
    """
    event = _lower(read_object(body))
    data = event.get("data")
    inner = _lower(data) if isinstance(data, dict) else {}
    kind = text(event, "eventtype", "type", "event") or text(inner, "eventtype", "type")
    if kind is None:
        raise Unreadable("it does not say its type")
    return kind.lower(), {**event, **inner}


def _lower(said: Mapping[str, Any]) -> dict[str, Any]:
    found = {name.lower(): value for name, value in said.items()}
    if len(found) != len(said):
        raise Unreadable("a field stands twice, in upper and lower case")
    return found
