"""Paying on a bank's page that a form leads to, and on a wallet's page: without JavaScript.

Refused first, then by the back button, a double click and a second tab; and while the answer is
not heard. One payment comes of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from gateway.simulators.faults import Faults
from gateway.words.catalogs import Language
from gateway.words.speech import speech
from tests.browser.chromium import a_context, arrives
from tests.browser.site import Site
from tests.browser.test_ways import button
from tests.browser.views import LANGUAGES

_DUE = 16352
_BETWEEN = re.compile(r"/[0-9]{12}/card(\?|$)")
_AT_BANK = re.compile("/fim/est3Dgate$")
_TAKEN = re.compile("/fim/pay$")
_AT_WALLET = re.compile("/pay/[0-9a-f]+$")

Tabs = tuple[Page, Page]


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> Language:
    """Each language that pages are in."""
    chosen: Language = request.param
    return chosen


@pytest.fixture
def tabs(browser: Browser, language: Language) -> Iterator[Tabs]:
    """Two tabs on the phone of somebody who reads the language."""
    with a_context(browser, locale=f"{language}-MA") as phone:
        yield phone.new_page(), phone.new_page()


def lead_on(page: Page) -> None:
    """Press on, where a form leads to the bank; twice, as people do."""
    arrives(page, _BETWEEN)
    assert "163,52" in page.inner_text("main")
    page.locator("main form button").dblclick()
    arrives(page, _AT_BANK)
    assert "163.52 MAD" in page.inner_text("body")


def deed(page: Page, value: str) -> None:
    """Press a button of a stand-in's page."""
    page.locator(f"button[value={value}]").click()


def captured(site: Site) -> int:
    """Return the centimes that the bank has captured of everybody."""
    return sum(site.bank.captured.values())


def the_receipt_is_there(site: Site, page: Page, name: str, language: Language) -> None:
    """See that it is paid, and follow the link to the receipt; back leads to what is paid."""
    say = speech(language).say
    page.reload()
    assert say("This contribution is paid") in page.title()
    site.make_receipts()
    page.get_by_role("link", name=say("See the receipt")).click()
    assert site.receipt(name).number in page.title()
    assert "163,52" in page.inner_text("main")
    page.go_back()
    assert say("This contribution is paid") in page.title()


def test_by_card_on_the_page_of_a_bank(site: Site, tabs: Tabs, language: Language) -> None:
    name, say = f"bank, {language}", speech(language).say
    address = f"{site.address}/{site.references[name]}"
    first, second = tabs
    before = captured(site)
    for tab in tabs:
        tab.goto(address)
    first.locator(button("cmi")).dblclick()
    lead_on(first)
    assert first.locator("html").get_attribute("lang") == language
    # Back leads over the page between, which is read and asks for no form to be sent again.
    first.go_back()
    lead_on(first)
    deed(first, "decline")
    first.locator("form button").click()
    first.wait_for_url(f"{address}?card=left*")
    said = first.inner_text("main")
    assert say("A card payment is begun, and not finished") in said
    assert not first.locator(button("stripe")).first.is_visible()
    first.locator(button("cmi")).first.click()
    lead_on(first)
    # The other tab, which does not know, is led to the same page.
    second.locator(button("cmi")).click()
    lead_on(second)

    # The bank reserves, and cannot reach us: not known, and no reason to pay again.
    site.bank.away = True
    first.locator("button[value=pay]").dblclick()
    arrives(first, _TAKEN)
    first.locator("form button").click()
    first.wait_for_url(f"{address}?card=back*")
    awaited = say("Your card payment is being confirmed: do not pay again")
    expect(first.locator("h2").first).to_have_text(awaited)
    assert not first.locator(button("cmi")).first.is_visible()
    assert site.payments(name) == []
    # The other tab pays all the same, before anybody knows.
    deed(second, "pay")
    site.bank.away = False
    site.bank.resume()
    the_receipt_is_there(site, first, name, language)
    second.locator("form button").click()
    second.wait_for_url(f"{address}?card=*")
    assert say("This contribution is paid") in second.title()
    assert site.payments(name) == [("booked", _DUE)]
    assert captured(site) - before == _DUE


def test_in_a_wallet_on_its_page(site: Site, tabs: Tabs, language: Language) -> None:
    name, say = f"wallet, {language}", speech(language).say
    address = f"{site.address}/{site.references[name]}"
    first, second = tabs
    for tab in tabs:
        tab.goto(address)
    for tab in tabs:
        tab.locator(button("wallet")).dblclick()
        arrives(tab, _AT_WALLET)
    assert first.url == second.url
    assert "163.52 MAD" in first.inner_text("body")
    # He refuses, and we hear of it.
    deed(first, "refuse")
    first.wait_for_url(f"{address}?card=left*")
    site.ask_about_cards()
    first.reload()
    assert say(
        "The wallet payment is closed, and nothing was taken by it. You can begin again, or pay in"
        " another way."
    ) in first.inner_text("main")
    # By the back button he pays after all, where nobody tells us of it.
    first.go_back()
    site.wallet.faults = Faults(lose=1)
    try:
        first.locator("button[value=pay]").dblclick()
        arrives(first, re.compile(rf"{address}\?card=back"))
    finally:
        site.wallet.faults = Faults()
    awaited = say("Your wallet payment is being confirmed: do not pay again")
    expect(first.locator("h2").first).to_have_text(awaited)
    assert site.payments(name) == []
    # The other tab finds it done there, and being confirmed here.
    second.reload()
    assert second.locator("button[value=pay]").count() == 0
    second.goto(address)
    expect(second.locator("h2").first).to_have_text(awaited)
    assert not second.locator(button("stripe")).first.is_visible()
    site.ask_about_cards()
    the_receipt_is_there(site, first, name, language)
    second.reload()
    assert say("This contribution is paid") in second.title()
    assert site.payments(name) == [("booked", _DUE)]


def test_who_leaves_the_bank_for_a_wallet_pays_once(site: Site, browser: Browser) -> None:
    name = "bank left"
    address = f"{site.address}/{site.references[name]}"
    before = captured(site)
    with a_context(browser, locale="fr-MA") as phone:
        page, old = phone.new_page(), phone.new_page()
        for tab in (old, page):
            tab.goto(address)
            tab.locator(button("cmi")).first.click()
            lead_on(tab)
        page.locator("a").click()
        page.wait_for_url(f"{address}?card=left*")
        page.locator("form[action*='/stop'] button").first.click()
        assert "rien n’a été pris" in page.inner_text("main")
        page.locator(button("wallet")).click()
        page.wait_for_url(_AT_WALLET)
        deed(page, "pay")
        page.wait_for_url(f"{address}?card=back*")
        site.ask_about_cards()
        page.reload()
        assert "Cette cotisation est payée" in page.title()
        # The bank still shows its page: nothing is captured by it, and nobody is sent there.
        deed(old, "pay")
        assert "n'a pas été accepté" in old.inner_text("body")
        old.locator("form button").click()
        assert "Cette cotisation est payée" in old.title()
        old.goto(f"{address}/card")
        assert old.url.partition("?")[0] == address
    assert site.payments(name) == [("booked", _DUE)]
    assert captured(site) == before
