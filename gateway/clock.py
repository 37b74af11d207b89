"""The business clock: the only clock that decisions may read.

Signature windows, paid-on days, due dates and expiry come from here and are passed on as `now`.
Timeouts, retries and sweeps run on the monotonic clock instead, so that the product works on a
business clock that stands still.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from gateway.errors import Unusable

INSTITUTION_ZONE: Final = ZoneInfo("Africa/Casablanca")
"""Days are days here. The offset changes for Ramadan, so it is never a constant."""

# Set by the first process of a group for its children, so that a running test clock is one clock
# and not one per process: the real instant (seconds) at which the test clock showed its start.
ANCHOR_VARIABLE: Final = "WASL_CLOCK_ANCHOR"

Clock = Callable[[], datetime]


def real_clock() -> datetime:
    """Return the real instant, in UTC."""
    return datetime.now(UTC)


def clock_from(setting: str | None) -> Clock:
    """Return the clock that a `WASL_CLOCK` setting means.

    Unset is real time; an instant is where the clock starts from, running on; `=` before it makes
    the clock stand still.

    Raises:
        Unusable: The setting is not an ISO 8601 instant with an offset.
    """
    if not setting:
        return real_clock
    still = setting.startswith("=")
    try:
        start = datetime.fromisoformat(setting.removeprefix("="))
    except ValueError:
        start = None
    if start is None or start.tzinfo is None:
        raise Unusable(
            f"WASL_CLOCK is {setting!r}: give an instant with its offset, as 2026-11-18T11:06:40Z"
            " (running on) or =2026-11-18T11:06:40Z (standing still)."
        )
    start = start.astimezone(UTC)
    if still:
        return lambda: start
    anchor = float(os.environ.setdefault(ANCHOR_VARIABLE, repr(time.time())))
    return lambda: start + timedelta(seconds=time.time() - anchor)


def day_of(instant: datetime) -> date:
    """Return the day of an instant where the institution is."""
    return instant.astimezone(INSTITUTION_ZONE).date()
