"""Taking a request's body from a stranger: at most so many bytes, within so many seconds."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request


class BodyRefused(Exception):
    """The body cannot be taken. What is answered is the caller's affair."""


class BodyTooLarge(BodyRefused):
    """It has more bytes, or says that it will have."""


class BodyTooSlow(BodyRefused):
    """It did not come in time."""


class BodyCutOff(BodyRefused):
    """Whoever sent it hung up."""


async def take_body(request: Request, *, bytes_max: int, seconds_max: float) -> bytes:
    """Return the body as it came.

    Raises:
        BodyRefused: One of the three above. The connection is to be closed where it was too large
            or too slow: what is still to come would be read as the next request.
    """
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdecimal() and int(length[:12]) > bytes_max:
        raise BodyTooLarge
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds_max):
            async for chunk in request.stream():
                size += len(chunk)
                if size > bytes_max:
                    raise BodyTooLarge
                chunks.append(chunk)
    except TimeoutError:
        raise BodyTooSlow from None
    except ClientDisconnect:
        raise BodyCutOff from None
    return b"".join(chunks)
