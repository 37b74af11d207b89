"""`/` and `/{reference}`: type a reference, see what is due and how to pay; its codes and papers.

Whoever has a reference sees what it is for, and of the person the initials only.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from gateway.billing.bundle_presentment import BundlePresentment
from gateway.billing.presentment import Presentment, Standing
from gateway.codes import emv
from gateway.institution import institution
from gateway.pages import card, paying, site, static
from gateway.pages.arrears import pay_all
from gateway.pages.bundle import bundle_page, bundle_paper
from gateway.pages.forms import Posted, Refusal
from gateway.pages.lookup import exists, look_up, now, presented, together
from gateway.pages.photos import read_sent, refused
from gateway.pages.shown import (
    PAPERS,
    code_title,
    drawn,
    grows_on,
    is_covered,
    pdf,
    shares,
)
from gateway.pages.turnstile import Full
from gateway.pages.typed import Slip, Typed, looks_like_a_reference, read_typed
from gateway.pages.ways import ways_to_pay
from gateway.papers.notice import PAYABLE, notice_pdf
from gateway.settings import settings
from gateway.words.speech import speech

SYMBOL_BYTES_MAX: Final = 16 * 1024
"""A link's code has 3 KB, a payment code's 8: more would mean that something is wrong."""

ECHO_CHARS_MAX: Final = 256
"""How much of what was typed is shown again."""

_CAME: Final = frozenset({"back", "left"})
"""What an address that a provider's page leads back to says of how the payer left it."""

router = APIRouter()


# -- typing a reference ---------------------------------------------------------------------------


@router.api_route("/", methods=site.READ)
def start(request: Request) -> Response:
    """The form; with `reference`, the same answer as to posting it, so that a link can hold it."""
    typed = request.query_params.get("reference")
    if typed is None:
        return start_page(request)
    return _go_or_say(request, typed)


@router.post("/")
def find(request: Request, posted: Posted) -> Response:
    """Go to the page of the reference that was typed, or that a photo's code holds."""
    sent = read_sent(posted)
    if isinstance(sent, Refusal):
        return refused(request, sent, posted, lambda wrong: start_page(request, photo=wrong))
    if sent.wrong:
        return start_page(request, photo=sent.wrong)
    if not sent.codes:
        return _go_or_say(request, sent.fields.get("reference", ""))
    read = [read_typed(code) for code in sent.codes]
    for typed in read:
        if typed.reference is not None:
            return site.redirect(request, f"/{typed.reference}")
    return start_page(request, photo="other")


def start_page(
    request: Request, text: str = "", *, typed: Typed | None = None, photo: str = ""
) -> Response:
    """Return the page with the form: empty, or with what is wrong with what was typed or sent."""
    wrong = typed is not None or bool(photo)
    text = text[:ECHO_CHARS_MAX]
    return site.page(
        request,
        "start.html",
        status=422 if wrong else 200,
        at=site.address_of(request, "/", [("reference", text)] if text.strip() else []),
        keep=site.NEVER_KEPT if wrong else site.ASKED_AGAIN,
        script=True,
        camera=True,
        scan=static.address("scan.js"),
        text=text,
        typed=typed,
        photo=photo,
    )


def _go_or_say(request: Request, text: str) -> Response:
    typed = read_typed(text)
    if typed.reference is None:
        return start_page(request, text, typed=typed)
    return site.redirect(request, f"/{typed.reference}")


# -- what is due ----------------------------------------------------------------------------------


@router.api_route("/{reference}.svg", methods=site.READ)
def symbol(request: Request, reference: str) -> Response:
    """The code that opens this invoice's page; with `code=emv` the one that wallets pay by."""
    reference_or_answer = canonical(request, reference, ".svg")
    if isinstance(reference_or_answer, Response):
        return reference_or_answer
    reference = reference_or_answer
    if request.query_params.get("code") == "emv":
        return _payment_code(request, reference)
    found = look_up(
        request, lambda session: exists(session, reference), lambda: unknown(request, reference)
    )
    if isinstance(found, Response):
        return found
    # What it says never changes: the link, and that something to pay is behind it.
    link = settings().payer_link(reference)
    return _svg(request, drawn(link, code_title(request, reference)), site.FOR_EVER)


def _payment_code(request: Request, reference: str) -> Response:
    found = find_presented(request, reference)
    if isinstance(found, Response):
        return found
    if isinstance(found, BundlePresentment):
        return site.page(
            request, "problem.html", status=410, what="no_bundle_code", reference=reference
        )
    if found.standing not in PAYABLE:
        what = "old_code" if found.standing is Standing.EXPIRED else "no_code"
        return site.page(request, "problem.html", status=410, what=what, reference=reference)
    payload = emv.encode(
        institution().code.template(),
        reference=reference,
        amount_minor=found.due_minor,
        period_code=found.period,
    )
    # It holds the amount, which changes.
    return _svg(request, drawn(payload, code_title(request, reference)), site.NEVER_KEPT)


def _svg(request: Request, image: str, keep: str) -> Response:
    assert len(image) <= SYMBOL_BYTES_MAX
    made = site.answer(request, image.encode(), "image/svg+xml")
    made.headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
    made.headers["Cache-Control"] = keep
    made.headers["Vary"] = "Accept-Language, Accept-Encoding"  # its title is in a language
    return made


