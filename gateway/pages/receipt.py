"""`/{reference}/receipt`: the proof of payment, for ever; on paper too.

Anybody who has the reference may see it, so it names nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request, Response
from sqlmodel import Session

from gateway.billing.bundle_presentment import BundlePresentment
from gateway.billing.presentment import Presentment
from gateway.codes.receipts import as_text
from gateway.institution import institution
from gateway.pages import site
from gateway.pages.bundle import ROWS_MAX
from gateway.pages.lookup import look_up, now, presented, together
from gateway.pages.payer import canonical, unknown
from gateway.pages.shown import PAPERS, drawn, pdf
from gateway.pages.turnstile import Full
from gateway.papers.receipt import receipt_pdf
from gateway.receipts import ReceiptRecord, ReceiptStanding, of_invoice, read_number
from gateway.settings import settings
from gateway.words.speech import speech

TRIES_MAX: Final = 6
"""How often a page that waits for a receipt loads itself again, ever more slowly; then by hand."""

router = APIRouter()


@dataclass(frozen=True, slots=True)
class Proofs:
    """An invoice, or several that are paid together, with all receipts, oldest payment first."""

    invoice: Presentment | BundlePresentment
    receipts: list[ReceiptRecord]

    @property
    def awaited(self) -> bool:
        """Whether a booked payment has no receipt yet: it is signed within seconds."""
        return any(payment.receipt_number is None for payment in self.invoice.booked)

    def chosen(self, number: str | None) -> ReceiptRecord | None:
        """Return the receipt with a number, however typed; without one the latest that stands.

        Where none stands it is the latest, unless one that will is being made.
        """
        if number is None:
            gone = ReceiptStanding.REVERSED
            standing = [each for each in self.receipts if each.standing is not gone]
            latest = standing or ([] if self.awaited else self.receipts)
            return latest[-1] if latest else None
        wanted = read_number(number)
        return next((each for each in self.receipts if each.number == wanted), None)


@router.api_route("/{reference}/receipt", methods=site.READ)
def receipt(request: Request, reference: str) -> Response:
    """The receipts of an invoice: one in full, the others to choose from."""
    found = _proofs(request, reference, "/receipt")
    if isinstance(found, Response):
        return found
    number = request.query_params.get("number")
    chosen = found.chosen(number)
    if chosen is None:
        return _none(request, found, number) or _being_made(request, found)
    code = as_text(chosen.signed)
    link = settings().receipt_link(chosen.number)
    say = speech(site.address_of(request).language).say
    return site.page(
        request,
        "receipt.html",
        p=found.invoice,
        receipts=found.receipts,
        awaited=found.awaited,
        r=chosen,
        several=isinstance(found.invoice, BundlePresentment),
        listed=chosen.shares[:ROWS_MAX],
        more=max(0, len(chosen.shares) - ROWS_MAX),
        link=link,
        link_code=drawn(link, say("QR code: check receipt {number}", number=chosen.number)),
        code=code,
        signed_code=drawn(code, say("QR code: signed receipt {number}", number=chosen.number)),
    )


@router.api_route("/{reference}/receipt.pdf", methods=site.READ)
def receipt_paper(request: Request, reference: str) -> Response:
    """A receipt to print, with initials only."""
    found = _proofs(request, reference, "/receipt.pdf")
    if isinstance(found, Response):
        return found
    number = request.query_params.get("number")
    chosen = found.chosen(number)
    if chosen is None:
        being_made = site.redirect(request, f"/{found.invoice.reference}/receipt")
        return _none(request, found, number) or being_made
    try:
        with PAPERS.turn():
            paper = receipt_pdf(
                chosen,
                found.invoice,
                settings=settings(),
                institution=institution(),
                masked=True,
                now=now(),
            )
    except Full:
        return site.wait_page(request, 10, "busy")
    return pdf(paper, f"amo-{chosen.number}.pdf")


def _proofs(request: Request, text: str, suffix: str) -> Proofs | Response:
    reference = canonical(request, text, suffix)
    if isinstance(reference, Response):
        return reference

    def read(session: Session) -> Proofs | None:
        invoice = presented(session, reference) or together(session, reference)
        return None if invoice is None else Proofs(invoice, of_invoice(session, reference))

    return look_up(request, read, lambda: unknown(request, reference))


def _being_made(request: Request, found: Proofs) -> Response:
    """Return the page that loads itself again until the receipt is there.

    By a header: the same as the element in the page, for every browser, and no trap for those who
    read slowly with the help of a machine, as the page stays what it is.
    """
    tried = request.query_params.get("try", "0")
    tries = int(tried) if tried.isascii() and tried.isdecimal() and len(tried) == 1 else 0
    path = f"/{found.invoice.reference}/receipt"
    headers = {}
    if tries < TRIES_MAX:
        again = site.address_of(request).link(path, **{"try": str(tries + 1)})
        headers["Refresh"] = f"{2 + 2 * tries}; url={again}"
    return site.page(
        request,
        "receipt_awaited.html",
        at=site.address_of(request, path, ()),
        headers=headers,
        p=found.invoice,
        several=isinstance(found.invoice, BundlePresentment),
        by_itself=bool(headers),
    )


def _none(request: Request, found: Proofs, number: str | None) -> Response | None:
    """Return the answer where there is no such receipt; None where one is being made."""
    if number is None and found.awaited:
        return None
    return site.page(
        request,
        "problem.html",
        status=404,
        # Somebody holds a number: that it is not of this reference says nothing about payments.
        what="no_receipt" if number is None else "other_receipt",
        reference=found.invoice.reference,
        number=read_number(number or ""),
        has_receipts=bool(found.receipts) or found.awaited,
    )
