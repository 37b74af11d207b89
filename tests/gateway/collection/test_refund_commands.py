from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from gateway.cli import wasl
from gateway.db import connect, transaction
from gateway.errors import Unusable
from gateway.models import ReturnState, Role
from gateway.settings import settings
from gateway.staff import add_staff, sealing_key
from tests.factories import NOON, record, the_books
from tests.gateway.collection.test_refunds import DUE, a_dispute, all_holds, paid
from tests.gateway.pages.conftest import set_clock


def test_two_people_give_money_back_by_hand(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, NOON)

    def run(*words: str) -> str:
        """Return what a command prints. It closes the database when it is done."""
        done = CliRunner().invoke(wasl, ["refunds", *words])
        connect(database)
        if done.exception is not None:
            raise done.exception
        return done.output

    with transaction() as session:
        sealing = sealing_key(settings().keys_dir)
        for name, role in (("Amina", Role.FINANCE), ("Badr", Role.APPROVER)):
            add_staff(session, name, role, sealing=sealing, now=NOON)
    reference, _ = paid()
    why = ("--why", "Paid by mistake")
    asked = json.loads(
        run("ask", "payment:cashplus/P1", "--amount", "50", *why, "--by", "Amina", "--json")
    )
    assert (asked["state"], asked["way"], asked["asked_by"]) == ("asked", "by_hand", "staff Amina")
    for words, match in (
        (("approve", "1", *why, "--by", "Amina"), "role finance"),
        (("approve", "1", *why, "--by", "Nobody"), "nobody named"),
        (("ask", "cashplus/P1", "--amount", "113.53", *why, "--by", "Amina"), "113.52"),
        (("ask", "cashplus/P2", *why, "--by", "Amina"), "no payment"),
        (("ask", "cashplus/P1", "--amount", "1,5", *why, "--by", "Amina"), "--amount"),
        (("refuse", "9", *why, "--by", "Badr"), "no refund"),
        (("paid-out", "1", "--reference", "VIR 1", "--by", "Amina"), "only approved"),
    ):
        with pytest.raises(Unusable, match=match):
            run(*words)
    run("approve", "1", *why, "--by", "Badr")
    listed = run("list")
    assert "163.52 MAD are left" in listed
    assert "approved by staff Badr" in listed
    assert "transfer 50.00 MAD, then: wasl refunds paid-out 1" in listed
    said = run("paid-out", "1", "--reference", "VIR 1", "--by", "Amina")
    assert said == "Refund 1 of 50.00 MAD (cashplus/P1): done.\n"
    # Stopped: told with its reason until somebody has decided, and nothing to be transferred.
    run("ask", "cashplus/P1", "--amount", "100", *why, "--by", "Amina")
    run("approve", "2", *why, "--by", "Badr")
    record(a_dispute(2_000, state=ReturnState.ANNOUNCED))
    stopped = run("list")
    assert "cashplus/P1): dropped." in stopped
    assert "dropped by worker: The payment was disputed" in stopped
    assert "Next: do not transfer it" in stopped
    with pytest.raises(Unusable, match="--transferred-already"):
        run("paid-out", "2", "--reference", "VIR 2", "--by", "Amina")
    run("paid-out", "2", "--reference", "VIR 2", "--by", "Amina", "--transferred-already")
    assert the_books().invoices == [(reference, DUE, DUE - 15_000, "part_paid")]
    assert run("list").startswith("There is no refund under way. wasl refunds list --all")
    assert len(json.loads(run("list", "--all", "--json"))["refunds"][0]["steps"]) == 3
    assert len(json.loads(run("list", "--all", "--json"))["refunds"][1]["steps"]) == 4
    run("bounced", "1", *why, "--by", "Amina")
    assert ("refund_failed", "refund:1") in the_books().exceptions
    all_holds()
