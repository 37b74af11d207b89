from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import process, tasks
from gateway.billing.invoices import cancel_invoice
from gateway.billing.notes import charge_fee
from gateway.billing.reassessment import (
    Reassessed,
    merge_files,
    preview,
    reassess,
    reassess_due,
    reassess_next,
)
from gateway.db import execute, snapshot, transaction
from gateway.dues.periods import parse_period
from gateway.dues.tariff import tariff
from gateway.errors import Unusable
from gateway.people.activities import (
    add_activity,
    ask_for_reassessment,
    correct_registration,
    withdraw_activity,
)
from gateway.words.catalogs import LANGUAGES
from gateway.words.speech import speech
from gateway.worker import REASSESS, app
from tests.factories import (
    NOON,
    a_report,
    at_once,
    balances,
    broken_promises,
    issue,
    record,
)
from tests.gateway.pages.conftest import set_clock
from tests.gateway.people.test_activities import a_person, changes, in_line

WHY = "data of the tax office"


@dataclass(frozen=True)
class Due:
    """An invoice as its payer sees it now; amounts in centimes."""

    charged: int
    paid: int
    status: str


def invoices(*people: int) -> dict[str, Due]:
    """Return what stands of people's invoices, by period; of several files with the file's id."""
    with snapshot() as session:
        rows = execute(
            session,
            "SELECT contributor_id, period, amount_minor + coalesce((SELECT sum(amount_minor)"
            " FROM invoice_note WHERE invoice_id = i.id AND kind = 'adjustment'), 0)::bigint,"
            " paid_minor, status FROM invoice i WHERE contributor_id = ANY(:people)"
            " ORDER BY due_on, id",
            {"people": list(people)},
        ).all()
    many = len(people) > 1
    return {
        f"{who} {period}" if many else period: Due(charged, paid, status)
        for who, period, charged, paid, status in rows
    }


def reference(person: int, period: str) -> str:
    with snapshot() as session:
        found: str = execute(
            session,
            "SELECT reference FROM invoice WHERE (contributor_id, period) = (:person, :period)",
            {"person": person, "period": period},
        ).scalar_one()
        return found


def pay(person: int, period: str, amount_minor: int = 16352, **values: Any) -> None:
    """Pay in time, unless said otherwise."""
    last = parse_period(period).ends_on
    in_time = min(NOON, datetime(last.year, last.month, last.day, 9, tzinfo=UTC))
    given = {"amount_minor": amount_minor, "paid_at": in_time, **values}
    record(a_report(reference(person, period), **given))


def bring(*people: int, now: datetime = NOON) -> list[Reassessed]:
    """Re-assess people, committed."""
    with transaction() as session:
        return reassess(session, people, tariff(), key=process.signing_key(), now=now, because=WHY)


def notes() -> list[tuple[str, int, str | None]]:
    with snapshot() as session:
        rows = execute(
            session,
            "SELECT period, n.amount_minor, n.due_on::text FROM invoice_note n"
            " JOIN invoice i ON i.id = invoice_id ORDER BY n.id",
        )
        return [tuple(row) for row in rows]


def credit(person: int) -> int:
    return -balances().get(f"credit:{person}", 0)


def does_beside(person: int, category: str, since: str, base: int | None = None) -> int:
    with transaction() as session:
        return add_activity(
            session,
            person,
            tariff(),
            category=category,
            base_minor=base,
            since=date.fromisoformat(since),
            until=None,
            because=WHY,
            now=NOON,
        )


def leaves(person: int, day: str | None) -> None:
    with transaction() as session:
        last = date.fromisoformat(day) if day else None
        correct_registration(
            session, person, left_on=last, stays=last is None, because=WHY, now=NOON
        )


def someone_is_billed(
    *periods: str, category: str = "artisan-untaxed", base: int | None = None
) -> int:
    """Bill another person for these periods, as the bulk issue does."""
    other = a_person(category_code=category, category_base_minor=base)
    for period in periods:
        issue(period)
    return other


def test_a_bracket_known_at_year_end_regularises_the_quarters(database: str) -> None:
    person = a_person(category_code="auto-entrepreneur", category_base_minor=0)
    for quarter in (1, 2, 3, 4):
        issue(f"2026-Q{quarter}")
    pay(person, "2026-Q1", 30000, paid_at=datetime(2026, 3, 30, tzinfo=UTC))
    changes(person, "auto-entrepreneur", "2026-01-01", 60000)
    assert bring(person)[0].adjusted[0].line.rule.startswith("auto-entrepreneur: fixed amount")
    assert notes() == [(f"2026-Q{q}", 9000, "2026-12-31") for q in (1, 2, 3, 4)]
    assert sum(due.charged for due in invoices(person).values()) == 156000
    assert invoices(person)["2026-Q1"] == Due(39000, 30000, "part_paid")
    assert bring(person) == []
    assert len(notes()) == 4
    assert broken_promises() == []


