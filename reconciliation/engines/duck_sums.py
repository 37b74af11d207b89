"""Groups by amount within what names one reference, or by the dues of one person."""

from __future__ import annotations

from typing import Final

from reconciliation.engines.duck_pairs import by_how
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


def instalments_by_identity(tolerance: int) -> str:
    """Return the payments of a person that come to his one record."""
    rule = Rule.INSTALMENTS_BY_IDENTITY
    return f"""
        WITH person AS (
            SELECT *, coalesce('n' || cnss, 'c' || cin) AS of FROM unnamed
        ), lone AS (
            SELECT * FROM person
            WHERE of IN (SELECT of FROM person GROUP BY of HAVING count(*) = 1)
        ), paid AS (
            SELECT p.n AS pn, r.n AS rn, p.a AS pa, r.a AS ra
            FROM nameless p JOIN lone r ON p.cnss = r.cnss WHERE abs(p.d - r.d) <= {WINDOW_DAYS}
            UNION ALL
            SELECT p.n, r.n, p.a, r.a
            FROM nameless p JOIN lone r ON r.cnss IS NULL AND p.cin = r.cin
            WHERE abs(p.d - r.d) <= {WINDOW_DAYS}
        ), wanted AS (
            SELECT pn, rn FROM paid WHERE rn IN (
                SELECT rn FROM (SELECT *, count(*) OVER (PARTITION BY pn) AS records FROM paid)
                GROUP BY rn HAVING count(*) > 1 AND max(records) = 1
                    AND abs(sum(pa) - any_value(ra)) <= {tolerance}
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
            r.cnss, CASE WHEN r.cnss IS NULL THEN r.cin END AS cin
        FROM (SELECT k FROM {_BOTH} WHERE ps.times = 1 AND rs.times = 1)
        JOIN p USING (k) JOIN r USING (k)
        WHERE p.a > r.a + {tolerance}
        """,
        *_choose(tolerance, besides_anchor=1),
    )


def dues_of_the_person(tolerance: int) -> tuple[str, ...]:
    """Make `chosen` (pn, rn) of the payments that name no reference but a person."""
    return (
        """
        CREATE OR REPLACE TEMP TABLE payer AS
        SELECT n AS pn, a AS pa, CAST(NULL AS BIGINT) AS anchor, 0 AS anchor_a,
            CAST(NULL AS DATE) AS anchor_d, cnss, CASE WHEN cnss IS NULL THEN cin END AS cin
        FROM nameless
        """,
        *_choose(tolerance, besides_anchor=2),
    )


def _choose(tolerance: int, *, besides_anchor: int) -> tuple[str, ...]:
    most = DUES_AT_ONCE_MAX - (besides_anchor == 1)
    return (
        """
        CREATE OR REPLACE TEMP TABLE due AS
        SELECT pn, r.n AS rn, r.a AS ra, r.d AS rd, row_number() OVER (PARTITION BY pn) - 1 AS i
        FROM (
            SELECT pn, r.* FROM payer JOIN unnamed r ON r.cnss = payer.cnss
            UNION ALL
            SELECT pn, r.* FROM payer JOIN unnamed r ON r.cin = payer.cin
        ) r
        """,
        f"""
        CREATE OR REPLACE TEMP TABLE subset AS
        SELECT pn, mask, any_value(pa) = any_value(anchor_a) + sum(ra) AS is_exact,
            least(min(rd), any_value(anchor_d)) = greatest(max(rd), any_value(anchor_d)) AS one_day
        FROM (
            SELECT pn, unnest(range(1, 1 << count(*))) AS mask
            FROM due GROUP BY pn HAVING count(*) BETWEEN {besides_anchor} AND {most}
        ) JOIN due USING (pn) JOIN payer USING (pn)
        WHERE (mask >> i) & 1 = 1
        GROUP BY pn, mask
        HAVING count(*) >= {besides_anchor}
            AND abs(any_value(anchor_a) + sum(ra) - any_value(pa)) <= {tolerance}
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
        SELECT DISTINCT pn, rn, TRUE FROM solution JOIN due USING (pn)
        WHERE solutions > 1 AND of_one_day <> 1 AND (mask >> i) & 1 = 1
        """,
    )


def chosen_dues(score: int) -> str:
    """Return the groups of `chosen`."""
    rule = Rule.SEVERAL_DUES
    return f"SELECT pn, rn, '{rule}' AS rule, {score} AS score, NULL AS why FROM chosen"
