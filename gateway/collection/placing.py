"""Bring what payments pay to what the facts say: after a note, a relief, a breach, an issue.

An invoice that changed gives back to the payers' credit what it needs no more, and takes what it
needs from the credit of payments that quoted it (`settle_invoices`). What is credit then pays the
person's other open invoices (`carry_credit`). Both may be called any number of times.

Locks are taken as everywhere: payments, invoices, exceptions, the books' chain, the feed. Both
functions end with the last two. So whoever does more in one transaction than call one of them calls
`hold_people` first, and tells of its own events last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from heapq import heapify, heappop, heappush
from typing import Final

from sqlmodel import Session

from gateway.books import ledger
from gateway.books.accounts import SUSPENSE
from gateway.books.seals import BooksKey
from gateway.clock import day_of
from gateway.collection.allocation import CURRENT_FIRST, OLDEST_FIRST
from gateway.collection.booking import made_room
from gateway.collection.debts import (
    Debts,
    invoices_of,
    lock_debts,
    lock_payments,
    surviving_files,
    write_debts,
)
from gateway.collection.moves import moved_happening, resolve_used_up, why_used_up
from gateway.collection.placements import InvoiceState, Key, Moved, PaymentState, credit_of, settle
from gateway.db import execute
from gateway.events import tell
from gateway.exception_queue import Finding, open_exceptions, opened_events, resolved_events


def hold_people(session: Session, contributor_ids: Sequence[int]) -> None:
    """Lock whatever of these people the functions below may touch: payments, then invoices.

    Whoever writes notes or reliefs, then settles and carries in one transaction, calls this before
    all else, so that it never waits for a row while it holds another that comes later. The caller
    owns the transaction.
    """
    files = _files(session, contributor_ids)
    while True:
        try:
            with session.begin_nested():
                _hold(session, files)
        except _BookedMeanwhile:
            continue
        return


class _BookedMeanwhile(Exception):
    """A payment was booked while we waited for its invoice, and is not held."""


def _hold(session: Session, files: Iterable[int]) -> None:
    held = _concerned(session, files)
    payments = _lock(session, held)
    theirs = execute(session, _INVOICES_OF, {"files": list(files)}).scalars()
    execute(
        session,
        "SELECT FROM invoice WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE",
        {"ids": sorted(invoices_of(session, payments.values()).union(theirs))},
    )
    # Nobody must wait for a payment who holds invoices: all is let go, and taken again in order.
    if not held >= _concerned(session, files):
        raise _BookedMeanwhile


def _concerned(session: Session, files: Iterable[int]) -> set[int]:
    """Return the payments that lie in these files' credit, pay their invoices, or quoted them."""
    found = {payment_id for payment_id, _ in _lots(session, files)}
    found.update(execute(session, _PAYING_ALL, {"files": list(files)}).scalars())
    return found


def settle_invoices(
    session: Session, invoice_ids: Sequence[int], *, key: BooksKey, now: datetime
) -> None:
    """Bring the allocations, transfers and sums of these invoices to what the facts say.

    What is needed no more becomes the payers' credit, to be carried by `carry_credit`; the credit
    of payments that quoted one of these invoices comes back to it first. The same again changes
    nothing. The caller owns the transaction; it has written what changed (notes, reliefs).

    Args:
        session: Whose transaction it is.
        invoice_ids: Of which the facts changed.
        key: Signs the books.
        now: The business clock.
    """
    if not invoice_ids:
        return
    debts = lock_debts(session, invoice_ids, whole=True)
    moved = [each for invoice in debts.invoices.values() for each in settle(invoice, day_of(now))]
    _finish(session, debts, debts.invoices.values(), moved, key=key, now=now)


def call_back(
    session: Session, contributor_ids: Sequence[int], *, key: BooksKey, now: datetime
) -> None:
    """Give invoices of these people the money that quoted them, where it was carried elsewhere.

    As far as they need it: the rest becomes credit, to be carried again. So facts that change there
    and back leave the money where it was. The caller owns the transaction, has called
    `hold_people` and settled what changed, and carries the credit afterwards.
    """
    files = {"files": list(_files(session, contributor_ids))}
    # What gives money back may then need its own. Each time some comes to rest where it was meant
    # for, so this ends.
    while rows := execute(session, _CARRIED, files).all():
        short, holders = {row.quoted for row in rows}, {row.holder for row in rows}
        debts = lock_debts(session, short | holders, whole=True)
        moved: list[Moved] = []
        for at in sorted(holders):
            invoice = debts.invoices[at]
            leaving = {
                payment.key
                for payment in invoice.payments.values()
                if payment.invoice_id in short and payment.invoice_id != at
            }
            moved += settle(invoice, day_of(now), leaving=leaving)
        for at in sorted(short):
            moved += settle(debts.invoices[at], day_of(now))
        _finish(session, debts, debts.invoices.values(), moved, key=key, now=now)


