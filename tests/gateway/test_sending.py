"""Nothing goes out while sending is held, and nothing is lost by it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from gateway import sending
from gateway.cli import wasl
from gateway.db import connect
from gateway.errors import Unusable
from gateway.tasks import ask_providers, carry_out_refunds, tell_people
from tests.factories import NOON, issue
from tests.gateway.messages.test_messages import kinds, somebody
from tests.gateway.pages.conftest import set_clock
from webhooks.tasks import send_callbacks, send_events

SENDING = (ask_providers, carry_out_refunds, tell_people, send_callbacks, send_events)


def run(database: str, *words: str) -> str:
    """Return what a command prints. It closes the database when it is done."""
    done = CliRunner().invoke(wasl, ["sending", *words])
    connect(database)
    if done.exception is not None:
        raise done.exception
    return done.output


def test_held_and_released(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, NOON)
    monkeypatch.setattr(sending, "_said", {})
    somebody()
    issue("2026-11")
    assert run(database, "show") == "Nothing is held: everything is sent.\n"
    with pytest.raises(Unusable, match="kept for good"):
        run(database, "hold", "--why", "Of 100000001")
    assert run(database, "hold", "--why", "A rehearsal") == "Held.\n"
    assert run(database, "hold", "--why", "Another") == "It was held already.\n"
    assert "(A rehearsal)" in run(database, "show")
    with capture_logs() as said:
        for task in (*SENDING, *SENDING):
            task()
    # Each says so, and not at every bell.
    assert [line["event"] for line in said] == ["sending_held"] * len(SENDING)
    assert {line["release"] for line in said} == {"wasl sending release"}
    assert kinds() == []
    assert json.loads(run(database, "release", "--json")) == {"held": False, "changed": True}
    assert run(database, "release") == "Nothing was held.\n"
    with capture_logs() as said:
        for task in SENDING:
            task()
    assert said == []
    assert kinds() == [("notice", "sent")]
