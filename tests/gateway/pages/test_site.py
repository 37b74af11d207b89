from __future__ import annotations

import base64
import gzip
import hashlib
import re
from importlib import resources

import pytest
from fastapi import FastAPI
from httpx2 import Response
from starlette.requests import Request
from starlette.testclient import TestClient

from gateway.pages import site, static
from gateway.settings import settings
from tests.gateway.pages import states
from tests.gateway.pages.conftest import a_client
from tests.gateway.pages.states import text_of

PAGE_BYTES_MAX = 14 * 1024
SCAN_BYTES_MAX = 1_536


def pages_of(client: TestClient, language: str) -> dict[str, Response]:
    """Return a page of every kind."""
    paid, several, back = states.paid(), states.paid(6000, 10352), states.taken_back()
    paths = {
        "start": "/",
        "slip": "/?reference=1482",
        "open": f"/{states.an_invoice()}",
        "late": f"/{states.an_invoice('2026-10')}",
        "part paid": f"/{states.paid(6000)}",
        "paid": f"/{paid}",
        "expired": f"/{states.an_invoice('2024-10')}",
        "cancelled": f"/{states.cancelled()}",
        "cleared": f"/{states.cleared()}",
        "several": f"/{states.several(states.an_invoice(), states.an_invoice('2026-10'))}",
        "plan": f"/{states.a_plan()[0]}",
        "announced": f"/{states.announced()}",
        "unknown": f"/{states.nobodys()}",
        "missing": "/nothing",
        "receipt": f"/{paid}/receipt",
        "receipts": f"/{several}/receipt",
        "taken back": f"/{back}/receipt",
        "verify": "/verify",
        "verified": f"/verify/{states.receipts_of(paid)[0].number}",
        "offline": "/verify/offline",
    }
    return {
        name: client.get(f"{path}{'&' if '?' in path else '?'}lang={language}")
        for name, path in paths.items()
    }


