"""Paying by card as a page says it: in each state, in both languages, whatever is pressed twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import stripe
from fastapi import FastAPI
from starlette.testclient import TestClient

from gateway import process
from gateway.collection.attempt_rows import ATTEMPTS_MAX
from gateway.collection.inquiries import ask_due
from gateway.collection.reports import Statement
from gateway.db import execute, transaction
from gateway.pages.card import REFRESHES_MAX
from gateway.settings import settings
from gateway.simulators.stripe import World
from tests.factories import NOON, a_report, record
from tests.gateway.pages import states
from tests.gateway.pages.conftest import a_client
from tests.gateway.pages.states import text_of
from tests.stand_in import providers_file, sessions, standing_in


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.01)
    with standing_in() as server:
        yield server.world


@pytest.fixture
def card(app: FastAPI, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A browser at an installation that takes cards by Stripe."""
    path = tmp_path / "providers.toml"
    path.write_text(providers_file(world.address))
    monkeypatch.setenv("WASL_PROVIDERS", str(path))
    settings.cache_clear()
    process.providers.cache_clear()
    return a_client(app)


def press(client: TestClient, reference: str, deed: str = "", **headers: str) -> Any:
    return client.post(f"/{reference}/card{deed}", headers=headers)


def ask() -> None:
    with transaction() as session:
        execute(
            session, "UPDATE payment_attempt SET ask_at = '2000-01-01' WHERE ask_at IS NOT NULL"
        )
    ask_due(process.providers(), key=process.signing_key(), clock=lambda: NOON, asks_max=5)


def forms(answer: Any) -> list[str]:
    found = re.findall(r'<form[^>]* action="([^"]+)"', answer.text)
    return [each for each in found if "/all" not in each]


def test_without_a_provider_of_pages_there_is_no_button(client: TestClient) -> None:
    reference = states.an_invoice()
    answer = client.get(f"/{reference}")
    assert forms(answer) == []
    assert "Payer 163" not in text_of(answer).replace("\u00a0", " ")
    assert press(client, reference).status_code == 404
    assert press(client, reference, "/stop").status_code == 404


def test_the_button_leads_to_the_card_page_and_the_policy_lets_it(
    card: TestClient, world: World
) -> None:
    reference = states.an_invoice()
    answer = card.get(f"/{reference}")
    assert forms(answer) == [f"/{reference}/card"]
    assert "Payer 163,52" in text_of(answer).replace("\u00a0", " ")
    assert f"form-action 'self' {world.address};" in answer.headers["content-security-policy"]
    sent = press(card, reference)
    [session] = sessions(world)
    assert (sent.status_code, sent.headers["location"]) == (303, session["url"])
    assert press(card, reference).headers["location"] == session["url"]
    assert len(sessions(world)) == 1


def test_each_state_says_what_to_do(card: TestClient, world: World) -> None:
    reference = states.an_invoice()
    press(card, reference)
    for language, begun, unknown, ended in (
        ("fr", "commencé, et pas terminé", "ne payez pas une deuxième fois", "rien n’a été pris"),
        ("ar", "بدأ أداء بالبطاقة", "لا تؤدوا مرة أخرى", "لم يقتطع بها أي مبلغ"),
    ):
        at = f"/{reference}?lang={language}"
        shown = card.get(at)
        assert begun in text_of(shown)
        assert [f.partition("?")[0] for f in forms(shown)] == [
            f"/{reference}/card",
            f"/{reference}/card/stop",
        ]
        assert "refresh" not in shown.headers
        shown = card.get(f"{at}&card=back")
        assert unknown in text_of(shown)
        assert begun not in text_of(shown)
        assert ended not in text_of(shown)
        assert shown.headers["refresh"].startswith("3; url=")
    stopped = press(card, reference, "/stop")
    assert stopped.headers["location"] == f"/{reference}?card=stopped"
    assert sessions(world)[0]["status"] == "expired"
    for language, ended in (("fr", "rien n’a été pris"), ("ar", "لم يقتطع بها أي مبلغ")):
        assert ended in text_of(card.get(f"/{reference}?card=stopped&lang={language}"))
        assert ended not in text_of(card.get(f"/{reference}?lang={language}"))


def test_a_page_that_waits_loads_itself_again_ever_more_slowly_and_not_for_ever(
    card: TestClient,
) -> None:
    reference = states.an_invoice()
    press(card, reference)
    path, waits = f"/{reference}?card=back", []
    while True:
        shown = card.get(path)
        if "refresh" not in shown.headers:
            break
        seconds, _, path = shown.headers["refresh"].partition("; url=")
        waits.append(int(seconds))
    assert waits == sorted(waits)
    assert len(waits) == REFRESHES_MAX
    assert "plus de temps que d’habitude" in text_of(shown)
    assert card.get(f"/{reference}?card=back&try=x").headers["refresh"].startswith("3;")


