"""Which bill does a scanned or typed text mean? Pure.

A counter's gun, a camera and a keyboard all end in one field. Whatever they put there, a link, a
payment code, a receipt or the digits, is understood in one place.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.codes import emv, receipts
from gateway.references import is_reference, normalise_reference

TEXT_CHARS_MAX: Final = 2_048

# Ours whatever the host: the address may have changed since the notice was printed. Direction marks
# come along when a link is copied out of a right-to-left page.
_MARKS: Final = "[\u200e\u200f\u202a-\u202e\u2066-\u2069]*"
_LINK = re.compile(
    rf"{_MARKS}https?://[^/?#\s]+/([0-9]{{12}})(?:[./?#]\S*)?{_MARKS}", re.ASCII | re.IGNORECASE
)

_RUN = re.compile(r"(?<!\S)(?<!\d\s)\d(?:[ \u00a0\u202f-]?\d){11}(?=[.,;،؛]?(?:\s+(?!\d)|\s*$))")


def reference_in(text: str) -> str | None:
    """Return the twelve ASCII digits that a text means, or None. They may not verify.

    Understands what a person types (see `normalise_reference`), our links, payment codes of any
    maker that carry such digits, and our receipts. Never raises; nothing in the text is believed.
    """
    if len(text) > TEXT_CHARS_MAX:
        return None
    text = text.strip()
    if (typed := normalise_reference(text)) is not None:
        return typed
    if link := _LINK.fullmatch(text):
        return link[1]
    if (claims := receipts.claimed(text)) is not None:
        return normalise_reference(claims.reference)
    try:
        return emv.decode(text).reference
    except emv.UnreadableEmv:
        return _one_among_words(text)


def _one_among_words(text: str) -> str | None:
    """Return the reference in a pasted message, if there is one only: it verifies, so it is one."""
    runs = (normalise_reference(run) for run in _RUN.findall(text))
    found = {run for run in runs if run is not None and is_reference(run)}
    return found.pop() if len(found) == 1 else None
