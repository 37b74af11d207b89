"""With a keyboard alone: every stop is seen, and every way can be walked."""

from __future__ import annotations

from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import a_page
from tests.browser.probes import probe
from tests.browser.site import Site
from tests.browser.views import LANGUAGES, views, visit

STOPS_MAX: Final = 40

SHOWN: Final = (
    "start",
    "a typing error",
    "late",
    "announced",
    "receipt: paid in parts",
    "check",
    "check: genuine",
    "unknown",
)


def stops(page: Page) -> list[dict[str, Any]]:
    """Press Tab until the page is through; return what had the focus."""
    probe(page, "remember")
    found: list[dict[str, Any]] = []
    for _ in range(STOPS_MAX):
        page.keyboard.press("Tab")
        stop = probe(page, "focused")
        if stop is None or (found and stop["what"] == found[0]["what"]):
            return found
        found.append(stop)
    raise AssertionError("the focus does not come to an end")


def test_the_focus_is_seen_wherever_it_goes(site: Site, browser: Browser) -> None:
    """Also by who chose the colours: then shadows are lost, and an outline is not."""
    unseen = []
    shown = [view for view in views(site) if view.name in SHOWN]
    assert len(shown) == len(SHOWN)
    with a_page(browser) as page:
        for view in shown:
            for language in LANGUAGES:
                visit(page, site, view, language)
                probe(page, "openAll")
                found = stops(page)
                assert len(found) >= 4, view.name
                unseen += [
                    f"{view.name}, {language}: {stop['what']}"
                    for stop in found
                    if not (stop["onScreen"] and stop["visible"] and stop["outlined"])
                ]
    assert unseen == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_whole_way_with_tab_and_enter(site: Site, browser: Browser, language: str) -> None:
    reference = site.references["paid"]
    with a_page(browser) as page:
        page.goto(f"{site.address}/?lang={language}")
        page.keyboard.press("Tab")
        first = probe(page, "focused")
        assert (first["tag"], first["target"]) == ("a", "#m")
        assert first["onScreen"]
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        # Past the header, so the field is next.
        page.keyboard.press("Tab")
        expect(page.locator("#reference")).to_be_focused()
        page.keyboard.type(reference)
        with page.expect_navigation():
            page.keyboard.press("Enter")
        follow(page, f"/{reference}/receipt")
        number = site.receipt("paid").number
        follow(page, f"/verify/{number}")
        follow(page, "/verify")
        for _ in range(STOPS_MAX):
            page.keyboard.press("Tab")
            if page.locator("#receipt").evaluate("field => field === document.activeElement"):
                break
        page.keyboard.type(number)
        page.keyboard.press("Tab")
        with page.expect_navigation():
            page.keyboard.press("Enter")
        assert page.url.partition("?")[0] == f"{site.address}/verify/{number}"
        assert page.locator("html").get_attribute("lang") == language


def follow(page: Page, path: str) -> None:
    """Press Tab until a link to this path has the focus, and follow it."""
    for _ in range(STOPS_MAX):
        page.keyboard.press("Tab")
        stop = probe(page, "focused")
        if stop is not None and stop["target"].partition("?")[0] == path:
            with page.expect_navigation():
                page.keyboard.press("Enter")
            assert page.url.endswith(stop["target"])
            return
    raise AssertionError(f"no link to {path} can be reached")
