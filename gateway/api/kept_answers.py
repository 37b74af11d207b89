"""How long answers are kept under an `Idempotency-Key`. The worker reads this without the API."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlmodel import Session

from gateway.db import execute

KEPT: Final = timedelta(days=7)
"""Answers hold personal data: as long as anybody sends something again, and no longer."""


def forget_old_answers(session: Session, *, now: datetime) -> int:
    """Delete the answers that are older than KEPT; return how many.

    The caller owns the transaction.
    """
    return execute(
        session, "DELETE FROM idempotent_answer WHERE answered_at < :since", {"since": now - KEPT}
    ).rowcount
