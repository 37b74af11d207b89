"""What an invoice comes to on a day, and which payment pays which part of it: pure decisions.

Everything follows from facts that are only ever added to: the invoice, the notes on it, the reliefs
granted, and the payments with the days on which the payers handed over the money. They are gone
through in the order of those days, so it does not matter in which order we heard of them, and
nothing has to be rewritten as time goes by. On one day: first a month that has begun adds its
penalty, then what was charged or granted that day counts, then the payments.

- A credit counts from the beginning: it takes off the newest charge first, and a charge after a
  credit first puts back what the credit took, with its own due day. There and back is neutral.
- The penalty of a month is the rate of its first day times the principal that was due before it
  and was unpaid at its beginning. Exact until it is shown; one rounding, half up, for all months.
- A payment pays the principal, then the penalty, then the fees, as they are on its day. What is
  left of it pays what is charged later on the invoice.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from gateway.models import Component, LineKind

Rates = Callable[[date], Decimal]
"""The share of the unpaid principal that a month adds, by its first day."""


@dataclass(frozen=True, slots=True)
class Note:
    """A credit (negative), a charge, or a fee that came after the invoice's issue, in centimes."""

    kind: LineKind
    """ADJUSTMENT or FEE."""
    amount_minor: int
    noted_on: date
    due_on: date | None = None
    """Of a charge; None for a credit."""


@dataclass(frozen=True, slots=True)
class Relief:
    """What a remission or a plan does, from a day on; from its breach on it has never been."""

    granted_on: date
    principal_rate: Decimal = Decimal(0)
    penalty_rate: Decimal = Decimal(0)
    fee_rate: Decimal = Decimal(0)
    stops_penalty: bool = False
    """On what had been charged by then; what is charged later grows as ever."""
    ended_on: date | None = None


@dataclass(frozen=True, slots=True)
class Bill:
    """The facts about one invoice. Notes in the order in which they were made."""

    amount_minor: int
    due_on: date
    notes: Sequence[Note] = ()
    reliefs: Sequence[Relief] = ()
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """A payment that may pay this invoice: how much of it, at most, in centimes."""

    key: Hashable
    paid_on: date
    """When the payer handed the money over: the provider's word, as a day in Casablanca."""
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Placed:
    """What of a claim pays which part of the invoice, in centimes."""

    key: Hashable
    component: Component
    amount_minor: int


@dataclass(slots=True)
class _Part:
    """One part of what is owed, as the days go by, in centimes."""

    charged: int = 0
    paid: int = 0
    remitted: int = 0

    @property
    def unpaid(self) -> int:
        return max(self.charged - self.paid - self.remitted, 0)


@dataclass(frozen=True, slots=True)
class Balance:
    """An invoice on a day, in centimes. Dues are never negative."""

    principal_minor: int
    """Of the invoice and its notes; fees and penalty apart."""
    penalty_minor: int
    """Come up so far, before remissions."""
    fee_minor: int
    remitted_minor: dict[Component, int]
    paid_minor: int
    due: dict[Component, int]
    owed_minor: int
    """What it comes to if no more time goes by: as `Invoice.owed_minor`."""
    penalty_months: int
    """How many months have added to the penalty."""
    payable_by: date | None
    """The first day by which some of the principal that is unpaid was or is to be paid; None
    where none is unpaid."""
    placed: tuple[Placed, ...]
    left: dict[Hashable, int] = field(default_factory=dict)
    """What of each claim nothing here needs."""

    @property
    def due_minor(self) -> int:
        """What paying on that day would settle."""
        return sum(self.due.values())


@dataclass(frozen=True, slots=True)
class _Charge:
    amount_minor: int
    due_on: date
    known_on: date


_CENTIME: Final = Decimal(1)


def balance(bill: Bill, claims: Iterable[Claim], rates: Rates, on: date) -> Balance:
    """Return what an invoice comes to on a day, as known by then.

    What is dated after `on` (notes, reliefs, payments) is left out.

    Args:
        bill: The invoice.
        claims: The payments that may pay it; those of one day in the order given.
        rates: The penalty rule of its category.
        on: The day.
    """
    if bill.cancelled:
        left = {claim.key: claim.amount_minor for claim in claims if claim.paid_on <= on}
        return Balance(0, 0, 0, {}, 0, dict.fromkeys(Component, 0), 0, 0, None, (), left)
    account = _Account(bill, rates, on)
    events: list[tuple[date, int, Relief | _Charge | Claim]] = [
        *((r.granted_on, 1, r) for r in account.reliefs),
        *((c.known_on, 0, c) for c in (*account.charges, *account.fees)),
        *((c.paid_on, 2, c) for c in claims if c.paid_on <= on),
    ]
    for day, _, event in sorted(events, key=lambda each: each[:2]):
        account.pass_time(day)
        match event:
            case _Charge():
                account.charge(event)
            case Relief():
                account.relieve(event)
            case Claim():
                account.pay(event)
    account.pass_time(on)
    return account.result()


def without_credits(bill: Bill, on: date) -> Bill:
    """Return a bill as it is known on a day, less what credits took off: there is none left.

    Credits count from the beginning, so this is what to ask for days before they were made.
    """
    known = [note for note in bill.notes if note.noted_on <= on]
    first = _Charge(bill.amount_minor, bill.due_on, date.min)
    charges = _charges([first], [note for note in known if note.kind is LineKind.ADJUSTMENT])
    fees = _charges([], [note for note in known if note.kind is LineKind.FEE])
    later = [(LineKind.ADJUSTMENT, c) for c in charges if c.known_on > date.min]
    later += [(LineKind.FEE, c) for c in fees]
    notes = [Note(kind, c.amount_minor, c.known_on, c.due_on) for kind, c in later]
    amount_minor = sum(c.amount_minor for c in charges if c.known_on == date.min)
    return replace(bill, amount_minor=amount_minor, notes=notes)


