from __future__ import annotations

import csv
from datetime import date, timedelta
from pathlib import Path

import pytest
from psycopg.errors import CheckViolation
from sqlalchemy.exc import IntegrityError

from gateway import process
from gateway.billing.invoices import write_notices
from gateway.collection.payments import record_reports
from gateway.db import execute, transaction
from gateway.dues.tariff import tariff
from gateway.errors import Unusable
from gateway.references import is_reference
from gateway.relief.plans import review_plans
from tests.factories import NOON, a_contributor, a_report, as_owner, issue, some_invoices
from tests.gateway.pages import states


def test_what_is_due_is_issued_once(database: str) -> None:
    with transaction() as session:
        a_contributor(session)
        a_contributor(session, category_code="cpu", category_base_minor=60_000)
    assert issue("2026-11").as_json() == {"issued": 1, "already": 0, "total": "163.52"}
    assert issue("2026-Q4").as_json() == {"issued": 1, "already": 0, "total": "390.00"}
    assert issue("2026-11").as_json() == {"issued": 0, "already": 1, "total": "0.00"}
    with transaction() as session:
        rows = execute(session, "SELECT reference, due_on, status, tariff FROM invoice").all()
    assert all(is_reference(row.reference) for row in rows)
    assert {row.due_on for row in rows} == {date(2026, 11, 30), date(2026, 12, 31)}
    assert {(row.status, row.tariff) for row in rows} == {("open", tariff().version)}


def test_each_invoice_says_why(database: str) -> None:
    some_invoices(2)
    with transaction() as session:
        lines = execute(
            session,
            "SELECT kind, amount_minor, rule, source, verified FROM invoice_line"
            " JOIN rule ON rule.id = rule_id",
        ).all()
    assert len(lines) == 2
    assert {(line.kind, line.amount_minor, line.verified) for line in lines} == {
        ("principal", 16352, False)
    }
    assert all("0.75 × SMIG 17.92/h" in line.rule for line in lines)


@pytest.mark.parametrize(
    ("registered_on", "left_on", "owed"),
    [
        (date(2026, 11, 30), None, True),
        (date(2026, 12, 1), None, False),
        (date(2022, 1, 1), date(2026, 11, 1), True),
        (date(2022, 1, 1), date(2026, 10, 31), False),
    ],
)
def test_a_period_is_owed_from_registration_to_departure(
    database: str, registered_on: date, left_on: date | None, owed: bool
) -> None:
    with transaction() as session:
        a_contributor(session, registered_on=registered_on, left_on=left_on)
    assert issue("2026-11").issued == int(owed)


def test_nothing_is_issued_before_the_first_period(database: str) -> None:
    with transaction() as session:
        a_contributor(session, registered_on=date(2020, 1, 1))
    assert issue("2021-11").issued == 0
    assert issue("2021-12").issued == 1


@pytest.mark.parametrize(("period", "category"), [("2026-Q4", "artisan-untaxed"), ("2026-11", "x")])
def test_a_wrong_question_gets_a_sentence(database: str, period: str, category: str) -> None:
    with transaction() as session:
        a_contributor(session)
    with pytest.raises(Unusable):
        issue(period, category)


def test_who_changed_from_months_to_quarters_is_not_billed_twice(database: str) -> None:
    with transaction() as session:
        a_contributor(session)
        a_contributor(session, category_code="cpu", category_base_minor=60_000)
    assert (issue("2026-10").issued, issue("2026-11").issued) == (1, 1)
    with transaction() as session:
        execute(
            session, "UPDATE contributor SET category_code = 'cpu', category_base_minor = 60000"
        )
    assert issue("2026-Q4").as_json() == {"issued": 1, "already": 1, "total": "390.00"}
    assert issue("2027-Q1").issued == 2


def test_a_far_period_is_refused(database: str) -> None:
    assert issue("2027-11").issued == 0
    with pytest.raises(Unusable, match="more than a year ahead"):
        issue("2027-12")


def test_the_database_refuses_what_the_code_must_not_do(database: str) -> None:
    (reference,) = some_invoices()
    for statement in (
        "UPDATE invoice SET amount_minor = 1",
        "UPDATE invoice SET period = '2026-12'",
        "UPDATE invoice SET paid_minor = 1",
        "UPDATE invoice SET paid_minor = amount_minor + 1, status = 'paid'",
        "UPDATE invoice SET status = 'paid'",
        "DELETE FROM invoice",
        "TRUNCATE invoice CASCADE",
        "UPDATE invoice_line SET amount_minor = 1",
        "DELETE FROM invoice_line",
        f"UPDATE invoice SET reference = '{int(reference) + 97}'",
    ):
        with pytest.raises(IntegrityError), transaction() as session:
            execute(session, statement)


@pytest.mark.parametrize(
    "malformed",
    [
        # Check digits that are wrong, or never issued; too short; a nought before it; no digits.
        "reference = '100000000094'",
        "reference = '100000003100'",
        "reference = '10000000049'",
        "reference = '010000000049'",
        "reference = ' 10000000049'",
        "reference = 'RF7410000000'",
        "period = '2026-13'",
        "period = '2026-Q5'",
        "period = '2026'",
    ],
)
def test_a_malformed_reference_or_period_is_refused_even_to_the_owner(
    database: str, malformed: str
) -> None:
    some_invoices()
    with pytest.raises(CheckViolation):
        as_owner(database, f"UPDATE invoice SET {malformed}")


def test_a_payment_leaves_an_invoice_on_its_page(database: str) -> None:
    """Where it leaves it, each of the invoice's indexes is told of the new place."""
    references = some_invoices(200)
    reports = [a_report(reference) for reference in references[::40]]
    with transaction() as session:
        record_reports(session, reports, key=process.signing_key(), now=NOON)
        written, on_its_page = execute(
            session,
            "SELECT pg_stat_get_xact_tuples_updated(c), pg_stat_get_xact_tuples_hot_updated(c)"
            " FROM CAST('invoice' AS regclass) AS c",
        ).one()
    assert (written, on_its_page) == (len(reports), len(reports))


def test_what_a_broken_plan_spread_is_in_the_notices_at_all_it_owes(
    database: str, tmp_path: Path
) -> None:
    _, references = states.a_plan(3)
    later = NOON + timedelta(days=400)
    file = tmp_path / "notices.csv"
    for reviewed in (False, True):
        if reviewed:
            with transaction() as session:
                assert review_plans(session, key=process.signing_key(), now=later).broken == 1
        assert write_notices(file, now=later) == 5
        rows = {r["reference"]: r for r in csv.DictReader(file.read_text("utf-8").splitlines())}
    # July 2026: 163.52, and 1 % of it for each of the 17 months begun until December 2027.
    assert rows[references[0]]["amount"] == "191.32"


def test_notices_tell_what_a_payer_needs(database: str, tmp_path: Path) -> None:
    (reference,) = some_invoices()
    file = tmp_path / "notices.csv"
    assert write_notices(file, now=NOON) == 1
    (notice,) = csv.DictReader(file.read_text("utf-8").splitlines())
    assert notice["reference"] == reference
    assert (notice["amount"], notice["period"], notice["due_on"]) == (
        "163.52",
        "2026-11",
        "2026-11-30",
    )
