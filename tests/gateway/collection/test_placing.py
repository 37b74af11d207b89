"""What pays what, on a real database: late arrivals, notes, reliefs, breaches, carried credit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import Session

from gateway import process
from gateway.clock import day_of
from gateway.collection.payments import record_reports
from gateway.collection.placing import carry_credit, hold_people, settle_invoices
from gateway.collection.reports import Statement
from gateway.db import execute, transaction
from gateway.models import ReturnKind
from gateway.receipts import issue_all
from tests.factories import (
    NOON,
    a_report,
    a_return,
    as_owner,
    at_once,
    balances,
    broken_promises,
    record,
    rows_of,
    seal,
    some_invoices,
    tell_of_note,
    the_books,
)

DUE: Final = 16352
PENALTY: Final = 164
"""One month of it, half up."""
PERIODS: Final = ("2026-09", "2026-10", "2026-11")
SEPTEMBER, OCTOBER, NOVEMBER = range(3)
IN_TIME: Final = datetime(2026, 9, 28, 9, tzinfo=UTC)
LATE: Final = datetime(2026, 10, 5, 9, tzinfo=UTC)
TODAY: Final = day_of(NOON)
_numbers = count(1)


class Person:
    """One who owes for September to November 2026, with ids and references in that order."""

    def __init__(self, database: str) -> None:
        self.database = database
        first = some_invoices(1, PERIODS[0])[0]
        for period in PERIODS[1:]:
            some_invoices(1, period)
        ((self.id,),) = rows_of(
            database, "SELECT contributor_id FROM invoice WHERE reference = %s", (first,)
        )
        rows = rows_of(
            database,
            "SELECT id, reference FROM invoice WHERE contributor_id = %s ORDER BY due_on",
            (self.id,),
        )
        self.invoices: list[int] = [at for at, _ in rows]
        self.references: list[str] = [reference for _, reference in rows]

    def sums(self) -> list[tuple[int, int, str]]:
        """What is paid and owed of each invoice, and its status."""
        return rows_of(
            self.database,
            "SELECT paid_minor, owed_minor, status FROM invoice WHERE id = ANY(%s) ORDER BY due_on",
            (self.invoices,),
        )

    def credit_minor(self) -> int:
        return -balances().get(f"credit:{self.id}", 0)


@pytest.fixture
def person(database: str) -> Person:
    return Person(database)


def settle(*invoice_ids: int, now: datetime = NOON) -> None:
    with transaction() as session:
        settle_invoices(session, invoice_ids, key=process.signing_key(), now=now)


def carry(*contributor_ids: int, first: Sequence[int] = (), now: datetime = NOON) -> None:
    with transaction() as session:
        carry_credit(session, contributor_ids, key=process.signing_key(), now=now, first=first)


def _rule(session: Session) -> int:
    values = {"rule": f"test {next(_numbers)}"}
    query = "INSERT INTO rule (rule, source, verified) VALUES (:rule, 'test', false) RETURNING id"
    found: int = execute(session, query, values).scalar_one()
    return found


def note(invoice_id: int, minor: int, *, kind: str = "adjustment", on: date = TODAY) -> None:
    """Write a note and settle, as whoever re-assesses does."""
    with transaction() as session:
        execute(
            session,
            "INSERT INTO invoice_note (invoice_id, kind, amount_minor, due_on, noted_on, rule_id,"
            " because, noted_at) VALUES (:at, :kind, :minor, :due, :on, :rule, 'test', :now)",
            {
                "at": invoice_id,
                "kind": kind,
                "minor": minor,
                "due": on if minor > 0 else None,
                "on": on,
                "rule": _rule(session),
                "now": NOON,
            },
        )
        settle_invoices(session, [invoice_id], key=process.signing_key(), now=NOON)
        tell_of_note(session, invoice_id, minor, kind)


def remit(person: Person, invoice_id: int, *, principal: str = "0", on: date) -> None:
    """Remit all penalties, and a share of the principal."""
    with transaction() as session:
        ids = {"person": person.id, "at": invoice_id, "on": on, "now": NOON}
        remission = execute(
            session,
            "INSERT INTO remission (contributor_id, campaign, granted_on, granted_at)"
            " VALUES (:person, :named, :on, :now) RETURNING id",
            {**ids, "named": f"c{next(_numbers)}"},
        ).scalar_one()
        execute(
            session,
            "INSERT INTO invoice_relief (invoice_id, remission_id, granted_on, principal_rate,"
            " penalty_rate, fee_rate, stops_penalty, rule_id, granted_at)"
            " VALUES (:at, :remission, :on, :principal, 1, 0, true, :rule, :now)",
            {**ids, "remission": remission, "principal": principal, "rule": _rule(session)},
        )
        settle_invoices(session, [invoice_id], key=process.signing_key(), now=NOON)


def breach(invoice_id: int) -> None:
    with transaction() as session:
        execute(
            session,
            "WITH ended AS (UPDATE invoice_relief SET ended_on = :on"
            " WHERE invoice_id = :at AND ended_on IS NULL RETURNING remission_id)"
            " UPDATE remission SET broken_on = :on, broken_because = 'test' FROM ended"
            " WHERE remission.id = remission_id",
            {"at": invoice_id, "on": TODAY},
        )
        settle_invoices(session, [invoice_id], key=process.signing_key(), now=NOON)


def seal_and_check() -> None:
    seal()
    assert broken_promises() == []


# -- days decide, not arrival ---------------------------------------------------------------------


def test_who_paid_in_time_comes_first_though_we_hear_of_it_late(
    database: str, person: Person
) -> None:
    """B paid late, and penalties with it; then A's word comes, who had paid before it was due."""
    reference = person.references[SEPTEMBER]
    record(a_report(reference, paid_at=LATE, amount_minor=DUE + PENALTY, provider_payment_id="B"))
    assert person.sums()[0] == (DUE + PENALTY, DUE + PENALTY, "paid")
    parts = "SELECT component, amount_minor, policy FROM allocation ORDER BY id"
    assert rows_of(database, parts) == [
        ("principal", DUE, "quoted-invoice-v1"),
        ("penalty", PENALTY, "quoted-invoice-v1"),
    ]
    record(a_report(reference, paid_at=IN_TIME, provider="kiosk", provider_payment_id="A"))
    assert person.sums()[0] == (DUE, DUE, "paid")
    assert person.credit_minor() == DUE + PENALTY
    assert the_books().exceptions == [("paid_twice", "payment:cashplus/B")]
    assert [name for name, *_ in the_books().transfers] == [
        "cashplus/B/invoice",
        f"cashplus/B/moved/{person.invoices[SEPTEMBER]}/1",
        "kiosk/A/invoice",
    ]
    told = rows_of(database, "SELECT data FROM event WHERE type = 'payment.moved'")
    assert [(d["paid_before"], d["pays"]) for (d,) in told] == [("165.16", "0.00")]
    seal_and_check()


