"""A payer's way to a provider's page and back: attempts, each kept before the provider is asked.

Every call over the network stands between two transactions and inside none. Whatever is lost in
between (an answer, a process, the network), the same step may be taken again: the attempt's id is
the provider's idempotency key, so asking again finds the page that was made. An invoice has one
open attempt at a time, which a unique index keeps. What became of it is asked by
gateway.collection.inquiries, and once more before another page is made, where it may still be paid
though it was refused before.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import structlog
from sqlmodel import Session

from gateway.clock import Clock
from gateway.collection.attempt_rows import (
    ASK_FIRST_UNSIGNED_SECONDS,
    ATTEMPTS_MAX,
    FAILED,
    NOT_KNOWN,
    REVIVED,
    Attempt,
    ask_at_once,
    attempt_of,
    close,
    closed_and_payable,
    latest_attempt,
    leave_open,
    open_attempt,
)
from gateway.db import execute, transaction
from gateway.errors import ProviderAway, ProviderRefused
from gateway.models import AttemptState
from gateway.providers import (
    MadePage,
    PageFailed,
    PageMadeBefore,
    PageProvider,
    PageState,
    Provider,
    WantedPage,
)

PAGE_LIFE: Final = timedelta(minutes=60)
"""How long a page takes a payment. Stripe makes none for less than thirty minutes."""
PAGE_LIFE_MIN: Final = timedelta(minutes=31)
"""What must be left of it when it is made."""
REUSED_WITHIN: Final = timedelta(minutes=2)
"""A page that ends sooner is no good to send a payer to."""

FAILED_COUNTS: Final = timedelta(minutes=5)
"""For how long one counts that failed at the provider, which is no fault of the payer's."""

ASK_FIRST_SECONDS: Final = 600
"""When we ask about a page that nobody came back from; its webhook mostly comes first."""
ASK_BACK_SECONDS: Final = 4
"""The same for a payer who came back and waits."""
STEPS_MAX: Final = 5
"""How often one press looks again, because another changed what it had read."""
MADE_ELSEWHERE_SECONDS: Final = 4.0
"""For how long a press waits for another one, which has the page and is about to keep it."""
LOOK_SECONDS: Final = 0.1
TRIES_HURRIED_MAX: Final = 60
"""How often somebody who loads a page again, or gives it up again, can have us ask."""

log = structlog.get_logger(__name__)


class Step(StrEnum):
    """Where a payer who wants to pay by card is sent."""

    PAGE = "page"
    """To the provider's page."""
    UNKNOWN = "unknown"
    """To wait: what became of an earlier page is not known."""
    NOTHING_DUE = "nothing_due"
    TOO_OFTEN = "too_often"


@dataclass(frozen=True, slots=True)
class Begun:
    """What came of beginning."""

    step: Step
    url: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    """What the payer's browser must post there; none: the address is all."""


def page_providers(providers: Mapping[str, Provider]) -> list[PageProvider]:
    """Return the providers that make pages to pay on, in the order of the file."""
    return [p for p in providers.values() if isinstance(p, PageProvider)]


def page_provider(providers: Mapping[str, Provider], named: str = "") -> PageProvider | None:
    """Return the provider of this name if it makes pages, or else the first that does."""
    known = page_providers(providers)
    return next((p for p in known if p.name == named), known[0] if known else None)


# -- beginning ------------------------------------------------------------------------------------


