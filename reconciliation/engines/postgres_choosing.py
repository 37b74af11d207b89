"""How the engine in PostgreSQL chooses: mutual best, interchangeable rows, sums of several dues."""

from __future__ import annotations

from typing import Final

from reconciliation.engines.postgres_tables import NAMES_NO_RECORD, NOT_AGAINST, UNNAMED, Tables
from reconciliation.matching import (
    DUES_AT_ONCE_MAX,
    ROUNDS,
    SCORE_OF_SEVERAL_DUES_BY_IDENTITY,
    SCORES,
    STRENGTH_TO_SCORE,
    Rule,
)

_WHY: Final = "format('person=%s name=%s amount=%s days=%s', person, name, amount, days)"
_WHY_RELATED: Final = (
    "format('relation=%s person=%s name=%s amount=%s days=%s',"
    " relation, person, name, amount, days)"
)


def choose_mutual_best(tables: Tables, rule: str, of_rule: Rule) -> None:
    """Match the pairs of `offered` of which each is the only best of both, and remember ties.

    Args:
        tables: With `offered`: pn, rn, relation, strength and its parts.
        rule: The rule of a pair, an expression.
        of_rule: One of these rules, for the score; all have the same.
    """
    _offer_once(tables)
    for _ in range(ROUNDS):
        _rank(tables)
        tables.run(
            f"""
            INSERT INTO claim
            SELECT pn, rn, {rule}, {_score(of_rule)},
                CASE WHEN relation IS NULL THEN {_WHY} ELSE {_WHY_RELATED} END
            FROM ranked
            WHERE of_payment = 1 AND of_record = 1 AND bests_of_payment = 1 AND bests_of_record = 1
            """
        )
        if not tables.take():
            break
    _rank(tables)
    tables.run(
        "INSERT INTO payment_tie"
        " SELECT pn, rn FROM ranked WHERE of_payment = 1 AND bests_of_payment > 1"
    )
    tables.run(
        "INSERT INTO record_tie"
        " SELECT rn, pn FROM ranked WHERE of_record = 1 AND bests_of_record > 1"
    )


def _offer_once(tables: Tables) -> None:
    """Of payments that are alike to a record, offer it the first: one debt paid twice is no tie."""
    tables.run(
        """
        DELETE FROM offered USING (
            SELECT pn, rn, row_number() OVER (
                PARTITION BY rn, p.digits, p.a, p.d, strength, days ORDER BY p.id COLLATE "C"
            ) AS place
            FROM offered JOIN left_payment p ON p.n = pn WHERE p.digits IS NOT NULL
        ) alike
        WHERE place > 1 AND offered.pn = alike.pn AND offered.rn = alike.rn
        """
    )


def _score(rule: Rule) -> str:
    more, most = STRENGTH_TO_SCORE[rule]
    return f"least({most}, {more} + strength)"


def _rank(tables: Tables) -> None:
    tables.make(
        "ranked",
        """
        SELECT *,
            count(*) FILTER (WHERE of_payment = 1) OVER (PARTITION BY pn) AS bests_of_payment,
            count(*) FILTER (WHERE of_record = 1) OVER (PARTITION BY rn) AS bests_of_record
        FROM (
            SELECT o.*,
                rank() OVER (PARTITION BY pn ORDER BY strength DESC, days) AS of_payment,
                rank() OVER (PARTITION BY rn ORDER BY strength DESC, days) AS of_record
            FROM offered o JOIN left_payment p ON p.n = o.pn JOIN left_record r ON r.n = o.rn
        ) o
        """,
    )


def pair_interchangeable(tables: Tables) -> None:
    """Of the pairs of `offered` that are left with equal amounts, pair what is all the same."""
    tables.make(
        "alike",
        """
        SELECT o.*, r.a, coalesce('cnss ' || r.cnss, 'cin ' || r.cin) AS whose,
            p.d AS paid_on, p.id AS payment_id, r.d AS posted_on, r.id AS record_id
        FROM offered o JOIN left_payment p ON p.n = o.pn JOIN left_record r ON r.n = o.rn
        WHERE p.a = r.a
        """,
    )
    tables.run(
        f"""
        INSERT INTO claim
        WITH class AS (
            SELECT whose, a FROM alike GROUP BY whose, a
            HAVING count(DISTINCT pn) = count(DISTINCT rn)
                AND count(*) = count(DISTINCT pn) * count(DISTINCT rn)
        ),
        of_several AS (
            SELECT pn FROM alike GROUP BY pn HAVING count(DISTINCT (whose, a)) > 1
        ),
        chosen AS (
            SELECT alike.*,
                dense_rank() OVER (
                    PARTITION BY whose, a ORDER BY paid_on, payment_id COLLATE "C"
                ) AS payment_place,
                dense_rank() OVER (
                    PARTITION BY whose, a ORDER BY posted_on, record_id COLLATE "C"
                ) AS record_place
            FROM alike JOIN class USING (whose, a)
            WHERE NOT EXISTS (
                SELECT FROM alike other JOIN of_several USING (pn)
                WHERE other.whose = alike.whose AND other.a = alike.a
            )
        )
        SELECT pn, rn, '{Rule.IDENTITY}', {_score(Rule.IDENTITY)}, {_WHY}
        FROM chosen WHERE payment_place = record_place
        """
    )
    tables.take()


# -- several dues ---------------------------------------------------------------------------------


