"""What settlement files hold about a person: lines that quote the person's references.

The lines name nobody: what people wrote beside a reference is read and not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlmodel import Session

from gateway.db import execute
from gateway.privacy import LEFT, Hold, Section, Subject, said
from gateway.privacy.periods import KEPT_WITH_BOOKS
from gateway.words.catalogs import mark

_SUBJECT: Final = (
    "'settlement:' || l.provider || '/' || l.entry_key"
    " || CASE WHEN l.transaction > 0 THEN '/' || l.transaction ELSE '' END"
)
# A line that quotes one of the person's references, or stands for the person's payments alone.
_HIS: Final = """(
    l.quoted && CAST(:references AS text[]) OR l.id IN (
        SELECT s.line_id FROM settled_line s WHERE s.group_id IN (
            SELECT group_id FROM settled_payment WHERE payment_id = ANY(:payments)
            EXCEPT SELECT group_id FROM settled_payment WHERE payment_id <> ALL(:payments)
                AND group_id IN (SELECT group_id FROM settled_payment
                    WHERE payment_id = ANY(:payments)))
    )
)"""
_LINES: Final = f"""
    SELECT l.provider, st.form, st.number AS statement, l.kind, l.amount_minor, l.booked_on,
        l.happened_at, l.payment_ids, l.bank_reference, l.return_reason, f.imported_at,
        ARRAY(SELECT each FROM unnest(l.quoted) AS each WHERE each = ANY(:references)) AS quoted,
        (SELECT g.rule FROM settled_line s JOIN settlement_group g ON g.id = s.group_id
            WHERE s.line_id = l.id) AS settled_by
    FROM settlement_line l JOIN settlement_statement st ON st.id = l.statement_id
    JOIN settlement_file f ON f.id = st.file_id
    WHERE {_HIS} ORDER BY l.id
"""
_QUESTIONS: Final = f"""
    SELECT count(*) FROM coded_exception e
    WHERE e.resolved_at IS NULL AND e.subject IN (
        SELECT {_SUBJECT} FROM settlement_line l WHERE {_HIS}
    )
"""


class Settlements:
    """The holder of what providers and banks say they paid out."""

    tables: Final = frozenset(
        {
            "settlement_file",
            "settlement_statement",
            "settlement_line",
            "settlement_group",
            "settled_line",
            "settled_payment",
        }
    )

    def held(self, session: Session, subject: Subject) -> list[Section]:
        """Return the lines about a person's references and payments. Reads only."""
        rows = execute(session, _LINES, _parameters(subject)).mappings()
        return [
            Section(
                "settlement_lines",
                mark("What providers and banks say they paid out"),
                mark("To hold what was paid out against what is booked"),
                KEPT_WITH_BOOKS,
                [said(row) for row in rows],
            )
        ]

    def hold(self, session: Session, subject: Subject) -> Hold:
        """Say what is open about the lines; there is nothing in them to empty."""
        asked = _parameters(subject)
        questions = execute(session, _QUESTIONS, asked).scalar_one()
        lines = execute(
            session, f"SELECT {_SUBJECT}, l.payment_ids FROM settlement_line l WHERE {_HIS}", asked
        ).all()
        hindrances = (f"Open exceptions about settlements: {questions}.",) if questions else ()

        def erase(_: datetime) -> Mapping[str, int]:
            # A payment's id is a fact of the file, whatever somebody chose for it.
            left = sum(any(map(subject.names_in, ids)) for _, ids in lines)
            return {f"{LEFT}settlement_line.payment_ids": left}

        return Hold(hindrances, erase, tuple(about for about, _ in lines))


def _parameters(subject: Subject) -> dict[str, Any]:
    return {"references": list(subject.references), "payments": list(subject.payment_ids)}


HOLDER: Final = Settlements()
