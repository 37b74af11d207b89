"""Several dues of one person in one payment: which of his records it comes to.

A person's records are numbered, and a sum of some of them is a mask of bits. Only the masks that
come to the payment are kept, in lists: a year of equal dues has thousands of them.
"""

from __future__ import annotations

from typing import Final

import duckdb

from reconciliation.engines.duck_sums import UNDISPUTED
from reconciliation.matching import DUES_AT_ONCE_MAX, Rule

_SUMS_AT_ONCE: Final = 4_000_000
"""How many sums are in memory at a time."""

ANCHORED: Final = 1
UNANCHORED: Final = 2
"""How many records a payment must come to, besides the one that it names."""


def of_the_anchored(tolerance: int) -> str:
    """Return who pays more than the one record that his payment names."""
    one = "SELECT k, min(a) AS a FROM {} WHERE k IS NOT NULL GROUP BY k HAVING count(*) = 1"
    return f"""
        SELECT p.n AS pn, p.a AS pa, r.n AS anchor, r.a AS anchor_a, r.d AS anchor_d,
            r.cnss, CASE WHEN r.cnss IS NULL THEN r.cin END AS cin, FALSE AS only_nameless
        FROM p JOIN r USING (k)
        SEMI JOIN ({one.format("p")}) USING (k) SEMI JOIN ({one.format("r")}) USING (k)
        WHERE p.a > r.a + {tolerance}
            AND k NOT IN (SELECT unnest(ks) FROM p WHERE ks IS NOT NULL)
    """


OF_THE_PERSON: Final = """
    SELECT n AS pn, a AS pa, CAST(NULL AS BIGINT) AS anchor, 0 AS anchor_a,
        CAST(NULL AS DATE) AS anchor_d, cnss, CASE WHEN cnss IS NULL THEN cin END AS cin,
        k IS NOT NULL AS only_nameless
    FROM nameless
"""
"""Who names a person and no record."""


def choose_dues(
    con: duckdb.DuckDBPyConnection, payers: str, tolerance: int, *, besides: int
) -> bool:
    """Make `chosen` (pn, rn) of the payers of a query, and remember the ties.

    Return whether there is anything to choose from; else no table is made.

    Args:
        con: Where the engine's tables are.
        payers: `of_the_anchored` or `OF_THE_PERSON`.
        tolerance: Centimes.
        besides: `ANCHORED` or `UNANCHORED`.
    """
    con.execute(f"CREATE OR REPLACE TEMP TABLE payer AS {payers}")
    if con.execute("SELECT 1 FROM payer, unnamed LIMIT 1").fetchone() is None:
        return False
    for statement in _prepared(tolerance, besides):
        con.execute(statement)
    chunks = con.execute("SELECT coalesce(max(chunk), -1) + 1 FROM searched").fetchone()
    assert chunks is not None
    for chunk in range(chunks[0]):
        con.execute(_search(tolerance, besides, chunk))
    for statement in _DECIDED:
        con.execute(statement)
    return True


def _prepared(tolerance: int, besides: int) -> tuple[str, ...]:
    most = DUES_AT_ONCE_MAX - (besides == ANCHORED)
    return (
        f"""
        CREATE OR REPLACE TEMP TABLE due AS
        SELECT pn, r.n AS rn, r.a AS ra, r.d AS rd, row_number() OVER (PARTITION BY pn) - 1 AS i
        FROM (
            SELECT pn, r.* FROM payer JOIN {_few("cnss", most)} r ON r.cnss = payer.cnss
            UNION ALL
            SELECT pn, r.* FROM payer JOIN {_few("cin", most)} r ON r.cin = payer.cin
        ) r JOIN payer USING (pn)
        WHERE NOT only_nameless OR (r.k IS NULL AND r.ks IS NULL)
        """,
        """
        CREATE OR REPLACE TEMP TABLE whole AS
        SELECT pn, count(*) AS dues, sum(ra) AS a, min(ra) AS least,
            any_value(pa) - any_value(anchor_a) AS wanted
        FROM due JOIN payer USING (pn) GROUP BY pn
        """,
        # All of them together need no search: amounts are positive, so no other sum is the same.
        f"""
        CREATE OR REPLACE TEMP TABLE outcome AS
        SELECT pn, (1 << dues) - 1 AS picked, 0::BIGINT AS tied
        FROM whole WHERE a = wanted AND dues >= {besides}
        """,
        f"""
        CREATE OR REPLACE TEMP TABLE searched AS
        SELECT pn, wanted, CAST(sum(1 << dues) OVER (ORDER BY pn) // {_SUMS_AT_ONCE} AS BIGINT)
            AS chunk
        FROM whole
        WHERE a <> wanted AND dues >= {besides}
            AND wanted BETWEEN least * {besides} - {tolerance} AND a + {tolerance}
        """,
    )


