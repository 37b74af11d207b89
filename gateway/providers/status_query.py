"""Providers whose callbacks prove nothing: each is a hint, upon which we ask for the status.

In the manner of Orange Money Web Payment. A callback bears no signature, amount or reference: it
shows a token that we were given with the page, and all that follows is that we ask. Only what the
status answer says of the very order and amount is booked. `style = "push"` is of operators that ask
the payer on his phone (gateway.providers.status_query_push).
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from gateway.collection.reports import (
    AttemptLapsed,
    NotAboutMoney,
    PaymentReport,
    Report,
    Statement,
    Unbookable,
)
from gateway.errors import ProviderAway, ProviderRefused, Unusable
from gateway.models import Channel, ExceptionCode
from gateway.money import CURRENCY, UnreadableAmount, format_amount, parse_amount
from gateway.providers import (
    PAGE_LIFE,
    Answer,
    MadePage,
    Manner,
    PageMadeBefore,
    PageState,
    WantedPage,
)
from gateway.providers.asking import (
    DoneBefore,
    is_this_machine,
    is_trusted_address,
    origin_of,
    post_json,
)
from gateway.providers.calls import (
    AnswerNow,
    Call,
    Found,
    Heed,
    Heeded,
    Reply,
    Want,
)
from gateway.wirejson import Number, UnreadableJson, read_json

ASKS_PER_MINUTE: Final = 120
"""What no operator's limit is likely to be below. A hundred lost callbacks are found in a minute,
and who sends us hints cannot make us a burden to the operator."""
SANDBOX_MARK: Final = "sandbox-"
"""How a key made by a sandbox begins."""
KEY_CHARS_MIN: Final = 16
"""Of a key that is not guessed."""

_KEY = re.compile(r"[!-~]{1,250}", re.ASCII)
_TOKEN = re.compile(r"[!-~]{1,256}", re.ASCII)
_ORDER_CHARS: Final = 16
"""Of the attempt's id, 64 random bits. With reference and hyphen 29: operators take 30."""


@dataclass(frozen=True, slots=True)
class Words:
    """How an operator says what became of an order. Any other word is of a payment on its way."""

    success: str = "SUCCESS"
    open: str = "INITIATED"
    lapsed: tuple[str, ...] = ("FAILED", "EXPIRED")

    def state_of(self, said: Mapping[str, Any]) -> PageState:
        """Return what a status means for the attempt."""
        status = said.get("status")
        if status in self.lapsed:
            return PageState.CLOSED
        return PageState.OPEN if status == self.open else PageState.USED


class StatusQuerySettings(BaseModel):
    """Settings of the kind in the providers file."""

    model_config = ConfigDict(extra="forbid")

    status_url: str
    """Where we ask what became of an order."""
    api_key: SecretStr
    """Ours at the operator, sent as a bearer."""
    request_url: str = ""
    """Where pages to pay on are asked for; without it there are none."""
    pages_origin: str = ""
    """Where those pages are, if not at `request_url`'s host."""
    asks_per_minute: int = Field(ASKS_PER_MINUTE, ge=1, le=10_000)
    """How often we ask at most."""
    style: Literal["page", "push"] = "page"
    """Whether the payer is led to a page, or asked on his phone."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a question is about. All of it is in an attempt's `session_id`."""

    order_id: str
    amount_minor: int
    pay_token: str

    @property
    def session_id(self) -> str:
        return f"{self.order_id}/{format_amount(self.amount_minor)}/{self.pay_token}"

    @classmethod
    def of(cls, session_id: str) -> Order:
        order_id, amount, pay_token = session_id.split("/", 2)
        return cls(order_id, parse_amount(amount), pay_token)


def make(name: str, values: Mapping[str, Any], *, live: bool) -> StatusQuery:  # noqa: ARG001
    """Return a provider of these settings (see `registry.KINDS`): with a request_url it makes
    pages too, or asks on phones."""
    if values.get("style") == "push":
        push = importlib.import_module("gateway.providers.status_query_push").make(name, values)
        assert isinstance(push, StatusQuery)
        return push
    settings = StatusQuerySettings.model_validate(values)
    return (StatusQueryPages if settings.request_url else StatusQuery)(name, settings)


