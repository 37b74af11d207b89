"""`/sandbox/messages`: what a sandbox would have sent to telephones, the newest first.

In production there is no such page.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from gateway.db import execute, snapshot
from gateway.messages.senders import Sandbox
from gateway.pages import site
from gateway.settings import settings
from gateway.words.speech import speech

router = APIRouter()

SHOWN_MAX: Final = 100
_KNOWN_DIGITS: Final = 2
"""Of a telephone's number, so many at its end are shown."""


@router.api_route("/sandbox/messages", methods=site.READ)
def sandbox_messages(request: Request) -> Response:
    """Show the last messages, each as a telephone would."""
    if settings().mode != "sandbox":
        return site.missing(request)
    with snapshot() as session:
        rows = execute(
            session,
            "SELECT m.kind, m.text, m.language, m.parts, m.sent_at, right(c.phone, :known) AS ends"
            " FROM message m JOIN contributor c ON c.id = m.contributor_id"
            " WHERE m.state = 'sent' AND m.sender = :sender ORDER BY m.sent_at DESC, m.id DESC"
            " LIMIT :most",
            {"known": _KNOWN_DIGITS, "sender": Sandbox.name, "most": SHOWN_MAX},
        ).mappings()
        shown = [{**row, "direction": speech(row["language"]).direction} for row in rows]
    return site.page(request, "messages.html", messages=shown, most=SHOWN_MAX)
