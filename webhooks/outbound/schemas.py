"""What `/v1/webhook-endpoints` takes and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from gateway.api.paging import Paged
from gateway.api.problems import FieldError, Problem
from gateway.api.schemas import LINE_PATTERN, Because, Body, Id, Said, example
from gateway.models import EventType
from webhooks.guarded import URL_CHARS_MAX
from webhooks.outbound.endpoints import OVERLAP_HOURS, OVERLAP_HOURS_MAX

COUNT_MAX: Final = 100_000

Url = Annotated[
    str,
    Field(
        max_length=URL_CHARS_MAX,
        pattern="^https?://[!-~]+$",
        description="https, at an address of the open internet; in a sandbox this machine too.",
        examples=["https://erp.example.ma/hooks/wasl"],
    ),
]
Types = Annotated[
    list[EventType],
    Field(min_length=1, max_length=len(EventType), description="What it is told of."),
]
Description = Annotated[
    str,
    Field(max_length=200, pattern=LINE_PATTERN, description="Whose it is; no name of a person."),
]

_EXAMPLE: Final[dict[str, Any]] = {
    "id": "3",
    "url": "https://erp.example.ma/hooks/wasl",
    "types": ["invoice.issued", "payment.booked"],
    "description": "Accounting",
    "state": "enabled",
    "added_by": "k7f2 (back office)",
    "added_at": "2026-11-18T09:00:00Z",
    "disabled_at": None,
    "disabled_because": None,
    "at_event": "31",
    "behind": 0,
    "failed_attempts": 0,
    "last_error": None,
    "retry_at": None,
    "taken": 31,
    "failed": 0,
    "secrets": [
        {"made_at": "2026-11-18T09:00:00Z", "made_by": "k7f2 (back office)", "ends_at": None}
    ],
}
_ORDER: Final[dict[str, Any]] = {
    "id": "12",
    "kind": "resend",
    "after_event": "30",
    "upto_event": "40",
    "asked_by": "k7f2 (back office)",
    "asked_at": "2026-11-18T15:00:00Z",
    "taken": 0,
    "failed": 0,
    "last_error": None,
    "ended_at": None,
}


class SecretShown(Said):
    """That a secret stands; what it is was shown once."""

    made_at: datetime
    made_by: str
    ends_at: datetime | None = Field(
        description="When it signs no more, by the database's own clock; null: not until rolled."
    )


class Endpoint(Said):
    """Somebody's address, and how it fares."""

    model_config = example(**_EXAMPLE)

    id: Id
    url: str
    types: list[EventType]
    description: str
    state: Literal["enabled", "failing", "disabled"] = Field(
        description="`failing`: the event in line was not taken yet, and is tried again."
    )
    added_by: str
    added_at: datetime
    disabled_at: datetime | None
    disabled_because: str | None
    at_event: str = Field(description="The last event of `/v1/events` that it is done with.")
    behind: int = Field(description="How far that is from the end, in numbers of events.")
    failed_attempts: int = Field(description="Of the event in line.")
    last_error: str | None
    retry_at: datetime | None = Field(description="By the database's own clock.")
    taken: int = Field(description="Events it took, ever.")
    failed: int = Field(description="Attempts that failed, ever.")
    secrets: list[SecretShown] = Field(description="Those that sign, the newest first.")


class AddedEndpoint(Endpoint):
    """An endpoint with its secret."""

    model_config = example(**_EXAMPLE, secret="whsec_…")  # noqa: S106 - none

    secret: str | None = Field(
        description="By which it verifies what it gets. Shown once: null where the same request"
        " came again; roll it then."
    )


class RolledSecret(Said):
    """A new secret."""

    model_config = example(secret="whsec_…", others_end_at="2026-11-19T15:00:00Z")  # noqa: S106

    secret: str | None = Field(description="As of an endpoint that was added.")
    others_end_at: datetime | None = Field(
        description="Until then the others sign, too, by the database's own clock."
    )


class NewEndpoint(Body):
    """Who is to be told of what."""

    model_config = example(
        url="https://erp.example.ma/hooks/wasl",
        types=["invoice.issued", "payment.booked"],
        description="Accounting",
    )

    url: Url
    types: Types
    description: Description = "-"
    from_event: Id | None = Field(
        None, description="The first event that it is told of; left out: the next one."
    )


