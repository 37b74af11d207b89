"""The signed receipt: what was paid, proved by its own text to anyone who has our public key. Pure.

It proves that we issued it then, not that the payment still stands. It names nobody. How it is
signed and written, gateway.codes.cose says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.codes import cose
from gateway.codes.cose import (
    CODE_CHARS_MAX,
    ISSUER,
    PREFIX,
    YEAR_10000,
    Changed,
    Cut,
    ForeignKey,
    as_text,
)
from gateway.money import AMOUNT_MINOR_MAX

__all__ = [
    "CODE_CHARS_MAX",
    "ISSUER",
    "PREFIX",
    "Changed",
    "Claims",
    "Cut",
    "ForeignKey",
    "Genuine",
    "NotAReceipt",
    "Reading",
    "as_text",
    "claimed",
    "read",
    "read_signed",
    "sign",
]

# Issuer and time are registered (RFC 8392); the rest, from -70001 down, is for private use:
# receipt number, reference, centimes, period, channel.
_LABELS: Final = (1, 6, -70001, -70002, -70003, -70004, -70005)


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
class NotAReceipt:
    """Some other text."""


Reading = Genuine | Changed | ForeignKey | Cut | NotAReceipt


def sign(claims: Claims, *, key_id: str, private_key: Ed25519PrivateKey) -> bytes:
    """Return the receipt as a tagged COSE_Sign1. The same claims and key give the same bytes."""
    assert claims.paid_at.tzinfo is not None
    assert claims.paid_at.microsecond == 0
    assert 0 < claims.amount_minor <= AMOUNT_MINOR_MAX
    values: tuple[int | str, ...] = (
        ISSUER,
        int(claims.paid_at.timestamp()),
        claims.receipt_number,
        claims.reference,
        claims.amount_minor,
        claims.period,
        claims.channel,
    )
    claims_by_label = dict(zip(_LABELS, values, strict=True))
    return cose.sign(claims_by_label, key_id=key_id, private_key=private_key)


def read(text: str, keys: Mapping[str, Ed25519PublicKey]) -> Reading:
    """Return what a scanned or pasted text is worth as a receipt.

    Takes small letters, white space and direction marks around it, lines broken on the way.

    Args:
        text: Anything.
        keys: Every key that we ever published, by id.
    """
    candidates = cose.candidates(text)
    if candidates is None:
        return NotAReceipt()
    readings = [read_signed(signed, keys) for signed in candidates]
    return next((r for r in readings if isinstance(r, Genuine)), (readings or [Cut()])[0])


def claimed(text: str) -> Claims | None:
    """Return what a code claims, unverified: good for finding the payment, never for believing."""
    for stated in cose.stated_by(text):
        try:
            return _claims(stated)
        except ValueError:
            continue
    return None


def read_signed(signed: bytes, keys: Mapping[str, Ed25519PublicKey]) -> Reading:
    """Return what the bytes of a code are worth: `read`, once its text is decoded."""
    opened = cose.open_signed(signed, keys)
    if not isinstance(opened, cose.Opened):
        return opened
    try:
        return Genuine(_claims(opened.stated), opened.key_id)
    except ValueError:
        return Changed(opened.key_id)


def _claims(stated: cose.Stated) -> Claims:
    """Return a receipt's claims; those we do not know are left alone.

    Raises:
        ValueError: They are not a receipt's.
    """
    match [stated.get(label) for label in _LABELS]:
        case [
            str(issuer),
            int(paid),
            str(number),
            str(reference),
            int(amount),
            str(period),
            str(channel),
        ] if issuer == ISSUER and 0 <= paid < YEAR_10000 and 0 < amount <= AMOUNT_MINOR_MAX:
            paid_at = datetime.fromtimestamp(paid, UTC)
            return Claims(number, reference, amount, paid_at, period, channel)
    raise ValueError("not the claims of a receipt")
