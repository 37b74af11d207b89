"""How messages are worded, in the person's language. Pure, but for the catalogs.

French keeps to the alphabet of seven bits, where a part holds more than twice as much: no ç, ê or
û, no no-break spaces. Who it is about stands as initials: a telephone may be anybody's by now.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from gateway.clock import INSTITUTION_ZONE
from gateway.dues.periods import parse_period
from gateway.models import Periodicity
from gateway.references import format_reference
from gateway.words.catalogs import Language, mark
from gateway.words.speech import CURRENCY, speech

_NOTICE: Final = mark(
    "{house} AMO: {amount} to pay by {day} for {who} ({period}). Ref. {reference}. {link}"
)
_DUE_SOON: Final = mark("{house} AMO: {amount} due by {day} for {who}. Ref. {reference}. {link}")
_LATE: Final = mark(
    "{house} AMO: {amount} unpaid since {day} for {who}. Penalties grow each month. Ref."
    " {reference}. {link}"
)
_LATE_SEVERAL: Final = mark(
    "{house} AMO: {amount} unpaid for {who}, {count} contributions, the first due {day}. Ref."
    " {reference}. {link}"
)
_PAID: Final = mark(
    "{code} Confirmed. {amount} paid to {house} AMO for {who} on {day} at {time}. Ref."
    " {reference}. Left to pay: {rest}."
)
_GIVEN_BACK: Final = mark(
    "{code}: {amount} of this payment to {house} AMO for {who} was taken back. Ref. {reference}."
    " Left to pay: {rest}. {link}"
)


_FROM_THE_RIGHT: Final = "\u200f"
"""A telephone takes a text's direction from its first letter, which is Latin in all of these."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a message says. Amounts in centimes; what a kind does not say is left as it is."""

    language: Language
    house: str
    who: str
    """Initials, in the letters of the language where they are known."""
    reference: str
    amount_minor: int
    link: str = ""
    day: date | None = None
    period: str = ""
    count: int = 1
    code: str = ""
    """The receipt's number."""
    paid_at: datetime | None = None
    rest_minor: int = 0


def notice(facts: Facts) -> str:
    """Return what tells of an invoice that was issued."""
    return _say(_NOTICE, facts)


def due_soon(facts: Facts) -> str:
    """Return what reminds of what is to be paid within days."""
    return _say(_DUE_SOON, facts)


def late(facts: Facts) -> str:
    """Return what reminds of what was to be paid, one invoice or several."""
    return _say(_LATE if facts.count == 1 else _LATE_SEVERAL, facts)


def paid(facts: Facts) -> str:
    """Return what confirms a payment: its code first, as people know it from their wallets."""
    return _say(_PAID, facts)


def given_back(facts: Facts) -> str:
    """Return what tells that money of a payment that was confirmed is gone."""
    return _say(_GIVEN_BACK, facts)


def _say(text: str, facts: Facts) -> str:
    # In a line from the right, groups of digits would stand in the other order.
    arabic = facts.language == "ar"
    speaking = speech(facts.language)
    local = None if facts.paid_at is None else facts.paid_at.astimezone(INSTITUTION_ZONE)
    day = facts.day if local is None else local.date()
    said = speaking.say(
        text,
        house=facts.house,
        who=facts.who,
        reference=facts.reference if arabic else format_reference(facts.reference),
        amount=_money(facts.amount_minor, facts.language),
        rest=_money(facts.rest_minor, facts.language),
        link=facts.link,
        day="" if day is None else f"{day:%d/%m/%Y}",
        time="" if local is None else f"{local:%H:%M}",
        period=facts.period,
        count=facts.count,
        code=facts.code,
    )
    return f"{_FROM_THE_RIGHT}{said}" if arabic else said


def period_told(code: str, language: Language) -> str:
    """Return a period in few characters, of the alphabet of seven bits in French: no `août`."""
    period = parse_period(code)
    if period.periodicity is Periodicity.MONTH:
        return f"{period.starts_on:%m/%Y}"
    if language == "fr":
        return f"T{(period.starts_on.month + 2) // 3} {period.starts_on.year}"
    return speech(language).period(code).replace("\u00a0", " ")


def _money(minor: int, language: Language) -> str:
    """Return an amount without the narrow no-break space, which would double what a part costs."""
    whole, cents = divmod(minor, 100)
    return f"{whole},{cents:02d} {CURRENCY[language]}"
