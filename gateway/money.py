"""Money: whole centimes of dirham inside, decimal strings in dirhams outside. Pure."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Final

CURRENCY: Final = "MAD"

# 10 000 000 000.00 MAD. No contribution comes near it; it keeps every sum of a year's payments
# far inside a BIGINT, so that arithmetic in the database cannot overflow.
AMOUNT_MINOR_MAX: Final = 10**12

_AMOUNT = re.compile(r"(-?)(0|[1-9][0-9]*|0[0-9]+)(?:\.([0-9]{1,2}))?", re.ASCII)


class UnreadableAmount(ValueError):
    """The text is not an amount. Its message says why, and never becomes a zero."""


# Contributions are flat: thousands of payments of a day are of a few dozen amounts.
@lru_cache(maxsize=1_024)
def parse_amount(text: str) -> int:
    """Return the centimes that a decimal string of dirhams means: `"163.52"` is 16352.

    Accepts a leading minus, and no, one or two decimals after a point. Refuses everything that
    would have to be guessed: other digits than 0-9, a comma, spaces, exponents, NaN, a plus sign,
    a third decimal, more than AMOUNT_MINOR_MAX either way.

    Raises:
        UnreadableAmount: The text is none of the above.
    """
    if len(text) > 32:
        raise UnreadableAmount("an amount has at most 32 characters")
    found = _AMOUNT.fullmatch(text)
    if found is None:
        raise UnreadableAmount(
            "an amount is written in dirhams with a point and at most two decimals, as 163.52"
        )
    sign, whole, cents = found.groups()
    minor = int(whole) * 100 + int((cents or "0").ljust(2, "0"))
    if minor > AMOUNT_MINOR_MAX:
        raise UnreadableAmount(f"an amount is at most {format_amount(AMOUNT_MINOR_MAX)}")
    return -minor if sign else minor


def format_amount(minor: int) -> str:
    """Return centimes as dirhams with two decimals: 16352 is `"163.52"`, -5 is `"-0.05"`."""
    sign = "-" if minor < 0 else ""
    whole, cents = divmod(abs(minor), 100)
    return f"{sign}{whole}.{cents:02d}"


def round_to_minor(dirhams: Decimal) -> int:
    """Return exact dirhams as centimes, rounded half up (away from zero on a tie), once."""
    return int((dirhams * 100).quantize(Decimal(1), rounding=ROUND_HALF_UP))
