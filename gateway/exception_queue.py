"""What a person must decide: open coded exceptions once, and close them with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Session

from gateway.db import execute
from gateway.models import ExceptionCode


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found that a person must decide. `detail` holds no name and no personal number."""

    code: ExceptionCode
    subject: str
    """`payment:provider/id`, `delivery:provider/id`, `record:id`, `invoice:reference`."""
    detail: dict[str, Any] = field(default_factory=dict)
    payment_id: int | None = None


def open_exceptions(session: Session, findings: Sequence[Finding], *, now: datetime) -> int:
    """Open an exception for each finding that has none open yet; return how many were opened.

    The caller owns the transaction. The same code and subject again changes nothing, so that
    whatever finds it may run as often as it likes.
    """
    if not findings:
        return 0
    statement = sa.text(
        """
        INSERT INTO coded_exception (code, subject, detail, payment_id, opened_at)
        SELECT f.code, f.subject, f.detail, f.payment_id, :now
        FROM unnest(CAST(:codes AS text[]), CAST(:subjects AS text[]), CAST(:details AS jsonb[]),
            CAST(:payment_ids AS bigint[]))
            AS f (code, subject, detail, payment_id)
        ON CONFLICT (code, subject) WHERE resolved_at IS NULL DO NOTHING
        RETURNING id
        """
    ).bindparams(sa.bindparam("details", type_=sa.ARRAY(JSONB)))
    opened = session.connection().execute(
        statement,
        {
            "now": now,
            "codes": [f.code.value for f in findings],
            "subjects": [f.subject for f in findings],
            "details": [f.detail for f in findings],
            "payment_ids": [f.payment_id for f in findings],
        },
    )
    return len(opened.all())


def resolve_exceptions(
    session: Session, code: ExceptionCode, subjects: Sequence[str], *, because: str, now: datetime
) -> int:
    """Close the open exceptions of a code about these subjects; return how many were open.

    The caller owns the transaction.
    """
    closed = execute(
        session,
        "UPDATE coded_exception SET resolved_at = :now, resolution = :because"
        " WHERE code = :code AND subject = ANY(:subjects) AND resolved_at IS NULL RETURNING id",
        {"now": now, "because": because, "code": code.value, "subjects": list(subjects)},
    )
    return len(closed.all())
