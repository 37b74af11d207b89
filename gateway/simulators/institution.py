"""The institution: writes the file of what it recorded, from what the payers' journals hold.

A record for every payment that reached it, with a few planted disagreements. The same journals and
seed give the same file.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from gateway.simulators.clock import day_of
from gateway.simulators.dealing import Behaviour, Case, deal
from gateway.simulators.journal import Line, read_journal, replace_file
from gateway.simulators.notices import Notice, dirhams, read_notices
from gateway.simulators.pages import PAGES
from gateway.simulators.tally import PaymentTold, payments_at_page, payments_told

COLUMNS: Final = (
    "record_id",
    "reference",
    "cnss_number",
    "cin",
    "name",
    "period",
    "amount",
    "posted_on",
    "channel",
    "provider_reference",
)

NOTICES_PER_PLANT: Final = 1_000


class Plant(StrEnum):
    """A disagreement, or something that looks like one."""

    MISSING = "missing"
    DIFFERS = "differs"
    CONFLICTING = "conflicting"
    REPEATED = "repeated"
    PHANTOM = "phantom"
    TWINS = "twins"


# What each plant must open; None must open nothing.
CODES: Final[Mapping[Plant, str | None]] = {
    Plant.MISSING: "payment_without_record",
    Plant.DIFFERS: "amount_differs",
    Plant.CONFLICTING: "conflicting_record",
    Plant.REPEATED: None,
    Plant.PHANTOM: "record_without_payment",
    Plant.TWINS: None,
}
_ON_PLAIN: Final = (Plant.MISSING, Plant.DIFFERS, Plant.CONFLICTING, Plant.REPEATED)
_ON_UNPAID: Final = (Plant.PHANTOM, Plant.TWINS)


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the records file."""

    record_id: str
    notice: Notice
    amount_minor: int
    posted_on: date
    channel: str
    provider_reference: str


@dataclass(frozen=True, slots=True)
class Person:
    """What the institution has on file beside the number."""

    cin: str
    name: str


class Books:
    """The records in the making, and the journal of what was planted."""

    def __init__(self, *, seed: int) -> None:
        self._seed = seed
        self.records: list[Record] = []
        self.later: list[Record] = []
        """Lines that must come after the one they repeat or contradict."""
        self.journal: list[Line] = []

    def record_id(self, what: str) -> str:
        return "R" + hashlib.sha256(f"{self._seed}|{what}".encode()).hexdigest()[:20]

    def planted(self, plant: Plant, record: Record) -> None:
        self.journal.append(
            {
                "line": "planted",
                "code": CODES[plant],
                "plant": plant,
                "record_id": record.record_id,
                "reference": record.notice.reference,
                "amount_minor": record.amount_minor,
            }
        )

    def add_payment(self, told: PaymentTold, notice: Notice, plant: Plant | None) -> None:
        """Record a payment in full, and once more negative if it was reversed."""
        paid_at, told_at = map(datetime.fromisoformat, (told.paid_at, told.told_at))
        record = Record(
            record_id=self.record_id(f"{told.provider}|{told.payment_id}"),
            notice=notice,
            amount_minor=told.amount_minor,
            # A clerk posts today what claims to have been paid in some days.
            posted_on=day_of(min(paid_at, told_at)),
            channel=told.channel,
            provider_reference=told.payment_id,
        )
        if plant is not None:
            self._add_planted(record, plant)
            return
        self.records.append(record)
        if told.net_minor == 0:
            self.later.append(self._taken_back(record))

    def add_unpaid(self, case: Case, plant: Plant, posted_on: date) -> None:
        """Record a payment that never was; as twins, take it back at once."""
        record = Record(
            record_id=self.record_id(f"{plant}|{case.id}"),
            notice=case.notice,
            amount_minor=case.notice.amount_minor,
            posted_on=posted_on,
            channel=case.channel,
            provider_reference=f"{case.provider[:2].upper()}-{case.name('never paid')}",
        )
        self.planted(plant, record)
        self.records.append(record)
        if plant is Plant.TWINS:
            self.later.append(self._taken_back(record))

    def _taken_back(self, record: Record) -> Record:
        return replace(
            record,
            record_id=self.record_id(f"taken back|{record.record_id}"),
            amount_minor=-record.amount_minor,
        )

    def _add_planted(self, record: Record, plant: Plant) -> None:
        if plant is Plant.DIFFERS:
            record = replace(record, amount_minor=record.amount_minor + 100)
        self.planted(plant, record)
        if plant is not Plant.MISSING:
            self.records.append(record)
        if plant is Plant.REPEATED:
            self.later.append(record)
        if plant is Plant.CONFLICTING:
            self.later.append(replace(record, amount_minor=record.amount_minor + 500))


