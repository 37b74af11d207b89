from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from gateway.codes.receipts import as_text
from gateway.db import execute, snapshot
from gateway.pages import site
from gateway.pages.receipt import TRIES_MAX
from gateway.settings import settings
from tests.factories import NOON, a_report, issue, record
from tests.gateway.pages import states
from tests.gateway.pages.conftest import a_client, set_clock
from tests.gateway.pages.states import text_of, title_of


def test_a_receipt_shows_what_was_paid_and_how_to_check_it(client: TestClient) -> None:
    reference = states.paid()
    [receipt] = states.receipts_of(reference)
    for language, words in (("fr", "Paiement reçu"), ("ar", "تم استلام الأداء")):
        answer = client.get(f"/{reference}/receipt?lang={language}")
        text = text_of(answer)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == site.NEVER_KEPT
        assert words in text
        assert receipt.number in title_of(answer)
        for part in (receipt.number, "163,52", "08:00", settings().receipt_link(receipt.number)):
            assert part in text, part
        assert as_text(receipt.signed) in html.unescape(answer.text)
        assert len(re.findall("<svg ", answer.text)) == 2


def test_every_payment_has_its_receipt(client: TestClient) -> None:
    reference = states.paid(6000, 10352)
    first, second = states.receipts_of(reference)
    latest = client.get(f"/{reference}/receipt")
    assert second.number in title_of(latest)
    assert first.number in text_of(latest)
    [link] = re.findall(rf'href="(/{reference}/receipt\?number={first.number})"', latest.text)
    chosen = client.get(link)
    assert first.number in title_of(chosen)
    assert "60,00 DH" in text_of(chosen)
    assert client.get(f"/{reference}/receipt?number=R99-000000000").status_code == 404


def test_what_was_taken_back_says_so(client: TestClient) -> None:
    reference = states.taken_back()
    fr = text_of(client.get(f"/{reference}/receipt"))
    assert "Paiement annulé" in fr
    assert "il ne compte plus" in fr
    assert "Paiement reçu" not in fr
    assert "ألغي هذا الأداء" in text_of(client.get(f"/{reference}/receipt?lang=ar"))


def test_what_was_given_back_in_part_says_so(client: TestClient) -> None:
    reference = states.given_back(6352)
    fr = text_of(client.get(f"/{reference}/receipt"))
    assert "Paiement reçu" in fr
    assert "63,52 DH en ont été rendus depuis : 100,00 DH comptent." in fr
    assert "Reste à payer 63,52 DH" in fr
    assert "AMO1:" not in fr
    assert "أُرجِع" in text_of(client.get(f"/{reference}/receipt?lang=ar"))
    page = text_of(client.get(f"/{reference}"))
    assert "63,52 DH rendus le 18 novembre 2026" in page
    [receipt] = states.receipts_of(reference)
    verdict = text_of(client.get(f"/verify/{receipt.number}"))
    assert "mais une partie de son paiement a été rendue" in verdict
    assert "Rendu depuis 63,52 DH" in verdict
    assert "Rendu le 18 novembre 2026" in verdict


def test_what_was_given_back_whole_is_said_to_be_refunded(client: TestClient) -> None:
    reference = states.given_back(16352)
    shown = text_of(client.get(f"/{reference}/receipt"))
    assert "Paiement remboursé" in shown
    assert "annulé" not in shown
    page = text_of(client.get(f"/{reference}"))
    assert "a été remboursé : l’argent est retourné à celui qui a payé" in page
    assert "Déjà payé" not in page
    assert "Rendu le 18 novembre 2026" in page
    [receipt] = states.receipts_of(reference)
    verdict = text_of(client.get(f"/verify/{receipt.number}"))
    assert "son paiement a été remboursé" in verdict
    assert "Rendu le 18 novembre 2026" in verdict


def test_a_dispute_is_said_beside_a_payment_that_stands(client: TestClient) -> None:
    reference = states.disputed()
    fr = text_of(client.get(f"/{reference}/receipt"))
    assert "Paiement reçu" in fr
    assert "conteste ce paiement" in fr
    [receipt] = states.receipts_of(reference)
    verdict = text_of(client.get(f"/verify/{receipt.number}"))
    assert "et son paiement compte" in verdict
    assert "conteste ce paiement" in verdict


def test_what_was_paid_too_much_is_kept_for_the_payer(client: TestClient) -> None:
    fr = text_of(client.get(f"/{states.paid(20000)}/receipt"))
    assert "200,00 DH" in fr
    assert "Dont pour cette cotisation 163,52 DH" in fr
    assert "Gardé pour vous en avoir 36,48 DH" in fr


def test_a_receipt_in_the_making_comes_by_itself(client: TestClient) -> None:
    reference = states.paid(signed=False)
    path, waits = f"/{reference}/receipt", []
    answer = client.get(f"{path}?lang=ar")
    assert answer.status_code == 200
    while "refresh" in answer.headers:
        seconds, _, url = answer.headers["refresh"].partition("; url=")
        waits.append(int(seconds))
        assert url.startswith(path)
        assert "lang=ar" in url
        answer = client.get(url)
    # Ever more slowly, and not for ever: a slow link costs money.
    assert waits == sorted(set(waits))
    assert len(waits) == TRIES_MAX
    assert 'http-equiv="refresh"' not in answer.text
    states.sign()
    assert states.receipts_of(reference)[0].number in title_of(client.get(url))


