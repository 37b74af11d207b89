"""A guess at how large a notice can be set so that it fits on its sheet. Pure.

Only a guess, from the number of letters: it saves time. What does not fit after all is set smaller
where it is drawn (gateway.papers.compile), and what was guessed too small stays so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Final

SHEET_MM: Final = 297
STEP: Final = 0.96

# Of the template, in millimetres and, where it grows with the text, in em.
_MARGINS_MM: Final = 23.0
_CARD_MM: Final = 3.6
_EM_MM: Final = 8.6 * 25.4 / 72
_LINE_EM: Final = 1.39
_LETTER_EM: Final = 0.58
"""How wide a letter is, on average, with what is lost at the ends of lines."""

_ALWAYS_EM: Final = 33.0
"""Letterhead, titles, what stands out, and the heads and the sum of the tables."""
_WAYS_HEAD_EM: Final = 4.0

# Room around the text of a row, in em, and its width in millimetres.
_BAND: Final = (4.2, 80.0)
_FACT: Final = (1.85, 48.0)
_LINE: Final = (1.85, 75.0)
_SENTENCE: Final = (1.75, 92.0)


def scale_of(page: Mapping[str, Any]) -> float:
    """Return 1, or as much less as a notice with this data needs."""
    scale = 1.0
    while _height_mm(page, scale) > SHEET_MM and scale > STEP**20:
        scale *= STEP
    return scale


def _height_mm(page: Mapping[str, Any], scale: float) -> float:
    ways = page["ways"]["rows"]
    rows = [(_BAND, [band["text"]]) for band in page["bands"]]
    rows += [(_FACT, [fact["value"]]) for fact in page["who"]["rows"]]
    rows += [(_LINE, [line["label"], line["rule"]]) for line in page["due"]["lines"]]
    rows += [(_SENTENCE, [sentence]) for sentence in (*page["closing"], *page["notes"])]
    rows += [(_SENTENCE, [_run_together(way)]) for way in ways]
    em = _ALWAYS_EM + (_WAYS_HEAD_EM if ways else 0)
    for (around, width), parts in rows:
        lines = sum(_lines(part, width / scale) for part in parts if part[0])
        em += around + _LINE_EM * (lines - 1)
    codes = [card["side_mm"] + _CARD_MM for card in page["codes"]]
    return _MARGINS_MM + max(codes, default=0) + em * scale * _EM_MM


def _lines(pair: Sequence[str], width_mm: float) -> int:
    return max(ceil(len(text) * _LETTER_EM * _EM_MM / width_mm) for text in pair)


def _run_together(way: Mapping[str, Any]) -> list[str]:
    parts = (way["name"], way["how"], way["limit"], way["fee"])
    return [" ".join(of_language) for of_language in zip(*parts, strict=True)]
