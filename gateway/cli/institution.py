"""Commands about what the institution recorded: take it in, match it with what is booked."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from gateway.cli.shared import (
    FILE,
    account,
    counted,
    counting,
    database,
    json_flag,
    now,
    report,
    report_import,
    working,
)
from gateway.errors import Unusable


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
@click.option(
    "--shards",
    type=click.IntRange(1, 1_000),
    default=1,
    show_default=True,
    help="In how many parts; workers take part, and the end is the same.",
)
@click.option(
    "--tolerance",
    default="0.00",
    show_default=True,
    help="By how many dirhams the two sides of a match may differ.",
)
@json_flag
def reconcile(period: str | None, shards: int, tolerance: str, as_json: bool) -> None:
    """Match what is open on both sides; what does not match is an exception."""
    if period is not None:
        from gateway.dues.periods import parse_period

        parse_period(period)
    tolerance_minor = _centimes("--tolerance", tolerance)
    with database(), counting("Reconciling") as progress:
        from reconciliation.runs import reconcile as run

        result = run(
            period=period,
            now=now(),
            progress=progress,
            shards=shards,
            tolerance_minor=tolerance_minor,
        )
        compared = _has_records()
    answer = result.as_json()
    report(answer, as_json, _what_a_run_found(answer))
    if not as_json and not compared:
        click.echo("No records were imported yet: wasl records import FILE gives the other side.")


def _what_a_run_found(answer: dict[str, Any]) -> str:
    """Return it for people: payments and questions are counted, money is summed."""
    sums = answer["sums"]
    difference = sums["difference"]
    beside = "as much as"
    if difference != "0.00":
        less_or_more = "more" if difference.startswith("-") else "less"
        beside = f"{difference.lstrip('-')} {less_or_more} than"
    return "\n".join(
        (
            f"Run {answer['run']}: {counted(answer['matched'], 'payment')} matched,"
            f" {counted(answer['open'], 'question')} open.",
            f"  payments: {sums['payments']} MAD compared, {sums['matched']} matched,"
            f" {sums['payments_open']} left open",
            f"  records: {sums['records']} MAD compared, {sums['records_open']} left open;"
            f" {beside} the payments",
            *(f"  {code}: {count}" for code, count in answer["exceptions"].items()),
        )
    )


def _centimes(option: str, given: str) -> int:
    from gateway.money import UnreadableAmount, parse_amount

    try:
        return parse_amount(given)
    except UnreadableAmount as error:
        raise Unusable(f"{option} {given!r} cannot be read: {error}.") from None


def _has_records() -> bool:
    from gateway.db import execute, snapshot

    with snapshot() as session:
        return bool(execute(session, "SELECT EXISTS (SELECT FROM institution_record)").scalar())


@click.group()
def matches() -> None:
    """Why rows are matched, and what a person decides about it; no run undoes that."""


_PAYMENT = "As provider/its id."


@matches.command("join")
@click.option("--payment", "payments", multiple=True, required=True, help=_PAYMENT)
@click.option("--record", "records", multiple=True, required=True, help="The record's id.")
@click.option("--why", required=True, help="The reason. No names.")
@click.option(
    "--difference",
    default="0.00",
    show_default=True,
    help="Dirhams that were paid beyond what was recorded (less: negative), where they belong"
    " together all the same.",
)
@json_flag
def matches_join(
    payments: tuple[str, ...], records: tuple[str, ...], why: str, difference: str, as_json: bool
) -> None:
    """Match a payment with records, or a record with payments."""
    difference_minor = _centimes("--difference", difference)
    with database():
        from gateway.db import transaction
        from reconciliation.by_hand import join_by_hand

        with transaction() as session:
            group = join_by_hand(
                session,
                payments,
                records,
                who=account(),
                why=why,
                now=now(),
                difference_minor=difference_minor,
            )
    report({"group": group}, as_json, "Joined, as group {group}.")


@matches.command("part")
@click.option("--payment", required=True, help=_PAYMENT)
@click.option("--record", required=True, help="The record's id.")
@click.option("--why", required=True, help="The reason. No names.")
@json_flag
def matches_part(payment: str, record: str, why: str, as_json: bool) -> None:
    """Say that a payment and a record do not belong together; no run matches them again."""
    with database():
        from gateway.db import transaction
        from reconciliation.by_hand import part_by_hand

        with transaction() as session:
            part_by_hand(session, payment, record, who=account(), why=why, now=now())
    report({"payment": payment, "record": record}, as_json, "{payment} and {record} are parted.")


@matches.command("show")
@click.option("--payment", help=_PAYMENT)
@click.option("--record", help="The record's id.")
@json_flag
def matches_show(payment: str | None, record: str | None, as_json: bool) -> None:
    """Say why a payment or a record is matched, with what and by which evidence, or why not."""
    if (payment is None) == (record is None):
        raise Unusable("Name one: --payment provider/its-id, or --record its id.")
    with database():
        from gateway.db import snapshot
        from reconciliation.explaining import explain_payment, explain_record

        with snapshot() as session:
            if payment is not None:
                said = explain_payment(session, payment)
            else:
                said = explain_record(session, record or "")
    if as_json:
        report(said, as_json, "")
        return
    for name, value in said.items():
        if not isinstance(value, list):
            if value is not None:
                click.echo(f"{name}: {value}")
            continue
        for each in value:
            told = ", ".join(f"{key} {shown}" for key, shown in each.items() if shown is not None)
            click.echo(f"{name}: {told}")
    if not said["matched"]:
        click.echo("It is matched with nothing.")


@click.group()
def export() -> None:
    """What the books hold, as files."""


@export.command("matches")
@click.option("--from", "from_on", type=click.DateTime(["%Y-%m-%d"]), required=True)
@click.option("--to", "to_on", type=click.DateTime(["%Y-%m-%d"]), required=True)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "parquet", "xlsx"]),
    default="csv",
    show_default=True,
)
@click.option("--out", type=FILE, required=True, help="Replaced if it is there.")
@json_flag
def export_matches(from_on: datetime, to_on: datetime, form: str, out: Path, as_json: bool) -> None:
    """Write the matches that stand and were paid in these days, both included."""
    if form == "xlsx":
        raise Unusable("Matches are not written as xlsx: take csv, which a spreadsheet opens.")
    with database(), working("Exporting"):
        from gateway.db import snapshot
        from reconciliation.exports import export_matches as write

        with snapshot() as session:
            lines = write(session, out, from_on=from_on.date(), to_on=to_on.date(), form=form)
    report({"lines": lines, "file": str(out)}, as_json, "{lines} lines written to {file}.")
