"""Commands about who is told of what happens: endpoints, their secrets, sending again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.cli.shared import (
    Refused,
    account,
    counted,
    counting,
    database,
    json_flag,
    now,
    refuse_if_held,
    report,
    say_if_held,
)
from gateway.errors import Unusable

if TYPE_CHECKING:
    from sqlmodel import Session

USUAL: Final = (
    "invoice.issued",
    "payment.booked",
    "payment.reversed",
    "exception.opened",
    "reconciliation.finished",
)
COUNT_MAX: Final = 100_000
_LAST: Final = 2**62
_EVENT: Final = click.IntRange(1, 10**18 - 1)
_endpoint: Final = click.argument("endpoint", type=click.IntRange(1, 10**18 - 1))


def _types(_context: object, _parameter: object, values: tuple[str, ...]) -> list[Any]:
    from gateway.models import EventType

    known = {each.value: each for each in EventType}
    for value in values:
        if value not in known:
            raise click.BadParameter(f"{value!r} is no event: choose of {', '.join(known)}")
    return [known[value] for value in values]


@click.group()
def endpoints() -> None:
    """Who is sent what happens (outbound webhooks)."""


@endpoints.command("add")
@click.argument("url")
@click.option(
    "--type",
    "types",
    multiple=True,
    callback=_types,
    help=f"What it is told of; as often as needed. Without: {', '.join(USUAL)}.",
)
@click.option("--description", default="-", help="Whose it is; no name of a person.")
@click.option("--from-event", type=_EVENT, default=None, help="The first one; else the next.")
@json_flag
def endpoints_add(
    url: str, types: list[Any], description: str, from_event: int | None, as_json: bool
) -> None:
    """Have an address told of what happens from now on; its secret is shown once."""
    with database():
        from gateway.db import transaction
        from gateway.models import EventType
        from gateway.settings import settings
        from webhooks.outbound import endpoints as service
        from webhooks.outbound.secrets import sealing_key
        from webhooks.outbound.sending import reach

        try:
            with transaction() as session:
                endpoint, secret = service.add(
                    session,
                    url=url,
                    types=types or [EventType(each) for each in USUAL],
                    description=_line(description),
                    reach=reach(),
                    key=sealing_key(settings().keys_dir),
                    added_by=account(),
                    from_event=from_event,
                    now=now(),
                )
        except service.Full as error:
            raise Unusable(str(error)) from None
    answer = {"endpoint": str(endpoint), "secret": secret}
    report(
        answer,
        as_json,
        "Endpoint {endpoint} is told from now on. Its secret, shown only now: {secret}\nTry it:"
        " wasl endpoints test {endpoint}",
    )


def _line(text: str) -> str:
    if not text.strip() or len(text) > 200 or not text.isprintable():
        raise Unusable("A description is a line of at most 200 characters.")
    return text.strip()


@endpoints.command("list")
@json_flag
def endpoints_list(as_json: bool) -> None:
    """List those who are told, and how it fares with each; no secret is shown."""
    with database():
        from gateway.db import snapshot
        from webhooks.outbound import endpoints as service

        with snapshot() as session:
            resends = service.list_resends(session)
            listed = [
                {
                    **_plain(row),
                    "resends": [
                        _plain(each) for each in resends if each["endpoint_id"] == row["id"]
                    ],
                }
                for row in service.list_endpoints(session)
            ]
        say_if_held()
    if as_json:
        click.echo(json.dumps({"endpoints": listed}))
        return
    for each in listed:
        click.echo("{id}  {url}  {description}".format(**each))
        click.echo(f"  {_standing(each)}")
        click.echo(f"  told of: {', '.join(each['types'])}")
        for resend in each["resends"]:
            span = "  sent again: what is left after event {at_event}, up to {upto_event}; "
            click.echo(span.format(**resend) + _faring(resend))
    if not listed:
        click.echo("Nobody is told of anything: wasl endpoints add.")


def _standing(each: dict[str, Any]) -> str:
    behind = f"{counted(each['behind'], 'event')} behind"
    if each["disabled_at"] is not None:
        return (
            f"disabled on {{disabled_at:.19}}Z: {{disabled_because}}; {behind}."
            " Once that is mended: wasl endpoints enable {id}"
        ).format(**each)
    return f"{_faring(each)}; {behind}"


def _faring(walk: dict[str, Any]) -> str:
    """Say how it fares with what is in line, or how much was taken."""
    if not walk["attempts"]:
        return f"{walk['taken']} taken"
    times = counted(walk["attempts"], "time")
    return f"failing: {walk['last_error']}, {times}; again at {walk['retry_at']:.19}Z"


@endpoints.command("roll")
@_endpoint
@click.option(
    "--overlap-hours",
    type=click.IntRange(0, 168),
    default=24,
    show_default=True,
    help="For how long the old secret signs beside the new one; 0: no more from now on.",
)
@json_flag
def endpoints_roll(endpoint: int, overlap_hours: int, as_json: bool) -> None:
    """Make a new secret, shown once. Until the old one's end both sign."""

    def act(session: Session) -> dict[str, Any]:
        from gateway.settings import settings
        from webhooks.outbound import endpoints as service
        from webhooks.outbound.secrets import sealing_key

        rolled = service.roll(
            session,
            endpoint,
            overlap_hours=overlap_hours,
            key=sealing_key(settings().keys_dir),
            made_by=account(),
            now=now(),
        )
        end = rolled.others_end_at and rolled.others_end_at.isoformat()
        return {"endpoint": str(endpoint), "secret": rolled.secret, "others_end_at": end}

    with database():
        answer = _done(endpoint, act)
    report(answer, as_json, "The new secret: {secret} (the others sign until {others_end_at})")


