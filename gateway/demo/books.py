"""What the books hold, in figures, to be held against the journals. Reads only, across packages."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlmodel import Session

from gateway.books import ledger
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
    """Return how many payments are matched, and what the accounts hold by kind, in centimes.

    Debits less credits: positive for what others owe us, negative for what we owe.
    """
    held: Counter[str] = Counter()
    for balance in ledger.balances(session):
        held[balance.code.partition(":")[0]] += balance.net_minor
    matched: int = execute(session, "SELECT count(*) FROM matched_payment").scalar_one()
    return {"matched": matched, "held": dict(held)}
