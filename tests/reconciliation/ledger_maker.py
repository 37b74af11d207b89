"""People with debts, and the two ledgers that are made of them. Nothing of the product."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from random import Random
from typing import Final

from tests.reconciliation import people
from tests.reconciliation.ledger_rows import Expect, Ledger, Payment, Record, Truth
from tests.reconciliation.people import Person

# fmt: off
RATES: Final = (
    [16_352] * 40 + [21_803] * 12 + [30_000] * 30 + [39_000] * 8 + [43_605] * 4 + [65_408] * 3
    + [87_211] * 2 + [130_816]
)
# fmt: on
CHANNELS: Final = ["cash_agent", "kiosk", "wallet", "card", "transfer"]
DUE_DAYS: Final = {
    "2026-08": date(2026, 8, 31),
    "2026-09": date(2026, 9, 30),
    "2026-10": date(2026, 10, 31),
    "2026-11": date(2026, 11, 30),
}


@dataclass(frozen=True, slots=True)
class Mix:
    """How a ledger is made up; all shares from 0 to 1."""

    defects: float = 0.06
    """Share of the debts that are of another kind than `exact`."""
    weights: tuple[tuple[str, float], ...] = ()
    """Kinds by prefix, how often against each other; a longer prefix wins; others weigh 1."""
    flat_minor: int | None = None
    one_day: bool = False
    cnss_number: float = 0.5
    cin: float = 0.5
    name: float = 0.9
    """Shares of payments that say so."""
    as_heard: float = 0.15
    """Share of names that are written in another way."""
    names: int = 40
    """How many given and family names there are."""
    sequential: bool = False
    """References in sequence, so that those near a slip exist."""
    bare_records: float = 0.03
    """Share of records without a card number."""

    def weight(self, kind: str) -> float:
        found = [(len(prefix), w) for prefix, w in self.weights if kind.startswith(prefix)]
        return max(found)[1] if found else 1.0


class Maker:
    """Makes a ledger: people with a debt for each of some months, then what happens to each."""

    def __init__(self, mix: Mix, count: int, seed: int) -> None:
        self.mix = mix
        self.rng = Random(seed)  # noqa: S311 - seeded on purpose: a ledger must come again
        self.ledger = Ledger()
        self.people: list[Person] = []
        self.debts: dict[tuple[int, str], Record] = {}
        """Those that no payment has dealt with yet, by person and month."""
        self._payload = 1_482_750_361
        self._numbers: set[str] = set()
        while len(self.debts) < count:
            self._enrol(count)

    def make(self, makers: Mapping[str, Kind]) -> Ledger:
        kinds = [kind for kind in makers if self.mix.weight(kind)]
        weights = [self.mix.weight(kind) for kind in kinds]
        order = list(self.debts)
        self.rng.shuffle(order)
        for key in order:
            debt = self.debts.pop(key, None)
            if debt is None:
                continue
            kind = "exact"
            if self.rng.random() < self.mix.defects:
                kind = self.rng.choices(kinds, weights)[0]
            makers[kind](self, kind, debt)
        self.rng.shuffle(self.ledger.payments)
        self.rng.shuffle(self.ledger.records)
        return self.ledger

    def _enrol(self, count: int) -> None:
        rng, before = self.rng, self.people[-1] if self.people else None
        given = rng.choice(people.GIVEN[: self.mix.names])
        cin, family = people.card(rng), rng.choice(people.FAMILY[: self.mix.names])
        dues = self.mix.flat_minor or rng.choice(RATES)
        if before and rng.random() < 0.05 and given != before.given:  # a brother or a sister
            family, dues = before.family, before.dues_minor
            cin = before.cin[:-1] + str((int(before.cin[-1]) + 1) % 10)
        person = Person(self._number(), cin, given, family, dues)
        self.people.append(person)
        months = rng.sample(sorted(DUE_DAYS), rng.choice([1, 2, 3, 3, 4]))
        for period in sorted(months)[: count - len(self.debts)]:
            self.debts[len(self.people) - 1, period] = self._debt(len(self.people) - 1, period)

    def _number(self) -> str:
        while (number := people.cnss_number(self.rng)) in self._numbers:
            pass
        self._numbers.add(number)
        return number

    def reference(self) -> str:
        if self.mix.sequential:
            self._payload += 1
            return people.reference(self._payload)
        while (text := people.reference(self.rng.randint(10**9, 10**10 - 1))) in self._numbers:
            pass
        self._numbers.add(text)
        return text

    def _debt(self, owner: int, period: str) -> Record:
        person, rng = self.people[owner], self.rng
        day = DUE_DAYS[period]
        if not self.mix.one_day:
            day -= timedelta(days=min(25, abs(int(rng.gauss(0, 6)))))
        name = person.name
        if rng.random() < 0.1:
            name = f"{person.family[1]} {person.given[1]}"
        return Record(
            record_id="",
            reference=self.reference(),
            cnss_number=person.cnss_number,
            cin="" if rng.random() < self.mix.bare_records else person.cin,
            name=name,
            period=period,
            amount_minor=person.dues_minor,
            posted_on=day,
            channel=rng.choice(CHANNELS),
            provider_reference="",
            owner=owner,
        )

    def post(self, debt: Record, **changes: object) -> Record:
        """The institution's record of the debt, as its clerk wrote it."""
        record = replace(debt, record_id=f"R{len(self.ledger.records):08d}")
        for column, value in changes.items():
            setattr(record, column, value)
        self.ledger.records.append(record)
        return record

    def pay(
        self, what: str, debt: Record, expect: Expect, *records: Record, **changes: object
    ) -> Payment:
        """A payment of the debt's payer; `changes` are its columns."""
        rng, mix, person = self.rng, self.mix, self.people[debt.owner]
        name = person.name if rng.random() >= mix.as_heard else people.as_heard(rng, person)
        payment = Payment(
            payment_id=f"P{len(self.ledger.payments):08d}",
            reference=debt.reference,
            cnss_number=person.cnss_number if rng.random() < mix.cnss_number else "",
            cin=person.cin if rng.random() < mix.cin else "",
            name=name if rng.random() < mix.name else "",
            amount_minor=debt.amount_minor,
            paid_on=debt.posted_on - timedelta(days=rng.choice([0, 0, 0, 1, 1, 2, 3])),
            channel=debt.channel,
            provider_reference=f"TX{rng.getrandbits(40):012d}",
        )
        for column, value in changes.items():
            setattr(payment, column, value)
        self.ledger.payments.append(payment)
        ids = tuple(record.record_id for record in records)
        self.ledger.truth[payment.payment_id] = Truth(what, expect, ids)
        return payment

    def known(self, debt: Record) -> dict[str, str]:
        """The payer's own numbers, one of them or both."""
        person = self.people[debt.owner]
        gives = self.rng.choice(["cnss_number", "cin", "both"]) if debt.cin else "cnss_number"
        return {
            "cnss_number": person.cnss_number if gives != "cin" else "",
            "cin": person.cin if gives != "cnss_number" else "",
        }

    def others(self, debt: Record, most: int) -> list[Record]:
        """Take up to so many more debts of the same person."""
        keys = [(debt.owner, period) for period in DUE_DAYS if (debt.owner, period) in self.debts]
        return [self.debts.pop(key) for key in keys[:most]]

    def household(self, debt: Record, most: int) -> list[Record]:
        """Take debts of the same month of the people enrolled next to the payer."""
        keys = [(debt.owner + n, debt.period) for n in (-2, -1, 1, 2)]
        return [self.debts.pop(key) for key in keys if key in self.debts][:most]

    def parts(self, minor: int) -> list[int]:
        """Instalments: of any size, or round ones and the rest."""
        number = self.rng.choice([2, 2, 3, 4])
        if self.rng.random() < 0.5 and minor > 10_000:
            return [minor // 2_000 * 1_000, minor - minor // 2_000 * 1_000]
        cuts = sorted(self.rng.sample(range(100, minor - 100), number - 1))
        return [high - low for low, high in zip([0, *cuts], [*cuts, minor], strict=True)]


Kind = Callable[[Maker, str, Record], None]
