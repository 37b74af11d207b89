"""Commands about what is owed: who owes, what is issued, the notices that are posted."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.shared import (
    FILE,
    Refused,
    counted,
    counting,
    database,
    json_flag,
    now,
    report,
    report_import,
)
from gateway.errors import Unusable

WARNINGS_SHOWN = 100


@click.group()
def contributors() -> None:
    """Who owes contributions."""


@contributors.command("import")
@click.argument("file", type=FILE)
@json_flag
def contributors_import(file: Path, as_json: bool) -> None:
    """Enrol people from a CSV file; the same file again changes nothing."""
    with database(), counting("Reading contributors") as progress:
        from gateway.dues.tariff import tariff
        from gateway.people.imports import import_contributors

        result = import_contributors(file, tariff(), now=now(), progress=progress)
    # Beside the answer, whose form others hold on to.
    if result.warned:
        click.echo(f"{result.warned} warnings about lines that were taken:", err=True)
    for odd in result.warnings[:WARNINGS_SHOWN]:
        click.echo(f"  line {odd.line}: {odd.reason}", err=True)
    if result.warned > WARNINGS_SHOWN:
        click.echo(f"  and {result.warned - WARNINGS_SHOWN} more", err=True)
    report_import(result.as_json(), as_json)


@click.group()
def invoices() -> None:
    """What is due."""


@invoices.command("issue")
@click.option("--period", required=True, help="A month (2026-11) or a quarter (2026-Q4).")
@click.option("--category", default=None, help="One category only.")
@json_flag
def invoices_issue(period: str, category: str | None, as_json: bool) -> None:
    """Issue a period's invoices; again: nothing twice.

    Interrupted and run again, it goes on where it was. Workers that run take part. Who cannot be
    priced is left out and named on standard error; all others are billed, and the exit code is 1.
    """
    from gateway.dues.periods import parse_period
    from gateway.dues.tariff import tariff

    named, current = parse_period(period), tariff()
    if category is not None:
        current.of(category)
    with database(), counting("Issuing invoices") as progress:
        from gateway.billing.issuing import issue_invoices
        from gateway.process import business_clock, signing_key

        result = issue_invoices(
            current,
            named,
            category=category,
            key=signing_key(),
            clock=business_clock(),
            progress=progress,
        )
    report(
        result.as_json(),
        as_json,
        "{issued} issued for {total} MAD; {already} were issued before.",
    )
    if not result.left_out:
        return
    click.echo(
        f"{result.left_out} people are not billed, since what they owe cannot be told:", err=True
    )
    for each in result.first_left_out:
        click.echo(f"  contributor {each.contributor_id}: {each.reason}", err=True)
    more = result.left_out - len(result.first_left_out)
    if more:
        click.echo(f"  and {more} more", err=True)
    raise Refused


@invoices.command("notices")
@click.option("--out", "file", type=FILE, required=True)
def invoices_notices(file: Path) -> None:
    """Write reference, amount due, CNSS number, period and due day of what is unpaid as CSV."""
    with database():
        from gateway.billing.invoices import write_notices

        try:
            count = write_notices(file, now=now())
        except OSError as error:
            raise Unusable(f"{file} cannot be written: {error.strerror}.") from None
    click.echo(f"{count} notices written to {file}.")


@invoices.command("cancel")
@click.argument("reference")
@click.option("--because", required=True, help="Why, for whoever reads it later. No names.")
def invoices_cancel(reference: str, because: str) -> None:
    """Take back an invoice that nothing was paid on; for ever.

    Its contributor is not billed again for the period: no command issues over a cancelled invoice.
    """
    from gateway.references import read_reference

    named = read_reference(reference)
    if named is None:
        raise Unusable(f"{reference!r} is not a reference: compare its twelve digits.")
    if not because.strip():
        raise Unusable("Say why with --because.")
    with database():
        from gateway.billing.invoices import cancel_invoice
        from gateway.db import transaction

        with transaction() as session:
            cancel_invoice(session, named, because=because.strip(), now=now())
    click.echo(f"Cancelled: {named}.")


@click.group()
def notices() -> None:
    """What is printed and posted."""


@notices.command("print")
@click.option("--out", "folder", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--period", default=None, help="Only this month or quarter.")
@click.option("--category", default=None, help="Only this category.")
@click.option("--region", default=None, help="Only this region, as the contributors file has it.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True)
@json_flag
def notices_print(
    folder: Path,
    period: str | None,
    category: str | None,
    region: str | None,
    workers: int,
    as_json: bool,
) -> None:
    """Print the notices of what is unpaid, as PDF files of at most 200 pages, names in full.

    Interrupted and run again, it goes on where it was.
    """
    from gateway.institution import institution

    validity_months = institution().validity.months
    with database(), counting("Printing notices") as progress:
        from gateway.db import transaction
        from gateway.papers.printers import print_all
        from gateway.papers.printing import expired, order

        wanted: dict[str, str | None] = {"period": period, "category": category, "region": region}
        with transaction() as session:
            run = order(
                session, **wanted, folder=folder, validity_months=validity_months, now=now()
            )
            too_old = expired(session, **wanted, validity_months=validity_months, now=now())
        result = print_all(run, workers=workers, progress=progress)
    answer = {**result.as_json(), "expired": too_old}
    printed = counted(result.pages, "notice"), counted(result.files_printed, "file")
    said = (
        f"{' in '.join(printed)} in {{folder}}; {{left_out}} left out: paid or cancelled meanwhile."
    )
    report(answer, as_json, said)
    if too_old and not as_json:
        click.echo(
            f"{counted(too_old, 'unpaid invoice')} left out: the reference has expired."
            " wasl bundles make gives what is owed a new one with its notice; so does a plan."
        )
