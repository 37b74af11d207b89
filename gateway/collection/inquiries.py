"""Asking providers what became of payers who were sent to their pages, where no delivery has told.

Every call over the network stands between two transactions and inside none. Questions about an
attempt come ever more seldom, those to a provider keep to a budget; both run on the database's
clock. An unsigned callback is a hint: it makes a question due, and proves nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, Final

import structlog
from sqlmodel import Session

from gateway.billing.owing import read_owing
from gateway.books.seals import BooksKey
from gateway.clock import Clock, day_of
from gateway.collection.allocation import CURRENT_OF_PLAN
from gateway.collection.attempt_rows import (
    LEFT_OPEN,
    NOT_KNOWN,
    REVIVED,
    UNDECIDED,
    UNDECIDED_MAX,
    Attempt,
    attempt_of,
    close,
    leave_open,
)
from gateway.collection.payments import record_reports
from gateway.collection.reports import PaymentReport, Report
from gateway.db import alone, execute, transaction
from gateway.errors import ProviderAway, ProviderRefused
from gateway.models import Manner
from gateway.providers import Answer, AskedSoOften, PageProvider, PageState, Provider

ASK_SECONDS_MAX: Final = 1_800
ASK_OUTDATED_SECONDS_MAX: Final = 300
"""The same about a page that asks for what is not due any more: it could be paid by twice."""
ASK_OPEN_SECONDS: Final = 60
"""How often at most we ask about an open page of which nothing reliable will tell."""
ASK_OPEN_SECONDS_MAX: Final = 120
"""How long at most we do not ask about it while it lives, whatever the back-off has come to. About
a code, which lives for days, it is ASK_SECONDS_MAX."""
AFTER_EXPIRY_SECONDS: Final = 30
AWAY_SECONDS: Final = 30
"""For how long a provider that did not answer is left alone: runs are rung more often than that."""
ASKING_SECONDS_MAX: Final = 10
"""When a run takes no further attempt: only the questions about the last one may take longer."""
ASKING: Final = "attempts.ask_due"
"""The right of the one run that asks. A second would hold a second worker up, and book nothing."""
OUTDATED_MAX: Final = 2_000
"""How many open pages are held against what is due at a time."""
ASKS_PER_MINUTE: Final = 120
"""To a provider whose settings say nothing. Cards have signed webhooks that are sent until we take
them, so few questions are left; each may be three calls, far below what Stripe allows."""
HINTS_FREE: Final = 3
"""So many questions about an attempt may follow upon hints at once."""
HINT_SECONDS: Final = 10
"""How far apart the later ones are, however many hints come: the true one may repeat an early one
word by word."""
HINTED_TRIES_MAX: Final = 400
"""After so many questions hints hurry us no more: whoever learned one token could have us ask for
ever. An hour of them."""

_NONE: Final = timedelta(0)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt that is ours to ask about."""

    attempt: Attempt
    next_at: datetime
    """When its next turn is; another time stands there if somebody was in a hurry meanwhile."""
    outdated: bool
    """Whether its page asks for what is not due any more."""


def heed(session: Session, provider: str, token: str) -> bool:
    """Have us ask soon about the attempt that a token is of, and say whether there is one.

    A closed attempt is asked about as well: the provider may know better by now. The caller owns
    the transaction.
    """
    # The microsecond: a question that is being asked may be too early for what this hint is about,
    # so whoever asks it is not to put the next one off (see `_set_next`).
    found = execute(
        session,
        """
        UPDATE payment_attempt SET ask_at = CASE WHEN state = 'paid' THEN ask_at ELSE
            least(ask_at - interval '1 microsecond', clock_timestamp() + make_interval(secs =>
                CASE WHEN tries < :free THEN 0 WHEN tries < :hinted THEN :floor ELSE :most END)) END
        WHERE provider = :provider AND token_sha256 = :token RETURNING id
        """,
        {
            "free": HINTS_FREE,
            "hinted": HINTED_TRIES_MAX,
            "floor": HINT_SECONDS,
            "most": ASK_SECONDS_MAX,
            "provider": provider,
            "token": hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest(),
        },
    )
    return found.first() is not None


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
            claimed = claim(session, list(pages.values()), clock())
        if claimed is None:
            break
        asked += 1
        if not _ask(pages[claimed.attempt.provider], claimed, key, clock):
            del pages[claimed.attempt.provider]
    return asked


