from __future__ import annotations

from gateway.models import Role
from tests.gateway.api.conftest import ProgramOf
from tests.gateway.api.test_problems import problem_of
from tests.gateway.relief.test_remissions import owing


def test_a_plan_is_made_once_read_and_listed(program: ProgramOf) -> None:
    finance = program(Role.FINANCE)
    person, named = owing("2026-08", "2026-09")
    # 163.52 each, at noon on 18 November: three months have begun for August, two for September.
    path, body = f"/contributors/{person}/plans", {"months": 3}
    made = finance.post(path, body, once="a-plan")
    plan = made.json()
    assert made.status_code == 201, plan
    assert (made.status_code, plan["status"], plan["amount"]) == (201, "running", "335.22")
    assert plan["invoices"] == [named["2026-08"], named["2026-09"]]
    assert [(each["due_on"], each["amount"]) for each in plan["instalments"]] == [
        ("2026-12-31", "111.74"),
        ("2027-01-31", "111.74"),
        ("2027-02-28", "111.74"),
    ]
    assert made.headers["location"] == f"/v1/plans/{plan['id']}"
    assert finance.post(path, body, once="a-plan").json() == plan
    assert finance.get(f"/plans/{plan['id']}").json() == plan
    assert finance.get(path).json() == {"data": [plan]}
    said = problem_of(finance.post(path, body))
    assert (said["code"], said["detail"]) == (
        "plan_refused",
        "A plan of this contributor stands: one at a time.",
    )


def test_what_is_no_plan_is_refused(program: ProgramOf) -> None:
    finance, approver = program(Role.FINANCE), program(Role.APPROVER)
    person, _ = owing("2026-08")
    path = f"/contributors/{person}/plans"
    for body, code in (
        ({"months": 25}, "plan_refused"),
        ({"months": 3, "campaign": "loi-41-23"}, "plan_refused"),
        ({"months": 3, "campaign": "decision-005-2023"}, "invalid_body"),
        ({"months": 0}, "invalid_body"),
        ({"months": "3"}, "invalid_body"),
    ):
        assert problem_of(finance.post(path, body))["code"] == code, body
    [wrong] = problem_of(finance.post(path, {"months": 0}))["errors"]
    assert (wrong["code"], wrong["detail"]) == ("out_of_range", "It is at least 1.")
    missing = finance.post("/contributors/999/plans", {"months": 3})
    assert problem_of(missing)["code"] == "contributor_not_found"
    assert problem_of(finance.get("/plans/999"))["code"] == "plan_not_found"
    assert approver.get(path).json() == {"data": []}
    assert problem_of(approver.post(path, {"months": 3}))["code"] == "role_may_not"
