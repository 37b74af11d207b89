"""What the web process does with connections that do not get to the point."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn

from gateway import serve
from gateway.bodies import AT_ONCE
from gateway.errors import Unusable
from gateway.settings import Settings


async def answers(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A program that says hello: at `/at-once` in one piece where it may, at `/body` after it."""
    if scope["path"] == "/at-once":
        await asyncio.sleep(0)
        if scope["extensions"][AT_ONCE](scope, 200, b"content-length: 5\r\n\r\nhello"):
            PIECES.append(scope["path"])
            return
    if scope["path"] == "/body":
        while (await receive()).get("more_body"):
            pass
        HEADERS.append([name for name, _ in scope["headers"]])
    headers = [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


PIECES: list[str] = []
HEADERS: list[list[bytes]] = []


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """A server with our protocol that waits half a second for a head."""
    monkeypatch.setattr(serve, "HEAD_SECONDS_MAX", 0.5)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        answers, http=serve.BoundedHttp, lifespan="off", log_level="error", timeout_keep_alive=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listening.getsockname()
    server.should_exit = True
    thread.join()
    listening.close()


def until_closed(connection: socket.socket, drip: bytes = b"") -> float:
    """Return after how many seconds the server ends a connection that gets these bytes slowly."""
    connection.settimeout(0.1)
    began = time.monotonic()
    while time.monotonic() - began < 10:
        try:
            if drip:
                connection.sendall(drip)
            if connection.recv(1024) == b"":
                return time.monotonic() - began
        except TimeoutError:
            continue
        except ConnectionError:
            return time.monotonic() - began
    raise AssertionError("the connection was not ended")


WHOLE = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize("first", [b"", WHOLE[:-2], WHOLE + WHOLE[:-2]])
def test_a_head_that_does_not_come_ends_the_connection(
    address: tuple[str, int], first: bytes
) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(first)
        until_closed(connection, drip=b"y" if first else b"")


def test_whoever_gets_to_the_point_is_answered_as_often_as_he_asks(
    address: tuple[str, int],
) -> None:
    with httpx.Client(base_url=f"http://{address[0]}:{address[1]}") as client:
        for _ in range(3):
            assert client.get("/").text == "hello"
            time.sleep(0.3)


def test_whoever_asks_no_more_is_hung_up_on(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        for _ in range(2):
            connection.sendall(WHOLE)
            said = b""
            while not said.endswith(b"hello"):
                said += connection.recv(1024)
        until_closed(connection)


IN_PARTS = b"POST /body HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"


def test_what_follows_a_body_is_no_header_and_has_an_end(address: tuple[str, int]) -> None:
    HEADERS.clear()
    with socket.create_connection(address) as connection:
        connection.sendall(IN_PARTS + b"x-forwarded-for: 192.0.2.1\r\n\r\n")
        assert b"200 OK" in connection.recv(1024)
    assert HEADERS == [[b"host", b"transfer-encoding"]]
    with socket.create_connection(address) as connection:
        connection.sendall(IN_PARTS)
        until_closed(connection, drip=b"x: " + b"y" * 8192 + b"\r\n")


def test_a_body_that_nobody_waits_for_does_not_hold_its_connection(
    address: tuple[str, int],
) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
        until_closed(connection, drip=b"y")


def test_what_is_asked_without_waiting_for_answers_is_bounded(address: tuple[str, int]) -> None:
    heard = []
    for count in (serve.QUEUED_MAX, 2 * serve.QUEUED_MAX):
        with socket.create_connection(address) as connection:
            connection.sendall(WHOLE * count)
            connection.settimeout(10)
            said = b""
            while part := connection.recv(65536):
                said += part
        heard.append(said.count(b"hello"))
    assert heard == [serve.QUEUED_MAX, 0]


@pytest.mark.parametrize(
    ("asked", "pieces"),
    [
        ([WHOLE, WHOLE], 2),
        ([WHOLE + WHOLE + WHOLE], 1),
        ([WHOLE.replace(b"host", b"connection: close\r\nhost")], 0),
        ([WHOLE.replace(b"1.1", b"1.0")], 0),
    ],
    ids=["one by one", "in a row", "the last", "old"],
)
def test_an_answer_in_one_piece_is_the_answer_in_two(
    address: tuple[str, int], asked: list[bytes], pieces: int
) -> None:
    def told(path: bytes) -> list[bytes]:
        heard = []
        with socket.create_connection(address) as connection:
            connection.settimeout(10)
            for each in asked:
                connection.sendall(each.replace(b"GET /", b"GET " + path))
                said = b""
                while said.count(b"hello") < each.count(b"GET"):
                    said += connection.recv(1024)
                heard.append(re.sub(rb"date: [^\r]*", b"date", said))
        return heard

    PIECES.clear()
    assert told(b"/at-once") == told(b"/")
    assert len(PIECES) == pieces


def test_production_says_who_may_name_the_client() -> None:
    with pytest.raises(Unusable, match="WASL_TRUSTED_PROXIES"):
        Settings(mode="production").proxies()
    assert Settings(mode="production", trusted_proxies="none").proxies() is None
    assert Settings(mode="production", trusted_proxies="10.0.0.1").proxies() == "10.0.0.1"
    assert Settings().proxies() is None
