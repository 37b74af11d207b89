"""Codes on the screen, pages on paper, and colours that the reader chose."""

from __future__ import annotations

from io import BytesIO

import pypdfium2
import pytest
from playwright.sync_api import Browser, Page

from gateway.codes import emv
from gateway.institution import institution
from gateway.references import format_reference
from tests.browser.chromium import PHONE, a_page
from tests.browser.probes import opencv_reads, probe, zxing_reads
from tests.browser.site import Site
from tests.browser.views import LANGUAGES

POINTS_AN_INCH = 72
PRINTER_DPI = 200
A4_POINTS = (595, 842)


def payment_code(site: Site, name: str, amount_minor: int, period: str) -> str:
    return emv.encode(
        institution().code.template(),
        reference=site.references[name],
        amount_minor=amount_minor,
        period_code=period,
    )


@pytest.mark.parametrize(
    ("language", "colours"), [("fr", "light"), ("ar", "dark"), ("ar", "forced")]
)
def test_two_programs_read_the_codes_from_the_screen(
    site: Site, browser: Browser, language: str, colours: str
) -> None:
    shown = (
        {"forced_colors": "active", "color_scheme": "dark"}
        if colours == "forced"
        else {"color_scheme": colours}
    )
    receipt = site.receipt("paid")
    pages = {
        f"/{site.references['open']}": {f"{site.address}/{site.references['open']}"},
        f"/{site.references['open']}.svg?code=emv": {payment_code(site, "open", 16_352, "2026-11")},
        f"/{receipt.reference}/receipt": {
            f"{site.address}/verify/{receipt.number}",
            site.codes["genuine"],
        },
    }
    with a_page(browser, device_scale_factor=2, **shown) as page:
        for path, expected in pages.items():
            page.goto(f"{site.address}{path}{'&' if '?' in path else '?'}lang={language}")
            probe(page, "openAll")
            by_zxing: set[str] = set()
            by_opencv: set[str] = set()
            for code in page.locator("svg[role=img]").all():
                code.evaluate("code => code.scrollIntoView({block: 'center'})")
                by_zxing |= zxing_reads(page.screenshot())
                # It gets lost where two codes are on one screen.
                by_opencv |= opencv_reads(code.screenshot())
            assert by_zxing == expected, path
            assert by_opencv == expected, path


def printed(page: Page) -> pypdfium2.PdfDocument:
    page.emulate_media(media="print")
    return pypdfium2.PdfDocument(page.pdf(format="A4", prefer_css_page_size=True))


def codes_on(paper: pypdfium2.PdfPage) -> set[str]:
    """Return what a scanner reads from a printed page."""
    picture = BytesIO()
    paper.render(scale=PRINTER_DPI / POINTS_AN_INCH).to_pil().save(picture, "PNG")
    return zxing_reads(picture.getvalue())


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", ["late", "quarterly"])
def test_what_is_due_prints_on_one_page_with_its_code(
    site: Site, browser: Browser, language: str, name: str
) -> None:
    reference = site.references[name]
    with a_page(browser) as page:
        page.goto(f"{site.address}/{reference}?lang={language}")
        paper = printed(page)
    assert len(paper) == 1
    assert tuple(round(side) for side in paper[0].get_size()) == A4_POINTS
    assert codes_on(paper[0]) == {f"{site.address}/{reference}"}
    words = " ".join(paper[0].get_textpage().get_text_range().split())
    assert format_reference(reference) in words.replace("\u00a0", " ")
    # Nothing that can only be pressed.
    assert "WhatsApp" not in words


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_receipt_prints_on_one_page(site: Site, browser: Browser, language: str) -> None:
    receipt = site.receipt("paid")
    with a_page(browser) as page:
        page.goto(f"{site.address}/{receipt.reference}/receipt?lang={language}")
        paper = printed(page)
    assert len(paper) == 1
    assert codes_on(paper[0]) == {f"{site.address}/verify/{receipt.number}"}
    assert "163,52" in paper[0].get_textpage().get_text_range()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_card_for_the_counter_fits_one_screen(
    site: Site, browser: Browser, language: str
) -> None:
    with a_page(browser) as page:
        page.goto(f"{site.address}/{site.references['late']}?lang={language}")
        card = page.locator(".card")
        box = card.bounding_box()
        assert box is not None
        assert box["height"] <= PHONE["height"]
        words = card.inner_text().replace("\u00a0", " ")
    assert format_reference(site.references["late"]) in words
    assert "165,16" in words  # with the penalty of one month


def test_forced_colours_leave_an_edge_around_what_can_be_pressed(
    site: Site, browser: Browser
) -> None:
    with a_page(browser, forced_colors="active") as page:
        page.goto(f"{site.address}/{site.references['open']}")
        edges = page.locator(".btn").evaluate_all(
            "all => all.map(e => getComputedStyle(e)).map(s => [s.borderTopWidth,"
            " s.borderTopStyle, s.borderTopColor !== s.backgroundColor])"
        )
    assert edges
    for width, style, seen in edges:
        assert float(width.removesuffix("px")) >= 1
        assert style == "solid"
        assert seen
