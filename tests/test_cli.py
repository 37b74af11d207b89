"""The commands as a person runs them: in a process of their own, on a home of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pikepdf
import pytest

from gateway import db
from gateway.codes.receipts import as_text
from gateway.db import snapshot
from gateway.receipts import of_invoice
from tests.factories import a_report, record, rows_of, seal, some_invoices

Wasl = Callable[..., subprocess.CompletedProcess[str]]

CONTRIBUTORS = """cnss_number,family_name,given_name,category,category_base,registered_on
123456785,El Amrani,Fatima,artisan-untaxed,,2022-01-01
12,Zniber,Houda,artisan-untaxed,,2022-01-01
223456782,Tazi,Omar,cpu,420.00,2022-01-01
"""


@pytest.fixture
def wasl(tmp_path: Path, database: str) -> Wasl:
    """Run `wasl` with these words, on the test's database and a still clock."""
    environment = os.environ | {"WASL_CLOCK": "=2026-11-18T11:06:40Z"}

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gateway.cli", *words],
            cwd=tmp_path,
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    return value


def test_the_main_job_by_hand(wasl: Wasl, database: str, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text(CONTRIBUTORS, encoding="utf-8")
    done = wasl("contributors", "import", "people.csv", "--json")
    assert done.returncode == 1
    assert answer(done) == {
        "read": 3,
        "loaded": 2,
        "unchanged": 0,
        "rejected": [{"line": 3, "reason": "cnss_number is not nine digits"}],
    }
    assert "line 4: cnss_number does not verify by the rule of 2006" in done.stderr
    done = wasl("invoices", "issue", "--period", "2026-11", "--json")
    assert (done.returncode, answer(done)) == (0, {"issued": 1, "already": 0, "total": "163.52"})
    done = wasl("invoices", "issue", "--period", "2026-Q4", "--category", "cpu", "--json")
    assert answer(done) == {"issued": 1, "already": 0, "total": "300.00"}
    assert wasl("invoices", "notices", "--out", "notices.csv").returncode == 0
    reference = (tmp_path / "notices.csv").read_text().splitlines()[1].split(",")[0]

    records = tmp_path / "records.csv"
    records.write_text(
        "record_id,reference,amount,posted_on,period\n"
        f"R1,{reference},163.52,2026-11-18,2026-11\nTRAILER,1,163.52,0\n"
    )
    done = wasl("records", "import", "records.csv", "--json")
    assert (done.returncode, answer(done)["loaded"]) == (0, 1)
    done = wasl("reconcile", "--json")
    assert done.returncode == 0
    assert answer(done)["exceptions"] == {"record_without_payment": 1}
    done = wasl("verify", "--json")
    assert (done.returncode, answer(done)["ok"], answer(done)["broken"]) == (0, True, [])
    # By figures of before a bulk of rows its checks would compare each with each.
    figures = "SELECT reltuples FROM pg_class WHERE relname = 'invoice'"
    assert rows_of(database, figures) == [(2,)]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["frobnicate"], "frobnicate"),
        ([], None),
        (["invoices", "issue"], "--period"),
        (["invoices", "issue", "--period", "2026-13"], "not a period"),
        (["invoices", "issue", "--period", "2026-11", "--category", "baker"], "baker"),
        (["contributors", "import", "none.csv"], "none.csv cannot be read"),
        (["records", "import", "none.csv"], "none.csv cannot be read"),
        (["records", "import", "."], "is a directory"),
        (["reconcile", "--period", "soon"], "not a period"),
        (["keys", "create", "--role", "boss"], "admin, finance"),
        (["staff", "add", "--role", "admin", " "], "1 to 80 printable"),
        (["up", "--port", "70000"], "port"),
        (["demo", "--contributors", "0"], "contributors"),
        (["invoices", "notices", "--out", "no/such/place.csv"], "cannot be written"),
        (["invoices", "cancel", "148275036142", "--because", "x"], "compare its twelve digits"),
        (["notices", "print", "--out", "out", "--region", "Atlantis"], "Atlantis"),
        (["backup", "no/such/place"], "cannot be written"),
        (["restore", "none"], "none cannot be read"),
    ],
)
def test_a_wrong_call_gets_one_sentence(wasl: Wasl, words: list[str], sentence: str | None) -> None:
    done = wasl(*words)
    assert done.returncode == 2
    if sentence is not None:
        assert sentence in done.stderr
        assert done.stdout == ""
        assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WASL_BASE_URL", "pay.cnss.ma"),
        ("WASL_BASE_URL", "https://pay.cnss.ma/x?y"),
        ("WASL_TRUSTED_PROXIES", "foo"),
        ("WASL_INSTITUTION", "institution.toml"),
    ],
)
def test_what_would_be_printed_wrong_is_refused_before_it_is_up(
    wasl: Wasl, tmp_path: Path, name: str, value: str
) -> None:
    (tmp_path / "institution.toml").write_text("name = 6\n")
    done = wasl("up", "--port", "0", **{name: value})
    assert done.returncode == 2
    assert value in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_clock_or_mode_that_means_nothing_is_a_sentence(wasl: Wasl) -> None:
    for name, value in (("WASL_CLOCK", "noon"), ("WASL_MODE", "party")):
        done = wasl("verify", **{name: value})
        assert done.returncode == 2
        assert name in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_database_that_is_away_is_a_sentence_without_its_password(wasl: Wasl) -> None:
    away = "postgresql://w:verysecret@127.0.0.1:1/wasl"
    for words in (["verify"], ["up", "--port", "0"]):
        done = wasl(*words, WASL_DATABASE_URL=away)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert "verysecret" not in done.stderr


