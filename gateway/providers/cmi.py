"""CMI's card page (NestPay, HASH ver3): the form that leads there, and the callbacks that ask us.

A card is only reserved when a callback comes; our answer decides whether it is captured, so what
does not fit is declined and costs the payer nothing. The hash covers the values in the order of
their names and not the names, and every payer sees forms signed by our key: nothing that we sign
may read as an acceptance, which is the value `00`.

Known from public integrations of several authors and one hash recorded from a Turkish bank on the
same software. Unverified: who acquires for a public body in 2026, and any Moroccan signature.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr

from gateway.clock import INSTITUTION_ZONE
from gateway.collection.reports import PaymentReport, Report, Statement, Terms, Unbookable
from gateway.errors import ProviderRefused, Unusable
from gateway.models import Channel, ExceptionCode
from gateway.money import CURRENCY, UnreadableAmount, format_amount, parse_amount
from gateway.providers import PAGE_LIFE, Answer, MadePage, Manner, PageState, WantedPage
from gateway.providers.asking import is_trusted_address, origin_of
from gateway.providers.calls import (
    AnswerNow,
    Call,
    Found,
    Reply,
    Taken,
    TakePayment,
    Verdict,
    Want,
)
from gateway.providers.nestpay import Fields, as_hashed, ver3

TEST_BASE: Final = "https://testpayment.cmi.co.ma"
"""CMI's test gateway. There is no default for real money: who runs it must be known."""
PAGE_PATH: Final = "/fim/est3Dgate"
DIRHAM: Final = "504"
"""Of ISO 4217."""
ACCEPTED: Final = "00"
OID_CHARS_MAX: Final = 64
FIELDS_MAX: Final = 200
NAME_CHARS_MAX: Final = 64
"""Real forms have some fifty fields of forty characters; names are compared before we know whose
they are."""

SANDBOX_MARK: Final = "sandbox-"
"""How a store key made by a sandbox begins."""
STORE_KEY_CHARS_MIN: Final = 12
"""In production. Whoever opens a card page holds a form signed by the key, and can try keys."""

_HERE: Final = frozenset({"127.0.0.1", "::1", "localhost"})

_CLIENT_ID = re.compile(r"[0-9A-Za-z_-]{1,40}", re.ASCII)
_TRIAL_KEY = re.compile(r"(?i:test|sandbox|wasl-sandbox|skey|123456)")
_PLAIN = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)
_VISIBLE = re.compile(r"[!-~]{1,64}", re.ASCII)
_OID = re.compile(r"([0-9]{12})-[0-9A-Za-z_-]{1,51}", re.ASCII)
_LOCAL_TIME = re.compile(r"[0-9]{8} [0-9]{2}:[0-9]{2}:[0-9]{2}", re.ASCII)


class CmiSettings(BaseModel):
    """Settings of the kind in the providers file."""

    model_config = ConfigDict(extra="forbid")

    client_id: str
    """The merchant's number at the acquirer."""
    store_key: SecretStr
    """What both sides sign by; set in the acquirer's back office."""
    api_base: str = TEST_BASE
    """`https://host` of whoever runs the card page; http on this machine itself, for trials."""


def make(name: str, values: Mapping[str, Any], *, live: bool) -> Cmi:  # noqa: ARG001
    """Return a provider of these settings (see `registry.KINDS`)."""
    return Cmi(name, CmiSettings.model_validate(values))


