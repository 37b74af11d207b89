"""Commands about the whole state: keep it in one file, put it back."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.shared import FILE, counting, database, json_flag, now, report, say_if_held


def our_tables() -> frozenset[str]:
    """Return the tables of all packages: here they are put together."""
    from sqlmodel import SQLModel

    # Each import registers its package's tables.
    import gateway.models  # noqa: F401
    import reconciliation.models
    import reconciliation.sources.models  # noqa: F401
    import webhooks.models  # noqa: F401

    return frozenset(SQLModel.metadata.tables)


@click.command()
@click.argument("file", type=FILE)
@json_flag
def backup(file: Path, as_json: bool) -> None:
    """Write the whole state to a new file, while everything runs.

    In it: every table, the keys, the signed heads of the books, and the providers file in use. It
    holds private keys and names: keep it as you keep those, and its SHA-256 elsewhere. Not in it:
    printed papers, logs, the settings (WASL_…) and the files that only they name.
    """
    with database(), counting("Writing rows") as progress:
        from gateway.backup.taking import take
        from gateway.settings import settings

        taken = take(file, settings(), ours=our_tables(), now=now(), progress=progress)
    if taken.strangers:
        names = ", ".join(taken.strangers)
        click.echo(f"wasl: left out, as they are not Wasl's: the tables {names}.", err=True)
    for key in taken.foreign_keys:
        click.echo(
            f"wasl: the table {key.table}, which is not Wasl's, has a foreign key to {key.target}:"
            " nothing can be restored into this database while it is there.",
            err=True,
        )
    said = "{file}: {rows} rows of {tables} tables, {batches} batches.\nsha256 {sha256}"
    report(taken.as_json(), as_json, said)


@click.command()
@click.argument("file", type=FILE)
@click.option("--sha256", default=None, help="What the backup said: refuse any other file.")
@click.option(
    "--replace-books",
    is_flag=True,
    help="Put it in the place of the books that are here; their keys and heads are put aside.",
)
@json_flag
def restore(file: Path, sha256: str | None, replace_books: bool, as_json: bool) -> None:
    """Put a backup back into an empty home and database. Stop Wasl first.

    The file is read from end to end before anything is touched. The providers file goes into the
    home; a file that WASL_PROVIDERS names is left as it is. Afterwards, `wasl verify`. Nothing is
    sent from here before `wasl sending release`: it may be a rehearsal.
    """
    from gateway.backup.format import open_archive
    from gateway.backup.restoring import home_alone, refuse_unfit
    from gateway.backup.restoring import restore as put_back
    from gateway.settings import settings

    with open_archive(file, sha256=sha256) as archive:
        refuse_unfit(archive.manifest, settings())
        with home_alone(settings()), database(), counting("Putting back rows") as progress:
            done = put_back(
                archive,
                settings(),
                ours=our_tables(),
                replace_books=replace_books,
                now=now(),
                progress=progress,
            )
            say_if_held()
    if done.asides:
        places = " and ".join(map(str, done.asides))
        click.echo(f"wasl: what was in the home before lies in {places}.", err=True)
    if done.unused_providers is not None:
        click.echo(
            f"wasl: the backup's providers are in {settings().home}; WASL_PROVIDERS names"
            f" {done.unused_providers}, which stays as it is.",
            err=True,
        )
    said = "{rows} rows of {tables} tables, {batches} batches. Now run: wasl verify"
    if not done.loaded:
        said = "The database held all of it already; the home is complete. Now run: wasl verify"
    report(done.as_json(), as_json, said)