def _ask(provider: PageProvider, claimed: Claim, key: BooksKey, clock: Clock) -> bool:
    """Ask about an attempt, and say whether there was an answer."""
    attempt = claimed.attempt
    assert attempt.session_id is not None
    try:
        answer = provider.ask(attempt.session_id, received_at=clock())
        if answer.state is PageState.OPEN and attempt.is_open:
            ended = clock() > attempt.expires_at
            if claimed.outdated or ended:
                if provider.close_page(attempt.session_id) is PageState.CLOSED:
                    close(attempt, "outdated" if claimed.outdated else "lapsed")
                    return True
                if claimed.outdated and attempt.manner is Manner.TOKEN:
                    # A code cannot be closed mostly, and lives for days: nobody waits for it.
                    leave_open(attempt)
                    return True
    except ProviderAway as error:
        log.warning("attempt_unanswered", attempt=attempt.id, reason=str(error))
        refused = isinstance(error, ProviderRefused)
        if refused:
            _after_refusal(claimed, clock())
        else:
            _leave_alone(provider)
            if clock() > attempt.expires_at + UNDECIDED_MAX:
                close(attempt, NOT_KNOWN)
        return refused
    if answer.reports:
        reports = [_of(attempt, report) for report in answer.reports]
        with transaction() as session:
            record_reports(session, reports, key=key, now=clock())
    _after(claimed, answer, clock())
    return True


def _of(attempt: Attempt, report: Report) -> Report:
    """Return what is said of an attempt's page as said of the attempt."""
    if isinstance(report, PaymentReport) and report.attempt_id is None:
        return replace(report, attempt_id=attempt.id)
    return report


def _after(claimed: Claim, answer: Answer, now: datetime) -> None:
    """Put the next question where it belongs, or close what was asked about for the last time."""
    attempt = claimed.attempt
    left = attempt.expires_at - now
    state = answer.state
    if attempt.manner is Manner.PUSH and state is PageState.OPEN and left <= _NONE:
        # The operator's clock began after ours, and it alone ends what it asks: it may be paid.
        state = PageState.USED
    if not attempt.is_open:
        if _is_watched(attempt) and state is PageState.OPEN and left > _NONE:
            if attempt.manner is not Manner.PUSH:
                _doubt_no_more(attempt)
            _wait(claimed, left, told=answer.tells)
        elif state is PageState.USED and not answer.tells and left > _NONE:
            _wait(claimed, left, told=False, at_least=0)
        elif state is not PageState.USED or now > attempt.expires_at + UNDECIDED_MAX:
            _set_next(claimed, None)
    elif state is PageState.OPEN:
        if left < _NONE:
            close(attempt, UNDECIDED)
        else:
            _wait(claimed, left, told=answer.tells)
    elif state is PageState.USED:
        if now > attempt.expires_at + UNDECIDED_MAX:
            # Of one that is paid now this changes nothing.
            close(attempt, UNDECIDED)
        elif not answer.tells and left > _NONE:
            # A payment on its way: the back-off begins with seconds, and does not come to more.
            _wait(claimed, left, told=False, at_least=0)


def _doubt_no_more(attempt: Attempt) -> None:
    """Note that nothing was paid by a closed page that its payer came back from, and may be yet."""
    with transaction() as session:
        execute(
            session,
            "UPDATE payment_attempt SET closed_because = :left"
            " WHERE id = :id AND state = 'closed' AND closed_because = :revived",
            {"id": attempt.id, "left": LEFT_OPEN, "revived": REVIVED},
        )


def _is_watched(attempt: Attempt) -> bool:
    return attempt.closed_because in {LEFT_OPEN, REVIVED}


def _after_refusal(claimed: Claim, now: datetime) -> None:
    """The provider knows no such page: that will not change, but its deliveries may still tell.

    Of a push it may: what we have kept before the call may be on its way to the operator.
    """
    attempt = claimed.attempt
    left = attempt.expires_at - now
    kept = attempt.is_open or _is_watched(attempt)
    if attempt.manner is Manner.PUSH and kept and left > _NONE:
        _wait(claimed, left, told=False)
    elif not attempt.is_open:
        _set_next(claimed, None)
    elif now > attempt.expires_at:
        close(attempt, NOT_KNOWN)
    else:
        _wait(claimed, left, told=True)


