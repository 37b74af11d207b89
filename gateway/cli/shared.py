"""What the commands share: the services they open, the flags they take, how they answer."""

from __future__ import annotations

import getpass
import json
import logging
import os
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


class Refused(Exception):
    """The command did its work, and the answer is no: exit 1."""


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


def now() -> datetime:
    from gateway.process import business_clock

    return business_clock()()


def say_if_held() -> None:
    """Say on standard error that nothing is sent, where that is so; for use within `database()`."""
    from gateway.db import snapshot
    from gateway.sending import held

    with snapshot() as session:
        found = held(session)
    if found is not None:
        click.echo(f"wasl: {found.sentence}", err=True)


def refuse_if_held() -> None:
    """Stop a command that would send, where sending is held; for use within `database()`.

    Raises:
        Unusable: Nothing is sent now.
    """
    from gateway.db import snapshot
    from gateway.sending import held

    with snapshot() as session:
        found = held(session)
    if found is not None:
        raise Unusable(found.sentence)


def account() -> str:
    """Return the account that runs this, as it stands beside what was decided."""
    try:
        return f"command line ({getpass.getuser()})"
    except (KeyError, OSError):
        return f"command line ({os.getuid()})"


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return so many of something: `1 notice`, `2 notices`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def report(answer: dict[str, Any], as_json: bool, sentence: str) -> None:
    click.echo(json.dumps(answer) if as_json else sentence.format(**answer))


def report_measured(measured: Sequence[Measured], as_json: bool) -> None:
    answers = [each.as_json() for each in measured]
    if as_json:
        click.echo(json.dumps(answers))
        return
    for answer in answers:
        click.echo(
            "{name}: {ours} {unit}, limit {limit} {unit}, ratio {ratio}"
            " (medians of {rounds} rounds)".format(**answer)
        )


def report_import(answer: dict[str, Any], as_json: bool) -> None:
    report(answer, as_json, "{read} lines read: {loaded} loaded, {unchanged} unchanged.")
    if not as_json:
        for bad in answer["rejected"]:
            click.echo(f"  line {bad['line']} set aside: {bad['reason']}")
        for asked in answer.get("opened", ()):
            click.echo(f"  asked: {asked['code']}, {asked['subject']}")
    if answer["rejected"]:
        raise Refused


@contextmanager
def counting(what: str) -> Iterator[Callable[..., None]]:
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
def working(what: str) -> Iterator[Callable[[str], None]]:
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _step: None
        return
    with console.status(what) as status:
        yield lambda step: status.update(f"{what}: {step}")
