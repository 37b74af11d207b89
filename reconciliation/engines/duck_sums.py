"""Groups by amount within what names one reference, or by the dues of one person."""

from __future__ import annotations

from typing import Final

from reconciliation.engines.duck_pairs import by_how
from reconciliation.engines.duck_sharing import sharing
from reconciliation.matching import (
    DUES_AT_ONCE_MAX,
    SCORE_OF_ONE_AMONG_SEVERAL_REFERENCES,
    SCORES,
    WINDOW_DAYS,
    Rule,
)


def equal_amounts(same: str | None) -> str:
    """Return the pairs of one reference and amount, and of one `same`, in order of day and id."""
    within = "k, a" if same is None else f"k, a, {same}"

    def ranked(side: str, other: str) -> str:
        given = "" if same is None else f" AND {same} IS NOT NULL"
        return (
            f"(SELECT n, how, {within},"
            f" row_number() OVER (PARTITION BY {within} ORDER BY d, id) AS i FROM {side}"
            f" WHERE k IN (SELECT k FROM {other} WHERE k IS NOT NULL){given})"
        )

    return f"""
        SELECT p.n AS pn, r.n AS rn, {by_how("TRUE", "p.how", "r.how")}, NULL AS why
        FROM {ranked("p", "r")} p JOIN {ranked("r", "p")} r USING ({within}, i)
    """


_OF_REFERENCE: Final = (
    "(SELECT k, count(*) AS times, min(n) AS n, sum(a) AS a FROM {} WHERE k IS NOT NULL GROUP BY k)"
)
_BOTH: Final = f"{_OF_REFERENCE.format('p')} ps JOIN {_OF_REFERENCE.format('r')} rs USING (k)"


def one_and_one(tolerance: int) -> str:
    """Return what is left as one and one of a reference, close in amount."""
    rule = Rule.WITHIN_TOLERANCE
    return f"""
        SELECT ps.n AS pn, rs.n AS rn, '{rule}' AS rule, {SCORES[rule]} AS score, NULL AS why
        FROM {_BOTH} WHERE ps.times = 1 AND rs.times = 1 AND abs(ps.a - rs.a) <= {tolerance}
    """


def of_one_reference(tolerance: int, *, scores: tuple[int, int]) -> str:
    """Return several payments of one record, and several records of one payment."""
    close = f"abs(ps.a - rs.a) <= {tolerance}"
    return f"""
        SELECT p.n AS pn, rs.n AS rn, '{Rule.INSTALMENTS}' AS rule, {scores[0]} AS score,
            NULL AS why
        FROM {_BOTH} JOIN p USING (k) WHERE ps.times > 1 AND rs.times = 1 AND {close}
        UNION ALL
        SELECT ps.n, r.n, '{Rule.SEVERAL_RECORDS}', {scores[1]}, NULL
        FROM {_BOTH} JOIN r USING (k) WHERE ps.times = 1 AND rs.times > 1 AND {close}
    """


def references_in_text(tolerance: int) -> str:
    """Return what texts with several references name."""
    all_, one = Rule.REFERENCES_IN_TEXT, Rule.REFERENCE_IN_TEXT
    return f"""
        WITH hit AS (
            SELECT pn, named, pa, r.n AS rn, r.a AS ra, k FROM (
                SELECT n AS pn, a AS pa, len(ks) AS named, unnest(ks) AS k
                FROM p WHERE ks IS NOT NULL
            ) JOIN r USING (k)
        ), whole AS (
            SELECT pn FROM hit GROUP BY pn
            HAVING count(*) = any_value(named) AND count(DISTINCT k) = count(*)
                AND abs(sum(ra) - any_value(pa)) <= {tolerance}
        ), close AS (
            SELECT pn, rn FROM hit ANTI JOIN whole USING (pn) WHERE abs(ra - pa) <= {tolerance}
        ), wanted AS (
            SELECT pn, rn, '{all_}' AS rule, {SCORES[all_]} AS score
            FROM hit SEMI JOIN whole USING (pn)
            UNION ALL
            SELECT pn, rn, '{one}', {SCORE_OF_ONE_AMONG_SEVERAL_REFERENCES} FROM close
            WHERE pn IN (SELECT pn FROM close GROUP BY pn HAVING count(*) = 1)
        )
        SELECT pn, rn, rule, score, NULL AS why FROM wanted WHERE {_UNDISPUTED}
    """


