"""Bring what payments pay to what the facts say: after a note, a relief, a breach, an issue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session

from gateway.seals import BooksKey


def hold_people(session: Session, contributor_ids: Sequence[int]) -> None:
    """Lock whatever of these people the functions below may touch: payments, then invoices.

    Whoever writes notes or reliefs and then settles and carries in one transaction calls this
    first, so that it never waits for a row while it holds the end of the books' chain.
    """
    raise NotImplementedError


def settle_invoices(
    session: Session, invoice_ids: Sequence[int], *, key: BooksKey, now: datetime
) -> None:
    """Bring the allocations, transfers and sums of these invoices to what the facts say.

    The caller owns the transaction.
    """
    raise NotImplementedError


def carry_credit(
    session: Session,
    contributor_ids: Sequence[int],
    *,
    key: BooksKey,
    now: datetime,
    first: Sequence[int] = (),
) -> None:
    """Pay open invoices of these people out of their credit.

    The caller owns the transaction. `first` names invoices that come before all others.
    """
    raise NotImplementedError