def begin(
    providers: Mapping[str, Provider],
    reference: str,
    *,
    due_minor: Callable[[Session], int],
    language: str,
    link: str,
    clock: Clock,
    way: str = "",
) -> Begun:
    """Bring a payer to a page that asks for what is due now: the open one, or a new one.

    Opens its own transactions and calls the provider between them.

    Args:
        providers: Who is switched on. A page that is open already is settled with whoever made it.
        reference: The invoice's.
        due_minor: Reads what is to be paid, in centimes; 0 or less where nothing is.
        language: Of the payer.
        link: The invoice's page (our address, a slash, its reference), which the provider's page
            leads back to.
        clock: The business clock.
        way: The name of the provider whose page it is to be; else the first makes it.

    Raises:
        ProviderAway: It is not known whether there is a page; nothing is lost, and trying again
            finds it.
        ProviderRefused: The provider makes no page for this.
    """
    provider = page_provider(providers, way)
    assert provider is not None, "asked for a page where nobody makes any"
    asked: set[str] = set()
    for _ in range(STEPS_MAX):
        with transaction() as session:
            # What is due is read last: a payment may be booked between two of these readings. Then
            # an attempt is seen that is paid by now, which does no harm; a sum due that was paid by
            # an attempt that is no longer open would make a second page.
            known = open_attempt(session, reference)
            closed = []
            if known is None:
                closed = closed_and_payable(session, reference, now=clock())
                closed = [each for each in closed if each.id not in asked]
            due = due_minor(session)
            if known is None and due <= 0:
                return Begun(Step.NOTHING_DUE)
            if known is None and not closed:
                _make(session, provider.name, reference, due, language, clock())
                known = open_attempt(session, reference)
        if closed:
            if not _nothing_came(providers, closed, clock()):
                return Begun(Step.UNKNOWN)
            asked.update(each.id for each in closed)
            continue
        if known is None:
            return Begun(Step.TOO_OFTEN)
        if known.provider != provider.name or known.amount_minor != due or _ends(known, clock()):
            if not _settle(providers, known, clock()):
                return Begun(Step.UNKNOWN)
            asked.add(known.id)
            continue
        if known.state is AttemptState.SENT and known.page_url:
            return Begun(Step.PAGE, known.page_url)
        # A form is never stored: of an attempt that has one, the same wish makes it again.
        try:
            made = _page(provider, known, link)
        except PageMadeBefore:
            _await_winner(known)
            continue
        if _sent(known, made):
            return Begun(Step.PAGE, made.url, made.fields)
        # Settled by somebody else meanwhile, for another amount: nobody is sent to this page.
        provider.close_page(made.session_id)
    raise ProviderAway("the attempt changed under our hands")


def give_up(
    providers: Mapping[str, Provider], reference: str, *, clock: Clock, anyway: bool = False
) -> bool:
    """Close the open page of an invoice at its provider, and say whether another may be opened.

    Args:
        providers: Who is switched on.
        reference: The invoice's.
        clock: The business clock.
        anyway: The payer knows that he could pay twice: a page that is open, and that we cannot
            close, is no hindrance. We go on asking about it. One that is being paid is.

    Raises:
        ProviderAway: It is not known to be closed.
    """
    for _ in range(3):
        with transaction() as session:
            known = latest_attempt(session, reference)
        if known is None or known.state in {AttemptState.PAID, AttemptState.CLOSED}:
            return known is None or not known.awaited
        if not _settle(providers, known, clock(), because="given up", anyway=anyway):
            return False
    return False


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


def _ends(attempt: Attempt, now: datetime) -> bool:
    """Say whether an attempt's page takes a payment for too short a time to begin one."""
    least = PAGE_LIFE_MIN if attempt.state is AttemptState.MADE else REUSED_WITHIN
    return attempt.expires_at - now < least


def _make(
    session: Session, provider: str, reference: str, due: int, language: str, now: datetime
) -> None:
    """Keep an attempt, unless another was quicker or there were too many of late."""
    execute(
        session,
        """
        INSERT INTO payment_attempt
            (id, invoice_id, provider, amount_minor, language, made_at, expires_at)
        SELECT :id, invoice.id, :provider, :due, :language, :now, :expires
        FROM invoice WHERE reference = :reference AND :most > (
            SELECT count(*) FROM payment_attempt WHERE invoice_id = invoice.id AND made_at > :since
                AND (closed_because IS DISTINCT FROM :failed OR made_at > :lately)
        )
        ON CONFLICT (invoice_id) WHERE state IN ('made', 'sent') DO NOTHING
        """,
        {
            "id": f"wasl_{secrets.token_hex(16)}",
            "provider": provider,
            "due": due,
            "language": language,
            "now": now,
            "expires": now + PAGE_LIFE,
            "since": now - PAGE_LIFE,
            "failed": FAILED,
            "lately": now - FAILED_COUNTS,
            "most": ATTEMPTS_MAX,
            "reference": reference,
        },
    )


