"""Which of a person's activities is owed for which periods, and how much: pure decisions.

- A period is owed from the one that contains an activity's first day to the one that contains its
  last, within the days that the person was registered.
- A quarter is owed in months or as a whole, never as both; within that, nobody owes twice for a
  period. A category that prevails by law (the tariff says which) bars all others for the quarter.
  Else the activities owed by the month, each month the one that owes most, stand against the one
  that owes most as a quarter: what comes to more over the quarter is owed.
- Of equals, the one that began first; then by code. The order of the facts decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cache
from typing import Final

from gateway.dues.periods import EARLIEST, Period, parse_period, period_of
from gateway.dues.principal import DueLine, NotOwed, principal
from gateway.dues.tariff import CategoryTariff, Tariff
from gateway.models import Periodicity

ONE_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Did:
    """One activity for some time, both days included. Base in centimes, if its category has one."""

    category: str
    base_minor: int | None
    since: date
    until: date | None = None


@dataclass(frozen=True, slots=True)
class PersonFacts:
    """One file of a person: what the register says, and what the person did beside or before."""

    registered_on: date
    left_on: date | None
    category: str
    base_minor: int | None
    category_since: date | None = None
    """From when the register's category and base hold; None: from `registered_on` on."""
    activities: Sequence[Did] = ()

    def did(self) -> Iterator[Did]:
        """Yield all activities within the days of registration, as far as there are periods."""
        own = Did(self.category, self.base_minor, self.category_since or self.registered_on)
        for each in (own, *self.activities):
            since = max(each.since, self.registered_on, EARLIEST)
            until = _earlier(each.until, self.left_on)
            if until is None or since <= until:
                yield replace(each, since=since, until=until)


@dataclass(frozen=True, slots=True)
class Assessed:
    """What is owed for one period, and as what."""

    category: str
    base_minor: int | None
    line: DueLine


@dataclass(frozen=True, slots=True)
class Unowed:
    """Why an activity is not owed in a quarter, or in one month of it, and who says so."""

    category: str
    reason: str
    source: str
    verified: bool
    facts: Mapping[str, str] = field(default_factory=dict)
    """The reason's `form` and figures, so that it can be said in the payer's language."""


@dataclass(frozen=True, slots=True)
class QuarterAssessed:
    """What a person owes for a quarter: for its months, for the whole, or for nothing."""

    owed: dict[Period, Assessed] = field(default_factory=dict)
    not_owed: tuple[Unowed, ...] = ()

    def why_not(self, period: Period, category: str) -> Unowed:
        """Return why a period of this quarter is not owed as a category."""
        named = next((each for each in self.not_owed if each.category == category), None)
        if named is not None:
            return named
        if self.owed and all(p.periodicity is not period.periodicity for p in self.owed):
            instead = next(iter(self.owed.values())).category
            reason = f"{category}: the quarter is owed as {instead}"
            facts = {"form": "other-kind", "instead": instead}
            return Unowed(category, reason, _REGISTER, verified=True, facts=facts)
        return _absent(category, "not-in-period", f"{category}: nothing was done in {period.code}")


