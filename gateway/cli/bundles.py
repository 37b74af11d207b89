"""Commands about references that pay several invoices: a family's, or one for old debts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from gateway.cli.shared import FILE, counted, database, json_flag, now, report
from gateway.errors import Unusable

if TYPE_CHECKING:
    from sqlmodel import Session


@click.group()
def bundles() -> None:
    """References that pay several invoices."""


@bundles.command("make")
@click.argument("references", metavar="REFERENCE...", nargs=-1, required=True)
@click.option("--cnss", default=None, help="Whose credit is what goes beyond: one of the people.")
@click.option("--out", "file", type=FILE, default=None, help="Write the notice as PDF here.")
@json_flag
def bundles_make(
    references: tuple[str, ...], cnss: str | None, file: Path | None, as_json: bool
) -> None:
    """Make one new reference that pays these invoices, in this order.

    For what a family pays at once, and for what is still owed where a reference has expired: the
    new one does not expire, and its page and notice say what is due today. The notice bears names
    where all is one person's, else initials.
    """
    named = [_as_reference(each) for each in references]
    if len(set(named)) != len(named):
        raise Unusable("A reference is given twice: an invoice is paid once.")
    with database():
        from gateway.billing.bundle_presentment import present_bundle
        from gateway.billing.bundles import make_selection
        from gateway.db import snapshot, transaction
        from gateway.institution import institution
        from gateway.money import format_amount
        from gateway.settings import settings

        with transaction() as session:
            ids, people = _invoices(session, named)
            whose = _whose(session, cnss, ids, people)
            reference = make_selection(session, ids, contributor_id=whose, now=now()).reference
        months, at = institution().validity.months, now()
        with snapshot() as session:
            made = present_bundle(session, reference, now=at, validity_months=months)
        assert made is not None
        answer = {
            "reference": reference,
            "invoices": len(ids),
            "due": format_amount(made.due_minor),
            "due_until": made.valid_until.isoformat() if made.valid_until else None,
            "page": settings().payer_link(reference),
            "notice": str(file) if file else None,
        }
        if file is not None:
            from gateway.papers.bundle_notice import bundle_pdf
            from gateway.secretfiles import write_privately

            paper = bundle_pdf(
                made,
                settings=settings(),
                institution=institution(),
                masked=len(people) > 1,
                now=at,
            )
            try:
                write_privately(file, paper)
            except OSError as error:
                raise Unusable(
                    f"{reference} is made, but {file} cannot be written: {error.strerror}."
                ) from None
    what = counted(len(ids), "invoice")
    until = f" until {answer['due_until']}" if answer["due_until"] else ""
    wrote = f" Its notice: {file}." if file else ""
    report(
        answer, as_json, f"{{reference}} pays {what}: {{due}} MAD{until}. Its page: {{page}}{wrote}"
    )


def _as_reference(text: str) -> str:
    from gateway.references import read_reference

    named = read_reference(text)
    if named is None:
        raise Unusable(f"{text!r} is not a reference: compare its twelve digits.")
    return named


_INVOICES: Final = "SELECT reference, id, contributor_id FROM invoice WHERE reference = ANY(:named)"


def _invoices(session: Session, named: list[str]) -> tuple[list[int], list[int]]:
    """Return the invoices in the order of their references, and whose they are."""
    from gateway.db import execute

    rows = {row.reference: row for row in execute(session, _INVOICES, {"named": named})}
    for each in named:
        if each not in rows:
            raise Unusable(f"There is no invoice {each}.")
    return [rows[each].id for each in named], sorted({r.contributor_id for r in rows.values()})


def _whose(session: Session, cnss: str | None, ids: list[int], people: list[int]) -> int | None:
    from gateway.billing.bundles import owes_one_of
    from gateway.people.activities import contributor_of

    if cnss is None:
        return people[0] if len(people) == 1 else None
    person = contributor_of(session, "".join(cnss.split()))
    if not owes_one_of(session, person, ids):
        raise Unusable("None of the invoices is of the person of --cnss: name one who owes.")
    return person
