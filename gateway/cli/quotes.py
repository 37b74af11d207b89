"""The command that says what is owed and why, before anything is issued."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from gateway.cli.shared import json_flag
from gateway.errors import Unusable

if TYPE_CHECKING:
    from gateway.dues.quotes import Quote
    from gateway.dues.tariff import Tariff


@click.command()
@click.option("--category", "code", required=True, help="One of the tariff's categories.")
@click.option("--base", default=None, help="In dirhams, where the category has bands: 4200.00.")
@click.option("--period", required=True, help="A month (2026-11) or a quarter (2026-Q4).")
@click.option("--on", "day", required=True, help="The day it is quoted for: 2026-11-30.")
@json_flag
def quote(code: str, base: str | None, period: str, day: str, as_json: bool) -> None:
    """Say what one person owes for a period on a day, and why, who has paid nothing.

    It takes the tariff only: no database, and no register.
    """
    from gateway.csvfiles import read_day
    from gateway.dues.periods import parse_period
    from gateway.dues.quotes import quote as quoted
    from gateway.dues.tariff import tariff
    from gateway.money import UnreadableAmount, parse_amount

    named, on, current = parse_period(period), read_day(day), tariff()
    category = current.of(code)
    if on is None:
        raise Unusable(f"--on {day} is not a day: write it as 2026-11-30.")
    try:
        base_minor = None if base is None else parse_amount(base)
    except UnreadableAmount as error:
        raise Unusable(f"--base {base}: {error}.") from None
    if base is not None and not category.needs_base:
        click.echo(f"wasl: {code} has no bands, so --base was not looked at.", err=True)
    found = quoted(current, category, named, base_minor, on)
    click.echo(json.dumps(found.as_json()) if as_json else _table(current, code, found))


def _table(tariff: Tariff, code: str, found: Quote) -> str:
    """Return a quote as people read it: amounts to the right, what is not confirmed marked."""
    answer = found.as_json()
    rows = [
        (line["kind"], line["amount"], line["rule"], line["source"], line["verified"])
        for line in answer["lines"]
    ]
    due = tariff.due_day(code, found.period)
    out = [
        f"{code}, {found.period.code}; to be paid by {found.due_on}{_mark(due.verified)};"
        f" tariff {tariff.version}"
    ]
    width = max(len(answer["total"]), *(len(amount) for _, amount, *_ in rows), 0)
    for kind, amount, rule, source, verified in rows:
        out.append(f"  {kind:<10} {amount:>{width}} MAD  {rule}{_mark(verified)}")
        out.append(f"  {'':<10} {'':>{width}}      source: {source}")
    out.append(f"  {'total':<10} {answer['total']:>{width}} MAD")
    if found.reason:
        out.append(f"  Nothing is owed: {found.reason}.")
    return "\n".join(out)


def _mark(verified: bool) -> str:
    return "" if verified else " [not confirmed]"
