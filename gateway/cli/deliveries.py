"""Commands about what providers delivered: find, look at, act on again, mask."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gateway.cli.shared import (
    Refused,
    account,
    counted,
    counting,
    database,
    json_flag,
    now,
    report,
)
from gateway.errors import Unusable

if TYPE_CHECKING:
    from webhooks.deliveries import Choice

_F = TypeVar("_F", bound=Callable[..., Any])
LISTED_MAX = 1_000
_DAY = click.DateTime(["%Y-%m-%d"])


def _chosen_by(command: _F) -> _F:
    """Add the options by which deliveries are chosen."""
    options = (
        click.option("--provider", default=None, help="Only what this provider sent."),
        click.option("--id", "delivery_id", default=None, help="Only this delivery id."),
        click.option(
            "--state",
            type=click.Choice(["waiting", "done", "parked"]),
            default=None,
            help="Only what stands so.",
        ),
        click.option("--outcome", default=None, help="Only what came to this: booked, …"),
        click.option("--from", "first", type=_DAY, default=None, help="First day of arrival."),
        click.option("--to", "last", type=_DAY, default=None, help="Last day of arrival."),
    )
    for option in reversed(options):
        command = option(command)
    return command


_why = click.option("--why", required=True, help="A sentence without names; it is kept.")
_by = click.option("--by", default=None, help="Who asks for it; the account is kept, too.")
_dry_run = click.option("--dry-run", is_flag=True, help="Only say how many.")


@click.group()
def deliveries() -> None:
    """What providers delivered, and what became of it."""


@deliveries.command("list")
@_chosen_by
@click.option("--limit", type=click.IntRange(1, LISTED_MAX), default=50, show_default=True)
@click.option("--after", type=click.IntRange(min=0), default=0, help="`next` of the list before.")
@json_flag
def deliveries_list(limit: int, after: int, as_json: bool, **chosen: Any) -> None:
    """List deliveries in the order in which they were stored."""
    choice = _choice(**chosen)
    with database():
        _check_known(choice)
        from gateway.db import snapshot
        from webhooks.deliveries import list_deliveries

        with snapshot() as session:
            rows = list_deliveries(session, choice, after=after, limit=limit + 1)
    following = rows[limit - 1]["id"] if len(rows) > limit else None
    listed = [_plain({k: v for k, v in row.items() if k != "id"}) for row in rows[:limit]]
    if as_json:
        click.echo(json.dumps({"deliveries": listed, "next": following}))
        return
    for each in listed:
        click.echo("{received_at}  {provider}/{delivery_id}  ".format(**each) + _standing(each))
    if not listed:
        click.echo("There is no such delivery.")
    if following is not None:
        click.echo(f"There are more: --after {following}")


@deliveries.command("show")
@click.argument("provider")
@click.argument("delivery_id")
@json_flag
def deliveries_show(provider: str, delivery_id: str, as_json: bool) -> None:
    """Show a delivery: what it came to, and what it says, with what is personal masked."""
    with database():
        from gateway.db import snapshot
        from webhooks.deliveries import read_delivery

        with snapshot() as session:
            found = read_delivery(session, provider, delivery_id, with_body=True)
    if found is None:
        raise Unusable(f"Nothing came from {provider} under this delivery id.")
    answer = _plain({name: value for name, value in found.items() if name != "id"})
    if as_json:
        click.echo(json.dumps(answer))
        return
    click.echo("{provider}/{delivery_id}  ".format(**answer) + _standing(answer))
    for name, value in answer.items():
        if name in {"provider", "delivery_id", "state", "outcome"} or value in (None, [], 0):
            continue
        for each in value if isinstance(value, list) else [value]:
            click.echo(f"  {name}: {json.dumps(each) if isinstance(each, dict) else each}")


@deliveries.command("replay")
@_chosen_by
@_why
@_by
@_dry_run
@json_flag
def deliveries_replay(
    why: str, by: str | None, dry_run: bool, as_json: bool, **chosen: Any
) -> None:
    """Act again on the deliveries chosen. What one did once it does not do twice.

    Exit 1 if one failed again, or waits for a provider that is switched off, or if nothing fits
    the --id given.
    """
    _replay(_choice(**chosen), why, by, dry_run=dry_run, as_json=as_json)


@deliveries.command("release")
@click.option("--provider", default=None, help="Only what this provider sent.")
@click.option("--id", "delivery_id", default=None, help="Only this delivery id.")
@_why
@_by
@_dry_run
@json_flag
def deliveries_release(
    provider: str | None,
    delivery_id: str | None,
    why: str,
    by: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Act again on what is parked; what fails again stays parked, with its reason."""
    choice = _choice(provider=provider, delivery_id=delivery_id, state="parked")
    _replay(choice, why, by, dry_run=dry_run, as_json=as_json)


def _replay(choice: Choice, why: str, by: str | None, *, dry_run: bool, as_json: bool) -> None:
    from gateway.reasons import kept_reason
    from webhooks.replay import CHOSEN_MAX, TooWide

    why = kept_reason(why)
    # Whoever is named, the account stands beside it: nobody can sign for a key or for another.
    asked_by = f"{by.strip()}, by {account()}" if by and by.strip() else account()
    with database():
        _check_known(choice)
        try:
            answer = _counted(choice) if dry_run else _replayed(choice, why, asked_by)
        except TooWide:
            raise Unusable(
                f"This chooses by nothing, or more than {CHOSEN_MAX} deliveries: choose fewer by"
                " provider, state, outcome or days."
            ) from None
    listed = ", ".join(f"{count} {outcome}" for outcome, count in answer["outcomes"].items())
    sentence = f"{counted(answer['chosen'], 'delivery', 'deliveries')} chosen"
    sentence += f": {listed}." if listed else "."
    sentence += " {waiting} still to be acted on." if answer["waiting"] else ""
    report(answer, as_json, sentence)
    nothing_named = choice.delivery_id is not None and not answer["chosen"]
    if answer["waiting"] or answer["outcomes"].get("failed") or nothing_named:
        raise Refused


