"""An erasure takes out what names a person, everywhere, once it may; and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Final

import psycopg
import pytest

from gateway import process
from gateway.billing import reassessment
from gateway.billing.invoices import write_notices
from gateway.db import execute, snapshot, transaction
from gateway.dues.tariff import tariff
from gateway.errors import Unusable
from gateway.holders import HOLDERS, erase_those_due
from gateway.models import ReturnKind, ReturnState
from gateway.people import contributors as register
from gateway.people.activities import ask_for_reassessment
from gateway.people.attestations import NotUpToDate, attest
from gateway.people.contributors import Enrolled
from gateway.people.reading import COLUMNS, WrongPerson
from gateway.privacy import erasure
from gateway.privacy.erasure import NotErasable, erase, erase_due
from gateway.privacy.periods import erasable_on
from gateway.retention import FullYears
from tests.factories import (
    NOON,
    PATIENCE_SECONDS,
    a_contributor,
    a_delivery,
    a_report,
    a_return,
    an_event,
    issue,
    record,
    rows_of,
    seal,
    the_books,
)
from tests.gateway.pages import states
from tests.gateway.pages.conftest import set_clock
from tests.gateway.privacy.story import (
    GHIZLANE,
    LATER,
    NEIGHBOUR,
    WHY,
    Somebody,
    all_promises,
    enrolled,
    erased,
    extracted,
    places_of,
    told,
)

NAMING: Final = {
    "contributor.cnss_number",
    "contributor.cin",
    "contributor.family_name",
    "contributor.given_name",
    "contributor.family_name_ar",
    "contributor.given_name_ar",
    "contributor.phone",
    "idempotent_answer.body",
    "institution_record.cnss_number",
    "institution_record.cin",
    "institution_record.name",
    "webhook_delivery.body",
    "webhook_variant.body",
}
"""Every place in which the story names somebody; most of them in several ways."""


def test_nothing_names_the_person_afterwards_and_the_books_stand(database: str, home: Path) -> None:
    told(home, GHIZLANE, NEIGHBOUR)
    assert places_of(database, GHIZLANE.tokens) == NAMING
    before, of_neighbour = the_books(), extracted(NEIGHBOUR)
    assert all_promises() == []

    found = erased(GHIZLANE).found

    assert found == {
        "contributor": 1,
        "idempotent_answer": 1,
        # Her own, and the one of nobody's in which somebody typed her number.
        "webhook_delivery": 2,
        "webhook_variant": 1,
        "institution_record": 1,
    }
    assert places_of(database, GHIZLANE.tokens) == set()
    assert the_books() == before
    assert all_promises() == []
    assert places_of(database, NEIGHBOUR.tokens) == NAMING
    assert extracted(NEIGHBOUR) == of_neighbour
    assert rows_of(
        database, "SELECT contributor_id, asked_by, why, erased_at, found FROM erasure"
    ) == [(GHIZLANE.id, "test", WHY, LATER, found)]
    # What the books go by stays: category, region, days.
    ((number, category, region, left_on),) = rows_of(
        database,
        "SELECT cnss_number, category_code, region, left_on FROM contributor WHERE id = %s",
        [GHIZLANE.id],
    )
    assert (number, category) == (f"erased-{GHIZLANE.id}", "artisan-untaxed")
    assert (region, left_on) == (GHIZLANE.region, GHIZLANE.left_on)
    with pytest.raises(NotErasable, match=r"were erased on 2038-01-05: nothing is left\."):
        erased(GHIZLANE)


def test_a_delivery_keeps_its_money_and_the_rest_of_its_fields(database: str, home: Path) -> None:
    told(home, GHIZLANE)
    erased(GHIZLANE)
    ((body,),) = rows_of(
        database,
        "SELECT body FROM webhook_delivery WHERE delivery_id = %s",
        [GHIZLANE.ids["delivery"]],
    )
    data = json.loads(bytes(body))["data"]
    assert (data["reference"], data["amount"]) == (GHIZLANE.reference, "163.52")
    assert (data["payer_name"], data["cnss_number"]) == ("[masked]", "[masked]")
    # No field of a person's, as far as its name tells.
    assert data["remark"] == "card [erased] of [erased]"


def test_what_people_wrote_about_her_deliveries_and_records_goes_too(
    database: str, home: Path
) -> None:
    """Exceptions about a record, and a delivery that mentions her and told of nobody's payment."""
    told(home, GHIZLANE, NEIGHBOUR)
    with transaction() as session:
        execute(
            session,
            "INSERT INTO coded_exception (code, subject, detail, opened_at, resolved_at,"
            " resolution) SELECT code, subject, '{}', :now, :now, :why FROM ("
            "SELECT 'conflicting_record' AS code, 'record:' || record_id AS subject"
            " FROM institution_record WHERE cnss_number = :number UNION ALL"
            " SELECT 'conflicting_delivery', 'delivery:cashplus/' || delivery_id"
            " FROM webhook_delivery WHERE strpos(encode(body, 'escape'), 'memo') > 0) AS about",
            {"why": f"{GHIZLANE.given_name} called", "number": GHIZLANE.cnss_number, "now": NOON},
        )
    assert erased(GHIZLANE).found["coded_exception.resolution"] == 2
    assert places_of(database, GHIZLANE.tokens) == set()


