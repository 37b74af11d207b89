"""What `/metrics` reads of the database: cheap now, and cheap on tables of many millions of rows.

Three ways, by what a number needs. What waits or is open is found by the indexes of queues and
counted up to COUNT_MAX: beyond that the exact number helps nobody. Balances are followed along the
books, whose numbers are in the order of commits, so that each transfer is read once by a process.
The rest changes under us, so it is counted anew, now and then, in ranges of the primary key. The
inbox and reconciliation are read by their tables alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlmodel import Session

from gateway.books.accounts import SUSPENSE, account
from gateway.db import execute, snapshot
from gateway.models import AccountKind, ExceptionCode
from gateway.sending import held

COUNT_MAX: Final = 20_000
"""Where counting what waits or is open stops."""

RANGE_ROWS: Final = 20_000
"""Primary keys that one statement looks at: some ten milliseconds."""

OTHER: Final = "other"
"""Stands for every provider that is switched off: labels come from the providers file alone."""

UNSTATED: Final = "unstated"


@dataclass(frozen=True, slots=True)
class Standing:
    """What waits, and since when."""

    waiting: Mapping[str, int]
    """Deliveries by provider, each up to COUNT_MAX."""
    undone: Mapping[str, int]
    """Other things in line, by what they are, up to COUNT_MAX."""
    oldest_seconds: Mapping[str, float]
    """Age of the oldest by what it is, by the business clock; 0 where nothing waits."""
    exceptions: Mapping[str, int]
    """Open ones by code, each up to COUNT_MAX; every code is there."""
    reconciled_seconds_ago: float | None
    """Since the last run began; None: there was none."""
    posted_batch: int
    """The last one in the books; 0: none."""
    sending_held: bool


@dataclass(slots=True)
class Totals:
    """Everything there is, counted."""

    deliveries: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By provider, state and outcome."""
    payments: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By channel and status."""
    payments_minor: Counter[tuple[str, str]] = field(default_factory=Counter)
    returned_minor: Counter[str] = field(default_factory=Counter)
    """What refunds and disputes gave back of booked payments, by channel."""
    invoices: Counter[str] = field(default_factory=Counter)
    """By status; `cancelled` is one of them here."""
    invoiced_minor: int = 0
    """As they were issued, of invoices that stand."""
    owed_minor: int = 0
    """What these come to by now, without the penalty that grows by date."""
    paid_minor: int = 0


# One step for each provider that has anything waiting, to its oldest, however many there are. The
# order is that of the index: by id alone the planner walks through all that is done.
_WAITING: Final = """
    WITH RECURSIVE named (provider, since) AS (
        (SELECT provider, received_at FROM webhook_delivery
            WHERE state = 'waiting' ORDER BY provider, id LIMIT 1)
        UNION ALL
        SELECT next.provider, next.received_at FROM named, LATERAL (
            SELECT provider, received_at FROM webhook_delivery
            WHERE state = 'waiting' AND provider > named.provider ORDER BY provider, id LIMIT 1
        ) AS next
    )
    SELECT provider, since, (SELECT count(*) FROM (
        SELECT FROM webhook_delivery WHERE state = 'waiting' AND provider = named.provider
        ORDER BY id LIMIT :most) AS capped)
    FROM named
