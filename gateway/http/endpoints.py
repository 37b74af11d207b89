"""What `/metrics` says of those who are told of events. By their ids: addresses may be secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from prometheus_client.core import Metric
from sqlmodel import Session

from gateway.db import execute
from gateway.http.families import counter, gauge
from gateway.http.readings import COUNT_MAX, age_of


@dataclass(frozen=True, slots=True)
class EndpointStanding:
    """How it fares with somebody who is told of what happens."""

    enabled: bool
    lag_seconds: float
    """Age of the oldest event that it is still to get, by the business clock; 0: none is near."""
    behind: int
    """How far it is from the end of the feed, in numbers of events, of other types too."""
    failing: int
    """Attempts that failed, of the event in line."""
    taken: int
    failed: int


# One that is disabled for long, and follows what is rare, would have the whole feed looked through.
_ENDPOINTS: Final = """
    SELECT CAST(e.id AS text), e.disabled_at IS NULL, w.attempts, w.taken, w.failed,
        greatest(0, f.last - w.at_event),
        (SELECT v.happened_at FROM event v WHERE v.id > w.at_event AND v.id <= w.at_event + :most
            AND v.type = ANY(e.types) ORDER BY v.id LIMIT 1)
    FROM webhook_endpoint e JOIN webhook_walk w ON w.endpoint_id = e.id AND w.kind = 'feed',
        (SELECT coalesce(max(id), 0) AS last FROM event) AS f
    WHERE e.removed_at IS NULL
"""


def read_endpoints(session: Session, *, now: datetime) -> Mapping[str, EndpointStanding]:
    """Return how it fares with each endpoint, by its id. The caller owns the transaction.

    Args:
        session: One that sees one instant.
        now: By the business clock, as the instants of events are.
    """
    return {
        at: EndpointStanding(
            enabled=enabled,
            lag_seconds=age_of(since, now),
            behind=int(behind),
            failing=failing,
            taken=taken,
            failed=failed,
        )
        for at, enabled, failing, taken, failed, behind, since in execute(
            session, _ENDPOINTS, {"most": COUNT_MAX}
        )
    }


def of_endpoints(endpoints: Mapping[str, EndpointStanding]) -> Iterator[Metric]:
    """Yield what was read."""
    by = ["endpoint"]
    each = {(at,): standing for at, standing in endpoints.items()}
    what = "Whether events are sent to it."
    yield gauge("wasl_endpoint_enabled", what, by, {at: s.enabled for at, s in each.items()})
    what = "Age of the oldest event that it is still to get."
    lag = {at: s.lag_seconds for at, s in each.items()}
    yield gauge("wasl_endpoint_lag_seconds", what, by, lag)
    what = "How far it is from the end of the feed, in numbers of events."
    yield gauge("wasl_endpoint_behind", what, by, {at: s.behind for at, s in each.items()})
    what = "Attempts that failed, of the event in line."
    yield gauge("wasl_endpoint_failing", what, by, {at: s.failing for at, s in each.items()})
    what = "Events that it took."
    yield counter("wasl_endpoint_taken", what, by, {at: s.taken for at, s in each.items()})
    what = "Attempts to send that failed."
    yield counter("wasl_endpoint_failures", what, by, {at: s.failed for at, s in each.items()})