class Assessor:
    """Assesses people by one tariff. Remembers prices, so that many people are assessed fast."""

    def __init__(self, tariff: Tariff) -> None:
        self._categories: Final = {each.code: each for each in tariff.category}
        self._tariff: Final = tariff
        self._prices: Final[dict[tuple[str, int | None, str], DueLine | NotOwed]] = {}

    def quarter(self, files: Sequence[PersonFacts], quarter: Period) -> QuarterAssessed:
        """Return what is owed for a quarter by a person with these files, the standing one first.

        Raises:
            Unusable: The tariff has no such category, or a base is needed and absent.
        """
        candidates = [did for did in everything_done(files) if _touches(did, quarter)]
        if not candidates:
            return QuarterAssessed(not_owed=(_absence(files, quarter),))
        prevailing = [
            did for did in candidates if self._category(did).prevails and self._owes(did, quarter)
        ]
        eligible = prevailing or candidates
        whole, months = self._best(eligible, quarter), self._months(eligible, quarter)
        owed = months if _comes_to_more(months, whole) else whole
        chosen = {period: one for period, (_, one) in owed.items()}
        return QuarterAssessed(chosen, self._reasons(candidates, chosen, quarter, prevailing))

    def period(self, files: Sequence[PersonFacts], period: Period) -> Assessed | NotOwed:
        """Return what is owed for one month or quarter, or why nothing is.

        Raises:
            Unusable: As `quarter`.
        """
        found = self.quarter(files, quarter_of(period))
        return found.owed.get(period) or NotOwed(found.why_not(period, files[0].category).reason)

    def price(self, category: str, base_minor: int | None, period: Period) -> DueLine | NotOwed:
        """Return the contribution of a category and base for a period of its kind."""
        key = (category, base_minor, period.code)
        if key not in self._prices:
            tariff = self._tariff
            self._prices[key] = principal(
                tariff, tariff.of(category), base_minor=base_minor, period=period
            )
        return self._prices[key]

    def _category(self, did: Did) -> CategoryTariff:
        return self._categories.get(did.category) or self._tariff.of(did.category)

    def _best(self, candidates: Iterable[Did], period: Period) -> _Owing:
        """Return who owes most for a period, of the categories that are owed by such periods."""
        best: tuple[tuple[int, int, str, int], Did, DueLine] | None = None
        for did in candidates:
            wrong_kind = self._category(did).periodicity is not period.periodicity
            if wrong_kind or not _touches(did, period):
                continue
            line = self.price(did.category, did.base_minor, period)
            if isinstance(line, DueLine):
                rank = (
                    -line.amount_minor,
                    did.since.toordinal(),
                    did.category,
                    did.base_minor or 0,
                )
                if best is None or rank < best[0]:
                    best = (rank, did, line)
        if best is None:
            return {}
        _, did, line = best
        return {period: (did, Assessed(did.category, did.base_minor, line))}

    def _months(self, candidates: Sequence[Did], quarter: Period) -> _Owing:
        found: _Owing = {}
        for month in months_of(quarter):
            found.update(self._best(candidates, month))
        return found

    def _owes(self, did: Did, quarter: Period) -> bool:
        """Say whether an activity alone would owe something in a quarter."""
        return bool(self._best([did], quarter) or self._months([did], quarter))

    def _reasons(
        self,
        candidates: Sequence[Did],
        owed: dict[Period, Assessed],
        quarter: Period,
        prevailing: Sequence[Did],
    ) -> tuple[Unowed, ...]:
        """Say of each category that is not owed why, once."""
        chosen = {each.category for each in owed.values()}
        found: dict[str, Unowed] = {}
        for did in candidates:
            code = did.category
            if code in chosen or code in found:
                continue
            found[code] = self._why_not(did, sorted(chosen), quarter, prevailing)
        return tuple(found.values())

    def _why_not(
        self, did: Did, chosen: Sequence[str], quarter: Period, prevailing: Sequence[Did]
    ) -> Unowed:
        code, category = did.category, self._category(did)
        if not self._owes(did, quarter):
            monthly = category.periodicity is Periodicity.MONTH
            first = months_of(quarter)[0] if monthly else quarter
            price = self.price(code, did.base_minor, first)
            if isinstance(price, DueLine):
                return _absent(code, "not-in-period", f"{code}: nothing was done in {quarter.code}")
            said, facts = (
                category.first,
                {"form": "first-period", "first": category.first_period.code},
            )
            return Unowed(code, price.reason, said.source, said.verified, facts)
        if prevailing:
            first_of = self._category(prevailing[0])
            figure = first_of.prevailing[-1]
            reason = f"{first_of.code} prevails over {code}"
            facts = {"form": "prevails", "instead": first_of.code}
            return Unowed(code, reason, figure.source, figure.verified, facts)
        rule = self._tariff.several_activities[-1]
        instead = ", ".join(chosen)
        facts = {"form": "highest-only", "instead": instead}
        return Unowed(
            code, f"{code}: one contribution only, {instead}", rule.source, rule.verified, facts
        )


_REGISTER: Final = "the register of contributors"
_Owing = dict[Period, tuple[Did, Assessed]]


def everything_done(files: Sequence[PersonFacts]) -> list[Did]:
    """Return all activities of a person's files; nothing after the standing file's last day."""
    end = files[0].left_on
    found = []
    for file in files:
        for did in file.did():
            until = _earlier(did.until, end)
            if until is None or did.since <= until:
                found.append(replace(did, until=until))
    return found


def quarters_from(files: Sequence[PersonFacts], last: date) -> Iterator[Period]:
    """Yield the quarters from the first in which a person did anything to the one of a day."""
    since = min((did.since for did in everything_done(files)), default=None)
    day = since
    while day is not None and day <= last:
        quarter = period_of(day, Periodicity.QUARTER)
        yield quarter
        day = quarter.ends_on + ONE_DAY


def quarter_of(period: Period) -> Period:
    """Return the quarter that a period lies in."""
    if period.periodicity is Periodicity.QUARTER:
        return period
    return period_of(period.starts_on, Periodicity.QUARTER)


@cache
def months_of(quarter: Period) -> tuple[Period, Period, Period]:
    """Return the three months of a quarter."""
    year, first = quarter.starts_on.year, quarter.starts_on.month
    one, two, three = (parse_period(f"{year}-{first + n:02}") for n in range(3))
    return one, two, three


def _comes_to_more(months: _Owing, whole: _Owing) -> bool:
    """Say whether the months are owed rather than the whole quarter."""
    if not months or not whole:
        return bool(months)

    def rank(owing: _Owing) -> tuple[int, date, str]:
        total = sum(one.line.amount_minor for _, one in owing.values())
        since, category = min((did.since, did.category) for did, _ in owing.values())
        return -total, since, category

    return rank(months) < rank(whole)


def _touches(did: Did, period: Period) -> bool:
    """Say whether an activity went on during any day of a period."""
    return did.since <= period.ends_on and (did.until is None or did.until >= period.starts_on)


def _earlier(one: date | None, other: date | None) -> date | None:
    return min(one, other) if one and other else one or other


def _absence(files: Sequence[PersonFacts], quarter: Period) -> Unowed:
    code = files[0].category
    if all(file.registered_on > quarter.ends_on for file in files):
        return _absent(code, "not-yet-registered", f"{code}: registered after {quarter.code}")
    return _absent(code, "left", f"{code}: left before {quarter.code}")


def _absent(category: str, form: str, reason: str) -> Unowed:
    return Unowed(category, reason, _REGISTER, verified=True, facts={"form": form})
