"""Cases of passes 7 to 11, by whose money it is, and of what is left."""

from __future__ import annotations

from typing import Final

from tests.reconciliation.engines.cases import OPEN, World, add, case, pair_of

# -- pass 7: several dues, anchored ---------------------------------------------------------------


@case("p = r1+r2+r3: several_dues 92", "r4: record_without_payment")
def several_dues(w: World) -> None:
    w.pay("p", 60_005, k=w.k(1))
    w.rec("r1", k=w.k(1), cnss=w.cnss())
    w.rec("r2", 20_000, k=w.k(2), cnss=w.cnss())
    w.rec("r3", 30_000, day=40, cnss=w.cnss())
    w.rec("r4", 40_000, k=w.k(4), cnss=w.cnss(1))


@case("p = r1+r2: several_dues 92", "r3: record_without_payment")
def several_dues_by_the_card(w: World) -> None:
    w.pay("p", 30_000, k=w.k(1))
    w.rec("r1", k=w.k(1), cin=w.cin())
    w.rec("r2", 20_000, k=w.k(2), cin=w.cin(), cnss=w.cnss())
    w.rec("r3", 20_000, k=w.k(3), cnss=w.cnss())


@case("p: amount_differs r1", "r1: amount_differs p", "r2: record_without_payment")
def the_card_says_nothing_beside_a_cnss_number(w: World) -> None:
    w.pay("p", 30_000, k=w.k(1))
    w.rec("r1", k=w.k(1), cin=w.cin(), cnss=w.cnss())
    w.rec("r2", 20_000, k=w.k(2), cin=w.cin())


@case("p = r1+r3: several_dues 92", "r2: record_without_payment")
def an_exact_sum_before_a_close_one(w: World) -> None:
    w.pay("p", 30_000, k=w.k(1))
    w.rec("r1", k=w.k(1), cnss=w.cnss())
    w.rec("r2", 20_001, cnss=w.cnss())
    w.rec("r3", 20_000, day=5, cnss=w.cnss())


@case("p = r1+r3: several_dues 92", "r2: record_without_payment")
def the_dues_of_one_day(w: World) -> None:
    w.pay("p", 20_000, k=w.k(1))
    w.rec("r1", day=5, k=w.k(1), cnss=w.cnss())
    w.rec("r2", day=4, cnss=w.cnss())
    w.rec("r3", day=5, cnss=w.cnss())


@case(
    "p: ambiguous_match r1 r2 r3", "r1: ambiguous_match p",
    "r2: record_without_payment", "r3: record_without_payment",
)  # fmt: skip
def several_sums(w: World) -> None:
    w.pay("p", 20_000, k=w.k(1))
    for n in (1, 2, 3):
        w.rec(f"r{n}", k=w.k(n), cnss=w.cnss())


@case("p = r01+r12: several_dues 92", *(f"r{n:02}: record_without_payment" for n in range(2, 12)))
def twelve_dues(w: World) -> None:
    w.pay("p", 30_000, k=w.k(1))
    w.rec("r01", k=w.k(1), cnss=w.cnss())
    for n in range(2, 12):
        w.rec(f"r{n:02}", 50_000, k=w.k(n), cnss=w.cnss())
    w.rec("r12", 20_000, k=w.k(12), cnss=w.cnss())


@case(
    "p: amount_differs r01",
    "r01: amount_differs p",
    *(f"r{n:02}: record_without_payment" for n in range(2, 14)),
)
def thirteen_dues(w: World) -> None:
    w.pay("p", 30_000, k=w.k(1))
    w.rec("r01", k=w.k(1), cnss=w.cnss())
    for n in range(2, 13):
        w.rec(f"r{n:02}", 50_000, k=w.k(n), cnss=w.cnss())
    w.rec("r13", 20_000, k=w.k(13), cnss=w.cnss())


@case(
    "p: amount_differs r1", "r1: amount_differs p", "q: amount_differs r2", "r2: amount_differs q"
)
def a_due_that_another_payment_names(w: World) -> None:
    w.pay("p", 30_000, k=w.k(1))
    w.pay("q", 5_000, k=w.k(2))
    w.rec("r1", k=w.k(1), cnss=w.cnss())
    w.rec("r2", 20_000, k=w.k(2), cnss=w.cnss())


@case(
    "p: amount_differs r1", "r1: amount_differs p", "q: amount_differs r2",
    "r2: amount_differs q", "r3: record_without_payment",
)  # fmt: skip
def a_due_that_two_payments_want(w: World) -> None:
    w.pay("p", 30_000, k=w.k(1))
    w.pay("q", 40_000, k=w.k(2))
    w.rec("r1", k=w.k(1), cnss=w.cnss())
    w.rec("r2", 20_000, k=w.k(2), cnss=w.cnss())
    w.rec("r3", 20_000, cnss=w.cnss())


