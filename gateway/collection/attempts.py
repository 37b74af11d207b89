"""A payer's way to a provider and back: attempts, each kept before the provider is asked.

He is sent to a provider's page, given a code that he says at an agency, or asked on his phone (see
Manner), for one invoice or for several by one reference.

Every call over the network stands between two transactions and inside none. Whatever is lost in
between (an answer, a process, the network), the same step may be taken again: the attempt's id is
the provider's idempotency key, so asking again finds what was made. A reference has one open
attempt at a time, which a unique index keeps; and where two references pay some of the same, who
begins with one ends what is open by the other first. What became of an attempt is asked by
gateway.collection.inquiries, and once more before another is made, where it may still be paid
though it was refused before.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import structlog
from sqlmodel import Session

from gateway.clock import Clock
from gateway.collection.attempt_ends import hindering, settle
from gateway.collection.attempt_forms import REUSED_WITHIN, wanted_page
from gateway.collection.attempt_rows import (
    ASK_FIRST_UNSIGNED_SECONDS,
    ATTEMPTS_MAX,
    FAILED,
    OWN,
    Attempt,
    akin_open,
    attempt_of,
    close,
    closed_and_payable,
    latest_attempt,
    open_attempt,
    stand_alone,
)
from gateway.db import execute, transaction
from gateway.errors import ProviderAway, ProviderRefused
from gateway.models import AttemptState, Manner
from gateway.providers import (
    PAGE_LIFE,
    Foretelling,
    MadePage,
    PageFailed,
    PageMadeBefore,
    PageProvider,
    PageState,
    Provider,
    WantedPage,
)

FAILED_COUNTS: Final = timedelta(minutes=5)
"""For how long one counts that failed at the provider, which is no fault of the payer's."""

ASK_FIRST_SECONDS: Final = 600
"""When we ask about a page that nobody came back from; its webhook mostly comes first."""
STEPS_MAX: Final = 5
"""How often one press looks again, because another changed what it had read."""
MADE_ELSEWHERE_SECONDS: Final = 4.0
"""For how long a press waits for another one, which has the page and is about to keep it."""
LOOK_SECONDS: Final = 0.1
log = structlog.get_logger(__name__)


class Step(StrEnum):
    """What a payer does next who wants to pay."""

    PAGE = "page"
    """He goes to the provider's page."""
    CODE = "code"
    """He says a code at an agency."""
    ASKED = "asked"
    """He confirms on his phone, where he is asked."""
    PHONE = "phone"
    """He says on which phone he wants to be asked."""
    UNKNOWN = "unknown"
    """He waits, or decides: what becomes of an earlier attempt is not known."""
    NOTHING_DUE = "nothing_due"
    TOO_OFTEN = "too_often"


