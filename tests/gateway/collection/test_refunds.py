"""Refunds that we begin: two pairs of eyes, a ceiling that holds in races, crashes anywhere."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import count

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from gateway import process
from gateway.books.kinds import kind_of
from gateway.collection import refunds
from gateway.collection.refund_sending import carry_out
from gateway.collection.refunds import RefundRefused, Shown
from gateway.collection.reports import ReturnReport, Statement
from gateway.db import execute, snapshot, transaction
from gateway.dues.tariff import tariff
from gateway.errors import ProviderAway, ProviderRefused, Unusable
from gateway.models import RefundWay as Way
from gateway.models import ReturnKind, ReturnState, Role
from gateway.people.standing import read_standing
from gateway.providers.refunding import WantedRefund
from gateway.receipts import issue_all
from gateway.staff import create_key
from tests.factories import (
    NOON,
    a_report,
    a_return,
    at_once,
    balances,
    broken_promises,
    record,
    rows_of,
    seal,
    some_invoices,
    the_books,
)

DUE = 16352
ASKER, APPROVER = "staff Amina", "staff Badr"
NUMBERS = count(1)


@dataclass
class Bank:
    """A provider that gives money back, and can be made to fail at any step."""

    name: str = "cashplus"
    made: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    """Calls to come that are carried out and not answered."""
    refuses: bool = False
    hides: bool = False
    """Whether it refuses to say what it has made."""
    arrives: bool = True
    before: list[ReturnReport] = field(default_factory=list)
    """What becomes known between the claim and the call."""

    def refund(self, wanted: WantedRefund, *, received_at: datetime) -> ReturnReport:  # noqa: ARG002
        while self.before:
            record(self.before.pop())
        if self.refuses:
            raise ProviderRefused("charge_disputed")
        self.made.setdefault(wanted.token, wanted.amount_minor)
        if self.lost:
            self.lost -= 1
            raise ProviderAway("no answer")
        return self.told(wanted.token, wanted.provider_payment_id)

    def find_refund(self, wanted: WantedRefund, *, received_at: datetime) -> ReturnReport | None:  # noqa: ARG002
        if self.hides:
            raise ProviderRefused("no such permission")
        if wanted.token not in self.made:
            return None
        return self.told(wanted.token, wanted.provider_payment_id)

    def told(self, token: str, payment_id: str, **values: object) -> ReturnReport:
        return a_return(
            payment_id,
            self.made[token],
            **{
                "return_id": f"re_{token}",
                "kind": ReturnKind.REFUND,
                "asked_as": token,
                "arrived": self.arrives,
                **values,
            },
        )


def paid(payment_id: str = "P1", amount_minor: int = DUE) -> tuple[str, int]:
    """Book a payment; return its invoice's reference and the payment's number."""
    (reference,) = some_invoices()
    record(a_report(reference, provider_payment_id=payment_id, amount_minor=amount_minor))
    return reference, number_of(payment_id)


def number_of(payment_id: str) -> int:
    with snapshot() as session:
        query = "SELECT id FROM payment WHERE provider_payment_id = :id"
        found: int = execute(session, query, {"id": payment_id}).scalar_one()
        return found


def ask(payment: int, minor: int | None = None, way: Way = Way.PROVIDER, who: str = ASKER) -> Shown:
    with transaction() as session:
        why = "The payer paid twice"
        return refunds.ask(
            session,
            payment,
            minor,
            way=way,
            can_refund=lambda _provider: True,
            who=who,
            why=why,
            now=NOON,
        )


def approve(shown: Shown, who: str = APPROVER) -> Shown:
    with transaction() as session:
        return refunds.approve(session, shown.row.id, who=who, why="Seen", now=NOON)


def pay_out(shown: Shown, *, already: bool = False) -> Shown:
    key = process.signing_key()
    with transaction() as session:
        return refunds.paid_out(
            session,
            shown.row.id,
            who=ASKER,
            bank_reference="VIR 1",
            transferred_already=already,
            key=key,
            now=NOON,
        )


def go_on(bank: Bank, **options: object) -> int:
    """Have the worker act, whatever it has put off."""
    with transaction() as session:
        execute(session, "UPDATE refund SET act_at = clock_timestamp() WHERE act_at IS NOT NULL")
    key = process.signing_key()
    return carry_out({bank.name: bank}, key=key, clock=lambda: NOON, most=9, **options)  # type: ignore[arg-type]


def state_of(shown: Shown) -> str:
    with snapshot() as session:
        return refunds.show(session, shown.row.id).row.state.value


def kinds_of(payment_id: str) -> list[str]:
    prefix = f"cashplus/{payment_id}"
    names = [name for name, *_ in the_books().transfers]
    return sorted(kind_of(name, prefix).value for name in names if name.startswith(prefix))


def all_holds() -> None:
    issue_all(process.receipt_keys(), lambda: NOON)
    seal()
    assert broken_promises() == []


def test_asked_approved_carried_out_and_explained(database: str) -> None:
    reference, payment = paid()
    asked = ask(payment, 5_000)
    with pytest.raises(RefundRefused, match="another person"):
        approve(asked, ASKER)
    bank = Bank(arrives=False)
    assert go_on(bank) == 0
    approve(asked)
    assert the_books().invoices == [(reference, DUE, DUE, "paid")]
    assert go_on(bank) == 1
    assert state_of(asked) == "sent"
    assert the_books().invoices == [(reference, DUE, DUE - 5_000, "part_paid")]
    bank.arrives = True
    go_on(bank)
    assert state_of(asked) == "done"
    assert bank.made == {asked.row.token: 5_000}
    assert kinds_of("P1") == ["received", "refund"]
    with snapshot() as session:
        steps = refunds.show(session, asked.row.id).steps
    assert [(s["state"], s["taken_by"]) for s in steps] == [
        ("asked", ASKER),
        ("approved", APPROVER),
        ("sent", "provider"),
        ("done", "provider"),
    ]
    told = rows_of(database, "SELECT type FROM event WHERE type ~ 'refund|returned' ORDER BY id")
    assert [kind for (kind,) in told] == [
        "refund.asked",
        "refund.decided",
        "payment.returned",
        "refund.ended",
    ]
    # It comes back weeks later: the money is the payer's again, and a person must decide.
    failed = bank.told(
        asked.row.token, "P1", state=ReturnState.RESTORED, stated_at=NOON + timedelta(days=9)
    )
    assert record(failed) == ["returned"]
    assert state_of(asked) == "failed"
    assert the_books().invoices == [(reference, DUE, DUE, "paid")]
    assert the_books().exceptions == [("refund_failed", f"refund:{asked.row.id}")]
    assert kinds_of("P1") == ["received", "refund", "refund_failed"]
    all_holds()


@pytest.mark.parametrize("where", ["claimed", "called", "booked"])
def test_a_crash_at_any_step_gives_back_once(database: str, where: str) -> None:
    _, payment = paid()
    asked = approve(ask(payment, 5_000))
    bank = Bank()

    def crash(step: str) -> None:
        if step == where:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go_on(bank, passing=crash)
    go_on(bank)
    assert state_of(asked) == "done"
    assert list(bank.made.values()) == [5_000]
    assert balances()["clearing:cashplus"] == DUE - 5_000
    all_holds()


def test_an_answer_that_is_lost_is_found_even_when_the_rest_is_disputed_since(
    database: str,
) -> None:
    _, payment = paid()
    asked = approve(ask(payment))
    bank = Bank(lost=1)
    go_on(bank)
    assert state_of(asked) == "approved"
    with transaction() as session, pytest.raises(RefundRefused, match="may be made"):
        refunds.refuse(session, asked.row.id, who=APPROVER, why="Too late", now=NOON)
    # The sum of all refunds is heard first, and nothing of the payment is left by it.
    record(a_return("P1", DUE))
    go_on(bank)
    assert state_of(asked) == "done"
    assert set(balances().values()) == {0}
    all_holds()


def test_who_refuses_to_say_whether_it_was_made_is_asked_again(database: str) -> None:
    _, payment = paid()
    asked = approve(ask(payment, 5_000))
    bank = Bank(lost=1, hides=True)
    go_on(bank)
    go_on(bank)
    assert state_of(asked) == "approved"
    bank.hides = False
    go_on(bank)
    assert (state_of(asked), bank.made) == ("done", {asked.row.token: 5_000})
    all_holds()


def test_a_second_refund_that_bears_our_token_is_booked_and_asked_about(database: str) -> None:
    reference, payment = paid()
    asked = approve(ask(payment, 5_000))
    bank = Bank()
    go_on(bank)
    for _ in range(2):
        record(bank.told(asked.row.token, "P1", return_id="re_other"))
    assert the_books().exceptions == [("conflicting_payment", f"refund:{asked.row.id}")]
    assert the_books().invoices == [(reference, DUE, DUE - 10_000, "part_paid")]
    # Both at once, and neither known before: the first is ours.
    both = approve(ask(payment, 1_000))
    bank.made[both.row.token] = 1_000
    record(bank.told(both.row.token, "P1"), bank.told(both.row.token, "P1", return_id="re_3"))
    assert state_of(both) == "done"
    assert ("conflicting_payment", f"refund:{both.row.id}") in the_books().exceptions
    all_holds()


def test_one_person_with_two_keys_or_a_name_besides_is_one(database: str) -> None:
    _, payment = paid()

    def key_of(label: str) -> str:
        with transaction() as session:
            made = create_key(session, Role.FINANCE, now=NOON, label=label)
        return f"key {made.split('_')[1]}"

    asked = {who: ask(payment, 1_000, who=who) for who in (key_of("Amina "), "staff Amina")}
    for shown in asked.values():
        for who in ("staff amina", key_of("AMINA"), *asked):
            with pytest.raises(RefundRefused, match="another person"):
                approve(shown, who)
        with pytest.raises(RefundRefused, match="no label"):
            approve(shown, key_of(""))
        assert approve(shown, key_of("Badr")).row.state.value == "approved"
    for nobody in (key_of(" "), "key 0000"):
        with pytest.raises(RefundRefused, match="one a person"):
            ask(payment, 1_000, who=nobody)


def test_a_dispute_before_the_call_stops_it_and_leaves_nothing_half_done(database: str) -> None:
    reference, payment = paid()
    asked = approve(ask(payment, 10_000))
    dispute = a_return("P1", DUE, return_id="dp_1", kind=ReturnKind.DISPUTE)
    record(dispute)
    bank = Bank()
    assert go_on(bank) == 1
    assert (state_of(asked), bank.made) == ("dropped", {})
    assert the_books().invoices == [(reference, DUE, 0, "open")]
    assert ("refund_failed", f"refund:{asked.row.id}") in the_books().exceptions
    with pytest.raises(RefundRefused, match=r"0\.00"):
        ask(payment, 1)
    assert kinds_of("P1") == ["chargeback", "received"]
    all_holds()


def test_a_dispute_that_is_only_announced_counts_and_one_at_approval_refuses(
    database: str,
) -> None:
    _, payment = paid()
    asked = ask(payment, 10_000)
    record(
        a_return(
            "P1", 8_000, return_id="dp_1", kind=ReturnKind.DISPUTE, state=ReturnState.ANNOUNCED
        )
    )
    with pytest.raises(RefundRefused, match=r"83\.52"):
        approve(asked)
    with transaction() as session:
        refunds.refuse(session, asked.row.id, who=APPROVER, why="Disputed", now=NOON)
    approve(ask(payment, 8_352))
    all_holds()


def test_a_dispute_between_claim_and_call_is_the_providers_matter(database: str) -> None:
    """What it refuses is a refusal; what it makes all the same is over what came in."""
    _, payment = paid()
    dispute = a_return("P1", DUE, return_id="dp_1", kind=ReturnKind.DISPUTE)
    refused = approve(ask(payment, 5_000))
    bank = Bank(refuses=True, before=[dispute])
    go_on(bank)
    assert state_of(refused) == "failed"
    _, second = paid("P2")
    made = approve(ask(second, 5_000))
    bank = Bank(
        before=[a_return("P2", DUE, return_id="dp_2", kind=ReturnKind.DISPUTE)],
    )
    go_on(bank)
    assert state_of(made) == "done"
    codes = [code for code, subject in the_books().exceptions if subject.endswith("P2")]
    assert codes == ["over_returned"]
    assert set(balances().values()) == {0}
    all_holds()


def test_of_many_who_ask_and_approve_at_once_only_what_fits_goes_through(database: str) -> None:
    _, payment = paid()

    def attempt() -> Shown | None:
        try:
            return ask(payment, 5_000)
        except RefundRefused:
            return None

    asked = [each for each in at_once(*[attempt] * 6) if each]
    assert len(asked) == 3

    def decide(shown: Shown, who: str) -> bool:
        try:
            approve(shown, who)
        except RefundRefused:
            return False
        return True

    twice = at_once(*(partial(decide, asked[0], f"staff Badr {n}") for n in range(4)))
    assert sorted(twice) == [False, False, False, True]
    bank = Bank()
    at_once(*[partial(go_on, bank)] * 3)
    assert list(bank.made.values()) == [5_000]
    all_holds()


def test_the_database_refuses_what_the_code_would_let_through(database: str) -> None:
    _, payment = paid()
    asked = ask(payment, 10_000)
    insert = (
        "INSERT INTO refund (token, payment_id, provider, amount_minor, way, asked_by, because,"
        f" asked_at) VALUES ('t', {payment}, 'cashplus', 6353, 'provider', 'x', 'y', now())"
    )
    decided = "decided_by = asked_by, decided_at = now()"
    for statement in (
        insert,
        f"UPDATE refund SET state = 'approved', {decided}",
        "UPDATE refund SET amount_minor = 1",
        f"UPDATE refund SET state = 'done', return_id = 'r', ended_at = now(), {decided}",
        "DELETE FROM refund",
        "UPDATE refund_step SET because = 'other'",
    ):
        with pytest.raises(DBAPIError), transaction() as session:
            execute(session, statement)
    assert state_of(asked) == "asked"


def test_by_hand_the_institution_pays_and_its_account_says_so(database: str) -> None:
    """Credit first: who overpaid gets that back, and the question is closed by it."""
    reference, payment = paid(amount_minor=20_000)
    assert the_books().exceptions == [("overpaid", "payment:cashplus/P1")]
    asked = approve(ask(payment, 20_000 - DUE, Way.BY_HAND))
    assert go_on(Bank()) == 0
    pay_out(asked)
    assert the_books().exceptions == []
    assert the_books().invoices == [(reference, DUE, DUE, "paid")]
    assert balances()["paid_out:institution"] == DUE - 20_000
    assert balances()["clearing:cashplus"] == 20_000
    with pytest.raises(RefundRefused, match="done"):
        pay_out(asked)
    with transaction() as session:
        refunds.bounced(
            session,
            asked.row.id,
            who=ASKER,
            why="Wrong account",
            key=process.signing_key(),
            now=NOON,
        )
    assert {code for code, _ in the_books().exceptions} == {"overpaid", "refund_failed"}
    assert balances()["paid_out:institution"] == 0
    assert kinds_of("P1") == [
        "received",
        "received",
        "refund_by_hand",
        "refund_by_hand_failed",
    ]
    all_holds()


def a_dispute(minor: int, of: str = "P1", **values: object) -> ReturnReport:
    return a_return(of, minor, **{"return_id": f"dp_{of}", "kind": ReturnKind.DISPUTE, **values})


@pytest.mark.parametrize("state", [ReturnState.ANNOUNCED, ReturnState.GIVEN])
def test_by_hand_a_dispute_stops_what_is_not_paid_out_yet(
    database: str, state: ReturnState
) -> None:
    """The newest first, and only as many as do not fit any more."""
    _, payment = paid()
    kept, stopped = (approve(ask(payment, 5_000, Way.BY_HAND)) for _ in range(2))
    waiting = ask(payment, 6_000, Way.BY_HAND)
    record(a_dispute(9_000, state=state))
    assert [state_of(each) for each in (kept, stopped, waiting)] == ["approved", "dropped", "asked"]
    with snapshot() as session:
        last = refunds.show(session, stopped.row.id).steps[-1]
    assert (last["taken_by"], "disputed" in last["because"]) == ("worker", True)
    subject = ("refund_failed", f"refund:{stopped.row.id}")
    assert subject in the_books().exceptions
    with pytest.raises(RefundRefused, match=r"stopped.*disputed"):
        pay_out(stopped)
    assert state_of(pay_out(kept)) == "done"
    # The transfer had left the bank by then: the books say so, and a person sees what is lost.
    pay_out(stopped, already=True)
    assert subject not in the_books().exceptions
    if state is ReturnState.GIVEN:
        assert ("over_returned", "payment:cashplus/P1") in the_books().exceptions
    assert balances()["paid_out:institution"] == -10_000
    all_holds()


def test_a_sum_that_holds_what_its_provider_was_asked_for_stops_nothing(database: str) -> None:
    """Stripe's `charge.refunded` may come before the answer to the call that made the refund."""
    _, payment = paid()
    by_hand = approve(ask(payment, 10_000, Way.BY_HAND))
    asked = approve(ask(payment, DUE - 10_000))
    total = a_return("P1", DUE - 10_000, return_id="P1", kind=ReturnKind.REFUND_TOTAL)
    assert go_on(Bank(before=[total])) == 1
    assert [state_of(each) for each in (by_hand, asked)] == ["approved", "done"]
    assert the_books().exceptions == []
    assert state_of(pay_out(by_hand)) == "done"
    all_holds()


