"""All of the API in one router."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from gateway.api import (
    attempts,
    bundles,
    contributors,
    events,
    exceptions,
    invoices,
    messages,
    payments,
    plans,
    privacy,
    reassessments,
    references,
    refunds,
    service,
    standing,
)

TAGS: Final = {
    "contributors": "Who owes. Names and numbers stand in bodies only, never in an address.",
    "standing": "Who is up to date, with rights open or closed, and the attestation of it.",
    "privacy": "Law 09-08: all that is held about a person, and its erasure.",
    "invoices": "What is owed and why, and what was paid of it.",
    "plans": "What people are late with, spread over months.",
    "bundles": "One reference that pays several invoices.",
    "attempts": "Payers sent out to pay: to a page, to an agency with a code, to their phones.",
    "payments": "Money that providers reported, and what became of it.",
    "refunds": "Money that we give back: asked by one, approved by another.",
    "exceptions": "What a person must decide.",
    "deliveries": "What providers sent, and acting on it again.",
    "events": "What happened, in the order of commits.",
    "webhook-endpoints": "Who is sent what happened, how that fares, and sending it again.",
    "references": "What a reference is for, as agents and kiosks show it.",
    "service": "How the service stands, and whose key it is.",
}

router: Final = APIRouter()
for _each in (
    contributors,
    messages,
    reassessments,
    standing,
    privacy,
    invoices,
    plans,
    bundles,
    attempts,
    payments,
    refunds,
    exceptions,
    events,
    references,
    service,
):
    router.include_router(_each.router)