@dataclass(frozen=True, slots=True)
class Begun:
    """What came of beginning."""

    step: Step
    url: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    """What the payer's browser must post there; none: the address is all."""
    attempt_id: str = field(default="", compare=False)
    """The attempt that this is about; of UNKNOWN, the earlier one."""
    left_to_payer: bool = field(default=False, compare=False)
    """Of UNKNOWN: whether only its payer can leave it, who has not paid by it as far as its
    provider knows."""


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
    phone: str = "",
) -> Begun:
    """Bring a payer to what takes the money that is due now: what is open already, or a new one.

    Opens its own transactions and calls the provider between them.

    Args:
        providers: Who is switched on. What is open already is settled with whoever made it.
        reference: The invoice's, or that of several together.
        due_minor: Reads what is to be paid, in centimes; 0 or less where nothing is.
        language: Of the payer.
        link: The reference's page (our address, a slash, the reference), which the provider's page
            leads back to.
        clock: The business clock.
        way: The name of the provider by whom it is to be; else the first.
        phone: Whom a provider that asks on a phone is to ask: country code and number, digits only.

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
            look = _look(session, reference, due_minor, asked, clock())
            if look.nothing_due:
                return Begun(Step.NOTHING_DUE)
            known, due = look.known, look.due_minor
            if look.is_free:
                if provider.manner is Manner.PUSH and not phone:
                    return Begun(Step.PHONE)
                _make(session, provider, reference, due, language, clock())
                known = open_attempt(session, reference)
        before = look.akin or look.closed
        if known is not None and _is_unfit(known, provider, due, clock()):
            before = [known]
        if before:
            if (hindrance := hindering(providers, before, clock())) is not None:
                left = hindrance.stands is PageState.OPEN
                return Begun(Step.UNKNOWN, attempt_id=hindrance.attempt.id, left_to_payer=left)
            asked.update(each.id for each in before)
            continue
        if known is None:
            return Begun(Step.TOO_OFTEN)
        begun = _go_on(provider, known, link, phone)
        if begun is not None:
            return begun
    raise ProviderAway("the attempt changed under our hands")


def _go_on(provider: PageProvider, attempt: Attempt, link: str, phone: str) -> Begun | None:
    """Bring a payer to what his attempt has made, or makes now; None: look again how it stands."""
    foretold = isinstance(provider, Foretelling)
    # With a number the same wish is wished again: the first may have been lost before it came.
    again = foretold and phone
    if attempt.state is AttemptState.SENT and not again and (begun := _as_it_is(attempt)):
        return begun
    if attempt.manner is Manner.PUSH and not phone:
        return Begun(Step.PHONE)
    wanted = wanted_page(provider, attempt, link, phone)
    if foretold:
        return _ask_on_phone(provider, attempt, wanted)
    # A form is never stored: of an attempt that has one, the same wish makes it again.
    try:
        made = _page(provider, attempt, wanted)
    except PageMadeBefore:
        _await_winner(attempt)
        return None
    if _sent(attempt, made):
        return Begun(_STEPS[attempt.manner], made.url, made.fields, attempt_id=attempt.id)
    # Settled by somebody else meanwhile, for another amount: nobody is sent to this page.
    provider.close_page(made.session_id)
    return None


def _ask_on_phone(provider: PageProvider, attempt: Attempt, wanted: WantedPage) -> Begun | None:
    """Have a payer asked on his phone; None: look again how the attempt stands.

    His phone may ring whatever becomes of the answer, so it is kept first under which names he is
    asked: from then on the operator is asked about it, and nobody takes it for never begun.
    """
    assert isinstance(provider, Foretelling)
    first = attempt.state is AttemptState.MADE
    foretold = provider.foretell(wanted)
    if first and not _sent(attempt, foretold, again=False):
        return None
    try:
        provider.make_page(wanted)
    except ProviderRefused as error:
        log.error("page_refused", attempt=attempt.id, reason=str(error))
        if first and _is_unknown(provider, foretold.session_id):
            close(replace(attempt, state=AttemptState.SENT), "refused")
        raise
    return Begun(Step.ASKED, attempt_id=attempt.id)


def _is_unknown(provider: PageProvider, session_id: str) -> bool:
    """Say whether an operator knows nothing of a wish it refused: another tab's may be taken."""
    try:
        provider.close_page(session_id)
    except ProviderRefused:
        return True
    except ProviderAway:
        return False
    return False


@dataclass(frozen=True, slots=True)
class _Look:
    """How a reference stands before a press does anything."""

    known: Attempt | None
    akin: list[Attempt]
    closed: list[Attempt]
    due_minor: int

    @property
    def nothing_due(self) -> bool:
        return self.known is None and self.due_minor <= 0

    @property
    def is_free(self) -> bool:
        return not (self.known or self.akin or self.closed)


def _look(
    session: Session,
    reference: str,
    due_minor: Callable[[Session], int],
    asked: set[str],
    now: datetime,
) -> _Look:
    """Return how a reference stands; from then on nobody else begins what would pay the same.

    What is due is read last: a payment may be booked between two of these readings. Then an attempt
    is seen that is paid by now, which does no harm; a sum due that was paid by an attempt that is
    no longer open would make a second page.
    """
    stand_alone(session, reference)
    known = open_attempt(session, reference)
    akin = [] if known else akin_open(session, reference)
    closed = [] if known or akin else closed_and_payable(session, reference, now=now)
    closed = [each for each in closed if each.id not in asked]
    return _Look(known, akin, closed, due_minor(session))


_STEPS: Final = {Manner.PAGE: Step.PAGE, Manner.TOKEN: Step.CODE, Manner.PUSH: Step.ASKED}


def _as_it_is(attempt: Attempt) -> Begun | None:
    """Return where the payer of an attempt goes on, if that was kept."""
    if attempt.manner is Manner.PAGE and not attempt.page_url:
        return None
    return Begun(_STEPS[attempt.manner], attempt.page_url or "", attempt_id=attempt.id)


def give_up(
    providers: Mapping[str, Provider], reference: str, *, clock: Clock, anyway: bool = False
) -> bool:
    """Close what is open of a reference (see `end_open`), and say whether another may be opened."""
    stands = end_open(providers, reference, clock=clock, anyway=anyway)
    return stands is PageState.CLOSED


