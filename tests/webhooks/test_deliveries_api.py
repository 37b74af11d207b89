"""What an operator sees of deliveries, and has acted on again, by API and by command."""

from __future__ import annotations

import json
import re
from typing import Any, Final
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from gateway import process
from gateway.cli import wasl
from gateway.cli.shared import Refused
from gateway.errors import Unusable
from gateway.models import Role
from gateway.settings import settings
from tests.factories import (
    NOON,
    a_delivery,
    a_desk,
    an_event,
    rows_of,
    some_invoices,
)
from tests.gateway.api.conftest import ProgramOf, app, program
from tests.gateway.api.test_problems import problem_of
from tests.webhooks.test_inbox import Faulty, a_variant, raises
from tests.webhooks.test_replay import park
from webhooks.inbox import drain
from webhooks.replay import drain_replays

__all__ = ["app", "program"]

PERSON: Final = {"payer_name": "Fatima Zahra", "cnss_number": "123456785"}
WHY: Final = {"because": "The adapter was mended"}


def test_deliveries_are_found_in_pages_by_what_is_known_of_them(
    database: str, program: ProgramOf
) -> None:
    references = some_invoices(3)
    named = [a_delivery(an_event(each)) for each in references]
    drain(a_desk(), batches_max=9)
    a_delivery(b'{"poison": 1}', delivery_id="a/b c")
    park(database, a_desk(Faulty(b"{", raises(RuntimeError("a fault")))))
    waiting = a_delivery(b"{}", provider="kiosk")
    caller = program(Role.APPROVER)

    def found(query: str) -> list[str]:
        return [each["delivery_id"] for each in caller.get(f"/deliveries?{query}").json()["data"]]

    assert found("provider=cashplus") == [*named, "a/b c"]
    assert found("state=parked") == found("delivery_id=a%2Fb%20c") == ["a/b c"]
    assert found("state=waiting") == [waiting]
    assert found("outcome=booked&received_from=2026-11-18&received_to=2026-11-18") == named
    assert found("received_to=2026-11-17") == []
    first = caller.get("/deliveries?limit=2").json()
    rest = caller.get(f"/deliveries?limit=9&cursor={first['next_cursor']}").json()
    assert [each["delivery_id"] for each in (*first["data"], *rest["data"])] == [
        *named,
        "a/b c",
        waiting,
    ]
    wrong = problem_of(caller.get("/deliveries?received_from=2026-11-18&received_to=2026-11-17"))
    assert wrong["code"] == "fields_contradict"


def test_a_delivery_is_shown_without_what_is_personal_in_it(
    database: str, program: ProgramOf
) -> None:
    (reference,) = some_invoices()
    body = an_event(reference, **PERSON)
    named = a_delivery(body)
    a_variant(an_event(reference, amount="1.00"), named)
    drain(a_desk(), batches_max=9)
    for role in Role:
        answer = program(role).get(f"/deliveries/cashplus/{named}")
        sees = role in {Role.ADMIN, Role.FINANCE}
        assert answer.status_code == (200 if sees or role is Role.APPROVER else 403), role
        if answer.status_code == 200:
            said = answer.json()
            assert (said["state"], said["outcome"], said["bytes"]) == ("done", "booked", len(body))
            assert [each["readable"] for each in said["variants"]] == [True]
            assert (said["body"] is not None) is sees
            assert not re.search("Fatima|123456785", answer.text)
            assert sees is (reference in answer.text)


def test_what_could_not_be_read_is_shown_and_cannot_be_replayed(
    database: str, program: ProgramOf
) -> None:
    a_variant(b"Fatima \xff", "msg_none", readable=False)
    caller = program()
    said = caller.get("/deliveries/cashplus/msg_none").json()
    assert (said["state"], said["body"], said["variants"][0]["bytes"]) == ("unreadable", None, 8)
    refused = problem_of(caller.post("/deliveries/cashplus/msg_none/replay", WHY))
    assert (refused["status"], refused["code"]) == (409, "delivery_unreadable")
    for method, path in (("GET", "/x"), ("POST", "/x/replay")):
        body = WHY if method == "POST" else None
        answer = caller.ask(method, f"/deliveries/cashplus{path}", body)
        assert problem_of(answer)["code"] == "delivery_not_found"
    assert problem_of(caller.get("/replays/7"))["code"] == "replay_not_found"


def test_a_replay_is_ordered_once_and_kept_with_who_and_why(
    database: str, program: ProgramOf
) -> None:
    (reference,) = some_invoices()
    odd = "a/b?c é/replay"
    a_delivery(an_event(reference), delivery_id=odd)
    park(database, a_desk(Faulty(b"{", raises(RuntimeError("a fault")))))
    caller = program(Role.FINANCE)
    path = f"/deliveries/cashplus/{quote(odd, safe='')}"
    first = caller.post(f"{path}/replay", WHY, once="a")
    again = caller.post(f"{path}/replay", WHY, once="a")
    assert (first.status_code, first.content) == (201, again.content)
    where = first.headers["location"].removeprefix("/v1")
    order = caller.get(where).json()
    assert order == first.json()
    assert order["asked_by"].endswith("(ours)")
    assert (order["because"], order["chosen"], order["waiting"]) == (WHY["because"], 1, 1)
    assert order["filter"] == {"provider": "cashplus", "delivery_id": odd}
    assert rows_of(database, "SELECT count(*) FROM webhook_replay") == [(1,)]
    drain_replays(a_desk(), batches_max=9)
    assert caller.get(where).json()["outcomes"] == {"booked": 1}
    (kept,) = caller.get(path).json()["replays"]
    assert (kept["because"], kept["outcome"]) == (WHY["because"], "booked")
    assert problem_of(program(Role.APPROVER).post(f"{path}/replay", WHY))["code"] == "role_may_not"


