"""Commands about what relieves those who are late: instalment plans, remission campaigns."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.shared import counted, counting, database, json_flag, now, report
from gateway.errors import Unusable

if TYPE_CHECKING:
    from gateway.relief.reliefs import Reviewed

_CNSS = click.argument("cnss", metavar="CNSS")


@click.group()
def plans() -> None:
    """Instalment plans."""


@plans.command("make")
@_CNSS
@click.option("--months", type=click.IntRange(min=1), required=True, help="How many instalments.")
@click.option("--campaign", default=None, help="Code of the campaign whose condition it is.")
@json_flag
def plans_make(cnss: str, months: int, campaign: str | None, as_json: bool) -> None:
    """Spread all that a person is late with over months; current dues are paid beside it."""
    number = _as_cnss(cnss)
    with database():
        from gateway.db import transaction
        from gateway.process import signing_key
        from gateway.relief import plans as service
        from gateway.relief.reliefs import person_of

        with transaction() as session:
            person = person_of(session, number)
            made = service.make_plan(
                session, person, months, campaign, key=signing_key(), now=now()
            )
    click.echo(json.dumps(made.as_json()) if as_json else _plan_text(made.as_json()))


@plans.command("show")
@_CNSS
@json_flag
def plans_show(cnss: str, as_json: bool) -> None:
    """Show a person's plans as they stand today, ended ones too."""
    number = _as_cnss(cnss)
    with database():
        from gateway.clock import day_of
        from gateway.db import snapshot
        from gateway.relief.plans import plans_of
        from gateway.relief.reliefs import person_of

        with snapshot() as session:
            found = plans_of(session, person_of(session, number), on=day_of(now()))
    answer = [plan.as_json() for plan in found]
    if as_json:
        click.echo(json.dumps({"plans": answer}))
    else:
        click.echo("\n".join(map(_plan_text, answer)) or "There is no plan.")


@plans.command("review")
@json_flag
def plans_review(as_json: bool) -> None:
    """Judge plans and remissions by date: what is kept, what is broken. Any number of times.

    Running services do this by themselves, once an hour.
    """
    with database(), counting("Reviewing plans and remissions") as progress:
        from gateway.relief.plans import review_plans
        from gateway.relief.remissions import review_remissions

        of_plans = _review(review_plans, progress)
        of_remissions = _review(review_remissions, progress)
    report(
        {"plans": of_plans, "remissions": of_remissions},
        as_json,
        "Plans: {plans[judged]} judged, {plans[kept]} kept, {plans[broken]} broken,"
        " {plans[restored]} stand again. Remissions: {remissions[judged]} judged,"
        " {remissions[kept]} kept, {remissions[broken]} broken, {remissions[restored]} stand"
        " again.",
    )


def _review(review: Callable[..., Reviewed], progress: Callable[..., None]) -> dict[str, int]:
    """Go through all of them, each step in a transaction of its own."""
    from gateway.db import transaction
    from gateway.process import signing_key

    found = {"judged": 0, "kept": 0, "broken": 0, "restored": 0}
    after: int | None = 0
    while after is not None:
        with transaction() as session:
            step = review(session, key=signing_key(), now=now(), after=after)
        for name in found:
            found[name] += getattr(step, name)
        after = step.next_after
        progress(found["judged"])
    return found


@click.group()
def remissions() -> None:
    """Remission campaigns."""


@remissions.command("grant")
@click.argument("campaign")
@click.option("--cnss", default=None, help="Only this person, by CNSS number.")
@json_flag
def remissions_grant(campaign: str, cnss: str | None, as_json: bool) -> None:
    """Grant a campaign's remission to all who meet its condition; again: to nobody twice.

    What rests on a plan is granted when the plan is made: wasl plans make --campaign.
    """
    from gateway.money import format_amount

    number = None if cnss is None else _as_cnss(cnss)
    looked_at = granted = remitted_minor = 0
    with database(), counting("Granting remissions") as progress:
        from gateway.db import transaction
        from gateway.process import signing_key
        from gateway.relief.reliefs import person_of
        from gateway.relief.remissions import grant_remissions

        after: int | None = 0
        while after is not None:
            with transaction() as session:
                person = None if number is None else person_of(session, number)
                step = grant_remissions(
                    session,
                    campaign,
                    key=signing_key(),
                    now=now(),
                    after=after,
                    contributor_id=person,
                )
            looked_at += step.looked_at
            granted += step.granted
            remitted_minor += step.remitted_minor
            after = step.next_after
            progress(looked_at)
    report(
        {"looked_at": looked_at, "granted": granted, "remitted": format_amount(remitted_minor)},
        as_json,
        f"{{granted}} granted, of {counted(looked_at, 'person', 'people')} looked at;"
        " {remitted} MAD remitted.",
    )
    if not as_json and (why := _window(campaign)):
        click.echo(why)


def _window(code: str) -> str:
    """Return that a campaign's window is not open today, if so."""
    from gateway.clock import day_of
    from gateway.dues.campaigns import campaigns

    campaign, today = campaigns().of(code), day_of(now())
    if today < campaign.since:
        return f"The window of {code} opens on {campaign.since}: nobody can meet its condition yet."
    if today > campaign.until:
        return f"The window of {code} closed on {campaign.until}: what was paid in it counts."
    return ""


@remissions.command("show")
@_CNSS
@json_flag
def remissions_show(cnss: str, as_json: bool) -> None:
    """Show what was remitted to a person, and how each remission stands."""
    number = _as_cnss(cnss)
    with database():
        from gateway.clock import day_of
        from gateway.db import snapshot
        from gateway.relief.reliefs import person_of
        from gateway.relief.remissions import remissions_of

        with snapshot() as session:
            found = remissions_of(session, person_of(session, number), on=day_of(now()))
    answer = [each.as_json() for each in found]
    if as_json:
        click.echo(json.dumps({"remissions": answer}))
    else:
        click.echo("\n".join(map(_remission_text, answer)) or "There is no remission.")


def _as_cnss(text: str) -> str:
    digits = "".join(text.split())
    if len(digits) != 9 or not (digits.isascii() and digits.isdecimal()):
        raise Unusable("A CNSS number has nine digits.")
    return digits


def _plan_text(plan: dict[str, Any]) -> str:
    head = (
        "Plan {reference} of {made_on}: {amount} MAD in {months} instalments, {due} MAD due;"
        " {status}"
    ).format(**plan)
    head += " since {since}".format(**plan) if plan["since"] else ""
    head += " ({because})".format(**plan) if plan["because"] else ""
    lines = [
        "  {due_on}  {amount:>12} MAD  {status}".format(**each) for each in plan["instalments"]
    ]
    return "\n".join([f"{head}.", *lines])


def _remission_text(remission: dict[str, Any]) -> str:
    text = "{campaign} from {granted_on}: {status}".format(**remission)
    text += " since {since}".format(**remission) if remission["since"] else ""
    text += " ({because})".format(**remission) if remission["because"] else ""
    count = counted(len(remission["invoices"]), "invoice")
    return f"{text}; {remission['remitted']} MAD remitted on {count} ({remission['offer']})."
