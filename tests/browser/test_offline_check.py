"""A receipt checked by a page that has lost its network."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.chromium import a_context
from tests.browser.site import Site
from tests.browser.views import LANGUAGES

ANSWERS = {
    "genuine": "genuine",
    "reversed": "genuine",
    "retired key": "genuine",
    "changed": "changed",
    "foreign key": "foreign",
    "not in the books": "genuine",
    "attestation": "attestation",
    "cut": "cut",
    "another text": "other",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_codes_are_judged_without_a_network(site: Site, browser: Browser, language: str) -> None:
    codes = {**site.codes, "another text": "Facture 12"}
    with a_context(browser, scripts=True) as context:
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{site.address}/verify/offline?lang={language}")
        context.set_offline(True)
        for name, answer in ANSWERS.items():
            page.locator("#code").fill(codes[name])
            page.locator("#check button").click()
            expect(page.locator(f"[data-say={answer}]")).to_be_visible()
            verdicts = page.locator("#answer [data-say]:visible").evaluate_all(
                "all => all.map(each => each.dataset.say)"
            )
            assert set(verdicts) & set(ANSWERS.values()) == {answer}, name
            claims = page.locator("[data-say=claims]")
            if answer == "genuine":
                expect(claims).to_contain_text("163,52")
            else:
                expect(claims).to_be_hidden()
            if answer == "attestation":
                expect(page.locator("[data-say=attested]")).to_contain_text("A26-000000007")
        assert complaints == []


def test_without_scripts_it_leads_to_the_check_online(site: Site, browser: Browser) -> None:
    with a_context(browser) as context:
        page = context.new_page()
        page.goto(f"{site.address}/verify/offline")
        expect(page.locator("#check")).to_be_hidden()
        expect(page.locator("noscript")).to_be_visible()
        assert page.locator('main a[href^="/verify"]').count() >= 1
