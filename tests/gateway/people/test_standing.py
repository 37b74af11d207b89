"""A person's standing from the books: invoices, payments, files, plans, remissions."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway import process
from gateway.cli import wasl
from gateway.cli.shared import Refused
from gateway.db import connect, execute, snapshot, transaction
from gateway.dues.rights import Because, RightsState
from gateway.dues.tariff import tariff
from gateway.errors import Unusable
from gateway.people.standing import PersonStanding, read_standing, why_not
from gateway.relief.plans import make_plan, review_plans
from gateway.relief.remissions import grant_remissions
from tests.factories import NOON, a_contributor, a_report, issue, record
from tests.gateway.pages.conftest import set_clock


def day(text: str) -> date:
    return date.fromisoformat(text)


def billed(*periods: str, **values: Any) -> tuple[int, dict[str, str]]:
    """Return a person who owes 163.52 a month, and the references of these periods."""
    with transaction() as session:
        person = a_contributor(session, **{"registered_on": date(2026, 1, 1), **values}).id
    assert person is not None
    for period in periods:
        issue(period)
    return person, references_of(person)


def references_of(person: int) -> dict[str, str]:
    with snapshot() as session:
        rows = execute(
            session,
            "SELECT period, reference FROM invoice WHERE contributor_id = :id ORDER BY period",
            {"id": person},
        )
        return {str(row[0]): str(row[1]) for row in rows}


def pay(reference: str, on: str, amount_minor: int = 16352) -> None:
    at = datetime.fromisoformat(f"{on}T10:00:00+00:00").astimezone(UTC)
    times = {"paid_at": at, "paid_at_given": at.isoformat(), "stated_at": at, "received_at": at}
    record(a_report(reference, amount_minor=amount_minor, **times), now=at)


def standing(person: int, on: str) -> PersonStanding:
    with snapshot() as session:
        found = read_standing(session, person, tariff(), on=day(on))
    assert found is not None
    return found


def test_nobody_has_no_standing(database: str) -> None:
    with snapshot() as session:
        assert read_standing(session, 404, tariff(), on=NOON.date()) is None


def test_who_pays_is_up_to_date_and_who_does_not_is_told_since_when(database: str) -> None:
    person, references = billed("2026-08", "2026-09", "2026-10")
    pay(references["2026-08"], "2026-08-20")
    pay(references["2026-09"], "2026-09-30")

    said = standing(person, "2026-10-31")
    assert (said.standing.up_to_date, said.standing.rights.state) == (True, RightsState.OPEN)
    assert said.standing.rights.until == day("2026-10-31")
    assert (said.arrears, said.total_minor, why_not(said)) == ((), 0, None)

    # 163.52 of October, 1 % for November and 1 % for December: 1.6352 twice, rounded once.
    said = standing(person, "2026-12-02")
    assert (said.standing.up_to_date, said.standing.since) == (False, day("2026-11-01"))
    assert said.standing.rights.because is Because.UNPAID
    [arrear] = said.arrears
    assert (arrear.period, arrear.reference) == ("2026-10", references["2026-10"])
    assert (arrear.principal_minor, arrear.penalty_minor, arrear.fee_minor) == (16352, 327, 0)
    assert (arrear.due_on, said.total_minor) == (day("2026-10-31"), 16679)
    assert why_not(said) == (
        "Not up to date since 2026-11-01: the contribution for 2026-10, due on 2026-10-31, is"
        " unpaid."
    )


def test_a_penalty_that_is_left_is_an_arrear_and_closes_nothing(database: str) -> None:
    person, references = billed("2026-09", "2026-10")
    pay(references["2026-10"], "2026-10-20")
    pay(references["2026-09"], "2026-10-05")
    said = standing(person, "2026-10-21")
    assert (said.standing.up_to_date, said.standing.rights.state) == (True, RightsState.OPEN)
    [arrear] = said.arrears
    assert (arrear.principal_minor, arrear.penalty_minor) == (0, 164)
    # The day before it was paid is judged as it was.
    assert standing(person, "2026-10-04").standing.rights.state is RightsState.CLOSED


def test_nothing_billed_and_left(database: str) -> None:
    person, _ = billed()
    said = standing(person, "2026-11-18")
    assert said.standing.rights.because is Because.NOTHING_BILLED
    assert why_not(said) == "No contribution has been paid yet: there is nothing to attest."
    assert said.unbilled == ()  # nothing was ever billed here

    person, references = billed("2026-08", left_on=date(2026, 8, 15))
    pay(references["2026-08"], "2026-08-20")
    assert standing(person, "2026-09-30").standing.rights.until == day("2026-09-30")
    assert standing(person, "2026-10-01").standing.rights.because is Because.LEFT


def test_the_first_and_the_last_days_of_the_register_can_be_judged(database: str) -> None:
    for registered_on in (date(1970, 1, 1), date(9999, 12, 31)):
        person, _ = billed(registered_on=registered_on)
        rights = standing(person, "2026-11-18").standing.rights
        assert rights.because is Because.NOTHING_BILLED


def test_late_billing_takes_no_rights_away(database: str) -> None:
    person, references = billed("2026-08")
    pay(references["2026-08"], "2026-08-20")
    rights = standing(person, "2026-11-18").standing.rights
    assert (rights.state, rights.until) == (RightsState.OPEN, day("2026-11-30"))


def test_issuing_a_quarter_says_nothing_of_months_before_the_first_month_issued(
    database: str,
) -> None:
    person, references = billed("2026-11")
    pay(references["2026-11"], "2026-11-20")
    issue("2026-Q4")
    assert standing(person, "2026-12-15").unbilled == ()


def test_what_was_never_billed_is_named_and_nothing_is_attested(database: str) -> None:
    person, references = billed("2026-08", "2026-10")
    for reference in references.values():
        pay(reference, "2026-10-20")
    said = standing(person, "2026-10-21")
    assert (said.standing.up_to_date, said.unbilled) == (True, ("2026-09",))
    assert "2026-09" in (why_not(said) or "")
    # Not due yet on its day; not before the person was registered either.
    assert standing(person, "2026-09-30").unbilled == ()
    before = standing(person, "2025-12-31")
    assert before.standing.rights.because is Because.NOTHING_BILLED
    issue("2026-09")
    pay(references_of(person)["2026-09"], "2026-10-20")
    assert (standing(person, "2026-10-21").unbilled, why_not(said) is None) == ((), False)
    assert why_not(standing(person, "2026-10-21")) is None


def test_all_files_of_a_person_count(database: str) -> None:
    other, references = billed("2026-09")
    person, own = billed("2026-10")
    pay(own["2026-10"], "2026-10-20")
    with transaction() as session:
        execute(
            session,
            "UPDATE contributor SET merged_into_id = :into WHERE id = :id",
            {"into": person, "id": other},
        )
        execute(
            session,
            "UPDATE invoice SET cancelled_at = now(), cancelled_because = 'twice'"
            " WHERE contributor_id = :id AND period = '2026-10'",
            {"id": other},
        )
    for asked in (person, other):
        said = standing(asked, "2026-11-18")
        assert said.contributor_id == person
        assert [a.reference for a in said.arrears] == [references["2026-09"]]


def test_a_plan_and_a_remission_count_while_they_stand(database: str) -> None:
    person, _ = billed("2026-02", "2026-03")
    made_at = datetime(2026, 5, 10, 12, tzinfo=UTC)
    with transaction() as session:
        make_plan(session, person, 2, None, key=process.signing_key(), now=made_at)
    said = standing(person, "2026-05-10")
    assert (said.standing.up_to_date, said.standing.rights.state) == (True, RightsState.OPEN)
    assert said.plan is not None
    # 163.52 twice, three months of penalty and two: 4.91 + 3.27.
    assert (said.plan.months, said.plan.amount_minor) == (2, 33522)
    assert standing(person, "2026-05-09").standing.rights.state is RightsState.CLOSED

    # The first instalment, of 30 June, is unpaid when the second falls due: the day decides,
    # whether or not anybody has reviewed the plan since.
    for _ in range(2):
        assert standing(person, "2026-08-01").plan is None
        assert standing(person, "2026-08-01").standing.since == day("2026-03-01")
        assert standing(person, "2026-07-31").standing.up_to_date
        with transaction() as session:
            now = datetime(2026, 8, 1, 12, tzinfo=UTC)
            review_plans(session, key=process.signing_key(), now=now)


def test_a_campaign_has_its_wait(database: str) -> None:
    """Loi 41-23: rights open on the first day of the fourth month after the first payment's."""
    debts = ("2023-09", "2023-10", "2023-11")
    person, references = billed(*debts, "2023-12", registered_on=date(2023, 9, 1))
    pay(references["2023-12"], "2024-02-10")
    with transaction() as session:
        now = datetime(2024, 2, 11, 12, tzinfo=UTC)
        grant_remissions(session, "loi-41-23", key=process.signing_key(), now=now)
    rights = standing(person, "2024-05-31").standing.rights
    assert (rights.state, rights.because, rights.reopens_on, rights.verified) == (
        RightsState.WAITING,
        Because.CAMPAIGN,
        day("2024-06-01"),
        True,
    )
    assert standing(person, "2024-06-01").standing.rights.state is RightsState.OPEN


