"""What speaks for a pair, and which pairs are looked at, as SQL.

In every expression `p` is a payment and `r` a record.
"""

from __future__ import annotations

from typing import Final

from reconciliation import matching
from reconciliation.engines.postgres_tables import Tables
from reconciliation.matching import PAIRS_OF_ONE_MAX, RELATION_POINTS, Relation

# -- points ---------------------------------------------------------------------------------------

# A character wrong, missing or too many, or two neighbours swapped: at one place i the two texts
# part, and behind it they are the same again.
_ONE_SLIP: Final = """
    abs(length({a}) - length({b})) <= 1 AND EXISTS (
        SELECT FROM generate_series(1, greatest(length({a}), length({b}))) i
        WHERE left({a}, i - 1) = left({b}, i - 1) AND CASE length({a}) - length({b})
            WHEN 0 THEN substr({a}, i + 1) = substr({b}, i + 1)
                OR reverse(substr({a}, i, 2)) || substr({a}, i + 2) = substr({b}, i)
            WHEN 1 THEN substr({a}, i + 1) = substr({b}, i)
            ELSE substr({a}, i) = substr({b}, i + 1)
        END
    )
"""


def _same_person(column: str) -> str:
    a, b = f"p.{column}", f"r.{column}"
    return f"""
        CASE WHEN {a} IS NULL OR {b} IS NULL THEN 0
            WHEN {a} = {b} THEN {matching.SAME_PERSON}
            WHEN {_ONE_SLIP.format(a=a, b=b)} THEN {matching.ONE_SLIP}
            ELSE {matching.OTHER_PERSON} END
    """


PERSON: Final = f"({_same_person('cnss')} + {_same_person('cin')})"

_WORDS_AGREE: Final = """(
    short = long
    OR length(short) = 1 AND starts_with(long, short)
    OR length(long) = 1 AND starts_with(short, long)
    OR least(length(short), length(long)) >= 2 AND left(short, 1) = left(long, 1) AND EXISTS (
        SELECT FROM generate_series(2, greatest(length(short), length(long))) i
        WHERE left(short, i - 1) || substr(short, i + 1) = long
            OR left(long, i - 1) || substr(long, i + 1) = short
    )
)"""

# A word may stand in a name twice, and counts twice: i and j are places.
NAME: Final = f"""
    CASE WHEN coalesce(cardinality(p.tokens), 0) = 0 OR coalesce(cardinality(r.tokens), 0) = 0
        THEN 0
    ELSE (
        WITH agreeing AS (
            SELECT i, j, length(short) > 1 AND length(long) > 1 AS in_full
            FROM unnest(CASE WHEN cardinality(p.tokens) <= cardinality(r.tokens)
                    THEN p.tokens ELSE r.tokens END) WITH ORDINALITY AS s (short, i)
                CROSS JOIN unnest(CASE WHEN cardinality(p.tokens) <= cardinality(r.tokens)
                    THEN r.tokens ELSE p.tokens END) WITH ORDINALITY AS l (long, j)
            WHERE {_WORDS_AGREE}
        )
        SELECT CASE WHEN count(DISTINCT i) = least(cardinality(p.tokens), cardinality(r.tokens))
                AND count(DISTINCT j) >= least(cardinality(p.tokens), cardinality(r.tokens))
                AND count(DISTINCT i) >= 2 THEN {matching.NAME_AGREES}
            WHEN bool_or(in_full) THEN {matching.NAME_IN_PART}
            ELSE {matching.NAME_DIFFERS} END
        FROM agreeing
    ) END
"""

_DAYS_POINTS: Final = " ".join(
    f"WHEN days <= {most} THEN {points}" for most, points in matching.DAYS_POINTS
)


def close(tol: int) -> str:
    """The amounts are equal or within the tolerance (centimes)."""
    return f"abs(p.a - r.a) <= {tol}"


