"""The body of a request: taken off the wire within bounds, JSON in UTF-8, each field once."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from fastapi import Request
from starlette.types import Message as Piece

from gateway.api.problem_kinds import FIELD_CODES
from gateway.api.problems import ERRORS_MAX, FieldError, Problem, path_of
from gateway.bodies import BodyCutOff, BodyTooLarge, BodyTooSlow, take_body
from gateway.wirejson import UnreadableJson, read_json

BYTES_MAX: Final = 64 * 1024
SECONDS_MAX: Final = 10.0
DEPTH_MAX: Final = 50
"""Objects and lists within each other: no body of ours has more than two."""
FIELDS_MAX: Final = 100
"""In one object: naming thousands that are not known would hold up everybody else."""
_CONTENT_TYPE_CHARS_MAX: Final = 200
_WRONG: Final = re.compile("[\x00\ud800-\udfff]")


async def read_body(request: Request) -> bytes:
    """Return the body of a request that needs one: readable JSON, or nothing at all.

    Raises:
        Problem: Too large, too slow, not said to be JSON, no JSON, a field that stands twice, or a
            character that no text holds.
    """
    body = await _taken(request)
    if not body:
        missing = FieldError("body", "missing", "Send a JSON object.")
        raise Problem("invalid_body", "A body is needed: one JSON object.", errors=[missing])
    if not _says_json(request.headers.get("content-type", "")):
        raise Problem("not_json")
    # A few milliseconds at most: BYTES_MAX is small.
    _refuse_unreadable(body)
    return body


def replayed(request: Request, body: bytes) -> Request:
    """Return a request whose body is read from what was taken already."""

    async def receive() -> Piece:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(request.scope, receive)


def has_wrong_characters(text: str) -> bool:
    """Say whether a text holds what PostgreSQL or UTF-8 cannot: NUL, or half a surrogate pair."""
    return _WRONG.search(text) is not None


async def _taken(request: Request) -> bytes:
    try:
        return await take_body(request, bytes_max=BYTES_MAX, seconds_max=SECONDS_MAX)
    except BodyTooLarge:
        raise Problem("body_too_large", headers={"Connection": "close"}) from None
    except BodyTooSlow:
        raise Problem("body_too_slow", headers={"Connection": "close"}) from None
    except BodyCutOff:
        raise Problem("unreadable_body", "The body was cut off.") from None


def _says_json(content_type: str) -> bool:
    # The standard library's reader takes seconds over a long one full of semicolons.
    if len(content_type) > _CONTENT_TYPE_CHARS_MAX:
        return False
    media_type, *parameters = content_type.lower().split(";")
    said = (parameter.partition("=") for parameter in parameters)
    charsets = {value.strip(' \t"') for name, _, value in said if name.strip() == "charset"}
    return media_type.strip() == "application/json" and charsets <= {"utf-8", "utf8"}


def _refuse_unreadable(body: bytes) -> None:
    try:
        read = read_json(body, keys_once=True)
    except UnreadableJson as error:
        repeated = _repeated(body)
        if repeated:
            errors = [FieldError(name, "repeated", FIELD_CODES["repeated"]) for name in repeated]
            raise Problem("unreadable_body", "A field stands twice.", errors=errors) from None
        raise Problem("unreadable_body", f"The body cannot be used: {error}.") from None
    wrong = [path_of(place) for place in islice(_wrong_places(read, ()), ERRORS_MAX)]
    if wrong:
        sentence = "It holds a NUL character or half a surrogate pair, which no text does."
        errors = [FieldError(_printable(path), "malformed", sentence) for path in wrong]
        raise Problem("unreadable_body", sentence, errors=errors)


def _repeated(body: bytes) -> list[str]:
    found: dict[str, None] = {}

    def look(pairs: Sequence[tuple[str, Any]]) -> None:
        counted = Counter(name for name, _ in pairs)
        found.update((_printable(path_of([n])), None) for n, times in counted.items() if times > 1)

    try:
        json.loads(body.decode("utf-8"), object_pairs_hook=look, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return []
    return list(found)[:ERRORS_MAX]


def _wrong_places(value: object, at: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if len(at) > DEPTH_MAX:
        sentence = f"It holds more than {DEPTH_MAX} objects and lists within each other."
        raise Problem("unreadable_body", sentence)
    match value:
        case str() if has_wrong_characters(value):
            yield at or ("body",)
        case dict():
            if len(value) > FIELDS_MAX:
                sentence = f"It has more than {FIELDS_MAX} fields in one object."
                raise Problem("unreadable_body", sentence)
            for name, inner in value.items():
                if has_wrong_characters(name):
                    yield (*at, name)
                yield from _wrong_places(inner, (*at, name))
        case list():
            for index, inner in enumerate(value):
                yield from _wrong_places(inner, (*at, index))


def _printable(path: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in path)