def test_names_in_free_texts_and_in_place_of_a_reference_go_too(database: str, home: Path) -> None:
    told(home, GHIZLANE, NEIGHBOUR)
    typed = (f"CNSS {GHIZLANE.cnss_number}", NEIGHBOUR.cnss_number, GHIZLANE.family_name)
    record(*(a_report(text, amount_minor=100) for text in typed))
    with transaction() as session:
        execute(
            session,
            "UPDATE coded_exception SET resolved_at = :now, resolution = 'not hers, ' ||"
            " (SELECT reference_given FROM payment WHERE payment.id = payment_id)",
            {"now": NOON},
        )
        execute(
            session,
            "INSERT INTO activity (contributor_id, category_code, since, because, recorded_at)"
            " VALUES (:id, 'artisan-untaxed', '2026-11-01', :because, :now)",
            {"id": GHIZLANE.id, "because": f"{GHIZLANE.given_name} said so", "now": NOON},
        )
        execute(
            session,
            "INSERT INTO coded_exception (code, subject, detail, opened_at, resolved_at,"
            " resolution) VALUES ('overpaid', :subject, CAST(:detail AS jsonb), :now, :now, :why)",
            {
                "subject": f"invoice:{GHIZLANE.reference}",
                "detail": json.dumps({"said": [{"by": GHIZLANE.phone}], "amount": "1.00"}),
                "why": f"{GHIZLANE.family_name} called",
                "now": NOON,
            },
        )
    found = erased(GHIZLANE).found
    kinds = ("payment", "activity.because", "coded_exception.resolution", "coded_exception.detail")
    assert [found[kind] for kind in kinds] == [1, 1, 2, 1]
    assert rows_of(
        database, "SELECT detail, resolution FROM coded_exception WHERE code = 'overpaid'"
    ) == [({"said": [{"by": "[erased]"}], "amount": "1.00"}, "[erased] called")]
    query = "SELECT count(*) FROM coded_exception WHERE resolution = 'not hers, CNSS [erased]'"
    assert rows_of(database, query) == [(1,)]
    # A name alone may be anybody's: of nobody's payments only numbers are hers.
    assert rows_of(
        database, "SELECT reference_given FROM payment WHERE invoice_id IS NULL ORDER BY id"
    ) == [("nothing",), ("",), (NEIGHBOUR.cnss_number,), (GHIZLANE.family_name,)]


# -- refused --------------------------------------------------------------------------------------


def test_the_set_time_is_counted_from_the_last_movement_and_the_last_day(
    database: str, home: Path
) -> None:
    told(home, GHIZLANE)
    noon = datetime(2036, 11, 29, 12, 0, tzinfo=UTC)
    with pytest.raises(NotErasable) as refused:
        erased(GHIZLANE, now=noon)
    (reason,) = refused.value.reasons
    assert reason.startswith(
        "The earliest day is 2036-11-30: 10 years after the registration ended, on 2026-11-30"
        " (not confirmed; setting of this installation"
    )
    # Money that moves later moves the day; what is refused has changed nothing.
    given_back = a_return(f"CP-{GHIZLANE.reference}", 52, stated_at=noon)
    record(given_back, now=noon)
    record(a_report(GHIZLANE.reference, amount_minor=52), now=noon)
    with pytest.raises(NotErasable, match="2046-11-29: 10 years after money last moved"):
        erased(GHIZLANE, now=noon + timedelta(days=700))
    assert rows_of(database, "SELECT count(*) FROM erasure") == [(0,)]
    assert "contributor.phone" in places_of(database, GHIZLANE.tokens)


