"""`/openapi.json`: all that programs call, with every answer they may get."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gateway.api.idempotency import REPLAYED
from gateway.api.limits import REQUESTS_PER_MINUTE
from gateway.api.problems import ProblemDetails
from gateway.api.route import PREFIX, REQUEST_ID
from gateway.api.routes import TAGS
from gateway.settings import settings

DESCRIPTION: Final = f"""\
Wasl bills contributions, collects them, books them and reconciles them. Programs talk to it here.

**Keys.** Send `Authorization: Bearer wasl_…`. `wasl keys create --role …` makes a key; its role
decides what it may (`x-roles` at each operation), and a chamber's or a provider's key sees its own
only. What a key may not see does not exist for it: 404.

**Problems.** Whatever is refused below `/v1` is an RFC 9457 `application/problem+json`. Its `code`
is stable, `errors` names each wrong field or parameter, and no value that was sent is repeated. All
codes are at [/docs/problems](/docs/problems).

**Sending again.** Give an `Idempotency-Key` to every POST and PATCH that changes something. The
very same request under it again does nothing and gets the first answer, with `{REPLAYED}: true`;
another request under it is refused (409). A request that was refused (4xx) had no effect and leaves
its key unused; what became of one that failed (5xx) is not known: sending it again finds out.

**Pages.** Lists come oldest first, up to `limit` to a page; `next_cursor` leads to the next, with
the same filters. A walk may miss what was being written meanwhile; the feed of events does not. It
always gives a cursor: ask again with it later.

**Limits.** {REQUESTS_PER_MINUTE} requests a minute with one key; `RateLimit-Remaining` and
`RateLimit-Reset` (seconds) say how it stands. A body has at most 64 KiB.

**Money** is a decimal string in dirhams with two decimals (`"163.52"`). **Instants** are ISO 8601
with an offset, **days** are days in Casablanca (`2026-11-30`). Ids are texts. Fields may be added
to answers; unknown fields and parameters of yours are refused.
"""

_HEADERS: Final = {
    REQUEST_ID: ("Names this request: tell it to whoever runs this.", "string"),
    "RateLimit-Limit": ("Requests a minute with this key.", "integer"),
    "RateLimit-Remaining": ("How many of them are left.", "integer"),
    "RateLimit-Reset": ("Seconds until there are more.", "integer"),
}
_SAID: Final = {
    "type": "object",
    "properties": {"detail": {"type": "string"}},
    "required": ["detail"],
    "example": {"detail": "Stored."},
}


def describe(app: FastAPI) -> None:
    """Have the application describe itself, once, when it is first asked."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = description_of(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def description_of(app: FastAPI) -> dict[str, Any]:
    """Return the description of all operations that programs may call."""
    made = get_openapi(
        title="Wasl",
        version=version("wasl"),
        summary="Health-insurance contributions: bill, collect, book, reconcile.",
        description=DESCRIPTION,
        routes=app.routes,
        tags=[{"name": name, "description": about} for name, about in TAGS.items()],
        servers=[{"url": settings().base_url}],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = ProblemDetails.model_json_schema(
        ref_template="#/components/schemas/{model}"
    )
    schemas.update(schemas["Problem"].pop("$defs", {}))
    made["components"]["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": "A key made by `wasl keys create`.",
        }
    }
    for path, method, operation in _operations(made):
        if path.startswith(f"{PREFIX}/"):
            _complete(operation, method)
    for schema in schemas.values():
        for example in schema.get("examples", ()):
            _say_nulls(schemas, schema, example)
    made["paths"]["/webhooks/{sender}"] = _WEBHOOKS
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return made


def _say_nulls(schemas: dict[str, Any], schema: dict[str, Any], example: dict[str, Any]) -> None:
    """Put back what is null in an example: FastAPI leaves it out, and answers do not."""
    for name in schema.get("required", ()):
        example.setdefault(name, None)
    for name, inner in schema.get("properties", {}).items():
        to = inner.get("items", {}).get("$ref", "").rpartition("/")[2]
        for each in example.get(name) or () if to in schemas else ():
            _say_nulls(schemas, schemas[to], each)


