"""Deliveries as an operator looks for them and looks at them. Reading only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from sqlmodel import Session

from gateway.collection.reports import Refusal
from gateway.db import execute
from gateway.logs import masked
from gateway.models import ExceptionCode
from webhooks.masking import BodyKind, kind_of, mask
from webhooks.models import DeliveryState

UNREADABLE: Final = "unreadable"
"""The state of a delivery id under which nothing came that could be read."""
OUTCOMES: Final = frozenset(
    {
        *("booked", "reversed", "returned", "noted", "repeated", "ignored"),
        *("quarantined", "conflicting", "heeded"),
        *(f"declined_{why}" for why in (*Refusal, *ExceptionCode)),
    }
)
"""All that a delivery can have come to."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which deliveries: all that is given must fit."""

    provider: str | None = None
    delivery_id: str | None = None
    state: DeliveryState | None = None
    outcome: str | None = None
    received_from: datetime | None = None
    received_before: datetime | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it fits every delivery there is."""
        return not self.as_json()

    def as_json(self) -> dict[str, str]:
        """Return what is given, as it is kept and shown."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in given.items()
            if value is not None
        }

    def where(self) -> tuple[str, dict[str, Any]]:
        """Return the condition on `webhook_delivery d`, and its parameters."""
        said = [_CONDITIONS[name] for name in self.as_json()]
        if self.state is DeliveryState.PARKED:
            said.append(_ASKED_ABOUT)
        given = {name: getattr(self, name) for name in self.as_json()}
        return " AND ".join(said) or "true", given


_CONDITIONS: Final = {
    "provider": "d.provider = :provider",
    "delivery_id": "d.delivery_id = :delivery_id",
    "state": "d.state = :state",
    "outcome": "d.outcome = :outcome",
    "received_from": "d.received_at >= :received_from",
    "received_before": "d.received_at < :received_before",
}

# Every parked delivery has an open exception, and those are few and indexed.
_ASKED_ABOUT: Final = """
    (d.provider, d.delivery_id) IN (
        SELECT split_part(named, '/', 1), substr(named, strpos(named, '/') + 1)
        FROM (SELECT substr(subject, length('delivery:') + 1) AS named FROM coded_exception
            WHERE resolved_at IS NULL AND code = 'parked_delivery') AS parked)
"""

_SUMMARY: Final = """
    d.id, d.provider, d.delivery_id, d.state, d.outcome, d.received_at, d.processed_at, d.attempts,
    d.last_error, d.masked_at, length(d.body) AS bytes, (SELECT count(*) FROM webhook_variant v
        WHERE (v.provider, v.delivery_id) = (d.provider, d.delivery_id)) AS variants
"""


def has_sent(session: Session, provider: str) -> bool:
    """Say whether anything ever came from a provider. The caller owns the transaction."""
    found = execute(
        session,
        "SELECT EXISTS (SELECT FROM webhook_delivery WHERE provider = :provider)"
        " OR EXISTS (SELECT FROM webhook_variant WHERE provider = :provider)",
        {"provider": provider},
    )
    return bool(found.scalar_one())


def list_deliveries(
    session: Session, choice: Choice, *, after: int, limit: int
) -> list[Mapping[str, Any]]:
    """Return deliveries in the order in which they were stored, from behind an id.

    The caller owns the transaction.
    """
    where, given = choice.where()
    rows = execute(
        session,
        f"SELECT {_SUMMARY} FROM webhook_delivery d WHERE d.id > :after AND {where}"
        " ORDER BY d.id LIMIT :limit",
        {**given, "after": after, "limit": limit},
    )
    return [dict(row) for row in rows.mappings()]


def read_delivery(
    session: Session, provider: str, delivery_id: str, *, with_body: bool
) -> dict[str, Any] | None:
    """Return all that is known of a delivery, or None if nothing came under its id.

    Its body, where it is asked for, is masked here if it was not yet: operating the hub takes the
    money in it, and nobody's name. The caller owns the transaction.
    """
    named = {"provider": provider, "delivery_id": delivery_id}
    found = execute(
        session,
        f"SELECT {_SUMMARY}, d.retry_at, d.body_sha256, d.path, d.body FROM webhook_delivery d"
        " WHERE d.provider = :provider AND d.delivery_id = :delivery_id",
        named,
    )
    row = found.mappings().one_or_none()
    variants = [dict(each) for each in execute(session, _VARIANTS, named).mappings()]
    if row is None and not variants:
        return None
    said = _only_variants(named, variants) if row is None else dict(row)
    at, body, path = said["id"], said.pop("body"), said.pop("path")
    return {
        **said,
        "variants": variants,
        "answer": _one(session, _ANSWER, at),
        "callback": _one(session, _CALLBACK, at),
        "replays": [dict(each) for each in execute(session, _REPLAYS, {"id": at}).mappings()],
        "path": masked(path) if path and with_body else None,
        "body": shown_body(bytes(body)) if with_body and body is not None else None,
    }


def shown_body(body: bytes) -> str:
    """Return a body as text, without what is personal in it."""
    kind = kind_of(body)
    if kind is BodyKind.UNREADABLE:
        return mask(body, kind).decode("ascii")
    return mask(body, kind).decode("utf-8")


def _only_variants(named: Mapping[str, str], variants: list[dict[str, Any]]) -> dict[str, Any]:
    first = variants[0]
    return {
        **named,
        "id": None,
        "state": UNREADABLE,
        "received_at": first["received_at"],
        "processed_at": first["processed_at"],
        "masked_at": first["masked_at"],
        "bytes": first["bytes"],
        "body_sha256": first["body_sha256"],
        "attempts": 0,
        **dict.fromkeys(("outcome", "last_error", "retry_at", "path", "body")),
    }


_VARIANTS: Final = """
    SELECT received_at, readable, length(body) AS bytes, body_sha256, processed_at, masked_at
    FROM webhook_variant WHERE provider = :provider AND delivery_id = :delivery_id ORDER BY id
"""
_ANSWER: Final = """
    SELECT ticket, status, media_type, answered_at FROM webhook_answer WHERE delivery_pk = :id
"""
_CALLBACK: Final = """
    SELECT state, attempts, last_error, made_at, ended_at FROM provider_callback
    WHERE delivery_pk = :id
"""
_REPLAYS: Final = """
    SELECT r.id, r.asked_by, r.why, r.asked_at, each.outcome, each.processed_at
    FROM replayed_delivery each JOIN webhook_replay r ON r.id = each.replay_id
    WHERE each.delivery_pk = :id ORDER BY r.id
"""


def _one(session: Session, query: str, at: int | None) -> dict[str, Any] | None:
    row = execute(session, query, {"id": at}).mappings().one_or_none()
    return None if row is None else dict(row)
