"""A payer's way to the card page and back, whatever is lost, doubled or changed on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import stripe

from gateway import process
from gateway.billing.presentment import present
from gateway.collection.attempt_ends import TRIES_HURRIED_MAX, came_back
from gateway.collection.attempt_rows import ATTEMPTS_MAX, FAILED, NOT_KNOWN, Attempt, latest_attempt
from gateway.collection.attempts import (
    Begun,
    Step,
    begin,
    give_up,
    page_provider,
)
from gateway.collection.inquiries import ASKING, ask_due
from gateway.db import alone, execute, snapshot, transaction
from gateway.errors import ProviderAway, ProviderRefused
from gateway.models import AttemptState
from gateway.providers import (
    PAGE_LIFE,
    MadePage,
    PageFailed,
    PageState,
    WantedPage,
    WebhookProvider,
)
from gateway.providers.stripe_pages import StripePages
from gateway.settings import settings
from gateway.simulators.stripe import World
from tests.factories import (
    NOON,
    a_delivery,
    a_desk,
    a_provider,
    a_report,
    at_once,
    balances,
    broken_promises,
    record,
    rows_of,
    seal,
    some_invoices,
    the_books,
)
from tests.stand_in import pages_of, providers_file, sessions, standing_in
from webhooks.inbox import drain


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.01)
    with standing_in() as server:
        yield server.world


@pytest.fixture
def reference(database: str) -> str:
    return some_invoices()[0]


def pay(
    pages: StripePages,
    reference: str,
    *others: StripePages,
    now: datetime = NOON,
    language: str = "fr",
) -> Begun:
    """Press the button, where the first makes pages, and others may have made some."""

    def due_minor(session: Any) -> int:
        found = present(session, reference, now=now, validity_months=12)
        return found.due_minor if found else 0

    return begin(
        named(pages, *others),
        reference,
        due_minor=due_minor,
        language=language,
        link=f"https://amo.example.ma/{reference}",
        clock=lambda: now,
    )


def named(*pages: StripePages) -> dict[str, WebhookProvider]:
    return {each.name: each for each in pages}


def attempt(reference: str) -> Attempt:
    with snapshot() as session:
        found = latest_attempt(session, reference)
    assert found is not None
    return found


def ask(pages: StripePages, *, now: datetime = NOON, hurry: bool = True) -> int:
    """Do what the worker does."""
    if hurry:
        with transaction() as session:
            execute(
                session,
                "UPDATE payment_attempt SET ask_at = '2000-01-01' WHERE ask_at > '2000-01-02'",
            )
    return ask_due(named(pages), key=process.signing_key(), clock=lambda: now, asks_max=10)


def deliver(pages: StripePages, world: World, *kinds: str) -> None:
    """Hand the product what the stand-in told of, and book it."""
    for event in world.events:
        if not kinds or event["type"] in kinds:
            body = json.dumps(event).encode()
            a_delivery(body, provider="stripe", delivery_id=event["id"])
    drain(a_desk(pages), batches_max=5)


def paid_once(reference: str) -> None:
    """Assert that exactly one payment of all that is due is booked, and nothing is open."""
    books = the_books()
    assert [p[2:] for p in books.payments] == [("booked", 16352, reference)]
    assert books.exceptions == []
    assert balances() == {"clearing:stripe": 16352, "payable:institution": -16352}
    seal()
    assert broken_promises(deliveries=True) == []


def test_from_the_button_to_the_books(world: World, reference: str) -> None:
    pages = pages_of(world)
    begun = pay(pages, reference)
    [session] = sessions(world)
    assert begun == Begun(Step.PAGE, session["url"])
    kept = attempt(reference)
    assert kept.state is AttemptState.SENT
    assert session["metadata"] == {"invoice_ref": reference, "attempt_id": kept.id}
    assert session["success_url"] == f"https://amo.example.ma/{reference}?card=back&lang=fr"
    world.pay(session)
    deliver(pages, world)
    after = attempt(reference)
    assert after.state is AttemptState.PAID
    paid_once(reference)
    assert pay(pages, reference) == Begun(Step.NOTHING_DUE)
    assert len(sessions(world)) == 1


def test_a_payment_booked_while_its_payer_presses_again_is_no_second_page(
    world: World, reference: str
) -> None:
    """What is due is looked up, his payment by the first page is booked, the page is looked up."""
    pages = pages_of(world)
    first = pay(pages, reference)
    world.pay(sessions(world)[0])

    def due_minor(session: Any) -> int:
        found = present(session, reference, now=NOON, validity_months=12)
        assert found is not None
        deliver(pages, world)
        return found.due_minor

    again = begin(
        named(pages),
        reference,
        due_minor=due_minor,
        language="fr",
        link=f"https://amo.example.ma/{reference}",
        clock=lambda: NOON,
    )
    assert again == first, "the page that says it is paid already"
    assert len(sessions(world)) == 1
    paid_once(reference)


def test_without_any_delivery_the_worker_asks_and_books(world: World, reference: str) -> None:
    pages = pages_of(world)
    pay(pages, reference)
    [session] = sessions(world)
    world.pay(session)
    assert ask(pages, hurry=False) == 0, "nobody is in a hurry yet"
    assert ask(pages) == 1
    assert attempt(reference).state is AttemptState.PAID
    paid_once(reference)
    # And its deliveries, late: the same payment.
    deliver(pages, world)
    paid_once(reference)
    assert ask(pages) == 0


def test_double_click_second_tab_and_back_button_lead_to_one_page(
    world: World, reference: str
) -> None:
    pages = pages_of(world)
    begun = at_once(*[lambda: pay(pages, reference) for _ in range(4)])
    assert len({each.url for each in begun}) == 1
    assert pay(pages, reference, language="ar") == begun[0]
    assert len(sessions(world)) == 1
    assert rows_of_attempts(reference) == 1


def rows_of_attempts(reference: str) -> int:
    with snapshot() as session:
        found = execute(
            session,
            "SELECT count(*) FROM payment_attempt a JOIN invoice i ON i.id = invoice_id"
            " WHERE reference = :reference",
            {"reference": reference},
        )
        return int(found.scalar_one())


def test_a_lost_answer_is_no_second_page(world: World, reference: str) -> None:
    pages = pages_of(world)
    world.faults.lost_answers = 2
    with pytest.raises(ProviderAway):
        pay(pages, reference)
    assert attempt(reference).state is AttemptState.MADE
    assert pay(pages, reference).url == sessions(world)[0]["url"]
    assert len(sessions(world)) == 1


class Dying(StripePages):
    """A provider whose caller dies right after the answer."""

    def make_page(self, wanted: WantedPage) -> MadePage:
        super().make_page(wanted)
        raise KeyboardInterrupt


def test_a_crash_after_the_answer_is_no_second_page(world: World, reference: str) -> None:
    pages = pages_of(world)
    dying = Dying("stripe", pages._settings, live=False)
    with pytest.raises(KeyboardInterrupt):
        pay(dying, reference)
    assert pay(pages, reference).url == sessions(world)[0]["url"]
    assert len(sessions(world)) == 1


def test_an_amount_that_changed_closes_the_old_page_first(world: World, reference: str) -> None:
    pages = pages_of(world)
    first = pay(pages, reference)
    record(a_report(reference, amount_minor=10_000))
    second = pay(pages, reference)
    assert second.step is Step.PAGE
    assert second.url != first.url
    old, new = sessions(world)
    assert (old["status"], new["status"], new["amount_total"]) == ("expired", "open", 6352)
    # Stripe away: the old page may still be paid by, so no other is opened.
    record(a_report(reference, amount_minor=1_000))
    world.faults.away = True
    with pytest.raises(ProviderAway):
        pay(pages, reference)
    assert [s["status"] for s in sessions(world)] == ["expired", "open"]


def test_an_old_page_that_was_paid_is_no_second_payment(world: World, reference: str) -> None:
    pages = pages_of(world)
    pay(pages, reference)
    world.pay(sessions(world)[0])
    record(a_report(reference, amount_minor=1_000))
    assert pay(pages, reference) == Begun(Step.UNKNOWN)
    assert ask(pages, hurry=False) == 1, "it is asked about at once"
    assert len(sessions(world)) == 1
    assert attempt(reference).state is AttemptState.PAID


def test_a_page_that_ends_soon_is_replaced(world: World, reference: str) -> None:
    pages = pages_of(world)
    first = pay(pages, reference)
    late = NOON + PAGE_LIFE - timedelta(minutes=1)
    world.clock = lambda: late
    second = pay(pages, reference, now=late)
    assert second.url not in {"", first.url}
    assert [s["status"] for s in sessions(world)] == ["expired", "open"]


def test_giving_up_is_true_only_if_stripe_says_so(world: World, reference: str) -> None:
    pages = pages_of(world)
    pay(pages, reference)
    world.faults.away = True
    with pytest.raises(ProviderAway):
        give_up(named(pages), reference, clock=lambda: NOON)
    assert attempt(reference).state is AttemptState.SENT
    world.faults.away = False
    assert give_up(named(pages), reference, clock=lambda: NOON)
    assert (attempt(reference).state, attempt(reference).closed_because) == (
        AttemptState.CLOSED,
        "given up",
    )
    assert give_up(named(pages), reference, clock=lambda: NOON), "there is none any more"
    pay(pages, reference)
    world.pay(sessions(world)[1])
    assert not give_up(named(pages), reference, clock=lambda: NOON)
    assert ask(pages, hurry=False) == 1
    paid_once(reference)


def test_money_that_comes_by_a_closed_attempt_is_booked(world: World, reference: str) -> None:
    """Closed by us and paid all the same: the provider's word is what counts."""
    pages = pages_of(world)
    pay(pages, reference)
    [session] = sessions(world)
    with transaction() as own:
        execute(
            own, "UPDATE payment_attempt SET state = 'closed', closed_because = 'x', ask_at = NULL"
        )
    world.pay(session)
    deliver(pages, world)
    assert attempt(reference).state is AttemptState.PAID
    paid_once(reference)


