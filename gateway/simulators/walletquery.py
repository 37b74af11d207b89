"""A wallet operator whose callbacks are unsigned: a page to pay on, a status to ask, a hint.

Run it as `python -m gateway.simulators.walletquery --port 8430 --api-key KEY`. A payment is begun
at `/webpayment`, paid on its page, asked about at `/transactionstatus`, and told of once, by a
callback that proves nothing. `/_control` is for programs that play payers. No money moves.
"""

from __future__ import annotations

import argparse
import html
import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from gateway.simulators import faults as faulty
from gateway.simulators.clock import business_clock
from gateway.simulators.journal import Journal, read_journal
from gateway.simulators.notices import dirhams
from gateway.simulators.walletoperator import Operator, Order, Said, Wrong

BODY_BYTES_MAX: Final = 64 * 1024


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
                done = True
            except Wrong:
                # Who pressed twice has paid. Of all else the page says how it stands.
                done = deed == "pay" and order.status == "SUCCESS"
            if done:
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
    left = order.return_url if order.status == "SUCCESS" else order.cancel_url
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
        f'<p><a href="{html.escape(left)}">{words["leave"]}</a></p></html>'
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
