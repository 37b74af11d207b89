"""The signed receipt: what was paid, proved by its own text to anyone who has our public key. Pure.

A receipt is claims in CBOR (RFC 8949), signed with Ed25519 as COSE_Sign1 (RFC 9052), written in
base45 (RFC 9285) behind `AMO1:`, so that a QR code holds it in alphanumeric mode. It proves that
we issued it then, not that the payment still stands. It names nobody.

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
from datetime import UTC, datetime
from typing import Any, Final

import base45
import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.money import AMOUNT_MINOR_MAX

ISSUER: Final = "amo-gw"
PREFIX: Final = "AMO1:"
CODE_CHARS_MAX: Final = 2_048
"""Eight times a receipt: what is longer is none, and is not looked at."""

_SIGN1_TAG: Final = 18
_SIGN1_BYTE: Final = b"\xd2"  # that tag, written
_EDDSA: Final = cbor2.dumps({1: -8})
_KEY_ID: Final = 4

# Issuer and time are registered (RFC 8392); the rest, from -70001 down, is for private use:
# receipt number, reference, centimes, period, channel.
_LABELS: Final = (1, 6, -70001, -70002, -70003, -70004, -70005)

_DEPTH_MAX: Final = 4
_YEAR_10000: Final = 253_402_300_800  # seconds; no datetime holds more
_BROKEN_LINE = re.compile(r"[^\S ]+")


@dataclass(frozen=True, slots=True)
class Claims:
    """What a receipt says."""

    receipt_number: str
    reference: str
    amount_minor: int
    """Centimes of dirham."""

    paid_at: datetime
    """Aware, in whole seconds."""

    period: str
    channel: str


@dataclass(frozen=True, slots=True)
class Genuine:
    """We signed exactly this. Whether the key was retired since is for the caller to say."""

    claims: Claims
    key_id: str


@dataclass(frozen=True, slots=True)
class Changed:
    """It names a key of ours, which did not sign this content, or signed what is no receipt."""

    key_id: str


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """Whole, and not of our making: by a key that we never had, or None if of another form."""

    key_id: str | None


@dataclass(frozen=True, slots=True)
class Cut:
    """A receipt code of which a part is missing or damaged: scan or copy it again."""


@dataclass(frozen=True, slots=True)
class NotAReceipt:
    """Some other text."""


Reading = Genuine | Changed | ForeignKey | Cut | NotAReceipt


def sign(claims: Claims, *, key_id: str, private_key: Ed25519PrivateKey) -> bytes:
    """Return the receipt as a tagged COSE_Sign1. The same claims and key give the same bytes."""
    assert claims.paid_at.tzinfo is not None
    assert claims.paid_at.microsecond == 0
    assert 0 < claims.amount_minor <= AMOUNT_MINOR_MAX
    values = (
        ISSUER,
        int(claims.paid_at.timestamp()),
        claims.receipt_number,
        claims.reference,
        claims.amount_minor,
        claims.period,
        claims.channel,
    )
    payload = cbor2.dumps(dict(zip(_LABELS, values, strict=True)))
    signature = private_key.sign(_signed_bytes(payload))
    message = [_EDDSA, {_KEY_ID: key_id.encode("ascii")}, payload, signature]
    return cbor2.dumps(cbor2.CBORTag(_SIGN1_TAG, message))


def as_text(signed: bytes) -> str:
    """Return a signed receipt as its code. It may hold spaces, which count."""
    encoded: bytes = base45.b45encode(signed)
    return PREFIX + encoded.decode("ascii")


def read(text: str, keys: Mapping[str, Ed25519PublicKey]) -> Reading:
    """Return what a scanned or pasted text is worth as a receipt.

    Takes small letters, white space and direction marks around it, lines broken on the way.

    Args:
        text: Anything.
        keys: Every key that we ever published, by id.
    """
    candidates = _candidates(text)
    if candidates is None:
        return NotAReceipt()
    readings = [read_signed(signed, keys) for signed in candidates]
    return next((r for r in readings if isinstance(r, Genuine)), (readings or [Cut()])[0])


def claimed(text: str) -> Claims | None:
    """Return what a code claims, unverified: good for finding the payment, never for believing."""
    for signed in _candidates(text) or []:
        try:
            return _claims(_message(signed)[2])
        except ValueError:
            continue
    return None


def _candidates(text: str) -> list[bytes] | None:
    """Return the bytes that a code may mean, likeliest first; None if it is no receipt code.

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


def read_signed(signed: bytes, keys: Mapping[str, Ed25519PublicKey]) -> Reading:
    """Return what the bytes of a code are worth: `read`, once its text is decoded."""
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
        return Genuine(_claims(payload), key_id)
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


def _claims(payload: bytes) -> Claims:
    """Return the claims that a payload states; those we do not know are left alone.

    Raises:
        ValueError: It does not state a receipt's.
    """
    stated = _whole_item(payload)
    if not isinstance(stated, dict):
        raise ValueError("no claims")
    match [stated.get(label) for label in _LABELS]:
        case [
            str(issuer),
            int(paid),
            str(number),
            str(reference),
            int(amount),
            str(period),
            str(channel),
        ] if issuer == ISSUER and 0 <= paid < _YEAR_10000 and 0 < amount <= AMOUNT_MINOR_MAX:
            paid_at = datetime.fromtimestamp(paid, UTC)
            return Claims(number, reference, amount, paid_at, period, channel)
    raise ValueError("not the claims of a receipt")


def _whole_item(data: bytes) -> Any:
    """Return the one CBOR item that these bytes are.

    Reads what receipts are made of: integers, bytes, texts, arrays and maps of stated length.

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
    raise ValueError("a kind of item that no receipt has")


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
