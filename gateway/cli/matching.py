"""Match two files, without services: the engine alone."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.shared import FILE, Refused, counted, json_flag, report, working
from gateway.errors import Unusable


@click.command()
@click.option("--payments", required=True, type=FILE, help="CSV or Parquet: what was paid.")
@click.option("--records", required=True, type=FILE, help="CSV or Parquet: what was recorded.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for matches.csv, payments_open.csv and records_open.csv.",
)
@click.option(
    "--tolerance",
    default="0.05",
    show_default=True,
    help="Dirhams by which the two sides of a group may differ.",
)
@click.option(
    "--shards",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="In how many parts references are compared; the result is the same.",
)
@json_flag
def match(
    payments: Path, records: Path, out: Path, tolerance: str, shards: int, as_json: bool
) -> None:
    """Match the payments of one file with the records of another; no database is needed."""
    from reconciliation.matching import Terms
    from reconciliation.pairfiles import match_files

    terms = Terms(tolerance_minor=_centimes(tolerance), shards=shards)
    with working("Matching") as step:
        matched = match_files(payments, records, out, terms, step=step)
    report(
        matched.answer,
        as_json,
        "{groups} groups of {matched_payments} payments and {matched_records} records;"
        " {open_payments} payments and {open_records} records are open.",
    )
    if not as_json:
        for code, count in matched.answer["codes"].items():
            click.echo(f"  {code}: {count}")
    if matched.set_aside:
        if not as_json:
            click.echo(f"{counted(matched.set_aside, 'line')} set aside: see the open ones.")
        raise Refused


def _centimes(tolerance: str) -> int:
    from gateway.money import UnreadableAmount, parse_amount

    try:
        minor = parse_amount(tolerance)
    except UnreadableAmount as error:
        raise Unusable(f"--tolerance cannot be read: {error}.") from None
    if minor < 0:
        raise Unusable("--tolerance is not negative.")
    return minor
