"""Stripe's webhooks: who signed them (what they say: gateway.providers.stripe_events).

The signature is checked by Stripe's own library. What that lets through or lets escape is caught
before it: a time in the future, two times, a header or a body that is no text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

import stripe
from pydantic import BaseModel, ConfigDict, SecretStr

from gateway.collection.reports import NotAboutMoney, Report
from gateway.errors import BadSignature, Unusable
from gateway.providers.asking import is_trusted_address
from gateway.providers.stripe_events import (
    READERS,
    TEXT_MAX,
    WINDOW,
    Told,
    Unreadable,
    object_of,
    read_event,
    stated,
    unreadable,
)
from gateway.wirejson import Number, UnreadableJson, read_json

API_BASE: Final = "https://api.stripe.com"
PAGES_ORIGIN: Final = "https://checkout.stripe.com"
SANDBOX_MARK: Final = "whsec_sandbox_"
"""How the secrets of trials begin, in our documentation and in our stand-in."""

HEADER_CHARS_MAX: Final = 2_048
_SECRET = re.compile(r"whsec_[!-~]{10,250}", re.ASCII)
_KEY = re.compile(r"[sr]k_(test|live)_[!-~]{4,250}", re.ASCII)
_HEADER = re.compile(r"[a-z0-9]+=[!-+\--~]*(,[a-z0-9]+=[!-+\--~]*)*", re.ASCII)
_SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TIMESTAMP = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)
_ID = re.compile(r"[!-~]{1,256}", re.ASCII)


class StripeSettings(BaseModel):
    """Settings of the kind in the providers file."""

    model_config = ConfigDict(extra="forbid")

    secrets: list[SecretStr] = []
    """`whsec_…` of the webhook endpoint, used whole; several while one is rolled."""
    api_key: SecretStr | None = None
    """`sk_…` or `rk_…`; without it deliveries are taken and no pages are made."""
    api_base: str = API_BASE
    """Another server, for trials: a stand-in on this machine."""
    pages_origin: str = ""
    """Where its pages are, if under a domain of one's own; unset means Stripe's."""


class Stripe:
    """A provider that speaks Stripe's webhooks."""

    def __init__(self, name: str, settings: StripeSettings, *, live: bool) -> None:
        """Take the settings. `live`: whether real money is meant, and not a trial.

        Raises:
            Unusable: A setting means nothing, or is a live key in a sandbox.
        """
        self._name = name
        self._live = live
        self._settings = settings
        self._secrets = [secret.get_secret_value() for secret in settings.secrets]
        if not self._secrets:
            raise Unusable("it has no secrets: give the signing secret of its webhook endpoint")
        if not all(_SECRET.fullmatch(secret) for secret in self._secrets):
            raise Unusable("a secret is not whsec_ and at least ten characters without spaces")
        for what, address in (
            ("api_base", settings.api_base),
            ("pages_origin", settings.pages_origin or PAGES_ORIGIN),
        ):
            if not is_trusted_address(address) or urlsplit(address).path.strip("/"):
                raise Unusable(f"{what} is not https://host (http only on this machine itself)")
        key = _KEY.fullmatch(settings.api_key.get_secret_value()) if settings.api_key else None
        if settings.api_key and key is None:
            raise Unusable("api_key is not sk_test_, rk_test_, sk_live_ or rk_live_ and its rest")
        self._key_is_live = key is not None and key[1] == "live"
        if self._key_is_live and not live:
            raise Unusable("api_key is a live key, which would take real money in a sandbox")

    @property
    def name(self) -> str:
        return self._name

    def unsafe_in_production(self) -> Sequence[str]:
        """Return what of the settings is good for trials only."""
        found = []
        if self._settings.api_key is not None and not self._key_is_live:
            found.append("api_key is a test key, which takes no real money")
        if self._settings.api_base != API_BASE:
            found.append(f"api_base is not {API_BASE} but a stand-in")
        if any(secret.startswith((SANDBOX_MARK, "whsec_test_")) for secret in self._secrets):
            found.append("a secret was made for a sandbox or published")
        return found

    # -- who signed it ----------------------------------------------------------------------------

    def authenticate(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> str:
        """Check signature and window, and return the event's id, or one made from the bytes.

        Raises:
            BadSignature: The header is absent or malformed, the time is more than WINDOW off, no
                signature is by a secret we hold, or the body is not UTF-8.
        """
        header = headers.get("stripe-signature", "")
        timestamp = _timestamp(header)
        if abs(timestamp - now.timestamp()) > WINDOW.total_seconds():
            raise BadSignature("the time of Stripe-Signature is more than five minutes off")
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError:
            raise BadSignature("the body is not UTF-8") from None
        if not any(_is_signed(text, header, secret) for secret in self._secrets):
            raise BadSignature("no v1 signature is by a secret we hold")
        return _event_id(body) or f"sha256_{hashlib.sha256(body).hexdigest()}"

    # -- what it says -----------------------------------------------------------------------------

    def parse(
        self,
        body: bytes,
        *,
        delivery_id: str,
        received_at: datetime,
        path: str = "",  # noqa: ARG002
    ) -> Report:
        """Return what an event says about money (docs/formats.md lists the types)."""
        source = f"delivery:{self._name}/{delivery_id}"
        try:
            event = read_event(body)
            kind = event["type"]
            if kind not in READERS:
                return NotAboutMoney(f"{kind[:TEXT_MAX]} moves no money of a payer")
            told = Told(
                provider=self._name,
                kind=kind,
                what=object_of(object_of(event.get("data"), "data").get("object"), "data.object"),
                stated_at=stated(event.get("created"), received_at),
                received_at=received_at,
                source=source,
            )
            livemode = event.get("livemode")
            if not isinstance(livemode, bool):
                raise Unreadable("livemode is not true or false")
        except Unreadable as error:
            return unreadable(self._name, source, str(error))
        report = told.report()
        if livemode == self._live or isinstance(report, NotAboutMoney):
            return report
        return told.of_other_mode(live=livemode)


def _timestamp(header: str) -> int:
    """Return the one time of a well-formed header, in seconds."""
    if len(header) > HEADER_CHARS_MAX or not _HEADER.fullmatch(header):
        raise BadSignature("Stripe-Signature is absent or not t=…,v1=…")
    items = [item.partition("=") for item in header.split(",")]
    # The library would read no further than a second «=».
    if not all(_SIGNATURE.fullmatch(value) for scheme, _, value in items if scheme == "v1"):
        raise BadSignature("a v1 of Stripe-Signature is not 64 lower-case hexadecimal digits")
    times = [value for scheme, _, value in items if scheme == "t"]
    if len(times) != 1 or not _TIMESTAMP.fullmatch(times[0]):
        raise BadSignature("Stripe-Signature has not exactly one time in whole seconds")
    return int(times[0])


def _is_signed(body: str, header: str, secret: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body, header, secret, tolerance=None)
    except stripe.SignatureVerificationError:
        return False
    return True


def _event_id(body: bytes) -> str | None:
    try:
        event = read_json(body)
    except UnreadableJson:
        return None
    named = event.get("id") if isinstance(event, dict) else None
    if not isinstance(named, str) or isinstance(named, Number):
        return None
    return named if _ID.fullmatch(named) else None
