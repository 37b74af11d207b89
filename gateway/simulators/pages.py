"""What the journals of those who run providers' pages say: who paid what there, and who was told.

A payer with a browser (gateway.simulators.browsing) does not know what was taken in the end. The
stand-ins for the page know: the bank (cardbank), the wallets' operators (walletquery, walletpush),
Stripe.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs

from gateway.simulators.cardbank import ACKNOWLEDGED, CAPTURE
from gateway.simulators.clock import INSTITUTION_ZONE
from gateway.simulators.dealing import CHANNELS
from gateway.simulators.journal import Line

REFERENCE_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Paid:
    """One payment as the provider's side has it."""

    payment_id: str
    reference: str
    paid_at: str
    minor: int
    """Net centimes; 0 for one that was declined."""


@dataclass(slots=True)
class PageTally:
    """What one journal of a provider's page says."""

    paid: list[Paid] = field(default_factory=list)
    planted: Counter[str] = field(default_factory=Counter)
    answered: set[tuple[str | None, bytes]] = field(default_factory=set)
    """Delivery id, if the sender gives one, and the body's SHA-256, of what was answered well."""
    surprises: list[str] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    """How many payments were told of twice, out of order, and so on."""


def page_tally(provider: str, lines: list[Line]) -> PageTally:
    """Return what a journal says; `provider` is the name that it is of."""
    return _DIALECTS[provider](lines)


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


# -- the bank behind the card page ----------------------------------------------------------------

_BANK_FAULTS: Final = {"again": "double", "other_amount": "wrong_amount", "tampered": "tamper"}


def _bank(lines: list[Line]) -> PageTally:
    found = PageTally()
    sends = {line["step"]: line for line in lines if line["line"] == "send"}
    fits: dict[str, bool] = {}
    for line in lines:
        if line["line"] != "answer":
            continue
        send = sends[line["step"]]
        fits[line["step"]] = line["as_expected"]
        if line["said"] in {CAPTURE, ACKNOWLEDGED}:
            found.answered.add((None, _sha256(send["body"])))
    for step, send in sends.items():
        if not fits.get(step, False):
            found.surprises.append(f"{send['kind']}, {step}: not answered as expected")
        elif send["planted"]:
            found.planted[send["planted"]] += 1
        if name := _BANK_FAULTS.get(send["kind"]):
            found.struck[name] += 1
        if send["kind"] == "declined" and send["payment_id"] != send["attempt"]:
            found.struck["reorder"] += 1
        found.struck["lose"] += send["lost"]
    bodies = {send["payment_id"]: send["body"] for send in sends.values()}
    for line in lines:
        if line["line"] == "captured":
            told = parse_qs(bodies[line["payment_id"]])
            local = datetime.fromisoformat(told["EXTRA.TRXDATE"][0].replace(" ", "T"))
            found.paid.append(
                Paid(
                    line["payment_id"],
                    line["oid"][:REFERENCE_DIGITS],
                    local.replace(tzinfo=INSTITUTION_ZONE).astimezone(UTC).isoformat(),
                    line["captured_minor"],
                )
            )
    return found


# -- the wallet's operator ------------------------------------------------------------------------


def _operator(lines: list[Line]) -> PageTally:
    found = PageTally()
    outcomes = {line["payment_id"]: line for line in lines if line["line"] == "outcome"}
    for payment_id, line in outcomes.items():
        if line["net_minor"]:
            found.paid.append(
                Paid(payment_id, line["reference"], line["paid_at"], line["net_minor"])
            )
    sends = {line["step"]: line for line in lines if line["line"] == "send"}
    for line in lines:
        if line["line"] == "planted":
            found.planted[line["code"]] += 1
        elif line["line"] == "answer":
            status = line["status"] or 0
            if 200 <= status < 300:
                found.answered.add((None, _sha256(sends[line["step"]]["body"])))
            # One that was not answered, or by a server in trouble, is lost: it is sent once.
            if 0 < status < 500 and not line["as_expected"]:
                found.surprises.append(f"callback {line['step']}: HTTP {status}")
    told = Counter((send["payment_id"], send["body"]) for send in sends.values())
    found.struck["double"] = sum(count > 1 for count in told.values())
    found.struck["lose"] = sum(send["lost"] for send in sends.values())
    found.struck["reorder"] = len(
        {p for p, line in outcomes.items() if line["net_minor"]}
        & {send["payment_id"] for send in sends.values() if '"FAILED"' in send["body"]}
    )
    return found


# -- Stripe ---------------------------------------------------------------------------------------


def _stripe(lines: list[Line]) -> PageTally:
    found = PageTally()
    made: dict[str, list[str]] = {}
    """The events of each payment in the order in which they happened."""
    taken: dict[str, list[str]] = {}
    """The same as they were answered."""
    of: dict[str, str] = {}
    for line in lines:
        if line["line"] == "answer":
            found.answered.add((line["event"], bytes.fromhex(line["body_sha256"])))
            taken.setdefault(of[line["event"]], []).append(line["event"])
            continue
        event: Mapping[str, Any] = line["event"]
        what: Mapping[str, Any] = event["data"]["object"]
        of[event["id"]] = what.get("payment_intent") or what["id"]
        made.setdefault(of[event["id"]], []).append(event["id"])
        if event["type"] == "payment_intent.succeeded":
            found.paid.append(
                Paid(
                    what["id"],
                    what["metadata"].get("invoice_ref", ""),
                    datetime.fromtimestamp(what["created"], UTC).isoformat(),
                    what["amount_received"],
                )
            )
    for payment, events in made.items():
        told = taken.get(payment, [])
        first = list(dict.fromkeys(told))
        found.struck["double"] += len(told) > len(first)
        found.struck["lose"] += len(first) < len(events)
        found.struck["reorder"] += first != [each for each in events if each in first]
    return found


# -- aggregators ----------------------------------------------------------------------------------


def _aggregator(lines: list[Line]) -> PageTally:
    found = PageTally()
    outcomes = {line["payment_id"]: line for line in lines if line["line"] == "outcome"}
    for payment_id, line in outcomes.items():
        if line["status"] == "PAID":
            found.paid.append(
                Paid(payment_id, line["reference"], line["paid_at"], line["net_minor"])
            )
    sends = {line["step"]: line for line in lines if line["line"] == "send"}
    answers = {line["step"]: line for line in lines if line["line"] == "answer"}
    for step, send in sends.items():
        answer = answers.get(step)
        if answer is None or not answer["as_expected"]:
            status = None if answer is None else answer["status"]
            found.surprises.append(f"{send['how']}, {step}: HTTP {status}")
            continue
        if 200 <= answer["status"] < 300:
            found.answered.add((send["event"]["event_id"], _sha256(send["body"])))
        if send["planted"]:
            found.planted[send["planted"]] += 1
        if send["how"] != "main":
            found.struck[send["how"]] += 1
        found.struck["lose"] += send["lost"]
    return found


_DIALECTS: Final[Mapping[str, Callable[[list[Line]], PageTally]]] = {
    "cmi": _bank,
    "wallet-query": _operator,
    "wallet-push": _operator,
    "stripe": _stripe,
    "chari": _aggregator,
    "youcan": _aggregator,
}

PAGES: Final = tuple(_DIALECTS)
"""The providers with a page, of which a journal tells what was paid."""

assert CHANNELS.keys() >= set(PAGES)