@case("p: amount_differs r1", "r1: amount_differs p", "r2: record_without_payment")
def a_payment_that_is_smaller_than_its_due(w: World) -> None:
    w.pay("p", 10_000, k=w.k(1))
    w.rec("r1", 20_000, k=w.k(1), cnss=w.cnss())
    w.rec("r2", 10_000, cnss=w.cnss())


# -- pass 8: identity -----------------------------------------------------------------------------


@case(pair_of("identity", 66, person=8, amount=5, days=3))
def identity_by_the_cnss_number(w: World) -> None:
    w.pay("p", 10_005, cnss=w.cnss())
    w.rec("r", day=3, k=w.k(), cnss=w.cnss())


@case(pair_of("identity", 79, person=16, name=4))
def identity_by_all(w: World) -> None:
    w.pay("p", k=w.k(), cnss=w.cnss(), cin=w.cin(), tokens=["ftm", "lmrn"])
    w.rec("r", cnss=w.cnss(), cin=w.cin(), tokens=["ftm", "lmrn"])


@case(pair_of("identity", 65, person=8, days=31))
def identity_by_the_card_within_the_window(w: World) -> None:
    w.pay("p", day=31, cin=w.cin(), cnss=w.cnss())
    w.rec("r", k=w.k(), cin=w.cin())


@case(*OPEN)
def identity_out_of_the_window(w: World) -> None:
    w.pay("p", day=32, cin=w.cin())
    w.rec("r", k=w.k(), cin=w.cin())


@case(*OPEN)
def identity_with_another_amount(w: World) -> None:
    w.pay("p", 10_006, cin=w.cin())
    w.rec("r", k=w.k(), cin=w.cin())


@case(*OPEN)
def one_number_says_so_and_the_other_not(w: World) -> None:
    w.pay("p", cin=w.cin(), cnss=w.cnss(1))
    w.rec("r", k=w.k(), cin=w.cin(), cnss=w.cnss(2))


@case(*OPEN)
def two_references_that_differ_speak_against(w: World) -> None:
    w.pay("p", k=w.k(1), cin=w.cin())
    w.rec("r", k=w.k(2), cin=w.cin())


@case(*OPEN)
def two_texts_that_differ_speak_against(w: World) -> None:
    w.pay("p", k=w.k(1), cin=w.cin())
    w.rec("r", ks=sorted((w.k(2), w.k(3))), cin=w.cin())


@case(*OPEN)
def several_references_are_no_identity(w: World) -> None:
    w.pay("p", ks=sorted((w.k(1), w.k(2))), cin=w.cin())
    w.rec("r", cin=w.cin())


@case("p: payment_without_record", "q: amount_differs r", "r: amount_differs q")
def a_record_that_another_payment_names(w: World) -> None:
    w.pay("p", cin=w.cin())
    w.pay("q", 5_000, k=w.k())
    w.rec("r", k=w.k(), cin=w.cin())


@case(
    "p1 = r1: identity 66 person=8 name=0 amount=5 days=0",
    "p2 = r2: identity 66 person=8 name=0 amount=5 days=2",
    "p3 = r3: identity 65 person=8 name=0 amount=5 days=4",
    "p4: payment_without_record",
    "r4: record_without_payment",
)
def three_rounds(w: World) -> None:
    # Each payment is nearest to the record that the one before it takes.
    for n, paid, posted in ((1, 0, 0), (2, 1, 3), (3, 6, 10), (4, 15, 21)):
        w.pay(f"p{n}", 10_003, day=paid, cin=w.cin())
        w.rec(f"r{n}", day=posted, k=w.k(n), cin=w.cin())


@case(
    "p1 = r2: identity 66 person=8 name=0 amount=6 days=5",
    "p2 = r1: identity 66 person=8 name=0 amount=6 days=5",
)
def interchangeable(w: World) -> None:
    w.pay("p1", day=0, cin=w.cin())
    w.pay("p2", day=0, cin=w.cin())
    w.rec("r1", day=5, k=w.k(1), cin=w.cin())
    w.rec("r2", day=-5, k=w.k(2), cin=w.cin())


@case(
    *(f"p{n}: ambiguous_match r1 r2 r3" for n in (1, 2)),
    *(f"r{n}: ambiguous_match p1 p2" for n in (1, 2, 3)),
)
def not_as_many_on_both_sides(w: World) -> None:
    for n in (1, 2):
        w.pay(f"p{n}", cin=w.cin())
    for n in (1, 2, 3):
        w.rec(f"r{n}", k=w.k(n), cin=w.cin())


