"""Runs in shards, by several at once, cut short anywhere: one end. Sums are conserved."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Final

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import db
from gateway.checks import run_checks
from gateway.db import execute, snapshot, transaction
from gateway.models import Bundle, BundleItem, BundleKind
from reconciliation.checks import CHECKS
from reconciliation.records import import_records
from reconciliation.runs import RunResult, go_on, reconcile
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

pytestmark = pytest.mark.usefixtures("database")

Line = tuple[str, str, str]
LINES: Final[list[Line]] = [
    ("B", "B1", "normalised_reference"),
    ("E1", "E", "instalments"),
    ("E2", "E", "instalments"),
    ("F", "F1", "several_records"),
    ("F", "F2", "several_records"),
    ("L", "L1", "references_in_text"),
    ("L", "L2", "references_in_text"),
    ("T", "T1", "reference_in_text"),
    *((f"X{n}", f"X{n}", "exact") for n in range(6)),
    ("Z", "Z1", "repaired_reference"),
]
ASKED: Final = [
    ("amount_differs", "payment:cashplus/G"),
    ("payment_without_record", "payment:cashplus/H"),
    ("record_without_payment", "record:I1"),
]


def a_world() -> list[dict[str, str]]:
    """Commit payments of each kind; return the lines that the institution recorded."""
    lines = []
    with transaction() as session:

        def paid(name: str, amount_minor: int = 16_352) -> str:
            invoice = an_invoice(session)
            a_payment(session, invoice, provider_payment_id=name, amount_minor=amount_minor)
            return invoice.reference

        def says(record_id: str, reference: str, **other: str) -> None:
            lines.append(a_line(reference, record_id=record_id, **other))

        for n in range(6):
            says(f"X{n}", paid(f"X{n}"))
        says("B1", f"RF74{paid('B')}")
        says("T1", f"Cotisation {paid('T')} merci")
        wrong = paid("Z")
        says("Z1", f"{wrong[:6]}{(int(wrong[6]) + 1) % 10}{wrong[7:]}", cnss_number="", cin="")
        twice = an_invoice(session)
        for part, amount_minor in (("E1", 10_000), ("E2", 6_352)):
            a_payment(session, twice, provider_payment_id=part, amount_minor=amount_minor)
        says("E", twice.reference)
        both = paid("F")
        says("F1", both, amount="100.00")
        says("F2", both, amount="63.52")
        says("G1", paid("G"), amount="1.00")
        paid("H")
        says("I1", "nothing", amount="77.00", cnss_number="", cin="", name="")
        back = an_invoice(session).reference
        says("J1", back)
        says("J2", back, amount="-163.52")
        items = [an_invoice(session) for _ in range(2)]
        bundle = Bundle(reference=a_reference(), kind=BundleKind.SELECTION, made_at=NOW)
        session.add(bundle)
        session.flush()
        assert bundle.id is not None
        for position, item in enumerate(items):
            assert item.id is not None
            session.add(BundleItem(bundle_id=bundle.id, position=position, invoice_id=item.id))
            says(f"L{position + 1}", item.reference)
        a_payment(session, provider_payment_id="L", amount_minor=2 * 16_352, bundle_id=bundle.id)
    return lines


def imported(tmp_path: Path, lines: list[dict[str, str]], *, name: str = "r.csv") -> None:
    assert import_records(a_file(tmp_path / name, *lines), now=NOW).loaded == len(lines)


def matched() -> list[Line]:
    with snapshot() as session:
        rows = execute(
            session,
            "SELECT provider_payment_id, r.record_id, rule FROM match_line m"
            " JOIN payment ON payment.id = payment_id"
            " JOIN institution_record r ON r.id = m.record_id ORDER BY 1, 2",
        )
        return [(payment, record, rule) for payment, record, rule in rows]


def forget_matches() -> None:
    with transaction() as session:
        execute(session, "DELETE FROM match_line")


def run(shards: int = 1) -> RunResult:
    return reconcile(period=None, now=NOW, shards=shards, tolerance_minor=5)


def broken() -> list[str]:
    with snapshot() as session:
        return [found.what for found in run_checks(session, CHECKS)]


def assert_the_end() -> None:
    assert matched() == LINES
    assert asked() == ASKED
    assert broken() == []


@pytest.mark.parametrize("order", [1, -1])
def test_any_number_of_shards_and_any_order_of_files_lead_to_one_end(
    tmp_path: Path, order: int
) -> None:
    lines = a_world()[::order]
    for part in range(3):
        imported(tmp_path, lines[part::3], name=f"{part}.csv")
    sums = set()
    for shards in (7, 2, 1):
        result = run(shards)
        assert_the_end()
        assert result.matched == len({payment for payment, *_ in LINES})
        sums.add(result.sums)
        forget_matches()
    assert len(sums) == 1
    with snapshot() as session:
        rules = execute(
            session, "SELECT outcomes -> 'rules' -> 'several_records' FROM reconciliation_run"
        ).scalars()
        assert list(rules) == 3 * [
            {
                "groups": 1,
                "payments": 1,
                "records": 2,
                "paid_minor": 16_352,
                "recorded_minor": 16_352,
            }
        ]


@contextmanager
def failing_at(commit: int) -> Iterator[list[int]]:
    """Break off at the n-th commit from here, as a process that dies before it."""
    counted: list[int] = []

    def strike(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("postgresql_readonly"):
            return
        counted.append(1)
        if len(counted) == commit:
            raise KeyboardInterrupt

    sa.event.listen(db.engine(), "commit", strike)
    try:
        yield counted
    finally:
        sa.event.remove(db.engine(), "commit", strike)


def test_a_run_cut_short_before_any_commit_is_gone_on_with_to_the_same_end(
    tmp_path: Path,
) -> None:
    imported(tmp_path, a_world())
    commit, survived = 0, False
    while not survived:
        commit += 1
        with failing_at(commit):
            try:
                run(2)
                survived = True
            except KeyboardInterrupt:
                assert broken() == []
        # A worker comes by; where the run was never opened, a command does.
        if not survived and go_on(NOW) is None:
            run(2)
        assert_the_end()
        assert how_many("reconciliation_run", "finished_at IS NULL") == 0
        forget_matches()
    # Opened, two shards and asking if one is left, finished: each was cut, or this proves nothing.
    assert commit > 4


WORKER: Final = """
import os, signal, sys
from datetime import datetime
from gateway import process
from reconciliation import shards
from reconciliation.runs import reconcile

