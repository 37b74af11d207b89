"""Which payments the lines of a sender's settlement files stand for. Pure.

Sure evidence first: the provider's payment id; the reference with the amount and the day, then
within a window; the payments of one day that a batch comes to. A line stands for one payment and a
payment for one line; what takes money back goes with its payment. Nothing is guessed: of several
choices none is taken, and what is left over is asked about.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from itertools import accumulate, islice
from typing import Any, Final

from gateway.money import format_amount
from reconciliation.sources.sides import (
    Code,
    Found,
    Group,
    Line,
    Paid,
    Pairing,
    Rule,
    Terms,
)

SHOWN_MAX: Final = 10


def line_subject(sender: str, entry_key: str, transaction: int) -> str:
    """Return what an exception about a line is about."""
    return f"settlement:{sender}/{entry_key}{f'/{transaction}' if transaction else ''}"


def unallocated(entry_minor: int, details_minor: int) -> dict[str, Any]:
    """Return what is said of a movement whose details do not come to it."""
    return {
        "movement": format_amount(entry_minor),
        "details": format_amount(details_minor),
        "why": "the details do not come to the movement, or say no amounts",
    }


def pair(lines: Iterable[Line], payments: Iterable[Paid], terms: Terms) -> Pairing:
    """Put together the lines and payments that belong together, and name what is left over.

    The order of what comes in does not matter. Linear, save for sorting.
    """
    work = _Work(
        sorted(lines, key=lambda each: (each.day or date.max, each.key)),
        sorted(payments, key=lambda each: each.key),
        terms,
    )
    work.by_payment_id()
    work.take_back()
    work.by_reference(Rule.REFERENCE_ON_THE_DAY)
    work.by_reference(Rule.REFERENCE_IN_THE_WINDOW)
    work.place_taken_back()
    work.by_batch()
    work.judge()
    work.leave_over()
    return work.pairing


@dataclass(slots=True)
class _Alike:
    """The payments of one reference and amount, in order of their days.

    There may be thousands, and as many lines that may stand for them: a line's choice is a span of
    places, and what many spans hold is counted at their ends.
    """

    payments: list[Paid] = field(default_factory=list)
    days: list[date] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)

    def sort(self) -> None:
        self.payments.sort(key=lambda each: (each.paid_on, each.key))
        self.days = [each.paid_on for each in self.payments]
        self.turns = [0] * (len(self.payments) + 1)

    def span(self, first: date, last: date) -> _Span:
        return _Span(self, bisect_left(self.days, first), bisect_right(self.days, last))

    def counts(self) -> list[int]:
        """Return of each payment how many of the spans that were marked hold it."""
        return list(accumulate(self.turns[:-1]))


@dataclass(frozen=True, slots=True)
class _Span:
    of: _Alike
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def __iter__(self) -> Iterator[Paid]:
        return islice(self.of.payments, self.start, self.end)

    def mark(self) -> None:
        self.of.turns[self.start] += 1
        self.of.turns[self.end] -= 1


def _each_of(spans: Iterable[_Span]) -> Iterator[Paid]:
    return (payment for span in spans for payment in span)


class _Work:
    """One call of `pair`: what is claimed so far."""

    def __init__(self, lines: list[Line], payments: list[Paid], terms: Terms) -> None:
        self.pairing: Final = Pairing()
        self._lines: Final = lines
        self._payments: Final = payments
        self._terms: Final = terms
        self._claims: Final[dict[int, list[Line]]] = defaultdict(list)
        """By a payment's key."""
        self._rules: Final[dict[int, Rule]] = {}
        self._done: Final[set[int]] = set()
        """Lines that are claimed, paired off or asked about."""
        self._grouped: Final[set[int]] = set()
        """Payments that are in a batch."""
        self._asked: Final[set[int]] = set()
        """Payments that a finding names."""
        self._taken_back: Final[list[tuple[Line, Line]]] = []
        """Lines that no payment is known of by id, and what takes them back."""

    def _open_lines(self) -> list[Line]:
        return [each for each in self._lines if each.key not in self._done]

    def _free(self) -> list[Paid]:
        """Return the payments that nothing stands for yet."""
        taken = self._grouped | self._asked
        return [
            each
            for each in self._payments
            if each.key not in taken and each.key not in self._claims and each.was_booked
        ]

    def _claim(self, payment: Paid, line: Line, rule: Rule) -> None:
        self._claims[payment.key].append(line)
        self._rules.setdefault(payment.key, rule)
        self._done.add(line.key)

    def _ask(self, code: Code, line: Line, detail: Mapping[str, Any]) -> None:
        self.pairing.found.append(Found(code, line.subject, dict(detail)))
        self._done.add(line.key)

    def _ambiguous(self, line: Line, candidates: Sequence[Paid], why: str) -> None:
        shown = sorted(each.name for each in candidates)[:SHOWN_MAX]
        detail = {"amount": format_amount(line.amount_minor), "payments": shown, "why": why}
        self._ask(Code.AMBIGUOUS_MATCH, line, detail)
        # Nobody asks about them a second time while this is open.
        self._asked.update(each.key for each in candidates)

    # -- rules ------------------------------------------------------------------------------------

    def by_payment_id(self) -> None:
        """Claim by the provider's payment id: one line in, and what takes it back."""
        named: dict[str, list[Paid]] = defaultdict(list)
        for payment in self._payments:
            named[payment.payment_id].append(payment)
        wanted: dict[int, list[Line]] = defaultdict(list)
        by_key = {each.key: each for each in self._payments}
        for line in self._lines:
            hits = next((named[each] for each in line.payment_ids if each in named), [])
            if len(hits) > 1:
                same = [each for each in hits if each.amount_minor == abs(line.amount_minor)]
                if len(same) != 1:
                    why = "payments of several providers have its id"
                    self._ambiguous(line, same or hits, why)
                    continue
                hits = same
            if hits:
                wanted[hits[0].key].append(line)
        for key, some in wanted.items():
            # After money went back it may come a second time; beyond that it is other money.
            back = sum(line.amount_minor < 0 for line in some)
            fitting = [line for line in some if line.amount_minor > 0]
            # Those of its amount first, else as they came.
            fitting.sort(key=lambda line: line.amount_minor != by_key[key].amount_minor)
            kept = {line.key for line in fitting[: 1 + back]}
            for line in some:
                if line.amount_minor < 0 or line.key in kept:
                    self._claim(by_key[key], line, Rule.PAYMENT_ID)

    def take_back(self) -> None:
        """Let each open negative line go with the one that it takes back."""
        claimed = {line.key: key for key, some in self._claims.items() for line in some}
        by_key = {each.key: each for each in self._payments}
        # By name and amount, in order of their days; those without a day apart.
        by_name: dict[tuple[str, int, bool], dict[int, Line]] = defaultdict(dict)
        for line in self._lines:
            if line.amount_minor > 0:
                for name in (*line.payment_ids, *line.quoted):
                    by_name[name, line.amount_minor, line.day is None][line.key] = line
        for line in self._open_lines():
            if line.amount_minor > 0:
                continue
            found = {
                other.key: other
                for name in (*line.payment_ids, *line.quoted)
                for is_dayless in (False, True)
                # Two are as good as a thousand: nothing tells which.
                for other in islice(
                    by_name.get((name, -line.amount_minor, is_dayless), {}).values(), 2
                )
                if other.day is None or line.day is None or other.day <= line.day
            }
            if len(found) != 1:
                continue
            (other,) = found.values()
            for name in (*other.payment_ids, *other.quoted):
                by_name[name, other.amount_minor, other.day is None].pop(other.key, None)
            if other.key in claimed:
                self._claim(by_key[claimed[other.key]], line, Rule.PAYMENT_ID)
            elif other.key not in self._done:
                self._done.update((line.key, other.key))
                self._taken_back.append((other, line))

    def place_taken_back(self) -> None:
        """Let lines that take one another back go with the payment that they were of, if any."""
        known = self._by_reference(self._free())
        rule = Rule.REFERENCE_IN_THE_WINDOW
        for line, back in self._taken_back:
            # Of one day at most one was claimed here, so that two others are soon met.
            free = (e for e in _each_of(self._choices(line, known, rule)) if not self._has(e))
            found = list(islice(free, 2))
            if len(found) == 1:
                self._claim(found[0], line, rule)
                self._claim(found[0], back, rule)
            else:
                self.pairing.groups.append(Group(Rule.TAKEN_BACK, (line, back), ()))

    def _has(self, payment: Paid) -> bool:
        return payment.key in self._claims

    def _by_reference(self, payments: Iterable[Paid]) -> dict[tuple[str, int], _Alike]:
        known: dict[tuple[str, int], _Alike] = defaultdict(_Alike)
        for payment in payments:
            if payment.reference is not None:
                known[payment.reference, payment.amount_minor].payments.append(payment)
        for alike in known.values():
            alike.sort()
        return known

    def _choices(
        self, line: Line, known: Mapping[tuple[str, int], _Alike], rule: Rule
    ) -> list[_Span]:
        """Return the payments of a line's references, amount and days."""
        if line.day is None:
            return []
        first = last = line.day
        if rule is Rule.REFERENCE_IN_THE_WINDOW:
            first, last = self._window_of(line.day)
        found = (
            known[reference, line.amount_minor].span(first, last)
            for reference in dict.fromkeys(line.quoted)
            if (reference, line.amount_minor) in known
        )
        return [span for span in found if len(span)]

    def _window_of(self, day: date) -> tuple[date, date]:
        """Return the days of a payment that a line of this day may stand for."""
        return day - self._terms.window, day + timedelta(days=1)

    def by_reference(self, rule: Rule) -> None:
        """Claim by reference, amount and day, where one line and one payment want each other."""
        known = self._by_reference(self._free())
        lines = [line for line in self._open_lines() if line.amount_minor > 0]
        choices = {line.key: self._choices(line, known, rule) for line in lines}
        for span in (span for spans in choices.values() for span in spans):
            span.mark()
        wanted = {
            payment.key: count
            for alike in known.values()
            for payment, count in zip(alike.payments, alike.counts(), strict=True)
        }
        for line in lines:
            spans = choices[line.key]
            found = list(islice(_each_of(spans), SHOWN_MAX))
            if len(found) == 1 and wanted[found[0].key] == 1:
                self._claim(found[0], line, rule)
            elif found and rule is Rule.REFERENCE_IN_THE_WINDOW:
                self._ambiguous(line, found, "several lines or payments have this reference")
        if rule is Rule.REFERENCE_IN_THE_WINDOW:
            # Of an ambiguous line all of them, however many it shows.
            self._asked.update(
                key for key, count in wanted.items() if count and key not in self._claims
            )

    def by_batch(self) -> None:
        """Claim all payments of a day for a movement without details that comes to their sum."""
        days: dict[tuple[str, date], list[Paid]] = defaultdict(list)
        for payment in self._free():
            if payment.worth_minor:
                days[payment.provider, payment.paid_on].append(payment)
        sums: dict[int, list[tuple[str, date]]] = defaultdict(list)
        for at, some in days.items():
            if len(some) > 1:
                sums[sum(each.worth_minor for each in some)].append(at)
        for some_days in sums.values():
            some_days.sort(key=lambda at: (at[1], at[0]))
        choices: dict[int, list[tuple[str, date]]] = {}
        wanted: Counter[tuple[str, date]] = Counter()
        lines = [
            line
            for line in self._open_lines()
            if line.is_whole and line.amount_minor > 0 and line.day and not line.quoted
        ]
        for line in lines:
            assert line.day is not None
            of_sum = sums.get(line.amount_minor, [])
            start = bisect_left(of_sum, line.day - self._terms.window, key=lambda at: at[1])
            end = bisect_right(of_sum, line.day, key=lambda at: at[1])
            choices[line.key] = found = [
                at for at in of_sum[start:end] if line.batch_of in {None, len(days[at])}
            ]
            wanted.update(found)
        asked: set[tuple[str, date]] = set()
        for line in lines:
            found = choices[line.key]
            if len(found) == 1 and wanted[found[0]] == 1:
                payments = days[found[0]]
                self._done.add(line.key)
                self._grouped.update(each.key for each in payments)
                self.pairing.groups.append(Group(Rule.BATCH_OF_A_DAY, (line,), tuple(payments)))
            elif found:
                named = [f"{provider} on {day}" for provider, day in sorted(found)][:SHOWN_MAX]
                detail = {
                    "amount": format_amount(line.amount_minor),
                    "days": named,
                    "why": "several days or batches come to the same",
                }
                self._ask(Code.AMBIGUOUS_MATCH, line, detail)
                asked.update(found)
        self._asked.update(each.key for at in asked for each in days[at])

    # -- what it comes to -------------------------------------------------------------------------

    def judge(self) -> None:
        """Group what comes to the same, and ask about what does not."""
        for payment in self._payments:
            lines = self._claims.get(payment.key)
            if not lines:
                continue
            settled = sum(line.amount_minor for line in lines)
            if settled == payment.worth_minor and (payment.was_booked or settled == 0):
                rule = self._rules[payment.key]
                self.pairing.groups.append(Group(rule, tuple(lines), (payment,)))
                continue
            if self._is_on_its_way(payment, settled):
                continue
            detail = {
                "payment": payment.name,
                "settled": format_amount(settled),
                "booked": format_amount(payment.worth_minor),
                "status": payment.status,
            }
            code = Code.AMOUNT_DIFFERS if payment.was_booked else Code.RECORD_WITHOUT_PAYMENT
            self.pairing.found.append(Found(code, lines[0].subject, detail, payment.key))

    def _is_on_its_way(self, payment: Paid, settled: int) -> bool:
        """Say whether it was settled in full and given back since, which files may yet show."""
        back_on = payment.given_back_on
        return (
            settled == payment.amount_minor
            and back_on is not None
            and not self._terms.must_show(back_on)
        )

    def leave_over(self) -> None:
        """Ask about what is left on either side."""
        by_reference: dict[str, _Alike] = defaultdict(_Alike)
        for payment in self._free():
            if payment.reference is not None and payment.worth_minor:
                by_reference[payment.reference].payments.append(payment)
        for alike in by_reference.values():
            alike.sort()
        for line in self._open_lines():
            if line.details_minor is not None:
                detail = unallocated(line.amount_minor, line.details_minor)
                self._ask(Code.AMOUNT_DIFFERS, line, detail)
            elif (other := self._other_amount(line, by_reference)) is not None:
                self._asked.add(other.key)
                detail = {
                    "payment": other.name,
                    "settled": format_amount(line.amount_minor),
                    "booked": format_amount(other.worth_minor),
                    "status": other.status,
                }
                self.pairing.found.append(
                    Found(Code.AMOUNT_DIFFERS, line.subject, detail, other.key)
                )
            else:
                what = "money that we never booked"
                if line.amount_minor < 0:
                    what = "it takes back a payment that is not known"
                detail = {
                    "amount": format_amount(line.amount_minor),
                    "day": None if line.day is None else line.day.isoformat(),
                    "references": list(line.quoted),
                    "why": what,
                }
                self._ask(Code.RECORD_WITHOUT_PAYMENT, line, detail)
        must_show = cache(self._terms.must_show)
        for payment in self._free():
            if payment.worth_minor and must_show(payment.paid_on):
                self._ask_for(payment)

    def _other_amount(self, line: Line, known: Mapping[str, _Alike]) -> Paid | None:
        """Return the one payment of the line's reference and days that has another amount."""
        if line.amount_minor < 0 or line.day is None:
            return None
        days = self._window_of(line.day)
        references = (each for each in dict.fromkeys(line.quoted) if each in known)
        some = _each_of(known[each].span(*days) for each in references)
        # Of one day at most one was asked about here, so that two others are soon met.
        found = list(islice((each for each in some if each.key not in self._asked), 2))
        return found[0] if len(found) == 1 else None

    def _ask_for(self, payment: Paid) -> None:
        sender = self._terms.sender
        whose = "" if payment.provider == sender else f"{sender}:"
        detail = {
            "amount": format_amount(payment.worth_minor),
            "paid_on": payment.paid_on.isoformat(),
            "sender": sender,
            "why": "the files that cover its day do not show it",
        }
        self.pairing.found.append(
            Found(
                Code.PAYMENT_WITHOUT_RECORD,
                f"settlement:payment:{whose}{payment.name}",
                detail,
                payment.key,
            )
        )
