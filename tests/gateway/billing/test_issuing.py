from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from gateway import process, tasks
from gateway.billing import issuing, orders
from gateway.billing.issuing import Issuer, issue_invoices, issue_one, issue_some
from gateway.billing.orders import IssueResult, order_issue
from gateway.billing.owed import LeftOut, assess_person
from gateway.billing.reassessment import reassess
from gateway.cli import wasl
from gateway.cli.shared import Refused
from gateway.db import execute, transaction
from gateway.dues.assessment import Assessed
from gateway.dues.periods import parse_period
from gateway.dues.principal import DueLine, principal
from gateway.dues.tariff import Tariff, tariff
from gateway.errors import Unusable
from gateway.people.activities import add_activity
from tests.factories import (
    NOON,
    a_contributor,
    a_report,
    at_once,
    balances,
    broken_promises,
    issue,
    record,
    rows_of,
    some_invoices,
)

NOVEMBER = parse_period("2026-11")
FOURTH = parse_period("2026-Q4")
SCALES = ("cpu", "accounts-real", "auto-entrepreneur")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "CHUNK", 7)


def issue_november(
    progress: Callable[[int, int], None] = lambda _done, _of: None,
    workers: int = 1,
    current: Tariff | None = None,
) -> IssueResult:
    return issue_invoices(
        current or tariff(),
        NOVEMBER,
        category=None,
        key=process.signing_key(),
        clock=lambda: NOON,
        progress=progress,
        workers=workers,
    )


def people(how_many: int, **values: Any) -> list[int]:
    with transaction() as session:
        return [a_contributor(session, **values).id or 0 for _ in range(how_many)]


def work_some(current: Tariff | None = None) -> int:
    return issue_some(
        current or tariff(), key=process.signing_key(), clock=lambda: NOON, seconds=60
    )


INVOICES = (
    "SELECT contributor_id, category_code, period, due_on, i.amount_minor, owed_minor, paid_minor,"
    " status, tariff, issued_at, position, kind, l.amount_minor, rule, r.facts, e.type, e.data - "
    " 'reference', e.data ->> 'reference' = reference, e.happened_at FROM invoice i"
    " JOIN invoice_line l ON l.invoice_id = i.id JOIN rule r ON r.id = rule_id"
    " JOIN event e ON e.invoice_id = i.id ORDER BY contributor_id"
)


# -- what is written ------------------------------------------------------------------------------


def test_the_three_rows_of_an_invoice_say_the_same(database: str) -> None:
    (person,) = people(1)
    assert issue("2026-11").issued == 1
    (row,) = rows_of(database, INVOICES)
    line = principal(tariff(), tariff().of("artisan-untaxed"), base_minor=None, period=NOVEMBER)
    assert isinstance(line, DueLine)
    assert row == (
        person,
        "artisan-untaxed",
        "2026-11",
        date(2026, 11, 30),
        *(16352, 16352, 0, "open", tariff().version, NOON),
        *(1, "principal", 16352, line.rule, dict(line.facts)),
        "invoice.issued",
        {"period": "2026-11", "due_on": "2026-11-30", "amount": "163.52"},
        *(True, NOON),
    )
    assert broken_promises() == []


@pytest.mark.parametrize("period", ["2026-11", "2026-Q4", "2022-11", "2022-Q2"])
def test_every_base_is_billed_as_it_is_quoted(database: str, period: str) -> None:
    """At the edges of all bands, since the issue asks for the price of a band only once."""
    named = parse_period(period)
    owing: dict[int, int] = {}
    with transaction() as session:
        for category in (c for c in tariff().category if c.periodicity is named.periodicity):
            edges = {band.edge or 0 for scale in category.scale for band in scale.band}
            bases = {max(0, edge + by) for edge in edges for by in (-1, 0, 1)} | {10**9}
            for base in sorted(bases) if category.needs_base else [None]:
                try:
                    line = principal(tariff(), category, base_minor=base, period=named)
                except Unusable:
                    continue
                person = a_contributor(
                    session, category_code=category.code, category_base_minor=base
                )
                if isinstance(line, DueLine):
                    owing[person.id or 0] = line.amount_minor
    assert issue(period).issued == len(owing) > 0
    assert dict(rows_of(database, "SELECT contributor_id, amount_minor FROM invoice")) == owing


# -- who cannot be priced -------------------------------------------------------------------------


def without(category: str) -> Tariff:
    """Return the tariff of a year in which a category is gone."""
    kept = tuple(each for each in tariff().category if each.code != category)
    return tariff().model_copy(update={"category": kept, "version": "another"})


