"""The notice of a reference that pays several invoices, an instalment plan's among them. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from gateway.billing.bundle_presentment import BundlePresentment, PresentedInstalment, PresentedPlan
from gateway.billing.presentment import Presentment, Standing
from gateway.codes import qr
from gateway.dues.instalments import InstalmentState
from gateway.institution import Institution
from gateway.papers.compile import pdf
from gateway.papers.fitting import scale_of
from gateway.papers.notice import PAYABLE, footnote, rows_of_ways
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
    joined,
    name_of,
    questions,
    row,
    say,
    shared,
    total,
)
from gateway.references import format_reference
from gateway.settings import Settings
from gateway.words.speech import speech

LINES_MAX: Final = 20
"""Invoices with a line of their own; the rest is summed up in one, so that it stays one page."""

INSTALMENTS_MAX: Final = 24
"""The longest plan of a person; of longer ones those that are unpaid, the next ones first."""


def bundle_pdf(
    presented: BundlePresentment,
    *,
    settings: Settings,
    institution: Institution,
    masked: bool,
    now: datetime,
) -> bytes:
    """Return the notice of several invoices, on one page.

    Args:
        presented: What is due, and by when.
        settings: For the address in the code, and whether this is a trial.
        institution: Who collects, and how people may pay.
        masked: Initials only: for whoever has the reference.
        now: When it was read; its day is printed.
    """
    return pdf("notice", bundle_data(presented, Occasion(settings, institution, masked, now)))


def bundle_data(presented: BundlePresentment, occasion: Occasion) -> dict[str, Any]:
    """Return all that the template shows."""
    payable = presented.standing in PAYABLE
    ways = rows_of_ways(occasion.institution, presented.reference, presented.due_minor, code=False)
    lines = _lines(presented, occasion)
    doubtful = any(each["mark"] for each in lines) or any(way["doubtful"] for way in ways)
    closing = [questions(occasion.institution)]
    if payable:
        closing.insert(0, say("Keep the receipt that you are given: it is your proof of payment."))
    page = {
        "title": _title(presented),
        "subtitle": as_of(occasion),
        "glance": _glance(presented),
        "bands": _bands(presented),
        "who": {"head": say("What this reference pays"), "rows": _rows(presented)},
        "due": {
            "head": say("What is owed"),
            "unit": say("Amount in dirhams"),
            "lines": lines,
            "total": total(_total_label(presented), presented.due_minor),
        },
        "codes": [_code(presented, occasion)] if payable else [],
        "ways": {"head": say("How to pay"), "rows": ways if payable else []},
        "closing": closing,
        "notes": [footnote()] if payable and doubtful else [],
    }
    title = f"{_title(presented)[0]} {format_reference(presented.reference)}"
    return {**shared(title, occasion), "pages": [{"scale": scale_of(page), **page}]}


def _title(presented: BundlePresentment) -> Pair:
    return say("Instalment plan") if _spreads(presented) else say("Notice of several contributions")


def _spreads(presented: BundlePresentment) -> bool:
    """Say whether a plan spreads what is owed; a broken one does no more."""
    return presented.plan is not None and presented.plan.broken_on is None


def _total_label(presented: BundlePresentment) -> Pair:
    return say("To pay now") if _spreads(presented) else say("Total to pay")


def _glance(presented: BundlePresentment) -> list[dict[str, Any]]:
    late = presented.standing is Standing.LATE
    label = say("Was to be paid by") if late else say("To be paid by")
    day = both(lambda s: s.day(presented.due_on))
    return [
        glanced(say("Payment reference"), (figures(format_reference(presented.reference)),)),
        glanced(_total_label(presented), (figures(speech("fr").money(presented.due_minor)),)),
        glanced(label, day, warns=late),
    ]


def _bands(presented: BundlePresentment) -> list[dict[str, Any]]:
    plan = presented.plan
    if plan is not None and plan.broken_on is not None and presented.standing in PAYABLE:
        broken_on = plan.broken_on
        said = both(
            lambda s: s.say(
                "The plan was broken on {day}: its contributions are owed at once, with the"
                " penalty.",
                day=s.day(broken_on),
            )
        )
        return [band(said, warns=True)]
    match presented.standing:
        case Standing.PAID | Standing.CLEARED:
            return [band(say("PAID: nothing is left to pay."))]
        case Standing.CANCELLED:
            text = say("CANCELLED: nothing is to be paid with this reference.")
            return [band(text, warns=True)]
        case Standing.LATE if presented.valid_until is not None and presented.plan is None:
            until = presented.valid_until
            said = both(
                lambda s: s.say(
                    "LATE: this amount is valid until {day}. A penalty is added for each month"
                    " that begins.",
                    day=s.day(until),
                )
            )
            return [band(said, warns=True)]
        case Standing.LATE:
            return [band(say("LATE: please pay without delay."), warns=True)]
    return []


def _rows(presented: BundlePresentment) -> list[dict[str, Any]]:
    count = str(len(presented.items))
    rows = [row(say("Contributions"), (count, count))]
    if presented.plan is None:
        return rows
    made_on = presented.plan.made_on
    rows.append(row(say("Plan made on"), both(lambda s: s.day(made_on))))
    return [*rows, *(_instalment(each) for each in _few(presented.plan))]


def _few(plan: PresentedPlan) -> tuple[PresentedInstalment, ...]:
    if len(plan.instalments) <= INSTALMENTS_MAX:
        return plan.instalments
    return plan.unpaid[:INSTALMENTS_MAX]


def _instalment(each: PresentedInstalment) -> dict[str, Any]:
    label = both(lambda s: s.say("Instalment of {day}", day=s.day(each.due_on)))
    state = {
        InstalmentState.KEPT: say("Paid"),
        InstalmentState.LATE: say("Late"),
        InstalmentState.DUE: ("", ""),
    }[each.state]
    fr, ar = (
        joined(figures(speech(language).money(each.amount_minor)), word)
        for language, word in zip(("fr", "ar"), state, strict=True)
    )
    return row(label, (fr, ar))


def _lines(presented: BundlePresentment, occasion: Occasion) -> list[dict[str, Any]]:
    """Return what adds up to the total to pay now."""
    if presented.standing not in PAYABLE:
        return []
    owed = presented.current if _spreads(presented) else (*presented.current, *presented.items)
    owed = tuple(each for each in owed if each.due_minor)
    lines = [_owed(each, occasion) for each in owed[:LINES_MAX]]
    if rest := owed[LINES_MAX:]:
        count = str(len(rest))
        minor = sum(each.due_minor for each in rest)
        doubtful = not all(line.verified for each in rest for line in each.lines)
        lines.append(entry(say("And others: {count}", count=count), minor, doubtful=doubtful))
    for asked in presented.plan.asked if presented.plan else ():
        day = asked.due_on
        label = both(lambda s, day=day: s.say("Instalment of {day}", day=s.day(day)))  # type: ignore[misc]
        lines.append(entry(label, asked.unpaid_minor))
    return lines


def _owed(each: Presentment, occasion: Occasion) -> dict[str, Any]:
    names = name_of(each.person, masked=occasion.masked)
    return entry(
        both(lambda s: s.say("Contribution, {period}", period=s.period(each.period))),
        each.due_minor,
        rule=names,
        doubtful=not all(line.verified for line in each.lines),
    )


def _code(presented: BundlePresentment, occasion: Occasion) -> dict[str, Any]:
    link = occasion.settings.payer_link(presented.reference)
    return card(
        qr.symbol(link),
        say("For your phone’s camera"),
        say("Opens the page of this notice: what is owed today, and payment."),
        alt=say(
            "Code for phones: the page of notice {reference}",
            reference=format_reference(presented.reference),
        ),
        link=link,
    )
