"""What a person decides about matches stands; nothing is asked twice; matches as files."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from gateway import db
from gateway.cli import wasl
from gateway.db import snapshot, transaction
from gateway.errors import Unusable
from gateway.exception_queue import Finding, open_exceptions, resolve_exceptions
from gateway.models import ExceptionCode
from reconciliation.by_hand import join_by_hand, part_by_hand
from reconciliation.exports import export_matches
from reconciliation.records import import_records
from reconciliation.runs import reconcile
from reconciliation.tasks import is_due
from tests.reconciliation.factories import (
    NOW,
    a_file,
    a_line,
    a_payment,
    an_invoice,
    an_invoice_paid,
    asked,
    give_back,
    how_many,
    reverse,
)
from tests.reconciliation.test_shards import broken, forget_matches, matched

pytestmark = pytest.mark.usefixtures("database")


def run() -> dict[str, int]:
    return reconcile(period=None, now=NOW).exceptions


def recorded(tmp_path: Path, *lines: dict[str, str]) -> None:
    import_records(a_file(tmp_path / "r.csv", *lines), now=NOW)


def join(*names: str) -> None:
    with transaction() as session:
        payments = [f"cashplus/{name}" for name in names if name[0] == "P"]
        records = [name for name in names if name[0] == "R"]
        join_by_hand(session, payments, records, who="a person", why="the payer said so", now=NOW)


def part(payment: str, record: str) -> None:
    with transaction() as session:
        payment = f"cashplus/{payment}"
        part_by_hand(session, payment, record, who="a person", why="another debt", now=NOW)


def test_what_a_person_joined_is_kept_and_asked_about_when_it_changes(tmp_path: Path) -> None:
    an_invoice_paid(provider_payment_id="P1")
    reference, _ = an_invoice_paid(provider_payment_id="P2")
    recorded(
        tmp_path,
        a_line("nothing", record_id="R1", cnss_number="", cin="", amount="100.00"),
        a_line("nothing", record_id="R2", cnss_number="", cin="", amount="63.52"),
        a_line(reference, record_id="R3"),
    )
    run()
    join("P1", "R1", "R2")
    for again in (run(), run()):
        assert again == {}
    of_hand = [("P1", "R1", "by_hand"), ("P1", "R2", "by_hand")]
    assert matched() == [*of_hand, ("P2", "R3", "exact")]
    assert broken() == []

    reverse("P1")
    reverse("P2")
    assert run() == {"amount_differs": 1, "record_without_payment": 1}
    assert (matched(), asked()[0]) == (of_hand, ("amount_differs", "payment:cashplus/P1"))
    part("P1", "R1")
    assert run() == {"record_without_payment": 3}
    assert (matched(), broken()) == ([], [])


def test_what_a_person_parted_is_matched_no_more_until_he_joins_it(tmp_path: Path) -> None:
    reference, _ = an_invoice_paid(provider_payment_id="P1")
    recorded(tmp_path, a_line(reference, record_id="R1"))
    assert run() == {}
    part("P1", "R1")
    part("P1", "R1")
    assert (matched(), how_many("parted_pair")) == ([], 1)
    for shards in (1, 2):
        found = reconcile(period=None, now=NOW, shards=shards)
        assert found.exceptions == {"payment_without_record": 1, "record_without_payment": 1}
        assert (matched(), broken()) == ([], [])
    join("P1", "R1")
    assert (run(), matched()) == ({}, [("P1", "R1", "by_hand")])
    assert asked() == []


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("P1", "P2", "R1", "R2"), "one payment with records"),
        (("P1", "R2"), "comes to 163.52"),
        (("P9", "R1"), "no payment cashplus/P9"),
        (("P1", "R9"), "no record R9"),
        (("P1", "R3"), "taken back"),
        (("P1", "R1", "R1"), "named twice"),
    ],
)
def test_what_cannot_be_joined_is_refused(
    tmp_path: Path, names: tuple[str, ...], says: str
) -> None:
    first, _ = an_invoice_paid(provider_payment_id="P1")
    an_invoice_paid(provider_payment_id="P2")
    recorded(
        tmp_path,
        a_line(first, record_id="R1"),
        a_line(record_id="R2", amount="1.00"),
        a_line(record_id="R3", amount="-163.52"),
    )
    with pytest.raises(Unusable, match=says):
        join(*names)
    assert matched() == []


def test_what_was_paid_beyond_a_record_is_closed_by_who_names_the_difference(
    tmp_path: Path, database: str
) -> None:
    reference, _ = an_invoice_paid(provider_payment_id="P1", amount_minor=20_000)
    recorded(tmp_path, a_line(reference, record_id="R1"))
    told = CliRunner().invoke(wasl, ["reconcile"])
    assert told.stdout.splitlines() == [
        "Run 1: 0 payments matched, 1 question open.",
        "  payments: 200.00 MAD compared, 0.00 matched, 200.00 left open",
        "  records: 163.52 MAD compared, 163.52 left open; 36.48 less than the payments",
        "  amount_differs: 1",
    ]
    words = ["matches", "join", "--payment", "cashplus/P1", "--record", "R1", "--why", "too much"]
    for wrong in ((), ("--difference", "36.47"), ("--difference", "-36.48")):
        refused = CliRunner().invoke(wasl, [*words, *wrong])
        assert "--difference 36.48" in str(refused.exception), wrong
    assert CliRunner().invoke(wasl, [*words, "--difference", "36.48"]).exit_code == 0
    told = CliRunner().invoke(wasl, ["reconcile"])
    assert told.stdout.splitlines()[2].endswith("0.00 left open; as much as the payments")
    db.connect(database)  # a command ends with its connections
    for _ in range(2):
        assert (run(), asked(), broken()) == ({}, [], [])
        assert matched() == [("P1", "R1", "by_hand_differing")]
    # What is so no more is asked about, as of all that a person joined.
    give_back("P1", 3_648)
    assert run() == {"amount_differs": 1}
    part("P1", "R1")
    join("P1", "R1")
    assert (run(), matched()) == ({}, [("P1", "R1", "by_hand")])


def test_what_was_paid_twice_is_asked_once_by_whoever_comes_first(tmp_path: Path) -> None:
    with transaction() as session:
        invoice = an_invoice(session)
        for name in ("P1", "P2"):
            a_payment(session, invoice, provider_payment_id=name)
    recorded(tmp_path, a_line(invoice.reference, record_id="R1"))
    for _ in range(2):
        # In the second run the record is in a group of the first.
        assert run() == {"paid_twice": 1}
        assert asked() == [("paid_twice", "payment:cashplus/P2")]
    assert how_many("coded_exception") == 1
    code, subject = ExceptionCode.PAID_TWICE, "payment:cashplus/P2"
    with transaction() as session:
        resolve_exceptions(session, code, [subject], because="sent back — key a", now=NOW)
    assert (run(), asked()) == ({}, [])

    # What booking asked stays booking's.
    forget_matches()
    with transaction() as session:
        finding = Finding(code, "payment:cashplus/P1", {"reference": "1", "beyond": "163.52"})
        open_exceptions(session, [finding], now=NOW)
        a_payment(
            session, invoice, provider_payment_id="P0", paid_at=datetime(2026, 11, 1, tzinfo=UTC)
        )
    assert run() == {"paid_twice": 1}
    assert asked() == [("paid_twice", "payment:cashplus/P1")]
    reverse("P1")
    run()
    assert asked() == [("paid_twice", "payment:cashplus/P1")]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_matches_of_some_days_are_written_in_their_order(tmp_path: Path, form: str) -> None:
    november, _ = an_invoice_paid(provider_payment_id="P1")
    with transaction() as session:
        invoice = an_invoice(session)
        # 23:30 UTC is the next day in Casablanca.
        paid_at = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)
        a_payment(session, invoice, provider_payment_id="P2", paid_at=paid_at)
    recorded(tmp_path, a_line(invoice.reference, record_id="R0"), a_line(november, record_id="R1"))
    run()
    out = tmp_path / f"m.{form}"

    def written(from_on: date, to_on: date) -> list[tuple[object, ...]]:
        with snapshot() as session:
            lines = export_matches(session, out, from_on=from_on, to_on=to_on, form=form)
        reader = "read_csv" if form == "csv" else "read_parquet"
        with duckdb.connect() as con:
            found = con.execute(f"SELECT * EXCLUDE group_id FROM {reader}('{out}')")
            names = [column[0] for column in found.description or ()]
            assert names == ["payment_id", "record_id", "rule", "score"]
            rows = found.fetchall()
        assert len(rows) == lines
        return rows

    first = ("cashplus/P1", "R1", "exact", 100)
    second = ("cashplus/P2", "R0", "exact", 100)
    assert written(date(2026, 11, 1), date(2026, 11, 30)) == [first]
    assert written(date(2026, 12, 1), date(2026, 12, 1)) == [second]
    assert written(date(2026, 11, 18), date(2026, 12, 1)) == [first, second]


def test_a_day_has_one_run_after_its_time(tmp_path: Path) -> None:
    # 09:00 UTC is 10:00 in Casablanca.
    assert not is_due(NOW, time(5))
    reference, _ = an_invoice_paid()
    recorded(tmp_path, a_line(reference))
    assert [is_due(NOW, at) for at in (time(5), time(10), time(10, 1), None)] == [
        True,
        True,
        False,
        False,
    ]
    run()
    assert not is_due(NOW, time(5))