"""

# The head of each line: what was put in first, or nearly.
_LINES: Final = """
    SELECT 'variant',
        (SELECT count(*) FROM (SELECT FROM webhook_variant
            WHERE processed_at IS NULL LIMIT :most) AS capped),
        (SELECT received_at FROM webhook_variant WHERE processed_at IS NULL ORDER BY id LIMIT 1)
    UNION ALL SELECT 'outbox',
        (SELECT count(*) FROM (SELECT FROM outbox_message LIMIT :most) AS capped),
        (SELECT created_at FROM outbox_message ORDER BY id LIMIT 1)
    UNION ALL SELECT 'replay',
        (SELECT count(*) FROM (SELECT FROM replayed_delivery
            WHERE processed_at IS NULL LIMIT :most) AS capped),
        (SELECT asked_at FROM webhook_replay WHERE id = (SELECT replay_id FROM replayed_delivery
            WHERE processed_at IS NULL ORDER BY replay_id, delivery_pk LIMIT 1))
    UNION ALL SELECT 'receipt',
        (SELECT count(*) FROM (SELECT FROM receipt_due LIMIT :most) AS capped),
        (SELECT min(booked_at) FROM payment WHERE id = ANY(ARRAY(
            SELECT payment_id FROM receipt_due ORDER BY payment_id LIMIT 500)))
"""

_EXCEPTIONS: Final = """
    WITH RECURSIVE named (code) AS (
        (SELECT code FROM coded_exception WHERE resolved_at IS NULL ORDER BY code, subject LIMIT 1)
        UNION ALL
        SELECT next.code FROM named, LATERAL (
            SELECT code FROM coded_exception
            WHERE resolved_at IS NULL AND code > named.code ORDER BY code, subject LIMIT 1
        ) AS next
    )
    SELECT code, (SELECT count(*) FROM (
        SELECT FROM coded_exception WHERE resolved_at IS NULL AND code = named.code
        ORDER BY subject LIMIT :most) AS capped)
    FROM named
"""


def read_standing(session: Session, known: Collection[str], *, now: datetime) -> Standing:
    """Return what waits now. The caller owns the transaction.

    Args:
        session: One that sees one instant.
        known: The providers that are switched on; all others are one, OTHER.
        now: By the business clock, as the instants in the tables are.
    """
    waiting: Counter[str] = Counter(dict.fromkeys(known, 0))
    oldest: dict[str, datetime | None] = {"delivery": None}
    for provider, since, count in execute(session, _WAITING, {"most": COUNT_MAX}):
        waiting[provider if provider in known else OTHER] += count
        oldest["delivery"] = min(since, oldest["delivery"] or since)
    undone: dict[str, int] = {}
    for what, count, since in execute(session, _LINES, {"most": COUNT_MAX}):
        undone[what], oldest[what] = count, since
    exceptions = dict.fromkeys((code.value for code in ExceptionCode), 0)
    for code, count in execute(session, _EXCEPTIONS, {"most": COUNT_MAX}):
        exceptions[code] = count
    last = "SELECT started_at FROM reconciliation_run ORDER BY id DESC LIMIT 1"
    reconciled_at = execute(session, last).scalar()
    posted = execute(session, "SELECT coalesce(max(id), 0) FROM ledger_batch").scalar_one()
    return Standing(
        waiting=waiting,
        undone=undone,
        oldest_seconds={what: age_of(since, now) for what, since in oldest.items()},
        exceptions=exceptions,
        reconciled_seconds_ago=None if reconciled_at is None else age_of(reconciled_at, now),
        posted_batch=int(posted),
        sending_held=held(session) is not None,
    )


def age_of(since: datetime | None, now: datetime) -> float:
    """Return the seconds since an instant; 0 without one."""
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())


class Balances:
    """The balances of some accounts, followed along the books by one process, one thread."""

    def __init__(self) -> None:
        self._read_to = 0
        self._minor: Counter[str] = Counter()

    def follow(self, session: Session) -> Mapping[str, int]:
        """Read what was posted since, and return centimes by account: debits less credits.

        The accounts are suspense and the clearing of every provider that ever paid. The caller
        owns the transaction, which sees one instant: a transfer in it has its accounts in it.
        """
        last = execute(session, "SELECT coalesce(max(id), 0) FROM ledger_transfer").scalar_one()
        if last < self._read_to:
            # Another database, or an older state of it, has come back.
            self._read_to, self._minor = 0, Counter()
        codes = _accounts(session)
        minor, at = Counter(self._minor), self._read_to
        while at < last:
            to = min(at + RANGE_ROWS, last)
            rows = execute(session, _MOVED, {"low": at, "high": to, "accounts": list(codes)})
            for account_id, moved in rows:
                minor[codes[account_id]] += int(moved)
            at = to
        self._read_to, self._minor = at, minor
        return {code: minor[code] for code in codes.values()}


_MOVED: Final = """
    SELECT account, sum(minor) FROM (
        SELECT debit_account_id AS account, amount_minor AS minor FROM ledger_transfer
        WHERE id > :low AND id <= :high
        UNION ALL
        SELECT credit_account_id, -amount_minor FROM ledger_transfer
        WHERE id > :low AND id <= :high
    ) AS moved WHERE account = ANY(:accounts) GROUP BY account
