"""One Chromium for a whole run, with the fonts of a phone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright

VARIABLE: Final = "TEST_CHROMIUM"
"""Names the program. Not set: nobody asked for browser journeys."""

PHONE: Final = ViewportSize(width=360, height=640)
SMALL: Final = ViewportSize(width=320, height=640)
DESK: Final = ViewportSize(width=1280, height=800)
WAIT_MS_MAX: Final = 30_000

# It draws the same way on each machine. That it asks nobody else for anything, and runs without the
# sandbox that root does not have, is among Playwright's own.
_FLAGS: Final = ("--disable-gpu", "--disable-quic", "--font-render-hinting=none")

# The papers' own Noto fonts, which phones have as well: what fits a screen here does not hang on
# what the machine has installed. DejaVu comes with the browser, and is for signs alone.
_FONTS: Final = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{fonts}</dir>
  <dir>/usr/share/fonts/truetype/dejavu</dir>
  <cachedir>{cache}</cachedir>
  <match><test name="lang" compare="contains"><string>ar</string></test>
    <edit name="family" mode="append" binding="strong"><string>Noto Naskh Arabic</string></edit>
  </match>
  <match><edit name="family" mode="append"><string>Noto Sans</string></edit></match>
</fontconfig>
"""

_clients = count(1)


@contextmanager
def chromium(program: str, scratch: Path) -> Iterator[Browser]:
    """Run the browser; it fails where the program cannot be started."""
    fonts = scratch / "fonts.conf"
    with resources.as_file(resources.files("gateway.papers") / "fonts") as folder:
        assert any(folder.glob("*.ttf"))
        fonts.write_text(_FONTS.format(fonts=folder, cache=scratch / "fonts"))
        expect.set_options(timeout=WAIT_MS_MAX)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=program,
                args=_FLAGS,
                env={**os.environ, "FONTCONFIG_FILE": str(fonts)},
            )
            yield browser
            browser.close()


def a_client() -> dict[str, str]:
    """Return the header of a payer who was never here: wrong guesses are counted by address."""
    number = next(_clients)
    return {"X-Forwarded-For": f"198.18.{number // 250}.{number % 250 + 1}"}


@contextmanager
def a_context(
    browser: Browser, *, scripts: bool = False, viewport: ViewportSize = PHONE, **options: Any
) -> Iterator[BrowserContext]:
    """Give a browser without history: a phone without JavaScript, unless told otherwise."""
    context = browser.new_context(
        java_script_enabled=scripts,
        viewport=viewport,
        extra_http_headers=a_client(),
        **options,
    )
    context.set_default_timeout(WAIT_MS_MAX)
    with context:
        yield context


@contextmanager
def a_page(browser: Browser, **options: Any) -> Iterator[Page]:
    """Give the one page of a new context."""
    with a_context(browser, **options) as context:
        yield context.new_page()


def arrives(page: Page, pattern: str | re.Pattern[str]) -> None:
    """Wait until a page's address is as meant, whichever of two presses led there.

    The second press gives up what the first one asked for, and Playwright's own wait fails on that.
    """
    expect(page).to_have_url(pattern)
