"""The engine on ledgers of another hand: how much it finds, and that what it finds is right."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import duckdb
import pytest

from reconciliation.engines.duck import DuckEngine
from reconciliation.matching import Terms
from reconciliation.reading_tables import read_keys, read_rows
from tests.reconciliation import ledgers
from tests.reconciliation.ledger_maker import Mix
from tests.reconciliation.ledger_rows import Ledger, Verdict, judge

RECORDS = 2_500

# The least share that is found of what has a partner, by where the trouble comes from. What is
# missed fits two partners equally, or names nobody: neither is guessed.
LEAST = {"exact": 0.999, "identity": 0.9, "instalments": 0.85, "months": 0.85, "both": 0.9}
LEAST_OF_OTHERS = 0.94


def verdict_of(ledger: Ledger, folder: Path) -> Verdict:
    ledger.write(folder)
    with duckdb.connect() as con:
        for side, day in (("payment", "paid_on"), ("record", "posted_on")):
            con.execute(
                f"CREATE TABLE raw_{side} AS SELECT row_number() OVER () AS n, {side}_id AS id,"
                " reference, cnss_number, cin, name, (amount::DECIMAL(12, 2) * 100)::BIGINT AS a,"
                f" {day}::DATE AS d, provider_reference"
                f" FROM read_csv('{folder / f'{side}s.csv'}', all_varchar = true)"
            )
        read_keys(con, "payment")
        read_keys(con, "record")
        engine = DuckEngine(con, Terms())
        engine.within_references()
        read_rows(con, "payment")
        read_rows(con, "record")
        engine.rest()
        lines = con.execute(
            "SELECT g::VARCHAR, p.id, r.id FROM matched"
            " JOIN raw_payment p ON p.n = pn JOIN raw_record r ON r.n = rn"
        ).fetchall()
        for side, n in (("payment", "pn"), ("record", "rn")):
            ends = con.execute(
                f"SELECT n FROM {side}_open UNION ALL SELECT DISTINCT {n} FROM matched"
            ).fetchall()
            given = con.execute(f"SELECT n FROM raw_{side}").fetchall()
            assert sorted(ends) == sorted(given), f"each {side} ends in one place"
    return judge(ledger, lines)


@pytest.mark.parametrize(
    ("mix", "seed"), [("heavy", 11), ("flat_heavy", 12), ("nobody", 13), ("sequence", 14)]
)
def test_what_other_hands_wrote_is_matched_rightly(mix: str, seed: int, tmp_path: Path) -> None:
    verdict = verdict_of(ledgers.make(mix, RECORDS, seed), tmp_path)
    told = ledgers.told(verdict)

    assert verdict.doubles == 0, told
    assert verdict.uneven == 0, told
    assert verdict.total.precision >= 0.9995, told
    assert verdict.total.recall >= 0.99, told
    owed, kept = Counter[str](), Counter[str]()
    for kind, tally in verdict.kinds.items():
        owed[kind.partition(":")[0]] += tally.owed
        kept[kind.partition(":")[0]] += tally.kept
    for family, number in owed.items():
        least = LEAST.get(family, LEAST_OF_OTHERS)
        assert kept[family] >= min(least * number, number - 2), f"{family}\n{told}"


# What must never be matched, many times, on few names and one amount.
TRAPS = Mix(
    defects=0.5,
    weights=(("", 0), ("open:", 1), ("twice:", 1), ("both:filler", 1), ("identity:name_only", 1)),
    flat_minor=30_000,
    one_day=True,
    names=4,
)


def test_what_nothing_proves_stays_open(tmp_path: Path) -> None:
    verdict = verdict_of(ledgers.make(TRAPS, RECORDS, 15), tmp_path)
    told = ledgers.told(verdict)

    # A payer who says only who he is may get another of his own unpaid months: half the debts
    # here are unpaid.
    fair = {"open:stranger_no_reference", "open:other_month", "twice:without_reference"}
    # Of two brothers with neighbouring cards and one initial, where only the other's due is left.
    brothers = verdict.kinds.pop("open:brother")
    assert len(brothers.wrong) <= 5, told
    for kind, tally in verdict.kinds.items():
        assert kind in fair or tally.wrong == [], told
    assert verdict.kinds["exact"].recall == 1, told


def test_a_ledger_comes_again() -> None:
    one, again = (ledgers.make("heavy", 200, 3) for _ in range(2))
    other = ledgers.make("heavy", 200, 4)

    assert (one.payments, one.records) == (again.payments, again.records)
    assert one.payments != other.payments
