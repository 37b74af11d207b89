"""Values, arrays and rows in PostgreSQL's binary form, for what is written by thousands.

A driver asks of each value what it is; whoever packs a column knows. Pure: `gateway.db` sends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from struct import Struct, pack
from typing import Final

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + pack(">ii", 0, 0)
"""Before the rows of a binary COPY."""
TRAILER: Final = pack(">h", -1)
"""After them."""
NULL: Final = pack(">i", -1)

_BLOCK_ROWS: Final = 256
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_BIGINT_OID: Final = 20
_TEXT_OID: Final = 25
_length: Final = Struct(">i").pack
_bigint: Final = Struct(">iq").pack
_smallint: Final = Struct(">ih").pack


def columns(count: int) -> bytes:
    """Return what a row begins with that has so many columns."""
    return pack(">h", count)


def field(value: bytes) -> bytes:
    """Return a value that is packed already, as a column."""
    return _length(len(value)) + value


def text(value: str | None) -> bytes:
    """Return a text as a column."""
    if value is None:
        return NULL
    encoded = value.encode()
    return _length(len(encoded)) + encoded


word: Final[Callable[[str | None], bytes]] = lru_cache(maxsize=1_024)(text)
"""The same for texts of which there are few, as a status: packed once."""


def bigint(value: int | None) -> bytes:
    """Return a number as a BIGINT column."""
    return NULL if value is None else _bigint(8, value)


def smallint(value: int) -> bytes:
    """Return a number as a SMALLINT column."""
    return _smallint(2, value)


def instant(value: datetime | None) -> bytes:
    """Return an aware instant as a TIMESTAMPTZ column."""
    if value is None:
        return NULL
    since = value - _EPOCH
    # Dividing by a microsecond takes twice as long.
    seconds = since.days * 86_400 + since.seconds
    return _bigint(8, seconds * 1_000_000 + since.microseconds)


def jsonb(written: bytes) -> bytes:
    """Return JSON, written out, as a JSONB column."""
    return _length(len(written) + 1) + b"\x01" + written


def blocks(rows: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a whole binary COPY of rows that are packed."""
    yield HEADER
    remaining = iter(rows)
    while block := b"".join(islice(remaining, _BLOCK_ROWS)):
        yield block
    yield TRAILER


# -- arrays as parameters --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BigInts:
    """A BIGINT[] as the server takes it."""

    packed: bytes


@dataclass(frozen=True, slots=True)
class Texts:
    """A TEXT[] as the server takes it."""

    packed: bytes


def bigints(values: Sequence[int]) -> BigInts:
    """Pack numbers. Raises struct.error for one that is no BIGINT."""
    count = len(values)
    interleaved = [8] * (2 * count)
    interleaved[1::2] = values
    return BigInts(_array(_BIGINT_OID, count) + pack(f">{'iq' * count}", *interleaved))


def texts(values: Iterable[str]) -> Texts:
    """Pack texts. Raises UnicodeEncodeError for half a character."""
    parts = [b""]
    for value in values:
        encoded = value.encode()
        parts.append(_length(len(encoded)))
        parts.append(encoded)
    parts[0] = _array(_TEXT_OID, len(parts) // 2)
    return Texts(b"".join(parts))


def _array(element: int, count: int) -> bytes:
    """Return what an array of one dimension without NULLs begins with."""
    if count == 0:
        return pack(">iii", 0, 0, element)
    return pack(">iiiii", 1, 0, element, count, 1)
