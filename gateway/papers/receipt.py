"""A receipt on paper: what was received, when, and how to see that it is genuine. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from gateway.billing.bundle_presentment import BundlePresentment
from gateway.billing.presentment import Presentment, Standing
from gateway.codes import qr
from gateway.codes import receipts as signed_codes
from gateway.institution import Institution
from gateway.papers.compile import pdf
from gateway.papers.writing import (
    Occasion,
    Pair,
    as_of,
    band,
    both,
    card,
    entry,
    figures,
    glanced,
    name_of,
    questions,
    row,
    say,
    shared,
    total,
    who,
)
from gateway.receipts import PaidShare, ReceiptRecord, ReceiptStanding
from gateway.references import format_reference
from gateway.settings import Settings
from gateway.words.speech import speech

LINES_MAX: Final = 8
"""Invoices with a line of their own; the page of the receipt has more."""


def receipt_pdf(
    record: ReceiptRecord,
    presentment: Presentment | BundlePresentment,
    *,
    settings: Settings,
    institution: Institution,
    masked: bool,
    now: datetime,
) -> bytes:
    """Return a receipt on one page.

    Args:
        record: The receipt, and whether its payment still stands.
        presentment: The invoice it paid, or the several.
        settings: For the addresses in the codes, and whether this is a trial.
        institution: Who collects.
        masked: Initials and no CNSS number: for whoever has the reference or the number.
        now: When record and presentment were read; its day is printed.
    """
    assert record.reference == presentment.reference
    occasion = Occasion(settings, institution, masked, now)
    return pdf("receipt", receipt_data(record, presentment, occasion))


def receipt_data(
    record: ReceiptRecord, presentment: Presentment | BundlePresentment, occasion: Occasion
) -> dict[str, Any]:
    """Return all that the template shows."""
    page = {
        "scale": 1.0,
        "title": say("Payment receipt"),
        "subtitle": as_of(occasion),
        "glance": _glance(record),
        "bands": [_band(record, presentment)],
        "who": {
            "head": say("Insured person and payment"),
            "rows": [*_whose(presentment, occasion), *_payment(record, presentment)],
        },
        "due": {
            "head": say("What the payment went to"),
            "unit": say("Amount in dirhams"),
            **(_shares(record) if _stands(record) else _reversal(record)),
        },
        "codes": _codes(record, occasion),
        "closing": [*(_proof() if _stands(record) else ()), questions(occasion.institution)],
        "notes": [],
    }
    title = f"{speech('fr').say('Payment receipt')} {record.number}"
    return {**shared(title, occasion), "pages": [page]}


def _whose(
    presentment: Presentment | BundlePresentment, occasion: Occasion
) -> list[dict[str, Any]]:
    if isinstance(presentment, Presentment):
        return who(presentment.person, occasion)
    count = str(len(presentment.items))
    return [row(say("Contributions"), (count, count))]


def _stands(record: ReceiptRecord) -> bool:
    return record.standing is ReceiptStanding.STANDS


def _glance(record: ReceiptRecord) -> list[dict[str, Any]]:
    amount = figures(speech("fr").money(record.amount_minor))
    return [
        glanced(say("Number of the receipt"), (figures(record.number),)),
        glanced(say("Amount received"), (amount,), warns=not _stands(record)),
        glanced(say("Received on"), both(lambda s: s.instant(record.paid_at))),
    ]


def _band(record: ReceiptRecord, presentment: Presentment | BundlePresentment) -> dict[str, Any]:
    """Return how the payment stands, or else how its invoice does."""
    if not _stands(record):
        return band(_what_is_left(record), warns=True, large=True)
    if presentment.standing is Standing.CANCELLED and isinstance(presentment, Presentment):
        return band(say("The notice was cancelled: ask for your money back."), warns=True)
    if isinstance(presentment, BundlePresentment):
        return band(_left_of_several(presentment))
    if presentment.standing is Standing.PAID:
        return band(say("PAID: nothing is left to pay for this period."))
    if presentment.standing is Standing.CLEARED:
        return band(say("NOTHING IS OWED for this period any more: your money is kept for you."))
    return band(
        both(
            lambda s: s.say(
                "Remaining to pay for this period: {amount}.",
                amount=s.money(presentment.due_minor),
            )
        )
    )


def _left_of_several(presented: BundlePresentment) -> Pair:
    if not presented.due_minor:
        return say("PAID: nothing is left to pay with this reference.")
    return both(
        lambda s: s.say(
            "Remaining to pay with this reference: {amount}.", amount=s.money(presented.due_minor)
        )
    )


def _what_is_left(record: ReceiptRecord) -> Pair:
    if record.standing is ReceiptStanding.REVERSED and record.refunded:
        return say("REFUNDED: the money was given back to you. It proves no payment any more.")
    if record.standing is ReceiptStanding.REVERSED:
        return say("PAYMENT TAKEN BACK: it was reversed, and this receipt proves it no more.")
    return both(
        lambda s: s.say(
            "PART GIVEN BACK: of this payment {amount} counts.",
            amount=s.money(record.counted_minor),
        )
    )


def _payment(
    record: ReceiptRecord, presentment: Presentment | BundlePresentment
) -> list[dict[str, Any]]:
    reference = figures(format_reference(record.reference))
    category = []
    if isinstance(presentment, Presentment):
        code = presentment.category
        category = [row(say("Category"), both(lambda s: s.category(code)))]
    return [
        row(say("Payment reference"), (reference, reference)),
        *category,
        row(say("Period"), both(lambda s: s.period(record.period))),
        row(say("Means of payment"), both(lambda s: s.channel(record.channel))),
    ]


def _shares(record: ReceiptRecord) -> dict[str, Any]:
    """Return what the money went to; what was not needed is the payer's own."""
    credit_minor = record.credit_minor
    label = both(lambda s: s.say("Payment notice, {period}", period=s.period(record.period)))
    paid = entry(label, record.allocated_minor) if record.allocated_minor else None
    lines = [
        *(_of_several(record.shares) if record.shares else [paid]),
        entry(say("Other contributions of yours"), record.elsewhere_minor)
        if record.elsewhere_minor
        else None,
        entry(say("The rest, kept as your credit"), credit_minor) if credit_minor else None,
    ]
    return {
        "lines": [line for line in lines if line is not None],
        "total": total(say("Amount received"), record.amount_minor),
    }


