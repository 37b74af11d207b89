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
        SELECT mr.record_id FROM matched_record mr WHERE mr.group_id IN (
            SELECT group_id FROM matched_payment WHERE payment_id = ANY(:payments)
            EXCEPT SELECT group_id FROM matched_payment WHERE payment_id <> ALL(:payments)
                AND group_id IN (SELECT group_id FROM matched_payment
                    WHERE payment_id = ANY(:payments)))
    )) AND NOT EXISTS (
        SELECT FROM contributor c WHERE c.cnss_number = r.cnss_number AND c.id <> ALL(:files)
    )
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
        "SELECT g.rule, g.score, run.started_at, g.undone_at, g.undone_because,"
        " ARRAY(SELECT p.provider || '/' || p.provider_payment_id FROM matched_payment m"
        " JOIN payment p ON p.id = m.payment_id WHERE m.group_id = g.id"
        " AND p.id = ANY(:payments) ORDER BY p.id) AS your_payments,"
        " ARRAY(SELECT r.record_id FROM matched_record m JOIN institution_record r"
        f" ON r.id = m.record_id WHERE m.group_id = g.id AND {_HIS} ORDER BY r.id) AS your_records"
        " FROM match_group g JOIN reconciliation_run run ON run.id = g.run_id WHERE g.id IN ("
        "SELECT group_id FROM matched_payment WHERE payment_id = ANY(:payments)"
        " UNION SELECT m.group_id FROM matched_record m"
        f" JOIN institution_record r ON r.id = m.record_id WHERE {_HIS}) ORDER BY g.id",
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
            "match_group",
            "matched_payment",
            "matched_record",
            "reconciliation_run",
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
