"""Where an endpoint's walks along the feed stand: what comes next, and what came of it.

A walk is moved by one who sends at a time (webhooks.outbound.sending sees to that), and only from
where it stood when he read it: whoever comes second moves nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from sqlmodel import Session

from gateway.db import execute, insert_all, snapshot
from gateway.events import FEED
from webhooks.outbound.endpoints import disable, lock
from webhooks.outbound.models import WalkKind, WebhookAttempt
from webhooks.outbound.schedule import GONE, Later, NoMore

BLOCK_EVENTS: Final = 200
"""Read at once."""
RANGE_EVENTS: Final = 50_000
"""Of the feed, looked through at once for those that an endpoint follows."""
ATTEMPTS_KEPT: Final = 10_000
"""Of an endpoint, the last ones; the retention file says for how long."""
FORGOTTEN_AT_ONCE: Final = 50_000
"""In one transaction; the task comes again."""
TEST_TYPE: Final = "endpoint.test"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent of one event."""

    id: str
    """The same whenever this event is sent to this endpoint."""
    event: int | None
    """None: it tells of nothing."""
    body: str


@dataclass(frozen=True, slots=True)
class Block:
    """What a walk sends next, as of one instant."""

    endpoint: int
    url: str
    secrets: tuple[tuple[bytes, datetime | None], ...]
    """Those that stand, sealed, each with its end; the newest first."""
    newest_secret: int
    walk: int
    kind: WalkKind
    at_event: int
    """Where the walk stood."""
    attempts: int
    """That failed, of the first message."""
    messages: tuple[Message, ...]
    looked_to: int
    """Up to here of the feed there is nothing else for it."""
    upto_event: int | None
    read_at: datetime
    """By the database's clock."""
    _since: float = field(default_factory=time.monotonic)

    def clock(self) -> datetime:
        """Return the instant by the database's clock, as it goes on since the block was read."""
        return self.read_at + timedelta(seconds=time.monotonic() - self._since)


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt."""

    message: Message
    at: datetime
    """By the database's clock."""
    ms: int
    status: int | None
    error: str | None
    """None: it was taken."""


def due_endpoints(session: Session) -> list[int]:
    """Return the endpoints that something is to be sent to now, in no order that favours any."""
    found = list(execute(session, f"SELECT DISTINCT w.endpoint_id FROM {_READY}").scalars())
    random.shuffle(found)
    return found


def next_block(endpoint: int, *, events_max: int = BLOCK_EVENTS) -> Block | None:
    """Return what is to be sent to an endpoint next; None: nothing now. Opens its own transaction.

    Of several walks that which rested longest. A block may have no messages: then the walk only
    moves past what is none of its types.
    """
    with snapshot() as session:
        row = execute(session, _NEXT, {"endpoint": endpoint}).mappings().one_or_none()
        if row is None:
            return None
        kind, messages, looked_to = WalkKind(row["kind"]), [], row["at_event"]
        if kind is WalkKind.TEST:
            messages = [_test_message(endpoint, row)]
        else:
            looked_to = min(row["at_event"] + RANGE_EVENTS, row["last"])
            asked = {
                "after": row["at_event"],
                "upto": looked_to,
                "types": row["types"],
                "rows": events_max,
            }
            messages = [_message(endpoint, event) for event in execute(session, _EVENTS, asked)]
            if len(messages) == events_max:
                looked_to = messages[-1].event or looked_to
        secrets = execute(session, _SECRETS, {"endpoint": endpoint}).all()
        return Block(
            endpoint=endpoint,
            url=row["url"],
            secrets=tuple((bytes(sealed), ends_at) for _, sealed, ends_at in secrets),
            newest_secret=secrets[0][0] if secrets else 0,
            walk=row["id"],
            kind=kind,
            at_event=row["at_event"],
            attempts=row["attempts"],
            messages=tuple(messages),
            looked_to=looked_to,
            upto_event=row["upto_event"],
            read_at=row["now"],
        )


