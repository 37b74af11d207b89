"""Whether statements follow one another: repeated ones, other content, and those missing. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Final

from gateway.errors import Unusable
from gateway.money import format_amount
from reconciliation.sources.statements import Form, Statement

_WITH_BALANCES: Final = frozenset({Form.CAMT_053, Form.MT940})


@dataclass(frozen=True, slots=True)
class Link:
    """What the chain of an account knows of one statement."""

    form: Form
    account: str
    number: str
    opening_minor: int | None
    closing_minor: int | None
    from_on: date | None
    to_on: date | None
    content_sha256: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """A statement that does not open with what any before it closed with."""

    statement: Link
    expected_minor: int
    """What the latest one before it closed with."""
    since_on: date
    """The day of that one."""


def link_of(statement: Statement) -> Link:
    """Return what the chain needs of a statement."""
    return Link(
        statement.form,
        statement.account,
        statement.number,
        statement.opening_minor,
        statement.closing_minor,
        statement.from_on,
        statement.to_on,
        statement.content_sha256(),
    )


def require_new(name: str, known: Sequence[Link], incoming: Iterable[Link]) -> list[Link]:
    """Return which of the incoming statements bear the number of a known one, and may.

    A bank may use a number again: a statement that follows on from the last one is another one,
    and so is a notification, whose movements are known one by one. Otherwise it contradicts.

    Args:
        name: Of the file, for what is said of it.
        known: The statements of these accounts, by the same sender.
        incoming: Those of the file.

    Raises:
        Unusable: A statement is known with other content, or its days are known by another format.
    """
    links = _Known(known)
    repeated = []
    for link in incoming:
        if link.form is Form.CSV or link.content_sha256 in links.contents:
            continue
        _refuse_other_form(name, links.of_account[link.account], link)
        if links.has_number(link):
            if link.form in _WITH_BALANCES and not links.leads_to(link):
                raise Unusable(
                    f"{name}: statement {link.number} of account {link.account} is known with"
                    " other content, and this one does not follow on from the last: the whole file"
                    " is refused."
                )
            repeated.append(link)
        links.add(link)
    return repeated


class _Known:
    """Statements, found by what another one may have in common with them."""

    def __init__(self, links: Iterable[Link]) -> None:
        self.contents: Final[set[bytes]] = set()
        self.of_account: Final[dict[str, dict[Form, list[Link]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self._years: Final[dict[tuple[Form, str, str], set[int | None]]] = defaultdict(set)
        self._last: Final[dict[str, tuple[date, set[int | None]]]] = {}
        for link in links:
            self.add(link)

    def add(self, link: Link) -> None:
        self.contents.add(link.content_sha256)
        self.of_account[link.account][link.form].append(link)
        year = None if link.to_on is None else link.to_on.year
        self._years[link.form, link.account, link.number].add(year)
        if link.to_on is None:
            return
        last = self._last.get(link.account)
        if last is None or last[0] < link.to_on:
            self._last[link.account] = (link.to_on, {link.closing_minor})
        elif last[0] == link.to_on:
            last[1].add(link.closing_minor)

    def has_number(self, link: Link) -> bool:
        """Say whether a statement of this number is known. Numbers begin again with each year."""
        years = self._years.get((link.form, link.account, link.number), set())
        return bool(years) and (link.to_on is None or not years.isdisjoint({link.to_on.year, None}))

    def leads_to(self, link: Link) -> bool:
        """Say whether one of the last day known closes with what this later one opens with."""
        last = self._last.get(link.account)
        if last is None or link.from_on is None:
            return False
        return link.opening_minor in last[1] and link.from_on > last[0]


def _refuse_other_form(name: str, links: Mapping[Form, Sequence[Link]], link: Link) -> None:
    if link.form not in _WITH_BALANCES or link.from_on is None or link.to_on is None:
        return
    # A file is of one format: these were known before it, and are few.
    for each in (each for form in _WITH_BALANCES - {link.form} for each in links.get(form, ())):
        if (
            each.from_on is not None
            and each.to_on is not None
            and each.from_on <= link.to_on
            and link.from_on <= each.to_on
        ):
            raise Unusable(
                f"{name}: what moved on account {link.account} from {each.from_on} to {each.to_on}"
                f" is known from {each.form}, and {link.form} would bring it again under other"
                " names: the whole file is refused."
            )


def gaps(links: Iterable[Link]) -> list[Gap]:
    """Return the statements of one account that leave a gap to those before them.

    Of any order; the first statement ever has nothing before it.
    """
    chain = sorted(
        (each for each in links if each.form in _WITH_BALANCES and each.to_on is not None),
        key=lambda each: (each.to_on, each.from_on, each.number),
    )
    found = []
    before: list[Link] = []
    for _, some in groupby(chain, key=lambda each: each.to_on):
        of_day = list(some)
        ends = {each.closing_minor for each in before}
        closings = Counter(each.closing_minor for each in of_day)
        # The first day of all has one that nothing leads to.
        allowed = 0 if before else 1
        for each in of_day:
            others = closings[each.opening_minor] - (each.closing_minor == each.opening_minor)
            if each.opening_minor in ends or others:
                continue
            if allowed:
                allowed -= 1
                continue
            last = before[-1] if before else of_day[0]
            assert last.to_on is not None
            found.append(Gap(each, last.closing_minor or 0, last.to_on))
        before = of_day
    return found


def said_of(gap: Gap) -> dict[str, str]:
    """Return what is said of a gap."""
    return {
        "opens_with": format_amount(gap.statement.opening_minor or 0),
        "expected": format_amount(gap.expected_minor),
        "after": gap.since_on.isoformat(),
        "day": str(gap.statement.to_on),
    }


def covered_days(links: Iterable[Link]) -> list[tuple[date, date]]:
    """Return the spans of days that the statements of one account are complete for.

    Statements that follow on from one another cover what lies between them, a weekend say.
    """
    spans: list[tuple[date, date, int | None]] = []
    ordered = sorted(
        (each for each in links if each.from_on is not None and each.to_on is not None),
        key=lambda each: (each.from_on, each.to_on, each.number),
    )
    for each in ordered:
        assert each.from_on is not None
        assert each.to_on is not None
        if spans:
            began, ended, closing = spans[-1]
            follows = closing is not None and closing == each.opening_minor
            if follows or each.from_on <= ended:
                last = each.closing_minor if each.to_on >= ended else closing
                spans[-1] = (began, max(ended, each.to_on), last)
                continue
        spans.append((each.from_on, each.to_on, each.closing_minor))
    return [(began, ended) for began, ended, _ in spans]
