"""Commands about what providers and banks say they paid out."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.shared import FILE, counting, database, json_flag, now, report_import


@click.group()
def settlements() -> None:
    """What providers and banks say they paid out."""


@settlements.command("import")
@click.argument("file", type=FILE)
@click.option("--provider", required=True, help="Whose file it is: a provider, or a bank.")
@click.option(
    "--format",
    "chosen",
    type=click.Choice(["camt", "mt940", "csv"]),
    default=None,
    help="Its format; else found from its content.",
)
@json_flag
def settlements_import(file: Path, provider: str, chosen: str | None, as_json: bool) -> None:
    """Take in a settlement file or a bank's statements; the same file again changes nothing."""
    with database(), counting("Reading settlements") as progress:
        from reconciliation.sources.formats import Format
        from reconciliation.sources.settlements import import_settlements

        result = import_settlements(
            file,
            provider=provider,
            format=None if chosen is None else Format(chosen),
            now=now(),
            progress=progress,
        )
    report_import(result.as_json(), as_json)
