"""Refunds by Stripe's own calls, from asking to the webhook, against the stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
import stripe

from gateway import process
from gateway.collection import refunds
from gateway.collection.refund_sending import carry_out
from gateway.collection.refunds import Shown
from gateway.db import execute, snapshot, transaction
from gateway.errors import ProviderRefused
from gateway.providers import PageFailed
from gateway.providers.refunding import WantedRefund, refunding
from gateway.simulators.stripe import World
from tests.factories import NOON, a_provider, record, rows_of, some_invoices, the_books
from tests.gateway.collection.test_refunds import all_holds, approve
from tests.gateway.test_stripe_stand_in import wanted
from tests.stand_in import pages_of, standing_in

DUE = 16352


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.01)
    with standing_in() as server:
        yield server.world


def paid(world: World, reference: str) -> str:
    """Have a payer pay at the stand-in's page; return the payment's name there."""
    made = pages_of(world).make_page(wanted(reference=reference, attempt_id=f"a{reference}"))
    session = world.things[made.session_id]
    world.pay(session)
    return str(session["payment_intent"])


def hear(world: World, *kinds: str) -> None:
    """Have us hear what the stand-in told of, all of it or some kinds."""
    provider = pages_of(world)
    for event in world.events:
        if not kinds or event["type"] in kinds:
            body = json.dumps(event).encode()
            record(provider.parse(body, delivery_id=event["id"], received_at=NOON))


def ask(named: str, minor: int) -> Shown:
    with transaction() as session:
        query = "SELECT id FROM payment WHERE provider_payment_id = :named"
        payment = execute(session, query, {"named": named}).scalar_one()
        return refunds.ask(
            session,
            payment,
            minor,
            way=None,
            can_refund=lambda name: name == "stripe",
            who="staff Amina",
            why="Paid twice",
            now=NOON,
        )


def go_on(world: World) -> None:
    with transaction() as session:
        execute(session, "UPDATE refund SET act_at = clock_timestamp() WHERE act_at IS NOT NULL")
    able = refunding({"stripe": pages_of(world), "cashplus": a_provider()})
    assert list(able) == ["stripe"]
    carry_out(able, key=process.signing_key(), clock=lambda: NOON, most=5)


def state_of(shown: Shown) -> str:
    with snapshot() as session:
        return refunds.show(session, shown.row.id).row.state.value


def test_from_asking_to_the_webhook_and_back(database: str, world: World) -> None:
    (reference,) = some_invoices()
    named = paid(world, reference)
    hear(world)
    asked = approve(ask(named, 5_000))
    # An error that Stripe keeps under the key: it may be made after all, so no other key is taken.
    world.faults.failures = 1
    for _ in range(3):
        go_on(world)
        assert (state_of(asked), world.all("refund")) == ("approved", [])
    # After a day the key is free.
    world.answers.clear()
    go_on(world)
    (made,) = world.all("refund")
    assert (state_of(asked), made["amount"], made["payment_intent"]) == ("done", 5_000, named)
    assert the_books().invoices == [(reference, DUE, DUE - 5_000, "part_paid")]
    hear(world)
    assert the_books().invoices == [(reference, DUE, DUE - 5_000, "part_paid")]
    world.clock = lambda: NOON + timedelta(minutes=3)
    world.fail_refund(made)
    hear(world, "refund.failed")
    assert state_of(asked) == "failed"
    assert the_books().invoices == [(reference, DUE, DUE, "paid")]
    all_holds()


def test_a_webhook_that_is_quicker_than_the_answer_says_whose_refund_it_is(
    database: str, world: World
) -> None:
    (reference,) = some_invoices()
    named = paid(world, reference)
    hear(world)
    asked = approve(ask(named, DUE))
    world.faults.lost_answers = 2
    go_on(world)
    hear(world, "refund.created", "charge.refunded")
    assert state_of(asked) == "done"
    go_on(world)
    assert len(world.all("refund")) == 1
    assert rows_of(database, "SELECT act_at FROM refund") == [(None,)]
    all_holds()


def test_what_stripe_refuses_is_told_and_moves_nothing(database: str, world: World) -> None:
    (reference,) = some_invoices()
    named = paid(world, reference)
    hear(world)
    asked = approve(ask(named, 10_000))
    # Somebody was quicker at Stripe itself, and we have not heard of it yet.
    world.refund({"payment_intent": named, "amount": "10000"})
    go_on(world)
    assert state_of(asked) == "failed"
    assert the_books().exceptions == [("refund_failed", f"refund:{asked.row.id}")]
    assert the_books().invoices == [(reference, DUE, DUE, "paid")]
    hear(world)
    assert the_books().invoices == [(reference, DUE, DUE - 10_000, "part_paid")]
    all_holds()


def test_a_wish_is_granted_once_and_another_token_is_another_wish(world: World) -> None:
    provider, named = pages_of(world), paid(world, "148275036141")
    wish = WantedRefund("wasl_refund_1", named, 5_000)
    assert provider.find_refund(wish, received_at=NOON) is None
    first = provider.refund(wish, received_at=NOON)
    assert provider.refund(wish, received_at=NOON) == first
    assert provider.find_refund(wish, received_at=NOON) == first
    assert (first.asked_as, first.arrived, first.amount_minor) == ("wasl_refund_1", True, 5_000)
    assert len(world.all("refund")) == 1
    with pytest.raises(ProviderRefused):
        provider.refund(WantedRefund("wasl_refund_2", named, DUE), received_at=NOON)
    world.faults.failures = 1
    failing = WantedRefund("wasl_refund_3", named, 1)
    for _ in range(2):
        with pytest.raises(PageFailed):
            provider.refund(failing, received_at=NOON)
