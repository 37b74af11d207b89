"""Issue what is due, once, in bulk: the amounts are decided here, the rows made by the database."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlmodel import Session

from gateway.clock import day_of
from gateway.db import execute, snapshot, transaction
from gateway.dues import DueLine, principal
from gateway.errors import Unusable
from gateway.events import Happening, take_the_end_of_the_feed, tell
from gateway.models import EventType, Periodicity
from gateway.money import format_amount
from gateway.owing import CHANGED, owing_of
from gateway.periods import Period, period_of
from gateway.references import format_reference
from gateway.tariff import CategoryTariff, Tariff, keep_categories

AHEAD_DAYS_MAX: Final = 366
CHUNK: Final = 50_000
"""Contributors to a transaction: large enough to be fast, small enough to lose little."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class IssueResult:
    """What a run issued; a run that was cut short is continued by the next."""

    issued: int
    already: int
    """Owed for the period, and its days billed before this run."""
    total_minor: int
    """Sum of what this run issued, in centimes."""

    def as_json(self) -> dict[str, Any]:
        return {
            "issued": self.issued,
            "already": self.already,
            "total": format_amount(self.total_minor),
        }


def issue_invoices(
    tariff: Tariff,
    period: Period,
    *,
    category: str | None,
    clock: Callable[[], datetime],
    progress: Progress = lambda _done, _of: None,
) -> IssueResult:
    """Issue the period's invoices of one category, or of all that are owed by such periods.

    Opens a transaction per chunk of contributors. Killed between or inside chunks and run again,
    it issues what is missing and nothing twice: the database allows one invoice for a person and
    a period. A period is owed from the one that contains `registered_on` to the one that contains
    `left_on`. Nobody is billed twice for a day: who changed from months to quarters, or back, is
    left out while an invoice of the other kind that holds days of the period stands.

    Raises:
        Unusable: The tariff has no such category, the period is not of its kind, or it lies more
            than a year ahead.
    """
    _refuse_far(period, clock())
    if category is not None:
        categories = [tariff.of(category)]
    else:
        categories = [c for c in tariff.category if c.periodicity is period.periodicity]
    issued = already = total_minor = 0
    for each in categories:
        with transaction() as session:
            keep_categories(session, tariff)
            prices = _prices(session, tariff, each, period)
            first, last, owing = _owing(session, each, period)
        done = 0
        while prices and first <= last:
            with transaction() as session:
                ran = _issue_chunk(session, tariff, each, period, prices, (first, last), clock())
            first = ran.next_id
            issued += ran.issued
            already += ran.already
            total_minor += ran.total_minor
            done += ran.issued + ran.already
            progress(done, owing)
    return IssueResult(issued, already, total_minor)


def issue_one(
    session: Session,
    tariff: Tariff,
    category: CategoryTariff,
    period: Period,
    contributor_id: int,
    *,
    base_minor: int | None,
    line: DueLine,
    now: datetime,
) -> bool:
    """Issue one person's invoice of a period unless there is one; say whether it is new.

    The caller owns the transaction. Nothing is issued to who was not registered then, nor over a
    cancelled one.

    Args:
        session: Whose transaction it is.
        tariff: The one in force.
        category: The person's.
        period: Of the category's kind.
        contributor_id: Who owes.
        base_minor: The person's base in centimes, if the category has one.
        line: What is owed and why (gateway.dues.principal).
        now: The business clock.

    Raises:
        Unusable: The period lies more than a year ahead, or days of it are billed already.
    """
    _refuse_far(period, now)
    price = (base_minor, line, _keep_rule(session, line))
    ids = (contributor_id, contributor_id)
    if _issue_chunk(session, tariff, category, period, [price], ids, now).issued:
        return True
    other = execute(
        session,
        "SELECT period, reference FROM invoice WHERE contributor_id = :id"
        " AND period = ANY(:overlapping) AND cancelled_at IS NULL ORDER BY due_on LIMIT 1",
        {"id": contributor_id, "overlapping": _overlapping(period)},
    ).one_or_none()
    if other is not None:
        raise Unusable(
            f"Days of {period.code} are billed already by the invoice of {other.period}"
            f" ({format_reference(other.reference)}): nobody is billed twice for a day."
        )
    return False


def _refuse_far(period: Period, now: datetime) -> None:
    if (period.starts_on - day_of(now)).days > AHEAD_DAYS_MAX:
        raise Unusable(f"{period.code} lies more than a year ahead: issue it when it is nearer.")


def _overlapping(period: Period) -> list[str]:
    """Return the periods of the other kind that hold days of this one."""
    if period.periodicity is Periodicity.MONTH:
        return [period_of(period.starts_on, Periodicity.QUARTER).code]
    year, first = period.starts_on.year, period.starts_on.month
    return [f"{year}-{month:02}" for month in range(first, first + 3)]


