"""An attestation on paper: that a person was up to date on a day, and how to see that it is genuine
and still stands. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from gateway.codes import cose, qr
from gateway.institution import Institution
from gateway.papers.compile import pdf
from gateway.papers.writing import (
    UNCONFIRMED,
    Occasion,
    Pair,
    as_of,
    band,
    both,
    card,
    figures,
    glanced,
    questions,
    row,
    say,
    shared,
    who,
)
from gateway.people.attestations import Attestation, AttestationStanding, validity
from gateway.settings import Settings
from gateway.words.speech import speech


def attestation_pdf(
    record: Attestation, *, settings: Settings, institution: Institution, now: datetime
) -> bytes:
    """Return an attestation on one page, the name in full: for its holder.

    Args:
        record: The attestation, and whether it still stands.
        settings: For the address in the code, and whether this is a trial.
        institution: Who collects.
        now: When the record was read; its day is printed.
    """
    occasion = Occasion(settings, institution, masked=False, now=now)
    return pdf("attestation", attestation_data(record, occasion))


def attestation_data(record: Attestation, occasion: Occasion) -> dict[str, Any]:
    """Return all that the template shows."""
    stands = record.standing is AttestationStanding.STANDS
    page = {
        "scale": 1.0,
        "title": say("Attestation of paid contributions"),
        "subtitle": as_of(occasion),
        "glance": _glance(record),
        "bands": [_band(record)],
        "who": {"head": say("Insured person"), "rows": _rows(record, occasion)},
        "body": _body(record, occasion) if stands else [],
        "codes": _codes(record, occasion),
        "closing": [*(_proof() if stands else ()), questions(occasion.institution)],
        "notes": [] if validity().verified else [_footnote()],
    }
    title = f"{speech('fr').say('Attestation of paid contributions')} {record.number}"
    return {**shared(title, occasion), "pages": [page]}


def _glance(record: Attestation) -> list[dict[str, Any]]:
    mark = "" if validity().verified else f"\u00a0{UNCONFIRMED}"
    fr, ar = both(lambda s: s.day(record.valid_until))
    stands = record.standing is AttestationStanding.STANDS
    return [
        glanced(say("Number of the attestation"), (figures(record.number),)),
        glanced(say("Made on"), both(lambda s: s.day(record.issued_on))),
        glanced(say("Valid until"), (fr + mark, ar + mark), warns=not stands),
    ]


def _band(record: Attestation) -> dict[str, Any]:
    match record.standing:
        case AttestationStanding.STANDS:
            return band(say("UP TO DATE with contributions"), large=True)
        case AttestationStanding.EXPIRED:
            return band(say("EXPIRED: this attestation is valid no more."), warns=True, large=True)
        case AttestationStanding.LAPSED:
            return band(
                say("NO MORE UP TO DATE: this attestation does not stand any more."),
                warns=True,
                large=True,
            )


def _rows(record: Attestation, occasion: Occasion) -> list[dict[str, Any]]:
    return [
        *who(record.person, occasion),
        row(say("Registered since"), both(lambda s: s.day(record.registered_on))),
        row(say("Last contribution paid"), both(lambda s: s.period(record.period))),
    ]


def _body(record: Attestation, occasion: Occasion) -> list[Pair]:
    names = (occasion.institution.name, occasion.institution.name_ar)
    fr, ar = (
        speech(language).say(
            "{institution} attests that on {day} every contribution that this person had to pay by"
            " then to the mandatory health insurance was paid, remitted, or in an arrangement that"
            " is kept.",
            institution=name,
            day=speech(language).day(record.issued_on),
        )
        for language, name in zip(("fr", "ar"), names, strict=True)
    )
    return [(fr, ar)]


def _codes(record: Attestation, occasion: Occasion) -> list[dict[str, Any]]:
    link = occasion.settings.receipt_link(record.number)
    online = card(
        qr.symbol(link),
        say("Check online"),
        say("Opens the page that says whether this attestation still stands."),
        alt=say("Code to check attestation {number} online", number=record.number),
        link=link,
    )
    if record.standing is not AttestationStanding.STANDS:
        # Without a network the signature would be found good: no fresh copy of it is handed out.
        return [online]
    signed = card(
        qr.symbol(cose.as_text(record.signed)),
        say("Signed proof"),
        say("Can be checked without a network: number, days and last period, no name."),
        alt=say("Signed code of attestation {number}", number=record.number),
    )
    return [signed, online]


def _proof() -> list[Pair]:
    return [
        say("Whoever receives this paper checks it at the address beside the second code."),
        say("The page shows the initials of the holder, and whether he or she is up to date then."),
    ]


def _footnote() -> Pair:
    return say("* No official text on how long an attestation is valid was seen.")
