"""The inbox is the queue: claim deliveries, act on them, mark them done, in one transaction.

A delivery that fails never holds up its neighbours: the batch is rolled back and done in ever
smaller parts, the bad one is tried again later and, after ATTEMPTS_MAX, parked with its reason.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import structlog
from sqlmodel import Session

from gateway.books.seals import BooksKey
from gateway.clock import Clock
from gateway.collection.payment_batch import lock_provider
from gateway.collection.payments import record_reports
from gateway.collection.reports import (
    AttemptLapsed,
    NotAboutMoney,
    PaymentReport,
    Report,
    ReturnReport,
    Unbookable,
)
from gateway.db import execute, fetch, transaction
from gateway.events import tell
from gateway.exception_queue import Finding, open_exceptions, opened_events
from gateway.models import ExceptionCode
from gateway.money import format_amount
from gateway.packing import bigints, texts
from gateway.providers.registry import Providers
from gateway.references import normalise_reference
from webhooks.failing import may_be_the_deliverys, said

BATCH_SIZE: Final = 4_000
"""Whatever is in it, a batch costs as much as 130 deliveries: three percent of so many. Whoever is
to be answered waits for the provider's lock as long as one takes, a quarter of a second."""
SMALLER: Final = 10
"""A batch that failed is done in so many parts, and so on down to single deliveries."""
ATTEMPTS_MAX: Final = 6

log = structlog.get_logger(__name__)


class Delivery(NamedTuple):
    """A claimed delivery."""

    id: int
    provider: str
    delivery_id: str
    body: bytes
    received_at: datetime
    attempts: int


@dataclass(frozen=True, slots=True)
class Desk:
    """What acting on deliveries needs, put together once by the process that drains."""

    providers: Providers
    key: BooksKey
    clock: Clock


def drain(desk: Desk, *, batches_max: int, seconds: float = float("inf")) -> int:
    """Act on what waits, up to so many batches a provider; return how many deliveries were done.

    Opens its own transactions. Any number may drain at once: a provider's deliveries are acted on
    by one at a time and in the order they were stored, save those that failed and are put off.
    Deliveries of a provider that is switched off wait until it is switched on again.

    Args:
        desk: What it needs.
        batches_max: So many batches of each provider at most.
        seconds: After so many no other batch is begun.

    Raises:
        DBAPIError: The database is away, or does not do its work: nothing is held against a
            delivery for that.
        Unusable: These are not the books of this home.
    """
    done, until = 0, time.monotonic() + seconds
    for _ in range(batches_max):
        did = 0
        for name in _providers_waiting(desk):
            if time.monotonic() < until:
                did += _drain_provider(desk, name, BATCH_SIZE).done
        did += _drain_variants(desk)
        if did == 0:
            break
        done += did
    return done


def _providers_waiting(desk: Desk) -> list[str]:
    with transaction() as session:
        _in_order(session, only=True)
        return list(
            execute(
                session,
                "SELECT known FROM unnest(CAST(:known AS text[])) AS known WHERE 1 = (SELECT 1"
                f" {_NEXT.format(provider='known')} LIMIT 1) ORDER BY known",
                {"known": texts(desk.providers)},
            ).scalars()
        )


@dataclass(frozen=True, slots=True)
class _Batch:
    """What became of the deliveries that a batch took."""

    taken: int
    done: int
    """The others are put off, or parked."""


def _drain_provider(desk: Desk, provider: str, size: int) -> _Batch:
    claimed: list[Delivery] = []
    try:
        with transaction() as session:
            claimed = _claim(session, provider, size)
            execute(session, _BY_KEY)
            _act(session, desk, claimed)
        return _Batch(len(claimed), len(claimed))
    except Exception as error:
        if not claimed or not may_be_the_deliverys(error):
            raise
        if len(claimed) == 1:
            with transaction() as session:
                _put_off(session, claimed[0], error, desk)
            return _Batch(1, 0)
        log.warning("batch_failed", provider=provider, size=size, error=type(error).__name__)
    return _drain_in_parts(desk, provider, len(claimed))


