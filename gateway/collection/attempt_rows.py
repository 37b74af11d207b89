"""Attempts as they are kept: how one stands, whether it may still be paid by, why it was closed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlmodel import Session

from gateway.db import execute, transaction
from gateway.models import AttemptState, Manner

ATTEMPTS_MAX: Final = 10
"""For one reference while a page lives: somebody who begins and gives up again and again waits."""
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
"""Why an attempt was closed whose page only its payer can close, and who has chosen another way; or
whose code asks for what is not due any more. Money may still come by it: it is booked, and what is
paid twice then waits for a person, as always."""
DECLINED: Final = "declined"
"""Why an attempt was closed whose page was about to take what was not due: it takes no more."""
REVIVED: Final = "in doubt again"
"""What is said instead of why an attempt was closed, once its provider says that it is paid, or is
being paid, after all. What is closed is opened no more: it is asked about, and paid or not."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A payer who was sent to a provider's page, was given a code, or is asked on his phone."""

    id: str
    reference: str
    """What it is to pay: one invoice, or several."""
    provider: str
    manner: Manner
    amount_minor: int
    language: str
    state: AttemptState
    session_id: str | None
    page_url: str | None
    code: str | None
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
    """Return the open attempt of a reference."""
    return _one(session, f"{OWN} AND state IN ('made', 'sent')", {"reference": reference})


def latest_attempt(session: Session, reference: str) -> Attempt | None:
    """Return the attempt that a payer is told of: what is open, or is awaited; else the last.

    That of the reference itself, before one of another that is to pay some of the same.
    """
    return _one(
        session,
        f"""
        {_KIN} AND ({_MINE} OR state = 'sent' OR {_AWAITED})
        ORDER BY CASE WHEN {_MINE} AND state IN ('made', 'sent') THEN 1
            WHEN {_MINE} AND {_AWAITED} THEN 2 WHEN NOT {_MINE} THEN 3 ELSE 4 END,
            a.made_at DESC, a.id LIMIT 1
        """,
        {"reference": reference, **_kin(session, reference)},
    )


def akin_open(session: Session, reference: str) -> list[Attempt]:
    """Return the open attempts of other references that are to pay some of the same invoices."""
    return _read(
        session,
        f"{_KIN} AND NOT {_MINE} AND state IN ('made', 'sent') ORDER BY a.made_at, a.id",
        {"reference": reference, **_kin(session, reference)},
    )


def stand_alone(session: Session, reference: str) -> None:
    """Wait for whoever else makes an attempt that is to pay some of the same, and keep others out.

    Until the end of the transaction, which is the caller's. By people, since a plan pays what its
    person owes beside it; and by a few locks, since a reference may be of thousands of people.
    """
    execute(
        session,
        f"""
        WITH {_COVERED} SELECT pg_advisory_xact_lock(:kind, lock) FROM (
            SELECT DISTINCT ({_PERSON} % :locks)::int AS lock
            FROM covered JOIN invoice i ON i.id = covered.id
            JOIN contributor c ON c.id = i.contributor_id ORDER BY lock) AS locks
        """,
        {"reference": reference, "kind": _LOCKS_KIND, "locks": _LOCKS},
    )


def attempt_of(session: Session, attempt_id: str) -> Attempt:
    """Return the attempt of an id that is known."""
    found = find_attempt(session, attempt_id)
    assert found is not None
    return found


def find_attempt(session: Session, attempt_id: str) -> Attempt | None:
    """Return the attempt of an id, if there is one."""
    return _one(session, "a.id = :id", {"id": attempt_id})


def closed_and_payable(session: Session, reference: str, *, now: datetime) -> list[Attempt]:
    """Return the last closed attempts that may still be paid by, the newest first.

    Of a reference, and of others that are to pay some of the same. Those are all whose callbacks
    are unsigned. Who sends such calls a payment refused, and takes it after all where its payer
    tries again; and of that we are told once, or never. What ran out UNDECIDED_MAX ago is left
    alone.
    """
    return _read(
        session,
        f"{_KIN} AND {PAYABLE_CLOSED} ORDER BY a.made_at DESC, a.id LIMIT :most",
        {**_kin(session, reference), "ended": now - UNDECIDED_MAX, "most": ATTEMPTS_MAX},
    )