def test_a_page_that_ran_out_ends_the_attempt(world: World, reference: str) -> None:
    pages = pages_of(world)
    pay(pages, reference)
    assert ask(pages) == 1, "it is open"
    assert attempt(reference).state is AttemptState.SENT
    assert ask(pages, hurry=False) == 0
    later = NOON + PAGE_LIFE + timedelta(minutes=1)
    world.clock = lambda: later
    assert ask(pages, now=later) == 1
    assert attempt(reference).closed_because == "lapsed"
    assert ask(pages, now=later) == 0
    # Told of by its webhook as well: the same.
    deliver(pages, world, "checkout.session.expired")
    assert attempt(reference).closed_because == "lapsed"


def test_a_declined_card_ends_nothing(world: World, reference: str) -> None:
    pages = pages_of(world)
    pay(pages, reference)
    [session] = sessions(world)
    world.decline(session)
    deliver(pages, world)
    assert attempt(reference).state is AttemptState.SENT
    assert [p[2] for p in the_books().payments] == ["failed"]
    world.clock = lambda: NOON + timedelta(seconds=20)
    world.pay(session)
    deliver(pages, world, "payment_intent.succeeded", "checkout.session.completed")
    paid_once(reference)


def test_stripe_away_costs_one_question_a_run_and_comes_again(world: World, database: str) -> None:
    pages = pages_of(world)
    references = some_invoices(3)
    for each in references:
        pay(pages, each)
    world.faults.away = True
    assert ask(pages) == 1
    world.faults.away = False
    assert ask(pages, hurry=False) == 0, "it is left alone for a while"
    assert ask(pages) == 3
    assert {attempt(each).tries for each in references} == {1, 2}


