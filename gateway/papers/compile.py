"""Data to PDF. The only module that knows typst.

A template gets its data as one JSON text, never as markup, and draws each of its `pages` on one
sheet. One compiler lives as long as the process: fonts are read and templates parsed once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Final, Literal

import typst

from gateway.papers.glyphs import UNKNOWN, not_among, shown_by

Template = Literal["notice", "receipt", "attestation"]

FOLDER: Final = Path(__file__).parent
FONTS: Final = FOLDER / "fonts"

# PDF for universal access: typst refuses to write one without title, language, structure or the
# text that stands for a picture.
_STANDARD: Final = "ua-1"

# The true minus sign is in neither font.
_LIKENESS: Final = {0x2212: "\u2013"}

_SMALLER: Final = 0.94
SCALE_MIN: Final = 0.45
"""Below it a paper is not read any more: what it says must be cut by who says it."""

# typst keeps what it laid out until it has compiled so many times again: one and a half megabytes
# a page, which is nothing for single papers, and gigabytes for files of hundreds.
_KEPT_COMPILATIONS: Final = 11
_PAGES_KEPT: Final = 20

_COUNT: Final = re.compile(rb"/Type\s*/Pages\s*/Count\s+([0-9]+)")

# A compiler serves one caller at a time, and two would not be faster: one uses every core.
_one_at_a_time = Lock()


def pdf(template: Template, data: Mapping[str, Any]) -> bytes:
    """Return the document that a template makes of data; the same bytes for the same data.

    What does not fit on its sheet is drawn smaller. Characters that the fonts cannot show stand as
    `�`.

    Args:
        template: Which papers.
        data: What they show. `pages` are shown on a sheet each, at their `scale` or less.
    """
    shown = _shown(data)
    with _one_at_a_time:
        made = _compiled(template, shown)
        while _sheets(made) > len(shown["pages"]):
            _shrink(template, shown, shown["pages"])
            made = _compiled(template, shown)
        if len(shown["pages"]) > _PAGES_KEPT:
            _forget()
    return made


def _shrink(template: Template, data: Mapping[str, Any], pages: Sequence[Any]) -> None:
    """Set those of these pages smaller that do not fit, found by halving: most files have none."""
    if len(pages) > 1:
        for half in (pages[: len(pages) // 2], pages[len(pages) // 2 :]):
            if _sheets(_compiled(template, {**data, "pages": half})) > len(half):
                _shrink(template, data, half)
        return
    pages[0]["scale"] *= _SMALLER
    assert pages[0]["scale"] >= SCALE_MIN


def _sheets(made: bytes) -> int:
    found = _COUNT.search(made)
    assert found is not None
    return int(found[1])


def _compiled(template: Template, data: Mapping[str, Any]) -> bytes:
    made = _compiler().compile(
        FOLDER / f"{template}.typ",
        format="pdf",
        sys_inputs={"data": json.dumps(data, ensure_ascii=False)},
        pdf_standards=_STANDARD,
    )
    assert isinstance(made, bytes)
    return made


def _forget() -> None:
    for _ in range(_KEPT_COMPILATIONS):
        _compiler().compile(b"", format="pdf", sys_inputs=None)


@cache
def _compiler() -> typst.Compiler:
    # Neither the machine's fonts nor typst's own: a paper looks the same wherever it is made.
    fonts = typst.Fonts(
        include_system_fonts=False, include_embedded_fonts=False, font_paths=[FONTS]
    )
    return typst.Compiler(root=FOLDER, font_paths=fonts)


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return _not_shown().sub(UNKNOWN, value.translate(_LIKENESS))
    if isinstance(value, Mapping):
        return {name: _shown(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        if value and isinstance(value[0], int):
            return value  # the bytes of a picture: thousands, and nothing to read in them
        return [_shown(part) for part in value]
    return value


@cache
def _not_shown() -> re.Pattern[str]:
    shown = {font.stem: shown_by(font) for font in FONTS.glob("*.ttf")}
    regular = shown["NotoSans-Regular"] | shown["NotoNaskhArabic-Regular"]
    bold = shown["NotoSans-Bold"] | shown["NotoNaskhArabic-Bold"]
    return not_among(regular & bold)
