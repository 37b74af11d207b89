"""The soak's judge: what the journals say against what the books and the inbox hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlmodel import Session

from gateway.db import execute
from gateway.demo import books
from gateway.money import format_amount
from gateway.simulators.tally import Answered, Tally

NAMED_MAX: Final = 20
"""How many differences of one kind are named; all are counted."""


@dataclass(frozen=True)
class Told:
    """What the simulators' journals say."""

    tally: Tally
    answered: frozenset[Answered]
    """Deliveries answered by 2xx."""
    planned: int
    """How many payments were to be made."""
    struck: Counter[str]
    """Of these, how many each fault struck."""
    given_back: frozenset[tuple[str, str]] = frozenset()
    """Payments of which a part or all was given back after they were made."""


@dataclass(frozen=True)
class Held:
    """What the books and the inbox hold."""

    booked: Mapping[tuple[str, str], int]
    """Net centimes by (provider, provider_payment_id), from the transfers."""
    exceptions: Mapping[str, int]
    """Open ones, by code."""
    undone: Mapping[str, int]
    """What the worker still has to do, by what it is."""
    unexpected: Mapping[str, int]
    """States that nothing of this story may end in, by what they are."""
    not_once: Sequence[Answered]
    """Of the deliveries that were answered by 2xx: those that are not in the inbox, acted on, and
    there once."""
    booked_often: Sequence[tuple[str, str]]
    """Payments for which money was received by more than one entry."""
    broken: Sequence[Mapping[str, str]] = field(default_factory=list)
    """What `wasl verify` found."""


_UNEXPECTED: Final = """
    SELECT 'parked deliveries', count(*) FROM webhook_delivery WHERE state = 'parked'
    UNION ALL SELECT 'payments that are pending', count(*) FROM payment WHERE status = 'pending'
    UNION ALL SELECT 'callbacks that were given up', count(*) FROM provider_callback
        WHERE state = 'given_up'
"""

# A body that came first under its id is a delivery, another one a variant: once in all of both.
_NOT_ONCE: Final = """
    SELECT a.number FROM unnest(CAST(:providers AS text[]), CAST(:ids AS text[]),
        CAST(:hashes AS bytea[])) WITH ORDINALITY AS a (provider, delivery_id, sha256, number)
    LEFT JOIN (
        SELECT provider, delivery_id, body_sha256 FROM webhook_delivery WHERE state = 'done'
        UNION ALL
        SELECT provider, delivery_id, body_sha256 FROM webhook_variant
            WHERE processed_at IS NOT NULL
    ) held ON held.provider = a.provider AND held.body_sha256 = a.sha256
        AND held.delivery_id = coalesce(a.delivery_id, held.delivery_id)
    GROUP BY a.number HAVING count(held.provider) <> 1 ORDER BY a.number
"""

_BOOKED_OFTEN: Final = """
    SELECT p.provider, p.provider_payment_id
    FROM ledger_transfer t JOIN payment p ON p.id = t.payment_id
    JOIN ledger_account d ON d.id = t.debit_account_id
    WHERE d.kind = 'clearing' AND t.name !~ '/(refund_failed|chargeback_won)/[0-9]+$'
    GROUP BY 1, 2 HAVING count(DISTINCT t.batch_id) > 1
"""


def read_held(
    session: Session, answered: Iterable[Answered], broken: Sequence[Mapping[str, str]]
) -> Held:
    """Read what is held. `broken` is what `wasl verify` found."""
    asked = list(answered)
    numbers = execute(
        session,
        _NOT_ONCE,
        {
            "providers": [each.provider for each in asked],
            "ids": [each.delivery_id for each in asked],
            "hashes": [each.body_sha256 for each in asked],
        },
    ).scalars()
    often = execute(session, _BOOKED_OFTEN).all()
    return Held(
        booked=books.booked_amounts(session),
        exceptions=books.open_exceptions(session),
        undone=books.undone(session),
        unexpected={str(what): int(n) for what, n in execute(session, _UNEXPECTED) if n},
        not_once=[asked[number - 1] for number in numbers],
        booked_often=[(str(provider), str(named)) for provider, named in often],
        broken=broken,
    )


def differences(told: Told, held: Held) -> list[str]:
    """Return, in sentences, all that is not as the journals say: none where all is well. Pure."""
    found: list[str] = []
    found += _named("not accounted for", _unaccounted(told.tally, held))
    # In another currency nothing is booked; all else is paid, even if it goes back later.
    due = told.planned - told.struck["wrong_currency"]
    paid = _paid(told, held)
    if paid != due:
        found.append(f"Payments: {due} were to be made, {paid} are in the books.")
    planted = +Counter(told.tally.planted)
    for code in sorted(planted.keys() | held.exceptions.keys()):
        there = held.exceptions.get(code, 0)
        if planted[code] != there:
            found.append(f"Exceptions {code}: {planted[code]} planted, {there} open.")
    found += _named(
        "answered by 2xx, and not in the inbox once",
        [f"{each.provider}, delivery {each.delivery_id}" for each in held.not_once],
    )
    found += _named(
        "booked more than once", [f"{name}, payment {named}" for name, named in held.booked_often]
    )
    for what, count in {**held.undone, **held.unexpected}.items():
        found.append(f"Left at the end: {count} {what}.")
    found += [f"Broken: {each['what']} ({each['where']})." for each in held.broken]
    found += [f"Unexpected answer: {each}." for each in told.tally.first_surprises]
    if told.tally.surprises > len(told.tally.first_surprises):
        found.append(f"Unexpected answers in all: {told.tally.surprises}.")
    return found


def _unaccounted(told: Tally, held: Held) -> list[str]:
    """Return the payments whose amount is not the journals' in the books, both ways."""
    wrong = []
    for payment in sorted({*told.expected, *held.booked}):
        said, there = told.expected.get(payment), held.booked.get(payment, 0)
        if (said or 0) != there:
            words = "nothing" if said is None else format_amount(said)
            wrong.append(
                f"{payment[0]}, payment {payment[1]}: the journal says {words}, the books say"
                f" {format_amount(there)}"
            )
    return wrong


def _paid(told: Told, held: Held) -> int:
    """Return how many payments were made: also those of which nothing is left by now.

    One that a provider itself took back as it was made is followed by another and does not count.
    """
    return sum(minor > 0 or at in told.given_back for at, minor in held.booked.items())


def _named(what: str, which: Sequence[str]) -> list[str]:
    found = [f"Is {what}: {each}." for each in which[:NAMED_MAX]]
    if len(which) > NAMED_MAX:
        found.append(f"Are {what}: {len(which)} in all.")
    return found


def as_json(told: Told, held: Held) -> dict[str, Any]:
    """Return the figures of both sides, as `wasl demo --json` names them."""
    from gateway.demo.result import unaccounted

    return {
        "deliveries": told.tally.deliveries,
        "answered": len(told.answered),
        "payments": _paid(told, held),
        "given_back": len(told.given_back),
        "planted": {code: n for code, n in sorted(told.tally.planted.items()) if n},
        "exceptions": dict(sorted(held.exceptions.items())),
        "unaccounted": format_amount(unaccounted(told.tally, held.booked)),
    }
