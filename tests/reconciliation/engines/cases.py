"""Hand-made worlds for each line of `docs/matching.md`, with the outcome that it demands.

Each case has references, numbers and ids of its own, so that all are matched together, at once, and
each still says what it would say alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, Final

from gateway.references import with_check_digits
from tests.reconciliation.engines.facts import A_DAY, Row

Making = Callable[["World"], None]


@dataclass
class World:
    """The rows of one case. Facts are made of the case's name, and the same in every run."""

    name: str
    payments: list[Row] = field(default_factory=list)
    records: list[Row] = field(default_factory=list)

    def reference(self, which: int = 0, fit: Callable[[str], object] = bool) -> str:
        """Return one that verifies and fits: there are as many as are asked for."""
        rng = self._seeded(f"reference {which}")
        while True:
            reference = with_check_digits(rng.randrange(10**9, 10**10))
            if fit(reference):
                return reference

    def k(self, which: int = 0) -> int:
        return int(self.reference(which))

    def cnss(self, which: int = 0) -> str:
        return f"{self._seeded(f'cnss {which}').randrange(10**8, 10**9)}"

    def cin(self, which: int = 0) -> str:
        return f"AB{self._seeded(f'cin {which}').randrange(10**5, 10**6)}"

    def _seeded(self, what: str) -> Random:
        return Random(f"{self.name} {what}")  # noqa: S311 - the same in every run

    def pay(self, id_: str, a: int = 10_000, day: int = 0, **facts: Any) -> None:
        self.payments.append(self._row(id_, a, day, facts))

    def rec(self, id_: str, a: int = 10_000, day: int = 0, **facts: Any) -> None:
        self.records.append(self._row(id_, a, day, facts))

    def _row(self, id_: str, a: int, day: int, facts: dict[str, Any]) -> Row:
        provref = facts.pop("provref", None)
        return Row(
            id=f"{self.name}/{id_}",
            a=a,
            d=A_DAY + timedelta(days=day),
            provref=provref and f"{self.name} {provref}",
            **facts,
        )


@dataclass(frozen=True)
class Case:
    world: World
    lines: list[str]
    """As `Outcome.lines` says them, without the case's name."""


CASES: Final[dict[str, Case]] = {}


def add(name: str, making: Making, *lines: str) -> None:
    assert name not in CASES
    world = World(name)
    making(world)
    CASES[name] = Case(world, sorted(lines))


def case(*lines: str) -> Callable[[Making], Making]:
    """Make a case of a function: it fills a world, and these lines must come of it."""

    def adding(making: Making) -> Making:
        add(making.__name__, making, *lines)
        return making

    return adding


def pair_of(
    rule: str, score: int, *, relation: str | None = None, person: int = 0, name: int = 0,
    amount: int = 6, days: int = 0,
) -> str:  # fmt: skip
    """Return the line of a pair p = r with its evidence."""
    related = f"relation={relation} " if relation else ""
    return f"p = r: {rule} {score} {related}person={person} name={name} amount={amount} days={days}"


OPEN: Final = ("p: payment_without_record", "r: record_without_payment")
DOUBTED: Final = ("p: ambiguous_match r", "r: record_without_payment")
"""A payment that is one slip from the record's reference, when something speaks against it."""

# -- pass 0: taken back ---------------------------------------------------------------------------


@case("r: taken_back r-", "r-: taken_back r", "p: payment_without_record")
def a_negative_record_takes_back(w: World) -> None:
    w.pay("p", k=w.k())
    w.rec("r", k=w.k())
    w.rec("r-", -10_000, k=w.k())


@case("r1: taken_back r-", "r-: taken_back r1", "p = r2: exact 100")
def what_is_posted_anew_is_paid(w: World) -> None:
    w.pay("p", k=w.k())
    w.rec("r1", k=w.k())
    w.rec("r-", -10_000, day=1, k=w.k())
    w.rec("r2", day=2, k=w.k())


@case("r-: record_without_payment", "p = r: exact 100")
def a_negative_record_of_another_amount_takes_back_nothing(w: World) -> None:
    w.pay("p", k=w.k())
    w.rec("r", k=w.k())
    w.rec("r-", -9_000, k=w.k())