_UNDISPUTED: Final = """
    pn NOT IN (
        SELECT pn FROM wanted WHERE rn IN (
            SELECT rn FROM wanted GROUP BY rn HAVING count(DISTINCT pn) > 1
        )
    )
"""


_OF: Final = "SELECT n, {0} AS shared FROM {1} WHERE {0} IS NOT NULL"


def instalments_by_identity(tolerance: int) -> str:
    """Return the payments of a person that come to his one record."""
    rule = Rule.INSTALMENTS_BY_IDENTITY
    return f"""
        WITH person AS (
            SELECT *, coalesce('n' || cnss, 'c' || cin) AS of FROM r
        ), lone AS (
            SELECT * FROM person
            WHERE of IN (SELECT of FROM person GROUP BY of HAVING count(*) = 1)
        ), shared AS (
            {sharing(_OF.format("cnss", "nameless"), _OF.format("cnss", "lone"))}
            UNION ALL
            SELECT pn, rn FROM ({sharing(_OF.format("cin", "nameless"), _OF.format("cin", "lone"))})
            JOIN p ON p.n = pn JOIN r ON r.n = rn WHERE p.cnss IS NULL OR r.cnss IS NULL
        ), offered AS (
            SELECT pn, rn, count(*) OVER (PARTITION BY pn) AS records
            FROM shared JOIN p ON p.n = pn JOIN r ON r.n = rn
            WHERE abs(p.d - r.d) <= {WINDOW_DAYS}
                AND (p.k IS NULL OR (r.k IS NULL AND r.ks IS NULL))
        ), paid AS (
            SELECT pn, rn, records FROM offered
            UNION ALL
            SELECT p.n, r.n, 1 FROM p JOIN r USING (k) SEMI JOIN offered ON offered.rn = r.n
        ), wanted AS (
            SELECT pn, rn FROM paid WHERE rn IN (
                SELECT rn FROM paid JOIN p ON p.n = pn JOIN r ON r.n = rn
                GROUP BY rn HAVING count(*) > 1 AND max(records) = 1
                    AND abs(sum(p.a) - any_value(r.a)) <= {tolerance}
            )
        )
        SELECT pn, rn, '{rule}' AS rule, {SCORES[rule]} AS score, NULL AS why FROM wanted
    """


# -- several dues of one person -------------------------------------------------------------------


def dues_of_the_anchored(tolerance: int) -> tuple[str, ...]:
    """Make `chosen` (pn, rn) of the payments that are more than the one record they name."""
    return (
        f"""
        CREATE OR REPLACE TEMP TABLE payer AS
        SELECT p.n AS pn, p.a AS pa, r.n AS anchor, r.a AS anchor_a, r.d AS anchor_d,
            r.cnss, CASE WHEN r.cnss IS NULL THEN r.cin END AS cin, FALSE AS only_nameless
        FROM (SELECT k FROM {_BOTH} WHERE ps.times = 1 AND rs.times = 1)
        JOIN p USING (k) JOIN r USING (k)
        WHERE p.a > r.a + {tolerance}
            AND k NOT IN (SELECT unnest(ks) FROM p WHERE ks IS NOT NULL)
        """,
        *_choose(tolerance, besides_anchor=1),
    )


