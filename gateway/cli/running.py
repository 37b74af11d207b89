"""Commands of whoever runs it: all of it up, the demo, the books' promises, how fast it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from gateway.cli.shared import (
    Refused,
    counting,
    database,
    json_flag,
    report,
    report_measured,
    say_if_held,
    working,
)


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Of this machine; 0 takes any that is free.",
)
def up(port: int) -> None:
    """Run all of it in the foreground, until Ctrl-C; prints `ready http://…`."""
    from gateway import startup
    from gateway.embedded.home import Home
    from gateway.providers.registry import load_providers
    from gateway.settings import settings
    from gateway.supervisor import up as run_all

    startup.require("up")
    # The sandbox's own file of providers is made here, once, in a home that says who may enter.
    Home(settings().home).prepare()
    load_providers(settings())
    sys.exit(run_all(settings(), port))


@click.command("check-settings")
@json_flag
def check_settings(as_json: bool) -> None:
    """Say what is missing, unsafe or unwise about the settings, without starting anything."""
    from gateway import startup

    found = startup.findings_here("up")
    stops = any(finding.stops for finding in found)
    if as_json:
        listed = [{"stops": f.stops, "sentence": f.sentence} for f in found]
        click.echo(json.dumps({"ok": not stops, "findings": listed}))
    else:
        for finding in found:
            click.echo(f"{'REFUSED' if finding.stops else 'warning'}  {finding.sentence}")
        if not found:
            click.echo("Nothing to say against the settings.")
    if stops:
        raise Refused


@click.command()
@json_flag
def migrate(as_json: bool) -> None:
    """Bring the database to the schema of this version; again: nothing."""
    from gateway.migrate import newest

    with database():
        report({"revision": newest()}, as_json, "The database is at revision {revision}.")


@click.command()
@click.option(
    "--contributors",
    type=click.IntRange(1, 2_000_000),
    default=500,
    show_default=True,
    help="How many people it is played with.",
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Equal seeds play equal months."
)
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="A folder for it, which is kept; else one that is removed afterwards.",
)
@json_flag
def demo(contributors: int, seed: int, home: Path | None, as_json: bool) -> None:
    """Play the main job from nothing: enrol, issue, collect, book, reconcile."""
    from rich.console import Console

    from gateway.demo.stage import demo as play
    from gateway.settings import settings

    progress = Console(stderr=True)
    result = play(settings(), contributors=contributors, seed=seed, home=home, progress=progress)
    if as_json:
        click.echo(json.dumps(result.as_json()))
    else:
        result.show(Console())
    if not result.ok:
        raise Refused


@click.command()
@json_flag
def verify(as_json: bool) -> None:
    """Check the books' promises: sums, chain, signed heads, every payment booked once."""
    with database(), working("Checking the books") as says:
        from gateway import process
        from gateway.checks import run_checks
        from gateway.checks.promises import books_checks
        from gateway.db import renew_figures, snapshot
        from gateway.migrate import judges
        from gateway.receipt_checks import receipt_checks
        from reconciliation.checks import CHECKS as RECONCILIATION_CHECKS
        from reconciliation.sources.checks import CHECKS as SETTLEMENT_CHECKS
        from webhooks.checks import CHECKS as WEBHOOK_CHECKS

        checks = [
            *books_checks(process.signing_key(), process.heads_file(), judges()),
            *receipt_checks(process.receipt_keys().published()),
            *WEBHOOK_CHECKS,
            *RECONCILIATION_CHECKS,
            *SETTLEMENT_CHECKS,
        ]
        renew_figures()
        with snapshot() as session:
            broken = run_checks(session, checks, says)
        say_if_held()
    answer = {
        "ok": not broken,
        "checks": len(checks),
        "broken": [{"what": b.what, "where": b.where} for b in broken],
    }
    if as_json:
        click.echo(json.dumps(answer))
    elif broken:
        for b in broken:
            click.echo(f"BROKEN  {b.what}  [{b.where}]")
    else:
        click.echo(f"{len(checks)} checks, all hold.")
    if broken:
        raise Refused


@click.group()
def bench() -> None:
    """How fast it is, beside a limit measured in the same run."""


@bench.command("pages")
@click.option("--notices", type=click.IntRange(1, 100_000), default=1_000, show_default=True)
@click.option("--rounds", type=click.IntRange(1, 99), default=3, show_default=True)
@json_flag
def bench_pages(notices: int, rounds: int, as_json: bool) -> None:
    """Print notices as `wasl notices print` does, beside the bare typesetter on one file."""
    with counting("Printing in rounds") as progress:
        from gateway.bench.pages import bench_pages as run

        report_measured([run(notices, rounds=rounds, progress=progress)], as_json)


@bench.command("issue")
@click.option(
    "--contributors",
    "sizes",
    type=click.IntRange(1, 5_000_000),
    multiple=True,
    default=(200_000,),
    show_default=True,
    help="How many people; given twice, the rates are held against each other, too.",
)
@click.option("--rounds", type=click.IntRange(1, 99), default=5, show_default=True)
@json_flag
def bench_issue(sizes: tuple[int, ...], rounds: int, as_json: bool) -> None:
    """Issue invoices as `wasl invoices issue` does, beside a bare COPY of the same rows."""
    with counting("Issuing in rounds") as progress:
        from gateway.bench.issue import bench_issue as run

        report_measured(run(sizes, rounds=rounds, progress=progress), as_json)


@bench.command("webhooks")
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=5.0, show_default=True)
@click.option("--rounds", type=click.IntRange(1, 99), default=5, show_default=True)
@json_flag
def bench_webhooks(seconds: float, rounds: int, as_json: bool) -> None:
    """Take deliveries in as the web process does, beside pgbench's bare commits of such rows."""
    with counting("Taking in, in rounds") as progress:
        from gateway.bench.webhooks import bench_webhooks as run

        report_measured(run(rounds=rounds, seconds=seconds, progress=progress), as_json)


@bench.command("match")
@click.option(
    "--records",
    "sizes",
    type=click.IntRange(1, 10_000_000),
    multiple=True,
    default=(1_000_000,),
    show_default=True,
    help="How many records, and about as many payments; given twice, one after the other.",
)
@click.option("--flat", is_flag=True, help="Everybody owes the same amount.")
@click.option("--database/--no-database", default=True, help="From and to PostgreSQL, too.")
@click.option("--rounds", type=click.IntRange(1, 99), default=5, show_default=True)
@json_flag
def bench_match(
    sizes: tuple[int, ...], flat: bool, database: bool, rounds: int, as_json: bool
) -> None:
    """Match two ledgers in memory, from files and from the database, beside one hash join.

    Figures are seconds, so a smaller ratio is the better one.
    """
    with counting("Matching in rounds") as progress:
        from gateway.bench.matching import bench_match as run

        measured = [
            one
            for records in sizes
            for one in run(records, rounds=rounds, flat=flat, database=database, progress=progress)
        ]
        report_measured(measured, as_json)


@bench.command("posting")
@click.option("--deliveries", type=click.IntRange(1, 5_000_000), default=100_000, show_default=True)
@click.option("--rounds", type=click.IntRange(1, 99), default=5, show_default=True)
@json_flag
def bench_posting(deliveries: int, rounds: int, as_json: bool) -> None:
    """Act on a full inbox as the worker does, beside what the web process takes in."""
    with counting("Posting in rounds") as progress:
        from gateway.bench.posting import bench_posting as run

        report_measured([run(deliveries, rounds=rounds, progress=progress)], as_json)
