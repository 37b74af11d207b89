"""Wallets that ask their holder on his phone, and tell us by callbacks that prove nothing.

In the manner of MTN MoMo's request to pay. We give the request its id, a UUID made of the
attempt's, so the same wish is refused as made before, and is known by that. The callback, which
is sent once, names the order; all that follows is that we ask, by our id. The payer's number goes
to the operator in the one call that asks him, and is kept nowhere.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, ClassVar

from pydantic import Field, SecretStr

from gateway.errors import ProviderRefused, Unusable
from gateway.money import CURRENCY, format_amount
from gateway.providers import MadePage, Manner, WantedPage
from gateway.providers.asking import DoneBefore, get_json, post_only
from gateway.providers.status_query import (
    Order,
    StatusQueryPages,
    StatusQuerySettings,
    Words,
    order_id_of,
)


class PushSettings(StatusQuerySettings):
    """Settings of the kind in the providers file, with `style = "push"`."""

    push_minutes: int = Field(10, ge=2, le=60)
    """For how long the operator waits for the payer's word."""
    subscription_key: SecretStr = SecretStr("")
    """Ours at an operator that wants a second one; sent as `Ocp-Apim-Subscription-Key`."""
    target_environment: str = Field("", pattern="^[!-~]{0,64}$")
    """What such an operator calls the country, or its trial."""


def make(name: str, values: Mapping[str, Any]) -> StatusQueryPush:
    """Return a provider of these settings (see gateway.providers.status_query)."""
    return StatusQueryPush(name, PushSettings.model_validate(values))


class StatusQueryPush(StatusQueryPages):
    """An operator that asks payers on their phones, and is asked what they said."""

    token_field: ClassVar[str] = "externalId"  # noqa: S105 - the name of a field
    words: ClassVar[Words] = Words("SUCCESSFUL", "PENDING", ("FAILED",))

    def __init__(self, name: str, settings: PushSettings) -> None:
        """Take the settings.

        Raises:
            Unusable: A setting means nothing, is missing, or would show the key to a network.
        """
        super().__init__(name, settings)
        if not settings.request_url:
            raise Unusable("request_url is missing: where payers are asked")
        self._life = timedelta(minutes=settings.push_minutes)
        also = {
            "Ocp-Apim-Subscription-Key": settings.subscription_key.get_secret_value(),
            "X-Target-Environment": settings.target_environment,
        }
        if not all(" " <= c <= "~" for value in also.values() for c in value):
            raise Unusable("subscription_key is not visible ASCII characters")
        self._headers = {name: value for name, value in also.items() if value}
        self._headers["Authorization"] = f"Bearer {self._key}"

    @property
    def pages_origin(self) -> str:
        """Nowhere: no browser goes there."""
        return ""

    @property
    def manner(self) -> Manner:
        """It asks on the phone."""
        return Manner.PUSH

    @property
    def life(self) -> timedelta:
        """How long it waits for the payer's word."""
        return self._life

    def foretell(self, wanted: WantedPage) -> MadePage:
        """Return the names that a wish has at the operator, whatever it answers."""
        order = _order_of(wanted)
        return MadePage(order.session_id, "", token=order.order_id)

    def make_page(self, wanted: WantedPage) -> MadePage:
        """Have the payer asked on his phone, once however often it is wished (see PageProvider)."""
        order = _order_of(wanted)
        if not wanted.phone:
            raise ProviderRefused("it asks on a phone, and there is no number")
        headers = {"X-Reference-Id": order.pay_token, "X-Callback-Url": wanted.notify_url}
        said = {
            "amount": format_amount(order.amount_minor),
            "currency": CURRENCY,
            "externalId": order.order_id,
            "payer": {"partyIdType": "MSISDN", "partyId": wanted.phone},
            "payerMessage": f"AMO {wanted.reference}",
            "payeeNote": f"AMO {wanted.reference}",
        }
        # If it was made before, he is asked already: our id is of this wish and no other.
        with suppress(DoneBefore):
            post_only(self._settings.request_url, said, {**self._headers, **headers})
        return self.foretell(wanted)

    def _status(self, order: Order) -> dict[str, Any]:
        said = get_json(f"{self._settings.status_url.rstrip('/')}/{order.pay_token}", self._headers)
        if said.get("externalId") != order.order_id:
            raise ProviderRefused("it answers for another order than it was asked about")
        return said


def _order_of(wanted: WantedPage) -> Order:
    return Order(order_id_of(wanted), wanted.amount_minor, request_id(wanted.attempt_id))


def request_id(attempt_id: str) -> str:
    """Return the UUID (version 4) that an attempt's random id is to the operator."""
    return str(uuid.UUID(hex=attempt_id.rpartition("_")[2], version=4))
