"""What a stranger posts: bounded while it comes in, read afterwards, never believed.

The body is taken by `Posted` before a route runs, without a thread or a connection to the database
waiting for it, and it must come at a pace. What is too large or refused is taken off the wire and
thrown away, up to a bound: a phone that is answered while it still sends shows a broken connection
and not the answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from gateway.pages.clients import Client, client_of
from gateway.pages.throttle import photos

PHOTO_BYTES_MAX: Final = 8 * 1024 * 1024
TEXT_BYTES_MAX: Final = 64 * 1024
ENVELOPE_BYTES_MAX: Final = 16 * 1024
"""What a form may add around its photo."""
DISCARDED_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of a photo that is too large; it has a place among the uploads meanwhile, and no more time."""
TEXT_SECONDS_MAX: Final = 10.0
PHOTO_SECONDS_MAX: Final = 60.0
"""A phone's usual 3 MB at 400 kbit/s."""
GRACE_SECONDS: Final = 5.0
BYTES_A_SECOND_MIN: Final = 16 * 1024
"""After the grace, on the average: who sends a byte now and then keeps others from sending."""
REFUSED_BYTES_MAX: Final = 1024 * 1024
REFUSED_SECONDS_MAX: Final = 5.0
FIELDS_MAX: Final = 20
PART_HEAD_BYTES_MAX: Final = 4 * 1024

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

    @property
    def is_multipart(self) -> bool:
        """Whether it may hold a photo: reading it takes a while."""
        return _is_multipart(self.content_type)


@dataclass(frozen=True, slots=True)
class Form:
    """A form as it was filled in; the last of equal names counts."""

    fields: Mapping[str, str] = field(default_factory=dict)
    photo: bytes | None = None
    """None where the form has none; empty where none was chosen."""


_uploads: Counter[Client] = Counter()
"""Photos coming in at this moment, by client; those that are thrown away count too. Touched by the
event loop only."""


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
        return await _refused(request, client, Body(refusal=Refusal.TOO_OFTEN, seconds=seconds))
    if not _has_room(client):
        return await _refused(request, client, Body(refusal=Refusal.BUSY, seconds=10))
    with _upload(client):
        room = PHOTO_BYTES_MAX + ENVELOPE_BYTES_MAX
        return await _taken(request, content_type, room, PHOTO_SECONDS_MAX)


Posted = Annotated[Body, Depends(_posted)]


def read_form(body: Body) -> Form:
    """Return the form in a body; an empty one where there is none. Raises nothing for any bytes."""
    if not body.is_multipart:
        return _urlencoded(body.content)
    boundary = parse_options_header(body.content_type)[1].get(b"boundary")
    if not boundary:
        return Form()
    fields: dict[str, str] = {}
    photo = None
    for name, is_file, content in _parts(body.content, b"--" + boundary):
        if not is_file:
            fields[_text(name)] = _text(content[:TEXT_BYTES_MAX])
        elif name == b"photo":
            photo = content
    return Form(fields, photo)


def _parts(content: bytes, delimiter: bytes) -> Iterator[tuple[bytes, bool, bytes]]:
    """Yield each whole part of a multipart body, as name, whether it is a file, and content.

    By a few searches and no walk over the bytes, and no further than forms of ours go: any body
    takes a few milliseconds.
    """
    # The line break before a delimiter is a part of it; the first delimiter may have none.
    pieces = (b"\r\n" + content).split(b"\r\n" + delimiter, FIELDS_MAX + 1)
    # Before the first is nothing, and behind the last is the end or what was cut off.
    for piece in pieces[1:-1]:
        head, blank, value = piece.partition(b"\r\n\r\n")
        if not blank or len(head) > PART_HEAD_BYTES_MAX:
            continue
        for line in head.split(b"\r\n"):
            field_name, _, told = line.partition(b":")
            if field_name.strip().lower() == b"content-disposition":
                options = parse_options_header(told.strip())[1]
                if b"name" in options:
                    yield options[b"name"], b"filename" in options, value


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


def _count_photo(client: Client) -> int:
    return photos().seconds_to_wait(client) or photos().count(client)


def _has_room(client: Client, times: int = 1) -> bool:
    return _uploads.total() < UPLOADS_MAX * times and _uploads[client] < UPLOADS_OF_ONE_MAX * times


@contextmanager
def _upload(client: Client) -> Iterator[None]:
    """Count an upload while it lasts."""
    _uploads[client] += 1
    try:
        yield
    finally:
        _uploads[client] -= 1
        if not _uploads[client]:
            del _uploads[client]


async def _taken(request: Request, content_type: str, room: int, seconds: float) -> Body:
    chunks: list[bytes] = []
    size = 0
    most = DISCARDED_BYTES_MAX if room > TEXT_BYTES_MAX else REFUSED_BYTES_MAX
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(began + min(seconds, GRACE_SECONDS)) as limit:
            async for chunk in request.stream():
                size += len(chunk)
                earned = GRACE_SECONDS + size / BYTES_A_SECOND_MIN
                limit.reschedule(began + min(seconds, earned))
                if size <= room:
                    chunks.append(chunk)
                    continue
                chunks.clear()
                if size > most:
                    break
    except (TimeoutError, ClientDisconnect):
        return Body(refusal=Refusal.CUT if size <= room else Refusal.TOO_LARGE)
    if size > room:
        return Body(refusal=Refusal.TOO_LARGE)
    return Body(b"".join(chunks), content_type)


async def _refused(request: Request, client: Client, answer: Body) -> Body:
    """Throw a body away as it comes, for a moment, so that its sender lives to read the answer.

    A flood of what is refused is not even waited for.
    """
    if _has_room(client, 2):
        with _upload(client):
            await _taken(request, "", 0, REFUSED_SECONDS_MAX)
    return answer
