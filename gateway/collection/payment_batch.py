"""What a batch of reports reads from the database, and what it writes there. Decides nothing.

Always in this order of locks, so that two batches never wait for each other in a ring: the
providers, the payments, the invoices, exceptions, the end of the books' chain, the end of the feed
(which rows of payments and invoices: gateway.collection.debts).
Rows are locked against change and not against being pointed to (NO KEY): whoever tells of a payment
or opens an exception about it holds the feed, or will, and must not wait for a batch that waits for
the feed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Session, SQLModel

from gateway import outbox
from gateway.books.accounts import Posting
from gateway.collection.allocation import BUNDLE_ORDER, CURRENT_FIRST, CURRENT_OF_PLAN
from gateway.collection.debts import (
    Debts,
    invoices_of,
    lock_debts,
    lock_payments,
    surviving_files,
    write_debts,
)
from gateway.collection.placements import (
    Allocated,
    BundleState,
    InvoiceState,
    Key,
    PaymentState,
    Quoted,
)
from gateway.collection.reports import (
    AttemptLapsed,
    NotAboutMoney,
    PaymentReport,
    Report,
    ReturnReport,
)
from gateway.collection.returns import Return
from gateway.db import copy_blocks, execute, insert_all
from gateway.events import Happening
from gateway.exception_queue import Finding
from gateway.models import (
    BundleKind,
    ExceptionCode,
    PaymentReturn,
    ReturnKind,
    ReturnState,
)
from gateway.packing import Texts, bigint, bigints, blocks, columns, instant, text, texts, word
from gateway.references import read_reference

RECEIPTS_TASK: Final = "gateway.issue_receipts"
_COPY_RECEIPTS_DUE: Final = "COPY receipt_due (payment_id) FROM STDIN (FORMAT BINARY)"
_ONE_COLUMN: Final = columns(1)

ReturnKey = tuple[str, ReturnKind, str]
"""Provider, kind, the provider's id of the return."""


@dataclass(slots=True)
class Batch:
    """What a batch has read, and what it is going to write."""

    payments: dict[Key, PaymentState]
    """Those that the reports are about."""
    debts: Debts
    by_reference: dict[str, Quoted]
    bundles: dict[int, BundleState] = field(default_factory=dict)
    changed: dict[Key, PaymentState] = field(default_factory=dict)
    settled: dict[int, InvoiceState] = field(default_factory=dict)
    """Invoices whose sums may have changed."""
    postings: list[tuple[Key, Posting]] = field(default_factory=list)
    allocations: list[Allocated] = field(default_factory=list)
    findings: list[tuple[Key | None, Finding]] = field(default_factory=list)
    receipts: list[Key] = field(default_factory=list)
    returns: dict[Key, dict[ReturnKey, Return]] = field(default_factory=dict)
    return_owners: dict[ReturnKey, Key] = field(default_factory=dict)
    """Of which payment a return is: the first that it was told of."""
    heard: dict[ReturnKey, ReturnReport] = field(default_factory=dict)
    """Returns that are new or changed, with the report that said so."""
    refunds: list[ReturnReport] = field(default_factory=list)
    """What was said of single refunds: some may be ours (gateway.collection.refund_rows)."""
    resolved: list[tuple[ExceptionCode, str, str]] = field(default_factory=list)
    """Code and subject of exceptions that have come to an end, and why."""
    attempts_paid: dict[str, Key] = field(default_factory=dict)
    attempts_lapsed: list[tuple[str, str]] = field(default_factory=list)
    told: list[tuple[Key, Happening]] = field(default_factory=list)
    used_up: dict[Key, str] = field(default_factory=dict)
    """Payments of which nothing lies beyond what is due any more, and why."""

    def quoted_by(self, payment: PaymentState) -> Quoted | None:
        """Return what a payment quoted, as it stands."""
        if payment.bundle_id is not None:
            return self.bundles[payment.bundle_id]
        return None if payment.invoice_id is None else self.debts.invoices[payment.invoice_id]


read_once: Final = lru_cache(maxsize=8_192)(read_reference)
"""`read_reference`, of what a batch asks for more than once."""


def lock_providers(session: Session, providers: Iterable[str]) -> None:
    """Make this transaction the only one that books for these providers, until it ends."""
    for provider in sorted(providers):
        lock_provider(session, provider)


