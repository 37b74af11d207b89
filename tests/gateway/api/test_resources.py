from __future__ import annotations

from datetime import date
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from gateway.api.exceptions import RESOLVED_BY_RUNS
from gateway.billing.presentment import Standing
from gateway.db import execute, snapshot, transaction
from gateway.exception_queue import Finding, open_exceptions
from gateway.models import ExceptionCode, Role
from gateway.settings import settings
from reconciliation.matching import OpenCode
from tests.factories import NOON, a_report, broken_promises, record
from tests.gateway.api.conftest import FES, ProgramOf
from tests.gateway.api.test_problems import PERSON, problem_of
from tests.gateway.pages import states

CHANGE = {"phone": "0612345678", "cin": None, "region": FES}


def test_a_contributor_is_enrolled_read_changed_and_found(program: ProgramOf) -> None:
    caller = program()
    made = caller.post("/contributors", {**PERSON, "cin": "ab 123456".replace(" ", "")})
    person = made.json()
    assert made.headers["location"] == f"/v1/contributors/{person['id']}"
    assert (person["cin"], person["language"]) == ("AB123456", None)
    again = caller.post("/contributors", {**PERSON, "cin": "AB123456"})
    assert (again.status_code, again.json()) == (200, person)
    other = caller.post("/contributors", {**PERSON, "given_name": "Houda"})
    assert problem_of(other)["code"] == "contributor_exists"
    changed = caller.ask("PATCH", f"/contributors/{person['id']}", CHANGE).json()
    # What may be a mistake is told to who writes it, and is nothing of the person.
    assert [warning["field"] for warning in changed.pop("warnings")] == ["cnss_number"]
    assert (changed["phone"], changed["cin"], changed["region"]) == ("+212612345678", None, FES)
    assert caller.get(f"/contributors/{person['id']}").json() == changed
    for body, fits in (
        ({"cnss_number": "123456789"}, True),
        ({"phone": "00212612345678", "name": "zahra IDRISSI"}, True),
        ({"cin": "AB123456"}, False),
        ({"name": "%"}, False),
        ({"name": "_"}, False),
        ({"cnss_number": "123456789", "name": "Houda"}, False),
    ):
        found = caller.post("/contributors/search", body).json()["data"]
        assert found == ([changed] if fits else []), body
    for refused in ({}, {"name": "el " * 9}):
        assert problem_of(caller.post("/contributors/search", refused))["code"] == "invalid_body"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"cnss_number": "1"}, "cnss_number"),
        ({"category": None}, "category"),
    ]
    for change, field in wrong:
        said = problem_of(caller.ask("PATCH", f"/contributors/{person['id']}", change))
        assert said["errors"][0]["field"] == field
    assert problem_of(caller.ask("PATCH", "/contributors/99", {}))["code"] == (
        "contributor_not_found"
    )


def test_pages_lead_through_all_of_a_list(program: ProgramOf) -> None:
    caller = program()
    issued = [states.an_invoice(region=FES if n % 2 else "Oriental") for n in range(5)]
    seen, path = [], "/invoices?limit=2"
    while path:
        answer = caller.get(path)
        page = answer.json()
        seen += [row["reference"] for row in page["data"]]
        link = answer.headers.get("link", "")
        path = link.partition(">")[0].removeprefix("</v1") if link else ""
        assert bool(path) == bool(page["next_cursor"])
    assert seen == issued
    cursor = caller.get("/invoices?limit=2").json()["next_cursor"]
    carried = caller.get(f"/invoices?limit=2&region=Oriental&cursor={cursor}")
    assert problem_of(carried)["code"] == "bad_cursor"
    bent = cursor[:-2] + ("A" if cursor[-2] != "A" else "B") + cursor[-1]
    assert problem_of(caller.get(f"/invoices?cursor={bent}"))["code"] == "bad_cursor"
    filtered = caller.get(f"/contributors?region={FES}").json()["data"]
    assert len(filtered) == 2


def test_filters_by_status_say_what_each_invoice_says(program: ProgramOf) -> None:
    caller = program()
    states.an_invoice(), states.an_invoice("2026-10"), states.an_invoice("2024-10")
    states.paid(), states.paid(6000), states.cancelled(), states.cleared()
    record(a_report(states.an_invoice("2024-11"), amount_minor=100))
    # Late, and charged more since: the database cannot tell from its day alone.
    states.noted(states.an_invoice("2026-09"), 5000, due_on=date(2026, 12, 31))
    # Credited in full, then charged by a later day: open, though its own day has passed.
    charged = states.cleared()
    states.noted(charged, 16352, due_on=date(2026, 12, 31))
    states.noted(charged, 5000, due_on=date(2026, 12, 31))
    everything = caller.get("/invoices").json()["data"]
    assert {row["status"] for row in everything} == set(Standing)
    for status in Standing:
        found = caller.get(f"/invoices?status={status}").json()["data"]
        assert found == [row for row in everything if row["status"] == status], status
    october = caller.get("/invoices?due_from=2026-10-01&due_to=2026-10-31").json()["data"]
    assert october == [row for row in everything if row["period"] == "2026-10"] != []
    assert caller.get("/invoices?due_from=0001-01-01&due_to=9999-12-31").status_code == 200
    whose = everything[0]["contributor_id"]
    assert len(caller.get(f"/invoices?contributor={whose}&period=2026-11").json()["data"]) == 1


