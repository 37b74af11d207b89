"""What an aggregator of cards and agencies knows and does: orders, how they end, its signed events.

Two dialects: Chari Pay (payment links) and YouCan Pay (tokens). What is done is in the journal
before it is told, an event is sent until it is taken, and one that is started again goes on where
its journal ends. The program is gateway.simulators.aggregatorpage.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from gateway.simulators.clock import Clock
from gateway.simulators.faults import Fate, Faults
from gateway.simulators.journal import Journal, Line
from gateway.simulators.notices import dirhams

ANSWER_SECONDS_MAX: Final = 20.0
RETRY_SECONDS_MAX: Final = 200.0
PAUSE_SECONDS_MIN: Final = 0.2
PAUSE_SECONDS_MAX: Final = 2.0
OTHER_AMOUNT_MINOR: Final = 1000


class Wrong(Exception):
    """A call that the aggregator refuses."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Order:
    """One payment that somebody wants to make."""

    order_id: str
    """Of the link, or of the token."""
    payment_id: str
    """By which the events name it."""
    reference: str
    amount_minor: int
    external_id: str
    metadata: dict[str, str]
    accept_url: str
    decline_url: str
    notify_url: str
    code: str
    """For an agency; empty where it is paid by card."""
    made_at: str
    number: int
    """Of the orders of this reference, from 1."""
    lang: str = "fr"
    status: str = "OPEN"
    paid_at: str = ""
    refunded_minor: int = 0

    @property
    def fate_key(self) -> str:
        """By which its fate is drawn: ids are random, references are not."""
        return f"{self.reference}.{self.number}"


@dataclass(frozen=True, slots=True)
class Event:
    """One event about an order."""

    event_id: str
    kind: str
    """`paid`, `failed` or `refunded`."""
    payment_id: str
    amount_minor: int
    at: str
    currency: str = "MAD"
    return_id: str = ""


class Dialect(Protocol):
    """How an aggregator writes and signs."""

    def body(self, order: Order, event: Event) -> bytes:
        """Return the body of an event: the same whenever it is asked for."""
        ...

    def headers(self, body: bytes, event: Event, now: datetime) -> dict[str, str]:
        """Return what is sent beside it, signed now."""
        ...


@dataclass(frozen=True, slots=True)
class ChariDialect:
    """Events of Chari Pay: signed over the time in milliseconds and the body."""

    secret: str

    def body(self, order: Order, event: Event) -> bytes:
        named = {"externalId": order.external_id} if order.external_id else {}
        data: dict[str, Any] = {
            "paymentSessionId": event.payment_id,
            "merchantReference": order.reference,
            **named,
            "amount": None,
            "currency": event.currency,
            "paymentMethod": "CASH" if order.code else "CARD",
            "metadata": order.metadata,
        }
        if event.return_id:
            data["refundReference"] = event.return_id
        kinds = {"paid": "payment.succeeded", "failed": "payment.failed"}
        said = {
            "WebhookEventId": event.event_id,
            "eventType": kinds.get(event.kind, "refund.succeeded"),
            "createdAt": event.at,
            "data": data,
        }
        amount = f'"amount":{dirhams(event.amount_minor)}'
        return _json(said).replace(b'"amount":null', amount.encode(), 1)

    def headers(self, body: bytes, event: Event, now: datetime) -> dict[str, str]:
        stamp = str(int(now.timestamp() * 1000))
        return {
            "Chari-Webhook-Timestamp": stamp,
            "Chari-Webhook-Signature": _hex(self.secret, f"{stamp}.".encode() + body),
            "Chari-Event-Id": event.event_id,
        }


@dataclass(frozen=True, slots=True)
class YouCanDialect:
    """Events of YouCan Pay: signed over the body alone."""

    secret: str

    def body(self, order: Order, event: Event) -> bytes:
        way = {"id": 2, "name": "cashplus", "token": order.code}
        transaction: dict[str, Any] = {
            "id": event.payment_id,
            "status": 1 if event.kind == "paid" else 0,
            "order_id": order.reference,
            "amount": str(event.amount_minor),
            "currency": event.currency,
            "created_at": order.made_at,
            "paid_at": event.at,
        }
        if event.return_id:
            transaction["amount"] = str(order.amount_minor)
            transaction["refunded_amount"] = str(event.amount_minor)
        payload = {
            "transaction": transaction,
            "payment_method": way if order.code else {"id": 1, "name": "credit_card"},
            "customer": {"id": "c1", "name": "Essai"},
            "metadata": order.metadata,
        }
        name = f"transaction.{event.kind}"
        return _json(
            {"id": event.event_id, "event_name": name, "sandbox": True, "payload": payload}
        )

    def headers(self, body: bytes, event: Event, now: datetime) -> dict[str, str]:  # noqa: ARG002
        return {"X-Youcanpay-Signature": _hex(self.secret, body)}


