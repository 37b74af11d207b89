"""Who is told of what happens: endpoints are added, changed, disabled, enabled and removed here.

Secrets leave this module once, when they are made. All here is done for a caller who owns the
transaction and locks nothing else before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog
from cryptography.fernet import Fernet
from sqlmodel import Session

from gateway.db import execute
from gateway.events import tell
from gateway.exception_queue import (
    Finding,
    open_exceptions,
    opened_events,
    resolve_exceptions,
    resolved_events,
)
from gateway.models import EventType, ExceptionCode
from webhooks.guarded import Reach, check_url
from webhooks.outbound.secrets import make_secret, seal

ENDPOINTS_MAX: Final = 100
SECRETS_MAX: Final = 5
"""That stand at once: each is a signature on all that is sent."""
OVERLAP_HOURS: Final = 24
OVERLAP_HOURS_MAX: Final = 168
TESTS_MAX: Final = 10
"""That wait to be sent to one endpoint."""
RESENDS_MAX: Final = 10
"""That are under way to one endpoint."""

log = structlog.get_logger(__name__)


class Full(Exception):
    """There are as many as there may be; the sentence says of what."""


@dataclass(frozen=True, slots=True)
class Rolled:
    """A new secret, shown once."""

    secret: str
    others_end_at: datetime | None
    """When those before it sign no more, by the database's clock; None: there were none."""


def add(
    session: Session,
    *,
    url: str,
    types: Sequence[EventType],
    description: str,
    reach: Reach,
    key: Fernet,
    added_by: str,
    from_event: int | None,
    now: datetime,
) -> tuple[int, str]:
    """Add an endpoint, and return its id and its first secret, which is shown once.

    Args:
        session: Whose transaction it is.
        url: Where to.
        types: What it is told of; at least one.
        description: Whose it is.
        reach: Where addresses may be.
        key: To seal the secret with.
        added_by: Whose word it is.
        from_event: The first event of the feed that it is told of; None: the next one.
        now: When.

    Raises:
        Unusable: Nothing would ever be sent to this address.
        Full: There are ENDPOINTS_MAX.
    """
    check_url(url, reach)
    # One after the other, so that nobody comes in beside the last place.
    execute(session, "SELECT pg_advisory_xact_lock(hashtext('wasl endpoints'))")
    count = "SELECT count(*) FROM webhook_endpoint WHERE removed_at IS NULL"
    if execute(session, count).scalar_one() >= ENDPOINTS_MAX:
        raise Full(f"There are {ENDPOINTS_MAX} endpoints: remove one first.")
    named = {
        "url": url,
        "types": sorted({each.value for each in types}),
        "description": description,
        "by": added_by,
        "now": now,
    }
    endpoint = int(
        execute(
            session,
            "INSERT INTO webhook_endpoint (url, types, description, added_by, added_at)"
            " VALUES (:url, CAST(:types AS text[]), :description, :by, :now) RETURNING id",
            named,
        ).scalar_one()
    )
    # Events become visible in the order of their ids: what is not seen yet comes after these.
    execute(
        session,
        "INSERT INTO webhook_walk (endpoint_id, kind, at_event, retry_at, asked_by, asked_at)"
        " SELECT :endpoint, 'feed', least(last, coalesce(CAST(:first AS bigint) - 1, last)),"
        " clock_timestamp(), :by, :now FROM (SELECT coalesce(max(id), 0) AS last FROM event) AS f",
        {"endpoint": endpoint, "first": from_event, "by": added_by, "now": now},
    )
    return endpoint, _new_secret(session, endpoint, key, made_by=added_by, now=now)


def _new_secret(
    session: Session, endpoint: int, key: Fernet, *, made_by: str, now: datetime
) -> str:
    secret = make_secret()
    execute(
        session,
        "INSERT INTO webhook_secret (endpoint_id, sealed, made_by, made_at)"
        " VALUES (:endpoint, :sealed, :by, :now)",
        {"endpoint": endpoint, "sealed": seal(secret, key), "by": made_by, "now": now},
    )
    return secret


