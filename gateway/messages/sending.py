"""Sending what is in line: each message is worded from the facts of that moment, and handed over.

A message is claimed in one transaction, handed over outside of any, and marked in another. Whoever
dies in between has it handed over again under the same id. What has become pointless meanwhile,
since it was paid or cancelled, is dropped with the reason.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog
from sqlmodel import Session

from gateway.clock import Clock
from gateway.db import execute, transaction
from gateway.messages import Sender, SenderAway, SenderRefuses, Sent
from gateway.messages.rules import MessageRules, parts
from gateway.messages.wording import Worded, word

AT_ONCE_MAX: Final = 8
"""How many are handed over beside each other."""
BATCH: Final = 32
"""Claimed, handed over and marked at a time: four rounds of a gateway that hangs."""
CLAIM_SECONDS: Final = 120
"""After which a message that nobody marked is handed over again."""
RUN_SECONDS: Final = 20.0
RETRY_SECONDS: Final = 30
RETRY_SECONDS_MAX: Final = 3_600
TRIES_MAX: Final = 20
"""Most of a day; after that nobody wants to be told any more."""
NOT_YET_SECONDS: Final = 5
"""When one is looked at again whose receipt is not signed yet."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of handing one over."""

    message_id: int
    worded: Worded
    sent: Sent | None = None
    because: str | None = None
    for_good: bool = False


def send_due(sender: Sender, rules: MessageRules, *, clock: Clock) -> int:
    """Hand over what is due, for RUN_SECONDS; return how many were taken.

    Opens its own transactions. Any number of processes may do so at once.
    """
    taken, until = 0, time.monotonic() + RUN_SECONDS
    with ThreadPoolExecutor(AT_ONCE_MAX, "messages") as pool:
        while time.monotonic() < until:
            with transaction() as session:
                claimed = _claim(session, rules, clock())
                worded = word(session, claimed, now=clock())
                _drop(session, worded)
                _wait(session, worded)
            if not claimed:
                break
            ready = [each for each in worded if each.text]
            outcomes = list(pool.map(lambda each: _handed_over(sender, each), ready))
            with transaction() as session:
                _mark(session, sender, outcomes, clock())
            taken += sum(1 for each in outcomes if each.sent)
    return taken


def _claim(session: Session, rules: MessageRules, now: datetime) -> Sequence[Any]:
    """Take the next messages, unless it is a quiet hour."""
    if rules.quiet_hours.after(now) > now:
        return []
    rows = execute(
        session,
        """
        UPDATE message m SET tries = tries + 1,
            retry_at = clock_timestamp() + make_interval(secs => least(
                :longest, :claim * power(2, tries)))
        FROM contributor f WHERE f.id = m.contributor_id AND m.id IN (
            SELECT id FROM message WHERE state = 'waiting' AND send_at <= :now
                AND (retry_at IS NULL OR retry_at <= clock_timestamp())
            ORDER BY send_at, id LIMIT :size FOR UPDATE SKIP LOCKED)
        RETURNING m.id, kind, coalesce(f.merged_into_id, f.id) AS contributor_id, invoice_id,
            payment_id
        """,
        # Whoever is killed each time before he marks hands it over ever more seldom.
        {"claim": CLAIM_SECONDS, "longest": RETRY_SECONDS_MAX, "now": now, "size": BATCH},
    ).all()
    return sorted(rows, key=lambda row: row.id)


def _handed_over(sender: Sender, worded: Worded) -> _Outcome:
    at = worded.message_id
    try:
        sent = sender.send(worded.phone, worded.text, message_id=f"wasl-{at}")
    except SenderRefuses as error:
        log.warning("message_refused", message=at, reason=str(error))
        return _Outcome(at, worded, because=str(error), for_good=True)
    except SenderAway as error:
        log.warning("message_not_taken", message=at, reason=str(error))
        return _Outcome(at, worded, because=str(error))
    return _Outcome(at, worded, sent=sent)


def _drop(session: Session, worded: Sequence[Worded]) -> None:
    dropped = [each for each in worded if each.pointless]
    execute(
        session,
        "UPDATE message SET state = 'dropped', because = d.because, retry_at = NULL"
        " FROM unnest(CAST(:ids AS bigint[]), CAST(:reasons AS text[])) AS d (id, because)"
        " WHERE message.id = d.id AND state = 'waiting'",
        {"ids": [d.message_id for d in dropped], "reasons": [d.pointless for d in dropped]},
    )


def _wait(session: Session, worded: Sequence[Worded]) -> None:
    """Put off what cannot be said yet. It was not tried."""
    execute(
        session,
        "UPDATE message SET tries = tries - 1,"
        " retry_at = clock_timestamp() + make_interval(secs => :seconds) WHERE id = ANY(:ids)",
        {
            "seconds": NOT_YET_SECONDS,
            "ids": [w.message_id for w in worded if not w.pointless and not w.text],
        },
    )


def _mark(session: Session, sender: Sender, outcomes: Sequence[_Outcome], now: datetime) -> None:
    sent = [(each, each.sent) for each in outcomes if each.sent is not None]
    execute(
        session,
        """
        UPDATE message SET state = 'sent', sent_at = :now, retry_at = NULL, because = NULL,
            language = s.language, text = s.text, parts = s.parts, sender = :sender,
            sender_id = s.sender_id
        FROM unnest(CAST(:ids AS bigint[]), CAST(:languages AS text[]), CAST(:texts AS text[]),
            CAST(:parts AS int[]), CAST(:named AS text[]))
            AS s (id, language, text, parts, sender_id)
        WHERE message.id = s.id AND state = 'waiting'
        """,
        {
            "now": now,
            "sender": sender.name,
            "ids": [each.message_id for each, _ in sent],
            "languages": [each.worded.language for each, _ in sent],
            "texts": [each.worded.text for each, _ in sent],
            "parts": [parts(each.worded.text) for each, _ in sent],
            "named": [said.sender_id for _, said in sent],
        },
    )
    failed = [each for each in outcomes if each.sent is None]
    execute(
        session,
        """
        UPDATE message SET because = f.because,
            state = CASE WHEN f.for_good OR tries >= :most THEN 'dropped' ELSE 'waiting' END,
            retry_at = CASE WHEN f.for_good OR tries >= :most THEN NULL ELSE clock_timestamp()
                + make_interval(secs => least(:longest, :first * power(2, tries - 1)) * :jitter) END
        FROM unnest(CAST(:ids AS bigint[]), CAST(:reasons AS text[]), CAST(:for_good AS boolean[]))
            AS f (id, because, for_good)
        WHERE message.id = f.id AND state = 'waiting'
        """,
        {
            "most": TRIES_MAX,
            "longest": RETRY_SECONDS_MAX,
            "first": RETRY_SECONDS,
            "jitter": random.uniform(0.8, 1.2),  # noqa: S311 - spreads load, hides nothing
            "ids": [each.message_id for each in failed],
            "reasons": [each.because for each in failed],
            "for_good": [each.for_good for each in failed],
        },
    )
