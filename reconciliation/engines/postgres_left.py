"""What the engine in PostgreSQL says of rows that are in no group."""

from __future__ import annotations

from typing import Final

from reconciliation.engines.postgres_evidence import make_sharing
from reconciliation.engines.postgres_tables import Tables
from reconciliation.matching import (
    CANDIDATES_MAX,
    SUGGESTED_DAYS,
    SUGGESTIONS_MAX,
    OpenCode,
)

_BY_ID: Final = (
    'trim_array(array_agg(c.n ORDER BY c.id COLLATE "C"),'
    f" greatest(CAST(count(*) AS integer) - {CANDIDATES_MAX}, 0))"
)


def leave_open(tables: Tables) -> None:
    """Fill `payment_open` and `record_open` with all that is in no group."""
    # Who names which free records, and who is tied with whom.
    tables.make(
        "named", "SELECT DISTINCT naming.pn, r.n AS rn FROM naming JOIN left_record r USING (k)"
    )
    for side, other in (("payment", "record"), ("record", "payment")):
        tables.make(
            f"tied_{side}",
            f"""
            SELECT tied.n, {_BY_ID} AS candidates FROM (
                SELECT DISTINCT t.n, c.n AS candidate FROM {side}_tie t
                JOIN left_{side} l ON l.n = t.n JOIN left_{other} c ON c.n = t.candidate
            ) tied JOIN left_{other} c ON c.n = candidate GROUP BY tied.n
            """,
        )
    _leave_naming(tables)
    _leave_records(tables)
    _leave_payments(tables)


def _leave_naming(tables: Tables) -> None:
    """Payments that have a tie or name free records, and the records that they name."""
    tables.run(
        f"INSERT INTO payment_open SELECT n, '{OpenCode.AMBIGUOUS_MATCH}', candidates"
        " FROM tied_payment"
    )
    tables.make(
        "differing",
        """
        SELECT pn FROM named JOIN left_payment p ON p.n = pn
        JOIN (SELECT rn, count(*) AS namers FROM named GROUP BY rn) of_record USING (rn)
        WHERE NOT EXISTS (SELECT FROM tied_payment t WHERE t.n = pn)
        GROUP BY pn, p.names HAVING (p.names IS NULL OR count(*) = 1) AND max(namers) = 1
        """,
    )
    tables.run(
        f"""
        INSERT INTO payment_open
        SELECT pn, CASE WHEN pn IN (SELECT d.pn FROM differing d) THEN '{OpenCode.AMOUNT_DIFFERS}'
            ELSE '{OpenCode.AMBIGUOUS_MATCH}' END, {_BY_ID}
        FROM named JOIN left_record c ON c.n = rn
        WHERE NOT EXISTS (SELECT FROM tied_payment t WHERE t.n = pn)
        GROUP BY pn
        """
    )
    tables.run(
        f"""
        INSERT INTO record_open
        SELECT rn, CASE WHEN min(pn) IN (SELECT d.pn FROM differing d)
            THEN '{OpenCode.AMOUNT_DIFFERS}' ELSE '{OpenCode.AMBIGUOUS_MATCH}' END, {_BY_ID}
        FROM named JOIN left_payment c ON c.n = pn
        GROUP BY rn
        """
    )


def _leave_records(tables: Tables) -> None:
    tables.run(
        f"""
        INSERT INTO record_open SELECT n, '{OpenCode.AMBIGUOUS_MATCH}', candidates
        FROM tied_record t WHERE NOT EXISTS (SELECT FROM record_open o WHERE o.n = t.n)
        """
    )
    tables.run(
        f"""
        INSERT INTO record_open
        SELECT rn, '{OpenCode.TAKEN_BACK}', ARRAY[by_rn] FROM taken_back
        UNION ALL
        SELECT by_rn, '{OpenCode.TAKEN_BACK}', ARRAY[rn] FROM taken_back
        """
    )
    tables.run(
        f"""
        INSERT INTO record_open SELECT n, '{OpenCode.RECORD_WITHOUT_PAYMENT}' FROM record_row r
        WHERE NOT EXISTS (SELECT FROM record_open o WHERE o.n = r.n)
            AND NOT EXISTS (SELECT FROM matched m WHERE m.rn = r.n)
        """
    )


def _leave_payments(tables: Tables) -> None:
    tables.run(
        f"""
        INSERT INTO payment_open SELECT n, '{OpenCode.PAID_TWICE}' FROM left_payment p
        WHERE NOT EXISTS (SELECT FROM payment_open o WHERE o.n = p.n)
            AND names IN (SELECT k FROM record_key JOIN matched ON rn = record_key.n)
        """
    )
    # The same words and the same amount; words have no spaces.
    thing = (
        "array_to_string(ARRAY("
        "SELECT word FROM unnest(tokens) word ORDER BY word COLLATE \"C\"), ' ') || ' ' || a"
    )
    make_sharing(
        tables,
        f"""
        SELECT n, 'name', {thing} FROM left_payment p WHERE cardinality(tokens) > 0
            AND NOT EXISTS (SELECT FROM payment_open o WHERE o.n = p.n)
        """,
        f"""
        SELECT n, 'name', {thing} FROM left_record JOIN record_open USING (n)
        WHERE cardinality(tokens) > 0 AND code = '{OpenCode.RECORD_WITHOUT_PAYMENT}'
        """,
    )
    tables.make(
        "suggested",
        f"""
        SELECT pn, {_BY_ID} AS candidates FROM (
            SELECT pn, r.n, r.id, row_number() OVER (
                PARTITION BY pn ORDER BY abs(p.d - r.d), r.id COLLATE "C") AS place
            FROM sharing JOIN left_payment p ON p.n = pn JOIN left_record r ON r.n = rn
            WHERE abs(p.d - r.d) <= {SUGGESTED_DAYS}
        ) c WHERE place <= {SUGGESTIONS_MAX} GROUP BY pn
        """,
    )
    tables.run(
        f"""
        INSERT INTO payment_open
        SELECT n, '{OpenCode.PAYMENT_WITHOUT_RECORD}', candidates
        FROM left_payment p LEFT JOIN suggested ON pn = n
        WHERE NOT EXISTS (SELECT FROM payment_open o WHERE o.n = p.n)
        """
    )