def cancel_invoice(session: Session, reference: str, *, because: str, now: datetime) -> None:
    """Take back an invoice that nothing was paid on; for ever. The caller owns the transaction.

    Money that arrives for it afterwards is booked to its contributor's credit, for a person to
    decide on. The person is not billed again for the period.

    Raises:
        Unusable: There is no such invoice, something was paid on it, or it is cancelled already.
    """
    found = execute(
        session,
        "SELECT id, paid_minor, cancelled_at FROM invoice"
        " WHERE reference = :reference FOR NO KEY UPDATE",
        {"reference": reference},
    ).one_or_none()
    shown = format_reference(reference)
    if found is None:
        raise Unusable(f"No invoice has the reference {shown}.")
    invoice_id, paid_minor, cancelled_at = found
    if cancelled_at is not None:
        raise Unusable(f"Invoice {shown} was cancelled on {day_of(cancelled_at)} already.")
    if paid_minor:
        raise Unusable(
            f"Invoice {shown} has {format_amount(paid_minor)} MAD paid on it: it can be cancelled"
            " only after its payments are taken back."
        )
    execute(
        session,
        "UPDATE invoice SET cancelled_at = :now, cancelled_because = :because WHERE id = :id",
        {"now": now, "because": because, "id": invoice_id},
    )
    told = Happening(EventType.INVOICE_CANCELLED, {"reference": reference}, invoice_id=invoice_id)
    tell(session, [told], now=now)


def write_notices(path: Path, *, now: datetime) -> int:
    """Write what a payer must know to pay each unpaid invoice as CSV; return how many there are.

    Opens one snapshot. The amount is what paying on the day of `now` settles, penalty and fees
    included. The CNSS number tells the payer's own software whose notice it is.
    """
    with snapshot() as session, path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["reference", "amount", "cnss_number", "period", "due_on"])
        rows = execute(
            session,
            "SELECT i.id, reference, i.category_code, period, amount_minor, owed_minor, paid_minor,"
            f" i.status, due_on, cancelled_at, cnss_number, {CHANGED} AS changed"
            " FROM invoice i JOIN contributor ON contributor.id = contributor_id"
            " WHERE i.status IN ('open', 'part_paid') AND cancelled_at IS NULL"
            " ORDER BY cnss_number, period",
        )
        count = 0
        for some in rows.mappings().partitions(5_000):
            owing = owing_of(session, some, day_of(now))
            for row in some:
                due = owing[row["id"]]
                amount = format_amount(due.due_minor)
                day = due.payable_by
                out.writerow([row["reference"], amount, row["cnss_number"], row["period"], day])
            count += len(some)
    return count


_OWED: Final = (
    "category_code = :category AND registered_on <= :ends_on"
    " AND (left_on IS NULL OR left_on >= :starts_on)"
)


def _scope(category: CategoryTariff, period: Period) -> dict[str, Any]:
    return {"category": category.code, "starts_on": period.starts_on, "ends_on": period.ends_on}


def _owing(session: Session, category: CategoryTariff, period: Period) -> tuple[int, int, int]:
    """Return the first and last id of those who owe the period, and how many they are."""
    first, last, count = execute(
        session,
        f"SELECT coalesce(min(id), 0), coalesce(max(id), -1), count(*) FROM contributor"
        f" WHERE {_OWED}",
        _scope(category, period),
    ).one()
    return first, last, count


def _prices(
    session: Session, tariff: Tariff, category: CategoryTariff, period: Period
) -> list[tuple[int | None, DueLine, int]]:
    """Return each base that occurs, what it owes, and the id of the rule that says why.

    The decision is the pure function's, once for each distinct base, so that the set-based issue
    and a quote can never disagree.
    """
    bases: list[int | None] = [None]
    if category.needs_base:
        bases = list(
            execute(
                session,
                f"SELECT DISTINCT category_base_minor FROM contributor WHERE {_OWED}",
                _scope(category, period),
            ).scalars()
        )
    rules: dict[tuple[str, str, bool], int] = {}
    prices: list[tuple[int | None, DueLine, int]] = []
    for base in bases:
        line = principal(tariff, category, base_minor=base, period=period)
        if isinstance(line, DueLine):
            why = (line.rule, line.source, line.verified)
            if why not in rules:
                rules[why] = _keep_rule(session, line)
            prices.append((base, line, rules[why]))
    return prices


