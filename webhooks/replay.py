"""Act again on deliveries that we hold: by a person's order, kept with who and why.

An order is a queue in the database, and any number may work at it. What is booked stays booked: a
delivery that says nothing new changes nothing, one that was parked is acted on, and one that was
answered while its sender waited keeps its answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session

from gateway.collection.payment_batch import lock_provider
from gateway.collection.payments import record_reports
from gateway.collection.reports import Report, Unbookable
from gateway.db import execute, transaction
from gateway.events import tell
from gateway.exception_queue import (
    Finding,
    open_exceptions,
    opened_events,
    resolve_exceptions,
    resolved_events,
)
from gateway.models import ExceptionCode
from gateway.reasons import kept_reason
from webhooks.deliveries import Choice
from webhooks.failing import may_be_the_deliverys, said
from webhooks.inbox import Desk
from webhooks.models import DeliveryState, WebhookReplay

BATCH_SIZE: Final = 200
CHOSEN_MAX: Final = 100_000
"""Deliveries that one order may choose: a filter that chooses more was meant otherwise."""

ANSWER_STANDS: Final = "answer_stands"
"""What became of a delivery whose sender was told no: it is never decided anew."""
MASKED: Final = "masked"
"""It was acted on before what is personal was taken out of it: what is left proves nothing new."""
FAILED: Final = "failed"
"""It could not be acted on this time either; the delivery has the reason."""
_SAYS_NOTHING_NEW: Final = frozenset({"repeated", "ignored"})
_MOVES: Final = frozenset({"booked", "reversed", "returned", "noted"})

log = structlog.get_logger(__name__)


class TooWide(Exception):
    """The filter chooses by nothing, or more than CHOSEN_MAX deliveries."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """A replay that was ordered."""

    id: int
    chosen: int


# -- orders ---------------------------------------------------------------------------------------


def count_chosen(session: Session, choice: Choice) -> int:
    """Return how many deliveries a filter chooses. The caller owns the transaction.

    Raises:
        TooWide: It chooses by nothing, or too many.
    """
    if choice.is_empty:
        raise TooWide
    where, given = choice.where()
    chosen = f"SELECT FROM webhook_delivery d WHERE {where} LIMIT :most"
    count = execute(
        session, f"SELECT count(*) FROM ({chosen}) AS chosen", {**given, "most": CHOSEN_MAX + 1}
    ).scalar_one()
    if count > CHOSEN_MAX:
        raise TooWide
    return int(count)


def order_replay(
    session: Session, choice: Choice, *, asked_by: str, why: str, now: datetime
) -> Ordered:
    """Have the deliveries that a filter chooses acted on again, once this commits.

    The caller owns the transaction. Whoever drains the inbox does the work (`drain_replays`).

    Args:
        session: Whose transaction it is.
        choice: Which deliveries: as they are now, whatever becomes of them meanwhile.
        asked_by: The key, or the account that ran the command.
        why: A sentence, without names.
        now: The business clock.

    Raises:
        TooWide: As count_chosen.
        Unusable: No reason is given, or one that cannot be kept for good.
    """
    why = kept_reason(why)
    count_chosen(session, choice)
    order = {"asked_by": asked_by, "why": why, "chosen_by": choice.as_json(), "asked_at": now}
    statement = insert(WebhookReplay).values(order).returning(WebhookReplay.__table__.c.id)  # type: ignore[attr-defined]
    replay_id = int(session.connection().execute(statement).scalar_one())
    where, given = choice.where()
    chosen = execute(
        session,
        "WITH chosen AS (INSERT INTO replayed_delivery (replay_id, delivery_pk)"
        f" SELECT :replay, d.id FROM webhook_delivery d WHERE {where} RETURNING 1)"
        " SELECT count(*) FROM chosen",
        {**given, "replay": replay_id},
    ).scalar_one()
    return Ordered(replay_id, int(chosen))


def read_replay(session: Session, replay_id: int) -> dict[str, Any] | None:
    """Return an order and how far it is, or None. The caller owns the transaction."""
    row = execute(session, "SELECT * FROM webhook_replay WHERE id = :id", {"id": replay_id})
    order = row.mappings().one_or_none()
    if order is None:
        return None
    by_outcome = execute(
        session,
        "SELECT outcome, count(*) FROM replayed_delivery WHERE replay_id = :id GROUP BY 1",
        {"id": replay_id},
    )
    outcomes = Counter({outcome: int(count) for outcome, count in by_outcome})
    waiting = outcomes.pop(None, 0)
    return {
        **order,
        "chosen": waiting + sum(outcomes.values()),
        "waiting": waiting,
        "outcomes": dict(sorted(outcomes.items())),
    }


# -- acting on them -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A delivery that is to be acted on again."""

    id: int
    provider: str
    delivery_id: str
    body: bytes
    received_at: datetime
    path: str | None
    state: str
    outcome: str | None
    attempts: int
    masked: bool
    answered: bool
    """Whether its sender waited, and was told."""

    @property
    def subject(self) -> str:
        return f"delivery:{self.provider}/{self.delivery_id}"

    @property
    def is_parked(self) -> bool:
        return self.state == DeliveryState.PARKED

    @property
    def is_done(self) -> bool:
        return self.state == DeliveryState.DONE

    def again(self, outcome: str) -> str:
        """Return what is said of it, by what it would come to if it were acted on again.

        Money is booked once by a delivery: one that booked a payment and is now read as another
        one contradicts itself, whatever became of its adapter meanwhile.
        """
        both = self.is_done and self.outcome == outcome == "booked"
        return "conflicting" if both else outcome

    def is_news(self, outcome: str, report: Report) -> bool:
        """Say whether it came to something by which the books or a person's work would change.

        What was asked before and decided since is not asked again, only because of a replay.
        """
        if not self.is_done:
            return True
        if self.outcome in _MOVES:
            return outcome in _MOVES
        if self.outcome == "quarantined" and isinstance(report, Unbookable):
            # A person was asked about this very body, whatever was booked meanwhile.
            return False
        return outcome not in _SAYS_NOTHING_NEW and outcome != self.outcome