def lock(session: Session, endpoint: int) -> Any:
    """Return an endpoint's row, locked against others' changes; None if there is no such."""
    query = (
        "SELECT id, disabled_at FROM webhook_endpoint"
        " WHERE id = :id AND removed_at IS NULL FOR NO KEY UPDATE"
    )
    return execute(session, query, {"id": endpoint}).one_or_none()


def change(
    session: Session,
    endpoint: int,
    *,
    url: str | None = None,
    types: Sequence[EventType] | None = None,
    description: str | None = None,
    reach: Reach,
) -> None:
    """Change what is given of an endpoint that is locked. At another address it is tried at once.

    Events of types that come in are sent from where it stands; what it has passed, by a resend.

    Raises:
        Unusable: Nothing would ever be sent to this address.
    """
    if url is not None:
        check_url(url, reach)
        _forget_failures(session, endpoint)
    execute(
        session,
        "UPDATE webhook_endpoint SET url = coalesce(:url, url),"
        " types = coalesce(CAST(:types AS text[]), types),"
        " description = coalesce(:description, description) WHERE id = :id",
        {
            "id": endpoint,
            "url": url,
            "types": None if types is None else sorted({each.value for each in types}),
            "description": description,
        },
    )


def roll(
    session: Session,
    endpoint: int,
    *,
    overlap_hours: int,
    key: Fernet,
    made_by: str,
    now: datetime,
) -> Rolled:
    """Make a new secret for an endpoint that is locked. The others sign beside it until their end.

    Args:
        session: Whose transaction it is.
        endpoint: Which.
        overlap_hours: For how long the others sign at most; 0: no more from now on.
        key: To seal it with.
        made_by: Whose word it is.
        now: When, by the business clock.

    Raises:
        Full: SECRETS_MAX stand, and would go on to.
    """
    ended = execute(
        session,
        "UPDATE webhook_secret SET ends_at = least(coalesce(ends_at, 'infinity'),"
        " clock_timestamp() + make_interval(hours => :hours)) WHERE endpoint_id = :endpoint"
        " AND (ends_at IS NULL OR ends_at > clock_timestamp()) RETURNING ends_at",
        {"endpoint": endpoint, "hours": overlap_hours},
    ).scalars()
    ends = list(ended)
    if overlap_hours and len(ends) >= SECRETS_MAX:
        raise Full(f"{SECRETS_MAX} secrets stand: end the others now, or wait for one's end.")
    secret = _new_secret(session, endpoint, key, made_by=made_by, now=now)
    return Rolled(secret, max(ends, default=None))


def disable(session: Session, endpoint: int, *, because: str, now: datetime, noticed: bool) -> bool:
    """Send nothing more to an endpoint, and say whether that is news. Where it stands is kept.

    Args:
        session: Whose transaction it is; it has locked no more than the endpoint.
        endpoint: Which.
        because: Why.
        now: When.
        noticed: Whether a person is to be told, since none asked for it.
    """
    done = execute(
        session,
        "UPDATE webhook_endpoint SET disabled_at = :now, disabled_because = :because"
        " WHERE id = :id AND disabled_at IS NULL AND removed_at IS NULL",
        {"id": endpoint, "because": because, "now": now},
    ).rowcount
    if done and noticed:
        log.warning("endpoint_disabled", endpoint=endpoint, reason=because)
        detail = {"endpoint": str(endpoint), "reason": because}
        finding = Finding(ExceptionCode.ENDPOINT_DISABLED, _subject(endpoint), detail)
        tell(session, opened_events(open_exceptions(session, [finding], now=now)), now=now)
    return bool(done)


def enable(session: Session, endpoint: int, *, by: str, now: datetime) -> None:
    """Send to an endpoint that is locked again, at once, from where it stopped."""
    execute(
        session,
        "UPDATE webhook_endpoint SET disabled_at = NULL, disabled_because = NULL WHERE id = :id",
        {"id": endpoint},
    )
    _forget_failures(session, endpoint)
    _no_notice(session, endpoint, f"enabled again ({by})", now)


def remove(session: Session, endpoint: int, *, by: str, now: datetime) -> None:
    """Have an endpoint that is locked be no more: its secrets are deleted, its attempts stay."""
    execute(
        session,
        "UPDATE webhook_endpoint SET removed_at = :now WHERE id = :id",
        {"id": endpoint, "now": now},
    )
    execute(
        session,
        "UPDATE webhook_walk SET ended_at = :now WHERE endpoint_id = :id AND ended_at IS NULL",
        {"id": endpoint, "now": now},
    )
    execute(session, "DELETE FROM webhook_secret WHERE endpoint_id = :id", {"id": endpoint})
    _no_notice(session, endpoint, f"removed ({by})", now)


