"""`wasl sending`: hold what Wasl sends of its own accord, and let it go again."""

from __future__ import annotations

import json

import click

from gateway.cli.shared import account, database, json_flag, now, report


@click.group()
def sending() -> None:
    """Whether anything is sent: webhooks, callbacks, messages, refunds, questions."""


@sending.command("show")
@json_flag
def sending_show(as_json: bool) -> None:
    """Say whether sending is held, and why. A restore holds it."""
    with database():
        from gateway.db import snapshot
        from gateway.sending import held

        with snapshot() as session:
            found = held(session)
    if as_json:
        said = found and {
            "because": found.because,
            "held_by": found.held_by,
            "held_at": found.held_at.isoformat(),
        }
        click.echo(json.dumps({"held": said}))
    else:
        click.echo(found.sentence if found else "Nothing is held: everything is sent.")


@sending.command("hold")
@click.option("--why", required=True, help="The reason, without names: it is kept.")
@json_flag
def sending_hold(why: str, as_json: bool) -> None:
    """Send nothing from now on; what comes in is booked all the same."""
    with database():
        from gateway.db import transaction
        from gateway.sending import hold

        with transaction() as session:
            done = hold(session, because=why, who=account(), now=now())
    said = "Held." if done else "It was held already."
    report({"held": True, "changed": done}, as_json, said)


@sending.command("release")
@json_flag
def sending_release(as_json: bool) -> None:
    """Send again: what waited goes out, in order."""
    with database():
        from gateway.db import transaction
        from gateway.sending import release

        with transaction() as session:
            done = release(session, who=account(), now=now())
    said = "Released: what waited goes out now." if done else "Nothing was held."
    report({"held": False, "changed": done}, as_json, said)
