"""Sending to addresses that others chose: only where a word may go, within bounds, never further.

A name is looked up once for a connection. What it stands for is judged, and the connection is made
to just that; a name that says something else a moment later changes nothing. No answer sends us
elsewhere, and of an answer nothing is kept but its status and when to come again.
"""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from gateway.errors import Unusable

ADDRESSES_MAX: Final = 3
"""Of a name, tried one after the other."""
BODY_BYTES_MAX: Final = 16_384
"""Of an answer, passed over so that its connection can be used again; one with more is closed."""
BODY_SECONDS_MAX: Final = 1.0
URL_CHARS_MAX: Final = 2_000

_CLOSED: Final = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""What using a connection that the other side has closed comes to."""
_NAT64: Final = ip_network("64:ff9b::/96")
_UNICAST: Final = ip_network("2000::/3")
"""What of IPv6 is given out: the rest is of one network or machine, or nobody's."""


class Reach(Enum):
    """Where a word may go."""

    INTERNET = "internet"
    """To addresses of the open internet, over TLS."""
    THIS_MACHINE = "this machine"
    """There, and to this machine, over TLS or not: a sandbox."""
    ANYWHERE = "anywhere"
    """To any address, over TLS or not: a sandbox whose parts are on several machines."""


class NotAllowed(Exception):
    """We do not send there. The sentence names no address."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What of an answer counts."""

    status: int
    retry_after: str | None
    """As it was written."""


def check_url(url: str, reach: Reach) -> None:
    """Refuse an address to which nothing would ever be sent. Looks nothing up.

    Raises:
        Unusable: The sentence says why, without the address.
    """
    parts = _split(url)
    if parts is None or "#" in url:
        raise Unusable(
            f"Give an address as https://host/path, of at most {URL_CHARS_MAX} plain characters,"
            " without a user name and without #."
        )
    try:
        _refuse_scheme(parts.scheme == "https", reach)
        try:
            literal = ip_address((parts.hostname or "").partition("%")[0])
        except ValueError:
            return
        _refuse_addresses([str(literal)], secure=parts.scheme == "https", reach=reach)
    except NotAllowed as error:
        raise Unusable(f"Nothing is sent there: {error}.") from None


def _split(url: str) -> SplitResult | None:
    if len(url) > URL_CHARS_MAX or not all("!" <= character <= "~" for character in url):
        return None
    try:
        parts = urlsplit(url)
        usable = parts.hostname and parts.port != 0
    except ValueError:
        return None
    if not usable or parts.scheme not in {"http", "https"} or "@" in parts.netloc:
        return None
    return parts


class Wire:
    """Sends to one address, over a connection that is kept while it is of use. For one thread."""

    def __init__(
        self, url: str, reach: Reach, *, seconds: float, silence_seconds: float | None = None
    ) -> None:
        """Take note of the address; nothing is looked up before something is sent.

        Args:
            url: Where to.
            reach: What of the world it may be in.
            seconds: For one sending, from the look-up to the head of the answer: an answer that
                comes byte by byte is never silent for long.
            silence_seconds: For how long nothing may come or go meanwhile.
        """
        self._url = url
        self._reach = reach
        self._seconds = seconds
        self._silence = silence_seconds or seconds
        self._sock: _Bounded | _BoundedTls | None = None

    def send(self, method: str, headers: Mapping[str, str], body: bytes) -> Answered:
        """Send a request and return its answer's head.

        Raises:
            NotAllowed: The address is none that we send to.
            Exception: Whatever a name, a network and a server can do.
        """
        until = time.monotonic() + self._seconds
        parts = _split(self._url)
        if parts is None:
            raise NotAllowed("it is no address to send to")
        request = _written(parts, method, headers, body)
        if self._sock is not None:
            if not _has_news(self._sock):
                try:
                    return self._exchange(self._sock, method, request, until)
                except _CLOSED:
                    # It was closed while nothing was sent: that says nothing of this request.
                    pass
            self.close()
        self._sock = self._connect(parts, until)
        return self._exchange(self._sock, method, request, until)

    def close(self) -> None:
        """Give the connection up."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def _exchange(
        self, sock: _Bounded | _BoundedTls, method: str, request: bytes, until: float
    ) -> Answered:
        sock.until = until
        answer = http.client.HTTPResponse(sock, method=method)
        is_kept = False
        try:
            sock.sendall(request)
            answer.begin()
            answered = Answered(answer.status, answer.getheader("Retry-After"))
            is_kept = _is_passed_over(sock, answer, until)
        finally:
            answer.close()
            if not is_kept:
                self.close()
        return answered

    def _connect(self, parts: SplitResult, until: float) -> _Bounded | _BoundedTls:
        secure = parts.scheme == "https"
        _refuse_scheme(secure, self._reach)
        host, port = parts.hostname or "", parts.port or _port(secure)
        found = look_up(host, port, min(self._silence, until - time.monotonic()))
        addresses = list(dict.fromkeys(found))
        _refuse_addresses([address for _, address in addresses], secure=secure, reach=self._reach)
        raw = _reach_one(addresses[:ADDRESSES_MAX], port, until, self._silence)
        try:
            return _over_tls(raw, host) if secure else raw
        except BaseException:
            raw.close()
            raise


def _port(secure: bool) -> int:
    return 443 if secure else 80


def _written(parts: SplitResult, method: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return a request as it goes over the wire, in one piece: two would wait for each other."""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    if parts.port not in {None, _port(parts.scheme == "https")}:
        host = f"{host}:{parts.port}"
    path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    lines = [f"{method} {path} HTTP/1.1"]
    named = {"Host": host, "Accept-Encoding": "identity", "Content-Length": len(body), **headers}
    lines += [f"{name}: {value}" for name, value in named.items()]
    head = "\r\n".join(lines)
    if not head.isascii() or head.count("\n") != len(named) or head.count("\r") != len(named):
        raise ValueError("a header is more than a line")
    return head.encode() + b"\r\n\r\n" + body


