"""What the journals say the books must show: the demo's judge."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.simulators.dealing import CHANNELS
from gateway.simulators.journal import Line, read_journal
from gateway.simulators.pages import page_tally

SURPRISES_KEPT: Final = 20
"""How many surprises are described; all are counted."""


@dataclass(slots=True)
class PaymentTold:
    """One payment as its provider told it, in deliveries that were answered as expected."""

    provider: str
    channel: str
    payment_id: str
    reference: str
    paid_at: str
    told_at: str
    amount_minor: int
    """The most that it ever stood at; zero for what was never to be booked."""
    net_minor: int
    """Where it stands now: zero again after a reversal."""


@dataclass(slots=True)
class Tally:
    """The sum of several journals."""

    planted: Counter[str] = field(default_factory=Counter)
    """How many exceptions of each code the books must hold open."""
    expected: dict[tuple[str, str], int] = field(default_factory=dict)
    """Net centimes by (provider, provider_payment_id)."""
    channels: dict[str, str] = field(default_factory=dict)
    """The channel of each provider."""
    deliveries: int = 0
    """Deliveries answered as expected, each counted once however often it was sent; of providers'
    pages one for each payment."""
    surprises: int = 0
    first_surprises: list[str] = field(default_factory=list)
    """At most SURPRISES_KEPT of them, in words."""


def settled_steps(lines: Iterable[Line]) -> list[Line]:
    """Return the send lines whose last answer was as expected, in the order they were planned."""
    sends: dict[str, Line] = {}
    verdicts: dict[str, bool] = {}
    for line in lines:
        if line["line"] == "send":
            sends.setdefault(line["step"], line)
        elif line["line"] == "answer":
            verdicts[line["step"]] = line["as_expected"]
    return [line for step, line in sends.items() if verdicts.get(step, False)]


def payments_told(lines: list[Line]) -> dict[str, PaymentTold]:
    """Return the payments of one payers' journal by provider_payment_id."""
    if not lines:
        return {}
    provider, channel = lines[0]["provider"], lines[0]["channel"]
    payments: dict[str, PaymentTold] = {}
    for line in settled_steps(lines):
        payment_id, booked = line["payment_id"], line["booked_minor"]
        if payment_id is None or booked is None:
            continue
        told = payments.get(payment_id)
        if told is None:
            payments[payment_id] = PaymentTold(
                provider=provider,
                channel=channel,
                payment_id=payment_id,
                reference=line["reference"],
                paid_at=line["paid_at"],
                told_at=line["planned_at"],
                amount_minor=booked,
                net_minor=booked,
            )
        else:
            told.amount_minor = max(told.amount_minor, booked)
            told.net_minor = booked
    return payments


@dataclass(frozen=True, slots=True)
class Answered:
    """A delivery that was answered by 2xx: the inbox must hold it, once."""

    provider: str
    delivery_id: str | None
    """None where only the receiver gives it one: then it is known by its body."""
    body_sha256: bytes


def answered(lines: Iterable[Line], provider: str) -> set[Answered]:
    """Return the deliveries of one payers' journal that were answered by 2xx, whatever came after.

    Steps of payers who sent nothing themselves, as those with a browser, have no delivery id.
    """
    sends: dict[str, Line] = {}
    found = set()
    for line in lines:
        if line["line"] == "send":
            sends[line["step"]] = line
        elif line["line"] == "answer" and 200 <= (line["status"] or 0) < 300:
            send = sends[line["step"]]
            if send["delivery_id"]:
                body = send["body"].encode("utf-8", "surrogateescape")
                sha256 = hashlib.sha256(body).digest()
                found.add(Answered(provider, send["delivery_id"], sha256))
    return found


def struck(lines: Iterable[Line], spared: Collection[str] = ()) -> Counter[str]:
    """Return how many cases of one payers' journal each fault struck, save those it has not."""
    cases = {
        line["step"].partition(".")[0]: line["behaviour"]
        for line in lines
        if line["line"] == "send"
    }
    words = Counter(name for words in cases.values() for name in words.split("+"))
    return Counter({name: count for name, count in words.items() if name not in spared})


def answered_at_page(provider: str, lines: list[Line]) -> set[Answered]:
    """Return the deliveries of a provider's page (see gateway.simulators.pages)."""
    found = page_tally(provider, lines).answered
    return {Answered(provider, delivery_id, sha256) for delivery_id, sha256 in found}


def payments_at_page(provider: str, lines: list[Line]) -> dict[str, PaymentTold]:
    """Return the payments of a provider's page by provider_payment_id."""
    return {
        paid.payment_id: PaymentTold(
            provider=provider,
            channel=CHANNELS[provider],
            payment_id=paid.payment_id,
            reference=paid.reference,
            paid_at=paid.paid_at,
            told_at=paid.paid_at,
            amount_minor=paid.minor,
            net_minor=paid.minor,
        )
        for paid in page_tally(provider, lines).paid
    }


def tally(paths: Iterable[Path], pages: Mapping[str, Path] | None = None) -> Tally:
    """Read payers' and institution's journals together.

    Args:
        paths: The journals.
        pages: Those of providers' pages, by provider.

    Raises:
        JournalDamaged: A whole line cannot be read.
    """
    total = Tally()
    for provider, path in (pages or {}).items():
        _add_page(total, provider, read_journal(path))
    for path in paths:
        lines = read_journal(path)
        if not lines:
            continue
        if lines[0]["line"] == "start":
            _add_payers(total, lines)
        else:
            total.planted.update(
                line["code"] for line in lines if line["line"] == "planted" and line["code"]
            )
    return total


def _add_payers(total: Tally, lines: list[Line]) -> None:
    provider = lines[0]["provider"]
    total.channels[provider] = lines[0]["channel"]
    settled = settled_steps(lines)
    total.deliveries += sum(bool(line["delivery_id"]) for line in settled)
    total.planted.update(line["planted"] for line in settled if line["planted"])
    for payment_id, told in payments_told(lines).items():
        total.expected[provider, payment_id] = told.net_minor

    if lines[-1]["line"] != "end":
        _add_surprise(total, f"{provider}: its program broke off")
    for line in lines:
        if line["line"] == "callback":
            _add_surprise(total, f"{provider}, callback {line['surprise']}")
    behaviours = {line["step"]: line["behaviour"] for line in lines if line["line"] == "send"}
    last = {line["step"]: line for line in lines if line["line"] == "answer"}
    for step, behaviour in behaviours.items():
        answer = last.get(step)
        if answer is not None and answer["as_expected"]:
            continue
        what = "no answer" if answer is None else answer["error"] or f"HTTP {answer['status']}"
        _add_surprise(total, f"{provider}, {behaviour}, {step}: {what}")


def _add_page(total: Tally, provider: str, lines: list[Line]) -> None:
    found = page_tally(provider, lines)
    total.channels[provider] = CHANNELS[provider]
    # However often a page told of a payment, and whichever of it was lost: one counts.
    total.deliveries += sum(paid.minor > 0 for paid in found.paid)
    total.planted.update(found.planted)
    for paid in found.paid:
        total.expected[provider, paid.payment_id] = paid.minor
    for words in found.surprises:
        _add_surprise(total, f"{provider}, {words}")


def _add_surprise(total: Tally, words: str) -> None:
    total.surprises += 1
    if len(total.first_surprises) < SURPRISES_KEPT:
        total.first_surprises.append(words)
