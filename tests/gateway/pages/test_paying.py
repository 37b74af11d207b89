"""Paying by a number, by a code, several months at once: what each page says, and to whom."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from gateway import process
from gateway.collection.inquiries import ask_due
from gateway.db import execute, snapshot, transaction
from gateway.registers.phones import read_mobile
from gateway.settings import settings
from gateway.simulators.aggregatorpage import Server as Codes
from gateway.simulators.walletpush import Server as Push
from tests.factories import NOON, issue, rows_of
from tests.gateway.pages import states
from tests.gateway.pages.conftest import a_client, set_clock
from tests.gateway.pages.states import text_of
from tests.stand_in import a_push_standing_in, codes_entry, codes_standing_in, push_entry

PHONE: Final = "06 12 34 56 78"


@pytest.fixture
def push() -> Iterator[Push]:
    with a_push_standing_in() as server:
        yield server


@pytest.fixture
def codes() -> Iterator[Codes]:
    with codes_standing_in() as server:
        yield server


@pytest.fixture
def payer(
    app: FastAPI, push: Push, codes: Codes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> TestClient:
    """A browser at an installation with a wallet that asks on phones, and codes for agencies."""
    path = tmp_path / "providers.toml"
    path.write_text(push_entry(push.address) + codes_entry(codes.address))
    monkeypatch.setenv("WASL_PROVIDERS", str(path))
    settings.cache_clear()
    process.providers.cache_clear()
    return a_client(app)


def press(client: TestClient, reference: str, way: str, deed: str = "", **fields: str) -> Any:
    return client.post(f"/{reference}/card{deed}", data={"way": way, **fields})


def said(answer: Any) -> str:
    return text_of(answer).replace("\u00a0", " ").replace("\u2068", "").replace("\u2069", "")


def ask() -> None:
    with transaction() as session:
        execute(session, "UPDATE payment_attempt SET ask_at = '-infinity' WHERE ask_at > now()")
    ask_due(process.providers(), key=process.signing_key(), clock=lambda: NOON, asks_max=5)


def number_of(reference: str) -> str:
    with snapshot() as session:
        query = (
            "SELECT cnss_number FROM contributor c JOIN invoice i ON i.contributor_id = c.id"
            " WHERE reference = :reference"
        )
        return str(execute(session, query, {"reference": reference}).scalar_one())


def test_a_mobile_number_is_read_as_people_write_it() -> None:
    for text in (PHONE, "+212 6-12.34.56.78", "00212612345678", "٠٦١٢٣٤٥٦٧٨", "\u200e0612345678"):
        assert read_mobile(text) == "212612345678", text
    for text in ("", "0512345678", "061234567", "06123456789", "06 12 34 56 7x", "+33612345678"):
        assert read_mobile(text) is None, text


def test_a_payer_types_his_number_and_waits(payer: TestClient, push: Push, database: str) -> None:
    reference = states.an_invoice()
    # The question is a page to read: the back button and loading again find it.
    led = press(payer, reference, "momo").headers["location"]
    assert led == f"/{reference}/card?way=momo"
    gone = press(payer, reference, "of-last-year").headers["location"]
    assert gone == led, "of a way that is gone the first one is taken"
    shown = payer.get(led)
    assert shown.status_code == 200
    assert f'hreflang="ar" href="{led}&amp;lang=ar"' in shown.text
    assert "votre numéro de mobile" in said(shown)
    wrong = press(payer, reference, "momo", phone="05 12")
    assert (wrong.status_code, 'value="05 12"' in wrong.text) == (422, True)
    assert "Erreur" in re.findall("<title>(.*)</title>", wrong.text)[0]
    assert rows_of(database, "SELECT count(*) FROM payment_attempt") == [(0,)]
    sent = press(payer, reference, "momo", phone=PHONE)
    assert sent.headers["location"] == f"/{reference}?card=asked"
    assert payer.get(led).headers["location"] == f"/{reference}", "he is asked already"
    for language, words in (
        ("fr", "Confirmez sur votre téléphone : 163,52 DH"),
        ("ar", "أكدوا في هاتفكم: 163,52 درهم"),
    ):
        waiting = payer.get(f"/{reference}?card=asked&lang={language}")
        assert words in said(waiting)
        assert waiting.headers["refresh"].startswith(f"3; url=/{reference}?card=asked&try=1")
    assert "refresh" in payer.get(f"/{reference}").headers, "whichever way he comes back"
    # Once more, in another tab or by the back button: he is asked once.
    assert press(payer, reference, "momo", phone="0700000000").status_code == 303
    [asked] = push.operator.requests.values()
    assert press(payer, reference, "momo", "/stop").headers["location"].endswith("?card=open")
    assert "vous seul pouvez le fermer" in said(payer.get(f"/{reference}?card=open"))
    push.operator.decide(asked, "confirm")
    ask()
    assert "Cette cotisation est payée" in said(payer.get(f"/{reference}?card=asked"))
    everything = "SELECT a::text FROM payment_attempt a UNION SELECT p::text FROM payment p"
    assert "12345678" not in str(rows_of(database, everything))


def test_nobody_types_his_number_for_more_than_a_wallet_holds(
    payer: TestClient, push: Push, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = states.an_invoice()
    states.wallets_hold(monkeypatch, tmp_path, "100.00", verified=True)
    for answer in (
        payer.get(f"/{reference}/card?way=momo"),
        press(payer, reference, "momo"),
        press(payer, reference, "momo", phone=PHONE),
    ):
        assert answer.status_code == 409
        assert "dépasse ce qu’un portefeuille peut contenir" in said(answer)
    assert push.operator.requests == {}
    assert press(payer, reference, "cashplus").status_code == 303


def test_a_code_has_a_page_that_stays(
    payer: TestClient, codes: Codes, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = states.an_invoice()
    assert payer.get(f"/{reference}/code").headers["location"] == f"/{reference}"
    for _ in range(2):
        sent = press(payer, reference, "cashplus")
        assert sent.headers["location"] == f"/{reference}/code"
    [order] = codes.aggregator.orders.values()
    for language, words in (
        ("fr", ("Payer en espèces avec ce code", "163,52 DH", "Allez dans une agence Cash Plus")),
        ("ar", ("الأداء نقدا بهذا الرمز", "163,52 درهم", "توجهوا إلى وكالة Cash Plus")),
    ):
        for path in (f"/{reference}/code", f"/{reference}"):
            assert order.code in said(payer.get(f"{path}?lang={language}"))
        page = said(payer.get(f"/{reference}/code?lang={language}"))
        assert all(each in page for each in words)
        assert f"{settings().payer_link(reference)}/code" in page
    # Nobody can close it: another way is his choice, and he is told what it means.
    made = said(payer.get(f"/{reference}"))
    assert "dirons si l’on peut encore payer ainsi" in made
    assert "rien ne peut plus être pris" not in made
    # No way is told of that cannot be begun now.
    assert "Ou demandez un code" not in made
    assert "Terminez ou abandonnez d’abord le paiement commencé" in made
    assert press(payer, reference, "momo", phone=PHONE).headers["location"].endswith("?card=open")
    chosen = said(payer.get(f"/{reference}?card=open"))
    assert "vous paieriez deux fois" in chosen
    left = press(payer, reference, "", "/stop", anyway="1")
    assert left.headers["location"] == f"/{reference}?card=left"
    told = f"N’utilisez plus le code {order.code}"
    assert told in said(payer.get(f"/{reference}"))
    assert press(payer, reference, "momo", phone=PHONE).headers["location"].endswith("?card=asked")
    assert told in said(payer.get(f"/{reference}"))
    assert payer.get(f"/{reference}/code").headers["location"] == f"/{reference}"
    set_clock(monkeypatch, NOON + timedelta(days=4))
    assert told not in said(payer.get(f"/{reference}"))


def test_other_months_are_shown_to_who_knows_the_number(
    payer: TestClient, database: str, codes: Codes
) -> None:
    first = states.an_invoice("2026-10", registered_on=NOON.date().replace(month=10, day=1))
    number = number_of(first)
    alone = said(payer.get(f"/{first}"))
    issue("2026-11")
    months = rows_of(database, "SELECT reference FROM invoice ORDER BY period")
    assert [first] == [months[0][0]]
    assert len(months) == 2
    assert said(payer.get(f"/{first}")) == alone, "a stranger is not told that more is owed"

    def post(**fields: str) -> Any:
        return payer.post(f"/{first}/all", data=fields)

    assert post(cnss="12345").status_code == 422
    other = post(cnss="999999999")
    assert (other.status_code, 'value="999999999"' in other.text) == (422, True)
    late = post(cnss=number, what="late")
    assert late.status_code == 200, "only this one is late"
    led = [post(cnss=f" {number[:3]} {number[3:]}", what="all") for _ in range(2)]
    [both] = {each.headers["location"] for each in led}
    page = payer.get(both)
    assert "328,68 DH" in said(page)
    assert press(payer, both[1:], "cashplus").headers["location"] == f"{both}/code"
    assert "328,68 DH" in said(payer.get(f"{both}/code"))
    # Whoever has the one reference only is told that another payment is begun, and not which.
    alone = said(payer.get(f"/{first}"))
    assert "Un autre paiement de cette somme est commencé" in alone
    assert both[1:5] not in alone
    [order] = codes.aggregator.orders.values()
    assert order.code not in alone
    assert rows_of(database, "SELECT count(*) FROM bundle") == [(1,)]
    for _ in range(5):
        last = post(cnss="888888888")
    assert last.status_code == 429


def test_no_wallet_is_offered_what_none_may_hold(payer: TestClient) -> None:
    high = states.several(*(states.an_invoice() for _ in range(124)))
    page = payer.get(f"/{high}")
    assert "dépasse le plafond de tous les portefeuilles (20 000,00 DH)" in said(page)
    ways = re.findall(r'name="way" value="([^"]*)"', page.text)
    assert ways == ["cashplus"]