@case("p: ambiguous_match r1 r2", "r1: record_without_payment", "r2: record_without_payment")
def two_persons_of_one_payment(w: World) -> None:
    w.pay("p", cnss=w.cnss(), cin=w.cin())
    w.rec("r1", k=w.k(1), cnss=w.cnss())
    w.rec("r2", k=w.k(2), cin=w.cin())


# -- pass 9: identity with a slip -----------------------------------------------------------------


def _slipped(number: str) -> str:
    return number[:3] + str((int(number[3]) + 4) % 10) + number[4:]


@case(pair_of("identity_slip", 67, person=4, name=4))
def a_slip_in_the_cnss_number(w: World) -> None:
    w.pay("p", cnss=w.cnss(), tokens=["ftm", "lmrn"])
    w.rec("r", k=w.k(), cnss=_slipped(w.cnss()), tokens=["ftm", "lmrn"])


@case(pair_of("identity_slip", 71, person=8, name=4))
def a_slip_in_both_numbers(w: World) -> None:
    w.pay("p", cnss=w.cnss(), cin=w.cin(), tokens=["ftm", "lmrn"])
    w.rec("r", k=w.k(), cnss=w.cnss()[1:], cin=w.cin() + "1", tokens=["ftm", "lmrn"])


@case(*OPEN)
def a_slip_and_half_a_name(w: World) -> None:
    w.pay("p", cnss=w.cnss(), tokens=["ftm", "lmrn"])
    w.rec("r", k=w.k(), cnss=_slipped(w.cnss()), tokens=["hmd", "lmrn"])


@case(*(f"{side}{n}: {rest}" for n in (1, 2) for side, rest in (
    ("p", "ambiguous_match r1 r2"), ("r", "ambiguous_match p1 p2"))))  # fmt: skip
def slips_are_not_interchangeable(w: World) -> None:
    for n in (1, 2):
        w.pay(f"p{n}", cnss=w.cnss(), tokens=["ftm", "lmrn"])
        w.rec(f"r{n}", k=w.k(n), cnss=_slipped(w.cnss()), tokens=["ftm", "lmrn"])


# -- pass 8, before it chooses: a number that is another name's ------------------------------------


_FATIMA: Final = ["ftm", "zhr"]
_AMINE: Final = ["mn", "fs"]


@case(
    "p: ambiguous_match r1 r2", "r1: record_without_payment", "r2: record_without_payment",
)  # fmt: skip
def a_number_of_another_name_and_a_slip_of_the_own(w: World) -> None:
    w.pay("p", cin=w.cin(), tokens=_FATIMA)
    w.rec("r1", k=w.k(1), cin=w.cin(), tokens=_AMINE)
    w.rec("r2", k=w.k(2), cin=_slipped(w.cin()), tokens=_FATIMA)


@case(
    "p: payment_without_record", "q: payment_without_record", "r: ambiguous_match p q",
)  # fmt: skip
def a_number_given_by_another_name_and_nearly_by_the_own(w: World) -> None:
    w.pay("p", cin=w.cin(), tokens=["slm", "brk"])
    w.pay("q", cin=_slipped(w.cin()), tokens=["zhr", "lmrn"])
    w.rec("r", k=w.k(), cin=w.cin(), tokens=["zhr", "lmrn"])


@case(
    "p: ambiguous_match r1 r2", "r1: record_without_payment", "r2: record_without_payment",
)  # fmt: skip
def a_number_of_another_name_and_a_slip_of_half_the_own(w: World) -> None:
    w.pay("p", cin=w.cin(), tokens=["gss", "w"])
    w.rec("r1", k=w.k(1), cin=w.cin(), tokens=_AMINE)
    w.rec("r2", k=w.k(2), cin=_slipped(w.cin()), tokens=["f", "gss"])


@case(
    "p: ambiguous_match r2", "q = r1: identity 71 person=8 name=4 amount=6 days=0",
    "r2: record_without_payment",
)  # fmt: skip
def whose_number_it_is_pays_meanwhile(w: World) -> None:
    w.pay("p", cin=w.cin(), tokens=_FATIMA)
    w.pay("q", cin=w.cin(), tokens=_AMINE)
    w.rec("r1", k=w.k(1), cin=w.cin(), tokens=_AMINE)
    w.rec("r2", k=w.k(2), cin=_slipped(w.cin()), tokens=_FATIMA)


