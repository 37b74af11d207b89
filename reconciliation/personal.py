"""What reconciliation holds about a person: the institution's records, and what they belong to.

A record is a person's if it has the person's number; one that has the number of nobody else in the
register, if it has the person's reference or card, or was matched with the person's payments alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlmodel import Session

from gateway.db import execute
from gateway.privacy import LEFT, Hold, Section, Subject, said
from gateway.privacy.periods import KEPT_WITH_BOOKS, kept_persons
from gateway.retention import retention
from gateway.words.catalogs import mark

_TO_MATCH: Final = mark("To match what was collected with what the institution recorded")

_HIS: Final = """(
    r.cnss_number = ANY(:numbers)
    OR (r.reference = ANY(:references) OR r.cin = ANY(:cins) OR r.id IN (
        SELECT m.record_id FROM match_line m WHERE m.payment_id = ANY(:payments)
            AND NOT EXISTS (SELECT FROM match_line o
                WHERE o.record_id = m.record_id AND o.payment_id <> ALL(:payments))
    )) AND NOT EXISTS (
        SELECT FROM contributor c WHERE c.cnss_number = r.cnss_number AND c.id <> ALL(:files)
    )
)"""

# Lines of groups, those that stand and those that were undone.
_LINES: Final = """(
    SELECT payment_id, record_id, group_id, run_id, rule, score, decided_by,
        CAST(NULL AS timestamptz) AS undone_at, CAST(NULL AS text) AS undone_because
    FROM match_line
    UNION ALL
    SELECT payment_id, record_id, group_id, run_id, rule, score, decided_by, undone_at,
        undone_because
    FROM undone_match
)"""

_ASKED: Final = (
    (
        "institution_records",
        mark("The institution's records"),
        True,
        "SELECT r.record_id, r.reference_given, r.reference, r.cnss_number, r.cin, r.name,"
        " r.period, r.amount_minor, r.posted_on, r.channel, r.provider_reference, f.imported_at,"
        " r.erased_at FROM institution_record r JOIN record_file f ON f.id = r.file_id"
        f" WHERE {_HIS} ORDER BY r.id",
    ),
    (
        "matches",
        mark("Payments and records that belong together"),
        False,
        "SELECT m.rule, m.score, min(run.started_at) AS started_at,"
        " bool_or(m.decided_by IS NOT NULL) AS by_a_person, m.undone_at, m.undone_because,"
        " array_agg(DISTINCT p.provider || '/' || p.provider_payment_id)"
        " FILTER (WHERE p.id = ANY(:payments)) AS your_payments,"
        f" array_agg(DISTINCT r.record_id) FILTER (WHERE {_HIS}) AS your_records"
        f" FROM {_LINES} AS m JOIN payment p ON p.id = m.payment_id"
        " JOIN institution_record r ON r.id = m.record_id"
        " LEFT JOIN reconciliation_run run ON run.id = m.run_id"
        f" WHERE m.payment_id = ANY(:payments) OR {_HIS}"
        " GROUP BY m.group_id, m.rule, m.score, m.undone_at, m.undone_because"
        " ORDER BY m.group_id, m.undone_at",
    ),
    (
        "record_exceptions",
        mark("Questions about records that a person decides"),
        False,
        "SELECT e.id, e.code, e.subject, e.opened_at, e.resolved_at, e.resolution"
        " FROM coded_exception e JOIN institution_record r ON e.subject = 'record:' || r.record_id"
        f" WHERE {_HIS} ORDER BY e.id",
    ),
)


class Records:
    """The holder of the institution's records."""

    tables: Final = frozenset(
        {
            "institution_record",
            "record_file",
            "match_line",
            "undone_match",
            "parted_pair",
            "reconciliation_run",
            "reconciliation_shard",
        }
    )

    def held(self, session: Session, subject: Subject) -> list[Section]:
        """Return the records about a person, and what they were matched with. Reads only."""
        asked = _parameters(subject)
        until = kept_persons(retention().persons)
        return [
            Section(name, title, _TO_MATCH, until if named else KEPT_WITH_BOOKS, rows)
            for name, title, named, query in _ASKED
            for rows in [[said(row) for row in execute(session, query, asked).mappings()]]
        ]

    def hold(self, session: Session, subject: Subject) -> Hold:
        """Lock the records about a person; nothing about them may be open."""
        asked = _parameters(subject)
        locked = execute(
            session,
            "SELECT r.id, r.record_id FROM institution_record r"
            f" WHERE {_HIS} ORDER BY r.id FOR NO KEY UPDATE OF r",
            asked,
        ).all()
        ids = {"ids": [row.id for row in locked]}
        questions = execute(session, _OPEN, ids).scalar_one()
        hindrances = (
            (f"Open exceptions about the institution's records: {questions}.",) if questions else ()
        )

        def erase(now: datetime) -> Mapping[str, int]:
            emptied = execute(session, _EMPTY, {**ids, "now": now}).rowcount
            given = execute(
                session, "SELECT reference_given FROM institution_record WHERE id = ANY(:ids)", ids
            ).scalars()
            # What the file gave as the reference is a fact of the record, whatever stands in it.
            left = sum(subject.names_in(text) for text in given)
            return {
                "institution_record": emptied,
                f"{LEFT}institution_record.reference_given": left,
            }

        return Hold(hindrances, erase, tuple(f"record:{row.record_id}" for row in locked))


_OPEN: Final = """
    SELECT count(*) FROM coded_exception e JOIN institution_record r
        ON e.subject = 'record:' || r.record_id
    WHERE r.id = ANY(:ids) AND e.resolved_at IS NULL
"""
_EMPTY: Final = """
    UPDATE institution_record SET cnss_number = NULL, cin = NULL, name = NULL, erased_at = :now
    WHERE id = ANY(:ids) AND erased_at IS NULL
"""


def _parameters(subject: Subject) -> dict[str, Any]:
    return {
        "numbers": list(subject.cnss_numbers),
        "references": list(subject.references),
        "cins": list(subject.cins),
        "files": list(subject.file_ids),
        "payments": list(subject.payment_ids),
    }


HOLDER: Final = Records()
