from __future__ import annotations

import pytest

from gateway.papers.compile import FONTS
from gateway.papers.fitting import scale_of
from gateway.papers.glyphs import not_among, shown_by
from gateway.papers.notice import notice_data
from gateway.papers.writing import Occasion
from tests.gateway.papers.samples import ALL, CROWDED, NOW, OPEN, SANDBOX, SHIPPED

LATIN, ARABIC = "NotoSans", "NotoNaskhArabic"


def test_there_are_four_fonts_and_their_licence() -> None:
    assert sorted(path.name for path in FONTS.iterdir()) == [
        "NotoNaskhArabic-Bold.ttf",
        "NotoNaskhArabic-Regular.ttf",
        "NotoSans-Bold.ttf",
        "NotoSans-Regular.ttf",
        "OFL.txt",
    ]


@pytest.mark.parametrize("weight", ["Regular", "Bold"])
def test_a_font_says_what_it_shows(weight: str) -> None:
    latin, arabic = (shown_by(FONTS / f"{name}-{weight}.ttf") for name in (LATIN, ARABIC))
    assert {ord(c) for c in "AZaz09éÉœç’« »…×–\u202f\u00a0"} <= latin
    assert {ord(c) for c in "ابتثةىيءآأإؤئّ،؛؟09"} <= arabic
    assert ord("ا") not in latin
    assert ord("a") not in arabic
    assert not {ord("ⵣ"), ord("名"), 0x1F600, 0xFFFF} & (latin | arabic)


def test_runs_of_what_is_not_shown_are_found_whole() -> None:
    strange = not_among({ord(c) for c in "abcz ]-^\\"})
    assert strange.sub("?", "abcdez ]-^\\\nxyz😀") == "abc?z ]-^\\\n?z?"


def test_most_notices_are_guessed_to_fit_as_they_do() -> None:
    data = notice_data(list(ALL.values()), Occasion(SANDBOX, SHIPPED, masked=False, now=NOW))
    scales = [scale_of(page) for page in data["pages"]]
    assert scales[list(ALL).index("open")] == 1
    assert scales[list(ALL).index("crowded")] < 1
    assert OPEN is not CROWDED
