"""Draw a symbol as a picture, from the SVG path that pages show, to hold before other readers."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Final

import cv2
import numpy as np
import zxingcpp
from PIL import Image

from gateway.codes.qr import QUIET_MODULES, Symbol

PIXELS_A_MODULE: Final = 4
_LINE = re.compile(r"M(\d+) (\d+)\.5|m(\d+) 0h(\d+)")


def picture(symbol: Symbol, pixels: int = PIXELS_A_MODULE) -> Image.Image:
    """Follow the path with a pen one module wide; every letter of it must be understood."""
    side = symbol.size + 2 * QUIET_MODULES
    image = Image.new("L", (side, side), "white")
    x = y = read = 0
    path = symbol.path()
    for line in _LINE.finditer(path):
        assert line.start() == read
        read = line.end()
        to_x, to_y, gap, length = line.groups()
        if gap is None:
            x, y = int(to_x), int(to_y)
            continue
        x += int(gap)
        image.paste(0, (x, y, x + int(length), y + 1))
        x += int(length)
    assert read == len(path)
    return enlarged(image, pixels)


def enlarged(image: Image.Image, pixels: int = PIXELS_A_MODULE) -> Image.Image:
    return image.resize((image.width * pixels, image.height * pixels), Image.Resampling.NEAREST)


def read_by_zxing(image: Image.Image) -> list[str]:
    return [code.text for code in zxingcpp.read_barcodes(image)]


def read_by_opencv(image: Image.Image) -> list[str]:
    text, _, _ = cv2.QRCodeDetector().detectAndDecode(np.asarray(image.convert("L")))
    return [text] if text else []


def as_file(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