_READY: Final = """webhook_walk w JOIN webhook_endpoint e ON e.id = w.endpoint_id,
    LATERAL (SELECT coalesce(w.upto_event, (SELECT max(id) FROM event), 0) AS last) AS end_of
    WHERE w.ended_at IS NULL AND e.removed_at IS NULL AND w.retry_at <= clock_timestamp()
        AND (w.kind = 'test' OR e.disabled_at IS NULL AND w.at_event < end_of.last)"""
_NEXT: Final = f"""
    SELECT w.id, w.kind, w.at_event, w.upto_event, w.attempts, w.asked_at, e.url, e.types,
        end_of.last, clock_timestamp() AS now
    FROM {_READY} AND e.id = :endpoint ORDER BY w.retry_at, w.id LIMIT 1
"""
_SECRETS: Final = """
    SELECT id, sealed, ends_at FROM webhook_secret
    WHERE endpoint_id = :endpoint AND (ends_at IS NULL OR ends_at > clock_timestamp())
    ORDER BY id DESC
"""
# Written as text by the database: what is signed are these very bytes.
_EVENTS: Final = f"""
    SELECT event.id, event.type, event.happened_at, CAST(event.data
        || jsonb_build_object('event_id', CAST(event.id AS text))
        || CASE WHEN event.payment_id IS NULL THEN '{{}}'
            ELSE jsonb_build_object('payment_id', CAST(event.payment_id AS text)) END AS text)
    FROM {FEED} AS event
    WHERE event.id > :after AND event.id <= :upto AND event.type = ANY(:types)
    ORDER BY event.id LIMIT :rows
"""


def _message(endpoint: int, event: Any) -> Message:
    at, kind, happened_at, data = event
    return Message(
        message_id(endpoint, at, happened_at),
        at,
        f'{{"type": "{kind}", "timestamp": "{happened_at.isoformat()}", "data": {data}}}',
    )


def message_id(endpoint: int, event: int, happened_at: datetime) -> str:
    """Return the `webhook-id` of an event for an endpoint.

    With the instant, since numbers of events come again where an older state of the database was
    restored, and a receiver must not take what happens then for what it knows.
    """
    return f"evt_{endpoint}_{event}_{(happened_at - _EPOCH) // timedelta(microseconds=1):x}"


def _test_message(endpoint: int, row: Any) -> Message:
    at = row["asked_at"].isoformat()
    body = f'{{"type": "{TEST_TYPE}", "timestamp": "{at}", "data": {{"endpoint": "{endpoint}"}}}}'
    return Message(f"test_{endpoint}_{row['id']}", None, body)


# -- what came of it ------------------------------------------------------------------------------


def keep(
    session: Session,
    block: Block,
    tried: Sequence[Tried],
    then: Later | NoMore | None,
    *,
    now: datetime,
) -> bool:
    """Keep what came of a block, and say whether the walk was moved. The caller owns the
    transaction.

    Args:
        session: Whose transaction it is.
        block: As it was read.
        tried: The attempts, in order: all were taken but perhaps the last one.
        then: What follows that last one's failure; None: there was none.
        now: By the business clock, for what ends.
    """
    taken = [each for each in tried if each.error is None]
    failed = tried[len(taken)] if len(taken) < len(tried) else None
    attempts = 0 if failed is None else 1 + (0 if taken else block.attempts)
    if isinstance(then, NoMore):
        # Before its walks, as whoever changes an endpoint does.
        lock(session, block.endpoint)
    if tried:
        insert_all(session, WebhookAttempt, [_row(block, each) for each in tried])
    if failed is not None:
        log.warning(
            "event_not_taken",
            endpoint=block.endpoint,
            walk=block.kind.value,
            event_id=failed.message.event,
            attempts=attempts,
            given_up=isinstance(then, NoMore),
            reason=failed.error,
        )
    later = then.seconds if isinstance(then, Later) else 0.0
    if failed is not None and isinstance(then, Later) and _is_rolled(session, block):
        # What it refused may have been signed without the secret that it goes by since.
        attempts, later = attempts - 1, 0.0
    to = _stands(block, taken, failed)
    moved = execute(
        session,
        _MOVE,
        {
            "walk": block.walk,
            "from": block.at_event,
            "attempted": block.attempts,
            "to": to,
            "attempts": attempts,
            "seconds": later,
            "error": None if failed is None else failed.error,
            "taken": len(taken),
            "failed": int(failed is not None),
            "ended_at": now if _is_over(block, to, then) else None,
        },
    ).rowcount
    if (
        moved
        and isinstance(then, NoMore)
        and _is_at(session, block)
        and (block.kind is WalkKind.FEED or then.because == GONE)
    ):
        disable(session, block.endpoint, because=then.because, now=now, noticed=True)
    return bool(moved)


