"""`/v1/webhook-endpoints`: who is told of what happens, how that fares, and sending it again.

Who adds an endpoint decides who learns of money: administrators. Finance operates: it looks, has
things sent again, enables what is mended. A secret is in one answer, never in a stored one.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from sqlmodel import Session

from gateway.api.access import Asked, Right, ThisRequest
from gateway.api.idempotency import Answer, IdempotencyKey, once
from gateway.api.paging import Page, Paged, first_after, paged
from gateway.api.problems import FieldError, Problem
from gateway.api.route import PREFIX, new_router, operation
from gateway.api.schemas import IdInPath, found
from gateway.db import snapshot
from gateway.errors import Unusable
from gateway.reasons import kept_reason
from gateway.settings import settings
from webhooks.outbound import endpoints
from webhooks.outbound.endpoints import Full
from webhooks.outbound.schemas import (
    COUNT_MAX,
    AddedEndpoint,
    AskedEnd,
    AskedResend,
    AskedRoll,
    Attempt,
    AttemptFilters,
    ChangedEndpoint,
    Endpoint,
    NewEndpoint,
    Order,
    Resent,
    RolledSecret,
    attempt_said,
    endpoint_said,
    order_said,
)
from webhooks.outbound.secrets import sealing_key
from webhooks.outbound.sending import reach

router: APIRouter = new_router("webhook-endpoints")

_LAST: Final = 2**62
_ONE: Final = "/webhook-endpoints/{id}"


@router.get("/webhook-endpoints", **operation(Right.READ_ENDPOINTS, "bad_cursor"))
def list_all(
    asked: ThisRequest, filters: Annotated[Paged, Query()], response: Response
) -> Page[Endpoint]:
    """List those who are told of what happens, and how it fares with each."""
    after = first_after(asked, "webhook endpoints", filters)
    with snapshot() as session:
        rows = endpoints.list_endpoints(session, after=after, limit=filters.limit + 1)
    return paged(asked, "webhook endpoints", filters, rows, endpoint_said, response)


@router.post(
    "/webhook-endpoints",
    status_code=201,
    response_model=AddedEndpoint,
    **operation(
        Right.WRITE_ENDPOINTS,
        "address_refused",
        "too_many_endpoints",
        "idempotency_key_reused",
        body=True,
    ),
)
def add(asked: ThisRequest, body: NewEndpoint, key: IdempotencyKey = None) -> Response:
    """Have somebody told of what happens from now on. The secret is in this answer only."""

    def act(session: Session) -> Answer:
        try:
            endpoint, secret = endpoints.add(
                session,
                url=body.url,
                types=body.types,
                description=body.description,
                reach=reach(),
                key=sealing_key(settings().keys_dir),
                added_by=asked.caller.named,
                from_event=None if body.from_event is None else int(body.from_event),
                now=asked.now,
            )
        except Unusable as error:
            raise Problem("address_refused", str(error)) from None
        except Full as error:
            raise Problem("too_many_endpoints", str(error)) from None
        said = AddedEndpoint(**_read(session, endpoint).model_dump(), secret=secret)
        kept = said.model_copy(update={"secret": None})
        return Answer(said, 201, {"Location": f"{PREFIX}/webhook-endpoints/{endpoint}"}, kept)

    return once(asked, key, act)


@router.get(_ONE, **operation(Right.READ_ENDPOINTS, "endpoint_not_found"))
def read_one(endpoint_id: IdInPath) -> Endpoint:
    """Read one endpoint."""
    with snapshot() as session:
        return _read(session, int(endpoint_id))


@router.patch(
    _ONE,
    response_model=Endpoint,
    **operation(
        Right.WRITE_ENDPOINTS,
        "endpoint_not_found",
        "address_refused",
        "idempotency_key_reused",
        body=True,
    ),
)
def change(
    asked: ThisRequest, endpoint_id: IdInPath, body: ChangedEndpoint, key: IdempotencyKey = None
) -> Response:
    """Change an endpoint's address, what it is told of, or its description."""

    def act(session: Session, endpoint: int) -> Answer:
        try:
            endpoints.change(
                session,
                endpoint,
                url=body.url,
                types=body.types,
                description=body.description,
                reach=reach(),
            )
        except Unusable as error:
            raise Problem("address_refused", str(error)) from None
        return Answer(_read(session, endpoint))

    return _once_of(asked, endpoint_id, key, act)


