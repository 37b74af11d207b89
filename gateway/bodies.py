"""Taking a request's body from a stranger: at most so many bytes, within so many seconds."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.types import Receive, Scope

AT_ONCE: Final = "wasl.at_once"
"""In a request's `extensions`: all of its body has come, so that nothing need be timed.

What stands there is called with the scope, a status and the rest of an answer (headers, blank line,
body), and sends it as one piece; or says that it cannot, and it must be sent as any other.
"""


class BodyRefused(Exception):
    """The body cannot be taken. What is answered is the caller's affair."""


class BodyTooLarge(BodyRefused):
    """It has more bytes, or says that it will have."""


class BodyTooSlow(BodyRefused):
    """It did not come in time."""


class BodyCutOff(BodyRefused):
    """Whoever sent it hung up."""


async def take_body(request: Request, *, bytes_max: int, seconds_max: float) -> bytes:
    """Return the body of a request as it came (see `read_body`)."""
    return await read_body(
        request.scope,
        request.headers.get("content-length", "0"),
        request.receive,
        bytes_max=bytes_max,
        seconds_max=seconds_max,
    )


async def read_body(
    scope: Scope, length: str, receive: Receive, *, bytes_max: int, seconds_max: float
) -> bytes:
    """Return a body as it came.

    Args:
        scope: The request's.
        length: How many bytes it says the body has; a stranger's text.
        receive: Gives the body's parts.
        bytes_max: No body has more.
        seconds_max: All of it must come within.

    Raises:
        BodyRefused: One of the three above. The connection is to be closed where it was too large
            or too slow: what is still to come would be read as the next request.
    """
    if length.isascii() and length.isdecimal() and int(length[:12]) > bytes_max:
        raise BodyTooLarge
    if AT_ONCE in scope.get("extensions", ()):
        return await _joined(receive, bytes_max)
    try:
        async with asyncio.timeout(seconds_max):
            return await _joined(receive, bytes_max)
    except TimeoutError:
        raise BodyTooSlow from None


async def _joined(receive: Receive, bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BodyCutOff
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size > bytes_max:
            raise BodyTooLarge
        chunks.append(chunk)
    return b"".join(chunks)
