"""The `wasl` command. Each subcommand opens its services, calls one function, and says what came.

With `--json` one object goes to standard output and nothing else does; progress and logs go to
standard error. Exit 0: done. 1: the answer is no. 2: the call was wrong, in one sentence.
Features are imported when their command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.errors import Unusable

if TYPE_CHECKING:
    from gateway.bench.measure import Measured

json_flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
FILE = click.Path(path_type=Path, dir_okay=False)
AHEAD_DAYS_MAX = 366


class Refused(Exception):
    """The command did its work, and the answer is no: exit 1."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def wasl() -> None:
    """Wasl: bill contributions, collect them, book them, reconcile them."""


def main() -> None:
    """Run the command line; end the process with its exit code."""
    # As an exception, so that a command which runs the services for others stops them in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        wasl.main(prog_name="wasl", standalone_mode=False)
        sys.stdout.flush()
    except Refused:
        sys.exit(1)
    except Unusable as error:
        _fail(str(error))
    except click.exceptions.Abort:
        click.echo("wasl: stopped; run it again to go on where it was.", err=True)
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        command = error.ctx.command_path if error.ctx else "wasl"
        _fail(f"Say what to do: {command} --help lists it.")
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "wasl"
        _fail(f"{error.format_message().rstrip('.')}. Try {where} --help.")
    except click.ClickException as error:
        _fail(error.format_message())
    except OSError as error:
        # Standard output is full or closed, for one; what commands open they report themselves.
        _fail(f"{error.strerror or type(error).__name__}.")


def _fail(sentence: str) -> None:
    click.echo(f"wasl: {sentence}", err=True)
    sys.exit(2)


# -- all of it ------------------------------------------------------------------------------------


@wasl.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
def up(port: int) -> None:
    """Run all of it in the foreground, until Ctrl-C; prints `ready http://…`."""
    from gateway.embedded.home import Home
    from gateway.institution import institution
    from gateway.providers.registry import load_providers
    from gateway.settings import settings
    from gateway.supervisor import up as run_all

    # First, as it is the home that says who may enter; the file of providers lies in it.
    Home(settings().home).prepare()
    load_providers(settings())
    settings().proxies()
    institution()
    sys.exit(run_all(settings(), port))


@wasl.command()
@click.option("--contributors", type=click.IntRange(1, 2_000_000), default=500, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), default=None)
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


@wasl.command()
@json_flag
def verify(as_json: bool) -> None:
    """Check the books' promises: sums, chain, signed heads, every payment booked once."""
    with database(), _working("Checking the books") as says:
        from gateway import process
        from gateway.checks import books_checks, run_checks
        from gateway.db import snapshot
        from gateway.migrate import judges
        from gateway.receipt_checks import receipt_checks
        from reconciliation.checks import CHECKS as RECONCILIATION_CHECKS
        from webhooks.checks import CHECKS as WEBHOOK_CHECKS

        checks = [
            *books_checks(process.signing_key(), process.heads_file(), judges()),
            *receipt_checks(process.receipt_keys().published()),
            *WEBHOOK_CHECKS,
            *RECONCILIATION_CHECKS,
        ]
        with snapshot() as session:
            broken = run_checks(session, checks, says)
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


# -- who owes, and what ---------------------------------------------------------------------------


@wasl.group()
def contributors() -> None:
    """Who owes contributions."""


@contributors.command("import")
@click.argument("file", type=FILE)
@json_flag
def contributors_import(file: Path, as_json: bool) -> None:
    """Enrol people from a CSV file; the same file again changes nothing."""
    with database(), _counting("Reading contributors") as progress:
        from gateway.contributors import import_contributors
        from gateway.tariff import tariff

        result = import_contributors(file, tariff(), now=_now(), progress=progress)
    _say_import(result.as_json(), as_json)


@wasl.group()
def invoices() -> None:
    """What is due."""


