"""Ask a provider over HTTP: bounded in time and size, redirects never followed.

What a provider answers is read like anything that comes from outside. A connection is made for each
question: nothing is shared between threads, and none is left to go stale.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.errors import ProviderAway, ProviderRefused
from gateway.wirejson import UnreadableJson, read_json

SILENCE_SECONDS_MAX: Final = 5
CALL_SECONDS_MAX: Final = 10
"""For a whole question: an answer that comes byte by byte is never silent for long."""
ANSWER_BYTES_MAX: Final = 64 * 1024

# It says no to us, or for now, and not to the question: once that is mended, the same is answered.
_NOT_ABOUT_IT: Final = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)


class DoneBefore(ProviderRefused):
    """It says that the same was asked for before (409), and does not say what came of it."""


@dataclass(frozen=True, slots=True)
class _Said:
    status: int
    body: bytes


def post_json(
    url: str, said: Mapping[str, Any] | bytes, headers: Mapping[str, str]
) -> dict[str, Any]:
    """Post an object and return the object that is answered, its numbers as they were written.

    Args:
        url: A trusted address (`is_trusted_address`).
        said: What is posted, as JSON; or that JSON itself, with numbers that no float can hold.
        headers: Besides those of every question.

    Raises:
        ProviderAway: There is no answer, or none that can be used.
        ProviderRefused: It says no to what was asked; DoneBefore where it was asked before.
    """
    body = said if isinstance(said, bytes) else json.dumps(said, ensure_ascii=True).encode("ascii")
    return _asked("POST", url, body, {"Content-Type": "application/json", **headers})


def post_only(url: str, said: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    """Post an object to who answers that it was accepted, and mostly nothing else.

    As `post_json`, which says what is raised.
    """
    body = json.dumps(said, ensure_ascii=True).encode("ascii")
    _answered("POST", url, body, {"Content-Type": "application/json", **headers})


def get_json(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the object at an address; as `post_json`, which says what is raised."""
    return _asked("GET", url, None, headers)


def _asked(method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> dict[str, Any]:
    answer = _answered(method, url, body, headers)
    try:
        read = read_json(answer.body, keys_once=True)
    except UnreadableJson as error:
        raise ProviderAway(f"its answer cannot be read: {error}") from None
    if not isinstance(read, dict):
        raise ProviderAway("its answer is not an object")
    return read


def _answered(method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> _Said:
    try:
        answer = _exchange(method, url, body, {"Connection": "close", **headers})
    except Exception as error:  # noqa: BLE001 - all that a network and a server can do
        raise ProviderAway(f"there is no answer: {type(error).__name__}") from None
    if answer.status == HTTPStatus.CONFLICT:
        raise DoneBefore("it says that this was asked for before")
    if 400 <= answer.status < 500 and answer.status not in _NOT_ABOUT_IT:
        raise ProviderRefused(f"it says no: {answer.status}", status=answer.status)
    if not 200 <= answer.status < 300:
        raise ProviderAway(f"there is no answer that can be used: {answer.status}")
    return answer


def is_trusted_address(address: str) -> bool:
    """Say whether an address is https, or http on this machine itself, and can go into a header."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return False
    if port == 0 or not parts.hostname or "@" in parts.netloc:
        return False
    # Reading an address leaves out line breaks, and so would find nothing wrong with them.
    if not all("!" <= c <= "~" for c in address):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_this_machine(address))


def is_this_machine(address: str) -> bool:
    """Say whether an address is of the machine that asks: a stand-in's."""
    return urlsplit(address).hostname in {"127.0.0.1", "::1", "localhost"}


def origin_of(address: str) -> str:
    """Return an address's `https://host`."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def _exchange(method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> _Said:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    make = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = make(parts.hostname or "", parts.port, timeout=SILENCE_SECONDS_MAX)
    try:
        connection.connect()
        with _cut_off(connection.sock):
            path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
            connection.request(method, path, body, dict(headers))
            with connection.getresponse() as answer:
                read = answer.read(ANSWER_BYTES_MAX + 1)
                left = answer.length
        if len(read) > ANSWER_BYTES_MAX:
            raise ValueError("the answer is too long")
        if left:
            raise ValueError("the answer was cut off")
        return _Said(answer.status, read)
    finally:
        connection.close()


@contextmanager
def _cut_off(sock: socket.socket) -> Iterator[None]:
    """Have an exchange end after CALL_SECONDS_MAX, whatever it is at."""
    cut = threading.Event()

    def cut_off() -> None:
        cut.set()
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended by itself

    timer = threading.Timer(CALL_SECONDS_MAX, cut_off)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if cut.is_set():
        raise TimeoutError
