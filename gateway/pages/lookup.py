"""From what an address holds to what the books hold, with the bounds on guessing in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import Condition
from typing import Final, TypeVar

from fastapi import Request, Response
from sqlmodel import Session

from gateway import process
from gateway.billing.bundle_presentment import BundlePresentment, present_bundle
from gateway.billing.presentment import Presentment, present
from gateway.db import execute, snapshot
from gateway.institution import institution
from gateway.pages import site
from gateway.pages.clients import Client, client_of
from gateway.pages.throttle import misses

SETTLE_SECONDS_MAX: Final = 2.0
"""How long something found waits for the same client's other look-ups; they take milliseconds."""

_Found = TypeVar("_Found")


class Asked:
    """Look-ups of this process that are going on: whether they miss is not counted yet."""

    def __init__(self) -> None:
        self._open: dict[Client, set[object]] = {}
        self._changed = Condition()

    @contextmanager
    def by(self, client: Client) -> Iterator[None]:
        """Hold a look-up as going on until it is done and counted."""
        mark = object()
        with self._changed:
            self._open.setdefault(client, set()).add(mark)
        try:
            yield
        finally:
            with self._changed:
                self._open[client].discard(mark)
                if not self._open[client]:
                    del self._open[client]
                self._changed.notify_all()

    def settle(self, client: Client) -> None:
        """Wait until the look-ups of a client that go on now are done, and for no later ones."""
        with self._changed:
            now_open = frozenset(self._open.get(client, ()))
            self._changed.wait_for(
                lambda: now_open.isdisjoint(self._open.get(client, ())), SETTLE_SECONDS_MAX
            )


_ASKED: Final = Asked()


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

    What is found is kept back too if the client missed too often meanwhile: else one of a hundred
    guesses at once would be known by its answer.
    """
    client = client_of(request)
    if seconds := misses().seconds_to_wait(client):
        return site.wait_page(request, seconds)
    with _ASKED.by(client):
        with snapshot() as session:
            found = read(session)
        seconds = misses().count(client) if found is None else 0
    if found is not None:
        _ASKED.settle(client)
        seconds = misses().seconds_to_wait(client)
    if seconds:
        return site.wait_page(request, seconds)
    return unknown() if found is None else found


def presented(session: Session, reference: str) -> Presentment | None:
    """Return what the payer of a reference sees now."""
    return present(session, reference, now=now(), validity_months=institution().validity.months)


def together(session: Session, reference: str) -> BundlePresentment | None:
    """Return what the payer of a reference for several invoices sees now."""
    months = institution().validity.months
    return present_bundle(session, reference, now=now(), validity_months=months)


def exists(session: Session, reference: str) -> bool | None:
    """Return True if an invoice, or a bundle of them, bears a reference, else None."""
    found = execute(session, _EXISTS, {"reference": reference})
    return found.scalar_one_or_none()


_EXISTS: Final = (
    "SELECT true FROM invoice WHERE reference = :reference"
    " UNION SELECT true FROM bundle WHERE reference = :reference"
)


def now() -> datetime:
    """Return the business clock's instant."""
    return process.business_clock()()
