"""Figures kept as data: typed, exact, dated, each with who says so.

Settings files are read by these; what is wrong in one is said with its line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from gateway.errors import Unusable
from gateway.money import parse_amount

ONE_DAY: Final = timedelta(days=1)

Place = tuple[str | int, ...]
"""Where something stands in a file: keys, and places in lists from 0."""


class Misplaced(ValueError):
    """Something is wrong at one place below what a validator was given."""

    def __init__(self, path: Place, reason: str) -> None:
        super().__init__(reason)
        self.path: Final = path


def _quoted(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("write it between quotes: a bare number would be read as a float")
    return value


def _exact(value: object) -> Decimal:
    text = _quoted(value)
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a decimal number") from None
    if not number.is_finite():
        raise ValueError(f"{text!r} is not a decimal number")
    return number


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


class Spell(Strict):
    """In force from a day on: until another, that day included, or until further notice."""

    since: date = Field(alias="from")
    until: date | None = None

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.until is not None and self.until < self.since:
            raise Misplaced(("until",), f"it ends on {self.until}, before it begins")
        return self


class Dated(Spell, Sourced):
    """A figure, while it is in force."""


_Entry = TypeVar("_Entry", bound=Spell)


def _one_after_another(series: tuple[_Entry, ...]) -> tuple[_Entry, ...]:
    for at, (entry, following) in enumerate(pairwise(series)):
        if entry.until is None:
            raise Misplaced(
                (at,),
                f"`until` is missing: only the last of a series, from {following.since}, has"
                " no end",
            )
        begins = entry.until + ONE_DAY
        if following.since < begins:
            raise Misplaced(
                (at + 1, "from"),
                f"it begins on {following.since}, and the one before it ends on {entry.until} only",
            )
        if following.since > begins:
            last = following.since - ONE_DAY
            missing = f"{begins} is" if begins == last else f"{begins} to {last} are"
            raise Misplaced((at + 1, "from"), f"{missing} missing between it and the one before it")
    if series and series[-1].until is not None:
        raise Misplaced(
            (len(series) - 1, "until"), "the last of a series has no end: say what is in force then"
        )
    return series


_Item = TypeVar("_Item")


def _some(listed: tuple[_Item, ...]) -> tuple[_Item, ...]:
    if not listed:
        raise ValueError("it is empty")
    return listed


Some = Annotated[tuple[_Item, ...], AfterValidator(_some)]
"""A list of one thing or more. Not by a minimal length, which pydantic counts without the wrong
ones, and then speaks of the length."""

Series = Annotated[tuple[_Entry, ...], AfterValidator(_some), AfterValidator(_one_after_another)]
"""What was in force, one after another: no day twice, none missing, the last without an end."""

MaybeSeries = Annotated[tuple[_Entry, ...], AfterValidator(_one_after_another)]
"""A series, or nothing at all."""


def in_force(series: Sequence[_Entry], day: date) -> _Entry:
    """Return what a series says for a day, which must not lie before its beginning."""
    return next(entry for entry in reversed(series) if entry.since <= day)


_Model = TypeVar("_Model", bound=BaseModel)


def read_toml(model: type[_Model], text: str, what: str) -> _Model:
    """Return what a TOML text says, as a model.

    Raises:
        Unusable: It is not TOML, or not such a file; the sentence names `what`, line and place.
    """
    try:
        return model.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise Unusable(f"{what} is not TOML: {error}.") from None
    except ValidationError as error:
        places = _Places(text)
        line, where, said = min(
            (
                (places.line_of(path), path, said)
                for path, said in map(_path_and_words, error.errors())
            ),
            key=lambda wrong: wrong[0],
        )
    # Without the places in lists: the line says which one it is.
    named = ".".join(part for part in where if isinstance(part, str))
    raise Unusable(f"{what} is wrong in line {line}, at {named}: {said}.")


def _path_and_words(wrong: Any) -> tuple[Place, str]:
    error = wrong.get("ctx", {}).get("error")
    path = (*wrong["loc"], *error.path) if isinstance(error, Misplaced) else wrong["loc"]
    match wrong["type"]:
        case "value_error":
            said = str(error)
        case "missing":
            said = "it is missing"
        case "extra_forbidden":
            said = "there is no such setting"
        case _:
            said = wrong["msg"].replace("Input should be", "it must be")
    return path, said


_KEY = re.compile(r"""\s*("(?:\\.|[^"\\])*"|'[^']*'|[A-Za-z0-9_-]+)\s*""")
_GAP = re.compile(r"(?:\s|#[^\n]*)*")
_BARE = re.compile(r"[^,\]}#\n]+")
_TEXT = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\])*"|\'[^\']*\'', re.DOTALL
)


class _Places:
    """Where each key of a TOML text stands. The text is known to be TOML."""

    def __init__(self, text: str) -> None:
        self._text: Final = text
        self._at = 0
        self._found: Final[dict[Place, int]] = {}
        self._sizes: Final[dict[Place, int]] = {}
        """Of the lists of tables, how many tables each has so far."""
        self._scan()

    def line_of(self, path: Place) -> int:
        """Return the line of a place, or of the nearest thing around it; lines count from 1."""
        while path and path not in self._found:
            path = path[:-1]
        return self._text.count("\n", 0, self._found.get(path, 0)) + 1

    def _scan(self) -> None:
        table: Place = ()
        while not self._ends():
            if self._text.startswith("[[", self._at):
                start = self._at
                self._at += 2
                *around, last = self._keys()
                whole = (*self._resolved(around), last)
                self._sizes[whole] = self._sizes.get(whole, 0) + 1
                table = (*whole, self._sizes[whole] - 1)
                self._found.setdefault(whole, start)
                self._found[table] = start
                self._at += 2
            elif self._text.startswith("[", self._at):
                start = self._at
                self._at += 1
                table = self._resolved(self._keys())
                self._found[table] = start
                self._at += 1
            else:
                self._pair(table)

    def _ends(self) -> bool:
        self._skip()
        return self._at >= len(self._text)

    def _skip(self) -> None:
        """Pass over spaces, line ends and comments."""
        gap = _GAP.match(self._text, self._at)
        self._at = gap.end() if gap else self._at

    def _keys(self) -> list[str]:
        keys = []
        while found := _KEY.match(self._text, self._at):
            self._at = found.end()
            key = found[1]
            keys.append(key[1:-1] if key[0] in "\"'" else key)
            if not self._text.startswith(".", self._at):
                break
            self._at += 1
        return keys

    def _resolved(self, keys: list[str]) -> Place:
        """Return the place that a header's keys mean: of a list of tables, in its last table."""
        path: Place = ()
        for key in keys:
            path = (*path, key)
            if path in self._sizes:
                path = (*path, self._sizes[path] - 1)
        return path

    def _pair(self, table: Place) -> None:
        start = self._at
        path = (*table, *self._keys())
        self._found[path] = start
        self._at += 1
        self._skip()
        self._value(path)

    def _value(self, path: Place) -> None:
        opening = self._text[self._at]
        if opening not in "[{":
            pattern = _TEXT if opening in "\"'" else _BARE
            found = pattern.match(self._text, self._at)
            self._at = found.end() if found else self._at + 1
            return
        self._at += 1
        count = 0
        while not self._ends() and self._text[self._at] not in "]}":
            if opening == "[":
                self._found[(*path, count)] = self._at
                self._value((*path, count))
                count += 1
            else:
                self._pair(path)
            self._skip()
            if self._text.startswith(",", self._at):
                self._at += 1
        self._at += 1
