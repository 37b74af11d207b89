"""What a fate does to a payment, and what becomes of a sending that never arrives."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from gateway.simulators import payers
from gateway.simulators.browsing import Page, Payer, forms_of
from gateway.simulators.dealing import CHANNELS, Behaviour, Case, deal, deal_plainly
from gateway.simulators.deliveries import Attack, Step, plan
from gateway.simulators.faults import Fate
from gateway.simulators.journal import read_journal
from gateway.simulators.pages import PAGES, page_tally
from gateway.simulators.tally import answered, struck, tally
from tests.gateway.test_simulators import (
    NOON,
    SECRET,
    STILL,
    Gate,
    options,
    serving,
    some_notices,
    write_notices,
)

DUE = 39_000


def a_case() -> Case:
    case = deal_plainly(some_notices(1), seed=1)[0]
    assert (case.behaviour, case.notice.amount_minor) == (Behaviour.PLAIN, DUE)
    return case


def told(fate: Fate) -> list[Step]:
    return plan(a_case(), planned_at=NOON, fate=fate)


def data(step: Step) -> dict[str, str]:
    said: dict[str, str] = json.loads(step.body)["data"]
    return said


def test_everybody_pays_by_all_providers_where_all_is_plain() -> None:
    cases = deal_plainly(some_notices(2_000), seed=3)
    counts = Counter(case.provider for case in cases)
    assert set(counts) == set(CHANNELS) - {"card"}
    assert {case.behaviour for case in cases} == {Behaviour.PLAIN}
    assert deal_plainly(some_notices(2_000), seed=4)[:5] != cases[:5]
    # A month's story, too, has payers who come by pages and calls, all of them plain.
    others = [
        c for c in deal(some_notices(2_000), seed=3) if c.provider in {*PAGES, "mobile-money"}
    ]
    assert len(others) > 50
    assert {case.behaviour for case in others} == {Behaviour.PLAIN}


def test_a_fate_is_told_as_it_is_drawn() -> None:
    (honest,) = told(Fate())
    (late,) = told(Fate(late=3))
    paid_at = {at: datetime.fromisoformat(each.paid_at) for at, each in ((0, honest), (3, late))}
    assert paid_at[0] - paid_at[3] == timedelta(days=3)
    assert late.booked_minor == DUE
    completed, announced = told(Fate(reorder=True))
    events = [json.loads(each.body) for each in (completed, announced)]
    assert [event["type"] for event in events] == ["payment.completed", "payment.pending"]
    assert events[0]["timestamp"] > events[1]["timestamp"]
    assert {completed.booked_minor, announced.booked_minor} == {DUE}
    first, again = told(Fate(double=True))
    assert (first.delivery_id, first.body) == (again.delivery_id, again.body)
    first, other = told(Fate(wrong_amount=True))
    assert (first.delivery_id, data(other)["amount"]) == (other.delivery_id, "400.00")
    assert (other.planted, other.booked_minor) == ("conflicting_delivery", DUE)
    (euro,) = told(Fate(wrong_currency=True))
    assert (euro.planted, euro.booked_minor) == ("wrong_currency", 0)
    changed, first = told(Fate(tamper=True))
    assert (changed.attack, changed.refused, first.attack) == (Attack.TAMPERED, True, None)
    every = told(Fate(True, True, True, 2, True, False, True, 0.0, False))
    assert [each.key.rpartition(".")[2] for each in every] == ["0", "1", "2", "3", "4"]
    assert every[0].behaviour == "lose+double+reorder+late+wrong_amount+tamper"


def test_what_is_lost_comes_later_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNING_KEY", SECRET)
    monkeypatch.setenv("WASL_CLOCK", STILL)
    gate, journal = Gate(NOON), tmp_path / "bank.jsonl"
    file = write_notices(tmp_path / "n.csv", some_notices(300))
    words = [*options("bank", "URL", file, journal), "--plain", "--lose", "0.5", "--double", "0.1"]
    with serving(gate) as url:
        call = [url if word == "URL" else word for word in words]
        assert payers.main(call) == 0
        count = len(gate.received)
        # A second time there is nothing left to send.
        assert payers.main(call) == 0
    assert len(gate.received) == count
    lines = read_journal(journal)
    lost = [line["step"] for line in lines if line.get("error") == "lost"]
    said, hit = tally([journal]), struck(lines)
    assert (said.surprises, len(lost)) == (0, hit["lose"])
    assert hit["lose"] > 5
    assert hit["double"] > 0
    cases = [c for c in deal_plainly(some_notices(300), seed=7) if c.provider == "bank"]
    assert len(said.expected) == len(cases)
    assert count == len(cases) + hit["double"]
    assert len(answered(lines, "bank")) == len(gate.ids) == len(cases)


# -- payers with a browser ------------------------------------------------------------------------

DUE_PAGE = """
<form method="post" action="/stop"><button>Stop</button></form>
<form method="post" action="/1/card?lang=fr"><input type="hidden" name="way" value="stripe">
<button class="btn">Pay</button></form>
<form method="POST" action="/1/card?lang=fr"><input type="hidden" name="way" value="cmi">
<button>Pay</button></form>
"""
LEAD_PAGE = """
<form method="post" action="http://bank.example/gate"><input name="oid" value="1-a&amp;b">
<input type="file" name="x"><button name="do" value="pay">On</button></form>
"""


def test_a_payer_finds_the_way_of_his_provider() -> None:
    payer = Payer("cmi", "http://here", None)
    page = Page(200, "http://here/1", forms_of(DUE_PAGE))
    way = payer._way(page)
    assert way is not None
    assert (way.method, way.fields) == ("post", [("way", "cmi")])
    led = payer._way(Page(200, "http://here/1/card", forms_of(LEAD_PAGE)))
    assert led is not None
    assert led.fields == [("oid", "1-a&b")]
    assert led.buttons == [("do", "pay")]
    assert payer._way(Page(200, "http://here/1", [])) is None


def test_what_the_providers_sides_say_was_paid() -> None:
    outcome = {"line": "outcome", "payment_id": "R-1", "reference": "R", "paid_at": "2026-11-18"}
    send = {"line": "send", "payment_id": "R-1", "body": "{}", "lost": False}
    operator = page_tally(
        "wallet-query",
        [
            {**outcome, "status": "FAILED", "net_minor": 0},
            {**outcome, "status": "SUCCESS", "net_minor": 500},
            {**send, "step": "1"},
            {"line": "answer", "step": "1", "status": None, "as_expected": False},
            {**send, "step": "2"},
            {"line": "answer", "step": "2", "status": 404, "as_expected": False},
            {"line": "planted", "code": "invalid_amount"},
        ],
    )
    assert [(p.payment_id, p.minor) for p in operator.paid] == [("R-1", 500)]
    assert operator.surprises == ["callback 2: HTTP 404"]
    assert operator.planted == Counter(invalid_amount=1)
    assert operator.answered == set()
    assert operator.struck["double"] == 1