def test_one_invoice_is_issued_explained_and_taken_back(program: ProgramOf) -> None:
    caller = program()
    person = caller.post("/contributors", PERSON).json()["id"]
    wanted = {"contributor_id": person, "period": "2026-11"}
    made = caller.post("/invoices", wanted)
    invoice = made.json()
    assert (made.status_code, invoice["amount"], invoice["status"]) == (201, "163.52", "open")
    assert [line["kind"] for line in invoice["lines"]] == ["principal"]
    assert invoice["links"]["pdf"].endswith(f"/{invoice['reference']}.pdf")
    again = caller.post("/invoices", wanted)
    assert (again.status_code, again.json()) == (200, invoice)
    for period in ("2026-Q4", "2021-12", "2000-01", "2027-12"):
        answer = caller.post("/invoices", {**wanted, "period": period})
        assert problem_of(answer)["code"] == "nothing_owed", period
    path = f"/invoices/{invoice['reference']}/cancel"
    taken = caller.post(path, {"because": " Enrolled twice "}).json()
    assert (taken["status"], taken["cancelled_because"]) == ("cancelled", "Enrolled twice")
    for again_at, given in ((path, {"because": "x"}), ("/invoices", wanted)):
        assert problem_of(caller.post(again_at, given))["code"] == "invoice_cancelled"
    paid = caller.post(f"/invoices/{states.paid()}/cancel", {"because": "x"})
    assert problem_of(paid)["code"] == "invoice_paid_on"
    told = [event["type"] for event in caller.get("/events").json()["data"]]
    assert told[:2] == ["invoice.issued", "invoice.cancelled"]
    assert broken_promises() == []


def test_a_period_that_is_billed_on_another_file_is_answered_with_that(program: ProgramOf) -> None:
    caller = program()
    stands, other = (
        caller.post("/contributors", {**PERSON, "cnss_number": number}).json()["id"]
        for number in ("170345218", "170345226")
    )
    made = caller.post("/invoices", {"contributor_id": other, "period": "2026-11"}).json()
    with transaction() as session:
        execute(
            session,
            "UPDATE contributor SET merged_into_id = :stands WHERE id = :other",
            {"stands": int(stands), "other": int(other)},
        )
    again = caller.post("/invoices", {"contributor_id": stands, "period": "2026-11"})
    assert (again.status_code, again.json()["reference"]) == (200, made["reference"])


def test_no_day_is_billed_twice(program: ProgramOf) -> None:
    caller = program()
    person = caller.post("/contributors", PERSON).json()["id"]
    october, november, quarter = (
        {"contributor_id": person, "period": period} for period in ("2026-10", "2026-11", "2026-Q4")
    )
    made = caller.post("/invoices", october).json()["reference"]
    moved = {"category": "cpu", "category_base": "420.00"}
    caller.ask("PATCH", f"/contributors/{person}", moved)
    said = problem_of(caller.post("/invoices", quarter))
    assert (said["code"], "2026-10" in said["detail"]) == ("nothing_owed", True)
    caller.post(f"/invoices/{made}/cancel", {"because": "Billed by quarters since"})
    assert caller.post("/invoices", quarter).status_code == 201
    back = {"category": "artisan-untaxed", "category_base": None}
    caller.ask("PATCH", f"/contributors/{person}", back)
    assert problem_of(caller.post("/invoices", november))["code"] == "nothing_owed"