def test_an_income_return_corrects_what_was_billed_without_one(database: str) -> None:
    person = a_person(category_code="accounts-no-return")
    for month in ("2026-10", "2026-11"):
        issue(month)
    pay(person, "2026-10", 130816)
    changes(person, "accounts-real", "2026-10-01", 4_000_000)
    bring(person)
    # 2 × SMIG in place of 6 ×: what was paid too much pays November, and the rest waits.
    assert notes() == [("2026-10", 43605 - 130816, None), ("2026-11", 43605 - 130816, None)]
    assert invoices(person) == {
        "2026-10": Due(43605, 43605, "paid"),
        "2026-11": Due(43605, 43605, "paid"),
    }
    assert credit(person) == 130816 - 2 * 43605
    assert broken_promises() == []


def test_the_cpu_prevails_and_the_months_pay_its_quarter(database: str) -> None:
    someone_is_billed("2026-Q4", category="cpu", base=0)
    person = a_person()
    for month in ("2026-10", "2026-11"):
        issue(month)
        pay(person, month)
    beside = does_beside(person, "cpu", "2026-10-01", 0)
    (done,) = bring(person)
    assert {note.line.rule for note in done.adjusted} == {"cpu prevails over artisan-untaxed"}
    said = {speech(each).rule(done.adjusted[0].line.facts, "") for each in LANGUAGES}
    assert len(said - {""}) == len(LANGUAGES)
    assert invoices(person) == {
        "2026-10": Due(0, 0, "cleared"),
        "2026-11": Due(0, 0, "cleared"),
        "2026-Q4": Due(30000, 30000, "paid"),
    }
    assert credit(person) == 2 * 16352 - 30000
    # December is not billed to who owes the quarter.
    assert "2026-12" not in invoices(person)
    issue("2026-12")
    assert "2026-12" not in invoices(person)
    with transaction() as session:
        withdraw_activity(session, person, beside, because=WHY, now=NOON)
    bring(person)
    assert invoices(person) == {
        "2026-10": Due(16352, 16352, "paid"),
        "2026-11": Due(16352, 16352, "paid"),
        "2026-Q4": Due(0, 0, "cleared"),
        "2026-12": Due(16352, 0, "open"),
    }
    assert credit(person) == 0
    assert broken_promises() == []


def test_a_quarter_that_was_credited_keeps_no_month_from_being_issued(database: str) -> None:
    person = someone_is_billed("2026-Q4", category="auto-entrepreneur", base=0)
    changes(person, "artisan-untaxed", "2026-10-01")
    bring(person)
    issue("2026-12")
    assert invoices(person) == {
        "2026-12": Due(16352, 0, "open"),
        "2026-Q4": Due(0, 0, "cleared"),
    }
    assert bring(person) == []


def test_of_two_categories_the_one_that_owes_most_is_billed(database: str) -> None:
    person = someone_is_billed("2026-10")
    does_beside(person, "accounts-simplified", "2026-10-05")
    bring(person)
    assert invoices(person) == {"2026-10": Due(21803, 0, "open")}


@pytest.mark.parametrize("paid", [True, False], ids=["paid", "unpaid"])
def test_who_died_or_left_owes_nothing_after(database: str, paid: bool) -> None:
    person = someone_is_billed("2026-09", "2026-10", "2026-11")
    if paid:
        for month in ("2026-09", "2026-10", "2026-11"):
            pay(person, month)
    leaves(person, "2026-09-30")
    (done,) = bring(person)
    assert [note.line.facts["form"] for note in done.adjusted] == ["left", "left"]
    stands = invoices(person)
    assert stands["2026-10"] == stands["2026-11"] == Due(0, 0, "cleared")
    assert stands["2026-09"] == Due(16352, 16352 * paid, "paid" if paid else "open")
    assert credit(person) == 2 * 16352 * paid
    leaves(person, None)
    bring(person)
    assert set(invoices(person).values()) == {Due(16352, 16352 * paid, "paid" if paid else "open")}
    assert broken_promises() == []


