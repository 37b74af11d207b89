"""Asking Stripe: pages to pay by card (Checkout), what became of them, what was refunded.

By Stripe's own client, whose answers are read from their bytes as deliveries are. A client is made
for each question: nothing is shared between threads, and no connection is left to go stale.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import stripe

from gateway.collection.reports import AttemptLapsed, NotAboutMoney, Report, ReturnReport
from gateway.errors import ProviderAway, ProviderRefused
from gateway.models import Channel
from gateway.money import CURRENCY
from gateway.providers import (
    PAGE_LIFE,
    Answer,
    MadePage,
    Manner,
    PageFailed,
    PageState,
    WantedPage,
)
from gateway.providers.asking import is_trusted_address
from gateway.providers.refunding import WantedRefund
from gateway.providers.stripe import API_BASE, PAGES_ORIGIN, Stripe, StripeSettings
from gateway.providers.stripe_events import REFUND_TOKEN, Told, stated, text
from gateway.references import format_reference
from gateway.wirejson import UnreadableJson, read_json

CONNECT_SECONDS_MAX: Final = 3.0
READ_SECONDS_MAX: Final = 7.0
RETRIES_MAX: Final = 1
CALL_SECONDS_MAX: Final = 12.0
"""For one question with all its tries: the client bounds each silence, and not their sum."""
SLOW_SECONDS: Final = 3.0
AWAY_SECONDS: Final = 30.0
"""For how long nobody else waits for a Stripe that kept one waiting so long and did not answer."""
KEY_IN_USE_SECONDS_MAX: Final = 6.0
KEY_IN_USE_PAUSE_SECONDS: Final = 0.4
REFUNDS_MAX: Final = 100

# Its debug lines hold whole answers, and so whatever the payer typed there.
logging.getLogger("stripe").setLevel(logging.WARNING)

_LOCALES: Final = {"fr": "fr"}
"""Checkout speaks no Arabic: then the payer's browser chooses."""

_STATES: Final = {
    "open": PageState.OPEN,
    "complete": PageState.USED,
    "expired": PageState.CLOSED,
}

_UNPAID: Final = {
    "processing": "payment_intent.processing",
    "requires_payment_method": "payment_intent.payment_failed",
    "canceled": "payment_intent.canceled",
    "succeeded": "payment_intent.succeeded",
}
"""The event that tells of a payment that stands so."""

Call = Callable[[stripe.StripeClient], Any]


class KeyInUse(ProviderAway):
    """Somebody else, by a second click, is asking the same at this moment."""


def make(name: str, values: Mapping[str, Any], *, live: bool) -> Stripe:
    """Return a provider of these settings (see `registry.KINDS`): with a key it makes pages too."""
    settings = StripeSettings.model_validate(values)
    return (StripePages if settings.api_key else Stripe)(name, settings, live=live)


