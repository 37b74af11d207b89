"""Whatever a stranger sends, the answer is his fault or a page, and never ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.testclient import TestClient

from gateway.pages import forms, photos, throttle
from gateway.pages.forms import PHOTO_BYTES_MAX, Body, Refusal, read_form
from gateway.pages.turnstile import Turnstile
from tests.gateway.pages import states
from tests.gateway.pages.conftest import a_client
from tests.gateway.pages.states import text_of

EXAMPLES = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ODD = ["\x00", "\ud800", "\ufffd", "%", "..", "\r\n", "١٤٨٢", "AMO1:", "RF74", "\u202e", "𝟏"]
# Servers refuse a request line that is not ASCII; anything may stand in it percent-encoded.
QUERIES = st.binary(max_size=80).map(lambda raw: bytes(byte & 0x7F for byte in raw)) | st.binary(
    max_size=40
).map(lambda raw: quote(raw).encode())
TEXTS = st.text() | st.sampled_from(ODD) | st.text(alphabet="0123456789 -RF٠١")


@pytest.fixture
def generous(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many misses as the examples make are let through."""
    bound = throttle.Bound(throttle.Counters(None), "test", each=10**6, overall=10**6)
    monkeypatch.setattr("gateway.pages.lookup.misses", lambda: bound)


def ask(app: FastAPI, method: str, path: bytes, query: bytes = b"", **headers: bytes) -> int:
    """Put a request to the application as a server hands it over; return the status."""
    said: list[int] = []
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path.decode("utf-8", "replace"),
        "raw_path": path,
        "root_path": "",
        "query_string": query,
        "headers": [(name.replace("_", "-").encode(), value) for name, value in headers.items()],
        "client": ("196.200.0.9", 1),
        "server": ("testserver", 80),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            said.append(message["status"])

    asyncio.run(app(scope, receive, send))
    assert len(said) == 1
    return said[0]


@EXAMPLES
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "PUT", "TRACE", "x"]),
    prefix=st.sampled_from([b"/", b"/verify/", b"/static/", b"/1482 7503 6141", b"//", b"/a/b"]),
    path=st.binary(max_size=80) | TEXTS.map(lambda text: text.encode("utf-8", "replace")),
    query=QUERIES,
    language=st.binary(max_size=60),
    encoding=st.binary(max_size=60),
)
@pytest.mark.usefixtures("generous")
def test_any_address_and_header_is_answered(
    app: FastAPI,
    method: str,
    prefix: bytes,
    path: bytes,
    query: bytes,
    language: bytes,
    encoding: bytes,
) -> None:
    status = ask(
        app, method, prefix + path, query, accept_language=language, accept_encoding=encoding
    )
    assert status < 500


@EXAMPLES
@given(name=st.sampled_from(["reference", "receipt", "lang", "number", "code", "try"]), text=TEXTS)
@pytest.mark.usefixtures("generous")
def test_any_question_is_answered(app: FastAPI, name: str, text: str) -> None:
    reference = states.nobodys()
    for path in ("/", "/verify", "/verify/offline", f"/{reference}", f"/{reference}/receipt"):
        query = f"{name}={quote(text, errors='replace')}".encode()
        assert ask(app, "GET", path.encode(), query) < 500


@EXAMPLES
@given(
    content=st.binary(max_size=300),
    kind=st.binary(max_size=60)
    | st.sampled_from(
        [b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b"text/plain"]
    ),
)
def test_any_body_is_some_form(content: bytes, kind: bytes) -> None:
    form = read_form(Body(content, kind.decode("latin-1")))
    assert form.photo is None or isinstance(form.photo, bytes)


PART = st.sampled_from(
    [
        b"--x",
        b"--x--",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b'Content-Disposition: form-data; name="photo"; filename="a"',
        b"Content-Disposition: form-data; name=reference",
        b"Content-Disposition: form-data",
        b"Content-Transfer-Encoding: base64",
        b"Content-Transfer-Encoding: quoted-printable",
        b"Content-Type: image/png",
        b": ",
        b"=",
        b"\x00",
        b"148275036141",
    ]
)


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(PART | st.binary(max_size=8), max_size=20))
def test_any_broken_multipart_is_some_form(parts: list[bytes]) -> None:
    read_form(Body(b"--x\r\n" + b"".join(parts), "multipart/form-data; boundary=x"))


