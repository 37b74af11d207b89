"""Paying on the phone, by a code at an agency, several months at once: without JavaScript."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from gateway.words.catalogs import Language
from gateway.words.speech import speech
from tests.browser.chromium import a_context, a_page, arrives
from tests.browser.site import Site
from tests.browser.test_card import until
from tests.browser.views import LANGUAGES

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


def button(way: str) -> str:
    """Return the selector of the button that leads to a provider."""
    return f"form[action*='/card']:has(input[value='{way}']) button"


def test_on_the_phone_in_two_tabs(site: Site, browser: Browser, language: Language) -> None:
    name, say = f"phone, {language}", speech(language).say
    address = f"{site.address}/{site.references[name]}"
    with a_context(browser, locale=f"{language}-MA") as context:
        first, second = context.new_page(), context.new_page()
        for tab in (first, second):
            tab.goto(address)
            tab.locator(button("momo")).click()
        first.locator("#phone").fill("0512")
        first.locator("main button").click()
        expect(first.locator("#phone-error")).to_be_visible()
        assert first.input_value("#phone") == "0512"
        for tab in (first, second):
            tab.locator("#phone").fill("06 00 00 00 00")
        first.locator("main button").dblclick()
        arrives(first, re.compile(rf"{address}\?card=asked"))
        second.locator("main button").click()
        second.wait_for_url(f"{address}?card=asked*")
        asked = [
            r
            for r in site.phones.requests.values()
            if r.external_id.startswith(site.references[name])
        ]
        assert len(asked) == 1, "he is asked once"
        assert "0600000000" not in first.url
        # Back to the button, and on again: the same question.
        second.goto(address)
        assert not second.locator(button("momo")).first.is_visible()
        site.phones.decide(asked[0], "confirm")
        site.ask_about_cards()
        # The page that waits finds out by itself.
        expect(first).to_have_title(re.compile(say("This contribution is paid")))
    assert site.payments(name) == [("booked", _DUE)]


def test_by_a_code_at_an_agency(site: Site, page: Page, language: Language) -> None:
    name, say = f"code, {language}", speech(language).say
    address = f"{site.address}/{site.references[name]}"
    page.goto(address)
    page.locator(button("cashplus")).dblclick()
    arrives(page, re.compile(f"{address}/code"))
    # Two presses at once may have two codes made: he is shown the one that was kept, always.
    order = site.agencies.find(page.locator(".total").inner_text().strip())
    page.go_back()
    page.locator("a[href*='/code']").first.click()
    expect(page.locator(".total")).to_have_text(order.code)
    # Another way is a choice, since the code lives.
    page.goto(address)
    page.locator("form[action*='/stop'] button").first.click()
    expect(page.locator("main h2").first).to_contain_text(order.code)
    assert not page.locator(button("stripe")).first.is_visible()
    site.agencies.settle(order, paid=True)
    until(lambda: site.hear() is None and ("booked", _DUE) in site.payments(name))  # type: ignore[func-returns-value]
    page.goto(f"{address}/code")
    assert say("This contribution is paid") in page.title()
    assert site.payments(name) == [("booked", _DUE)]


def test_several_months_at_once_by_card(site: Site, page: Page, language: Language) -> None:
    name, say = f"months, {language}", speech(language).say
    number = site.number(name)
    address = f"{site.address}/{site.references[name]}"
    page.goto(address)
    page.locator(
        "summary", has_text=say("Pay other months of the same person with it, in one payment")
    ).click()
    page.locator("#cnss").fill(number)
    page.get_by_role("button", name=say("All that is due")).click()
    page.wait_for_url(re.compile(rf"{site.address}/[0-9]{{12}}($|\\?)"))
    together = page.url
    assert together.partition("?")[0] != address
    # A page of the one month that was begun in another tab is no second payment.
    page.goto(address)
    page.locator(button("stripe")).click()
    page.wait_for_url(f"{site.card_world.address}/c/*")
    of_one = page.url
    page.goto(together)
    assert say("Another payment of this is begun, and not finished") in page.inner_text("main")
    page.locator("form[action*='/stop'] button").first.click()
    page.locator(button("stripe")).click()
    page.wait_for_url(f"{site.card_world.address}/c/*")
    page.get_by_role("button", name="Pay", exact=True).click()
    page.wait_for_url(f"{site.address}/*")
    page.goto(of_one)
    assert "closed" in page.inner_text("body")
    site.ask_about_cards()
    page.goto(address)
    assert say("This contribution is paid") in page.title()