def test_what_comes_back_takes_the_place_of_what_was_taken_back(
    database: str, person: Person
) -> None:
    """And the penalty grows back by itself."""
    reference = person.references[SEPTEMBER]
    in_time = a_report(reference, paid_at=IN_TIME, provider_payment_id="A")
    record(in_time, a_report(reference, paid_at=LATE, amount_minor=20_000))
    assert person.sums()[0] == (DUE, DUE, "paid")
    gone = a_report(
        reference,
        provider_payment_id="A",
        statement=Statement.REVERSED,
        stated_at=NOON + timedelta(minutes=1),
    )
    record(gone)
    assert person.sums()[0] == (DUE + PENALTY, DUE + PENALTY, "paid")
    assert person.credit_minor() == 20_000 - DUE - PENALTY
    seal_and_check()


def test_two_providers_at_once_on_one_invoice_lose_nothing(database: str, person: Person) -> None:
    reference = person.references[SEPTEMBER]
    reports = [
        a_report(
            reference,
            provider=f"provider-{n}",
            amount_minor=3_000 + n,
            paid_at=IN_TIME + timedelta(days=3 * ((5 * n) % 8)),
        )
        for n in range(8)
    ]
    at_once(*(partial(record, each) for each in reports))
    brought = sum(each.amount_minor for each in reports)
    paid, owed, _ = person.sums()[0]
    # In time 3 000 and 3 005; the rest of the principal is late by a month, no part by two.
    first = [r for r in reports if r.paid_at and r.paid_at < datetime(2026, 10, 1, tzinfo=UTC)]
    unpaid = DUE - sum(each.amount_minor for each in first)
    assert (paid, owed) == (DUE + round(unpaid / 100), DUE + round(unpaid / 100))
    assert person.credit_minor() == brought - paid
    seal_and_check()


# -- what changes later ---------------------------------------------------------------------------