@case(
    "p = r1: identity 65 person=8 name=-2 amount=6 days=0", "r2: record_without_payment",
)  # fmt: skip
def a_number_of_another_name_and_a_slip_of_another_amount(w: World) -> None:
    # He who pays for another gives his own name: no doubt of that alone.
    w.pay("p", cin=w.cin(), tokens=_FATIMA)
    w.rec("r1", k=w.k(1), cin=w.cin(), tokens=_AMINE)
    w.rec("r2", 20_000, k=w.k(2), cin=_slipped(w.cin()), tokens=_FATIMA)


@case(
    "p = r1: identity 69 person=12 name=-2 amount=6 days=0", "r2: record_without_payment",
)  # fmt: skip
def two_numbers_of_another_name(w: World) -> None:
    w.pay("p", cin=w.cin(), cnss=w.cnss(), tokens=_FATIMA)
    w.rec("r1", k=w.k(1), cin=w.cin(), cnss=_slipped(w.cnss()), tokens=_AMINE)
    w.rec("r2", k=w.k(2), cin=_slipped(w.cin()), tokens=_FATIMA)


@case(
    "p = r1: identity 67 person=8 name=0 amount=6 days=0", "r2: record_without_payment",
)  # fmt: skip
def a_number_without_a_name_and_a_slip(w: World) -> None:
    w.pay("p", cin=w.cin(), tokens=_FATIMA)
    w.rec("r1", k=w.k(1), cin=w.cin())
    w.rec("r2", k=w.k(2), cin=_slipped(w.cin()), tokens=_FATIMA)


@case(
    "p: ambiguous_match r1 r2", *(f"r{n}: record_without_payment" for n in (1, 2, 3, 4)),
)  # fmt: skip
def a_doubted_number_adds_up_to_nothing(w: World) -> None:
    w.pay("p", cin=w.cin(), tokens=_FATIMA)
    w.rec("r1", k=w.k(1), cin=w.cin(), tokens=_AMINE)
    w.rec("r2", k=w.k(2), cin=_slipped(w.cin()), tokens=_FATIMA)
    w.rec("r3", 4_000, k=w.k(3), cin=w.cin())
    w.rec("r4", 6_000, k=w.k(4), cin=w.cin())


# -- pass 10: instalments by identity -------------------------------------------------------------


@case("p1+p2 = r: instalments_by_identity 80")
def instalments_by_identity(w: World) -> None:
    w.pay("p1", 4_000, day=-31, cnss=w.cnss())
    w.pay("p2", 6_005, day=31, cnss=w.cnss())
    w.rec("r", k=w.k(), cnss=w.cnss())


@case("p1+p2 = r: instalments_by_identity 80")
def instalments_one_of_which_names_the_due(w: World) -> None:
    w.pay("p1", 4_000, k=w.k())
    w.pay("p2", 6_000, cin=w.cin())
    w.rec("r", k=w.k(), cnss=w.cnss(), cin=w.cin())


@case("p1: payment_without_record", "p2: payment_without_record", "r: record_without_payment")
def an_instalment_out_of_the_window(w: World) -> None:
    w.pay("p1", 4_000, day=-32, cnss=w.cnss())
    w.pay("p2", 6_000, cnss=w.cnss())
    w.rec("r", k=w.k(), cnss=w.cnss())


@case(
    "p1: payment_without_record", "p2: payment_without_record", "r: record_without_payment",
    "s: record_without_payment",
)  # fmt: skip
def instalments_of_one_of_two_dues(w: World) -> None:
    w.pay("p1", 4_000, cnss=w.cnss())
    w.pay("p2", 6_000, cnss=w.cnss())
    w.rec("r", k=w.k(1), cnss=w.cnss())
    w.rec("s", 70_000, day=90, k=w.k(2), cnss=w.cnss())


@case(
    "p0: ambiguous_match r1 r2", "p1: payment_without_record", "p2: payment_without_record",
    "r1: ambiguous_match p0", "r2: ambiguous_match p0",
)  # fmt: skip
def an_instalment_that_two_dues_want(w: World) -> None:
    w.pay("p0", 5_000, k=w.k())
    for n in (1, 2):
        w.pay(f"p{n}", 5_000, cin=w.cin(n))
        w.rec(f"r{n}", k=w.k(), cin=w.cin(n))


@case(
    "p0+p1 = r1: instalments_by_identity 80", "p2: payment_without_record",
    "r2: record_without_payment",
)  # fmt: skip
def an_instalment_that_one_of_two_dues_wants(w: World) -> None:
    w.pay("p0", 5_000, k=w.k())
    for n in (1, 2):
        w.pay(f"p{n}", 5_000, cin=w.cin(n))
        w.rec(f"r{n}", 10_000 * n, k=w.k(), cin=w.cin(n))


