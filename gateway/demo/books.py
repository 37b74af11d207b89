"""What the books hold, in figures, to be held against the journals. Reads only, across packages."""

from __future__ import annotations

from typing import Any

from sqlmodel import Session

from gateway.db import execute


def undone(session: Session) -> int:
    """Return how many deliveries are stored and not yet acted on."""
    waiting: int = execute(
        session,
        "SELECT (SELECT count(*) FROM webhook_delivery WHERE state = 'waiting')"
        " + (SELECT count(*) FROM webhook_variant WHERE processed_at IS NULL)",
    ).scalar_one()
    return waiting


def booked_amounts(session: Session) -> dict[tuple[str, str], int]:
    """Return what each provider holds for us by its own payment ids, in centimes.

    Read from the transfers, not from the payments, so that it is what the books say. A payment
    that was taken back counts zero.
    """
    rows = execute(
        session,
        """
        SELECT p.provider, p.provider_payment_id,
            sum(CASE WHEN d.kind = 'clearing' THEN t.amount_minor ELSE -t.amount_minor END)::bigint
        FROM ledger_transfer t JOIN payment p ON p.id = t.payment_id
        JOIN ledger_account d ON d.id = t.debit_account_id
        GROUP BY 1, 2
        """,
    )
    return {(provider, payment_id): net for provider, payment_id, net in rows}


def open_exceptions(session: Session) -> dict[str, int]:
    """Return how many exceptions are open, by code."""
    rows = execute(
        session,
        "SELECT code, count(*) FROM coded_exception WHERE resolved_at IS NULL"
        " GROUP BY code ORDER BY code",
    )
    return {str(code): int(count) for code, count in rows}


def totals(session: Session) -> dict[str, Any]:
    """Return counts and sums (centimes) over everything."""
    row = execute(
        session,
        """
        SELECT (SELECT count(*) FROM contributor) AS contributors,
            (SELECT count(*) FROM invoice) AS invoices,
            (SELECT coalesce(sum(amount_minor), 0)::bigint FROM invoice) AS billed_minor,
            (SELECT coalesce(sum(paid_minor), 0)::bigint FROM invoice) AS paid_minor,
            (SELECT count(*) FROM payment WHERE status = 'booked') AS payments,
            (SELECT count(*) FROM institution_record) AS records,
            (SELECT count(*) FROM matched_payment) AS matched
        """,
    ).mappings()
    return dict(row.one())