_MOVE: Final = """
    UPDATE webhook_walk SET at_event = :to, attempts = :attempts, last_error = :error,
        taken = taken + :taken, failed = failed + :failed, ended_at = :ended_at,
        retry_at = clock_timestamp() + make_interval(secs => :seconds)
    WHERE id = :walk AND at_event = :from AND attempts = :attempted AND ended_at IS NULL
"""


def _row(block: Block, each: Tried) -> dict[str, Any]:
    return {
        "endpoint_id": block.endpoint,
        "walk_id": block.walk,
        "event_id": each.message.event,
        "message_id": each.message.id,
        "attempted_at": each.at,
        "ms": each.ms,
        "status": each.status,
        "error": each.error,
    }


def _stands(block: Block, taken: Sequence[Tried], failed: Tried | None) -> int:
    """Return the last event that a walk is done with."""
    if block.kind is WalkKind.TEST:
        return block.at_event
    if failed is not None:
        # What follows is the one that failed, whatever lies between: nothing is looked through.
        assert failed.message.event is not None
        return failed.message.event - 1
    if len(taken) == len(block.messages):
        return block.looked_to
    return taken[-1].message.event or block.at_event


def _is_over(block: Block, to: int, then: Later | NoMore | None) -> bool:
    match block.kind:
        case WalkKind.FEED:
            return False
        case WalkKind.TEST:
            return True
        case WalkKind.RESEND:
            given_up = isinstance(then, NoMore) and then.because != GONE
            return given_up or (block.upto_event is not None and to >= block.upto_event)


def _is_rolled(session: Session, block: Block) -> bool:
    newest = "SELECT coalesce(max(id), 0) FROM webhook_secret WHERE endpoint_id = :endpoint"
    found = execute(session, newest, {"endpoint": block.endpoint}).scalar_one()
    return int(found) != block.newest_secret


def _is_at(session: Session, block: Block) -> bool:
    """Say whether an endpoint is still where the block was sent: what another address said of
    itself is not true of the one that it has now."""
    query = "SELECT url FROM webhook_endpoint WHERE id = :endpoint"
    found = execute(session, query, {"endpoint": block.endpoint}).scalar_one()
    return bool(found == block.url)


def forget_attempts(session: Session, *, days: int) -> int:
    """Delete attempts that were kept long enough, or are too many, the oldest first and at most
    FORGOTTEN_AT_ONCE; return how many.

    The caller owns the transaction.
    """
    kept = {"days": days, "most": ATTEMPTS_KEPT, "at_once": FORGOTTEN_AT_ONCE}
    return int(execute(session, _FORGET, kept).rowcount)


# Where each endpoint's log is cut is looked up once, not for each attempt.
_FORGET: Final = """
    WITH cut AS MATERIALIZED (
        SELECT e.id, coalesce((SELECT id FROM webhook_attempt WHERE endpoint_id = e.id
            ORDER BY id DESC OFFSET :most LIMIT 1), 0) AS upto FROM webhook_endpoint e
    )
    DELETE FROM webhook_attempt WHERE id IN (
        SELECT a.id FROM webhook_attempt a JOIN cut ON cut.id = a.endpoint_id
        WHERE a.id <= cut.upto
            OR a.attempted_at < clock_timestamp() - make_interval(days => :days)
        ORDER BY a.id LIMIT :at_once)
"""