process.connect_database()
write = shards.compare_shard

def strike(session, run, scope, *given, **named):
    outcome = write(session, run, scope, *given, **named)
    if scope.shard == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return outcome

shards.compare_shard = strike
reconcile(period=None, now=datetime.fromisoformat(sys.argv[1]), shards=3, tolerance_minor=5)
"""


def test_a_process_killed_in_a_shard_beside_two_others_leaves_nothing_half_done(
    tmp_path: Path,
) -> None:
    imported(tmp_path, a_world())
    doomed = subprocess.run([sys.executable, "-c", WORKER, NOW.isoformat()], check=False)
    assert doomed.returncode == -signal.SIGKILL
    assert how_many("reconciliation_shard", "done_at IS NULL") == 2
    threads = [Thread(target=go_on, args=(NOW,)), Thread(target=run)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_the_end()
    # The command finished the run that was cut short, and then did its own.
    assert how_many("reconciliation_run", "finished_at IS NOT NULL") == 2


Step = Callable[[Path, list[str]], None]


def _pay(_: Path, references: list[str]) -> None:
    references.append(an_invoice_paid()[0])


def _record(path: Path, references: list[str]) -> None:
    at = how_many("institution_record")
    imported(path, [a_line(references[at % len(references)])], name=f"{at}.csv")


def _take_back(path: Path, references: list[str]) -> None:
    at = how_many("institution_record")
    line = a_line(references[at % len(references)], amount="-163.52", posted_on="2026-11-21")
    imported(path, [line], name=f"{at}.csv")


def _reverse(_: Path, __: list[str]) -> None:
    with snapshot() as session:
        query = "SELECT min(provider_payment_id) FROM payment WHERE status = 'booked'"
        first = execute(session, query).scalar_one()
    if first is not None:
        reverse(first)


@settings(
    max_examples=2,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(st.lists(st.sampled_from([_pay, _record, _record, _take_back, _reverse]), min_size=4))
def test_no_centime_is_lost_over_any_sequence(tmp_path: Path, steps: list[Step]) -> None:
    references = [an_invoice_paid()[0], an_invoice_paid()[0]]
    half = len(steps) // 2
    for part in (steps[:half], steps[half:]):
        for step in part:
            step(tmp_path, references)
        result = run()
        assert result.sums.payments == result.sums.matched + result.sums.payments_open
        with snapshot() as session:
            booked, lines = execute(
                session,
                "SELECT coalesce((SELECT sum(amount_minor - returned_minor) FROM payment"
                " WHERE status = 'booked'), 0), coalesce((SELECT sum(amount_minor)"
                " FROM match_line WHERE payment_line = 0), 0)",
            ).one()
        assert booked == lines + result.sums.payments_open
        assert broken() == []
        before = (matched(), asked())
        assert run().matched == 0
        assert (matched(), asked()) == before