def carry_credit(
    session: Session,
    contributor_ids: Sequence[int],
    *,
    key: BooksKey,
    now: datetime,
    first: Sequence[int] = (),
) -> None:
    """Pay open invoices of these people out of their credit, wherever it came from.

    The money that was paid first goes first, each with its own day, to the invoice that was due
    first; in a standing plan or campaign to what came due since, then to the debts. All files of a
    person count as one. What asked a person about credit that is used up is closed. The same again
    changes nothing. The caller owns the transaction.

    Args:
        session: Whose transaction it is.
        contributor_ids: Any files of these people.
        key: Signs the books.
        now: The business clock.
        first: Invoices that come before all others.
    """
    files = _files(session, contributor_ids)
    lots = _lots(session, files)
    people = {files[owner] for _, owner in lots}
    theirs = [at for at, person in files.items() if person in people]
    rows = execute(session, _OPEN, {"files": theirs}).all() if theirs else []
    if not rows:
        return
    open_ids = [row.id for row in rows]
    # Those that pay already may have to make room for money of an earlier day.
    paying = execute(session, _PAYING, {"invoices": open_ids}).scalars()
    payments = _lock(session, {payment_id for payment_id, _ in lots}.union(paying))
    locked = dict(payments)
    touched = {*open_ids, *invoices_of(session, payments.values())}
    debts = lock_debts(session, touched, payments=payments)
    orders = _orders(session, debts, files, theirs, first)
    of_person: dict[int, list[PaymentState]] = {}
    for payment in locked.values():
        for owner in {files.get(_owner(code)) for code in payment.credits}:
            if owner is not None:
                of_person.setdefault(owner, []).append(payment)
    moved: list[Moved] = []
    for person, order in orders.items():
        moved += _carry(of_person.get(person, []), order, locked, day_of(now))
    settled = {each.invoice.id: each.invoice for each in moved}
    _finish(session, debts, settled.values(), moved, key=key, now=now)


def _carry(
    lots: Sequence[PaymentState], order: _Order, locked: dict[Key, PaymentState], on: date
) -> list[Moved]:
    """Let a person's credit pay what is open, the oldest money first.

    Money that makes room for a lot is always of a later day, or came later on that day: so each
    lot's turn comes once, and after all that can push it.
    """
    turns = [(lot.paid_on, lot.arrival, lot.key) for lot in lots]
    heapify(turns)
    found: list[Moved] = []
    while turns:
        lot = locked[heappop(turns)[2]]
        for invoice in order.invoices:
            if invoice.paid_minor >= invoice.owed_minor or lot.credit_minor == 0:
                continue
            invoice.join(lot)
            for moved in settle(invoice, on, lots={lot.key}, policy=order.policy):
                found.append(moved)
                pushed = moved.payment
                if moved.off_minor and pushed.key in locked and pushed is not lot:
                    heappush(turns, (pushed.paid_on, pushed.arrival, pushed.key))
    return found


@dataclass(slots=True)
class _Order:
    """What of a person's is open, in the order in which credit pays it."""

    policy: str
    invoices: list[InvoiceState] = field(default_factory=list)


def _orders(
    session: Session,
    debts: Debts,
    files: dict[int, int],
    theirs: list[int],
    first: Sequence[int],
) -> dict[int, _Order]:
    since: dict[int, date] = {}
    for row in execute(session, _STANDING, {"files": theirs}):
        person = files[row.contributor_id]
        since[person] = min(row.since, since.get(person, row.since))
    covered = set(execute(session, _COVERED, {"files": theirs}).scalars()) if since else set()
    ahead = set(first)

    def place(invoice: InvoiceState) -> tuple[bool, bool, date, int]:
        began = since.get(invoice.contributor_id)
        due_on = invoice.bill.due_on
        current = began is not None and due_on >= began and invoice.id not in covered
        return invoice.id not in ahead, not current, due_on, invoice.id

    orders: dict[int, _Order] = {}
    for invoice in sorted(debts.invoices.values(), key=place):
        person = invoice.contributor_id
        if person in files.values() and not invoice.bill.cancelled:
            policy = CURRENT_FIRST if person in since else OLDEST_FIRST
            orders.setdefault(person, _Order(policy)).invoices.append(invoice)
    return orders


def _files(session: Session, contributor_ids: Sequence[int]) -> dict[int, int]:
    """Return all files of these people, each with the one that stands."""
    people = set(surviving_files(session, contributor_ids).values())
    if not people:
        return {}
    rows = execute(
        session,
        """
        WITH RECURSIVE file (id, person) AS (
            SELECT id, id FROM contributor WHERE id = ANY(:people)
            UNION ALL
            SELECT c.id, person FROM file JOIN contributor c ON c.merged_into_id = file.id
        )
        SELECT id, person FROM file
        """,
        {"people": sorted(people)},
    )
    return {row.id: row.person for row in rows}


def _lots(session: Session, contributor_ids: Iterable[int]) -> list[tuple[int, int]]:
    """Return the payments of which something is credit of these files, each with whose it is."""
    codes = [credit_of(at) for at in contributor_ids]
    query = "SELECT id, owner FROM ledger_account WHERE code = ANY(:codes)"
    owners = {row.id: int(row.owner) for row in execute(session, query, {"codes": codes})}
    if not owners:
        return []
    # By the ids themselves: from a join, the database takes these few accounts for as busy as the
    # providers', and reads all the books.
    rows = execute(session, _LOTS, {"accounts": list(owners)})
    return [(row.payment_id, owners[row.account_id]) for row in rows]


