"""Commands about what the institution recorded: take it in, match it with what is booked."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.shared import FILE, counting, database, json_flag, now, report, report_import


@click.group()
def records() -> None:
    """What the institution recorded."""


@records.command("import")
@click.argument("file", type=FILE)
@json_flag
def records_import(file: Path, as_json: bool) -> None:
    """Take in the institution's records from a CSV file; the same file again changes nothing."""
    with database(), counting("Reading records") as progress:
        from reconciliation.records import import_records

        result = import_records(file, now=now(), progress=progress)
    report_import(result.as_json(), as_json)


@click.command()
@click.option("--period", default=None, help="Only this month or quarter.")
@json_flag
def reconcile(period: str | None, as_json: bool) -> None:
    """Match what is open on both sides; what does not match is an exception."""
    if period is not None:
        from gateway.dues.periods import parse_period

        parse_period(period)
    with database(), counting("Reconciling") as progress:
        from reconciliation.runs import reconcile as run

        result = run(period=period, now=now(), progress=progress)
        compared = _has_records()
    answer = result.as_json()
    report(answer, as_json, "Run {run}: {matched} matched, {open} open.")
    if not as_json:
        for code, count in answer["exceptions"].items():
            click.echo(f"  {code}: {count}")
        if not compared:
            click.echo(
                "No records were imported yet: wasl records import FILE gives the other side."
            )


def _has_records() -> bool:
    from gateway.db import execute, snapshot

    with snapshot() as session:
        return bool(execute(session, "SELECT EXISTS (SELECT FROM institution_record)").scalar())
