"""Pairs of one payment and one record, their evidence, and who is whose only best."""

from __future__ import annotations

from typing import Final

from reconciliation.engines.duck_sharing import sharing
from reconciliation.matching import (
    AMOUNT_CLOSE,
    AMOUNT_EQUAL,
    DAYS_POINTS,
    NAME_AGREES,
    NAME_DIFFERS,
    NAME_IN_PART,
    ONE_SLIP,
    OTHER_PERSON,
    SAME_PERSON,
    SCORE_OF_SUMS_WITH_A_SLIP,
    SCORES,
    STRENGTH_TO_SCORE,
    WINDOW_DAYS,
    Relation,
    Rule,
)

_DAYS: Final = " ".join(f"WHEN days <= {days} THEN {points}" for days, points in DAYS_POINTS)

MACROS: Final = (
    f"""
    CREATE TEMP MACRO person_points(a, b) AS CASE
        WHEN a IS NULL OR b IS NULL THEN 0 WHEN a = b THEN {SAME_PERSON}
        WHEN damerau_levenshtein(a, b) = 1 THEN {ONE_SLIP} ELSE {OTHER_PERSON} END
    """,
    """
    CREATE TEMP MACRO words_agree(a, b) AS a = b
        OR (length(a) = 1 AND starts_with(b, a)) OR (length(b) = 1 AND starts_with(a, b))
        OR (length(a) >= 2 AND length(b) >= 2 AND length(a) <> length(b) AND a[1] = b[1]
            AND damerau_levenshtein(a, b) = 1)
    """,
    """
    CREATE TEMP MACRO met(these, those) AS
        list_filter(these, lambda x: len(list_filter(those, lambda y: words_agree(x, y))) > 0)
    """,
    """
    CREATE TEMP MACRO met_by_words(these, those) AS len(met(
        list_filter(these, lambda x: length(x) >= 2), list_filter(those, lambda x: length(x) >= 2)
    ))
    """,
    f"""
    CREATE TEMP MACRO names_compared(few, many) AS CASE
        WHEN len(met(few, many)) = len(few) AND len(met(many, few)) >= len(few)
            AND len(few) >= 2 THEN {NAME_AGREES}
        WHEN met_by_words(few, many) > 0 THEN {NAME_IN_PART}
        ELSE {NAME_DIFFERS} END
    """,
    # Most names that are compared are the same, and words are not quickly compared.
    f"""
    CREATE TEMP MACRO name_points(a, b) AS CASE WHEN a IS NULL OR b IS NULL THEN 0
        WHEN a = b AND len(a) >= 2 THEN {NAME_AGREES}
        WHEN len(a) <= len(b) THEN names_compared(a, b) ELSE names_compared(b, a) END
    """,
    f"CREATE TEMP MACRO days_points(days) AS CASE {_DAYS} ELSE 0 END",
)


def by_how(equal: str, how: str, other_how: str) -> str:
    """Return rule and score of a pair of one reference, by how the reference was written."""
    rules = (Rule.EXACT, Rule.NORMALISED_REFERENCE, Rule.REFERENCE_IN_TEXT)
    how = f"greatest({how}, {other_how})"
    names = " ".join(f"WHEN {how} = {i} THEN '{rule}'" for i, rule in enumerate(rules))
    scores = " ".join(f"WHEN {how} = {i} THEN {SCORES[rule]}" for i, rule in enumerate(rules))
    close = Rule.WITHIN_TOLERANCE
    return (
        f"CASE WHEN NOT ({equal}) THEN '{close}' {names} END AS rule,"
        f" CASE WHEN NOT ({equal}) THEN {SCORES[close]} {scores} END AS score"
    )


def _with_evidence(offered: str, tolerance: int) -> str:
    """Return the evidence of offered pairs (pn, rn, relation, points)."""
    return f"""
        SELECT *, person + name + amount + days_points(days) + points AS strength FROM (
            SELECT pn, rn, relation, points,
                person_points(p.cnss, r.cnss) + person_points(p.cin, r.cin) AS person,
                name_points(p.tokens, r.tokens) AS name,
                CASE WHEN p.a = r.a THEN {AMOUNT_EQUAL} ELSE {AMOUNT_CLOSE} END AS amount,
                abs(p.d - r.d) AS days,
                p.known AS known, p.k IS NOT NULL AND r.k IS NOT NULL AS regrouped,
                p.k IS NULL OR (r.k IS NULL AND r.ks IS NULL) AS may_pair,
                p.cnss IS NOT DISTINCT FROM r.cnss AND p.cnss IS NOT NULL
                    OR p.cin IS NOT DISTINCT FROM r.cin AND p.cin IS NOT NULL AS is_same
            FROM ({offered}) offered JOIN p ON p.n = pn JOIN r ON r.n = rn
            WHERE abs(p.a - r.a) <= {tolerance}
        )"""


