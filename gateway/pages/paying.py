"""What a payer does to pay from a reference's page: begin, say his number, see his code, give up.

No card is ever typed here; a phone's number is, and is passed on and kept nowhere: not in the
books, an address or a log. Whoever has the reference may begin and give up, as he may pay in any
other way; there is no session that another site could use, and its forms are refused all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

import structlog
from fastapi import Request, Response
from sqlmodel import Session

from gateway import process
from gateway.billing.bundle_presentment import BundlePresentment
from gateway.billing.presentment import Presentment
from gateway.collection.attempt_forms import form_again
from gateway.collection.attempt_rows import latest_attempt, live_codes
from gateway.collection.attempts import Begun, Step, begin, end_open, page_provider
from gateway.db import snapshot
from gateway.errors import ProviderAway, ProviderRefused
from gateway.institution import institution
from gateway.models import AttemptState, BundleKind
from gateway.pages import site
from gateway.pages.card import Kind, kind_of, kind_of_way, let_forms, on_phones
from gateway.pages.forms import Body, read_form
from gateway.pages.lookup import presented, together
from gateway.pages.turnstile import Full, Turnstile
from gateway.papers.notice import PAYABLE
from gateway.providers import PageState
from gateway.providers.asking import origin_of
from gateway.registers.phones import read_mobile
from gateway.settings import settings

ASKING: Final = Turnstile(at_once=8, in_line=8)
"""Calls to a provider take seconds when it is slow; the other threads are for pages."""
PHONE_CHARS_MAX: Final = 40

Found = Presentment | BundlePresentment

log = structlog.get_logger(__name__)


def due_now(session: Session, reference: str) -> int:
    """Return what is to be paid by a reference now, in centimes; 0 where nothing can be."""
    fresh = presented(session, reference) or together(session, reference)
    return fresh.due_minor if fresh and fresh.standing in PAYABLE else 0


def pay(request: Request, found: Found, posted: Body) -> Response:
    """Bring the payer to what takes the money that is due, the same if there is one already."""
    fields = _fields(posted)
    # What a form names otherwise is none of ours; of a way that is gone, the first one is taken.
    chosen = page_provider(process.providers(), fields.get("way", ""))
    if chosen is None:
        return site.missing(request)
    way, typed = chosen.name, fields.get("phone")
    kind = kind_of_way(way)
    if (above := _above_ceiling(request, found, way)) is not None:
        return above
    phone = read_mobile(typed or "")
    if kind == "phone" and typed is not None and phone is None:
        return _phone_page(request, found, way, typed)

    def act() -> Response:
        begun = begin(
            process.providers(),
            found.reference,
            due_minor=lambda session: due_now(session, found.reference),
            language=site.address_of(request).language,
            link=settings().payer_link(found.reference),
            clock=process.business_clock(),
            way=way,
            phone=phone or "",
        )
        return _led(request, found, begun, way)

    return _asked(request, found.reference, act, kind)


def lead(request: Request, found: Found) -> Response:
    """Return the page between here and what was chosen: a bank's form, or the question which phone.

    Both are pages to read, so that the back button and loading again find them. Where there is
    nothing to lead to, the reader is led to the reference's page.
    """
    reference, providers = found.reference, process.providers()
    due_minor = found.due_minor if found.standing in PAYABLE else 0
    with snapshot() as session:
        attempt = latest_attempt(session, reference)
    is_open = attempt is not None and attempt.state is AttemptState.SENT
    way = request.query_params.get("way", "")
    if due_minor > 0 and not is_open and way in on_phones():
        return _above_ceiling(request, found, way) or _phone_page(request, found, way)
    if attempt is None or attempt.reference != reference:
        return site.redirect(request, f"/{reference}")
    link, now = settings().payer_link(reference), process.business_clock()()
    try:
        made = form_again(providers, attempt, due_minor, link=link, now=now)
    except (ProviderAway, ProviderRefused):
        # The name is another's by now, who has to be asked; his own page says how it stands.
        made = None
    if made is None:
        return site.redirect(request, f"/{reference}")
    # A bank takes its payers by a form that only their own browser can post.
    form = site.page(request, "lead.html", reference=reference, due_minor=due_minor, made=made)
    let_forms(form, origin_of(made.url))
    return form


def _above_ceiling(request: Request, found: Found, way: str) -> Response | None:
    """Return the page that says that no wallet may hold what is due; None: one may, or another way
    was chosen.

    Above the highest level only: how far a payer has identified himself his wallet knows.
    """
    provider = page_provider(process.providers(), way)
    if provider is None or found.standing not in PAYABLE:
        return None
    ceiling = institution().exceeded(provider.channel, found.due_minor)
    if ceiling is None:
        return None
    return site.page(
        request,
        "problem.html",
        status=409,
        at=site.address_of(request, f"/{found.reference}", ()),
        what="above_ceiling",
        reference=found.reference,
        due_minor=found.due_minor,
        ceiling_minor=ceiling,
        several=isinstance(found, BundlePresentment) and found.kind is not BundleKind.PLAN,
    )


def _phone_page(request: Request, found: Found, way: str, typed: str | None = None) -> Response:
    """Return the page that asks on which phone the payer is to be asked."""
    return site.page(
        request,
        "phone.html",
        status=200 if typed is None else 422,
        at=site.address_of(request, f"/{found.reference}/card", [("way", way)]),
        p=found,
        way=way,
        text=(typed or "")[:PHONE_CHARS_MAX],
        wrong=typed is not None,
    )


def code_page(request: Request, reference: str) -> Response:
    """Return what a payer needs who pays by a code at an agency; without one, his reference."""
    with snapshot() as session:
        found = live_codes(session, reference, now=process.business_clock()())
    attempt = next((each for each in found if each.is_open), None)
    if attempt is None:
        return site.redirect(request, f"/{reference}")
    provider = page_provider(process.providers(), attempt.provider)
    fees = {way.channel: way.fee for way in institution().way}
    return site.page(
        request,
        "code.html",
        attempt=attempt,
        fee_minor=fees.get(provider.channel) if provider is not None else None,
        link=f"{settings().payer_link(reference)}/code",
    )


def stop(request: Request, reference: str, posted: Body) -> Response:
    """Close what is open at its provider, so that nothing can be taken by it any more.

    A wallet's only its payer can close, and a code nobody: he may take another way though it is
    open, if he says that he knows what that means.
    """
    anyway = "anyway" in _fields(posted)

    if page_provider(process.providers()) is None:
        return site.missing(request)

    def act() -> Response:
        now = process.business_clock()
        stands = end_open(process.providers(), reference, clock=now, anyway=anyway)
        if stands is not PageState.CLOSED:
            return _not_closed(request, reference, left=stands is PageState.OPEN)
        said = "left" if anyway else "stopped"
        return site.redirect(request, f"/{reference}", card=said)

    return _asked(request, reference, act, _latest_kind(reference))


def _led(request: Request, found: Found, begun: Begun, way: str) -> Response:
    reference = found.reference
    match begun.step:
        case Step.TOO_OFTEN:
            return _problem(request, reference, "often", 429, kind_of_way(way))
        case Step.NOTHING_DUE:
            return site.redirect(request, f"/{reference}")
        case Step.UNKNOWN:
            return _not_closed(request, reference, left=begun.left_to_payer)
        case Step.PHONE:
            return site.redirect(request, f"/{reference}/card", way=way)
        case Step.ASKED:
            return site.redirect(request, f"/{reference}", card="asked")
        case Step.CODE:
            return site.redirect(request, f"/{reference}/code")
    if begun.fields:
        # By an address that is read: the way back from the bank leads over it.
        return site.redirect(request, f"/{reference}/card")
    made = site.answer(request, b"", "text/plain", 303)
    made.headers["Location"] = begun.url
    made.headers["Cache-Control"] = site.NEVER_KEPT
    return made


def _not_closed(request: Request, reference: str, *, left: bool) -> Response:
    """Lead to the page that says why no other way can be taken yet.

    Of a card page that is being paid the answer is awaited. All else is the payer's to leave.
    """
    awaited = _latest_kind(reference) == "card" and not left
    return site.redirect(request, f"/{reference}", card="back" if awaited else "open")


def _latest_kind(reference: str) -> Kind:
    with snapshot() as session:
        attempt = latest_attempt(session, reference)
    return "card" if attempt is None else kind_of(attempt)


def _asked(request: Request, reference: str, act: Callable[[], Response], kind: Kind) -> Response:
    """Do what asks the provider, or say why it cannot be done now."""
    if not is_ours(request):
        at = site.address_of(request, f"/{reference}", ())
        return site.page(request, "problem.html", status=403, at=at, what="asked")
    try:
        with ASKING.turn():
            return act()
    except Full:
        return site.wait_page(request, 10, "busy")
    except ProviderRefused as error:
        log.error("card_refused", reason=str(error))
        return _problem(request, reference, "refused", 503, kind)
    except ProviderAway as error:
        log.warning("card_away", reason=str(error))
        return _problem(request, reference, "away", 503, kind)


def _problem(request: Request, reference: str, what: str, status: int, kind: Kind) -> Response:
    return site.page(
        request,
        "problem.html",
        status=status,
        at=site.address_of(request, f"/{reference}", ()),
        headers={"Retry-After": "60"},
        what=f"{kind}_{what}",
        reference=reference,
    )


def is_ours(request: Request) -> bool:
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


def _fields(posted: Body) -> Mapping[str, str]:
    return {} if posted.is_multipart else read_form(posted).fields
