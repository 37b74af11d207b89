"""What the payers hold in their hands: the notices, and money as they write it."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

_AMOUNT = re.compile(r"(-?)([0-9]+)\.([0-9]{2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice: pay `amount_minor` centimes under `reference` by `due_on`."""

    reference: str
    amount_minor: int
    cnss_number: str
    period: str
    due_on: date


def centimes(text: str) -> int:
    """Return the centimes of an amount with exactly two decimals: `"163.52"` is 16352.

    Raises:
        ValueError: The text is written in any other way.
    """
    found = _AMOUNT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not an amount with two decimals")
    sign, whole, cents = found.groups()
    minor = int(whole) * 100 + int(cents)
    return -minor if sign else minor


def dirhams(minor: int) -> str:
    """Return centimes as dirhams with two decimals: 16352 is `"163.52"`."""
    whole, cents = divmod(abs(minor), 100)
    return f"{'-' if minor < 0 else ''}{whole}.{cents:02d}"


def read_notices(path: Path) -> list[Notice]:
    """Read a notices file: `reference,amount,cnss_number,period,due_on`, in any order.

    Raises:
        ValueError: A line cannot be read, or its amount is not positive; the text names it.
    """
    notices = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            notice = Notice(
                reference=row["reference"],
                amount_minor=centimes(row["amount"]),
                cnss_number=row["cnss_number"],
                period=row["period"],
                due_on=date.fromisoformat(row["due_on"]),
            )
            if notice.amount_minor <= 0:
                raise ValueError(f"{path.name}: the notice {notice.reference} asks for nothing")
            notices.append(notice)
    return notices
