"""Extract and erasure as programs and commands ask for them, and pages afterwards."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pypdfium2
import pytest
from click.testing import CliRunner
from fastapi import FastAPI
from starlette.testclient import TestClient

from gateway.cli import wasl
from gateway.cli.shared import Refused
from gateway.db import connect
from gateway.errors import Unusable
from gateway.models import Role
from tests.factories import rows_of
from tests.gateway.api.conftest import FES, ProgramOf
from tests.gateway.pages.conftest import set_clock
from tests.gateway.privacy.story import (
    GHIZLANE,
    LATER,
    NEIGHBOUR,
    WHY,
    erased,
    places_of,
    rows_in,
    told,
)


def test_extract_and_erasure_by_role_once(
    database: str, home: Path, program: ProgramOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(home, GHIZLANE, NEIGHBOUR)
    path = f"/contributors/{GHIZLANE.id}"
    document = program(Role.FINANCE).get(f"{path}/extract").json()
    assert document["contributor_id"] == str(GHIZLANE.id)
    assert rows_in(document, "register")[0]["cin"] == GHIZLANE.cin
    assert len(rows_in(document, "deliveries")) == 2
    missing = program().get("/contributors/999/extract")
    assert (missing.status_code, missing.json()["code"]) == (404, "contributor_not_found")
    for role in set(Role) - {Role.ADMIN, Role.FINANCE}:
        refused = program(role, FES if role is Role.CHAMBER else None).get(f"{path}/extract")
        assert refused.json()["code"] == "role_may_not", role

    admin, body = program(), {"why": WHY}
    assert program(Role.FINANCE).post(f"{path}/erasure", body).json()["code"] == "role_may_not"
    early = admin.post(f"{path}/erasure", body, once="one")
    assert (early.status_code, early.json()["code"]) == (409, "not_erasable")
    assert "has not left" in early.json()["detail"]
    set_clock(monkeypatch, LATER)
    naming = admin.post(f"{path}/erasure", {"why": f"of {GHIZLANE.family_name}"})
    assert (naming.status_code, naming.json()["code"]) == (409, "fields_contradict")
    assert GHIZLANE.family_name not in naming.text
    done = admin.post(f"{path}/erasure", body, once="one")
    assert (done.status_code, done.json()["found"]["contributor"]) == (200, 1)
    assert admin.post(f"{path}/erasure", body, once="one").json() == done.json()
    again = admin.post(f"{path}/erasure", body)
    assert (again.status_code, again.json()["code"]) == (409, "not_erasable")
    assert places_of(database, GHIZLANE.tokens) == set()

    left = admin.get(path).json()
    assert (left["family_name"], left["cin"], left["phone"]) == ("", None, None)
    assert left["erased_at"] == "2038-01-05T12:00:00Z"
    assert admin.ask("PATCH", path, {"phone": None}).json()["code"] == "fields_contradict"
    search = admin.post("/contributors/search", {"name": GHIZLANE.family_name})
    assert search.json()["data"] == []
    for address in ("", "/standing", "/activities", "/plans"):
        assert admin.get(path + address).status_code == 200, address
    assert admin.get(f"/references/{GHIZLANE.reference}").json()["payer"]["initials"] == ""
    assert admin.get("/contributors").status_code == 200


def test_pages_and_papers_by_reference_still_work_and_name_nobody(
    database: str, home: Path, app: FastAPI, program: ProgramOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(home, GHIZLANE)
    ((receipt,),) = rows_of(database, "SELECT number FROM receipt")
    ((attestation,),) = rows_of(database, "SELECT number FROM attestation")
    client = TestClient(app, raise_server_exceptions=False)
    addresses = [
        f"/{GHIZLANE.reference}{rest}"
        for rest in ("", "?lang=ar", ".pdf", ".svg", "/receipt", "/receipt.pdf")
    ] + [f"/verify/{receipt}", f"/verify/{attestation}"]
    before = {address: client.get(address) for address in addresses}
    assert any("G. Z." in answer.text for answer in before.values())

    erased(GHIZLANE)
    for address in addresses:
        answer = client.get(address)
        assert answer.status_code == before[address].status_code, address
        text = answer.text
        if answer.headers["content-type"] == "application/pdf":
            with pypdfium2.PdfDocument(answer.content) as pdf:
                text = "".join(page.get_textpage().get_text_range() for page in pdf)
            assert GHIZLANE.reference[:4] in text
        assert "G. Z." not in text, address
        assert not any(token in text for token in GHIZLANE.tokens), address
    paper = program().get(f"/attestations/{attestation}.pdf")
    assert (paper.status_code, paper.headers["content-type"]) == (200, "application/pdf")


def test_the_commands(database: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told(home, GHIZLANE, NEIGHBOUR)
    set_clock(monkeypatch, LATER)
    file = home / "extract.json"
    run = CliRunner().invoke
    command = ["contributors", "extract", GHIZLANE.cnss_number, "--out", str(file)]
    said = run(wasl, [*command, "--json"])
    assert json.loads(said.output)["sections"]["institution_records"] == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    document = json.loads(file.read_text("utf-8"))
    assert rows_in(document, "register")[0]["given_name_ar"] == GHIZLANE.given_name_ar

    erase = ["contributors", "erase", GHIZLANE.cnss_number]
    trial = run(wasl, [*erase, "--why", WHY, "--dry-run"])
    assert "would be erased:\n  1 row of contributor\n" in trial.output
    connect(database)
    assert len(places_of(database, GHIZLANE.tokens)) > 10
    done = run(wasl, [*erase, "--why", WHY, "--json"])
    assert json.loads(done.output)["erased"] is True
    assert places_of(database, GHIZLANE.tokens) == set()
    ((asked_by,),) = rows_of(database, "SELECT asked_by FROM erasure")
    assert asked_by.startswith("command line (")
    assert "Nobody is enrolled" in str(run(wasl, [*erase, "--why", WHY]).exception)

    by_date = run(wasl, ["contributors", "erase", "--due"])
    assert by_date.output == "1 person erased.\n"
    assert places_of(database, NEIGHBOUR.tokens) == set()
    for wrong in (
        [],
        [GHIZLANE.cnss_number],
        [GHIZLANE.cnss_number, "--due"],
        ["--due", "--dry-run"],
    ):
        assert isinstance(run(wasl, ["contributors", "erase", *wrong]).exception, Unusable), wrong


def test_a_refusal_is_an_answer(database: str, home: Path) -> None:
    told(home, GHIZLANE)
    command = ["contributors", "erase", GHIZLANE.cnss_number, "--why", WHY]
    refused = CliRunner().invoke(wasl, command)
    assert isinstance(refused.exception, Refused)
    # The machine's own clock: the registration has not ended, or not long ago.
    assert refused.output.startswith(("The person has not left", "The earliest day is 2036-11-30"))
