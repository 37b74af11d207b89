"""What dialects with hexadecimal signatures share: verifying, and reading as written. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from gateway.collection.reports import Statement, Unbookable
from gateway.errors import Unusable
from gateway.models import ExceptionCode
from gateway.money import AMOUNT_MINOR_MAX, CURRENCY, UnreadableAmount, parse_amount
from gateway.wirejson import Number, UnreadableJson, is_storable, read_json

TEXT_MAX: Final = 256
SANDBOX_MARK: Final = "sandbox-"
"""How a secret made by a sandbox begins, or goes on after what its kind begins with."""
SECRET_CHARS_MIN: Final = 12
"""In production."""
_SECRET: Final = re.compile(r"[!-~]{1,256}", re.ASCII)
_ID: Final = re.compile(r"[!-~]{1,256}", re.ASCII)
_WHOLE: Final = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)
_LIKE_AN_INSTANT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[0-9T :.+Z-]{0,25}", re.ASCII)
_ATTEMPT: Final = re.compile(r"wasl_[0-9a-f]{32}", re.ASCII)

Said = Mapping[str, Any]


class Unreadable(Exception):
    """It is no event that can be understood. The text holds nothing of a person."""


class NotBookable(Exception):
    def __init__(self, code: ExceptionCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def check_secrets(secrets: Sequence[str]) -> None:
    """Refuse secrets that cannot be any.

    Raises:
        Unusable: There is none, or one is not visible ASCII without spaces.
    """
    if not secrets:
        raise Unusable("it has no secrets: give what its webhooks are signed by")
    if not all(_SECRET.fullmatch(secret) for secret in secrets):
        raise Unusable("a secret is not 1 to 256 visible ASCII characters without spaces")


def unsafe_secrets(secrets: Iterable[str]) -> list[str]:
    """Return what of secrets is good for trials only."""
    found = []
    known = list(secrets)
    if any(mark in each.lower() for each in known for mark in ("sandbox", "_test_")):
        found.append("a secret was made for a sandbox or published")
    elif any(len(each) < SECRET_CHARS_MIN for each in known):
        found.append(f"a secret has fewer than {SECRET_CHARS_MIN} characters")
    return found


def is_signed(signed: bytes, given: Iterable[str], secrets: Iterable[str]) -> bool:
    """Say whether one of the signatures given is the lower-case hexadecimal HMAC-SHA256 by one of
    the secrets. Every pair is compared, so that the time taken does not tell which one it was."""
    ours = [
        hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode() for secret in secrets
    ]
    shown = [each.encode("utf-8", "surrogatepass") for each in given if each]
    found = [hmac.compare_digest(one, other) for one in ours for other in shown]
    return any(found)


def event_id(body: bytes, name: str) -> str:
    """Return the event's own id, which is signed as a header is not; or one made of the bytes."""
    try:
        said = read_json(body)
    except UnreadableJson:
        said = None
    named = said.get(name) if isinstance(said, dict) else None
    if isinstance(named, str) and not isinstance(named, Number) and _ID.fullmatch(named):
        return named
    return f"sha256_{hashlib.sha256(body).hexdigest()}"


def read_object(body: bytes) -> dict[str, Any]:
    """Return the object of a body.

    Raises:
        Unreadable: It is none, or says something twice.
    """
    try:
        return member(read_json(body, keys_once=True), "the body")
    except UnreadableJson as error:
        raise Unreadable(str(error)) from None


def member(value: object, what: str) -> dict[str, Any]:
    """Return an object.

    Raises:
        Unreadable: It is none.
    """
    if not isinstance(value, dict):
        raise Unreadable(f"{what} is not an object")
    return value


def text(said: Said, *names: str) -> str | None:
    """Return the first of these that is a text, or a whole number as it was written; or None."""
    for name in names:
        value = said.get(name)
        if not isinstance(value, str) or not 1 <= len(value) <= TEXT_MAX or not is_storable(value):
            continue
        if isinstance(value, Number) and not _WHOLE.fullmatch(value):
            continue
        return str(value)
    return None


def attempt_id(said: Said, *names: str) -> str | None:
    """Return our own id of an attempt, where one of these is one."""
    for name in names:
        found = text(said, name)
        if found is not None and _ATTEMPT.fullmatch(found):
            return found
    return None


def instant(written: str | None) -> datetime | None:
    """Return an instant of this century in UTC; without an offset it would be a guess: None."""
    try:
        at = datetime.fromisoformat(written or "")
    except ValueError:
        return None
    if at.tzinfo is None or not 2000 <= at.year < 2100:
        return None
    return at.astimezone(UTC)


def shown_instant(written: str | None) -> str | None:
    """Return what was written if it looks like an instant at all: for the person who decides."""
    return written if written and _LIKE_AN_INSTANT.fullmatch(written) else None


def in_dirhams(said: Said) -> None:
    """Refuse another currency.

    Raises:
        NotBookable: It is not MAD.
    """
    if said.get("currency") != CURRENCY:
        raise NotBookable(ExceptionCode.WRONG_CURRENCY, "the currency is not MAD")


def dirhams(value: object) -> int:
    """Return the centimes of an amount in dirhams: a number or a text, as it was written.

    Raises:
        NotBookable: It is no positive amount with at most two decimals.
    """
    try:
        minor = parse_amount(value) if isinstance(value, str) else 0
    except UnreadableAmount as error:
        raise NotBookable(ExceptionCode.INVALID_AMOUNT, str(error)) from None
    if minor <= 0:
        raise NotBookable(ExceptionCode.INVALID_AMOUNT, "the amount is not positive")
    return minor


def centimes(value: object) -> int:
    """Return an amount in centimes: a whole number or its text, as it was written.

    Raises:
        NotBookable: It is none, or out of bounds.
    """
    if not isinstance(value, str) or not _WHOLE.fullmatch(value):
        raise NotBookable(ExceptionCode.INVALID_AMOUNT, "the amount is not a whole number")
    if not 1 <= int(value) <= AMOUNT_MINOR_MAX:
        raise NotBookable(ExceptionCode.INVALID_AMOUNT, "the amount is out of bounds")
    return int(value)


def unbookable(
    provider: str,
    source: str,
    error: Unreadable | NotBookable,
    *,
    payment_id: str | None = None,
    statement: Statement = Statement.COMPLETED,
    stated: tuple[str, ...] = (),
) -> Unbookable:
    """Return what a person must look at."""
    code = error.code if isinstance(error, NotBookable) else ExceptionCode.UNREADABLE_DELIVERY
    return Unbookable(
        provider=provider,
        provider_payment_id=payment_id,
        statement=statement,
        code=code,
        reason=str(error),
        source=source,
        stated=stated,
    )
