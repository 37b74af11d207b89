"""Two files matched without a database: what is read, refused, set aside, and written."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from gateway import csvfiles
from gateway.errors import Unusable
from reconciliation import pairfiles_splitting
from reconciliation.matching import Terms
from reconciliation.pairfiles import MATCHES, PAYMENTS_OPEN, RECORDS_OPEN, Matched, match_files

PAID = "payment_id,reference,cnss_number,cin,name,amount,paid_on,channel,provider_reference"
RECORDED = (
    "record_id,reference,cnss_number,cin,name,period,amount,posted_on,channel,provider_reference"
)
A, B, C = "148275036141", "100000000190", "120305070912"


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


class Pair:
    """Two files and a directory for what comes of them."""

    def __init__(self, home: Path) -> None:
        self.payments, self.records = home / "payments*.csv", home / "records.csv"
        self.out = home / "out"

    def write(self, payments: list[str], records: list[str]) -> None:
        self.payments.write_text("\n".join([PAID, *payments]) + "\n", encoding="utf-8")
        self.records.write_text("\n".join([RECORDED, *records]) + "\n", encoding="utf-8")

    def match(self, **terms: int) -> Matched:
        return match_files(self.payments, self.records, self.out, Terms(**terms))

    def rows(self, name: str) -> list[list[str]]:
        with (self.out / name).open(newline="") as file:
            return list(csv.reader(file))[1:]

    def written(self) -> list[bytes]:
        return [(self.out / name).read_bytes() for name in (MATCHES, PAYMENTS_OPEN, RECORDS_OPEN)]


def paid(id_: str, reference: str, amount: str = "163.52", day: str = "2026-11-18") -> str:
    return f"{id_},{reference},,,,{amount},{day},wallet,"


def recorded(id_: str, reference: str, amount: str = "163.52", day: str = "2026-11-18") -> str:
    return f"{id_},{reference},,,,2026-11,{amount},{day},wallet,"


def test_groups_and_what_is_open(pair: Pair) -> None:
    pair.write(
        [
            paid("P2", "1482 7503 6141"),
            paid("P1", B),
            paid("P3", C, "100.00"),
            paid("P5", C, "63.50"),
            paid("P4", ""),
        ],
        [recorded("R1", A), recorded("R2", B), recorded("R3", C), recorded("R4", "", "12")],
    )
    answer = pair.match().answer
    assert pair.rows(MATCHES) == [
        ["P1", "P1", "R2", "exact", "100"],
        ["P2", "P2", "R1", "normalised_reference", "99"],
        ["P3", "P3", "R3", "instalments", "96"],
        ["P3", "P5", "R3", "instalments", "96"],
    ]
    assert [row[:2] for row in pair.rows(PAYMENTS_OPEN)] == [["P4", "payment_without_record"]]
    assert [row[:2] for row in pair.rows(RECORDS_OPEN)] == [["R4", "record_without_payment"]]
    assert answer.pop("seconds") > 0
    assert answer.pop("peak_mb") > 10
    assert answer == {
        "payments": 5,
        "records": 4,
        "matched_payments": 4,
        "matched_records": 3,
        "groups": 3,
        "open_payments": 1,
        "open_records": 1,
        "codes": {"payment_without_record": 1, "record_without_payment": 1},
        "repeated": 0,
    }


def test_what_is_taken_back_names_the_other(pair: Pair) -> None:
    pair.write([], [recorded("R1", A), recorded("R2", A, "-163.52"), recorded("R3", B, "-1")])
    pair.match()
    assert pair.rows(RECORDS_OPEN) == [
        ["R1", "taken_back", "taken back by R2"],
        ["R2", "taken_back", "takes back R1"],
        ["R3", "record_without_payment", "takes back no record that is here"],
    ]


BAD_PAYMENTS = [
    (paid("P1", A, "163,52"), "P1", "unreadable_delivery"),
    (paid("P1", A, "1e2"), "P1", "invalid_amount"),
    (paid("P1", A, "163.525"), "P1", "invalid_amount"),
    (paid("P1", A, "+163.52"), "P1", "invalid_amount"),
    (paid("P1", A, ""), "P1", "invalid_amount"),
    (paid("P1", A, "0.00"), "P1", "invalid_amount"),
    (paid("P1", A, "-163.52"), "P1", "invalid_amount"),
    (paid("P1", A, "99999999999"), "P1", "invalid_amount"),
    (paid("P1", A, day="18/11/2026"), "P1", "implausible_date"),
    (paid("P1", A, day="2026-02-30"), "P1", "implausible_date"),
    (paid("P1", A, day="10000-01-01"), "P1", "implausible_date"),
    (paid("", A), "line 2", "unreadable_delivery"),
    (paid("P\x07", A), "P\x07", "unreadable_delivery"),
    (paid('"P1', A), "line 2", "unreadable_delivery"),
    ("P1,x", "line 2", "unreadable_delivery"),
]


@pytest.mark.parametrize(("line", "id_", "code"), BAD_PAYMENTS)
def test_a_payment_that_cannot_be_read_is_named(pair: Pair, line: str, id_: str, code: str) -> None:
    pair.write([line, paid("P9", B)], [recorded("R1", A), recorded("R2", B)])
    matched = pair.match()
    assert matched.set_aside == 1
    assert matched.answer["payments"] == 2
    assert matched.answer["open_payments"] == matched.answer["codes"][code] == 1
    (row,) = pair.rows(PAYMENTS_OPEN)
    assert row[1] == code
    assert row[0] in (id_, "line 2")
    assert row[2].startswith("line 2: ")
    assert [row[1:3] for row in pair.rows(MATCHES)] == [["P9", "R2"]]


def test_amounts_are_read_as_they_are_written_elsewhere(pair: Pair) -> None:
    pair.write(
        [paid("P1", A, "300"), paid(" P2 ", B, " 300.5 "), paid("P3", C, "0300.50")],
        [recorded("R1", A, "300.00"), recorded("R2", B, "300.50"), recorded("R3", C, "300.5")],
    )
    pair.match()
    assert [row[1:4] for row in pair.rows(MATCHES)] == [
        ["P1", "R1", "exact"],
        ["P2", "R2", "exact"],
        ["P3", "R3", "exact"],
    ]


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ([recorded("R1", A), recorded("R2", B, "1,5")], "line 3: no amount can be read"),
        ([recorded("R1", A), recorded("R2", B, "NaN")], "line 3: the amount cannot be read"),
        ([recorded("R1", A), "TRAILER,2,163.52,0"], "line 3: the trailer says 2 data lines"),
        ([recorded("R1", A), "TRAILER,1,163.53,0"], "line 3: the trailer says 163.53 as the sum"),
        (["TRAILER,0,0.00,0", recorded("R1", A)], "line 3: there is more after the trailer"),
        ([recorded("\tTRAILER", B), recorded("R1", A)], "line 3: there is more after the trailer"),
    ],
)
def test_records_that_cannot_be_trusted_are_refused_whole(
    pair: Pair, records: list[str], sentence: str
) -> None:
    pair.write([paid("P1", A)], records)
    with pytest.raises(Unusable, match=sentence):
        pair.match()
    assert list(pair.out.iterdir()) == []


def test_a_trailer_that_agrees(pair: Pair) -> None:
    lines = [f"R1,{A},123456789,,,,163.52,2026-11-18,,", f"R2,{A},1,,,,-163.52,2026-11-18,,"]
    for trailer in ("TRAILER,2,0.00,123456790", "TRAILER,2,0,123456790,,,,,,"):
        pair.write([paid("P1", A)], [*lines, trailer])
        assert pair.match().answer["records"] == 2


def test_twins(pair: Pair) -> None:
    """The same again counts once; another content is set aside, and the first stands."""
    pair.write(
        [paid("P1", A), paid("P1", A), paid("P1", "1482 7503 6141"), paid("P1", A, "1.00")],
        [recorded("R1", A), recorded("R1", A), recorded("R1", A, day="2026-11-19")],
    )
    matched = pair.match()
    assert (matched.set_aside, matched.answer["repeated"]) == (2, 3)
    assert (matched.answer["payments"], matched.answer["records"]) == (2, 2)
    assert [row[1:4] for row in pair.rows(MATCHES)] == [["P1", "R1", "exact"]]
    assert pair.rows(PAYMENTS_OPEN) == [
        ["P1", "conflicting_payment", "line 5: line 2 has this payment_id with another amount"]
    ]
    assert pair.rows(RECORDS_OPEN) == [
        ["R1", "conflicting_record", "line 4: line 2 has this record_id with another posted_on"]
    ]


MIXED = [
    f'"P1",{A},,AB123456,"El Alaoui, Med",163.52,2026-11-18,,',
    f"P2,{B},,,محمد العلوي,163.52,2026-11-18,,TX\u00a0123456",
    f"P3, {C} ,,, x ,163.52,2026-11-18,,",
    f"P3,{C},,,x,163.52,2026-11-18,,",
    "P4,12345,,,,12.5x,2026-11-18,,",
    ",,,,,12.50,2026-11-18,,",
]


def test_both_ways_of_splitting_say_the_same(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [recorded("R1", A), recorded("R2", B), recorded("R3", C, "-1.50")]
    pair.write(MIXED, [*records, "TRAILER,3,325.54,0"])
    by_duckdb = pair.match()
    fast = pair.written()
    used: list[Path] = []
    careful = csvfiles.read_csv

    def noted(path: Path, **options: Any) -> Any:
        used.append(path)
        return careful(path, **options)

    monkeypatch.setattr(pairfiles_splitting, "read_csv", noted)
    pair.match()
    assert not used, "these files are clean enough for DuckDB"
    for path in (pair.payments, pair.records):
        path.write_bytes(path.read_bytes() + b"\n")  # a blank line, which DuckDB does not count
    by_hand = pair.match()
    assert len(used) == 2
    assert pair.written() == fast
    assert by_hand.answer["codes"] == by_duckdb.answer["codes"]
    assert by_hand.set_aside == by_duckdb.set_aside == 2


@pytest.mark.parametrize(
    "bad",
    [
        b'P7, "x",,,,1.00,2026-11-18,,\n',
        b'P7,"x\ny",,,,1.00,2026-11-18,,\n',
        b'P7,"x"y,,,,1.00,2026-11-18,,\n',
        b'P7,x,"","y",,1.00,2026-11-18,"",\n',
        b'P7,x,"",y"z,"",1.00,2026-11-18,,\n',
        b"P7,x\ry,,,,1.00,2026-11-18,,\n",
        b"P7,x,,,\xff,1.00,2026-11-18,,\n",
        b"P7,x,,,\x00,1.00,2026-11-18,,\n",
        b"P7,x,,,,1.00,2026-11-18,,,\n",
        b"\n",
        b"P7," + b"x" * 70_000 + b",,,,1.00,2026-11-18,,\n",
    ],
)
def test_what_duckdb_would_split_otherwise_is_split_carefully(pair: Pair, bad: bytes) -> None:
    pair.write([], [recorded("R1", A)])
    good = paid("P8", A).encode()
    pair.payments.write_bytes(PAID.encode() + b"\n" + bad + good)
    matched = pair.match()
    assert [row[1] for row in pair.rows(MATCHES)] == ["P8"]
    expected = {b"\n": 0, b'P7, "x",': 0, b'P7,"x\ny': 2, b'P7,x,"",': 0}
    findings = next((n for start, n in expected.items() if bad.startswith(start)), 1)
    assert matched.set_aside == findings


def test_semicolons_a_mark_and_columns_in_another_order(pair: Pair) -> None:
    pair.write([], [recorded("R1", A)])
    text = f"amount;odd;paid_on;payment_id;reference\r\n163.52;1,2;2026-11-18;P1;{A}\r\n"
    pair.payments.write_text("\ufeff" + text, encoding="utf-8", newline="")
    assert pair.match().answer["groups"] == 1


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("payment_id,amount,paid_on", "lacks the column reference"),
        ("payment_id,amount,paid_on,reference,amount", "amount stands there twice"),
        ("", "it is empty"),
    ],
)
def test_a_header_that_cannot_be_used(pair: Pair, header: str, sentence: str) -> None:
    pair.write([], [])
    pair.payments.write_text(header)
    with pytest.raises(Unusable, match=sentence):
        pair.match()


def test_parquet(pair: Pair) -> None:
    pair.write([], [recorded("R1", A), recorded("R2", B), recorded("R3", C, "300")])
    rows = f"('P1', '{A}', 163.52, DATE '2026-11-18'), ('P2', '{B}', 1.234, DATE '2026-11-18')"
    columns = "t(payment_id, reference, amount, paid_on)"
    _parquet(pair.payments, f"SELECT * FROM (VALUES {rows}) {columns}")
    matched = pair.match()
    assert [row[1:3] for row in pair.rows(MATCHES)] == [["P1", "R1"]]
    assert pair.rows(PAYMENTS_OPEN)[0][:2] == ["P2", "invalid_amount"]
    assert pair.rows(PAYMENTS_OPEN)[0][2].startswith("row 2: ")
    assert matched.set_aside == 1
    rows = f"('P1', {C}, 300, '2026-11-18')"
    _parquet(pair.payments, f"SELECT * FROM (VALUES {rows}) {columns}")
    assert pair.match().answer["groups"] == 1
    rows = f"('P1', '{A}', 163.52::DOUBLE, DATE '2026-11-18')"
    _parquet(pair.payments, f"SELECT * FROM (VALUES {rows}) {columns}")
    with pytest.raises(Unusable, match=r"amount is DOUBLE, .* Money is no floating-point number"):
        pair.match()
    rows = f"('P1', '{A}', 163.52, TIMESTAMP '2026-11-18 00:00:00')"
    _parquet(pair.payments, f"SELECT * FROM (VALUES {rows}) {columns}")
    with pytest.raises(Unusable, match="paid_on is TIMESTAMP"):
        pair.match()
    pair.payments.write_bytes(b"PAR1 and no more")
    with pytest.raises(Unusable, match="cannot be read as Parquet"):
        pair.match()


def test_an_amount_in_parquet_that_is_too_large_is_named(pair: Pair) -> None:
    pair.write([], [recorded("R1", A)])
    day = "DATE '2026-11-18' AS paid_on"
    _parquet(
        pair.payments,
        f"SELECT 'P1' AS payment_id, '' AS reference, {'9' * 38}::DECIMAL(38, 0) AS amount, {day}",
    )
    assert pair.match().answer["codes"]["invalid_amount"] == 1


@pytest.mark.parametrize("directory", ["amount=5", "c5=7", "out[1]", "o*t", "it's", "file:/x"])
def test_the_name_of_the_directory_says_nothing_of_the_files(
    pair: Pair, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB reads columns in the names of directories, and patterns in paths."""
    monkeypatch.chdir(pair.records.parent)
    pair.out = Path(directory)
    pair.write([paid("P1", A)], [recorded("R1", A)])
    assert pair.match().answer["groups"] == 1
    columns = "'P1' AS payment_id, 163.52 AS amount, DATE '2026-11-18' AS paid_on"
    _parquet(pair.payments, f"SELECT '{A}' AS reference, {columns}")
    assert pair.match().answer["groups"] == 1
    assert len(list(pair.out.iterdir())) == 3