class _Account:
    """One invoice while the days go by."""

    def __init__(self, bill: Bill, rates: Rates, on: date) -> None:
        known = [note for note in bill.notes if note.noted_on <= on]
        first = _Charge(bill.amount_minor, bill.due_on, date.min)
        self.charges: Final = _charges(
            [first], [note for note in known if note.kind is LineKind.ADJUSTMENT]
        )
        self.fees: Final = _charges([], [note for note in known if note.kind is LineKind.FEE])
        self.reliefs: Final = [
            r
            for r in bill.reliefs
            if r.granted_on <= on and (r.ended_on is None or on < r.ended_on)
        ]
        self._rates: Final = rates
        self._parts: Final = {component: _Part() for component in Component}
        self._accrued = Decimal(0)
        self._months = 0
        self._next_month = _month_after(min((c.due_on for c in self.charges), default=bill.due_on))
        self._placed: list[Placed] = []
        self._left: dict[Hashable, int] = {}

    def pass_time(self, day: date) -> None:
        """Add the penalty of each month that has begun by a day."""
        principal = self._parts[Component.PRINCIPAL]
        while self._next_month <= day:
            month = self._next_month
            self._next_month = _month_after(month)
            due = [c for c in self.charges if c.due_on < month]
            unpaid = sum(c.amount_minor for c in due) - principal.paid - principal.remitted
            stops = [r.granted_on for r in self.reliefs if r.stops_penalty]
            stopped_on = max((day for day in stops if day <= month), default=date.min)
            if stopped_on > date.min:
                # Money pays the oldest first, so what is unpaid of the later ones is unpaid last.
                later = sum(c.amount_minor for c in due if c.known_on > stopped_on)
                unpaid = min(unpaid, later)
            if unpaid > 0:
                self._accrued += self._rates(month) * unpaid
                self._months += 1
        penalty = int(self._accrued.quantize(_CENTIME, rounding=ROUND_HALF_UP))
        self._parts[Component.PENALTY].charged = penalty

    def charge(self, charge: _Charge) -> None:
        """Count a charge; what is left of earlier payments pays it."""
        fee = any(charge is each for each in self.fees)
        self._parts[Component.FEE if fee else Component.PRINCIPAL].charged += charge.amount_minor
        for key, left in list(self._left.items()):
            self._place(key, left)

    def relieve(self, relief: Relief) -> None:
        """Remit the granted shares of what is unpaid now."""
        for component, share in (
            (Component.PRINCIPAL, relief.principal_rate),
            (Component.PENALTY, relief.penalty_rate),
            (Component.FEE, relief.fee_rate),
        ):
            part = self._parts[component]
            exact = share * part.unpaid
            part.remitted += int(exact.quantize(_CENTIME, rounding=ROUND_HALF_UP))

    def pay(self, claim: Claim) -> None:
        self._place(claim.key, claim.amount_minor)

    def _place(self, key: Hashable, left: int) -> None:
        for component, part in self._parts.items():
            taken = min(left, part.unpaid)
            if taken:
                part.paid += taken
                left -= taken
                self._placed.append(Placed(key, component, taken))
        self._left[key] = left

    def result(self) -> Balance:
        parts = self._parts
        due = {component: part.unpaid for component, part in parts.items()}
        paid = sum(part.paid for part in parts.values())
        owed = paid + due[Component.PRINCIPAL] + due[Component.FEE]
        if due[Component.PRINCIPAL] == 0:
            owed += due[Component.PENALTY]
        return Balance(
            principal_minor=parts[Component.PRINCIPAL].charged,
            penalty_minor=parts[Component.PENALTY].charged,
            fee_minor=parts[Component.FEE].charged,
            remitted_minor={c: part.remitted for c, part in parts.items() if part.remitted},
            paid_minor=paid,
            due=due,
            owed_minor=owed,
            penalty_months=self._months,
            payable_by=self._payable_by(),
            placed=tuple(self._placed),
            left=dict(self._left),
        )

    def _payable_by(self) -> date | None:
        """Return the day of the first charge that is not wholly paid: money pays the oldest."""
        principal = self._parts[Component.PRINCIPAL]
        covered = principal.paid + principal.remitted
        for charge in sorted(self.charges, key=lambda each: each.due_on):
            covered -= charge.amount_minor
            if covered < 0:
                return charge.due_on
        return None


def _charges(charges: list[_Charge], notes: Iterable[Note]) -> list[_Charge]:
    """Return what is charged after all notes: credits off the newest, charges back first."""
    stands, taken_off = list(charges), list[_Charge]()
    for note in notes:
        if note.amount_minor < 0:
            left = -note.amount_minor
            while left and stands:
                left -= _shift(stands, taken_off, left)
            assert left == 0, "a credit beyond what is charged"
        else:
            left = note.amount_minor
            while left and taken_off:
                left -= _shift(taken_off, stands, left)
            if left:
                stands.append(_Charge(left, note.due_on or note.noted_on, note.noted_on))
    return stands


def _shift(source: list[_Charge], target: list[_Charge], at_most: int) -> int:
    """Move up to so many centimes of the last charge to the other stack; return how many."""
    last = source.pop()
    moved = min(last.amount_minor, at_most)
    if moved < last.amount_minor:
        source.append(_Charge(last.amount_minor - moved, last.due_on, last.known_on))
    if target and (target[-1].due_on, target[-1].known_on) == (last.due_on, last.known_on):
        moved_before = target.pop().amount_minor
    else:
        moved_before = 0
    target.append(_Charge(moved_before + moved, last.due_on, last.known_on))
    return moved


def _month_after(day: date) -> date:
    """Return the first day of the month after a day's."""
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)
