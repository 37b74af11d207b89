"""Signed heads of the books, kept outside the database that they vouch for.

The key that signs is a file in the home. Each posting transaction signs its head and keeps the
signature beside it; after the commit the head is appended to a file. So whoever can only reach the
database can neither change a transfer (the hashes differ), nor recompute the chain (the signatures
cannot be made), nor cut off its end (the file knows of more).
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.errors import Unusable
from gateway.secretfiles import read_or_make

_KEY_FILE: Final = "books.key"


@dataclass(frozen=True, slots=True)
class Head:
    """The state of the books after a batch: what is signed."""

    batch_id: int
    total_count: int
    total_minor: int
    hash: bytes

    def signed_bytes(self) -> bytes:
        """Return the bytes that a signature covers: a line for each value, none ambiguous."""
        return (
            f"wasl books head v1\n{self.batch_id}\n{self.total_count}\n{self.total_minor}\n"
            f"{self.hash.hex()}\n"
        ).encode()


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A head with the signature over it, and which key made it."""

    head: Head
    key_id: str
    signature: bytes

    def as_line(self) -> bytes:
        head = self.head
        return (
            json.dumps(
                {
                    "batch": head.batch_id,
                    "count": head.total_count,
                    "sum_minor": head.total_minor,
                    "hash": head.hash.hex(),
                    "key": self.key_id,
                    "signature": base64.b64encode(self.signature).decode(),
                }
            )
            + "\n"
        ).encode()


class UnreadableHead(ValueError):
    """A line of the heads file is not one."""


def read_head(line: bytes) -> SignedHead:
    """Return the head that a line of the file states.

    Raises:
        UnreadableHead: It states none.
    """
    try:
        value: dict[str, Any] = json.loads(line)
        head = Head(
            int(value["batch"]),
            int(value["count"]),
            int(value["sum_minor"]),
            bytes.fromhex(value["hash"]),
        )
        signature = base64.b64decode(value["signature"], validate=True)
        return SignedHead(head, str(value["key"]), signature)
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableHead(str(error)) from None


class BooksKey:
    """The key that signs heads."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key()
        raw = self.public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.id = raw[:8].hex()

    def sign(self, head: Head) -> SignedHead:
        return SignedHead(head, self.id, self._private.sign(head.signed_bytes()))

    def derived(self, purpose: bytes) -> bytes:
        """Return a key of 32 bytes for another purpose; it tells nothing of this one."""
        derivation = HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose)
        return derivation.derive(self._private.private_bytes_raw())

    def vouches_for(self, signed: SignedHead) -> bool:
        """Say whether this key made this signature over this head."""
        if signed.key_id != self.id:
            return False
        try:
            self.public.verify(signed.signature, signed.head.signed_bytes())
        except InvalidSignature:
            return False
        return True


def has_books_key(keys_dir: Path) -> bool:
    """Say whether the installation has its key yet."""
    return (keys_dir / _KEY_FILE).exists()


def books_key(keys_dir: Path) -> BooksKey:
    """Return the installation's key, made on first use.

    Raises:
        Unusable: The key file is there and is not a key.
    """
    raw = read_or_make(keys_dir / _KEY_FILE, lambda: os.urandom(32))
    if len(raw) != 32:
        raise Unusable(f"{_KEY_FILE} in the keys folder is not a key of 32 bytes: restore it.")
    return BooksKey(Ed25519PrivateKey.from_private_bytes(raw))


class HeadsFile:
    """The append-only file of signed heads, one JSON line a batch, in order."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def create(self) -> None:
        """Make the file, empty: once, with the key. One that is missing later was taken away."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path.touch(mode=0o600)

    def exists(self) -> bool:
        return self._path.exists()

    def last_batch(self) -> int:
        """Return the number of the last batch in the file; 0 if there is none."""
        if not self._path.exists():
            return 0
        with self._path.open("rb") as file:
            return _last_batch(file)

    def append(self, heads: Iterable[SignedHead]) -> int:
        """Append the heads that follow the last one, durably; return how many were appended.

        Several processes may call this at once: a lock makes them take turns, and what another has
        appended meanwhile is skipped. A line cut off by a crash is removed first.

        Raises:
            Unusable: The file is not there. It is never made anew: its absence is what shows that
                somebody took it.
        """
        if not self._path.exists():
            raise Unusable(f"The file of signed heads is missing: restore {self._path}.")
        appended = 0
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _drop_cut_line(file)
            last = _last_batch(file)
            for signed in heads:
                if signed.head.batch_id == last + 1:
                    file.write(signed.as_line())
                    last += 1
                    appended += 1
            file.flush()
            os.fsync(file.fileno())
        return appended

    def lines(self) -> Iterable[bytes]:
        """Yield the file's complete lines."""
        if self._path.exists():
            with self._path.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):
                        yield line


def _last_batch(file: BinaryIO) -> int:
    """Return the last complete line's batch, reading the end of the file only."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 4096))
    complete = [line for line in file.readlines() if line.endswith(b"\n")]
    if not complete:
        return 0
    try:
        return read_head(complete[-1]).head.batch_id
    except UnreadableHead:
        raise Unusable(
            "The last line of the heads file cannot be read: run wasl verify, restore the file."
        ) from None


def _drop_cut_line(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - 4096)
    file.seek(start)
    tail = file.read()
    if tail and not tail.endswith(b"\n"):
        file.truncate(start + tail.rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)


def as_signed_head(row: Mapping[str, Any]) -> SignedHead:
    """Return a row of `ledger_batch` as the head it states."""
    head = Head(row["id"], row["total_count"], row["total_minor"], bytes(row["hash"]))
    return SignedHead(head, row["key_id"], bytes(row["signature"]))