class StatusQuery:
    """A provider of unsigned callbacks."""

    prefix: Final = "webhooks"
    token_field: ClassVar[str] = "notif_token"  # noqa: S105 - the name of a field
    """What a callback shows the token in."""
    words: ClassVar[Words] = Words()

    def __init__(self, name: str, settings: StatusQuerySettings) -> None:
        """Take the settings.

        Raises:
            Unusable: A setting means nothing, or would show the key to a network.
        """
        self._name = name
        self._settings = settings
        self._key = settings.api_key.get_secret_value()
        if not _KEY.fullmatch(self._key):
            raise Unusable("api_key is not 1 to 250 visible ASCII characters")
        for what in ("status_url", "request_url", "pages_origin"):
            address = getattr(settings, what)
            if (address or what == "status_url") and not is_trusted_address(address):
                raise Unusable(f"{what} is not https://… (http only on this machine itself)")

    @property
    def name(self) -> str:
        return self._name

    def unsafe_in_production(self) -> Sequence[str]:
        """Return what of the settings is good for trials only."""
        found = [
            f"{what} is of this machine: a stand-in"
            for what in ("status_url", "request_url")
            if is_this_machine(getattr(self._settings, what))
        ]
        if self._key.startswith(SANDBOX_MARK):
            found.append("api_key was made by a sandbox")
        elif len(self._key) < KEY_CHARS_MIN:
            found.append(f"api_key has less than {KEY_CHARS_MIN} characters")
        return found

    # -- hints ------------------------------------------------------------------------------------

    def read(self, call: Call) -> Want:
        """Return which attempt a callback wants us to ask about. Nothing it says is believed."""
        try:
            said = read_json(call.body)
        except UnreadableJson:
            return AnswerNow(_reply(400, "The callback is not JSON in UTF-8."), refused=True)
        token = said.get(self.token_field) if isinstance(said, dict) else None
        if not isinstance(token, str) or isinstance(token, Number) or not _TOKEN.fullmatch(token):
            sentence = f"The callback has no {self.token_field}."
            return AnswerNow(_reply(400, sentence), refused=True)
        # Named by what it is about: who varies the rest of a body leaves no more rows.
        status = said.get("status")
        final = (self.words.success, *self.words.lapsed)
        word = status if isinstance(status, str) and status in final else "OTHER"
        shown = hashlib.sha256(token.encode("ascii")).hexdigest()[:32]
        return Heed(f"hint-{shown}-{word}", token)

    def say(self, want: Want, found: Found) -> Reply:  # noqa: ARG002
        """Return the answer to a hint."""
        if isinstance(found, Heeded) and found.known:
            return _reply(202, "Heard.")
        return _reply(400, f"No payment has this {self.token_field}.")

    def say_again(self, first: Reply, *, same: bool) -> Reply:  # noqa: ARG002
        """Return the first answer."""
        return first

    def say_trouble(self) -> Reply:
        """Return the answer when we cannot note the hint now."""
        return Reply(
            503,
            b'{"detail": "The callback is not stored; send it again."}',
            headers={"Retry-After": "5"},
        )

    def say_unread(self, status: int) -> Reply:
        """Return the answer to a callback whose body was not taken."""
        return _reply(status, "The body is too large, was cut off, or did not come in time.")

    def parse(
        self,
        body: bytes,  # noqa: ARG002
        *,
        delivery_id: str,  # noqa: ARG002
        received_at: datetime,  # noqa: ARG002
        path: str = "",  # noqa: ARG002
    ) -> Report:
        """Return that a callback says nothing that can be booked."""
        return NotAboutMoney("an unsigned callback: only the status we ask for counts")


