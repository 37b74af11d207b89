"""How the API refuses: RFC 9457 problems (their codes: gateway.api.problem_kinds).

A problem says what is wrong, which field it is about and
what to do, and never repeats a value that was sent: values may be a person's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from gateway.api.problem_kinds import FIELD_CODES, KINDS
from gateway.settings import settings

MEDIA_TYPE: Final = "application/problem+json"
PROBLEMS_PATH: Final = "/docs/problems"
LEFTOVER: Final = "nothing of the API"
"""Name of the routes behind all others of the API."""
AWAY_SECONDS: Final = 60
ERRORS_MAX: Final = 20
"""Wrong fields that one problem names."""
_NAME_CHARS_MAX: Final = 80


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field: its path in the body, or the parameter's name."""

    field: str
    code: str
    """One of FIELD_CODES."""
    detail: str


class Problem(Exception):
    """A request that is refused. Raised anywhere below a route; the route answers it."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.kind = KINDS[code]
        self.detail = detail or self.kind.todo
        self.errors = tuple(errors[:ERRORS_MAX])
        self.headers = dict(headers or {})


def answer(problem: Problem, request_id: str = "") -> Response:
    """Return a problem as it goes over the wire."""
    said: dict[str, Any] = {
        "type": f"{settings().base_url}{PROBLEMS_PATH}#{problem.code}",
        "title": problem.kind.title,
        "status": problem.kind.status,
        "code": problem.code,
        "detail": problem.detail,
    }
    if request_id:
        said["instance"] = f"urn:wasl:request:{request_id}"
    if problem.errors:
        said["errors"] = [
            {"field": e.field, "code": e.code, "detail": e.detail} for e in problem.errors
        ]
    headers = {"Cache-Control": "no-store", **problem.headers}
    if problem.kind.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="wasl"'
    return Response(json.dumps(said), problem.kind.status, headers, MEDIA_TYPE)


def unavailable() -> Problem:
    """Return the problem of a database that does not answer."""
    return Problem("unavailable", headers={"Retry-After": str(AWAY_SECONDS)})


def of_router(request: Request, error: HTTPException) -> Problem:
    """Return what the router's own refusal is as a problem."""
    match error.status_code:
        case 404:
            return Problem("no_such_address")
        case 405:
            return Problem("method_not_allowed", headers={"Allow": ", ".join(methods_of(request))})
        case 413:
            return Problem("body_too_large", headers={"Connection": "close"})
        case _:
            return Problem("unreadable_body")


def of_validation(error: RequestValidationError) -> Problem:
    """Return what is wrong with fields as a problem that names each of them."""
    errors = list(error.errors())
    places = {each["loc"][0] for each in errors}
    first = next((place for place in _BY_PLACE if place in places), None)
    shown = [each for each in errors if first is None or each["loc"][0] == first]
    named = [_field_error(each) for each in shown[:ERRORS_MAX]]
    return Problem(_BY_PLACE.get(first, "invalid_parameter"), _counted(named), errors=named)


# The first place that something is wrong in: what has no address is not looked into further.
_BY_PLACE: Final[Mapping[str | None, str]] = {"path": "no_such_address", "body": "invalid_body"}


def _counted(named: Sequence[FieldError]) -> str:
    listed = ", ".join(dict.fromkeys(each.field for each in named))
    return f"Mend {listed}: `errors` says what is wrong with each."


def methods_of(request: Request) -> list[str]:
    """Return the methods of an address of the API; each of them is a route of its own."""
    described = request.app.openapi()["paths"].get(request.scope["path"])
    if described is not None:
        # An address without parameters, which one with a parameter would match too.
        found = {method.upper() for method in described}
    else:
        ours = list(takewhile(_is_before_leftover, request.app.router.routes))
        found = {m for m in ("GET", "POST", "PATCH", "DELETE") if _takes(ours, request.scope, m)}
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


def _is_before_leftover(route: BaseRoute) -> bool:
    return getattr(route, "name", "") != LEFTOVER


def _takes(routes: Sequence[BaseRoute], scope: Scope, method: str) -> bool:
    asked = {**scope, "method": method}
    return any(route.matches(asked)[0] is Match.FULL for route in routes)


OUT_OF_RANGE: Final = "out_of_range"
"""The type of an error of ours; its context's `sentence` says what would be right."""