def _matched_as(rule: Rule) -> str:
    add, most = STRENGTH_TO_SCORE[rule]
    return f"'{rule}' AS rule, CAST(least({most}, {add} + strength) AS TINYINT) AS score"


_WHY: Final = (
    "'person=' || person || ' name=' || name || ' amount=' || amount || ' days=' || days AS why"
)


def plausible_relations(tolerance: int) -> str:
    """Return the plausible pairs of pass 5."""
    offered = """
        SELECT pn, rn, relation, points FROM relation
        WHERE rn IN (SELECT n FROM unnamed)
    """
    repaired, part = Rule.REPAIRED_REFERENCE, Rule.PART_OF_REFERENCE
    slips = f"relation IN ('{Relation.SLIP}', '{Relation.SAME_DIGITS}')"
    (add, most), other = STRENGTH_TO_SCORE[repaired], STRENGTH_TO_SCORE[part]
    assert (add, most) == other
    return f"""
        SELECT pn, rn, strength, days,
            CASE WHEN {slips} THEN '{repaired}' ELSE '{part}' END AS rule,
            CAST(least({most}, {add} + strength) AS TINYINT) AS score,
            'relation=' || relation || ' ' || {_WHY}
        FROM ({_with_evidence(offered, tolerance)})
        WHERE NOT known AND person >= 0 AND CASE
            WHEN {slips} THEN NOT regrouped OR person >= {SAME_PERSON}
            WHEN points >= 3 THEN TRUE
            ELSE (person > 0 OR name >= {NAME_IN_PART}) AND days <= {WINDOW_DAYS} END
    """


ATTACH: Final = f"""
    UPDATE p SET k = attached.k, known = TRUE FROM (
        SELECT pn, min(r.k) AS k FROM relation JOIN p ON p.n = pn JOIN r ON r.n = rn
        WHERE relation = '{Relation.SLIP}' AND p.k IS NULL
            AND person_points(p.cnss, r.cnss) + person_points(p.cin, r.cin) >= {SAME_PERSON}
        GROUP BY pn HAVING count(*) = 1
    ) attached WHERE p.n = attached.pn
"""


def instalments_with_a_slip(tolerance: int) -> str:
    """Return the payments of one record of which some name it by a slip (pass 6c)."""
    return f"""
        WITH slipped AS (
            SELECT pn, min(rn) AS rn
            FROM relation JOIN p ON p.n = pn JOIN r ON r.n = rn
            WHERE relation = '{Relation.SLIP}' AND p.k IS NULL
            GROUP BY pn HAVING count(*) = 1
                AND min(person_points(p.cnss, r.cnss) + person_points(p.cin, r.cin)) >= 0
        ), part AS (
            SELECT pn, rn FROM slipped
            UNION ALL
            SELECT p.n, r.n FROM p JOIN r USING (k) SEMI JOIN slipped ON slipped.rn = r.n
        ), whole AS (
            SELECT rn FROM part JOIN p ON p.n = pn JOIN r ON r.n = rn
            GROUP BY rn HAVING count(*) > 1 AND abs(sum(p.a) - any_value(r.a)) <= {tolerance}
        )
        SELECT pn, rn, '{Rule.INSTALMENTS}' AS rule, {SCORE_OF_SUMS_WITH_A_SLIP} AS score,
            NULL AS why
        FROM part SEMI JOIN whole USING (rn)
    """


def settle_and_doubt(tolerance: int) -> tuple[str, ...]:
    """Take slips of settled references as naming them, and doubt the others (pass 6d and e)."""
    return (
        """
        CREATE TEMP TABLE slip_of_any AS
        SELECT slip.n, slip.y, record_key.a
        FROM record_key JOIN slip ON slip.y = record_key.k JOIN p ON p.n = slip.n
        WHERE is_payment AND p.k IS NULL
        """,
        f"""
        UPDATE p SET k = settled.k, known = TRUE FROM (
            SELECT n, min(y) AS k FROM slip_of_any JOIN p USING (n)
            ANTI JOIN r ON r.k = y
            GROUP BY n
            HAVING count(DISTINCT y) = 1 AND bool_or(abs(slip_of_any.a - p.a) <= {tolerance})
        ) settled WHERE p.n = settled.n
        """,
        f"""
        INSERT INTO tie
        SELECT pn, rn, TRUE FROM ({
            sharing(
                "SELECT n, y AS shared FROM slip_of_any JOIN p USING (n) WHERE k IS NULL"
                " GROUP BY ALL",
                "SELECT n, k AS shared FROM r WHERE k IS NOT NULL",
            )
        })
        UNION ALL
        SELECT pn, rn, FALSE FROM ({
            sharing(
                "SELECT n, k AS shared FROM p WHERE k IS NOT NULL",
                "SELECT n, y AS shared FROM slip JOIN r USING (n) WHERE NOT is_payment",
            )
        })
        """,
        """
        UPDATE p SET is_doubted = TRUE
        WHERE k IS NULL AND n IN (SELECT n FROM slip_of_any)
        """,
        """
        UPDATE r SET is_doubted = TRUE WHERE k IS NULL AND n IN (
            SELECT slip.n FROM payment_key JOIN slip ON slip.y = payment_key.k WHERE NOT is_payment
        )
        """,
    )


