"""Tasks asked for inside a transaction: sent at least once if it commits, never if not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from sqlmodel import Session, col, select

from gateway.models import OutboxMessage

BATCH_SIZE: Final = 500

Send = Callable[[str, Mapping[str, str]], None]


def enqueue(session: Session, task: str, *, now: datetime, **arguments: str) -> None:
    """Ask for a task. It will run at least once if this transaction commits, and never if not."""
    session.add(OutboxMessage(task=task, arguments=arguments, created_at=now))


def drain(session: Session, send: Send) -> int:
    """Send the tasks asked for, oldest first, and return how many messages there were.

    Two may drain at once: each locks its own rows and skips the other's. A crash after a send and
    before the commit sends again, which is why every task is idempotent. Messages that ask for the
    same thing are sent once: what the task does, it does for all of them.
    """
    staged = session.exec(
        select(OutboxMessage)
        .order_by(col(OutboxMessage.id))
        .limit(BATCH_SIZE)
        .with_for_update(skip_locked=True)
    ).all()
    sent: list[tuple[str, dict[str, str]]] = []
    for message in staged:
        wanted = (message.task, message.arguments)
        if wanted not in sent:
            send(*wanted)
            sent.append(wanted)
        session.delete(message)
    return len(staged)
