"""Whose money a file tells of: what one sender told is not taken in once more as another's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlmodel import Session

from gateway.clock import day_of
from gateway.db import execute
from gateway.errors import Unusable
from reconciliation.sources.dialects import dialects
from reconciliation.sources.statements import refused


def require_own_accounts(
    session: Session, name: str, provider: str, accounts: Sequence[str]
) -> None:
    """Stop where an account is known from another sender: an account is one sender's.

    Args:
        session: Whose transaction it is.
        name: Of the file, for what is said of it.
        provider: Whose file it is said to be.
        accounts: Those that it has statements of.

    Raises:
        Unusable: One is another's.
    """
    other = execute(
        session,
        "SELECT account, provider FROM settlement_statement"
        " WHERE account = ANY(:accounts) AND provider <> :provider LIMIT 1",
        {"accounts": accounts, "provider": provider},
    ).first()
    if other is not None:
        raise Unusable(
            f"{name}: statements of account {other.account} are known from"
            f" {other.provider}: name that one, or the money would count twice."
        )


def require_own_lines(session: Session, name: str, provider: str) -> None:
    """Stop where a line of the table `incoming` is known, the same in all, from another sender.

    Two networks may use one id for two payments, but not with the same payer's reference, or the
    same second, on the same day and for the same amount. Lines that say neither are only known
    again where the whole file is. Senders who pay for the same provider both tell of its payments
    by right. What a bank tells bears its account, and is not looked at.

    Args:
        session: Whose transaction it is; it has the table.
        name: Of the file, for what is said of it.
        provider: Whose file it is said to be.

    Raises:
        Unusable: One is another's; the sentence names the line and the other's file.
    """
    ours = set(dialects().of(provider).pays_for)
    query = "SELECT DISTINCT provider FROM settlement_statement WHERE form = 'csv'"
    known = execute(session, query).scalars()
    others = [each for each in known if ours.isdisjoint(dialects().of(each).pays_for)]
    found = execute(session, _KNOWN, {"others": others}).first()
    if found is not None:
        raise refused(
            name,
            found.line,
            f"the same movement is known from {found.provider}, in file {found.file} of"
            f" {day_of(found.imported_at)}: name that one, or the money would count twice",
        )


# Each sender's lines are found by the key of their own, a step into the index for each line.
_KNOWN: Final = """
    SELECT other.line, known.provider, file.id AS file, file.imported_at
    FROM incoming other
    JOIN settlement_statement mine ON mine.id = other.statement_id AND mine.form = 'csv'
    CROSS JOIN unnest(CAST(:others AS text[])) AS sender (provider)
    JOIN settlement_line known ON known.provider = sender.provider
        AND known.entry_key = other.entry_key AND known.transaction = other.transaction
    JOIN settlement_statement its ON its.id = known.statement_id
    JOIN settlement_file file ON file.id = its.file_id
    WHERE known.amount_minor = other.amount_minor AND known.quoted = other.quoted
        AND known.booked_on IS NOT DISTINCT FROM other.booked_on
        AND known.happened_at IS NOT DISTINCT FROM other.happened_at
        AND (other.quoted <> '{}' OR other.happened_at IS NOT NULL
            OR its.content_sha256 = mine.content_sha256)
    ORDER BY other.seq LIMIT 1
"""
