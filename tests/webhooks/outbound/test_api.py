"""`/v1/webhook-endpoints` and `wasl endpoints`."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, cast

import pytest
from click.testing import CliRunner

from gateway.db import snapshot, transaction
from gateway.http.endpoints import EndpointStanding, of_endpoints, read_endpoints
from gateway.models import EventType, Role
from tests.factories import NOON, rows_of
from tests.gateway.api.conftest import ProgramOf, app, program
from tests.webhooks.outbound.receiver import Answer, receiving
from tests.webhooks.outbound.test_sending import an_endpoint, means, told
from webhooks.outbound import endpoints
from webhooks.outbound.sending import serve

__all__ = ["app", "program"]

NEW = {"types": ["reconciliation.finished"], "description": "Accounting"}


def test_an_endpoint_from_its_beginning_to_its_end(
    database: str,
    program: ProgramOf,
) -> None:
    admin, finance = program(), program(Role.FINANCE)
    with receiving() as receiver:
        asked = {**NEW, "url": receiver.url}
        added = admin.post("/webhook-endpoints", asked, once="k1")
        assert added.status_code == 201, added.text
        endpoint, secret = added.json()["id"], added.json()["secret"]
        again = admin.post("/webhook-endpoints", asked, once="k1").json()
        assert again == {**added.json(), "secret": None}
        at = f"/webhook-endpoints/{endpoint}"
        events = told(3)
        serve(int(endpoint), means())
        assert all(each.verifies(secret) for each in receiver.got)
        said = finance.get(at).json()
        assert (said["state"], said["taken"], said["behind"]) == ("enabled", 3, 0)
        rolled = admin.post(f"{at}/roll", {}, once="k2").json()
        assert rolled["secret"] != secret
        assert rolled["others_end_at"] is not None
        assert admin.post(f"{at}/roll", {}, once="k2").json()["secret"] is None
        assert finance.post(f"{at}/disable", {"because": "It moves"}).json()["state"] == "disabled"
        span = {"event": str(events[0])}
        assert finance.post(f"{at}/resend", span).json()["code"] == "endpoint_disabled"
        assert finance.post(f"{at}/enable", None).json()["state"] == "enabled"
        changed = admin.ask("PATCH", at, {"types": ["plan.made", "plan.made"]}).json()
        assert changed["types"] == ["plan.made"]
        nothing = finance.post(f"{at}/resend", span).json()
        assert nothing["code"] == "nothing_to_resend"
        assert admin.ask("DELETE", at).status_code == 200
        assert admin.ask("DELETE", at).json()["code"] == "endpoint_not_found"
        assert admin.get("/webhook-endpoints").json()["data"] == []
    assert rows_of(database, "SELECT count(*) FROM webhook_secret") == [(0,)]
    kept = rows_of(database, "SELECT body FROM idempotent_answer")
    assert not any(
        secret.encode() in bytes(body) or rolled["secret"].encode() in bytes(body)
        for (body,) in kept
    )


def test_what_was_sent_is_listed_and_sent_again(
    program: ProgramOf,
) -> None:
    admin, finance = program(), program(Role.FINANCE)
    with receiving() as receiver:
        added = admin.post("/webhook-endpoints", {**NEW, "url": receiver.url}).json()
        endpoint, at = added["id"], f"/webhook-endpoints/{added['id']}"
        events = told(3)
        serve(int(endpoint), means())
        span = {"from_event": str(events[0]), "to_event": str(events[1])}
        counted = finance.post(f"{at}/resend", {**span, "dry_run": True}).json()
        assert counted == {"dry_run": True, "events": 2, "order": None}
        order = finance.post(f"{at}/resend", span).json()["order"]
        assert finance.post(f"{at}/test", None).status_code == 201
        receiver.answer = lambda got: Answer(500 if got.id.startswith("test") else 204)
        serve(int(endpoint), means())
        listed = finance.get(f"{at}/orders").json()["data"]
        assert [(each["kind"], each["taken"], each["last_error"]) for each in listed] == [
            ("test", 0, "answered 500"),
            ("resend", 2, None),
        ]
        assert listed[1]["id"] == order["id"]
        attempts = finance.get(f"{at}/attempts?event={events[0]}").json()["data"]
        assert [each["status"] for each in attempts] == [204, 204]
        assert len({each["message_id"] for each in attempts}) == 1
        failed = finance.get(f"{at}/attempts?failed=true&limit=1").json()
        assert failed["data"][0]["error"] == "answered 500"
        first = finance.get(f"{at}/attempts?limit=4").json()
        rest = finance.get(f"{at}/attempts?limit=4&cursor={first['next_cursor']}").json()
        ids = [int(each["id"]) for each in first["data"] + rest["data"]]
        assert ids == sorted(ids, reverse=True)
        assert len(ids) == 6
        half = finance.post(f"{at}/resend", {"from_event": "1"})
        assert half.json()["code"] == "fields_contradict"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "https://erp.example.ma/", "types": []}, "types"),
        ({"url": "https://erp.example.ma/", "types": ["everything"]}, "types[0]"),
    ],
)
def test_what_cannot_be_told_is_refused_by_name(
    program: ProgramOf,
    body: dict[str, object],
    field: str,
) -> None:
    answer = program().post("/webhook-endpoints", body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_body")
    assert [each["field"] for each in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("url", ["https://10.0.0.8/hook", "https://a@erp.example.ma/"])
def test_an_address_to_which_nothing_would_go_is_refused(program: ProgramOf, url: str) -> None:
    answer = program().post("/webhook-endpoints", {**NEW, "url": url})
    assert (answer.status_code, answer.json()["code"]) == (409, "address_refused")
    assert url not in answer.text


def test_who_collects_learns_nothing_and_finance_gives_nobody_access(
    program: ProgramOf,
) -> None:
    body = {**NEW, "url": "https://erp.example.ma/"}
    for role in (Role.FINANCE, Role.APPROVER, Role.CHAMBER, Role.AGENT):
        assert program(role).post("/webhook-endpoints", body).status_code == 403
    assert program(Role.CHAMBER, "Fès-Meknès").get("/webhook-endpoints").status_code == 403
    assert program(Role.APPROVER).get("/webhook-endpoints").status_code == 200


def test_metrics_say_how_far_behind_each_is(database: str) -> None:
    with receiving() as receiver:
        endpoint, _ = an_endpoint(receiver.url)
        receiver.answer = lambda _: Answer(500)
        told(4)
        serve(endpoint, means())
        later = NOON + timedelta(seconds=90)
        with snapshot() as session:
            (said,) = read_endpoints(session, now=later).items()
        standing = EndpointStanding(
            enabled=True, lag_seconds=90.0, behind=4, failing=1, taken=0, failed=1
        )
        assert said == (str(endpoint), standing)
        receiver.answer = lambda _: Answer()
        with transaction() as session:
            assert endpoints.lock(session, endpoint) is not None
            endpoints.enable(session, endpoint, by="a test", now=NOON)
        serve(endpoint, means())
        with snapshot() as session:
            read = read_endpoints(session, now=later)
        samples = {f.name: [s.value for s in f.samples] for f in of_endpoints(read)}
    assert samples == {
        "wasl_endpoint_enabled": [1],
        "wasl_endpoint_lag_seconds": [0],
        "wasl_endpoint_behind": [0],
        "wasl_endpoint_failing": [0],
        "wasl_endpoint_taken": [4],
        "wasl_endpoint_failures": [1],
    }


def test_the_commands(database: str) -> None:
    from gateway.cli import wasl
    from gateway.db import connect

    def ran(*said: str, exit_code: int = 0) -> dict[str, object]:
        result = CliRunner().invoke(wasl, ["endpoints", *said, "--json"], standalone_mode=False)
        assert (result.exit_code, type(result.exception).__name__) in {
            (0, "NoneType"),
            (1, "Refused"),
        }, result.output
        assert result.exit_code == exit_code, result.output
        read: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
        return read

    with receiving() as receiver:
        added = ran("add", receiver.url, "--type", EventType.PLAN_MADE.value)
        endpoint, secret = str(added["endpoint"]), str(added["secret"])
        assert ran("test", endpoint)["taken"] is True
        assert receiver.got[0].verifies(secret)
        receiver.answer = lambda _: Answer(500)
        assert ran("test", endpoint, exit_code=1)["error"] == "answered 500"
        assert ran("roll", endpoint)["secret"] != secret
        ran("disable", endpoint, "--why", "It moves on Monday")
        ran("enable", endpoint)
        attempts = ran("attempts", endpoint, "--failed")["attempts"]
        assert isinstance(attempts, list)
        assert len(attempts) == 1
        assert ran("resend", endpoint, "--event", "1", "--dry-run", exit_code=1)["events"] == 0
        connect(database)
        first, last = map(str, told(2, EventType.PLAN_MADE))
        receiver.answer = lambda _: Answer()
        serve(int(endpoint), means())
        for span, sentence in (
            (["--event", first], "1 event is sent again."),
            (["--from", first, "--to", last], "2 events are sent again."),
        ):
            words = ["endpoints", "resend", endpoint, *span]
            assert sentence in CliRunner().invoke(wasl, words).output
        assert len(cast(Any, ran("list")["endpoints"])[0]["resends"]) == 2
        connect(database)
        receiver.answer = lambda _: Answer(500)
        serve(int(endpoint), means())
        listed = CliRunner().invoke(wasl, ["endpoints", "list"]).output
        assert "2 taken; 0 events behind" in listed
        assert f"up to {first}; failing: answered 500, 1 time; again at 20" in listed
        ran("remove", endpoint)
        assert ran("list")["endpoints"] == []


def test_by_a_command_nothing_is_sent_while_sending_is_held(database: str) -> None:
    from gateway.cli import wasl
    from gateway.db import connect
    from gateway.sending import hold

    with receiving() as receiver:
        endpoint, _ = an_endpoint(receiver.url)
        told(3)
        with transaction() as session:
            hold(session, because="restored from a backup", who="wasl restore", now=NOON)
        words = ["endpoints", "test", str(endpoint)]
        result = CliRunner().invoke(wasl, words, standalone_mode=False)
        connect(database)
        assert receiver.got == []
        assert "Sending is held" in str(result.exception)
