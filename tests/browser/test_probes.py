"""The probes themselves: a page with a fault must not pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.chromium import PHONE, a_page
from tests.browser.probes import (
    AXE,
    TEXT_SPACING,
    axe_violations,
    probe,
    sideways,
    small_targets,
    unmirrored,
)

SOUND = """
<!doctype html><html lang="fr"><title>Page</title>
<style>
  a {display: inline-block; min-height: 44px; padding-inline-start: 20px}
  a:focus-visible {outline: 3px solid}
</style>
<header><a href="#m">Aller au contenu</a></header>
<main id="m"><h1>Titre</h1><p>Un texte.</p><a href="/">Payer une autre référence</a></main>
"""

FAULTS = {
    "axe": "<p style='color: #999'>Trop pâle.</p>",
    "mirror": "<div style='margin-left: 20px'>À gauche.</div>",
    "sideways": "<p style='white-space: nowrap'>" + "mot " * 20 + "</p>",
    "targets": "<p><a href='/x' style='display: inline'>Petit</a></p>",
}


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    with a_page(browser, scripts=True) as page:
        yield page


def found(page: Page) -> set[str]:
    """Return the names of the probes that find something."""
    page.evaluate(AXE)
    answers = {
        "axe": axe_violations(page),
        "mirror": unmirrored(page),
        "targets": small_targets(page),
    }
    probe(page, "addStyle", TEXT_SPACING)
    answers["sideways"] = sideways(page)
    return {name for name, answer in answers.items() if answer}


def test_a_sound_page_passes(page: Page) -> None:
    page.set_content(SOUND)
    assert found(page) == set()


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_by_its_probe_and_by_no_other(page: Page, name: str) -> None:
    page.set_content(SOUND.replace("<h1>", FAULTS[name] + "<h1>"))
    page.set_viewport_size(PHONE)
    assert found(page) == {name}


def test_a_focus_that_nobody_sees_is_found(page: Page) -> None:
    rings = {
        "outline: 3px solid": (True, True),
        "outline: 3px solid transparent": (True, False),
        "outline: 0; box-shadow: 0 0 0 3px": (False, True),
        "outline: 0": (False, False),
    }
    for ring, (outlined, visible) in rings.items():
        page.set_content(SOUND.replace("outline: 3px solid", ring))
        probe(page, "remember")
        page.keyboard.press("Tab")
        stop = probe(page, "focused")
        assert (stop["outlined"], stop["visible"]) == (outlined, visible), ring
