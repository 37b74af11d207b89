"""Find the QR codes in a photo that somebody uploads, where the browser cannot scan. Pure.

A photo comes from a stranger. Only three formats are opened, each by its own decoder, and what a
file says of its size is judged before a pixel is decoded. What the camera wrote about the photo
(EXIF) is not used: a code reads the same from every side.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Final

import zxingcpp
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

PIXELS_MAX: Final = 12_500_000
"""How many are decoded: a phone's 4032 by 3024. A larger JPEG is decoded at half its size."""

_SIDE_MAX: Final = 65_535  # the reader's own

SCANS_MAX: Final = 20
"""In a progressive JPEG. A usual one has ten; each costs a pass, however few bytes it takes."""


class _Jpeg(JpegImageFile):
    def _read_dpi_from_exif(self) -> None:
        """Leave out what the camera wrote: nothing here needs it, and it warns when damaged."""


_DECODERS: Final[dict[bytes, Callable[[BytesIO], ImageFile]]] = {
    b"\xff\xd8\xff": _Jpeg,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"RIFF": WebPImageFile,
}
_START_OF_SCAN: Final = b"\xff\xda"
_QR: Final = zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode)


class UnreadablePhoto(ValueError):
    """The bytes are no picture that we open. Its message is a sentence."""


def codes_in(image: bytes) -> list[str]:
    """Return the texts of the QR codes in a JPEG, PNG or WebP, none twice; empty if it has none.

    Raises:
        UnreadablePhoto: It is something else, damaged, or too large.
    """
    found = zxingcpp.read_barcodes(
        _grey(image),
        formats=_QR,
        text_mode=zxingcpp.TextMode.Plain,
        try_invert=False,  # codes are dark on light; looking for the rest takes half as long again
    )
    return list(dict.fromkeys(code.text for code in found))


def _grey(image: bytes) -> Image.Image:
    decoder = next((d for magic, d in _DECODERS.items() if image.startswith(magic)), None)
    if decoder is None:
        raise UnreadablePhoto("This is not a photo that can be read: send a JPEG, PNG or WebP.")
    try:
        with decoder(BytesIO(image)) as photo:
            _shrink(photo, image)
            if photo.has_transparency_data:  # a screenshot's code may stand on nothing: on white
                ground = Image.new("RGBA", photo.size, "white")
                ground.alpha_composite(photo.convert("RGBA"))
                return ground.convert("L")
            return photo.convert("L")
    except UnreadablePhoto:
        raise
    except Exception as error:  # whatever a decoder stumbles on
        raise UnreadablePhoto("The photo is damaged: send it again, or take another.") from error


def _shrink(photo: ImageFile, image: bytes) -> None:
    """Have a large JPEG decoded at half its size, which also takes less time.

    Raises:
        UnreadablePhoto: It would still be too much to decode.
    """
    width, height = photo.size
    progressive = "progressive" in photo.info
    if progressive and image.count(_START_OF_SCAN) > SCANS_MAX:
        raise UnreadablePhoto("The photo is stored in an unusual way: take another.")
    if isinstance(photo, JpegImageFile):
        half = width * height > PIXELS_MAX and not progressive  # a progressive one is kept whole
        photo.draft("L", (width // 2, height // 2) if half else photo.size)
        width, height = photo.size
    if width * height > PIXELS_MAX or max(width, height) > _SIDE_MAX:
        raise UnreadablePhoto("The photo is too large: take it at a usual size.")
