"""The border: each provider's dialect in a module of its own, behind small protocols.

A new kind is one module here and one line in `registry.KINDS`. It is a WebhookProvider, whose
deliveries are stored and acted on later, or a `calls.AnsweringProvider`, whose sender waits; one
that makes pages to pay on is a PageProvider besides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol, runtime_checkable

from gateway.collection.reports import Report
from gateway.errors import ProviderAway
from gateway.models import Channel
from gateway.models import Manner as Manner

PAGE_LIFE: Final = timedelta(minutes=60)
"""How long a page takes a payment. Stripe makes none for less than thirty minutes."""


class PageFailed(ProviderAway):
    """It failed at the provider, which will say so again to the same wish: make another one."""


class PageMadeBefore(PageFailed):
    """The same wish was granted before, and the page is told only once: to somebody who asked at
    the same moment and is about to keep it, or in an answer that was lost."""


@runtime_checkable
class Provider(Protocol):
    """What every provider must be able to do."""

    @property
    def name(self) -> str:
        """The segment of its address, as in `/webhooks/{name}`."""
        ...

    def parse(
        self, body: bytes, *, delivery_id: str, received_at: datetime, path: str = ""
    ) -> Report:
        """Return what an authentic, readable delivery says about money. Raises nothing for it.

        `path` is of a call whose sender waits: what of its address says something.
        """
        ...

    def unsafe_in_production(self) -> Sequence[str]:
        """Return what of its settings is good for trying out only, as ends of «provider X: …».

        A secret that a sandbox made or that was published, a test key, a stand-in server: whatever
        would let a stranger state payments, or would take play money for real. Never the secret.
        """
        ...


@runtime_checkable
class WebhookProvider(Provider, Protocol):
    """What a provider must be able to do whose deliveries are stored, acknowledged, acted on later.

    Who waits for an answer is a gateway.providers.calls.AnsweringProvider instead.
    """

    def authenticate(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> str:
        """Return the provider's id for this delivery.

        Judges the raw bytes, before anything parses them, by the business clock.

        Raises:
            BadSignature: Not authentic. Nothing that a stranger can send raises anything else.
        """
        ...


@dataclass(frozen=True, slots=True)
class WantedPage:
    """What a provider's page is to ask for. Equal wishes make one page, however often made.

    What a provider makes that is no page (see Manner) goes by the same name here.
    """

    attempt_id: str
    """Ours, and the provider's idempotency key."""
    reference: str
    amount_minor: int
    language: str
    back: str
    """Where the payer goes after paying."""
    left: str
    """Where the payer goes who leaves the page without paying."""
    expires_at: datetime
    """After this instant it takes no payment."""
    notify_url: str = ""
    """Where the provider's deliveries go, for one that is told so with each page."""
    phone: str = ""
    """Whom to ask on his phone: country code and number, digits only; of a PUSH. It is kept nowhere
    here, so what an earlier call made must be found without it."""


@dataclass(frozen=True, slots=True)
class MadePage:
    """A provider's page that takes one payment."""

    session_id: str
    url: str
    """Empty where the payer's browser goes nowhere: of a TOKEN that has no page, of a PUSH."""
    token: str | None = None
    """By which an unsigned callback will show that it is about this page."""
    fields: tuple[tuple[str, str], ...] = ()
    """What the payer's browser must post there; none: the address is all. They are never stored:
    equal wishes make equal fields, without any call over the network."""
    code: str = ""
    """What the payer says at the counter; of a TOKEN."""
    expires_at: datetime | None = None
    """Until when it takes a payment, where the provider has decided that."""


class PageState(StrEnum):
    """What a provider says of a page it made."""

    OPEN = "open"
    """It may still be paid by."""
    USED = "used"
    """The payer has finished it: money came, or is on its way."""
    CLOSED = "closed"
    """No payment came by it, and it takes none: for good, save that one whose callbacks are
    unsigned (MadePage.token) may only have been refused, and be paid by at a second try."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider says when asked about a page."""

    state: PageState
    reports: tuple[Report, ...]
    """All that follows for the books, in order."""
    tells: bool = True
    """Whether a change of an open page is told of until we have taken it in: then there is no need
    to ask before the page has run out."""


@runtime_checkable
class PageProvider(Provider, Protocol):
    """What a provider that makes pages to pay on must be able to do besides.

    Each call goes over the network, within seconds, and is made inside no transaction.
    """

    @property
    def pages_origin(self) -> str:
        """Where its pages are, as `https://host`: a page of ours may lead a form there."""
        ...

    @property
    def channel(self) -> Channel:
        """What a payer pays by on its pages."""
        ...

    @property
    def manner(self) -> Manner:
        """How its payers are brought to pay. One provider has one manner, and one channel."""
        ...

    @property
    def life(self) -> timedelta:
        """How long what it makes takes a payment, where it does not say so itself."""
        ...

    def make_page(self, wanted: WantedPage) -> MadePage:
        """Make a page to pay on, or find the one that the same wish has made before.

        Raises:
            ProviderAway: Whether there is a page is not known; the same wish may be tried again.
            PageFailed: There may be a page that nobody will see; the same wish will not find it.
            ProviderRefused: There is no page, and the same wish will not make one.
        """
        ...

    def ask(self, session_id: str, *, received_at: datetime) -> Answer:
        """Return what became of a page.

        Raises:
            ProviderAway: It does not say; ask again.
            ProviderRefused: It knows no such page.
        """
        ...

    def close_page(self, session_id: str) -> PageState:
        """Have a page take no payment any more, if it was not used; return how it stands then.

        Raises:
            ProviderAway: Not known to be closed; try again.
            ProviderRefused: It knows no such page.
        """
        ...


@runtime_checkable
class Foretelling(Protocol):
    """A provider that asks payers on their phones, under ids that we give: those are kept before
    the call, so that whoever was asked is asked about, whatever becomes of the answer."""

    def foretell(self, wanted: WantedPage) -> MadePage:
        """Return what `make_page` will return for this wish. Nobody is asked."""
        ...


@runtime_checkable
class AskedSoOften(Protocol):
    """A provider whose settings say how often we may ask it."""

    @property
    def asks_per_minute(self) -> int:
        """How many questions at most, a minute."""
        ...