def test_a_payer_who_came_back_sees_it_paid(card: TestClient, world: World) -> None:
    reference = states.an_invoice()
    press(card, reference)
    world.pay(sessions(world)[0])
    assert "ne payez pas" in text_of(card.get(f"/{reference}?card=back"))
    ask()
    assert "Cette cotisation est payée" in text_of(card.get(f"/{reference}?card=back"))
    # A page of before, still open in another tab: nothing is due, so nothing is opened.
    again = press(card, reference)
    assert again.headers["location"] == f"/{reference}"
    assert len(sessions(world)) == 1


def test_giving_up_what_was_paid_meanwhile_is_not_given_up(card: TestClient, world: World) -> None:
    reference = states.an_invoice()
    press(card, reference)
    world.pay(sessions(world)[0])
    assert press(card, reference, "/stop").headers["location"] == f"/{reference}?card=back"


def test_a_part_payment_asks_for_the_rest(card: TestClient, world: World) -> None:
    reference = states.an_invoice()
    record(a_report(reference, amount_minor=10_000))
    press(card, reference)
    assert sessions(world)[0]["amount_total"] == 6352


def test_stripe_away_is_said_clearly_and_nothing_is_lost(card: TestClient, world: World) -> None:
    reference = states.an_invoice()
    world.faults.away = True
    for deed in ("", "/stop"):
        for language, words in (("fr", "Rien n’a été pris"), ("ar", "لم يقتطع أي مبلغ")):
            answer = card.post(f"/{reference}/card{deed}?lang={language}")
            if deed and answer.status_code == 303:
                continue  # nothing open to give up
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "60"
            assert words in text_of(answer)
            assert f"/{reference}" in answer.text
        world.faults.away = False
        assert press(card, reference).status_code == 303
        world.faults.away = True
    assert len(sessions(world)) == 1


def test_what_stripe_refuses_is_said(card: TestClient, world: World) -> None:
    reference = states.an_invoice()
    world.clock = lambda: NOON + timedelta(days=2)
    answer = press(card, reference)
    assert answer.status_code == 503
    assert "autre façon de payer" in text_of(answer)


def test_too_often_is_said(card: TestClient) -> None:
    reference = states.an_invoice()
    for _ in range(ATTEMPTS_MAX):
        press(card, reference)
        press(card, reference, "/stop")
    answer = press(card, reference)
    assert answer.status_code == 429
    assert "trop souvent" in text_of(answer)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"sec-fetch-site": "same-origin"}, 303),
        ({"sec-fetch-site": "none"}, 303),
        ({"sec-fetch-site": "same-origin", "origin": "null"}, 303),
        ({"origin": "https://amo.example.ma"}, 303),
        ({"origin": "http://127.0.0.1:8000"}, 303),
        ({"origin": "null"}, 303),
        ({"sec-fetch-site": "cross-site", "origin": "null"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "https://amo.example.ma.evil.example"}, 403),
    ],
)
def test_another_site_cannot_send_people_to_pay(
    card: TestClient, world: World, headers: dict[str, str], status: int
) -> None:
    reference = states.an_invoice()
    assert press(card, reference, **headers).status_code == status
    assert len(sessions(world)) == (status == 303)
    assert press(card, reference, "/stop", **headers).status_code == status


def test_what_is_closed_or_unknown_opens_no_page(card: TestClient, world: World) -> None:
    for reference in (states.paid(), states.cancelled(), states.an_invoice("2025-01")):
        assert "/card" not in card.get(f"/{reference}").text
        assert press(card, reference).headers["location"] == f"/{reference}"
    assert press(card, states.nobodys()).status_code == 404
    assert press(card, "148275036142").status_code == 422
    assert sessions(world) == []


def test_an_address_for_forms_leads_who_reads_it_to_the_invoice(card: TestClient) -> None:
    reference = states.an_invoice()
    for deed in ("", "/stop"):
        answer = card.get(f"/{reference}/card{deed}?lang=ar")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/{reference}?lang=ar")


def test_an_announced_payment_comes_first(card: TestClient) -> None:
    reference = states.an_invoice()
    press(card, reference)
    record(a_report(reference, statement=Statement.PENDING))
    shown = card.get(f"/{reference}")
    assert "commencé, et pas terminé" not in text_of(shown)
    assert "Ne payez pas" in text_of(shown)


def test_nobody_is_named(card: TestClient) -> None:
    reference = states.an_invoice()
    press(card, reference)
    for query in ("", "?card=back", "?card=stopped", "?lang=ar&card=back"):
        shown = card.get(f"/{reference}{query}")
        assert not any(part in shown.text for part in states.SECRETS)
