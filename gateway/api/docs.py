"""`/docs`: the description to read and try, from this server alone; `/docs/problems`: all codes."""

from __future__ import annotations

from functools import cache
from html import escape
from importlib import resources
from typing import Final

from fastapi import APIRouter, Response

from gateway.api.problem_kinds import FIELD_CODES, KINDS
from gateway.api.problems import PROBLEMS_PATH

router: Final = APIRouter(include_in_schema=False)

_READ: Final = ["GET", "HEAD"]
_KEPT: Final = "public, max-age=86400"
_ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
}
_START: Final = """\
window.ui = SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#ui", deepLinking: true, validatorUrl: null,
  docExpansion: "none", defaultModelsExpandDepth: 0,
});
"""
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Wasl: the API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<main id="ui"><p>The description itself is <a href="/openapi.json">/openapi.json</a>; all codes of
problems are at <a href="/docs/problems">/docs/problems</a>.</p></main>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none';"
    " form-action 'none'"
)


@router.api_route("/docs", methods=_READ)
def read_docs() -> Response:
    """The description, to read and to try."""
    return _answer(_PAGE.encode(), "text/html; charset=utf-8")


@router.api_route("/docs/start.js", methods=_READ)
def start() -> Response:
    """What puts the description on its page."""
    return _answer(_START.encode(), "text/javascript; charset=utf-8")


@router.api_route("/docs/swagger-ui-bundle.js", methods=_READ)
def program() -> Response:
    """Swagger UI, as its package brings it."""
    return _asset("swagger-ui-bundle.js")


@router.api_route("/docs/swagger-ui.css", methods=_READ)
def sheet() -> Response:
    """Its style sheet."""
    return _asset("swagger-ui.css")


@router.api_route(PROBLEMS_PATH, methods=_READ)
def read_problems() -> Response:
    """All codes, each at the address that a problem's `type` is."""
    return _answer(_problems().encode(), "text/html; charset=utf-8")


def _asset(name: str) -> Response:
    found = resources.files("fastapi_offline").joinpath("static", name)
    return _answer(found.read_bytes(), _ASSETS[name])


def _answer(body: bytes, media_type: str) -> Response:
    headers = {
        "Cache-Control": _KEPT,
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return Response(body, 200, headers, media_type)


@cache
def _problems() -> str:
    rows = "\n".join(
        f'<tr id="{code}"><td><code>{code}</code><td>{kind.status}<td>{escape(kind.title)}'
        f"<td>{escape(kind.todo)}"
        for code, kind in KINDS.items()
    )
    fields = "\n".join(
        f"<tr><td><code>{code}</code><td>{escape(about)}" for code, about in FIELD_CODES.items()
    )
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Wasl: problems of the API</title>
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem;
padding: 0 1rem }} td, th {{ text-align: start; vertical-align: top; padding: .3rem .8rem .3rem 0 }}
tr:target {{ background: #ffd }}</style>
</head>
<body>
<h1>Problems of the API</h1>
<p>Whatever is refused below <code>/v1</code> bears one of these codes. They never change.</p>
<table><thead><tr><th>code<th>status<th>what<th>what to do</thead>
<tbody>
{rows}
</tbody></table>
<h2>Codes of fields</h2>
<table><thead><tr><th>code<th>what</thead>
<tbody>
{fields}
</tbody></table>
</body>
</html>
"""
