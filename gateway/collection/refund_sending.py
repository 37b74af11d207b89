"""Carrying out approved refunds by providers that can: each call stands between two transactions.

The refund is kept first, and its token is the provider's idempotency key. That it is about to be
asked for is committed before the call, so after a crash anywhere the same is asked again: once it
may have been made, the provider is asked first whether it was, since keys are kept for a day only.
The key stays the same even if an error of the provider's own is kept under it: what failed so may
be made after all, and another key would be another refund. Retries run on the database's clock,
ever more seldom.

Before the first call the payment is judged once more. If it has not so much left any more, because
it was disputed, given back or reversed since the approval, nothing is sent, and not what is left
either: somebody asked for this amount for a reason, and another approved that. A smaller one is
another decision. Once the provider was asked, its word decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from sqlmodel import Session

from gateway.books.seals import BooksKey
from gateway.clock import Clock
from gateway.collection.payment_batch import lock_provider
from gateway.collection.payments import record_reports
from gateway.collection.refund_rows import (
    GONE,
    WORKER,
    RefundRow,
    Step,
    failed,
    keep_steps,
    read_refunds,
    room_minor,
)
from gateway.collection.reports import ReturnReport
from gateway.db import alone, execute, transaction
from gateway.errors import ProviderAway, ProviderRefused
from gateway.events import tell
from gateway.exception_queue import open_exceptions, opened_events
from gateway.models import EventType, RefundState
from gateway.providers.refunding import RefundingProvider, WantedRefund

CARRYING_OUT: Final = "refunds.carry_out"
"""The right of the one run that calls providers for refunds."""
AGAIN_SECONDS_MAX: Final = 1_800
"""How long at most until what the provider has made of a call is asked again."""
SENT_AGAIN_SECONDS_MAX: Final = 6 * 3_600
"""The same of a refund that it has made and that has not arrived yet: that takes days."""
RUN_SECONDS_MAX: Final = 10
"""When a run takes no further refund: only the calls about the last one may take longer."""

NOT_MADE: Final = "The provider has not made it, and the payment has not so much left any more"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """A refund whose turn it is."""

    row: RefundRow
    asked_before: bool
    """Whether the provider may have made it already."""
    fits: bool
    """Whether the payment still has so much left: else it is not asked for again."""

    @property
    def wanted(self) -> WantedRefund:
        """What the provider is asked for."""
        row = self.row
        return WantedRefund(row.token, row.provider_payment_id, row.amount_minor)


def carry_out(
    providers: Mapping[str, RefundingProvider],
    *,
    key: BooksKey,
    clock: Clock,
    most: int,
    passing: Callable[[str], None] = lambda _step: None,
) -> int:
    """Ask providers for approved refunds, and about those on their way; return how many.

    Opens its own transactions and calls providers between them. While one does, all others return
    at once. A provider that does not answer is not asked again in this run.

    Args:
        providers: Those that can, by name. Refunds of others wait until they are switched on, or
            are refused by a person.
        key: Signs the books.
        clock: The business clock.
        most: How many refunds at most.
        passing: Told of each step that lies behind, for those who would crash there.
    """
    with alone(CARRYING_OUT) as ours:
        if not ours:
            return 0
        asked, able = 0, dict(providers)
        until = time.monotonic() + RUN_SECONDS_MAX
        while able and asked < most and time.monotonic() < until:
            with transaction() as session:
                turn = claim(session, list(able), now=clock())
            if turn is None:
                break
            asked += 1
            passing("claimed")
            if turn.row.state is RefundState.DROPPED:
                continue
            if not _act(able[turn.row.provider], turn, key, clock, passing):
                del able[turn.row.provider]
        return asked


def _act(
    provider: RefundingProvider,
    turn: Turn,
    key: BooksKey,
    clock: Clock,
    passing: Callable[[str], None],
) -> bool:
    """Ask a provider, and book what it says; say whether it answered."""
    try:
        report = _ask(provider, turn, clock())
    except ProviderRefused as error:
        passing("called")
        # Of one that it had made it says so when it tells of it: a refusal ends what it never made.
        if turn.row.state is RefundState.APPROVED:
            _end(turn.row, RefundState.FAILED, f"The provider says no: {error}"[:500], clock())
        return True
    except ProviderAway as error:
        log.warning("refund_unanswered", refund=turn.row.id, reason=str(error))
        return False
    passing("called")
    if report is None:
        _end(turn.row, RefundState.DROPPED, NOT_MADE, clock())
        return True
    with transaction() as session:
        record_reports(session, [report], key=key, now=clock())
    passing("booked")
    return True


def _ask(provider: RefundingProvider, turn: Turn, now: datetime) -> ReturnReport | None:
    """Return what the provider has made of a refund; None if nothing, and it is not to be made."""
    if turn.asked_before:
        try:
            found = provider.find_refund(turn.wanted, received_at=now)
        except ProviderRefused as error:
            # It refuses to say: that is no word on whether the refund was made.
            raise ProviderAway(f"it does not say whether it has made it: {error}") from None
        if found is not None:
            return found
    if turn.row.state is not RefundState.APPROVED:
        raise ProviderAway("it does not know the refund that it has made")
    return provider.refund(turn.wanted, received_at=now) if turn.fits else None


def claim(session: Session, providers: list[str], *, now: datetime) -> Turn | None:
    """Take the refund that is most due and put off its next turn; None if none is due.

    One that does not fit any more, and that the provider was never asked for, is dropped here. The
    caller owns the transaction.
    """
    due = execute(
        session,
        "SELECT id, provider FROM refund WHERE act_at <= clock_timestamp()"
        " AND provider = ANY(:providers) AND state IN ('approved', 'sent')"
        " ORDER BY act_at, id LIMIT 1",
        {"providers": providers},
    ).one_or_none()
    if due is None:
        return None
    lock_provider(session, due.provider)
    payment_id = execute(
        session, "SELECT payment_id FROM refund WHERE id = :id", {"id": due.id}
    ).scalar_one()
    room = room_minor(session, payment_id, but=due.id)
    found = read_refunds(
        session,
        "refund.id = :id AND act_at <= clock_timestamp() AND refund.state IN ('approved', 'sent')"
        " FOR UPDATE OF refund",
        {"id": due.id},
    )
    if not found:
        # Decided or heard of while we waited for the lock: the next bell finds the next one.
        return None
    row = found[0]
    fits = row.amount_minor <= room
    if row.state is RefundState.APPROVED and not row.tries and not fits:
        _ended(session, row, RefundState.DROPPED, GONE, now)
        return Turn(_locked(session, row.id), asked_before=False, fits=False)
    execute(
        session,
        "UPDATE refund SET tries = tries + 1, act_at = clock_timestamp()"
        " + make_interval(secs => least(CASE WHEN state = 'sent' THEN :sent ELSE :most END,"
        " 5 * power(2, least(tries, 20)))) WHERE id = :id",
        {"id": row.id, "most": AGAIN_SECONDS_MAX, "sent": SENT_AGAIN_SECONDS_MAX},
    )
    return Turn(row, asked_before=row.tries > 0, fits=fits)


def _end(row: RefundRow, state: RefundState, because: str, now: datetime) -> None:
    """End a refund that its provider has not made, if it still stands as it was claimed."""
    with transaction() as session:
        lock_provider(session, row.provider)
        if _locked(session, row.id).state is RefundState.APPROVED:
            _ended(session, row, state, because, now)


def _ended(
    session: Session, row: RefundRow, state: RefundState, because: str, now: datetime
) -> None:
    """Write down that nothing was given back, and have a person decide what next."""
    execute(
        session,
        "UPDATE refund SET state = :state, ended_at = :now, act_at = NULL WHERE id = :id",
        {"id": row.id, "state": state.value, "now": now},
    )
    keep_steps(session, [Step(row.id, state, WORKER, because)], now=now)
    opened = open_exceptions(session, [failed(row, because)], now=now)
    tell(session, [*opened_events(opened), row.told(EventType.REFUND_ENDED, state)], now=now)


def _locked(session: Session, refund_id: int) -> RefundRow:
    return read_refunds(session, "refund.id = :id FOR UPDATE OF refund", {"id": refund_id})[0]