@pytest.mark.parametrize(("language", "direction"), [("fr", "ltr"), ("ar", "rtl")])
def test_every_page_is_small_and_guarded(client: TestClient, language: str, direction: str) -> None:
    for name, answer in pages_of(client, language).items():
        html, headers = answer.text, answer.headers
        assert html.startswith(f'<!doctype html>\n<html lang="{language}" dir="{direction}">'), name
        assert headers["content-encoding"] == "gzip", name
        assert len(gzip.compress(answer.content, 6)) <= PAGE_BYTES_MAX, name
        assert len(re.findall(r'<script src="/static/|<img |<link rel="style', html)) <= 1, name
        assert headers["content-language"] == language
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "geolocation=()" in headers["permissions-policy"]
        assert headers["vary"] == "Accept-Language, Accept-Encoding"
        # The one style sheet is allowed by its hash, and nothing else is.
        [style] = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["style-src"] == f"'sha256-{digest}'"
        assert policy["form-action"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert ("script-src" in policy) == ("<script" in html), name
        assert not re.search(r"<script(?! src=\"/static/)|\son\w+=|\sstyle=|javascript:", html), (
            name
        )
        assert not re.search(r'(src|action)="(?!/)', html), name
        # The banner of trials, in both languages, on every page.
        assert "SPÉCIMEN" in html
        assert "نموذج" in html
        # One main heading, a skip link first, the other language at hand.
        assert html.count("<h1") == 1, name
        assert html.partition("<a ")[2].startswith('class="skip" href="#m"')
        assert len(re.findall(r'hreflang="(?:fr|ar)"', html)) == 2
        if name not in {"start", "verify", "offline"}:
            assert headers["cache-control"] == site.NEVER_KEPT, name
            assert "noindex" in headers["x-robots-tag"]
        # References are read from left to right in any text.
        for found in re.finditer(r"\d{4}\u00a0\d{4}\u00a0\d{4}", html):
            before = html[: found.start()]
            assert before.endswith(('dir="ltr">', 'dir="ltr">RF74\u00a0', "\u2068", 'value="')) or (
                "<title>" in before[-200:]
            ), name


def test_the_language_is_the_browsers_unless_the_address_says(client: TestClient) -> None:
    for header, query, language in (
        ("ar-MA", "", "ar"),
        ("ar-MA", "?lang=fr", "fr"),
        ("fr", "?lang=ar", "ar"),
        ("en", "", "fr"),
        ("ar", "?lang=zz", "ar"),
    ):
        answer = client.get(f"/{query}", headers={"Accept-Language": header})
        assert answer.headers["content-language"] == language
        assert "set-cookie" not in answer.headers
        links = re.findall(r'<a [^>]*href="(/[^"]*)"', answer.text)
        own = [link for link in links if "lang=" in link]
        # Chosen by hand it stays, and where the browser chose no address is cluttered.
        assert len(own) == (len(links) if query in {"?lang=fr", "?lang=ar"} else 2)


def test_production_bears_no_banner(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    production = settings().model_copy(update={"mode": "production"})
    monkeypatch.setattr(site, "settings", lambda: production)
    answer = client.get("/")
    assert answer.status_code == 200
    assert "SPÉCIMEN" not in answer.text
    assert "نموذج" not in answer.text


def test_a_page_is_whole_for_who_takes_no_compression(client: TestClient) -> None:
    for accepted, packed in (("", False), ("identity", False), ("gzip;q=0", False), ("br", False)):
        answer = client.get("/", headers={"Accept-Encoding": accepted})
        assert ("content-encoding" in answer.headers) is packed
        assert answer.text.endswith("</html>")
    answer = client.get("/", headers={"Accept-Encoding": "br;q=1.0, GZIP;q=0.8, *;q=0.1"})
    assert answer.headers["content-encoding"] == "gzip"


def test_heads_are_answered_as_pages_are(client: TestClient) -> None:
    for path in ("/", "/verify", f"/{states.an_invoice()}", "/.well-known/wasl-keys.json"):
        assert client.head(path).status_code == 200
        assert client.head(path).content == b""


def test_what_the_router_refuses_is_a_page_too(client: TestClient) -> None:
    answer = client.put("/")
    assert answer.status_code == 405
    assert {"GET", "HEAD"} <= set(re.split(", ?", answer.headers["allow"])) or answer.headers[
        "allow"
    ]
    assert "se consulte seulement" in text_of(answer)
    answer = client.get("/a/b/c/d?lang=ar")
    assert answer.status_code == 404
    assert "لا توجد صفحة" in text_of(answer)


@pytest.mark.parametrize("path", ["//evil.example/x", "///evil.example", "/%5Cevil.example/x"])
def test_a_path_like_the_name_of_a_site_is_in_no_link(app: FastAPI, path: str) -> None:
    answer = a_client(app).get(f"https://amo.example.ma{path}")
    assert answer.status_code == 404
    assert set(re.findall(r'hreflang="\w+" href="([^"]+)"', answer.text)) == {
        "/?lang=fr",
        "/?lang=ar",
    }


def test_programs_are_answered_as_programs(client: TestClient) -> None:
    for path in ("/webhooks/nobody", "/v1/nothing", "/healthz/x"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json() == {"detail": "Not Found"}


def test_a_fault_of_ours_is_a_page_that_says_nothing_was_paid(app: FastAPI) -> None:
    scope = {"type": "http", "method": "GET", "path": "/1", "query_string": b"", "headers": []}
    answer = site.apology(Request(scope))
    assert answer.status_code == 500
    assert "Cette page n’a rien payé" in bytes(answer.body).decode()


def test_scripts_are_kept_by_their_content(client: TestClient) -> None:
    for name in static.SCRIPTS:
        answer = client.get(static.address(name))
        assert answer.headers["content-type"].startswith("text/javascript")
        assert answer.headers["cache-control"] == site.FOR_EVER
        assert client.get(f"/static/{name}").headers["cache-control"] == "no-cache"
        assert client.get(f"/static/{name}?v=0").headers["cache-control"] == "no-cache"
    assert client.get("/static/style.css").status_code == 404
    assert len(static.content("scan.js")) <= SCAN_BYTES_MAX


def test_the_sheet_knows_no_left_and_no_right() -> None:
    css = resources.files("gateway.pages").joinpath("style.css").read_text("utf-8")
    rules = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    physical = re.findall(
        r"(?:margin|padding|border|inset)-(?:left|right)|(?<![\w-])(?:left|right|float|clear)\s*:"
        r"|text-align:\s*(?:left|right)|border-(?:top|bottom)-(?:left|right)-radius",
        rules,
    )
    assert physical == []
    # Four different sides in one word would not be mirrored.
    for name, value in re.findall(r"((?:margin|padding|border-width|inset)):([^;}]+)", rules):
        sides = value.split()
        assert len(sides) < 4 or sides[1] == sides[3], f"{name}:{value}"
    for feature in ("forced-colors: active", "prefers-reduced-motion", "@media print"):
        assert feature in rules


def test_nobody_reads_a_receipt_or_dues_in_another_frame(app: FastAPI) -> None:
    reference = states.an_invoice()
    answer = a_client(app).get(f"/{reference}.svg")
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