@endpoints.command("enable")
@_endpoint
@json_flag
def endpoints_enable(endpoint: int, as_json: bool) -> None:
    """Go on at once where it stopped: what was disabled, or waits to try again."""

    def act(session: Session) -> dict[str, Any]:
        from webhooks.outbound import endpoints as service

        service.enable(session, endpoint, by=account(), now=now())
        return {"endpoint": str(endpoint), "enabled": True}

    with database():
        answer = _done(endpoint, act)
    report(answer, as_json, "Endpoint {endpoint} goes on where it stopped.")


@endpoints.command("disable")
@_endpoint
@click.option("--why", required=True, help="A sentence without names; it is kept.")
@json_flag
def endpoints_disable(endpoint: int, why: str, as_json: bool) -> None:
    """Send nothing more until it is enabled; what happens meanwhile is sent then."""
    from gateway.reasons import kept_reason

    because = f"{kept_reason(why)} ({account()})"

    def act(session: Session) -> dict[str, Any]:
        from webhooks.outbound import endpoints as service

        done = service.disable(session, endpoint, because=because, now=now(), noticed=False)
        return {"endpoint": str(endpoint), "disabled": done}

    with database():
        answer = _done(endpoint, act)
    report(answer, as_json, "Endpoint {endpoint} gets nothing more until it is enabled.")


@endpoints.command("remove")
@_endpoint
@json_flag
def endpoints_remove(endpoint: int, as_json: bool) -> None:
    """Remove an endpoint for good, with its secrets."""

    def act(session: Session) -> dict[str, Any]:
        from webhooks.outbound import endpoints as service

        service.remove(session, endpoint, by=account(), now=now())
        return {"endpoint": str(endpoint), "removed": True}

    with database():
        answer = _done(endpoint, act)
    report(answer, as_json, "Endpoint {endpoint} is removed.")


