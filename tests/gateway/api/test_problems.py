from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from gateway import db
from gateway.api import body as bodies
from gateway.api.access import MAY
from gateway.api.problem_kinds import FIELD_CODES, KINDS
from gateway.api.problems import ERRORS_MAX, path_of
from gateway.db import execute, transaction
from gateway.models import Role
from gateway.services import Services
from tests.conftest import address_of
from tests.gateway.api.conftest import Program, ProgramOf
from tests.gateway.pages import states

ROOT = Path(__file__).parent.parent.parent.parent
PERSON = {
    "cnss_number": "123456789",
    "family_name": "El Idrissi",
    "given_name": "Fatima Zahra",
    "category": "artisan-untaxed",
    "registered_on": "2022-01-31",
}


def problem_of(answer: Any) -> dict[str, Any]:
    """Return a problem after a look at what all of them have."""
    said: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert said["status"] == answer.status_code == KINDS[said["code"]].status
    assert said["type"].endswith(f"/docs/problems#{said['code']}")
    assert said["title"] == KINDS[said["code"]].title
    assert said["detail"]
    assert said["instance"] == f"urn:wasl:request:{answer.headers['x-request-id']}"
    assert {each["code"] for each in said.get("errors", ())} <= FIELD_CODES.keys()
    return said


def fields_of(said: dict[str, Any]) -> dict[str, str]:
    return {each["field"]: each["code"] for each in said["errors"]}


def test_every_code_is_in_the_documentation_and_in_use(app: FastAPI) -> None:
    told = (ROOT / "docs/api.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| ([0-9]{3}) \|", told, re.MULTILINE))
    assert rows == {code: str(kind.status) for code, kind in KINDS.items()}
    for code in FIELD_CODES:
        assert f"`{code}`" in told
    for role in Role:
        listed = ", ".join(f"`{right.value}`" for right in sorted(MAY[role]))
        assert f"| `{role.value}` | {listed} |" in told
    raised = {
        node.args[0].value
        for path in (ROOT / "gateway/api").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"Problem", "found"}
        for node in [node]
        if node.args and isinstance(node.args[0], ast.Constant)
    }
    assert raised <= KINDS.keys()
    described = json.dumps(app.openapi()["paths"])
    undescribed = {code for code in KINDS if f'"{code}"' not in described}
    assert undescribed == set()
    page = TestClient(app).get("/docs/problems").text
    assert all(f'<tr id="{code}">' in page for code in KINDS)


UNREADABLE_BODIES = [
    (b"", "invalid_body", {"body": "missing"}),
    (b"{", "unreadable_body", None),
    (b"\xff{}", "unreadable_body", None),
    (b"[" * 9_000, "unreadable_body", None),
    (b'{"x": NaN}', "unreadable_body", None),
    (b'{"a": 1, "b": {"c": 1, "c": 2}}', "unreadable_body", {"c": "repeated"}),
    (b'{"family_name": "a\\u0000b"}', "unreadable_body", {"family_name": "malformed"}),
    (b'{"a": ["\\ud800"]}', "unreadable_body", {"a[0]": "malformed"}),
    (b'{"\\udfff": 1}', "unreadable_body", {"\ufffd": "malformed"}),
    (json.dumps({f"field{n}": n for n in range(101)}).encode(), "unreadable_body", None),
    (b'{"a": ' + b"[" * 60 + b"]" * 60 + b"}", "unreadable_body", None),
    (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "invalid_body", None),
    (b"1" * 500, "invalid_body", {"body": "wrong_type"}),
    (b"[]", "invalid_body", {"body": "wrong_type"}),
    (b"{}", "invalid_body", dict.fromkeys(PERSON, "missing")),
    (b'"' + b"x" * 65_536 + b'"', "body_too_large", None),
]


def test_a_body_that_cannot_be_read(program: ProgramOf) -> None:
    caller = program()
    for body, code, fields in UNREADABLE_BODIES:
        answer = caller.ask(
            "POST", "/contributors", content=body, headers={"Content-Type": "application/json"}
        )
        said = problem_of(answer)
        assert said["code"] == code
        if fields is not None:
            assert fields_of(said) == fields


def test_a_body_full_of_faults_is_not_followed_to_its_end(
    program: ProgramOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: list[object] = []

    def follow(at: tuple[str | int, ...]) -> str:
        followed.append(at)
        return path_of(at)

    monkeypatch.setattr(bodies, "path_of", follow)
    caller = program()
    wrong = caller.post("/contributors", {"a": ["\x00"] * 2_000})
    unknown = caller.post("/contributors", {f"field{n}": n for n in range(90)})
    for answer in (wrong, unknown):
        assert len(problem_of(answer)["errors"]) == ERRORS_MAX
    assert len(followed) == ERRORS_MAX


WRONG_FIELDS: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"family_nam": "x"}, {"family_nam": "unknown"}),
    ({"cnss_number": "77"}, {"cnss_number": "malformed"}),
    ({"cnss_number": 123456789}, {"cnss_number": "wrong_type"}),
    ({"family_name": ""}, {"family_name": "too_short"}),
    ({"family_name": "   "}, {"family_name": "malformed"}),
    ({"family_name": "El\nIdrissi"}, {"family_name": "malformed"}),
    ({"family_name": "x" * 121}, {"family_name": "too_long"}),
    ({"category": "baker"}, {"category": "not_one_of"}),
    ({"language": "en"}, {"language": "not_one_of"}),
    ({"category": "cpu"}, {"category_base": "contradicts"}),
    ({"category_base": 420.5}, {"category_base": "wrong_type"}),
    ({"category_base": "4,20"}, {"category_base": "malformed"}),
    ({"registered_on": "31/01/2022"}, {"registered_on": "malformed"}),
    ({"registered_on": 1700000000}, {"registered_on": "malformed"}),
    ({"left_on": "2021-01-01"}, {"left_on": "contradicts"}),
    ({"phone": "12", "cin": "-"}, {"phone": "malformed", "cin": "malformed"}),
]


