"""Read a person as somebody wrote them down: strictly, with all that is wrong or odd. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final

from gateway import csvfiles
from gateway.dues.tariff import CategoryTariff, Tariff
from gateway.money import UnreadableAmount, format_amount, parse_amount
from gateway.registers.numbers import cin_is_usual, cnss_number_checks, read_ice
from gateway.registers.phones import phone_is_possible, read_phone
from gateway.registers.places import Place, read_place

# The person's own columns in the order of the file's description; also the table's order.
COLUMNS: Final = (
    "cnss_number",
    "cin",
    "family_name",
    "given_name",
    "family_name_ar",
    "given_name_ar",
    "phone",
    "language",
    "category",
    "category_base",
    "region",
    "province",
    "chamber",
    "registered_on",
    "left_on",
    "commune",
    "ice",
)


TABLE_COLUMNS: Final = tuple(
    {"category": "category_code", "category_base": "category_base_minor"}.get(column, column)
    for column in COLUMNS
)


REQUIRED: Final = ("cnss_number", "family_name", "given_name", "category", "registered_on")


SINCE: Final = "category_since"
"""Of a file and a change: from when the category and base hold. No column of the person's own."""


TEXT_MAX: Final = 120


AHEAD: Final = timedelta(days=366)
"""How far ahead of today a registration or a change may begin: later is a slip of the pen."""


LONG_AGO_YEARS: Final = 100
"""A registration that is older is warned of."""


_CNSS = re.compile(r"[0-9]{9}", re.ASCII)