@endpoints.command("attempts")
@_endpoint
@click.option("--event", type=_EVENT, default=None, help="Only those of this event.")
@click.option("--failed", is_flag=True, help="Only those that were not taken.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=50, show_default=True)
@click.option("--before", type=_EVENT, default=None, help="`next` of the list before.")
@json_flag
def endpoints_attempts(
    endpoint: int,
    event: int | None,
    failed: bool,
    limit: int,
    before: int | None,
    as_json: bool,
) -> None:
    """List attempts to send, the last one first: when, what was answered, how long it took."""
    with database():
        from gateway.db import snapshot
        from webhooks.outbound import endpoints as service

        with snapshot() as session:
            if not service.list_endpoints(session, endpoint=endpoint):
                raise _unknown()
            rows = service.list_attempts(
                session,
                endpoint,
                before=before or _LAST,
                limit=limit + 1,
                event=event,
                failed=True if failed else None,
            )
    listed = [_plain(row) for row in rows[:limit]]
    following = listed[-1]["id"] if len(rows) > limit else None
    if as_json:
        click.echo(json.dumps({"attempts": listed, "next": following}))
        return
    for each in listed:
        said = each["error"] or f"answered {each['status']}"
        click.echo("{attempted_at:.19}Z  {message_id}  {ms} ms  ".format(**each) + said)
    if not listed:
        those = " that failed" if failed else ""
        of = "" if event is None else f" of event {event}"
        click.echo(f"No attempt{of}{those} is kept for this endpoint.")
    if following is not None:
        click.echo(f"There are more: --before {following}")


@endpoints.command("resend")
@_endpoint
@click.option("--event", type=_EVENT, default=None, help="This event.")
@click.option("--from", "first", type=_EVENT, default=None, help="The first event of a span.")
@click.option("--to", "last", type=_EVENT, default=None, help="The last event of a span.")
@click.option("--dry-run", is_flag=True, help="Only say how many.")
@json_flag
def endpoints_resend(
    endpoint: int,
    event: int | None,
    first: int | None,
    last: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send events once more, in order, under the ids they had. The worker sends them.

    Exit 1 if nothing in the span is for the endpoint.
    """
    ends = [each for each in (first, last) if each is not None]
    if len(ends) != (2 if event is None else 0):
        raise Unusable("Say --event, or both --from and --to: ids as wasl endpoints attempts has.")
    span = (event or ends[0], event or ends[1])

    def act(session: Session) -> dict[str, Any]:
        from webhooks.outbound import endpoints as service

        events = service.count_span(session, endpoint, *span, COUNT_MAX)
        order = None
        if not dry_run:
            (listed,) = service.list_endpoints(session, endpoint=endpoint)
            if listed["disabled_at"] is not None:
                raise Unusable("The endpoint is disabled: enable it first.")
            order = service.resend(session, endpoint, *span, by=account(), now=now())
        return {"order": None if order is None else str(order), "events": events}

    with database():
        answer = _done(endpoint, act)
    be = "is" if answer["events"] == 1 else "are"
    would = "would be" if dry_run else be if answer["order"] else "to be"
    report(answer, as_json, f"{counted(answer['events'], 'event')} {would} sent again.")
    if not answer["events"]:
        raise Refused


@endpoints.command("test")
@_endpoint
@json_flag
def endpoints_test(endpoint: int, as_json: bool) -> None:
    """Send a message of type `endpoint.test` now, also to a disabled endpoint.

    Exit 1 if it was not taken.
    """

    def act(session: Session) -> dict[str, Any]:
        from webhooks.outbound import endpoints as service

        order = service.order_test(session, endpoint, by=account(), now=now())
        return {"order": str(order)}

    with database(), counting("Waiting for the answer"):
        refuse_if_held()
        answer = _done(endpoint, act)
        answer |= _sent(endpoint, int(answer["order"]))
    sentence = "It was taken, in {ms} ms." if answer["taken"] else "It was not taken: {error}."
    report(answer, as_json, sentence)
    if not answer["taken"]:
        raise Refused


def _sent(endpoint: int, order: int) -> dict[str, Any]:
    """Send a test here, unless a worker that is at it does, and say what came of it."""
    import time

    from gateway.db import snapshot
    from webhooks.outbound import endpoints as service
    from webhooks.outbound.sending import ANSWER_SECONDS_MAX, means, serve

    until = time.monotonic() + 2 * ANSWER_SECONDS_MAX
    while time.monotonic() < until:
        serve(endpoint, means(), blocks_max=1)
        with snapshot() as session:
            found = service.attempt_of(session, order)
        if found is not None:
            return {"taken": found["error"] is None, **_plain(found)}
        time.sleep(0.2)
    return {"taken": False, "status": None, "ms": 0, "error": "others are being sent before it"}


def _done(endpoint: int, act: Callable[[Session], dict[str, Any]]) -> dict[str, Any]:
    """Do something to an endpoint that is locked, in one transaction."""
    from gateway.db import transaction
    from webhooks.outbound import endpoints as service

    try:
        with transaction() as session:
            if service.lock(session, endpoint) is None:
                raise _unknown()
            return act(session)
    except service.Full as error:
        raise Unusable(str(error)) from None


def _unknown() -> Unusable:
    return Unusable("There is no endpoint with this id: wasl endpoints list shows them.")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as JSON has it."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
    }