def _wait(claimed: Claim, left: timedelta, *, told: bool, at_least: int = ASK_OPEN_SECONDS) -> None:
    """Ask about an open page when it has run out, if its deliveries tell; else not too soon.

    One that asks for what is not due any more keeps to its own back-off (see `claim`).
    """
    if claimed.outdated:
        return
    until_end = max(0, int(left.total_seconds())) + AFTER_EXPIRY_SECONDS
    if told:
        _set_next(claimed, until_end)
    else:
        by_code = claimed.attempt.manner is Manner.TOKEN
        most = min(ASK_SECONDS_MAX if by_code else ASK_OPEN_SECONDS_MAX, until_end)
        _set_next(claimed, most, at_least=min(at_least, most))


def _set_next(claimed: Claim, seconds: int | None, *, at_least: int | None = None) -> None:
    """Move the next question, unless somebody was in a hurry meanwhile.

    Args:
        claimed: What was asked about.
        seconds: From now; None: never.
        at_least: It may stay where the back-off put it, between so many seconds and `seconds`.
    """
    with transaction() as session:
        execute(
            session,
            """
            UPDATE payment_attempt SET ask_at = CASE
                WHEN CAST(:least AS int) IS NULL
                    THEN clock_timestamp() + make_interval(secs => CAST(:secs AS int))
                ELSE least(clock_timestamp() + make_interval(secs => CAST(:secs AS int)), greatest(
                    ask_at, clock_timestamp() + make_interval(secs => CAST(:least AS int)))) END
            WHERE id = :id AND state IN ('sent', 'closed') AND ask_at = :claimed
            """,
            {
                "id": claimed.attempt.id,
                "secs": seconds,
                "least": at_least,
                "claimed": claimed.next_at,
            },
        )


# -- whose turn it is -----------------------------------------------------------------------------


def claim(session: Session, providers: Sequence[PageProvider], now: datetime) -> Claim | None:
    """Take the attempt that is most due, put off its next turn, and take it from the budget.

    One whose page asks for what is no longer due is due at once, whatever was asked before: it
    could be paid by twice. Whether it has had that turn shows by its next one, which is then no
    further off than such turns are put off. The caller owns the transaction; any number of
    workers may claim at once.
    """
    names = [each.name for each in providers]
    outdated = _outdated(session, names, day_of(now))
    taken = execute(
        session,
        _CLAIM,
        {
            "most": ASK_SECONDS_MAX,
            "most_outdated": ASK_OUTDATED_SECONDS_MAX,
            "away": AWAY_SECONDS,
            "providers": names,
            "budgets": [_budget(each) for each in providers],
            "outdated": outdated,
        },
    ).one_or_none()
    if taken is None:
        return None
    return Claim(attempt_of(session, taken[0]), taken[1], taken[0] in outdated)


def _budget(provider: PageProvider) -> int:
    return provider.asks_per_minute if isinstance(provider, AskedSoOften) else ASKS_PER_MINUTE


# The row of the budget is changed in the same statement, so workers that claim at once keep it
# together: who finds it used up by another takes nothing, and comes again at the next bell.
_CLAIM: Final = """
    WITH asked AS (
        SELECT * FROM unnest(CAST(:providers AS text[]), CAST(:budgets AS int[])) AS p (name, most)
    ), chosen AS (
        SELECT a.id, a.provider, asked.most, a.id = ANY(:outdated) AS outdated
        FROM payment_attempt a JOIN asked ON asked.name = a.provider
        WHERE (
            state IN ('sent', 'closed') AND ask_at <= clock_timestamp()
            OR state = 'sent' AND a.id = ANY(:outdated)
            AND ask_at > clock_timestamp() + make_interval(secs => greatest(
                :away, least(:most_outdated, 5 * power(2, least(tries, 20) - 1))))
        ) AND NOT EXISTS (
            SELECT FROM inquiry_budget b WHERE b.provider = a.provider AND b.asked >= asked.most
                AND b.since > clock_timestamp() - interval '1 minute'
        )
        ORDER BY ask_at LIMIT 1 FOR UPDATE OF a SKIP LOCKED
    ), allowed AS (
        INSERT INTO inquiry_budget AS b (provider, since, asked)
        SELECT provider, clock_timestamp(), 1 FROM chosen
        ON CONFLICT (provider) DO UPDATE SET
            asked = CASE WHEN b.since > clock_timestamp() - interval '1 minute'
                THEN b.asked + 1 ELSE 1 END,
            since = CASE WHEN b.since > clock_timestamp() - interval '1 minute'
                THEN b.since ELSE clock_timestamp() END
        WHERE b.since <= clock_timestamp() - interval '1 minute'
            OR b.asked < (SELECT most FROM chosen)
        RETURNING provider
    )
    UPDATE payment_attempt SET tries = tries + 1, ask_at = clock_timestamp()
        + make_interval(secs => least(
            CASE WHEN outdated THEN :most_outdated ELSE :most END, 5 * power(2, least(tries, 20))))
    FROM chosen JOIN allowed USING (provider)
    WHERE payment_attempt.id = chosen.id RETURNING payment_attempt.id, ask_at
"""


