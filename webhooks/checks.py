"""The inbox's promises (see gateway.checks)."""

from __future__ import annotations

from typing import Final

from gateway.checks import sql_check

CHECKS: Final = (
    sql_check(
        "a delivery's bytes are those that came",
        """
        SELECT 'webhook_delivery ' || id FROM webhook_delivery WHERE sha256(body) <> body_sha256
        UNION ALL
        SELECT 'webhook_variant ' || id FROM webhook_variant WHERE sha256(body) <> body_sha256
        """,
    ),
    sql_check(
        "every payment was told of by a delivery that we hold",
        """
        SELECT 'payment ' || p.id FROM payment p
        WHERE p.source LIKE 'delivery:%' AND NOT EXISTS (
            SELECT FROM webhook_delivery d WHERE d.provider = p.provider
                AND d.delivery_id = substr(p.source, length('delivery:' || p.provider || '/') + 1)
                AND d.state = 'done'
        )
        """,
    ),
    sql_check(
        "every parked delivery has an exception",
        """
        SELECT 'webhook_delivery ' || id FROM webhook_delivery d WHERE state = 'parked'
            AND NOT EXISTS (SELECT FROM coded_exception e WHERE e.code = 'parked_delivery'
                AND e.subject = 'delivery:' || d.provider || '/' || d.delivery_id)
        """,
    ),
)
