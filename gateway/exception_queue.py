"""What a person must decide: open coded exceptions once, and close them with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from pydantic_core import to_json
from sqlmodel import Session

from gateway.db import execute
from gateway.events import Happening
from gateway.models import EventType, ExceptionCode
from gateway.packing import texts

MORE_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found that a person must decide. `detail` holds no name and no personal number."""

    code: ExceptionCode
    subject: str
    """`payment:provider/id`, `delivery:provider/id`, `record:id`, `invoice:reference`."""
    detail: dict[str, Any] = field(default_factory=dict)
    payment_id: int | None = None


@dataclass(frozen=True, slots=True)
class Handled:
    """An exception that was opened or closed."""

    id: int
    code: ExceptionCode
    subject: str
    payment_id: int | None


def open_exceptions(
    session: Session, findings: Sequence[Finding], *, now: datetime
) -> list[Handled]:
    """Open an exception for each finding that has none open yet; return those that were opened.

    Tell them when the transaction's other work is done: `tell(session, opened_events(…))`.

    The caller owns the transaction. The same again changes nothing, so that whatever finds it may
    run as often as it likes; other details about the same subject are kept beside the first ones,
    under `more`, up to MORE_MAX of them.
    """
    if not findings:
        return []
    merged = _merged(findings)
    # In one order, so that two who find the same of several payments do not wait in a ring.
    touched = execute(
        session,
        f"""
        INSERT INTO coded_exception AS known (code, subject, detail, payment_id, opened_at)
        SELECT f.code, f.subject, CAST(f.detail AS jsonb), f.payment_id, :now
        FROM unnest(CAST(:codes AS text[]), CAST(:subjects AS text[]), CAST(:details AS text[]),
            CAST(:payment_ids AS bigint[]))
            AS f (code, subject, detail, payment_id)
        ORDER BY f.subject, f.code
        ON CONFLICT (code, subject) WHERE resolved_at IS NULL DO UPDATE SET detail = {_TOGETHER}
        WHERE known.detail <> {_TOGETHER}
        RETURNING xmax = 0, id, code, subject, payment_id
        """,
        {
            "now": now,
            "codes": texts(f.code.value for f in merged),
            "subjects": texts(f.subject for f in merged),
            # A run opens thousands, and a driver takes the quotes of each apart.
            "details": texts(to_json(f.detail).decode() for f in merged),
            "payment_ids": [f.payment_id for f in merged],
            "more_max": MORE_MAX,
        },
    )
    return [_handled(row) for opened, *row in touched if opened]


_TOGETHER: Final = """
    known.detail || coalesce((
        SELECT jsonb_build_object('more', jsonb_agg(other ORDER BY place)) FROM (
            SELECT other, min(place) AS place FROM (
                SELECT other, place FROM jsonb_array_elements(known.detail -> 'more')
                    WITH ORDINALITY AS m (other, place)
                UNION ALL SELECT excluded.detail - 'more', 1000
                UNION ALL SELECT other, 1000 + place
                    FROM jsonb_array_elements(excluded.detail -> 'more')
                    WITH ORDINALITY AS m (other, place)
            ) AS said WHERE other <> known.detail - 'more'
            GROUP BY other ORDER BY 2 LIMIT :more_max
        ) AS others HAVING count(*) > 0
    ), '{}')
"""
"""What is known, and beside it each other detail once, in the order in which they came."""


def _merged(findings: Sequence[Finding]) -> list[Finding]:
    """Return one finding for a code and a subject; what the others say stands under `more`."""
    first: dict[tuple[ExceptionCode, str], Finding] = {}
    more: dict[tuple[ExceptionCode, str], list[dict[str, Any]]] = {}
    for finding in findings:
        at = (finding.code, finding.subject)
        if first.setdefault(at, finding).detail != finding.detail:
            others = more.setdefault(at, [])
            if finding.detail not in others and len(others) < MORE_MAX:
                others.append(finding.detail)
    return [
        replace(finding, detail=finding.detail | {"more": more[at]}) if at in more else finding
        for at, finding in first.items()
    ]


def resolve_exceptions(
    session: Session, code: ExceptionCode, subjects: Sequence[str], *, because: str, now: datetime
) -> list[Handled]:
    """Close the open exceptions of a code about these subjects; return those that were open.

    The caller owns the transaction.
    """
    closed = execute(
        session,
        "UPDATE coded_exception SET resolved_at = :now, resolution = :because"
        " WHERE code = :code AND subject = ANY(:subjects) AND resolved_at IS NULL"
        " RETURNING id, code, subject, payment_id",
        {"now": now, "because": because, "code": code.value, "subjects": list(subjects)},
    )
    return [_handled(row) for row in closed]


def opened_events(opened: Iterable[Handled]) -> list[Happening]:
    """Return what is told of exceptions that were opened."""
    return [_happening(EventType.EXCEPTION_OPENED, each) for each in opened]


def resolved_events(resolved: Iterable[Handled]) -> list[Happening]:
    """Return what is told of exceptions that were closed."""
    return [_happening(EventType.EXCEPTION_RESOLVED, each) for each in resolved]


def _handled(row: Iterable[Any]) -> Handled:
    at, code, subject, payment_id = row
    return Handled(at, ExceptionCode(code), subject, payment_id)


def _happening(what: EventType, handled: Handled) -> Happening:
    data = {"exception": str(handled.id), "code": handled.code.value, "subject": handled.subject}
    return Happening(what, data, payment_id=handled.payment_id)