@router.api_route("/{reference}.pdf", methods=site.READ)
def notice(request: Request, reference: str) -> Response:
    """The notice to print, with initials only: anybody who has the reference may fetch it."""
    found = canonical_presented(request, reference, ".pdf")
    if isinstance(found, Response):
        return found
    if isinstance(found, BundlePresentment):
        return bundle_paper(request, found)
    try:
        with PAPERS.turn():
            paper = notice_pdf(
                [found], settings=settings(), institution=institution(), masked=True, now=now()
            )
    except Full:
        return site.wait_page(request, 10, "busy")
    return pdf(paper, f"amo-{found.reference}.pdf")


@router.api_route("/{reference}", methods=site.READ)
def due(request: Request, reference: str) -> Response:
    """What is due by a reference, or how it stands."""
    found = canonical_presented(request, reference, "")
    if isinstance(found, Response):
        return found
    if isinstance(found, BundlePresentment):
        return bundle_page(request, found)
    payable = found.standing in PAYABLE
    at = site.address_of(request)
    link = settings().payer_link(found.reference)
    by_card = card.card_of(request, found.reference) if payable else None
    pages = card.pages_by_channel() if by_card is not None else {}
    ways = ways_to_pay(institution().way, found.due_minor, pages=pages)
    page = site.page(
        request,
        "due.html" if payable else "closed.html",
        at=at,
        p=found,
        covered=is_covered(found, now()),
        ways=ways if payable else [],
        card=by_card,
        left=card.codes_left(found.reference, by_card),
        on_phones=card.on_phones(),
        code=drawn(link, code_title(request, found.reference)),
        link=link,
        shares=shares(found, speech(at.language)) if payable else {},
        today=now(),
        grows_on=grows_on(found.valid_until),
    )
    return card.lead_out(page, by_card)


@router.post("/{reference}")
def sent_back(request: Request, reference: str, posted: Posted) -> Response:  # noqa: ARG001
    """Lead a payer to the page to read whom a bank sends back by a form, as NestPay does.

    What the form says is not believed: the bank tells us by itself.
    """
    found = canonical(request, reference, "")
    if isinstance(found, Response):
        return found
    said = request.query_params.get("card", "")
    if said in _CAME:
        return site.redirect(request, f"/{found}", card=said)
    return site.redirect(request, f"/{found}")


@router.post("/{reference}/card")
def pay_by_provider(request: Request, reference: str, posted: Posted) -> Response:
    """Begin to pay what is due: by the way that was chosen."""
    found = canonical_presented(request, reference, "")
    return found if isinstance(found, Response) else paying.pay(request, found, posted)


@router.post("/{reference}/card/stop")
def give_card_up(request: Request, reference: str, posted: Posted) -> Response:
    """Have what was begun closed."""
    found = canonical_presented(request, reference, "")
    return found if isinstance(found, Response) else paying.stop(request, found.reference, posted)


@router.api_route("/{reference}/code", methods=site.READ)
def read_code(request: Request, reference: str) -> Response:
    """The code to pay by at an agency, and what to do there."""
    found = canonical_presented(request, reference, "/code")
    return found if isinstance(found, Response) else paying.code_page(request, found.reference)


@router.post("/{reference}/all")
def pay_all_due(request: Request, reference: str, posted: Posted) -> Response:
    """Go to the reference that pays all that the person owes."""
    found = canonical_presented(request, reference, "")
    if isinstance(found, BundlePresentment):
        return site.redirect(request, f"/{found.reference}")
    return found if isinstance(found, Response) else pay_all(request, found, posted)


@router.api_route("/{reference}/card", methods=site.READ)
def lead_on(request: Request, reference: str) -> Response:
    """The page between a reference's and what was chosen there."""
    found = canonical_presented(request, reference, "/card")
    return found if isinstance(found, Response) else paying.lead(request, found)


@router.api_route("/{reference}/card/stop", methods=site.READ)
@router.api_route("/{reference}/all", methods=site.READ)
def nothing_to_read(request: Request, reference: str) -> Response:
    """Who loads such an address again is led to the reference's page."""
    found = canonical(request, reference, "")
    return found if isinstance(found, Response) else site.redirect(request, f"/{found}")


# -- in common ------------------------------------------------------------------------------------


def canonical(request: Request, text: str, suffix: str) -> str | Response:
    """Return the reference in an address, or the answer if it holds none in its one form."""
    typed = read_typed(text)
    if typed.reference is None:
        if looks_like_a_reference(text) or typed.slip is Slip.OTHER_RF:
            return start_page(request, text, typed=typed)
        return site.missing(request)
    if typed.reference != text:
        query = {n: v for n, v in request.query_params.items() if n in {"code", "number"}}
        return site.redirect(request, f"/{typed.reference}{suffix}", status=301, **query)
    return typed.reference


def find_presented(request: Request, reference: str) -> Presentment | BundlePresentment | Response:
    """Return what the payer sees, or the answer to a miss."""
    return look_up(
        request,
        lambda session: presented(session, reference) or together(session, reference),
        lambda: unknown(request, reference),
    )


def canonical_presented(
    request: Request, text: str, suffix: str
) -> Presentment | BundlePresentment | Response:
    """Return what the payer of the reference in an address sees, or the answer if there is none."""
    reference = canonical(request, text, suffix)
    return reference if isinstance(reference, Response) else find_presented(request, reference)


def unknown(request: Request, reference: str) -> Response:
    """Return the answer for a reference that verifies and that no invoice bears."""
    return site.page(request, "unknown.html", status=404, reference=reference)