def test_what_stripe_refuses_closes_the_attempt(world: World, reference: str) -> None:
    pages = pages_of(world)
    world.clock = lambda: NOON + timedelta(days=3)  # no page may end in its past
    with pytest.raises(ProviderRefused):
        pay(pages, reference)
    assert attempt(reference).closed_because == "refused"
    world.clock = lambda: NOON
    assert pay(pages, reference).step is Step.PAGE


def test_a_page_that_stripe_does_not_know_ends_when_it_would_have_run_out(
    world: World, reference: str
) -> None:
    pages = pages_of(world)
    pay(pages, reference)
    world.things.clear()
    assert ask(pages) == 1
    assert attempt(reference).state is AttemptState.SENT
    assert ask(pages, now=NOON + PAGE_LIFE + timedelta(seconds=1)) == 1
    assert attempt(reference).closed_because == NOT_KNOWN


def test_an_attempt_whose_page_was_never_learned_of_ends_by_itself(
    world: World, reference: str
) -> None:
    pages = pages_of(world)
    world.faults.lost_answers = 2
    with pytest.raises(ProviderAway):
        pay(pages, reference)
    ask(pages, now=NOON + PAGE_LIFE + timedelta(seconds=1))
    assert attempt(reference).closed_because == "never sent"


def test_somebody_who_begins_and_gives_up_again_and_again_waits(
    world: World, reference: str
) -> None:
    pages = pages_of(world)
    for _ in range(ATTEMPTS_MAX):
        assert pay(pages, reference).step is Step.PAGE
        give_up(named(pages), reference, clock=lambda: NOON)
    assert pay(pages, reference) == Begun(Step.TOO_OFTEN)
    later = NOON + PAGE_LIFE + timedelta(seconds=1)
    world.clock = lambda: later
    assert pay(pages, reference, now=later).step is Step.PAGE


