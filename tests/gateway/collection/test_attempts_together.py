"""Several months in one payment, and codes that live for days: one payment, whatever is pressed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
import stripe

from gateway import process
from gateway.billing.bundle_presentment import present_bundle
from gateway.billing.presentment import present
from gateway.collection.attempt_ends import TRIES_HURRIED_MAX
from gateway.collection.attempt_rows import LEFT_OPEN, Attempt, latest_attempt, live_codes
from gateway.collection.attempts import Begun, Step, begin, give_up
from gateway.collection.inquiries import ask_due
from gateway.collection.reports import NotAboutMoney, Report
from gateway.db import execute, snapshot, transaction
from gateway.errors import ProviderAway
from gateway.models import AttemptState, Channel, Manner
from gateway.providers import Answer, MadePage, PageProvider, PageState, Provider, WantedPage
from gateway.simulators.stripe import World
from tests.factories import (
    NOON,
    a_report,
    at_once,
    broken_promises,
    record,
    rows_of,
    seal,
    the_books,
)
from tests.gateway.pages import states
from tests.stand_in import pages_of, sessions, standing_in

MONTHS = ("2026-11", "2026-12")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.01)
    with standing_in() as server:
        yield server.world


@pytest.fixture
def two(database: str) -> tuple[list[str], str]:
    """Two invoices, and the reference that pays both."""
    each = [states.an_invoice(period) for period in MONTHS]
    return each, states.several(*each)


@dataclass
class Codes:
    """A provider of codes that nobody can close."""

    name: str = "codes"
    away: bool = False
    made: dict[str, WantedPage] = field(default_factory=dict)
    pages_origin: str = ""
    channel: Channel = Channel.CASH_AGENT
    manner: Manner = Manner.TOKEN
    life: timedelta = timedelta(days=3)

    def make_page(self, wanted: WantedPage) -> MadePage:
        self.made[wanted.attempt_id] = wanted
        code = f"CP{len(self.made):06d}"
        return MadePage(code, "", code=code, expires_at=NOON + timedelta(days=2))

    def ask(self, session_id: str, *, received_at: datetime) -> Answer:  # noqa: ARG002
        return Answer(self.close_page(session_id), (), tells=False)

    def close_page(self, session_id: str) -> PageState:  # noqa: ARG002
        if self.away:
            raise ProviderAway("it is away")
        return PageState.OPEN

    def parse(self, body: bytes, **_: Any) -> Report:  # noqa: ARG002
        return NotAboutMoney("it is never told")

    def unsafe_in_production(self) -> Sequence[str]:
        return ()


def pay(
    providers: Mapping[str, Provider], reference: str, way: str, *, now: datetime = NOON
) -> Begun:
    def due_minor(session: Any) -> int:
        found = present(session, reference, now=now, validity_months=12) or present_bundle(
            session, reference, now=now, validity_months=12
        )
        return found.due_minor if found else 0

    return begin(
        providers,
        reference,
        due_minor=due_minor,
        language="fr",
        link=f"https://amo.example.ma/{reference}",
        clock=lambda: now,
        way=way,
    )


def attempt(reference: str) -> Attempt:
    with snapshot() as session:
        found = latest_attempt(session, reference)
    assert found is not None
    return found


def ask(providers: Mapping[str, Provider], *, hurry: bool = True) -> int:
    with transaction() as session:
        if hurry:
            execute(session, "UPDATE payment_attempt SET ask_at = '-infinity' WHERE ask_at > now()")
    return ask_due(providers, key=process.signing_key(), clock=lambda: NOON, asks_max=9)


def open_pages(world: World) -> list[dict[str, Any]]:
    return [each for each in sessions(world) if each["status"] == "open"]


def test_several_months_are_paid_in_one_payment(world: World, two: tuple[list[str], str]) -> None:
    each, both = two
    pages = {"stripe": pages_of(world)}
    begun = at_once(*[lambda: pay(pages, both, "stripe") for _ in range(3)])
    assert len({b.url for b in begun}) == 1
    [session] = sessions(world)
    assert (session["amount_total"], session["client_reference_id"]) == (2 * 16352, both)
    world.pay(session)
    assert ask(pages) == 1
    assert attempt(both).state is AttemptState.PAID
    assert [p[2:] for p in the_books().payments] == [("booked", 2 * 16352, None)]
    assert [pay(pages, r, "stripe") for r in (*each, both)] == [Begun(Step.NOTHING_DUE)] * 3
    seal()
    assert broken_promises(deliveries=True) == []


def test_what_pays_the_same_is_begun_once(world: World, two: tuple[list[str], str]) -> None:
    """One month's page, then that of both, then the month's again: only the last is open."""
    each, both = two
    pages = {"stripe": pages_of(world)}
    for reference in (each[0], both, each[1], both):
        assert pay(pages, reference, "stripe").step is Step.PAGE
        assert [s["client_reference_id"] for s in open_pages(world)] == [reference]
    # Of many at once: whichever comes last.
    at_once(*[lambda r=r: pay(pages, r, "stripe") for r in (each[0], both, both)])
    left = {s["client_reference_id"] for s in open_pages(world)}
    assert left in ({each[0]}, {both})
    # The months themselves do not exclude each other.
    assert pay(pages, each[0], "stripe").step is Step.PAGE
    assert pay(pages, each[1], "stripe").step is Step.PAGE
    assert len(open_pages(world)) == 2
    assert attempt(both).reference in each, "whoever has the other reference is told"


def test_a_month_paid_elsewhere_closes_the_page_of_both(
    world: World, two: tuple[list[str], str]
) -> None:
    each, both = two
    pages = {"stripe": pages_of(world)}
    pay(pages, both, "stripe")
    assert ask(pages, hurry=False) == 0
    record(a_report(each[0]))
    assert ask(pages, hurry=False) == 1
    assert open_pages(world) == []
    assert attempt(both).closed_because == "outdated"
    pay(pages, both, "stripe")
    assert [s["amount_total"] for s in open_pages(world)] == [16352]
    with transaction() as session:
        execute(session, "UPDATE bundle SET withdrawn_at = :now", {"now": NOON})
    assert ask(pages, hurry=False) == 1
    assert open_pages(world) == []


def test_a_plan_and_what_its_person_owes_beside_it_exclude_each_other(
    world: World, database: str
) -> None:
    plan, invoices = states.a_plan()
    pages = {"stripe": pages_of(world)}
    assert pay(pages, plan, "stripe").step is Step.PAGE
    assert pay(pages, invoices[0], "stripe").step in {Step.PAGE, Step.NOTHING_DUE}
    assert len(open_pages(world)) == 1


def test_a_code_is_made_once_and_told_again(two: tuple[list[str], str]) -> None:
    [reference, _], _ = two
    codes = Codes()
    assert isinstance(codes, PageProvider)
    begun = [pay({"codes": codes}, reference, "codes") for _ in range(2)]
    assert [b.step for b in begun] == [Step.CODE] * 2
    kept = attempt(reference)
    assert (kept.code, kept.manner, len(codes.made)) == ("CP000001", Manner.TOKEN, 1)
    assert kept.expires_at == NOON + timedelta(days=2), "as its provider says"
    assert ask({"codes": codes}) == 1
    with snapshot() as session:
        later = execute(session, "SELECT ask_at > clock_timestamp() + interval '4 seconds'"
            " FROM payment_attempt").scalar_one()  # fmt: skip
    assert later, "there is time: it lives for days"


@pytest.mark.parametrize("away", [False, True])
def test_a_code_keeps_nobody_from_another_way_and_both_paid_is_paid_twice(
    world: World, two: tuple[list[str], str], away: bool
) -> None:
    [reference, _], _ = two
    codes = Codes()
    ways: dict[str, Provider] = {"codes": codes, "stripe": pages_of(world)}
    pay(ways, reference, "codes")
    codes.away = away
    with transaction() as session:
        # It was asked about for days.
        execute(session, "UPDATE payment_attempt SET tries = :n", {"n": TRIES_HURRIED_MAX})
    begun = pay(ways, reference, "stripe")
    assert begun.step is Step.UNKNOWN, "he is asked whether he has paid with it"
    assert not give_up(ways, reference, clock=lambda: NOON)
    assert give_up(ways, reference, clock=lambda: NOON, anyway=True)
    assert attempt(reference).closed_because == LEFT_OPEN
    assert pay(ways, reference, "stripe").step is Step.PAGE
    with snapshot() as session:
        assert [a.code for a in live_codes(session, reference, now=NOON)] == ["CP000001"]
        assert live_codes(session, reference, now=NOON + timedelta(days=3)) == []
    world.pay(open_pages(world)[0])
    ask({"stripe": ways["stripe"]})
    [left] = codes.made
    record(a_report(reference, provider="codes", attempt_id=left))
    books = the_books()
    assert sorted(p[2] for p in books.payments) == ["booked", "booked"]
    assert [e[0] for e in books.exceptions] == ["paid_twice"]
    seal()
    assert broken_promises() == []


def test_a_code_for_what_is_paid_stands_in_nobodys_way(
    two: tuple[list[str], str], database: str
) -> None:
    [reference, _], _ = two
    codes = Codes()
    pay({"codes": codes}, reference, "codes")
    record(a_report(reference, amount_minor=10_000))
    assert ask({"codes": codes}, hurry=False) == 1
    closed = rows_of(database, "SELECT state, closed_because FROM payment_attempt")
    assert closed == [("closed", LEFT_OPEN)]
    assert pay({"codes": codes}, reference, "codes").step is Step.CODE, "another, for the rest"
    assert [w.amount_minor for w in codes.made.values()] == [16352, 6352]