def test_the_29th_of_february_has_its_day_in_other_years() -> None:
    ten = FullYears(years=10, source="test", verified=True)
    assert erasable_on(date(2028, 2, 29), ten) == date(2038, 3, 1)
    assert erasable_on(date(2028, 2, 28), ten) == date(2038, 2, 28)


def overpaid(who: Somebody) -> None:
    record(a_report(who.reference, amount_minor=20000))


def quoted_by_number(who: Somebody) -> None:
    record(a_report(who.reference), a_report(f"CNSS {who.cnss_number}"))


def disputed(who: Somebody) -> None:
    named = f"P-{who.reference}"
    record(a_report(who.reference, provider_payment_id=named))
    dispute = {"kind": ReturnKind.DISPUTE, "state": ReturnState.ANNOUNCED, "return_id": named}
    record(a_return(named, 16352, **dispute))


def on_a_card_page(who: Somebody) -> None:
    record(a_report(who.reference))
    with transaction() as session:
        execute(
            session,
            "INSERT INTO payment_attempt (id, invoice_id, provider, amount_minor, language, state,"
            " made_at, expires_at) SELECT 'A1', id, 'card', 16352, 'fr', 'made', :now, :now"
            " FROM invoice WHERE reference = :reference",
            {"now": NOON, "reference": who.reference},
        )


def with_a_code_for_several(who: Somebody) -> None:
    """Left for another way, and still taken by agencies."""
    record(a_report(who.reference))
    together = states.several(who.reference, states.an_invoice())
    with transaction() as session:
        execute(
            session,
            "INSERT INTO payment_attempt (id, bundle_id, provider, manner, code, amount_minor,"
            " language, state, session_id, closed_because, ask_at, made_at, expires_at)"
            " SELECT 'A2', id, 'cashplus', 'token', 'C1', 16352, 'fr', 'closed', 'S1',"
            " 'left open', :now, :now, :now FROM bundle WHERE reference = :reference",
            {"now": NOON, "reference": together},
        )


def in_line(who: Somebody) -> None:
    record(a_report(who.reference))
    with transaction() as session:
        ask_for_reassessment(session, [who.id], "test")


def still_to_be_acted_on(who: Somebody) -> None:
    record(a_report(who.reference))
    a_delivery(an_event(who.reference))


_HAPPENS: Final[tuple[tuple[Callable[[Somebody], None], str], ...]] = (
    (lambda _: None, "Invoices that are not settled: 1."),
    (overpaid, "36.48 MAD are held as the person's own credit"),
    (overpaid, "Open exceptions about the person: 1."),
    (quoted_by_number, "Open exceptions about the person: 1."),
    (disputed, "Open disputes: 1."),
    (on_a_card_page, "Pages to pay on that may still take money: 1."),
    (with_a_code_for_several, "Pages to pay on that may still take money: 1."),
    (in_line, "in line for re-assessment"),
    (still_to_be_acted_on, "Deliveries about the person, waiting or parked: 1."),
)


def test_whatever_is_open_is_named(database: str) -> None:
    people = [
        replace(GHIZLANE, cnss_number=f"18765{at}329", cin=f"QX{at}18273", ids={})
        for at in range(len(_HAPPENS))
    ]
    for who in people:
        enrolled(who)
    issue("2026-11")
    for who, (happens, sentence) in zip(people, _HAPPENS, strict=True):
        query = "SELECT reference FROM invoice WHERE contributor_id = %s"
        ((who.ids["reference"],),) = rows_of(database, query, [who.id])
        happens(who)
        with pytest.raises(NotErasable) as refused:
            erased(who)
        reasons = refused.value.reasons
        assert any(sentence in reason for reason in reasons), (sentence, reasons)
        assert not any("earliest" in reason for reason in reasons)
    # And the one of the other invoice of the reference for several.
    left = rows_of(database, "SELECT count(*) FROM contributor WHERE erased_at IS NULL")
    assert left == [(len(_HAPPENS) + 1,)]


