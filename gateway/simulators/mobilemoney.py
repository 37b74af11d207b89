"""A wallet operator that pays bills by the GSMA Mobile Money API 1.2, and its payers.

For each payer it asks what the bill says, pays by POST, and moves its own money only when it was
told that the payment is complete: at once, by the PUT to its own small server, or by asking for the
request's state when no PUT comes. Unanswered it sends the same again under the same correlation id.
One program is one operator (see gateway.simulators.rounds). A fate of `reorder` or `late` changes
nothing here: nothing is said before a payment, and none is told of that was not just asked for.

A PUT may come again, long after its payer has gone: whoever sent it may have been killed before it
noted our answer. So with `--stay` the server answers until the program is told to end by SIGTERM,
and a program that is started again listens where its journal says that the one before it did.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.simulators.clock import Clock, business_clock
from gateway.simulators.dealing import Behaviour, Case
from gateway.simulators.deliveries import Attack, Step
from gateway.simulators.faults import Fate
from gateway.simulators.journal import Journal, read_journal
from gateway.simulators.rounds import Outcome, add_options, play, read_options

ANSWER_SECONDS_MAX: Final = 20.0
RETRY_SECONDS_MAX: Final = 180.0
PAUSE_SECONDS_MIN: Final = 0.1
PAUSE_SECONDS_MAX: Final = 2.0
CALLBACK_SECONDS: Final = 0.3
"""For how long a payer's telephone shows a turning wheel before the operator asks by itself."""
LINGER_SECONDS_MAX: Final = 60.0
"""At the end, unless we are told to stay: for the PUTs that are still to come."""
BODY_BYTES_MAX: Final = 65_536
WITHOUT_CALLBACK: Final = 4
"""One payment in so many is made without a callback."""

COMPLETED: Final = "completed"
Said = Mapping[str, Any]


def plan(case: Case, planned_at: datetime, fate: Fate) -> list[Step]:
    """Return the requests of a case in the order they must be sent and answered."""
    if case.behaviour is Behaviour.UNPAID:
        return []
    due = case.notice.amount_minor
    honest = Step(
        key=f"{case.id}.0",
        behaviour="+".join(fate.struck) or case.behaviour,
        delivery_id=str(uuid.UUID(case.name("correlation").ljust(32, "0"))),
        body=_request(case, due, planned_at),
        reference=case.notice.reference,
        paid_at=planned_at.isoformat(),
        planned_at=planned_at.isoformat(),
        refused=False,
        attack=None,
        payment_id=_named(case),
        booked_minor=due,
        planted=None,
    )
    refused = replace(honest, refused=True, payment_id=None, booked_minor=None)
    if fate.wrong_currency:
        steps = [replace(refused, body=_request(case, due, planned_at, currency="EUR"))]
    else:
        steps = [replace(refused, attack=Attack.TAMPERED)] if fate.tamper else []
        steps.append(honest)
        if fate.wrong_amount:
            other = _request(case, due + 1000, planned_at)
            steps.append(replace(refused, body=other, planted="conflicting_delivery"))
        if fate.double:
            steps.append(honest)
    return [replace(step, key=f"{case.id}.{at}") for at, step in enumerate(steps)]


def _named(case: Case) -> str:
    return f"MM-{case.name('payment 0')}"


def _request(case: Case, minor: int, planned_at: datetime, currency: str = "MAD") -> bytes:
    said = {
        "currency": currency,
        "amountPaid": amount(minor),
        "paymentType": "fullpayment",
        "customerReference": f"+2126000{case.pick('telephone', 100_000):05d}",
        "requestingOrganisation": "WALLETX",
        "requestingOrganisationTransactionReference": _named(case),
        "requestDate": written(planned_at),
    }
    return json.dumps(said, separators=(",", ":")).encode()


def amount(minor: int) -> str:
    """Return centimes as the published pattern has it: no trailing zero, `172.5`."""
    whole, cents = divmod(minor, 100)
    return str(whole) if cents == 0 else f"{whole}.{cents:02d}".rstrip("0")


