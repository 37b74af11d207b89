"""Why a person decided something: a sentence that is kept for good, and names nobody."""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import Unusable
from gateway.logs import masked

WHY_MAX: Final = 500

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def kept_reason(why: str) -> str:
    """Return a reason as it is kept for good.

    Raises:
        Unusable: There is none, it is no line, or it has what looks like a person's number.
    """
    why = why.strip()
    if not why or len(why) > WHY_MAX or _CONTROL.search(why):
        raise Unusable(f"Say why, in a line of at most {WHY_MAX} characters: it is kept.")
    if masked(why) != why:
        raise Unusable(
            "The reason is kept for good: say it without what looks like a CNSS number, a CIN or a"
            " telephone."
        )
    return why
