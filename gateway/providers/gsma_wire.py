"""The GSMA Mobile Money API 1.2.0, bill payments: addresses, parts of lists, errors. Pure.

Names are the published ones, odd spellings included (`errordescription`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.models import ExceptionCode
from gateway.providers.calls import Reply
from gateway.references import read_reference

TEXT_MAX: Final = 256
LIMIT: Final = 50
LIMIT_MAX: Final = 100
_INT32_MAX: Final = 2**31 - 1

ACCOUNT_TYPES: Final = frozenset(
    {
        *("accountcategory", "bankaccountno", "accountrank", "identityalias", "iban", "accountid"),
        *("msisdn", "swiftbic", "sortcode", "organisationid", "username", "walletid", "linkref"),
        *("consumerno", "serviceprovider", "storeid", "bankname", "bankaccounttitle"),
        *("emailaddress", "mandatereference"),
    }
)
OUR_ACCOUNT_TYPES: Final = frozenset({"accountid", "consumerno"})
"""By which a person, or one bill, can be asked for here. The others say nothing to us."""

UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", re.ASCII)
_CNSS_NUMBER: Final = re.compile(r"[0-9]{9}", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]{1,255}", re.ASCII)
URL_MAX: Final = 2048
_COUNT: Final = re.compile(r"[0-9]{1,10}", re.ASCII)


# -- errors ---------------------------------------------------------------------------------------

_CODES: Final = {
    "businessRule": (
        "currencyNotSupported",
        "duplicateRequest",
        "greaterThanTransactionMaxValue",
        "lessThanTransactionMinValue",
        "overPaymentNotAllowed",
        "underPaymentNotAllowed",
    ),
    "validation": (
        "formatError",
        "invalidOffset",
        "lengthError",
        "mandatoryValueNotSupplied",
        "negativeValue",
    ),
    "authorisation": ("clientAuthorisationError",),
    "identification": ("identifierError",),
    "serviceUnavailable": ("genericError",),
}
_CATEGORIES: Final = {code: category for category, codes in _CODES.items() for code in codes}
_STATUSES: Final = {"authorisation": 401, "identification": 404, "serviceUnavailable": 503}


class Wrong(Exception):
    """A call cannot be done as it stands: one of the published error codes, and a sentence."""

    def __init__(
        self, code: str, sentence: str, about: ExceptionCode = ExceptionCode.UNREADABLE_DELIVERY
    ) -> None:
        super().__init__(sentence)
        self.code = code
        self.category = _CATEGORIES[code]
        self.status = status_of(self.category)
        self.about = about
        """What it would be in our books, if it is about money."""

    def as_object(self, at: datetime | None) -> dict[str, Any]:
        """Return the error object; without an instant where none is known."""
        return {
            "errorCategory": self.category,
            "errorCode": self.code,
            "errordescription": str(self),
            **({} if at is None else {"errorDateTime": instant(at)}),
            "errorParameters": [],
        }

    def reply(self, at: datetime | None) -> Reply:
        """Return the error as an answer."""
        return reply(self.status, self.as_object(at), at)


class NotAuthentic(Wrong):
    """The call is not by a key we hold, or not as it was sent: a counter is all that is kept."""


def status_of(category: object) -> int:
    """Return the HTTP status of an error of this category."""
    return _STATUSES.get(str(category), 400)


# -- addresses ------------------------------------------------------------------------------------


class Place(StrEnum):
    """What an address is about."""

    BILLS = "bills"
    PAYMENTS = "payments"
    PAYMENTS_WITHOUT_REFERENCE = "payments_without_reference"
    STATE = "state"
    RESPONSE = "response"
    HEARTBEAT = "heartbeat"


@dataclass(frozen=True, slots=True)
class Address:
    place: Place
    account: tuple[tuple[str, str], ...] = ()
    """Identifiers and their types."""
    named: str = ""
    """The bill's reference as given, or the correlation id."""


def read_address(path: str) -> Address:
    """Return what an address is about.

    Raises:
        Wrong: It is none of the published ones, or an account in it is not written as one.
    """
    match path.split("/"):
        case ["heartbeat"]:
            return Address(Place.HEARTBEAT)
        case ["requeststates", named]:
            return Address(Place.STATE, named=_uuid(named))
        case ["responses", named]:
            return Address(Place.RESPONSE, named=_uuid(named))
        case ["bills", named, "payments"]:
            return Address(Place.PAYMENTS, named=_reference(named))
        case ["accounts", kind, value, "bills"] if value != "bills":
            return Address(Place.BILLS, _single(kind, value))
        case ["accounts", account, "bills"]:
            return Address(Place.BILLS, _several(account))
        case ["accounts", account, "bills", "payments"]:
            return Address(Place.PAYMENTS_WITHOUT_REFERENCE, _several(account))
        case ["accounts", account, "bills", named, "payments"] if "@" in account:
            return Address(Place.PAYMENTS, _several(account), _reference(named))
        case ["accounts", kind, value, "bills", "payments"]:
            return Address(Place.PAYMENTS_WITHOUT_REFERENCE, _single(kind, value))
        case ["accounts", kind, value, "bills", named, "payments"]:
            return Address(Place.PAYMENTS, _single(kind, value), _reference(named))
    raise Wrong("identifierError", "There is no such resource.")