class _Rehearsed(Exception):
    """Takes back what was only to be looked at."""


def drain_replays(desk: Desk, *, batches_max: int, wait: bool = False) -> int:
    """Act on what orders chose, up to so many batches a provider; return how many deliveries.

    Opens its own transactions. Deliveries of a provider that is switched off wait until it is
    switched on again.

    Args:
        desk: As the inbox's.
        batches_max: A bound on the work of one call.
        wait: Wait for whoever is at a provider's deliveries; else leave them to the next call.

    Raises:
        DBAPIError, Unusable: As `inbox.drain`; nothing is held against a delivery for that.
    """
    done = 0
    for _ in range(batches_max):
        did = sum(_drain_provider(desk, name, wait) for name in _providers_waiting(desk))
        if did == 0:
            break
        done += did
    return done


def _providers_waiting(desk: Desk) -> list[str]:
    with transaction() as session:
        rows = execute(
            session,
            "SELECT DISTINCT d.provider FROM replayed_delivery r"
            " JOIN webhook_delivery d ON d.id = r.delivery_pk"
            " WHERE r.processed_at IS NULL AND d.provider = ANY(:known) ORDER BY 1",
            {"known": list(desk.providers)},
        )
        return list(rows.scalars())


def _drain_provider(desk: Desk, provider: str, wait: bool) -> int:
    try:
        with transaction() as session:
            return _act(session, desk, _claim(session, provider, BATCH_SIZE, wait))
    except Exception as error:
        if not may_be_the_deliverys(error):
            raise
        log.warning("replay_batch_failed", provider=provider, error=type(error).__name__)
        return _drain_one_by_one(desk, provider, wait)


def _drain_one_by_one(desk: Desk, provider: str, wait: bool) -> int:
    """Do a batch's deliveries each by itself, so that one that fails fails alone."""
    done = 0
    for _ in range(BATCH_SIZE):
        at: _Chosen | None = None
        try:
            with transaction() as session:
                claimed = _claim(session, provider, 1, wait)
                at = claimed[0] if claimed else None
                did = _act(session, desk, claimed)
        except Exception as error:
            if at is None or not may_be_the_deliverys(error):
                raise
            with transaction() as session:
                _note_failure(session, at, error, now=desk.clock())
            did = 1
        if did == 0:
            break
        done += did
    return done


def _claim(session: Session, provider: str, size: int, wait: bool) -> list[_Chosen]:
    """Lock the next chosen deliveries of a provider; none if another is at them."""
    if not lock_provider(session, provider, wait=wait):
        return []
    rows = execute(
        session,
        """
        SELECT d.id, d.provider, d.delivery_id, d.body, d.received_at, d.path, d.state, d.outcome,
            d.attempts, d.masked_at IS NOT NULL,
            EXISTS (SELECT FROM webhook_answer a WHERE a.delivery_pk = d.id)
        FROM webhook_delivery d WHERE d.id IN (
            SELECT r.delivery_pk FROM replayed_delivery r
            JOIN webhook_delivery chosen ON chosen.id = r.delivery_pk
            WHERE r.processed_at IS NULL AND chosen.provider = :provider
            ORDER BY r.replay_id, r.delivery_pk LIMIT :size
        ) ORDER BY d.id FOR UPDATE OF d
        """,
        {"provider": provider, "size": size},
    )
    # Two orders may have chosen one delivery: it is acted on once for both. Locked by id, as where
    # bodies are masked or erased.
    return [_Chosen(*row) for row in rows]


