"""What was matched on less than the reference is doubted when a rival comes: in any order of files,
with runs in between, one end."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.db import execute, snapshot, transaction
from reconciliation.runs import RunResult, reconcile
from tests.reconciliation.factories import (
    NOW,
    a_line,
    a_payment,
    an_invoice,
    an_invoice_paid,
    asked,
    how_many,
    reverse,
)
from tests.reconciliation.test_shards import broken, imported, matched

pytestmark = pytest.mark.usefixtures("database")

A_RIVAL_CAME = "what it may be mistaken for has come since"


def run(period: str | None = None) -> RunResult:
    return reconcile(period=period, now=NOW)


def number_of(reference: str) -> str:
    with snapshot() as session:
        number: str = execute(
            session,
            "SELECT c.cnss_number FROM invoice i JOIN contributor c ON c.id = i.contributor_id"
            " WHERE i.reference = :reference",
            {"reference": reference},
        ).scalar_one()
    return number


def slipped(digits: str) -> str:
    """Return digits of which one, in the middle, was written wrong."""
    at = len(digits) // 2
    return f"{digits[:at]}{(int(digits[at]) + 1) % 10}{digits[at + 1 :]}"


def of_nobody(record_id: str, number: str, **other: str) -> dict[str, str]:
    """A line without a reference, of whoever has the number."""
    return a_line("nothing", **{"record_id": record_id, "cnss_number": number, "cin": "", **other})


@pytest.mark.parametrize("told", ["once", "in turn"])
@pytest.mark.parametrize("by", ["a slip of the number", "the number", "a slip of the reference"])
def test_records_that_cannot_be_told_apart_are_a_tie_whenever_each_comes(
    tmp_path: Path, by: str, told: str
) -> None:
    reference, _ = an_invoice_paid(provider_payment_id="P")
    number = number_of(reference)
    lines = [
        a_line(slipped(reference), record_id=record_id, cnss_number="", cin="")
        if by == "a slip of the reference"
        else of_nobody(record_id, number if by == "the number" else slipped(number))
        for record_id in ("R1", "R2")
    ]
    if told == "in turn":
        imported(tmp_path, lines[:1])
        assert run().matched == 1
        lines = lines[1:]
    imported(tmp_path, lines, name="2.csv")

    run()

    assert matched() == []
    assert ("ambiguous_match", f"invoice:{reference}") in asked()
    undone = how_many("undone_match", f"undone_because = '{A_RIVAL_CAME}'")
    assert undone == (1 if told == "in turn" else 0)


@pytest.mark.parametrize("told", ["once", "in turn"])
def test_payments_that_cannot_be_told_apart_are_a_tie_whenever_each_comes(
    tmp_path: Path, told: str
) -> None:
    with transaction() as session:
        invoice = an_invoice(session)
        a_payment(session, invoice, provider_payment_id="P1")
    imported(tmp_path, [of_nobody("R1", number_of(invoice.reference))])
    if told == "in turn":
        assert run().matched == 1
    with transaction() as session:
        a_payment(session, session.merge(invoice), provider_payment_id="P2")
    run()
    assert matched() == []


@pytest.mark.parametrize("told", ["once", "in turn"])
@pytest.mark.parametrize("name", ["EL AMRANI Fatima", "El Amrani Karima"])
def test_a_number_of_another_name_is_a_doubt_when_its_own_is_a_slip_away(
    tmp_path: Path, name: str, told: str
) -> None:
    reference, _ = an_invoice_paid(provider_payment_id="P")
    number = number_of(reference)
    mistaken = of_nobody("R1", number, name="Youssef Benkirane")
    own = of_nobody("R2", slipped(number), name=name)
    for lines in [[mistaken], [own]] if told == "in turn" else [[mistaken, own]]:
        imported(tmp_path, lines)
        run()
    assert matched() == []
    assert ("ambiguous_match", f"invoice:{reference}") in asked()
    assert how_many("undone_match") == (1 if told == "in turn" else 0)


@pytest.mark.parametrize("told", ["once", "in turn"])
def test_a_record_that_one_name_says_and_the_own_nearly_is_a_doubt_whenever_each_comes(
    tmp_path: Path, told: str
) -> None:
    with transaction() as session:
        mistaken, own = an_invoice(session), an_invoice(session)
        a_payment(session, mistaken, provider_payment_id="P")
    number, nearly = number_of(mistaken.reference), number_of(own.reference)
    with transaction() as session:
        for old, new, given, family in (
            (number, "112233445", "Youssef", "Benkirane"),
            (nearly, "112233446", "Fatima", "El Amrani"),
        ):
            execute(
                session,
                "UPDATE contributor SET cnss_number = :new, given_name = :given,"
                " family_name = :family WHERE cnss_number = :old",
                {"old": old, "new": new, "given": given, "family": family},
            )
    imported(tmp_path, [of_nobody("R", "112233445", name="EL AMRANI Fatima")])
    if told == "in turn":
        assert run().matched == 1
    with transaction() as session:
        a_payment(session, session.merge(own), provider_payment_id="Q")
    run()
    assert matched() == []
    assert how_many("undone_match") == (1 if told == "in turn" else 0)


@pytest.mark.parametrize("by", ["the reference", "the number"])
def test_a_payment_that_was_being_booked_while_a_run_looked_is_new_to_the_next(
    tmp_path: Path, by: str
) -> None:
    with transaction() as session:
        invoice = an_invoice(session)
        a_payment(session, invoice, provider_payment_id="P2")
    line = a_line(invoice.reference, record_id="R1", cnss_number="", cin="")
    if by == "the number":
        line = of_nobody("R1", number_of(invoice.reference))
    imported(tmp_path, [line])
    with transaction() as booking:
        a_payment(booking, booking.merge(invoice), provider_payment_id="P1")
        # One with a later id is committed before the run, which begins after both were booked.
        an_invoice_paid(provider_payment_id="Q", amount_minor=1)
        assert run().matched == 1
    run()
    assert matched() == ([] if by == "the number" else [("P1", "R1", "exact")])


@pytest.mark.parametrize("told", ["once", "in turn"])
def test_rows_of_one_reference_are_paired_alike_whenever_each_comes(
    tmp_path: Path, told: str
) -> None:
    with transaction() as session:
        invoice = an_invoice(session)
        for name in ("P2", "P1"):
            a_payment(session, invoice, provider_payment_id=name)
    plain = a_line(invoice.reference, record_id="R2", cnss_number="", cin="")
    in_text = a_line(f"cotis {invoice.reference} svp", record_id="R1", cnss_number="", cin="")
    for lines in [[plain], [in_text]] if told == "in turn" else [[plain, in_text]]:
        imported(tmp_path, lines)
        run()
    assert matched() == [("P1", "R1", "reference_in_text"), ("P2", "R2", "exact")]


@pytest.mark.parametrize("told", ["once", "in turn"])
def test_its_own_reference_in_a_text_is_surer_whenever_it_comes(tmp_path: Path, told: str) -> None:
    reference, _ = an_invoice_paid(provider_payment_id="P")
    of_another = of_nobody("R1", slipped(number_of(reference)))
    own = a_line(f"cotis {reference} svp", record_id="R2", cnss_number="", cin="")
    for lines in [[of_another], [own]] if told == "in turn" else [[of_another, own]]:
        imported(tmp_path, lines)
        run()
    assert matched() == [("P", "R2", "reference_in_text")]


@pytest.mark.parametrize("told", ["once", "in turn"])
def test_a_payment_whose_reference_the_text_nearly_says_is_a_doubt_whenever_it_comes(
    tmp_path: Path, told: str
) -> None:
    reference, _ = an_invoice_paid(provider_payment_id="P")
    with transaction() as session:
        other = an_invoice(session)
    line = a_line(slipped(other.reference), record_id="R", cnss_number=number_of(reference), cin="")
    imported(tmp_path, [line])
    if told == "in turn":
        assert run().matched == 1
    with transaction() as session:
        # Of another amount, and with a record of its own.
        a_payment(session, session.merge(other), provider_payment_id="Q", amount_minor=5_000)
    imported(tmp_path, [a_line(other.reference, record_id="RQ", amount="50.00")], name="2.csv")
    run()
    assert matched() == [("Q", "RQ", "exact")]


@pytest.mark.parametrize("told", ["once", "in turn"])
def test_another_due_of_the_person_is_a_doubt_whenever_it_comes(tmp_path: Path, told: str) -> None:
    with transaction() as session:
        first, *others = (an_invoice(session) for _ in range(3))
        a_payment(session, first, provider_payment_id="P", amount_minor=30_000)
    number = number_of(first.reference)
    dues = [
        a_line(invoice.reference, record_id=f"D{n}", cnss_number=number, cin="", amount=amount)
        for n, (invoice, amount) in enumerate(
            zip((first, *others), ("100.00", "200.00", "200.00"), strict=True)
        )
    ]
    if told == "in turn":
        imported(tmp_path, dues[:2])
        run()
        assert [rule for *_, rule in matched()] == 2 * ["several_dues"]
        dues = dues[2:]
    imported(tmp_path, dues, name="2.csv")
    run()
    assert matched() == []


def test_what_holds_beside_a_rival_is_matched_again_and_left_in_peace_then(tmp_path: Path) -> None:
    reference, _ = an_invoice_paid(provider_payment_id="P")
    number = number_of(reference)
    imported(tmp_path, [of_nobody("R1", number)])
    first = run()
    # Of another day, and so the weaker.
    imported(tmp_path, [of_nobody("R2", number, posted_on="2026-12-15")], name="2.csv")

    second, third = run(), run()

    assert [result.matched for result in (first, second, third)] == [1, 1, 0]
    assert matched() == [("P", "R1", "identity")]
    assert how_many("undone_match") == 1
    assert broken() == []


def test_who_is_nobodys_rival_undoes_nothing(tmp_path: Path) -> None:
    reference, _ = an_invoice_paid(provider_payment_id="P")
    number = number_of(reference)
    imported(tmp_path, [of_nobody("R1", number)])
    run()
    with transaction() as session:
        unpaid = an_invoice(session).reference
    an_invoice_paid(amount_minor=5_000)
    imported(
        tmp_path,
        [
            # Another amount, another person, another day, another reference that is clear.
            of_nobody("R2", number, amount="12.00"),
            of_nobody("R3", "987654321"),
            of_nobody("R4", number, posted_on="2027-06-01"),
            a_line(unpaid, record_id="R5", cnss_number=number, cin=""),
        ],
        name="2.csv",
    )
    run()
    assert how_many("undone_match") == 0
    assert matched() == [("P", "R1", "identity")]


def test_a_rival_that_is_free_again_is_a_rival_that_came(tmp_path: Path) -> None:
    paid, _ = an_invoice_paid(provider_payment_id="P")
    number = number_of(paid)
    with transaction() as session:
        settled = an_invoice(session)
        a_payment(session, settled, provider_payment_id="Q")
    text = f"cotisation {settled.reference}"
    imported(
        tmp_path,
        [
            a_line(text, record_id="RQ", cnss_number=number, cin=""),
            of_nobody("RP", number),
        ],
    )
    run()
    assert matched() == [("P", "RP", "identity"), ("Q", "RQ", "reference_in_text")]
    reverse("Q")
    run()
    # Two verifying references that differ speak against each other: it is no rival after all.
    assert matched() == [("P", "RP", "identity")]


def test_a_run_of_a_period_has_not_looked_at_the_others(tmp_path: Path) -> None:
    reference, _ = an_invoice_paid(provider_payment_id="P")
    number = number_of(reference)
    imported(tmp_path, [of_nobody("R1", number, period="2026-12")])
    reconcile(period="2026-10", now=NOW)
    imported(tmp_path, [of_nobody("R2", number)], name="2.csv")
    assert run("2026-11").matched == 1
    run()
    assert matched() == []


# -- any order ------------------------------------------------------------------------------------

AMOUNTS = (16_352, 16_352, 10_000)
WAYS = ("plain", "text", "slip", "none", "near")
FORGOTTEN = (
    "match_line",
    "undone_match",
    "coded_exception",
    "reconciliation_shard",
    "reconciliation_run",
    "institution_record",
    "record_file",
    "payment",
)
A_CHANCE = st.randoms(use_true_random=False)
PAID = st.lists(st.tuples(st.sampled_from(AMOUNTS), st.integers(0, 2)), min_size=1, max_size=4)
RECORDED = st.lists(
    st.tuples(st.sampled_from(WAYS), st.sampled_from(AMOUNTS), st.integers(0, 2)),
    min_size=2,
    max_size=6,
)


def a_record(n: int, how: str, amount_minor: int, reference: str) -> dict[str, str]:
    """Return a line that says its reference in one way or another."""
    number = number_of(reference)
    text, number = {
        "plain": (reference, ""),
        "text": (f"cotis {reference} svp", ""),
        "slip": (slipped(reference), number),
        "none": ("", number),
        "near": ("nothing", slipped(number)),
    }[how]
    amount = f"{amount_minor // 100}.{amount_minor % 100:02d}"
    return a_line(text, record_id=f"R{n}", amount=amount, cnss_number=number, cin="")


def forget() -> None:
    """Have nobody paid and nothing recorded."""
    with transaction() as session:
        execute(session, "SET LOCAL session_replication_role = replica")
        for table in FORGOTTEN:
            execute(session, f"DELETE FROM {table}")


@settings(
    max_examples=3,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(PAID, RECORDED, A_CHANCE)
def test_payments_and_records_in_any_order_with_runs_in_between_come_to_one_end(
    tmp_path: Path,
    paid: list[tuple[int, int]],
    recorded: list[tuple[str, int, int]],
    chance: Random,
) -> None:
    with transaction() as session:
        invoices = [an_invoice(session) for _ in range(3)]
    lines = [
        a_record(n, how, amount_minor, invoices[of].reference)
        for n, (how, amount_minor, of) in enumerate(recorded)
    ]
    payments = [(f"P{n}", amount_minor, invoices[of]) for n, (amount_minor, of) in enumerate(paid)]
    steps = [*payments, *lines]
    chance.shuffle(steps)
    cuts = sorted(chance.randrange(len(steps)) for _ in range(2))
    ends = []
    for parts in ([steps], [steps[: cuts[0]], steps[cuts[0] : cuts[1]], steps[cuts[1] :]]):
        forget()
        for part in parts:
            with transaction() as session:
                for step in part:
                    if isinstance(step, tuple):
                        name, amount_minor, invoice = step
                        a_payment(
                            session,
                            session.merge(invoice),
                            provider_payment_id=name,
                            amount_minor=amount_minor,
                        )
            new = [step for step in part if isinstance(step, dict)]
            if new:
                imported(tmp_path, new)
            run()
        ends.append((matched(), asked()))
    assert ends[0] == ends[1]