@invoices.command("issue")
@click.option("--period", required=True, help="A month (2026-11) or a quarter (2026-Q4).")
@click.option("--category", default=None, help="One category only.")
@json_flag
def invoices_issue(period: str, category: str | None, as_json: bool) -> None:
    """Issue a period's invoices; again: nothing twice."""
    from gateway.clock import day_of
    from gateway.periods import parse_period
    from gateway.tariff import tariff

    named, current = parse_period(period), tariff()
    if category is not None:
        current.of(category)
    if (named.starts_on - day_of(_now())).days > AHEAD_DAYS_MAX:
        raise Unusable(f"{period} lies more than a year ahead: an invoice cannot be taken back.")
    with database(), _counting("Issuing invoices") as progress:
        from gateway.invoices import issue_invoices
        from gateway.process import business_clock

        result = issue_invoices(
            current,
            named,
            category=category,
            clock=business_clock(),
            progress=progress,
        )
    _say(
        result.as_json(),
        as_json,
        "{issued} issued for {total} MAD; {already} were issued before.",
    )


@invoices.command("notices")
@click.option("--out", "file", type=FILE, required=True)
def invoices_notices(file: Path) -> None:
    """Write reference, amount due, CNSS number, period and due day of what is unpaid as CSV."""
    with database():
        from gateway.invoices import write_notices

        try:
            count = write_notices(file)
        except OSError as error:
            raise Unusable(f"{file} cannot be written: {error.strerror}.") from None
    click.echo(f"{count} notices written to {file}.")


@invoices.command("cancel")
@click.argument("reference")
@click.option("--because", required=True, help="Why, for whoever reads it later. No names.")
def invoices_cancel(reference: str, because: str) -> None:
    """Take back an invoice that nothing was paid on; for ever."""
    from gateway.references import read_reference

    named = read_reference(reference)
    if named is None:
        raise Unusable(f"{reference!r} is not a reference: compare its twelve digits.")
    if not because.strip():
        raise Unusable("Say why with --because.")
    with database():
        from gateway.db import transaction
        from gateway.invoices import cancel_invoice

        with transaction() as session:
            cancel_invoice(session, named, because=because.strip(), now=_now())
    click.echo(f"Cancelled: {named}.")


# -- papers ---------------------------------------------------------------------------------------


@wasl.group()
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
    with database(), _counting("Printing notices") as progress:
        from gateway.db import transaction
        from gateway.papers.printers import print_all
        from gateway.papers.printing import order

        with transaction() as session:
            run = order(
                session,
                period=period,
                category=category,
                region=region,
                folder=folder,
                validity_months=validity_months,
                now=_now(),
            )
        result = print_all(run, workers=workers, progress=progress)
    said = (
        "{notices} notices in {files} files in {folder};"
        " {left_out} left out: paid or cancelled meanwhile."
    )
    _say(result.as_json(), as_json, said)


@wasl.group()
def receipts() -> None:
    """What payers hold as proof."""


@receipts.command("issue")
@json_flag
def receipts_issue(as_json: bool) -> None:
    """Sign the receipts that are missing; the worker does so by itself, as payments are booked."""
    with database():
        from gateway import process
        from gateway.db import transaction
        from gateway.receipts import issue_all, line_up_missing

        with transaction() as session:
            line_up_missing(session)
        issued = issue_all(process.receipt_keys(), process.business_clock())
    _say({"issued": issued}, as_json, "{issued} receipts signed.")


@receipts.command("check")
@click.argument("code")
@json_flag
def receipts_check(code: str, as_json: bool) -> None:
    """Say what a receipt is worth: by its number, or by the text of its signed code."""
    with database():
        from gateway import process
        from gateway.clock import INSTITUTION_ZONE
        from gateway.db import snapshot
        from gateway.receipts import look_into

        with snapshot() as session:
            answer = look_into(session, code, process.receipt_keys().published())
    said = answer.as_json()
    if as_json:
        click.echo(json.dumps(said))
    else:
        click.echo(_TAKEN_BACK if answer.record and not answer.stands else _WORTH[answer.finding])
        if answer.record is not None:
            # The day that the paper shows: an instant of another zone may be another day.
            said["paid_at"] = f"{answer.record.paid_at.astimezone(INSTITUTION_ZONE):%Y-%m-%d %H:%M}"
        for name in _SHOWN:
            if said.get(name):
                click.echo(f"  {name}: {said[name]}")
    if not answer.stands:
        raise Refused