def live_codes(session: Session, reference: str, *, now: datetime) -> list[Attempt]:
    """Return the attempts of a reference whose codes an agency may still take, oldest first."""
    return _read(
        session,
        f"{OWN} AND manner = 'token' AND code IS NOT NULL AND expires_at > :now"
        " AND (state = 'sent' OR closed_because = :left) ORDER BY a.made_at, a.id LIMIT :most",
        {"reference": reference, "now": now, "left": LEFT_OPEN, "most": ATTEMPTS_MAX},
    )


def _kin(session: Session, reference: str) -> dict[str, list[int]]:
    """Return the invoices that money by a reference may pay, and all bundles that pay of them."""
    found = execute(session, _KIN_OF, {"reference": reference}).one()
    return {"invoices": found[0] or [], "bundles": found[1] or []}


def _one(session: Session, where: str, asked: dict[str, Any]) -> Attempt | None:
    return next(iter(_read(session, where, asked)), None)


def _read(session: Session, where: str, asked: dict[str, Any]) -> list[Attempt]:
    values = {**asked, "soon": ABOUT_TO_ASK_SECONDS, "revived": REVIVED}
    rows = execute(session, f"{_ATTEMPTS} WHERE {where}", values).mappings()
    return [
        Attempt(**{**row, "state": AttemptState(row["state"]), "manner": Manner(row["manner"])})
        for row in rows
    ]


_ATTEMPTS: Final = """
    SELECT a.id, coalesce(own.reference, together.reference) AS reference, provider, manner,
        a.amount_minor, language, state, session_id, page_url, code, a.made_at, expires_at, tries,
        closed_because,
        coalesce(ask_at <= clock_timestamp()
            AND ask_at > clock_timestamp() - make_interval(secs => :soon), false) AS asked_soon,
        (closed_because IS NOT DISTINCT FROM :revived AND ask_at IS NOT NULL) AS awaited
    FROM payment_attempt a LEFT JOIN invoice own ON own.id = invoice_id
    LEFT JOIN bundle together ON together.id = bundle_id
"""

# A reference is an invoice's or a bundle's, and one of the two finds nothing.
OWN: Final = (
    "(a.invoice_id = (SELECT id FROM invoice WHERE reference = :reference)"
    " OR a.bundle_id = (SELECT id FROM bundle WHERE reference = :reference))"
)
PAYABLE_CLOSED: Final = (
    "(state = 'closed' AND session_id IS NOT NULL AND token_sha256 IS NOT NULL"
    " AND expires_at > :ended)"
)
"""Closed, and maybe paid by all the same (see `closed_and_payable`)."""
_MINE: Final = "coalesce(own.reference, together.reference) = :reference"
_KIN: Final = "(a.invoice_id = ANY(:invoices) OR a.bundle_id = ANY(:bundles))"
_AWAITED: Final = "(closed_because IS NOT DISTINCT FROM :revived AND ask_at IS NOT NULL)"
_PERSON: Final = "coalesce(c.merged_into_id, c.id)"
_COVERED: Final = f"""
    covered AS MATERIALIZED (
        SELECT id FROM invoice WHERE reference = :reference
        UNION SELECT item.invoice_id FROM bundle_item item
            JOIN bundle ON bundle.id = item.bundle_id WHERE bundle.reference = :reference
        UNION SELECT other.id FROM bundle JOIN plan ON plan.bundle_id = bundle.id
            JOIN contributor c ON c.id = plan.contributor_id
            JOIN contributor file ON file.id = {_PERSON} OR file.merged_into_id = {_PERSON}
            JOIN invoice other ON other.contributor_id = file.id
            WHERE bundle.reference = :reference AND other.status IN ('open', 'part_paid'))
"""
"""The invoices that money by a reference may pay: of a plan, all that its person owes."""
_KIN_OF: Final = f"""
    WITH {_COVERED}, akin AS (
        SELECT bundle_id FROM covered JOIN bundle_item ON invoice_id = covered.id
        UNION SELECT plan.bundle_id FROM covered JOIN invoice i ON i.id = covered.id
            JOIN contributor c ON c.id = i.contributor_id
            JOIN contributor file ON file.id = {_PERSON} OR file.merged_into_id = {_PERSON}
            JOIN plan ON plan.contributor_id = file.id)
    SELECT (SELECT array_agg(id) FROM covered), (SELECT array_agg(bundle_id) FROM akin)
"""
_LOCKS_KIND: Final = 0x77617401
"""Sets our advisory locks of two numbers apart from others'."""
_LOCKS: Final = 64


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
    """Close an attempt by which money may still come, and go on asking about it.

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