# -- pass 11: several dues without an anchor ------------------------------------------------------


@case("p = r1+r2: several_dues 82", "r3: record_without_payment")
def several_dues_by_identity(w: World) -> None:
    w.pay("p", 30_000, cnss=w.cnss(), cin=w.cin())
    w.rec("r1", k=w.k(1), cnss=w.cnss())
    w.rec("r2", 20_000, k=w.k(2), cnss=w.cnss())
    w.rec("r3", 20_000, k=w.k(3), cin=w.cin())


@case("p = r1+r2: several_dues 82")
def several_dues_by_the_payments_card(w: World) -> None:
    w.pay("p", 30_000, cin=w.cin())
    w.rec("r1", k=w.k(1), cnss=w.cnss(), cin=w.cin())
    w.rec("r2", 20_000, cin=w.cin())


@case("p: ambiguous_match r1 r2 r3", *(f"r{n}: record_without_payment" for n in (1, 2, 3)))
def several_sums_by_identity(w: World) -> None:
    w.pay("p", 20_000, cnss=w.cnss())
    for n in (1, 2, 3):
        w.rec(f"r{n}", k=w.k(n), cnss=w.cnss())


@case("p: payment_without_record", "r1: record_without_payment", "r2: record_without_payment")
def several_dues_against_a_reference(w: World) -> None:
    w.pay("p", 30_000, k=w.k(3), cnss=w.cnss())
    w.rec("r1", k=w.k(1), cnss=w.cnss())
    w.rec("r2", 20_000, k=w.k(2), cnss=w.cnss())


# -- what is left ---------------------------------------------------------------------------------


@case(
    "p: payment_without_record r2 r3 r4",
    *(f"r{n}: record_without_payment" for n in range(1, 8)),
)
def three_suggestions_by_day(w: World) -> None:
    words = sorted((w.cin(), w.cnss()))
    w.pay("p", k=w.k(), tokens=words)
    w.rec("r1", day=10, k=w.k(1), tokens=words)
    w.rec("r4", day=3, k=w.k(4), tokens=words)
    w.rec("r3", day=-9, k=w.k(3), tokens=words)
    w.rec("r2", day=4, k=w.k(2), tokens=words)
    w.rec("r5", 10_001, k=w.k(5), tokens=words)
    w.rec("r6", day=11, k=w.k(6), tokens=words)
    w.rec("r7", k=w.k(7), tokens=words[:1])


@case("p: payment_without_record", "q: amount_differs r", "r: amount_differs q")
def what_is_asked_about_already_is_not_suggested(w: World) -> None:
    words = [w.cin()]
    w.pay("p", tokens=words)
    w.pay("q", 5_000, k=w.k())
    w.rec("r", k=w.k(), tokens=words)


@case(
    *(f"p{n:02}: ambiguous_match r" for n in range(11)),
    "r: ambiguous_match " + " ".join(f"p{n:02}" for n in range(10)),
)
def ten_candidates(w: World) -> None:
    for n in range(11):
        w.pay(f"p{n:02}", 5_000, k=w.k())
    w.rec("r", k=w.k())


FILLER: Final = 33
"""33 x 33 pairs are more than the thousand that one thing may offer."""


def _crowd(w: World, size: int) -> None:
    for n in range(size):
        # Each payment has one record of its own amount; by the card it has all.
        w.pay(f"p{n:02}", 10_000 + 100 * n, cin=w.cin())
        w.rec(f"r{n:02}", 10_000 + 100 * n, k=w.k(n), cin=w.cin())


add(
    "a card of 33 payments and 33 records",
    lambda w: _crowd(w, FILLER),
    *(f"p{n:02}: payment_without_record" for n in range(FILLER)),
    *(f"r{n:02}: record_without_payment" for n in range(FILLER)),
)


@case(
    *(f"p{n:02}: payment_without_record" for n in range(FILLER)),
    *(f"r{n:02}: record_without_payment" for n in range(FILLER)),
)
def a_name_and_an_amount_of_many(w: World) -> None:
    for n in range(FILLER):
        w.pay(f"p{n:02}", tokens=[w.cin()])
        w.rec(f"r{n:02}", tokens=[w.cin()])


add(
    "a card of 31 payments and 31 records",
    lambda w: _crowd(w, FILLER - 2),
    *(f"p{n:02} = r{n:02}: identity 67 person=8 name=0 amount=6 days=0" for n in range(FILLER - 2)),
)