@dataclass(frozen=True, slots=True)
class _Telling:
    """One sending of an event."""

    order: Order
    event: Event
    how: str = "main"
    lost: bool = False
    planted: str | None = None

    @property
    def step(self) -> str:
        return f"{self.event.event_id}.{self.how}"


class Aggregator:
    """All that an aggregator knows. Any number of threads may call at once."""

    def __init__(
        self,
        dialect: Dialect,
        *,
        clock: Clock,
        journal: Journal | None = None,
        past: Iterable[Line] = (),
        faults: Faults | None = None,
    ) -> None:
        """Take it up where its journal ends.

        Args:
            dialect: How it writes and signs.
            clock: The business clock.
            journal: Where everything is written before it is told.
            past: The journal's lines so far.
            faults: What goes wrong.
        """
        self.faults = faults or Faults()
        self.orders: dict[str, Order] = {}
        self._dialect = dialect
        self._clock = clock
        self._journal = journal
        self._lock = threading.RLock()
        self._settling: dict[str, threading.Lock] = {}
        self._of: dict[str, list[Order]] = {}
        self._untold: dict[str, Line] = {}
        for line in past:
            if line["line"] == "order":
                self._keep(Order(**{k: v for k, v in line.items() if k != "line"}))
            elif line["line"] == "outcome":
                order = self.orders[line["order_id"]]
                order.status, order.paid_at = line["status"], line["paid_at"]
                order.refunded_minor = line["refunded_minor"]
            elif line["line"] == "send":
                self._untold[line["step"]] = line
            elif line["line"] == "answer" and line["as_expected"]:
                self._untold.pop(line["step"], None)

    def resume(self) -> None:
        """Send what was begun before and not taken."""
        for line in list(self._untold.values()):
            event = Event(**line["event"])
            order = self.orders[line["order_id"]]
            self._send(_Telling(order, event, line["how"], planted=line["planted"]))

    # -- orders -----------------------------------------------------------------------------------

    def begin(self, **wanted: Any) -> Order:
        """Take an order; the same `external_id` again is the same order."""
        external_id = wanted.get("external_id", "")
        with self._lock:
            if external_id and external_id in self._of:
                return self._of[external_id][0]
            known = self._of.get(wanted["reference"], [])
            order = Order(
                **{
                    "external_id": "",
                    "metadata": {},
                    **dict.fromkeys(("accept_url", "decline_url", "code"), ""),
                    **wanted,
                },
                made_at=_written(self._clock()),
                number=1 + len(known),
            )
            self._write({"line": "order", **asdict(order)})
            self._keep(order)
        return order

    def find(self, named: str) -> Order:
        """Return the last order of this id, code, payment or reference."""
        with self._lock:
            found = self._of.get(named)
            if not found:
                raise Wrong(404, "there is no such order")
            return found[-1]

    def give_code(self, order: Order, code: str) -> None:
        """Have an order be paid at an agency."""
        with self._lock:
            order.code = order.code or code
            self._of.setdefault(order.code, []).append(order)
            self._write({"line": "order", **asdict(order)})

    def cancel(self, order: Order) -> None:
        """Have an order take no payment any more, if none was made."""
        with self._lock:
            if order.status == "OPEN":
                self._end(order, "CANCELLED")

    # -- what a payer does ------------------------------------------------------------------------

    def settle(self, order: Order, *, paid: bool) -> list[int | None]:
        """Pay or fail, tell of it, and return how each event was answered. Paid is paid once."""
        with self._lock:
            one_by_one = self._settling.setdefault(order.order_id, threading.Lock())
        with one_by_one:
            if order.status == "CANCELLED":
                raise Wrong(409, "it takes no payment any more")
            if order.status == "PAID":
                return []
            fate = self.faults.of(order.fate_key)
            if not paid:
                return [self._send(each) for each in [self._failed(order)]]
            with self._lock:
                order.paid_at = _written(self._clock() - timedelta(days=fate.late))
                self._end(order, "PAID")
            time.sleep(fate.slow)
            return [self._send(each) for each in self._tellings(order, fate)]

    def refund(self, order: Order, minor: int) -> int | None:
        """Give back so much of a payment, and tell of it."""
        with self._lock:
            if order.status != "PAID" or not 0 < minor <= order.amount_minor - order.refunded_minor:
                raise Wrong(422, "so much was not paid, or is gone")
            order.refunded_minor += minor
            self._end(order, "PAID")
            whole = isinstance(self._dialect, YouCanDialect)
            event = Event(
                event_id=f"evt_{secrets.token_hex(12)}",
                kind="refunded",
                payment_id=order.payment_id,
                # One dialect states all that went back so far, the other one this refund.
                amount_minor=order.refunded_minor if whole else minor,
                at=_written(self._clock()),
                return_id=f"rf_{secrets.token_hex(8)}",
            )
        return self._send(_Telling(order, event))

    def _failed(self, order: Order, *, earlier: bool = False) -> _Telling:
        at = self._clock() - timedelta(minutes=5 if earlier else 0)
        named = order.payment_id
        if isinstance(self._dialect, YouCanDialect):
            # Each try is a transaction of its own.
            named = f"tr_{secrets.token_hex(10)}"
        event_id = f"evt_{secrets.token_hex(12)}"
        event = Event(event_id, "failed", named, order.amount_minor, _written(at))
        return _Telling(order, event, "reorder" if earlier else "main")

    def _tellings(self, order: Order, fate: Fate) -> list[_Telling]:
        """Return what is told of a payment, in the order in which it is sent."""
        named = hashlib.sha256(f"event|{order.order_id}".encode()).hexdigest()[:24]
        event = Event(
            event_id=f"evt_{named}",
            kind="paid",
            payment_id=order.payment_id,
            amount_minor=order.amount_minor,
            at=order.paid_at,
        )
        told = [_Telling(order, event, lost=fate.lose)]
        if fate.tamper:
            told.insert(0, _Telling(order, event, "tamper"))
        if fate.wrong_amount:
            other = replace(event, amount_minor=event.amount_minor + OTHER_AMOUNT_MINOR)
            told.append(_Telling(order, other, "wrong_amount", planted="conflicting_delivery"))
        if fate.double:
            told.append(_Telling(order, event, "double"))
        if fate.reorder:
            # An earlier try that failed, told of after the one that did not.
            told.append(self._failed(order, earlier=True))
        return told

    # -- keeping ----------------------------------------------------------------------------------

    def _keep(self, order: Order) -> None:
        if order.order_id in self.orders:
            # Written again with its code.
            self.orders[order.order_id].code = order.code
            self._of.setdefault(order.code, []).append(self.orders[order.order_id])
            return
        self.orders[order.order_id] = order
        for named in {order.order_id, order.payment_id, order.external_id, order.code}:
            if named:
                self._of.setdefault(named, []).append(order)
        self._of.setdefault(order.reference, []).append(order)

    def _end(self, order: Order, status: str) -> None:
        """Note what became of an order, before anybody is told."""
        self._write(
            {
                "line": "outcome",
                "order_id": order.order_id,
                "payment_id": order.payment_id,
                "reference": order.reference,
                "status": status,
                "paid_at": order.paid_at,
                "refunded_minor": order.refunded_minor,
                "net_minor": order.amount_minor - order.refunded_minor if status == "PAID" else 0,
            }
        )
        order.status = status

    def _write(self, line: Line, *, durable: bool = True) -> None:
        if self._journal is not None:
            self._journal.append(line, durable=durable)

    # -- telling ----------------------------------------------------------------------------------

    def _send(self, telling: _Telling) -> int | None:
        """Send until it is taken; return the status of the last answer."""
        body = self._dialect.body(telling.order, telling.event)
        sent = {
            "line": "send",
            "step": telling.step,
            "order_id": telling.order.order_id,
            "event": asdict(telling.event),
            "how": telling.how,
            "body": body.decode(),
            "lost": telling.lost,
            "planted": telling.planted,
        }
        self._write(sent)
        if telling.lost:
            # It never arrived; nobody answers, so it is sent again.
            time.sleep(PAUSE_SECONDS_MIN)
        until, pause = time.monotonic() + RETRY_SECONDS_MAX, PAUSE_SECONDS_MIN
        while True:
            status = self._post(telling, body)
            fits = status == 400 if telling.how == "tamper" else 200 <= (status or 0) < 300
            if (status is not None and status < 500) or time.monotonic() > until:
                break
            time.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)
        line = {"line": "answer", "step": telling.step, "status": status, "as_expected": fits}
        self._write(line, durable=False)
        return status

    def _post(self, telling: _Telling, body: bytes) -> int | None:
        headers = self._dialect.headers(body, telling.event, self._clock())
        if telling.how == "tamper":
            body = body.replace(telling.order.reference.encode(), b"100000000190", 1)
        to = urlsplit(telling.order.notify_url)
        make = http.client.HTTPSConnection if to.scheme == "https" else http.client.HTTPConnection
        connection = make(to.hostname or "", to.port, timeout=ANSWER_SECONDS_MAX)
        try:
            named = {"Content-Type": "application/json", **headers}
            connection.request("POST", to.path or "/", body, named)
            with connection.getresponse() as answer:
                answer.read()
                return answer.status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def _hex(secret: str, signed: bytes) -> str:
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def _json(said: Mapping[str, Any]) -> bytes:
    return json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()


def _written(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
