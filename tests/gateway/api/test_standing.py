"""Standing and attestations, as programs ask for them."""

from __future__ import annotations

import pypdfium2

from gateway.models import Role
from tests.gateway.api.conftest import FES, RABAT, ProgramOf
from tests.gateway.people.test_standing import billed, pay


def test_a_standing_is_told_to_who_may_see_the_person(program: ProgramOf) -> None:
    person, references = billed("2026-10", region=FES)
    said = program(Role.SUPERVISOR).get(f"/contributors/{person}/standing").json()
    assert said["contributor_id"] == str(person)
    assert (said["on"], said["up_to_date"], said["since"]) == ("2026-11-18", False, "2026-11-01")
    assert said["arrears"] == [
        {
            "period": "2026-10",
            "reference": references["2026-10"],
            "due_on": "2026-10-31",
            "principal": "163.52",
            "penalty": "1.64",
            "fee": "0.00",
            "due": "165.16",
        }
    ]
    assert (said["total_due"], said["currency"], said["credit"]) == ("165.16", "MAD", "0.00")
    assert (said["rights"]["state"], said["rights"]["verified"]) == ("closed", False)
    path = f"/contributors/{person}/standing"
    before = program(Role.CHAMBER, FES).get(f"{path}?on=2026-10-31").json()
    assert (before["up_to_date"], before["total_due"]) == (True, "0.00")
    assert before["rights"]["until"] == "2026-10-31"

    assert program(Role.CHAMBER, RABAT).get(path).json()["code"] == "contributor_not_found"
    assert program(Role.AGENT).get(path).json()["code"] == "role_may_not"
    for wrong in ("2020-12-31", "2028-01-01", "9999-12-31"):
        answer = program().get(f"{path}?on={wrong}").json()
        assert (answer["code"], answer["errors"][0]["field"]) == ("fields_contradict", "on")


def test_an_attestation_is_made_once_a_day_and_read_as_paper(program: ProgramOf) -> None:
    person, references = billed("2026-10", region=FES, family_name="Zniber")
    path = f"/contributors/{person}/attestations"
    chamber = program(Role.CHAMBER, FES)
    refused = chamber.post(path, None)
    assert (refused.status_code, refused.json()["code"]) == (409, "not_up_to_date")
    assert "2026-10" in refused.json()["detail"]

    pay(references["2026-10"], "2026-11-18")
    first, again = chamber.post(path, None), chamber.post(path, None)
    assert (first.status_code, again.status_code) == (201, 200)
    made = first.json()
    assert again.json() == made
    assert (made["last_period"], made["valid_until"], made["standing"]) == (
        "2026-10",
        "2026-12-31",
        "stands",
    )
    paper = chamber.get(f"/attestations/{made['number']}.pdf")
    assert paper.headers["content-type"] == "application/pdf"
    with pypdfium2.PdfDocument(paper.content) as pdf:
        assert len(pdf) == 1
        text = pdf[0].get_textpage().get_text_range()
    for part in (made["number"], "Zniber", "31\u00a0décembre\u00a02026", "SPÉCIMEN"):
        assert part in text, part
    elsewhere = program(Role.CHAMBER, RABAT).get(f"/attestations/{made['number']}.pdf")
    assert elsewhere.json()["code"] == "attestation_not_found"
    assert program(Role.SUPERVISOR).post(path, None).json()["code"] == "role_may_not"
    assert (
        program().get("/attestations/A26-000000001.pdf").json()["code"] == "attestation_not_found"
    )
    assert program(Role.CHAMBER, RABAT).post(path, None).json()["code"] == "contributor_not_found"
