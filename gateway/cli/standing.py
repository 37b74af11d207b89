"""Commands about where a person stands: `wasl contributors standing` and `attestation`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from gateway.cli.shared import FILE, Refused, database, json_flag, now, report
from gateway.errors import Unusable


@click.command("standing")
@click.argument("cnss_number", metavar="CNSS")
@click.option("--on", "day", default=None, help="A day, as 2026-11-30; today if left out.")
@json_flag
def standing(cnss_number: str, day: str | None, as_json: bool) -> None:
    """Say whether a person is up to date, what is late, and whether rights are open."""
    from gateway.clock import day_of
    from gateway.csvfiles import read_day

    today = day_of(now())
    on = today if day is None else read_day(day)
    if on is None:
        raise Unusable(f"--on: {day!r} is not a day: write it as 2026-11-30.")
    with database():
        from gateway.db import snapshot
        from gateway.dues.tariff import tariff
        from gateway.people.activities import contributor_of
        from gateway.people.standing import read_standing, refuse_far

        refuse_far(on, today=today)
        with snapshot() as session:
            found = read_standing(session, contributor_of(session, cnss_number), tariff(), on=on)
    assert found is not None
    _tell(found.as_json(), as_json)


def _tell(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(answer))
        return
    since = f" since {answer['since']}" if answer["since"] else ""
    click.echo(f"{'Up to date' if answer['up_to_date'] else 'Not up to date'}{since}.")
    rights = answer["rights"]
    days = [
        f"{word} {rights[name]}"
        for name, word in (("since", "since"), ("until", "until"), ("reopens_on", "reopen on"))
        if rights[name]
    ]
    if rights["state"] == "closed" and rights["reopens_on"]:
        days[-1] += " if all is paid by " + answer["on"]
    doubt = "" if rights["verified"] else " (unconfirmed rule)"
    click.echo(f"Rights {rights['state']}: {', '.join([rights['because'], *days])}{doubt}.")
    for each in answer["arrears"]:
        click.echo("  {period}  {reference}  due {due_on}  {due} MAD".format(**each))
    click.echo("Due {total_due} MAD; credit {credit} MAD.".format(**answer))
    if answer["unbilled"]:
        click.echo("Owed and not billed: {}.".format(", ".join(answer["unbilled"])))
    if plan := answer["plan"]:
        click.echo("Plan of {months} months since {made_on}, by {reference}.".format(**plan))


@click.command("attestation")
@click.argument("cnss_number", metavar="CNSS")
@click.option("--out", "file", type=FILE, required=True, help="Where the PDF goes.")
@json_flag
def attestation(cnss_number: str, file: Path, as_json: bool) -> None:
    """Attest that a person is up to date, and write the paper; exit 1 if the person is not."""
    from gateway.institution import institution

    house = institution()
    with database():
        from gateway import process
        from gateway.db import transaction
        from gateway.dues.tariff import tariff
        from gateway.papers.attestation import attestation_pdf
        from gateway.people.activities import contributor_of
        from gateway.people.attestations import NotUpToDate, attest
        from gateway.settings import settings

        at = now()
        try:
            with transaction() as session:
                person = contributor_of(session, cnss_number)
                made = attest(session, person, process.receipt_keys(), tariff(), now=at)
        except NotUpToDate as error:
            report({"number": None, "reason": str(error)}, as_json, "{reason}")
            raise Refused from None
        assert made is not None
        paper = attestation_pdf(made[0], settings=settings(), institution=house, now=at)
        try:
            file.write_bytes(paper)
        except OSError as error:
            raise Unusable(f"{file} cannot be written: {error.strerror}.") from None
    answer = {
        "number": made[0].number,
        "valid_until": made[0].valid_until.isoformat(),
        "file": str(file),
    }
    report(answer, as_json, "Attestation {number}, valid until {valid_until}, written to {file}.")


OF_CONTRIBUTORS = (standing, attestation)
