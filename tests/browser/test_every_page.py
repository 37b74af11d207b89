"""What holds for every page in every state and error, in both languages: one walk sees it all."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response

from gateway.words.catalogs import Language
from tests.browser.chromium import DESK, PHONE, SMALL, a_context
from tests.browser.probes import (
    AXE,
    LARGE_TEXT,
    TEXT_SPACING,
    axe_violations,
    probe,
    sideways,
    small_targets,
    unmirrored,
)
from tests.browser.site import Site
from tests.browser.views import ERROR_BEGINS, LANGUAGES, View, views, visit

BYTES_MAX: Final = 14 * 1024
REQUESTS_MAX: Final = 2


@dataclass
class Watch:
    """What a browser asked for and complained about since the last page was asked for."""

    requests: list[str] = field(default_factory=list)
    received: int = 0
    complaints: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Forget what was seen."""
        self.requests, self.received, self.complaints = [], 0, []

    def listen(self, page: Page) -> None:
        """Listen to a page; each load counts as a first one."""
        devtools = page.context.new_cdp_session(page)
        devtools.send("Network.enable")
        devtools.send("Network.setCacheDisabled", {"cacheDisabled": True})
        devtools.on("Network.loadingFinished", self._finished)
        page.on("request", self._asked)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _asked(self, request: Request) -> None:
        if request.is_navigation_request():
            self.begin()
        self.requests.append(request.url)

    def _finished(self, event: Mapping[str, Any]) -> None:
        self.received += int(event["encodedDataLength"])

    def _said(self, message: ConsoleMessage) -> None:
        # That the answer was "no" is what the page itself is about.
        refused = message.text.startswith("Failed to load resource")
        refused &= message.location["url"] in self.requests[:1]
        if message.type in {"error", "warning"} and not refused:
            self.complaints.append(message.text)


Faults = Mapping[str, list[str]]


@pytest.fixture(scope="module")
def faults(site: Site, browser: Browser) -> Faults:
    """Everything that is wrong anywhere, by the promise that it breaks."""
    found: dict[str, list[str]] = defaultdict(list)
    for language, colours in zip(LANGUAGES, ("light", "dark"), strict=True):
        own: dict[str, str] = {}
        # Scripts are on, for axe and to see that none is refused.
        with a_context(browser, scripts=True, color_scheme=colours) as context:
            context.add_init_script(AXE)
            page = context.new_page()
            watch = Watch()
            watch.listen(page)
            for view in views(site):
                answer = visit(page, site, view, language)
                says = probe(page, "says")
                for promise, broken in _seen(page, answer, says, watch, site, view, language):
                    found[promise] += [f"{view.name}, {language}: {fault}" for fault in broken]
                twin = own.setdefault(says["main"], view.name)
                if twin not in {view.name, view.like}:
                    found["own"].append(f"{view.name}, {language}: the same as {twin}")
    return found


def _seen(
    page: Page,
    answer: Response,
    says: Mapping[str, str],
    watch: Watch,
    site: Site,
    view: View,
    language: Language,
) -> Iterator[tuple[str, list[str]]]:
    """Yield each promise with what breaks it on the page that is open."""
    yield "policy", _policy_faults(answer)
    yield (
        "own host",
        [url for url in watch.requests if not url.startswith((f"{site.address}/", "data:"))],
    )
    yield "weight", _weight_faults(says["icon"], watch)
    yield "words", _word_faults(says, view, language)
    yield "quiet", list(watch.complaints)
    probe(page, "openAll")
    yield "axe", axe_violations(page)
    yield "mirror", unmirrored(page)
    yield "targets", small_targets(page)
    page.set_viewport_size(SMALL)
    probe(page, "addStyle", TEXT_SPACING)
    yield "small", sideways(page)
    page.set_viewport_size(DESK)
    probe(page, "addStyle", LARGE_TEXT)
    yield "large", sideways(page)
    page.set_viewport_size(PHONE)


def _policy_faults(answer: Response) -> list[str]:
    policy = answer.header_value("content-security-policy") or ""
    directives = {
        name: set(sources) for name, *sources in (part.split() for part in policy.split(";"))
    }
    default = directives.get("default-src", {"*"})
    faults = []
    if not default <= {"'none'", "'self'"}:
        faults.append(f"default-src {default}")
    if not directives.get("script-src", default) <= {"'none'", "'self'"}:
        faults.append(f"script-src {directives['script-src']}")
    if "unsafe" in policy:
        faults.append(policy)
    return faults


def _weight_faults(icon: str, watch: Watch) -> list[str]:
    requests = [url for url in watch.requests if not url.startswith("data:")]
    if watch.received <= 0:
        return ["nothing was weighed"]
    faults = []
    # A browser with a window asks for the icon as well; it must be in the page, or it is a request.
    if not icon.startswith("data:"):
        faults.append(f"the icon is a request of its own: {icon}")
    if watch.received > BYTES_MAX:
        faults.append(f"{watch.received} bytes")
    if len(requests) > REQUESTS_MAX:
        faults.append(f"{len(requests)} requests: {requests}")
    return faults


def _word_faults(says: Mapping[str, str], view: View, language: Language) -> list[str]:
    root = (says["language"], says["direction"])
    faults = []
    if root != (language, LANGUAGES[language]):
        faults.append(f"lang and dir are {root}")
    if says["title"].startswith(ERROR_BEGINS[language]) != (view.status == 422):
        faults.append(f"the title is {says['title']}")
    if re.search(r"invalid|غير صالح", says["words"], re.IGNORECASE):
        faults.append("it says that something is invalid, and not what is wrong")
    # An amount that can be torn apart by the end of a line is read as another.
    if torn := re.findall(r"[0-9],[0-9]{2} (?:DH|درهم)", says["words"]):
        faults.append(f"amounts with a common space: {torn}")
    return faults


def told(faults: list[str]) -> str:
    """Return faults as lines, so that a failure shows all of them."""
    return "\n".join(faults)


def test_axe_finds_nothing(faults: Faults) -> None:
    assert told(faults["axe"]) == ""


def test_every_box_changes_sides_with_the_direction(faults: Faults) -> None:
    assert told(faults["mirror"]) == ""


def test_a_small_screen_with_widely_set_text_does_not_move_sideways(faults: Faults) -> None:
    assert told(faults["small"]) == ""


def test_text_of_double_size_does_not_move_sideways(faults: Faults) -> None:
    assert told(faults["large"]) == ""


def test_what_can_be_pressed_is_large_enough_for_a_thumb(faults: Faults) -> None:
    assert told(faults["targets"]) == ""


def test_the_policy_lets_in_nothing_but_ours(faults: Faults) -> None:
    assert told(faults["policy"]) == ""


def test_nobody_else_is_asked_for_anything(faults: Faults) -> None:
    assert told(faults["own host"]) == ""


def test_the_browser_has_nothing_to_complain_of(faults: Faults) -> None:
    assert told(faults["quiet"]) == ""


def test_a_first_load_is_light(faults: Faults) -> None:
    assert told(faults["weight"]) == ""


def test_titles_languages_and_amounts_are_written_as_they_should_be(faults: Faults) -> None:
    assert told(faults["words"]) == ""


def test_every_state_has_a_page_of_its_own(faults: Faults) -> None:
    assert told(faults["own"]) == ""
