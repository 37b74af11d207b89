"""`/v1/bundles`: who may pay what together, and what an agent takes for it."""

from __future__ import annotations

import pytest

from gateway.api import limits
from gateway.db import execute, transaction
from gateway.models import Role
from tests.factories import a_report, balances, record
from tests.gateway.api.conftest import FES, RABAT, ProgramOf
from tests.gateway.api.test_problems import problem_of
from tests.gateway.pages import states


def test_an_agent_makes_one_and_is_told_what_to_take(program: ProgramOf) -> None:
    agent = program(Role.AGENT)
    first, second = states.an_invoice(), states.an_invoice("2026-10")
    answer = agent.post("/bundles", {"references": [first, second]})
    made = answer.json()
    assert (answer.status_code, made["due"], made["payable"]) == (201, "328.68", True)
    assert answer.headers["location"] == f"/v1/bundles/{made['reference']}"
    assert [each["reference"] for each in made["invoices"]] == [first, second]
    assert agent.get(f"/bundles/{made['reference']}").json() == made
    said = agent.get(f"/references/{made['reference']}").json()
    assert (said["due"], said["status"], said["payer"]) == ("328.68", "late", None)
    assert [each["due"] for each in said["invoices"]] == ["163.52", "165.16"]


def test_a_payment_says_what_it_paid_and_what_is_credit(program: ProgramOf) -> None:
    caller = program()
    first, second = states.an_invoice(), states.an_invoice("2026-10")
    made = caller.post("/bundles", {"references": [first, second]}).json()["reference"]
    record(a_report(made, amount_minor=32868))
    record(a_report(states.an_invoice(), amount_minor=20000))
    payment, beyond = caller.get("/payments").json()["data"]
    assert (payment["bundle"], payment["reference"]) == (made, None)
    said = caller.get(f"/payments/{payment['id']}").json()
    assert [(a["reference"], a["component"], a["amount"]) for a in said["allocations"]] == [
        (first, "principal", "163.52"),
        (second, "principal", "163.52"),
        (second, "penalty", "1.64"),
    ]
    assert said["credit"] == "0.00"
    assert caller.get(f"/payments/{beyond['id']}").json()["credit"] == "36.48"
    assert len(caller.get(f"/payments?reference={made}").json()["data"]) == 1


def test_files_of_one_person_are_one_payer(program: ProgramOf) -> None:
    """So that what goes beyond is theirs, and waits for nobody."""
    references = [states.an_invoice(), states.an_invoice()]
    with transaction() as session:
        execute(
            session,
            "UPDATE contributor SET merged_into_id = (SELECT max(id) FROM contributor)"
            " WHERE id = (SELECT min(id) FROM contributor)",
        )
    made = program().post("/bundles", {"references": references}).json()["reference"]
    record(a_report(made, amount_minor=2 * 16352 + 100))
    assert "suspense:unidentified" not in balances()


def test_what_cannot_be_bundled_is_named(program: ProgramOf) -> None:
    caller, reference = program(), states.an_invoice()
    for references, code in (
        ([reference, reference], "fields_contradict"),
        ([reference, states.nobodys()], "invoice_not_found"),
        ([reference, reference[:-2] + "00"], "reference_mistyped"),
        ([reference, states.cancelled()], "invoice_cancelled"),
        ([states.paid()], "fields_contradict"),
    ):
        said = problem_of(caller.post("/bundles", {"references": references}))
        assert said["code"] == code
        if len(references) > 1:
            assert [each["field"] for each in said["errors"]] == ["references[1]"]
    empty = problem_of(caller.post("/bundles", {"references": []}))["errors"]
    assert [(e["code"], e["detail"]) for e in empty] == [
        ("too_short", "It has too few entries: at least 1.")
    ]
    stranger = caller.get("/contributors").json()["data"][-1]["id"]
    wanted = {"references": [reference], "contributor_id": stranger}
    said = problem_of(caller.post("/bundles", wanted))
    assert (said["code"], said["errors"][0]["field"]) == ("fields_contradict", "contributor_id")
    wanted = {"references": [reference], "contributor_id": "99"}
    assert problem_of(caller.post("/bundles", wanted))["code"] == "contributor_not_found"
    missing = caller.get(f"/bundles/{reference}")
    assert problem_of(missing)["code"] == "bundle_not_found"


def test_a_chamber_bundles_and_reads_its_region_only(program: ProgramOf) -> None:
    ours, theirs = states.an_invoice(region=FES), states.an_invoice(region=RABAT)
    chamber, finance = program(Role.CHAMBER, FES), program(Role.FINANCE)
    refused = chamber.post("/bundles", {"references": [ours, theirs]})
    assert problem_of(refused)["code"] == "invoice_not_found"
    own = chamber.post("/bundles", {"references": [ours]}).json()["reference"]
    mixed = finance.post("/bundles", {"references": [ours, theirs]}).json()["reference"]
    assert chamber.get(f"/bundles/{own}").status_code == 200
    assert chamber.get(f"/bundles/{mixed}").status_code == 404
    record(a_report(own, amount_minor=100), a_report(mixed, amount_minor=100))
    assert [row["bundle"] for row in chamber.get("/payments").json()["data"]] == [own]


def test_bundling_is_no_way_to_guess_references(
    program: ProgramOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MISSES_MAX", 2)
    agent = program(Role.AGENT)
    answers = [agent.post("/bundles", {"references": [states.nobodys(n)]}) for n in range(3)]
    assert [problem_of(each)["code"] for each in answers] == [
        "invoice_not_found",
        "invoice_not_found",
        "too_many_misses",
    ]
    assert agent.get(f"/references/{states.an_invoice()}").status_code == 429
