"""What the API refuses and how: RFC 9457 problems, all of their codes in one table.

A code is never given another meaning. A problem says what is wrong, which field it is about and
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
class Kind:
    """One kind of problem."""

    status: int
    title: str
    todo: str
    """What whoever meets it does."""


KINDS: Final[Mapping[str, Kind]] = {
    "invalid_parameter": Kind(
        400,
        "A parameter is not as it must be",
        "`errors` names each parameter, and what is wrong with it.",
    ),
    "unknown_parameter": Kind(
        400,
        "There is no such parameter",
        "Leave out what `errors` names: a filter that is not known would be ignored unseen.",
    ),
    "unreadable_body": Kind(
        400,
        "The body cannot be read",
        "Send one JSON object in UTF-8, each field once, without NUL characters.",
    ),
    "no_key": Kind(
        401, "A key is needed", "Send `Authorization: Bearer wasl_…`; `wasl keys create` makes one."
    ),
    "unknown_key": Kind(
        401,
        "The key opens nothing",
        "It is mistyped or revoked: ask whoever runs this for another.",
    ),
    "role_may_not": Kind(
        403,
        "The key's role may not do this",
        "`GET /v1/me` lists what it may; ask for a key of another role.",
    ),
    "no_such_address": Kind(
        404,
        "There is nothing at this address",
        "Compare it with `/docs`: each part of it must be written as it says there.",
    ),
    "bad_cursor": Kind(
        404,
        "There is no such page of this list",
        "Use a `next_cursor` as it was given, with the same filters; or begin without one.",
    ),
    "contributor_not_found": Kind(
        404, "No such contributor", "There is none with this id that the key may see."
    ),
    "invoice_not_found": Kind(
        404, "No such invoice", "There is none with this reference that the key may see."
    ),
    "attestation_not_found": Kind(
        404, "No such attestation", "There is none with this number that the key may see."
    ),
    "payment_not_found": Kind(
        404, "No such payment", "There is none with this id that the key may see."
    ),
    "plan_not_found": Kind(404, "No such plan", "There is none with this id."),
    "bundle_not_found": Kind(
        404, "No such bundle", "There is none with this reference that the key may see."
    ),
    "way_not_found": Kind(
        404,
        "No such way to pay",
        "No provider that is switched on makes anything to pay by under this name or channel.",
    ),
    "attempt_not_found": Kind(404, "No such attempt", "There is none with this id."),
    "exception_not_found": Kind(404, "No such exception", "There is none with this id."),
    "refund_not_found": Kind(404, "No such refund", "There is none with this id."),
    "delivery_not_found": Kind(
        404, "No such delivery", "Nothing came from this provider under this delivery id."
    ),
    "replay_not_found": Kind(404, "No such replay", "There is none with this id."),
    "endpoint_not_found": Kind(
        404, "No such webhook endpoint", "There is none with this id, or it was removed."
    ),
    "reference_not_found": Kind(
        404,
        "Nothing to pay has this reference",
        "It verifies and was never issued: ask for the notice.",
    ),
    "reference_mistyped": Kind(
        404,
        "The reference does not verify",
        "A digit is wrong, or two changed places: read it again.",
    ),
    "method_not_allowed": Kind(
        405, "This address has no such method", "`Allow` lists those it has."
    ),
    "body_too_slow": Kind(408, "The body did not come in time", "Send it again."),
    "idempotency_key_reused": Kind(
        409,
        "This Idempotency-Key belongs to another request",
        "Use a new key for each thing to do, and the old one only for the very same request.",
    ),
    "contributor_exists": Kind(
        409,
        "The CNSS number is somebody's already, with other content",
        "Search for the contributor and change it by PATCH.",
    ),
    "fields_contradict": Kind(
        409,
        "Fields do not fit each other, or what is known already",
        "`errors` names each of them; every one alone would be well written.",
    ),
    "nothing_owed": Kind(
        409, "Nothing is owed for this period", "`detail` says why: mend the person or the period."
    ),
    "nothing_due": Kind(
        409,
        "Nothing is to be paid by this reference now",
        "It is paid, cleared, cancelled or expired: look the reference up.",
    ),
    "attempt_undecided": Kind(
        409,
        "Money may still come by an earlier attempt",
        "Ask how that stands (`Location` names it, if it is of this reference), and begin again"
        " once it is closed; its payer can give it up on the reference's page.",
    ),
    "provider_refused": Kind(
        409, "The provider refuses", "Nothing was taken: choose another way to pay."
    ),
    "not_up_to_date": Kind(
        409,
        "The person is not up to date",
        "`detail` says since when: nothing is attested until what is late is paid.",
    ),
    "invoice_cancelled": Kind(
        409,
        "The invoice is cancelled already",
        "It stays cancelled, and its contributor is not billed again for its period.",
    ),
    "invoice_paid_on": Kind(
        409,
        "Something is paid on the invoice",
        "It can be cancelled only after its payments are taken back.",
    ),
    "plan_refused": Kind(
        409,
        "Such a plan cannot be made",
        "`detail` says why: nothing is late, a plan stands already, or the rule does not allow it.",
    ),
    "not_erasable": Kind(
        409,
        "The person's data may not be erased yet",
        "`detail` says what is open, or the earliest day.",
    ),
    "refund_refused": Kind(
        409,
        "The refund cannot be as asked",
        "`detail` says why: how much is left of the payment, who must approve it, what it is now.",
    ),
    "exception_resolved": Kind(
        409, "The exception is resolved already", "Read it: it says why, and by whom."
    ),
    "resolved_by_runs": Kind(
        409,
        "Runs of reconciliation open and resolve this exception",
        "Mend what it is about; the next run that does not find it again resolves it.",
    ),
    "delivery_parked": Kind(
        409,
        "The delivery is still parked",
        "What it says is in no book: have it replayed once the cause is mended.",
    ),
    "delivery_unreadable": Kind(
        409,
        "Nothing of the delivery can be read",
        "There is nothing to act on: ask the provider what it meant, and to deliver again.",
    ),
    "replay_too_wide": Kind(
        409,
        "The filter chooses by nothing, or too many deliveries",
        "Choose fewer: by provider, state, outcome or days.",
    ),
    "address_refused": Kind(
        409,
        "Nothing would ever be sent to this address",
        "`detail` says why: it is to be https, at an address of the open internet.",
    ),
    "endpoint_disabled": Kind(
        409,
        "The endpoint is disabled",
        "Enable it first: it goes on where it stopped. A test is sent all the same.",
    ),
    "nothing_to_resend": Kind(
        409,
        "Nothing in this span is for the endpoint",
        "What it has not had yet comes by itself, and events of other types never.",
    ),
    "too_many_endpoints": Kind(409, "There are as many endpoints as may be", "Remove one first."),
    "too_many_secrets": Kind(
        409,
        "As many secrets stand as may at once",
        "Wait for one's end, or end the others now by `overlap_hours` 0.",
    ),
    "too_many_orders": Kind(
        409,
        "As many resends or tests are under way as may be",
        "Wait for one's end: the endpoint's orders say how far they are.",
    ),
    "body_too_large": Kind(413, "The body is too large", "Send at most 64 KiB."),
    "not_json": Kind(
        415, "The body is not said to be JSON", "Send `Content-Type: application/json`."
    ),
    "invalid_body": Kind(
        422,
        "The body is not as it must be",
        "`errors` names each field by its path, and what is wrong with it.",
    ),
    "too_many_requests": Kind(
        429, "Too many requests with this key", "Wait for as many seconds as `Retry-After` says."
    ),
    "too_many_attempts": Kind(
        429,
        "Too many attempts for this reference",
        "Wait for as many seconds as `Retry-After` says, or choose a way that needs no attempt.",
    ),
    "too_many_misses": Kind(
        429,
        "Too many references that do not exist",
        "Wait for as many seconds as `Retry-After` says, and read references off the notice.",
    ),
    "too_many_unknown_keys": Kind(
        429,
        "Too many keys that open nothing",
        "Wait for as many seconds as `Retry-After` says, then send the right key.",
    ),
    "fault": Kind(
        500,
        "Something went wrong on our side",
        "It is not known whether anything was changed: look, or send it again with the same"
        " `Idempotency-Key`. Tell whoever runs this the `X-Request-Id`.",
    ),
    "provider_away": Kind(
        503,
        "The provider does not answer",
        "Nothing is lost: the same request again finds what was made.",
    ),
    "unavailable": Kind(
        503,
        "The database is away or too busy",
        "It is not known whether anything was changed. Send it again after `Retry-After` seconds;"
        " with the same `Idempotency-Key` nothing is done twice.",
    ),
}

FIELD_CODES: Final[Mapping[str, str]] = {
    "missing": "It must be given.",
    "unknown": "There is no such field or parameter.",
    "repeated": "It stands there twice.",
    "wrong_type": "It is of the wrong JSON type.",
    "too_short": "It is too short, or empty.",
    "too_long": "It is too long.",
    "out_of_range": "It is too small or too large.",
    "not_one_of": "It is none of the values that are allowed.",
    "malformed": "It is not written as it must be.",
    "contradicts": "It does not fit another field.",
}


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