def dues_of_the_person(tolerance: int) -> tuple[str, ...]:
    """Make `chosen` (pn, rn) of the payments that name no reference but a person."""
    return (
        """
        CREATE OR REPLACE TEMP TABLE payer AS
        SELECT n AS pn, a AS pa, CAST(NULL AS BIGINT) AS anchor, 0 AS anchor_a,
            CAST(NULL AS DATE) AS anchor_d, cnss, CASE WHEN cnss IS NULL THEN cin END AS cin,
            k IS NOT NULL AS only_nameless
        FROM nameless
        """,
        *_choose(tolerance, besides_anchor=2),
    )


def _choose(tolerance: int, *, besides_anchor: int) -> tuple[str, ...]:
    most = DUES_AT_ONCE_MAX - (besides_anchor == 1)
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
        # All of them together need no search: amounts are positive, so no other sum is the same.
        f"""
        CREATE OR REPLACE TEMP TABLE subset AS
        WITH whole AS (
            SELECT pn, (1 << count(*)) - 1 AS mask,
                count(*) AS dues, sum(ra) AS a, min(ra) AS least,
                any_value(pa) - any_value(anchor_a) AS wanted,
                least(min(rd), any_value(anchor_d)) = greatest(max(rd), any_value(anchor_d))
                    AS one_day
            FROM due JOIN payer USING (pn) GROUP BY pn HAVING count(*) >= {besides_anchor}
        )
        SELECT pn, mask, TRUE AS is_exact, one_day FROM whole WHERE a = wanted
        UNION ALL
        SELECT pn, mask, any_value(wanted) = sum(ra) AS is_exact,
            least(min(rd), any_value(anchor_d)) = greatest(max(rd), any_value(anchor_d)) AS one_day
        FROM (
            SELECT pn, wanted, unnest(range(1, 1 << dues)) AS mask FROM whole
            WHERE a <> wanted AND wanted BETWEEN least * {besides_anchor} - {tolerance}
                AND a + {tolerance}
        ) JOIN due USING (pn) JOIN payer USING (pn)
        WHERE (mask >> i) & 1 = 1
        GROUP BY pn, mask
        HAVING count(*) >= {besides_anchor} AND abs(sum(ra) - any_value(wanted)) <= {tolerance}
        """,
        """
        CREATE OR REPLACE TEMP TABLE solution AS
        SELECT *, count(*) OVER (PARTITION BY pn) AS solutions,
            count(*) FILTER (one_day) OVER (PARTITION BY pn) AS of_one_day
        FROM (SELECT *, bool_or(is_exact) OVER (PARTITION BY pn) AS has_exact FROM subset)
        WHERE is_exact OR NOT has_exact
        """,
        f"""
        CREATE OR REPLACE TEMP TABLE chosen AS
        WITH picked AS (
            SELECT pn, mask FROM solution WHERE solutions = 1 OR (one_day AND of_one_day = 1)
        ), wanted AS (
            SELECT pn, rn FROM picked JOIN due USING (pn) WHERE (mask >> i) & 1 = 1
            UNION ALL
            SELECT pn, anchor FROM picked JOIN payer USING (pn) WHERE anchor IS NOT NULL
        )
        SELECT pn, rn FROM wanted WHERE {_UNDISPUTED}
        """,
        """
        INSERT INTO tie
        WITH tied AS (SELECT * FROM solution WHERE solutions > 1 AND of_one_day <> 1)
        SELECT pn, rn, TRUE FROM tied JOIN due USING (pn) WHERE (mask >> i) & 1 = 1
        UNION
        SELECT pn, anchor, TRUE FROM tied JOIN payer USING (pn) WHERE anchor IS NOT NULL
        """,
    )


def _few(number: str, most: int) -> str:
    return (
        f"(SELECT * FROM unnamed QUALIFY count(*) OVER (PARTITION BY {number}) <= {most}"
        f" AND {number} IS NOT NULL)"
    )


def chosen_dues(score: int) -> str:
    """Return the groups of `chosen`."""
    rule = Rule.SEVERAL_DUES
    return f"SELECT pn, rn, '{rule}' AS rule, {score} AS score, NULL AS why FROM chosen"
