"""What payers do, on a phone without JavaScript."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from io import BytesIO
from typing import Final

import pypdfium2
import pytest
from playwright.sync_api import Browser, Page, expect

from gateway.money import format_amount
from gateway.references import format_reference
from gateway.words.catalogs import LANGUAGES as SPOKEN
from gateway.words.catalogs import Language
from gateway.words.speech import speech
from tests.browser.chromium import a_context, a_page
from tests.browser.probes import probe, zxing_reads
from tests.browser.site import NOBODYS, PAYER, Site
from tests.browser.views import ERROR_BEGINS, LANGUAGES, MISSES_MAX, fetched, mistyped

ARABIC_DIGITS: Final = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> Language:
    """Each language that pages are in."""
    assert set(LANGUAGES) == set(SPOKEN)
    chosen: Language = request.param
    return chosen


@pytest.fixture
def page(browser: Browser, language: Language) -> Iterator[Page]:
    """A phone whose owner reads the language, so that no address needs to say it."""
    with a_page(browser, locale=f"{language}-MA", device_scale_factor=2) as page:
        yield page


def typed(page: Page, text: str) -> None:
    """Type a reference and send it with the keyboard."""
    field = page.locator("#reference")
    field.fill(text)
    with page.expect_navigation():
        field.press("Enter")


def text_of(page: Page) -> str:
    return " ".join(page.inner_text("main").split())


def test_from_the_reference_to_the_proof(site: Site, page: Page, language: Language) -> None:
    said = speech(language).say
    name = f"to be paid, {language}"
    reference = site.references[name]

    page.goto(site.address)
    assert page.locator("html").get_attribute("lang") == language
    shown = format_reference(reference)
    typed(page, f"\u200f {shown[:5]}\u00a0{shown[5:].translate(ARABIC_DIGITS)} -")
    assert page.url == f"{site.address}/{reference}"
    assert "163,52" in text_of(page)

    notice = paper_text(page, site, f"/{reference}.pdf")
    assert "163,52" in notice
    assert shown in notice

    # The money comes in, and its receipt is not signed yet: the page waits for it by itself.
    site.pay(name)
    page.goto(f"{site.address}/{reference}")
    assert said("This contribution is paid") in page.title()
    page.get_by_role("link", name=said("See the receipt")).click()
    assert said("Your receipt is being prepared") in text_of(page)
    site.make_receipts()
    number = site.receipt(name).number
    expect(page).to_have_title(re.compile(number))
    assert paper_text(page, site, f"/{reference}/receipt.pdf").count(number)

    # Somebody who was shown the phone scans the code with his own.
    link = f"{site.address}/verify/{number}"
    assert link in zxing_reads(page.screenshot(full_page=True))
    page.goto(link)
    assert said("This receipt is genuine, and its payment counts") in page.title()
    assert "163,52" in text_of(page)
    assert number in text_of(page)

    page.go_back()
    assert number in page.title()
    page.reload()
    assert number in page.title()


def paper_text(page: Page, site: Site, path: str) -> str:
    """Follow the link to a paper of one page, and come back; return what stands on it."""
    from_page = page.url
    with page.expect_response(f"{site.address}{path}*") as answered:
        page.locator(f'a[href^="{path}"]').click()
    assert answered.value.status == 200
    assert answered.value.header_value("content-type") == "application/pdf"
    # What the browser shows of it cannot be read back: the same once more.
    paper = pypdfium2.PdfDocument(page.request.get(answered.value.url).body())
    page.go_back()
    assert page.url == from_page
    assert len(paper) == 1
    words = paper[0].get_textpage().get_text_range()
    return " ".join(words.replace("\u00a0", " ").split())


def test_a_wrong_digit_is_told_and_mended(site: Site, page: Page, language: Language) -> None:
    reference = site.references["open"]
    wrong = format_reference(mistyped(reference))
    page.goto(site.address)
    typed(page, wrong)
    title = page.title()
    assert title.startswith(ERROR_BEGINS[language])
    summary = page.locator("[role=alert]")
    expect(summary).to_be_focused()
    field = page.locator("#reference")
    assert field.input_value() == wrong
    assert field.get_attribute("aria-invalid") == "true"
    described = (field.get_attribute("aria-describedby") or "").split()
    assert summary.locator("a").inner_text() in page.locator(f"#{described[-1]}").inner_text()

    # The summary leads to the field, by keyboard too.
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(field).to_be_focused()

    # The same again, said again; and back to a form that works, over the summary's link.
    page.reload()
    assert page.title() == title
    page.go_back()
    page.go_back()
    assert not page.title().startswith(ERROR_BEGINS[language])
    typed(page, reference)
    assert page.url == f"{site.address}/{reference}"
    page.go_back()
    page.go_forward()
    assert "163,52" in text_of(page)


def test_the_other_language_keeps_the_page_and_what_was_typed(
    site: Site, page: Page, language: Language
) -> None:
    other = next(each for each in LANGUAGES if each != language)
    page.goto(site.address)
    typed(page, "1234")
    with page.expect_navigation() as switched:
        page.locator(f"a[hreflang={other}]").click()
    assert switched.value.status == 422
    assert page.title().startswith(ERROR_BEGINS[other])
    assert page.locator("#reference").input_value() == "1234"
    # And stays: the address says it now.
    typed(page, site.references["open"])
    assert page.locator("html").get_attribute("lang") == other
    page.locator(f"a[hreflang={language}]").click()
    assert page.locator("html").get_attribute("lang") == language
    assert "163,52" in text_of(page)


def test_a_photo_of_the_notice_opens_what_is_due(
    site: Site, page: Page, language: Language
) -> None:
    reference = site.references["late"]
    paper = pypdfium2.PdfDocument(fetched(site, f"/{reference}.pdf").content)
    page.goto(site.address)
    form = page.locator("form[enctype]")
    form.locator("input").set_input_files(
        {"name": "photo.png", "mimeType": "image/png", "buffer": as_photo(paper)}
    )
    form.locator("button").click()
    page.wait_for_url(f"{site.address}/{reference}")


def as_photo(paper: pypdfium2.PdfDocument) -> bytes:
    file = BytesIO()
    paper[0].render(scale=2).to_pil().save(file, "PNG")
    return file.getvalue()


def test_who_guesses_waits_and_nobody_else_does(site: Site, browser: Browser) -> None:
    with a_context(browser) as guesser, a_context(browser) as neighbour:
        page = guesser.new_page()
        # Typing errors are no guesses.
        for _ in range(MISSES_MAX + 1):
            answer = page.goto(f"{site.address}/{mistyped(NOBODYS)}")
            assert answer is not None
            assert answer.status == 422
        for _ in range(MISSES_MAX):
            answer = page.goto(f"{site.address}/{NOBODYS}")
            assert answer is not None
            assert answer.status == 404
        answer = page.goto(f"{site.address}/{site.references['open']}")
        assert answer is not None
        assert answer.status == 429
        assert 0 < int(answer.header_value("retry-after") or 0) <= 15 * 60
        assert "15" in text_of(page)
        answer = neighbour.new_page().goto(f"{site.address}/{site.references['open']}")
        assert answer is not None
        assert answer.status == 200


def test_what_was_paid_too_much_is_said(site: Site, page: Page, language: Language) -> None:
    page.goto(f"{site.address}/{site.references['paid too much']}/receipt")
    words = text_of(page)
    for minor in (20_000, 16_352, 20_000 - 16_352):
        assert format_amount(minor).replace(".", ",") in words


@pytest.mark.parametrize("name", ["open", "late", "part paid", "quarterly", "announced"])
def test_total_day_and_initials_are_read_without_scrolling(
    site: Site, page: Page, language: Language, name: str
) -> None:
    speaking = speech(language)
    due = {"part paid": 6_352, "quarterly": 150_000, "late": 16_516}.get(name, 16_352)
    day = {"late": "2026-10-31", "quarterly": "2026-12-31"}.get(name, "2026-11-30")
    in_latin = language == "fr" or name == "quarterly"
    initials = PAYER.initials if in_latin else PAYER.initials_ar
    page.goto(f"{site.address}/{site.references[name]}")
    wanted = [speaking.money(due), speaking.day(date.fromisoformat(day)), initials]
    assert page.viewport_size is not None
    for text, end in zip(wanted, probe(page, "readTo", wanted), strict=True):
        assert end is not None, f"{text} is not there"
        assert end <= page.viewport_size["height"], f"{text} ends at {end:.0f} px"
