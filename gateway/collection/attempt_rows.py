"""Attempts as they are kept: how one stands, whether it may still be paid by, why it was closed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlmodel import Session

from gateway.db import execute, transaction
from gateway.models import AttemptState

ATTEMPTS_MAX: Final = 10
"""For one invoice while a page lives: somebody who begins and gives up again and again waits."""
UNDECIDED_MAX: Final = timedelta(days=1)
"""How long after its page has run out an attempt is asked about, where money may be on its way."""

ASK_FIRST_UNSIGNED_SECONDS: Final = 60
"""When we first ask about a page whose callbacks are unsigned and nobody came back from: such are
sent once, and one that is lost stays lost."""
ABOUT_TO_ASK_SECONDS: Final = 30
"""For how long the worker's question that is due is waited for, before a payer's press asks."""

FAILED: Final = "failed"
"""Why an attempt was closed that the provider answered by an error of its own, for good."""
NOT_KNOWN: Final = "nobody could be asked"
"""Why an attempt was closed of which we do not know that nothing came by it."""
UNDECIDED: Final = "still undecided at its end"
"""The same of one that the provider said nothing final of, when it was asked for the last time."""
LEFT_OPEN: Final = "left open"
"""Why an attempt was closed whose page only its payer can close, and who has chosen another way."""
DECLINED: Final = "declined"
"""Why an attempt was closed whose page was about to take what was not due: it takes no more."""
REVIVED: Final = "in doubt again"
"""What is said instead of why an attempt was closed, once its provider says that it is paid, or is
being paid, after all. What is closed is opened no more: it is asked about, and paid or not."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A payer who was sent to a provider's page."""

    id: str
    invoice_id: int
    reference: str
    provider: str
    amount_minor: int
    language: str
    state: AttemptState
    session_id: str | None
    page_url: str | None
    made_at: datetime
    expires_at: datetime
    tries: int
    closed_because: str | None
    asked_soon: bool
    """Whether the worker's question about it is due since a moment ago."""
    awaited: bool
    """Whether it was closed, is paid or being paid after all, and is being asked about."""

    @property
    def is_open(self) -> bool:
        """Whether money may still come by it."""
        return self.state is AttemptState.SENT


# -- reading --------------------------------------------------------------------------------------


def open_attempt(session: Session, reference: str) -> Attempt | None:
    """Return the open attempt of an invoice."""
    return _one(
        session, "reference = :reference AND state IN ('made', 'sent')", {"reference": reference}
    )


def latest_attempt(session: Session, reference: str) -> Attempt | None:
    """Return the open attempt of an invoice, or else one that is awaited, or else the last."""
    return _one(
        session,
        "reference = :reference ORDER BY state IN ('made', 'sent') DESC,"
        " (closed_because IS NOT DISTINCT FROM :revived AND ask_at IS NOT NULL) DESC,"
        " made_at DESC, a.id LIMIT 1",
        {"reference": reference},
    )


def attempt_of(session: Session, attempt_id: str) -> Attempt:
    """Return the attempt of an id that is known."""
    found = _one(session, "a.id = :id", {"id": attempt_id})
    assert found is not None
    return found


def closed_and_payable(session: Session, reference: str, *, now: datetime) -> list[Attempt]:
    """Return the last closed attempts of an invoice that may still be paid by, the newest first.

    Those are all whose callbacks are unsigned. Who sends such calls a payment refused, and takes it
    after all where its payer tries again; and of that we are told once, or never. What ran out
    UNDECIDED_MAX ago is left alone.
    """
    return _read(
        session,
        "reference = :reference AND state = 'closed' AND session_id IS NOT NULL"
        " AND token_sha256 IS NOT NULL AND expires_at > :ended"
        " ORDER BY made_at DESC, a.id LIMIT :most",
        {"reference": reference, "ended": now - UNDECIDED_MAX, "most": ATTEMPTS_MAX},
    )


def _one(session: Session, where: str, asked: dict[str, Any]) -> Attempt | None:
    return next(iter(_read(session, where, asked)), None)


def _read(session: Session, where: str, asked: dict[str, Any]) -> list[Attempt]:
    values = {**asked, "soon": ABOUT_TO_ASK_SECONDS, "revived": REVIVED}
    rows = execute(session, f"{_ATTEMPTS} WHERE {where}", values).mappings()
    return [Attempt(**{**row, "state": AttemptState(row["state"])}) for row in rows]


_ATTEMPTS: Final = """
    SELECT a.id, invoice_id, reference, provider, a.amount_minor, language, state, session_id,
        page_url, made_at, expires_at, tries, closed_because,
        coalesce(ask_at <= clock_timestamp()
            AND ask_at > clock_timestamp() - make_interval(secs => :soon), false) AS asked_soon,
        closed_because IS NOT DISTINCT FROM :revived AND ask_at IS NOT NULL AS awaited
    FROM payment_attempt a JOIN invoice ON invoice.id = invoice_id
"""


# -- changing -------------------------------------------------------------------------------------


def close(attempt: Attempt, because: str) -> None:
    """Close an attempt, if it still stands as it was read. Opens its own transaction."""
    with transaction() as session:
        execute(
            session,
            "UPDATE payment_attempt SET state = 'closed', closed_because = :because, ask_at = NULL"
            " WHERE id = :id AND state = :state",
            {"id": attempt.id, "because": because, "state": attempt.state.value},
        )


def leave_open(attempt: Attempt) -> None:
    """Close an attempt whose page stays open, and go on asking about it.

    Opens its own transaction.
    """
    with transaction() as session:
        execute(
            session,
            "UPDATE payment_attempt SET state = 'closed', closed_because = :because,"
            " tries = tries + 1, ask_at = clock_timestamp() + make_interval(secs => :seconds)"
            " WHERE id = :id AND state = 'sent'",
            {"id": attempt.id, "because": LEFT_OPEN, "seconds": ASK_FIRST_UNSIGNED_SECONDS},
        )


def ask_at_once(attempt: Attempt) -> None:
    """Have the worker ask about an attempt that its provider says is paid or being paid.

    The books are the worker's. Opens its own transaction.
    """
    with transaction() as session:
        execute(
            session,
            "UPDATE payment_attempt SET ask_at = clock_timestamp(), tries = tries + 1,"
            " closed_because = CASE WHEN state = 'closed' THEN CAST(:revived AS text) END"
            " WHERE id = :id AND state IN ('sent', 'closed')",
            {"id": attempt.id, "revived": REVIVED},
        )