def _lock(session: Session, payment_ids: Iterable[int]) -> dict[Key, PaymentState]:
    return lock_payments(session, "WHERE p.id = ANY(:ids)", {"ids": sorted(payment_ids)})


def _owner(code: str) -> int:
    return int(code.partition(":")[2])


_LOTS: Final = """
    SELECT payment_id, account_id FROM (
        SELECT credit_account_id AS account_id, payment_id, amount_minor
        FROM ledger_transfer WHERE credit_account_id = ANY(:accounts)
        UNION ALL
        SELECT debit_account_id, payment_id, -amount_minor
        FROM ledger_transfer WHERE debit_account_id = ANY(:accounts)
    ) AS passed WHERE payment_id IS NOT NULL
    GROUP BY payment_id, account_id HAVING sum(amount_minor) > 0
"""
_CARRIED: Final = """
    SELECT q.invoice_id AS quoted, a.invoice_id AS holder
    FROM payment q JOIN invoice i ON i.id = q.invoice_id
    JOIN allocation a ON a.payment_id = q.id AND a.invoice_id <> q.invoice_id
    WHERE i.contributor_id = ANY(:files) AND q.status = 'booked'
        AND i.status IN ('open', 'part_paid') AND i.cancelled_at IS NULL
    GROUP BY q.id, q.invoice_id, a.invoice_id HAVING sum(a.amount_minor) > 0
"""
_PAYING: Final = """
    SELECT payment_id FROM allocation WHERE invoice_id = ANY(:invoices)
    GROUP BY payment_id, invoice_id HAVING sum(amount_minor) <> 0
"""
_INVOICES_OF: Final = "SELECT id FROM invoice WHERE contributor_id = ANY(:files)"
_PAYING_ALL: Final = """
    SELECT payment_id FROM allocation JOIN invoice i ON i.id = invoice_id
    WHERE i.contributor_id = ANY(:files)
    GROUP BY payment_id, invoice_id HAVING sum(allocation.amount_minor) <> 0
    UNION
    SELECT q.id FROM payment q JOIN invoice i ON i.id = q.invoice_id
    WHERE i.contributor_id = ANY(:files) AND q.status = 'booked'
"""
_OPEN: Final = """
    SELECT id FROM invoice
    WHERE contributor_id = ANY(:files) AND status IN ('open', 'part_paid')
        AND cancelled_at IS NULL
"""
_STANDING: Final = """
    SELECT contributor_id, made_on AS since FROM plan
    WHERE contributor_id = ANY(:files) AND kept_on IS NULL AND broken_on IS NULL
    UNION ALL
    SELECT contributor_id, granted_on FROM remission
    WHERE contributor_id = ANY(:files) AND kept_on IS NULL AND broken_on IS NULL
"""
_COVERED: Final = """
    SELECT invoice_id FROM invoice_relief r JOIN invoice i ON i.id = invoice_id
    WHERE i.contributor_id = ANY(:files) AND r.ended_on IS NULL
    UNION
    SELECT invoice_id FROM plan JOIN bundle_item item ON item.bundle_id = plan.bundle_id
    WHERE plan.contributor_id = ANY(:files) AND broken_on IS NULL
"""


# -- writing --------------------------------------------------------------------------------------


def _finish(
    session: Session,
    debts: Debts,
    invoices: Iterable[InvoiceState],
    moved: Sequence[Moved],
    *,
    key: BooksKey,
    now: datetime,
) -> None:
    """Write what moved, post it, ask and stop asking, and tell."""
    ids = {at: each.id for at, each in debts.payments.items() if each.id is not None}
    allocations = [each for one in moved for each in one.allocations]
    write_debts(session, invoices, allocations, ids, now=now)
    opened = open_exceptions(session, _to_be_decided(moved), now=now)
    used_up = {each.payment.key: why_used_up(each) for each in moved if each.used_up}
    closed = resolve_used_up(session, used_up, now=now)
    postings = [
        posting._replace(payment_id=each.payment.id) for each in moved for posting in each.postings
    ]
    ledger.post(session, postings, key=key, now=now)
    told = [moved_happening(each) for each in moved if each.postings]
    tell(session, [*told, *opened_events(opened), *resolved_events(closed)], now=now)


def _to_be_decided(moved: Sequence[Moved]) -> list[Finding]:
    """Return what a person must know of money that an invoice needs no more.

    Credit that a note or a relief set free is no surprise: whoever wrote that said why, and it pays
    what is owed next. What is nobody's waits for a person, whatever set it free.
    """
    findings = []
    for each in moved:
        bill = each.invoice.bill
        waits = any(posting.credit == SUSPENSE for posting in each.postings)
        if each.off_minor and (waits or not (bill.notes or bill.reliefs)):
            note = made_room(each)
            subject = f"payment:{each.payment.name}"
            findings.append(Finding(note.code, subject, note.detail, each.payment.id))
    return findings
