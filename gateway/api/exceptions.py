"""`/v1/exceptions`: what a person must decide, and the decision."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field
from sqlmodel import Session

from gateway.api.access import Right, ThisRequest
from gateway.api.idempotency import Answer, IdempotencyKey, once
from gateway.api.paging import Page, Paged, first_after, paged
from gateway.api.problems import Problem
from gateway.api.route import new_router, operation
from gateway.api.schemas import (
    LINE_PATTERN,
    Because,
    Body,
    Conditions,
    Id,
    IdInPath,
    Said,
    example,
    found,
)
from gateway.db import execute, snapshot
from gateway.events import tell
from gateway.exception_queue import Handled, resolved_events
from gateway.models import ExceptionCode

router: APIRouter = new_router("exceptions")

_EXAMPLE: Final[dict[str, Any]] = {
    "id": "3",
    "code": "overpaid",
    "subject": "payment:cashplus/CP-1",
    "state": "open",
    "detail": {"reference": "148275036141", "beyond": "36.48"},
    "payment_id": "7",
    "opened_at": "2026-11-18T11:06:42Z",
    "resolved_at": None,
    "resolution": None,
}


class ExceptionRecord(Said):
    """Something that a person must decide; at most one is open for a code and a subject."""

    model_config = example(**_EXAMPLE)

    id: Id
    code: ExceptionCode
    subject: str = Field(description="What it is about: `payment:provider/id`, `record:id`, …")
    state: Literal["open", "resolved"]
    detail: dict[str, Any] = Field(description="What was found; never a name.")
    payment_id: Id | None
    opened_at: datetime
    resolved_at: datetime | None
    resolution: str | None = Field(description="Why, and by which key.")


class Resolution(Body):
    """What was decided."""

    model_config = example(because="The payer was refunded by hand")

    because: Because


class ExceptionFilters(Paged):
    """Which exceptions to list."""

    code: ExceptionCode | None = None
    state: Literal["open", "resolved"] | None = None
    subject: Annotated[str, Field(max_length=300, pattern=LINE_PATTERN)] | None = None


@router.get("/exceptions", **operation(Right.READ_EXCEPTIONS, "bad_cursor"))
def list_exceptions(
    asked: ThisRequest, filters: Annotated[ExceptionFilters, Query()], response: Response
) -> Page[ExceptionRecord]:
    """List what is to be decided, and what was."""
    where = Conditions("TRUE")
    where.add("id > :after", after=first_after(asked, "exceptions", filters))
    where.equal(code=filters.code, subject=filters.subject)
    if filters.state is not None:
        where.add(f"resolved_at IS {'NULL' if filters.state == 'open' else 'NOT NULL'}")
    with snapshot() as session:
        rows = execute(
            session,
            f"SELECT * FROM coded_exception WHERE {where} ORDER BY id LIMIT :rows",
            {**where.parameters, "rows": filters.limit + 1},
        ).mappings()
        return paged(asked, "exceptions", filters, list(rows), _said, response)


@router.get("/exceptions/{id}", **operation(Right.READ_EXCEPTIONS, "exception_not_found"))
def read_exception(exception_id: IdInPath) -> ExceptionRecord:
    """Read one exception."""
    with snapshot() as session:
        return _read(session, int(exception_id))


@router.post(
    "/exceptions/{id}/resolve",
    response_model=ExceptionRecord,
    **operation(
        Right.RESOLVE_EXCEPTIONS,
        "exception_not_found",
        "exception_resolved",
        "resolved_by_runs",
        "delivery_parked",
        "idempotency_key_reused",
        body=True,
    ),
)
def resolve_exception(
    asked: ThisRequest, exception_id: IdInPath, body: Resolution, key: IdempotencyKey = None
) -> Response:
    """Close an exception with what was decided; the key is noted beside the reason.

    What runs of reconciliation look for anew, they resolve themselves, and a delivery that is still
    parked is acted on first: both are refused.
    """

    def act(session: Session) -> Answer:
        number = int(exception_id)
        _refuse_while_its_cause_stands(session, _read(session, number))
        closed = execute(
            session,
            "UPDATE coded_exception SET resolved_at = :now, resolution = :why"
            " WHERE id = :id AND resolved_at IS NULL RETURNING code, subject, payment_id",
            {
                "now": asked.now,
                "why": f"{body.because.strip()} — key {asked.caller.named}",
                "id": number,
            },
        ).one_or_none()
        resolved = _read(session, number)
        if closed is None:
            raise Problem("exception_resolved")
        code, subject, payment_id = closed
        handled = Handled(number, ExceptionCode(code), subject, payment_id)
        tell(session, resolved_events([handled]), now=asked.now)
        return Answer(resolved)

    return once(asked, key, act)


RESOLVED_BY_RUNS: Final = frozenset(
    {
        ExceptionCode.PAYMENT_WITHOUT_RECORD,
        ExceptionCode.RECORD_WITHOUT_PAYMENT,
        ExceptionCode.AMOUNT_DIFFERS,
        ExceptionCode.AMBIGUOUS_MATCH,
    }
)
"""What every run of reconciliation looks for anew: closed by hand, the next would open it again."""


def _refuse_while_its_cause_stands(session: Session, known: ExceptionRecord) -> None:
    if known.state == "resolved":
        return
    if known.code in RESOLVED_BY_RUNS:
        raise Problem("resolved_by_runs")
    if known.code is ExceptionCode.PARKED_DELIVERY:
        provider, _, delivery_id = known.subject.removeprefix("delivery:").partition("/")
        state = execute(
            session,
            "SELECT state FROM webhook_delivery"
            " WHERE (provider, delivery_id) = (:provider, :delivery_id)",
            {"provider": provider, "delivery_id": delivery_id},
        ).scalar_one_or_none()
        if state == "parked":
            raise Problem("delivery_parked")


def _read(session: Session, number: int) -> ExceptionRecord:
    row = execute(session, "SELECT * FROM coded_exception WHERE id = :id", {"id": number})
    return _said(found(row.mappings().one_or_none(), "exception_not_found"))


def _said(row: Any) -> ExceptionRecord:
    payment_id = row["payment_id"]
    return ExceptionRecord(
        id=str(row["id"]),
        code=row["code"],
        subject=row["subject"],
        state="open" if row["resolved_at"] is None else "resolved",
        detail=row["detail"],
        payment_id=None if payment_id is None else str(payment_id),
        opened_at=row["opened_at"],
        resolved_at=row["resolved_at"],
        resolution=row["resolution"],
    )
