"""The engine in plain SQL on PostgreSQL: what the engine in DuckDB is held against.

It is written from `docs/matching.md`, to be plainly right rather than fast.
"""

from __future__ import annotations

from typing import Final

from sqlmodel import Session

from reconciliation.engines.postgres_choosing import (
    choose_mutual_best,
    claim_wanted_once,
    find_several_dues_anchored,
    find_several_dues_by_identity,
    pair_interchangeable,
)
from reconciliation.engines.postgres_evidence import (
    PERSON,
    close,
    make_sharing,
    offered,
    relate,
    share_numbers,
)
from reconciliation.engines.postgres_left import leave_open
from reconciliation.engines.postgres_tables import NAMES_NO_RECORD, NOT_AGAINST, UNNAMED, Tables
from reconciliation.matching import (
    NAME_AGREES,
    NAME_DIFFERS,
    NAME_IN_PART,
    ONE_SLIP,
    SAME_PERSON,
    SCORE_OF_ONE_AMONG_SEVERAL_REFERENCES,
    SCORE_OF_SUMS_WITH_A_SLIP,
    SCORE_OF_SUMS_WITH_ATTACHED,
    SCORES,
    WINDOW_DAYS,
    Relation,
    Rule,
    Terms,
)
from reconciliation.taken_back import Record, take_back

# Of two rows of one reference with equal amounts: by how the reference was written.
_RULE_OF_EQUAL: Final = (
    f"CASE greatest(p.how, r.how) WHEN 0 THEN '{Rule.EXACT}'"
    f" WHEN 1 THEN '{Rule.NORMALISED_REFERENCE}' ELSE '{Rule.REFERENCE_IN_TEXT}' END"
)
_SCORE_OF_EQUAL: Final = (
    f"CASE greatest(p.how, r.how) WHEN 0 THEN {SCORES[Rule.EXACT]}"
    f" WHEN 1 THEN {SCORES[Rule.NORMALISED_REFERENCE]}"
    f" ELSE {SCORES[Rule.REFERENCE_IN_TEXT]} END"
)