class Cmi:
    """A provider that speaks NestPay: an AnsweringProvider and a PageProvider."""

    prefix: Final = "webhooks"

    def __init__(self, name: str, settings: CmiSettings) -> None:
        """Take the settings.

        Raises:
            Unusable: One of them means nothing.
        """
        self._name = name
        self._client_id = settings.client_id
        self._store_key = settings.store_key.get_secret_value()
        self._base = settings.api_base.rstrip("/")
        if not _CLIENT_ID.fullmatch(self._client_id):
            raise Unusable("client_id is not 1 to 40 letters, digits, hyphens or underscores")
        if not 1 <= len(self._store_key) <= 256 or self._store_key != self._store_key.strip():
            raise Unusable("store_key is not 1 to 256 characters without spaces around them")
        if not is_trusted_address(self._base) or self._base != origin_of(self._base):
            raise Unusable("api_base is not https://host (http only on this machine itself)")

    @property
    def name(self) -> str:
        return self._name

    def unsafe_in_production(self) -> Sequence[str]:
        """Return what of the settings is good for trials only."""
        found = []
        host = urlsplit(self._base).hostname or ""
        if self._base == TEST_BASE or host.startswith("test") or host in _HERE:
            found.append("api_base is a test gateway or a stand-in, which takes no real money")
        if _TRIAL_KEY.match(self._store_key):
            found.append("store_key was made for trials or published")
        elif len(self._store_key) < STORE_KEY_CHARS_MIN:
            found.append(f"store_key has fewer than {STORE_KEY_CHARS_MIN} characters")
        return found

    # -- callbacks --------------------------------------------------------------------------------

    def read(self, call: Call) -> Want:
        """Return what a callback wants, or FAILURE for what we did not sign together."""
        try:
            fields = read_form(call.body)
        except _Unreadable:
            return AnswerNow(FAILURE, refused=True)
        if not self._is_signed(fields):
            return AnswerNow(FAILURE, refused=True)
        told = dict(fields)
        delivery_id = _delivery_id(told, call.body)
        report = self._told(told, delivery_id, call.received_at)
        oid = told.get("oid", "")
        page_id = oid if _PLAIN.fullmatch(oid) else None
        return TakePayment(delivery_id, report, page_id=page_id, declinable=True)

    def say(self, want: Want, found: Found) -> Reply:
        """Return the word that captures, for an acceptance that is in the books; else no capture.

        What is booked counts only for an acceptance: a decline that comes late, of a payment that
        was booked before, captures nothing.
        """
        assert isinstance(want, TakePayment)
        assert isinstance(found, Taken)
        report = want.report
        accepted = isinstance(report, PaymentReport) and report.statement is Statement.COMPLETED
        return CAPTURE if accepted and found.verdict is Verdict.BOOKED else ACKNOWLEDGED

    def say_again(self, first: Reply, *, same: bool) -> Reply:
        """Return the first answer; no capture for what says something else under its id."""
        return first if same else ACKNOWLEDGED

    def say_trouble(self) -> Reply:
        """Return the word after which CMI sends the callback again."""
        return FAILURE

    def say_unread(self, status: int) -> Reply:  # noqa: ARG002
        """Return the word for what is not authentic: what was not read cannot be."""
        return FAILURE

    def parse(
        self,
        body: bytes,
        *,
        delivery_id: str,
        received_at: datetime,
        path: str = "",  # noqa: ARG002
    ) -> Report:
        """Return what an authentic callback says (docs/formats.md lists the fields)."""
        try:
            fields = read_form(body)
        except _Unreadable as error:
            return Unbookable(
                provider=self._name,
                provider_payment_id=None,
                statement=Statement.COMPLETED,
                code=ExceptionCode.UNREADABLE_DELIVERY,
                reason=str(error),
                source=f"delivery:{self._name}/{delivery_id}",
            )
        return self._told(dict(fields), delivery_id, received_at)

    def _is_signed(self, fields: Fields) -> bool:
        """Say whether the one HASH of a form is by our key."""
        given = [value for name, value in fields if name.lower() == "hash"]
        if len(given) != 1:
            return False
        signed = [(name, as_hashed(value)) for name, value in fields]
        return hmac.compare_digest(ver3(signed, self._store_key).encode(), given[0].encode())

    def _told(
        self, told: Mapping[str, str], delivery_id: str, received_at: datetime
    ) -> PaymentReport | Unbookable:
        """Return what a callback says of a payment. `Response` decides nothing."""
        accepted = told.get("ProcReturnCode") == ACCEPTED
        statement = Statement.COMPLETED if accepted else Statement.DECLINED
        source = f"delivery:{self._name}/{delivery_id}"
        named = told.get("TransId", "")
        given = told.get("EXTRA.TRXDATE", "")
        # Where it says no time, the payer is at the page as it is told.
        paid_at = _instant(given) if given else received_at
        try:
            return PaymentReport(
                provider=self._name,
                provider_payment_id=_visible(named, "TransId"),
                statement=statement,
                reference_given=self._reference(told),
                amount_minor=_amount(told),
                currency=CURRENCY,
                channel=Channel.CARD,
                paid_at=paid_at,
                paid_at_given=given if _LOCAL_TIME.fullmatch(given) else None,
                # A clock that runs ahead must not make this statement outrank those that follow it.
                stated_at=min(paid_at or received_at, received_at),
                received_at=received_at,
                source=source,
                terms=Terms.ALL_DUE,
            )
        except _Unbookable as error:
            return Unbookable(
                provider=self._name,
                provider_payment_id=named if _VISIBLE.fullmatch(named) else None,
                statement=statement,
                code=error.code,
                reason=str(error),
                source=source,
                stated=tuple(told.get(each, "") for each in ("amount", "currency", "oid")),
            )

    def _reference(self, told: Mapping[str, str]) -> str:
        """Return the reference in an `oid`, which is one, or one and the short name of an attempt.

        Raises:
            _Unbookable: There is none, or it is about another merchant's payment.
        """
        oid = _visible(told.get("oid", ""), "oid")
        if told.get("clientid", self._client_id) != self._client_id:
            raise _Unbookable(ExceptionCode.UNREADABLE_DELIVERY, "its clientid is not ours")
        of_attempt = _OID.fullmatch(oid)
        return of_attempt[1] if of_attempt else oid

    # -- pages ------------------------------------------------------------------------------------

    @property
    def pages_origin(self) -> str:
        """Where the card page is."""
        return self._base

    @property
    def channel(self) -> Channel:
        """What a payer pays by there."""
        return Channel.CARD

    @property
    def manner(self) -> Manner:
        """Its payers' browsers go to its pages."""
        return Manner.PAGE

    @property
    def life(self) -> timedelta:
        """How long a page takes a payment."""
        return PAGE_LIFE

    def make_page(self, wanted: WantedPage) -> MadePage:
        """Return the form that leads to the card page. Asks nobody; equal wishes, equal forms.

        Nothing in it is about a person: the payer's browser and the bank see a reference, an
        amount and our addresses.

        Raises:
            ProviderRefused: The wish names no address for the callback.
        """
        if not wanted.notify_url:
            raise ProviderRefused("the card page needs an address for its callback")
        # The end of the attempt's id is enough to tell the attempts of one reference apart.
        oid = f"{wanted.reference}-{wanted.attempt_id.rpartition('_')[2][-16:]}"[:OID_CHARS_MAX]
        fields = [
            ("clientid", self._client_id),
            ("oid", oid),
            ("amount", format_amount(wanted.amount_minor)),
            ("currency", DIRHAM),
            ("TranType", "PreAuth"),
            ("storetype", "3D_PAY_HOSTING"),
            ("okUrl", wanted.back),
            ("failUrl", wanted.left),
            ("shopurl", wanted.left),
            ("callbackUrl", wanted.notify_url),
            ("CallbackResponse", "true"),
            ("AutoRedirect", "true"),
            ("refreshtime", "5"),
            ("lang", wanted.language),
            ("encoding", "UTF-8"),
            ("hashAlgorithm", "ver3"),
            ("rnd", hashlib.sha256(f"rnd|{wanted.attempt_id}".encode()).hexdigest()[:20]),
        ]
        signed = (*fields, ("HASH", ver3(fields, self._store_key)))
        return MadePage(session_id=oid, url=f"{self._base}{PAGE_PATH}", fields=signed)

    def ask(self, session_id: str, *, received_at: datetime) -> Answer:  # noqa: ARG002
        """Return that a page may still be paid by, and that we shall be told: nobody is asked.

        The status query of NestPay needs an account of its own. Nor is it needed: nothing is
        captured without our answer, so what came of a page is in our books already.
        """
        return Answer(PageState.OPEN, ())

    def close_page(self, session_id: str) -> PageState:  # noqa: ARG002
        """Return that nothing is taken by it unless we say so again: it can be left.

        The bank goes on showing it. Who pays on it after all is asked about by a callback, and
        what is due then decides.
        """
        return PageState.CLOSED