_SHOWN = (
    "number",
    "reference",
    "period",
    "amount",
    "paid_at",
    "channel",
    "key",
    "key_retired_at",
)
_WORTH = {
    "genuine": "Genuine, and its payment stands in the books.",
    "not_in_books": "Not a receipt of our books, though it seems signed by us: ask finance.",
    "changed": "Changed: the text is not what our key signed.",
    "cut": "Not whole: a part is missing or misread. Scan or copy it again.",
    "foreign_key": "Signed by somebody else: it is not one of our receipts.",
    "not_a_receipt": "Neither a receipt's number (R26- and nine digits) nor its code (AMO1:…).",
    "unknown_number": "No receipt has this number: compare it with the paper.",
}
_TAKEN_BACK = "Genuine, but its payment was taken back since."


@receipts.command("rotate-key")
@json_flag
def receipts_rotate_key(as_json: bool) -> None:
    """Replace the key that signs receipts; what the former one signed stays genuine."""
    with database():
        from gateway import process
        from gateway.db import transaction
        from gateway.receipts import rotate_key

        with transaction() as session:
            signer = rotate_key(session, process.receipt_keys(), now=_now())
    _say({"key": signer.key_id}, as_json, "Receipts are signed with key {key} from now on.")


# -- the institution ------------------------------------------------------------------------------


@wasl.group()
def records() -> None:
    """What the institution recorded."""


@records.command("import")
@click.argument("file", type=FILE)
@json_flag
def records_import(file: Path, as_json: bool) -> None:
    """Take in the institution's records from a CSV file; the same file again changes nothing."""
    with database(), _counting("Reading records") as progress:
        from reconciliation.records import import_records

        result = import_records(file, now=_now(), progress=progress)
    _say_import(result.as_json(), as_json)


@wasl.command()
@click.option("--period", default=None, help="Only this month or quarter.")
@json_flag
def reconcile(period: str | None, as_json: bool) -> None:
    """Match what is open on both sides; what does not match is an exception."""
    if period is not None:
        from gateway.periods import parse_period

        parse_period(period)
    with database(), _counting("Reconciling") as progress:
        from reconciliation.runs import reconcile as run

        result = run(period=period, now=_now(), progress=progress)
    answer = result.as_json()
    _say(answer, as_json, "Run {run}: {matched} matched, {open} open.")
    if not as_json:
        for code, count in answer["exceptions"].items():
            click.echo(f"  {code}: {count}")


# -- who may --------------------------------------------------------------------------------------


def _role(_context: object, _parameter: object, value: str) -> Any:
    from gateway.models import Role

    try:
        return Role(value)
    except ValueError:
        known = ", ".join(role.value for role in Role)
        raise click.BadParameter(f"{value!r} is not a role: choose one of {known}") from None


role_option = click.option("--role", required=True, callback=_role, help="What the holder may do.")


@wasl.group()
def keys() -> None:
    """Bearer keys of programs."""


@keys.command("create")
@role_option
@json_flag
def keys_create(role: Any, as_json: bool) -> None:
    """Create a bearer key; it is shown once."""
    with database():
        from gateway.db import transaction
        from gateway.staff import create_key

        with transaction() as session:
            key = create_key(session, role, now=_now())
    _say({"key": key}, as_json, "{key}")


@wasl.group()
def staff() -> None:
    """People who can sign in."""