def _single(kind: str, value: str) -> tuple[tuple[str, str], ...]:
    if kind not in ACCOUNT_TYPES:
        raise Wrong("formatError", "The account's identifier is not of a published type.")
    if not value:
        raise Wrong("formatError", "The account's identifier is empty.")
    if len(value) > TEXT_MAX:
        raise Wrong("lengthError", f"An identifier has at most {TEXT_MAX} characters.")
    return ((kind, value),)


def _several(account: str) -> tuple[tuple[str, str], ...]:
    parts = account.split("$")
    if len(parts) > 3:
        raise Wrong("formatError", "An account has at most three identifiers.")
    pairs = [part.partition("@") for part in parts]
    return tuple(_single(kind, value)[0] for kind, _, value in pairs)


def _reference(named: str) -> str:
    if not named:
        raise Wrong("identifierError", "There is no such resource.")
    if len(named) > TEXT_MAX:
        raise Wrong("lengthError", f"A bill reference has at most {TEXT_MAX} characters.")
    return named


def _uuid(named: str) -> str:
    if not UUID.fullmatch(named):
        raise Wrong("formatError", "A correlation id is a UUID.")
    return named


def read_callback_url(given: str | None, *, live: bool) -> str | None:
    """Return where the outcome is wanted; https where real money is meant.

    Raises:
        Wrong: It is no plain address.
    """
    if not given:
        return None
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError:
        raise Wrong("formatError", "X-Callback-URL is not an address.") from None
    plain = all("!" <= c <= "~" for c in given)
    if len(given) > URL_MAX or not plain or "@" in parts.netloc or port == 0:
        raise Wrong("formatError", "X-Callback-URL is not a plain address.")
    if not _HOST.fullmatch(parts.hostname or ""):
        raise Wrong("formatError", "X-Callback-URL names no host.")
    if parts.scheme != "https" and (live or parts.scheme != "http"):
        raise Wrong("formatError", "X-Callback-URL is not https.")
    return given


def whose_bills(account: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """Return the reference, or else the CNSS number, that an account's identifiers name.

    Raises:
        Wrong: They name neither, or two things at once.
    """
    named = {value for kind, value in account if kind in OUR_ACCOUNT_TYPES}
    value = named.pop() if len(named) == 1 else ""
    if _CNSS_NUMBER.fullmatch(value):
        return "", value
    if read_reference(value) is not None:
        return value, ""
    raise Wrong(
        "identifierError",
        "An account is known here by accountid or consumerno: a CNSS number of nine digits, or the"
        " twelve digits of a bill's reference.",
    )


# -- pages of a list ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted."""

    limit: int
    offset: int
    since: datetime | None
    until: datetime | None


def read_page(query: Mapping[str, str]) -> Page:
    """Return which part of a list a query asks for; at most LIMIT_MAX at once.

    Raises:
        Wrong: It is not written as a number, or as an instant.
    """
    limit = _count(query, "limit", LIMIT, "formatError")
    if limit == 0:
        raise Wrong("formatError", "limit is a whole number above 0.")
    return Page(
        limit=min(limit, LIMIT_MAX),
        offset=_count(query, "offset", 0, "invalidOffset"),
        since=_moment(query, "fromDateTime"),
        until=_moment(query, "toDateTime"),
    )


def _count(query: Mapping[str, str], name: str, default: int, code: str) -> int:
    given = query.get(name)
    if given is None:
        return default
    if not _COUNT.fullmatch(given) or int(given) > _INT32_MAX:
        raise Wrong(code, f"{name} is a whole number below 2 147 483 648.")
    return int(given)


def _moment(query: Mapping[str, str], name: str) -> datetime | None:
    given = query.get(name)
    if given is None:
        return None
    try:
        # A plus sign that was not escaped arrives as a space.
        at = datetime.fromisoformat(given.replace(" ", "+"))
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise Wrong("formatError", f"{name} is an instant with its offset.")


# -- what we say ----------------------------------------------------------------------------------


def reply(status: int, said: object, at: datetime | None, **headers: str) -> Reply:
    """Return an answer; `X-Date` where an instant is known."""
    dated = {} if at is None else {"X-Date": instant(at)}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, as_json(said), headers={**dated, **named})


def reply_list(said: list[dict[str, Any]], available: int, at: datetime) -> Reply:
    """Return a part of a list, and of how many it is one."""
    headers = {
        "X_Records_Available_Count": str(available),
        "X_Records_Returned_Count": str(len(said)),
    }
    return reply(200, said, at, **headers)


def as_json(said: object) -> bytes:
    """Return the bytes of an object."""
    return json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()


def instant(at: datetime) -> str:
    """Return an instant as the specification writes it: `2026-11-18T11:06:40.000Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
