"""What a wallet operator with unsigned callbacks knows and does: orders, their ends, its hints.

In the manner of Orange Money Web Payment. What is done is in the journal before it is told, and an
operator that is started again goes on where its journal ends. Callbacks are sent once. The program
is gateway.simulators.walletquery.
"""

from __future__ import annotations

import http.client
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.simulators.clock import Clock
from gateway.simulators.faults import Fate, Faults
from gateway.simulators.journal import Journal, Line
from gateway.simulators.notices import centimes, dirhams

ORDER_LIFE: Final = timedelta(minutes=10)
"""How long a payment may be made after it was begun."""
REFUSED_LIFE: Final = timedelta(days=1)
"""For how much longer one that was refused may be paid after all, as operators' wallets do it."""
CALLBACK_SECONDS_MAX: Final = 10.0
ORDER_CHARS_MAX: Final = 30

Said = dict[str, Any]


class Wrong(Exception):
    """A call that the operator refuses."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Order:
    """A payment that was begun."""

    order_id: str
    reference: str
    amount_minor: int
    currency: str
    lang: str
    return_url: str
    cancel_url: str
    notif_url: str
    pay_token: str
    notif_token: str
    made_at: str
    number: int
    """Of the orders of this reference, from 1."""
    status: str = "INITIATED"
    txnid: str = ""
    paid_at: str = ""

    @property
    def fate_key(self) -> str:
        """By which its fate is drawn: order ids are random, references are not."""
        return f"{self.reference}.{self.number}"


@dataclass(frozen=True, slots=True)
class Telling:
    """One callback."""

    order: Order
    status: str
    txnid: str
    tampered: bool = False
    lost: bool = False


def net_minor(lines: Iterable[Line]) -> dict[str, int]:
    """Return how many centimes each payment of a journal brought in the end, by its order."""
    return {line["payment_id"]: line["net_minor"] for line in lines if line["line"] == "outcome"}


class Operator:
    """All that the operator knows. Any number of threads may call at once."""

    def __init__(
        self,
        *,
        clock: Clock,
        journal: Journal | None = None,
        past: Iterable[Line] = (),
        faults: Faults | None = None,
    ) -> None:
        """Take the operator up where its journal ends.

        Args:
            clock: The business clock.
            journal: Where everything is written before it is told.
            past: The journal's lines so far.
            faults: What goes wrong.
        """
        self.address = ""
        self.faults = faults or Faults()
        self.orders: dict[str, Order] = {}
        self.asked: Counter[str] = Counter()
        """How often each order's status was asked for."""
        self._clock = clock
        self._journal = journal
        self._lock = threading.RLock()
        self._failed: set[str] = set()
        self._planted: set[str] = set()
        """Orders of which something wrong was said once."""
        self._of: dict[str, list[Order]] = {}
        """By all that an order is found by; of a reference there may be several."""
        for line in past:
            if line["line"] == "order":
                order = Order(**{k: v for k, v in line.items() if k != "line"})
                self._keep(order)
            elif line["line"] == "outcome":
                order = self.orders[line["payment_id"]]
                order.status, order.txnid = line["status"], line["txnid"]
                order.paid_at = line["paid_at"]
            elif line["line"] == "planted":
                self._planted.add(line["payment_id"])

    # -- what the gateway calls -------------------------------------------------------------------

    def begin(self, said: Said) -> Said:
        """Begin a payment; the same order again is refused, as operators do."""
        order_id, reference = str(said.get("order_id", "")), str(said.get("reference", ""))
        if not order_id or max(len(order_id), len(reference)) > ORDER_CHARS_MAX:
            raise Wrong(400, f"order_id and reference have 1 to {ORDER_CHARS_MAX} characters")
        try:
            amount = centimes(str(said.get("amount")))
        except ValueError:
            raise Wrong(400, "amount is not a decimal string") from None
        named = ("currency", "lang", "return_url", "cancel_url", "notif_url")
        texts = {each: str(said.get(each, "")) for each in named}
        with self._lock:
            known = self._of.setdefault(reference, [])
            order = Order(
                order_id,
                reference,
                amount,
                **texts,
                pay_token=secrets.token_hex(20),
                notif_token=secrets.token_hex(16),
                made_at=self._clock().isoformat(),
                number=1 + len(known),
            )
            fate = self.faults.of(order.fate_key)
            if fate.fail and order_id not in self._failed:
                self._failed.add(order_id)
                raise Wrong(500, "something went wrong")
            if order_id in self.orders:
                raise Wrong(409, "this order_id was used before")
            self._write({"line": "order", **asdict(order)})
            self._keep(order)
        time.sleep(fate.slow)
        return {
            "status": 201,
            "message": "OK",
            "pay_token": order.pay_token,
            "payment_url": f"{self.address}/pay/{order.pay_token}",
            "notif_token": order.notif_token,
        }

    def status(self, said: Said) -> Said:
        """Return how an order stands: it must be named with its amount and token."""
        with self._lock:
            order = self.orders.get(str(said.get("order_id")))
            if order is None or said.get("pay_token") != order.pay_token:
                raise Wrong(404, "there is no such order")
            if said.get("amount") != dirhams(order.amount_minor):
                raise Wrong(400, "the order has another amount")
            self._expire(order)
            self.asked[order.order_id] += 1
            fate = self.faults.of(order.fate_key)
            amount, currency = order.amount_minor, order.currency
            if order.status == "SUCCESS" and order.order_id not in self._planted:
                # The first answer about money is wrong; the next one is right.
                if fate.wrong_amount:
                    self._plant(order, "invalid_amount")
                    amount += 100
                elif fate.wrong_currency:
                    self._plant(order, "wrong_currency")
                    currency = "EUR"
            told: Said = {
                "status": order.status,
                "order_id": order.order_id,
                "amount": dirhams(amount),
                "currency": currency,
                "txnid": order.txnid,
            }
            if order.paid_at:
                told["paid_at"] = order.paid_at
        time.sleep(fate.slow)
        return told

    # -- what a payer does ------------------------------------------------------------------------

    def find(self, named: str) -> Order:
        """Return an order by its id, its pay_token, or the last one of a reference."""
        with self._lock:
            found = self._of.get(named)
            if not found:
                raise Wrong(404, "there is no such order")
            self._expire(found[-1])
            return found[-1]

    def settle(self, order: Order, *, paid: bool) -> list[int | None]:
        """Pay or refuse, and tell of it; return how each callback was answered.

        One that was refused may be paid after all, until REFUSED_LIFE after an order that nobody
        touched expires; nothing is paid twice.
        """
        with self._lock:
            self._expire(order)
            if order.status not in {"INITIATED", "FAILED"}:
                raise Wrong(409, f"it is {order.status} already")
            fate = self.faults.of(order.fate_key)
            if paid:
                at = self._clock() - timedelta(days=fate.late)
                order.txnid = f"MP{at:%y%m%d.%H%M}.A{secrets.randbelow(100_000):05d}"
                order.paid_at = at.isoformat()
            self._end(order, "SUCCESS" if paid else "FAILED")
            told = _tellings(order, fate if paid else Fate())
        return [self._tell(each, number) for number, each in enumerate(told, start=1)]

    def _keep(self, order: Order) -> None:
        self.orders[order.order_id] = order
        for named in (order.order_id, order.pay_token, order.reference):
            self._of.setdefault(named, []).append(order)

    def _expire(self, order: Order) -> None:
        lives = {"INITIATED": ORDER_LIFE, "FAILED": ORDER_LIFE + REFUSED_LIFE}
        life = lives.get(order.status)
        if life is not None and self._clock() > datetime.fromisoformat(order.made_at) + life:
            self._end(order, "EXPIRED")

    def _end(self, order: Order, status: str) -> None:
        """Note what became of an order, before anybody is told."""
        self._write(
            {
                "line": "outcome",
                "payment_id": order.order_id,
                "reference": order.reference,
                "status": status,
                "txnid": order.txnid,
                "paid_at": order.paid_at,
                "net_minor": order.amount_minor if status == "SUCCESS" else 0,
            }
        )
        order.status = status

    def _plant(self, order: Order, code: str) -> None:
        self._write({"line": "planted", "payment_id": order.order_id, "code": code})
        self._planted.add(order.order_id)

    # -- telling ----------------------------------------------------------------------------------

    def _tell(self, telling: Telling, number: int) -> int | None:
        """Send a callback, once: nobody sends it again. Return the status of its answer."""
        order = telling.order
        token = secrets.token_hex(16) if telling.tampered else order.notif_token
        said = {"status": telling.status, "notif_token": token, "txnid": telling.txnid}
        body = json.dumps(said, separators=(",", ":"))
        step = f"{order.order_id}.{telling.status}.{number}"
        net = order.amount_minor if order.status == "SUCCESS" else 0
        send = {"line": "send", "step": step, "payment_id": order.order_id, "body": body}
        self._write({**send, "url": order.notif_url, "lost": telling.lost, "net_minor": net})
        if telling.lost:
            return None
        answered = _posted(order.notif_url, body.encode())
        fits = answered == 400 if telling.tampered else 200 <= (answered or 0) < 300
        line = {"line": "answer", "step": step, "status": answered, "as_expected": fits}
        self._write(line, durable=False)
        return answered

    def _write(self, line: Line, *, durable: bool = True) -> None:
        if self._journal is not None:
            self._journal.append(line, durable=durable)


def _tellings(order: Order, fate: Fate) -> list[Telling]:
    """Return the callbacks about an order's end, in the order in which they are sent."""
    time.sleep(fate.slow)
    main = Telling(order, order.status, order.txnid, lost=fate.lose)
    told = [main]
    if fate.tamper:
        told.insert(0, Telling(order, order.status, order.txnid, tampered=True))
    if fate.double:
        told.append(main)
    if fate.reorder:
        # An earlier try that was refused, told of after the one that was paid.
        told.append(Telling(order, "FAILED", ""))
    return told


def _posted(url: str, body: bytes) -> int | None:
    """Post a callback once; return the status of the answer, or None."""
    to = urlsplit(url)
    make = http.client.HTTPSConnection if to.scheme == "https" else http.client.HTTPConnection
    connection = make(to.hostname or "", to.port, timeout=CALLBACK_SECONDS_MAX)
    try:
        connection.request("POST", to.path or "/", body, {"Content-Type": "application/json"})
        with connection.getresponse() as answer:
            return answer.status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
