"""An extract holds all that is held about a person, and nothing of anybody else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from gateway.billing.bundles import make_selection
from gateway.db import execute, snapshot, transaction
from gateway.holders import HOLDERS
from gateway.privacy import own
from gateway.privacy.extract import extract
from tests.factories import NOON, a_delivery, a_desk, an_event, issue, rows_of
from tests.gateway.privacy.story import (
    GHIZLANE,
    NEIGHBOUR,
    enrolled,
    erased,
    extracted,
    rows_in,
    told,
)
from webhooks.inbox import drain

OF_NOBODY: Final = {
    "alembic_version": "of the schema",
    "api_key": "of programs",
    "category": "of the tariff",
    "inquiry_budget": "of providers",
    "issue_chunk": "spans of ids",
    "issue_run": "periods",
    "ledger_batch": "hashes and sums of all",
    "message_walk": "how far was looked, by ids",
    "outbox_message": "names of tasks",
    "reference_key": "one secret",
    "sending_hold": "an operator's own reasons, without what looks like a person's number",
    "staff": "people of the institution, who sign in: no payers",
}
"""Tables in which no payer can be found, and what they are of instead."""

PERSONAL: Final = {
    *("name", "given", "cnss", "cin", "phone", "ice", "email", "address", "commune"),
    *("body", "detail", "note", "because", "resolution", "signed"),
}
NOT_PERSONAL: Final = {"sending_hold.because", "staff.name"}


def test_every_table_is_answered_for(database: str) -> None:
    """A new table must be placed: with a holder of people's data, or among those of nobody."""
    tables = {
        table
        for (table,) in rows_of(
            database,
            "SELECT table_name FROM information_schema.tables"
            " WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'",
        )
    }
    placed = [own.TABLES, *(holder.tables for holder in HOLDERS), frozenset(OF_NOBODY)]
    assert set().union(*placed) == tables
    assert sum(map(len, placed)) == len(tables), "one table, two holders"


def test_no_table_of_nobody_has_a_column_that_names_somebody(database: str) -> None:
    columns = rows_of(
        database,
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND table_name = ANY(%s)",
        [list(OF_NOBODY)],
    )
    named = {
        f"{table}.{column}"
        for table, column in columns
        if PERSONAL & set(column.split("_")) and f"{table}.{column}" not in NOT_PERSONAL
    }
    assert named == set()


def test_all_of_a_person_and_nothing_of_the_neighbour(database: str, home: Path) -> None:
    told(home, GHIZLANE, NEIGHBOUR)
    document = extracted(GHIZLANE)
    text = json.dumps(document, ensure_ascii=False)
    assert [token for token in (*NEIGHBOUR.tokens, NEIGHBOUR.reference) if token in text] == []

    held = {each["name"]: each["rows"] for each in document["sections"]}
    counted = {name: len(rows) for name, rows in held.items() if rows}
    assert counted == {
        "register": 1,
        "invoices": 1,
        "invoice_lines": 1,
        "payments": 1,
        "allocations": 1,
        "books": 1,
        "receipts": 1,
        "attestations": 1,
        "events": 2,
        "kept_answers": 1,
        "deliveries": 2,
        "delivery_variants": 1,
        "institution_records": 1,
        "matches": 1,
    }
    (person,) = held["register"]
    assert (person["family_name"], person["family_name_ar"]) == ("Zouhairi", "الزهيري")
    assert (person["registered_on"], person["phone"]) == ("2026-11-01", GHIZLANE.phone)
    (payment,) = held["payments"]
    assert (payment["amount"], payment["paid_at"]) == ("163.52", "2026-11-18T13:00:00+01:00")
    assert held["receipts"][0]["signed"].startswith("AMO1:")
    own_delivery, typed = held["deliveries"]
    assert GHIZLANE.family_name.upper() in own_delivery["body"]
    assert GHIZLANE.cnss_number in typed["body"]
    assert held["matches"][0]["your_records"] == [held["institution_records"][0]["record_id"]]
    assert GHIZLANE.cnss_number not in json.dumps(held["kept_answers"])


def test_each_section_says_what_it_is_for_and_how_long_it_is_kept(
    database: str, home: Path
) -> None:
    told(home, GHIZLANE)
    sections = {each["name"]: each for each in extracted(GHIZLANE)["sections"]}
    for each in sections.values():
        for word in ("title", "purpose"):
            assert each[word].keys() == {"fr", "ar"}, each["name"]
    assert sections["invoices"]["title"] == {"fr": "Factures", "ar": "الفواتير"}
    assert sections["register"]["kept"].startswith(
        "Until 10 years after the last movement of money and the last day of the registration; then"
        " it is erased (not confirmed; setting of this installation"
    )
    assert sections["deliveries"]["kept"].startswith("550 days, then what names people in it")
    assert sections["payments"]["kept"].startswith("With the books")
    assert sections["kept_answers"]["kept"].startswith("Seven days")


def test_what_is_shared_is_told_by_the_persons_part_alone(database: str) -> None:
    """A reference that pays two people's invoices, by a payer who is neither's."""
    for who in (GHIZLANE, NEIGHBOUR):
        enrolled(who)
    issue("2026-11")
    with transaction() as session:
        ids = execute(session, "SELECT id FROM invoice ORDER BY id").scalars().all()
        bundle = make_selection(session, ids, contributor_id=None, now=NOON)
        reference = bundle.reference
    memo = f"for {GHIZLANE.cnss_number} and {NEIGHBOUR.cnss_number}"
    a_delivery(an_event(reference, amount="327.04", provider_payment_id="FAMILY", memo=memo))
    drain(a_desk(), batches_max=2)

    document = extracted(GHIZLANE)
    text = json.dumps(document, ensure_ascii=False)
    others = (reference, "FAMILY", "327.04", *NEIGHBOUR.tokens)
    assert [each for each in others if each in text] == []
    (allocation,) = rows_in(document, "allocations")
    assert (allocation["amount"], allocation["payment"]) == ("163.52", None)
    (part,) = rows_in(document, "bundles")
    assert (part["reference"], len(part["your_invoices"])) == (None, 1)
    # It mentions her, and told of a payment that is not hers alone.
    (delivery,) = rows_in(document, "deliveries")
    assert (delivery["provider"], delivery["body"]) == ("cashplus", None)
    assert rows_in(document, "payments") == []
    with snapshot() as session:
        assert extract(session, 999, HOLDERS, now=NOON) is None


def test_after_an_erasure_the_extract_tells_what_is_left(database: str, home: Path) -> None:
    told(home, GHIZLANE)
    erased(GHIZLANE)
    document = extracted(GHIZLANE)
    text = json.dumps(document, ensure_ascii=False)
    assert [token for token in GHIZLANE.tokens if token in text] == []
    assert rows_in(document, "register")[0]["cnss_number"] == f"erased-{GHIZLANE.id}"
    (erasure,) = rows_in(document, "erasures")
    assert erasure["why"] == "letter of 5 January 2038"
    assert rows_in(document, "payments")[0]["amount"] == "163.52"
    (delivery,) = [r for r in rows_in(document, "deliveries") if r["masked_at"]]
    assert "[masked]" in delivery["body"]