def plants(cases: Iterable[Case], *, notices: int) -> dict[str, tuple[Case, Plant]]:
    """Return which notices get a planted record, by reference, chosen by hash of the case."""
    each = 1 + notices // NOTICES_PER_PLANT
    chosen: dict[str, tuple[Case, Plant]] = {}
    ranked = sorted(cases, key=lambda case: case.name("institution"))
    for behaviour, kinds in ((Behaviour.PLAIN, _ON_PLAIN), (Behaviour.UNPAID, _ON_UNPAID)):
        fitting = [case for case in ranked if case.behaviour is behaviour]
        for number, case in enumerate(fitting[: each * len(kinds)]):
            chosen[case.notice.reference] = (case, kinds[number % len(kinds)])
    return chosen


def keep_books(notices: list[Notice], told: Iterable[PaymentTold], *, seed: int) -> Books:
    """Return what the institution recorded of the payments it was told of.

    Money under a reference that is no notice's never reaches it, nor does what was not collected.
    """
    books = Books(seed=seed)
    by_reference = {notice.reference: notice for notice in notices}
    chosen = plants(deal(notices, seed=seed), notices=len(notices))
    last_on: date | None = None
    for payment in sorted(told, key=lambda told: (told.provider, told.payment_id)):
        notice = by_reference.get(payment.reference)
        told_on = day_of(datetime.fromisoformat(payment.told_at))
        last_on = max(last_on, told_on) if last_on else told_on
        if notice is None or payment.amount_minor == 0:
            continue
        _, plant = chosen.get(notice.reference, (None, None))
        books.add_payment(payment, notice, plant)
    for case, plant in chosen.values():
        if case.behaviour is Behaviour.UNPAID and last_on is not None:
            books.add_unpaid(case, plant, last_on)
    # In the order of their ids, which is no order: nothing may depend on the providers' sequence.
    books.records.sort(key=lambda record: record.record_id)
    return books


def as_csv(books: Books, people: Mapping[str, Person]) -> str:
    """Return the records file, with its trailer: lines, sum of amounts, sum of CNSS numbers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    lines = books.records + books.later
    for record in lines:
        notice = record.notice
        person = people[notice.cnss_number]
        writer.writerow(
            [
                record.record_id,
                notice.reference,
                notice.cnss_number,
                person.cin,
                person.name,
                notice.period,
                dirhams(record.amount_minor),
                record.posted_on.isoformat(),
                record.channel,
                record.provider_reference,
            ]
        )
    amounts = sum(record.amount_minor for record in lines)
    numbers = sum(int(record.notice.cnss_number) for record in lines)
    writer.writerow(["TRAILER", len(lines), dirhams(amounts), numbers])
    return text.getvalue()


def read_people(path: Path) -> dict[str, Person]:
    """Return the institution's file of persons by CNSS number."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {
            row["cnss_number"]: Person(row["cin"], f"{row['family_name']} {row['given_name']}")
            for row in csv.DictReader(file)
        }


def main(arguments: list[str] | None = None) -> int:
    """Write the records file and the journal; return 0, or 2 if the call was wrong."""
    parser = argparse.ArgumentParser(description="Play the institution: write its records file.")
    parser.add_argument("--notices", required=True, type=Path)
    parser.add_argument("--contributors", required=True, type=Path)
    parser.add_argument("--journals", required=True, type=Path, nargs="+")
    for page in PAGES:
        parser.add_argument(f"--{page}-page", type=Path, help="the journal of that provider's page")
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--journal", required=True, type=Path)
    options = parser.parse_args(arguments)
    try:
        notices = read_notices(options.notices)
        people = read_people(options.contributors)
        told = [
            payment
            for path in options.journals
            for payment in payments_told(read_journal(path)).values()
        ]
        for page in PAGES:
            if path := getattr(options, f"{page.replace('-', '_')}_page"):
                told += payments_at_page(page, read_journal(path)).values()
        books = keep_books(notices, told, seed=options.seed)
        content = as_csv(books, people)
    except (OSError, KeyError, ValueError) as error:
        sys.stderr.write(f"institution: {error}\n")
        return 2
    planted = Counter(line["code"] for line in books.journal if line["code"])
    lines: list[Line] = [
        {"line": "records", "count": len(books.records) + len(books.later), "planted": planted},
        *books.journal,
    ]
    replace_file(options.journal, "".join(json.dumps(line) + "\n" for line in lines))
    replace_file(options.out, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