class StatusQueryPages(StatusQuery):
    """One that makes pages to pay on, and is asked about them."""

    @property
    def pages_origin(self) -> str:
        """Where its pages are."""
        return origin_of(self._settings.pages_origin or self._settings.request_url)

    @property
    def channel(self) -> Channel:
        """What a payer pays by there."""
        return Channel.WALLET

    @property
    def manner(self) -> Manner:
        """Its payers' browsers go to its pages."""
        return Manner.PAGE

    @property
    def life(self) -> timedelta:
        """How long a page takes a payment."""
        return PAGE_LIFE

    @property
    def asks_per_minute(self) -> int:
        """How often it may be asked."""
        return self._settings.asks_per_minute

    def make_page(self, wanted: WantedPage) -> MadePage:
        """Begin a payment at the operator (see PageProvider)."""
        order_id = order_id_of(wanted)
        try:
            made = self._post(
                self._settings.request_url,
                {
                    "order_id": order_id,
                    "reference": wanted.reference,
                    "amount": format_amount(wanted.amount_minor),
                    "currency": CURRENCY,
                    "lang": wanted.language,
                    "return_url": wanted.back,
                    "cancel_url": wanted.left,
                    "notif_url": wanted.notify_url,
                },
            )
        except DoneBefore:
            raise PageMadeBefore("the order exists, and its page was told before") from None
        pay_token, token, url = (
            made.get(each) for each in ("pay_token", "notif_token", "payment_url")
        )
        if not _is_token(pay_token) or not _is_token(token):
            raise ProviderAway("it began a payment without pay_token or notif_token")
        if not isinstance(url, str) or not is_trusted_address(url):
            raise ProviderAway("it began a payment without a payment_url, or one that is not https")
        if origin_of(url) != self.pages_origin:
            # A browser would not follow a form of ours there.
            raise ProviderAway(f"its pages are at {origin_of(url)}: set pages_origin to that")
        order = Order(order_id, wanted.amount_minor, str(pay_token))
        return MadePage(order.session_id, url, token=str(token))

    def ask(self, session_id: str, *, received_at: datetime) -> Answer:
        """Return what became of an order (see PageProvider)."""
        order = Order.of(session_id)
        said = self._status(order)
        state = self.words.state_of(said)
        reports: tuple[Report, ...] = ()
        if said.get("status") == self.words.success:
            reports = (self._paid(order, said, received_at),)
        elif state is PageState.CLOSED:
            reports = (AttemptLapsed(self._name, session_id, self._source(order)),)
        return Answer(state, reports, tells=False)

    def close_page(self, session_id: str) -> PageState:
        """Return how a page stands: nobody can close it but the payer, and time."""
        return self.words.state_of(self._status(Order.of(session_id)))

    def _status(self, order: Order) -> dict[str, Any]:
        said = self._post(
            self._settings.status_url,
            {
                "order_id": order.order_id,
                "amount": format_amount(order.amount_minor),
                "pay_token": order.pay_token,
            },
        )
        if said.get("order_id") != order.order_id:
            raise ProviderRefused("it answers for another order than it was asked about")
        return said

    def _paid(
        self, order: Order, said: Mapping[str, Any], received_at: datetime
    ) -> PaymentReport | Unbookable:
        """Return a payment as the status states it: of the amount we asked for, or of none."""
        reference = order.order_id.partition("-")[0]
        amount, currency = said.get("amount"), said.get("currency")
        wrong = None
        if currency not in (None, CURRENCY):
            wrong = (ExceptionCode.WRONG_CURRENCY, "the currency of the status is not MAD")
        elif amount is not None and _minor(amount) != order.amount_minor:
            wrong = (ExceptionCode.INVALID_AMOUNT, "the status states another amount than we asked")
        if wrong is not None:
            return Unbookable(
                provider=self._name,
                provider_payment_id=order.order_id,
                statement=Statement.COMPLETED,
                code=wrong[0],
                reason=wrong[1],
                source=self._source(order),
                stated=(str(amount), str(currency), reference),
            )
        paid_at = _instant(said.get("paid_at")) or received_at
        return PaymentReport(
            provider=self._name,
            # An order is paid once, whatever transactions the operator makes of it.
            provider_payment_id=order.order_id,
            statement=Statement.COMPLETED,
            reference_given=reference,
            amount_minor=order.amount_minor,
            currency=CURRENCY,
            channel=Channel.WALLET,
            paid_at=paid_at,
            paid_at_given=None,
            stated_at=min(paid_at, received_at),
            received_at=received_at,
            source=self._source(order),
        )

    def _source(self, order: Order) -> str:
        return f"inquiry:{self._name}/{order.order_id}"

    def _post(self, url: str, said: Mapping[str, Any]) -> dict[str, Any]:
        return post_json(url, said, {"Authorization": f"Bearer {self._key}"})


def order_id_of(wanted: WantedPage) -> str:
    """Return how an order is called at the operator: by what it pays, and by the attempt."""
    return f"{wanted.reference}-{wanted.attempt_id[-_ORDER_CHARS:]}"


def _reply(status: int, sentence: str) -> Reply:
    return Reply(status, f'{{"detail": "{sentence}"}}'.encode())


def _is_token(value: object) -> bool:
    return (
        isinstance(value, str) and not isinstance(value, Number) and bool(_TOKEN.fullmatch(value))
    )


def _minor(value: object) -> int | None:
    """Return an amount, a decimal string or a JSON number as it was written; None: it is none."""
    try:
        return parse_amount(value) if isinstance(value, str) else None
    except UnreadableAmount:
        return None


def _instant(value: object) -> datetime | None:
    """Return an instant in UTC; without an offset it would be a guess."""
    try:
        instant = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if instant is None or instant.tzinfo is None or not 2000 <= instant.year < 2100:
        return None
    return instant.astimezone(UTC)
