"""When what was not taken is sent again, and when no more: the specification's table. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from webhooks.guarded import Answered

_HOUR: Final = 3600.0
DELAYS: Final = (
    *(0.0, 5.0, 300.0, 1800.0, 2 * _HOUR, 5 * _HOUR),
    *(10 * _HOUR, 14 * _HOUR, 20 * _HOUR, 24 * _HOUR),
)
"""Seconds before each attempt, from the end of the one before (Standard Webhooks 1.0.0)."""
JITTER: Final = 0.2
"""At most this share of a delay is added, so that what failed together does not return together."""
WAIT_SECONDS_MAX: Final = 24 * _HOUR
"""For which a receiver can put us off with `Retry-After`."""
_PUTS_OFF: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_DIGITS_MAX: Final = 9
_DATE_CHARS_MAX: Final = 64

GONE: Final = "answered 410: it wants nothing more"
EXHAUSTED: Final = f"not taken {len(DELAYS)} times"


@dataclass(frozen=True, slots=True)
class Failed:
    """A message that was not taken."""

    error: str
    status: int | None = None
    retry_after: float = 0.0
    """Seconds that its receiver asks for."""


@dataclass(frozen=True, slots=True)
class Later:
    """Try again after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class NoMore:
    """Send nothing more, for this reason."""

    because: str


def judge(answered: Answered, now: datetime) -> Failed | None:
    """Return why a message counts as not taken, or None where it was.

    Args:
        answered: What came.
        now: An aware instant, against which a date in `Retry-After` is read.
    """
    status = answered.status
    if 200 <= status < 300:
        return None
    error = f"answered {status}"
    if 300 <= status < 400:
        error = f"answered {status}: we follow nobody elsewhere"
    wait = read_retry_after(answered.retry_after, now) if status in _PUTS_OFF else 0.0
    return Failed(error, status, wait)


def read_retry_after(text: str | None, now: datetime) -> float:
    """Return the seconds that a `Retry-After` asks for, at most WAIT_SECONDS_MAX; else 0."""
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        return WAIT_SECONDS_MAX if len(text) > _DIGITS_MAX else min(float(text), WAIT_SECONDS_MAX)
    if len(text) > _DATE_CHARS_MAX:
        return 0.0
    try:
        at = parsedate_to_datetime(text)
        wait = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(0.0, wait.total_seconds()), WAIT_SECONDS_MAX)


def after(
    failed: Failed, attempts: int, *, chance: Callable[[], float] = random.random
) -> Later | NoMore:
    """Say what follows a failure.

    Args:
        failed: What came of it.
        attempts: How many of this message failed by now, with this one.
        chance: From 0 to 1, by which delays are spread.
    """
    if failed.status == HTTPStatus.GONE:
        return NoMore(GONE)
    if attempts >= len(DELAYS):
        return NoMore(f"{EXHAUSTED}: {failed.error}")
    wait = max(DELAYS[attempts], failed.retry_after)
    return Later(wait * (1 + JITTER * chance()))
