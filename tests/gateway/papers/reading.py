"""Read a PDF back: what is seen, what a screen reader is told, what a scanner finds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pikepdf
import pypdfium2
import zxingcpp


@dataclass
class Element:
    """A node of the structure tree: what assistive technology is told."""

    kind: str
    language: str | None
    title: str | None
    alternative: str | None
    children: list[Element] = field(default_factory=list)

    def all(self, kind: str) -> Iterator[Element]:
        if self.kind == kind:
            yield self
        for child in self.children:
            yield from child.all(kind)


@cache
def words(pdf: bytes) -> str:
    """Return the text of all pages, run after run as they are drawn; what is not read aloud too.

    By hand, as those who extract text put lines of two directions together each in its own way.
    Spaces of all kinds are one space, and what is invisible is left out.
    """
    with pikepdf.open(BytesIO(pdf)) as document:
        found = " ".join(run for page in document.pages for run in _runs(page))
    return " ".join(_INVISIBLE.sub("", found).split())


def times(pdf: bytes, said: str) -> int:
    """Return how often this is said, whatever is drawn in one go and whatever apart."""
    return "".join(words(pdf).split()).count("".join(said.split()))


def seen(pdf: bytes, *, right_half: bool = False) -> str:
    """Return the letters of the first page as they lie from left to right, line by line.

    Where `words` tells what is said, this tells in which order it is shown.
    """
    with pypdfium2.PdfDocument(pdf) as document:
        text = document[0].get_textpage()
        edge = document[0].get_width() / 2 if right_half else 0
        letters = []
        for n in range(text.count_chars()):
            left, bottom, right, top = text.get_charbox(n, loose=True)
            letter = text.get_text_range(n, 1)
            if letter.strip() and right > left >= edge:
                letters.append((-round((bottom + top) / 8), left, letter))
    return _INVISIBLE.sub("", "".join(letter for _, _, letter in sorted(letters)))


_INVISIBLE = re.compile("[\u200b-\u200d\u2066-\u2069]")
_MAPPING = re.compile(rb"<([0-9a-f]{4})> ?<([0-9a-f]+)>\n", re.I)


def _runs(page: Any) -> Iterator[str]:
    letters = {name: _letters(font) for name, font in page.Resources.Font.items()}
    font: dict[int, str] = {}
    words: list[str] = []
    backwards = False
    for instruction in pikepdf.parse_content_stream(page):
        operands = instruction.operands
        match operator := str(instruction.operator):
            case "Tf":
                font = letters[str(operands[0])]
            case "BMC":
                backwards = True
            case "EMC":
                backwards = False
            case "TJ" | "Tj":
                parts = operands[0] if operator == "TJ" else operands
                drawn = b"".join(bytes(part) for part in parts if isinstance(part, pikepdf.String))
                codes = [drawn[at : at + 2] for at in range(0, len(drawn), 2)]
                shown = [font[int.from_bytes(code, "big")] for code in codes]
                # Words of Arabic are drawn from the left, the last one first.
                words = ["".join(reversed(shown)), *words] if backwards else [*words, *shown]
            case "ET":
                yield "".join(words)
                words = []


def _letters(font: Any) -> dict[int, str]:
    """Return what each glyph of a font says."""
    mapping = font.ToUnicode.read_bytes()
    return {
        int(glyph, 16): bytes.fromhex(text.decode()).decode("utf-16-be")
        for glyph, text in _MAPPING.findall(mapping)
    }


def pages(pdf: bytes) -> int:
    with pikepdf.open(BytesIO(pdf)) as document:
        return len(document.pages)


def fonts(pdf: bytes) -> set[str]:
    """Return the names of all fonts."""
    with pikepdf.open(BytesIO(pdf)) as document:
        return {
            str(part.BaseFont)
            for part in document.objects
            if isinstance(part, pikepdf.Dictionary) and part.get("/BaseFont") is not None
        }


def everything(pdf: bytes) -> bytes:
    """Return every object of a file, its streams unpacked."""
    with pikepdf.open(BytesIO(pdf)) as document:
        parts = []
        for part in document.objects:
            parts.append(part.unparse())
            if isinstance(part, pikepdf.Stream):
                parts.append(part.read_bytes())
    return b"\n".join(parts)


def structure(pdf: bytes) -> Element:
    """Return the structure tree."""
    with pikepdf.open(BytesIO(pdf)) as document:
        root = document.Root.StructTreeRoot.K
        return _element(root[0] if isinstance(root, pikepdf.Array) else root)


def _element(node: Any) -> Element:
    def text(name: str) -> str | None:
        return str(node[name]) if name in node else None

    below = node.get("/K", [])
    below = list(below) if isinstance(below, pikepdf.Array) else [below]
    return Element(
        str(node.S).lstrip("/"),
        text("/Lang"),
        text("/T"),
        text("/Alt"),
        [_element(each) for each in below if isinstance(each, pikepdf.Dictionary) and "/S" in each],
    )


def picture(pdf: bytes, dpi: int) -> Any:
    """Return the first page as grey pixels."""
    with pypdfium2.PdfDocument(pdf) as document:
        return np.asarray(document[0].render(scale=dpi / 72, grayscale=True).to_pil())


def by_zxing(pixels: Any) -> set[str]:
    return {code.text for code in zxingcpp.read_barcodes(pixels)}


def by_opencv(pixels: Any) -> set[str]:
    found, texts, _, _ = cv2.QRCodeDetectorAruco().detectAndDecodeMulti(pixels)
    return set(texts) if found else set()


def columns_beside(pdf: bytes, said: str, *, apart_mm: float) -> int:
    """Return how many texts stand in the line where this is said first, at least so far apart."""
    with pypdfium2.PdfDocument(pdf) as document:
        text = document[0].get_textpage()
        found = text.search(said, match_case=True).get_next()
        assert found is not None, said
        _, foot, _, top = text.get_charbox(found[0])
        boxes = [text.get_charbox(at) for at in range(text.count_chars())]
    # Of the letters in this line; those of the mark behind it are many times as high.
    spans = sorted(
        (left, right)
        for left, bottom, right, over in boxes
        if bottom < top and over > foot and over - bottom < 3 * (top - foot)
    )
    columns, reached = 1, spans[0][1]
    for begins, ends in spans:
        columns += begins - reached >= apart_mm * 72 / 25.4
        reached = max(reached, ends)
    return columns
