from __future__ import annotations
from datetime import date
import pytest
from gateway import process
from gateway.db import execute, snapshot, transaction
from gateway.dues import DueLine
from gateway.models import LineKind
from gateway.notes import NewNote, write_notes
from gateway.activities import lock_people
from gateway.placing import hold_people, settle_invoices, carry_credit
from gateway.events import tell
from gateway.plans import plans_of
from gateway.reliefs import Reviewed
from gateway.remissions import remissions_of
from tests.factories import broken_promises
from tests.gateway.test_plans import plan_of, review as review_p, seen
from tests.gateway.test_remissions import *
from tests.gateway.test_remissions import review as review_r, beginning, owing, pay, grant, take_back, at, due

def note(person, reference, minor, day, due_on=None):
    with transaction() as session:
        lock_people(session, [person]); hold_people(session, [person])
        at_ = execute(session, "SELECT id FROM invoice WHERE reference=:r", {"r": reference}).scalar_one()
        line = DueLine(LineKind.ADJUSTMENT, minor, "r", "s", verified=True)
        told = write_notes(session, [NewNote(at_, line, "b", due_on)], now=at(day))
        settle_invoices(session, [at_], key=process.signing_key(), now=at(day))
        carry_credit(session, [person], key=process.signing_key(), now=at(day))
        tell(session, told, now=at(day))

def test_f1_remission_current_due_credited(database):
    person, named = beginning("2024-02", "2024-03", "2024-04")
    grant(LOI, "2024-02-11")
    for p in ("2024-02", "2024-03", "2024-04"):
        pay(named[p], IN_2024, f"{p}-20")
    assert review_r("2024-06-02").broken == 0
    note(person, named["2024-03"], -5000, "2024-06-03")
    assert review_r("2024-06-03").broken == 0

def test_f1b_paid_in_full_then_credited(database):
    person, named = owing(*AUTUMN)
    for period in AUTUMN:
        pay(named[period], IN_2022, "2023-03-10")
    grant(DECISION, "2023-03-11")
    note(person, named["2022-11"], -5000, "2023-04-03")
    assert review_r("2023-04-04").broken == 0

def test_f1c_plan_then_credited(database):
    person, named = owing(*AUTUMN)
    plan = plan_of(person, 3, "2023-01-10")
    part = plan.state.instalments[0].instalment.amount_minor
    pay(plan.reference, part, "2023-02-20")
    note(person, named["2022-10"], -9000, "2023-04-03")
    assert seen(plan, "2023-04-03").state.since is None
    assert review_p("2023-04-03").broken == 0

def test_f1d_there_and_back(database):
    person, named = owing(*AUTUMN)
    plan = plan_of(person, 3, "2023-01-10")
    note(person, named["2022-10"], -9000, "2023-01-12")
    note(person, named["2022-10"], 9000, "2023-01-13", date(2023,3,31))
    assert seen(plan, "2023-01-13").state.paid_minor == 0

def test_f2_two_plans(database):
    person, named = owing(*AUTUMN)
    plan_of(person, 4, "2023-01-10")
    assert review_p("2023-05-01").broken == 1
    again = plan_of(person, 24, "2023-05-10")
    with snapshot() as session:
        views = plans_of(session, person, on=date(2023,5,10))
    assert views[1].state.paid_minor == 0

def test_f3_reversed_long_after(database):
    person, named = owing(*AUTUMN)
    plan = plan_of(person, 2, "2023-03-10", DECISION)
    pay(plan.reference, 3 * IN_2022, "2023-03-30", payment_id="P1")
    assert review_p("2023-04-01").kept == 1
    take_back("P1", plan.reference, 3 * IN_2022, "2023-03-30", "2023-09-01")
    assert review_p("2023-09-02").broken == 1

def test_f4_unique(database):
    person, named = owing(*AUTUMN, "2023-01")
    plan = plan_of(person, 12, "2023-01-10")
    pay(plan.reference, 43419 + IN_2022, "2023-01-20", payment_id="P1")
    assert review_p("2023-01-21").kept == 1
    issue("2023-02")
    second = plan_of(person, 12, "2023-03-10")
    take_back("P1", plan.reference, 43419 + IN_2022, "2023-01-20", "2023-03-11")
    print(review_p("2023-03-12"))
    assert seen(second, "2023-03-12").state.since is None

def test_f15_plan_same_day(database):
    person, named = owing(*AUTUMN, "2023-02")
    for period in AUTUMN:
        pay(named[period], IN_2022, "2023-03-10")
    plan_of(person, 2, "2023-03-10")
    print(grant(DECISION, "2023-03-10"))
    assert review_r("2023-03-11").broken == 0
