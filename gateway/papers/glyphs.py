"""Which characters a font can show, read from the font itself.

A character that no font has would be printed as an empty box, and a tagged PDF with such a box is
refused. So what cannot be shown is found before, and stands as `�`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Final

UNKNOWN: Final = "\ufffd"


def shown_by(font: Path) -> frozenset[int]:
    """Return the code points that a TrueType font has a glyph for, in the Basic Plane.

    Reads the one table that every such font has for it (`cmap`, format 4): segments of code
    points, each with a shift to its glyphs or a place in a list of them. Glyph 0 is the empty box.
    """
    data = font.read_bytes()
    table = _segments_at(data)
    (twice,) = struct.unpack_from(">H", data, table + 6)
    ends, starts, shifts, places = (
        struct.unpack_from(f">{twice // 2}H", data, table + offset)
        for offset in (14, 16 + twice, 16 + 2 * twice, 16 + 3 * twice)
    )
    shown = set()
    for n, (start, end, shift, place) in enumerate(zip(starts, ends, shifts, places, strict=True)):
        for code in range(start, end + 1):
            glyph = code
            if place:
                listed = table + 16 + 3 * twice + 2 * n + place + 2 * (code - start)
                (glyph,) = struct.unpack_from(">H", data, listed) if code < 0xFFFF else (0,)
            if glyph and (glyph + shift) & 0xFFFF:
                shown.add(code)
    return frozenset(shown - {0xFFFF})


def not_among(shown: Iterable[int]) -> re.Pattern[str]:
    """Return a pattern of runs of characters that are none of these, nor line breaks."""
    codes = sorted({*shown, 0x0A})
    cuts = [0, *(n for n, (a, b) in enumerate(pairwise(codes), 1) if b != a + 1), len(codes)]
    ranges = [f"{_escaped(codes[a])}-{_escaped(codes[b - 1])}" for a, b in pairwise(cuts)]
    return re.compile(f"[^{''.join(ranges)}]+")


def _escaped(code: int) -> str:
    return f"\\u{code:04x}"


def _segments_at(data: bytes) -> int:
    """Return where the table of segments begins."""
    (tables,) = struct.unpack_from(">H", data, 4)
    for n in range(tables):
        tag, _, cmap, _ = struct.unpack_from(">4sLLL", data, 12 + 16 * n)
        if tag == b"cmap":
            break
    (kinds,) = struct.unpack_from(">H", data, cmap + 2)
    for n in range(kinds):
        platform, _, offset = struct.unpack_from(">HHL", data, cmap + 4 + 8 * n)
        (form,) = struct.unpack_from(">H", data, cmap + offset)
        if platform == 3 and form == 4:
            return int(cmap + offset)
    raise ValueError("the font has no table of segments")
