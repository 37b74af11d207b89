from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.testclient import TestClient

from gateway import process
from gateway.codes import attestations as attestation_codes
from gateway.codes import cose
from gateway.codes import receipts as codes
from gateway.db import execute, transaction
from gateway.dues.tariff import tariff
from gateway.pages import site
from gateway.people import attestations
from gateway.receipts import ReceiptRecord
from tests.factories import NOON, a_report, as_owner, issue, record
from tests.gateway.pages import states
from tests.gateway.pages.states import text_of, title_of


def a_receipt() -> ReceiptRecord:
    [receipt] = states.receipts_of(states.paid())
    return receipt


def claims_of(receipt: ReceiptRecord) -> codes.Claims:
    claims = codes.claimed(codes.as_text(receipt.signed))
    assert claims is not None
    return claims


def test_a_number_shows_what_to_compare(client: TestClient) -> None:
    receipt = a_receipt()
    for language, words in (("fr", "Ce reçu est authentique et"), ("ar", "هذا الوصل أصلي وأداؤه")):
        answer = client.get(f"/verify/{receipt.number}?lang={language}")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == site.NEVER_KEPT
        text = text_of(answer)
        assert words in text
        shown = f"{receipt.reference[:4]} {receipt.reference[4:8]} {receipt.reference[8:]}"
        for part in (receipt.number, "163,52", "08:00", shown, receipt.key_id):
            assert part in text, part
        assert not [word for word in states.SECRETS if word in answer.text]


def test_a_number_is_understood_however_it_is_typed(client: TestClient) -> None:
    number = "R26-123456789"
    for text in (number, " r26 123456789 ", "26-123456789", f"https://x.example/verify/{number}"):
        answer = client.post("/verify", data={"receipt": text})
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/verify/{number}"
    assert client.get(f"/verify/{number.lower()}").headers["location"] == f"/verify/{number}"


def test_a_reversed_payment_is_said_to_count_no_more(client: TestClient) -> None:
    [receipt] = states.receipts_of(states.taken_back())
    for answer in (
        client.get(f"/verify/{receipt.number}"),
        client.post("/verify", data={"receipt": codes.as_text(receipt.signed)}),
    ):
        assert answer.status_code == 200
        assert "mais son paiement a été annulé" in text_of(answer)
        assert "paiement compte" not in text_of(answer)


def test_a_retired_key_is_good_and_said_to_be_retired(client: TestClient) -> None:
    receipt = a_receipt()
    process.receipt_keys().rotate(now=NOON + timedelta(days=3))
    text = text_of(client.get(f"/verify/{receipt.number}"))
    assert "Ce reçu est authentique et" in text
    assert f"La clé {receipt.key_id} a signé du 18 novembre 2026 au 21 novembre 2026" in text


def test_each_worth_of_a_code_has_its_own_answer(client: TestClient) -> None:
    receipt = a_receipt()
    genuine = codes.as_text(receipt.signed)
    changed = bytearray(receipt.signed)
    changed[-1] ^= 1
    claims = claims_of(receipt)
    signer = process.receipt_keys().signer(now=NOON)
    stranger = Ed25519PrivateKey.generate()
    unbooked = replace(claims, receipt_number="R26-000000001")

    def signed(stated: codes.Claims, key_id: str, private_key: Ed25519PrivateKey) -> str:
        return codes.as_text(codes.sign(stated, key_id=key_id, private_key=private_key))

    answers = {
        genuine: (200, "Ce reçu est authentique et son paiement compte"),
        codes.as_text(bytes(changed)): (200, "Ce reçu a été modifié"),
        signed(claims, "0badc0de", stranger): (200, "Ce reçu ne vient pas de nous"),
        signed(unbooked, signer.key_id, signer.private): (200, "ne concorde pas avec nos livres"),
        genuine[:-30]: (422, "Il manque une partie du code"),
        "Facture 12": (422, "ni un numéro de reçu ni le code"),
        receipt.reference: (422, "C’est une référence de paiement"),
        "": (422, "Tapez le numéro du reçu"),
    }
    titles = set()
    for text, (status, words) in answers.items():
        answer = client.post("/verify", data={"receipt": text})
        assert answer.status_code == status, text
        assert words in text_of(answer), text
        assert "invalid" not in text_of(answer).lower()
        assert title_of(answer).startswith("Erreur\u00a0: ") == (status == 422)
        titles.add((title_of(answer), words))
        assert client.post("/verify?lang=ar", data={"receipt": text}).status_code == status
    assert len(titles) == len(answers)