# -- a connection whose whole time is bounded -----------------------------------------------------


class _Bounded(socket.socket):
    """A socket that is read and written until an instant, and not longer."""

    until: float = 0.0
    silence: float = 0.0

    def recv_into(self, *args: Any) -> int:
        _set_time(self)
        return super().recv_into(*args)

    def sendall(self, *args: Any) -> None:
        _set_time(self)
        super().sendall(*args)


class _BoundedTls(ssl.SSLSocket):
    """The same over TLS."""

    until: float = 0.0
    silence: float = 0.0

    def recv_into(self, *args: Any, **named: Any) -> int:
        _set_time(self)
        return super().recv_into(*args, **named)

    def send(self, *args: Any, **named: Any) -> int:
        _set_time(self)
        return super().send(*args, **named)


def _set_time(sock: _Bounded | _BoundedTls) -> None:
    left = sock.until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(min(left, sock.silence))


def _reach_one(
    addresses: list[tuple[int, str]], port: int, until: float, silence: float
) -> _Bounded:
    """Return a connection to the first of these addresses that takes one."""
    failed: OSError = OSError("the name stands for no address")
    for family, address in addresses:
        sock = _Bounded(family, socket.SOCK_STREAM)
        sock.until, sock.silence = until, silence
        try:
            _set_time(sock)
            # Each word is one small write that is answered: waiting for more would only delay it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect((address, port))
        except OSError as error:
            sock.close()
            failed = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failed


def _over_tls(raw: _Bounded, host: str) -> _BoundedTls:
    context = ssl.create_default_context()
    context.sslsocket_class = _BoundedTls
    until, silence = raw.until, raw.silence
    sock = context.wrap_socket(raw, server_hostname=host, do_handshake_on_connect=False)
    assert isinstance(sock, _BoundedTls)
    sock.until, sock.silence = until, silence
    try:
        _set_time(sock)
        sock.do_handshake()
    except BaseException:
        sock.close()
        raise
    return sock


def _has_news(sock: Any) -> bool:
    """Say whether something came that nobody asked for: an end, or what is no answer of ours."""
    if isinstance(sock, ssl.SSLSocket) and sock.pending() > 0:
        return True
    asked = select.poll()
    asked.register(sock, select.POLLIN)
    return bool(asked.poll(0))


def _is_passed_over(
    sock: _Bounded | _BoundedTls, answer: http.client.HTTPResponse, until: float
) -> bool:
    """Read an answer's body away, and say whether its connection can be used again."""
    if answer.will_close:
        return False
    sock.until = min(until, time.monotonic() + BODY_SECONDS_MAX)
    try:
        answer.read(BODY_BYTES_MAX)
    except (OSError, http.client.HTTPException, ValueError):
        return False
    # Its last byte closes it.
    return answer.isclosed()


# -- where a word may go --------------------------------------------------------------------------


def look_up(host: str, port: int, seconds: float) -> list[tuple[int, str]]:
    """Return what a name stands for: families and addresses, in the system's order.

    Raises:
        TimeoutError: The system does not say within so many seconds; it goes on asking by itself.
        OSError: It says that there is none.
    """
    found: list[tuple[int, str]] = []
    failed: list[Exception] = []

    def ask() -> None:
        try:
            asked = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.extend((family, str(where[0])) for family, *_, where in asked)
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            failed.append(error)

    # Nothing else ends a question to a name server that is silent.
    asking = threading.Thread(target=ask, name="look_up", daemon=True)
    asking.start()
    asking.join(max(0.0, seconds))
    if asking.is_alive():
        raise TimeoutError
    if failed:
        raise failed[0]
    return found


def _refuse_scheme(secure: bool, reach: Reach) -> None:
    if not secure and reach is Reach.INTERNET:
        raise NotAllowed("the address is not https")


def _refuse_addresses(addresses: list[str], *, secure: bool, reach: Reach) -> None:
    """Refuse a name if any of its addresses is none to send to."""
    if reach is Reach.ANYWHERE:
        return
    here = reach is Reach.THIS_MACHINE and all(map(_is_this_machine, addresses))
    if here:
        return
    if not secure:
        raise NotAllowed("only this machine is sent to without https")
    if not all(map(is_public, addresses)):
        raise NotAllowed("the address is not of the open internet")


def _is_this_machine(address: str) -> bool:
    return ip_address(address.partition("%")[0]).is_loopback


def is_public(address: str) -> bool:
    """Say whether an IP address is of the open internet, what is wrapped in it included."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and not (ip in _UNICAST or ip in _NAT64):
        return False
    return all(each.is_global and not each.is_multicast for each in (ip, *_wrapped(ip)))


def _wrapped(ip: IPv4Address | IPv6Address) -> list[IPv4Address]:
    if isinstance(ip, IPv4Address):
        return []
    wrapped = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64:
        wrapped.append(IPv4Address(int(ip) & 0xFFFFFFFF))
    return [each for each in wrapped if each is not None]