def provider_references(tolerance: int) -> str:
    """Return the pairs of pass 3."""
    one = "SELECT provref FROM {} WHERE provref IS NOT NULL GROUP BY provref HAVING count(*) = 1"
    rule = Rule.PROVIDER_REFERENCE
    return f"""
        SELECT p.n AS pn, r.n AS rn, '{rule}' AS rule, {SCORES[rule]} AS score, NULL AS why
        FROM p JOIN r USING (provref)
        SEMI JOIN ({one.format("p")}) USING (provref) SEMI JOIN ({one.format("r")}) USING (provref)
        WHERE abs(p.a - r.a) <= {tolerance}
            AND (p.k IS NULL OR r.k IS NULL OR p.k = r.k OR NOT (p.known OR r.known))
    """


def _sharing(number: str) -> str:
    of = f"SELECT n, {number} AS shared FROM {{}} WHERE {number} IS NOT NULL"
    return sharing(of.format("nameless"), of.format("certain"))


def same_person(tolerance: int) -> str:
    """Return the pairs of pass 8."""
    offered = f"""
        SELECT pn, rn, '' AS relation, 0 AS points
        FROM ({_sharing("cnss")} UNION {_sharing("cin")})
    """
    return f"""
        SELECT pn, rn, strength, days, {_matched_as(Rule.IDENTITY)}, {_WHY}, person, name
        FROM ({_with_evidence(offered, tolerance)})
        WHERE may_pair AND person >= {SAME_PERSON} AND days <= {WINDOW_DAYS}
    """


def one_slip_of_a_person(tolerance: int, *, name: int = NAME_AGREES) -> str:
    """Return the pairs of pass 9; with fewer points of the name, more that are thought about."""
    return f"""
        SELECT pn, rn, strength, days, {_matched_as(Rule.IDENTITY_SLIP)}, {_WHY}
        FROM ({_a_slip_away("nameless", "certain", name, tolerance)})
    """


def _a_slip_away(payments: str, records: str, name: int, tolerance: int) -> str:
    """Return the pairs a slip away, with as many points of the name: such texts share one of them
    less a character."""

    def less(side: str) -> str:
        # Of equal neighbours only the last is left out: the others leave the same.
        return " UNION ALL ".join(
            f"SELECT n, unnest([{mark} || x] || [{mark} || x[:i - 1] || x[i + 1:]"
            f" for i in range(1, length(x) + 1) if x[i] <> x[i + 1]]) AS shared"
            f" FROM (SELECT n, {number} AS x FROM {side} WHERE {number} IS NOT NULL)"
            for number, mark in (("cnss", "'n'"), ("cin", "'c'"))
        )

    offered = f"""
        SELECT DISTINCT pn, rn, '' AS relation, 0 AS points
        FROM ({sharing(less(payments), less(records))})
    """
    return f"""
        SELECT * FROM ({_with_evidence(offered, tolerance)})
        WHERE may_pair AND person >= {ONE_SLIP} AND NOT is_same AND name >= {name}
            AND days <= {WINDOW_DAYS}
    """


SUSPECT: Final = f"""
    CREATE OR REPLACE TEMP TABLE suspect AS
    SELECT pn, rn FROM candidate WHERE person = {SAME_PERSON} AND name = {NAME_DIFFERS}
"""
"""Pairs of pass 8 for which one number speaks, and against which the name does."""


