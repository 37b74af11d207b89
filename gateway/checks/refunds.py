"""What the books promise of refunds that we began."""

from __future__ import annotations

from typing import Final

from gateway.checks import sql_check

REFUNDS: Final = (
    sql_check(
        "what is given back and what is asked for come to no more than the payment brought",
        # What was given back beside us since an approval is no breach: nothing is sent then.
        """
        SELECT 'payment ' || p.id FROM payment p JOIN refund r ON r.payment_id = p.id
        WHERE r.state = 'asked' AND r.asked_at > coalesce((SELECT max(recorded_at)
            FROM payment_return s WHERE s.provider = p.provider
            AND s.provider_payment_id = p.provider_payment_id), '-infinity')
        GROUP BY p.id HAVING p.returned_minor + sum(r.amount_minor) > p.amount_minor
        """,
    ),
    sql_check(
        "whoever approved a refund did not ask for it, and both are written down",
        """
        SELECT 'refund ' || r.id FROM refund r
        WHERE NOT EXISTS (SELECT FROM refund_step s WHERE s.refund_id = r.id
                AND s.state = 'asked' AND s.taken_by = r.asked_by AND s.because = r.because)
            OR r.state NOT IN ('asked', 'refused') AND NOT EXISTS (
                SELECT FROM refund_step s WHERE s.refund_id = r.id AND s.state = 'approved'
                AND s.taken_by = r.decided_by AND s.taken_by <> r.asked_by)
            OR r.state <> (SELECT s.state FROM refund_step s WHERE s.refund_id = r.id
                ORDER BY s.id DESC LIMIT 1)
        """,
    ),
    sql_check(
        "a refund was made or was not as the returns of its payment say",
        """
        SELECT 'refund ' || r.id FROM refund r JOIN payment p ON p.id = r.payment_id
        LEFT JOIN payment_return s ON s.provider = r.provider AND s.return_id = r.return_id
            AND s.kind = CASE r.way WHEN 'by_hand' THEN 'by_hand' ELSE 'refund' END
        WHERE (r.state IN ('sent', 'done')) <> (s.state IS NOT DISTINCT FROM 'given')
            OR s.id IS NOT NULL AND (s.provider_payment_id, s.amount_minor)
                <> (p.provider_payment_id, r.amount_minor)
        """,
    ),
    sql_check(
        "no money was paid out by hand that nobody approved",
        """
        SELECT 'payment_return ' || s.id FROM payment_return s
        WHERE s.kind = 'by_hand' AND NOT EXISTS (SELECT FROM refund r
            WHERE r.token = s.return_id AND r.provider = s.provider AND r.way = 'by_hand'
            AND r.amount_minor = s.amount_minor AND r.decided_by <> r.asked_by)
        """,
    ),
)
