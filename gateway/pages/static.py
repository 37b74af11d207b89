"""The files beside the pages: two scripts that no page needs, kept by browsers by their hash."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import Final

from fastapi import APIRouter, Request, Response

from gateway.pages import site

SCRIPTS: Final = ("offline.js", "scan.js")

router = APIRouter()


@router.api_route("/static/{name}", methods=site.READ)
def static(request: Request, name: str) -> Response:
    """A script. Its address with the hash of its content never changes, so it is kept for ever."""
    if name not in SCRIPTS:
        return site.missing(request)
    made = site.answer(request, content(name), "text/javascript; charset=utf-8")
    current = request.query_params.get("v") == version(name)
    made.headers["Cache-Control"] = site.FOR_EVER if current else "no-cache"
    return made


def address(name: str) -> str:
    """Return where a script is, with the hash of its content."""
    return f"/static/{name}?v={version(name)}"


@cache
def content(name: str) -> bytes:
    """Return a script."""
    return resources.files(__package__).joinpath("static", name).read_bytes()


@cache
def version(name: str) -> str:
    """Return a hash of a script's content."""
    return hashlib.sha256(content(name)).hexdigest()[:12]