def test_what_a_note_sets_free_pays_the_next_invoice_and_comes_back_with_the_charge(
    database: str, person: Person
) -> None:
    september, october, _ = person.invoices
    record(a_report(person.references[SEPTEMBER], paid_at=IN_TIME))
    note(september, -6_000)
    assert person.sums()[0] == (DUE - 6_000, DUE - 6_000, "paid")
    assert (person.credit_minor(), the_books().exceptions) == (6_000, [])
    for _ in range(2):
        carry(person.id)
        assert person.sums()[1] == (6_000, DUE, "part_paid")
        assert person.credit_minor() == 0
    assert rows_of(database, "SELECT policy FROM allocation WHERE invoice_id = %s", (october,)) == [
        ("oldest-first-v1",)
    ]
    seal_and_check()
    note(september, 6_000, on=date(2026, 11, 1))
    # What pays October stays there: it is no credit any more.
    assert person.sums()[0] == (DUE - 6_000, DUE, "part_paid")
    seal_and_check()


def test_money_on_several_invoices_is_given_back_from_the_newest_debt_first(
    database: str, person: Person
) -> None:
    record(
        a_report(
            person.references[SEPTEMBER],
            paid_at=IN_TIME,
            amount_minor=3 * DUE,
            channel=None,
            provider_payment_id="P",
        )
    )
    assert [code for code, _ in the_books().exceptions] == ["overpaid"]
    carry(person.id)
    assert [paid for paid, _, _ in person.sums()] == [DUE] * 3
    assert the_books().exceptions == []
    because = rows_of(database, "SELECT resolution FROM coded_exception")
    assert because == [("its money paid the invoice of 2026-11",)]
    record(a_return("P", DUE + 100, kind=ReturnKind.REFUND, return_id="r"))
    assert [paid for paid, _, _ in person.sums()] == [DUE, DUE - 100, 0]
    seal_and_check()
    record(
        a_report(
            person.references[SEPTEMBER],
            provider_payment_id="P",
            amount_minor=3 * DUE,
            statement=Statement.REVERSED,
            stated_at=NOON + timedelta(hours=1),
        )
    )
    assert [paid for paid, _, _ in person.sums()] == [0, 0, 0]
    assert set(balances().values()) == {0}
    seal_and_check()


def test_a_breach_takes_back_what_was_remitted_and_the_credit_pays_for_it(
    database: str, person: Person
) -> None:
    at = person.invoices[SEPTEMBER]
    record(a_report(person.references[SEPTEMBER], paid_at=LATE, amount_minor=DUE + PENALTY))
    remit(person, at, on=date(2026, 10, 4))
    assert person.sums()[0] == (DUE, DUE, "paid")
    assert (person.credit_minor(), the_books().exceptions) == (PENALTY, [])
    seal_and_check()
    breach(at)
    assert person.sums()[0] == (DUE + PENALTY, DUE + PENALTY, "paid")
    assert person.credit_minor() == 0
    seal_and_check()


def test_settling_again_changes_nothing(database: str, person: Person) -> None:
    record(a_report(person.references[SEPTEMBER], paid_at=LATE, amount_minor=2 * DUE))
    note(person.invoices[SEPTEMBER], -1_000)
    before = the_books()
    settle(*person.invoices)
    settle(*person.invoices, now=NOON + timedelta(days=400))
    assert the_books() == before


def test_what_changed_a_debt_is_held_against_what_it_rests_on(
    database: str, person: Person
) -> None:
    """Notes, reliefs, cancellations and files bear no seal; the sums are made to fit each time."""
    september, october, november = person.invoices
    remit(person, september, on=date(2026, 11, 10))
    note(october, -1_000)
    other = Person(database)
    seal_and_check()
    half = '{"form": "remission", "principal": "50", "penalty": "100", "fee": "0"}'
    tampered = {
        "every note": [
            "UPDATE invoice_note SET amount_minor = -9000",
            f"UPDATE invoice SET owed_minor = owed_minor - 8000 WHERE id = {october}",
        ],
        "is cancelled": [
            "UPDATE invoice SET cancelled_at = now(), cancelled_because = 'mine'"
            f" WHERE id = {november}"
        ],
        "a relief ends": [f"UPDATE invoice_relief SET ended_on = '{TODAY}'"],
        "a relief remits": [f"UPDATE rule SET facts = '{half}'"],
        "a plan spreads": [
            "INSERT INTO bundle (reference, kind, contributor_id, made_at) SELECT"
            " wasl_reference(nextval('invoice_number'), (SELECT key FROM reference_key)),"
            f" 'plan', {person.id}, now()",
            f"INSERT INTO bundle_item SELECT id, 1, {october} FROM bundle",
            "INSERT INTO plan (contributor_id, bundle_id, rule, made_on, months, amount_minor,"
            f" made_at) SELECT contributor_id, id, 'r', '{TODAY}', 1, 5, now() FROM bundle",
            "INSERT INTO plan_instalment SELECT id, 1, made_on, 5 FROM plan",
        ],
        "a file that was merged": [
            f"UPDATE contributor SET merged_into_id = {other.id} WHERE id = {person.id}",
            f"UPDATE contributor SET merged_into_id = {person.id} WHERE id = {other.id}",
        ],
    }
    unguarded = ("invoice_note", "invoice_relief", "rule")
    guards = [f"ALTER TABLE {table} {{}} TRIGGER USER" for table in unguarded]
    for promise, statements in tampered.items():
        off, on = ([each.format(how) for each in guards] for how in ("DISABLE", "ENABLE"))
        as_owner(database, *off, *statements, *on)
        assert any(promise in broken.what for broken in broken_promises()), promise


