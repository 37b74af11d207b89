"""What shows that another hand was at the books: chain, heads file, judges, seals."""

from __future__ import annotations

from collections.abc import Iterator

from sqlmodel import Session

from gateway.billing.invoice_seals import broken_seals
from gateway.books import ledger
from gateway.books.seals import (
    BooksKey,
    HeadsFile,
    SignedHead,
    UnreadableHead,
    as_signed_head,
    read_head,
)
from gateway.checks import Broken, Check, stream
from gateway.db import execute
from gateway.errors import Unusable
from gateway.migrate import CONSTRAINTS_QUERY, FUNCTIONS_QUERY, Judges


def tampering_checks(key: BooksKey, heads_file: HeadsFile, judges: Judges) -> list[Check]:
    """Return the checks of chain, heads file, judges and seals.

    To be called before the snapshot is opened: what the heads file holds by now must be in it.
    What is posted and sealed later, beside the check, is not its affair.
    """
    sealed = sum(1 for _ in heads_file.lines())
    return [
        Check("the chain of batches is whole and signed", lambda s: _chain(s, key)),
        Check(
            "the heads file and the database agree", lambda s: _heads(s, key, heads_file, sealed)
        ),
        Check("the database refuses what it must refuse", lambda s: _judges(s, judges)),
        Check("no invoice was written or changed by another hand", lambda s: _sealed(s, key)),
    ]


def _chain(session: Session, key: BooksKey) -> Iterator[Broken]:
    """Recompute every batch from its transfers; flat in memory."""
    transfers = stream(
        session,
        "SELECT t.*, d.code AS debit, c.code AS credit FROM ledger_transfer t"
        " JOIN ledger_account d ON d.id = t.debit_account_id"
        " JOIN ledger_account c ON c.id = t.credit_account_id ORDER BY t.id",
    )
    transfer = next(transfers, None)
    previous_hash, last_id, previous_minor, batch_id = ledger.GENESIS, 0, 0, 0
    for batch in stream(session, "SELECT * FROM ledger_batch ORDER BY id"):
        where = f"ledger_batch {batch['id']}"
        lines: list[bytes] = []
        batch_minor = 0
        while transfer is not None and transfer["id"] <= batch["last_transfer_id"]:
            if transfer["id"] != last_id + 1 or transfer["batch_id"] != batch["id"]:
                yield Broken("a transfer is missing or misplaced", f"ledger_transfer {last_id + 1}")
            lines.append(
                ledger.transfer_line(transfer, debit=transfer["debit"], credit=transfer["credit"])
            )
            last_id = transfer["id"]
            batch_minor += transfer["amount_minor"]
            transfer = next(transfers, None)
        if last_id != batch["last_transfer_id"]:
            yield Broken("a transfer is missing or misplaced", f"ledger_transfer {last_id + 1}")
        if batch["id"] != batch_id + 1 or bytes(batch["previous_hash"]) != previous_hash:
            yield Broken("a batch does not follow the one before", where)
        if ledger.batch_hash(bytes(batch["previous_hash"]), lines) != bytes(batch["hash"]):
            span = f"ledger_transfer {batch['first_transfer_id']} to {batch['last_transfer_id']}"
            yield Broken(
                "a transfer was changed: the hash of its batch differs", f"{where}, {span}"
            )
        # Held against the batch before, so that one changed amount is not found in all that follow.
        if (batch["total_count"], batch["total_minor"]) != (last_id, previous_minor + batch_minor):
            yield Broken("a batch's count or sum is not that of its transfers", where)
        if not key.vouches_for(as_signed_head(batch)):
            yield Broken("a batch is not signed by the key of these books", where)
        previous_hash, batch_id = bytes(batch["hash"]), batch["id"]
        last_id, previous_minor = batch["last_transfer_id"], batch["total_minor"]
    if transfer is not None:
        yield Broken("a transfer belongs to no batch", f"ledger_transfer {transfer['id']}")


def _heads(session: Session, key: BooksKey, file: HeadsFile, sealed: int) -> Iterator[Broken]:
    """Hold the file's heads against the database's, both in order."""
    if not file.exists():
        if next(ledger.heads_after(session, 0), None) is not None:
            yield Broken("the heads file is missing: restore it", "heads file")
        return
    try:
        # What a crash kept from being sealed is sealed now; what our key does not vouch for is not.
        ledger.seal(session, file, key)
    except Unusable as error:
        yield Broken(str(error), "heads file")
    heads = ledger.heads_after(session, 0)
    for number, line in enumerate(file.lines(), start=1):
        try:
            signed = read_head(line)
        except UnreadableHead:
            yield Broken("a line of the heads file cannot be read", f"heads file, line {number}")
            return
        if not key.vouches_for(signed):
            yield Broken(
                "a head in the file is not signed by our key", f"heads file, line {number}"
            )
        if signed.head.batch_id != number:
            yield Broken("a head is missing in the file", f"heads file, line {number}")
            return
        held: SignedHead | None = next(heads, None)
        if held is None:
            if number <= sealed:
                what = "the last batches are gone: the heads file knows of them"
                yield Broken(what, f"ledger_batch {number}")
            return
        if held.head != signed.head:
            yield Broken("a batch is not the one that was sealed", f"ledger_batch {number}")
            return
    if (unsealed := next(heads, None)) is not None:
        yield Broken("a batch is not in the heads file", f"ledger_batch {unsealed.head.batch_id}")


def _judges(session: Session, judges: Judges) -> Iterator[Broken]:
    rows = execute(
        session,
        "SELECT c.relname, t.tgname, p.proname FROM pg_trigger t"
        " JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid"
        " WHERE NOT tgisinternal AND tgenabled = 'O'"
        " AND c.relnamespace = current_schema()::regnamespace",
    )
    in_force = {(table, trigger, function) for table, trigger, function in rows}
    for table, trigger, _ in sorted(judges.triggers - in_force):
        yield Broken("a trigger is not in force", f"{table}.{trigger}")
    for table, trigger, _ in sorted(in_force - judges.triggers):
        yield Broken("a trigger is not ours", f"{table}.{trigger}")
    rules = "SELECT tablename || '.' || rulename FROM pg_rules WHERE schemaname = current_schema()"
    for rule in execute(session, rules).scalars():
        yield Broken("a rule is not ours", str(rule))
    if execute(session, CONSTRAINTS_QUERY).scalar() != judges.constraints_md5:
        yield Broken("a constraint or unique index was added, dropped or switched off", "schema")
    if execute(session, FUNCTIONS_QUERY).scalar() != judges.functions_md5:
        yield Broken("a trigger's function was changed", "functions wasl_…")


def _sealed(session: Session, key: BooksKey) -> Iterator[Broken]:
    for place in broken_seals(session, key):
        yield Broken("an invoice was written or changed by another hand", place)
