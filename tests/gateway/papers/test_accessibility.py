"""What PDF/UA asks for, read back by another library; the compiler refuses part of it by itself."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import pikepdf
import pytest

from tests.gateway.papers.reading import Element, fonts, structure, words
from tests.gateway.papers.samples import (
    CROWDED,
    LATE,
    OPEN,
    PAID,
    a_notice,
    a_receipt,
    a_record,
)

PAPERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "notice": (lambda: a_notice(CROWDED, masked=False), "Avis d’échéance 1482 7503 6141"),
    "receipt": (lambda: a_receipt(a_record()), "Reçu de paiement R26-104882913"),
    "file": (lambda: a_notice(OPEN, LATE, PAID), "Avis d’échéance"),
}


@pytest.fixture(params=PAPERS, scope="module")
def paper(request: pytest.FixtureRequest) -> tuple[bytes, str]:
    make, title = PAPERS[request.param]
    return make(), title


def test_it_says_what_it_is_in_which_language_and_by_which_standard(
    paper: tuple[bytes, str],
) -> None:
    made, title = paper
    with pikepdf.open(BytesIO(made)) as document:
        assert document.Root.Lang == "fr-MA"
        assert document.Root.MarkInfo.Marked
        assert document.Root.ViewerPreferences.DisplayDocTitle
        with document.open_metadata() as metadata:
            assert metadata["pdfuaid:part"] == "1"
            assert metadata["dc:title"] == title
        assert "/CreationDate" not in document.docinfo


def test_only_our_fonts_are_in_it(paper: tuple[bytes, str]) -> None:
    names = fonts(paper[0])
    assert len(names) == 4
    assert all("+Noto" in name for name in names)


def test_headings_go_down_by_one_and_are_in_both_languages(paper: tuple[bytes, str]) -> None:
    tree = structure(paper[0])
    assert [each for level in (3, 4, 5, 6) for each in tree.all(f"H{level}")] == []
    titles = [each.title for each in tree.all("H1")]
    assert len(titles) % 2 == 0
    assert set(titles) in ({"Avis d’échéance", "إشعار بالأداء"}, {"Reçu de paiement", "وصل الأداء"})
    assert len(list(tree.all("H2"))) >= 2 * len(titles)


def test_arabic_is_told_to_be_arabic(paper: tuple[bytes, str]) -> None:
    assert {each.language for each in _elements(structure(paper[0]))} == {None, "ar-MA"}


def test_tables_have_their_headers(paper: tuple[bytes, str]) -> None:
    tables = list(structure(paper[0]).all("Table"))
    assert len(tables) % 2 == 0
    for table in tables:
        assert list(table.all("TH"))
        assert list(table.all("TD"))


def test_every_code_says_what_it_is(paper: tuple[bytes, str]) -> None:
    figures = list(structure(paper[0]).all("Figure"))
    assert len(figures) >= 2
    assert len({figure.alternative for figure in figures}) == len(figures) // (len(figures) // 2)
    for figure in figures:
        assert figure.alternative is not None
        assert figure.alternative.startswith("Code QR")
        assert "رمز QR" in figure.alternative


def test_the_mark_of_a_trial_is_not_read_aloud_and_its_sentence_is() -> None:
    with pikepdf.open(BytesIO(a_notice(OPEN))) as document:
        content = document.pages[0].Contents.read_bytes()
    before = content[: content.index(b"/MCID 0>>")]
    assert before.count(b"/Artifact") == 1
    assert before.count(b"BT") == 2
    assert words(a_notice(OPEN)).count("SPÉCIMEN") == 2


def _elements(tree: Element) -> list[Element]:
    return [tree, *(each for child in tree.children for each in _elements(child))]
