"""Who wants to be told by telephone, as programs say it; and the page of a sandbox."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.testclient import TestClient

from gateway.models import Role
from tests.factories import issue
from tests.gateway.api.conftest import ProgramOf
from tests.gateway.messages.test_messages import PHONE, kinds, somebody, tell


def test_a_wish_is_kept_and_the_page_shows_what_was_said(
    database: str, app: FastAPI, program: ProgramOf
) -> None:
    first, second = somebody(), somebody(phone="+212600000002", language="ar")
    wish = {"wanted": False, "why": "asked at the agency"}
    finance = program(Role.FINANCE)
    done = finance.post(f"/contributors/{second}/messages", wish, once="one")
    assert done.json() == {"contributor_id": str(second), "wanted": False}
    issue("2026-11")
    tell()
    assert kinds() == [("notice", "sent")]
    client = TestClient(app)
    for language in ("fr", "ar"):
        page = client.get("/sandbox/messages", headers={"Accept-Language": language})
        assert page.status_code == 200
        assert page.text.count("163,52 DH") == 1
        assert PHONE not in page.text
        assert PHONE[-2:] in page.text
    again = finance.post(f"/contributors/{second}/messages", {**wish, "wanted": True})
    assert again.json()["wanted"] is True

    why = {**wish, "why": "call +212600000002"}
    refused = finance.post(f"/contributors/{first}/messages", why)
    assert refused.json()["code"] == "fields_contradict"
    missing = finance.post("/contributors/999/messages", wish)
    assert missing.json()["code"] == "contributor_not_found"
    agent = program(Role.AGENT).post(f"/contributors/{first}/messages", wish)
    assert agent.json()["code"] == "role_may_not"