# -- pass 1: alone of its reference ---------------------------------------------------------------


for _how, _line in {
    (0, 0): "p = r: exact 100",
    (1, 0): "p = r: normalised_reference 99",
    (0, 1): "p = r: normalised_reference 99",
    (2, 1): "p = r: reference_in_text 98",
    (0, 2): "p = r: reference_in_text 98",
}.items():

    def _written(w: World, how: tuple[int, int] = _how) -> None:
        w.pay("p", k=w.k(), how=how[0])
        w.rec("r", k=w.k(), how=how[1])

    add(f"equal amounts, written as {_how}", _written, _line)

for _more, _lines in {
    5: ["p = r: within_tolerance 97"],
    -5: ["p = r: within_tolerance 97"],
    6: ["p: amount_differs r", "r: amount_differs p"],
    -6: ["p: amount_differs r", "r: amount_differs p"],
}.items():

    def _differing(w: World, more: int = _more) -> None:
        w.pay("p", 10_000 + more, k=w.k(), how=2)
        w.rec("r", k=w.k())

    add(f"one reference, {_more} centimes more", _differing, *_lines)


# -- pass 2: several of one reference -------------------------------------------------------------


@case("p1 = r2: exact 100", "p2 = r1: exact 100")
def equal_amounts_by_the_providers_reference(w: World) -> None:
    w.pay("p1", k=w.k(), provref="XY0002", cnss=w.cnss(1))
    w.pay("p2", k=w.k(), provref="XY0001", cnss=w.cnss(2))
    w.rec("r1", k=w.k(), provref="XY0001", cnss=w.cnss(1))
    w.rec("r2", k=w.k(), provref="XY0002", cnss=w.cnss(2))


@case("p1 = r2: exact 100", "p2 = r1: exact 100")
def equal_amounts_by_the_cnss_number(w: World) -> None:
    w.pay("p1", k=w.k(), cnss=w.cnss(2), cin=w.cin(1))
    w.pay("p2", k=w.k(), cnss=w.cnss(1), cin=w.cin(2))
    w.rec("r1", k=w.k(), cnss=w.cnss(1), cin=w.cin(1))
    w.rec("r2", k=w.k(), cnss=w.cnss(2), cin=w.cin(2))


@case("p1 = r2: exact 100", "p2 = r1: exact 100")
def equal_amounts_by_the_card(w: World) -> None:
    w.pay("p1", k=w.k(), cin=w.cin(2))
    w.pay("p2", k=w.k(), cin=w.cin(1))
    w.rec("r1", k=w.k(), cin=w.cin(1))
    w.rec("r2", k=w.k(), cin=w.cin(2))


@case("p2 = r: exact 100", "p1: paid_twice")
def equal_amounts_by_the_name(w: World) -> None:
    w.pay("p1", day=-9, k=w.k(), tokens=["hjj", "shm"])
    w.pay("p2", k=w.k(), tokens=["brd", "khdj"])
    w.rec("r", k=w.k(), cnss=w.cnss(), tokens=["brd", "khdj"])


@case("p1 = r2: normalised_reference 99", "p2 = r1: exact 100", "p3: paid_twice")
def equal_amounts_by_day_then_id(w: World) -> None:
    w.pay("p3", day=2, k=w.k())
    w.pay("p2", k=w.k())
    w.pay("p1", day=1, k=w.k(), how=1)
    w.rec("r1", day=1, k=w.k())
    w.rec("r2", day=2, k=w.k())


@case("p1 = r1: exact 100", "p2 = r2: within_tolerance 97")
def one_and_one_are_left_of_a_reference(w: World) -> None:
    w.pay("p1", k=w.k())
    w.pay("p2", 20_005, k=w.k())
    w.rec("r1", k=w.k())
    w.rec("r2", 20_000, k=w.k())


@case("p1+p2+p3 = r: instalments 96")
def several_payments_for_one_record(w: World) -> None:
    for n, a in enumerate((5_000, 3_000, 2_005), 1):
        w.pay(f"p{n}", a, k=w.k())
    w.rec("r", k=w.k())


