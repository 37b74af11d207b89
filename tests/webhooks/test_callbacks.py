"""Words that we owe: put where the sender wanted, at least once, and nowhere else."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.db import alone, execute, transaction
from gateway.providers.calls import Callback
from gateway.providers.gsma import make
from tests.factories import (
    NOON,
    PATIENCE_SECONDS,
    a_delivery,
    an_answerer,
    at_once,
    rows_of,
    some_invoices,
)
from tests.gateway.providers.gsma_spec import judge_object
from tests.gateway.providers.test_gsma import KEY, a_payment
from webhooks import callbacks
from webhooks.answering import answer
from webhooks.callbacks import ATTEMPTS_MAX, owe, send_due
from webhooks.guarded import is_public

STATES: Final = "SELECT state, attempts, last_error FROM provider_callback ORDER BY id"
NOW_DUE: Final = "UPDATE provider_callback SET retry_at = clock_timestamp() - interval '1 second'"


class Receiver(ThreadingHTTPServer):
    """A sender's own server: keeps what is put, and answers as it is told."""

    daemon_threads = True

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = status
        self.release = threading.Event()
        self.drip: bytes | None = None
        self.got: list[tuple[str, dict[str, str], bytes]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: what a test cuts off is no news."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mm/callback?of=us"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), body))
        if self.server.status == 0:
            self._keep_busy()
            return
        self.send_response(self.server.status)
        self.send_header("Location", f"http://127.0.0.1:{self.server.port}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_PUT()

    def _keep_busy(self) -> None:
        """Never answer; or never stop to begin an answer."""
        while self.server.drip is not None and not self.server.release.wait(0.02):
            self.wfile.write(self.server.drip)
        self.server.release.wait(PATIENCE_SECONDS)

    def log_message(self, format: str, *args: Any) -> None: ...


@contextmanager
def receiving(status: int = 204, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    receiver = Receiver(status)
    if tls is not None:
        receiver.socket = tls.wrap_socket(receiver.socket, server_side=True)
    thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.release.set()
        receiver.shutdown()
        thread.join()
        receiver.server_close()


def owed(url: str) -> None:
    """Owe a word, as a call that was answered does, committed."""
    delivery_id = a_delivery(b"{}")
    with transaction() as session:
        delivery = execute(
            session, "SELECT id FROM webhook_delivery WHERE delivery_id = :id", {"id": delivery_id}
        ).scalar_one()
        owe(session, "walletx", delivery, url, Callback("PUT", {"X-Date": "d"}, b"{}"), now=NOON)


def due_again() -> None:
    with transaction() as session:
        execute(session, NOW_DUE)


def send(*, sandbox: bool = True) -> int:
    return send_due(clock=lambda: NOON, sandbox=sandbox)


def test_the_outcome_is_put_once_whoever_sends(database: str) -> None:
    (reference,) = some_invoices()
    wallet = make("walletx", {"api_keys": [KEY]}, live=False)
    correlation = "6f0f8d0e-8b0c-4f0e-9a66-1c2d3e4f5a6b"
    with receiving() as receiver:
        headers = {"x_correlationid": correlation, "x_callback_url": receiver.url}
        assert answer(an_answerer(), wallet, a_payment(reference, headers=headers)).status == 202
        assert sum(at_once(send, send, send)) == 1
        assert send() == 0
    ((path, sent, body),) = receiver.got
    assert path == "/mm/callback?of=us"
    assert sent["Host"] == f"127.0.0.1:{receiver.port}"
    assert sent["X-CorrelationID"] == correlation
    assert sent["X-Content-Hash"] == hashlib.sha256(body).hexdigest()
    assert not any(name.startswith(":") for name in sent)
    judge_object(json.loads(body), "responseBillPayment")
    assert rows_of(database, STATES) == [("done", 1, None)]
    assert rows_of(database, "SELECT ended_at FROM provider_callback") == [(NOON,)]


def test_a_word_that_was_claimed_by_a_process_that_was_killed_is_sent(database: str) -> None:
    with receiving() as receiver:
        owed(receiver.url)
        assert len(callbacks._claim()) == 1
        assert send() == 0
        due_again()
        assert send() == 1
    assert len(receiver.got) == 1
    assert rows_of(database, STATES) == [("done", 2, None)]


@pytest.mark.parametrize(
    ("status", "state", "error"),
    [
        (500, "waiting", "answered 500"),
        (410, "given_up", "answered 410"),
        (302, "waiting", "answered 302: we follow nobody elsewhere"),
    ],
)
def test_what_is_not_taken_is_sent_again_later_or_given_up(
    database: str, status: int, state: str, error: str
) -> None:
    with receiving(status) as receiver:
        owed(receiver.url)
        assert send() == 0
        assert [path for path, _, _ in receiver.got] == ["/mm/callback?of=us"]
        assert rows_of(database, STATES) == [(state, 1, error)]
        if state == "waiting":
            # Not at once; and not for ever.
            assert send() == 0
            with transaction() as session:
                last = {"attempts": ATTEMPTS_MAX - 1}
                execute(session, f"{NOW_DUE}, attempts = :attempts", last)
            assert send() == 0
            assert rows_of(database, STATES) == [("given_up", ATTEMPTS_MAX, error)]
            due_again()
            assert send() == 0
            assert len(receiver.got) == 2


def test_who_does_not_answer_is_not_waited_for_and_holds_up_nobody(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "SILENCE_SECONDS_MAX", 0.3)
    monkeypatch.setattr(callbacks, "SEND_SECONDS_MAX", 0.6)
    with receiving(0) as silent, receiving(0) as dripping, receiving() as honest:
        dripping.drip = b"H"
        for receiver in (silent, dripping, honest):
            owed(receiver.url)
        owed("http://127.0.0.1:9/")
        assert send() == 1
    states = rows_of(database, STATES)
    assert [state for state, _, _ in states] == ["waiting", "waiting", "done", "waiting"]
    assert states[0][2] == "no answer: TimeoutError"
    assert states[1][2].startswith("no answer: ")
    assert states[3][2] == "no answer: ConnectionRefusedError"


def test_the_worker_sends_by_the_schedule(database: str) -> None:
    # Its worker reads the broker's address when it is imported.
    from gateway.worker import SEND_CALLBACKS, app
    from webhooks.tasks import send_callbacks

    with receiving() as receiver:
        owed(receiver.url)
        send_callbacks()
    assert len(receiver.got) == 1
    assert SEND_CALLBACKS in {entry["task"] for entry in app.conf.beat_schedule.values()}


def test_nothing_is_sent_beside_another_run(database: str) -> None:
    with receiving() as receiver:
        owed(receiver.url)
        with alone(callbacks._ALONE) as ours:
            assert ours
            assert send() == 0
        assert send() == 1


# -- where we send nothing ------------------------------------------------------------------------


def test_in_production_nothing_goes_to_our_own_network_or_in_the_open(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = socket.getaddrinfo

    def two_faced(host: str, port: int, **kind: Any) -> Any:
        """A name that is somebody's of the open internet, and ours too."""
        both = ["93.184.216.34", "127.0.0.1"] if host == "two-faced.example" else [host]
        return [each for ip in both for each in looked_up(ip, port, **kind)]

    monkeypatch.setattr(socket, "getaddrinfo", two_faced)
    with receiving() as receiver:
        owed(receiver.url)
        owed(f"https://127.0.0.1:{receiver.port}/")
        owed(f"https://[::ffff:127.0.0.1]:{receiver.port}/")
        owed(f"https://two-faced.example:{receiver.port}/")
        assert send(sandbox=False) == 0
        assert receiver.got == []
    assert rows_of(database, STATES) == [
        ("given_up", 1, "the address is not https"),
        *[("given_up", 1, "the address is not of the open internet")] * 3,
    ]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - an address that nobody may send to
        ("10.0.0.8", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.8", False),
        ("64:ff9b::a00:8", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:a00:8::1", False),
        ("64:ff9b:1::a00:8", False),
        ("::10.0.0.8", False),
        ("fec0::1", False),
    ],
)
def test_which_addresses_are_of_the_open_internet(address: str, public: bool) -> None:
    assert is_public(address) is public


# -- over TLS -------------------------------------------------------------------------------------


def a_certificate(folder: Path) -> Path:
    """Write a key and a certificate for `localhost` that it signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    begins = datetime.now(UTC) - timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "localhost.pem"
    plain = serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, pkcs8, plain)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file


def test_over_tls_the_name_must_be_that_of_the_certificate(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = a_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with receiving(tls=context) as receiver:
        owed(f"https://localhost:{receiver.port}/")
        assert send() == 0
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        owed(f"https://127.0.0.1:{receiver.port}/")
        assert send() == 0
        due_again()
        assert send() == 1
    assert [state for state, _, _ in rows_of(database, STATES)] == ["done", "waiting"]
    assert rows_of(database, STATES)[1][2] == "no answer: SSLCertVerificationError"
