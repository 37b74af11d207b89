"""Reconciliation's promises (see gateway.checks)."""

from __future__ import annotations

from typing import Final

from gateway.checks import sql_check
from reconciliation.by_hand import RULE_DIFFERING, TOLERANCE_MINOR

CHECKS: Final = (
    sql_check(
        "only money that stands is matched",
        """
        -- A payment taken back since the last run stays matched until the next one undoes it.
        SELECT 'match_line ' || m.payment_id FROM match_line m
        JOIN payment p ON p.id = m.payment_id WHERE p.booked_at IS NULL
        """,
    ),
    sql_check(
        "only records that stand are matched",
        # What a person joined is not undone when its record is taken back, but asked about.
        """
        SELECT 'match_line ' || m.payment_id FROM match_line m
        JOIN institution_record r ON r.id = m.record_id
        WHERE r.amount_minor < 0 OR m.decided_by IS NULL
            AND EXISTS (SELECT FROM institution_record n WHERE n.reverses_id = r.id)
        """,
    ),
    sql_check(
        "both sides of a match have the same sum, but for the run's tolerance, or a person's word",
        """
        SELECT 'match_line ' || m.group_id FROM match_line m
        JOIN institution_record r ON r.id = m.record_id
        LEFT JOIN reconciliation_run run ON run.id = m.run_id
        -- Who joined these named the difference.
        WHERE m.rule <> :differing OR m.decided_by IS NULL
        GROUP BY m.group_id
        HAVING abs(sum(m.amount_minor) FILTER (WHERE payment_line = 0)
                - sum(r.amount_minor) FILTER (WHERE record_line = 0))
            > coalesce(min(run.tolerance_minor), :by_hand)
        """,
        by_hand=TOLERANCE_MINOR,
        differing=RULE_DIFFERING,
    ),
    sql_check(
        "a group has one payment or one record, and bears the least of its payments",
        """
        SELECT 'match_line ' || group_id FROM match_line
        GROUP BY group_id
        HAVING min(payment_id) <> group_id OR least(max(payment_line), max(record_line)) > 0
            OR count(*) <> 1 + max(payment_line) + max(record_line)
            OR count(DISTINCT payment_id) <> 1 + max(record_line)
            OR count(DISTINCT record_id) <> 1 + max(payment_line)
            OR count(DISTINCT (run_id, rule, score, decided_by)) > 1
        """,
    ),
    sql_check(
        "no pair is matched that a person parted",
        """
        SELECT 'match_line ' || m.payment_id FROM match_line m
        JOIN parted_pair USING (payment_id, record_id) WHERE joined_at IS NULL
        """,
    ),
    sql_check(
        "a payment quotes its invoice",
        # Runs take the text for the reference where it can be nothing else.
        """
        SELECT 'payment ' || p.id FROM payment p JOIN invoice i ON i.id = p.invoice_id
        WHERE octet_length(p.reference_given) = 12 AND p.reference_given <> i.reference
        """,
    ),
)
