"""A notice: what is owed, why, until when, and every way to pay it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final

from gateway.billing.owing import PresentedLine
from gateway.billing.presentment import PresentedPayment, Presentment, Standing
from gateway.codes import emv, qr
from gateway.institution import Institution, Way
from gateway.models import Channel
from gateway.papers.compile import pdf
from gateway.papers.fitting import scale_of
from gateway.papers.writing import (
    NOTHING,
    UNCONFIRMED,
    Occasion,
    Pair,
    as_of,
    band,
    both,
    card,
    entry,
    figures,
    glanced,
    joined,
    questions,
    row,
    say,
    shared,
    total,
    who,
)
from gateway.references import format_reference
from gateway.settings import Settings
from gateway.words.catalogs import mark
from gateway.words.speech import Speech, speech

PAGES_MAX: Final = 200
"""To a file: memory grows with every page, and a jam at the print shop costs one file."""

LINES_MAX: Final = 6
PAYMENTS_MAX: Final = 2
"""The rest is summed up in one line, so that a notice never goes beyond its page."""

PAYABLE: Final = frozenset({Standing.OPEN, Standing.LATE, Standing.PART_PAID})

_HOW: Final = {
    Channel.CASH_AGENT: mark("Show this notice, or say its reference, at the counter."),
    Channel.KIOSK: mark("Scan the code for kiosks, or type the reference."),
    Channel.WALLET: mark("In its application, scan the code for wallets or type the reference."),
    Channel.CARD: mark("On the page that the code for your phone opens."),
    Channel.TRANSFER: mark("Give {reference} as the reason for the transfer."),
}


def notice_pdf(
    presentments: Sequence[Presentment],
    *,
    settings: Settings,
    institution: Institution,
    masked: bool,
    now: datetime,
) -> bytes:
    """Return a file of notices, a page each, in this order.

    Args:
        presentments: 1 to PAGES_MAX of them.
        settings: For the addresses in the codes, and whether this is a trial.
        institution: Who collects, and how people may pay.
        masked: Initials and no CNSS number: for whoever has the reference.
        now: When the presentments were read; its day is printed.
    """
    assert 1 <= len(presentments) <= PAGES_MAX
    return pdf("notice", notice_data(presentments, Occasion(settings, institution, masked, now)))


def notice_data(presentments: Sequence[Presentment], occasion: Occasion) -> dict[str, Any]:
    """Return all that the template shows."""
    title = speech("fr").say("Payment notice")
    if len(presentments) == 1:
        title = f"{title} {format_reference(presentments[0].reference)}"
    return {**shared(title, occasion), "pages": [_page(each, occasion) for each in presentments]}


def _page(presented: Presentment, occasion: Occasion) -> dict[str, Any]:
    payable = presented.standing in PAYABLE
    lines = _lines(presented)
    ways = []
    if payable:
        ways = rows_of_ways(occasion.institution, presented.reference, presented.due_minor)
    closing = [questions(occasion.institution)]
    if payable:
        closing.insert(0, say("Keep the receipt that you are given: it is your proof of payment."))
    if payable and presented.valid_until and presented.standing is not Standing.LATE:
        closing.insert(0, _after(presented.valid_until))
    if payable and not any(way.fee is not None for way in occasion.institution.way):
        closing.insert(0, say("Fees, if there are any: ask before you pay."))
    doubtful = any(line["mark"] for line in lines) or any(way["doubtful"] for way in ways)
    page = {
        "title": say("Payment notice"),
        "subtitle": as_of(occasion),
        "glance": _glance(presented),
        "bands": _bands(presented),
        "who": {
            "head": say("Insured person and period"),
            "rows": [*who(presented.person, occasion), *_period(presented)],
        },
        "due": {
            "head": say("What is owed"),
            "unit": say("Amount in dirhams"),
            "lines": lines,
            "total": total(_total_label(presented), _total_minor(presented)),
        },
        "codes": _codes(presented, occasion) if payable else [],
        "ways": {"head": say("How to pay"), "rows": ways},
        "closing": closing,
        "notes": [footnote()] if doubtful else [],
    }
    return {"scale": scale_of(page), **page}


def _after(day: date) -> Pair:
    return both(
        lambda s: s.say(
            "After {day} a penalty is added for each month that begins.", day=s.day(day)
        )
    )


def footnote() -> Pair:
    """Return what the mark of an unconfirmed figure means."""
    fr, ar = say("Figure not confirmed by an official text.")
    return f"{UNCONFIRMED} {fr}", f"{UNCONFIRMED} {ar}"


# -- at a glance ----------------------------------------------------------------------------------


def _glance(presented: Presentment) -> list[dict[str, Any]]:
    reference = figures(format_reference(presented.reference))
    label, minor = _total_label(presented), _total_minor(presented)
    if presented.standing is Standing.PAID:
        label, minor = say("Amount paid"), presented.paid_minor
    day_label, day = _day_of_interest(presented)
    return [
        glanced(say("Payment reference"), (reference,)),
        glanced(label, (figures(speech("fr").money(minor)),)),
        glanced(day_label, day, warns=presented.standing is Standing.LATE),
    ]


def _day_of_interest(presented: Presentment) -> tuple[Pair, Pair]:
    match presented.standing:
        case Standing.PAID if settling := [p for p in presented.booked if p.allocated_minor > 0]:
            paid_at = settling[-1].paid_at
            return say("Paid on"), both(lambda s: s.day_of(paid_at))
        case Standing.CANCELLED if presented.cancelled_at is not None:
            cancelled_at = presented.cancelled_at
            return say("Cancelled on"), both(lambda s: s.day_of(cancelled_at))
        case Standing.EXPIRED:
            return say("Could be paid until"), both(lambda s: s.day(presented.expires_on))
        case Standing.LATE:
            return say("Was to be paid by"), both(lambda s: s.day(presented.due_on))
    return say("To be paid by"), both(lambda s: s.day(presented.due_on))


def _bands(presented: Presentment) -> list[dict[str, Any]]:
    """Return what decides what the holder does, in a sentence each."""
    bands = []
    match presented.standing:
        case Standing.PAID:
            return [band(_paid(presented))]
        case Standing.CLEARED:
            text = say("NOTHING IS OWED: all of it was credited or remitted.")
            return [band(text)]
        case Standing.CANCELLED:
            text = say("CANCELLED: nothing is to be paid with this reference.")
            bands.append(band(text, warns=True))
        case Standing.EXPIRED:
            text = say(
                "EXPIRED: do not pay with this reference any more. Ask for a new notice, which says"
                " what is owed now."
            )
            bands.append(band(text, warns=True))
        case Standing.LATE:
            bands.append(band(_late(presented), warns=True))
    if presented.announced:
        bands.append(band(_announced(presented.announced[-1]), warns=True))
    return bands


def _late(presented: Presentment) -> Pair:
    if presented.in_plan:
        return say("IN AN INSTALMENT PLAN: pay with the reference of the plan.")
    until = presented.valid_until
    if until is None:
        return say("LATE: please pay without delay.")
    return both(
        lambda s: s.say(
            "LATE: this amount is valid until {day}. A penalty is added for each month that"
            " begins.",
            day=s.day(until),
        )
    )


def _paid(presented: Presentment) -> Pair:
    numbers = [figures(p.receipt_number) for p in presented.booked if p.receipt_number]
    if not numbers:
        return say("PAID: nothing is left to pay.")
    fr, ar = (comma.join(numbers[-PAYMENTS_MAX:]) for comma in (", ", "، "))
    return both(
        lambda s: s.say(
            "PAID: nothing is left to pay. Receipt: {numbers}.",
            numbers=ar if s.direction == "rtl" else fr,
        )
    )


def _announced(payment: PresentedPayment) -> Pair:
    return both(
        lambda s: s.say(
            "A payment of {amount} was announced on {day} and is not confirmed yet. Before you pay"
            " again, look at the page of this notice.",
            amount=s.money(payment.amount_minor),
            day=s.day_of(payment.paid_at),
        )
    )


# -- what is owed ---------------------------------------------------------------------------------


def _period(presented: Presentment) -> list[dict[str, Any]]:
    rows = [
        row(say("Category"), both(lambda s: s.category(presented.category))),
        row(say("Period"), both(lambda s: s.period(presented.period))),
    ]
    if presented.standing in PAYABLE:  # else the due day is not among what stands out above
        until = both(lambda s: s.day(presented.expires_on))
        return [*rows, row(say("Reference can be paid until"), until)]
    return [*rows, row(say("Due day"), both(lambda s: s.day(presented.due_on)))]


def _lines(presented: Presentment) -> list[dict[str, Any]]:
    """Return what adds up to the total: what was asked for, less what was paid."""
    few = presented.lines
    if len(few) > LINES_MAX:
        few = few[: LINES_MAX - 1]
    lines = [_owed(line, presented.period) for line in few]
    if rest := presented.lines[len(few) :]:
        doubtful = not all(line.verified for line in rest)
        minor = sum(line.amount_minor for line in rest)
        lines.append(entry(say("Other items"), minor, doubtful=doubtful))
    counted = [payment for payment in presented.payments if payment.allocated_minor > 0]
    shown = counted[-PAYMENTS_MAX:]
    # What came another way than by a payment for this reference is in no payment's part.
    other = presented.paid_minor - sum(payment.allocated_minor for payment in shown)
    if other:
        lines.append(entry(say("Other payments"), -other))
    lines += [_payment(payment) for payment in shown]
    if presented.standing is Standing.CANCELLED:
        issued = sum(line.amount_minor for line in presented.lines)
        lines.append(entry(say("Cancellation"), -issued))
    return lines


def _owed(line: PresentedLine, period: str) -> dict[str, Any]:
    return entry(
        both(lambda s: s.line(line.kind, period)),
        line.amount_minor,
        rule=both(lambda s: _why(s, line)),
        doubtful=not line.verified,
    )


def _why(speaking: Speech, line: PresentedLine) -> str:
    """Return the rule of a line; of a charge that was added later, by when it is to be paid too."""
    said = speaking.rule(line.facts, line.rule)
    if line.due_on is None:
        return said
    return joined(said, speaking.say("To be paid by {day}", day=speaking.day(line.due_on)))


def _payment(payment: PresentedPayment) -> dict[str, Any]:
    number = figures(payment.receipt_number) if payment.receipt_number else ""
    return entry(
        both(lambda s: s.say("Paid on {day}", day=s.day_of(payment.paid_at))),
        -payment.allocated_minor,
        rule=both(lambda s: joined(s.channel(payment.channel), number)),
    )


def _total_minor(presented: Presentment) -> int:
    return presented.due_minor


def _total_label(presented: Presentment) -> Pair:
    if presented.standing is Standing.EXPIRED:
        return say("Not paid")
    return say("Remaining to pay") if presented.paid_minor else say("Total to pay")


# -- how to pay it --------------------------------------------------------------------------------


def _codes(presented: Presentment, occasion: Occasion) -> list[dict[str, Any]]:
    link = occasion.settings.payer_link(presented.reference)
    for_phones = qr.symbol(link)
    for_agencies = qr.symbol(
        emv.encode(
            occasion.institution.code.template(),
            reference=presented.reference,
            amount_minor=presented.due_minor,
            period_code=presented.period,
        )
    )
    reference = format_reference(presented.reference)
    return [
        card(
            for_phones,
            say("For your phone’s camera"),
            say("Opens the page of this notice: what is owed today, and payment."),
            alt=say("Code for phones: the page of notice {reference}", reference=reference),
            link=link,
        ),
        card(
            for_agencies,
            say("For agencies, kiosks and wallets"),
            _what_the_code_holds(presented),
            alt=say("Code for agencies, kiosks and wallets: {reference}", reference=reference),
        ),
    ]


def _what_the_code_holds(presented: Presentment) -> Pair:
    until = presented.valid_until
    if until is None:
        return say("Holds the reference and the amount to pay.")
    return both(
        lambda s: s.say("Holds the reference and the amount to pay until {day}.", day=s.day(until))
    )


_HOW_WITHOUT_CODE: Final = _HOW | {
    Channel.KIOSK: mark("Type the reference."),
    Channel.WALLET: mark("In its application, type the reference."),
}
"""On papers that bear no code for wallets and kiosks."""


def rows_of_ways(
    institution: Institution, reference: str, due_minor: int, *, code: bool = True
) -> list[dict[str, Any]]:
    """Return each way to pay an amount by a reference, as the template shows it.

    `code` says whether the paper bears the code for wallets and kiosks.
    """
    # Where no fee is known, one sentence says so for all.
    fees = any(way.fee is not None for way in institution.way)
    return [
        _way(
            way,
            (_HOW if code else _HOW_WITHOUT_CODE)[way.channel],
            reference,
            due_minor,
            fee=_fee(way) if fees else NOTHING,
        )
        for way in institution.way
    ]


def _way(way: Way, text: str, reference: str, due_minor: int, *, fee: Pair) -> dict[str, Any]:
    how = say(text, reference=figures(f"RF74 {format_reference(reference)}"))
    limit = _ceiling(way, due_minor)
    doubtful_limit = limit != NOTHING and not way.ceilings_verified
    doubtful_fee = way.fee is not None and not way.verified
    return {
        "name": both(lambda s: s.channel(way.channel)),
        "how": how,
        "limit": limit,
        "limit_mark": UNCONFIRMED if doubtful_limit else "",
        "fee": fee,
        "fee_mark": UNCONFIRMED if doubtful_fee else "",
        "doubtful": doubtful_limit or doubtful_fee,
    }


def _fee(way: Way) -> Pair:
    fee = way.fee
    if fee is None:
        return say("Fee: ask before you pay.")
    if fee == 0:
        return say("Free of charge.")
    return both(lambda s: s.say("Fee: {amount}.", amount=s.money(fee)))


def _ceiling(way: Way, due_minor: int) -> Pair:
    """Return which accounts are too small for the amount; nothing if none is."""
    too_small = [ceiling for ceiling in way.ceilings if ceiling < due_minor + (way.fee or 0)]
    if not too_small:
        return NOTHING
    if len(too_small) == len(way.ceilings):
        text = mark("The amount is above every wallet’s ceiling ({ceiling}): pay another way.")
    else:
        text = mark("A wallet whose ceiling is {ceiling} or less does not suffice.")
    return both(lambda s: s.say(text, ceiling=s.money(max(too_small))))
