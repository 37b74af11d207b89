"""Why a payment belongs to a record: what is told, and what a person's word may not undo."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.db import execute, snapshot, transaction
from gateway.errors import Unusable
from reconciliation.by_hand import RULE, RULE_DIFFERING, part_by_hand
from reconciliation.explaining import explain_payment, explain_record
from reconciliation.matching import RULES_IN_WORDS, Rule
from tests.reconciliation.factories import NOW, a_line, an_invoice_paid
from tests.reconciliation.test_by_hand import join, part, recorded, run
from tests.reconciliation.test_shards import broken, matched

pytestmark = pytest.mark.usefixtures("database")


def test_every_rule_has_words() -> None:
    assert set(RULES_IN_WORDS) == {*Rule, RULE, RULE_DIFFERING}


def test_both_sides_say_by_which_rule_and_what_was_before(tmp_path: Path) -> None:
    reference, _ = an_invoice_paid(provider_payment_id="P1")
    recorded(tmp_path, a_line(reference, record_id="R1"))
    run()
    with snapshot() as session:
        payment = explain_payment(session, "cashplus/P1")
        record = explain_record(session, "R1")
    (line,) = payment["matched"]
    assert (line["rule"], line["score"], line["record"]) == ("exact", 100, "R1")
    assert line["means"] == "the same reference and the same amount"
    assert (payment["reference"], record["matched"], record["open"]) == (reference, [line], [])

    part("P1", "R1")
    run()
    with snapshot() as session:
        payment = explain_payment(session, "cashplus/P1")
    assert payment["matched"] == []
    assert [row["record"] for row in payment["parted"]] == ["R1"]
    assert [row["undone_because"] for row in payment["undone"]] == ["a person parted it"]
    assert [row["code"] for row in payment["open"]] == ["payment_without_record"]


def test_a_join_refuses_what_is_matched_with_others(tmp_path: Path) -> None:
    reference, _ = an_invoice_paid(provider_payment_id="P1")
    an_invoice_paid(provider_payment_id="P2")
    recorded(tmp_path, a_line(reference, record_id="R1"))
    run()
    with pytest.raises(Unusable, match=r"cashplus/P1 is matched with R1 \(exact, 100\)"):
        join("P2", "R1")
    join("P1", "R1")


def test_a_reason_names_nobody(tmp_path: Path) -> None:
    reference, _ = an_invoice_paid(provider_payment_id="P1")
    recorded(tmp_path, a_line(reference, record_id="R1"))
    with transaction() as session, pytest.raises(Unusable, match="CNSS number"):
        part_by_hand(session, "cashplus/P1", "R1", who="a person", why="CNSS 123456794", now=NOW)


def test_what_is_not_there_is_said() -> None:
    with snapshot() as session:
        with pytest.raises(Unusable, match="There is no payment P1"):
            explain_payment(session, "P1")
        with pytest.raises(Unusable, match="There is no record R1"):
            explain_record(session, "R1")


def test_what_its_own_reference_says_later_is_surer(tmp_path: Path) -> None:
    """A record without a reference was matched by the person; then the payment's own one came."""
    reference, _ = an_invoice_paid(provider_payment_id="P1")
    with snapshot() as session:
        number: str = execute(
            session,
            "SELECT cnss_number FROM contributor c JOIN invoice i ON i.contributor_id = c.id"
            " WHERE reference = :reference",
            {"reference": reference},
        ).scalar_one()
    recorded(tmp_path, a_line("nothing", record_id="R1", cnss_number=number, cin=""))
    run()
    assert [(name, rule) for _, name, rule in matched()] == [("R1", "identity")]

    recorded(tmp_path, a_line(reference, record_id="R2", cnss_number=number))
    run()
    assert matched() == [("P1", "R2", "exact")]
    with snapshot() as session:
        (undone,) = explain_record(session, "R1")["undone"]
    assert undone["undone_because"] == "its own reference has come since"
    run()
    assert (matched(), broken()) == ([("P1", "R2", "exact")], [])