def _search(tolerance: int, besides: int, chunk: int) -> str:
    """Return what finds the masks of some payers: of the exact sums, or if there is none the close.

    Of several, the only one whose records were all posted on one day is picked.
    """
    return f"""
        INSERT INTO outcome
        WITH mine AS (SELECT * FROM searched WHERE chunk = {chunk}),
        day AS (
            SELECT pn, list(mask) AS days FROM (
                SELECT pn, bit_or(1 << i) AS mask FROM due SEMI JOIN mine USING (pn)
                JOIN payer USING (pn) WHERE anchor_d IS NULL OR anchor_d = rd GROUP BY pn, rd
            ) GROUP BY pn
        ), summed AS (
            SELECT pn, any_value(wanted) AS wanted, list_reduce(
                list([ra] ORDER BY i),
                lambda s, x: list_concat(s, list_transform(s, lambda y: y + x[1])), [0::BIGINT]
            ) AS sums
            FROM due JOIN mine USING (pn) GROUP BY pn
        ), close AS (
            SELECT pn, wanted, sums, list_filter(range(1, len(sums)), lambda m:
                bit_count(m) >= {besides} AND abs(sums[m + 1] - wanted) <= {tolerance}) AS masks
            FROM summed
        ), exact AS (
            SELECT pn, masks, list_filter(masks, lambda m: sums[m + 1] = wanted) AS same FROM close
        ), best AS (
            SELECT pn, days, CASE WHEN len(same) > 0 THEN same ELSE masks END AS masks
            FROM exact LEFT JOIN day USING (pn) WHERE len(masks) > 0
        ), of_one_day AS (
            SELECT pn, masks, list_filter(masks, lambda m:
                len(list_filter(days, lambda d: m & d = m)) > 0) AS daily
            FROM best
        )
        SELECT pn,
            CASE WHEN len(masks) = 1 THEN masks[1] WHEN len(daily) = 1 THEN daily[1] ELSE 0 END,
            CASE WHEN len(masks) = 1 OR len(daily) = 1 THEN 0
                ELSE list_reduce(masks, lambda x, y: x | y) END
        FROM of_one_day
    """


def _few(number: str, most: int) -> str:
    return (
        f"(SELECT * FROM unnamed QUALIFY count(*) OVER (PARTITION BY {number}) <= {most}"
        f" AND {number} IS NOT NULL)"
    )


def _records(of: str) -> str:
    return f"""
        SELECT pn, rn FROM outcome JOIN due USING (pn) WHERE ({of} >> i) & 1 = 1
        UNION ALL
        SELECT pn, anchor FROM outcome JOIN payer USING (pn) WHERE {of} <> 0 AND anchor IS NOT NULL
    """


_DECIDED: Final = (
    f"""
    CREATE OR REPLACE TEMP TABLE chosen AS
    WITH wanted AS ({_records("picked")}) SELECT pn, rn FROM wanted WHERE {UNDISPUTED}
    """,
    f"INSERT INTO tie SELECT pn, rn, TRUE FROM ({_records('tied')})",
)


def chosen_dues(score: int) -> str:
    """Return the groups of `chosen`."""
    rule = Rule.SEVERAL_DUES
    return f"SELECT pn, rn, '{rule}' AS rule, {score} AS score, NULL AS why FROM chosen"
