"""Commands about messages to people: what was sent, who wants none."""

from __future__ import annotations

import click

from gateway.cli.shared import account, database, json_flag, now, report, say_if_held


@click.group()
def messages() -> None:
    """What people are told by telephone about what is due and what was paid."""


@messages.command("list")
@click.option(
    "--state", type=click.Choice(["waiting", "sent", "dropped"]), default=None, help="Only these."
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@json_flag
def messages_list(state: str | None, limit: int, as_json: bool) -> None:
    """List messages, the newest first, and how many there are of each kind. Names nobody."""
    with database():
        from gateway.db import snapshot
        from gateway.messages.listing import list_messages

        with snapshot() as session:
            found = list_messages(session, state=state, limit=limit)
        say_if_held()
    if as_json:
        report(found, True, "")
        return
    for one in found["messages"]:
        told = one["because"] or (f"{one['parts']} parts" if one["parts"] else "in line")
        click.echo(f"{one['id']} {one['made_at']} {one['kind']} {one['state']}: {told}")
    for line in found["counts"]:
        click.echo("{kind}, {state}: {count}, {parts} parts".format(**line))
    if not found["counts"]:
        click.echo("There is no message.")


_WHOSE = click.argument("cnss_number", metavar="CNSS")


@messages.command("stop")
@_WHOSE
@click.option("--why", required=True, help="The reason, or who asked. No names.")
@json_flag
def messages_stop(cnss_number: str, why: str, as_json: bool) -> None:
    """Send a person no more messages; no import changes that."""
    with database():
        from gateway.db import transaction
        from gateway.messages.stops import stop_messages
        from gateway.people.activities import contributor_of

        with transaction() as session:
            whose = contributor_of(session, cnss_number)
            fresh = stop_messages(session, whose, asked_by=account(), why=why, now=now())
    sentence = "No more messages go there." if fresh else "No messages went there already."
    report({"stopped": fresh}, as_json, sentence)


@messages.command("allow")
@_WHOSE
@json_flag
def messages_allow(cnss_number: str, as_json: bool) -> None:
    """Send a person messages again."""
    with database():
        from gateway.db import transaction
        from gateway.messages.stops import allow_messages
        from gateway.people.activities import contributor_of

        with transaction() as session:
            fresh = allow_messages(session, contributor_of(session, cnss_number))
    sentence = "Messages go there again." if fresh else "Messages went there already."
    report({"allowed": fresh}, as_json, sentence)