def test_who_cannot_be_priced_is_left_out_and_named(database: str, small_chunks: None) -> None:
    people(10, category_code="cpu", category_base_minor=60_000)
    (baseless,) = people(1, category_code="cpu")
    (beside,) = people(1)
    with transaction() as session:
        execute(
            session,
            "INSERT INTO activity (contributor_id, category_code, since, because, recorded_at)"
            " VALUES (:id, 'cpu', '2024-01-01', 'a declaration', :now)",
            {"id": beside, "now": NOON},
        )
    people(10, category_code="auto-entrepreneur", category_base_minor=60_000)
    result = issue("2026-Q4")
    why = "cpu needs a base: the annual principal duty."
    assert result.as_json() == {"issued": 20, "already": 0, "total": "7800.00"}
    assert result.left_out == 2
    assert result.first_left_out == (LeftOut(baseless, why), LeftOut(beside, why))
    with transaction() as session:
        execute(
            session,
            "UPDATE contributor SET category_base_minor = 60000 WHERE id = :id",
            {"id": baseless},
        )
    assert issue("2026-Q4") == IssueResult(1, 20, 39000, 1, (LeftOut(beside, why),))
    # Who is billed already lacks nothing; and another kind of period is not about these people.
    with transaction() as session:
        execute(
            session,
            "UPDATE contributor SET category_base_minor = NULL WHERE id = :id",
            {"id": baseless},
        )
    assert issue("2026-Q4").left_out == 1
    assert issue("2026-08", "fishing-boat-owner").left_out == 0