def test_a_registration_found_to_be_earlier_is_billed_as_others_were(database: str) -> None:
    someone_is_billed("2026-08", "2026-09", "2026-10")
    person = a_person(registered_on=date(2026, 11, 2))
    with transaction() as session:
        correct_registration(
            session, person, registered_on=date(2026, 7, 15), because=WHY, now=NOON
        )
    (done,) = bring(person)
    # Nobody was billed for July; November's own issue will come.
    assert [(each.period.code, each.due_on) for each in done.missing] == [
        (month, date(2026, 12, 31)) for month in ("2026-08", "2026-09", "2026-10")
    ]
    assert set(invoices(person)) == {"2026-08", "2026-09", "2026-10"}
    issue("2026-08")
    assert bring(person) == []
    assert broken_promises() == []


def test_what_a_person_cancelled_stays_so(database: str) -> None:
    person = someone_is_billed("2026-10", "2026-11")
    with transaction() as session:
        cancel_invoice(session, reference(person, "2026-10"), because=WHY, now=NOON)
    changes(person, "accounts-simplified", "2026-10-01")
    bring(person)
    assert notes() == [("2026-11", 21803 - 16352, "2026-12-31")]
    assert broken_promises() == []


def test_two_files_of_one_person_owe_once_and_keep_the_money(database: str) -> None:
    keep, other = a_person(), a_person()
    for month in ("2026-10", "2026-11"):
        issue(month)
    pay(other, "2026-10")
    pay(keep, "2026-11")
    pay(other, "2026-11", 32704)
    with transaction() as session:
        (done,) = merge_files(
            session, keep, other, tariff(), because=WHY, key=process.signing_key(), now=NOON
        )
    assert {note.line.facts["form"] for note in done.adjusted} == {"other-file"}
    stands = invoices(keep, other)
    # Of October the one that is paid stands; of November, both paid, the older.
    assert stands[f"{other} 2026-10"] == stands[f"{keep} 2026-11"] == Due(16352, 16352, "paid")
    assert stands[f"{keep} 2026-10"] == stands[f"{other} 2026-11"] == Due(0, 0, "cleared")
    assert (credit(keep), credit(other)) == (16352, 16352)
    # The credit of either file pays what comes next.
    issue("2026-12")
    issue("2027-01")
    stands = invoices(keep, other)
    paid = Due(16352, 16352, "paid")
    assert stands[f"{keep} 2026-12"] == stands[f"{keep} 2027-01"] == paid
    assert f"{other} 2026-12" not in stands
    assert bring(other) == []
    assert broken_promises() == []
    for first, second, said in (
        (keep, keep, "itself"),
        (other, keep, "already"),
        (keep, other, "already"),
        (keep, 999, "no contributor 999"),
    ):
        with pytest.raises(Unusable, match=said), transaction() as session:
            merge_files(
                session, first, second, tariff(), because=WHY, key=process.signing_key(), now=NOON
            )


def test_files_are_not_merged_while_the_person_cannot_be_assessed(database: str) -> None:
    keep, other = a_person(), a_person()
    issue("2026-10")
    changes(other, "accounts-simplified", "2026-10-01")
    with transaction() as session:
        query = "UPDATE contributor SET category_code = 'cpu' WHERE id = :id"
        execute(session, query, {"id": keep})
    with pytest.raises(Unusable, match="base"), transaction() as session:
        merge_files(
            session, keep, other, tariff(), because=WHY, key=process.signing_key(), now=NOON
        )
    assert in_line() == [other]


def test_a_person_in_line_is_reassessed_once_however_many_do_it(database: str) -> None:
    people = [someone_is_billed("2026-10"), a_person()]
    for person in people:
        changes(person, "accounts-simplified", "2026-10-01")

    def one() -> int:
        with transaction() as session:
            return reassess_next(session, tariff(), key=process.signing_key(), now=NOON)[0]

    assert sum(at_once(one, one, one)) == 2
    assert in_line() == []
    assert notes() == [("2026-10", 21803 - 16352, "2026-12-31")]


