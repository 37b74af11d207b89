"""A payer's way to a provider's page and back: attempts, each kept before the provider is asked.

Every call over the network stands between two transactions and inside none. Whatever is lost in
between (an answer, a process, the network), the same step may be taken again: the attempt's id is
the provider's idempotency key, so asking again finds the page that was made. An invoice has one
open attempt at a time, which a unique index keeps.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import structlog
from sqlmodel import Session

from gateway.billing.owing import read_owing
from gateway.books.seals import BooksKey
from gateway.clock import Clock, day_of
from gateway.collection.payments import record_reports
from gateway.db import alone, execute, transaction
from gateway.errors import ProviderAway, ProviderRefused
from gateway.models import AttemptState
from gateway.providers import (
    MadePage,
    PageFailed,
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

ATTEMPTS_MAX: Final = 10
"""For one invoice while a page lives: somebody who begins and gives up again and again waits."""
FAILED_COUNTS: Final = timedelta(minutes=5)
"""For how long one counts that failed at the provider, which is no fault of the payer's."""

ASK_FIRST_SECONDS: Final = 600
"""When we ask about a page that nobody came back from; its webhook mostly comes first."""
ASK_BACK_SECONDS: Final = 4
"""The same for a payer who came back and waits."""
ASK_SECONDS_MAX: Final = 1_800
ASK_OUTDATED_SECONDS_MAX: Final = 300
"""The same about a page that asks for what is not due any more: it could be paid by twice."""
AFTER_EXPIRY_SECONDS: Final = 30
ABOUT_TO_ASK_SECONDS: Final = 30
"""For how long the worker's question that is due is waited for, before a payer's press asks."""
AWAY_SECONDS: Final = 30
"""For how long a provider that did not answer is left alone: runs are rung more often than that."""
FAILED: Final = "failed"
"""Why an attempt was closed that the provider answered by an error of its own, for good."""
NOT_KNOWN: Final = "nobody could be asked"
"""Why an attempt was closed of which we do not know that nothing came by it."""
ASKING_SECONDS_MAX: Final = 10.0
"""When a run takes no further attempt: only the questions about the last one may take longer."""
ASKING: Final = "attempts.ask_due"
"""The right of the one run that asks. A second would hold a second worker up, and book nothing."""
OUTDATED_MAX: Final = 2_000
"""How many open pages are held against what is due at a time."""
TRIES_HURRIED_MAX: Final = 30
"""How often somebody who loads a page again can have us ask."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A payer who was sent to a provider's page."""

    id: str
    invoice_id: int
    reference: str
    provider: str
    amount_minor: int
    language: str
    state: AttemptState
    session_id: str | None
    page_url: str | None
    made_at: datetime
    expires_at: datetime
    tries: int
    closed_because: str | None
    asked_soon: bool
    """Whether the worker's question about it is due since a moment ago."""
    outdated: bool = False
    """Whether its page asks for what is not due any more, as the worker saw when it took it."""

    @property
    def is_open(self) -> bool:
        """Whether money may still come by it."""
        return self.state is AttemptState.SENT


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


def page_provider(providers: Mapping[str, Provider]) -> PageProvider | None:
    """Return the provider that makes pages to pay on: of several, the first in the file."""
    return next((p for p in providers.values() if isinstance(p, PageProvider)), None)


def latest_attempt(session: Session, reference: str) -> Attempt | None:
    """Return the open attempt of an invoice, or else the last there was."""
    return _one(
        session,
        "reference = :which ORDER BY state IN ('made', 'sent') DESC, made_at DESC, a.id LIMIT 1",
        reference,
    )


# -- beginning ------------------------------------------------------------------------------------


