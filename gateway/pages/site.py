"""What all pages have in common: templates, headers, compression, answers to what cannot be done.

One document in one answer: the sheet stands in the page, and the policy of its contents allows that
sheet by its hash and nothing else. Strangers choose paths, headers and fields; none of them reaches
the database unread or a page unescaped.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final
from urllib.parse import quote

from fastapi import Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException

from gateway.institution import institution
from gateway.pages.language import Address, accepted_language, named_language
from gateway.references import format_reference
from gateway.settings import settings
from gateway.words.catalogs import Language
from gateway.words.speech import Speech, speech

READ: Final = ["GET", "HEAD"]
READ_AND_POST: Final = ["GET", "HEAD", "POST"]

NEVER_KEPT: Final = "private, no-store"
"""For all that shows dues or what somebody typed."""
ASKED_AGAIN: Final = "private, no-cache"
"""For empty forms: going back is instant, and coming again brings the present version."""
FOR_EVER: Final = "public, max-age=31536000, immutable"

MACHINES: Final = (
    "/webhooks",
    "/gsma",
    "/bills",
    "/v1",
    "/healthz",
    "/readyz",
    "/metrics",
    "/docs",
    "/openapi.json",
)
"""Where the caller is a program: errors there are not for people's eyes."""

_NO_BREAK: Final = "\u00a0"
EXAMPLE: Final = f"1234{_NO_BREAK}5678{_NO_BREAK}9012"
"""Shows the form of a reference. It does not verify, so that who types it is told of his error."""

_GZIP_BYTES_MIN: Final = 512
_SECONDS_A_MINUTE: Final = 60


# -- answering ------------------------------------------------------------------------------------


def address_of(
    request: Request, path: str | None = None, query: Sequence[tuple[str, str]] | None = None
) -> Address:
    """Return where the reader is and in which language.

    Args:
        request: What was asked.
        path: Where its answer can be read by GET, if that is elsewhere (after a POST).
        query: With what, likewise.
    """
    parameters = request.query_params
    chosen = named_language(parameters.get("lang"))
    kept = parameters.multi_items() if query is None else query
    return Address(
        path=request.scope["path"] if path is None else path,
        query=tuple((name, value) for name, value in kept if name != "lang"),
        language=chosen or accepted_language(request.headers.get("accept-language", "")),
        chosen=chosen is not None,
    )


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    at: Address | None = None,
    keep: str = NEVER_KEPT,
    script: bool = False,
    camera: bool = False,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> Response:
    """Return a page made from a template, in the reader's language.

    Args:
        request: What was asked.
        template: Name of the template's file.
        status: Of the answer.
        at: Where the page is, if not at the address that was asked.
        keep: `Cache-Control`.
        script: Whether it loads a script of ours.
        camera: Whether that may ask for the camera.
        headers: More headers.
        **values: What the template shows.
    """
    at = at or address_of(request)
    house = institution()
    html = (
        environment(at.language)
        .get_template(template)
        .render(
            at=at,
            house=house,
            house_name=_isolated(house.name_ar if at.language == "ar" else house.name),
            specimen=settings().mode != "production",
            **values,
        )
    )
    made = answer(request, html.encode("utf-8", "replace"), "text/html; charset=utf-8", status)
    made.headers["Content-Security-Policy"] = _policy(script=script)
    made.headers["Permissions-Policy"] = _permissions(camera=camera)
    made.headers["Content-Language"] = at.language
    made.headers["Cache-Control"] = keep
    made.headers["Vary"] = "Accept-Language, Accept-Encoding"
    if keep == NEVER_KEPT:
        made.headers["X-Robots-Tag"] = "noindex, nofollow, noarchive"
    made.headers.update(headers or {})
    return made


