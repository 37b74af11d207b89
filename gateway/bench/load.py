"""Signed deliveries sent as fast as they are answered, by connections that stay open.

A closed loop: each connection sends its next delivery when the former one is answered. Everything
is signed beforehand and the loop is bare sockets, since what the sender takes of the machine the
server cannot have.
"""

from __future__ import annotations

import base64
import hmac
import itertools
import json
import os
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Final

from gateway.clock import real_clock
from gateway.references import with_check_digits

PROVIDER: Final = "bench"
STORED: Final = b'{"detail":"Stored."}'
ANSWER_SECONDS_MAX: Final = 30.0
PREPARED_PER_SECOND: Final = 30_000
"""More than are answered; should they run out, the shot ends."""

_ANSWER_BYTES_MAX: Final = 65_536


class NotTaken(Exception):
    """An answer was not «Stored», or there was none."""


@dataclass(frozen=True, slots=True)
class Shot:
    """What came of one shot. Every delivery that was sent was answered 202."""

    answered: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_seconds: float
    """Of this sender, from the first byte to the last."""

    @property
    def rate(self) -> float:
        return self.answered / self.seconds


def shoot(
    port: int, secret: bytes, *, first: int, most: int, connections: int, seconds: float
) -> Shot:
    """Send deliveries number `first` and on to this machine, until the time or `most` is over.

    Args:
        port: Of the server.
        secret: The provider's, by which they are signed.
        first: The number of the first one; equal numbers are equal deliveries.
        most: How many at most, but at least one for each connection.
        connections: How many are open at once.
        seconds: After this long nothing more is sent; what was sent is waited for.

    Raises:
        NotTaken: One was not answered «Stored» within ANSWER_SECONDS_MAX.
    """
    most = max(connections, min(most, ceil(seconds * PREPARED_PER_SECOND)))
    at = str(int(real_clock().timestamp()))
    requests = [_request(number, secret, at) for number in range(first, first + most)]
    opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    try:
        for connection in opened:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _exchange([c.fileno() for c in opened], iter(requests), seconds)
    finally:
        for connection in opened:
            connection.close()


def _exchange(connections: list[int], requests: Iterator[bytes], seconds: float) -> Shot:
    poll = select.epoll()
    took: list[float] = []
    partial: dict[int, bytes] = {}
    cpu, began = time.process_time(), time.perf_counter()
    deadline = began + seconds
    since = dict.fromkeys(connections, began)
    for connection, request in zip(connections, requests, strict=False):
        poll.register(connection, select.EPOLLIN)
        _send(connection, request)
    open_ = len(connections)
    while open_:
        ready = poll.poll(ANSWER_SECONDS_MAX)
        if not ready:
            raise NotTaken(f"no answer within {ANSWER_SECONDS_MAX:.0f} s")
        for connection, _ in ready:
            answer = os.read(connection, _ANSWER_BYTES_MAX)
            if not _is_stored(answer, connection, partial):
                continue
            now = time.perf_counter()
            took.append(now - since[connection])
            request = next(requests, b"") if now < deadline else b""
            if request:
                since[connection] = now
                _send(connection, request)
            else:
                open_ -= 1
    ended = time.perf_counter()
    took.sort()
    return Shot(
        len(took),
        ended - began,
        1000 * took[len(took) // 2],
        1000 * took[ceil(len(took) * 0.99) - 1],
        time.process_time() - cpu,
    )


def _send(connection: int, request: bytes) -> None:
    # The buffer of the connection is empty and far larger: it is taken whole.
    assert os.write(connection, request) == len(request)


def _is_stored(answer: bytes, connection: int, partial: dict[int, bytes]) -> bool:
    """Say whether an answer is whole and «Stored»; keep what is the beginning of one."""
    if connection in partial:
        answer = partial.pop(connection) + answer
    if answer.startswith(b"HTTP/1.1 202 ") and answer.endswith(STORED):
        return True
    head, _, body = answer.partition(b"\r\n\r\n")
    # It may still become one. An answer of another kind, or none at all, may not.
    if (
        not answer
        or not head.startswith(b"HTTP/1.1 202 "[: len(head)])
        or not STORED.startswith(body)
    ):
        raise NotTaken(f"answered {answer[:200]!r}")
    partial[connection] = answer
    return False


def delivery(number: int) -> tuple[str, bytes]:
    """Return the id and the body of a delivery: our own event, some 350 bytes."""
    told = "2026-11-18T11:06:40+00:00"
    event = {
        "type": "payment.completed",
        "timestamp": told,
        "data": {
            "provider_payment_id": f"bench-{number:012}",
            "reference": with_check_digits(10**9 + number),
            "amount": "163.52",
            "currency": "MAD",
            "channel": "cash_agent",
            "paid_at": told,
            "agent_id": "agent-0421",
            "terminal_id": "terminal-07",
            "fee": "3.00",
        },
    }
    return f"msg_{number:012}", json.dumps(event).encode()


def _request(number: int, secret: bytes, at: str) -> bytes:
    name, body = delivery(number)
    mac = hmac.digest(secret, f"{name}.{at}.".encode() + body, "sha256")
    head = itertools.chain(
        (f"POST /webhooks/{PROVIDER} HTTP/1.1", "host: 127.0.0.1", "user-agent: wasl-bench"),
        ("accept: */*", "content-type: application/json", f"content-length: {len(body)}"),
        (f"webhook-id: {name}", f"webhook-timestamp: {at}"),
        (f"webhook-signature: v1,{base64.b64encode(mac).decode()}", "", ""),
    )
    return "\r\n".join(head).encode() + body
