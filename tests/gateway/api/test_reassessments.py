from __future__ import annotations

from gateway.models import Role
from tests.factories import issue
from tests.gateway.api.conftest import FES, ProgramOf
from tests.gateway.api.test_problems import problem_of
from tests.gateway.people.test_activities import a_person, changes


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
