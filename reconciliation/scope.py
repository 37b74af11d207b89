"""What a run looks at, in SQL: payments and records that are open, of a period, of a shard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Scope:
    """Which open rows are meant."""

    period: str | None = None
    """Payments of invoices of this period, records of this period; None: all."""
    shard: int = 0
    shards: int = 1
    """Only references that belong to this of so many shards; 1: all rows, without reference too."""

    @property
    def parameters(self) -> dict[str, Any]:
        return {"period": self.period, "shard": self.shard, "shards": self.shards}

    def holds(self, reference: int) -> bool:
        """Say whether a reference belongs to the shard."""
        return self.shards == 1 or reference // 100 % self.shards == self.shard


IN_SHARD: Final = "(:shards = 1 OR CAST(k AS bigint) / 100 % :shards = :shard)"
"""Of rows with a reference `k`. The last two digits are for checking, and spread badly."""

# A payment quoted an invoice or a bundle. Money in suspense is not here: it has an exception of its
# own, and is not the institution's before a person says whose it is.
PAYMENT_IN_SCOPE: Final = """
    (payment.invoice_id IS NOT NULL OR payment.bundle_id IS NOT NULL)
    AND (CAST(:period AS text) IS NULL
        OR EXISTS (SELECT FROM invoice i WHERE i.id = payment.invoice_id AND i.period = :period)
        OR EXISTS (SELECT FROM bundle_item b JOIN invoice i ON i.id = b.invoice_id
            WHERE b.bundle_id = payment.bundle_id AND i.period = :period))
"""

# A record that states no period is of its invoice's, where its reference is one.
RECORD_IN_SCOPE: Final = """
    (CAST(:period AS text) IS NULL OR coalesce(record.period, (
        SELECT i.period FROM invoice i WHERE i.reference = record.reference)) = :period)
"""

# That it is not NULL goes without saying; said, it spares the server reading all that are.
RECORD_STANDS: Final = (
    "NOT EXISTS (SELECT FROM institution_record n"
    " WHERE n.reverses_id = record.id AND n.reverses_id IS NOT NULL)"
)

# What was quoted is the invoice's reference. Of a text of twelve bytes, from which an invoice was
# found, nothing but the reference itself can be left (`wasl verify` looks); only of others the
# invoice is asked, so that a million payments need no join. A bundle stands for its invoices,
# unless the institution recorded the bundle's own reference.
_QUOTED: Final = """
    CASE WHEN payment.invoice_id IS NOT NULL THEN
        CASE WHEN octet_length(payment.reference_given) = 12 THEN payment.reference_given
            ELSE (SELECT i.reference FROM invoice i WHERE i.id = payment.invoice_id) END
    ELSE coalesce(
        (SELECT b.reference FROM bundle b WHERE b.id = payment.bundle_id
            AND EXISTS (SELECT FROM institution_record r WHERE r.reference = b.reference)),
        (SELECT min(i.reference) FROM bundle_item b JOIN invoice i ON i.id = b.invoice_id
            WHERE b.bundle_id = payment.bundle_id HAVING count(*) = 1)) END
"""

_OPEN_RECORD: Final = f"record.reverses_id IS NULL AND {RECORD_STANDS} AND {RECORD_IN_SCOPE}"


def open_payments(*, some_matched: bool) -> str:
    """Return the query of open payments: id, reference or NULL, centimes less what was given back.

    Args:
        some_matched: Whether there are lines; if not, none is looked for, a million times.
    """
    return f"""
    SELECT n, k, a FROM (
        SELECT payment.id AS n, {_QUOTED} AS k, payment.amount_minor - payment.returned_minor AS a
        FROM payment
        WHERE payment.status = 'booked' AND payment.returned_minor < payment.amount_minor
            AND {PAYMENT_IN_SCOPE} {_unmatched("payment", some_matched)}
    ) AS each WHERE {IN_SHARD}
    """


def open_records(*, some_matched: bool) -> str:
    """Return the query of open records in which the import read a reference.

    Id, reference, how it was written, centimes.
    """
    return f"""
    SELECT n, k, how, a FROM (
        SELECT record.id AS n, record.reference AS k,
            CASE WHEN record.reference_given = record.reference THEN 0 ELSE 1 END AS how,
            record.amount_minor AS a
        FROM institution_record record
        WHERE record.reference IS NOT NULL AND {_OPEN_RECORD} {_unmatched("record", some_matched)}
    ) AS each WHERE {IN_SHARD}
    """


def open_records_unread(*, some_matched: bool) -> str:
    """Return the query of the other open records, with all that is read again."""
    return f"""
    SELECT record.id AS n, record.record_id AS id, record.reference_given AS reference,
        record.cnss_number, record.cin, record.name, record.amount_minor AS a,
        record.posted_on AS d, record.provider_reference
    FROM institution_record record
    WHERE record.reference IS NULL AND {_OPEN_RECORD} {_unmatched("record", some_matched)}
    """


def _unmatched(side: str, some_matched: bool) -> str:
    if not some_matched:
        return ""
    return f"AND NOT EXISTS (SELECT FROM match_line m WHERE m.{side}_id = {side}.id)"
