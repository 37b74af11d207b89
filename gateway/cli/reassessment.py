"""Commands about what people do and did, and what follows for what was billed to them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date
from typing import TYPE_CHECKING, Final

import click

from gateway.cli.shared import counted, database, json_flag, now
from gateway.errors import Unusable

if TYPE_CHECKING:
    from gateway.billing.reassessment import Reassessed

_BECAUSE = click.option(
    "--because", required=True, help="Why, for whoever reads it later. No names."
)


@click.command("reassess")
@click.option("--cnss", "cnss_number", default=None, help="One person only, in line or not.")
@click.option("--because", default=None, help="Why, with --cnss. No names.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@json_flag
def reassess(cnss_number: str | None, because: str | None, dry_run: bool, as_json: bool) -> None:
    """Hold what was billed against what is owed: credit, charge, or issue the rest.

    Without --cnss, of all who are in line because something about them changed.
    """
    with database():
        from gateway.billing import reassessment
        from gateway.db import snapshot, transaction
        from gateway.dues.tariff import tariff
        from gateway.people.activities import contributor_of
        from gateway.process import business_clock, signing_key

        if cnss_number is None and not dry_run:
            all_done = reassessment.reassess_due(
                tariff(), key=signing_key(), clock=business_clock()
            )
            _report(all_done, as_json)
        elif dry_run:
            with snapshot() as session:
                ids = (
                    reassessment.in_line(session)
                    if cnss_number is None
                    else [contributor_of(session, cnss_number)]
                )
                _report(reassessment.preview(session, ids, tariff(), now=now()), as_json)
        else:
            with transaction() as session:
                done = reassessment.reassess(
                    session,
                    [contributor_of(session, cnss_number or "")],
                    tariff(),
                    key=signing_key(),
                    now=now(),
                    because=because or "",
                )
            for each in done:
                if each.refused:
                    raise Unusable(each.refused)
            _report(done, as_json)


def _report(done: Iterable[Reassessed], as_json: bool) -> None:
    """Say what came of a re-assessment: as it goes along, as they may be very many."""
    if as_json:
        click.echo(json.dumps({"reassessed": [each.as_json() for each in done]}))
        return
    people = notes = missing = 0
    for each in done:
        people += 1
        notes += len(each.adjusted)
        missing += len(each.missing)
        if each.refused:
            click.echo(f"contributor {each.contributor_id} cannot be assessed: {each.refused}")
        said = each.as_json()
        for note in said["notes"]:
            due = f", due {note['due_on']}" if note["due_on"] else ""
            click.echo(f"{note['reference']} {note['period']}: {note['amount']}{due}")
            click.echo(f"    {note['rule']}")
        for issued in said["issued"]:
            click.echo(
                f"{issued['period']} issued as {issued['category']}: {issued['amount']},"
                f" due {issued['due_on']}"
            )
    done_for = f"{counted(people, 'person', 'people')}, {counted(notes, 'note')}"
    click.echo(f"{done_for}, {counted(missing, 'invoice')} issued.")


@click.command("left")
@click.argument("cnss_number", metavar="CNSS")
@click.option("--on", "day", required=True, help="The last day: 2026-11-30.")
@_BECAUSE
def left(cnss_number: str, day: str, because: str) -> None:
    """Note the last day of a person who left or died. Later periods are credited."""
    last = _day("--on", day)
    with database():
        from gateway.clock import day_of
        from gateway.db import execute, transaction
        from gateway.people.activities import contributor_of, correct_registration

        with transaction() as session:
            whose = contributor_of(session, cnss_number)
            row = execute(session, _WHO, {"id": whose}).one()
            correct_registration(session, whose, left_on=last, because=because, now=now())
    was = f"before, it was {row.left_on}" if row.left_on else "none was noted before"
    click.echo(f"{row.given_name} {row.family_name} left on {last}; {was}.")
    if row.left_on == last:
        click.echo("Nothing changes.")
        return
    if row.left_on and last > row.left_on:
        click.echo("A later day: what was credited between the two is charged again.")
    if last > day_of(now()):
        click.echo("The day has not come yet: compare it.")
    click.echo("wasl contributors reassess, or a worker, does the rest.")


_WHO: Final = "SELECT given_name, family_name, left_on FROM contributor WHERE id = :id"


@click.command("merge")
@click.argument("keep", metavar="CNSS_THAT_STAYS")
@click.argument("other", metavar="CNSS_OF_THE_OTHER")
@_BECAUSE
@json_flag
def merge(keep: str, other: str, because: str, as_json: bool) -> None:
    """Make two files of one person one; what was billed twice is credited. It cannot be undone."""
    with database():
        from gateway.billing.reassessment import merge_files
        from gateway.db import transaction
        from gateway.dues.tariff import tariff
        from gateway.people.activities import contributor_of
        from gateway.process import signing_key

        with transaction() as session:
            done = merge_files(
                session,
                contributor_of(session, keep),
                contributor_of(session, other),
                tariff(),
                because=because,
                key=signing_key(),
                now=now(),
            )
    _report(done, as_json)


@click.group("activity")
def activity() -> None:
    """What people do or did beside or before what the register says."""


@activity.command("list")
@click.argument("cnss_number", metavar="CNSS")
@json_flag
def activity_list(cnss_number: str, as_json: bool) -> None:
    """List what a person does by the register, and the activities beside or before it."""
    with database():
        from gateway.db import snapshot
        from gateway.people.activities import contributor_of, recorded, registered

        with snapshot() as session:
            whose = contributor_of(session, cnss_number)
            known, own = recorded(session, whose), registered(session, whose)
    if as_json:
        click.echo(json.dumps({"register": own, "activities": known}))
        return
    base = f" (base {own['base']})" if own["base"] else ""
    until = own["until"] or "now"
    click.echo(f"register: {own['category']}{base}, {own['since']} to {until}")
    for each in known:
        withdrawn = ", withdrawn" if each["withdrawn"] else ""
        base = f" (base {each['base']})" if each["base"] else ""
        until = each["until"] or "now"
        click.echo(
            f"{each['id']}: {each['category']}{base}, {each['since']} to {until}{withdrawn}:"
            f" {each['because']}"
        )


@activity.command("add")
@click.argument("cnss_number", metavar="CNSS")
@click.option("--category", required=True, help="One of the tariff's categories.")
@click.option("--base", default=None, help="In dirhams, where the category is charged by one.")
@click.option("--since", required=True, help="The first day: 2026-01-31.")
@click.option("--until", default=None, help="The last day; left out: it goes on.")
@_BECAUSE
def activity_add(
    cnss_number: str, category: str, base: str | None, since: str, until: str | None, because: str
) -> None:
    """Record an activity beside what the register says."""
    from gateway.money import UnreadableAmount, parse_amount

    try:
        base_minor = None if base is None else parse_amount(base)
    except UnreadableAmount as error:
        raise Unusable(f"--base {base}: {error}.") from None
    first = _day("--since", since)
    last = None if until is None else _day("--until", until)
    with database():
        from gateway.db import transaction
        from gateway.dues.tariff import tariff
        from gateway.people.activities import add_activity, contributor_of

        with transaction() as session:
            added = add_activity(
                session,
                contributor_of(session, cnss_number),
                tariff(),
                category=category,
                base_minor=base_minor,
                since=first,
                until=last,
                because=because,
                now=now(),
            )
    click.echo(f"Activity {added} recorded.")


@activity.command("withdraw")
@click.argument("cnss_number", metavar="CNSS")
@click.argument("activity_id", metavar="ID", type=click.IntRange(min=1))
@_BECAUSE
def activity_withdraw(cnss_number: str, activity_id: int, because: str) -> None:
    """Say of an activity that it has never been."""
    with database():
        from gateway.db import transaction
        from gateway.people.activities import contributor_of, withdraw_activity

        with transaction() as session:
            whose = contributor_of(session, cnss_number)
            withdraw_activity(session, whose, activity_id, because=because, now=now())
    click.echo(f"Activity {activity_id} withdrawn.")


@click.command("charge-fee")
@click.argument("reference")
@click.option("--amount", required=True, help="In dirhams: 50.00.")
@click.option("--source", required=True, help="The document that orders it.")
@click.option("--take-back", is_flag=True, help="Take so much back of what was charged by mistake.")
@_BECAUSE
def charge_fee(reference: str, amount: str, source: str, take_back: bool, because: str) -> None:
    """Charge a recovery fee on an invoice."""
    from gateway.money import UnreadableAmount, parse_amount
    from gateway.references import read_reference

    named = read_reference(reference)
    if named is None:
        raise Unusable(f"{reference!r} is not a reference: compare its twelve digits.")
    try:
        amount_minor = parse_amount(amount)
    except UnreadableAmount as error:
        raise Unusable(f"--amount {amount}: {error}.") from None
    if amount_minor <= 0:
        raise Unusable(f"--amount {amount}: give more than nothing.")
    with database():
        from gateway.billing import notes
        from gateway.db import transaction
        from gateway.dues.tariff import tariff
        from gateway.process import signing_key

        with transaction() as session:
            notes.charge_fee(
                session,
                named,
                -amount_minor if take_back else amount_minor,
                tariff(),
                source=source,
                because=because,
                key=signing_key(),
                now=now(),
            )
    click.echo(f"Taken back on {named}." if take_back else f"Charged on {named}.")


def _day(option: str, text: str) -> date:
    from gateway.csvfiles import read_day

    day = read_day(text)
    if day is None:
        raise Unusable(f"{option} {text} is not a day: write it as 2026-11-30.")
    return day


OF_CONTRIBUTORS: Final = (reassess, left, merge, activity)
OF_INVOICES: Final = (charge_fee,)
