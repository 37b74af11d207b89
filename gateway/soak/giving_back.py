"""Refunds, disputes and reversals of a share of what was collected, while the product runs.

It drives the product from outside, as finance, an approver, payers' banks and providers do, and
writes down in a journal what each payment must come to before it does anything. What is asked twice
is asked under one `Idempotency-Key`, so that a server killed in between does nothing twice.
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.errors import Unavailable
from gateway.money import format_amount, parse_amount
from gateway.simulators.journal import Journal, Line
from gateway.simulators.signing import signer_of

SHARE: Final = 0.04
"""Of the payments, how many are given back in one way or another."""
TRIES_MAX: Final = 60
PAUSE_SECONDS: Final = 1.0
CALL_SECONDS_MAX: Final = 30.0
WHY: Final = "The soak gives it back"

Payment = Mapping[str, Any]


@dataclass
class GivenBack:
    """What the journal of giving back says."""

    net: dict[tuple[str, str], int] = field(default_factory=dict)
    """What payments must come to, in centimes, by (provider, provider_payment_id)."""
    planted: Counter[str] = field(default_factory=Counter)
    """How many exceptions of each code it leaves open."""
    deeds: Counter[str] = field(default_factory=Counter)


def read_given_back(lines: Iterable[Line]) -> GivenBack:
    """Return what a journal of giving back says. Pure."""
    found = GivenBack()
    for line in lines:
        found.net[line["provider"], line["payment_id"]] = line["net_minor"]
        found.planted.update(line["planted"])
        found.deeds[line["deed"]] += 1
    return found


class Giver:
    """Everybody who gives money back, or takes it back."""

    def __init__(
        self,
        address: str,
        *,
        finance: str,
        approver: str,
        entries: Sequence[Mapping[str, Any]],
        journal: Path,
        seed: int,
        now: Callable[[], float],
    ) -> None:
        """Take what they work with.

        Args:
            address: Where the product is, as `http://127.0.0.1:8000`.
            finance: A key that may ask.
            approver: A key that may approve.
            entries: Of the providers file: the stand-in for Stripe, and who signs by a secret.
            journal: Where what each payment must come to is written down.
            seed: Of which payments, and what becomes of them.
            now: The business clock, in Unix seconds.
        """
        self._address = address
        self._finance, self._approver = finance, approver
        self._stripe = next((e["api_base"] for e in entries if e["kind"] == "stripe"), "")
        self._secrets = {
            e["name"]: e["secrets"][0]
            for e in entries
            if e["kind"] == "standard-webhooks" and e.get("secrets")
        }
        self._journal = journal
        self._seed = seed
        self._now = now

    def play(self, share: float = SHARE, tick: Callable[[], None] = lambda: None) -> int:
        """Give back a share of the payments that are plainly booked; return how many.

        The worker has done all that was to be done, and nobody pays any more: when this returns it
        has to do again.
        """
        if self._stripe:
            # Of a dispute nobody asks, so what tells of it must not be lost.
            self._post(self._stripe, "/_control/faults", {"lose": 0.0})
        asked_about = {each["payment_id"] for each in self._all("exceptions", state="open")}
        done = 0
        with Journal(self._journal) as journal:
            for payment in self._all("payments", status="booked"):
                chance = random.Random(f"{self._seed}|back|{payment['provider_payment_id']}")  # noqa: S311
                plain = payment["returned"] == "0.00" and payment["id"] not in asked_about
                if not plain or chance.random() >= share:
                    continue
                tick()
                deed = chance.choice(self._deeds_for(payment["provider"]))
                minor = parse_amount(payment["amount"])
                part = chance.randint(1, minor)
                net, planted = _OUTCOMES[deed](minor, part)
                journal.append(
                    {
                        "line": "given_back",
                        "deed": deed,
                        "provider": payment["provider"],
                        "payment_id": payment["provider_payment_id"],
                        "net_minor": net,
                        "planted": planted,
                    },
                    durable=True,
                )
                getattr(self, f"_{deed}")(payment, part)
                done += 1
        return done

    def _deeds_for(self, provider: str) -> list[str]:
        if provider == "stripe":
            return ["refund", "refund_all", "refund_fails", "dispute_lost", "dispute_won", "raced"]
        deeds = ["by_hand", "by_hand_all", "bounces", "refused"]
        return [*deeds, "reversed"] if provider in self._secrets else deeds

    # -- what is done -----------------------------------------------------------------------------

    def _refund(self, payment: Payment, part: int) -> dict[str, Any]:
        refund = self._asked(payment, part)
        self._decide(refund, "approve")
        return self._until(refund, {"done"})

    def _refund_all(self, payment: Payment, _part: int) -> None:
        self._refund(payment, parse_amount(payment["amount"]))

    def _refund_fails(self, payment: Payment, part: int) -> None:
        refund = self._refund(payment, part)
        self._post(self._stripe, f"/_control/refunds/{refund['return_id']}/fail", {})
        self._until(refund, {"failed"})

    def _dispute_lost(self, payment: Payment, part: int) -> None:
        dispute = self._dispute(payment, part)
        self._end(payment, dispute, "lost")

    def _dispute_won(self, payment: Payment, part: int) -> None:
        dispute = self._dispute(payment, part)
        self._post(self._stripe, f"{dispute}/funds_reinstated", {})
        self._end(payment, dispute, "won")

    def _raced(self, payment: Payment, _part: int) -> None:
        """All of it is disputed between asking and approving."""
        whole = parse_amount(payment["amount"])
        refund = self._asked(payment, whole)
        dispute = self._dispute(payment, whole)
        for _ in range(TRIES_MAX):
            if self._get(f"/v1/payments/{payment['id']}")["returned"] == payment["amount"]:
                break
            time.sleep(PAUSE_SECONDS)
        status, _ = self._try(refund, "approve")
        if status != 409:
            raise Unavailable(f"A refund of what is disputed was approved: {status}.")
        self._decide(refund, "refuse")
        self._end(payment, dispute, "lost")

    def _by_hand(self, payment: Payment, part: int) -> dict[str, Any]:
        refund = self._asked(payment, part)
        self._decide(refund, "approve")
        body = {"bank_reference": f"VIR {refund['id']}"}
        return self._post_v1(self._finance, f"/v1/refunds/{refund['id']}/paid-out", body)

    def _by_hand_all(self, payment: Payment, _part: int) -> None:
        self._by_hand(payment, parse_amount(payment["amount"]))

    def _bounces(self, payment: Payment, part: int) -> None:
        refund = self._by_hand(payment, part)
        self._post_v1(self._finance, f"/v1/refunds/{refund['id']}/bounced", {"because": WHY})

    def _refused(self, payment: Payment, part: int) -> None:
        self._decide(self._asked(payment, part), "refuse")

    def _reversed(self, payment: Payment, _part: int) -> None:
        at = time.gmtime(self._now())
        body = json.dumps(
            {
                "type": "payment.reversed",
                "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", at),
                "data": {
                    "provider_payment_id": payment["provider_payment_id"],
                    "reference": payment["reference"],
                    "amount": payment["amount"],
                    "currency": "MAD",
                    "channel": payment["channel"],
                    "paid_at": payment["paid_at"],
                },
            }
        ).encode()
        named, second = f"msg_back_{payment['id']}", int(self._now())
        signed = signer_of(self._secrets[payment["provider"]]).sign(named, second, body)
        headers = {
            "webhook-id": named,
            "webhook-timestamp": str(second),
            "webhook-signature": signed,
        }
        self._call(self._address, "POST", f"/webhooks/{payment['provider']}", body, headers)

    # -- asking -----------------------------------------------------------------------------------

    def _asked(self, payment: Payment, minor: int) -> dict[str, Any]:
        body = {"amount": format_amount(minor), "because": WHY}
        return self._post_v1(self._finance, f"/v1/payments/{payment['id']}/refunds", body)

    def _decide(self, refund: Mapping[str, Any], what: str) -> None:
        status, said = self._try(refund, what)
        if status != 200:
            raise Unavailable(f"A refund could not be decided: {status} {said.get('detail')}.")

    def _try(self, refund: Mapping[str, Any], what: str) -> tuple[int, dict[str, Any]]:
        path = f"/v1/refunds/{refund['id']}/{what}"
        return self._v1(self._approver, "POST", path, {"because": WHY})

    def _until(self, refund: Mapping[str, Any], states: set[str]) -> dict[str, Any]:
        """Wait until a refund is in one of these states."""
        for _ in range(TRIES_MAX):
            found = self._get(f"/v1/refunds/{refund['id']}")
            if found["state"] in states:
                return found
            time.sleep(PAUSE_SECONDS)
        raise Unavailable(f"Refund {refund['id']} stays {found['state']}.")

    def _dispute(self, payment: Payment, minor: int) -> str:
        """Have a payer's bank take money back; return the dispute's address at the stand-in."""
        wish = {"payment_intent": payment["provider_payment_id"], "amount": minor}
        made = self._post(self._stripe, "/_control/disputes", wish)
        address = f"/_control/disputes/{made['id']}"
        self._post(self._stripe, f"{address}/funds_withdrawn", {})
        return address

    def _end(self, payment: Payment, dispute: str, status: str) -> None:
        """End a dispute, and wait until the product knows: nobody asks about disputes, and what
        tells of this one may come by a later try, when all else is done."""
        self._post(self._stripe, f"{dispute}/closed", {"status": status})
        named = dispute.rpartition("/")[2]
        for _ in range(TRIES_MAX):
            returns = self._get(f"/v1/payments/{payment['id']}")["returns"]
            if any(each["return_id"] == named and each["outcome"] for each in returns):
                return
            time.sleep(PAUSE_SECONDS)
        raise Unavailable(f"The end of dispute {named} is not heard of.")

    def _all(self, what: str, **filters: str) -> Iterator[dict[str, Any]]:
        query = "&".join(f"{name}={value}" for name, value in filters.items())
        cursor = ""
        while True:
            page = self._get(f"/v1/{what}?limit=100&{query}{cursor}")
            yield from page["data"]
            if page["next_cursor"] is None:
                return
            cursor = f"&cursor={page['next_cursor']}"

    def _get(self, path: str) -> dict[str, Any]:
        return self._v1(self._finance, "GET", path, None)[1]

    def _post_v1(self, key: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        status, said = self._v1(key, "POST", path, body)
        if not 200 <= status < 300:
            raise Unavailable(f"POST {path} was refused: {status} {said.get('detail')}.")
        return said

    def _v1(
        self, key: str, method: str, path: str, body: Mapping[str, Any] | None
    ) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        raw = None if body is None else json.dumps(body).encode()
        # One for each thing to do: whichever answer is lost, the next one says the same.
        headers["Idempotency-Key"] = base64.urlsafe_b64encode(f"{path}{body}".encode()).decode()[
            -250:
        ]
        return self._call(self._address, method, path, raw, headers)

    def _post(self, base: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        kind = {"Content-Type": "application/json"}
        return self._call(base, "POST", path, json.dumps(body).encode(), kind)[1]

    def _call(
        self, base: str, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """Return an answer that is not a server's in trouble, with patience.

        Raises:
            Unavailable: There is none.
        """
        for _ in range(TRIES_MAX):
            where = urlsplit(base)
            port, seconds = where.port, CALL_SECONDS_MAX
            connection = http.client.HTTPConnection(where.hostname or "", port, timeout=seconds)
            try:
                connection.request(method, path, body, dict(headers))
                answer = connection.getresponse()
                raw = answer.read()
                if answer.status < 500 and answer.status != 429:
                    return answer.status, _object(raw)
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            time.sleep(PAUSE_SECONDS)
        raise Unavailable(f"{method} {path} gets no answer.")


def _object(raw: bytes) -> dict[str, Any]:
    try:
        said = json.loads(raw or b"{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


Outcome = Callable[[int, int], tuple[int, list[str]]]
_FAILED: Final = ["refund_failed"]

_OUTCOMES: Final[Mapping[str, Outcome]] = {
    "refund": lambda whole, part: (whole - part, []),
    "refund_all": lambda _whole, _part: (0, []),
    "refund_fails": lambda whole, _part: (whole, _FAILED),
    "dispute_lost": lambda whole, part: (whole - part, []),
    "dispute_won": lambda whole, _part: (whole, []),
    "raced": lambda _whole, _part: (0, []),
    "by_hand": lambda whole, part: (whole - part, []),
    "by_hand_all": lambda _whole, _part: (0, []),
    "bounces": lambda whole, _part: (whole, _FAILED),
    "refused": lambda whole, _part: (whole, []),
    "reversed": lambda _whole, _part: (0, []),
}
"""What a payment comes to, and which exceptions stay open: of its amount, and a part of it."""
