"""Where nothing is sent, whatever a name says, and how long anything lasts."""

from __future__ import annotations

import socket
import threading
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Unusable
from tests.webhooks.outbound.receiver import Answer, receiving
from webhooks.guarded import NotAllowed, Reach, Wire, check_url, is_public

SECONDS = 5.0


def names(monkeypatch: pytest.MonkeyPatch, *says: list[str]) -> list[str]:
    """Have a name stand for other addresses each time; return what was asked, as it is asked."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: str, port: int, **kind: Any) -> Any:
        asked.append(host)
        said = says[min(len(asked), len(says)) - 1]
        return [each for address in said for each in real(address, port, **kind)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


@settings(max_examples=200, deadline=None)
@given(st.ip_addresses(v=4))
def test_no_wrapping_makes_a_private_address_public(inner: IPv4Address) -> None:
    number = int(inner)
    mapped = IPv6Address((0xFFFF << 32) | number)
    nat64 = IPv6Address((0x64FF9B << 96) | number)
    six_to_four = IPv6Address((0x2002 << 112) | (number << 80) | 1)
    public = is_public(str(inner))
    assert public is (inner.is_global and not inner.is_multicast)
    assert not is_public(str(mapped))
    assert is_public(str(nat64)) is public
    assert not is_public(str(six_to_four)) or public


@pytest.mark.parametrize(
    "url",
    [
        "http://erp.example.ma/hook",
        "https://127.0.0.1/hook",
        "https://[::ffff:10.0.0.8]/hook",
        "https://[64:ff9b::a00:8]/hook",
        "https://169.254.169.254/latest",
        "https://user:secret@erp.example.ma/hook",
        "https://erp.example.ma/hook#part",
        "https://erp.example.ma/a b",
        "https://erp.example.ma:0/",
        "https:///hook",
        "ftp://erp.example.ma/",
        "https://[::1/",
        "https://erp.example.ma/" + "x" * 2_000,
    ],
)
def test_an_address_to_which_nothing_would_go_is_refused_without_being_named(url: str) -> None:
    with pytest.raises(Unusable) as refused:
        check_url(url, Reach.INTERNET)
    assert url not in str(refused.value)


def test_a_sandbox_reaches_itself_and_the_internet_and_nothing_between() -> None:
    for url in ("http://127.0.0.1:9/", "https://127.0.0.1:9/", "https://93.184.216.34/"):
        check_url(url, Reach.THIS_MACHINE)
    for url in ("http://10.0.0.8/", "https://10.0.0.8/", "http://93.184.216.34/"):
        with pytest.raises(Unusable):
            check_url(url, Reach.THIS_MACHINE)


def test_a_name_is_judged_by_all_it_stands_for_and_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with receiving() as receiver:
        for said in (["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::1"], ["10.0.0.8"]):
            names(monkeypatch, said)
            with pytest.raises(NotAllowed):
                Wire(
                    f"https://erp.example.ma:{receiver.port}/", Reach.INTERNET, seconds=SECONDS
                ).send("POST", {}, b"")
        # Written as a number, which only the system's look-up takes for an address.
        monkeypatch.undo()
        with pytest.raises(NotAllowed):
            Wire(f"https://2130706433:{receiver.port}/", Reach.INTERNET, seconds=SECONDS).send(
                "POST", {}, b""
            )
        assert receiver.connections == 0


def test_what_a_name_says_a_moment_later_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to the address that was judged, and a kept one asks no more."""
    with receiving() as receiver:
        asked = names(monkeypatch, ["127.0.0.1"], ["10.0.0.8"])
        wire = Wire(f"http://here.example:{receiver.port}/", Reach.THIS_MACHINE, seconds=SECONDS)
        headers = {"webhook-id": "1"}
        assert [wire.send("POST", headers, b"").status for _ in range(2)] == [204, 204]
        assert asked == ["here.example"]
        receiver.answer = lambda _: Answer(headers={"Connection": "close"})
        assert wire.send("POST", headers, b"").status == 204
        with pytest.raises(NotAllowed):
            wire.send("POST", headers, b"")
        wire.close()
    assert len(receiver.got) == 3


def test_a_name_server_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(60))
    try:
        with pytest.raises(TimeoutError):
            Wire("https://erp.example.ma/", Reach.INTERNET, seconds=0.1).send("POST", {}, b"")
    finally:
        release.set()


def test_an_answer_that_was_not_asked_for_is_taken_for_nobodys() -> None:
    """A receiver that answers twice does not answer what comes next."""
    second = b"HTTP/1.1 204 .\r\nContent-Length: 0\r\n\r\n"
    with receiving() as receiver:
        wire = Wire(receiver.url, Reach.THIS_MACHINE, seconds=SECONDS)
        headers = {"webhook-id": "1"}
        receiver.answer = lambda _: Answer(204, {"Content-Length": "0"}, second)
        assert wire.send("POST", headers, b"").status == 204
        receiver.answer = lambda _: Answer(500)
        assert wire.send("POST", headers, b"").status == 500
        wire.close()


def test_a_header_cannot_hold_another() -> None:
    with receiving() as receiver:
        wire = Wire(receiver.url, Reach.THIS_MACHINE, seconds=SECONDS)
        for value in ("1\r\nX-Other: 2", "1\nX-Other: 2", "é"):
            with pytest.raises(ValueError, match="more than a line"):
                wire.send("POST", {"webhook-id": value}, b"")
        assert receiver.connections == 0
