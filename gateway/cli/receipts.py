"""Commands about receipts: issue what is missing, check one, replace the key."""

from __future__ import annotations

import json

import click

from gateway.cli.shared import Refused, database, json_flag, now, report


@click.group()
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
    report({"issued": issued}, as_json, "{issued} receipts signed.")


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
            signer = rotate_key(session, process.receipt_keys(), now=now())
    report({"key": signer.key_id}, as_json, "Receipts are signed with key {key} from now on.")
