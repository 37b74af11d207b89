"""Why a payment belongs to a record, or to none: what stands, what was undone, what is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlmodel import Session

from gateway.clock import day_of
from gateway.db import execute
from gateway.errors import Unusable
from gateway.money import format_amount
from reconciliation.matching import RULES_IN_WORDS

_PAYMENT: Final = """
    SELECT id, provider || '/' || provider_payment_id AS name,
        amount_minor - returned_minor AS minor, paid_at, status, reference_given AS reference
    FROM payment WHERE provider = split_part(:given, '/', 1)
        AND provider_payment_id = substr(:given, strpos(:given, '/') + 1)
"""
_RECORD: Final = """
    SELECT id, record_id AS name, amount_minor AS minor, posted_on, reference, reverses_id,
        (SELECT record_id FROM institution_record n WHERE n.reverses_id = record.id)
            AS taken_back_by
    FROM institution_record record WHERE record_id = :given
"""
_LINES: Final = """
    SELECT p.provider || '/' || p.provider_payment_id AS payment, r.record_id AS record,
        m.amount_minor, r.amount_minor AS recorded_minor, p.paid_at, r.posted_on, m.rule, m.score,
        m.why, m.decided_by, m.run_id
    FROM match_line m JOIN payment p ON p.id = m.payment_id
    JOIN institution_record r ON r.id = m.record_id
    WHERE m.group_id IN (SELECT group_id FROM match_line WHERE {} = :id)
    ORDER BY m.payment_id, m.record_id
"""
_UNDONE: Final = """
    SELECT p.provider || '/' || p.provider_payment_id AS payment, r.record_id AS record,
        u.rule, u.score, u.undone_at, u.undone_because
    FROM undone_match u JOIN payment p ON p.id = u.payment_id
    JOIN institution_record r ON r.id = u.record_id
    WHERE u.{} = :id ORDER BY u.undone_at DESC, u.payment_id, u.record_id LIMIT 10
"""
_PARTED: Final = """
    SELECT p.provider || '/' || p.provider_payment_id AS payment, r.record_id AS record,
        d.decided_by, d.why, d.decided_at
    FROM parted_pair d JOIN payment p ON p.id = d.payment_id
    JOIN institution_record r ON r.id = d.record_id
    WHERE d.joined_at IS NULL AND d.{} = :id ORDER BY d.decided_at
"""
_ASKED: Final = """
    SELECT id, code, subject, detail FROM coded_exception
    WHERE resolved_at IS NULL AND (subject = :subject OR (:names <> '' AND (
        detail ->> 'payments' LIKE :like OR detail ->> 'records' LIKE :like)))
    ORDER BY id LIMIT 10
"""


def explain_payment(session: Session, given: str) -> dict[str, Any]:
    """Return all that says why a payment is matched or not. Reads only; nothing names a person.

    Args:
        session: A snapshot, or whatever sees what is to be explained.
        given: As `provider/its id`.

    Raises:
        Unusable: There is no such payment.
    """
    row = execute(session, _PAYMENT, {"given": given}).one_or_none()
    if row is None:
        raise Unusable(f"There is no payment {given}: it is named provider/its id.")
    facts = {
        "payment": row.name,
        "amount": format_amount(row.minor),
        "paid_on": day_of(row.paid_at).isoformat(),
        "status": row.status,
        "reference": row.reference,
    }
    return {**facts, **_matched(session, "payment_id", row.id, f"payment:{row.name}", row.name)}


def explain_record(session: Session, given: str) -> dict[str, Any]:
    """Return all that says why a record is matched or not; see `explain_payment`."""
    row = execute(session, _RECORD, {"given": given}).one_or_none()
    if row is None:
        raise Unusable(f"There is no record {given}.")
    facts = {
        "record": row.name,
        "amount": format_amount(row.minor),
        "posted_on": row.posted_on.isoformat(),
        "reference": row.reference,
        "taken_back_by": row.taken_back_by,
    }
    return {**facts, **_matched(session, "record_id", row.id, f"record:{row.name}", row.name)}


def _matched(session: Session, column: str, id_: int, subject: str, name: str) -> dict[str, Any]:
    def rows(query: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [dict(row) for row in execute(session, query, parameters).mappings()]

    by_id = {"id": id_}
    asked = {"subject": subject, "names": name, "like": f"%{_plain(name)}%"}
    return {
        "matched": [_line(row) for row in rows(_LINES.format(column), by_id)],
        "undone": [_said(row) for row in rows(_UNDONE.format(column), by_id)],
        "parted": [_said(row) for row in rows(_PARTED.format(column), by_id)],
        "open": rows(_ASKED, asked),
    }


def _plain(name: str) -> str:
    return name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _line(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "payment": line["payment"],
        "paid": format_amount(line["amount_minor"]),
        "paid_on": day_of(line["paid_at"]).isoformat(),
        "record": line["record"],
        "recorded": format_amount(line["recorded_minor"]),
        "posted_on": line["posted_on"].isoformat(),
        "rule": line["rule"],
        "means": RULES_IN_WORDS[line["rule"]],
        "score": line["score"],
        "why": line["why"],
        "decided_by": line["decided_by"],
        "run": line["run_id"],
    }


def _said(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if name.endswith("_at") else value for name, value in row.items()
    }
