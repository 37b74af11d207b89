"""The rows of two made-up ledgers, their truth, and how a result is judged by it."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Final

_WHO = ["reference", "cnss_number", "cin", "name"]
PAYMENT_COLUMNS: Final = ("payment_id", *_WHO, "amount", "paid_on", "channel", "provider_reference")
RECORD_COLUMNS: Final = (
    "record_id",
    *_WHO,
    "period",
    "amount",
    "posted_on",
    "channel",
    "provider_reference",
)


class Expect(StrEnum):
    """What a matcher owes for a payment."""

    THESE = "these"
    """Its group has these records and no other."""
    LIKE = "like"
    """These, or others of the same people and amounts: the payer did not say which month."""
    MAYBE = "maybe"
    """The evidence may do or not: if it is matched, then with records like these."""
    OPEN = "open"
    """None: a match is wrong."""
    AGAIN = "again"
    """The debt is paid by another payment too: one of the two is open."""


@dataclass(slots=True)
class Record:
    record_id: str
    reference: str
    cnss_number: str
    cin: str
    name: str
    period: str
    amount_minor: int
    posted_on: date
    channel: str
    provider_reference: str
    owner: int
    """The person, whatever the columns say."""


@dataclass(slots=True)
class Payment:
    payment_id: str
    reference: str
    cnss_number: str
    cin: str
    name: str
    amount_minor: int
    paid_on: date
    channel: str
    provider_reference: str


@dataclass(frozen=True, slots=True)
class Truth:
    what: str
    expect: Expect
    record_ids: tuple[str, ...] = ()


@dataclass(slots=True)
class Ledger:
    payments: list[Payment] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    truth: dict[str, Truth] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        _write(directory / "payments.csv", PAYMENT_COLUMNS, self.payments)
        _write(directory / "records.csv", RECORD_COLUMNS, self.records)
        with (directory / "truth.csv").open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["payment_id", "kind", "record_ids", "what", "expect"])
            for payment_id, truth in self.truth.items():
                ids = "|".join(truth.record_ids)
                kind = truth.what
                if truth.expect is Expect.LIKE:
                    kind = "no_reference"  # the word for it in the field's own scoring tool
                elif truth.expect is Expect.AGAIN:
                    ids = f"?{ids}"
                elif truth.expect is Expect.OPEN:
                    ids = ""
                out.writerow([payment_id, kind, ids, truth.what, truth.expect])


def _write(path: Path, columns: Iterable[str], rows: Iterable[Payment | Record]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(columns)
        for row in rows:
            out.writerow(
                [
                    dirhams(row.amount_minor) if column == "amount" else getattr(row, column)
                    for column in columns
                ]
            )


def dirhams(minor: int) -> str:
    return f"{'-' if minor < 0 else ''}{abs(minor) // 100}.{abs(minor) % 100:02d}"


@dataclass(slots=True)
class Tally:
    owed: int = 0
    """Payments that have to be matched."""
    matched: int = 0
    right: int = 0
    """Matched rightly, of all."""
    kept: int = 0
    """Matched rightly, of those that had to be matched."""
    wrong: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    @property
    def precision(self) -> float:
        return self.right / self.matched if self.matched else 1.0

    @property
    def recall(self) -> float:
        return self.kept / self.owed if self.owed else 1.0


@dataclass(slots=True)
class Verdict:
    kinds: dict[str, Tally]
    doubles: int
    """Payments and records that are in two groups."""
    uneven: int
    """Groups of several payments and several records, or of two different sums."""

    @property
    def total(self) -> Tally:
        total = Tally()
        for tally in self.kinds.values():
            total.owed += tally.owed
            total.matched += tally.matched
            total.right += tally.right
            total.kept += tally.kept
            total.wrong += tally.wrong
            total.missed += tally.missed
        return total


def judge(
    ledger: Ledger, lines: Iterable[tuple[str, str, str]], *, tolerance_minor: int = 5
) -> Verdict:
    """Compare lines (group, payment, record) of a result with the truth."""
    groups: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for group, payment_id, record_id in lines:
        groups[group][0].add(payment_id)
        groups[group][1].add(record_id)
    paid = {p.payment_id: p.amount_minor for p in ledger.payments}
    posted = {r.record_id: r for r in ledger.records}
    got: dict[str, frozenset[str]] = {}
    seen: set[str] = set()
    doubles = uneven = 0
    for payments, records in groups.values():
        doubles += len(records & seen) + sum(p in got for p in payments)
        seen |= records
        got |= dict.fromkeys(payments, frozenset(records))
        sums = sum(paid[p] for p in payments) - sum(posted[r].amount_minor for r in records)
        uneven += abs(sums) > tolerance_minor or min(len(payments), len(records)) > 1
    _exchange_paid_twice(ledger.truth, got)
    like = {r.record_id: (r.owner, r.amount_minor) for r in ledger.records}
    kinds: dict[str, Tally] = defaultdict(Tally)
    for payment_id, truth in ledger.truth.items():
        _count(kinds[truth.what], payment_id, truth, got.get(payment_id), like)
    return Verdict(dict(kinds), doubles, uneven)


def _exchange_paid_twice(truth: Mapping[str, Truth], got: dict[str, frozenset[str]]) -> None:
    """Whichever of the two payments of one debt was taken counts as the first."""
    first = {
        t.record_ids: payment_id for payment_id, t in truth.items() if t.expect is not Expect.AGAIN
    }
    for payment_id, t in truth.items():
        if (
            t.expect is Expect.AGAIN
            and first[t.record_ids] not in got
            and got.get(payment_id) == frozenset(t.record_ids)
        ):
            got[first[t.record_ids]] = got.pop(payment_id)


def _count(
    tally: Tally,
    payment_id: str,
    truth: Truth,
    got: frozenset[str] | None,
    like: Mapping[str, tuple[int, int]],
) -> None:
    owed = truth.expect in {Expect.THESE, Expect.LIKE}
    tally.owed += owed
    if got is None:
        if owed:
            tally.missed.append(payment_id)
        return
    tally.matched += 1
    right = got == frozenset(truth.record_ids) and truth.expect not in {Expect.OPEN, Expect.AGAIN}
    if truth.expect in {Expect.LIKE, Expect.MAYBE}:
        right |= Counter(like[r] for r in got) == Counter(like[r] for r in truth.record_ids)
    tally.right += right
    tally.kept += right and owed
    if not right:
        tally.wrong.append(payment_id)
