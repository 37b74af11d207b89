"""Who collects, as people see it on papers, pages and in codes: names, ways to pay, validity.

A TOML file beside this module, or one that WASL_INSTITUTION points to. Validated when loaded.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

from pydantic import Field

from gateway.codes.emv import MerchantTemplate
from gateway.errors import Unusable
from gateway.figures import Minor, Sourced, Strict, read_toml
from gateway.models import Channel
from gateway.settings import settings


class Validity(Sourced):
    """How long a reference is accepted on pages and papers, in months after the due day."""

    months: int = Field(ge=0, le=120)


class Way(Sourced):
    """One way to pay. `source` and `verified` are about its fee."""

    channel: Channel
    fee: Minor | None = None
    """What the payer pays on top, in centimes; 0 is free, None is not known."""
    ceilings: tuple[Minor, ...] = ()
    """What one payment or wallet may hold at most, by level of identification, rising."""
    ceilings_source: str = ""
    ceilings_verified: bool = False

    def exceeded_by(self, due_minor: int) -> int | None:
        """Return the highest ceiling if an amount in centimes, with its fee, is above it for
        certain; None: some account may hold it, as far as is confirmed."""
        if not self.ceilings or not self.ceilings_verified:
            return None
        highest = self.ceilings[-1]
        return highest if due_minor + (self.fee or 0) > highest else None


class Code(Strict):
    """What the EMVCo code says of the one who is paid (gateway.codes.emv)."""

    guid: str
    merchant_id: str
    mcc: str
    name: str
    city: str
    name_ar: str | None = None
    city_ar: str | None = None
    acquirer: dict[str, str] = Field(default_factory=dict)
    """An acquirer's own templates by their identifier; they take the place of ours."""

    def template(self) -> MerchantTemplate:
        """Return what codes are made from.

        Raises:
            Unusable: Something does not fit the format; the sentence says what.
        """
        return MerchantTemplate(**self.model_dump())


class Institution(Strict):
    """The whole file."""

    name: str
    name_ar: str
    full_name: str
    phone: str = ""
    validity: Validity
    code: Code
    provider_names: dict[str, str] = Field(default_factory=dict)
    """What people call a provider, by its name in the providers file."""
    way: tuple[Way, ...]

    def called(self, provider: str) -> str:
        """Return what people call a provider."""
        return self.provider_names.get(provider, provider)

    def exceeded(self, channel: Channel, due_minor: int) -> int | None:
        """Return the highest ceiling of a channel, if an amount in centimes is above that of each
        of its ways for certain (see Way)."""
        above = [way.exceeded_by(due_minor) for way in self.way if way.channel is channel]
        known = [ceiling for ceiling in above if ceiling is not None]
        return max(known) if known and len(known) == len(above) else None


@cache
def institution() -> Institution:
    """Return who collects in this installation.

    Raises:
        Unusable: The file cannot be read or is wrong; the sentence says where.
    """
    chosen = settings().institution
    try:
        text = _text(chosen)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Unusable(f"WASL_INSTITUTION: {chosen} cannot be read: {reason}.") from None
    read = read_toml(Institution, text, f"{chosen or 'The institution file'}")
    read.code.template()
    return read


def _text(chosen: Path | None) -> str:
    if chosen is not None:
        return chosen.read_text("utf-8")
    return resources.files("gateway").joinpath("institution.toml").read_text("utf-8")
