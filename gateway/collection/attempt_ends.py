"""How an attempt ends before another is made, or is known not to: its provider is asked.

Every call over the network stands between two transactions and inside none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from sqlmodel import Session

from gateway.collection.attempt_rows import (
    LEFT_OPEN,
    NOT_KNOWN,
    PAYABLE_CLOSED,
    REVIVED,
    UNDECIDED_MAX,
    Attempt,
    ask_at_once,
    close,
    leave_open,
)
from gateway.db import execute
from gateway.errors import ProviderAway, ProviderRefused
from gateway.models import AttemptState, Manner
from gateway.providers import PageProvider, PageState, Provider

AKIN_MAX: Final = 5
"""How many open attempts of other references one step of a press ends."""
TRIES_HURRIED_MAX: Final = 60
"""How often somebody who loads a page again, or gives it up again, can have us ask."""
ASK_BACK_SECONDS: Final = 4
"""When we ask about a page whose payer came back and waits."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Hindrance:
    """An attempt by which money may still come."""

    attempt: Attempt
    stands: PageState
    """OPEN, or USED: it is being paid, or not known not to be."""


def settle(
    providers: Mapping[str, Provider],
    attempt: Attempt,
    now: datetime,
    because: str = "replaced",
    *,
    anyway: bool = False,
) -> PageState:
    """Bring an attempt to its end, and return how it stands then: CLOSED, or money may come by it.

    The provider that made its page is asked. One whose page we never learned of was shown to
    nobody: it just ends. A code lives for days, mostly longer than its provider can be waited for:
    if that one says nothing, the payer decides as if it had said that the code may be paid by. So
    he does where an operator does not know yet that it is to ask him on his phone: the call that
    tells it may be on its way.

    Args:
        providers: Who is switched on.
        attempt: As it was read.
        now: The business clock.
        because: Why it ends.
        anyway: Whether it ends though its provider says that it may still be paid by.

    Raises:
        ProviderAway: It is not known to be closed.
    """
    if attempt.state is AttemptState.MADE or attempt.session_id is None:
        close(attempt, because)
        return PageState.CLOSED
    by_code = attempt.manner is Manner.TOKEN
    provider = providers.get(attempt.provider)
    if not isinstance(provider, PageProvider) and now >= attempt.expires_at:
        # Of a provider that was switched off: nobody can be asked, so its page had to run out.
        close(attempt, NOT_KNOWN)
        return PageState.CLOSED
    if attempt.asked_soon and not anyway:
        # Whoever presses again and again learns it from the worker, and has us ask no more often.
        return PageState.USED
    if attempt.tries >= TRIES_HURRIED_MAX and not (by_code and anyway):
        return PageState.USED
    try:
        stands = _closed(provider, attempt)
    except ProviderAway as error:
        unknown = attempt.manner is Manner.PUSH and isinstance(error, ProviderRefused)
        if not by_code and not unknown:
            raise
        stands = PageState.OPEN
        if unknown and now >= attempt.expires_at:
            stands, because = PageState.CLOSED, NOT_KNOWN
    if stands is PageState.CLOSED:
        close(attempt, because)
        return stands
    if stands is PageState.OPEN and anyway:
        leave_open(attempt)
        return PageState.CLOSED
    ask_at_once(attempt)
    return stands


def _closed(provider: Provider | None, attempt: Attempt) -> PageState:
    if not isinstance(provider, PageProvider):
        raise ProviderAway(f"what is open is of {attempt.provider}, which is switched off")
    assert attempt.session_id is not None
    return provider.close_page(attempt.session_id)


def came_back(session: Session, attempt: Attempt) -> None:
    """Have us ask soon about an attempt whose payer waits. The caller owns the transaction.

    One that was closed is asked about only while it is (see Attempt.awaited).
    """
    execute(
        session,
        "UPDATE payment_attempt SET ask_at = clock_timestamp() + make_interval(secs => :soon)"
        " WHERE id = :id AND (state = 'sent' OR closed_because = :revived AND ask_at IS NOT NULL)"
        " AND tries < :most"
        " AND coalesce(ask_at, 'infinity') > clock_timestamp() + make_interval(secs => :soon)",
        {
            "id": attempt.id,
            "soon": ASK_BACK_SECONDS,
            "most": TRIES_HURRIED_MAX,
            "revived": REVIVED,
        },
    )


def doubt(session: Session, attempt: Attempt, now: datetime) -> bool:
    """Put in doubt that nothing comes by a closed attempt: its payer says that he paid by it.

    Who refused in his wallet goes back there and pays after all, and of that we are told once or
    never. The caller owns the transaction; it is asked about soon, by the worker.

    Returns:
        Whether it is asked about: not where a closed page is known to take nothing any more.
    """
    changed = execute(
        session,
        "UPDATE payment_attempt SET closed_because = :revived, tries = tries + 1,"
        " ask_at = clock_timestamp() + make_interval(secs => :soon)"
        f" WHERE id = :id AND {PAYABLE_CLOSED} AND tries < :most",
        {
            "id": attempt.id,
            "soon": ASK_BACK_SECONDS,
            "most": TRIES_HURRIED_MAX,
            "revived": REVIVED,
            "ended": now - UNDECIDED_MAX,
        },
    )
    return changed.rowcount == 1


def hindering(
    providers: Mapping[str, Provider], before: Sequence[Attempt], now: datetime
) -> Hindrance | None:
    """End earlier attempts, or ask about closed ones; return the first by which money may come.

    Args:
        providers: Who is switched on.
        before: Open ones, or closed ones that may still be paid by.
        now: The business clock.

    Raises:
        ProviderAway: One of them has a page that lives, and nobody can be asked about it.
    """
    closed = [each for each in before if each.state is AttemptState.CLOSED]
    for attempt in [each for each in before if each.state is not AttemptState.CLOSED][:AKIN_MAX]:
        if (stands := settle(providers, attempt, now)) is not PageState.CLOSED:
            return Hindrance(attempt, stands)
    used = _used(providers, closed, now)
    return None if used is None else Hindrance(used, PageState.USED)


def _used(
    providers: Mapping[str, Provider], closed: Sequence[Attempt], now: datetime
) -> Attempt | None:
    silent: set[str] = set()
    for attempt in closed:
        if attempt.asked_soon or (attempt.awaited and attempt.tries >= TRIES_HURRIED_MAX):
            return attempt
        if attempt.provider in silent:
            continue
        try:
            used = _may_bring(attempt, _asked(providers, attempt, now))
        except ProviderRefused:
            continue  # there is no such page, so nothing is paid by it
        except ProviderAway:
            if now < attempt.expires_at:
                raise
            silent.add(attempt.provider)
            continue
        if used:
            log.warning("closed_page_used", attempt=attempt.id)
            ask_at_once(attempt)
            return attempt
    return None


def _may_bring(attempt: Attempt, stands: PageState) -> bool:
    """Say whether money may come by a closed attempt, other than its payer has reckoned with."""
    if stands is PageState.OPEN and attempt.manner is Manner.PUSH:
        return attempt.closed_because != LEFT_OPEN
    return stands is PageState.USED


def _asked(providers: Mapping[str, Provider], attempt: Attempt, now: datetime) -> PageState:
    provider = providers.get(attempt.provider)
    if not isinstance(provider, PageProvider):
        raise ProviderAway(f"the page is of {attempt.provider}, which is switched off")
    assert attempt.session_id is not None
    return provider.ask(attempt.session_id, received_at=now).state