def _drain_in_parts(desk: Desk, provider: str, size: int) -> _Batch:
    """Do as many deliveries, fewer at once, so that those that fail are found in a few steps."""
    part = -(-size // SMALLER)
    taken = done = 0
    while taken < size:
        did = _drain_provider(desk, provider, min(part, size - taken))
        if did.taken == 0:
            break
        taken, done = taken + did.taken, done + did.done
    return _Batch(taken, done)


# Only the index of what waits gives this order. Any other way to it leads past all that was done,
# or past all that waits, and the figures that a plan is made by are of before the rush.
_NEXT: Final = (
    "FROM webhook_delivery WHERE provider BETWEEN {provider} AND {provider} AND state = 'waiting'"
    " AND (retry_at IS NULL OR retry_at <= clock_timestamp()) ORDER BY provider, id"
)


def _in_order(session: Session, *, only: bool) -> None:
    """Have an index read in its order and no further than asked, or as the planner likes again.

    By figures of a quiet hour it would read all that waits, and sort it, for each batch of a rush.
    """
    execute(session, f"SET LOCAL enable_bitmapscan = {'off' if only else 'on'}")


# By its figures the planner would read all of a table of up to some hundred thousand rows rather
# than look thousands of them up: all invoices and all deliveries, for each batch until it keeps
# a plan. Ways that are switched off look endlessly dear, which must not have them compiled either.
# So the plan is the same for whatever is looked up, and is not made again for each batch.
_BY_KEY: Final = """
    SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
        set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true),
        set_config('plan_cache_mode', 'force_generic_plan', true)
"""


def _claim(session: Session, provider: str, size: int) -> list[Delivery]:
    """Lock the next deliveries of a provider; none if another is at them."""
    if not lock_provider(session, provider, wait=False):
        return []
    _in_order(session, only=True)
    # The number stands in the statement: a plan for any number would be one for many.
    rows = fetch(
        session,
        "SELECT id, provider, delivery_id, body, received_at, attempts"
        f" {_NEXT.format(provider='%(provider)s')} LIMIT {size:d} FOR UPDATE SKIP LOCKED",
        {"provider": provider},
    )
    _in_order(session, only=False)
    # The driver's instants are of a zone by its name, and each look at one asks the zone.
    return [
        Delivery(at, name, delivery_id, body, received_at.astimezone(UTC), attempts)
        for at, name, delivery_id, body, received_at, attempts in rows
    ]


def _act(session: Session, desk: Desk, deliveries: Sequence[Delivery]) -> None:
    """Book what deliveries say and mark them done. The caller owns the transaction."""
    if not deliveries:
        return
    reports = [
        _parse(desk.providers, d.provider, d.delivery_id, d.body, d.received_at) for d in deliveries
    ]
    now = desk.clock()

    def mark_done(outcomes: Sequence[str]) -> None:
        execute(
            session,
            """
            UPDATE webhook_delivery SET state = 'done', outcome = o.outcome, processed_at = :now
            FROM unnest(CAST(:ids AS bigint[]), CAST(:outcomes AS text[])) AS o (id, outcome)
            WHERE webhook_delivery.id = o.id
            """,
            {"now": now, "ids": bigints([d.id for d in deliveries]), "outcomes": texts(outcomes)},
        )

    record_reports(session, reports, key=desk.key, now=now, decided=mark_done)


def _parse(
    providers: Providers,
    provider: str,
    delivery_id: str,
    body: bytes,
    received_at: datetime,
    path: str | None = None,
) -> Report:
    return providers[provider].parse(
        bytes(body), delivery_id=delivery_id, received_at=received_at, path=path or ""
    )


def _put_off(session: Session, delivery: Delivery, error: Exception, desk: Desk) -> None:
    """Try again later, further and further apart; in the end park it for a person."""
    attempts = delivery.attempts + 1
    reason = said(error)
    parked = attempts >= ATTEMPTS_MAX
    changed = execute(
        session,
        "UPDATE webhook_delivery SET attempts = :attempts, last_error = :reason,"
        " state = CASE WHEN :parked THEN 'parked' ELSE 'waiting' END,"
        " retry_at = clock_timestamp() + make_interval(secs => :seconds)"
        " WHERE id = :id AND state = 'waiting'",
        {
            "attempts": attempts,
            "reason": reason,
            "parked": parked,
            "seconds": 2**attempts,
            "id": delivery.id,
        },
    )
    if changed.rowcount == 0:
        # A replay acted on it since it failed: it is done, and nobody need look.
        return
    log.error("delivery_failed", delivery=delivery.id, attempts=attempts, parked=parked)
    if parked:
        subject = f"delivery:{delivery.provider}/{delivery.delivery_id}"
        finding = Finding(
            ExceptionCode.PARKED_DELIVERY,
            subject,
            {"reason": reason, "attempts": attempts},
        )
        now = desk.clock()
        tell(session, opened_events(open_exceptions(session, [finding], now=now)), now=now)


def _drain_variants(desk: Desk) -> int:
    """Open exceptions for bodies that differ from the first, or could not be read."""
    with transaction() as session:
        rows = (
            execute(
                session,
                """
            SELECT v.id, v.provider, v.delivery_id, v.body, v.readable, v.received_at,
                v.path, d.body AS first, d.path AS first_path, v.body_sha256
            FROM webhook_variant v LEFT JOIN webhook_delivery d USING (provider, delivery_id)
            WHERE v.processed_at IS NULL ORDER BY v.id LIMIT :size FOR UPDATE OF v SKIP LOCKED
            """,
                {"size": BATCH_SIZE},
            )
            .mappings()
            .all()
        )
        now = desk.clock()
        findings = [f for row in rows if (f := _variant_finding(desk.providers, dict(row)))]
        opened = open_exceptions(session, findings, now=now)
        execute(
            session,
            "UPDATE webhook_variant SET processed_at = :now WHERE id = ANY(:ids)",
            {"now": now, "ids": [row["id"] for row in rows]},
        )
        tell(session, opened_events(opened), now=now)
        return len(rows)


def _variant_finding(providers: Providers, row: dict[str, Any]) -> Finding | None:
    subject = f"delivery:{row['provider']}/{row['delivery_id']}"
    if not row["readable"]:
        detail = {"bytes": len(row["body"]), "sha256": bytes(row["body_sha256"]).hex()}
        return Finding(ExceptionCode.UNREADABLE_DELIVERY, subject, detail)
    ours, theirs = (
        _money(providers, row["provider"], row["delivery_id"], body, row["received_at"], path)
        for body, path in ((row["first"], row["first_path"]), (row["body"], row["path"]))
    )
    differs = sorted(
        what for what in ours.keys() | theirs.keys() if ours.get(what) != theirs.get(what)
    )
    if not differs:
        return None
    detail = {"differs": differs, "stands": ours, "reported": theirs}
    return Finding(ExceptionCode.CONFLICTING_DELIVERY, subject, detail)


def _money(
    providers: Providers,
    provider: str,
    delivery_id: str,
    body: bytes,
    received_at: datetime,
    path: str | None,
) -> dict[str, Any]:
    """Return what of a body is money: what may not differ under one delivery id."""
    if provider not in providers:
        # Switched off meanwhile: its dialect is gone, so the bytes themselves are compared.
        return {"sha256": hashlib.sha256(body).hexdigest()}
    try:
        report = _parse(providers, provider, delivery_id, body, received_at, path)
    except Exception as error:  # noqa: BLE001 - a body that its dialect chokes on has neighbours
        return {"sha256": hashlib.sha256(body).hexdigest(), "error": said(error)}
    match report:
        case PaymentReport():
            return {
                "payment": report.provider_payment_id,
                "status": report.statement.value,
                "amount": format_amount(report.amount_minor),
                "currency": report.currency,
                "reference": normalise_reference(report.reference_given),
            }
        case Unbookable():
            # The money as written may be anything, a name too: shown is only whether it differs.
            stated = "\n".join(report.stated).encode("utf-8", "surrogatepass")
            written = hashlib.sha256(stated).hexdigest()[:12]
            return {
                "payment": report.provider_payment_id,
                "status": report.statement.value,
                "unbookable": report.reason,
                "written": written,
            }
        case ReturnReport():
            return {
                "payment": report.provider_payment_id,
                "return": report.return_id,
                "status": f"{report.kind.value} {report.state.value}",
                "amount": format_amount(report.amount_minor),
                "currency": report.currency,
            }
        case AttemptLapsed():
            return {"page": report.session_id}
        case NotAboutMoney():
            return {}
