"""Cases of passes 5 and 6: texts that do not verify, and what they say beside the amount."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.reconciliation.engines.cases import DOUBTED, OPEN, World, add, case, pair_of

Slip = Callable[[str], str | None]

SLIPS: Final[dict[str, Slip]] = {
    "one wrong": lambda t: t[:5] + str((int(t[5]) + 3) % 10) + t[6:],
    "the first wrong": lambda t: "0" + t[1:],
    "neighbours swapped": lambda t: t[:4] + t[5] + t[4] + t[6:] if t[4] != t[5] else None,
    "abc for cba": lambda t: t[:9] + t[9:][::-1] if t[9] != t[11] else None,
    "aa for bb": lambda t: t[:7] + "33" + t[9:] if t[7] == t[8] != "3" else None,
    "aba for cbc": lambda t: t[:2] + "5" + t[3] + "5" + t[5:] if t[2] == t[4] != "5" else None,
    "thirty for thirteen": lambda t: t[:6] + t[7] + "0" + t[8:] if t[6] == "1" < t[7] else None,
    "thirteen for thirty": lambda t: t[:6] + "1" + t[6] + t[8:] if t[6] > "1" > t[7] else None,
    "one missing": lambda t: t[:6] + t[7:],
    "the last missing": lambda t: t[:11],
    "one too many": lambda t: t[:6] + "4" + t[6:],
    **{
        f"groups {order}": lambda t, order=order: "".join(  # type: ignore[misc]
            (t[:4], t[4:8], t[8:])[int(group)] for group in order
        )
        for order in ("021", "102", "210", "120", "201")
    },
}
NO_SLIPS: Final[dict[str, Slip]] = {
    "two wrong": lambda t: f"{t[:2]}{9 - int(t[2])}{t[3:8]}{9 - int(t[8])}{t[9:]}",
    "aa for bc": lambda t: t[:7] + "33" + t[9:] if len({t[7], t[8], "3"}) == 3 else None,
    "abc for dbe": lambda t: (
        t[:2] + "5" + t[3] + "5" + t[5:] if len({t[2], t[4], "5"}) == 3 else None
    ),
    "two missing": lambda t: t[:3] + t[4:8] + t[9:],
    "two too many": lambda t: f"{t[:3]}7{t[3:9]}7{t[9:]}",
}

for _name, _slip in SLIPS.items():

    def _paid(w: World, slip: Slip = _slip) -> None:
        reference = w.reference(fit=lambda t: slip(t) not in (None, t))
        w.pay("p", 10_005, digits=slip(reference))
        w.rec("r", k=int(reference))

    def _posted(w: World, slip: Slip = _slip) -> None:
        reference = w.reference(fit=lambda t: slip(t) not in (None, t))
        w.pay("p", 9_995, day=-4, k=int(reference))
        w.rec("r", digits=slip(reference))

    add(
        f"paid with {_name}",
        _paid,
        pair_of("repaired_reference", 74, relation="slip", amount=5),
    )
    add(
        f"posted with {_name}",
        _posted,
        pair_of("repaired_reference", 73, relation="slip", amount=5, days=4),
    )

for _name, _slip in NO_SLIPS.items():

    def _no_slip(w: World, slip: Slip = _slip) -> None:
        reference = w.reference(fit=slip)
        w.pay("p", digits=slip(reference))
        w.rec("r", k=int(reference))

    add(f"no slip: {_name}", _no_slip, *OPEN)


def wrong(w: World, which: int = 0, place: int = 5) -> str:
    """Return a reference of the world with one wrong digit."""
    t = w.reference(which)
    return t[:place] + str((int(t[place]) + 3) % 10) + t[place + 1 :]


# -- which pairs are plausible --------------------------------------------------------------------


@case(*DOUBTED)
def a_slip_with_another_amount(w: World) -> None:
    w.pay("p", 10_006, digits=wrong(w))
    w.rec("r", k=w.k())


@case(*DOUBTED)
def a_slip_of_another_person(w: World) -> None:
    w.pay("p", digits=wrong(w), cnss=w.cnss(1))
    w.rec("r", k=w.k(), cnss=w.cnss(2))


# Both sides' numbers, and what it is worth; None where the pair is not plausible.
PEOPLE: Final = (
    ("123456789", None, "123456789", None, 8),
    ("123456789", "AB1234", "123456789", "AB1234", 16),
    ("123456789", "AB1234", "123456780", "AB1234", 12),
    ("123456789", None, "12345678", None, 4),
    ("123456789", None, "1234567890", None, 4),
    ("123456789", None, "123456798", None, 4),
    ("123456789", None, "213456789", None, 4),
    ("123456789", None, "123456897", None, None),
    ("123456789", None, "123456700", None, None),
    ("123456789", None, "1234567", None, None),
    ("123456789", "AB1234", "123456789", "AB9876", 0),
    ("123456789", "AB1234", "123456780", "AB9876", None),
    ("123456789", None, None, "AB1234", 0),
)
for _n, (_cnss_p, _cin_p, _cnss_r, _cin_r, _points) in enumerate(PEOPLE):

    def _with_numbers(w: World, numbers: tuple[str | None, ...] = PEOPLE[_n][:4]) -> None:
        # The numbers are the same in all of these cases: what is not related must be far apart.
        w.pay("p", digits=wrong(w), cnss=numbers[0], cin=numbers[1])
        w.rec("r", k=w.k(), cnss=numbers[2], cin=numbers[3])

    add(
        f"people {_n}",
        _with_numbers,
        *(
            DOUBTED
            if _points is None
            else [pair_of("repaired_reference", 75 + _points, relation="slip", person=_points)]
        ),
    )

NAMES: Final = (
    ("ftm lmrn", "ftm lmrn", 4),
    ("ftm lmrn", "bnn ftm lmrn", 4),
    ("bnn ftm lmrn", "ftm lmrn", 4),
    ("f ftm lmrn", "bnn ftm lmrn", 2),
    ("b ftm lmrn", "bnn ftm lmrn", 4),
    ("fm lmrn", "ftm lmrn", 4),
    ("ftm lmrn", "fm lmr", 4),
    ("hmd lmrn", "mhmd lmrn", 2),
    ("f_ lmrn", "f lmrn", 4),
    ("ft lmrn", "f_ lmrn", 2),
    ("bnn ftm lmrn", "b ftm lmrn", 4),
    ("f lmrn", "ftm lmrn", 4),
    ("ftm lmrn", "ftm lmrm", 2),
    ("ftm lmrn zhr", "ftm lmrn zhr", 4),
    ("f lmrn zhr", "ftm lmrn zhr", 4),
    ("f ftm zhr", "ftm lmrn zhr", 2),
    ("ftm zhr", "ftm lmrn", 2),
    ("f zhr", "ftm lmrn", -2),
    ("zhr", "ftm lmrn", -2),
    ("ftm", "ftm lmrn", 2),
    ("ftm", "ftm", 2),
    ("ftm ftm", "ftm ftm", 4),
    ("lmrn lmrm", "lmrn zhr", 2),
    ("", "ftm", 0),
    ("ftm", "", 0),
)
for _n, (_mine, _theirs, _points) in enumerate(NAMES):

    def _with_names(w: World, names: tuple[str, str] = (_mine, _theirs)) -> None:
        mine, theirs = (sorted(name.split()) or None for name in names)
        w.pay("p", digits=wrong(w), tokens=mine)
        w.rec("r", k=w.k(), tokens=theirs)

    add(
        f"names {_mine!r} and {_theirs!r}",
        _with_names,
        pair_of("repaired_reference", 75 + _points, relation="slip", name=_points),
    )

for _days, _points in {3: 3, -3: 3, 4: 2, 10: 2, 11: 1, -31: 1, 32: 0, 400: 0}.items():

    def _with_days(w: World, days: int = _days) -> None:
        w.pay("p", digits=wrong(w))
        w.rec("r", day=days, k=w.k())

    add(
        f"{_days} days later",
        _with_days,
        pair_of("repaired_reference", 72 + _points, relation="slip", days=abs(_days)),
    )

# Digits of a part; points; days; whether by the person; plausible or not.
for _name, _part, _points, _days, _person, _plausible in (
    ("ten first", slice(0, 10), 4, 400, False, True),
    ("ten last", slice(2, 12), 4, 400, False, True),
    ("nine first", slice(0, 9), 3, 400, False, True),
    ("eight last", slice(4, 12), 3, 400, False, True),
    ("eight of the middle", slice(2, 10), 3, 0, True, False),
    ("seven first", slice(0, 7), 1, 31, True, True),
    ("six last", slice(6, 12), 1, 31, True, True),
    ("seven first, nobody known", slice(0, 7), 1, 0, False, False),
    ("six last, too late", slice(6, 12), 1, 32, True, False),
):

    def _with_part(
        w: World, part: slice = _part, days: int = _days, person: bool = _person
    ) -> None:
        # Of an equal number and another card: the sum of the person is zero, of a slip it is four.
        other = w.cnss()[:-2] + w.cnss()[-2:][::-1] if w.cnss()[-1] != w.cnss()[-2] else None
        known = (w.cnss(), other or "1" + w.cnss()) if person else (None, None)
        w.pay("p", digits=w.reference()[part], cnss=known[0])
        w.rec("r", day=days, k=w.k(), cnss=known[1])

    _strength = _points + 4 * _person + 6 + (0 if _days > 31 else 1)
    add(
        f"a part: {_name}",
        _with_part,
        *(
            [
                pair_of(
                    "part_of_reference",
                    60 + _strength,
                    relation="part",
                    person=4 * _person,
                    days=_days,
                )
            ]
            if _plausible
            else OPEN
        ),
    )


@case(pair_of("part_of_reference", 74, relation="part", name=4))
def a_short_part_with_the_name(w: World) -> None:
    w.pay("p", digits=w.reference()[:6], tokens=["ftm", "lmrn"])
    w.rec("r", k=w.k(), tokens=["ftm", "lmrn"])


@case(pair_of("part_of_reference", 78, relation="half", person=8))
def the_first_half(w: World) -> None:
    w.pay("p", digits=w.reference()[:6] + "".join(str(9 - int(c)) for c in w.reference()[6:]),
          cnss=w.cnss())  # fmt: skip
    w.rec("r", k=w.k(), cnss=w.cnss())


@case(pair_of("part_of_reference", 72, relation="half", name=2))
def the_last_half_of_a_record(w: World) -> None:
    w.pay("p", k=w.k(), tokens=["ftm", "lmrn"])
    w.rec("r", digits="".join(str(9 - int(c)) for c in w.reference()[:6]) + w.reference()[6:],
          tokens=["ftm", "zhr"])  # fmt: skip


@case(*OPEN)
def the_first_half_and_nobody_known(w: World) -> None:
    w.pay("p", digits=w.reference()[:6] + "".join(str(9 - int(c)) for c in w.reference()[6:]))
    w.rec("r", k=w.k())


@case(pair_of("repaired_reference", 76, relation="same_digits"))
def the_same_digits(w: World) -> None:
    w.pay("p", digits=wrong(w))
    w.rec("r", digits=wrong(w))


@case("p: payment_without_record", "q: payment_without_record", "r: record_without_payment")
def the_same_digits_of_two_payments(w: World) -> None:
    w.pay("p", digits=wrong(w))
    w.pay("q", digits=wrong(w), day=9)
    w.rec("r", digits=wrong(w))


def _regrouped(w: World) -> tuple[int, int]:
    """Return two references that verify, the one with two groups of the other swapped."""
    t = w.reference(fit=lambda t: t[4] != "0" and (int(t[:4]) - int(t[4:8])) % 97 == 0)
    return int(t), int(t[4:8] + t[:4] + t[8:])


@case(pair_of("repaired_reference", 83, relation="slip", person=8))
def groups_reordered_that_verify(w: World) -> None:
    one, other = _regrouped(w)
    w.pay("p", k=one, cin=w.cin())
    w.rec("r", k=other, cin=w.cin())


@case(*OPEN)
def groups_reordered_that_verify_and_nobody_known(w: World) -> None:
    one, other = _regrouped(w)
    w.pay("p", k=one)
    w.rec("r", k=other)


# -- choosing -------------------------------------------------------------------------------------


@case(
    "p2 = r: repaired_reference 75 relation=slip person=0 name=0 amount=6 days=1",
    "p1: paid_twice",
)
def the_nearer_day_and_the_other_is_settled(w: World) -> None:
    w.pay("p1", day=2, digits=wrong(w, place=3))
    w.pay("p2", day=1, digits=wrong(w, place=5))
    w.rec("r", k=w.k())


@case("p1: ambiguous_match r", "p2: ambiguous_match r", "r: ambiguous_match p1 p2")
def two_equal_slips(w: World) -> None:
    w.pay("p1", day=2, digits=wrong(w, place=3))
    w.pay("p2", day=-2, digits=wrong(w, place=5))
    w.rec("r", k=w.k())


@case("p1 = r: repaired_reference 75 relation=slip person=0 name=0 amount=6 days=0",
      "p2: paid_twice")  # fmt: skip
def the_same_slip_twice_on_one_day(w: World) -> None:
    w.pay("p2", digits=wrong(w))
    w.pay("p1", digits=wrong(w))
    w.rec("r", k=w.k())


@case("p: ambiguous_match r1 r2", "r1: record_without_payment", "r2: record_without_payment")
def a_slip_of_a_reference_of_two_records(w: World) -> None:
    w.pay("p", digits=wrong(w))
    w.rec("r1", k=w.k())
    w.rec("r2", k=w.k())


@case("p1: amount_differs r", "p2: ambiguous_match r", "r: amount_differs p1")
def a_record_that_is_named_is_not_repaired(w: World) -> None:
    w.pay("p1", 7_000, k=w.k())
    w.pay("p2", digits=wrong(w))
    w.rec("r", k=w.k())


# -- pass 6 ---------------------------------------------------------------------------------------


@case("p1+p2 = r: instalments 90")
def an_attached_instalment(w: World) -> None:
    w.pay("p1", 4_000, k=w.k())
    w.pay("p2", 6_000, digits=wrong(w), cin=w.cin())
    w.rec("r", k=w.k(), cin=w.cin())


@case("p = r1+r2: several_records 90")
def attached_to_several_records(w: World) -> None:
    w.pay("p", digits=wrong(w), cin=w.cin())
    w.rec("r1", 4_000, k=w.k(), cin=w.cin())
    w.rec("r2", 6_000, k=w.k())


@case("p: amount_differs r", "r: amount_differs p")
def attached_with_another_amount(w: World) -> None:
    w.pay("p", 4_000, digits=wrong(w), cin=w.cin())
    w.rec("r", k=w.k(), cin=w.cin())


@case("p1+p2 = r: instalments 85")
def an_instalment_with_a_slip(w: World) -> None:
    w.pay("p1", 4_000, k=w.k())
    w.pay("p2", 6_000, digits=wrong(w))
    w.rec("r", k=w.k())


@case("p1+p2 = r: instalments 85")
def two_instalments_with_slips(w: World) -> None:
    w.pay("p1", 4_000, digits=wrong(w, place=2))
    w.pay("p2", 6_005, digits=wrong(w, place=8))
    w.rec("r", k=w.k())


@case("p1: amount_differs r", "p2: ambiguous_match r", "r: amount_differs p1")
def an_instalment_with_a_slip_of_another_person(w: World) -> None:
    w.pay("p1", 4_000, k=w.k())
    w.pay("p2", 6_000, digits=wrong(w), cin=w.cin(1))
    w.rec("r", k=w.k(), cin=w.cin(2))


@case("q = r: exact 100", "p: paid_twice")
def a_slip_of_a_settled_reference(w: World) -> None:
    w.pay("q", k=w.k())
    w.pay("p", 9_995, digits=wrong(w))
    w.rec("r", k=w.k())


@case("q = r: exact 100", "p: payment_without_record", "s: record_without_payment")
def a_slip_of_a_settled_reference_with_another_amount(w: World) -> None:
    w.pay("q", k=w.k())
    w.pay("p", 20_000, digits=wrong(w), cin=w.cin())
    w.rec("r", k=w.k())
    # The reference speaks of another due than the person does.
    w.rec("s", 20_000, cin=w.cin())


@case("p: ambiguous_match r", "r: record_without_payment", "s: record_without_payment")
def a_slip_of_another_due_than_the_persons(w: World) -> None:
    w.pay("p", digits=wrong(w, 1), cin=w.cin())
    w.rec("r", 30_000, k=w.k(1))
    w.rec("s", k=w.k(2), cin=w.cin())


@case("p: payment_without_record", "q: amount_differs s", "s: amount_differs q",
      "r: ambiguous_match q")  # fmt: skip
def a_record_with_a_slip_of_another_payment(w: World) -> None:
    w.pay("p", cin=w.cin())
    w.pay("q", 30_000, k=w.k())
    w.rec("r", digits=wrong(w), cin=w.cin())
    w.rec("s", 20_000, k=w.k())