def begin(
    providers: Mapping[str, Provider],
    reference: str,
    *,
    due_minor: Callable[[Session], int],
    language: str,
    link: str,
    clock: Clock,
) -> Begun:
    """Bring a payer to a page that asks for what is due now: the open one, or a new one.

    Opens its own transactions and calls the provider between them.

    Args:
        providers: Who is switched on. The first that makes pages makes this one; a page that is
            open already is settled with whoever made it.
        reference: The invoice's.
        due_minor: Reads what is to be paid, in centimes; 0 or less where nothing is.
        language: Of the payer.
        link: The invoice's page, which the provider's page leads back to.
        clock: The business clock.

    Raises:
        ProviderAway: It is not known whether there is a page; nothing is lost, and trying again
            finds it.
        ProviderRefused: The provider makes no page for this.
    """
    provider = page_provider(providers)
    assert provider is not None, "asked for a page where nobody makes any"
    for _ in range(3):
        with transaction() as session:
            due = due_minor(session)
            known = _open_attempt(session, reference)
            if known is None and due > 0:
                _make(session, provider.name, reference, due, language, clock())
                known = _open_attempt(session, reference)
        if known is None:
            return Begun(Step.TOO_OFTEN if due > 0 else Step.NOTHING_DUE)
        if known.provider != provider.name or known.amount_minor != due or _ends(known, clock()):
            if not _settle(providers, known, clock()):
                return Begun(Step.UNKNOWN)
            continue
        if known.state is AttemptState.SENT and known.page_url:
            return Begun(Step.PAGE, known.page_url)
        made = _page(provider, known, link)
        if _sent(known, made):
            return Begun(Step.PAGE, made.url)
        # Settled by somebody else meanwhile, for another amount: nobody is sent to this page.
        provider.close_page(made.session_id)
    raise ProviderAway("the attempt changed under our hands")


def give_up(providers: Mapping[str, Provider], reference: str, *, clock: Clock) -> bool:
    """Close the open page of an invoice at its provider, and say whether none is open any more.

    Raises:
        ProviderAway: It is not known to be closed.
    """
    for _ in range(3):
        with transaction() as session:
            known = _open_attempt(session, reference)
        if known is None:
            return True
        if not _settle(providers, known, clock(), because="given up"):
            return False
    return False


def came_back(session: Session, attempt: Attempt) -> None:
    """Have us ask soon about an attempt whose payer waits. The caller owns the transaction."""
    execute(
        session,
        "UPDATE payment_attempt SET ask_at = clock_timestamp() + make_interval(secs => :soon)"
        " WHERE id = :id AND state = 'sent' AND tries < :most"
        " AND coalesce(ask_at, 'infinity') > clock_timestamp() + make_interval(secs => :soon)",
        {"id": attempt.id, "soon": ASK_BACK_SECONDS, "most": TRIES_HURRIED_MAX},
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
    )
    try:
        return provider.make_page(wanted)
    except ProviderRefused as error:
        log.error("page_refused", attempt=attempt.id, reason=str(error))
        _close(attempt, "refused")
        raise
    except PageFailed as error:
        # Under this key it will always answer so: the next press takes a new one.
        log.error("page_failed", attempt=attempt.id, reason=str(error))
        _close(attempt, FAILED)
        raise


def _sent(attempt: Attempt, made: MadePage) -> bool:
    """Keep where the page is; False if the attempt was closed meanwhile."""
    with transaction() as session:
        changed = execute(
            session,
            "UPDATE payment_attempt SET state = 'sent', session_id = :session_id, page_url = :url,"
            " ask_at = clock_timestamp() + make_interval(secs => :seconds)"
            " WHERE id = :id AND (state = 'made' OR session_id = :session_id AND state = 'sent')",
            {
                "id": attempt.id,
                "session_id": made.session_id,
                "url": made.url,
                "seconds": ASK_FIRST_SECONDS,
            },
        )
        return changed.rowcount == 1


def _settle(
    providers: Mapping[str, Provider],
    attempt: Attempt,
    now: datetime,
    because: str = "replaced",
) -> bool:
    """Bring an attempt to its end, and say whether it is known that no money comes by it.

    The provider that made its page is asked. One whose page we never learned of was shown to
    nobody: it just ends.
    """
    if attempt.state is AttemptState.MADE or attempt.session_id is None:
        _close(attempt, because)
        return True
    provider = providers.get(attempt.provider)
    if not isinstance(provider, PageProvider):
        # Of a provider that was switched off: nobody can be asked, so its page has to run out.
        if now < attempt.expires_at:
            raise ProviderAway(f"the open page is of {attempt.provider}, which is switched off")
        _close(attempt, NOT_KNOWN)
        return True
    if attempt.asked_soon:
        # Whoever presses again and again learns it from the worker, and has us ask no more often.
        return False
    if provider.close_page(attempt.session_id) is PageState.CLOSED:
        _close(attempt, because)
        return True
    # Paid, or about to be: the books are the worker's, and it asks at once.
    with transaction() as session:
        execute(
            session,
            "UPDATE payment_attempt SET ask_at = clock_timestamp() WHERE id = :id"
            " AND state = 'sent'",
            {"id": attempt.id},
        )
    return False


