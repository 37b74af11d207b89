"""When people are written to: figures as data, each with who says so, and what follows. Pure."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from functools import cache
from importlib import resources
from typing import Annotated, Final, Self

from pydantic import BeforeValidator, Field, model_validator

from gateway.clock import INSTITUTION_ZONE
from gateway.errors import Unusable
from gateway.figures import Misplaced, Sourced, Strict, read_toml
from gateway.settings import settings


def _time_of_day(value: object) -> time:
    if not isinstance(value, str) or len(value) != len("00:00"):
        raise ValueError('write it as "20:00"')
    try:
        return time.fromisoformat(value)
    except ValueError:
        raise ValueError(f'{value!r} is no time of day: write it as "20:00"') from None


TimeOfDay = Annotated[time, BeforeValidator(_time_of_day)]


class QuietHours(Sourced):
    """From one time of day to another, in Casablanca; over midnight where it ends earlier."""

    begin: TimeOfDay = Field(alias="from")
    until: TimeOfDay

    def after(self, now: datetime) -> datetime:
        """Return the first instant from `now` on that is not in these hours, in UTC as `now` is."""
        local = now.astimezone(INSTITUTION_ZONE)
        at = local.time()
        over_midnight = self.until < self.begin
        quiet = (
            at >= self.begin or at < self.until if over_midnight else self.begin <= at < self.until
        )
        if not quiet:
            return now
        ends_tomorrow = over_midnight and at >= self.begin
        day = local.date() + timedelta(days=1 if ends_tomorrow else 0)
        # Once a year a time is there twice, and once it is jumped over: either way not before now.
        return max(datetime.combine(day, self.until, INSTITUTION_ZONE).astimezone(now.tzinfo), now)


class Days(Sourced):
    """So many days."""

    days: int = Field(ge=0, le=365)


class LateDays(Days):
    """After so many days, and for so many in all."""

    until_days: int = Field(ge=1, le=3_650)

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.until_days <= self.days:
            raise Misplaced(("until_days",), f"it is not more than {self.days} days")
        return self


class MessageRules(Strict):
    """The whole file."""

    quiet_hours: QuietHours
    due_soon: Days
    late: LateDays
    told_within: Days


@cache
def message_rules() -> MessageRules:
    """Return the rules of this installation.

    Raises:
        Unusable: The file cannot be read or is wrong; the sentence says where.
    """
    chosen = settings().messages
    if chosen is None:
        text = resources.files("gateway").joinpath("messages.toml").read_text("utf-8")
        return read_toml(MessageRules, text, "The file of messages")
    try:
        text = chosen.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Unusable(f"WASL_MESSAGES: {chosen} cannot be read: {reason}.") from None
    return read_toml(MessageRules, text, str(chosen))


# -- how long a message is ------------------------------------------------------------------------

_BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡"
    "ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
"""The alphabet of seven bits (3GPP TS 23.038). It has no ç, ê or û."""
_EXTENDED: Final = frozenset("^{}\\[~]|€\f")
"""Each of these takes two places of it."""

SEVEN_BITS_ALONE: Final = 160
SEVEN_BITS_JOINED: Final = 153
UCS2_ALONE: Final = 70
UCS2_JOINED: Final = 67


def parts(text: str) -> int:
    """Return in how many parts a text goes over the air, which is what it costs.

    With one character outside the alphabet of seven bits, all of it is written in UCS-2. No
    character is cut in two at the end of a part.
    """
    if all(c in _BASIC or c in _EXTENDED for c in text):
        return _parts(
            [2 if c in _EXTENDED else 1 for c in text], SEVEN_BITS_ALONE, SEVEN_BITS_JOINED
        )
    return _parts([2 if ord(c) > 0xFFFF else 1 for c in text], UCS2_ALONE, UCS2_JOINED)


def _parts(widths: list[int], alone: int, joined: int) -> int:
    if sum(widths) <= alone:
        return 1
    count, left = 0, 0
    for width in widths:
        if width > left:
            count, left = count + 1, joined
        left -= width
    return count
