"""Book what providers say they collected: once, however often and in whatever order they say it.

Works in batches: lock, read the state, decide with gateway.booking, write what follows. A batch of
one is the same code. Always in this order of locks, so that two batches never wait for each other
in a ring: the providers, the payments, the invoices, the end of the books' chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Session, SQLModel

from gateway import ledger, outbox
from gateway.accounts import Posting
from gateway.allocation import QUOTED_INVOICE
from gateway.booking import STATED_BY, Decision, InvoiceState, PaymentState, decide, first_state
from gateway.db import execute, insert_all
from gateway.exception_queue import Finding, open_exceptions
from gateway.models import (
    Allocation,
    Channel,
    ExceptionCode,
    Payment,
    PaymentStatus,
    ReceiptDue,
)
from gateway.references import read_reference
from gateway.reports import NotAboutMoney, PaymentReport, Report, Statement, Unbookable
from gateway.seals import BooksKey

RECEIPTS_TASK: Final = "gateway.issue_receipts"

Key = tuple[str, str]


@dataclass(slots=True)
class _Batch:
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


def record_reports(
    session: Session, reports: Sequence[Report], *, key: BooksKey, now: datetime
) -> list[str]:
    """Book reports in the order given; return what each came to, one word each.

    booked, reversed, noted, repeated, conflicting, quarantined (the code says why), ignored.
    Money without a known invoice goes to suspense, money beyond what is due to the payer's credit,
    each with an exception: nothing that a provider holds stays out of the books.

    The caller owns the transaction. All reports of a provider are booked one after the other,
    whichever process they come to.
    """
    _lock_providers(session, {r.provider for r in reports if not isinstance(r, NotAboutMoney)})
    batch = _read(session, reports)
    outcomes = [_apply(batch, report, now=now) for report in reports]
    ids = _write_payments(session, batch)
    _write_allocations(session, batch, ids, now)
    _write_invoices(session, batch)
    _write_receipts_due(session, [ids[at] for at in batch.receipts], now)
    open_exceptions(session, [_about(f, at, ids) for at, f in batch.findings], now=now)
    postings = [replace(posting, payment_id=ids[at]) for at, posting in batch.postings]
    ledger.post(session, postings, key=key, now=now)
    return outcomes


def _apply(batch: _Batch, report: Report, *, now: datetime) -> str:
    match report:
        case NotAboutMoney():
            return "ignored"
        case Unbookable():
            return _quarantine(batch, report)
        case PaymentReport():
            return _record(batch, report, now=now)


def _record(batch: _Batch, report: PaymentReport, *, now: datetime) -> str:
    payment = batch.payments.get(report.key)
    if payment is None:
        payment = batch.payments[report.key] = first_state(report, now=now)
    if payment.booked_at is not None:
        invoice = batch.by_id.get(payment.invoice_id) if payment.invoice_id else None
    else:
        invoice = batch.by_reference.get(read_reference(report.reference_given) or "")
    before = (payment.status, payment.stated_at)
    decision = decide(payment, invoice, report, now=now)
    if (payment.status, payment.stated_at) != before:
        batch.changed[report.key] = payment
    _keep(batch, report.key, invoice, decision)
    return decision.outcome


def _keep(batch: _Batch, at: Key, invoice: InvoiceState | None, decision: Decision) -> None:
    batch.postings.extend((at, posting) for posting in decision.postings)
    if invoice is not None and decision.outcome == "booked":
        batch.receipts.append(at)
    if invoice is not None and decision.allocated_minor:
        batch.allocations.append((at, invoice.id, decision.allocated_minor))
        batch.paid[invoice.id] = invoice
    for note in decision.notes:
        finding = Finding(note.code, f"payment:{at[0]}/{at[1]}", note.detail)
        batch.findings.append((at, finding))


def _quarantine(batch: _Batch, report: Unbookable) -> str:
    detail = {"reason": report.reason, "source": report.source}
    code, subject, at = report.code, report.source, None
    known = batch.payments.get(report.key) if report.key else None
    if report.key is not None:
        subject = f"payment:{report.key[0]}/{report.key[1]}"
    if known is not None and known.booked_at is not None:
        # The payment is in the books: what does not fit it is a conflict, whatever it is.
        code, at = ExceptionCode.CONFLICTING_PAYMENT, report.key
    elif report.statement in {Statement.PENDING, Statement.FAILED}:
        return "ignored"
    batch.findings.append((at, Finding(code, subject, detail)))
    return "conflicting" if code is ExceptionCode.CONFLICTING_PAYMENT else "quarantined"


def _about(finding: Finding, at: Key | None, ids: dict[Key, int]) -> Finding:
    return finding if at is None else replace(finding, payment_id=ids[at])


# -- reading --------------------------------------------------------------------------------------


def _lock_providers(session: Session, providers: Iterable[str]) -> None:
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


def _read(session: Session, reports: Sequence[Report]) -> _Batch:
    keys = sorted({r.key for r in reports if not isinstance(r, NotAboutMoney) and r.key})
    payments = _payments(session, keys)
    references = {
        read_reference(r.reference_given) for r in reports if isinstance(r, PaymentReport)
    }
    invoices = _lock_invoices(
        session,
        [r for r in references if r],
        [p.invoice_id for p in payments.values() if p.invoice_id],
    )
    return _Batch(
        payments=payments,
        by_id={i.id: i for i in invoices},
        by_reference={i.reference: i for i in invoices},
    )


def _payments(session: Session, keys: Sequence[Key]) -> dict[Key, PaymentState]:
    rows = execute(
        session,
        """
        SELECT p.* FROM payment p
        JOIN unnest(CAST(:providers AS text[]), CAST(:ids AS text[])) AS k (provider, named)
            ON p.provider = k.provider AND p.provider_payment_id = k.named
        ORDER BY p.id FOR UPDATE OF p
        """,
        {"providers": [k[0] for k in keys], "ids": [k[1] for k in keys]},
    ).mappings()
    states = {(row["provider"], row["provider_payment_id"]): _state(dict(row)) for row in rows}
    booked = {s.id: s for s in states.values() if s.status is PaymentStatus.BOOKED and s.id}
    for payment_id, postings in ledger.unreversed(session, list(booked)).items():
        booked[payment_id].postings = postings
    return states


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
        " WHERE reference = ANY(:references) OR id = ANY(:ids) ORDER BY id FOR UPDATE",
        {"references": list(references), "ids": list(ids)},
    )
    return [InvoiceState(*row) for row in rows]


# -- writing --------------------------------------------------------------------------------------


def _write_payments(session: Session, batch: _Batch) -> dict[Key, int]:
    """Write new and changed payments; return the ids of all payments of the batch."""
    ids = {at: state.id for at, state in batch.payments.items() if state.id is not None}
    fresh = {at: state for at, state in batch.changed.items() if state.id is None}
    if fresh:
        rows = [_row(state) for state in fresh.values()]
        inserted = insert_all(session, Payment, rows, "id, provider, provider_payment_id")
        ids.update({(provider, named): at for at, provider, named in inserted})
    changed = [_row(s) | {"at": s.id} for s in batch.changed.values() if s.id is not None]
    if changed:
        table: sa.Table = SQLModel.metadata.tables["payment"]
        columns: dict[str, Any] = {
            c: sa.bindparam(c) for c in changed[0] if c not in {"at", *_IDENTITY}
        }
        session.connection().execute(
            sa.update(table).where(table.c.id == sa.bindparam("at")).values(columns), changed
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
        "source": report.source,
    }


def _write_allocations(session: Session, batch: _Batch, ids: dict[Key, int], now: datetime) -> None:
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


def _write_invoices(session: Session, batch: _Batch) -> None:
    if batch.paid:
        execute(
            session,
            """
            UPDATE invoice SET paid_minor = p.paid_minor,
                status = CASE WHEN p.paid_minor = 0 THEN 'open'
                    WHEN p.paid_minor < amount_minor THEN 'part_paid' ELSE 'paid' END
            FROM unnest(CAST(:ids AS bigint[]), CAST(:paid AS bigint[])) AS p (id, paid_minor)
            WHERE invoice.id = p.id
            """,
            {
                "ids": list(batch.paid),
                "paid": [invoice.paid_minor for invoice in batch.paid.values()],
            },
        )


def _write_receipts_due(session: Session, payment_ids: list[int], now: datetime) -> None:
    """Put payments in line for their receipts, which are signed later (gateway.receipts)."""
    if payment_ids:
        insert_all(session, ReceiptDue, [{"payment_id": each} for each in payment_ids])
        outbox.enqueue(session, RECEIPTS_TASK, now=now)