def _close(attempt: Attempt, because: str) -> None:
    with transaction() as session:
        execute(
            session,
            "UPDATE payment_attempt SET state = 'closed', closed_because = :because, ask_at = NULL"
            " WHERE id = :id AND state = :state",
            {"id": attempt.id, "because": because, "state": attempt.state.value},
        )


# -- asking ---------------------------------------------------------------------------------------


def ask_due(
    providers: Mapping[str, Provider], *, key: BooksKey, clock: Clock, asks_max: int
) -> int:
    """Ask about attempts whose outcome is not known, and book what is learned; return how many.

    Opens its own transactions and calls providers between them. While one asks, all others return
    at once: providers may be slow, and workers are few. Who takes an attempt puts off its next
    turn, further and further, before he asks. A provider that does not answer is not asked again
    in this run.
    """
    with alone(ASKING) as ours:
        return _ask_due(providers, key, clock, asks_max) if ours else 0


def _ask_due(providers: Mapping[str, Provider], key: BooksKey, clock: Clock, asks_max: int) -> int:
    pages = {name: p for name, p in providers.items() if isinstance(p, PageProvider)}
    if not pages:
        return 0
    _end_unsent(clock())
    asked = 0
    until = time.monotonic() + ASKING_SECONDS_MAX
    while asked < asks_max and time.monotonic() < until:
        with transaction() as session:
            attempt = _claim(session, list(pages), clock())
        if attempt is None:
            break
        asked += 1
        if not _ask(pages[attempt.provider], attempt, key, clock):
            del pages[attempt.provider]
    return asked


def _ask(provider: PageProvider, attempt: Attempt, key: BooksKey, clock: Clock) -> bool:
    """Ask about an attempt, and say whether there was an answer."""
    assert attempt.session_id is not None
    try:
        answer = provider.ask(attempt.session_id, received_at=clock())
        if answer.state is PageState.OPEN and attempt.outdated:
            if provider.close_page(attempt.session_id) is PageState.CLOSED:
                _close(attempt, "outdated")
            return True
    except ProviderAway as error:
        log.warning("attempt_unanswered", attempt=attempt.id, reason=str(error))
        refused = isinstance(error, ProviderRefused)
        if refused and clock() > attempt.expires_at:
            _close(attempt, NOT_KNOWN)
        if not refused:
            _leave_alone(provider)
        return refused
    if answer.state is PageState.OPEN:
        _put_off(attempt, attempt.expires_at - clock())
    if answer.reports:
        with transaction() as session:
            record_reports(session, answer.reports, key=key, now=clock())
    return True


def _claim(session: Session, providers: Sequence[str], now: datetime) -> Attempt | None:
    """Take the attempt that is most due, and put off its next turn.

    One whose page asks for what is no longer due is due at once, whatever was asked before: it
    could be paid by twice. Whether it has had that turn shows by its next one, which is then no
    further off than such turns are put off.
    """
    outdated = _outdated(session, providers, day_of(now))
    taken = execute(
        session,
        """
        WITH chosen AS (
            SELECT id, id = ANY(:outdated) AS outdated FROM payment_attempt
            WHERE state = 'sent' AND provider = ANY(:providers) AND (
                ask_at <= clock_timestamp()
                OR id = ANY(:outdated)
                AND ask_at > clock_timestamp() + make_interval(secs => greatest(
                    :away, least(:most_outdated, 5 * power(2, least(tries, 20) - 1))))
            )
            ORDER BY ask_at LIMIT 1 FOR UPDATE SKIP LOCKED
        )
        UPDATE payment_attempt SET tries = tries + 1, ask_at = clock_timestamp()
            + make_interval(secs => least(
                CASE WHEN outdated THEN :most_outdated ELSE :most END,
                5 * power(2, least(tries, 20))))
        FROM chosen WHERE payment_attempt.id = chosen.id RETURNING payment_attempt.id
        """,
        {
            "most": ASK_SECONDS_MAX,
            "most_outdated": ASK_OUTDATED_SECONDS_MAX,
            "away": AWAY_SECONDS,
            "providers": list(providers),
            "outdated": outdated,
        },
    ).scalar_one_or_none()
    found = None if taken is None else _one(session, "a.id = :which", taken)
    return found and replace(found, outdated=taken in outdated)


