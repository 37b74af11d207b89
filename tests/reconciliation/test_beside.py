"""What goes on beside a run: imports, other workers, the bell, what a killed process left."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from datetime import date, time, timedelta
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from gateway import process
from gateway.db import execute, snapshot, transaction
from gateway.migrate import CONSTRAINTS_QUERY
from gateway.worker import RECONCILE
from reconciliation import keeping
from reconciliation.by_hand import join_by_hand
from reconciliation.duckfiles import workbench
from reconciliation.exports import export_matches
from reconciliation.records import import_records, lock_records
from reconciliation.runs import RunResult, go_on, read_result, reconcile
from reconciliation.tasks import is_due, reconcile_due
from tests.reconciliation.factories import (
    NOW,
    a_file,
    a_line,
    a_payment,
    a_reference,
    an_invoice,
    an_invoice_paid,
    asked,
    how_many,
    reverse,
)
from tests.reconciliation.test_shards import broken, matched

pytestmark = pytest.mark.usefixtures("database")

PATIENCE_SECONDS = 20.0


def recorded(path: Path, *lines: dict[str, str]) -> None:
    assert import_records(a_file(path / "r.csv", *lines), now=NOW).loaded == len(lines)


def cut_short(shards: int = 1) -> None:
    """Begin a run, do its shards, and break off before its end."""
    told: list[int] = []

    def fail(read: int) -> None:
        told.append(read)
        # Told twice by each shard, and then at the end.
        if len(told) > (2 * shards if shards > 1 else 0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reconcile(period=None, now=NOW, shards=shards, progress=fail)
    assert how_many("reconciliation_run", "finished_at IS NULL") == 1


def last() -> RunResult:
    """Go on with the run that was cut short, as a worker does; return what was found."""
    run = go_on(NOW)
    assert run is not None
    with snapshot() as session:
        return read_result(session, run)


def test_a_record_that_comes_and_is_taken_back_while_a_run_goes_on_is_no_question(
    tmp_path: Path,
) -> None:
    cut_short()
    reference = a_reference()
    recorded(
        tmp_path,
        a_line(reference, record_id="R1"),
        a_line(reference, record_id="N1", amount="-163.52"),
    )
    assert (last().exceptions, asked()) == ({}, [])
    assert how_many("institution_record", "reverses_id IS NOT NULL") == 1


def test_what_changes_after_its_shard_is_undone_at_the_end_of_the_run(tmp_path: Path) -> None:
    back, gone, stays = (an_invoice_paid(provider_payment_id=name)[0] for name in "PQS")
    recorded(
        tmp_path,
        *(a_line(reference, record_id=f"R{reference}") for reference in (back, gone, stays)),
    )
    cut_short(shards=2)
    assert how_many("match_line") == 3
    recorded(tmp_path, a_line(back, record_id="N1", amount="-163.52", posted_on="2026-11-20"))
    reverse("Q")

    result = last()

    assert [payment for payment, *_ in matched()] == ["S"]
    assert result.exceptions == {"payment_without_record": 1, "record_without_payment": 1}
    assert (result.matched, result.sums.matched) == (1, 16_352)
    # Q was given back, and the record of P taken back: S and P on this side, S and Q on theirs.
    assert (result.sums.payments, result.sums.records) == (2 * 16_352, 2 * 16_352)
    assert broken() == []


def test_a_worker_waits_for_nobody(tmp_path: Path) -> None:
    an_invoice_paid()
    cut_short()
    with transaction() as session:
        # An import, or the end of a run: minutes, in which deliveries are to be booked.
        lock_records(session)
        worker = Thread(target=go_on, args=(NOW,), daemon=True)
        worker.start()
        worker.join(PATIENCE_SECONDS)
        assert not worker.is_alive()
    assert last().exceptions == {"payment_without_record": 1}


def test_many_bells_at_once_begin_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, _ = an_invoice_paid()
    recorded(tmp_path, a_line(reference))
    monkeypatch.setenv("WASL_CLOCK", f"={NOW.isoformat()}")
    process.connect_database()
    workers = [Thread(target=reconcile_due) for _ in range(3)]
    with transaction() as session:
        # Whoever is about to begin waits here.
        lock_records(session)
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(0.7)
    for worker in workers:
        worker.join()
    assert how_many("reconciliation_run") == 1


def test_a_run_in_shards_rings_for_the_workers_where_it_is_opened() -> None:
    reconcile(period=None, now=NOW)
    rung = f"task = '{RECONCILE}' AND arguments = '{{}}'"
    assert how_many("outbox_message", rung) == 0
    # Broken off in its first shard: the bell was committed with the run.
    cut_short(shards=2)
    assert how_many("outbox_message", rung) == 1


def test_a_run_of_another_day_is_not_the_days_run(tmp_path: Path) -> None:
    reference, _ = an_invoice_paid()
    recorded(tmp_path, a_line(reference))
    # A clock that was ahead, and was set right.
    reconcile(period=None, now=NOW + timedelta(days=30))
    assert is_due(NOW, time(5))
    reconcile(period=None, now=NOW)
    assert not is_due(NOW, time(5))


@pytest.mark.parametrize("shards", [1, 3])
def test_what_says_the_reference_of_a_payment_by_a_slip_is_doubted_in_every_run(
    tmp_path: Path, shards: int
) -> None:
    settled, _ = an_invoice_paid(provider_payment_id="X")
    with transaction() as session:
        other = an_invoice(session)
        a_payment(session, other, provider_payment_id="Y")
        query = "SELECT cnss_number FROM contributor WHERE id = :id"
        number = execute(session, query, {"id": other.contributor_id}).scalar_one()
    slip = f"{settled[:5]}{(int(settled[5]) + 1) % 10}{settled[6:]}"
    # The reference says that it is X's once more, the person that it is Y's: nobody guesses.
    recorded(
        tmp_path,
        a_line(settled, record_id="RX", cnss_number="", cin="", name=""),
        a_line(slip, record_id="RS", cnss_number=number, cin="", name=""),
    )
    for _ in range(2):
        reconcile(period=None, now=NOW, shards=shards)
        assert matched() == [("X", "RX", "exact")]


def test_a_run_over_a_period_closes_what_it_asked_of_records_that_state_none(
    tmp_path: Path,
) -> None:
    with transaction() as session:
        invoice = an_invoice(session)
    recorded(tmp_path, a_line(invoice.reference, record_id="R1", period=""))
    november = invoice.period
    assert reconcile(period=november, now=NOW).exceptions == {"record_without_payment": 1}
    with transaction() as session:
        a_payment(session, session.merge(invoice), provider_payment_id="P1")
    assert reconcile(period=november, now=NOW).matched == 1
    assert asked() == []


def test_what_a_killed_process_left_on_the_disk_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = Path(tempfile.mkdtemp(prefix="wasl-match-"))
    left.joinpath("record_rows.csv").write_text("1,El Amrani")
    others = tmp_path.joinpath("wasl-match-of-somebody")
    others.write_text("a file")
    with workbench() as (_, mine):
        mine.joinpath("rows.csv").write_text("2")
        assert mine.stat().st_mode & 0o077 == 0
        assert not left.exists()
        with workbench():
            assert mine.joinpath("rows.csv").exists()
    assert list(tmp_path.iterdir()) == [others]


@pytest.mark.parametrize("is_read", [False, True])
def test_keys_that_are_made_anew_are_the_same_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_read: bool
) -> None:
    # Many lines is a few, here.
    monkeypatch.setattr(keeping, "MANY", 1)
    recorded(tmp_path, *(a_line(an_invoice_paid()[0]) for _ in range(3)))
    keys = "SELECT oid FROM pg_constraint WHERE conrelid = 'match_line'::regclass ORDER BY oid"
    with snapshot() as session:
        before, all_ = execute(session, keys).all(), execute(session, CONSTRAINTS_QUERY).all()
    with ExitStack() as stack:
        if is_read:
            # Nobody is waited for who reads the table, and nobody who reads it waits.
            execute(stack.enter_context(snapshot()), "SELECT count(*) FROM match_line")
        assert reconcile(period=None, now=NOW).matched == 3
    with snapshot() as session:
        assert (execute(session, keys).all() == before) is is_read
        assert execute(session, CONSTRAINTS_QUERY).all() == all_
    assert broken() == []


def test_whose_table_it_is_not_leaves_the_keys_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "MANY", 1)
    one = np.array([1])
    pairs = keeping.Pairs("exact", 100, {"pn": one, "rn": one, "a": np.array([12_345])})
    role = f"clerk_{os.getpid()}"
    with transaction() as session:
        execute(session, f"CREATE ROLE {role}")
        execute(session, f"GRANT ALL ON match_line TO {role}")
        execute(session, f"SET LOCAL ROLE {role}")
        keeping.write_pairs(session, 1, [pairs])
        kept = execute(
            session,
            "SELECT payment_id, group_id, run_id, amount_minor, score, rule FROM match_line",
        )
        assert kept.all() == [(1, 1, 1, 12_345, 100, "exact")]
        execute(session, "RESET ROLE")
        execute(session, f"DROP OWNED BY {role}")
        execute(session, f"DROP ROLE {role}")


def test_the_last_day_of_all_can_be_exported(tmp_path: Path) -> None:
    with transaction() as session:
        out = tmp_path / "m.csv"
        assert export_matches(session, out, from_on=date.min, to_on=date.max, form="csv") == 0


def test_money_in_suspense_that_a_person_joined_is_asked_about_when_it_is_given_back(
    tmp_path: Path,
) -> None:
    with transaction() as session:
        a_payment(session, None, provider_payment_id="P1")
    recorded(tmp_path, a_line("nothing", record_id="R1"))
    with transaction() as session:
        join_by_hand(session, ["cashplus/P1"], ["R1"], who="a person", why="his", now=NOW)
    assert reconcile(period=None, now=NOW).exceptions == {}
    reverse("P1")
    assert reconcile(period=None, now=NOW).exceptions == {"amount_differs": 1}
