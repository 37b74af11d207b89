"""A backup holds all there is, and what is put back goes on as if nothing had happened."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from gateway import db, migrate, process, sending
from gateway.backup import restoring
from gateway.backup.format import open_archive
from gateway.backup.homefiles import heads_so_far
from gateway.backup.restoring import BESIDE, LEAP, LEAP_SHARE
from gateway.books import ledger
from gateway.books.seals import read_head
from gateway.codes.receipts import as_text
from gateway.collection.reports import Statement
from gateway.db import execute, snapshot, transaction
from gateway.errors import Unusable
from gateway.models import Role
from gateway.receipts import issue_all, line_up_missing, look_into, of_invoice, rotate_key
from gateway.services import Services
from gateway.settings import settings
from gateway.staff import add_staff, sealing_key
from tests.conftest import _forget, address_of
from tests.factories import (
    NOON,
    a_delivery,
    a_desk,
    a_report,
    an_event,
    as_owner,
    at_once,
    balances,
    broken_promises,
    record,
    rows_of,
    seal,
    some_invoices,
    the_books,
)
from tests.gateway.backup.conftest import OURS, restored, taken
from webhooks.inbox import drain

Elsewhere = Callable[[], Path]

ALL_TABLES = """
    SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p')
        AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
"""
ALL_SEQUENCES = """
    SELECT relname::text FROM pg_class
    WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace
"""


def issue_receipts() -> None:
    with transaction() as session:
        line_up_missing(session)
    issue_all(process.receipt_keys(), lambda: NOON)


def a_busy_day() -> list[str]:
    """Let a bit of everything happen; return the references, the first of them paid."""
    references = some_invoices(5)
    paid, taken_back, part_paid, *_ = references
    record(
        a_report(paid, provider_payment_id="FIRST"),
        reversed_one := a_report(taken_back),
        a_report(part_paid, amount_minor=100),
        a_report("9" * 12),
    )
    issue_receipts()
    with transaction() as session:
        rotate_key(session, process.receipt_keys(), now=NOON)
        sealing = sealing_key(settings().keys_dir)
        add_staff(session, "Amina Tazi", Role.FINANCE, sealing=sealing, now=NOON)
    record(
        a_report(
            taken_back,
            provider_payment_id=reversed_one.provider_payment_id,
            statement=Statement.REVERSED,
        )
    )
    seal()
    return references


def every_row(database: str) -> dict[str, list[Any]]:
    """Return all that a backup keeps, save whether sending is held: a restore holds it."""
    return {
        table: rows_of(database, f'SELECT t.*::text FROM "{table}" t ORDER BY 1')
        for (table,) in rows_of(database, ALL_TABLES)
        if table not in BESIDE
    }


def test_nothing_of_the_database_or_the_home_is_forgotten(database: str, tmp_path: Path) -> None:
    a_busy_day()
    done = taken(tmp_path / "file")
    manifest = done.manifest
    assert {table.name for table in manifest.tables} == {
        n for (n,) in rows_of(database, ALL_TABLES)
    }
    assert {each.name for each in manifest.sequences} == {
        name for (name,) in rows_of(database, ALL_SEQUENCES)
    }
    for table in manifest.tables:
        assert rows_of(database, f'SELECT count(*) FROM "{table.name}"') == [(table.rows,)]
    kept = {file.name for file in manifest.files}
    keys = {path.name for path in settings().keys_dir.iterdir() if path.suffix != ".lock"}
    assert {"books.key", "receipts.json"} < keys
    assert {f"keys/{name}" for name in keys} | {"books/heads.jsonl"} == kept
    assert done.strangers == ()
    assert done.as_json() == {
        "file": str(tmp_path / "file"),
        "bytes": (tmp_path / "file").stat().st_size,
        "sha256": done.sha256,
        "tables": len(OURS),
        "rows": manifest.rows,
        "batches": 2,
        "revision": manifest.revision,
    }


def test_what_comes_back_is_what_was_there(
    database: str, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    paid, *_ = a_busy_day()
    with snapshot() as session:
        [receipt] = of_invoice(session, paid)
    keys = {path.name: path.read_bytes() for path in settings().keys_dir.iterdir()}
    before = the_books(), balances(), every_row(database)
    verified = broken_promises(deliveries=True)
    heads = settings().heads_file.read_bytes()
    taken(tmp_path / "file")

    home = elsewhere()
    done = restored(tmp_path / "file")
    assert (done.loaded, done.asides) == (True, ())
    here = settings().database_url
    assert here is not None
    after = the_books(), balances(), every_row(here.get_secret_value())
    assert after == before
    assert settings().heads_file.read_bytes() == heads
    for path in settings().keys_dir.iterdir():
        assert path.read_bytes() == keys[path.name]
        assert path.stat().st_mode & 0o777 == 0o600
    assert broken_promises(deliveries=True) == verified
    assert broken_promises() == []
    # Here may be a rehearsal: nothing goes out before an operator says so, and that is no news.
    with transaction() as session:
        found = sending.held(session)
        assert found is not None
        assert found.because == sending.RESTORED
        sending.release(session, who="a test", now=NOON)
    assert not restored(tmp_path / "file").loaded
    with snapshot() as session:
        assert sending.held(session) is None
    with snapshot() as session:
        verdict = look_into(session, as_text(receipt.signed), process.receipt_keys().published())
    assert verdict.stands
    assert not (home / ".restoring").exists()


def test_work_goes_on_where_it_was(database: str, elsewhere: Elsewhere, tmp_path: Path) -> None:
    paid, _, _, open_one, _ = a_busy_day()
    known = a_delivery(an_event(open_one, provider_payment_id="WAITED"), delivery_id="waits")
    taken(tmp_path / "file")
    lost = some_invoices(1)

    elsewhere()
    restored(tmp_path / "file")
    # What waited is acted on, once.
    assert drain(a_desk(), batches_max=5) == 1
    assert drain(a_desk(), batches_max=5) == 0
    with pytest.raises(Exception, match="webhook_delivery_provider_delivery_id_key"):
        a_delivery(an_event(open_one), delivery_id=known)
    # A payment that was booked before is not booked by another delivery.
    sums = balances()
    assert sums["clearing:cashplus"] == 16352 + 100 + 16352 + 16352
    a_delivery(an_event(paid, provider_payment_id="FIRST"), delivery_id="again")
    assert drain(a_desk(), batches_max=5) == 1
    assert balances() == sums
    # Numbers go on, and none that was printed after the backup is given to somebody else.
    fresh = some_invoices(20)
    assert len({*fresh, *lost, paid}) == 22
    issue_receipts()
    assert broken_promises() == []


def test_no_number_that_was_given_after_the_backup_is_given_again(
    database: str, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    some_invoices(3)
    done = taken(tmp_path / "file")
    elsewhere()
    restored(tmp_path / "file")
    for kept in done.manifest.sequences:
        with transaction() as session:
            drawn = execute(session, "SELECT nextval(:name)", {"name": kept.name}).scalar_one()
        # The restore itself has drawn one: it holds sending.
        drawn -= kept.name == "sending_hold_id_seq"
        assert drawn - kept.last_value - kept.is_called in (LEAP, 999_999_999 // LEAP_SHARE)


def test_a_backup_beside_a_working_inbox_is_of_one_instant(
    database: str, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    references = some_invoices(60)
    desk = a_desk()
    stop = Event()

    def deliver() -> int:
        for reference in references:
            a_delivery(an_event(reference))
        return 0

    def work() -> int:
        while not stop.is_set():
            drain(desk, batches_max=1)
            seal()
        return 0

    def back_up() -> int:
        try:
            for number in range(4):
                taken(tmp_path / f"file{number}")
                time.sleep(0.05)
        finally:
            stop.set()
        return 0

    at_once(deliver, work, work, back_up)
    elsewhere()
    for number in range(4):
        done = restored(tmp_path / f"file{number}", replace_books=number > 0)
        batches = done.archive.manifest.batches
        lines = settings().heads_file.read_bytes().splitlines()
        assert [read_head(line).head.batch_id for line in lines] == list(range(1, batches + 1))
        assert broken_promises(deliveries=True) == []
        assert drain(a_desk(), batches_max=50) >= 0
        assert broken_promises(deliveries=True) == []


def test_heads_not_sealed_yet_are_in_the_backup(
    database: str, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    first, second = some_invoices(2)
    record(a_report(first))
    seal()
    record(a_report(second))
    assert process.heads_file().last_batch() == 1
    taken(tmp_path / "file")
    assert process.heads_file().last_batch() == 1
    elsewhere()
    restored(tmp_path / "file")
    assert process.heads_file().last_batch() == 2
    assert broken_promises() == []


def test_what_was_sealed_after_the_snapshot_is_left_out(
    database: str, elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = some_invoices(2)
    record(a_report(first))
    seal()

    def and_then_one_more(*words: Any) -> Any:
        found = heads_so_far(*words)
        record(a_report(second))
        seal()
        return found

    monkeypatch.setattr("gateway.backup.taking.heads_so_far", and_then_one_more)
    with snapshot() as session:
        assert len(list(ledger.heads_after(session, 0))) == 1
    assert taken(tmp_path / "file").manifest.batches == 2
    elsewhere()
    restored(tmp_path / "file")
    assert process.heads_file().last_batch() == 2
    assert broken_promises() == []


def test_books_that_were_cut_are_found_after_a_restore_as_before(
    database: str, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    for reference in some_invoices(2):
        record(a_report(reference))
    seal()
    as_owner(
        database,
        "DELETE FROM ledger_transfer WHERE batch_id = 2",
        "DELETE FROM ledger_batch WHERE id = 2",
    )
    broken = broken_promises()
    assert any("the last batches are gone" in each.what for each in broken)
    taken(tmp_path / "file")
    elsewhere()
    restored(tmp_path / "file")
    assert broken_promises() == broken


def test_a_table_of_somebody_else_is_named_and_left(
    database: str, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    some_invoices(1)
    as_owner(
        database,
        "CREATE TABLE theirs (id bigserial, of_ours bigint REFERENCES invoice (id))",
        "CREATE SEQUENCE their_numbers",
    )
    done = taken(tmp_path / "file")
    assert done.strangers == ("theirs",)
    assert [(key.table, key.target) for key in done.foreign_keys] == [("theirs", "invoice")]
    kept = {each.name for each in done.manifest.sequences}
    assert not {"theirs_id_seq", "their_numbers"} & kept
    elsewhere()
    url = settings().database_url
    assert url is not None
    here = url.get_secret_value()
    as_owner(
        here,
        "CREATE SCHEMA other",
        "CREATE TABLE theirs (x bigint)",
        "INSERT INTO theirs VALUES (1)",
        "CREATE TABLE other.theirs (x bigint REFERENCES payment (id))",
    )
    pointing = r"The table other\.theirs, which is not Wasl's, has a foreign key to payment"
    with pytest.raises(Unusable, match=pointing):
        restored(tmp_path / "file")
    as_owner(here, "DROP TABLE other.theirs")
    restored(tmp_path / "file")
    assert rows_of(here, "SELECT * FROM theirs") == [(1,)]
    assert broken_promises() == []


def test_books_of_another_home_are_not_backed_up(
    database: str, elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [reference] = some_invoices(1)
    record(a_report(reference))
    (settings().keys_dir / "books.key").write_bytes(bytes(32))
    with pytest.raises(Unusable, match=r"The key of these books is not in"):
        taken(tmp_path / "file")
    assert not (tmp_path / "file").exists()
    with pytest.raises(Unusable, match="cannot be read"), open_archive(tmp_path / "file"):
        pass


def test_a_plain_owner_of_the_database_can_restore(
    services: Services,
    database: str,
    elsewhere: Elsewhere,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in production: no superuser, who could switch off foreign keys and see all sessions."""
    a_busy_day()
    before = the_books()
    taken(tmp_path / "file")
    elsewhere()
    owner = f"owner_{os.getpid()}"
    server_part = conninfo_to_dict(services.database_url)
    address = f"postgresql://{owner}:x@{server_part['host']}:{server_part['port']}/{owner}"
    with psycopg.connect(services.database_url, autocommit=True) as server:
        server.execute(f"CREATE ROLE {owner} LOGIN PASSWORD 'x'".encode())
        server.execute(f"CREATE DATABASE {owner} OWNER {owner}".encode())
        try:
            migrate.upgrade(address)
            monkeypatch.setenv("WASL_DATABASE_URL", address)
            _forget()
            db.connect(address)
            monkeypatch.setattr(restoring, "ALONE_SECONDS_MAX", 0.2)
            in_use = pytest.raises(Unusable, match=r"in use by others \(1 connection\)")
            with psycopg.connect(address_of(services, owner)), in_use:
                restored(tmp_path / "file")
            restored(tmp_path / "file")
            assert the_books() == before
            assert broken_promises() == []
        finally:
            db.disconnect()
            server.execute(f"DROP DATABASE {owner} WITH (FORCE)".encode())
            server.execute(f"DROP ROLE {owner}".encode())
