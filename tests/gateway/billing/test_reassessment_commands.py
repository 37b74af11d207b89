from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from gateway.cli import wasl
from gateway.db import connect
from gateway.errors import Unusable
from tests.factories import NOON, broken_promises, issue
from tests.gateway.billing.test_reassessment import Due, invoices, reference
from tests.gateway.pages.conftest import set_clock
from tests.gateway.people.test_activities import a_person


def test_the_commands_change_what_is_owed(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, NOON)

    def run(*words: str) -> str:
        """Return what a command prints. It closes the database when it is done."""
        done = CliRunner().invoke(wasl, list(words))
        connect(database)
        if done.exception is not None:
            raise done.exception
        return done.output

    first = a_person(cnss_number="123456785")
    second = a_person(cnss_number="223456784")
    issue("2026-10")
    because = ("--because", "data of the tax office")
    add = ("contributors", "activity", "add", "123456785", "--category", "accounts-simplified")
    run(*add, "--since", "2026-10-01", *because)
    said = json.loads(run("contributors", "reassess", "--dry-run", "--json"))
    assert said["reassessed"][0]["notes"][0]["amount"] == "54.51"
    assert invoices(first)["2026-10"].charged == 16352
    last_line = run("contributors", "reassess").splitlines()[-1]
    assert last_line == "1 person, 1 note, 0 invoices issued."
    assert invoices(first)["2026-10"].charged == 21803

    leave = ("contributors", "left", "223456784", "--on")
    assert "left on 2026-09-01; none was noted before." in run(*leave, "2026-09-01", *because)
    said = run(*leave, "2026-09-02", *because)
    assert "left on 2026-09-02; before, it was 2026-09-01." in said
    assert "A later day" in said
    alone = ("contributors", "reassess", "--cnss", "223456784")
    with pytest.raises(Unusable, match="Say why"):
        run(*alone)
    run(*alone, *because)
    assert invoices(second)["2026-10"] == Due(0, 0, "cleared")

    listed = ("contributors", "activity", "list", "123456785")
    (known,) = json.loads(run(*listed, "--json"))["activities"]
    drop = ("contributors", "activity", "withdraw", "123456785", known["id"], *because)
    run(*drop)
    said = run(*listed)
    assert "2026-10-01 to now, withdrawn: data of the tax office" in said
    assert said.startswith("register: artisan-untaxed, 2022-01-01 to now\n")
    fee = ("invoices", "charge-fee", reference(first, "2026-10"), "--amount", "50.00")
    run(*fee, "--source", "order 12", *because)
    assert "Taken back" in run(*fee, "--take-back", "--source", "order 12", *because)
    merge = ("contributors", "merge", "123456785", "223456784", *because)
    assert len(json.loads(run(*merge, "--json"))["reassessed"]) == 1
    a_person(cnss_number="323456783", category_code="cpu")
    for wrong, words in (
        (("contributors", "reassess", "--cnss", "323456783", *because), "base"),
        (("contributors", "left", "999999999", "--on", "2026-09-01", *because), "Nobody"),
        (("contributors", "left", "123456785", "--on", "soon", *because), "not a day"),
        ((*add, "--base", "4,2", "--since", "2026-10-01", *because), "--base"),
        (("invoices", "charge-fee", "1", "--amount", "1", "--source", "x", *because), "reference"),
        (drop, "no activity"),
        (merge, "already"),
    ):
        with pytest.raises(Unusable, match=words):
            run(*wrong)
    assert broken_promises() == []
