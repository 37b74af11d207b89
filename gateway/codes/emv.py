"""The payment code that wallets, kiosks and agents scan: EMVCo merchant-presented mode. Pure.

A payload is a row of fields: two digits that name the field, two that count its characters, and
the characters. Some fields, the templates, are such a row inside. A CRC over the UTF-8 bytes ends
it. Nothing in it tells who owes: the reference, the amount and the period are all.

A code that an acquirer's customers can pay needs the acquirer's own template, which only it can
make; such templates are carried as they were given. Without one, the code bears ours.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.errors import Unusable
from gateway.money import UnreadableAmount, format_amount, parse_amount
from gateway.references import normalise_reference

PAYLOAD_CHARS_MAX: Final = 1_000
"""More than any payload: a symbol of that size could not be scanned from paper."""

_BEGINNING: Final = "000201"
_MAD: Final = "504"  # ISO 4217, in digits as EMVCo has it
_AMOUNT_CHARS_MAX: Final = 13
_MERCHANT_CHARS_MAX: Final = 400  # what the bill adds brings it to 500: still a symbol to scan
_VALUE_CHARS_MAX: Final = 99
_DIGITS = re.compile(r"[0-9]+", re.ASCII)
_PRINTABLE = re.compile(r"[ -~]+")
_CHECKSUM = re.compile(r"[0-9A-Fa-f]{4}")

# Ids whose value is a row of fields itself: accounts, additional data, other language, unreserved.
_ACCOUNTS: Final = frozenset(str(n) for n in range(26, 52))
_UNRESERVED: Final = frozenset(str(n) for n in range(80, 100))
_TEMPLATES: Final = _ACCOUNTS | _UNRESERVED | {"62", "64"}


class UnreadableEmv(ValueError):
    """The text is no payload of this kind, or not a whole one. Its message is a sentence."""


@dataclass(frozen=True, slots=True)
class MerchantTemplate:
    """Who is paid: what every code of this installation has in common.

    Raises:
        Unusable: A value cannot stand in a code.
    """

    guid: str
    """Names the owner of `merchant_id`, as a domain written backwards: `ma.example.amo`."""

    merchant_id: str
    name: str
    city: str
    mcc: str = "9399"
    """ISO 18245; 9399 is government services."""

    name_ar: str | None = None
    city_ar: str | None = None
    acquirer: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Templates by id as an acquirer gave them. If there are any, they stand instead of ours."""

    def __post_init__(self) -> None:
        _check_ascii("identifier of the payment system", self.guid, chars_max=32)
        _check_ascii("merchant's number", self.merchant_id, chars_max=_VALUE_CHARS_MAX)
        _check_ascii("merchant's name", self.name, chars_max=25)
        _check_ascii("merchant's city", self.city, chars_max=15)
        if len(self.mcc) != 4 or not _DIGITS.fullmatch(self.mcc):
            raise Unusable(f"The merchant's category is four digits, as 9399, not {self.mcc!r}.")
        if len(self._own_account()) > _VALUE_CHARS_MAX:
            raise Unusable(
                "The merchant's number is too long for a payment code: it and the identifier of "
                f"the payment system have {_VALUE_CHARS_MAX - 8} characters together."
            )
        if self.name_ar is not None:
            _check_any("merchant's Arabic name", self.name_ar, chars_max=25)
        if self.city_ar is not None:
            if self.name_ar is None:
                raise Unusable("An Arabic city in payment codes needs the Arabic name beside it.")
            _check_any("merchant's Arabic city", self.city_ar, chars_max=15)
        for key, value in self.acquirer.items():
            _check_acquirer_template(key, value)
        if self.acquirer and not self.acquirer.keys() & _ACCOUNTS:
            raise Unusable("An acquirer's templates need one with an id of 26 to 51.")
        if len(_row(self.fields().items())) > _MERCHANT_CHARS_MAX:
            raise Unusable("The acquirer's templates are too long together for one payment code.")

    def fields(self) -> dict[str, str]:
        """Return the fields that every code of this merchant has, by id."""
        fields = {"52": self.mcc, "53": _MAD, "58": "MA", "59": self.name, "60": self.city}
        fields.update(self.acquirer or {"26": self._own_account()})
        if self.name_ar is not None:
            other = {"00": "ar", "01": self.name_ar}
            if self.city_ar is not None:
                other["02"] = self.city_ar
            fields["64"] = _row(other.items())
        return fields

    def _own_account(self) -> str:
        return _row([("00", self.guid), ("01", self.merchant_id)])


def encode(
    merchant: MerchantTemplate, *, reference: str, amount_minor: int, period_code: str
) -> str:
    """Return the payload that asks for this amount, once, under this reference.

    Args:
        merchant: Who is paid.
        reference: Twelve digits. Stands as they are, and as a creditor reference (`RF74…`).
        amount_minor: What is due, in centimes, more than nothing.
        period_code: The period it is due for, `2026-11` or `2026-Q4`.
    """
    assert len(reference) == 12
    assert _DIGITS.fullmatch(reference)
    amount = format_amount(amount_minor)
    assert amount_minor > 0
    assert len(amount) <= _AMOUNT_CHARS_MAX
    purpose = f"AMO {period_code}"
    assert len(purpose) <= 25
    fields = merchant.fields()
    fields["01"] = "12"  # for one use, not a sticker on a counter
    fields["54"] = amount
    fields["62"] = _row([("01", reference), ("05", f"RF74{reference}"), ("08", purpose)])
    payload = _BEGINNING + _row(sorted(fields.items())) + "6304"
    return payload + _checksum(payload)


