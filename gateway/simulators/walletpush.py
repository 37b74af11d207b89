"""A wallet operator that asks payers on their phones, in the manner of MTN MoMo's request to pay.

Run it as `python -m gateway.simulators.walletpush --port 8431 --api-key KEY`. A payer is asked at
`/requesttopay` under the caller's own id, and the caller asks there by that id what he said. Who
plays payers confirms, refuses or lets it lapse at `/_control`. A callback is put once, and proves
nothing. Payers' numbers are in no journal. No money moves.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import threading
import uuid
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.simulators import faults as faulty
from gateway.simulators.clock import Clock, business_clock
from gateway.simulators.faults import Faults
from gateway.simulators.journal import Journal, Line, read_journal
from gateway.simulators.notices import centimes, dirhams

BODY_BYTES_MAX: Final = 64 * 1024
REQUEST_LIFE: Final = timedelta(minutes=5)
"""How long a payer may take to confirm."""
CALLBACK_SECONDS_MAX: Final = 10.0

Said = dict[str, Any]


class Wrong(Exception):
    """A call that the operator refuses."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Request:
    """A payer who is asked."""

    reference_id: str
    external_id: str
    amount_minor: int
    currency: str
    callback_url: str
    made_at: str
    status: str = "PENDING"
    reason: str = ""
    transaction_id: str = ""

    @property
    def reference(self) -> str:
        """What is paid: the order's number begins with it."""
        return self.external_id.partition("-")[0]

    @property
    def told(self) -> Said:
        """What the operator says of it."""
        said: Said = {
            "externalId": self.external_id,
            "amount": dirhams(self.amount_minor),
            "currency": self.currency,
            "status": self.status,
        }
        if self.transaction_id:
            said["financialTransactionId"] = self.transaction_id
        if self.reason:
            said["reason"] = self.reason
        return said


class Operator:
    """All that the operator knows. Any number of threads may call at once."""

    def __init__(
        self, *, clock: Clock, journal: Journal | None = None, faults: Faults | None = None
    ) -> None:
        self.requests: dict[str, Request] = {}
        self.phones: dict[str, str] = {}
        """Who is asked, by the request's id; in memory only."""
        self.away = False
        """Whether it answers nobody."""
        self.lost_answers = 0
        """How many requests are still to be taken without the caller hearing of it."""
        self.lose_callbacks = False
        self.faults = faults or Faults()
        """What goes wrong with callbacks, by the order's number: some are lost, some put twice."""
        self._clock = clock
        self._journal = journal
        self._lock = threading.RLock()

    def restore(self, past: list[Line]) -> None:
        """Go on where a journal ends."""
        for line in past:
            if line["line"] == "request":
                request = Request(**{k: v for k, v in line.items() if k != "line"})
                self.requests[request.reference_id] = request
            elif line["line"] == "outcome":
                request = self.requests[line["reference_id"]]
                request.status, request.reason = line["status"], line["reason"]
                request.transaction_id = line["transaction_id"]

    def ask(self, reference_id: str, callback_url: str, said: Said) -> None:
        """Ask a payer; the same id again is refused, as operators do."""
        try:
            if str(uuid.UUID(reference_id)) != reference_id or uuid.UUID(reference_id).version != 4:
                raise ValueError(reference_id)
            amount = centimes(str(said.get("amount")))
        except ValueError:
            raise Wrong(400, "X-Reference-Id is a UUID of version 4, amount a decimal") from None
        payer = said.get("payer")
        phone = str(payer.get("partyId")) if isinstance(payer, dict) else ""
        if not phone.isdecimal() or not said.get("externalId"):
            raise Wrong(400, "there is no payer, or no externalId")
        with self._lock:
            if reference_id in self.requests:
                raise Wrong(409, "RESOURCE_ALREADY_EXIST")
            request = Request(
                reference_id,
                str(said["externalId"]),
                amount,
                str(said.get("currency")),
                callback_url,
                self._clock().isoformat(),
            )
            self._write({"line": "request", **asdict(request)})
            self.requests[reference_id] = request
            self.phones[reference_id] = phone

    def find(self, named: str) -> Request:
        """Return a request by its id, or the last of an order or a reference."""
        with self._lock:
            found = [
                r
                for r in self.requests.values()
                if named in {r.reference_id, r.external_id, r.reference}
            ]
            if not found:
                raise Wrong(404, "RESOURCE_NOT_FOUND")
            request = found[-1]
            made_at = datetime.fromisoformat(request.made_at)
            if request.status == "PENDING" and self._clock() > made_at + REQUEST_LIFE:
                self._end(request, "FAILED", "EXPIRED")
            return request

    def decide(self, request: Request, deed: str) -> int | None:
        """Do what the payer does on his phone, and tell of it; return how that was answered."""
        outcome = {
            "confirm": ("SUCCESSFUL", ""),
            "refuse": ("FAILED", "APPROVAL_REJECTED"),
            "lapse": ("FAILED", "EXPIRED"),
        }[deed]
        with self._lock:
            if request.status != "PENDING":
                raise Wrong(409, f"it is {request.status} already")
            self._end(request, *outcome)
            body = json.dumps(request.told)
            fate = self.faults.of(f"{request.reference}.{len(self._asked(request.reference))}")
        lost = self.lose_callbacks or fate.lose
        for number in range(2 if fate.double else 1):
            answered = self._tell(request, body, number, lost=lost)
        return answered

    def _tell(self, request: Request, body: str, number: int, *, lost: bool) -> int | None:
        """Put a callback, once: nobody puts it again. Return the status of its answer."""
        step = f"{request.external_id}.{request.status}.{number}"
        send = {"line": "send", "step": step, "payment_id": request.external_id, "body": body}
        self._write({**send, "lost": lost})
        if lost:
            return None
        answered = _put(request.callback_url, body)
        fits = 200 <= (answered or 0) < 300
        self._write({"line": "answer", "step": step, "status": answered, "as_expected": fits})
        return answered

    def _asked(self, reference: str) -> list[Request]:
        return [r for r in self.requests.values() if r.reference == reference]

    def _end(self, request: Request, status: str, reason: str) -> None:
        number = str(len(self.requests)).zfill(9) if status == "SUCCESSFUL" else ""
        self._write(
            {
                "line": "outcome",
                "reference_id": request.reference_id,
                "payment_id": request.external_id,
                "reference": request.reference,
                "paid_at": self._clock().isoformat(),
                "status": status,
                "reason": reason,
                "transaction_id": number,
                "net_minor": request.amount_minor if number else 0,
            }
        )
        request.status, request.reason, request.transaction_id = status, reason, number

    def _write(self, line: Line) -> None:
        if self._journal is not None:
            self._journal.append(line, durable=True)


