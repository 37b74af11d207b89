"""The inbox's promises (see gateway.checks)."""

from __future__ import annotations

from typing import Final

from gateway.checks import sql_check

CHECKS: Final = (
    sql_check(
        "a delivery's bytes are those that came",
        """
        SELECT 'webhook_delivery ' || id FROM webhook_delivery
            WHERE sha256(body) <> body_sha256 AND masked_at IS NULL
        UNION ALL
        SELECT 'webhook_variant ' || id FROM webhook_variant
            WHERE sha256(body) <> body_sha256 AND masked_at IS NULL
        """,
    ),
    sql_check(
        "what was not acted on is as it came",
        """
        SELECT 'webhook_delivery ' || id FROM webhook_delivery
            WHERE state <> 'done' AND masked_at IS NOT NULL
        UNION ALL
        SELECT 'webhook_variant ' || id FROM webhook_variant
            WHERE processed_at IS NULL AND masked_at IS NOT NULL
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
        "a delivery is parked as long as an exception says so, and no longer",
        """
        SELECT coalesce('webhook_delivery ' || d.id, 'coded_exception ' || e.id)
        FROM (SELECT * FROM webhook_delivery WHERE state = 'parked') d
        FULL JOIN (SELECT * FROM coded_exception
            WHERE code = 'parked_delivery' AND resolved_at IS NULL) e
            ON e.subject = 'delivery:' || d.provider || '/' || d.delivery_id
        WHERE d.id IS NULL OR e.id IS NULL
        """,
    ),
    sql_check(
        "nobody who is told of what happens stands beyond its end",
        """
        SELECT 'webhook_walk ' || id FROM webhook_walk
        WHERE at_event > (SELECT coalesce(max(id), 0) FROM event)
        """,
    ),
    sql_check(
        "who is told of what happens has one secret that stands, and one walk along it",
        """
        SELECT 'webhook_endpoint ' || e.id FROM webhook_endpoint e WHERE e.removed_at IS NULL AND (
            NOT EXISTS (SELECT FROM webhook_secret s
                WHERE s.endpoint_id = e.id AND s.ends_at IS NULL)
            OR NOT EXISTS (SELECT FROM webhook_walk w
                WHERE w.endpoint_id = e.id AND w.kind = 'feed' AND w.ended_at IS NULL))
        """,
    ),
)