def answer(request: Request, body: bytes, media_type: str, status: int = 200) -> Response:
    """Return an answer with the headers of all of ours, compressed where the reader allows it."""
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Content-Security-Policy": "frame-ancestors 'none'",
        "Vary": "Accept-Encoding",
    }
    if len(body) >= _GZIP_BYTES_MIN and _takes_gzip(request.headers.get("accept-encoding", "")):
        body = gzip.compress(body, 6, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(body, status, headers, media_type)


def redirect(request: Request, path: str, *, status: int = 303, **query: str) -> Response:
    """Send the reader to a page of ours, in the language that he chose."""
    made = answer(request, b"", "text/plain", status)
    made.headers["Location"] = address_of(request).link(quote(path), **query)
    made.headers["Cache-Control"] = NEVER_KEPT
    return made


# -- what cannot be done --------------------------------------------------------------------------


def missing(request: Request) -> Response:
    """Return the answer for an address where there is nothing."""
    return page(request, "problem.html", status=404, what="missing")


def wait_page(
    request: Request, seconds: int, what: str = "misses", *, status: int = 429
) -> Response:
    """Return the answer for who asked too often: how long to wait, in words and for programs."""
    minutes = max(1, math.ceil(seconds / _SECONDS_A_MINUTE))
    return page(
        request,
        "problem.html",
        status=status,
        at=address_of(request, request.scope["path"] if request.method in READ else "/"),
        headers={"Retry-After": str(seconds)},
        what=what,
        minutes=minutes,
    )


async def http_error(request: Request, error: Exception) -> Response:
    """Answer what the router refuses: as a page to people, as JSON where programs call."""
    assert isinstance(error, HTTPException)
    if is_for_machines(request):
        return await http_exception_handler(request, error)
    what = {404: "missing", 405: "method"}.get(error.status_code, "asked")
    return page(
        request,
        "problem.html",
        status=error.status_code,
        at=None if request.method in READ else address_of(request, "/", ()),
        headers=error.headers,
        what=what,
    )


def apology(request: Request) -> Response:
    """Return the page for a fault of ours: says that nothing was paid, and nothing more."""
    return page(request, "problem.html", status=500, at=address_of(request, "/", ()), what="fault")


def is_for_machines(request: Request) -> bool:
    """Say whether an address is one that programs call."""
    path = request.scope["path"]
    return any(path == prefix or path.startswith(prefix + "/") for prefix in MACHINES)


# -- templates ------------------------------------------------------------------------------------


@cache
def environment(language: Language) -> Environment:
    """Return the templates in a language: what is not given or not translated is an error."""
    made = Environment(
        loader=PackageLoader("gateway.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        extensions=["jinja2.ext.i18n"],
    )
    made.policies["ext.i18n.trimmed"] = True
    speaking = speech(language)
    made.install_gettext_translations(speaking.catalog, newstyle=True)  # type: ignore[attr-defined]
    made.filters["reference"] = lambda reference: _left_to_right(format_reference(reference))
    made.filters["shown"] = format_reference
    made.filters["rf"] = lambda reference: _left_to_right(f"RF74 {format_reference(reference)}")
    made.filters["ltr"] = _left_to_right
    made.filters["isolated"] = _isolated
    made.filters["money"] = lambda minor: _isolated(speaking.money(minor))
    made.filters["amount"] = lambda minor: _left_to_right(speaking.amount(minor))
    made.filters["phone"] = _phone
    made.globals.update(
        s=speaking,
        say=_saying(speaking),
        example=_isolated(EXAMPLE),
        sheet=Markup(sheet()),  # noqa: S704 - our own file
    )
    return made


def _saying(speaking: Speech) -> Callable[..., Markup]:
    """Return `Speech.say` for templates: what fills the names is escaped, unless it is markup."""

    def say(text: str, **values: Any) -> Markup:
        return Markup(speaking.catalog.gettext(text)).format(**values)  # noqa: S704 - our catalogs

    return say


def _left_to_right(text: str) -> Markup:
    """Return figures or Latin letters as one unbroken piece of any text."""
    return Markup('<bdi class="ref" dir="ltr">{}</bdi>').format(text.replace(" ", _NO_BREAK))


def _isolated(text: str) -> str:
    """Return a text whose direction is its own, for use inside a sentence: no box of its own."""
    return f"\u2068{text}\u2069"


def _phone(number: str) -> Markup:
    dialled = re.sub(r"[^0-9+]", "", number)
    return Markup('<a href="tel:{}">{}</a>').format(dialled, _left_to_right(number))


@cache
def sheet() -> str:
    """Return the one style sheet, without comments and needless space."""
    text = resources.files(__package__).joinpath("style.css").read_text("utf-8")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    text = re.sub(r"\s+", " ", text)
    return re.sub(r" ?([{};,>]) ?|(?<=:) ", r"\1", text).replace(";}", "}").strip()


@cache
def _policy(*, script: bool) -> str:
    digest = base64.b64encode(hashlib.sha256(sheet().encode()).digest()).decode()
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src 'sha256-{digest}'",
            "img-src 'self' data:",
            *(["script-src 'self'"] if script else []),
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ]
    )


@cache
def _permissions(*, camera: bool) -> str:
    refused = ("geolocation", "microphone", "payment", "usb", "interest-cohort")
    allowed = f"camera=({'self' if camera else ''})"
    return ", ".join([allowed, *(f"{feature}=()" for feature in refused)])


def _takes_gzip(header: str) -> bool:
    for part in header.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() in {"gzip", "*"}:
            return re.fullmatch(r"q=0(\.0*)?", weight.strip()) is None
    return False
