"""Whether Wasl sends outward of its own accord: events, callbacks, messages, refunds, questions.

A restored copy holds the endpoints, telephones and keys of the installation that it was taken from.
Whether it takes that one's place or is a rehearsal beside it, no program can know: so a restore
holds all sending, and an operator releases it. What comes in is booked meanwhile, and nothing that
waits to be sent is lost. What a payer asks for himself, as a card page, is not held.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from sqlmodel import Session

from gateway.db import execute, snapshot
from gateway.reasons import kept_reason

RESTORED: Final = "restored from a backup"
HOW_TO_RELEASE: Final = "wasl sending release"
_SAID_SECONDS: Final = 300.0
"""How often each process says in its log that it sends nothing."""

log = structlog.get_logger(__name__)
_said: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Hold:
    """Why nothing is sent."""

    because: str
    held_by: str
    held_at: datetime

    @property
    def sentence(self) -> str:
        """Say it to an operator, with the way out."""
        return (
            f"Sending is held since {self.held_at:%Y-%m-%d %H:%M} UTC ({self.because}): no webhook,"
            " callback or message goes out, no provider is asked and no refund is made. To send"
            f" again: {HOW_TO_RELEASE}"
        )


def held(session: Session) -> Hold | None:
    """Return the hold that is in force, if one is."""
    row = execute(
        session,
        "SELECT because, held_by, held_at FROM sending_hold WHERE released_at IS NULL",
    ).one_or_none()
    return None if row is None else Hold(*row)


def hold(session: Session, *, because: str, who: str, now: datetime) -> bool:
    """Hold all sending; say whether it was not held yet. The caller owns the transaction.

    What is being sent at this moment goes on for some seconds.

    Raises:
        Unusable: The reason cannot be kept.
    """
    made = execute(
        session,
        "INSERT INTO sending_hold (because, held_by, held_at) VALUES (:because, :who, :now)"
        " ON CONFLICT DO NOTHING RETURNING id",
        {"because": kept_reason(because), "who": who, "now": now},
    )
    return made.one_or_none() is not None


def release(session: Session, *, who: str, now: datetime) -> bool:
    """Send again; say whether it was held. The caller owns the transaction."""
    ended = execute(
        session,
        "UPDATE sending_hold SET released_by = :who, released_at = :now WHERE released_at IS NULL"
        " RETURNING id",
        {"who": who, "now": now},
    )
    return ended.one_or_none() is not None


def may_send(what: str) -> bool:
    """Say whether a task may send; if not, write so to the log, not every time.

    Opens its own transaction.
    """
    with snapshot() as session:
        found = held(session)
    if found is None:
        _said.pop(what, None)
        return True
    at = time.monotonic()
    if at - _said.get(what, -_SAID_SECONDS) >= _SAID_SECONDS:
        _said[what] = at
        log.warning("sending_held", task=what, because=found.because, release=HOW_TO_RELEASE)
    return False
