"""A wallet operator whose callbacks are unsigned: a page to pay on, a status to ask, a hint.

Run it as `python -m gateway.simulators.walletquery --port 8430 --api-key KEY`. It answers in the
manner of Orange Money Web Payment: a payment is begun at `/webpayment`, paid on its page, asked
about at `/transactionstatus`, and told of once, by a callback that proves nothing. `/_control` is
for programs that play payers. What is done is in the journal before it is told, and an operator
that is started again goes on where its journal ends. No money moves.
"""

from __future__ import annotations

import argparse
import html
import http.client
import json
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from gateway.simulators import faults as faulty
from gateway.simulators.clock import Clock, business_clock
from gateway.simulators.faults import Fate, Faults
from gateway.simulators.journal import Journal, Line, read_journal
from gateway.simulators.notices import centimes, dirhams

ORDER_LIFE: Final = timedelta(minutes=10)
"""How long a payment may be made after it was begun."""
CALLBACK_SECONDS_MAX: Final = 10.0
BODY_BYTES_MAX: Final = 64 * 1024
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

        One that was refused may be paid after all, until it expires; nothing is paid twice.
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
        made_at = datetime.fromisoformat(order.made_at)
        if order.status == "INITIATED" and self._clock() > made_at + ORDER_LIFE:
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


# -- answering ------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """The operator, on this machine only."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, api_key: str, operator: Operator) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.api_key = api_key
        self.operator = operator
        self.address = operator.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(min(length, BODY_BYTES_MAX)).decode("utf-8", "replace")
        if self.headers.get("Content-Type", "").startswith("application/json"):
            try:
                read = json.loads(sent or "{}")
            except ValueError:
                read = {}
            self._answer(read if isinstance(read, dict) else {})
        else:
            self._answer(dict(parse_qsl(sent, keep_blank_values=True)))

    def _answer(self, said: Said) -> None:
        operator = self.server.operator
        path = [part for part in urlsplit(self.path).path.split("/") if part]
        try:
            match [self.command, *path]:
                case ["POST", "webpayment"]:
                    self._check_key()
                    self._json(201, operator.begin(said))
                case ["POST", "transactionstatus"]:
                    self._check_key()
                    self._json(200, operator.status(said))
                case [_, "pay", token]:
                    self._page(operator.find(token), said.get("do", ""))
                case ["POST", "_control", ("pay" | "refuse") as deed]:
                    named = said.get("order_id") or said.get("pay_token") or said.get("reference")
                    order = operator.find(str(named))
                    answered = operator.settle(order, paid=deed == "pay")
                    told = {"order_id": order.order_id, "status": order.status}
                    self._json(200, {**told, "return_url": order.return_url, "told": answered})
                case ["GET", "_control", "orders"]:
                    self._json(200, {"orders": [asdict(o) for o in operator.orders.values()]})
                case _:
                    raise Wrong(404, "there is nothing here")
        except Wrong as error:
            self._json(error.status, {"message": str(error)})

    def _check_key(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {self.server.api_key}":
            raise Wrong(401, "the key is not ours")

    def _page(self, order: Order, deed: str) -> None:
        if self.command == "POST" and deed in {"pay", "refuse"}:
            try:
                self.server.operator.settle(order, paid=deed == "pay")
            except Wrong:
                pass  # the page says how it stands
            else:
                back = order.return_url if deed == "pay" else order.cancel_url
                self._send(303, b"", "text/plain", Location=back)
                return
        self._send(200, _sheet(order), "text/html; charset=utf-8")

    def _json(self, status: int, said: Mapping[str, Any]) -> None:
        self._send(status, json.dumps(said).encode(), "application/json")

    def _send(self, status: int, body: bytes, media_type: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": media_type, "Cache-Control": "no-store"}.items():
            self.send_header(name, value)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of what is asked."""


_WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "fr": {
        "dir": "ltr",
        "title": "Opérateur de portefeuille (simulé)",
        "note": "Aucun argent ne bouge.",
        "pay": "Payer",
        "refuse": "Refuser",
        "leave": "Revenir",
        "SUCCESS": "Ce paiement est fait.",
        "FAILED": "Ce paiement a été refusé.",
        "EXPIRED": "Cette demande a expiré.",
    },
    "ar": {
        "dir": "rtl",
        "title": "مشغل محفظة (محاكاة)",
        "note": "لا تتحرك أي أموال.",
        "pay": "أداء",
        "refuse": "رفض",
        "leave": "رجوع",
        "SUCCESS": "تم هذا الأداء.",
        "FAILED": "رُفض هذا الأداء.",
        "EXPIRED": "انتهت صلاحية هذا الطلب.",
    },
}


def _sheet(order: Order) -> bytes:
    """Return the payer's page: an order that was refused may still be paid."""
    language = order.lang if order.lang in _WORDS else "fr"
    words = _WORDS[language]
    amount = f'<bdi dir="ltr">{dirhams(order.amount_minor)} {html.escape(order.currency)}</bdi>'
    said = f"<p>{words[order.status]}</p>" if order.status in words else ""
    form = (
        f'<form method="post"><button name="do" value="pay">{words["pay"]}</button> '
        f'<button name="do" value="refuse">{words["refuse"]}</button></form>'
        if order.status in {"INITIATED", "FAILED"}
        else ""
    )
    return (
        f'<!doctype html><html lang="{language}" dir="{words["dir"]}"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{words['title']}</title><h1>{words['title']}</h1><p>{words['note']}</p>"
        f'<p><bdi dir="ltr">{html.escape(order.reference)}</bdi>: <b>{amount}</b></p>{said}{form}'
        f'<p><a href="{html.escape(order.cancel_url)}">{words["leave"]}</a></p></html>'
    ).encode()


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8430, help="of this machine (8430)")
    parser.add_argument("--api-key", required=True, help="what the gateway shows as a bearer")
    parser.add_argument("--journal", type=Path, help="a file of all that is done")
    faulty.add_options(parser)
    options = parser.parse_args()
    past = read_journal(options.journal) if options.journal else []
    with Journal(options.journal) if options.journal else nullcontext() as journal:
        operator = Operator(
            clock=business_clock(),
            journal=journal,
            past=past,
            faults=faulty.from_options(options),
        )
        server = Server(options.port, options.api_key, operator)
        sys.stdout.write(f"A wallet operator, simulated, is at {server.address}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
