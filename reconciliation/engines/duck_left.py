"""What is left at the end, and why."""

from __future__ import annotations

from typing import Final

from reconciliation.matching import SUGGESTED_DAYS, SUGGESTIONS_MAX, OpenCode

_DIFFERS, _AMBIGUOUS = OpenCode.AMOUNT_DIFFERS, OpenCode.AMBIGUOUS_MATCH


def _in_order(ids: str, side: str) -> str:
    return f"list({ids} ORDER BY {side}.id)"


LEFT: Final = (
    """
    CREATE TEMP TABLE names AS
    SELECT *, count(*) OVER (PARTITION BY pn) AS records,
        count(*) OVER (PARTITION BY rn) AS payments
    FROM (
        SELECT p.n AS pn, r.n AS rn, p.ks IS NULL AS is_single FROM p JOIN r USING (k)
        UNION
        SELECT pn, r.n, FALSE FROM (SELECT n AS pn, unnest(ks) AS k FROM p) JOIN r USING (k)
    )
    """,
    # A tie stands while a candidate of it is free.
    f"""
    INSERT INTO payment_open
    SELECT pn, '{_AMBIGUOUS}', {_in_order("rn", "r")}, NULL
    FROM (SELECT DISTINCT pn, rn FROM tie WHERE is_of_payment)
    JOIN p ON p.n = pn JOIN r ON r.n = rn
    GROUP BY pn
    """,
    f"""
    INSERT INTO payment_open
    SELECT pn, CASE WHEN max(payments) = 1 AND (NOT bool_or(is_single) OR count(*) = 1)
        THEN '{_DIFFERS}' ELSE '{_AMBIGUOUS}' END, {_in_order("rn", "r")}, NULL
    FROM names JOIN r ON r.n = rn WHERE pn NOT IN (SELECT n FROM payment_open) GROUP BY pn
    """,
    f"""
    INSERT INTO record_open
    SELECT rn, CASE WHEN count(*) = 1 AND max(o.code) = '{_DIFFERS}'
        THEN '{_DIFFERS}' ELSE '{_AMBIGUOUS}' END, {_in_order("pn", "p")}, NULL
    FROM names JOIN p ON p.n = pn JOIN payment_open o ON o.n = pn GROUP BY rn
    """,
    f"""
    INSERT INTO record_open
    SELECT rn, '{_AMBIGUOUS}', {_in_order("pn", "p")}, NULL
    FROM (SELECT DISTINCT pn, rn FROM tie WHERE NOT is_of_payment)
    JOIN p ON p.n = pn JOIN r ON r.n = rn
    WHERE rn NOT IN (SELECT n FROM record_open) GROUP BY rn
    """,
    f"""
    INSERT INTO payment_open
    SELECT n, '{OpenCode.PAID_TWICE}', NULL, NULL FROM p
    WHERE n NOT IN (SELECT n FROM payment_open) AND k IN (
        SELECT key.k FROM record_key key JOIN p ON p.k = key.k
        JOIN matched ON matched.rn = key.n
    )
    """,
    f"""
    INSERT INTO record_open
    SELECT n, '{OpenCode.RECORD_WITHOUT_PAYMENT}', NULL, NULL FROM (
        SELECT n FROM r WHERE n NOT IN (SELECT n FROM record_open) UNION ALL SELECT n FROM alone
    )
    """,
    f"""
    INSERT INTO payment_open
    WITH rest AS (
        SELECT * FROM p WHERE n NOT IN (SELECT n FROM payment_open)
    ), likely AS (
        SELECT rest.n AS pn, r.n AS rn FROM rest JOIN r USING (tokens, a)
        WHERE abs(rest.d - r.d) <= {SUGGESTED_DAYS}
            AND r.n IN (SELECT n FROM record_open WHERE code = '{OpenCode.RECORD_WITHOUT_PAYMENT}')
        QUALIFY row_number() OVER (PARTITION BY rest.n ORDER BY abs(rest.d - r.d), r.id)
            <= {SUGGESTIONS_MAX}
    )
    SELECT rest.n, '{OpenCode.PAYMENT_WITHOUT_RECORD}',
        {_in_order("rn", "r")} FILTER (rn IS NOT NULL), NULL
    FROM rest LEFT JOIN likely ON pn = rest.n LEFT JOIN r ON r.n = rn GROUP BY rest.n
    """,
)
"""Fill `payment_open` and `record_open` from what is free."""
