"""Lists in pages: by the last row seen, never by counting rows; a cursor fits one list only.

A long transaction takes its ids early and is seen late, behind a walk that has passed them; whoever
must miss nothing follows the feed of events.

A cursor is encrypted, so it tells nobody how many rows there are, and bound to the list, its
filters and what the key sees, so it cannot be carried elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any, Final, Generic, TypeVar
from urllib.parse import urlencode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import Response
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from gateway.api.access import Asked
from gateway.api.problem_kinds import FIELD_CODES
from gateway.api.problems import OUT_OF_RANGE, FieldError, Problem
from gateway.secretfiles import read_or_make
from gateway.settings import settings

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 200
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_ID_BYTES: Final = 8
_WHOLE: Final = re.compile("-?(0|[1-9][0-9]*)", re.ASCII)

_Item = TypeVar("_Item")


def _limit(text: object) -> int:
    if isinstance(text, int):
        return text
    sentence = f"It is a whole number from 1 to {LIMIT_MAX}."
    if not isinstance(text, str) or not _WHOLE.fullmatch(text):
        raise ValueError(sentence)
    # Compared by its length first: a number of a million digits is not worth reading.
    if len(text) > len(str(LIMIT_MAX)) or not 1 <= int(text) <= LIMIT_MAX:
        raise PydanticCustomError(OUT_OF_RANGE, "out of range", {"sentence": sentence})
    return int(text)


Limit = Annotated[
    int,
    BeforeValidator(_limit),
    WithJsonSchema(
        {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}
    ),
]
Cursor = Annotated[
    str,
    Field(
        pattern="^[A-Za-z0-9_=-]{1,80}$",
        description="`next_cursor` of the page before, with the same filters.",
    ),
]


class Paged(BaseModel):
    """What every list takes."""

    limit: Limit = Field(LIMIT_DEFAULT, description="How many to a page, at most.")
    cursor: Cursor | None = None


class Page(BaseModel, Generic[_Item]):
    """A page of a list, oldest first. A walk may miss what was being written meanwhile."""

    data: list[_Item]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


@cache
def cursor_key() -> bytes:
    """Return the key of this installation's cursors, made on first use."""
    return read_or_make(settings().keys_dir / "cursors.key", lambda: os.urandom(_KEY_BYTES))


def write_cursor(at: int, bound_to: str) -> str:
    """Return the cursor that goes on after a row's id in one list."""
    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(cursor_key()).encrypt(nonce, at.to_bytes(_ID_BYTES, "big"), bound_to.encode())
    return base64.urlsafe_b64encode(nonce + sealed).decode()


def read_cursor(text: str, bound_to: str, *, name: str = "cursor") -> int:
    """Return the id that a cursor goes on after.

    Raises:
        Problem: It is no cursor of this list.
    """
    try:
        raw = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
        sealed, nonce = raw[_NONCE_BYTES:], raw[:_NONCE_BYTES]
        opened = AESGCM(cursor_key()).decrypt(nonce, sealed, bound_to.encode())
    except (UnicodeEncodeError, binascii.Error, ValueError, InvalidTag):
        error = FieldError(name, "malformed", FIELD_CODES["malformed"])
        raise Problem("bad_cursor", errors=[error]) from None
    return int.from_bytes(opened, "big")


def binding(asked: Asked, name: str, filters: BaseModel | None = None) -> str:
    """Return what a cursor of a list is bound to: its filters, and what the key sees."""
    chosen = filters.model_dump_json(exclude={"limit", "cursor"}) if filters is not None else ""
    caller = asked.caller
    return f"{name}\n{caller.role.value}\n{caller.scope!r}\n{chosen}"


def first_after(asked: Asked, name: str, filters: Paged) -> int:
    """Return the id that a page of a list begins after.

    Raises:
        Problem: The cursor is none of this list.
    """
    if filters.cursor is None:
        return 0
    return read_cursor(filters.cursor, binding(asked, name, filters))


def paged(
    asked: Asked,
    name: str,
    filters: Paged,
    rows: Sequence[Any],
    said: Callable[[Any], _Item],
    response: Response,
) -> Page[_Item]:
    """Return a page made of one row more than it shows, and link to the next one.

    Args:
        asked: The request.
        name: Of the list.
        filters: As they were asked.
        rows: At most `filters.limit + 1`, with an `id`, rising.
        said: Makes an answer of a row.
        response: Takes the link.
    """
    shown = rows[: filters.limit]
    following = None
    if len(rows) > filters.limit:
        following = write_cursor(shown[-1]["id"], binding(asked, name, filters))
        query = [pair for pair in asked.query if pair[0] != "cursor"]
        address = f"{asked.path}?{urlencode([*query, ('cursor', following)])}"
        response.headers["Link"] = f'<{address}>; rel="next"'
    return Page[_Item](data=[said(row) for row in shown], next_cursor=following)