def test_a_replay_of_many_is_counted_first(database: str, program: ProgramOf) -> None:
    for each in some_invoices(3):
        a_delivery(an_event(each))
    drain(a_desk(), batches_max=9)
    caller = program()
    wanted = {**WHY, "filter": {"outcome": "booked", "received_from": "2026-11-18"}}
    counted = caller.post("/replays", {**wanted, "dry_run": True})
    assert (counted.status_code, counted.json()["chosen"], counted.json()["id"]) == (200, 3, None)
    assert rows_of(database, "SELECT count(*) FROM webhook_replay") == [(0,)]
    ordered = caller.post("/replays", wanted)
    assert (ordered.status_code, ordered.json()["waiting"]) == (201, 3)
    for dry_run in (True, False):
        refused = caller.post("/replays", {**WHY, "filter": {}, "dry_run": dry_run})
        assert problem_of(refused)["code"] == "replay_too_wide"
    for because in (" ", "Of 123456785"):
        said = {"filter": {"state": "parked"}, "because": because}
        unsaid = problem_of(caller.post("/replays", said))
        assert (unsaid["code"], unsaid["errors"][0]["field"]) == ("invalid_body", "because")


# -- by command -----------------------------------------------------------------------------------


def run(*words: str) -> tuple[int, Any]:
    done = CliRunner().invoke(wasl, ["deliveries", *words, "--json"])
    if isinstance(done.exception, Unusable):
        return 2, str(done.exception)
    refused = isinstance(done.exception, Refused)
    assert refused or done.exit_code == 0, done.output
    return int(refused), json.loads(done.stdout)


def test_by_command(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WASL_CLOCK", f"={NOON.isoformat()}")
    settings.cache_clear()
    (reference,) = some_invoices()
    a_delivery(an_event(reference, **PERSON), delivery_id="msg_1")
    a_delivery(b"{", delivery_id="msg_2", provider="gone")
    park(database, a_desk(Faulty(b"{", raises(RuntimeError("a fault")))))
    why = ("--why", "The adapter was mended", "--by", "Houda")
    code, listed = run("list", "--state", "parked")
    assert (code, [each["delivery_id"] for each in listed["deliveries"]]) == (0, ["msg_1"])
    assert run("list", "--limit", "1")[1]["next"] is not None
    assert run("release", *why, "--dry-run")[1] == {
        "replay": None,
        "chosen": 1,
        "waiting": 0,
        "outcomes": {},
    }
    code, released = run("release", *why)
    assert (code, released["outcomes"]) == (0, {"booked": 1})
    code, shown = run("show", "cashplus", "msg_1")
    asked_by = shown["replays"][0]["asked_by"]
    assert shown["state"] == "done"
    # Whoever is named, the account that ran the command stands beside it.
    assert asked_by.startswith("Houda, by command line (")
    assert "[masked]" in shown["body"]
    assert "Fatima" not in shown["body"]
    # Of a provider that is switched off: it waits, and that is said.
    code, waits = run("replay", "--from", "2026-11-18", "--to", "2026-11-18", *why)
    assert (code, waits["waiting"], waits["outcomes"]) == (1, 1, {"repeated": 1})
    assert run("replay", *why)[0] == run("show", "cashplus", "x")[0] == 2
    assert run("list", "--from", "2026-11-19", "--to", "2026-11-18") == (2, "--from is after --to.")
    assert run("release", "--why", "Of 123456785", "--dry-run")[0] == 2
    assert run("replay", "--id", "msg_9", *why)[0] == 1
    for wrong in (("--provider", "nobody"), ("--outcome", "funny")):
        for command in (("list",), ("replay", *why), ("replay", "--dry-run", *why)):
            code, sentence = run(*command, *wrong)
            assert code == 2
            assert wrong[1] in sentence
    assert run("release", "--provider", "nobody", *why)[0] == 2
    assert len(run("list", "--provider", "gone")[1]["deliveries"]) == 1
    assert run("list", "--provider", "kiosk", "--outcome", "declined_nothing_due")[0] == 0
    before = ("--before", "2026-11-19")
    for more in ((), ("--sooner",), ("--sooner", "--dry-run")):
        code, sentence = run("mask", *before, *more)
        assert code == 2
        assert "has not begun" in sentence
    monkeypatch.setenv("WASL_CLOCK", "=2026-11-19T12:00:00+00:00")
    settings.cache_clear()
    process.business_clock.cache_clear()
    for more in ((), ("--dry-run",)):
        code, sentence = run("mask", *before, *more)
        assert code == 2
        assert "--sooner" in sentence
    assert run("mask", "--sooner")[0] == 2, "sooner than what, is not said"
    assert run("mask", *before, "--sooner", "--dry-run")[1]["deliveries"] == 1
    assert run("mask", *before, "--sooner") == (
        0,
        {"deliveries": 1, "variants": 0, "dry_run": False},
    )
    assert run("mask")[1]["deliveries"] == 0
    kept = rows_of(database, "SELECT body FROM webhook_delivery WHERE delivery_id = 'msg_1'")
    assert b"Fatima" not in bytes(kept[0][0])
