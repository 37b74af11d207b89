"""The card part of an invoice's page: where a payer stands with it, and the way to the card page.

No card is ever typed here. Whoever has the reference may begin and give up, as he may pay in any
other way; there is no session that another site could use, and its forms are refused all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

import structlog
from fastapi import Request, Response
from sqlmodel import Session

from gateway import process
from gateway.billing.presentment import Presentment
from gateway.collection.attempts import (
    NOT_KNOWN,
    Attempt,
    Begun,
    Step,
    begin,
    came_back,
    give_up,
    latest_attempt,
    page_provider,
)
from gateway.db import snapshot, transaction
from gateway.errors import ProviderAway, ProviderRefused
from gateway.models import AttemptState
from gateway.pages import site
from gateway.pages.lookup import presented
from gateway.pages.turnstile import Full, Turnstile
from gateway.papers.notice import PAYABLE
from gateway.settings import settings

REFRESHES_MAX: Final = 8
"""How often a page that waits for the provider's word loads itself again, ever more slowly."""

ASKING: Final = Turnstile(at_once=8, in_line=8)
"""Calls to a provider take seconds when it is slow; the other threads are for pages."""

log = structlog.get_logger(__name__)


class CardState(StrEnum):
    """Where a payer stands with the card page."""

    NONE = "none"
    BEGUN = "begun"
    """A page was opened, and there is no word of how it went on."""
    UNKNOWN = "unknown"
    """The payer came back from it, and there is no word yet: he must not pay again."""
    ENDED = "ended"
    """The page he comes from is closed, and took nothing."""


@dataclass(frozen=True, slots=True)
class Card:
    """What an invoice's page shows of paying by card. There is one only where a provider can."""

    state: CardState
    attempt: Attempt | None
    refresh: str = ""
    """The `Refresh` header of a page that waits."""


def card_of(request: Request, found: Presentment) -> Card | None:
    """Return where the payer of an invoice stands with the card page; None: there is none."""
    if page_provider(process.providers()) is None:
        return None
    with snapshot() as session:
        attempt = latest_attempt(session, found.reference)
    said = request.query_params.get("card")
    if attempt is None or attempt.state in {AttemptState.MADE, AttemptState.PAID}:
        return Card(CardState.NONE, attempt)
    if not attempt.is_open:
        ended = said in {"back", "left", "stopped"} and attempt.closed_because != NOT_KNOWN
        return Card(CardState.ENDED if ended else CardState.NONE, attempt)
    if said != "back":
        return Card(CardState.BEGUN, attempt)
    with transaction() as session:
        came_back(session, attempt)
    return Card(CardState.UNKNOWN, attempt, _refresh(request, found.reference))


def lead_out(answer: Response, card: Card | None) -> Response:
    """Let the forms of a page lead to the provider's, and a page that waits load itself again."""
    provider = page_provider(process.providers())
    if card is None or provider is None:
        return answer
    policy = answer.headers["Content-Security-Policy"]
    # Browsers hold a form to this wherever it is sent on to.
    answer.headers["Content-Security-Policy"] = policy.replace(
        "form-action 'self'", f"form-action 'self' {provider.pages_origin}"
    )
    if card.refresh:
        answer.headers["Refresh"] = card.refresh
    return answer


def pay(request: Request, found: Presentment) -> Response:
    """Send the payer to a page that asks for what is due, the same one if it is open already."""

    def due_minor(session: Session) -> int:
        fresh = presented(session, found.reference)
        return fresh.due_minor if fresh and fresh.standing in PAYABLE else 0

    if page_provider(process.providers()) is None:
        return site.missing(request)

    def act() -> Response:
        begun = begin(
            process.providers(),
            found.reference,
            due_minor=due_minor,
            language=site.address_of(request).language,
            link=settings().payer_link(found.reference),
            clock=process.business_clock(),
        )
        return _led(request, found.reference, begun)

    return _asked(request, found.reference, act)


def stop(request: Request, found: Presentment) -> Response:
    """Close the card page at the provider, so that nothing can be taken by it any more."""

    if page_provider(process.providers()) is None:
        return site.missing(request)

    def act() -> Response:
        closed = give_up(process.providers(), found.reference, clock=process.business_clock())
        said = "stopped" if closed else "back"
        return site.redirect(request, f"/{found.reference}", card=said)

    return _asked(request, found.reference, act)


def _led(request: Request, reference: str, begun: Begun) -> Response:
    if begun.step is Step.TOO_OFTEN:
        return _problem(request, reference, "card_often", 429)
    if begun.step is Step.NOTHING_DUE:
        return site.redirect(request, f"/{reference}")
    if begun.step is Step.UNKNOWN:
        return site.redirect(request, f"/{reference}", card="back")
    made = site.answer(request, b"", "text/plain", 303)
    made.headers["Location"] = begun.url
    made.headers["Cache-Control"] = site.NEVER_KEPT
    return made


def _asked(request: Request, reference: str, act: Callable[[], Response]) -> Response:
    """Do what asks the provider, or say why it cannot be done now."""
    if not _is_ours(request):
        at = site.address_of(request, f"/{reference}", ())
        return site.page(request, "problem.html", status=403, at=at, what="asked")
    try:
        with ASKING.turn():
            return act()
    except Full:
        return site.wait_page(request, 10, "busy")
    except ProviderRefused as error:
        log.error("card_refused", reason=str(error))
        return _problem(request, reference, "card_refused", 503)
    except ProviderAway as error:
        log.warning("card_away", reason=str(error))
        return _problem(request, reference, "card_away", 503)


def _problem(request: Request, reference: str, what: str, status: int) -> Response:
    return site.page(
        request,
        "problem.html",
        status=status,
        at=site.address_of(request, f"/{reference}", ()),
        headers={"Retry-After": "60"},
        what=what,
        reference=reference,
    )


def _is_ours(request: Request) -> bool:
    """Say whether a form was sent from a page of ours, as far as the browser says."""
    site_said = request.headers.get("sec-fetch-site")
    if site_said is not None:
        return site_said in {"same-origin", "none"}
    origin = request.headers.get("origin", "null")
    if origin == "null":
        # Our pages say nothing of where a request comes from, and older browsers then say this.
        return True
    named = urlsplit(settings().base_url)
    return origin == f"{named.scheme}://{named.netloc}" or (
        origin.partition("://")[2] == request.headers.get("host")
    )


def _refresh(request: Request, reference: str) -> str:
    tried = request.query_params.get("try", "0")
    tries = int(tried) if tried.isascii() and tried.isdecimal() and len(tried) == 1 else 0
    if tries >= REFRESHES_MAX:
        return ""
    again = site.address_of(request).link(f"/{reference}", card="back", **{"try": str(tries + 1)})
    return f"{3 + 2 * tries}; url={again}"