def _said(word: str) -> Reply:
    return Reply(200, word.encode(), "text/plain")


FAILURE: Final = _said("FAILURE")
"""Not authentic, or we cannot decide now: CMI sends it again."""
ACKNOWLEDGED: Final = _said("APPROVED")
"""Heard, and nothing is captured: the reservation of a card lapses by itself."""
CAPTURE: Final = _said("ACTION=POSTAUTH")
"""The payment is in our books: the bank captures it."""


# -- reading --------------------------------------------------------------------------------------


class _Unreadable(Exception):
    """The body is no form of CMI's. The text holds nothing of it."""


class _Unbookable(Exception):
    def __init__(self, code: ExceptionCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def read_form(body: bytes) -> Fields:
    """Return the fields of a form in the order they were posted.

    Raises:
        _Unreadable: It is not UTF-8, has too many or too long names, or one of them twice.
    """
    try:
        text = body.decode("utf-8")
        fields = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)
    except ValueError:
        raise _Unreadable(f"it is no form in UTF-8 of at most {FIELDS_MAX} fields") from None
    if any(len(name) > NAME_CHARS_MAX for name, _ in fields):
        raise _Unreadable(f"a field's name has more than {NAME_CHARS_MAX} characters")
    if len({name for name, _ in fields}) != len(fields):
        raise _Unreadable("a field is given twice")
    return fields