@router.delete(
    _ONE,
    response_model=Endpoint,
    **operation(Right.WRITE_ENDPOINTS, "endpoint_not_found", "idempotency_key_reused"),
)
def remove(asked: ThisRequest, endpoint_id: IdInPath, key: IdempotencyKey = None) -> Response:
    """Remove an endpoint for good, with its secrets; the answer says where it stood."""

    def act(session: Session, endpoint: int) -> Answer:
        said = _read(session, endpoint)
        endpoints.remove(session, endpoint, by=asked.caller.named, now=asked.now)
        return Answer(said)

    return _once_of(asked, endpoint_id, key, act)


@router.post(
    f"{_ONE}/roll",
    response_model=RolledSecret,
    **operation(
        Right.WRITE_ENDPOINTS,
        "endpoint_not_found",
        "too_many_secrets",
        "idempotency_key_reused",
        body=True,
    ),
)
def roll(
    asked: ThisRequest, endpoint_id: IdInPath, body: AskedRoll, key: IdempotencyKey = None
) -> Response:
    """Make a new secret. What is sent until the others' end is signed by all of them."""

    def act(session: Session, endpoint: int) -> Answer:
        try:
            rolled = endpoints.roll(
                session,
                endpoint,
                overlap_hours=body.overlap_hours,
                key=sealing_key(settings().keys_dir),
                made_by=asked.caller.named,
                now=asked.now,
            )
        except Full as error:
            raise Problem("too_many_secrets", str(error)) from None
        said = RolledSecret(secret=rolled.secret, others_end_at=rolled.others_end_at)
        return Answer(said, kept=said.model_copy(update={"secret": None}))

    return _once_of(asked, endpoint_id, key, act)


@router.post(
    f"{_ONE}/enable",
    response_model=Endpoint,
    **operation(Right.OPERATE_ENDPOINTS, "endpoint_not_found", "idempotency_key_reused"),
)
def enable(asked: ThisRequest, endpoint_id: IdInPath, key: IdempotencyKey = None) -> Response:
    """Go on at once where it stopped, whether it was disabled or waits to try again."""

    def act(session: Session, endpoint: int) -> Answer:
        endpoints.enable(session, endpoint, by=asked.caller.named, now=asked.now)
        return Answer(_read(session, endpoint))

    return _once_of(asked, endpoint_id, key, act)


@router.post(
    f"{_ONE}/disable",
    response_model=Endpoint,
    **operation(Right.OPERATE_ENDPOINTS, "endpoint_not_found", "idempotency_key_reused", body=True),
)
def disable(
    asked: ThisRequest, endpoint_id: IdInPath, body: AskedEnd, key: IdempotencyKey = None
) -> Response:
    """Send nothing more, until it is enabled; what happens meanwhile is sent then."""
    try:
        because = f"{kept_reason(body.because)} ({asked.caller.named})"
    except Unusable as error:
        raise _wrong("because", error) from None

    def act(session: Session, endpoint: int) -> Answer:
        endpoints.disable(session, endpoint, because=because, now=asked.now, noticed=False)
        return Answer(_read(session, endpoint))

    return _once_of(asked, endpoint_id, key, act)


@router.post(
    f"{_ONE}/resend",
    status_code=201,
    response_model=Resent,
    **operation(
        Right.OPERATE_ENDPOINTS,
        "endpoint_not_found",
        "endpoint_disabled",
        "fields_contradict",
        "nothing_to_resend",
        "too_many_orders",
        "idempotency_key_reused",
        body=True,
    ),
)
def resend(
    asked: ThisRequest, endpoint_id: IdInPath, body: AskedResend, key: IdempotencyKey = None
) -> Response:
    """Have events sent once more, under the ids they had; `dry_run` only counts them."""

    def act(session: Session, endpoint: int, disabled: bool) -> Answer:
        first, last = body.span
        events = endpoints.count_span(session, endpoint, first, last, COUNT_MAX)
        if body.dry_run:
            return Answer(Resent(dry_run=True, events=events, order=None))
        if disabled:
            raise Problem("endpoint_disabled")
        order = endpoints.resend(
            session, endpoint, first, last, by=asked.caller.named, now=asked.now
        )
        if order is None:
            raise Problem("nothing_to_resend")
        return Answer(
            Resent(dry_run=False, events=events, order=_ordered(session, endpoint, order)), 201
        )

    return _order_of(asked, endpoint_id, key, act)


