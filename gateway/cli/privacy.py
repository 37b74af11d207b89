"""Commands of law 09-08: what is held about a person, and its erasure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.cli.shared import (
    FILE,
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
    from gateway.privacy.erasure import Erased

PEOPLE_AT_ONCE: Final = 100


@click.command("extract")
@click.argument("cnss_number", metavar="CNSS")
@click.option("--out", "file", type=FILE, required=True, help="Where the JSON goes.")
@json_flag
def extract(cnss_number: str, file: Path, as_json: bool) -> None:
    """Write all that is held about a person to a file that only you can read (law 09-08)."""
    with database():
        from gateway.db import snapshot
        from gateway.holders import HOLDERS
        from gateway.people.activities import contributor_of
        from gateway.privacy.extract import extract as made_of
        from gateway.secretfiles import write_privately

        with snapshot() as session:
            whose = contributor_of(session, cnss_number)
            made = made_of(session, whose, HOLDERS, now=now())
        assert made is not None
        document = made.as_json()
        text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
        try:
            write_privately(file, text)
        except OSError as error:
            raise Unusable(f"{file} cannot be written: {error.strerror}.") from None
    sections = {each["name"]: len(each["rows"]) for each in document["sections"]}
    answer = {
        "contributor_id": document["contributor_id"],
        "made_at": document["made_at"],
        "file": str(file),
        "rows": sum(sections.values()),
        "sections": sections,
    }
    report(answer, as_json, "{rows} rows about the person written to {file}.")


@click.command("erase")
@click.argument("cnss_number", metavar="[CNSS]", required=False)
@click.option("--why", default=None, help="The request, for whoever reads it later. No names.")
@click.option("--dry-run", is_flag=True, help="Say what would be emptied, and do nothing.")
@click.option("--due", is_flag=True, help="All of whom the set time has passed.")
@json_flag
def erase(
    cnss_number: str | None, why: str | None, dry_run: bool, due: bool, as_json: bool
) -> None:
    """Erase what names a person who has left, with the books intact (law 09-08).

    Refused, with exit 1, while anything is open and until the set time has passed. There is no way
    back; backups keep what stood here until they are deleted.
    """
    if due == (cnss_number is not None):
        raise Unusable("Give one CNSS number, or --due.")
    if due:
        if why is not None or dry_run:
            raise Unusable("--due goes by date alone: leave out --why and --dry-run.")
        _erase_due(as_json)
        return
    assert cnss_number is not None
    if not (why or "").strip():
        raise Unusable("Say why with --why.")
    _erase_one(cnss_number, why or "", dry_run, as_json)


class _DryRun(Exception):
    """Ends the transaction of a trial."""


def _erase_one(cnss_number: str, why: str, dry_run: bool, as_json: bool) -> None:
    with database():
        from gateway.db import transaction
        from gateway.holders import HOLDERS
        from gateway.people.activities import contributor_of
        from gateway.privacy.erasure import NotErasable
        from gateway.privacy.erasure import erase as erase_person

        done = None
        try:
            with transaction() as session:
                whose = contributor_of(session, cnss_number)
                done = erase_person(session, whose, HOLDERS, asked_by=account(), why=why, now=now())
                if dry_run:
                    raise _DryRun
        except _DryRun:
            pass
        except NotErasable as error:
            report({"erased": False, "reasons": list(error.reasons)}, as_json, str(error))
            raise Refused from None
    assert done is not None
    _tell(done, dry_run, as_json)


def _tell(done: Erased, dry_run: bool, as_json: bool) -> None:
    from gateway.privacy import LEFT

    if as_json:
        click.echo(json.dumps({"erased": not dry_run, **done.as_json()}))
        return
    click.echo(f"Contributor {done.contributor_id} {'would be' if dry_run else 'is'} erased:")
    for kind, count in done.found.items():
        if not kind.startswith(LEFT):
            click.echo(f"  {counted(count, 'row')} of {kind}")
    for kind, count in done.found.items():
        if kind.startswith(LEFT):
            place = kind.removeprefix(LEFT)
            click.echo(f"  {counted(count, 'row')} of {place} never change and name the person.")
    click.echo("Invoices, payments and books stand. Backups made before keep what stood here.")


def _erase_due(as_json: bool) -> None:
    erased: list[str] = []
    hindered: list[dict[str, str]] = []
    with database(), counting("Erasing") as progress:
        from gateway.holders import HOLDERS
        from gateway.privacy.erasure import erase_due

        after: int | None = 0
        while after is not None:
            made = erase_due(
                HOLDERS, now=now(), asked_by=account(), after=after, people_max=PEOPLE_AT_ONCE
            )
            erased += [str(each.contributor_id) for each in made.erased]
            hindered += [{"contributor_id": str(at), "reason": why} for at, why in made.hindered]
            progress(len(erased))
            after = made.next_after
    answer: dict[str, Any] = {"erased": erased, "hindered": hindered}
    if as_json:
        click.echo(json.dumps(answer))
        return
    click.echo(f"{counted(len(erased), 'person', 'people')} erased.")
    for each in hindered:
        click.echo("  contributor {contributor_id} is not: {reason}".format(**each))


OF_CONTRIBUTORS = (extract, erase)
