"""A stand-in for the card page of a bank that speaks NestPay (CMI): no card, no money.

Run it as `python -m gateway.simulators.cardpage --port 8430 --store-key … --client-id …`, and set
the provider's `api_base` to its address. A payer's browser posts the signed form to it and finds
two buttons; a program posts `{"oid", "amount", "callbackUrl"}` to `/_control/pay`. Either way the
merchant is asked by a signed callback, and what is captured is what the merchant's answer says.
"""

from __future__ import annotations

import argparse
import html
import json
import sys
import threading
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from gateway.simulators import faults
from gateway.simulators.cardbank import Bank, Form, Result
from gateway.simulators.clock import business_clock
from gateway.simulators.journal import Journal, read_journal
from gateway.simulators.notices import centimes, dirhams

BODY_BYTES_MAX: Final = 64 * 1024
SOCKET_SECONDS_MAX: Final = 30.0
ASKED_FOR: Final = ("clientid", "oid", "amount", "currency", "okUrl", "failUrl", "callbackUrl")

_WORDS: Final = {
    "fr": {
        "title": "Page de paiement (simulateur)",
        "note": "Aucune carte n'est demandée et aucun argent ne bouge.",
        "pay": "Payer",
        "decline": "Utiliser une carte refusée",
        "leave": "Quitter sans payer",
        "back": "Retourner au site",
        "taken": "Le paiement est accepté.",
        "refused": "Le paiement n'a pas été accepté.",
        "awaited": "Le montant est réservé ; le marchand n'a pas encore répondu.",
    },
    "ar": {
        "title": "صفحة الأداء (محاكاة)",
        "note": "لا تُطلب أي بطاقة ولا يتحرك أي مال.",
        "pay": "أداء",
        "decline": "استعمال بطاقة مرفوضة",
        "leave": "المغادرة بدون أداء",
        "back": "الرجوع إلى الموقع",
        "taken": "تم قبول الأداء.",
        "refused": "لم يُقبل الأداء.",
        "awaited": "تم حجز المبلغ؛ لم يجب التاجر بعد.",
    },
}