def test_loading_the_page_again_and_again_hurries_us_only_so_often(
    world: World, reference: str, database: str
) -> None:
    pages = pages_of(world)
    pay(pages, reference)
    query = "SELECT ask_at < clock_timestamp() + interval '1 minute' FROM payment_attempt"
    assert rows_of(database, query) == [(False,)]
    with transaction() as session:
        came_back(session, attempt(reference))
    assert rows_of(database, query) == [(True,)]
    with transaction() as session:
        execute(
            session,
            "UPDATE payment_attempt SET tries = :tries,"
            " ask_at = clock_timestamp() + interval '1 hour'",
            {"tries": TRIES_HURRIED_MAX},
        )
        came_back(session, attempt(reference))
    assert rows_of(database, query) == [(False,)]


def test_a_provider_that_was_switched_off_is_waited_for(world: World, reference: str) -> None:
    pages = pages_of(world)
    pay(pages, reference)
    other = StripePages("other", pages._settings, live=False)
    with pytest.raises(ProviderAway, match="switched off"):
        pay(other, reference)
    late = NOON + PAGE_LIFE
    world.clock = lambda: late
    assert pay(other, reference, now=late).step is Step.PAGE


def test_only_what_makes_pages_is_asked_for_one(world: World) -> None:
    pages = pages_of(world)
    assert page_provider({"cashplus": a_provider()}) is None
    assert page_provider({"cashplus": a_provider(), "stripe": pages}) is pages


def test_refunds_and_a_dispute_find_their_way_back(world: World, reference: str) -> None:
    pages = pages_of(world)
    pay(pages, reference)
    [session] = sessions(world)
    world.pay(session)
    refund = world.refund({"payment_intent": session["payment_intent"], "amount": 5000})
    assert ask(pages) == 1
    left = 16352 - 5000
    assert balances() == {"clearing:stripe": left, "payable:institution": -left}
    # The same once more, by deliveries: by its id and as a sum.
    deliver(pages, world)
    assert balances() == {"clearing:stripe": left, "payable:institution": -left}
    world.clock = lambda: NOON + timedelta(minutes=1)
    world.fail_refund(refund)
    deliver(pages, world, "refund.failed")
    assert balances() == {"clearing:stripe": 16352, "payable:institution": -16352}
    seal()
    assert broken_promises(deliveries=True) == []


def test_an_attempt_of_another_never_stands_in_for_this_one(world: World, database: str) -> None:
    """What a session claims to be of is one thing, which attempt it closes another."""
    first, second = some_invoices(2)
    pages = pages_of(world)
    pay(pages, first)
    pay(pages, second)
    assert attempt(first).id != attempt(second).id
    record(replace(a_report(second), provider="cashplus", attempt_id=attempt(first).id))
    assert attempt(first).state is AttemptState.SENT


def test_the_page_of_what_was_paid_in_another_way_is_closed(world: World, reference: str) -> None:
    pages = pages_of(world)
    pay(pages, reference)
    assert ask(pages, hurry=False) == 0
    record(a_report(reference))
    world.faults.away = True
    assert ask(pages, hurry=False) == 1
    assert attempt(reference).state is AttemptState.SENT
    world.faults.away = False
    assert ask(pages, hurry=False) == 0, "Stripe is left alone for a while"
    assert ask(pages) == 1
    assert sessions(world)[0]["status"] == "expired"
    assert attempt(reference).closed_because == "outdated"
    assert ask(pages, hurry=False) == 0


