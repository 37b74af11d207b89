"""A stand-in for Stripe: pages to pay by card, refunds, disputes, and signed webhooks about them.

Run it as `python -m gateway.simulators.stripe --port 8420 --webhook URL --secret whsec_…`, for
trials without an account. It answers the calls that a gateway makes as Stripe does, tells of each
payment by several events, and can lose, double, delay and reorder them. `/_control` is its own.
No card is asked for and no money moves.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import html
import http.client
import json
import random
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from gateway.simulators.clock import Clock, business_clock
from gateway.simulators.journal import Journal

API_VERSION: Final = "2026-10-28.endive"
DELIVERY_TRIES_MAX: Final = 8
DELIVERY_SECONDS_MAX: Final = 10.0
REORDERED_SECONDS_MAX: Final = 1.5
LIFE_SECONDS_MIN: Final = 30 * 60
LIFE_SECONDS_MAX: Final = 24 * 3600

_SESSION_PARAMETERS: Final = frozenset(
    {
        "mode",
        "payment_method_types",
        "line_items",
        "adaptive_pricing",
        "client_reference_id",
        "metadata",
        "payment_intent_data",
        "locale",
        "success_url",
        "cancel_url",
        "expires_at",
    }
)

Params = dict[str, Any]


class Wrong(Exception):
    """A call that Stripe refuses."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


@dataclass
class Faults:
    """What goes wrong on the way. Shares are between 0 and 1."""

    lose: float = 0.0
    """Events that are never delivered."""
    double: float = 0.0
    """Events that are delivered twice."""
    reorder: bool = False
    delay: float = 0.0
    """Seconds before each delivery."""
    lost_answers: int = 0
    """Calls to come that are carried out and not answered."""
    away: bool = False
    """Whether every call is answered by 503."""
    failures: int = 0
    """Calls under a key to come that are answered by 500, which is kept under it."""
    slow: float = 0.0
    """Seconds that a call under a key takes; who asks the same meanwhile is answered by 409."""


