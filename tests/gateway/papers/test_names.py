"""Names are other people's text: they are printed as they are, and steer nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.papers.compile import pdf
from gateway.papers.glyphs import UNKNOWN
from gateway.papers.notice import notice_data
from gateway.papers.writing import MARKS_MAX, WORD_MAX, Occasion, plain
from tests.gateway.papers.reading import everything, fonts, pages, seen, times, words
from tests.gateway.papers.samples import (
    CROWDED,
    NOW,
    OPEN,
    PART_PAID,
    SANDBOX,
    SHIPPED,
    a_notice,
    a_receipt,
    a_record,
    whose,
)

HOSTILE = [
    '#import "common.typ": *',
    "#{ panic() } #sys.inputs",
    "*[_$x^2$_]* <label> @ref // no /* comment",
    "\\u{41} \\# \\\\ `raw` ~ --- ...",
    '"], "pages": [ "{"',
    "= Heading\n\n- list\n+ enum\r\n/ term: x",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_what_looks_like_markup_is_printed_as_it_is(name: str) -> None:
    named = whose(OPEN, family_name=name, family_name_ar=None)
    assert times(a_notice(named, masked=False), f"Fatima Zahra {name}") == 2


def test_one_name_stays_in_its_place() -> None:
    """An override in one name must not turn the text beside it."""
    read = words(a_notice(whose(OPEN, family_name="Ala\u202eoui\u2067"), masked=False))
    assert "Fatima Zahra Alaoui" in read


def test_an_arabic_paper_of_a_latin_name_shows_it_in_order() -> None:
    nameless = whose(OPEN, family_name_ar=None, given_name_ar=None)
    assert seen(a_notice(nameless, masked=False)).count("FatimaZahraElIdrissi") == 2
    assert seen(a_notice(nameless)).count("F.Z.E.I.") == 2


def test_numbers_keep_their_order_in_arabic_and_stand_where_they_are_read() -> None:
    assert seen(a_notice(OPEN)).count("RF74148275036141") == 2
    assert seen(a_notice(PART_PAID)).count("R26-104882913") == 2
    receipt = a_receipt(a_record(PART_PAID, amount_minor=10000), PART_PAID)
    assert seen(receipt).count("148275036141") == 2
    # From the left, and so backwards: full stop, currency, figure; figures are never backwards.
    assert "." + "درهم"[::-1] + "63,52" in seen(receipt, right_half=True)


@pytest.mark.parametrize("name", ["😀👩‍👩‍👧", "ⵜⴰⵎⴰⵣⵉⵖⵜ", "名前", "\U0010ffff\x00", "\ud800"])
def test_what_no_font_shows_is_marked_and_no_empty_box(name: str) -> None:
    made = a_notice(whose(OPEN, family_name=f"Al {name} aoui"), masked=False)
    assert re.search(f"Al {UNKNOWN}[{UNKNOWN} ]* aoui", words(made))
    assert all("+Noto" in font for font in fonts(made))
    assert pages(made) == 1


@pytest.mark.parametrize("letter", ["W", "ض", "Ma ", "مد "])
def test_a_name_of_any_length_keeps_to_its_page(letter: str) -> None:
    name = letter * 200
    longest = whose(
        CROWDED, family_name=name, given_name=name, family_name_ar=name, given_name_ar=name
    )
    assert pages(a_notice(longest, masked=False)) == 1
    assert pages(a_notice(longest, OPEN, longest, masked=False)) == 3


@given(st.text(max_size=200))
def test_a_plain_name_is_one_line_of_short_words(name: str) -> None:
    made = plain(name)
    assert made == made.strip()
    assert all(len(word) <= WORD_MAX for part in made.split() for word in part.split("\u200b"))
    assert not set(made) & set("\n\r\t\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028")


def test_a_name_of_the_greatest_length_is_whole() -> None:
    name = "Abdelmoughit " * 9
    assert plain(f"{name}{name}") == f"{name}{name}".strip()
    assert plain("ab " * 100) == f"{'ab ' * 83}a…"


def test_a_plain_name_keeps_what_a_name_needs() -> None:
    for name in ("El Idrissi", "محمّد آيت بن حدّو", "Aït-Ben Haddou", "O’Brien", "نیما\u200cی"):
        assert plain(name) == name
    assert plain("e\u0301" + "\u0301" * 20) == "é" + "\u0301" * MARKS_MAX


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_no_name_whatever_breaks_a_notice(latin: str, arabic: str) -> None:
    named = whose(OPEN, family_name=latin, family_name_ar=arabic)
    assert pages(a_notice(named, masked=False)) == 1


def test_no_byte_of_a_masked_paper_is_of_the_name_or_number() -> None:
    content = everything(a_notice(OPEN))
    for secret in ("Idrissi", "Zahra", "190314577", "الإدريسي"):
        for spelling in (secret.encode(), secret.encode("utf-16-be")):
            assert spelling not in content
            assert spelling.hex().encode() not in content.lower()
        assert secret not in words(a_notice(OPEN))


def test_data_of_the_template_are_not_changed() -> None:
    data = notice_data([CROWDED], Occasion(SANDBOX, SHIPPED, masked=False, now=NOW))
    before = repr(data)
    pdf("notice", data)
    assert repr(data) == before