def test_a_second_receipt_in_the_making_hides_not_the_first(client: TestClient) -> None:
    reference = states.paid(6000)
    record(a_report(reference, amount_minor=1000))
    answer = client.get(f"/{reference}/receipt")
    assert "Un autre reçu est en préparation" in text_of(answer)
    assert states.receipts_of(reference)[0].number in title_of(answer)


def test_without_a_payment_there_is_no_receipt(client: TestClient) -> None:
    reference = states.an_invoice()
    for path in (f"/{reference}/receipt", f"/{reference}/receipt.pdf"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert "Il n’y a pas encore de reçu" in text_of(answer)
        assert f'href="/{reference}"' in answer.text


def test_a_receipt_answers_for_ever(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = states.paid()
    set_clock(monkeypatch, NOON + timedelta(days=3000))
    answer = a_client(app).get(f"/{reference}/receipt")
    assert answer.status_code == 200
    assert "Paiement reçu" in text_of(answer)


def test_a_receipt_on_paper_names_nobody(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def paper(record: Any, presented: Any, **options: Any) -> bytes:
        given.append((record, presented, options))
        return b"%PDF-"

    monkeypatch.setattr("gateway.pages.receipt.receipt_pdf", paper)
    reference = states.paid(6000, 10352)
    first, second = states.receipts_of(reference)
    answer = client.get(f"/{reference}/receipt.pdf")
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["cache-control"] == site.NEVER_KEPT
    client.get(f"/{reference}/receipt.pdf?number={first.number.lower()}")
    assert [record.number for record, _, _ in given] == [second.number, first.number]
    assert all(options["masked"] is True for _, _, options in given)


def test_a_paper_that_cannot_be_made_yet_leads_to_the_page(client: TestClient) -> None:
    reference = states.paid(signed=False)
    answer = client.get(f"/{reference}/receipt.pdf")
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/{reference}/receipt"


def test_a_number_of_another_contribution_denies_no_payment(client: TestClient) -> None:
    paid, unpaid = states.paid(), states.an_invoice()
    [other] = states.receipts_of(states.paid())
    for reference, link in ((paid, f"/{paid}/receipt"), (unpaid, f"/{unpaid}")):
        for path in ("receipt", "receipt.pdf"):
            for number in (other.number, "R99-000000000", "hello", ""):
                answer = client.get(f"/{reference}/{path}?number={number}")
                assert answer.status_code == 404
                assert "Ce numéro de reçu n’est pas celui d’un reçu de" in text_of(answer)
                assert "Aucun paiement" not in text_of(answer)
                assert f'href="{link}"' in answer.text
    ar = text_of(client.get(f"/{paid}/receipt?number={other.number}&lang=ar"))
    assert "ليس من وصولات هذا الاشتراك" in ar
    assert other.number in ar
    awaited = states.paid(signed=False)
    assert client.get(f"/{awaited}/receipt?number={other.number}").status_code == 404


def test_the_signed_code_of_what_was_taken_back_is_not_handed_out(client: TestClient) -> None:
    reference = states.taken_back()
    [receipt] = states.receipts_of(reference)
    answer = client.get(f"/{reference}/receipt")
    assert answer.status_code == 200
    assert "AMO1:" not in html.unescape(answer.text)
    assert len(re.findall("<svg ", answer.text)) == 1
    assert settings().receipt_link(receipt.number) in text_of(answer)


def test_the_receipt_that_is_shown_first_is_one_that_stands(client: TestClient) -> None:
    reference = states.paid(6000)
    states.reversed_again(reference, 10352)
    stands, _ = states.receipts_of(reference)
    assert stands.number in title_of(client.get(f"/{reference}/receipt"))
    # Of none that stands it is the latest, and of one in the making that one.
    reference = states.taken_back()
    [back] = states.receipts_of(reference)
    assert back.number in title_of(client.get(f"/{reference}/receipt"))
    record(a_report(reference))
    assert "refresh" in client.get(f"/{reference}/receipt").headers


def test_a_receipt_of_a_cancelled_notice_says_whose_the_money_is(client: TestClient) -> None:
    reference = states.cancelled()
    record(a_report(reference))
    states.sign()
    fr = text_of(client.get(f"/{reference}/receipt"))
    assert "L’avis a été annulé, et cet argent est votre avoir" in fr
    assert "agence" in fr
    assert "Gardé pour vous en avoir 163,52 DH" in fr
    assert "رصيد لفائدتكم" in text_of(client.get(f"/{reference}/receipt?lang=ar"))
    assert "L’avis a été annulé" not in text_of(client.get(f"/{states.paid()}/receipt"))


def test_a_receipt_says_what_its_money_pays_now(client: TestClient) -> None:
    reference = states.paid(20000)
    issue("2026-12")
    said = text_of(client.get(f"/{reference}/receipt")).replace("\xa0", " ")
    assert "Dont pour d’autres de vos cotisations 36,48 DH" in said
    assert "Gardé pour vous en avoir" not in said
    with snapshot() as session:
        query = "SELECT reference FROM invoice WHERE period = '2026-12'"
        next_one = execute(session, query).scalar_one()
    later = client.get(f"/{next_one}")
    assert "De votre avoir" in text_of(later)
    # Whoever has this reference need not have that one.
    assert reference not in later.text