def test_who_has_not_left_and_a_reason_that_names_are_refused(database: str) -> None:
    enrolled(GHIZLANE, left_on=None)
    with pytest.raises(NotErasable, match="has not left: note the last day first"):
        erased(GHIZLANE)
    for named in (GHIZLANE.cin, f"asked by ghizlane {GHIZLANE.family_name.upper()}"):
        with pytest.raises(Unusable, match="without the person's name and numbers"):
            erased(GHIZLANE, why=named)
    with pytest.raises(Unusable, match="Say why"):
        erased(GHIZLANE, why="  ")
    with transaction() as session:
        assert erase(session, 999, HOLDERS, asked_by="t", why="t", now=LATER) is None


# -- together with others -------------------------------------------------------------------------


def test_all_files_of_a_person_go_at_once(database: str) -> None:
    enrolled(GHIZLANE)
    with transaction() as session:
        other = a_contributor(
            session,
            family_name="Zouhairy",
            phone="+212600000001",
            cnss_number="387654329",
            merged_into_id=GHIZLANE.id,
        )
        of_merged = other.id
    assert of_merged is not None
    with transaction() as session:
        done = erase(session, of_merged, HOLDERS, asked_by="test", why=WHY, now=LATER)
    assert done is not None
    assert (done.contributor_id, done.found) == (GHIZLANE.id, {"contributor": 2})
    tokens = [*GHIZLANE.tokens, "Zouhairy", "387654329", "+212600000001"]
    assert places_of(database, tokens) == set()
    assert rows_of(database, "SELECT contributor_id FROM erasure ORDER BY 1") == [
        (GHIZLANE.id,),
        (of_merged,),
    ]


