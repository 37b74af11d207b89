"""How amounts, days, periods, channels and rules are written in one language.

Money is written here and nowhere else: `1 234,50 DH`, western digits in both languages, no-break
spaces throughout so that an amount never falls apart over two lines. Months have their Moroccan
names (نونبر, not نوفمبر). Instants are shown in Casablanca's time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from functools import cache
from typing import Any, Final

from babel.dates import format_date

from gateway.clock import INSTITUTION_ZONE
from gateway.dues.periods import parse_period
from gateway.models import Channel, LineKind, Periodicity
from gateway.words.catalogs import Language, catalog, mark

_NARROW: Final = "\u202f"
_NO_BREAK: Final = "\u00a0"

CURRENCY: Final[Mapping[Language, str]] = {"fr": "DH", "ar": "درهم"}
"""As people say it; MAD is what machines write."""

_LINES: Final = {
    LineKind.PRINCIPAL: mark("Contribution, {period}"),
    LineKind.PENALTY: mark("Late penalty, {period}"),
    LineKind.FEE: mark("Recovery fee, {period}"),
    LineKind.REMISSION: mark("Remission, {period}"),
    LineKind.ADJUSTMENT: mark("Adjustment, {period}"),
}

_CHANNELS: Final = {
    Channel.CASH_AGENT: mark("Cash at an agency"),
    Channel.KIOSK: mark("Payment kiosk"),
    Channel.WALLET: mark("Mobile wallet"),
    Channel.CARD: mark("Bank card"),
    Channel.TRANSFER: mark("Bank transfer"),
}

_CATEGORIES: Final = {
    "artisan-untaxed": mark("Artisan not subject to tax"),
    "cpu": mark("Single professional contribution (CPU)"),
    "fishing-boat-owner": mark("Owner of an artisanal fishing boat"),
    "accounts-simplified": mark("Accounts kept, simplified net result (RNS)"),
    "accounts-real": mark("Accounts kept, real net result (RNR)"),
    "accounts-income-unknown": mark("Accounts kept, income not known yet"),
    "accounts-no-return": mark("Accounts kept, no tax return filed"),
    "auto-entrepreneur": mark("Auto-entrepreneur"),
    "doctor-general": mark("Doctor, general practitioner"),
    "doctor-specialist": mark("Doctor, specialist"),
    "pharmacist": mark("Pharmacist"),
    "pharmacist-biologist": mark("Pharmacist-biologist"),
    "notary": mark("Notary"),
    "adoul": mark("Adoul"),
    "sworn-translator": mark("Sworn translator"),
    "copyist-first-instance": mark("Copyist at a court of first instance"),
    "copyist-resident-judge": mark("Copyist at a resident judge's centre"),
    "artist": mark("Artist"),
}

_RULES: Final = {
    "share-of-smig": mark("{coefficient} × SMIG {smig} DH/hour × {hours} h × {rate} %"),
    "band-below": mark("Fixed amount, {base} below {edge} DH"),
    "band-up-to": mark("Fixed amount, {base} of {edge} DH at most"),
    "band-above": mark("Fixed amount, {base} above {edge} DH"),
    "late-months": mark(
        "{rate} % of the principal unpaid, for each month begun after the due month: {months}"
    ),
    "late-months-by-date": mark(
        "A share of the principal unpaid, for each month begun after the due month: {months}"
    ),
    "band-from": mark("Fixed amount, {base} of {edge} DH or more"),
    "share-below": mark(
        "{coefficient} × SMIG {smig} DH/hour × {hours} h × {rate} %, {base} below {edge} DH"
    ),
    "share-up-to": mark(
        "{coefficient} × SMIG {smig} DH/hour × {hours} h × {rate} %, {base} of {edge} DH at most"
    ),
    "share-above": mark(
        "{coefficient} × SMIG {smig} DH/hour × {hours} h × {rate} %, {base} above {edge} DH"
    ),
    "share-from": mark(
        "{coefficient} × SMIG {smig} DH/hour × {hours} h × {rate} %, {base} of {edge} DH or more"
    ),
    "prevails": mark("{instead} prevails over all other activities"),
    "highest-only": mark("One contribution only is owed: {instead}"),
    "other-kind": mark("This quarter is owed as: {instead}"),
    "left": mark("The registration had ended before this period"),
    "not-yet-registered": mark("The registration began after this period"),
    "not-in-period": mark("No activity in this period"),
    "first-period": mark("This contribution did not exist yet: its first period is {first}"),
    "other-file": mark("This period is billed on another file of the same person"),
    "recovery-fee": mark("Costs of recovery"),
    "remission": mark("{campaign}: remission of {shares}, of what was unpaid then"),
}

_SHARES: Final = {
    "principal": mark("{share} % of the principal"),
    "penalty": mark("{share} % of the late penalty"),
    "fee": mark("{share} % of the recovery fees"),
}

_CAMPAIGNS: Final = {
    "decision-03-2023": mark("Decision 03/2023 on penalties and fees"),
    "loi-41-23": mark("Law 41-23 on debts up to November 2023"),
}

_BASES: Final = {
    "annual principal duty": mark("annual principal duty"),
    "annual profit": mark("annual profit"),
}


class Speech:
    """One language: its direction, its catalog, and how figures are written in it."""

    def __init__(self, language: Language) -> None:
        self.language: Final = language
        self.direction: Final = "rtl" if language == "ar" else "ltr"
        self.catalog: Final = catalog(language)
        self._locale: Final = f"{language}_MA"

    def say(self, text: str, /, **values: Any) -> str:
        """Return a text of the code in this language, its `{names}` filled.

        Raises:
            Untranslated: The catalog lacks it.
        """
        translated = self.catalog.gettext(text)
        return translated.format(**values) if values else translated

    def amount(self, minor: int) -> str:
        """Return centimes as dirhams without the currency: 123450 is `1 234,50`."""
        sign = "\u2212" if minor < 0 else ""
        whole, cents = divmod(abs(minor), 100)
        return f"{sign}{whole:,}".replace(",", _NARROW) + f",{cents:02d}"

    def money(self, minor: int) -> str:
        """Return centimes with the currency: `1 234,50 DH`, `1 234,50 درهم`."""
        return f"{self.amount(minor)}{_NO_BREAK}{CURRENCY[self.language]}"

    def figure(self, text: str) -> str:
        """Return a decimal figure of a rule as people write it here: `1234.5` is `1 234,5`."""
        whole, point, decimals = text.partition(".")
        if whole.isdecimal():
            whole = f"{int(whole):,}".replace(",", _NARROW)
        return whole + ("," if point else "") + decimals

    def day(self, day: date) -> str:
        """Return a day: `30 novembre 2026`, `30 نونبر 2026`."""
        written = format_date(day, "d MMMM y", locale=self._locale)
        if self.language == "fr" and day.day == 1:
            written = written.replace("1 ", "1er ", 1)
        return written.replace(" ", _NO_BREAK)

    def day_of(self, instant: datetime) -> str:
        """Return the day of an instant, where the institution is."""
        return self.day(instant.astimezone(INSTITUTION_ZONE).date())

    def instant(self, instant: datetime) -> str:
        """Return a day and a time of day, where the institution is."""
        local = instant.astimezone(INSTITUTION_ZONE)
        return self.say("{day} at {time}", day=self.day(local.date()), time=f"{local:%H:%M}")

    def period(self, code: str) -> str:
        """Return a period: `novembre 2026`, `4e trimestre 2026`; or from one to another."""
        first, _, last = code.partition("/")
        if last:
            return f"{self.period(first)} – {self.period(last)}"
        period = parse_period(code)
        if period.periodicity is Periodicity.MONTH:
            written = format_date(period.starts_on, "LLLL y", locale=self._locale)
            return written.replace(" ", _NO_BREAK)
        quarter = (period.starts_on.month + 2) // 3
        return self.say(_QUARTERS[quarter - 1], year=period.starts_on.year)

    def line(self, kind: LineKind, period: str) -> str:
        """Return what a line of an invoice is for."""
        return self.say(_LINES[kind], period=self.period(period))

    def channel(self, channel: Channel | None) -> str:
        """Return how money came; a provider may not have said."""
        return self.say("Not stated") if channel is None else self.say(_CHANNELS[channel])

    def category(self, code: str) -> str:
        """Return a category's name; its code where the catalog has no name for it yet."""
        return self.say(_CATEGORIES[code]) if code in _CATEGORIES else code

    def rule(self, facts: Mapping[str, str], otherwise: str) -> str:
        """Return why a line has its amount, from the figures that were kept with it.

        Args:
            facts: `form` names the sentence; the rest fills it.
            otherwise: The rule as the tariff said it, for a form that has no sentence here.
        """
        form = _RULES.get(facts.get("form", ""))
        if form is None:
            return otherwise
        values = {name: self.figure(value) for name, value in facts.items()}
        if base := facts.get("base"):
            values["base"] = self.say(_BASES[base]) if base in _BASES else base
        if instead := facts.get("instead"):
            values["instead"] = self._listed(self.category(code) for code in instead.split(", "))
        if first := facts.get("first"):
            values["first"] = self.period(first)
        if campaign := facts.get("campaign"):
            known = _CAMPAIGNS.get(campaign)
            values["campaign"] = campaign if known is None else self.say(known)
            values["shares"] = self._listed(
                self.say(text, share=values[part])
                for part, text in _SHARES.items()
                if facts.get(part, "0") != "0"
            )
        return self.say(form, **values)

    def _listed(self, parts: Iterable[str]) -> str:
        return ("، " if self.language == "ar" else ", ").join(parts)


_QUARTERS: Final = (
    mark("1st quarter of {year}"),
    mark("2nd quarter of {year}"),
    mark("3rd quarter of {year}"),
    mark("4th quarter of {year}"),
)


@cache
def speech(language: Language) -> Speech:
    """Return how to speak a language."""
    return Speech(language)
