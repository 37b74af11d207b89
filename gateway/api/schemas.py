"""The values that bodies and answers are made of: amounts, days, ids, texts, references."""

from __future__ import annotations

import unicodedata
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Final

from fastapi import Path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from gateway.api.problems import FieldError, Problem
from gateway.clock import INSTITUTION_ZONE
from gateway.csvfiles import read_day
from gateway.dues.tariff import tariff
from gateway.money import CURRENCY
from gateway.people.reading import TEXT_MAX

_FIRST_YEAR: Final = 1900
_LAST_YEAR: Final = 9000


class Said(BaseModel):
    """A part of an answer. Fields may be added: no description of ours says that there are none."""


class Body(BaseModel):
    """A body. A field that is not known is refused by name: it would be lost unseen."""

    model_config = ConfigDict(extra="forbid")


def example(**values: Any) -> ConfigDict:
    """Return a model's configuration with an example."""
    return ConfigDict(json_schema_extra={"examples": [values]})


def _as_day(value: object) -> date:
    day = read_day(value) if isinstance(value, str) else value
    if isinstance(day, date):
        return day
    raise ValueError("It is a day written as 2026-01-31.")


Day = Annotated[
    date, BeforeValidator(_as_day), WithJsonSchema({"type": "string", "format": "date"})
]
"""A day in Casablanca."""

Id = Annotated[str, Field(pattern="^[1-9][0-9]{0,17}$", examples=["1042"])]
"""A number as text: it is a name, and nobody computes with it."""

IdInPath = Annotated[
    str, Path(alias="id", pattern="^[1-9][0-9]{0,17}$", description="As a list shows it.")
]
ReferenceInPath = Annotated[
    str,
    Path(
        pattern="^[1-9][0-9]{11}$",
        description="Twelve digits, without spaces.",
        examples=["148275036141"],
    ),
]
Reference = Annotated[str, Field(pattern="^[1-9][0-9]{11}$", examples=["148275036141"])]

# No line breaks and other control characters, and something that is no space.
_TEXT: Final = "[^\\u0000-\\u001f\\u007f-\\u009f]"
LINE_PATTERN: Final = f"^{_TEXT}*[^\\s\\u0000-\\u001f\\u007f-\\u009f]{_TEXT}*$"


def _as_kept(text: str) -> str:
    return unicodedata.normalize("NFC", text.strip())


Line = Annotated[
    str,
    Field(min_length=1, max_length=TEXT_MAX, pattern=LINE_PATTERN),
    AfterValidator(_as_kept),
]
"""A text of one line; spaces around it are taken off, and it is written as the register has it."""

Because = Annotated[
    str,
    Field(
        min_length=1,
        max_length=500,
        pattern=LINE_PATTERN,
        description="Why, in a sentence without names: whoever reads it later must understand.",
    ),
]

AMOUNT_PATTERN: Final = r"^-?(0|[1-9][0-9]*)\.[0-9]{2}$"
Amount = Annotated[
    str,
    Field(
        json_schema_extra={"pattern": AMOUNT_PATTERN},
        description="Dirhams, with two decimals.",
        examples=["163.52"],
    ),
]
AmountGiven = Annotated[
    str,
    Field(
        pattern=r"^(0|[1-9][0-9]{0,9})(\.[0-9]{1,2})?$",
        description="Dirhams, with a point and at most two decimals.",
        examples=["420.00"],
    ),
]
Currency = Annotated[str, Field(json_schema_extra={"const": CURRENCY})]

PeriodCode = Annotated[
    str,
    Field(
        pattern="^20[0-9]{2}-(0[1-9]|1[0-2]|Q[1-4])$",
        description="A month `2026-11` or a quarter `2026-Q4`.",
        examples=["2026-11"],
    ),
]


def category_codes() -> list[str]:
    """Return the categories of this version's tariff."""
    return [category.code for category in tariff().category]


def _as_category(value: object) -> str:
    if isinstance(value, str) and value in category_codes():
        return value
    raise PydanticCustomError("enum", "no category", {"expected": ", ".join(category_codes())})


CategoryCode = Annotated[
    str,
    BeforeValidator(_as_category),
    Field(
        description="One of the tariff's categories.", json_schema_extra={"enum": category_codes()}
    ),
]


def start_of(day: date) -> datetime:
    """Return the instant a day begins in Casablanca; far days are all the same."""
    if day.year < _FIRST_YEAR:
        day = date(_FIRST_YEAR, 1, 1)
    if day.year > _LAST_YEAR:
        day = date(_LAST_YEAR, 12, 31)
    return datetime.combine(day, time(), INSTITUTION_ZONE)


def end_of(day: date) -> datetime:
    """Return the instant the next day begins in Casablanca."""
    return start_of(min(day, date(_LAST_YEAR, 12, 30)) + timedelta(days=1))


class Conditions:
    """The `WHERE` of a list, and its parameters: the code's own texts, and callers' values."""

    def __init__(self, first: str, **parameters: Any) -> None:
        self._texts = [first]
        self.parameters: dict[str, Any] = dict(parameters)

    def add(self, text: str, **parameters: Any) -> None:
        """Ask for one thing more."""
        self._texts.append(text)
        self.parameters.update(parameters)

    def equal(self, **columns: Any) -> None:
        """Ask for what is given of these columns."""
        for column, value in columns.items():
            if value is not None:
                self.add(f"{column} = :{column}", **{column: value})

    def __str__(self) -> str:
        return " AND ".join(f"({text})" for text in self._texts)


def refuse_reversed(first: date | None, last: date | None, *names: str) -> None:
    """Refuse a span of days that ends before it begins: nothing would ever be in it.

    Raises:
        Problem: It does; `errors` names both parameters.
    """
    if first is not None and last is not None and last < first:
        sentence = f"{names[0]} is after {names[1]}."
        errors = [FieldError(name, "contradicts", sentence) for name in names]
        raise Problem("fields_contradict", f"Mend {' or '.join(names)}: {sentence}", errors=errors)


def found(row: Any, code: str) -> Any:
    """Return what was found.

    Raises:
        Problem: Nothing was.
    """
    if row is None:
        raise Problem(code)
    return row