_BY_TYPE: Final = {
    "missing": "missing",
    "extra_forbidden": "unknown",
    "string_too_short": "too_short",
    "too_short": "too_short",
    "string_too_long": "too_long",
    "too_long": "too_long",
    OUT_OF_RANGE: "out_of_range",
    "greater_than_equal": "out_of_range",
    "less_than_equal": "out_of_range",
    "enum": "not_one_of",
    "literal_error": "not_one_of",
}


def _field_error(error: Mapping[str, Any]) -> FieldError:
    kind = str(error["type"])
    known = _BY_TYPE.get(kind)
    code = known or ("wrong_type" if kind.endswith("_type") else "malformed")
    return FieldError(path_of(error["loc"][1:]) or str(error["loc"][0]), code, _sentence(error))


def _sentence(error: Mapping[str, Any]) -> str:
    """Return what is wrong. Says what would be right, never what was sent."""
    bounds = error.get("ctx") or {}
    match error["type"]:
        case "string_pattern_mismatch":
            return f"It must match {bounds['pattern']}"
        case kind if kind in _BOUND_SENTENCES:
            return _BOUND_SENTENCES[kind].format(**bounds)
        case "enum" | "literal_error":
            return f"It is one of {bounds['expected']}."
        case "value_error":
            return str(bounds["error"])
        case kind if kind == OUT_OF_RANGE:
            return str(bounds["sentence"])
        case "missing":
            return FIELD_CODES["missing"]
        case "extra_forbidden":
            return FIELD_CODES["unknown"]
        case kind if kind.endswith("_type"):
            return _TYPE_SENTENCES.get(kind, FIELD_CODES["wrong_type"])
        case _:
            return FIELD_CODES["malformed"]


_BOUND_SENTENCES: Final = {
    "string_too_long": "It has at most {max_length} characters.",
    "string_too_short": "It has at least {min_length} characters.",
    "too_long": "It has at most {max_length} entries.",
    "too_short": "It has too few entries: at least {min_length}.",
    "greater_than_equal": "It is at least {ge}.",
    "less_than_equal": "It is at most {le}.",
}
_TYPE_SENTENCES: Final = {
    "string_type": "It must be a text, in quotes.",
    "model_attributes_type": "It must be an object.",
    "model_type": "It must be an object.",
    "dict_type": "It must be an object.",
}


def path_of(parts: Iterable[str | int]) -> str:
    """Return a place in a JSON body as `a.b[0]`; names that strangers chose are cut."""
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += ("." if path else "") + part[:_NAME_CHARS_MAX]
    return path


# -- as the OpenAPI description says it -----------------------------------------------------------


class WrongField(BaseModel):
    """What is wrong with one field or parameter."""

    field: str = Field(description="Its path in the body (`a.b[0]`), or the parameter's name.")
    code: str = Field(json_schema_extra={"enum": list(FIELD_CODES)})
    detail: str


class ProblemDetails(BaseModel):
    """RFC 9457: why a request is refused. `code` is stable; texts may be improved."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(json_schema_extra={"format": "uri"})
    title: str
    status: int
    code: str = Field(json_schema_extra={"enum": list(KINDS)})
    detail: str = Field(description="What is wrong and what to do, in a sentence.")
    instance: str | None = Field(None, description="Names this request, as `X-Request-Id` does.")
    errors: list[WrongField] = Field(
        default_factory=list, description=f"At most {ERRORS_MAX} of them."
    )


def documented(codes: Iterable[str]) -> dict[int | str, dict[str, Any]]:
    """Return the answers that these codes are, as FastAPI's `responses` takes them."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(KINDS[code].status, []).append(code)
    return {
        status: {
            "description": "; ".join(f"`{code}`: {KINDS[code].title}" for code in listed),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {code: {"value": _example(code)} for code in listed},
                }
            },
        }
        for status, listed in sorted(by_status.items())
    }


def _example(code: str) -> dict[str, Any]:
    kind = KINDS[code]
    said: dict[str, Any] = {
        "type": f"https://pay.example.ma{PROBLEMS_PATH}#{code}",
        "title": kind.title,
        "status": kind.status,
        "code": code,
        "detail": kind.todo,
        "instance": "urn:wasl:request:6f1c0a52b7e94d13",
    }
    if code in {"invalid_body", "invalid_parameter", "unknown_parameter"}:
        about = {
            "invalid_body": ("cnss_number", "malformed"),
            "invalid_parameter": ("limit", "malformed"),
            "unknown_parameter": ("reigon", "unknown"),
        }[code]
        said["errors"] = [{"field": about[0], "code": about[1], "detail": FIELD_CODES[about[1]]}]
    return said