def doubt_the_number(tolerance: int) -> tuple[str, ...]:
    """Doubt the suspects beside whom somebody of that name is a slip away (pass 8)."""
    payments = "(FROM nameless WHERE n IN (SELECT pn FROM suspect))"
    records = "(FROM certain WHERE n IN (SELECT rn FROM suspect))"
    records_meant = _a_slip_away(payments, "certain", NAME_IN_PART, tolerance)
    payments_meant = _a_slip_away("nameless", records, NAME_IN_PART, tolerance)
    return (
        f"""
        CREATE OR REPLACE TEMP TABLE meant AS
        SELECT pn, rn, TRUE AS is_of_payment FROM ({records_meant})
        UNION ALL
        SELECT pn, rn, FALSE FROM ({payments_meant})
        """,
        """
        INSERT INTO tie
        FROM meant
        UNION ALL SELECT pn, rn, TRUE FROM candidate
        SEMI JOIN (FROM meant WHERE is_of_payment) USING (pn)
        UNION ALL SELECT pn, rn, FALSE FROM candidate
        SEMI JOIN (FROM meant WHERE NOT is_of_payment) USING (rn)
        """,
        "UPDATE p SET is_doubted = TRUE WHERE n IN (SELECT pn FROM meant WHERE is_of_payment)",
        "UPDATE r SET is_doubted = TRUE WHERE n IN (SELECT rn FROM meant WHERE NOT is_of_payment)",
        """
        DELETE FROM candidate WHERE pn IN (SELECT n FROM p WHERE is_doubted)
            OR rn IN (SELECT n FROM r WHERE is_doubted)
        """,
    )


_RANKED: Final = """
    SELECT *, count(*) FILTER (rank_p = 1) OVER (PARTITION BY pn) AS best_p,
        count(*) FILTER (rank_r = 1) OVER (PARTITION BY rn) AS best_r
    FROM (
        SELECT *, rank() OVER (PARTITION BY pn ORDER BY strength DESC, days) AS rank_p,
            rank() OVER (PARTITION BY rn ORDER BY strength DESC, days) AS rank_r
        FROM candidate
    )
"""


def _only_best(of: str, other: str) -> str:
    """Return what has one best, and which: the strongest, then the fewest days (of 9999 years)."""
    return f"""
        SELECT {of}, arg_max({other}, merit) AS {other}
        FROM (SELECT pn, rn, strength * 10_000_000 - days AS merit FROM candidate)
        GROUP BY {of} HAVING count(*) = 1 OR max(merit, 2)[1] > max(merit, 2)[2]
    """


MUTUAL_BEST: Final = f"""
    SELECT pn, rn, rule, score, why FROM candidate
    SEMI JOIN ({_only_best("pn", "rn")}) USING (pn, rn)
    SEMI JOIN ({_only_best("rn", "pn")}) USING (pn, rn)
"""

ONE_OF_ALIKE: Final = """
    DELETE FROM candidate WHERE pn IN (
        SELECT pn FROM candidate JOIN p ON p.n = pn SEMI JOIN (
            SELECT digits, a, d FROM p WHERE digits IS NOT NULL
            GROUP BY digits, a, d HAVING count(*) > 1
        ) USING (digits, a, d)
        QUALIFY row_number() OVER (PARTITION BY rn, strength, days, digits, a, d ORDER BY id) > 1
    )
"""
"""The same slip twice on one day is one debt paid twice, and no tie: the first by id is offered."""

FORGET_CLAIMED: Final = """
    DELETE FROM candidate
    WHERE pn IN (SELECT pn FROM found) OR rn IN (SELECT rn FROM found)
"""

TIES: Final = f"""
    INSERT INTO tie SELECT pn, rn, of FROM (
        SELECT pn, rn, TRUE AS of FROM ({_RANKED}) WHERE rank_p = 1 AND best_p > 1
        UNION ALL
        SELECT pn, rn, FALSE FROM ({_RANKED}) WHERE rank_r = 1 AND best_r > 1
    )
"""

INTERCHANGEABLE: Final = """
    WITH class AS (
        SELECT pn, rn, rule, score, why, p.d AS pd, p.id AS pid, r.d AS rd, r.id AS rid,
            coalesce('n' || r.cnss, 'c' || r.cin) AS person, r.a AS a
        FROM candidate JOIN p ON p.n = pn JOIN r ON r.n = rn WHERE p.a = r.a
    ), strays AS (
        SELECT pn AS stray FROM class GROUP BY pn HAVING count(DISTINCT (person, a)) > 1
    ), whole AS (
        SELECT person, a FROM class GROUP BY person, a
        HAVING count(DISTINCT pn) = count(DISTINCT rn)
            AND count(*) = count(DISTINCT pn) * count(DISTINCT rn)
            AND count(*) FILTER (pn IN (SELECT stray FROM strays)) = 0
    ), placed AS (
        SELECT class.*,
            dense_rank() OVER (PARTITION BY person, a ORDER BY pd, pid) AS ip,
            dense_rank() OVER (PARTITION BY person, a ORDER BY rd, rid) AS ir
        FROM class SEMI JOIN whole USING (person, a)
    )
    SELECT pn, rn, rule, score, why FROM placed WHERE ip = ir
"""