def lock_provider(session: Session, provider: str, *, wait: bool = True) -> bool:
    """Make this transaction the only one that books for a provider, until it ends.

    Return False, at once, if another has it and `wait` is off.
    """
    call = "pg_advisory_xact_lock" if wait else "pg_try_advisory_xact_lock"
    taken = execute(
        session, f"SELECT {call}(hashtext('wasl provider'), hashtext(:name))", {"name": provider}
    ).scalar_one()
    return wait or bool(taken)


def read(session: Session, reports: Sequence[Report]) -> Batch:
    """Lock and return the payments and invoices that reports are about, as they stand."""
    about_money = [r for r in reports if not isinstance(r, NotAboutMoney | AttemptLapsed)]
    keys = sorted({r.key for r in about_money if r.key})
    named = {"providers": texts(k[0] for k in keys), "ids": texts(k[1] for k in keys)}
    payments = lock_payments(
        session,
        "JOIN unnest(CAST(:providers AS text[]), CAST(:ids AS text[])) AS k (provider, named)"
        " ON p.provider = k.provider AND p.provider_payment_id = k.named",
        named,
    )
    given = {read_once(r.reference_given) for r in reports if isinstance(r, PaymentReport)}
    # In their order: the server sorts what it is given, by a language's rules, for each look-up.
    references = sorted(each for each in given if each)
    bundles = _bundles(session, references, payments.values())
    inside = {at for bundle in bundles for at in bundle.invoice_ids}
    debts = lock_debts(
        session,
        inside | invoices_of(session, payments.values()),
        references,
        payments=dict(payments),
    )
    by_id = {each.id: each.state(debts) for each in bundles}
    return Batch(
        payments=payments,
        debts=debts,
        by_reference={
            **{i.reference: i for i in debts.invoices.values()},
            **{b.reference: b for b in by_id.values()},
        },
        bundles=by_id,
        **_returns(session, named, [r for r in reports if isinstance(r, ReturnReport)]),
    )


@dataclass(frozen=True, slots=True)
class _Bundle:
    """A bundle whose reference is quoted, before its invoices are locked."""

    id: int
    reference: str
    kind: BundleKind
    contributor_id: int | None
    withdrawn: bool
    invoice_ids: list[int]

    def state(self, debts: Debts) -> BundleState:
        policy = CURRENT_FIRST if self.kind is BundleKind.PLAN else BUNDLE_ORDER
        invoices = [debts.invoices[at] for at in self.invoice_ids]
        return BundleState(
            self.id, self.reference, policy, self.contributor_id, self.withdrawn, invoices
        )


def _bundles(
    session: Session, references: Sequence[str], payments: Iterable[PaymentState]
) -> list[_Bundle]:
    """Return the bundles that are quoted, each with what it pays in its order."""
    quoted = {each.bundle_id for each in payments if each.bundle_id is not None}
    if not (references or quoted):
        return []
    named = {"references": texts(references), "ids": bigints(sorted(quoted))}
    rows = execute(session, _BUNDLES, named).all()
    if not rows:
        return []
    owners = {row.contributor_id for row in rows if row.contributor_id is not None}
    survivors = surviving_files(session, owners)
    return [
        _Bundle(
            row.id,
            row.reference,
            BundleKind(row.kind),
            None if row.contributor_id is None else survivors[row.contributor_id],
            row.withdrawn,
            [*row.current, *row.items],
        )
        for row in rows
    ]


# What a plan spreads is paid after what came due since it was made: both the oldest first.
_BUNDLES: Final = f"""
    SELECT b.id, b.reference, b.kind, b.contributor_id, b.withdrawn_at IS NOT NULL AS withdrawn,
        ARRAY(SELECT item.invoice_id FROM bundle_item item
            JOIN invoice i ON i.id = item.invoice_id WHERE item.bundle_id = b.id
            ORDER BY CASE WHEN b.kind = 'plan' THEN i.due_on END, item.position) AS items,
        ARRAY({CURRENT_OF_PLAN.format(bundle="b.id")}) AS current
    FROM bundle b WHERE b.reference = ANY(:references) OR b.id = ANY(:ids)
"""


