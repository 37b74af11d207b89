"""How long what names people is kept: periods as data, each with who says so.

A TOML file beside this module, or one that WASL_RETENTION points to. Validated when loaded.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from importlib import resources

from pydantic import Field

from gateway.errors import Unusable
from gateway.figures import Sourced, Strict, read_toml
from gateway.settings import settings


class Period(Sourced):
    """So many days."""

    days: int = Field(ge=1, le=36_500)

    def before(self, now: datetime) -> datetime:
        """Return the instant before which what came has been kept long enough."""
        return now - timedelta(days=self.days)


class FullYears(Sourced):
    """So many full years."""

    years: int = Field(ge=0, le=100)


def _persons_as_shipped() -> FullYears:
    return _shipped().persons


def _attempts_as_shipped() -> Period:
    return _shipped().attempts


class Retention(Strict):
    """The whole file."""

    bodies: Period
    """From a delivery's arrival until what is personal in its body is masked."""
    persons: FullYears = Field(default_factory=_persons_as_shipped)
    """From the last movement of money, and the last day of the registration, until what names the
    person may be erased, and is. A file that says nothing of it: as shipped."""
    attempts: Period = Field(default_factory=_attempts_as_shipped)
    """From an attempt to send an event to somebody who follows until the note of it is deleted. A
    file that says nothing of it: as shipped."""


@cache
def retention() -> Retention:
    """Return the periods of this installation.

    Raises:
        Unusable: The file cannot be read or is wrong; the sentence says where.
    """
    chosen = settings().retention
    if chosen is None:
        return _shipped()
    try:
        text = chosen.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Unusable(f"WASL_RETENTION: {chosen} cannot be read: {reason}.") from None
    return read_toml(Retention, text, str(chosen))


@cache
def _shipped() -> Retention:
    text = resources.files("gateway").joinpath("retention.toml").read_text("utf-8")
    return read_toml(Retention, text, "The retention file")
