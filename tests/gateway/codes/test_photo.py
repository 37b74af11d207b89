from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from gateway.codes.photo import PIXELS_MAX, SCANS_MAX, UnreadablePhoto, codes_in
from gateway.codes.qr import symbol
from tests.gateway.codes.pictures import as_file, picture

GOLDEN = Path(__file__).parents[2] / "golden"
LINK = "https://wasl.ma.example/148275036141"
ARABIC = json.loads((GOLDEN / "emv_qr.json").read_text("utf-8"))["payloads"][1]["payload"]
RECEIPT = json.loads((GOLDEN / "receipts.json").read_text("utf-8"))["cose_sign1"][
    "base45_with_prefix"
]


def snapped(payload: str, size: tuple[int, int] = (1_600, 1_200), turned: int = 9) -> Image.Image:
    """Return a code as somebody photographs it: turned, a little soft, on a restless ground."""
    noise = random.Random(1).randbytes(100 * 75)  # noqa: S311 - the same picture every time
    scene = Image.frombytes("L", (100, 75), noise).resize(size).convert("RGB")
    code = picture(symbol(payload), 8).rotate(turned, expand=True, fillcolor=255)
    scene.paste(code.convert("RGB"), (size[0] // 4, size[1] // 4))
    return scene.filter(ImageFilter.GaussianBlur(1.5))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("payload", [LINK, ARABIC, RECEIPT], ids=["link", "emv", "receipt"])
def test_a_code_in_a_photo_is_read(payload: str, kind: str) -> None:
    assert codes_in(as_file(snapped(payload), kind)) == [payload]


@pytest.mark.parametrize("turned", [90, 180, 200, 271])
def test_a_code_is_read_from_every_side(turned: int) -> None:
    assert codes_in(as_file(snapped(LINK, turned=turned), "JPEG")) == [LINK]


def test_every_code_on_a_notice_is_read_once() -> None:
    page = Image.new("L", (1_000, 1_000), "white")
    for number, payload in enumerate((LINK, RECEIPT, LINK)):
        page.paste(picture(symbol(payload)), (40, 40 + 310 * number))
    assert sorted(codes_in(as_file(page, "PNG"))) == sorted([LINK, RECEIPT])


def test_a_photo_without_a_code_has_none() -> None:
    assert codes_in(as_file(Image.new("RGB", (640, 480), "teal"), "JPEG")) == []
    assert codes_in(as_file(Image.new("L", (1, 1)), "PNG")) == []


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "I;16", "RGBA"])
def test_a_picture_of_any_colours_is_read(mode: str) -> None:
    assert codes_in(as_file(picture(symbol(LINK)).convert(mode), "PNG")) == [LINK]


def test_a_code_on_a_transparent_ground_is_read() -> None:
    shown = picture(symbol(LINK))
    clear = Image.new("RGBA", shown.size, (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), mask=shown.point(lambda level: 255 - level))
    for kind in ("PNG", "WEBP"):
        assert codes_in(as_file(clear, kind)) == [LINK]


def test_a_photo_of_more_pixels_than_are_decoded_is_read_at_half() -> None:
    large = snapped(LINK, (4_600, 3_000))
    assert large.width * large.height > PIXELS_MAX
    assert codes_in(as_file(large, "JPEG")) == [LINK]
    for kind, options in (("JPEG", {"progressive": True}), ("PNG", {"compress_level": 0})):
        with pytest.raises(UnreadablePhoto, match="too large"):
            codes_in(as_file(large, kind, **options))


@pytest.mark.parametrize(
    "said", [b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0\xff\x7f" + b"\x12\x01" * 40]
)
def test_what_the_camera_wrote_is_not_read(said: bytes) -> None:
    assert codes_in(as_file(snapped(LINK), "JPEG", exif=said)) == [LINK]


def png_that_says(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9999)))
    )


def jpeg_that_says(width: int, height: int) -> bytes:
    small = as_file(Image.new("L", (1_000, 1_001)), "JPEG")
    said = struct.pack(">HH", 1_001, 1_000)
    assert small.count(said) == 1
    return small.replace(said, struct.pack(">HH", height, width))


@pytest.mark.parametrize(
    "bomb",
    [
        png_that_says(2**31 - 1, 2**31 - 1),
        png_that_says(60_000, 60_000),
        png_that_says(65_536, 1),
        png_that_says(1, PIXELS_MAX),
        jpeg_that_says(65_500, 65_500),
        jpeg_that_says(8_000, 7_000),
    ],
)
def test_a_picture_that_would_fill_the_memory_is_not_decoded(bomb: bytes) -> None:
    with pytest.raises(UnreadablePhoto, match="too large"):
        codes_in(bomb)


def test_a_jpeg_of_endless_scans_is_not_decoded() -> None:
    """Sixty kilobytes of such scans take seconds to decode."""
    usual = as_file(snapped(LINK), "JPEG", progressive=True)
    assert codes_in(usual) == [LINK]
    last = usual[usual.rindex(b"\xff\xda") : -2]
    with pytest.raises(UnreadablePhoto, match="unusual"):
        codes_in(usual[:-2] + last * SCANS_MAX + usual[-2:])


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF",
        b"GIF89a" + bytes(100),
        b"%PDF-1.7",
        as_file(picture(symbol(LINK)), "BMP"),
        as_file(picture(symbol(LINK)), "TIFF"),
        as_file(picture(symbol(LINK)), "JPEG")[:-600],
        as_file(picture(symbol(LINK)), "PNG")[:-40],
        as_file(picture(symbol(LINK)), "WEBP")[:-100],
    ],
)
def test_what_is_no_whole_photo_is_a_sentence(file: bytes) -> None:
    with pytest.raises(UnreadablePhoto) as refused:
        codes_in(file)
    assert str(refused.value).endswith(".")


FILES = [
    as_file(picture(symbol(LINK), 2), "PNG"),
    as_file(picture(symbol(LINK), 2).convert("P"), "PNG"),
    as_file(picture(symbol(LINK), 2).convert("RGB"), "JPEG"),
    as_file(picture(symbol(LINK), 2), "JPEG", progressive=True),
    as_file(picture(symbol(LINK), 2), "WEBP"),
    as_file(picture(symbol(LINK), 2), "WEBP", lossless=True),
]


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.integers(0, 3_000), st.binary(max_size=4)), max_size=6),
    st.integers(0, 10_000),
)
def test_any_bytes_are_a_photo_or_refused(
    file: bytes, changes: list[tuple[int, bytes]], end: int
) -> None:
    changed = bytearray(file)
    for place, others in changes:
        changed[place % len(file) : place % len(file) + len(others)] = others
    try:
        found = codes_in(bytes(changed[:end]))
    except UnreadablePhoto:
        return
    assert found in ([], [LINK])


def test_a_photo_is_read_where_numpy_is_not(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(as_file(snapped(LINK), "JPEG"))
    program = (
        "import sys; sys.modules['numpy'] = None\n"
        "from pathlib import Path\n"
        "from gateway.codes.photo import codes_in\n"
        "print(*codes_in(Path(sys.argv[1]).read_bytes()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "photo.jpg"],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (f"{LINK}\n", "")