def offered(pairs: str, tol: int, where: str) -> str:
    """Return the query of the pairs that are close and satisfy a condition, with their evidence.

    Args:
        pairs: A table of pn, rn, relation, points, of_unknown.
        tol: Centimes.
        where: Of p, r, the pair `c` and its evidence `e` (person, name, days).
    """
    return f"""
        SELECT pn, rn, relation, person, name, amount, days,
            points + person + name + amount + CASE {_DAYS_POINTS} ELSE 0 END AS strength
        FROM {pairs} c JOIN left_payment p ON p.n = c.pn JOIN left_record r ON r.n = c.rn
        CROSS JOIN LATERAL (
            SELECT {PERSON} AS person, {NAME} AS name, abs(p.d - r.d) AS days,
                CASE WHEN p.a = r.a THEN {matching.AMOUNT_EQUAL}
                    ELSE {matching.AMOUNT_CLOSE} END AS amount
            OFFSET 0
        ) e
        WHERE {close(tol)} AND {where}
    """


# -- what two rows share --------------------------------------------------------------------------


def make_sharing(tables: Tables, payments: str, records: str) -> None:
    """Make `sharing` of the pairs (pn, rn, what) that share a thing.

    A thing that so many rows share that they would be more than `PAIRS_OF_ONE_MAX` pairs offers
    none.

    Args:
        tables: Where.
        payments: A query of n, what, thing.
        records: The same of records.
    """
    for name, rows in (("of_payment", payments), ("of_record", records)):
        tables.make(name, f"SELECT DISTINCT * FROM ({rows}) AS s (n, what, thing)")
    tables.make(
        "few",
        f"""
        SELECT what, thing
        FROM (SELECT what, thing, count(*) AS p FROM of_payment GROUP BY what, thing) payments
        JOIN (SELECT what, thing, count(*) AS r FROM of_record GROUP BY what, thing) records
            USING (what, thing)
        WHERE p * r <= {PAIRS_OF_ONE_MAX}
        """,
    )
    tables.make(
        "sharing",
        """
        SELECT DISTINCT of_payment.n AS pn, of_record.n AS rn, what
        FROM few JOIN of_payment USING (what, thing) JOIN of_record USING (what, thing)
        """,
    )


# -- relations of a text that does not verify to a reference ---------------------------------------

_A_DIGIT: Final = "unnest(string_to_array('0,1,2,3,4,5,6,7,8,9', ',')) x"

# What one slip can have made of a reference, undone: from a table digits (digits).
_GROUPS_IN_ANOTHER_ORDER: Final = """
    SELECT digits, substr(digits, 4 * one + 1, 4) || substr(digits, 4 * two + 1, 4)
        || substr(digits, 4 * three + 1, 4)
    FROM digits, (VALUES (0, 2, 1), (1, 0, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1))
        AS in_order (one, two, three)
    WHERE length(digits) = 12
"""
_ANY_SLIP: Final = f"""
    SELECT digits, overlay(digits PLACING x FROM i FOR 1)
    FROM digits, generate_series(1, 12) i, {_A_DIGIT} WHERE length(digits) = 12
    UNION ALL
    SELECT digits, overlay(digits PLACING reverse(substr(digits, i, 2)) FROM i FOR 2)
    FROM digits, generate_series(1, 11) i WHERE length(digits) = 12
    UNION ALL
    SELECT digits, overlay(digits PLACING reverse(substr(digits, i, 3)) FROM i FOR 3)
    FROM digits, generate_series(1, 10) i WHERE length(digits) = 12
    UNION ALL
    SELECT digits, overlay(digits PLACING x || x FROM i FOR 2)
    FROM digits, generate_series(1, 11) i, {_A_DIGIT}
    WHERE length(digits) = 12 AND substr(digits, i, 1) = substr(digits, i + 1, 1)
    UNION ALL
    SELECT digits, overlay(digits PLACING x || substr(digits, i + 1, 1) || x FROM i FOR 3)
    FROM digits, generate_series(1, 10) i, {_A_DIGIT}
    WHERE length(digits) = 12 AND substr(digits, i, 1) = substr(digits, i + 2, 1)
    UNION ALL
    SELECT digits, overlay(digits PLACING substr(digits, i + 1, 1) || '0' FROM i FOR 2)
    FROM digits, generate_series(1, 11) i
    WHERE length(digits) = 12 AND substr(digits, i, 2) BETWEEN '12' AND '19'
    UNION ALL
    SELECT digits, overlay(digits PLACING '1' || substr(digits, i, 1) FROM i FOR 2)
    FROM digits, generate_series(1, 11) i
    WHERE length(digits) = 12 AND substr(digits, i, 1) >= '2' AND substr(digits, i + 1, 1) = '0'
    UNION ALL
    {_GROUPS_IN_ANOTHER_ORDER}
    UNION ALL
    SELECT digits, left(digits, i - 1) || x || substr(digits, i)
    FROM digits, generate_series(1, 12) i, {_A_DIGIT} WHERE length(digits) = 11
    UNION ALL
    SELECT digits, left(digits, i - 1) || substr(digits, i + 1)
    FROM digits, generate_series(1, 13) i WHERE length(digits) = 13
"""