@staff.command("add")
@role_option
@click.argument("name")
@json_flag
def staff_add(role: Any, name: str, as_json: bool) -> None:
    """Add a person; the password and the second factor are shown once."""
    with database():
        from gateway.db import transaction
        from gateway.settings import settings
        from gateway.staff import add_staff, sealing_key

        with transaction() as session:
            sealing = sealing_key(settings().keys_dir)
            added = add_staff(session, name, role, sealing=sealing, now=_now())
    answer = {"name": added.name, "password": added.password, "totp": added.totp}
    _say(answer, as_json, "{name}\npassword: {password}\nsecond factor: {totp}")


# -- how fast -------------------------------------------------------------------------------------


@wasl.group()
def bench() -> None:
    """How fast it is, beside a limit measured in the same run."""


@bench.command("pages")
@click.option("--notices", type=click.IntRange(1, 100_000), default=1_000, show_default=True)
@click.option("--rounds", type=click.IntRange(1, 99), default=3, show_default=True)
@json_flag
def bench_pages(notices: int, rounds: int, as_json: bool) -> None:
    """Print notices as `wasl notices print` does, beside the bare typesetter on one file."""
    with _counting("Printing in rounds") as progress:
        from gateway.bench.pages import bench_pages as run

        _say_measured([run(notices, rounds=rounds, progress=progress)], as_json)


# -- what the commands share ----------------------------------------------------------------------


@contextmanager
def database() -> Iterator[None]:
    """Open the services for one command, on the schema of this version.

    Raises:
        Unusable: A service does not answer or cannot be started.
    """
    import psycopg
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    from gateway import db, migrate
    from gateway.logs import configure_logs
    from gateway.services import require_answers, running_services
    from gateway.settings import settings

    configure_logs(logging.WARNING)
    settings().business_clock()
    require_answers(settings())
    with running_services(settings()) as services:
        try:
            migrate.upgrade(services.database_url)
            db.connect(services.database_url)
            yield
        except DBAPIError as error:
            raise Unusable(_what_the_database_says(error.orig)) from None
        except psycopg.Error as error:
            raise Unusable(_what_the_database_says(error)) from None
        except SQLAlchemyError as error:
            raise Unusable(f"WASL_DATABASE_URL is no address ({type(error).__name__}).") from None
        finally:
            db.disconnect()


def _what_the_database_says(error: BaseException | None) -> str:
    """Return one sentence. Only the first line: what stands below may quote a person's values."""
    first = str(error).strip().partition("\n")[0] or type(error).__name__
    return f"PostgreSQL does not do what it must: {first.rstrip('.')}."


def _now() -> datetime:
    from gateway.process import business_clock

    return business_clock()()


def _say(answer: dict[str, Any], as_json: bool, sentence: str) -> None:
    click.echo(json.dumps(answer) if as_json else sentence.format(**answer))


def _say_measured(measured: Sequence[Measured], as_json: bool) -> None:
    answers = [each.as_json() for each in measured]
    if as_json:
        click.echo(json.dumps(answers))
        return
    for answer in answers:
        click.echo(
            "{name}: {ours} {unit}, limit {limit} {unit}, ratio {ratio}"
            " (medians of {rounds} rounds)".format(**answer)
        )


def _say_import(answer: dict[str, Any], as_json: bool) -> None:
    _say(answer, as_json, "{read} lines read: {loaded} loaded, {unchanged} unchanged.")
    if not as_json:
        for bad in answer["rejected"]:
            click.echo(f"  line {bad['line']} set aside: {bad['reason']}")
    if answer["rejected"]:
        raise Refused


@contextmanager
def _counting(what: str) -> Iterator[Callable[..., None]]:
    """Show how far a long command is, on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        shown = bar.add_task(what, total=None)

        def progress(done: int, of: int | None = None) -> None:
            bar.update(shown, completed=done, total=of)

        yield progress


@contextmanager
def _working(what: str) -> Iterator[Callable[[str], None]]:
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _step: None
        return
    with console.status(what) as status:
        yield lambda step: status.update(f"{what}: {step}")


if __name__ == "__main__":
    main()