class Wrong(Exception):
    """A request that the page refuses."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Server(ThreadingHTTPServer):
    """The stand-in, on this machine only."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, bank: Bank) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.bank = bank
        self.address = f"http://127.0.0.1:{self.server_port}"
        self._failed: set[str] = set()
        self._lock = threading.Lock()

    def fails(self, oid: str) -> bool:
        """Say whether the faults have this call answered by 500: of an order, at most the first."""
        with self._lock:
            if oid in self._failed or not self.bank.faults.of(oid).fail:
                return False
            self._failed.add(oid)
            return True


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    timeout = SOCKET_SECONDS_MAX
    server: Server

    def do_GET(self) -> None:
        if self.path == "/_control/payments":
            self._json(200, dict(self.server.bank.captured))
        else:
            self._json(404, {"error": "There is nothing here."})

    def do_POST(self) -> None:
        try:
            sent = self._sent()
            match urlsplit(self.path).path:
                case "/fim/est3Dgate":
                    self._html(self._page(_form(sent)))
                case "/fim/pay":
                    self._html(self._paid(_form(sent)))
                case "/_control/pay":
                    self._json(200, self._control(sent))
                case _:
                    raise Wrong(404, "There is nothing here.")
        except Wrong as error:
            self._json(error.status, {"error": str(error)})

    def _sent(self) -> str:
        length = int(self.headers.get("Content-Length") or 0)
        if length > BODY_BYTES_MAX:
            self.close_connection = True
            raise Wrong(413, "The form is too long.")
        return self.rfile.read(length).decode("utf-8", "replace")

    # -- for browsers -----------------------------------------------------------------------------

    def _checked(self, form: Form) -> Form:
        missing = [name for name in ASKED_FOR if not form.get(name)]
        if missing or form["currency"] != "504":
            raise Wrong(400, f"The form lacks {', '.join(missing) or 'currency=504'}.")
        if not self.server.bank.is_signed(form):
            raise Wrong(400, "The HASH does not fit.")
        _centimes(form["amount"])
        for name in ("okUrl", "failUrl", "callbackUrl"):
            if urlsplit(form[name]).scheme not in {"http", "https"}:
                raise Wrong(400, f"{name} is no address.")
        if self.server.fails(form["oid"]):
            raise Wrong(500, "The bank has trouble. Try again.")
        return form

    def _page(self, form: Form) -> str:
        words = _words(self._checked(form))
        left = html.escape(form.get("shopurl") or form["failUrl"])
        return _sheet(
            form,
            f"<p>{html.escape(form['oid'])}: <b dir=ltr>{html.escape(form['amount'])} MAD</b></p>"
            f'<form method="post" action="/fim/pay">{_hidden(form)}'
            f'<button name="_deed" value="pay">{words["pay"]}</button> '
            f'<button name="_deed" value="decline">{words["decline"]}</button></form>'
            f'<p><a href="{left}">{words["leave"]}</a></p>',
        )

    def _paid(self, form: dict[str, str]) -> str:
        deed = form.pop("_deed", "")
        result = self.server.bank.pay(self._checked(form), accepted=deed == "pay")
        said = "taken" if result.captured_minor else "refused"
        if result.word is None and deed == "pay":
            # Reserved, and not refused: who comes back early finds out at the merchant's.
            said = "awaited"
        words, to = _words(form), form["failUrl" if said == "refused" else "okUrl"]
        return _sheet(
            form,
            f"<p>{words[said]}</p>"
            f'<form method="post" action="{html.escape(to)}">{_hidden(result.fields)}'
            f"<button>{words['back']}</button></form>"
            "<script>document.forms[0].submit()</script>",
        )

    # -- for programs -----------------------------------------------------------------------------

    def _control(self, sent: str) -> dict[str, Any]:
        try:
            asked = json.loads(sent)
            oid, amount, url = (str(asked[name]) for name in ("oid", "amount", "callbackUrl"))
        except (ValueError, KeyError, TypeError):
            raise Wrong(400, "Give oid, amount and callbackUrl.") from None
        _centimes(amount)
        if self.server.fails(oid):
            raise Wrong(500, "The bank has trouble. Try again.")
        bank = self.server.bank
        form = {
            "clientid": bank.client_id,
            "oid": oid,
            "amount": amount,
            "currency": "504",
            "TranType": "PreAuth",
            "storetype": "3D_PAY_HOSTING",
            "hashAlgorithm": "ver3",
            "lang": "fr",
            "encoding": "UTF-8",
            "callbackUrl": url,
        }
        return _told(bank.pay(form, accepted=asked.get("deed", "pay") == "pay"))

    def _html(self, page: str) -> None:
        self._send(200, page.encode(), "text/html; charset=utf-8")

    def _json(self, status: int, said: Any) -> None:
        self._send(status, json.dumps(said).encode(), "application/json")

    def _send(self, status: int, body: bytes, media_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of what is asked."""


def _form(sent: str) -> dict[str, str]:
    pairs = parse_qsl(sent, keep_blank_values=True)
    if len(dict(pairs)) != len(pairs):
        raise Wrong(400, "A field is given twice.")
    return dict(pairs)


def _centimes(amount: str) -> int:
    try:
        minor = centimes(amount)
    except ValueError:
        minor = 0
    if minor <= 0:
        raise Wrong(400, "The amount is not positive, with two decimals.")
    return minor


def _told(result: Result) -> dict[str, Any]:
    return {
        "payment_id": result.payment_id,
        "answer": result.word,
        "captured": dirhams(result.captured_minor),
    }


def _words(form: Form) -> dict[str, str]:
    return _WORDS.get(form.get("lang", "fr"), _WORDS["fr"])


def _hidden(fields: Form) -> str:
    return "".join(
        f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
        for name, value in fields.items()
    )


def _sheet(form: Form, content: str) -> str:
    language = form.get("lang") if form.get("lang") in _WORDS else "fr"
    words = _words(form)
    return (
        f'<!doctype html><html lang="{language}" dir="{"rtl" if language == "ar" else "ltr"}">'
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{words['title']}</title><h1>{words['title']}</h1>"
        f"<p>{words['note']}</p>{content}</html>"
    )


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8430, help="of this machine (8430)")
    parser.add_argument("--store-key", required=True, help="what both sides sign by")
    parser.add_argument("--client-id", required=True, help="the merchant's number")
    parser.add_argument("--provider", default="cmi", help="the provider's name, for the journal")
    parser.add_argument("--journal", type=Path, help="a file that says what was sent and captured")
    faults.add_options(parser)
    options = parser.parse_args()
    with Journal(options.journal) if options.journal else nullcontext() as journal:
        # Read once it is ours: whoever wrote it before may be dying still.
        past = read_journal(options.journal) if options.journal else []
        bank = Bank(
            options.store_key,
            options.client_id,
            clock=business_clock(),
            journal=journal,
            past=past,
            faults=faults.from_options(options),
        )
        if journal is not None and not past:
            start = {"line": "bank", "provider": options.provider, "channel": "card"}
            journal.append({**start, "seed": options.seed}, durable=True)
        server = Server(options.port, bank)
        threading.Thread(target=bank.resume, name="resuming", daemon=True).start()
        sys.stdout.write(f"A stand-in for the card page is at {server.address}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
