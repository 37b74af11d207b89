"""Ed25519 signing (RFC 8032, 5.1), for signatures `v1a` of Standard Webhooks.

The standard library has none. Written from the standard, slow (milliseconds) and not in constant
time: good for keys that are invented for a trial, and for nothing else.
"""

from __future__ import annotations

import hashlib
from typing import Final

_P: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_BASE_Y: Final = 4 * pow(5, -1, _P) % _P

_Point = tuple[int, int, int, int]
"""X, Y, Z and T: x = X/Z, y = Y/Z, x*y = T/Z."""

_ZERO: Final[_Point] = (0, 1, 1, 0)


def _even_x(y: int) -> int:
    """Return the even x of the point with this y."""
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    return x if x % 2 == 0 else _P - x


def _add(p: _Point, q: _Point) -> _Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % _P, (p[1] + p[0]) * (q[1] + q[0]) % _P
    c, d = 2 * p[3] * q[3] * _D % _P, 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _doublings() -> list[_Point]:
    """Return the base point times 1, 2, 4 and so on."""
    x = _even_x(_BASE_Y)
    points = [(x, _BASE_Y, 1, x * _BASE_Y % _P)]
    while len(points) < 256:
        points.append(_add(points[-1], points[-1]))
    return points


_DOUBLINGS: Final = _doublings()


def _times_base(scalar: int) -> bytes:
    """Return the encoding of the base point times a number."""
    point = _ZERO
    for at, doubled in enumerate(_DOUBLINGS):
        if scalar >> at & 1:
            point = _add(point, doubled)
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


class SigningKey:
    """A private key, from its seed of 32 bytes."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise ValueError("an Ed25519 seed has 32 bytes")
        digest = hashlib.sha512(seed).digest()
        self._scalar = _number(digest[:32]) & ~7 & (1 << 254) - 1 | 1 << 254
        self._prefix = digest[32:]
        self.public = _times_base(self._scalar)

    def sign(self, message: bytes) -> bytes:
        """Return the signature: 64 bytes."""
        r = _number(hashlib.sha512(self._prefix + message).digest()) % _ORDER
        first = _times_base(r)
        challenge = _number(hashlib.sha512(first + self.public + message).digest()) % _ORDER
        return first + ((r + challenge * self._scalar) % _ORDER).to_bytes(32, "little")