def _undone(slips: str) -> str:
    # They are compared with references, which verify; asking it here keeps one in ninety-seven.
    return f"""
        SELECT DISTINCT digits, made FROM ({slips}) AS slip (digits, made)
        WHERE CAST(made AS bigint) % 97 = 1 AND left(made, 1) <> '0'
    """


_REPAIRS: Final = f"""
    WITH digits AS (
        SELECT digits FROM left_payment WHERE digits IS NOT NULL
        UNION SELECT digits FROM left_record WHERE digits IS NOT NULL
    )
    {_undone(_ANY_SLIP)}
"""
"""digits, made: the references of which one slip could have made these digits."""

_REGROUPED: Final = f"""
    WITH digits AS (SELECT DISTINCT CAST(k AS text) AS digits FROM left_payment WHERE unknown)
    {_undone(_GROUPS_IN_ANOTHER_ORDER)}
"""
"""digits, made: the same of unknown references of payments, group slips only."""

_PAYMENTS: Final = "(SELECT n, digits, CAST(k AS text) AS k, unknown FROM left_payment) row"
_RECORDS: Final = "(SELECT n, digits, CAST(k AS text) AS k, true AS unknown FROM left_record) row"


def _of_digits(rows: str, side: str) -> str:
    """Return what rows with digits have to share with rows of the other side.

    `repairs` has to be there. `side` keeps what payments offer apart from what records do.
    """
    return f"""
        SELECT n, '{side} slip', made FROM {rows} JOIN repairs USING (digits)
        UNION ALL
        SELECT n, '{side} part', digits FROM {rows} WHERE length(digits) BETWEEN 6 AND 11
        UNION ALL
        SELECT n, '{side} half', 'first ' || left(digits, 6) FROM {rows} WHERE length(digits) = 12
        UNION ALL
        SELECT n, '{side} half', 'last ' || right(digits, 6) FROM {rows} WHERE length(digits) = 12
    """


def _of_references(rows: str, side: str) -> str:
    """Return what rows with a reference have to share with digits of the other side."""
    return f"""
        SELECT n, '{side} slip', k FROM {rows} WHERE unknown AND k IS NOT NULL
        UNION ALL
        SELECT n, '{side} part', left(k, long) FROM {rows}, generate_series(6, 11) long
        WHERE unknown AND k IS NOT NULL
        UNION ALL
        SELECT n, '{side} part', right(k, long) FROM {rows}, generate_series(6, 11) long
        WHERE unknown AND k IS NOT NULL
        UNION ALL
        SELECT n, '{side} half', 'first ' || left(k, 6) FROM {rows}
        WHERE unknown AND k IS NOT NULL
        UNION ALL
        SELECT n, '{side} half', 'last ' || right(k, 6) FROM {rows}
        WHERE unknown AND k IS NOT NULL
    """


