"""Draw a text as a QR code: SVG for pages, one-bit PNG for documents. Pure.

`qrcode` draws. Most of its time goes into trying eight masks and taking the tidiest, and some into
finding the version by encoding the text again and again. Here the mask is always 2, which readers
see no difference in, and the version is reckoned: a code takes a fifth of the time.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from html import escape
from typing import Final

import qrcode
from qrcode import util
from qrcode.constants import ERROR_CORRECT_M

QUIET_MODULES: Final = 4
"""The light margin that the standard asks for on every side."""

_MASK: Final = 2
_VERSION_MAX: Final = 40
_ALPHANUMERIC: Final = frozenset(util.ALPHA_NUM)
_RUN = re.compile(rb"\x01+")
_AS_PIXELS: Final = bytes.maketrans(b"\x00\x01", b"10")  # in a PNG of one bit, 1 is white


class PayloadTooLong(ValueError):
    """The text does not fit the largest symbol: 2331 bytes, or 3391 characters of base45."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A QR code without its margin."""

    modules: tuple[bytes, ...]
    """Rows from the top, a byte for each module: 1 is dark, 0 is light."""

    @property
    def size(self) -> int:
        """Modules a side, without the margin."""
        return len(self.modules)

    def path(self, quiet: int = QUIET_MODULES) -> str:
        """Return SVG path data in modules, to be stroked one unit wide and not filled.

        One line for each run of dark modules: half the length of outlines that are filled.
        """
        parts = []
        for y, row in enumerate(self.modules, quiet):
            parts.append(f"M{quiet} {y}.5")
            at = 0
            for run in _RUN.finditer(row):
                start, end = run.span()
                parts.append(f"m{start - at} 0h{end - start}")
                at = end
        return "".join(parts)

    def svg(self, title: str, quiet: int = QUIET_MODULES) -> str:
        """Return an SVG image that stands alone or in a page; a screen reader says its title."""
        side = self.size + 2 * quiet
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}" role="img"'
            f' shape-rendering="crispEdges"><title>{escape(title, quote=False)}</title>'
            f'<path fill="#fff" d="M0 0h{side}v{side}H0z"/>'
            f'<path stroke="#000" d="{self.path(quiet)}"/></svg>'
        )

    def png(self, quiet: int = QUIET_MODULES) -> bytes:
        """Return a black and white PNG, a pixel for each module: enlarge it without smoothing."""
        side = self.size + 2 * quiet
        row_bytes = -(-side // 8)
        margin = b"1" * quiet
        rest = b"1" * (8 * row_bytes - quiet - self.size)
        blank = (b"\x00" + b"\xff" * row_bytes) * quiet
        lines = (
            b"\x00" + int(margin + row.translate(_AS_PIXELS) + rest, 2).to_bytes(row_bytes, "big")
            for row in self.modules
        )
        return b"".join(
            [
                b"\x89PNG\r\n\x1a\n",
                _png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)),
                _png_chunk(b"IDAT", zlib.compress(blank + b"".join(lines) + blank)),
                _png_chunk(b"IEND", b""),
            ]
        )


def symbol(payload: str) -> Symbol:
    """Return the smallest symbol of error correction M that holds this text.

    Upper-case letters, digits and base45 are held in alphanumeric mode, all else as UTF-8 bytes.

    Raises:
        PayloadTooLong: No symbol holds it.
    """
    raw = payload.encode()
    mode = util.MODE_ALPHA_NUM if _ALPHANUMERIC.issuperset(raw) else util.MODE_8BIT_BYTE
    drawing = qrcode.QRCode(
        version=_version(mode, len(raw)),
        error_correction=ERROR_CORRECT_M,
        border=0,
        mask_pattern=_MASK,
    )
    drawing.add_data(util.QRData(raw, mode=mode))
    drawing.make(fit=False)
    return Symbol(tuple(map(bytes, drawing.modules)))


def _version(mode: int, length: int) -> int:
    """Return the smallest version that holds so many characters."""
    bits = 8 * length if mode == util.MODE_8BIT_BYTE else length // 2 * 11 + length % 2 * 6
    for version in range(1, _VERSION_MAX + 1):
        head = 4 + util.length_in_bits(mode, version)
        if head + bits <= util.BIT_LIMIT_TABLE[ERROR_CORRECT_M][version]:
            return version
    raise PayloadTooLong("The text is too long for a QR code.")


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