def test_of_a_transfer_and_a_dispute_at_once_either_comes_first(database: str) -> None:
    of = [f"P{n}" for n in range(1, 5)]
    asked = {each: approve(ask(paid(each)[1], 10_000, Way.BY_HAND)) for each in of}

    def pay(named: str) -> str:
        try:
            return pay_out(asked[named]).row.state.value
        except RefundRefused:
            return "refused"

    at_once(*(partial(pay, n) for n in of), *(partial(record, a_dispute(DUE, n)) for n in of))
    opened = the_books().exceptions
    for named, shown in asked.items():
        done = state_of(shown) == "done"
        assert state_of(shown) in {"done", "dropped"}
        assert (("over_returned", f"payment:cashplus/{named}") in opened) is done
        assert (("refund_failed", f"refund:{shown.row.id}") in opened) is not done
    all_holds()


def test_money_that_nobody_knows_is_given_back_and_asked_about_no_more(database: str) -> None:
    record(a_report("999999999999", provider_payment_id="P1"))
    assert the_books().exceptions == [("unknown_reference", "payment:cashplus/P1")]
    asked = approve(ask(number_of("P1")))
    bank = Bank()
    go_on(bank)
    assert the_books().exceptions == []
    assert set(balances().values()) == {0}
    failed = bank.told(
        asked.row.token, "P1", state=ReturnState.RESTORED, stated_at=NOON + timedelta(days=1)
    )
    record(failed)
    assert {code for code, _ in the_books().exceptions} == {"refund_failed", "unknown_reference"}
    all_holds()