def test_a_field_that_is_wrong_is_named_and_its_value_is_not_repeated(program: ProgramOf) -> None:
    caller = program()
    for changed, fields in WRONG_FIELDS:
        said = problem_of(caller.post("/contributors", {**PERSON, **changed}))
        together = "contradicts" in fields.values()
        code = "fields_contradict" if together else "invalid_body"
        assert (said["code"], fields_of(said)) == (code, fields)
        text = json.dumps(said, ensure_ascii=False)
        for value in [*PERSON.values(), *changed.values()]:
            if len(str(value)) > 3 and value not in {"artisan-untaxed", "cpu"}:
                assert str(value) not in text
    said = problem_of(caller.post("/contributors", {**PERSON, "cnss_number": 123456789}))
    assert said["errors"][0]["detail"] == "It must be a text, in quotes."


WRONG_ADDRESSES = [
    ("/invoices?statu=open&limit=1", "unknown_parameter", {"statu": "unknown"}),
    ("/me?x", "unknown_parameter", {"x": "unknown"}),
    ("/invoices?limit=0", "invalid_parameter", {"limit": "out_of_range"}),
    ("/invoices?limit=201", "invalid_parameter", {"limit": "out_of_range"}),
    (
        "/invoices?due_from=2026-11-02&due_to=2026-11-01",
        "fields_contradict",
        {"due_from": "contradicts", "due_to": "contradicts"},
    ),
    (
        "/payments?paid_from=2026-11-02&paid_to=2026-11-01",
        "fields_contradict",
        {"paid_from": "contradicts", "paid_to": "contradicts"},
    ),
    ("/invoices?limit=1.0", "invalid_parameter", {"limit": "malformed"}),
    ("/invoices?limit=1&limit=2", "invalid_parameter", {"limit": "repeated"}),
    ("/invoices?region=", "invalid_parameter", {"region": "too_short"}),
    ("/invoices?region=%00", "invalid_parameter", {"region": "malformed"}),
    ("/invoices?status=settled", "invalid_parameter", {"status": "not_one_of"}),
    ("/invoices?due_from=2026-02-30", "invalid_parameter", {"due_from": "malformed"}),
    ("/invoices?cursor=AAAA", "bad_cursor", {"cursor": "malformed"}),
    ("/events?after=%F0%9F%92%A9", "invalid_parameter", {"after": "malformed"}),
    ("/contributors/0", "no_such_address", {"id": "malformed"}),
    ("/contributors/9%00", "no_such_address", {"id": "malformed"}),
    ("/contributors/999999999999999999", "contributor_not_found", None),
    ("/invoices/1482", "no_such_address", {"reference": "malformed"}),
    ("/nothing", "no_such_address", None),
    ("/invoices/", "no_such_address", None),
    ("/receipt", "no_such_address", None),
    ("", "no_such_address", None),
]


def test_an_address_that_is_wrong(program: ProgramOf) -> None:
    caller = program()
    for path, code, fields in WRONG_ADDRESSES:
        said = problem_of(caller.get(path))
        assert (said["code"], said.get("errors") and fields_of(said)) == (code, fields)


def test_headers_that_are_wrong(program: ProgramOf) -> None:
    caller = program()
    said = problem_of(caller.post("/invoices", {}, once="two words"))
    assert (said["code"], fields_of(said)) == ("invalid_body", said and fields_of(said))
    body = {"contributor_id": "1", "period": "2026-11"}
    said = problem_of(caller.post("/invoices", body, once="two words"))
    assert (said["code"], fields_of(said)) == (
        "invalid_parameter",
        {"Idempotency-Key": "malformed"},
    )
    long = 'application/json; a="' + ";" * 300
    for media_type in ("text/plain", "application/json; charset=utf-16", "", "x", long):
        answer = caller.ask(
            "POST", "/contributors", content=b"{}", headers={"Content-Type": media_type}
        )
        assert problem_of(answer)["code"] == "not_json"


def test_methods(program: ProgramOf) -> None:
    caller = program()
    for method, path, allowed in (
        ("DELETE", "/invoices", "GET, HEAD, POST"),
        ("OPTIONS", "/contributors/1", "GET, HEAD, PATCH"),
        ("GET", "/contributors/search", "POST"),
        ("PUT", "/references/check", "POST"),
        ("TRACE", "/me", "GET, HEAD"),
        ("BREW", "/me", "GET, HEAD"),
    ):
        answer = caller.ask(method, path)
        assert problem_of(answer)["code"] == "method_not_allowed"
        assert answer.headers["allow"] == allowed
    got, head = caller.get("/me"), caller.ask("HEAD", "/me")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


def test_a_fault_of_ours_says_nothing_and_names_the_request(program: ProgramOf) -> None:
    caller, reference = program(), states.an_invoice()
    with transaction() as session:
        execute(session, "ALTER TABLE invoice_line RENAME TO invoice_line_away")
    with capture_logs() as logged:
        answer = caller.get(f"/invoices/{reference}")
    assert problem_of(answer)["code"] == "fault"
    (entry,) = [each for each in logged if each["event"] == "unforeseen_error"]
    assert entry["request"] == answer.headers["x-request-id"]
    assert not re.search("line_away|Fatima|SELECT|psycopg", answer.text)


def test_a_database_that_is_away(program: ProgramOf, services: Services) -> None:
    caller: Program = program()
    db.connect(address_of(services, "nowhere"))
    answer = caller.get("/me")
    assert problem_of(answer)["code"] == "unavailable"
    assert int(answer.headers["retry-after"]) > 0
