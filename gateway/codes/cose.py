"""Signed codes: claims in CBOR, proved by their own text to anyone who has our public key. Pure.

Claims in CBOR (RFC 8949), signed with Ed25519 as COSE_Sign1 (RFC 9052), written in base45
(RFC 9285) behind `AMO1:`, so that a QR code holds them in alphanumeric mode. What is claimed, the
modules of receipts and attestations say.

COSE is done here in a few lines. The `cwt` library takes any algorithm and message kind that a
stranger puts in, does not say which check failed, and takes a seventh of a second to import. And
what a stranger hands in is read by the small reader below, never by `cbor2`: twenty bytes can make
that compute a number of a billion digits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import base45
import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ISSUER: Final = "amo-gw"
PREFIX: Final = "AMO1:"
CODE_CHARS_MAX: Final = 2_048
"""Eight times a receipt: what is longer is none, and is not looked at."""

YEAR_10000: Final = 253_402_300_800
"""In seconds; no datetime holds more."""

_SIGN1_TAG: Final = 18
_SIGN1_BYTE: Final = b"\xd2"  # that tag, written
_EDDSA: Final = cbor2.dumps({1: -8})
_KEY_ID: Final = 4

_DEPTH_MAX: Final = 4
_BROKEN_LINE = re.compile(r"[^\S ]+")

Stated = dict[Any, Any]
"""Claims by their labels, as they are written."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Our key signed exactly this, whatever it is."""

    stated: Stated
    key_id: str


@dataclass(frozen=True, slots=True)
class Changed:
    """It names a key of ours, which did not sign this content, or signed something else."""

    key_id: str


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """Whole, and not of our making: by a key that we never had, or None if of another form."""

    key_id: str | None


@dataclass(frozen=True, slots=True)
class Cut:
    """A code of which a part is missing or damaged: scan or copy it again."""


def sign(claims: Mapping[int, int | str], *, key_id: str, private_key: Ed25519PrivateKey) -> bytes:
    """Return claims as a tagged COSE_Sign1. The same claims and key give the same bytes."""
    payload = cbor2.dumps(dict(claims))
    signature = private_key.sign(_signed_bytes(payload))
    message = [_EDDSA, {_KEY_ID: key_id.encode("ascii")}, payload, signature]
    return cbor2.dumps(cbor2.CBORTag(_SIGN1_TAG, message))


def as_text(signed: bytes) -> str:
    """Return what is signed as its code. It may hold spaces, which count."""
    encoded: bytes = base45.b45encode(signed)
    return PREFIX + encoded.decode("ascii")


def stated_by(text: str) -> list[Stated]:
    """Return what a code may claim, unverified: good for finding a row, never for believing."""
    found = []
    for signed in candidates(text) or []:
        try:
            found.append(_claims(_message(signed)[2]))
        except ValueError:
            continue
    return found


def candidates(text: str) -> list[bytes] | None:
    """Return the bytes that a code may mean, likeliest first; None if it is no code of ours.

    Where a line was broken, nothing may have stood, or a space. The spaces at the end are none of
    the code's: the last character of each base45 group is worth less than a space.
    """
    marked = (c for c in text[: CODE_CHARS_MAX + 1] if unicodedata.category(c) != "Cf")
    plain = "".join(marked).strip().replace("\N{NO-BREAK SPACE}", " ").upper()
    if not plain.startswith(PREFIX):
        return None
    if len(text) > CODE_CHARS_MAX:
        return []
    lines = _BROKEN_LINE.split(plain.removeprefix(PREFIX))
    candidates = []
    for code in dict.fromkeys(["".join(lines), " ".join(lines)]):
        try:
            candidates.append(base45.b45decode(code))
        except ValueError:
            continue
    return candidates


def open_signed(
    signed: bytes, keys: Mapping[str, Ed25519PublicKey]
) -> Opened | Changed | ForeignKey | Cut:
    """Return what the bytes of a code are worth.

    Args:
        signed: The bytes.
        keys: Every key that we ever published, by id.
    """
    if signed and not signed.startswith(_SIGN1_BYTE):
        return ForeignKey(None)
    try:
        protected, unprotected, payload, signature = _message(signed)
    except ValueError:
        return Cut()
    key_id = _key_id(unprotected)
    if key_id is None or key_id not in keys:
        return ForeignKey(key_id)
    if protected != _EDDSA:
        return Changed(key_id)
    try:
        keys[key_id].verify(signature, _signed_bytes(payload))
        return Opened(_claims(payload), key_id)
    except (InvalidSignature, ValueError):
        return Changed(key_id)


def _key_id(unprotected: Mapping[Any, Any]) -> str | None:
    written = unprotected.get(_KEY_ID)
    return written.decode("ascii", "replace") if isinstance(written, bytes) else None


def _signed_bytes(payload: bytes) -> bytes:
    """Return what a signature covers: algorithm and claims, and nothing from outside (RFC 9052)."""
    return cbor2.dumps(["Signature1", _EDDSA, b"", payload])


def _message(signed: bytes) -> tuple[bytes, dict[Any, Any], bytes, bytes]:
    """Return protected header, unprotected header, payload and signature of a COSE_Sign1.

    Raises:
        ValueError: The bytes are none, or not a whole one.
    """
    if not signed.startswith(_SIGN1_BYTE):
        raise ValueError("no COSE_Sign1")
    match _whole_item(signed.removeprefix(_SIGN1_BYTE)):
        case [bytes(protected), dict(unprotected), bytes(payload), bytes(signature)]:
            return protected, unprotected, payload, signature
    raise ValueError("no COSE_Sign1")


def _claims(payload: bytes) -> Stated:
    """Return the claims that a payload states.

    Raises:
        ValueError: It states none.
    """
    stated = _whole_item(payload)
    if not isinstance(stated, dict):
        raise ValueError("no claims")
    return stated


def _whole_item(data: bytes) -> Any:
    """Return the one CBOR item that these bytes are.

    Reads what codes are made of: integers, bytes, texts, arrays and maps of stated length.

    Raises:
        ValueError: They are cut short, go on after it, or hold anything else.
    """
    item, end = _item(data, 0, 0)
    if end != len(data):
        raise ValueError("bytes after the end")
    return item


def _item(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """Return the item that begins here, and where the next one does."""
    kind, count = divmod(_slice(data, at, 1)[0], 32)
    at += 1
    if count >= 24:
        if count >= 28:
            raise ValueError("no stated length")
        width = 1 << (count - 24)
        count = int.from_bytes(_slice(data, at, width), "big")
        at += width
    match kind:
        case 0:
            return count, at
        case 1:
            return -1 - count, at
        case 2:
            return _slice(data, at, count), at + count
        case 3:
            return _slice(data, at, count).decode(), at + count
        case 4:
            return _items(data, at, count, depth)
        case 5:
            flat, at = _items(data, at, 2 * count, depth)
            names = flat[::2]
            if not all(isinstance(name, int | str) for name in names) or len(set(names)) < count:
                raise ValueError("names of a map that are none, or twice there")
            return dict(zip(names, flat[1::2], strict=True)), at
    raise ValueError("a kind of item that no code has")


def _items(data: bytes, at: int, count: int, depth: int) -> tuple[list[Any], int]:
    if depth == _DEPTH_MAX:
        raise ValueError("nested too deep")
    items = []
    for _ in range(count):
        item, at = _item(data, at, depth + 1)
        items.append(item)
    return items, at


def _slice(data: bytes, at: int, count: int) -> bytes:
    if at + count > len(data):
        raise ValueError("cut short")
    return data[at : at + count]