# -- whose credit, and where it goes --------------------------------------------------------------


def test_credit_of_a_merged_file_is_the_persons(database: str, person: Person) -> None:
    """Credit that lies under the old number pays what is owed under the new one, and back."""
    old = Person(database)
    record(a_report(old.references[NOVEMBER], amount_minor=2 * DUE, provider_payment_id="P"))
    with transaction() as session:
        execute(
            session,
            "UPDATE contributor SET merged_into_id = :into WHERE id = :id",
            {"into": person.id, "id": old.id},
        )
    note(old.invoices[NOVEMBER], -DUE)
    assert {code: -balances()[code] for code in (f"credit:{old.id}", f"credit:{person.id}")} == {
        f"credit:{old.id}": DUE,
        f"credit:{person.id}": DUE,
    }
    note(old.invoices[SEPTEMBER], -DUE)
    note(old.invoices[OCTOBER], -DUE)
    carry(old.id)
    # September is late by two months, October by one, though the money came in November.
    penalties = (327, PENALTY)
    assert person.sums()[0] == (DUE + penalties[0], DUE + penalties[0], "paid")
    assert person.sums()[1][0] == DUE - penalties[0]
    assert set(balances().values()) == {2 * DUE, -2 * DUE, 0}
    seal_and_check()


def test_in_a_campaign_the_current_period_is_paid_before_the_debts(
    database: str, person: Person
) -> None:
    september, october, november = person.invoices
    remit(person, september, on=date(2026, 11, 10))
    record(a_report(person.references[OCTOBER], amount_minor=DUE + PENALTY + 20_000))
    carry(person.id)
    assert [paid for paid, _, _ in person.sums()] == [20_000 - DUE, DUE + PENALTY, DUE]
    policies = "SELECT invoice_id, policy FROM allocation WHERE policy <> 'quoted-invoice-v1'"
    assert rows_of(database, policies + " ORDER BY id") == [
        (november, "current-first-v1"),
        (september, "current-first-v1"),
    ]
    assert october not in {at for at, _ in rows_of(database, policies)}
    seal_and_check()


def test_what_is_named_first_is_paid_first(database: str, person: Person) -> None:
    record(a_report(person.references[OCTOBER], amount_minor=DUE + PENALTY + 100))
    carry(person.id, first=[person.invoices[NOVEMBER]])
    assert [paid for paid, _, _ in person.sums()] == [0, DUE + PENALTY, 100]


def test_money_of_an_earlier_day_makes_later_money_move_on(database: str, person: Person) -> None:
    """Credit of September takes its place on a debt that was half paid in October."""
    september, october, _ = person.references
    record(a_report(september, paid_at=LATE, amount_minor=DUE, provider_payment_id="B"))
    assert person.sums()[0] == (DUE, DUE + PENALTY, "part_paid")
    record(a_report(october, paid_at=IN_TIME, amount_minor=2 * DUE, provider_payment_id="A"))
    carry(person.id)
    # A pays September in time, so B's money is free, and goes on to November.
    assert person.sums() == [(DUE, DUE, "paid"), (DUE, DUE, "paid"), (DUE, DUE, "paid")]
    assert person.credit_minor() == 0
    assert the_books().exceptions == []
    seal_and_check()


def test_carrying_and_taking_back_at_once_wait_for_each_other(
    database: str, person: Person
) -> None:
    references = person.references
    for turn in range(4):
        payments = [
            a_report(references[n % 3], amount_minor=2 * DUE, provider=f"p{n}", paid_at=LATE)
            for n in range(3)
        ]
        at_once(*(partial(record, each) for each in payments))
        gone = [
            a_report(
                each.reference_given,
                provider=each.provider,
                provider_payment_id=each.provider_payment_id,
                amount_minor=2 * DUE,
                statement=Statement.REVERSED,
                stated_at=NOON + timedelta(minutes=turn + 1),
            )
            for each in payments
        ]
        at_once(
            *(partial(_nothing, record, each) for each in gone),
            partial(_nothing, carry, person.id),
            partial(_held_settle, person),
        )
    assert [paid for paid, _, _ in person.sums()] == [0, 0, 0]
    assert set(balances().values()) == {0}
    seal_and_check()


