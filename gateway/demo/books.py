"""What the books hold, in figures, to be held against the journals. Reads only, across packages."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from sqlmodel import Session

from gateway.books import ledger
from gateway.db import execute

# What the worker still has to do, or to hear, before the books say all.
_UNDONE: Final = """
    SELECT 'deliveries to act on', count(*) FROM webhook_delivery WHERE state = 'waiting'
    UNION ALL SELECT 'variants to look at', count(*) FROM webhook_variant
        WHERE processed_at IS NULL
    UNION ALL SELECT 'pages whose outcome is not known', count(*) FROM payment_attempt
        WHERE state IN ('made', 'sent') OR state = 'closed' AND ask_at IS NOT NULL
    UNION ALL SELECT 'refunds to carry out', count(*) FROM refund WHERE act_at IS NOT NULL
    UNION ALL SELECT 'callbacks to send', count(*) FROM provider_callback WHERE state = 'waiting'
    UNION ALL SELECT 'receipts to sign', count(*) FROM receipt_due
    UNION ALL SELECT 'tasks to ring for', count(*) FROM outbox_message
"""


def undone(session: Session) -> dict[str, int]:
    """Return how much is stored and not yet acted on, by what it is; nothing that is zero."""
    return {str(what): int(count) for what, count in execute(session, _UNDONE) if count}


def booked_amounts(session: Session) -> dict[tuple[str, str], int]:
    """Return what each provider holds for us by its own payment ids, in centimes.

    Read from the transfers, not from the payments, so that it is what the books say. A payment
    that was taken back counts zero.
    """
    rows = execute(
        session,
        """
        SELECT p.provider, p.provider_payment_id,
            sum(CASE WHEN d.kind IN ('clearing', 'paid_out') THEN t.amount_minor
                WHEN c.kind IN ('clearing', 'paid_out') THEN -t.amount_minor ELSE 0 END)::bigint
        FROM ledger_transfer t JOIN payment p ON p.id = t.payment_id
        JOIN ledger_account d ON d.id = t.debit_account_id
        JOIN ledger_account c ON c.id = t.credit_account_id
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
    lines = "SELECT count(*) FROM match_line WHERE payment_line = 0"
    matched: int = execute(session, lines).scalar_one()
    return {"matched": matched, "held": dict(held)}
