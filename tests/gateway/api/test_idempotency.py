from __future__ import annotations

from datetime import timedelta
from typing import Any

from gateway.api.kept_answers import KEPT, forget_old_answers
from gateway.db import execute, transaction
from gateway.models import Role
from tests.factories import NOON, at_once
from tests.gateway.api.conftest import Program, ProgramOf
from tests.gateway.api.test_problems import PERSON, problem_of


def count(table: str) -> int:
    with transaction() as session:
        return int(execute(session, f"SELECT count(*) FROM {table}").scalar_one())


def test_the_same_again_does_nothing_and_gets_the_first_answer(program: ProgramOf) -> None:
    caller = program()
    first = caller.post("/contributors", PERSON, once="a")
    caller.ask("PATCH", f"/contributors/{first.json()['id']}", {"province": "Fès"})
    again = caller.post("/contributors", PERSON, once="a")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert count("contributor") == 1


def test_a_key_is_bound_to_its_request_and_its_holder(program: ProgramOf) -> None:
    caller, other = program(), program(Role.FINANCE)
    made = caller.post("/contributors", PERSON, once="a")
    for method, path, body in (
        ("POST", "/contributors", {**PERSON, "given_name": "Houda"}),
        ("POST", "/invoices", {"contributor_id": made.json()["id"], "period": "2026-11"}),
        ("PATCH", f"/contributors/{made.json()['id']}", PERSON_CHANGE),
    ):
        answer = caller.ask(method, path, body, once="a")
        assert problem_of(answer)["code"] == "idempotency_key_reused"
    assert count("invoice") == 0
    # Another program's key under the same name is another key.
    assert other.post("/contributors", PERSON, once="a").status_code == 200


PERSON_CHANGE = {"province": "Fès"}


def test_what_was_refused_leaves_its_key_unused(program: ProgramOf) -> None:
    caller = program()
    wrong = {**PERSON, "left_on": "2000-01-01"}
    assert caller.post("/contributors", wrong, once="a").status_code == 409
    assert caller.post("/contributors", PERSON, once="a").status_code == 201
    assert count("idempotent_answer") == 1


def test_two_at_once_under_one_key_are_one(program: ProgramOf) -> None:
    caller = program()

    def send(body: dict[str, Any]) -> Any:
        return caller.post("/contributors", body, once="a")

    answers = at_once(*[lambda: send(PERSON)] * 6)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == 5
    assert count("contributor") == 1


def test_two_at_once_without_a_key_enrol_one(program: ProgramOf) -> None:
    caller = program()
    answers = at_once(*[lambda: caller.post("/contributors", PERSON)] * 4)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    people = at_once(*[lambda: issue(caller, answers[0].json()["id"])] * 4)
    assert sorted(answer.status_code for answer in people) == [200, 200, 200, 201]
    assert (count("invoice"), count("event")) == (1, 1)


def issue(caller: Program, contributor_id: str) -> Any:
    return caller.post("/invoices", {"contributor_id": contributor_id, "period": "2026-11"})


def test_answers_are_forgotten_in_time(program: ProgramOf) -> None:
    caller = program()
    caller.post("/contributors", PERSON, once="a")
    for later, left in ((KEPT, 1), (KEPT + timedelta(seconds=1), 0)):
        with transaction() as session:
            forget_old_answers(session, now=NOON + later)
        assert count("idempotent_answer") == left
    assert caller.post("/contributors", PERSON, once="a").status_code == 200
