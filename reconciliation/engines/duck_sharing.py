"""Pairs of what a payment and a record share, where it tells anybody apart."""

from __future__ import annotations

from reconciliation.matching import PAIRS_OF_ONE_MAX


def sharing(payments: str, records: str) -> str:
    """Return the pairs (pn, rn) of two queries (n, shared), each of distinct rows.

    What so many share that it would offer more than `PAIRS_OF_ONE_MAX` pairs offers none: a number
    that an agent types for everybody must not cost the product of both sides.
    """
    return f"""
        SELECT pn, rn FROM (
            WITH of_p AS MATERIALIZED ({payments}),
            of_r AS MATERIALIZED (SELECT * FROM ({records}) SEMI JOIN of_p USING (shared)),
            apart AS (
                SELECT shared
                FROM (SELECT shared, count(*) AS ps FROM of_p GROUP BY shared)
                JOIN (SELECT shared, count(*) AS rs FROM of_r GROUP BY shared) USING (shared)
                WHERE ps * rs <= {PAIRS_OF_ONE_MAX}
            )
            SELECT of_p.n AS pn, of_r.n AS rn
            FROM of_p JOIN of_r USING (shared) SEMI JOIN apart USING (shared)
        )"""
