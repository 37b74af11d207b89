"""`/verify`: is this receipt or attestation genuine, and does it still hold? Online, and without a
network.

By its number, or by its signed code. Shown is what can be compared with the paper, and nobody's
name: of an attestation the initials.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from sqlmodel import Session

from gateway import process
from gateway.codes import attestations as attestation_codes
from gateway.codes.receipts import PREFIX
from gateway.db import snapshot
from gateway.dues.tariff import tariff
from gateway.models import Channel
from gateway.pages import site, static
from gateway.pages.forms import Posted, Refusal
from gateway.pages.lookup import look_up, now
from gateway.pages.photos import read_sent, refused
from gateway.pages.typed import read_typed
from gateway.people import attestations
from gateway.receipts import Finding, Verdict, look_into, read_number, verdict_on
from gateway.words.speech import CURRENCY, Speech, speech

TEXT_CHARS_MAX: Final = 2_048
"""Eight times a receipt's code."""

KEYS_KEPT: Final = "public, max-age=300"
OFFLINE_KEPT: Final = "public, max-age=600, stale-while-revalidate=86400"
"""A new key is on it within minutes; and opened again within a day it still needs no network, as
browsers show what they have while they ask. It says by itself when it is too old."""

OLD_AFTER_DAYS: Final = 30

router = APIRouter()


@router.api_route("/verify", methods=site.READ)
def form(request: Request) -> Response:
    """The form; with `receipt`, the same answer as to posting it."""
    text = request.query_params.get("receipt")
    return form_page(request) if text is None else _go_or_say(request, text)


@router.post("/verify")
def check(request: Request, posted: Posted) -> Response:
    """Say what a code is worth, or go to the page of a number."""
    sent = read_sent(posted)
    if isinstance(sent, Refusal):
        return refused(request, sent, posted, lambda wrong: form_page(request, wrong=wrong))
    if sent.wrong:
        return form_page(request, wrong=sent.wrong)
    if not sent.codes:
        return _go_or_say(request, sent.fields.get("receipt", ""))
    # A receipt bears two codes: the signed one proves more than the link.
    return _go_or_say(request, min(sent.codes, key=lambda code: not code.startswith(PREFIX)))


@router.api_route("/verify/offline", methods=site.READ)
def offline(request: Request) -> Response:
    """A page that checks signed codes by itself: it holds the keys and needs no network."""
    return site.page(
        request,
        "offline.html",
        keep=OFFLINE_KEPT,
        script=True,
        keys=process.receipt_keys().as_json()["keys"],
        words=_words(speech(site.address_of(request).language)),
        made_at=now(),
        old_after_days=OLD_AFTER_DAYS,
        script_address=static.address("offline.js"),
    )


@router.api_route("/verify/{number}", methods=site.READ)
def numbered(request: Request, number: str) -> Response:
    """Whether the receipt or the attestation of a number is genuine and stands."""
    if (attested := attestations.read_number(number)) is not None:
        return _attested(request, number, attested)
    wanted = read_number(number)
    if wanted is None:
        return form_page(request, number, wrong="number")
    if wanted != number:
        return site.redirect(request, f"/verify/{wanted}", status=301)
    keys = process.receipt_keys().published()

    def read(session: Session) -> Verdict | None:
        verdict = look_into(session, wanted, keys)
        return None if verdict.finding is Finding.UNKNOWN_NUMBER else verdict

    found = look_up(request, read, lambda: _unknown(request, wanted))
    return found if isinstance(found, Response) else verdict_page(request, found)


def _attested(request: Request, number: str, wanted: str) -> Response:
    if wanted != number:
        return site.redirect(request, f"/verify/{wanted}", status=301)
    keys = process.receipt_keys().published()

    def read(session: Session) -> attestations.Verdict | None:
        verdict = attestations.look_into(session, wanted, keys, tariff(), now=now())
        unknown = verdict.finding is attestations.Finding.UNKNOWN_NUMBER
        return None if unknown else verdict

    found = look_up(request, read, lambda: _unknown(request, wanted, "unknown_attestation"))
    return found if isinstance(found, Response) else attested_page(request, found)


@router.api_route("/.well-known/wasl-keys.json", methods=site.READ)
def keys() -> Response:
    """Every public key that ever signed receipts and attestations, retired ones too."""
    made = JSONResponse(process.receipt_keys().as_json())
    made.headers["Cache-Control"] = KEYS_KEPT
    made.headers["X-Content-Type-Options"] = "nosniff"
    # Anybody may check receipts, from a page of his own too.
    made.headers["Access-Control-Allow-Origin"] = "*"
    return made


def form_page(request: Request, text: str = "", *, wrong: str = "", **values: Any) -> Response:
    """Return the page with the form: empty, or with what is wrong with what was typed or sent."""
    text = text[:TEXT_CHARS_MAX]
    return site.page(
        request,
        "verify.html",
        status=422 if wrong else 200,
        at=site.address_of(request, "/verify", [("receipt", text)] if text.strip() else []),
        keep=site.NEVER_KEPT if wrong else site.ASKED_AGAIN,
        text=text,
        wrong=wrong,
        reference=values.get("reference"),
    )


def verdict_page(request: Request, verdict: Verdict, text: str = "") -> Response:
    """Return what there is to say of a code or a number that was found."""
    return site.page(
        request,
        "verdict.html",
        at=site.address_of(request, "/verify", [("receipt", text)]) if text else None,
        v=verdict,
    )


def attested_page(request: Request, verdict: attestations.Verdict, text: str = "") -> Response:
    """Return what there is to say of an attestation."""
    return site.page(
        request,
        "attested.html",
        at=site.address_of(request, "/verify", [("receipt", text)]) if text else None,
        v=verdict,
    )


def _go_or_say(request: Request, text: str) -> Response:
    text = text[:TEXT_CHARS_MAX]
    number = _number_in(text)
    if number is not None:
        return site.redirect(request, f"/verify/{number}")
    if not text.strip():
        return form_page(request, wrong="empty")
    keys = process.receipt_keys().published()
    if attestation_codes.is_one(text):
        with snapshot() as session:
            attested = attestations.verdict_on(session, text, keys, tariff(), now=now())
        if attested.finding is attestations.Finding.CUT:
            return form_page(request, text, wrong="cut")
        return attested_page(request, attested, text)
    with snapshot() as session:
        verdict = verdict_on(session, text, keys)
    if verdict.finding is Finding.CUT:
        return form_page(request, text, wrong="cut")
    if verdict.finding is Finding.NOT_A_RECEIPT:
        reference = read_typed(text).reference
        wrong = "other" if reference is None else "reference"
        return form_page(request, text, wrong=wrong, reference=reference)
    return verdict_page(request, verdict, text)


def _words(speaking: Speech) -> dict[str, Any]:
    """Return what the script of the offline page needs to write a receipt's claims."""
    codes = [f"{month:02d}" for month in range(1, 13)] + [f"Q{quarter}" for quarter in range(1, 5)]
    return {
        "currency": CURRENCY[speaking.language],
        "channels": {channel.value: speaking.channel(channel) for channel in Channel},
        "periods": {code: speaking.period(f"2000-{code}") for code in codes},
    }


def _number_in(text: str) -> str | None:
    """Return the number of a paper that was typed, or that the link on it ends with."""
    if text.lstrip().upper().startswith(PREFIX):
        return None
    last = text.strip().rstrip("/").rpartition("/")[2]
    return attestations.read_number(last) or read_number(last)


def _unknown(request: Request, number: str, what: str = "unknown_receipt") -> Response:
    return site.page(request, "problem.html", status=404, what=what, number=number)
