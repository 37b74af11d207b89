"""The page and the notice of a reference that pays several invoices, a plan's among them.

Whoever has the reference sees each of them: its period, initials and what is due. It is paid in the
same ways as an invoice.
"""

from __future__ import annotations

from typing import Final

from fastapi import Request, Response

from gateway.billing.bundle_presentment import BundlePresentment
from gateway.institution import institution
from gateway.pages import card, site
from gateway.pages.lookup import now
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
from gateway.pages.ways import ways_to_pay
from gateway.papers.bundle_notice import bundle_pdf
from gateway.papers.notice import PAYABLE
from gateway.settings import settings
from gateway.words.speech import speech

ROWS_MAX: Final = 60
"""Invoices that the page lists; a reference may be for thousands, and a phone has to load it."""


def bundle_page(request: Request, found: BundlePresentment) -> Response:
    """Return what is due by a reference for several invoices, or how it stands."""
    payable = found.standing in PAYABLE
    at = site.address_of(request)
    link = settings().payer_link(found.reference)
    by_card = card.card_of(request, found.reference) if payable else None
    pages = card.pages_by_channel() if by_card is not None else {}
    ways = ways_to_pay(institution().way, found.due_minor, pages=pages)
    page = site.page(
        request,
        "bundle.html",
        at=at,
        p=found,
        payable=payable,
        covered=payable and is_covered(found, now()),
        listed=(found.shown if payable else found.items)[:ROWS_MAX],
        more=max(0, len(found.shown if payable else found.items) - ROWS_MAX),
        ways=ways if payable else [],
        card=by_card,
        left=card.codes_left(found.reference, by_card),
        on_phones=card.on_phones(),
        code=drawn(link, code_title(request, found.reference)),
        link=link,
        shares=shares(found, speech(at.language)) if payable else {},
        today=now(),
        doubtful=not all(line.verified for each in found.shown for line in each.lines),
        grows_on=grows_on(found.valid_until),
    )
    return card.lead_out(page, by_card)


def bundle_paper(request: Request, found: BundlePresentment) -> Response:
    """Return its notice to print, with initials only."""
    try:
        with PAPERS.turn():
            paper = bundle_pdf(
                found, settings=settings(), institution=institution(), masked=True, now=now()
            )
    except Full:
        return site.wait_page(request, 10, "busy")
    return pdf(paper, f"amo-{found.reference}.pdf")