def end_open(
    providers: Mapping[str, Provider], reference: str, *, clock: Clock, anyway: bool = False
) -> PageState:
    """Close what is open of a reference at its provider, and return how it stands then.

    Also what is open of another reference that is to pay some of the same.

    Args:
        providers: Who is switched on.
        reference: The invoice's, or that of several together.
        clock: The business clock.
        anyway: The payer knows that he could pay twice: a page that is open, and that we cannot
            close, is no hindrance. We go on asking about it. One that is being paid is.

    Returns:
        CLOSED: another may be opened. OPEN: it may be paid by, and only its payer can leave it.
        USED: it is being paid, or not known not to be.

    Raises:
        ProviderAway: It is not known to be closed.
    """
    stands = PageState.USED
    for _ in range(3):
        with transaction() as session:
            known = latest_attempt(session, reference)
        if known is None or known.state in {AttemptState.PAID, AttemptState.CLOSED}:
            awaited = known is not None and known.awaited
            return PageState.USED if awaited else PageState.CLOSED
        stands = settle(providers, known, clock(), because="given up", anyway=anyway)
        if stands is not PageState.CLOSED:
            break
    return stands


def _is_unfit(attempt: Attempt, provider: PageProvider, due_minor: int, now: datetime) -> bool:
    """Say whether an attempt is by another way or for another amount, or ends too soon to begin."""
    by = (provider.name, provider.manner, due_minor)
    if (attempt.provider, attempt.manner, attempt.amount_minor) != by:
        return True
    if attempt.state is AttemptState.MADE:
        # More than half an hour of an hour: Stripe makes no page for less.
        least = provider.life / 2 + timedelta(minutes=1)
    else:
        least = timedelta(0) if attempt.manner is Manner.PUSH else REUSED_WITHIN
    return attempt.expires_at - now < least


def _make(
    session: Session,
    provider: PageProvider,
    reference: str,
    due: int,
    language: str,
    now: datetime,
) -> None:
    """Keep an attempt, unless another was quicker or there were too many of late."""
    execute(
        session,
        f"""
        INSERT INTO payment_attempt (id, invoice_id, bundle_id, provider, manner, amount_minor,
            language, made_at, expires_at)
        SELECT :id, invoice_id, bundle_id, :provider, :manner, :due, :language, :now, :expires
        FROM (SELECT id AS invoice_id, NULL AS bundle_id FROM invoice WHERE reference = :reference
            UNION ALL SELECT NULL, id FROM bundle WHERE reference = :reference) AS what
        WHERE :most > (
            SELECT count(*) FROM payment_attempt a WHERE {OWN} AND a.made_at > :since
                AND (closed_because IS DISTINCT FROM :failed OR a.made_at > :lately)
        )
        ON CONFLICT DO NOTHING
        """,
        {
            "id": f"wasl_{secrets.token_hex(16)}",
            "provider": provider.name,
            "manner": provider.manner.value,
            "due": due,
            "language": language,
            "now": now,
            "expires": now + provider.life,
            "since": now - PAGE_LIFE,
            "failed": FAILED,
            "lately": now - FAILED_COUNTS,
            "most": ATTEMPTS_MAX,
            "reference": reference,
        },
    )


def _page(provider: PageProvider, attempt: Attempt, wanted: WantedPage) -> MadePage:
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


def _sent(attempt: Attempt, made: MadePage, *, again: bool = True) -> bool:
    """Keep what was made; False if the attempt was closed meanwhile.

    Or, unless `again`, if another has kept it before.
    """
    token = None if made.token is None else hashlib.sha256(made.token.encode()).digest()
    with transaction() as session:
        changed = execute(
            session,
            "UPDATE payment_attempt SET state = 'sent', session_id = :session_id, page_url = :url,"
            " code = :code, expires_at = coalesce(:expires, expires_at), token_sha256 = :token,"
            " ask_at = CASE WHEN state = 'sent' THEN ask_at"
            " ELSE clock_timestamp() + make_interval(secs => :seconds) END"
            " WHERE id = :id AND (state = 'made'"
            " OR :again AND session_id = :session_id AND state = 'sent')",
            {
                "id": attempt.id,
                "again": again,
                "session_id": made.session_id,
                "url": None if made.fields else made.url or None,
                "code": made.code or None,
                "expires": made.expires_at,
                "token": token,
                "seconds": ASK_FIRST_SECONDS if token is None else ASK_FIRST_UNSIGNED_SECONDS,
            },
        )
        return changed.rowcount == 1
