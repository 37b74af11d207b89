"""Paying from an invoice's page: where a payer stands with it, the way to a provider's page.

That is a card page, or the page of a wallet. No card is ever typed here. Whoever has the reference
may begin and give up, as he may pay in any other way; there is no session that another site could
use, and its forms are refused all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

import structlog
from fastapi import Request, Response
from sqlmodel import Session

from gateway import process
from gateway.billing.presentment import Presentment
from gateway.collection.attempt_rows import (
    LEFT_OPEN,
    NOT_KNOWN,
    REVIVED,
    UNDECIDED,
    Attempt,
    latest_attempt,
)
from gateway.collection.attempts import (
    Begun,
    Step,
    begin,
    came_back,
    give_up,
    page_provider,
    page_providers,
)
from gateway.db import snapshot, transaction
from gateway.errors import ProviderAway, ProviderRefused
from gateway.models import AttemptState, Channel
from gateway.pages import site
from gateway.pages.forms import Body, read_form
from gateway.pages.lookup import presented
from gateway.pages.turnstile import Full, Turnstile
from gateway.papers.notice import PAYABLE
from gateway.providers.asking import origin_of
from gateway.settings import settings

REFRESHES_MAX: Final = 8
"""How often a page that waits for the provider's word loads itself again, ever more slowly."""

ASKING: Final = Turnstile(at_once=8, in_line=8)
"""Calls to a provider take seconds when it is slow; the other threads are for pages."""

log = structlog.get_logger(__name__)


class CardState(StrEnum):
    """Where a payer stands with a provider's page."""

    NONE = "none"
    BEGUN = "begun"
    """A page was opened, and there is no word of how it went on."""
    UNKNOWN = "unknown"
    """The payer came back from it, or has paid by one that he had refused before, and there is no
    word yet: he must not pay again."""
    OPEN = "open"
    """He wants to give it up, and only he can close it, where he pays."""
    ENDED = "ended"
    """The page he comes from is closed, and took nothing."""


@dataclass(frozen=True, slots=True)
class Card:
    """What an invoice's page shows of paying from here. There is one only where a provider can."""

    state: CardState
    attempt: Attempt | None
    refresh: str = ""
    """The `Refresh` header of a page that waits."""

    @property
    def way(self) -> str:
        """The provider that the payer was sent to."""
        return "" if self.attempt is None else self.attempt.provider

    @property
    def by_wallet(self) -> bool:
        """Whether he was sent to the page of a wallet."""
        return _is_wallet(self.way)


def card_of(request: Request, found: Presentment) -> Card | None:
    """Return where the payer of an invoice stands with a provider's page; None: there are none."""
    if page_provider(process.providers()) is None:
        return None
    with snapshot() as session:
        attempt = latest_attempt(session, found.reference)
    said = request.query_params.get("card")
    if attempt is None or attempt.state in {AttemptState.MADE, AttemptState.PAID}:
        return Card(CardState.NONE, attempt)
    if not attempt.is_open and not attempt.awaited:
        known = attempt.closed_because not in {NOT_KNOWN, UNDECIDED, LEFT_OPEN, REVIVED}
        ended = said in {"back", "left", "stopped", "open"} and known
        return Card(CardState.ENDED if ended else CardState.NONE, attempt)
    if attempt.awaited:
        said = "back"
    if said not in {"back", "open"}:
        return Card(CardState.BEGUN, attempt)
    with transaction() as session:
        came_back(session, attempt)
    state = CardState.OPEN if said == "open" and _is_wallet(attempt.provider) else CardState.UNKNOWN
    return Card(state, attempt, _refresh(request, found.reference, said))


def lead_out(answer: Response, card: Card | None) -> Response:
    """Let the forms of a page lead to providers', and a page that waits load itself again."""
    if card is None:
        return answer
    origins = dict.fromkeys(p.pages_origin for p in page_providers(process.providers()))
    # Browsers hold a form to this wherever it is sent on to.
    _let_forms(answer, " ".join(["'self'", *origins]))
    if card.refresh:
        answer.headers["Refresh"] = card.refresh
    return answer


