"""What the books promise of invoices, payments and what changed them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice
from operator import itemgetter
from typing import Final

from sqlmodel import Session, SQLModel

from gateway.billing.bills import last_day, placed_parts, read_bills, read_claims, read_parts
from gateway.books.kinds import TransferKind, kind_of
from gateway.books.seals import BooksKey, HeadsFile
from gateway.checks import FINDINGS_MAX, Broken, Check, sql_check, stream
from gateway.checks.refunds import REFUNDS
from gateway.checks.tampering import tampering_checks
from gateway.collection.payment_batch import return_of
from gateway.collection.returns import given_parts, parts_of, within
from gateway.db import NAMES, execute
from gateway.dues.balances import balance
from gateway.dues.tariff import tariff
from gateway.migrate import Judges


def books_checks(key: BooksKey, heads_file: HeadsFile, judges: Judges) -> list[Check]:
    """Return the checks of invoices, payments and the books.

    To be called before the snapshot is opened (see `tampering_checks`).
    """
    return [
        *tampering_checks(key, heads_file, judges),
        Check("whatever a row names is there", _named),
        Check("a payment gives back what its refunds and disputes say", _returned),
        Check("an invoice comes to what its notes, reliefs and payments say", _worked_out),
        *_PAYMENTS,
        *REFUNDS,
        *_INVOICES,
        *_CHANGES,
    ]


# What a penalty, a note or a relief may have changed. A day early, whatever PostgreSQL knows of
# Moroccan time: those few are then worked out and found to be ordinary.
_INTRICATE: Final = """
    EXISTS (SELECT FROM invoice_note n WHERE n.invoice_id = i.id)
    OR EXISTS (SELECT FROM invoice_relief r WHERE r.invoice_id = i.id)
    OR EXISTS (SELECT FROM allocation a JOIN payment p ON p.id = a.payment_id
        WHERE a.invoice_id = i.id AND p.paid_at >=
            (date_trunc('month', i.due_on) + interval '1 month' - interval '1 day')
                AT TIME ZONE 'UTC')