def test_a_page_that_was_opened_before_a_month_began_stays_good(
    world: World, reference: str
) -> None:
    pages = pages_of(world)
    evening = datetime(2026, 12, 31, 22, 50, tzinfo=UTC)
    next_year = evening + timedelta(minutes=20)
    world.clock = lambda: evening
    begun = pay(pages, reference, now=evening)
    # 163.52 and one month of penalty; at midnight the second begins.
    assert attempt(reference).amount_minor == 16516
    ask(pages, now=next_year)
    assert attempt(reference).state is AttemptState.SENT
    part = {"paid_at": next_year, "stated_at": next_year, "received_at": next_year}
    record(a_report(reference, amount_minor=100, **part), now=next_year)
    ask(pages, now=next_year)
    assert attempt(reference).closed_because == "outdated"
    again = pay(pages, reference, now=next_year)
    assert again.url != begun.url
    assert attempt(reference).amount_minor == 16352 + 327 - 100


def test_whatever_was_asked_before_the_page_of_what_was_paid_is_closed_at_once(
    world: World, reference: str
) -> None:
    pages = pages_of(world)
    pay(pages, reference)
    for _ in range(8):
        assert ask(pages) == 1, "somebody waits, and the page is open"
    record(a_report(reference))
    assert ask(pages, hurry=False) == 1
    assert sessions(world)[0]["status"] == "expired"


def test_one_asks_and_the_others_do_not_wait(world: World, reference: str) -> None:
    pages = pages_of(world)
    pay(pages, reference)
    with alone(ASKING) as ours:
        assert ours
        with alone(ASKING) as also:
            assert not also
        assert ask(pages) == 0
    assert ask(pages) == 1


def test_the_page_of_another_provider_is_settled_with_that_one(
    world: World, reference: str
) -> None:
    """Two make pages: what the one made is never closed, or forgotten, without asking it."""
    pages = pages_of(world)
    other = StripePages("other", pages._settings, live=False)
    pay(pages, reference)
    world.pay(sessions(world)[0])
    late = NOON + PAGE_LIFE
    assert pay(other, reference, pages, now=late) == Begun(Step.UNKNOWN)
    assert not give_up(named(other, pages), reference, clock=lambda: late)
    assert ask(pages, now=late, hurry=False) == 1
    paid_once(reference)


def test_an_error_that_stripe_keeps_ends_the_attempt_and_the_next_press_finds_a_page(
    world: World, reference: str
) -> None:
    pages = pages_of(world)
    world.faults.failures = 1
    with pytest.raises(PageFailed):
        pay(pages, reference)
    assert attempt(reference).closed_because == FAILED
    assert pay(pages, reference).step is Step.PAGE
    assert len(sessions(world)) == 1


def test_who_gives_up_a_used_page_again_and_again_has_stripe_asked_once(
    world: World, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = pages_of(world)
    pay(pages, reference)
    world.pay(sessions(world)[0])
    asked: list[str] = []
    close = pages.close_page

    def counted(page: str) -> PageState:
        asked.append(page)
        return close(page)

    monkeypatch.setattr(pages, "close_page", counted)
    for _ in range(5):
        assert not give_up(named(pages), reference, clock=lambda: NOON)
    assert len(asked) == 1
    assert ask(pages, hurry=False) == 1
    paid_once(reference)


def test_a_page_that_was_paid_though_nothing_was_due_is_booked_as_paid_twice(
    world: World, reference: str
) -> None:
    pages = pages_of(world)
    pay(pages, reference)
    world.pay(sessions(world)[0])
    record(a_report(reference))
    assert ask(pages, hurry=False) == 1
    assert attempt(reference).state is AttemptState.PAID
    assert [code for code, _ in the_books().exceptions] == ["paid_twice"]


def test_the_schedule_rings_and_the_task_asks(
    world: World, reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = pages_of(world)
    pay(pages, reference)
    world.pay(sessions(world)[0])
    path = tmp_path / "providers.toml"
    path.write_text(providers_file(world.address))
    monkeypatch.setenv("WASL_PROVIDERS", str(path))
    monkeypatch.setenv("WASL_CLOCK", f"={NOON.isoformat()}")
    for once in (settings, process.providers, process.business_clock):
        once.cache_clear()
    from gateway.tasks import ask_providers
    from gateway.worker import ASK_PROVIDERS, app

    assert ASK_PROVIDERS in {entry["task"] for entry in app.conf.beat_schedule.values()}
    with transaction() as session:
        execute(session, "UPDATE payment_attempt SET ask_at = '-infinity'")
    ask_providers()
    paid_once(reference)
