"""Words that we owe senders who did not wait: kept with what they tell of, sent afterwards.

Each is sent at least once, or given up with a reason; whoever asks meanwhile is told the same.
Where a word goes is the sender's choice: so only to the open internet and over TLS, save in a
sandbox (webhooks.guarded).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Final

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session

from gateway.clock import Clock
from gateway.db import alone, execute, transaction
from gateway.providers.calls import Callback
from webhooks.guarded import NotAllowed, Reach, Wire
from webhooks.models import ProviderCallback

AT_ONCE_MAX: Final = 8
"""How many are sent beside each other, so that one slow receiver does not hold up the others."""
SILENCE_SECONDS_MAX: Final = 5.0
SEND_SECONDS_MAX: Final = 10.0
"""For one sending: an answer that comes byte by byte is never silent for long."""
CLAIM_SECONDS: Final = 60
"""After which a sending that nobody finished is done again."""
RUN_SECONDS: Final = 20.0
"""After which a run begins no other sending: the schedule rings again."""

ATTEMPTS_MAX: Final = 20
"""Some six hours: after that the sender has to ask."""
RETRY_SECONDS: Final = 5
RETRY_SECONDS_MAX: Final = 1800

_ALONE: Final = "webhooks.send_callbacks"
_METHOD: Final = ":method"
"""Under which the method is kept among the headers, as in HTTP/2."""

log = structlog.get_logger(__name__)


def owe(
    session: Session,
    provider: str,
    delivery: int,
    url: str,
    callback: Callback,
    *,
    now: datetime,
) -> None:
    """Keep a word to be sent once this commits. The caller owns the transaction."""
    row = {
        "provider": provider,
        "delivery_pk": delivery,
        "url": url,
        "headers": {**callback.headers, _METHOD: callback.method},
        "body": callback.body,
        # By the clock that it is looked for by: the business clock may stand still.
        "retry_at": sa.func.clock_timestamp(),
        "made_at": now,
    }
    session.execute(insert(ProviderCallback).values(row))


@dataclass(frozen=True, slots=True)
class Due:
    """A word that is to be sent now."""

    id: int
    provider: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    attempts: int
    """With this one."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one sending."""

    error: str | None = None
    """Why it was not taken; no address and nothing that was answered stands in it."""
    final: bool = False
    """Whether sending it again would be of no use."""


def send_due(*, clock: Clock, sandbox: bool) -> int:
    """Send what is due, and return how many words were taken by their receivers.

    Opens its own transactions: one claims, one keeps what came of it, and the sending is between
    them, so that a kill there sends again after CLAIM_SECONDS. One run at a time sends; another
    returns at once.

    Args:
        clock: The business clock, by which the end of a word is dated.
        sandbox: Whether a word may go to this machine and its network, and without TLS.

    Raises:
        DBAPIError: The database is away. What was sent meanwhile may be sent again.
    """
    until = time.monotonic() + RUN_SECONDS
    taken = 0
    with alone(_ALONE) as ours, ThreadPoolExecutor(AT_ONCE_MAX, "callbacks") as pool:
        while ours and time.monotonic() < until:
            claimed = _claim()
            if not claimed:
                break
            outcomes = list(pool.map(lambda due: _send(due, sandbox=sandbox), claimed))
            _keep(claimed, outcomes, now=clock())
            taken += sum(outcome.error is None for outcome in outcomes)
    return taken


def _claim() -> list[Due]:
    with transaction() as session:
        rows = execute(
            session,
            "UPDATE provider_callback SET attempts = attempts + 1,"
            " retry_at = clock_timestamp() + make_interval(secs => :seconds)"
            " WHERE id IN (SELECT id FROM provider_callback WHERE state = 'waiting'"
            " AND retry_at <= clock_timestamp() ORDER BY retry_at, id LIMIT :size"
            " FOR UPDATE SKIP LOCKED)"
            " RETURNING id, provider, url, headers, body, attempts",
            {"seconds": CLAIM_SECONDS, "size": AT_ONCE_MAX},
        )
        return [Due(*row) for row in rows]


def _keep(claimed: Sequence[Due], outcomes: Sequence[Sent], *, now: datetime) -> None:
    """Keep what came of each sending: done, given up, or again later and later."""
    states, delays = [], []
    for due, sent in zip(claimed, outcomes, strict=True):
        over = sent.final or due.attempts >= ATTEMPTS_MAX
        states.append("done" if sent.error is None else "given_up" if over else "waiting")
        delays.append(min(RETRY_SECONDS * 2 ** (due.attempts - 1), RETRY_SECONDS_MAX))
        if sent.error is not None:
            log.warning(
                "callback_not_taken",
                provider=due.provider,
                callback=due.id,
                attempts=due.attempts,
                given_up=over,
                reason=sent.error,
            )
    with transaction() as session:
        execute(
            session,
            # Spread between half and all of the delay: receivers come back one after the other.
            "UPDATE provider_callback SET state = o.state, last_error = o.error,"
            " ended_at = CASE WHEN o.state <> 'waiting' THEN CAST(:now AS timestamptz) END,"
            " retry_at = clock_timestamp() + make_interval(secs => o.delay * (0.5 + random() / 2))"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:states AS text[]), CAST(:errors AS text[]),"
            " CAST(:delays AS bigint[])) AS o (id, state, error, delay)"
            " WHERE provider_callback.id = o.id AND provider_callback.state = 'waiting'",
            {
                "now": now,
                "ids": [due.id for due in claimed],
                "states": states,
                "errors": [sent.error for sent in outcomes],
                "delays": delays,
            },
        )


# -- one sending ----------------------------------------------------------------------------------


def _send(due: Due, *, sandbox: bool) -> Sent:
    """Send one word. Raises nothing, whatever its address and a network do."""
    reach = Reach.ANYWHERE if sandbox else Reach.INTERNET
    wire = Wire(due.url, reach, seconds=SEND_SECONDS_MAX, silence_seconds=SILENCE_SECONDS_MAX)
    headers = {name: value for name, value in due.headers.items() if name != _METHOD}
    headers["Connection"] = "close"
    try:
        status = wire.send(due.headers[_METHOD], headers, bytes(due.body)).status
    except NotAllowed as error:
        return Sent(str(error), final=True)
    except Exception as error:  # noqa: BLE001 - all that a name, a network and a server can do
        return Sent(f"no answer: {type(error).__name__}")
    finally:
        wire.close()
    if 200 <= status < 300:
        return Sent()
    if 300 <= status < 400:
        return Sent(f"answered {status}: we follow nobody elsewhere")
    return Sent(f"answered {status}", final=status == HTTPStatus.GONE)