"""

# What the institution paid out by hand of a payment that was reversed as a whole since, or before:
# nothing covers it, so it is a debit in suspense.
_CLAIM: Final = """(
    SELECT coalesce(sum(r.amount_minor), 0) FROM payment_return r
    WHERE (r.provider, r.provider_payment_id) = (p.provider, p.provider_payment_id)
    AND p.status = 'reversed' AND r.kind = 'by_hand' AND r.state = 'given')"""

_PAYMENTS: Final = (
    sql_check(
        "every payment is in the books once, with its amount",
        f"""
        SELECT 'payment ' || p.id || ' (' || p.provider || '/' || p.provider_payment_id || ')'
        FROM payment p LEFT JOIN (
            SELECT t.payment_id, sum(CASE
                WHEN d.code IN ('clearing:' || p.provider, 'paid_out:institution')
                    THEN t.amount_minor
                WHEN c.code IN ('clearing:' || p.provider, 'paid_out:institution')
                    THEN -t.amount_minor ELSE 0 END) AS net
            FROM ledger_transfer t JOIN payment p ON p.id = t.payment_id
            JOIN ledger_account d ON d.id = t.debit_account_id
            JOIN ledger_account c ON c.id = t.credit_account_id
            GROUP BY t.payment_id
        ) booked ON booked.payment_id = p.id
        WHERE coalesce(booked.net, 0)
            <> CASE WHEN p.status = 'booked' THEN p.amount_minor - p.returned_minor
                ELSE -{_CLAIM} END
        """,
    ),
    sql_check(
        "every transfer bears the name of its payment",
        """
        SELECT 'ledger_transfer ' || t.id
        FROM ledger_transfer t JOIN payment p ON p.id = t.payment_id
        WHERE NOT starts_with(t.name, p.provider || '/' || p.provider_payment_id || '/')
        """,
    ),
    sql_check(
        "a payment went where its transfers say",
        # What moved on since is another matter: here, what came from the provider.
        """
        SELECT DISTINCT 'payment ' || p.id FROM payment p
        JOIN ledger_transfer t ON t.payment_id = p.id
        JOIN ledger_account d ON d.id = t.debit_account_id AND d.kind = 'clearing'
        LEFT JOIN bundle b ON b.id = p.bundle_id
        WHERE t.reverses_id IS NULL AND CASE
            WHEN b.kind = 'selection' THEN t.invoice_id IS NOT NULL AND NOT EXISTS (
                SELECT FROM bundle_item i WHERE i.bundle_id = b.id AND i.invoice_id = t.invoice_id)
            WHEN b.kind = 'plan' THEN false
            ELSE t.invoice_id IS DISTINCT FROM p.invoice_id END
        """,
    ),
    sql_check(
        "every payment has a legal status",
        """
        SELECT 'payment ' || id FROM payment
        WHERE status NOT IN ('pending', 'failed', 'booked', 'reversed')
            OR (status IN ('pending', 'failed')) <> (booked_at IS NULL) AND status <> 'reversed'
        """,
    ),
    sql_check(
        "what is allocated is what the books say is payable",
        """
        SELECT 'payment ' || coalesce(a.payment_id, t.payment_id)
            || ', invoice ' || coalesce(a.invoice_id, t.invoice_id)
        FROM (
            SELECT payment_id, invoice_id, sum(amount_minor) AS allocated
            FROM allocation GROUP BY payment_id, invoice_id
        ) a FULL JOIN (
            SELECT payment_id, invoice_id, sum(CASE WHEN c.code = 'payable:institution'
                THEN amount_minor ELSE -amount_minor END) AS payable
            FROM ledger_transfer JOIN ledger_account d ON d.id = debit_account_id
            JOIN ledger_account c ON c.id = credit_account_id
            WHERE 'payable:institution' IN (c.code, d.code) GROUP BY payment_id, invoice_id
        ) t ON (t.payment_id, t.invoice_id) = (a.payment_id, a.invoice_id)
        WHERE coalesce(allocated, 0) <> coalesce(payable, 0)
        """,
    ),
    sql_check(
        "no account has changed sides",
        f"""
        SELECT 'ledger_account ' || code FROM (
            SELECT a.code, a.kind, coalesce((SELECT sum(amount_minor) FROM ledger_transfer
                    WHERE debit_account_id = a.id), 0)
                - coalesce((SELECT sum(amount_minor) FROM ledger_transfer
                    WHERE credit_account_id = a.id), 0) AS net
            FROM ledger_account a
        ) balance
        WHERE (kind IN ('payable', 'credit', 'paid_out') AND net > 0)
            OR (kind = 'suspense' AND net > (SELECT coalesce(sum({_CLAIM}), 0) FROM payment p
                WHERE p.status = 'reversed'))
            OR (kind IN ('clearing', 'till') AND net < 0)
        """,
    ),
    sql_check(
        "money in suspense is what no invoice claims",
        # Of a bundle that is nobody's: what its invoices do not need.
        f"""
        SELECT 'payment ' || p.id FROM payment p LEFT JOIN (
            SELECT payment_id, sum(CASE WHEN c.code = 'suspense:unidentified' THEN amount_minor
                ELSE -amount_minor END) AS held
            FROM ledger_transfer JOIN ledger_account d ON d.id = debit_account_id
            JOIN ledger_account c ON c.id = credit_account_id
            WHERE 'suspense:unidentified' IN (c.code, d.code) GROUP BY payment_id
        ) suspense ON suspense.payment_id = p.id
        LEFT JOIN bundle b ON b.id = p.bundle_id
        WHERE coalesce(held, 0) <> CASE
            WHEN p.status = 'reversed' THEN -{_CLAIM}
            WHEN p.status <> 'booked' OR p.invoice_id IS NOT NULL OR b.contributor_id IS NOT NULL
                THEN 0
            ELSE p.amount_minor - p.returned_minor - coalesce((SELECT sum(amount_minor)
                FROM allocation WHERE payment_id = p.id), 0) END
        """,
    ),
    sql_check(
        "no payment pays less than nothing of a debt",
        """
        SELECT 'payment ' || payment_id || ', invoice ' || invoice_id || ', ' || component
        FROM allocation GROUP BY payment_id, invoice_id, component HAVING sum(amount_minor) < 0
        """,
    ),
    sql_check(
        "whoever must decide about a payment has been told",
        # Credit that a note or a relief set free is no surprise: whoever wrote that said why.
        """
        SELECT 'payment ' || p.id FROM payment p
        WHERE p.booked_at IS NOT NULL AND (p.invoice_id IS NULL AND p.bundle_id IS NULL OR EXISTS (
                SELECT FROM ledger_transfer t
                JOIN ledger_account d ON d.id = t.debit_account_id
                JOIN ledger_account c ON c.id = t.credit_account_id
                WHERE t.payment_id = p.id AND t.reverses_id IS NULL
                AND (c.kind = 'suspense' AND d.kind <> 'paid_out'
                    OR c.kind = 'credit' AND (d.kind = 'clearing'
                    OR NOT EXISTS (SELECT FROM invoice_note n WHERE n.invoice_id = t.invoice_id)
                    AND NOT EXISTS (SELECT FROM invoice_relief r
                        WHERE r.invoice_id = t.invoice_id)))))
            AND NOT EXISTS (SELECT FROM coded_exception e WHERE e.payment_id = p.id
                AND e.code IN ('unknown_reference', 'overpaid', 'paid_twice', 'paid_cancelled'))
        """,
    ),
)

_INVOICES: Final = (
    sql_check(
        "what is paid of an invoice is what was allocated to it",
        """
        SELECT 'invoice ' || i.id || ' (' || i.reference || ')' FROM invoice i LEFT JOIN (
            SELECT invoice_id, sum(amount_minor) AS paid FROM allocation GROUP BY invoice_id
        ) a ON a.invoice_id = i.id
        WHERE i.paid_minor <> coalesce(a.paid, 0)
        """,
    ),
    sql_check(
        "an invoice's amount is the sum of its lines",
        """
        SELECT 'invoice ' || i.id || ' (' || i.reference || ')' FROM invoice i LEFT JOIN (
            SELECT invoice_id, sum(amount_minor) AS total FROM invoice_line GROUP BY invoice_id
        ) l ON l.invoice_id = i.id
        WHERE i.amount_minor <> coalesce(l.total, 0)
        """,
    ),
    sql_check(
        "an invoice's status is what its amounts imply",
        """
        SELECT 'invoice ' || id || ' (' || reference || ')' FROM invoice
        WHERE status <> CASE WHEN owed_minor = 0 THEN 'cleared' WHEN paid_minor = 0 THEN 'open'
            WHEN paid_minor < owed_minor THEN 'part_paid' ELSE 'paid' END
            OR paid_minor NOT BETWEEN 0 AND owed_minor
        """,
    ),
    sql_check(
        "an invoice that nothing changed, and that nobody paid late, comes to its amount",
        f"""
        SELECT 'invoice ' || i.id || ' (' || i.reference || ')' FROM invoice i
        WHERE NOT ({_INTRICATE}) AND i.cancelled_at IS NULL AND (owed_minor <> amount_minor
            OR EXISTS (SELECT FROM allocation WHERE invoice_id = i.id
                GROUP BY component HAVING component <> 'principal' AND sum(amount_minor) <> 0))
        """,
    ),
)

# What changes a debt after its issue bears no seal. So each is held against what was told of it
# when it was written, and against what it rests on.
_CHANGES: Final = (
    sql_check(
        "every note on an invoice was told of as it stands",
        """
        SELECT 'invoice ' || invoice_id FROM (
            SELECT invoice_id, kind, amount_minor, count(*) AS noted
            FROM invoice_note GROUP BY 1, 2, 3
        ) n FULL JOIN (
            SELECT invoice_id, data ->> 'kind' AS kind,
                CAST(CAST(data ->> 'amount' AS numeric) * 100 AS bigint) AS amount_minor,
                count(*) AS told
            FROM event WHERE type = 'invoice.adjusted' AND data ->> 'kind' <> 'remission'
            GROUP BY 1, 2, 3
        ) e USING (invoice_id, kind, amount_minor)
        WHERE noted IS DISTINCT FROM told
        """,
    ),
    sql_check(
        "every invoice that is cancelled was told to be",
        # Those cancelled before there was a feed were not.
        """
        SELECT 'invoice ' || id || ' (' || reference || ')' FROM invoice i
        WHERE cancelled_at IS NOT NULL AND NOT EXISTS (
                SELECT FROM event WHERE type = 'invoice.cancelled' AND invoice_id = i.id)
            AND greatest(cancelled_at, issued_at)
                >= (SELECT happened_at FROM event ORDER BY id LIMIT 1)
        """,
    ),
    sql_check(
        "a relief ends with the plan or the remission that it is of, and not otherwise",
        """
        SELECT 'invoice_relief ' || r.id FROM invoice_relief r
        LEFT JOIN plan ON plan.id = r.plan_id LEFT JOIN remission m ON m.id = r.remission_id
        WHERE r.ended_on IS DISTINCT FROM coalesce(plan.broken_on, m.broken_on)
        """,
    ),
    sql_check(
        "a relief remits what its rule says",
        """
        SELECT 'invoice_relief ' || r.id FROM invoice_relief r JOIN rule ON rule.id = r.rule_id
        WHERE CASE facts ->> 'form'
            WHEN 'remission' THEN (principal_rate, penalty_rate, fee_rate) <> (
                CAST(facts ->> 'principal' AS numeric) / 100,
                CAST(facts ->> 'penalty' AS numeric) / 100,
                CAST(facts ->> 'fee' AS numeric) / 100)
            WHEN 'plan' THEN (principal_rate, penalty_rate, fee_rate) <> (0, 0, 0)
                OR stops_penalty <> (facts ->> 'stops_penalty' = 'yes')
            END
        """,
    ),
    sql_check(
        "a plan spreads the invoices that it relieves, by instalments that sum to it",
        """
        SELECT 'plan ' || plan.id FROM plan, LATERAL (
            SELECT coalesce(sum(amount_minor), 0) AS total_minor, count(*) AS months
            FROM plan_instalment WHERE plan_id = plan.id
        ) AS asked
        WHERE (plan.amount_minor, plan.months) <> (asked.total_minor, asked.months)
            OR ARRAY(SELECT invoice_id FROM bundle_item item
                WHERE item.bundle_id = plan.bundle_id ORDER BY 1)
            <> ARRAY(SELECT invoice_id FROM invoice_relief r WHERE r.plan_id = plan.id ORDER BY 1)
        """,
    ),
    sql_check(
        "a file that was merged points to one that stands",
        """
        SELECT 'contributor ' || c.id FROM contributor c
        JOIN contributor target ON target.id = c.merged_into_id
        WHERE target.merged_into_id IS NOT NULL
        """,
    ),
)


def _named(session: Session) -> Iterator[Broken]:
    """Look for rows that name what is not there: no foreign key keeps these columns (db.names)."""
    for table in SQLModel.metadata.sorted_tables:
        for column in table.columns:
            if (named := column.info.get(NAMES)) is None:
                continue
            query = (
                f"SELECT DISTINCT {column.name} FROM {table.name} AS t WHERE {column.name} IS NOT"
                f" NULL AND NOT EXISTS (SELECT FROM {named} AS n WHERE n.id = t.{column.name})"
                f" LIMIT {FINDINGS_MAX}"
            )
            for missing in execute(session, query).scalars():
                where = f"{table.name}.{column.name} {missing}"
                yield Broken("whatever a row names is there", where)


def _returned(session: Session) -> Iterator[Broken]:
    """Hold what was given back against all returns of a payment, by the rule that moved it.

    In all, and by transfers of each kind: refunded, by hand, taken back in disputes.
    """
    rows = stream(session, _RETURNED)
    for payment_id, some in groupby(rows, key=itemgetter("id")):
        held = list(some)
        returns = [return_of(row) for row in held if row["kind"] is not None]
        wanted = within(given_parts(returns), held[0]["brought"])
        sums: dict[TransferKind, int] = {}
        for name, minor in held[0]["transfers"] or ():
            kind = kind_of(name, held[0]["payment"])
            sums[kind] = sums.get(kind, 0) + minor
        if held[0]["returned_minor"] != sum(wanted.values()):
            yield Broken("a payment gives back other than its returns say", f"payment {payment_id}")
        elif parts_of(sums, wanted) != wanted:
            what = "transfers give back other than refunds and disputes say"
            yield Broken(what, f"payment {payment_id}")


_RETURNED: Final = """
    SELECT p.id, p.provider || '/' || p.provider_payment_id AS payment, p.amount_minor AS brought,
        p.returned_minor, r.kind, r.return_id, r.state, r.amount_minor, r.made_at, r.stated_at,
        r.restored_at, r.outcome, (SELECT json_agg(json_build_array(t.name, t.amount_minor))
            FROM ledger_transfer t WHERE t.payment_id = p.id) AS transfers
    FROM payment p LEFT JOIN payment_return r USING (provider, provider_payment_id)
    WHERE p.status = 'booked' AND (p.returned_minor <> 0 OR r.id IS NOT NULL) ORDER BY p.id
"""


def _worked_out(session: Session) -> Iterator[Broken]:
    """Work out each invoice that is not simply its amount, by the rule that placed its money."""
    rows = stream(
        session,
        "SELECT i.id, i.reference, i.category_code, i.paid_minor, i.owed_minor FROM invoice i"
        f" WHERE i.cancelled_at IS NULL AND ({_INTRICATE}) ORDER BY i.id",
    )
    while some := list(islice(rows, _AT_ONCE)):
        ids = [row["id"] for row in some]
        bills, claims = read_bills(session, ids), read_claims(session, ids)
        parts = read_parts(session, ids)
        for row in some:
            at, paid = row["id"], claims.get(row["id"], [])
            bill = bills[at]
            rates = tariff().penalty_rates(row["category_code"])
            found = balance(bill, paid, rates, last_day(bill, paid))
            said = (row["paid_minor"], row["owed_minor"], parts.get(at, {}))
            if said != (found.paid_minor, found.owed_minor, placed_parts(found)):
                what = "an invoice comes to other than its notes, reliefs and payments say"
                yield Broken(what, f"invoice {at} ({row['reference']})")


_AT_ONCE: Final = 1_000