def test_a_form_of_several_parts_is_read() -> None:
    content = (
        b'--x\r\nContent-Disposition: form-data; name="reference"\r\n\r\n1482\r\n'
        b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\nPNG\r\n'
        b"--x--\r\n"
    )
    form = read_form(Body(content, "multipart/form-data; boundary=x"))
    assert form == forms.Form({"reference": "1482"}, b"PNG")


def test_huge_fields_are_no_burden(client: TestClient) -> None:
    for path in ("/", "/verify"):
        for name in ("reference", "receipt"):
            answer = client.post(path, data={name: "9" * 60_000})
            assert answer.status_code == 422
            assert len(answer.content) < 20_000
    assert client.post("/", content=b"a=1&" * 5_000).status_code == 422


def test_what_is_too_large_is_said_to_be(client: TestClient) -> None:
    for language, words in (("fr", "dépasse 8 Mo"), ("ar", "تتجاوز الصورة 8")):
        photo = b"\xff\xd8\xff" + bytes(PHOTO_BYTES_MAX + forms.ENVELOPE_BYTES_MAX)
        for path in ("/", "/verify"):
            answer = client.post(f"{path}?lang={language}", files={"photo": ("a.jpg", photo)})
            assert answer.status_code == 413
            assert answer.headers["connection"] == "close"
            assert words in text_of(answer).replace("\u00a0", " ")


