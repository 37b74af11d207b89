"""The soak's judge names every lie: of a journal, of the books, of the inbox."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway import process
from gateway.checks import run_checks
from gateway.checks.promises import books_checks
from gateway.db import execute, transaction
from gateway.migrate import judges
from gateway.simulators.journal import Line, read_journal
from gateway.simulators.tally import Answered, answered, struck, tally
from gateway.soak.judge import Held, Told, as_json, differences, read_held
from gateway.soak.result import SoakResult
from tests.factories import NOON, a_delivery, a_desk, a_provider, an_event, seal, some_invoices
from webhooks.inbox import drain

BODIES = {"a": b'{"paid": "a"}', "b": b'{"paid": "b"}'}


def lines() -> list[Line]:
    """Return the journal of two payments of 163.52, told of and answered, one told of twice."""
    journal: list[Line] = [
        {"line": "start", "provider": "bank", "channel": "transfer", "seed": 1, "cases": 2}
    ]
    for named, body in BODIES.items():
        journal.append(
            {
                "line": "send",
                "step": f"{named}.0",
                "behaviour": "double" if named == "a" else "plain",
                "delivery_id": f"msg_{named}",
                "body": body.decode(),
                "reference": "103268491626",
                "paid_at": NOON.isoformat(),
                "planned_at": NOON.isoformat(),
                "refused": False,
                "attack": None,
                "payment_id": f"BA-{named}",
                "booked_minor": 16352,
                "planted": "conflicting_delivery" if named == "b" else None,
            }
        )
        answer = {"line": "answer", "step": f"{named}.0", "error": None}
        journal.append({**answer, "status": None, "as_expected": False, "last": False})
        journal.append({**answer, "status": 202, "as_expected": True, "last": True})
    return [*journal, {"line": "end", "surprises": 0}]


def told(path: Path, journal: list[Line]) -> Told:
    """Write a journal and read what it says."""
    path.write_text("".join(json.dumps(line) + "\n" for line in journal), encoding="utf-8")
    read = read_journal(path)
    return Told(tally([path]), frozenset(answered(read, "bank")), planned=2, struck=struck(read))


HELD = Held(
    booked={("bank", "BA-a"): 16352, ("bank", "BA-b"): 16352},
    exceptions={"conflicting_delivery": 1},
    undone={},
    unexpected={},
    not_once=[],
    booked_often=[],
)


def test_where_everything_agrees_there_is_nothing_to_say(tmp_path: Path) -> None:
    said = told(tmp_path / "bank.jsonl", lines())
    assert differences(said, HELD) == []
    assert said.answered == {
        Answered("bank", f"msg_{named}", hashlib.sha256(body).digest())
        for named, body in BODIES.items()
    }
    assert said.struck == Counter({"double": 1, "plain": 1})


def test_what_is_given_back_in_full_was_paid_all_the_same(tmp_path: Path) -> None:
    said = told(tmp_path / "bank.jsonl", lines())
    said.tally.expected["bank", "BA-a"] = 0
    back = replace(said, given_back=frozenset({("bank", "BA-a")}))
    held = replace(HELD, booked={**HELD.booked, ("bank", "BA-a"): 0})
    assert differences(back, held) == []
    figures = as_json(back, held)
    assert (figures["payments"], figures["given_back"]) == (2, 1)
    # The provider's own taking back, as the payment is made, leaves none.
    assert as_json(said, held)["payments"] == 1


def _amount(journal: list[Line]) -> None:
    journal[1]["booked_minor"] = 16353


def _left_out(journal: list[Line]) -> None:
    del journal[1:4]


def _planted(journal: list[Line]) -> None:
    journal[4]["planted"] = None


def _broke_off(journal: list[Line]) -> None:
    del journal[-1]


def _answer(journal: list[Line]) -> None:
    journal[3]["status"] = 404
    journal[3]["as_expected"] = False


@pytest.mark.parametrize(
    ("alter", "named"),
    [
        (_amount, "bank, payment BA-a: the journal says 163.53, the books say 163.52"),
        (_left_out, "bank, payment BA-a: the journal says nothing, the books say 163.52"),
        (_planted, "Exceptions conflicting_delivery: 0 planted, 1 open"),
        (_broke_off, "bank: its program broke off"),
        (_answer, "bank, double, a.0: HTTP 404"),
    ],
)
def test_a_lie_of_a_journal_is_named(
    alter: Callable[[list[Line]], None], named: str, tmp_path: Path
) -> None:
    journal = lines()
    alter(journal)
    found = differences(told(tmp_path / "bank.jsonl", journal), HELD)
    assert any(named in sentence for sentence in found), found
    assert not a_result(found).ok


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"booked": {("bank", "BA-a"): 16352}}, "bank, payment BA-b: the journal says 163.52"),
        ({"booked": {("bank", "BA-a"): 16352}}, "2 were to be made, 1 are in the books"),
        ({"exceptions": {"overpaid": 1, **HELD.exceptions}}, "overpaid: 0 planted, 1 open"),
        ({"undone": {"deliveries to act on": 3}}, "3 deliveries to act on"),
        ({"unexpected": {"parked deliveries": 1}}, "1 parked deliveries"),
        ({"not_once": [Answered("bank", "msg_a", b"")]}, "not in the inbox once: bank, deliv"),
        ({"booked_often": [("bank", "BA-a")]}, "booked more than once: bank, payment BA-a"),
        ({"broken": [{"what": "sums", "where": "x"}]}, "Broken: sums (x)"),
    ],
)
def test_a_lie_of_the_books_is_named(values: dict[str, Any], named: str, tmp_path: Path) -> None:
    found = differences(told(tmp_path / "bank.jsonl", lines()), replace(HELD, **values))
    assert any(named in sentence for sentence in found), found


def a_result(found: list[str], **values: Any) -> SoakResult:
    return SoakResult(
        **{
            "seed": 1,
            "figures": {"payments": 2, "answered": 2, "given_back": 0},
            "struck": {"double": 1},
            "channels": {"bank": 2},
            "kills": {"web": 1},
            "kills_left": 0,
            "differences": found,
            "seconds": 2.0,
            "collecting_seconds": 1.0,
            **values,
        }
    )


def test_a_soak_is_well_only_if_all_kills_were_done() -> None:
    assert a_result([]).ok
    assert not a_result([], kills_left=1).ok
    assert a_result([]).as_json()["struck"] == {"double": 1}


def test_what_is_held_is_read_from_the_books_and_the_inbox(database: str) -> None:
    (reference,) = some_invoices()
    body = an_event(reference, provider_payment_id="P1")
    a_delivery(body, delivery_id="msg_1")
    drain(a_desk(), batches_max=5)
    waiting = an_event(reference, provider_payment_id="P2")
    a_delivery(waiting, delivery_id="msg_2")
    there = Answered("cashplus", "msg_1", hashlib.sha256(body).digest())
    by_its_body = replace(there, delivery_id=None)
    elsewhere = replace(there, provider="kiosk")
    changed = replace(there, body_sha256=hashlib.sha256(b"other").digest())
    undone = Answered("cashplus", "msg_2", hashlib.sha256(waiting).digest())
    with transaction() as session:
        held = read_held(session, [there, by_its_body, elsewhere, changed, undone], [])
    assert held.not_once == [elsewhere, changed, undone]
    assert held.booked == {("cashplus", "P1"): 16352}
    assert held.booked_often == []
    assert held.exceptions == {}
    assert held.undone.items() >= {"deliveries to act on": 1}.items()
    assert held.unexpected == {}


class Undone(Exception):
    """Takes a lie back."""


LIES = {
    "an allocation is gone": "DELETE FROM allocation WHERE payment_id = 1",
    "a transfer is gone": "DELETE FROM ledger_transfer WHERE payment_id = 1",
    "a dirham too much": "UPDATE ledger_transfer SET amount_minor = amount_minor + 100",
    "a payment is worth less": "UPDATE payment SET amount_minor = amount_minor - 1 WHERE id = 1",
    "two payments changed places": "UPDATE allocation SET invoice_id = 3 - invoice_id",
    "a delivery is gone": "DELETE FROM webhook_delivery WHERE id = 1",
    "a payment never was": "DELETE FROM payment WHERE id = 1",
}


def test_a_lie_written_into_the_database_is_named(database: str, tmp_path: Path) -> None:
    journal = lines()
    for named, reference in zip(BODIES, some_invoices(2), strict=True):
        body = an_event(reference, provider_payment_id=f"BA-{named}")
        a_delivery(body, provider="bank", delivery_id=f"msg_{named}")
        next(line for line in journal if line.get("step") == f"{named}.0")["body"] = body.decode()
    next(line for line in journal if line.get("planted"))["planted"] = None
    drain(a_desk(a_provider("bank")), batches_max=5)
    seal()
    said = told(tmp_path / "bank.jsonl", journal)
    checks = books_checks(process.signing_key(), process.heads_file(), judges())

    def found(lie: str) -> set[str]:
        heard: set[str] = set()
        with suppress(Undone), transaction() as session:
            execute(session, "SET LOCAL session_replication_role = replica")
            execute(session, lie)
            broken = [{"what": b.what, "where": b.where} for b in run_checks(session, checks)]
            heard |= set(differences(said, read_held(session, said.answered, broken)))
            raise Undone
        return heard

    honest = found("SELECT 1")
    assert all(each.startswith("Left at the end") for each in honest), honest
    assert [what for what, lie in LIES.items() if not found(lie) - honest] == []


def test_a_payment_booked_again_under_another_name_is_named(tmp_path: Path) -> None:
    doubled = {**HELD.booked, ("bank", "BA-c"): 16352}
    found = differences(told(tmp_path / "bank.jsonl", lines()), replace(HELD, booked=doubled))
    assert any("payment BA-c: the journal says nothing" in each for each in found)