def _delivery_id(told: Mapping[str, str], body: bytes) -> str:
    """Return what CMI repeats of a callback that it sends again; else it is known by its bytes."""
    parts = [told.get(each, "") for each in ("oid", "TransId", "ProcReturnCode")]
    if all(_PLAIN.fullmatch(part) for part in parts):
        return ".".join(parts)
    return f"sha256_{hashlib.sha256(body).hexdigest()}"


def _visible(text: str, what: str) -> str:
    if not _VISIBLE.fullmatch(text):
        reason = f"its {what} is absent, or not 1 to 64 visible ASCII characters"
        raise _Unbookable(ExceptionCode.UNREADABLE_DELIVERY, reason)
    return text


def _amount(told: Mapping[str, str]) -> int:
    if told.get("currency") != DIRHAM:
        raise _Unbookable(ExceptionCode.WRONG_CURRENCY, f"the currency is not {DIRHAM}")
    try:
        amount_minor = parse_amount(told.get("amount", ""))
    except UnreadableAmount as error:
        raise _Unbookable(ExceptionCode.INVALID_AMOUNT, str(error)) from None
    if amount_minor <= 0:
        raise _Unbookable(ExceptionCode.INVALID_AMOUNT, "the amount is not positive")
    return amount_minor


def _instant(text: str) -> datetime | None:
    """Return the instant of `20261120 17:42:33`, as a clock in Casablanca shows it; else None."""
    if not _LOCAL_TIME.fullmatch(text):
        return None
    try:
        local = datetime.strptime(text, "%Y%m%d %H:%M:%S").replace(tzinfo=INSTITUTION_ZONE)
    except ValueError:
        return None
    return local.astimezone(UTC) if 2000 <= local.year < 2100 else None
