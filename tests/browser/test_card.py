"""Paying by card on a phone without JavaScript: there and back, twice, in two tabs, given up."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from gateway.words.catalogs import Language
from gateway.words.speech import speech
from tests.browser.chromium import a_context, a_page, arrives
from tests.browser.site import Site
from tests.browser.views import LANGUAGES
from tests.factories import PATIENCE_SECONDS

_DUE = 16352


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> Language:
    """Each language that pages are in."""
    chosen: Language = request.param
    return chosen


@pytest.fixture
def page(browser: Browser, language: Language) -> Iterator[Page]:
    """A phone whose owner reads the language."""
    with a_page(browser, locale=f"{language}-MA") as page:
        yield page


def until(done: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def pages_made(site: Site, name: str) -> int:
    """Return how many card pages there have been for an invoice."""
    reference = site.references[name]
    return len(site.card_world.all("checkout.session", client_reference_id=reference))


def card_button(page: Page) -> str:
    """Return the selector of the form that leads to the card page, whichever there is first."""
    return "form[action*='/card']:has(input[value='stripe']) button"


def test_there_and_back(site: Site, page: Page, language: Language) -> None:
    said = speech(language).say
    name = f"card, {language}"
    page.goto(f"{site.address}/{site.references[name]}")
    page.locator(card_button(page)).click()
    page.wait_for_url(f"{site.card_world.address}/c/*")
    assert "163.52 MAD" in page.inner_text("body")
    page.get_by_role("button", name="Use a card that is declined").click()
    assert "declined" in page.inner_text("body")
    page.get_by_role("button", name="Pay", exact=True).click()
    page.wait_for_url(f"{site.address}/{site.references[name]}*")
    assert page.locator("html").get_attribute("lang") == language
    # No worker has acted on what Stripe has told: not known, and no reason to pay again.
    expect(page.locator("h2").first).to_have_text(
        said("Your card payment is being confirmed: do not pay again")
    )
    assert not page.locator(card_button(page)).first.is_visible()

    # Its deliveries are taken in, three of them about one payment; the page finds out by itself.
    until(lambda: site.hear() is None and ("booked", _DUE) in site.payments(name))  # type: ignore[func-returns-value]
    expect(page).to_have_title(re.compile(said("This contribution is paid")))
    assert site.payments(name) == [("booked", _DUE)]
    site.make_receipts()
    page.get_by_role("link", name=said("See the receipt")).click()
    assert "163,52" in page.inner_text("main")

    # All the way back, and the button of then once more: nothing is due, nothing is opened.
    page.go_back()
    assert said("This contribution is paid") in page.title()
    assert pages_made(site, name) == 1


def test_two_tabs_a_double_click_and_the_back_button_are_one_payment(
    site: Site, browser: Browser
) -> None:
    name = "card in two tabs"
    address = f"{site.address}/{site.references[name]}"
    with a_context(browser, locale="fr-MA") as phone:
        first, second = phone.new_page(), phone.new_page()
        for tab in (first, second):
            tab.goto(address)
        first.locator(card_button(first)).dblclick()
        arrives(first, re.compile(f"{site.card_world.address}/c/"))
        second.locator(card_button(second)).click()
        second.wait_for_url(f"{site.card_world.address}/c/*")
        assert first.url == second.url
        # Back from there, on again, and back once more to pay.
        first.go_back()
        assert "commencé" in first.inner_text("main")
        first.locator(card_button(first)).first.click()
        first.wait_for_url(second.url)
        first.get_by_role("button", name="Pay", exact=True).click()
        first.wait_for_url(f"{address}*")
        # The other tab still shows the page: it takes nothing any more.
        second.get_by_role("button", name="Pay", exact=True).click()
        assert "closed" in second.inner_text("body")
        site.ask_about_cards()
        until(lambda: site.hear() is None and bool(site.payments(name)))  # type: ignore[func-returns-value]
        second.goto(address)
        assert "Cette cotisation est payée" in second.title()
    assert site.payments(name) == [("booked", _DUE)]
    assert pages_made(site, name) == 1


def test_who_leaves_the_card_page_goes_on_or_gives_it_up(site: Site, browser: Browser) -> None:
    name = "card left"
    address = f"{site.address}/{site.references[name]}"
    with a_page(browser, locale="fr-MA") as page:
        page.goto(address)
        page.locator(card_button(page)).click()
        page.get_by_role("link", name="Leave").click()
        page.wait_for_url(f"{address}*")
        assert "commencé, et pas terminé" in page.inner_text("main")
        page.locator("form[action*='/stop'] button").first.click()
        assert "rien n’a été pris" in page.inner_text("main")
        # To the card page that was given up: it says so.
        page.go_back()
        page.go_back()
        page.wait_for_url(f"{site.card_world.address}/c/*")
        assert "closed" in page.inner_text("body")
    assert site.payments(name) == []
    [session] = site.card_world.all("checkout.session", client_reference_id=site.references[name])
    assert session["status"] == "expired"
