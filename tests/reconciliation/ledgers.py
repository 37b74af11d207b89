"""Two ledgers that should agree, with the truth about how they do not. Nothing of the product.

    python -m tests.reconciliation.ledgers --mix heavy --records 100000 --seed 1 --out DIR
    python -m tests.reconciliation.ledgers --mix heavy --records 100000 --seed 1 --judge MATCHES.csv

What is right is decided for the payer and for the institution's finance: a tie is not guessed, and
name, amount and day alone make no match. `truth.csv` has one line for each payment:
`payment_id,kind,record_ids,what,expect`.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Final

from tests.reconciliation import ledger_sums  # noqa: F401 - adds its kinds
from tests.reconciliation.ledger_kinds import KINDS
from tests.reconciliation.ledger_maker import Maker, Mix
from tests.reconciliation.ledger_rows import Ledger, Verdict, judge

MIXES: Final = {
    "field": Mix(),
    "heavy": Mix(defects=0.2),
    "flat": Mix(flat_minor=30_000, one_day=True),
    "flat_heavy": Mix(defects=0.2, flat_minor=30_000, one_day=True, names=12),
    "nobody": Mix(defects=0.1, cnss_number=0.1, cin=0.15, name=0.6, as_heard=0.3),
    "clerk": Mix(defects=0.12, weights=(("", 0.2), ("clerk:", 3), ("both:", 2)), bare_records=0.3),
    "names": Mix(
        defects=0.12, weights=(("", 0.3), ("identity:", 3), ("open:brother", 3)), names=10
    ),
    "namesakes": Mix(defects=0.12, flat_minor=30_000, one_day=True, names=2, as_heard=0.3),
    "sums": Mix(
        defects=0.12,
        weights=(("", 0.3), ("instalments:", 4), ("months:", 4), ("household:", 4), ("twice:", 4)),
    ),
    "sequence": Mix(
        defects=0.1, weights=(("", 0.3), ("payer:", 3), ("clerk:", 3)), sequential=True
    ),
    "slips": Mix(
        defects=0.15, weights=(("", 0), ("payer:", 2), ("clerk:", 1), ("late:", 1), ("open:", 0.2))
    ),
}


def make(mix: str | Mix, count: int, seed: int) -> Ledger:
    return Maker(MIXES[mix] if isinstance(mix, str) else mix, count, seed).make(KINDS)


def told(verdict: Verdict, *, examples: int = 3) -> str:
    lines = [f"{'kind':32} {'owed':>7} {'matched':>7} {'precision':>9} {'recall':>8}"]
    total = verdict.total
    for what, tally in [*sorted(verdict.kinds.items()), ("all", total)]:
        line = f"{what:32} {tally.owed:7} {tally.matched:7} {tally.precision:9.5f}"
        line += f" {tally.recall:8.5f}"
        if what != "all" and tally.wrong:
            line += f"  wrong {len(tally.wrong)}: {' '.join(tally.wrong[:examples])}"
        if what != "all" and tally.missed:
            line += f"  missed {len(tally.missed)}: {' '.join(tally.missed[:examples])}"
        lines.append(line)
    lines.append(f"doubles {verdict.doubles}, uneven {verdict.uneven}")
    return "\n".join(lines)


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--mix", choices=MIXES, default="field")
    args.add_argument("--records", type=int, default=20_000)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--out", type=Path)
    args.add_argument("--judge", type=Path, metavar="MATCHES")
    asked = args.parse_args()
    ledger = make(asked.mix, asked.records, asked.seed)
    if asked.out:
        ledger.write(asked.out)
    if asked.judge:
        with asked.judge.open(newline="", encoding="utf-8") as file:
            lines = [(m["group_id"], m["payment_id"], m["record_id"]) for m in csv.DictReader(file)]
        sys.stdout.write(told(judge(ledger, lines)) + "\n")


if __name__ == "__main__":
    main()
