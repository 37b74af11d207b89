"""The closing line of a file of records: what it states must be what the file has. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.errors import Unusable
from gateway.money import format_amount

TRAILER: Final = "TRAILER"

# A sum of amounts may be far larger than any amount.
_SUM = re.compile(r"(-?)([0-9]{1,18})(?:\.([0-9]{1,2}))?", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,24}", re.ASCII)


@dataclass(slots=True)
class Totals:
    """What a file has: its data lines, readable or not, and their sums."""

    lines: int = 0
    amount_minor: int = 0
    cnss_numbers: int = 0


def cnss_number_to_add(text: str) -> int:
    """Return what a line's CNSS number adds to their sum; nothing, if it is not all digits."""
    return int(text) if _COUNT.fullmatch(text) else 0


def refused(name: str, line: int, why: str) -> Unusable:
    """Return the error that refuses a file whole."""
    return Unusable(f"{name}, line {line}: {why}; the whole file is refused.")


def check_trailer(name: str, line: int, fields: Sequence[str], totals: Totals) -> None:
    """Compare a trailer with what its file has.

    Raises:
        Unusable: It states something else, or cannot be read.
    """
    # A spreadsheet pads every line to the width of the header.
    stated = list(fields[1:4])
    if len(fields) < 4 or any(fields[4:]):
        raise refused(name, line, "a trailer has a count and two sums")
    lines, amount, cnss_numbers = stated
    found = _SUM.fullmatch(amount)
    if found is None or not _COUNT.fullmatch(lines) or not _COUNT.fullmatch(cnss_numbers):
        raise refused(name, line, "the trailer's count or sums cannot be read")
    sign, whole, cents = found.groups()
    amount_minor = int(f"{sign}{whole}{(cents or '').ljust(2, '0')}")
    for what, says, has in (
        ("data lines", int(lines), totals.lines),
        ("as the sum of amounts", amount_minor, totals.amount_minor),
        ("as the sum of CNSS numbers", int(cnss_numbers), totals.cnss_numbers),
    ):
        if says != has:
            money = what == "as the sum of amounts"
            shown = (format_amount(says), format_amount(has)) if money else (says, has)
            raise refused(
                name, line, f"the trailer says {shown[0]} {what}, the file has {shown[1]}"
            )
