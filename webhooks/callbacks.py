"""Words that we owe senders who did not wait: kept with what they tell of, sent afterwards."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session

from gateway.providers.calls import Callback
from webhooks.models import ProviderCallback


def owe(
    session: Session,
    provider: str,
    delivery: int,
    url: str,
    callback: Callback,
    *,
    now: datetime,
) -> None:
    """Keep a word to be sent once this commits. The caller owns the transaction."""
    row = {
        "provider": provider,
        "delivery_pk": delivery,
        "url": url,
        "headers": {**callback.headers, ":method": callback.method},
        "body": callback.body,
        "retry_at": now,
        "made_at": now,
    }
    session.execute(insert(ProviderCallback).values(row))