def _page(provider: PageProvider, attempt: Attempt, link: str) -> MadePage:
    wanted = WantedPage(
        attempt_id=attempt.id,
        reference=attempt.reference,
        amount_minor=attempt.amount_minor,
        language=attempt.language,
        back=f"{link}?card=back&lang={attempt.language}",
        left=f"{link}?card=left&lang={attempt.language}",
        expires_at=attempt.expires_at,
        notify_url=f"{link.rpartition('/')[0]}/webhooks/{provider.name}",
    )
    try:
        return provider.make_page(wanted)
    except ProviderRefused as error:
        log.error("page_refused", attempt=attempt.id, reason=str(error))
        close(attempt, "refused")
        raise
    except PageMadeBefore:
        raise
    except PageFailed as error:
        # Under this key it will always answer so: the next press takes a new one.
        log.error("page_failed", attempt=attempt.id, reason=str(error))
        close(attempt, FAILED)
        raise


def _await_winner(attempt: Attempt) -> None:
    """Wait for whoever was told the page of an attempt, and end it if nobody keeps it.

    Its answer was lost then: nobody has seen that page, and the next look makes another. Whoever
    is slower than that finds the attempt closed, and sends nobody there.
    """
    until = time.monotonic() + MADE_ELSEWHERE_SECONDS
    while True:
        with transaction() as session:
            stands = attempt_of(session, attempt.id).state
        if stands is not AttemptState.MADE:
            return
        if time.monotonic() >= until:
            break
        time.sleep(LOOK_SECONDS)
    log.warning("page_answer_lost", attempt=attempt.id)
    close(attempt, FAILED)


def _sent(attempt: Attempt, made: MadePage) -> bool:
    """Keep where the page is; False if the attempt was closed meanwhile."""
    token = None if made.token is None else hashlib.sha256(made.token.encode()).digest()
    with transaction() as session:
        changed = execute(
            session,
            "UPDATE payment_attempt SET state = 'sent', session_id = :session_id, page_url = :url,"
            " token_sha256 = :token, ask_at = CASE WHEN state = 'sent' THEN ask_at"
            " ELSE clock_timestamp() + make_interval(secs => :seconds) END"
            " WHERE id = :id AND (state = 'made' OR session_id = :session_id AND state = 'sent')",
            {
                "id": attempt.id,
                "session_id": made.session_id,
                "url": None if made.fields else made.url,
                "token": token,
                "seconds": ASK_FIRST_SECONDS if token is None else ASK_FIRST_UNSIGNED_SECONDS,
            },
        )
        return changed.rowcount == 1


def _settle(
    providers: Mapping[str, Provider],
    attempt: Attempt,
    now: datetime,
    because: str = "replaced",
    *,
    anyway: bool = False,
) -> bool:
    """Bring an attempt to its end, and say whether it is known that no money comes by it.

    The provider that made its page is asked. One whose page we never learned of was shown to
    nobody: it just ends.
    """
    if attempt.state is AttemptState.MADE or attempt.session_id is None:
        close(attempt, because)
        return True
    provider = providers.get(attempt.provider)
    if not isinstance(provider, PageProvider):
        # Of a provider that was switched off: nobody can be asked, so its page has to run out.
        if now < attempt.expires_at:
            raise ProviderAway(f"the open page is of {attempt.provider}, which is switched off")
        close(attempt, NOT_KNOWN)
        return True
    if attempt.asked_soon and not anyway:
        # Whoever presses again and again learns it from the worker, and has us ask no more often.
        return False
    if attempt.tries >= TRIES_HURRIED_MAX:
        return False
    stands = provider.close_page(attempt.session_id)
    if stands is PageState.CLOSED:
        close(attempt, because)
        return True
    if stands is PageState.OPEN and anyway:
        leave_open(attempt)
        return True
    ask_at_once(attempt)
    return False


def _nothing_came(
    providers: Mapping[str, Provider], closed: Sequence[Attempt], now: datetime
) -> bool:
    """Ask about closed attempts that may still be paid by, and say whether no money comes by them.

    Raises:
        ProviderAway: One of them has a page that lives, and nobody can be asked about it.
    """
    silent: set[str] = set()
    for attempt in closed:
        if attempt.asked_soon or (attempt.awaited and attempt.tries >= TRIES_HURRIED_MAX):
            return False
        if attempt.provider in silent:
            continue
        try:
            used = _asked(providers, attempt, now) is PageState.USED
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
            return False
    return True


def _asked(providers: Mapping[str, Provider], attempt: Attempt, now: datetime) -> PageState:
    provider = providers.get(attempt.provider)
    if not isinstance(provider, PageProvider):
        raise ProviderAway(f"the page is of {attempt.provider}, which is switched off")
    assert attempt.session_id is not None
    return provider.ask(attempt.session_id, received_at=now).state