def _forget_failures(session: Session, endpoint: int) -> None:
    execute(
        session,
        "UPDATE webhook_walk SET attempts = 0, retry_at = clock_timestamp()"
        " WHERE endpoint_id = :id AND ended_at IS NULL",
        {"id": endpoint},
    )


def _no_notice(session: Session, endpoint: int, because: str, now: datetime) -> None:
    code, subjects = ExceptionCode.ENDPOINT_DISABLED, [_subject(endpoint)]
    closed = resolve_exceptions(session, code, subjects, because=because, now=now)
    tell(session, resolved_events(closed), now=now)


def _subject(endpoint: int) -> str:
    return f"endpoint:{endpoint}"


# -- sending again --------------------------------------------------------------------------------


def count_span(session: Session, endpoint: int, first: int, last: int, most: int) -> int:
    """Return how many events of a span of the feed an endpoint follows; counting stops at `most`.

    Those that it is still to get in its turn are not among them.
    """
    found = execute(
        session,
        f"SELECT count(*) FROM (SELECT FROM {_SPAN} LIMIT :most) AS capped",
        {"endpoint": endpoint, "first": first, "last": last, "most": most},
    )
    return int(found.scalar_one())


_SPAN: Final = """event v JOIN webhook_endpoint e ON e.id = :endpoint
    JOIN webhook_walk w ON w.endpoint_id = e.id AND w.kind = 'feed'
    WHERE v.id BETWEEN :first AND least(:last, w.at_event) AND v.type = ANY(e.types)"""


def resend(
    session: Session, endpoint: int, first: int, last: int, *, by: str, now: datetime
) -> int | None:
    """Have a span of the feed sent once more, in order, under the same `webhook-id`s.

    To an endpoint that is locked; beside what it gets in its turn. Returns the order's id, or None
    where nothing in the span is for it.

    Raises:
        Full: RESENDS_MAX are under way.
    """
    if not count_span(session, endpoint, first, last, 1):
        return None
    _refuse_more(session, endpoint, "resend", RESENDS_MAX)
    return int(
        execute(
            session,
            "INSERT INTO webhook_walk (endpoint_id, kind, at_event, upto_event, retry_at, asked_by,"
            " asked_at) SELECT :endpoint, 'resend', :first - 1, least(:last, at_event),"
            " clock_timestamp(), :by, :now FROM webhook_walk"
            " WHERE endpoint_id = :endpoint AND kind = 'feed' RETURNING id",
            {"endpoint": endpoint, "first": first, "last": last, "by": by, "now": now},
        ).scalar_one()
    )


def order_test(session: Session, endpoint: int, *, by: str, now: datetime) -> int:
    """Have one message that tells of nothing sent, once, also to a disabled endpoint; locked.

    Returns the order's id.

    Raises:
        Full: TESTS_MAX wait.
    """
    _refuse_more(session, endpoint, "test", TESTS_MAX)
    return int(
        execute(
            session,
            "INSERT INTO webhook_walk (endpoint_id, kind, at_event, upto_event, retry_at, asked_by,"
            " asked_at) VALUES (:endpoint, 'test', 0, 0, clock_timestamp(), :by, :now)"
            " RETURNING id",
            {"endpoint": endpoint, "by": by, "now": now},
        ).scalar_one()
    )


def _refuse_more(session: Session, endpoint: int, kind: str, most: int) -> None:
    count = (
        "SELECT count(*) FROM webhook_walk"
        " WHERE endpoint_id = :endpoint AND kind = :kind AND ended_at IS NULL"
    )
    if execute(session, count, {"endpoint": endpoint, "kind": kind}).scalar_one() >= most:
        raise Full(f"{most} are under way to this endpoint: wait for one's end.")


# -- looking --------------------------------------------------------------------------------------