def find_several_dues_anchored(tables: Tables) -> None:
    """Match a payment that names one due, and is too large for it, with more of that person."""
    tables.meet()
    tables.make(
        "wish",
        f"""
        SELECT pn, p.a AS sought, r.n AS anchor, r.a, r.d, r.cnss, r.cin
        FROM meeting m JOIN left_payment p ON p.n = m.pn JOIN left_record r ON r.n = m.rn
        WHERE payments = 1 AND records = 1 AND p.a - r.a > {tables.tol}
            AND NOT EXISTS (SELECT FROM naming WHERE naming.k = m.k AND naming.pn <> m.pn)
        """,
    )
    tables.make(
        "pool",
        f"""
        SELECT pn, r.n AS rn, r.a, r.d FROM wish w JOIN left_record r ON r.cnss = w.cnss
        WHERE r.n <> w.anchor AND {UNNAMED}
        UNION ALL
        SELECT pn, r.n, r.a, r.d FROM wish w JOIN left_record r ON r.cin = w.cin
        WHERE w.cnss IS NULL AND r.n <> w.anchor AND {UNNAMED}
        """,
    )
    _choose_sums(tables, SCORES[Rule.SEVERAL_DUES])


def find_several_dues_by_identity(tables: Tables) -> None:
    """Match a payment that names no record with several dues of its person."""
    tables.make(
        "wish",
        f"""
        SELECT n AS pn, a AS sought, CAST(NULL AS bigint) AS anchor, CAST(0 AS bigint) AS a,
            CAST(NULL AS date) AS d, cnss, cin
        FROM left_payment p WHERE {NAMES_NO_RECORD}
        """,
    )
    tables.make(
        "pool",
        f"""
        SELECT p.n AS pn, r.n AS rn, r.a, r.d
        FROM left_payment p JOIN left_record r ON r.cnss = p.cnss
        WHERE {NAMES_NO_RECORD} AND {UNNAMED} AND {NOT_AGAINST}
        UNION ALL
        SELECT p.n, r.n, r.a, r.d FROM left_payment p JOIN left_record r ON r.cin = p.cin
        WHERE p.cnss IS NULL AND {NAMES_NO_RECORD} AND {UNNAMED} AND {NOT_AGAINST}
        """,
    )
    _choose_sums(tables, SCORE_OF_SEVERAL_DUES_BY_IDENTITY)


def _choose_sums(tables: Tables, score: int) -> None:
    """Match the wishes for which one subset of their pool, with the anchor, has the sum sought."""
    tables.make(
        "subset",
        f"""
        WITH RECURSIVE few AS (
            SELECT w.* FROM wish w JOIN pool USING (pn)
            GROUP BY pn, sought, anchor, w.a, w.d, cnss, cin
            HAVING count(*) + count(DISTINCT anchor) <= {DUES_AT_ONCE_MAX}
        ),
        sums (pn, sought, last, rns, total, first_on, last_on) AS (
            SELECT pn, sought, CAST('-9223372036854775808' AS bigint),
                array_remove(ARRAY[anchor], NULL), a, d, d
            FROM few
            UNION ALL
            -- No amount is negative: a sum that is too large stays so.
            SELECT s.pn, sought, pool.rn, rns || pool.rn, total + pool.a,
                least(first_on, pool.d), greatest(last_on, pool.d)
            FROM sums s JOIN pool ON pool.pn = s.pn AND pool.rn > s.last
                AND total + pool.a <= sought + {tables.tol}
        )
        SELECT pn, rns, total = sought AS exact, first_on = last_on AS on_one_day
        FROM sums WHERE cardinality(rns) >= 2 AND abs(total - sought) <= {tables.tol}
        """,
    )
    tables.run(
        "DELETE FROM subset WHERE NOT exact"
        " AND pn IN (SELECT better.pn FROM subset better WHERE better.exact)"
    )
    tables.make(
        "decided",
        """
        SELECT pn, unnest(rns) AS rn FROM (
            SELECT *, count(*) OVER (PARTITION BY pn) AS all_of_it,
                count(*) FILTER (WHERE on_one_day) OVER (PARTITION BY pn) AS on_one_day_of_it
            FROM subset
        ) s
        WHERE all_of_it = 1 OR on_one_day AND on_one_day_of_it = 1
        """,
    )
    tables.run(
        "INSERT INTO payment_tie SELECT DISTINCT pn, unnest(rns) FROM subset"
        " WHERE NOT EXISTS (SELECT FROM decided WHERE decided.pn = subset.pn)"
    )
    claim_wanted_once(tables, f"SELECT pn, rn, '{Rule.SEVERAL_DUES}', {score} FROM decided")


def claim_wanted_once(tables: Tables, wanted: str) -> None:
    """Match what payments want (pn, rn, rule, score), but for those who want what another does."""
    tables.run(
        f"""
        INSERT INTO claim
        WITH wanted AS (SELECT * FROM ({wanted}) AS w (pn, rn, rule, score)),
        in_conflict AS (
            SELECT pn FROM wanted
            WHERE rn IN (SELECT w.rn FROM wanted w GROUP BY w.rn HAVING count(*) > 1)
        )
        SELECT pn, rn, rule, score, NULL FROM wanted
        WHERE NOT EXISTS (SELECT FROM in_conflict c WHERE c.pn = wanted.pn)
        """
    )
    tables.take()
