"""Hold what providers and banks say they paid out against the payments that are booked.

Only what agrees is kept, as a group; what does not is decided anew each time, and asked about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlmodel import Session

from gateway.clock import day_of
from gateway.db import copy_rows, execute
from gateway.exception_queue import Finding, open_exceptions, resolve_exceptions
from gateway.models import ExceptionCode
from gateway.money import format_amount
from gateway.references import read_reference
from reconciliation.sources.chain import covered_days
from reconciliation.sources.dialects import Source, dialects
from reconciliation.sources.pairing import line_subject, pair
from reconciliation.sources.settlements import links_of
from reconciliation.sources.sides import (
    Code,
    Covered,
    Found,
    Group,
    Line,
    Paid,
    Pairing,
    Terms,
)
from reconciliation.sources.statements import DAY_MAX, DAY_MIN

FOUND_AT_ONCE: Final = 10_000
SUBJECTS: Final = "settlement:"
"""What the subjects of all these exceptions begin with; runs of records leave them alone."""


@dataclass(slots=True)
class SettlingResult:
    """What holding files against the books came to, for all senders."""

    payments: int = 0
    """Payments that were settled now and were not before."""
    settled_minor: int = 0
    """What they came to."""
    undone: int = 0
    """Groups that no longer hold."""
    exceptions: dict[str, int] = field(default_factory=dict)
    """Open afterwards, by code."""
    opened: int = 0
    resolved: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it for programs: amounts as decimal strings."""
        return {
            "payments": self.payments,
            "settled": format_amount(self.settled_minor),
            "undone": self.undone,
            "exceptions": self.exceptions,
            "opened": self.opened,
            "resolved": self.resolved,
        }


def settle(session: Session, *, now: datetime) -> SettlingResult:
    """Decide what every settlement line stands for, as far as nothing settled says it already.

    The caller owns the transaction, holds `lock_records`, and tells what came of it: nothing is
    told here, since a run may open a million exceptions. The same again changes nothing; a group
    whose payment was given back since, or whose movement came with its details since, is decided
    anew, and exceptions of earlier runs whose reason is gone are closed.
    """
    # What these statements are estimated at has them compiled, which takes longer than they do.
    execute(session, "SET LOCAL jit = off")
    result = SettlingResult()
    found: dict[tuple[str, str], Found] = {}
    senders = execute(session, "SELECT DISTINCT provider FROM settlement_statement ORDER BY 1")
    for provider in senders.scalars().all():
        for by_bank in (False, True):
            work = _Sender(session, provider, by_bank, dialects().of(provider), now)
            for each in work.settle(result):
                found.setdefault((each.code.value, each.subject), each)
    result.exceptions = dict(sorted(Counter(code for code, _ in found).items()))
    _ask(session, found, result, now)
    return result


def _ask(
    session: Session,
    found: Mapping[tuple[str, str], Found],
    result: SettlingResult,
    now: datetime,
) -> None:
    """Open what is new, and close what is not found again, or is found in another way."""
    asked = execute(
        session,
        "SELECT code, subject, detail FROM coded_exception WHERE resolved_at IS NULL"
        " AND code = ANY(:codes) AND starts_with(subject, :subjects)",
        {"codes": [code.value for code in Code], "subjects": SUBJECTS},
    )
    gone: dict[str, list[str]] = {}
    for code, subject, detail in asked:
        again = found.get((code, subject))
        if again is None or again.detail != detail:
            gone.setdefault(code, []).append(subject)
    because = "the settlement files and the books do not say so any more"
    for code, subjects in gone.items():
        closed = resolve_exceptions(
            session, ExceptionCode(code), subjects, because=because, now=now
        )
        result.resolved += len(closed)
    findings = [
        Finding(ExceptionCode(each.code.value), each.subject, each.detail, each.payment)
        for each in found.values()
    ]
    for start in range(0, len(findings), FOUND_AT_ONCE):
        some = findings[start : start + FOUND_AT_ONCE]
        result.opened += len(open_exceptions(session, some, now=now))


_Members = tuple[frozenset[int], frozenset[int]]
"""Lines and payments of a group, by their keys."""


