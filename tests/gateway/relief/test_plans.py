"""Instalment plans on real books: made, paid by their reference, kept, late, broken, and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from gateway import cli, db, process
from gateway.billing.owing import read_owing
from gateway.db import execute, snapshot, transaction
from gateway.dues.conditions import Because
from gateway.dues.instalments import InstalmentState, PlanStanding
from gateway.errors import Unusable
from gateway.models import ReturnKind, ReturnState
from gateway.relief.plans import PlanView, make_plan, plans_of, read_plan, review_plans
from gateway.relief.reliefs import Reviewed
from gateway.relief.remissions import remissions_of
from gateway.settings import settings
from tests.factories import a_return, at_once, balances, broken_promises, issue, record
from tests.gateway.relief.test_remissions import (
    AUTUMN,
    DECISION,
    IN_2022,
    at,
    credit,
    due,
    grant,
    owing,
    pay,
    statuses,
    take_back,
    told,
)
from tests.gateway.relief.test_remissions import review as review_remissions_of


def plan_of(person: int, months: int, day: str, campaign: str | None = None) -> PlanView:
    with transaction() as session:
        return make_plan(session, person, months, campaign, key=process.signing_key(), now=at(day))


def review(day: str) -> Reviewed:
    with transaction() as session:
        return review_plans(session, key=process.signing_key(), now=at(day))


def seen(plan: PlanView, day: str) -> PlanView:
    with snapshot() as session:
        found = read_plan(session, plan.id, on=date.fromisoformat(day))
    assert found is not None
    return found


def test_a_plan_is_paid_by_its_reference_current_dues_first_and_kept(database: str) -> None:
    person, named = owing(*AUTUMN, "2023-01", "2023-02")
    # On 10 January: 425.67 of principal, and three, two and one month: 4.26 + 2.84 + 1.42.
    plan = plan_of(person, 3, "2023-01-10")
    assert plan.amount_minor == 3 * IN_2022 + 426 + 284 + 142
    assert plan.invoices == tuple(named[period] for period in AUTUMN)
    assert [
        (each.instalment.due_on, each.instalment.amount_minor) for each in plan.state.instalments
    ] == [
        (date(2023, 2, 28), 14_473),
        (date(2023, 3, 31), 14_473),
        (date(2023, 4, 30), 14_473),
    ]
    pay(named["2023-01"], IN_2022, "2023-01-20")
    pay(plan.reference, IN_2022 + 14_473, "2023-02-20")
    assert due([named["2023-02"]], "2023-03-01") == {"2023-02": 0}
    now = seen(plan, "2023-03-01").state
    assert (now.standing, now.paid_minor) == (PlanStanding.RUNNING, 14_473)
    assert [each.state for each in now.instalments] == ["kept", "due", "due"]
    assert review("2023-03-01") == Reviewed(None, 1, 0, 0, 0)
    # An invoice's own reference is as good; and it is late now, and made good.
    pay(named["2022-11"], 14_473, "2023-04-12")
    pay(plan.reference, 14_473, "2023-05-02")
    assert seen(plan, "2023-05-01").state.standing is PlanStanding.LATE
    assert review("2023-06-30") == Reviewed(None, 1, 1, 0, 0)
    assert review("2023-06-30") == Reviewed(None, 1, 0, 0, 0)
    with snapshot() as session:
        ids = list(execute(session, "SELECT id FROM invoice").scalars())
        owing_now = read_owing(session, ids, date(2023, 6, 30))
    assert not any(each.in_plan for each in owing_now.values())
    ended = seen(plan, "2023-06-30").state
    assert (ended.standing, ended.since) == (PlanStanding.KEPT, date(2023, 5, 2))
    assert {each.state for each in ended.instalments} == {InstalmentState.KEPT}
    assert sum(due(plan.invoices, "2024-01-01").values()) == 0
    assert balances()["payable:institution"] == -(5 * IN_2022 + 852)
    assert told("plan") == [("plan.made", None), ("plan.ended", "kept")]
    assert broken_promises() == []


def test_a_broken_plan_is_as_if_it_had_never_been(database: str) -> None:
    person, named = owing(*AUTUMN)
    plan = plan_of(person, 4, "2023-01-10")
    pay(plan.reference, plan.state.instalments[0].instalment.amount_minor, "2023-02-28")
    covered = plan.invoices
    # While it stands no month adds a penalty.
    assert sum(due(covered, "2023-04-30").values()) == seen(plan, "2023-04-30").state.unpaid_minor
    assert review("2023-04-30") == Reviewed(None, 1, 0, 0, 0)
    # The second part was due on 31 March and is unpaid when the third falls due.
    assert review("2023-12-24") == Reviewed(None, 1, 0, 1, 0)
    state = seen(plan, "2023-12-24").state
    assert (state.standing, state.since, state.because) == (
        PlanStanding.BROKEN,
        date(2023, 5, 1),
        Because.INSTALMENT_UNPAID,
    )
    for day in ("2023-05-01", "2023-12-24"):
        assert due(covered, day) == due(covered, day, relieved=False)
    # Money that quotes it goes on paying the debts; and another plan may be made.
    pay(plan.reference, 1_000, "2023-12-24")
    again = plan_of(person, 24, "2023-12-24")
    assert again.amount_minor == sum(due(covered, "2023-12-24").values())
    assert review("2023-12-24").restored == 0
    assert statuses(named.values()) == {"open", "part_paid"}
    assert broken_promises() == []


def test_a_current_due_breaks_it_and_late_news_of_a_payment_mends_it(database: str) -> None:
    person, named = owing(*AUTUMN, "2023-01")
    plan = plan_of(person, 12, "2023-01-10")
    part = plan.state.instalments[0].instalment.amount_minor
    for month in ("02", "03"):
        pay(named["2022-10"], part, f"2023-{month}-05")
    assert review("2023-03-15") == Reviewed(None, 1, 0, 1, 0)
    state = seen(plan, "2023-03-15").state
    assert (state.since, state.because) == (date(2023, 3, 1), Because.CURRENT_DUE_UNPAID)
    pay(named["2023-01"], IN_2022, "2023-02-27", heard="2023-03-16")
    assert review("2023-03-16") == Reviewed(None, 1, 0, 0, 1)
    assert seen(plan, "2023-03-16").state.standing is PlanStanding.RUNNING
    assert told("plan") == [("plan.made", None), ("plan.ended", "broken"), ("plan.made", None)]
    assert broken_promises() == []


def test_a_plan_within_a_campaign_remits_and_its_breach_brings_all_of_it_back(
    database: str,
) -> None:
    person, named = owing(*AUTUMN)
    plan = plan_of(person, 24, "2023-03-10", DECISION)
    assert (plan.amount_minor, plan.campaign) == (3 * IN_2022, DECISION)
    assert due(named.values(), "2023-03-10") == dict.fromkeys(AUTUMN, IN_2022)
    # It has the remission: the principal in full would not give it twice.
    assert grant(DECISION, "2023-03-11").granted == 0
    each = plan.state.instalments[0].instalment.amount_minor
    assert each == 3 * IN_2022 // 24
    pay(plan.reference, each, "2023-04-30")
    assert review("2023-06-30") == Reviewed(None, 1, 0, 0, 0)
    with snapshot() as session:
        [by_date] = remissions_of(session, person, on=date(2023, 7, 1))
        assert remissions_of(session, person, on=date(2023, 6, 30))[0].standing == "running"
    assert review("2023-07-01") == Reviewed(None, 1, 0, 1, 0)
    with snapshot() as session:
        [remission] = remissions_of(session, person)
    assert remission == by_date
    assert (remission.standing, remission.since, remission.because) == (
        "broken",
        date(2023, 7, 1),
        Because.PLAN_BROKEN,
    )
    assert due(named.values(), "2023-07-01") == due(named.values(), "2023-07-01", relieved=False)
    # Five, four and three months had begun in March; four more have since: 9, 8 and 7 of 141.89,
    # of October what was left after 17.73 on 30 April.
    assert due(named.values(), "2023-07-01") == {
        "2022-10": IN_2022 - each + 1_224,
        "2022-11": IN_2022 + 1_135,
        "2022-12": IN_2022 + 993,
    }
    assert told("remission") == [("remission.granted", None), ("remission.ended", "broken")]
    assert broken_promises() == []


def test_a_plan_within_a_campaign_that_is_kept_keeps_the_remission(database: str) -> None:
    person, named = owing(*AUTUMN)
    plan = plan_of(person, 2, "2023-03-10", DECISION)
    pay(plan.reference, 3 * IN_2022, "2023-04-30")
    assert review("2023-05-01") == Reviewed(None, 1, 1, 0, 0)
    assert statuses(named.values()) == {"paid"}
    with snapshot() as session:
        [remission] = remissions_of(session, person)
        assert len(plans_of(session, person, on=date(2023, 5, 1))) == 1
    assert (remission.standing, remission.since) == ("kept", date(2023, 4, 30))
    assert sum(due(named.values(), "2026-01-01").values()) == 0
    assert broken_promises() == []


def test_one_plan_after_another_each_is_judged_by_its_own_reliefs(database: str) -> None:
    person, named = owing(*AUTUMN, "2023-01")
    first = plan_of(person, 12, "2023-01-10")
    paid = 3 * IN_2022 + 426 + 284 + 142
    pay(named["2023-01"], IN_2022, "2023-01-15")
    pay(first.reference, paid, "2023-01-20", payment_id="P 1")
    assert review("2023-01-21").kept == 1
    issue("2023-02")
    second = plan_of(person, 12, "2023-03-10")
    # Taken back while the first could still be made good: its place is taken.
    take_back("P 1", first.reference, paid, "2023-01-20", "2023-03-11")
    assert review("2023-03-12") == Reviewed(None, 2, 0, 0, 0)
    assert review("2023-04-01") == Reviewed(None, 2, 0, 1, 0)
    assert review("2023-06-01") == Reviewed(None, 2, 0, 1, 0)
    third = plan_of(person, 24, "2023-06-10")
    with snapshot() as session:
        views = plans_of(session, person, on=date(2023, 6, 10))
    assert [view.id for view in views] == [first.id, second.id, third.id]
    assert views[2].state.paid_minor == 0
    assert broken_promises() == []


def test_a_payment_disputed_long_after_breaks_what_was_kept_until_it_comes_back(
    database: str,
) -> None:
    person, named = owing(*AUTUMN)
    plan = plan_of(person, 2, "2023-03-10", DECISION)
    whole = 3 * IN_2022
    pay(plan.reference, whole, "2023-03-30", payment_id="P 1")
    assert review("2023-04-01").kept == 1

    def disputed(day: str, **how: Any) -> None:
        when = {"made_at": at("2023-09-01"), "stated_at": at(day), "received_at": at(day)}
        kind = {"return_id": "dp_1", "kind": ReturnKind.DISPUTE}
        record(a_return("P 1", whole, **when, **kind, **how), now=at(day))

    disputed("2023-09-01")
    assert review("2023-09-02").broken == 1
    assert due(named.values(), "2023-09-02") == due(named.values(), "2023-09-02", relieved=False)
    with snapshot() as session:
        assert remissions_of(session, person)[0].standing == "broken"
    assert review("2023-12-20") == Reviewed(None, 0, 0, 0, 0)
    disputed("2023-12-20", state=ReturnState.RESTORED, outcome="won")
    assert review("2023-12-21") == Reviewed(None, 1, 1, 0, 0)
    assert statuses(named.values()) == {"paid"}
    assert broken_promises() == []


def test_a_campaign_and_a_plan_on_one_day_do_not_disturb_each_other(database: str) -> None:
    person, named = owing(*AUTUMN, "2023-02")
    for period in AUTUMN:
        pay(named[period], IN_2022, "2023-03-10")
    plan = plan_of(person, 2, "2023-03-10")
    assert grant(DECISION, "2023-03-10").granted == 1
    assert review_remissions_of("2023-03-11").broken == 0
    # What is credited was never owed, nor was its penalty of March.
    before = seen(plan, "2023-03-12").state.paid_minor
    credit(person, named["2023-02"], 5_000, "2023-03-12")
    assert seen(plan, "2023-03-12").state.paid_minor == before + 5_050
    assert broken_promises() == []


def test_what_cannot_be_a_plan_is_said_and_leaves_nothing(database: str) -> None:
    person, _ = owing(*AUTUMN)
    with pytest.raises(Unusable, match="1 to 24 months, not 25"):
        plan_of(person, 25, "2023-01-10")
    with pytest.raises(Unusable, match="runs from 2023-02-21"):
        plan_of(person, 24, "2023-01-10", DECISION)
    with pytest.raises(Unusable, match="Nothing is late"):
        plan_of(person, 24, "2022-10-31")
    with pytest.raises(Unusable, match="no contributor 999"):
        plan_of(999, 24, "2023-01-10")
    plan_of(person, 24, "2023-01-10")
    with pytest.raises(Unusable, match="one at a time"):
        plan_of(person, 24, "2023-01-11")
    with snapshot() as session:
        counted = execute(session, "SELECT (SELECT count(*) FROM plan), count(*) FROM bundle")
        assert tuple(counted.one()) == (1, 1)


# -- the commands ----------------------------------------------------------------------------------


def set_clock(monkeypatch: pytest.MonkeyPatch, day: str) -> None:
    monkeypatch.setenv("WASL_CLOCK", f"={at(day).isoformat()}")
    settings.cache_clear()
    process.business_clock.cache_clear()


Wasl = Callable[..., dict[str, Any]]


@pytest.fixture
def wasl(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Wasl:
    """Run a command in this process, on a clock that stands still; return its answer."""
    # What this process logs, and where to, stays as the tests have it.
    monkeypatch.setattr("gateway.logs.configure_logs", lambda _level: None)

    def run(day: str, *words: str) -> dict[str, Any]:
        set_clock(monkeypatch, day)
        cli.wasl.main([*words, "--json"], standalone_mode=False)
        # A command closes its connections behind it.
        db.connect(database)
        said = capsys.readouterr()
        assert said.err == ""
        answer: dict[str, Any] = json.loads(said.out)
        return answer

    return run


def test_the_commands_make_show_review_and_grant(wasl: Wasl) -> None:
    person, named = owing(*AUTUMN)
    other, theirs = owing("2022-10")
    pay(theirs["2022-10"], IN_2022, "2023-03-10")
    with snapshot() as session:
        rows = execute(session, "SELECT id, cnss_number FROM contributor")
        cnss: dict[int, str] = dict(map(tuple, rows))
    made = wasl("2023-03-10", "plans", "make", cnss[person], "--months", "24")
    # With five, four and three months: 425.67 + 17.03.
    assert (made["amount"], made["status"], made["campaign"]) == ("442.70", "running", None)
    assert made["invoices"] == list(named.values())
    [shown] = wasl("2023-05-01", "plans", "show", cnss[person])["plans"]
    assert (shown["reference"], shown["status"]) == (made["reference"], "late")
    assert wasl("2023-06-01", "plans", "review") == {
        "plans": {"judged": 1, "kept": 0, "broken": 1, "restored": 0},
        "remissions": {"judged": 0, "kept": 0, "broken": 0, "restored": 0},
    }
    granted = wasl("2023-06-01", "remissions", "grant", DECISION)
    assert granted == {"looked_at": 1, "granted": 1, "remitted": "7.09"}
    [remission] = wasl("2023-06-01", "remissions", "show", cnss[other])["remissions"]
    assert (remission["campaign"], remission["status"], remission["granted_on"]) == (
        DECISION,
        "kept",
        "2023-03-10",
    )
    assert cnss[person] not in json.dumps([made, shown, remission])
    assert broken_promises() == []


def test_the_worker_reviews_all_of_them(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.tasks import review_reliefs

    monkeypatch.setattr("gateway.relief.review.BATCH", 1)
    made = []
    for _ in range(2):
        person, _ = owing(*AUTUMN)
        made.append(plan_of(person, 24, "2023-01-10"))
    set_clock(monkeypatch, "2023-06-01")
    review_reliefs()
    assert [seen(plan, "2023-06-01").state.since for plan in made] == [date(2023, 4, 1)] * 2


def test_of_two_at_once_one_makes_the_plan(database: str) -> None:
    person, _ = owing(*AUTUMN)

    def make() -> str:
        try:
            return plan_of(person, 24, "2023-03-10").reference
        except Unusable as error:
            return str(error)

    said = at_once(make, make, lambda: str(grant(DECISION, "2023-03-10", person).granted))
    assert "A plan of this contributor stands: one at a time." in said
    assert broken_promises() == []
