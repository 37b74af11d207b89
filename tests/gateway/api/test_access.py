from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi import FastAPI
from limits import RateLimitItemPerMinute

from gateway.api import limits
from gateway.api.access import MAY, Right
from gateway.db import execute, transaction
from gateway.models import Role
from gateway.staff import revoke_key
from tests.factories import NOON, a_report, record
from tests.gateway.api.conftest import FES, RABAT, ProgramOf
from tests.gateway.pages import states

NOBODYS = {
    "id": "999",
    "reference": "148275036141",
    "number": "A26-000000001",
    "provider": "nobody",
    "delivery_id": "msg_1",
}


def operations(app: FastAPI) -> list[tuple[str, str, dict[str, Any]]]:
    """Return every operation of the API: method, path below the prefix, description."""
    return [
        (method.upper(), path.removeprefix("/v1"), operation)
        for path, item in app.openapi()["paths"].items()
        if path.startswith("/v1/")
        for method, operation in item.items()
    ]


def test_each_role_may_what_the_table_says_and_nothing_else(
    app: FastAPI, program: ProgramOf
) -> None:
    for role in Role:
        caller = program(role)
        for method, path, operation in operations(app):
            body: dict[str, str] | None = {} if method != "GET" else None
            answer = caller.ask(method, path.format(**NOBODYS), body)
            allowed = Right(operation["x-right"]) in MAY[role]
            assert (answer.status_code != 403) is allowed, (role, method, path)
            assert (role.value in operation["x-roles"]) is allowed
            assert str(answer.status_code) in operation["responses"], (method, path, answer.text)
            if not allowed:
                assert answer.json()["code"] == "role_may_not"


def test_the_table_keeps_people_and_books_from_those_who_only_collect() -> None:
    for role in (Role.AGENT, Role.SUPERVISOR, Role.PROVIDER):
        assert not {r for r in MAY[role] if r.value.startswith(("contrib", "invoi", "books"))}
    assert {r.value.rpartition(":")[2] for r in MAY[Role.APPROVER]} == {
        "read",
        "approve",
        "refuse",
    }
    for role in (Role.AGENT, Role.CHAMBER):
        written = {r for r in MAY[role] if not r.value.endswith(":read")}
        allowed = {Right.MAKE_BUNDLES, Right.ATTEST, Right.BEGIN_ATTEMPTS}
        assert Right.MAKE_BUNDLES in written <= allowed
    others = {Right.READ_KEYS, Right.ERASE, Right.WRITE_ENDPOINTS, Right.APPROVE_REFUNDS}
    assert MAY[Role.ADMIN] - MAY[Role.FINANCE] == others
    for role in Role:
        assert not {Right.ASK_REFUNDS, Right.APPROVE_REFUNDS} <= MAY[role]
    collects = {Right.LOOK_UP_REFERENCES, Right.READ_BUNDLES, Right.MAKE_BUNDLES}
    sends_out = {Right.READ_ATTEMPTS, Right.BEGIN_ATTEMPTS}
    assert MAY[Role.AGENT] == {*collects, *sends_out, Right.BE_KNOWN}


def test_a_stranger_learns_that_a_key_is_needed_and_nothing_else(
    app: FastAPI, program: ProgramOf
) -> None:
    stranger = program(None)
    for method, path, _ in operations(app):
        answer = stranger.ask(method, path.format(**NOBODYS) + "?x=1", content=b"\x00" * 99_999)
        assert (answer.status_code, answer.json()["code"]) == (401, "no_key")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["cache-control"] == "no-store"