def _operations(made: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in made["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def _complete(operation: dict[str, Any], method: str) -> None:
    """Say what every operation has in common: its key, its headers, and that nothing else comes."""
    operation["security"] = [{"key": []}]
    operation["description"] = (
        operation.get("description", "") + f"\n\nRoles: {', '.join(operation['x-roles'])}."
    ).strip()
    answers = operation["responses"]
    if "HTTPValidationError" in str(answers.get("422", "")):
        del answers["422"]
    again = any(p["name"] == "Idempotency-Key" for p in operation.get("parameters", ()))
    if again and "201" in answers:
        same = {"description": "It is there already, as it is", **_content(answers["201"])}
        answers["200"] = same
    for status, answer in answers.items():
        _head(answer, status, method, again=again)
    operation["responses"] = dict(sorted(answers.items()))


def _content(answer: dict[str, Any]) -> dict[str, Any]:
    return {"content": answer["content"]}


def _head(answer: dict[str, Any], status: str, method: str, *, again: bool) -> None:
    headers = dict(_HEADERS)
    if status in {"401", "500", "503"}:
        headers = {REQUEST_ID: headers[REQUEST_ID]}
    if status == "401":
        headers["WWW-Authenticate"] = ("How to send a key.", "string")
    if status in {"429", "503"}:
        headers["Retry-After"] = ("Seconds to wait.", "integer")
    if status == "405":
        headers = {REQUEST_ID: headers[REQUEST_ID], "Allow": ("Methods it has.", "string")}
    if status in {"200", "201"} and again:
        headers[REPLAYED] = ("`true`: this is the answer to the first such request.", "string")
    if status == "200" and method == "get":
        headers["Link"] = ('The next page, `rel="next"`, where there is one.', "string")
    if status == "201":
        headers["Location"] = ("Where it is.", "string")
    answer["headers"] = {
        name: {"description": about, "schema": {"type": kind}}
        for name, (about, kind) in headers.items()
        if status not in {"429"} or not name.startswith("RateLimit")
    }
    if status in {"200", "201"}:
        answer["description"] = answer["description"].replace("Successful Response", "Done")


def _plain(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _SAID}}}


# Its route is no FastAPI route: it takes bytes as they are, thousands a second.
_WEBHOOKS: Final[dict[str, Any]] = {
    "post": {
        "tags": ["webhooks"],
        "summary": "Take a provider's delivery in",
        "operationId": "receive_delivery",
        "description": "Signed by the provider in its own way; by Standard Webhooks it bears"
        " `webhook-id`, `webhook-timestamp` and `webhook-signature`. Stored, then acted on.",
        "parameters": [
            {
                "name": "sender",
                "in": "path",
                "required": True,
                "description": "The provider's name in the providers file.",
                "schema": {"type": "string", "pattern": "^[a-z][a-z0-9-]{0,39}$"},
            },
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"type": "object"},
                    "example": {
                        "type": "payment.completed",
                        "timestamp": "2026-11-18T11:06:40Z",
                        "data": {
                            "provider_payment_id": "CP-1",
                            "reference": "148275036141",
                            "amount": "163.52",
                            "currency": "MAD",
                            "channel": "cash_agent",
                            "paid_at": "2026-11-18T11:06:40Z",
                        },
                    },
                }
            },
        },
        "responses": {
            "202": _plain("Stored, durably, whatever it says; the same again books nothing twice"),
            "400": _plain("Not authentic, and nothing is kept; or authentic and no JSON, and kept"),
            "404": _plain("No such provider"),
            "405": _plain("Deliveries are posted"),
            "408": _plain("The body did not come in time"),
            "413": _plain("More than 256 KiB"),
            "503": _plain("Not known to be stored: send it again"),
        },
    }
}