def list_endpoints(
    session: Session, *, after: int = 0, limit: int = ENDPOINTS_MAX, endpoint: int | None = None
) -> list[dict[str, Any]]:
    """Return endpoints that were not removed, by id, with how they fare. No secret is in them."""
    rows = execute(
        session,
        _LISTED,
        {"after": after, "limit": limit, "id": endpoint},
    ).mappings()
    return [dict(row) for row in rows]


# How many events lie before it would be a walk of its own: what is told is since when it waits.
_LISTED: Final = """
    SELECT e.id, e.url, e.types, e.description, e.added_by, e.added_at, e.disabled_at,
        e.disabled_because, w.at_event, w.attempts, w.last_error, w.taken, w.failed,
        CASE WHEN w.attempts > 0 AND e.disabled_at IS NULL THEN w.retry_at END AS retry_at,
        greatest(0, coalesce((SELECT max(id) FROM event), 0) - w.at_event) AS behind,
        (SELECT jsonb_agg(jsonb_build_object('made_at', s.made_at, 'made_by', s.made_by,
            'ends_at', s.ends_at) ORDER BY s.id DESC) FROM webhook_secret s
            WHERE s.endpoint_id = e.id AND (s.ends_at IS NULL OR s.ends_at > clock_timestamp()))
            AS secrets
    FROM webhook_endpoint e JOIN webhook_walk w ON w.endpoint_id = e.id AND w.kind = 'feed'
    WHERE e.removed_at IS NULL AND e.id > :after AND e.id = coalesce(:id, e.id)
    ORDER BY e.id LIMIT :limit
"""


def list_orders(
    session: Session, endpoint: int, *, before: int, limit: int
) -> list[dict[str, Any]]:
    """Return resends and tests of an endpoint, the last one first."""
    rows = execute(
        session,
        "SELECT id, kind, at_event, upto_event, attempts, last_error, taken, failed, asked_by,"
        " asked_at, ended_at FROM webhook_walk WHERE endpoint_id = :endpoint AND kind <> 'feed'"
        " AND id < :before ORDER BY id DESC LIMIT :limit",
        {"endpoint": endpoint, "before": before, "limit": limit},
    ).mappings()
    return [dict(row) for row in rows]


def list_resends(session: Session) -> list[dict[str, Any]]:
    """Return the resends that are under way, to whatever endpoint, the first one first."""
    rows = execute(
        session,
        "SELECT id, endpoint_id, at_event, upto_event, attempts, last_error, taken,"
        " CASE WHEN attempts > 0 THEN retry_at END AS retry_at, asked_by, asked_at"
        " FROM webhook_walk WHERE kind = 'resend' AND ended_at IS NULL ORDER BY id",
    ).mappings()
    return [dict(row) for row in rows]


def list_attempts(
    session: Session,
    endpoint: int,
    *,
    before: int,
    limit: int,
    event: int | None = None,
    failed: bool | None = None,
) -> list[dict[str, Any]]:
    """Return attempts to send to an endpoint, the last one first."""
    rows = execute(
        session,
        "SELECT id, event_id, message_id, attempted_at, ms, status, error FROM webhook_attempt"
        " WHERE endpoint_id = :endpoint AND id < :before"
        " AND (CAST(:event AS bigint) IS NULL OR event_id = :event)"
        " AND (CAST(:failed AS boolean) IS NULL OR (error IS NOT NULL) = :failed)"
        " ORDER BY id DESC LIMIT :limit",
        {
            "endpoint": endpoint,
            "before": before,
            "limit": limit,
            "event": event,
            "failed": failed,
        },
    ).mappings()
    return [dict(row) for row in rows]


def attempt_of(session: Session, order: int) -> dict[str, Any] | None:
    """Return what came of a test; None: it was not sent yet."""
    row = execute(
        session,
        # By the endpoint's last attempts: it is asked for while it is being sent.
        "SELECT a.status, a.ms, a.error FROM webhook_walk w JOIN LATERAL (SELECT * FROM"
        " webhook_attempt WHERE endpoint_id = w.endpoint_id ORDER BY id DESC LIMIT 1000) AS a"
        " ON a.walk_id = w.id WHERE w.id = :order ORDER BY a.id LIMIT 1",
        {"order": order},
    ).mappings()
    found = row.one_or_none()
    return None if found is None else dict(found)