def test_the_other_language_keeps_a_code(client: TestClient) -> None:
    genuine = codes.as_text(a_receipt().signed)
    answer = client.post("/verify", data={"receipt": genuine})
    [link] = re.findall(r'hreflang="ar" href="([^"]+)"', answer.text)
    assert "هذا الوصل أصلي وأداؤه" in text_of(client.get(html.unescape(link)))


def test_books_that_were_changed_behind_the_receipt_are_noticed(
    client: TestClient, database: str
) -> None:
    receipt = a_receipt()
    as_owner(database, "UPDATE payment SET amount_minor = amount_minor + 1")
    assert "ne concorde pas avec nos livres" in text_of(client.get(f"/verify/{receipt.number}"))


def test_a_number_that_nobody_has_is_unknown(client: TestClient) -> None:
    answer = client.get("/verify/R26-000000001")
    assert answer.status_code == 404
    assert "aucun reçu sous ce numéro" in text_of(answer)
    assert client.get("/verify/hello").status_code == 422
    assert "R26-123456789" in text_of(client.get("/verify/hello"))


def test_a_photo_of_either_code_is_read(client: TestClient) -> None:
    receipt = a_receipt()
    signed = states.photo_of(codes.as_text(receipt.signed))
    answer = client.post("/verify", files={"photo": ("a.png", signed, "image/png")})
    assert "Ce reçu est authentique et" in text_of(answer)
    link = states.photo_of(f"https://x.example/verify/{receipt.number}")
    answer = client.post("/verify", files={"photo": ("a.png", link, "image/png")})
    assert answer.headers["location"] == f"/verify/{receipt.number}"
    for photo, words in ((b"", "Choisissez"), (b"x", "n’est pas une photo lisible")):
        answer = client.post("/verify", files={"photo": ("a.png", photo, "image/png")})
        assert answer.status_code == 422
        assert words in text_of(answer)


def test_the_offline_page_holds_every_key_and_no_script_of_its_own(client: TestClient) -> None:
    a_receipt()
    process.receipt_keys().rotate(now=NOON)
    answer = client.get("/verify/offline")
    assert answer.status_code == 200
    [data] = re.findall(r'data-keys="([^"]+)"', answer.text)
    published = client.get("/.well-known/wasl-keys.json").json()
    assert json.loads(html.unescape(data)) == published["keys"]
    assert [key["until"] is None for key in published["keys"]] == [False, True]
    assert re.findall(r"<script(?! src=)", answer.text) == []
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "connect-src" not in answer.headers["content-security-policy"]


