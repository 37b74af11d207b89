"""The ways to pay an amount, with what each costs and what could stand in its way. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.institution import Way
from gateway.models import Channel


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What a wallet must be able to hold for an amount. Levels of identification count from 1."""

    level: int | None
    """The lowest level that suffices; None: none does."""
    ceiling_minor: int
    """That level's ceiling, or the highest there is."""
    too_low_minor: int | None
    """The ceiling just beneath, which does not suffice; None where the first level does."""
    verified: bool


@dataclass(frozen=True, slots=True)
class ShownWay:
    """One way to pay."""

    channel: Channel
    fee_minor: int | None
    """On top of the amount; 0 is free, None: ask before you pay."""
    fee_verified: bool
    ceiling: Ceiling | None
    pages: tuple[str, ...] = ()
    """By which providers it can be paid at once, begun from here."""

    @property
    def fits(self) -> bool:
        """Whether the amount can be paid so at all: no wallet takes what is above every ceiling.

        A ceiling that nobody has confirmed hinders nobody: the provider decides.
        """
        c = self.ceiling
        return c is None or c.level is not None or not c.verified


_NO_PAGES: Final[Mapping[Channel, Sequence[str]]] = {}


def ways_to_pay(
    ways: Iterable[Way], due_minor: int, *, pages: Mapping[Channel, Sequence[str]] = _NO_PAGES
) -> list[ShownWay]:
    """Return each way in its order, judged for an amount in centimes.

    Args:
        ways: As the institution lists them.
        due_minor: What is to be paid.
        pages: The providers whose pages are opened from here, by what is paid by there; such a
            channel is a way though not listed.
    """
    found = [
        ShownWay(
            way.channel,
            way.fee,
            way.verified,
            ceiling_for(way, due_minor),
            pages=tuple(pages.get(way.channel, ())),
        )
        for way in ways
    ]
    listed = {way.channel for way in found}
    also = [
        ShownWay(channel, None, False, None, tuple(names))
        for channel, names in pages.items()
        if channel not in listed
    ]
    return also + found


def ceiling_for(way: Way, due_minor: int) -> Ceiling | None:
    """Return which level of identification an amount needs, its fee included; None: no ceilings."""
    if not way.ceilings:
        return None
    needed = due_minor + (way.fee or 0)
    level = next((n for n, most in enumerate(way.ceilings, 1) if most >= needed), None)
    enough = len(way.ceilings) if level is None else level
    return Ceiling(
        level=level,
        ceiling_minor=way.ceilings[enough - 1],
        too_low_minor=way.ceilings[enough - 2] if level is not None and level > 1 else None,
        verified=way.ceilings_verified,
    )