@pytest.mark.parametrize("known", [True, False])
def test_what_was_paid_by_hand_stays_gone_when_the_payment_is_reversed(
    database: str, known: bool
) -> None:
    reference, payment = paid()
    if not known:
        reference = "999999999999"
        record(a_report(reference, provider_payment_id="P2"))
        payment = number_of("P2")
    of = "P1" if known else "P2"
    before = pay_out(approve(ask(payment, 5_000, Way.BY_HAND)))
    after = approve(ask(payment, 3_000, Way.BY_HAND))
    gone = a_report(
        reference,
        provider_payment_id=of,
        statement=Statement.REVERSED,
        stated_at=NOON + timedelta(minutes=1),
    )
    assert record(gone) == ["reversed"]
    assert ("over_returned", f"payment:cashplus/{of}") in the_books().exceptions
    assert ("unknown_reference", f"payment:cashplus/{of}") not in the_books().exceptions

    def claimed() -> tuple[int, int]:
        held = balances()
        return held["paid_out:institution"], held["suspense:unidentified"]

    assert claimed() == (-5_000, 5_000)
    with pytest.raises(RefundRefused):
        ask(payment, 1)
    assert record(gone) == ["repeated"]
    all_holds()
    # One that was still to be paid out is stopped, unless its transfer had left by then.
    with pytest.raises(RefundRefused, match="stopped"):
        pay_out(after)
    pay_out(after, already=True)
    assert claimed() == (-8_000, 8_000)
    all_holds()
    key = process.signing_key()
    for each in (before, after):
        with transaction() as session:
            refunds.bounced(session, each.row.id, who=ASKER, why="Closed", key=key, now=NOON)
    assert claimed() == (0, 0)
    all_holds()


