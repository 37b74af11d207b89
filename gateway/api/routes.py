"""All of the API in one router."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from gateway.api import (
    contributors,
    events,
    exceptions,
    invoices,
    payments,
    reassessments,
    references,
    service,
)

TAGS: Final = {
    "contributors": "Who owes. Names and numbers stand in bodies only, never in an address.",
    "invoices": "What is owed and why, and what was paid of it.",
    "payments": "Money that providers reported, and what became of it.",
    "exceptions": "What a person must decide.",
    "events": "What happened, in the order of commits.",
    "references": "What a reference is for, as agents and kiosks show it.",
    "service": "How the service stands, and whose key it is.",
}

router: Final = APIRouter()
for _each in (
    contributors,
    reassessments,
    invoices,
    payments,
    exceptions,
    events,
    references,
    service,
):
    router.include_router(_each.router)