class ChangedEndpoint(Body):
    """What is to be otherwise. At another address what is in line is tried at once."""

    model_config = example(types=["payment.booked", "payment.reversed"])

    url: Url | None = None
    types: Types | None = None
    description: Description | None = None


class AskedRoll(Body):
    """How a secret is to be followed by another."""

    model_config = example(overlap_hours=24)

    overlap_hours: int = Field(
        OVERLAP_HOURS,
        ge=0,
        le=OVERLAP_HOURS_MAX,
        description="For how long the others sign beside it; 0: from now on not.",
    )


class AskedEnd(Body):
    """Why nothing more is to be sent."""

    model_config = example(because="The receiver moves on Monday")

    because: Because


class AskedResend(Body):
    """Which events are to be sent again: one, or a span with both its ends."""

    model_config = example(from_event="31", to_event="40", dry_run=True)

    event: Id | None = None
    from_event: Id | None = None
    to_event: Id | None = None
    dry_run: bool = Field(default=False, description="Say how many, and do nothing.")

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last event.

        Raises:
            Problem: It is neither one event nor a span with both its ends.
        """
        ends = [each for each in (self.from_event, self.to_event) if each is not None]
        if len(ends) != (2 if self.event is None else 0):
            sentence = "Give event, or both from_event and to_event."
            names = ("event", "from_event", "to_event")
            wrong = [FieldError(name, "contradicts", sentence) for name in names]
            raise Problem("fields_contradict", sentence, errors=wrong)
        return int(self.event or self.from_event or 0), int(self.event or self.to_event or 0)


class Order(Said):
    """Something that was asked to be sent, and how far it is."""

    model_config = example(**_ORDER)

    id: Id
    kind: Literal["resend", "test"]
    after_event: str | None = Field(description="Up to this event it is done; null of a test.")
    upto_event: str | None = Field(description="It ends with this one.")
    asked_by: str
    asked_at: datetime
    taken: int
    failed: int = Field(description="Attempts that failed.")
    last_error: str | None
    ended_at: datetime | None = Field(description="With `last_error`: it was given up.")


class Resent(Said):
    """What a resend comes to."""

    model_config = example(dry_run=False, events=7, order=_ORDER)

    dry_run: bool
    events: int = Field(description=f"Events in the span; counting stops at {COUNT_MAX}.")
    order: Order | None = Field(description="Null of a `dry_run`: there is none.")


class Attempt(Said):
    """One sending of one message."""

    model_config = example(
        id="80",
        event="31",
        message_id="evt_3_31_6437bcf2a1c00",
        attempted_at="2026-11-18T11:06:43Z",
        ms=84,
        status=204,
        error=None,
    )

    id: Id
    event: str | None = Field(description="Null of a test.")
    message_id: str = Field(description="The `webhook-id` that it bore.")
    attempted_at: datetime = Field(description="By the database's own clock.")
    ms: int = Field(description="Until the head of the answer came, in milliseconds.")
    status: int | None = Field(description="Of the answer; null: there was none.")
    error: str | None = Field(description="Why it was not taken; null: it was.")


class AttemptFilters(Paged):
    """Which attempts to list."""

    event: Id | None = None
    failed: bool | None = Field(None, description="Only those that failed, or were taken.")


def endpoint_said(row: dict[str, Any]) -> Endpoint:
    """Return an endpoint as `list_endpoints` has it, for an answer."""
    failing = "failing" if row["attempts"] else "enabled"
    return Endpoint(
        **{name: row[name] for name in Endpoint.model_fields if name in row and name != "id"}
        | {
            "id": str(row["id"]),
            "at_event": str(row["at_event"]),
            "state": failing if row["disabled_at"] is None else "disabled",
            "failed_attempts": row["attempts"],
        }
    )


def order_said(row: dict[str, Any]) -> Order:
    """Return an order as `list_orders` has it, for an answer."""
    is_test = row["kind"] == "test"
    return Order(
        **{name: row[name] for name in Order.model_fields if name in row and name != "id"}
        | {
            "id": str(row["id"]),
            "after_event": None if is_test else str(row["at_event"]),
            "upto_event": None if is_test else str(row["upto_event"]),
        }
    )


def attempt_said(row: dict[str, Any]) -> Attempt:
    """Return an attempt as `list_attempts` has it, for an answer."""
    event = None if row["event_id"] is None else str(row["event_id"])
    return Attempt(
        **{name: row[name] for name in Attempt.model_fields if name in row and name != "id"}
        | {"id": str(row["id"]), "event": event}
    )