@dataclass(slots=True)
class _Sender:
    """One sender's files of one kind, within the caller's transaction."""

    session: Session
    provider: str
    by_bank: bool
    source: Source
    now: datetime

    def settle(self, result: SettlingResult) -> list[Found]:
        standing = self._touched()
        payments = self._payments(list(standing))
        pairing = pair(self._lines(list(standing)), payments, self._terms())
        self._keep(pairing, standing, result)
        return pairing.found

    def _asked(self, **more: Any) -> dict[str, Any]:
        return {
            "provider": self.provider,
            "by_bank": self.by_bank,
            "pays_for": list(self.source.pays_for),
            **more,
        }

    # -- what is looked at ------------------------------------------------------------------------

    def _touched(self) -> dict[int, _Members]:
        """Return the groups that something new is about, with their members."""
        rows = execute(self.session, _TOUCHED, self._asked())
        return {group: (frozenset(lines), frozenset(paid)) for group, lines, paid in rows}

    def _lines(self, groups: Sequence[int]) -> Iterator[Line]:
        rows = execute(self.session, _LINES, self._asked(groups=groups))
        for key, entry, number, amount, day, at, ids, quoted, batch_of, details in rows:
            yield Line(
                key=key,
                subject=line_subject(self.provider, entry, number),
                amount_minor=amount,
                day=day if day is not None or at is None else day_of(at),
                payment_ids=tuple(ids),
                quoted=tuple(quoted),
                is_whole=self.by_bank and number == 0,
                batch_of=batch_of,
                details_minor=details,
            )

    def _payments(self, groups: Sequence[int]) -> Iterator[Paid]:
        rows = execute(self.session, _PAYMENTS, self._asked(groups=groups, since=self._since()))
        for row in rows:
            yield Paid(
                key=row.id,
                provider=row.provider,
                payment_id=row.provider_payment_id,
                reference=row.reference or read_reference(row.reference_given),
                amount_minor=row.amount_minor,
                worth_minor=row.worth_minor,
                paid_on=day_of(row.paid_at),
                status=row.status,
                was_booked=row.booked_at is not None,
                given_back_on=None if row.back_at is None else day_of(row.back_at),
            )

    def _since(self) -> date:
        """Return the first day that a payment can be of which these files may show."""
        first: date | None = execute(
            self.session,
            f"SELECT min(least(s.from_on, l.booked_on)) FROM settlement_statement s"
            f" LEFT JOIN ({_OPEN}) AS l ON l.statement_id = s.id WHERE s.provider = :provider",
            self._asked(),
        ).scalar_one()
        window = timedelta(days=1 + (self.source.window_days or 0))
        return DAY_MAX if first is None else max(first, DAY_MIN) - window

    def _terms(self) -> Terms:
        accounts = execute(
            self.session,
            "SELECT DISTINCT account FROM settlement_statement WHERE provider = :provider"
            " AND from_on IS NOT NULL AND (form <> 'csv') = :by_bank ORDER BY 1",
            self._asked(),
        )
        return Terms(
            sender=self.provider,
            covered=[
                Covered(
                    covered_days(links_of(self.session, self.provider, [account])),
                    is_chained=self.by_bank,
                )
                for account in accounts.scalars().all()
            ],
            grace=timedelta(days=self.source.grace_days or 0),
            window=timedelta(days=self.source.window_days or 0),
        )

    # -- what is kept -----------------------------------------------------------------------------

    def _keep(
        self, pairing: Pairing, standing: Mapping[int, _Members], result: SettlingResult
    ) -> None:
        """Store the groups; those that stand as they were are left alone."""
        worth = {p.key: p.worth_minor for group in pairing.groups for p in group.payments}
        amounts = execute(
            self.session,
            "SELECT group_id, array_agg(payment_id), array_agg(amount_minor) FROM settled_payment"
            " WHERE group_id = ANY(:groups) GROUP BY 1",
            {"groups": list(standing)},
        )
        changed = {
            group
            for group, keys, then in amounts
            if any(worth.get(key) != was for key, was in zip(keys, then, strict=True))
        }
        same = {members: group for group, members in standing.items() if group not in changed}
        fresh = [group for group in pairing.groups if _members(group) not in same]
        again = {_members(group) for group in pairing.groups}
        gone = [g for g, members in standing.items() if g in changed or members not in again]
        result.undone += len(gone)
        for statement in _UNDO:
            execute(self.session, statement, {"groups": gone, "now": self.now})
        self._insert(fresh)
        before = {payment for _, payments in standing.values() for payment in payments}
        for group in fresh:
            new = [p for p in group.payments if p.key not in before]
            result.payments += len(new)
            result.settled_minor += sum(p.worth_minor for p in new)

    def _insert(self, groups: Sequence[Group]) -> None:
        if not groups:
            return
        session = self.session
        # Keys for all at once: nobody else settles while the lock is held.
        first: int = execute(
            session,
            "SELECT setval(keys, nextval(keys) + :count - 1) - :count + 1 FROM"
            " CAST(pg_get_serial_sequence('settlement_group', 'id') AS regclass) AS keys",
            {"count": len(groups)},
        ).scalar_one()
        copy_rows(
            session,
            "COPY settlement_group (id, provider, by_bank, rule, settled_at) FROM STDIN",
            (
                (key, self.provider, self.by_bank, group.rule.value, self.now)
                for key, group in enumerate(groups, first)
            ),
        )
        copy_rows(
            session,
            "COPY settled_line (line_id, group_id) FROM STDIN",
            sorted(
                (line.key, key) for key, group in enumerate(groups, first) for line in group.lines
            ),
        )
        copy_rows(
            session,
            "COPY settled_payment (payment_id, provider, by_bank, group_id, amount_minor)"
            " FROM STDIN",
            sorted(
                (paid.key, self.provider, self.by_bank, key, paid.worth_minor)
                for key, group in enumerate(groups, first)
                for paid in group.payments
            ),
        )


