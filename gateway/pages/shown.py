"""Pieces of several pages that are not text: codes, papers to fetch, messages to send on."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final
from urllib.parse import quote, urlencode

from fastapi import Request, Response

from gateway.billing.bundle_presentment import BundlePresentment
from gateway.billing.presentment import Presentment
from gateway.codes import qr
from gateway.pages import site
from gateway.pages.turnstile import Turnstile
from gateway.references import format_reference
from gateway.settings import settings
from gateway.words.speech import Speech, speech

ANNOUNCEMENT_FRESH: Final = timedelta(days=3)
"""How long an announced payment may keep people from paying: a transfer over a week-end takes as
long. Later it has most likely been given up, and waiting for it makes the contribution late."""

PAPERS: Final = Turnstile(at_once=2, in_line=6)


def pdf(paper: bytes, name: str) -> Response:
    """Return a paper to look at or to keep."""
    headers = {
        "Content-Disposition": f'inline; filename="{name}"',
        "Cache-Control": site.NEVER_KEPT,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "X-Robots-Tag": "noindex, nofollow, noarchive",
    }
    return Response(paper, 200, headers, "application/pdf")


@lru_cache(maxsize=2_048)
def drawn(payload: str, title: str) -> str:
    """Return a text as a QR code in SVG."""
    return qr.symbol(payload).svg(title)


def code_title(request: Request, reference: str) -> str:
    """Return what the code of a reference is called, in the language of the page."""
    speaking = speech(site.address_of(request).language)
    return speaking.say("QR code of reference {reference}", reference=format_reference(reference))


def is_covered(found: Presentment | BundlePresentment, at: datetime) -> bool:
    """Say whether payments that were announced of late suffice, so that nobody should pay again."""
    fresh = [p for p in found.announced if at - p.paid_at <= ANNOUNCEMENT_FRESH]
    return bool(fresh) and sum(p.amount_minor for p in fresh) >= found.due_minor


def grows_on(valid_until: date | None) -> date | None:
    """Return the day on which what is due grows, from the last one on which it does not."""
    return valid_until and valid_until + timedelta(days=1)


def shares(found: Presentment | BundlePresentment, speaking: Speech) -> dict[str, str]:
    """Return links that send the reference on: no name, and no amount, which may change."""
    text = speaking.say(
        "AMO contribution to pay by {day}. Reference: {reference}. See the amount and how to pay:"
        " {link}",
        day=speaking.day(found.due_on),
        reference=format_reference(found.reference),
        link=settings().payer_link(found.reference),
    ).replace("\u00a0", " ")
    return {
        "sms": f"sms:?&body={quote(text)}",
        "whatsapp": f"https://wa.me/?{urlencode({'text': text}, quote_via=quote)}",
    }