@router.post(
    f"{_ONE}/test",
    status_code=201,
    response_model=Order,
    **operation(
        Right.OPERATE_ENDPOINTS, "endpoint_not_found", "too_many_orders", "idempotency_key_reused"
    ),
)
def send_test(asked: ThisRequest, endpoint_id: IdInPath, key: IdempotencyKey = None) -> Response:
    """Have a message of type `endpoint.test` sent, once; also to one that is disabled."""

    def act(session: Session, endpoint: int, disabled: bool) -> Answer:  # noqa: ARG001
        order = endpoints.order_test(session, endpoint, by=asked.caller.named, now=asked.now)
        return Answer(_ordered(session, endpoint, order), 201)

    return _order_of(asked, endpoint_id, key, act)


@router.get(f"{_ONE}/orders", **operation(Right.READ_ENDPOINTS, "endpoint_not_found", "bad_cursor"))
def list_orders(
    asked: ThisRequest,
    endpoint_id: IdInPath,
    filters: Annotated[Paged, Query()],
    response: Response,
) -> Page[Order]:
    """List resends and tests, the last one first."""
    name = f"orders of {endpoint_id}"
    before = first_after(asked, name, filters) or _LAST
    with snapshot() as session:
        _read(session, int(endpoint_id))
        rows = endpoints.list_orders(
            session, int(endpoint_id), before=before, limit=filters.limit + 1
        )
    return paged(asked, name, filters, rows, order_said, response)


@router.get(
    f"{_ONE}/attempts", **operation(Right.READ_ENDPOINTS, "endpoint_not_found", "bad_cursor")
)
def list_attempts(
    asked: ThisRequest,
    endpoint_id: IdInPath,
    filters: Annotated[AttemptFilters, Query()],
    response: Response,
) -> Page[Attempt]:
    """List attempts to send, the last one first. They are kept for a while only."""
    name = f"attempts of {endpoint_id}"
    before = first_after(asked, name, filters) or _LAST
    with snapshot() as session:
        _read(session, int(endpoint_id))
        rows = endpoints.list_attempts(
            session,
            int(endpoint_id),
            before=before,
            limit=filters.limit + 1,
            event=None if filters.event is None else int(filters.event),
            failed=filters.failed,
        )
    return paged(asked, name, filters, rows, attempt_said, response)


def _once_of(asked: Asked, endpoint_id: str, key: str | None, act: Any) -> Response:
    """Do something to an endpoint, locked, once."""
    return _order_of(asked, endpoint_id, key, lambda session, at, _: act(session, at))


def _order_of(asked: Asked, endpoint_id: str, key: str | None, act: Any) -> Response:
    def locked(session: Session) -> Answer:
        row = found(endpoints.lock(session, int(endpoint_id)), "endpoint_not_found")
        try:
            answer: Answer = act(session, int(endpoint_id), row.disabled_at is not None)
        except Full as error:
            raise Problem("too_many_orders", str(error)) from None
        return answer

    return once(asked, key, locked)


def _wrong(field: str, error: Unusable) -> Problem:
    wrong = [FieldError(field, "malformed", str(error))]
    return Problem("invalid_body", f"Mend {field}: {error}", errors=wrong)


def _read(session: Session, endpoint: int) -> Endpoint:
    rows = endpoints.list_endpoints(session, endpoint=endpoint)
    return endpoint_said(found(rows[0] if rows else None, "endpoint_not_found"))


def _ordered(session: Session, endpoint: int, order: int) -> Order:
    return order_said(endpoints.list_orders(session, endpoint, before=order + 1, limit=1)[0])