def _let_forms(answer: Response, where: str) -> None:
    policy = answer.headers["Content-Security-Policy"]
    answer.headers["Content-Security-Policy"] = policy.replace(
        "form-action 'self'", f"form-action {where}"
    )


def pages_by_channel() -> dict[Channel, list[str]]:
    """Return the providers that make pages, by what a payer pays by there."""
    found: dict[Channel, list[str]] = {}
    for provider in page_providers(process.providers()):
        found.setdefault(provider.channel, []).append(provider.name)
    return found


def chosen_way(posted: Body) -> str:
    """Return the provider that a form names; what it names otherwise is none of ours."""
    return _fields(posted).get("way", "")


def _fields(posted: Body) -> Mapping[str, str]:
    return {} if posted.is_multipart else read_form(posted).fields


def pay(request: Request, found: Presentment, way: str = "") -> Response:
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
            way=way,
        )
        return _led(request, found.reference, begun, way)

    return _asked(request, found.reference, act, way)


def stop(request: Request, found: Presentment, posted: Body) -> Response:
    """Close the page at its provider, so that nothing can be taken by it any more.

    A wallet's only its payer can close: he may take another way though it is open, if he says that
    he knows what that means.
    """
    anyway = "anyway" in _fields(posted)

    if page_provider(process.providers()) is None:
        return site.missing(request)

    def act() -> Response:
        now = process.business_clock()
        if not give_up(process.providers(), found.reference, clock=now, anyway=anyway):
            return _not_closed(request, found.reference)
        said = "left" if anyway else "stopped"
        return site.redirect(request, f"/{found.reference}", card=said)

    with snapshot() as session:
        attempt = latest_attempt(session, found.reference)
    return _asked(request, found.reference, act, "" if attempt is None else attempt.provider)


def _led(request: Request, reference: str, begun: Begun, way: str) -> Response:
    if begun.step is Step.TOO_OFTEN:
        return _problem(request, reference, "often", 429, way)
    if begun.step is Step.NOTHING_DUE:
        return site.redirect(request, f"/{reference}")
    if begun.step is Step.UNKNOWN:
        return _not_closed(request, reference)
    if begun.fields:
        # A bank takes its payers by a form that only their own browser can post.
        form = site.page(
            request,
            "lead.html",
            at=site.address_of(request, f"/{reference}", ()),
            reference=reference,
            url=begun.url,
            fields=begun.fields,
        )
        _let_forms(form, origin_of(begun.url))
        return form
    made = site.answer(request, b"", "text/plain", 303)
    made.headers["Location"] = begun.url
    made.headers["Cache-Control"] = site.NEVER_KEPT
    return made


def _not_closed(request: Request, reference: str) -> Response:
    """Lead to the page that says why no other way can be taken yet."""
    with snapshot() as session:
        attempt = latest_attempt(session, reference)
    by_wallet = attempt is not None and _is_wallet(attempt.provider)
    return site.redirect(request, f"/{reference}", card="open" if by_wallet else "back")


def _asked(request: Request, reference: str, act: Callable[[], Response], way: str) -> Response:
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
        return _problem(request, reference, "refused", 503, way)
    except ProviderAway as error:
        log.warning("card_away", reason=str(error))
        return _problem(request, reference, "away", 503, way)


def _problem(request: Request, reference: str, what: str, status: int, way: str) -> Response:
    return site.page(
        request,
        "problem.html",
        status=status,
        at=site.address_of(request, f"/{reference}", ()),
        headers={"Retry-After": "60"},
        what=f"{'wallet' if _is_wallet(way) else 'card'}_{what}",
        reference=reference,
    )


def _is_wallet(way: str) -> bool:
    provider = page_provider(process.providers(), way)
    return provider is not None and provider.channel is Channel.WALLET


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


def _refresh(request: Request, reference: str, said: str) -> str:
    tried = request.query_params.get("try", "0")
    tries = int(tried) if tried.isascii() and tried.isdecimal() and len(tried) == 1 else 0
    if tries >= REFRESHES_MAX:
        return ""
    again = site.address_of(request).link(f"/{reference}", card=said, **{"try": str(tries + 1)})
    return f"{3 + 2 * tries}; url={again}"