@dataclass
class World:
    """All that the stand-in knows. Every change holds the lock."""

    address: str
    clock: Clock
    tell: Callable[[Params], None]
    faults: Faults = field(default_factory=Faults)
    lock: threading.RLock = field(default_factory=threading.RLock)
    things: dict[str, Params] = field(default_factory=dict)
    """Sessions, intents, charges, refunds and disputes by id."""
    answers: dict[str, tuple[str, int, Params]] = field(default_factory=dict)
    """By idempotency key: what was asked, and what was answered."""
    asking: set[str] = field(default_factory=set)
    """Idempotency keys of calls that are not answered yet."""
    events: list[Params] = field(default_factory=list)

    def now(self) -> int:
        return int(self.clock().timestamp())

    def find(self, kind: str, named: str) -> Params:
        found = self.things.get(named)
        if found is None or found["object"] != kind:
            raise Wrong(404, f"No such {kind}: '{named}'")
        is_open = kind == "checkout.session" and found["status"] == "open"
        if is_open and found["expires_at"] <= self.now():
            self.end(found)
        return found

    def all(self, kind: str, **values: str | None) -> list[Params]:
        wanted = {name: value for name, value in values.items() if value}
        return [
            thing
            for thing in self.things.values()
            if thing["object"] == kind and all(thing[n] == v for n, v in wanted.items())
        ]

    def keep(self, prefix: str, kind: str, **values: Any) -> Params:
        named = f"{prefix}_{secrets.token_hex(12)}"
        made = {"id": named, "object": kind, "created": self.now(), "livemode": False, **values}
        self.things[named] = made
        return made

    def happen(self, kind: str, what: Params) -> None:
        """Keep an event about an object as it is now, and have it delivered."""
        event = {
            "id": f"evt_{secrets.token_hex(12)}",
            "object": "event",
            "api_version": API_VERSION,
            "created": self.now(),
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": f"req_{secrets.token_hex(6)}", "idempotency_key": None},
            "type": kind,
            "data": {"object": json.loads(json.dumps(what))},
        }
        self.events.append(event)
        self.tell(event)

    # -- pages ------------------------------------------------------------------------------------

    def make_session(self, given: Params) -> Params:
        unknown = sorted(given.keys() - _SESSION_PARAMETERS)
        if unknown:
            raise Wrong(400, f"Received unknown parameter: {unknown[0]}")
        amount, currency = _price(given)
        if given.get("mode") != "payment" or not given.get("success_url"):
            raise Wrong(400, "Give mode=payment and success_url.")
        expires_at = int(given.get("expires_at", self.now() + LIFE_SECONDS_MAX))
        if not LIFE_SECONDS_MIN <= expires_at - self.now() <= LIFE_SECONDS_MAX:
            raise Wrong(400, "The `expires_at` timestamp must be 30 minutes to 24 hours from now.")
        session = self.keep(
            "cs_test",
            "checkout.session",
            amount_subtotal=amount,
            amount_total=amount,
            cancel_url=given.get("cancel_url"),
            client_reference_id=given.get("client_reference_id"),
            currency=currency,
            expires_at=expires_at,
            locale=given.get("locale"),
            metadata=given.get("metadata", {}),
            mode="payment",
            payment_intent=None,
            payment_status="unpaid",
            status="open",
            success_url=given["success_url"],
        )
        session["url"] = f"{self.address}/c/{session['id']}"
        self.things[session["id"]]["_intent_metadata"] = given.get("payment_intent_data", {}).get(
            "metadata", {}
        )
        return session

    def end(self, session: Params) -> Params:
        if session["status"] != "open":
            raise Wrong(400, 'Only Checkout Sessions with a status in ["open"] can be expired.')
        session |= {"status": "expired", "url": None}
        if session["payment_intent"]:
            intent = self.things[session["payment_intent"]]
            intent["status"] = "canceled"
            self.happen("payment_intent.canceled", _shown(intent))
        self.happen("checkout.session.expired", _shown(session))
        return session

    def pay(self, session: Params) -> None:
        """What a payer does whose card is taken."""
        if session["status"] != "open":
            raise Wrong(400, "This page is closed.")
        intent = self._intent(session)
        charge = self._charge(intent, "succeeded")
        intent |= {"status": "succeeded", "amount_received": intent["amount"]}
        session |= {"status": "complete", "payment_status": "paid", "url": None}
        self.happen("charge.succeeded", charge)
        self.happen("payment_intent.succeeded", _shown(intent))
        self.happen("checkout.session.completed", _shown(session))

    def decline(self, session: Params) -> None:
        """What a payer does whose card is refused; he may take another."""
        if session["status"] != "open":
            raise Wrong(400, "This page is closed.")
        intent = self._intent(session)
        charge = self._charge(intent, "failed")
        intent["status"] = "requires_payment_method"
        self.happen("charge.failed", charge)
        self.happen("payment_intent.payment_failed", _shown(intent))

    def _intent(self, session: Params) -> Params:
        if session["payment_intent"]:
            return self.things[session["payment_intent"]]
        intent = self.keep(
            "pi",
            "payment_intent",
            amount=session["amount_total"],
            amount_received=0,
            currency=session["currency"],
            latest_charge=None,
            metadata=session["_intent_metadata"],
            payment_method_types=["card"],
            status="requires_payment_method",
        )
        session["payment_intent"] = intent["id"]
        self.happen("payment_intent.created", _shown(intent))
        return intent

    def _charge(self, intent: Params, status: str) -> Params:
        paid = status == "succeeded"
        charge = self.keep(
            "ch",
            "charge",
            amount=intent["amount"],
            amount_captured=intent["amount"] if paid else 0,
            amount_refunded=0,
            currency=intent["currency"],
            metadata=intent["metadata"],
            paid=paid,
            payment_intent=intent["id"],
            refunded=False,
            status=status,
        )
        intent["latest_charge"] = charge["id"]
        return charge

    # -- money that goes back ---------------------------------------------------------------------

    def refund(self, given: Params) -> Params:
        intent = self.find("payment_intent", str(given.get("payment_intent", "")))
        if intent["status"] != "succeeded":
            raise Wrong(400, "This PaymentIntent does not have a successful charge to refund.")
        charge = self.things[intent["latest_charge"]]
        left = charge["amount_captured"] - charge["amount_refunded"]
        amount = int(str(given.get("amount", left)))
        if not 0 < amount <= left:
            raise Wrong(400, f"Refund amount ({amount}) is greater than unrefunded amount ({left})")
        refund = self.keep(
            "re",
            "refund",
            amount=amount,
            charge=charge["id"],
            currency=charge["currency"],
            metadata=given.get("metadata", {}),
            payment_intent=intent["id"],
            reason=given.get("reason"),
            status="succeeded",
        )
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]
        self.happen("refund.created", refund)
        self.happen("charge.refunded", charge)
        return refund

    def fail_refund(self, refund: Params) -> Params:
        charge = self.things[refund["charge"]]
        refund["status"] = "failed"
        charge["amount_refunded"] -= refund["amount"]
        charge["refunded"] = False
        self.happen("refund.failed", refund)
        return refund

    def dispute(self, given: Params) -> Params:
        intent = self.find("payment_intent", str(given.get("payment_intent", "")))
        dispute = self.keep(
            "dp",
            "dispute",
            amount=int(str(given.get("amount", intent["amount_received"]))),
            charge=intent["latest_charge"],
            currency=intent["currency"],
            evidence_details={"due_by": self.now() + 7 * 86_400, "has_evidence": False},
            payment_intent=intent["id"],
            reason=given.get("reason", "fraudulent"),
            status="needs_response",
        )
        self.happen("charge.dispute.created", dispute)
        return dispute

    def go_on(self, dispute: Params, step: str, status: str) -> Params:
        """Take a dispute further: funds_withdrawn, funds_reinstated, or closed with a status."""
        if step not in {"funds_withdrawn", "funds_reinstated", "closed"}:
            raise Wrong(404, "A dispute goes on by funds_withdrawn, funds_reinstated or closed.")
        if step == "closed":
            dispute["status"] = status
        self.happen(f"charge.dispute.{step}", dispute)
        return dispute


