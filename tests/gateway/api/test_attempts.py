"""`/v1/attempts`: a program sends a payer out, once, and asks how that stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import process
from gateway.collection.inquiries import ask_due
from gateway.db import execute, transaction
from gateway.models import Role
from gateway.settings import settings
from gateway.simulators.aggregatorpage import Server as Codes
from gateway.simulators.walletpush import Server as Push
from tests.factories import NOON, rows_of
from tests.gateway.api.conftest import ProgramOf
from tests.gateway.api.test_problems import fields_of, problem_of
from tests.gateway.pages import states
from tests.stand_in import a_push_standing_in, codes_entry, codes_standing_in, push_entry

CMI = (
    '[[provider]]\nname = "cmi"\nkind = "cmi"\nclient_id = "600000000"\n'
    'store_key = "TESTkey0123456789"\napi_base = "http://127.0.0.1:8425"\n'
)


@pytest.fixture
def push() -> Iterator[Push]:
    with a_push_standing_in() as server:
        yield server


@pytest.fixture
def codes() -> Iterator[Codes]:
    with codes_standing_in() as server:
        yield server


@pytest.fixture
def agent(
    program: ProgramOf, push: Push, codes: Codes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ProgramOf:
    path = tmp_path / "providers.toml"
    path.write_text(CMI + push_entry(push.address) + codes_entry(codes.address))
    monkeypatch.setenv("WASL_PROVIDERS", str(path))
    settings.cache_clear()
    process.providers.cache_clear()
    return program


def refused(answer: Any, code: str) -> dict[str, Any]:
    said = problem_of(answer)
    assert said["code"] == code
    return said


def test_a_card_page_is_led_to_by_a_form_that_is_never_kept(
    agent: ProgramOf, database: str
) -> None:
    caller, reference = agent(Role.AGENT), states.an_invoice()
    wish = {"reference": reference, "channel": "card"}
    answers = [caller.post("/attempts", wish, once="a") for _ in range(2)]
    first, again = (each.json() for each in answers)
    assert [each.status_code for each in answers] == [201, 201]
    assert first == again, "made again from what is known"
    assert (first["step"], first["provider"], first["amount"]) == ("form", "cmi", "163.52")
    assert {"name": "amount", "value": "163.52"} in first["fields"]
    assert rows_of(database, "SELECT body FROM idempotent_answer") == [(b"",)], "bound, and empty"
    refused(
        caller.post("/attempts", {**wish, "language": "ar"}, once="a"), "idempotency_key_reused"
    )
    at = answers[0].headers["location"].removeprefix("/v1")
    read = caller.get(at).json()
    assert (read["status"], read["step"], read["fields"]) == ("open", "wait", [])


def test_no_wallet_is_asked_for_more_than_any_may_hold(
    agent: ProgramOf, push: Push, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, reference = agent(Role.AGENT), states.an_invoice()
    wish = {"reference": reference, "channel": "wallet", "phone": "0612345678"}
    states.wallets_hold(monkeypatch, tmp_path, "50.00", "100.00", verified=True)
    said = refused(caller.post("/attempts", wish, once="k"), "amount_above_ceiling")
    assert said["status"] == 409
    assert "100.00" in said["detail"]
    assert push.operator.requests == {}
    states.wallets_hold(monkeypatch, tmp_path, "50.00", "100.00", verified=False)
    assert caller.post("/attempts", wish, once="k").status_code == 201, "it is not confirmed"


def test_a_phone_is_asked_once_under_a_key_and_its_number_is_kept_nowhere(
    agent: ProgramOf, push: Push, database: str
) -> None:
    caller, reference = agent(Role.AGENT), states.an_invoice()
    wish = {"reference": reference, "channel": "wallet"}
    assert fields_of(refused(caller.post("/attempts", wish), "invalid_body")) == {
        "phone": "missing"
    }
    for phone in ("0512345678", "zero six"):
        answer = caller.post("/attempts", {**wish, "phone": phone})
        assert fields_of(refused(answer, "invalid_body")) == {"phone": "malformed"}
    wish["phone"] = "+212612345678"
    first = caller.post("/attempts", wish, once="k")
    assert (first.status_code, first.json()["step"], first.json()["url"]) == (201, "wait", None)
    assert caller.post("/attempts", wish, once="k").headers["idempotency-replayed"] == "true"
    other = {**wish, "language": "ar"}
    refused(caller.post("/attempts", other, once="k"), "idempotency_key_reused")
    [asked] = push.operator.requests.values()
    # Another way must wait for his word.
    held = caller.post("/attempts", {"reference": reference, "provider": "cmi"})
    refused(held, "attempt_undecided")
    assert held.headers["location"] == f"/v1/attempts/{first.json()['id']}"
    push.operator.decide(asked, "confirm")
    with transaction() as session:
        execute(session, "UPDATE payment_attempt SET ask_at = '-infinity'")
    ask_due(process.providers(), key=process.signing_key(), clock=lambda: NOON, asks_max=5)
    read = caller.get(f"/attempts/{first.json()['id']}").json()
    assert read["status"] == "paid"
    again = caller.post("/attempts", wish, once="k")
    assert (again.status_code, again.json()) == (201, read), "as it stands now"
    assert again.headers["location"] == first.headers["location"]
    refused(caller.post("/attempts", wish), "nothing_due")
    kept = "SELECT a::text FROM payment_attempt a UNION SELECT encode(body, 'escape') FROM"
    assert "12345678" not in str(rows_of(database, f"{kept} idempotent_answer"))


def test_a_code_for_several_and_who_may(agent: ProgramOf, codes: Codes) -> None:
    both = states.several(states.an_invoice(), states.an_invoice("2026-12"))
    wish = {"reference": both, "channel": "cash_agent", "language": "ar"}
    for role in (Role.SUPERVISOR, Role.APPROVER, Role.CHAMBER, Role.PROVIDER):
        refused(agent(role).post("/attempts", wish), "role_may_not")
    made = agent(Role.FINANCE).post("/attempts", wish).json()
    [order] = codes.aggregator.orders.values()
    assert (made["step"], made["code"], made["amount"]) == ("code", order.code, "327.04")
    assert made["links"]["code"] == f"{made['links']['page']}/code"
    read = agent(Role.SUPERVISOR).get(f"/attempts/{made['id']}").json()
    assert read == made


def test_what_cannot_be_begun_says_why(agent: ProgramOf, push: Push) -> None:
    caller, reference = agent(Role.AGENT), states.an_invoice()
    wish = {"reference": reference, "provider": "momo", "phone": "0612345678"}
    for change, code in (
        ({"provider": "nobody"}, "way_not_found"),
        ({"channel": "card"}, "way_not_found"),
        ({"reference": "148275036142"}, "reference_mistyped"),
        ({"reference": "148275036141"}, "reference_not_found"),
    ):
        refused(caller.post("/attempts", {**wish, **change}), code)
    refused(caller.get(f"/attempts/wasl_{'0' * 32}"), "attempt_not_found")
    push.operator.away = True
    away = caller.post("/attempts", wish, once="later")
    refused(away, "provider_away")
    assert away.headers["retry-after"] == "60"
    push.operator.away = False
    # His phone may ring for the first: the key is bound.
    refused(
        caller.post("/attempts", {**wish, "language": "ar"}, once="later"), "idempotency_key_reused"
    )
    assert push.operator.requests == {}
    assert caller.post("/attempts", wish, once="later").status_code == 201