@case("p1: ambiguous_match r", "p2: ambiguous_match r", "r: ambiguous_match p1 p2")
def several_payments_of_another_sum(w: World) -> None:
    w.pay("p1", 5_000, k=w.k())
    w.pay("p2", 5_006, k=w.k())
    w.rec("r", k=w.k())


@case("p = r1+r2: several_records 96")
def several_records_for_one_payment(w: World) -> None:
    w.pay("p", k=w.k())
    w.rec("r1", 4_000, k=w.k())
    w.rec("r2", 6_000, k=w.k())


@case(
    "p1: ambiguous_match r1 r2", "p2: ambiguous_match r1 r2",
    "r1: ambiguous_match p1 p2", "r2: ambiguous_match p1 p2",
)  # fmt: skip
def several_on_both_sides(w: World) -> None:
    w.pay("p1", 4_000, k=w.k())
    w.pay("p2", 6_000, k=w.k())
    w.rec("r1", 3_000, k=w.k())
    w.rec("r2", 7_000, k=w.k())


@case("p1 = r: exact 100", "p2: paid_twice")
def a_due_paid_twice(w: World) -> None:
    w.pay("p2", 9_000, k=w.k())
    w.pay("p1", k=w.k(), day=3)
    w.rec("r", k=w.k())


# -- pass 3: the provider's reference -------------------------------------------------------------


@case("p = r: provider_reference 97")
def a_providers_reference(w: World) -> None:
    w.pay("p", 10_005, provref="XY0001", k=w.k(1))
    w.rec("r", provref="XY0001", k=w.k(2))


@case("p: payment_without_record", "q: payment_without_record", "r: record_without_payment")
def a_providers_reference_of_two_payments(w: World) -> None:
    w.pay("p", provref="XY0001")
    w.pay("q", 20_000, provref="XY0001")
    w.rec("r", provref="XY0001")


@case(*OPEN)
def a_providers_reference_with_another_amount(w: World) -> None:
    w.pay("p", 10_006, provref="XY0001")
    w.rec("r", provref="XY0001")


@case("p: amount_differs s", "s: amount_differs p", "r: record_without_payment")
def a_providers_reference_against_a_known_reference(w: World) -> None:
    w.pay("p", provref="XY0001", k=w.k(1))
    w.rec("r", provref="XY0001", k=w.k(2))
    w.rec("s", 20_000, k=w.k(1))


# -- pass 4: several references in one text -------------------------------------------------------


@case("p = r1+r2: references_in_text 96")
def both_references(w: World) -> None:
    w.pay("p", 20_005, ks=sorted((w.k(1), w.k(2))), how=2)
    w.rec("r1", k=w.k(1))
    w.rec("r2", k=w.k(2))


@case("p = r1: reference_in_text 90", "r2: record_without_payment")
def one_reference_of_two(w: World) -> None:
    w.pay("p", 9_995, ks=sorted((w.k(1), w.k(2))), how=2)
    w.rec("r1", k=w.k(1))
    w.rec("r2", 20_000, k=w.k(2))


@case("p: amount_differs r1 r2", "r1: amount_differs p", "r2: amount_differs p")
def either_reference_of_two(w: World) -> None:
    w.pay("p", ks=sorted((w.k(1), w.k(2))), how=2)
    w.rec("r1", k=w.k(1))
    w.rec("r2", k=w.k(2))


@case(
    "p1: ambiguous_match r1 r2", "p2: ambiguous_match r2 r3",
    "r1: ambiguous_match p1", "r2: ambiguous_match p1 p2", "r3: ambiguous_match p2",
)  # fmt: skip
def a_record_that_two_texts_want(w: World) -> None:
    w.pay("p1", 20_000, ks=sorted((w.k(1), w.k(2))), how=2)
    w.pay("p2", 20_000, ks=sorted((w.k(2), w.k(3))), how=2)
    for n in (1, 2, 3):
        w.rec(f"r{n}", k=w.k(n))