def _returns(
    session: Session, payments: Mapping[str, Texts], reports: Sequence[ReturnReport]
) -> dict[str, Any]:
    """Return what is known of payments' returns, and of which payment each is that reports name.

    The lock on the provider keeps others from changing it.
    """
    rows = execute(
        session,
        """
        SELECT r.* FROM payment_return r
        JOIN unnest(CAST(:providers AS text[]), CAST(:ids AS text[])) AS k (provider, named)
            ON r.provider = k.provider AND r.provider_payment_id = k.named
        UNION
        SELECT r.* FROM payment_return r
        JOIN unnest(CAST(:of AS text[]), CAST(:kinds AS text[]), CAST(:named AS text[]))
            AS k (provider, kind, named)
            ON r.provider = k.provider AND r.kind = k.kind AND r.return_id = k.named
        """,
        {
            **payments,
            "of": [r.provider for r in reports],
            "kinds": [r.kind.value for r in reports],
            "named": [r.return_id for r in reports],
        },
    ).mappings()
    returns: dict[Key, dict[ReturnKey, Return]] = {}
    owners: dict[ReturnKey, Key] = {}
    for row in rows:
        known = return_of(row)
        at = (row["provider"], known.kind, known.return_id)
        owners[at] = (row["provider"], row["provider_payment_id"])
        returns.setdefault(owners[at], {})[at] = known
    return {"returns": returns, "return_owners": owners}


def return_of(row: Mapping[str, Any] | sa.RowMapping) -> Return:
    """Return what a row of `payment_return` says."""
    return Return(
        kind=ReturnKind(row["kind"]),
        return_id=row["return_id"],
        state=ReturnState(row["state"]),
        amount_minor=row["amount_minor"],
        made_at=row["made_at"],
        stated_at=row["stated_at"],
        outcome=row["outcome"],
        restored_at=row["restored_at"],
    )


# -- writing --------------------------------------------------------------------------------------


def write(session: Session, batch: Batch, *, now: datetime) -> dict[Key, int]:
    """Write what a batch came to, save the books; return the ids of its payments."""
    ids = _write_payments(session, batch, now)
    write_debts(session, batch.settled.values(), batch.allocations, ids, now=now)
    _write_returns(session, batch, now)
    _write_attempts(session, batch)
    _write_receipts_due(session, [ids[at] for at in batch.receipts], now)
    return ids


def _write_payments(session: Session, batch: Batch, now: datetime) -> dict[Key, int]:
    """Write new and changed payments; return the ids of all that the batch has to do with."""
    known = batch.debts.payments | batch.payments
    ids = {at: state.id for at, state in known.items() if state.id is not None}
    fresh = [(at, state) for at, state in batch.changed.items() if state.id is None]
    if fresh:
        drawn = execute(session, _IDS, {"many": len(fresh)}).scalars()
        numbered = [(next_id, state) for next_id, (_, state) in zip(drawn, fresh, strict=True)]
        ids.update((state.key, next_id) for next_id, state in numbered)
        copy_blocks(session, _COPY_PAYMENTS, blocks(_packed(numbered, now)))
    # Without its name: an update that sets a key locks the row against being pointed to.
    changed = [
        {c: value for c, value in _row(s).items() if c not in _IDENTITY} | {"at": s.id}
        for s in batch.changed.values()
        if s.id is not None
    ]
    if changed:
        table: sa.Table = SQLModel.metadata.tables["payment"]
        session.connection().execute(
            sa.update(table).where(table.c.id == sa.bindparam("at")), changed
        )
    return ids


_IDS: Final = "SELECT nextval('payment_id_seq') FROM generate_series(1, :many)"
_COPY_PAYMENTS: Final = (
    "COPY payment (id, provider, provider_payment_id, status, reference_given, invoice_id,"
    " bundle_id, amount_minor, currency, channel, agent_id, terminal_id, fee_minor, paid_at,"
    " stated_at, recorded_at, booked_at, returned_minor, source) FROM STDIN (FORMAT BINARY)"
)