def test_bytes_that_are_no_text_spoil_their_line_in_any_column(pair: Pair) -> None:
    pair.write([], [recorded("R1", A), recorded("R2", B)])
    lines = [f"{PAID},odd", paid("P1", A) + ",\xff", paid("P2", B) + ",\xe9t\xe9"]
    pair.payments.write_bytes("\n".join(lines).encode("latin-1") + b"\n")
    assert pair.match().answer["codes"]["unreadable_delivery"] == 2


def test_what_is_no_regular_file_is_not_opened(pair: Pair) -> None:
    """A pipe is read once; looking at its first bytes would lose them."""
    pair.write([], [])
    pair.payments.unlink()
    os.mkfifo(pair.payments)
    with pytest.raises(Unusable, match=r"payments\*\.csv is no regular file"):
        pair.match()


def _parquet(path: Path, query: str) -> None:
    with duckdb.connect() as con:
        con.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")


def test_shards_change_nothing(pair: Pair) -> None:
    pair.write(
        [paid(f"P{n}", reference) for n, reference in enumerate((A, B, C, "", "14827503614"))],
        [recorded(f"R{n}", reference) for n, reference in enumerate((C, B, A, "1"))],
    )
    pair.match()
    once = pair.written()
    pair.match(shards=7)
    assert pair.written() == once


