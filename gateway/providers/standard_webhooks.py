"""Standard Webhooks 1.0.0: our own event, signed by HMAC-SHA256 (`v1`) or Ed25519 (`v1a`).

The verifier is our own: the published library lets four other exceptions escape for malformed
input and accepts timestamps such as `1_795_000_000`. It is the second opinion of the tests.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, SecretStr

from gateway.collection.reports import NotAboutMoney, PaymentReport, Report, Statement, Unbookable
from gateway.errors import BadSignature, Unusable
from gateway.models import Channel, ExceptionCode
from gateway.money import CURRENCY, UnreadableAmount, parse_amount
from gateway.wirejson import Number, UnreadableJson, is_storable, read_json

WINDOW: Final = timedelta(seconds=300)
_LIKE_AN_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[0-9T :.+Z-]{0,25}", re.ASCII)
_MISTYPED = re.compile(r"$|(?!payment\.)(?i:payment)")
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)
_DELIVERY_ID = re.compile(r"[!-~]{1,256}", re.ASCII)
SIGNATURES_MAX: Final = 10
SANDBOX_MARK: Final = b"wasl-sandbox"
"""How a secret made by a sandbox begins: it says so itself, wherever it is copied to."""

_PUBLISHED: Final = frozenset(
    base64.b64decode(text)
    for text in (
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "plJ3nmyCDGBKInavdOK15jsl",
        "C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    )
)
"""Secrets in the examples of the specification and of libraries: everybody has them."""

TEXT_MAX: Final = 256


class StandardWebhooksSettings(BaseModel):
    """Settings of the kind in the providers file."""

    model_config = ConfigDict(extra="forbid")

    secrets: list[SecretStr] = []
    """`whsec_` and base64 of 24 to 64 bytes; several while one is rolled."""
    public_keys: list[str] = []
    """`whpk_` and base64 of the 32 bytes of an Ed25519 public key."""


def make(name: str, values: Mapping[str, Any], *, live: bool) -> StandardWebhooks:  # noqa: ARG001
    """Return a provider of these settings (see `registry.KINDS`)."""
    return StandardWebhooks(name, StandardWebhooksSettings.model_validate(values))


class StandardWebhooks:
    """A provider that speaks Standard Webhooks."""

    def __init__(self, name: str, settings: StandardWebhooksSettings) -> None:
        self._name = name
        self._secrets = [_secret(s.get_secret_value()) for s in settings.secrets]
        # Copying one that has taken the key in is cheaper than to begin with the key each time.
        self._macs = [hmac.new(secret, digestmod="sha256") for secret in self._secrets]
        self._public_keys = [_public_key(k) for k in settings.public_keys]
        if not self._secrets and not self._public_keys:
            raise Unusable("it has neither secrets nor public_keys")

    @property
    def name(self) -> str:
        return self._name

    def authenticate(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> str:
        """Check signature and window, and return the `webhook-id`.

        Raises:
            BadSignature: A header is absent or malformed, the time is more than WINDOW off, or no
                signature of the list is by a key we hold.
        """
        delivery_id = headers.get("webhook-id", "")
        timestamp = headers.get("webhook-timestamp", "")
        if not _DELIVERY_ID.fullmatch(delivery_id):
            raise BadSignature("webhook-id is absent or not 1 to 256 visible ASCII characters")
        if not _TIMESTAMP.fullmatch(timestamp):
            raise BadSignature("webhook-timestamp is absent or not whole seconds")
        if abs(int(timestamp) - now.timestamp()) > WINDOW.total_seconds():
            raise BadSignature("webhook-timestamp is more than five minutes off")
        signed = f"{delivery_id}.{timestamp}.".encode() + body
        ours = [_signature(mac, signed) for mac in self._macs]
        for token in headers.get("webhook-signature", "").split(" ")[:SIGNATURES_MAX]:
            version, _, text = token.partition(",")
            if version == "v1" and _is_one_of(ours, text):
                return delivery_id
            if version == "v1a" and self._is_theirs(signed, text):
                return delivery_id
        raise BadSignature("no signature is by a key we hold")

    def _is_theirs(self, signed: bytes, text: str) -> bool:
        signature = _canonical(text)
        if signature is None:
            return False
        for public_key in self._public_keys:
            try:
                public_key.verify(signature, signed)
            except InvalidSignature:
                continue
            return True
        return False

    def unsafe_in_production(self) -> Sequence[str]:
        """Return which kinds of secrets it holds that are no secrets."""
        found = []
        if any(secret.startswith(SANDBOX_MARK) for secret in self._secrets):
            found.append("a secret was made by a sandbox")
        if any(secret in _PUBLISHED or _counts(secret) for secret in self._secrets):
            found.append("a secret is that of a published example")
        return found

    def parse(
        self,
        body: bytes,
        *,
        delivery_id: str,
        received_at: datetime,
        path: str = "",  # noqa: ARG002
    ) -> Report:
        """Read our own event (the providers file's documentation describes it)."""
        source = f"delivery:{self._name}/{delivery_id}"
        try:
            event = _object(_read(body), "the body")
            kind = event.get("type")
            if not isinstance(kind, str) or _MISTYPED.match(kind):
                # It may well be about money: a mistyped word must not make it vanish.
                raise _Unreadable("its type is no payment.…")
            if not kind.startswith("payment."):
                return NotAboutMoney("its type is not payment.…")
            data = _object(event.get("data"), "data")
            named = _text(data, "provider_payment_id")
        except _Unreadable as error:
            return Unbookable(
                provider=self._name,
                provider_payment_id=None,
                statement=Statement.COMPLETED,
                code=ExceptionCode.UNREADABLE_DELIVERY,
                reason=str(error),
                source=source,
            )
        statement = _STATEMENTS.get(kind, Statement.PENDING)
        try:
            return self._report(event, data, named, statement, source, received_at)
        except _Unbookable as error:
            return Unbookable(
                provider=self._name,
                provider_payment_id=named,
                statement=statement,
                code=error.code,
                reason=str(error),
                source=source,
                stated=tuple(str(data.get(name)) for name in ("amount", "currency", "reference")),
            )

    def _report(
        self,
        event: Mapping[str, Any],
        data: Mapping[str, Any],
        named: str,
        statement: Statement,
        source: str,
        received_at: datetime,
    ) -> PaymentReport:
        currency = data.get("currency")
        if currency != CURRENCY:
            raise _Unbookable(ExceptionCode.WRONG_CURRENCY, "the currency is not MAD")
        paid_at_given = _optional(data, "paid_at") or ""
        stated_at = _instant(_optional(event, "timestamp")) or received_at
        return PaymentReport(
            provider=self._name,
            provider_payment_id=named,
            statement=statement,
            reference_given=_optional(data, "reference") or "",
            amount_minor=_amount(data.get("amount")),
            currency=CURRENCY,
            channel=_channel(data.get("channel")),
            paid_at=_instant(paid_at_given),
            paid_at_given=paid_at_given if _LIKE_AN_INSTANT.fullmatch(paid_at_given) else None,
            # A clock that runs ahead must not make this statement outrank those that follow it.
            stated_at=min(stated_at, received_at),
            received_at=received_at,
            source=source,
            agent_id=_optional(data, "agent_id"),
            terminal_id=_optional(data, "terminal_id"),
            fee_minor=_fee(data.get("fee")),
        )


_STATEMENTS: Final = {
    "payment.completed": Statement.COMPLETED,
    "payment.pending": Statement.PENDING,
    "payment.failed": Statement.FAILED,
    "payment.reversed": Statement.REVERSED,
}


class _Unreadable(Exception):
    """The body is not an event of ours."""


class _Unbookable(Exception):
    def __init__(self, code: ExceptionCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def _read(body: bytes) -> Any:
    try:
        return read_json(body, keys_once=True)
    except UnreadableJson as error:
        raise _Unreadable(str(error)) from None


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Unreadable(f"{what} is not an object")
    return value


def _text(values: Mapping[str, Any], name: str) -> str:
    text = _optional(values, name)
    if not text:
        raise _Unreadable(f"{name} is absent, or not a text of 1 to {TEXT_MAX} characters")
    return text


def _optional(values: Mapping[str, Any], name: str) -> str | None:
    """Return a text the database can hold, or None: a NUL or half a character is no text."""
    value = values.get(name)
    if not isinstance(value, str) or len(value) > TEXT_MAX or not is_storable(value):
        return None
    return str(value)


def _amount(value: object) -> int:
    if not isinstance(value, str) or isinstance(value, Number):
        raise _Unbookable(ExceptionCode.INVALID_AMOUNT, "the amount is not a decimal string")
    try:
        amount_minor = parse_amount(value)
    except UnreadableAmount as error:
        raise _Unbookable(ExceptionCode.INVALID_AMOUNT, str(error)) from None
    if amount_minor <= 0:
        raise _Unbookable(ExceptionCode.INVALID_AMOUNT, "the amount is not positive")
    return amount_minor


def _fee(value: object) -> int | None:
    """Return a fee that can be read. It is the provider's own affair, so it stops no booking."""
    if value is None:
        return None
    try:
        fee = _amount(value)
    except _Unbookable:
        return None
    return fee


def _channel(value: object) -> Channel | None:
    return _CHANNELS.get(value) if isinstance(value, str) else None


_CHANNELS: Final = {channel.value: channel for channel in Channel}


def _instant(text: str | None) -> datetime | None:
    """Return an instant of this century, in UTC; without an offset it would be a guess.

    Brought to UTC here: Python reads offsets that the database does not.
    """
    try:
        instant = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    if instant.tzinfo is None or not 2000 <= instant.year < 2100:
        return None
    return instant if instant.tzinfo is UTC else instant.astimezone(UTC)


def _signature(mac: hmac.HMAC, signed: bytes) -> bytes:
    """Return the one text that is the signature by this key."""
    made = mac.copy()
    made.update(signed)
    return binascii.b2a_base64(made.digest(), newline=False)


def _is_one_of(ours: Sequence[bytes], text: str) -> bool:
    given = text.encode("ascii", "replace")
    # Every one is compared, so that the time taken does not tell which one it was.
    found = [hmac.compare_digest(signature, given) for signature in ours]
    return any(found)


def _canonical(text: str) -> bytes | None:
    """Return what base64 says, or None if it is none, or not as it would be written."""
    try:
        value = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    # The last letter may have bits that say nothing: written otherwise, it is changed.
    return value if base64.b64encode(value).decode() == text else None


def _secret(text: str) -> bytes:
    raw = _decoded(text, "whsec_")
    if raw is None or not 24 <= len(raw) <= 64:
        raise Unusable("a secret is not whsec_ and base64 of 24 to 64 bytes")
    return raw


def _counts(secret: bytes) -> bool:
    """Say whether the bytes only repeat or count, as those of examples do."""
    return len({(b - a) % 256 for a, b in pairwise(secret)}) == 1


def _public_key(text: str) -> Ed25519PublicKey:
    raw = _decoded(text, "whpk_")
    if raw is None or len(raw) != 32:
        raise Unusable("a public key is not whpk_ and base64 of 32 bytes")
    return Ed25519PublicKey.from_public_bytes(raw)


def _decoded(text: str, prefix: str) -> bytes | None:
    if not text.startswith(prefix):
        return None
    try:
        return base64.b64decode(text.removeprefix(prefix), validate=True)
    except (binascii.Error, ValueError):
        return None