def _act(session: Session, desk: Desk, chosen: Sequence[_Chosen]) -> int:
    """Act on deliveries again, and say what each came to. The caller owns the transaction."""
    if not chosen:
        return 0
    now = desk.clock()
    outcomes = {d.id: _stands(d) for d in chosen if d.answered or d.masked}
    rest = [d for d in chosen if d.id not in outcomes]
    reports = {d.id: _parse(desk, d) for d in rest}
    if any(d.is_done for d in rest):
        would = _rehearse(session, desk, reports, now)
        outcomes |= {d.id: d.again(would[d.id]) for d in rest}
        rest = [d for d in rest if d.is_news(outcomes[d.id], reports[d.id])]
    if rest:
        came_to = record_reports(session, [reports[d.id] for d in rest], key=desk.key, now=now)
        outcomes.update(zip((d.id for d in rest), came_to, strict=True))
    _mark_done(session, {d.id: outcomes[d.id] for d in rest}, now)
    _mark_replayed(session, outcomes, now)
    released = [d.subject for d in rest if d.is_parked]
    because = "the delivery was replayed, and acted on"
    code = ExceptionCode.PARKED_DELIVERY
    closed = resolve_exceptions(session, code, released, because=because, now=now)
    tell(session, resolved_events(closed), now=now)
    return len(chosen)


def _stands(delivery: _Chosen) -> str:
    """Return what a replay says of a delivery that is never decided anew."""
    if delivery.outcome == "booked":
        return "repeated"
    return ANSWER_STANDS if delivery.answered else MASKED


def _parse(desk: Desk, delivery: _Chosen) -> Report:
    return desk.providers[delivery.provider].parse(
        bytes(delivery.body),
        delivery_id=delivery.delivery_id,
        received_at=delivery.received_at,
        path=delivery.path or "",
    )


def _rehearse(
    session: Session, desk: Desk, reports: dict[int, Report], now: datetime
) -> dict[int, str]:
    """Return what reports would come to, and leave everything as it was."""
    came_to: list[str] = []
    try:
        with session.begin_nested():
            came_to = record_reports(session, list(reports.values()), key=desk.key, now=now)
            raise _Rehearsed
    except _Rehearsed:
        return dict(zip(reports, came_to, strict=True))


def _mark_done(session: Session, outcomes: dict[int, str], now: datetime) -> None:
    execute(
        session,
        """
        UPDATE webhook_delivery SET state = 'done', outcome = o.outcome, processed_at = :now
        FROM unnest(CAST(:ids AS bigint[]), CAST(:outcomes AS text[])) AS o (id, outcome)
        WHERE webhook_delivery.id = o.id
        """,
        {"now": now, "ids": list(outcomes), "outcomes": list(outcomes.values())},
    )


def _mark_replayed(session: Session, outcomes: dict[int, str], now: datetime) -> None:
    execute(
        session,
        """
        UPDATE replayed_delivery SET outcome = o.outcome, processed_at = :now
        FROM unnest(CAST(:ids AS bigint[]), CAST(:outcomes AS text[])) AS o (id, outcome)
        WHERE delivery_pk = o.id AND processed_at IS NULL
        """,
        {"now": now, "ids": list(outcomes), "outcomes": list(outcomes.values())},
    )


def _note_failure(session: Session, delivery: _Chosen, error: Exception, *, now: datetime) -> None:
    """Keep why a delivery failed again. One that was parked stays so; no other state changes."""
    lock_provider(session, delivery.provider)
    reason, attempts = said(error), delivery.attempts + 1
    # Since it failed another may have had it, and may have done it.
    stands = execute(
        session,
        "UPDATE webhook_delivery SET last_error = :reason,"
        " attempts = CASE WHEN state = 'parked' THEN :attempts ELSE attempts END"
        " WHERE id = :id AND state = :state AND EXISTS (SELECT FROM replayed_delivery"
        " WHERE delivery_pk = :id AND processed_at IS NULL)",
        {"reason": reason, "attempts": attempts, "id": delivery.id, "state": delivery.state},
    ).rowcount
    if not stands:
        return
    _mark_replayed(session, {delivery.id: FAILED}, now)
    log.error("replay_failed", delivery=delivery.id, state=delivery.state)
    if delivery.is_parked:
        detail = {"reason": reason, "attempts": attempts}
        finding = Finding(ExceptionCode.PARKED_DELIVERY, delivery.subject, detail)
        tell(session, opened_events(open_exceptions(session, [finding], now=now)), now=now)
