"""Groups by amount: within what names one reference, and the instalments of one person."""

from __future__ import annotations

from typing import Final

from reconciliation.engines.duck_pairs import by_how
from reconciliation.engines.duck_sharing import sharing
from reconciliation.matching import (
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
        SELECT pn, rn, rule, score, NULL AS why FROM wanted WHERE {UNDISPUTED}
    """


UNDISPUTED: Final = """
    pn NOT IN (
        SELECT pn FROM wanted WHERE rn IN (
            SELECT rn FROM wanted GROUP BY rn HAVING count(DISTINCT pn) > 1
        )
    )
"""
"""Of a table `wanted` (pn, rn): payments none of whose records another payment wants."""


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
        WHERE rn NOT IN (
            -- One that names the reference of two persons' records can be wanted twice.
            SELECT rn FROM wanted
            WHERE pn IN (SELECT pn FROM wanted GROUP BY pn HAVING count(*) > 1)
        )
    """