def test_the_command(pair: Pair) -> None:
    """It says so with its exit code when lines were set aside, and leaves nothing but its files."""
    pair.write([paid("P1", A), paid("P2", B, "x")], [recorded("R1", A)])
    stale = pair.out / ".wasl-match-0x"
    stale.mkdir(parents=True)
    command = [sys.executable, "-m", "gateway.cli", "match", "--payments", str(pair.payments)]
    command += ["--records", str(pair.records), "--out", str(pair.out), "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (1, "")
    assert json.loads(run.stdout)["groups"] == 1
    assert sorted(path.name for path in pair.out.iterdir()) == [
        MATCHES,
        PAYMENTS_OPEN,
        RECORDS_OPEN,
    ]
    for wrong in (["--tolerance", "1e3"], ["--tolerance", "-1"], ["--shards", "0"]):
        run = subprocess.run([*command, *wrong], capture_output=True, text=True, check=False)
        assert (run.returncode, run.stdout) == (2, ""), run.stderr
        assert run.stderr.count("\n") == 1
    missing = [*command[:4], "--payments", str(pair.out / "none"), *command[6:]]
    run = subprocess.run(missing, capture_output=True, text=True, check=False)
    assert (
        run.returncode,
        run.stderr.endswith("cannot be read: No such file or directory.\n"),
    ) == (
        2,
        True,
    )
