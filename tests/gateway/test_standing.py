"""A person's standing from the books: invoices, payments, files, plans, remissions."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli import wasl
from gateway.cli.shared import Refused
from gateway.db import connect, execute, snapshot, transaction
from gateway.errors import Unusable
from gateway.rights import Because, RightsState
from gateway.standing import PersonStanding, read_standing, why_not
from gateway.tariff import tariff
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
    person, references = billed("2026-02", "2026-03")
    _relieve(person, references, "2026-05-10", plan=True)
    said = standing(person, "2026-05-10")
    assert (said.standing.up_to_date, said.standing.rights.state) == (True, RightsState.OPEN)
    assert said.plan is not None
    assert (said.plan.months, said.plan.amount_minor) == (2, 32704)
    assert standing(person, "2026-05-09").standing.rights.state is RightsState.CLOSED

    with transaction() as session:
        execute(session, "UPDATE invoice_relief SET ended_on = '2026-07-01'")
        execute(
            session,
            "UPDATE plan SET broken_on = '2026-07-01', broken_because = 'instalment-unpaid'",
        )
    assert standing(person, "2026-07-01").plan is None
    assert standing(person, "2026-07-01").standing.since == day("2026-03-01")
    assert standing(person, "2026-06-30").standing.up_to_date


def test_a_campaign_has_its_wait(database: str) -> None:
    """Loi 41-23: rights open on the first day of the fourth month after the first payment's."""
    person, references = billed("2026-02", "2026-03")
    _relieve(person, references, "2026-05-10", plan=False)
    rights = standing(person, "2026-08-31").standing.rights
    assert (rights.state, rights.because, rights.reopens_on, rights.verified) == (
        RightsState.WAITING,
        Because.CAMPAIGN,
        day("2026-09-01"),
        True,
    )
    assert standing(person, "2026-09-01").standing.rights.state is RightsState.OPEN


def test_credit_is_told(database: str) -> None:
    person, references = billed("2026-10")
    pay(references["2026-10"], "2026-10-20", 20000)
    assert standing(person, "2026-10-21").credit_minor == 3648


def _relieve(person: int, references: dict[str, str], on: str, *, plan: bool) -> None:
    """Grant a plan, or a remission of everything, on all invoices of a person, by bare rows."""
    values: dict[str, Any] = {"person": person, "on": day(on), "now": NOON}
    with transaction() as session:
        rule = execute(
            session,
            "INSERT INTO rule (rule, source, verified) VALUES ('r', 's', false) RETURNING id",
        ).scalar_one()
        if plan:
            bundle = execute(
                session,
                "INSERT INTO bundle (reference, kind, contributor_id, made_at)"
                " VALUES ('148275036141', 'plan', :person, :now) RETURNING id",
                values,
            ).scalar_one()
            by = execute(
                session,
                "INSERT INTO plan (contributor_id, bundle_id, rule, made_on, months, amount_minor,"
                " made_at) VALUES (:person, :bundle, 'plan@1', :on, 2, 32704, :now) RETURNING id",
                {**values, "bundle": bundle},
            ).scalar_one()
        else:
            by = execute(
                session,
                "INSERT INTO remission (contributor_id, campaign, granted_on, granted_at)"
                " VALUES (:person, 'loi-41-23@2026-11-22', :on, :now) RETURNING id",
                values,
            ).scalar_one()
        execute(
            session,
            f"INSERT INTO invoice_relief (invoice_id, {'plan' if plan else 'remission'}_id,"
            " granted_on, principal_rate, penalty_rate, fee_rate, stops_penalty, rule_id,"
            " granted_at) SELECT id, :by, :on, :share, :share, :share, true, :rule, :now"
            " FROM invoice WHERE contributor_id = :person",
            {**values, "by": by, "rule": rule, "share": 0 if plan else 1},
        )
    assert references


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
        "Rights closed: unpaid, since 2026-11-01, reopen on 2026-11-18 (unconfirmed rule).",
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
