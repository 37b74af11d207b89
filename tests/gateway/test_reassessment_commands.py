"""Re-assessment as people and programs ask for it: the commands, and the API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from gateway.models import Role
from tests.factories import broken_promises, issue
from tests.gateway.api.conftest import FES, ProgramOf
from tests.gateway.api.conftest import app as app
from tests.gateway.api.conftest import program as program
from tests.gateway.api.test_problems import problem_of
from tests.gateway.test_activities import a_person, changes
from tests.gateway.test_reassessment import Due, invoices, reference


def run(folder: Path, *words: str) -> tuple[int, str]:
    """Run `wasl` with these words, on the test's database and a still clock."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", *words],
        cwd=folder,
        env=os.environ | {"WASL_CLOCK": "=2026-11-18T11:06:40Z"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_commands_change_what_is_owed(database: str, tmp_path: Path) -> None:
    first = a_person(cnss_number="123456785")
    second = a_person(cnss_number="223456784")
    issue("2026-10")
    because = ("--because", "data of the tax office")
    add = ("contributors", "activity", "add", "123456785", "--category", "accounts-simplified")
    assert run(tmp_path, *add, "--since", "2026-10-01", *because)[0] == 0
    code, said = run(tmp_path, "contributors", "reassess", "--dry-run", "--json")
    assert (code, json.loads(said)["reassessed"][0]["notes"][0]["amount"]) == (0, "54.51")
    assert invoices(first)["2026-10"].charged == 16352
    code, said = run(tmp_path, "contributors", "reassess")
    assert (code, said.splitlines()[-1]) == (0, "1 people, 1 notes, 0 invoices issued.")
    assert invoices(first)["2026-10"].charged == 21803
    left = ("contributors", "left", "223456784", "--on", "2026-09-01", *because)
    assert run(tmp_path, *left)[0] == 0
    alone = ("contributors", "reassess", "--cnss", "223456784")
    assert run(tmp_path, *alone)[1].endswith("Say why: who said so, without names.\n")
    assert run(tmp_path, *alone, *because)[0] == 0
    assert invoices(second)["2026-10"] == Due(0, 0, "cleared")
    code, said = run(tmp_path, "contributors", "activity", "list", "123456785", "--json")
    (known,) = json.loads(said)["activities"]
    drop = ("contributors", "activity", "withdraw", "123456785", known["id"], *because)
    assert [run(tmp_path, *drop)[0] for _ in range(2)] == [0, 2]
    fee = ("invoices", "charge-fee", reference(first, "2026-10"), "--amount", "50.00")
    assert run(tmp_path, *fee, "--source", "order 12", *because)[0] == 0
    merge = ("contributors", "merge", "123456785", "223456784", *because)
    code, said = run(tmp_path, *merge, "--json")
    assert (code, len(json.loads(said)["reassessed"])) == (0, 1)
    for wrong in (
        ("contributors", "left", "999999999", "--on", "2026-09-01", *because),
        ("contributors", "left", "123456785", "--on", "soon", *because),
        (*add, "--base", "4,2", "--since", "2026-10-01", *because),
        ("invoices", "charge-fee", "1", "--amount", "1", "--source", "x", *because),
        merge,
    ):
        code, said = run(tmp_path, *wrong)
        assert (code, said.startswith("wasl: "), said.count("\n")) == (2, True, 1), wrong
    assert broken_promises() == []


def test_programs_change_what_is_owed(program: ProgramOf) -> None:
    caller = program()
    person = a_person(region=FES)
    other = a_person()
    issue("2026-10")
    here = f"/contributors/{person}"
    body = {
        "category": "accounts-simplified",
        "since": "2026-10-01",
        "because": "data of the tax office",
    }
    made = caller.post(f"{here}/activities", body, once="one")
    assert (made.status_code, made.json()["until"]) == (201, None)
    assert caller.post(f"{here}/activities", body, once="one").json() == made.json()
    assert caller.get(f"{here}/activities").json() == {"data": [made.json()]}
    backwards = caller.post(f"{here}/activities", {**body, "until": "2026-09-30"})
    assert problem_of(backwards)["code"] == "fields_contradict"
    why = {"because": "data of the tax office"}
    dry = caller.post(f"{here}/reassessments", {**why, "dry_run": True}).json()
    assert [note["amount"] for note in dry["notes"]] == ["54.51"]
    done = caller.post(f"{here}/reassessments", why).json()
    assert done == {**dry, "dry_run": False}
    assert caller.post(f"{here}/reassessments", why).json()["notes"] == []
    # A chamber sees what is of its region, and changes nothing.
    chamber = program(Role.CHAMBER, FES)
    assert chamber.get(f"{here}/activities").status_code == 200
    elsewhere = chamber.get(f"/contributors/{other}/activities")
    assert problem_of(elsewhere)["code"] == "contributor_not_found"
    merged = caller.post(f"{here}/merge", {**why, "other": str(other)}).json()
    assert [note["amount"] for note in merged["notes"]] == ["-163.52"]
    assert caller.get(f"/contributors/{other}").json()["merged_into"] == str(person)
    again = caller.post(f"{here}/merge", {**why, "other": str(other)})
    assert problem_of(again)["code"] == "fields_contradict"
    nobody = caller.post(f"{here}/merge", {**why, "other": "999"})
    assert problem_of(nobody)["code"] == "contributor_not_found"


def test_a_change_by_a_program_says_since_when(program: ProgramOf) -> None:
    caller, person = program(), a_person()
    body = {"category": "cpu", "category_base": "420.00", "category_since": "2026-01-01"}
    said = caller.ask("PATCH", f"/contributors/{person}", body).json()
    assert (said["category"], said["category_since"]) == ("cpu", "2026-01-01")
    late = caller.ask("PATCH", f"/contributors/{person}", {"category_since": "2026-05-01"})
    assert problem_of(late)["errors"][0]["field"] == "category_since"
    changes(person, "artisan-untaxed", "2022-01-01")
    assert caller.get(f"/contributors/{person}").json()["category_since"] is None