def _price(given: Params) -> tuple[int, str]:
    try:
        price = given["line_items"]["0"]["price_data"]
        amount = int(price["unit_amount"]) * int(given["line_items"]["0"]["quantity"])
        currency = str(price["currency"])
    except (KeyError, TypeError, ValueError):
        raise Wrong(400, "Give line_items with price_data and quantity.") from None
    if amount <= 0 or len(currency) != 3 or currency != currency.lower():
        raise Wrong(400, "Invalid amount or currency.")
    return amount, currency


def _shown(thing: Params) -> Params:
    """Return an object as it is shown: what is ours alone begins with a line."""
    return {name: value for name, value in thing.items() if not name.startswith("_")}


def _listed(things: list[Params], url: str) -> Params:
    latest = sorted(things, key=lambda thing: -thing["created"])
    return {"object": "list", "data": [_shown(t) for t in latest], "has_more": False, "url": url}


# -- telling --------------------------------------------------------------------------------------


def signed(body: bytes, secret: str, at: int) -> str:
    """Return the `Stripe-Signature` of a body at a Unix second; the secret is used whole."""
    mac = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"


class Courier:
    """Delivers events, each in a thread of its own, until they are taken."""

    def __init__(self, webhook: str, secret: str, clock: Clock, *, seed: int = 0) -> None:
        self.deliver_to(webhook)
        self._secret = secret
        self._clock = clock
        self._chance = random.Random(seed)
        self.faults = Faults()
        self.taken: Callable[[Params, bytes], None] = lambda _event, _body: None
        """Told of each delivery that was answered by 2xx."""

    def deliver_to(self, webhook: str) -> None:
        """Deliver to this address from now on."""
        self._webhook = urlsplit(webhook)

    def tell(self, event: Params) -> None:
        """Have an event delivered, or lost, as the faults will have it."""
        faults, chance = self.faults, self._chance
        if chance.random() < faults.lose:
            return
        for _ in range(2 if chance.random() < faults.double else 1):
            wait = faults.delay
            if faults.reorder:
                wait += chance.uniform(0, REORDERED_SECONDS_MAX)
            threading.Thread(target=self._deliver, args=(event, wait), daemon=True).start()

    def _deliver(self, event: Params, wait: float) -> None:
        time.sleep(wait)
        body = json.dumps(event, indent=2).encode()
        for tried in range(DELIVERY_TRIES_MAX):
            if self._post(body):
                self.taken(event, body)
                return
            time.sleep(0.2 * 2**tried)

    def _post(self, body: bytes) -> bool:
        to = self._webhook
        header = signed(body, self._secret, int(self._clock().timestamp()))
        make = http.client.HTTPSConnection if to.scheme == "https" else http.client.HTTPConnection
        connection = make(to.hostname or "", to.port, timeout=DELIVERY_SECONDS_MAX)
        try:
            connection.request(
                "POST",
                to.path or "/",
                body,
                {"Stripe-Signature": header, "Content-Type": "application/json"},
            )
            return 200 <= connection.getresponse().status < 300
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


