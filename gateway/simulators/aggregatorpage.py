"""An aggregator of cards and agencies, simulated: Chari Pay's links or YouCan Pay's tokens.

Run it as `python -m gateway.simulators.aggregatorpage --kind chari --port 8440 --secret … --api-key
… --name chari`. It answers the calls that the product makes, has a page to pay on, and tells of
payments by signed events. `/_control` is for programs that play payers and agencies. No card is
asked for and no money moves.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import json
import secrets
import sys
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, urlsplit

from gateway.simulators import faults as faulty
from gateway.simulators.aggregator import Aggregator, ChariDialect, Order, Wrong, YouCanDialect
from gateway.simulators.clock import business_clock
from gateway.simulators.journal import Journal, read_journal
from gateway.simulators.notices import centimes, dirhams

BODY_BYTES_MAX: Final = 64 * 1024
SOCKET_SECONDS_MAX: Final = 30.0

Said = dict[str, Any]


class Server(ThreadingHTTPServer):
    """The stand-in, on this machine only."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, kind: str, api_key: str, name: str, orders: Aggregator) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.kind = kind
        self.api_key = api_key
        self.name = name
        self.aggregator = orders
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    timeout = SOCKET_SECONDS_MAX
    server: Server

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(min(length, BODY_BYTES_MAX)).decode("utf-8", "replace")
        if self.headers.get("Content-Type", "").startswith("application/x-www-form"):
            self._answer(dict(parse_qsl(sent, keep_blank_values=True)))
            return
        try:
            # As written: an amount is never a float.
            read = json.loads(sent or "{}", parse_float=str, parse_int=str)
        except ValueError:
            read = {}
        self._answer(read if isinstance(read, dict) else {})

    def _answer(self, said: Said) -> None:
        orders = self.server.aggregator
        parts = urlsplit(self.path)
        path = [part for part in parts.path.split("/") if part]
        try:
            match [self.command, *path]:
                case ["POST", "v1", "payment-links"]:
                    self._check(self.headers.get("X-CHARI-PAY-API-KEY"))
                    self._json(201, self._link(self._new_link(said)))
                case ["GET", "v1", "payment-links", named]:
                    self._check(self.headers.get("X-CHARI-PAY-API-KEY"))
                    self._json(200, self._link(orders.find(named)))
                case ["POST", "v1", "payment-links", named, "cancel"]:
                    self._check(self.headers.get("X-CHARI-PAY-API-KEY"))
                    orders.cancel(orders.find(named))
                    self._json(200, self._link(orders.find(named)))
                case ["POST", "api", "tokenize"]:
                    self._check(said.get("pri_key"))
                    self._json(200, {"token": {"id": self._new_token(said).order_id}})
                case ["POST", "api", "cashplus", "init"]:
                    order = orders.find(str(said.get("token_id")))
                    orders.give_code(order, _code())
                    self._json(200, {"transaction_id": order.payment_id, "token": order.code})
                case [_, ("pay" | "payment-form"), named]:
                    language = parse_qs(parts.query).get("lang", ["fr"])[0]
                    self._page(orders.find(named), said.get("do", ""), language)
                case ["POST", "_control", "pay"]:
                    self._json(200, self._control(said))
                case ["POST", "_control", "agency"]:
                    order = orders.find(str(said.get("code")))
                    self._json(200, {"told": orders.settle(order, paid=True)})
                case ["POST", "_control", "refund"]:
                    order = orders.find(str(said.get("order")))
                    told = orders.refund(order, centimes(str(said.get("amount"))))
                    self._json(200, {"told": told})
                case ["GET", "_control", "orders"]:
                    self._json(200, {"orders": [asdict(o) for o in orders.orders.values()]})
                case _:
                    raise Wrong(404, "there is nothing here")
        except Wrong as error:
            self._json(error.status, {"error": {"code": "WRONG", "message": str(error)}})

    def _check(self, key: str | None) -> None:
        if key != self.server.api_key:
            raise Wrong(401, "the key is not ours")

    # -- calls of the product ---------------------------------------------------------------------

    def _new_link(self, said: Said) -> Order:
        metadata = said.get("metadata")
        kept = metadata if isinstance(metadata, dict) else {}
        external_id = str(said.get("externalId", ""))
        return self.server.aggregator.begin(
            order_id=f"PL-{secrets.token_hex(6)}",
            payment_id=str(kept.get("attempt_id") or external_id or _named("ps")),
            reference=str(kept.get("invoice_ref", "")),
            amount_minor=_minor(said.get("amount")),
            external_id=external_id,
            metadata=kept,
            accept_url=str(said.get("acceptUrl", "")),
            decline_url=str(said.get("declineUrl", "")),
            notify_url=str(said.get("notificationUrl", "")),
            code=_code() if said.get("paymentMethod") == "CASH" else "",
        )

    def _link(self, order: Order) -> Said:
        paid = order.status == "PAID"
        return {
            "reference": order.order_id,
            "externalId": order.external_id,
            "metadata": order.metadata,
            "status": {"OPEN": "ACTIVE"}.get(order.status, order.status),
            "amount": dirhams(order.amount_minor),
            "currency": "MAD",
            "useCount": int(paid),
            "totalCollected": dirhams(order.amount_minor if paid else 0),
            "cashinCode": order.code or None,
            "payUrl": f"{self.server.address}/pay/{order.order_id}",
        }

    def _new_token(self, said: Said) -> Order:
        metadata = said.get("metadata")
        return self.server.aggregator.begin(
            order_id=_named("tk"),
            payment_id=_named("tr"),
            reference=str(said.get("order_id", "")).partition("-")[0],
            amount_minor=int(str(said.get("amount"))),
            metadata=metadata if isinstance(metadata, dict) else {},
            accept_url=str(said.get("success_url", "")),
            decline_url=str(said.get("error_url", "")),
            notify_url=self._registered(str(said.get("success_url", ""))),
        )

    def _registered(self, address: str) -> str:
        """Return where events go: set in the back office, which here means the payer's own host."""
        parts = urlsplit(address)
        return f"{parts.scheme}://{parts.netloc}/webhooks/{self.server.name}"

    # -- payers -----------------------------------------------------------------------------------

    def _control(self, said: Said) -> Said:
        """Pay without having come from a page of the product, or have a card refused."""
        aggregator = self.server.aggregator
        reference = str(said.get("oid"))
        chari = self.server.kind == "chari"
        cash = self.server.kind == "youcan-cash"
        # The same again is the same order, since who asks may not have heard the answer.
        external_id = f"counter-{reference}"
        metadata = {"invoice_ref": reference}
        if chari:
            # Who asks about links takes events of links with such a name, and of no others.
            external_id = f"wasl_{hashlib.sha256(external_id.encode()).hexdigest()[:32]}"
            metadata["attempt_id"] = external_id
        order = aggregator.begin(
            order_id=_named("PL" if chari else "tk"),
            payment_id=external_id if chari else _named("tr"),
            reference=reference,
            amount_minor=_minor(said.get("amount")),
            external_id=external_id,
            metadata=metadata,
            notify_url=str(said.get("callbackUrl", "")),
            code=_code() if cash else "",
        )
        told = aggregator.settle(order, paid=said.get("deed") != "decline")
        if None in told or any((status or 0) >= 500 for status in told):
            return {"answer": None}
        return {"answer": order.status, "payment_id": order.payment_id}

    def _page(self, order: Order, deed: str, language: str) -> None:
        if self.command == "POST" and deed in {"pay", "refuse"}:
            try:
                self.server.aggregator.settle(order, paid=deed == "pay")
            except Wrong:
                pass  # the page says how it stands
            else:
                back = order.accept_url if deed == "pay" else order.decline_url
                self._send(303, b"", "text/plain", Location=back)
                return
        self._send(200, _sheet(order, language), "text/html; charset=utf-8")

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


