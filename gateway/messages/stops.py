"""Who wants no messages. Kept beside the register, which no import of people changes."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session

from gateway.db import execute
from gateway.reasons import kept_reason


def stop_messages(
    session: Session, contributor_id: int, *, asked_by: str, why: str, now: datetime
) -> bool:
    """Send a person no more messages, those in line included; say whether that is new.

    The caller owns the transaction.

    Args:
        session: Whose transaction it is.
        contributor_id: Any of the person's files.
        asked_by: Whose word it is: a key, an account.
        why: For whoever reads it later. No names.
        now: When.

    Raises:
        Unusable: There is no reason, or it names somebody.
    """
    kept = kept_reason(why)
    made = execute(
        session,
        "INSERT INTO message_stop (contributor_id, asked_by, why, stopped_at)"
        " VALUES (:person, :by, :why, :now) ON CONFLICT DO NOTHING",
        {"person": contributor_id, "by": asked_by, "why": kept, "now": now},
    )
    return made.rowcount == 1


def allow_messages(session: Session, contributor_id: int) -> bool:
    """Send a person messages again; say whether that is new. The caller owns the transaction."""
    query = (
        "DELETE FROM message_stop WHERE contributor_id IN (SELECT o.id FROM contributor o"
        " JOIN contributor f ON coalesce(f.merged_into_id, f.id) IN (o.id, o.merged_into_id)"
        " WHERE f.id = :person)"
    )
    return execute(session, query, {"person": contributor_id}).rowcount > 0