def _counted(choice: Choice) -> dict[str, Any]:
    from gateway.db import snapshot
    from webhooks.replay import count_chosen

    with snapshot() as session:
        chosen = count_chosen(session, choice)
    return {"replay": None, "chosen": chosen, "waiting": 0, "outcomes": {}}


def _replayed(choice: Choice, why: str, asked_by: str) -> dict[str, Any]:
    """Order a replay, and do it here: a worker that is at it too does no harm."""
    from gateway import process
    from gateway.db import snapshot, transaction
    from webhooks.inbox import Desk
    from webhooks.replay import drain_replays, order_replay, read_replay

    desk = Desk(process.providers(), process.signing_key(), process.business_clock())
    with transaction() as session:
        ordered = order_replay(session, choice, asked_by=asked_by, why=why, now=now())
    with counting("Replaying deliveries") as progress:
        done = 0
        while did := drain_replays(desk, batches_max=1, wait=True):
            done += did
            progress(done, ordered.chosen)
    with snapshot() as session:
        found = read_replay(session, ordered.id) or {}
    return {
        "replay": str(ordered.id),
        **{name: found[name] for name in ("chosen", "waiting", "outcomes")},
    }


@deliveries.command("mask")
@click.option(
    "--before",
    type=_DAY,
    default=None,
    help="Of what came before this day; else of what was kept as long as the retention file says.",
)
@click.option("--sooner", is_flag=True, help="Though the retention file keeps them longer.")
@_dry_run
@json_flag
def deliveries_mask(before: datetime | None, sooner: bool, dry_run: bool, as_json: bool) -> None:
    """Mask what is personal in bodies, for good; amounts, references and instants stay.

    What waits or is parked stays as it came. Running services do this by themselves.
    """
    if sooner and before is None:
        raise Unusable("Say with --before which bodies are to be masked sooner.")
    with database(), counting("Masking bodies") as progress:
        from webhooks.retention import Sweeps, count_due

        end = _masked_before(before, sooner=sooner)
        if dry_run:
            masked = count_due(end)
        else:
            masked = Sweeps().mask_old(end, now=now(), seconds=float("inf"), progress=progress)
    answer = {"deliveries": masked.deliveries, "variants": masked.variants, "dry_run": dry_run}
    would = "would be masked" if dry_run else "masked"
    report(answer, as_json, f"{{deliveries}} bodies and {{variants}} variants {would}.")


def _masked_before(before: datetime | None, *, sooner: bool) -> datetime:
    """Return the instant before which bodies are masked.

    Raises:
        Unusable: The day has not begun, or the retention file keeps later bodies and nobody said
            that it is to be sooner: it cannot be undone.
    """
    from gateway.api.schemas import start_of
    from gateway.retention import retention

    kept = retention().bodies
    latest = kept.before(now())
    if before is None:
        return latest
    end = start_of(before.date())
    if end > now():
        raise Unusable(f"{before:%Y-%m-%d} has not begun: nothing can be kept long enough by then.")
    if end > latest and not sooner:
        raise Unusable(
            f"The retention file keeps bodies for {counted(kept.days, 'day')}, and masking cannot"
            " be undone: add --sooner if it is meant."
        )
    return end


def _check_known(choice: Choice) -> None:
    """Refuse a provider or an outcome that there is not: most likely it is mistyped.

    Raises:
        Unusable: That is so.
    """
    from gateway import process
    from gateway.db import snapshot
    from webhooks.deliveries import OUTCOMES, has_sent

    if choice.outcome is not None and choice.outcome not in OUTCOMES:
        plain = ", ".join(sorted(each for each in OUTCOMES if not each.startswith("declined_")))
        raise Unusable(
            f"{choice.outcome!r} is no outcome. There are: {plain}, and declined_ with the reason."
        )
    if choice.provider is None:
        return
    with snapshot() as session:
        known = has_sent(session, choice.provider)
    if not known and choice.provider not in process.providers():
        raise Unusable(
            f"{choice.provider!r} is not in the providers file, and nothing ever came from it."
        )


def _choice(
    *,
    provider: str | None = None,
    delivery_id: str | None = None,
    state: str | None = None,
    outcome: str | None = None,
    first: datetime | None = None,
    last: datetime | None = None,
) -> Choice:
    from gateway.api.schemas import end_of, start_of
    from webhooks.deliveries import Choice
    from webhooks.models import DeliveryState

    if first is not None and last is not None and last < first:
        raise Unusable("--from is after --to.")
    return Choice(
        provider=provider,
        delivery_id=delivery_id,
        state=None if state is None else DeliveryState(state),
        outcome=outcome,
        received_from=None if first is None else start_of(first.date()),
        received_before=None if last is None else end_of(last.date()),
    )


def _standing(row: dict[str, Any]) -> str:
    said = row["outcome"] or row["last_error"] or ""
    return f"{row['state']}: {said}" if said else str(row["state"])


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: instants and bytes as texts."""
    match value:
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case list():
            return [_plain(each) for each in value]
        case datetime():
            return value.isoformat()
        case bytes() | memoryview():
            return bytes(value).hex()
        case _:
            return value
