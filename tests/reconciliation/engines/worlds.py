"""Small, dirty worlds: few people and references, and everything that happens to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Final

from gateway.references import is_reference, with_check_digits
from tests.reconciliation.engines.facts import A_DAY, Row

# Sums meet, and 5 centimes are within the tolerance and 6 are not.
AMOUNTS: Final = (100, 100, 100, 200, 200, 300, 103, 105, 106, 205)
DAYS: Final = (0, 0, 0, 1, 3, 4, 10, 11, 31, 32)
WORDS: Final = ("ftm", "lmrn", "lmrm", "hmd", "bnn", "zhr", "f", "l", "hm")


@dataclass(frozen=True)
class Person:
    cnss: str
    cin: str
    tokens: list[str]


def slip(rng: Random, text: str) -> str:
    """Return a text with one slip: wrong, missing, too many, or two swapped."""
    i = rng.randrange(len(text) - 1)
    other = rng.choice("0123456789")
    return rng.choice(
        (
            text[:i] + other + text[i + 1 :],
            text[:i] + text[i + 1 :],
            text[:i] + other + text[i:],
            text[:i] + text[i + 1] + text[i] + text[i + 2 :],
        )
    )


def broken(rng: Random, reference: str) -> str:
    """Return what a person made of a reference."""
    i = rng.randrange(10)
    x = rng.choice("0123456789")
    one, two, three = reference[:4], reference[4:8], reference[8:]
    long = rng.randint(6, 11)
    kinds: tuple[Callable[[], str], ...] = (
        lambda: slip(rng, reference),
        lambda: reference[:i] + reference[i : i + 3][::-1] + reference[i + 3 :],
        lambda: reference[:i] + 2 * x + reference[i + 2 :],
        lambda: rng.choice((one + three + two, two + one + three, three + two + one)),
        lambda: rng.choice((two + three + one, three + one + two)),
        lambda: slip(rng, reference),
        lambda: reference[:i] + "1" + x + reference[i + 2 :],
        lambda: reference[:i] + x + "0" + reference[i + 2 :],
        lambda: reference[:i] + x + reference[i + 1] + x + reference[i + 3 :],
        lambda: rng.choice((reference[:long], reference[-long:])),
        lambda: rng.choice((reference[:6], reference[-6:])),
        lambda: reference[:6] + f"{rng.randrange(10**6):06d}",
        lambda: f"{rng.randrange(10**6):06d}" + reference[6:],
        lambda: slip(rng, slip(rng, reference)),
        lambda: reference + f"{rng.randrange(100):02d}",
    )
    return rng.choice(kinds)()


def some_references(rng: Random) -> list[str]:
    """Return a few that verify; some begin or end alike, some are another's groups reordered."""
    first = with_check_digits(rng.randrange(10**9, 10**10))
    references = [first]
    for _ in range(rng.randint(0, 3)):
        match rng.randrange(5):
            case 0:
                like = int(first[:6]) * 10**4 + rng.randrange(10**4)
                references.append(with_check_digits(like))
            case 1:
                # Two groups that leave the same remainder can be swapped, and it verifies.
                one = rng.randrange(1000, 5000)
                two = one + 97 * rng.randint(1, 30)
                reference = with_check_digits(one * 10**6 + two * 100 + rng.randrange(100))
                references.append(reference)
                references.append(reference[4:8] + reference[:4] + reference[8:])
            case _:
                references.append(with_check_digits(rng.randrange(10**9, 10**10)))
    return references


def a_world(rng: Random, name: str = "") -> tuple[list[Row], list[Row]]:
    """Return payments and records; their ids begin with the name."""
    people = [
        Person(
            f"{rng.randrange(10**9):09d}",
            f"{rng.choice(('AB', 'J'))}{rng.randrange(10**6):06d}",
            sorted(rng.sample(WORDS, rng.randint(1, 3))),
        )
        for _ in range(rng.randint(1, 3))
    ]
    if len(people) > 1 and rng.random() < 0.3:
        # A family: one card, or nearly one number.
        people[1] = Person(slip(rng, people[0].cnss), people[0].cin, people[1].tokens)
    elif len(people) > 1 and rng.random() < 0.5:
        # Neighbours: a slip of one's card is the other's, and no word of their names is.
        others = [word for word in WORDS if word[0] not in {own[0] for own in people[0].tokens}]
        people[1] = Person(people[1].cnss, slip(rng, people[0].cin), sorted(rng.sample(others, 2)))
    references = some_references(rng)
    texts = [broken(rng, rng.choice(references)) for _ in range(2)]
    dirt = rng.choice((0.1, 0.3, 0.6))
    # What is wrong with the texts of the references: little, much, or there are none.
    unread, unread_record, missing = rng.choice(
        ((0.1, 0.1, 0.3), (0.7, 0.1, 0.1), (0.7, 0.1, 0.6), (0.9, 0.5, 0.9), (0.6, 0.6, 0.3))
    )

    def a_row(id_: str, *, is_record: bool) -> Row:
        person = rng.choice(people)
        holder = rng.choice(people) if rng.random() < 0.1 else person
        row = Row(
            id=id_,
            how=rng.choice((0, 0, 0, 1, 2)),
            a=rng.choice(AMOUNTS),
            d=A_DAY + timedelta(days=rng.choice(DAYS)),
            provref=rng.choice((None, None, None, f"{name}XY0001", f"{name}XY0002")),
            cnss=_number(rng, person.cnss, dirt),
            cin=_number(rng, holder.cin, dirt),
            tokens=_name(rng, person.tokens, dirt),
        )
        if is_record and rng.random() < 0.08:
            row = row.with_(a=-row.a)
        text = _text(rng, references, texts, unread_record if is_record else unread, missing)
        return row.with_(**text)

    payments = [a_row(f"{name}p{n}", is_record=False) for n in range(rng.randint(1, 5))]
    records = [a_row(f"{name}r{n}", is_record=True) for n in range(rng.randint(1, 6))]
    due = {row.k: row.a for row in records if row.k is not None}
    if len(due) > 1 and rng.random() < 0.1:
        some = sorted(rng.sample(sorted(due), 2))
        both = a_row(f"{name}pb", is_record=False)
        payments.append(
            both.with_(k=None, ks=some, digits=None, a=max(100, due[some[0]] + due[some[1]]))
        )
    return payments, records


def _number(rng: Random, number: str, dirt: float) -> str | None:
    chance = rng.random()
    if chance < dirt:
        return None
    return slip(rng, number) if chance < dirt * 1.4 else number


def _name(rng: Random, words: list[str], dirt: float) -> list[str] | None:
    chance = rng.random()
    if chance < dirt / 2:
        return None
    if chance < dirt:
        return sorted(rng.sample(WORDS, rng.randint(1, 3)))
    return words


def _text(
    rng: Random, references: list[str], texts: list[str], unread: float, missing: float
) -> dict[str, object]:
    """Return the facts of a reference's text: `k`, `ks` or `digits`, or none of them."""
    if rng.random() >= unread:
        return {"k": int(rng.choice(references))}
    if rng.random() < missing:
        return {}
    if rng.random() < 0.2 and len(set(references)) > 1:
        some = rng.sample(sorted(set(references)), rng.randint(2, min(3, len(set(references)))))
        return {"ks": sorted(int(reference) for reference in some)}
    text = rng.choice((*texts, broken(rng, rng.choice(references))))
    if is_reference(text):
        return {"k": int(text)}
    return {"digits": text} if 6 <= len(text) <= 14 else {}