def test_keys_that_open_nothing_are_bounded_and_hold_up_no_right_one(
    app: FastAPI, program: ProgramOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNKNOWN_KEYS_MAX", 2)
    right, wrong = program(), program(None)
    bad = {"Authorization": "Bearer wasl_0123456789abcdef_x"}
    codes = [wrong.get("/me", headers=bad).json()["code"] for _ in range(3)]
    assert codes == ["unknown_key", "unknown_key", "too_many_unknown_keys"]
    assert int(wrong.get("/me", headers=bad).headers["retry-after"]) > 0
    assert right.get("/me").status_code == 200


def test_a_revoked_key_opens_nothing(program: ProgramOf) -> None:
    admin, other = program(), program(Role.FINANCE)
    key_id = other.get("/me").json()["key_id"]
    with transaction() as session:
        revoke_key(session, key_id, now=NOON)
    assert other.get("/me").json()["code"] == "unknown_key"
    listed = {key["id"]: key["revoked_at"] for key in admin.get("/keys").json()["data"]}
    assert listed[key_id] == "2026-11-18T12:00:00Z"
    assert sorted(map(str, listed.values())) == ["2026-11-18T12:00:00Z", "None"]


def test_requests_of_a_key_are_counted(program: ProgramOf, monkeypatch: pytest.MonkeyPatch) -> None:
    caller, other = program(Role.AGENT), program(Role.AGENT)
    first = caller.get("/me").headers
    second = caller.get("/me").headers
    assert int(first["ratelimit-remaining"]) - int(second["ratelimit-remaining"]) == 1
    monkeypatch.setattr(limits, "_REQUESTS", RateLimitItemPerMinute(2))
    answers = [caller.get("/me") for _ in range(3)]
    assert [a.status_code for a in answers] == [200, 200, 429]
    assert answers[2].json()["code"] == "too_many_requests"
    assert 0 < int(answers[2].headers["retry-after"]) <= 60
    assert other.get("/me").status_code == 200


# -- a chamber sees its region ---------------------------------------------------------------------


def test_a_chamber_sees_its_region_only(program: ProgramOf) -> None:
    ours, theirs = states.an_invoice(region=FES), states.an_invoice(region=RABAT)
    record(a_report(ours), a_report(theirs), a_report("000000000000"))
    finance, chamber = program(Role.FINANCE), program(Role.CHAMBER, FES)
    everything = {path: finance.get(path).json()["data"] for path in LISTS}
    seen = {path: chamber.get(path).json()["data"] for path in LISTS}
    assert {path: len(rows) for path, rows in everything.items()} == {
        "/contributors": 2,
        "/invoices": 2,
        "/payments": 3,
        "/events": 6,
    }
    assert {path: len(rows) for path, rows in seen.items()} == {
        "/contributors": 1,
        "/invoices": 1,
        "/payments": 1,
        "/events": 2,
    }
    # What is hidden does not exist: the same answer as for what never was.
    for path, rows in everything.items():
        for row in rows:
            if path == "/events":
                continue
            name = row["reference"] if path == "/invoices" else row["id"]
            status = 200 if row in seen[path] or _same(row, seen[path]) else 404
            assert chamber.get(f"{path}/{name}").status_code == status, (path, row)
    for where in ("region", "province"):
        assert chamber.get(f"/contributors?{where}={RABAT}").json()["data"] == []
    assert chamber.post("/contributors/search", {"name": "Fatima"}).json()["data"] == [
        {**seen["/contributors"][0]}
    ]


LISTS = ("/contributors", "/invoices", "/payments", "/events")


def _same(row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    return any(
        each.get("id", each.get("reference")) == row.get("id", row.get("reference"))
        for each in rows
    )


def test_a_chamber_without_a_region_sees_nobody(program: ProgramOf) -> None:
    record(a_report(states.an_invoice()), a_report(states.an_invoice(region=FES)))
    chamber = program(Role.CHAMBER)
    for path in LISTS:
        assert chamber.get(path).json()["data"] == [], path


def test_a_cursor_is_of_one_list_and_one_scope(program: ProgramOf) -> None:
    for region in (FES, FES, RABAT, RABAT):
        states.an_invoice(region=region)
    finance, chamber = program(Role.FINANCE), program(Role.CHAMBER, FES)
    cursor = finance.get("/invoices?limit=1").json()["next_cursor"]
    assert chamber.get(f"/invoices?limit=1&cursor={cursor}").json()["code"] == "bad_cursor"
    events = finance.get("/events").json()["next_cursor"]
    assert chamber.get(f"/events?after={events}").json()["code"] == "bad_cursor"
    # Nor does it tell how many rows there are.
    assert chamber.get("/events").json()["next_cursor"] != events
    assert len({finance.get("/events").json()["next_cursor"] for _ in range(3)}) == 3


# -- those who collect see no person ---------------------------------------------------------------


def test_a_provider_sees_its_own_payments_and_no_person(program: ProgramOf) -> None:
    reference = states.an_invoice()
    record(a_report(reference, amount_minor=100), a_report(reference, provider="wallet"))
    provider, nobody = program(Role.PROVIDER, "wallet"), program(Role.PROVIDER)
    (own,) = provider.get("/payments").json()["data"]
    assert (own["provider"], own["contributor_id"]) == ("wallet", None)
    detail = provider.get(f"/payments/{own['id']}").json()
    assert detail["transfers"] is None
    others = program(Role.FINANCE).get("/payments?provider=cashplus").json()["data"]
    assert provider.get(f"/payments/{others[0]['id']}").status_code == 404
    whose = others[0]["contributor_id"]
    assert provider.get(f"/payments?contributor={whose}").json()["data"] == []
    assert nobody.get("/payments").json()["data"] == []


def test_who_collects_sees_initials(program: ProgramOf) -> None:
    reference = states.an_invoice()
    for role in (Role.AGENT, Role.SUPERVISOR, Role.PROVIDER):
        answer = program(role).get(f"/references/{reference}")
        assert answer.json()["payer"] == {"initials": "F. Z. E. I.", "initials_ar": "ف. ز. إ."}
        assert not re.search("|".join(states.SECRETS), answer.text)


def test_references_are_not_to_be_guessed(
    program: ProgramOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MISSES_MAX", 2)
    agent, reference = program(Role.AGENT), states.an_invoice()
    assert agent.get("/references/148275036142").json()["code"] == "reference_mistyped"
    misses = [agent.get(f"/references/{states.nobodys(n)}").json()["code"] for n in range(3)]
    assert misses == ["reference_not_found", "reference_not_found", "too_many_misses"]
    assert agent.get(f"/references/{reference}").status_code == 429
    assert program(Role.AGENT).get(f"/references/{reference}").status_code == 200


def test_no_answer_of_a_key_says_its_secret(program: ProgramOf) -> None:
    caller = program()
    with transaction() as session:
        (hashed,) = execute(session, "SELECT secret_sha256::text FROM api_key").one()
    assert caller.key is not None
    # The secret may have underscores itself.
    secret = caller.key.split("_", 2)[2]
    for path in ("/me", "/keys", "/service"):
        text = caller.get(path).text
        assert secret not in text
        assert hashed not in text
