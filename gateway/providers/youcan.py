"""YouCan Pay: signed events of transactions, card pages, and codes for Cash Plus agencies.

The signature is over the body alone, by the private key, without a time: who has one can send it
again for ever. A transaction is booked once by its own id, and an event is known by the id that the
signed body bears, so that a replay changes nothing.

Known from public libraries and documentation. Unverified: which amount a refund's event states,
how long a code lives, how a transaction is asked about (so we are told and do not ask), any
recorded signature.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, SecretStr

from gateway.collection.reports import (
    NotAboutMoney,
    PaymentReport,
    Report,
    ReturnReport,
    Statement,
)
from gateway.errors import BadSignature, ProviderAway, Unusable
from gateway.models import Channel, ExceptionCode, Manner, ReturnKind, ReturnState
from gateway.money import CURRENCY
from gateway.providers import PAGE_LIFE, Answer, MadePage, PageState, WantedPage
from gateway.providers.asking import is_this_machine, is_trusted_address, origin_of, post_json
from gateway.providers.signed_events import (
    NotBookable,
    Unreadable,
    attempt_id,
    centimes,
    check_secrets,
    event_id,
    in_dirhams,
    instant,
    is_signed,
    member,
    read_object,
    shown_instant,
    text,
    unbookable,
    unsafe_secrets,
)

API_BASE: Final = "https://youcanpay.com/api"
SANDBOX_BASE: Final = "https://youcanpay.com/sandbox/api"
CODE_LIFE: Final = timedelta(days=3)
"""How long we show a code for an agency. What it is at Cash Plus is not public."""
SIGNATURE: Final = "x-youcanpay-signature"
_SANDBOX_KEY: Final = "pri_sandbox_"
_KEY = re.compile(r"[!-~]{1,250}", re.ASCII)
_TOKEN = re.compile(r"[0-9A-Za-z_-]{1,128}", re.ASCII)
MASKED: Final = "[masked]"
"""What stands for a name that is kept no longer."""
_ORDER = re.compile(r"([0-9]{12})-[0-9A-Za-z_-]{1,51}", re.ASCII)

_STATEMENTS: Final = {
    "transaction.paid": Statement.COMPLETED,
    # The payer may try again by the same token, and what is paid later is another transaction.
    "transaction.failed": Statement.DECLINED,
}


class YouCanSettings(BaseModel):
    """Settings of the kind in the providers file."""

    model_config = ConfigDict(extra="forbid")

    secrets: list[SecretStr] = []
    """Private keys that webhooks are signed by, beside `api_key`; several while one is rolled."""
    api_key: SecretStr | None = None
    """`pri_…`; without it deliveries are taken and no pages are made."""
    public_key: str = ""
    """`pub_…`; codes for agencies are asked for by it."""
    api_base: str = ""
    """Unset: YouCan Pay's own, of the mode of the key. A stand-in on this machine, for trials."""
    method: Literal["card", "cashplus"] | None = None
    """What is made. Where another entry of the same account has the other way, events of that are
    left to it."""


def make(name: str, values: Mapping[str, Any], *, live: bool, has_sibling: bool = False) -> YouCan:
    """Return a provider of these settings (see `registry.KINDS`): with a key it makes pages too."""
    settings = YouCanSettings.model_validate(values)
    made = YouCanPages if settings.api_key else YouCan
    return made(name, settings, live=live, has_sibling=has_sibling)


