"""The clock that a simulated provider signs by: the product's business clock, from the same words.

`WASL_CLOCK` unset is real time; an instant is where the clock starts, running on; `=` before it
makes the clock stand still. `WASL_CLOCK_ANCHOR` is the real second at which it showed its start.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

INSTITUTION_ZONE: Final = ZoneInfo("Africa/Casablanca")

Clock = Callable[[], datetime]


def business_clock() -> Clock:
    """Return the clock of this process's environment. It shows aware UTC.

    Raises:
        ValueError: `WASL_CLOCK` is not an instant with an offset.
    """
    setting = os.environ.get("WASL_CLOCK")
    if not setting:
        return lambda: datetime.now(UTC)
    start = datetime.fromisoformat(setting.removeprefix("="))
    if start.tzinfo is None:
        raise ValueError(f"WASL_CLOCK is {setting!r}: the offset is missing")
    start = start.astimezone(UTC)
    if setting.startswith("="):
        return lambda: start
    anchor = float(os.environ.setdefault("WASL_CLOCK_ANCHOR", repr(time.time())))
    return lambda: start + timedelta(seconds=time.time() - anchor)


def day_of(instant: datetime) -> date:
    """Return the day of an instant where the institution is."""
    return instant.astimezone(INSTITUTION_ZONE).date()