# -- answering ------------------------------------------------------------------------------------


def nested(pairs: list[tuple[str, str]]) -> Params:
    """Return form fields as Stripe reads them: `a[b][0]=c` is c, in 0, in b, in a."""
    found: Params = {}
    for name, value in pairs:
        first, *rest = name.replace("]", "").split("[")
        at = found
        for part in [first, *rest][:-1]:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise Wrong(400, f"Invalid parameter: {name}")
        at[[first, *rest][-1]] = value
    return found


class Server(ThreadingHTTPServer):
    """The stand-in, on this machine only."""

    daemon_threads = True

    def __init__(
        self, port: int, webhook: str, secret: str, *, clock: Clock, seed: int = 0
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.courier = Courier(webhook, secret, clock, seed=seed)
        address = f"http://127.0.0.1:{self.server_port}"
        self.world = World(address, clock, self.courier.tell, self.courier.faults)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length).decode("utf-8", "replace")
        if self.headers.get("Content-Type", "").startswith("application/json"):
            read = json.loads(sent or "{}")
            self._answer(read if isinstance(read, dict) else {})
        else:
            self._answer(nested(parse_qsl(sent, keep_blank_values=True)))

    def _answer(self, given: Params) -> None:
        path = [part for part in urlsplit(self.path).path.split("/") if part]
        if self._is_in_use():
            wrong = "There is another request in progress that uses this Idempotent Key."
            kind, code = "invalid_request_error", "idempotency_key_in_use"
            self._json(409, {"error": {"type": kind, "code": code, "message": wrong}})
            return
        with self.server.world.lock:
            self.server.world.asking.discard(self._key())
            if path[:1] == ["c"] and len(path) == 2:
                self._page(path[1], given.get("do", ""))
            elif path[:1] == ["_control"]:
                self._json(*self._tried(lambda: self._control(path[1:], given)))
            elif path[:1] == ["v1"]:
                self._api(path[1:], given)
            else:
                self._json(404, {"error": {"message": "There is nothing here."}})

    def _key(self) -> str:
        return self.headers.get("Idempotency-Key") or ""

    def _is_in_use(self) -> bool:
        """Take as long as the faults will have it; say whether somebody else is at this key."""
        world, key = self.server.world, self._key()
        if not key or not world.faults.slow:
            return False
        with world.lock:
            if key in world.asking:
                return True
            if key not in world.answers:
                world.asking.add(key)
        time.sleep(world.faults.slow)
        return False

    def _tried(self, call: Callable[[], Params]) -> tuple[int, Params]:
        try:
            return 200, call()
        except Wrong as error:
            return error.status, {"error": {"type": error.kind, "message": str(error)}}

    def _api(self, path: list[str], given: Params) -> None:
        world = self.server.world
        if not self._has_key():
            wrong = {"type": "invalid_request_error", "message": "You did not provide an API key."}
            self._json(401, {"error": wrong})
            return
        if world.faults.away:
            self._json(503, {"error": {"type": "api_error", "message": "We are away."}})
            return
        status, said = self._tried(lambda: self._once(path, given))
        if "_failed" in said:
            self._json(500, {"error": {"type": "api_error", "message": "Something went wrong."}})
            return
        if world.faults.lost_answers:
            world.faults.lost_answers -= 1
            self.close_connection = True
            return
        self._json(status, _shown(said))

    def _has_key(self) -> bool:
        """Say whether a caller bears a key, as a bearer or as the name of Basic (curl -u sk_…:)."""
        scheme, _, said = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            try:
                said = base64.b64decode(said).decode("ascii").partition(":")[0]
            except ValueError:
                return False
        return scheme in {"Basic", "Bearer"} and said.startswith(("sk_", "rk_"))

    def _once(self, path: list[str], given: Params) -> Params:
        """Carry a call out, or say again what was said to it under the same key."""
        key = self.headers.get("Idempotency-Key")
        if self.command != "POST" or not key:
            return self._call(path, given)
        asked = json.dumps([path, given], sort_keys=True)
        known = self.server.world.answers.get(key)
        if known is None and self.server.world.faults.failures:
            self.server.world.faults.failures -= 1
            known = self.server.world.answers[key] = (asked, 500, {"_failed": True})
        if known is None:
            # What is refused is not kept: the key may be used again.
            said = json.loads(json.dumps(self._call(path, given)))
            known = self.server.world.answers[key] = (asked, 200, said)
        if known[0] != asked:
            wrong = "Keys for idempotent requests can only be used with the same parameters."
            raise Wrong(400, wrong, "idempotency_error")
        return known[2]

    def _call(self, path: list[str], given: Params) -> Params:
        world, query = self.server.world, nested(parse_qsl(urlsplit(self.path).query))
        match [self.command, *path]:
            case ["POST", "checkout", "sessions"]:
                return world.make_session(given)
            case ["GET", "checkout", "sessions", named]:
                return world.find("checkout.session", named)
            case ["POST", "checkout", "sessions", named, "expire"]:
                return world.end(world.find("checkout.session", named))
            case ["GET", "payment_intents", named]:
                intent = dict(world.find("payment_intent", named))
                if "latest_charge" in query.get("expand", {}).values() and intent["latest_charge"]:
                    intent["latest_charge"] = world.things[intent["latest_charge"]]
                return intent
            case ["POST", "refunds"]:
                return world.refund(given)
            case ["GET", "refunds"]:
                of = query.get("payment_intent")
                return _listed(world.all("refund", payment_intent=of), "/v1/refunds")
            case ["GET", "charges", named]:
                return world.find("charge", named)
            case ["GET", "refunds", named]:
                return world.find("refund", named)
            case ["GET", "disputes", named]:
                return world.find("dispute", named)
        raise Wrong(404, f"Unrecognized request URL ({self.command}: /v1/{'/'.join(path)})")

    def _control(self, path: list[str], given: Params) -> Params:
        world = self.server.world
        match [self.command, *path]:
            case ["GET", "events"]:
                return {"data": world.events}
            case ["GET", "sessions"]:
                return _listed(world.all("checkout.session"), "/_control/sessions")
            case ["POST", "events", named, "resend"]:
                for event in world.events:
                    if event["id"] == named:
                        world.tell(event)
                return {}
            case ["POST", "faults"]:
                for name, value in given.items():
                    if not hasattr(world.faults, name):
                        raise Wrong(400, f"There is no fault named {name}.")
                    setattr(world.faults, name, value)
                return vars(world.faults)
            case ["POST", "sessions", named, ("pay" | "decline" | "end") as deed]:
                session = world.find("checkout.session", named)
                getattr(world, deed)(session)
                return _shown(session)
            case ["POST", "disputes"]:
                return world.dispute(given)
            case ["POST", "disputes", named, step]:
                status = str(given.get("status", "lost"))
                return world.go_on(world.find("dispute", named), step, status)
            case ["POST", "refunds", named, "fail"]:
                return world.fail_refund(world.find("refund", named))
        raise Wrong(404, "There is no such control.")

    # -- the card page ----------------------------------------------------------------------------

    def _page(self, named: str, deed: str) -> None:
        world = self.server.world
        try:
            session = world.find("checkout.session", named)
            if self.command == "POST" and deed == "pay":
                world.pay(session)
                self._send(303, b"", "text/plain", Location=session["success_url"])
                return
            if self.command == "POST" and deed == "decline":
                world.decline(session)
        except Wrong as error:
            self._send(error.status, _sheet(html.escape(str(error))), "text/html; charset=utf-8")
            return
        self._send(200, _sheet(_form(session, deed)), "text/html; charset=utf-8")

    def _json(self, status: int, said: Mapping[str, Any]) -> None:
        body = json.dumps(said, indent=2).encode()
        self._send(
            status, body, "application/json", **{"Request-Id": f"req_{secrets.token_hex(6)}"}
        )

    def _send(self, status: int, body: bytes, media_type: str, **headers: str) -> None:
        self.send_response(status)
        named = {"Content-Type": media_type, "Cache-Control": "no-store", **headers}
        for name, value in named.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of what is asked."""


def _form(session: Params, deed: str) -> str:
    if session["status"] != "open":
        return "<p>This page is closed.</p>"
    amount = f"{session['amount_total'] / 100:.2f} {session['currency'].upper()}"
    declined = (
        '<p role="alert">The card was declined. Take another.</p>' if deed == "decline" else ""
    )
    left = html.escape(session["cancel_url"] or session["success_url"])
    return (
        f"{declined}<p>{html.escape(session['client_reference_id'] or '')}: <b>{amount}</b></p>"
        '<form method="post"><button name="do" value="pay">Pay</button> '
        '<button name="do" value="decline">Use a card that is declined</button></form>'
        f'<p><a href="{left}">Leave</a></p>'
    )


def _sheet(content: str) -> bytes:
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<title>Card page (stand-in)</title><h1>Card page (stand-in)</h1>"
        f"<p>No card is asked for and no money moves.</p>{content}</html>"
    ).encode()


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8420, help="of this machine (8420)")
    parser.add_argument("--webhook", required=True, help="where events are posted")
    parser.add_argument("--secret", required=True, help="what they are signed by: whsec_…")
    parser.add_argument("--lose", type=float, default=0.0, help="share of events never delivered")
    parser.add_argument("--double", type=float, default=0.0, help="share delivered twice")
    parser.add_argument("--reorder", action="store_true", help="deliver in any order")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each delivery")
    parser.add_argument("--seed", type=int, default=0, help="of what is lost and doubled")
    parser.add_argument("--journal", type=Path, help="a file that every event is written to")
    arguments = parser.parse_args()
    server = Server(
        arguments.port,
        arguments.webhook,
        arguments.secret,
        clock=business_clock(),
        seed=arguments.seed,
    )
    for name in ("lose", "double", "reorder", "delay"):
        setattr(server.world.faults, name, getattr(arguments, name))
    with Journal(arguments.journal) if arguments.journal else nullcontext() as journal:
        if journal is not None:
            deliver = server.world.tell

            def written(event: Params) -> None:
                journal.append({"line": "event", "event": event}, durable=True)
                deliver(event)

            def taken(event: Params, body: bytes) -> None:
                sha256 = hashlib.sha256(body).hexdigest()
                line = {"line": "answer", "event": event["id"], "body_sha256": sha256}
                journal.append(line, durable=False)

            server.world.tell = written
            server.courier.taken = taken
        sys.stdout.write(f"A stand-in for Stripe is at {server.world.address}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
