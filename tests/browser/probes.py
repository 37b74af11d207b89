"""Questions to a page that a browser has laid out (probes.js), and to a picture of it."""

from __future__ import annotations

from importlib import resources
from itertools import product
from typing import Any, Final

import cv2
import numpy as np
import zxingcpp
from playwright.sync_api import Page

_PROBES: Final = resources.files("tests.browser").joinpath("probes.js").read_text("utf-8")
AXE: Final = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")

RULES: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
MIRROR_PIXELS_MAX: Final = 2
TARGET_PIXELS_MIN: Final = 24
ALONE_PIXELS_MIN: Final = 44
"""What stands alone is pressed with a thumb."""

TEXT_SPACING: Final = (
    "* {line-height: 1.5 !important; letter-spacing: .12em !important;"
    " word-spacing: .16em !important} p {margin-block-end: 2em !important}"
)
"""WCAG 1.4.12: what a reader may set, and no word may be lost."""

LARGE_TEXT: Final = "html {font-size: 200% !important}"

_WHITE: Final = (255, 255, 255)


def probe(page: Page, name: str, argument: object = None) -> Any:
    """Ask one question of probes.js."""
    return page.evaluate(
        f"([name, argument]) => ({_PROBES.strip()})[name](argument)", [name, argument]
    )


def axe_violations(page: Page) -> list[str]:
    """Return what AXE, which the page has run, finds against RULES: the rule and the place."""
    found = page.evaluate(
        "async (runOnly) => (await axe.run({runOnly, resultTypes: ['violations'], preload: false}))"
        ".violations.flatMap(v => v.nodes.map(n => `${v.id}: ${n.target.join(' ')}"
        " (${[...n.any, ...n.all, ...n.none].map(c => c.message).join('; ')})`))",
        list(RULES),
    )
    return [str(each) for each in found]


def unmirrored(page: Page) -> list[str]:
    """Return the boxes that do not change sides with the direction of the same text."""
    before, after = probe(page, "bothWays")
    assert len(before) == len(after) > 0
    return [
        f"{here['what']}: {here['left']:.0f} from the left, {there['right']:.0f} from the right"
        for here, there in zip(before, after, strict=True)
        if abs(here["left"] - there["right"]) > MIRROR_PIXELS_MAX
        or abs(here["right"] - there["left"]) > MIRROR_PIXELS_MAX
    ]


def sideways(page: Page) -> list[str]:
    """Return what makes the page wider than the screen, or is cut by its own box."""
    found = probe(page, "overflow")
    wide = [f"the page, by {found['pixels']} px"] if found["pixels"] > 0 else []
    return wide + list(found["out"])


def small_targets(page: Page) -> list[str]:
    """Return what is too small to be pressed; links within a sentence are as high as its line."""
    return [
        f"{each['what']}: {each['width']:.0f} by {each['height']:.0f}"
        for each in probe(page, "targets")
        if min(each["width"], each["height"])
        < (ALONE_PIXELS_MIN if each["alone"] else TARGET_PIXELS_MIN)
    ]


def zxing_reads(png: bytes) -> set[str]:
    """Return the texts of the codes in a picture."""
    return {found.text for found in zxingcpp.read_barcodes(_pixels(png))}


def opencv_reads(png: bytes) -> set[str]:
    """Return the text of the one code in a picture, by a program that knows nothing of the other.

    It misses one sharp and straight picture in twenty, whoever drew the code. So it looks as a
    camera in a hand does, a little blurred and tilted, until it sees something.
    """
    around = cv2.BORDER_CONSTANT
    picture = cv2.copyMakeBorder(_pixels(png), 40, 40, 40, 40, around, value=_WHITE)
    height, width = picture.shape[:2]
    for size, blur, degrees in product((1, 0.75, 0.5), (3, 7), (0, 4, 9)):
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
        seen = cv2.warpAffine(picture, turn, (width, height), borderValue=_WHITE)
        seen = cv2.resize(cv2.GaussianBlur(seen, (blur, blur), 0), None, fx=size, fy=size)
        text, _, _ = cv2.QRCodeDetector().detectAndDecode(seen)
        if text:
            return {text}
    return set()


def _pixels(png: bytes) -> cv2.typing.MatLike:
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture
