"""The checks of the books: green on honest books of every kind, red and precise on tampering.

What an owner of the database could do is done with the triggers disabled, then enabled again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg.rows import dict_row

from gateway import process
from gateway.books import ledger
from gateway.books.seals import BooksKey, Head, HeadsFile, books_key
from gateway.checks import FINDINGS_MAX
from gateway.collection.reports import Statement
from gateway.db import transaction
from gateway.settings import settings
from tests.factories import (
    NOON,
    a_delivery,
    a_desk,
    a_report,
    an_event,
    as_owner,
    broken_promises,
    record,
    rows_of,
    seal,
    some_invoices,
)
from webhooks.inbox import drain

BATCHES: Final = 6


@pytest.fixture
def books(database: str) -> str:
    """A database with invoices, payments of every outcome, a delivery, and sealed heads."""
    first, second, third = some_invoices(3)
    (late,) = some_invoices(period="2026-09")
    given_back = a_report(first, amount_minor=100)
    record(
        a_report(first),
        a_report(first, amount_minor=50),
        a_report(first, statement=Statement.PENDING),
        a_report(first, statement=Statement.FAILED),
    )
    record(given_back, a_report(second, amount_minor=16353))
    record(
        a_report(
            first,
            provider_payment_id=given_back.provider_payment_id,
            amount_minor=100,
            statement=Statement.REVERSED,
            stated_at=NOON + timedelta(minutes=1),
        )
    )
    record(a_report("no such thing", provider="kiosk"))
    record(a_report(third, amount_minor=2), a_report(late, amount_minor=16352 + 100))
    a_delivery(an_event(third, amount="1.00"))
    # Told of outside this home's inbox: the check of deliveries is about what the inbox holds.
    as_owner(database, "UPDATE payment SET source = 'test'")
    assert drain(a_desk(), batches_max=9) == 1
    assert seal() == BATCHES
    return database


def file() -> HeadsFile:
    return process.heads_file()


def edit_heads_file(edit: Callable[[list[bytes]], list[bytes]]) -> None:
    path = settings().heads_file
    path.write_bytes(b"".join(edit(path.read_bytes().splitlines(keepends=True))))


def a_strangers_key() -> BooksKey:
    return books_key(Path(settings().home) / "elsewhere")


# -- what is done to the books --------------------------------------------------------------------


def change_a_transfer(database: str) -> None:
    as_owner(database, "UPDATE ledger_transfer SET amount_minor = 16351 WHERE id = 1")


def rename_a_transfer(database: str) -> None:
    as_owner(database, "UPDATE ledger_transfer SET name = 'cashplus/other/credit' WHERE id = 2")


def swap_the_sides_of_a_transfer(database: str) -> None:
    as_owner(
        database,
        "UPDATE ledger_transfer SET debit_account_id = credit_account_id,"
        " credit_account_id = debit_account_id WHERE id = 1",
    )


def move_a_transfer_to_another_payment(database: str) -> None:
    as_owner(database, "UPDATE ledger_transfer SET payment_id = 2 WHERE id = 1")


def change_a_payment(database: str) -> None:
    as_owner(database, "UPDATE payment SET amount_minor = 16351 WHERE id = 1")


def undo_a_payment(database: str) -> None:
    as_owner(database, "UPDATE payment SET status = 'reversed' WHERE id = 1")


def invent_a_payment(database: str) -> None:
    as_owner(
        database,
        "INSERT INTO payment (provider, provider_payment_id, status, reference_given, amount_minor,"
        " currency, paid_at, stated_at, recorded_at, booked_at, source) SELECT provider, 'mine',"
        " status, reference_given, amount_minor, currency, paid_at, stated_at, recorded_at,"
        " booked_at, source FROM payment WHERE id = 1",
    )


def lower_an_invoice(database: str) -> None:
    as_owner(
        database,
        "UPDATE invoice SET amount_minor = 16351, paid_minor = 16351, owed_minor = 16351"
        " WHERE id = 1",
    )


def declare_an_invoice_paid(database: str) -> None:
    as_owner(database, "UPDATE invoice SET paid_minor = amount_minor, status = 'paid' WHERE id = 3")


def forgive_an_invoice(database: str) -> None:
    as_owner(database, "UPDATE invoice SET owed_minor = paid_minor, status = 'paid' WHERE id = 3")


def forgive_a_penalty(database: str) -> None:
    owed = "owed_minor = paid_minor, status = 'paid'"
    as_owner(database, f"UPDATE invoice SET {owed} WHERE period = '2026-09' AND paid_minor > 0")


def call_a_penalty_principal(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("ALTER TABLE allocation DISABLE TRIGGER USER")
        connection.execute(
            "UPDATE allocation SET component = 'principal' WHERE component = 'penalty'"
        )
        connection.execute("ALTER TABLE allocation ENABLE TRIGGER USER")


def allocate_there_and_back(database: str) -> None:
    """A part of a debt paid by less than nothing: the sum is right, the story is not."""
    with psycopg.connect(database) as connection:
        connection.execute(
            "INSERT INTO allocation (payment_id, invoice_id, component, amount_minor, policy,"
            " allocated_at) SELECT payment_id, invoice_id, part, minor, policy, allocated_at"
            " FROM allocation, (VALUES ('principal', 5), ('fee', -5)) AS moved (part, minor)"
            " WHERE id = 1"
        )


def cut_off_the_end(database: str) -> None:
    last = f"(SELECT first_transfer_id FROM ledger_batch WHERE id = {BATCHES})"
    as_owner(
        database,
        f"DELETE FROM ledger_transfer WHERE id >= {last}",
        f"DELETE FROM ledger_batch WHERE id = {BATCHES}",
    )


def take_a_transfer_out(database: str) -> None:
    as_owner(database, "DELETE FROM ledger_transfer WHERE id = 2")


def recompute_the_chain(database: str, key: BooksKey | None = None) -> None:
    """Change an amount, then make every hash and total of the chain right again."""
    change_a_transfer(database)
    previous, total, updates = ledger.GENESIS, 0, []
    with psycopg.connect(database, row_factory=dict_row) as connection:
        for batch in connection.execute("SELECT * FROM ledger_batch ORDER BY id").fetchall():
            transfers = connection.execute(
                "SELECT t.*, d.code AS debit, c.code AS credit FROM ledger_transfer t"
                " JOIN ledger_account d ON d.id = debit_account_id"
                " JOIN ledger_account c ON c.id = credit_account_id"
                " WHERE batch_id = %s ORDER BY t.id",
                (batch["id"],),
            ).fetchall()
            lines = [
                ledger.transfer_line(t, debit=t["debit"], credit=t["credit"]) for t in transfers
            ]
            hashed = ledger.batch_hash(previous, lines)
            total += sum(t["amount_minor"] for t in transfers)
            updates.append(
                f"UPDATE ledger_batch SET previous_hash = '\\x{previous.hex()}',"
                f" hash = '\\x{hashed.hex()}', total_minor = {total} WHERE id = {batch['id']}"
            )
            previous = hashed
    as_owner(database, *updates)


def append_without_the_key(database: str) -> None:
    """Append a batch that is right in everything but the signature."""
    with psycopg.connect(database, row_factory=dict_row) as connection:
        last = connection.execute("SELECT * FROM ledger_batch ORDER BY id DESC LIMIT 1").fetchone()
        named = connection.execute("SELECT code, id FROM ledger_account").fetchall()
    assert last is not None
    ids = {row["code"]: row["id"] for row in named}
    debit, credit, at = "clearing:kiosk", "suspense:unidentified", last["last_transfer_id"] + 1
    row = {
        "id": at,
        "name": "test/mine",
        "amount_minor": 1_000_000,
        "payment_id": None,
        "invoice_id": None,
        "reverses_id": None,
        "posted_at": NOON,
    }
    head = Head(
        last["id"] + 1,
        at,
        last["total_minor"] + 1_000_000,
        ledger.batch_hash(last["hash"], [ledger.transfer_line(row, debit=debit, credit=credit)]),
    )
    signed = a_strangers_key().sign(head)
    as_owner(
        database,
        f"INSERT INTO ledger_batch VALUES ({head.batch_id}, {at}, {at}, {at}, {head.total_minor},"
        f" '{NOON}', '\\x{last['hash'].hex()}', '\\x{head.hash.hex()}', '{signed.key_id}',"
        f" '\\x{signed.signature.hex()}')",
        "INSERT INTO ledger_transfer (id, batch_id, name, debit_account_id, credit_account_id,"
        f" amount_minor, posted_at) VALUES ({at}, {head.batch_id}, 'test/mine', {ids[debit]},"
        f" {ids[credit]}, 1000000, '{NOON}')",
    )
    assert seal() == 0


def append_in_the_keys_name(database: str) -> None:
    append_without_the_key(database)
    named = f"UPDATE ledger_batch SET key_id = '{process.signing_key().id}'"
    as_owner(database, f"{named} WHERE id = {BATCHES + 1}")
    assert seal() == 0


def take_a_line_out_of_the_heads_file(database: str) -> None:
    edit_heads_file(lambda lines: lines[:2] + lines[3:])


def edit_a_line_of_the_heads_file(database: str) -> None:
    edit_heads_file(lambda lines: [*lines[:3], lines[3].replace(b'"count": ', b'"count": 1')])


def garble_a_line_of_the_heads_file(database: str) -> None:
    edit_heads_file(lambda lines: [*lines[:3], b"{}\n", *lines[4:]])


def leave_a_trigger_disabled(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("ALTER TABLE allocation DISABLE TRIGGER append_only")


def drop_a_trigger(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("DROP TRIGGER moves ON payment")


def make_a_trigger_do_nothing(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION wasl_refuse() RETURNS trigger LANGUAGE plpgsql"
            " AS $$ BEGIN RETURN NULL; END $$"
        )


def drop_a_constraint(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("ALTER TABLE ledger_transfer DROP CONSTRAINT ledger_transfer_name_key")


def let_any_period_be_one(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("ALTER DOMAIN invoice_period DROP CONSTRAINT invoice_period_check")


def let_any_text_be_a_reference(database: str) -> None:
    """The type is still there and still judges, but not this column any more."""
    with psycopg.connect(database) as connection:
        trigger = "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'facts_stand'"
        made = connection.execute(f"{trigger} AND tgrelid = 'invoice'::regclass").fetchone()
        assert made is not None
        connection.execute("DROP TRIGGER facts_stand ON invoice")
        connection.execute("ALTER TABLE invoice ALTER reference TYPE varchar")
        connection.execute(made[0])


def add_a_trigger(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(
            "CREATE FUNCTION skim() RETURNS trigger LANGUAGE plpgsql"
            " AS $$ BEGIN NEW.amount_minor := 1; RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER skim BEFORE INSERT ON payment FOR EACH ROW EXECUTE FUNCTION skim()"
        )


def add_a_rule(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE RULE hush AS ON INSERT TO coded_exception DO INSTEAD NOTHING")


def take_the_heads_file_away(database: str) -> None:
    settings().heads_file.unlink()


def give_a_payment_to_another_invoice(database: str) -> None:
    as_owner(database, "UPDATE payment SET invoice_id = 3 WHERE id = 1")


def change_a_delivery(database: str) -> None:
    as_owner(
        database,
        "UPDATE webhook_delivery SET body = convert_to("
        "replace(convert_from(body, 'UTF8'), '1.00', '9.00'), 'UTF8')",
    )


def change_a_delivery_and_its_hash(database: str) -> None:
    change_a_delivery(database)
    as_owner(database, "UPDATE webhook_delivery SET delivery_id = 'other'")


def forget_the_exceptions(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("ALTER TABLE coded_exception DISABLE TRIGGER USER")
        connection.execute("DELETE FROM coded_exception WHERE code = 'paid_twice'")
        connection.execute("ALTER TABLE coded_exception ENABLE TRIGGER USER")


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (change_a_transfer, ["a transfer was changed", "ledger_batch 1, ledger_transfer 1 to 2"]),
        (change_a_transfer, ["every payment is in the books once", "payment 1 (cashplus/"]),
        (rename_a_transfer, ["a transfer was changed", "ledger_batch 1,"]),
        (rename_a_transfer, ["bears the name of its payment", "ledger_transfer 2"]),
        (swap_the_sides_of_a_transfer, ["a transfer was changed", "ledger_batch 1,"]),
        (move_a_transfer_to_another_payment, ["a transfer was changed", "ledger_batch 1,"]),
        (change_a_payment, ["every payment is in the books once", "payment 1 (cashplus/"]),
        (undo_a_payment, ["every payment is in the books once", "payment 1 (cashplus/"]),
        (invent_a_payment, ["every payment is in the books once", "(cashplus/mine)"]),
        (lower_an_invoice, ["the sum of its lines", "invoice 1 ("]),
        (lower_an_invoice, ["what was allocated to it", "invoice 1 ("]),
        (declare_an_invoice_paid, ["what was allocated to it", "invoice 3 ("]),
        (forgive_an_invoice, ["comes to its amount", "invoice 3 ("]),
        (forgive_a_penalty, ["than its notes, reliefs and payments say", "invoice "]),
        (call_a_penalty_principal, ["than its notes, reliefs and payments say", "invoice "]),
        (allocate_there_and_back, ["less than nothing", "payment 1, invoice 1, fee"]),
        (cut_off_the_end, ["the last batches are gone", f"ledger_batch {BATCHES}"]),
        (cut_off_the_end, ["every payment is in the books once", "payment "]),
        (take_a_transfer_out, ["a transfer was changed", "ledger_batch 1,"]),
        (take_a_transfer_out, ["missing or misplaced", "ledger_transfer 2"]),
        (recompute_the_chain, ["not signed by the key", "ledger_batch 1"]),
        (recompute_the_chain, ["not the one that was sealed", "ledger_batch 1"]),
        (append_without_the_key, ["not signed by the key", f"ledger_batch {BATCHES + 1}"]),
        (append_without_the_key, ["not in the heads file", f"ledger_batch {BATCHES + 1}"]),
        (append_in_the_keys_name, ["not signed by the key", f"ledger_batch {BATCHES + 1}"]),
        (take_a_line_out_of_the_heads_file, ["a head is missing", "heads file, line 3"]),
        (edit_a_line_of_the_heads_file, ["not signed by our key", "heads file, line 4"]),
        (edit_a_line_of_the_heads_file, ["not the one that was sealed", "ledger_batch 4"]),
        (garble_a_line_of_the_heads_file, ["cannot be read", "heads file, line 4"]),
        (leave_a_trigger_disabled, ["a trigger is not in force", "allocation.append_only"]),
        (drop_a_trigger, ["a trigger is not in force", "payment.moves"]),
        (make_a_trigger_do_nothing, ["function was changed", "functions wasl_"]),
        (drop_a_constraint, ["a constraint", "schema"]),
        (let_any_period_be_one, ["a constraint", "schema"]),
        (let_any_text_be_a_reference, ["a constraint", "schema"]),
        (add_a_trigger, ["a trigger is not ours", "payment.skim"]),
        (add_a_rule, ["a rule is not ours", "coded_exception.hush"]),
        (take_the_heads_file_away, ["the heads file is missing", "heads file"]),
        (give_a_payment_to_another_invoice, ["where its transfers say", "payment 1"]),
        (change_a_delivery, ["a delivery's bytes", "webhook_delivery 1"]),
        (change_a_delivery_and_its_hash, ["a delivery that we hold", "payment "]),
        (forget_the_exceptions, ["has been told", "payment 2"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else value[0].replace(" ", "_"),
)
def test_tampering_is_found_and_its_place_is_named(
    books: str, tamper: Callable[[str], None], expected: list[str]
) -> None:
    assert broken_promises(deliveries=True) == []
    tamper(books)
    found = [f"{broken.what} [{broken.where}" for broken in broken_promises(deliveries=True)]
    assert any(all(word in line for word in expected) for line in found), found


def test_a_row_that_names_what_is_not_there_is_refused_and_found(books: str) -> None:
    last = "(SELECT max(id) FROM payment)"
    # Side by side they are looked up as one span, far apart one by one.
    for absent in (f"{last} + 1", "1000000000", "-1"):
        refused = pytest.raises(psycopg.errors.ForeignKeyViolation)
        with refused, psycopg.connect(books) as connection:
            connection.execute(
                "INSERT INTO event (type, payment_id, happened_at) SELECT 'payment.booked', id,"
                f" now() FROM unnest(ARRAY[{last}, {absent}, {last} - 1]) AS id".encode()
            )
    with pytest.raises(psycopg.errors.RestrictViolation), psycopg.connect(books) as connection:
        connection.execute("UPDATE payment SET id = id + 1000000")
    as_owner(books, "UPDATE payment SET bundle_id = 10 ^ 9, invoice_id = NULL WHERE id = 1")
    assert "payment.bundle_id 1000000000" in {broken.where for broken in broken_promises()}


def test_a_pair_that_its_payment_does_not_say_is_looked_up(books: str) -> None:
    """What a payment quoted was looked up with it; what else is named beside it is not."""
    insert = (
        "INSERT INTO allocation (payment_id, invoice_id, amount_minor, policy, allocated_at)"
        " SELECT id, coalesce({invoice}, invoice_id), 1, 'any', now() FROM payment"
        " WHERE invoice_id IS NOT NULL"
    )
    other = "(SELECT max(id) FROM invoice)"
    with psycopg.connect(books) as connection:
        connection.execute(insert.format(invoice="NULL").encode())
        connection.execute(insert.format(invoice=other).encode())
        connection.rollback()
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="invoice_id"):
            connection.execute(insert.format(invoice=f"{other} + 1").encode())


def test_what_is_legal_is_not_called_tampering(books: str) -> None:
    assert {row[0] for row in rows_of(books, "SELECT DISTINCT status FROM payment")} == {
        "booked",
        "failed",
        "pending",
        "reversed",
    }
    assert broken_promises(deliveries=True) == []
    (reference,) = some_invoices(period="2026-12")
    record(a_report(reference, source="test"))
    # What was paid beyond before pays the new invoices, and is posted, too.
    assert seal() == 2
    assert broken_promises(deliveries=True) == []


def test_a_recomputed_chain_signed_by_a_strangers_key_is_found_all_the_same(books: str) -> None:
    recompute_the_chain(books)
    stranger = a_strangers_key()
    with transaction() as session:
        signed = [stranger.sign(each.head) for each in ledger.heads_after(session, 0)]
    as_owner(
        books,
        *(
            f"UPDATE ledger_batch SET key_id = '{process.signing_key().id}',"
            f" signature = '\\x{each.signature.hex()}' WHERE id = {each.head.batch_id}"
            for each in signed
        ),
    )
    settings().heads_file.write_bytes(b"".join(each.as_line() for each in signed))
    found = {broken.what for broken in broken_promises()}
    assert "a batch is not signed by the key of these books" in found
    assert "a head in the file is not signed by our key" in found


@pytest.mark.parametrize("lines_left", [BATCHES - 2, 1, 0])
def test_a_heads_file_that_was_cut_is_made_whole_from_what_our_key_signed(
    books: str, lines_left: int
) -> None:
    whole = settings().heads_file.read_bytes()
    edit_heads_file(lambda lines: lines[:lines_left])
    assert seal() == BATCHES - lines_left
    assert settings().heads_file.read_bytes() == whole
    assert broken_promises() == []


def test_a_heads_file_that_was_cut_does_not_hide_that_the_end_of_the_books_is_gone(
    books: str,
) -> None:
    cut_off_the_end(books)
    edit_heads_file(lambda lines: lines[:-1])
    # Their head is gone on both sides; the payments they booked are not.
    assert [b.where for b in broken_promises() if "in the books once" in b.what] != []


def test_books_that_grow_again_after_their_end_was_cut_off_do_not_agree_with_the_file(
    books: str,
) -> None:
    cut_off_the_end(books)
    record(a_report("no such thing"))
    assert seal() == 0
    found = [(broken.what, broken.where) for broken in broken_promises()]
    assert ("a batch is not the one that was sealed", f"ledger_batch {BATCHES}") in found


def test_one_check_names_a_few_places_however_much_is_broken(books: str) -> None:
    record(*(a_report("no such thing") for _ in range(2 * FINDINGS_MAX)))
    seal()
    as_owner(books, "UPDATE payment SET status = 'reversed' WHERE status = 'booked'")
    found = [b for b in broken_promises() if "in the books once" in b.what]
    assert len(found) == FINDINGS_MAX


def test_a_file_that_was_sealed_with_another_key_is_not_believed(books: str) -> None:
    honest = settings().heads_file.read_bytes()
    stranger = a_strangers_key()
    with transaction() as session:
        lines = [stranger.sign(each.head).as_line() for each in ledger.heads_after(session, 0)]
    settings().heads_file.write_bytes(b"".join(lines))
    assert hashlib.sha256(honest) != hashlib.sha256(b"".join(lines))
    assert {b.what for b in broken_promises()} == {"a head in the file is not signed by our key"}
