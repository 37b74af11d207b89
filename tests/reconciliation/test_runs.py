"""Runs on the real database: what is matched stays, what no longer stands is undone, nobody is
asked twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier, Thread

import pytest
import sqlalchemy as sa

from gateway.db import execute, transaction
from gateway.errors import Unusable
from gateway.models import PaymentStatus
from reconciliation.records import import_records, lock_records
from reconciliation.runs import RunResult, reconcile
from tests.reconciliation.factories import (
    NOW,
    a_file,
    a_line,
    a_payment,
    a_reference,
    an_invoice,
    an_invoice_paid,
    asked,
    give_back,
    how_many,
    reverse,
)

pytestmark = pytest.mark.usefixtures("database")


def run(period: str | None = None) -> RunResult:
    return reconcile(period=period, now=NOW)


def recorded(tmp_path: Path, *lines: dict[str, str]) -> None:
    assert import_records(a_file(tmp_path / "r.csv", *lines), now=NOW).loaded == len(lines)


def claims() -> list[tuple[str, str]]:
    """Return the provider's payment id and the record's id of each pair that stands."""
    with transaction() as session:
        rows = execute(
            session,
            """
            SELECT provider_payment_id, r.record_id
            FROM match_line JOIN payment ON payment.id = payment_id
            JOIN institution_record r ON r.id = match_line.record_id
            ORDER BY 1, 2
            """,
        )
        return [(payment_id, record_id) for payment_id, record_id in rows]


def test_nothing_on_either_side_is_a_run_too() -> None:
    assert run().as_json() == {
        "run": 1,
        "matched": 0,
        "open": 0,
        "exceptions": {},
        "sums": {
            "payments": "0.00",
            "records": "0.00",
            "matched": "0.00",
            "payments_open": "0.00",
            "records_open": "0.00",
            "difference": "0.00",
        },
    }


def test_the_first_run_matches_asks_and_adds_up(tmp_path: Path) -> None:
    good, _ = an_invoice_paid(provider_payment_id="good")
    differs, _ = an_invoice_paid(provider_payment_id="differs")
    an_invoice_paid(provider_payment_id="alone")
    recorded(
        tmp_path,
        a_line(good, record_id="R1"),
        a_line(differs, record_id="R2", amount="100.00"),
        a_line(record_id="R3", amount="1.00"),
        a_line("no reference at all", record_id="R4", amount="2.00"),
    )

    result = run()

    assert result.as_json() == {
        "run": result.run,
        "matched": 1,
        "open": 4,
        "exceptions": {
            "amount_differs": 1,
            "payment_without_record": 1,
            "record_without_payment": 2,
        },
        "sums": {
            "payments": "490.56",
            "records": "266.52",
            "matched": "163.52",
            "payments_open": "327.04",
            "records_open": "103.00",
            "difference": "224.04",
        },
    }
    assert claims() == [("good", "R1")]
    assert asked() == [
        ("amount_differs", "payment:cashplus/differs"),
        ("payment_without_record", "payment:cashplus/alone"),
        ("record_without_payment", "record:R3"),
        ("record_without_payment", "record:R4"),
    ]
    assert how_many("coded_exception", "payment_id IS NOT NULL") == 2
    with transaction() as session:
        stored = execute(session, "SELECT summary FROM reconciliation_run").scalar_one()
        group = execute(session, "SELECT run_id, rule, score FROM match_line").one()
    assert stored == result.as_json()
    assert tuple(group) == (result.run, "exact", 100)


def test_a_second_run_with_nothing_new_matches_and_opens_nothing(tmp_path: Path) -> None:
    good, _ = an_invoice_paid()
    an_invoice_paid()
    recorded(tmp_path, a_line(good), a_line())
    first = run()
    before = asked()

    second, third = run(), run()

    assert (first.matched, second.matched, third.matched) == (1, 0, 0)
    assert first.exceptions == second.exceptions == third.exceptions
    assert asked() == before
    assert how_many("coded_exception") == 2
    assert second.sums == third.sums


def test_a_late_record_is_matched_and_its_exception_resolved(tmp_path: Path) -> None:
    reference, _ = an_invoice_paid(provider_payment_id="late")
    run()
    assert asked() == [("payment_without_record", "payment:cashplus/late")]
    recorded(tmp_path, a_line(reference, record_id="R1"))

    result = run()

    assert (result.matched, result.open) == (1, 0)
    assert asked() == []
    because = f"run {result.run} does not find it again"
    assert how_many("coded_exception", f"resolution = '{because}'") == 1


def test_a_finding_that_becomes_another_is_asked_anew(tmp_path: Path) -> None:
    reference, _ = an_invoice_paid(provider_payment_id="p")
    run()
    recorded(tmp_path, a_line(reference, record_id="R1", amount="100"))
    assert run().exceptions == {"amount_differs": 1}
    assert asked() == [("amount_differs", "payment:cashplus/p")]
    recorded(
        tmp_path,
        a_line(reference, record_id="N1", amount="-100", posted_on="2026-11-20"),
        a_line(reference, record_id="R2", amount="101", posted_on="2026-11-20"),
    )

    assert run().exceptions == {"amount_differs": 1}

    with transaction() as session:
        detail = execute(
            session, "SELECT detail FROM coded_exception WHERE resolved_at IS NULL"
        ).scalar_one()
    assert detail["records"] == "R2"


def test_a_negative_record_undoes_what_was_matched(tmp_path: Path) -> None:
    reference, _ = an_invoice_paid(provider_payment_id="p")
    recorded(tmp_path, a_line(reference, record_id="R1"))
    run()
    recorded(tmp_path, a_line(reference, record_id="N1", amount="-163.52", posted_on="2026-11-20"))

    result = run()

    assert (result.matched, result.exceptions) == (0, {"payment_without_record": 1})
    assert result.sums.records == 0
    assert claims() == []
    because = "its record was taken back by a negative one"
    assert how_many("undone_match", f"undone_because = '{because}'") == 1
    with transaction() as session:
        pair = execute(
            session,
            "SELECT n.record_id, r.record_id FROM institution_record n"
            " JOIN institution_record r ON r.id = n.reverses_id",
        ).one()
    assert tuple(pair) == ("N1", "R1")
    assert run().exceptions == {"payment_without_record": 1}

    recorded(tmp_path, a_line(reference, record_id="R2", posted_on="2026-11-20"))
    assert (run().matched, claims(), asked()) == (1, [("p", "R2")], [])


def test_a_negative_record_that_comes_first_waits_for_its_record(tmp_path: Path) -> None:
    reference = a_reference()
    recorded(tmp_path, a_line(reference, record_id="N1", amount="-163.52"))
    assert run().exceptions == {"record_without_payment": 1}
    recorded(tmp_path, a_line(reference, record_id="R1"))
    assert run().exceptions == {}
    assert asked() == []


def test_what_is_taken_back_is_not_taken_back_again(tmp_path: Path) -> None:
    reference = a_reference()
    recorded(
        tmp_path,
        a_line(reference, record_id="R1"),
        a_line(reference, record_id="N1", amount="-163.52"),
    )
    assert run().exceptions == {}
    recorded(tmp_path, a_line(reference, record_id="N2", amount="-163.52"))
    assert run().exceptions == {"record_without_payment": 1}
    assert asked() == [("record_without_payment", "record:N2")]


def test_a_negative_record_of_another_period_waits_for_its_run(tmp_path: Path) -> None:
    reference, _ = an_invoice_paid(provider_payment_id="p")
    recorded(tmp_path, a_line(reference, record_id="R1"))
    run()
    recorded(tmp_path, a_line(reference, record_id="N1", amount="-163.52", period="2026-12"))
    run("2026-11")
    assert claims() == [("p", "R1")]
    run("2026-12")
    assert claims() == []


def test_a_reversed_payment_undoes_what_was_matched(tmp_path: Path) -> None:
    reference, payment_id = an_invoice_paid()
    recorded(tmp_path, a_line(reference, record_id="R1"))
    run()
    reverse(payment_id)

    result = run()

    assert (result.matched, result.exceptions) == (0, {"record_without_payment": 1})
    assert claims() == []
    assert how_many("undone_match", "undone_because LIKE 'its payment was reversed%'") == 1
    assert asked() == [("record_without_payment", "record:R1")]


def test_a_payment_given_back_in_part_is_matched_by_what_is_left(tmp_path: Path) -> None:
    reference, payment_id = an_invoice_paid()
    recorded(tmp_path, a_line(reference, record_id="R1"))
    run()
    give_back(payment_id, 6352)
    assert run().exceptions == {"amount_differs": 1}
    assert claims() == []
    recorded(
        tmp_path,
        a_line(reference, record_id="N1", amount="-163.52"),
        a_line(reference, record_id="R2", amount="100.00"),
    )
    assert run().exceptions == {}
    assert claims() == [(payment_id, "R2")]
    give_back(payment_id, 16352)
    assert run().exceptions == {"record_without_payment": 1}


def test_an_open_payment_that_is_reversed_is_asked_about_no_more() -> None:
    _, payment_id = an_invoice_paid()
    run()
    reverse(payment_id)
    assert run().exceptions == {}
    assert asked() == []


def test_only_booked_payments_of_an_invoice_are_looked_at() -> None:
    with transaction() as session:
        invoice = an_invoice(session)
        a_payment(session, None)
        a_payment(session, invoice, status=PaymentStatus.PENDING)
        a_payment(session, invoice, status=PaymentStatus.FAILED)
        a_payment(session, invoice, status=PaymentStatus.REVERSED)
    result = run()
    assert (result.matched, result.open, result.sums.payments) == (0, 0, 0)


def test_the_day_of_a_payment_is_the_day_in_casablanca(tmp_path: Path) -> None:
    with transaction() as session:
        invoice = an_invoice(session)
        # 23:30 UTC is half past midnight of the next day.
        a_payment(session, invoice, paid_at=datetime(2026, 11, 18, 23, 30, tzinfo=UTC))
    run()
    assert how_many("coded_exception", "detail->>'paid_on' = '2026-11-19'") == 1


def test_what_cannot_be_told_apart_is_one_question_about_the_invoice(tmp_path: Path) -> None:
    with transaction() as session:
        invoice = an_invoice(session)
        for amount_minor in (1_000, 2_000):
            a_payment(session, invoice, amount_minor=amount_minor)
    recorded(tmp_path, a_line(invoice.reference, amount="15"))
    result = run()
    assert result.exceptions == {"ambiguous_match": 1}
    assert asked() == [("ambiguous_match", f"invoice:{invoice.reference}")]
    assert run("2026-11").exceptions == {"ambiguous_match": 1}
    assert how_many("coded_exception") == 1


def test_a_run_over_a_period_leaves_the_others_alone(tmp_path: Path) -> None:
    november, _ = an_invoice_paid(provider_payment_id="nov")
    quarter, _ = an_invoice_paid(provider_payment_id="q4", period="2026-Q4")
    an_invoice_paid(provider_payment_id="nov-alone")
    an_invoice_paid(provider_payment_id="q4-alone", period="2026-Q4")
    recorded(
        tmp_path,
        a_line(november, record_id="R1"),
        a_line(quarter, record_id="R2", period="2026-Q4"),
        a_line(record_id="R3"),
        a_line(record_id="R4", period=""),
    )

    of_november = run("2026-11")

    assert of_november.matched == 1
    assert asked() == [
        ("payment_without_record", "payment:cashplus/nov-alone"),
        ("record_without_payment", "record:R3"),
    ]
    run("2026-Q4")
    everything = [
        ("payment_without_record", "payment:cashplus/nov-alone"),
        ("payment_without_record", "payment:cashplus/q4-alone"),
        ("record_without_payment", "record:R3"),
    ]
    assert asked() == everything
    assert run("2026-12").open == 0
    assert asked() == everything
    # The record that states no period belongs to the run over all.
    assert run().exceptions == {"payment_without_record": 2, "record_without_payment": 2}


def test_a_period_run_resolves_what_it_looked_at(tmp_path: Path) -> None:
    reference, _ = an_invoice_paid()
    an_invoice_paid(provider_payment_id="q4", period="2026-Q4")
    run()
    recorded(tmp_path, a_line(reference))

    assert run("2026-11").open == 0

    assert asked() == [("payment_without_record", "payment:cashplus/q4")]


@pytest.mark.parametrize("period", ["2026", "2026-13", "2026-Q5", "novembre"])
def test_a_period_that_is_none_is_refused(period: str) -> None:
    with pytest.raises(Unusable, match="is not a period"):
        run(period)
    assert how_many("reconciliation_run") == 0


def test_two_runs_at_once_match_each_payment_once(tmp_path: Path) -> None:
    references = [an_invoice_paid()[0] for _ in range(200)]
    recorded(tmp_path, *(a_line(reference) for reference in references))
    results: list[RunResult] = []
    start = Barrier(3)

    def one() -> None:
        start.wait()
        results.append(run())

    threads = [Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(result.matched for result in results) == [0, 0, 200]
    assert how_many("match_line") == 200


def test_a_run_waits_for_whoever_decides_about_records(tmp_path: Path) -> None:
    reference, _ = an_invoice_paid()
    recorded(tmp_path, a_line(reference))
    results: list[RunResult] = []
    thread = Thread(target=lambda: results.append(run()))
    with transaction() as session:
        lock_records(session)
        thread.start()
        thread.join(timeout=0.5)
        assert thread.is_alive()
    thread.join()
    assert results[0].matched == 1


@pytest.mark.parametrize(
    ("lines", "key"),
    [("1, 0", "match_line_record_id_record_line_key"), ("0, 1", "match_line_pkey")],
)
def test_the_database_lets_no_second_group_claim_a_row(
    tmp_path: Path, lines: str, key: str
) -> None:
    reference, _ = an_invoice_paid()
    recorded(tmp_path, a_line(reference))
    run()
    claim_again = f"""
        INSERT INTO match_line (payment_id, record_id, group_id, run_id, amount_minor, score,
            payment_line, record_line, rule)
        SELECT payment_id, record_id, group_id, run_id, amount_minor, score, {lines}, rule
        FROM match_line
    """
    with transaction() as session, pytest.raises(sa.exc.IntegrityError, match=key):
        execute(session, claim_again)
    assert how_many("match_line") == 1


def test_a_run_that_fails_writes_nothing_and_is_gone_on_with(tmp_path: Path) -> None:
    reference, _ = an_invoice_paid()
    recorded(tmp_path, a_line(reference))

    def fail(_read: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reconcile(period=None, now=NOW, progress=fail)

    assert how_many("match_line") == 0
    assert how_many("reconciliation_run", "finished_at IS NULL") == 1
    # It is finished first; what is asked for then finds nothing more.
    assert run().matched == 0
    matched = "summary ->> 'matched' = '1' AND finished_at IS NOT NULL"
    assert (how_many("match_line"), how_many("reconciliation_run", matched)) == (1, 1)


def test_the_progress_counts_both_sides(tmp_path: Path) -> None:
    reference, _ = an_invoice_paid()
    recorded(tmp_path, a_line(reference), a_line())
    told: list[int] = []
    reconcile(period=None, now=NOW + timedelta(days=1), progress=told.append)
    assert told == [1, 3]
