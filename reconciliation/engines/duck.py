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
from reconciliation.engines.duck_relations import relations
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
    " (g BIGINT, pn BIGINT, rn BIGINT, rule VARCHAR, score TINYINT, why VARCHAR, a BIGINT)"
)

_FREE: Final = (
    "CREATE TABLE free_payment (n BIGINT)",
    "CREATE TABLE free_record (n BIGINT)",
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
    " (SELECT k FROM record_key SEMI JOIN payment_row USING (k)) AS known FROM payment_row",
    "CREATE TEMP TABLE r AS SELECT *, FALSE AS is_doubted, k IS NOT NULL AND k IN"
    " (SELECT k FROM payment_key SEMI JOIN record_row USING (k)) AS known FROM record_row",
    "CREATE TEMP VIEW named AS SELECT k FROM p WHERE k IS NOT NULL"
    " UNION ALL SELECT unnest(ks) FROM p WHERE ks IS NOT NULL",
    "CREATE TEMP VIEW unnamed AS SELECT * FROM r WHERE k IS NULL OR k NOT IN (SELECT k FROM named)",
    "CREATE TEMP VIEW certain AS SELECT * FROM unnamed WHERE NOT is_doubted",
    "CREATE TEMP VIEW nameless AS SELECT * FROM p"
    " WHERE NOT known AND ks IS NULL AND NOT is_doubted",
)


_CROWDED: Final = "CREATE OR REPLACE TEMP TABLE crowded AS " + " INTERSECT ".join(
    f"SELECT k FROM {side}_key WHERE {{}} GROUP BY k HAVING count(*) > 1"
    for side in ("payment", "record")
)
"""What both sides have several times, which joined would make a pair of every two."""


def _met(terms: Terms, part: str, most: int) -> str:
    """Return what joins both sides by reference, and keeps what meets nothing; `most` rows of it.

    A negative record is close to no payment if it is alone of its reference; else nobody is alone.
    """
    return f"""
        CREATE OR REPLACE TEMP TABLE met AS
        SELECT p.n AS pn, r.n AS rn, k, p.a, greatest(p.how, r.how) AS how, p.a = r.a AS is_equal,
            abs(p.a - r.a) <= {terms.tolerance_minor} AND r.a >= 0 AS is_close
        FROM (FROM payment_key ANTI JOIN crowded USING (k) WHERE {part}) p
        FULL JOIN (FROM record_key ANTI JOIN crowded USING (k) WHERE {part}) r USING (k)
        LIMIT {most}
    """