def written(instant: datetime) -> str:
    """Return an instant with milliseconds, in UTC."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# -- the operator's own server --------------------------------------------------------------------


class Callbacks(ThreadingHTTPServer):
    """Where the outcome of a payment is put: `PUT /callbacks`."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        """Listen on a port of this machine; 0: any that is free."""
        super().__init__(("127.0.0.1", port), _Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}/callbacks"
        self.surprises: list[str] = []
        """What was put and was not what must have been, in words."""
        self._changed = threading.Condition()
        self._expected: dict[str, bytes] = {}
        self._failing: set[str] = set()
        self._told: dict[str, Said] = {}

    def expect(self, correlation_id: str, request: bytes, *, fail: bool) -> None:
        """Be ready for the outcome of a request; `fail`: the first PUT of it is answered by 500."""
        with self._changed:
            if correlation_id not in self._expected:
                self._expected[correlation_id] = request
                if fail:
                    self._failing.add(correlation_id)

    def forget(self, correlation_id: str) -> None:
        """Expect no outcome of a request that was answered at once."""
        with self._changed:
            self._expected.pop(correlation_id, None)

    def told(self, correlation_id: str, seconds: float) -> Said | None:
        """Return what was put for a request, if it comes within so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: correlation_id in self._told, seconds)
            return self._told.get(correlation_id)

    def linger(self, seconds: float) -> list[str]:
        """Wait for the outcomes that are still to come; return the requests of which none came."""
        with self._changed:
            self._changed.wait_for(lambda: self._expected.keys() <= self._told.keys(), seconds)
            return sorted(self._expected.keys() - self._told.keys())

    def put(self, correlation_id: str, body: bytes) -> int:
        """Take an outcome in, and return the status to answer."""
        with self._changed:
            if correlation_id in self._failing:
                self._failing.discard(correlation_id)
                return 500
            request = self._expected.get(correlation_id)
            if request is None:
                # Of a program that was killed: whoever is at it now has asked, or will.
                return 204
            try:
                said = json.loads(body)
                asked = json.loads(request)
            except ValueError:
                said = asked = None
            known = self._told.get(correlation_id)
            if not isinstance(said, dict) or (known is not None and known != said):
                self.surprises.append(f"{correlation_id}: the outcome is not the first one")
                return 400
            if said.get("billPaymentStatus") == COMPLETED:
                same = ("amountPaid", "currency", "requestingOrganisationTransactionReference")
                if any(said.get(name) != asked[name] for name in same):
                    self.surprises.append(f"{correlation_id}: the outcome is of another payment")
            self._told[correlation_id] = said
            self._changed.notify_all()
        return 204


