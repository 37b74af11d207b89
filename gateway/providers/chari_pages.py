"""Payment links of Chari Pay, by card or by cash at an agency: made, asked about, taken back.

Links are used, and not payment sessions: a session wants the payer's name, mail and telephone, a
link wants none of a person. Unverified: the words of a link's status.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from gateway.collection.reports import AttemptLapsed, PaymentReport, Statement
from gateway.errors import ProviderAway
from gateway.models import Channel, Manner
from gateway.money import CURRENCY, format_amount
from gateway.providers import PAGE_LIFE, Answer, MadePage, PageState, WantedPage
from gateway.providers.asking import (
    get_json,
    is_this_machine,
    is_trusted_address,
    origin_of,
    post_json,
)
from gateway.providers.chari import CHANNELS, Chari, ChariSettings
from gateway.providers.signed_events import (
    NotBookable,
    dirhams,
    in_dirhams,
    instant,
    text,
    unbookable,
)
from gateway.references import format_reference

PAGES_ORIGIN: Final = "https://pay.chari.ma"
CODE_LIFE: Final = timedelta(days=3)
"""How long a code for an agency takes a payment: what Chari gives where nothing is asked for."""
_LINK = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)
_CODE = re.compile(r"[!-~]{1,64}", re.ASCII)
_PAID: Final = frozenset({"PAID", "SUCCESS", "SUCCEEDED", "COMPLETED", "CONSUMED"})
_ENDED: Final = frozenset({"CANCELLED", "CANCELED", "EXPIRED"})


def make(name: str, values: Mapping[str, Any], *, live: bool, has_sibling: bool = False) -> Chari:
    """Return a provider of these settings (see `registry.KINDS`): with a key it makes links too."""
    settings = ChariSettings.model_validate(values)
    made = ChariPages if settings.api_key else Chari
    return made(name, settings, live=live, has_sibling=has_sibling)


class ChariPages(Chari):
    """One with a key: it makes links, and is asked about them."""

    asks: ClassVar[bool] = True

    @property
    def pages_origin(self) -> str:
        """Where its pages are."""
        own = self._settings.api_base if self._is_stand_in else PAGES_ORIGIN
        return origin_of(self._settings.pages_origin or own)

    @property
    def channel(self) -> Channel:
        """What a payer pays by there."""
        return CHANNELS[self._settings.method or "card"]

    @property
    def manner(self) -> Manner:
        """By card his browser goes to its page; for cash he says a code at an agency."""
        return Manner.TOKEN if self._settings.method == "cash" else Manner.PAGE

    @property
    def life(self) -> timedelta:
        """How long a link takes a payment."""
        return CODE_LIFE if self.manner is Manner.TOKEN else PAGE_LIFE

    @property
    def _is_stand_in(self) -> bool:
        return is_this_machine(self._settings.api_base)

    def make_page(self, wanted: WantedPage) -> MadePage:
        """Make a link for one payment, or find the one made before, by its `externalId`."""
        asked: dict[str, Any] = {
            "amount": None,
            "description": f"AMO {format_reference(wanted.reference)}",
            "singleUse": True,
            "paymentMethod": "CASH" if self.manner is Manner.TOKEN else "CARD",
            "expiresAt": _written(wanted.expires_at),
            "externalId": wanted.attempt_id,
            "metadata": {
                "invoice_ref": wanted.reference,
                "attempt_id": wanted.attempt_id,
                "method": self._settings.method or "card",
            },
        }
        back = {
            "acceptUrl": wanted.back,
            "declineUrl": wanted.left,
            "notificationUrl": wanted.notify_url,
        }
        # Chari takes https only; a stand-in is not so particular.
        asked |= {name: at for name, at in back.items() if at.startswith("https:")}
        if self._is_stand_in:
            asked |= back
        # As a JSON number, which Chari wants, and never as a float.
        amount = f'"amount": {format_amount(wanted.amount_minor)}'
        body = json.dumps(asked).replace('"amount": null', amount, 1).encode("ascii")
        own = {"Idempotency-Key": wanted.attempt_id, "X-Request-Id": wanted.attempt_id}
        made = post_json(f"{self._settings.api_base}/v1/payment-links", body, self._headers() | own)
        link, url, code = (text(made, name) for name in ("reference", "payUrl", "cashinCode"))
        if link is None or not _LINK.fullmatch(link):
            raise ProviderAway("it made a link without a reference")
        session_id = f"{link}/{wanted.attempt_id}/{wanted.reference}"
        expires_at = instant(text(made, "expiresAt"))
        if self.manner is Manner.TOKEN:
            if code is None or not _CODE.fullmatch(code):
                raise ProviderAway("it made a link for cash without a cashinCode")
            return MadePage(session_id, "", code=code, expires_at=expires_at)
        if url is None or not is_trusted_address(url) or origin_of(url) != self.pages_origin:
            # A browser would not follow a form of ours there.
            raise ProviderAway("its link has no payUrl, or one elsewhere: set pages_origin to that")
        return MadePage(session_id, url, expires_at=expires_at)

    def ask(self, session_id: str, *, received_at: datetime) -> Answer:
        """Return what became of a link (see PageProvider)."""
        link, own, reference = session_id.split("/")
        said = get_json(f"{self._settings.api_base}/v1/payment-links/{link}", self._headers())
        state = _state(said)
        source = f"inquiry:{self._name}/{link}"
        if state is PageState.CLOSED:
            return Answer(state, (AttemptLapsed(self._name, session_id, source),))
        if state is PageState.OPEN:
            return Answer(state, ())
        try:
            in_dirhams({"currency": CURRENCY, **said})
            amount_minor = dirhams(said.get("totalCollected", said.get("amount")))
        except NotBookable as error:
            return Answer(state, (unbookable(self._name, source, error, payment_id=own),))
        return Answer(
            state,
            (
                PaymentReport(
                    provider=self._name,
                    provider_payment_id=own,
                    statement=Statement.COMPLETED,
                    reference_given=reference,
                    amount_minor=amount_minor,
                    currency=CURRENCY,
                    channel=self.channel,
                    # It does not say when: we ask soon, and its event tells the time.
                    paid_at=received_at,
                    paid_at_given=None,
                    stated_at=received_at,
                    received_at=received_at,
                    source=source,
                    attempt_id=own,
                ),
            ),
        )

    def close_page(self, session_id: str) -> PageState:
        """Have a link take no payment any more (see PageProvider)."""
        link = session_id.partition("/")[0]
        address = f"{self._settings.api_base}/v1/payment-links/{link}"
        state = _state(get_json(address, self._headers()))
        if state is not PageState.OPEN:
            return state
        return _state(post_json(f"{address}/cancel", {}, self._headers()))

    def _headers(self) -> dict[str, str]:
        return {"X-CHARI-PAY-API-KEY": self._key}


def _state(said: Mapping[str, Any]) -> PageState:
    status = (text(said, "status") or "").upper()
    if status in _PAID or text(said, "useCount") not in {None, "0"}:
        return PageState.USED
    if status in _ENDED:
        return PageState.CLOSED
    if not status:
        raise ProviderAway("it does not say how its link stands")
    return PageState.OPEN


def _written(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