def _keep_rule(session: Session, line: DueLine) -> int:
    values = {"rule": line.rule, "source": line.source, "verified": line.verified}
    execute(
        session,
        "INSERT INTO rule (rule, source, verified, facts)"
        " VALUES (:rule, :source, :verified, CAST(:facts AS jsonb)) ON CONFLICT DO NOTHING",
        {**values, "facts": json.dumps(dict(line.facts))},
    )
    found: int = execute(
        session,
        "SELECT id FROM rule WHERE (rule, source, verified) = (:rule, :source, :verified)",
        values,
    ).scalar_one()
    return found


# One of the period itself bars another for ever, cancelled or not.
_BILLED: Final = "period = ANY(:billing) AND (period = :period OR cancelled_at IS NULL)"


@dataclass(frozen=True, slots=True)
class _Chunk:
    next_id: int
    issued: int
    already: int
    total_minor: int


def _issue_chunk(
    session: Session,
    tariff: Tariff,
    category: CategoryTariff,
    period: Period,
    prices: list[tuple[int | None, DueLine, int]],
    ids: tuple[int, int],
    now: datetime,
) -> _Chunk:
    """Issue for the next CHUNK people of a range of ids. The caller owns the transaction."""
    # Two runs at once would bill the same people and fail on the unique key: they take turns.
    execute(session, "SELECT pg_advisory_xact_lock(hashtext('wasl invoices issue'))")
    row = execute(
        session,
        f"""
        WITH chunk AS (
            SELECT id, category_base_minor FROM contributor
            WHERE id BETWEEN :first AND :last AND {_OWED} ORDER BY id LIMIT :size
        ), price AS (
            SELECT * FROM unnest(CAST(:bases AS bigint[]), CAST(:amounts AS bigint[]),
                CAST(:rules AS bigint[])) AS p (base, amount_minor, rule_id)
        ), missing AS MATERIALIZED (
            -- Numbered here, so that invoices and lines are made side by side: a join of the two
            -- afterwards has no statistics to be planned by, and was a thousand times slower.
            SELECT nextval(pg_get_serial_sequence('invoice', 'id')) AS invoice_id,
                nextval('invoice_number') AS number, chunk.id, price.amount_minor, price.rule_id
            FROM chunk JOIN price ON :flat OR price.base = chunk.category_base_minor
            WHERE NOT EXISTS (
                SELECT FROM invoice WHERE contributor_id = chunk.id AND {_BILLED}
            )
        ), fresh AS (
            INSERT INTO invoice (id, reference, contributor_id, category_code, period, due_on,
                amount_minor, owed_minor, tariff, issued_at)
            SELECT invoice_id, wasl_reference(number, (SELECT key FROM reference_key)), id,
                :category, :period, :due_on, amount_minor, amount_minor, :tariff, :now
            FROM missing
        ), lines AS (
            INSERT INTO invoice_line (invoice_id, position, kind, amount_minor, rule_id)
            SELECT invoice_id, 1, 'principal', amount_minor, rule_id FROM missing
        )
        SELECT coalesce((SELECT max(id) + 1 FROM chunk), :last + 1),
            (SELECT count(*) FROM missing),
            (SELECT count(DISTINCT chunk.id) FROM chunk JOIN invoice
                ON contributor_id = chunk.id AND {_BILLED}),
            (SELECT coalesce(sum(amount_minor), 0)::bigint FROM missing),
            (SELECT min(invoice_id) FROM missing), (SELECT max(invoice_id) FROM missing)
        """,
        {
            **_scope(category, period),
            "first": ids[0],
            "last": ids[1],
            "size": CHUNK,
            "flat": not category.needs_base,
            "bases": [base for base, _, _ in prices],
            "amounts": [line.amount_minor for _, line, _ in prices],
            "rules": [rule for _, _, rule in prices],
            "period": period.code,
            "billing": [period.code, *_overlapping(period)],
            "due_on": period.ends_on,
            "tariff": tariff.version,
            "now": now,
        },
    ).one()
    *counted, first_invoice, last_invoice = row
    if first_invoice is not None:
        _tell_issued(session, first_invoice, last_invoice, now)
    return _Chunk(*counted)


def _tell_issued(session: Session, first: int, last: int, now: datetime) -> None:
    """Tell of the invoices of a chunk. Nobody else issues beside us, so their ids are one span."""
    take_the_end_of_the_feed(session)
    execute(
        session,
        f"""
        INSERT INTO event (type, invoice_id, data, happened_at)
        SELECT '{EventType.INVOICE_ISSUED}', id, jsonb_build_object('reference', reference,
            'period', period, 'due_on', due_on, 'amount',
            (amount_minor / 100) || '.' || lpad((amount_minor % 100)::text, 2, '0')), :now
        FROM invoice WHERE id BETWEEN :first AND :last ORDER BY id
        """,
        {"now": now, "first": first, "last": last},
    )