class _Handler(BaseHTTPRequestHandler):
    server: Callbacks

    def do_PUT(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(min(length, BODY_BYTES_MAX))
        correlation_id = self.headers.get("X-CorrelationID", "")
        self.send_response(self.server.put(correlation_id, body))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of what comes."""


# -- asking and paying ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    said: Any


class Operator:
    """One kept-alive connection to the product, which retries as an operator does."""

    def __init__(self, url: str, *, api_key: str, clock: Clock, callbacks: Callbacks) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"{url!r} is not an http address")
        self._connection = http.client.HTTPConnection(
            parts.hostname, parts.port, timeout=ANSWER_SECONDS_MAX
        )
        self._prefix = parts.path.rstrip("/")
        self._api_key = api_key
        self._clock = clock
        self._callbacks = callbacks

    def close(self) -> None:
        self._connection.close()

    def deliver(self, step: Step, *, stop: threading.Event) -> Outcome:
        """Make one request, and follow it to its end (see gateway.simulators.rounds.Sender)."""
        until = time.monotonic() + RETRY_SECONDS_MAX
        pause = PAUSE_SECONDS_MIN
        while True:
            try:
                return self._refused(step) if step.refused else self._pay(step)
            except (OSError, http.client.HTTPException, _NoAnswer) as error:
                self._connection.close()
                if stop.is_set() or time.monotonic() + pause > until:
                    return Outcome(None, type(error).__name__)
            time.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)

    def _refused(self, step: Step) -> Outcome:
        """Make a request that must be refused, and see that it says so in the published words."""
        answer = self._post(step)
        error = answer.said.get("errorCode") if isinstance(answer.said, dict) else None
        return Outcome(answer.status, None if error else "no error object", error)

    def _pay(self, step: Step) -> Outcome:
        asked = self._call("GET", f"/accounts/consumerno/{step.reference}/bills")
        if asked.status != 200 or [b.get("billReference") for b in asked.said] != [step.reference]:
            return Outcome(asked.status, "the bill is not shown")
        with_callback = _with_callback(step)
        if with_callback:
            failing = "fail" in step.behaviour.split("+")
            self._callbacks.expect(step.delivery_id, step.body, fail=failing)
        answer = self._post(step)
        if answer.status != 202:
            self._callbacks.forget(step.delivery_id)
            return _ended(answer.status, answer.said)
        told = self._callbacks.told(step.delivery_id, CALLBACK_SECONDS)
        if told is not None:
            return _ended(answer.status, told)
        return self._ask(answer.said["serverCorrelationId"])

    def _ask(self, ticket: str) -> Outcome:
        """Ask how a request ended."""
        answer = self._call("GET", f"/requeststates/{ticket}")
        if answer.status != 200 or answer.said.get("status") == "pending":
            raise _NoAnswer
        state = answer.said["status"]
        return Outcome(200, None if state == COMPLETED else "the payment failed", state)

    def _post(self, step: Step) -> _Answer:
        body = step.body
        if step.attack is Attack.TAMPERED:
            body = body.replace(b'"amountPaid":"', b'"amountPaid":"9', 1)
        headers = {
            "Content-Type": "application/json",
            "X-CorrelationID": step.delivery_id,
            "X-Content-Hash": hashlib.sha256(step.body).hexdigest(),
        }
        if _with_callback(step):
            headers["X-Callback-URL"] = self._callbacks.address
        return self._call("POST", f"/bills/{step.reference}/payments", body, headers)

    def _call(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> _Answer:
        """Return an answer below 500.

        Raises:
            OSError, http.client.HTTPException, _NoAnswer: There is none.
        """
        always = {"X-API-Key": self._api_key, "X-Date": written(self._clock())}
        self._connection.request(
            method, self._prefix + path, body or None, {**always, **(headers or {})}
        )
        answer = self._connection.getresponse()
        read = answer.read()
        if answer.status >= 500:
            raise _NoAnswer
        try:
            return _Answer(answer.status, json.loads(read))
        except ValueError:
            return _Answer(answer.status, {})


class _NoAnswer(Exception):
    """There is no answer yet: the same is sent again."""


def _with_callback(step: Step) -> bool:
    return int(step.delivery_id[:8], 16) % WITHOUT_CALLBACK != 0


def _ended(status: int, said: Any) -> Outcome:
    """Return how a payment ended, by the bill payment or the error object that was said."""
    state = said.get("billPaymentStatus") if isinstance(said, dict) else None
    if state == COMPLETED:
        return Outcome(status, None, COMPLETED)
    error = said.get("errorCode") if isinstance(said, dict) else None
    return Outcome(status, "the payment failed", error or state)


def main(arguments: list[str] | None = None) -> int:
    """Play one operator; return 0, 1 after surprises, or 2 if the call was wrong."""
    parser = argparse.ArgumentParser(description="Play one wallet operator and its payers.")
    add_options(parser)
    parser.add_argument("--url", required=True, help="http://…/gsma/{name}")
    parser.add_argument("--key-env", required=True, help="variable with the X-API-Key")
    parser.add_argument(
        "--callback-port", default=0, type=int, help="of this machine (any; once begun, the same)"
    )
    parser.add_argument(
        "--stay", action="store_true", help="when all is paid, answer callbacks until SIGTERM"
    )
    options = read_options(parser, arguments)
    if options.stay:
        # Before there are threads, which do as we do: it waits until we wait for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        clock = business_clock()
        callbacks = Callbacks(_port_before(options.journal) or options.callback_port)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{options.provider}: {error}\n")
        return 2
    serving = threading.Thread(target=callbacks.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    try:
        api_key = os.environ.get(options.key_env, "")
        code = play(
            options,
            plan=plan,
            make_sender=lambda: Operator(
                options.url, api_key=api_key, clock=clock, callbacks=callbacks
            ),
            noted={"callback_port": callbacks.server_port},
        )
        if options.stay and code != 2:
            signal.sigwait({signal.SIGTERM})
        missing = callbacks.linger(0 if options.stay else LINGER_SECONDS_MAX)
    finally:
        callbacks.shutdown()
        serving.join()
        callbacks.server_close()
    surprises = list(callbacks.surprises)
    if options.stay:
        # Whoever told us to end knows that nothing is on its way any more.
        surprises += [f"{each}: no outcome was put" for each in missing]
    if surprises:
        _note(options.journal, surprises)
    if missing or surprises:
        sys.stderr.write(
            f"{options.provider}: {len(missing)} callbacks never came, {len(callbacks.surprises)}"
            " were not as expected.\n"
        )
    return 1 if surprises else code


def _port_before(journal: Path) -> int:
    """Return where the program before us listened, or 0: callbacks may still be sent there."""
    ports = [line["callback_port"] for line in read_journal(journal) if "callback_port" in line]
    return ports[-1] if ports else 0


def _note(path: Path, surprises: list[str]) -> None:
    """Write what was wrong with callbacks, and the journal's last line again."""
    with Journal(path) as journal:
        for words in surprises:
            journal.append({"line": "callback", "surprise": words}, durable=False)
        journal.append({"line": "end", "surprises": len(surprises)}, durable=True)


if __name__ == "__main__":
    sys.exit(main())