def _alone(part: str) -> tuple[str, ...]:
    """Return what matches what is alone of its reference and close; all the rest is free."""
    return (
        "CREATE OR REPLACE TEMP TABLE several AS SELECT k FROM met"
        " WHERE pn IS NOT NULL AND rn IS NOT NULL GROUP BY k HAVING count(*) > 1",
        f"""
        INSERT INTO matched
        SELECT pn, pn, rn, {pairs.by_how("is_equal", "how", "how")}, NULL, a
        FROM met ANTI JOIN several USING (k) WHERE is_close
        """,
        *(
            f"""
            INSERT INTO free_{side}
            SELECT DISTINCT {n} FROM met WHERE {n} IS NOT NULL
                AND (is_close IS NOT TRUE OR k IN (FROM several))
            UNION ALL
            SELECT n FROM {side}_key SEMI JOIN crowded USING (k) WHERE {part}
            """
            for side, n in (("payment", "pn"), ("record", "rn"))
        ),
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
        """Return the one number of a query, or of what makes a table its rows."""
        row = self._con.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    # -- pass 1 -----------------------------------------------------------------------------------

    def within_references(self) -> None:
        """Pair off what is alone of its reference on both sides; leave what is free."""
        self._do(_MATCHED, *_FREE)
        for shard in range(self._terms.shards):
            self._bulk(shard)
        self._do("DROP TABLE met; DROP TABLE several; DROP TABLE crowded")

    def _bulk(self, shard: int) -> None:
        """Match one shard. Few ledgers are crowded, so that is seen by what a join comes to."""
        shards = self._terms.shards
        part = f"coalesce(k, 0) // 100 % {shards} = {shard}" if shards > 1 else "TRUE"
        most = 2 * self._count(
            "SELECT (SELECT count(*) FROM payment_key) + (SELECT count(*) FROM record_key)"
        )
        self._do("CREATE OR REPLACE TEMP TABLE crowded (k BIGINT)")
        if self._count(_met(self._terms, part, most + 1)) > most:
            self._do(_CROWDED.format(part, part))
            self._do(_met(self._terms, part, most))
        self._do(*_alone(part))

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
            for same in ("provref", "cnss", "cin", "tokens", None):
                self._claim(sums.equal_amounts(same))
            self._claim(sums.one_and_one(tolerance))
            self._sums(tolerance, SCORES[Rule.INSTALMENTS])
        if self._any("p SEMI JOIN r USING (provref)"):
            self._claim(pairs.provider_references(tolerance))
        if self._any("p WHERE ks IS NOT NULL"):
            self._claim(sums.references_in_text(tolerance))
        if self._any("p WHERE digits IS NOT NULL OR (k IS NOT NULL AND NOT known)") or self._any(
            "r WHERE digits IS NOT NULL"
        ):
            self._repair(tolerance)
        elif self._any("p SEMI JOIN r USING (k)"):
            self._sums(tolerance, SCORE_OF_SUMS_WITH_ATTACHED)
        self._several_dues(tolerance)
        if self._any("nameless") and self._any("r"):
            self._identity(tolerance)
            self._claim(sums.instalments_by_identity(tolerance), of_several=True)
        self._several_dues(tolerance)
        if dues.choose_dues(self._con, dues.OF_THE_PERSON, tolerance, besides=dues.UNANCHORED):
            self._claim(dues.chosen_dues(SCORE_OF_SEVERAL_DUES_BY_IDENTITY))

    def _any(self, rows: str) -> bool:
        return self._con.execute(f"SELECT 1 FROM {rows} LIMIT 1").fetchone() is not None

    def _claim(self, found: str, *, of_several: bool = False) -> int:
        """Take the groups that a query finds (pn, rn, rule, score, why); return their lines.

        `of_several`: a record may be several payments'; else its group is named by the only one.
        """
        lines = self._count(f"CREATE OR REPLACE TEMP TABLE found AS {found}")
        if lines:
            first = "first_value(pn) OVER (PARTITION BY rn ORDER BY p.id)" if of_several else "pn"
            self._do(
                f"INSERT INTO matched SELECT {first}, pn, rn, rule, score, why, a"
                " FROM found JOIN p ON p.n = pn",
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
        given = (self._any(f"{side} WHERE digits IS NOT NULL") for side in ("p", "r"))
        self._do(*relations(*given))
        self._best(pairs.plausible_relations(tolerance))
        self._do(pairs.ATTACH)
        self._sums(tolerance, SCORE_OF_SUMS_WITH_ATTACHED)
        self._claim(pairs.instalments_with_a_slip(tolerance), of_several=True)
        self._do(*pairs.settle_and_doubt(tolerance))

    def _sums(self, tolerance: int, score: int) -> None:
        self._claim(sums.of_one_reference(tolerance, scores=(score, score)), of_several=True)

    def _several_dues(self, tolerance: int) -> None:
        payers = dues.of_the_anchored(tolerance)
        if dues.choose_dues(self._con, payers, tolerance, besides=dues.ANCHORED):
            self._claim(dues.chosen_dues(SCORES[Rule.SEVERAL_DUES]))

    def _identity(self, tolerance: int) -> None:
        self._offer(pairs.same_person(tolerance))
        self._do(pairs.SUSPECT)
        if self._any("suspect"):
            self._do(*pairs.doubt_the_number(tolerance))
        self._choose()
        self._claim(pairs.INTERCHANGEABLE)
        self._best(pairs.one_slip_of_a_person(tolerance))

    def _best(self, candidates: str) -> None:
        """Claim the mutual bests of the pairs of a query, and remember the ties that are left."""
        self._offer(candidates)
        self._choose()

    def _offer(self, candidates: str) -> None:
        self._do(f"CREATE OR REPLACE TEMP TABLE candidate AS {candidates}")

    def _choose(self) -> None:
        if not self._any("candidate"):
            return
        self._do(pairs.ONE_OF_ALIKE)
        for _ in range(ROUNDS):
            if not self._claim(pairs.MUTUAL_BEST):
                break
            self._do(pairs.FORGET_CLAIMED)
        self._do(pairs.TIES)
