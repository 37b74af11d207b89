"""`wasl soak`."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import click

from gateway.cli.shared import Refused, json_flag

SEED_MAX = 10**9


@click.command()
@click.option(
    "--payments",
    type=click.IntRange(1, 1_000_000),
    default=20_000,
    show_default=True,
    help="How many are made, one to a contributor.",
)
@click.option("--seed", type=int, default=None, help="Of all that is drawn; else any, and printed.")
@click.option(
    "--kills",
    type=click.IntRange(0, 10_000),
    default=None,
    help="Kills (-9) of server, worker, PostgreSQL and Redis; else a few, of server and worker.",
)
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="A folder for it, which is kept; else one that is removed afterwards.",
)
@json_flag
def soak(
    payments: int, seed: int | None, kills: int | None, home: Path | None, as_json: bool
) -> None:
    """Collect many payments while things go wrong and programs are killed; then judge."""
    from rich.console import Console

    from gateway.settings import settings
    from gateway.soak.stage import soak as play

    progress = Console(stderr=True)
    seed = secrets.randbelow(SEED_MAX) if seed is None else seed
    progress.print(f"seed {seed}", highlight=False)
    result = play(
        settings(),
        payments=payments,
        seed=seed,
        kill_count=kills,
        home=home,
        progress=progress,
    )
    if as_json:
        click.echo(json.dumps(result.as_json()))
    else:
        result.show(Console())
    if not result.ok:
        raise Refused
