"""What agents' CSV files look like, and whom a sender of settlement files pays for: settings.

A TOML file beside this module, or one that WASL_DIALECTS points to. Validated when loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from gateway.errors import Unusable
from gateway.figures import Misplaced, Sourced, Strict, read_toml
from gateway.settings import settings
from reconciliation.sources.statements import Kind

DAYS: Final[Mapping[str, str]] = {
    "yyyy-mm-dd": "%Y-%m-%d",
    "dd/mm/yyyy": "%d/%m/%Y",
    "dd-mm-yyyy": "%d-%m-%Y",
    "dd.mm.yyyy": "%d.%m.%Y",
    "yyyymmdd": "%Y%m%d",
}
TIMES: Final[Mapping[str, str]] = {"hh:mm:ss": "%H:%M:%S", "hh:mm": "%H:%M", "hhmmss": "%H%M%S"}

_Mark = Annotated[str, Field(min_length=1, max_length=1)]
_Days = Annotated[int, Field(ge=0, le=60)]


class Columns(Strict):
    """The names of the columns, as the header has them."""

    day: str
    time: str | None = None
    reference: str
    amount: str
    currency: str | None = None
    transaction: str
    kind: str | None = None
    fee: str | None = None


class Trailer(Strict):
    """The last line, which says what the others come to."""

    word: str = Field(min_length=1)
    """What stands in its first field."""
    required: bool
    """Whether a file without one was cut."""
    count: str | None = None
    """Under which column the number of data lines stands."""
    sums: tuple[str, ...] = ()
    """Under which columns the sums of those columns stand: of amounts, of fees."""


class Dialect(Sourced):
    """One way to write such a file."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    delimiter: Literal[";", ",", "\t", "|"]
    decimal: Literal[",", "."]
    thousands: tuple[_Mark, ...] = ()
    day: str
    time: str | None = None
    columns: Columns
    kinds: Mapping[str, Kind] = {}
    """The words for kinds; without a column of kinds every line is a payment, or takes one back."""
    trailer: Trailer | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.day not in DAYS:
            raise Misplaced(("day",), f"it is one of {', '.join(DAYS)}")
        if (self.time is None) != (self.columns.time is None) or (
            self.time is not None and self.time not in TIMES
        ):
            raise Misplaced(("time",), f"with a column for it, it is one of {', '.join(TIMES)}")
        if self.decimal in self.thousands or self.delimiter in (self.decimal, *self.thousands):
            raise Misplaced(("decimal",), "one mark has two meanings")
        if bool(self.kinds) != (self.columns.kind is not None):
            raise Misplaced(("kinds",), "words for kinds and a column of kinds go together")
        if self.trailer is not None and not {*self.trailer.sums} <= {*self.summed()}:
            raise Misplaced(("trailer", "sums"), "only amounts and fees are added up")
        return self

    def summed(self) -> tuple[str, ...]:
        """Return the columns of money."""
        return tuple(each for each in (self.columns.amount, self.columns.fee) if each is not None)

    def needed(self) -> tuple[str, ...]:
        """Return the columns without which a header is not of this dialect."""
        named = self.columns.model_dump().values()
        counted = None if self.trailer is None else self.trailer.count
        return tuple(dict.fromkeys(each for each in (*named, counted) if each is not None))


class Source(Strict):
    """Who sends settlement files: a provider, or a bank that is none."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")
    pays_for: tuple[str, ...] = ()
    """The providers whose payments its files stand for; nothing said: its own."""
    dialect: str | None = None
    """Of its CSV files; nothing said: the one that the header fits."""
    grace_days: _Days | None = None
    window_days: _Days | None = None


class Patience(Sourced):
    """How long money takes, in calendar days."""

    grace_days: _Days
    """From the day of a payment until it must have been settled by what is covered."""
    window_days: _Days
    """How long after a payment a line without its id may still stand for it."""


class Dialects(Strict):
    """The whole file."""

    patience: Patience
    dialect: tuple[Dialect, ...] = ()
    source: tuple[Source, ...] = ()

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        for key, names in (
            ("dialect", [each.name for each in self.dialect]),
            ("source", [each.name for each in self.source]),
        ):
            for at, name in enumerate(names):
                if name in names[:at]:
                    raise Misplaced((key, at, "name"), f"{name} stands there twice")
        known = {each.name for each in self.dialect}
        for at, source in enumerate(self.source):
            if source.dialect is not None and source.dialect not in known:
                raise Misplaced(("source", at, "dialect"), f"there is no dialect {source.dialect}")
        return self

    def for_provider(self, name: str) -> tuple[Dialect, ...]:
        """Return the dialects that a sender's file may be in."""
        chosen = self.of(name).dialect
        return tuple(each for each in self.dialect if chosen in {None, each.name})

    def of(self, name: str) -> Source:
        """Return what is set for a sender; what is not, by default."""
        found = next((each for each in self.source if each.name == name), Source(name=name))
        patience = self.patience
        return Source(
            name=name,
            pays_for=found.pays_for or (name,),
            dialect=found.dialect,
            grace_days=patience.grace_days if found.grace_days is None else found.grace_days,
            window_days=patience.window_days if found.window_days is None else found.window_days,
        )


@cache
def dialects() -> Dialects:
    """Return the dialects of this installation.

    Raises:
        Unusable: The file cannot be read or is wrong; the sentence says where.
    """
    chosen = settings().dialects
    if chosen is None:
        text = (
            resources.files("reconciliation.sources").joinpath("dialects.toml").read_text("utf-8")
        )
        return read_toml(Dialects, text, "The dialects file")
    try:
        text = chosen.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Unusable(f"WASL_DIALECTS: {chosen} cannot be read: {reason}.") from None
    return read_toml(Dialects, text, str(chosen))
