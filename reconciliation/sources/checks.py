"""The promises of settlements (see gateway.checks)."""

from __future__ import annotations

from typing import Final

from gateway.checks import sql_check

CHECKS: Final = (
    sql_check(
        "both sides of a settlement have the same sum",
        """
        SELECT 'settlement_group ' || g.id FROM settlement_group g
        WHERE g.undone_at IS NULL AND coalesce((
            SELECT sum(l.amount_minor) FROM settled_line s
            JOIN settlement_line l ON l.id = s.line_id WHERE s.group_id = g.id
        ), 0) <> coalesce((
            SELECT sum(s.amount_minor) FROM settled_payment s WHERE s.group_id = g.id
        ), 0)
        """,
    ),
    sql_check(
        "only what stands is settled",
        """
        SELECT 'settled_line ' || s.line_id FROM settled_line s
        JOIN settlement_line l ON l.id = s.line_id JOIN settlement_group g ON g.id = s.group_id
        WHERE g.undone_at IS NOT NULL OR l.provider <> g.provider
            OR l.kind NOT IN ('payment', 'reversal')
        UNION ALL
        SELECT 'settled_payment ' || s.payment_id FROM settled_payment s
        JOIN payment p ON p.id = s.payment_id JOIN settlement_group g ON g.id = s.group_id
        WHERE g.undone_at IS NOT NULL OR s.provider <> g.provider OR s.by_bank <> g.by_bank
            OR p.booked_at IS NULL AND s.amount_minor <> 0
        """,
    ),
    sql_check(
        "a movement comes to its parts",
        """
        SELECT 'settlement_line ' || min(id) FROM settlement_line
        WHERE transaction > 0 GROUP BY provider, entry_key
        HAVING sum(amount_minor) <> min(entry_minor) OR min(entry_minor) <> max(entry_minor)
        """,
    ),
)
