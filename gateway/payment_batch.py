"""What a batch of reports reads from the database, and what it writes there. Decides nothing.

Always in this order of locks, so that two batches never wait for each other in a ring: the
providers, the payments, the invoices, exceptions, the end of the books' chain, the end of the feed.
Rows are locked against change and not against being pointed to (NO KEY): whoever tells of a payment
or opens an exception about it holds the feed, or will, and must not wait for a batch that waits for
the feed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Session, SQLModel

from gateway import ledger, outbox
from gateway.accounts import Posting
from gateway.allocation import QUOTED_INVOICE
from gateway.booking import STATED_BY, InvoiceState, PaymentState
from gateway.db import execute, insert_all
from gateway.events import Happening
from gateway.exception_queue import Finding
from gateway.models import (
    Allocation,
    Channel,
    ExceptionCode,
    Payment,
    PaymentReturn,
    PaymentStatus,
    ReceiptDue,
    ReturnKind,
    ReturnState,
)
from gateway.references import read_reference
from gateway.reports import AttemptLapsed, NotAboutMoney, PaymentReport, Report, ReturnReport
from gateway.returns import Return

RECEIPTS_TASK: Final = "gateway.issue_receipts"

Key = tuple[str, str]
ReturnKey = tuple[str, ReturnKind, str]
"""Provider, kind, the provider's id of the return."""


@dataclass(slots=True)
class Batch:
    """What a batch has read, and what it is going to write."""

    payments: dict[Key, PaymentState]
    by_id: dict[int, InvoiceState]
    by_reference: dict[str, InvoiceState]
    changed: dict[Key, PaymentState] = field(default_factory=dict)
    paid: dict[int, InvoiceState] = field(default_factory=dict)
    postings: list[tuple[Key, Posting]] = field(default_factory=list)
    allocations: list[tuple[Key, int, int]] = field(default_factory=list)
    findings: list[tuple[Key | None, Finding]] = field(default_factory=list)
    receipts: list[Key] = field(default_factory=list)
    returns: dict[Key, dict[ReturnKey, Return]] = field(default_factory=dict)
    return_owners: dict[ReturnKey, Key] = field(default_factory=dict)
    """Of which payment a return is: the first that it was told of."""
    heard: dict[ReturnKey, ReturnReport] = field(default_factory=dict)
    """Returns that are new or changed, with the report that said so."""
    resolved: list[tuple[ExceptionCode, str, str]] = field(default_factory=list)
    """Code and subject of exceptions that have come to an end, and why."""
    attempts_paid: dict[str, Key] = field(default_factory=dict)
    attempts_lapsed: list[tuple[str, str]] = field(default_factory=list)
    told: list[tuple[Key, Happening]] = field(default_factory=list)


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
    payments = _payments(session, keys)
    references = {
        read_reference(r.reference_given) for r in reports if isinstance(r, PaymentReport)
    }
    invoices = _lock_invoices(
        session,
        [r for r in references if r],
        [p.invoice_id for p in payments.values() if p.invoice_id],
    )
    return Batch(
        payments=payments,
        by_id={i.id: i for i in invoices},
        by_reference={i.reference: i for i in invoices},
        **_returns(session, keys, [r for r in reports if isinstance(r, ReturnReport)]),
    )


def _payments(session: Session, keys: Sequence[Key]) -> dict[Key, PaymentState]:
    rows = execute(
        session,
        """
        SELECT p.* FROM payment p
        JOIN unnest(CAST(:providers AS text[]), CAST(:ids AS text[])) AS k (provider, named)
            ON p.provider = k.provider AND p.provider_payment_id = k.named
        ORDER BY p.id FOR NO KEY UPDATE OF p
        """,
        {"providers": [k[0] for k in keys], "ids": [k[1] for k in keys]},
    ).mappings()
    states = {(row["provider"], row["provider_payment_id"]): _state(dict(row)) for row in rows}
    booked = {s.id: s for s in states.values() if s.status is PaymentStatus.BOOKED and s.id}
    for payment_id, postings in ledger.unreversed(session, list(booked)).items():
        booked[payment_id].postings = postings
    return states