def _put(url: str, body: str) -> int | None:
    """Put a callback once; return the status of the answer, or None."""
    to = urlsplit(url)
    make = http.client.HTTPSConnection if to.scheme == "https" else http.client.HTTPConnection
    connection = make(to.hostname or "", to.port, timeout=CALLBACK_SECONDS_MAX)
    try:
        connection.request(
            "PUT", to.path or "/", body.encode(), {"Content-Type": "application/json"}
        )
        with connection.getresponse() as answer:
            return answer.status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


class Server(ThreadingHTTPServer):
    """The operator, on this machine only."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, api_key: str, operator: Operator) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.api_key = api_key
        self.operator = operator
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        try:
            read = json.loads(self.rfile.read(min(length, BODY_BYTES_MAX)) or b"{}")
        except ValueError:
            read = {}
        self._answer(read if isinstance(read, dict) else {})

    def _answer(self, said: Said) -> None:
        operator = self.server.operator
        path = [part for part in urlsplit(self.path).path.split("/") if part]
        try:
            if operator.away and path[:1] != ["_control"]:
                raise Wrong(503, "SERVICE_UNAVAILABLE")
            match [self.command, *path]:
                case ["POST", "requesttopay"]:
                    self._check_key()
                    headers = self.headers
                    callback_url = headers.get("X-Callback-Url", "")
                    operator.ask(headers.get("X-Reference-Id", ""), callback_url, said)
                    if operator.lost_answers:
                        operator.lost_answers -= 1
                        raise Wrong(500, "INTERNAL_PROCESSING_ERROR")
                    self._send(202, b"")
                case ["GET", "requesttopay", reference_id]:
                    self._check_key()
                    self._json(200, operator.find(reference_id).told)
                case ["POST", "_control", ("confirm" | "refuse" | "lapse") as deed]:
                    request = operator.find(str(said.get("named")))
                    self._json(200, {"told": operator.decide(request, deed), **request.told})
                case ["GET", "_control", "requests"]:
                    self._json(200, {"requests": [asdict(r) for r in operator.requests.values()]})
                case _:
                    raise Wrong(404, "there is nothing here")
        except Wrong as error:
            self._json(error.status, {"message": str(error)})

    def _check_key(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {self.server.api_key}":
            raise Wrong(401, "the key is not ours")

    def _json(self, status: int, said: Mapping[str, Any]) -> None:
        self._send(status, json.dumps(said).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if body:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of what is asked."""


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8431, help="of this machine (8431)")
    parser.add_argument("--api-key", required=True, help="what the gateway shows as a bearer")
    parser.add_argument("--journal", type=Path, help="a file of all that is done")
    faulty.add_options(parser)
    options = parser.parse_args()
    past = read_journal(options.journal) if options.journal else []
    with Journal(options.journal) if options.journal else nullcontext() as journal:
        operator = Operator(
            clock=business_clock(), journal=journal, faults=faulty.from_options(options)
        )
        operator.restore(past)
        server = Server(options.port, options.api_key, operator)
        sys.stdout.write(
            f"A wallet operator that asks on phones, simulated, is at {server.address}\n"
        )
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
