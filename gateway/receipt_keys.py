"""The keys that sign receipts: one in force, all former public ones kept for ever.

Private halves are files in the home, like the books' key, one to a key; the list of public halves
with their dates stands beside them and is what the product publishes. A former key's private half
is destroyed when it is replaced, so that nobody can sign for the past.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.errors import Unusable
from gateway.secretfiles import read_or_make, write_privately

_LIST: Final = "receipts.json"
_LOCK: Final = "receipts.lock"


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """A public key and when it signed: from `since`, to `until` if it has been replaced."""

    key_id: str
    public: Ed25519PublicKey
    since: datetime
    until: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON Web Key, with its dates."""
        return {
            "kid": self.key_id,
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": "EdDSA",
            "use": "sig",
            "x": base64.urlsafe_b64encode(self.public.public_bytes_raw()).decode().rstrip("="),
            "since": self.since.isoformat(),
            "until": self.until.isoformat() if self.until else None,
        }


@dataclass(frozen=True, slots=True)
class Signer:
    """The key in force."""

    key_id: str
    private: Ed25519PrivateKey


class ReceiptKeys:
    """The keys of one installation, in its keys folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def published(self) -> list[PublishedKey]:
        """Return every public key, oldest first; none before the first start.

        Raises:
            Unusable: The list is there and cannot be read.
        """
        path = self._folder / _LIST
        try:
            if not path.exists():
                return []
            return [_read(entry) for entry in json.loads(path.read_text("utf-8"))["keys"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Unusable(f"The list of receipt keys {path} cannot be read: {error}.") from None

    def as_json(self) -> dict[str, Any]:
        """Return what is published at `/.well-known/wasl-keys.json`."""
        return {"keys": [key.as_json() for key in self.published()]}

    def signer(self, *, now: datetime) -> Signer:
        """Return the key in force, made on first use.

        Raises:
            Unusable: The key in force has lost its private half: restore it, or replace the key.
        """
        with self._alone():
            keys = self.published()
            if not keys:
                return self._make(keys, now)
            *former, current = keys
            for key in former:  # one that a crash kept from being destroyed
                self._private_file(key.key_id).unlink(missing_ok=True)
            path = self._private_file(current.key_id)
            if not path.exists():
                raise Unusable(
                    f"The key that signs receipts is missing: restore {path}, or replace the key"
                    " with wasl receipts rotate-key."
                )
            signer = Signer(current.key_id, _private(path.read_bytes(), path))
            if signer.private.public_key() != current.public:
                raise Unusable(f"{path} is not the private half of the key that is published.")
            return signer

    def rotate(self, *, now: datetime) -> Signer:
        """Replace the key in force by a new one; its public half stays published."""
        with self._alone():
            keys = self.published()
            if not keys:
                return self._make([], now)
            *former, current = keys
            signer = self._make([*former, replace(current, until=now)], now)
            self._private_file(current.key_id).unlink(missing_ok=True)
            return signer

    def _make(self, others: list[PublishedKey], now: datetime) -> Signer:
        seed = os.urandom(32)
        private = Ed25519PrivateKey.from_private_bytes(seed)
        public = private.public_key()
        key_id = hashlib.sha256(public.public_bytes_raw()).digest()[:4].hex()
        # The private half first: a list that names a key which does not exist would stop signing.
        read_or_make(self._private_file(key_id), lambda: seed)
        keys = [*others, PublishedKey(key_id, public, now)]
        listed = json.dumps({"keys": [key.as_json() for key in keys]}, indent=1)
        write_privately(self._folder / _LIST, listed)
        return Signer(key_id, private)

    def _private_file(self, key_id: str) -> Path:
        return self._folder / f"receipts-{key_id}.key"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Make the processes of an installation take turns: there is one first key."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (self._folder / _LOCK).open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise Unusable(f"The keys folder {self._folder} cannot be used: {reason}.") from None


def _read(entry: dict[str, Any]) -> PublishedKey:
    raw = base64.urlsafe_b64decode(entry["x"] + "=")
    return PublishedKey(
        key_id=str(entry["kid"]),
        public=Ed25519PublicKey.from_public_bytes(raw),
        since=datetime.fromisoformat(entry["since"]),
        until=datetime.fromisoformat(entry["until"]) if entry["until"] else None,
    )


def _private(raw: bytes, path: Path) -> Ed25519PrivateKey:
    if len(raw) != 32:
        raise Unusable(f"{path} is not a key of 32 bytes: restore it.")
    return Ed25519PrivateKey.from_private_bytes(raw)
