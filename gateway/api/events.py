"""`/v1/events`: what happened, in the order of commits, for programs that follow along."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from gateway.api.access import Asked, Right, ThisRequest
from gateway.api.paging import LIMIT_DEFAULT, Cursor, Limit, binding, read_cursor, write_cursor
from gateway.api.route import new_router, operation
from gateway.api.schemas import Conditions, Id, Said, example
from gateway.db import execute, snapshot
from gateway.events import FEED
from gateway.models import EventType

router: APIRouter = new_router("events")

_EXAMPLE: Final[dict[str, Any]] = {
    "id": "31",
    "type": "payment.booked",
    "happened_at": "2026-11-18T11:06:42Z",
    "payment_id": "7",
    "data": {
        "provider": "cashplus",
        "provider_payment_id": "CP-1",
        "reference": "148275036141",
        "amount": "163.52",
        "returned": "0.00",
        "currency": "MAD",
        "channel": "cash_agent",
        "paid_at": "2026-11-18T11:06:40+00:00",
        "status": "booked",
    },
}


class EventRecord(Said):
    """One thing that happened. A type is never given another meaning; data may grow."""

    model_config = example(**_EXAMPLE)

    id: Id
    type: EventType
    happened_at: datetime
    payment_id: Id | None
    data: dict[str, Any] = Field(description="The facts as they were then; never a name.")


class EventPage(BaseModel):
    """Events, oldest first. Whoever has read up to a cursor has missed nothing before it."""

    model_config = example(data=[_EXAMPLE], next_cursor="q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQ")

    data: list[EventRecord]
    next_cursor: str = Field(
        description="For `after`; always given: keep it, and ask again with it later."
    )


class EventFilters(BaseModel):
    """Where to go on, and with what."""

    after: Cursor | None = Field(
        None,
        description="`next_cursor` of the page before, with the same `type`; left out: from the"
        " very first event.",
    )
    type: EventType | None = None
    limit: Limit = LIMIT_DEFAULT


@router.get("/events", **operation(Right.READ_EVENTS, "bad_cursor"))
def list_events(asked: ThisRequest, filters: Annotated[EventFilters, Query()]) -> EventPage:
    """Follow what happens: ask again with `next_cursor`, also after an empty page."""
    # With its type: another one's events before the cursor were passed over, not read.
    bound = binding(asked, f"events {filters.type}")
    after = read_cursor(filters.after, bound, name="after") if filters.after else 0
    where = _seen_by(asked)
    where.add("event.id > :after", after=after)
    where.equal(type=filters.type)
    with snapshot() as session:
        rows = list(
            execute(
                session,
                f"SELECT event.* FROM {FEED} AS event WHERE {where} ORDER BY event.id LIMIT :rows",
                {**where.parameters, "rows": filters.limit},
            ).mappings()
        )
        # Nothing more fits up to the end of the feed: the next question need not look there again.
        full = len(rows) == filters.limit
        end = "SELECT coalesce(max(id), 0) FROM event"
        upto = rows[-1]["id"] if full else max(after, execute(session, end).scalar_one())
    return EventPage(data=[_said(row) for row in rows], next_cursor=write_cursor(upto, bound))


# Asked of one event after the other, in their order, until there are enough: a join would take all.
_OF_REGION: Final = """
    type IN ('invoice.issued', 'invoice.cancelled', 'payment.booked', 'payment.returned',
        'payment.reversed')
    AND (SELECT region FROM invoice JOIN contributor ON contributor.id = contributor_id
        WHERE invoice.id = event.invoice_id) = :scope
"""


def _seen_by(asked: Asked) -> Conditions:
    where = Conditions("TRUE")
    if asked.caller.is_chamber:
        where.add(_OF_REGION, scope=asked.caller.scope)
    return where


def _said(row: Any) -> EventRecord:
    payment_id = row["payment_id"]
    return EventRecord(
        id=str(row["id"]),
        type=row["type"],
        happened_at=row["happened_at"],
        payment_id=None if payment_id is None else str(payment_id),
        data=row["data"],
    )
