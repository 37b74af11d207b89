from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
import qrcode
import typst
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from qrcode.constants import ERROR_CORRECT_M
from qrcode.util import BIT_LIMIT_TABLE

from gateway.codes.qr import PayloadTooLong, Symbol, symbol
from tests.gateway.codes.pictures import enlarged, picture, read_by_opencv, read_by_zxing

GOLDEN = Path(__file__).parents[2] / "golden"
EMV = json.loads((GOLDEN / "emv_qr.json").read_text("utf-8"))["payloads"]
RECEIPT = json.loads((GOLDEN / "receipts.json").read_text("utf-8"))["cose_sign1"]
LINK = "https://wasl.ma.example/148275036141"
PAYLOADS = {
    "link": LINK,
    "receipt": RECEIPT["base45_with_prefix"],
    "capitals": LINK.upper(),
    "digits": "148275036141",
    **{case["id"]: case["payload"] for case in EMV},
}
BASE45 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"


def drawn_by_the_library(payload: str) -> tuple[bytes, ...]:
    drawing = qrcode.QRCode(error_correction=ERROR_CORRECT_M, border=0, mask_pattern=2)
    drawing.add_data(payload, optimize=0)
    drawing.make()
    return tuple(map(bytes, drawing.modules))


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_two_readers_read_what_is_drawn(payload: str) -> None:
    shown = picture(symbol(payload))
    assert read_by_zxing(shown) == [payload]
    assert read_by_opencv(shown) == [payload]


@pytest.mark.parametrize("name", ["link", "own-arabic", "receipt"])
def test_a_renderer_of_svg_shows_what_readers_read(name: str, tmp_path: Path) -> None:
    drawn = symbol(PAYLOADS[name])
    (tmp_path / "code.svg").write_text(drawn.svg("code"), "utf-8")
    page = "#set page(width: auto, height: auto, margin: 0pt)\n"
    side = drawn.size + 8
    (tmp_path / "page.typ").write_text(f'{page}#image("code.svg", width: {side}pt)', "utf-8")
    rendered = typst.compile(tmp_path / "page.typ", format="png", ppi=4 * 72.0)
    assert isinstance(rendered, bytes)
    shown = Image.open(BytesIO(rendered)).convert("L")
    assert shown.size == (4 * side, 4 * side)
    assert read_by_zxing(shown) == read_by_opencv(shown) == [PAYLOADS[name]]


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_the_png_is_the_same_picture(payload: str) -> None:
    drawn = symbol(payload)
    image = Image.open(BytesIO(drawn.png()))
    assert image.mode == "1"
    assert enlarged(image.convert("L")).tobytes() == picture(drawn).tobytes()


@pytest.mark.parametrize(
    ("payload", "version"),
    [
        (LINK, 3),
        (RECEIPT["base45_with_prefix"], 9),  # alphanumeric: as bytes it would be version 12
        *[(case["payload"], int(case["qr_symbol"].split()[1].split("-")[0])) for case in EMV],
    ],
)
def test_a_symbol_is_as_small_as_it_can_be(payload: str, version: int) -> None:
    assert symbol(payload).size == 17 + 4 * version


@settings(deadline=None, max_examples=60)
@given(st.one_of(st.text(max_size=300), st.text(BASE45, max_size=300), st.text("0123", min_size=1)))
def test_any_text_is_drawn_as_the_library_draws_it(payload: str) -> None:
    if payload.isascii() and payload.isdigit():
        payload = f"{payload}A"  # the library has a mode for digits alone, which no code of ours is
    assert symbol(payload).modules == drawn_by_the_library(payload)


@pytest.mark.parametrize("version", range(1, 41))
def test_a_full_symbol_of_every_version_is_drawn_as_the_library_draws_it(version: int) -> None:
    bytes_max = BIT_LIMIT_TABLE[ERROR_CORRECT_M][version] // 8 - (2 if version < 10 else 3)
    full = symbol("x" * bytes_max)
    assert full.size == 17 + 4 * version
    assert full.modules == drawn_by_the_library("x" * bytes_max)
    assert version == 40 or symbol("x" * bytes_max + "x").size == full.size + 4


def test_a_symbol_filled_to_the_last_bit_is_drawn_as_the_library_draws_it() -> None:
    for length in range(1, 120):
        assert symbol("A" * length).modules == drawn_by_the_library("A" * length)


@pytest.mark.parametrize(("most", "more"), [("é" * 1165 + "x", "x"), ("A" * 3391, "A")])
def test_a_text_for_no_symbol_is_refused(most: str, more: str) -> None:
    assert symbol(most).size == 177
    with pytest.raises(PayloadTooLong):
        symbol(most + more)


def test_an_svg_says_what_it_is_and_shields_what_it_says() -> None:
    drawn = symbol(LINK)
    title = 'Payer <b>"1482"</b> & رمز الأداء'
    root = ElementTree.fromstring(drawn.svg(title))  # noqa: S314 - our own
    assert root.get("role") == "img"
    assert root.get("viewBox") == "0 0 37 37"
    name, ground, lines = root
    assert name.tag.endswith("}title")
    assert name.text == title
    assert ground.get("fill") == "#fff"
    assert lines.get("d") == drawn.path()


@pytest.mark.parametrize("quiet", [0, 1, 4, 10])
def test_the_margin_is_as_asked(quiet: int) -> None:
    drawn = symbol("A")
    image = Image.open(BytesIO(drawn.png(quiet)))
    assert image.size == (21 + 2 * quiet,) * 2
    inverse = image.convert("L").point(lambda level: 255 - level)
    assert inverse.getbbox() == (quiet, quiet, 21 + quiet, 21 + quiet)
    assert drawn.path(quiet).startswith(f"M{quiet} {quiet}.5m0 0h7m")


def test_a_symbol_is_the_same_every_time_and_can_be_kept_by_it() -> None:
    assert symbol(LINK) == symbol(LINK)
    assert len({symbol(LINK), symbol(LINK), symbol(LINK + "/")}) == 2
    assert isinstance(symbol(""), Symbol)