class YouCan:
    """A provider that speaks YouCan Pay's webhooks."""

    def __init__(
        self, name: str, settings: YouCanSettings, *, live: bool, has_sibling: bool = False
    ) -> None:
        """Take the settings. `live`: whether real money is meant, and not a trial.

        Args:
            name: Of the provider.
            settings: From the providers file.
            live: As above.
            has_sibling: Whether another entry of the same account books what is paid the other way.

        Raises:
            Unusable: A setting means nothing, or one is missing.
        """
        self._name = name
        self._live = live
        self._has_sibling = has_sibling
        self._settings = settings
        self._key = settings.api_key.get_secret_value() if settings.api_key else ""
        known = [*(each.get_secret_value() for each in settings.secrets), self._key]
        self._secrets = [each for each in dict.fromkeys(known) if each]
        check_secrets(self._secrets)
        if self._key and not _KEY.fullmatch(self._key):
            raise Unusable("api_key is not 1 to 250 visible ASCII characters")
        usual = SANDBOX_BASE if self._key.startswith(_SANDBOX_KEY) else API_BASE
        self._base = (settings.api_base or usual).rstrip("/")
        if not is_trusted_address(self._base):
            raise Unusable("api_base is not https://… (http only on this machine itself)")
        if self._key and settings.method == "cashplus" and not _KEY.fullmatch(settings.public_key):
            raise Unusable("codes for agencies need its public_key")

    @property
    def name(self) -> str:
        return self._name

    def unsafe_in_production(self) -> Sequence[str]:
        """Return what of the settings is good for trials only."""
        found = unsafe_secrets(self._secrets)
        if is_this_machine(self._base) or "/sandbox/" in self._base:
            found.append("api_base is a sandbox or a stand-in, which takes no real money")
        return found

    def authenticate(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> str:  # noqa: ARG002
        """Check the signature, and return the event's id as the signed body says it.

        Raises:
            BadSignature: The header is absent, or not by a key we hold.
        """
        given = headers.get(SIGNATURE, "")
        if not given:
            raise BadSignature("X-Youcanpay-Signature is absent")
        if not is_signed(body, [given], self._secrets):
            raise BadSignature("X-Youcanpay-Signature is not by a key we hold")
        return event_id(body, "id")

    def parse(
        self,
        body: bytes,
        *,
        delivery_id: str,
        received_at: datetime,
        path: str = "",  # noqa: ARG002
    ) -> Report:
        """Read an event (docs/formats.md lists the types)."""
        source = f"delivery:{self._name}/{delivery_id}"
        try:
            event = read_object(body)
            kind = text(event, "event_name")
            if kind is None:
                raise Unreadable("it has no event_name")
            if not kind.startswith("transaction."):
                return NotAboutMoney("its event_name is not transaction.…")
            payload = member(event.get("payload"), "payload")
            told = _Told(
                provider=self._name,
                kind=kind,
                what=member(payload.get("transaction"), "payload.transaction"),
                payload=payload,
                received_at=received_at,
                source=source,
                # Of two entries that hear the same event, exactly one must take it.
                usual="card" if self._has_sibling else self._settings.method or "card",
            )
            sandbox = event.get("sandbox")
            if not isinstance(sandbox, bool):
                raise Unreadable("its sandbox is not true or false")
        except Unreadable as error:
            return unbookable(self._name, source, error)
        if self._has_sibling and told.method != self._settings.method:
            return NotAboutMoney(f"it is paid by {told.method}: another entry takes it")
        return told.report(other_mode=sandbox is self._live)


@dataclass(frozen=True, slots=True)
class _Told:
    """An event about a transaction."""

    provider: str
    kind: str
    what: Mapping[str, Any]
    payload: Mapping[str, Any]
    received_at: datetime
    source: str
    usual: str
    """How it is paid if it does not say."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What we gave the transaction to keep."""
        kept = self.payload.get("metadata")
        return kept if isinstance(kept, dict) else {}

    @property
    def method(self) -> str:
        """How it is paid: by the name that it says.

        That name may have been masked since, and then a token, which is not, stands for Cash Plus.
        """
        way = self.payload.get("payment_method")
        way = way if isinstance(way, dict) else {}
        name = re.sub(r"[\s_-]", "", text(way, "name") or "").lower()
        if name and name != MASKED:
            return "cashplus" if "cashplus" in name else "card"
        return "cashplus" if text(way, "token") is not None else self.usual

    def report(self, *, other_mode: bool) -> Report:
        """Return what it says of money. Raises nothing for any content."""
        payment_id = text(self.what, "id")
        refunded = self.kind == "transaction.refunded"
        statement = _STATEMENTS.get(self.kind, Statement.PENDING)
        try:
            if payment_id is None:
                raise Unreadable("its transaction has no id")
            if other_mode:
                told = "it is of the other mode than this installation: test or real money"
                raise NotBookable(ExceptionCode.WRONG_MODE, told)
            in_dirhams(self.what)
            amount_minor = centimes(self.what.get("amount"))
            if refunded:
                return self._refund(payment_id)
            paid_at = self._paid_at()
            return PaymentReport(
                provider=self.provider,
                provider_payment_id=payment_id,
                statement=statement,
                reference_given=self._reference(),
                amount_minor=amount_minor,
                currency=CURRENCY,
                channel=Channel.CASH_AGENT if self.method == "cashplus" else Channel.CARD,
                paid_at=paid_at,
                paid_at_given=shown_instant(text(self.what, "paid_at", "created_at")),
                # A clock that runs ahead must not make it outrank those that follow it.
                stated_at=min(paid_at, self.received_at),
                received_at=self.received_at,
                source=self.source,
                attempt_id=attempt_id(self.metadata, "attempt_id"),
            )
        except (Unreadable, NotBookable) as error:
            return unbookable(
                self.provider,
                self.source,
                error,
                payment_id=payment_id,
                statement=Statement.COMPLETED if refunded else statement,
                stated=tuple(
                    str(self.what.get(name)) for name in ("amount", "currency", "order_id")
                ),
            )

    def _refund(self, payment_id: str) -> ReturnReport:
        """Return all that is refunded of a transaction.

        Raises:
            NotBookable: How much is not stated: its own amount may be of the payment.
        """
        part = self.what.get("refunded_amount")
        if part is None:
            told = "it does not state how much was refunded: book it by wasl refunds, or ask YouCan"
            raise NotBookable(ExceptionCode.INVALID_AMOUNT, told)
        return ReturnReport(
            provider=self.provider,
            provider_payment_id=payment_id,
            return_id=payment_id,
            kind=ReturnKind.REFUND_TOTAL,
            state=ReturnState.GIVEN,
            amount_minor=centimes(part),
            currency=CURRENCY,
            # The times of a transaction are of its payment.
            made_at=self.received_at,
            stated_at=self.received_at,
            received_at=self.received_at,
            source=self.source,
            timed_by_arrival=True,
        )

    def _reference(self) -> str:
        given = text(self.metadata, "invoice_ref") or text(self.what, "order_id") or ""
        of_attempt = _ORDER.fullmatch(given)
        return of_attempt[1] if of_attempt else given

    def _paid_at(self) -> datetime:
        """Return when it was paid. A code is made days before, and that day does not count."""
        names = ["paid_at"] if self.method == "cashplus" else ["paid_at", "created_at"]
        return instant(text(self.what, *names)) or self.received_at


class YouCanPages(YouCan):
    """One with a key: it makes card pages, or codes for agencies."""

    @property
    def pages_origin(self) -> str:
        """Where its pages are."""
        return origin_of(self._base)

    @property
    def channel(self) -> Channel:
        """What a payer pays by there."""
        return Channel.CASH_AGENT if self.manner is Manner.TOKEN else Channel.CARD

    @property
    def manner(self) -> Manner:
        """By card his browser goes to its page; for cash he says a code at an agency."""
        return Manner.TOKEN if self._settings.method == "cashplus" else Manner.PAGE

    @property
    def life(self) -> timedelta:
        """How long what it makes takes a payment."""
        return CODE_LIFE if self.manner is Manner.TOKEN else PAGE_LIFE

    def make_page(self, wanted: WantedPage) -> MadePage:
        """Make a token, and of it a page's address or a code. Asked again it makes another one: of
        one whose answer was lost nobody knows."""
        made = post_json(
            f"{self._base}/tokenize",
            {
                "pri_key": self._key,
                "order_id": f"{wanted.reference}-{wanted.attempt_id[-16:]}",
                "amount": wanted.amount_minor,
                "currency": CURRENCY,
                "success_url": wanted.back,
                "error_url": wanted.left,
                "metadata": {"invoice_ref": wanted.reference, "attempt_id": wanted.attempt_id},
            },
            {"Accept": "application/json"},
        )
        inner = made.get("token")
        token = text(inner, "id") if isinstance(inner, dict) else text(made, "token_id")
        if token is None or not _TOKEN.fullmatch(token):
            raise ProviderAway("it made a token without an id")
        if self.manner is Manner.PAGE:
            pages = self._base.removesuffix("/api")
            return MadePage(token, f"{pages}/payment-form/{token}?lang={wanted.language}")
        said = post_json(
            f"{self._base}/cashplus/init",
            {
                "pub_key": self._settings.public_key,
                "token_id": token,
                "payment_method": {"type": "cashplus"},
            },
            {"Accept": "application/json"},
        )
        code, transaction = text(said, "token"), text(said, "transaction_id")
        if code is None or not _TOKEN.fullmatch(code):
            raise ProviderAway("it made no code for an agency")
        return MadePage(transaction or token, "", code=code)

    def ask(self, session_id: str, *, received_at: datetime) -> Answer:  # noqa: ARG002
        """Return that it may still be paid by, and that we shall be told: nobody is asked."""
        return Answer(PageState.OPEN, ())

    def close_page(self, session_id: str) -> PageState:  # noqa: ARG002
        """Return that it may still be paid by: nobody can close it but time."""
        return PageState.OPEN
