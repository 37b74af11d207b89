"""Whatever a stranger sends, the answer is his fault or a page, and never ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from gateway.pages import forms, payer, throttle
from gateway.pages.forms import PHOTO_BYTES_MAX, Body, read_form
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
    monkeypatch.setattr(payer, "PHOTOS", full)
    with full.turn():
        assert client.post("/", files=photo).status_code == 429
    monkeypatch.setattr(forms, "UPLOADS_MAX", 0)
    answer = client.post("/", files=photo)
    assert answer.status_code == 429
    assert "quelques secondes" in text_of(answer)


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