def test_credit_is_told(database: str) -> None:
    person, references = billed("2026-10")
    pay(references["2026-10"], "2026-10-20", 20000)
    assert standing(person, "2026-10-21").credit_minor == 3648


def test_the_commands_tell_it_and_write_the_paper(
    database: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch, NOON)
    person, references = billed("2026-10", cnss_number="123456785")
    command = ["contributors", "standing", "123456785", "--on", "2026-11-18"]
    # Each command opens the services for itself, and closes them.
    told = CliRunner().invoke(wasl, command)
    assert told.output.splitlines() == [
        "Not up to date since 2026-11-01.",
        "Rights closed: unpaid, since 2026-11-01, reopen on 2026-11-18"
        " if all is paid by 2026-11-18 (unconfirmed rule).",
        f"  2026-10  {references['2026-10']}  due 2026-10-31  165.16 MAD",
        "Due 165.16 MAD; credit 0.00 MAD.",
    ]
    said = json.loads(CliRunner().invoke(wasl, [*command, "--json"]).output)
    assert (said["contributor_id"], said["total_due"]) == (str(person), "165.16")
    for wrong, words in (
        (["--on", "31/10/2026"], "not a day"),
        (["--on", "2019-01-01"], "before 2021-01-01"),
    ):
        refused = CliRunner().invoke(wasl, [*command[:3], *wrong])
        assert isinstance(refused.exception, Unusable)
        assert words in str(refused.exception)
    unknown = CliRunner().invoke(wasl, ["contributors", "standing", "999999999"])
    assert "Nobody is enrolled" in str(unknown.exception)

    paper = home / "attestation.pdf"
    asked = ["contributors", "attestation", "123456785", "--out", str(paper)]
    refused = CliRunner().invoke(wasl, asked)
    assert isinstance(refused.exception, Refused)
    assert refused.output.startswith(
        "Not up to date since 2026-11-01: the contribution for 2026-10"
    )
    assert not paper.exists()
    connect(database)
    pay(references["2026-10"], "2026-11-18")
    written = CliRunner().invoke(wasl, asked)
    assert written.output.startswith("Attestation A26-")
    assert paper.read_bytes().startswith(b"%PDF")