def test_people_of_a_category_that_is_gone_are_left_out(
    database: str, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    people(9)
    lost = people(2, category_code="fishing-boat-owner")
    with transaction() as session:
        order_issue(session, tariff(), NOVEMBER, category="fishing-boat-owner", now=NOON)
    result = issue_november(current=without("fishing-boat-owner"))
    assert result.issued == 9
    assert [each.contributor_id for each in result.first_left_out] == lost
    assert "no category 'fishing-boat-owner'" in result.first_left_out[0].reason
    # The order that stood open is worked off; workers name them, and spin on nothing.
    with capture_logs() as logs:
        assert work_some(without("fishing-boat-owner")) == 1
    assert [(each["event"], each["people"], each["first"]) for each in logs] == [
        ("not_billed", 2, lost)
    ]
    assert rows_of(database, "SELECT count(*) FROM issue_run WHERE finished_at IS NULL") == [(0,)]
    assert issue_november() == IssueResult(2, 9, 2 * 16352)


def test_the_command_names_twenty_and_answers_no(database: str) -> None:
    first = people(22, category_code="cpu")[0]
    people(1, category_code="cpu", category_base_minor=60_000)
    ran = CliRunner().invoke(wasl, ["invoices", "issue", "--period", "2026-Q4", "--json"])
    assert json.loads(ran.stdout) == {"issued": 1, "already": 0, "total": "390.00"}
    said = ran.stderr.splitlines()
    assert said[0] == "22 people are not billed, since what they owe cannot be told:"
    assert said[1] == f"  contributor {first}: cpu needs a base: the annual principal duty."
    assert said[21:] == ["  and 2 more"]
    assert isinstance(ran.exception, Refused)


def test_an_order_that_is_joined_looks_again_at_what_was_done(
    database: str, small_chunks: None
) -> None:
    """Else who was left out of a run that was cut short, and is mended since, would be forgotten
    without a word."""
    (mended,) = people(1, category_code="accounts-real")
    people(20)

    def strike(*_: object) -> None:
        raise Struck

    with pytest.raises(Struck):
        issue_november(strike)
    with transaction() as session:
        execute(
            session,
            "UPDATE contributor SET category_base_minor = 100 WHERE id = :id",
            {"id": mended},
        )
    assert issue_november().issued == 21 - 6
    assert rows_of(database, "SELECT count(*) FROM invoice") == [(21,)]


# -- by whom, and how often -----------------------------------------------------------------------


def test_any_number_of_workers_write_the_same_rows(database: str, small_chunks: None) -> None:
    people(20)
    people(10, category_code="accounts-real", category_base_minor=12_345_678)
    issue_november(workers=1)
    alone = rows_of(database, INVOICES)
    people(30)
    issue_november(workers=4)
    together = rows_of(database, INVOICES)
    assert together[:30] == alone
    assert [row[1:] for row in together[30:]] == [alone[0][1:]] * 30
    assert len(together) == 60


def test_spans_leave_nobody_out_and_show_progress(database: str, small_chunks: None) -> None:
    for n in range(50):
        people(1, left_on=date(2023, 1, 1) if n % 5 == 0 else None)
    seen: list[tuple[int, int]] = []
    result = issue_november(lambda done, of: seen.append((done, of)))
    assert result == IssueResult(40, 0, 40 * 16352)
    assert seen == [(7, 40), (14, 40), (21, 40), (28, 40), (35, 40), (40, 40)]


def test_commands_and_workers_at_once_issue_each_invoice_once(
    database: str, small_chunks: None
) -> None:
    people(60)
    results = at_once(*[issue_november] * 2)
    assert {result.issued + result.already for result in results} == {60}
    people(60)
    with transaction() as session:
        order_issue(session, tariff(), NOVEMBER, category=None, now=NOON)
    done = at_once(issue_november, lambda: IssueResult(work_some(), 0, 0))
    assert done[0].issued + done[0].already == 120
    assert rows_of(database, "SELECT count(*), count(DISTINCT contributor_id) FROM invoice") == [
        (120, 120)
    ]
    assert rows_of(database, "SELECT count(*) FROM issue_run WHERE finished_at IS NULL") == [(0,)]


class Struck(Exception):
    pass


@pytest.mark.parametrize("where", ["between", "inside"])
def test_an_issue_that_is_cut_short_is_continued(
    database: str, small_chunks: None, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    people(50)

    def strike(*_: object, **__: object) -> None:
        raise Struck

    with monkeypatch.context() as patched:
        if where == "inside":
            # After the invoices and lines of a span are written, before its events are.
            patched.setattr(issuing, "take_the_end_of_the_feed", strike)
        with pytest.raises(Struck):
            issue_november(strike, workers=2)
    left = rows_of(database, "SELECT count(*) FROM invoice")[0][0]
    assert left == 0 if where == "inside" else 0 < left < 50
    assert people(5)
    again = issue_november(workers=2)
    assert again == IssueResult(55 - left, left, (55 - left) * 16352)
    assert issue_november() == IssueResult(0, 55, 0)
    assert rows_of(database, "SELECT count(DISTINCT contributor_id), count(*) FROM invoice") == [
        (55, 55)
    ]


def test_workers_finish_an_order_that_nobody_waits_for(database: str, small_chunks: None) -> None:
    people(20)
    with transaction() as session:
        order_issue(session, tariff(), NOVEMBER, category="artisan-untaxed", now=NOON)
    tasks.issue_chunks()
    assert work_some() == 0
    assert rows_of(
        database, "SELECT finished_at > ordered_at, (SELECT count(*) FROM invoice) FROM issue_run"
    ) == [(True, 20)]


def test_a_span_that_somebody_else_bills_meanwhile_is_decided_anew(database: str) -> None:
    first, *_ = people(3)
    with ThreadPoolExecutor(1) as pool:
        with transaction() as session:
            owed = assess_person(session, tariff(), first, NOVEMBER)
            assert isinstance(owed, Assessed)
            told = issue_one(
                session, tariff(), NOVEMBER, first, owed, key=process.signing_key(), now=NOON
            )
            assert told is not None
            running = pool.submit(issue_november)
            waits_for_us(database)
        assert running.result(60) == IssueResult(2, 1, 2 * 16352)


def waits_for_us(database: str) -> None:
    """Return when another connection waits for a lock of a transaction that is open."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    while rows_of(database, waiting) == [(0,)]:
        pass


def test_months_and_quarters_wait_for_each_other(database: str) -> None:
    """Else who changes from one to the other at this moment would be billed by both."""
    (person,) = people(1)
    key = process.signing_key()
    with ThreadPoolExecutor(1) as pool:
        with transaction() as session:
            owed = assess_person(session, tariff(), person, NOVEMBER)
            assert isinstance(owed, Assessed)
            issue_one(session, tariff(), NOVEMBER, person, owed, key=key, now=NOON)
            with transaction() as other:
                execute(
                    other,
                    "UPDATE contributor SET category_code = 'cpu', category_base_minor = 60000",
                )
            running = pool.submit(issue, "2026-Q4")
            waits_for_us(database)
        assert running.result(60) == IssueResult(0, 1, 0)


# -- people who did several things ----------------------------------------------------------------


def billed(database: str) -> list[tuple[Any, ...]]:
    query = "SELECT contributor_id, category_code, period FROM invoice ORDER BY 1, 3"
    return rows_of(database, query)


def did(person: int, category: str, base: int | None, since: date, until: date | None) -> None:
    with transaction() as session:
        add_activity(
            session,
            person,
            tariff(),
            category=category,
            base_minor=base,
            since=since,
            until=until,
            because="a declaration",
            now=NOON,
        )


def test_one_activity_is_billed_for_a_quarter(database: str) -> None:
    """CPU prevails, whether it is what the register says or what a person did beside it."""
    artisan, cpu, plain = people(3)
    did(artisan, "cpu", 60_000, date(2024, 1, 1), None)
    with transaction() as session:
        execute(
            session,
            "UPDATE contributor SET category_code = 'cpu', category_base_minor = 60000,"
            " category_since = '2026-11-15' WHERE id = :id",
            {"id": cpu},
        )
    did(cpu, "artisan-untaxed", None, date(2022, 1, 1), date(2026, 11, 14))
    assert issue("2026-11").issued == 1
    assert issue("2026-Q4").issued == 2
    assert issue("2026-09").issued == 2
    assert billed(database) == [
        (artisan, "cpu", "2026-Q4"),
        (cpu, "artisan-untaxed", "2026-09"),
        (cpu, "cpu", "2026-Q4"),
        (plain, "artisan-untaxed", "2026-09"),
        (plain, "artisan-untaxed", "2026-11"),
    ]


def test_a_category_is_not_owed_before_it_began(database: str) -> None:
    (person,) = people(1, category_since=date(2026, 11, 15))
    assert issue("2026-10").issued == 0
    assert issue("2026-11").issued == 1
    assert billed(database) == [(person, "artisan-untaxed", "2026-11")]


def test_two_files_of_one_person_are_billed_once(database: str) -> None:
    stands, merged = people(2)
    assert issue("2026-10").issued == 2
    with transaction() as session:
        execute(
            session,
            "UPDATE contributor SET merged_into_id = :stands WHERE id = :merged",
            {"stands": stands, "merged": merged},
        )
    assert issue("2026-10").as_json() == {"issued": 0, "already": 1, "total": "0.00"}
    assert issue("2026-11").issued == 1
    assert (stands, "artisan-untaxed", "2026-11") in billed(database)


# -- credit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["bulk", "workers"])
def test_credit_is_carried_to_what_is_issued(database: str, how: str) -> None:
    (reference, other) = some_invoices(2)
    record(a_report(reference, amount_minor=16352 + 10000), a_report(other))
    if how == "bulk":
        issue("2026-12")
    else:
        with transaction() as session:
            period = parse_period("2026-12")
            order_issue(session, tariff(), period, category=None, now=NOON)
        work_some()
    assert rows_of(
        database, "SELECT paid_minor, status FROM invoice WHERE period = '2026-12' ORDER BY id"
    ) == [(10000, "part_paid"), (0, "open")]
    assert [net for code, net in balances().items() if code.startswith("credit:")] == [0]
    assert broken_promises() == []


# -- one by one -----------------------------------------------------------------------------------


def test_one_invoice_is_issued_once_and_never_over_another(database: str) -> None:
    (person,) = people(1)
    key = process.signing_key()

    def one(code: str) -> bool:
        with transaction() as session:
            owed = assess_person(session, tariff(), person, parse_period(code))
            assert isinstance(owed, Assessed)
            args = (session, tariff(), parse_period(code), person, owed)
            return issue_one(*args, key=key, now=NOON) is not None

    assert [one("2026-11"), one("2026-11")] == [True, False]
    with pytest.raises(Unusable, match="more than a year ahead"):
        one("2027-12")
    with transaction() as session:
        execute(
            session, "UPDATE contributor SET category_code = 'cpu', category_base_minor = 60000"
        )
    with pytest.raises(Unusable, match="nobody is billed twice for a day"):
        one("2026-Q4")


def test_nobody_is_reassessed_between_what_is_owed_and_its_invoice(database: str) -> None:
    """A change that is reassessed in between would find no invoice, and the one that is issued
    would stay as it was before."""
    (person,) = people(1)
    with transaction() as session:
        assess_person(session, tariff(), person, NOVEMBER)
        with transaction() as other:
            execute(other, "SET LOCAL lock_timeout = '10ms'")
            key = process.signing_key()
            with pytest.raises(OperationalError, match="lock timeout"):
                reassess(other, [person], tariff(), key=key, now=NOON, because="a return")
            other.rollback()


def test_seals_can_be_left_out_only_to_measure(database: str) -> None:
    people(1)
    with transaction() as session:
        order = order_issue(session, tariff(), NOVEMBER, category=None, now=NOON)
    Issuer(tariff(), process.signing_key(), lambda: NOON, sealed=False).run_next(order.run_id)
    assert rows_of(database, "SELECT seal FROM invoice") == [(None,)]
