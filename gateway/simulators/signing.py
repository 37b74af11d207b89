"""Signatures of Standard Webhooks over `id.timestamp.body`: `v1` by a secret, `v1a` by a key."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Protocol

from gateway.simulators.ed25519 import SigningKey

_PREFIX = "whsec_"
_PRIVATE_PREFIX = "whsk_"
_PUBLIC_PREFIX = "whpk_"


class Signer(Protocol):
    """What a provider signs by."""

    def sign(self, delivery_id: str, timestamp: int, body: bytes) -> str:
        """Return the `webhook-signature` of a delivery sent at this Unix second."""
        ...

    def other(self) -> Signer:
        """Return one that nobody knows: what it signs is not authentic."""
        ...


class SharedSecret:
    """Signs by HMAC-SHA256 (`v1`)."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, delivery_id: str, timestamp: int, body: bytes) -> str:
        return signature(self._key, delivery_id, timestamp, body)

    def other(self) -> Signer:
        return SharedSecret(hashlib.sha256(b"not the key" + self._key).digest())


class PrivateKey:
    """Signs by Ed25519 (`v1a`)."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._key = SigningKey(seed)

    @property
    def public(self) -> str:
        """Return the public half as providers publish it: `whpk_…`."""
        return _PUBLIC_PREFIX + base64.b64encode(self._key.public).decode("ascii")

    def sign(self, delivery_id: str, timestamp: int, body: bytes) -> str:
        made = self._key.sign(_content(delivery_id, timestamp, body))
        return "v1a," + base64.b64encode(made).decode("ascii")

    def other(self) -> Signer:
        return PrivateKey(hashlib.sha256(b"not the key" + self._seed).digest())


def signer_of(text: str) -> Signer:
    """Return what signs by a `whsec_…` secret, or by a `whsk_…` private key (its seed).

    Raises:
        ValueError: The text is neither.
    """
    if text.startswith(_PRIVATE_PREFIX):
        return PrivateKey(base64.b64decode(text.removeprefix(_PRIVATE_PREFIX), validate=True))
    return SharedSecret(secret_bytes(text))


def secret_bytes(secret: str) -> bytes:
    """Return the key in a `whsec_…` secret.

    Raises:
        ValueError: The text is not such a secret.
    """
    if not secret.startswith(_PREFIX):
        raise ValueError(f"a signing secret starts with {_PREFIX}")
    return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)


def signature(key: bytes, delivery_id: str, timestamp: int, body: bytes) -> str:
    """Return the `v1` signature of a delivery sent at this Unix second."""
    digest = hmac.new(key, _content(delivery_id, timestamp, body), hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode("ascii")


def _content(delivery_id: str, timestamp: int, body: bytes) -> bytes:
    return f"{delivery_id}.{timestamp}.".encode() + body
