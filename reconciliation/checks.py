"""Reconciliation's promises (see gateway.checks)."""

from __future__ import annotations

from typing import Final

from gateway.checks import sql_check

CHECKS: Final = (
    sql_check(
        "only money that stands is matched",
        """
        -- A payment taken back since the last run stays matched until the next one undoes it.
        SELECT 'matched_payment ' || m.payment_id FROM matched_payment m
        JOIN payment p ON p.id = m.payment_id JOIN match_group g ON g.id = m.group_id
        WHERE g.undone_at IS NOT NULL OR p.booked_at IS NULL
        """,
    ),
    sql_check(
        "only records that stand are matched",
        """
        SELECT 'matched_record ' || m.record_id FROM matched_record m
        JOIN institution_record r ON r.id = m.record_id JOIN match_group g ON g.id = m.group_id
        WHERE g.undone_at IS NOT NULL OR r.amount_minor < 0
            OR EXISTS (SELECT FROM institution_record n WHERE n.reverses_id = r.id)
        """,
    ),
    sql_check(
        "both sides of a match have the same sum",
        """
        SELECT 'match_group ' || g.id FROM match_group g
        WHERE g.undone_at IS NULL AND coalesce((
            SELECT sum(m.amount_minor) FROM matched_payment m WHERE m.group_id = g.id
        ), 0) <> coalesce((
            SELECT sum(r.amount_minor) FROM matched_record m
            JOIN institution_record r ON r.id = m.record_id WHERE m.group_id = g.id
        ), 0)
        """,
    ),
)