class PostgresEngine:
    """Carries out the passes in a session's transaction, which the caller owns.

    The caller makes the tables it finds (`postgres_tables.make_given_tables`). All tables end with
    the transaction; so do the server's settings that are changed for it (`jit`, `work_mem`).
    """

    def __init__(self, session: Session, terms: Terms) -> None:
        self._session = session
        self._terms = terms
        self._tables = Tables(session, terms.tolerance_minor)

    def within_references(self) -> None:
        """Do the bulk pass, and leave `free_payment` and `free_record`."""
        tables = self._tables
        tables.make_results()
        for shard in range(self._terms.shards):
            self._match_alone_of_reference(shard)
        for side, matched in (("payment", "pn"), ("record", "rn")):
            tables.make(
                f"free_{side}",
                f"SELECT n FROM {side}_key"
                f" WHERE NOT EXISTS (SELECT FROM matched WHERE {matched} = n)",
            )

    def _match_alone_of_reference(self, shard: int) -> None:
        alone = f"""
            SELECT k, min(n) AS n, min(a) AS a, min(how) AS how FROM {{side}}_key
            WHERE k IS NOT NULL AND k % {self._terms.shards} = {shard}
            GROUP BY k HAVING count(*) = 1
        """
        self._tables.run(
            f"""
            INSERT INTO matched
            SELECT p.n, p.n, r.n,
                CASE WHEN p.a = r.a THEN {_RULE_OF_EQUAL} ELSE '{Rule.WITHIN_TOLERANCE}' END,
                CASE WHEN p.a = r.a THEN {_SCORE_OF_EQUAL}
                    ELSE {SCORES[Rule.WITHIN_TOLERANCE]} END, NULL, p.a
            FROM ({alone.format(side="payment")}) p JOIN ({alone.format(side="record")}) r USING (k)
            WHERE r.a >= 0 AND {close(self._tables.tol)}
            """
        )

    def rest(self) -> None:
        """Do all other passes on the rows that are left, from `payment_row` and `record_row`."""
        tables = self._tables
        tables.make_left()
        self._take_back()
        self._pair_equal_amounts()
        self._compare_sums()
        self._match_provider_reference()
        self._match_several_references()
        self._repair()
        self._attach()
        self._compare_sums(attached=True)
        self._compare_sums_with_slips()
        self._settle()
        self._doubt()
        find_several_dues_anchored(tables)
        self._match_identity()
        self._match_identity_with_slip()
        self._match_instalments_by_identity()
        find_several_dues_anchored(tables)
        find_several_dues_by_identity(tables)
        leave_open(tables)

    def _take_back(self) -> None:
        """Pass 0. After it, negative records are not among the free ones."""
        rows = self._tables.run(
            "SELECT n, id, k, a, d, provref FROM record_row"
            " WHERE k IN (SELECT k FROM record_row WHERE a < 0)"
        ).all()
        numbers = {id_: n for n, id_, *_ in rows}
        pairs = take_back(Record(id_, str(k), a, d, provref) for _, id_, k, a, d, provref in rows)
        if pairs:
            lines = ", ".join(
                f"({numbers[pair.record.record_id]}, {numbers[pair.negative.record_id]})"
                for pair in pairs
            )
            self._tables.run(f"INSERT INTO taken_back VALUES {lines}")
        self._tables.run("DELETE FROM left_record WHERE n IN (SELECT rn FROM taken_back)")

    # -- by reference -----------------------------------------------------------------------------

    def _pair_equal_amounts(self) -> None:
        """Pass 2, the first half: the i-th payment with the i-th record of what is equal."""
        for evidence in ("provref", "cnss", "cin", "tokens", "''"):
            self._tables.run(
                f"""
                INSERT INTO claim
                WITH p AS (
                    SELECT n, names AS k, a, how, {evidence} AS evidence, row_number() OVER (
                        PARTITION BY names, a, {evidence} ORDER BY d, id COLLATE "C") AS i
                    FROM left_payment WHERE names IS NOT NULL AND {evidence} IS NOT NULL
                ),
                r AS (
                    SELECT n, k, a, how, {evidence} AS evidence, row_number() OVER (
                        PARTITION BY k, a, {evidence} ORDER BY d, id COLLATE "C") AS i
                    FROM left_record WHERE k IS NOT NULL AND {evidence} IS NOT NULL
                )
                SELECT p.n, r.n, {_RULE_OF_EQUAL}, {_SCORE_OF_EQUAL}
                FROM p JOIN r USING (k, a, evidence, i)
                """
            )
            self._tables.take()

    def _compare_sums(self, *, attached: bool = False) -> None:
        """Pass 2, the second half, and again with the attached payments: what is left of a `k`."""
        self._tables.meet()
        rules = {
            Rule.WITHIN_TOLERANCE: "payments = 1 AND records = 1",
            Rule.INSTALMENTS: "payments > 1 AND records = 1",
            Rule.SEVERAL_RECORDS: "payments = 1 AND records > 1",
        }
        if attached:
            del rules[Rule.WITHIN_TOLERANCE]
        for rule, condition in rules.items():
            score = SCORE_OF_SUMS_WITH_ATTACHED if attached else SCORES[rule]
            self._tables.run(
                f"""
                INSERT INTO claim
                SELECT p.n, r.n, '{rule}', {score}
                FROM meeting m JOIN left_payment p ON p.names = m.k JOIN left_record r ON r.k = m.k
                WHERE {condition} AND abs(paid - posted) <= {self._tables.tol}
                """
            )
        self._tables.take()

    def _match_provider_reference(self) -> None:
        """Pass 3."""
        alone = (
            "SELECT provref, min(n) AS n FROM {table} WHERE provref IS NOT NULL"
            " GROUP BY provref HAVING count(*) = 1"
        )
        self._tables.run(
            f"""
            INSERT INTO claim
            SELECT p.n, r.n, '{Rule.PROVIDER_REFERENCE}', {SCORES[Rule.PROVIDER_REFERENCE]}
            FROM ({alone.format(table="left_payment")}) only_p
            JOIN ({alone.format(table="left_record")}) only_r USING (provref)
            JOIN left_payment p ON p.n = only_p.n JOIN left_record r ON r.n = only_r.n
            WHERE {close(self._tables.tol)} AND NOT coalesce(
                p.k <> r.k AND (EXISTS (SELECT FROM record_key WHERE record_key.k = p.k)
                    OR EXISTS (SELECT FROM payment_key WHERE payment_key.k = r.k)), false)
            """
        )
        self._tables.take()

    def _match_several_references(self) -> None:
        """Pass 4."""
        tables = self._tables
        tables.make(
            "among",
            f"""
            SELECT p.n AS pn, p.a AS sought, cardinality(p.ks) AS asked, named.k, r.n AS rn,
                r.a, {close(tables.tol)} AS close
            FROM left_payment p CROSS JOIN unnest(p.ks) AS named (k)
            JOIN left_record r ON r.k = named.k
            """,
        )
        # As many records as references, and of as many references: exactly one each.
        claim_wanted_once(
            tables,
            f"""
            WITH found AS (
                SELECT pn, count(*) = min(asked) AND count(DISTINCT k) = min(asked)
                    AND abs(sum(a) - min(sought)) <= {tables.tol} AS all_of_them,
                    count(*) FILTER (WHERE close) = 1 AS one_of_them
                FROM among GROUP BY pn
            )
            SELECT pn, rn, '{Rule.REFERENCES_IN_TEXT}', {SCORES[Rule.REFERENCES_IN_TEXT]}
            FROM among JOIN found USING (pn) WHERE all_of_them
            UNION ALL
            SELECT pn, rn, '{Rule.REFERENCE_IN_TEXT}', {SCORE_OF_ONE_AMONG_SEVERAL_REFERENCES}
            FROM among JOIN found USING (pn) WHERE NOT all_of_them AND one_of_them AND close
            """,
        )

    # -- repair -----------------------------------------------------------------------------------

    def _repair(self) -> None:
        """Pass 5."""
        tables = self._tables
        relate(tables)
        slip, same = f"'{Relation.SLIP}'", f"'{Relation.SAME_DIGITS}'"
        tables.make(
            "offered",
            offered(
                "related",
                tables.tol,
                f"""
                (p.k IS NULL OR p.unknown) AND {UNNAMED} AND CASE
                    WHEN c.of_unknown THEN person >= {SAME_PERSON}
                    WHEN c.relation IN ({slip}, {same}) THEN person >= 0
                    WHEN c.relation = '{Relation.PART}'
                        AND length(coalesce(p.digits, r.digits)) >= 8 THEN person >= 0
                    ELSE person >= 0 AND (person > 0 OR name >= {NAME_IN_PART})
                        AND days <= {WINDOW_DAYS}
                END
                """,
            ),
        )
        choose_mutual_best(
            tables,
            f"CASE WHEN relation IN ({slip}, {same}) THEN '{Rule.REPAIRED_REFERENCE}'"
            f" ELSE '{Rule.PART_OF_REFERENCE}' END",
            Rule.REPAIRED_REFERENCE,
        )

    def _attach(self) -> None:
        """Pass 6, a: whom a payment's slip surely belongs to, whatever the amounts."""
        tables = self._tables
        tables.make(
            "attached",
            f"""
            SELECT pn, min(k) AS k FROM (
                SELECT c.pn, r.k FROM related c
                JOIN left_payment p ON p.n = c.pn JOIN left_record r ON r.n = c.rn
                WHERE c.to_record AND {PERSON} >= {SAME_PERSON}
            ) pair GROUP BY pn HAVING count(*) = 1
            """,
        )
        self._take_as_naming("attached")

    def _compare_sums_with_slips(self) -> None:
        """Pass 6, c: payments that name a record, and others that are one slip from naming it."""
        tables = self._tables
        tables.make(
            "slipped",
            f"""
            SELECT c.pn, c.rn FROM related c
            JOIN left_payment p ON p.n = c.pn JOIN left_record r ON r.n = c.rn
            WHERE c.to_record AND p.names IS NULL AND {PERSON} >= 0 AND NOT EXISTS (
                SELECT FROM related other JOIN left_record ON left_record.n = other.rn
                WHERE other.to_record AND other.pn = c.pn AND other.rn <> c.rn
            )
            """,
        )
        tables.run(
            f"""
            INSERT INTO claim
            WITH line AS (
                SELECT pn, rn FROM slipped
                UNION ALL
                SELECT p.n, r.n FROM left_record r JOIN left_payment p ON p.names = r.k
                WHERE r.n IN (SELECT rn FROM slipped)
            ),
            chosen AS (
                SELECT rn FROM line
                JOIN left_payment p ON p.n = pn JOIN left_record r ON r.n = rn
                GROUP BY rn, r.a
                HAVING count(*) >= 2 AND abs(sum(p.a) - r.a) <= {tables.tol}
            )
            SELECT pn, rn, '{Rule.INSTALMENTS}', {SCORE_OF_SUMS_WITH_A_SLIP}
            FROM line JOIN chosen USING (rn)
            """
        )
        tables.take()

    def _settle(self) -> None:
        """Pass 6, d: slips of references of which all records are used up."""
        tables = self._tables
        tables.make(
            "settled",
            f"""
            SELECT p.n AS pn, min(r.k) AS k
            FROM left_payment p JOIN repairs USING (digits)
            JOIN record_key r ON r.k = CAST(made AS bigint)
            WHERE p.names IS NULL
                AND NOT EXISTS (SELECT FROM left_record free WHERE free.k = r.k)
            GROUP BY p.n HAVING count(DISTINCT r.k) = 1 AND bool_or({close(tables.tol)})
            """,
        )
        self._take_as_naming("settled")

    def _doubt(self) -> None:
        """Pass 6, e: rows that are one slip from a reference, and nothing said that they are it."""
        for side, other, without_k, of_those in (
            ("payment", "record", "names IS NULL", "k"),
            ("record", "payment", "k IS NULL", "names"),
        ):
            mine = f"""
                SELECT n, 'slip', made FROM left_{side} JOIN repairs USING (digits)
                WHERE {without_k}
            """
            theirs = f"""
                SELECT n, 'slip', CAST({of_those} AS text) FROM left_{other}
                WHERE {of_those} IS NOT NULL
            """
            if side == "payment":
                make_sharing(self._tables, mine, theirs)
                self._tables.run("INSERT INTO payment_tie SELECT pn, rn FROM sharing")
            else:
                make_sharing(self._tables, theirs, mine)
                self._tables.run("INSERT INTO record_tie SELECT rn, pn FROM sharing")
            self._tables.run(
                f"""
                UPDATE left_{side} mine SET in_doubt = true
                FROM repairs JOIN {other}_key ON {other}_key.k = CAST(made AS bigint)
                WHERE repairs.digits = mine.digits AND mine.{without_k}
                """
            )

    def _take_as_naming(self, attached: str) -> None:
        """From here on, these payments (pn) name these references (k)."""
        self._tables.run(
            f"UPDATE left_payment SET names = a.k FROM {attached} a WHERE left_payment.n = a.pn"
        )
        self._tables.run(f"INSERT INTO naming SELECT pn, k FROM {attached}")

    # -- by identity ------------------------------------------------------------------------------

    def _offer_by_identity(
        self, where: str, *, payments: str = "true", records: str = "true", less_one: bool = False
    ) -> str:
        """Return the pairs of such payments that name no record and records that nobody names."""
        tables = self._tables
        share_numbers(
            tables,
            f"{NAMES_NO_RECORD} AND {payments}",
            f"NOT r.in_doubt AND {UNNAMED} AND {records}",
            less_one=less_one,
        )
        tables.make(
            "near",
            "SELECT DISTINCT pn, rn, CAST(NULL AS text) AS relation, 0 AS points FROM sharing",
        )
        return offered(
            "near",
            tables.tol,
            f"{NOT_AGAINST} AND abs(p.d - r.d) <= {WINDOW_DAYS} AND {where}",
        )

    def _offer_a_slip_away(
        self, name: int, *, payments: str = "true", records: str = "true"
    ) -> str:
        return self._offer_by_identity(
            f"(p.cnss = r.cnss) IS NOT TRUE AND (p.cin = r.cin) IS NOT TRUE"
            f" AND person >= {ONE_SLIP} AND name >= {name}",
            payments=payments,
            records=records,
            less_one=True,
        )

    def _match_identity(self) -> None:
        """Pass 8."""
        self._tables.make("offered", self._offer_by_identity(f"person >= {SAME_PERSON}"))
        self._doubt_the_number()
        choose_mutual_best(self._tables, f"'{Rule.IDENTITY}'", Rule.IDENTITY)
        pair_interchangeable(self._tables)

    def _doubt_the_number(self) -> None:
        """Pass 8, before it chooses: whose one number is of another name, which is a slip away."""
        tables = self._tables
        tables.make(
            "suspect",
            f"SELECT pn, rn FROM offered WHERE person = {SAME_PERSON} AND name = {NAME_DIFFERS}",
        )
        tables.make(
            "meant_records",
            self._offer_a_slip_away(NAME_IN_PART, payments="p.n IN (SELECT pn FROM suspect)"),
        )
        tables.make(
            "meant_payments",
            self._offer_a_slip_away(NAME_IN_PART, records="r.n IN (SELECT rn FROM suspect)"),
        )
        for side, n, candidate, meant in (
            ("payment", "pn", "rn", "meant_records"),
            ("record", "rn", "pn", "meant_payments"),
        ):
            tables.run(
                f"""
                INSERT INTO {side}_tie
                SELECT {n}, {candidate} FROM {meant}
                UNION SELECT {n}, {candidate} FROM offered WHERE {n} IN (SELECT {n} FROM {meant})
                """
            )
            tables.run(
                f"UPDATE left_{side} SET in_doubt = true WHERE n IN (SELECT {n} FROM {meant})"
            )
        tables.run(
            "DELETE FROM offered WHERE pn IN (SELECT n FROM left_payment WHERE in_doubt)"
            " OR rn IN (SELECT n FROM left_record WHERE in_doubt)"
        )

    def _match_identity_with_slip(self) -> None:
        """Pass 9."""
        self._tables.make("offered", self._offer_a_slip_away(NAME_AGREES))
        choose_mutual_best(self._tables, f"'{Rule.IDENTITY_SLIP}'", Rule.IDENTITY_SLIP)

    def _match_instalments_by_identity(self) -> None:
        """Pass 10."""
        tables = self._tables
        whose = "coalesce('cnss ' || cnss, 'cin ' || cin)"
        tables.make(
            "only_one",
            f"SELECT min(n) AS rn FROM left_record WHERE {whose} IS NOT NULL"
            f" GROUP BY {whose} HAVING count(*) = 1",
        )
        share_numbers(tables, NAMES_NO_RECORD, "n IN (SELECT rn FROM only_one)")
        tables.make(
            "of_person",
            f"""
            SELECT DISTINCT pn, rn
            FROM sharing JOIN left_payment p ON p.n = pn JOIN left_record r ON r.n = rn
            WHERE (what = 'cnss' OR what = 'cin' AND (p.cnss IS NULL OR r.cnss IS NULL))
                AND {NOT_AGAINST} AND abs(p.d - r.d) <= {WINDOW_DAYS}
            """,
        )
        tables.run(
            f"""
            INSERT INTO claim
            WITH line AS (
                SELECT pn, rn, count(*) OVER (PARTITION BY pn) AS records FROM of_person
                UNION ALL
                SELECT p.n, r.n, 1 FROM left_record r JOIN left_payment p ON p.names = r.k
                WHERE r.n IN (SELECT rn FROM of_person)
            ),
            summing AS (
                SELECT rn FROM line
                JOIN left_payment p ON p.n = pn JOIN left_record r ON r.n = rn
                GROUP BY rn, r.a
                HAVING count(*) >= 2 AND max(records) = 1
                    AND abs(sum(p.a) - r.a) <= {tables.tol}
            ),
            wanted AS (
                SELECT pn, rn, count(*) OVER (PARTITION BY pn) AS times
                FROM line JOIN summing USING (rn)
            ),
            chosen AS (SELECT rn FROM wanted GROUP BY rn HAVING max(times) = 1)
            SELECT pn, rn, '{Rule.INSTALMENTS_BY_IDENTITY}',
                {SCORES[Rule.INSTALMENTS_BY_IDENTITY]}
            FROM line JOIN chosen USING (rn)
            """
        )
        tables.take()
