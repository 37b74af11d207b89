"""What is left at the end, and why."""

from __future__ import annotations

from typing import Final

from reconciliation.engines.duck_sharing import sharing
from reconciliation.matching import CANDIDATES_MAX, SUGGESTED_DAYS, SUGGESTIONS_MAX, OpenCode

_DIFFERS, _AMBIGUOUS = OpenCode.AMOUNT_DIFFERS, OpenCode.AMBIGUOUS_MATCH


def _in_order(ids: str, side: str) -> str:
    return f"list({ids} ORDER BY {side}.id)[:{CANDIDATES_MAX}]"


def _first_of_k(side: str) -> str:
    """Return the rows of each reference that are worth naming: a person reads no thousand."""
    return (
        f"(SELECT n, id, k FROM {side} WHERE k IN (SELECT k FROM naming)"
        f" QUALIFY row_number() OVER (PARTITION BY k ORDER BY id) <= {CANDIDATES_MAX})"
    )


LEFT: Final = (
    # A tie stands while a candidate of it is free.
    f"""
    INSERT INTO payment_open
    SELECT pn, '{_AMBIGUOUS}', {_in_order("rn", "r")}, NULL
    FROM (SELECT DISTINCT pn, rn FROM tie WHERE is_of_payment)
    JOIN p ON p.n = pn JOIN r ON r.n = rn
    GROUP BY pn
    """,
    # Counted by reference, since of one reference there may be thousands on each side.
    """
    CREATE TEMP TABLE naming AS
    SELECT pn, id, k, is_single, rs, count(*) OVER (PARTITION BY k) AS ps
    FROM (
        SELECT n AS pn, id, k, TRUE AS is_single FROM p WHERE k IS NOT NULL
        UNION ALL
        SELECT n, id, unnest(ks), FALSE FROM p WHERE ks IS NOT NULL
    ) JOIN (SELECT k, count(*) AS rs FROM r WHERE k IS NOT NULL GROUP BY k) USING (k)
    """,
    f"""
    INSERT INTO payment_open
    SELECT pn, CASE WHEN max(ps) = 1 AND (NOT bool_or(is_single) OR max(total) = 1)
        THEN '{_DIFFERS}' ELSE '{_AMBIGUOUS}' END, {_in_order("r.n", "r")}, NULL
    FROM (SELECT *, sum(rs) OVER (PARTITION BY pn) AS total FROM naming)
    JOIN {_first_of_k("r")} r USING (k)
    WHERE pn NOT IN (SELECT n FROM payment_open) GROUP BY pn
    """,
    f"""
    INSERT INTO record_open
    SELECT r.n, CASE WHEN max(ps) = 1 AND max(o.code) = '{_DIFFERS}'
        THEN '{_DIFFERS}' ELSE '{_AMBIGUOUS}' END, {_in_order("pn", "first")}, NULL
    FROM (
        SELECT * FROM naming QUALIFY row_number() OVER (PARTITION BY k ORDER BY id)
            <= {CANDIDATES_MAX}
    ) first JOIN r USING (k) JOIN payment_open o ON o.n = pn GROUP BY r.n
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
        SELECT pn, rn FROM ({
        sharing(
            "SELECT n, (tokens, a) AS shared FROM p WHERE tokens IS NOT NULL"
            " AND n NOT IN (SELECT n FROM payment_open)",
            "SELECT n, (tokens, a) AS shared FROM r WHERE tokens IS NOT NULL AND n IN"
            f" (SELECT n FROM record_open WHERE code = '{OpenCode.RECORD_WITHOUT_PAYMENT}')",
        )
    }) JOIN p ON p.n = pn JOIN r ON r.n = rn WHERE abs(p.d - r.d) <= {SUGGESTED_DAYS}
        QUALIFY row_number() OVER (PARTITION BY pn ORDER BY abs(p.d - r.d), r.id)
            <= {SUGGESTIONS_MAX}
    )
    SELECT rest.n, '{OpenCode.PAYMENT_WITHOUT_RECORD}',
        list(rn ORDER BY r.id) FILTER (rn IS NOT NULL), NULL
    FROM rest LEFT JOIN likely ON pn = rest.n LEFT JOIN r ON r.n = rn GROUP BY rest.n
    """,
)
"""Fill `payment_open` and `record_open` from what is free."""