def test_the_keys_are_for_everybody(client: TestClient) -> None:
    answer = client.get("/.well-known/wasl-keys.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.json() == process.receipt_keys().as_json()
    assert '"d"' not in answer.text


def test_a_receipt_whose_key_was_lost_is_no_strangers(client: TestClient, home: Path) -> None:
    receipt = a_receipt()
    (home / "keys" / "receipts.json").unlink()
    text = text_of(client.get(f"/verify/{receipt.number}"))
    assert "ne concorde pas avec nos livres" in text
    assert "ne vient pas de nous" not in text


def test_money_that_pays_another_thing_is_not_said_to_pay_this(client: TestClient) -> None:
    nothing = states.cancelled()
    record(a_report(nothing))
    states.sign()
    for reference, here, credit in (
        (nothing, "0,00", "163,52"),
        (states.paid(20000), "163,52", "36,48"),
    ):
        [receipt] = states.receipts_of(reference)
        answer = client.get(f"/verify/{receipt.number}")
        fr = text_of(answer)
        assert "Ce reçu est authentique et son paiement n’a pas été annulé" in fr
        assert "paiement compte" not in fr + title_of(answer)
        assert f"Dont pour cette cotisation {here} DH" in fr
        assert f"Gardé en avoir pour le payeur {credit} DH" in fr
        assert ("il ne paie pas cette cotisation" in fr) == (reference == nothing)
        ar = text_of(client.get(f"/verify/{receipt.number}?lang=ar"))
        assert "ولم يلغ أداؤه" in ar
    whole = text_of(client.get(f"/verify/{a_receipt().number}"))
    assert "son paiement compte" in whole
    assert "en avoir" not in whole


def test_a_key_that_the_page_without_a_network_lacks_condemns_nothing(client: TestClient) -> None:
    for language, words in (("fr", "ne connaît pas la clé"), ("ar", "لا تعرف هذه الصفحة مفتاح")):
        answer = client.get(f"/verify/offline?lang={language}")
        [note] = re.findall(r'<div class="note" data-say="foreign" hidden>.*?</div>', answer.text)
        assert words in note
        assert "✗" not in note
        assert 'href="/verify' in note
    # A new key is on the page within minutes.
    told = dict(part.strip().split("=") for part in answer.headers["cache-control"].split(",")[1:])
    assert int(told["max-age"]) <= 600


def an_attestation() -> attestations.Attestation:
    """Return one of who has paid October, and owes November by its end."""
    reference = states.an_invoice("2026-10", registered_on=date(2026, 10, 1))
    record(a_report(reference, paid_at=NOON - timedelta(days=25)))
    issue("2026-11")
    with transaction() as session:
        person = execute(session, "SELECT DISTINCT contributor_id FROM invoice").scalar_one()
        made = attestations.attest(session, person, process.receipt_keys(), tariff(), now=NOON)
    assert made is not None
    return made[0]


def test_an_attestation_is_told_by_initials_and_as_it_stands(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = an_attestation()
    code = cose.as_text(made.signed)
    for language, words, key in (
        ("fr", "et son titulaire est à jour", "La clé qui a signé l’attestation"),
        ("ar", "ووضعية صاحبها سليمة", "المفتاح الذي وقع الشهادة"),
    ):
        for answer in (
            client.get(f"/verify/{made.number}?lang={language}"),
            client.post(f"/verify?lang={language}", data={"receipt": code}),
        ):
            assert answer.status_code == 200
            assert answer.headers["cache-control"] == site.NEVER_KEPT
            text = text_of(answer)
            for part in (words, key, made.number, "2026", made.key_id):
                assert part in text, part
            assert not [word for word in states.SECRETS if word in answer.text]
    assert "F. Z. E. I." in text_of(client.get(f"/verify/{made.number}?lang=fr"))
    typed = client.post("/verify", data={"receipt": made.number.lower()})
    assert typed.headers["location"] == f"/verify/{made.number}"

    # November is not paid when it ends; after December the attestation itself has ended.
    for at, words in (
        (NOON + timedelta(days=13), "mais son titulaire n’est plus à jour"),
        (NOON + timedelta(days=44), "mais elle a expiré"),
    ):
        monkeypatch.setattr("gateway.pages.verify.now", lambda at=at: at)
        answer = client.get(f"/verify/{made.number}")
        assert words in text_of(answer)
        assert "est à jour" not in text_of(answer)


def test_what_is_no_attestation_of_ours_is_said_to_be_none(client: TestClient) -> None:
    made = an_attestation()
    changed = bytearray(made.signed)
    changed[-1] ^= 1
    claims = attestation_codes.claimed(made.signed)
    assert claims is not None
    stranger = attestation_codes.sign(
        claims, key_id="0badc0de", private_key=Ed25519PrivateKey.generate()
    )
    for text, status, words in (
        (cose.as_text(bytes(changed)), 200, "Cette attestation a été modifiée"),
        (cose.as_text(bytes(changed)), 200, "L’attestation nomme une de nos clés"),
        (cose.as_text(stranger), 200, "Cette attestation ne vient pas de nous"),
        (cose.as_text(stranger), 200, "L’attestation est signée par une clé"),
        (cose.as_text(made.signed)[:-30], 422, "Il manque une partie du code"),
    ):
        answer = client.post("/verify", data={"receipt": text})
        assert (answer.status_code, words in text_of(answer)) == (status, True), words
    unknown = client.get("/verify/A26-000000001")
    assert unknown.status_code == 404
    assert "aucune attestation sous ce numéro" in text_of(unknown)
