"""Figures kept as data: typed, exact, each with who says so. Settings files are read by these."""

from __future__ import annotations

import tomllib
from decimal import Decimal, InvalidOperation
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gateway.errors import Unusable
from gateway.money import parse_amount


def _quoted(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("write it between quotes: a bare number would be read as a float")
    return value


def _exact(value: object) -> Decimal:
    try:
        return Decimal(_quoted(value))
    except InvalidOperation:
        raise ValueError(f"{value!r} is not a decimal number") from None


def _centimes(value: object) -> int:
    return parse_amount(_quoted(value))


Exact = Annotated[Decimal, BeforeValidator(_exact)]
"""A decimal string, exactly."""

Minor = Annotated[int, BeforeValidator(_centimes)]
"""A decimal string of dirhams, as centimes."""


class Strict(BaseModel):
    """A table of a settings file: a key that is not known is an error, not a surprise."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Sourced(Strict):
    """Somebody says so: `verified` is true only where a source for exactly this was seen."""

    source: str = Field(min_length=1)
    verified: bool


_Model = TypeVar("_Model", bound=BaseModel)


def read_toml(model: type[_Model], text: str, what: str) -> _Model:
    """Return what a TOML text says, as a model.

    Raises:
        Unusable: It is not TOML, or not such a file; the sentence names `what` and the place.
    """
    try:
        return model.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise Unusable(f"{what} is not TOML: {error}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Unusable(f"{what} is wrong at {where}: {first['msg']}.") from None
