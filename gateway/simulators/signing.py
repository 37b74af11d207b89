"""Signatures of Standard Webhooks, `v1`: HMAC-SHA256 over `id.timestamp.body`."""

from __future__ import annotations

import base64
import hashlib
import hmac

_PREFIX = "whsec_"


def secret_bytes(secret: str) -> bytes:
    """Return the key in a `whsec_…` secret.

    Raises:
        ValueError: The text is not such a secret.
    """
    if not secret.startswith(_PREFIX):
        raise ValueError(f"a signing secret starts with {_PREFIX}")
    return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)


def signature(key: bytes, delivery_id: str, timestamp: int, body: bytes) -> str:
    """Return the `webhook-signature` of a delivery sent at this Unix second."""
    content = f"{delivery_id}.{timestamp}.".encode() + body
    digest = hmac.new(key, content, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode("ascii")
