"""Paying from a reference's page: where a payer stands with it.

That is by a provider's page (a card's or a wallet's), by a code that he says at an agency, or on
his phone, where his wallet asks him. What he does is gateway.pages.paying.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from fastapi import Request, Response

from gateway import process
from gateway.collection.attempt_ends import came_back, doubt
from gateway.collection.attempt_rows import (
    LEFT_OPEN,
    NOT_KNOWN,
    REVIVED,
    UNDECIDED,
    Attempt,
    closed_and_payable,
    latest_attempt,
    live_codes,
)
from gateway.collection.attempts import page_provider, page_providers
from gateway.db import snapshot, transaction
from gateway.models import AttemptState, Channel, Manner
from gateway.pages import site

REFRESHES_MAX: Final = 8
"""How often a page that waits for the provider's word loads itself again, ever more slowly."""

Kind = Literal["card", "wallet", "phone", "code"]
"""What a payer calls it: a card's page, a wallet's, a wallet on his phone, a code to say."""


class CardState(StrEnum):
    """Where a payer stands with what a provider made for him."""

    NONE = "none"
    BEGUN = "begun"
    """A page was opened, and there is no word of how it went on."""
    UNKNOWN = "unknown"
    """The payer came back from it, or has paid by one that he had refused before, and there is no
    word yet: he must not pay again."""
    ASKED = "asked"
    """His wallet asks him on his phone."""
    CODE = "code"
    """He has a code that an agency takes."""
    OPEN = "open"
    """He wants to give it up, and only he can close it, where he pays."""
    ENDED = "ended"
    """What he comes from is closed, and took nothing."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a page shows of paying from here. There is one only where a provider can."""

    state: CardState
    attempt: Attempt | None
    elsewhere: bool = False
    """Whether it is to be paid by another reference, which is not told: whoever has this one need
    not have that one. Neither is its amount."""
    refresh: str = ""
    """The `Refresh` header of a page that waits."""

    @property
    def way(self) -> str:
        """The provider by whom it is to be paid."""
        return "" if self.attempt is None else self.attempt.provider

    @property
    def kind(self) -> Kind:
        """What its payer calls it."""
        return "card" if self.attempt is None else kind_of(self.attempt)


def kind_of(attempt: Attempt) -> Kind:
    """Return what the payer of an attempt calls it."""
    return _kind(attempt.manner, attempt.provider)


def kind_of_way(way: str) -> Kind:
    """Return what a payer calls the way that he chooses."""
    provider = page_provider(process.providers(), way)
    return "card" if provider is None else _kind(provider.manner, provider.name)


def _kind(manner: Manner, way: str) -> Kind:
    if manner is not Manner.PAGE:
        return "code" if manner is Manner.TOKEN else "phone"
    provider = page_provider(process.providers(), way)
    by_wallet = provider is not None and provider.channel is Channel.WALLET
    return "wallet" if by_wallet else "card"


def card_of(request: Request, reference: str) -> Card | None:
    """Return where the payer of a reference stands; None: nobody makes anything to pay by."""
    if page_provider(process.providers()) is None:
        return None
    attempt, said = _attempt(reference), request.query_params.get("card")
    if said == "back" and "try" not in request.query_params and _in_doubt(reference, attempt):
        attempt = _attempt(reference)
    if attempt is None or attempt.state in {AttemptState.MADE, AttemptState.PAID}:
        return Card(CardState.NONE, attempt)
    if not attempt.is_open and not attempt.awaited:
        known = attempt.closed_because not in {NOT_KNOWN, UNDECIDED, LEFT_OPEN, REVIVED}
        ended = said in {"back", "left", "stopped", "open", "asked"} and known
        return Card(CardState.ENDED if ended else CardState.NONE, attempt)
    state = _state(attempt, said)
    elsewhere = attempt.reference != reference
    if state in {CardState.BEGUN, CardState.CODE}:
        return Card(state, attempt, elsewhere)
    with transaction() as session:
        came_back(session, attempt)
    word = {CardState.OPEN: "open", CardState.ASKED: "asked"}.get(state, "back")
    return Card(state, attempt, elsewhere, _refresh(request, reference, word))


def _attempt(reference: str) -> Attempt | None:
    with snapshot() as session:
        return latest_attempt(session, reference)


def _in_doubt(reference: str, attempt: Attempt | None) -> bool:
    """Say whether all is closed, and its payer may have paid by any of it before he came back.

    From which page he comes nobody says: it need not be the one that was begun last. What is of a
    provider that was switched off is not asked about, and he would wait for ever.
    """
    if attempt is None or attempt.state is not AttemptState.CLOSED or attempt.awaited:
        return False
    asked = {p.name for p in page_providers(process.providers())}
    now = process.business_clock()()
    with transaction() as session:
        found = [
            doubt(session, each, now)
            for each in closed_and_payable(session, reference, now=now)
            if each.reference == reference and each.provider in asked
            if each.manner is Manner.PAGE and not each.awaited
        ]
    return any(found)


def _state(attempt: Attempt, said: str | None) -> CardState:
    """Return how the payer of an attempt stands by which money may come."""
    if attempt.awaited:
        return CardState.UNKNOWN
    if said == "open":
        return CardState.OPEN
    if attempt.manner is Manner.PUSH:
        return CardState.ASKED
    if attempt.manner is Manner.TOKEN:
        return CardState.CODE
    return CardState.UNKNOWN if said == "back" else CardState.BEGUN


def codes_left(reference: str, card: Card | None) -> Sequence[str]:
    """Return the codes of a reference that an agency still takes, and that are not to be used.

    That is all that live, save the one that the payer is told to use.
    """
    if page_provider(process.providers()) is None:
        return ()
    with snapshot() as session:
        found = live_codes(session, reference, now=process.business_clock()())
    used = card.attempt if card is not None and card.state in _USED else None
    return tuple(each.code for each in found if each.code and (not used or each.id != used.id))


_USED: Final = frozenset({CardState.CODE, CardState.OPEN})


def on_phones() -> list[str]:
    """Return the providers that ask payers on their phones."""
    return [p.name for p in page_providers(process.providers()) if p.manner is Manner.PUSH]


def lead_out(answer: Response, card: Card | None) -> Response:
    """Let the forms of a page lead to providers', and a page that waits load itself again."""
    if card is None:
        return answer
    origins = dict.fromkeys(p.pages_origin for p in page_providers(process.providers()))
    # Browsers hold a form to this wherever it is sent on to.
    let_forms(answer, " ".join(["'self'", *filter(None, origins)]))
    if card.refresh:
        answer.headers["Refresh"] = card.refresh
    return answer


def let_forms(answer: Response, where: str) -> None:
    """Let the forms of a page lead to these places, and nowhere else."""
    policy = answer.headers["Content-Security-Policy"]
    answer.headers["Content-Security-Policy"] = policy.replace(
        "form-action 'self'", f"form-action {where}"
    )


def pages_by_channel() -> dict[Channel, list[str]]:
    """Return the providers that make pages, by what a payer pays by there."""
    found: dict[Channel, list[str]] = {}
    for provider in page_providers(process.providers()):
        found.setdefault(provider.channel, []).append(provider.name)
    return found


def _refresh(request: Request, reference: str, said: str) -> str:
    tried = request.query_params.get("try", "0")
    tries = int(tried) if tried.isascii() and tried.isdecimal() and len(tried) == 1 else 0
    if tries >= REFRESHES_MAX:
        return ""
    again = site.address_of(request).link(f"/{reference}", card=said, **{"try": str(tries + 1)})
    return f"{3 + 2 * tries}; url={again}"
