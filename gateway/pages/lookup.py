"""From what an address holds to what the books hold, with the bounds on guessing in between."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeVar

from fastapi import Request, Response
from sqlmodel import Session

from gateway import process
from gateway.db import execute, snapshot
from gateway.institution import institution
from gateway.pages import site
from gateway.pages.clients import client_of
from gateway.pages.throttle import misses
from gateway.presentment import Presentment, present

_Found = TypeVar("_Found")


def look_up(
    request: Request,
    read: Callable[[Session], _Found | None],
    unknown: Callable[[], Response],
) -> _Found | Response:
    """Return what one reading of the database finds, or the answer to a miss.

    Args:
        request: Who asks: a client that missed too often is answered before anything is read.
        read: The reading, in a snapshot that is opened and closed here.
        unknown: Makes the answer where there is nothing; then the miss is counted.
    """
    client = client_of(request)
    if seconds := misses().seconds_to_wait(client):
        return site.wait_page(request, seconds)
    with snapshot() as session:
        found = read(session)
    if found is not None:
        return found
    if seconds := misses().count(client):
        return site.wait_page(request, seconds)
    return unknown()


def presented(session: Session, reference: str) -> Presentment | None:
    """Return what the payer of a reference sees now."""
    return present(session, reference, now=now(), validity_months=institution().validity.months)


def exists(session: Session, reference: str) -> bool | None:
    """Return True if an invoice bears a reference, else None."""
    found = execute(session, _EXISTS, {"reference": reference})
    return found.scalar_one_or_none()


_EXISTS: Final = "SELECT true FROM invoice WHERE reference = :reference"


def now() -> datetime:
    """Return the business clock's instant."""
    return process.business_clock()()