def test_the_worker_and_the_command_reassess_who_is_in_line(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch, NOON)
    person = someone_is_billed("2026-10")
    changes(person, "accounts-simplified", "2026-10-01")
    tasks.reassess()
    assert invoices(person)["2026-10"].charged == 21803
    changes(person, "artisan-untaxed", "2026-10-01")
    list(reassess_due(tariff(), key=process.signing_key(), clock=lambda: NOON))
    assert invoices(person)["2026-10"].charged == 16352
    assert in_line() == []
    assert REASSESS in {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert broken_promises() == []


def test_a_preview_says_what_would_be_done_and_does_nothing(database: str) -> None:
    person = someone_is_billed("2026-10")
    changes(person, "accounts-simplified", "2026-10-01")
    with snapshot() as session:
        said = list(preview(session, [person], tariff(), now=NOON))
    assert notes() == []
    assert said == bring(person)
    assert said[0].as_json()["notes"][0]["amount"] == "54.51"


def test_who_is_in_line_for_two_reasons_is_told_both(database: str) -> None:
    person = someone_is_billed("2026-10")
    for because in ("income return", "letter of 3 May", "income return"):
        with transaction() as session:
            ask_for_reassessment(session, [person], because)
    changes(person, "accounts-simplified", "2026-10-01")
    assert list(reassess_due(tariff(), key=process.signing_key(), clock=lambda: NOON))
    with snapshot() as session:
        said = execute(session, "SELECT because FROM invoice_note").scalar_one()
    assert said == "income return; letter of 3 May; income return of 2025"


def test_a_fee_is_charged_and_told(database: str) -> None:
    person = someone_is_billed("2026-10")
    named = reference(person, "2026-10")

    def charge(amount_minor: int = 5000, source: str = "order 12", number: str = named) -> None:
        with transaction() as session:
            charge_fee(
                session,
                number,
                amount_minor,
                tariff(),
                source=source,
                because=WHY,
                key=process.signing_key(),
                now=NOON,
            )

    charge()
    pay(person, "2026-10", 16352 + 5000, paid_at=NOON)
    with snapshot() as session:
        owed = execute(session, "SELECT owed_minor, paid_minor, status FROM invoice").one()
        told = execute(session, "SELECT data FROM event WHERE type = 'invoice.adjusted'").scalars()
        assert list(told) == [{"reference": named, "amount": "50.00", "kind": "fee"}]
    # Due in October, paid on 18 November: the penalty of November, then the fee.
    assert tuple(owed) == (16352 + 164 + 5000, 16352 + 5000, "part_paid")
    with pytest.raises(Unusable, match="cannot be charged"):
        charge(0)
    with pytest.raises(Unusable, match="which document"):
        charge(source=" ")
    with pytest.raises(Unusable, match="No invoice"):
        charge(number="148275036141")
    # Taken back, its money is the payer's and pays what is due: the penalty; and so is the next.
    charge(-2500)
    assert credit(person) == 2500 - 164
    with pytest.raises(Unusable, match="more than what is charged"):
        charge(-2501)
    charge(2000)
    assert credit(person) == 2500 - 164 - 2000
    assert broken_promises() == []


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("is"),
            st.sampled_from(
                [
                    ("cpu", 0),
                    ("auto-entrepreneur", 60000),
                    ("accounts-simplified", None),
                    ("notary", None),
                ]
            ),
            st.dates(date(2026, 4, 1), date(2026, 12, 31)),
        ),
        st.tuples(st.just("leaves"), st.none(), st.dates(date(2026, 5, 1), date(2026, 12, 1))),
        st.tuples(st.just("pays"), st.integers(0, 5), st.just(date(2026, 10, 20))),
    ),
    min_size=1,
    max_size=4,
)


PERIODS = ("2026-08", "2026-09", "2026-10", "2026-11", "2026-Q3", "2026-Q4")


def held() -> int:
    """Return what stands on all accounts that money lies on."""
    return sum(-minor for code, minor in balances().items() if not code.startswith("clearing"))


@given(st.sets(st.sampled_from(PERIODS[:4])), STEPS)
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_there_and_back_is_neutral_and_no_money_is_lost(
    database: str, paid_before: set[str], steps: list[tuple[str, Any, date]]
) -> None:
    start, person = held(), a_person()
    for period in PERIODS:
        issue(period)
    for period in sorted(paid_before):
        pay(person, period, 10000)
    before, paid = invoices(person), 10000 * len(paid_before)
    for what, value, day in steps:
        if what == "is":
            changes(person, value[0], str(day), value[1])
        elif what == "leaves":
            leaves(person, str(day))
        else:
            period = sorted(invoices(person))[value % len(invoices(person))]
            pay(person, period, 10000)
            paid += 10000
        bring(person)
        assert bring(person) == []
        assert held() - start == paid
    leaves(person, None)
    changes(person, "artisan-untaxed", "2022-01-01")
    bring(person)
    after = invoices(person)
    for period, due in after.items():
        assert due.charged == (before[period].charged if period in before else 0)
    if all(what != "pays" for what, _, _ in steps):
        assert {period: after[period] for period in before} == before
    assert sum(due.paid for due in after.values()) + credit(person) == paid
    assert broken_promises() == []
