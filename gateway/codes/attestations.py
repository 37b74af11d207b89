"""The signed attestation: that somebody was up to date on a day. Pure. It names nobody.

Whoever checks it without a network learns that we issued it, for which period and until when it is
valid; whose it is and whether it still stands, only the page behind its number says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.clock import INSTITUTION_ZONE, day_of
from gateway.codes import cose
from gateway.codes.cose import ISSUER, YEAR_10000, Changed, Cut, ForeignKey

UP_TO_DATE: Final = "up-to-date"
"""What is attested."""

# Issuer, end and time are registered (RFC 8392); the rest is for private use, as in receipts:
# number, last period paid, and what is attested.
_LABELS: Final = (1, 4, 6, -70001, -70004, -70006)
_WHAT: Final = -70006


@dataclass(frozen=True, slots=True)
class Claims:
    """What an attestation says."""

    number: str
    period: str
    """The last one that is settled."""
    issued_at: datetime
    """Aware, in whole seconds."""
    valid_until: date
    """The last day, in Casablanca."""


@dataclass(frozen=True, slots=True)
class Genuine:
    """We signed exactly this."""

    claims: Claims
    key_id: str


@dataclass(frozen=True, slots=True)
class NotAnAttestation:
    """Some other text, or a code that claims something else."""


Reading = Genuine | Changed | ForeignKey | Cut | NotAnAttestation


def sign(claims: Claims, *, key_id: str, private_key: Ed25519PrivateKey) -> bytes:
    """Return the attestation as a tagged COSE_Sign1."""
    assert claims.issued_at.tzinfo is not None
    assert claims.issued_at.microsecond == 0
    end = datetime.combine(claims.valid_until + timedelta(days=1), time(), INSTITUTION_ZONE)
    values: tuple[int | str, ...] = (
        ISSUER,
        int(end.timestamp()),
        int(claims.issued_at.timestamp()),
        claims.number,
        claims.period,
        UP_TO_DATE,
    )
    by_label = dict(zip(_LABELS, values, strict=True))
    return cose.sign(by_label, key_id=key_id, private_key=private_key)


def is_one(text: str) -> bool:
    """Say whether a code claims, rightly or wrongly, to attest something."""
    return any(_WHAT in stated for stated in cose.stated_by(text))


def read(text: str, keys: Mapping[str, Ed25519PublicKey]) -> Reading:
    """Return what a scanned or pasted text is worth as an attestation.

    Args:
        text: Anything.
        keys: Every key that we ever published, by id.
    """
    candidates = cose.candidates(text)
    if candidates is None:
        return NotAnAttestation()
    readings = [read_signed(signed, keys) for signed in candidates]
    return next((r for r in readings if isinstance(r, Genuine)), (readings or [Cut()])[0])


def claimed(signed: bytes) -> Claims | None:
    """Return what the bytes of a code claim, unverified: good for what our own books hold."""
    for stated in cose.stated_by(cose.as_text(signed)):
        return _claims(stated)
    return None


def read_signed(signed: bytes, keys: Mapping[str, Ed25519PublicKey]) -> Reading:
    """Return what the bytes of a code are worth."""
    opened = cose.open_signed(signed, keys)
    if not isinstance(opened, cose.Opened):
        return opened
    claims = _claims(opened.stated)
    return NotAnAttestation() if claims is None else Genuine(claims, opened.key_id)


def _claims(stated: cose.Stated) -> Claims | None:
    """Return an attestation's claims; None where they are something else's."""
    match [stated.get(label) for label in _LABELS]:
        case [str(issuer), int(end), int(issued), str(number), str(period), str(what)] if (
            issuer == ISSUER and what == UP_TO_DATE and 0 <= issued < end < YEAR_10000
        ):
            issued_at = datetime.fromtimestamp(issued, UTC)
            last = day_of(datetime.fromtimestamp(end - 1, UTC))
            return Claims(number, period, issued_at, last)
    return None