_RELATED: Final = f"""
    SELECT DISTINCT ON (pn, rn) pn, rn, what = 'regrouped' AS of_unknown,
        what = 'payment slip' AS to_record, relation, points
    FROM sharing JOIN left_payment p ON p.n = pn JOIN left_record r ON r.n = rn
    CROSS JOIN LATERAL (
        SELECT CASE WHEN what = 'same' THEN '{Relation.SAME_DIGITS}'
            WHEN what LIKE '%part' THEN '{Relation.PART}'
            WHEN what LIKE '%half' THEN '{Relation.HALF}' ELSE '{Relation.SLIP}' END AS relation,
        CASE WHEN what = 'same' THEN {RELATION_POINTS["same_digits"]}
            WHEN what LIKE '%half' THEN {RELATION_POINTS["half"]}
            WHEN what NOT LIKE '%part' THEN {RELATION_POINTS["slip"]}
            WHEN length(coalesce(p.digits, r.digits)) >= 10 THEN {RELATION_POINTS["part10"]}
            WHEN length(coalesce(p.digits, r.digits)) >= 8 THEN {RELATION_POINTS["part8"]}
            ELSE {RELATION_POINTS["part6"]} END AS points
    ) strength
    ORDER BY pn, rn, points DESC
"""


def relate(tables: Tables) -> None:
    """Make `related`: the pairs whose texts are related.

    pn, rn, relation, points of the strongest relation; of_unknown: a group slip of an unknown
    reference of the payment; to_record: a slip from the payment's digits to the record's reference.
    Leaves `repairs`, too: digits, and the references (made) of which one slip could have made them.
    """
    tables.make("repairs", _REPAIRS)
    tables.make("regrouped", _REGROUPED)
    make_sharing(
        tables,
        f"""
        {_of_digits(_PAYMENTS, "payment")}
        UNION ALL
        {_of_references(_PAYMENTS, "record")}
        UNION ALL
        SELECT n, 'regrouped', made FROM left_payment JOIN regrouped g ON g.digits = CAST(k AS text)
        WHERE unknown
        UNION ALL
        SELECT min(n), 'same', digits FROM left_payment WHERE digits IS NOT NULL
        GROUP BY digits HAVING count(*) = 1
        """,
        f"""
        {_of_references(_RECORDS, "payment")}
        UNION ALL
        {_of_digits(_RECORDS, "record")}
        UNION ALL
        SELECT n, 'regrouped', CAST(k AS text) FROM left_record WHERE k IS NOT NULL
        UNION ALL
        SELECT min(n), 'same', digits FROM left_record WHERE digits IS NOT NULL
        GROUP BY digits HAVING count(*) = 1
        """,
    )
    tables.make("related", _RELATED)


def share_numbers(
    tables: Tables, of_payments: str, of_records: str, *, less_one: bool = False
) -> None:
    """Make `sharing` of the pairs with an equal CNSS number (`cnss`) or card (`cin`).

    Args:
        tables: Where.
        of_payments: Which free payments, a condition on p.
        of_records: Which free records, a condition on r.
        less_one: Those instead that are equal when a side, or both, is less one character.
    """

    def numbers(rows: str, where: str) -> str:
        whole = " UNION ALL ".join(
            f"SELECT n, '{number}' AS what, {number} AS thing FROM {rows}"
            f" WHERE {where} AND {number} IS NOT NULL"
            for number in ("cnss", "cin")
        )
        if not less_one:
            return whole
        return f"""
            SELECT * FROM ({whole}) number
            UNION ALL
            SELECT n, what, left(thing, i - 1) || substr(thing, i + 1)
            FROM ({whole}) number, generate_series(1, length(thing)) i
        """

    make_sharing(
        tables,
        numbers("left_payment p", of_payments),
        numbers("left_record r", of_records),
    )