def test_a_body_of_no_stated_length_is_bounded_too(client: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield b"9" * 1_000

    assert client.post("/", content=endless()).status_code == 413


def test_photos_have_a_bound_of_their_own(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = throttle.Bound(throttle.Counters(None), "test", each=3, overall=100)
    monkeypatch.setattr(forms, "photos", lambda: bound)
    photo = {"photo": ("a.png", b"x", "image/png")}
    client = a_client(app)
    for path in ("/", "/verify", "/"):
        assert client.post(path, files=photo).status_code == 422
    for path in ("/", "/verify"):
        answer = client.post(path, files=photo)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        assert "avant d’envoyer une autre photo" in text_of(answer)
    # Typing is not sending photos, and others are others.
    assert client.post("/", data={"reference": "1"}).status_code == 422
    assert a_client(app, "196.200.0.2").post("/", files=photo).status_code == 422


def test_too_many_photos_at_once_are_told_to_wait(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = a_client(app)
    photo = {"photo": ("a.png", states.photo_of("x"), "image/png")}
    full = Turnstile(at_once=1, in_line=0)
    monkeypatch.setattr(photos, "PHOTOS", full)
    with full.turn():
        assert client.post("/", files=photo).status_code == 429
    monkeypatch.setattr(forms, "UPLOADS_MAX", 0)
    answer = client.post("/", files=photo)
    assert answer.status_code == 429
    assert "quelques secondes" in text_of(answer)
    assert "Rien n’a été payé" not in text_of(answer)
    assert answer.headers["connection"] == "close"


def test_a_form_of_very_many_parts_costs_nothing() -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    heads = b"--x\r\n" + b"a: b\r\n" * 10**6 + b"\r\n1\r\n"
    for content in (part * 127_100, heads, b"--x\r\n" * 10**6, b"\r\n\r\n" * 10**6):
        began = time.process_time()
        read = read_form(Body(content + b"--x--\r\n", "multipart/form-data; boundary=x"))
        assert time.process_time() - began < 0.2
        assert len(read.fields) <= 1
    few = b"".join(part.replace(b'"a"', b'"a%d"' % n) for n in range(30)) + b"--x--\r\n"
    read = read_form(Body(few, "multipart/form-data; boundary=x"))
    assert len(read.fields) == forms.FIELDS_MAX


def test_a_file_field_that_was_left_empty_is_a_form_without_a_choice(client: TestClient) -> None:
    content = (
        b'--x\r\nContent-Disposition: form-data; name="photo"; filename=""\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\r\n--x--\r\n"
    )
    kind = "multipart/form-data; boundary=x"
    assert read_form(Body(content, kind)) == forms.Form({}, b"")
    for path in ("/", "/verify"):
        answer = client.post(path, content=content, headers={"Content-Type": kind})
        assert answer.status_code == 422
        assert "Choisissez" in text_of(answer)


def test_a_form_of_parts_without_a_photo_is_read_as_typed(client: TestClient) -> None:
    for path, name, text, leads in (
        ("/", "reference", "148275036141", "/148275036141"),
        ("/verify", "receipt", "R26-123456789", "/verify/R26-123456789"),
    ):
        answer = client.post(path, files={name: (None, text)})
        assert answer.headers["location"] == leads


class Slow:
    """A sender: a piece of its body each time it is asked, after a pause, for ever."""

    def __init__(self, piece: bytes, pause: float) -> None:
        self.piece, self.pause, self.sent = piece, pause, 0

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(self.pause)
        self.sent += len(self.piece)
        return {"type": "http.request", "body": self.piece, "more_body": True}

    def posts(self, content_type: bytes = b"multipart/form-data; boundary=x") -> Body:
        headers = [(b"content-type", content_type)]
        scope = {"type": "http", "method": "POST", "headers": headers, "client": ("1.2.3.4", 1)}
        return asyncio.run(forms._posted(Request(scope, self.receive)))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of time a hundred times tighter, and no bound on the number of photos."""
    for name in ("TEXT_SECONDS_MAX", "PHOTO_SECONDS_MAX", "GRACE_SECONDS", "REFUSED_SECONDS_MAX"):
        monkeypatch.setattr(forms, name, getattr(forms, name) / 100)
    monkeypatch.setattr(forms, "BYTES_A_SECOND_MIN", forms.BYTES_A_SECOND_MIN * 100)
    bound = throttle.Bound(throttle.Counters(None), "test", each=10**6, overall=10**6)
    monkeypatch.setattr(forms, "photos", lambda: bound)


@pytest.mark.usefixtures("hasty", "app")
def test_a_body_that_trickles_in_is_not_waited_for() -> None:
    for sender, seconds in (
        (Slow(b"x", 0.001), 0.3),  # no rate at all
        (Slow(b"x" * 10_000, 0.001), 1.5),  # a good one, and no end
    ):
        began = time.monotonic()
        assert sender.posts().refusal in {Refusal.CUT, Refusal.TOO_LARGE}
        assert time.monotonic() - began < seconds
    began = time.monotonic()
    assert Slow(b"x", 0.001).posts(b"text/plain").refusal is Refusal.CUT
    assert time.monotonic() - began < 0.5
    assert not forms._uploads


@pytest.mark.usefixtures("hasty", "app")
def test_what_is_refused_is_taken_off_the_wire_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forms, "REFUSED_SECONDS_MAX", 20.0)
    monkeypatch.setattr(forms, "GRACE_SECONDS", 20.0)
    monkeypatch.setattr(forms, "UPLOADS_OF_ONE_MAX", 0)
    monkeypatch.setattr(forms, "_has_room", lambda _client, times=1: times == 2)
    sender = Slow(b"x" * 100_000, 0)
    assert sender.posts().refusal is Refusal.BUSY
    assert 0 < sender.sent <= forms.REFUSED_BYTES_MAX + 100_000
    monkeypatch.setattr(forms, "REFUSED_SECONDS_MAX", 0.05)
    began = time.monotonic()
    assert Slow(b"x", 0.001).posts().refusal is Refusal.BUSY
    assert time.monotonic() - began < 0.5
    # And what is refused to a flood is not taken at all.
    monkeypatch.setattr(forms, "_has_room", lambda *_: False)
    sender = Slow(b"x", 0)
    assert sender.posts().refusal is Refusal.BUSY
    assert sender.sent == 0


def test_what_was_typed_is_shown_as_text(client: TestClient) -> None:
    answer = client.post("/", data={"reference": '"><script>alert(1)</script>'})
    assert "<script>alert" not in answer.text
    answer = client.post("/verify", data={"receipt": "</textarea><script>alert(1)</script>"})
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize("host", ["evil.example", "x\x00"])
def test_no_link_depends_on_the_host_that_was_asked(client: TestClient, host: str) -> None:
    answer = client.get("/148275036141-", headers={"Host": "evil.example"})
    assert answer.headers["location"] == "/148275036141"
    assert "evil.example" not in client.get("/", headers={"Host": "evil.example"}).text