def _outdated(session: Session, providers: Sequence[str], today: date) -> list[str]:
    """Return the attempts whose page asks for what is not due any more.

    A penalty that a month has added since the page was made changes nothing: what is paid on it
    counts from the day of the payment, and a small rest is due afterwards.
    """
    asked = {"providers": list(providers), "most": OUTDATED_MAX}
    rows = execute(session, _NOT_PLAIN, asked).mappings().all()
    by_day: dict[date, list[Any]] = {}
    for row in rows:
        by_day.setdefault(day_of(row["made_at"]), []).append(row)
    found = []
    for made_on, some in by_day.items():
        owing = read_owing(session, [row["invoice_id"] for row in some], today, grown_by=made_on)
        found += [r["id"] for r in some if owing[r["invoice_id"]].due_minor != r["amount_minor"]]
    return found


# Those that ask for the invoice as it stands, without a penalty, are what most are, and are right.
_NOT_PLAIN: Final = """
    SELECT a.id, a.invoice_id, a.amount_minor, a.made_at
    FROM payment_attempt a JOIN invoice ON invoice.id = invoice_id
    WHERE state = 'sent' AND provider = ANY(:providers)
        AND (cancelled_at IS NOT NULL OR a.amount_minor <> owed_minor - paid_minor)
    ORDER BY ask_at LIMIT :most
"""


def _leave_alone(provider: PageProvider) -> None:
    with transaction() as session:
        execute(
            session,
            "UPDATE payment_attempt SET ask_at = clock_timestamp() + make_interval(secs => :secs)"
            " WHERE state = 'sent' AND provider = :provider"
            " AND ask_at < clock_timestamp() + make_interval(secs => :secs)",
            {"secs": AWAY_SECONDS, "provider": provider.name},
        )


def _put_off(attempt: Attempt, left: timedelta) -> None:
    """Ask about a page that is open when it has run out: until then its webhooks tell."""
    with transaction() as session:
        execute(
            session,
            "UPDATE payment_attempt SET ask_at = clock_timestamp() + make_interval(secs => :secs)"
            " WHERE id = :id AND state = 'sent'",
            {"id": attempt.id, "secs": max(0, int(left.total_seconds())) + AFTER_EXPIRY_SECONDS},
        )


def _end_unsent(now: datetime) -> None:
    """End attempts whose page we never learned of, once it would take no payment anyway."""
    with transaction() as session:
        execute(
            session,
            "UPDATE payment_attempt SET state = 'closed', closed_because = 'never sent'"
            " WHERE state = 'made' AND expires_at < :now",
            {"now": now},
        )


# -- reading --------------------------------------------------------------------------------------


def _open_attempt(session: Session, reference: str) -> Attempt | None:
    return _one(session, "reference = :which AND state IN ('made', 'sent')", reference)


def _one(session: Session, where: str, which: str) -> Attempt | None:
    asked = {"which": which, "soon": ABOUT_TO_ASK_SECONDS}
    row = execute(session, f"{_ATTEMPTS} WHERE {where}", asked).mappings().first()
    if row is None:
        return None
    values: dict[str, Any] = dict(row)
    return Attempt(**(values | {"state": AttemptState(values["state"])}))


_ATTEMPTS: Final = """
    SELECT a.id, invoice_id, reference, provider, a.amount_minor, language, state, session_id,
        page_url, made_at, expires_at, tries, closed_because,
        coalesce(ask_at <= clock_timestamp()
            AND ask_at > clock_timestamp() - make_interval(secs => :soon), false) AS asked_soon
    FROM payment_attempt a JOIN invoice ON invoice.id = invoice_id
"""