class StripePages(Stripe):
    """Stripe with a key to ask it by."""

    def __init__(self, name: str, settings: StripeSettings, *, live: bool) -> None:
        """Take the settings, an api_key among them. Raises what Stripe raises."""
        super().__init__(name, settings, live=live)
        assert settings.api_key is not None
        self._key = settings.api_key
        own = PAGES_ORIGIN if settings.api_base == API_BASE else settings.api_base
        self._origin = _origin(settings.pages_origin or own)
        self._away_until = 0.0

    @property
    def pages_origin(self) -> str:
        """Where its pages are."""
        return self._origin

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
        """Make a Checkout page for one payment, or find the one made before (see PageProvider)."""
        options: Any = {"idempotency_key": wanted.attempt_id}
        until = time.monotonic() + KEY_IN_USE_SECONDS_MAX
        while True:
            try:
                made = self._said(lambda c: c.v1.checkout.sessions.create(_wish(wanted), options))
                break
            except KeyInUse:
                # The other one's answer will be ours.
                if time.monotonic() > until:
                    raise
                time.sleep(KEY_IN_USE_PAUSE_SECONDS)
        session_id, url = text(made, "id"), made.get("url")
        if session_id is None or not isinstance(url, str) or not is_trusted_address(url):
            raise ProviderAway("it made a page without an id, or an address that is not https")
        if _origin(url) != self._origin:
            # A browser would not follow a form of ours there.
            raise ProviderAway(f"its pages are at {_origin(url)}: set pages_origin to that")
        return MadePage(session_id, url)

    def ask(self, session_id: str, *, received_at: datetime) -> Answer:
        """Return what became of a page, by its payment where it has one (see PageProvider)."""
        session = self._session(session_id)
        state = _state(session)
        source = f"inquiry:{self.name}/{session_id}"
        lapsed = AttemptLapsed(self.name, session_id, source)
        if state is PageState.CLOSED:
            return Answer(state, (lapsed,))
        payment_id = text(session, "payment_intent")
        if state is PageState.OPEN or payment_id is None:
            return Answer(state, ())
        status, reports = self.ask_payment(payment_id, received_at=received_at, source=source)
        if status in {"requires_payment_method", "canceled"}:
            return Answer(PageState.CLOSED, (*reports, lapsed))
        return Answer(state, reports)

    def ask_payment(
        self, payment_id: str, *, received_at: datetime, source: str
    ) -> tuple[str, tuple[Report, ...]]:
        """Return a payment intent's status, and what it and its refunds mean for the books.

        Raises:
            ProviderAway, ProviderRefused: As for a page.
        """
        expanded: Any = {"expand": ["latest_charge"]}
        intent = self._said(lambda c: c.v1.payment_intents.retrieve(payment_id, expanded))
        charge = intent.get("latest_charge")
        charge = charge if isinstance(charge, dict) else {}
        paid_at = stated(charge.get("created") or intent.get("created"), received_at)

        def told(kind: str, what: Mapping[str, Any], at: datetime) -> Report:
            said = Told(self.name, kind, what, at, received_at, source)
            other = intent.get("livemode") is not self._live
            return said.of_other_mode(live=not self._live) if other else said.report()

        status = text(intent, "status") or ""
        reports = []
        if kind := _UNPAID.get(status):
            reports.append(told(kind, intent, paid_at))
        if str(charge.get("amount_refunded") or "0") != "0":
            for refund in self._refunds(payment_id):
                at = stated(refund.get("created"), received_at)
                # A refund that failed says no time of that: it is so now.
                failed = text(refund, "status") in {"failed", "canceled"}
                # Asked by charge, it may not say the intent.
                named = {**refund, "payment_intent": payment_id}
                reports.append(told("refund.updated", named, received_at if failed else at))
        return status, tuple(r for r in reports if not isinstance(r, NotAboutMoney))

    def refund(self, wanted: WantedRefund, *, received_at: datetime) -> ReturnReport:
        """Give back a payment, or a part of it (see refunding.RefundingProvider)."""
        options: Any = {"idempotency_key": wanted.token}
        wish: Any = {
            **_of_payment(wanted.provider_payment_id),
            "amount": wanted.amount_minor,
            "reason": "requested_by_customer",
            "metadata": {REFUND_TOKEN: wanted.token},
        }
        made = self._said(lambda client: client.v1.refunds.create(wish, options))
        return self._as_return(wanted, made, received_at)

    def find_refund(self, wanted: WantedRefund, *, received_at: datetime) -> ReturnReport | None:
        """Return the refund that our token was given to, if there is one."""
        for refund in self._refunds(wanted.provider_payment_id):
            kept = refund.get("metadata")
            if isinstance(kept, dict) and text(kept, REFUND_TOKEN) == wanted.token:
                return self._as_return(wanted, refund, received_at)
        return None

    def _as_return(
        self, wanted: WantedRefund, refund: Mapping[str, Any], received_at: datetime
    ) -> ReturnReport:
        """Return what Stripe says of a refund of ours.

        A refund says when it was made and not since when it stands so: that it failed is new now.

        Raises:
            ProviderAway: What it says cannot be understood.
        """
        made_at = stated(refund.get("created"), received_at)
        over = text(refund, "status") in {"failed", "canceled"}
        # Made by charge, it may not say the intent.
        what = {**refund, **_of_payment(wanted.provider_payment_id)}
        source = f"refund:{self.name}/{wanted.token}"
        at = received_at if over else made_at
        said = Told(self.name, "refund.updated", what, at, received_at, source).report()
        if not isinstance(said, ReturnReport):
            raise ProviderAway("what it says of a refund cannot be understood")
        if said.amount_minor != wanted.amount_minor:
            raise ProviderAway("it has made a refund of another amount")
        return replace(said, asked_as=wanted.token)

    def close_page(self, session_id: str) -> PageState:
        """Have a page take no payment any more (see PageProvider)."""
        try:
            return _state(self._said(lambda c: c.v1.checkout.sessions.expire(session_id)))
        except ProviderRefused:
            # Only open ones can be closed: how does it stand, then?
            return _state(self._session(session_id))

    def _session(self, session_id: str) -> dict[str, Any]:
        return self._said(lambda client: client.v1.checkout.sessions.retrieve(session_id))

    def _refunds(self, payment_id: str) -> list[dict[str, Any]]:
        which: Any = {**_of_payment(payment_id), "limit": REFUNDS_MAX}
        found = self._said(lambda client: client.v1.refunds.list(which)).get("data")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    def _said(self, call: Call) -> dict[str, Any]:
        """Return the object of an answer, with numbers as they were written.

        Raises:
            ProviderAway, ProviderRefused: Nothing else, whatever the library raises.
        """
        began = time.monotonic()
        if began < self._away_until:
            raise ProviderAway("Stripe gave no answer a moment ago: it is left alone")
        try:
            said = self._within(CALL_SECONDS_MAX, call)
            read = read_json(said.body.encode())
        except (stripe.InvalidRequestError, stripe.IdempotencyError) as error:
            word = error.code or type(error).__name__
            raise ProviderRefused(f"Stripe says no: {word}") from None
        except UnreadableJson as error:
            raise ProviderAway(f"Stripe's answer cannot be read: {error}") from None
        except stripe.APIError as error:
            raise _of_its_own(error) from None
        except Exception as error:  # noqa: BLE001 - all that a network and a library can do
            if time.monotonic() - began >= SLOW_SECONDS:
                self._away_until = time.monotonic() + AWAY_SECONDS
            raise ProviderAway(f"Stripe gives no answer: {type(error).__name__}") from None
        if not isinstance(read, dict):
            raise ProviderAway("Stripe's answer is not an object")
        return read

    def _within(self, seconds: float, call: Call) -> Any:
        """Return the answer to a call; who is slower than `seconds` is waited for no longer.

        Raises what the library raises, and TimeoutError.
        """
        found: list[Any] = []

        def ask() -> None:
            try:
                with self._client() as client:
                    found.append(call(client).last_response)
            except Exception as error:  # noqa: BLE001 - raised below, in the thread that asked
                found.append(error)

        # Beside, since an answer that comes byte by byte keeps within every timeout of the client.
        asking = threading.Thread(target=ask, name="asking-stripe", daemon=True)
        asking.start()
        asking.join(seconds)
        if not found:
            raise TimeoutError
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    @contextmanager
    def _client(self) -> Iterator[stripe.StripeClient]:
        http = stripe.RequestsClient(timeout=(CONNECT_SECONDS_MAX, READ_SECONDS_MAX))
        try:
            yield stripe.StripeClient(
                self._key.get_secret_value(),
                base_addresses={"api": self._settings.api_base.rstrip("/")},
                max_network_retries=RETRIES_MAX,
                http_client=http,
            )
        finally:
            http.close()  # type: ignore[no-untyped-call]