def _outdated(session: Session, providers: Sequence[str], today: date) -> list[str]:
    """Return the attempts whose page asks for what is not due any more.

    A penalty that a month has added since the page was made changes nothing: what is paid on it
    counts from the day of the payment, and a small rest is due afterwards.
    """
    asked = {"providers": list(providers), "most": OUTDATED_MAX}
    rows = execute(session, _NOT_PLAIN, asked).mappings().all()
    rows = [*rows, *execute(session, _NOT_PLAIN_TOGETHER, asked).mappings()]
    by_day: dict[date, list[Any]] = {}
    for row in rows:
        by_day.setdefault(day_of(row["made_at"]), []).append(row)
    found = []
    for made_on, some in by_day.items():
        ids = {each for row in some for each in row["invoices"] or ()}
        owing = read_owing(session, sorted(ids), today, grown_by=made_on)
        for row in some:
            due = (
                0 if row["withdrawn"] else sum(owing[at].due_minor for at in row["invoices"] or ())
            )
            if due < row["amount_minor"] if row["of_plan"] else due != row["amount_minor"]:
                found.append(row["id"])
    return found


# Those that ask for the invoice as it stands, without a penalty, are what most are, and are right.
_NOT_PLAIN: Final = """
    SELECT a.id, ARRAY[a.invoice_id] AS invoices, a.amount_minor, a.made_at, false AS withdrawn,
        false AS of_plan
    FROM payment_attempt a JOIN invoice ON invoice.id = invoice_id
    WHERE state = 'sent' AND provider = ANY(:providers)
        AND (cancelled_at IS NOT NULL OR a.amount_minor <> owed_minor - paid_minor)
    ORDER BY ask_at LIMIT :most
"""

# Of a plan, which asks by instalments, only what is more than all that it can still take.
_NOT_PLAIN_TOGETHER: Final = f"""
    SELECT a.id, paid.invoices, a.amount_minor, a.made_at, b.withdrawn_at IS NOT NULL AS withdrawn,
        b.kind = 'plan' AS of_plan
    FROM payment_attempt a JOIN bundle b ON b.id = a.bundle_id
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(i.id), '{{}}') AS invoices,
            sum(owed_minor - paid_minor) AS plain_minor
        FROM invoice i WHERE cancelled_at IS NULL AND i.id IN (
            SELECT invoice_id FROM bundle_item WHERE bundle_id = b.id
            UNION SELECT current.id FROM ({CURRENT_OF_PLAN.format(bundle="b.id")}) AS current)
    ) AS paid
    WHERE state = 'sent' AND provider = ANY(:providers)
        AND (b.withdrawn_at IS NOT NULL OR a.amount_minor IS DISTINCT FROM paid.plain_minor)
    ORDER BY ask_at LIMIT :most
"""


def _leave_alone(provider: PageProvider) -> None:
    with transaction() as session:
        execute(
            session,
            "UPDATE payment_attempt SET ask_at = clock_timestamp() + make_interval(secs => :secs)"
            " WHERE state IN ('sent', 'closed') AND provider = :provider"
            " AND ask_at < clock_timestamp() + make_interval(secs => :secs)",
            {"secs": AWAY_SECONDS, "provider": provider.name},
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