# Foreigners' and old papers differ from the usual shape, and a person must not stay without cover
# for the shape of a number that nobody here checks: beyond this, odd ones are warned of.
_CIN = re.compile(r"[A-Z0-9]{2,12}", re.ASCII)


Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong with one column of a person. The reason names no personal value."""

    column: str
    reason: str


class WrongPerson(ValueError):
    """A person cannot be enrolled as described; `wrong` has a reason for each column."""

    def __init__(self, wrong: list[Wrong]) -> None:
        super().__init__(wrong[0].reason)
        self.wrong = tuple(wrong)


def not_too_far(column: str, day: date, on: date) -> date:
    """Return a day, or say that it is too far ahead to be meant. Raises ValueError."""
    if day - on > AHEAD:
        raise ValueError(f"{column} is more than a year ahead: compare its year")
    return day


def read_person(values: Mapping[str, str], tariff: Tariff, *, on: date) -> Row:
    """Return a person's values by COLUMNS as the table's, by TABLE_COLUMNS. `on` is today.

    Raises:
        WrongPerson: Something is wrong, with all of it.
    """
    return read_columns(values, categories_by_code(tariff), on)[0]


def categories_by_code(tariff: Tariff) -> dict[str, CategoryTariff]:
    """Return the categories that a person may be of."""
    return {category.code: category for category in tariff.category}


@dataclass(slots=True)
class _Reader:
    """Reads one person's columns, and remembers what is wrong with which."""

    wrong: list[Wrong] = field(default_factory=list)

    def note(self, column: str, reason: str) -> None:
        self.wrong.append(Wrong(column, reason))

    def read(self, column: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except ValueError as error:
            self.note(column, str(error))
            return None


def read_columns(
    value: Mapping[str, str], categories: dict[str, CategoryTariff], on: date
) -> tuple[Row, list[Wrong]]:
    """Return a person's columns and what is odd about them on a day, or raise WrongPerson."""
    reader = _Reader()
    # One text for what is written alike: a chamber finds its region however that was typed.
    value = {column: unicodedata.normalize("NFC", text) for column, text in value.items()}
    for column in REQUIRED:
        if not value[column]:
            reader.note(column, f"{column} is empty")
    for column in COLUMNS:
        if len(value[column]) > TEXT_MAX:
            reader.note(column, f"{column} is longer than {TEXT_MAX} characters")
    if value["cnss_number"] and not _CNSS.fullmatch(value["cnss_number"]):
        reader.note("cnss_number", "cnss_number is not nine digits")
    cin = value["cin"].replace(" ", "").upper()
    if cin and not _CIN.fullmatch(cin):
        reader.note("cin", "cin is not two to twelve letters and digits")
    language = value["language"].lower()
    if language not in {"", "fr", "ar"}:
        reader.note("language", "language is neither fr nor ar")
    category = value["category"]
    if category and category not in categories:
        reader.note("category", f"category is none of the tariff's ({', '.join(categories)})")
    registered_on = left_on = None
    if text := value["registered_on"]:
        registered_on = reader.read(
            "registered_on",
            lambda: not_too_far("registered_on", read_day("registered_on", text), on),
        )
    if value["left_on"]:
        left_on = reader.read("left_on", lambda: read_day("left_on", value["left_on"]))
    if left_on is not None and registered_on is not None and left_on < registered_on:
        reader.note("left_on", "left_on is before registered_on")
    phone = reader.read("phone", lambda: read_phone(value["phone"]))
    ice = reader.read("ice", lambda: read_ice(value["ice"])) if value["ice"] else None
    base = reader.read(
        "category_base", lambda: _base(value["category_base"], categories.get(category))
    )
    if reader.wrong:
        raise WrongPerson(reader.wrong)
    place = read_place(value["region"], value["province"], value["commune"], value["chamber"])
    row = (
        value["cnss_number"],
        cin or None,
        value["family_name"],
        value["given_name"],
        value["family_name_ar"] or None,
        value["given_name_ar"] or None,
        phone,
        language or None,
        category,
        base,
        place.region,
        place.province,
        place.chamber,
        registered_on,
        left_on,
        place.commune,
        ice,
    )
    assert registered_on is not None
    odd = _odd_dues(registered_on, base, categories[category], on)
    return row, [*_odd(value["cnss_number"], cin, phone, place), *odd]


def _odd(cnss_number: str, cin: str, phone: str | None, place: Place) -> list[Wrong]:
    """Return what may be a mistake, and is no reason to leave anybody without cover."""
    odd = [Wrong(column, reason) for column, reason in place.warnings]
    if not cnss_number_checks(cnss_number):
        odd.append(Wrong("cnss_number", "cnss_number does not verify by the rule of 2006"))
    if cin and not cin_is_usual(cin):
        odd.append(Wrong("cin", "cin is not one or two letters and up to six digits"))
    if phone is not None and not phone_is_possible(phone):
        odd.append(Wrong("phone", "phone has no length that its country uses"))
    return odd


def _odd_dues(
    registered_on: date, base: int | None, category: CategoryTariff, on: date
) -> list[Wrong]:
    """Return what may be a mistake in what a person's dues go by."""
    odd = []
    if on.year - registered_on.year > LONG_AGO_YEARS:
        reason = f"registered_on is more than {LONG_AGO_YEARS} years ago"
        odd.append(Wrong("registered_on", reason))
    if base is not None and not category.needs_base:
        reason = f"category_base is not used: {category.code} has no bands"
        odd.append(Wrong("category_base", reason))
    return odd


def as_values(known: Mapping[Any, Any]) -> dict[str, str]:
    """Return a row of the table as a line of a file would have it."""
    base = known["category_base_minor"]
    values = {column: known[at] for column, at in zip(COLUMNS, TABLE_COLUMNS, strict=True)}
    values["category_base"] = None if base is None else format_amount(base)
    return {column: "" if value is None else str(value) for column, value in values.items()}


def read_day(column: str, text: str) -> date:
    """Return a day, or say which column is none. Raises ValueError."""
    day = csvfiles.read_day(text)
    if day is None:
        raise ValueError(f"{column} is not a day written as 2026-01-31")
    return day


def _base(text: str, category: CategoryTariff | None) -> int | None:
    if not text:
        if category is not None and category.needs_base:
            raise ValueError(f"category_base is empty, and {category.code} needs one")
        return None
    try:
        base = parse_amount(text)
    except UnreadableAmount as error:
        raise ValueError(f"category_base: {error}") from None
    if base < 0:
        raise ValueError("category_base is negative")
    if category is not None and (why := category.refuse_base(base)):
        raise ValueError(f"category_base: {why}")
    return base