def _of_its_own(error: stripe.APIError) -> ProviderAway:
    """Return what an answer means that is neither done nor refused."""
    if error.http_status == HTTPStatus.CONFLICT:
        return KeyInUse("Stripe is at the same question already")
    said = {str(name).lower(): value for name, value in (error.headers or {}).items()}
    replayed = said.get("idempotent-replayed") == "true"
    if error.http_status == HTTPStatus.INTERNAL_SERVER_ERROR or replayed:
        # It keeps the first answer to a key, errors of its own among them.
        return PageFailed(f"Stripe failed: {error.http_status}")
    return ProviderAway(f"Stripe gives no answer: {error.http_status or type(error).__name__}")


def _wish(wanted: WantedPage) -> Any:
    """Return the parameters of a page. Of equal wishes they are equal, or the key is refused."""
    kept = {"invoice_ref": wanted.reference, "attempt_id": wanted.attempt_id}
    return {
        "mode": "payment",
        # Nothing that is confirmed days later: the payer shall know before he goes.
        "payment_method_types": ["card"],
        "line_items": [
            {
                "quantity": 1,
                "price_data": {
                    "currency": CURRENCY.lower(),
                    "unit_amount": wanted.amount_minor,
                    "product_data": {"name": f"AMO {format_reference(wanted.reference)}"},
                },
            }
        ],
        # What is due is in dirhams, and so is what is booked.
        "adaptive_pricing": {"enabled": False},
        "client_reference_id": wanted.reference,
        "metadata": kept,
        "payment_intent_data": {"metadata": kept},
        "locale": _LOCALES.get(wanted.language, "auto"),
        "success_url": wanted.back,
        "cancel_url": wanted.left,
        "expires_at": int(wanted.expires_at.timestamp()),
    }


def _of_payment(payment_id: str) -> dict[str, str]:
    """Return how a payment is named to Stripe: a charge that has no intent by itself."""
    return {"charge" if payment_id.startswith(("ch_", "py_")) else "payment_intent": payment_id}


def _state(session: Mapping[str, Any]) -> PageState:
    state = _STATES.get(str(session.get("status")))
    if state is None:
        raise ProviderAway("it does not say how its page stands")
    return state


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"