"""

_PROVIDERS: Final = """
    WITH RECURSIVE named (provider) AS (
        (SELECT provider FROM payment ORDER BY provider LIMIT 1)
        UNION ALL
        SELECT (SELECT provider FROM payment WHERE provider > named.provider
            ORDER BY provider LIMIT 1)
        FROM named WHERE named.provider IS NOT NULL
    )
    SELECT provider FROM named WHERE provider IS NOT NULL
"""


def _accounts(session: Session) -> dict[int, str]:
    providers = execute(session, _PROVIDERS).scalars()
    codes = [SUSPENSE, *(account(AccountKind.CLEARING, provider) for provider in providers)]
    query = "SELECT id, code FROM ledger_account WHERE code = ANY(:codes)"
    return {row[0]: row[1] for row in execute(session, query, {"codes": codes})}


def count_totals(known: Collection[str]) -> Totals:
    """Count deliveries, payments and invoices, in short transactions of its own.

    Not of one instant: what comes or changes while it counts may be in or not.
    """
    totals = Totals()
    for provider, state, outcome, count in _ranges("webhook_delivery", _DELIVERIES):
        by = provider if provider in known else OTHER
        totals.deliveries[by, state, outcome or ""] += count
    for channel, status, count, minor, returned in _ranges("payment", _PAYMENTS):
        by = channel or UNSTATED
        totals.payments[by, status] += count
        totals.payments_minor[by, status] += int(minor)
        totals.returned_minor[by] += int(returned)
    for status, count, minor, owed, paid in _ranges("invoice", _INVOICES):
        totals.invoices[status] += count
        totals.invoiced_minor += int(minor)
        totals.owed_minor += int(owed)
        totals.paid_minor += int(paid)
    return totals


_DELIVERIES: Final = """
    SELECT provider, state, outcome, count(*) FROM webhook_delivery
    WHERE id > :low AND id <= :high GROUP BY 1, 2, 3
"""
_PAYMENTS: Final = """
    SELECT channel, status, count(*), sum(amount_minor),
        coalesce(sum(returned_minor) FILTER (WHERE status = 'booked'), 0) FROM payment
    WHERE id > :low AND id <= :high GROUP BY 1, 2
"""
_INVOICES: Final = """
    SELECT CASE WHEN cancelled_at IS NULL THEN status ELSE 'cancelled' END, count(*),
        coalesce(sum(amount_minor) FILTER (WHERE cancelled_at IS NULL), 0),
        coalesce(sum(owed_minor) FILTER (WHERE cancelled_at IS NULL), 0), sum(paid_minor)
    FROM invoice WHERE id > :low AND id <= :high GROUP BY 1
"""


def _ranges(table: str, query: str) -> Iterator[Any]:
    """Yield what a query says of each range of a table, a transaction for each."""
    with snapshot() as session:
        ends = execute(session, f"SELECT coalesce(min(id), 1) - 1, max(id) FROM {table}").one()
    at, last = ends[0], ends[1] or 0
    while at < last:
        with snapshot() as session:
            rows = execute(session, query, {"low": at, "high": at + RANGE_ROWS}).all()
        yield from rows
        at += RANGE_ROWS
