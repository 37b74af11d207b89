"""Draw a text as a QR code: SVG for pages, one-bit PNG for documents. Pure.

`qrcode` knows the standard: versions, blocks, fixed patterns, where a bit goes. Two things of it
are not used, for they are nearly all of its time when a million notices are printed. It tries
eight masks and takes the tidiest; here the mask is always 2, which readers see no difference in.
It puts the data together bit by bit and divides polynomials by recursion; here both are done on
whole integers. A symbol takes a quarter of the time; a test holds it against `qrcode`'s own.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from itertools import chain, zip_longest
from typing import Final

import qrcode
from qrcode import base, util
from qrcode.constants import ERROR_CORRECT_M

QUIET_MODULES: Final = 4
"""The light margin that the standard asks for on every side."""

_MASK: Final = 2
_VERSION_MAX: Final = 40
_ALPHANUMERIC: Final = {character: value for value, character in enumerate(util.ALPHA_NUM)}
_FILLER: Final = b"\xec\x11"
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
    mode, content = _content(raw)
    for version in range(1, _VERSION_MAX + 1):
        head = f"{mode:04b}{len(raw):0{util.length_in_bits(mode, version)}b}"
        if len(head) + len(content) <= util.BIT_LIMIT_TABLE[ERROR_CORRECT_M][version]:
            break
    else:
        raise PayloadTooLong("The text is too long for a QR code.")
    drawing = qrcode.QRCode(
        version=version, error_correction=ERROR_CORRECT_M, border=0, mask_pattern=_MASK
    )
    drawing.data_cache = _codewords(head + content, version)
    drawing.make(fit=False)
    return Symbol(tuple(map(bytes, drawing.modules)))


def _content(raw: bytes) -> tuple[int, str]:
    """Return the mode that holds these bytes in the least room, and the bits it makes of them."""
    try:
        values = [_ALPHANUMERIC[character] for character in raw]
    except KeyError:
        return util.MODE_8BIT_BYTE, f"{int.from_bytes(raw, 'big'):0{8 * len(raw)}b}"
    pairs = zip(values[::2], values[1::2], strict=False)
    last = f"{values[-1]:06b}" if len(values) % 2 else ""
    return util.MODE_ALPHA_NUM, "".join([f"{a * 45 + b:011b}" for a, b in pairs]) + last


def _codewords(bits: str, version: int) -> list[int]:
    """Return the bytes of a symbol in the order they are drawn: data, then what corrects it."""
    room = util.BIT_LIMIT_TABLE[ERROR_CORRECT_M][version]
    bits += "0000"  # the end; where it does not fit, the cut below takes it off again
    bits += "0" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    data = (data + _FILLER * room)[: room // 8]
    blocks, checks, start = [], [], 0
    for block in base.rs_blocks(version, ERROR_CORRECT_M):
        blocks.append(data[start : start + block.data_count])
        checks.append(_check_bytes(blocks[-1], block.total_count - block.data_count))
        start += block.data_count
    return [*_interleaved(blocks), *_interleaved(checks)]


def _interleaved(blocks: Sequence[bytes]) -> list[int]:
    """Return the first byte of every block, then every second byte; shorter blocks end sooner."""
    return [byte for byte in chain.from_iterable(zip_longest(*blocks)) if byte is not None]


def _check_bytes(data: bytes, count: int) -> bytes:
    """Return the Reed-Solomon bytes of a block: the remainder, found as a CRC is, by a table."""
    table = _remainders(count)
    high = 8 * (count - 1)
    low = (1 << high) - 1
    remainder = 0
    for byte in data:
        remainder = ((remainder & low) << 8) ^ table[(remainder >> high) ^ byte]
    return remainder.to_bytes(count, "big")


@cache
def _remainders(count: int) -> list[int]:
    """Return what each leading byte leaves when divided by the generator of this many bytes."""
    generator = base.Polynomial([1], 0)
    for power in range(count):
        generator = generator * base.Polynomial([1, base.gexp(power)], 0)
    logarithms = [base.glog(term) for term in list(generator)[1:]]
    return [0] + [
        int.from_bytes([base.gexp(base.glog(byte) + log) for log in logarithms], "big")
        for byte in range(1, 256)
    ]


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
