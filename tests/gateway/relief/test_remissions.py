"""Remission campaigns on real books: granted by what was booked, kept, broken, and back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime

import pytest

from gateway import process
from gateway.billing.bills import read_bills, read_claims
from gateway.billing.notes import NewNote, write_notes
from gateway.collection.placing import carry_credit, hold_people, settle_invoices
from gateway.collection.reports import Statement
from gateway.db import execute, snapshot, transaction
from gateway.dues.balances import balance
from gateway.dues.principal import DueLine
from gateway.dues.tariff import tariff
from gateway.errors import Unusable
from gateway.events import tell
from gateway.models import LineKind
from gateway.people.activities import lock_people
from gateway.relief.reliefs import Reviewed
from gateway.relief.remissions import Granted, grant_remissions, remissions_of, review_remissions
from tests.factories import (
    a_contributor,
    a_report,
    at_once,
    balances,
    broken_promises,
    issue,
    record,
)

# 0.75 × 15.55 × 191 h × 6.37 %, and from September 2023 on 0.75 × 16.29, and 17.10 in 2025.
IN_2022, IN_2024, IN_2025 = 14_189, 14_865, 15_604


def at(day: str) -> datetime:
    """Return noon of a day."""
    return datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=UTC)


def owing(*periods: str) -> tuple[int, dict[str, str]]:
    """Bill a new person for periods; return who it is, and the references by period."""
    with transaction() as session:
        person = a_contributor(session, registered_on=date(2022, 1, 1)).id
    assert person is not None
    for period in periods:
        issue(period)
    with snapshot() as session:
        rows = execute(
            session,
            "SELECT period, reference FROM invoice WHERE contributor_id = :id",
            {"id": person},
        )
        return person, dict(map(tuple, rows))


def pay(reference: str, minor: int, day: str, *, heard: str = "", payment_id: str = "") -> None:
    more = {"provider_payment_id": payment_id} if payment_id else {}
    paid_at, heard_at = at(day), at(heard or day)
    record(
        a_report(
            reference,
            amount_minor=minor,
            paid_at=paid_at,
            paid_at_given=paid_at.isoformat(),
            stated_at=paid_at,
            received_at=heard_at,
            **more,
        ),
        now=heard_at,
    )


def take_back(payment_id: str, reference: str, minor: int, paid: str, day: str) -> None:
    record(
        a_report(
            reference,
            provider_payment_id=payment_id,
            amount_minor=minor,
            statement=Statement.REVERSED,
            paid_at=at(paid),
            paid_at_given=at(paid).isoformat(),
            stated_at=at(day),
            received_at=at(day),
        ),
        now=at(day),
    )


def grant(code: str, day: str, person: int | None = None) -> Granted:
    with transaction() as session:
        return grant_remissions(
            session, code, key=process.signing_key(), now=at(day), contributor_id=person
        )


def review(day: str) -> Reviewed:
    with transaction() as session:
        return review_remissions(session, key=process.signing_key(), now=at(day))


def due(references: Iterable[str], day: str, *, relieved: bool = True) -> dict[str, int]:
    """Return what is due on a day of invoices by period; or would be, had nothing been granted."""
    found = {}
    with snapshot() as session:
        rows = execute(
            session,
            "SELECT id, period, category_code FROM invoice WHERE reference = ANY(:references)",
            {"references": list(references)},
        ).all()
        ids = [row.id for row in rows]
        bills, claims = read_bills(session, ids), read_claims(session, ids)
    for row in rows:
        bill = bills[row.id]
        if not relieved:
            bill = type(bill)(bill.amount_minor, bill.due_on, bill.notes)
        rates = tariff().penalty_rates(row.category_code)
        of_day = balance(bill, claims.get(row.id, []), rates, date.fromisoformat(day))
        found[row.period] = of_day.due_minor
    return found


def statuses(references: Iterable[str]) -> set[str]:
    with snapshot() as session:
        rows = execute(
            session,
            "SELECT status FROM invoice WHERE reference = ANY(:references)",
            {"references": list(references)},
        )
        return set(rows.scalars())


def told(prefix: str) -> list[tuple[str, str | None]]:
    """Return the events of a kind, each with how it ended."""
    with snapshot() as session:
        rows = execute(
            session,
            "SELECT type, data->>'outcome' FROM event WHERE type LIKE :like ORDER BY id",
            {"like": f"{prefix}%"},
        )
        return [tuple(row) for row in rows]


DECISION, LOI = "decision-03-2023", "loi-41-23"
AUTUMN = ["2022-10", "2022-11", "2022-12"]


def test_the_principal_in_full_and_what_was_paid_beyond_pays_what_is_owed_now(
    database: str,
) -> None:
    person, named = owing(*AUTUMN, "2023-02")
    # Five, four and three months have begun: 7.09, 5.68 and 4.26. October is paid with its penalty.
    pay(named["2022-10"], IN_2022 + 709, "2023-03-10")
    pay(named["2022-11"], IN_2022, "2023-03-10")
    assert grant(DECISION, "2023-03-10") == Granted(None, 0, 0, 0)
    pay(named["2022-12"], IN_2022, "2023-03-10")
    before = due(named.values(), "2023-03-10")
    assert before == {"2022-10": 0, "2022-11": 568, "2022-12": 426, "2023-02": IN_2022 + 142}
    # It counts from the day the condition was met, whenever it is granted.
    assert grant(DECISION, "2023-08-01") == Granted(None, 1, 1, 709 + 568 + 426)
    assert due([named[period] for period in AUTUMN], "2023-08-01") == dict.fromkeys(AUTUMN, 0)
    with snapshot() as session:
        [remission] = remissions_of(session, person, on=date(2023, 8, 1))
        assert remission.remitted_minor == 709 + 568 + 426
        assert "100 % of penalty" in remission.offer
        policies = execute(
            session,
            "SELECT component, a.amount_minor FROM allocation a"
            " JOIN invoice i ON i.id = a.invoice_id WHERE i.reference = :reference",
            {"reference": named["2023-02"]},
        )
        assert [tuple(row) for row in policies] == [("principal", 709)]
    assert (remission.granted_on, remission.standing) == (date(2023, 3, 10), "kept")
    assert remission.since == date(2023, 3, 10)
    assert grant(DECISION, "2023-08-02") == Granted(None, 0, 0, 0)
    assert review("2023-08-02").broken == 0
    assert balances()["payable:institution"] == -(3 * IN_2022 + 709)
    assert told("remission") == [("remission.granted", None), ("remission.ended", "kept")]
    assert broken_promises() == []


def test_a_payment_taken_back_brings_the_penalty_back(database: str) -> None:
    _, named = owing(*AUTUMN)
    for period in AUTUMN:
        pay(named[period], IN_2022, "2023-03-10", payment_id=f"P {period}")
    assert grant(DECISION, "2023-03-11").granted == 1
    assert statuses(named.values()) == {"paid"}
    take_back("P 2022-11", named["2022-11"], IN_2022, "2023-03-10", "2024-05-01")
    assert review("2024-05-02") == Reviewed(None, 1, 0, 1, 0)
    assert review("2024-05-03").broken == 0
    assert due(named.values(), "2024-05-02") == due(named.values(), "2024-05-02", relieved=False)
    assert due(named.values(), "2024-05-02") == {
        "2022-10": 709,
        "2022-11": IN_2022 + 2_554,  # eighteen months: 18 % of 141.89
        "2022-12": 426,
    }
    assert told("remission")[-1] == ("remission.ended", "broken")
    assert broken_promises() == []


LAST_OLD = ["2023-08", "2023-09", "2023-10", "2023-11"]
YEAR = [f"2024-{month:02d}" for month in range(1, 13)]


def beginning(*more: str) -> tuple[int, dict[str, str]]:
    """Return a person with four old unpaid months who first paid on 10 February 2024."""
    person, named = owing(*LAST_OLD, "2023-12", *more)
    pay(named["2023-12"], IN_2024, "2024-02-10")
    return person, named


def test_twelve_months_of_regular_payment_cancel_the_old_debts(database: str) -> None:
    person, named = beginning(*YEAR[1:], "2025-01", "2025-02")
    old = [named[period] for period in LAST_OLD]
    assert sum(due(old, "2024-02-10").values()) > 4 * IN_2022
    # August 2023 at 15.55, the others at 16.29; six, five, four and three months have begun.
    remitted = IN_2022 + 3 * IN_2024 + 851 + 743 + 595 + 446
    granted = grant(LOI, "2024-02-11", person)
    assert (granted.granted, granted.remitted_minor) == (1, remitted)
    assert statuses(old) == {"cleared"}
    for period in YEAR[1:]:
        pay(named[period], IN_2024, f"{period}-20")
    pay(named["2025-01"], IN_2025, "2025-01-20")
    assert review("2025-02-20") == Reviewed(None, 1, 0, 0, 0)
    pay(named["2025-02"], IN_2025, "2025-02-20")
    assert review("2026-01-01") == Reviewed(None, 1, 1, 0, 0)
    with snapshot() as session:
        [remission] = remissions_of(session, person)
    assert (remission.granted_on, remission.since) == (date(2024, 2, 10), date(2025, 3, 1))
    assert due(old, "2030-01-01") == dict.fromkeys(LAST_OLD, 0)
    assert broken_promises() == []


def test_a_missed_month_brings_everything_back_and_late_news_of_a_payment_mends_it(
    database: str,
) -> None:
    person, named = beginning("2024-02", "2024-03", "2024-04")
    old = [named[period] for period in LAST_OLD]
    pay(named["2024-02"], IN_2024, "2024-02-20")
    # What is paid on a debt that is cancelled goes on to what is owed now.
    pay(named["2023-10"], 5_000, "2024-02-12")
    assert grant(LOI, "2024-02-13").granted == 1
    assert statuses(old) == {"cleared"}
    in_march = IN_2024 - 5_000
    assert due([named["2024-03"]], "2024-03-20") == {"2024-03": in_march}
    pay(named["2024-04"], IN_2024, "2024-04-20")
    assert review("2024-04-30") == Reviewed(None, 1, 0, 0, 0)
    assert review("2024-06-15") == Reviewed(None, 1, 0, 1, 0)
    with snapshot() as session:
        [remission] = remissions_of(session, person)
    assert (remission.standing, remission.since, remission.because) == (
        "broken",
        date(2024, 5, 1),
        "current-due-unpaid",
    )
    assert due(old, "2024-06-15") == due(old, "2024-06-15", relieved=False)
    assert grant(LOI, "2024-06-15") == Granted(None, 1, 0, 0)
    assert broken_promises() == []
    # March was paid on 30 April, in time; we hear of it only now.
    pay(named["2024-03"], in_march, "2024-04-30", heard="2024-06-20")
    assert review("2024-06-20") == Reviewed(None, 1, 0, 0, 1)
    assert statuses(old) == {"cleared"}
    assert told("remission") == [
        ("remission.granted", None),
        ("remission.ended", "broken"),
        ("remission.granted", None),
    ]
    assert broken_promises() == []


def test_what_cannot_be_granted_is_said(database: str) -> None:
    with pytest.raises(Unusable, match="for employers"):
        grant("decision-005-2023", "2024-01-01")
    with pytest.raises(Unusable, match="There is no campaign 'nothing'"):
        grant("nothing", "2024-01-01")
    with pytest.raises(Unusable, match="no contributor 99"):
        grant(LOI, "2024-01-01", 99)


def test_granting_goes_on_in_steps(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.relief.remissions.BATCH", 2)
    people = [owing()[0] for _ in range(3)]
    _, _ = owing(*AUTUMN)
    with snapshot() as session:
        rows = execute(
            session,
            "SELECT reference FROM invoice WHERE contributor_id = ANY(:people)",
            {"people": people},
        )
        references = list(rows.scalars())
    for reference in references:
        pay(reference, IN_2022, "2023-03-10")
    steps, after = [], 0
    while True:
        with transaction() as session:
            step = grant_remissions(
                session, DECISION, key=process.signing_key(), now=at("2023-04-01"), after=after
            )
        steps.append((step.looked_at, step.granted))
        if step.next_after is None:
            break
        after = step.next_after
    assert steps == [(2, 2), (1, 1)]
    assert after == people[1]


def test_of_two_at_once_one_grants(database: str) -> None:
    person, named = owing(*AUTUMN)
    for period in AUTUMN:
        pay(named[period], IN_2022, "2023-03-10")
    done = at_once(*[lambda: grant(DECISION, "2023-03-11").granted] * 2)
    assert sorted(done) == [0, 1]
    with snapshot() as session:
        assert len(remissions_of(session, person)) == 1
    assert broken_promises() == []


def credit(person: int, reference: str, minor: int, day: str) -> None:
    """Credit a part of an invoice, as a re-assessment does."""
    line = DueLine(LineKind.ADJUSTMENT, -minor, "less income", "tax office", verified=True)
    with transaction() as session:
        lock_people(session, [person])
        hold_people(session, [person])
        query = "SELECT id FROM invoice WHERE reference = :reference"
        invoice = execute(session, query, {"reference": reference}).scalar_one()
        told = write_notes(session, [NewNote(invoice, line, "income return")], now=at(day))
        settle_invoices(session, [invoice], key=process.signing_key(), now=at(day))
        carry_credit(session, [person], key=process.signing_key(), now=at(day))
        tell(session, told, now=at(day))


def test_what_is_credited_later_was_paid_in_time_all_the_same(database: str) -> None:
    person, named = beginning("2024-02", "2024-03", "2024-04")
    assert grant(LOI, "2024-02-11").granted == 1
    for month in YEAR[1:4]:
        pay(named[month], IN_2024, f"{month}-20")
    credit(person, named["2024-03"], 5_000, "2024-06-03")
    assert review("2024-06-03") == Reviewed(None, 1, 0, 0, 0)

    other, theirs = owing(*AUTUMN)
    for period in AUTUMN:
        pay(theirs[period], IN_2022, "2023-03-10")
    assert grant(DECISION, "2023-03-11", other).granted == 1
    credit(other, theirs["2022-11"], 5_000, "2023-04-03")
    assert review("2023-04-04").broken == 0
    assert statuses(theirs.values()) == {"paid"}
    assert broken_promises() == []
