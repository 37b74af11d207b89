from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from gateway.cli import wasl
from gateway.db import connect, transaction
from gateway.errors import Unusable
from gateway.models import Role
from gateway.settings import settings
from gateway.staff import add_staff, sealing_key
from tests.factories import NOON, the_books
from tests.gateway.collection.test_refunds import DUE, all_holds, paid
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
    asked = json.loads(run("ask", "cashplus/P1", "--amount", "50", *why, "--by", "Amina", "--json"))
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
    said = run("paid-out", "1", "--reference", "VIR 1", "--by", "Amina")
    assert said == "Refund 1 of 50.00 MAD (cashplus/P1): done.\n"
    assert the_books().invoices == [(reference, DUE, DUE - 5_000, "part_paid")]
    assert run("list") == "There is no refund.\n"
    assert len(json.loads(run("list", "--all", "--json"))["refunds"][0]["steps"]) == 3
    run("bounced", "1", *why, "--by", "Amina")
    assert the_books().exceptions == [("refund_failed", "refund:1")]
    all_holds()
