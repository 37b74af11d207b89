"""The engine that matches in the worker's memory, on DuckDB: passes in order, claims, outcomes.

The passes are numbered as in `docs/matching.md`. Relations of references are `duck_relations`,
pairs and their evidence `duck_pairs`, sums `duck_sums`, several dues `duck_dues`, what is left
`duck_left`.
"""

from __future__ import annotations

from typing import Final

import duckdb

from reconciliation.engines import duck_dues as dues
from reconciliation.engines import duck_pairs as pairs
from reconciliation.engines import duck_sums as sums
from reconciliation.engines.duck_left import LEFT
from reconciliation.engines.duck_relations import RELATIONS
from reconciliation.matching import (
    ROUNDS,
    SCORE_OF_SEVERAL_DUES_BY_IDENTITY,
    SCORE_OF_SUMS_WITH_ATTACHED,
    SCORES,
    Rule,
    Terms,
)
from reconciliation.taken_back import Record, take_back

_MATCHED: Final = (
    "CREATE TABLE matched"
    " (g BIGINT, pn BIGINT, rn BIGINT, rule VARCHAR, score TINYINT, why VARCHAR)"
)

_OPEN: Final = "(n BIGINT, code VARCHAR, candidates BIGINT[], why VARCHAR)"
_SIDES: Final = (
    f"CREATE TABLE payment_open {_OPEN}",
    f"CREATE TABLE record_open {_OPEN}",
    "CREATE TEMP TABLE taken_back (n BIGINT, negative BIGINT)",
    "CREATE TEMP TABLE alone (n BIGINT)",
    "CREATE TEMP TABLE tie (pn BIGINT, rn BIGINT, is_of_payment BOOLEAN)",
    # What is free. `known`: the reference is one of the other side, free or not.
    "CREATE TEMP TABLE p AS SELECT *, FALSE AS is_doubted, k IS NOT NULL AND k IN"
    " (SELECT k FROM record_key WHERE k IS NOT NULL) AS known FROM payment_row",
    "CREATE TEMP TABLE r AS SELECT *, FALSE AS is_doubted, k IS NOT NULL AND k IN"
    " (SELECT k FROM payment_key WHERE k IS NOT NULL) AS known FROM record_row",
    "CREATE TEMP VIEW named AS SELECT k FROM p WHERE k IS NOT NULL"
    " UNION ALL SELECT unnest(ks) FROM p WHERE ks IS NOT NULL",
    "CREATE TEMP VIEW unnamed AS SELECT * FROM r WHERE k IS NULL OR k NOT IN (SELECT k FROM named)",
    "CREATE TEMP VIEW certain AS SELECT * FROM unnamed WHERE NOT is_doubted",
    "CREATE TEMP VIEW nameless AS SELECT * FROM p"
    " WHERE NOT known AND ks IS NULL AND NOT is_doubted",
)


def bulk(terms: Terms, shard: int) -> tuple[str, ...]:
    """Return what matches one shard: references that each side has once, close in amount."""
    part = f" AND k // 100 % {terms.shards} = {shard}" if terms.shards > 1 else ""
    mine = f"k IS NOT NULL{part}"
    return (
        f"CREATE OR REPLACE TEMP TABLE several AS SELECT k FROM payment_key WHERE {mine}"
        " GROUP BY k HAVING count(*) > 1 UNION ALL"
        f" SELECT k FROM record_key WHERE {mine} GROUP BY k HAVING count(*) > 1 OR min(a) < 0",
        f"""
        INSERT INTO matched
        SELECT p.n, p.n, r.n, {pairs.by_how("p.a = r.a", "p.how", "r.how")}, NULL
        FROM (SELECT * FROM payment_key WHERE {mine}) p
        JOIN (SELECT * FROM record_key WHERE {mine}) r USING (k)
        ANTI JOIN several USING (k)
        WHERE abs(p.a - r.a) <= {terms.tolerance_minor}
        """,
    )