def test_secrets_are_shown_once_and_only_there(wasl: Wasl) -> None:
    done = wasl("keys", "create", "--role", "chamber", "--scope", "Atlantis", "--json")
    assert answer(done)["key"].startswith("wasl_")
    assert "no contributor is of this region" in done.stderr
    added = answer(wasl("staff", "add", "--role", "chamber", "Amina Tazi", "--json"))
    assert added["name"] == "Amina Tazi"
    assert added["totp"].startswith("otpauth://totp/")
    again = wasl("staff", "add", "--role", "chamber", "Amina Tazi", "--json")
    assert (again.returncode, again.stdout) == (2, "")


def test_every_command_explains_itself(wasl: Wasl) -> None:
    from click import Context, Group

    from gateway.cli import wasl as top

    def walk(group: Group, words: list[str]) -> None:
        for name, command in group.commands.items():
            assert command.get_help(Context(command, info_name=name)).count("\n") > 2
            assert command.help, [*words, name]
            if isinstance(command, Group):
                walk(command, [*words, name])

    walk(top, [])
    assert wasl("--help").returncode == 0


def test_papers_and_receipts_by_hand(wasl: Wasl, tmp_path: Path) -> None:
    paid, unpaid, cancelled = some_invoices(3)
    record(a_report(paid))
    done = wasl("invoices", "cancel", cancelled, "--because", "issued in error")
    assert (done.returncode, done.stdout) == (0, f"Cancelled: {cancelled}.\n")
    done = wasl("invoices", "cancel", paid, "--because", "a mistake")
    assert (done.returncode, "163.52 MAD paid" in done.stderr) == (2, True)

    done = wasl("notices", "print", "--out", "notices", "--period", "2026-11", "--json")
    assert done.returncode == 0
    assert (answer(done)["notices"], answer(done)["files"]) == (1, 1)
    [file] = (tmp_path / "notices").glob("*.pdf")
    old = {"WASL_CLOCK": "=2028-01-18T11:06:40Z"}
    done = wasl("notices", "print", "--out", "none", "--period", "2026-11", **old)
    assert "1 unpaid invoice left out: the reference has expired" in done.stdout, done.stdout
    done = wasl("bundles", "make", unpaid, "--out", "new.pdf", "--json", **old)
    made = answer(done)
    assert (made["due"], made["invoices"]) == ("186.41", 1)
    with pikepdf.open(tmp_path / "new.pdf") as notice:
        assert made["reference"][:4] in str(notice.docinfo["/Title"])
    done = wasl("bundles", "make", paid)
    assert (done.returncode, "Nothing is due" in done.stderr) == (2, True)
    with pikepdf.open(file) as notice:
        assert len(notice.pages) == 1
        assert unpaid[:4] in str(notice.docinfo["/Title"])

    done = wasl("receipts", "issue", "--json")
    assert answer(done) == {"issued": 1}
    with snapshot() as session:
        [receipt] = of_invoice(session, paid)
    done = wasl("receipts", "rotate-key", "--json")
    assert answer(done)["key"] != receipt.key_id
    done = wasl("receipts", "check", as_text(receipt.signed), "--json")
    said = answer(done)
    assert (done.returncode, said["finding"], said["number"]) == (0, "genuine", receipt.number)
    assert said["key_retired_at"] == "2026-11-18T11:06:40+00:00"
    done = wasl("receipts", "check", "R26-000000000")
    assert (done.returncode, "No receipt has this number" in done.stdout) == (1, True)


def test_the_whole_state_by_hand(wasl: Wasl, database: str, tmp_path: Path) -> None:
    record(a_report(*some_invoices()))
    seal()
    done = wasl("backup", "monday", "--json")
    said = answer(done)
    assert (done.returncode, said["file"], said["batches"]) == (0, "monday", 1)
    assert said["bytes"] == (tmp_path / "monday").stat().st_size

    some_invoices()
    db.disconnect()  # nobody may be connected, this test included
    done = wasl("restore", "monday", "--sha256", said["sha256"])
    assert (done.returncode, done.stdout) == (2, "")
    assert "--replace-books" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

    home = str(tmp_path / "new")
    done = wasl("restore", "monday", "--replace-books", "--json", WASL_HOME=home)
    assert done.returncode == 0
    assert answer(done) == said | {"loaded": True, "put_aside": None}
    # Booked by hand above, without a delivery; all else holds.
    [broken] = answer(wasl("verify", "--json", WASL_HOME=home))["broken"]
    assert "told of by a delivery" in broken["what"]