def _packed(numbered: Iterable[tuple[int, PaymentState]], now: datetime) -> Iterator[bytes]:
    """Yield rows of new payments, as COPY takes them. Most instants are `now`, packed once."""
    start, packed_now = columns(19), instant(now)
    for at, state in numbered:
        report = state.report
        yield b"".join(
            (
                start,
                bigint(at),
                word(report.provider),
                text(report.provider_payment_id),
                word(state.status.value),
                text(report.reference_given),
                bigint(state.invoice_id),
                bigint(state.bundle_id),
                bigint(report.amount_minor),
                word(report.currency),
                word(report.channel and report.channel.value),
                text(report.agent_id),
                text(report.terminal_id),
                bigint(report.fee_minor),
                instant(state.paid_at),
                instant(state.stated_at),
                packed_now if state.recorded_at is now else instant(state.recorded_at),
                packed_now if state.booked_at is now else instant(state.booked_at),
                bigint(state.returned_minor),
                text(report.source),
            )
        )


_IDENTITY = ("provider", "provider_payment_id", "recorded_at")


def _row(state: PaymentState) -> dict[str, Any]:
    report = state.report
    return {
        "provider": report.provider,
        "provider_payment_id": report.provider_payment_id,
        "status": state.status,
        "reference_given": report.reference_given,
        "invoice_id": state.invoice_id,
        "bundle_id": state.bundle_id,
        "amount_minor": report.amount_minor,
        "currency": report.currency,
        "channel": report.channel,
        "agent_id": report.agent_id,
        "terminal_id": report.terminal_id,
        "fee_minor": report.fee_minor,
        "paid_at": state.paid_at,
        "stated_at": state.stated_at,
        "recorded_at": state.recorded_at,
        "booked_at": state.booked_at,
        "returned_minor": state.returned_minor,
        "source": report.source,
    }


def _write_returns(session: Session, batch: Batch, now: datetime) -> None:
    """Write new and changed returns. What identifies one, and its amount by id, never changes."""
    if not batch.heard:
        return
    rows = []
    for at, report in batch.heard.items():
        known = batch.returns[report.key][at]
        rows.append(
            {
                "provider": report.provider,
                "provider_payment_id": report.provider_payment_id,
                "return_id": known.return_id,
                "kind": known.kind.value,
                "state": known.state.value,
                "amount_minor": known.amount_minor,
                "made_at": known.made_at,
                "stated_at": known.stated_at,
                "restored_at": known.restored_at,
                "outcome": known.outcome,
                "source": report.source,
                "recorded_at": now,
            }
        )
    insert_all(
        session,
        PaymentReturn,
        rows,
        conflict="(provider, kind, return_id) DO UPDATE SET state = excluded.state,"
        " amount_minor = excluded.amount_minor, made_at = excluded.made_at,"
        " stated_at = excluded.stated_at, restored_at = excluded.restored_at,"
        " outcome = excluded.outcome, source = excluded.source",
    )


def _write_attempts(session: Session, batch: Batch) -> None:
    """Mark by which attempts money came, and which can bring none any more."""
    if batch.attempts_paid:
        paid = batch.attempts_paid
        execute(
            session,
            """
            UPDATE payment_attempt SET state = 'paid', provider_payment_id = p.named,
                closed_because = NULL, ask_at = NULL
            FROM unnest(CAST(:ids AS text[]), CAST(:providers AS text[]), CAST(:named AS text[]))
                AS p (id, provider, named)
            WHERE payment_attempt.id = p.id AND payment_attempt.provider = p.provider
                AND state <> 'paid'
            """,
            {
                "ids": list(paid),
                "providers": [at[0] for at in paid.values()],
                "named": [at[1] for at in paid.values()],
            },
        )
    if batch.attempts_lapsed:
        execute(
            session,
            """
            UPDATE payment_attempt SET state = 'closed', closed_because = 'lapsed', ask_at = NULL
            FROM unnest(CAST(:providers AS text[]), CAST(:sessions AS text[]))
                AS l (provider, session_id)
            WHERE (payment_attempt.provider, payment_attempt.session_id)
                = (l.provider, l.session_id) AND state IN ('made', 'sent')
            """,
            {
                "providers": [provider for provider, _ in batch.attempts_lapsed],
                "sessions": [session_id for _, session_id in batch.attempts_lapsed],
            },
        )


def _write_receipts_due(session: Session, payment_ids: list[int], now: datetime) -> None:
    """Put payments in line for their receipts, which are signed later (gateway.receipts)."""
    if payment_ids:
        rows = (_ONE_COLUMN + bigint(each) for each in payment_ids)
        copy_blocks(session, _COPY_RECEIPTS_DUE, blocks(rows))
        outbox.enqueue(session, RECEIPTS_TASK, now=now)