class DuckEngine:
    """See `reconciliation.matching.Engine`. Works on the caller's connection."""

    def __init__(self, con: duckdb.DuckDBPyConnection, terms: Terms) -> None:
        self._con = con
        self._terms = terms

    def _do(self, *statements: str) -> None:
        for statement in statements:
            self._con.execute(statement)

    def _count(self, query: str) -> int:
        row = self._con.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    # -- pass 1 -----------------------------------------------------------------------------------

    def within_references(self) -> None:
        """Pair off what is alone of its reference on both sides; leave what is free."""
        self._do(_MATCHED)
        for shard in range(self._terms.shards):
            self._do(*bulk(self._terms, shard))
        self._do(
            "CREATE TABLE free_payment AS"
            " SELECT n FROM payment_key ANTI JOIN matched ON matched.pn = payment_key.n",
            "CREATE TABLE free_record AS"
            " SELECT n FROM record_key ANTI JOIN matched ON matched.rn = record_key.n",
        )

    # -- the others -------------------------------------------------------------------------------

    def rest(self) -> None:
        """Do passes 0 and 2 to 11 on the free rows, and say of the others why they are open."""
        self._do(*_SIDES, *pairs.MACROS)
        self._take_back()
        if self._count("SELECT least((SELECT count(*) FROM p), (SELECT count(*) FROM r))"):
            self._passes(self._terms.tolerance_minor)
        self._do(*LEFT)

    def _passes(self, tolerance: int) -> None:
        """Do passes 2 to 11. Those for which there is nothing are left out: planning one costs
        more than a look, and most runs are small."""
        if self._any("p SEMI JOIN r USING (k)"):
            for same in ("provref", "cnss", "cin", None):
                self._claim(sums.equal_amounts(same))
            self._claim(sums.one_and_one(tolerance))
            self._claim(sums.of_one_reference(tolerance, scores=(SCORES[Rule.INSTALMENTS],) * 2))
        if self._any("p SEMI JOIN r USING (provref)"):
            self._claim(pairs.provider_references(tolerance))
        if self._any("p WHERE ks IS NOT NULL"):
            self._claim(sums.references_in_text(tolerance))
        if self._any("p WHERE digits IS NOT NULL OR (k IS NOT NULL AND NOT known)") or self._any(
            "r WHERE digits IS NOT NULL"
        ):
            self._repair(tolerance)
        elif self._any("p SEMI JOIN r USING (k)"):
            self._sums_again(tolerance)
        self._several_dues(tolerance)
        if self._any("nameless") and self._any("r"):
            self._identity(tolerance)
            self._claim(sums.instalments_by_identity(tolerance))
        self._several_dues(tolerance)
        if dues.choose_dues(self._con, dues.OF_THE_PERSON, tolerance, besides=dues.UNANCHORED):
            self._claim(dues.chosen_dues(SCORE_OF_SEVERAL_DUES_BY_IDENTITY))

    def _any(self, rows: str) -> bool:
        return self._con.execute(f"SELECT 1 FROM {rows} LIMIT 1").fetchone() is not None

    def _claim(self, found: str) -> int:
        """Take the groups that a query finds (pn, rn, rule, score, why); return their lines."""
        self._do(f"CREATE OR REPLACE TEMP TABLE found AS {found}")
        lines = self._count("SELECT count(*) FROM found")
        if lines:
            self._do(
                """
                INSERT INTO matched
                SELECT first_value(pn) OVER (PARTITION BY rn ORDER BY p.id), pn, rn,
                    rule, score, why
                FROM found JOIN p ON p.n = pn
                """,
                "DELETE FROM p WHERE n IN (SELECT pn FROM found)",
                "DELETE FROM r WHERE n IN (SELECT rn FROM found)",
            )
        return lines

    def _take_back(self) -> None:
        rows = self._con.execute(
            "SELECT n, id, k, a, d, provref FROM r"
            " WHERE k IN (SELECT k FROM r WHERE a < 0 AND k IS NOT NULL)"
        ).fetchall()
        n_of = {id_: n for n, id_, *_ in rows}
        taken = [
            (n_of[pair.record.record_id], n_of[pair.negative.record_id])
            for pair in take_back(
                Record(id_, str(k), a, d, provider_reference=provref)
                for _, id_, k, a, d, provref in rows
            )
        ]
        if taken:
            self._con.execute(
                "INSERT INTO taken_back SELECT unnest($1::BIGINT[]), unnest($2::BIGINT[])",
                [list(numbers) for numbers in zip(*taken, strict=True)],
            )
        self._do(
            """
            INSERT INTO record_open
            SELECT n, 'taken_back', [negative], NULL FROM taken_back
            UNION ALL SELECT negative, 'taken_back', [n], NULL FROM taken_back
            """,
            "DELETE FROM r WHERE n IN (SELECT n FROM record_open)",
            # What takes back nothing is no payment's either.
            "INSERT INTO alone SELECT n FROM r WHERE a < 0",
            "DELETE FROM r WHERE a < 0",
        )

    def _repair(self, tolerance: int) -> None:
        self._do(*RELATIONS)
        self._best(pairs.plausible_relations(tolerance))
        self._do(pairs.ATTACH)
        self._sums_again(tolerance)
        self._claim(pairs.instalments_with_a_slip(tolerance))
        self._do(*pairs.settle_and_doubt(tolerance))

    def _sums_again(self, tolerance: int) -> None:
        self._claim(sums.of_one_reference(tolerance, scores=(SCORE_OF_SUMS_WITH_ATTACHED,) * 2))

    def _several_dues(self, tolerance: int) -> None:
        payers = dues.of_the_anchored(tolerance)
        if dues.choose_dues(self._con, payers, tolerance, besides=dues.ANCHORED):
            self._claim(dues.chosen_dues(SCORES[Rule.SEVERAL_DUES]))

    def _identity(self, tolerance: int) -> None:
        self._best(pairs.same_person(tolerance))
        self._claim(pairs.INTERCHANGEABLE)
        self._best(pairs.one_slip_of_a_person(tolerance))

    def _best(self, candidates: str) -> None:
        """Claim the mutual bests of the pairs of a query, and remember the ties that are left."""
        self._do(f"CREATE OR REPLACE TEMP TABLE candidate AS {candidates}")
        if not self._any("candidate"):
            return
        self._do(pairs.ONE_OF_ALIKE)
        for _ in range(ROUNDS):
            if not self._claim(pairs.MUTUAL_BEST):
                break
            self._do(pairs.FORGET_CLAIMED)
        self._do(pairs.TIES)
