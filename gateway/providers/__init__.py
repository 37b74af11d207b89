"""The border: each provider's dialect in a module of its own, behind small protocols.

A new kind is one module here and one line in `registry.KINDS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from gateway.reports import Report


class WebhookProvider(Protocol):
    """What a provider whose deliveries we take must be able to do. Nothing optional."""

    @property
    def name(self) -> str:
        """The segment of its address: `POST /webhooks/{name}`."""
        ...

    def authenticate(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> str:
        """Return the provider's id for this delivery.

        Judges the raw bytes, before anything parses them, by the business clock.

        Raises:
            BadSignature: Not authentic. Nothing that a stranger can send raises anything else.
        """
        ...

    def parse(self, body: bytes, *, delivery_id: str, received_at: datetime) -> Report:
        """Return what an authenticated, readable body says about money. Raises nothing for it."""
        ...