def test_who_is_due_is_erased_by_date_and_others_are_not(
    database: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(home, GHIZLANE, NEIGHBOUR)
    with transaction() as session:
        hindered = a_contributor(session, left_on=date(2026, 12, 31)).id
        assert hindered is not None
        execute(
            session,
            "INSERT INTO reassessment_due (contributor_id, because) VALUES (:id, 'test')",
            {"id": hindered},
        )
        a_contributor(session, left_on=date(2035, 1, 1))
    before = erase_due(HOLDERS, now=LATER - timedelta(days=700), asked_by="schedule", people_max=9)
    assert (before.erased, before.hindered, before.next_after) == ([], [], None)
    first = erase_due(HOLDERS, now=LATER, asked_by="schedule", people_max=2)
    assert [each.contributor_id for each in first.erased] == [GHIZLANE.id, NEIGHBOUR.id]
    assert first.next_after == NEIGHBOUR.id
    rest = erase_due(HOLDERS, now=LATER, asked_by="schedule", after=first.next_after, people_max=2)
    assert (rest.erased, rest.next_after) == ([], None)
    ((at, why),) = rest.hindered
    assert (at, "re-assessment" in why) == (hindered, True)
    assert places_of(database, [*GHIZLANE.tokens, *NEIGHBOUR.tokens]) == set()
    assert rows_of(database, "SELECT DISTINCT asked_by, why FROM erasure") == [
        ("schedule", "the set time has passed")
    ]
    assert all_promises() == []
    with transaction() as session:
        execute(session, "DELETE FROM reassessment_due")
    set_clock(monkeypatch, LATER)
    erase_those_due()
    assert rows_of(
        database, "SELECT count(*) FROM erasure WHERE contributor_id = %s", [hindered]
    ) == [(1,)]


def test_money_that_comes_during_an_erasure_waits_and_is_booked(
    database: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes second sees what the first did: it is never half of both."""
    told(home, GHIZLANE)
    reached, go_on, booked = Event(), Event(), list[str]()
    emptying = erasure._empty

    def held_up(*args: object, **options: object) -> dict[str, int]:
        reached.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return emptying(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(erasure, "_empty", held_up)
    erasing = Thread(target=erased, args=(GHIZLANE,))
    erasing.start()
    assert reached.wait(PATIENCE_SECONDS)
    report = a_report(GHIZLANE.reference, source="inquiry:cashplus/late")
    paying = Thread(target=lambda: booked.extend(record(report, now=LATER)))
    paying.start()
    _until(database, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'", 1)
    assert booked == []
    go_on.set()
    for thread in (erasing, paying):
        thread.join(PATIENCE_SECONDS)
    assert booked == ["booked"]
    seal()
    assert all_promises() == []
    # What is beyond what was due is credit, and asks what is to become of it.
    assert rows_of(
        database, "SELECT code FROM coded_exception WHERE resolved_at IS NULL AND payment_id > 0"
    ) == [("paid_twice",)]
    assert places_of(database, GHIZLANE.tokens) == set()


def _until(database: str, query: str, count: int) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        for _ in range(2_000):
            ((found,),) = connection.execute(query.encode()).fetchall()
            if found >= count:
                return
            connection.execute("SELECT pg_sleep(0.01)")
    raise AssertionError(f"never {count}: {query}")


_KILLED: Final = """
import os, signal, sys
from gateway import process
from gateway.privacy import erasure
from tests.gateway.privacy.story import GHIZLANE, erased
process.connect_database()
GHIZLANE.ids["id"] = int(sys.argv[1])
emptying = erasure._empty
def killed(*args, **options):
    emptying(*args, **options)
    os.kill(os.getpid(), signal.SIGKILL)
erasure._empty = killed
erased(GHIZLANE)
"""


def test_a_process_killed_in_the_middle_leaves_all(database: str, home: Path) -> None:
    told(home, GHIZLANE)
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(GHIZLANE.id)],
        capture_output=True,
        text=True,
        check=False,
        env={
            "WASL_DATABASE_URL": database,
            "WASL_HOME": str(home),
            "PYTHONPATH": str(Path(__file__).parents[3]),
        },
    )
    assert done.returncode == -9, done.stderr
    assert places_of(database, GHIZLANE.tokens) == NAMING
    assert rows_of(database, "SELECT count(*) FROM erasure") == [(0,)]
    erased(GHIZLANE)
    assert places_of(database, GHIZLANE.tokens) == set()


# -- afterwards -----------------------------------------------------------------------------------


def test_the_erased_are_not_billed_changed_merged_or_attested(database: str, home: Path) -> None:
    told(home, GHIZLANE)
    erased(GHIZLANE)
    with transaction() as session:
        # The days are what they were; only what names the person is gone.
        execute(session, "UPDATE contributor SET left_on = NULL")
    assert issue("2026-12").issued == 0
    key = process.signing_key()
    with transaction() as session:
        done = reassessment.reassess(
            session, [GHIZLANE.id], tariff(), key=key, now=LATER, because="test"
        )
        assert done == []
        with pytest.raises(NotUpToDate, match="were erased"):
            attest(session, GHIZLANE.id, process.receipt_keys(), tariff(), now=LATER)
        with pytest.raises(WrongPerson, match="were erased"):
            register.change(session, GHIZLANE.id, {"phone": ""}, tariff(), now=LATER)
        other = a_contributor(session).id
        assert other is not None
        for pair in ((GHIZLANE.id, other), (other, GHIZLANE.id)):
            with pytest.raises(Unusable, match="were erased"):
                reassessment.merge_files(
                    session, *pair, tariff(), because="test", key=key, now=LATER
                )
    # Its money is taken back years later: it is unpaid again, and no notice goes to nobody.
    record(a_return(f"CP-{GHIZLANE.reference}", 16352), now=LATER)
    assert rows_of(database, "SELECT status FROM invoice") == [("open",)]
    assert write_notices(home / "notices.csv", now=LATER) == 0


def test_the_same_number_enrolled_again_is_a_new_file(database: str, home: Path) -> None:
    told(home, GHIZLANE)
    values = dict.fromkeys(COLUMNS, "") | {
        "cnss_number": GHIZLANE.cnss_number,
        "family_name": "Zouhairi",
        "given_name": "Ghizlane",
        "category": "artisan-untaxed",
        "registered_on": "2037-12-01",
    }
    erased(GHIZLANE)
    with transaction() as session:
        became, new = register.enrol(session, values, tariff(), now=LATER)
    assert (became, new != GHIZLANE.id) == (Enrolled.NEW, True)
    with snapshot() as session:
        assert rows_of(database, "SELECT count(*) FROM contributor") == [(2,)]
        invoices = execute(session, "SELECT DISTINCT contributor_id FROM invoice").scalars()
        assert list(invoices) == [GHIZLANE.id]
