"""JSON as strangers send it: UTF-8 only, numbers as written, no NaN. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


class UnreadableJson(ValueError):
    """The bytes are not JSON in UTF-8, or say the same key twice where that matters."""


class Number(str):
    """A JSON number as it was written: never mistaken for a decimal string, never a float."""


def read_json(body: bytes, *, keys_once: bool = False) -> Any:
    """Return what JSON bytes say, with numbers as `Number`.

    Args:
        body: The raw bytes.
        keys_once: Refuse an object in which a key stands twice: which of two amounts was meant
            would be a guess.

    Raises:
        UnreadableJson: They are no JSON in UTF-8. Nothing else, whatever the bytes are.
    """
    pairs = _once if keys_once else None
    try:
        return json.loads(
            body.decode("utf-8"),
            parse_int=Number,
            parse_float=Number,
            parse_constant=_no_number,
            object_pairs_hook=pairs,
        )
    except (ValueError, RecursionError) as error:
        raise UnreadableJson(f"it is not readable JSON ({type(error).__name__})") from None


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found