def test_who_holds_people_holds_what_was_booked_while_they_waited(
    database: str, person: Person
) -> None:
    report = a_report(person.references[SEPTEMBER], paid_at=LATE)

    def hold() -> bool:
        with transaction() as session:
            hold_people(session, [person.id])
            free = "SELECT id FROM payment FOR NO KEY UPDATE SKIP LOCKED"
            return rows_of(database, free) == []

    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with ThreadPoolExecutor(1) as pool:
        with transaction() as session:
            record_reports(session, [report], key=process.signing_key(), now=NOON)
            holding = pool.submit(hold)
            while rows_of(database, waiting) == [(0,)]:
                assert not holding.done()
        assert holding.result()


def _nothing(call: Callable[..., object], *given: Any) -> None:
    call(*given)


def _held_settle(person: Person) -> None:
    """Do as whoever writes notes does: hold, settle, carry, in one transaction."""
    with transaction() as session:
        hold_people(session, [person.id])
        settle_invoices(session, person.invoices, key=process.signing_key(), now=NOON)
        carry_credit(session, [person.id], key=process.signing_key(), now=NOON)


# -- anything in any order ------------------------------------------------------------------------

_ACTS = ("pay", "pay", "pay", "reverse", "refund", "credit", "charge", "fee", "remit", "breach",
         "carry")  # fmt: skip
acts = st.lists(
    st.tuples(
        st.sampled_from(_ACTS),
        st.integers(0, 2),
        st.integers(1, 2 * DUE) | st.sampled_from([DUE, DUE + PENALTY]),
        st.integers(0, 58),
    ),
    min_size=2,
    max_size=9,
)


class World:
    """A person to whom anything happens; what is taken off is never more than is charged."""

    def __init__(self, database: str) -> None:
        self.person = Person(database)
        self.charged = [DUE] * 3
        self.paid: list[tuple[str, str, int]] = []
        self.gone: set[str] = set()

    def act(self, what: str, at: int, minor: int, days: int) -> None:
        person = self.person
        invoice_id = person.invoices[at]
        match what:
            case "pay":
                report = a_report(
                    person.references[at],
                    amount_minor=minor,
                    provider=f"p{at}",
                    paid_at=NOON - timedelta(days=days),
                )
                self.paid.append((report.provider, report.provider_payment_id, minor))
                record(report)
            case "reverse" | "refund" if self.paid:
                self._give_back(what, days, minor)
            case "credit":
                taken = min(minor, self.charged[at])
                self.charged[at] -= taken
                if taken:
                    note(invoice_id, -taken)
            case "charge":
                self.charged[at] += minor
                note(invoice_id, minor, on=day_of(NOON - timedelta(days=days % 5)))
            case "fee":
                note(invoice_id, minor, kind="fee", on=day_of(NOON - timedelta(days=days)))
            case "remit":
                share = f"0.{minor % 10_000:04d}"
                remit(person, invoice_id, principal=share, on=day_of(NOON - timedelta(days=days)))
            case "breach":
                breach(invoice_id)
            case "carry":
                carry(person.id)

    def _give_back(self, what: str, which: int, minor: int) -> None:
        provider, named, brought = self.paid[which % len(self.paid)]
        if what == "refund":
            record(a_return(named, min(minor, brought), provider=provider))
        else:
            self.gone.add(named)
            record(
                a_report(
                    "",
                    provider=provider,
                    provider_payment_id=named,
                    amount_minor=brought,
                    statement=Statement.REVERSED,
                    stated_at=NOON + timedelta(minutes=1),
                )
            )


@given(acts)
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_books_keep_their_promises_whatever_happens_in_whatever_order(
    database: str, story: list[tuple[str, int, int, int]]
) -> None:
    world = World(database)
    for act in story:
        world.act(*act)
        issue_all(process.receipt_keys(), lambda: NOON)
        seal_and_check()
    before = the_books()
    settle(*world.person.invoices)
    assert the_books() == before
    carry(world.person.id)
    open_now = [owed > paid for paid, owed, _ in world.person.sums()]
    assert not (any(open_now) and world.person.credit_minor())
    seal_and_check()
