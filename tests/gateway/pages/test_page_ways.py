"""Choosing between pages to pay on: cards at two banks, a wallet; each as its provider wants it."""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from gateway import process
from gateway.collection.attempts import page_providers
from gateway.collection.inquiries import ask_due
from gateway.db import execute, transaction
from gateway.settings import settings
from gateway.simulators.walletoperator import Operator
from gateway.simulators.walletquery import Server
from tests.factories import NOON, balances, rows_of
from tests.gateway.pages import states
from tests.gateway.pages.conftest import a_client, set_clock
from tests.gateway.pages.states import text_of

BANK: Final = "http://127.0.0.1:8425"


@pytest.fixture
def operator() -> Iterator[Server]:
    server = Server(0, "a-key", Operator(clock=lambda: NOON))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def payer(
    app: FastAPI, operator: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> TestClient:
    """A browser at an installation with two card pages and a wallet's."""
    cmi = 'kind = "cmi"\nclient_id = "600000000"\nstore_key = "{}"\napi_base = "{}"\n'
    path = tmp_path / "providers.toml"
    path.write_text(
        f'[[provider]]\nname = "cmi"\n{cmi.format("TESTkey0123456789", BANK)}'
        f'[[provider]]\nname = "other"\n{cmi.format("TESTkey9876543210", BANK)}'
        '[[provider]]\nname = "orange"\nkind = "status-query"\napi_key = "a-key"\n'
        f'request_url = "{operator.address}/webpayment"\n'
        f'status_url = "{operator.address}/transactionstatus"\n'
    )
    monkeypatch.setenv("WASL_PROVIDERS", str(path))
    settings.cache_clear()
    process.providers.cache_clear()
    return a_client(app)


def press(client: TestClient, reference: str, way: str = "", deed: str = "") -> Any:
    return client.post(f"/{reference}/card{deed}", data={"way": way})


def lead(client: TestClient, reference: str, way: str = "") -> Any:
    """Press, and be led to the page with the bank's form."""
    sent = press(client, reference, way)
    assert (sent.status_code, sent.headers["location"]) == (303, f"/{reference}/card")
    return client.get(sent.headers["location"])


def hidden(text: str) -> list[tuple[str, str]]:
    found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', text)
    return [(name, html.unescape(value)) for name, value in found]


def ask() -> int:
    with transaction() as session:
        execute(session, "UPDATE payment_attempt SET ask_at = '-infinity' WHERE ask_at > now()")
    return ask_due(process.providers(), key=process.signing_key(), clock=lambda: NOON, asks_max=5)


def test_each_way_has_a_button_of_its_own(payer: TestClient, operator: Server) -> None:
    reference = states.an_invoice()
    for language, card, wallet in (
        ("fr", "Payer 163,52 DH par carte", "Payer 163,52 DH par portefeuille"),
        ("ar", "أداء 163,52 درهم بالبطاقة", "أداء 163,52 درهم بالمحفظة"),
    ):
        shown = payer.get(f"/{reference}?lang={language}")
        said = text_of(shown).replace("\u00a0", " ")
        assert [name for _, name in hidden(shown.text)] == ["cmi", "other", "orange"]
        for label in (f"{card}: CMI", f"{card}: other", wallet):
            assert label in said.replace(" :", ":")
    origins = f"form-action 'self' {BANK} {operator.address};"
    assert origins in shown.headers["content-security-policy"]


def test_a_bank_is_entered_by_a_form_that_leads_there_and_nowhere_else(
    payer: TestClient, database: str
) -> None:
    reference = states.an_invoice()
    assert payer.get(f"/{reference}/card").headers["location"] == f"/{reference}"
    shown = lead(payer, reference, "other")
    assert shown.status_code == 200
    assert re.findall(r'<form[^>]* action="([^"]+)"', shown.text) == [f"{BANK}/fim/est3Dgate"]
    policy = shown.headers["content-security-policy"]
    assert f"form-action {BANK};" in policy
    assert "script-src" not in policy
    assert shown.headers["cache-control"] == "private, no-store"
    assert "Continuer vers la page de la banque" in text_of(shown)
    fields = hidden(shown.text)
    assert dict(fields)["amount"] == "163.52"
    assert dict(fields)["callbackUrl"].endswith("/webhooks/other")
    assert "163,52" in text_of(shown)
    # The same form again, made anew, in whichever language: nothing of it is kept.
    assert hidden(lead(payer, reference, "other").text) == fields
    arabic = payer.get(f"/{reference}/card?lang=ar")
    assert hidden(arabic.text) == fields
    assert "المتابعة إلى صفحة البنك" in text_of(arabic)
    kept = rows_of(database, "SELECT page_url, session_id FROM payment_attempt")
    assert kept == [(None, dict(fields)["oid"])]
    begun = payer.get(f"/{reference}")
    assert hidden(begun.text) == [("way", "other")], "the page that was begun is gone on with"
    assert not any(part in shown.text for part in states.SECRETS)
    # Nothing is taken by it unless we say so: it can be left, at once for the wallet.
    assert press(payer, reference, deed="/stop").headers["location"].endswith("?card=stopped")
    assert lead(payer, reference, "cmi").status_code == 200
    assert press(payer, reference, "orange").status_code == 303
    states_of = "SELECT provider, state FROM payment_attempt ORDER BY provider"
    assert rows_of(database, states_of) == [
        ("cmi", "closed"),
        ("orange", "sent"),
        ("other", "closed"),
    ]


def test_a_wallet_is_entered_by_its_address_and_pays(payer: TestClient, operator: Server) -> None:
    reference = states.an_invoice()
    sent = press(payer, reference, "orange")
    order = operator.operator.find(reference)
    assert sent.status_code == 303
    assert sent.headers["location"] == f"{operator.address}/pay/{order.pay_token}"
    for language, begun, unknown in (
        ("fr", "Un paiement par portefeuille est commencé", "ne payez pas une deuxième fois"),
        ("ar", "بدأ أداء بالمحفظة", "لا تؤدوا مرة أخرى"),
    ):
        assert begun in text_of(payer.get(f"/{reference}?lang={language}"))
        waiting = payer.get(f"/{reference}?lang={language}&card=back")
        assert unknown in text_of(waiting)
        assert "page de paiement par carte" not in text_of(waiting)
    # Nobody but the payer can close it: until then another page would be a second payment.
    assert press(payer, reference, deed="/stop").headers["location"].endswith("?card=open")
    assert press(payer, reference, "cmi").headers["location"].endswith("?card=open")
    for language, still in (("fr", "peut encore aboutir"), ("ar", "ما زال أداؤه ممكنا")):
        shown = text_of(payer.get(f"/{reference}?lang={language}&card=open"))
        assert still in shown
        assert "14:00" in shown, "an hour after it was begun, in Casablanca"
        assert "Vous revenez" not in shown
        assert "عدتم" not in shown
    operator.operator.settle(order, paid=True)
    assert ask() == 1
    assert "Cette cotisation est payée" in text_of(payer.get(f"/{reference}?card=back"))
    assert balances() == {"clearing:orange": 16352, "payable:institution": -16352}


def test_who_takes_the_risk_may_take_another_way_and_is_told_of_what_is_paid_twice(
    payer: TestClient, operator: Server, database: str
) -> None:
    reference = states.an_invoice()
    press(payer, reference, "orange")
    press(payer, reference, deed="/stop")
    again = payer.post(f"/{reference}/card/stop", data={"anyway": "1"})
    assert again.headers["location"].endswith("?card=left")
    shown = text_of(payer.get(f"/{reference}?card=left"))
    assert "rien n’y a été pris" not in shown, "nobody knows that"
    assert lead(payer, reference, "cmi").status_code == 200
    # The page that was left open is asked about as long as it lives, and its money is booked.
    order = operator.operator.find(reference)
    for _ in range(2):
        before = operator.operator.asked[order.order_id]
        ask()
        assert operator.operator.asked[order.order_id] == before + 1
    operator.operator.settle(order, paid=True)
    ask()
    assert balances() == {"clearing:orange": 16352, "payable:institution": -16352}
    assert rows_of(database, "SELECT state FROM payment_attempt WHERE provider = 'orange'") == [
        ("paid",)
    ]


def test_nobody_takes_that_risk_for_what_is_being_paid(payer: TestClient, operator: Server) -> None:
    reference = states.an_invoice()
    press(payer, reference, "orange")
    operator.operator.find(reference).status = "PENDING"
    again = payer.post(f"/{reference}/card/stop", data={"anyway": "1"})
    assert again.headers["location"].endswith("?card=open")
    assert press(payer, reference, "cmi").headers["location"].endswith("?card=open")


def test_who_refuses_in_the_wallet_may_take_another_way(
    payer: TestClient, operator: Server
) -> None:
    reference = states.an_invoice()
    press(payer, reference, "orange")
    operator.operator.settle(operator.operator.find(reference), paid=False)
    assert press(payer, reference, deed="/stop").headers["location"].endswith("?card=stopped")
    for language, ended in (
        ("fr", "Le paiement par portefeuille est fermé"),
        ("ar", "أغلق الأداء"),
    ):
        assert ended in text_of(payer.get(f"/{reference}?card=stopped&lang={language}"))
    assert lead(payer, reference, "cmi").status_code == 200


def test_who_refuses_in_the_wallet_and_pays_after_all_is_told_not_to_pay_again(
    payer: TestClient, operator: Server
) -> None:
    reference = states.an_invoice()
    press(payer, reference, "orange")
    order = operator.operator.find(reference)
    operator.operator.settle(order, paid=False)
    ask()
    operator.operator.settle(order, paid=True)
    for deed in ("", "/stop"):
        for way in ("orange", "cmi"):
            led = press(payer, reference, way, deed)
            assert led.headers["location"].endswith("?card=open")
    for at in ("?card=open", ""):
        shown = payer.get(f"/{reference}{at}")
        assert "ne payez pas une deuxième fois" in text_of(shown)
        assert shown.headers["refresh"].startswith("3; url=")
    assert ask() == 1
    assert "Cette cotisation est payée" in text_of(payer.get(f"/{reference}?card=back"))
    assert balances() == {"clearing:orange": 16352, "payable:institution": -16352}


def test_who_comes_back_from_a_page_that_was_closed_is_not_told_that_nothing_was_taken(
    payer: TestClient, operator: Server, database: str
) -> None:
    reference = states.an_invoice()
    press(payer, reference, "orange")
    order = operator.operator.find(reference)
    operator.operator.settle(order, paid=False)
    ask()
    back = f"/{reference}?card=back"
    assert "rien n’a été pris" in text_of(payer.get(f"/{reference}?card=left"))
    # By the wallet's own back button he pays after all, and nobody tells us of it.
    for _ in range(2):
        shown = payer.get(back)
        assert "ne payez pas une deuxième fois" in text_of(shown)
        assert shown.headers["refresh"].startswith(f"3; url={back}&try=1")
    # He had not: it is asked about once for each time that he comes back, and not while he waits.
    assert ask() == 1
    waited = payer.get(f"{back}&try=1")
    assert "refresh" not in waited.headers
    assert "ne payez pas une deuxième fois" not in text_of(waited)
    assert "rien n’a été pris" not in text_of(waited)
    assert "ne payez pas une deuxième fois" in text_of(payer.get(back))
    operator.operator.settle(order, paid=True)
    assert ask() == 1
    assert "Cette cotisation est payée" in text_of(payer.get(f"{back}&try=1"))
    # Who loads the page again and again has us ask only so often, and of an old page not at all.
    second = states.an_invoice("2026-10")
    press(payer, second, "orange")
    operator.operator.settle(operator.operator.find(second), paid=False)
    ask()
    with transaction() as session:
        execute(session, "UPDATE payment_attempt SET tries = 60 WHERE state = 'closed'")
    assert "ne payez pas une deuxième fois" not in text_of(payer.get(f"/{second}?card=back"))
    with transaction() as session:
        execute(session, "UPDATE payment_attempt SET tries = 1, expires_at = '2026-01-01'")
    assert "ne payez pas une deuxième fois" not in text_of(payer.get(f"/{second}?card=back"))


def test_what_nobody_can_be_asked_about_is_not_put_in_doubt(
    payer: TestClient, operator: Server, tmp_path: Path
) -> None:
    reference = states.an_invoice()
    press(payer, reference, "orange")
    operator.operator.settle(operator.operator.find(reference), paid=False)
    ask()
    path = tmp_path / "providers.toml"
    path.write_text(path.read_text().partition('[[provider]]\nname = "orange"')[0])
    process.providers.cache_clear()
    for at in ("?card=back", ""):
        shown = payer.get(f"/{reference}{at}")
        assert ask() == 0
        assert "ne payez pas une deuxième fois" not in text_of(shown)
        assert ("way", "cmi") in hidden(shown.text)


def test_who_has_left_a_wallet_open_is_not_locked_out_by_the_back_button(
    payer: TestClient, operator: Server, database: str
) -> None:
    reference = states.an_invoice()
    press(payer, reference, "orange")
    left = payer.post(f"/{reference}/card/stop", data={"anyway": "1"})
    assert left.headers["location"].endswith("?card=left")
    shown = payer.get(f"/{reference}?card=back")
    assert ask() == 1
    for at in ("?card=back&try=1", ""):
        shown = payer.get(f"/{reference}{at}")
        assert "ne payez pas une deuxième fois" not in text_of(shown)
        assert ("way", "cmi") in hidden(shown.text)


def test_who_comes_back_need_not_come_from_what_was_begun_last(
    payer: TestClient, operator: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = states.an_invoice()
    set_clock(monkeypatch, NOON - timedelta(minutes=5))
    press(payer, reference, "orange")
    order = operator.operator.find(reference)
    operator.operator.settle(order, paid=False)
    ask()
    set_clock(monkeypatch, NOON)
    lead(payer, reference, "cmi")
    press(payer, reference, deed="/stop")
    # By the wallet's own back button he pays after all.
    operator.operator.settle(order, paid=True)
    shown = text_of(payer.get(f"/{reference}?card=back"))
    assert "rien n’a été pris" not in shown
    assert "ne payez pas une deuxième fois" in shown
    assert ask() == 1
    assert "Cette cotisation est payée" in text_of(payer.get(f"/{reference}?card=back&try=1"))


def test_no_wallet_is_asked_for_more_than_any_may_hold(
    payer: TestClient,
    operator: Server,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reference = states.an_invoice()
    states.wallets_hold(monkeypatch, tmp_path, "50.00", "163.51", verified=True)
    shown = payer.get(f"/{reference}")
    assert [name for _, name in hidden(shown.text)] == ["cmi", "other"]
    for language, words in (
        ("fr", ("dépasse ce qu’un portefeuille peut contenir", "163,51 DH", "Rien n’a été pris")),
        ("ar", ("يتجاوز ما يمكن أن تتضمنه أي محفظة", "163,51 درهم", "لم يقتطع أي مبلغ")),
    ):
        answer = payer.post(f"/{reference}/card?lang={language}", data={"way": "orange"})
        assert answer.status_code == 409
        said = text_of(answer).replace("\u00a0", " ").replace("\u2068", "")
        assert all(each in said for each in words), said
        assert f'href="/{reference}' in answer.text
    assert operator.operator.orders == {}
    assert rows_of(database, "SELECT count(*) FROM payment_attempt") == [(0,)]
    # Card and cash have no ceiling of ours.
    assert lead(payer, reference, "cmi").status_code == 200
    # The very highest suffices: how far a payer has identified himself we cannot know.
    press(payer, reference, deed="/stop")
    states.wallets_hold(monkeypatch, tmp_path, "50.00", "163.52", verified=True)
    assert press(payer, reference, "orange").status_code == 303
    # A ceiling that nobody has confirmed is told as such, and hinders nobody.
    other = states.an_invoice("2026-10")
    states.wallets_hold(monkeypatch, tmp_path, "100.00", verified=False)
    shown = payer.get(f"/{other}")
    assert "À notre connaissance, aucun portefeuille ne dépasse" in text_of(shown)
    assert "Chiffre non confirmé" in text_of(shown)
    assert "orange" in [name for _, name in hidden(shown.text)]
    sent = press(payer, other, "orange")
    assert sent.headers["location"].startswith(operator.address)


def test_a_way_that_is_none_leads_to_the_first(payer: TestClient) -> None:
    assert [each.name for each in page_providers(process.providers())] == ["cmi", "other", "orange"]
    for way in ("", "nobody", "x" * 1_000, "\x00"):
        shown = lead(payer, states.an_invoice(), way)
        assert dict(hidden(shown.text))["callbackUrl"].endswith("/webhooks/cmi")


def test_a_wallet_that_is_away_is_said(payer: TestClient, operator: Server) -> None:
    operator.api_key = "another"
    for language, words in (
        ("fr", "La page du portefeuille ne répond pas"),
        ("ar", "صفحة المحفظة لا تستجيب"),
    ):
        answer = payer.post(f"/{states.an_invoice()}/card?lang={language}", data={"way": "orange"})
        assert answer.status_code == 503
        assert words in text_of(answer)
