"""What a stranger posts: bounded while it comes in, read afterwards, never believed.

The body is taken by `Posted` before a route runs, without a thread or a connection to the database
waiting for it. What is too large is taken off the wire and thrown away, up to a bound: a phone that
is answered while it still sends shows a broken connection and not the answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from gateway.pages.clients import client_of
from gateway.pages.throttle import photos

PHOTO_BYTES_MAX: Final = 8 * 1024 * 1024
TEXT_BYTES_MAX: Final = 64 * 1024
ENVELOPE_BYTES_MAX: Final = 16 * 1024
"""What a form may add around its photo."""
DISCARDED_BYTES_MAX: Final = 32 * 1024 * 1024
TEXT_SECONDS_MAX: Final = 30.0
PHOTO_SECONDS_MAX: Final = 240.0
"""8 MB at 300 kbit/s."""
FIELDS_MAX: Final = 20

UPLOADS_MAX: Final = 24
UPLOADS_OF_ONE_MAX: Final = 4
"""At once, to a process: photos in memory are at most this many times their bound."""

# What strangers send is no news for the log.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

_MULTIPART: Final = b"multipart/form-data"


class Refusal(StrEnum):
    """Why a body was not taken."""

    TOO_LARGE = "too_large"
    TOO_OFTEN = "too_often"
    """Too many photos from this client; `seconds` says how long to wait."""
    BUSY = "busy"
    """Too many photos at this moment."""
    CUT = "cut"
    """It did not come whole, or not in time."""


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes that were posted, or why there are none."""

    content: bytes = b""
    content_type: str = ""
    refusal: Refusal | None = None
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Form:
    """A form as it was filled in; the last of equal names counts."""

    fields: Mapping[str, str] = field(default_factory=dict)
    photo: bytes | None = None
    """None where the form has none; empty where none was chosen."""


_uploads: Counter[str] = Counter()
"""Photos coming in at this moment, by client. Touched by the event loop only."""


async def _posted(request: Request) -> Body:
    """Take a body off the wire, within bounds of size, time and number."""
    if request.method != "POST":
        return Body()
    content_type = request.headers.get("content-type", "")
    if not _is_multipart(content_type):
        return await _taken(request, content_type, TEXT_BYTES_MAX, TEXT_SECONDS_MAX)
    client = client_of(request)
    seconds = await run_in_threadpool(_count_photo, client)
    if seconds:
        return await _refused(request, Refusal.TOO_OFTEN, seconds)
    if _uploads.total() >= UPLOADS_MAX or _uploads[client] >= UPLOADS_OF_ONE_MAX:
        return await _refused(request, Refusal.BUSY, 10)
    _uploads[client] += 1
    try:
        room = PHOTO_BYTES_MAX + ENVELOPE_BYTES_MAX
        return await _taken(request, content_type, room, PHOTO_SECONDS_MAX)
    finally:
        _uploads[client] -= 1
        if not _uploads[client]:
            del _uploads[client]


Posted = Annotated[Body, Depends(_posted)]


def read_form(body: Body) -> Form:
    """Return the form in a body; an empty one where there is none. Raises nothing for any bytes."""
    if not _is_multipart(body.content_type):
        return _urlencoded(body.content)
    boundary = parse_options_header(body.content_type)[1].get(b"boundary")
    if not boundary:
        return Form()
    fields: dict[str, str] = {}
    photo: list[bytes] = []

    def keep_field(part: Field) -> None:
        if len(fields) < FIELDS_MAX:
            fields[_text(part.field_name)] = _text((part.value or b"")[:TEXT_BYTES_MAX])

    def keep_file(part: File) -> None:
        if part.field_name == b"photo":
            part.file_object.seek(0)
            photo[:] = [part.file_object.read()]
        part.close()

    try:
        parser = FormParser(
            "multipart/form-data",
            keep_field,
            keep_file,
            boundary=boundary,
            config={"MAX_MEMORY_FILE_SIZE": len(body.content) + 1},
        )
        parser.write(body.content)
        parser.finalize()
    except FormParserError:
        return Form(fields)
    return Form(fields, photo[0] if photo else None)


def _urlencoded(content: bytes) -> Form:
    text = _text(content[:TEXT_BYTES_MAX])
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError:
        return Form()
    return Form(dict(pairs))


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")


def _is_multipart(content_type: str) -> bool:
    return parse_options_header(content_type)[0] == _MULTIPART


def _count_photo(client: str) -> int:
    return photos().seconds_to_wait(client) or photos().count(client)


async def _taken(request: Request, content_type: str, room: int, seconds: float) -> Body:
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= room:
                    chunks.append(chunk)
                    continue
                chunks.clear()
                if size > DISCARDED_BYTES_MAX:
                    break
    except (TimeoutError, ClientDisconnect):
        return Body(refusal=Refusal.CUT if size <= room else Refusal.TOO_LARGE)
    if size > room:
        return Body(refusal=Refusal.TOO_LARGE)
    return Body(b"".join(chunks), content_type)


async def _refused(request: Request, refusal: Refusal, seconds: int) -> Body:
    """Throw a body away as it comes, so that its sender lives to read the answer."""
    await _taken(request, "", 0, PHOTO_SECONDS_MAX)
    return Body(refusal=refusal, seconds=seconds)