def test_a_payment_is_explained(program: ProgramOf) -> None:
    caller, reference = program(), states.paid(6000, 20000)
    listed = caller.get(f"/payments?reference={reference}").json()["data"]
    assert [row["amount"] for row in listed] == ["60.00", "200.00"]
    read = caller.get(f"/payments/{listed[1]['id']}").json()
    assert {key: read[key] for key in listed[1]} == listed[1]
    assert read["receipt_number"].startswith("R26-")
    assert [(a["reference"], a["amount"]) for a in read["allocations"]] == [(reference, "103.52")]
    moved = {(t["debit"], t["credit"].partition(":")[0], t["amount"]) for t in read["transfers"]}
    assert moved == {
        ("clearing:cashplus", "payable", "103.52"),
        ("clearing:cashplus", "credit", "96.48"),
    }
    back = caller.get("/payments?status=reversed").json()["data"]
    states.taken_back()
    (reversed_one,) = caller.get("/payments?status=reversed").json()["data"]
    assert back == []
    assert len(caller.get(f"/payments/{reversed_one['id']}").json()["transfers"]) == 2
    for query, many in (
        ("paid_from=2026-11-18", 3),
        ("paid_to=2026-11-17", 0),
        ("channel=card", 0),
    ):
        assert len(caller.get(f"/payments?{query}").json()["data"]) == many, query


def example_of(app: FastAPI, name: str) -> dict[str, Any]:
    (shown,) = app.openapi()["components"]["schemas"][name]["examples"]
    return dict(shown)


def test_an_exception_is_decided_once_and_told(app: FastAPI, program: ProgramOf) -> None:
    caller, approver = program(Role.FINANCE), program(Role.APPROVER)
    record(a_report(states.an_invoice(), amount_minor=20000), a_report("000000000000"))
    listed = approver.get("/exceptions?state=open").json()["data"]
    assert {row["code"] for row in listed} == {"overpaid", "unknown_reference"}
    (one,) = approver.get("/exceptions?code=overpaid").json()["data"]
    assert approver.get(f"/exceptions?subject={one['subject']}").json()["data"] == [one]
    path = f"/exceptions/{one['id']}/resolve"
    assert approver.post(path, {"because": "x"}).status_code == 403
    after = caller.get("/events").json()["next_cursor"]
    done = caller.post(path, {"because": "Refunded by hand"}).json()
    key_id = caller.get("/me").json()["key_id"]
    assert done["resolution"] == f"Refunded by hand — key {key_id} (ours)"
    assert (done["state"], done["resolved_at"]) == ("resolved", "2026-11-18T12:00:00Z")
    assert problem_of(caller.post(path, {"because": "again"}))["code"] == "exception_resolved"
    told = caller.get(f"/events?after={after}").json()["data"]
    assert [(e["type"], e["data"]["exception"]) for e in told] == [
        ("exception.resolved", one["id"])
    ]
    assert caller.post("/exceptions/99/resolve", {"because": "x"}).status_code == 404
    assert done["detail"].keys() == example_of(app, "ExceptionRecord")["detail"].keys()


def test_what_is_found_anew_or_not_done_is_not_resolved_by_hand(program: ProgramOf) -> None:
    caller = program()
    with transaction() as session:
        keep = (
            "INSERT INTO webhook_delivery (provider, delivery_id, body, body_sha256, received_at,"
        )
        execute(
            session,
            f"{keep} state, last_error) VALUES ('cashplus', 'a/b', '{{}}',"
            " sha256('{}'), :now, 'parked', 'x')",
            {"now": NOON},
        )
        findings = [
            Finding(ExceptionCode.PARKED_DELIVERY, "delivery:cashplus/a/b"),
            Finding(ExceptionCode.PARKED_DELIVERY, "delivery:cashplus/gone"),
            *(Finding(code, "record:1") for code in sorted(RESOLVED_BY_RUNS)),
        ]
        open_exceptions(session, findings, now=NOON)
    assert caller.get("/service").json()["waiting"]["parked_deliveries"] == 1
    codes = [
        caller.post(f"/exceptions/{row['id']}/resolve", {"because": "seen"}).json().get("code")
        for row in caller.get("/exceptions").json()["data"]
    ]
    assert codes == ["delivery_parked", "parked_delivery", *["resolved_by_runs"] * 4]
    # Booking says that something was paid twice, too; what is taken back is nobody's question.
    others = {OpenCode.PAID_TWICE, OpenCode.TAKEN_BACK}
    assert {code.value for code in RESOLVED_BY_RUNS} == set(OpenCode) - others


def test_a_feed_is_followed_from_its_end(app: FastAPI, program: ProgramOf) -> None:
    caller = program()
    first = caller.get("/events").json()
    assert first["data"] == []
    states.an_invoice(), states.an_invoice()
    page = caller.get(f"/events?limit=1&after={first['next_cursor']}").json()
    rest = caller.get(f"/events?after={page['next_cursor']}").json()
    assert (len(page["data"]), len(rest["data"])) == (1, 1)
    assert page["data"][0]["id"] < rest["data"][0]["id"]
    # What one type passed over, another has not read.
    none = caller.get("/events?type=payment.booked").json()
    assert none["data"] == []
    other = caller.get(f"/events?after={none['next_cursor']}")
    assert problem_of(other)["code"] == "bad_cursor"
    states.paid()
    after = f"type=payment.booked&after={none['next_cursor']}"
    (booked,) = caller.get(f"/events?{after}").json()["data"]
    assert booked["data"].keys() == example_of(app, "EventRecord")["data"].keys()


