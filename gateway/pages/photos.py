"""A form that may bear a photo of a code: read within bounds, and what was wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from fastapi import Request, Response

from gateway.codes.photo import UnreadablePhoto, codes_in
from gateway.pages import site
from gateway.pages.forms import Body, Form, Refusal, read_form
from gateway.pages.turnstile import Full, Turnstile

PHOTOS: Final = Turnstile(at_once=2, in_line=6)
BUSY_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class Sent:
    """What came: what was typed, or the codes of a photo, or why there are none of either."""

    fields: Mapping[str, str]
    codes: tuple[str, ...] = ()
    wrong: str = ""
    """`none`, `unreadable`, `no_code`: what the page has a sentence for."""


def read_sent(posted: Body) -> Sent | Refusal:
    """Return what a posted form holds, or why it was not taken in."""
    if posted.refusal is not None:
        return posted.refusal
    if not posted.is_multipart:
        return Sent(read_form(posted).fields)
    try:
        with PHOTOS.turn():
            return _read(read_form(posted))
    except Full:
        return Refusal.BUSY


def _read(form: Form) -> Sent:
    if form.photo is None:
        return Sent(form.fields)
    if not form.photo:
        return Sent(form.fields, wrong="none")
    try:
        codes = tuple(codes_in(form.photo))
    except UnreadablePhoto:
        return Sent(form.fields, wrong="unreadable")
    return Sent(form.fields, codes, wrong="" if codes else "no_code")


def refused(
    request: Request, refusal: Refusal, posted: Body, form_page: Callable[[str], Response]
) -> Response:
    """Return the answer to a form that was not taken in: wait, or the form with what is wrong."""
    if refusal in {Refusal.TOO_OFTEN, Refusal.BUSY}:
        what = "photos" if refusal is Refusal.TOO_OFTEN else "busy"
        made = site.wait_page(request, posted.seconds or BUSY_SECONDS, what)
    else:
        made = form_page(refusal.value)
        made.status_code = 413 if refusal is Refusal.TOO_LARGE else 400
    # A part of the body may still be on its way.
    made.headers["Connection"] = "close"
    return made