def test_the_person_owes_again_and_the_rights_say_so(database: str) -> None:
    (reference,) = some_invoices(period="2026-09")
    record(a_report(reference, provider_payment_id="P1", amount_minor=DUE + 2_000))
    with snapshot() as session:
        query = "SELECT contributor_id FROM invoice WHERE reference = :reference"
        person = execute(session, query, {"reference": reference}).scalar_one()

    def is_late() -> bool:
        with snapshot() as session:
            found = read_standing(session, person, tariff(), on=NOON.date())
        assert found is not None
        return "2026-09" in {each["period"] for each in found.as_json()["arrears"]}

    assert not is_late()
    approve(ask(number_of("P1")))
    go_on(Bank())
    assert is_late()
    assert the_books().invoices[0][3] == "open"
    all_holds()


def test_a_reason_that_names_somebody_is_not_kept(database: str) -> None:
    _, payment = paid()
    with transaction() as session, pytest.raises(Unusable, match="kept for good"):
        refunds.refuse(session, ask(payment).row.id, who=ASKER, why="Of 100000001", now=NOON)


class Story:
    """One payment, and what may befall it, in any order."""

    def __init__(self, database: str, payment_id: str) -> None:
        self.database, self.of = database, payment_id
        self.reference, self.payment = paid(payment_id)
        self.bank, self.at = Bank(), NOON
        self.disputes: dict[str, int] = {}

    def ours(self) -> list[Shown]:
        with snapshot() as session:
            where = "refund.payment_id = :id ORDER BY refund.id"
            return refunds.read_shown(session, where, {"id": self.payment})

    def ask(self, minor: int) -> None:
        with suppress(RefundRefused):
            ask(self.payment, minor)

    def ask_by_hand(self, minor: int) -> None:
        with suppress(RefundRefused):
            ask(self.payment, minor, Way.BY_HAND)

    def approve(self, _: int) -> None:
        for each in self.ours():
            with suppress(RefundRefused):
                approve(each)

    def pay_out(self, _: int) -> None:
        for each in self.ours():
            with suppress(RefundRefused):
                pay_out(each)

    def bounce(self, minor: int) -> None:
        for each in self.ours() if minor % 2 else ():
            with suppress(RefundRefused), transaction() as session:
                key = process.signing_key()
                refunds.bounced(session, each.row.id, who=ASKER, why="Closed", key=key, now=NOON)

    def work(self, minor: int) -> None:
        self.bank.lost = minor % 2
        go_on(self.bank)

    def dispute(self, minor: int) -> None:
        self.disputes[f"dp_{self.of}_{len(self.disputes)}"] = minor
        self.hear_disputes(ReturnState.GIVEN)

    def win(self, _: int) -> None:
        self.hear_disputes(ReturnState.RESTORED)

    def hear_disputes(self, state: ReturnState) -> None:
        for named, minor in self.disputes.items():
            said = {"return_id": named, "kind": ReturnKind.DISPUTE, "state": state}
            record(a_return(self.of, minor, stated_at=self.at, **said))

    def fail(self, _: int) -> None:
        for each in self.ours():
            if each.row.state.value in {"sent", "done"} and each.row.token in self.bank.made:
                back = {"state": ReturnState.RESTORED, "stated_at": self.at}
                record(self.bank.told(each.row.token, self.of, **back))

    def reverse(self, minor: int) -> None:
        if minor % 4 == 0:
            said = {"statement": Statement.REVERSED, "stated_at": self.at}
            record(a_report(self.reference, provider_payment_id=self.of, **said))

    def holds(self) -> None:
        ((given, under_way, payable, status),) = rows_of(
            self.database,
            "SELECT returned_minor, coalesce(sum(r.amount_minor), 0), coalesce(sum(r.amount_minor)"
            " FILTER (WHERE way = 'by_hand' AND state = 'approved'), 0), status FROM payment p"
            " LEFT JOIN refund r ON r.payment_id = p.id AND state IN ('asked', 'approved')"
            " AND tries = 0 WHERE p.id = %s GROUP BY p.id",
            (self.payment,),
        )
        assert 0 <= given <= DUE
        assert given + under_way <= DUE or self.disputes or status == "reversed"
        # What finance is asked to transfer is there, whatever has happened.
        assert given + payable <= DUE
        assert status != "reversed" or payable == 0


NOT_DEEDS = {"ours", "hear_disputes", "holds"}
DEEDS = sorted(n for n in vars(Story) if not n.startswith("_") and n not in NOT_DEEDS)
STEPS = st.lists(st.tuples(st.sampled_from(DEEDS), st.integers(1, DUE)), min_size=4, max_size=12)


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_no_story_gives_back_more_than_came_in(database: str, steps: list[tuple[str, int]]) -> None:
    """And the books hold what providers and finance said, up to what the payment brought."""
    story = Story(database, f"P{next(NUMBERS)}")
    for what, minor in steps:
        story.at += timedelta(minutes=1)
        getattr(story, what)(minor)
        story.holds()
    all_holds()
