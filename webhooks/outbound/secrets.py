"""Secrets of endpoints, and signatures by them: Standard Webhooks, by its official library.

A secret is shown once, to whoever asks for it, and kept sealed with a key outside of the database
(`endpoints.key` among the keys). Those that stand sign all at once, so that a receiver can change
from one to the next whenever it likes in between.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.fernet import Fernet, InvalidToken
from standardwebhooks.webhooks import Webhook

from gateway.errors import Unusable
from gateway.secretfiles import read_or_make

_KEY_FILE: Final = "endpoints.key"
_PREFIX: Final = "whsec_"
_BYTES: Final = 32


def sealing_key(keys_dir: Path) -> Fernet:
    """Return the key that secrets are sealed with; made on first use.

    Raises:
        Unusable: The file is no key, or cannot be used.
    """
    make = lambda: base64.urlsafe_b64encode(os.urandom(32))  # noqa: E731
    try:
        return Fernet(read_or_make(keys_dir / _KEY_FILE, make))
    except ValueError:
        raise Unusable(f"{_KEY_FILE} in the keys folder is not a key: restore it.") from None


def make_secret() -> str:
    """Return a new secret, as receivers' libraries take it."""
    return _PREFIX + base64.b64encode(os.urandom(_BYTES)).decode()


def seal(secret: str, key: Fernet) -> bytes:
    """Return a secret as it is kept."""
    return key.encrypt(secret.encode())


class Signer:
    """Signs with the secrets that stand, each until its end."""

    def __init__(self, sealed: Sequence[tuple[bytes, datetime | None]], key: Fernet) -> None:
        """Open the secrets.

        Args:
            sealed: Each with its end, the newest first.
            key: They were sealed with.

        Raises:
            Unusable: One cannot be opened: the key is not theirs.
        """
        try:
            self._webhooks = [
                (Webhook(key.decrypt(bytes(each)).decode()), ends_at) for each, ends_at in sealed
            ]
        except InvalidToken:
            raise Unusable(
                f"The secret was sealed with another {_KEY_FILE}: restore it, or roll the secret."
            ) from None

    def sign(self, message_id: str, body: str, now: datetime) -> dict[str, str]:
        """Return the headers of an attempt that is made now, an aware instant."""
        # In UTC: the library takes the figures of an instant for UTC, whatever its zone.
        at = now.astimezone(UTC)
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(
                webhook.sign(message_id, at, body)
                for webhook, ends_at in self._webhooks
                if ends_at is None or now < ends_at
            ),
        }