TYPED = [
    ("RF74 1482 7503 6141", None),
    ("١٤٨٢ ٧٥٠٣ ٦١٤١", None),
    ("148275036142", "check"),
    ("1482", "length"),
    ("", "empty"),
    ("facture", "letters"),
]


def test_typed_text_is_read_as_every_form_reads_it(program: ProgramOf) -> None:
    caller = program(Role.AGENT)
    for text, slip in TYPED:
        said = caller.post("/references/check", {"text": text}).json()
        assert said["slip"] == slip
        assert said["reference"] == ("148275036141" if slip is None else None)


def test_a_reference_says_what_to_take(program: ProgramOf) -> None:
    agent = program(Role.AGENT)
    for reference, status, payable, due in (
        (states.an_invoice(), "open", True, "163.52"),
        (states.paid(6000), "part_paid", True, "103.52"),
        (states.paid(), "paid", False, "0.00"),
        (states.an_invoice("2024-10"), "expired", False, "185.81"),
        (states.cancelled(), "cancelled", False, "0.00"),
    ):
        said = agent.get(f"/references/{reference}").json()
        assert (said["status"], said["payable"], said["due"]) == (status, payable, due)
    assert agent.get(f"/references/{states.announced()}").json()["announced"] is True


def test_the_service_says_how_it_stands(program: ProgramOf) -> None:
    record(a_report(states.an_invoice()), a_report("000000000000"))
    said = program().get("/service").json()
    assert (said["mode"], said["now"]) == ("sandbox", "2026-11-18T12:00:00Z")
    assert {"name": "cashplus", "kind": "standard-webhooks"} in said["providers"]
    assert said["last_batch"] == 1
    waiting = {"deliveries": 0, "parked_deliveries": 0, "receipts": 1, "open_exceptions": 1}
    assert said["waiting"] == waiting
    # Somebody is at the file: what this process has read of it holds.
    settings().providers_file.write_text('[[provider]]\nname = "bank"\n')
    edited = program().get("/service").json()
    assert {"name": "cashplus", "kind": "unknown"} in edited["providers"]


def test_the_description_names_all_that_is_stable(app: FastAPI) -> None:
    said = app.openapi()
    # Answers may get new fields, so no description may rule them out.
    assert "additionalProperties" not in said["components"]["schemas"]["Invoice"]
    assert said["components"]["schemas"]["NewInvoice"]["additionalProperties"] is False
    assert "fields_contradict" in str(said["paths"]["/v1/contributors"]["post"]["responses"]["409"])
    assert set(said["components"]["schemas"]["ExceptionCode"]["enum"]) == set(ExceptionCode)
    assert {"/healthz", "/readyz", "/webhooks/{sender}"} <= set(said["paths"])
    assert not [path for path in said["paths"] if path.startswith(("/{", "/verify", "/docs"))]
    for path, item in said["paths"].items():
        for operation in item.values():
            assert operation["summary"]
            for answer in operation["responses"].values():
                assert "HTTPValidationError" not in str(answer), path
            if path.startswith("/v1/"):
                assert operation["security"] == [{"key": []}]
                assert "x-roles" in operation
    client = TestClient(app)
    page = client.get("/docs")
    assert page.status_code == 200
    for address in ("/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"):
        assert f'"{address}"' in page.text
        assert client.get(address).status_code == 200
    assert "https://" not in page.text
    assert "script-src 'self';" in page.headers["content-security-policy"]


def test_examples_are_what_is_answered_and_taken(app: FastAPI) -> None:
    """An example with a field that is gone, or without a new one, would mislead."""
    schemas: dict[str, Any] = app.openapi()["components"]["schemas"]
    for name, schema in schemas.items():
        for example in schema.get("examples", ()):
            assert example.keys() <= schema["properties"].keys(), name
            assert set(schema.get("required", ())) <= example.keys(), name


def test_large_lists_are_read_by_an_index(program: ProgramOf) -> None:
    program().get("/me")
    with snapshot() as session:
        execute(session, "SET LOCAL enable_seqscan = off")
        plan = "\n".join(
            execute(
                session,
                "EXPLAIN SELECT * FROM contributor WHERE region = 'x' AND id > 5"
                " ORDER BY id LIMIT 50",
            ).scalars()
        )
    assert "contributor_region_id_idx" in plan
    assert "Sort" not in plan