def _of_several(shares: Sequence[PaidShare]) -> list[dict[str, Any] | None]:
    """Return what a payment for several pays of each, with initials: others may read it too."""
    lines: list[dict[str, Any] | None] = [
        entry(
            both(lambda s, at=each.period: s.say("Contribution, {period}", period=s.period(at))),  # type: ignore[misc]
            each.amount_minor,
            rule=name_of(each.person, masked=True),
        )
        for each in shares[:LINES_MAX]
    ]
    if rest := shares[LINES_MAX:]:
        minor = sum(each.amount_minor for each in rest)
        lines.append(entry(say("And others: {count}", count=str(len(rest))), minor))
    return lines


def _reversal(record: ReceiptRecord) -> dict[str, Any]:
    return {
        "lines": [
            entry(say("Amount received"), record.amount_minor),
            entry(
                say("Refunded to you since") if record.refunded else say("Taken back since"),
                record.counted_minor - record.amount_minor,
            ),
        ],
        "total": total(say("Amount that counts"), record.counted_minor),
    }


def _codes(record: ReceiptRecord, occasion: Occasion) -> list[dict[str, Any]]:
    link = occasion.settings.receipt_link(record.number)
    online = qr.symbol(link)
    label = say("Check online")
    says = say("Opens the page that says whether this payment still stands.")
    alt = say("Code to check receipt {number} online", number=record.number)
    if not _stands(record):
        # Without a network the signature would be found good: no fresh copy of it is handed out.
        return [card(online, label, says, alt=alt, link=link)]
    proof = qr.symbol(signed_codes.as_text(record.signed))
    return [
        card(
            proof,
            say("Signed proof"),
            say("Can be checked without a network: number, amount, day and reference, no name."),
            alt=say("Signed code of receipt {number}", number=record.number),
        ),
        card(online, label, says, alt=alt, link=link),
    ]


def _proof() -> list[Pair]:
    return [
        say("The signature proves that this amount was received at that time."),
        say("Whether the payment still stands is said at the address beside the second code."),
        say("Keep this receipt: it is your proof of payment."),
    ]