@dataclass(frozen=True, slots=True)
class EmvPayload:
    """What a payload says, whoever made it."""

    fields: Mapping[str, str]
    """Values by id, in the order they stand, templates as they are written."""

    templates: Mapping[str, Mapping[str, str]]
    """The same for each template whose inside can be read."""

    @property
    def reference(self) -> str | None:
        """Twelve digits from the bill number or else the reference label, not verified."""
        additional = self.templates.get("62", {})
        for key in ("01", "05"):
            if (reference := normalise_reference(additional.get(key, ""))) is not None:
                return reference
        return None

    @property
    def currency(self) -> str | None:
        """ISO 4217 in digits: dirhams are 504."""
        return self.fields.get("53")

    @property
    def amount_minor(self) -> int | None:
        """Centimes that are asked for; None if the payer chooses, or if it is not dirhams."""
        if self.currency != _MAD:
            return None
        try:
            amount_minor = parse_amount(self.fields.get("54", ""))
        except UnreadableAmount:
            return None
        return amount_minor if amount_minor > 0 else None


def decode(payload: str) -> EmvPayload:
    """Return what a payload says. Any maker's; fields we do not know are kept.

    Takes a CRC in small letters, which some makers write, and white space around.

    Raises:
        UnreadableEmv: It is no payload, is cut or changed, or says one thing twice.
    """
    if len(payload) > PAYLOAD_CHARS_MAX:
        raise UnreadableEmv("The text is longer than any payment code.")
    payload = payload.strip()
    if not payload.startswith(_BEGINNING):
        raise UnreadableEmv("The text is not a payment code: it does not begin with 000201.")
    pairs = _pairs(payload)
    if pairs[-1][0] != "63":
        raise UnreadableEmv("The payment code does not end with its checksum.")
    if not _CHECKSUM.fullmatch(pairs[-1][1]):
        raise UnreadableEmv("The checksum of the payment code is not four hexadecimal digits.")
    try:
        expected = _checksum(payload[:-4])
    except UnicodeEncodeError:
        raise UnreadableEmv("The payment code holds characters that are none.") from None
    if pairs[-1][1].upper() != expected:
        raise UnreadableEmv("The payment code was changed or misread: its checksum is wrong.")
    fields = _by_id(pairs)
    templates = {}
    for key in fields.keys() & _TEMPLATES:
        try:
            templates[key] = _by_id(_pairs(fields[key]))
        except UnreadableEmv:  # a maker's own idea of it; the rest is still worth reading
            continue
    return EmvPayload(fields, templates)


def _row(fields: Iterable[tuple[str, str]]) -> str:
    return "".join([f"{key}{len(value):02d}{value}" for key, value in fields])


def _pairs(row: str) -> list[tuple[str, str]]:
    """Return the ids and values of a row.

    Raises:
        UnreadableEmv: The row is not made so, or not whole.
    """
    pairs = []
    at = 0
    while at < len(row):
        key, length = row[at : at + 2], row[at + 2 : at + 4]
        if len(length) < 2:
            raise UnreadableEmv("The payment code is cut short.")
        if not _DIGITS.fullmatch(key + length):
            raise UnreadableEmv("The payment code is damaged: a field has no number or no length.")
        at += 4 + int(length)
        if at > len(row):
            raise UnreadableEmv("The payment code is cut short.")
        pairs.append((key, row[at - int(length) : at]))
    return pairs


def _by_id(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for key, value in pairs:
        if key in fields:
            raise UnreadableEmv(f"The payment code has field {key} twice.")
        fields[key] = value
    return fields


def _checksum(payload: str) -> str:
    """Return CRC-16/CCITT-FALSE in four capital digits, leading zeros and all."""
    return f"{binascii.crc_hqx(payload.encode(), 0xFFFF):04X}"


def _check_ascii(what: str, value: str, *, chars_max: int) -> None:
    if not _PRINTABLE.fullmatch(value):
        raise Unusable(
            f"The {what} in payment codes has Latin letters without accents, digits and "
            f"punctuation only, not {value!r}."
        )
    _check_any(what, value, chars_max=chars_max)


def _check_any(what: str, value: str, *, chars_max: int) -> None:
    if not value.isprintable() or value != value.strip() or not 1 <= len(value) <= chars_max:
        raise Unusable(
            f"The {what} in payment codes has 1 to {chars_max} characters, without a space at "
            f"either end, not {value!r}."
        )


def _check_acquirer_template(key: str, value: str) -> None:
    if key not in _ACCOUNTS | _UNRESERVED:
        raise Unusable(f"An acquirer's template has an id of 26 to 51 or 80 to 99, not {key!r}.")
    if not _PRINTABLE.fullmatch(value) or len(value) > _VALUE_CHARS_MAX:
        raise Unusable(
            f"The acquirer's template {key} has 1 to {_VALUE_CHARS_MAX} ASCII characters, "
            f"not {value!r}."
        )
    try:
        fields = _by_id(_pairs(value))
    except UnreadableEmv:
        fields = {}
    if not fields.get("00"):
        raise Unusable(
            f"The acquirer's template {key} is not one: ask for the text that follows the "
            "template's own id and length, which begins with field 00."
        )