def _returns(
    session: Session, keys: Sequence[Key], reports: Sequence[ReturnReport]
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
            "providers": [k[0] for k in keys],
            "ids": [k[1] for k in keys],
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


def _state(row: dict[str, Any]) -> PaymentState:
    status = PaymentStatus(row["status"])
    report = PaymentReport(
        provider=row["provider"],
        provider_payment_id=row["provider_payment_id"],
        statement=STATED_BY[status],
        reference_given=row["reference_given"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        channel=Channel(row["channel"]) if row["channel"] else None,
        paid_at=row["paid_at"],
        paid_at_given=None,
        stated_at=row["stated_at"],
        received_at=row["recorded_at"],
        source=row["source"],
        agent_id=row["agent_id"],
        terminal_id=row["terminal_id"],
        fee_minor=row["fee_minor"],
    )
    return PaymentState(
        report=report,
        status=status,
        stated_at=row["stated_at"],
        paid_at=row["paid_at"],
        recorded_at=row["recorded_at"],
        invoice_id=row["invoice_id"],
        booked_at=row["booked_at"],
        returned_minor=row["returned_minor"],
        id=row["id"],
    )


def _lock_invoices(
    session: Session, references: Sequence[str], ids: Sequence[int]
) -> list[InvoiceState]:
    """Lock invoices, always in the order of their ids, so that no two batches wait in a ring."""
    rows = execute(
        session,
        "SELECT id, reference, contributor_id, amount_minor, paid_minor, cancelled_at IS NOT NULL"
        " FROM invoice"
        " WHERE reference = ANY(:references) OR id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE",
        {"references": list(references), "ids": list(ids)},
    )
    return [InvoiceState(*row) for row in rows]


# -- writing --------------------------------------------------------------------------------------


def write(session: Session, batch: Batch, *, now: datetime) -> dict[Key, int]:
    """Write what a batch came to, save the books; return the ids of its payments."""
    ids = _write_payments(session, batch)
    _write_allocations(session, batch, ids, now)
    _write_invoices(session, batch)
    _write_returns(session, batch, now)
    _write_attempts(session, batch)
    _write_receipts_due(session, [ids[at] for at in batch.receipts], now)
    return ids


def _write_payments(session: Session, batch: Batch) -> dict[Key, int]:
    """Write new and changed payments; return the ids of all payments of the batch."""
    ids = {at: state.id for at, state in batch.payments.items() if state.id is not None}
    fresh = {at: state for at, state in batch.changed.items() if state.id is None}
    if fresh:
        rows = [_row(state) for state in fresh.values()]
        inserted = insert_all(session, Payment, rows, "id, provider, provider_payment_id")
        ids.update({(provider, named): at for at, provider, named in inserted})
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


_IDENTITY = ("provider", "provider_payment_id", "recorded_at")


def _row(state: PaymentState) -> dict[str, Any]:
    report = state.report
    return {
        "provider": report.provider,
        "provider_payment_id": report.provider_payment_id,
        "status": state.status,
        "reference_given": report.reference_given,
        "invoice_id": state.invoice_id,
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


def _write_allocations(session: Session, batch: Batch, ids: dict[Key, int], now: datetime) -> None:
    if batch.allocations:
        rows = [
            {
                "payment_id": ids[at],
                "invoice_id": invoice_id,
                "amount_minor": amount_minor,
                "policy": QUOTED_INVOICE,
                "allocated_at": now,
            }
            for at, invoice_id, amount_minor in batch.allocations
        ]
        insert_all(session, Allocation, rows)


def _write_invoices(session: Session, batch: Batch) -> None:
    if batch.paid:
        execute(
            session,
            """
            UPDATE invoice SET paid_minor = p.paid_minor,
                status = CASE WHEN owed_minor = 0 THEN 'cleared' WHEN p.paid_minor = 0 THEN 'open'
                    WHEN p.paid_minor < owed_minor THEN 'part_paid' ELSE 'paid' END
            FROM unnest(CAST(:ids AS bigint[]), CAST(:paid AS bigint[])) AS p (id, paid_minor)
            WHERE invoice.id = p.id
            """,
            {
                "ids": list(batch.paid),
                "paid": [invoice.paid_minor for invoice in batch.paid.values()],
            },
        )


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
        insert_all(session, ReceiptDue, [{"payment_id": each} for each in payment_ids])
        outbox.enqueue(session, RECEIPTS_TASK, now=now)
