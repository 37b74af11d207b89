"""Whether statements follow one another: repeated ones, other content, and those missing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
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
    links = list(known)
    repeated = []
    for link in incoming:
        if link.form is Form.CSV or any(link.content_sha256 == k.content_sha256 for k in links):
            continue
        _refuse_other_form(name, links, link)
        if any(_same_number(link, each) for each in links):
            if link.form in _WITH_BALANCES and not _follows(links, link):
                raise Unusable(
                    f"{name}: statement {link.number} of account {link.account} is known with"
                    " other content, and this one does not follow on from the last: the whole file"
                    " is refused."
                )
            repeated.append(link)
        links.append(link)
    return repeated


def _same_number(one: Link, other: Link) -> bool:
    same = (one.form, one.account, one.number) == (other.form, other.account, other.number)
    if not same or one.to_on is None or other.to_on is None:
        return same
    # Numbers begin again with each year.
    return one.to_on.year == other.to_on.year


def _follows(links: Sequence[Link], link: Link) -> bool:
    ends = [each for each in links if each.account == link.account and each.to_on is not None]
    last = max(ends, key=lambda each: each.to_on or date.min, default=None)
    if last is None or last.to_on is None or link.from_on is None:
        return False
    return link.opening_minor == last.closing_minor and link.from_on > last.to_on


def _refuse_other_form(name: str, links: Sequence[Link], link: Link) -> None:
    if link.form not in _WITH_BALANCES or link.from_on is None or link.to_on is None:
        return
    for each in links:
        if (
            each.account == link.account
            and each.form in _WITH_BALANCES - {link.form}
            and each.from_on is not None
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
    days = sorted({each.to_on for each in chain if each.to_on is not None})
    for at, day in enumerate(days):
        of_day = [each for each in chain if each.to_on == day]
        before = [each for each in chain if each.to_on == days[at - 1]] if at else []
        ends = {each.closing_minor for each in before}
        # The first day of all has one that nothing leads to.
        allowed = 0 if before else 1
        for each in of_day:
            others = {o.closing_minor for o in of_day if o is not each}
            if each.opening_minor in ends | others:
                continue
            if allowed:
                allowed -= 1
                continue
            last = before[-1] if before else of_day[0]
            assert last.to_on is not None
            found.append(Gap(each, last.closing_minor or 0, last.to_on))
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