def _members(group: Group) -> _Members:
    return (
        frozenset(line.key for line in group.lines),
        frozenset(paid.key for paid in group.payments),
    )


_UNDO: Final = (
    "DELETE FROM settled_line WHERE group_id = ANY(:groups)",
    "DELETE FROM settled_payment WHERE group_id = ANY(:groups)",
    "UPDATE settlement_group SET undone_at = :now,"
    " undone_because = 'its payment or its movement is known otherwise since'"
    " WHERE id = ANY(:groups)",
)
_COUNTS: Final = """(l.transaction > 0 OR NOT EXISTS (
    SELECT FROM settlement_line d WHERE d.provider = l.provider AND d.entry_key = l.entry_key
        AND d.transaction > 0
))"""
"""A movement that came with its details counts by these."""
_OPEN: Final = f"""
    SELECT l.* FROM settlement_line l JOIN settlement_statement st ON st.id = l.statement_id
    WHERE l.provider = :provider AND (st.form <> 'csv') = :by_bank
        AND l.kind IN ('payment', 'reversal') AND {_COUNTS}
        AND NOT EXISTS (SELECT FROM settled_line s WHERE s.line_id = l.id)
"""
_WORTH: Final = """
    CASE payment.status WHEN 'booked' THEN payment.amount_minor - payment.returned_minor
        + CASE WHEN payment.returned_minor = 0 THEN 0 ELSE coalesce((
            SELECT sum(CASE WHEN t.credit_account_id = a.id THEN t.amount_minor
                ELSE -t.amount_minor END)
            FROM ledger_transfer t JOIN ledger_account a
                ON a.id IN (t.debit_account_id, t.credit_account_id)
            WHERE t.payment_id = payment.id AND a.kind = 'paid_out'
        ), 0)::bigint END
    ELSE 0 END
"""
"""What the provider owes us of a payment: what the institution gave back by hand is no matter of
its."""
# What an open line names: payments by the provider's id, or by a reference that it quotes.
_NAMED: Final = f"""
    open_line AS MATERIALIZED ({_OPEN}),
    given_id AS (
        SELECT DISTINCT unnest(payment_ids) AS id, amount_minor < 0 AS takes_back FROM open_line
    ),
    given_reference AS (
        SELECT DISTINCT unnest(quoted) AS reference, amount_minor < 0 AS takes_back FROM open_line
    ),
    named AS MATERIALIZED (
        SELECT p.id, takes_back, true AS by_id FROM given_id
        JOIN payment p ON p.provider = ANY(:pays_for) AND p.provider_payment_id = given_id.id
        UNION
        SELECT p.id, takes_back, false FROM given_reference
        JOIN invoice i USING (reference)
        JOIN payment p ON p.invoice_id = i.id AND p.provider = ANY(:pays_for)
        UNION
        SELECT p.id, takes_back, false FROM given_reference
        JOIN bundle b USING (reference)
        JOIN payment p ON p.bundle_id = b.id AND p.provider = ANY(:pays_for)
    )
"""
_TOUCHED: Final = f"""
    WITH {_NAMED}, touched AS (
        SELECT s.group_id FROM settled_payment s JOIN payment ON payment.id = s.payment_id
        WHERE s.provider = :provider AND s.by_bank = :by_bank AND s.amount_minor <> {_WORTH}
        UNION
        SELECT s.group_id FROM settled_payment s JOIN named ON named.id = s.payment_id
        WHERE s.provider = :provider AND s.by_bank = :by_bank AND (by_id OR takes_back)
        UNION
        SELECT s.group_id FROM settlement_line d
        JOIN settlement_line l USING (provider, entry_key)
        JOIN settled_line s ON s.line_id = l.id
        WHERE :by_bank AND d.provider = :provider AND d.transaction > 0 AND l.transaction = 0
        UNION
        SELECT s.group_id FROM settlement_group g JOIN settled_line s ON s.group_id = g.id
        JOIN settlement_line l ON l.id = s.line_id
        CROSS JOIN LATERAL unnest(l.payment_ids) AS its (id) JOIN given_id ON given_id.id = its.id
        WHERE g.provider = :provider AND g.by_bank = :by_bank AND g.rule = 'taken-back'
    )
    SELECT group_id,
        ARRAY(SELECT line_id FROM settled_line s WHERE s.group_id = touched.group_id),
        ARRAY(SELECT payment_id FROM settled_payment s WHERE s.group_id = touched.group_id)
    FROM touched
"""
_LINE_COLUMNS: Final = (
    "id, entry_key, transaction, amount_minor, booked_on, happened_at, payment_ids, quoted,"
    " batch_of, details_minor"
)
_LINES: Final = f"""
    SELECT {_LINE_COLUMNS} FROM ({_OPEN}) AS open_line
    UNION ALL
    SELECT {_LINE_COLUMNS} FROM settlement_line l
    WHERE id IN (SELECT line_id FROM settled_line WHERE group_id = ANY(:groups)) AND {_COUNTS}
"""
_PAYMENTS: Final = f"""
    WITH {_NAMED}, looked_at AS (
        SELECT id FROM named
        UNION
        SELECT id FROM payment WHERE provider = ANY(:pays_for) AND status = 'booked'
            AND paid_at >= CAST(:since AS date) AND (returned_minor < amount_minor OR EXISTS (
                SELECT FROM refund r WHERE r.payment_id = payment.id AND r.way = 'by_hand'))
        UNION
        SELECT payment_id FROM settled_payment WHERE group_id = ANY(:groups)
    )
    SELECT payment.id, payment.provider, provider_payment_id, reference_given,
        coalesce(invoice.reference, bundle.reference) AS reference, payment.amount_minor,
        {_WORTH} AS worth_minor, paid_at, payment.status, booked_at,
        CASE WHEN payment.status = 'reversed' THEN stated_at
            WHEN returned_minor > 0 THEN coalesce((
                SELECT max(made_at) FROM payment_return r WHERE r.provider = payment.provider
                    AND r.provider_payment_id = payment.provider_payment_id
            ), stated_at) END AS back_at
    FROM looked_at JOIN payment USING (id)
    LEFT JOIN invoice ON invoice.id = payment.invoice_id
    LEFT JOIN bundle ON bundle.id = payment.bundle_id
    WHERE NOT EXISTS (
        SELECT FROM settled_payment s WHERE s.payment_id = payment.id
            AND s.provider = :provider AND s.by_bank = :by_bank AND s.group_id <> ALL(:groups)
    )
"""