def _named(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(10)}"


def _code() -> str:
    return f"{secrets.randbelow(10**10):010d}"


def _minor(amount: object) -> int:
    try:
        return centimes(str(amount))
    except ValueError:
        raise Wrong(400, "amount is no decimal") from None


_WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "fr": {
        "dir": "ltr",
        "title": "Page de paiement (simulée)",
        "note": "Aucune carte n'est demandée et aucun argent ne bouge.",
        "pay": "Payer",
        "refuse": "Utiliser une carte refusée",
        "leave": "Revenir",
        "PAID": "Ce paiement est fait.",
        "CANCELLED": "Cette demande est annulée.",
    },
    "ar": {
        "dir": "rtl",
        "title": "صفحة الأداء (محاكاة)",
        "note": "لا تُطلب أي بطاقة ولا يتحرك أي مال.",
        "pay": "أداء",
        "refuse": "استعمال بطاقة مرفوضة",
        "leave": "رجوع",
        "PAID": "تم هذا الأداء.",
        "CANCELLED": "أُلغي هذا الطلب.",
    },
}


def _sheet(order: Order, language: str) -> bytes:
    """Return the payer's page."""
    language = language if language in _WORDS else "fr"
    words = _WORDS[language]
    amount = f'<bdi dir="ltr">{dirhams(order.amount_minor)} MAD</bdi>'
    said = f"<p>{words[order.status]}</p>" if order.status in words else ""
    form = (
        f'<form method="post"><button name="do" value="pay">{words["pay"]}</button> '
        f'<button name="do" value="refuse">{words["refuse"]}</button></form>'
        if order.status == "OPEN"
        else ""
    )
    return (
        f'<!doctype html><html lang="{language}" dir="{words["dir"]}"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{words['title']}</title><h1>{words['title']}</h1><p>{words['note']}</p>"
        f'<p><bdi dir="ltr">{html.escape(order.reference)}</bdi>: <b>{amount}</b></p>{said}{form}'
        f'<p><a href="{html.escape(order.decline_url)}">{words["leave"]}</a></p></html>'
    ).encode()


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", required=True, choices=("chari", "youcan", "youcan-cash"))
    parser.add_argument("--port", type=int, default=8440, help="of this machine (8440)")
    parser.add_argument("--secret", required=True, help="what it signs by")
    parser.add_argument("--api-key", required=True, help="what the product's calls show")
    parser.add_argument("--name", required=True, help="of the provider, as in /webhooks/NAME")
    parser.add_argument("--journal", type=Path, help="a file of all that is done")
    faulty.add_options(parser)
    options = parser.parse_args()
    past = read_journal(options.journal) if options.journal else []
    chari = options.kind == "chari"
    with Journal(options.journal) if options.journal else nullcontext() as journal:
        aggregator = Aggregator(
            ChariDialect(options.secret) if chari else YouCanDialect(options.secret),
            clock=business_clock(),
            journal=journal,
            past=past,
            faults=faulty.from_options(options),
        )
        server = Server(options.port, options.kind, options.api_key, options.name, aggregator)
        threading.Thread(target=aggregator.resume, daemon=True).start()
        sys.stdout.write(f"An aggregator, simulated, is at {server.address}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
